//! A cohort: streams whose traffic rises and falls together. It knows how much of what was expected
//! of it came, and with that slows the clocks of its members when most of them are quiet.

use crate::shape::Unit;

/// Minutes of a cohort's memory.
const MEMORY: usize = 60;
/// ρ is not less: a clock may be slowed, not stopped, by the silence of others.
const RHO_MIN: f64 = 0.005;
/// While ρ is below this, it is the cohort that is quiet, not the site: then its members go on
/// counting.
pub(crate) const COHORT_QUIET: f64 = 0.5;
/// Events that a ratio of few is drawn to 1 by.
const RHO_PRIOR: f64 = 10.0;

/// What a cohort's minute keeps: seen, expected of those not left out, expected of those not red.
pub(crate) const SEEN: usize = 0;
const EXPECTED: usize = 1;
pub(crate) const EXPECTED_HEARD: usize = 2;
/// The same of sites instead of events: seen, and expected of those not red. A site that speaks
/// often is no more of the fleet than others.
pub(crate) const SITES_SEEN: usize = 3;
pub(crate) const SITES_EXPECTED: usize = 4;
const KEPT: usize = 5;
/// Events an hour above which a stream counts as one site; slower ones count as less.
const ONE_SITE: f64 = 12.0;

/// How much a cohort's week went on, in thousandths of an hour at relative rate 1: as it should,
/// and as it did, slowed by ρ and standing still while HQ could not hear. The ratio of two
/// differences is the mean ρ, weighed by when it mattered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flow {
    pub(crate) full: u32,
    pub(crate) slowed: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Cohort {
    pub(crate) unit: Unit,
    pub(crate) shape: u32,
    pub(crate) calendar: u32,
    /// Hours at relative rate 1, see [`Flow`].
    full: f64,
    slowed: f64,
    flow_at: i64,
    /// The relative rate now.
    pub(crate) rate: f64,
    pub(crate) rho: f64,
    /// Sum of the levels of streams that are not left out …
    pub(crate) level: f64,
    /// … and of those that are not red, with how many they are.
    level_heard: f64,
    /// Sites among those, slow ones as less than one.
    sites_heard: f64,
    /// The greatest level of one stream: a stream's own silence must not slow its own clock.
    level_max: f64,
    pub(crate) streams_heard: usize,
    /// Its hours are neither declared nor learned: its own present is all that is known of them.
    pub(crate) assumed: bool,
    /// Both levels, and sites, when the running minute began: who came during it is expected from
    /// the next one on.
    begun: (f64, f64, f64),
    /// Per minute: see [`SEEN`] and those after it.
    minutes: Box<[[f32; KEPT]; MEMORY]>,
    minute: i64,
}

impl Cohort {
    pub(crate) fn new(unit: Unit, shape: u32, calendar: u32, now: i64, rate: f64) -> Self {
        Self {
            unit,
            shape,
            calendar,
            full: 0.0,
            slowed: 0.0,
            flow_at: now,
            rate,
            rho: 1.0,
            level: 0.0,
            level_heard: 0.0,
            sites_heard: 0.0,
            level_max: 0.0,
            streams_heard: 0,
            assumed: false,
            begun: (0.0, 0.0, 0.0),
            minutes: Box::new([[0.0; KEPT]; MEMORY]),
            minute: now / 60,
        }
    }

    /// The sum over finished minutes; `back` 0 is the newest of them.
    pub(crate) fn sum(&self, back: std::ops::Range<usize>, index: usize) -> f64 {
        let newest = self.minute.rem_euclid(MEMORY as i64) as usize;
        back.map(|back| f64::from(self.minutes[(newest + MEMORY - 1 - back) % MEMORY][index])).sum()
    }

    /// An event of a member of this level.
    pub(crate) fn see(&mut self, level: f64) {
        let minute = &mut self.minutes[self.minute.rem_euclid(MEMORY as i64) as usize];
        minute[SEEN] += 1.0;
        minute[SITES_SEEN] += (1.0 / level.max(ONE_SITE)) as f32;
    }

    /// Counts a member of this level in (`sign` 1) or out (-1).
    pub(crate) fn weigh(&mut self, level: f64, sign: f64, unsuspected: bool, heard: bool) {
        self.level_max = self.level_max.max(level);
        if unsuspected {
            self.level = (self.level + sign * level).max(0.0);
        }
        if heard {
            self.level_heard = (self.level_heard + sign * level).max(0.0);
            self.sites_heard = (self.sites_heard + sign * (level / ONE_SITE).min(1.0)).max(0.0);
            self.streams_heard = self.streams_heard.saturating_add_signed(sign as isize);
        }
    }

