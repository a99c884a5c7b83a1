//! The agent's hold on one store's database.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rollcall_types::{Manifest, Seq};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::{
    error::{CaptureError, Doing},
    health::{self, Health},
    install::{self, TableSpec},
    layout::Layout,
    load::{self, LoadProgress, Loader},
    manifest,
    read::{self, Changes, Heads, Layouts, ReadOutcome, from_sql, to_sql},
};

/// What a database's files look like: time of change and length of the file itself and of its WAL. It differs when something
/// was committed since. Looks at file times only and takes no lock.
pub fn fingerprint(database: &Path) -> Fingerprint {
    let look = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [look(database), look(&wal_path(database))]
}

/// See [`fingerprint`].
pub type Fingerprint = [Option<(SystemTime, u64)>; 2];

fn wal_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// How much confirmed journal is kept, so that HQ, restored from a backup, can ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneLimits {
    /// Confirmed rows younger than this are kept …
    pub age: Duration,
    /// … unless the journal is larger than this.
    pub bytes: u64,
}

impl Default for PruneLimits {
    /// 48 hours, 64 MB.
    fn default() -> Self {
        Self { age: Duration::from_secs(48 * 3600), bytes: 64 * 1024 * 1024 }
    }
}

/// One store's database, captured. Not for use from several threads at once; calls block on the file.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    conn: Connection,
    /// Kept open for life: closing any handle of the file would drop SQLite's locks in this process.
    file: File,
    identity: (u64, u64),
    layouts: Layouts,
    loader: Loader,
    heads: Heads,
    /// The newest schema version at which all was well.
    schema_version: Option<i64>,
    /// The schema version looked at last, well or not.
    checked_version: Option<i64>,
    bytes_read: u64,
    rows_read: u64,
}

/// How long a write of ours waits for the store's programs.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows pruned in one transaction.
const PRUNE_ROWS: u64 = 500;
/// A journal row's size while none was read yet, bytes.
const ROW_BYTES_GUESS: u64 = 100;

