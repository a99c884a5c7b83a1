//! What a site's rhythm is, learned from its past: how much of a stream falls on which hour of the
//! week, and how long its healthy silences are.
//!
//! Learning is apart from watching: it is fed with finished, healthy stretches, a day at a time or
//! so, and gives rates. The rule it rests on: a gap is learned from only when it has ended and was
//! not suspect, so a silent site keeps its last good rhythm for ever.

use serde::{Deserialize, Serialize};

use crate::{
    calendar::Calendar,
    shape::{Shape, Unit},
    surprise::Tail,
};

/// Days after which what was seen counts half.
pub const HALF_LIFE_DAYS: f64 = 28.0;
/// κ: hours of exposure that the cohort's shape is worth. Minutes of contact are not independent of
/// each other, a site is open or not: there, less than one slot's worth, or a site closed on
/// Sundays would for weeks be expected like the others.
pub const fn prior_hours(unit: Unit) -> f32 {
    match unit {
        Unit::ContactMinutes => 0.03,
        Unit::Rows => 5.0,
    }
}
/// Events that the cohort's level is worth.
const PRIOR_EVENTS: f32 = 2.0;
/// Excesses over the threshold that the cohort's tail is worth.
const PRIOR_EXCESSES: f32 = 20.0;

/// Events and exposure per bin of the week, old ones fading.
///
/// A bin's rate is `λ = (n + κ·level·shape) / (e + κ)`, with the cohort's shape, and `level = (N +
/// 2) / (E + 2 / level of the cohort)`, where `E` weighs each hour of exposure with the shape, so
/// that a site that was only ever seen at noon is not taken for a busy one. This is the mean of a
/// Gamma posterior whose prior is the cohort (Gelman et al., Bayesian Data Analysis, 3rd ed.,
/// section 2.6).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Events per bin; empty while nothing was seen.
    events: Vec<f32>,
    /// Hours of exposure per bin; likewise.
    hours: Vec<f32>,
}

impl Counts {
    fn make_room(&mut self, bins: usize) {
        if self.hours.is_empty() {
            (self.events, self.hours) = (vec![0.0; bins], vec![0.0; bins]);
        }
    }

    /// Takes a healthy stretch `from..to` (Unix seconds) in which `events` came, evenly. Closures
    /// teach nothing.
    pub fn learn(&mut self, unit: Unit, calendar: &Calendar, from: i64, to: i64, events: f32) {
        self.make_room(unit.bins());
        let parts = calendar.outside_closures(from, to);
        let open: i64 = parts.iter().map(|(from, to)| to - from).sum();
        for (from, to) in parts {
            let mut at = from;
            while at < to {
                let local = calendar.local(at);
                let slot_end = at + unit.slot_seconds() - local.second % unit.slot_seconds();
                let end = calendar.even_until(at, &local, to).min(slot_end);
                let bin = unit.bin(local.weekday, local.second);
                self.hours[bin] += (end - at) as f32 / 3600.0;
                self.events[bin] += events * (end - at) as f32 / open as f32;
                at = end;
            }
        }
    }

    /// Lets `days` pass: everything fades by its half-life.
    pub fn fade(&mut self, days: f64) {
        let factor = 0.5_f64.powf(days / HALF_LIFE_DAYS) as f32;
        self.events.iter_mut().chain(&mut self.hours).for_each(|value| *value *= factor);
    }

    /// Adds what another stream of the same cohort saw.
    pub fn add(&mut self, other: &Counts) {
        self.make_room(other.hours.len());
        self.events.iter_mut().zip(&other.events).for_each(|(sum, value)| *sum += value);
        self.hours.iter_mut().zip(&other.hours).for_each(|(sum, value)| *sum += value);
    }

    /// Events seen, faded.
    pub fn total_events(&self) -> f32 {
        self.events.iter().sum()
    }

    /// Hours seen, faded.
    pub fn total_hours(&self) -> f32 {
        self.hours.iter().sum()
    }

