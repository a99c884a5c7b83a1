//! What people are told: of faults that are real, of a site that is silent for twelve weeks, of
//! lines that flap, and which attribute is named when two causes overlap. All at the default
//! thresholds.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use rollcall_roll::{Kind, Notice};
use rollcall_types::{SiteId, SiteState};

use crate::{
    fleets::{delays, quantile},
    run::Run,
    world::{DAY, Fault, What, World, at},
};

const TRAINED: i64 = 42 * DAY;

pub(crate) fn run() {
    for seed in [31, 32, 33] {
        told_of_faults(seed);
    }
    for seed in [41, 42, 43] {
        overlapping_causes(seed);
    }
    twelve_weeks();
    flapping();
}

/// What is wrong, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Outage,
    Void,
    DroppedTriggers,
}

impl Trouble {
    fn name(self) -> &'static str {
        match self {
            Self::Outage => "power or link fails by day, for two to eight hours",
            Self::Void => "silent from closing time on, for three days: a name leads elsewhere",
            Self::DroppedTriggers => "heard, but nothing is captured any more, for three days",
        }
    }
}

/// How often people are told of faults, and how soon, in 28 days with 90 of them at 480 sites.
fn told_of_faults(seed: u64) {
    const SITES: usize = 480;
    let zones = [chrono_tz::America::New_York, chrono_tz::America::Los_Angeles, chrono_tz::Europe::Berlin];
    let mut run = Run::of(World::new(seed, SITES, &zones, true));
    let mut random = SmallRng::seed_from_u64(seed ^ 0x70);
    let mut faults: Vec<(Trouble, Fault)> = Vec::new();
    for site in (0..SITES).filter(|site| site % 5 == 0) {
        let trouble = [Trouble::Outage, Trouble::Void, Trouble::DroppedTriggers][faults.len() % 3];
        let mut from = TRAINED + random.random_range(0..24 * DAY);
        let is_open = |minute| run.world.is_planned_open(site, minute);
        let fits = |minute: i64| match trouble {
            Trouble::Void => is_open(minute - 1) && !is_open(minute),
            _ => is_open(minute - 60) && is_open(minute + 120),
        };
        while !fits(from) {
            from += 1;
        }
        let lasts = if trouble == Trouble::Outage { random.random_range(120..480) } else { 3 * DAY };
        let what = if trouble == Trouble::DroppedTriggers { What::AllTablesStop } else { What::Stop };
        faults.push((trouble, Fault { site, from, to: from + lasts, what }));
    }
    run.run(0, TRAINED, &[], |_, _| true);
    run.settle();
    let all: Vec<Fault> = faults.iter().map(|(_, fault)| *fault).collect();
    run.run(TRAINED, TRAINED + 28 * DAY, &all, |_, _| true);
    println!(
        "\nSeed {seed}, {SITES} sites in three zones, 28 days, {} faults at the default thresholds:\n",
        faults.len()
    );
    println!(
        "| fault | noticed after, open minutes, median / 90th percentile | not within 1 / 24 open hours | people were told after, median / 90th percentile (never) | times people were told of one |"
    );
    println!("|---|---|---|---|---|");
    let mut explained: BTreeSet<u64> = BTreeSet::new();
    for trouble in [Trouble::Outage, Trouble::Void, Trouble::DroppedTriggers] {
        let of: Vec<Fault> = faults.iter().filter(|(kind, _)| *kind == trouble).map(|(_, fault)| *fault).collect();
        let noticed = delays(&run, Kind::Silence, &of);
        let mut calls: Vec<f64> = of.iter().map(|fault| first_call(&run, fault)).collect();
        calls.sort_by(f64::total_cmp);
        let mut told = 0;
        for fault in &of {
            let id = &run.world.sites[fault.site].spec.id;
            let during =
                |at_micros: i64| (at(fault.from).as_micros()..at(fault.to + DAY).as_micros()).contains(&at_micros);
            let own = run
                .incidents
                .values()
                .filter(|known| known.members.contains_key(id) && during(known.opened_at.as_micros()));
            let ids: Vec<u64> = own.map(|known| known.id).collect();
            told +=
                run.told.iter().filter(|said| ids.contains(&said.incident) && said.notice != Notice::Resolved).count();
            explained.extend(ids);
        }
        let late = |hours: f64| {
            noticed.iter().filter(|minutes| **minutes > hours * 60.0).count() as f64 * 100.0 / noticed.len() as f64
        };
        println!(
            "| {} | {:.0} / {:.0} | {:.0} % / {:.0} % | {:.0} / {:.0} ({}) | {:.1} |",
            trouble.name(),
            quantile(&noticed, 0.5),
            quantile(&noticed, 0.9),
            late(1.0),
            late(24.0),
            quantile(&calls, 0.5),
            quantile(&calls, 0.9),
            calls.iter().filter(|minutes| minutes.is_infinite()).count(),
            told as f64 / of.len() as f64
        );
    }
    let opened =
        run.told.iter().filter(|said| said.notice == Notice::Opened && !explained.contains(&said.incident)).count();
    println!(
        "\nbesides: {:.2} calls a site-month that no fault explains",
        opened as f64 / (SITES as f64 * 28.0 / 30.44)
    );
}

