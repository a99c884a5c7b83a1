//! Tables that the store's programs change as well as HQ.
//!
//! Beside such a table `T` stands `T_edits`, in which triggers note what the store's own programs
//! do to it, each edit with the version of HQ's that the row had then. It is a table of the store
//! like any other: captured, it brings the edits to HQ. An edit stays in it until HQ has decided on
//! it; until then the row is the store's, and what HQ sends of it is held back. Then the row is
//! what HQ sent; one that HQ has not, or not for this store, goes. What the agent itself writes is
//! no edit: while it does, a row is in `_rollcall_applying`, within its transaction, so that nobody
//! else sees it.

use rollcall_capture::IncomingTable;
use rollcall_types::shared::{EDIT_AT, EDIT_BASE, EDIT_CHANGED, EDIT_COLUMNS, EDIT_GONE, EDIT_NUMBER, EDITS_SUFFIX};
use rusqlite::{Connection, Transaction};

use crate::{
    error::{CaptureError, Doing},
    incoming::{
        applied::note_differing,
        put::Put,
        spec::{declare, declared, has_null_key, key_text, quoted},
    },
    shape::quote,
};

const DOING: &str = "looking after a shared table";
const KINDS: [&str; 3] = ["ei", "eu", "ed"];
/// The triggers compare all columns in one expression, and SQLite's are at most 1,000 deep.
const COLUMNS_MAX: usize = 400;

/// The table of a shared table's edits.
pub(crate) fn edits_of(table: &str) -> String {
    format!("{table}{EDITS_SUFFIX}")
}

fn held_of(table: &str) -> String {
    format!("main.{}", quote(&format!("_rollcall_held_{table}")))
}

fn trigger_name(kind: &str, table: &str) -> String {
    format!("_rollcall_{kind}_{table}")
}

/// Makes what stands beside a shared table, as its columns are now.
pub(crate) fn share(transaction: &Transaction<'_>, spec: &IncomingTable) -> Result<(), CaptureError> {
    let (edits, held) = (quote(&edits_of(&spec.name)), held_of(&spec.name));
    let columns: Vec<String> =
        spec.columns.iter().map(|(name, kind)| format!("{} {}", quote(name), declared(kind))).collect();
    let key = quoted(&spec.key).join(",");
    check(transaction, spec)?;
    // Nothing in it may fail: it is written within the transactions of the store's programs.
    transaction
        .execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS main._rollcall_applying (x);
             CREATE TABLE IF NOT EXISTS main.{edits} ({EDIT_NUMBER} INTEGER PRIMARY KEY AUTOINCREMENT,
                 {EDIT_BASE} INTEGER, {EDIT_GONE} INTEGER, {EDIT_CHANGED} TEXT, {EDIT_AT} INTEGER, {EDIT_COLUMNS} INTEGER, {});
             CREATE INDEX IF NOT EXISTS main.{} ON {edits} ({key});
             CREATE TABLE IF NOT EXISTS {held} (_op TEXT NOT NULL, {});",
            columns.join(", "),
            quote(&format!("_rollcall_edits_{}", spec.name)),
            declare(spec, true)
        ))
        .doing(DOING)?;
    // Numbers begin at the time in milliseconds: where the table was dropped, those that HQ has
    // heard of are not given again.
    transaction
        .execute(
            "INSERT INTO main.sqlite_sequence (name, seq) SELECT ?1, ?2
             WHERE NOT EXISTS (SELECT 1 FROM main.sqlite_sequence WHERE name = ?1)",
            (edits_of(&spec.name), rollcall_capture::clock_micros() / 1000),
        )
        .doing(DOING)?;
    // Each by itself: one of the two may be new while the other was there before.
    for (beside, quoted) in [(edits_of(&spec.name), &edits), (format!("_rollcall_held_{}", spec.name), &held)] {
        let has = columns_of(transaction, &beside)?;
        for ((name, _), column) in spec.columns.iter().zip(&columns) {
            if !has.contains(&name.to_lowercase()) {
                transaction.execute_batch(&format!("ALTER TABLE {quoted} ADD COLUMN {column}")).doing(DOING)?;
            }
        }
    }
    for (kind, sql) in KINDS.iter().zip(triggers(spec)) {
        let name = trigger_name(kind, &spec.name);
        let present: bool = transaction
            .query_row(
                "SELECT count(*) > 0 FROM main.sqlite_master WHERE name = ?1 AND sql = ?2",
                (&name, &sql),
                |row| row.get(0),
            )
            .doing(DOING)?;
        if !present {
            transaction.execute_batch(&format!("DROP TRIGGER IF EXISTS main.{}; {sql}", quote(&name))).doing(DOING)?;
        }
    }
    Ok(())
}

