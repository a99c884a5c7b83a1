//! The agent's notes: its position, what it sent, and what was confirmed when.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rollcall_types::{ChainHash, Epoch, Seq};
use rusqlite::{Connection, OptionalExtension, params};

use super::{NOTES, StateDirectory};

use crate::{
    error::SiteError,
    session::{ACCEPTS_OLDER_LAKE, JOURNAL_ID, RELOAD_WANTED},
};

/// Where this site stands with HQ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Position {
    pub(crate) epoch: Epoch,
    pub(crate) lake_id: String,
    pub(crate) confirmed: Seq,
    pub(crate) confirmed_hash: ChainHash,
    /// Digest of the journal row at `confirmed` as it was sent; empty if it is not known. Stored
    /// with it or not at all.
    pub(crate) row_digest: String,
    /// Per table the end of the last confirmed batch that touched it.
    pub(crate) tables: HashMap<String, Seq>,
}

/// A new epoch, as it is noted.
#[derive(Debug)]
pub(crate) struct Begun<'a> {
    pub(crate) position: &'a Position,
    /// Whose journal it is.
    pub(crate) journal_id: &'a str,
    /// When, by HQ's clock, the journal was found to have gone back in time, if that is why.
    pub(crate) rewound_at: Option<i64>,
    /// Whether everything has to be stated again before anything is sent.
    pub(crate) reload: bool,
}

/// The agent's durable notes.
#[derive(Debug)]
pub(crate) struct Notes {
    directory: StateDirectory,
    /// Behind a lock only so that notes may cross threads; there is one user.
    kept: Mutex<Kept>,
    /// Something could not be noted since it was last tried whether it can. Beside the lock, which
    /// whoever fails holds.
    has_failed: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Kept {
    conn: Connection,
    /// Why nothing can be noted now; none if it can.
    problem: Option<SiteError>,
}

/// Attempts to reach HQ that are kept.
pub(super) const ATTEMPTS_MAX: i64 = 1000;

/// Rewinds within this time are counted together.
pub(super) const REWINDS_WITHIN_MICROS: i64 = 86_400_000_000;

pub(super) const FORGET_SENT: &str = "DELETE FROM sent; DELETE FROM confirmed_at";

pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS kv (k TEXT PRIMARY KEY, v);
    CREATE TABLE IF NOT EXISTS tables (name TEXT PRIMARY KEY, seq INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS sent (seq INTEGER NOT NULL, hash INTEGER NOT NULL, PRIMARY KEY (seq, hash));
    CREATE TABLE IF NOT EXISTS attempts (at INTEGER NOT NULL, address TEXT, resolved TEXT, error TEXT, cause INTEGER);
    CREATE TABLE IF NOT EXISTS confirmed_at (at INTEGER NOT NULL, seq INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS rewinds (at INTEGER NOT NULL);";

pub(super) fn failed(error: rusqlite::Error) -> SiteError {
    SiteError::state("using the agent's own notes (state.sqlite)", error)
}

impl Notes {
    /// The notes, for a command that is worth nothing if it notes nothing.
    pub(crate) fn open_to_write(directory: &StateDirectory) -> Result<Self, SiteError> {
        let notes = Self::open(directory);
        match notes.problem() {
            Some(problem) => Err(SiteError::Usage(format!("the agent's own files cannot be written: {problem}"))),
            None => Ok(notes),
        }
    }

    /// Opens the notes. Where nothing can be written, as on a full disk, they are as they were
    /// last: an agent that cannot note anything still has something to say.
    pub(crate) fn open(directory: &StateDirectory) -> Self {
        let kept = match open_to_note(directory) {
            Ok(conn) => Kept { conn, problem: None },
            Err(error) => Kept { conn: open_as_was(directory), problem: Some(error) },
        };
        Self { directory: directory.clone(), kept: Mutex::new(kept), has_failed: AtomicBool::new(false) }
    }

    /// Why nothing can be noted; tries again whether it can.
    pub(crate) fn problem(&self) -> Option<String> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_failed.swap(false, Ordering::AcqRel) || kept.problem.is_some() {
            match open_to_note(&self.directory) {
                Ok(conn) => *kept = Kept { conn, problem: None },
                Err(error) => kept.problem = Some(error),
            }
        }
        kept.problem.as_ref().map(|error| rollcall_types::describe(error))
    }

    /// The notes as they are, for reading beside a running agent.
    pub(crate) fn look(directory: &StateDirectory) -> Result<Self, SiteError> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let conn = Connection::open_with_flags(directory.file(NOTES), flags).map_err(failed)?;
        let kept = Mutex::new(Kept { conn, problem: None });
        Ok(Self { directory: directory.clone(), kept, has_failed: AtomicBool::new(false) })
    }

    /// Where nothing can be written any more, that is a problem from now on.
    fn failed(&self, error: rusqlite::Error) -> SiteError {
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, ReadOnly, SystemIoFailure};
        if matches!(error.sqlite_error_code(), Some(CannotOpen | DiskFull | ReadOnly | SystemIoFailure)) {
            self.has_failed.store(true, Ordering::Release);
        }
        failed(error)
    }

