//! Keeps what streams did until it may be learned from, and turns it into paces: own rates drawn
//! towards those of the family.

use std::sync::Arc;

use rollcall_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    calendar::Calendar,
    rhythm::{Counts, Gaps, HALF_LIFE_DAYS, prior_hours},
    shape::{Shape, Unit},
    stream::{Gap, Pace, ShapeId},
    surprise::Tails,
};

/// One stream's past, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Past {
    unit_is_contact: bool,
    counts: Counts,
    /// Healthy gaps within open time.
    gaps: Gaps,
    /// Healthy gaps over closed time.
    closed_gaps: Gaps,
    /// The longest of them, in expected events, fading slowly; none in what was kept before this
    /// was.
    #[serde(default)]
    longest: Option<f32>,
    /// Rows seen, faded, and the events that brought them.
    rows: f32,
    row_events: f32,
    /// Everything before this instant (Unix seconds) was learned from or is never to be.
    learned_to: i64,
    /// When the stream was first heard, Unix seconds.
    pub(crate) born: i64,
    /// Events per slot that are not learned from yet: slot number (of Unix time), count.
    waiting: Vec<(i64, f32)>,
    /// Stretches that must not be learned from, Unix seconds.
    unhealthy: Vec<(i64, i64)>,
}

/// Streams alike: same table, same kind of site.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// What is counted.
    pub unit: Unit,
    /// The mean week.
    pub shape: Arc<Shape>,
    /// The mean events an hour where the shape is 1; 0 while nothing was learned.
    pub level: f32,
    /// The healthy gaps of its members, by class of rate: a night's edge is many events of a busy
    /// site and none of a slow one.
    pub(crate) gaps: [ClassGaps; CLASSES],
    /// Whether anything was learned.
    pub learned: bool,
    /// Of how many streams: one alone teaches itself nothing.
    pub members: usize,
}

impl Family {
    /// A family nothing is known of yet. Contact is expected from the start, `contact_level` times
    /// an hour; rows are not.
    pub fn new(unit: Unit, contact_level: f32) -> Self {
        let (level, tails) = match unit {
            Unit::ContactMinutes => (contact_level, Tails::OF_CONTACT),
            Unit::Rows => (0.0, Tails::OF_ROWS),
        };
        // Of contact nothing is assumed: sites that are heard at night are missed at night.
        let shape = match unit {
            Unit::ContactMinutes => Shape::flat(unit),
            Unit::Rows => Shape::unlearned(unit),
        };
        let gaps = [ClassGaps { tails, longest: 0.0 }; CLASSES];
        Self { unit, shape: Arc::new(shape), level, gaps, learned: false, members: 0 }
    }

    /// What all members together teach.
    pub fn learn<'a>(&mut self, members: impl Iterator<Item = &'a Past>) {
        let (mut counts, mut levels, mut streams) = (Counts::default(), 0.0, 0);
        let mut gaps: [(Gaps, Gaps); CLASSES] = Default::default();
        let mut longest = [0.0_f32; CLASSES];
        for past in members.filter(|past| past.counts.total_hours() >= 2.0) {
            counts.add(&past.counts);
            let level = past.counts.level(&self.shape, 0.0);
            let class = class_of(level);
            longest[class] = longest[class].max(past.longest_gap() as f32);
            let (open, closed) = &mut gaps[class];
            open.add(&past.gaps);
            closed.add(&past.closed_gaps);
            levels += level;
            streams += 1;
        }
        self.members = streams;
        let fallback = Family::new(self.unit, 0.0).shape;
        if let Some(shape) = counts.shape(self.unit, &fallback) {
            self.shape = Arc::new(shape);
            self.learned = true;
        }
        if streams > 0 && levels > 0.0 {
            self.level = counts.level(&self.shape, 0.0).max(1e-6);
            let of_unit = if self.unit == Unit::Rows { Tails::OF_ROWS } else { Tails::OF_CONTACT };
            self.gaps = std::array::from_fn(|class| ClassGaps {
                tails: tails(&gaps[class].0, &gaps[class].1, &of_unit),
                longest: longest[class],
            });
        }
    }
}

/// What healthy gaps of streams with like rates are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ClassGaps {
    tails: Tails,
    /// In expected events.
    longest: f32,
}

/// Classes of rate: up to a quarter of an event an hour, up to 1, 4, 16, and above.
const CLASSES: usize = 5;

fn class_of(level: f32) -> usize {
    [0.25, 1.0, 4.0, 16.0].iter().filter(|limit| level > **limit).count()
}

/// Both tails of a stream's gaps, drawn towards `prior`.
fn tails(open: &Gaps, closed: &Gaps, prior: &Tails) -> Tails {
    let all = open.total() + closed.total();
    Tails { open: open.tail(&prior.open, all), closed: closed.tail(&prior.closed, all) }
}

