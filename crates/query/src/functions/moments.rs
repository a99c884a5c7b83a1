//! Moments: zones, parts of times, cutting off.

use datafusion::{
    arrow::datatypes::DataType,
    common::{Result, exec_err},
};

use super::{
    calendar::{Civil, DAY, HOUR, JULIAN_1970, MINUTE, SECOND, days, month_added},
    function::{Call, Given},
    value::{Decimal, Interval, Kind, Value},
    zone::Zone,
};

/// `timezone(zone, moment)`, which `AT TIME ZONE` is.
pub(super) fn timezone<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let zone = match &arguments[0] {
        Value::Interval(interval) => Zone::of_interval(*interval)?,
        name => Zone::named(name.str()?)?,
    };
    Ok(match &arguments[1] {
        Value::Timestamptz(utc) => Value::Timestamp(zone.to_local(*utc)),
        local => Value::Timestamptz(zone.to_utc(local.instant()?)),
    })
}

/// A unit by any of its names.
pub(super) fn unit(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "microsecond" | "microseconds" | "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecon" => {
            "microseconds"
        }
        "millisecond" | "milliseconds" | "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecon" => {
            "milliseconds"
        }
        "second" | "seconds" | "s" | "sec" | "secs" => "second",
        "minute" | "minutes" | "m" | "min" | "mins" => "minute",
        "hour" | "hours" | "h" | "hr" | "hrs" => "hour",
        "day" | "days" | "d" => "day",
        "week" | "weeks" | "w" => "week",
        "month" | "months" | "mon" | "mons" => "month",
        "quarter" | "qtr" => "quarter",
        "year" | "years" | "y" | "yr" | "yrs" => "year",
        "decade" | "decades" | "dec" | "decs" => "decade",
        "century" | "centuries" | "c" | "cent" => "century",
        "millennium" | "millennia" | "mil" | "mils" => "millennium",
        "dow" => "dow",
        "isodow" => "isodow",
        "doy" => "doy",
        "epoch" => "epoch",
        "isoyear" => "isoyear",
        "julian" => "julian",
        "timezone" => "timezone",
        "timezone_h" | "timezone_hour" => "timezone_hour",
        "timezone_m" | "timezone_minute" => "timezone_minute",
        _ => return None,
    })
}

fn unknown<T>(name: &str, kind: &Kind) -> Result<T> {
    exec_err!("unit \"{name}\" not recognized or not supported for type {}", kind.name())
}

/// `date_trunc`.
pub(super) fn date_trunc<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let name = arguments[0].str()?;
    Ok(match &arguments[1] {
        Value::Timestamp(local) => Value::Timestamp(truncated(name, *local, &Kind::Timestamp)?),
        Value::Timestamptz(utc) => {
            let zone = match arguments.get(2) {
                Some(zone) => Zone::named(zone.str()?)?,
                None => call.zone,
            };
            let cut = truncated(name, zone.to_local(*utc), &Kind::Timestamptz)?;
            // Within a day the clock keeps what it shows; a day's start is looked up.
            let within = matches!(unit(name), Some("hour" | "minute" | "second" | "milliseconds" | "microseconds"));
            Value::Timestamptz(if within { cut - zone.offset(*utc) * SECOND } else { zone.to_utc(cut) })
        }
        other => Value::Interval(interval_truncated(name, other.interval()?)?),
    })
}