    fn conn(&self) -> NotesGuard<'_> {
        NotesGuard(self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<String>, SiteError> {
        self.conn()
            .query_row("SELECT v FROM kv WHERE k = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(|error| self.failed(error))
    }

    pub(crate) fn set_text(&self, key: &str, value: &str) -> Result<(), SiteError> {
        self.conn()
            .execute("INSERT OR REPLACE INTO kv (k, v) VALUES (?1, ?2)", (key, value))
            .map_err(|error| self.failed(error))?;
        Ok(())
    }

    pub(crate) fn clear(&self, key: &str) -> Result<(), SiteError> {
        self.conn().execute("DELETE FROM kv WHERE k = ?1", [key]).map_err(|error| self.failed(error))?;
        Ok(())
    }

    pub(crate) fn position(&self) -> Result<Position, SiteError> {
        let number = |key: &str| -> Result<u64, SiteError> {
            Ok(self.text(key)?.and_then(|text| text.parse().ok()).unwrap_or_default())
        };
        Ok(Position {
            epoch: Epoch(u32::try_from(number("epoch")?).unwrap_or_default()),
            lake_id: self.text("lake_id")?.unwrap_or_default(),
            confirmed: Seq(number("confirmed")?),
            confirmed_hash: ChainHash::new(number("confirmed_hash")?),
            row_digest: self.text("confirmed_row")?.unwrap_or_default(),
            tables: self.tables()?,
        })
    }

    fn tables(&self) -> Result<HashMap<String, Seq>, SiteError> {
        let conn = self.conn();
        let mut statement = conn.prepare("SELECT name, seq FROM tables").map_err(|error| self.failed(error))?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, Seq(row.get::<_, i64>(1)?.unsigned_abs()))));
        rows.map_err(|error| self.failed(error))?.collect::<Result<_, _>>().map_err(|error| self.failed(error))
    }

    /// Stores the position and forgets what was sent up to it.
    pub(crate) fn set_position(&self, position: &Position) -> Result<(), SiteError> {
        let mut conn = self.conn();
        conn.transaction()
            .and_then(|transaction| {
                put_position(&transaction, position)?;
                transaction.commit()
            })
            .map_err(|error| self.failed(error))
    }

    /// Begins a new epoch, whole or not at all: nothing that was said of the one before is so in
    /// it.
    pub(crate) fn begin_epoch(&self, begun: &Begun<'_>) -> Result<(), SiteError> {
        let begin = |transaction: rusqlite::Transaction<'_>| {
            let note = "INSERT OR REPLACE INTO kv (k, v) VALUES (?1, ?2)";
            transaction.execute(note, (JOURNAL_ID, begun.journal_id))?;
            if begun.reload {
                transaction.execute(note, (RELOAD_WANTED, "1"))?;
            }
            if let Some(at) = begun.rewound_at {
                put_rewind(&transaction, at)?;
            }
            transaction.execute_batch(FORGET_SENT)?;
            transaction.execute("DELETE FROM kv WHERE k = ?1", [ACCEPTS_OLDER_LAKE])?;
            put_position(&transaction, begun.position)?;
            transaction.commit()
        };
        self.conn().transaction().and_then(begin).map_err(|error| self.failed(error))
    }

    /// Notes that a batch is about to be sent: HQ may come to know it even if its reply never
    /// reaches us.
    pub(crate) fn note_sent(&self, last: Seq, hash: ChainHash) -> Result<(), SiteError> {
        self.conn()
            .prepare_cached("INSERT OR IGNORE INTO sent (seq, hash) VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute((last.0 as i64, hash.get() as i64)))
            .map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// Whether a batch ending here with this chain was ever sent from here.
    pub(crate) fn was_sent(&self, last: Seq, hash: ChainHash) -> Result<bool, SiteError> {
        self.conn()
            .query_row(
                "SELECT count(*) FROM sent WHERE seq = ?1 AND hash = ?2",
                (last.0 as i64, hash.get() as i64),
                |row| row.get(0),
            )
            .map_err(|error| self.failed(error))
    }

    /// Notes now and then how far HQ has confirmed, by HQ's clock: the store's own may jump, and
    /// what was confirmed is kept for a while.
    pub(crate) fn note_confirmed(&self, at: i64, through: Seq) -> Result<(), SiteError> {
        const EVERY_MICROS: i64 = 3_600_000_000;
        let conn = self.conn();
        let last: Option<i64> = conn
            .query_row("SELECT max(at) FROM confirmed_at", [], |row| row.get(0))
            .map_err(|error| self.failed(error))?;
        if last.is_none_or(|last| at >= last + EVERY_MICROS || at < last) {
            // After HQ's clock was set back, what was noted by the other time says nothing.
            conn.execute("DELETE FROM confirmed_at WHERE at > ?1", [at]).map_err(|error| self.failed(error))?;
            conn.execute("INSERT INTO confirmed_at (at, seq) VALUES (?1, ?2)", (at, through.0 as i64))
                .map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// What HQ had confirmed before a time, by its clock; older notes are forgotten.
    pub(crate) fn confirmed_before(&self, at: i64) -> Result<Seq, SiteError> {
        let conn = self.conn();
        let sql = "SELECT coalesce(max(seq), 0) FROM confirmed_at WHERE at <= ?1";
        let through: i64 = conn.query_row(sql, [at], |row| row.get(0)).map_err(|error| self.failed(error))?;
        conn.execute("DELETE FROM confirmed_at WHERE at <= ?1 AND seq < ?2", (at, through))
            .map_err(|error| self.failed(error))?;
        Ok(Seq(through.unsigned_abs()))
    }

    /// How often the journal went back in time under the agent within a day.
    pub(crate) fn rewinds(&self, now: i64) -> Result<u32, SiteError> {
        let sql = "SELECT count(*) FROM rewinds WHERE at BETWEEN ?1 AND ?2";
        self.conn()
            .query_row(sql, (now - REWINDS_WITHIN_MICROS, now), |row| row.get(0))
            .map_err(|error| self.failed(error))
    }

    /// Forgets that it did: a person says that what caused it is gone.
    pub(crate) fn forget_rewinds(&self) -> Result<(), SiteError> {
        self.conn().execute("DELETE FROM rewinds", []).map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// Keeps an attempt to reach HQ that failed, for HQ to read later.
    pub(crate) fn note_attempt(&self, attempt: &rollcall_wire::proto::Attempt) -> Result<(), SiteError> {
        self.conn()
            .execute(
                "INSERT INTO attempts (at, address, resolved, error, cause) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![attempt.at_micros, attempt.address, attempt.resolved, attempt.error, attempt.cause],
            )
            .map_err(|error| self.failed(error))?;
        self.conn()
            .execute("DELETE FROM attempts WHERE rowid <= (SELECT max(rowid) - ?1 FROM attempts)", [ATTEMPTS_MAX])
            .map_err(|error| self.failed(error))?;
        Ok(())
    }

    /// The newest attempts; they are forgotten when told to HQ.
    pub(crate) fn take_attempts(&self) -> Result<Vec<rollcall_wire::proto::Attempt>, SiteError> {
        let conn = self.conn();
        let mut statement = conn
            .prepare(
                "SELECT at, address, resolved, error, coalesce(cause, 0) FROM attempts ORDER BY rowid DESC LIMIT 100",
            )
            .map_err(|error| self.failed(error))?;
        let attempts: Result<Vec<_>, _> = statement
            .query_map([], |row| {
                Ok(rollcall_wire::proto::Attempt {
                    at_micros: row.get(0)?,
                    address: row.get(1)?,
                    resolved: row.get(2)?,
                    error: row.get(3)?,
                    cause: row.get(4)?,
                })
            })
            .map_err(|error| self.failed(error))?
            .collect();
        let attempts = attempts.map_err(|error| self.failed(error))?;
        conn.execute("DELETE FROM attempts", []).map_err(|error| self.failed(error))?;
        Ok(attempts)
    }
}

pub(super) fn put_position(conn: &Connection, position: &Position) -> rusqlite::Result<()> {
    for (key, value) in [
        ("epoch", position.epoch.to_string()),
        ("lake_id", position.lake_id.clone()),
        ("confirmed", position.confirmed.to_string()),
        ("confirmed_hash", position.confirmed_hash.get().to_string()),
        ("confirmed_row", position.row_digest.clone()),
    ] {
        conn.execute("INSERT OR REPLACE INTO kv (k, v) VALUES (?1, ?2)", (key, value))?;
    }
    conn.execute("DELETE FROM tables", [])?;
    for (table, seq) in &position.tables {
        conn.execute("INSERT INTO tables (name, seq) VALUES (?1, ?2)", (table, seq.0 as i64))?;
    }
    conn.execute("DELETE FROM sent WHERE seq < ?1", [position.confirmed.0 as i64])?;
    Ok(())
}

pub(super) fn put_rewind(conn: &Connection, at: i64) -> rusqlite::Result<()> {
    conn.execute("DELETE FROM rewinds WHERE at < ?1 OR at > ?2", (at - REWINDS_WITHIN_MICROS, at))?;
    conn.execute("INSERT INTO rewinds (at) VALUES (?1)", [at])?;
    Ok(())
}

pub(super) struct NotesGuard<'a>(MutexGuard<'a, Kept>);

impl std::ops::Deref for NotesGuard<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0.conn
    }
}

impl std::ops::DerefMut for NotesGuard<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0.conn
    }
}

