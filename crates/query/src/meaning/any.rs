//! `value operator ANY (array)` and `ALL (array)`.
//!
//! The parser's form of them becomes the functions of this module, which a plan's rule turns into
//! plain comparisons where the array's items are written out, so that filters reach the scans as
//! they do with `IN`.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, UInt32Array},
        compute::{
            kernels::cmp::{eq, gt, gt_eq, lt, lt_eq, neq},
            take,
        },
        datatypes::{DataType, Field},
    },
    common::{Result, ScalarValue, exec_err, plan_err},
    logical_expr::{
        ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility,
        expr::{InList, ScalarFunction},
    },
};

use super::{
    cast::is_open,
    compare::Comparer,
    rule::open_as,
    types::{canonical, is_text, name},
};

/// One of the two.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Quantified {
    is_all: bool,
    signature: Signature,
}

/// Name of the function for `ANY`.
pub(super) const ANY: &str = "rollcall_any";
/// And for `ALL`.
pub(super) const ALL: &str = "rollcall_all";

/// Both functions: of a value, an operator's sign and an array.
pub(super) fn functions() -> [ScalarUDF; 2] {
    let of =
        |is_all| ScalarUDF::new_from_impl(Quantified { is_all, signature: Signature::any(3, Volatility::Immutable) });
    [of(false), of(true)]
}

fn operator(sign: &str) -> Option<Operator> {
    Some(match sign {
        "=" => Operator::Eq,
        "<>" => Operator::NotEq,
        "<" => Operator::Lt,
        "<=" => Operator::LtEq,
        ">" => Operator::Gt,
        ">=" => Operator::GtEq,
        _ => return None,
    })
}

impl ScalarUDFImpl for Quantified {
    fn name(&self) -> &str {
        if self.is_all { ALL } else { ANY }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value, sign, array] = args.args.as_slice() else { return exec_err!("{} takes three values", self.name()) };
        let ColumnarValue::Scalar(sign) = sign else { return exec_err!("the operator must be a constant") };
        let Some(operator) = sign.try_as_str().flatten().and_then(operator) else {
            return exec_err!("ANY and ALL know =, <>, <, <=, > and >= here");
        };
        let compared =
            compared(&value.to_array(args.number_rows)?, operator, &array.to_array(args.number_rows)?, self.is_all)?;
        Ok(ColumnarValue::Array(Arc::new(compared)))
    }
}

/// For each row, whether the comparison holds of any, or of all, items of its array.
fn compared(values: &ArrayRef, operator: Operator, arrays: &ArrayRef, is_all: bool) -> Result<BooleanArray> {
    let Some(lists) = arrays.as_list_opt::<i32>() else {
        return exec_err!("op ANY/ALL (array) requires array on right side");
    };
    let mut rows = Vec::with_capacity(lists.values().len());
    for row in 0..lists.len() {
        rows.extend(std::iter::repeat_n(row as u32, lists.value_length(row) as usize));
    }
    let (first, end) = (lists.value_offsets().first().copied(), lists.value_offsets().last().copied());
    let (first, end) = (first.unwrap_or(0) as usize, end.unwrap_or(0) as usize);
    let items = lists.values().slice(first, end - first);
    let values = take(values, &UInt32Array::from(rows), None)?;
    let values = if values.data_type() == items.data_type() {
        values
    } else {
        datafusion::arrow::compute::cast(&values, items.data_type())?
    };
    let holds = match operator {
        Operator::Eq => eq(&values, &items),
        Operator::NotEq => neq(&values, &items),
        Operator::Lt => lt(&values, &items),
        Operator::LtEq => lt_eq(&values, &items),
        Operator::Gt => gt(&values, &items),
        _ => gt_eq(&values, &items),
    }?;
    let mut result = BooleanBuilder::with_capacity(lists.len());
    let mut place = 0;
    for row in 0..lists.len() {
        let count = lists.value_length(row) as usize;
        let of_row = place..place + count;
        place += count;
        if lists.is_null(row) {
            result.append_null();
            continue;
        }
        // One that decides, one that is not known, or none of both.
        let decides = of_row.clone().any(|item| holds.is_valid(item) && holds.value(item) != is_all);
        let is_unknown = of_row.into_iter().any(|item| holds.is_null(item));
        result.append_option(match (decides, is_unknown) {
            (true, _) => Some(!is_all),
            (false, true) => None,
            (false, false) => Some(is_all),
        });
    }
    Ok(result.finish())
}

