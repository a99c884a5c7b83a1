//! The order of intervals.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{AsArray, Decimal128Array},
        datatypes::{DataType, Decimal128Type, IntervalMonthDayNanoType},
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
