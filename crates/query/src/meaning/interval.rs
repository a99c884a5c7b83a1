//! Intervals as texts.

use datafusion::{
    arrow::datatypes::IntervalMonthDayNano,
    common::{Result, exec_err},
};

use super::moments::of_micros;
use crate::functions::interval_text;

/// What a unit is: months, days or microseconds.
#[derive(Clone, Copy)]
enum Unit {
    Months(i64),
    Days(i64),
    Micros(i64),
}

fn unit(name: &str) -> Option<Unit> {
    let known = name.to_ascii_lowercase();
    let known = if known.len() > 2 { known.strip_suffix('s').unwrap_or(&known) } else { &known };
    Some(match known {
        "millennium" | "millennia" | "mil" | "mill" => Unit::Months(12_000),
        "century" | "centurie" | "cent" | "c" => Unit::Months(1_200),
        "decade" | "dec" => Unit::Months(120),
        "year" | "yr" | "y" => Unit::Months(12),
        "month" | "mon" => Unit::Months(1),
        "week" | "w" => Unit::Days(7),
        "day" | "d" => Unit::Days(1),
        "hour" | "hr" | "h" => Unit::Micros(3_600_000_000),
        "minute" | "min" | "m" => Unit::Micros(60_000_000),
        "second" | "sec" | "s" => Unit::Micros(1_000_000),
        "millisecond" | "msec" | "ms" | "msecond" => Unit::Micros(1_000),
        "microsecond" | "usec" | "us" | "usecond" => Unit::Micros(1),
        _ => return None,
    })
}

/// What has been read of an interval.
#[derive(Default)]
struct Sum {
    months: i64,
    days: i64,
    micros: i64,
}

impl Sum {
    /// Adds a number of a unit; what is left of a whole one becomes smaller units, a month being 30
    /// days.
    fn add(&mut self, number: &str, unit: Unit) -> Option<()> {
        let (whole, part) = split(number)?;
        let is_whole = part == 0.0;
        let add = |to: &mut i64, value: i64| {
            *to = to.checked_add(value)?;
            Some(())
        };
        match unit {
            Unit::Micros(of) => {
                add(&mut self.micros, whole.checked_mul(of)?)?;
                add(&mut self.micros, (part * of as f64).round_ties_even() as i64)
            }
            Unit::Days(of) => {
                add(&mut self.days, whole.checked_mul(of)?)?;
                let days = part * of as f64;
                let left = days - days.trunc();
                add(&mut self.days, days.trunc() as i64)?;
                add(&mut self.micros, (left * 86_400e6).round_ties_even() as i64)
            }
            Unit::Months(1) if !is_whole => {
                add(&mut self.months, whole)?;
                let days = part * 30.0;
                let left = ((days - days.trunc()) * 86_400e6).round_ties_even();
                add(&mut self.days, days.trunc() as i64)?;
                add(&mut self.micros, left as i64)
            }
            Unit::Months(of) => {
                add(&mut self.months, whole.checked_mul(of)?)?;
                add(&mut self.months, (part * of as f64).round_ties_even() as i64)
            }
        }
    }

