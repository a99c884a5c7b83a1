//! What a stream and its cohort have to do with each other: who is quiet alone and who with all the
//! others, and how well the whole fleet is heard.

use std::collections::HashSet;

use super::{Clock, SLOT, Week};

use crate::{
    cohort::{COHORT_QUIET, Cohort, EXPECTED_HEARD, SITES_EXPECTED, SITES_SEEN},
    shape::{BY_DAY, Unit},
    stream::{CohortId, Heard, Loudness, StreamId},
};

impl Clock {
    /// Finds each cohort's largest stream anew: paces changed. Once a day is enough.
    pub fn recount(&mut self) {
        self.cohorts.iter_mut().for_each(Cohort::forget_largest);
        for stream in &self.streams {
            self.cohorts[stream.cohort as usize].weigh_largest(f64::from(stream.level));
        }
    }

    /// How well the fleet is heard.
    pub fn heard(&self) -> Heard {
        const NOW: std::ops::Range<usize> = 0..5;
        const BEFORE: std::ops::Range<usize> = 5..15;
        let (mut seen, mut expected, mut low, mut judged, mut sites) = (0.0, 0.0, 0.0, 0.0, 0);
        let (mut seen_before, mut expected_before, mut sites_expected) = (0.0, 0.0, 0.0);
        let is_by_day = |cohort: &&Cohort| {
            let hour = self.calendars[cohort.calendar as usize].local(self.now).second / 3600;
            !cohort.assumed || BY_DAY.contains(&hour)
        };
        // At opening and closing time a cohort's expectation is a mixture of all or nothing; it
        // says nothing of HQ.
        let is_steady = |cohort: &&Cohort| {
            let Week { shape, peak, .. } = &self.shapes[cohort.shape as usize];
            let before = || shape.rate(&self.calendars[cohort.calendar as usize], self.now - SLOT);
            cohort.unit == Unit::ContactMinutes && cohort.rate >= f64::from(0.8 * peak) && before() >= 0.8 * peak
        };
        for cohort in self.cohorts.iter().filter(is_steady).filter(is_by_day) {
            let (cohort_seen, cohort_expected) = (cohort.sum(NOW, SITES_SEEN), cohort.sum(NOW, SITES_EXPECTED));
            seen += cohort_seen;
            sites_expected += cohort_expected;
            seen_before += cohort.sum(BEFORE, SITES_SEEN);
            expected_before += cohort.sum(BEFORE, SITES_EXPECTED);
            let contact = cohort.sum(NOW, EXPECTED_HEARD);
            expected += contact;
            if contact >= 1.0 {
                judged += 1.0;
                low += f64::from(u8::from(cohort_seen < 0.75 * cohort_expected));
                sites += cohort.streams_heard;
            }
        }
        let ratio = |seen: f64, expected: f64| if expected > 0.0 { seen / expected } else { 1.0 };
        Heard {
            expected,
            ratio: ratio(seen, sites_expected),
            // What was not expected before cannot have fallen: a fleet that does not open on a
            // holiday never spoke.
            ratio_before: if expected_before >= sites_expected { ratio(seen_before, expected_before) } else { 0.0 },
            low_cohorts: if judged > 0.0 { low / judged } else { 0.0 },
            sites,
        }
    }

    /// Whether a quiet stream is quiet by itself, not with its cohort.
    pub fn is_alone(&self, id: StreamId) -> bool {
        let stream = &self.streams[id.0 as usize];
        let cohort = &self.cohorts[stream.cohort as usize];
        stream.left_out || if stream.in_company { cohort.is_speaking() } else { cohort.rho >= COHORT_QUIET }
    }

    /// Whether the hours of a stream's cohort are neither declared nor learned.
    pub fn is_assumed(&self, id: StreamId) -> bool {
        self.cohorts[self.streams[id.0 as usize].cohort as usize].assumed
    }

