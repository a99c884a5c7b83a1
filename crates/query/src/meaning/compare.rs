//! Comparisons between values of different types, as PostgreSQL makes them.

use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, Result, ScalarValue, plan_err},
    config::ConfigOptions,
    logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, expr::InList},
};

use super::{
    cast::{cast_to, closed, is_open},
    convert::Target,
    decimal::{Number, exact},
    order::order_key,
    types::{INTERVAL, More, canonical, is_text, name, timestamptz},
};

/// Knows the types of columns, and the session's zone.
pub(super) struct Comparer<'a> {
    pub(super) schema: &'a DFSchema,
    pub(super) config: &'a ConfigOptions,
}

impl Comparer<'_> {
    fn kind(&self, value: &Expr) -> Result<DataType> {
        value.get_type(self.schema)
    }

    pub(super) fn cast(&self, value: Expr, kind: &DataType) -> Result<Expr> {
        let from = self.kind(&value)?;
        cast_to(value, &from, Target { kind: kind.clone(), more: More::Nothing }, self.config)
    }

    /// `left operator right`, both of types that can be compared as they are.
    pub(super) fn comparison(&self, left: Expr, operator: Operator, right: Expr) -> Result<Expr> {
        let of = self.pair(left, right, &operator.to_string())?;
        let (left, right) = of;
        Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), operator, Box::new(right))))
    }

    /// Both sides of a comparison, made comparable.
    pub(super) fn pair(&self, left: Expr, right: Expr, sign: &str) -> Result<(Expr, Expr)> {
        let (of_left, of_right) = (self.kind(&left)?, self.kind(&right)?);
        match (is_open(&left), is_open(&right)) {
            (true, true) => return Ok((left, right)),
            (true, false) => return Ok((self.close(left, &of_right)?, self.ordered(right, &of_right))),
            (false, true) => {
                let right = self.close(right, &of_left)?;
                return Ok((self.ordered(left, &of_left), right));
            }
            (false, false) => {}
        }
        let (kind_left, kind_right) = (canonical(&of_left), canonical(&of_right));
        if kind_left == DataType::Null || kind_right == DataType::Null {
            return Ok((left, right));
        }
        if kind_left == kind_right {
            if kind_left == INTERVAL {
                return Ok((order_key(left), order_key(right)));
            }
            if of_left == of_right || !matches!(kind_left, DataType::Timestamp(..)) {
                return Ok((left, right));
            }
            return Ok((self.cast(left, &kind_left)?, self.cast(right, &kind_right)?));
        }
        if let Some(kind) = common_number(&kind_left, &kind_right) {
            return self.numbers((left, &of_left), (right, &of_right), kind);
        }
        let is_moment = |kind: &DataType| matches!(kind, DataType::Date32 | DataType::Timestamp(..));
        if is_moment(&kind_left) && is_moment(&kind_right) {
            let kind = match (&kind_left, &kind_right) {
                (DataType::Timestamp(_, Some(_)), _) | (_, DataType::Timestamp(_, Some(_))) => timestamptz(),
                _ => super::types::TIMESTAMP,
            };
            return Ok((self.cast(left, &kind)?, self.cast(right, &kind)?));
        }
        if kind_left.is_nested() || kind_right.is_nested() {
            return Ok((left, right));
        }
        plan_err!("operator does not exist: {} {sign} {}", name(&kind_left), name(&kind_right))
    }

    fn ordered(&self, value: Expr, kind: &DataType) -> Expr {
        if canonical(kind) == INTERVAL { order_key(value) } else { value }
    }

    /// An open literal as one of the type that it is compared with.
    fn close(&self, value: Expr, kind: &DataType) -> Result<Expr> {
        if is_text(kind) || kind.is_nested() || *kind == DataType::Null {
            return Ok(value);
        }
        let closed = closed(value, kind, self.config)?;
        Ok(if canonical(kind) == INTERVAL { order_key(closed) } else { closed })
    }

    fn numbers(&self, left: (Expr, &DataType), right: (Expr, &DataType), kind: Common) -> Result<(Expr, Expr)> {
        match kind {
            Common::Double => Ok((self.cast(left.0, &DataType::Float64)?, self.cast(right.0, &DataType::Float64)?)),
            Common::Exact => {
                // A whole number is compared with integers as an integer, so that statistics of
                // them help.
                let left_whole = whole(&left.0, right.1);
                let right_whole = whole(&right.0, left.1);
                Ok((left_whole.unwrap_or(left.0), right_whole.unwrap_or(right.0)))
            }
        }
    }

    /// `value IN (list)`.
    pub(super) fn in_list(&self, within: InList) -> Result<Expr> {
        let InList { expr, list, negated } = within;
        let mut pairs = Vec::with_capacity(list.len());
        for item in list {
            pairs.push(self.pair(expr.as_ref().clone(), item, "=")?);
        }
        let first = pairs.first().map(|(value, _)| value.clone());
        if let Some(first) = first.filter(|first| pairs.iter().all(|(value, _)| value == first)) {
            let list = pairs.into_iter().map(|(_, item)| item).collect();
            return Ok(Expr::InList(InList { expr: Box::new(first), list, negated }));
        }
        let equal = pairs.into_iter().map(|(value, item)| value.eq(item)).reduce(Expr::or);
        let Some(equal) = equal else { return plan_err!("IN needs a list") };
        Ok(if negated { Expr::Not(Box::new(equal)) } else { equal })
    }

    /// Values of which one is chosen: open ones take the type of the others.
    pub(super) fn alike(&self, values: Vec<Expr>, what: &str) -> Result<Vec<Expr>> {
        let mut known: Option<DataType> = None;
        for value in values.iter().filter(|value| !is_open(value)) {
            let kind = canonical(&self.kind(value)?);
            if kind == DataType::Null {
                continue;
            }
            known = Some(match known {
                None => kind,
                Some(before) if before == kind || common_number(&before, &kind).is_some() => {
                    if rank(&kind) > rank(&before) { kind } else { before }
                }
                Some(before) if is_time(&before) && is_time(&kind) => {
                    if rank(&kind) > rank(&before) {
                        kind
                    } else {
                        before
                    }
                }
                Some(before) if before.is_nested() && kind.is_nested() => before,
                Some(before) => {
                    return plan_err!("{what} types {} and {} cannot be matched", name(&before), name(&kind));
                }
            });
        }
        let Some(known) = known else { return Ok(values) };
        let one = |value: Expr| {
            let from = self.kind(&value)?;
            if is_open(&value) && !is_text(&known) && !known.is_nested() {
                return closed(value, &known, self.config);
            }
            let is_other_time = is_time(&known) && is_time(&canonical(&from)) && canonical(&from) != known;
            let is_other_number =
                matches!(known, DataType::Float64 | DataType::Float32) && matches!(from, DataType::Decimal128(..));
            if is_other_time || is_other_number { self.cast(value, &known) } else { Ok(value) }
        };
        values.into_iter().map(one).collect()
    }
}

