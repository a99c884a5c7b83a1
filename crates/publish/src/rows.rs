//! Rows that a person or program gives to be published, in whatever form, as typed columns.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rollcall_lake::{ColumnType, TableSchema};
use rollcall_types::hq_identifier;
use serde_json::value::RawValue;

use rollcall_registry::HqError;

/// A form of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
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

/// Reads rows. Columns that the table has get its types; the others the narrowest exact one that
/// holds them all.
pub fn read(bytes: &Bytes, form: Form, known: Option<&TableSchema>) -> Result<RecordBatch, HqError> {
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

/// What is quoted stays as it is. Blanks around what is not are cut, and it is null if nothing is
/// left.
fn from_csv(bytes: &[u8]) -> Result<Vec<(String, Texts)>, HqError> {
    let mut columns: Vec<(String, Texts)> = Vec::new();
    let mut rows = CsvFields::new(bytes);
    let mut row = 0;
    while let Some(fields) = rows.next_row().map_err(|error| invalid(format!("row {row}: {error}")))? {
        if row == 0 {
            columns = fields.into_iter().map(|field| (field.text.trim().to_owned(), Texts::default())).collect();
            if let [(header, _)] = columns.as_slice()
                && header.contains([';', '\t'])
            {
                return Err(invalid(
                    "the columns are set apart by semicolons or tabs; a file that is published has commas, and decimal points: save it as CSV \
                     in a locale with commas, or convert it",
                ));
            }
        } else if fields.len() != columns.len() {
            let (has, header) = (fields.len(), columns.len());
            return Err(invalid(format!("row {row}: it has {has} fields, and the header line {header}")));
        } else {
            columns.iter_mut().zip(fields).for_each(|((_, column), field)| column.values.push(field.value()));
        }
        row += 1;
    }
    Ok(columns)
}

/// A field of a CSV file.
struct CsvField {
    text: String,
    is_quoted: bool,
}

impl CsvField {
    fn value(self) -> Option<String> {
        match (self.is_quoted, self.text.trim()) {
            (true, _) => Some(self.text),
            (false, "") => None,
            (false, trimmed) => Some(trimmed.to_owned()),
        }
    }
}

/// Reads fields, and tells which are quoted: the usual reader does not say.
struct CsvFields<'a> {
    reader: csv_core::Reader,
    rest: &'a [u8],
    room: Vec<u8>,
}

impl<'a> CsvFields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        Self { reader: csv_core::Reader::new(), rest, room: vec![0; 256] }
    }

    fn next_row(&mut self) -> Result<Option<Vec<CsvField>>, &'static str> {
        use csv_core::ReadFieldResult as Read;
        let (mut fields, mut written) = (Vec::new(), 0);
        let mut begin = self.rest;
        loop {
            let (read, taken, put) = self.reader.read_field(self.rest, &mut self.room[written..]);
            self.rest = &self.rest[taken..];
            written += put;
            match read {
                // The next call, with nothing, ends what is there.
                Read::InputEmpty => {}
                Read::OutputFull => self.room.resize(self.room.len() * 2, 0),
                Read::Field { record_end } => {
                    // The end of the line before is taken with the first field of this one.
                    let is_end = |byte: &&u8| fields.is_empty() && matches!(byte, b'\r' | b'\n');
                    let is_quoted = begin.iter().find(|byte| !is_end(byte)) == Some(&b'"');
                    let text = std::str::from_utf8(&self.room[..written]).map_err(|_| "it is not UTF-8")?.to_owned();
                    fields.push(CsvField { text, is_quoted });
                    (written, begin) = (0, self.rest);
                    if record_end {
                        return Ok(Some(fields));
                    }
                }
                Read::End => return Ok(None),
            }
        }
    }
}

fn from_json(bytes: &[u8]) -> Result<Vec<(String, Texts)>, HqError> {
    let mut columns: Vec<(String, Texts)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut rows = 0;
    // Numbers as they are written: a float would round them.
    for row in serde_json::Deserializer::from_slice(bytes).into_iter::<BTreeMap<String, Box<RawValue>>>() {
        let failed =
            |error: &dyn std::fmt::Display| invalid(format!("row {}: {error}; each line is one JSON object", rows + 1));
        let row = row.map_err(|error| failed(&error))?;
        for (name, value) in row {
            let place = *places.entry(name.clone()).or_insert_with(|| {
                columns.push((name.clone(), Texts::default()));
                columns.len() - 1
            });
            let column = &mut columns[place].1;
            column.values.resize(rows, None);
            let raw = value.get();
            column.values.push(match raw.as_bytes().first() {
                Some(b'n') => None,
                Some(b'"') => {
                    column.is_text = true;
                    Some(serde_json::from_str(raw).map_err(|error| failed(&error))?)
                }
                Some(b'-' | b'0'..=b'9') => Some(plain_number(raw).ok_or_else(|| {
                    invalid(format!(
                        "row {}: {name} is {raw}, which is no number that can be kept; write it as text",
                        rows + 1
                    ))
                })?),
                _ => Some(raw.to_owned()),
            });
        }
        rows += 1;
    }
    columns.iter_mut().for_each(|(_, column)| column.values.resize(rows, None));
    Ok(columns)
}

