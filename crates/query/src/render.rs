//! An answer as text or file. The coverage goes with every form that can carry it.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, Float64Array, RecordBatch},
    datatypes::{DataType, Field, FieldRef, Float64Type, Schema},
    error::ArrowError,
    json::{Encoder, EncoderFactory, EncoderOptions, writer::NullableEncoder},
    util::{display::FormatOptions, pretty::pretty_format_batches_with_options},
};
use datafusion::arrow;
use parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    file::{metadata::KeyValue, properties::WriterProperties},
};
use rollcall_types::Coverage;

use crate::{engine::Answer, workbook::workbook};

/// Forms of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people: a drawn table, with the coverage beneath.
    Table,
    /// Comma-separated with a header line; the coverage does not fit in and goes beside it.
    Csv,
    /// `{"columns": […], "rows": [{…}], "coverage": {…}}`.
    Json,
    /// An Excel workbook with the sheets "Answer" and "Coverage".
    Xlsx,
    /// An Arrow IPC stream with the coverage in its schema's metadata under `rollcall.coverage`.
    Arrow,
    /// A Parquet file with the coverage in its metadata under `rollcall.coverage`.
    Parquet,
}

impl Format {
    /// By name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "table" => Self::Table,
            "csv" => Self::Csv,
            "json" => Self::Json,
            "arrow" => Self::Arrow,
            "parquet" => Self::Parquet,
            "xlsx" => Self::Xlsx,
            _ => return None,
        })
    }

    /// The MIME type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Table => "text/plain; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Json => "application/json",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
            Self::Xlsx => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        }
    }
}

/// The answer could not be put into the form asked for.
#[derive(Debug, thiserror::Error)]
#[error("the answer cannot be written in this form: {0}")]
pub struct RenderError(String);

fn failed(error: impl std::fmt::Display) -> RenderError {
    RenderError(error.to_string())
}

/// Under this name the coverage is in a file's metadata, and on the last line of a CSV that carries it.
const COVERAGE: &str = "rollcall.coverage";

/// The line that ends a CSV which carries its coverage: a comment to most readers, JSON behind its name.
pub fn csv_trailer(coverage: &Coverage) -> String {
    format!("# {COVERAGE} {}\n", serde_json::to_string(coverage).unwrap_or_default())
}

/// A CSV's rows and the coverage that its last line carries, if it does.
pub fn split_csv_trailer(csv: &[u8]) -> (&[u8], Option<Coverage>) {
    let text = csv.strip_suffix(b"\n").unwrap_or(csv);
    let start = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mark = format!("# {COVERAGE} ");
    match text[start..].strip_prefix(mark.as_bytes()).and_then(|json| serde_json::from_slice(json).ok()) {
        Some(coverage) => (&csv[..start], Some(coverage)),
        None => (csv, None),
    }
}

/// Writes the answer in `format`.
pub fn render(answer: &Answer, format: Format) -> Result<Vec<u8>, RenderError> {
    match format {
        Format::Table => table(answer),
        Format::Csv => csv(answer),
        Format::Json => json_text(answer),
        Format::Arrow => arrow_stream(answer),
        Format::Parquet => parquet_file(answer),
        Format::Xlsx => workbook(answer).map_err(failed),
    }
}

fn options() -> FormatOptions<'static> {
    FormatOptions::default()
        .with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.fZ"))
        .with_timestamp_format(Some("%Y-%m-%dT%H:%M:%S%.f"))
}

fn table(answer: &Answer) -> Result<Vec<u8>, RenderError> {
    let empty = [RecordBatch::new_empty(answer.schema.clone())];
    let batches = if answer.batches.is_empty() { &empty[..] } else { &answer.batches };
    let drawn = pretty_format_batches_with_options(batches, &options()).map_err(failed)?;
    Ok(format!("{drawn}\n").into_bytes())
}

fn csv(answer: &Answer) -> Result<Vec<u8>, RenderError> {
    let mut bytes = Vec::new();
    let mut writer = arrow::csv::WriterBuilder::new()
        .with_header(true)
        .with_timestamp_tz_format("%Y-%m-%dT%H:%M:%S%.fZ".to_owned())
        .build(&mut bytes);
    writer.write(&RecordBatch::new_empty(answer.schema.clone())).map_err(failed)?;
    for batch in &answer.batches {
        writer.write(batch).map_err(failed)?;
    }
    drop(writer);
    Ok(bytes)
}