fn is_time(kind: &DataType) -> bool {
    matches!(kind, DataType::Date32 | DataType::Timestamp(..))
}

fn rank(kind: &DataType) -> u8 {
    match kind {
        DataType::Int16 => 0,
        DataType::Int32 | DataType::Date32 => 1,
        DataType::Int64 | DataType::Timestamp(_, None) => 2,
        DataType::Decimal128(..) | DataType::Timestamp(_, Some(_)) => 3,
        DataType::Float32 => 4,
        DataType::Float64 => 5,
        _ => 6,
    }
}

/// What numbers of different types are compared as.
enum Common {
    Double,
    /// As DataFusion compares exact numbers.
    Exact,
}

fn common_number(left: &DataType, right: &DataType) -> Option<Common> {
    let is_float = |kind: &DataType| matches!(kind, DataType::Float32 | DataType::Float64);
    let is_exact = |kind: &DataType| exact(kind).is_some();
    match (left, right) {
        (left, right) if is_float(left) && (is_float(right) || is_exact(right)) => Some(Common::Double),
        (left, right) if is_exact(left) && is_float(right) => Some(Common::Double),
        (left, right) if is_exact(left) && is_exact(right) => Some(Common::Exact),
        _ => None,
    }
}

/// A literal without a fraction as one of an integer type.
fn whole(value: &Expr, kind: &DataType) -> Option<Expr> {
    let Expr::Literal(literal @ ScalarValue::Decimal128(Some(_), ..), metadata) = value else { return None };
    let number = Number::of(literal)?;
    let power = super::decimal::power_of_ten(number.scale.unsigned_abs().into())?;
    let long = i64::try_from(number.value / power).ok().filter(|_| number.value % power == 0)?;
    let literal = match kind {
        DataType::Int64 => ScalarValue::Int64(Some(long)),
        DataType::Int32 => ScalarValue::Int32(Some(i32::try_from(long).ok()?)),
        _ => return None,
    };
    Some(Expr::Literal(literal, metadata.clone()))
}
