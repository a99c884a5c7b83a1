//! HQ's tables at the site: rows are staged beside the store's database, then applied in one transaction with their version.
//!
//! Staging is durable, so that a fetch goes on where it broke. What is staged is either a change of what is applied, or the
//! whole table. A table that the store does not have is built aside in short transactions and then renamed into place; one
//! that it has is compared first, and only what differs is written, so that the store's own programs wait for that alone.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use arrow_array::{
    Array, RecordBatch, StringArray,
    cast::AsArray,
    types::{Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use arrow_schema::{DataType, TimeUnit};
use chrono::{DateTime, Days, NaiveDate};
use ring::digest;
use rollcall_types::{Seq, columns, shared::EDIT_NUMBER};
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params_from_iter,
    types::{Value, ValueRef},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{CaptureError, Doing},
    install,
    shape::{Key, Shape, quote},
    shared,
};

/// How a published table is to be at the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncomingTable {
    /// Its name.
    pub name: String,
    /// Names and types; the types as Delta calls them.
    pub columns: Vec<(String, String)>,
    /// The columns that name a row.
    pub key: Vec<String>,
    /// Which rows of HQ's table the site gets: it changes with the rule and with the site's attributes.
    pub audience: u64,
    /// Whether rows changed at the site are put right, or only told of.
    pub mends: bool,
    /// The store's programs change it as well.
    #[serde(default)]
    pub shared: bool,
}

/// What is applied of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppliedTable {
    /// The position of the newest row.
    pub version: Seq,
    /// See [`IncomingTable::audience`].
    pub audience: u64,
    /// Rows found changed at the site and put right, ever.
    pub edits: u64,
    /// Whether they are put right.
    pub mends: bool,
    /// The store's programs change it as well; see [`Incoming::settle`].
    pub shared: bool,
    /// When HQ published the version, microseconds since 1970; 0 if that is not known.
    pub published_at: i64,
}

/// A fetch that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staged {
    /// See [`IncomingTable::audience`].
    pub audience: u64,
    /// Rows published up to here are staged.
    pub through: Seq,
    /// Whether it is the whole table, or a change.
    pub whole: bool,
    /// The version that the change is one of; 0 for the whole table.
    pub base: Seq,
}

/// Rows of one of HQ's tables that are put into another at their time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueChange {
    /// The table that changes.
    pub table: String,
    /// The table that has the rows.
    pub next: String,
    /// Which rows of it.
    pub number: u64,
    /// When, by this machine's clock, microseconds since 1970.
    pub at_micros: i64,
    /// The version of `next` that has them.
    pub version: Seq,
}

/// What applying did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows written.
    pub written: u64,
    /// Rows removed.
    pub removed: u64,
    /// How long the store's own writers had to wait at most.
    pub locked: Duration,
}

/// The agent's hold on HQ's tables in one store's database. Calls block on the file.
///
/// What is staged is in a file of its own, attached: transactions that only stage begin deferred, for an immediate one would
/// lock the store's file as well.
#[derive(Debug)]
pub struct Incoming {
    conn: Connection,
    /// Messages staged since the staging file's WAL was last moved into it.
    staged: u32,
}

/// How long a write of ours waits for the store's programs.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// A transaction that builds a new table aside takes about so long.
const BUILD_TARGET: Duration = Duration::from_millis(3);
/// Rows of the first one.
const BUILD_ROWS: i64 = 200;
/// After so many of them, what was written is moved out of the WAL.
const CHUNKS_PER_CHECKPOINT: u32 = 8;
/// After so many messages, what was staged is moved out of its WAL.
const STAGES_PER_CHECKPOINT: u32 = 32;
/// The table that is built before it is renamed.
const ASIDE: &str = "_rollcall_incoming";

const APPLIED: &str = "CREATE TABLE IF NOT EXISTS main._rollcall_applied (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, audience INTEGER NOT NULL, digest INTEGER NOT NULL,
    made INTEGER NOT NULL, spec TEXT NOT NULL, edits INTEGER NOT NULL, at TEXT NOT NULL,
    published_at INTEGER NOT NULL DEFAULT 0)";

