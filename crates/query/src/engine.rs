//! Runs queries, each on versions pinned when it began.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use datafusion::{
    arrow::{
        datatypes::{DataType, Field, Schema, SchemaRef},
        record_batch::RecordBatch,
    },
    catalog::{CatalogProviderList, MemoryCatalogProviderList},
    common::DataFusionError,
    config::Dialect,
    execution::{
        SessionState, SessionStateBuilder, context::SQLOptions, object_store::ObjectStoreUrl, runtime_env::RuntimeEnv,
    },
    logical_expr::LogicalPlan,
    prelude::{SessionConfig, SessionContext},
    sql::{
        parser::Statement,
        sqlparser::{ast, ast::Statement as SqlStatement},
    },
};
use datafusion_pg_catalog::{
    pg_catalog::{PgCatalogStaticTables, context::EmptyContextProvider},
    setup_pg_catalog,
};
use futures::TryStreamExt;
use rollcall_lake::{Lake, our_columns};
use rollcall_types::{Coverage, TableName, is_meant};

use prometheus_client::registry::Registry as Metrics;

use crate::{
    audience::Audience,
    catalogue::{InformationSchema, Key, System, is_catalogue_question, object_number, oids, plannable},
    change::{self, Change, is_change},
    declared, dependencies,
    dialect::{self, Placeholders, shown_name},
    error::QueryError,
    extras::Extras,
    functions,
    io::IoElsewhere,
    meaning,
    metrics::{QueryMetrics, Waiting},
    pinned::{PinnedCatalog, pin},
    planned::Planned,
    scope::scope,
    session,
    stop::{Memory, Stop, StopOnDrop, Stoppable},
    syntax::catalogue_type,
    threads::QuestionThreads,
    turns::Turns,
    verified::Verified,
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
    /// Whether a data file is read whole, and compared with its digest, before the first query
    /// takes rows of it.
    pub checks_files: bool,
}

impl Default for EngineLimits {
    /// 1 GiB for each of eight queries, four of one user; a million rows, five minutes; files are
    /// checked.
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            at_once: 8,
            at_once_of_user: 4,
            rows_max: 1_000_000,
            time_max: Duration::from_secs(300),
            checks_files: true,
        }
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
#[derive(Debug, Clone)]
pub enum Question {
    /// One statement.
    Text(String),
    /// One statement, parsed.
    Statement(Box<SqlStatement>),
}

/// What is known of a statement before its parameters have values.
#[derive(Debug, Clone)]
pub struct Described {
    /// The type of each parameter, in a field without a name; none where nothing tells it.
    pub parameters: Vec<Option<Field>>,
    /// The columns of its answer; none for a change.
    pub columns: SchemaRef,
}

/// Runs SQL over a lake.
pub struct Engine {
    parts: Arc<Parts>,
    threads: Arc<QuestionThreads>,
    metrics: QueryMetrics,
}

/// What questions share.
struct Parts {
    lake: Arc<Lake>,
    /// Functions, types, limits. Its catalog is replaced by pinned versions.
    base: SessionState,
    /// What PostgreSQL's clients ask about a server and its types.
    system: Arc<PgCatalogStaticTables>,
    store_url: ObjectStoreUrl,
    limits: EngineLimits,
    turns: Turns,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("limits", &self.parts.limits).finish_non_exhaustive()
    }
}

/// What a statement may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    Reading,
    /// Rows may be found that are to be changed; nothing is written here.
    Changes,
}

/// The one catalog, or database.
const CATALOG: &str = "hq";