impl Source {
    /// Opens a database that has a journal, or not yet: see [`Source::install`].
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let doing = "opening the store's database";
        let file = File::open(path).doing(doing)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags).doing(doing)?;
        conn.busy_timeout(BUSY_TIMEOUT).doing(doing)?;
        // The store's own connections keep checkpointing; ours never does, so that no write of ours takes long.
        conn.execute_batch("PRAGMA wal_autocheckpoint = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -512;")
            .doing(doing)?;
        let identity = health::file_identity(path)?;
        Ok(Self {
            path: path.to_owned(),
            conn,
            file,
            identity,
            layouts: Layouts::default(),
            loader: Loader::new(),
            heads: Heads::default(),
            schema_version: None,
            checked_version: None,
            bytes_read: 0,
            rows_read: 0,
        })
    }

    /// Adds the journal and triggers for `tables`; rows already there are loaded by [`Source::load_step`].
    pub fn install(&mut self, tables: &[TableSpec], journal_id: &str) -> Result<(), CaptureError> {
        install::install(&mut self.conn, tables, journal_id)
    }

    /// Captures a table with these exclusions besides those captured already, or another way than before; true if that is a
    /// change. Rows already there are loaded if they, or columns of them, were not captured so far.
    pub fn capture(&mut self, spec: &TableSpec) -> Result<bool, CaptureError> {
        let numbers = |conn: &Connection| -> Result<Vec<i64>, CaptureError> {
            Ok(install::captured_layouts(conn)?.iter().map(|layout| layout.number).collect())
        };
        let (journal_id, before) = (self.journal_id()?, numbers(&self.conn)?);
        self.install(std::slice::from_ref(spec), &journal_id)?;
        Ok(numbers(&self.conn)? != before)
    }

    /// The columns of a captured table that are not; none if it is not captured.
    pub fn excluded(&self, table: &str) -> Result<Option<Vec<String>>, CaptureError> {
        let layouts = install::captured_layouts(&self.conn)?.into_iter();
        Ok(layouts.into_iter().find(|layout| layout.table.eq_ignore_ascii_case(table)).map(|layout| layout.excluded))
    }

    /// Whether a table could be captured so; changes nothing.
    pub fn check_table(&self, spec: &TableSpec) -> Result<(), CaptureError> {
        install::check(&self.conn, spec)
    }

    /// Whether a table of the store has a column, in any case of letters.
    pub fn has_column(&self, table: &str, column: &str) -> Result<bool, CaptureError> {
        let shape = crate::shape::Shape::read(&self.conn, table)?;
        Ok(shape.columns.iter().any(|known| known.name.eq_ignore_ascii_case(column)))
    }

    /// Removes the triggers of one table, or all, and with `forget` the journal itself.
    pub fn detach(&mut self, table: Option<&str>, forget: bool) -> Result<(), CaptureError> {
        self.require_installed()?;
        install::detach(&mut self.conn, table, forget)
    }

    /// The id the journal was given when it was made.
    pub fn journal_id(&self) -> Result<String, CaptureError> {
        self.require_installed()?;
        install::meta(&self.conn, "journal_id")?.ok_or_else(|| CaptureError::Damaged("it has no id".to_owned()))
    }

    fn require_installed(&self) -> Result<(), CaptureError> {
        if install::is_installed(&self.conn)? { Ok(()) } else { Err(CaptureError::NotInstalled) }
    }

    /// Names of the captured tables.
    pub fn tables(&self) -> Result<Vec<String>, CaptureError> {
        Ok(install::captured_layouts(&self.conn)?.into_iter().map(|layout| layout.table).collect())
    }

    /// The changes behind `after`, or none. What it returns is on stable storage: the files are synced first, since a
    /// store may run with `synchronous = NORMAL`, lose its last commits in a power cut and count their positions again.
    ///
    /// When the journal misses rows, they are recorded as lost, in the journal, before the read goes on behind them.
    pub fn read(&mut self, after: Seq, rows_max: usize, bytes_max: usize) -> Result<Option<Changes>, CaptureError> {
        let mut first = None;
        let mut after = after;
        loop {
            match read::read(&self.conn, &mut self.layouts, after, rows_max, bytes_max)? {
                ReadOutcome::Nothing => return Ok(None),
                ReadOutcome::Gap { from, to } => {
                    let reason = "journal rows were deleted before HQ confirmed them";
                    load::journal_log(&self.conn, load::log_op::LOST, (&to_sql(from), &to_sql(to), &reason))?;
                    tracing::error!(%from, %to, reason, "changes are lost");
                    first.get_or_insert(from);
                    after = to;
                }
                ReadOutcome::Changes(mut changes) => {
                    self.sync()?;
                    changes.first = first.unwrap_or(changes.first);
                    self.rows_read += changes.last.0 - changes.first.0 + 1;
                    let bytes: usize = changes.tables.iter().map(|table| table.rows.get_array_memory_size()).sum();
                    self.bytes_read += bytes as u64;
                    return Ok(Some(changes));
                }
            }
        }
    }

    fn sync(&self) -> Result<(), CaptureError> {
        let doing = "syncing the store's database";
        match File::open(wal_path(&self.path)) {
            // SQLite takes no lock on this file, so that closing it here is harmless.
            Ok(wal) => wal.sync_data().doing(doing)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Without a WAL a commit is the removal of the rollback journal, which is the directory's to remember.
                #[cfg(unix)]
                if let Some(directory) = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    File::open(directory).and_then(|directory| directory.sync_all()).doing(doing)?;
                }
            }
            Err(source) => return Err(CaptureError::Io { doing, source }),
        }
        self.file.sync_data().doing(doing)
    }

    /// The newest positions, as of a read snapshot opened by this call.
    pub fn heads(&mut self) -> Result<&Heads, CaptureError> {
        let sequence = self.sequence()?;
        if sequence < self.heads.head {
            // The database went back in time under us; what is remembered of it is void.
            self.heads = Heads::default();
            self.layouts = Layouts::default();
        }
        read::advance_heads(&self.conn, &mut self.layouts, &mut self.heads)?;
        self.heads.head = self.heads.head.max(sequence);
        Ok(&self.heads)
    }

    /// The newest position ever used, also when the journal was pruned empty.
    fn sequence(&self) -> Result<Seq, CaptureError> {
        let newest: i64 = self
            .conn
            .query_row(
                "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = '_rollcall_journal'",
                [],
                |row| row.get(0),
            )
            .doing("reading the journal's head")?;
        Ok(from_sql(newest))
    }

    /// The oldest position the journal still holds; head + 1 when it is empty.
    pub fn oldest(&self) -> Result<Seq, CaptureError> {
        let oldest: Option<i64> = self
            .conn
            .query_row("SELECT min(seq) FROM _rollcall_journal", [], |row| row.get(0))
            .doing("reading the journal's tail")?;
        match oldest {
            Some(oldest) => Ok(from_sql(oldest)),
            None => Ok(Seq(self.sequence()?.0 + 1)),
        }
    }

    /// How long ago the row at `seq` was journalled; zero if it is not there.
    pub fn age_of(&self, seq: Seq) -> Result<Duration, CaptureError> {
        let seconds: Option<f64> = self
            .conn
            .query_row(
                "SELECT max(0, (julianday('now') - (SELECT at FROM _rollcall_journal WHERE seq = ?1)) * 86400)",
                [to_sql(seq)],
                |row| row.get(0),
            )
            .doing("reading the age of a change")?;
        Ok(Duration::from_secs_f64(seconds.unwrap_or_default()))
    }

    /// A digest of the journal row at `seq`, by which a journal that was rewound and written on is told from the one that was
    /// confirmed; none if the row is not there.
    pub fn row_digest(&self, seq: Seq) -> Result<Option<String>, CaptureError> {
        let doing = "reading a journal row";
        let mut statement = self.conn.prepare_cached("SELECT * FROM _rollcall_journal WHERE seq = ?1").doing(doing)?;
        let mut rows = statement.query([to_sql(seq)]).doing(doing)?;
        let Some(row) = rows.next().doing(doing)? else { return Ok(None) };
        // Not before the first step: a statement that was kept learns of new columns there.
        let columns = row.as_ref().column_count();
        let mut text = String::new();
        for index in 1..columns {
            // Columns added later are null in older rows; trailing nulls must not change the digest.
            let value = row.get_ref(index).doing(doing)?;
            if value != rusqlite::types::ValueRef::Null {
                text.push_str(&format!("{index}:{value:?};"));
            }
        }
        Ok(Some(text))
    }

    /// Journals one chunk of rows that were there before capture; call it until it says [`LoadProgress::Idle`].
    pub fn load_step(&mut self) -> Result<LoadProgress, CaptureError> {
        self.loader.step(&mut self.conn)
    }

    /// Begins a full load of every captured table: HQ started a new epoch and knows nothing of it.
    pub fn reload_all(&mut self) -> Result<(), CaptureError> {
        let doing = "beginning a load of all tables";
        let layouts: Vec<Layout> = install::captured_layouts(&self.conn)?;
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        for layout in &layouts {
            load::begin(&transaction, layout, load::Kind::State)?;
        }
        transaction.commit().doing(doing)
    }

    /// Checks file, triggers and tables, and mends what can be mended. Cheap when nothing changed.
    pub fn check(&mut self) -> Result<Health, CaptureError> {
        match health::file_identity(&self.path) {
            Ok(identity) if identity == self.identity => {}
            Ok(_) => {
                let problem = "the database file was replaced by another; restart the agent to take it up";
                return Ok(Health { problems: vec![problem.to_owned()], mended: Vec::new() });
            }
            Err(error) => {
                let problem = format!("the database file {} is gone: {error}", self.path.display());
                return Ok(Health { problems: vec![problem], mended: Vec::new() });
            }
        }
        if !install::is_installed(&self.conn)? {
            let problem = "the journal was removed from the database; run `rollcall-site join` again";
            return Ok(Health { problems: vec![problem.to_owned()], mended: Vec::new() });
        }
        let version: i64 =
            self.conn.query_row("PRAGMA schema_version", [], |row| row.get(0)).doing("reading the schema version")?;
        let known = match self.schema_version {
            Some(known) => Some(known),
            None => install::meta_number(&self.conn, "schema_version")?,
        };
        let mut found = Health::default();
        let moved = self.checked_version != Some(version);
        if known != Some(version) {
            found = health::check_tables(&mut self.conn, known.is_some() && moved)?;
            let version: i64 = self
                .conn
                .query_row("PRAGMA schema_version", [], |row| row.get(0))
                .doing("reading the schema version")?;
            self.checked_version = Some(version);
            if found.is_ok() {
                install::set_meta(&self.conn, "schema_version", version)?;
                self.schema_version = Some(version);
            }
        }
        Ok(found)
    }

    /// Looks for rows that bypassed the triggers. Costs a look at the journal since the last call; run it now and then.
    pub fn find_bypassed(&mut self) -> Result<Health, CaptureError> {
        let mut health = Health::default();
        health::find_bypassed(&mut self.conn, &mut health)?;
        Ok(health)
    }

    /// About how large the journal is, bytes.
    pub fn journal_bytes(&self) -> Result<u64, CaptureError> {
        let rows = (self.sequence()?.0 + 1).saturating_sub(self.oldest()?.0);
        let row_bytes = self.bytes_read.checked_div(self.rows_read).unwrap_or(ROW_BYTES_GUESS);
        Ok(rows * row_bytes)
    }

    /// Deletes confirmed rows beyond the limits, a few at a time; returns how many went. Rows after `confirmed` stay.
    pub fn prune(&mut self, confirmed: Seq, limits: PruneLimits) -> Result<u64, CaptureError> {
        let oldest = self.oldest()?;
        if oldest > confirmed {
            return Ok(0);
        }
        let through = confirmed.min(Seq(oldest.0 + PRUNE_ROWS - 1));
        let loading: Option<i64> = self
            .conn
            .query_row("SELECT min(begin) FROM _rollcall_load", [], |row| row.get(0))
            .doing("looking for loads")?;
        if loading.is_some_and(|begin| through >= from_sql(begin)) {
            // A load tells by the journal which keys changed since it began.
            return Ok(0);
        }
        if self.age_of(through)? < limits.age && self.journal_bytes()? <= limits.bytes {
            return Ok(0);
        }
        let pruned = self
            .conn
            .execute("DELETE FROM _rollcall_journal WHERE seq <= ?1", [to_sql(through)])
            .doing("pruning the journal")?;
        Ok(pruned as u64)
    }

    /// Deletes notes of triggers that no statement needs any more. Notes matter only within a statement, so every committed
    /// one is left over.
    pub fn forget_notes(&mut self) -> Result<(), CaptureError> {
        let doing = "clearing notes";
        let any: bool =
            self.conn.query_row("SELECT EXISTS(SELECT 1 FROM _rollcall_noted)", [], |row| row.get(0)).doing(doing)?;
        if any {
            self.conn.execute("DELETE FROM _rollcall_noted", []).doing(doing)?;
        }
        Ok(())
    }

    /// Journals how many changes were journalled since the last such count; HQ counts them again.
    pub fn state_manifest(&mut self) -> Result<Manifest, CaptureError> {
        manifest::write(&mut self.conn)
    }

    /// The store's clock, microseconds since the Unix epoch.
    pub fn clock_micros() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }
}
