//! What is staged ahead takes effect at its time.

use rollcall_capture::{DueChange, Report, clock_micros};
use rusqlite::TransactionBehavior;

use super::{
    SqliteIncoming,
    applied::applied,
    seq,
    spec::{compare, declare, quoted},
    write::Rows,
};
use crate::{
    error::{CaptureError, Doing},
    shape::{Shape, quote},
};

impl SqliteIncoming {
    /// Notes what is to take effect, in the place of what was noted before; what has already is not
    /// done again.
    pub fn schedule(&mut self, changes: &[DueChange]) -> Result<(), CaptureError> {
        let doing = "noting what takes effect later";
        let known: Vec<(String, i64)> = {
            let mut statement = self.conn.prepare_cached("SELECT name, number FROM incoming.due").doing(doing)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).doing(doing)?;
            rows.collect::<Result<_, _>>().doing(doing)?
        };
        if known.is_empty() && changes.is_empty() {
            return Ok(());
        }
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Deferred).doing(doing)?;
        for (name, number) in known {
            if !changes.iter().any(|of| of.table == name && of.number as i64 == number) {
                let gone = "DELETE FROM incoming.due WHERE name = ?1 AND number = ?2";
                transaction.execute(gone, (&name, number)).doing(doing)?;
            }
        }
        for of in changes {
            transaction
                .execute(
                    "INSERT INTO incoming.due (name, next, number, at, version) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (name, number) DO UPDATE SET at = excluded.at, version = excluded.version",
                    (&of.table, &of.next, of.number as i64, of.at_micros, of.version.0 as i64),
                )
                .doing(doing)?;
        }
        transaction.commit().doing(doing)
    }

    /// When something is to take effect next, microseconds since 1970.
    pub fn next_due(&self) -> Result<Option<i64>, CaptureError> {
        self.conn
            .query_row("SELECT min(at) FROM incoming.due WHERE NOT done", [], |row| row.get(0))
            .doing("looking what takes effect next")
    }

    /// Tables in which something is to take effect by now and has not.
    pub fn due_tables(&self) -> Result<Vec<String>, CaptureError> {
        let doing = "looking what takes effect";
        let mut statement = self
            .conn
            .prepare_cached("SELECT DISTINCT name FROM incoming.due WHERE NOT done AND at <= ?1 ORDER BY name")
            .doing(doing)?;
        let names = statement.query_map([clock_micros()], |row| row.get(0)).doing(doing)?;
        names.collect::<Result<_, _>>().doing(doing)
    }

    /// Puts rows whose time has come into a table; none if their rows are not here yet, or the
    /// table is not.
    pub fn take_effect(&mut self, table: &str) -> Result<Option<Report>, CaptureError> {
        let due = self.arrived(table, clock_micros())?;
        let Some(known) = applied(&self.conn, table)?.filter(|_| due.iter().any(|of| !of.1)) else { return Ok(None) };
        let doing = "putting rows into effect";
        let refuse = |reason: String| CaptureError::Differs { table: table.to_owned(), reason };
        let shape = Shape::read(&self.conn, table)?;
        let missing = compare(&shape, &known.spec, known.made).map_err(refuse)?;
        self.conn
            .execute_batch(&format!(
                "DROP TABLE IF EXISTS temp._rollcall_due;
                 CREATE TEMP TABLE _rollcall_due (_op TEXT NOT NULL, {})",
                declare(&known.spec, true)
            ))
            .doing(doing)?;
        let source = "temp._rollcall_due".to_owned();
        let rows = Rows { source, spec: &known.spec, published_at: known.table.published_at };
        self.lay_over(&rows, &due)?;
        let report = self.change(&rows, known.table.version, Some(&known), &missing)?;
        self.conn.execute_batch("DROP TABLE temp._rollcall_due").doing(doing)?;
        if report.removed > 0 {
            self.count_dangling(table)?;
        }
        self.checkpoint("main");
        // Done twice it changes nothing.
        for (of, _) in &due {
            let done = "UPDATE incoming.due SET done = 1 WHERE name = ?1 AND number = ?2";
            self.conn.execute(done, (table, of.number as i64)).doing(doing)?;
        }
        Ok(Some(report))
    }

    /// What is to be in a table by `now`, in the order of effect, if its rows are here; and whether
    /// it has been put there.
    pub(super) fn arrived(&self, table: &str, now: i64) -> Result<Vec<(DueChange, bool)>, CaptureError> {
        let doing = "looking what takes effect";
        let mut statement = self
            .conn
            .prepare_cached(
                "SELECT next, number, at, version, done FROM incoming.due WHERE name = ?1 AND at <= ?2 ORDER BY at, number",
            )
            .doing(doing)?;
        let due = statement
            .query_map((table, now), |row| {
                let change = DueChange {
                    table: table.to_owned(),
                    next: row.get(0)?,
                    number: row.get::<_, i64>(1)?.unsigned_abs(),
                    at_micros: row.get(2)?,
                    version: seq(row.get(3)?),
                };
                Ok((change, row.get(4)?))
            })
            .doing(doing)?;
        let due: Vec<(DueChange, bool)> = due.collect::<Result<_, _>>().doing(doing)?;
        let mut arrived = Vec::with_capacity(due.len());
        for of in due {
            let next = applied(&self.conn, &of.0.next)?;
            if next.is_some_and(|next| next.table.version >= of.0.version) {
                arrived.push(of);
            }
        }
        Ok(arrived)
    }

    /// Adds rows that are due to others: with their keys, they take their place.
    pub(super) fn lay_over(&self, rows: &Rows<'_>, due: &[(DueChange, bool)]) -> Result<(), CaptureError> {
        let doing = "putting rows into effect";
        let (spec, source) = (rows.spec, &rows.source);
        for (of, _) in due {
            let has = applied(&self.conn, &of.next)?.map(|next| next.spec.columns).unwrap_or_default();
            let columns = quoted(spec.columns.iter().map(|(name, _)| name));
            let keys = quoted(&spec.key);
            let same_key = keys.iter().map(|key| format!("t.{key} = n.{key}")).collect::<Vec<_>>().join(" AND ");
            // A column that the table got since stays as it is.
            let values = spec.columns.iter().map(|(name, _)| match has.iter().any(|(known, _)| known == name) {
                true => format!("n.{}", quote(name)),
                false => format!("(SELECT t.{} FROM main.{} t WHERE {same_key})", quote(name), quote(&spec.name)),
            });
            let (next, values) = (quote(&of.next), values.collect::<Vec<_>>().join(","));
            self.conn
                .execute(
                    &format!(
                        "INSERT OR REPLACE INTO {source} (_op, {0}) SELECT 'D', {0} FROM main.{next}
                         WHERE scheduled_as = ?1 AND is_gone",
                        keys.join(",")
                    ),
                    [of.number as i64],
                )
                .doing(doing)?;
            self.conn
                .execute(
                    &format!(
                        "INSERT OR REPLACE INTO {source} (_op, {}) SELECT 'U', {values} FROM main.{next} n
                         WHERE n.scheduled_as = ?1 AND NOT n.is_gone",
                        columns.join(",")
                    ),
                    [of.number as i64],
                )
                .doing(doing)?;
        }
        Ok(())
    }
}
