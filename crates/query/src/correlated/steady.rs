//! Whether a plan gives the same rows each time.

use datafusion::{
    common::{
        DFSchema, Result,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Distinct, Expr, ExprSchemable, LogicalPlan, expr::AggregateFunction},
};

use super::{
    plans::{kind, unsupported},
    references::subquery_of,
};

/// Aggregates whose result does not depend on the order of rows.
const ORDERLESS: [&str; 7] = ["count", "min", "max", "sum", "avg", "bool_and", "bool_or"];

/// Rows outside are read twice, for their values and for themselves, and must be the same then.
pub(super) fn must_be_steady(plan: &LogicalPlan) -> Result<()> {
    let is_steady = match plan {
        LogicalPlan::Aggregate(aggregate) => {
            aggregate.aggr_expr.iter().all(|total| is_orderless(total, aggregate.input.schema()))
        }
        LogicalPlan::Distinct(Distinct::On(_))
        | LogicalPlan::Limit(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Extension(_) => false,
        _ => true,
    };
    plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            if let Some(subquery) = subquery_of(expr) {
                must_be_steady(&subquery.subquery)?;
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    let is_volatile = is_volatile(plan)?;
    if !is_steady || is_volatile {
        let what = if is_volatile { "a volatile function".to_owned() } else { kind(plan) };
        return unsupported(&format!("beside rows that come from {what}"));
    }
    plan.inputs().into_iter().try_for_each(must_be_steady)
}

/// Whether an expression of this node has another value each time.
pub(super) fn is_volatile(node: &LogicalPlan) -> Result<bool> {
    let mut is_volatile = false;
    node.apply_expressions(|expr| {
        is_volatile |= expr.is_volatile();
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(is_volatile)
}

fn is_orderless(aggregate: &Expr, input: &DFSchema) -> bool {
    let mut aggregate = aggregate;
    while let Expr::Alias(alias) = aggregate {
        aggregate = &alias.expr;
    }
    let Expr::AggregateFunction(AggregateFunction { func, params }) = aggregate else { return false };
    // Sums of floats depend on the order of their parts.
    let is_float = |arg: &Expr| arg.get_type(input).map_or(true, |kind| kind.is_floating());
    let is_sum = ["sum", "avg"].contains(&func.name());
    ORDERLESS.contains(&func.name()) && !(is_sum && params.args.iter().any(is_float))
}