impl Engine {
    /// An engine over `lake`, with threads of its own. The lake is read on the caller's runtime.
    pub fn new(lake: Arc<Lake>, limits: EngineLimits) -> Result<Self, QueryError> {
        let runtime = Arc::new(RuntimeEnv::default());
        let store_url = ObjectStoreUrl::parse("lake://hq")?;
        runtime.register_object_store(store_url.as_ref(), Arc::new(IoElsewhere::here(lake.store().clone())));
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG, "public")
            .with_create_default_catalog_and_schema(true);
        config.options_mut().sql_parser.dialect = Dialect::PostgreSQL;
        config.options_mut().sql_parser.parse_float_as_decimal = true;
        if limits.checks_files {
            config.set_extension(Arc::new(Verified::default()));
        }
        let context = SessionContext::new_with_config_rt(config, runtime);
        setup_pg_catalog(&context, CATALOG, EmptyContextProvider).map_err(|error| *error)?;
        meaning::install(&context)?;
        functions::register(&context);
        let system = Arc::new(PgCatalogStaticTables::try_new()?);
        let turns = Turns::new(limits.at_once, limits.at_once_of_user);
        let threads = QuestionThreads::start().map_err(|error| QueryError::Failed(error.into()))?;
        let parts = Parts { lake, base: context.state(), system, store_url, limits, turns };
        Ok(Self { parts: Arc::new(parts), threads: Arc::new(threads), metrics: QueryMetrics::default() })
    }

    /// Adds what is counted here.
    pub fn register(&self, metrics: &mut Metrics) {
        self.metrics.register(metrics);
    }

    /// The bounds on what a query may use.
    pub fn limits(&self) -> EngineLimits {
        self.parts.limits
    }

    /// A `pg_catalog` for one client, to go with its questions.
    pub fn system(&self) -> Result<System, QueryError> {
        self.parts.system()
    }

    /// The statements of a text.
    pub async fn read(&self, sql: &str) -> Result<Vec<SqlStatement>, QueryError> {
        let sql = sql.to_owned();
        self.threads.run(async move { dialect::parse(&sql) }).await
    }

    /// Answers one read-only statement.
    pub async fn query(&self, sql: &str, extras: Extras) -> Result<Answer, QueryError> {
        let limits = self.limits();
        let run = async {
            let planned = self.plan(Question::Text(sql.to_owned()), extras).await?;
            let (coverage, mut took) = (planned.coverage.clone(), planned.took);
            let started = Instant::now();
            let mut stream = planned.stream().await?;
            let schema = stream.schema();
            let (mut batches, mut rows) = (Vec::new(), 0);
            while let Some(batch) = stream.try_next().await? {
                rows += batch.num_rows();
                if rows > limits.rows_max {
                    let limit = limits.rows_max;
                    return Err(QueryError::Limit(format!(
                        "the answer has more than {limit} rows; aggregate or add a LIMIT"
                    )));
                }
                batches.push(batch);
            }
            took.rows = started.elapsed();
            Ok(Answer { schema, batches, coverage, took })
        };
        self.in_time(run).await
    }

    /// Ends work with an error when it takes longer than a question may.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, QueryError>>) -> Result<T, QueryError> {
        let longest = self.limits().time_max;
        match tokio::time::timeout(longest, work).await {
            Ok(answer) => answer,
            Err(_) => Err(QueryError::Limit(format!("the query took longer than {} s", longest.as_secs()))),
        }
    }

    /// Plans one read-only statement on this moment's versions, and says what its answer will be
    /// missing.
    pub async fn plan(&self, question: Question, extras: Extras) -> Result<Planned, QueryError> {
        let began = Instant::now();
        let waiting = Waiting::new(&self.metrics);
        let planned = self.plan_now(question, extras).await;
        drop(waiting);
        self.metrics.note(began, &planned);
        planned
    }

    async fn plan_now(&self, question: Question, extras: Extras) -> Result<Planned, QueryError> {
        let (started, cover) = (Instant::now(), extras.cover.clone());
        let turn = self.parts.turns.take(extras.user.as_deref()).await?;
        let stop = StopOnDrop::default();
        let (parts, stopped) = (self.parts.clone(), stop.wanted());
        let planning = self.threads.run(async move {
            let statement = match question {
                Question::Text(sql) => dialect::parse_one(&sql)?,
                Question::Statement(statement) => *statement,
            };
            let (context, plan) = parts.parse(&statement, extras, stopped, Allowed::Reading).await?;
            let declared = declared::declared(&plan);
            let plan = dependencies::without(context.state().optimize(&plan)?)?;
            let planned = Instant::now();
            let event_time = |table: &TableName| cover.event_time(table);
            let coverage = cover.coverage(&scope(&context, &plan, &cover.sites(), &event_time).await?);
            let took = Took { plan: planned - started, coverage: planned.elapsed(), rows: Duration::ZERO };
            Ok((context, plan, declared, coverage, took))
        });
        let (context, plan, declared, coverage, took) = self.in_time(planning).await?;
        Ok(Planned { context, plan, declared, turn, coverage, took, stop, threads: self.threads.clone() })
    }

    /// The rule by which sites get rows of a published table; see [`Audience`].
    pub fn audience(&self, rule: &str, columns: &SchemaRef) -> Result<Audience, QueryError> {
        Audience::parse(&self.parts.base, rule, columns)
    }

    /// The rows that an `INSERT`, `UPDATE` or `DELETE` is about, by this moment's versions.
    pub async fn change(&self, statement: &SqlStatement, extras: Extras) -> Result<Change, QueryError> {
        let turn = self.parts.turns.take(extras.user.as_deref()).await?;
        let stop = StopOnDrop::default();
        let (parts, mut statement, wanted) = (self.parts.clone(), statement.clone(), stop.wanted());
        change::mark_casts(&mut statement);
        let finding = self.threads.run(async move {
            let _held = turn;
            let (context, plan) = parts.parse(&statement, extras, wanted, Allowed::Changes).await?;
            change::find(&context, plan, parts.limits.rows_max).await
        });
        self.in_time(finding).await
    }

    /// The types of a statement's parameters and columns; `told` are the names of the types that
    /// the client gives parameters.
    pub async fn describe(
        &self,
        statement: &SqlStatement,
        told: &[Option<String>],
        extras: Extras,
    ) -> Result<Described, QueryError> {
        let stop = StopOnDrop::default();
        let (parts, wanted) = (self.parts.clone(), stop.wanted());
        let parameters = dialect::placeholders(statement, told);
        let describing = self.threads.run(async move { parts.describe(parameters, extras, wanted).await });
        self.in_time(describing).await
    }
}

