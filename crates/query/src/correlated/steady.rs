//! Whether a plan gives the same rows each time.

use datafusion::{
    common::Result,
    logical_expr::{Distinct, Expr, LogicalPlan, expr::AggregateFunction},
};

use super::plans::{kind, unsupported};

/// Aggregates whose result does not depend on the order of rows.
const ORDERLESS: [&str; 7] = ["count", "min", "max", "sum", "avg", "bool_and", "bool_or"];

/// Rows outside are read twice, for their values and for themselves, and must be the same then.
pub(super) fn must_be_steady(plan: &LogicalPlan) -> Result<()> {
    let is_steady = match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.aggr_expr.iter().all(is_orderless),
        LogicalPlan::Distinct(Distinct::On(_))
        | LogicalPlan::Limit(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Extension(_) => false,
        _ => true,
    };
    let mut is_volatile = false;
    plan.apply_expressions(|expr| {
        is_volatile |= expr.is_volatile();
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    if !is_steady || is_volatile {
        let what = if is_volatile { "a volatile function".to_owned() } else { kind(plan) };
        return unsupported(&format!("beside rows that come from {what}"));
    }
    plan.inputs().into_iter().try_for_each(must_be_steady)
}

fn is_orderless(aggregate: &Expr) -> bool {
    let mut aggregate = aggregate;
    while let Expr::Alias(alias) = aggregate {
        aggregate = &alias.expr;
    }
    matches!(aggregate, Expr::AggregateFunction(AggregateFunction { func, .. }) if ORDERLESS.contains(&func.name()))
}
