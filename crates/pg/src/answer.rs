//! Asks the engine, and tells the client what the answer is missing.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use arrow_schema::Field;
use futures::{Sink, SinkExt};
use pgwire::{
    api::{ClientInfo, METADATA_USER, Type, results::Tag},
    error::{PgWireError, PgWireResult},
    messages::{PgWireBackendMessage, response::NoticeResponse},
};
use rollcall_query::{
    Extras, Planned, Question,
    datafusion::sql::sqlparser::ast::{ObjectName, Statement, visit_relations},
    is_catalogue_question,
};
use rollcall_types::Coverage;

use super::{
    SharedBackend,
    error::{HQ_FAILED, error, error_with_hint, failed},
    rows::Rows,
    running::{Running, backend_pid},
    session::Session,
    settings::{COVERAGE, Telling},
    value::{CopyForm, pg_type},
};

/// What a statement is answered with.
pub(super) enum Reply {
    /// Nothing but the name of what was done.
    Done(Tag),
    /// Rows as they are found.
    Rows(Rows),
    /// Rows as COPY writes them.
    Copy(Rows, CopyForm),
}

/// The type that a client is told of.
pub(super) fn parameter_type(kind: Option<&Field>) -> Type {
    kind.and_then(|kind| pg_type(kind).ok()).unwrap_or(Type::TEXT)
}

pub(super) fn user_of(client: &(impl ClientInfo + ?Sized)) -> String {
    client.metadata().get(METADATA_USER).cloned().unwrap_or_default()
}

/// A notice to a client.
pub(super) async fn notice<C>(
    client: &mut C,
    severity: &str,
    code: &str,
    text: String,
    hint: Option<&str>,
) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let mut fields =
        vec![(b'S', severity.to_owned()), (b'V', severity.to_owned()), (b'C', code.to_owned()), (b'M', text)];
    fields.extend(hint.map(|hint| (b'H', hint.to_owned())));
    client.send(PgWireBackendMessage::NoticeResponse(NoticeResponse::new(fields))).await?;
    Ok(())
}

/// Asks in the name of one session.
pub(super) struct Asking {
    pub(super) backend: SharedBackend,
    pub(super) session: Arc<Session>,
    pub(super) running: Arc<Running>,
}

impl Asking {
    /// What goes with a question of this client.
    pub(super) fn context(&self, client: &(impl ClientInfo + ?Sized)) -> PgWireResult<Extras> {
        let user = &user_of(client);
        let now = self.backend.context(user).ok_or_else(|| error("28000", "this user was removed"))?;
        let mut context = self.as_at_first(now)?;
        context.system.clone_from(&self.session.system);
        context.user = Some(user.clone());
        context.scalars = vec![backend_pid(client)];
        let state = self.session.state();
        context.time_zone = Some(state.settings.zone().name().to_owned()).filter(|zone| zone != "UTC");
        let mut settings: BTreeMap<String, String> = state.settings.all();
        settings.insert("session_authorization".to_owned(), user.clone());
        context.settings = Arc::new(settings);
        if let Some(last) = state.last.clone() {
            // On a connection it is the last answer's.
            let backend = self.backend.clone();
            context.tables.retain(|(schema, name, _)| (*schema, *name) != ("rollcall", "coverage"));
            context.tables.push(("rollcall", "coverage", Arc::new(move || backend.coverage_rows(&last))));
        }
        Ok(context)
    }

    fn telling(&self, user: &str) -> Telling {
        self.session.state().settings.telling().unwrap_or_else(|| {
            let is_strict = self.backend.user(user).is_some_and(|user| user.is_strict);
            if is_strict { Telling::Strict } else { Telling::Note }
        })
    }

    /// The rows of a question, once the client was told what its answer will be missing.
    pub(super) async fn found<C>(&self, client: &mut C, question: &Statement) -> PgWireResult<Rows>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let planned = self.ask(client, question).await?;
        let rows = planned.stream().await.map_err(|failure| failed(&failure))?;
        Ok(Rows::found(rows, self.backend.engine().limits().time_max))
    }

    /// Plans a question, and tells the client what its answer will be missing.
    async fn ask<C>(&self, client: &mut C, statement: &Statement) -> PgWireResult<Planned>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let user = user_of(client);
        let context = self.context(client)?;
        // Questions of the client's program about the server, or of what was missing, are not the
        // user's next question.
        let is_aside = is_catalogue_question(statement) || reads_coverage(statement);
        if !is_aside {
            // Until this question is planned it has no answer that could miss anything.
            self.session.state().last = Some(Coverage::default());
        }
        let question = Question::Statement(Box::new(statement.clone()));
        let planned = self.backend.engine().plan(question, context).await;
        let planned = planned.map_err(|failure| failed(&failure))?;
        if !is_aside {
            self.session.state().last = Some(planned.coverage.clone());
            let telling = self.telling(&user);
            self.session.state().settings.tell_again();
            if planned.coverage.reads_sites {
                self.tell(client, telling, &user, statement, &planned.coverage).await?;
            }
        }
        Ok(planned)
    }

    async fn tell<C>(
        &self,
        client: &mut C,
        telling: Telling,
        user: &str,
        statement: &Statement,
        coverage: &Coverage,
    ) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let summary = coverage.summary();
        match telling {
            Telling::Strict if !coverage.is_complete() => Err(error_with_hint(
                "RC001",
                format!("the answer would be incomplete: {summary}"),
                format!("SET {COVERAGE} = note gives the answer with this as a notice"),
            )),
            Telling::OffOnce => {
                tracing::warn!(user, "asked without being told what is missing");
                // Before the answer: what is not recorded is not answered.
                let recorded = self.backend.record_untold(user, &statement.to_string(), &summary).await;
                recorded.map_err(|failure| error(HQ_FAILED, failure))
            }
            Telling::Note | Telling::Strict => {
                let severity = if coverage.is_complete() { "NOTICE" } else { "WARNING" };
                let hint = "SELECT * FROM rollcall.coverage lists every site that is missing";
                let hint = Some(hint).filter(|_| !coverage.is_complete());
                notice(client, severity, "01000", format!("coverage: {summary}"), hint).await
            }
        }
    }
}

/// Whether a question reads what the last answer was missing.
fn reads_coverage(statement: &Statement) -> bool {
    visit_relations(statement, |relation: &ObjectName| {
        let is_coverage = relation.to_string().to_lowercase().replace('"', "") == "rollcall.coverage";
        if is_coverage { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .is_break()
}
