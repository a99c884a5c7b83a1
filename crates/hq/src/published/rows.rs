//! Rows that a person or program gives to be published, in whatever form, as typed columns.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use axum::body::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rollcall_lake::{ColumnType, TableSchema};
use rollcall_types::hq_identifier;
use serde_json::Value;

use crate::error::HqError;

/// A form of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Comma-separated, with a header line; an empty field is null.
    Csv,
    /// One JSON object a line.
    Json,
    /// Apache Parquet.
    Parquet,
}

impl FromStr for Form {
    type Err = HqError;

    fn from_str(name: &str) -> Result<Self, HqError> {
        match name {
            "csv" => Ok(Self::Csv),
            "json" | "jsonl" | "ndjson" => Ok(Self::Json),
            "parquet" => Ok(Self::Parquet),
            _ => {
                Err(HqError::Invalid(format!("format {name:?} is not one of csv, json (a line for each row), parquet")))
            }
        }
    }
}

fn invalid(error: impl std::fmt::Display) -> HqError {
    HqError::Invalid(error.to_string())
}

/// A column as it was given.
#[derive(Default)]
struct Texts {
    values: Vec<Option<String>>,
    /// It was said to be text, whatever it looks like.
    is_text: bool,
}

/// Reads rows. Columns that the table has get its types; the others the narrowest exact one that holds them all.
pub(crate) fn read(bytes: &Bytes, form: Form, known: Option<&TableSchema>) -> Result<RecordBatch, HqError> {
    let rows = match form {
        Form::Csv => typed(from_csv(bytes)?, known)?,
        Form::Json => typed(from_json(bytes)?, known)?,
        Form::Parquet => from_parquet(bytes)?,
    };
    if rows.num_columns() == 0 {
        return Err(invalid("there are no columns; a CSV file needs a header line"));
    }
    Ok(rows)
}

fn from_csv(bytes: &[u8]) -> Result<Vec<(String, Texts)>, HqError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let header = reader.headers().map_err(invalid)?.clone();
    let mut columns: Vec<(String, Texts)> = header.iter().map(|name| (name.to_owned(), Texts::default())).collect();
    for record in reader.records() {
        let record = record.map_err(invalid)?;
        for ((_, column), value) in columns.iter_mut().zip(&record) {
            column.values.push((!value.is_empty()).then(|| value.to_owned()));
        }
    }
    Ok(columns)
}

fn from_json(bytes: &[u8]) -> Result<Vec<(String, Texts)>, HqError> {
    let mut columns: Vec<(String, Texts)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut rows = 0;
    for row in serde_json::Deserializer::from_slice(bytes).into_iter::<serde_json::Map<String, Value>>() {
        let row = row.map_err(|error| invalid(format!("row {}: {error}; each line is one JSON object", rows + 1)))?;
        for (name, value) in row {
            let place = *places.entry(name.clone()).or_insert_with(|| {
                columns.push((name, Texts::default()));
                columns.len() - 1
            });
            let column = &mut columns[place].1;
            column.is_text |= value.is_string();
            column.values.resize(rows, None);
            column.values.push(match value {
                Value::Null => None,
                Value::String(text) => Some(text),
                other => Some(other.to_string()),
            });
        }
        rows += 1;
    }
    columns.iter_mut().for_each(|(_, column)| column.values.resize(rows, None));
    Ok(columns)
}

fn typed(columns: Vec<(String, Texts)>, known: Option<&TableSchema>) -> Result<RecordBatch, HqError> {
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for (name, texts) in columns {
        let at_hq = hq_identifier(&name);
        let kind = known.and_then(|schema| schema.column(&at_hq)).map(|column| column.kind);
        let kind = kind.unwrap_or_else(|| narrowest(&texts));
        let array = convert(&name, &texts.values, kind)?;
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(array);
    }
    if fields.is_empty() {
        return Ok(RecordBatch::new_empty(Arc::new(Schema::empty())));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(invalid)
}

/// Integer and fraction digits of a plain decimal number. One that begins with a zero it does not need is a name (`00123`).
fn decimal_digits(text: &str) -> Option<(usize, usize)> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = !whole.is_empty() && is_number(whole) && is_number(fraction) && !digits.ends_with('.');
    (is_plain && (whole == "0" || !whole.starts_with('0'))).then_some((whole.len(), fraction.len()))
}

