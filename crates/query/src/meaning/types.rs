//! What the names of PostgreSQL's types stand for.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit},
    common::{Result, plan_err},
    logical_expr::planner::TypePlanner,
    sql::sqlparser::ast::{CharacterLength, DataType as Named, ExactNumberInfo, TimezoneInfo},
};

/// The zone in which moments are kept.
pub(super) const UTC: &str = "UTC";
/// What a field says of its type beyond Arrow's.
const MORE: &str = "rollcall_type";

/// `timestamp with time zone`.
pub(super) fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
}

/// `timestamp without time zone`.
pub(super) const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
/// `time without time zone`.
pub(super) const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);
/// `interval`.
pub(super) const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
/// Stands for `numeric` until the type of what becomes one is known.
const SOME_NUMERIC: DataType = DataType::Decimal128(38, 16);

/// What a type asks of its values, beyond what Arrow's type does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) enum More {
    #[default]
    Nothing,
    /// `numeric`: as many digits behind the point as there are.
    AnyScale,
    /// `varchar(n)`: no more letters than these.
    Letters(u32),
    /// `timestamp(p)`: so many digits of a second.
    SecondDigits(u8),
    /// `uuid`.
    Uuid,
}

impl More {
    fn text(self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::AnyScale => "numeric".to_owned(),
            Self::Letters(most) => format!("letters {most}"),
            Self::SecondDigits(digits) => format!("second {digits}"),
            Self::Uuid => "uuid".to_owned(),
        }
    }

    /// What a field's type asks.
    pub(super) fn of(field: &Field) -> Self {
        let Some(text) = field.metadata().get(MORE) else { return Self::Nothing };
        match text.split_once(' ') {
            Some(("letters", most)) => most.parse().map_or(Self::Nothing, Self::Letters),
            Some(("second", digits)) => digits.parse().map_or(Self::Nothing, Self::SecondDigits),
            _ if text == "numeric" => Self::AnyScale,
            _ if text == "uuid" => Self::Uuid,
            _ => Self::Nothing,
        }
    }
}

/// Knows PostgreSQL's types; those that catalogue questions use are left to `catalogue`.
#[derive(Debug)]
pub(super) struct Types {
    pub(super) catalogue: Arc<dyn TypePlanner>,
}

impl TypePlanner for Types {
    fn plan_type_field(&self, named: &Named) -> Result<Option<FieldRef>> {
        let plain = |kind: DataType| Ok(Some(field(kind, More::Nothing)));
        match named {
            Named::Boolean | Named::Bool => plain(DataType::Boolean),
            Named::SmallInt(None) | Named::Int2(None) => plain(DataType::Int16),
            Named::Int(None) | Named::Integer(None) | Named::Int4(None) => plain(DataType::Int32),
            Named::BigInt(None) | Named::Int8(None) => plain(DataType::Int64),
            Named::Real | Named::Float4 => plain(DataType::Float32),
            Named::DoublePrecision | Named::Float8 | Named::Double(ExactNumberInfo::None) => plain(DataType::Float64),
            Named::Float(info) => match info {
                ExactNumberInfo::None | ExactNumberInfo::Precision(25..=53) => plain(DataType::Float64),
                ExactNumberInfo::Precision(1..=24) => plain(DataType::Float32),
                _ => plan_err!("precision for type float must be 1 to 53"),
            },
            Named::Numeric(info) | Named::Decimal(info) | Named::Dec(info) => numeric(info).map(Some),
            Named::Text => plain(DataType::Utf8),
            Named::Varchar(length) | Named::CharacterVarying(length) | Named::CharVarying(length) => {
                letters(length).map(Some)
            }
            Named::Char(length) | Named::Character(length) => match length {
                None | Some(CharacterLength::IntegerLength { length: 1, unit: None }) => {
                    Ok(Some(field(DataType::Utf8, More::Letters(1))))
                }
                _ => plan_err!("type character(n) is not supported here; use varchar(n) or text"),
            },
            Named::Timestamp(digits, zone) => {
                let kind = match zone {
                    TimezoneInfo::Tz | TimezoneInfo::WithTimeZone => timestamptz(),
                    TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => TIMESTAMP,
                };
                of_digits(kind, *digits).map(Some)
            }
            Named::Date => plain(DataType::Date32),
            Named::Time(digits, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                of_digits(TIME, *digits).map(Some)
            }
            Named::Time(..) => plan_err!("type time with time zone is not supported here"),
            Named::Bytea => plain(DataType::Binary),
            Named::Interval { fields: None, precision: None } => plain(INTERVAL),
            Named::Interval { .. } => plan_err!("an interval type with fields or a precision is not supported here"),
            Named::Uuid => Ok(Some(field(DataType::Utf8, More::Uuid))),
            Named::Custom(name, arguments) if arguments.is_empty() => {
                match name.to_string().trim_matches('"').to_ascii_lowercase().as_str() {
                    "bpchar" => plain(DataType::Utf8),
                    _ => self.catalogue.plan_type_field(named),
                }
            }
            _ => self.catalogue.plan_type_field(named),
        }
    }
}

