//! Puts the journal and its triggers into the store's database, and takes them out again.

use rollcall_capture::TableSpec;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::{
    error::{CaptureError, Doing},
    incoming::applied::is_filled_by_hq,
    layout::{self, Layout},
    load,
    shape::{Shape, quote},
    triggers::{self, Form, Trigger},
    withheld,
};
use rollcall_types::LoadReason;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS _rollcall_journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, t, op, at, c0, c1, c2);
    CREATE TABLE IF NOT EXISTS _rollcall_noted (t, k0);
    CREATE TABLE IF NOT EXISTS _rollcall_layout (t INTEGER PRIMARY KEY, definition TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS _rollcall_load (
        name TEXT PRIMARY KEY, kind TEXT NOT NULL, t INTEGER NOT NULL, begin INTEGER NOT NULL, position TEXT);
    CREATE TABLE IF NOT EXISTS _rollcall_meta (k TEXT PRIMARY KEY, v);";

/// The tables of ours; triggers name the first two.
pub(crate) const OWN_TABLES: [&str; 5] =
    ["_rollcall_journal", "_rollcall_noted", "_rollcall_layout", "_rollcall_load", "_rollcall_meta"];

pub(crate) fn is_installed(conn: &Connection) -> Result<bool, CaptureError> {
    Ok(missing_tables(conn)?.is_empty())
}

/// The tables of ours that are not in the file.
pub(crate) fn missing_tables(conn: &Connection) -> Result<Vec<&'static str>, CaptureError> {
    let doing = "looking for the journal";
    let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB '_rollcall_*'";
    let mut statement = conn.prepare_cached(sql).doing(doing)?;
    let names = statement.query_map([], |row| row.get(0)).doing(doing)?;
    let present: Vec<String> = names.collect::<Result<_, _>>().doing(doing)?;
    Ok(OWN_TABLES.into_iter().filter(|table| !present.iter().any(|name| name == table)).collect())
}

/// Whether any trigger of ours is in the file.
pub(crate) fn has_triggers(conn: &Connection) -> Result<bool, CaptureError> {
    let sql = "SELECT count(*) > 0 FROM sqlite_master WHERE type = 'trigger' AND name GLOB '_rollcall_[ab][iud]_*'";
    conn.query_row(sql, [], |row| row.get(0)).doing("looking for triggers")
}

/// Installs capture of `specs`. Tables captured before stay captured; their rows are loaded again
/// only if columns of them were excluded and are not any more.
pub(crate) fn install(conn: &mut Connection, specs: &[TableSpec], journal_id: &str) -> Result<(), CaptureError> {
    let doing = "installing the journal";
    let shapes = check_all(conn, specs)?;
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    transaction.execute_batch(TABLES).doing(doing)?;
    transaction
        .execute("INSERT OR IGNORE INTO _rollcall_meta (k, v) VALUES ('journal_id', ?1)", [journal_id])
        .doing(doing)?;
    let captured = captured_layouts(&transaction)?;
    for (spec, shape) in specs.iter().zip(&shapes) {
        let was_withheld = withheld::set(&transaction, &shape.name, false)?;
        let known = captured.iter().find(|layout| layout.table == shape.name);
        if !was_withheld && known.is_some_and(|layout| same_names(&layout.excluded, &spec.excluded)) {
            continue;
        }
        let layout = lay_out(&transaction, shape, &spec.excluded)?;
        // What a column holds that was excluded until now, HQ never heard.
        let has_column = |name: &String| shape.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        let is_wider = known.is_some_and(|known| {
            let mut were = known.excluded.iter().filter(|name| has_column(name));
            were.any(|name| !spec.excluded.iter().any(|other| other.eq_ignore_ascii_case(name)))
        });
        if known.is_none() || was_withheld || is_wider || load::is_loading(&transaction, &layout.table)? {
            let reason = if known.is_none() { LoadReason::First } else { LoadReason::Widened };
            load::begin(&transaction, &layout, load::Kind::State, reason)?;
        }
    }
    transaction.commit().doing(doing)
}

