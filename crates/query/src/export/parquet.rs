//! A Parquet file, in row groups of bounded size.

use std::sync::Arc;

use ::parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
};
use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{DataType, FieldRef, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
};
use rollcall_types::Coverage;

use super::{
    COVERAGE, ExportError, Form, Rest, batch, distinct_names,
    retype::{exactly, retyped, without_views},
    text,
};

/// A row group is written when it needs this much memory.
const GROUP_BYTES_MAX: usize = 32 << 20;

impl From<ParquetError> for ExportError {
    fn from(error: ParquetError) -> Self {
        Self::Failed(Box::new(error))
    }
}

pub(super) struct Parquet {
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
}

impl Parquet {
    pub(super) fn new(schema: &SchemaRef, coverage: &Coverage) -> Result<Self, ExportError> {
        let coverage = coverage.to_json().map_err(|error| ExportError::Failed(Box::new(error)))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(vec![KeyValue::new(COVERAGE.to_owned(), coverage)]))
            .build();
        let mut fields = Vec::new();
        for (field, name) in schema.fields().iter().zip(distinct_names(schema)) {
            let kind = match is_length(field.data_type()) {
                true => DataType::Utf8,
                false => retyped(field.data_type(), stored),
            };
            if has_length_within(&kind) {
                let text =
                    format!("column {name} has lengths of time within a list or record, which Parquet cannot hold");
                return Err(ExportError::Form(format!("{text}; cast them to text, or ask for json or arrow")));
            }
            fields.push(field.as_ref().clone().with_name(name).with_data_type(kind));
        }
        let schema = Arc::new(Schema::new(fields));
        Ok(Self { writer: ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))?, schema })
    }

    fn written(&mut self) -> Vec<u8> {
        // Offsets are counted by the writer, which is not asked to look back.
        std::mem::take(self.writer.inner_mut())
    }
}

impl Form for Parquet {
    fn rows(&mut self, rows: &RecordBatch) -> Result<Vec<u8>, ExportError> {
        let columns = rows.columns().iter().zip(rows.schema_ref().fields()).zip(self.schema.fields());
        let columns = columns.map(|((column, from), to)| stored_column(column, from, to.data_type()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        self.writer.write(&batch(&self.schema, columns, rows)?)?;
        if self.writer.memory_size() >= GROUP_BYTES_MAX {
            self.writer.flush()?;
        }
        Ok(self.written())
    }

    fn finish(mut self: Box<Self>) -> Result<Rest, ExportError> {
        self.writer.finish()?;
        Ok(Rest::bytes(self.written()))
    }
}

fn stored_column(column: &ArrayRef, field: &FieldRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    match is_length(field.data_type()) {
        true => Ok(Arc::new(text::texts(field, column)?)),
        false => exactly(column, kind),
    }
}

/// Parquet's intervals have milliseconds at best, and a bare count of an unknown unit is no length:
/// these are texts.
fn is_length(kind: &DataType) -> bool {
    matches!(kind, DataType::Interval(_) | DataType::Duration(_))
}

fn has_length_within(kind: &DataType) -> bool {
    match kind {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => has_length_within(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_length_within(field.data_type())),
        kind => is_length(kind),
    }
}

/// Types that Parquet has no name for, in the next one that holds all their values.
fn stored(kind: &DataType) -> Option<DataType> {
    match kind {
        DataType::Date64 => Some(DataType::Timestamp(TimeUnit::Millisecond, None)),
        DataType::Timestamp(TimeUnit::Second, zone) => Some(DataType::Timestamp(TimeUnit::Millisecond, zone.clone())),
        DataType::Time32(TimeUnit::Second) => Some(DataType::Time32(TimeUnit::Millisecond)),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *scale < 0 =>
        {
            Some(match precision.saturating_add(scale.unsigned_abs()) {
                digits @ ..=38 => DataType::Decimal128(digits, 0),
                digits => DataType::Decimal256(digits, 0),
            })
        }
        kind => without_views(kind),
    }
}