fn truncated(name: &str, local: i64, kind: &Kind) -> Result<i64> {
    let at = Civil::of(local);
    let year = |year: i64| days(year, 1, 1) * DAY;
    let down = |size: i64| local - local.rem_euclid(size);
    let span = |size: i64| match at.year > 0 {
        true => (at.year + size - 1) / size * size - size + 1,
        false => -((size - 1 - (at.year - 1)) / size) * size + 1,
    };
    Ok(match unit(name) {
        Some("microseconds") => local,
        Some("milliseconds") => down(1000),
        Some("second") => down(SECOND),
        Some("minute") => down(MINUTE),
        Some("hour") => down(HOUR),
        Some("day") => down(DAY),
        Some("week") => {
            let day = local.div_euclid(DAY);
            (day - (day + 3).rem_euclid(7)) * DAY
        }
        Some("month") => days(at.year, at.month, 1) * DAY,
        Some("quarter") => days(at.year, (at.month - 1) / 3 * 3 + 1, 1) * DAY,
        Some("year") => year(at.year),
        Some("decade") => year(if at.year > 0 { at.year / 10 * 10 } else { -((8 - (at.year - 1)) / 10) * 10 }),
        Some("century") => year(span(100)),
        Some("millennium") => year(span(1000)),
        _ => return unknown(name, kind),
    })
}

fn interval_truncated(name: &str, of: Interval) -> Result<Interval> {
    let months = |size: i32| Interval { months: of.months / size * size, ..Interval::default() };
    let micros = |size: i64| Interval { micros: of.micros / size * size, ..of };
    Ok(match unit(name) {
        Some("microseconds") => of,
        Some("milliseconds") => micros(1000),
        Some("second") => micros(SECOND),
        Some("minute") => micros(MINUTE),
        Some("hour") => micros(HOUR),
        Some("day") => Interval { micros: 0, ..of },
        Some("month") => months(1),
        Some("quarter") => months(3),
        Some("year") => months(12),
        Some("decade") => months(120),
        Some("century") => months(1200),
        Some("millennium") => months(12_000),
        _ => return unknown(name, &Kind::Interval),
    })
}

/// `extract`, an exact number.
pub(super) fn extract<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let name = arguments[0].str()?;
    if let Value::Date(_) = arguments[1]
        && !matches!(
            unit(name),
            Some(
                "day"
                    | "week"
                    | "month"
                    | "quarter"
                    | "year"
                    | "decade"
                    | "century"
                    | "millennium"
                    | "dow"
                    | "isodow"
                    | "doy"
                    | "epoch"
                    | "isoyear"
                    | "julian"
            )
        )
    {
        return unknown(name, &Kind::Date);
    }
    Ok(Value::Numeric(part(call, name, &arguments[1])?))
}

/// `date_part`, a double.
pub(super) fn date_part<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    Ok(Value::Float(part(call, arguments[0].str()?, &arguments[1])?.float()))
}

/// How many digits a part has behind the point, and before it at most.
pub(super) fn extract_type(given: &Given<'_>) -> Result<DataType> {
    let is_date = given.kind(1) == Kind::Date;
    let (precision, scale) = match given.text(0).map(unit) {
        Some(Some("second")) => (20, 6),
        Some(Some("milliseconds")) => (20, 3),
        Some(Some("epoch")) if !is_date => (24, 6),
        Some(Some("julian")) if !is_date => (38, 20),
        Some(_) => (19, 0),
        None => (24, 6),
    };
    Ok(DataType::Decimal128(precision, scale))
}

fn part(call: &Call<'_>, name: &str, of: &Value<'_>) -> Result<Decimal> {
    match of {
        Value::Date(day) => moment_part(name, i64::from(*day) * DAY, None, &Kind::Date),
        Value::Timestamp(local) => moment_part(name, *local, None, &Kind::Timestamp),
        Value::Timestamptz(utc) => {
            let east = call.zone.offset(*utc);
            moment_part(name, utc + east * SECOND, Some(east), &Kind::Timestamptz)
        }
        Value::Time(micros) => match unit(name) {
            Some("epoch") => Ok(Decimal::new(i128::from(*micros), 6)),
            Some("hour" | "minute" | "second" | "milliseconds" | "microseconds") => {
                moment_part(name, *micros, None, &Kind::Time)
            }
            _ => unknown(name, &Kind::Time),
        },
        other => interval_part(name, other.interval()?),
    }
}

