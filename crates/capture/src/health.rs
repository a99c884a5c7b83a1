//! Whether capture is what it was: the file, the triggers, the tables. And mending it.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::{
    error::{CaptureError, Doing},
    install::{self, captured_layouts, create_triggers, lay_out, present_triggers},
    layout::Layout,
    load,
    shape::Shape,
    triggers,
};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// What is wrong now and was not mended, for people.
    pub problems: Vec<String>,
    /// What was found and mended, for the log.
    pub mended: Vec<String>,
}

impl Health {
    /// Whether every change is being captured.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Which file a path led to: a replaced file has another.
#[cfg(unix)]
pub(crate) fn file_identity(path: &Path) -> Result<(u64, u64), CaptureError> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).doing("looking at the database file")?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Which file a path led to: its time of creation is the best that is to be had here.
#[cfg(not(unix))]
pub(crate) fn file_identity(path: &Path) -> Result<(u64, u64), CaptureError> {
    let metadata = std::fs::metadata(path).doing("looking at the database file")?;
    let created = metadata.created().doing("looking at the database file")?;
    let since = created.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok((0, since.as_nanos() as u64))
}

/// Compares every captured table with its layout and triggers, and mends what differs.
///
/// `schema_changed` says that the file's schema version moved since the last check, which VACUUM does too.
pub(crate) fn check_tables(conn: &mut Connection, schema_changed: bool) -> Result<Health, CaptureError> {
    let mut health = Health::default();
    for layout in captured_layouts(conn)? {
        match Shape::read(conn, &layout.table) {
            Ok(shape) => check_table(conn, &layout, &shape, schema_changed, &mut health)?,
            Err(error @ (CaptureError::NoSuchTable(_) | CaptureError::Unsupported { .. })) => {
                health.problems.push(format!("{error}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(health)
}

fn check_table(
    conn: &mut Connection,
    layout: &Layout,
    shape: &Shape,
    schema_changed: bool,
    health: &mut Health,
) -> Result<(), CaptureError> {
    let doing = "mending capture";
    let present = present_triggers(conn, &layout.table)?;
    let mut expected = triggers::triggers(shape, layout)?;
    expected.sort_by(|left, right| left.name.cmp(&right.name));
    let whole = present == expected;
    let present_columns: Vec<String> =
        layout.excluded.iter().filter(|name| shape.columns.iter().any(|c| c.name == **name)).cloned().collect();
    let now = Layout::of(layout.number, shape, &present_columns)?;
    if whole && now.same_columns(layout) {
        if schema_changed && shape.is_renumbered_by_vacuum() {
            let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
            load::begin(&transaction, layout, load::Kind::State)?;
            transaction.commit().doing(doing)?;
            health.mended.push(format!(
                "table {:?} has no primary key and the file's schema changed (VACUUM?): it is loaded again",
                layout.table
            ));
        }
        return Ok(());
    }
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    let added = columns_added(layout, &now);
    // Missing triggers, or a column that is not merely new: what happened meanwhile is unknown, so state all rows again.
    let triggers_kept = present.len() == expected.len();
    if now.same_columns(layout) {
        create_triggers(&transaction, shape, layout)?;
        load::begin(&transaction, layout, load::Kind::State)?;
        health
            .mended
            .push(format!("triggers of table {:?} were missing or changed: restored, rows stated again", layout.table));
    } else {
        let new = lay_out(&transaction, shape, &present_columns)?;
        let kind = if triggers_kept && added { load::Kind::Restate } else { load::Kind::State };
        load::begin(&transaction, &new, kind)?;
        health.mended.push(format!("table {:?} changed its columns: rows are stated again", layout.table));
    }
    transaction.commit().doing(doing)
}

/// Whether `now` only adds columns at the end, under the same key.
fn columns_added(before: &Layout, now: &Layout) -> bool {
    before.key == now.key && now.columns.starts_with(&before.columns)
}

/// Rows that no trigger saw: the greatest row number in the table is beyond every journalled one.
///
/// Cheap, and finds what matters most (a writer that bypasses triggers keeps inserting); it cannot see bypassed updates.
pub(crate) fn find_bypassed(conn: &mut Connection, health: &mut Health) -> Result<(), CaptureError> {
    let doing = "looking for changes that bypassed capture";
    // Taken first: what is journalled while we look is looked at again next time.
    let head: i64 =
        conn.query_row("SELECT coalesce(max(seq), 0) FROM _rollcall_journal", [], |row| row.get(0)).doing(doing)?;
    for layout in captured_layouts(conn)? {
        let Ok(shape) = Shape::read(conn, &layout.table) else { continue };
        let Some(rowid) = shape.rowid else { continue };
        let [key] = layout.key.as_slice() else { continue };
        let is_rowid = key == rollcall_types::columns::ROWID || is_rowid_alias(conn, &shape, key)?;
        if !is_rowid {
            continue;
        }
        // The look may take a while and must not keep the store waiting; only its result is written under the lock.
        let transaction = conn.transaction().doing(doing)?;
        let greatest: Option<i64> = transaction
            .query_row(&format!("SELECT max({rowid}) FROM {}", crate::shape::quote(&layout.table)), [], |row| {
                row.get(0)
            })
            .doing(doing)?;
        let seen_key = format!("greatest:{}", layout.table);
        let mut seen: Option<i64> = install::meta_number(&transaction, &seen_key)?;
        let looked: i64 = install::meta_number(&transaction, "greatest_through")?.unwrap_or_default();
        for old in crate::layout::read_all(&transaction)?.iter().filter(|old| old.table == layout.table) {
            let journalled: Option<i64> = transaction
                .query_row(
                    &format!(
                        "SELECT max({}) FROM _rollcall_journal WHERE seq > ?1 AND t = ?2",
                        old.journal_column(key)?
                    ),
                    (looked, old.number),
                    |row| row.get(0),
                )
                .doing(doing)?;
            seen = seen.max(journalled);
        }
        let loading: bool = transaction
            .query_row("SELECT count(*) FROM _rollcall_load WHERE name = ?1", [&layout.table], |row| row.get(0))
            .doing(doing)?;
        transaction.commit().doing(doing)?;
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        if !loading && greatest > seen {
            load::begin(&transaction, &layout, load::Kind::State)?;
            health.mended.push(format!(
                "rows of table {:?} bypassed its triggers (newest row {}, newest captured {}): rows are stated again",
                layout.table,
                greatest.unwrap_or_default(),
                seen.unwrap_or_default()
            ));
        }
        if let Some(seen) = seen {
            install::set_meta(&transaction, &seen_key, seen)?;
        }
        transaction.commit().doing(doing)?;
    }
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    install::set_meta(&transaction, "greatest_through", head)?;
    transaction.commit().doing(doing)
}

fn is_rowid_alias(conn: &Connection, shape: &Shape, key: &str) -> Result<bool, CaptureError> {
    // Only `INTEGER PRIMARY KEY` is an alias of the row number; it has no index of its own.
    let declared = shape.columns.iter().find(|column| column.name == key).map(|column| column.declared.as_str());
    let indexed: bool = conn
        .query_row("SELECT count(*) FROM pragma_index_list(?1) WHERE origin = 'pk'", [&shape.name], |row| row.get(0))
        .doing("looking at a primary key")?;
    Ok(declared.is_some_and(|declared| declared.eq_ignore_ascii_case("INTEGER")) && !indexed)
}
