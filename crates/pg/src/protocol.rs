//! The two ways in which clients talk: statements as text, and statements that are prepared, bound
//! and executed.
//!
//! Each statement runs to its end before the next begins, and can be cancelled or run out of time
//! wherever it is: planning, finding rows, or waiting for a client that does not read.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Sink, SinkExt, StreamExt};
use pgwire::{
    api::{
        ClientInfo, ClientPortalStore, DEFAULT_NAME, PgWireConnectionState,
        portal::{Format, Portal},
        query::{ExtendedQueryHandler, SimpleQueryHandler, send_describe_response, send_ready_for_query},
        results::{DescribePortalResponse, DescribeStatementResponse, Response, Tag},
        stmt::StoredStatement,
        store::{Entry, PortalStore},
    },
    error::{PgWireError, PgWireResult},
    messages::{
        PgWireBackendMessage,
        copy::{CopyData, CopyDone, CopyOutResponse},
        extendedquery::{
            Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete, Sync as PgSync,
            TARGET_TYPE_BYTE_PORTAL,
        },
        response::{EmptyQueryResponse, TransactionStatus},
        simplequery::Query,
    },
};
use rollcall_query::{
    datafusion::sql::sqlparser::ast::{CopySource, CopyTarget, Ident, ObjectName, Query as SqlQuery, Statement},
    folded, is_change,
};

use super::{
    SharedBackend,
    answer::{Asking, Reply, user_of},
    control::{Talks, ends_failure, is_question},
    error::{error, failed, no_statement, of_value, read_only},
    prepared::{Prepared, Reader},
    rows::{Rows, data_rows, fields},
    running::{Running, cancelled, timed_out},
    session::Session,
    value::{CopyEncoder, CopyForm},
};

/// The server's side of one connection.
const IN_COMPANY: &str =
    "a change takes effect at once and could not be rolled back with the statements beside it: send it by itself";

pub(super) struct Client {
    pub(super) asking: Arc<Asking>,
    reader: Arc<Reader>,
}

impl Client {
    pub(super) fn new(backend: SharedBackend, session: Arc<Session>, running: Arc<Running>) -> Self {
        let asking = Arc::new(Asking { backend, session, running });
        Self { reader: Arc::new(Reader(asking.clone())), asking }
    }