fn whole(number: i64) -> Decimal {
    Decimal::new(i128::from(number), 0)
}

fn century(year: i64, size: i64) -> i64 {
    if year > 0 { (year + size - 1) / size } else { -((size - 1 - (year - 1)) / size) }
}

fn moment_part(name: &str, local: i64, east: Option<i64>, kind: &Kind) -> Result<Decimal> {
    let at = Civil::of(local);
    let of_minute = i128::from(at.time % MINUTE);
    Ok(whole(match (unit(name), east) {
        (Some("microseconds"), _) => at.time % MINUTE,
        (Some("milliseconds"), _) => return Ok(Decimal::new(of_minute, 3)),
        (Some("second"), _) => return Ok(Decimal::new(of_minute, 6)),
        (Some("minute"), _) => at.minute(),
        (Some("hour"), _) => at.hour(),
        (Some("day"), _) => at.day,
        (Some("week"), _) => at.iso_week().1,
        (Some("month"), _) => at.month,
        (Some("quarter"), _) => (at.month - 1) / 3 + 1,
        // There is no year 0 but one before it.
        (Some("year"), _) => {
            if at.year > 0 {
                at.year
            } else {
                at.year - 1
            }
        }
        (Some("isoyear"), _) => match at.iso_week().0 {
            year if year > 0 => year,
            year => year - 1,
        },
        (Some("decade"), _) => {
            if at.year >= 0 {
                at.year / 10
            } else {
                -((8 - (at.year - 1)) / 10)
            }
        }
        (Some("century"), _) => century(at.year, 100),
        (Some("millennium"), _) => century(at.year, 1000),
        (Some("dow"), _) => at.weekday(),
        (Some("isodow"), _) => {
            if at.weekday() == 0 {
                7
            } else {
                at.weekday()
            }
        }
        (Some("doy"), _) => at.day_of_year(),
        (Some("epoch"), _) if *kind == Kind::Date => local / SECOND,
        (Some("epoch"), east) => {
            return Ok(Decimal::new(i128::from(local) - i128::from(east.unwrap_or(0) * SECOND), 6));
        }
        (Some("julian"), _) => {
            let day = i128::from(days(at.year, at.month, at.day) + JULIAN_1970);
            let ten_to_20 = 10i128.pow(20);
            let half = i128::from(DAY / 2);
            let part = (i128::from(at.time) * ten_to_20 + half) / i128::from(DAY);
            return Ok(if *kind == Kind::Date {
                Decimal::new(day, 0)
            } else {
                Decimal::new(day * ten_to_20 + part, 20)
            });
        }
        (Some("timezone"), Some(east)) => east,
        (Some("timezone_hour"), Some(east)) => east / 3600,
        (Some("timezone_minute"), Some(east)) => east / 60 % 60,
        _ => return unknown(name, kind),
    }))
}

fn interval_part(name: &str, of: Interval) -> Result<Decimal> {
    let (years, months) = (i64::from(of.months) / 12, i64::from(of.months) % 12);
    Ok(whole(match unit(name) {
        Some("microseconds") => of.micros % MINUTE,
        Some("milliseconds") => return Ok(Decimal::new(i128::from(of.micros % MINUTE), 3)),
        Some("second") => return Ok(Decimal::new(i128::from(of.micros % MINUTE), 6)),
        Some("minute") => of.micros / MINUTE % 60,
        Some("hour") => of.micros / HOUR,
        Some("day") => i64::from(of.days),
        Some("month") => months,
        Some("quarter") => months / 3 + 1,
        Some("year") => years,
        Some("decade") => years / 10,
        Some("century") => years / 100,
        Some("millennium") => years / 1000,
        Some("epoch") => {
            // A year has 365.25 days here, a month 30.
            let micros = i128::from(years) * 31_557_600_000_000
                + i128::from(months) * 30 * i128::from(DAY)
                + i128::from(of.days) * i128::from(DAY)
                + i128::from(of.micros);
            return Ok(Decimal::new(micros, 6));
        }
        _ => return unknown(name, &Kind::Interval),
    }))
}

