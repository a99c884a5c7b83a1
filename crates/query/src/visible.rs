//! `rollcall_visible(_site, _epoch, _seq)`: whether a row lies in what is current of its site.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, AsArray, BooleanArray},
        datatypes::{DataType, Int32Type, Int64Type},
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use rollcall_lake::Visible;

/// What is current of the sites of which not every row is; by site id.
pub(crate) type SpecialSites = BTreeMap<String, (u32, u64, u64)>;

#[derive(Debug, PartialEq, Eq, Hash)]
struct VisibleRows {
    signature: Signature,
    special: Arc<SpecialSites>,
}

/// Turns [`Visible`] into the plain numbers the function compares.
pub(crate) fn bounds(visible: Visible) -> (u32, u64, u64) {
    (visible.epoch.0, visible.from.0, visible.before.0)
}

/// The function for one query's pinned table version.
pub(crate) fn visible_rows(special: SpecialSites) -> ScalarUDF {
    let arguments = vec![DataType::Utf8View, DataType::Int32, DataType::Int64];
    let signature = Signature::exact(arguments, Volatility::Immutable);
    ScalarUDF::from(VisibleRows { signature, special: Arc::new(special) })
}

impl ScalarUDFImpl for VisibleRows {
    fn name(&self) -> &str {
        "rollcall_visible"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args.args.iter().map(|value| value.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let (sites, epochs, seqs) =
            (arrays[0].as_string_view(), arrays[1].as_primitive::<Int32Type>(), arrays[2].as_primitive::<Int64Type>());
        let visible = (0..args.number_rows).map(|row| {
            if sites.is_null(row) {
                return true;
            }
            self.special.get(sites.value(row)).is_none_or(|(epoch, from, before)| {
                let seq = seqs.value(row).unsigned_abs();
                epochs.value(row).unsigned_abs() == *epoch && (*from..*before).contains(&seq)
            })
        });
        Ok(ColumnarValue::Array(Arc::new(visible.map(Some).collect::<BooleanArray>())))
    }
}
