//! Runs queries, each on versions pinned when it began.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
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
        SendableRecordBatchStream, SessionState, SessionStateBuilder,
        context::SQLOptions,
        memory_pool::{FairSpillPool, MemoryPool},
        object_store::ObjectStoreUrl,
        runtime_env::RuntimeEnv,
    },
    logical_expr::LogicalPlan,
    physical_plan::{execute_stream, stream::RecordBatchReceiverStream},
    prelude::{SessionConfig, SessionContext},
    sql::{parser::Statement, sqlparser},
};
use datafusion_pg_catalog::{
    pg_catalog::{PgCatalogStaticTables, context::EmptyContextProvider},
    setup_pg_catalog,
};
use futures::{StreamExt, TryStreamExt};
use rollcall_lake::{Lake, Lives, Snapshot, Table, our_columns};
use rollcall_types::{Coverage, SiteId, SiteNumber, TableName};

use crate::{
    audience::Audience,
    change::{self, Change},
    compat::{InformationSchema, Key, add_functions, plannable, session_user},
    current::{Whole, current, history},
    scope::{Scope, scope},
    system::System,
    turns::{Turn, Turns},
};

/// Bounds on what a query may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineLimits {
    /// Memory of one query, bytes; operators spill to disk beyond it where they can.
    pub memory_bytes: usize,
    /// Queries that run at a time: with the memory of one, this bounds the memory of all.
    pub at_once: usize,
    /// Of these, queries of one user.
    pub at_once_of_user: usize,
    /// Rows in an answer.
    pub rows_max: usize,
    /// Time for one query.
    pub time_max: Duration,
}

impl Default for EngineLimits {
    /// 1 GiB for each of eight queries, four of one user; a million rows, five minutes.
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            at_once: 8,
            at_once_of_user: 4,
            rows_max: 1_000_000,
            time_max: Duration::from_secs(300),
        }
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
    Failed(#[source] DataFusionError),
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::ResourcesExhausted(text) => {
                let line = text.lines().next().unwrap_or_default();
                Self::Limit(format!("the query needs more memory than one may have; ask for less at a time ({line})"))
            }
            _ => Self::Failed(error),
        }
    }
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
    /// Which lives of their journals may be current.
    pub lives: Arc<Lives>,
    /// Who says what the answer is missing.
    pub cover: Arc<dyn Cover>,
    /// Only rows of these sites may be seen; all if none. HQ's own tables that tell of others are then not there.
    pub only: Option<Arc<HashSet<String>>>,
    /// The client's own `pg_catalog`; a new one if none.
    pub system: Option<System>,
    /// Further table functions, by name.
    pub functions: Vec<(&'static str, Arc<dyn TableFunctionImpl>)>,
    /// Whose question it is, for the limits on one user; none for HQ's own.
    pub user: Option<String>,
}

