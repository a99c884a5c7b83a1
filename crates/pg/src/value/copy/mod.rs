//! Answers of `COPY … TO STDOUT`: text, CSV and binary.

mod form;
#[cfg(test)]
mod tests;

use arrow_array::RecordBatch;
use bytes::{BufMut, Bytes, BytesMut};

pub use form::{CopyForm, ForceQuote};

use super::{
    ValueError,
    column::{Column, put_sized},
    encoder::{check_row, column_count, columns},
    quote::widen,
    zone::Zone,
};
use form::Layout;

/// What a binary copy begins with: its mark, no flags and an empty extension.
const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

impl CopyForm {
    /// What goes before the first row, be there rows or not: the names of the columns if they were
    /// asked for, the mark of the binary form, or nothing.
    pub fn header(&self, names: &[&str]) -> Option<Bytes> {
        if self.layout == Layout::Binary {
            return Some(Bytes::from_static(BINARY_HEADER));
        }
        if !self.has_header {
            return None;
        }
        let mut out = BytesMut::new();
        for (index, name) in names.iter().enumerate() {
            if index > 0 {
                out.put_u8(self.delimiter);
            }
            let start = out.len();
            out.put_slice(name.as_bytes());
            self.escape(&mut out, start, false, names.len() == 1);
        }
        out.put_u8(b'\n');
        Some(out.freeze())
    }

    /// What goes behind the last row, if anything does.
    pub fn trailer(&self) -> Option<Bytes> {
        (self.layout == Layout::Binary).then(|| Bytes::from_static(&[0xff, 0xff]))
    }

    /// Makes the text behind `start` safe: no end of a value or a row may be seen in it, and it may
    /// not be taken for NULL.
    fn escape(&self, out: &mut BytesMut, start: usize, is_forced: bool, is_alone: bool) {
        let delimiter = self.delimiter;
        if self.layout == Layout::Text {
            widen(out, start, None, |byte| escaped(byte, delimiter).map(|letter| [b'\\', letter]));
            return;
        }
        let value = &out[start..];
        let is_special = |byte: &u8| *byte == delimiter || *byte == self.quote || matches!(*byte, b'\n' | b'\r');
        // A line of only `\.` would end the copy.
        let needs_quotes =
            is_forced || value == self.null.as_bytes() || (is_alone && value == b"\\.") || value.iter().any(is_special);
        if needs_quotes {
            let (quote, escape) = (self.quote, self.escape);
            widen(out, start, Some(quote), |byte| (byte == quote || byte == escape).then_some([escape, byte]));
        }
    }
}

/// The letter that stands for a byte behind a backslash in the text form.
fn escaped(byte: u8, delimiter: u8) -> Option<u8> {
    Some(match byte {
        0x08 => b'b',
        0x0b => b'v',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        b'\\' => b'\\',
        _ if byte == delimiter => byte,
        _ => return None,
    })
}

/// Writes the rows of one batch in the form of a copy.
pub struct CopyEncoder {
    form: CopyForm,
    columns: Vec<(Column, bool)>,
    column_count: i16,
    row_count: usize,
    zone: Zone,
    buffer: BytesMut,
}

impl CopyEncoder {
    /// For the rows of this batch.
    ///
    /// # Errors
    /// If a column has no PostgreSQL type, or one that was to be quoted is not there.
    pub fn new(form: &CopyForm, batch: &RecordBatch, zone: &Zone) -> Result<Self, ValueError> {
        let schema = batch.schema_ref();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        form.check_columns(&names)?;
        let columns = columns(batch)?.into_iter().zip(names.iter().map(|name| form.is_forced(name)));
        Ok(Self {
            form: form.clone(),
            columns: columns.collect(),
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

    /// One row with its end; one message.
    ///
    /// # Errors
    /// If PostgreSQL's type cannot hold a value, or there is no such row.
    pub fn row(&mut self, row: usize) -> Result<Bytes, ValueError> {
        check_row(row, self.row_count)?;
        let mut out = std::mem::take(&mut self.buffer);
        let put = match self.form.layout {
            Layout::Binary => self.put_binary(row, &mut out),
            Layout::Text | Layout::Csv => self.put_text(row, &mut out),
        };
        let bytes = out.split();
        self.buffer = out;
        put.map(|()| bytes.freeze())
    }

    fn put_binary(&self, row: usize, out: &mut BytesMut) -> Result<(), ValueError> {
        out.put_i16(self.column_count);
        for (column, _) in &self.columns {
            put_sized(
                out,
                |out| {
                    if column.is_null(row) { Ok(false) } else { column.put_binary(row, out).map(|()| true) }
                },
            )?;
        }
        Ok(())
    }

    fn put_text(&self, row: usize, out: &mut BytesMut) -> Result<(), ValueError> {
        let is_alone = self.columns.len() == 1;
        for (index, (column, is_forced)) in self.columns.iter().enumerate() {
            if index > 0 {
                out.put_u8(self.form.delimiter);
            }
            if column.is_null(row) {
                out.put_slice(self.form.null.as_bytes());
                continue;
            }
            let start = out.len();
            column.put_text(row, &self.zone, out)?;
            self.form.escape(out, start, *is_forced, is_alone);
        }
        out.put_u8(b'\n');
        Ok(())
    }
}
