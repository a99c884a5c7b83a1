//! The site ids that a question asks for by name.

use std::collections::BTreeSet;

use datafusion::{
    common::ScalarValue,
    logical_expr::{BinaryExpr, Expr, Operator},
};

/// Adds the values that a predicate over `_site` asks for: of `=` and `IN`, also below `AND` and
/// `OR`.
pub(super) fn add_named(predicate: &Expr, names: &mut BTreeSet<String>) {
    match predicate {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            add_named(left, names);
            add_named(right, names);
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            names.extend([left, right].into_iter().filter_map(|side| text(side)));
        }
        Expr::InList(list) if !list.negated => names.extend(list.list.iter().filter_map(text)),
        _ => {}
    }
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(value) | ScalarValue::Utf8View(value) | ScalarValue::LargeUtf8(value), _) => {
            value.clone()
        }
        _ => None,
    }
}
