//! Columns in the types that a file holds, exactly: what a type cannot hold is an error, never a
//! null.

use std::sync::Arc;

use arrow::{
    array::ArrayRef,
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, FieldRef},
    error::ArrowError,
};

/// The type with its innermost types replaced where `leaf` has another one.
pub(super) fn retyped(kind: &DataType, leaf: fn(&DataType) -> Option<DataType>) -> DataType {
    let inner = |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(retyped(field.data_type(), leaf)));
    match kind {
        DataType::List(field) | DataType::ListView(field) => DataType::List(inner(field)),
        DataType::LargeList(field) | DataType::LargeListView(field) => DataType::LargeList(inner(field)),
        DataType::FixedSizeList(field, length) => DataType::FixedSizeList(inner(field), *length),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::Map(field, is_sorted) => DataType::Map(inner(field), *is_sorted),
        DataType::RunEndEncoded(_, values) => retyped(values.data_type(), leaf),
        DataType::Dictionary(_, values) => retyped(values, leaf),
        kind => leaf(kind).unwrap_or_else(|| kind.clone()),
    }
}

/// Views are a form for memory: readers of files know texts and bytes, and a view may hold on to
/// much that it does not show.
pub(super) fn without_views(kind: &DataType) -> Option<DataType> {
    match kind {
        DataType::Utf8View => Some(DataType::Utf8),
        DataType::BinaryView => Some(DataType::Binary),
        _ => None,
    }
}

/// The column in this type.
pub(super) fn exactly(column: &ArrayRef, kind: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == kind {
        return Ok(column.clone());
    }
    cast_with_options(column, kind, &CastOptions { safe: false, ..CastOptions::default() })
}
