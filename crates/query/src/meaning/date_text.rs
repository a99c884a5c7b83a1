//! Dates, times and moments as PostgreSQL reads and writes them (`DateStyle` ISO, MDY).

use chrono::Utc;
use datafusion::{
    arrow::array::timezone::Tz,
    common::{DataFusionError, Result, exec_datafusion_err, exec_err},
};

use super::{
    calendar::{self, DAY, SECOND, date_of, day_of, moment, offset_at, to_local, to_utc},
    interval::fraction,
};

/// What a text says of a moment.
#[derive(Debug, Default)]
struct Read {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    /// Microseconds since midnight.
    time: Option<i64>,
    zone: Option<Zone>,
    is_before_christ: bool,
    /// Hours to be read as of a morning or an evening.
    half: Option<Half>,
}

#[derive(Debug)]
enum Zone {
    Ahead(i64),
    Named(Tz),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Morning,
    Evening,
}

/// Why a text is no moment.
enum Wrong {
    Form,
    Range,
}

/// A day, a moment by a clock, or a moment: what `kind` names, of a text.
struct Reader<'a> {
    kind: &'static str,
    text: &'a str,
    zone: &'a Tz,
}

/// A date of a text.
pub(super) fn date(text: &str, zone: &Tz) -> Result<i32> {
    let local = Reader { kind: "date", text, zone }.local()?;
    i32::try_from(local.div_euclid(DAY)).map_err(|_| calendar::out_of_range("date"))
}

/// A `timestamp` of a text; a zone in it says nothing.
pub(super) fn timestamp(text: &str, zone: &Tz) -> Result<i64> {
    moment(Some(Reader { kind: "timestamp", text, zone }.local()?))
}

/// A `timestamptz` of a text, whose clock is that of `zone` unless it names another.
pub(super) fn timestamptz(text: &str, zone: &Tz) -> Result<i64> {
    let reader = Reader { kind: "timestamp with time zone", text, zone };
    if let Some(utc) = reader.special()? {
        return Ok(utc);
    }
    let read = reader.read()?;
    let local = reader.local_of(&read)?;
    let utc = match &read.zone {
        Some(Zone::Ahead(seconds)) => local - seconds * SECOND,
        Some(Zone::Named(named)) => to_utc(named, local)?,
        None => to_utc(zone, local)?,
    };
    moment(Some(utc))
}

/// A time of day of a text, microseconds.
pub(super) fn time(text: &str, zone: &Tz) -> Result<i64> {
    let reader = Reader { kind: "time", text, zone };
    let read = reader.read()?;
    match read.time {
        Some(time) if read.month.is_none() || read.year.is_some() => Ok(time),
        _ => Err(reader.wrong(&Wrong::Form)),
    }
}

impl Reader<'_> {
    fn wrong(&self, why: &Wrong) -> DataFusionError {
        match why {
            Wrong::Form => exec_datafusion_err!("invalid input syntax for type {}: \"{}\"", self.kind, self.text),
            Wrong::Range => exec_datafusion_err!("date/time field value out of range: \"{}\"", self.text),
        }
    }

    /// The moment of a word that needs no calendar.
    fn special(&self) -> Result<Option<i64>> {
        let now = Utc::now().timestamp_micros();
        let midnight = |days: i64| {
            let local = to_local(self.zone, now)?;
            to_utc(self.zone, (local.div_euclid(DAY) + days) * DAY)
        };
        Ok(Some(match self.text.trim().to_ascii_lowercase().as_str() {
            "now" => now,
            "today" => midnight(0)?,
            "tomorrow" => midnight(1)?,
            "yesterday" => midnight(-1)?,
            "epoch" => 0,
            "infinity" | "-infinity" | "+infinity" => {
                return exec_err!("an infinite {} cannot be represented here", self.kind);
            }
            _ => return Ok(None),
        }))
    }

    /// Microseconds that a clock shows.
    fn local(&self) -> Result<i64> {
        match self.special()? {
            Some(0) => Ok(0),
            Some(utc) => to_local(self.zone, utc),
            None => self.local_of(&self.read()?),
        }
    }

    fn local_of(&self, read: &Read) -> Result<i64> {
        let (Some(year), Some(month), Some(day)) = (read.year, read.month, read.day) else {
            return Err(self.wrong(&Wrong::Form));
        };
        let year = if read.is_before_christ { 1 - year } else { year };
        let is_year = if read.is_before_christ { year <= 0 } else { year >= 1 };
        let Some(day) = day_of(year, month, day).filter(|_| is_year) else { return Err(self.wrong(&Wrong::Range)) };
        Ok(i64::from(day) * DAY + read.time.unwrap_or(0))
    }

    fn read(&self) -> Result<Read> {
        let mut read = Read::default();
        let spaced = self.text.trim().replace(',', " ");
        for word in spaced.split_whitespace() {
            read.word(word).map_err(|why| self.wrong(&why))?;
        }
        if let (Some(time), Some(half)) = (read.time, read.half) {
            let hour = time / (3_600 * SECOND);
            if !(1..=12).contains(&hour) {
                return Err(self.wrong(&Wrong::Range));
            }
            let morning = time - if hour == 12 { 12 * 3_600 * SECOND } else { 0 };
            read.time = Some(morning + if half == Half::Evening { 12 * 3_600 * SECOND } else { 0 });
        }
        Ok(read)
    }
}