fn field(kind: DataType, more: More) -> FieldRef {
    let field = Field::new("", kind, true);
    if more == More::Nothing {
        return Arc::new(field);
    }
    Arc::new(field.with_metadata(HashMap::from([(MORE.to_owned(), more.text())])))
}

fn numeric(info: &ExactNumberInfo) -> Result<FieldRef> {
    let (digits, scale) = match *info {
        ExactNumberInfo::None => return Ok(field(SOME_NUMERIC, More::AnyScale)),
        ExactNumberInfo::Precision(digits) => (digits, 0),
        ExactNumberInfo::PrecisionAndScale(digits, scale) => (digits, scale),
    };
    match (u8::try_from(digits), i8::try_from(scale)) {
        (Ok(1..=38), Ok(0..)) if scale.unsigned_abs() <= digits => {
            Ok(field(DataType::Decimal128(digits as u8, scale as i8), More::Nothing))
        }
        (Ok(1..=38), _) => plan_err!("numeric scale must be between 0 and its precision here: {scale}"),
        _ => plan_err!("numeric precision must be between 1 and 38 here: {digits}"),
    }
}

fn letters(length: &Option<CharacterLength>) -> Result<FieldRef> {
    match length {
        None => Ok(field(DataType::Utf8, More::Nothing)),
        Some(CharacterLength::IntegerLength { length, unit: None }) => match u32::try_from(*length) {
            Ok(0) => plan_err!("length for type varchar must be at least 1"),
            Ok(length) if length <= 10_485_760 => Ok(field(DataType::Utf8, More::Letters(length))),
            _ => plan_err!("length for type varchar cannot exceed 10485760"),
        },
        Some(other) => plan_err!("varchar({other}) is not supported"),
    }
}

fn of_digits(kind: DataType, digits: Option<u64>) -> Result<FieldRef> {
    match digits {
        None | Some(6..) => Ok(field(kind, More::Nothing)),
        Some(digits) => Ok(field(kind, More::SecondDigits(digits as u8))),
    }
}

/// PostgreSQL's name of a type.
pub(super) fn name(kind: &DataType) -> &'static str {
    match kind {
        DataType::Null => "unknown",
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => "smallint",
        DataType::UInt16 | DataType::Int32 => "integer",
        DataType::UInt32 | DataType::Int64 | DataType::UInt64 => "bigint",
        DataType::Float16 | DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::Decimal128(..) | DataType::Decimal256(..) => "numeric",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Timestamp(_, None) => "timestamp without time zone",
        DataType::Time32(_) | DataType::Time64(_) => "time without time zone",
        DataType::Interval(_) | DataType::Duration(_) => "interval",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "bytea",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "array",
        _ => "record",
    }
}

/// Whether values of the type are texts.
pub(super) fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The type that stands for a kind: one unit of time, one width of text, integers as PostgreSQL has
/// them.
pub(super) fn canonical(kind: &DataType) -> DataType {
    match kind {
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, Some(_)) => timestamptz(),
        DataType::Timestamp(_, None) => TIMESTAMP,
        DataType::Time32(_) | DataType::Time64(_) => TIME,
        DataType::Interval(_) | DataType::Duration(_) => INTERVAL,
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Dictionary(_, values) => canonical(values),
        other => other.clone(),
    }
}
