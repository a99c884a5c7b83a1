//! Scans of which a user may see some sites' rows only.

use std::{collections::HashSet, fmt, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, AsArray, BooleanArray},
        datatypes::DataType,
    },
    catalog::Session,
    common::{DFSchema, Result, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, ident},
    physical_expr::{PhysicalExpr, expressions::Column},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, filter::FilterExec, projection::ProjectionExec,
    },
};
use rollcall_lake::our_columns;

/// `rollcall_is_seen(_site)`: whether the user may see rows of this site.
#[derive(Debug)]
struct IsSeen {
    signature: Signature,
    only: Arc<HashSet<String>>,
}

impl PartialEq for IsSeen {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.only, &other.only)
    }
}

impl Eq for IsSeen {}

impl std::hash::Hash for IsSeen {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for IsSeen {
    fn name(&self) -> &str {
        "rollcall_is_seen"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let sites = args.args[0].to_array(args.number_rows)?;
        let sites = sites.as_string_view();
        let seen = (0..sites.len()).map(|row| sites.is_valid(row) && self.only.contains(sites.value(row)));
        Ok(ColumnarValue::Array(Arc::new(seen.map(Some).collect::<BooleanArray>())))
    }
}

/// The rows of `all` from these sites, in the columns of `projection`. Nothing that a question asks
/// is evaluated on others.
pub(crate) fn only_these(
    state: &dyn Session,
    all: Arc<dyn ExecutionPlan>,
    only: Arc<HashSet<String>>,
    projection: Option<&Vec<usize>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = all.schema();
    let signature = Signature::exact(vec![DataType::Utf8View], Volatility::Immutable);
    let is_seen = ScalarUDF::from(IsSeen { signature, only }).call(vec![ident(our_columns::SITE)]);
    let is_seen = state.create_physical_expr(is_seen, &DFSchema::try_from(schema.clone())?)?;
    let barrier = Arc::new(Barrier(Arc::new(FilterExec::try_new(is_seen, all)?)));
    let Some(projection) = projection else { return Ok(barrier) };
    let columns = projection.iter().map(|index| {
        let name = schema.field(*index).name().clone();
        (Arc::new(Column::new(&name, *index)) as _, name)
    });
    Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), barrier)?))
}

/// Passes rows on, and lets no filter, limit or projection from above through.
#[derive(Debug)]
struct Barrier(Arc<dyn ExecutionPlan>);

impl DisplayAs for Barrier {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Barrier: only sites that may be seen")
    }
}

impl ExecutionPlan for Barrier {
    fn name(&self) -> &str {
        "Barrier"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.0.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.0]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self(children.into_iter().next().unwrap_or_else(|| self.0.clone()))))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.0.execute(partition, context)
    }
}