/// What a stream's clock is to go by.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// The week.
    pub shape: Arc<Shape>,
    /// Events an hour where the shape is 1.
    pub level: f32,
    /// Events behind it.
    pub evidence: f32,
    /// Its healthy gaps.
    pub tails: Tails,
    /// Rows that an event brings, on average.
    pub rows_per_event: f32,
    /// See [`Pace::longest`].
    pub longest: f32,
}

impl Learned {
    /// The same with the week as the clock knows it.
    pub(crate) fn pace(&self, shape: ShapeId) -> Pace {
        let Self { shape: _, level, evidence, tails, rows_per_event, longest } = *self;
        Pace { shape, level, evidence, tails, rows_per_event, longest }
    }
}

/// Contact is told to sites, not learned: so many events' worth of evidence from the start.
const EVIDENCE_OF_CONTACT: f32 = 20.0;
/// Days after which a rhythm is settled.
pub(crate) const LEARNING_DAYS: i64 = 14;
/// The longest silence counts once the rate by which it is measured is the stream's own, in the
/// second week: by its family's, the first nights of a slow site hold hundreds of events.
const LONGEST_AFTER_HOURS: f32 = 150.0;
/// Days after which the longest silence counts half, unless there was another.
const LONGEST_HALF_LIFE_DAYS: f64 = 168.0;
/// A day's learning keeps at most so many slots waiting: ten weeks of quarters of an hour.
const WAITING_MAX: usize = 6720;

impl Past {
    /// A stream first heard at `now`.
    pub fn new(unit: Unit, now: i64) -> Self {
        Self {
            unit_is_contact: unit == Unit::ContactMinutes,
            counts: Counts::default(),
            gaps: Gaps::default(),
            closed_gaps: Gaps::default(),
            longest: Some(0.0),
            rows: 0.0,
            row_events: 0.0,
            learned_to: now,
            born: now,
            waiting: Vec::new(),
            unhealthy: Vec::new(),
        }
    }

    fn unit(&self) -> Unit {
        if self.unit_is_contact { Unit::ContactMinutes } else { Unit::Rows }
    }

    /// Takes rows, whether or not they are an event of their own.
    pub fn count_rows(&mut self, rows: f32) {
        self.rows += rows;
    }

    /// Rows that an event brings, on average.
    pub fn rows_per_event(&self) -> f32 {
        if self.row_events > 0.0 { (self.rows / self.row_events).max(1.0) } else { 1.0 }
    }

    /// Takes an event and the gap it ended, and whether that was healthy.
    pub fn event(&mut self, at: i64, gap: &Gap, healthy: bool) {
        self.row_events += 1.0;
        let slot = at.div_euclid(self.unit().slot_seconds());
        match self.waiting.last_mut() {
            Some((last, sum)) if *last == slot => *sum += 1.0,
            _ => {
                if self.waiting.len() < WAITING_MAX {
                    self.waiting.push((slot, 1.0));
                }
            }
        }
        if !healthy {
            self.unhealthy.push((gap.from, at));
        } else if !gap.with_cohort {
            // A gap of the whole cohort is learned from as time, not as a gap of this stream's own.
            let gaps = if gap.over_closed { &mut self.closed_gaps } else { &mut self.gaps };
            gaps.learn(gap.expected);
            if self.counts.total_hours() >= LONGEST_AFTER_HOURS {
                self.longest = Some((self.longest_gap() as f32).max(gap.expected as f32));
            }
        }
    }

    /// A person said that a silence was normal after all.
    pub fn was_normal(&mut self, calendar: &Calendar, from: i64, to: i64, expected: f64) {
        self.unhealthy.retain(|(start, end)| *end <= from || *start >= to);
        if from < self.learned_to {
            self.counts.learn(self.unit(), calendar, from, to.min(self.learned_to), 0.0);
        }
        self.closed_gaps.learn(expected);
        self.longest = Some((self.longest_gap() as f32).max(expected as f32));
    }

    /// A person said that a time was an outage, although something trickled in.
    pub fn was_outage(&mut self, from: i64, to: i64) {
        self.unhealthy.push((from, to));
    }

