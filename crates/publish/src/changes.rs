//! What rows that are given change of a published table.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt8Array, UInt32Array};
use arrow_schema::{DataType, Field, Schema};
use rollcall_lake::{Column, TableSchema};
use rollcall_types::{HQ_SITE, Seq, Timestamp, columns, shared::Version};

use rollcall_books::definitions::Counts;
use rollcall_registry::HqError;

use crate::{
    image::{self, Image, is_live, row_bytes},
    shared_tables,
    tables::{Mode, failed},
};

/// What rows that are given change.
pub(crate) struct Changes {
    pub counts: Counts,
    /// `_op`s, and the rows; deleted ones by their keys alone.
    pub ops: Vec<u8>,
    pub rows: RecordBatch,
    /// Rows as they were, of those that change or go.
    pub before: RecordBatch,
    /// All rows as they were, and for each of `rows` which of them it was; none if it was not
    /// there.
    was: RecordBatch,
    places: Vec<Option<u32>>,
}

/// The rows that are there: their keys, and where each is.
struct There<'a> {
    keys: &'a [Box<[u8]>],
    places: HashMap<&'a [u8], usize>,
    live: BooleanArray,
}

impl<'a> There<'a> {
    fn new(rows: &RecordBatch, keys: &'a [Box<[u8]>]) -> Self {
        let places = keys.iter().enumerate().map(|(place, key)| (key.as_ref(), place)).collect();
        Self { keys, places, live: is_live(rows) }
    }

    /// Where the row with a key is or was, deleted ones too.
    fn place(&self, key: &[u8]) -> Option<usize> {
        self.places.get(key).copied()
    }

    /// Where the row with a key is; none if it is not there any more.
    fn live_place(&self, key: &[u8]) -> Option<usize> {
        self.place(key).filter(|place| self.live.value(*place))
    }

    /// The places of the rows whose keys are chosen.
    fn live_places(&self, is_chosen: impl Fn(&[u8]) -> bool) -> impl Iterator<Item = usize> {
        let live = self.live.values().iter();
        self.keys
            .iter()
            .zip(live)
            .enumerate()
            .filter_map(move |(place, (key, live))| (live && is_chosen(key)).then_some(place))
    }
}

/// What becomes of rows, one after another.
#[derive(Default)]
struct Steps {
    counts: Counts,
    ops: Vec<u8>,
    /// (0, row) is a row that is given, (1, place) one that was there.
    after: Vec<(usize, usize)>,
    before: Vec<(usize, usize)>,
    was_at: Vec<Option<u32>>,
}

impl Steps {
    /// A given row comes, or takes the place of the one that is `there`.
    fn comes(&mut self, row: usize, is_known: bool, there: Option<usize>) {
        // A row that was there once and went is no new one: what is new supersedes nothing.
        self.ops.push(if is_known { b'U' } else { b'I' });
        *(if there.is_some() { &mut self.counts.updated } else { &mut self.counts.inserted }) += 1;
        self.after.push((0, row));
        self.was_at.push(there.map(|place| place as u32));
        self.before.extend(there.map(|place| (1, place)));
    }

    fn goes(&mut self, place: usize) {
        self.counts.deleted += 1;
        self.ops.push(b'D');
        self.after.push((1, place));
        self.was_at.push(None);
        self.before.push((1, place));
    }
}