/// A number without its exponent, digit for digit.
fn plain_number(text: &str) -> Option<String> {
    const SHIFT_MAX: i64 = 40;
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else { return Some(text.to_owned()) };
    let shift: i64 = exponent.parse().ok().filter(|shift: &i64| shift.abs() <= SHIFT_MAX)?;
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (all, point) = (format!("{whole}{fraction}"), whole.len() as i64 + shift);
    let length = all.len() as i64;
    let (whole, fraction) = match point {
        ..=0 => ("0".to_owned(), format!("{}{all}", "0".repeat(point.unsigned_abs() as usize))),
        point if point >= length => (format!("{all}{}", "0".repeat((point - length) as usize)), String::new()),
        point => (all[..point as usize].to_owned(), all[point as usize..].to_owned()),
    };
    let whole = whole.trim_start_matches('0');
    let (whole, fraction) = (if whole.is_empty() { "0" } else { whole }, fraction.trim_end_matches('0'));
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

fn typed(columns: Vec<(String, Texts)>, known: Option<&TableSchema>) -> Result<RecordBatch, HqError> {
    let mut fields = Vec::new();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for (name, texts) in columns {
        let at_hq = hq_identifier(&name);
        let kind = known.and_then(|schema| schema.column(&at_hq)).map(|column| column.kind);
        let kind = kind.unwrap_or_else(|| narrowest(&texts));
        // A form that knows nulls means something else by a text of nothing.
        let nothing = texts.values.iter().position(|value| value.as_deref() == Some(""));
        if let (true, Some(row)) = (texts.is_text && kind != ColumnType::String, nothing) {
            return Err(invalid(format!(
                "row {}: {name} is an empty text, which is no {}; write null",
                row + 1,
                kind.delta()
            )));
        }
        let array = convert(&name, &texts.values, kind)?;
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(array);
    }
    if fields.is_empty() {
        return Ok(RecordBatch::new_empty(Arc::new(Schema::empty())));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(invalid)
}

/// Integer and fraction digits of a plain decimal number. One that begins with a zero it does not
/// need is a name (`00123`).
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
    let values = column.values.iter().flatten().map(String::as_str);
    // A text of nothing is nothing where the others are numbers or times.
    let values: Vec<&str> = values.filter(|value| column.is_text || !value.is_empty()).collect();
    if values.is_empty() {
        return ColumnType::String;
    }
    let all = |is: fn(&str) -> bool| values.iter().all(|value| is(value));
    // A form that knows texts from numbers has no other way to write a day.
    if column.is_text {
        return moment(&values).unwrap_or(ColumnType::String);
    }
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
    moment(&values).unwrap_or(ColumnType::String)
}

/// Days or times, if all values are that.
fn moment(values: &[&str]) -> Option<ColumnType> {
    if values.iter().all(|value| value.len() == 10 && chrono::NaiveDate::from_str(value).is_ok()) {
        return Some(ColumnType::Date);
    }
    let is_time = values.iter().all(|value| chrono::DateTime::parse_from_rfc3339(value).is_ok());
    is_time.then_some(ColumnType::Timestamp)
}

fn convert(name: &str, values: &[Option<String>], kind: ColumnType) -> Result<ArrayRef, HqError> {
    let is_text = kind == ColumnType::String;
    let said = values.iter().map(|value| value.as_deref().filter(|value| is_text || !value.is_empty()));
    let texts: ArrayRef = Arc::new(said.collect::<StringArray>());
    let misfit = |row: usize| {
        let value = values[row].as_deref().unwrap_or_default();
        // The header is line 1.
        invalid(format!(
            "row {}: {name} is {value:?}, which is no {} as the table has it; a column keeps the type that its first file gave it, so \
             for another type publish the table under another name",
            row + 1,
            kind.delta()
        ))
    };
    if matches!(kind, ColumnType::Long | ColumnType::Integer | ColumnType::Double | ColumnType::Decimal { .. }) {
        // `00123` is a name, and not 123.
        let is_name = |value: &String| {
            let digits = value.strip_prefix('-').unwrap_or(value).as_bytes();
            matches!(digits, [b'0', second, ..] if second.is_ascii_digit())
        };
        if let Some(row) = values.iter().position(|value| value.as_ref().is_some_and(is_name)) {
            return Err(misfit(row));
        }
    }
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
        let there = arrow_cast::cast(array, &kind).map_err(invalid)?;
        // Of a day or a microsecond there is no part.
        let lost = match field.data_type() {
            DataType::Timestamp(..) | DataType::Date64 => {
                let back = arrow_cast::cast(&there, field.data_type()).map_err(invalid)?;
                let differs = arrow_ord::cmp::distinct(array, &back).map_err(invalid)?;
                (0..differs.len()).find(|row| differs.value(*row))
            }
            _ => None,
        };
        if let Some(row) = lost {
            let (name, from) = (field.name(), field.data_type());
            return Err(invalid(format!(
                "row {}: {name} ({from}) cannot be kept exactly, to the microsecond or the day",
                row + 1
            )));
        }
        fields.push(Field::new(field.name(), kind, true));
        arrays.push(there);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(invalid)
}

/// How the columns of rows were read: name and type.
pub fn kinds(rows: &RecordBatch) -> Vec<(String, String)> {
    let schema = rows.schema();
    let kinds =
        schema.fields().iter().map(|field| (field.name().clone(), ColumnType::propose("", field.data_type()).delta()));
    kinds.collect()
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

    fn texts(text: &str, form: Form) -> Vec<Vec<Option<String>>> {
        let rows = read(&Bytes::copy_from_slice(text.as_bytes()), form, None).expect("reads");
        let text = |array: &ArrayRef| arrow_cast::cast(array, &DataType::Utf8).expect("is text");
        let columns = rows.columns().iter().map(text);
        columns
            .map(|array| {
                let array: &StringArray = arrow_array::cast::AsArray::as_string(&array);
                array.iter().map(|value| value.map(str::to_owned)).collect()
            })
            .collect()
    }

    #[test]
    fn what_is_quoted_stays_and_what_is_not_is_cut() {
        let csv =
            "\u{feff}k, v ,n\r\n\" k \", x ,\"\"\r\n\"a \"\"b\"\"\",\"  \",1\r\n\r\n ,\"\",\r\n\"two\nlines\",y,3";
        let some = |text: &str| Some(text.to_owned());
        let expected = [
            vec![some(" k "), some("a \"b\""), None, some("two\nlines")],
            vec![some("x"), some("  "), some(""), some("y")],
            vec![None, some("1"), None, some("3")],
        ];
        assert_eq!(texts(csv, Form::Csv), expected);
        let last = texts("k,v,r\n\"a1\",5,\n\"a2\",6,north\n", Form::Csv);
        assert_eq!(last[2], [None, Some("north".to_owned())], "a quote of the next line is no quote of this one");
        for wrong in ["a,b\n1\n", "a\n\u{0}\n,\n"] {
            assert!(read(&Bytes::copy_from_slice(wrong.as_bytes()), Form::Csv, None).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn numbers_are_exact_in_every_form() {
        let json = "{\"n\": 12345678901234567.25, \"e\": 1.50e3, \"s\": 25E-4}\n{\"n\": -0.1, \"e\": -2e0, \"s\": 0}";
        let some = |text: &str| Some(text.to_owned());
        let expected = [
            vec![some("1500"), some("-2")],
            vec![some("12345678901234567.25"), some("-0.10")],
            vec![some("0.0025"), some("0.0000")],
        ];
        assert_eq!(texts(json, Form::Json), expected);
        assert!(read(&Bytes::from_static(b"{\"n\": 1e400}"), Form::Json, None).is_err());
        let long = TableSchema::new(vec![rollcall_lake::Column::new("k", ColumnType::Long)], Vec::new());
        for (text, form) in [("k\n00123\n", Form::Csv), ("{\"k\": \"00123\"}", Form::Json)] {
            let refused =
                read(&Bytes::from_static(text.as_bytes()), form, Some(&long)).expect_err("is a name").to_string();
            assert!(refused.contains("00123"), "{refused}");
        }
        let nanos = arrow_array::TimestampNanosecondArray::from(vec![1_000, 1_001]);
        let rows = RecordBatch::try_from_iter([("t", Arc::new(nanos) as ArrayRef)]).expect("rows");
        let mut bytes = Vec::new();
        let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, rows.schema(), None).expect("a writer");
        writer.write(&rows).expect("writes");
        writer.close().expect("ends");
        let refused = read(&bytes.into(), Form::Parquet, None).expect_err("is not exact").to_string();
        assert!(refused.contains("row 2"), "{refused}");
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
