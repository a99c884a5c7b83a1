//! A week's shape: how much of a stream's traffic falls on which hour, relative to its mean.

use chrono::Weekday;

use crate::calendar::{Calendar, DAY, Hours};

/// The local hours in which a site is taken to be open where nothing better is known.
pub(crate) const BY_DAY: std::ops::Range<i64> = 9..18;

/// What a stream counts, and with it how its week is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Minutes in which the site was heard: 15-minute slots of Monday to Friday, Saturday, Sunday.
    /// A rate is at most 60 an hour.
    ContactMinutes,
    /// Minutes in which rows of a table came: the 168 hours of the week.
    Rows,
}

impl Unit {
    /// Different days of the week.
    pub const fn columns(self) -> usize {
        match self {
            Self::ContactMinutes => 3,
            Self::Rows => 7,
        }
    }

    /// Slots of a day.
    pub const fn slots(self) -> usize {
        match self {
            Self::ContactMinutes => 96,
            Self::Rows => 24,
        }
    }

    /// All bins of a week.
    pub const fn bins(self) -> usize {
        self.columns() * self.slots()
    }

    /// Seconds of a slot.
    pub const fn slot_seconds(self) -> i64 {
        DAY / self.slots() as i64
    }

    /// How many days of a week share the column.
    pub(crate) fn days_of(self, column: usize) -> f32 {
        match (self, column) {
            (Self::ContactMinutes, 0) => 5.0,
            _ => 1.0,
        }
    }

    pub(crate) fn column(self, weekday: Weekday) -> usize {
        let day = weekday.num_days_from_monday() as usize;
        match self {
            Self::ContactMinutes => day.saturating_sub(4),
            Self::Rows => day,
        }
    }

    /// The bin of a second of a local day.
    pub(crate) fn bin(self, weekday: Weekday, second: i64) -> usize {
        self.column(weekday) * self.slots() + (second / self.slot_seconds()) as usize
    }
}

/// Relative rates of a week as running sums, so that any stretch is summed in constant time. 1 is a
/// week's mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    unit: Unit,
    /// Per column `slots + 1` running sums, in hours at relative rate.
    sums: Box<[f32]>,
}

impl Shape {
    /// The shape of `rates`, one per bin, scaled to a weekly mean of 1. Without any traffic, a flat
    /// one.
    pub fn of_rates(unit: Unit, rates: &[f32]) -> Self {
        assert_eq!(rates.len(), unit.bins(), "one rate per bin");
        let weights: f32 = (0..unit.bins()).map(|bin| rates[bin] * unit.days_of(bin / unit.slots())).sum();
        let mean = weights / (7 * unit.slots()) as f32;
        let scaled: Vec<f32> =
            if mean > 0.0 { rates.iter().map(|rate| rate / mean).collect() } else { vec![1.0; rates.len()] };
        Self::of_relative(unit, &scaled)
    }

    /// The shape of these relative rates, as they are.
    pub(crate) fn of_relative(unit: Unit, rates: &[f32]) -> Self {
        let hours = unit.slot_seconds() as f32 / 3600.0;
        let mut sums = Vec::with_capacity(unit.columns() * (unit.slots() + 1));
        for column in rates.chunks(unit.slots()) {
            let mut sum = 0.0;
            sums.push(sum);
            for rate in column {
                sum += rate * hours;
                sums.push(sum);
            }
        }
        Self { unit, sums: sums.into() }
    }

    /// What is assumed while nothing was learned: little is expected at night.
    pub fn unlearned(unit: Unit) -> Self {
        let per_hour = unit.slots() / 24;
        let by_day = |slot: usize| BY_DAY.contains(&((slot / per_hour) as i64));
        // Rates are relative to the daytime, not to the week's mean: a level is what the site does
        // while it speaks.
        let rates: Vec<f32> = (0..unit.bins()).map(|bin| if by_day(bin % unit.slots()) { 1.0 } else { 0.01 }).collect();
        Self::of_relative(unit, &rates)
    }

    /// What is assumed of a site that declares its hours, before [`Self::within`] cuts it to them.
    pub fn flat(unit: Unit) -> Self {
        Self::of_relative(unit, &vec![1.0; unit.bins()])
    }

    /// The same shape, and nothing outside declared hours.
    pub fn within(&self, hours: &Hours) -> Self {
        let minutes = (1440 / self.unit.slots()) as u16;
        let columns =
            [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];
        let mut rates = self.rates();
        for (bin, rate) in rates.iter_mut().enumerate() {
            let (column, slot) = (bin / self.unit.slots(), (bin % self.unit.slots()) as u16);
            // Weekdays share a column for contact: what is open on most of them counts.
            let days = columns.iter().filter(|day| self.unit.column(**day) == column);
            let (mut open, mut count) = (0.0_f32, 0.0);
            for day in days {
                open += hours.open_share(*day, slot * minutes, (slot + 1) * minutes);
                count += 1.0;
            }
            *rate *= open / count;
        }
        Self::of_relative(self.unit, &rates)
    }