impl Default for Extras {
    fn default() -> Self {
        Self {
            tables: Vec::new(),
            site_ids: Arc::default(),
            lives: Arc::default(),
            cover: Arc::new(NoCover),
            only: None,
            system: None,
            functions: Vec::new(),
            user: None,
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
    /// All sites of the roster, in order; a table `public.sites` among the extras has one row for each, by `id`.
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
    /// What the answer took.
    pub took: Took,
}

/// Where the time of an answer went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Took {
    /// Waiting for a place, pinning versions, planning.
    pub plan: Duration,
    /// Working out the scope and what is missing of it.
    pub coverage: Duration,
    /// Finding the rows.
    pub rows: Duration,
}

/// A statement, as text or parsed.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    /// One statement.
    Text(&'a str),
    /// One statement, parsed; a driver's question that cannot be planned is answered by another.
    Statement(&'a sqlparser::ast::Statement),
}

/// A question ready to be answered, and what its answer is missing.
pub struct Planned {
    context: SessionContext,
    plan: LogicalPlan,
    turn: Turn,
    /// Which sites the answer is about, and which of them it lacks.
    pub coverage: Coverage,
    took: Took,
}

impl std::fmt::Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planned").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Planned {
    /// The rows, as they are found: in a task of its own, so that who waits for them can stop waiting at any time.
    pub async fn stream(self) -> Result<SendableRecordBatchStream, QueryError> {
        let Self { context, plan, turn, .. } = self;
        let state = context.state();
        let physical = state.query_planner().create_physical_plan(&plan, &state).await?;
        let mut rows = execute_stream(physical, context.task_ctx())?;
        let mut stream = RecordBatchReceiverStream::builder(rows.schema(), 2);
        let found = stream.tx();
        stream.spawn(async move {
            let _held = turn;
            while let Some(rows) = rows.next().await {
                if found.send(rows).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        Ok(stream.build())
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
    turns: Turns,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The one catalog, or database.
const CATALOG: &str = "hq";

impl Engine {
    /// An engine over `lake`.
    pub fn new(lake: Arc<Lake>, limits: EngineLimits) -> Result<Self, QueryError> {
        let runtime = Arc::new(RuntimeEnv::default());
        let store_url = ObjectStoreUrl::parse("lake://hq")?;
        runtime.register_object_store(store_url.as_ref(), lake.store().clone());
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG, "public")
            .with_create_default_catalog_and_schema(true);
        config.options_mut().sql_parser.dialect = Dialect::PostgreSQL;
        let context = SessionContext::new_with_config_rt(config, runtime);
        setup_pg_catalog(&context, CATALOG, EmptyContextProvider).map_err(|error| *error)?;
        add_functions(&context);
        let system = Arc::new(PgCatalogStaticTables::try_new()?);
        let turns = Turns::new(limits.at_once, limits.at_once_of_user);
        Ok(Self { lake, base: context.state(), system, store_url, limits, turns })
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
            let (coverage, mut took) = (planned.coverage.clone(), planned.took);
            let started = Instant::now();
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
            took.rows = started.elapsed();
            Ok(Answer { schema, batches, coverage, took })
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
        let (started, cover) = (Instant::now(), extras.cover.clone());
        let turn = self.turns.take(extras.user.as_deref()).await?;
        let (context, plan) = self.parse_in(question, extras, false).await?;
        let plan = match parameters {
            Some(parameters) => plan.replace_params_with_values(&parameters)?,
            None => plan,
        };
        let plan = context.state().optimize(&plan)?;
        let planned = Instant::now();
        let event_time = |table: &TableName| cover.event_time(table);
        let coverage = cover.coverage(&scope(&context, &plan, &cover.sites(), &event_time).await?);
        let took = Took { plan: planned - started, coverage: planned.elapsed(), rows: Duration::ZERO };
        Ok(Planned { context, plan, turn, coverage, took })
    }

    /// The rule by which sites get rows of a published table; see [`Audience`].
    pub fn audience(&self, rule: &str, columns: &SchemaRef) -> Result<Audience, QueryError> {
        Audience::parse(&self.base, rule, columns)
    }

    /// The rows that an `INSERT`, `UPDATE` or `DELETE` is about, by this moment's versions.
    pub async fn change(
        &self,
        statement: &sqlparser::ast::Statement,
        parameters: Option<ParamValues>,
        extras: Extras,
    ) -> Result<Change, QueryError> {
        let _turn = self.turns.take(extras.user.as_deref()).await?;
        let (context, plan) = self.parse_in(Question::Statement(statement), extras, true).await?;
        change::find(&context, plan, parameters, self.limits.rows_max).await
    }

    /// The plan of such a statement, for the types of its parameters.
    pub async fn parse_change(
        &self,
        statement: &sqlparser::ast::Statement,
        extras: Extras,
    ) -> Result<LogicalPlan, QueryError> {
        Ok(self.parse_in(Question::Statement(statement), extras, true).await?.1)
    }

    /// The plan of one read-only statement, as written: for the types of its parameters and columns.
    pub async fn parse(&self, question: Question<'_>, extras: Extras) -> Result<LogicalPlan, QueryError> {
        Ok(self.parse_in(question, extras, false).await?.1)
    }

    async fn parse_in(
        &self,
        question: Question<'_>,
        extras: Extras,
        changes: bool,
    ) -> Result<(SessionContext, LogicalPlan), QueryError> {
        let wrong = |error: DataFusionError| QueryError::Sql(explain(&error));
        let context = self.context(extras)?;
        let state = context.state();
        let plan = match question {
            Question::Text(sql) => state.create_logical_plan(sql).await,
            Question::Statement(statement) => {
                state.statement_to_plan(Statement::Statement(Box::new(plannable(statement)))).await
            }
        };
        let plan = plan.map_err(wrong)?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(changes).with_allow_statements(false);
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
        let session_user = session_user(extras.user.as_deref());
        let mut pinned = self.pin(extras)?;
        let with = |pinned| {
            let catalogs = MemoryCatalogProviderList::new();
            catalogs.register_catalog(CATALOG.to_owned(), Arc::new(pinned));
            Arc::new(catalogs)
        };
        let shown = with(PinnedCatalog(pinned.0.clone()));
        pinned.0.insert("pg_catalog".to_owned(), system.over(shown.clone()));
        let keys = self.lake.tables().into_iter().map(|(name, table)| {
            let snapshot = table.snapshot();
            let of_site = std::iter::once(our_columns::SITE.to_owned());
            Key { table: name.to_string(), columns: of_site.chain(snapshot.schema().key.iter().cloned()).collect() }
        });
        let information = InformationSchema::new(CATALOG, shown, keys.collect());
        pinned.0.insert("information_schema".to_owned(), Arc::new(information));
        let catalogs = with(pinned);
        // Each query has memory of its own, so that a greedy one fails alone.
        let memory: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(self.limits.memory_bytes));
        let runtime = RuntimeEnv { memory_pool: memory, ..self.base.runtime_env().as_ref().clone() };
        let state = SessionStateBuilder::new_from_existing(self.base.clone())
            .with_catalog_list(catalogs)
            .with_runtime_env(Arc::new(runtime))
            .build();
        let context = SessionContext::new_with_state(state);
        context.register_udf(session_user);
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
            lives: extras.lives.clone(),
            store_url: self.store_url.clone(),
            only: extras.only.clone(),
        };
        for (name, table) in self.lake.tables() {
            // What HQ itself wrote lacks no site's rows.
            let of_sites = Some(&name).filter(|_| !table.is_published());
            schemas.entry("public").or_default().insert(name.as_str(), pin(&table, of_sites, true));
            schemas.entry("history").or_default().insert(name.as_str(), pin(&table, of_sites, false));
        }
        if extras.only.is_none() {
            let own = schemas.entry("rollcall").or_default();
            own.insert("quarantine", pin(self.lake.quarantine(), None, false));
            own.insert("site_log", pin(self.lake.site_log(), None, false));
            own.insert("contacts", pin(self.lake.contacts(), None, false));
            own.insert("untold", pin(self.lake.untold(), None, false));
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
        lives: Arc<Lives>,
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
            Self::Lake { snapshot, root, current: is_current, site_ids, lives, store_url, site_table, only } => {
                let whole =
                    Whole { snapshot, root, url: store_url, site_table: site_table.clone(), only: only.clone() };
                if *is_current { current(&whole, site_ids, lives) } else { Ok(Arc::new(history(&whole))) }
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