/// Open minutes from a fault until people were first told of an incident of its site; infinite if
/// they were not within a day of its end.
fn first_call(run: &Run, fault: &Fault) -> f64 {
    let id = &run.world.sites[fault.site].spec.id;
    let is_about = |incident: u64| run.incidents.get(&incident).is_some_and(|known| known.members.contains_key(id));
    let told = run.told.iter().filter(|said| said.notice != Notice::Resolved && is_about(said.incident));
    let first = told.map(|said| said.at).filter(|told| (at(fault.from)..at(fault.to + DAY)).contains(told)).min();
    let Some(first) = first else { return f64::INFINITY };
    let minutes = (fault.from..).take_while(|minute| at(*minute) < first);
    minutes.filter(|minute| run.world.is_planned_open(fault.site, *minute)).count() as f64
}

/// Two causes at once, day after day: is each named, and nothing else?
fn overlapping_causes(seed: u64) {
    const SITES: usize = 2_000;
    const DAYS: i64 = 20;
    let mut run = Run::of(World::new(seed, SITES, &[chrono_tz::America::Chicago], false));
    run.run(0, 15 * DAY, &[], |_, _| true);
    let mut random = SmallRng::seed_from_u64(seed ^ 0x71);
    let (mut right, mut wrong, mut pairs, mut both) = (0, 0, 0, 0);
    for day in 15..15 + DAYS {
        // 19:00 UTC is 13:00 in Chicago; Sundays are quiet.
        let noon = day * DAY + 19 * 60;
        run.run(day * DAY, noon, &[], |_, _| true);
        run.settle();
        if day % 7 != 6 {
            let names = ["isp", "region", "city", "pos"];
            let first = random.random_range(0..names.len());
            let second = (first + random.random_range(1..names.len())) % names.len();
            let causes = [first, second].map(|name| {
                let of_somebody = &run.world.sites[random.random_range(0..SITES)].spec.attributes;
                (names[name].to_owned(), of_somebody[names[name]].clone())
            });
            let later = random.random_range(0..20);
            let has: Vec<[bool; 2]> = run
                .world
                .sites
                .iter()
                .map(|site| causes.clone().map(|(name, value)| site.spec.attributes[&name] == value))
                .collect();
            run.run(noon, noon + 90, &[], |site, minute| !(has[site][0] || has[site][1] && minute >= noon + later));
            let named: BTreeSet<(String, String)> = run
                .incidents
                .values()
                .filter(|known| known.kind == Kind::Group)
                .filter_map(|known| known.attribute.as_ref().map(|of| (of.name.clone(), of.value.clone())))
                .collect();
            let is_cause = |of: &&(String, String)| causes.contains(of);
            let hits = named.iter().filter(is_cause).count();
            (right, wrong, pairs) = (right + hits, wrong + named.len() - hits, pairs + 1);
            both += usize::from(hits == 2);
        }
        run.run(noon + 90, (day + 1) * DAY, &[], |_, _| true);
    }
    println!(
        "\nSeed {seed}, {SITES} sites, {pairs} days with two causes within 20 minutes: both named on {both}; {right} right groups and \
         {wrong} wrong ones ({:.0} %)",
        wrong as f64 * 100.0 / (right + wrong).max(1) as f64
    );
}

