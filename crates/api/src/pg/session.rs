//! What a connection remembers: settings, cursors, and what its last answer was missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::{StreamExt, stream::BoxStream};
use pgwire::error::PgWireResult;
use rollcall_query::{System, datafusion::execution::SendableRecordBatchStream};
use rollcall_types::Coverage;

use super::{
    error::{error, failed},
    settings::Settings,
};

/// One connection's memory.
#[derive(Debug)]
pub(super) struct Session {
    state: Mutex<State>,
    /// What this client was told of tables and their numbers.
    pub(super) system: Option<System>,
}

/// The parts that change.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) settings: Settings,
    /// What the last answer to a question was missing; none before the first.
    pub(super) last: Option<Coverage>,
    pub(super) cursors: BTreeMap<String, Cursor>,
    /// How many savepoints there are.
    pub(super) savepoints: usize,
    /// Names of prepared statements; those of statements that were closed may be among them.
    pub(super) statements: BTreeSet<String>,
}

impl Session {
    pub(super) fn new(system: Option<System>) -> Self {
        Self { state: Mutex::default(), system }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the cursors that end with a transaction, or with what came after a savepoint.
    pub(super) fn end_cursors(&self, after: usize) {
        self.state().cursors.retain(|_, cursor| cursor.is_held || cursor.savepoints < after);
    }

    /// Forgets everything that a client may have left.
    pub(super) fn discard_all(&self) -> Vec<(&'static str, String)> {
        let mut state = self.state();
        state.cursors.clear();
        state.last = None;
        state.savepoints = 0;
        state.settings.reset_all()
    }
}

/// A question whose rows are fetched some at a time.
pub(super) struct Cursor {
    pub(super) schema: SchemaRef,
    /// Whether it outlives its transaction.
    pub(super) is_held: bool,
    /// How many savepoints there were when it was opened.
    pub(super) savepoints: usize,
    rows: Rows,
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Cursor {
    pub(super) fn new(rows: SendableRecordBatchStream, is_held: bool, savepoints: usize) -> Self {
        Self { schema: rows.schema(), is_held, savepoints, rows: Rows::new(rows) }
    }

    /// The next rows, at most this many.
    pub(super) async fn fetch(&mut self, rows_max: usize) -> PgWireResult<Vec<RecordBatch>> {
        let mut fetched = Vec::new();
        let mut wanted = rows_max;
        while wanted > 0 {
            let Some(rows) = self.rows.next(wanted).await? else { break };
            wanted -= rows.num_rows();
            fetched.push(rows);
        }
        Ok(fetched)
    }
}

/// The rows of an answer, cut where they are asked for.
struct Rows {
    stream: Arc<tokio::sync::Mutex<BoxStream<'static, PgWireResult<RecordBatch>>>>,
    rest: Option<RecordBatch>,
}

impl Rows {
    fn new(rows: SendableRecordBatchStream) -> Self {
        let rows = rows.map(|rows| rows.map_err(|failure| failed(&failure.into())));
        Self { stream: Arc::new(tokio::sync::Mutex::new(rows.boxed())), rest: None }
    }

    async fn next(&mut self, rows_max: usize) -> PgWireResult<Option<RecordBatch>> {
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => match self.stream.lock().await.next().await {
                Some(rows) => rows?,
                None => return Ok(None),
            },
        };
        if batch.num_rows() > rows_max {
            self.rest = Some(batch.slice(rows_max, batch.num_rows() - rows_max));
            return Ok(Some(batch.slice(0, rows_max)));
        }
        Ok(Some(batch))
    }
}

/// There is no cursor of this name.
pub(super) fn no_cursor(name: &str) -> pgwire::error::PgWireError {
    error("34000", format!("cursor \"{name}\" does not exist"))
}
