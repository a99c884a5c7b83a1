//! The time zone of a session.

use chrono::{DateTime, Offset as _, TimeZone as _};
use chrono_tz::{TZ_VARIANTS, Tz};
use rollcall_types::calendar::{civil, days_of};

use super::{
    ValueError,
    datetime::{DAY_SECONDS, push_offset},
    text::Text,
};

/// PostgreSQL takes offsets of less than a week.
const OFFSET_HOURS_MAX: u32 = 167;
/// The rules of zones are tabulated up to this year; later years repeat earlier ones.
const TABULATED_YEAR_MAX: i64 = 2099;

/// A time zone as `SET TIME ZONE` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    name: String,
    rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Named(Tz),
    /// Seconds east of UTC.
    Fixed(i32),
}

impl Default for Zone {
    fn default() -> Self {
        Self::utc()
    }
}

impl Zone {
    /// UTC.
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), rule: Rule::Named(Tz::UTC) }
    }

    /// A fixed offset, as `SET TIME ZONE INTERVAL '+05:45' HOUR TO MINUTE` makes it.
    ///
    /// # Errors
    /// If the offset is a week or more, or has seconds.
    pub fn fixed(east_seconds: i32) -> Result<Self, ValueError> {
        if east_seconds.unsigned_abs() > OFFSET_HOURS_MAX * 3600 || east_seconds % 60 != 0 {
            return Err(ValueError::new("22023", "UTC timezone offset is out of range"));
        }
        // The name is a POSIX one, whose sign is that of the way west.
        let mut name = Text::new();
        name.push(b'<');
        push_offset(&mut name, east_seconds);
        name.push_str(">");
        if east_seconds == 0 {
            name.push_str("-00");
        } else {
            push_offset(&mut name, -east_seconds);
        }
        let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
        Ok(Self { name, rule: Rule::Fixed(east_seconds) })
    }

    /// The zone of this name: an IANA name in any case, a number of hours east of UTC (`-8`,
    /// `5.5`), or a POSIX zone without daylight saving (`<+03>-3`, `EST5`, `+02:00`), whose offset
    /// counts *west* of UTC as it does in PostgreSQL.
    ///
    /// # Errors
    /// If there is no such zone, or it is one with daylight saving rules of its own.
    pub fn parse(name: &str) -> Result<Self, ValueError> {
        if let Some(hours) = number_of_hours(name) {
            let seconds = (hours * 3600.0).round();
            if seconds.abs() > f64::from(OFFSET_HOURS_MAX) * 3600.0 {
                return Err(ValueError::new("22023", "UTC timezone offset is out of range"));
            }
            // Bounded just above, so the cast keeps the number.
            return Self::fixed(seconds as i32);
        }
        if let Some(zone) = TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(name)) {
            return Ok(Self { name: zone.name().to_owned(), rule: Rule::Named(*zone) });
        }
        posix(name)
    }

    /// The name that `SHOW TimeZone` gives.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The IANA zone, if it is one.
    pub fn iana(&self) -> Option<Tz> {
        match self.rule {
            Rule::Named(zone) => Some(zone),
            Rule::Fixed(_) => None,
        }
    }

    /// The seconds east of UTC at a moment, given as seconds since 1970.
    pub fn offset_at(&self, utc_seconds: i64) -> i32 {
        match self.rule {
            Rule::Fixed(offset) => offset,
            Rule::Named(Tz::UTC) => 0,
            Rule::Named(zone) => offset_in_table(zone, tabulated(zone, utc_seconds)),
        }
    }
}

fn offset_in_table(zone: Tz, utc_seconds: i64) -> i32 {
    DateTime::from_timestamp(utc_seconds, 0)
        .map_or(0, |moment| zone.offset_from_utc_datetime(&moment.naive_utc()).fix().local_minus_utc())
}

