//! How long it takes to notice, ours beside a fixed timeout and phi-accrual, at equal natural alarm
//! rate.
//!
//! A detector gives each silence a score that grows with time. On days without faults, a threshold
//! is set at which the scores of natural silences alarm as often as the budget allows; then the
//! delay of injected faults at that threshold is read off.

use std::collections::BTreeSet;

use rand::{Rng, SeedableRng, rngs::SmallRng};
use rollcall_roll::{StreamId, Watch, WatchConfig};

use crate::{
    baselines::Gaps,
    fleets::quantile,
    world::{DAY, Fault, TABLES, What, World, at},
};

const SITES: usize = 480;
const TRAINING_DAYS: i64 = 42;
const TEST_DAYS: i64 = 28;
const FAULTS: usize = 168;
/// A fault is followed for so many open minutes.
const FOLLOWED: i64 = 24 * 60;
const METHODS: [&str; 3] = ["ours", "fixed timeout", "phi-accrual"];
/// Alarms a site and month.
const BUDGET: f64 = 0.5;

/// A scenario of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scene {
    DayStop,
    NotOpened,
    NearClosing,
    Table(usize),
}

impl Scene {
    fn name(self) -> String {
        match self {
            Self::DayStop => "stop by day, seen by contact".to_owned(),
            Self::NotOpened => "did not open, seen by contact".to_owned(),
            Self::NearClosing => "stop in the last open hour, seen by contact".to_owned(),
            Self::Table(table) => {
                format!("table {} stops alone, by day ({} an hour)", TABLES[table].name, TABLES[table].per_hour)
            }
        }
    }
}

struct Followed {
    scene: Scene,
    fault: Fault,
    /// Per open minute since the fault began: each method's score.
    scores: Vec<[f64; 3]>,
}

/// A silence that ended by itself.
struct Silence {
    /// How each method would have called it at its end.
    scores: [f64; 3],
    site: usize,
    /// When it ended.
    minute: i64,
}

type Natural = Vec<Silence>;

/// How long a fault took to be noticed.
#[derive(Debug, Clone, Copy)]
struct Noticed {
    scene: Scene,
    /// Events an hour that the site usually has of what stopped, while it is open.
    per_hour: f64,
    /// Open minutes, for each method; infinite if not within a day of them.
    minutes: [f64; 3],
}

struct Delays {
    noticed: Vec<Noticed>,
    /// Thresholds used for contact and for each table.
    thresholds: Vec<[f64; 3]>,
    /// Natural alarms of ours: share of the worst tenth of the sites; and a site-month on weekdays,
    /// Saturdays and Sundays.
    worst_tenth: f64,
    by_day: [f64; 3],
}

/// Prints the table of each seed, and of all seeds together.
pub(crate) fn print(seeds: &[u64]) {
    let mut all = Vec::new();
    for seed in seeds {
        let found = run(*seed);
        print_rows(&format!("Seed {seed}"), &found.noticed);
        let nines: Vec<String> = found.thresholds.iter().map(|of| format!("{:.2}", of[0])).collect();
        println!(
            "\nthresholds of ours at {BUDGET} natural alarms a site-month, in nines: contact and tables {}",
            nines.join(", ")
        );
        println!("share of our natural alarms at the worst tenth of the sites: {:.0} %", found.worst_tenth * 100.0);
        let [week, saturday, sunday] = found.by_day;
        println!(
            "our natural alarms per site-month of such days: Monday to Friday {week:.2}, Saturday {saturday:.2}, Sunday {sunday:.2}"
        );
        all.extend(found.noticed);
    }
    print_rows("All seeds together", &all);
    print_by_rate(&all);
}

fn print_rows(title: &str, noticed: &[Noticed]) {
    println!("\n{title}: open minutes until noticed, median / 90th percentile (share not within 24 open hours)\n");
    println!("| scene | {} |\n|---|---|---|---|", METHODS.join(" | "));
    let scenes: BTreeSet<Scene> = noticed.iter().map(|of| of.scene).collect();
    for scene in scenes {
        let cells: Vec<String> = (0..METHODS.len())
            .map(|method| {
                let of_scene = noticed.iter().filter(|of| of.scene == scene);
                let (median, p90, missed) = figures(of_scene.map(|of| of.minutes[method]).collect());
                format!("{median:.0} / {p90:.0} ({:.0} %)", missed * 100.0)
            })
            .collect();
        println!("| {} | {} |", scene.name(), cells.join(" | "));
    }
}

