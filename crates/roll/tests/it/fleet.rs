//! A fleet of shops that beacon every minute while they are open, and sell.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Datelike, TimeZone, Timelike};
use chrono_tz::Tz;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rollcall_roll::{Calendar, Closure, Decision, Incident, Kind, Notice, SiteSpec, Watch, WatchConfig};
use rollcall_types::{SiteId, Timestamp};

pub(crate) const DAY: i64 = 1440;
/// 2026-01-05, a Monday, midnight UTC; scenes count minutes from here.
const START: i64 = 1_767_571_200;

pub(crate) fn at(minute: i64) -> Timestamp {
    Timestamp::from_micros((START + minute * 60) * 1_000_000)
}

pub(crate) struct Shop {
    pub(crate) id: SiteId,
    zone: Tz,
    /// Rows an hour while it is open.
    rows: f64,
    opens: i64,
    closes: i64,
    always: bool,
}

impl Shop {
    /// Its till is on day and night.
    pub(crate) fn always_open(&mut self) {
        self.always = true;
    }
}

/// Decides whether a shop that is open can be heard.
pub(crate) type Fate<'a> = &'a dyn Fn(usize, i64) -> bool;

pub(crate) struct Fleet {
    pub(crate) shops: Vec<Shop>,
    pub(crate) specs: Vec<SiteSpec>,
    pub(crate) watch: Watch,
    pub(crate) told: Vec<Decision>,
    pub(crate) incidents: BTreeMap<u64, Incident>,
    random: SmallRng,
    pub(crate) holidays: BTreeSet<chrono::NaiveDate>,
}

impl Fleet {
    /// `sites` shops in these zones, with ten providers and a region for every fifty.
    pub(crate) fn new(sites: usize, zones: &[Tz], config: WatchConfig) -> Self {
        Self::begun_at(0, sites, zones, config)
    }

    /// The same, with an HQ that is started at a minute.
    pub(crate) fn begun_at(minute: i64, sites: usize, zones: &[Tz], config: WatchConfig) -> Self {
        let mut watch = Watch::new(config, at(minute));
        let (mut shops, mut specs) = (Vec::new(), Vec::new());
        for number in 0..sites {
            let zone = zones[number % zones.len()];
            let id = SiteId::new(&format!("shop-{number:05}")).expect("valid");
            let attributes = [("isp", number % 10), ("region", number / 50), ("brand", 0)];
            let attributes = attributes.map(|(name, value)| (name.to_owned(), format!("{name}-{value}")));
            specs.push(SiteSpec {
                id: id.clone(),
                calendar: Calendar { zone, ..Calendar::default() },
                attributes: attributes.into(),
                expected_from: at(minute),
                enrolled: true,
            });
            watch.set_site(specs[number].clone());
            shops.push(Shop {
                id,
                zone,
                rows: 5.0 + (number % 7) as f64,
                opens: 9 * 60,
                closes: 20 * 60,
                always: false,
            });
        }
        let random = SmallRng::seed_from_u64(7);
        Self { shops, specs, watch, told: Vec::new(), incidents: BTreeMap::new(), random, holidays: BTreeSet::new() }
    }

    fn is_open(&mut self, shop: usize, minute: i64) -> bool {
        let shop = &self.shops[shop];
        let local = shop.zone.timestamp_opt(START + minute * 60, 0).single().expect("a time");
        let of_day = i64::from(local.hour()) * 60 + i64::from(local.minute());
        let is_closed = local.weekday() == chrono::Weekday::Sun || self.holidays.contains(&local.date_naive());
        // Opening and closing vary by some minutes from day to day.
        let jitter = (local.ordinal() as i64 * 7919 + shop.rows as i64 * 31) % 9 - 4;
        shop.always || !is_closed && of_day >= shop.opens + jitter && of_day < shop.closes + jitter
    }

    /// Lets the minutes `from..to` pass.
    pub(crate) fn run(&mut self, from: i64, to: i64, fate: Fate<'_>) {
        for minute in from..to {
            self.watch.tick(at(minute));
            for shop in 0..self.shops.len() {
                if !self.is_open(shop, minute) || !fate(shop, minute) {
                    continue;
                }
                let id = self.shops[shop].id.clone();
                self.watch.event(&id, "contact", at(minute), 1.0);
                if self.random.random_bool((self.shops[shop].rows / 60.0).min(1.0)) {
                    self.watch.event(&id, "sales", at(minute), 1.0);
                }
            }
            self.told.extend(self.watch.take_decisions());
            for incident in self.watch.take_changed() {
                self.incidents.insert(incident.id, incident);
            }
        }
    }

    /// Declares a shop closed from one minute to another.
    pub(crate) fn close(&mut self, shop: usize, from: i64, until: i64) {
        let [from, until] = [from, until].map(|minute| START + minute * 60);
        self.specs[shop].calendar.closures.push(Closure { from, until });
        self.watch.set_site(self.specs[shop].clone());
    }

    /// HQ stops at a minute and starts again: what the lake keeps goes through text and back.
    pub(crate) fn restart(&mut self, minute: i64) {
        let mut watch = Watch::new(WatchConfig::default(), at(minute));
        for spec in &self.specs {
            watch.set_site(spec.clone());
        }
        for incident in self.watch.incidents() {
            let text = serde_json::to_string(incident).expect("writes");
            watch.restore_incident(serde_json::from_str(&text).expect("reads"));
        }
        for spec in &self.specs {
            let text = serde_json::to_string(&self.watch.remember(&spec.id).expect("known")).expect("writes");
            watch.restore(&spec.id, serde_json::from_str(&text).expect("reads"));
        }
        watch.restored();
        self.watch = watch;
    }

    /// Forgets what people were told so far.
    pub(crate) fn settled(mut self) -> Self {
        self.told.clear();
        self.incidents.clear();
        self
    }

    /// How many times people were told of the beginning of something of this kind.
    pub(crate) fn pages(&self, kind: Kind) -> usize {
        let opened = self.told.iter().filter(|decision| decision.notice == Notice::Opened);
        opened.filter(|decision| self.incidents.get(&decision.incident).is_some_and(|known| known.kind == kind)).count()
    }

    /// The first incidents, a line each.
    pub(crate) fn summary(&self) -> String {
        let line = |incident: &Incident| {
            let members: Vec<&str> = incident.members.keys().map(SiteId::as_str).take(3).collect();
            let (count, level, at) = (incident.members.len(), incident.level, incident.opened_at);
            format!("{:?} level {level} at {at}: {count} {members:?} {}", incident.kind, incident.evidence)
        };
        let lines: Vec<String> = self.incidents.values().take(12).map(line).collect();
        format!("{} incidents, {} notices\n{}", self.incidents.len(), self.told.len(), lines.join("\n"))
    }

    /// Those of a kind for which people are called.
    pub(crate) fn called(&self, kind: Kind) -> Vec<&Incident> {
        self.of_kind(kind).into_iter().filter(|incident| incident.calls).collect()
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> Vec<&Incident> {
        self.incidents.values().filter(|incident| incident.kind == kind).collect()
    }
}

/// Three weeks of everyday life, which the watch learned from.
pub(crate) fn everyday(sites: usize, zones: &[Tz]) -> Fleet {
    let mut fleet = Fleet::new(sites, zones, WatchConfig::default());
    fleet.run(0, 21 * DAY, &|_, _| true);
    fleet.settled()
}