    /// Looks for its largest member anew; call [`Self::weigh_largest`] for each.
    pub(crate) fn forget_largest(&mut self) {
        self.level_max = 0.0;
    }

    pub(crate) fn weigh_largest(&mut self, level: f64) {
        self.level_max = self.level_max.max(level);
    }

    /// Whether most of it was heard in the last hour: more than that nothing was expected.
    pub(crate) fn is_speaking(&self) -> bool {
        self.rho >= COHORT_QUIET && self.sum(0..MEMORY - 1, SEEN) >= RHO_PRIOR
    }

    /// Where its week stands at `at`.
    pub(crate) fn flow(&self, at: i64, hearing: bool) -> Flow {
        let (full, slowed) = self.flowed(at, hearing);
        Flow { full: (full * 1000.0) as u32, slowed: (slowed * 1000.0) as u32 }
    }

    fn flowed(&self, at: i64, hearing: bool) -> (f64, f64) {
        let full = self.rate * (at - self.flow_at).max(0) as f64 / 3600.0;
        (self.full + full, self.slowed + if hearing { full * self.rho } else { 0.0 })
    }

    /// Whether nothing happens to it at `now`.
    pub(crate) fn is_at(&self, now: i64) -> bool {
        now / 60 == self.minute && now == self.flow_at
    }

    /// Lets time pass; `rate` is the relative rate of its week at `now`.
    pub(crate) fn advance(&mut self, now: i64, rate: f64, hearing: bool) {
        (self.full, self.slowed) = self.flowed(now, hearing);
        (self.flow_at, self.rate) = (now, rate);
        let passed = (now / 60 - self.minute).min(MEMORY as i64);
        for step in 0..passed {
            let finished = (self.minute + step).rem_euclid(MEMORY as i64) as usize;
            let minute = &mut self.minutes[finished];
            minute[EXPECTED] = (self.level.min(self.begun.0) * rate / 60.0) as f32;
            minute[EXPECTED_HEARD] = (self.level_heard.min(self.begun.1) * rate / 60.0) as f32;
            minute[SITES_EXPECTED] = (self.sites_heard.min(self.begun.2) * rate / 60.0) as f32;
            if !hearing {
                // What was not heard then says nothing about the sites.
                minute[EXPECTED] = 0.0;
                if self.unit == Unit::Rows {
                    minute[SEEN] = 0.0;
                    minute[SITES_SEEN] = 0.0;
                }
            }
            self.minutes[(finished + 1) % MEMORY] = [0.0; KEPT];
        }
        if passed > 0 {
            self.minute = now / 60;
            self.begun = (self.level, self.level_heard, self.sites_heard);
            self.rho = match self.assumed {
                true if self.is_as_lately() => 1.0,
                true => RHO_MIN,
                false => self.heard_share(),
            };
        }
    }

    /// What was heard in the last hour of what was expected.
    fn heard_share(&self) -> f64 {
        let (seen, expected) = (self.sum(0..MEMORY - 1, SEEN), self.sum(0..MEMORY - 1, EXPECTED));
        // Whoever is silent is one of those expected: leave the largest out, so that it cannot
        // excuse itself.
        let others = (1.0 - self.level_max / self.level.max(1e-9)).max(0.0);
        ((seen + RHO_PRIOR) / (expected * others + RHO_PRIOR)).clamp(RHO_MIN, 1.0)
    }

    /// Whether it is heard as it was within the last hour, and more than half of it is, but for a
    /// few: sites that close one after the other, at hours that nobody said, are not missed one
    /// after the other.
    fn is_as_lately(&self) -> bool {
        const WINDOW: usize = 5;
        const MISSING_MAX: f64 = 0.05;
        const FEW: f64 = 2.5;
        let seen = |back: usize| self.sum(back..back + WINDOW, SEEN);
        let (now, most) = (seen(0), (0..MEMORY - WINDOW).map(seen).fold(0.0, f64::max));
        let hours = WINDOW as f64 / 60.0;
        let few = (MISSING_MAX * most).max(FEW * self.level_max * hours);
        // Where nobody is heard, nobody is missed; of one alone that cannot be asked.
        let is_heard = now > 0.0 || self.streams_heard <= 1;
        is_heard && now + few >= most.max(self.sum(0..WINDOW, EXPECTED) / 2.0)
    }
}
