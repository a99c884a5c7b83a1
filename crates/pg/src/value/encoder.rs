//! Rows of an answer.

use arrow_array::RecordBatch;
use bytes::BytesMut;
use pgwire::{api::results::FieldFormat, messages::data::DataRow};

use super::{
    ValueError,
    column::{Column, put_sized},
    zone::Zone,
};

/// Rows are cut from buffers of at least this size, so that few rows cost an allocation.
const BUFFER_BYTES: usize = 32 * 1024;

/// Writes the rows of one batch as the client asked for them.
pub struct Encoder {
    columns: Vec<(Column, FieldFormat)>,
    column_count: i16,
    row_count: usize,
    zone: Zone,
    buffer: BytesMut,
}

impl Encoder {
    /// For the rows of this batch; `formats` has one entry for each column.
    ///
    /// # Errors
    /// If a column has no PostgreSQL type, or the formats are not as many as the columns.
    pub fn new(batch: &RecordBatch, formats: &[FieldFormat], zone: &Zone) -> Result<Self, ValueError> {
        if formats.len() != batch.num_columns() {
            let message = format!("{} formats for {} columns", formats.len(), batch.num_columns());
            return Err(ValueError::new("08P01", message));
        }
        let columns = columns(batch)?.into_iter().zip(formats.iter().copied()).collect();
        Ok(Self {
            columns,
            column_count: column_count(batch)?,
            row_count: batch.num_rows(),
            zone: zone.clone(),
            buffer: BytesMut::new(),
        })
    }

    /// The rows of the batch.
    pub fn row_count(&self) -> usize {
        self.row_count
    }

    /// One row: for each column the length of its value and the value, or -1 for NULL.
    ///
    /// # Errors
    /// If PostgreSQL's type cannot hold a value, or there is no such row.
    pub fn encode_row(&mut self, row: usize) -> Result<BytesMut, ValueError> {
        check_row(row, self.row_count)?;
        self.buffer.reserve(if self.buffer.capacity() < 1024 { BUFFER_BYTES } else { 0 });
        for (column, format) in &self.columns {
            let put = put_sized(&mut self.buffer, |out| {
                if column.is_null(row) {
                    return Ok(false);
                }
                match format {
                    FieldFormat::Text => column.put_text(row, &self.zone, out)?,
                    FieldFormat::Binary => column.put_binary(row, out)?,
                }
                Ok(true)
            });
            if let Err(error) = put {
                self.buffer.clear();
                return Err(error);
            }
        }
        Ok(self.buffer.split())
    }

    /// One row as the message it is sent in.
    ///
    /// # Errors
    /// As [`Encoder::encode_row`].
    pub fn data_row(&mut self, row: usize) -> Result<DataRow, ValueError> {
        Ok(DataRow::new(self.encode_row(row)?, self.column_count))
    }
}

pub(super) fn columns(batch: &RecordBatch) -> Result<Vec<Column>, ValueError> {
    let schema = batch.schema_ref();
    let fields = schema.fields().iter().zip(batch.columns());
    fields.map(|(field, array)| Column::new(field, array)).collect()
}

pub(super) fn column_count(batch: &RecordBatch) -> Result<i16, ValueError> {
    i16::try_from(batch.num_columns())
        .map_err(|_| ValueError::new("54011", "an answer has more columns than a row can have"))
}

pub(super) fn check_row(row: usize, row_count: usize) -> Result<(), ValueError> {
    if row >= row_count {
        return Err(ValueError::new("XX000", format!("row {row} of a batch of {row_count}")));
    }
    Ok(())
}