fn columns_of(conn: &Connection, table: &str) -> Result<Vec<String>, CaptureError> {
    let mut names = conn.prepare("SELECT lower(name) FROM pragma_table_info(?1)").doing(DOING)?;
    let rows = names.query_map([table], |row| row.get(0)).doing(DOING)?;
    rows.collect::<Result<_, _>>().doing(DOING)
}

/// Refuses what could not be watched truly, or would need what is the store's own.
fn check(conn: &Connection, spec: &IncomingTable) -> Result<(), CaptureError> {
    let refuse = |reason: String| Err(CaptureError::Differs { table: spec.name.clone(), reason });
    let edits = edits_of(&spec.name);
    let has = columns_of(conn, &edits)?;
    if !has.is_empty() && !has.iter().any(|name| name == EDIT_CHANGED) {
        return refuse(format!("the store has a table {edits} of its own, where its edits would be noted; rename it"));
    }
    if spec.columns.len() > COLUMNS_MAX {
        return refuse(format!("it has {} columns; a shared table can have {COLUMNS_MAX}", spec.columns.len()));
    }
    // Keys that differ are different rows at HQ.
    let mut collations = conn
        .prepare(
            "SELECT lower(x.name), x.coll FROM pragma_index_list(?1) l, pragma_index_xinfo(l.name) x
             WHERE l.\"unique\" AND x.key AND x.coll <> 'BINARY'",
        )
        .doing(DOING)?;
    let rows = collations.query_map([&spec.name], |row| Ok((row.get(0)?, row.get(1)?))).doing(DOING)?;
    let rows: Vec<(Option<String>, String)> = rows.collect::<Result<_, _>>().doing(DOING)?;
    let is_key = |name: &String| spec.key.iter().any(|key| key.eq_ignore_ascii_case(name));
    match rows.into_iter().find(|(name, _)| name.as_ref().is_some_and(is_key)) {
        Some((name, collation)) => refuse(format!(
            "its key {} is compared by {collation}; the key of a shared table must be compared by BINARY",
            name.unwrap_or_default()
        )),
        None => Ok(()),
    }
}

/// Ends it: what the store's programs do is noted no more. Edits that are noted stay.
pub(crate) fn unshare(transaction: &Transaction<'_>, spec: &IncomingTable) -> Result<(), CaptureError> {
    for kind in KINDS {
        let name = quote(&trigger_name(kind, &spec.name));
        transaction.execute_batch(&format!("DROP TRIGGER IF EXISTS main.{name}")).doing(DOING)?;
    }
    transaction.execute_batch(&format!("DROP TABLE IF EXISTS {}", held_of(&spec.name))).doing(DOING)
}

/// Whether edits are noted: whether the triggers are there, and the tables that they and the agent
/// need.
pub(crate) fn is_watched(conn: &Connection, table: &str) -> Result<bool, CaptureError> {
    let [insert, update, delete] = KINDS.map(|kind| trigger_name(kind, table));
    conn.query_row(
        "SELECT count(*) = 6 FROM main.sqlite_master
         WHERE type = 'trigger' AND name IN (?1, ?2, ?3) AND lower(tbl_name) = lower(?4)
         OR type = 'table' AND name IN ('_rollcall_applying', ?5, ?6)",
        (insert, update, delete, table, edits_of(table), format!("_rollcall_held_{table}")),
        |row| row.get(0),
    )
    .doing(DOING)
}

/// Whether there is a table of edits: that of a table which is shared, or was.
pub(crate) fn has_edits_table(conn: &Connection, table: &str) -> Result<bool, CaptureError> {
    Ok(columns_of(conn, &edits_of(table))?.iter().any(|name| name == EDIT_CHANGED))
}

