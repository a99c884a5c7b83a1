//! How far a transaction is apart from what changes meanwhile.

use std::sync::{Arc, OnceLock};

use pgwire::error::PgWireResult;
use rollcall_query::{
    Extras, MakeTable, Versions,
    datafusion::sql::sqlparser::ast::{TransactionIsolationLevel, TransactionMode},
};

use super::{answer::Asking, error::error, settings::For};

pub(super) const ISOLATION: &str = "transaction_isolation";
pub(super) const DEFAULT_ISOLATION: &str = "default_transaction_isolation";

/// The level of isolation that is asked for.
pub(super) fn level_of(modes: &[TransactionMode]) -> Option<&'static str> {
    modes.iter().rev().find_map(|mode| match mode {
        TransactionMode::IsolationLevel(level) => Some(match level {
            TransactionIsolationLevel::ReadUncommitted => "read uncommitted",
            TransactionIsolationLevel::ReadCommitted => "read committed",
            TransactionIsolationLevel::Serializable => "serializable",
            TransactionIsolationLevel::RepeatableRead | TransactionIsolationLevel::Snapshot => "repeatable read",
        }),
        TransactionMode::AccessMode(_) => None,
    })
}

impl Asking {
    /// Isolates the transaction as it says, or as the session's transactions are. In one that only
    /// reads, to read one moment's rows throughout is to be serializable.
    pub(super) fn isolate(&self, level: Option<&str>) -> PgWireResult<()> {
        let mut state = self.session.state();
        let level = match level {
            Some(level) => level.to_owned(),
            None => state.settings.show(DEFAULT_ISOLATION)?,
        };
        if state.first.is_some() {
            return Err(error("25001", "SET TRANSACTION ISOLATION LEVEL must be called before any query"));
        }
        state.settings.set(ISOLATION, Some(&level), For::Transaction)?;
        let level = level.to_ascii_lowercase();
        state.is_repeatable = matches!(level.as_str(), "repeatable read" | "serializable");
        Ok(())
    }

    /// In a transaction that repeats what it reads, what went with its first question; else what
    /// goes with this one.
    pub(super) fn as_at_first(&self, now: Extras) -> PgWireResult<Extras> {
        let mut state = self.session.state();
        if !state.is_repeatable {
            return Ok(now);
        }
        match &state.first {
            Some(first) if first.only == now.only => Ok(first.clone()),
            Some(_) => Err(error("40001", "what this user may see has changed; begin the transaction anew")),
            None => {
                let tables = now.tables.into_iter().map(|(schema, name, make)| {
                    let made = OnceLock::new();
                    let once: MakeTable = Arc::new(move || made.get_or_init(|| make()).clone());
                    (schema, name, once)
                });
                let first = Extras { tables: tables.collect(), versions: Some(Versions::default()), ..now };
                state.first = Some(first.clone());
                Ok(first)
            }
        }
    }
}
