//! Makes a table of `pg_catalog` of what it is to tell, column by column.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{
            ArrayRef, BooleanArray, Float32Array, Int16Array, Int32Array, Int64Array, ListBuilder, RecordBatch,
            RecordBatchOptions, StringArray, StringBuilder,
        },
        datatypes::{DataType, Field, Int16Type, Schema},
    },
    catalog::TableProvider,
    common::Result,
    datasource::MemTable,
};

/// The key of a field's metadata that says of what its numbers are the numbers: the name of `oid`
/// or of one of its aliases.
pub const OID_ALIAS: &str = "pg.oid_alias";
/// The key of a field's metadata that makes a text a vector of numbers, and says of which type.
pub const VECTOR: &str = "pg.vector";

/// A column of numbers of objects.
pub(crate) fn object_number(name: &str) -> Field {
    let metadata = HashMap::from([(OID_ALIAS.to_owned(), "oid".to_owned())]);
    Field::new(name, DataType::Int32, true).with_metadata(metadata)
}

/// Arrays of numbers of objects.
pub(crate) fn oids() -> DataType {
    DataType::List(Arc::new(object_number("item")))
}

/// A table with one row for each of `rows`.
pub(crate) struct Columns<'a, T> {
    rows: &'a [T],
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl<'a, T> Columns<'a, T> {
    pub(crate) fn of(rows: &'a [T]) -> Self {
        Self { rows, fields: Vec::new(), arrays: Vec::new() }
    }

    fn push(mut self, name: &str, array: ArrayRef) -> Self {
        self.fields.push(Field::new(name, array.data_type().clone(), true));
        self.arrays.push(array);
        self
    }

    /// Numbers of objects.
    pub(crate) fn oid(mut self, name: &str, value: impl Fn(&T) -> i32) -> Self {
        self.fields.push(object_number(name));
        self.arrays.push(Arc::new(Int32Array::from_iter_values(self.rows.iter().map(value))));
        self
    }

    /// The same numbers of objects in several columns.
    pub(crate) fn oids(self, names: &[&str], value: i32) -> Self {
        names.iter().fold(self, |columns, name| columns.oid(name, |_| value))
    }

    pub(crate) fn int(self, name: &str, value: impl Fn(&T) -> i32) -> Self {
        let array = Int32Array::from_iter_values(self.rows.iter().map(value));
        self.push(name, Arc::new(array))
    }

    pub(crate) fn small(self, name: &str, value: impl Fn(&T) -> i16) -> Self {
        let array = Int16Array::from_iter_values(self.rows.iter().map(value));
        self.push(name, Arc::new(array))
    }

    pub(crate) fn float(self, name: &str, value: f32) -> Self {
        let array = Float32Array::from(vec![value; self.rows.len()]);
        self.push(name, Arc::new(array))
    }

    pub(crate) fn text(self, name: &str, value: impl Fn(&T) -> String) -> Self {
        let array = StringArray::from_iter_values(self.rows.iter().map(value));
        self.push(name, Arc::new(array))
    }

    /// Small numbers or numbers of objects, as PostgreSQL writes a vector: `1 2`.
    pub(crate) fn vector(mut self, name: &str, kind: &str, value: impl Fn(&T) -> String) -> Self {
        let metadata = HashMap::from([(VECTOR.to_owned(), kind.to_owned())]);
        self.fields.push(Field::new(name, DataType::Utf8, true).with_metadata(metadata));
        self.arrays.push(Arc::new(StringArray::from_iter_values(self.rows.iter().map(value))));
        self
    }

    /// The same text in several columns.
    pub(crate) fn texts(self, names: &[&str], value: &str) -> Self {
        names.iter().fold(self, |columns, name| columns.text(name, |_| value.to_owned()))
    }

    pub(crate) fn flag(self, name: &str, value: impl Fn(&T) -> bool) -> Self {
        let array = BooleanArray::from(self.rows.iter().map(value).collect::<Vec<_>>());
        self.push(name, Arc::new(array))
    }

    /// The same flag in several columns.
    pub(crate) fn flags(self, names: &[&str], value: bool) -> Self {
        names.iter().fold(self, |columns, name| columns.flag(name, |_| value))
    }

    /// Lists of small numbers.
    pub(crate) fn smalls(self, name: &str, value: impl Fn(&T) -> Option<Vec<i16>>) -> Self {
        let lists = self.rows.iter().map(|row| value(row).map(|list| list.into_iter().map(Some)));
        let array = datafusion::arrow::array::ListArray::from_iter_primitive::<Int16Type, _, _>(lists);
        self.push(name, Arc::new(array))
    }

    /// Texts that nothing has.
    pub(crate) fn no_text(self, names: &[&str]) -> Self {
        let none: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>; self.rows.len()]));
        names.iter().fold(self, |columns, name| columns.push(name, none.clone()))
    }

    /// Numbers that nothing has.
    pub(crate) fn no_number(self, names: &[&str]) -> Self {
        let none: ArrayRef = Arc::new(Int64Array::from(vec![None::<i64>; self.rows.len()]));
        names.iter().fold(self, |columns, name| columns.push(name, none.clone()))
    }

    /// Lists of texts that nothing has.
    pub(crate) fn no_list(self, names: &[&str]) -> Self {
        let mut lists = ListBuilder::new(StringBuilder::new());
        self.rows.iter().for_each(|_| lists.append_null());
        let none: ArrayRef = Arc::new(lists.finish());
        names.iter().fold(self, |columns, name| columns.push(name, none.clone()))
    }

    pub(crate) fn table(self) -> Result<Arc<dyn TableProvider>> {
        let schema = Arc::new(Schema::new(self.fields));
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        let rows = RecordBatch::try_new_with_options(schema, self.arrays, &options)?;
        Ok(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?))
    }
}
