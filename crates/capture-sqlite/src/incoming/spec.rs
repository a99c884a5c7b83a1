//! How a published table is declared at the site, and what it needs of a table that is there.

use arrow_array::{
    Array, StringArray,
    cast::AsArray,
    types::{Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use arrow_schema::{DataType, TimeUnit};
use chrono::{DateTime, Days, NaiveDate};
use rollcall_capture::IncomingTable;
use rusqlite::types::Value;

use crate::{
    error::CaptureError,
    shape::{Key, Shape, quote},
};

pub(crate) fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Vec<String> {
    names.into_iter().map(|name| quote(name.as_ref())).collect()
}

pub(crate) fn on_keys(keys: &[String]) -> String {
    keys.iter().map(|key| format!("t.{key} = r.{key}")).collect::<Vec<_>>().join(" AND ")
}

/// A condition: two rows have the same key, as HQ sees it.
pub(crate) fn equal_keys(left: &str, right: &str, spec: &IncomingTable) -> String {
    let keys = quoted(&spec.key);
    keys.iter().map(|key| format!("{left}.{key} COLLATE BINARY = {right}.{key}")).collect::<Vec<_>>().join(" AND ")
}

/// The key's columns, to be compared as HQ sees them.
pub(crate) fn exact_keys(spec: &IncomingTable) -> String {
    quoted(&spec.key).iter().map(|key| format!("{key} COLLATE BINARY")).collect::<Vec<_>>().join(",")
}

/// A condition: the key is null. A store's own row may have such a one, and no comparison finds it;
/// a key of HQ's is never null.
pub(crate) fn has_null_key(spec: &IncomingTable) -> String {
    quoted(&spec.key).iter().map(|name| format!("{name} IS NULL")).collect::<Vec<_>>().join(" OR ")
}

/// A row's key as SQL writes it: by this, rows are named. `row` is empty, or what the row is called
/// with a dot behind.
pub(crate) fn key_text(spec: &IncomingTable, row: &str) -> String {
    quoted(&spec.key).iter().map(|key| format!("quote({row}{key})")).collect::<Vec<_>>().join(" || ', ' || ")
}

pub(super) fn encode_spec(table: &IncomingTable) -> Result<String, CaptureError> {
    serde_json::to_string(table).map_err(|error| CaptureError::Damaged(error.to_string()))
}

pub(super) fn decode_spec(text: &str) -> Result<IncomingTable, CaptureError> {
    serde_json::from_str(text).map_err(|error| CaptureError::Damaged(error.to_string()))
}

/// The column definitions of a table; staged rows have a number of their own, by which they keep
/// their order.
pub(crate) fn declare(table: &IncomingTable, staged: bool) -> String {
    let key = quoted(&table.key).join(",");
    let not_null = |name: &String| if !staged && table.key.contains(name) { " NOT NULL" } else { "" };
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|(name, kind)| format!("{} {}{}", quote(name), declared(kind), not_null(name)))
        .collect();
    // A key that is one integer would be the row's number itself; `UNIQUE` is the same key without
    // that.
    let constraint = if staged { "UNIQUE" } else { "PRIMARY KEY" };
    format!("{}, {constraint} ({key})", columns.join(", "))
}

/// Whether it is one of the types of Delta's that [`declared`] knows. What HQ sends becomes part of
/// statements.
pub(super) fn is_kind(kind: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_decimal = |text: &str| {
        let inner = text.strip_prefix("decimal(").and_then(|text| text.strip_suffix(')'));
        inner
            .and_then(|inner| inner.split_once(','))
            .is_some_and(|(digits, scale)| is_number(digits) && is_number(scale))
    };
    ["boolean", "integer", "long", "double", "binary", "date", "timestamp", "string"].contains(&kind)
        || is_decimal(kind)
}

/// SQLite's type for one of Delta's.
pub(crate) fn declared(kind: &str) -> String {
    match kind {
        "boolean" => "BOOLEAN".to_owned(),
        "integer" | "long" => "INTEGER".to_owned(),
        "double" => "REAL".to_owned(),
        "binary" => "BLOB".to_owned(),
        "date" => "DATE".to_owned(),
        "timestamp" => "DATETIME".to_owned(),
        "string" => "TEXT".to_owned(),
        decimal => decimal.to_ascii_uppercase(),
    }
}

/// SQLite's rules for how a declared type bends values (datatype3.html, section 3.1).
fn affinity(declared: &str) -> &'static str {
    let upper = declared.to_ascii_uppercase();
    let has = |word: &str| upper.contains(word);
    if has("INT") {
        "INTEGER"
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        "TEXT"
    } else if has("BLOB") || upper.is_empty() {
        "BLOB"
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        "REAL"
    } else {
        "NUMERIC"
    }
}

