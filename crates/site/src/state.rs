//! The agent's own files, beside the store's database in `FILE.rollcall/`.
//!
//! `identity.json` holds who this site is and whom it trusts (readable by its owner alone);
//! `state.sqlite` holds what was sent and confirmed. Nothing here is needed to keep the store's
//! changes: those are in the store's own file.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rollcall_types::{ChainHash, Epoch, Seq, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::{
    error::SiteError,
    session::{ACCEPTS_OLDER_LAKE, JOURNAL_ID, RELOAD_WANTED},
};

/// Who this site is, and whom it trusts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The site's id.
    pub site: String,
    /// Addresses of HQ (`host:port`), tried in order.
    pub hq_addresses: Vec<String>,
    /// HQ's certificate authority: the only one trusted.
    pub ca_pem: String,
    /// The site's certificate.
    pub certificate_pem: String,
    /// The site's private key.
    pub key_pem: String,
    /// When the certificate was issued, microseconds since the Unix epoch.
    pub issued_micros: i64,
    /// When the certificate expires, microseconds since the Unix epoch.
    pub not_after_micros: i64,
    /// The store's database; where it is is known by whoever opens it.
    #[serde(skip)]
    pub database: PathBuf,
    /// By table: the column with the time at which a row happened, as it was said at join.
    #[serde(default)]
    pub event_times: BTreeMap<String, String>,
    /// Whom people at the store are to call, as it was said at join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
}

/// While this file is there, the agent leaves the database alone.
const PAUSED: &str = "paused";

/// Who this site is.
const IDENTITY: &str = "identity.json";

/// Whether a file in the directory is the agent's, by its name.
fn is_own_file(name: &std::ffi::OsStr) -> bool {
    const WRITTEN: [&str; 6] =
        [IDENTITY, PAUSED, crate::enrol::KEY, crate::status::FILE, crate::join::BEGUN, crate::claim::FILE];
    const DATABASES: [&str; 2] = [NOTES, crate::published::STAGED];
    let is_one_of = |names: &[&str], endings: &[&str]| {
        name.to_str().is_some_and(|name| {
            let mut own = names.iter().filter_map(|own| name.strip_prefix(own));
            own.any(|ending| ending.is_empty() || endings.contains(&ending))
        })
    };
    is_one_of(&WRITTEN, &[".new"]) || is_one_of(&DATABASES, &["-wal", "-shm", "-journal"])
}

/// The directory of the agent's files.
#[derive(Debug, Clone)]
pub struct StateDirectory(PathBuf);

impl StateDirectory {
    /// The directory that belongs to a database, beside the path by which it is called: where that
    /// is a link, the link may lead to another file tomorrow, and the agent's files stay. `chosen`
    /// is another place that a person chose.
    pub fn of(database: &Path, chosen: Option<&Path>) -> Self {
        if let Some(chosen) = chosen {
            return Self(chosen.to_owned());
        }
        let beside = |database: &Path| {
            let mut name = database.as_os_str().to_owned();
            name.push(".rollcall");
            PathBuf::from(name)
        };
        let own = beside(&std::path::absolute(database).unwrap_or_else(|_| database.to_owned()));
        // Agents before 0.2 followed links first.
        let followed = database.canonicalize().map(|database| beside(&database));
        match followed {
            Ok(followed) if !own.exists() && followed.exists() => Self(followed),
            _ => Self(own),
        }
    }

