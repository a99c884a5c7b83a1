//! HQ's tables at the site: rows are staged beside the store's database, then applied in one
//! transaction with their version.
//!
//! Staging is durable, so that a fetch goes on where it broke. What is staged is either a change of
//! what is applied, or the whole table. A table that the store does not have is built aside in
//! short transactions and then renamed into place; one that it has is compared first, and only what
//! differs is written, so that the store's own programs wait for that alone.

pub(crate) mod applied;
mod due;
mod left;
pub(crate) mod put;
pub(crate) mod spec;
mod standing;
mod write;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use arrow_array::RecordBatch;
use rollcall_capture::{AppliedTable, DueChange, Incoming, IncomingTable, Report, Staged, Standing, clock_micros};
use rollcall_types::{Seq, columns};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params_from_iter, types::Value};

use self::{
    applied::{DIFFERING, applied, has_applied},
    spec::{compare, declare, decode_spec, encode_spec, is_kind, value},
    write::Rows,
};

use crate::{
    error::{CaptureError, Doing},
    file::{FileIdentity, file_identity, open_to_write},
    install,
    shape::{Shape, quote},
    stored::Stored,
};

/// The agent's hold on HQ's tables in one store's database. Calls block on the file.
///
/// What is staged is in a file of its own, attached: transactions that only stage begin deferred,
/// for an immediate one would lock the store's file as well.
#[derive(Debug)]
pub struct SqliteIncoming {
    conn: Connection,
    database: PathBuf,
    /// Which file the path led to.
    identity: FileIdentity,
    /// Messages staged since the staging file's WAL was last moved into it.
    staged: u32,
}

