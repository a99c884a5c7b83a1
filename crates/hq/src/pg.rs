//! The PostgreSQL port: any client of PostgreSQL can ask, and is told what its answer is missing.
//!
//! Questions are answered here, each on versions of its own; what else a client says (settings, transactions that change
//! nothing) is answered by `datafusion-postgres`. What is written are the tables that HQ publishes.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use datafusion_postgres::{
    DfSessionService, Parser, QueryHook,
    arrow_pg::datatypes::{arrow_schema_to_pg_fields, df, encode_recordbatch, into_pg_type},
    datafusion_pg_catalog::sql::PostgresCompatibilityParser,
    hooks::{HookClient, set_show::SetShowHook, transactions::TransactionStatementHook},
    pgwire::{
        api::{
            ClientInfo, ClientPortalStore, ConnectionManager, METADATA_USER, PgWireServerHandlers, Type,
            auth::{
                AuthSource, DefaultServerParameterProvider, LoginInfo, Password, StartupHandler,
                sasl::{SASLAuthStartupHandler, scram::ScramAuth},
            },
            cancel::CancelHandler,
            portal::{Format, Portal},
            query::{ExtendedQueryHandler, SimpleQueryHandler},
            results::{CopyResponse, QueryResponse, Response, Tag},
            store::PortalStore,
        },
        error::{ErrorInfo, PgWireError, PgWireResult},
        messages::{PgWireBackendMessage, PgWireFrontendMessage, copy::CopyData, response::TransactionStatus},
        tokio::{TlsAcceptor, process_socket},
        types::format::FormatOptions,
    },
};
use futures::{Sink, SinkExt, StreamExt};
use rollcall_query::{
    Planned, QueryError, Question, System,
    datafusion::{
        common::ParamValues,
        logical_expr::LogicalPlan,
        prelude::SessionContext,
        sql::sqlparser::ast::{CopySource, CopyTarget, Set, Statement},
    },
    is_change,
};
use rollcall_types::{Coverage, describe};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;

use self::{
    copy::CopyForm,
    running::{Cancel, CancelKey, Running, bounded},
};
use crate::{access::Role, error::HqError, node::Shared, published, tables};

mod copy;
mod running;

/// Default port of the PostgreSQL protocol.
pub const PG_PORT: u16 = 7432;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 200;

/// Serves until the node stops.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener, address: SocketAddr) {
    let tls = match tls(&shared) {
        Ok(tls) => tls,
        Err(error) => {
            tracing::error!(error = %describe(&error), "the PostgreSQL port cannot be opened");
            return;
        }
    };
    let manager = Arc::new(ConnectionManager::new());
    let running = Arc::new(Running::default());
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a PostgreSQL connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%peer, "turned away: {CONNECTIONS_MAX} PostgreSQL connections are open");
            continue;
        };
        let connection = Connection::new(shared.clone(), manager.clone(), running.clone(), !address.ip().is_loopback());
        let (tls, stop) = (tls.clone(), shared.stop.clone());
        shared.tasks.spawn(async move {
            let _place = place;
            tokio::select! {
                () = stop.cancelled() => {}
                ended = process_socket(socket, Some(tls), connection) => {
                    if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "a PostgreSQL connection ended");
                    }
                }
            }
        });
    }
}

fn tls(shared: &Shared) -> Result<TlsAcceptor, HqError> {
    let config = shared.authority.server_tls(WebPkiClientVerifier::no_client_auth(), b"postgresql")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Checks passwords without knowing them.
#[derive(Clone)]
struct Passwords(Arc<Shared>);

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords")
    }
}

#[async_trait]
impl AuthSource for Passwords {
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        let (salt, salted) =
            self.0.credentials.scram(login.user().unwrap_or_default()).map_err(|error| wrong(describe(&error)))?;
        Ok(Password::new(Some(salt), salted))
    }
}