/// Reads what all these tables look like, if they can be captured together with those that are.
pub(crate) fn check_all(conn: &Connection, specs: &[TableSpec]) -> Result<Vec<Shape>, CaptureError> {
    let shapes = specs.iter().map(|spec| Shape::read(conn, &spec.table)).collect::<Result<Vec<_>, _>>()?;
    let captured_before = if is_installed(conn)? { captured_layouts(conn)? } else { Vec::new() };
    for (index, (shape, spec)) in shapes.iter().zip(specs).enumerate() {
        if is_filled_by_hq(conn, &shape.name)? {
            let reason = "HQ fills it; it is not the store's own".to_owned();
            return Err(CaptureError::Unsupported { table: shape.name.clone(), reason });
        }
        let at_hq = rollcall_types::TableName::at_hq(&shape.name)
            .map_err(|error| CaptureError::Usage(format!("table {:?} has no name at HQ: {error}", shape.name)))?;
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
        triggers::triggers(shape, &Layout::of(0, shape, &spec.excluded)?, Form::Present)?;
    }
    Ok(shapes)
}

/// What the agent keeps of capture outside the store's file, so that tables of ours that a program
/// of the store's drops can be made again.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Registration {
    /// The id of the journal.
    journal_id: String,
    /// Layouts by number.
    layouts: Vec<(i64, Layout)>,
    /// The layout each captured table has.
    captured: Vec<i64>,
}

/// What is registered in the file.
pub(crate) fn registration(conn: &Connection) -> Result<Registration, CaptureError> {
    let journal_id = meta(conn, "journal_id")?.ok_or_else(|| CaptureError::Damaged("it has no id".to_owned()))?;
    let layouts = layout::read_all(conn)?.into_iter().map(|layout| (layout.number, layout)).collect();
    let captured = captured_layouts(conn)?.iter().map(|layout| layout.number).collect();
    Ok(Registration { journal_id, layouts, captured })
}

/// Makes tables of ours again that were dropped, and begins to state all captured tables; names
/// them. A journal that was dropped is another one from then on.
pub(crate) fn restore(
    conn: &mut Connection,
    known: &Registration,
    new_journal_id: &str,
) -> Result<Vec<&'static str>, CaptureError> {
    let doing = "making tables of the agent's again";
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    // Only now can nobody else drop them or make them.
    let missing = missing_tables(&transaction)?;
    if missing.is_empty() {
        return Ok(missing);
    }
    transaction.execute_batch(TABLES).doing(doing)?;
    let is_lost = missing.contains(&"_rollcall_journal");
    let journal_id = if is_lost { new_journal_id } else { &known.journal_id };
    let keep_id = if is_lost { "INSERT OR REPLACE" } else { "INSERT OR IGNORE" };
    transaction
        .execute(&format!("{keep_id} INTO _rollcall_meta (k, v) VALUES ('journal_id', ?1)"), [journal_id])
        .doing(doing)?;
    for (number, layout) in &known.layouts {
        widen(&transaction, "_rollcall_journal", "c", layout.columns.len())?;
        widen(&transaction, "_rollcall_noted", "k", layout.key.len())?;
        layout::write_if_new(&transaction, *number, layout)?;
    }
    if is_lost {
        // What it held cannot be counted any more.
        transaction
            .execute("DELETE FROM _rollcall_meta WHERE k = 'manifest_through' OR k GLOB 'counted*'", [])
            .doing(doing)?;
        transaction.execute("DELETE FROM _rollcall_load", []).doing(doing)?;
    }
    for layout in layout::read_all(&transaction)?.iter().filter(|layout| known.captured.contains(&layout.number)) {
        set_captured(&transaction, layout)?;
        load::begin(&transaction, layout, load::Kind::State, LoadReason::Restored)?;
    }
    transaction.commit().doing(doing)?;
    Ok(missing)
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
    for trigger in triggers::triggers(shape, layout, Form::Present)? {
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
    let doing = "noting a captured table";
    // A table made anew in another spelling is the same one to SQLite.
    conn.execute("DELETE FROM _rollcall_meta WHERE lower(k) = lower('captured:' || ?1)", [&layout.table])
        .doing(doing)?;
    conn.execute("INSERT INTO _rollcall_meta (k, v) VALUES ('captured:' || ?1, ?2)", (&layout.table, layout.number))
        .doing(doing)?;
    Ok(())
}

/// Whether a trigger of the store's on this table is newer than one of ours, and so runs before it.
pub(crate) fn is_overtaken(conn: &Connection, table: &str) -> Result<bool, CaptureError> {
    conn.query_row(
        "SELECT coalesce(max(CASE WHEN name GLOB '_rollcall_*' THEN NULL ELSE rowid END)
                > min(CASE WHEN name GLOB '_rollcall_[ab][iud]_*' THEN rowid END), 0)
         FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = lower(?1)",
        [table],
        |row| row.get(0),
    )
    .doing("reading the order of triggers")
}

