//! The order of intervals and of floats.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, Decimal128Array},
        compute::{CastOptions, cast_with_options},
        datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, IntervalMonthDayNanoType},
    },
    common::{Result, ScalarValue, exec_err},
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

use super::{interval::size, types::INTERVAL};

/// What stands for a value where PostgreSQL's order of values is not the engine's.
///
/// For an interval its microseconds: a month has 30 days, a day 24 hours. For a float the float,
/// but that zero is its negative's equal, and that NaN is the greatest whatever its sign.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OrderKey {
    signature: Signature,
}

const SIZE: DataType = DataType::Decimal128(38, 0);

/// What an interval or a float is compared and ordered by.
pub(crate) fn order_key(value: Expr) -> Expr {
    ScalarUDF::new_from_impl(OrderKey { signature: Signature::any(1, Volatility::Immutable) }).call(vec![value])
}

fn key(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Float32 => {
            let of = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
            Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(of))
        }
        DataType::Float64 => {
            let of = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
            Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(of))
        }
        _ => {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            let intervals = cast_with_options(array, &INTERVAL, &options)?;
            let sizes: Decimal128Array =
                intervals.as_primitive::<IntervalMonthDayNanoType>().unary::<_, Decimal128Type>(size);
            Arc::new(sizes.with_data_type(SIZE))
        }
    })
}

impl ScalarUDFImpl for OrderKey {
    fn name(&self) -> &str {
        "rollcall_order_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(match kinds {
            [kind @ (DataType::Float32 | DataType::Float64)] => kind.clone(),
            _ => SIZE,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else { return exec_err!("a value has one place in an order") };
        Ok(match value {
            ColumnarValue::Array(array) => ColumnarValue::Array(key(array)?),
            ColumnarValue::Scalar(scalar) => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&key(&scalar.to_array()?)?, 0)?)
            }
        })
    }
}
