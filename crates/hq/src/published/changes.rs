//! What rows that are given change of a published table.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt8Array, UInt32Array};
use arrow_schema::{DataType, Field, Schema};
use rollcall_lake::{Column, TableSchema};
use rollcall_types::{HQ_SITE, Seq, Timestamp, columns, shared::Version};

use super::{
    Counts, Mode, failed,
    image::{self, Image, is_live, row_bytes},
    shared,
};
use crate::error::HqError;

/// What rows that are given change.
pub(super) struct Changes {
    pub(super) counts: Counts,
    /// `_op`s, and the rows; deleted ones by their keys alone.
    pub(super) ops: Vec<u8>,
    pub(super) rows: RecordBatch,
    /// Rows as they were, of those that change or go.
    pub(super) before: RecordBatch,
    /// All rows as they were, and for each of `rows` which of them it was; none if it was not
    /// there.
    was: RecordBatch,
    places: Vec<Option<u32>>,
}

impl Changes {
    pub(super) fn new(
        image: &Image,
        given: &RecordBatch,
        gone: Option<&RecordBatch>,
        schema: &TableSchema,
        key: &[String],
        mode: Mode,
    ) -> Result<Self, HqError> {
        let all: Vec<Column> = image::published_columns(schema);
        let old = image.rows();
        let keys = keys_of(given, key)?;
        let gone = gone.map(|gone| keys_of(gone, key)).transpose()?.unwrap_or_default();
        let old_keys = if image.columns.is_empty() { Vec::new() } else { row_bytes(old, key).map_err(failed)? };
        let places: HashMap<&[u8], usize> =
            old_keys.iter().enumerate().map(|(place, key)| (key.as_ref(), place)).collect();
        let mut seen: HashMap<&[u8], usize> = HashMap::new();
        for (row, key) in keys.iter().enumerate() {
            if let Some(first) = seen.insert(key, row) {
                return Err(HqError::Invalid(format!("rows {} and {} have the same key", first + 1, row + 1)));
            }
        }
        let live = is_live(old);
        let live_at = |place: usize| live.value(place);
        // Columns that were not given stay as they are.
        let keeps = |row: usize| match mode {
            Mode::Merge => places.get(keys[row].as_ref()).copied().filter(|place| live_at(*place)),
            Mode::Insert | Mode::Replace => None,
        };
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(all.len());
        let mut old_arrays: Vec<ArrayRef> = Vec::with_capacity(all.len());
        for column in &all {
            let kind = column.kind.arrow();
            let null = arrow_array::new_null_array(&kind, 1);
            let was = match old.column_by_name(&column.name) {
                Some(array) => array.clone(),
                None => arrow_array::new_null_array(&kind, old.num_rows()),
            };
            arrays.push(match given.column_by_name(&column.name) {
                Some(array) => array.clone(),
                None => {
                    let from: Vec<(usize, usize)> =
                        (0..keys.len()).map(|row| keeps(row).map_or((1, 0), |place| (0, place))).collect();
                    arrow_select::interleave::interleave(&[was.as_ref(), null.as_ref()], &from).map_err(failed)?
                }
            });
            old_arrays.push(was);
        }
        let fields: Vec<Field> = all.iter().map(|column| Field::new(&column.name, column.kind.arrow(), true)).collect();
        let shape = Arc::new(Schema::new(fields));
        let new = RecordBatch::try_new(shape.clone(), arrays).map_err(failed)?;
        let was = RecordBatch::try_new(shape.clone(), old_arrays).map_err(failed)?;
        let names: Vec<String> = all.iter().map(|column| column.name.clone()).collect();
        let (new_bytes, old_bytes) =
            (row_bytes(&new, &names).map_err(failed)?, row_bytes(&was, &names).map_err(failed)?);
        let mut counts = Counts::default();
        let (mut ops, mut was_at) = (Vec::new(), Vec::new());
        // (0, row) is a row that is given, (1, place) one that was there.
        let mut after: Vec<(usize, usize)> = Vec::new();
        let mut before: Vec<(usize, usize)> = Vec::new();
        for (row, bytes) in new_bytes.iter().enumerate() {
            let place = places.get(keys[row].as_ref()).copied();
            let is_there = place.filter(|place| live_at(*place));
            let same = is_there.is_some_and(|place| old_bytes[place] == *bytes);
            match (mode, is_there) {
                (Mode::Insert, Some(_)) => return Err(HqError::Exists(format!("row {} is there already", row + 1))),
                _ if same => counts.unchanged += 1,
                (_, there) => {
                    // A row that was there once and went is no new one: what is new supersedes
                    // nothing.
                    ops.push(if place.is_some() { b'U' } else { b'I' });
                    *(if there.is_some() { &mut counts.updated } else { &mut counts.inserted }) += 1;
                    after.push((0, row));
                    was_at.push(there.map(|place| place as u32));
                }
            }
            before.extend(is_there.filter(|_| !same).map(|place| (1, place)));
        }
        let gone: HashSet<&[u8]> = gone.iter().map(AsRef::as_ref).collect();
        let goes = |place: &usize| {
            let key = old_keys[*place].as_ref();
            live_at(*place) && !seen.contains_key(key) && (mode == Mode::Replace || gone.contains(key))
        };
        for place in (0..old.num_rows()).filter(goes) {
            counts.deleted += 1;
            ops.push(b'D');
            after.push((1, place));
            was_at.push(None);
            before.push((1, place));
        }
        let was_there = |key: &&&[u8]| places.get(**key).is_some_and(|place| live_at(*place));
        counts.unchanged += (gone.len() - gone.iter().filter(was_there).count()) as u64;
        let pick = |from: &[(usize, usize)]| arrow_select::interleave::interleave_record_batch(&[&new, &was], from);
        let rows = only_keys(&pick(&after).map_err(failed)?, &ops, key)?;
        let before = pick(&before).map_err(failed)?;
        Ok(Self { counts, ops, rows, before, was, places: was_at })
    }

