//! What PostgreSQL's clients ask about a server: `pg_catalog`, over the tables that a question sees.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use datafusion::{
    arrow::datatypes::SchemaRef,
    catalog::{CatalogProviderList, MemoryCatalogProviderList, SchemaProvider},
    common::Result,
    logical_expr::TableType,
};
use datafusion_pg_catalog::pg_catalog::{
    PgCatalogSchemaProvider, PgCatalogStaticTables, catalog_info::CatalogInfo, context::EmptyContextProvider,
};

/// `pg_catalog` for one client. It remembers the numbers it gave to tables, since clients ask for a table's number first and
/// for what has that number then.
#[derive(Clone)]
pub struct System {
    provider: Arc<PgCatalogSchemaProvider<Shown, EmptyContextProvider>>,
    shown: Shown,
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("System")
    }
}

impl System {
    pub(crate) fn new(tables: Arc<PgCatalogStaticTables>) -> Result<Self> {
        let shown = Shown(Arc::new(RwLock::new(Arc::new(MemoryCatalogProviderList::new()))));
        let provider = PgCatalogSchemaProvider::try_new(shown.clone(), tables, EmptyContextProvider)?;
        Ok(Self { provider: Arc::new(provider), shown })
    }

    /// The schema, which from now on shows these catalogs. It must not be within them: they would never be freed.
    pub(crate) fn over(&self, catalogs: Arc<dyn CatalogProviderList>) -> Arc<dyn SchemaProvider> {
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = catalogs;
        self.provider.clone()
    }
}

/// The catalogs that the client's question sees.
#[derive(Debug, Clone)]
struct Shown(Arc<RwLock<Arc<dyn CatalogProviderList>>>);

impl Shown {
    fn list(&self) -> Arc<dyn CatalogProviderList> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl CatalogInfo for Shown {
    async fn catalog_names(&self) -> Result<Vec<String>> {
        CatalogInfo::catalog_names(&self.list()).await
    }

    async fn schema_names(&self, catalog: &str) -> Result<Option<Vec<String>>> {
        CatalogInfo::schema_names(&self.list(), catalog).await
    }

    async fn table_names(&self, catalog: &str, schema: &str) -> Result<Option<Vec<String>>> {
        CatalogInfo::table_names(&self.list(), catalog, schema).await
    }

    async fn table_schema(&self, catalog: &str, schema: &str, table: &str) -> Result<Option<SchemaRef>> {
        CatalogInfo::table_schema(&self.list(), catalog, schema, table).await
    }

    async fn table_type(&self, catalog: &str, schema: &str, table: &str) -> Result<Option<TableType>> {
        CatalogInfo::table_type(&self.list(), catalog, schema, table).await
    }
}
