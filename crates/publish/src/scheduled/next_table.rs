//! The table beside another that holds what is scheduled for it: `prices_next` beside `prices`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::{concat::concat_batches, filter::filter_record_batch};
use chrono::NaiveDateTime;
use rollcall_books::definitions::Definition;
use rollcall_registry::HqError;
use rollcall_types::TableName;

use crate::{
    changes::Changes,
    image,
    publisher::Publisher,
    publishing::WorkedOut,
    tables::{Known, failed},
};

/// Of the next table: which publication a row is of.
pub(super) const NUMBER: &str = "scheduled_as";
/// Of the next table: whether the row is one that goes.
pub(super) const GONE: &str = "is_gone";
/// Of the next table, for people: when it takes effect, by the site's clock.
pub(super) const EFFECT: &str = "takes_effect";

/// The table that holds what is scheduled for another.
pub fn next_name(table: &TableName) -> Result<TableName, HqError> {
    TableName::new(&format!("{table}_next")).map_err(|error| HqError::Invalid(error.to_string()))
}

/// Refuses what a person would do to a table that only schedules fill.
pub fn check_is_own(publisher: &Publisher, table: &TableName) -> Result<(), HqError> {
    match publisher.tables.get(table).is_some_and(|known| is_next(known.definition())) {
        true => Err(HqError::Invalid(format!(
            "{table} holds what is scheduled; publish with --at, and withdraw with --withdraw-at"
        ))),
        false => Ok(()),
    }
}

/// Whether this is the definition of a next table.
pub(super) fn is_next(definition: &Definition) -> bool {
    definition.key.iter().any(|key| key == NUMBER)
}

/// Rows of the next table: those that come, and those that go from sites where the ones that come
/// are not for them.
pub(super) fn rows_of(
    worked_out: &WorkedOut,
    key: &[String],
    number: u64,
    at: NaiveDateTime,
) -> Result<RecordBatch, HqError> {
    let Changes { ops, rows, before, .. } = &worked_out.changes;
    let comes: BooleanArray = ops.iter().map(|op| Some(*op != b'D')).collect();
    let comes = filter_record_batch(rows, &comes).map_err(failed)?;
    let bytes = |rows: &RecordBatch, columns: &[String]| image::row_bytes(rows, columns).map_err(failed);
    // Who a row is for depends on these columns alone.
    let rule = &worked_out.rule_columns;
    let (keys, values) = match rule.is_empty() {
        true => (bytes(&comes, key)?, vec![Box::default(); comes.num_rows()]),
        false => (bytes(&comes, key)?, bytes(&comes, rule)?),
    };
    let now: HashMap<&[u8], &[u8]> = keys.iter().map(AsRef::as_ref).zip(values.iter().map(AsRef::as_ref)).collect();
    let was = match rule.is_empty() {
        true => vec![Box::default(); before.num_rows()],
        false => bytes(before, rule)?,
    };
    let goes: BooleanArray = bytes(before, key)?
        .iter()
        .zip(&was)
        .map(|(key, was)| Some(now.get(key.as_ref()) != Some(&was.as_ref())))
        .collect();
    let goes = filter_record_batch(before, &goes).map_err(failed)?;
    let marked = [marked(&comes, number, false, at)?, marked(&goes, number, true, at)?];
    concat_batches(&marked[0].schema(), &marked).map_err(failed)
}

/// Rows with the next table's own columns before theirs.
fn marked(rows: &RecordBatch, number: u64, gone: bool, at: NaiveDateTime) -> Result<RecordBatch, HqError> {
    let ours = [
        Field::new(NUMBER, DataType::Int64, true),
        Field::new(GONE, DataType::Boolean, true),
        Field::new(EFFECT, DataType::Utf8, true),
    ];
    let schema = rows.schema();
    let fields: Vec<Field> =
        ours.into_iter().chain(schema.fields().iter().map(|field| field.as_ref().clone())).collect();
    let count = rows.num_rows();
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![number as i64; count])),
        Arc::new(BooleanArray::from(vec![gone; count])),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(at.to_string(), count))),
    ];
    arrays.extend(rows.columns().iter().cloned());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(failed)
}

/// The numbers of which a next table has rows.
pub(super) fn numbers(next: &Known) -> BTreeSet<u64> {
    let rows = next.image.rows();
    let live = image::is_live(rows);
    let Some(numbers) = rows.column_by_name(NUMBER) else { return BTreeSet::new() };
    let numbers = numbers.as_primitive::<Int64Type>().values().iter().zip(live.values().iter());
    numbers.filter(|(_, live)| *live).map(|(number, _)| number.unsigned_abs()).collect()
}

/// The live rows of one number: those that come, and those that go.
pub(super) fn of_number(next: &Known, number: u64) -> Result<(RecordBatch, RecordBatch), HqError> {
    let rows = next.image.rows();
    let live = image::is_live(rows);
    let numbers = rows.column_by_name(NUMBER).ok_or(HqError::Outdated)?.as_primitive::<Int64Type>();
    let gone = rows.column_by_name(GONE).ok_or(HqError::Outdated)?.as_boolean();
    let of = |wanted: bool| {
        let mask: BooleanArray = (0..rows.num_rows())
            .map(|row| Some(live.value(row) && numbers.value(row) == number as i64 && gone.value(row) == wanted))
            .collect();
        filter_record_batch(rows, &mask).map_err(failed)
    };
    Ok((of(false)?, of(true)?))
}

/// The columns whose names are to be kept.
pub(super) fn project(rows: &RecordBatch, keeps: impl Fn(&str) -> bool) -> Result<RecordBatch, HqError> {
    let places: Vec<usize> =
        (0..rows.num_columns()).filter(|place| keeps(rows.schema_ref().field(*place).name())).collect();
    rows.project(&places).map_err(failed)
}
