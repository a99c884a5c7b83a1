//! Looks after capture: whether it still works, and that the journal does not grow without end.

use rollcall_types::Seq;

use rollcall_capture::{Health, Problem, PruneLimits, Source};

use super::{Look, SqliteSource, random_name};
use crate::{
    error::{CaptureError, Doing},
    health, install,
    read::{self, from_sql, to_sql},
    schema::{Schema, schema_of, stored_schema},
};

/// A schema that somebody else changes while it is looked at is looked at again so many times.
const SCHEMA_LOOKS: usize = 8;

/// Rows pruned in one transaction.
pub(super) const PRUNE_ROWS: u64 = 500;

/// A journal row's size while none was read yet, bytes.
pub(super) const ROW_BYTES_GUESS: u64 = 100;

impl SqliteSource {
    /// Checks file, triggers and tables, and mends what can be mended. Costs nothing while the file
    /// is as it was.
    pub fn check(&mut self) -> Result<Health, CaptureError> {
        match self.file.look() {
            Ok(_) => {}
            Err(CaptureError::Replaced) => {
                return Ok(Health::of_file("the database file was replaced by another one; the agent takes it up"));
            }
            Err(error) => {
                let path = self.file.path().display();
                return Ok(Health::of_file(format!(
                    "the database file {path} is gone: {}",
                    rollcall_types::describe(&error)
                )));
            }
        }
        if self.well_seen.is_some_and(|look| look.holds(self.file.path())) {
            let mut health = Health::default();
            self.note_loads(&mut health);
            return Ok(health);
        }
        let look = Look::at(self.file.path());
        let mut health = Health::default();
        let missing = install::missing_tables(self.file.reader()?)?;
        if !missing.is_empty() {
            // A file without a trigger of ours is none that was captured: what a link leads to now,
            // or one that was put right by hand.
            let is_ours = install::has_triggers(self.file.reader()?)?;
            let Some(known) = self.registration.clone().filter(|_| is_ours) else {
                let text = "the journal was removed from the database; run `rollcall-site join` again";
                return Ok(Health::of_file(text));
            };
            let new_id = random_name();
            let made = install::restore(&mut self.file.writer()?, &known, &new_id)?;
            self.forget_what_was_read();
            if !made.is_empty() {
                health.mended.push(format!("{} were dropped from the store's database: made again", made.join(", ")));
            }
        }
        self.check_schema(&mut health)?;
        self.registration = Some(install::registration(self.file.reader()?)?);
        self.counts.check(&mut self.file, false, &mut health)?;
        self.well_seen = health.is_ok().then_some(look);
        self.note_loads(&mut health);
        Ok(health)
    }

    pub(super) fn note_loads(&self, health: &mut Health) {
        for (table, why) in self.loader.failed() {
            health.note(table, format!("the rows of table {table:?} cannot be read: {why}"));
        }
    }

    /// Looks at triggers and tables if the schema is another than it was.
    pub(super) fn check_schema(&mut self, health: &mut Health) -> Result<(), CaptureError> {
        let now = schema_of(self.file.reader()?)?;
        let known = match &self.schema {
            Some(known) => Some(known.clone()),
            None => stored_schema(self.file.reader()?)?,
        };
        if known.as_ref() == Some(&now) {
            self.schema = Some(now);
            return Ok(());
        }
        let has_moved = self.checked.as_ref().is_none_or(|checked| checked.version != now.version);
        let was_another = known.as_ref().is_some_and(|known| known.version != now.version);
        let (mut moved, mut version) = (was_another && has_moved, now.version);
        for _ in 0..SCHEMA_LOOKS {
            let found = health::check_tables(&mut self.file, moved, &mut version)?;
            health.mended.extend(found.mended);
            let now = schema_of(self.file.reader()?)?;
            if now.version != version {
                // Somebody else changed it while it was looked at: what was found may be outdated.
                (moved, version) = (true, now.version);
                continue;
            }
            health.problems.extend(found.problems);
            self.checked = Some(now.clone());
            if health.is_ok() {
                self.note_schema(&now)?;
                self.schema = Some(now);
            }
            return Ok(());
        }
        // The next check begins anew; until then nothing can be said of how far the journal is.
        self.checked = None;
        let text = "a program changes the store's tables again and again; they are looked at until they stay";
        health.problems.push(Problem { table: None, text: text.to_owned() });
        Ok(())
    }

    /// Notes at which schema all was well, for the next start. It is looked at again then if it is
    /// another.
    fn note_schema(&mut self, schema: &Schema) -> Result<(), CaptureError> {
        let conn = self.file.writer()?;
        install::set_meta(&conn, "schema_version", schema.version)?;
        install::set_meta_text(&conn, "schema_digest", &schema.digest)
    }

    /// Counts the rows of every table now, whenever they were counted last; see [`Self::check`].
    pub fn count_rows(&mut self) -> Result<Health, CaptureError> {
        let mut health = Health::default();
        self.counts.check(&mut self.file, true, &mut health)?;
        Ok(health)
    }

    /// About how large the journal is, bytes.
    pub(super) fn journal_bytes(&mut self) -> Result<u64, CaptureError> {
        let head = read::sequence(self.file.reader()?)?;
        let rows = (head.0 + 1).saturating_sub(self.oldest()?.0);
        let row_bytes = self.bytes_read.checked_div(self.rows_read).unwrap_or(ROW_BYTES_GUESS);
        Ok(rows * row_bytes)
    }

    /// Deletes confirmed rows beyond the limits, a few at a time; returns how many went. Rows after
    /// `confirmed` stay.
    pub fn prune(&mut self, confirmed: Seq, limits: PruneLimits) -> Result<u64, CaptureError> {
        let oldest = self.oldest()?;
        let is_large = self.journal_bytes()? > limits.bytes;
        let through = if is_large { confirmed } else { confirmed.min(limits.through) };
        if oldest > through {
            return Ok(0);
        }
        let through = through.min(Seq(oldest.0 + PRUNE_ROWS - 1));
        let loading: Option<i64> = self
            .file
            .reader()?
            .query_row("SELECT min(begin) FROM _rollcall_load", [], |row| row.get(0))
            .doing("looking for loads")?;
        if loading.is_some_and(|begin| through >= from_sql(begin)) {
            // A load tells by the journal which keys changed since it began.
            return Ok(0);
        }
        let pruned = self
            .file
            .writer()?
            .execute("DELETE FROM _rollcall_journal WHERE seq <= ?1", [to_sql(through)])
            .doing("pruning the journal")?;
        Ok(pruned as u64)
    }

    /// Deletes notes of triggers that no statement needs any more. Notes matter only within a
    /// statement, so every committed one is left over.
    pub fn forget_notes(&mut self) -> Result<(), CaptureError> {
        let doing = "clearing notes";
        let any: bool = self
            .file
            .reader()?
            .query_row("SELECT EXISTS(SELECT 1 FROM _rollcall_noted)", [], |row| row.get(0))
            .doing(doing)?;
        if any {
            self.file.writer()?.execute("DELETE FROM _rollcall_noted", []).doing(doing)?;
        }
        Ok(())
    }
}