/// The triggers of ours that are in the file now, for one table.
pub(crate) fn present_triggers(conn: &Connection, table: &str) -> Result<Vec<Trigger>, CaptureError> {
    let doing = "reading triggers";
    let mut statement = conn
        .prepare(
            "SELECT name, sql FROM sqlite_master
             WHERE type = 'trigger' AND lower(tbl_name) = lower(?1)
             AND name GLOB '_rollcall_[ab][iud]_*' ORDER BY name",
        )
        .doing(doing)?;
    let rows = statement
        .query_map([table], |row| Ok(Trigger { name: row.get(0)?, sql: row.get(1)? }))
        .doing(doing)?
        .collect::<Result<_, _>>();
    rows.doing(doing)
}

/// Names of the captured tables.
pub(crate) fn captured_tables(conn: &Connection) -> Result<Vec<String>, CaptureError> {
    let doing = "reading which tables are captured";
    let mut statement = conn
        .prepare_cached("SELECT substr(k, 10) FROM _rollcall_meta WHERE k GLOB 'captured:*' ORDER BY k")
        .doing(doing)?;
    let names = statement.query_map([], |row| row.get(0)).doing(doing)?;
    names.collect::<Result<_, _>>().doing(doing)
}

/// Takes the triggers away, those beside shared tables too, and with `forget` the journal and all
/// else of ours; the store's tables stay as they are. Triggers are found by their names: tables of
/// ours need not be there.
pub(crate) fn detach(conn: &mut Connection, table: Option<&str>, forget: bool) -> Result<(), CaptureError> {
    let doing = "removing capture";
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    detach_in(&transaction, table, forget)?;
    transaction.commit().doing(doing)
}

/// Ends the capture of a table; what the journal holds of it is withheld from then on.
pub(crate) fn stop(conn: &mut Connection, table: &str) -> Result<(), CaptureError> {
    let doing = "removing capture";
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    withheld::set(&transaction, table, true)?;
    detach_in(&transaction, Some(table), false)?;
    transaction.commit().doing(doing)
}

fn detach_in(transaction: &Connection, table: Option<&str>, forget: bool) -> Result<(), CaptureError> {
    let doing = "removing capture";
    let has_meta = !missing_tables(transaction)?.contains(&"_rollcall_meta");
    let has_load = !missing_tables(transaction)?.contains(&"_rollcall_load");
    // With the journal go also those of a table that was renamed since: a trigger without it would
    // fail the store's writes.
    let of_table = if forget { None } else { table };
    let names: Vec<String> = {
        let mut statement = transaction
            .prepare(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name GLOB '_rollcall_*'
                 AND (?1 IS NULL OR lower(tbl_name) = lower(?1))",
            )
            .doing(doing)?;
        statement.query_map([of_table], |row| row.get(0)).doing(doing)?.collect::<Result<_, _>>().doing(doing)?
    };
    for name in names {
        transaction.execute_batch(&format!("DROP TRIGGER {}", quote(&name))).doing(doing)?;
    }
    if has_meta {
        let sql =
            "DELETE FROM _rollcall_meta WHERE k GLOB 'captured:*' AND (?1 IS NULL OR lower(substr(k, 10)) = lower(?1))";
        transaction.execute(sql, [of_table]).doing(doing)?;
    }
    if has_load {
        let sql = "DELETE FROM _rollcall_load WHERE ?1 IS NULL OR lower(name) = lower(?1)";
        transaction.execute(sql, [of_table]).doing(doing)?;
    }
    if forget {
        let held: Vec<String> = {
            let mut statement = transaction
                .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB '_rollcall_held_*'")
                .doing(doing)?;
            statement.query_map([], |row| row.get(0)).doing(doing)?.collect::<Result<_, _>>().doing(doing)?
        };
        let own = OWN_TABLES.into_iter().chain(["_rollcall_applied", "_rollcall_applying"]).map(str::to_owned);
        for table in own.chain(held) {
            transaction.execute_batch(&format!("DROP TABLE IF EXISTS {}", quote(&table))).doing(doing)?;
        }
    }
    Ok(())
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

/// Stores a text among the journal's own notes.
pub(crate) fn set_meta_text(conn: &Connection, key: &str, value: &str) -> Result<(), CaptureError> {
    conn.execute("INSERT OR REPLACE INTO _rollcall_meta (k, v) VALUES (?1, ?2)", (key, value))
        .doing("writing the journal's notes")?;
    Ok(())
}
