//! The keys of tables, as `information_schema` tells them.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch, StringArray},
        datatypes::{Field, Schema},
    },
    catalog::TableProvider,
    common::Result,
    datasource::MemTable,
};

/// The primary key of a table: the site, and what is the key there.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) table: String,
    pub(crate) columns: Vec<String>,
}

impl Key {
    /// The name of the constraint and of its index.
    pub(crate) fn name(&self) -> String {
        format!("{}_pkey", self.table)
    }
}

pub(crate) fn repeated(value: &str, count: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, count)))
}

/// A table of these columns, which are of one length.
pub(crate) fn made(columns: Vec<(&str, ArrayRef)>) -> Result<Arc<dyn TableProvider>> {
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
    Ok(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?))
}

/// `table_constraints`: a row for each key.
pub(crate) fn table_constraints(catalog: &str, keys: &[Key]) -> Result<Arc<dyn TableProvider>> {
    let mut columns = of_keys(catalog, &keys.iter().collect::<Vec<_>>());
    columns.push(("constraint_type", repeated("PRIMARY KEY", keys.len())));
    columns.extend(["is_deferrable", "initially_deferred"].map(|name| (name, repeated("NO", keys.len()))));
    columns.push(("enforced", repeated("YES", keys.len())));
    made(columns)
}

/// `key_column_usage`: a row for each column of each key.
pub(crate) fn key_column_usage(catalog: &str, keys: &[Key]) -> Result<Arc<dyn TableProvider>> {
    let (rows, names) = by_column(keys);
    let positions: Vec<i64> = keys.iter().flat_map(|key| 1..=key.columns.len() as i64).collect();
    let mut columns = of_keys(catalog, &rows);
    columns.push(("column_name", Arc::new(StringArray::from(names))));
    columns.push(("ordinal_position", Arc::new(Int64Array::from(positions))));
    columns.push(("position_in_unique_constraint", Arc::new(Int64Array::from(vec![None; rows.len()]))));
    made(columns)
}

/// `constraint_column_usage`: the same columns, by the table that they are of.
pub(crate) fn constraint_column_usage(catalog: &str, keys: &[Key]) -> Result<Arc<dyn TableProvider>> {
    let (rows, names) = by_column(keys);
    let mut columns = of_keys(catalog, &rows);
    columns.push(("column_name", Arc::new(StringArray::from(names))));
    made(columns)
}

/// Each key as often as it has columns, and these columns. Arrays are made of what knows its
/// length.
fn by_column(keys: &[Key]) -> (Vec<&Key>, Vec<&str>) {
    let rows = keys.iter().flat_map(|key| std::iter::repeat_n(key, key.columns.len()));
    (rows.collect(), keys.iter().flat_map(|key| key.columns.iter().map(String::as_str)).collect())
}

/// Which key each row is about.
fn of_keys<'a>(catalog: &str, rows: &[&Key]) -> Vec<(&'a str, ArrayRef)> {
    let names = rows.iter().map(|key| key.name());
    let tables = rows.iter().map(|key| key.table.as_str());
    vec![
        ("constraint_catalog", repeated(catalog, rows.len())),
        ("constraint_schema", repeated("public", rows.len())),
        ("constraint_name", Arc::new(StringArray::from_iter_values(names))),
        ("table_catalog", repeated(catalog, rows.len())),
        ("table_schema", repeated("public", rows.len())),
        ("table_name", Arc::new(StringArray::from_iter_values(tables))),
    ]
}