    /// Learns all that ended before `last_event`: a gap that still lasts teaches nothing.
    pub fn learn(&mut self, calendar: &Calendar, last_event: i64) {
        let unit = self.unit();
        let slot_seconds = unit.slot_seconds();
        let through = last_event.div_euclid(slot_seconds) * slot_seconds;
        let mut waiting = std::mem::take(&mut self.waiting).into_iter().peekable();
        let mut at = self.learned_to.div_euclid(slot_seconds) * slot_seconds;
        while at < through {
            let next = waiting.peek().map_or(through, |(slot, _)| slot * slot_seconds).min(through);
            if next > at {
                self.learn_healthy(unit, calendar, at, next, 0.0);
                at = next;
            } else if let Some((slot, count)) = waiting.next_if(|(slot, _)| slot * slot_seconds <= at) {
                if slot * slot_seconds == at {
                    self.learn_healthy(unit, calendar, at, at + slot_seconds, count);
                    at += slot_seconds;
                }
            } else {
                break;
            }
        }
        self.waiting = waiting.filter(|(slot, _)| slot * slot_seconds >= through).collect();
        self.learned_to = self.learned_to.max(through);
        self.unhealthy.retain(|(_, end)| *end > through);
    }

    fn learn_healthy(&mut self, unit: Unit, calendar: &Calendar, from: i64, to: i64, count: f32) {
        if count > 0.0 {
            if !self.unhealthy.iter().any(|(start, end)| *start < to && *end > from) {
                self.counts.learn(unit, calendar, from, to, count);
            }
            return;
        }
        let mut parts = vec![(from, to)];
        for (start, end) in &self.unhealthy {
            parts = parts
                .into_iter()
                .flat_map(|(from, to)| [(from, to.min(*start)), (from.max(*end), to)])
                .filter(|(from, to)| from < to)
                .collect();
        }
        for (from, to) in parts {
            self.counts.learn(unit, calendar, from, to, 0.0);
        }
    }

    /// Lets days pass.
    pub fn fade(&mut self, days: f64) {
        self.counts.fade(days);
        self.gaps.fade(days);
        self.closed_gaps.fade(days);
        let factor = 0.5_f64.powf(days / HALF_LIFE_DAYS) as f32;
        self.rows *= factor;
        let longest = 0.5_f64.powf(days / LONGEST_HALF_LIFE_DAYS) as f32;
        self.longest = self.longest.map(|known| known * longest);
        self.row_events *= factor;
    }

    /// Hours learned from, faded.
    pub fn hours(&self) -> f32 {
        self.counts.total_hours()
    }

    /// The longest healthy silence known, in expected events.
    pub fn longest_gap(&self) -> f64 {
        self.longest.map_or_else(|| self.gaps.longest().max(self.closed_gaps.longest()), f64::from)
    }

    /// For how many days it has been known at `now`.
    pub fn age_days(&self, now: Timestamp) -> i64 {
        (now.as_seconds() - self.born) / 86_400
    }

    /// Whether so little is known that every gap which ended by itself teaches something.
    pub(crate) fn is_learning(&self, now: i64) -> bool {
        now - self.born < LEARNING_DAYS * 86_400
    }

    /// The pace this past gives within its family.
    pub fn pace(&self, family: &Family, calendar: &Calendar) -> Learned {
        pace(Some(self), family, calendar)
    }
}

/// The pace of a stream: its own past within its family, cut to the hours it declares.
pub fn pace(past: Option<&Past>, family: &Family, calendar: &Calendar) -> Learned {
    let unit = family.unit;
    let base = match (&calendar.hours, family.learned) {
        (Some(hours), false) => Arc::new(Shape::flat(unit).within(hours)),
        _ => family.shape.clone(),
    };
    let (shape, level) = match past.filter(|past| past.hours() >= 2.0) {
        Some(past) => {
            let others = family.members.saturating_sub(1) as f32;
            let kappa = prior_hours(unit).min(0.25 + 0.5 * others);
            let (own, level) = past.counts.rates(unit, &base, family.level, kappa);
            (Arc::new(own), level)
        }
        None => (base, family.level),
    };
    let shape = match &calendar.hours {
        Some(hours) => Arc::new(shape.within(hours)),
        None => shape,
    };
    let evidence = past.map_or(2.0, |past| past.counts.evidence())
        + if unit == Unit::ContactMinutes { EVIDENCE_OF_CONTACT } else { 0.0 };
    let alike = &family.gaps[class_of(level)];
    let tails = past.map_or(alike.tails, |past| tails(&past.gaps, &past.closed_gaps, &alike.tails));
    let rows_per_event = past.map_or(1.0, Past::rows_per_event);
    // Beacons are told to come: a site that was away once has no right to be so again.
    let longest = match unit {
        Unit::ContactMinutes => 0.0,
        Unit::Rows => longest(past, alike),
    };
    Learned { shape, level, evidence, tails, rows_per_event, longest }
}

