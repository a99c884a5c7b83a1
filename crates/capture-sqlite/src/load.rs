//! States the rows that were in a table before its triggers were, or that capture may have missed.
//!
//! A load walks the table in key order, a chunk at a time. Each chunk is journalled *in the write
//! transaction that reads it*, together with the position reached, so it can stop anywhere and
//! never misses or invents a row beside live changes. A row whose key was journalled since the load
//! began is stated as `U`, any other as `S`: HQ may then take `S` rows as new keys.
//!
//! Kinds: [`Kind::State`] replaces all that HQ knew of the table once complete (a first load, a
//! reload after capture was broken); [`Kind::Restate`] only repeats rows that gained a column.
//!
//! A table that cannot be loaded holds up no other: its load waits, and is tried again.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rollcall_capture::LoadProgress;
use rollcall_types::LoadReason;
use rusqlite::{Connection, Transaction, TransactionBehavior, functions::FunctionFlags};

use crate::{
    counts,
    error::{CaptureError, Doing},
    file::StoreFile,
    layout::{self, LOG_LAYOUT, Layout},
    read::{self, to_sql},
    shape::{Shape, quote},
    stored::Stored,
};

/// See [`rollcall_capture::Source::rows_to_load`].
pub(crate) fn rows_to_load(conn: &Connection) -> Result<Option<u64>, CaptureError> {
    let loads = loads(conn)?;
    let rows = loads.iter().map(|load| {
        let table = &load.layout.table;
        let rowid = Shape::read(conn, table).ok().and_then(|shape| shape.rowid);
        let largest = rowid.and_then(|rowid| {
            let sql = format!("SELECT coalesce(max({rowid}), 0) FROM {}", quote(table));
            conn.query_row(&sql, [], |row| row.get::<_, i64>(0)).ok()
        });
        largest.map_or(0, |largest| u64::try_from(largest).unwrap_or_default())
    });
    let rows = rows.sum();
    Ok((!loads.is_empty()).then_some(rows))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// State every row; they replace what was known.
    State,
    /// Repeat every row as an update.
    Restate,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Restate => "restate",
        }
    }
}

/// Journal entries of our own: `op` and what `c0`, `c1` and `c2` hold.
pub(crate) mod log_op {
    /// A load began: c0 table, c1 why ([`rollcall_types::LoadReason`]).
    pub(crate) const LOAD_BEGUN: &str = "B";
    /// A load is complete: c0 table, c1 the `seq` of its beginning.
    pub(crate) const LOAD_COMPLETE: &str = "C";
    /// Changes are lost for ever: c0 first `seq`, c1 last `seq`, c2 reason.
    pub(crate) const LOST: &str = "L";
    /// A manifest: c0 the `seq` it begins behind, c1 the `seq` it ends at, c2 what it states of
    /// each table, as JSON.
    pub(crate) const MANIFEST: &str = "M";
}

/// Writes an entry of our own into the journal.
pub(crate) fn journal_log(
    conn: &Connection,
    op: &str,
    values: (&dyn rusqlite::ToSql, &dyn rusqlite::ToSql, &dyn rusqlite::ToSql),
) -> Result<(), CaptureError> {
    conn.execute(
        "INSERT INTO _rollcall_journal (t, op, at, c0, c1, c2) VALUES (?1, ?2, julianday('now'), ?3, ?4, ?5)",
        rusqlite::params![LOG_LAYOUT, op, values.0, values.1, values.2],
    )
    .doing("journalling an entry")?;
    Ok(())
}

/// Begins a load of the layout's table, in place of one that may be under way.
pub(crate) fn begin(
    transaction: &Transaction<'_>,
    layout: &Layout,
    kind: Kind,
    reason: LoadReason,
) -> Result<(), CaptureError> {
    let doing = "beginning a load";
    if kind == Kind::State {
        journal_log(transaction, log_op::LOAD_BEGUN, (&layout.table, &reason.as_str(), &None::<i64>))?;
        counts::forget(transaction, &layout.table)?;
    } else if is_loading(transaction, &layout.table)? {
        // A full load is under way; begin it again with the new columns, which covers the rows to
        // repeat.
        return begin(transaction, layout, Kind::State, reason);
    }
    let begin = to_sql(read::sequence(transaction)?);
    transaction
        .execute(
            "INSERT OR REPLACE INTO _rollcall_load (name, kind, t, begin, position) VALUES (?1, ?2, ?3, ?4, NULL)",
            (&layout.table, kind.as_str(), layout.number, begin),
        )
        .doing(doing)?;
    Ok(())
}

