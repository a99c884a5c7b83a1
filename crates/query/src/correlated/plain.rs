//! Which correlated subqueries the engine's own rules make right joins of.
//!
//! Those rules lift conditions on outside columns out of the subquery, past whatever is above them.
//! That is right past projections, inner joins and groups, and wrong past windows, limits, DISTINCT
//! ON and totals of totals: such a step sees rows then that it should not see.

use datafusion::{
    common::Result,
    logical_expr::{
        BinaryExpr, Cast, Distinct, Expr, JoinType, Limit, LogicalPlan, Operator, utils::split_conjunction,
    },
};

use super::references::References;

/// Where a subquery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a lateral join.
    Lateral,
    /// As a value.
    Value,
    /// Within IN, ANY or ALL.
    Set,
    /// Within EXISTS.
    Exists,
}

/// What is above a node of the subquery.
#[derive(Debug, Clone, Copy)]
struct Above {
    /// A total without groups may stand here.
    may_total: bool,
    /// Conditions are lifted past groups, so that each must be `column = outside`.
    is_grouped: bool,
}

/// Whether the engine's rules make the right join of this subquery.
pub(super) fn is_plain(subquery: &LogicalPlan, place: Place) -> Result<bool> {
    let may_total = matches!(place, Place::Lateral | Place::Value);
    let above = Above { may_total, is_grouped: false };
    match subquery {
        // Whether there is a row does not depend on how many are taken.
        LogicalPlan::Limit(Limit { skip: None, input, .. }) if place == Place::Exists => is_plain_below(input, above),
        _ => is_plain_below(subquery, above),
    }
}

fn is_plain_below(plan: &LogicalPlan, above: Above) -> Result<bool> {
    let references = References::of(plan)?;
    if references.is_empty() {
        return Ok(true);
    }
    if !references.deep.is_empty() {
        return Ok(false);
    }
    let below = Above { may_total: false, ..above };
    match plan {
        LogicalPlan::Projection(projection) => {
            Ok(!refers(&projection.expr) && is_plain_below(&projection.input, above)?)
        }
        LogicalPlan::Filter(filter) => {
            let conditions = split_conjunction(&filter.predicate);
            let are_plain = conditions
                .iter()
                .all(|condition| !condition.contains_outer() || !above.is_grouped || is_key(condition));
            Ok(are_plain && is_plain_below(&filter.input, below)?)
        }
        LogicalPlan::Join(join) => {
            let is_kind = match join.join_type {
                JoinType::Inner => true,
                JoinType::Left => References::of(&join.right)?.is_empty(),
                _ => false,
            };
            let on = join.on.iter().flat_map(|(left, right)| [left, right]);
            let refers = on.chain(&join.filter).any(Expr::contains_outer);
            Ok(is_kind && !refers && is_plain_below(&join.left, below)? && is_plain_below(&join.right, below)?)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let groups = &aggregate.group_expr;
            let has_sets = groups.iter().any(|group| matches!(group, Expr::GroupingSet(_)));
            let is_refused = has_sets || refers(groups) || refers(&aggregate.aggr_expr);
            let is_total = groups.is_empty();
            Ok(!is_refused
                && (!is_total || above.may_total)
                && is_plain_below(&aggregate.input, Above { may_total: false, is_grouped: true })?)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => is_plain_below(input, Above { is_grouped: true, ..below }),
        _ => Ok(false),
    }
}

fn refers(exprs: &[Expr]) -> bool {
    exprs.iter().any(Expr::contains_outer)
}

/// Whether a condition is `column = outside`, which can be lifted past groups.
fn is_key(condition: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return false };
    let is_column = |side: &Expr| match side {
        Expr::Cast(Cast { expr, .. }) => matches!(expr.as_ref(), Expr::Column(_)),
        other => matches!(other, Expr::Column(_)),
    };
    (is_column(left) && !right.any_column_refs()) || (is_column(right) && !left.any_column_refs())
}