/// One site of 60 is silent for twelve weeks.
fn twelve_weeks() {
    let mut run = Run::of(World::new(51, 60, &[chrono_tz::America::Chicago], true));
    run.world.is_lively = false;
    run.run(0, TRAINED, &[], |_, _| true);
    run.settle();
    let silent = run.world.sites[3].spec.id.clone();
    let rate =
        |run: &Run| run.watch.expected_rows(&silent, "medium", at(TRAINED - 14 * DAY), at(TRAINED)).unwrap_or(0.0);
    let before = rate(&run);
    let noon = TRAINED + 19 * 60;
    run.run(TRAINED, noon, &[], |_, _| true);
    let fault = Fault { site: 3, from: noon, to: noon + 84 * DAY, what: What::Stop };
    let mut days_in_roll = 0;
    for day in 0..84 {
        run.run(noon + day * DAY, noon + (day + 1) * DAY, &[fault], |_, _| true);
        let state = run.watch.verdict(&silent).map(|verdict| verdict.state);
        days_in_roll += usize::from(state == Some(SiteState::Silent));
    }
    let own = run.incidents.values().find(|known| known.kind == Kind::Silence && known.members.contains_key(&silent));
    let levels: Vec<String> = own.map_or_else(Vec::new, |own| {
        let days = |reached: &rollcall_roll::Reached| (reached.at.as_micros() - at(noon).as_micros()) as f64 / 86_400e6;
        own.levels.iter().map(|reached| format!("{} after {:.1} days", reached.level, days(reached))).collect()
    });
    let mut notices: BTreeMap<u8, usize> = BTreeMap::new();
    for said in run.told.iter().filter(|said| own.is_some_and(|own| own.id == said.incident)) {
        *notices.entry(said.level).or_default() += 1;
    }
    println!(
        "\nTwelve weeks of silence of one site: silent in the roll on {days_in_roll} of 84 days; levels {}",
        levels.join(", ")
    );
    println!("told, by level: {notices:?}; its rhythm is {:.3} times what it was", rate(&run) / before);
}

/// 20 lines that each fail twenty times a day, for ten to twenty minutes.
pub(crate) fn flapping() {
    let mut run = Run::of(World::new(52, 240, &[chrono_tz::America::Chicago], false));
    run.run(0, TRAINED, &[], |_, _| true);
    run.settle();
    let mut random = SmallRng::seed_from_u64(53);
    let mut faults = Vec::new();
    for site in 0..20 {
        for day in 0..5 {
            for drop in 0..20 {
                let from = TRAINED + day * DAY + 15 * 60 + drop * 30 + random.random_range(0..8);
                faults.push(Fault { site, from, to: from + random.random_range(10..20), what: What::Stop });
            }
        }
    }
    run.run(TRAINED, TRAINED + 5 * DAY, &faults, |_, _| true);
    let flapping: BTreeSet<&SiteId> = run.world.sites[..20].iter().map(|site| &site.spec.id).collect();
    let is_own =
        |id: u64| run.incidents.get(&id).is_some_and(|known| known.members.keys().any(|site| flapping.contains(site)));
    let own = || run.told.iter().filter(|said| said.notice != Notice::Resolved && is_own(said.incident));
    let mut notices: BTreeMap<String, usize> = BTreeMap::new();
    for said in own() {
        let kind = run.incidents.get(&said.incident).map_or_else(String::new, |known| known.kind.to_string());
        *notices.entry(format!("{kind} {:?}", said.notice)).or_default() += 1;
    }
    let times = own().count() as f64 / 100.0;
    println!("\n20 lines that fail twenty times a day: people are told {times:.2} times a line and day, {notices:?}");
}
