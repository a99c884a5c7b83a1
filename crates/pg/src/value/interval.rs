//! Intervals: months, days and microseconds, which PostgreSQL never mixes.

use arrow_array::types::{IntervalDayTime, IntervalMonthDayNano};
use bytes::{BufMut, BytesMut};

use super::{
    datetime::{DAY_MICROS, micros_of_nanos, push_time},
    text::Text,
};

/// An interval as PostgreSQL keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) months: i32,
    pub(super) days: i32,
    pub(super) micros: i64,
}

impl Interval {
    pub(super) fn of_months(months: i32) -> Self {
        Self { months, days: 0, micros: 0 }
    }

    /// A duration comes from subtracting timestamps, where PostgreSQL counts full days as days.
    pub(super) fn of_duration(micros: i64) -> Self {
        let days = i32::try_from(micros / DAY_MICROS).unwrap_or_default();
        Self { months: 0, days, micros: micros - i64::from(days) * DAY_MICROS }
    }

    /// `1 year 2 mons -3 days +04:05:06.7`.
    pub(super) fn put_text(self, out: &mut BytesMut) {
        let mut text = Text::new();
        let mut is_first = true;
        let mut is_after_negative = false;
        let parts = [(self.months / 12, "year"), (self.months % 12, "mon"), (self.days, "day")];
        for (value, unit) in parts.into_iter().filter(|(value, _)| *value != 0) {
            if !is_first {
                text.push(b' ');
            }
            if is_after_negative && value > 0 {
                text.push(b'+');
            }
            text.push_signed(i64::from(value));
            text.push(b' ');
            text.push_str(unit);
            if value != 1 {
                text.push(b's');
            }
            is_first = false;
            is_after_negative = value < 0;
        }
        if is_first || self.micros != 0 {
            if !is_first {
                text.push(b' ');
            }
            match (self.micros < 0, is_after_negative) {
                (true, _) => text.push(b'-'),
                (false, true) => text.push(b'+'),
                (false, false) => {}
            }
            push_absolute(&mut text, self.micros);
        }
        text.write_to(out);
    }

    /// `14 mons -3 days 04:05:06.7`: every part, for a literal that any parser takes.
    pub(super) fn literal(self) -> String {
        let mut time = Text::new();
        if self.micros < 0 {
            time.push(b'-');
        }
        push_absolute(&mut time, self.micros);
        let time = String::from_utf8_lossy(time.as_bytes());
        format!("{} mons {} days {time}", self.months, self.days)
    }

    pub(super) fn put_binary(self, out: &mut BytesMut) {
        out.put_i64(self.micros);
        out.put_i32(self.days);
        out.put_i32(self.months);
    }
}

fn push_absolute(text: &mut Text, micros: i64) {
    // One number has no positive counterpart.
    match micros.checked_abs() {
        Some(micros) => push_time(text, micros),
        None => text.push_str("2562047788:00:54.775808"),
    }
}

impl From<IntervalMonthDayNano> for Interval {
    fn from(value: IntervalMonthDayNano) -> Self {
        Self { months: value.months, days: value.days, micros: micros_of_nanos(value.nanoseconds) }
    }
}

impl From<IntervalDayTime> for Interval {
    fn from(value: IntervalDayTime) -> Self {
        Self { months: 0, days: value.days, micros: i64::from(value.milliseconds) * 1000 }
    }
}
