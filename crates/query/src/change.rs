//! `INSERT`, `UPDATE` and `DELETE`, as far as SQL is concerned: which rows, and what they are to
//! be. Nothing is written here.

use datafusion::{
    arrow::record_batch::RecordBatch,
    logical_expr::{LogicalPlan, WriteOp},
    prelude::SessionContext,
    sql::sqlparser::ast::{AssignmentTarget, Expr, SelectItem, SetExpr, Statement, Value},
};
use futures::TryStreamExt;
use rollcall_types::TableName;

use crate::{
    error::QueryError,
    meaning::exactly,
    syntax::{call, folded},
};

/// What a statement does to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The rows are new.
    Insert,
    /// The rows take the place of those with their keys.
    Update,
    /// The rows go.
    Delete,
}

/// The rows that a statement is about: as they are to be, or, if they go, as they are.
#[derive(Debug, Clone)]
pub struct Change {
    /// The table, of schema `public`.
    pub table: TableName,
    /// What is done to it.
    pub kind: ChangeKind,
    /// The rows, in columns of the table without Rollcall's own.
    pub rows: Vec<RecordBatch>,
}

/// Whether a statement changes rows.
pub fn is_change(statement: &Statement) -> bool {
    matches!(statement, Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_))
}

/// The columns that an `UPDATE` sets.
pub fn columns_set(statement: &Statement) -> Vec<String> {
    let Statement::Update(update) = statement else { return Vec::new() };
    let names = update.assignments.iter().flat_map(|assignment| match &assignment.target {
        AssignmentTarget::ColumnName(name) => vec![name],
        AssignmentTarget::Tuple(names) => names.iter().collect(),
    });
    names.filter_map(|name| name.0.last()?.as_ident()).map(folded).collect()
}

/// Marks values that a statement casts itself: it says how they are rounded, while those that are
/// cast for the column's sake are given to it exactly.
pub(crate) fn mark_casts(statement: &mut Statement) {
    match statement {
        Statement::Update(update) => update.assignments.iter_mut().for_each(|of| mark(&mut of.value)),
        Statement::Insert(insert) => {
            let query = insert.source.as_mut().map(|source| source.body.as_mut());
            match query {
                Some(SetExpr::Values(values)) => {
                    values.rows.iter_mut().for_each(|row| row.content.iter_mut().for_each(mark))
                }
                Some(SetExpr::Select(select)) => select.projection.iter_mut().for_each(|item| match item {
                    SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. } => mark(value),
                    _ => {}
                }),
                _ => {}
            }
        }
        _ => {}
    }
}

fn mark(value: &mut Expr) {
    match value {
        Expr::Nested(inner) => mark(inner),
        Expr::Cast { .. } => {
            let cast = std::mem::replace(value, Expr::value(Value::Null));
            *value = call("coalesce", [cast]);
        }
        _ => {}
    }
}

/// Finds the rows of a change that was planned.
pub(crate) async fn find(context: &SessionContext, plan: LogicalPlan, rows_max: usize) -> Result<Change, QueryError> {
    let LogicalPlan::Dml(change) = plan else { return Err(QueryError::Sql("this changes no rows".to_owned())) };
    let kind = match change.op {
        WriteOp::Insert(_) => ChangeKind::Insert,
        WriteOp::Update => ChangeKind::Update,
        WriteOp::Delete => ChangeKind::Delete,
        ref other => return Err(QueryError::Sql(format!("{} is not supported", other.name()))),
    };
    let name = change.table_name.table();
    let is_current = change.table_name.schema().is_none_or(|schema| schema == "public");
    let table = TableName::new(name).ok().filter(|_| is_current);
    let table = table.ok_or_else(|| QueryError::Sql(format!("{} cannot be changed", change.table_name)))?;
    let state = context.state();
    let input = state.optimize(&exactly(change.input.as_ref().clone())?)?;
    let physical = state.query_planner().create_physical_plan(&input, &state).await?;
    let mut stream = datafusion::physical_plan::execute_stream(physical, context.task_ctx())?;
    let (mut rows, mut count) = (Vec::new(), 0);
    while let Some(batch) = stream.try_next().await? {
        count += batch.num_rows();
        if count > rows_max {
            return Err(QueryError::Limit(format!("more than {rows_max} rows would change; publish them from a file")));
        }
        let own: Vec<usize> = (0..batch.num_columns())
            .filter(|place| !batch.schema_ref().field(*place).name().starts_with('_'))
            .collect();
        rows.push(batch.project(&own).map_err(datafusion::error::DataFusionError::from)?);
    }
    Ok(Change { table, kind, rows })
}