fn number(text: &str) -> Result<i64, Wrong> {
    let is_number = !text.is_empty() && text.len() < 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().map_err(|_| Wrong::Form) } else { Err(Wrong::Form) }
}

/// A year of two digits is one near 2000.
fn year(text: &str) -> Result<i64, Wrong> {
    let year = number(text)?;
    Ok(match text.len() {
        1 | 2 if year < 70 => 2_000 + year,
        1 | 2 => 1_900 + year,
        _ => year,
    })
}

fn month_named(word: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let word = word.to_ascii_lowercase();
    let word = if word == "sept" { "sep" } else { &word };
    let place = MONTHS.iter().position(|month| *month == word || (word.len() == 3 && month.starts_with(word)));
    place.map(|place| place as i64 + 1)
}

fn is_weekday(word: &str) -> bool {
    const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let word = word.to_ascii_lowercase();
    DAYS.iter().any(|day| *day == word || (word.len() == 3 && day.starts_with(&word)))
}

/// Seconds ahead of UTC: `+05`, `-08:00`, `+0530`.
fn ahead(text: &str) -> Result<i64, Wrong> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits = &text[1..];
    let parts: Vec<&str> = digits.split(':').collect();
    let (hours, minutes, seconds) = match parts.as_slice() {
        [hours] if hours.len() <= 2 => (number(hours)?, 0, 0),
        [both] if both.len() == 3 || both.len() == 4 => {
            let (hours, minutes) = both.split_at(both.len() - 2);
            (number(hours)?, number(minutes)?, 0)
        }
        [hours, minutes] => (number(hours)?, number(minutes)?, 0),
        [hours, minutes, seconds] => (number(hours)?, number(minutes)?, number(seconds)?),
        _ => return Err(Wrong::Form),
    };
    if hours > 15 || minutes > 59 || seconds > 59 {
        return Err(Wrong::Range);
    }
    Ok(sign * (hours * 3_600 + minutes * 60 + seconds))
}

impl Read {
    fn set(place: &mut Option<i64>, value: i64) -> Result<(), Wrong> {
        if place.replace(value).is_some() { Err(Wrong::Form) } else { Ok(()) }
    }

    fn set_zone(&mut self, zone: Zone) -> Result<(), Wrong> {
        if self.zone.replace(zone).is_some() { Err(Wrong::Form) } else { Ok(()) }
    }

    fn word(&mut self, word: &str) -> Result<(), Wrong> {
        if !word.is_ascii() {
            return Err(Wrong::Form);
        }
        let is_letter = |byte: &u8| byte.is_ascii_alphabetic();
        let first = word.as_bytes().first().copied().unwrap_or(b' ');
        if word.contains(':') && first.is_ascii_digit() {
            return match word.split_once(['T', 't']) {
                Some((date, clock)) => {
                    self.date(date)?;
                    self.clock(clock)
                }
                None => self.clock(word),
            };
        }
        if is_letter(&first) {
            return self.name(word);
        }
        if matches!(first, b'+' | b'-') {
            return self.set_zone(Zone::Ahead(ahead(word)?));
        }
        self.date(word)
    }

    fn name(&mut self, word: &str) -> Result<(), Wrong> {
        if let Some(month) = month_named(word) {
            // A number before the month's name was taken for a month.
            if let (Some(day), None) = (self.month, self.day) {
                self.day = Some(day);
                self.month = None;
            }
            return Self::set(&mut self.month, month);
        }
        match word.to_ascii_lowercase().as_str() {
            "am" => self.half = Some(Half::Morning),
            "pm" => self.half = Some(Half::Evening),
            "bc" => self.is_before_christ = true,
            "ad" => {}
            "z" | "utc" | "gmt" | "zulu" | "ut" => self.set_zone(Zone::Ahead(0))?,
            _ if is_weekday(word) => {}
            _ if word.contains('/') => {
                let zone = calendar::zone(Some(word)).map_err(|_| Wrong::Form)?;
                self.set_zone(Zone::Named(zone))?;
            }
            _ => return Err(Wrong::Form),
        }
        Ok(())
    }

