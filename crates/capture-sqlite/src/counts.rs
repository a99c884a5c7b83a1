//! Compares how many rows a table has with how many were captured: what passes by the triggers is
//! found by it, however the table is keyed and however busy it is.
//!
//! A count is taken once a load is complete. From then on every `I` is a row more and every `D` one
//! less. It cannot see an update that passes by, nor as many inserts as deletes. Rows with null in
//! the key are left out on both sides: they stand for one another, so that the end of one is not
//! journalled while another is there, and HQ takes none of them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rollcall_capture::Health;
use rollcall_types::LoadReason;
use rusqlite::Connection;

use crate::{
    error::{CaptureError, Doing},
    file::StoreFile,
    health,
    install::{self, captured_layouts},
    layout::{self, Layout},
    read::{self, to_sql},
    shape::quote,
};

/// How often a table is counted at most.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// Counting takes one part in so many of the time.
const COUNT_SHARE: u32 = 1000;

/// When each table is counted next.
#[derive(Debug, Default)]
pub(crate) struct Counts(HashMap<String, Instant>);

/// A table's rows in one snapshot.
struct Counted {
    rows: i64,
    /// The journal's newest position then.
    head: i64,
    /// How many there should be; none if that is not known.
    expected: Option<i64>,
    /// Whether the count is to be noted, as the one to go on from.
    is_new: bool,
}

impl Counts {
    /// Counts what is due, or with `all` everything; begins to state a table again that has another
    /// number of rows than it should.
    pub(crate) fn check(&mut self, file: &mut StoreFile, all: bool, health: &mut Health) -> Result<(), CaptureError> {
        let doing = "counting rows";
        for layout in captured_layouts(file.reader()?)? {
            let table = layout.table.clone();
            if !all && self.0.get(&table).is_some_and(|due| *due > Instant::now()) {
                continue;
            }
            let started = Instant::now();
            let counted = match count(file.reader()?, &layout) {
                // The check of the table says so.
                Err(error) if error.is_of_one_table() => None,
                other => other?,
            };
            self.0.insert(table.clone(), Instant::now() + COUNT_EVERY.max(started.elapsed() * COUNT_SHARE));
            let Some(counted) = counted else { continue };
            match counted.expected {
                Some(expected) if expected != counted.rows => {
                    tracing::error!(table, expected, rows = counted.rows, "changes passed by the triggers");
                    health::state(&mut file.writer()?, &layout, LoadReason::Bypassed, health)?;
                }
                _ if counted.is_new => {
                    let conn = file.writer()?;
                    let transaction = conn.unchecked_transaction().doing(doing)?;
                    install::set_meta(&transaction, &format!("counted:{table}"), counted.rows)?;
                    install::set_meta(&transaction, &format!("counted_at:{table}"), counted.head)?;
                    transaction.commit().doing(doing)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Forgets how many rows a table had: it is being stated again.
pub(crate) fn forget(conn: &Connection, table: &str) -> Result<(), CaptureError> {
    conn.execute("DELETE FROM _rollcall_meta WHERE k IN ('counted:' || ?1, 'counted_at:' || ?1)", [table])
        .doing("forgetting a count")?;
    Ok(())
}

fn count(conn: &Connection, layout: &Layout) -> Result<Option<Counted>, CaptureError> {
    let doing = "counting rows";
    let table = &layout.table;
    let snapshot = conn.unchecked_transaction().doing(doing)?;
    let is_loading: bool = snapshot
        .query_row("SELECT count(*) FROM _rollcall_load WHERE name = ?1", [table], |row| row.get(0))
        .doing(doing)?;
    if is_loading {
        return Ok(None);
    }
    let (oldest, head) = read::ends(&snapshot)?;
    let (oldest, head) = (to_sql(oldest), to_sql(head));
    let from = format!("SELECT count(*) FROM main.{}", quote(table));
    // Subtracted, since a count of all rows is quick, and SQLite knows of most keys that they are
    // never null.
    let is_named = |name: &&String| *name != rollcall_types::columns::ROWID;
    let is_null = |name: &String| format!("{}.{} IS NULL", quote(table), quote(name));
    let nulls: Vec<String> = layout.key.iter().filter(is_named).map(is_null).collect();
    let sql = match nulls.is_empty() {
        true => from,
        false => format!("SELECT ({from}) - ({from} WHERE {})", nulls.join(" OR ")),
    };
    let rows: i64 = snapshot.query_row(&sql, [], |row| row.get(0)).doing(doing)?;
    let known = install::meta_number(&snapshot, &format!("counted:{table}"))?;
    let known_at = install::meta_number(&snapshot, &format!("counted_at:{table}"))?;
    // What was pruned cannot be added up; the count begins anew.
    let Some((known, at)) = known.zip(known_at).filter(|(_, at)| *at >= oldest - 1 && *at <= head) else {
        return Ok(Some(Counted { rows, head, expected: None, is_new: true }));
    };
    let mut expected = known;
    for layout in layout::read_all(&snapshot)?.iter().filter(|layout| layout.table == *table) {
        let mut sql = "SELECT coalesce(sum(CASE op WHEN 'I' THEN 1 WHEN 'D' THEN -1 ELSE 0 END), 0)
             FROM _rollcall_journal WHERE seq > ?1 AND t = ?2"
            .to_owned();
        for name in &layout.key {
            sql.push_str(&format!(" AND {} IS NOT NULL", layout.journal_column(name)?));
        }
        let change: i64 = snapshot.query_row(&sql, (at, layout.number), |row| row.get(0)).doing(doing)?;
        expected += change;
    }
    Ok(Some(Counted { rows, head, expected: Some(expected), is_new: head > at }))
}
