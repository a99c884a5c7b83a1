//! What clients say besides questions: settings, transactions, cursors.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use futures::{Sink, SinkExt};
use pgwire::{
    api::{ClientInfo, ClientPortalStore, results::Tag, store::PortalStore},
    error::{PgWireError, PgWireResult},
    messages::{PgWireBackendMessage, response::TransactionStatus, startup::ParameterStatus},
};
use rollcall_query::{
    datafusion::sql::sqlparser::ast::{
        CloseCursor, ContextModifier, DataType, Declare, DiscardObject, Expr, Ident, Reset, Set, SetSessionParamKind,
        Statement, TransactionMode, Value,
    },
    execute, folded, is_change, only_moves,
};

use super::{
    answer::{Asking, Reply, notice, parameter_type},
    cursor::{Cursor, Going, Lent, no_cursor},
    error::{UNSUPPORTED, error, error_with_hint, failed, no_statement, read_only},
    isolation::{DEFAULT_ISOLATION, ISOLATION, level_of},
    prepared::{full_type, shown},
    rows::Rows,
    session::Written,
    settings::{
        For, TIME_ZONE,
        calls::{Does, columns_of, setting_calls},
    },
};

/// Whether a statement is a question.
pub(super) fn is_question(statement: &Statement) -> bool {
    matches!(statement, Statement::Query(_) | Statement::Explain { .. })
}

/// Whether a statement may be said in a transaction that has failed.
pub(super) fn ends_failure(statement: &Statement) -> bool {
    matches!(statement, Statement::Commit { .. } | Statement::Rollback { .. })
}

/// The name that `SHOW` asks for.
pub(super) fn variable_name(variable: &[Ident]) -> String {
    let words: Vec<String> = variable.iter().map(|word| word.value.to_lowercase()).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["time", "zone"] => TIME_ZONE.to_owned(),
        ["transaction", "isolation", "level"] => ISOLATION.to_owned(),
        ["session", "authorization"] => "session_authorization".to_owned(),
        words => words.join("."),
    }
}

/// What a client must be able to do for this.
pub(super) trait Talks:
    ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync
{
}
impl<C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync> Talks for C {}

fn done(command: &str) -> PgWireResult<Option<Reply>> {
    Ok(Some(Reply::Done(Tag::new(command))))
}

/// The text of a value in SET.
pub(super) fn text_of(value: &Expr) -> Option<String> {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                Some(text.clone())
            }
            Value::Number(digits, _) => Some(digits.clone()),
            Value::Boolean(value) => Some(if *value { "on" } else { "off" }.to_owned()),
            _ => None,
        },
        Expr::Identifier(name) => Some(name.value.clone()),
        Expr::UnaryOp { .. } => Some(value.to_string().replace(' ', "")),
        // A span of time is towards the east; a number in a zone's name, as in POSIX, towards the
        // west.
        Expr::Interval(interval) => text_of(&interval.value).map(|text| match text.strip_prefix('-') {
            Some(west) => format!("+{west}"),
            None => format!("-{}", text.trim_start_matches('+')),
        }),
        _ => None,
    }
}

