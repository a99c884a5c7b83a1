//! What operators, casts, literals and aggregates mean: what they mean in PostgreSQL.
//!
//! DataFusion wraps integers around, cuts what does not fit, makes any two types meet, and knows
//! moments to the nanosecond between 1677 and 2262 only. Here each operator and cast of a question
//! becomes one that does as PostgreSQL does, or says that it cannot: never another value. Where a
//! question is planned ([`planner`]), operators get their types and literals their digits; a rule
//! over the plan ([`rule`]) does the same for casts and comparisons, once the session's time zone
//! is known. Comparisons stay plain, so that filters reach the scans.
//!
//! Exact numbers have at most 38 digits, and a column of them one scale. So a quotient has 20 to 24
//! digits behind the point (more if its operands do), correctly rounded, where PostgreSQL gives 16
//! significant ones; between literals it has as many as there.

mod aggregate;
mod any;
mod calendar;
mod cast;
mod compare;
mod convert;
mod date_text;
mod decimal;
mod exactly;
mod interval;
mod moments;
mod numbers;
mod operator;
mod order;
mod pattern;
mod planner;
mod question;
mod rows;
mod rule;
mod same;
mod spreads;
mod sums;
mod text;
mod totals;
mod types;

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, AsArray},
        datatypes::DataType,
        record_batch::RecordBatch,
    },
    common::Result,
    execution::SessionStateBuilder,
    optimizer::OptimizerRule,
    physical_optimizer::PhysicalOptimizerRule,
    prelude::SessionContext,
};
use datafusion_pg_catalog::pg_catalog::oid_type_planner::PgOidTypePlanner;

use crate::{
    correlated::Correlated,
    dependencies::{NoFalseDependencies, NothingDetermined},
    nullable::ForgetBelowOuterJoins,
};

pub(crate) use exactly::exactly;
pub(crate) use order::order_key;
pub(crate) use question::prepare;
pub(crate) use same::same_key;

/// Gives a session PostgreSQL's meaning of types, operators, casts and aggregates.
pub(crate) fn install(context: &SessionContext) -> Result<()> {
    let existing = context.state();
    let mut rules: Vec<_> = existing.analyzer().rules.clone();
    rules.splice(0..0, [Arc::new(rule::Meaning) as _, Arc::new(Correlated) as _]);
    let mut optimizers: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![Arc::new(NoFalseDependencies)];
    for optimizer in existing.optimizers() {
        // These go by what groups are believed to determine.
        if ["eliminate_group_by_constant", "optimize_projections", "eliminate_join"].contains(&optimizer.name()) {
            optimizers.push(Arc::new(NoFalseDependencies));
        }
        optimizers.push(optimizer.clone());
    }
    let mut physical: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = Vec::new();
    for optimizer in existing.physical_optimizers() {
        physical.push(optimizer.clone());
        if optimizer.name() == "join_selection" {
            physical.push(Arc::new(ForgetBelowOuterJoins));
        }
    }
    let mut planners: Vec<_> = existing.expr_planners().to_vec();
    planners.insert(0, Arc::new(planner::Operators));
    let state = SessionStateBuilder::new_from_existing(existing)
        .with_analyzer_rules(rules)
        .with_optimizer_rules(optimizers)
        .with_relation_planners(vec![Arc::new(NothingDetermined)])
        .with_physical_optimizer_rules(physical)
        .with_expr_planners(planners)
        .with_type_planner(Arc::new(types::Types { catalogue: Arc::new(PgOidTypePlanner) }))
        .build();
    *context.state_ref().write() = state;
    for function in any::functions() {
        context.register_udf(function);
    }
    // Under their other names too: what is left of them would take the names back.
    for name in ["sum", "avg", "var", "var_pop", "stddev", "stddev_pop"] {
        context.deregister_udaf(name);
    }
    for function in aggregate::functions() {
        context.register_udaf(function);
    }
    Ok(())
}

/// Values as PostgreSQL writes them in text form, row by row; none for nulls. Moments are shown in
/// `zone`, UTC if there is none.
pub fn texts(rows: &RecordBatch, zone: Option<&str>) -> Result<Vec<Vec<Option<String>>>> {
    let zone = calendar::zone(zone)?;
    let target = convert::Target { kind: DataType::Utf8, more: types::More::Nothing };
    let columns = rows.columns().iter().map(|column| convert::convert(column, &target, &zone));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let value = |(place, column): (usize, &Arc<dyn Array>), row: usize| {
        let text = column.is_valid(row).then(|| column.as_string::<i32>().value(row));
        // A truth value is one letter, except where it was cast to a text.
        let is_truth = *rows.column(place).data_type() == DataType::Boolean;
        text.map(|text| if is_truth { text[..1].to_owned() } else { text.to_owned() })
    };
    let row = |row: usize| columns.iter().enumerate().map(|column| value(column, row)).collect();
    Ok((0..rows.num_rows()).map(row).collect())
}
