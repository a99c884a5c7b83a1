//! What a function takes and gives: PostgreSQL's types, and one value of them.

use std::borrow::Cow;

use datafusion::{
    arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit},
    common::{DataFusionError, Result, exec_err},
};

/// One of PostgreSQL's types, as far as functions tell them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A bare NULL.
    Null,
    Bool,
    Int2,
    Int4,
    Int8,
    Numeric,
    Float4,
    Float8,
    Text,
    Bytes,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    List(Box<Kind>),
    /// What PostgreSQL has no type for.
    Other,
}

impl Kind {
    pub(super) fn of(kind: &DataType) -> Self {
        match kind {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Bool,
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => Self::Int2,
            DataType::UInt16 | DataType::Int32 => Self::Int4,
            DataType::UInt32 | DataType::Int64 | DataType::UInt64 => Self::Int8,
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
                Self::Numeric
            }
            DataType::Float16 | DataType::Float32 => Self::Float4,
            DataType::Float64 => Self::Float8,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Bytes
            }
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::Time32(_) | DataType::Time64(_) => Self::Time,
            DataType::Timestamp(_, None) => Self::Timestamp,
            DataType::Timestamp(_, Some(_)) => Self::Timestamptz,
            DataType::Interval(_) | DataType::Duration(_) => Self::Interval,
            DataType::List(of) | DataType::LargeList(of) | DataType::FixedSizeList(of, _) | DataType::ListView(of) => {
                Self::List(Box::new(Self::of(of.data_type())))
            }
            DataType::Dictionary(_, of) => Self::of(of),
            _ => Self::Other,
        }
    }

    /// The form in which a function gives a value of it.
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Self::Null => DataType::Null,
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 => DataType::Int64,
            Self::Numeric => DataType::Decimal128(38, 10),
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Text | Self::Other => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Self::List(of) => DataType::List(Field::new_list_field(of.data_type(), true).into()),
        }
    }

    /// PostgreSQL's name of it.
    pub(super) fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Null => "unknown",
            Self::Bool => "boolean",
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Numeric => "numeric",
            Self::Float4 => "real",
            Self::Float8 => "double precision",
            Self::Text => "text",
            Self::Bytes => "bytea",
            Self::Date => "date",
            Self::Time => "time without time zone",
            Self::Timestamp => "timestamp without time zone",
            Self::Timestamptz => "timestamp with time zone",
            Self::Interval => "interval",
            Self::List(of) => return Cow::Owned(format!("{}[]", of.name().trim_end_matches("[]"))),
            Self::Other => "record",
        })
    }

    /// How far this type is from one that a function takes: 0 if it is that, none if it does not
    /// become that by itself.
    pub(super) fn distance(&self, taken: &Kind) -> Option<u32> {
        use Kind::{
            Date, Float4, Float8, Int2, Int4, Int8, Interval, List, Null, Numeric, Other, Text, Time, Timestamp,
            Timestamptz,
        };
        if self == taken {
            return Some(0);
        }
        Some(match (self, taken) {
            // The anything of `any` and `anyelement`.
            (_, Other) => 1,
            (Null, _) => 1,
            (Int2, Int4) | (Int4, Int8) => 1,
            // Integers here are wider than their literals would be there.
            (Int8, Int4) => 1,
            (Int2, Int8) => 2,
            // A double is what PostgreSQL prefers of numbers.
            (Int2 | Int4 | Int8, Float8) => 4,
            (Int2 | Int4 | Int8, Numeric) => 5,
            (Int2 | Int4 | Int8, Float4) => 6,
            (Numeric | Float4, Float8) => 2,
            (Date, Timestamptz) => 2,
            (Date, Timestamp) => 3,
            (Timestamp, Timestamptz) => 2,
            (Time, Interval) => 3,
            (List(_), List(of)) if **of == Other => 1,
            (List(this), List(of)) => this.distance(of)? + 1,
            // A text may be a literal that has no type yet.
            (Text, _) => 20,
            _ => return None,
        })
    }
}

/// An exact number: `unscaled` divided by ten to the power of `scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) unscaled: i128,
    pub(super) scale: u32,
}

/// A span of time as PostgreSQL keeps it: a month has no days, and a day no hours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) months: i32,
    pub(super) days: i32,
    pub(super) micros: i64,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Numeric(Decimal),
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// Days since 1970.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 1970 on a clock somewhere.
    Timestamp(i64),
    /// Microseconds since 1970 in UTC.
    Timestamptz(i64),
    Interval(Interval),
    List(Vec<Value<'a>>),
}

pub(super) fn text<'a>(text: impl Into<Cow<'a, str>>) -> Value<'a> {
    Value::Text(text.into())
}

/// A value that a function's form does not provide for; forms are checked before.
fn unfit<T>(value: &Value<'_>, wanted: &str) -> Result<T> {
    exec_err!("expected {wanted}, found {value:?}")
}