impl Parts {
    fn system(&self) -> Result<System, QueryError> {
        Ok(System::new(self.system.clone())?)
    }

    async fn describe(&self, found: Placeholders, extras: Extras, wanted: Stop) -> Result<Described, QueryError> {
        let (context, plan) = self.parse(&found.statement, extras, wanted, Allowed::Changes).await?;
        let inferred = plan.get_parameter_types()?;
        let declared = declared::declared(&plan);
        // Rules that give expressions PostgreSQL's types come after planning; they need the types
        // of parameters, where there are.
        let state = context.state();
        let analyzed = state.analyzer().execute_and_check(plan.clone(), state.config_options(), |_, _| {});
        let plan = analyzed.unwrap_or(plan);
        let mut parameters: Vec<Option<Field>> = vec![None; found.count];
        let unnamed = |kind| Field::new("", kind, true);
        for (name, kind) in inferred {
            let place = name.trim_start_matches('$').parse::<usize>().unwrap_or_default();
            if let Some(parameter) = place.checked_sub(1).and_then(|place| parameters.get_mut(place)) {
                let is_array = found.arrays.contains(&place);
                *parameter = kind.map(|kind| match is_array {
                    true => unnamed(DataType::List(Arc::new(Field::new_list_field(kind, true)))),
                    false => unnamed(kind),
                });
            }
        }
        for (place, kind) in &found.known {
            if let Some(parameter) = place.checked_sub(1).and_then(|place| parameters.get_mut(place)) {
                *parameter = type_of(&context, kind).await;
            }
        }
        let columns = match is_change(&found.statement) {
            true => Arc::new(Schema::empty()),
            false => declared::told(&shown(plan.schema().inner()), &declared),
        };
        Ok(Described { parameters, columns })
    }

    /// Plans a statement as it is written, in a session of its own.
    async fn parse(
        &self,
        statement: &SqlStatement,
        extras: Extras,
        wanted: Stop,
        allowed: Allowed,
    ) -> Result<(SessionContext, LogicalPlan), QueryError> {
        let wrong = |error: DataFusionError| match QueryError::from(error) {
            QueryError::Failed(error) => QueryError::Sql(explain(&error)),
            QueryError::Value { code: "22000", text } => QueryError::Sql(text),
            other => other,
        };
        if extras.only.is_some() && matches!(statement, SqlStatement::Explain { analyze: true, .. }) {
            let text = "EXPLAIN ANALYZE counts rows of sites that this user may not see; EXPLAIN is possible";
            return Err(QueryError::Unsupported(text.to_owned()));
        }
        let context = self.context(extras, wanted)?;
        let state = context.state();
        let statement = if is_catalogue_question(statement) {
            plannable(statement)
        } else {
            let mut statement = dialect::for_planner(statement)?;
            let functions = state.scalar_functions();
            meaning::prepare(&mut statement, &|name| functions.contains_key(name)).map_err(wrong)?;
            statement
        };
        if calls(&statement, &[dialect::REGCLASS, dialect::TO_REGCLASS]) {
            // A function cannot wait for what is told of the tables; it is told before.
            context.table_provider("pg_catalog.pg_class").await.map_err(wrong)?;
        }
        let planned = state.statement_to_plan(Statement::Statement(Box::new(statement))).await;
        let plan = planned.map_err(|error| with_meant(wrong(error), &state))?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(allowed == Allowed::Changes);
        let options = options.with_allow_statements(false);
        options.verify_plan(&plan).map_err(wrong)?;
        Ok((context, plan))
    }