    /// Does work for a statement until it ends, is cancelled, or has no more time.
    async fn bounded<T>(
        &self,
        running: super::running::Statement,
        work: impl Future<Output = PgWireResult<T>>,
    ) -> PgWireResult<T> {
        let timeout = self.asking.session.state().settings.statement_timeout();
        let in_time = async {
            match timeout {
                Some(timeout) => tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(timed_out())),
                None => work.await,
            }
        };
        tokio::select! {
            done = in_time => done,
            () = running.cancelled.cancelled() => Err(cancelled()),
        }
    }

    /// Carries out one statement.
    pub(super) async fn execute<C: Talks>(&self, client: &mut C, statement: &Statement) -> PgWireResult<Reply>
    where
        C::PortalStore: PortalStore,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if client.transaction_status() == TransactionStatus::Error && !ends_failure(statement) {
            let text = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(error("25P02", text));
        }
        if let Some(moved) = Box::pin(self.move_portal(client, statement)).await? {
            return Ok(moved);
        }
        let executed = self.asking.executed(statement)?;
        let statement = executed.as_ref().unwrap_or(statement);
        if let Some(reply) = Box::pin(self.asking.control(client, statement)).await? {
            return Ok(reply);
        }
        if is_question(statement) {
            return self.asking.found(client, statement).await.map(Reply::Rows);
        }
        if is_change(statement) {
            return self.change(client, statement).await;
        }
        match statement {
            Statement::Copy { source, to: true, target: CopyTarget::Stdout, options, legacy_options, .. } => {
                let form = CopyForm::from_options(options, legacy_options).map_err(of_value)?;
                let rows = self.asking.found(client, &copied(source)).await?;
                let names: Vec<&str> = rows.schema.fields().iter().map(|field| field.name().as_str()).collect();
                form.check_columns(&names).map_err(of_value)?;
                Ok(Reply::Copy(rows, form))
            }
            _ => Err(read_only()),
        }
    }

    /// Publishes what a statement changes. It takes effect at once.
    async fn change<C: ClientInfo>(&self, client: &C, statement: &Statement) -> PgWireResult<Reply> {
        if client.transaction_status() != TransactionStatus::Idle {
            let text =
                "a change takes effect at once and cannot be rolled back: make it outside a transaction (autocommit)";
            return Err(error("25001", text));
        }
        // One that was prepared in SQL shows only here.
        if self.asking.session.state().has_company {
            return Err(error("25001", IN_COMPANY));
        }
        let user = user_of(client);
        let known = self.asking.backend.user(&user).ok_or_else(|| error("28000", "this user was removed"))?;
        if let Some(why) = known.may_not_change {
            return Err(error("42501", why));
        }
        let changed = self.asking.backend.change(statement, &user).await;
        let (command, count) = changed.map_err(|failure| error(failure.code, failure.text))?;
        self.asking.session.state().has_changed = true;
        let tag = Tag::new(command).with_rows(count);
        Ok(Reply::Done(if matches!(statement, Statement::Insert(_)) { tag.with_oid(0) } else { tag }))
    }

    /// Sends rows as COPY does, one message for each.
    pub(super) async fn copy_out<C: Talks>(&self, client: &mut C, rows: Rows, form: &CopyForm) -> PgWireResult<()>
    where
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let columns = i16::try_from(rows.schema.fields().len()).unwrap_or(i16::MAX);
        let format = i16::from(form.is_binary());
        let formats = vec![format; rows.schema.fields().len()];
        let begins = CopyOutResponse::new(i8::from(form.is_binary()), columns, formats);
        client.feed(PgWireBackendMessage::CopyOutResponse(begins)).await?;
        let data = |bytes: Bytes| PgWireBackendMessage::CopyData(CopyData::new(bytes));
        let names: Vec<String> = rows.schema.fields().iter().map(|field| field.name().clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut header = form.header(&names);
        if !form.is_binary()
            && let Some(header) = header.take()
        {
            client.feed(data(header)).await?;
        }
        // Of the binary form clients want the header in one message with what follows it, as
        // PostgreSQL sends it.
        let mut headed = move |bytes: Bytes| match header.take() {
            Some(header) => Bytes::from([header, bytes].concat()),
            None => bytes,
        };
        let (mut count, mut batches) = (0, rows.batches);
        let zone = self.asking.session.state().settings.zone();
        while let Some(batch) = batches.next().await {
            let mut encoder = CopyEncoder::new(form, &batch?, &zone).map_err(of_value)?;
            for row in 0..encoder.row_count() {
                client.feed(data(headed(encoder.row(row).map_err(of_value)?))).await?;
                count += 1;
            }
        }
        if let Some(trailer) = form.trailer() {
            client.feed(data(headed(trailer))).await?;
        }
        client.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
        let tag = Tag::new("COPY").with_rows(count);
        client.feed(PgWireBackendMessage::CommandComplete(tag.into())).await?;
        Ok(())
    }

    /// Carries out the statements of a text, one after another.
    async fn run_text<C: Talks>(&self, client: &mut C, text: &str) -> PgWireResult<()>
    where
        C::Error: Debug,
        C::PortalStore: PortalStore,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statements = self.asking.backend.engine().read(text).await.map_err(|failure| failed(&failure))?;
        // Statements of one text are a transaction: an error, or a ROLLBACK, would undo them all.
        let has_company = statements.len() > 1;
        self.asking.session.state().has_company = has_company;
        if has_company && statements.iter().any(is_change) {
            return Err(error("25001", IN_COMPANY));
        }
        if statements.is_empty() {
            client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
        }
        for statement in statements {
            match self.execute(client, &statement).await? {
                Reply::Done(tag) => client.feed(PgWireBackendMessage::CommandComplete(tag.into())).await?,
                Reply::Copy(rows, form) => self.copy_out(client, rows, &form).await?,
                Reply::Rows(rows) => {
                    let fields = fields(&rows.schema, &Format::UnifiedText)?;
                    send_describe_response(client, &DescribePortalResponse::new(fields.clone())).await?;
                    let zone = self.asking.session.state().settings.zone();
                    let (mut count, mut messages) = (0, data_rows(rows.batches, &fields, zone));
                    while let Some(row) = messages.next().await {
                        client.feed(PgWireBackendMessage::DataRow(row?)).await?;
                        count += 1;
                    }
                    complete(client, rows.command, count).await?;
                }
            }
        }
        Ok(())
    }

    /// The columns of a cursor that a statement fetches from, or that goes by a portal's name.
    fn cursor_columns(&self, name: &str) -> Option<arrow_schema::SchemaRef> {
        self.asking.session.state().cursors.get(name).map(|cursor| cursor.schema.clone())
    }

    fn columns_of(&self, prepared: &Prepared) -> Option<arrow_schema::SchemaRef> {
        match &prepared.statement {
            Statement::Fetch { into: Some(_), .. } => None,
            Statement::Fetch { name, .. } => self.cursor_columns(&folded(name)),
            _ => prepared.columns.clone(),
        }
    }
}

/// The question whose rows a COPY writes.
fn copied(source: &CopySource) -> Statement {
    match source {
        CopySource::Query(query) => Statement::Query(query.clone()),
        CopySource::Table { table_name, columns } => Statement::Query(Box::new(all_of(table_name, columns))),
    }
}

/// `SELECT columns FROM table`.
fn all_of(table: &ObjectName, columns: &[Ident]) -> SqlQuery {
    use rollcall_query::datafusion::sql::sqlparser::{dialect::PostgreSqlDialect, parser::Parser};
    let columns = columns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let columns = if columns.is_empty() { "*" } else { &columns };
    let text = format!("SELECT {columns} FROM {table}");
    let parsed = Parser::new(&PostgreSqlDialect {}).try_with_sql(&text).and_then(|mut parser| parser.parse_query());
    // Names that were parsed once are parsed again.
    parsed.map(|query| *query).expect("a table's name and its columns' are a question")
}