    /// Makes the directory, and takes from others what they may have had of our files. A directory
    /// that a person chose may hold files of others, and be used by them: it is closed only if it
    /// is known to be ours.
    pub(crate) fn secure(&self) -> Result<(), SiteError> {
        let failed = |error| SiteError::state(format!("making {}", self.0.display()), error);
        let is_ours = !self.0.exists()
            || self.0.extension().is_some_and(|ending| ending == "rollcall")
            || self.file(IDENTITY).exists();
        fs::create_dir_all(&self.0).map_err(failed)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            if is_ours {
                fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700)).map_err(failed)?;
            }
            for entry in fs::read_dir(&self.0).map_err(failed)?.flatten() {
                if is_own_file(&entry.file_name()) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    match fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o600)) {
                        // SQLite's files beside a database come and go.
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                        other => other.map_err(failed)?,
                    }
                }
            }
        }
        #[cfg(not(unix))]
        let _ = is_ours;
        Ok(())
    }

    /// Refuses a directory that a person chose where it holds files of others.
    pub(crate) fn refuse_of_others(&self) -> Result<(), SiteError> {
        if self.file(IDENTITY).exists() {
            return Ok(());
        }
        let mut entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        match entries.find(|entry| !is_own_file(&entry.file_name())) {
            Some(of_others) => Err(SiteError::Usage(format!(
                "--state {}: the folder holds files that are not the agent's, such as {:?}; name an empty folder, or one that does \
                 not exist yet",
                self.0.display(),
                of_others.file_name()
            ))),
            None => Ok(()),
        }
    }

    /// Makes an empty file for its owner alone, unless there is one; what SQLite puts beside it is
    /// then as closed.
    pub(crate) fn prepare(&self, name: &str) -> Result<(), SiteError> {
        self.secure()?;
        let path = self.file(name);
        let mut options = fs::OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&path).map(|_| ()).map_err(|error| SiteError::state(format!("making {}", path.display()), error))
    }

    /// Until when a person wants the agent to leave the database alone; none if nobody does.
    pub fn paused_until(&self) -> Option<Timestamp> {
        let text = fs::read_to_string(self.file(PAUSED)).ok()?;
        let until = Timestamp::from_micros(text.trim().parse().ok()?);
        (until > Timestamp::from_micros(rollcall_capture::Source::clock_micros())).then_some(until)
    }

    /// Has the agent leave the database alone until then.
    pub fn pause(&self, until: Timestamp) -> Result<(), SiteError> {
        self.write(PAUSED, until.as_micros().to_string().as_bytes())
    }

    /// Ends that.
    pub fn resume(&self) -> Result<(), SiteError> {
        self.remove(PAUSED)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Reads the identity made by `join`.
    pub fn identity(&self) -> Result<Identity, SiteError> {
        let path = self.file(IDENTITY);
        let doing = format!("reading {}", path.display());
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(self.not_joined()),
            read => read.map_err(|error| SiteError::state(doing.clone(), error))?,
        };
        serde_json::from_slice(&text).map_err(|error| SiteError::state(doing, error))
    }

    /// Why there is no identity, and what to do.
    fn not_joined(&self) -> SiteError {
        let of = self.0.display();
        let text = match fs::read_to_string(self.file(crate::join::BEGUN)) {
            Ok(site) => format!(
                "joining HQ as {} was broken off and is not complete. Run the same `rollcall-site join` again: the invitation still works \
                 from here",
                site.trim()
            ),
            Err(_) => format!(
                "this database has not joined HQ ({of} holds no identity.json). Run `rollcall-site join`, or, if the agent's files are \
                 elsewhere, say so with --state"
            ),
        };
        SiteError::Usage(text)
    }

    /// Forgets all that was noted of a site: its position, what HQ published to it, its status. Its
    /// identity stays until there is
    /// another.
    pub(crate) fn forget_notes(&self) -> Result<(), SiteError> {
        let databases = [NOTES, crate::published::STAGED];
        let files =
            databases.iter().flat_map(|name| ["", "-wal", "-shm", "-journal"].map(|end| format!("{name}{end}")));
        let files: Vec<String> = files.chain([crate::status::FILE.to_owned()]).collect();
        files.iter().try_for_each(|name| self.remove(name))
    }

    /// Stores the identity, whole or not at all.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), SiteError> {
        let text =
            serde_json::to_vec_pretty(identity).map_err(|error| SiteError::state("writing the identity", error))?;
        self.write(IDENTITY, &text)
    }

    /// Replaces a file whole, readable by its owner alone; it is on disk when this returns.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), SiteError> {
        self.replace(name, bytes, true)
    }

    /// [`Self::write`] without waiting for the disk.
    pub(crate) fn write_unsynced(&self, name: &str, bytes: &[u8]) -> Result<(), SiteError> {
        self.replace(name, bytes, false)
    }

    /// Deletes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), SiteError> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(SiteError::state(format!("removing {name}"), error))
            }
            _ => Ok(()),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8], sync: bool) -> Result<(), SiteError> {
        let path = self.file(name);
        let failed = |error| SiteError::state(format!("writing {}", path.display()), error);
        self.secure()?;
        let temporary = self.file(&format!("{name}.new"));
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        if sync {
            file.sync_all().map_err(failed)?;
        }
        fs::rename(&temporary, &path).map_err(failed)
    }
}

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
struct Kept {
    conn: Connection,
    /// Why nothing can be noted now; none if it can.
    problem: Option<SiteError>,
}