impl Changes {
    pub(crate) fn new(
        image: &Image,
        given: &RecordBatch,
        gone: Option<&RecordBatch>,
        schema: &TableSchema,
        key: &[String],
        mode: Mode,
    ) -> Result<Self, HqError> {
        let columns: Vec<Column> = image::published_columns(schema);
        let old = image.rows();
        let keys = keys_of(given, key)?;
        let gone_keys = gone.map(|gone| keys_of(gone, key)).transpose()?.unwrap_or_default();
        let old_keys = if image.columns.is_empty() { Vec::new() } else { row_bytes(old, key).map_err(failed)? };
        let there = There::new(old, &old_keys);
        let given_keys = different(&keys)?;
        // Columns that were not given stay as they are.
        let keeps = |key: &[u8]| if mode == Mode::Merge { there.live_place(key) } else { None };
        let kept: Vec<Option<usize>> = keys.iter().map(|key| keeps(key)).collect();
        let was = in_columns(old, &columns)?;
        let new = completed(given, &was, &kept)?;
        let names: Vec<String> = columns.into_iter().map(|column| column.name).collect();
        let new_bytes = row_bytes(&new, &names).map_err(failed)?;
        let old_bytes = row_bytes(&was, &names).map_err(failed)?;
        let mut steps = Steps::default();
        for (row, key) in keys.iter().enumerate() {
            match there.live_place(key) {
                Some(_) if mode == Mode::Insert => {
                    return Err(HqError::Exists(format!("row {} is there already", row + 1)));
                }
                Some(place) if old_bytes[place] == new_bytes[row] => steps.counts.unchanged += 1,
                place => steps.comes(row, there.place(key).is_some(), place),
            }
        }
        let gone: HashSet<&[u8]> = gone_keys.iter().map(AsRef::as_ref).collect();
        let goes = |key: &[u8]| !given_keys.contains(key) && (mode == Mode::Replace || gone.contains(key));
        there.live_places(goes).for_each(|place| steps.goes(place));
        steps.counts.unchanged += gone.iter().filter(|key| there.live_place(key).is_none()).count() as u64;
        let Steps { counts, ops, after, before, was_at } = steps;
        let pick = |from: &[(usize, usize)]| arrow_select::interleave::interleave_record_batch(&[&new, &was], from);
        let rows = only_keys(&pick(&after).map_err(failed)?, &ops, key)?;
        let before = pick(&before).map_err(failed)?;
        Ok(Self { counts, ops, rows, before, was, places: was_at })
    }

    /// `rows` with who changed what; see [`shared_tables::ORIGIN`].
    pub(crate) fn with_origin(
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
        fields.push(Field::new(shared_tables::ORIGIN, DataType::Utf8, true));
        let mut arrays = rows.columns().to_vec();
        arrays.push(Arc::new(origins));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(failed)
    }

    pub(crate) fn shape(&self) -> Arc<Schema> {
        self.rows.schema()
    }

    /// The rows as the lake takes them, with positions behind `previous`.
    pub(crate) fn rows(&self, previous: Seq, now: Timestamp) -> Result<RecordBatch, HqError> {
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

/// The keys of rows that are given. Refuses two that are the same.
fn different(keys: &[Box<[u8]>]) -> Result<HashSet<&[u8]>, HqError> {
    let mut seen: HashMap<&[u8], usize> = HashMap::new();
    for (row, key) in keys.iter().enumerate() {
        if let Some(first) = seen.insert(key, row) {
            return Err(HqError::Invalid(format!("rows {} and {} have the same key", first + 1, row + 1)));
        }
    }
    Ok(seen.into_keys().collect())
}

/// Rows in these columns: those that they have not are null.
fn in_columns(rows: &RecordBatch, columns: &[Column]) -> Result<RecordBatch, HqError> {
    let fields: Vec<Field> = columns.iter().map(|column| Field::new(&column.name, column.kind.arrow(), true)).collect();
    let arrays = fields.iter().map(|field| match rows.column_by_name(field.name()) {
        Some(array) => array.clone(),
        None => arrow_array::new_null_array(field.data_type(), rows.num_rows()),
    });
    let arrays = arrays.collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(failed)
}

/// The given rows in the columns of the rows as they were. What is not given is as in the row that
/// each keeps of those, or null.
fn completed(given: &RecordBatch, was: &RecordBatch, kept: &[Option<usize>]) -> Result<RecordBatch, HqError> {
    let from: Vec<(usize, usize)> = kept.iter().map(|place| place.map_or((1, 0), |place| (0, place))).collect();
    let columns = was.schema_ref().fields().iter().zip(was.columns());
    let arrays = columns.map(|(field, was)| match given.column_by_name(field.name()) {
        Some(array) => Ok(array.clone()),
        None => {
            let null = arrow_array::new_null_array(field.data_type(), 1);
            arrow_select::interleave::interleave(&[was.as_ref(), null.as_ref()], &from).map_err(failed)
        }
    });
    let arrays: Vec<ArrayRef> = arrays.collect::<Result<_, _>>()?;
    RecordBatch::try_new(was.schema(), arrays).map_err(failed)
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