pub(super) async fn complete<C>(client: &mut C, command: &str, count: usize) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let tag = Tag::new(command);
    let tag = if command == "SHOW" { tag } else { tag.with_rows(count) };
    client.feed(PgWireBackendMessage::CommandComplete(tag.into())).await?;
    Ok(())
}

#[async_trait]
impl SimpleQueryHandler for Client {
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        let running = self.asking.running.begin(client);
        let ran = self.bounded(running, self.run_text(client, &query.query)).await;
        // By itself it is done, whatever comes next.
        self.asking.session.state().has_changed = false;
        ran?;
        client.set_state(PgWireConnectionState::ReadyForQuery);
        let status = client.transaction_status();
        send_ready_for_query(client, status).await
    }

    async fn do_query<C>(&self, _: &mut C, _: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        // What the default way of answering would call.
        Err(read_only())
    }
}

#[async_trait]
impl ExtendedQueryHandler for Client {
    type Statement = Prepared;
    type QueryParser = Reader;

    fn query_parser(&self) -> Arc<Reader> {
        self.reader.clone()
    }

    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.clone().unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let running = self.asking.running.begin(client);
        let parsed = self.bounded(running, StoredStatement::parse(client, &message, self.query_parser())).await?;
        match parsed {
            Some(statement) => client.portal_store().put_statement(Arc::new(statement)),
            None => client.portal_store().put_empty_statement(&name),
        }
        self.asking.session.state().statements.insert(name);
        client.feed(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await?;
        Ok(())
    }

    async fn on_bind<C>(&self, client: &mut C, message: Bind) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.statement_name.as_deref().unwrap_or(DEFAULT_NAME);
        match client.portal_store().get_statement(name) {
            Some(Entry::Value(statement)) => {
                let portal = Arc::new(Portal::try_new(&message, statement)?);
                if let Some(name) = message.portal_name.clone().filter(|name| !name.is_empty()) {
                    self.asking.session.state().add_portal(name, &portal);
                }
                client.portal_store().put_portal(portal);
            }
            Some(Entry::Empty) => {
                client.portal_store().put_empty_portal(message.portal_name.as_deref().unwrap_or(DEFAULT_NAME));
            }
            None => return Err(no_statement(name)),
        }
        client.feed(PgWireBackendMessage::BindComplete(BindComplete::new())).await?;
        Ok(())
    }

    async fn on_describe<C>(&self, client: &mut C, message: Describe) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        // A cursor is a portal by its name, and clients describe it so.
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let is_unknown =
            message.target_type == TARGET_TYPE_BYTE_PORTAL && client.portal_store().get_portal(name).is_none();
        if is_unknown && let Some(columns) = self.cursor_columns(name) {
            let fields = fields(&columns, &Format::UnifiedText)?;
            return send_describe_response(client, &DescribePortalResponse::new(fields)).await;
        }
        self._on_describe(client, message).await
    }

    async fn on_close<C>(&self, client: &mut C, message: Close) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        if message.target_type == TARGET_TYPE_BYTE_PORTAL {
            client.portal_store().rm_portal(name);
        } else {
            client.portal_store().rm_statement(name);
            self.asking.session.state().statements.remove(name);
        }
        client.send(PgWireBackendMessage::CloseComplete(CloseComplete::new())).await?;
        Ok(())
    }

    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal = match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal)) => portal,
            Some(Entry::Empty) => {
                client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
                client.set_state(PgWireConnectionState::ReadyForQuery);
                return Ok(());
            }
            None => return Err(PgWireError::PortalNotFound(name.to_owned())),
        };
        let rows_max = usize::try_from(message.max_rows).unwrap_or_default();
        self.asking.session.state().has_company = false;
        let running = self.asking.running.begin(client);
        self.bounded(running, self.run_portal(client, &portal, rows_max)).await?;
        client.set_state(PgWireConnectionState::ReadyForQuery);
        Ok(())
    }

    async fn on_sync<C>(&self, client: &mut C, _: PgSync) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.asking.session.state().has_changed = false;
        client.portal_store().rm_portal(DEFAULT_NAME);
        let status = client.transaction_status();
        send_ready_for_query(client, status).await
    }

    async fn do_describe_statement<C>(
        &self,
        _: &mut C,
        target: &StoredStatement<Prepared>,
    ) -> PgWireResult<DescribeStatementResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &target.statement;
        let columns = self.columns_of(prepared).map(|columns| fields(&columns, &Format::UnifiedText));
        Ok(DescribeStatementResponse::new(prepared.parameters.clone(), columns.transpose()?.unwrap_or_default()))
    }

    async fn do_describe_portal<C>(&self, _: &mut C, target: &Portal<Prepared>) -> PgWireResult<DescribePortalResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let columns = self.columns_of(&target.statement.statement);
        let columns = columns.map(|columns| fields(&columns, &target.result_column_format));
        Ok(DescribePortalResponse::new(columns.transpose()?.unwrap_or_default()))
    }

    async fn do_query<C>(&self, _: &mut C, _: &Portal<Prepared>, _: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        // What the default way of answering would call.
        Err(read_only())
    }
}
