//! Rows of HQ's are written into the store's tables.

use std::time::{Duration, Instant};

use rollcall_capture::{IncomingTable, Report};
use rollcall_types::Seq;
use rusqlite::{Transaction, TransactionBehavior};

use super::{
    SqliteIncoming,
    applied::{Applied, digest_of, note_applied, note_differing},
    put::{Differing, Done, Put},
    spec::{declare, declared, equal_keys, exact_keys, has_null_key, key_text, on_keys, quoted},
};
use crate::{
    error::{CaptureError, Doing},
    shape::quote,
    shared,
};

/// A transaction that builds a new table aside takes about so long.
const BUILD_TARGET: Duration = Duration::from_millis(3);
/// Rows of the first one.
const BUILD_ROWS: i64 = 200;
/// After so many of them, what was written is moved out of the WAL.
const CHUNKS_PER_CHECKPOINT: u32 = 8;
/// The table that is built before it is renamed.
pub(super) const ASIDE: &str = "_rollcall_incoming";

/// Rows to be applied, each with an `_op`.
pub(super) struct Rows<'a> {
    /// The table that has them.
    pub(super) source: String,
    pub(super) spec: &'a IncomingTable,
    /// When HQ published it.
    pub(super) published_at: i64,
}

impl SqliteIncoming {
    /// Builds a table that the store does not have, aside, and renames it into place.
    pub(super) fn build(
        &mut self,
        staged: &Rows<'_>,
        version: Seq,
        known: Option<&Applied>,
    ) -> Result<Report, CaptureError> {
        let doing = "building one of HQ's tables";
        let mut report = Report::default();
        let spec = staged.spec;
        let columns = quoted(spec.columns.iter().map(|(name, _)| name)).join(",");
        self.conn
            .execute_batch(&format!(
                "DROP TABLE IF EXISTS main.{ASIDE}; CREATE TABLE main.{ASIDE} ({})",
                declare(spec, false)
            ))
            .doing(doing)?;
        let (mut after, mut rows, mut chunks) = (i64::MIN, BUILD_ROWS, 0);
        loop {
            let Some(last) = self.last_of_next(&staged.source, after, rows)? else { break };
            let began = Instant::now();
            let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
            let written = transaction
                .execute(
                    &format!(
                        "INSERT INTO main.{ASIDE} ({columns}) SELECT {columns} FROM {}
                         WHERE _rowid_ > ?1 AND _rowid_ <= ?2 AND _op <> 'D'",
                        staged.source
                    ),
                    (after, last),
                )
                .doing(doing)?;
            let took = began.elapsed();
            transaction.commit().doing(doing)?;
            report.written += written as u64;
            report.locked = report.locked.max(began.elapsed());
            chunks += 1;
            if chunks % CHUNKS_PER_CHECKPOINT == 0 {
                self.checkpoint("main");
            }
            // Half of the time is the store's own.
            std::thread::sleep(began.elapsed().min(Duration::from_millis(50)));
            after = last;
            let scale = BUILD_TARGET.as_secs_f64() / took.as_secs_f64().max(1e-5);
            rows = ((rows as f64 * scale.clamp(0.5, 2.0)) as i64).clamp(20, 20_000);
        }
        let digest = digest_of(&self.conn, &format!("SELECT {columns} FROM main.{ASIDE}"))?;
        let began = Instant::now();
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        transaction.execute_batch(&format!("ALTER TABLE main.{ASIDE} RENAME TO {}", quote(&spec.name))).doing(doing)?;
        if spec.shared {
            shared::share(&transaction, spec)?;
            // Edits of a table that was dropped since.
            shared::hold(&transaction, spec, &staged.source, true)?;
        }
        note_differing(&transaction, &spec.name, None, &Differing::default())?;
        // Where it was there before, somebody took it away, with all its rows.
        let edits = known.map_or(0, |known| known.table.edits + report.written.max(1));
        note_applied(&transaction, staged, version, digest, true, edits)?;
        transaction.commit().doing(doing)?;
        report.locked = report.locked.max(began.elapsed());
        Ok(report)
    }

