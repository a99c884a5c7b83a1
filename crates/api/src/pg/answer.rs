//! Asks the engine, tells the client what the answer is missing, and puts rows into the client's forms.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, SchemaRef};
use futures::{Sink, SinkExt, Stream, StreamExt, stream::BoxStream};
use pgwire::{
    api::{
        ClientInfo, METADATA_USER, Type,
        portal::Format,
        results::{FieldInfo, Tag},
    },
    error::{PgWireError, PgWireResult},
    messages::{PgWireBackendMessage, data::DataRow, response::NoticeResponse},
};
use rollcall_query::{
    Planned, QueryError, Question,
    datafusion::{
        execution::SendableRecordBatchStream,
        sql::sqlparser::ast::{ObjectName, Statement, visit_relations},
    },
    is_catalogue_question,
};
use rollcall_types::Coverage;

use super::{
    SharedBackend,
    error::{HQ_FAILED, error, error_with_hint, failed, of_value},
    session::Session,
    settings::{COVERAGE, Telling},
    value::{CopyForm, Encoder, Zone, pg_type, type_len},
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

/// Rows of an answer with their columns.
pub(super) struct Rows {
    pub(super) schema: SchemaRef,
    pub(super) batches: BoxStream<'static, PgWireResult<RecordBatch>>,
    /// The command that they are from.
    pub(super) command: &'static str,
}

impl Rows {
    /// Rows that the engine finds. None for this long is an error.
    pub(super) fn found(rows: SendableRecordBatchStream, longest: Duration) -> Self {
        let schema = rows.schema();
        let rows = rows.map(|rows| rows.map_err(|failure| failed(&QueryError::from(failure))));
        Self { schema, batches: in_time(rows, longest).boxed(), command: "SELECT" }
    }

    /// Rows that are there.
    pub(super) fn ready(schema: SchemaRef, batches: Vec<RecordBatch>, command: &'static str) -> Self {
        Self { schema, batches: futures::stream::iter(batches.into_iter().map(Ok)).boxed(), command }
    }

    /// The same rows in columns of the types that the client was told of.
    pub(super) fn as_told(self, told: &SchemaRef) -> PgWireResult<Self> {
        let differs = |field: &Field, told: &Field| pg_type(field).ok() != pg_type(told).ok();
        let fields = self.schema.fields();
        if fields.len() != told.fields().len() {
            return Err(error("0A000", "cached plan must not change result type: the table's columns have changed"));
        }
        if !fields.iter().zip(told.fields()).any(|(field, told)| differs(field, told)) {
            return Ok(self);
        }
        let target = told.clone();
        let batches = self.batches.map(move |rows| cast(&rows?, &target)).boxed();
        Ok(Self { schema: told.clone(), batches, command: self.command })
    }
}

fn cast(rows: &RecordBatch, target: &SchemaRef) -> PgWireResult<RecordBatch> {
    let wrong = |failure: arrow_schema::ArrowError| error("22003", failure.to_string());
    let options = arrow_cast::CastOptions { safe: false, ..arrow_cast::CastOptions::default() };
    let columns = rows.columns().iter().zip(target.fields());
    let columns = columns
        .map(|(column, field)| arrow_cast::cast_with_options(column, field.data_type(), &options).map_err(wrong))
        .collect::<PgWireResult<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(target.clone(), columns, &options).map_err(wrong)
}

/// Ends a stream with an error when nothing is found for this long.
fn in_time<T: Send + 'static>(
    rows: impl Stream<Item = PgWireResult<T>> + Send + 'static,
    longest: Duration,
) -> impl Stream<Item = PgWireResult<T>> + Send + 'static {
    futures::stream::unfold(Some(rows.boxed()), move |rows| async move {
        let mut rows = rows?;
        match tokio::time::timeout(longest, rows.next()).await {
            Ok(row) => Some((row?, Some(rows))),
            Err(_) => {
                let text = format!("the query found no row for {} s and was cut", longest.as_secs());
                Some((Err(failed(&QueryError::Limit(text))), None))
            }
        }
    })
}

/// The columns as they are described to a client.
pub(super) fn fields(schema: &SchemaRef, format: &Format) -> PgWireResult<Vec<FieldInfo>> {
    let field = |(place, field): (usize, &Arc<Field>)| {
        let kind = pg_type(field).map_err(of_value)?;
        let size = type_len(&kind);
        let format = match format {
            // One that a client leaves out is text.
            Format::Individual(codes) => codes.get(place).copied().unwrap_or_default().into_format(),
            format => format.format_for(place),
        };
        Ok(FieldInfo::new(field.name().clone(), None, None, kind, format).with_type_size(size))
    };
    schema.fields().iter().enumerate().map(field).collect()
}

trait IntoFormat {
    fn into_format(self) -> pgwire::api::results::FieldFormat;
}

impl IntoFormat for i16 {
    fn into_format(self) -> pgwire::api::results::FieldFormat {
        pgwire::api::results::FieldFormat::from(self)
    }
}

/// The rows as messages.
pub(super) fn data_rows(
    batches: BoxStream<'static, PgWireResult<RecordBatch>>,
    fields: &[FieldInfo],
    zone: Zone,
) -> BoxStream<'static, PgWireResult<DataRow>> {
    let formats: Vec<_> = fields.iter().map(FieldInfo::format).collect();
    let encode = move |rows: PgWireResult<RecordBatch>| {
        let encoder = rows.and_then(|rows| Encoder::new(&rows, &formats, &zone).map_err(of_value));
        match encoder {
            Ok(mut encoder) => {
                let rows = (0..encoder.row_count()).map(move |row| encoder.data_row(row).map_err(of_value));
                futures::stream::iter(rows).boxed()
            }
            Err(failure) => futures::stream::iter([Err(failure)]).boxed(),
        }
    };
    batches.flat_map(encode).boxed()
}

/// The type that a client is told of.
pub(super) fn parameter_type(kind: Option<&DataType>) -> Type {
    kind.and_then(|kind| pg_type(&Field::new("parameter", kind.clone(), true)).ok()).unwrap_or(Type::TEXT)
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
}

impl Asking {
    /// What goes with a question of this user.
    pub(super) fn context(&self, user: &str) -> PgWireResult<rollcall_query::Extras> {
        let mut context = self.backend.context(user).ok_or_else(|| error("28000", "this user was removed"))?;
        context.system.clone_from(&self.session.system);
        context.user = Some(user.to_owned());
        let state = self.session.state();
        context.time_zone = Some(state.settings.zone().name().to_owned()).filter(|zone| zone != "UTC");
        let mut settings: BTreeMap<String, String> = state.settings.all();
        settings.insert("session_authorization".to_owned(), user.to_owned());
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

    /// Plans a question, and tells the client what its answer will be missing.
    pub(super) async fn ask<C>(&self, client: &mut C, statement: &Statement) -> PgWireResult<Planned>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let user = user_of(client);
        let context = self.context(&user)?;
        // Questions of the client's program about the server, or of what was missing, are not the user's next question.
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
            if planned.coverage.scope > 0 {
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