/// Lets nobody in without a password, nor beyond loopback without TLS.
struct Startup {
    scram: SASLAuthStartupHandler<DefaultServerParameterProvider>,
    needs_tls: bool,
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if self.needs_tls && !client.is_secure() {
            let error = ErrorInfo::new(
                "FATAL".to_owned(),
                "28000".to_owned(),
                "TLS is needed: connect with sslmode=require".to_owned(),
            );
            return Err(PgWireError::UserError(Box::new(error)));
        }
        self.scram.on_startup(client, message).await
    }
}

/// What one connection needs.
struct Connection {
    questions: Arc<Questions>,
    startup: Arc<Startup>,
    cancel: Arc<Cancel>,
}

impl Connection {
    fn new(shared: Arc<Shared>, manager: Arc<ConnectionManager>, running: Arc<Running>, needs_tls: bool) -> Self {
        let mut parameters = DefaultServerParameterProvider::default();
        parameters.is_superuser = false;
        parameters.default_transaction_read_only = true;
        let scram = SASLAuthStartupHandler::new(Arc::new(parameters))
            .with_scram(ScramAuth::new(Arc::new(Passwords(shared.clone()))))
            .with_connection_manager(manager.clone());
        // Without it the client asks without; the reason is in its first answer.
        let system = shared.engine.system().ok();
        let hooks: Vec<Arc<dyn QueryHook>> = vec![
            Arc::new(ParseHook(shared.clone(), system.clone())),
            Arc::new(SetShowHook),
            Arc::new(TransactionStatementHook),
        ];
        let rest = DfSessionService::new_with_hooks(Arc::new(SessionContext::new()), hooks);
        let (parser, last, running_here) = (PostgresCompatibilityParser::new(), Mutex::default(), running.clone());
        let questions = Questions { shared, rest, system, parser, last, running: running_here };
        Self {
            questions: Arc::new(questions),
            startup: Arc::new(Startup { scram, needs_tls }),
            cancel: Arc::new(Cancel { manager, running }),
        }
    }
}

impl PgWireServerHandlers for Connection {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        self.questions.clone()
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        self.questions.clone()
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        self.startup.clone()
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        self.cancel.clone()
    }
}

/// Answers questions and says what they miss.
struct Questions {
    shared: Arc<Shared>,
    /// Answers everything that is no question.
    rest: DfSessionService,
    parser: PostgresCompatibilityParser,
    /// What this client was told of tables and their numbers.
    system: Option<System>,
    /// What the last answer on this connection was missing.
    last: Mutex<Option<Coverage>>,
    running: Arc<Running>,
}

/// How a connection wants to hear of what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    Note,
    /// An incomplete answer is an error.
    Strict,
    /// The next statement is not told of; that is recorded.
    OffOnce,
}

const SETTING: &str = "rollcall.coverage";

impl Telling {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "note" | "default" => Self::Note,
            "strict" => Self::Strict,
            "off-for-this-statement" => Self::OffOnce,
            _ => return None,
        })
    }
}

/// The code of what is HQ's own fault.
const HQ_FAILED: &str = "58000";

fn error(code: &str, text: String) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), code.to_owned(), text)))
}

fn wrong(text: impl Into<String>) -> PgWireError {
    error("42000", text.into())
}

fn failed(failure: &QueryError) -> PgWireError {
    let code = match failure {
        QueryError::Sql(_) => "42000",
        QueryError::Limit(_) => "54000",
        QueryError::Failed(_) => HQ_FAILED,
    };
    error(code, describe(failure))
}

fn user_of(client: &(impl ClientInfo + ?Sized)) -> String {
    client.metadata().get(METADATA_USER).cloned().unwrap_or_default()
}

/// What a client was given to cancel by.
fn connection_of(client: &(impl ClientInfo + ?Sized)) -> CancelKey {
    let (number, secret) = client.pid_and_secret_key();
    (number, secret.to_bytes().to_vec())
}

/// What a user may see; an error once the user is gone.
fn sees(shared: &Shared, user: &str) -> PgWireResult<BTreeMap<String, String>> {
    let user = shared.credentials.user(user).ok_or_else(|| wrong("this user was removed"))?;
    Ok(user.sees)
}

/// Plans questions when they are prepared, so that parameters and columns get their types.
struct ParseHook(Arc<Shared>, Option<System>);