/// After so many messages, what was staged is moved out of its WAL.
const STAGES_PER_CHECKPOINT: u32 = 32;
const STAGING: &str = "PRAGMA incoming.journal_mode = WAL; PRAGMA incoming.synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS incoming.fetches (name TEXT PRIMARY KEY, number INTEGER NOT NULL, audience INTEGER NOT NULL,
        through INTEGER NOT NULL, whole INTEGER NOT NULL, base INTEGER NOT NULL, spec TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS incoming.adopted (name TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS incoming.due (name TEXT NOT NULL, next TEXT NOT NULL, number INTEGER NOT NULL,
        at INTEGER NOT NULL, version INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (name, number));";

impl SqliteIncoming {
    /// Opens the store's database, and what is staged in `directory`.
    pub fn open(database: &Path, directory: &Path) -> Result<Self, CaptureError> {
        let doing = "opening the store's database for HQ's tables";
        fs::create_dir_all(directory).doing(doing)?;
        let path = database.canonicalize().doing(doing)?;
        let conn = open_to_write(&path)?;
        // Else a view of the store's that refers to something missing, be it the very table that is
        // built aside, would forbid to rename that.
        // And what HQ does to its rows does nothing to rows of the store's own that name them.
        conn.execute_batch("PRAGMA legacy_alter_table = ON; PRAGMA foreign_keys = OFF").doing(doing)?;
        let staging = directory.join("incoming.sqlite");
        // What is attached must be there: the store's own database is never made by us.
        Connection::open(&staging)
            .and_then(|conn| {
                let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
                if version == 1 {
                    return Ok(());
                }
                conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA user_version = 1")
            })
            .doing(doing)?;
        // A path need not be text.
        let path = Stored::Text(staging.as_os_str().as_encoded_bytes().to_vec());
        conn.execute("ATTACH ?1 AS incoming", [path]).doing(doing)?;
        conn.execute_batch(STAGING).doing(doing)?;
        let own = Self { conn, database: database.to_owned(), identity: file_identity(database)?, staged: 0 };
        own.upgrade()?;
        Ok(own)
    }

    /// Adds what earlier versions of the agent did not note.
    fn upgrade(&self) -> Result<(), CaptureError> {
        let doing = "bringing the notes of HQ's tables up to date";
        if !has_applied(&self.conn)? {
            return Ok(());
        }
        let number = "INTEGER NOT NULL DEFAULT 0";
        for (column, kind) in [("published_at", number), ("dangling", number), ("found", "INTEGER")] {
            let lacks = "SELECT count(*) = 0 FROM pragma_table_info('_rollcall_applied') WHERE name = ?1";
            if self.conn.query_row(lacks, [column], |row| row.get(0)).doing(doing)? {
                let more = format!("ALTER TABLE main._rollcall_applied ADD COLUMN {column} {kind}");
                self.conn.execute_batch(&more).doing(doing)?;
            }
        }
        self.conn.execute_batch(DIFFERING).doing(doing)
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
        // What lies between was staged once and cannot be gone on with: as of other columns, or on
        // another version.
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

    /// Stages rows, the last of which was published at `through`. Their first column is the
    /// operation.
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

    /// Makes what is staged the table's content, as of `version`. When it was fetched because rows
    /// were changed here (`mending`), what differs is counted as edits.
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
            Err(CaptureError::NoSuchTable { .. }) => None,
            Err(error) => return Err(error),
        };
        let staged = Rows { source: format!("incoming.r{number}"), spec: &spec, published_at };
        // What has taken effect here is on top of whatever HQ publishes, until HQ publishes it
        // itself.
        self.lay_over(&staged, &self.arrived(table, clock_micros())?)?;
        let report = match shape {
            None if whole => self.build(&staged, version, known.as_ref())?,
            None => {
                // Somebody dropped it: a change of it makes no table.
                self.clear(table)?;
                self.fetch_whole_next(Some(table))?;
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
        if report.removed > 0 || known.is_some_and(|known| known.table.dangling > 0) {
            self.count_dangling(table)?;
        }
        Ok(report)
    }

    /// Notes how many rows of the store's own name rows that are not there.
    fn count_dangling(&self, table: &str) -> Result<(), CaptureError> {
        let count = put::dangling(&self.conn, table)?;
        let note = "UPDATE main._rollcall_applied SET dangling = ?2 WHERE name = ?1 AND dangling <> ?2";
        self.conn.execute(note, (table, count as i64)).doing("noting references of the store's")?;
        Ok(())
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

    /// Moves what we wrote from the WAL into the database, as far as nobody is kept waiting: else a
    /// store's own commit would do all of it at once. Where there is no WAL there is nothing to do.
    fn checkpoint(&self, schema: &str) {
        let done = self.conn.query_row(&format!("PRAGMA {schema}.wal_checkpoint(PASSIVE)"), [], |_| Ok(()));
        if let Err(error) = done {
            tracing::debug!(%error, "no checkpoint now");
        }
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

    fn count(&self, table: &str) -> Result<i64, CaptureError> {
        self.conn
            .query_row(&format!("SELECT count(*) FROM main.{}", quote(table)), [], |row| row.get(0))
            .doing("counting the store's own rows")
    }
}

fn seq(number: i64) -> Seq {
    Seq(number.unsigned_abs())
}

impl Incoming for SqliteIncoming {
    fn is_current(&self) -> bool {
        file_identity(&self.database).is_ok_and(|now| now == self.identity)
    }

    fn applied(&self) -> Result<BTreeMap<String, AppliedTable>, CaptureError> {
        Self::applied(self)
    }

    fn staged(&self, table: &str) -> Result<Option<Staged>, CaptureError> {
        Self::staged(self, table)
    }

    fn begin(&mut self, table: &IncomingTable, after: Seq, whole: bool) -> Result<(), CaptureError> {
        Self::begin(self, table, after, whole)
    }

    fn stage(&mut self, table: &str, rows: &RecordBatch, through: Seq) -> Result<(), CaptureError> {
        Self::stage(self, table, rows, through)
    }

    fn apply(&mut self, table: &str, version: Seq, published_at: i64, mending: bool) -> Result<Report, CaptureError> {
        Self::apply(self, table, version, published_at, mending)
    }

    fn clear(&mut self, table: &str) -> Result<(), CaptureError> {
        Self::clear(self, table)
    }

    fn schedule(&mut self, changes: &[DueChange]) -> Result<(), CaptureError> {
        Self::schedule(self, changes)
    }

    fn next_due(&self) -> Result<Option<i64>, CaptureError> {
        Self::next_due(self)
    }

    fn due_tables(&self) -> Result<Vec<String>, CaptureError> {
        Self::due_tables(self)
    }

    fn take_effect(&mut self, table: &str) -> Result<Option<Report>, CaptureError> {
        Self::take_effect(self, table)
    }

    fn compare(&mut self, table: &str) -> Result<(), CaptureError> {
        Self::compare(self, table)
    }

    fn leave(&mut self, table: &str) -> Result<bool, CaptureError> {
        Self::leave(self, table)
    }

    fn distrust(&mut self) -> Result<(), CaptureError> {
        Self::distrust(self)
    }

    fn adopt(&self, table: &str) -> Result<(), CaptureError> {
        Self::adopt(self, table)
    }

    fn standing(&self, table: &str) -> Result<Standing, CaptureError> {
        Self::standing(self, table)
    }

    fn is_as_applied(&self, table: &str) -> Result<bool, CaptureError> {
        Self::is_as_applied(self, table)
    }

    fn edited(&self) -> Result<Vec<String>, CaptureError> {
        Self::edited(self)
    }

    fn settle(&mut self, table: &str, through: u64) -> Result<(), CaptureError> {
        Self::settle(self, table, through)
    }
}