pub(super) fn open_to_note(directory: &StateDirectory) -> Result<Connection, SiteError> {
    directory.prepare(NOTES)?;
    let conn = Connection::open(directory.file(NOTES)).map_err(failed)?;
    conn.execute_batch(&format!("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {TABLES}")).map_err(failed)?;
    let lacks = "SELECT count(*) = 0 FROM pragma_table_info('attempts') WHERE name = 'cause'";
    if conn.query_row(lacks, [], |row| row.get(0)).map_err(failed)? {
        conn.execute_batch("ALTER TABLE attempts ADD COLUMN cause INTEGER").map_err(failed)?;
    }
    // A full disk often shows only when something is written.
    conn.execute("INSERT OR REPLACE INTO kv (k, v) VALUES ('opened', ?1)", [rollcall_capture::clock_micros()])
        .map_err(failed)?;
    Ok(conn)
}

/// The notes as they were last, without writing anything; empty ones if there are none.
pub(super) fn open_as_was(directory: &StateDirectory) -> Connection {
    let path = directory.file(NOTES);
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-~".contains(byte);
    let quoted: String = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|byte| if is_plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") })
        .collect();
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
    let as_was = Connection::open_with_flags(format!("file:{quoted}?immutable=1"), flags);
    let as_was = as_was.and_then(|conn| conn.query_row("SELECT count(*) FROM kv", [], |_| Ok(())).map(|()| conn));
    as_was.unwrap_or_else(|_| {
        let empty = Connection::open_in_memory().expect("a database in memory needs no disk");
        empty.execute_batch(TABLES).expect("nor do its tables");
        empty
    })
}
