//! Current rows: the newest version per (site, key), deleted ones removed.
//!
//! Only a file with updates or deletes can supersede a row of another, so a table of inserts is
//! read as it is. Otherwise the newest position of each updated or deleted key, from the few files
//! that have any, is anti-joined: a row stays unless a newer version of its key exists.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::SchemaRef,
    catalog::{Session, TableProvider},
    common::{Column, JoinType, NullEquality, Result, TableReference},
    datasource::{ViewTable, provider_as_source},
    execution::object_store::ObjectStoreUrl,
    functions_aggregate::expr_fn::max,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType, ident, lit},
    physical_plan::ExecutionPlan,
};
use rollcall_lake::{DataFile, Lives, Snapshot, our_columns};
use rollcall_types::{SiteId, SiteNumber, TableName};

use crate::{
    scan::FilesTable,
    visible::{SpecialSites, bounds, visible_rows},
};

const ROWS: &str = "rows";
const NEWER: &str = "newer";
const NEWEST_SEQ: &str = "_newest_seq";

/// A version of a table, and what of it is asked for.
pub(crate) struct Whole<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) root: &'a str,
    pub(crate) url: &'a ObjectStoreUrl,
    /// See [`FilesTable::site_table`].
    pub(crate) site_table: Option<TableName>,
    /// Only rows of these sites; all if none.
    pub(crate) only: Option<Arc<HashSet<String>>>,
}

impl Whole<'_> {
    fn files(&self, files: Vec<Arc<DataFile>>, site_table: Option<TableName>) -> FilesTable {
        FilesTable::new(self.snapshot.schema().arrow(), self.root.to_owned(), files, self.url.clone())
            .of_sites(site_table, self.only.clone())
    }
}

/// Every change of a table.
pub(crate) fn history(whole: &Whole<'_>) -> FilesTable {
    whole.files(whole.snapshot.files().cloned().collect(), whole.site_table.clone())
}

/// The current rows of a table.
pub(crate) fn current(
    whole: &Whole<'_>,
    site_ids: &HashMap<SiteNumber, SiteId>,
    lives: &Lives,
) -> Result<Arc<dyn TableProvider>> {
    let snapshot = whole.snapshot;
    let schema = snapshot.schema();
    let files: Vec<Arc<DataFile>> = snapshot.files().filter(|file| !file.superseded).cloned().collect();
    let mutated: Vec<Arc<DataFile>> = files.iter().filter(|file| file.mutations > 0).cloned().collect();
    let special: SpecialSites = snapshot
        .special_sites(lives)
        .filter_map(|(site, visible)| Some((site_ids.get(&site)?.as_str().to_owned(), bounds(visible))))
        .collect();
    let visible = (!special.is_empty()).then(|| {
        let columns = [our_columns::SITE, our_columns::EPOCH, our_columns::SEQ];
        visible_rows(special).call(columns.map(ident).to_vec())
    });
    let scan = |name: &str, files: Vec<Arc<DataFile>>, site_table: Option<TableName>| {
        let table: Arc<dyn TableProvider> = Arc::new(whole.files(files, site_table));
        let builder = LogicalPlanBuilder::scan(TableReference::bare(name), provider_as_source(table), None)?;
        match &visible {
            Some(visible) => builder.filter(visible.clone()),
            None => Ok(builder),
        }
    };
    let mut plan = scan(ROWS, files, whole.site_table.clone())?;
    if !mutated.is_empty() {
        plan = plan.filter(ident(our_columns::OP).not_eq(lit("D")))?;
        if !schema.key.is_empty() {
            let keys: Vec<&str> = std::iter::once(our_columns::SITE).chain(schema.key_columns()).collect();
            let newer = scan("changed", mutated, None)?
                .filter(ident(our_columns::OP).in_list(our_columns::MUTATIONS.map(lit).to_vec(), false))?
                .aggregate(keys.iter().map(|name| ident(*name)), vec![max(ident(our_columns::SEQ)).alias(NEWEST_SEQ)])?
                .alias(TableReference::bare(NEWER))?
                .build()?;
            let of = |table: &'static str| keys.iter().map(move |name| column(table, name)).collect::<Vec<_>>();
            let is_newer = Expr::Column(column(NEWER, NEWEST_SEQ)).gt(Expr::Column(column(ROWS, our_columns::SEQ)));
            plan = plan.join_detailed(
                newer,
                JoinType::LeftAnti,
                (of(ROWS), of(NEWER)),
                Some(is_newer),
                NullEquality::NullEqualsNull,
            )?;
        }
    }
    // The store's own columns first: they are what people look for.
    let (ours, own): (Vec<_>, Vec<_>) = schema.columns.iter().partition(|column| column.name.starts_with('_'));
    let columns = own.into_iter().chain(ours).map(|known| Expr::Column(column(ROWS, &known.name)));
    let plan = plan.project(columns)?.build()?;
    Ok(Arc::new(CurrentRows(ViewTable::new(plan, None))))
}

/// A view in all but name: clients look for stores' tables among the tables.
#[derive(Debug)]
struct CurrentRows(ViewTable);

#[async_trait]
impl TableProvider for CurrentRows {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        self.0.get_logical_plan()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.0.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.scan(state, projection, filters, limit).await
    }
}

fn column(table: &str, name: &str) -> Column {
    Column::new(Some(TableReference::bare(table)), name)
}