    /// What it counts.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// Relative rates, one per bin.
    pub fn rates(&self) -> Vec<f32> {
        let hours = self.unit.slot_seconds() as f32 / 3600.0;
        self.sums
            .chunks(self.unit.slots() + 1)
            .flat_map(|sums| sums.windows(2).map(move |pair| (pair[1] - pair[0]) / hours))
            .collect()
    }

    /// The hours of a mean open day at the busiest rate, in hours at relative rate 1.
    pub fn day_hours(&self) -> f64 {
        let days: Vec<f32> = (0..self.unit.columns())
            .flat_map(|column| {
                let sum = self.sums[(column + 1) * (self.unit.slots() + 1) - 1];
                std::iter::repeat_n(sum, self.unit.days_of(column) as usize)
            })
            .collect();
        let busiest = days.iter().copied().fold(0.0, f32::max);
        let open: Vec<f32> = days.into_iter().filter(|day| *day > 0.1 * busiest).collect();
        f64::from(open.iter().sum::<f32>() / open.len().max(1) as f32)
    }

    fn sums_of(&self, weekday: Weekday) -> &[f32] {
        let length = self.unit.slots() + 1;
        let start = self.unit.column(weekday) * length;
        &self.sums[start..start + length]
    }

    /// Running sum from midnight to a second of the day.
    fn sum_to(&self, weekday: Weekday, second: i64) -> f32 {
        let sums = self.sums_of(weekday);
        let slot_seconds = self.unit.slot_seconds();
        let slot = (second / slot_seconds) as usize;
        match sums.get(slot + 1) {
            Some(next) => sums[slot] + (next - sums[slot]) * (second % slot_seconds) as f32 / slot_seconds as f32,
            None => sums[self.unit.slots()],
        }
    }

    /// This shape of rows for a site whose contact goes by `own`, where that of its family goes by
    /// `family`: rows cannot come while the site is closed, and come where it is open and most
    /// others are not.
    pub fn while_open(&self, own: &Shape, family: &Shape) -> Self {
        assert_eq!((self.unit, own.unit), (Unit::Rows, Unit::ContactMinutes), "rows by contact");
        const DAYS: [Weekday; 7] =
            [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];
        const SCARCE: f32 = 0.05;
        let openness = |shape: &Shape| {
            let rates = shape.rates();
            let peak = rates.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
            let per_hour = own.unit.slots() / 24;
            move |day: Weekday, hour: usize| {
                let first = own.unit.column(day) * own.unit.slots() + hour * per_hour;
                rates[first..first + per_hour].iter().sum::<f32>() / (per_hour as f32 * peak)
            }
        };
        let (own_openness, family_openness) = (openness(own), openness(family));
        let rates = self.rates();
        let peak = rates.iter().copied().fold(0.0, f32::max);
        let masked: Vec<f32> = rates
            .iter()
            .enumerate()
            .map(|(bin, rate)| {
                let (day, hour) = (DAYS[bin / 24], bin % 24);
                (rate * own_openness(day, hour) / family_openness(day, hour).max(SCARCE)).min(peak)
            })
            .collect();
        Self::of_relative(self.unit, &masked)
    }

    /// The relative rate at an instant.
    pub fn rate(&self, calendar: &Calendar, at: i64) -> f32 {
        if calendar.closed_until(at).is_some() {
            return 0.0;
        }
        let local = calendar.local(at);
        let (sums, slot) = (self.sums_of(local.weekday), (local.second / self.unit.slot_seconds()) as usize);
        (sums[slot + 1] - sums[slot]) * 3600.0 / self.unit.slot_seconds() as f32
    }

    /// Hours at relative rate between two instants (Unix seconds), closures left out: times a
    /// level, the expected events.
    pub fn between(&self, calendar: &Calendar, from: i64, to: i64) -> f64 {
        if calendar.closures.is_empty() {
            return self.between_open(calendar, from, to);
        }
        calendar.outside_closures(from, to).iter().map(|(from, to)| self.between_open(calendar, *from, *to)).sum()
    }

    /// [`Self::between`] two seconds of one local day.
    pub(crate) fn between_seconds(&self, weekday: Weekday, from: i64, to: i64) -> f64 {
        f64::from(self.sum_to(weekday, to) - self.sum_to(weekday, from))
    }

    fn between_open(&self, calendar: &Calendar, from: i64, to: i64) -> f64 {
        let (mut at, mut sum) = (from, 0.0);
        while at < to {
            let local = calendar.local(at);
            let end = calendar.even_until(at, &local, to);
            sum += self.between_seconds(local.weekday, local.second, local.second + end - at);
            at = end;
        }
        sum
    }

