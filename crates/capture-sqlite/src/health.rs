//! Whether capture is what it was: triggers, tables, columns. And mending it.

use rollcall_capture::Health;
use rollcall_types::{LoadReason, describe};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{
    error::{CaptureError, Doing},
    file::StoreFile,
    install::{self, captured_layouts, create_triggers, lay_out, present_triggers},
    layout::Layout,
    load::{self, Kind},
    schema::schema_version,
    shape::Shape,
    triggers::{self, Form},
};

/// Compares every captured table with its layout and triggers, and mends what differs. One that
/// cannot be looked at is a problem of its own.
///
/// `schema_changed` says that the file's schema version moved since the last check, which VACUUM
/// does too. `version` is the schema version at which this begins, and then the one to which
/// mending brought it. Whoever finds another one in the file afterwards knows that somebody else
/// changed the schema meanwhile, and that what was found may be outdated; nothing is mended by it
/// then.
pub(crate) fn check_tables(
    file: &mut StoreFile,
    schema_changed: bool,
    version: &mut i64,
) -> Result<Health, CaptureError> {
    let mut health = Health::default();
    for layout in captured_layouts(file.reader()?)? {
        match check_table(file, &layout, schema_changed, version, &mut health) {
            Err(error @ CaptureError::NoSuchTable { .. }) => {
                let table = &layout.table;
                let text = format!(
                    "{}; if it is gone for good, end its capture: `rollcall-site detach --table {table}`, or at HQ `rollcall settings set \
                     NAME --stop {table} --to \"site.id = 'SITE'\"`",
                    describe(&error)
                );
                health.note(table, text);
            }
            Err(error) if error.is_of_one_table() => health.note(&layout.table, describe(&error)),
            other => other?,
        }
    }
    Ok(health)
}

fn check_table(
    file: &mut StoreFile,
    layout: &Layout,
    schema_changed: bool,
    version: &mut i64,
    health: &mut Health,
) -> Result<(), CaptureError> {
    let table = &layout.table;
    let conn = file.reader()?;
    let shape = Shape::read(conn, table)?;
    let present = present_triggers(conn, table)?;
    let is_overtaken = install::is_overtaken(conn, table)?;
    let sorted = |form| -> Result<Vec<triggers::Trigger>, CaptureError> {
        let mut triggers = triggers::triggers(&shape, layout, form)?;
        triggers.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(triggers)
    };
    let is_gone = |name: &&String| !shape.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    let excluded: Vec<String> = layout.excluded.iter().filter(|name| !is_gone(name)).cloned().collect();
    let now = Layout::of(layout.number, &shape, &excluded)?;
    // The triggers of a layout name its columns: they can be written only while these are there.
    let is_same = now.same_columns(layout);
    let is_whole = is_same && present == sorted(Form::Present)?;
    if is_whole && !is_overtaken {
        if schema_changed && shape.is_renumbered_by_vacuum() {
            state(&mut file.writer()?, layout, LoadReason::Vacuum, health)?;
        }
        return Ok(());
    }
    let mut conn = file.writer()?;
    let Some(transaction) = mending(&mut conn, *version)? else { return Ok(()) };
    if is_same {
        let was_first = present == sorted(Form::First)? && triggers::first_form_captures(table);
        let reason = match (is_whole || was_first, is_overtaken) {
            (true, true) => Some(LoadReason::TriggerOrder),
            (true, false) => None,
            (false, _) => Some(LoadReason::Triggers),
        };
        create_triggers(&transaction, &shape, layout)?;
        if let Some(reason) = reason {
            load::begin(&transaction, layout, Kind::State, reason)?;
            health
                .mended
                .push(format!("table {table:?}: {reason}; they are made again, and all rows are stated again"));
        }
        return mended(transaction, version);
    }
    // Missing triggers, or a column that is not merely new: what happened meanwhile is unknown, so
    // all rows are stated again.
    let is_kept = present.len() == triggers::COUNT && !is_overtaken;
    let new = lay_out(&transaction, &shape, &excluded)?;
    let (kind, reason) = match (is_kept, columns_added(layout, &now)) {
        (true, true) => (Kind::Restate, LoadReason::Columns),
        (true, false) => (Kind::State, LoadReason::Columns),
        (false, _) => (Kind::State, LoadReason::Triggers),
    };
    load::begin(&transaction, &new, kind, reason)?;
    health.mended.push(format!("table {table:?}: {reason}; rows are stated again"));
    mended(transaction, version)
}

