//! One table's rows, as they are sent.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{Int64Builder, StringBuilder, UInt8Builder},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use rollcall_capture::{LoadMark, TableChanges};
use rollcall_types::{Seq, columns};
use rusqlite::{Row, types::ValueRef};
use serde_json::{Map, Value};

use super::{ROW_BYTES_MAX, to_sql};
use crate::{
    error::{CaptureError, Doing},
    layout::{Layout, LayoutColumn},
    stored::Stored,
    value::{ColumnBuilder, Fit, column_type, misfit},
    withheld::Withheld,
};

/// Collects one table's rows.
pub(super) struct TableReader {
    pub(super) table: String,
    pub(super) layout: Option<Arc<Layout>>,
    seqs: Int64Builder,
    ops: UInt8Builder,
    changed: Int64Builder,
    values: Vec<ColumnBuilder>,
    /// Places of the key's columns.
    key: Vec<usize>,
    misfits: StringBuilder,
    has_misfit: bool,
    exact_keys: StringBuilder,
    has_exact_key: bool,
    pub(super) marks: Vec<LoadMark>,
    /// By column, whether it is withheld.
    hidden: Vec<bool>,
}

/// Journal columns before c0.
const FIXED_COLUMNS: usize = 4;

impl TableReader {
    pub(super) fn new(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            layout: None,
            seqs: Int64Builder::new(),
            ops: UInt8Builder::new(),
            changed: Int64Builder::new(),
            values: Vec::new(),
            key: Vec::new(),
            misfits: StringBuilder::new(),
            has_misfit: false,
            exact_keys: StringBuilder::new(),
            has_exact_key: false,
            marks: Vec::new(),
            hidden: Vec::new(),
        }
    }

    /// Whether a row of this layout can go with the rows so far.
    pub(super) fn takes(&self, number: i64) -> bool {
        self.layout.as_ref().is_none_or(|known| known.number == number)
    }

    pub(super) fn lay_out(&mut self, layout: &Arc<Layout>, withheld: &Withheld) {
        let is_hidden = |column: &LayoutColumn| withheld.has_column(&layout.table, &column.name);
        self.hidden = layout.columns.iter().map(is_hidden).collect();
        self.layout = Some(layout.clone());
        self.values = layout.columns.iter().map(|column| ColumnBuilder::new(&column.declared)).collect();
        let place = |name: &String| layout.columns.iter().position(|column| column.name == *name);
        self.key = layout.key.iter().filter_map(place).collect();
    }

    /// Appends an entry of the journal's own; `stated` takes the place of its last value.
    pub(super) fn append_stated(
        &mut self,
        layout: &Arc<Layout>,
        row: &Row<'_>,
        seq: Seq,
        stated: Option<&str>,
    ) -> Result<usize, CaptureError> {
        let last = stated.map(|text| ValueRef::Text(text.as_bytes()));
        self.append_values(layout, &Withheld::default(), row, seq, last)
    }

    /// Appends a journal row; returns the size of its values.
    pub(super) fn append(
        &mut self,
        layout: &Arc<Layout>,
        withheld: &Withheld,
        row: &Row<'_>,
        seq: Seq,
    ) -> Result<usize, CaptureError> {
        self.append_values(layout, withheld, row, seq, None)
    }

    fn append_values(
        &mut self,
        layout: &Arc<Layout>,
        withheld: &Withheld,
        row: &Row<'_>,
        seq: Seq,
        last: Option<ValueRef<'_>>,
    ) -> Result<usize, CaptureError> {
        let doing = "reading a journal row";
        if self.layout.is_none() {
            self.lay_out(layout, withheld);
        }
        let op = row.get_ref(2).doing(doing)?;
        let op = op.as_bytes().ok().and_then(|text| text.first().copied());
        self.seqs.append_value(to_sql(seq));
        self.ops.append_value(op.ok_or_else(|| CaptureError::Damaged(format!("row {seq} has no operation")))?);
        self.changed.append_option(row.get_ref(3).doing(doing)?.as_f64().ok().map(julian_to_micros));
        let mut misfits = Map::new();
        let (mut bytes, mut is_key_exact) = (0, true);
        for (index, builder) in self.values.iter_mut().enumerate() {
            if self.hidden[index] {
                builder.append_null();
                continue;
            }
            let value = match last.filter(|_| index + 1 == layout.columns.len()) {
                Some(last) => last,
                None => row.get_ref(FIXED_COLUMNS + index).doing(doing)?,
            };
            let length = value_bytes(value);
            let room = ROW_BYTES_MAX.saturating_sub(bytes);
            let fit = if length > room {
                builder.append_null();
                Fit::None
            } else {
                builder.append(value)
            };
            is_key_exact &= fit == Fit::Exact || !self.key.contains(&index);
            if fit != Fit::None {
                bytes += length;
                continue;
            }
            // As it is sent: bytes are twice as long in hexadecimal, and a text may be six times as
            // long in JSON.
            let misfit = Some(length).filter(|length| *length <= room).map(|_| misfit(value));
            let misfit = misfit.filter(|misfit| misfit.to_string().len() <= room);
            let name = &layout.columns[index].name;
            let misfit = misfit.unwrap_or_else(|| {
                tracing::error!(table = layout.table, %seq, column = name, length, "a value is too long to be sent");
                serde_json::json!({ "bytes": length })
            });
            bytes += misfit.to_string().len();
            misfits.insert(name.clone(), misfit);
        }
        let exact_key = match is_key_exact {
            true => None,
            false => exact_key(&self.key, row)?,
        };
        self.has_exact_key |= exact_key.is_some();
        self.exact_keys.append_option(exact_key);
        self.has_misfit |= !misfits.is_empty();
        let text = (!misfits.is_empty()).then(|| Value::Object(misfits).to_string());
        self.misfits.append_option(text);
        Ok(bytes)
    }

    pub(super) fn finish(mut self) -> Result<TableChanges, CaptureError> {
        let Some(layout) = &self.layout else {
            let rows = RecordBatch::new_empty(SchemaRef::new(Schema::empty()));
            return Ok(TableChanges { table: self.table, rows, marks: self.marks });
        };
        let mut arrays: Vec<ArrayRef> =
            vec![Arc::new(self.seqs.finish()), Arc::new(self.ops.finish()), Arc::new(self.changed.finish())];
        if self.has_misfit {
            arrays.push(Arc::new(self.misfits.finish()));
        }
        if self.has_exact_key {
            arrays.push(Arc::new(self.exact_keys.finish()));
        }
        let shown = self.values.iter_mut().zip(&self.hidden).filter(|(_, is_hidden)| !**is_hidden);
        arrays.extend(shown.map(|(builder, _)| builder.finish()));
        let rows = RecordBatch::try_new(schema(layout, &self.hidden, self.has_misfit, self.has_exact_key), arrays)
            .map_err(|error| CaptureError::Damaged(format!("rows of {:?}: {error}", self.table)))?;
        Ok(TableChanges { table: self.table, rows, marks: self.marks })
    }
}