    /// Where the next `rows` staged rows behind `after` end; none if there are none.
    fn last_of_next(&self, source: &str, after: i64, rows: i64) -> Result<Option<i64>, CaptureError> {
        let sql = format!(
            "SELECT max(place) FROM (SELECT _rowid_ AS place FROM {source} WHERE _rowid_ > ?1 ORDER BY 1 LIMIT ?2)"
        );
        self.conn.query_row(&sql, (after, rows), |row| row.get(0)).doing("reading staged rows of one of HQ's tables")
    }

    /// Finds, in two temporary tables, the rows that are staged and not so in the table
    /// (`_rollcall_up`), and the keys of those that are in the table alone (`_rollcall_gone`).
    pub(super) fn find_differing(&self, staged: &Rows<'_>, missing: &[&(String, String)]) -> Result<(), CaptureError> {
        let Rows { source: rows, spec, .. } = staged;
        let table = format!("main.{}", quote(&spec.name));
        let columns = quoted(spec.columns.iter().map(|(name, _)| name));
        let keys = quoted(&spec.key);
        // A column that the table lacks is given to it later; nothing in it can be equal yet.
        let is_same: Vec<String> = spec
            .columns
            .iter()
            .map(|column| match missing.contains(&column) {
                true => format!("r.{} IS NULL", quote(&column.0)),
                false => format!("t.{0} COLLATE BINARY IS r.{0}", quote(&column.0)),
            })
            .collect();
        let same_key = on_keys(&keys);
        self.conn
            .execute_batch(&format!(
                "DROP TABLE IF EXISTS temp._rollcall_up; DROP TABLE IF EXISTS temp._rollcall_gone;
                 CREATE TEMP TABLE _rollcall_up AS SELECT {} FROM {rows} r WHERE r._op <> 'D'
                     AND NOT EXISTS (SELECT 1 FROM {table} t WHERE {same_key} AND {});
                 CREATE TEMP TABLE _rollcall_gone AS SELECT {} FROM {table} t
                     WHERE NOT EXISTS (SELECT 1 FROM {rows} r WHERE {} AND r._op <> 'D');",
                columns.iter().map(|name| format!("r.{name}")).collect::<Vec<_>>().join(","),
                is_same.join(" AND "),
                keys.iter().map(|name| format!("t.{name}")).collect::<Vec<_>>().join(","),
                equal_keys("t", "r", spec),
            ))
            .doing("comparing one of HQ's tables")
    }

    /// Makes a table that is there equal to what is staged. What differs is found before anything
    /// is locked.
    pub(super) fn replace(
        &mut self,
        staged: &Rows<'_>,
        version: Seq,
        known: Option<&Applied>,
        missing: &[&(String, String)],
        mending: bool,
    ) -> Result<Report, CaptureError> {
        let doing = "comparing one of HQ's tables";
        let spec = staged.spec;
        let rows = staged.source.clone();
        let table = format!("main.{}", quote(&spec.name));
        let columns = quoted(spec.columns.iter().map(|(name, _)| name));
        let keys = quoted(&spec.key);
        self.find_differing(staged, missing)?;
        let digest = digest_of(&self.conn, &format!("SELECT {} FROM {rows} WHERE _op <> 'D'", columns.join(",")))?;
        let differing: i64 = self
            .conn
            .query_row(
                "SELECT (SELECT count(*) FROM temp._rollcall_up) + (SELECT count(*) FROM temp._rollcall_gone)",
                [],
                |row| row.get(0),
            )
            .doing(doing)?;
        // Something was changed here, though it may be as HQ has it by now.
        let mended = if mending { differing.unsigned_abs().max(1) } else { 0 };
        let edits = known.map_or(0, |known| known.table.edits) + mended;
        let is_null = has_null_key(spec);
        let nulls: bool = self
            .conn
            .query_row(&format!("SELECT count(*) > 0 FROM temp._rollcall_gone WHERE {is_null}"), [], |row| row.get(0))
            .doing(doing)?;
        let made = known.is_some_and(|known| known.made);
        let doing = "applying one of HQ's tables";
        let began = Instant::now();
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        add_columns(&transaction, &spec.name, missing)?;
        share_or_not(&transaction, spec, known)?;
        shared::begin(&transaction, spec)?;
        let free = shared::is_settled(spec, "r");
        let put = Put { spec, rows: "temp._rollcall_up", come: free.clone(), keys: "temp._rollcall_gone", go: free };
        let Done { written, removed, differing } = put.execute(&transaction)?;
        let removed = match nulls {
            true => removed + transaction.execute(&format!("DELETE FROM {table} WHERE {is_null}"), []).doing(doing)?,
            false => removed,
        };
        shared::hold(&transaction, spec, &rows, true)?;
        shared::end(&transaction, spec)?;
        // What the store has in the place of what was written is what is looked for from now on.
        let own = exact_keys(spec);
        let there = |source: &str| {
            let (columns, keys) = (columns.join(","), keys.join(","));
            format!("SELECT {columns} FROM {table} WHERE ({own}) IN (SELECT {keys} FROM {source})")
        };
        let sent = digest_of(&transaction, &format!("SELECT {} FROM temp._rollcall_up", columns.join(",")))?;
        let has = digest_of(&transaction, &there("temp._rollcall_up"))?;
        let stays = digest_of(&transaction, &there("temp._rollcall_gone"))?;
        let digest = digest.wrapping_sub(sent).wrapping_add(has).wrapping_add(stays);
        note_differing(&transaction, &spec.name, None, &differing)?;
        note_applied(&transaction, staged, version, digest, made, edits)?;
        transaction.commit().doing(doing)?;
        let locked = began.elapsed();
        self.conn.execute_batch("DROP TABLE temp._rollcall_up; DROP TABLE temp._rollcall_gone").doing(doing)?;
        Ok(Report { written: written as u64, removed: removed as u64, locked })
    }

