//! What two values have in common exactly when neither is distinct from the other.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, BinaryArray},
        datatypes::DataType,
        row::{RowConverter, SortField},
    },
    common::Result,
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

/// Bytes that are the same for the same values, and are there for null too.
///
/// A join in which null equals null must not be one in which other keys are compared as usual. The
/// engine makes such joins: it takes `IS NOT DISTINCT FROM` for a key, and later adds others to it.
/// Bytes are compared as usual.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SameKey {
    signature: Signature,
}

/// What is compared for `IS NOT DISTINCT FROM`; both sides must have the same types.
pub(crate) fn same_key(values: Vec<Expr>) -> Expr {
    ScalarUDF::new_from_impl(SameKey { signature: Signature::variadic_any(Volatility::Immutable) }).call(values)
}

impl ScalarUDFImpl for SameKey {
    fn name(&self) -> &str {
        "rollcall_same_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns: Vec<ArrayRef> = ColumnarValue::values_to_arrays(&args.args)?;
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
        let bytes: BinaryArray = rows.iter().map(|row| Some(row.as_ref().to_vec())).collect();
        Ok(ColumnarValue::Array(Arc::new(bytes)))
    }
}