/// The comparison that such a call stands for, if it is one.
pub(super) fn planned(function: &ScalarFunction, comparer: &Comparer<'_>) -> Result<Option<Expr>> {
    let is_all = match function.name() {
        ALL => true,
        ANY => false,
        _ => return Ok(None),
    };
    let [value, Expr::Literal(sign, _), array] = function.args.as_slice() else {
        return plan_err!("ANY and ALL compare one value with an array");
    };
    let Some(operator) = sign.try_as_str().flatten().and_then(operator) else {
        return plan_err!("ANY and ALL know =, <>, <, <=, > and >= here");
    };
    if let Some(items) = items(array)? {
        // An array of literals alone is one of texts.
        let of_value = value.get_type(comparer.schema)?;
        let all_open = !items.is_empty() && items.iter().all(|item| is_open(item) && !is_null(item));
        if all_open && !is_open(value) && !is_text(&of_value) {
            return plan_err!("operator does not exist: {} {operator} text", name(&canonical(&of_value)));
        }
        return written_out(value.clone(), operator, items, is_all, comparer).map(Some);
    }
    let kind = array.get_type(comparer.schema)?;
    let item = match &kind {
        DataType::List(item) => item.data_type().clone(),
        DataType::Null => return Ok(Some(Expr::Literal(ScalarValue::Boolean(None), None))),
        other => return plan_err!("op ANY/ALL (array) requires array on right side, not {}", name(other)),
    };
    let value = open_as(value.clone(), &item, comparer.config)?;
    let of_value = canonical(&value.get_type(comparer.schema)?);
    let of_item = canonical(&item);
    if of_value == of_item || of_value == DataType::Null || (is_text(&of_value) && is_text(&of_item)) {
        let same = function.args[0] == value;
        let args = vec![value, function.args[1].clone(), array.clone()];
        let call = ScalarFunction::new_udf(Arc::clone(&function.func), args);
        return Ok((!same).then_some(Expr::ScalarFunction(call)));
    }
    if of_value.is_numeric() && of_item.is_numeric() {
        let common = if of_value.is_integer() && of_item.is_integer() { DataType::Int64 } else { DataType::Float64 };
        let both_exact = [&of_value, &of_item].iter().all(|kind| super::decimal::exact(kind).is_some());
        if both_exact && common == DataType::Float64 {
            return plan_err!("numeric and integer cannot be compared by ANY here; cast the array");
        }
        let list = DataType::List(Arc::new(Field::new_list_field(common.clone(), true)));
        let args = vec![comparer.cast(value, &common)?, function.args[1].clone(), comparer.cast(array.clone(), &list)?];
        return Ok(Some(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&function.func), args))));
    }
    plan_err!("operator does not exist: {} {operator} {}", name(&of_value), name(&of_item))
}

fn is_null(item: &Expr) -> bool {
    matches!(item, Expr::Literal(literal, _) if literal.is_null())
}

/// The items of an array that is written out.
fn items(array: &Expr) -> Result<Option<Vec<Expr>>> {
    Ok(match array {
        Expr::ScalarFunction(function) if function.name() == "make_array" => Some(function.args.clone()),
        Expr::Literal(ScalarValue::List(list), _) if list.len() == 1 && list.is_valid(0) => {
            let values = list.value(0);
            let items =
                (0..values.len()).map(|item| Ok(Expr::Literal(ScalarValue::try_from_array(&values, item)?, None)));
            Some(items.collect::<Result<_>>()?)
        }
        _ => None,
    })
}

fn written_out(
    value: Expr,
    operator: Operator,
    items: Vec<Expr>,
    is_all: bool,
    comparer: &Comparer<'_>,
) -> Result<Expr> {
    if items.is_empty() {
        // Also of a null: no item is compared.
        return Ok(Expr::Literal(ScalarValue::Boolean(Some(is_all)), None));
    }
    let is_in = operator == Operator::Eq && !is_all;
    if is_in || (operator == Operator::NotEq && is_all) {
        return comparer.in_list(InList { expr: Box::new(value), list: items, negated: !is_in });
    }
    let mut all: Option<Expr> = None;
    for item in items {
        let compared = comparer.comparison(value.clone(), operator, item)?;
        all = Some(match all {
            None => compared,
            Some(before) if is_all => before.and(compared),
            Some(before) => before.or(compared),
        });
    }
    all.map_or_else(|| plan_err!("an array without items"), Ok)
}