const STAGING: &str = "PRAGMA incoming.journal_mode = WAL; PRAGMA incoming.synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS incoming.fetches (name TEXT PRIMARY KEY, number INTEGER NOT NULL, audience INTEGER NOT NULL,
        through INTEGER NOT NULL, whole INTEGER NOT NULL, base INTEGER NOT NULL, spec TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS incoming.adopted (name TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS incoming.due (name TEXT NOT NULL, next TEXT NOT NULL, number INTEGER NOT NULL,
        at INTEGER NOT NULL, version INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (name, number));";

/// One row of `_rollcall_applied`.
struct Applied {
    table: AppliedTable,
    digest: u64,
    /// Whether the table was made here, and so may be given further columns.
    made: bool,
    spec: IncomingTable,
}

impl Incoming {
    /// Opens the store's database, and what is staged in `directory`.
    pub fn open(database: &Path, directory: &Path) -> Result<Self, CaptureError> {
        let doing = "opening the store's database for HQ's tables";
        fs::create_dir_all(directory).doing(doing)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(database, flags).doing(doing)?;
        conn.busy_timeout(BUSY_TIMEOUT).doing(doing)?;
        conn.execute_batch("PRAGMA wal_autocheckpoint = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -512;")
            .doing(doing)?;
        // Else a view of the store's that refers to something missing, be it the very table that is built aside, would
        // forbid to rename that.
        conn.execute_batch("PRAGMA legacy_alter_table = ON").doing(doing)?;
        let staging = directory.join("incoming.sqlite");
        // What is attached must be there: the store's own database is never made by us.
        Connection::open(&staging)
            .and_then(|conn| conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA user_version = 1"))
            .doing(doing)?;
        conn.execute("ATTACH ?1 AS incoming", [staging.to_string_lossy()]).doing(doing)?;
        conn.execute_batch(STAGING).doing(doing)?;
        let own = Self { conn, staged: 0 };
        own.upgrade()?;
        Ok(own)
    }

    /// Adds what earlier versions of the agent did not note.
    fn upgrade(&self) -> Result<(), CaptureError> {
        let doing = "bringing the notes of HQ's tables up to date";
        let lacks = "SELECT count(*) = 0 FROM pragma_table_info('_rollcall_applied') WHERE name = 'published_at'";
        if has_applied(&self.conn)? && self.conn.query_row(lacks, [], |row| row.get(0)).doing(doing)? {
            let more = "ALTER TABLE main._rollcall_applied ADD COLUMN published_at INTEGER NOT NULL DEFAULT 0";
            self.conn.execute_batch(more).doing(doing)?;
        }
        Ok(())
    }

    /// What is applied, by table.
    pub fn applied(&self) -> Result<BTreeMap<String, AppliedTable>, CaptureError> {
        let doing = "reading which of HQ's tables are applied";
        if !has_applied(&self.conn)? {
            return Ok(BTreeMap::new());
        }
        let mut statement = self.conn.prepare_cached("SELECT name FROM main._rollcall_applied").doing(doing)?;
        let names: Vec<String> =
            statement.query_map([], |row| row.get(0)).doing(doing)?.collect::<Result<_, _>>().doing(doing)?;
        let mut all = BTreeMap::new();
        for name in names {
            if let Some(applied) = applied(&self.conn, &name)? {
                all.insert(name, applied.table);
            }
        }
        Ok(all)
    }

    /// The fetch under way for a table.
    pub fn staged(&self, table: &str) -> Result<Option<Staged>, CaptureError> {
        self.conn
            .query_row("SELECT audience, through, whole, base FROM incoming.fetches WHERE name = ?1", [table], |row| {
                Ok(Staged {
                    audience: row.get::<_, i64>(0)? as u64,
                    through: seq(row.get(1)?),
                    whole: row.get(2)?,
                    base: seq(row.get(3)?),
                })
            })
            .optional()
            .doing("looking for a fetch under way")
    }

    /// Begins a fetch of what was published behind `after`, or goes on with it if it stands there.
    pub fn begin(&mut self, table: &IncomingTable, after: Seq, whole: bool) -> Result<(), CaptureError> {
        let doing = "beginning to fetch one of HQ's tables";
        let spec = encode_spec(table)?;
        if let Some((_, kind)) = table.columns.iter().find(|(_, kind)| !is_kind(kind)) {
            return Err(CaptureError::Damaged(format!(
                "HQ's table {} has a column of the unknown type {kind}",
                table.name
            )));
        }
        let base = match whole {
            true => Seq(0),
            false => applied(&self.conn, &table.name)?.map_or(Seq(0), |applied| applied.table.version),
        };
        let goes_on =
            self.staged(&table.name)? == Some(Staged { audience: table.audience, through: after, whole, base });
        let known: Option<(i64, String)> = self
            .conn
            .query_row("SELECT number, spec FROM incoming.fetches WHERE name = ?1", [&table.name], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
            .doing(doing)?;
        if goes_on && known.as_ref().is_some_and(|(_, known)| *known == spec) {
            return Ok(());
        }
        // What lies between was staged once and cannot be gone on with: as of other columns, or on another version.
        if after != base {
            return Err(CaptureError::Damaged(format!("what was staged of {} is gone", table.name)));
        }
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Deferred).doing(doing)?;
        let number = match known {
            Some((number, _)) => number,
            None => transaction
                .query_row("SELECT coalesce(max(number), 0) + 1 FROM incoming.fetches", [], |row| row.get(0))
                .doing(doing)?,
        };
        let declared = declare(table, true);
        transaction
            .execute_batch(&format!(
                "DROP TABLE IF EXISTS incoming.r{number};
                 CREATE TABLE incoming.r{number} (_op TEXT NOT NULL, {declared});"
            ))
            .doing(doing)?;
        transaction
            .execute(
                "INSERT OR REPLACE INTO incoming.fetches (name, number, audience, through, whole, base, spec)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                (&table.name, number, table.audience as i64, after.0 as i64, whole, base.0 as i64, spec),
            )
            .doing(doing)?;
        transaction.commit().doing(doing)
    }

    /// Stages rows, the last of which was published at `through`. Their first column is the operation.
    pub fn stage(&mut self, table: &str, rows: &RecordBatch, through: Seq) -> Result<(), CaptureError> {
        let doing = "staging rows of HQ's";
        let (number, spec) = self.staging(table)?;
        let mut columns = Vec::with_capacity(spec.columns.len() + 1);
        for name in std::iter::once(columns::OP).chain(spec.columns.iter().map(|(name, _)| name.as_str())) {
            let column = rows.column_by_name(name);
            columns.push(column.ok_or_else(|| CaptureError::Damaged(format!("HQ's rows lack column {name:?}")))?);
        }
        let marks = vec!["?"; columns.len()].join(",");
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Deferred).doing(doing)?;
        {
            let mut insert = transaction
                .prepare(&format!("INSERT OR REPLACE INTO incoming.r{number} VALUES ({marks})"))
                .doing(doing)?;
            for row in 0..rows.num_rows() {
                let values: Result<Vec<Value>, CaptureError> =
                    columns.iter().map(|column| value(column.as_ref(), row)).collect();
                insert.execute(params_from_iter(values?)).doing(doing)?;
            }
        }
        transaction
            .execute("UPDATE incoming.fetches SET through = ?2 WHERE name = ?1", (table, through.0 as i64))
            .doing(doing)?;
        transaction.commit().doing(doing)?;
        self.staged += 1;
        if self.staged.is_multiple_of(STAGES_PER_CHECKPOINT) {
            self.checkpoint("incoming");
        }
        Ok(())
    }

    /// Makes what is staged the table's content, as of `version`. When it was fetched because rows were changed here
    /// (`mending`), what differs is counted as edits.
    pub fn apply(
        &mut self,
        table: &str,
        version: Seq,
        published_at: i64,
        mending: bool,
    ) -> Result<Report, CaptureError> {
        let (number, spec) = self.staging(table)?;
        let whole: bool = self
            .conn
            .query_row("SELECT whole FROM incoming.fetches WHERE name = ?1", [table], |row| row.get(0))
            .doing("looking at what is staged")?;
        let refuse = |reason: String| CaptureError::Differs { table: table.to_owned(), reason };
        let captured = install::is_installed(&self.conn)?
            && install::captured_layouts(&self.conn)?.iter().any(|layout| layout.table.eq_ignore_ascii_case(table));
        if captured {
            let why = format!("the site captures it as its own; run `rollcall-site detach --table {table}` there");
            return Err(refuse(why));
        }
        let known = applied(&self.conn, table)?;
        let shape = match Shape::read(&self.conn, table) {
            Ok(shape) => Some(shape),
            Err(CaptureError::NoSuchTable(_)) => None,
            Err(error) => return Err(error),
        };
        let staged = Rows { source: format!("incoming.r{number}"), spec: &spec, published_at };
        // What has taken effect here is on top of whatever HQ publishes, until HQ publishes it itself.
        self.lay_over(&staged, &self.arrived(table, now_micros())?)?;
        let report = match shape {
            None if whole => self.build(&staged, version, known.as_ref())?,
            None => {
                // Somebody dropped it: a change of it makes no table.
                self.forget_applied(table)?;
                return Err(refuse("it was dropped at the site; it is fetched whole".to_owned()));
            }
            Some(shape) => {
                let made = known.as_ref().is_some_and(|known| known.made);
                let missing = compare(&shape, &spec, made).map_err(refuse)?;
                if known.is_none() && !self.is_adopted(table)? && self.count(table)? > 0 {
                    return Err(refuse(format!(
                        "the store has a table of this name with rows of its own; rename it, or let HQ have it with \
                         `rollcall-site adopt {table}`"
                    )));
                }
                if whole {
                    self.replace(&staged, version, known.as_ref(), &missing, mending)?
                } else {
                    self.change(&staged, version, known.as_ref(), &missing)?
                }
            }
        };
        self.checkpoint("main");
        self.clear(table)?;
        Ok(report)
    }

    /// Forgets a fetch under way.
    pub fn clear(&mut self, table: &str) -> Result<(), CaptureError> {
        let doing = "clearing what was staged";
        let number: Option<i64> = self
            .conn
            .query_row("SELECT number FROM incoming.fetches WHERE name = ?1", [table], |row| row.get(0))
            .optional()
            .doing(doing)?;
        let Some(number) = number else { return Ok(()) };
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Deferred).doing(doing)?;
        transaction.execute_batch(&format!("DROP TABLE IF EXISTS incoming.r{number}")).doing(doing)?;
        transaction.execute("DELETE FROM incoming.fetches WHERE name = ?1", [table]).doing(doing)?;
        transaction.commit().doing(doing)?;
        // The space is given back.
        let mut freed = self.conn.prepare("PRAGMA incoming.incremental_vacuum").doing(doing)?;
        let mut steps = freed.query([]).doing(doing)?;
        while steps.next().doing(doing)?.is_some() {}
        drop(steps);
        drop(freed);
        self.checkpoint("incoming");
        Ok(())
    }

    /// Moves what we wrote from the WAL into the database, as far as nobody is kept waiting: else a store's own commit would
    /// do all of it at once. Where there is no WAL there is nothing to do.
    fn checkpoint(&self, schema: &str) {
        let done = self.conn.query_row(&format!("PRAGMA {schema}.wal_checkpoint(PASSIVE)"), [], |_| Ok(()));
        if let Err(error) = done {
            tracing::debug!(%error, "no checkpoint now");
        }
    }

    /// Makes the next fetch of every table a whole one: HQ may not remember what it published.
    pub fn distrust(&mut self) -> Result<(), CaptureError> {
        let doing = "forgetting which versions are applied";
        let fetches: Vec<String> = {
            let mut statement = self.conn.prepare("SELECT name FROM incoming.fetches").doing(doing)?;
            statement.query_map([], |row| row.get(0)).doing(doing)?.collect::<Result<_, _>>().doing(doing)?
        };
        fetches.iter().try_for_each(|table| self.clear(table))?;
        if has_applied(&self.conn)? {
            self.conn.execute("UPDATE main._rollcall_applied SET audience = 0", []).doing(doing)?;
        }
        Ok(())
    }

    /// Lets HQ have a table in which the store has rows of its own: they are replaced by the next fetch.
    pub fn adopt(&self, table: &str) -> Result<(), CaptureError> {
        self.conn
            .execute("INSERT OR IGNORE INTO incoming.adopted (name) VALUES (?1)", [table])
            .doing("adopting a table")?;
        Ok(())
    }

    /// Notes what is to take effect, in the place of what was noted before; what has already is not done again.
    pub fn schedule(&mut self, changes: &[DueChange]) -> Result<(), CaptureError> {
        let doing = "noting what takes effect later";
        let known: Vec<(String, i64)> = {
            let mut statement = self.conn.prepare_cached("SELECT name, number FROM incoming.due").doing(doing)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).doing(doing)?;
            rows.collect::<Result<_, _>>().doing(doing)?
        };
        if known.is_empty() && changes.is_empty() {
            return Ok(());
        }
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Deferred).doing(doing)?;
        for (name, number) in known {
            if !changes.iter().any(|of| of.table == name && of.number as i64 == number) {
                let gone = "DELETE FROM incoming.due WHERE name = ?1 AND number = ?2";
                transaction.execute(gone, (&name, number)).doing(doing)?;
            }
        }
        for of in changes {
            transaction
                .execute(
                    "INSERT INTO incoming.due (name, next, number, at, version) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (name, number) DO UPDATE SET at = excluded.at, version = excluded.version",
                    (&of.table, &of.next, of.number as i64, of.at_micros, of.version.0 as i64),
                )
                .doing(doing)?;
        }
        transaction.commit().doing(doing)
    }

    /// When something is to take effect next, microseconds since 1970.
    pub fn next_due(&self) -> Result<Option<i64>, CaptureError> {
        self.conn
            .query_row("SELECT min(at) FROM incoming.due WHERE NOT done", [], |row| row.get(0))
            .doing("looking what takes effect next")
    }

    /// Tables in which something is to take effect by now and has not.
    pub fn due_tables(&self) -> Result<Vec<String>, CaptureError> {
        let doing = "looking what takes effect";
        let mut statement = self
            .conn
            .prepare_cached("SELECT DISTINCT name FROM incoming.due WHERE NOT done AND at <= ?1 ORDER BY name")
            .doing(doing)?;
        let names = statement.query_map([now_micros()], |row| row.get(0)).doing(doing)?;
        names.collect::<Result<_, _>>().doing(doing)
    }

    /// Puts rows whose time has come into a table; none if their rows are not here yet, or the table is not.
    pub fn take_effect(&mut self, table: &str) -> Result<Option<Report>, CaptureError> {
        let due = self.arrived(table, now_micros())?;
        let Some(known) = applied(&self.conn, table)?.filter(|_| due.iter().any(|of| !of.1)) else { return Ok(None) };
        let doing = "putting rows into effect";
        let refuse = |reason: String| CaptureError::Differs { table: table.to_owned(), reason };
        let shape = Shape::read(&self.conn, table)?;
        let missing = compare(&shape, &known.spec, known.made).map_err(refuse)?;
        self.conn
            .execute_batch(&format!(
                "DROP TABLE IF EXISTS temp._rollcall_due;
                 CREATE TEMP TABLE _rollcall_due (_op TEXT NOT NULL, {})",
                declare(&known.spec, true)
            ))
            .doing(doing)?;
        let source = "temp._rollcall_due".to_owned();
        let rows = Rows { source, spec: &known.spec, published_at: known.table.published_at };
        self.lay_over(&rows, &due)?;
        let report = self.change(&rows, known.table.version, Some(&known), &missing)?;
        self.conn.execute_batch("DROP TABLE temp._rollcall_due").doing(doing)?;
        self.checkpoint("main");
        // Done twice it changes nothing.
        for (of, _) in &due {
            let done = "UPDATE incoming.due SET done = 1 WHERE name = ?1 AND number = ?2";
            self.conn.execute(done, (table, of.number as i64)).doing(doing)?;
        }
        Ok(Some(report))
    }

    /// What is to be in a table by `now`, in the order of effect, if its rows are here; and whether it has been put there.
    fn arrived(&self, table: &str, now: i64) -> Result<Vec<(DueChange, bool)>, CaptureError> {
        let doing = "looking what takes effect";
        let mut statement = self
            .conn
            .prepare_cached(
                "SELECT next, number, at, version, done FROM incoming.due WHERE name = ?1 AND at <= ?2 ORDER BY at, number",
            )
            .doing(doing)?;
        let due = statement
            .query_map((table, now), |row| {
                let change = DueChange {
                    table: table.to_owned(),
                    next: row.get(0)?,
                    number: row.get::<_, i64>(1)?.unsigned_abs(),
                    at_micros: row.get(2)?,
                    version: seq(row.get(3)?),
                };
                Ok((change, row.get(4)?))
            })
            .doing(doing)?;
        let due: Vec<(DueChange, bool)> = due.collect::<Result<_, _>>().doing(doing)?;
        let mut arrived = Vec::with_capacity(due.len());
        for of in due {
            let next = applied(&self.conn, &of.0.next)?;
            if next.is_some_and(|next| next.table.version >= of.0.version) {
                arrived.push(of);
            }
        }
        Ok(arrived)
    }

    /// Adds rows that are due to others: with their keys, they take their place.
    fn lay_over(&self, rows: &Rows<'_>, due: &[(DueChange, bool)]) -> Result<(), CaptureError> {
        let doing = "putting rows into effect";
        let (spec, source) = (rows.spec, &rows.source);
        for (of, _) in due {
            let has = applied(&self.conn, &of.next)?.map(|next| next.spec.columns).unwrap_or_default();
            let columns = quoted(spec.columns.iter().map(|(name, _)| name));
            let keys = quoted(&spec.key);
            let same_key = keys.iter().map(|key| format!("t.{key} = n.{key}")).collect::<Vec<_>>().join(" AND ");
            // A column that the table got since stays as it is.
            let values = spec.columns.iter().map(|(name, _)| match has.iter().any(|(known, _)| known == name) {
                true => format!("n.{}", quote(name)),
                false => format!("(SELECT t.{} FROM main.{} t WHERE {same_key})", quote(name), quote(&spec.name)),
            });
            let (next, values) = (quote(&of.next), values.collect::<Vec<_>>().join(","));
            self.conn
                .execute(
                    &format!(
                        "INSERT OR REPLACE INTO {source} (_op, {0}) SELECT 'D', {0} FROM main.{next}
                         WHERE scheduled_as = ?1 AND is_gone",
                        keys.join(",")
                    ),
                    [of.number as i64],
                )
                .doing(doing)?;
            self.conn
                .execute(
                    &format!(
                        "INSERT OR REPLACE INTO {source} (_op, {}) SELECT 'U', {values} FROM main.{next} n
                         WHERE n.scheduled_as = ?1 AND NOT n.is_gone",
                        columns.join(",")
                    ),
                    [of.number as i64],
                )
                .doing(doing)?;
        }
        Ok(())
    }

    /// Whether the table is what was applied; reads it whole. A table that is gone is not.
    pub fn is_as_applied(&self, table: &str) -> Result<bool, CaptureError> {
        let Some(applied) = applied(&self.conn, table)? else { return Ok(true) };
        if applied.spec.shared {
            // The store's programs may change it; but not unnoticed.
            return shared::is_watched(&self.conn, table);
        }
        let columns = quoted(applied.spec.columns.iter().map(|(name, _)| name)).join(",");
        match digest_of(&self.conn, &format!("SELECT {columns} FROM main.{}", quote(table))) {
            Ok(found) => Ok(found == applied.digest),
            // A table or a column is gone.
            Err(CaptureError::Sqlite { source, .. }) if source.sqlite_error_code().is_none_or(is_schema_error) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Tables that are shared, or were and have edits on which HQ has not decided.
    pub fn edited(&self) -> Result<Vec<String>, CaptureError> {
        let mut edited = Vec::new();
        for (name, table) in self.applied()? {
            let waits = || -> Result<bool, CaptureError> {
                let edits = format!("SELECT count(*) > 0 FROM main.{}", quote(&shared::edits_of(&name)));
                self.conn.query_row(&edits, [], |row| row.get(0)).doing("looking for edits that wait")
            };
            if table.shared || shared::has_edits_table(&self.conn, &name)? && waits()? {
                edited.push(name);
            }
        }
        Ok(edited)
    }

    /// HQ has decided on the store's edits of a shared table up to this number: what was held back takes effect.
    pub fn settle(&mut self, table: &str, through: u64) -> Result<(), CaptureError> {
        let Some(known) = applied(&self.conn, table)? else { return Ok(()) };
        let doing = "settling edits of a shared table";
        if !shared::has_edits_table(&self.conn, table)? {
            return Ok(());
        }
        let oldest = format!("SELECT min({EDIT_NUMBER}) FROM main.{}", quote(&shared::edits_of(table)));
        let oldest: Option<i64> = self.conn.query_row(&oldest, [], |row| row.get(0)).doing(doing)?;
        if oldest.is_none_or(|oldest| oldest.unsigned_abs() > through) {
            return Ok(());
        }
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        shared::settle(&transaction, &known.spec, through)?;
        transaction.commit().doing(doing)?;
        self.checkpoint("main");
        Ok(())
    }

    fn staging(&self, table: &str) -> Result<(i64, IncomingTable), CaptureError> {
        let (number, spec): (i64, String) = self
            .conn
            .query_row("SELECT number, spec FROM incoming.fetches WHERE name = ?1", [table], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .doing("looking at what is staged")?;
        Ok((number, decode_spec(&spec)?))
    }

    fn is_adopted(&self, table: &str) -> Result<bool, CaptureError> {
        self.conn
            .query_row("SELECT count(*) > 0 FROM incoming.adopted WHERE name = ?1", [table], |row| row.get(0))
            .doing("looking for an adopted table")
    }

    fn count(&self, table: &str) -> Result<i64, CaptureError> {
        self.conn
            .query_row(&format!("SELECT count(*) FROM main.{}", quote(table)), [], |row| row.get(0))
            .doing("counting the store's own rows")
    }

    fn forget_applied(&mut self, table: &str) -> Result<(), CaptureError> {
        self.clear(table)?;
        self.conn
            .execute("DELETE FROM main._rollcall_applied WHERE name = ?1", [table])
            .doing("forgetting a table that was dropped")?;
        Ok(())
    }

    /// Builds a table that the store does not have, aside, and renames it into place.
    fn build(&mut self, staged: &Rows<'_>, version: Seq, known: Option<&Applied>) -> Result<Report, CaptureError> {
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
            let last: Option<i64> = self
                .conn
                .query_row(
                    &format!(
                        "SELECT max(rowid) FROM (SELECT rowid FROM {} WHERE rowid > ?1 ORDER BY rowid LIMIT ?2)",
                        staged.source
                    ),
                    (after, rows),
                    |row| row.get(0),
                )
                .doing(doing)?;
            let Some(last) = last else { break };
            let began = Instant::now();
            let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
            let written = transaction
                .execute(
                    &format!(
                        "INSERT INTO main.{ASIDE} ({columns}) SELECT {columns} FROM {}
                         WHERE rowid > ?1 AND rowid <= ?2 AND _op <> 'D'",
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
        note_applied(&transaction, staged, version, digest, true, known.map_or(0, |known| known.table.edits))?;
        transaction.commit().doing(doing)?;
        report.locked = report.locked.max(began.elapsed());
        Ok(report)
    }

    /// Makes a table that is there equal to what is staged. What differs is found before anything is locked.
    fn replace(
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
        // A column that the table lacks is given to it below; nothing in it can be equal yet.
        let is_same: Vec<String> = spec
            .columns
            .iter()
            .map(|column| match missing.contains(&column) {
                true => format!("r.{} IS NULL", quote(&column.0)),
                false => format!("t.{0} IS r.{0}", quote(&column.0)),
            })
            .collect();
        let same_key = on_keys(&keys);
        self.conn
            .execute_batch(&format!(
                "DROP TABLE IF EXISTS temp._rollcall_up; DROP TABLE IF EXISTS temp._rollcall_gone;
                 CREATE TEMP TABLE _rollcall_up AS SELECT {} FROM {rows} r WHERE r._op <> 'D'
                     AND NOT EXISTS (SELECT 1 FROM {table} t WHERE {same_key} AND {});
                 CREATE TEMP TABLE _rollcall_gone AS SELECT {} FROM {table} t
                     WHERE NOT EXISTS (SELECT 1 FROM {rows} r WHERE {same_key} AND r._op <> 'D');",
                columns.iter().map(|name| format!("r.{name}")).collect::<Vec<_>>().join(","),
                is_same.join(" AND "),
                keys.iter().map(|name| format!("t.{name}")).collect::<Vec<_>>().join(","),
            ))
            .doing(doing)?;
        let digest = digest_of(&self.conn, &format!("SELECT {} FROM {rows} WHERE _op <> 'D'", columns.join(",")))?;
        let differing: i64 = self
            .conn
            .query_row(
                "SELECT (SELECT count(*) FROM temp._rollcall_up) + (SELECT count(*) FROM temp._rollcall_gone)",
                [],
                |row| row.get(0),
            )
            .doing(doing)?;
        let edits = known.map_or(0, |known| known.table.edits) + if mending { differing.unsigned_abs() } else { 0 };
        // A key of HQ's is never null, and a null is found by no comparison.
        let is_null = keys.iter().map(|name| format!("{name} IS NULL")).collect::<Vec<_>>().join(" OR ");
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
        let removed = transaction
            .execute(
                &format!(
                    "DELETE FROM {table} WHERE ({0}) IN (SELECT {0} FROM temp._rollcall_gone r WHERE {free})",
                    keys.join(",")
                ),
                [],
            )
            .doing(doing)?;
        let removed = match nulls {
            true => removed + transaction.execute(&format!("DELETE FROM {table} WHERE {is_null}"), []).doing(doing)?,
            false => removed,
        };
        let written = transaction.execute(&upsert(spec, &table, "temp._rollcall_up r", &free), []).doing(doing)?;
        shared::hold(&transaction, spec, &rows, true)?;
        shared::end(&transaction, spec)?;
        note_applied(&transaction, staged, version, digest, made, edits)?;
        transaction.commit().doing(doing)?;
        let locked = began.elapsed();
        self.conn.execute_batch("DROP TABLE temp._rollcall_up; DROP TABLE temp._rollcall_gone").doing(doing)?;
        Ok(Report { written: written as u64, removed: removed as u64, locked })
    }

    /// Changes the rows that are staged.
    fn change(
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
        let touched = format!(
            "SELECT {} FROM {rows} r JOIN {table} t ON {}",
            columns.iter().map(|name| format!("t.{name}")).collect::<Vec<_>>().join(","),
            on_keys(&keys)
        );
        let began = Instant::now();
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        add_columns(&transaction, &spec.name, missing)?;
        // A column that is added is null in every row: that does not change the digest.
        let before = digest_of(&transaction, &touched)?;
        share_or_not(&transaction, spec, Some(known))?;
        shared::begin(&transaction, spec)?;
        let free = shared::is_settled(spec, "r");
        let removed = transaction
            .execute(
                &format!(
                    "DELETE FROM {table} WHERE ({0}) IN (SELECT {0} FROM {rows} r WHERE _op = 'D' AND {free})",
                    keys.join(",")
                ),
                [],
            )
            .doing(doing)?;
        let changed = upsert(spec, &table, &format!("{rows} r"), &format!("_op <> 'D' AND {free}"));
        let written = transaction.execute(&changed, []).doing(doing)?;
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

/// Rows to be applied, each with an `_op`.
struct Rows<'a> {
    /// The table that has them.
    source: String,
    spec: &'a IncomingTable,
    /// See [`AppliedTable::published_at`].
    published_at: i64,
}

fn now_micros() -> i64 {
    crate::Source::clock_micros()
}

fn seq(number: i64) -> Seq {
    Seq(number.unsigned_abs())
}

pub(crate) fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Vec<String> {
    names.into_iter().map(|name| quote(name.as_ref())).collect()
}

pub(crate) fn on_keys(keys: &[String]) -> String {
    keys.iter().map(|key| format!("t.{key} = r.{key}")).collect::<Vec<_>>().join(" AND ")
}

/// Inserts rows of `source`, or makes the rows that have their keys equal to them.
pub(crate) fn upsert(spec: &IncomingTable, table: &str, source: &str, condition: &str) -> String {
    let columns = quoted(spec.columns.iter().map(|(name, _)| name)).join(",");
    let others = spec.columns.iter().filter(|(name, _)| !spec.key.contains(name));
    let changes: Vec<String> = others.map(|(name, _)| format!("{0} = excluded.{0}", quote(name))).collect();
    let conflict = match changes.is_empty() {
        true => "NOTHING".to_owned(),
        false => format!("UPDATE SET {}", changes.join(",")),
    };
    format!(
        "INSERT INTO {table} ({columns}) SELECT {columns} FROM {source} WHERE {condition} ON CONFLICT ({}) DO {conflict}",
        quoted(&spec.key).join(",")
    )
}

fn add_columns(transaction: &Transaction<'_>, table: &str, missing: &[&(String, String)]) -> Result<(), CaptureError> {
    for (name, kind) in missing {
        transaction
            .execute_batch(&format!("ALTER TABLE main.{} ADD COLUMN {} {}", quote(table), quote(name), declared(kind)))
            .doing("adding a column to one of HQ's tables")?;
    }
    Ok(())
}

fn encode_spec(table: &IncomingTable) -> Result<String, CaptureError> {
    serde_json::to_string(table).map_err(|error| CaptureError::Damaged(error.to_string()))
}

fn decode_spec(text: &str) -> Result<IncomingTable, CaptureError> {
    serde_json::from_str(text).map_err(|error| CaptureError::Damaged(error.to_string()))
}

/// The column definitions of a table; staged rows have a number of their own, by which they keep their order.
pub(crate) fn declare(table: &IncomingTable, staged: bool) -> String {
    let key = quoted(&table.key).join(",");
    let not_null = |name: &String| if !staged && table.key.contains(name) { " NOT NULL" } else { "" };
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|(name, kind)| format!("{} {}{}", quote(name), declared(kind), not_null(name)))
        .collect();
    // A key that is one integer would be the row's number itself; `UNIQUE` is the same key without that.
    let constraint = if staged { "UNIQUE" } else { "PRIMARY KEY" };
    format!("{}, {constraint} ({key})", columns.join(", "))
}

/// Whether it is one of the types of Delta's that [`declared`] knows. What HQ sends becomes part of statements.
fn is_kind(kind: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_decimal = |text: &str| {
        let inner = text.strip_prefix("decimal(").and_then(|text| text.strip_suffix(')'));
        inner
            .and_then(|inner| inner.split_once(','))
            .is_some_and(|(digits, scale)| is_number(digits) && is_number(scale))
    };
    ["boolean", "integer", "long", "double", "binary", "date", "timestamp", "string"].contains(&kind)
        || is_decimal(kind)
}

/// SQLite's type for one of Delta's.
pub(crate) fn declared(kind: &str) -> String {
    match kind {
        "boolean" => "BOOLEAN".to_owned(),
        "integer" | "long" => "INTEGER".to_owned(),
        "double" => "REAL".to_owned(),
        "binary" => "BLOB".to_owned(),
        "date" => "DATE".to_owned(),
        "timestamp" => "DATETIME".to_owned(),
        "string" => "TEXT".to_owned(),
        decimal => decimal.to_ascii_uppercase(),
    }
}

/// SQLite's rules for how a declared type bends values (datatype3.html, section 3.1).
fn affinity(declared: &str) -> &'static str {
    let upper = declared.to_ascii_uppercase();
    let has = |word: &str| upper.contains(word);
    if has("INT") {
        "INTEGER"
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        "TEXT"
    } else if has("BLOB") || upper.is_empty() {
        "BLOB"
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        "REAL"
    } else {
        "NUMERIC"
    }
}

/// Columns that the store's table lacks and may be given; or why it cannot take HQ's rows.
fn compare<'a>(shape: &Shape, spec: &'a IncomingTable, made: bool) -> Result<Vec<&'a (String, String)>, String> {
    let mut missing = Vec::new();
    for column in &spec.columns {
        let (name, kind) = column;
        match shape.columns.iter().find(|known| known.name.eq_ignore_ascii_case(name)) {
            Some(known) if affinity(&known.declared) != affinity(&declared(kind)) => {
                let wanted = declared(kind);
                return Err(format!("its column {name} is declared {:?}, HQ's is {wanted}", known.declared));
            }
            Some(_) => {}
            None if made => missing.push(column),
            None => return Err(format!("it has no column {name} ({})", declared(kind))),
        }
    }
    let same = |names: Vec<&str>| {
        names.len() == spec.key.len()
            && names.iter().all(|name| spec.key.iter().any(|key| key.eq_ignore_ascii_case(name)))
    };
    let is_primary = matches!(&shape.key, Key::Columns(names) if same(names.iter().map(String::as_str).collect()));
    let is_unique = shape.uniques.iter().any(|unique| same(unique.iter().map(|column| column.name.as_str()).collect()));
    if !is_primary && !is_unique {
        return Err(format!("({}) is no unique key of it", spec.key.join(", ")));
    }
    Ok(missing)
}

fn has_applied(conn: &Connection) -> Result<bool, CaptureError> {
    conn.query_row("SELECT count(*) > 0 FROM main.sqlite_master WHERE name = '_rollcall_applied'", [], |row| row.get(0))
        .doing("looking for HQ's tables")
}

fn applied(conn: &Connection, table: &str) -> Result<Option<Applied>, CaptureError> {
    if !has_applied(conn)? {
        return Ok(None);
    }
    let found = conn
        .query_row(
            "SELECT version, audience, digest, made, spec, edits, published_at FROM main._rollcall_applied WHERE name = ?1",
            [table],
            |row| {
                let table = AppliedTable {
                    version: seq(row.get(0)?),
                    audience: row.get::<_, i64>(1)? as u64,
                    edits: row.get::<_, i64>(5)?.unsigned_abs(),
                    mends: false,
                    shared: false,
                    published_at: row.get(6)?,
                };
                Ok((table, row.get::<_, i64>(2)? as u64, row.get::<_, bool>(3)?, row.get::<_, String>(4)?))
            },
        )
        .optional()
        .doing("reading what is applied of one of HQ's tables")?;
    let Some((table, digest, made, spec)) = found else { return Ok(None) };
    let spec = decode_spec(&spec)?;
    let table = AppliedTable { mends: spec.mends, shared: spec.shared, ..table };
    Ok(Some(Applied { table, digest, made, spec }))
}

fn note_applied(
    transaction: &Transaction<'_>,
    rows: &Rows<'_>,
    version: Seq,
    digest: u64,
    made: bool,
    edits: u64,
) -> Result<(), CaptureError> {
    let doing = "noting the version applied";
    let Rows { spec, published_at, .. } = rows;
    transaction.execute_batch(APPLIED).doing(doing)?;
    transaction
        .execute(
            "INSERT OR REPLACE INTO main._rollcall_applied (name, version, audience, digest, made, spec, edits, at, published_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), ?8)",
            (
                &spec.name,
                version.0 as i64,
                spec.audience as i64,
                digest as i64,
                made,
                encode_spec(spec)?,
                edits as i64,
                published_at,
            ),
        )
        .doing(doing)?;
    Ok(())
}

/// The sum of the rows' digests: the same for the same rows, whatever their order.
fn digest_of(conn: &Connection, select: &str) -> Result<u64, CaptureError> {
    let doing = "digesting rows";
    let mut statement = conn.prepare(select).doing(doing)?;
    let count = statement.column_count();
    let mut rows = statement.query([]).doing(doing)?;
    let (mut sum, mut bytes) = (0_u64, Vec::new());
    while let Some(row) = rows.next().doing(doing)? {
        bytes.clear();
        for index in 0..count {
            // Nulls at the end of a row say nothing, so that a column more is no change.
            let (kind, value): (u8, &[u8]) = match row.get_ref(index).doing(doing)? {
                ValueRef::Null => continue,
                ValueRef::Integer(number) => (1, &number.to_le_bytes()),
                ValueRef::Real(number) => (2, &number.to_bits().to_le_bytes()),
                ValueRef::Text(text) => (3, text),
                ValueRef::Blob(blob) => (4, blob),
            };
            bytes.extend_from_slice(&(index as u32).to_le_bytes());
            bytes.push(kind);
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
            bytes.extend_from_slice(value);
        }
        let digest = digest::digest(&digest::SHA256, &bytes);
        let mut low = [0; 8];
        low.copy_from_slice(&digest.as_ref()[..8]);
        sum = sum.wrapping_add(u64::from_le_bytes(low));
    }
    Ok(sum)
}

fn is_schema_error(code: rusqlite::ErrorCode) -> bool {
    code == rusqlite::ErrorCode::Unknown
}

/// A value as SQLite keeps it: decimals, days and times as text, which the column's type may turn into a number.
fn value(column: &dyn Array, row: usize) -> Result<Value, CaptureError> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    let damaged = |what: String| CaptureError::Damaged(format!("HQ sent a {what} that cannot be stored"));
    Ok(match column.data_type() {
        DataType::Boolean => Value::Integer(i64::from(column.as_boolean().value(row))),
        DataType::Int32 => Value::Integer(i64::from(column.as_primitive::<Int32Type>().value(row))),
        DataType::Int64 => Value::Integer(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Value::Real(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => Value::Text(column.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Utf8 => {
            let texts: &StringArray = column.as_string();
            Value::Text(texts.value(row).to_owned())
        }
        DataType::Binary => Value::Blob(column.as_binary::<i32>().value(row).to_vec()),
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>().value(row);
            let shift = Days::new(u64::from(days.unsigned_abs()));
            let epoch = NaiveDate::default();
            let day = if days < 0 { epoch.checked_sub_days(shift) } else { epoch.checked_add_days(shift) };
            Value::Text(day.ok_or_else(|| damaged("day".to_owned()))?.to_string())
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            let time = DateTime::from_timestamp_micros(micros).ok_or_else(|| damaged("time".to_owned()))?;
            Value::Text(time.format("%Y-%m-%d %H:%M:%S%.fZ").to_string())
        }
        other => return Err(damaged(other.to_string())),
    })
}
