//! Dates by the Gregorian calendar, also before it was introduced, as PostgreSQL reckons them.

pub(super) use rollcall_types::calendar::{civil, days_of as days, is_leap, month_length};

pub(super) const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

/// Days from the start of the Julian period to 1970.
pub(super) const JULIAN_1970: i64 = 2_440_588;

/// A moment taken apart. The year 0 is 1 BC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Civil {
    pub(super) year: i64,
    pub(super) month: i64,
    pub(super) day: i64,
    /// Microseconds since midnight.
    pub(super) time: i64,
}

impl Civil {
    pub(super) fn of(micros: i64) -> Self {
        let (year, month, day) = civil(micros.div_euclid(DAY));
        Self { year, month, day, time: micros.rem_euclid(DAY) }
    }

    pub(super) fn micros(&self) -> i64 {
        days(self.year, self.month, self.day) * DAY + self.time
    }

    pub(super) fn hour(&self) -> i64 {
        self.time / HOUR
    }

    pub(super) fn minute(&self) -> i64 {
        self.time / MINUTE % 60
    }

    pub(super) fn second(&self) -> i64 {
        self.time / SECOND % 60
    }

    pub(super) fn part_of_second(&self) -> i64 {
        self.time % SECOND
    }

    /// 1 is January 1st.
    pub(super) fn day_of_year(&self) -> i64 {
        days(self.year, self.month, self.day) - days(self.year, 1, 1) + 1
    }

    /// 0 is Sunday.
    pub(super) fn weekday(&self) -> i64 {
        weekday(days(self.year, self.month, self.day))
    }

    /// The year and week by ISO 8601.
    pub(super) fn iso_week(&self) -> (i64, i64) {
        let day = days(self.year, self.month, self.day);
        let (year, _, _) = civil(thursday(day));
        (year, (thursday(day) - days(year, 1, 1)) / 7 + 1)
    }
}

/// The Thursday of a day's week.
fn thursday(day: i64) -> i64 {
    day - (day + 3).rem_euclid(7) + 3
}

/// Monday of an ISO week.
pub(super) fn monday(year: i64, week: i64) -> i64 {
    thursday(days(year, 1, 4)) - 3 + (week - 1) * 7
}

/// 0 is Sunday.
pub(super) fn weekday(day: i64) -> i64 {
    (day + 4).rem_euclid(7)
}

/// A date moved by months; the day is the last of its month at most.
pub(super) fn month_added(date: (i64, i64, i64), months: i64) -> (i64, i64, i64) {
    let total = date.0 * 12 + date.1 - 1 + months;
    let (year, month) = (total.div_euclid(12), total.rem_euclid(12) + 1);
    (year, month, date.2.min(month_length(year, month)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_both_ways() {
        for day in (-800_000..800_000).step_by(37) {
            let (year, month, date) = civil(day);
            assert_eq!(days(year, month, date), day);
        }
        assert_eq!((civil(0), weekday(0)), ((1970, 1, 1), 4));
        assert_eq!(Civil::of(days(2021, 1, 3) * DAY).iso_week(), (2020, 53));
    }
}
