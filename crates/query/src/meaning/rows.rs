//! Operators of which the parser or the planner makes something else than PostgreSQL: signs of
//! powers, and rows.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value};

/// Whether an expression is a power.
pub(super) fn is_power(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::PGExp, .. })
}

/// The negative of the first of a chain of powers, to those powers.
pub(super) fn signed_power(power: Expr) -> Expr {
    match power {
        Expr::BinaryOp { left, op: BinaryOperator::PGExp, right } => {
            Expr::BinaryOp { left: Box::new(signed_power(*left)), op: BinaryOperator::PGExp, right }
        }
        first => Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(first) },
    }
}

/// Whether an expression is a row of values.
pub(super) fn is_row(expr: &Expr) -> bool {
    match expr {
        Expr::Tuple(_) => true,
        Expr::Nested(inner) => is_row(inner),
        Expr::Function(function) => function.name.to_string().eq_ignore_ascii_case("row"),
        _ => false,
    }
}

/// Rows are compared value by value, so that a null among them leaves open what it decides.
pub(super) fn rows_compared(left: Box<Expr>, op: BinaryOperator, right: Box<Expr>) -> Expr {
    let strict = match op {
        BinaryOperator::Lt | BinaryOperator::LtEq => BinaryOperator::Lt,
        BinaryOperator::Gt | BinaryOperator::GtEq => BinaryOperator::Gt,
        BinaryOperator::Eq | BinaryOperator::NotEq => BinaryOperator::Eq,
        _ => return Expr::BinaryOp { left, op, right },
    };
    match (*left, *right) {
        (Expr::Tuple(left), Expr::Tuple(right)) if left.len() == right.len() && !left.is_empty() => {
            let pairs: Vec<(Expr, Expr)> = left.into_iter().zip(right).collect();
            let compared = match op {
                BinaryOperator::Eq => equal(pairs),
                BinaryOperator::NotEq => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(equal(pairs)) },
                last => in_order(pairs, &strict, &last),
            };
            Expr::Nested(Box::new(compared))
        }
        (left, right) => Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) },
    }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }))
}

fn equal(pairs: Vec<(Expr, Expr)>) -> Expr {
    let each = pairs.into_iter().map(|(left, right)| binary(left, BinaryOperator::Eq, right));
    each.reduce(|before, next| binary(before, BinaryOperator::And, next)).unwrap_or(Expr::value(Value::Boolean(true)))
}

/// The first values that differ decide; the last ones are compared with `last`.
fn in_order(pairs: Vec<(Expr, Expr)>, strict: &BinaryOperator, last: &BinaryOperator) -> Expr {
    let mut pairs = pairs.into_iter().rev();
    let Some((left, right)) = pairs.next() else { return Expr::value(Value::Boolean(false)) };
    pairs.fold(binary(left, last.clone(), right), |behind, (left, right)| {
        let decided = binary(left.clone(), strict.clone(), right.clone());
        let open = binary(binary(left, BinaryOperator::Eq, right), BinaryOperator::And, behind);
        binary(decided, BinaryOperator::Or, open)
    })
}