/// Attempts to reach HQ that are kept.
const ATTEMPTS_MAX: i64 = 1000;
/// The database of the notes.
const NOTES: &str = "state.sqlite";
/// Rewinds within this time are counted together.
const REWINDS_WITHIN_MICROS: i64 = 86_400_000_000;

const FORGET_SENT: &str = "DELETE FROM sent; DELETE FROM confirmed_at";

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS kv (k TEXT PRIMARY KEY, v);
    CREATE TABLE IF NOT EXISTS tables (name TEXT PRIMARY KEY, seq INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS sent (seq INTEGER NOT NULL, hash INTEGER NOT NULL, PRIMARY KEY (seq, hash));
    CREATE TABLE IF NOT EXISTS attempts (at INTEGER NOT NULL, address TEXT, resolved TEXT, error TEXT, cause INTEGER);
    CREATE TABLE IF NOT EXISTS confirmed_at (at INTEGER NOT NULL, seq INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS rewinds (at INTEGER NOT NULL);";

fn failed(error: rusqlite::Error) -> SiteError {
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

fn put_position(conn: &Connection, position: &Position) -> rusqlite::Result<()> {
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

fn put_rewind(conn: &Connection, at: i64) -> rusqlite::Result<()> {
    conn.execute("DELETE FROM rewinds WHERE at < ?1 OR at > ?2", (at - REWINDS_WITHIN_MICROS, at))?;
    conn.execute("INSERT INTO rewinds (at) VALUES (?1)", [at])?;
    Ok(())
}

struct NotesGuard<'a>(MutexGuard<'a, Kept>);

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

fn open_to_note(directory: &StateDirectory) -> Result<Connection, SiteError> {
    directory.prepare(NOTES)?;
    let conn = Connection::open(directory.file(NOTES)).map_err(failed)?;
    conn.execute_batch(&format!("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {TABLES}")).map_err(failed)?;
    let lacks = "SELECT count(*) = 0 FROM pragma_table_info('attempts') WHERE name = 'cause'";
    if conn.query_row(lacks, [], |row| row.get(0)).map_err(failed)? {
        conn.execute_batch("ALTER TABLE attempts ADD COLUMN cause INTEGER").map_err(failed)?;
    }
    // A full disk often shows only when something is written.
    conn.execute("INSERT OR REPLACE INTO kv (k, v) VALUES ('opened', ?1)", [rollcall_capture::Source::clock_micros()])
        .map_err(failed)?;
    Ok(conn)
}

/// The notes as they were last, without writing anything; empty ones if there are none.
fn open_as_was(directory: &StateDirectory) -> Connection {
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

/// Makes the next hello say that HQ may be older than what it confirmed.
pub fn mark_resend(directory: &StateDirectory) -> Result<(), SiteError> {
    // Notes made for another database, after a slip in its name, would be read by nobody.
    directory.identity()?;
    Notes::open_to_write(directory)?.set_text(ACCEPTS_OLDER_LAKE, "yes")
}

/// Ends a pause, and lets the agent begin anew with a database that went back in time again and
/// again.
pub fn resume(directory: &StateDirectory) -> Result<(), SiteError> {
    directory.resume()?;
    Notes::open_to_write(directory)?.forget_rewinds()
}
