//! `IN` a subquery, where null makes a difference.
//!
//! The engine joins what is not in a subquery with the nulls in mind only where the subquery does
//! not refer to the outside and the condition stands by itself; elsewhere it takes "unknown" for
//! "not in". There, what is not in a subquery is what no row of it equals or might equal.

use std::sync::Arc;

use datafusion::{
    common::{DFSchema, Result, plan_err, tree_node::TreeNode},
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Subquery,
        expr::{Exists, InSubquery},
        lit,
    },
};

use super::{
    plans::{compared, unsupported},
    references::{References, from_inside},
};

/// A condition that is true for the same rows; which of the others are false and which unknown is
/// not kept.
pub(super) fn truth(condition: Expr, outside: &DFSchema) -> Result<Expr> {
    if !has_membership(&condition)? {
        return Ok(condition);
    }
    Truth { outside }.of(condition, false, true)
}

struct Truth<'a> {
    outside: &'a DFSchema,
}

impl Truth<'_> {
    /// A condition, or its contrary; `is_alone` if the filter keeps a row only where this is true.
    fn of(&self, condition: Expr, is_contrary: bool, is_alone: bool) -> Result<Expr> {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let op = match (op, is_contrary) {
                    (Operator::And, true) => Operator::Or,
                    (Operator::Or, true) => Operator::And,
                    (op, _) => op,
                };
                let is_alone = is_alone && op == Operator::And;
                let left = Box::new(self.of(*left, is_contrary, is_alone)?);
                let right = Box::new(self.of(*right, is_contrary, is_alone)?);
                Ok(Expr::BinaryExpr(BinaryExpr { left, op, right }))
            }
            Expr::Not(inner) => self.of(*inner, !is_contrary, is_alone),
            Expr::Exists(exists) => Ok(Expr::Exists(Exists { negated: exists.negated != is_contrary, ..exists })),
            Expr::InSubquery(within) => self.within(within, is_contrary, is_alone),
            // Where unknown is as good as false.
            Expr::IsTrue(inner) if is_membership(&inner) => {
                let inner = Expr::IsTrue(Box::new(self.of(*inner, false, false)?));
                Ok(if is_contrary { Expr::Not(Box::new(inner)) } else { inner })
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right })
                if !is_contrary && right.as_ref() == &lit(true) && is_membership(&left) =>
            {
                self.of(*left, false, is_alone)
            }
            other if has_membership(&other)? => unsupported("whose being IN, or not, is asked as a value"),
            other => Ok(if is_contrary { Expr::Not(Box::new(other)) } else { other }),
        }
    }

    fn within(&self, one: InSubquery, is_contrary: bool, is_alone: bool) -> Result<Expr> {
        let negated = one.negated != is_contrary;
        let is_known = is_alone && References::of(&one.subquery.subquery)?.is_empty();
        if !negated || is_known {
            return Ok(Expr::InSubquery(InSubquery { negated, ..one }));
        }
        let plan = one.subquery.subquery.as_ref();
        let [column] = &plan.schema().columns()[..] else { return plan_err!("subquery must return only one column") };
        let kind = one.expr.get_type(self.outside)?;
        let value = from_inside(*one.expr, self.outside)?;
        let (left, right) = compared(Expr::Column(column.clone()), value, &kind, plan.schema())?;
        let might_equal = Expr::IsNotFalse(Box::new(left.eq(right)));
        let rows: LogicalPlan = LogicalPlanBuilder::from(plan.clone()).filter(might_equal)?.build()?;
        let outer_ref_columns = rows.all_out_ref_exprs();
        let subquery = Subquery { subquery: Arc::new(rows), outer_ref_columns, spans: one.subquery.spans };
        Ok(Expr::Exists(Exists { subquery, negated: true }))
    }
}

fn is_membership(expr: &Expr) -> bool {
    matches!(expr, Expr::InSubquery(_))
}

fn has_membership(expr: &Expr) -> Result<bool> {
    expr.exists(|expr| Ok(is_membership(expr)))
}
