//! What watching a million sites costs: memory, and events a second on one core.
//!
//! `cargo bench -p rollcall-roll --bench watch` prints both; `ROLLCALL_SITES` sets how many sites
//! of four streams there are. First the clock alone, which every event goes through; then the whole
//! watch, with names, attributes and incidents, as HQ calls it. Rhythms are learned apart from
//! both, a day at a time, and are not in it.
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]
#![allow(missing_docs)]

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use rollcall_roll::{
    CONTACT, Calendar, Clock, Pace, Shape, SiteSpec, StreamId, Tails, Thresholds, Unit, Watch, WatchConfig,
};
use rollcall_types::{SiteId, Timestamp};

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default();
    pages * 4096
}

/// A Monday, midnight UTC.
const START: i64 = 1_769_990_400;
const ZONES: [chrono_tz::Tz; 4] =
    [chrono_tz::America::New_York, chrono_tz::America::Los_Angeles, chrono_tz::Europe::Berlin, chrono_tz::UTC];

fn main() {
    let sites: usize = std::env::var("ROLLCALL_SITES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    clock(sites);
    watch(sites);
}

fn print(what: &str, sites: usize, bytes: usize, events: u64, seconds: f64) {
    println!(
        "{what}: {sites} sites, {} streams: {:.0} MiB resident, {:.2} million events/s on one core, ticks included ({events} events in \
         {seconds:.1} s)",
        sites * 4,
        bytes as f64 / (1 << 20) as f64,
        events as f64 / seconds / 1e6,
    );
}

/// The same through the whole watch, by the names of sites and streams.
fn watch(sites: usize) {
    const TABLES: [&str; 3] = ["sales", "items", "payments"];
    let at = |seconds: i64| Timestamp::from_seconds(START + seconds);
    let ids: Vec<SiteId> = (0..sites).map(|site| SiteId::new(&format!("s{site:07}")).expect("valid")).collect();
    let before = resident();
    let mut watch = Watch::new(WatchConfig { learns: false, ..WatchConfig::default() }, at(0));
    for (site, id) in ids.iter().enumerate() {
        let attributes: BTreeMap<String, String> = [("isp", site % 40), ("region", site % 200), ("city", site / 100)]
            .map(|(name, value)| (name.to_owned(), value.to_string()))
            .into();
        let calendar = Calendar { zone: ZONES[site % ZONES.len()], ..Calendar::default() };
        // A copy, so that the names are counted as its own.
        let id = SiteId::new(id.as_str()).expect("valid");
        watch.set_site(SiteSpec { id, calendar, attributes, expected_from: at(0), enrolled: true });
    }
    let mut events = 0_u64;
    // The first time, every stream is heard.
    for id in &ids {
        watch.event(id, CONTACT, at(0), 1.0);
        TABLES.iter().for_each(|table| watch.event(id, table, at(0), 1.0));
    }
    let started = Instant::now();
    for minute in 1..=10 {
        let now = at(minute * 60);
        watch.tick(now);
        for (site, id) in ids.iter().enumerate() {
            watch.event(id, CONTACT, now, 1.0);
            if let Some(table) = TABLES.get((site + minute as usize) % 12) {
                watch.event(id, table, now, 2.0);
                events += 1;
            }
        }
        events += sites as u64;
    }
    let seconds = started.elapsed().as_secs_f64();
    print("the whole watch", sites, resident() - before, events, seconds);
}

/// The clock alone.
fn clock(sites: usize) {
    let start = START;
    let before = resident();
    let mut clock = Clock::new(start, Thresholds::default(), 60);
    let calendars: Vec<_> =
        ZONES.map(|zone| clock.add_calendar(Calendar { zone, ..Calendar::default() })).into_iter().collect();
    let contact = clock.add_shape(Arc::new(Shape::flat(Unit::ContactMinutes)));
    let rows = clock.add_shape(Arc::new(Shape::unlearned(Unit::Rows)));
    let cohorts: Vec<_> = calendars
        .iter()
        .map(|calendar| (clock.add_cohort(contact, *calendar), clock.add_cohort(rows, *calendar)))
        .collect();
    let mut streams: Vec<StreamId> = Vec::with_capacity(sites * 4);
    for site in 0..sites {
        let zone = site % ZONES.len();
        for stream in 0..4 {
            let (cohort, shape, level, tails) = match stream {
                0 => (cohorts[zone].0, contact, 60.0, Tails::OF_CONTACT),
                table => (cohorts[zone].1, rows, 3.0 * table as f32, Tails::OF_ROWS),
            };
            let pace = Pace { shape, level, evidence: 500.0, tails, rows_per_event: 3.0, longest: 0.0 };
            streams.push(clock.add_stream(cohort, calendars[zone], pace, start));
        }
    }
    let mut out = Vec::new();
    let mut events = 0_u64;
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
    }
    let seconds = started.elapsed().as_secs_f64();
    print("the clock", sites, resident() - before, events, seconds);
}
