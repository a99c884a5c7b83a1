//! Rows of an answer on their way to a client.

use std::{sync::Arc, time::Duration};

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, SchemaRef};
use futures::{Stream, StreamExt, stream::BoxStream};
use pgwire::{
    api::{
        portal::Format,
        results::{FieldFormat, FieldInfo},
    },
    error::PgWireResult,
    messages::data::DataRow,
};
use rollcall_query::{QueryError, datafusion::execution::SendableRecordBatchStream};

use super::{
    error::{error, failed, of_value},
    value::{Encoder, Zone, pg_type, type_len, type_modifier},
};

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
        // Clients ask on where nothing is left.
        Self { schema, batches: in_time(rows, longest).fuse().boxed(), command: "SELECT" }
    }

    /// Rows that are there.
    pub(super) fn ready(schema: SchemaRef, batches: Vec<RecordBatch>, command: &'static str) -> Self {
        Self { schema, batches: futures::stream::iter(batches.into_iter().map(Ok)).boxed(), command }
    }

    /// The same rows in columns of the types that the client was told of.
    pub(super) fn conforming_to(self, told: &SchemaRef) -> PgWireResult<Self> {
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
            Format::Individual(codes) => FieldFormat::from(codes.get(place).copied().unwrap_or_default()),
            format => format.format_for(place),
        };
        Ok(FieldInfo::new(field.name().clone(), None, None, kind, format)
            .with_type_size(size)
            .with_type_modifier(type_modifier(field)))
    };
    schema.fields().iter().enumerate().map(field).collect()
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
