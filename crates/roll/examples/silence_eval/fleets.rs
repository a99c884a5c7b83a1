//! Whole fleets: a regional outage, a day with a holiday and clocks that change, HQ off for two
//! hours, a drop, new sites.

use rollcall_roll::{Incident, Kind, Notice, SiteSpec, Watch, WatchConfig};

use crate::{
    run::Run,
    world::{DAY, Fault, TABLES, What, World, ZONES, at},
};

pub(crate) fn run() {
    outage();
    hq_off();
    drop_to_two_fifths();
    first_day();
}

/// Open minutes of a site from a minute until an incident of its own, of this kind.
pub(crate) fn delays(run: &Run, kind: Kind, faults: &[Fault]) -> Vec<f64> {
    let opened_at = |fault: &Fault| {
        let id = &run.world.sites[fault.site].spec.id;
        let own = run.incidents.values().filter(|incident| incident.kind == kind && incident.members.contains_key(id));
        // A relapse within a day is the same incident.
        let began = |incident: &Incident| {
            let again = incident.timeline.iter().filter(|entry| entry.text.starts_with("again")).map(|entry| entry.at);
            again.chain([incident.opened_at]).filter(|began| *began >= at(fault.from)).min()
        };
        own.filter_map(began).min()
    };
    let delay = |fault: &Fault| {
        let Some(opened) = opened_at(fault) else { return f64::INFINITY };
        let minutes = (fault.from..).take_while(|minute| at(*minute) < opened);
        minutes.filter(|minute| run.world.is_planned_open(fault.site, *minute)).count() as f64
    };
    let mut delays: Vec<f64> = faults.iter().map(delay).collect();
    delays.sort_by(f64::total_cmp);
    delays
}

pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// Rows of one table of 40 sites fall to two fifths; 200 others go on.
fn drop_to_two_fifths() {
    const TRAINED: i64 = 42 * DAY;
    for (table, traffic) in TABLES.iter().enumerate().take(2) {
        let mut run = Run::of(World::new(21, 240, &ZONES[..3], true));
        run.run(0, TRAINED, &[], |_, _| true);
        run.settle();
        let noon = TRAINED + 19 * 60;
        let faults: Vec<Fault> = (0..40)
            .map(|site| Fault { site, from: noon, to: noon + 10 * DAY, what: What::TableDrops(table) })
            .collect();
        run.run(TRAINED, TRAINED + 10 * DAY, &faults, |_, _| true);
        let found = delays(&run, Kind::Drop, &faults);
        let of_others = |incident: &&Incident| {
            let is_other = |site: &rollcall_types::SiteId| {
                run.world.sites.iter().position(|known| known.spec.id == *site).is_none_or(|number| number >= 40)
            };
            incident.kind == Kind::Drop && incident.members.keys().all(is_other)
        };
        let false_ones = run.incidents.values().filter(of_others).count();
        println!(
            "\n240 sites, {} ({} an hour) falls to 40 % at 40 of them: noticed after {:.1} / {:.1} open hours (median / \
             90th percentile), {:.0} % not within ten days; {false_ones} drops said of the other 200 sites ({:.2} a site-month)",
            traffic.name,
            traffic.per_hour,
            quantile(&found, 0.5) / 60.0,
            quantile(&found, 0.9) / 60.0,
            found.iter().filter(|delay| delay.is_infinite()).count() as f64 * 100.0 / found.len() as f64,
            false_ones as f64 / (200.0 * 10.0 / 30.44)
        );
    }
}

/// 40 sites open for the first time; at 14:00 half of them stop, and as many old ones.
fn first_day() {
    const TRAINED: i64 = 42 * DAY;
    let world = World::new(22, 240, &[chrono_tz::America::Chicago], true);
    let mut run = Run { watch: Watch::new(WatchConfig::default(), at(0)), ..Run::of(world) };
    let (old, new) = (0..200, 200..240);
    for site in &run.world.sites[old] {
        run.watch.set_site(site.spec.clone());
    }
    run.run(0, TRAINED, &[], |site, _| site < 200);
    for site in &run.world.sites[new] {
        run.watch.set_site(SiteSpec { expected_from: at(TRAINED), ..site.spec.clone() });
    }
    run.settle();
    // 20:00 UTC is 14:00 in Chicago.
    let stopped = TRAINED + 20 * 60;
    let stop = |site| Fault { site, from: stopped, to: stopped + DAY, what: What::Stop };
    let (mature, fresh): (Vec<Fault>, Vec<Fault>) = ((0..20).map(stop).collect(), (200..220).map(stop).collect());
    let all = [&mature[..], &fresh[..]].concat();
    run.run(TRAINED, stopped + 8 * 60, &all, |_, _| true);
    for (what, faults) in [("42 days old", mature), ("on their first day", fresh)] {
        let faults: Vec<Fault> =
            faults.into_iter().filter(|fault| run.world.is_planned_open(fault.site, fault.from)).collect();
        let found = delays(&run, Kind::Silence, &faults);
        println!(
            "\n{} sites {what} stop by day: an incident after {:.0} / {:.0} open minutes (median / 90th percentile)",
            faults.len(),
            quantile(&found, 0.5),
            quantile(&found, 0.9)
        );
    }
}