/// The key of a journal row as JSON in which no two keys are the same; none if a part of it is
/// null, which names no row, or it is longer than a row may be.
fn exact_key(places: &[usize], row: &Row<'_>) -> Result<Option<String>, CaptureError> {
    let mut key = Vec::with_capacity(places.len());
    for place in places {
        match row.get_ref(FIXED_COLUMNS + place).doing("reading a journal row")? {
            ValueRef::Null => return Ok(None),
            value => key.push(Stored::from(value).exact()),
        }
    }
    Ok(Some(Value::Array(key).to_string()).filter(|key| key.len() <= ROW_BYTES_MAX / 8))
}

/// Ours come first: whoever looks for one of ours by its name finds it before a column of the
/// store's.
fn schema(layout: &Layout, hidden: &[bool], has_misfit: bool, has_exact_key: bool) -> SchemaRef {
    let mut fields = vec![
        Field::new(columns::SEQ, DataType::Int64, false),
        Field::new(columns::OP, DataType::UInt8, false),
        Field::new(columns::CHANGED_AT, DataType::Int64, true),
    ];
    if has_misfit {
        fields.push(Field::new(columns::MISFIT, DataType::Utf8, true));
    }
    if has_exact_key {
        fields.push(Field::new(columns::EXACT_KEY, DataType::Utf8, true));
    }
    let shown = layout.columns.iter().zip(hidden).filter(|(_, is_hidden)| !**is_hidden);
    fields.extend(shown.map(|(column, _)| {
        let metadata = HashMap::from([(columns::METADATA_DECLARED.to_owned(), column.declared.clone())]);
        Field::new(&column.name, column_type(&column.declared), true).with_metadata(metadata)
    }));
    let key = Value::from(layout.key.clone()).to_string();
    SchemaRef::new(Schema::new_with_metadata(fields, HashMap::from([(columns::METADATA_KEY.to_owned(), key)])))
}

fn value_bytes(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null => 1,
        ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
    }
}

/// Days since noon of 4714-11-24 BC (SQLite's `julianday`) as microseconds since the Unix epoch.
fn julian_to_micros(days: f64) -> i64 {
    const UNIX_EPOCH_DAYS: f64 = 2_440_587.5;
    // The number has about 40 µs of resolution; milliseconds are what SQLite knew.
    ((days - UNIX_EPOCH_DAYS) * 86_400_000.0).round() as i64 * 1000
}