    /// Changes the rows that are staged.
    pub(super) fn change(
        &mut self,
        staged: &Rows<'_>,
        version: Seq,
        known: Option<&Applied>,
        missing: &[&(String, String)],
    ) -> Result<Report, CaptureError> {
        let doing = "applying a change of one of HQ's tables";
        let spec = staged.spec;
        let known = known.ok_or_else(|| CaptureError::Damaged(format!("nothing of {} is applied yet", spec.name)))?;
        let rows = staged.source.clone();
        let table = format!("main.{}", quote(&spec.name));
        let columns = quoted(spec.columns.iter().map(|(name, _)| name));
        let keys = quoted(&spec.key);
        // Each once, also where the store takes two keys of HQ's for one.
        let touched = format!(
            "SELECT {} FROM {table} WHERE ({1}) IN (SELECT {1} FROM {rows})",
            columns.join(","),
            keys.join(",")
        );
        let began = Instant::now();
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        add_columns(&transaction, &spec.name, missing)?;
        // A column that is added is null in every row: that does not change the digest.
        let before = digest_of(&transaction, &touched)?;
        share_or_not(&transaction, spec, Some(known))?;
        shared::begin(&transaction, spec)?;
        let free = shared::is_settled(spec, "r");
        let (come, go) = (format!("r._op <> 'D' AND {free}"), format!("r._op = 'D' AND {free}"));
        let put = Put { spec, rows: &rows, come, keys: &rows, go };
        let Done { written, removed, differing } = put.execute(&transaction)?;
        let touched_keys = format!("SELECT {} FROM {rows}", key_text(spec, ""));
        note_differing(&transaction, &spec.name, Some(&touched_keys), &differing)?;
        shared::hold(&transaction, spec, &rows, false)?;
        shared::end(&transaction, spec)?;
        let digest = known.digest.wrapping_sub(before).wrapping_add(digest_of(&transaction, &touched)?);
        note_applied(&transaction, staged, version, digest, known.made, known.table.edits)?;
        transaction.commit().doing(doing)?;
        Ok(Report { written: written as u64, removed: removed as u64, locked: began.elapsed() })
    }
}

/// Watches a table that is shared, and not one that is no more.
fn share_or_not(
    transaction: &Transaction<'_>,
    spec: &IncomingTable,
    known: Option<&Applied>,
) -> Result<(), CaptureError> {
    if spec.shared {
        return shared::share(transaction, spec);
    }
    match known {
        Some(known) if known.spec.shared => shared::unshare(transaction, spec),
        _ => Ok(()),
    }
}

fn add_columns(transaction: &Transaction<'_>, table: &str, missing: &[&(String, String)]) -> Result<(), CaptureError> {
    for (name, kind) in missing {
        transaction
            .execute_batch(&format!("ALTER TABLE main.{} ADD COLUMN {} {}", quote(table), quote(name), declared(kind)))
            .doing("adding a column to one of HQ's tables")?;
    }
    Ok(())
}
