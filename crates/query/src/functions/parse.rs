//! Texts as PostgreSQL reads them where a value of another type is wanted.

use datafusion::common::{Result, exec_err};

use super::{
    bytes::byteain,
    calendar::{DAY, HOUR, MINUTE, SECOND, days, month_length},
    input,
    value::{Decimal, Interval, Kind, Value, text},
    zone::{self, Zone},
};

/// A literal as a value of `kind`.
pub(super) fn literal(literal: &str, kind: &Kind, session: &Zone) -> Result<Value<'static>> {
    let wrong = || exec_err!("invalid input syntax for type {}: \"{literal}\"", kind.name());
    let trimmed = literal.trim();
    Ok(match kind {
        Kind::Bool => match trimmed.to_ascii_lowercase().as_str() {
            "t" | "true" | "tru" | "tr" | "y" | "ye" | "yes" | "on" | "1" => Value::Bool(true),
            "f" | "false" | "fals" | "fal" | "fa" | "n" | "no" | "off" | "of" | "0" => Value::Bool(false),
            _ => return wrong(),
        },
        Kind::Int2 | Kind::Int4 | Kind::Int8 => match trimmed.parse() {
            Ok(number) => Value::Int(number),
            Err(_) => return wrong(),
        },
        Kind::Numeric => match Decimal::parse(trimmed) {
            Some(number) => Value::Numeric(number),
            None => return wrong(),
        },
        Kind::Float4 | Kind::Float8 => match trimmed.parse() {
            Ok(number) => Value::Float(number),
            Err(_) => return wrong(),
        },
        Kind::Bytes => Value::Bytes(byteain(literal)?.into()),
        Kind::Date | Kind::Timestamp | Kind::Timestamptz => {
            let Some(read) = moment(trimmed) else { return wrong() };
            match kind {
                Kind::Date => Value::Date(read.local.div_euclid(DAY) as i32),
                Kind::Timestamp => Value::Timestamp(read.local),
                _ => Value::Timestamptz(read.zone.unwrap_or(*session).to_utc(read.local)),
            }
        }
        Kind::Time => match time(trimmed) {
            Some(micros) => Value::Time(micros),
            None => return wrong(),
        },
        Kind::Interval => match input::interval(trimmed) {
            Some(interval) => Value::Interval(interval),
            None => return wrong(),
        },
        _ => text(literal.to_owned()),
    })
}

pub(super) fn midnight(day: i32) -> i64 {
    i64::from(day) * DAY
}

/// A date and time as it was written.
pub(super) struct Moment {
    pub(super) local: i64,
    pub(super) zone: Option<Zone>,
}

/// `2024-02-03`, `2024-02-03 04:05:06.7`, with `T` between, and with an offset, an abbreviation or
/// a place behind; and `BC`.
pub(super) fn moment(text: &str) -> Option<Moment> {
    let (text, before_christ) = match text.strip_suffix("BC").or_else(|| text.strip_suffix("bc")) {
        Some(rest) => (rest.trim_end(), true),
        None => (text.strip_suffix("AD").map_or(text, str::trim_end), false),
    };
    let split = text.find(['T', 't', ' ']).unwrap_or(text.len());
    let (date, rest) = text.split_at(split);
    let mut parts = date.splitn(3, ['-', '/']);
    let mut number = || {
        let part = parts.next()?;
        let plain = !part.is_empty() && part.len() <= 7 && part.bytes().all(|letter| letter.is_ascii_digit());
        plain.then(|| part.parse::<i64>().ok()).flatten()
    };
    let (year, month, day) = match (date.len(), date.bytes().all(|letter| letter.is_ascii_digit())) {
        (8, true) => (date[..4].parse().ok()?, date[4..6].parse().ok()?, date[6..].parse().ok()?),
        _ => (number()?, number()?, number()?),
    };
    let year = if before_christ { 1 - year } else { year };
    let exists = (1..=12).contains(&month) && day >= 1 && day <= month_length(year, month);
    if !exists || (!before_christ && year == 0) {
        return None;
    }
    let start = days(year, month, day) * DAY;
    let rest = rest.trim_start_matches(['T', 't', ' ']);
    if rest.is_empty() {
        return Some(Moment { local: start, zone: None });
    }
    let end =
        rest.find(|letter: char| !letter.is_ascii_digit() && letter != ':' && letter != '.').unwrap_or(rest.len());
    let (of_day, behind) = rest.split_at(end);
    let (of_day, behind) = match behind.trim_start() {
        half if half.len() >= 2 && ["AM", "PM"].contains(&half[..2].to_ascii_uppercase().as_str()) => {
            let hour: i64 = of_day.split(':').next()?.parse().ok()?;
            let noon = if half.starts_with(['p', 'P']) { 12 } else { 0 };
            (time(of_day)? - hour * HOUR + (hour % 12 + noon) * HOUR, half[2..].trim_start())
        }
        behind => (time(of_day)?, behind),
    };
    let zone = match behind {
        "" => None,
        offset if offset.starts_with(['+', '-']) => Some(Zone::fixed(zone::offset(offset)?)),
        name => Some(Zone::named(name).ok()?),
    };
    Some(Moment { local: start + of_day, zone })
}

/// `04:05`, `04:05:06.789`; 24:00 is the end of the day.
pub(super) fn time(text: &str) -> Option<i64> {
    let mut parts = text.trim().split(':');
    let whole = |part: &str| {
        (part.len() <= 2 && part.bytes().all(|letter| letter.is_ascii_digit()))
            .then(|| part.parse::<i64>().ok())
            .flatten()
    };
    let (hours, minutes) = (whole(parts.next()?)?, whole(parts.next()?)?);
    let (seconds, part) = match parts.next() {
        Some(seconds) => seconds.split_once('.').unwrap_or((seconds, "")),
        None => ("0", ""),
    };
    let seconds = whole(seconds)?;
    let micros = part_of_second(part)?;
    let fits = hours <= 24 && minutes < 60 && seconds <= 60 && parts.next().is_none();
    let total = hours * HOUR + minutes * MINUTE + seconds * SECOND + micros;
    (fits && total <= DAY).then_some(total)
}

/// Digits behind a second's point, rounded to microseconds.
fn part_of_second(digits: &str) -> Option<i64> {
    if digits.is_empty() {
        return Some(0);
    }
    if !digits.bytes().all(|letter| letter.is_ascii_digit()) {
        return None;
    }
    let part: f64 = format!("0.{digits}").parse().ok()?;
    Some((part * 1e6).round_ties_even() as i64)
}

impl Interval {
    /// The time between two moments: whole days are told apart.
    pub(super) fn between(micros: i64) -> Self {
        Self { months: 0, days: (micros / DAY) as i32, micros: micros % DAY }
    }
}
