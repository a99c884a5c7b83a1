//! Runs queries, each on versions pinned when it began.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use datafusion::{
    arrow::{datatypes::SchemaRef, record_batch::RecordBatch},
    catalog::{CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableProvider},
    common::{DataFusionError, Result},
    config::Dialect,
    datasource::MemTable,
    execution::{
        SessionStateBuilder,
        context::SQLOptions,
        memory_pool::GreedyMemoryPool,
        object_store::ObjectStoreUrl,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    physical_plan::execute_stream,
    prelude::{SessionConfig, SessionContext},
};
use futures::TryStreamExt;
use rollcall_lake::{Lake, Snapshot, Table};
use rollcall_types::{Coverage, SiteId, SiteNumber, TableName};

use crate::{
    current::{current, history},
    scope::{Scope, scope},
};

/// Bounds on what a query may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineLimits {
    /// Memory of all running queries together, bytes; operators spill to disk beyond it where they can.
    pub memory_bytes: usize,
    /// Rows in an answer.
    pub rows_max: usize,
    /// Time for one query.
    pub time_max: Duration,
}

impl Default for EngineLimits {
    /// 2 GiB, a million rows, five minutes.
    fn default() -> Self {
        Self { memory_bytes: 2 << 30, rows_max: 1_000_000, time_max: Duration::from_secs(300) }
    }
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is wrong or asks for more than reading.
    #[error("{0}")]
    Sql(String),
    /// It ran into a limit.
    #[error("{0}")]
    Limit(String),
    /// HQ could not run it.
    #[error("the query failed")]
    Failed(#[from] DataFusionError),
}

/// Makes a table when a query asks for it.
pub type MakeTable = Arc<dyn Fn() -> RecordBatch + Send + Sync>;

/// What the caller knows that is in no table: goes with one query.
#[derive(Clone)]
pub struct Extras {
    /// Further tables, by schema and name.
    pub tables: Vec<(&'static str, &'static str, MakeTable)>,
    /// Ids of the sites that table cursors name by number.
    pub site_ids: Arc<HashMap<SiteNumber, SiteId>>,
    /// Who says what the answer is missing.
    pub cover: Arc<dyn Cover>,
}

impl Default for Extras {
    fn default() -> Self {
        Self { tables: Vec::new(), site_ids: Arc::default(), cover: Arc::new(NoCover) }
    }
}

impl std::fmt::Debug for Extras {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tables: Vec<_> = self.tables.iter().map(|(schema, name, _)| format!("{schema}.{name}")).collect();
        f.debug_struct("Extras").field("tables", &tables).field("cover", &self.cover).finish_non_exhaustive()
    }
}

/// Knows how complete each site is, and so what an answer is missing.
pub trait Cover: std::fmt::Debug + Send + Sync {
    /// All sites of the roster, in order.
    fn sites(&self) -> Arc<Vec<SiteId>>;

    /// The column of a table that says when its rows happened, if it was declared.
    fn event_time(&self, table: &TableName) -> Option<String>;

    /// What an answer with this scope is missing.
    fn coverage(&self, scope: &Scope) -> Coverage;
}

/// For questions that concern no site.
#[derive(Debug, Clone, Copy)]
pub struct NoCover;

impl Cover for NoCover {
    fn sites(&self) -> Arc<Vec<SiteId>> {
        Arc::default()
    }

    fn event_time(&self, _: &TableName) -> Option<String> {
        None
    }

    fn coverage(&self, _: &Scope) -> Coverage {
        Coverage::default()
    }
}

/// Rows and what they are missing.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Columns of the rows.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// Which sites the answer is about, and which of them it lacks.
    pub coverage: Coverage,
}

/// Runs SQL over a lake.
#[derive(Debug)]
pub struct Engine {
    lake: Arc<Lake>,
    runtime: Arc<RuntimeEnv>,
    store_url: ObjectStoreUrl,
    limits: EngineLimits,
}

impl Engine {
    /// An engine over `lake`.
    pub fn new(lake: Arc<Lake>, limits: EngineLimits) -> Result<Self, QueryError> {
        let pool = Arc::new(GreedyMemoryPool::new(limits.memory_bytes));
        let runtime = Arc::new(RuntimeEnvBuilder::new().with_memory_pool(pool).build()?);
        let store_url = ObjectStoreUrl::parse("lake://hq")?;
        runtime.register_object_store(store_url.as_ref(), lake.store().clone());
        Ok(Self { lake, runtime, store_url, limits })
    }

