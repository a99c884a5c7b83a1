//! Comma-separated values: a null is nothing, an empty text is `""`.

use arrow::{
    array::{Array, RecordBatch},
    datatypes::SchemaRef,
    util::display::{ArrayFormatter, FormatOptions},
};

use super::{ExportError, Form, Rest, text};

pub(super) struct Csv {
    schema: SchemaRef,
    is_begun: bool,
}

impl Csv {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        Self { schema: schema.clone(), is_begun: false }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.is_begun, true) {
            return;
        }
        for (index, field) in self.schema.fields().iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            put(field.name(), out);
        }
        out.push(b'\n');
    }
}

impl Form for Csv {
    fn rows(&mut self, rows: &RecordBatch) -> Result<Vec<u8>, ExportError> {
        let mut out = Vec::new();
        self.begin(&mut out);
        let shown = self.schema.fields().iter().zip(rows.columns()).map(|(field, column)| text::shown(field, column));
        let shown = shown.collect::<Result<Vec<_>, _>>()?;
        let options = FormatOptions::default();
        let mut columns = Vec::new();
        for array in &shown {
            columns.push((ArrayFormatter::try_new(array.as_ref(), &options)?, array.logical_nulls()));
        }
        let mut value = String::new();
        for row in 0..rows.num_rows() {
            for (index, (formatter, nulls)) in columns.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    // Readers skip an empty line: of a single column the row would be lost.
                    out.extend_from_slice(if columns.len() == 1 { b"\"\"" } else { b"" });
                    continue;
                }
                value.clear();
                formatter.value(row).write(&mut value)?;
                put(&value, &mut out);
            }
            out.push(b'\n');
        }
        Ok(out)
    }

    fn finish(mut self: Box<Self>) -> Result<Rest, ExportError> {
        let mut out = Vec::new();
        self.begin(&mut out);
        Ok(Rest::bytes(out))
    }
}

/// Writes a value, in quotes where a reader would otherwise take it for more or less than one. A
/// line that starts with `#` is a comment to many, and ends a file of ours.
fn put(value: &str, out: &mut Vec<u8>) {
    let quoted = value.is_empty() || value.starts_with('#') || value == "\\." || value.contains([',', '"', '\n', '\r']);
    if !quoted {
        return out.extend_from_slice(value.as_bytes());
    }
    out.push(b'"');
    out.extend_from_slice(value.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}
