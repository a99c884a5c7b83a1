//! Is it us? While HQ itself cannot hear, nothing is said about any site.

use serde::{Deserialize, Serialize};

use crate::stream::Heard;

/// Why HQ cannot hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deafness {
    /// The watch itself did not run: HQ was off, stopped or stalled.
    WatchStopped,
    /// Most of the fleet is missing at once, in most of its parts.
    FleetMissing,
    /// HQ cannot take what sites send.
    IngestFailing,
}

/// What the guard is told at each tick.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Signs {
    /// How well the fleet is heard.
    pub heard: Heard,
    /// HQ's own check of its path for data works.
    pub ingest_ok: bool,
    /// Backlogs that HQ's own absence caused are still coming in.
    pub draining: bool,
}

/// The HQ-blind guard.
///
/// Deaf when a tick comes more than a contact unit late, when less than 0.75 of the expected
/// contact was heard over 5 minutes, most cohorts are that low and shortly before they were not (a
/// fleet that did not open this morning is on holiday; one that falls silent at a stroke is not),
/// or when ingest fails. It hears again after 10 contact units above 0.9 without backlog. Part of a
/// fleet may stay away for good after HQ was off: when the greater part has been back for 60 units,
/// the rest is judged again, else one dead region would hide every site for ever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    last_tick: i64,
    /// Contact counts once in so many seconds: a minute, less where silence must show sooner.
    unit: i64,
    deaf: Option<(i64, Deafness)>,
    /// Since when all is well again / the greater part is.
    well_since: Option<i64>,
    mostly_since: Option<i64>,
    /// Until then a missing part of the fleet is the sites' trouble: it was looked at, and goes on
    /// being missing.
    believed_until: i64,
}

/// A tick later than one contact unit means that the watch did not run; a busy machine is forgiven
/// so many seconds.
const TICK_LATE_MIN: i64 = 5;
/// Contact that must be expected before its lack says anything, sites: of three, one may well be
/// missing.
const SITES_MIN: usize = 10;
const DEAF_BELOW: f64 = 0.75;
const HEARS_ABOVE: f64 = 0.9;
const WELL_FOR_UNITS: i64 = 10;
/// Sites need so many seconds to find HQ again, however short the unit is.
const WELL_FOR_MIN: i64 = 15;
const MOSTLY_ABOVE: f64 = 0.5;
const MOSTLY_FOR_UNITS: i64 = 60;

impl Guard {
    /// A guard whose watch ticked last at `last_tick`, Unix seconds; contact counts once in `unit`
    /// seconds.
    pub fn new(last_tick: i64, unit: i64) -> Self {
        let never = i64::MIN;
        Self { last_tick, unit, deaf: None, well_since: None, mostly_since: None, believed_until: never }
    }

    /// A tick that comes more than so many seconds after the one before is late.
    fn late_after(&self) -> i64 {
        self.unit.max(TICK_LATE_MIN)
    }

    fn mostly_for(&self) -> i64 {
        MOSTLY_FOR_UNITS * self.unit
    }

    /// A person says that what is missing is the sites' own: it is judged again. Returns whether HQ
    /// was deaf.
    pub fn believe_missing(&mut self, now: i64) -> bool {
        let was_deaf = self.deaf.is_some();
        *self = Self { believed_until: now + self.mostly_for(), ..Self::new(self.last_tick, self.unit) };
        was_deaf
    }

    /// Since when and why HQ is deaf.
    pub fn deaf(&self) -> Option<(i64, Deafness)> {
        self.deaf
    }

    /// When the watch ticked last.
    pub fn last_tick(&self) -> i64 {
        self.last_tick
    }

