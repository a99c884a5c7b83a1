//! Lengths of time as PostgreSQL writes them: `1 year 2 mons -3 days +04:05:06.789`.

use arrow::{
    array::{Array, AsArray, StringArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{
        DataType, DurationNanosecondType, DurationSecondType, IntervalDayTimeType, IntervalMonthDayNanoType,
        IntervalUnit, IntervalYearMonthType, TimeUnit,
    },
    error::ArrowError,
};

const SECOND: i128 = 1_000_000_000;
const DAY: i128 = 86_400 * SECOND;

/// Texts of an array of intervals or durations; none of an array of anything else.
pub(super) fn texts(array: &dyn Array) -> Result<Option<StringArray>, ArrowError> {
    Ok(Some(match array.data_type() {
        DataType::Interval(IntervalUnit::YearMonth) => {
            let lengths = array.as_primitive::<IntervalYearMonthType>();
            lengths.iter().map(|months| months.map(|months| text(months, 0, 0))).collect()
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let lengths = array.as_primitive::<IntervalDayTimeType>();
            let written = lengths.iter().map(|length| {
                length.map(|length| text(0, length.days.into(), i128::from(length.milliseconds) * (SECOND / 1000)))
            });
            written.collect()
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let lengths = array.as_primitive::<IntervalMonthDayNanoType>();
            let written = lengths
                .iter()
                .map(|length| length.map(|length| text(length.months, length.days.into(), length.nanoseconds.into())));
            written.collect()
        }
        // A second is too coarse for none and a nanosecond too fine for some, which an i64 of it
        // cannot hold.
        DataType::Duration(TimeUnit::Second) => {
            let lengths = array.as_primitive::<DurationSecondType>();
            lengths.iter().map(|length| length.map(|length| days(i128::from(length) * SECOND))).collect()
        }
        DataType::Duration(_) => {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            let nanoseconds = cast_with_options(array, &DataType::Duration(TimeUnit::Nanosecond), &options)?;
            let lengths = nanoseconds.as_primitive::<DurationNanosecondType>();
            lengths.iter().map(|length| length.map(|length| days(length.into()))).collect()
        }
        _ => return Ok(None),
    }))
}

/// The difference of two instants: in whole days and the rest, both of one sign.
fn days(nanoseconds: i128) -> String {
    text(0, (nanoseconds / DAY) as i64, nanoseconds % DAY)
}

fn text(months: i32, days: i64, nanoseconds: i128) -> String {
    let mut text = String::new();
    let mut after_negative = false;
    let units = [(i64::from(months / 12), "year"), (i64::from(months % 12), "mon"), (days, "day")];
    for (count, unit) in units.into_iter().filter(|(count, _)| *count != 0) {
        let space = if text.is_empty() { "" } else { " " };
        let sign = if after_negative && count > 0 { "+" } else { "" };
        let plural = if count == 1 { "" } else { "s" };
        text.push_str(&format!("{space}{sign}{count} {unit}{plural}"));
        after_negative = count < 0;
    }
    if nanoseconds == 0 && !text.is_empty() {
        return text;
    }
    let sign = match nanoseconds < 0 {
        true => "-",
        false if after_negative => "+",
        false => "",
    };
    let rest = nanoseconds.unsigned_abs();
    let (seconds, fraction) = (rest / SECOND.unsigned_abs(), rest % SECOND.unsigned_abs());
    let space = if text.is_empty() { "" } else { " " };
    text.push_str(&format!("{space}{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    if fraction > 0 {
        text.push('.');
        text.push_str(format!("{fraction:09}").trim_end_matches('0'));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same texts come out of PostgreSQL 15.
    #[test]
    fn lengths_of_time_are_as_postgresql_writes_them() {
        let hour = 3600 * SECOND;
        for (length, written) in [
            ((0, 0, 0), "00:00:00"),
            ((14, 3, 4 * hour + 5 * 60 * SECOND + 6_789_000_000), "1 year 2 mons 3 days 04:05:06.789"),
            ((-14, 3, -hour), "-1 years -2 mons +3 days -01:00:00"),
            ((0, -1, 2 * hour), "-1 days +02:00:00"),
            ((1, 0, 0), "1 mon"),
            ((0, 1, 0), "1 day"),
            ((0, 0, -1), "-00:00:00.000000001"),
            ((0, 0, 1000 * hour), "1000:00:00"),
        ] {
            assert_eq!(text(length.0, length.1, length.2), written);
        }
        assert_eq!(days(-25 * hour), "-1 days -01:00:00");
    }
}
