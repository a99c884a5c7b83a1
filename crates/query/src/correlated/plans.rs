//! Small plans that larger ones are made of.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::DataType,
    common::{Column, DFSchema, DataFusionError, JoinType, NullEquality, Result, TableReference},
    logical_expr::{Expr, ExprSchemable, Join, JoinConstraint, LogicalPlan, Projection},
};

use crate::{
    error::{UNSUPPORTED, refused},
    meaning::order_key,
};

pub(super) fn project(input: LogicalPlan, columns: Vec<Expr>) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(input))?))
}

pub(super) fn join(left: LogicalPlan, right: LogicalPlan, kind: JoinType, on: Option<Expr>) -> Result<LogicalPlan> {
    let (left, right, nulls) = (Arc::new(left), Arc::new(right), NullEquality::NullEqualsNothing);
    Ok(LogicalPlan::Join(Join::try_new(left, right, Vec::new(), on, kind, JoinConstraint::On, nulls, false)?))
}

/// The column with this name alone.
pub(super) fn key(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// What a column outside is told apart by: a float has one zero, as in comparisons.
pub(super) fn value(column: &Column, outside: &DFSchema) -> Result<Expr> {
    let value = Expr::Column(column.clone());
    Ok(match value.get_type(outside)? {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => order_key(value),
        _ => value,
    })
}

/// Two values that are compared, the first one of a plan: floats have one zero, and a month is
/// thirty days.
pub(super) fn compared(value: Expr, other: Expr, other_kind: &DataType, schema: &DFSchema) -> Result<(Expr, Expr)> {
    let kinds = (&value.get_type(schema)?, other_kind);
    if kinds.0.is_floating() || kinds.1.is_floating() {
        let float = |value: Expr| Ok::<_, DataFusionError>(order_key(value.cast_to(&DataType::Float64, schema)?));
        return Ok((float(value)?, float(other)?));
    }
    Ok(match kinds {
        (DataType::Interval(_), DataType::Interval(_)) => (order_key(value), order_key(other)),
        _ => (value, other),
    })
}

/// The columns of a plan under the name of an alias.
pub(super) fn aliased(schema: &DFSchema, alias: &TableReference) -> Vec<Expr> {
    let named = |column: Column| {
        let name = column.name.clone();
        Expr::Column(column).alias_qualified(Some(alias.clone()), name)
    };
    schema.columns().into_iter().map(named).collect()
}

/// The columns of a plan, as they are.
pub(super) fn columns(schema: &DFSchema) -> Vec<Expr> {
    schema.columns().into_iter().map(Expr::Column).collect()
}

/// What a node is called in SQL, or in plans.
pub(super) fn kind(plan: &LogicalPlan) -> String {
    let shown = plan.display().to_string();
    shown.split([':', ' ']).next().unwrap_or_default().to_owned()
}

/// There is no answer for a correlated subquery of this kind.
pub(super) fn unsupported<T>(what: &str) -> Result<T> {
    Err(not_here(what))
}

fn not_here(what: &str) -> DataFusionError {
    refused(UNSUPPORTED, format!("a correlated subquery {what} is not supported here; write it as a join"))
}
