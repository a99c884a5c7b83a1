//! What a conversion lost: values that did not fit, and keys as they were exactly.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, cast::AsArray, types::Int64Type};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;
use rollcall_types::columns;
use serde_json::{Map, Value};

use super::our_column;

use crate::error::{Doing, LakeError};

/// Collects what does not fit, per row, on top of what the site itself could not fit.
pub(super) struct Misfits {
    rows: HashMap<usize, Map<String, Value>>,
    len: usize,
}

impl Misfits {
    pub(super) fn new(batch: &RecordBatch) -> Result<Self, LakeError> {
        let mut rows = HashMap::new();
        if let Some(column) = our_column(batch, columns::MISFIT) {
            let doing = "reading misfits";
            let texts = arrow_cast::cast(column, &DataType::Utf8).doing(doing)?;
            for (row, text) in texts.as_string::<i32>().iter().enumerate() {
                if let Some(text) = text {
                    let object = serde_json::from_str(text)
                        .unwrap_or_else(|_| Map::from_iter([("_misfit".to_owned(), Value::from(text))]));
                    rows.insert(row, object);
                }
            }
        }
        Ok(Self { rows, len: batch.num_rows() })
    }

    /// Notes every value that is there before and null after.
    pub(super) fn note_lost(&mut self, name: &str, before: &ArrayRef, after: &ArrayRef) -> Result<(), LakeError> {
        if after.null_count() == before.null_count() {
            return Ok(());
        }
        let options = FormatOptions::default();
        let formatter = ArrayFormatter::try_new(before, &options).doing("reading a misfit")?;
        for row in 0..before.len() {
            if before.is_valid(row) && after.is_null(row) {
                let value = Value::from(formatter.value(row).to_string());
                self.rows.entry(row).or_default().insert(name.to_owned(), value);
            }
        }
        Ok(())
    }

    pub(super) fn count(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn finish(mut self) -> Option<ArrayRef> {
        if self.rows.is_empty() {
            return None;
        }
        let texts = (0..self.len).map(|row| self.rows.remove(&row).map(|object| Value::Object(object).to_string()));
        Some(Arc::new(texts.collect::<StringArray>()))
    }
}

/// Collects the rows whose key must be kept as the store has it, because HQ's columns alone would
/// not tell it from another.
pub(super) struct ExactKeys {
    /// As the site itself says.
    said: Vec<Option<String>>,
    /// The key's columns as they were sent, by name; and the rows that are in need of an exact form
    /// by one of them.
    columns: Vec<(String, ArrayRef)>,
    needed: Vec<bool>,
    /// Those that are in need of one although every value has its place: HQ reads it as another
    /// kind of value.
    is_any_read: bool,
    lacking: Vec<bool>,
}

impl ExactKeys {
    pub(super) fn new(rows: &RecordBatch) -> Result<Self, LakeError> {
        let said = match our_column(rows, columns::EXACT_KEY) {
            Some(column) => {
                let texts = arrow_cast::cast(column, &DataType::Utf8).doing("reading exact keys")?;
                texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
            }
            None => Vec::new(),
        };
        Ok(Self { said, columns: Vec::new(), needed: Vec::new(), is_any_read: false, lacking: Vec::new() })
    }

    /// A column of the key was converted.
    pub(super) fn note(&mut self, name: &str, before: &ArrayRef, after: &ArrayRef, is_parsed: bool) {
        self.columns.push((name.to_owned(), before.clone()));
        self.is_any_read |= is_parsed;
        if is_parsed || before.null_count() != after.null_count() {
            self.needed.resize(before.len(), false);
            self.lacking.resize(before.len(), false);
            for row in 0..before.len() {
                self.needed[row] |= before.is_valid(row) && (is_parsed || after.is_null(row));
                self.lacking[row] |= before.is_valid(row) && after.is_null(row);
            }
        }
    }

    /// The rows, by `_seq`, that are in need of an exact form for nothing but being read.
    pub(super) fn read(&self, rows: &RecordBatch) -> Vec<i64> {
        let Some(seqs) = our_column(rows, columns::SEQ).filter(|_| self.is_any_read) else { return Vec::new() };
        let is_read =
            |row: &usize| self.needed[*row] && !self.lacking[*row] && self.said.get(*row).is_none_or(Option::is_none);
        (0..rows.num_rows()).filter(is_read).map(|row| seqs.as_primitive::<Int64Type>().value(row)).collect()
    }

    /// The exact forms; none if no row needs one.
    pub(super) fn finish(self, rows: &RecordBatch) -> Result<Option<ArrayRef>, LakeError> {
        if self.needed.is_empty() && self.said.iter().all(Option::is_none) {
            return Ok(None);
        }
        let options = FormatOptions::default();
        let formatters = self.columns.iter().map(|(_, column)| ArrayFormatter::try_new(column, &options));
        let formatters = formatters.collect::<Result<Vec<_>, _>>().doing("writing exact keys")?;
        let exact = |row: usize| {
            let said = self.said.get(row).cloned().flatten();
            let is_needed = self.needed.get(row) == Some(&true);
            if said.is_some() || !is_needed || self.columns.iter().any(|(_, column)| column.is_null(row)) {
                return said;
            }
            let values = formatters.iter().map(|formatter| Value::from(formatter.value(row).to_string()));
            Some(Value::Array(values.collect()).to_string())
        };
        let texts: StringArray = (0..rows.num_rows()).map(exact).collect();
        Ok((texts.null_count() < texts.len()).then(|| Arc::new(texts) as ArrayRef))
    }
}
