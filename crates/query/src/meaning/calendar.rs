//! Days, moments and zones as numbers.

use chrono::{NaiveDateTime, Offset, TimeDelta, TimeZone, offset::MappedLocalTime};
use datafusion::{
    arrow::array::timezone::Tz,
    common::{DataFusionError, Result, exec_datafusion_err, exec_err},
};
use rollcall_types::calendar::{civil, days_of, month_length};

/// Microseconds of a second.
pub(super) const SECOND: i64 = 1_000_000;
/// Of a day.
pub(super) const DAY: i64 = 86_400 * SECOND;

/// Years that a calendar here knows.
const YEARS: std::ops::RangeInclusive<i64> = -4712..=262_142;

/// The day of a date since 1970-01-01, or none if there is no such date.
pub(super) fn day_of(year: i64, month: i64, day: i64) -> Option<i32> {
    if !(1..=12).contains(&month) || day < 1 || day > month_length(year, month) || !YEARS.contains(&year) {
        return None;
    }
    i32::try_from(days_of(year, month, day)).ok()
}

/// Year (0 is 1 BC), month and day.
pub(super) fn date_of(day: i32) -> (i64, i64, i64) {
    civil(i64::from(day))
}

/// A local moment some months later, or as close as the month allows.
pub(super) fn add_months(micros: i64, months: i32) -> Option<i64> {
    if months == 0 {
        return Some(micros);
    }
    let (day, time) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    let (year, month, of_month) = date_of(i32::try_from(day).ok()?);
    let month = year * 12 + month - 1 + i64::from(months);
    let (year, month) = (month.div_euclid(12), month.rem_euclid(12) + 1);
    let day = day_of(year, month, of_month.min(month_length(year, month)))?;
    i64::from(day).checked_mul(DAY)?.checked_add(time)
}

/// A session's zone; UTC if it names none.
pub(super) fn zone(name: Option<&str>) -> Result<Tz> {
    let name = name.unwrap_or("+00:00");
    name.parse().map_err(|_| exec_datafusion_err!("time zone \"{name}\" not recognized"))
}

/// Whether times of a zone are those of UTC.
pub(super) fn is_utc(name: Option<&str>) -> bool {
    name.is_none_or(|name| {
        let plain = name.to_ascii_lowercase();
        ["utc", "+00:00", "+00", "z", "gmt", "etc/utc", "etc/gmt", "zulu", "uct"].contains(&plain.as_str())
    })
}

fn naive(micros: i64) -> Result<NaiveDateTime> {
    let out_of_range = || exec_datafusion_err!("timestamp out of range");
    Ok(chrono::DateTime::from_timestamp_micros(micros).ok_or_else(out_of_range)?.naive_utc())
}

/// Seconds by which a zone is ahead of UTC at a moment.
pub(super) fn offset_at(zone: &Tz, utc: i64) -> Result<i64> {
    Ok(i64::from(zone.offset_from_utc_datetime(&naive(utc)?).fix().local_minus_utc()))
}

/// What clocks of a zone show at a moment.
pub(super) fn to_local(zone: &Tz, utc: i64) -> Result<i64> {
    Ok(utc + offset_at(zone, utc)? * SECOND)
}

/// The moment at which clocks of a zone show this: of two, that of standard time; of none, as if
/// clocks had not been moved.
pub(super) fn to_utc(zone: &Tz, local: i64) -> Result<i64> {
    let shown = naive(local)?;
    let offset = match zone.offset_from_local_datetime(&shown) {
        MappedLocalTime::Single(offset) => offset.fix().local_minus_utc(),
        MappedLocalTime::Ambiguous(one, other) => one.fix().local_minus_utc().min(other.fix().local_minus_utc()),
        MappedLocalTime::None => {
            let before = shown - TimeDelta::hours(6);
            match zone.offset_from_local_datetime(&before) {
                MappedLocalTime::Single(offset) | MappedLocalTime::Ambiguous(offset, _) => {
                    offset.fix().local_minus_utc()
                }
                MappedLocalTime::None => return exec_err!("the time does not exist in its zone"),
            }
        }
    };
    Ok(local - i64::from(offset) * SECOND)
}

/// What PostgreSQL says of a moment that is too far away.
pub(super) fn out_of_range(what: &str) -> DataFusionError {
    exec_datafusion_err!("{what} out of range")
}

/// A moment, if it is one that PostgreSQL has.
pub(super) fn moment(micros: Option<i64>) -> Result<i64> {
    // From 4713 BC; the end is that of the calendar used here.
    const FIRST: i64 = -210_866_803_200_000_000;
    const END: i64 = 8_210_266_876_800_000_000;
    micros.filter(|micros| (FIRST..END).contains(micros)).ok_or_else(|| out_of_range("timestamp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_both_ways() {
        for day in (-2_000_000..3_000_000).step_by(97) {
            let (year, month, of_month) = date_of(day);
            assert_eq!(day_of(year, month, of_month), Some(day));
        }
        assert_eq!(day_of(1, 1, 1), Some(-719_162));
        assert_eq!(day_of(2023, 2, 29), None);
    }

    #[test]
    fn a_zone_has_times_twice_and_times_never() {
        let new_york = zone(Some("America/New_York")).expect("known");
        let at = |day, hour: i64, minute: i64| i64::from(day) * DAY + (hour * 60 + minute) * 60 * SECOND;
        let (spring, autumn) = (day_of(2026, 3, 8).expect("a day"), day_of(2026, 11, 1).expect("a day"));
        assert_eq!(to_utc(&new_york, at(spring, 2, 30)).expect("a moment"), at(spring, 7, 30));
        assert_eq!(to_utc(&new_york, at(autumn, 1, 30)).expect("a moment"), at(autumn, 6, 30));
        assert_eq!(to_utc(&new_york, at(autumn, 0, 30)).expect("a moment"), at(autumn, 4, 30));
    }
}
