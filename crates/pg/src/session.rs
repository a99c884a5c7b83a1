//! What a connection remembers: settings, cursors, statements, and what its last answer was
//! missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use pgwire::api::portal::Portal;
use rollcall_query::{Extras, System, datafusion::sql::sqlparser::ast::Statement};
use rollcall_types::Coverage;

use super::{
    cursor::{Cursor, KeptOfAll},
    prepared::Prepared,
    settings::Settings,
};

/// One connection's memory.
#[derive(Debug)]
pub(super) struct Session {
    state: Mutex<State>,
    /// What this client was told of tables and their numbers.
    pub(super) system: Option<System>,
    /// What cursors at this port keep.
    pub(super) kept: KeptOfAll,
}

/// The parts that change.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) settings: Settings,
    /// What the last answer to a question was missing; none before the first.
    pub(super) last: Option<Coverage>,
    pub(super) cursors: BTreeMap<String, Cursor>,
    /// Whether all questions of the transaction read what the first one did.
    pub(super) is_repeatable: bool,
    /// What went with the first question of such a transaction.
    pub(super) first: Option<Extras>,
    /// How many savepoints there are.
    pub(super) savepoints: usize,
    /// Whether a change took effect since the client's last Sync: in PostgreSQL an error behind it
    /// would undo it.
    pub(super) has_changed: bool,
    /// Whether the statement under way was sent in one text with others.
    pub(super) has_company: bool,
    /// Names of the statements that the client prepared.
    pub(super) statements: BTreeSet<String>,
    /// What the client bound under names of its own; those that were closed may be among them.
    pub(super) portals: BTreeMap<String, Weak<Portal<Prepared>>>,
    /// What `PREPARE` prepared.
    pub(super) written: BTreeMap<String, Written>,
}

impl State {
    /// Takes note of what was bound under a name.
    pub(super) fn add_portal(&mut self, name: String, portal: &Arc<Portal<Prepared>>) {
        self.portals.retain(|_, portal| portal.strong_count() > 0);
        self.portals.insert(name, Arc::downgrade(portal));
    }
}

/// A statement that was prepared by `PREPARE`, and the names of its parameters' types.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) statement: Statement,
    pub(super) types: Vec<Option<String>>,
}

impl Session {
    pub(super) fn new(system: Option<System>, kept: KeptOfAll) -> Self {
        Self { state: Mutex::default(), system, kept }
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
        (state.is_repeatable, state.first) = (false, None);
        state.savepoints = 0;
        state.settings.reset_all()
    }
}
