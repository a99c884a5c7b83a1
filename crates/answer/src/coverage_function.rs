//! `rollcall.coverage('SELECT …')`: what the answer to a question would be missing, as a table,
//! without answering it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use rollcall_query::{
    Question,
    datafusion::{
        arrow::datatypes::SchemaRef,
        catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider},
        common::{DataFusionError, Result, ScalarValue, plan_err},
        datasource::MemTable,
        logical_expr::{Expr, TableType},
        physical_plan::ExecutionPlan,
    },
};
use rollcall_types::{Coverage, describe};

use crate::{answers::Answers, tables};

/// The function, for one who sees sites with these attributes only.
pub(crate) struct CoverageFunction {
    pub answers: Weak<Answers>,
    pub sees: BTreeMap<String, String>,
}

impl std::fmt::Debug for CoverageFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CoverageFunction")
    }
}

impl TableFunctionImpl for CoverageFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let [Expr::Literal(ScalarValue::Utf8(Some(sql)) | ScalarValue::Utf8View(Some(sql)), _)] = args.exprs() else {
            return plan_err!("rollcall.coverage takes one text: the question, in quotes");
        };
        Ok(Arc::new(CoverageOf {
            answers: self.answers.clone(),
            sees: self.sees.clone(),
            sql: sql.clone(),
            schema: tables::coverage(&Coverage::default()).schema(),
        }))
    }
}

struct CoverageOf {
    answers: Weak<Answers>,
    sees: BTreeMap<String, String>,
    sql: String,
    schema: SchemaRef,
}

impl std::fmt::Debug for CoverageOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CoverageOf").field(&self.sql).finish()
    }
}

#[async_trait]
impl TableProvider for CoverageOf {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let stopped = || DataFusionError::Execution("HQ is stopping".to_owned());
        let answers = self.answers.upgrade().ok_or_else(stopped)?;
        let planned = answers.engine.plan(Question::Text(self.sql.clone()), answers.extras(&self.sees)).await;
        let planned = planned.map_err(|error| DataFusionError::Plan(describe(&error)))?;
        let rows = tables::coverage(&planned.coverage);
        MemTable::try_new(self.schema.clone(), vec![vec![rows]])?.scan(state, projection, filters, limit).await
    }
}