    /// `[-]hours:minutes[:seconds]`.
    fn add_clock(&mut self, text: &str) -> Option<()> {
        let (is_minus, clock) = match text.strip_prefix('-') {
            Some(clock) => (true, clock),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let parts: Vec<&str> = clock.split(':').collect();
        let (hours, minutes, seconds) = match parts.as_slice() {
            [minutes, seconds] if seconds.contains('.') => ("0", *minutes, *seconds),
            [hours, minutes] => (*hours, *minutes, "0"),
            [hours, minutes, seconds] => (*hours, *minutes, *seconds),
            _ => return None,
        };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(hours) || !digits(minutes) || minutes.parse::<u8>().ok()? > 59 {
            return None;
        }
        let (whole, part) = split(seconds)?;
        if !(0..=60).contains(&whole) || seconds.starts_with(['-', '+']) {
            return None;
        }
        let hours: i64 = hours.parse().ok()?;
        let minutes = hours.checked_mul(60)?.checked_add(minutes.parse().ok()?)?;
        let micros = minutes.checked_mul(60)?.checked_add(whole)?.checked_mul(1_000_000)?;
        let micros = micros.checked_add((part * 1e6).round_ties_even() as i64)?;
        self.micros = self.micros.checked_add(if is_minus { -micros } else { micros })?;
        Some(())
    }
}

/// The whole and the rest of a number; a sign is that of both.
fn split(number: &str) -> Option<(i64, f64)> {
    let bare = number.strip_prefix(['-', '+']).unwrap_or(number);
    let (whole, part) = bare.split_once('.').unwrap_or((bare, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: f64 = if part.is_empty() { 0.0 } else { format!("0.{part}").parse().ok()? };
    Some(if number.starts_with('-') { (-whole, -part) } else { (whole, part) })
}

/// An interval from a text: PostgreSQL's forms, or that of ISO 8601 with letters.
pub(super) fn parse(text: &str) -> Result<IntervalMonthDayNano> {
    let trimmed = text.trim();
    let read = match trimmed.strip_prefix(['P', 'p']) {
        Some(rest) => parse_iso(rest),
        None => parse_words(trimmed),
    };
    match read {
        Some(sum) => of_micros(sum.months, sum.days, sum.micros),
        None => exec_err!("invalid input syntax for type interval: \"{text}\""),
    }
}

fn parse_iso(text: &str) -> Option<Sum> {
    let (mut sum, mut number, mut in_time) = (Sum::default(), String::new(), false);
    for letter in text.chars() {
        match letter.to_ascii_uppercase() {
            'T' if !in_time && number.is_empty() => in_time = true,
            '0'..='9' | '.' | '-' | '+' => number.push(letter),
            letter => {
                let unit = match (letter, in_time) {
                    ('Y', false) => Unit::Months(12),
                    ('M', false) => Unit::Months(1),
                    ('W', false) => Unit::Days(7),
                    ('D', false) => Unit::Days(1),
                    ('H', true) => Unit::Micros(3_600_000_000),
                    ('M', true) => Unit::Micros(60_000_000),
                    ('S', true) => Unit::Micros(1_000_000),
                    _ => return None,
                };
                sum.add(&number, unit)?;
                number.clear();
            }
        }
    }
    (number.is_empty() && !text.is_empty()).then_some(sum)
}

fn parse_words(text: &str) -> Option<Sum> {
    let (text, is_ago) = match text.strip_suffix("ago") {
        Some(rest) if rest.ends_with(' ') => (rest, true),
        _ => (text, false),
    };
    let text = text.strip_prefix('@').unwrap_or(text);
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        // A unit may follow its number without a space, and the next number the unit.
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let is_unit = first.is_ascii_alphabetic();
            let end = rest.find(|letter: char| letter.is_ascii_alphabetic() != is_unit).unwrap_or(rest.len());
            words.push(&rest[..end]);
            rest = &rest[end..];
        }
    }
    let (mut sum, mut words) = (Sum::default(), words.into_iter().peekable());
    words.peek()?;
    while let Some(word) = words.next() {
        if word.contains(':') {
            sum.add_clock(word)?;
        } else if let Some((years, months)) = word.get(1..).and_then(|rest| rest.split_once('-')) {
            let years = format!("{}{years}", &word[..1]);
            let minus = if word.starts_with('-') { "-" } else { "" };
            if months.parse::<u8>().ok()? > 11 {
                return None;
            }
            sum.add(&years, Unit::Months(12))?;
            sum.add(&format!("{minus}{months}"), Unit::Months(1))?;
        } else {
            let unit = match words.peek() {
                Some(next) if !next.contains(':') => unit(words.next()?)?,
                Some(_) => Unit::Days(1),
                None => Unit::Micros(1_000_000),
            };
            sum.add(word, unit)?;
        }
    }
    if is_ago {
        sum = Sum { months: -sum.months, days: -sum.days, micros: -sum.micros };
    }
    Some(sum)
}

/// The interval as PostgreSQL writes it.
pub(super) fn text(interval: IntervalMonthDayNano) -> String {
    interval_text(interval.months, interval.days, interval.nanoseconds / 1_000)
}

/// Millionths behind a second, without zeros at the end.
pub(super) fn fraction(micros: u64) -> String {
    if micros == 0 {
        return String::new();
    }
    format!(".{micros:06}").trim_end_matches('0').to_owned()
}

/// Microseconds by which PostgreSQL compares intervals: a month has 30 days, a day 24 hours.
pub(super) fn size(interval: IntervalMonthDayNano) -> i128 {
    let days = i128::from(interval.months) * 30 + i128::from(interval.days);
    days * 86_400_000_000 + i128::from(interval.nanoseconds / 1_000)
}
