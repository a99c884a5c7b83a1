//! What a connection remembers: settings, cursors, and what its last answer was missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::StreamExt;
use pgwire::error::PgWireResult;
use rollcall_query::System;
use rollcall_types::Coverage;

use super::{error::error, rows::Rows, settings::Settings};

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
    /// What is left of the batch that was cut.
    rest: Option<RecordBatch>,
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Cursor {
    pub(super) fn new(rows: Rows, is_held: bool, savepoints: usize) -> Self {
        Self { schema: rows.schema.clone(), is_held, savepoints, rows, rest: None }
    }

    /// The next rows, at most this many.
    pub(super) async fn fetch(&mut self, rows_max: usize) -> PgWireResult<Vec<RecordBatch>> {
        let (mut fetched, mut wanted) = (Vec::new(), rows_max);
        while wanted > 0 {
            let batch = match self.rest.take() {
                Some(rest) => rest,
                None => match self.rows.batches.next().await {
                    Some(rows) => rows?,
                    None => break,
                },
            };
            let taken = batch.num_rows().min(wanted);
            if taken < batch.num_rows() {
                self.rest = Some(batch.slice(taken, batch.num_rows() - taken));
            }
            fetched.push(batch.slice(0, taken));
            wanted -= taken;
        }
        Ok(fetched)
    }
}

/// There is no cursor of this name.
pub(super) fn no_cursor(name: &str) -> pgwire::error::PgWireError {
    error("34000", format!("cursor \"{name}\" does not exist"))
}
