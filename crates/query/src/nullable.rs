//! What holds below an outer join need not hold above it.
//!
//! DataFusion 55 keeps the constants of a join's side whose columns may be null above the join:
//! with `qty = 2` below, it takes `qty` for 2 everywhere above, and leaves it out of orders and
//! windows. So nothing that holds of that side's columns is told to the join.

use std::sync::Arc;

use datafusion::{
    common::{
        JoinType, Result,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
        joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec},
    },
};

/// See the module. It comes once it is chosen which side is which, and before orders are made sure
/// of.
#[derive(Debug)]
pub(crate) struct ForgetBelowOuterJoins;

impl PhysicalOptimizerRule for ForgetBelowOuterJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let (may_left, may_right) = match kind_of(plan.as_ref()) {
                Some(JoinType::Left) => (false, true),
                Some(JoinType::Right) => (true, false),
                Some(JoinType::Full) => (true, true),
                _ => return Ok(Transformed::no(plan)),
            };
            let sides = plan.children().into_iter().zip([may_left, may_right]).map(|(side, may_be_null)| {
                if may_be_null { Arc::new(Forgetful::new(side.clone())) as _ } else { side.clone() }
            });
            let sides = sides.collect();
            Ok(Transformed::yes(plan.replace_children(sides, recomputed())?))
        })
        .data()
    }

    fn name(&self) -> &str {
        "forget_below_outer_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn recomputed() -> ReplaceChildrenOptions {
    ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute)
}

fn kind_of(plan: &dyn ExecutionPlan) -> Option<JoinType> {
    let plan: &dyn std::any::Any = plan;
    let hash = plan.downcast_ref::<HashJoinExec>().map(|join| *join.join_type());
    let loops = || plan.downcast_ref::<NestedLoopJoinExec>().map(|join| *join.join_type());
    let merge = || plan.downcast_ref::<SortMergeJoinExec>().map(SortMergeJoinExec::join_type);
    hash.or_else(loops).or_else(merge)
}

/// Passes rows on, and tells nothing of them.
#[derive(Debug)]
struct Forgetful {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl Forgetful {
    fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let known = input.properties();
        let nothing = EquivalenceProperties::new(input.schema());
        let properties = PlanProperties::clone(known).with_eq_properties(nothing);
        Self { properties: Arc::new(properties), input }
    }
}

impl DisplayAs for Forgetful {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Forgetful: columns may be null above")
    }
}

impl ExecutionPlan for Forgetful {
    fn name(&self) -> &str {
        "Forgetful"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().unwrap_or_else(|| self.input.clone());
        Ok(Arc::new(Self::new(input)))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }
}