impl Asking {
    /// Answers a statement that is no question; none if it is none of these.
    pub(super) async fn control<C: Talks>(&self, client: &mut C, statement: &Statement) -> PgWireResult<Option<Reply>>
    where
        C::PortalStore: PortalStore,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match statement {
            Statement::Set(set) => self.set(client, set).await,
            Statement::Reset(reset) => {
                let told = match &reset.reset {
                    Reset::ALL => self.session.state().settings.reset_all(),
                    Reset::ConfigurationParameter(name) => {
                        self.session.state().settings.set(&name.to_string(), None, For::Session)?.into_iter().collect()
                    }
                };
                report(client, told).await?;
                done("RESET")
            }
            Statement::ShowVariable { variable } => self.show(variable).map(Some),
            Statement::Query(_) => self.calls(client, statement).await,
            Statement::Discard { object_type } => self.discard(client, object_type).await,
            Statement::LISTEN { .. } => Err(error(UNSUPPORTED, "LISTEN is not supported: nothing is notified here")),
            Statement::UNLISTEN { .. } => done("UNLISTEN"),
            Statement::Deallocate { name, .. } => self.deallocate(client, name),
            Statement::StartTransaction { modes, .. } => self.begin(client, modes).await,
            Statement::Commit { .. } => self.end(client, true).await,
            Statement::Rollback { savepoint: None, .. } => self.end(client, false).await,
            Statement::Rollback { savepoint: Some(name), .. } => self.rollback_to(client, &folded(name)).await,
            Statement::Savepoint { name } => {
                in_transaction(client, "SAVEPOINT")?;
                let mut state = self.session.state();
                state.settings.begin(Some(folded(name)));
                state.savepoints += 1;
                done("SAVEPOINT")
            }
            Statement::ReleaseSavepoint { name } => {
                in_transaction(client, "RELEASE SAVEPOINT")?;
                let mut state = self.session.state();
                if !state.settings.release(&folded(name)) {
                    return Err(no_savepoint(&folded(name)));
                }
                state.savepoints = state.settings.savepoints();
                done("RELEASE")
            }
            Statement::Declare { stmts } => match stmts.as_slice() {
                [declared] => self.declare(client, declared).await,
                _ => Err(read_only()),
            },
            Statement::Fetch { name, direction, into, .. } => {
                if into.is_some() && !only_moves(statement) {
                    return Err(error("42601", "FETCH INTO has no meaning here: there are no variables"));
                }
                self.fetch(&folded(name), Going::of(direction)?, only_moves(statement)).await
            }
            Statement::Prepare { name, data_types, statement } => {
                Box::pin(self.prepare(client, &folded(name), data_types, statement)).await
            }
            Statement::Close { cursor } => {
                let mut state = self.session.state();
                match cursor {
                    CloseCursor::All => state.cursors.clear(),
                    CloseCursor::Specific { name } => {
                        let name = folded(name);
                        state.cursors.remove(&name).ok_or_else(|| no_cursor(&name))?;
                    }
                }
                done("CLOSE CURSOR")
            }
            _ => Ok(None),
        }
    }

    fn deallocate<C: Talks>(&self, client: &mut C, name: &Ident) -> PgWireResult<Option<Reply>>
    where
        C::PortalStore: PortalStore,
    {
        if name.value.eq_ignore_ascii_case("all") && name.quote_style.is_none() {
            self.forget_statements(client);
            return done("DEALLOCATE ALL");
        }
        let (name, mut state) = (folded(name), self.session.state());
        let is_known = state.written.remove(&name).is_some() | state.statements.remove(&name);
        if !is_known {
            return Err(no_statement(&name));
        }
        client.portal_store().rm_statement(&name);
        done("DEALLOCATE")
    }

    async fn set<C: Talks>(&self, client: &mut C, set: &Set) -> PgWireResult<Option<Reply>>
    where
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let (name, value, is_local) = match set {
            Set::SingleAssignment { scope, variable, values, .. } => {
                let texts = values.iter().map(text_of).collect::<Option<Vec<_>>>();
                let text =
                    texts.ok_or_else(|| error("22023", format!("SET {variable} takes names, texts and numbers")))?;
                let name = variable.0.iter().filter_map(|part| part.as_ident()).map(|part| part.value.to_lowercase());
                (name.collect::<Vec<_>>().join("."), text.join(", "), scope == &Some(ContextModifier::Local))
            }
            Set::SetTimeZone { local, value } => {
                let text =
                    text_of(value).ok_or_else(|| error("22023", "SET TIME ZONE takes a name or a number of hours"))?;
                let text = if text.eq_ignore_ascii_case("local") { "default".to_owned() } else { text };
                (TIME_ZONE.to_owned(), text, *local)
            }
            Set::SetNames { charset_name, .. } => ("client_encoding".to_owned(), charset_name.value.clone(), false),
            Set::SetNamesDefault {} => ("client_encoding".to_owned(), "default".to_owned(), false),
            Set::SetTransaction { modes, session: true, .. } => {
                if let Some(level) = level_of(modes) {
                    self.session.state().settings.set(DEFAULT_ISOLATION, Some(level), For::Session)?;
                }
                return done("SET");
            }
            Set::SetTransaction { modes, .. } => {
                if let (Some(level), true) = (level_of(modes), client.transaction_status() != TransactionStatus::Idle) {
                    self.isolate(Some(level))?;
                }
                return done("SET");
            }
            Set::SetSessionParam(SetSessionParamKind::Generic(param)) => {
                (param.names.join("."), param.value.clone(), false)
            }
            Set::SetSessionAuthorization(_) | Set::SetRole { role_name: None, .. } => return done("SET"),
            other => return Err(error(UNSUPPORTED, format!("{other} is not supported"))),
        };
        let holds = if is_local { For::Transaction } else { For::Session };
        if is_local && client.transaction_status() == TransactionStatus::Idle {
            notice(client, "WARNING", "25P01", "SET LOCAL can only be used in transaction blocks".to_owned(), None)
                .await?;
            return done("SET");
        }
        if name == ISOLATION {
            // Outside of a transaction it would be that of this statement alone.
            if client.transaction_status() != TransactionStatus::Idle {
                self.isolate(Some(&value))?;
            }
            return done("SET");
        }
        let told = self.session.state().settings.set(&name, Some(&value), holds)?;
        report(client, told.into_iter().collect()).await?;
        done("SET")
    }

    fn show(&self, variable: &[Ident]) -> PgWireResult<Reply> {
        let (name, schema) = (variable_name(variable), shown(variable));
        let state = self.session.state();
        let text = |values: Vec<String>| Arc::new(StringArray::from(values)) as ArrayRef;
        let columns = if name == "all" {
            let all = state.settings.all();
            let names = all.keys().cloned().collect();
            let nothing = vec![String::new(); all.len()];
            vec![text(names), text(all.into_values().collect()), text(nothing)]
        } else {
            vec![text(vec![state.settings.show(&name)?])]
        };
        let rows =
            RecordBatch::try_new(schema.clone(), columns).map_err(|failure| error("XX000", failure.to_string()))?;
        Ok(Reply::Rows(Rows::ready(schema, vec![rows], "SHOW")))
    }

    /// What is selected and does something, one call after another; anything else is a question.
    async fn calls<C: Talks>(&self, client: &mut C, statement: &Statement) -> PgWireResult<Option<Reply>>
    where
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let Some(called) = setting_calls(statement) else { return Ok(None) };
        let (mut columns, mut told): (Vec<ArrayRef>, _) = (Vec::new(), Vec::new());
        for call in &called {
            if call.does == Does::Cancel {
                let stopped = self.running.cancel(call.number()?, client);
                columns.push(Arc::new(BooleanArray::from(vec![stopped])));
                continue;
            }
            let mut state = self.session.state();
            let name = call.name()?;
            let value = if call.does == Does::Set {
                let holds = if call.is_true(2) { For::Transaction } else { For::Session };
                told.extend(state.settings.set(&name, call.text(1).as_deref(), holds)?);
                Some(state.settings.show(&name)?)
            } else if call.is_true(1) {
                state.settings.show(&name).ok()
            } else {
                Some(state.settings.show(&name)?)
            };
            columns.push(Arc::new(StringArray::from(vec![value])));
        }
        report(client, told).await?;
        let schema = columns_of(&called);
        let rows = RecordBatch::try_new(schema.clone(), columns);
        let rows = rows.map_err(|failure| error("XX000", failure.to_string()))?;
        Ok(Some(Reply::Rows(Rows::ready(schema, vec![rows], "SELECT"))))
    }

    async fn discard<C: Talks>(&self, client: &mut C, object: &DiscardObject) -> PgWireResult<Option<Reply>>
    where
        C::PortalStore: PortalStore,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match object {
            DiscardObject::ALL => {
                if client.transaction_status() != TransactionStatus::Idle {
                    return Err(error("25001", "DISCARD ALL cannot run inside a transaction block"));
                }
                self.forget_statements(client);
                client.portal_store().clear_portals();
                let told = self.session.discard_all();
                report(client, told).await?;
                done("DISCARD ALL")
            }
            DiscardObject::PLANS => done("DISCARD PLANS"),
            DiscardObject::SEQUENCES => done("DISCARD SEQUENCES"),
            DiscardObject::TEMP => done("DISCARD TEMP"),
        }
    }

    fn forget_statements<C: Talks>(&self, client: &C)
    where
        C::PortalStore: PortalStore,
    {
        self.session.state().written.clear();
        let statements = std::mem::take(&mut self.session.state().statements);
        for name in statements {
            client.portal_store().rm_statement(&name);
        }
    }

    async fn begin<C: Talks>(&self, client: &mut C, modes: &[TransactionMode]) -> PgWireResult<Option<Reply>>
    where
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if client.transaction_status() != TransactionStatus::Idle {
            let text = "there is already a transaction in progress".to_owned();
            notice(client, "WARNING", "25001", text, None).await?;
            return done("BEGIN");
        }
        self.session.state().settings.begin(None);
        self.isolate(level_of(modes))?;
        client.set_transaction_status(TransactionStatus::Transaction);
        done("BEGIN")
    }

    async fn end<C: Talks>(&self, client: &mut C, is_commit: bool) -> PgWireResult<Option<Reply>>
    where
        C::PortalStore: PortalStore,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let status = client.transaction_status();
        if status == TransactionStatus::Idle {
            notice(client, "WARNING", "25P01", "there is no transaction in progress".to_owned(), None).await?;
        }
        let is_commit = is_commit && status != TransactionStatus::Error;
        let told = {
            let mut state = self.session.state();
            state.savepoints = 0;
            (state.is_repeatable, state.first) = (false, None);
            match is_commit {
                true => state.settings.commit(),
                false => state.settings.rollback(None).unwrap_or_default(),
            }
        };
        self.session.end_cursors(0);
        client.portal_store().clear_portals();
        report(client, told).await?;
        client.set_transaction_status(TransactionStatus::Idle);
        done(if is_commit { "COMMIT" } else { "ROLLBACK" })
    }

    async fn rollback_to<C: Talks>(&self, client: &mut C, name: &str) -> PgWireResult<Option<Reply>>
    where
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        in_transaction(client, "ROLLBACK TO SAVEPOINT")?;
        let (told, savepoints) = {
            let mut state = self.session.state();
            let told = state.settings.rollback(Some(name)).ok_or_else(|| no_savepoint(name))?;
            state.savepoints = state.settings.savepoints();
            (told, state.savepoints)
        };
        self.session.end_cursors(savepoints);
        report(client, told).await?;
        client.set_transaction_status(TransactionStatus::Transaction);
        done("ROLLBACK")
    }

    async fn declare<C: Talks>(&self, client: &mut C, declared: &Declare) -> PgWireResult<Option<Reply>>
    where
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let (Some(name), Some(query)) = (declared.names.first(), &declared.for_query) else { return Err(read_only()) };
        if declared.binary == Some(true) {
            return Err(error(
                UNSUPPORTED,
                "BINARY cursors are not supported; clients choose the form when they fetch",
            ));
        }
        let (name, is_held) = (folded(name), declared.hold == Some(true));
        if !is_held && client.transaction_status() == TransactionStatus::Idle {
            return Err(error("25P01", "DECLARE CURSOR can only be used in transaction blocks"));
        }
        if self.session.state().cursors.contains_key(&name) {
            return Err(error("42P03", format!("cursor \"{name}\" already exists")));
        }
        let rows = self.found(client, &Statement::Query(query.clone())).await?;
        let scrolls = (declared.scroll == Some(true)).then(|| self.session.kept.clone());
        let mut state = self.session.state();
        let savepoints = state.savepoints;
        state.cursors.insert(name, Cursor::new(rows, scrolls, is_held, savepoints));
        done("DECLARE CURSOR")
    }

    /// Prepares a statement under a name.
    async fn prepare<C: ClientInfo + Sync>(
        &self,
        client: &C,
        name: &str,
        types: &[DataType],
        statement: &Statement,
    ) -> PgWireResult<Option<Reply>> {
        if !is_question(statement) && !is_change(statement) {
            return Err(error("42601", "PREPARE takes a SELECT, INSERT, UPDATE or DELETE"));
        }
        let told: Vec<Option<String>> = types.iter().map(|kind| Some(kind.to_string())).collect();
        let engine = self.backend.engine();
        let described = engine.describe(statement, &told, self.context(client)?).await;
        let described = described.map_err(|failure| failed(&failure))?;
        // What no place needs may be given.
        let places = described.parameters.len().max(types.len());
        let named = |place: usize| match described.parameters.get(place) {
            Some(kind) => full_type(&parameter_type(kind.as_ref())),
            None => None,
        };
        let types = (0..places).map(named).collect();
        let mut state = self.session.state();
        if state.written.contains_key(name) || state.statements.contains(name) {
            return Err(error("42P05", format!("prepared statement \"{name}\" already exists")));
        }
        state.written.insert(name.to_owned(), Written { statement: statement.clone(), types });
        done("PREPARE")
    }

    /// What `EXECUTE` carries out; none if it is another statement.
    pub(super) fn executed(&self, statement: &Statement) -> PgWireResult<Option<Statement>> {
        let Statement::Execute { name: Some(name), parameters, immediate: false, .. } = statement else {
            return Ok(None);
        };
        let [name] = name.0.as_slice() else { return Err(no_statement(&name.to_string())) };
        let name = name.as_ident().map(folded).unwrap_or_default();
        let written = self.session.state().written.get(&name).cloned().ok_or_else(|| no_statement(&name))?;
        if parameters.len() != written.types.len() {
            let text = format!("wrong number of parameters for prepared statement \"{name}\"");
            let detail = format!("it has {} parameters, and {} are given", written.types.len(), parameters.len());
            return Err(error_with_hint("42601", text, detail));
        }
        let statement = execute(&written.statement, parameters, &written.types);
        statement.map(Some).map_err(|failure| failed(&failure))
    }

    async fn fetch(&self, name: &str, going: Going, only_moves: bool) -> PgWireResult<Option<Reply>> {
        let lent = Lent::take(&self.session, name)?;
        Ok(Some(match only_moves {
            true => Reply::Done(Tag::new("MOVE").with_rows(lent.go(going).await?)),
            false => Reply::Rows(lent.fetch(going).await?),
        }))
    }
}

fn no_savepoint(name: &str) -> PgWireError {
    error("3B001", format!("savepoint \"{name}\" does not exist"))
}

fn in_transaction<C: ClientInfo>(client: &C, command: &str) -> PgWireResult<()> {
    match client.transaction_status() {
        TransactionStatus::Idle => Err(error("25P01", format!("{command} can only be used in transaction blocks"))),
        _ => Ok(()),
    }
}

/// Tells a client what its settings are now.
async fn report<C: Talks>(client: &mut C, told: Vec<(&'static str, String)>) -> PgWireResult<()>
where
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    for (name, value) in told {
        let status = ParameterStatus::new(name.to_owned(), value);
        client.feed(PgWireBackendMessage::ParameterStatus(status)).await?;
    }
    Ok(())
}