    /// The mean shape of these counts; none before a day's worth was seen.
    pub fn shape(&self, unit: Unit, fallback: &Shape) -> Option<Shape> {
        if self.total_hours() < 24.0 || self.total_events() < 1.0 {
            return None;
        }
        let relative = fallback.rates();
        let level = self.level(fallback, 0.0);
        let rates: Vec<f32> =
            (0..unit.bins()).map(|bin| (self.events[bin] + level * relative[bin]) / (self.hours[bin] + 1.0)).collect();
        Some(Shape::of_rates(unit, &rates))
    }

    /// Events an hour where the shape is 1. `cohort_level` is in the same unit; 0 for none.
    pub fn level(&self, shape: &Shape, cohort_level: f32) -> f32 {
        let exposure: f32 = self.hours.iter().zip(shape.rates()).map(|(hours, rate)| hours * rate).sum();
        let events = self.total_events();
        if cohort_level > 0.0 {
            (events + PRIOR_EVENTS) / (exposure + PRIOR_EVENTS / cohort_level)
        } else if exposure > 0.0 {
            events / exposure
        } else {
            0.0
        }
    }

    /// The effective number of events behind the rates.
    pub fn evidence(&self) -> f32 {
        self.total_events() + PRIOR_EVENTS
    }

    /// Events an hour per bin, drawn towards the cohort's shape by `kappa` hours, and the level
    /// they are relative to.
    pub fn rates(&self, unit: Unit, cohort: &Shape, cohort_level: f32, kappa: f32) -> (Shape, f32) {
        let level = self.level(cohort, cohort_level);
        if level <= 0.0 {
            return (cohort.clone(), 0.0);
        }
        let prior = cohort.rates();
        let relative: Vec<f32> = (0..unit.bins())
            .map(|bin| {
                let rate =
                    (of_bin(&self.events, bin) + kappa * level * prior[bin]) / (of_bin(&self.hours, bin) + kappa);
                rate / level
            })
            .collect();
        (Shape::of_relative(unit, &relative), level)
    }
}

/// Bins that are not there have nothing in them.
fn of_bin(values: &[f32], bin: usize) -> f32 {
    values.get(bin).copied().unwrap_or_default()
}

/// Bins of [`Gaps`]: eight to a factor of ten, from 0.01 expected events on.
const GAP_BINS: usize = 56;

/// Healthy gaps between events, measured in what was expected meanwhile, as a histogram of their
/// logarithm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gaps {
    /// By bin, up to the last that has any.
    counts: Vec<f32>,
}

fn gap_bin(expected: f64) -> usize {
    ((expected.max(1e-9).log10() + 2.0) * 8.0).clamp(0.0, (GAP_BINS - 1) as f64) as usize
}

/// The upper end of a bin: a little pessimistic on purpose.
fn gap_of(bin: usize) -> f64 {
    10.0_f64.powf((bin + 1) as f64 / 8.0 - 2.0)
}

impl Gaps {
    /// Takes a healthy gap in which `expected` events were expected and none came.
    pub fn learn(&mut self, expected: f64) {
        let bin = gap_bin(expected);
        self.make_room(bin + 1);
        self.counts[bin] += 1.0;
    }

    /// See [`Counts::fade`].
    pub fn fade(&mut self, days: f64) {
        let factor = 0.5_f64.powf(days / HALF_LIFE_DAYS) as f32;
        self.counts.iter_mut().for_each(|count| *count *= factor);
    }

