//! SQLite's dynamically typed values as typed columns.
//!
//! The column type follows the declared type by SQLite's own affinity rules, except that exact
//! decimals, booleans, dates and times are recognised by name. A value that does not fit is never
//! bent: its column is null and the value goes, as it is, into the row's misfit object; one that is
//! too long to be sent leaves its length there.

use std::sync::Arc;

use arrow_array::{
    ArrayRef,
    builder::{BinaryBuilder, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder, StringBuilder},
};
use arrow_schema::DataType;
use rollcall_types::parse_decimal;
use rusqlite::types::ValueRef;
use serde_json::Value;

use crate::stored::hex;

/// Digits and fraction digits of a decimal declared without them.
const DECIMAL_DEFAULT: (u8, i8) = (38, 9);

/// The column type for a declared type.
pub(crate) fn column_type(declared: &str) -> DataType {
    let upper = declared.to_ascii_uppercase();
    let has = |word: &str| upper.contains(word);
    if has("BOOL") {
        DataType::Boolean
    } else if has("DATE") || has("TIME") {
        DataType::Utf8
    } else if has("INT") {
        DataType::Int64
    } else if has("CHAR") || has("CLOB") || has("TEXT") || upper.is_empty() {
        DataType::Utf8
    } else if has("BLOB") || has("BINARY") {
        DataType::Binary
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        DataType::Float64
    } else if has("DEC") || has("NUM") || has("MONEY") {
        let (digits, fraction) = decimal_size(&upper).unwrap_or(DECIMAL_DEFAULT);
        DataType::Decimal128(digits, fraction)
    } else {
        DataType::Utf8
    }
}

/// The `(p, s)` of `DECIMAL(p, s)`, if Arrow can hold it.
fn decimal_size(declared: &str) -> Option<(u8, i8)> {
    let inside = declared.split_once('(')?.1.split_once(')')?.0;
    let mut numbers = inside.split(',').map(|number| number.trim().parse::<u8>());
    let digits = numbers.next()?.ok()?;
    let fraction = numbers.next().transpose().ok()?.unwrap_or(0);
    ((1..=38).contains(&digits) && fraction <= digits).then_some((digits, i8::try_from(fraction).ok()?))
}

/// How a value fits its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// No other value of the store's looks like it there.
    Exact,
    /// It is there, and another value may look the same: a number and its text in a column without
    /// a type.
    Alike,
    /// It is a misfit.
    None,
}

/// One column being built.
pub(crate) enum ColumnBuilder {
    Int64(Int64Builder),
    Float64(Float64Builder),
    Utf8 { builder: StringBuilder, takes_numbers: bool },
    Binary(BinaryBuilder),
    Boolean(BooleanBuilder),
    Decimal { builder: Decimal128Builder, digits: u8, fraction: u8 },
}

impl ColumnBuilder {
    pub(crate) fn new(declared: &str) -> Self {
        match column_type(declared) {
            DataType::Int64 => Self::Int64(Int64Builder::new()),
            DataType::Float64 => Self::Float64(Float64Builder::new()),
            DataType::Binary => Self::Binary(BinaryBuilder::new()),
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            DataType::Decimal128(digits, fraction) => Self::Decimal {
                builder: Decimal128Builder::new().with_data_type(DataType::Decimal128(digits, fraction)),
                digits,
                fraction: fraction.unsigned_abs(),
            },
            // A time may be stored as a number, and a column without a type holds anything: both
            // keep their text.
            _ => Self::Utf8 { builder: StringBuilder::new(), takes_numbers: !is_text(declared) },
        }
    }

    /// Appends `value`, or null when it is a misfit.
    pub(crate) fn append(&mut self, value: ValueRef<'_>) -> Fit {
        match (&mut *self, value) {
            (Self::Int64(builder), ValueRef::Integer(number)) => builder.append_value(number),
            (Self::Float64(builder), ValueRef::Real(number)) => builder.append_value(number),
            (Self::Float64(builder), ValueRef::Integer(number)) if exact_in_f64(number) => {
                builder.append_value(number as f64);
            }
            (Self::Binary(builder), ValueRef::Blob(bytes)) => builder.append_value(bytes),
            (Self::Boolean(builder), ValueRef::Integer(number @ 0..=1)) => builder.append_value(number == 1),
            (Self::Utf8 { builder, .. }, ValueRef::Text(text)) => match std::str::from_utf8(text) {
                Ok(text) => builder.append_value(text),
                Err(_) => return self.append_misfit(),
            },
            (Self::Utf8 { builder, takes_numbers: true }, ValueRef::Integer(number)) => {
                builder.append_value(number.to_string());
                return Fit::Alike;
            }
            (Self::Utf8 { builder, takes_numbers: true }, ValueRef::Real(number)) => {
                builder.append_value(number.to_string());
                return Fit::Alike;
            }
            (Self::Decimal { builder, digits, fraction }, value) => match decimal(value, *digits, *fraction) {
                Some(number) => {
                    builder.append_option(number);
                    // A column of this type turns a text that is a number into one; a text that is
                    // left is not what it looks like.
                    return if matches!(value, ValueRef::Text(_)) { Fit::Alike } else { Fit::Exact };
                }
                None => return self.append_misfit(),
            },
            (_, ValueRef::Null) => self.append_null(),
            _ => return self.append_misfit(),
        }
        Fit::Exact
    }

