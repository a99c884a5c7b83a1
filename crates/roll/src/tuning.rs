//! Sets the thresholds by the alarm budget: each week anew, by how rare the silences of the last
//! weeks really were.
//!
//! A theoretical probability is not believed. Of every silence that ended by itself its peak is
//! kept, in nines; red and page are then the lowest at which those of the last eight weeks would
//! have kept within the [`BUDGET`], as a replay of these weeks with other thresholds would find.
//! Left out are silences that have an explanation: with the whole cohort, of a group, while HQ
//! could not hear, in a site's first days, and those of which a person said that they were outages.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{
    replay::BUDGET,
    site::CONTACT,
    sites::SiteNumber,
    stream::{Gap, Measure, StreamId, Thresholds},
    watch::Watch,
};

/// Weeks that count, the running one among them.
const WEEKS: usize = 8;
/// Site-months below which nothing is concluded.
pub const SITE_MONTHS_MIN: f64 = 10.0;
/// Thresholds move by so many nines a week at most.
const STEP_MAX: f64 = 0.5;
/// Peaks are kept in steps of a tenth of a nine, from two nines on.
const FIRST: f64 = 2.0;
const STEP: f64 = 0.1;
const STEPS: usize = 100;
/// Red is within these …
const RED: (f64, f64) = (3.5, 6.0);
/// … and page within these, and so far above red.
const PAGE: (f64, f64) = (4.5, 8.0);
const PAGE_ABOVE_RED: f64 = 0.5;

/// The silences of the last weeks, and what follows from them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    weeks: VecDeque<Week>,
    /// Red and page as they were set last; none while they are the defaults.
    set: Option<(f64, f64)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Week {
    /// Of Unix time, from a Monday on.
    number: i64,
    /// Days of sites beyond their first.
    site_days: f64,
    /// Silences by their peak.
    peaks: Vec<u32>,
}

/// How often people would have been told in the last weeks, beside the budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Achieved {
    /// Nines at which a silence is an incident.
    pub red: f64,
    /// Nines at which people are told.
    pub page: f64,
    /// Whether these are set anew each week.
    pub tunes: bool,
    /// Sites times months of 30.44 days that were counted.
    pub site_months: f64,
    /// Silences above red, per site and month.
    pub screens: f64,
    /// Silences above page, per site and month.
    pub pages: f64,
    /// What both are to keep within: pages, screens.
    pub budget: (f64, f64),
}

/// The step that a peak is counted in; thresholds lie where one begins.
fn step_of(nines: f64) -> usize {
    ((nines - FIRST) / STEP + 1e-6).clamp(0.0, STEPS as f64 - 1.0) as usize
}

fn week_of(day: i64) -> i64 {
    // Day 0 of Unix time was a Thursday.
    (day + 3).div_euclid(7)
}

impl Tuning {
    fn week(&mut self, number: i64) -> &mut Week {
        if self.weeks.back().is_none_or(|last| last.number < number) {
            self.weeks.push_back(Week { number, site_days: 0.0, peaks: vec![0; STEPS] });
            self.weeks.retain(|week| number - week.number < WEEKS as i64);
        }
        let last = self.weeks.len() - 1;
        &mut self.weeks[last]
    }

    fn count(&mut self, day: i64, peak: f64) {
        let step = step_of(peak);
        if let Some(count) = self.week(week_of(day)).peaks.get_mut(step) {
            *count += 1;
        }
    }

    /// A person explained a silence with this peak.
    fn forget(&mut self, peak: f64) {
        let step = step_of(peak);
        let counted = self.weeks.iter_mut().rev().filter_map(|week| week.peaks.get_mut(step));
        if let Some(count) = counted.into_iter().find(|count| **count > 0) {
            *count -= 1;
        }
    }

    fn site_months(&self) -> f64 {
        self.weeks.iter().map(|week| week.site_days).sum::<f64>() / 30.44
    }

    /// Silences that peaked at `nines` or above.
    fn above(&self, nines: f64) -> f64 {
        self.weeks.iter().flat_map(|week| week.peaks.iter().skip(step_of(nines))).map(|count| f64::from(*count)).sum()
    }

    /// The lowest thresholds within the budget; none while too little was counted.
    fn propose(&self, now: (f64, f64)) -> Option<(f64, f64)> {
        let months = self.site_months();
        if months < SITE_MONTHS_MIN {
            return None;
        }
        let lowest = |(from, to): (f64, f64), budget: f64, before: f64| {
            let steps = ((to - from) / STEP).round() as usize;
            let mut nines = (0..=steps).map(|step| from + step as f64 * STEP);
            let found = nines.find(|nines| self.above(*nines) <= budget * months).unwrap_or(to);
            let moved = found.clamp(before - STEP_MAX, before + STEP_MAX).clamp(from, to);
            // Rounded to the steps by which peaks are kept.
            (moved / STEP).round() * STEP
        };
        let red = lowest(RED, BUDGET.1, now.0);
        let page = lowest(PAGE, BUDGET.0, now.1).max(red + PAGE_ABOVE_RED);
        Some((red, page))
    }
}

