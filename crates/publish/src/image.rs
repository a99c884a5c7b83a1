//! A published table as a node holds it: the newest version of each row, in the order of
//! publication.
//!
//! Rows that were deleted are among them, by their keys alone, so that whatever was published
//! behind a position is what a site that stands there needs, each key once: a log compacted by key.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, cast::AsArray, types::Int64Type};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use arrow_select::{concat::concat_batches, filter::filter_record_batch};
use rollcall_lake::{Column, TableSchema, our_columns};
use rollcall_types::Seq;

/// See the module.
#[derive(Debug)]
pub struct Image {
    /// The position of the newest row.
    pub version: Seq,
    /// The columns that are published, and their types.
    pub columns: Vec<Column>,
    /// The columns that name a row.
    pub key: Vec<String>,
    /// `_seq`, `_op`, and the columns; ascending positions, each key once.
    rows: RecordBatch,
    /// Rows that were replaced since `known_from`: `_seq` is the position at which they were, then
    /// as in `rows`.
    replaced: RecordBatch,
    known_from: Seq,
    /// The end of each publication, and when it was made, microseconds since 1970.
    made: Vec<(Seq, i64)>,
}

/// Replaced rows that are kept.
const REPLACED_MAX: usize = 200_000;

/// The bytes by which a row is told from others, for each row.
pub(crate) fn row_bytes(rows: &RecordBatch, columns: &[String]) -> Result<Vec<Box<[u8]>>, ArrowError> {
    let arrays: Vec<ArrayRef> = columns
        .iter()
        .map(|name| {
            let array = rows.column_by_name(name).cloned();
            array.ok_or_else(|| ArrowError::SchemaError(format!("there is no column {name}")))
        })
        .collect::<Result<_, _>>()?;
    let fields = arrays.iter().map(|array| SortField::new(array.data_type().clone())).collect();
    let converted = RowConverter::new(fields)?.convert_columns(&arrays)?;
    Ok(converted.iter().map(|row| row.as_ref().into()).collect())
}

/// The published columns of a table.
pub(crate) fn published_columns(schema: &TableSchema) -> Vec<Column> {
    schema.columns.iter().filter(|column| !column.name.starts_with('_')).cloned().collect()
}

/// Columns of an image before the published ones.
pub(crate) const OURS: usize = 2;

/// `_seq`, `_op`, and these columns.
fn schema_of(columns: &[Column]) -> SchemaRef {
    use arrow_schema::DataType::{Int64, Utf8};
    let ours = [Field::new(our_columns::SEQ, Int64, false), Field::new(our_columns::OP, Utf8, false)];
    let theirs = columns.iter().map(|column| Field::new(&column.name, column.kind.arrow(), true));
    Arc::new(Schema::new(ours.into_iter().chain(theirs).collect::<Vec<_>>()))
}

/// `rows` in this schema: columns it lacks are null.
fn aligned(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| match rows.column_by_name(field.name()) {
        Some(array) => arrow_cast::cast(array, field.data_type()),
        None => Ok(arrow_array::new_null_array(field.data_type(), rows.num_rows())),
    });
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)
}

/// The positions of an image's rows.
pub(crate) fn seqs(rows: &RecordBatch) -> &Int64Array {
    rows.column(0).as_primitive::<Int64Type>()
}

impl Image {
    /// Nothing is published yet.
    pub fn empty(schema: &TableSchema) -> Self {
        let columns = published_columns(schema);
        let rows = RecordBatch::new_empty(schema_of(&columns));
        let key = schema.key.clone();
        Self { version: Seq(0), columns, key, replaced: rows.clone(), rows, known_from: Seq(0), made: Vec::new() }
    }

    /// The same rows as of another version: what is read behind it is what came then.
    pub fn standing_at(mut self, version: Seq) -> Self {
        self.version = version;
        self
    }

