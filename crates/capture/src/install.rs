//! Puts the journal and its triggers into the store's database, and takes them out again.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::{
    error::{CaptureError, Doing},
    layout::{self, Layout},
    load,
    shape::{Shape, quote},
    triggers::{self, Trigger},
};

/// One table to capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    /// Its name in the store's database; case does not matter.
    pub table: String,
    /// Columns never to be journalled.
    pub excluded: Vec<String>,
}

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS _rollcall_journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, t, op, at, c0, c1, c2);
    CREATE TABLE IF NOT EXISTS _rollcall_noted (t, k0);
    CREATE TABLE IF NOT EXISTS _rollcall_layout (t INTEGER PRIMARY KEY, definition TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS _rollcall_load (
        name TEXT PRIMARY KEY, kind TEXT NOT NULL, t INTEGER NOT NULL, begin INTEGER NOT NULL, position TEXT);
    CREATE TABLE IF NOT EXISTS _rollcall_meta (k TEXT PRIMARY KEY, v);";

pub(crate) fn is_installed(conn: &Connection) -> Result<bool, CaptureError> {
    conn.query_row("SELECT count(*) FROM sqlite_master WHERE name = '_rollcall_meta'", [], |row| row.get(0))
        .doing("looking for the journal")
}

/// Installs capture of `specs`. Tables captured before stay captured; their rows are loaded again only if columns of them
/// were excluded and are not any more.
pub(crate) fn install(conn: &mut Connection, specs: &[TableSpec], journal_id: &str) -> Result<(), CaptureError> {
    let doing = "installing the journal";
    let shapes = specs.iter().map(|spec| Shape::read(conn, &spec.table)).collect::<Result<Vec<_>, _>>()?;
    let captured_before = if is_installed(conn)? { captured_layouts(conn)? } else { Vec::new() };
    for (index, shape) in shapes.iter().enumerate() {
        let at_hq = rollcall_types::TableName::at_hq(&shape.name)
            .map_err(|error| CaptureError::Usage(format!("table {:?}: {error}", shape.name)))?;
        let others = shapes[..index].iter().map(|other| &other.name);
        let twin = others.chain(captured_before.iter().map(|layout| &layout.table)).find(|other| {
            **other != shape.name && rollcall_types::TableName::at_hq(other).is_ok_and(|other| other == at_hq)
        });
        if let Some(twin) = twin {
            return Err(CaptureError::Usage(format!(
                "tables {twin:?} and {:?} would both be called {at_hq} at HQ",
                shape.name
            )));
        }
    }
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    transaction.execute_batch(TABLES).doing(doing)?;
    transaction
        .execute("INSERT OR IGNORE INTO _rollcall_meta (k, v) VALUES ('journal_id', ?1)", [journal_id])
        .doing(doing)?;
    let captured = captured_layouts(&transaction)?;
    for (spec, shape) in specs.iter().zip(&shapes) {
        let known = captured.iter().find(|layout| layout.table == shape.name);
        if known.is_some_and(|layout| same_names(&layout.excluded, &spec.excluded)) {
            continue;
        }
        let layout = lay_out(&transaction, shape, &spec.excluded)?;
        // What a column holds that was excluded until now, HQ never heard.
        let has_column = |name: &String| shape.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        let is_wider = known.is_some_and(|known| {
            let mut were = known.excluded.iter().filter(|name| has_column(name));
            were.any(|name| !spec.excluded.iter().any(|other| other.eq_ignore_ascii_case(name)))
        });
        if known.is_none() || is_wider || load::is_loading(&transaction, &layout.table)? {
            load::begin(&transaction, &layout, load::Kind::State)?;
        }
    }
    transaction.commit().doing(doing)
}

/// Whether the table is there and can be captured with these exclusions.
pub(crate) fn check(conn: &Connection, spec: &TableSpec) -> Result<(), CaptureError> {
    let shape = Shape::read(conn, &spec.table)?;
    triggers::triggers(&shape, &Layout::of(0, &shape, &spec.excluded)?)?;
    Ok(())
}

fn same_names(left: &[String], right: &[String]) -> bool {
    left.len() == right.len() && left.iter().all(|name| right.iter().any(|other| other.eq_ignore_ascii_case(name)))
}

/// Gives the table a new layout and (re)creates its triggers for it.
pub(crate) fn lay_out(
    transaction: &Transaction<'_>,
    shape: &Shape,
    excluded: &[String],
) -> Result<Layout, CaptureError> {
    let number: i64 = transaction
        .query_row("SELECT coalesce(max(t), 0) + 1 FROM _rollcall_layout", [], |row| row.get(0))
        .doing("numbering a layout")?;
    let layout = Layout::of(number, shape, excluded)?;
    widen(transaction, "_rollcall_journal", "c", layout.columns.len())?;
    widen(transaction, "_rollcall_noted", "k", layout.key.len())?;
    layout::write(transaction, &layout)?;
    create_triggers(transaction, shape, &layout)?;
    set_captured(transaction, &layout)?;
    Ok(layout)
}

/// Drops what triggers of ours the table has and creates those of `layout`.
pub(crate) fn create_triggers(
    transaction: &Transaction<'_>,
    shape: &Shape,
    layout: &Layout,
) -> Result<(), CaptureError> {
    let doing = "creating triggers";
    for trigger in triggers::triggers(shape, layout)? {
        transaction.execute_batch(&format!("DROP TRIGGER IF EXISTS {}", quote(&trigger.name))).doing(doing)?;
        transaction.execute_batch(&trigger.sql).doing(doing)?;
    }
    Ok(())
}

/// Adds columns `{prefix}N` until there are `count`.
fn widen(conn: &Connection, table: &str, prefix: &str, count: usize) -> Result<(), CaptureError> {
    let doing = "widening the journal";
    let have: i64 = conn
        .query_row(
            "SELECT count(*) FROM pragma_table_info(?1) WHERE name GLOB ?2",
            [table, &format!("{prefix}[0-9]*")],
            |row| row.get(0),
        )
        .doing(doing)?;
    for index in usize::try_from(have).unwrap_or_default()..count {
        conn.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {prefix}{index}")).doing(doing)?;
    }
    Ok(())
}

/// The layout each captured table has now.
pub(crate) fn captured_layouts(conn: &Connection) -> Result<Vec<Layout>, CaptureError> {
    let doing = "reading which tables are captured";
    let mut statement =
        conn.prepare("SELECT v FROM _rollcall_meta WHERE k GLOB 'captured:*' ORDER BY k").doing(doing)?;
    let numbers: Vec<i64> =
        statement.query_map([], |row| row.get(0)).doing(doing)?.collect::<Result<_, _>>().doing(doing)?;
    Ok(layout::read_all(conn)?.into_iter().filter(|layout| numbers.contains(&layout.number)).collect())
}

fn set_captured(conn: &Connection, layout: &Layout) -> Result<(), CaptureError> {
    conn.execute(
        "INSERT OR REPLACE INTO _rollcall_meta (k, v) VALUES ('captured:' || ?1, ?2)",
        (&layout.table, layout.number),
    )
    .doing("noting a captured table")?;
    Ok(())
}

/// The triggers of ours that are in the file now, for one table.
pub(crate) fn present_triggers(conn: &Connection, table: &str) -> Result<Vec<Trigger>, CaptureError> {
    let doing = "reading triggers";
    let mut statement = conn
        .prepare(
            "SELECT name, sql FROM sqlite_master
             WHERE type = 'trigger' AND tbl_name = ?1 AND name GLOB '_rollcall_*' ORDER BY name",
        )
        .doing(doing)?;
    let rows = statement
        .query_map([table], |row| Ok(Trigger { name: row.get(0)?, sql: row.get(1)? }))
        .doing(doing)?
        .collect::<Result<_, _>>();
    rows.doing(doing)
}

/// Takes the triggers away, those beside shared tables too, and with `forget` the journal and all else of ours; the store's tables stay as they are.
pub(crate) fn detach(conn: &mut Connection, table: Option<&str>, forget: bool) -> Result<(), CaptureError> {
    let doing = "removing capture";
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    for layout in captured_layouts(&transaction)? {
        if table.is_some_and(|table| !table.eq_ignore_ascii_case(&layout.table)) {
            continue;
        }
        for trigger in present_triggers(&transaction, &layout.table)? {
            transaction.execute_batch(&format!("DROP TRIGGER {}", quote(&trigger.name))).doing(doing)?;
        }
        transaction.execute("DELETE FROM _rollcall_meta WHERE k = 'captured:' || ?1", [&layout.table]).doing(doing)?;
        transaction.execute("DELETE FROM _rollcall_load WHERE name = ?1", [&layout.table]).doing(doing)?;
    }
    let watched: Vec<String> = {
        let mut statement = transaction
            .prepare(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name GLOB '_rollcall_e[iud]_*'
                 AND (?1 IS NULL OR lower(tbl_name) = lower(?1))",
            )
            .doing(doing)?;
        statement.query_map([table], |row| row.get(0)).doing(doing)?.collect::<Result<_, _>>().doing(doing)?
    };
    for trigger in watched {
        transaction.execute_batch(&format!("DROP TRIGGER {}", quote(&trigger))).doing(doing)?;
    }
    if forget {
        // Also those of a table that was renamed since: a trigger without its journal would fail the store's writes.
        let all: Vec<String> = {
            let mut statement = transaction
                .prepare("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name GLOB '_rollcall_*'")
                .doing(doing)?;
            statement.query_map([], |row| row.get(0)).doing(doing)?.collect::<Result<_, _>>().doing(doing)?
        };
        for trigger in all {
            transaction.execute_batch(&format!("DROP TRIGGER {}", quote(&trigger))).doing(doing)?;
        }
        let held: Vec<String> = {
            let mut statement = transaction
                .prepare(
                    "SELECT substr(name, 11) FROM sqlite_master WHERE type = 'table' AND name GLOB '_rollcall_held_*'",
                )
                .doing(doing)?;
            statement.query_map([], |row| row.get(0)).doing(doing)?.collect::<Result<_, _>>().doing(doing)?
        };
        let own = ["journal", "noted", "layout", "load", "meta", "applied", "applying"].map(str::to_owned);
        for table in own.into_iter().chain(held) {
            let table = quote(&format!("_rollcall_{table}"));
            transaction.execute_batch(&format!("DROP TABLE IF EXISTS {table}")).doing(doing)?;
        }
    }
    transaction.commit().doing(doing)
}

/// A text of the journal's own notes.
pub(crate) fn meta(conn: &Connection, key: &str) -> Result<Option<String>, CaptureError> {
    conn.query_row("SELECT v FROM _rollcall_meta WHERE k = ?1", [key], |row| row.get(0))
        .optional()
        .doing("reading the journal's notes")
}

/// A number of the journal's own notes.
pub(crate) fn meta_number(conn: &Connection, key: &str) -> Result<Option<i64>, CaptureError> {
    conn.query_row("SELECT v FROM _rollcall_meta WHERE k = ?1", [key], |row| row.get(0))
        .optional()
        .doing("reading the journal's notes")
}

/// Stores a number among the journal's own notes.
pub(crate) fn set_meta(conn: &Connection, key: &str, value: i64) -> Result<(), CaptureError> {
    conn.execute("INSERT OR REPLACE INTO _rollcall_meta (k, v) VALUES (?1, ?2)", (key, value))
        .doing("writing the journal's notes")?;
    Ok(())
}
