//! Between Arrow's columns and values.

use std::{borrow::Cow, sync::Arc};

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
            Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, StringArray,
            Time64MicrosecondArray, TimestampMicrosecondArray, new_null_array,
        },
        buffer::{NullBuffer, OffsetBuffer},
        compute::cast,
        datatypes::{
            DataType, Date32Type, Decimal128Type, Decimal256Type, Float64Type, Int64Type, IntervalMonthDayNano,
            IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
        },
    },
    common::{Result, exec_err},
};

use super::{
    parse,
    value::{Decimal, Interval, Kind, Value, too_large},
    zone::Zone,
};

/// A column whose values can be read one by one.
pub(super) struct Column {
    array: ArrayRef,
    reader: Reader,
}

enum Reader {
    Nothing,
    Bool,
    Int,
    Numeric(u32),
    Wide(u32),
    Float,
    Text,
    Bytes,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Duration,
    List,
}

impl Column {
    pub(super) fn new(array: &ArrayRef) -> Result<Self> {
        let kind = array.data_type();
        let micros = TimeUnit::Microsecond;
        let (to, reader) = match Kind::of(kind) {
            Kind::Null => (None, Reader::Nothing),
            Kind::Bool => (Some(DataType::Boolean), Reader::Bool),
            Kind::Int2 | Kind::Int4 | Kind::Int8 => (Some(DataType::Int64), Reader::Int),
            Kind::Numeric => match unwrapped(kind) {
                DataType::Decimal256(precision, scale) => {
                    (Some(DataType::Decimal256(*precision, *scale)), Reader::Wide(scale_of(*scale)))
                }
                DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
                    (Some(DataType::Decimal128(38, (*scale).max(0))), Reader::Numeric(scale_of(*scale)))
                }
                _ => (None, Reader::Nothing),
            },
            Kind::Float4 | Kind::Float8 => (Some(DataType::Float64), Reader::Float),
            Kind::Text => (Some(DataType::Utf8), Reader::Text),
            Kind::Bytes => (Some(DataType::Binary), Reader::Bytes),
            Kind::Date => (Some(DataType::Date32), Reader::Date),
            Kind::Time => (Some(DataType::Time64(micros)), Reader::Time),
            Kind::Timestamp => (Some(DataType::Timestamp(micros, None)), Reader::Timestamp),
            Kind::Timestamptz => (Some(DataType::Timestamp(micros, Some("UTC".into()))), Reader::Timestamptz),
            Kind::Interval => match unwrapped(kind) {
                DataType::Duration(_) => (Some(DataType::Duration(micros)), Reader::Duration),
                _ => (Some(DataType::Interval(IntervalUnit::MonthDayNano)), Reader::Interval),
            },
            Kind::List(_) => {
                let field = match unwrapped(kind) {
                    DataType::List(of)
                    | DataType::LargeList(of)
                    | DataType::FixedSizeList(of, _)
                    | DataType::ListView(of) => of.clone(),
                    _ => return exec_err!("no array can be read from {kind}"),
                };
                (Some(DataType::List(field)), Reader::List)
            }
            Kind::Other => return exec_err!("PostgreSQL has no type for {kind}"),
        };
        let array = match to {
            Some(to) if &to != kind => cast(array, &to)?,
            _ => array.clone(),
        };
        // A zone that is UTC by another name changes nothing of the value.
        Ok(Self { array, reader })
    }

    pub(super) fn value(&self, row: usize) -> Result<Value<'_>> {
        let array = &self.array;
        if array.is_null(row) {
            return Ok(Value::Null);
        }
        Ok(match &self.reader {
            Reader::Nothing => Value::Null,
            Reader::Bool => Value::Bool(array.as_boolean().value(row)),
            Reader::Int => Value::Int(array.as_primitive::<Int64Type>().value(row)),
            Reader::Numeric(scale) => {
                Value::Numeric(Decimal::new(array.as_primitive::<Decimal128Type>().value(row), *scale))
            }
            Reader::Wide(scale) => {
                let wide = array.as_primitive::<Decimal256Type>().value(row);
                Value::Numeric(Decimal::new(wide.to_i128().ok_or_else(too_large)?, *scale))
            }
            Reader::Float => Value::Float(array.as_primitive::<Float64Type>().value(row)),
            Reader::Text => Value::Text(Cow::Borrowed(array.as_string::<i32>().value(row))),
            Reader::Bytes => Value::Bytes(Cow::Borrowed(array.as_binary::<i32>().value(row))),
            Reader::Date => Value::Date(array.as_primitive::<Date32Type>().value(row)),
            Reader::Time => Value::Time(array.as_primitive::<Time64MicrosecondType>().value(row)),
            Reader::Timestamp => Value::Timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row)),
            Reader::Timestamptz => Value::Timestamptz(array.as_primitive::<TimestampMicrosecondType>().value(row)),
            Reader::Interval => {
                let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
                let micros = value.nanoseconds / 1000;
                Value::Interval(Interval { months: value.months, days: value.days, micros })
            }
            Reader::Duration => {
                let micros = array.as_primitive::<datafusion::arrow::datatypes::DurationMicrosecondType>().value(row);
                Value::Interval(Interval::between(micros))
            }
            Reader::List => {
                let values = Self::new(&array.as_list::<i32>().value(row))?;
                let owned = (0..values.array.len()).map(|place| Ok(values.value(place)?.into_owned()));
                Value::List(owned.collect::<Result<_>>()?)
            }
        })
    }
}

fn unwrapped(kind: &DataType) -> &DataType {
    match kind {
        DataType::Dictionary(_, of) => of,
        _ => kind,
    }
}