    /// Answers one read-only statement.
    pub async fn query(&self, sql: &str, extras: Extras) -> Result<Answer, QueryError> {
        let cover = extras.cover.clone();
        let context = self.context(extras)?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let run = async {
            let frame =
                context.sql_with_options(sql, options).await.map_err(|error| QueryError::Sql(explain(&error)))?;
            let plan = frame.into_optimized_plan()?;
            let event_time = |table: &TableName| cover.event_time(table);
            let coverage = cover.coverage(&scope(&context, &plan, &cover.sites(), &event_time).await?);
            let state = context.state();
            let physical = state.query_planner().create_physical_plan(&plan, &state).await?;
            let mut stream = execute_stream(physical, context.task_ctx())?;
            let schema = stream.schema();
            let (mut batches, mut rows) = (Vec::new(), 0);
            while let Some(batch) = stream.try_next().await? {
                rows += batch.num_rows();
                if rows > self.limits.rows_max {
                    let limit = self.limits.rows_max;
                    return Err(QueryError::Limit(format!(
                        "the answer has more than {limit} rows; aggregate or add a LIMIT"
                    )));
                }
                batches.push(batch);
            }
            Ok(Answer { schema, batches, coverage })
        };
        match tokio::time::timeout(self.limits.time_max, run).await {
            Ok(answer) => answer,
            Err(_) => {
                Err(QueryError::Limit(format!("the query took longer than {} s", self.limits.time_max.as_secs())))
            }
        }
    }

    /// A session whose catalog is this moment's versions of all tables.
    fn context(&self, extras: Extras) -> Result<SessionContext, QueryError> {
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema("hq", "public")
            // Ours is put in below; the default would replace it by an empty one.
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(true);
        config.options_mut().sql_parser.dialect = Dialect::PostgreSQL;
        let catalogs = Arc::new(MemoryCatalogProviderList::new());
        catalogs.register_catalog("hq".to_owned(), Arc::new(self.pin(extras)?));
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(self.runtime.clone())
            .with_default_features()
            .with_catalog_list(catalogs)
            .build();
        Ok(SessionContext::new_with_state(state))
    }

    fn pin(&self, extras: Extras) -> Result<PinnedCatalog, QueryError> {
        let mut schemas: BTreeMap<&'static str, PinnedSchema> = BTreeMap::new();
        let pin = |table: &Table, site_table: Option<&TableName>, current: bool| PinnedTable::Lake {
            site_table: site_table.cloned(),
            snapshot: Box::new(table.snapshot()),
            root: table.root().to_string(),
            current,
            site_ids: extras.site_ids.clone(),
            store_url: self.store_url.clone(),
        };
        for (name, table) in self.lake.tables() {
            schemas.entry("public").or_default().insert(name.as_str(), pin(&table, Some(&name), true));
            schemas.entry("history").or_default().insert(name.as_str(), pin(&table, Some(&name), false));
        }
        let own = schemas.entry("rollcall").or_default();
        own.insert("quarantine", pin(self.lake.quarantine(), None, false));
        own.insert("site_log", pin(self.lake.site_log(), None, false));
        own.insert("contacts", pin(self.lake.contacts(), None, false));
        for (schema, name, make) in extras.tables {
            schemas.entry(schema).or_default().insert(name, PinnedTable::Made(make, OnceLock::new()));
        }
        Ok(PinnedCatalog(schemas.into_iter().map(|(name, schema)| (name.to_owned(), Arc::new(schema))).collect()))
    }
}

/// The first line of what went wrong, without the library's own prefixes.
fn explain(error: &DataFusionError) -> String {
    error.strip_backtrace()
}

enum PinnedTable {
    Lake {
        site_table: Option<TableName>,
        snapshot: Box<Snapshot>,
        root: String,
        current: bool,
        site_ids: Arc<HashMap<SiteNumber, SiteId>>,
        store_url: ObjectStoreUrl,
    },
    /// Made when it is first asked for, and the same then for the whole query.
    Made(MakeTable, OnceLock<Arc<MemTable>>),
}

impl PinnedTable {
    fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        match self {
            Self::Made(make, made) => {
                if let Some(table) = made.get() {
                    return Ok(table.clone());
                }
                let rows = make();
                let table = Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?);
                Ok(made.get_or_init(|| table).clone())
            }
            Self::Lake { snapshot, root, current: true, site_ids, store_url, site_table } => {
                current(snapshot, root, store_url, site_ids, site_table.clone())
            }
            Self::Lake { snapshot, root, current: false, store_url, site_table, .. } => {
                Ok(Arc::new(history(snapshot, root, store_url, site_table.clone())))
            }
        }
    }
}

#[derive(Default)]
struct PinnedSchema(BTreeMap<String, PinnedTable>);

impl std::fmt::Debug for PinnedSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl PinnedSchema {
    fn insert(&mut self, name: &str, table: PinnedTable) {
        self.0.insert(name.to_owned(), table);
    }
}

#[async_trait]
impl SchemaProvider for PinnedSchema {
    fn table_names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.0.get(name).map(PinnedTable::provider).transpose()
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

#[derive(Debug)]
struct PinnedCatalog(BTreeMap<String, Arc<PinnedSchema>>);

impl CatalogProvider for PinnedCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.0.get(name).map(|schema| schema.clone() as Arc<dyn SchemaProvider>)
    }
}