/// The longest healthy silence of a stream, of those alike as long as it is new.
fn longest(past: Option<&Past>, alike: &ClassGaps) -> f32 {
    let own = past.map_or(0.0, |past| past.longest_gap() as f32);
    let is_new = past.is_none_or(|past| past.hours() < (LEARNING_DAYS * 24) as f32);
    if is_new { own.max(alike.longest) } else { own }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Loudness;

    const HOUR: i64 = 3600;

    fn gap(from: i64, expected: f64) -> Gap {
        Gap { from, expected, loudness: Loudness::Normal, with_cohort: false, over_closed: false }
    }

    /// Ten weeks of twenty rows an hour, all day long.
    fn steady() -> Past {
        let mut past = Past::new(Unit::Rows, 0);
        for hour in 0..10 * 168 {
            for part in 0..20 {
                past.event(hour * HOUR + part * 180, &gap(0, 1.0), true);
            }
        }
        past.learn(&Calendar::default(), 10 * 168 * HOUR);
        past
    }

    #[test]
    fn silence_that_lasts_teaches_nothing_and_an_outage_leaves_no_trace() {
        let calendar = Calendar::default();
        let mut past = steady();
        let before = past.clone();
        past.learn(&calendar, 10 * 168 * HOUR);
        assert_eq!(past, before, "nothing came, nothing was learned");
        // Twelve weeks of silence, found to be an outage when the site came back.
        let back = 22 * 168 * HOUR;
        past.event(back, &gap(10 * 168 * HOUR, 40_000.0), false);
        past.learn(&calendar, back + HOUR);
        let shape = Arc::new(Shape::flat(Unit::Rows));
        let family = Family { shape, level: 20.0, learned: true, ..Family::new(Unit::Rows, 0.0) };
        let (healthy, after) = (before.pace(&family, &calendar), past.pace(&family, &calendar));
        let at_noon = |pace: &Learned| pace.level * pace.shape.rate(&calendar, 12 * HOUR);
        assert!((at_noon(&healthy) - 20.0).abs() < 1.0, "{}", at_noon(&healthy));
        assert!((at_noon(&after) - at_noon(&healthy)).abs() < 0.2, "{}", at_noon(&after));
    }

    #[test]
    fn a_slow_site_is_not_measured_by_the_nights_of_busy_ones() {
        // A busy site opens half an hour late now and then: that is thirty events to it, and two
        // weeks to one with two a day.
        let of = |per_hour: i64, late: f64| {
            let mut past = Past::new(Unit::Rows, 0);
            for hour in 0..10 * 168 {
                for part in 0..per_hour {
                    past.event(hour * HOUR + part * HOUR / per_hour, &gap(0, 1.0), true);
                }
                if per_hour == 0 && hour % 12 == 0 {
                    past.event(hour * HOUR, &gap(0, 1.0), true);
                }
                if hour % 24 == 9 {
                    let late = if hour % 240 == 9 { late * (1 + hour / 240 % 3) as f64 } else { 1.0 };
                    past.event(hour * HOUR, &Gap { over_closed: true, ..gap(0, late) }, true);
                }
            }
            past.learn(&Calendar::default(), 10 * 168 * HOUR);
            past
        };
        let (busy, slow) = (of(60, 30.0), of(0, 4.0));
        let mut family = Family::new(Unit::Rows, 0.0);
        family.learn([&busy; 20].into_iter().chain([&slow; 20]));
        family.learn([&busy; 20].into_iter().chain([&slow; 20]));
        let tail_of = |past: &Past| past.pace(&family, &Calendar::default()).tails.closed;
        let (of_busy, of_slow) = (tail_of(&busy).threshold, tail_of(&slow).threshold);
        assert!(of_busy > 20.0 && of_slow < 10.0, "a night's edge in events: {of_busy} {of_slow}");
    }

    #[test]
    fn the_first_nights_make_no_longest_silence() {
        let mut past = Past::new(Unit::Rows, 0);
        past.event(10 * HOUR, &gap(0, 200.0), true);
        assert_eq!(past.longest_gap(), 0.0, "measured by the family's rate");
        for hour in 10..10 * 24 {
            past.event(hour * HOUR, &gap(0, 1.0), true);
        }
        past.learn(&Calendar::default(), 10 * 24 * HOUR);
        past.event(300 * HOUR, &gap(0, 6.0), true);
        assert_eq!(past.longest_gap(), 6.0);
        past.fade(168.0);
        assert!((past.longest_gap() - 3.0).abs() < 0.01);
    }

    #[test]
    fn a_person_may_call_a_silence_normal() {
        let calendar = Calendar::default();
        let mut past = steady();
        let rate = |past: &Past| past.counts.total_events() / past.counts.total_hours();
        let before = rate(&past);
        let (from, to) = (10 * 168 * HOUR, 11 * 168 * HOUR);
        past.event(to, &gap(from, 3_000.0), false);
        past.learn(&calendar, to);
        assert!((rate(&past) - before).abs() < 0.01);
        past.was_normal(&calendar, from, to, 3_000.0);
        assert!(rate(&past) < before * 0.95, "{} {before}", rate(&past));
    }
}
