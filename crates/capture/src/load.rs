//! States the rows that were in a table before its triggers were, or that capture may have missed.
//!
//! A load walks the table in key order, a chunk at a time. Each chunk is journalled *in the write transaction that reads
//! it*, together with the position reached, so it can stop anywhere and never misses or invents a row beside live
//! changes. A row whose key was journalled since the load began is stated as `U`, any other as `S`: HQ may then take
//! `S` rows as new keys.
//!
//! Kinds: [`Kind::State`] replaces all that HQ knew of the table once complete (a first load, a reload after capture was
//! broken); [`Kind::Restate`] only repeats rows that gained a column.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, types::Value};

use crate::{
    error::{CaptureError, Doing},
    layout::{self, LOG_LAYOUT, Layout},
    shape::{Shape, quote},
};

/// What one call of a load step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadProgress {
    /// No table is being loaded.
    Idle,
    /// So many rows were stated; more remain.
    Stated {
        /// Rows journalled by this step.
        rows: usize,
    },
    /// A table's load was completed.
    Completed,
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
    /// A load began: c0 table.
    pub(crate) const LOAD_BEGUN: &str = "B";
    /// A load is complete: c0 table, c1 the `seq` of its beginning.
    pub(crate) const LOAD_COMPLETE: &str = "C";
    /// Changes are lost for ever: c0 first `seq`, c1 last `seq`, c2 reason.
    pub(crate) const LOST: &str = "L";
    /// A manifest: c0 the `seq` it begins behind, c1 the `seq` it ends at, c2 what it states of each table, as JSON.
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
pub(crate) fn begin(transaction: &Transaction<'_>, layout: &Layout, kind: Kind) -> Result<(), CaptureError> {
    let doing = "beginning a load";
    if kind == Kind::State {
        journal_log(transaction, log_op::LOAD_BEGUN, (&layout.table, &None::<i64>, &None::<i64>))?;
    } else if is_loading(transaction, &layout.table)? {
        // A full load is under way; begin it again with the new columns, which covers the rows to repeat.
        return begin(transaction, layout, Kind::State);
    }
    let begin: i64 = transaction
        .query_row("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = '_rollcall_journal'", [], |row| {
            row.get(0)
        })
        .doing(doing)?;
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

/// Runs loads a chunk at a time; remembers how much fits in a step.
#[derive(Debug)]
pub(crate) struct Loader {
    chunk_rows: usize,
    /// The load whose journalled keys are in `temp._rollcall_touched`, and up to which `seq` they are.
    touched: Option<(String, i64, i64)>,
}

struct Load {
    kind: String,
    begin: i64,
    position: Option<String>,
    layout: Layout,
}

impl Loader {
    pub(crate) fn new() -> Self {
        Self { chunk_rows: 128, touched: None }
    }

    /// Journals the next chunk of the first unfinished load.
    pub(crate) fn step(&mut self, conn: &mut Connection) -> Result<LoadProgress, CaptureError> {
        let doing = "loading existing rows";
        let Some(load) = next_load(conn)? else { return Ok(LoadProgress::Idle) };
        let shape = match Shape::read(conn, &load.layout.table) {
            Err(CaptureError::NoSuchTable(table)) => {
                // The table is gone; the health check says so. Nothing is left to state.
                conn.execute("DELETE FROM _rollcall_load WHERE name = ?1", [&table]).doing(doing)?;
                return Ok(LoadProgress::Completed);
            }
            other => other?,
        };
        let progress = self.chunk(conn, &load, &shape);
        if progress.is_err() {
            // What was rolled back took its list of touched keys with it.
            self.touched = None;
        }
        progress
    }

    fn chunk(&mut self, conn: &mut Connection, load: &Load, shape: &Shape) -> Result<LoadProgress, CaptureError> {
        let doing = "loading existing rows";
        self.prepare_touched(conn, load)?;
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        let started = Instant::now();
        self.note_touched(&transaction, load)?;
        let walk = Walk::new(shape, load);
        let last = walk.chunk_end(&transaction, self.chunk_rows)?;
        let progress = match last {
            Some(last) => {
                let rows = walk.journal_chunk(&transaction, &last)?;
                let position = encode_position(&last)?;
                transaction
                    .execute("UPDATE _rollcall_load SET position = ?2 WHERE name = ?1", (&shape.name, position))
                    .doing(doing)?;
                LoadProgress::Stated { rows }
            }
            None => {
                if load.kind == Kind::State.as_str() {
                    journal_log(&transaction, log_op::LOAD_COMPLETE, (&shape.name, &load.begin, &None::<i64>))?;
                }
                transaction.execute("DELETE FROM _rollcall_load WHERE name = ?1", [&shape.name]).doing(doing)?;
                LoadProgress::Completed
            }
        };
        // Not the commit: what a slow disk takes is not made less by smaller chunks, only paid more often.
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

    /// Makes an empty list of touched keys when another load is next.
    fn prepare_touched(&mut self, conn: &Connection, load: &Load) -> Result<(), CaptureError> {
        let current = self.touched.as_ref();
        if current.is_some_and(|(table, begin, _)| *table == load.layout.table && *begin == load.begin) {
            return Ok(());
        }
        let keys: Vec<String> = (0..load.layout.key.len()).map(|index| format!("k{index}")).collect();
        let keys = keys.join(",");
        conn.execute_batch(&format!(
            "DROP TABLE IF EXISTS temp._rollcall_touched;
             CREATE TEMP TABLE _rollcall_touched ({keys}, PRIMARY KEY ({keys}));"
        ))
        .doing("preparing a load")?;
        self.touched = Some((load.layout.table.clone(), load.begin, load.begin));
        Ok(())
    }

    /// Adds the keys journalled since the last look. Rows the load itself stated are among them: harmless, since the walk
    /// is past them.
    fn note_touched(&mut self, transaction: &Transaction<'_>, load: &Load) -> Result<(), CaptureError> {
        let doing = "noting keys changed during a load";
        let Some((_, _, seen)) = &mut self.touched else { return Ok(()) };
        let head: i64 = transaction
            .query_row("SELECT coalesce(max(seq), 0) FROM _rollcall_journal", [], |row| row.get(0))
            .doing(doing)?;
        for layout in layout::read_all(transaction)?.iter().filter(|layout| layout.table == load.layout.table) {
            let columns: Result<Vec<String>, _> = layout.key.iter().map(|name| layout.journal_column(name)).collect();
            transaction
                .execute(
                    &format!(
                        "INSERT OR IGNORE INTO temp._rollcall_touched
                         SELECT {} FROM main._rollcall_journal WHERE seq > ?1 AND seq <= ?2 AND t = ?3 AND op <> 'S'",
                        columns?.join(",")
                    ),
                    (*seen, head, layout.number),
                )
                .doing(doing)?;
        }
        *seen = head.max(*seen);
        Ok(())
    }
}

fn next_load(conn: &Connection) -> Result<Option<Load>, CaptureError> {
    let found: Option<(String, i64, i64, Option<String>)> = conn
        .query_row("SELECT kind, t, begin, position FROM _rollcall_load ORDER BY begin, name LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()
        .doing("looking for loads")?;
    let Some((kind, number, begin, position)) = found else { return Ok(None) };
    let layout = layout::read_all(conn)?.into_iter().find(|layout| layout.number == number);
    let layout = layout.ok_or_else(|| CaptureError::Damaged(format!("a load names layout {number}")))?;
    Ok(Some(Load { kind, begin, position, layout }))
}

/// A walk over a table in the order of its row number or, without one, its key.
struct Walk<'a> {
    load: &'a Load,
    table: String,
    order: Vec<String>,
}

impl<'a> Walk<'a> {
    fn new(shape: &Shape, load: &'a Load) -> Self {
        let order = match shape.rowid {
            Some(rowid) => vec![rowid.to_owned()],
            None => load.layout.key.iter().map(|name| quote(name)).collect(),
        };
        Self { load, table: quote(&shape.name), order }
    }

    /// `(a, b) > (?, ?)`, and the values, for what lies behind the position.
    fn behind(&self) -> Result<(String, Vec<Value>), CaptureError> {
        let Some(position) = &self.load.position else { return Ok(("1".to_owned(), Vec::new())) };
        let values = decode_position(position)?;
        let marks = vec!["?"; values.len()].join(",");
        Ok((format!("({}) > ({marks})", self.order.join(",")), values))
    }

    /// The position of the last row of the next chunk; none at the table's end.
    fn chunk_end(&self, conn: &Connection, rows: usize) -> Result<Option<Vec<Value>>, CaptureError> {
        let doing = "finding the end of a chunk";
        let (behind, values) = self.behind()?;
        let order = self.order.join(",");
        let sql = format!("SELECT {order} FROM {} WHERE {behind} ORDER BY {order} LIMIT {rows}", self.table);
        let mut statement = conn.prepare(&sql).doing(doing)?;
        let mut found = statement.query(rusqlite::params_from_iter(values)).doing(doing)?;
        let mut last = None;
        while let Some(row) = found.next().doing(doing)? {
            let position: Result<Vec<Value>, _> = (0..self.order.len()).map(|index| row.get(index)).collect();
            last = Some(position.doing(doing)?);
        }
        Ok(last)
    }

    /// Journals the rows behind the position up to and including `last`.
    fn journal_chunk(&self, conn: &Connection, last: &[Value]) -> Result<usize, CaptureError> {
        let layout = &self.load.layout;
        let (behind, mut values) = self.behind()?;
        let column = |name: &String| {
            if name == rollcall_types::columns::ROWID && !layout.key.is_empty() && layout.key[0] == *name {
                self.order[0].clone()
            } else {
                format!("{}.{}", self.table, quote(name))
            }
        };
        let targets: Vec<String> = (0..layout.columns.len()).map(|index| format!("c{index}")).collect();
        let sources: Vec<String> = layout.columns.iter().map(|entry| column(&entry.name)).collect();
        let touched: Vec<String> =
            layout.key.iter().enumerate().map(|(index, name)| format!("k{index} IS {}", column(name))).collect();
        let op = if self.load.kind == Kind::State.as_str() {
            format!(
                "CASE WHEN EXISTS(SELECT 1 FROM temp._rollcall_touched WHERE {}) THEN 'U' ELSE 'S' END",
                touched.join(" AND ")
            )
        } else {
            "'U'".to_owned()
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

/// A position as JSON text; bytes are kept as a list of numbers.
fn encode_position(values: &[Value]) -> Result<String, CaptureError> {
    let list: Vec<serde_json::Value> = values
        .iter()
        .map(|value| match value {
            Value::Null => serde_json::Value::Null,
            Value::Integer(number) => serde_json::json!({ "i": number }),
            Value::Real(number) => serde_json::json!({ "r": number.to_bits() }),
            Value::Text(text) => serde_json::json!({ "t": text }),
            Value::Blob(bytes) => serde_json::json!({ "b": bytes }),
        })
        .collect();
    serde_json::to_string(&list).map_err(|error| CaptureError::Damaged(error.to_string()))
}

fn decode_position(text: &str) -> Result<Vec<Value>, CaptureError> {
    let damaged = || CaptureError::Damaged(format!("a load's position {text:?} cannot be read"));
    let list: Vec<serde_json::Value> = serde_json::from_str(text).map_err(|_| damaged())?;
    list.iter()
        .map(|value| {
            let field = |name: &str| value.get(name).filter(|_| value.is_object());
            if value.is_null() {
                Some(Value::Null)
            } else if let Some(number) = field("i") {
                number.as_i64().map(Value::Integer)
            } else if let Some(bits) = field("r") {
                bits.as_u64().map(|bits| Value::Real(f64::from_bits(bits)))
            } else if let Some(text) = field("t") {
                text.as_str().map(|text| Value::Text(text.to_owned()))
            } else {
                let bytes = field("b")?.as_array()?;
                bytes
                    .iter()
                    .map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
                    .collect::<Option<_>>()
                    .map(Value::Blob)
            }
        })
        .map(|value| value.ok_or_else(damaged))
        .collect()
}
