//! Subqueries that refer to columns outside: lateral ones, values, and those within IN and EXISTS.
//!
//! The engine's rules make joins of the plain ones ([`plain`]). Of the others they make joins that
//! answer something else (a window that numbers all rows and not those of one row outside), or
//! none. Those are answered here, for all rows outside at once ([`outer`]); what cannot be is
//! refused.

mod membership;
mod outer;
mod plain;
mod plans;
mod references;
mod steady;

use std::sync::Arc;

use datafusion::{
    common::{
        Column, DFSchema, DataFusionError, JoinType, Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    config::ConfigOptions,
    logical_expr::{
        Aggregate, Expr, Filter, Join, JoinConstraint, LogicalPlan, LogicalPlanBuilder, Projection, Subquery,
        expr::{Exists, InSubquery, SetComparison},
        expr_rewriter::NamePreserver,
        utils::{conjunction, merge_schema, split_conjunction_owned},
    },
    optimizer::AnalyzerRule,
};

use self::{
    membership::truth,
    outer::Outer,
    plain::{Place, is_plain},
    plans::{aliased, columns, join, project, unsupported, value},
    references::{References, from_inside, lateral, subquery_of},
    steady::is_volatile,
};

/// The rule. It comes after the one that gives operators their meaning, whose work it copies.
#[derive(Debug)]
pub(crate) struct Correlated;

impl AnalyzerRule for Correlated {
    fn name(&self) -> &str {
        "correlated_subqueries"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_down_with_subqueries(conditions_first)?.data;
        Ok(plan.transform_up_with_subqueries(node)?.data)
    }
}

/// Conditions that need no subquery come below those that do, and below lateral joins: so the rows
/// outside, which are read twice, are fewer, and an answer is about fewer sites.
fn conditions_first(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Filter(filter) = plan else { return Ok(Transformed::no(plan)) };
    let is_simple = |condition: &Expr| -> Result<bool> {
        Ok(!condition.is_volatile() && !condition.exists(|expr| Ok(subquery_of(expr).is_some()))?)
    };
    let conditions = split_conjunction_owned(filter.predicate.clone());
    if let LogicalPlan::Join(join) = filter.input.as_ref()
        && matches!(join.join_type, JoinType::Inner | JoinType::Left)
        && lateral(&join.right).is_some()
    {
        let (mut below, mut above) = (Vec::new(), Vec::new());
        for condition in conditions {
            let is_outside = condition.column_refs().iter().all(|column| join.left.schema().has_column(column));
            if is_outside && is_simple(&condition)? { below.push(condition) } else { above.push(condition) }
        }
        let Some(below) = conjunction(below) else { return Ok(Transformed::no(LogicalPlan::Filter(filter))) };
        let left = LogicalPlan::Filter(Filter::try_new(below, join.left.clone())?);
        let joined = Arc::new(LogicalPlan::Join(Join { left: Arc::new(left), ..join.clone() }));
        return Ok(Transformed::yes(match conjunction(above) {
            Some(above) => LogicalPlan::Filter(Filter::try_new(above, joined)?),
            None => joined.as_ref().clone(),
        }));
    }
    let (mut simple, mut others) = (Vec::new(), Vec::new());
    for condition in conditions {
        if is_simple(&condition)? { simple.push(condition) } else { others.push(condition) }
    }
    let (Some(simple), Some(others)) = (conjunction(simple), conjunction(others)) else {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    };
    let below = LogicalPlan::Filter(Filter::try_new(simple, filter.input)?);
    Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(others, Arc::new(below))?)))
}

fn node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Join(join) if lateral(&join.right).is_some() => beside(join),
        LogicalPlan::Filter(filter) => {
            let predicate = truth(filter.predicate, filter.input.schema())?;
            within(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?))
        }
        other => within(other),
    }
}

