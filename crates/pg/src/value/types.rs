//! Which PostgreSQL type an Arrow column has, and what PostgreSQL says of that type.

use arrow_schema::{DataType, Field};
use pgwire::api::Type;
use postgres_types::Kind;
use rollcall_query::{DECLARED, OID_ALIAS, VECTOR};

use super::ValueError;

/// The key of a field's metadata that makes a text PostgreSQL's one-byte `"char"`.
pub(super) const CHAR_KEY: &str = "pg.char";

/// The PostgreSQL type of an Arrow column.
///
/// # Errors
/// If there is none.
pub fn pg_type(field: &Field) -> Result<Type, ValueError> {
    if let Some(alias) = oid_alias(field) {
        return Ok(alias);
    }
    if is_char(field) {
        return Ok(Type::CHAR);
    }
    if let Some(vector) = vector(field) {
        return Ok(vector);
    }
    Ok(match field.data_type() {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => Type::INT2,
        DataType::Int32 | DataType::UInt16 => Type::INT4,
        DataType::Int64 | DataType::UInt32 => Type::INT8,
        DataType::UInt64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => Type::NUMERIC,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Type::TEXT,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Type::BYTEA,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Time32(_) | DataType::Time64(_) => Type::TIME,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Interval(_) | DataType::Duration(_) => Type::INTERVAL,
        DataType::Struct(_) => Type::RECORD,
        DataType::Dictionary(_, value) => pg_type(&Field::new("", value.as_ref().clone(), true))?,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => array_of(item)?,
        other => {
            let message = format!("column \"{}\" has type {other}, which has no PostgreSQL type", field.name());
            return Err(ValueError::unsupported(message));
        }
    })
}

/// The alias of `oid` that the field's metadata names.
pub(super) fn oid_alias(field: &Field) -> Option<Type> {
    if !matches!(field.data_type(), DataType::Int32 | DataType::UInt32 | DataType::Int64) {
        return None;
    }
    Some(match field.metadata().get(OID_ALIAS)?.as_str() {
        "oid" => Type::OID,
        "regproc" => Type::REGPROC,
        "regprocedure" => Type::REGPROCEDURE,
        "regoper" => Type::REGOPER,
        "regoperator" => Type::REGOPERATOR,
        "regclass" => Type::REGCLASS,
        "regtype" => Type::REGTYPE,
        "regnamespace" => Type::REGNAMESPACE,
        "regrole" => Type::REGROLE,
        "regconfig" => Type::REGCONFIG,
        "regdictionary" => Type::REGDICTIONARY,
        "regcollation" => Type::REGCOLLATION,
        _ => return None,
    })
}

/// The vector that the field's metadata names.
pub(super) fn vector(field: &Field) -> Option<Type> {
    match field.metadata().get(VECTOR)?.as_str() {
        "int2vector" => Some(Type::INT2_VECTOR),
        "oidvector" => Some(Type::OID_VECTOR),
        _ => None,
    }
}

/// Whether values of the type are numbers of what the catalogue lists: four bytes without a sign.
pub(super) fn is_object_number(declared: &Type) -> bool {
    matches!(
        *declared,
        Type::OID
            | Type::XID
            | Type::CID
            | Type::REGPROC
            | Type::REGPROCEDURE
            | Type::REGOPER
            | Type::REGOPERATOR
            | Type::REGCLASS
            | Type::REGTYPE
            | Type::REGNAMESPACE
            | Type::REGROLE
            | Type::REGCONFIG
            | Type::REGDICTIONARY
            | Type::REGCOLLATION
    )
}

pub(super) fn is_char(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        && field.metadata().contains_key(CHAR_KEY)
}

