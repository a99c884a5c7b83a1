//! One column of a batch, ready to be written value by value.

use arrow_array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, Decimal256Array, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, IntervalDayTimeArray, IntervalMonthDayNanoArray, IntervalYearMonthArray,
    cast::AsArray as _,
    types::{Date32Type, Date64Type, Int32Type, Int64Type},
};
use arrow_buffer::NullBuffer;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, IntervalUnit, TimeUnit};
use bytes::{BufMut, BytesMut};

use super::{
    ValueError,
    datetime::{self, EPOCH_DAYS, EPOCH_MICROS},
    interval::Interval,
    list::List,
    number::{Decimal, put_float},
    quote::quote_field,
    strings::{Strings, char_of, put_hex},
    text::put_integer,
    types::{is_char, oid_alias, pg_type, vector},
    vector::Vector,
    zone::Zone,
};

/// A column and the type it is sent as.
pub(super) struct Column {
    oid: u32,
    nulls: Option<NullBuffer>,
    values: Values,
}

enum Values {
    /// Every value is NULL.
    Null,
    Bool(BooleanArray),
    Int16(Int16Array),
    Int32(Int32Array),
    Int64(Int64Array),
    /// A number of the catalogue, which has no sign.
    Oid(Int64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Decimal128(Decimal128Array, i8),
    Decimal256(Decimal256Array, i8),
    Text(Strings),
    Char(Strings),
    Vector(Vector),
    Bytea(Strings),
    /// Days since 1970-01-01.
    Date(Int64Array),
    Time(Int64Array, TimeUnit),
    Timestamp {
        values: Int64Array,
        unit: TimeUnit,
        is_zoned: bool,
    },
    Duration(Int64Array, TimeUnit),
    Months(IntervalYearMonthArray),
    DayTime(IntervalDayTimeArray),
    MonthDayNano(IntervalMonthDayNanoArray),
    /// For each row the place of its value.
    Dictionary(Vec<usize>, Box<Column>),
    List(List),
    Record(Vec<Column>),
}

impl Column {
    pub(super) fn new(field: &Field, array: &ArrayRef) -> Result<Self, ValueError> {
        let oid = pg_type(field)?.oid();
        Ok(Self { oid, nulls: array.logical_nulls(), values: Values::new(field, array)? })
    }