/// A transaction that mends what was found at this version of the schema; none if it is another by
/// now.
fn mending(conn: &mut Connection, version: i64) -> Result<Option<Transaction<'_>>, CaptureError> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing("mending capture")?;
    Ok((schema_version(&transaction)? == version).then_some(transaction))
}

/// Commits what was mended, and says which version of the schema that is.
fn mended(transaction: Transaction<'_>, version: &mut i64) -> Result<(), CaptureError> {
    let now = schema_version(&transaction)?;
    transaction.commit().doing("mending capture")?;
    *version = now;
    Ok(())
}

/// Begins to state a table's rows again.
pub(crate) fn state(
    conn: &mut Connection,
    layout: &Layout,
    reason: LoadReason,
    health: &mut Health,
) -> Result<(), CaptureError> {
    let doing = "mending capture";
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    load::begin(&transaction, layout, Kind::State, reason)?;
    transaction.commit().doing(doing)?;
    health.mended.push(format!("table {:?}: {reason}; all rows are stated again", layout.table));
    Ok(())
}

/// Whether `now` only adds columns at the end, under the same key.
fn columns_added(before: &Layout, now: &Layout) -> bool {
    before.key == now.key && now.columns.starts_with(&before.columns)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use rollcall_capture::{LoadProgress, Source, TableSpec};

    use crate::{SqliteSource, shape::quote};

    /// A program alters its table while the agent looks at it: whatever the moment, the columns are
    /// captured in the end.
    #[test]
    fn columns_that_come_while_capture_is_checked_are_not_overlooked() {
        for round in 0..10 {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("pos.sqlite");
            let conn = Connection::open(&path).expect("opens");
            let sql = "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, v)";
            conn.execute_batch(sql).expect("creates");
            let mut source = SqliteSource::open(&path).expect("opens");
            let spec = TableSpec { table: "t".to_owned(), excluded: Vec::new() };
            source.install(&[spec], "journal").expect("installs");
            source.check().expect("checks");
            std::thread::scope(|scope| {
                let altering = scope.spawn(|| {
                    let conn = Connection::open(&path).expect("opens");
                    conn.busy_timeout(std::time::Duration::from_secs(10)).expect("waits");
                    for column in 0..8 {
                        let sql = format!("ALTER TABLE t ADD COLUMN c{column}; INSERT INTO t (c{column}) VALUES (1)");
                        conn.execute_batch(&sql).expect("alters");
                    }
                });
                while !altering.is_finished() {
                    // A file that is busy is looked at again.
                    let _ = source.check();
                }
            });
            let health = source.check().expect("checks");
            assert!(health.is_ok(), "{health:?}");
            let layouts = captured_layouts(&conn).expect("reads");
            let columns: Vec<&str> = layouts[0].columns.iter().map(|column| column.name.as_str()).collect();
            assert_eq!(columns.len(), 10, "round {round}: {columns:?}");
        }
    }

    /// A fleet is updated: what earlier triggers captured well is not sent again, what they did not
    /// is.
    #[test]
    fn triggers_of_the_first_form_are_made_anew_and_nothing_is_stated_that_was_captured() {
        for (table, mended) in [("t", 0), ("old", 1), ("NEW", 1)] {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("pos.sqlite");
            let conn = Connection::open(&path).expect("opens");
            conn.execute_batch(&format!("CREATE TABLE {} (id INTEGER PRIMARY KEY, v)", quote(table))).expect("creates");
            let mut source = SqliteSource::open(&path).expect("opens");
            let spec = TableSpec { table: table.to_owned(), excluded: Vec::new() };
            source.install(&[spec], "journal").expect("installs");
            while source.load_step().expect("loads") != LoadProgress::Idle {}
            let layout = captured_layouts(&conn).expect("reads").remove(0);
            let shape = Shape::read(&conn, table).expect("reads");
            for trigger in triggers::triggers(&shape, &layout, Form::First).expect("writes") {
                let sql = format!("DROP TRIGGER {}; {}", quote(&trigger.name), trigger.sql);
                conn.execute_batch(&sql).expect("an earlier agent's");
            }
            let health = source.check().expect("checks");
            assert_eq!((health.problems.len(), health.mended.len()), (0, mended), "{table}: {health:?}");
            let present = present_triggers(&conn, table).expect("reads");
            assert!(present.iter().all(|trigger| trigger.sql.contains("_rollcall_row")), "{present:?}");
        }
    }
}