#[async_trait]
impl QueryHook for ParseHook {
    async fn handle_simple_query(
        &self,
        _: &Statement,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        None
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        client: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        if !is_question(statement) && !is_change(statement) {
            return (!is_harmless(statement)).then(|| Err(read_only()));
        }
        let plan = async {
            let mut extras = self.0.extras(&sees(&self.0, &user_of(client))?);
            extras.system.clone_from(&self.1);
            let engine = &self.0.engine;
            let plan = match is_change(statement) {
                true => engine.parse_change(statement, extras).await,
                false => engine.parse(Question::Statement(statement), extras).await,
            };
            plan.map_err(|error| failed(&error))
        };
        Some(plan.await)
    }

    async fn handle_extended_query(
        &self,
        _: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        None
    }
}

fn is_question(statement: &Statement) -> bool {
    matches!(statement, Statement::Query(_) | Statement::Explain { .. })
}

/// What clients say besides questions, and changes nothing.
fn is_harmless(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Set(_)
            | Statement::ShowVariable { .. }
            | Statement::ShowVariables { .. }
            | Statement::ShowStatus { .. }
            | Statement::StartTransaction { .. }
            | Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::Discard { .. }
            | Statement::Deallocate { .. }
    )
}

fn read_only() -> PgWireError {
    let text = "this is not possible here; what is: SELECT, WITH, EXPLAIN, COPY (SELECT …) TO STDOUT, SET, SHOW, and INSERT, \
                UPDATE and DELETE on tables that HQ publishes";
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), "25006".to_owned(), text.to_owned())))
}

/// The value that `SET rollcall.coverage` gives, if it is that.
fn coverage_setting(statement: &Statement) -> Option<String> {
    match statement {
        Statement::Set(Set::SingleAssignment { variable, values, .. }) if variable.to_string() == SETTING => {
            let value = values.iter().map(ToString::to_string).collect::<Vec<_>>().join("");
            Some(value.trim_matches(['\'', '"']).to_ascii_lowercase())
        }
        _ => None,
    }
}

impl Questions {
    fn telling(&self, client: &impl ClientInfo) -> Telling {
        let set = client.metadata().get(SETTING).and_then(|text| Telling::parse(text));
        set.unwrap_or_else(|| {
            let strict = self.shared.credentials.user(&user_of(client)).is_some_and(|user| user.strict);
            if strict { Telling::Strict } else { Telling::Note }
        })
    }

    fn set_telling(&self, client: &mut impl ClientInfo, value: &str) -> PgWireResult<()> {
        if Telling::parse(value).is_none() {
            return Err(wrong(format!("{SETTING} is note, strict or 'off-for-this-statement', not {value:?}")));
        }
        if value == "default" {
            client.metadata_mut().remove(SETTING);
        } else {
            client.metadata_mut().insert(SETTING.to_owned(), value.to_owned());
        }
        Ok(())
    }