    fn date(&mut self, word: &str) -> Result<(), Wrong> {
        let separator = ['-', '/', '.'].into_iter().find(|separator| word.contains(*separator));
        let parts: Vec<&str> = match separator {
            Some(separator) => word.split(separator).collect(),
            None => vec![word],
        };
        match parts.as_slice() {
            [all] if all.len() == 8 && self.month.is_none() => {
                self.dated(number(&all[..4])?, number(&all[4..6])?, number(&all[6..])?)
            }
            [part] if self.month.is_none() && part.len() <= 2 => {
                // The day before the name of its month.
                Self::set(&mut self.month, number(part)?)
            }
            [part] if self.day.is_none() && part.len() <= 2 => Self::set(&mut self.day, number(part)?),
            [part] if self.month.is_some() && part.len() != 8 => {
                let year = year(part)?;
                Self::set(&mut self.year, year)
            }
            [one, two, three] => {
                if let Some(month) = month_named(two) {
                    let (day, of) = if one.len() > 2 { (three, one) } else { (one, three) };
                    return self.dated(year(of)?, month, number(day)?);
                }
                if one.len() > 2 {
                    return self.dated(year(one)?, number(two)?, number(three)?);
                }
                if separator == Some('.') && three.len() < 3 {
                    return Err(Wrong::Form);
                }
                self.dated(year(three)?, number(one)?, number(two)?)
            }
            _ => Err(Wrong::Form),
        }
    }

    fn dated(&mut self, year: i64, month: i64, day: i64) -> Result<(), Wrong> {
        Self::set(&mut self.year, year)?;
        Self::set(&mut self.month, month)?;
        Self::set(&mut self.day, day)
    }

    /// `hours:minutes[:seconds]` and what may follow: half of the day, zone.
    fn clock(&mut self, word: &str) -> Result<(), Wrong> {
        let end = word.find(|letter: char| !(letter.is_ascii_digit() || letter == ':' || letter == '.'));
        let (clock, rest) = word.split_at(end.unwrap_or(word.len()));
        if !rest.is_empty() {
            self.word(rest)?;
        }
        let parts: Vec<&str> = clock.split(':').collect();
        let (hours, minutes, seconds) = match parts.as_slice() {
            [hours, minutes] => (*hours, *minutes, "0"),
            [hours, minutes, seconds] => (*hours, *minutes, *seconds),
            _ => return Err(Wrong::Form),
        };
        let (whole, part) = seconds.split_once('.').unwrap_or((seconds, ""));
        let micros = if part.is_empty() {
            0
        } else {
            number(&part[..part.len().min(9)])?;
            (format!("0.{part}").parse::<f64>().map_err(|_| Wrong::Form)? * 1e6).round_ties_even() as i64
        };
        let (hours, minutes, whole) = (number(hours)?, number(minutes)?, number(whole)?);
        let time = ((hours * 60 + minutes) * 60 + whole) * SECOND + micros;
        if minutes > 59 || whole > 60 || time > DAY {
            return Err(Wrong::Range);
        }
        Self::set(&mut self.time, time)
    }
}

/// A date as a text.
pub(super) fn date_text(day: i32) -> String {
    let (year, month, of_month) = date_of(day);
    if year > 0 {
        return format!("{year:04}-{month:02}-{of_month:02}");
    }
    format!("{:04}-{month:02}-{of_month:02} BC", 1 - year)
}

/// A time of day as a text.
pub(super) fn time_text(micros: i64) -> String {
    let (seconds, part) = (micros / SECOND, micros % SECOND);
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{clock}{}", fraction(part.unsigned_abs()))
}

fn split_era(date: &str) -> (&str, &str) {
    date.strip_suffix(" BC").map_or((date, ""), |date| (date, " BC"))
}

/// A `timestamp` as a text.
pub(super) fn timestamp_text(micros: i64) -> String {
    let date = date_text(micros.div_euclid(DAY) as i32);
    let (date, era) = split_era(&date);
    format!("{date} {}{era}", time_text(micros.rem_euclid(DAY)))
}

/// A `timestamptz` as a text, in a zone.
pub(super) fn timestamptz_text(utc: i64, zone: &Tz) -> Result<String> {
    let ahead = offset_at(zone, utc)?;
    let local = timestamp_text(utc + ahead * SECOND);
    let (local, era) = split_era(&local);
    let (sign, size) = (if ahead < 0 { '-' } else { '+' }, ahead.abs());
    let mut offset = format!("{sign}{:02}", size / 3_600);
    if size % 3_600 != 0 {
        offset.push_str(&format!(":{:02}", size / 60 % 60));
    }
    if size % 60 != 0 {
        offset.push_str(&format!(":{:02}", size % 60));
    }
    Ok(format!("{local}{offset}{era}"))
}
