//! Which columns of an answer have the precision and scale that somebody declared: those of a
//! table, and those that a question casts. Of others PostgreSQL tells none.

use std::collections::HashMap;

use datafusion::{
    arrow::datatypes::{DataType, Field, Schema, SchemaRef},
    logical_expr::{Distinct, Expr, JoinType, LogicalPlan},
};

/// The key of a field's metadata that says so.
pub const DECLARED: &str = "pg.declared";

/// For each column of a plan, as it is written, whether its precision was declared.
pub(crate) fn declared(plan: &LogicalPlan) -> Vec<bool> {
    (0..plan.schema().fields().len()).map(|place| is_declared(plan, place)).collect()
}

/// The schema with what was declared told in it.
pub(crate) fn told(schema: &SchemaRef, declared: &[bool]) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(place, field)| {
            let field = field.as_ref().clone();
            let is_decimal = matches!(field.data_type(), DataType::Decimal128(..) | DataType::Decimal256(..));
            if !is_decimal || declared.get(place) != Some(&true) {
                return field;
            }
            let mut metadata: HashMap<String, String> = field.metadata().clone();
            metadata.insert(DECLARED.to_owned(), String::new());
            field.with_metadata(metadata)
        })
        .collect();
    Schema::new_with_metadata(fields, schema.metadata().clone()).into()
}

fn is_declared(plan: &LogicalPlan, place: usize) -> bool {
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::Projection(projection) => match projection.expr.get(place).map(unaliased) {
            Some(Expr::Column(column)) => projection
                .input
                .schema()
                .index_of_column(column)
                .is_ok_and(|place| is_declared(&projection.input, place)),
            Some(Expr::Cast(_)) => true,
            _ => false,
        },
        LogicalPlan::Filter(filter) => is_declared(&filter.input, place),
        LogicalPlan::Sort(sort) => is_declared(&sort.input, place),
        LogicalPlan::Limit(limit) => is_declared(&limit.input, place),
        LogicalPlan::SubqueryAlias(alias) => is_declared(&alias.input, place),
        LogicalPlan::Distinct(Distinct::All(input)) => is_declared(input, place),
        LogicalPlan::Window(window) => {
            place < window.input.schema().fields().len() && is_declared(&window.input, place)
        }
        LogicalPlan::Join(join) => {
            let of_left = join.left.schema().fields().len();
            match join.join_type {
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full if place >= of_left => {
                    is_declared(&join.right, place - of_left)
                }
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => is_declared(&join.right, place),
                _ => place < of_left && is_declared(&join.left, place),
            }
        }
        _ => false,
    }
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}