    pub(super) fn oid(&self) -> u32 {
        self.oid
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    pub(super) fn as_list(&self) -> Option<&List> {
        match &self.values {
            Values::List(list) => Some(list),
            _ => None,
        }
    }

    /// Writes the text of a value that is not NULL.
    pub(super) fn put_text(&self, row: usize, zone: &Zone, out: &mut BytesMut) -> Result<(), ValueError> {
        match &self.values {
            Values::Null => {}
            Values::Bool(array) => out.put_u8(if array.value(row) { b't' } else { b'f' }),
            Values::Int16(array) => put_integer(out, array.value(row).into()),
            Values::Int32(array) => put_integer(out, array.value(row).into()),
            Values::Int64(array) | Values::Oid(array) => put_integer(out, array.value(row)),
            Values::Float32(array) => put_float(out, array.value(row)),
            Values::Float64(array) => put_float(out, array.value(row)),
            Values::Decimal128(array, scale) => Decimal::new(array.value(row), *scale).put_text(out),
            Values::Decimal256(array, scale) => Decimal::wide(array.value(row), *scale).put_text(out),
            Values::Text(bytes) => out.put_slice(bytes.get(row)),
            Values::Char(bytes) => out.put_slice(char_of(bytes.get(row))),
            Values::Vector(vector) => out.put_slice(vector.text(row)),
            Values::Bytea(bytes) => put_hex(out, bytes.get(row)),
            Values::Date(array) => datetime::put_date(out, array.value(row)),
            Values::Time(array, unit) => datetime::put_time(out, time(array.value(row), *unit)?),
            Values::Timestamp { values, unit, is_zoned } => {
                let micros = timestamp(values.value(row), *unit)?;
                datetime::put_timestamp(out, micros, is_zoned.then_some(zone))?;
            }
            Values::Duration(..) | Values::Months(_) | Values::DayTime(_) | Values::MonthDayNano(_) => {
                self.interval(row)?.put_text(out);
            }
            Values::Dictionary(places, values) => values.put_text(places[row], zone, out)?,
            Values::List(list) => list.put_text(row, zone, out)?,
            Values::Record(fields) => put_record_text(fields, row, zone, out)?,
        }
        Ok(())
    }

    /// Writes the binary form of a value that is not NULL.
    pub(super) fn put_binary(&self, row: usize, out: &mut BytesMut) -> Result<(), ValueError> {
        match &self.values {
            Values::Null => {}
            Values::Bool(array) => out.put_u8(array.value(row).into()),
            Values::Int16(array) => out.put_i16(array.value(row)),
            Values::Int32(array) => out.put_i32(array.value(row)),
            Values::Int64(array) => out.put_i64(array.value(row)),
            Values::Oid(array) => {
                out.put_u32(u32::try_from(array.value(row)).map_err(|_| ValueError::new("22003", "OID out of range"))?)
            }
            Values::Float32(array) => out.put_f32(array.value(row)),
            Values::Float64(array) => out.put_f64(array.value(row)),
            Values::Decimal128(array, scale) => Decimal::new(array.value(row), *scale).put_binary(out),
            Values::Decimal256(array, scale) => Decimal::wide(array.value(row), *scale).put_binary(out),
            Values::Text(bytes) | Values::Bytea(bytes) => out.put_slice(bytes.get(row)),
            Values::Char(bytes) => out.put_u8(bytes.get(row).first().copied().unwrap_or(0)),
            Values::Vector(vector) => vector.put_binary(row, out)?,
            Values::Date(array) => {
                out.put_i32(i32::try_from(array.value(row) - EPOCH_DAYS).map_err(|_| ValueError::out_of_range("date"))?)
            }
            Values::Time(array, unit) => out.put_i64(time(array.value(row), *unit)?),
            Values::Timestamp { values, unit, .. } => {
                let micros = timestamp(values.value(row), *unit)?;
                let micros = micros.checked_sub(EPOCH_MICROS);
                out.put_i64(micros.ok_or_else(|| ValueError::out_of_range("timestamp"))?);
            }
            Values::Duration(..) | Values::Months(_) | Values::DayTime(_) | Values::MonthDayNano(_) => {
                self.interval(row)?.put_binary(out);
            }
            Values::Dictionary(places, values) => values.put_binary(places[row], out)?,
            Values::List(list) => list.put_binary(row, out)?,
            Values::Record(fields) => put_record_binary(fields, row, out)?,
        }
        Ok(())
    }

    fn interval(&self, row: usize) -> Result<Interval, ValueError> {
        Ok(match &self.values {
            Values::Months(array) => Interval::of_months(array.value(row)),
            Values::DayTime(array) => array.value(row).into(),
            Values::MonthDayNano(array) => array.value(row).into(),
            Values::Duration(array, unit) => {
                let micros = datetime::micros(array.value(row), *unit);
                Interval::of_duration(micros.ok_or_else(|| ValueError::out_of_range("interval"))?)
            }
            _ => return Err(ValueError::new("XX000", "not an interval")),
        })
    }
}

impl Values {
    fn new(field: &Field, array: &ArrayRef) -> Result<Self, ValueError> {
        if oid_alias(field).is_some() {
            // Arrow's signed numbers stand for the unsigned ones with the same bits.
            let unsigned = match array.data_type() {
                DataType::Int32 => {
                    let unsigned = array.as_primitive::<Int32Type>();
                    Ok(unsigned.unary::<_, Int64Type>(|value| value.cast_unsigned().into()))
                }
                _ => cast(array, &DataType::Int64).map(|array| array.as_primitive().clone()),
            };
            return unsigned.map(Self::Oid);
        }
        if is_char(field) {
            return Strings::new(array).map(Self::Char);
        }
        if let Some(kind) = vector(field) {
            return Vector::new(array, &kind).map(Self::Vector);
        }
        Ok(match array.data_type() {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Bool(array.as_boolean().clone()),
            DataType::Int16 => Self::Int16(array.as_primitive().clone()),
            DataType::Int8 | DataType::UInt8 => Self::Int16(cast(array, &DataType::Int16)?.as_primitive().clone()),
            DataType::Int32 => Self::Int32(array.as_primitive().clone()),
            DataType::UInt16 => Self::Int32(cast(array, &DataType::Int32)?.as_primitive().clone()),
            DataType::Int64 => Self::Int64(array.as_primitive().clone()),
            DataType::UInt32 => Self::Int64(cast(array, &DataType::Int64)?.as_primitive().clone()),
            DataType::Float32 => Self::Float32(array.as_primitive().clone()),
            DataType::Float16 => Self::Float32(cast(array, &DataType::Float32)?.as_primitive().clone()),
            DataType::Float64 => Self::Float64(array.as_primitive().clone()),
            DataType::UInt64 => Self::decimal(array, 20, 0)?,
            DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
                Self::decimal(array, *precision, *scale)?
            }
            DataType::Decimal128(_, scale) => Self::Decimal128(array.as_primitive().clone(), *scale),
            DataType::Decimal256(_, scale) => Self::Decimal256(array.as_primitive().clone(), *scale),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text(Strings::new(array)?),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Bytea(Strings::new(array)?)
            }
            DataType::Struct(fields) => {
                let columns = array.as_struct().columns();
                let fields = fields.iter().zip(columns);
                Self::Record(fields.map(|(field, array)| Column::new(field, array)).collect::<Result<_, _>>()?)
            }
            DataType::Dictionary(_, value) => {
                let dictionary = array.as_any_dictionary();
                if dictionary.values().is_empty() {
                    return Ok(Self::Null);
                }
                let value = Field::new("", value.as_ref().clone(), true);
                let values = Column::new(&value, dictionary.values())?;
                Self::Dictionary(dictionary.normalized_keys(), Box::new(values))
            }
            DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(..)
            | DataType::ListView(_)
            | DataType::LargeListView(_) => Self::List(List::new(array)?),
            _ => Self::of_time(array)?,
        })
    }