/// 3,000 of 20,000 sites lose power; then a provider fails as well.
fn outage() {
    const TRAINED: i64 = 15 * DAY;
    let mut run = Run::new(11, 20_000, &[chrono_tz::America::Chicago]);
    run.run(0, TRAINED + 19 * 60, &[], |_, _| true);
    run.settle();
    // 19:00 UTC is 13:00 in Chicago; regions are 1,000 sites each.
    let noon = TRAINED + 19 * 60;
    run.run(noon, noon + 120, &[], |site, _| region(site) != 2);
    println!("\n20,000 sites, a region of 3,000 silent at once: groups: {}", run.groups().join("; "));
    println!("pages: {} for groups, {} for single sites", run.pages(Kind::Group), run.pages(Kind::Silence));
    run.run(noon + 120, noon + 180, &[], |_, _| true);
    run.settle();
    let isp: Vec<bool> =
        run.world.sites.iter().map(|site| site.spec.attributes.get("isp").is_some_and(|isp| isp == "isp-7")).collect();
    let later = noon + 180;
    run.run(later, later + 90, &[], |site, minute| !(region(site) == 5 || minute >= later + 15 && isp[site]));
    println!("one region silent and, 15 minutes later, one provider: groups: {}", run.groups().join("; "));
    println!("pages: {} for groups, {} for single sites", run.pages(Kind::Group), run.pages(Kind::Silence));
}

fn region(site: usize) -> usize {
    site / 3000
}

/// Alarms on everyday days, a holiday, and the days on which clocks change, over 30 zones.
pub(crate) fn calendar() {
    const TRAINED: i64 = 28 * DAY;
    const SITES: usize = 20_000;
    let mut world = World::new(12, SITES, &ZONES, false);
    let day = |month, day| chrono::NaiveDate::from_ymd_opt(2026, month, day).expect("a day");
    world.add_holiday(day(3, 17), false);
    world.add_holiday(day(3, 24), true);
    let mut run = Run::of(world);
    run.run(0, TRAINED, &[], |_, _| true);
    run.settle();
    let mut days = Vec::new();
    let verbose = std::env::var_os("ROLLCALL_EVAL_KINDS").is_some();
    for day in 28..63 {
        run.run(day * DAY, (day + 1) * DAY, &[], |_, _| true);
        let pages = run.told.iter().filter(|decision| decision.notice == Notice::Opened).count();
        days.push((day, pages));
        if verbose {
            let kinds = [Kind::Silence, Kind::Group, Kind::CohortQuiet, Kind::HqBlind];
            println!("  day {day}: {:?}", kinds.map(|kind| (kind, run.pages(kind))));
        }
        run.settle();
    }
    // 2026-02-02 is day 0: 8 March (day 34) United States, 29 March (day 55) Europe, 5 April (day
    // 62) Sydney and Auckland.
    let special = [34, 43, 44, 50, 51, 55, 62];
    let usual: Vec<usize> = days.iter().filter(|(day, _)| !special.contains(day)).map(|(_, pages)| *pages).collect();
    let mean = usual.iter().sum::<usize>() as f64 / usual.len() as f64;
    println!(
        "\n{SITES} sites in 30 zones, pages a day: usual days {mean:.1} on average, {} at most",
        usual.iter().max().copied().unwrap_or(0)
    );
    for (day, name) in [
        (34, "clocks change in the United States"),
        (43, "an undeclared holiday"),
        (44, "the day after"),
        (50, "a declared holiday"),
        (51, "the day after"),
        (55, "clocks change in Europe"),
        (62, "clocks change in Australia"),
    ] {
        let pages = days.iter().find(|(known, _)| *known == day).map_or(0, |(_, pages)| *pages);
        println!("  day {day}, {name}: {pages}");
    }
    let site_months = SITES as f64 * 35.0 / 30.44;
    let all: usize = days.iter().map(|(_, pages)| *pages).sum();
    println!("  {:.3} pages per site-month at the default thresholds", all as f64 / site_months);
}

/// HQ is off for a while; 2,000 sites come back within some minutes.
fn hq_off() {
    const TRAINED: i64 = 15 * DAY;
    for minutes in [10, 120] {
        let mut run = Run::new(13, 2_000, &[chrono_tz::America::Chicago]);
        // Nothing else goes wrong: whatever is told is HQ's own doing.
        run.world.is_lively = false;
        let noon = TRAINED + 19 * 60;
        run.run(0, noon, &[], |_, _| true);
        run.settle();
        let back = noon + minutes;
        run.run(back, back + 300, &[], |site, minute| minute - back > site as i64 % 15);
        println!(
            "\n2,000 sites, HQ off for {minutes} minutes: {} pages about HQ, {} about sites and groups",
            run.pages(Kind::HqBlind),
            run.pages(Kind::Silence) + run.pages(Kind::Group) + run.pages(Kind::CohortQuiet)
        );
    }
}