pub(crate) fn is_loading(conn: &Connection, table: &str) -> Result<bool, CaptureError> {
    conn.query_row("SELECT count(*) FROM _rollcall_load WHERE name = ?1 AND kind = 'state'", [table], |row| row.get(0))
        .doing("looking for loads")
}

/// Aimed at by a step before its commit.
const STEP_TIME_MAX: Duration = Duration::from_millis(3);
const CHUNK_ROWS_MIN: usize = 16;
const CHUNK_ROWS_MAX: usize = 2_000;
/// A table that could not be loaded is tried again after so long.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Runs loads a chunk at a time; remembers how much fits in a step.
#[derive(Debug)]
pub(crate) struct Loader {
    chunk_rows: usize,
    touched: Option<Touched>,
    /// Tables that could not be loaded: when they are tried again, and why.
    failed: BTreeMap<String, (Instant, String)>,
}

/// Keys of a table that were journalled since its load began.
#[derive(Debug)]
struct Touched {
    table: String,
    begin: i64,
    /// Up to which `seq` they are known.
    seen: i64,
    keys: Keys,
}

type Keys = Arc<Mutex<HashSet<Vec<u8>>>>;

struct Load {
    kind: String,
    begin: i64,
    position: Option<String>,
    layout: Layout,
}

impl Loader {
    pub(crate) fn new() -> Self {
        Self { chunk_rows: 128, touched: None, failed: BTreeMap::new() }
    }

    /// Tables that cannot be loaded, and why.
    pub(crate) fn failed(&self) -> impl Iterator<Item = (&String, &String)> {
        self.failed.iter().map(|(table, (_, why))| (table, why))
    }

    /// Journals the next chunk of the first unfinished load.
    pub(crate) fn step(&mut self, file: &mut StoreFile) -> Result<LoadProgress, CaptureError> {
        let loads = loads(file.reader()?)?;
        let now = Instant::now();
        self.failed.retain(|table, _| loads.iter().any(|load| load.layout.table == *table));
        let is_due = |load: &&Load| self.failed.get(&load.layout.table).is_none_or(|(at, _)| *at <= now);
        let Some(load) = loads.iter().find(is_due) else { return Ok(LoadProgress::Idle) };
        let table = load.layout.table.clone();
        match self.chunk(file, load) {
            Err(error) if error.is_of_one_table() => {
                tracing::error!(table, error = %rollcall_types::describe(&error), "the table cannot be loaded; others go on");
                self.failed.insert(table, (now + RETRY_AFTER, rollcall_types::describe(&error)));
                Ok(LoadProgress::Failed)
            }
            other => {
                let progress = other?;
                self.failed.remove(&table);
                Ok(progress)
            }
        }
    }

    fn chunk(&mut self, file: &mut StoreFile, load: &Load) -> Result<LoadProgress, CaptureError> {
        let doing = "loading existing rows";
        let mut conn = file.writer()?;
        let shape = match Shape::read(&conn, &load.layout.table) {
            Err(CaptureError::NoSuchTable { table, .. }) => {
                // The table is gone; the health check says so. Nothing is left to state.
                conn.execute("DELETE FROM _rollcall_load WHERE name = ?1", [&table]).doing(doing)?;
                return Ok(LoadProgress::Completed);
            }
            other => other?,
        };
        let keys = self.touched_by(load);
        offer_touched(&conn, load.layout.key.len(), keys)?;
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        let started = Instant::now();
        self.note_touched(&transaction, load)?;
        // A table made anew may be spelled another way; the load, and what is journalled of it, go
        // by the layout's name.
        let table = &load.layout.table;
        let walk = Walk::new(&shape, load);
        let last = walk.chunk_end(&transaction, self.chunk_rows)?;
        let progress = match last {
            Some(last) => {
                let rows = walk.journal_chunk(&transaction, &last)?;
                let position = encode_position(&last)?;
                transaction
                    .execute("UPDATE _rollcall_load SET position = ?2 WHERE name = ?1", (table, position))
                    .doing(doing)?;
                LoadProgress::Stated { rows }
            }
            None => {
                if load.kind == Kind::State.as_str() {
                    journal_log(&transaction, log_op::LOAD_COMPLETE, (table, &load.begin, &None::<i64>))?;
                    counts::forget(&transaction, table)?;
                }
                transaction.execute("DELETE FROM _rollcall_load WHERE name = ?1", [table]).doing(doing)?;
                LoadProgress::Completed
            }
        };
        // Not the commit: what a slow disk takes is not made less by smaller chunks, only paid more
        // often.
        self.adapt(started.elapsed());
        transaction.commit().doing(doing)?;
        Ok(progress)
    }

