//! The agent's own files, beside the store's database in `FILE.rollcall/`.
//!
//! `identity.json` holds who this site is and whom it trusts (readable by its owner alone); `state.sqlite` holds what was
//! sent and confirmed. Nothing here is needed to keep the store's changes: those are in the store's own file.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rollcall_types::{ChainHash, Epoch, Seq};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::error::SiteError;

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
    /// The store's database.
    pub database: PathBuf,
    /// By table: the column with the time at which a row happened, as it was said at join.
    #[serde(default)]
    pub event_times: BTreeMap<String, String>,
}

/// The directory of the agent's files.
#[derive(Debug, Clone)]
pub struct StateDirectory(PathBuf);

impl StateDirectory {
    /// The directory that belongs to a database file.
    pub fn beside(database: &Path) -> Self {
        let mut name = database.as_os_str().to_owned();
        name.push(".rollcall");
        Self(name.into())
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
        let path = self.file("identity.json");
        let doing = format!("reading {}; was `rollcall-site join` run on this database?", path.display());
        let text = fs::read(&path).map_err(|error| SiteError::state(doing.clone(), error))?;
        serde_json::from_slice(&text).map_err(|error| SiteError::state(doing, error))
    }

    /// Stores the identity, whole or not at all.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), SiteError> {
        let text =
            serde_json::to_vec_pretty(identity).map_err(|error| SiteError::state("writing the identity", error))?;
        self.write("identity.json", &text)
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
        fs::create_dir_all(&self.0).map_err(failed)?;
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
    /// Digest of the journal row at `confirmed`; empty if it was not there. Stored with it or not at all.
    pub(crate) row_digest: String,
    /// Per table the end of the last confirmed batch that touched it.
    pub(crate) tables: HashMap<String, Seq>,
}

/// The agent's durable notes.
#[derive(Debug)]
pub(crate) struct Notes {
    /// Behind a lock only so that notes may cross threads; there is one user.
    conn: Mutex<Connection>,
}

/// Attempts to reach HQ that are kept.
const ATTEMPTS_MAX: i64 = 1000;

fn failed(error: rusqlite::Error) -> SiteError {
    SiteError::state("using the agent's own notes (state.sqlite)", error)
}

impl Notes {
    pub(crate) fn open(directory: &StateDirectory) -> Result<Self, SiteError> {
        fs::create_dir_all(directory.path())
            .map_err(|error| SiteError::state("making the agent's directory", error))?;
        let conn = Connection::open(directory.file("state.sqlite")).map_err(failed)?;
        conn.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE IF NOT EXISTS kv (k TEXT PRIMARY KEY, v);
             CREATE TABLE IF NOT EXISTS tables (name TEXT PRIMARY KEY, seq INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS sent (seq INTEGER NOT NULL, hash INTEGER NOT NULL, PRIMARY KEY (seq, hash));
             CREATE TABLE IF NOT EXISTS attempts (at INTEGER NOT NULL, address TEXT, resolved TEXT, error TEXT);",
        )
        .map_err(failed)?;
        Ok(Self { conn: Mutex::new(conn) })
    }

