//! Whether HQ's tables at the store are still what was applied, and whose rows those in them are.

use rollcall_capture::{IncomingTable, Standing};
use rollcall_types::shared::EDIT_NUMBER;
use rusqlite::TransactionBehavior;

use super::{
    SqliteIncoming,
    applied::{applied, digest_of, has_applied},
    spec::quoted,
};
use crate::{
    error::{CaptureError, Doing},
    shape::quote,
    shared,
};

impl SqliteIncoming {
    /// Makes the next fetch of every table a whole one: HQ may not remember what it published.
    pub fn distrust(&mut self) -> Result<(), CaptureError> {
        let doing = "forgetting which versions are applied";
        let fetches: Vec<String> = {
            let mut statement = self.conn.prepare("SELECT name FROM incoming.fetches").doing(doing)?;
            statement.query_map([], |row| row.get(0)).doing(doing)?.collect::<Result<_, _>>().doing(doing)?
        };
        fetches.iter().try_for_each(|table| self.clear(table))?;
        if has_applied(&self.conn)? { self.fetch_whole_next(None) } else { Ok(()) }
    }

    /// No audience has this number, so one table, or every one, is fetched whole.
    pub(super) fn fetch_whole_next(&self, table: Option<&str>) -> Result<(), CaptureError> {
        self.conn
            .execute("UPDATE main._rollcall_applied SET audience = 0 WHERE name = coalesce(?1, name)", [table])
            .doing("forgetting which versions are applied")?;
        Ok(())
    }

    /// Lets HQ have a table in which the store has rows of its own: they are replaced by the next
    /// fetch.
    pub fn adopt(&self, table: &str) -> Result<(), CaptureError> {
        self.conn
            .execute("INSERT OR IGNORE INTO incoming.adopted (name) VALUES (?1)", [table])
            .doing("adopting a table")?;
        Ok(())
    }

    /// Whether the table is what was applied; reads it whole.
    pub fn standing(&self, table: &str) -> Result<Standing, CaptureError> {
        let Some(applied) = applied(&self.conn, table)? else { return Ok(Standing::AsApplied) };
        if applied.spec.shared {
            // The store's programs may change it; but not unnoticed.
            let is_watched = shared::is_watched(&self.conn, table)?;
            return Ok(if is_watched { Standing::AsApplied } else { Standing::Changed });
        }
        let now = self.digest_now(&applied.spec)?;
        Ok(match applied.found {
            Some(found) if now.unwrap_or(GONE) == found => Standing::AsFound,
            None if now == Some(applied.digest) => Standing::AsApplied,
            _ => Standing::Changed,
        })
    }

    /// Whether the table is what was applied.
    pub fn is_as_applied(&self, table: &str) -> Result<bool, CaptureError> {
        Ok(self.standing(table)? == Standing::AsApplied)
    }

    /// The digest of a table's rows; none if the table or a column is gone.
    pub(super) fn digest_now(&self, spec: &IncomingTable) -> Result<Option<u64>, CaptureError> {
        let columns = quoted(spec.columns.iter().map(|(name, _)| name)).join(",");
        match digest_of(&self.conn, &format!("SELECT {columns} FROM main.{}", quote(&spec.name))) {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_schema_error(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tables that are shared, or were and have edits on which HQ has not decided.
    pub fn edited(&self) -> Result<Vec<String>, CaptureError> {
        let mut edited = Vec::new();
        for (name, table) in self.applied()? {
            let waits = || -> Result<bool, CaptureError> {
                let edits = format!("SELECT count(*) > 0 FROM main.{}", quote(&shared::edits_of(&name)));
                self.conn.query_row(&edits, [], |row| row.get(0)).doing("looking for edits that wait")
            };
            if table.shared || shared::has_edits_table(&self.conn, &name)? && waits()? {
                edited.push(name);
            }
        }
        Ok(edited)
    }

    /// HQ has decided on the store's edits of a shared table up to this number: what was held back
    /// takes effect.
    pub fn settle(&mut self, table: &str, through: u64) -> Result<(), CaptureError> {
        let Some(known) = applied(&self.conn, table)? else { return Ok(()) };
        let doing = "settling edits of a shared table";
        if !shared::has_edits_table(&self.conn, table)? {
            return Ok(());
        }
        let oldest = format!("SELECT min({EDIT_NUMBER}) FROM main.{}", quote(&shared::edits_of(table)));
        let oldest: Option<i64> = self.conn.query_row(&oldest, [], |row| row.get(0)).doing(doing)?;
        if oldest.is_none_or(|oldest| oldest.unsigned_abs() > through) {
            return Ok(());
        }
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        shared::settle(&transaction, &known.spec, through)?;
        transaction.commit().doing(doing)?;
        self.checkpoint("main");
        Ok(())
    }

    pub(super) fn is_adopted(&self, table: &str) -> Result<bool, CaptureError> {
        self.conn
            .query_row("SELECT count(*) > 0 FROM incoming.adopted WHERE name = ?1", [table], |row| row.get(0))
            .doing("looking for an adopted table")
    }
}

/// Stands for the digest of a table that is not there.
pub(super) const GONE: u64 = 1;

/// Whether SQLite refused because of what a table or column is, or is not.
pub(super) fn is_schema_error(error: &CaptureError) -> bool {
    let CaptureError::Refused { source, .. } = error else { return false };
    let known = source.downcast_ref::<rusqlite::Error>();
    known.is_some_and(|error| error.sqlite_error_code().is_none_or(|code| code == rusqlite::ErrorCode::Unknown))
}
