//! A site's rows in the types HQ decided for the table.
//!
//! A column's type is decided once, from the first site that sends it. Another store's values are
//! cast where the cast loses nothing; a value it would change goes to the row's misfit object
//! instead. Local times become UTC by the site's zone, with the original text kept in a column
//! `<name>_local`.

mod lost;
mod times;

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray, builder::Date32Builder,
    cast::AsArray, types::Int64Type,
};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, Schema};
use chrono::NaiveDate;
use chrono_tz::Tz;
use rollcall_types::{Seq, columns, columns::at_hq as column_name_at_hq};

use self::lost::{ExactKeys, Misfits};
use self::times::{epoch_micros, parse_times};

use crate::{
    error::{Doing, LakeError},
    misfit,
    schema::{Column, ColumnType, TableSchema, our_columns},
};

/// A site's sense of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SiteClock {
    /// The site's zone: local times without an offset are in it.
    pub zone: Tz,
    /// To be added to the site's clock to get HQ's, microseconds.
    pub offset_micros: i64,
}

impl Default for SiteClock {
    fn default() -> Self {
        Self { zone: Tz::UTC, offset_micros: 0 }
    }
}

/// A load's mark within a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartMark {
    /// Which mark.
    pub kind: MarkKind,
    /// Position of the mark.
    pub seq: Seq,
    /// Position where the load began.
    pub begin: Seq,
}

/// Kinds of [`PartMark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkKind {
    /// A load begins.
    LoadBegun,
    /// A load is complete.
    LoadComplete,
}

/// Rows in HQ's types.
#[derive(Debug, Clone)]
pub struct Conformed {
    /// `_seq`, `_op` (as sent), `_changed_at`, the site's columns under their names at HQ, and
    /// `_misfit` if any.
    pub rows: RecordBatch,
    /// Columns the table did not have yet.
    pub new_columns: Vec<Column>,
    /// The key the site declares, under the names at HQ.
    pub key: Vec<String>,
    /// How many rows have a misfit.
    pub misfits: usize,
    /// Why rows were left out, if any were: their key is null or does not fit its column, so they
    /// could not be told apart.
    pub unidentified: Option<String>,
    /// Rows whose key is kept as the site wrote it only because HQ reads its text as a time or a
    /// day, by `_seq`, ascending.
    read_keys: Vec<i64>,
    clock: SiteClock,
}

impl Conformed {
    /// No rows: a part that only carries marks.
    pub fn empty() -> Self {
        let rows = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let clock = SiteClock::default();
        let (new_columns, key, read_keys) = (Vec::new(), Vec::new(), Vec::new());
        Self { rows, new_columns, key, misfits: 0, unidentified: None, read_keys, clock }
    }

    /// Rows of these, without the exact form of keys that HQ reads where they come before `from`:
    /// rows that are stored without it must be found by their changes.
    pub(crate) fn exact_from<'a>(
        &self,
        rows: Cow<'a, RecordBatch>,
        from: Seq,
    ) -> Result<Cow<'a, RecordBatch>, LakeError> {
        let Some(place) =
            rows.schema_ref().index_of(our_columns::EXACT_KEY).ok().filter(|_| !self.read_keys.is_empty())
        else {
            return Ok(rows);
        };
        let Some(seqs) = rows.column_by_name(columns::SEQ) else { return Ok(rows) };
        let is_without =
            |seq: i64| (from == Seq(0) || seq.unsigned_abs() < from.0) && self.read_keys.binary_search(&seq).is_ok();
        let without: BooleanArray =
            seqs.as_primitive::<Int64Type>().values().iter().map(|seq| Some(is_without(*seq))).collect();
        if without.true_count() == 0 {
            return Ok(rows);
        }
        let doing = "leaving out exact keys";
        let mut arrays = rows.columns().to_vec();
        arrays[place] = arrow_select::nullif::nullif(&arrays[place], &without).doing(doing)?;
        RecordBatch::try_new(rows.schema(), arrays).doing(doing).map(Cow::Owned)
    }
}

/// The column that has a time without a zone as the site wrote it.
pub fn local_name(column: &str) -> String {
    format!("{column}_local")
}