    /// The image after these rows of the table's history, in the order of publication, all behind
    /// this image's version.
    pub fn with(&self, newer: &[RecordBatch], schema: &TableSchema) -> Result<Self, ArrowError> {
        let columns = published_columns(schema);
        let shape = schema_of(&columns);
        let newer: Vec<RecordBatch> = newer.iter().map(|rows| aligned(rows, &shape)).collect::<Result<_, _>>()?;
        let newer = concat_batches(&shape, &newer)?;
        let older = aligned(&self.rows, &shape)?;
        let key = if schema.key.is_empty() { self.key.clone() } else { schema.key.clone() };
        if newer.num_rows() == 0 {
            let replaced = aligned(&self.replaced, &shape)?;
            return Ok(Self {
                version: self.version,
                columns,
                key,
                rows: older,
                replaced,
                known_from: self.known_from,
                made: self.made.clone(),
            });
        }
        let keys = row_bytes(&newer, &key)?;
        let newest: HashMap<&[u8], usize> = keys.iter().enumerate().map(|(row, key)| (key.as_ref(), row)).collect();
        let is_newest = keys.iter().enumerate().map(|(row, key)| Some(newest[key.as_ref()] == row));
        let is_newest: BooleanArray = is_newest.collect();
        let older_keys = row_bytes(&older, &key)?;
        let stays: BooleanArray = older_keys.iter().map(|key| Some(!newest.contains_key(key.as_ref()))).collect();
        let rows =
            concat_batches(&shape, &[filter_record_batch(&older, &stays)?, filter_record_batch(&newer, &is_newest)?])?;
        // Where each row that goes was replaced.
        let goes = arrow_select::filter::filter_record_batch(&older, &not(&stays))?;
        let at: Int64Array =
            older_keys.iter().filter_map(|key| newest.get(key.as_ref())).map(|row| seqs(&newer).value(*row)).collect();
        let mut arrays = goes.columns().to_vec();
        arrays[0] = Arc::new(at);
        let goes = RecordBatch::try_new(shape.clone(), arrays)?;
        let mut replaced = concat_batches(&shape, &[aligned(&self.replaced, &shape)?, goes])?;
        // Two versions published since: the one between was never seen here, and may have been for
        // other sites.
        let mut known_from = if keys.len() > newest.len() { self.newest_of(&newer) } else { self.known_from };
        if replaced.num_rows() > REPLACED_MAX {
            replaced = RecordBatch::new_empty(shape);
            known_from = self.newest_of(&newer);
        }
        let version = self.newest_of(&newer);
        Ok(Self { version, columns, key, rows, replaced, known_from, made: self.made.clone() })
    }

    fn newest_of(&self, newer: &RecordBatch) -> Seq {
        let last = seqs(newer).values().iter().max().copied().unwrap_or_default();
        Seq(last.unsigned_abs()).max(self.version)
    }

    /// Notes that a row was published at a time; rows in the order of publication.
    pub fn note_made(&mut self, seq: Seq, at: i64) {
        match self.made.last_mut() {
            Some(last) if last.1 == at => last.0 = seq,
            _ => self.made.push((seq, at)),
        }
    }

    /// When a version was made, microseconds since 1970; none if there is no such version.
    pub fn made_at(&self, version: Seq) -> Option<i64> {
        let place = self.made.binary_search_by_key(&version, |of| of.0).ok()?;
        Some(self.made[place].1)
    }

    /// Whether a version that was made at this time is none of these, though its number is in their
    /// range.
    pub fn disowns(&self, version: Seq, made_at: i64) -> bool {
        let in_range = self.made.first().is_some_and(|first| first.0 <= version) && version <= self.version;
        in_range && self.made_at(version) != Some(made_at)
    }

    /// Rows and deleted keys: `_seq`, `_op`, and the columns.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// How many rows the table has; deleted ones do not count.
    pub fn count(&self) -> usize {
        let operations = self.rows.column(1).as_string::<i32>();
        (0..self.rows.num_rows()).filter(|row| operations.value(*row) != "D").count()
    }

    /// What was published behind a position.
    pub fn behind(&self, after: Seq) -> RecordBatch {
        let from = seqs(&self.rows).values().partition_point(|seq| seq.unsigned_abs() <= after.0);
        self.rows.slice(from, self.rows.num_rows() - from)
    }

    /// Rows as they were before they were replaced behind a position; none if that is not known so
    /// far back.
    pub fn replaced_behind(&self, after: Seq) -> Option<RecordBatch> {
        if after < self.known_from {
            return None;
        }
        let behind: BooleanArray =
            seqs(&self.replaced).values().iter().map(|seq| Some(seq.unsigned_abs() > after.0)).collect();
        filter_record_batch(&self.replaced, &behind).ok()
    }

    /// The columns' schema, without ours: what a rule is about.
    pub fn schema(&self) -> SchemaRef {
        let fields: Vec<Field> =
            self.columns.iter().map(|column| Field::new(&column.name, column.kind.arrow(), true)).collect();
        Arc::new(Schema::new(fields))
    }

    /// Rows that were not deleted.
    pub fn live(&self) -> usize {
        is_live(&self.rows).true_count()
    }
}

/// Which rows are no deletions.
pub(crate) fn is_live(rows: &RecordBatch) -> BooleanArray {
    let ops = rows.column(1).as_string::<i32>();
    ops.iter().map(|op| Some(op != Some("D"))).collect()
}

/// The other rows.
pub(crate) fn not(mask: &BooleanArray) -> BooleanArray {
    mask.iter().map(|value| Some(value != Some(true))).collect()
}

/// Those of `keys` that are not in `without`.
pub(crate) fn outside(keys: &[Box<[u8]>], without: &[Box<[u8]>]) -> BooleanArray {
    let without: HashSet<&[u8]> = without.iter().map(AsRef::as_ref).collect();
    let mut seen: HashSet<&[u8]> = HashSet::new();
    keys.iter().map(|key| Some(!without.contains(key.as_ref()) && seen.insert(key.as_ref()))).collect()
}