/// Columns that the store's table lacks and may be given; or why it cannot take HQ's rows.
pub(super) fn compare<'a>(
    shape: &Shape,
    spec: &'a IncomingTable,
    made: bool,
) -> Result<Vec<&'a (String, String)>, String> {
    let mut missing = Vec::new();
    for column in &spec.columns {
        let (name, kind) = column;
        match shape.columns.iter().find(|known| known.name.eq_ignore_ascii_case(name)) {
            Some(known) if affinity(&known.declared) != affinity(&declared(kind)) => {
                let wanted = declared(kind);
                return Err(format!(
                    "its column {name} is declared {:?}, HQ's is {wanted}; rename or drop the store's table, and HQ's is made in its place",
                    known.declared
                ));
            }
            Some(known) if known.is_generated => {
                return Err(format!("its column {name} is generated, so HQ's values cannot be written"));
            }
            Some(_) => {}
            None if made => missing.push(column),
            None => return Err(format!("it has no column {name} ({})", declared(kind))),
        }
    }
    let same = |names: Vec<&str>| {
        names.len() == spec.key.len()
            && names.iter().all(|name| spec.key.iter().any(|key| key.eq_ignore_ascii_case(name)))
    };
    let is_primary = matches!(&shape.key, Key::Columns(names) if same(names.iter().map(String::as_str).collect()));
    let is_unique = shape.uniques.iter().any(|unique| same(unique.iter().map(|column| column.name.as_str()).collect()));
    if !is_primary && !is_unique {
        return Err(format!("({}) is no unique key of it", spec.key.join(", ")));
    }
    Ok(missing)
}

/// A value as SQLite keeps it: decimals, days and times as text, which the column's type may turn
/// into a number.
pub(super) fn value(column: &dyn Array, row: usize) -> Result<Value, CaptureError> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    let damaged = |what: String| CaptureError::Damaged(format!("HQ sent a {what} that cannot be stored"));
    Ok(match column.data_type() {
        DataType::Boolean => Value::Integer(i64::from(column.as_boolean().value(row))),
        DataType::Int32 => Value::Integer(i64::from(column.as_primitive::<Int32Type>().value(row))),
        DataType::Int64 => Value::Integer(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Value::Real(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => Value::Text(column.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Utf8 => {
            let texts: &StringArray = column.as_string();
            Value::Text(texts.value(row).to_owned())
        }
        DataType::Binary => Value::Blob(column.as_binary::<i32>().value(row).to_vec()),
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>().value(row);
            let shift = Days::new(u64::from(days.unsigned_abs()));
            let epoch = NaiveDate::default();
            let day = if days < 0 { epoch.checked_sub_days(shift) } else { epoch.checked_add_days(shift) };
            Value::Text(day.ok_or_else(|| damaged("day".to_owned()))?.to_string())
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            let time = DateTime::from_timestamp_micros(micros).ok_or_else(|| damaged("time".to_owned()))?;
            Value::Text(time.format("%Y-%m-%d %H:%M:%S%.fZ").to_string())
        }
        other => return Err(damaged(other.to_string())),
    })
}
