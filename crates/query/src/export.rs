//! An answer as text or file, written while its rows are found. The coverage goes with every form
//! that can carry it.
//!
//! An [`Encoder`] is given the rows piece by piece and gives back the bytes that are ready, so that
//! an answer of any length needs the memory of a few pieces; [`pieces`] runs one beside the
//! question. What a value looks like is said in `text.rs` for the forms that are text, and in
//! `docs/exports.md` for people.

mod csv;
mod interval;
mod ipc;
mod json;
mod parquet;
mod retype;
mod stream;
mod table;
mod text;
mod trailer;
mod workbook;

use std::{
    fs::File,
    io::{Read, Write},
};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    datatypes::SchemaRef,
    error::ArrowError,
};
use rollcall_types::Coverage;

use crate::{engine::Answer, error::QueryError};

pub use stream::pieces;
pub use trailer::{TrailerFilter, csv_trailer, split_csv_trailer};

/// Under this name the coverage is in a file's metadata, and on the last line of a CSV that carries
/// it.
const COVERAGE: &str = "rollcall.coverage";

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

/// Why an answer was not written to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The question failed, perhaps after many of its rows.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The form cannot hold this answer; the text says what to ask for instead.
    #[error("{0}")]
    Form(String),
    /// Writing failed.
    #[error("the answer cannot be written in this form")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<ArrowError> for ExportError {
    fn from(error: ArrowError) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl From<std::io::Error> for ExportError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// What a form does with rows.
trait Form: Send {
    /// Takes rows; the bytes that are ready then.
    fn rows(&mut self, rows: &RecordBatch) -> Result<Vec<u8>, ExportError>;

    /// All bytes that are left.
    fn finish(self: Box<Self>) -> Result<Rest, ExportError>;
}

/// The end of an answer: in memory, or in a file where it may be long.
#[derive(Debug)]
enum Rest {
    Bytes(std::io::Cursor<Vec<u8>>),
    File(File),
}

impl Rest {
    fn bytes(bytes: Vec<u8>) -> Self {
        Self::Bytes(std::io::Cursor::new(bytes))
    }
}

impl Read for Rest {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Bytes(bytes) => bytes.read(buffer),
            Self::File(file) => file.read(buffer),
        }
    }
}

/// Writes one answer.
pub struct Encoder {
    form: Box<dyn Form>,
    trailer: Option<String>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("trailer", &self.trailer).finish_non_exhaustive()
    }
}

impl Encoder {
    /// For rows with these columns.
    pub fn new(format: Format, schema: &SchemaRef, coverage: &Coverage) -> Result<Self, ExportError> {
        let form: Box<dyn Form> = match format {
            Format::Table => Box::new(table::Drawn::new(schema)),
            Format::Csv => Box::new(csv::Csv::new(schema)),
            Format::Json => Box::new(json::Json::new(schema, coverage)?),
            Format::Arrow => Box::new(ipc::Ipc::new(schema, coverage)?),
            Format::Parquet => Box::new(parquet::Parquet::new(schema, coverage)?),
            Format::Xlsx => Box::new(workbook::Book::new(schema, coverage)?),
        };
        Ok(Self { form, trailer: None })
    }

    /// Ends the answer with this text, such as [`csv_trailer`].
    pub fn ending_with(mut self, trailer: String) -> Self {
        self.trailer = Some(trailer);
        self
    }

    /// Takes rows; the bytes that are ready then, which may be none.
    pub fn rows(&mut self, rows: &RecordBatch) -> Result<Vec<u8>, ExportError> {
        self.form.rows(rows)
    }

    /// All bytes that are left. Without them the answer is not whole, and does not look so.
    pub fn finish(self) -> Result<impl Read + Send + 'static, ExportError> {
        Ok(self.form.finish()?.chain(std::io::Cursor::new(self.trailer.unwrap_or_default().into_bytes())))
    }
}

/// Writes an answer that is in memory.
pub fn render(answer: &Answer, format: Format) -> Result<Vec<u8>, ExportError> {
    let mut encoder = Encoder::new(format, &answer.schema, &answer.coverage)?;
    let mut bytes = Vec::new();
    for batch in &answer.batches {
        bytes.write_all(&encoder.rows(batch)?)?;
    }
    encoder.finish()?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// As many rows as `of` has, in these columns, of which there may be none.
fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, of: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(of.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

/// Names that tell columns apart where a form needs that: the second `a` is `a_2`.
fn distinct_names(schema: &SchemaRef) -> Vec<String> {
    let all: std::collections::HashSet<&String> = schema.fields().iter().map(|field| field.name()).collect();
    let mut taken = std::collections::HashSet::new();
    let names = schema.fields().iter().map(|field| {
        let mut name = field.name().clone();
        let mut number = 1;
        while taken.contains(&name) || (number > 1 && all.contains(&name)) {
            number += 1;
            name = format!("{}_{number}", field.name());
        }
        taken.insert(name.clone());
        name
    });
    names.collect()
}
