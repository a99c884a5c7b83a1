//! An Arrow IPC stream.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
    ipc::writer::StreamWriter,
};
use rollcall_types::Coverage;

use super::{
    COVERAGE, ExportError, Form, Rest, batch,
    retype::{exactly, retyped, without_views},
};

pub(super) struct Ipc {
    schema: SchemaRef,
    writer: StreamWriter<Vec<u8>>,
}

impl Ipc {
    pub(super) fn new(schema: &SchemaRef, coverage: &Coverage) -> Result<Self, ExportError> {
        let coverage = coverage.to_json().map_err(|error| ExportError::Failed(Box::new(error)))?;
        let mut metadata = schema.metadata().clone();
        metadata.insert(COVERAGE.to_owned(), coverage);
        let fields = schema.fields().iter().map(|field| {
            let kind = retyped(field.data_type(), without_views);
            field.as_ref().clone().with_data_type(kind)
        });
        let schema = Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), metadata));
        Ok(Self { writer: StreamWriter::try_new(Vec::new(), &schema)?, schema })
    }
}

impl Form for Ipc {
    fn rows(&mut self, rows: &RecordBatch) -> Result<Vec<u8>, ExportError> {
        let columns = rows.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| exactly(column, field.data_type()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        self.writer.write(&batch(&self.schema, columns, rows)?)?;
        Ok(std::mem::take(self.writer.get_mut()))
    }

    fn finish(mut self: Box<Self>) -> Result<Rest, ExportError> {
        self.writer.finish()?;
        Ok(Rest::bytes(std::mem::take(self.writer.get_mut())))
    }
}
