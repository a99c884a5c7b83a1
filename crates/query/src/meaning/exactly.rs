//! Values that a statement gives to columns: as they are, or refused.
//!
//! PostgreSQL rounds what is assigned to a column of few digits. HQ's prices come from files as
//! well, where a number that does not fit is refused; so it is here. Who wants a value rounded says
//! so.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, timezone::Tz},
        compute::kernels::cmp::distinct,
        datatypes::{DataType, Decimal128Type},
        util::display::array_value_to_string,
    },
    common::{DFSchema, Result, ScalarValue, exec_err},
    logical_expr::{
        ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility, expr::ScalarFunction,
    },
};

use super::{
    calendar,
    convert::{Target, convert},
    decimal::{Number, exact, rescale},
    types::{More, canonical, name},
};

/// Gives a column its value as it is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Exactly {
    column: String,
    kind: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Exactly {
    fn name(&self) -> &str {
        "rollcall_exactly"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.kind.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else { return exec_err!("one value is given to a column") };
        let zone = calendar::zone(args.config_options.execution.time_zone.as_deref())?;
        let target = Target { kind: self.kind.clone(), more: More::Nothing };
        let given = value.to_array(1)?;
        let converted = convert(&given, &target, &zone)?;
        if let Some(row) = first_inexact(&given, &converted, &zone)? {
            let value = array_value_to_string(&given, row)?;
            return exec_err!(
                "{}: {value} cannot be kept exactly as {}; say how it is to be rounded, such as with round()",
                self.column,
                written(&self.kind)
            );
        }
        Ok(match value {
            ColumnarValue::Array(_) => ColumnarValue::Array(converted),
            ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&converted, 0)?),
        })
    }
}

fn written(kind: &DataType) -> String {
    match exact(kind) {
        Some((digits, scale)) if matches!(kind, DataType::Decimal128(..)) => format!("numeric({digits},{scale})"),
        _ => name(kind).to_owned(),
    }
}

/// The first row whose value became another one.
fn first_inexact(given: &ArrayRef, converted: &ArrayRef, zone: &Tz) -> Result<Option<usize>> {
    match (canonical(given.data_type()), converted.data_type()) {
        (DataType::Utf8, DataType::Decimal128(_, scale)) => {
            let given = datafusion::arrow::compute::cast(given, &DataType::Utf8)?;
            let (texts, numbers) = (given.as_string::<i32>(), converted.as_primitive::<Decimal128Type>());
            for row in (0..texts.len()).filter(|row| texts.is_valid(*row)) {
                // `NaN` is no number with digits, and none of these.
                let Ok(number) = Number::parse(texts.value(row)) else { return Ok(Some(row)) };
                let wide = number.scale.max(*scale);
                if rescale(number.value, number.scale, wide) != rescale(numbers.value(row), *scale, wide) {
                    return Ok(Some(row));
                }
            }
            Ok(None)
        }
        // Read as it is written, or refused.
        (DataType::Utf8, _) => Ok(None),
        (kind, _) => {
            let back = convert(converted, &Target { kind: kind.clone(), more: More::Nothing }, zone)?;
            let given = convert(given, &Target { kind, more: More::Nothing }, zone)?;
            Ok(distinct(&given, &back)?.iter().position(|is_other| is_other == Some(true)))
        }
    }
}

/// Whether a value of one type may become another one by being given to a column of the other.
fn may_change(from: &DataType, to: &DataType) -> bool {
    let is_moment = |kind: &DataType| matches!(kind, DataType::Date32 | DataType::Timestamp(..));
    from != to
        && (to.is_numeric() && (from.is_numeric() || canonical(from) == DataType::Utf8)
            || is_moment(from) && is_moment(to))
}

/// The rows of a change, with columns that have their values exactly or not at all. What a
/// statement gives to columns is cast to their types at the top of its plan.
pub(crate) fn exactly(plan: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Projection(mut projection) => {
            let input = Arc::unwrap_or_clone(projection.input);
            projection.input = Arc::new(if matches!(input, LogicalPlan::Values(_)) { exactly(input)? } else { input });
            let schema = projection.input.schema().clone();
            for expr in &mut projection.expr {
                let column = expr.schema_name().to_string();
                let value = match expr {
                    Expr::Alias(alias) => alias.expr.as_mut(),
                    other => other,
                };
                *value = given(std::mem::take(value), &column, &schema)?;
            }
            Ok(LogicalPlan::Projection(projection))
        }
        LogicalPlan::Values(mut values) => {
            let nothing = DFSchema::empty();
            for row in &mut values.values {
                for (value, field) in row.iter_mut().zip(values.schema.fields()) {
                    *value = given(std::mem::take(value), field.name(), &nothing)?;
                }
            }
            Ok(LogicalPlan::Values(values))
        }
        other => Ok(other),
    }
}

/// A value that is given to a column.
fn given(value: Expr, column: &str, schema: &DFSchema) -> Result<Expr> {
    match value {
        Expr::Cast(cast) if may_change(&cast.expr.get_type(schema)?, cast.field.data_type()) => {
            let signature = Signature::any(1, Volatility::Stable);
            let function = Exactly { column: column.to_owned(), kind: cast.field.data_type().clone(), signature };
            let function = Arc::new(ScalarUDF::new_from_impl(function));
            Ok(Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![*cast.expr])))
        }
        other => Ok(other),
    }
}
