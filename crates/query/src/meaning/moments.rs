//! Arithmetic of dates, times, moments and intervals.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, Date32Array, Int32Array, IntervalMonthDayNanoArray, PrimitiveArray,
            Time64MicrosecondArray, TimestampMicrosecondArray, timezone::Tz,
        },
        compute::{CastOptions, cast_with_options},
        datatypes::{
            DataType, Date32Type, Float64Type, Int32Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
            Time64MicrosecondType, TimestampMicrosecondType,
        },
    },
    common::{Result, ScalarValue, exec_err},
    logical_expr::ColumnarValue,
};

use super::{
    calendar::{self, DAY, add_months, moment, out_of_range, to_local, to_utc},
    numbers::decimals_to_doubles,
    operator::Operation,
    types::{INTERVAL, TIME, canonical, name},
};

/// One value of time.
#[derive(Debug, Clone, Copy)]
enum Value {
    Date(i32),
    Time(i64),
    Local(i64),
    Moment(i64),
    Interval(IntervalMonthDayNano),
    Number(f64),
    Integer(i32),
}

/// A column of such values.
struct Values(ArrayRef);

impl Values {
    fn of(value: &ColumnarValue, rows: usize) -> Result<Self> {
        let array = value.to_array(rows)?;
        let kind = match canonical(array.data_type()) {
            DataType::Int16 | DataType::Int32 => DataType::Int32,
            DataType::Decimal128(_, scale) => return Ok(Self(decimals_to_doubles(&array, scale)?)),
            DataType::Int64 | DataType::Float32 | DataType::Float64 => DataType::Float64,
            other => other,
        };
        let strictly = CastOptions { safe: false, ..CastOptions::default() };
        Ok(Self(if *array.data_type() == kind { array } else { cast_with_options(&array, &kind, &strictly)? }))
    }

    fn value(&self, row: usize) -> Result<Option<Value>> {
        let array = &self.0;
        if array.is_null(row) {
            return Ok(None);
        }
        Ok(Some(match array.data_type() {
            DataType::Date32 => Value::Date(array.as_primitive::<Date32Type>().value(row)),
            DataType::Time64(_) => Value::Time(array.as_primitive::<Time64MicrosecondType>().value(row)),
            DataType::Timestamp(_, zone) => {
                let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
                if zone.is_some() { Value::Moment(micros) } else { Value::Local(micros) }
            }
            DataType::Interval(_) => Value::Interval(array.as_primitive::<IntervalMonthDayNanoType>().value(row)),
            DataType::Float64 => Value::Number(array.as_primitive::<Float64Type>().value(row)),
            DataType::Int32 => Value::Integer(array.as_primitive::<Int32Type>().value(row)),
            other => return exec_err!("no arithmetic of {}", name(other)),
        }))
    }
}

/// `left operation right` where one side at least is of time; moments are those of a `zone` where
/// it matters.
pub(super) fn evaluate(
    operation: Operation,
    left: &ColumnarValue,
    right: &ColumnarValue,
    kind: &DataType,
    zone: Option<&str>,
    rows: usize,
) -> Result<ColumnarValue> {
    let is_one = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
    let rows = if is_one { 1 } else { rows };
    let (left, right) = (Values::of(left, rows)?, Values::of(right, rows)?);
    let zone = calendar::zone(zone)?;
    let values = (0..rows).map(|row| match (left.value(row)?, right.value(row)?) {
        (Some(left), Some(right)) => combine(operation, left, right, &zone).map(Some),
        _ => Ok(None),
    });
    let values = values.collect::<Result<Vec<Option<Value>>>>()?;
    let array = gather(&values, kind);
    if is_one {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
    }
    Ok(ColumnarValue::Array(array))
}

fn gather(values: &[Option<Value>], kind: &DataType) -> ArrayRef {
    let micros = |value: &Option<Value>| match value {
        Some(Value::Local(micros) | Value::Moment(micros) | Value::Time(micros)) => Some(*micros),
        _ => None,
    };
    let days = |value: &Option<Value>| match value {
        Some(Value::Date(days) | Value::Integer(days)) => Some(*days),
        _ => None,
    };
    match kind {
        DataType::Date32 => Arc::new(values.iter().map(days).collect::<Date32Array>()),
        DataType::Int32 => Arc::new(values.iter().map(days).collect::<Int32Array>()),
        &TIME => Arc::new(values.iter().map(micros).collect::<Time64MicrosecondArray>()),
        &INTERVAL => {
            let intervals = values.iter().map(|value| match value {
                Some(Value::Interval(interval)) => Some(*interval),
                _ => None,
            });
            Arc::new(intervals.collect::<IntervalMonthDayNanoArray>())
        }
        _ => {
            let moments: PrimitiveArray<TimestampMicrosecondType> =
                values.iter().map(micros).collect::<TimestampMicrosecondArray>();
            Arc::new(moments.with_data_type(kind.clone()))
        }
    }
}