/// The array type with these elements; PostgreSQL's arrays have any number of dimensions, so an
/// array of arrays is of the same type.
fn array_of(item: &Field) -> Result<Type, ValueError> {
    let element = pg_type(item)?;
    Ok(match element {
        Type::BOOL => Type::BOOL_ARRAY,
        Type::INT2 => Type::INT2_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        Type::NUMERIC => Type::NUMERIC_ARRAY,
        Type::FLOAT4 => Type::FLOAT4_ARRAY,
        Type::FLOAT8 => Type::FLOAT8_ARRAY,
        Type::TEXT => Type::TEXT_ARRAY,
        Type::BYTEA => Type::BYTEA_ARRAY,
        Type::DATE => Type::DATE_ARRAY,
        Type::TIME => Type::TIME_ARRAY,
        Type::TIMESTAMP => Type::TIMESTAMP_ARRAY,
        Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
        Type::INTERVAL => Type::INTERVAL_ARRAY,
        Type::RECORD => Type::RECORD_ARRAY,
        Type::CHAR => Type::CHAR_ARRAY,
        Type::OID => Type::OID_ARRAY,
        Type::REGPROC => Type::REGPROC_ARRAY,
        Type::REGPROCEDURE => Type::REGPROCEDURE_ARRAY,
        Type::REGOPER => Type::REGOPER_ARRAY,
        Type::REGOPERATOR => Type::REGOPERATOR_ARRAY,
        Type::REGCLASS => Type::REGCLASS_ARRAY,
        Type::REGTYPE => Type::REGTYPE_ARRAY,
        Type::REGNAMESPACE => Type::REGNAMESPACE_ARRAY,
        Type::REGROLE => Type::REGROLE_ARRAY,
        Type::REGCONFIG => Type::REGCONFIG_ARRAY,
        Type::REGDICTIONARY => Type::REGDICTIONARY_ARRAY,
        Type::REGCOLLATION => Type::REGCOLLATION_ARRAY,
        array => array,
    })
}

/// The bytes a value of the type has, as a row description states them: -1 for any number, -2 for a
/// text that ends with a zero byte.
pub fn type_len(declared: &Type) -> i16 {
    match *declared {
        Type::BOOL | Type::CHAR => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE | Type::VOID => 4,
        _ if is_object_number(declared) => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ | Type::MONEY => 8,
        Type::TIMETZ => 12,
        Type::INTERVAL | Type::UUID => 16,
        Type::NAME => 64,
        Type::UNKNOWN | Type::CSTRING => -2,
        _ => -1,
    }
}

/// The modifier of a type: precision and scale of a number that was declared with them; else -1.
pub fn type_modifier(field: &Field) -> i32 {
    match field.data_type() {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale)
            if field.metadata().contains_key(DECLARED) =>
        {
            ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + 4
        }
        _ => -1,
    }
}

/// The name in SQL of the type that a literal must be cast to in order to stand for a parameter of
/// the declared type; of an array, that of its elements. Texts stay literals without a type, and so
/// do types that are kept as text.
pub fn sql_type(declared: &Type) -> Option<&'static str> {
    if let Kind::Array(element) = declared.kind() {
        return sql_type(element);
    }
    Some(match *declared {
        Type::BOOL => "BOOLEAN",
        Type::INT2 => "SMALLINT",
        Type::INT4 => "INTEGER",
        Type::INT8 => "BIGINT",
        // Drivers write these two as names as well.
        Type::REGCLASS | Type::REGTYPE => return None,
        // HQ has no type for numbers of the catalogue; a bigint holds and compares them all.
        _ if is_object_number(declared) => "BIGINT",
        Type::NUMERIC => "NUMERIC",
        Type::FLOAT4 => "REAL",
        Type::FLOAT8 => "DOUBLE PRECISION",
        Type::BYTEA => "BYTEA",
        Type::DATE => "DATE",
        Type::TIME => "TIME",
        Type::TIMESTAMP => "TIMESTAMP",
        Type::TIMESTAMPTZ => "TIMESTAMPTZ",
        Type::INTERVAL => "INTERVAL",
        _ => return None,
    })
}
