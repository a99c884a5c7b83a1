//! A simulated fleet with known truth: when each site is open, what it says, and what is really
//! wrong.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Datelike, NaiveDate, TimeZone, Timelike, Weekday};
use chrono_tz::Tz;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rollcall_roll::{Calendar, SiteSpec};
use rollcall_types::{SiteId, Timestamp};

pub(crate) const DAY: i64 = 1440;
/// 2026-02-02, a Monday, midnight UTC; worlds count minutes from here.
pub(crate) const START: i64 = 1_769_990_400;

pub(crate) fn at(minute: i64) -> Timestamp {
    Timestamp::from_micros((START + minute * 60) * 1_000_000)
}

/// A table's traffic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) name: &'static str,
    /// Minutes with rows an hour while the site is open, on average over sites.
    pub(crate) per_hour: f64,
    /// How much the rate itself wanders from hour to hour (standard deviation of its logarithm).
    pub(crate) wander: f64,
}

pub(crate) const TABLES: [Traffic; 4] = [
    Traffic { name: "busy", per_hour: 30.0, wander: 0.3 },
    Traffic { name: "medium", per_hour: 8.0, wander: 0.3 },
    Traffic { name: "slow", per_hour: 1.0, wander: 0.3 },
    Traffic { name: "bursty", per_hour: 8.0, wander: 1.2 },
];

#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) spec: SiteSpec,
    pub(crate) zone: usize,
    opens: i64,
    closes: i64,
    closed_on: Option<Weekday>,
    pub(crate) factor: f64,
    /// Chance in a minute that its link fails for some minutes.
    blips: f64,
}

/// What is really wrong with a site, from a minute to a minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fault {
    pub(crate) site: usize,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum What {
    /// Nothing is heard.
    Stop,
    /// One table's rows stop; everything else goes on.
    TableStops(usize),
    /// No table's rows come; contact goes on: triggers were dropped.
    AllTablesStop,
    /// Two in five of one table's rows still come.
    TableDrops(usize),
}

/// Local time of one zone in one minute.
#[derive(Debug, Clone, Copy)]
struct ZoneNow {
    weekday: Weekday,
    date: NaiveDate,
    minute: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) sites: Vec<Site>,
    zones: Vec<Tz>,
    zone_now: Vec<ZoneNow>,
    random: SmallRng,
    pub(crate) holidays: BTreeSet<NaiveDate>,
    /// Today's deviation of each site's opening and closing, and the day it is of.
    today: Vec<(NaiveDate, i64, i64)>,
    /// Until when each site's link is down.
    down_until: Vec<i64>,
    /// This hour's rate of each table of each site, and the hour.
    rates: Vec<([f64; TABLES.len()], i64)>,
    /// Tables sell at all.
    pub(crate) sells: bool,
    /// Links fail for minutes and people close early, as they do.
    pub(crate) is_lively: bool,
}

pub(crate) const ZONES: [Tz; 30] = [
    chrono_tz::America::New_York,
    chrono_tz::America::Chicago,
    chrono_tz::America::Denver,
    chrono_tz::America::Phoenix,
    chrono_tz::America::Los_Angeles,
    chrono_tz::America::Anchorage,
    chrono_tz::Pacific::Honolulu,
    chrono_tz::America::Halifax,
    chrono_tz::America::St_Johns,
    chrono_tz::America::Sao_Paulo,
    chrono_tz::America::Mexico_City,
    chrono_tz::Europe::London,
    chrono_tz::Europe::Lisbon,
    chrono_tz::Europe::Berlin,
    chrono_tz::Europe::Paris,
    chrono_tz::Europe::Athens,
    chrono_tz::Europe::Istanbul,
    chrono_tz::Asia::Dubai,
    chrono_tz::Asia::Karachi,
    chrono_tz::Asia::Kolkata,
    chrono_tz::Asia::Kathmandu,
    chrono_tz::Asia::Dhaka,
    chrono_tz::Asia::Bangkok,
    chrono_tz::Asia::Shanghai,
    chrono_tz::Asia::Tokyo,
    chrono_tz::Australia::Adelaide,
    chrono_tz::Australia::Sydney,
    chrono_tz::Pacific::Auckland,
    chrono_tz::Pacific::Kiritimati,
    chrono_tz::Africa::Johannesburg,
];