    fn adapt(&mut self, took: Duration) {
        if took > STEP_TIME_MAX {
            self.chunk_rows = (self.chunk_rows / 2).max(CHUNK_ROWS_MIN);
        } else if took < STEP_TIME_MAX / 2 {
            self.chunk_rows = (self.chunk_rows * 5 / 4).min(CHUNK_ROWS_MAX);
        }
    }

    /// The touched keys of this load; none yet when another load was under way.
    fn touched_by(&mut self, load: &Load) -> Keys {
        let is_its = |of: &Touched| of.table == load.layout.table && of.begin == load.begin;
        let touched = self.touched.take().filter(is_its).unwrap_or_else(|| Touched {
            table: load.layout.table.clone(),
            begin: load.begin,
            seen: load.begin,
            keys: Keys::default(),
        });
        self.touched.insert(touched).keys.clone()
    }

    /// Adds the keys journalled since the last look.
    fn note_touched(&mut self, transaction: &Transaction<'_>, load: &Load) -> Result<(), CaptureError> {
        let doing = "noting keys changed during a load";
        let Some(touched) = &mut self.touched else { return Ok(()) };
        let head: i64 = transaction
            .query_row("SELECT coalesce(max(seq), 0) FROM _rollcall_journal", [], |row| row.get(0))
            .doing(doing)?;
        let mut keys = touched.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for layout in layout::read_all(transaction)?.iter().filter(|layout| layout.table == load.layout.table) {
            let columns: Result<Vec<String>, _> = layout.key.iter().map(|name| layout.journal_column(name)).collect();
            let columns = columns?;
            let sql = format!(
                "SELECT {} FROM main._rollcall_journal WHERE seq > ?1 AND seq <= ?2 AND t = ?3 AND op <> 'S'",
                columns.join(",")
            );
            let mut statement = transaction.prepare(&sql).doing(doing)?;
            let mut rows = statement.query((touched.seen, head, layout.number)).doing(doing)?;
            while let Some(row) = rows.next().doing(doing)? {
                let mut key = Vec::new();
                for index in 0..columns.len() {
                    Stored::from(row.get_ref(index).doing(doing)?).add_to_key(&mut key);
                }
                keys.insert(key);
            }
        }
        touched.seen = head.max(touched.seen);
        Ok(())
    }
}

const TOUCHED: &str = "_rollcall_is_touched";

/// Lets statements of this connection ask whether a key is among those touched.
fn offer_touched(conn: &Connection, key_columns: usize, keys: Keys) -> Result<(), CaptureError> {
    let arguments = i32::try_from(key_columns).unwrap_or(-1);
    conn.create_scalar_function(TOUCHED, arguments, FunctionFlags::SQLITE_UTF8, move |context| {
        let mut key = Vec::new();
        for index in 0..context.len() {
            Stored::from(context.get_raw(index)).add_to_key(&mut key);
        }
        Ok(keys.lock().unwrap_or_else(PoisonError::into_inner).contains(&key))
    })
    .doing("preparing a load")
}

/// The loads to be done, in the order in which they began.
fn loads(conn: &Connection) -> Result<Vec<Load>, CaptureError> {
    let doing = "looking for loads";
    let mut statement =
        conn.prepare_cached("SELECT kind, t, begin, position FROM _rollcall_load ORDER BY begin, name").doing(doing)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).doing(doing)?;
    let rows: Vec<(String, i64, i64, Option<String>)> = rows.collect::<Result<_, _>>().doing(doing)?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let layouts = layout::read_all(conn)?;
    let load = |(kind, number, begin, position)| {
        let layout = layouts.iter().find(|layout| layout.number == number).cloned();
        let layout = layout.ok_or_else(|| CaptureError::Damaged(format!("a load names layout {number}")))?;
        Ok(Load { kind, begin, position, layout })
    };
    rows.into_iter().map(load).collect()
}

