//! What watching a million sites costs: memory, and events a second on one core.
//!
//! `cargo bench -p rollcall-roll --bench watch` prints both; `ROLLCALL_SITES` sets how many sites of four streams there are.
//! The clock alone is measured: rhythms are learned apart from it, a day at a time.
#![allow(missing_docs)]

use std::{sync::Arc, time::Instant};

use rollcall_roll::{Calendar, Clock, Pace, Shape, StreamId, Tails, Thresholds, Unit};

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default();
    pages * 4096
}

fn main() {
    let sites: usize = std::env::var("ROLLCALL_SITES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let start = 1_769_990_400; // a Monday, midnight UTC
    let before = resident();
    let mut clock = Clock::new(start, Thresholds::default(), 60);
    let zones =
        [chrono_tz::America::New_York, chrono_tz::America::Los_Angeles, chrono_tz::Europe::Berlin, chrono_tz::UTC];
    let calendars: Vec<_> =
        zones.map(|zone| clock.add_calendar(Calendar { zone, ..Calendar::default() })).into_iter().collect();
    let contact = clock.add_shape(Arc::new(Shape::flat(Unit::ContactMinutes)));
    let rows = clock.add_shape(Arc::new(Shape::unlearned(Unit::Rows)));
    let cohorts: Vec<_> = calendars
        .iter()
        .map(|calendar| (clock.add_cohort(contact, *calendar), clock.add_cohort(rows, *calendar)))
        .collect();
    let mut streams: Vec<StreamId> = Vec::with_capacity(sites * 4);
    for site in 0..sites {
        let zone = site % zones.len();
        for stream in 0..4 {
            let (cohort, shape, level, tails) = match stream {
                0 => (cohorts[zone].0, contact, 60.0, Tails::OF_CONTACT),
                table => (cohorts[zone].1, rows, 3.0 * table as f32, Tails::OF_ROWS),
            };
            let pace = Pace { shape, level, evidence: 500.0, tails, rows_per_event: 3.0 };
            streams.push(clock.add_stream(cohort, calendars[zone], pace, start));
        }
    }
    let mut out = Vec::new();
    let (mut events, mut minutes) = (0_u64, 0);
    let started = Instant::now();
    // Every site is heard every minute, and now and then a table has rows.
    for minute in 1..=10 {
        let now = start + 10 * 3600 + minute * 60;
        if minute == 1 {
            // The night passed in silence, as it should.
            for stream in &streams {
                clock.event(*stream, now, 1.0);
            }
            events += streams.len() as u64;
        }
        clock.tick(now, true, &mut out);
        for site in 0..sites {
            clock.event(streams[site * 4], now, 1.0);
            let table = (site + minute as usize) % 12;
            if table < 3 {
                clock.event(streams[site * 4 + 1 + table], now, 2.0);
                events += 1;
            }
        }
        events += sites as u64;
        minutes += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{sites} sites, {} streams: {:.0} MiB resident, {:.2} million events/s on one core, ticks included ({minutes} minutes of \
         fleet time in {seconds:.1} s)",
        streams.len(),
        (resident() - before) as f64 / (1 << 20) as f64,
        events as f64 / seconds / 1e6,
    );
}