/// Brings a site's rows into the types of `schema`; proposes types for columns it does not have.
pub fn conform(rows: &RecordBatch, schema: &TableSchema, clock: SiteClock) -> Result<Conformed, LakeError> {
    if rows.num_columns() == 0 {
        return Ok(Conformed::empty());
    }
    let mut out = Assembled::default();
    let mut misfits = Misfits::new(rows)?;
    let mut new_columns = Vec::new();
    let mut kinds: HashMap<String, ColumnType> = HashMap::new();
    let key = key_of(rows)?;
    check_key(&key, &schema.key)?;
    let mut exact_keys = ExactKeys::new(rows)?;
    for (field, array) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        // A column of the store's may be called like one of ours; it says how it was declared
        // there.
        let is_ours = !field.metadata().contains_key(columns::METADATA_DECLARED);
        match field.name().as_str() {
            columns::SEQ | columns::OP if is_ours => out.push(field.name(), array.clone()),
            columns::CHANGED_AT if is_ours => out.push(field.name(), on_hqs_clock(array, clock)?),
            columns::MISFIT | columns::EXACT_KEY if is_ours => {}
            site_name => {
                let name = column_name_at_hq(site_name);
                if out.has(&name) {
                    return Err(LakeError::Rows(format!("two columns of one table would be called {name:?} at HQ")));
                }
                let known = schema.column(&name).map(|column| column.kind);
                let kind = known.unwrap_or_else(|| {
                    let declared = field.metadata().get(columns::METADATA_DECLARED).map_or("", String::as_str);
                    ColumnType::propose(declared, array.data_type())
                });
                let local_name = local_name(&name);
                let is_free =
                    rows.schema_ref().fields().iter().all(|other| column_name_at_hq(other.name()) != local_name)
                        && schema.column(&local_name).is_none_or(|known| known.kind == ColumnType::String);
                kinds.insert(name.clone(), kind);
                let converted = convert(array, kind, clock.zone, is_free)?;
                misfits.note_lost(site_name, array, &converted.array)?;
                if key.contains(&name) {
                    exact_keys.note(site_name, array, &converted.array, is_parsed(array.data_type(), kind));
                }
                if known.is_none() {
                    let site_name = (site_name != name).then(|| site_name.to_owned());
                    new_columns.push(Column { name: name.clone(), kind, site_name });
                }
                // A column of the store's own goes first; then the local text is not kept.
                if let Some(local) = converted.local.filter(|_| is_free) {
                    if schema.column(&local_name).is_none() {
                        new_columns.push(Column::new(&local_name, ColumnType::String));
                    }
                    out.push(&local_name, local);
                }
                out.push(&name, converted.array);
            }
        }
    }
    let read_keys = exact_keys.read(rows);
    if let Some(exact) = exact_keys.finish(rows)? {
        if schema.column(our_columns::EXACT_KEY).is_none() {
            new_columns.push(Column::new(our_columns::EXACT_KEY, ColumnType::String));
        }
        out.push(our_columns::EXACT_KEY, exact);
    }
    let count = misfits.count();
    if let Some(array) = misfits.finish() {
        out.push(our_columns::MISFIT, array);
    }
    // What did not fit the column that the store declares may fit the one that HQ has.
    let rows = misfit::take_in(out.finish()?, |name| kinds.get(name).copied())?;
    let (rows, unidentified) = identified(rows, if key.is_empty() { &schema.key } else { &key })?;
    Ok(Conformed { rows, new_columns, key, misfits: count, unidentified, read_keys, clock })
}

/// Refuses a site's key where the table has another one.
pub(crate) fn check_key(of_site: &[String], of_table: &[String]) -> Result<(), LakeError> {
    if of_site.is_empty() || of_table.is_empty() || of_site == of_table {
        return Ok(());
    }
    Err(LakeError::Rows(format!(
        "the site's key is {of_site:?}, the table's at HQ {of_table:?}: rows could not be told apart; sites that \
         fill one table must have the same key for it"
    )))
}

/// The rows that have a key, and what is to be said of the others. Null stands for all values that
/// do not fit: an update of one such row would hide all of them.
fn identified(rows: RecordBatch, key: &[String]) -> Result<(RecordBatch, Option<String>), LakeError> {
    let exact = rows.column_by_name(our_columns::EXACT_KEY).cloned();
    let is_null = |name: &String| rows.column_by_name(name).is_none_or(|column| column.null_count() > 0);
    let flawed: Vec<&String> = key.iter().filter(|name| is_null(name)).collect();
    if flawed.is_empty() || rows.num_rows() == 0 {
        return Ok((rows, None));
    }
    let has_key = |row: &usize| {
        exact.as_ref().is_some_and(|exact| exact.is_valid(*row))
            || flawed.iter().all(|name| rows.column_by_name(name).is_some_and(|column| column.is_valid(*row)))
    };
    let kept: BooleanArray = (0..rows.num_rows()).map(|row| Some(has_key(&row))).collect();
    let lost = kept.false_count();
    if lost == 0 {
        return Ok((rows, None));
    }
    let kept = arrow_select::filter::filter_record_batch(&rows, &kept).doing("leaving out rows without a key")?;
    let reason = format!(
        "{lost} of {} rows could not be told apart: in the key ({}) they have null, or a value too long to be sent",
        rows.num_rows(),
        flawed.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
    );
    Ok((kept, Some(reason)))
}

/// Brings rows conformed to an older schema into the types of `schema`, where a column's type was
/// decided otherwise between the two: two stores sent a new column at the same time, or a person
/// gave it a wider type.
pub(crate) fn recast<'a>(
    rows: &'a RecordBatch,
    part: &Conformed,
    schema: &TableSchema,
) -> Result<Cow<'a, RecordBatch>, LakeError> {
    let is_another = |field: &Arc<Field>| {
        let known = schema.column(field.name()).filter(|known| known.name != our_columns::OP);
        known.is_some_and(|known| known.kind.arrow() != *field.data_type())
    };
    if !rows.schema_ref().fields().iter().any(is_another) {
        return Ok(Cow::Borrowed(rows));
    }
    let again = conform(rows, schema, part.clock)?;
    match again.unidentified {
        // They go to quarantine when the site sends them again, since the table's types are known
        // by then.
        Some(reason) => Err(LakeError::Rows(reason)),
        None => Ok(Cow::Owned(again.rows)),
    }
}

