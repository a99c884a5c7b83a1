//! Local and odd times as instants.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, StringArray,
    builder::{StringBuilder, TimestampMicrosecondBuilder},
};
use chrono::{DateTime, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone};
use chrono_tz::Tz;

use super::Converted;

/// Texts of times as instants; texts without an offset are local and kept, and so are those that
/// say more than an instant can: the seventh digit of a second, or spaces around it. Where no text
/// can be kept, these do not fit.
pub(super) fn parse_times(texts: &StringArray, zone: Tz, keeps_text: bool) -> Converted {
    let mut instants = TimestampMicrosecondBuilder::with_capacity(texts.len());
    let mut locals = StringBuilder::new();
    let mut any_local = false;
    let mut zone = ZoneOffsets::new(zone);
    for text in texts {
        let parsed = text.and_then(|text| parse_time(text.trim()));
        let is_exact = text.is_none_or(|text| text.trim() == text && !has_finer_digits(text));
        match (text, parsed) {
            (Some(_), Some(_)) if !is_exact && !keeps_text => {
                instants.append_null();
                locals.append_null();
            }
            (Some(text), Some(ParsedTime::Local(local))) => {
                any_local = true;
                instants.append_value(zone.utc_micros(local));
                locals.append_value(text);
            }
            (text, Some(ParsedTime::Instant(micros))) => {
                any_local |= !is_exact;
                instants.append_value(micros);
                locals.append_option(text.filter(|_| !is_exact));
            }
            _ => {
                instants.append_null();
                locals.append_null();
            }
        }
    }
    Converted {
        array: Arc::new(instants.finish().with_timezone("UTC")),
        local: any_local.then(|| Arc::new(locals.finish()) as ArrayRef),
    }
}

/// Whether a time has digits below a microsecond that are not zero.
pub(super) fn has_finer_digits(text: &str) -> bool {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    fraction.bytes().take_while(u8::is_ascii_digit).skip(6).any(|digit| digit != b'0')
}

pub(super) enum ParsedTime {
    Local(NaiveDateTime),
    Instant(i64),
}

/// `YYYY-MM-DD[ T]HH:MM[:SS[.f]]` with or without an offset, a day alone, or seconds or
/// milliseconds since the Unix epoch.
pub(super) fn parse_time(text: &str) -> Option<ParsedTime> {
    if let Some(local) = parse_plain(text.as_bytes()) {
        return Some(ParsedTime::Local(local));
    }
    if let Ok(instant) = DateTime::parse_from_rfc3339(&text.replacen(' ', "T", 1)) {
        return Some(ParsedTime::Instant(instant.timestamp_micros()));
    }
    if let Ok(number) = text.parse::<i64>() {
        return epoch_micros(number).map(ParsedTime::Instant);
    }
    None
}

/// Seconds (9 or 10 digits) or milliseconds (12 or 13) since the Unix epoch, as microseconds. A
/// number of another length is more likely a date without dashes, and no guess is made.
pub(super) fn epoch_micros(number: i64) -> Option<i64> {
    match number {
        100_000_000..=9_999_999_999 => Some(number * 1_000_000),
        100_000_000_000..=9_999_999_999_999 => Some(number * 1000),
        _ => None,
    }
}

/// The plain local form, by hand: it is on the path of every row.
pub(super) fn parse_plain(text: &[u8]) -> Option<NaiveDateTime> {
    let number = |from: usize, to: usize| {
        text.get(from..to)?
            .iter()
            .try_fold(0_u32, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0')))
    };
    let is = |at: usize, byte: u8| text.get(at) == Some(&byte);
    if !(is(4, b'-') && is(7, b'-')) {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(i32::try_from(number(0, 4)?).ok()?, number(5, 7)?, number(8, 10)?)?;
    if text.len() == 10 {
        return Some(date.and_time(NaiveTime::MIN));
    }
    if !((is(10, b' ') || is(10, b'T')) && is(13, b':')) {
        return None;
    }
    let (hour, minute) = (number(11, 13)?, number(14, 16)?);
    if text.len() == 16 {
        return date.and_hms_opt(hour, minute, 0);
    }
    let second = is(16, b':').then(|| number(17, 19))??;
    let fraction = &text[19..];
    if fraction.is_empty() {
        return date.and_hms_opt(hour, minute, second);
    }
    if fraction[0] != b'.' || fraction.len() < 2 || fraction.len() > 10 {
        return None;
    }
    let mut micros = 0;
    for index in 1..=6 {
        let digit = fraction.get(index).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        micros = micros * 10 + u32::from(digit - b'0');
    }
    fraction[1..].iter().all(u8::is_ascii_digit).then(|| date.and_hms_micro_opt(hour, minute, second, micros))?
}

/// A zone's offsets, remembered for the last local hour: rows of one batch are mostly from the same
/// one.
pub(super) struct ZoneOffsets {
    zone: Tz,
    hour: i64,
    offset_seconds: i64,
    certain: bool,
}

impl ZoneOffsets {
    fn new(zone: Tz) -> Self {
        Self { zone, hour: i64::MIN, offset_seconds: 0, certain: false }
    }

    /// A time that comes twice (clocks set back) is taken as the earlier; one that never comes (set
    /// forward) as if the clock had not been set.
    fn utc_micros(&mut self, local: NaiveDateTime) -> i64 {
        let naive = local.and_utc();
        let hour = naive.timestamp().div_euclid(3600);
        if !(self.certain && hour == self.hour) {
            let offset = |time: DateTime<Tz>| i64::from(time.offset().fix().local_minus_utc());
            let (seconds, certain) = match self.zone.from_local_datetime(&local) {
                LocalResult::Single(time) => (offset(time), true),
                LocalResult::Ambiguous(early, _) => (offset(early), false),
                LocalResult::None => {
                    let before = local - chrono::Duration::hours(3);
                    (self.zone.from_local_datetime(&before).earliest().map_or(0, offset), false)
                }
            };
            // Zones change on odd minutes too: trust the hour only if both its ends agree.
            let start = local - chrono::Duration::seconds(naive.timestamp().rem_euclid(3600));
            let ends = [start, start + chrono::Duration::minutes(59)];
            let steady = ends.iter().all(|end| {
                matches!(self.zone.from_local_datetime(end), LocalResult::Single(time) if offset(time) == seconds)
            });
            (self.hour, self.offset_seconds, self.certain) = (hour, seconds, certain && steady);
        }
        naive.timestamp_micros() - self.offset_seconds * 1_000_000
    }
}