    /// The notes as they are, for reading beside a running agent.
    pub(crate) fn look(directory: &StateDirectory) -> Result<Self, SiteError> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let conn = Connection::open_with_flags(directory.file("state.sqlite"), flags).map_err(failed)?;
        Ok(Self { conn: Mutex::new(conn) })
    }

    fn conn(&self) -> MutexGuard<'_, Connection> {
        self.conn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<String>, SiteError> {
        self.conn().query_row("SELECT v FROM kv WHERE k = ?1", [key], |row| row.get(0)).optional().map_err(failed)
    }

    pub(crate) fn set_text(&self, key: &str, value: &str) -> Result<(), SiteError> {
        self.conn().execute("INSERT OR REPLACE INTO kv (k, v) VALUES (?1, ?2)", (key, value)).map_err(failed)?;
        Ok(())
    }

    pub(crate) fn clear(&self, key: &str) -> Result<(), SiteError> {
        self.conn().execute("DELETE FROM kv WHERE k = ?1", [key]).map_err(failed)?;
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
        let mut statement = conn.prepare("SELECT name, seq FROM tables").map_err(failed)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, Seq(row.get::<_, i64>(1)?.unsigned_abs()))));
        rows.map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
    }

    /// Stores the position and forgets what was sent up to it.
    pub(crate) fn set_position(&self, position: &Position) -> Result<(), SiteError> {
        let mut conn = self.conn();
        let transaction = conn.transaction().map_err(failed)?;
        for (key, value) in [
            ("epoch", position.epoch.to_string()),
            ("lake_id", position.lake_id.clone()),
            ("confirmed", position.confirmed.to_string()),
            ("confirmed_hash", position.confirmed_hash.get().to_string()),
            ("confirmed_row", position.row_digest.clone()),
        ] {
            transaction.execute("INSERT OR REPLACE INTO kv (k, v) VALUES (?1, ?2)", (key, value)).map_err(failed)?;
        }
        transaction.execute("DELETE FROM tables", []).map_err(failed)?;
        for (table, seq) in &position.tables {
            transaction
                .execute("INSERT INTO tables (name, seq) VALUES (?1, ?2)", (table, seq.0 as i64))
                .map_err(failed)?;
        }
        transaction.execute("DELETE FROM sent WHERE seq < ?1", [position.confirmed.0 as i64]).map_err(failed)?;
        transaction.commit().map_err(failed)
    }

    /// Notes that a batch is about to be sent: HQ may come to know it even if its reply never reaches us.
    pub(crate) fn note_sent(&self, last: Seq, hash: ChainHash) -> Result<(), SiteError> {
        self.conn()
            .prepare_cached("INSERT OR IGNORE INTO sent (seq, hash) VALUES (?1, ?2)")
            .and_then(|mut statement| statement.execute((last.0 as i64, hash.get() as i64)))
            .map_err(failed)?;
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
            .map_err(failed)
    }

    pub(crate) fn forget_sent(&self) -> Result<(), SiteError> {
        self.conn().execute("DELETE FROM sent", []).map_err(failed)?;
        Ok(())
    }

    /// Keeps an attempt to reach HQ that failed, for HQ to read later.
    pub(crate) fn note_attempt(&self, attempt: &rollcall_wire::proto::Attempt) -> Result<(), SiteError> {
        self.conn()
            .execute(
                "INSERT INTO attempts (at, address, resolved, error) VALUES (?1, ?2, ?3, ?4)",
                params![attempt.at_micros, attempt.address, attempt.resolved, attempt.error],
            )
            .map_err(failed)?;
        self.conn()
            .execute("DELETE FROM attempts WHERE rowid <= (SELECT max(rowid) - ?1 FROM attempts)", [ATTEMPTS_MAX])
            .map_err(failed)?;
        Ok(())
    }

    /// The newest attempts; they are forgotten when told to HQ.
    pub(crate) fn take_attempts(&self) -> Result<Vec<rollcall_wire::proto::Attempt>, SiteError> {
        let conn = self.conn();
        let mut statement = conn
            .prepare("SELECT at, address, resolved, error FROM attempts ORDER BY rowid DESC LIMIT 100")
            .map_err(failed)?;
        let attempts: Result<Vec<_>, _> = statement
            .query_map([], |row| {
                Ok(rollcall_wire::proto::Attempt {
                    at_micros: row.get(0)?,
                    address: row.get(1)?,
                    resolved: row.get(2)?,
                    error: row.get(3)?,
                })
            })
            .map_err(failed)?
            .collect();
        let attempts = attempts.map_err(failed)?;
        conn.execute("DELETE FROM attempts", []).map_err(failed)?;
        Ok(attempts)
    }
}

/// Makes the next hello say that HQ may be older than what it confirmed.
pub fn mark_resend(directory: &StateDirectory) -> Result<(), SiteError> {
    Notes::open(directory)?.set_text("accept_older_lake", "yes")
}