impl Watch {
    /// A silence ended by itself; `stood` is how things stood just before.
    pub(crate) fn count_natural(&mut self, number: SiteNumber, stream: StreamId, gap: &Gap, at: i64, stood: &Measure) {
        let site = &self.sites[number];
        let is_contact = self.streams.name(stream) == CONTACT;
        // Contact that short is never an incident.
        let is_short = is_contact && stood.missed_minutes < self.config.thresholds.contact_minutes;
        let is_learning = self.streams.past(stream).is_some_and(|past| past.is_learning(at));
        // A group or a cohort speaks for it, or a person did.
        let incident = site.trouble().incident.and_then(|id| self.incidents.get_mut(&id));
        let is_explained = incident.as_ref().is_some_and(|own| own.held_by.is_some() || own.was_outage);
        // What is silent with something that was counted is the same silence.
        let is_counted = gap.from < site.trouble().tuned_to;
        if is_explained || is_short || is_learning || is_counted || gap.with_cohort || self.guard.deaf().is_some() {
            return;
        }
        self.sites[number].trouble_mut().tuned_to = at;
        self.tuning.count(at.div_euclid(86_400), stood.surprise);
        if let Some(incident) = incident {
            incident.peak_nines = Some(stood.surprise);
        }
    }

    /// A person says that this silence was an outage: it is no reason to be quieter.
    pub(crate) fn forget_peak(&mut self, peak: Option<f64>) {
        if let Some(peak) = peak {
            self.tuning.forget(peak);
        }
    }

    /// A day is over: its sites count, and on Mondays thresholds are set anew.
    pub(crate) fn tune_on_new_day(&mut self, before: i64, day: i64) {
        let is_mature = |past: &&crate::learn::Past| !past.is_learning(self.now);
        let contacts = self.sites.watched().filter_map(|site| site.streams.first());
        let mature = contacts.filter_map(|stream| self.streams.past(*stream)).filter(is_mature).count();
        self.tuning.week(week_of(day - 1)).site_days += mature as f64;
        if !self.config.tunes || week_of(day) == week_of(before) {
            return;
        }
        let now = self.clock.thresholds();
        if let Some((red, page)) = self.tuning.propose((now.red, now.page))
            && ((red - now.red).abs() > STEP / 2.0 || (page - now.page).abs() > STEP / 2.0)
        {
            self.tuning.set = Some((red, page));
            self.set_thresholds(red, page);
        }
    }

    fn set_thresholds(&mut self, red: f64, page: f64) {
        let known = self.config.thresholds;
        self.config.thresholds = Thresholds { red, page, amber: Thresholds::default().amber.min(red), ..known };
        self.clock.set_thresholds(self.config.thresholds);
    }

    /// What is kept of it.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// Takes what was kept, before the first tick.
    pub fn restore_tuning(&mut self, tuning: Tuning) {
        if self.config.tunes {
            let usual = Thresholds::default();
            let (red, page) = tuning.set.unwrap_or((usual.red, usual.page));
            self.set_thresholds(red, page);
        }
        self.tuning = tuning;
    }

    /// How often people were told, beside the budget.
    pub fn achieved(&self) -> Achieved {
        let Thresholds { red, page, .. } = self.config.thresholds;
        let site_months = self.tuning.site_months();
        let rate = |nines| self.tuning.above(nines) / site_months.max(1e-9);
        Achieved {
            red,
            page,
            tunes: self.config.tunes,
            site_months,
            screens: rate(red),
            pages: rate(page),
            budget: BUDGET,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(peaks: &[f64], site_days: f64) -> Tuning {
        let mut tuning = Tuning::default();
        peaks.iter().for_each(|peak| tuning.count(100, *peak));
        tuning.week(week_of(100)).site_days = site_days;
        tuning
    }

    #[test]
    fn too_little_concludes_nothing_and_a_person_may_explain() {
        assert_eq!(of(&[9.0; 50], 30.0).propose((4.0, 5.5)), None);
        let mut tuning = of(&[7.05; 3], 3044.0);
        assert_eq!(tuning.above(7.0), 3.0);
        tuning.forget(7.05);
        assert_eq!((tuning.above(7.0), tuning.above(7.2)), (2.0, 0.0));
    }

    #[test]
    fn weeks_long_past_do_not_count() {
        let mut tuning = Tuning::default();
        for week in 0..20 {
            tuning.count(week * 7, 5.0);
        }
        assert_eq!(tuning.above(2.0), WEEKS as f64);
    }

    proptest! {
        /// Applied week after week to the same silences, it comes to the lowest thresholds within
        /// the budget and stays there.
        #[test]
        fn thresholds_come_to_the_budget_and_stay(peaks in proptest::collection::vec(2.0_f64..11.0, 0..400)) {
            let tuning = of(&peaks, 3044.0);
            let mut now = (4.0, 5.5);
            for _ in 0..20 {
                let next = tuning.propose(now).expect("enough was counted");
                prop_assert!((next.0 - now.0).abs() <= STEP_MAX + 1e-6);
                now = next;
            }
            let again = tuning.propose(now).expect("enough was counted");
            prop_assert!((again.0 - now.0).abs() < 1e-6 && (again.1 - now.1).abs() < 1e-6);
            let months = tuning.site_months();
            prop_assert!(tuning.above(now.0) <= BUDGET.1 * months || (now.0 - RED.1).abs() < 1e-6);
            prop_assert!(tuning.above(now.1) <= BUDGET.0 * months || now.1 >= PAGE.1 - 1e-6);
            let lower = now.0 - STEP;
            prop_assert!(lower < RED.0 - 1e-6 || tuning.above(lower) > BUDGET.1 * months);
        }
    }
}
