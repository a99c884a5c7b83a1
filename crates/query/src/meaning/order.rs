//! The order of intervals and of floats.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, Decimal128Array},
        datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, IntervalMonthDayNanoType},
    },
    common::{Result, ScalarValue, exec_err},
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, expr::ScalarFunction,
    },
};

use super::interval::size;

/// Microseconds of an interval, by which PostgreSQL orders them: a month has 30 days, a day 24 hours.
#[derive(Debug, PartialEq, Eq, Hash)]
struct IntervalSize {
    signature: Signature,
}

const SIZE: DataType = DataType::Decimal128(38, 0);

/// A float by which PostgreSQL orders it: zero is its negative's equal, and NaN is the greatest
/// whatever its sign.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FloatOrder {
    signature: Signature,
}

/// What stands for a float where rows are ordered by it.
pub(super) fn float_order(float: Expr) -> Expr {
    let function = ScalarUDF::new_from_impl(FloatOrder { signature: Signature::any(1, Volatility::Immutable) });
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![float]))
}

impl ScalarUDFImpl for FloatOrder {
    fn name(&self) -> &str {
        "rollcall_float_order"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        match kinds {
            [kind] => Ok(kind.clone()),
            _ => exec_err!("a float has one order"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [float] = args.args.as_slice() else { return exec_err!("a float has one order") };
        let array = float.to_array(args.number_rows)?;
        let ordered: ArrayRef = match array.data_type() {
            DataType::Float32 => {
                let of = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
                Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(of))
            }
            DataType::Float64 => {
                let of = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
                Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(of))
            }
            other => return exec_err!("{other} is no float"),
        };
        Ok(ColumnarValue::Array(ordered))
    }
}

/// What stands for an interval in comparisons.
pub(super) fn interval_size(interval: Expr) -> Expr {
    let function = ScalarUDF::new_from_impl(IntervalSize { signature: Signature::any(1, Volatility::Immutable) });
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![interval]))
}

impl ScalarUDFImpl for IntervalSize {
    fn name(&self) -> &str {
        "rollcall_interval_size"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(SIZE)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [interval] = args.args.as_slice() else { return exec_err!("an interval has one size") };
        let array = interval.cast_to(&super::types::INTERVAL, None)?.to_array(args.number_rows)?;
        let sizes: Decimal128Array = array.as_primitive::<IntervalMonthDayNanoType>().unary::<_, Decimal128Type>(size);
        let sizes = sizes.with_data_type(SIZE);
        Ok(match interval {
            ColumnarValue::Array(_) => ColumnarValue::Array(Arc::new(sizes)),
            ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&sizes, 0)?),
        })
    }
}