/// The same moment of a year that the tables of zones have. Before the first entry nothing ever
/// changed; behind the last, a year that begins with the same weekday has the same rules.
fn tabulated(zone: Tz, utc_seconds: i64) -> i64 {
    const FIRST: i64 = -2_000 * 366 * DAY_SECONDS;
    let day = utc_seconds.div_euclid(DAY_SECONDS);
    let (year, month, day_of_month) = civil(day);
    if year <= TABULATED_YEAR_MAX {
        return utc_seconds.max(FIRST);
    }
    let last = |month| days_of(TABULATED_YEAR_MAX, month, 1) * DAY_SECONDS;
    // Some zones have rules for the years of this century only.
    if offset_in_table(zone, last(1)) == offset_in_table(zone, last(7)) {
        return last(7);
    }
    let first_day = |year| days_of(year, 1, 1);
    let shape = |year| (first_day(year).rem_euclid(7), first_day(year + 1) - first_day(year));
    // Within 28 years without a skipped leap year, every shape of a year occurs.
    let like = (0..28).map(|back| TABULATED_YEAR_MAX - back).find(|like| shape(*like) == shape(year));
    let like = like.unwrap_or(TABULATED_YEAR_MAX);
    days_of(like, month, day_of_month) * DAY_SECONDS + utc_seconds.rem_euclid(DAY_SECONDS)
}

fn number_of_hours(name: &str) -> Option<f64> {
    let number = name.trim_start();
    let unsigned = number.strip_prefix(['+', '-']).unwrap_or(number);
    // Words such as `infinity` are numbers to the parser as well.
    unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.').then_some(())?;
    number.parse().ok()
}

/// `NAME[+|-]HH[:MM]` or `<name>[+|-]HH[:MM]`; PostgreSQL lets the name be empty.
fn posix(name: &str) -> Result<Zone, ValueError> {
    let unknown = || ValueError::new("22023", format!("invalid value for parameter \"TimeZone\": \"{name}\""));
    let (label, offset) = if name.starts_with('<') {
        let end = name.find('>').ok_or_else(unknown)?;
        name.split_at(end + 1)
    } else {
        let is_offset = |byte: char| byte.is_ascii_digit() || matches!(byte, '+' | '-' | ',');
        name.split_at(name.find(is_offset).ok_or_else(unknown)?)
    };
    let is_label = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-:".contains(&byte));
    if !is_label(label.trim_start_matches('<').trim_end_matches('>')) {
        return Err(unknown());
    }
    let (is_west, offset) = match offset.strip_prefix('-') {
        Some(rest) => (false, rest),
        None => (true, offset.strip_prefix('+').unwrap_or(offset)),
    };
    let end = offset.find(|byte: char| !byte.is_ascii_digit() && byte != ':').unwrap_or(offset.len());
    let (offset, daylight) = offset.split_at(end);
    if daylight.starts_with(|first: char| first.is_ascii_alphabetic() || first == '<') {
        let message =
            format!("time zone \"{name}\": daylight saving rules in POSIX form are not supported, use a named zone");
        return Err(ValueError::unsupported(message));
    }
    if !daylight.is_empty() {
        return Err(unknown());
    }
    let mut parts = offset.split(':');
    let mut part = |max: u32| match parts.next() {
        None => Some(0),
        Some(text) => text.parse::<u32>().ok().filter(|value| *value <= max),
    };
    let hours = (!offset.is_empty()).then(|| part(OFFSET_HOURS_MAX)).flatten();
    let (Some(hours), Some(minutes), Some(0), None) = (hours, part(59), part(59), parts.next()) else {
        return Err(unknown());
    };
    let seconds = i32::try_from(hours * 3600 + minutes * 60).map_err(|_| unknown())?;
    let shown = if label.starts_with('<') { name.to_owned() } else { name.to_ascii_uppercase() };
    Ok(Zone { name: shown, rule: Rule::Fixed(if is_west { -seconds } else { seconds }) })
}