impl World {
    pub(crate) fn new(seed: u64, sites: usize, zones: &[Tz], sells: bool) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let sites: Vec<Site> = (0..sites)
            .map(|number| {
                let zone = number % zones.len();
                let attributes: BTreeMap<String, String> = [
                    ("isp", random.random_range(0..25)),
                    ("region", number * 20 / (3 * sites.max(1))),
                    ("city", number * 200 / sites.max(1)),
                    ("pos", random.random_range(0..4)),
                ]
                .map(|(name, value)| (name.to_owned(), format!("{name}-{value}")))
                .into();
                Site {
                    spec: SiteSpec {
                        id: SiteId::new(&format!("s{number:06}")).expect("valid"),
                        calendar: Calendar { zone: zones[zone], ..Calendar::default() },
                        attributes,
                        expected_from: at(0),
                        enrolled: true,
                    },
                    zone,
                    opens: 60 * 8 + 30 * random.random_range(0..5),
                    closes: 60 * 18 + 30 * random.random_range(0..7),
                    closed_on: (random.random_range(0..10) < 7).then_some(Weekday::Sun),
                    factor: (random.random_range(-1.0_f64..1.0) * 0.7).exp(),
                    blips: if random.random_range(0..33) == 0 { 1.0 / 600.0 } else { 1.0 / 40_000.0 },
                }
            })
            .collect();
        let count = sites.len();
        let day = NaiveDate::default();
        Self {
            sites,
            zones: zones.to_vec(),
            zone_now: Vec::new(),
            random,
            holidays: BTreeSet::new(),
            today: vec![(day, 0, 0); count],
            down_until: vec![0; count],
            rates: vec![([0.0; TABLES.len()], -1); count],
            sells,
            is_lively: true,
        }
    }

    /// A day on which all are closed; HQ may have been told.
    pub(crate) fn add_holiday(&mut self, day: NaiveDate, is_declared: bool) {
        self.holidays.insert(day);
        if is_declared {
            for site in &mut self.sites {
                let calendar = &mut site.spec.calendar;
                std::sync::Arc::make_mut(&mut calendar.holidays).insert(day);
            }
        }
    }

    fn set_minute(&mut self, minute: i64) {
        self.zone_now = self
            .zones
            .iter()
            .map(|zone| {
                let local = zone.timestamp_opt(START + minute * 60, 0).single().expect("a time");
                let of_day = i64::from(local.hour()) * 60 + i64::from(local.minute());
                ZoneNow { weekday: local.weekday(), date: local.date_naive(), minute: of_day }
            })
            .collect();
    }

    /// Whether the plan of the day, known to its staff, says that a site is open.
    fn is_open(&mut self, site: usize) -> bool {
        let now = self.zone_now[self.sites[site].zone];
        let plan = &self.sites[site];
        if plan.closed_on == Some(now.weekday) || self.holidays.contains(&now.date) {
            return false;
        }
        if self.today[site].0 != now.date {
            let spread = |random: &mut SmallRng| (0..4).map(|_| random.random_range(-4..=4)).sum::<i64>() / 2;
            let opens = spread(&mut self.random);
            let mut closes = spread(&mut self.random);
            // Now and then someone closes early and tells nobody.
            if self.is_lively && self.random.random_range(0..250) == 0 {
                closes -= self.random.random_range(60..240);
            }
            self.today[site] = (now.date, opens, closes);
        }
        let (_, opens, closes) = self.today[site];
        now.minute >= plan.opens + opens && now.minute < plan.closes + closes
    }

    /// What is said in a minute: calls `say` with the site and a table, or none for contact.
    /// Returns which sites are open.
    pub(crate) fn minute(
        &mut self,
        minute: i64,
        faults: &[Fault],
        mut say: impl FnMut(usize, Option<usize>),
    ) -> Vec<bool> {
        self.set_minute(minute);
        let open: Vec<bool> = (0..self.sites.len()).map(|site| self.is_open(site)).collect();
        for site in (0..open.len()).filter(|site| open[*site]) {
            if self.is_lively && self.random.random_bool(self.sites[site].blips) {
                self.down_until[site] = minute + self.random.random_range(2..12);
            }
            let active = |fault: &&Fault| fault.site == site && (fault.from..fault.to).contains(&minute);
            let fault = faults.iter().find(active).map(|fault| fault.what);
            if minute < self.down_until[site] || fault == Some(What::Stop) {
                continue;
            }
            // Two beacons a minute, each lost once in a hundred.
            if !self.random.random_bool(0.0001) {
                say(site, None);
            }
            if self.sells {
                self.sell(site, minute, fault, &mut say);
            }
        }
        open
    }

    fn sell(&mut self, site: usize, minute: i64, fault: Option<What>, say: &mut impl FnMut(usize, Option<usize>)) {
        if self.rates[site].1 != minute / 60 {
            let hour = self.zone_now[self.sites[site].zone].minute / 60;
            // A day has two peaks.
            let of_day = 0.6
                + 0.5 * (-((hour - 12) as f64 / 2.0).powi(2)).exp()
                + 0.7 * (-((hour - 17) as f64 / 1.5).powi(2)).exp();
            let mut rates = [0.0; TABLES.len()];
            for (rate, table) in rates.iter_mut().zip(TABLES) {
                let noise: f64 = (0..12).map(|_| self.random.random_range(0.0..1.0)).sum::<f64>() - 6.0;
                let wander = (table.wander * noise - table.wander * table.wander / 2.0).exp();
                *rate = table.per_hour * self.sites[site].factor * of_day * wander / 60.0;
            }
            self.rates[site] = (rates, minute / 60);
        }
        for table in 0..TABLES.len() {
            let share = match fault {
                Some(What::TableStops(stopped)) if stopped == table => 0.0,
                Some(What::AllTablesStop) => 0.0,
                Some(What::TableDrops(dropped)) if dropped == table => 0.4,
                _ => 1.0,
            };
            if self.random.random_bool((self.rates[site].0[table] * share).min(1.0)) {
                say(site, Some(table));
            }
        }
    }
}

impl World {
    /// Whether a site's weekly plan has it open at a minute.
    pub(crate) fn is_planned_open(&self, site: usize, minute: i64) -> bool {
        let plan = &self.sites[site];
        let local = self.zones[plan.zone].timestamp_opt(START + minute * 60, 0).single().expect("a time");
        let of_day = i64::from(local.hour()) * 60 + i64::from(local.minute());
        plan.closed_on != Some(local.weekday())
            && !self.holidays.contains(&local.date_naive())
            && (plan.opens..plan.closes).contains(&of_day)
    }
}