    /// Takes a tick; returns whether HQ could hear since the one before.
    pub fn tick(&mut self, now: i64, signs: &Signs) -> bool {
        let late = now - self.last_tick > self.late_after();
        let before = self.last_tick;
        self.last_tick = now;
        let measurable = signs.heard.sites >= SITES_MIN && signs.heard.expected >= SITES_MIN as f64;
        let abrupt = signs.heard.ratio_before >= DEAF_BELOW || self.deaf.is_some();
        let low = signs.heard.ratio < DEAF_BELOW && signs.heard.low_cohorts > 0.5;
        let missing = measurable && now >= self.believed_until && low && abrupt;
        let why = if late {
            Some((before, Deafness::WatchStopped))
        } else if !signs.ingest_ok {
            Some((now, Deafness::IngestFailing))
        } else if missing {
            Some((now, Deafness::FleetMissing))
        } else {
            None
        };
        if let Some(why) = why {
            self.deaf.get_or_insert(why);
            self.well_since = None;
            if late || !signs.ingest_ok {
                self.mostly_since = None;
            }
        }
        if self.deaf.is_none() {
            return true;
        }
        let for_long = |since: &mut Option<i64>, holds: bool, long: i64| {
            *since = if holds { since.or(Some(now)) } else { None };
            since.is_some_and(|since| now - since >= long)
        };
        let ratio = if measurable { signs.heard.ratio } else { 1.0 };
        let well = why.is_none() && ratio > HEARS_ABOVE && !signs.draining;
        let mostly = !late && signs.ingest_ok && ratio > MOSTLY_ABOVE;
        let (well_for, mostly_for) = ((WELL_FOR_UNITS * self.unit).max(WELL_FOR_MIN), self.mostly_for());
        let is_well = for_long(&mut self.well_since, well, well_for);
        let is_mostly = for_long(&mut self.mostly_since, mostly, mostly_for);
        if is_well || is_mostly {
            let believed_until = if is_well { i64::MIN } else { now + mostly_for };
            *self = Self { believed_until, ..Self::new(now, self.unit) };
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(ratio: f64) -> Signs {
        let heard = Heard {
            expected: 100.0,
            ratio,
            ratio_before: 1.0,
            low_cohorts: if ratio < 0.75 { 1.0 } else { 0.0 },
            sites: 50,
        };
        Signs { heard, ingest_ok: true, draining: false }
    }

    fn run(guard: &mut Guard, from: i64, minutes: i64, signs: &Signs) -> bool {
        (1..=minutes).map(|minute| guard.tick(from + minute * 60, signs)).last().expect("some")
    }

    #[test]
    fn after_a_stop_it_waits_until_the_fleet_is_back() {
        let mut guard = Guard::new(0, 60);
        assert!(run(&mut guard, 0, 5, &signs(1.0)));
        assert!(!guard.tick(7_500, &signs(1.0)), "two hours without a tick");
        assert_eq!(guard.deaf(), Some((300, Deafness::WatchStopped)));
        assert!(!run(&mut guard, 7_500, 9, &signs(0.95)));
        let draining = Signs { draining: true, ..signs(0.95) };
        assert!(!run(&mut guard, 8_040, 20, &draining), "backlogs count");
        assert!(run(&mut guard, 9_240, 12, &signs(0.95)));
    }

    #[test]
    fn where_silence_shows_sooner_a_shorter_stop_counts_and_is_over_sooner() {
        let mut guard = Guard::new(0, 1);
        assert!(guard.tick(4, &signs(1.0)));
        assert!(!guard.tick(14, &signs(1.0)), "ten seconds without a tick");
        assert!((15..29).all(|now| !guard.tick(now, &signs(1.0))));
        assert!((29..32).any(|now| guard.tick(now, &signs(1.0))));
    }

    #[test]
    fn a_person_may_say_that_the_missing_part_is_the_sites_own() {
        let mut guard = Guard::new(0, 60);
        assert!(!run(&mut guard, 0, 1, &signs(0.3)));
        assert!(guard.believe_missing(90));
        assert!(run(&mut guard, 60, 50, &signs(0.3)));
    }

    #[test]
    fn a_region_that_stays_away_does_not_hide_the_rest_for_ever() {
        let mut guard = Guard::new(0, 60);
        assert!(!guard.tick(7_200, &signs(0.8)));
        assert!(!run(&mut guard, 7_200, 59, &signs(0.8)));
        assert!(run(&mut guard, 10_740, 5, &signs(0.8)));
    }

    #[test]
    fn a_few_missing_sites_of_a_few_are_their_own_trouble() {
        let mut guard = Guard::new(0, 60);
        let few = Signs { heard: Heard { sites: 3, expected: 15.0, ..signs(0.3).heard }, ..signs(0.3) };
        assert!(run(&mut guard, 0, 10, &few));
        assert!(!run(&mut guard, 600, 1, &signs(0.3)));
        assert_eq!(guard.deaf().map(|(_, why)| why), Some(Deafness::FleetMissing));
    }
}