    /// A session whose catalog is this moment's versions of all tables.
    fn context(&self, extras: Extras, wanted: Stop) -> Result<SessionContext, QueryError> {
        let system = match &extras.system {
            Some(system) => system.clone(),
            None => self.system()?,
        };
        let functions = extras.functions.clone();
        let user = extras.user.clone();
        let own = session::functions(&extras);
        let scalars = extras.scalars.clone();
        let mut config = self.base.config().clone();
        config.options_mut().execution.time_zone.clone_from(&extras.time_zone);
        let mut pinned = pin(&self.lake, &self.store_url, extras);
        let with = |pinned| {
            let catalogs = MemoryCatalogProviderList::new();
            catalogs.register_catalog(CATALOG.to_owned(), Arc::new(pinned));
            Arc::new(catalogs)
        };
        let shown = with(PinnedCatalog(pinned.0.clone()));
        let keys = self.keys();
        let (pg_catalog, of_catalogue) = system.over(CATALOG, user, shown.clone(), keys.clone());
        pinned.0.insert("pg_catalog".to_owned(), pg_catalog);
        let information = InformationSchema::new(CATALOG, shown, keys);
        pinned.0.insert("information_schema".to_owned(), Arc::new(information));
        // Each query has memory of its own, so that a greedy one fails alone.
        let memory = Arc::new(Memory::new(self.limits.memory_bytes, wanted.clone()));
        let runtime = RuntimeEnv { memory_pool: memory, ..self.base.runtime_env().as_ref().clone() };
        let state = SessionStateBuilder::new_from_existing(self.base.clone())
            .with_config(config)
            .with_catalog_list(with(pinned))
            .with_runtime_env(Arc::new(runtime))
            .with_physical_optimizer_rule(Arc::new(Stoppable(wanted)))
            .build();
        let context = SessionContext::new_with_state(state);
        own.into_iter().chain(scalars).for_each(|function| context.register_udf(function));
        of_catalogue.into_iter().for_each(|function| context.register_udf(function));
        for (name, function) in functions {
            context.register_udtf(name, function);
        }
        Ok(context)
    }

    /// The primary keys of the sites' tables.
    fn keys(&self) -> Vec<Key> {
        let keys = self.lake.tables().into_iter().filter_map(|(name, table)| {
            let snapshot = table.snapshot();
            let mut columns = snapshot.schema().key_columns().map(str::to_owned).peekable();
            columns.peek()?;
            let of_site = std::iter::once(our_columns::SITE.to_owned());
            Some(Key { table: name.to_string(), columns: of_site.chain(columns).collect() })
        });
        keys.collect()
    }
}

/// Whether a statement calls one of these functions.
fn calls(statement: &SqlStatement, names: &[&str]) -> bool {
    let found = ast::visit_expressions(statement, |expr| match expr {
        ast::Expr::Function(function) if names.contains(&function.name.to_string().to_lowercase().as_str()) => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// The type that a type's name in SQL stands for, in a field without a name.
async fn type_of(context: &SessionContext, kind: &ast::DataType) -> Option<Field> {
    if let ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(element, _)) = kind
        && catalogue_type(element).as_deref() == Some("oid")
    {
        return Some(Field::new("", oids(), true));
    }
    if catalogue_type(kind).as_deref() == Some("oid") {
        return Some(object_number(""));
    }
    let statement = dialect::parse_one(&format!("SELECT CAST(NULL AS {kind})")).ok()?;
    let statement = dialect::for_planner(&statement).ok()?;
    let plan = context.state().statement_to_plan(Statement::Statement(Box::new(statement))).await.ok()?;
    plan.schema().fields().first().map(|field| Field::new("", field.data_type().clone(), true))
}

/// A schema with the names of its columns as they are shown.
pub(crate) fn shown(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_name(shown_name(field.name()))).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The first line of what went wrong, without the library's own prefixes.
fn explain(error: &DataFusionError) -> String {
    error.strip_backtrace()
}

/// An unknown table, with the one that may be meant.
fn with_meant(error: QueryError, state: &SessionState) -> QueryError {
    match error {
        QueryError::Unknown { code: code @ "42P01", text } => {
            let name = text.strip_prefix("relation \"").and_then(|rest| rest.split_once('"')).map(|(name, _)| name);
            let (schema, table) = name.map_or(("public", ""), |name| name.split_once('.').unwrap_or(("public", name)));
            let catalog = state.catalog_list().catalog(CATALOG);
            let tables = catalog.and_then(|catalog| catalog.schema(schema)).map(|schema| schema.table_names());
            let tables = tables.unwrap_or_default();
            let meant = is_meant(table, tables.iter().map(String::as_str));
            QueryError::Unknown { code, text: format!("{text}{meant}") }
        }
        other => other,
    }
}
