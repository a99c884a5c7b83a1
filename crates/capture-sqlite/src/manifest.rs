//! Counts what was journalled and journals the count, so that "the link is fine and nothing was
//! sold" can be told from "the link is fine and nothing is captured".

use std::collections::HashMap;

use rollcall_types::{Manifest, Stated};
use rusqlite::{Connection, TransactionBehavior};

use crate::{
    error::{CaptureError, Doing},
    file::StoreFile,
    install::{self, captured_layouts},
    layout::{self, Layout},
    load::{journal_log, log_op},
    read::{self, from_sql, to_sql},
    shape::{Shape, quote},
};

const THROUGH: &str = "manifest_through";

/// Journals a manifest of everything behind the last one. Counts in a read snapshot, which no
/// writer waits for; the write itself is one row.
pub(crate) fn write(file: &mut StoreFile) -> Result<Manifest, CaptureError> {
    let manifest = count(file.reader()?)?;
    let mut conn = file.writer()?;
    let tables = manifest.tables_json().map_err(|error| CaptureError::Damaged(error.to_string()))?;
    let doing = "journalling a manifest";
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    let (after, through) = (to_sql(manifest.after), to_sql(manifest.through));
    journal_log(&transaction, log_op::MANIFEST, (&after, &through, &tables))?;
    install::set_meta(&transaction, THROUGH, through)?;
    transaction.commit().doing(doing)?;
    Ok(manifest)
}

fn count(conn: &Connection) -> Result<Manifest, CaptureError> {
    let doing = "counting for a manifest";
    let snapshot = conn.unchecked_transaction().doing(doing)?;
    let (oldest, newest) = read::ends(&snapshot)?;
    let (oldest, newest) = (to_sql(oldest), to_sql(newest));
    let before = install::meta_number(&snapshot, THROUGH)?.unwrap_or_default();
    // What was pruned cannot be counted any more; it was confirmed.
    let after = before.max(oldest - 1).min(newest);
    let layouts = layout::read_all(&snapshot)?;
    let tables_of: HashMap<i64, &String> = layouts.iter().map(|layout| (layout.number, &layout.table)).collect();
    let mut counted: HashMap<&str, u64> = HashMap::new();
    let mut statement = snapshot
        .prepare_cached("SELECT t, count(*) FROM _rollcall_journal WHERE seq > ?1 AND seq <= ?2 GROUP BY t")
        .doing(doing)?;
    let mut rows = statement.query((after, newest)).doing(doing)?;
    while let Some(row) = rows.next().doing(doing)? {
        // The journal's own entries have a layout of no table.
        if let Some(table) = tables_of.get(&row.get(0).doing(doing)?) {
            let rows: i64 = row.get(1).doing(doing)?;
            *counted.entry(table).or_default() += rows.unsigned_abs();
        }
    }
    let state = |captured: Layout| {
        let rows = counted.get(captured.table.as_str()).copied().unwrap_or_default();
        let (last_key, gone) = (last_key(&snapshot, &captured.table)?, captured.lost_since(&layouts));
        Ok(Stated { rows, last_key, gone, left_out: captured.excluded, table: captured.table })
    };
    let uncaptured = uncaptured(&snapshot)?;
    let tables = captured_layouts(&snapshot)?.into_iter().map(state).collect::<Result<_, CaptureError>>()?;
    Ok(Manifest { after: from_sql(after), through: from_sql(newest), tables, uncaptured })
}

/// More tables than this are not named.
const UNCAPTURED_MAX: usize = 1000;

/// The store's own tables that are not captured. Views and virtual tables have no rows of their
/// own.
pub(crate) fn uncaptured(conn: &Connection) -> Result<Vec<String>, CaptureError> {
    let captured = captured_layouts(conn)?;
    let doing = "listing tables that are not captured";
    let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
               AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_rollcall\\_%' ESCAPE '\\' ORDER BY name";
    let mut statement = conn.prepare(sql).doing(doing)?;
    let names = statement.query_map([], |row| row.get::<_, String>(0)).doing(doing)?;
    let names: Vec<String> = names.collect::<Result<_, _>>().doing(doing)?;
    let is_captured = |name: &String| captured.iter().any(|layout| layout.table == *name);
    Ok(names.into_iter().filter(|name| !is_captured(name)).take(UNCAPTURED_MAX).collect())
}

/// The largest row number; none when the table is empty, gone, or has no row numbers.
fn last_key(conn: &Connection, table: &str) -> Result<Option<i64>, CaptureError> {
    let Ok(shape) = Shape::read(conn, table) else { return Ok(None) };
    let Some(rowid) = shape.rowid else { return Ok(None) };
    let greatest = conn.query_row(&format!("SELECT max({rowid}) FROM main.{}", quote(table)), [], |row| row.get(0));
    match greatest.doing("counting for a manifest") {
        // It is said of the table elsewhere; the others are counted all the same.
        Err(error) if error.is_of_one_table() => Ok(None),
        other => other,
    }
}