/// Numbers are written as they are: a decimal with all its digits, and what JSON has no number for (infinity)
/// as text.
fn json_text(answer: &Answer) -> Result<Vec<u8>, RenderError> {
    let mut writer = arrow::json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .with_timestamp_tz_format("%Y-%m-%dT%H:%M:%S%.fZ".to_owned())
        .with_encoder_factory(Arc::new(ExactFloats))
        .build::<_, arrow::json::writer::JsonArray>(Vec::new());
    for batch in &answer.batches {
        writer.write(batch).map_err(failed)?;
    }
    writer.finish().map_err(failed)?;
    let rows = writer.into_inner();
    // The rows are JSON already: reading them again would round what a double cannot hold.
    let columns: Vec<&String> = answer.schema.fields().iter().map(|field| field.name()).collect();
    let mut text = b"{\"columns\":".to_vec();
    text.extend(serde_json::to_vec(&columns).map_err(failed)?);
    text.extend_from_slice(b",\"rows\":");
    text.extend_from_slice(if rows.is_empty() { b"[]" } else { &rows });
    text.extend_from_slice(b",\"coverage\":");
    text.extend(serde_json::to_vec(&answer.coverage).map_err(failed)?);
    text.push(b'}');
    Ok(text)
}

/// Writes doubles so that they are read back as the same, and infinities and "not a number" as text in place
/// of null.
#[derive(Debug)]
struct ExactFloats;

impl EncoderFactory for ExactFloats {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let floats = array.as_primitive_opt::<Float64Type>();
        Ok(floats.map(|floats| NullableEncoder::new(Box::new(ExactFloat(floats)), array.nulls().cloned())))
    }
}

struct ExactFloat<'a>(&'a Float64Array);

impl Encoder for ExactFloat<'_> {
    fn encode(&mut self, index: usize, out: &mut Vec<u8>) {
        let text = match self.0.value(index) {
            number if number.is_finite() => serde_json::to_string(&number).unwrap_or_default(),
            number if number.is_nan() => "\"NaN\"".to_owned(),
            number if number > 0.0 => "\"Infinity\"".to_owned(),
            _ => "\"-Infinity\"".to_owned(),
        };
        out.extend_from_slice(text.as_bytes());
    }
}

fn arrow_stream(answer: &Answer) -> Result<Vec<u8>, RenderError> {
    let coverage = serde_json::to_string(&answer.coverage).map_err(failed)?;
    let mut metadata = answer.schema.metadata().clone();
    metadata.insert(COVERAGE.to_owned(), coverage);
    let schema = Arc::new(answer.schema.as_ref().clone().with_metadata(metadata));
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &schema).map_err(failed)?;
    for batch in &answer.batches {
        let batch = RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).map_err(failed)?;
        writer.write(&batch).map_err(failed)?;
    }
    writer.into_inner().map_err(failed)
}

fn parquet_file(answer: &Answer) -> Result<Vec<u8>, RenderError> {
    let coverage = serde_json::to_string(&answer.coverage).map_err(failed)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(vec![KeyValue::new(COVERAGE.to_owned(), coverage)]))
        .build();
    // Views are an in-memory form; files hold plain texts.
    let fields: Vec<Field> = answer
        .schema
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Utf8View => field.as_ref().clone().with_data_type(DataType::Utf8),
            DataType::BinaryView => field.as_ref().clone().with_data_type(DataType::Binary),
            _ => field.as_ref().clone(),
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema.clone(), Some(properties)).map_err(failed)?;
    for batch in &answer.batches {
        let columns = batch.columns().iter().zip(schema.fields());
        let columns = columns.map(|(column, field)| arrow::compute::cast(column, field.data_type()));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        writer.write(&RecordBatch::try_new(schema.clone(), columns).map_err(failed)?).map_err(failed)?;
    }
    writer.close().map_err(failed)?;
    Ok(bytes)
}
