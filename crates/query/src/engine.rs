//! Runs queries, each on versions pinned when it began.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use datafusion::{
    arrow::{datatypes::SchemaRef, record_batch::RecordBatch},
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableFunctionImpl,
        TableProvider,
    },
    common::{DataFusionError, ParamValues, Result},
    config::Dialect,
    datasource::MemTable,
    execution::{
        SendableRecordBatchStream, SessionState, SessionStateBuilder, context::SQLOptions,
        memory_pool::GreedyMemoryPool, object_store::ObjectStoreUrl, runtime_env::RuntimeEnvBuilder,
    },
    logical_expr::LogicalPlan,
    physical_plan::execute_stream,
    prelude::{DataFrame, SessionConfig, SessionContext},
    sql::{parser::Statement, sqlparser},
};
use datafusion_pg_catalog::{
    pg_catalog::{PgCatalogStaticTables, context::EmptyContextProvider},
    setup_pg_catalog,
};
use futures::TryStreamExt;
use rollcall_lake::{Lake, Snapshot, Table};
use rollcall_types::{Coverage, SiteId, SiteNumber, TableName};

use crate::{
    current::{Whole, current, history},
    scope::{Scope, scope},
    system::System,
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
    /// Only rows of these sites may be seen; all if none. HQ's own tables that tell of others are then not there.
    pub only: Option<Arc<HashSet<String>>>,
    /// The client's own `pg_catalog`; a new one if none.
    pub system: Option<System>,
    /// Further table functions, by name.
    pub functions: Vec<(&'static str, Arc<dyn TableFunctionImpl>)>,
}

impl Default for Extras {
    fn default() -> Self {
        Self {
            tables: Vec::new(),
            site_ids: Arc::default(),
            cover: Arc::new(NoCover),
            only: None,
            system: None,
            functions: Vec::new(),
        }
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

/// A statement, as text or parsed.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    /// One statement.
    Text(&'a str),
    /// One statement, parsed.
    Statement(&'a sqlparser::ast::Statement),
}

/// A question ready to be answered, and what its answer is missing.
pub struct Planned {
    context: SessionContext,
    plan: LogicalPlan,
    /// Which sites the answer is about, and which of them it lacks.
    pub coverage: Coverage,
}

impl std::fmt::Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planned").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Planned {
    /// The rows, as they are found.
    pub async fn stream(self) -> Result<SendableRecordBatchStream, QueryError> {
        let state = self.context.state();
        let physical = state.query_planner().create_physical_plan(&self.plan, &state).await?;
        Ok(execute_stream(physical, self.context.task_ctx())?)
    }

    /// The plan in its session, for whoever runs it otherwise.
    pub fn into_frame(self) -> DataFrame {
        DataFrame::new(self.context.state(), self.plan)
    }
}

/// Runs SQL over a lake.
pub struct Engine {
    lake: Arc<Lake>,
    /// What all sessions share: functions, types, limits. Its catalog is replaced by pinned versions.
    base: SessionState,
    /// What PostgreSQL's clients ask about a server and its types.
    system: Arc<PgCatalogStaticTables>,
    store_url: ObjectStoreUrl,
    limits: EngineLimits,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine over `lake`.
    pub fn new(lake: Arc<Lake>, limits: EngineLimits) -> Result<Self, QueryError> {
        let pool = Arc::new(GreedyMemoryPool::new(limits.memory_bytes));
        let runtime = Arc::new(RuntimeEnvBuilder::new().with_memory_pool(pool).build()?);
        let store_url = ObjectStoreUrl::parse("lake://hq")?;
        runtime.register_object_store(store_url.as_ref(), lake.store().clone());
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema("hq", "public")
            .with_create_default_catalog_and_schema(true)
            .with_information_schema(true);
        config.options_mut().sql_parser.dialect = Dialect::PostgreSQL;
        let context = SessionContext::new_with_config_rt(config, runtime);
        setup_pg_catalog(&context, "hq", EmptyContextProvider).map_err(|error| *error)?;
        Ok(Self { lake, base: context.state(), system: Arc::new(PgCatalogStaticTables::try_new()?), store_url, limits })
    }

    /// The bounds on what a query may use.
    pub fn limits(&self) -> EngineLimits {
        self.limits
    }

    /// A `pg_catalog` for one client, to go with its questions.
    pub fn system(&self) -> Result<System, QueryError> {
        Ok(System::new(self.system.clone())?)
    }

    /// Answers one read-only statement.
    pub async fn query(&self, sql: &str, extras: Extras) -> Result<Answer, QueryError> {
        let run = async {
            let planned = self.plan(Question::Text(sql), None, extras).await?;
            let coverage = planned.coverage.clone();
            let mut stream = planned.stream().await?;
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

    /// Plans one read-only statement on this moment's versions, and says what its answer will be missing.
    pub async fn plan(
        &self,
        question: Question<'_>,
        parameters: Option<ParamValues>,
        extras: Extras,
    ) -> Result<Planned, QueryError> {
        let cover = extras.cover.clone();
        let (context, plan) = self.parse_in(question, extras).await?;
        let plan = match parameters {
            Some(parameters) => plan.replace_params_with_values(&parameters)?,
            None => plan,
        };
        let plan = context.state().optimize(&plan)?;
        let event_time = |table: &TableName| cover.event_time(table);
        let coverage = cover.coverage(&scope(&context, &plan, &cover.sites(), &event_time).await?);
        Ok(Planned { context, plan, coverage })
    }

    /// The plan of one read-only statement, as written: for the types of its parameters and columns.
    pub async fn parse(&self, question: Question<'_>, extras: Extras) -> Result<LogicalPlan, QueryError> {
        Ok(self.parse_in(question, extras).await?.1)
    }

    async fn parse_in(
        &self,
        question: Question<'_>,
        extras: Extras,
    ) -> Result<(SessionContext, LogicalPlan), QueryError> {
        let wrong = |error: DataFusionError| QueryError::Sql(explain(&error));
        let context = self.context(extras)?;
        let state = context.state();
        let plan = match question {
            Question::Text(sql) => state.create_logical_plan(sql).await,
            Question::Statement(statement) => {
                state.statement_to_plan(Statement::Statement(Box::new(statement.clone()))).await
            }
        };
        let plan = plan.map_err(wrong)?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        options.verify_plan(&plan).map_err(wrong)?;
        Ok((context, plan))
    }

    /// A session whose catalog is this moment's versions of all tables.
    fn context(&self, extras: Extras) -> Result<SessionContext, QueryError> {
        let system = match &extras.system {
            Some(system) => system.clone(),
            None => self.system()?,
        };
        let functions = extras.functions.clone();
        let mut pinned = self.pin(extras)?;
        let with = |pinned| {
            let catalogs = MemoryCatalogProviderList::new();
            catalogs.register_catalog("hq".to_owned(), Arc::new(pinned));
            Arc::new(catalogs)
        };
        let shown = with(PinnedCatalog(pinned.0.clone()));
        pinned.0.insert("pg_catalog".to_owned(), system.over(shown));
        let catalogs = with(pinned);
        let state = SessionStateBuilder::new_from_existing(self.base.clone()).with_catalog_list(catalogs).build();
        let context = SessionContext::new_with_state(state);
        for (name, function) in functions {
            context.register_udtf(name, function);
        }
        Ok(context)
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
            only: extras.only.clone(),
        };
        for (name, table) in self.lake.tables() {
            schemas.entry("public").or_default().insert(name.as_str(), pin(&table, Some(&name), true));
            schemas.entry("history").or_default().insert(name.as_str(), pin(&table, Some(&name), false));
        }
        if extras.only.is_none() {
            let own = schemas.entry("rollcall").or_default();
            own.insert("quarantine", pin(self.lake.quarantine(), None, false));
            own.insert("site_log", pin(self.lake.site_log(), None, false));
            own.insert("contacts", pin(self.lake.contacts(), None, false));
        }
        for (schema, name, make) in extras.tables {
            schemas.entry(schema).or_default().insert(name, PinnedTable::Made(make, OnceLock::new()));
        }
        let schema = |schema| Arc::new(schema) as Arc<dyn SchemaProvider>;
        Ok(PinnedCatalog(schemas.into_iter().map(|(name, pinned)| (name.to_owned(), schema(pinned))).collect()))
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
        only: Option<Arc<HashSet<String>>>,
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
            Self::Lake { snapshot, root, current: is_current, site_ids, store_url, site_table, only } => {
                let whole =
                    Whole { snapshot, root, url: store_url, site_table: site_table.clone(), only: only.clone() };
                if *is_current { current(&whole, site_ids) } else { Ok(Arc::new(history(&whole))) }
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
struct PinnedCatalog(BTreeMap<String, Arc<dyn SchemaProvider>>);

impl CatalogProvider for PinnedCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.0.get(name).cloned()
    }
}