/// A moment moved by a span: months by the calendar, then days, then the rest.
pub(super) fn moved(local: i64, by: Interval) -> i64 {
    let at = Civil::of(local);
    let (year, month, day) = month_added((at.year, at.month, at.day), i64::from(by.months));
    let moved = (days(year, month, day) + i64::from(by.days)).saturating_mul(DAY);
    moved.saturating_add(at.time).saturating_add(by.micros)
}

/// The same of a moment in UTC: months and days are those of the zone's clock.
fn moved_in(zone: &Zone, utc: i64, by: Interval) -> i64 {
    if by.months == 0 && by.days == 0 {
        return utc.saturating_add(by.micros);
    }
    let of_calendar = Interval { micros: 0, ..by };
    zone.to_utc(moved(zone.to_local(utc), of_calendar)).saturating_add(by.micros)
}

/// `date_bin`.
pub(super) fn date_bin<'a>(_: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let stride = arguments[0].interval()?;
    if stride.months != 0 {
        return exec_err!("timestamps cannot be binned into intervals containing months or years");
    }
    let Some(stride) = (i64::from(stride.days) * DAY).checked_add(stride.micros).filter(|stride| *stride > 0) else {
        return exec_err!("stride must be greater than zero");
    };
    let (source, origin) = (arguments[1].instant()?, arguments[2].instant()?);
    let Some(distance) = source.checked_sub(origin) else { return exec_err!("interval out of range") };
    let start = origin + (distance - distance.rem_euclid(stride));
    Ok(if let Value::Timestamptz(_) = arguments[1] { Value::Timestamptz(start) } else { Value::Timestamp(start) })
}

pub(super) fn isfinite<'a>(_: &Call<'_>, _: &[Value<'a>]) -> Result<Value<'a>> {
    // What is not finite cannot be held here.
    Ok(Value::Bool(true))
}

/// `(a, b) OVERLAPS (c, d)`, where an end may be a span. NULLs count where they may decide.
pub(super) fn overlaps<'a>(call: &Call<'_>, arguments: &[Value<'a>]) -> Result<Value<'a>> {
    let end = |start: &Value<'_>, end: &Value<'_>| match (start, end) {
        (Value::Null, Value::Interval(_)) | (_, Value::Null) => Ok(None),
        (Value::Timestamptz(utc), Value::Interval(by)) => Ok(Some(moved_in(&call.zone, *utc, *by))),
        (Value::Time(time), Value::Interval(by)) => Ok(Some((time + by.micros).rem_euclid(DAY))),
        (start, Value::Interval(by)) => Ok(Some(moved(start.instant()?, *by))),
        (_, end) => end.instant().map(Some),
    };
    let period = |first: &Value<'_>, second: &Value<'_>| {
        let start = if first.is_null() { None } else { Some(first.instant()?) };
        Ok::<_, datafusion::common::DataFusionError>(match (start, end(first, second)?) {
            (Some(start), Some(end)) if start > end => Some((end, Some(start))),
            (Some(start), end) => Some((start, end)),
            (None, Some(end)) => Some((end, None)),
            (None, None) => None,
        })
    };
    let (Some(one), Some(other)) = (period(&arguments[0], &arguments[1])?, period(&arguments[2], &arguments[3])?)
    else {
        return Ok(Value::Null);
    };
    let (early, late) = if one.0 > other.0 { (other, one) } else { (one, other) };
    Ok(match (early, late) {
        ((start, Some(_)), (other, Some(_))) if start == other => Value::Bool(true),
        ((start, _), (other, _)) if start == other => Value::Null,
        ((_, None), _) => Value::Null,
        ((_, Some(end)), (start, _)) if start < end => Value::Bool(true),
        (_, (_, None)) => Value::Null,
        _ => Value::Bool(false),
    })
}
