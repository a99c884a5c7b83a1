//! JSON: every number with all its digits, however many a reader then keeps.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch, StringArray},
    datatypes::{DataType, Field, FieldRef, Float16Type, Float32Type, Float64Type, Schema, SchemaRef},
    error::ArrowError,
    json::{
        Encoder, EncoderFactory, EncoderOptions,
        writer::{JsonArray, NullableEncoder, Writer, WriterBuilder, make_encoder},
    },
};
use rollcall_types::Coverage;

use super::{ExportError, Form, Rest, batch, distinct_names, text};

/// `{"columns": […], "rows": [{…}], "coverage": {…}}`: the coverage is last, and tells that the
/// answer is whole.
pub(super) struct Json {
    names: Vec<String>,
    /// What comes before the rows, until it is written.
    head: Vec<u8>,
    rows: Writer<Vec<u8>, JsonArray>,
    coverage: Vec<u8>,
}

impl Json {
    pub(super) fn new(schema: &SchemaRef, coverage: &Coverage) -> Result<Self, ExportError> {
        let names = distinct_names(schema);
        let written = |value: serde_json::Result<Vec<u8>>| value.map_err(|error| ExportError::Failed(Box::new(error)));
        let mut head = b"{\"columns\":".to_vec();
        head.extend(written(serde_json::to_vec(&names))?);
        head.extend_from_slice(b",\"rows\":");
        let rows =
            WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Exact)).build(Vec::new());
        Ok(Self { names, head, rows, coverage: written(coverage.to_json().map(String::into_bytes))? })
    }
}

impl Form for Json {
    fn rows(&mut self, rows: &RecordBatch) -> Result<Vec<u8>, ExportError> {
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for ((field, column), name) in rows.schema().fields().iter().zip(rows.columns()).zip(&self.names) {
            let column = text::unpacked(column)?;
            fields.push(Field::new(name, column.data_type().clone(), true).with_metadata(field.metadata().clone()));
            columns.push(column);
        }
        self.rows.write(&batch(&Arc::new(Schema::new(fields)), columns, rows)?)?;
        let mut out = std::mem::take(&mut self.head);
        out.append(self.rows.get_mut());
        Ok(out)
    }

    fn finish(mut self: Box<Self>) -> Result<Rest, ExportError> {
        self.rows.finish()?;
        let mut out = std::mem::take(&mut self.head);
        out.append(self.rows.get_mut());
        out.extend_from_slice(b",\"coverage\":");
        out.append(&mut self.coverage);
        out.push(b'}');
        Ok(Rest::bytes(out))
    }
}

/// Each value of an array that has values within as JSON.
pub(super) fn texts(field: &FieldRef, array: &dyn Array) -> Result<StringArray, ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Exact));
    let mut encoder = make_encoder(field, array, &options)?;
    let written = (0..array.len()).map(|row| {
        if encoder.is_null(row) {
            return Ok(None);
        }
        let mut text = Vec::new();
        encoder.encode(row, &mut text);
        String::from_utf8(text).map(Some).map_err(|error| ArrowError::ExternalError(Box::new(error)))
    });
    written.collect()
}

/// Writes floats so that they are read back as the same, what JSON has no number for as text, and
/// everything else that is no number as the other forms do.
#[derive(Debug)]
struct Exact;

impl EncoderFactory for Exact {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let nulls = array.nulls().cloned();
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Float16 => floats::<Float16Type>(array, |value| text::float32(value.into())),
            DataType::Float32 => floats::<Float32Type>(array, text::float32),
            DataType::Float64 => floats::<Float64Type>(array, text::float64),
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
                Box::new(Digits(text::leaf_texts(array)?))
            }
            kind if kind.is_temporal() || kind.is_binary() || matches!(kind, DataType::FixedSizeBinary(_)) => {
                Box::new(Texts(text::leaf_texts(array)?))
            }
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, nulls)))
    }
}

struct Digits(StringArray);

impl Encoder for Digits {
    fn encode(&mut self, index: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.value(index).as_bytes());
    }
}

struct Texts(StringArray);

impl Encoder for Texts {
    fn encode(&mut self, index: usize, out: &mut Vec<u8>) {
        put_text(self.0.value(index), out);
    }
}

struct Floats<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>, fn(T::Native) -> String);

fn floats<T: ArrowPrimitiveType>(array: &dyn Array, text: fn(T::Native) -> String) -> Box<dyn Encoder + '_> {
    Box::new(Floats::<T>(array.as_primitive(), text))
}

impl<T: ArrowPrimitiveType> Encoder for Floats<'_, T> {
    fn encode(&mut self, index: usize, out: &mut Vec<u8>) {
        let text = self.1(self.0.value(index));
        // Infinity and what is no number have names.
        match text.ends_with(|letter: char| letter.is_ascii_digit()) {
            true => out.extend_from_slice(text.as_bytes()),
            false => put_text(&text, out),
        }
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}