    /// See [`Counts::add`].
    pub fn add(&mut self, other: &Gaps) {
        self.make_room(other.counts.len());
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, value)| *sum += value);
    }

    fn make_room(&mut self, bins: usize) {
        let more = bins.saturating_sub(self.counts.len());
        self.counts.reserve_exact(more);
        self.counts.extend(std::iter::repeat_n(0.0, more));
    }

    /// Gaps seen, faded.
    pub fn total(&self) -> f32 {
        self.counts.iter().sum()
    }

    /// Their tail, drawn towards the cohort's with a weight of 20 excesses. `all` is how many gaps
    /// the stream has in all.
    pub fn tail(&self, cohort: &Tail, all: f32) -> Tail {
        let total = self.total();
        if total < 1.0 {
            return *cohort;
        }
        let mut below = 0.0;
        let bin = self.counts.iter().position(|count| {
            below += count;
            below >= total * Tail::QUANTILE as f32
        });
        let threshold_bin = bin.unwrap_or(GAP_BINS - 1);
        let threshold = gap_of(threshold_bin);
        let beyond = || self.counts.iter().enumerate().skip(threshold_bin + 1);
        let excesses: f64 = beyond().map(|(_, count)| f64::from(*count)).sum();
        // The median, not the mean: one early closing in a year must not make every late opening
        // usual.
        let mut passed = 0.0;
        let middle = beyond().find(|(_, count)| {
            passed += f64::from(**count);
            passed >= excesses / 2.0
        });
        let median = middle.map_or(0.0, |(bin, _)| gap_of(bin) - threshold);
        let own_scale = median * Tail::SHAPE / (2.0_f64.powf(Tail::SHAPE) - 1.0);
        let prior = f64::from(PRIOR_EXCESSES);
        let gaps_of_prior = prior / f64::from(cohort.above);
        let weight = excesses / (excesses + prior);
        let mix = |own: f64, cohort: f32| weight * own + (1.0 - weight) * f64::from(cohort);
        // The scale is shrunk by the excesses themselves: many gaps may hold few.
        let scale = (excesses * own_scale + prior * f64::from(cohort.scale)) / (excesses + prior);
        let above = (excesses + prior) / (f64::from(all.max(total)) + gaps_of_prior);
        Tail {
            above: above.clamp(1e-6, 0.5) as f32,
            threshold: mix(threshold, cohort.threshold) as f32,
            scale: scale.max(1e-3) as f32,
        }
    }

    /// The longest healthy gap seen, in expected events; 0 for none.
    pub fn longest(&self) -> f64 {
        self.counts.iter().rposition(|count| *count >= 0.01).map_or(0.0, gap_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surprise::Tails;

    const HOUR: i64 = 3600;

    #[test]
    fn a_learned_rate_is_what_was_seen_and_a_new_site_is_its_cohort() {
        let (unit, calendar) = (Unit::Rows, Calendar::default());
        let mut counts = Counts::default();
        for hour in 0..24 * 7 * 8 {
            let events = if (9..17).contains(&(hour % 24)) { 20.0 } else { 0.0 };
            counts.learn(unit, &calendar, hour * HOUR, (hour + 1) * HOUR, events);
        }
        let cohort = Shape::unlearned(unit);
        let (shape, level) = counts.rates(unit, &cohort, 5.0, prior_hours(unit));
        let at = |hour: i64| shape.rate(&calendar, hour * HOUR) * level;
        assert!((at(12) - 20.0).abs() < 1.5, "{}", at(12));
        assert!(at(3) < 1.0, "{}", at(3));
        let (new_shape, new_level) = Counts::default().rates(unit, &cohort, 5.0, prior_hours(unit));
        assert!((new_level - 5.0).abs() < 1e-3);
        assert!((new_shape.rate(&calendar, 12 * HOUR) - 1.0).abs() < 1e-3);
    }

    #[test]
    fn what_is_old_counts_half_after_four_weeks() {
        let mut counts = Counts::default();
        counts.learn(Unit::Rows, &Calendar::default(), 0, 10 * HOUR, 100.0);
        counts.fade(28.0);
        assert!((counts.total_events() - 50.0).abs() < 0.01);
        assert!((counts.total_hours() - 5.0).abs() < 0.01);
    }

    #[test]
    fn a_stream_with_long_healthy_gaps_has_a_long_tail() {
        let cohort = Tails::OF_ROWS.open;
        let (mut steady, mut bursty) = (Gaps::default(), Gaps::default());
        for number in 0..2000 {
            steady.learn(0.5 + f64::from(number % 10) / 10.0);
            bursty.learn(if number % 10 == 0 { 8.0 + f64::from(number % 100) / 10.0 } else { 0.2 });
        }
        let (steady, bursty) = (steady.tail(&cohort, 2000.0), bursty.tail(&cohort, 2000.0));
        assert!(bursty.surprise(20.0) < steady.surprise(20.0) * 0.7, "{bursty:?} {steady:?}");
    }
}