/// The three triggers that note edits. Like those of the journal they read the row back: the
/// store's own triggers may have changed it.
fn triggers(spec: &IncomingTable) -> [String; 3] {
    let (table, edits) = (quote(&spec.name), quote(&edits_of(&spec.name)));
    let columns = quoted(spec.columns.iter().map(|(name, _)| name));
    let keys = quoted(&spec.key);
    let others: Vec<&String> = columns.iter().filter(|name| !keys.contains(name)).collect();
    let all = |part: &dyn Fn(&String) -> String, between: &str| keys.iter().map(part).collect::<Vec<_>>().join(between);
    let at = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";
    // A row that has an edit already is as of that edit's base: what HQ sent since is held back.
    let base = |row: &str| {
        format!(
            "coalesce((SELECT min({EDIT_BASE}) FROM {edits} WHERE {}),
                      (SELECT version FROM _rollcall_applied WHERE name = {}), 0)",
            all(&|key| format!("{edits}.{key} = {row}.{key}"), " AND "),
            text(&spec.name)
        )
    };
    let note = |changed: &str| {
        format!(
            "INSERT INTO {edits} ({EDIT_BASE}, {EDIT_GONE}, {EDIT_CHANGED}, {EDIT_AT}, {EDIT_COLUMNS}, {}) \
             SELECT {}, 0, {changed}, {at}, {}, {} FROM {table} WHERE {};",
            columns.join(","),
            base("NEW"),
            columns.len(),
            columns.iter().map(|name| format!("{table}.{name}")).collect::<Vec<_>>().join(","),
            // A table that was the store's may have rows without a key: HQ refuses them, and they
            // go.
            all(&|key| format!("{table}.{key} IS NEW.{key}"), " AND ")
        )
    };
    let gone = |condition: &str| {
        format!(
            "INSERT INTO {edits} ({EDIT_BASE}, {EDIT_GONE}, {EDIT_CHANGED}, {EDIT_AT}, {}) SELECT {}, 1, '', {at}, {} \
             WHERE {condition} NOT EXISTS (SELECT 1 FROM {table} WHERE {});",
            keys.join(","),
            base("OLD"),
            all(&|key| format!("OLD.{key}"), ","),
            all(&|key| format!("{table}.{key} IS OLD.{key}"), " AND ")
        )
    };
    let name_of = |quoted: &String| spec.columns.iter().find(|(name, _)| quote(name) == *quoted).map(|(name, _)| name);
    let listed = |name: &&String| text(&format!("{},", name_of(name).map_or("", String::as_str)));
    let every = format!("rtrim({}, ',')", join_or_empty(others.iter().map(listed)));
    let moved = all(&|key| format!("OLD.{key} IS NOT NEW.{key} COLLATE BINARY"), " OR ");
    let differing = join_or_empty(others.iter().map(|name| {
        format!("CASE WHEN ({moved}) OR OLD.{name} IS NOT NEW.{name} COLLATE BINARY THEN {} ELSE '' END", listed(name))
    }));
    let is_change = columns
        .iter()
        .map(|name| format!("OLD.{name} IS NOT NEW.{name} COLLATE BINARY"))
        .collect::<Vec<_>>()
        .join(" OR ");
    let bodies = [
        ("INSERT", String::new(), note(&every)),
        (
            "UPDATE",
            format!(" AND ({is_change})"),
            format!("{} {}", gone(&format!("({moved}) AND")), note(&format!("rtrim({differing}, ',')"))),
        ),
        ("DELETE", String::new(), gone("")),
    ];
    let mut kinds = KINDS.iter();
    bodies.map(|(event, when, body)| {
        let name = quote(&trigger_name(kinds.next().unwrap_or(&""), &spec.name));
        format!(
            "CREATE TRIGGER {name} AFTER {event} ON {table} FOR EACH ROW \
             WHEN NOT EXISTS (SELECT 1 FROM _rollcall_applying){when} BEGIN {body} END"
        )
    })
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn join_or_empty(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "''".to_owned() } else { parts.join(" || ") }
}

/// A condition: no edit of the row `row` waits. Always true where the table is not shared.
pub(crate) fn is_settled(spec: &IncomingTable, row: &str) -> String {
    match spec.shared {
        true => format!("NOT {}", has_edits(spec, row)),
        false => "true".to_owned(),
    }
}