fn key_of(rows: &RecordBatch) -> Result<Vec<String>, LakeError> {
    let Some(text) = rows.schema_ref().metadata().get(columns::METADATA_KEY) else { return Ok(Vec::new()) };
    let names: Vec<String> = serde_json::from_str(text).map_err(|error| LakeError::Rows(error.to_string()))?;
    Ok(names.iter().map(|name| column_name_at_hq(name)).collect())
}

fn on_hqs_clock(array: &ArrayRef, clock: SiteClock) -> Result<ArrayRef, LakeError> {
    if matches!(array.data_type(), DataType::Timestamp(..)) {
        return Ok(array.clone());
    }
    let doing = "reading times of changes";
    let micros = arrow_cast::cast(array, &DataType::Int64).doing(doing)?;
    let shifted: Int64Array =
        micros.as_primitive::<Int64Type>().unary(|micros| micros.saturating_add(clock.offset_micros));
    let times = TimestampMicrosecondArray::new(shifted.values().clone(), shifted.nulls().cloned());
    Ok(Arc::new(times.with_timezone("UTC")))
}

struct Converted {
    array: ArrayRef,
    /// The original text of local times.
    local: Option<ArrayRef>,
}

/// Whether values become another kind of value by being read, so that two may come to be one.
fn is_parsed(from: &DataType, to: ColumnType) -> bool {
    matches!((from, to), (DataType::Utf8 | DataType::Int64, ColumnType::Timestamp | ColumnType::Date))
}

/// `keeps_text` says that the text of a time can be kept beside it, where the time alone is not
/// exact.
fn convert(array: &ArrayRef, kind: ColumnType, zone: Tz, keeps_text: bool) -> Result<Converted, LakeError> {
    let target = kind.arrow();
    if *array.data_type() == target {
        return Ok(Converted { array: array.clone(), local: None });
    }
    match (array.data_type(), kind) {
        (DataType::Utf8, ColumnType::Timestamp) => Ok(parse_times(array.as_string(), zone, keeps_text)),
        (DataType::Utf8, ColumnType::Date) => {
            let mut builder = Date32Builder::with_capacity(array.len());
            let epoch = NaiveDate::default();
            for text in array.as_string::<i32>() {
                let day = text.and_then(|text| NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").ok());
                builder.append_option(day.and_then(|day| i32::try_from((day - epoch).num_days()).ok()));
            }
            Ok(Converted { array: Arc::new(builder.finish()), local: None })
        }
        // A number is no text of a time, but it may be one since 1970; as a bare cast it would be
        // taken for microseconds.
        (DataType::Int64, ColumnType::Timestamp) => {
            let micros = array.as_primitive::<Int64Type>().iter().map(|number| number.and_then(epoch_micros));
            let times: TimestampMicrosecondArray = micros.collect();
            Ok(Converted { array: Arc::new(times.with_timezone("UTC")), local: None })
        }
        (DataType::Timestamp(..), ColumnType::Long | ColumnType::Integer) | (_, ColumnType::Date) => {
            Ok(Converted { array: arrow_array::new_null_array(&target, array.len()), local: None })
        }
        (from, _) if arrow_cast::can_cast_types(from, &target) => {
            Ok(Converted { array: cast_exactly(array, &target)?, local: None })
        }
        // No cast at all: every value is a misfit.
        _ => Ok(Converted { array: arrow_array::new_null_array(&target, array.len()), local: None }),
    }
}

/// Casts, and nulls what does not come back the same when cast back.
fn cast_exactly(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, LakeError> {
    let doing = "casting a column";
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let there = cast_with_options(array, target, &options).doing(doing)?;
    let back = cast_with_options(&there, array.data_type(), &options).doing(doing)?;
    let changed = arrow_ord::cmp::distinct(array, &back).doing(doing)?;
    if changed.true_count() == 0 {
        return Ok(there);
    }
    arrow_select::nullif::nullif(&there, &changed).doing(doing)
}

/// A column of ours in a site's rows; one of the store's own that is called the same says how it
/// was declared there.
pub fn our_column<'a>(rows: &'a RecordBatch, name: &str) -> Option<&'a ArrayRef> {
    let is_ours = |field: &Field| field.name() == name && !field.metadata().contains_key(columns::METADATA_DECLARED);
    let place = rows.schema_ref().fields().iter().position(|field| is_ours(field))?;
    Some(rows.column(place))
}

#[derive(Default)]
struct Assembled {
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Assembled {
    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name() == name)
    }

    fn push(&mut self, name: &str, array: ArrayRef) {
        self.fields.push(Field::new(name, array.data_type().clone(), true));
        self.arrays.push(array);
    }

    fn finish(self) -> Result<RecordBatch, LakeError> {
        RecordBatch::try_new(Arc::new(Schema::new(self.fields)), self.arrays).doing("conforming rows")
    }
}