/// A walk over a table in the order of its row number or, without one, its key.
struct Walk<'a> {
    load: &'a Load,
    table: String,
    /// Columns of the table, with its name before them.
    order: Vec<String>,
    is_by_rowid: bool,
}

impl<'a> Walk<'a> {
    fn new(shape: &Shape, load: &'a Load) -> Self {
        let table = quote(&shape.name);
        let order = match shape.rowid {
            Some(rowid) => vec![format!("{table}.{rowid}")],
            None => load.layout.key.iter().map(|name| format!("{table}.{}", quote(name))).collect(),
        };
        Self { load, table, order, is_by_rowid: shape.rowid.is_some() }
    }

    /// `(a, b) > (?, ?)`, and the values, for what lies behind the position.
    fn behind(&self) -> Result<(String, Vec<Stored>), CaptureError> {
        let Some(position) = &self.load.position else { return Ok(("1".to_owned(), Vec::new())) };
        let values = decode_position(position)?;
        let marks = vec!["?"; values.len()].join(",");
        Ok((format!("({}) > ({marks})", self.order.join(",")), values))
    }

    /// The position of the last row of the next chunk; none at the table's end.
    fn chunk_end(&self, conn: &Connection, rows: usize) -> Result<Option<Vec<Stored>>, CaptureError> {
        let doing = "finding the end of a chunk";
        let (behind, values) = self.behind()?;
        let order = self.order.join(",");
        let sql = format!("SELECT {order} FROM main.{} WHERE {behind} ORDER BY {order} LIMIT {rows}", self.table);
        let mut statement = conn.prepare(&sql).doing(doing)?;
        let mut found = statement.query(rusqlite::params_from_iter(values)).doing(doing)?;
        let mut last = None;
        while let Some(row) = found.next().doing(doing)? {
            let position: Result<Vec<Stored>, _> =
                (0..self.order.len()).map(|index| row.get_ref(index).map(Stored::from)).collect();
            last = Some(position.doing(doing)?);
        }
        Ok(last)
    }

    /// Journals the rows behind the position up to and including `last`.
    fn journal_chunk(&self, conn: &Connection, last: &[Stored]) -> Result<usize, CaptureError> {
        let layout = &self.load.layout;
        let (behind, mut values) = self.behind()?;
        let is_rowid = |name: &String| {
            self.is_by_rowid && name == rollcall_types::columns::ROWID && layout.key.first() == Some(name)
        };
        let column = |name: &String| match is_rowid(name) {
            true => self.order[0].clone(),
            false => format!("{}.{}", self.table, quote(name)),
        };
        let targets: Vec<String> = (0..layout.columns.len()).map(|index| format!("c{index}")).collect();
        let sources: Vec<String> = layout.columns.iter().map(|entry| column(&entry.name)).collect();
        let key: Vec<String> = layout.key.iter().map(column).collect();
        let op = match self.load.kind == Kind::State.as_str() {
            true => format!("CASE WHEN {TOUCHED}({}) THEN 'U' ELSE 'S' END", key.join(",")),
            false => "'U'".to_owned(),
        };
        let order = self.order.join(",");
        let marks = vec!["?"; last.len()].join(",");
        values.extend_from_slice(last);
        let sql = format!(
            "INSERT INTO main._rollcall_journal (t, op, at, {}) SELECT {}, {op}, julianday('now'), {} FROM main.{}
             WHERE {behind} AND ({order}) <= ({marks}) ORDER BY {order}",
            targets.join(","),
            layout.number,
            sources.join(","),
            self.table
        );
        conn.execute(&sql, rusqlite::params_from_iter(values)).doing("journalling a chunk")
    }
}

/// A position as JSON text.
fn encode_position(values: &[Stored]) -> Result<String, CaptureError> {
    serde_json::to_string(values).map_err(|error| CaptureError::Damaged(error.to_string()))
}

fn decode_position(text: &str) -> Result<Vec<Stored>, CaptureError> {
    serde_json::from_str(text).map_err(|_| CaptureError::Damaged(format!("a load's position {text:?} cannot be read")))
}