fn has_edits(spec: &IncomingTable, row: &str) -> String {
    let keys = quoted(&spec.key);
    let same = keys.iter().map(|key| format!("e.{key} = {row}.{key}")).collect::<Vec<_>>().join(" AND ");
    format!("EXISTS (SELECT 1 FROM main.{} e WHERE {same})", quote(&edits_of(&spec.name)))
}

/// What the agent writes until [`end`] is no edit.
pub(crate) fn begin(transaction: &Transaction<'_>, spec: &IncomingTable) -> Result<(), CaptureError> {
    match spec.shared {
        true => transaction.execute_batch("INSERT INTO main._rollcall_applying VALUES (1)").doing(DOING),
        false => Ok(()),
    }
}

/// See [`begin`].
pub(crate) fn end(transaction: &Transaction<'_>, spec: &IncomingTable) -> Result<(), CaptureError> {
    match spec.shared {
        true => transaction.execute_batch("DELETE FROM main._rollcall_applying").doing(DOING),
        false => Ok(()),
    }
}

/// Holds back those of HQ's rows in `source` of which an edit waits. A `whole` source is the whole
/// table: rows with edits that are not in it are to go.
pub(crate) fn hold(
    transaction: &Transaction<'_>,
    spec: &IncomingTable,
    source: &str,
    whole: bool,
) -> Result<(), CaptureError> {
    if !spec.shared {
        return Ok(());
    }
    let (held, edits) = (held_of(&spec.name), quote(&edits_of(&spec.name)));
    let columns = quoted(spec.columns.iter().map(|(name, _)| name)).join(",");
    let keys = quoted(&spec.key).join(",");
    if whole {
        transaction
            .execute_batch(&format!(
                "DELETE FROM {held};
                 INSERT OR REPLACE INTO {held} (_op, {keys}) SELECT DISTINCT 'D', {keys} FROM main.{edits};"
            ))
            .doing(DOING)?;
    }
    transaction
        .execute_batch(&format!(
            "INSERT OR REPLACE INTO {held} (_op, {columns}) SELECT _op, {columns} FROM {source} r WHERE {}",
            has_edits(spec, "r")
        ))
        .doing(DOING)
}

/// HQ has decided on all edits up to this number, and its rows as of then were applied: what was
/// held back takes the place of the store's rows. An edited row of which nothing was held back is
/// none that HQ has for this store, and goes: HQ refused it, or it is other stores'.
pub(crate) fn settle(transaction: &Transaction<'_>, spec: &IncomingTable, through: u64) -> Result<(), CaptureError> {
    let (table, held) = (format!("main.{}", quote(&spec.name)), held_of(&spec.name));
    let edits = quote(&edits_of(&spec.name));
    let keys = quoted(&spec.key);
    let key = keys.join(",");
    if spec.shared {
        transaction
            .execute(
                &format!(
                    "INSERT OR IGNORE INTO {held} (_op, {key}) SELECT DISTINCT 'D', {key} FROM main.{edits}
                     WHERE {EDIT_NUMBER} <= ?1"
                ),
                [through as i64],
            )
            .doing(DOING)?;
    }
    transaction
        .execute(&format!("DELETE FROM main.{edits} WHERE {EDIT_NUMBER} <= ?1"), [through as i64])
        .doing(DOING)?;
    if !spec.shared {
        return Ok(());
    }
    begin(transaction, spec)?;
    let free = is_settled(spec, "r");
    let is_null = has_null_key(spec);
    let (come, go) = (format!("r._op <> 'D' AND {free}"), format!("r._op = 'D' AND {free}"));
    let settled = is_settled(spec, &held);
    let done = Put { spec, rows: &held, come, keys: &held, go }.execute(transaction)?;
    let touched = format!("SELECT {} FROM {held} WHERE {settled}", key_text(spec, ""));
    note_differing(transaction, &spec.name, Some(&touched), &done.differing)?;
    transaction
        .execute_batch(&format!(
            "DELETE FROM {table} WHERE ({is_null}) AND EXISTS (SELECT 1 FROM {held} WHERE {is_null});
             DELETE FROM {held} WHERE {settled};"
        ))
        .doing(DOING)?;
    end(transaction, spec)
}