    /// Plans a question, and tells the client what its answer will be missing.
    async fn ask<C>(
        &self,
        client: &mut C,
        statement: &Statement,
        parameters: Option<ParamValues>,
    ) -> PgWireResult<Planned>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let user = user_of(client);
        let mut extras = self.shared.extras(&sees(&self.shared, &user)?);
        extras.system.clone_from(&self.system);
        extras.user = Some(user.clone());
        if let Some(last) = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            // On a connection it is the last answer's.
            extras.tables.retain(|(schema, name, _)| (*schema, *name) != ("rollcall", "coverage"));
            extras.tables.push(("rollcall", "coverage", Arc::new(move || -> RecordBatch { tables::coverage(&last) })));
        }
        let planned = self
            .shared
            .engine
            .plan(Question::Statement(statement), parameters, extras)
            .await
            .map_err(|error| failed(&error))?;
        if planned.coverage.scope > 0 {
            self.tell(client, &user, statement, &planned.coverage).await?;
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(planned.coverage.clone());
        }
        Ok(planned)
    }

    async fn tell<C>(&self, client: &mut C, user: &str, statement: &Statement, coverage: &Coverage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let summary = coverage.summary();
        match self.telling(client) {
            Telling::Strict if !coverage.is_complete() => {
                let mut error = ErrorInfo::new(
                    "ERROR".to_owned(),
                    "RC001".to_owned(),
                    format!("the answer would be incomplete: {summary}"),
                );
                error.hint = Some(format!("SET {SETTING} = note gives the answer with this as a notice"));
                return Err(PgWireError::UserError(Box::new(error)));
            }
            Telling::OffOnce => {
                client.metadata_mut().remove(SETTING);
                tracing::warn!(user, "asked without being told what is missing");
                // Before the answer: what is not recorded is not answered.
                let row = tables::untold(self.shared.now(), user, &statement.to_string(), &summary);
                let recorded = self.shared.lake.untold().append_rows(row).await;
                recorded.map_err(|failure| error(HQ_FAILED, describe(&failure)))?;
            }
            Telling::Note | Telling::Strict => {
                let severity = if coverage.is_complete() { "NOTICE" } else { "WARNING" };
                let mut note = ErrorInfo::new(severity.to_owned(), "01000".to_owned(), format!("coverage: {summary}"));
                if !coverage.is_complete() {
                    note.hint = Some("SELECT * FROM rollcall.coverage lists every site that is missing".to_owned());
                }
                client.send(PgWireBackendMessage::NoticeResponse(note.into())).await?;
            }
        }
        Ok(())
    }

    /// Runs a planned question, whose rows are sent as they are found.
    async fn answer(&self, client: &impl ClientInfo, planned: Planned, format: &Format) -> PgWireResult<Response> {
        let options = Arc::new(FormatOptions::from_client_metadata(client.metadata()));
        let stream = planned.stream().await.map_err(|error| failed(&error))?;
        let fields = Arc::new(arrow_schema_to_pg_fields(&stream.schema(), format, Some(options))?);
        let of_rows = fields.clone();
        let encode = move |rows| {
            let rows: Box<dyn Iterator<Item = _> + Send + Sync> = match rows {
                Ok(rows) => encode_recordbatch(of_rows.clone(), rows),
                Err(error) => Box::new(std::iter::once(Err(failed(&QueryError::from(error))))),
            };
            futures::stream::iter(rows)
        };
        let rows = stream.map(encode).flatten();
        let longest = self.shared.engine.limits().time_max;
        let rows = bounded(rows, longest, self.running.begin(connection_of(client)));
        Ok(Response::Query(QueryResponse::new(fields, rows)))
    }

    /// Publishes what a statement changes. It takes effect at once.
    async fn change(
        &self,
        client: &impl ClientInfo,
        statement: &Statement,
        parameters: Option<ParamValues>,
    ) -> PgWireResult<Response> {
        if client.transaction_status() != TransactionStatus::Idle {
            let text =
                "a change takes effect at once and cannot be rolled back: make it outside a transaction (autocommit)";
            return Err(error("25001", text.to_owned()));
        }
        let user = user_of(client);
        let known = self.shared.credentials.user(&user).ok_or_else(|| wrong("this user was removed"))?;
        if known.role < Role::Operator || !known.sees.is_empty() {
            let text = format!("user {user} may not change tables: it takes an operator who sees all sites");
            return Err(error("42501", text));
        }
        let changed = published::sql::change(&self.shared, statement, parameters, &user).await;
        let (tag, count) = changed.map_err(|failure| match &failure {
            HqError::Exists(text) => error("23505", text.clone()),
            HqError::Outdated => error("40001", failure.to_string()),
            HqError::Invalid(text) | HqError::NotFound(text) => wrong(text),
            HqError::Query(failure) => failed(failure),
            _ => error(HQ_FAILED, describe(&failure)),
        })?;
        let tag = Tag::new(tag).with_rows(count);
        Ok(Response::Execution(if matches!(statement, Statement::Insert(_)) { tag.with_oid(0) } else { tag }))
    }

    async fn copy<C>(&self, client: &mut C, statement: &Statement) -> PgWireResult<Response>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let Statement::Copy { source, to: true, target: CopyTarget::Stdout, options, .. } = statement else {
            return Err(read_only());
        };
        let query = match source {
            CopySource::Query(query) => Statement::Query(query.clone()),
            CopySource::Table { table_name, columns } => {
                let columns = columns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let columns = if columns.is_empty() { "*".to_owned() } else { columns };
                let parsed = self.parser.parse(&format!("SELECT {columns} FROM {table_name}"));
                parsed
                    .map_err(|error| wrong(error.to_string()))?
                    .into_iter()
                    .next()
                    .ok_or_else(|| wrong("nothing to copy"))?
            }
        };
        let form = CopyForm::new(options).map_err(wrong)?;
        let stream = self.ask(client, &query, None).await?.stream().await.map_err(|error| failed(&error))?;
        let columns = stream.schema().fields().len();
        let mut is_first = true;
        let stream = stream.map(|rows| rows.map_err(|error| failed(&QueryError::from(error))));
        let answering = self.running.begin(connection_of(client));
        let data = bounded(stream, self.shared.engine.limits().time_max, answering).map(move |rows| {
            let text = form.text(&rows?, std::mem::take(&mut is_first)).map_err(|error| wrong(error.to_string()))?;
            Ok(CopyData::new(text.into()))
        });
        Ok(Response::CopyOut(CopyResponse::new(0, columns, data)))
    }
}