/// A lateral join.
fn beside(one: Join) -> Result<Transformed<LogicalPlan>> {
    let Some(subquery) = lateral(&one.right) else { return Ok(Transformed::no(LogicalPlan::Join(one))) };
    let Some(outer) = outer_of(subquery, Place::Lateral, &one.left)? else {
        return Ok(Transformed::no(LogicalPlan::Join(one)));
    };
    if !matches!(one.join_type, JoinType::Inner | JoinType::Left) || !one.on.is_empty() {
        return unsupported("in a join of this kind");
    }
    let outside = one.left.schema();
    let mut rows = outer.push(&subquery.subquery)?;
    if let LogicalPlan::SubqueryAlias(alias) = one.right.as_ref() {
        rows = outer.with_keys(rows, aliased(subquery.subquery.schema(), &alias.alias))?;
    }
    let same = outer.condition(|column| value(column, outside))?;
    let on = conjunction([same].into_iter().chain(one.filter));
    let joined = join(one.left.as_ref().clone(), rows, one.join_type, on)?;
    Ok(Transformed::yes(project(joined, columns(&one.schema))?))
}

/// A node whose expressions may hold subqueries.
fn within(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !has_subquery(&plan)? {
        return Ok(Transformed::no(plan));
    }
    let inputs = plan.inputs();
    let outside = merge_schema(&inputs);
    let mut values = match inputs.as_slice() {
        [input] => Values { outside: (*input).clone(), rows: (*input).clone(), is_changed: false },
        _ => return refuse_others(plan, &outside),
    };
    let names = NamePreserver::new(&plan);
    let can_join = matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_));
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let rewritten = expr.transform_up(|expr| values.expression(expr, can_join))?;
        Ok(rewritten.update_data(|expr| name.restore(expr)))
    })?;
    if !values.is_changed {
        return Ok(rewritten);
    }
    let input = Arc::new(values.rows);
    Ok(Transformed::yes(match rewritten.data {
        LogicalPlan::Filter(filter) => {
            let filtered = LogicalPlan::Filter(Filter::try_new(filter.predicate, input)?);
            project(filtered, columns(values.outside.schema()))?
        }
        LogicalPlan::Projection(one) => LogicalPlan::Projection(Projection::try_new(one.expr, input)?),
        LogicalPlan::Aggregate(one) => {
            LogicalPlan::Aggregate(Aggregate::try_new(input, one.group_expr, one.aggr_expr)?)
        }
        _ => return unsupported("here"),
    }))
}

fn has_subquery(plan: &LogicalPlan) -> Result<bool> {
    let mut has = false;
    plan.apply_expressions(|expr| {
        has |= expr.exists(|expr| Ok(subquery_of(expr).is_some()))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(has)
}

/// In nodes with no input or several, only plain subqueries are known.
fn refuse_others(plan: LogicalPlan, outside: &DFSchema) -> Result<Transformed<LogicalPlan>> {
    plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            let Some(subquery) = subquery_of(expr) else { return Ok(TreeNodeRecursion::Continue) };
            match wanted(subquery, place_of(expr), outside)? {
                Some(_) => unsupported("in a join's condition"),
                None => Ok(TreeNodeRecursion::Continue),
            }
        })
    })?;
    Ok(Transformed::no(plan))
}

fn place_of(expr: &Expr) -> Place {
    match expr {
        Expr::Exists(_) => Place::Exists,
        Expr::ScalarSubquery(_) => Place::Value,
        _ => Place::Set,
    }
}

/// The columns outside of a subquery that the engine's rules would not answer rightly.
fn wanted(subquery: &Subquery, place: Place, outside: &DFSchema) -> Result<Option<Vec<Column>>> {
    let references = References::of(&subquery.subquery)?;
    if let Some(name) = using(&subquery.subquery, &references.own)? {
        return unsupported(&format!("that joins USING ({name}) and has {name} outside too"));
    }
    if is_plain(&subquery.subquery, place)? {
        return Ok(None);
    }
    must_not_be_volatile(&subquery.subquery)?;
    if !references.deep.is_empty() || references.own.iter().any(|column| !outside.has_column(column)) {
        return unsupported("that refers to a table two levels further out");
    }
    Ok(Some(references.own))
}

