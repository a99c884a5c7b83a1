//! A drawn table, for people: its columns are as wide as their widest value, so all of it is in
//! memory first.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
    util::pretty::pretty_format_batches,
};

use super::{ExportError, Form, Rest, batch, text};

/// Nobody reads more.
const ROWS_MAX: usize = 100_000;
const BYTES_MAX: usize = 64 << 20;

pub(super) struct Drawn {
    schema: SchemaRef,
    /// Columns of texts.
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl Drawn {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let fields: Vec<Field> =
            schema.fields().iter().map(|field| Field::new(field.name(), DataType::Utf8, true)).collect();
        let schema = Arc::new(Schema::new(fields));
        Self { batches: vec![RecordBatch::new_empty(schema.clone())], schema, rows: 0, bytes: 0 }
    }
}

impl Form for Drawn {
    fn rows(&mut self, rows: &RecordBatch) -> Result<Vec<u8>, ExportError> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            let texts = text::texts(field, column)?;
            self.bytes += texts.value_data().len() + 4 * texts.len();
            columns.push(Arc::new(texts));
        }
        self.rows += rows.num_rows();
        if self.rows > ROWS_MAX || self.bytes > BYTES_MAX {
            return Err(ExportError::Form(format!(
                "the answer has more than the {ROWS_MAX} rows or {} MiB that a table for people may have; add a LIMIT, or ask \
                 for csv, json, arrow or parquet, which have no limit",
                BYTES_MAX >> 20
            )));
        }
        self.batches.push(batch(&self.schema, columns, rows)?);
        Ok(Vec::new())
    }

    fn finish(self: Box<Self>) -> Result<Rest, ExportError> {
        let drawn = pretty_format_batches(&self.batches)?;
        Ok(Rest::bytes(format!("{drawn}\n").into_bytes()))
    }
}