#[async_trait]
impl SimpleQueryHandler for Questions {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statements = self.parser.parse(query).map_err(|error| wrong(error.to_string()))?;
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        let mut responses = Vec::new();
        for statement in statements {
            if let Some(value) = coverage_setting(&statement) {
                self.set_telling(client, &value)?;
                responses.push(Response::Execution(Tag::new("SET")));
            } else if is_question(&statement) {
                let planned = self.ask(client, &statement, None).await?;
                responses.push(self.answer(client, planned, &Format::UnifiedText).await?);
            } else if is_change(&statement) {
                responses.push(self.change(client, &statement, None).await?);
            } else if matches!(statement, Statement::Copy { .. }) {
                responses.push(self.copy(client, &statement).await?);
            } else if is_harmless(&statement) {
                responses.extend(SimpleQueryHandler::do_query(&self.rest, client, &statement.to_string()).await?);
            } else {
                return Err(read_only());
            }
        }
        Ok(responses)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Questions {
    type Statement = (String, Option<(Statement, LogicalPlan)>);
    type QueryParser = Parser;

    fn query_parser(&self) -> Arc<Self::QueryParser> {
        self.rest.query_parser()
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Self::Statement>,
        max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let Some((statement, plan)) = &portal.statement.statement.1 else { return Ok(Response::EmptyQuery) };
        if let Some(value) = coverage_setting(statement) {
            self.set_telling(client, &value)?;
            return Ok(Response::Execution(Tag::new("SET")));
        }
        if is_change(statement) {
            return self.change(client, statement, Some(parameters(portal, plan)?)).await;
        }
        if !is_question(statement) {
            return ExtendedQueryHandler::do_query(&self.rest, client, portal, max_rows).await;
        }
        let parameters = parameters(portal, plan)?;
        let planned = self.ask(client, statement, Some(parameters)).await?;
        self.answer(client, planned, &portal.result_column_format).await
    }
}

/// The values that the client bound, in the types that the plan wants.
fn parameters(
    portal: &Portal<(String, Option<(Statement, LogicalPlan)>)>,
    plan: &LogicalPlan,
) -> PgWireResult<ParamValues> {
    let types: HashMap<_, _> = plan.get_parameter_types().map_err(|error| wrong(error.to_string()))?;
    let number = |name: &str| name.trim_start_matches('$').parse::<usize>().unwrap_or_default();
    let mut types: Vec<_> = types.into_iter().collect();
    types.sort_by_key(|(name, _)| number(name));
    let wire = types
        .iter()
        .map(|(_, kind)| kind.as_ref().map_or(Ok(Type::UNKNOWN), into_pg_type))
        .collect::<PgWireResult<Vec<Type>>>()?;
    let inferred: Vec<_> = types.iter().map(|(_, kind)| kind.as_ref()).collect();
    let wire: Vec<_> = wire.iter().map(Some).collect();
    df::deserialize_parameters_with_server_types(portal, &inferred, &wire)
}