    /// `rows` with who changed what; see [`shared::ORIGIN`].
    pub(super) fn with_origin(
        &self,
        rows: &RecordBatch,
        key: &[String],
        now: Timestamp,
    ) -> Result<RecordBatch, HqError> {
        let places = UInt32Array::from(self.places.clone());
        let mut changed: Vec<Vec<String>> = vec![Vec::new(); self.ops.len()];
        for (field, array) in self.rows.schema_ref().fields().iter().zip(self.rows.columns()) {
            if key.contains(field.name()) {
                continue;
            }
            let was = self.was.column_by_name(field.name()).ok_or(HqError::Outdated)?;
            let was = arrow_select::take::take(was, &places, None).map_err(failed)?;
            let differs = arrow_ord::cmp::distinct(array, &was).map_err(failed)?;
            for (row, changed) in changed.iter_mut().enumerate() {
                if self.places[row].is_none() || differs.value(row) {
                    changed.push(field.name().clone());
                }
            }
        }
        let origin = |(changed, op): (Vec<String>, &u8)| {
            let (by, at) = (HQ_SITE.to_owned(), now.as_micros());
            serde_json::to_string(&Version { by, at, changed, gone: *op == b'D', restated: false }).unwrap_or_default()
        };
        let origins: StringArray = changed.into_iter().zip(&self.ops).map(origin).map(Some).collect();
        let mut fields: Vec<Field> = rows.schema_ref().fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.push(Field::new(shared::ORIGIN, DataType::Utf8, true));
        let mut arrays = rows.columns().to_vec();
        arrays.push(Arc::new(origins));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(failed)
    }

    pub(super) fn shape(&self) -> Arc<Schema> {
        self.rows.schema()
    }

    /// The rows as the lake takes them, with positions behind `previous`.
    pub(super) fn rows(&self, previous: Seq, now: Timestamp) -> Result<RecordBatch, HqError> {
        let seqs = (1..).map(|number| (previous.0 + number) as i64).take(self.ops.len());
        let mut fields = vec![
            Field::new(columns::SEQ, DataType::Int64, true),
            Field::new(columns::OP, DataType::UInt8, true),
            Field::new(columns::CHANGED_AT, DataType::Int64, true),
        ];
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(seqs)),
            Arc::new(UInt8Array::from(self.ops.clone())),
            Arc::new(Int64Array::from(vec![now.as_micros(); self.ops.len()])),
        ];
        // The lake keeps times in its own type.
        arrays[2] = arrow_cast::cast(&arrays[2], &rollcall_lake::ColumnType::Timestamp.arrow()).map_err(failed)?;
        fields[2] = Field::new(columns::CHANGED_AT, arrays[2].data_type().clone(), true);
        fields.extend(self.rows.schema().fields().iter().map(|field| field.as_ref().clone()));
        arrays.extend(self.rows.columns().iter().cloned());
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(failed)
    }
}

/// The keys of rows that were given; each must have one.
fn keys_of(rows: &RecordBatch, key: &[String]) -> Result<Vec<Box<[u8]>>, HqError> {
    if rows.num_rows() == 0 {
        return Ok(Vec::new());
    }
    for column in key {
        let array = rows.column_by_name(column);
        let array =
            array.ok_or_else(|| HqError::Invalid(format!("the rows have no column {column}, which names them")))?;
        if array.null_count() > 0 {
            return Err(HqError::Invalid(format!("{column} names rows, and is empty in some")));
        }
    }
    row_bytes(rows, key).map_err(failed)
}

/// Rows that are deleted say nothing but their keys.
fn only_keys(rows: &RecordBatch, ops: &[u8], key: &[String]) -> Result<RecordBatch, HqError> {
    let goes: BooleanArray = ops.iter().map(|op| Some(*op == b'D')).collect();
    let columns =
        rows.schema_ref().fields().iter().zip(rows.columns()).map(|(field, array)| match key.contains(field.name()) {
            true => Ok(array.clone()),
            false => arrow_select::nullif::nullif(array, &goes),
        });
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    RecordBatch::try_new(rows.schema(), columns).map_err(failed)
}
