//! Time zones, by the names that PostgreSQL takes.

use std::{collections::HashMap, sync::LazyLock};

use chrono::{DateTime, Offset, TimeZone, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use datafusion::common::{Result, exec_err};

use super::{
    abbreviations::ABBREVIATIONS,
    calendar::{DAY, SECOND},
    value::Interval,
};

/// Where a clock stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    /// A place with rules.
    Named(Tz),
    /// Always this many seconds east of UTC.
    Fixed { east: i32, name: Option<&'static str>, summer: bool },
}

impl Zone {
    pub(super) const UTC: Self = Self::Named(Tz::UTC);

    /// The zone of a session, whose name was checked when it was set.
    pub(super) fn of_session(name: Option<&str>) -> Result<Self> {
        match name {
            None | Some("UTC" | "+00:00") => Ok(Self::UTC),
            Some(name) => Self::named(name).or_else(|_| match offset(name) {
                // The library's own form has the sign of ISO 8601.
                Some(east) => Ok(Self::fixed(east)),
                None => exec_err!("time zone \"{name}\" not recognized"),
            }),
        }
    }

    pub(super) fn fixed(east: i32) -> Self {
        Self::Fixed { east, name: None, summer: false }
    }

    /// A name, an abbreviation or a form such as `UTC+3`, whose sign is that of POSIX: west is
    /// positive.
    pub(super) fn named(name: &str) -> Result<Self> {
        let lower = name.to_ascii_lowercase();
        if let Ok(place) = ABBREVIATIONS.binary_search_by(|(known, _, _)| known.to_ascii_lowercase().cmp(&lower)) {
            let (name, minutes, summer) = ABBREVIATIONS[place];
            return Ok(Self::Fixed { east: minutes * 60, name: Some(name), summer });
        }
        if let Some(zone) = places().get(&lower) {
            return Ok(Self::Named(*zone));
        }
        let posix = name.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
        let quoted = name.strip_prefix('<').and_then(|rest| rest.split_once('>')).map(|(_, rest)| rest);
        match offset(quoted.unwrap_or(posix)) {
            Some(west) => Ok(Self::fixed(-west)),
            None => exec_err!("time zone \"{name}\" not recognized"),
        }
    }

    /// As an interval tells it: east is positive.
    pub(super) fn of_interval(interval: Interval) -> Result<Self> {
        if interval.months != 0 || interval.days != 0 {
            return exec_err!("interval time zone must not include months or days");
        }
        match i32::try_from(interval.micros / SECOND) {
            Ok(east) if east.abs() < 168 * 3600 => Ok(Self::fixed(east)),
            _ => exec_err!("interval out of range"),
        }
    }

    /// How far east of UTC its clocks are at a moment, in seconds.
    pub(super) fn offset(&self, utc: i64) -> i64 {
        match self {
            Self::Fixed { east, .. } => i64::from(*east),
            Self::Named(Tz::UTC) => 0,
            Self::Named(zone) => match DateTime::<Utc>::from_timestamp_micros(utc) {
                Some(utc) => i64::from(zone.offset_from_utc_datetime(&utc.naive_utc()).fix().local_minus_utc()),
                None => 0,
            },
        }
    }

    /// What its clocks show at a moment.
    pub(super) fn to_local(self, utc: i64) -> i64 {
        utc.saturating_add(self.offset(utc) * SECOND)
    }

    /// The moment at which its clocks show this. What they skip is read by the clock before the
    /// change; of two moments it is the later one.
    pub(super) fn to_utc(self, local: i64) -> i64 {
        let of = |offset: i64| local.saturating_sub(offset * SECOND);
        let (before, after) =
            (self.offset(local.saturating_sub(DAY * 3 / 2)), self.offset(local.saturating_add(DAY * 3 / 2)));
        if before == after {
            let only = of(before);
            // Rarely the clocks change and change back within these days.
            return if self.offset(only) == before { only } else { of(self.offset(only)) };
        }
        if self.offset(of(after)) == after { of(after) } else { of(before) }
    }

    /// The abbreviation in use at a moment, for `TZ`.
    pub(super) fn abbreviation(&self, utc: i64) -> String {
        match self {
            Self::Fixed { name: Some(name), .. } => (*name).to_owned(),
            Self::Fixed { east, .. } => offset_text(i64::from(*east)),
            Self::Named(zone) => match DateTime::<Utc>::from_timestamp_micros(utc) {
                Some(utc) => zone.from_utc_datetime(&utc.naive_utc()).format("%Z").to_string(),
                None => String::new(),
            },
        }
    }
}

/// All places, by their names in small letters: PostgreSQL does not tell capitals apart.
fn places() -> &'static HashMap<String, Tz> {
    static PLACES: LazyLock<HashMap<String, Tz>> =
        LazyLock::new(|| TZ_VARIANTS.iter().map(|zone| (zone.name().to_ascii_lowercase(), *zone)).collect());
    &PLACES
}

/// `+05:30`, as a text of a time has it.
pub(super) fn offset_text(east: i64) -> String {
    let (sign, east) = (if east < 0 { '-' } else { '+' }, east.abs());
    let (hours, minutes, seconds) = (east / 3600, east / 60 % 60, east % 60);
    match (minutes, seconds) {
        (0, 0) => format!("{sign}{hours:02}"),
        (_, 0) => format!("{sign}{hours:02}:{minutes:02}"),
        _ => format!("{sign}{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

/// Seconds of `+5`, `+05:30`, `-0530`; a sign may be missing.
pub(super) fn offset(text: &str) -> Option<i32> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let number = |text: &str| {
        (!text.is_empty() && text.len() <= 2 && text.bytes().all(|letter| letter.is_ascii_digit()))
            .then(|| text.parse::<i32>().ok())
            .flatten()
    };
    let parts: Vec<i32> = if digits.contains(':') {
        digits.split(':').map(number).collect::<Option<_>>()?
    } else if digits.len() > 2 && digits.is_ascii() {
        let (hours, minutes) = digits.split_at(digits.len() - 2);
        vec![number(hours)?, number(minutes)?]
    } else {
        vec![number(digits)?]
    };
    let at = |place: usize| parts.get(place).copied().unwrap_or(0);
    let fits = parts.len() <= 3 && at(0) < 168 && at(1) < 60 && at(2) < 60;
    fits.then(|| sign * (at(0) * 3600 + at(1) * 60 + at(2)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::calendar::{HOUR, MINUTE, days};

    #[test]
    fn a_skipped_hour_is_read_by_the_clock_before_and_a_double_one_is_the_later() {
        let zone = Zone::named("america/los_angeles").expect("known");
        let at = |month, day, time| days(2024, month, day) * DAY + time;
        assert_eq!(zone.to_utc(at(3, 10, 2 * HOUR + 30 * MINUTE)), at(3, 10, 10 * HOUR + 30 * MINUTE));
        assert_eq!(zone.to_utc(at(11, 3, HOUR + 30 * MINUTE)), at(11, 3, 9 * HOUR + 30 * MINUTE));
        assert_eq!(Zone::named("UTC+3").expect("known"), Zone::fixed(-3 * 3600));
        assert_eq!(Zone::named("est").expect("known").offset(0), -5 * 3600);
        assert!(ABBREVIATIONS.is_sorted_by_key(|(name, _, _)| name.to_ascii_lowercase()));
    }
}
