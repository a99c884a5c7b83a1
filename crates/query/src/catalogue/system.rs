//! `pg_catalog` for one client, over the tables that its question sees.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use datafusion::{
    catalog::{CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableProvider},
    common::Result,
    logical_expr::ScalarUDF,
};
use datafusion_pg_catalog::pg_catalog::{
    PgCatalogSchemaProvider, PgCatalogStaticTables, context::EmptyContextProvider,
};
use tokio::sync::OnceCell;

use super::{
    contents::Contents,
    functions::functions,
    keys::Key,
    relations::{OWN_RELATIONS, relation},
};

/// What is the same for every client: PostgreSQL's own types, functions and operators.
#[derive(Clone)]
pub struct System {
    tables: Arc<PgCatalogStaticTables>,
    rest: Arc<PgCatalogSchemaProvider<Arc<dyn CatalogProviderList>, EmptyContextProvider>>,
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("System")
    }
}

/// What a question was told of tables, once it asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(Arc<OnceCell<Contents>>);

impl Seen {
    /// Nothing before the first relation that tells of tables was asked for.
    pub(crate) fn contents(&self) -> &Contents {
        static NOTHING: OnceLock<Contents> = OnceLock::new();
        self.0.get().unwrap_or_else(|| NOTHING.get_or_init(Contents::default))
    }
}

impl System {
    pub(crate) fn new(tables: Arc<PgCatalogStaticTables>) -> Result<Self> {
        let none: Arc<dyn CatalogProviderList> = Arc::new(MemoryCatalogProviderList::new());
        let rest = PgCatalogSchemaProvider::try_new(none, tables.clone(), EmptyContextProvider)?;
        Ok(Self { tables, rest: Arc::new(rest) })
    }

    /// The schema over these catalogs, and the functions that go with it. It must not be within
    /// them: they would never be freed.
    pub(crate) fn over(
        &self,
        database: &'static str,
        user: Option<String>,
        shown: Arc<dyn CatalogProviderList>,
        keys: Vec<Key>,
    ) -> (Arc<dyn SchemaProvider>, Vec<ScalarUDF>) {
        let seen = Seen::default();
        let functions = functions(&seen, &self.tables);
        (Arc::new(PgCatalog { system: self.clone(), database, user, shown, keys, seen }), functions)
    }
}

#[derive(Debug)]
struct PgCatalog {
    system: System,
    database: &'static str,
    user: Option<String>,
    shown: Arc<dyn CatalogProviderList>,
    keys: Vec<Key>,
    seen: Seen,
}

#[async_trait]
impl SchemaProvider for PgCatalog {
    fn table_names(&self) -> Vec<String> {
        let mut names = self.system.rest.table_names();
        names.extend(OWN_RELATIONS.map(str::to_owned));
        names.sort_unstable();
        names.dedup();
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        // Functions read it too, which cannot wait.
        let contents = self.seen.0.get_or_try_init(|| Contents::gather(self.shown.as_ref(), &self.keys)).await?;
        match relation(name, self.database, self.user.as_deref(), contents)? {
            Some(table) => Ok(Some(table)),
            None => self.system.rest.table(name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        OWN_RELATIONS.contains(&name) || self.system.rest.table_exist(name)
    }
}
