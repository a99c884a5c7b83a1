//! Spans of time, and times put together of numbers.

use datafusion::common::{Result, exec_err};

use super::{
    calendar::{Civil, DAY, HOUR, MINUTE, SECOND, days, month_length},
    function::Call,
    value::{Interval, Value},
    zone::Zone,
};

/// `age(end, start)`: years, months and days by the calendar.
pub(super) fn age<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let local = |value: &Value<'_>| match value {
        Value::Timestamptz(utc) => Ok(call.zone.to_local(*utc)),
        other => other.instant(),
    };
    let is_negative = arguments[0].instant()? < arguments[1].instant()?;
    Ok(Value::Interval(between(local(&arguments[0])?, local(&arguments[1])?, is_negative)))
}

fn between(end: i64, start: i64, is_negative: bool) -> Interval {
    let (end, start) = (Civil::of(end), Civil::of(start));
    let sign = if is_negative { -1 } else { 1 };
    let mut micros = sign * (end.time - start.time);
    let mut day = sign * (end.day - start.day);
    let mut month = sign * (end.month - start.month);
    let mut year = sign * (end.year - start.year);
    if micros < 0 {
        micros += DAY;
        day -= 1;
    }
    // A borrowed month is as long as the one that the span begins in.
    let lender = if is_negative { end } else { start };
    while day < 0 {
        day += month_length(lender.year, lender.month);
        month -= 1;
    }
    while month < 0 {
        month += 12;
        year -= 1;
    }
    Interval { months: (sign * (year * 12 + month)) as i32, days: (sign * day) as i32, micros: sign * micros }
}

/// `justify_hours`: 24 hours are a day.
pub(super) fn justify_hours<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let of = arguments[0].interval()?;
    let (days, micros) = carried(i64::from(of.days), of.micros, DAY);
    Ok(Value::Interval(Interval { months: of.months, days: narrow(days)?, micros }))
}

/// `justify_days`: 30 days are a month.
pub(super) fn justify_days<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let of = arguments[0].interval()?;
    let (months, days) = carried(i64::from(of.months), i64::from(of.days), 30);
    Ok(Value::Interval(Interval { months: narrow(months)?, days: narrow(days)?, micros: of.micros }))
}

/// `justify_interval`: both, with one sign.
pub(super) fn justify_interval<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let of = arguments[0].interval()?;
    let (mut months, mut days, mut micros) = (i64::from(of.months), i64::from(of.days), of.micros);
    days += micros / DAY;
    micros %= DAY;
    months += days / 30;
    days %= 30;
    if months > 0 && (days < 0 || (days == 0 && micros < 0)) {
        (months, days) = (months - 1, days + 30);
    } else if months < 0 && (days > 0 || (days == 0 && micros > 0)) {
        (months, days) = (months + 1, days - 30);
    }
    if days > 0 && micros < 0 {
        (days, micros) = (days - 1, micros + DAY);
    } else if days < 0 && micros > 0 {
        (days, micros) = (days + 1, micros - DAY);
    }
    Ok(Value::Interval(Interval { months: narrow(months)?, days: narrow(days)?, micros }))
}

/// Moves whole `size`s of the small unit to the large one, so that both have the same sign.
fn carried(large: i64, small: i64, size: i64) -> (i64, i64) {
    let (large, small) = (large + small / size, small % size);
    if large > 0 && small < 0 {
        (large - 1, small + size)
    } else if large < 0 && small > 0 {
        (large + 1, small - size)
    } else {
        (large, small)
    }
}

fn narrow(number: i64) -> Result<i32> {
    i32::try_from(number).or_else(|_| exec_err!("interval out of range"))
}

/// `make_interval(years, months, weeks, days, hours, minutes, seconds)`.
pub(super) fn make_interval<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let at = |place: usize| arguments.get(place).map_or(Ok(0), Value::int);
    let seconds = arguments.get(6).map_or(Ok(0.0), Value::float)?;
    let months = at(0)? * 12 + at(1)?;
    let days = at(2)? * 7 + at(3)?;
    let micros = at(4)? * HOUR + at(5)? * MINUTE;
    let of_seconds = (seconds * 1e6).round_ties_even();
    if !of_seconds.is_finite() || of_seconds.abs() > 9e18 {
        return exec_err!("interval out of range");
    }
    let Some(micros) = micros.checked_add(of_seconds as i64) else { return exec_err!("interval out of range") };
    Ok(Value::Interval(Interval { months: narrow(months)?, days: narrow(days)?, micros }))
}

fn date(arguments: &[Value<'_>]) -> Result<i64> {
    let (year, month, day) = (arguments[0].int()?, arguments[1].int()?, arguments[2].int()?);
    // A negative year is one before Christ.
    let astronomical = if year < 0 { year + 1 } else { year };
    let fits = year != 0
        && (-4713..=5_874_897).contains(&year)
        && (1..=12).contains(&month)
        && (1..=month_length(astronomical, month)).contains(&day);
    if !fits {
        return exec_err!("date field value out of range: {year}-{month:02}-{day:02}");
    }
    Ok(days(astronomical, month, day))
}

fn time(arguments: &[Value<'_>]) -> Result<i64> {
    let (hour, minute, second) = (arguments[0].int()?, arguments[1].int()?, arguments[2].float()?);
    let micros = (second * 1e6).round_ties_even();
    let fits = (0..=24).contains(&hour) && (0..60).contains(&minute) && (0.0..=60e6).contains(&micros);
    let total = hour * HOUR + minute * MINUTE + if fits { micros as i64 } else { 0 };
    if !fits || total > DAY {
        return exec_err!("time field value out of range: {hour}:{minute:02}:{second:02}");
    }
    Ok(total)
}

pub(super) fn make_date<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Date(narrow(date(arguments)?)?))
}

pub(super) fn make_time<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Time(time(arguments)?))
}

fn local(arguments: &[Value<'_>]) -> Result<i64> {
    let day = date(arguments)?;
    if !(-1_800_000..110_000_000).contains(&day) {
        return exec_err!("timestamp out of range");
    }
    Ok(day * DAY + time(&arguments[3..])?)
}

pub(super) fn make_timestamp<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Timestamp(local(arguments)?))
}

pub(super) fn make_timestamptz<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let zone = match arguments.get(6) {
        Some(zone) => Zone::named(zone.str()?)?,
        None => call.zone,
    };
    Ok(Value::Timestamptz(zone.to_utc(local(arguments)?)))
}

/// `to_timestamp` of seconds since 1970.
pub(super) fn of_epoch<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let seconds = arguments[0].float()?;
    if !(-210_866_803_200.0..=9_224_318_016_000.0).contains(&seconds) {
        return exec_err!("timestamp out of range: \"{seconds}\"");
    }
    // As PostgreSQL does it: from 2000 on, in doubles.
    let since_2000 = (seconds - 946_684_800.0) * 1e6;
    Ok(Value::Timestamptz(since_2000.round_ties_even() as i64 + 946_684_800 * SECOND))
}
