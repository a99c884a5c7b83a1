//! Groups are not taken to determine one another.
//!
//! Of columns that determine others of their input, the engine believes that they determine
//! everything in the groups that they are a part of (`aggregate_functional_dependencies` of
//! DataFusion 55). It then leaves out of a further grouping what seems to be determined, and finds
//! one group for several. Behind such groups, the columns that it believes this of are passed
//! through a function that gives its argument back, which it does not see through.

use std::{cell::Cell, collections::BTreeSet, sync::Arc};

use datafusion::{
    arrow::datatypes::DataType,
    common::{
        Result,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        Aggregate, ColumnarValue, Expr, LogicalPlan, Projection, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
        Signature, Volatility,
        expr_rewriter::NamePreserver,
        planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning},
    },
    optimizer::{OptimizerConfig, OptimizerRule},
    sql::sqlparser::ast::TableFactor,
};

const NAME: &str = "rollcall_itself";

/// See the module. It stands before each rule that goes by such beliefs.
#[derive(Debug)]
pub(crate) struct NoFalseDependencies;

impl OptimizerRule for NoFalseDependencies {
    fn name(&self) -> &str {
        "no_false_dependencies"
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        plan.transform_up(|node| {
            if is_passing_on(&node) {
                return Ok(Transformed::no(node));
            }
            node.map_children(|input| match input {
                LogicalPlan::Aggregate(aggregate) => behind(aggregate),
                other => Ok(Transformed::no(other)),
            })
        })
    }
}

fn behind(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let groups = aggregate.schema.fields().len() - aggregate.aggr_expr.len();
    let believed: BTreeSet<usize> = aggregate
        .schema
        .functional_dependencies()
        .iter()
        .filter(|belief| belief.source_indices.len() < groups)
        .flat_map(|belief| belief.source_indices.iter().copied())
        .collect();
    if believed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    Ok(Transformed::yes(passed_on(LogicalPlan::Aggregate(aggregate), &believed)?))
}

/// Plans a relation as usual; then none of its columns is taken to determine others. The planner
/// would group by such others too, and PostgreSQL has this of tables with a primary key alone, of
/// which there are none here.
#[derive(Debug)]
pub(crate) struct NothingDetermined;

thread_local! {
    /// Whether the relation that comes next is being planned as usual.
    static IS_UNDER_WAY: Cell<bool> = const { Cell::new(false) };
}

impl RelationPlanner for NothingDetermined {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        if IS_UNDER_WAY.replace(false) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        IS_UNDER_WAY.set(true);
        let planned = context.plan(relation);
        IS_UNDER_WAY.set(false);
        let plan = planned?;
        let determining: BTreeSet<usize> = plan
            .schema()
            .functional_dependencies()
            .iter()
            .flat_map(|belief| belief.source_indices.iter().copied())
            .collect();
        let plan = if determining.is_empty() { plan } else { passed_on(plan, &determining)? };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}

/// The same rows, with some columns passed through the function.
fn passed_on(plan: LogicalPlan, places: &BTreeSet<usize>) -> Result<LogicalPlan> {
    let columns = plan.schema().columns().into_iter().enumerate().map(|(place, column)| {
        if !places.contains(&place) {
            return Expr::Column(column);
        }
        let (relation, name) = (column.relation.clone(), column.name.clone());
        itself(Expr::Column(column)).alias_qualified(relation, name)
    });
    let columns = columns.collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?))
}

/// The plan without the function: nothing goes by beliefs any more.
pub(crate) fn without(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plain = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let plain = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let plain = expr.transform_up(|expr| match expr {
                Expr::ScalarFunction(mut function) if function.name() == NAME && function.args.len() == 1 => {
                    Ok(Transformed::yes(function.args.remove(0)))
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(plain.update_data(|expr| name.restore(expr)))
        })?;
        if plain.transformed { plain.map_data(LogicalPlan::recompute_schema) } else { Ok(plain) }
    })?;
    Ok(plain.data)
}

/// Whether a node already passes columns on through the function.
fn is_passing_on(node: &LogicalPlan) -> bool {
    let LogicalPlan::Projection(projection) = node else { return false };
    let is_it = |expr: &Expr| matches!(expr, Expr::ScalarFunction(function) if function.name() == NAME);
    projection.expr.iter().any(|expr| expr.exists(|expr| Ok(is_it(expr))).unwrap_or_default())
}

fn itself(value: Expr) -> Expr {
    ScalarUDF::new_from_impl(Itself { signature: Signature::any(1, Volatility::Immutable) }).call(vec![value])
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Itself {
    signature: Signature,
}

impl ScalarUDFImpl for Itself {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(kinds.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = args.args.into_iter().next();
        value.ok_or_else(|| datafusion::common::DataFusionError::Execution("a value is missing".to_owned()))
    }
}