    fn decimal(array: &ArrayRef, precision: u8, scale: i8) -> Result<Self, ValueError> {
        let wide = cast(array, &DataType::Decimal128(precision, scale))?;
        Ok(Self::Decimal128(wide.as_primitive().clone(), scale))
    }

    fn of_time(array: &ArrayRef) -> Result<Self, ValueError> {
        let numbers = |through: &DataType| -> Result<Int64Array, ValueError> {
            Ok(cast(&cast(array, through)?, &DataType::Int64)?.as_primitive().clone())
        };
        Ok(match array.data_type() {
            DataType::Date32 => Self::Date(array.as_primitive::<Date32Type>().unary(i64::from)),
            DataType::Date64 => {
                let days = |millis: i64| millis.div_euclid(datetime::DAY_SECONDS * 1000);
                Self::Date(array.as_primitive::<Date64Type>().unary(days))
            }
            DataType::Time32(_) => {
                Self::Time(numbers(&DataType::Time64(TimeUnit::Microsecond))?, TimeUnit::Microsecond)
            }
            whole @ DataType::Time64(unit) => Self::Time(numbers(whole)?, *unit),
            whole @ DataType::Timestamp(unit, zone) => {
                Self::Timestamp { values: numbers(whole)?, unit: *unit, is_zoned: zone.is_some() }
            }
            whole @ DataType::Duration(unit) => Self::Duration(numbers(whole)?, *unit),
            DataType::Interval(IntervalUnit::YearMonth) => Self::Months(array.as_primitive().clone()),
            DataType::Interval(IntervalUnit::DayTime) => Self::DayTime(array.as_primitive().clone()),
            DataType::Interval(IntervalUnit::MonthDayNano) => Self::MonthDayNano(array.as_primitive().clone()),
            other => return Err(ValueError::unsupported(format!("{other} has no PostgreSQL type"))),
        })
    }
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ValueError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &options).map_err(|error| ValueError::new("22003", error.to_string()))
}

fn time(value: i64, unit: TimeUnit) -> Result<i64, ValueError> {
    datetime::micros(value, unit)
        .filter(|micros| (0..=datetime::DAY_MICROS).contains(micros))
        .ok_or_else(|| ValueError::out_of_range("time"))
}

fn timestamp(value: i64, unit: TimeUnit) -> Result<i64, ValueError> {
    datetime::micros(value, unit).ok_or_else(|| ValueError::out_of_range("timestamp"))
}

fn put_record_text(fields: &[Column], row: usize, zone: &Zone, out: &mut BytesMut) -> Result<(), ValueError> {
    out.put_u8(b'(');
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        if !field.is_null(row) {
            let start = out.len();
            field.put_text(row, zone, out)?;
            quote_field(out, start);
        }
    }
    out.put_u8(b')');
    Ok(())
}

fn put_record_binary(fields: &[Column], row: usize, out: &mut BytesMut) -> Result<(), ValueError> {
    out.put_i32(i32::try_from(fields.len()).unwrap_or(i32::MAX));
    for field in fields {
        out.put_u32(field.oid);
        put_sized(out, |out| if field.is_null(row) { Ok(false) } else { field.put_binary(row, out).map(|()| true) })?;
    }
    Ok(())
}

/// Writes a value behind its length, or the length -1 if there is none.
pub(super) fn put_sized(
    out: &mut BytesMut,
    put: impl FnOnce(&mut BytesMut) -> Result<bool, ValueError>,
) -> Result<(), ValueError> {
    let start = out.len();
    out.put_i32(-1);
    if put(out)? {
        let len = i32::try_from(out.len() - start - 4)
            .map_err(|_| ValueError::new("54000", "a value of more than 2 GiB cannot be sent"))?;
        out[start..start + 4].copy_from_slice(&len.to_be_bytes());
    }
    Ok(())
}
