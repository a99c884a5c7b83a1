//! Spans of time as PostgreSQL reads them.

use super::{
    calendar::{DAY, HOUR, MINUTE, SECOND},
    moments::unit,
    parse::time,
    value::Interval,
};

/// A sum of amounts with units.
#[derive(Default)]
struct Sum {
    months: i64,
    days: i64,
    micros: i64,
}

impl Sum {
    /// Adds an amount; what is less than the unit goes to smaller ones.
    fn add(&mut self, name: &str, whole: i64, part: f64) -> Option<()> {
        let micros = |size: i64| whole.checked_mul(size)?.checked_add((part * size as f64).round_ties_even() as i64);
        let days = |sum: &mut Self, days: f64| {
            let full = days.trunc();
            sum.days += full as i64;
            sum.micros += ((days - full) * DAY as f64).round_ties_even() as i64;
        };
        let years = |size: i64| whole.checked_mul(size)?.checked_add((part * size as f64).round_ties_even() as i64);
        match unit(name)? {
            "microseconds" => self.micros = self.micros.checked_add(micros(1)?)?,
            "milliseconds" => self.micros = self.micros.checked_add(micros(1000)?)?,
            "second" => self.micros = self.micros.checked_add(micros(SECOND)?)?,
            "minute" => self.micros = self.micros.checked_add(micros(MINUTE)?)?,
            "hour" => self.micros = self.micros.checked_add(micros(HOUR)?)?,
            "day" => {
                self.days = self.days.checked_add(whole)?;
                days(self, part);
            }
            "week" => {
                self.days = self.days.checked_add(whole.checked_mul(7)?)?;
                days(self, part * 7.0);
            }
            "month" => {
                self.months = self.months.checked_add(whole)?;
                days(self, part * 30.0);
            }
            "year" => self.months = self.months.checked_add(years(12)?)?,
            "decade" => self.months = self.months.checked_add(years(120)?)?,
            "century" => self.months = self.months.checked_add(years(1200)?)?,
            "millennium" => self.months = self.months.checked_add(years(12_000)?)?,
            _ => return None,
        }
        Some(())
    }

    fn interval(self) -> Option<Interval> {
        let (months, days) = (i32::try_from(self.months).ok()?, i32::try_from(self.days).ok()?);
        Some(Interval { months, days, micros: self.micros })
    }
}

/// The digits that a text begins with: the whole, and the part behind a point.
fn amount(text: &str) -> Option<(i64, f64, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part = if part.is_empty() { 0.0 } else { format!("0.{part}").parse().ok()? };
    Some((whole, part, rest))
}

/// `1 mon -2 days 03:04:05`, `1-2`, `3 hours ago`, `P1DT2H`.
pub(super) fn interval(text: &str) -> Option<Interval> {
    let text = text.strip_prefix('@').unwrap_or(text).trim();
    if let Some(designated) = text.strip_prefix('P') {
        return designators(designated);
    }
    let (text, sign_of_all) = match text.strip_suffix("ago") {
        Some(rest) => (rest.trim_end(), -1),
        None => (text, 1),
    };
    let (mut sum, mut rest) = (Sum::default(), text);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (sign, unsigned) = match rest.strip_prefix('-') {
            Some(rest) => (-sign_of_all, rest),
            None => (sign_of_all, rest.strip_prefix('+').unwrap_or(rest)),
        };
        let (whole, part, behind) = amount(unsigned)?;
        if behind.starts_with(':') {
            let end = unsigned.find(|letter: char| letter.is_ascii_whitespace()).unwrap_or(unsigned.len());
            sum.micros += sign * clock(&unsigned[..end])?;
            rest = unsigned[end..].trim_start();
            continue;
        }
        if let Some((months, _, behind)) = behind.strip_prefix('-').and_then(amount) {
            sum.months += sign * (whole * 12 + months);
            rest = behind.trim_start();
            continue;
        }
        let behind = behind.trim_start();
        let end = behind.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(behind.len());
        let name = if end == 0 { "second" } else { &behind[..end] };
        sum.add(name, sign * whole, sign as f64 * part)?;
        rest = behind[end..].trim_start();
    }
    sum.interval()
}

/// Hours, minutes and seconds; the hours may be more than a day has.
fn clock(text: &str) -> Option<i64> {
    let (hours, rest) = text.split_once(':')?;
    let hours: i64 = hours.parse().ok()?;
    hours.checked_mul(HOUR)?.checked_add(time(&format!("00:{rest}"))?)
}

/// What stands behind the `P` of ISO 8601.
fn designators(text: &str) -> Option<Interval> {
    let (mut sum, mut rest, mut in_time) = (Sum::default(), text, false);
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix('T') {
            (in_time, rest) = (true, behind);
            continue;
        }
        let (sign, unsigned) = rest.strip_prefix('-').map_or((1, rest), |rest| (-1, rest));
        let (whole, part, behind) = amount(unsigned)?;
        let name = match (in_time, behind.chars().next()?) {
            (false, 'Y') => "year",
            (false, 'M') => "month",
            (false, 'W') => "week",
            (false, 'D') => "day",
            (true, 'H') => "hour",
            (true, 'M') => "minute",
            (true, 'S') => "second",
            _ => return None,
        };
        sum.add(name, sign * whole, sign as f64 * part)?;
        rest = &behind[1..];
    }
    sum.interval()
}