    fn append_misfit(&mut self) -> Fit {
        self.append_null();
        Fit::None
    }

    pub(crate) fn append_null(&mut self) {
        match self {
            Self::Int64(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Utf8 { builder, .. } => builder.append_null(),
            Self::Binary(builder) => builder.append_null(),
            Self::Boolean(builder) => builder.append_null(),
            Self::Decimal { builder, .. } => builder.append_null(),
        }
    }

    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Int64(builder) => Arc::new(builder.finish()),
            Self::Float64(builder) => Arc::new(builder.finish()),
            Self::Utf8 { builder, .. } => Arc::new(builder.finish()),
            Self::Binary(builder) => Arc::new(builder.finish()),
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Decimal { builder, .. } => Arc::new(builder.finish()),
        }
    }
}

fn is_text(declared: &str) -> bool {
    let upper = declared.to_ascii_uppercase();
    ["CHAR", "CLOB", "TEXT"].iter().any(|word| upper.contains(word))
}

fn exact_in_f64(number: i64) -> bool {
    number.unsigned_abs() <= 1 << 53
}

/// `value` as an unscaled decimal; `Some(None)` for null, none for a misfit.
///
/// A REAL is taken as the shortest decimal that reads back as the same number, which is what the
/// store's programs wrote.
fn decimal(value: ValueRef<'_>, digits: u8, fraction: u8) -> Option<Option<i128>> {
    let text = match value {
        ValueRef::Null => return Some(None),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) if number.is_finite() => number.to_string(),
        ValueRef::Text(text) => std::str::from_utf8(text).ok()?.to_owned(),
        _ => return None,
    };
    parse_decimal(&text, digits, fraction).map(Some)
}

/// A value that did not fit its column, for the row's misfit object. Bytes become `{"hex": "…"}`.
pub(crate) fn misfit(value: ValueRef<'_>) -> Value {
    let hex = |bytes: &[u8]| {
        let text = hex(bytes);
        serde_json::json!({ "hex": text })
    };
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => {
            serde_json::Number::from_f64(number).map_or_else(|| Value::String(number.to_string()), Value::Number)
        }
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => text.into(),
            Err(_) => hex(text),
        },
        ValueRef::Blob(bytes) => hex(bytes),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn declared_types_become_column_types() {
        for (declared, expected) in [
            ("INTEGER", DataType::Int64),
            ("varchar(20)", DataType::Utf8),
            ("", DataType::Utf8),
            ("BLOB", DataType::Binary),
            ("double precision", DataType::Float64),
            ("DECIMAL(10,2)", DataType::Decimal128(10, 2)),
            ("NUMERIC", DataType::Decimal128(38, 9)),
            ("DECIMAL(50,2)", DataType::Decimal128(38, 9)),
            ("BOOLEAN", DataType::Boolean),
            ("DATETIME", DataType::Utf8),
        ] {
            assert_eq!(column_type(declared), expected, "{declared}");
        }
    }

    #[test]
    fn decimals_are_exact_or_misfits() {
        assert_eq!(decimal(ValueRef::Real(2.55), 10, 2), Some(Some(255)));
        assert_eq!(decimal(ValueRef::Integer(-7), 10, 2), Some(Some(-700)));
        assert_eq!(decimal(ValueRef::Text(b"0.10"), 10, 2), Some(Some(10)));
        for misfit in [ValueRef::Real(0.001), ValueRef::Text(b"1e3"), ValueRef::Text(b"."), ValueRef::Real(1e12)] {
            assert_eq!(decimal(misfit, 10, 2), None, "{misfit:?}");
        }
    }

    proptest! {
        #[test]
        fn any_price_round_trips(cents in -999_999_999_i64..=999_999_999) {
            let price = cents as f64 / 100.0;
            prop_assert_eq!(decimal(ValueRef::Real(price), 10, 2), Some(Some(i128::from(cents))));
        }
    }
}