fn combine(operation: Operation, left: Value, right: Value, zone: &Tz) -> Result<Value> {
    use Operation::{Add, Divide, Multiply, Subtract};
    let is_minus = operation == Subtract;
    let midnight = |day: i32| i64::from(day) * DAY;
    Ok(match (left, operation, right) {
        (Value::Date(day), Add | Subtract, Value::Integer(days)) | (Value::Integer(days), Add, Value::Date(day)) => {
            let sum = if is_minus { day.checked_sub(days) } else { day.checked_add(days) };
            let day = sum.ok_or_else(|| out_of_range("date"))?;
            moment(i64::from(day).checked_mul(DAY)).map_err(|_| out_of_range("date"))?;
            Value::Date(day)
        }
        (Value::Date(one), Subtract, Value::Date(other)) => Value::Integer(one - other),
        (Value::Date(day), Add, Value::Time(time)) | (Value::Time(time), Add, Value::Date(day)) => {
            Value::Local(midnight(day) + time)
        }
        (Value::Date(day), Add | Subtract, Value::Interval(interval))
        | (Value::Interval(interval), Add, Value::Date(day)) => {
            Value::Local(shift(midnight(day), signed(interval, is_minus)?)?)
        }
        (Value::Local(micros), Add | Subtract, Value::Interval(interval))
        | (Value::Interval(interval), Add, Value::Local(micros)) => {
            Value::Local(shift(micros, signed(interval, is_minus)?)?)
        }
        (Value::Moment(micros), Add | Subtract, Value::Interval(interval))
        | (Value::Interval(interval), Add, Value::Moment(micros)) => {
            Value::Moment(shift_in(micros, signed(interval, is_minus)?, zone)?)
        }
        (Value::Local(_) | Value::Moment(_) | Value::Date(_), Subtract, _) => {
            Value::Interval(between(instant(left, right, zone)?, instant(right, left, zone)?)?)
        }
        (Value::Time(one), Subtract, Value::Time(other)) => Value::Interval(of_micros(0, 0, one - other)?),
        (Value::Time(time), Add | Subtract, Value::Interval(interval))
        | (Value::Interval(interval), Add, Value::Time(time)) => {
            let by = signed(interval, is_minus)?.nanoseconds / 1_000;
            Value::Time((time + by % DAY).rem_euclid(DAY))
        }
        (Value::Interval(one), Add | Subtract, Value::Interval(other)) => {
            Value::Interval(sum(one, signed(other, is_minus)?)?)
        }
        (Value::Interval(interval), Multiply, number) | (number, Multiply, Value::Interval(interval)) => {
            Value::Interval(multiply(interval, double(number)?)?)
        }
        (Value::Interval(interval), Divide, number) => Value::Interval(divide(interval, double(number)?)?),
        _ => return exec_err!("no such operator"),
    })
}

fn double(value: Value) -> Result<f64> {
    match value {
        Value::Number(number) => Ok(number),
        Value::Integer(number) => Ok(f64::from(number)),
        other => exec_err!("{other:?} is no number"),
    }
}

/// Microseconds of a value that is taken from, or from which is taken, `other`: of a zone's clock
/// if that has no zone.
fn instant(value: Value, other: Value, zone: &Tz) -> Result<i64> {
    let local = match value {
        Value::Moment(micros) => return Ok(micros),
        Value::Local(micros) => micros,
        Value::Date(day) => i64::from(day) * DAY,
        other => return exec_err!("{other:?} is no moment"),
    };
    if matches!(other, Value::Moment(_)) { to_utc(zone, local) } else { Ok(local) }
}

/// The interval between two moments: days and the rest of a day.
fn between(one: i64, other: i64) -> Result<IntervalMonthDayNano> {
    let micros = one.checked_sub(other).ok_or_else(|| out_of_range("interval"))?;
    of_micros(0, micros / DAY, micros % DAY)
}