/// Tables that stop, by how much the site usually has of them.
fn print_by_rate(noticed: &[Noticed]) {
    let mut tables: Vec<&Noticed> = noticed.iter().filter(|of| matches!(of.scene, Scene::Table(_))).collect();
    tables.sort_by(|a, b| a.per_hour.total_cmp(&b.per_hour));
    println!(
        "\nTables that stop, by decile of their rate: open minutes until noticed, median (share not within 24 open hours)\n"
    );
    println!("| events an hour | {} |\n|---|---|---|---|", METHODS.join(" | "));
    for decile in tables.chunks(tables.len().div_ceil(10).max(1)) {
        let (first, last) = (decile[0].per_hour, decile[decile.len() - 1].per_hour);
        let cells: Vec<String> = (0..METHODS.len())
            .map(|method| {
                let (median, _, missed) = figures(decile.iter().map(|of| of.minutes[method]).collect());
                format!("{median:.0} ({:.0} %)", missed * 100.0)
            })
            .collect();
        println!("| {first:.1} to {last:.1} | {} |", cells.join(" | "));
    }
}

/// Median, 90th percentile, share that is infinite.
fn figures(mut minutes: Vec<f64>) -> (f64, f64, f64) {
    minutes.sort_by(f64::total_cmp);
    let missed = minutes.iter().filter(|delay| delay.is_infinite()).count() as f64 / minutes.len() as f64;
    (quantile(&minutes, 0.5), quantile(&minutes, 0.9), missed)
}

/// Finds the threshold at which `natural` alarms as often as the budget.
fn threshold(natural: &Natural, method: usize, site_months: f64) -> f64 {
    let mut scores: Vec<f64> = natural.iter().map(|silence| silence.scores[method]).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    let allowed = (BUDGET * site_months) as usize;
    scores.get(allowed).copied().unwrap_or(0.0)
}

fn run(seed: u64) -> Delays {
    let zones = [chrono_tz::America::New_York, chrono_tz::America::Los_Angeles, chrono_tz::Europe::Berlin];
    let mut world = World::new(seed, SITES, &zones, true);
    let mut watch = Watch::new(WatchConfig::default(), at(0));
    for site in &world.sites {
        watch.set_site(site.spec.clone());
    }
    let streams_of = 1 + TABLES.len();
    let mut gaps: Vec<Gaps> = vec![Gaps::default(); SITES * streams_of];
    let mut ids: Vec<Option<StreamId>> = vec![None; SITES * streams_of];
    let mut natural: Vec<Natural> = (0..streams_of).map(|_| Vec::new()).collect();
    let mut random = SmallRng::seed_from_u64(seed ^ 0xfa);
    let mut followed: Vec<Followed> = Vec::new();
    let mut faults: Vec<Fault> = Vec::new();
    let training = TRAINING_DAYS * DAY;
    let end = training + TEST_DAYS * DAY;
    let mut healthy_minutes = 0;
    let is_faulty = |faults: &[Fault], site: usize| faults.iter().any(|fault| fault.site == site);
    for minute in 0..end {
        watch.tick(at(minute));
        if minute == training {
            gaps.iter_mut().for_each(Gaps::trained);
        }
        healthy_minutes += if minute > training { SITES - faults.len() } else { 0 };
        let mut said: Vec<(usize, Option<usize>)> = Vec::new();
        let open = world.minute(minute, &faults, |site, table| said.push((site, table)));
        for (site, table) in said {
            let stream = site * streams_of + table.map_or(0, |table| table + 1);
            if minute > training && !is_faulty(&faults, site) {
                let elapsed = gaps[stream].elapsed(minute);
                if elapsed > 2.0
                    && let Some(id) = ids[stream]
                {
                    let ours = watch.measure(id, at(minute)).surprise;
                    let scores = [ours, gaps[stream].timeout(elapsed), gaps[stream].phi(elapsed)];
                    natural[stream % streams_of].push(Silence { scores, site, minute });
                }
            }
            gaps[stream].event(minute, minute <= training);
            let name = table.map_or("contact", |table| TABLES[table].name);
            watch.event(&world.sites[site].spec.id, name, at(minute), 1.0);
            ids[stream] = ids[stream].or_else(|| watch.stream_id(&world.sites[site].spec.id, name));
        }
        watch.take_decisions();
        watch.take_changed();
        if minute > training + DAY && minute < end - 4 * DAY {
            inject(&mut world, &mut random, minute, &open, &mut faults, &mut followed);
        }
        for fault in followed.iter_mut().filter(|fault| minute >= fault.fault.from) {
            if open[fault.fault.site] && (fault.scores.len() as i64) < FOLLOWED {
                let stream = match fault.scene {
                    Scene::Table(table) => table + 1,
                    _ => 0,
                } + fault.fault.site * streams_of;
                let elapsed = gaps[stream].elapsed(minute);
                let ours = ids[stream].map_or(0.0, |id| watch.measure(id, at(minute)).surprise);
                fault.scores.push([ours, gaps[stream].timeout(elapsed), gaps[stream].phi(elapsed)]);
            }
        }
    }
    summarise(&natural, &followed, &world, healthy_minutes as f64 / (30.44 * DAY as f64))
}

