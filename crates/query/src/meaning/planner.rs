//! Turns operators of a question into those that mean what PostgreSQL's do.

use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, Result, ScalarValue, plan_err},
    config::ConfigOptions,
    logical_expr::{
        Cast, ColumnarValue, Expr, ExprSchemable,
        expr::Placeholder,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::BinaryOperator,
};

use super::{
    cast::{cast_to, closed, is_open},
    convert::Target,
    decimal::{DIGITS_MAX, Number, fits, multiply, rescale},
    numbers::integers,
    operator::{Operation, apply},
    types::{INTERVAL, More, canonical, is_text, name},
};

/// Plans arithmetic and `||`.
#[derive(Debug)]
pub(super) struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let operation = match raw.op {
            BinaryOperator::Plus => Operation::Add,
            BinaryOperator::Minus => Operation::Subtract,
            BinaryOperator::Multiply => Operation::Multiply,
            BinaryOperator::Divide => Operation::Divide,
            BinaryOperator::Modulo => Operation::Rest,
            BinaryOperator::BitwiseAnd => Operation::And,
            BinaryOperator::BitwiseOr => Operation::Or,
            BinaryOperator::PGBitwiseXor => Operation::Xor,
            BinaryOperator::PGBitwiseShiftLeft => Operation::ShiftLeft,
            BinaryOperator::PGBitwiseShiftRight => Operation::ShiftRight,
            BinaryOperator::PGExp => Operation::Power,
            BinaryOperator::StringConcat => return joined(raw, schema),
            BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq => return Ok(PlannerResult::Original(compared(raw, schema)?)),
            _ => return Ok(PlannerResult::Original(raw)),
        };
        let (left, right) = (fold(narrow(raw.left))?, fold(narrow(raw.right))?);
        Ok(PlannerResult::Planned(arithmetic(operation, left, right, schema)?))
    }
}

fn is_untyped(value: &Expr) -> bool {
    matches!(value, Expr::Placeholder(Placeholder { field: None, .. }))
}

/// `left operation right`, each literal with the type that PostgreSQL gives it.
fn arithmetic(operation: Operation, left: Expr, right: Expr, schema: &DFSchema) -> Result<Expr> {
    let (left, right) = match (is_open(&left), is_open(&right)) {
        (true, true) if is_untyped(&left) || is_untyped(&right) => {
            return plan_err!("could not determine the types of {left} {} {right}", operation.sign());
        }
        (true, true) => return plan_err!("operator is not unique: unknown {} unknown", operation.sign()),
        (true, false) => (beside(operation, left, &right, true, schema)?, right),
        (false, true) => {
            let right = beside(operation, right, &left, false, schema)?;
            (left, right)
        }
        (false, false) => (left, right),
    };
    if let (Expr::Literal(of_left, _), Expr::Literal(of_right, _)) = (&left, &right)
        && let Some(value) = of_literals(operation, of_left, of_right)
    {
        return Ok(Expr::Literal(value, None));
    }
    let (of_left, of_right) = (left.get_type(schema)?, right.get_type(schema)?);
    // That there is no such operator is said here, where the question is planned.
    operation.result(&of_left, &of_right)?;
    Ok(apply(operation, left, right))
}

fn beside(operation: Operation, open: Expr, known: &Expr, is_left: bool, schema: &DFSchema) -> Result<Expr> {
    let kind = operation.beside(&known.get_type(schema)?, is_left);
    let waits = matches!(kind, DataType::Timestamp(..) | DataType::Date32) && !open_null(&open);
    if waits && !is_untyped(&open) {
        // Which moment it is depends on the session's zone.
        return Ok(Expr::Cast(Cast::new(Box::new(open), kind)));
    }
    closed(open, &kind, &ConfigOptions::default())
}

fn open_null(value: &Expr) -> bool {
    matches!(value, Expr::Literal(literal, _) if literal.is_null())
}

/// An integer of a question is an int4 if it can be one, and a number beyond 64 bits a numeric.
fn narrow(value: Expr) -> Expr {
    match value {
        Expr::Literal(ScalarValue::Int64(Some(long)), metadata) => match i32::try_from(long) {
            Ok(short) => Expr::Literal(ScalarValue::Int32(Some(short)), metadata),
            Err(_) => Expr::Literal(ScalarValue::Int64(Some(long)), metadata),
        },
        Expr::Literal(ScalarValue::UInt64(Some(long)), metadata) => {
            let number = Number { value: i128::from(long), scale: 0 };
            Expr::Literal(number.literal(), metadata)
        }
        other => other,
    }
}