/// A column that is joined USING within the subquery, of the name of one outside. The planner takes
/// such a name without a table for the one outside, since within the subquery there are two of it.
fn using(subquery: &LogicalPlan, outside: &[Column]) -> Result<Option<String>> {
    let mut found = None;
    subquery.apply_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = node
            && join.join_constraint == JoinConstraint::Using
        {
            let is_joined = |name: &str| {
                join.on.iter().any(|(left, _)| left.try_as_col().is_some_and(|column| column.name == name))
            };
            found = outside
                .iter()
                .find(|column| is_joined(&column.name))
                .map(|column| column.name.clone())
                .or(found.take());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Rows outside with the same values share what the subquery answers for them.
fn must_not_be_volatile(subquery: &LogicalPlan) -> Result<()> {
    subquery.apply_with_subqueries(|node| match is_volatile(node)? {
        true => unsupported("with a volatile function"),
        false => Ok(TreeNodeRecursion::Continue),
    })?;
    Ok(())
}

fn outer_of(subquery: &Subquery, place: Place, outside: &LogicalPlan) -> Result<Option<Outer>> {
    let wanted = wanted(subquery, place, outside.schema())?;
    wanted.map(|wanted| Outer::new(outside, wanted)).transpose()
}

/// The input of a node, with a column for each subquery that was a value.
struct Values {
    outside: LogicalPlan,
    rows: LogicalPlan,
    is_changed: bool,
}

impl Values {
    fn expression(&mut self, expr: Expr, can_join: bool) -> Result<Transformed<Expr>> {
        let Some(subquery) = subquery_of(&expr) else { return Ok(Transformed::no(expr)) };
        let Some(outer) = outer_of(subquery, place_of(&expr), &self.outside)? else {
            return Ok(Transformed::no(expr));
        };
        let plan = subquery.subquery.clone();
        Ok(Transformed::yes(match expr {
            Expr::ScalarSubquery(_) if can_join => self.value(&plan, &outer)?,
            Expr::Exists(exists) => {
                Expr::Exists(Exists { subquery: self.asked_again(&exists.subquery, &outer)?, ..exists })
            }
            Expr::InSubquery(one) => {
                Expr::InSubquery(InSubquery { subquery: self.asked_again(&one.subquery, &outer)?, ..one })
            }
            Expr::SetComparison(one) => {
                Expr::SetComparison(SetComparison { subquery: self.asked_again(&one.subquery, &outer)?, ..one })
            }
            _ => return unsupported("in this place"),
        }))
    }

    /// The value of a subquery that has at most one row, as a column of the node's input.
    fn value(&mut self, plan: &LogicalPlan, outer: &Outer) -> Result<Expr> {
        let [column] = <[Column; 1]>::try_from(plan.schema().columns()).map_err(|_| not_one_column())?;
        if plan.max_rows().is_none_or(|most| most > 1) {
            return unsupported("that may have several rows, as a value,");
        }
        let name = outer.value_name();
        let rows = outer.with_keys(outer.push(plan)?, vec![Expr::Column(column).alias(&name)])?;
        let same = outer.condition(|column| value(column, self.outside.schema()))?;
        self.rows = join(self.rows.clone(), rows, JoinType::Left, Some(same))?;
        self.is_changed = true;
        Ok(plans::key(&name))
    }

    /// A subquery whose only condition on the outside is above everything else, and so plain.
    fn asked_again(&self, subquery: &Subquery, outer: &Outer) -> Result<Subquery> {
        let outside = self.outside.schema();
        let of = |column: &Column| from_inside(value(column, outside)?, outside);
        let rows = LogicalPlanBuilder::from(outer.push(&subquery.subquery)?).filter(outer.condition(of)?)?.build()?;
        let rows = project(rows, columns(subquery.subquery.schema()))?;
        Ok(Subquery { subquery: Arc::new(rows), ..subquery.clone() })
    }
}

fn not_one_column() -> DataFusionError {
    DataFusionError::Plan("subquery must return only one column".to_owned())
}