    /// Says so of a cohort: from then on its members are missed as long as most of it is heard as
    /// it was lately.
    pub(crate) fn set_assumed(&mut self, cohort: CohortId, assumed: bool) {
        self.cohorts[cohort.0 as usize].assumed = assumed;
    }

    /// Streams of cohorts that fell quiet as a whole since the last call, at hours that nobody
    /// knew: those that went first went with the others. What is red already stays so.
    pub(crate) fn take_fallen_quiet(&mut self) -> Vec<StreamId> {
        let cohorts: HashSet<CohortId> = self.fallen_quiet.drain(..).collect();
        if cohorts.is_empty() {
            return Vec::new();
        }
        let streams = self.streams.iter().enumerate();
        let of_cohorts = streams.filter(|(_, stream)| cohorts.contains(&CohortId(stream.cohort)));
        let of_cohorts = of_cohorts.filter(|(_, stream)| stream.loudness < Loudness::Red);
        of_cohorts.map(|(id, _)| StreamId(id as u32)).collect()
    }

    /// Whether so much of a stream's cohort is quiet that its own silence says nothing.
    pub(crate) fn is_in_quiet_cohort(&self, id: StreamId) -> bool {
        self.cohorts[self.streams[id.0 as usize].cohort as usize].rho < COHORT_QUIET
    }

    /// The cohort of a stream.
    pub fn cohort_of(&self, id: StreamId) -> CohortId {
        CohortId(self.streams[id.0 as usize].cohort)
    }

    /// Whether most of a cohort was heard in the last hour.
    pub fn is_cohort_speaking(&self, cohort: CohortId) -> bool {
        self.cohorts[cohort.0 as usize].is_speaking()
    }

    /// Whether a stream is left out of its cohort, and whether it is red.
    pub(super) fn standing(&self, id: u32) -> (bool, bool) {
        let stream = &self.streams[id as usize];
        (stream.left_out, stream.loudness >= Loudness::Red)
    }

    pub(super) fn set_loudness(&mut self, id: u32, loudness: Loudness) {
        let (was_quiet, was_red) = self.standing(id);
        let stream = &mut self.streams[id as usize];
        stream.loudness = loudness;
        if loudness == Loudness::Normal {
            (stream.left_out, stream.in_company) = (false, false);
        } else if loudness >= Loudness::Red && self.cohorts[stream.cohort as usize].rho >= COHORT_QUIET {
            stream.left_out = true;
        }
        if loudness > Loudness::Normal && self.cohorts[stream.cohort as usize].rho < COHORT_QUIET {
            stream.in_company = true;
        }
        let (is_quiet, is_red) = self.standing(id);
        if was_quiet != is_quiet {
            self.weigh(id, if is_quiet { -1.0 } else { 1.0 }, true, false);
        }
        if was_red != is_red {
            self.weigh(id, if is_red { -1.0 } else { 1.0 }, false, true);
        }
    }

    /// Counts a stream in or out of what its cohort is expected to say.
    pub(super) fn weigh(&mut self, id: u32, sign: f64, unsuspected: bool, heard: bool) {
        let stream = &self.streams[id as usize];
        self.cohorts[stream.cohort as usize].weigh(f64::from(stream.level), sign, unsuspected, heard);
    }

    pub(super) fn advance_cohort(&mut self, index: usize, now: i64) {
        let cohort = &self.cohorts[index];
        if !cohort.is_at(now) {
            let shape = &self.shapes[cohort.shape as usize].shape;
            let rate = f64::from(shape.rate(&self.calendars[cohort.calendar as usize], now));
            let was_quiet = self.cohorts[index].rho < COHORT_QUIET;
            self.cohorts[index].advance(now, rate, self.hearing);
            let cohort = &self.cohorts[index];
            if cohort.assumed && !was_quiet && cohort.rho < COHORT_QUIET {
                self.fallen_quiet.push(CohortId(index as u32));
            }
        }
    }
}
