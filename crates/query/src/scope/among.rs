//! Which sites satisfy a restriction.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, AsArray, BooleanArray, StringViewArray},
        compute::cast,
        datatypes::{DataType, Field, Schema},
        record_batch::RecordBatch,
    },
    common::{
        Column, DFSchema, Result,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    datasource::source_as_provider,
    logical_expr::{Aggregate, Distinct, Expr, LogicalPlan, LogicalPlanBuilder, TableScan},
    prelude::SessionContext,
};
use rollcall_lake::our_columns;
use rollcall_types::SiteId;

use super::{is_roster, is_work_table, walk::Predicate};
use crate::scan::FilesTable;

/// For which sites a predicate over `_site` is true.
pub(super) fn evaluate(
    context: &SessionContext,
    predicate: &Predicate,
    ids: &Arc<StringViewArray>,
) -> Result<BooleanArray> {
    let schema = Arc::new(Schema::new(vec![Field::new(our_columns::SITE, DataType::Utf8View, true)]));
    let predicate = predicate.over(our_columns::SITE, &DataType::Utf8View)?;
    let physical = context.create_physical_expr(predicate, &DFSchema::try_from(schema.clone())?)?;
    let rows = RecordBatch::try_new(schema, vec![ids.clone()])?;
    let values = physical.evaluate(&rows)?.into_array(ids.len())?;
    Ok(cast(&values, &DataType::Boolean)?.as_boolean().clone())
}

/// Which sites are among the values of a column of a plan that reads no site table; none if all
/// are.
pub(super) async fn among(
    context: &SessionContext,
    plan: &Arc<LogicalPlan>,
    key: &Column,
    sites: &[SiteId],
) -> Result<Option<Vec<bool>>> {
    if is_whole_roster(plan, key) {
        return Ok(None);
    }
    let key = Expr::Column(key.clone());
    let projected = LogicalPlanBuilder::from(plan.as_ref().clone()).project([key])?.build()?;
    let rows = context.execute_logical_plan(projected).await?.collect().await?;
    let mut is_among = vec![false; sites.len()];
    for rows in rows {
        let texts = cast(rows.column(0), &DataType::Utf8)?;
        for text in texts.as_string::<i32>().iter().flatten() {
            if let Ok(index) = sites.binary_search_by(|site| site.as_str().cmp(text)) {
                is_among[index] = true;
            }
        }
    }
    Ok(Some(is_among))
}

/// Whether the values are the ids of all sites: most questions join the roster.
fn is_whole_roster(plan: &LogicalPlan, key: &Column) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => is_whole_roster(&alias.input, key),
        LogicalPlan::TableScan(scan) => {
            key.name == "id" && is_roster(scan) && scan.filters.is_empty() && scan.fetch.is_none()
        }
        _ => false,
    }
}

/// Whether a plan gives the same rows whatever sites sent, and whenever it runs within this query.
pub(super) fn reads_no_site(plan: &LogicalPlan) -> bool {
    let mut is_plain = true;
    let walked = plan.apply_with_subqueries(|node| {
        let is_settled = match node {
            LogicalPlan::TableScan(scan) => scan.fetch.is_none() && !reads_sites(scan),
            // Which rows are within a limit, or first in a window, may differ from run to run.
            LogicalPlan::Limit(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Distinct(Distinct::On(_))
            | LogicalPlan::Extension(_)
            | LogicalPlan::RecursiveQuery(_) => false,
            LogicalPlan::Sort(sort) => sort.fetch.is_none(),
            LogicalPlan::Aggregate(aggregate) => is_same_in_any_order(aggregate),
            _ => true,
        };
        let mut is_volatile = false;
        node.apply_expressions(|expr| {
            is_volatile |=
                expr.is_volatile() || expr.exists(|expr| Ok(matches!(expr, Expr::OuterReferenceColumn(..))))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        is_plain &= is_settled && !is_volatile;
        Ok(if is_plain { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.is_ok() && is_plain
}

/// Whether a scan may read what sites sent: rows of a table in the lake, of a recursion, or of a
/// view over either.
fn reads_sites(scan: &TableScan) -> bool {
    let provider = source_as_provider(&scan.source);
    is_work_table(scan)
        || scan.source.get_logical_plan().is_some()
        || provider.map_or(true, |provider| provider.downcast_ref::<FilesTable>().is_some())
}

/// Whether an aggregation gives the same, in whatever order its rows come.
fn is_same_in_any_order(aggregate: &Aggregate) -> bool {
    const ANY_ORDER: [&str; 8] = ["count", "min", "max", "sum", "avg", "bool_and", "bool_or", "grouping"];
    let is_float = |place: usize| aggregate.schema.field(place).data_type().is_floating();
    let first = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
    aggregate.aggr_expr.iter().enumerate().all(|(index, expr)| match expr.clone().unalias_nested().data {
        Expr::AggregateFunction(call) => {
            let name = call.func.name();
            ANY_ORDER.contains(&name) && (["min", "max"].contains(&name) || !is_float(first + index))
        }
        _ => false,
    })
}