    /// The earliest instant at which [`Self::between`] from `from` could reach `need`, never too
    /// late, at most `horizon`.
    pub fn reach(&self, calendar: &Calendar, from: i64, need: f64, horizon: i64) -> i64 {
        let (mut at, mut left) = (from, need as f32);
        while at < horizon {
            let local = calendar.local(at);
            let end = calendar.even_until(at, &local, horizon);
            let start = self.sum_to(local.weekday, local.second);
            let there = self.sum_to(local.weekday, local.second + end - at) - start;
            if there >= left {
                let sums = self.sums_of(local.weekday);
                // The first slot at whose end the sum is reached; within it, evenly.
                let slot = sums.partition_point(|sum| *sum < start + left).saturating_sub(1);
                let (low, high) = (sums[slot], sums.get(slot + 1).copied().unwrap_or(sums[slot]));
                let part = if high > low { (start + left - low) / (high - low) } else { 0.0 };
                let second = slot as i64 * self.unit.slot_seconds() + (part * self.unit.slot_seconds() as f32) as i64;
                return (at + second - local.second).clamp(at, end);
            }
            left -= there;
            at = end;
        }
        horizon
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn busy_by_day() -> Shape {
        let rates: Vec<f32> = (0..168).map(|bin| if (9..20).contains(&(bin % 24)) { 10.0 } else { 0.0 }).collect();
        Shape::of_rates(Unit::Rows, &rates)
    }

    #[test]
    fn declared_hours_are_all_that_counts() {
        let hours: Hours = "Mo-Sa 10:00-18:30; Su off".parse().expect("valid");
        let shape = Shape::flat(Unit::Rows).within(&hours);
        let calendar = Calendar { hours: Some(Arc::new(hours)), ..Calendar::default() };
        let monday = 4 * DAY; // 1970-01-05
        assert_eq!(shape.rate(&calendar, monday + 3 * 3600), 0.0);
        assert_eq!(shape.rate(&calendar, monday + 12 * 3600), 1.0);
        assert_eq!(shape.rate(&calendar, monday + 18 * 3600), 0.5, "half the hour is open");
        assert_eq!(shape.rate(&calendar, monday + 6 * DAY + 12 * 3600), 0.0, "closed on Sunday");
        let week = Shape::flat(Unit::ContactMinutes).within(&"24/7".parse().expect("valid"));
        assert!((week.between(&Calendar::default(), 0, 7 * DAY) - 168.0).abs() < 0.01);
    }

    #[test]
    fn a_night_of_25_hours_counts_every_hour() {
        let calendar = Calendar { zone: chrono_tz::Europe::Berlin, ..Calendar::default() };
        let flat = Shape::of_rates(Unit::Rows, &[1.0; 168]);
        let from = 1_792_800_000; // some days before the clocks go back in October 2026
        assert!((flat.between(&calendar, from, from + 7 * DAY) - 168.0).abs() < 0.01);
    }

    proptest! {
        #[test]
        fn todays_hours_are_as_any_days(
            at in 1_770_000_000_i64..1_800_000_000, first in -100_000_i64..100_000, second in -100_000_i64..100_000,
        ) {
            let shape = busy_by_day();
            for zone in [chrono_tz::UTC, chrono_tz::Europe::Berlin, chrono_tz::America::New_York, chrono_tz::Asia::Kolkata] {
                let calendar = Calendar { zone, ..Calendar::default() };
                let (from, to) = (at + first, at + second);
                if let Some((weekday, from_second, to_second)) = calendar.stretch(at).seconds(from, to) {
                    let today = shape.between_seconds(weekday, from_second, to_second);
                    let usual = shape.between(&calendar, from, to);
                    prop_assert!((today - usual).abs() < 1e-3, "{today} {usual} {zone}");
                }
                // What comes out of order is nothing, as between any other instants.
                prop_assert!(calendar.stretch(at).seconds(at, at - 1).is_none());
            }
        }

        #[test]
        fn sums_add_up_and_reach_is_their_inverse(
            start in 1_700_000_000_i64..1_800_000_000, first in 0_i64..300_000, second in 0_i64..300_000, need in 0.01_f64..40.0,
        ) {
            let shape = busy_by_day();
            for zone in [chrono_tz::UTC, chrono_tz::Europe::Berlin, chrono_tz::Pacific::Kiritimati, chrono_tz::Asia::Kolkata] {
                let calendar = Calendar { zone, ..Calendar::default() };
                let (middle, end) = (start + first, start + first + second);
                let whole = shape.between(&calendar, start, end);
                let parts = shape.between(&calendar, start, middle) + shape.between(&calendar, middle, end);
                prop_assert!((whole - parts).abs() < 0.01, "{whole} {parts}");
                let reached = shape.reach(&calendar, start, need, start + 30 * DAY);
                let got = shape.between(&calendar, start, reached);
                // Never too late; within a second's worth and rounding.
                prop_assert!(got <= need + 0.01, "{got} of {need}");
                prop_assert!(shape.between(&calendar, start, reached + 2) >= need - 0.01, "{got} of {need}");
            }
        }
    }
}