impl Value<'_> {
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub(super) fn int(&self) -> Result<i64> {
        if let Self::Int(value) = self { Ok(*value) } else { unfit(self, "an integer") }
    }

    pub(super) fn float(&self) -> Result<f64> {
        if let Self::Float(value) = self { Ok(*value) } else { unfit(self, "a double") }
    }

    pub(super) fn numeric(&self) -> Result<Decimal> {
        if let Self::Numeric(value) = self { Ok(*value) } else { unfit(self, "a numeric") }
    }

    pub(super) fn str(&self) -> Result<&str> {
        if let Self::Text(value) = self { Ok(value) } else { unfit(self, "a text") }
    }

    pub(super) fn bytes(&self) -> Result<&[u8]> {
        if let Self::Bytes(value) = self { Ok(value) } else { unfit(self, "bytes") }
    }

    pub(super) fn list(&self) -> Result<&[Self]> {
        if let Self::List(value) = self { Ok(value) } else { unfit(self, "an array") }
    }

    /// A date's days, or any time's microseconds.
    pub(super) fn instant(&self) -> Result<i64> {
        match self {
            Self::Date(days) => Ok(i64::from(*days)),
            Self::Time(micros) | Self::Timestamp(micros) | Self::Timestamptz(micros) => Ok(*micros),
            _ => unfit(self, "a time"),
        }
    }

    pub(super) fn interval(&self) -> Result<Interval> {
        if let Self::Interval(value) = self { Ok(*value) } else { unfit(self, "an interval") }
    }

    pub(super) fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Numeric(value) => Value::Numeric(value),
            Self::Float(value) => Value::Float(value),
            Self::Text(value) => Value::Text(Cow::Owned(value.into_owned())),
            Self::Bytes(value) => Value::Bytes(Cow::Owned(value.into_owned())),
            Self::Date(value) => Value::Date(value),
            Self::Time(value) => Value::Time(value),
            Self::Timestamp(value) => Value::Timestamp(value),
            Self::Timestamptz(value) => Value::Timestamptz(value),
            Self::Interval(value) => Value::Interval(value),
            Self::List(values) => Value::List(values.into_iter().map(Value::into_owned).collect()),
        }
    }

    /// How many bytes it takes, roughly.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Text(value) => value.len(),
            Self::Bytes(value) => value.len(),
            Self::List(values) => values.iter().map(|value| value.size().max(8)).sum(),
            _ => 8,
        }
    }
}

impl Decimal {
    pub(super) fn new(unscaled: i128, scale: u32) -> Self {
        Self { unscaled, scale }
    }

    /// The same number with another scale; half is rounded away from zero.
    pub(super) fn rescaled(self, scale: u32) -> Result<Self> {
        if scale >= self.scale {
            let factor = power_of_ten(scale - self.scale)?;
            let unscaled = self.unscaled.checked_mul(factor).ok_or_else(too_large)?;
            return Ok(Self { unscaled, scale });
        }
        if self.scale - scale > 38 {
            return Ok(Self { unscaled: 0, scale });
        }
        let factor = power_of_ten(self.scale - scale)?;
        let (whole, rest) = (self.unscaled / factor, self.unscaled % factor);
        let up = i128::from(rest.unsigned_abs() * 2 >= factor.unsigned_abs()) * rest.signum();
        Ok(Self { unscaled: whole + up, scale })
    }

    /// Cut off behind `scale` digits.
    pub(super) fn truncated(self, scale: u32) -> Result<Self> {
        if scale >= self.scale {
            return self.rescaled(scale);
        }
        let unscaled = if self.scale - scale > 38 { 0 } else { self.unscaled / power_of_ten(self.scale - scale)? };
        Ok(Self { unscaled, scale })
    }

    pub(super) fn float(self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (sign, digits) = match mantissa.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let all = format!("{whole}{part}");
        if all.is_empty() || !all.bytes().all(|letter| letter.is_ascii_digit()) {
            return None;
        }
        let unscaled: i128 = all.parse().ok()?;
        let scale = i32::try_from(part.len()).ok()? - exponent;
        if scale >= 0 {
            return Some(Self { unscaled: sign * unscaled, scale: scale.unsigned_abs() });
        }
        let unscaled = unscaled.checked_mul(power_of_ten(scale.unsigned_abs()).ok()?)?;
        Some(Self { unscaled: sign * unscaled, scale: 0 })
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = self.unscaled.unsigned_abs().to_string();
        let scale = self.scale as usize;
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, part) = digits.split_at(digits.len() - scale);
        let sign = if self.unscaled < 0 { "-" } else { "" };
        if scale == 0 { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{part}") }
    }
}

pub(super) fn power_of_ten(exponent: u32) -> Result<i128> {
    10i128.checked_pow(exponent).ok_or_else(too_large)
}

pub(super) fn too_large() -> DataFusionError {
    DataFusionError::Execution("value overflows numeric format".to_owned())
}
