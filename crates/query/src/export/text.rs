//! What a value looks like in a form that is text.
//!
//! Arrow's own formatter writes numbers, decimals, texts, days and times as wanted. What it would
//! write in a form of its own (bytes, lengths of time, infinity, numbers of negative scale), and
//! what has values within, is made text here first.

use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray},
    compute::cast,
    datatypes::{DataType, FieldRef, Float16Type, Float32Type, Float64Type},
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};
use std::sync::Arc;

use super::{interval, json};

/// An array that arrow's formatter writes as wanted; errors are returned, never written.
pub(super) fn shown(field: &FieldRef, array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let array = unpacked(array)?;
    if array.data_type().is_nested() {
        return Ok(Arc::new(json::texts(field, array.as_ref())?));
    }
    Ok(match own_texts(array.as_ref())? {
        Some(texts) => Arc::new(texts),
        None => array,
    })
}

/// Every value as text.
pub(super) fn texts(field: &FieldRef, array: &ArrayRef) -> Result<StringArray, ArrowError> {
    formatted(shown(field, array)?.as_ref())
}

/// Every value of an array without values within as text.
pub(super) fn leaf_texts(array: &dyn Array) -> Result<StringArray, ArrowError> {
    match own_texts(array)? {
        Some(texts) => Ok(texts),
        None => formatted(array),
    }
}

fn formatted(array: &dyn Array) -> Result<StringArray, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array, &options)?;
    let nulls = array.logical_nulls();
    let is_null = |row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
    (0..array.len()).map(|row| (!is_null(row)).then(|| formatter.value(row).try_to_string()).transpose()).collect()
}

/// The values themselves, where an array says only which of a few each is.
pub(super) fn unpacked(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Dictionary(_, values) => unpacked(&cast(array, values)?),
        DataType::RunEndEncoded(_, values) => unpacked(&cast(array, values.data_type())?),
        _ => Ok(array.clone()),
    }
}

/// The texts of values that arrow would write otherwise.
fn own_texts(array: &dyn Array) -> Result<Option<StringArray>, ArrowError> {
    Ok(Some(match array.data_type() {
        DataType::Float16 => {
            array.as_primitive::<Float16Type>().iter().map(|value| value.map(|value| float32(value.into()))).collect()
        }
        DataType::Float32 => array.as_primitive::<Float32Type>().iter().map(|value| value.map(float32)).collect(),
        DataType::Float64 => array.as_primitive::<Float64Type>().iter().map(|value| value.map(float64)).collect(),
        DataType::Binary => array.as_binary::<i32>().iter().map(|bytes| bytes.map(hex)).collect(),
        DataType::LargeBinary => array.as_binary::<i64>().iter().map(|bytes| bytes.map(hex)).collect(),
        DataType::BinaryView => array.as_binary_view().iter().map(|bytes| bytes.map(hex)).collect(),
        DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().iter().map(|bytes| bytes.map(hex)).collect(),
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale)
            if *scale < 0 =>
        {
            formatted(array)?.iter().map(|digits| digits.map(without_zeros)).collect()
        }
        _ => return interval::texts(array),
    }))
}

/// The shortest text that is read back as the same number; what is no number has a name, as in
/// PostgreSQL.
pub(super) fn float64(value: f64) -> String {
    match value.is_finite() {
        true => serde_json::to_string(&value).unwrap_or_default(),
        false => no_number(value).to_owned(),
    }
}

/// The same for a number of half that width, which has fewer digits.
pub(super) fn float32(value: f32) -> String {
    match value.is_finite() {
        true => serde_json::to_string(&value).unwrap_or_default(),
        false => no_number(value.into()).to_owned(),
    }
}

fn no_number(value: f64) -> &'static str {
    match value {
        _ if value.is_nan() => "NaN",
        _ if value > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}

/// Bytes as PostgreSQL writes them: `\x` and two digits for each.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    for byte in bytes {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Of a number that is all zeros, one stays.
fn without_zeros(digits: &str) -> String {
    let (sign, number) = digits.strip_prefix('-').map_or(("", digits), |number| ("-", number));
    match number.trim_start_matches('0') {
        "" => "0".to_owned(),
        number => format!("{sign}{number}"),
    }
}