/// Casts and signs of literals, done: so that what is made of them has their digits.
fn fold(value: Expr) -> Result<Expr> {
    match value {
        Expr::Cast(cast) => {
            let inner = fold(*cast.expr)?;
            let target = Target { kind: cast.field.data_type().clone(), more: More::of(&cast.field) };
            let is_number = target.kind.is_numeric();
            if let (Expr::Literal(literal, _), true) = (&inner, is_number)
                && !literal.is_null()
            {
                let from = literal.data_type();
                // What cannot be cast is an error when it is evaluated, if it ever is.
                if let Ok(done) = cast_to(inner.clone(), &from, target, &ConfigOptions::default()) {
                    return Ok(done);
                }
            }
            Ok(Expr::Cast(Cast::new_from_field(Box::new(inner), cast.field)))
        }
        Expr::Negative(inner) => {
            let inner = fold(narrow(*inner))?;
            if let Expr::Literal(ScalarValue::Int32(Some(value)), metadata) = &inner
                && let Some(negative) = value.checked_neg()
            {
                return Ok(Expr::Literal(ScalarValue::Int32(Some(negative)), metadata.clone()));
            }
            let number = match &inner {
                Expr::Literal(literal @ ScalarValue::Decimal128(..), _) => Number::of(literal),
                Expr::Literal(literal @ ScalarValue::UInt64(_), _) => Number::of(literal),
                _ => None,
            };
            Ok(match number {
                Some(number) => Expr::Literal(Number { value: -number.value, ..number }.literal(), None),
                None => Expr::Negative(Box::new(inner)),
            })
        }
        other => Ok(other),
    }
}

/// The result for two literals; none if it is no number, or left to the rows.
fn of_literals(operation: Operation, left: &ScalarValue, right: &ScalarValue) -> Option<ScalarValue> {
    let is_exact = |value: &ScalarValue| matches!(value, ScalarValue::Decimal128(Some(_), ..));
    if !is_exact(left) && !is_exact(right) {
        let kind = operation.result(&left.data_type(), &right.data_type()).ok()?;
        if !kind.is_integer() || !left.data_type().is_integer() || !right.data_type().is_integer() {
            return None;
        }
        let side = |value: &ScalarValue| ColumnarValue::Scalar(value.clone());
        return match integers(operation, &side(left), &side(right), &kind) {
            Ok(ColumnarValue::Scalar(value)) => Some(value),
            _ => None,
        };
    }
    let (left, right) = (Number::of(left)?, Number::of(right)?);
    let scale = left.scale.max(right.scale);
    let both = || Some((rescale(left.value, left.scale, scale)?, rescale(right.value, right.scale, scale)?));
    let number = match operation {
        Operation::Add => both().and_then(|(left, right)| left.checked_add(right)).map(|value| Number { value, scale }),
        Operation::Subtract => {
            both().and_then(|(left, right)| left.checked_sub(right)).map(|value| Number { value, scale })
        }
        Operation::Rest => {
            both().and_then(|(left, right)| left.checked_rem(right)).map(|value| Number { value, scale })
        }
        Operation::Multiply => {
            let scale = left.scale.checked_add(right.scale).filter(|scale| *scale <= DIGITS_MAX as i8)?;
            multiply((left.value, left.scale), (right.value, right.scale), scale).map(|value| Number { value, scale })
        }
        Operation::Divide => left.divided_by(right),
        _ => None,
    }?;
    fits(number.value, DIGITS_MAX).then(|| number.literal())
}

/// DataFusion knows no comparison of an interval or a truth value with a text, which an open
/// literal is to it.
fn compared(raw: RawBinaryExpr, schema: &DFSchema) -> Result<RawBinaryExpr> {
    let RawBinaryExpr { op, left, right } = raw;
    let other = match (is_open(&left), is_open(&right)) {
        (true, false) if !is_untyped(&left) => &right,
        (false, true) if !is_untyped(&right) => &left,
        _ => return Ok(RawBinaryExpr { op, left, right }),
    };
    let kind = canonical(&other.get_type(schema)?);
    if !matches!(kind, INTERVAL | DataType::Boolean) {
        return Ok(RawBinaryExpr { op, left, right });
    }
    let close = |value: Expr| match is_open(&value) {
        true => closed(value, &kind, &ConfigOptions::default()),
        false => Ok(value),
    };
    Ok(RawBinaryExpr { op, left: close(left)?, right: close(right)? })
}

/// `||` joins texts, and a text with anything that has one.
fn joined(raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
    let (left, right) = (canonical(&raw.left.get_type(schema)?), canonical(&raw.right.get_type(schema)?));
    let is_joined_otherwise = |kind: &DataType| kind.is_nested() || *kind == DataType::Binary;
    if is_joined_otherwise(&left) || is_joined_otherwise(&right) {
        if open_null(&raw.left) || open_null(&raw.right) {
            return plan_err!("an array joined with NULL is not supported here: cast the NULL");
        }
        return Ok(PlannerResult::Original(raw));
    }
    let may_be_text = |value: &Expr, kind: &DataType| is_text(kind) || is_open(value);
    if !may_be_text(&raw.left, &left) && !may_be_text(&raw.right, &right) {
        return plan_err!("operator does not exist: {} || {}", name(&left), name(&right));
    }
    let text = |value: Expr, kind: &DataType| match kind {
        kind if is_text(kind) => value,
        _ => Expr::Cast(Cast::new(Box::new(value), DataType::Utf8)),
    };
    let (left, right) = (text(raw.left, &left), text(raw.right, &right));
    Ok(PlannerResult::Original(RawBinaryExpr { op: raw.op, left, right }))
}