/// An interval, if it can be one.
pub(super) fn of_micros(months: i64, days: i64, micros: i64) -> Result<IntervalMonthDayNano> {
    let parts = (i32::try_from(months), i32::try_from(days), micros.checked_mul(1_000));
    let (Ok(months), Ok(days), Some(nanoseconds)) = parts else { return Err(out_of_range("interval")) };
    Ok(IntervalMonthDayNano { months, days, nanoseconds })
}

/// The interval, or its negative.
pub(super) fn signed(interval: IntervalMonthDayNano, is_minus: bool) -> Result<IntervalMonthDayNano> {
    if !is_minus {
        return Ok(interval);
    }
    let negative = (interval.months.checked_neg(), interval.days.checked_neg(), interval.nanoseconds.checked_neg());
    let (Some(months), Some(days), Some(nanoseconds)) = negative else { return Err(out_of_range("interval")) };
    Ok(IntervalMonthDayNano { months, days, nanoseconds })
}

/// The sum of two intervals, part by part.
pub(super) fn sum(one: IntervalMonthDayNano, other: IntervalMonthDayNano) -> Result<IntervalMonthDayNano> {
    let months = one.months.checked_add(other.months);
    let days = one.days.checked_add(other.days);
    let nanoseconds = one.nanoseconds.checked_add(other.nanoseconds);
    let (Some(months), Some(days), Some(nanoseconds)) = (months, days, nanoseconds) else {
        return Err(out_of_range("interval"));
    };
    Ok(IntervalMonthDayNano { months, days, nanoseconds })
}

fn shift(local: i64, by: IntervalMonthDayNano) -> Result<i64> {
    let micros = add_months(local, by.months)
        .and_then(|micros| micros.checked_add(i64::from(by.days).checked_mul(DAY)?))
        .and_then(|micros| micros.checked_add(by.nanoseconds / 1_000));
    moment(micros)
}

/// Months and days are of the zone's calendar; hours are hours.
fn shift_in(utc: i64, by: IntervalMonthDayNano, zone: &Tz) -> Result<i64> {
    let moved = if by.months != 0 || by.days != 0 {
        let local = shift(to_local(zone, utc)?, IntervalMonthDayNano { nanoseconds: 0, ..by })?;
        to_utc(zone, local)?
    } else {
        utc
    };
    moment(moved.checked_add(by.nanoseconds / 1_000))
}

/// To a millionth, as PostgreSQL rounds what is left of a part.
fn to_millionth(value: f64) -> f64 {
    (value * 1e6).round_ties_even() / 1e6
}

/// The whole months and days of parts, and what is left in seconds, as PostgreSQL divides what is
/// left of each part.
fn cascade(months: f64, days: f64, micros: f64) -> Result<IntervalMonthDayNano> {
    const SECONDS_OF_DAY: f64 = 86_400.0;
    let (whole_months, mut whole_days) = (months.trunc(), days.trunc());
    let mut month_rest_days = to_millionth((months - whole_months) * 30.0);
    let mut seconds = to_millionth((days - whole_days + month_rest_days - month_rest_days.trunc()) * SECONDS_OF_DAY);
    month_rest_days = month_rest_days.trunc();
    if seconds.abs() >= SECONDS_OF_DAY {
        whole_days += (seconds / SECONDS_OF_DAY).trunc();
        seconds -= (seconds / SECONDS_OF_DAY).trunc() * SECONDS_OF_DAY;
    }
    whole_days += month_rest_days;
    let micros = (micros + seconds * 1e6).round_ties_even();
    let bounded = |value: f64, bound: f64| (value.abs() < bound).then_some(value as i64);
    let parts = (bounded(whole_months, 2e9), bounded(whole_days, 2e9), bounded(micros, 9.2e15));
    let (Some(months), Some(days), Some(micros)) = parts else { return Err(out_of_range("interval")) };
    of_micros(months, days, micros)
}

fn multiply(interval: IntervalMonthDayNano, by: f64) -> Result<IntervalMonthDayNano> {
    let micros = (interval.nanoseconds / 1_000) as f64;
    cascade(f64::from(interval.months) * by, f64::from(interval.days) * by, micros * by)
}

fn divide(interval: IntervalMonthDayNano, by: f64) -> Result<IntervalMonthDayNano> {
    if by == 0.0 {
        return exec_err!("division by zero");
    }
    let micros = (interval.nanoseconds / 1_000) as f64;
    cascade(f64::from(interval.months) / by, f64::from(interval.days) / by, micros / by)
}
