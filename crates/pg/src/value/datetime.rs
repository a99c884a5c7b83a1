//! Dates and times in ISO form, for every year Arrow can hold.

use arrow_schema::TimeUnit;
use bytes::BytesMut;
use rollcall_types::calendar::civil;

use super::{ValueError, text::Text, zone::Zone};

pub(super) const DAY_SECONDS: i64 = 86_400;
pub(super) const DAY_MICROS: i64 = DAY_SECONDS * 1_000_000;
/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL's time begins.
pub(super) const EPOCH_DAYS: i64 = 10_957;
/// The same in microseconds.
pub(super) const EPOCH_MICROS: i64 = EPOCH_DAYS * DAY_MICROS;

/// Microseconds of a count of any unit; nanoseconds are rounded as PostgreSQL rounds, halves to the
/// even neighbour.
pub(super) fn micros(value: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Second => value.checked_mul(1_000_000),
        TimeUnit::Millisecond => value.checked_mul(1000),
        TimeUnit::Microsecond => Some(value),
        TimeUnit::Nanosecond => Some(micros_of_nanos(value)),
    }
}

pub(super) fn micros_of_nanos(nanos: i64) -> i64 {
    let (micros, rest) = (nanos.div_euclid(1000), nanos.rem_euclid(1000));
    micros + i64::from(rest > 500 || (rest == 500 && micros % 2 != 0))
}

/// A date, as days since 1970-01-01.
pub(super) fn put_date(out: &mut BytesMut, days: i64) {
    let mut text = Text::new();
    let is_before_christ = push_date(&mut text, days);
    push_era(&mut text, is_before_christ);
    text.write_to(out);
}

/// A time of day in microseconds; 24:00:00 is one.
pub(super) fn put_time(out: &mut BytesMut, micros: i64) {
    let mut text = Text::new();
    push_time(&mut text, micros);
    text.write_to(out);
}

/// A timestamp as microseconds since 1970-01-01, at UTC and shown in the zone if there is one.
pub(super) fn put_timestamp(out: &mut BytesMut, micros: i64, zone: Option<&Zone>) -> Result<(), ValueError> {
    let offset = zone.map(|zone| zone.offset_at(micros.div_euclid(1_000_000)));
    let local = micros
        .checked_add(i64::from(offset.unwrap_or(0)) * 1_000_000)
        .ok_or_else(|| ValueError::out_of_range("timestamp"))?;
    let mut text = Text::new();
    let is_before_christ = push_date(&mut text, local.div_euclid(DAY_MICROS));
    text.push(b' ');
    push_time(&mut text, local.rem_euclid(DAY_MICROS));
    if let Some(offset) = offset {
        push_offset(&mut text, offset);
    }
    push_era(&mut text, is_before_christ);
    text.write_to(out);
    Ok(())
}

fn push_date(text: &mut Text, days: i64) -> bool {
    let (year, month, day) = civil(days);
    let is_before_christ = year < 1;
    let shown = if is_before_christ { 1 - year } else { year };
    text.push_padded(shown.unsigned_abs(), 4);
    text.push(b'-');
    push_small(text, month);
    text.push(b'-');
    push_small(text, day);
    is_before_christ
}

fn push_era(text: &mut Text, is_before_christ: bool) {
    if is_before_christ {
        text.push_str(" BC");
    }
}

pub(super) fn push_time(text: &mut Text, micros: i64) {
    let seconds = micros / 1_000_000;
    text.push_padded((seconds / 3600).unsigned_abs(), 2);
    text.push(b':');
    push_sixtieth(text, seconds / 60);
    text.push(b':');
    push_sixtieth(text, seconds);
    text.push_fraction(u32::try_from(micros % 1_000_000).unwrap_or(0));
}

fn push_sixtieth(text: &mut Text, value: i64) {
    push_small(text, value % 60);
}

fn push_small(text: &mut Text, value: i64) {
    text.push_two(u32::try_from(value).unwrap_or(0));
}

/// `+00`, `-08`, `+05:30`, `+00:19:32`: seconds east of UTC.
pub(super) fn push_offset(text: &mut Text, east_seconds: i32) {
    text.push(if east_seconds < 0 { b'-' } else { b'+' });
    let seconds = east_seconds.unsigned_abs();
    text.push_padded(u64::from(seconds / 3600), 2);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    if minutes != 0 || seconds != 0 {
        text.push(b':');
        text.push_two(minutes);
    }
    if seconds != 0 {
        text.push(b':');
        text.push_two(seconds);
    }
}