/// Makes faults at random, a few a day, each at a site of its own, so that the fleet stays what it
/// is.
fn inject(
    world: &mut World,
    random: &mut SmallRng,
    minute: i64,
    open: &[bool],
    faults: &mut Vec<Fault>,
    followed: &mut Vec<Followed>,
) {
    if faults.len() >= FAULTS || minute % 31 != 0 {
        return;
    }
    let site = random.random_range(0..world.sites.len());
    if faults.iter().any(|fault| fault.site == site) {
        return;
    }
    let scene = match faults.len() % 7 {
        0 => Scene::DayStop,
        1 => Scene::NotOpened,
        2 => Scene::NearClosing,
        table => Scene::Table(table - 3),
    };
    // A scene fits only at its time of the day.
    let will = |later: i64| open_later(world, site, minute, later);
    let fits = match scene {
        Scene::DayStop | Scene::Table(_) => open[site] && will(180) && will(90),
        Scene::NotOpened => !open[site] && !will(60) && will(360),
        Scene::NearClosing => open[site] && !will(60),
    };
    if !fits {
        return;
    }
    let what = match scene {
        Scene::Table(table) => What::TableStops(table),
        _ => What::Stop,
    };
    let fault = Fault { site, from: minute, to: minute + 4 * DAY, what };
    faults.push(fault);
    followed.push(Followed { scene, fault, scores: Vec::new() });
}

/// By the plan of the week, not by today's deviations.
fn open_later(world: &World, site: usize, minute: i64, later: i64) -> bool {
    world.is_planned_open(site, minute + later)
}

fn summarise(natural: &[Natural], followed: &[Followed], world: &World, site_months: f64) -> Delays {
    let thresholds: Vec<[f64; 3]> =
        natural.iter().map(|natural| [0, 1, 2].map(|method| threshold(natural, method, site_months))).collect();
    let noticed = followed.iter().map(|fault| {
        let (stream, per_hour) = match fault.scene {
            Scene::Table(table) => (table + 1, TABLES[table].per_hour * world.sites[fault.fault.site].factor),
            _ => (0, 60.0),
        };
        let minutes = [0, 1, 2].map(|method| {
            let at = fault.scores.iter().position(|scores| scores[method] > thresholds[stream][method]);
            at.map_or(f64::INFINITY, |minutes| minutes as f64)
        });
        Noticed { scene: fault.scene, per_hour, minutes }
    });
    let (mut by_site, mut by_day) = (vec![0_usize; SITES], [0_usize; 3]);
    for (stream, natural) in natural.iter().enumerate() {
        for silence in natural.iter().filter(|silence| silence.scores[0] > thresholds[stream][0]) {
            by_site[silence.site] += 1;
            by_day[day_type(silence.minute)] += 1;
        }
    }
    by_site.sort_unstable_by(|a, b| b.cmp(a));
    let worst: usize = by_site.iter().take(SITES / 10).sum();
    let worst_tenth = worst as f64 / by_site.iter().sum::<usize>().max(1) as f64;
    let shares = [5.0, 1.0, 1.0].map(|days| days / 7.0);
    let by_day = [0, 1, 2].map(|of| by_day[of] as f64 / (site_months * shares[of]));
    Delays { noticed: noticed.collect(), thresholds, worst_tenth, by_day }
}

/// Monday to Friday, Saturday, Sunday: minutes count from a Monday.
fn day_type(minute: i64) -> usize {
    match minute.div_euclid(DAY).rem_euclid(7) {
        5 => 1,
        6 => 2,
        _ => 0,
    }
}