fn scale_of(scale: i8) -> u32 {
    u32::try_from(scale).unwrap_or(0)
}

/// A value as another type, as PostgreSQL converts it where a function takes that.
pub(super) fn converted<'a>(value: Value<'a>, to: &Kind, zone: &Zone) -> Result<Value<'a>> {
    Ok(match (value, to) {
        (Value::Null, _) => Value::Null,
        (Value::Int(number), Kind::Int4) if i32::try_from(number).is_err() => {
            return exec_err!("integer out of range");
        }
        (Value::Int(number), Kind::Numeric) => Value::Numeric(Decimal::new(i128::from(number), 0)),
        (Value::Int(number), Kind::Float4 | Kind::Float8) => Value::Float(number as f64),
        (Value::Numeric(number), Kind::Float4 | Kind::Float8) => Value::Float(number.float()),
        (Value::Date(days), Kind::Timestamp) => Value::Timestamp(parse::midnight(days)),
        (Value::Date(days), Kind::Timestamptz) => Value::Timestamptz(zone.to_utc(parse::midnight(days))),
        (Value::Timestamp(micros), Kind::Timestamptz) => Value::Timestamptz(zone.to_utc(micros)),
        (Value::Time(micros), Kind::Interval) => Value::Interval(Interval { micros, ..Interval::default() }),
        (Value::Text(text), to) if !matches!(to, Kind::Text | Kind::Other) => parse::literal(&text, to, zone)?,
        (Value::List(values), Kind::List(of)) => {
            Value::List(values.into_iter().map(|value| converted(value, of, zone)).collect::<Result<_>>()?)
        }
        (value, _) => value,
    })
}

fn wrong<T>(value: &Value<'_>, kind: &DataType) -> Result<T> {
    exec_err!("{value:?} is no {kind}")
}

macro_rules! gathered {
    ($array:ty, $values:expr, $kind:expr, $($pattern:pat => $value:expr),+) => {
        Arc::new($values.iter().map(|value| Ok(match value {
            Value::Null => None,
            $($pattern => Some($value),)+
            other => return wrong(other, $kind),
        })).collect::<Result<$array>>()?) as ArrayRef
    };
}

/// A column of these values.
pub(super) fn column(values: &[Value<'_>], kind: &DataType) -> Result<ArrayRef> {
    Ok(match kind {
        DataType::Null => new_null_array(kind, values.len()),
        DataType::Boolean => gathered!(BooleanArray, values, kind, Value::Bool(value) => *value),
        DataType::Int16 => gathered!(Int16Array, values, kind, Value::Int(value) => narrow::<i16>(*value)?),
        DataType::Int32 => gathered!(Int32Array, values, kind, Value::Int(value) => narrow::<i32>(*value)?),
        DataType::Int64 => gathered!(Int64Array, values, kind, Value::Int(value) => *value),
        DataType::Float32 => gathered!(Float32Array, values, kind, Value::Float(value) => *value as f32),
        DataType::Float64 => gathered!(Float64Array, values, kind, Value::Float(value) => *value),
        DataType::Utf8 => gathered!(StringArray, values, kind, Value::Text(value) => value.as_ref()),
        DataType::Binary => gathered!(BinaryArray, values, kind, Value::Bytes(value) => value.as_ref()),
        DataType::Date32 => gathered!(Date32Array, values, kind, Value::Date(value) => *value),
        DataType::Time64(TimeUnit::Microsecond) => {
            gathered!(Time64MicrosecondArray, values, kind, Value::Time(value) => *value)
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let array = values.iter().map(|value| match value {
                Value::Null => Ok(None),
                Value::Timestamp(value) | Value::Timestamptz(value) => Ok(Some(*value)),
                other => wrong(other, kind),
            });
            Arc::new(array.collect::<Result<TimestampMicrosecondArray>>()?.with_timezone_opt(zone.clone()))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            gathered!(IntervalMonthDayNanoArray, values, kind, Value::Interval(value) => arrow_interval(*value)?)
        }
        DataType::Decimal128(precision, scale) => {
            let array = values.iter().map(|value| match value {
                Value::Null => Ok(None),
                Value::Numeric(value) => Ok(Some(value.rescaled(scale_of(*scale))?.unscaled)),
                other => wrong(other, kind),
            });
            let array = array.collect::<Result<Decimal128Array>>()?.with_precision_and_scale(*precision, *scale)?;
            array.validate_decimal_precision(*precision)?;
            Arc::new(array)
        }
        DataType::List(field) => {
            let (mut all, mut lengths, mut valid) = (Vec::new(), Vec::new(), Vec::new());
            for value in values {
                match value {
                    Value::Null => lengths.push(0),
                    Value::List(values) => {
                        lengths.push(values.len());
                        all.extend_from_slice(values);
                    }
                    other => return wrong(other, kind),
                }
                valid.push(!value.is_null());
            }
            let items = column(&all, field.data_type())?;
            let offsets = OffsetBuffer::from_lengths(lengths);
            Arc::new(ListArray::try_new(field.clone(), offsets, items, Some(NullBuffer::from(valid)))?)
        }
        _ => {
            // Forms that only a column has: made by way of the one that a function gives.
            let made = column(values, &Kind::of(kind).data_type())?;
            cast(&made, kind)?
        }
    })
}

fn narrow<T: TryFrom<i64>>(value: i64) -> Result<T> {
    T::try_from(value).or_else(|_| exec_err!("integer out of range"))
}

fn arrow_interval(value: Interval) -> Result<IntervalMonthDayNano> {
    let Some(nanoseconds) = value.micros.checked_mul(1000) else { return exec_err!("interval out of range") };
    Ok(IntervalMonthDayNano::new(value.months, value.days, nanoseconds))
}