fn narrowest(column: &Texts) -> ColumnType {
    /// Room for larger numbers in later files.
    const DIGITS_MIN: usize = 18;
    let values: Vec<&str> = column.values.iter().flatten().map(String::as_str).collect();
    if column.is_text || values.is_empty() {
        return ColumnType::String;
    }
    let all = |is: fn(&str) -> bool| values.iter().all(|value| is(value));
    if all(|value| value == "true" || value == "false") {
        return ColumnType::Boolean;
    }
    let digits: Option<Vec<(usize, usize)>> = values.iter().map(|value| decimal_digits(value)).collect();
    if let Some(digits) = digits {
        let most = |part: fn(&(usize, usize)) -> usize| digits.iter().map(part).max().unwrap_or_default();
        let (whole, fraction) = (most(|digits| digits.0), most(|digits| digits.1));
        if fraction == 0 && all(|value| value.parse::<i64>().is_ok()) {
            return ColumnType::Long;
        }
        let (digits, fraction) = ((whole + fraction).max(DIGITS_MIN), u8::try_from(fraction).unwrap_or(u8::MAX));
        if digits <= 38 {
            return ColumnType::Decimal { digits: digits as u8, fraction };
        }
    }
    if all(|value| value.len() == 10 && chrono::NaiveDate::from_str(value).is_ok()) {
        return ColumnType::Date;
    }
    if all(|value| chrono::DateTime::parse_from_rfc3339(value).is_ok()) {
        return ColumnType::Timestamp;
    }
    ColumnType::String
}

fn convert(name: &str, values: &[Option<String>], kind: ColumnType) -> Result<ArrayRef, HqError> {
    let texts: ArrayRef = Arc::new(values.iter().map(Option::as_deref).collect::<StringArray>());
    let misfit = |row: usize| {
        let value = values[row].as_deref().unwrap_or_default();
        // The header is line 1.
        invalid(format!("row {}: {name} is {value:?}, which is no {} as the table has it", row + 1, kind.delta()))
    };
    if let ColumnType::Decimal { fraction, .. } = kind {
        let fits = |value: &String| {
            let digits = value.split_once('.').map_or("", |(_, digits)| digits).trim_end_matches('0');
            digits.len() <= usize::from(fraction)
        };
        if let Some(row) = values.iter().position(|value| value.as_ref().is_some_and(|value| !fits(value))) {
            return Err(misfit(row));
        }
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let array = cast_with_options(&texts, &kind.arrow(), &options).map_err(invalid)?;
    match (0..array.len()).find(|row| array.is_null(*row) && texts.is_valid(*row)) {
        Some(row) => Err(misfit(row)),
        None => Ok(array),
    }
}

fn from_parquet(bytes: &Bytes) -> Result<RecordBatch, HqError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(invalid)?;
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().map_err(invalid)?.collect::<Result<_, _>>().map_err(invalid)?;
    let rows = arrow_select::concat::concat_batches(&schema, &batches).map_err(invalid)?;
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    for (field, array) in schema.fields().iter().zip(rows.columns()) {
        let kind = match field.data_type() {
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32 => DataType::Int64,
            DataType::Float16 | DataType::Float32 => DataType::Float64,
            DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => DataType::Utf8,
            DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
            DataType::Date64 => DataType::Date32,
            DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            plain @ (DataType::Boolean
            | DataType::Int64
            | DataType::Float64
            | DataType::Utf8
            | DataType::Binary
            | DataType::Date32
            | DataType::Decimal128(..)) => plain.clone(),
            other => return Err(invalid(format!("column {} is {other}, which cannot be published", field.name()))),
        };
        let array = arrow_cast::cast(array, &kind).map_err(invalid)?;
        fields.push(Field::new(field.name(), kind, true));
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str, form: Form) -> Vec<DataType> {
        let rows = read(&Bytes::copy_from_slice(text.as_bytes()), form, None).expect("reads");
        rows.schema().fields().iter().map(|field| field.data_type().clone()).collect()
    }

    #[test]
    fn a_column_gets_the_narrowest_exact_type() {
        let csv = "sku,price,qty,open,day,code\na,1.5,3,true,2026-01-02,00123\nb,,-4,false,2026-02-03,7\n";
        let long = DataType::Int64;
        let expected = [
            DataType::Utf8,
            DataType::Decimal128(18, 1),
            long.clone(),
            DataType::Boolean,
            DataType::Date32,
            DataType::Utf8,
        ];
        assert_eq!(kinds(csv, Form::Csv), expected);
        let json = "{\"sku\": \"1\", \"price\": 2.25}\n{\"price\": 3, \"sku\": \"2\", \"n\": 1}";
        let rows = read(&Bytes::from_static(json.as_bytes()), Form::Json, None).expect("reads");
        let kind = |name: &str| rows.column_by_name(name).expect("a column").data_type().clone();
        assert_eq!((kind("sku"), kind("price"), kind("n")), (DataType::Utf8, DataType::Decimal128(18, 2), long));
    }

    #[test]
    fn what_the_table_cannot_hold_is_refused_with_its_row() {
        let column = rollcall_lake::Column::new("price", ColumnType::Decimal { digits: 10, fraction: 2 });
        let schema = TableSchema::new(vec![column], Vec::new());
        let read = |text: &'static str| read(&Bytes::from_static(text.as_bytes()), Form::Csv, Some(&schema));
        assert!(read("price\n1.50\n2.5000\n").is_ok());
        let error = read("price\n1.50\n1.255\n").expect_err("rounds").to_string();
        assert!(error.contains("row 2") && error.contains("decimal(10,2)"), "{error}");
        assert!(read("price\ncheap\n").is_err());
    }
}
