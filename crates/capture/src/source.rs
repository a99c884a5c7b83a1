//! The agent's hold on one store's database.

mod care;

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rollcall_types::{LoadReason, Manifest, Seq};
use rusqlite::{Connection, TransactionBehavior};

pub use self::care::PruneLimits;

use crate::{
    counts::Counts,
    error::{CaptureError, Doing},
    file::{Fingerprint, StoreFile, fingerprint, is_settled},
    install::{self, Registration, TableSpec},
    layout::Layout,
    listing::{self, ListedTable},
    load::{self, LoadProgress, Loader},
    manifest,
    read::{self, Anchor, Changes, Heads, Layouts, ReadOutcome, to_sql},
    schema::Schema,
    stored::hex,
    withheld,
};

/// Confirmed changes are kept so long …
pub const KEPT_CONFIRMED: Duration = Duration::from_secs(48 * 3600);
/// … or up to so many bytes of journal.
pub const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// One store's database, captured. Not for use from several threads at once; calls block on the
/// file.
#[derive(Debug)]
pub struct Source {
    file: StoreFile,
    layouts: Layouts,
    loader: Loader,
    counts: Counts,
    heads: Heads,
    /// What was said of the journal last.
    state: Option<JournalState>,
    /// How the file looked when the heads were read last.
    heads_seen: Option<Look>,
    /// How the file looked when all was well last.
    well_seen: Option<Look>,
    /// The schema at which all was well last.
    schema: Option<Schema>,
    /// The schema looked at last, well or not.
    checked: Option<Schema>,
    registration: Option<Registration>,
    bytes_read: u64,
    rows_read: u64,
}

/// What a beacon says of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalState {
    /// Its newest position.
    pub head: Seq,
    /// How long the oldest change that is not confirmed has waited, by the store's clock.
    pub oldest_waits: Duration,
    /// About how large it is, bytes.
    pub bytes: u64,
}

/// How the file looked, and when.
#[derive(Debug, Clone, Copy)]
struct Look {
    seen: Fingerprint,
    at: SystemTime,
    since: Instant,
}

/// However the file looks, it is looked into this often.
const LOOK_ANYWAY: Duration = Duration::from_secs(300);
/// Under which name the site is noted in the journal.
const SITE: &str = "site";

impl Look {
    fn at(path: &Path) -> Self {
        Self { seen: fingerprint(path), at: SystemTime::now(), since: Instant::now() }
    }

    /// Whether the file cannot have changed since.
    fn holds(&self, path: &Path) -> bool {
        is_settled(&self.seen, self.at) && self.since.elapsed() < LOOK_ANYWAY && fingerprint(path) == self.seen
    }
}

impl Source {
    /// A database that has a journal, or not yet: see [`Source::install`]. Nothing is opened before
    /// it is needed.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let path = std::path::absolute(path).doing("finding the store's database")?;
        Ok(Self {
            file: StoreFile::new(&path),
            layouts: Layouts::default(),
            loader: Loader::new(),
            counts: Counts::default(),
            heads: Heads::default(),
            state: None,
            heads_seen: None,
            well_seen: None,
            schema: None,
            checked: None,
            registration: None,
            bytes_read: 0,
            rows_read: 0,
        })
    }

    /// Lets go of the file until it is needed again, so that the store's programs, and people who
    /// put a backup in place, have it to themselves.
    pub fn rest(&mut self) {
        self.file.rest();
    }

    /// When the file was used last; none if it is let go of.
    pub fn used(&self) -> Option<Instant> {
        self.file.used()
    }

    /// Takes up the file that the path leads to now, whatever it led to before.
    pub fn take_up(&mut self) {
        self.file.take_up();
        self.forget_what_was_read();
    }

    fn forget_what_was_read(&mut self) {
        self.layouts = Layouts::default();
        self.loader = Loader::new();
        self.heads = Heads::default();
        (self.heads_seen, self.well_seen, self.schema, self.checked) = (None, None, None, None);
    }

    /// What is known of capture from outside the file, by which tables of ours that are dropped can
    /// be made again.
    pub fn remember(&mut self, registration: Registration) {
        self.registration = Some(registration);
    }

    /// What is to be kept outside the file; see [`Self::remember`].
    pub fn registration(&self) -> Option<&Registration> {
        self.registration.as_ref()
    }

    /// Adds the journal and triggers for `tables`; rows already there are loaded by
    /// [`Source::load_step`].
    pub fn install(&mut self, tables: &[TableSpec], journal_id: &str) -> Result<(), CaptureError> {
        let mut conn = self.file.writer()?;
        install::install(&mut conn, tables, journal_id)?;
        self.registration = Some(install::registration(&conn)?);
        self.well_seen = None;
        Ok(())
    }

    /// Captures a table with these exclusions besides those captured already, or another way than
    /// before; true if that is a change. Rows already there are loaded if they, or columns of them,
    /// were not captured so far.
    pub fn capture(&mut self, spec: &TableSpec) -> Result<bool, CaptureError> {
        let numbers = |conn: &Connection| -> Result<Vec<i64>, CaptureError> {
            Ok(install::captured_layouts(conn)?.iter().map(|layout| layout.number).collect())
        };
        let (journal_id, before) = (self.journal_id()?, numbers(self.file.reader()?)?);
        self.install(std::slice::from_ref(spec), &journal_id)?;
        Ok(numbers(self.file.reader()?)? != before)
    }

    /// The columns of a captured table that are not; none if it is not captured.
    pub fn excluded(&mut self, table: &str) -> Result<Option<Vec<String>>, CaptureError> {
        let layouts = install::captured_layouts(self.file.reader()?)?.into_iter();
        Ok(layouts.into_iter().find(|layout| layout.table.eq_ignore_ascii_case(table)).map(|layout| layout.excluded))
    }

    /// About how many rows tables hold that are being loaded, from their largest row number:
    /// counting them would keep the store's
    /// programs waiting. None if nothing is being loaded.
    pub fn rows_to_load(&mut self) -> Result<Option<u64>, CaptureError> {
        load::rows_to_load(self.file.reader()?)
    }

    /// What there is to capture, and what cannot be; changes nothing.
    pub fn list_tables(&mut self) -> Result<Vec<ListedTable>, CaptureError> {
        listing::list(self.file.reader()?)
    }

    /// Whether there is a journal in the file.
    pub fn is_installed(&mut self) -> Result<bool, CaptureError> {
        install::is_installed(self.file.reader()?)
    }

    /// The site whose database this is, as it was noted in the file; none if that was never noted.
    pub fn site(&mut self) -> Result<Option<String>, CaptureError> {
        let conn = self.file.reader()?;
        match install::is_installed(conn)? {
            true => install::meta(conn, SITE),
            false => Ok(None),
        }
    }

    /// Notes in the file whose database it is.
    pub fn set_site(&mut self, site: &str) -> Result<(), CaptureError> {
        install::set_meta_text(&self.file.writer()?, SITE, site)
    }

    /// Whether these tables could be captured so, beside those that are; changes nothing.
    pub fn check_tables(&mut self, specs: &[TableSpec]) -> Result<(), CaptureError> {
        install::check_all(self.file.reader()?, specs).map(|_| ())
    }

    /// Whether the file can be written at all; changes nothing.
    pub fn check_writable(&mut self) -> Result<(), CaptureError> {
        let doing = "writing to the store's database";
        let mut conn = self.file.writer()?;
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        // A file that may only be read lets a transaction begin.
        transaction.execute_batch("CREATE TABLE _rollcall_probe (x)").doing(doing)?;
        transaction.rollback().doing(doing)
    }

    /// Whether a table of the store has a column, in any case of letters.
    pub fn has_column(&mut self, table: &str, column: &str) -> Result<bool, CaptureError> {
        let shape = crate::shape::Shape::read(self.file.reader()?, table)?;
        Ok(shape.columns.iter().any(|known| known.name.eq_ignore_ascii_case(column)))
    }

    /// Removes the triggers of one table, or all, and with `forget` the journal itself; whatever of
    /// ours is still there.
    pub fn detach(&mut self, table: Option<&str>, forget: bool) -> Result<(), CaptureError> {
        let mut conn = self.file.writer()?;
        install::detach(&mut conn, table, forget)?;
        self.registration = match install::is_installed(&conn)? {
            true => Some(install::registration(&conn)?),
            false => None,
        };
        self.well_seen = None;
        Ok(())
    }

    /// Whether nothing of a table is sent, or the journal never knew it.
    pub fn is_stopped(&mut self, table: &str) -> Result<bool, CaptureError> {
        withheld::is_stopped(self.file.reader()?, table)
    }

    /// Ends the capture of a table for good: what the journal holds of it is not sent any more, nor
    /// in a later life, until it is captured again.
    pub fn stop(&mut self, table: &str) -> Result<(), CaptureError> {
        let mut conn = self.file.writer()?;
        install::stop(&mut conn, table)?;
        self.registration = Some(install::registration(&conn)?);
        self.well_seen = None;
        Ok(())
    }

    /// The id the journal was given when it was made.
    pub fn journal_id(&mut self) -> Result<String, CaptureError> {
        let conn = self.installed()?;
        install::meta(conn, "journal_id")?.ok_or_else(|| CaptureError::Damaged("it has no id".to_owned()))
    }

    fn installed(&mut self) -> Result<&Connection, CaptureError> {
        let conn = self.file.reader()?;
        if install::is_installed(conn)? { Ok(conn) } else { Err(CaptureError::NotInstalled) }
    }

    /// Names of the captured tables.
    pub fn tables(&mut self) -> Result<Vec<String>, CaptureError> {
        install::captured_tables(self.file.reader()?)
    }

    /// The changes behind a place, or none. What it returns is on stable storage: the files are
    /// synced first, since a store may run with `synchronous = NORMAL`, lose its last commits in a
    /// power cut and count their positions again.
    ///
    /// When the journal misses rows, they are recorded as lost, in the journal, before the read
    /// goes on behind them. When the change at the place is not the one that was read there, the
    /// error is [`CaptureError::Rewound`].
    pub fn read(
        &mut self,
        after: impl Into<Anchor>,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Changes>, CaptureError> {
        let mut first = None;
        let mut after = after.into();
        loop {
            let read = read::read(self.file.reader()?, &mut self.layouts, &after, rows_max, bytes_max);
            match self.unless_rewound(read)? {
                ReadOutcome::Nothing => return Ok(None),
                ReadOutcome::Gap { from, to } => {
                    let reason = "journal rows were deleted before HQ confirmed them";
                    let conn = self.file.writer()?;
                    load::journal_log(&conn, load::log_op::LOST, (&to_sql(from), &to_sql(to), &reason))?;
                    tracing::error!(%from, %to, reason, "changes are lost");
                    first.get_or_insert(Seq(after.seq.0 + 1));
                    after = to.into();
                }
                ReadOutcome::Changes(mut changes) => {
                    self.file.sync()?;
                    changes.first = first.unwrap_or(changes.first);
                    self.rows_read += changes.last.0 - changes.first.0 + 1;
                    let bytes: usize = changes.tables.iter().map(|table| table.rows.get_array_memory_size()).sum();
                    self.bytes_read += bytes as u64;
                    return Ok(Some(changes));
                }
            }
        }
    }

    fn unless_rewound<T>(&mut self, result: Result<T, CaptureError>) -> Result<T, CaptureError> {
        if matches!(result, Err(CaptureError::Rewound(_))) {
            // What is remembered of the file is of its other life.
            self.forget_what_was_read();
        }
        result
    }

    /// What a beacon says of the journal, as of now: see [`Self::heads`].
    pub fn journal_state(&mut self, confirmed: Seq) -> Result<JournalState, CaptureError> {
        let head = self.heads()?.head;
        let known = self.state.filter(|known| known.head == head && head <= confirmed);
        let state = match known {
            Some(known) => known,
            None => {
                let oldest_waits = if head > confirmed { self.age_of(Seq(confirmed.0 + 1))? } else { Duration::ZERO };
                JournalState { head, oldest_waits, bytes: self.journal_bytes()? }
            }
        };
        self.state = Some(state);
        Ok(state)
    }

    /// The newest positions, as of now: of a read snapshot opened by this call, unless the file
    /// cannot have changed since the last one.
    pub fn heads(&mut self) -> Result<&Heads, CaptureError> {
        if self.heads_seen.is_some_and(|look| look.holds(self.file.path())) {
            return Ok(&self.heads);
        }
        let look = Look::at(self.file.path());
        let conn = self.installed()?;
        let sequence = read::sequence(conn)?;
        if sequence < self.heads.head {
            let error = CaptureError::Rewound(format!(
                "the journal ended at {}, and ends at {sequence} now: the database went back in time",
                self.heads.head
            ));
            return self.unless_rewound(Err(error));
        }
        read::advance_heads(self.file.reader()?, &mut self.layouts, &mut self.heads)?;
        self.heads.head = self.heads.head.max(sequence);
        self.heads_seen = Some(look);
        Ok(&self.heads)
    }

    /// The oldest position the journal still holds; head + 1 when it is empty.
    pub fn oldest(&mut self) -> Result<Seq, CaptureError> {
        Ok(read::ends(self.file.reader()?)?.0)
    }

    /// How long ago the row at `seq` was journalled, by the store's clock; zero if it is not there.
    pub fn age_of(&mut self, seq: Seq) -> Result<Duration, CaptureError> {
        let seconds: Option<f64> = self
            .file
            .reader()?
            .query_row(
                "SELECT max(0, (julianday('now') - (SELECT at FROM _rollcall_journal WHERE seq = ?1)) * 86400)",
                [to_sql(seq)],
                |row| row.get(0),
            )
            .doing("reading the age of a change")?;
        Ok(Duration::from_secs_f64(seconds.unwrap_or_default()))
    }

    /// A digest of the journal row at `seq`, by which a journal that was rewound and written on is
    /// told from the one that was confirmed; none if the row is not there.
    pub fn row_digest(&mut self, seq: Seq) -> Result<Option<String>, CaptureError> {
        read::row_digest(self.file.reader()?, seq)
    }

    /// Finds out whether the change at a place is still the one that was read there.
    pub fn check_anchor(&mut self, anchor: &Anchor) -> Result<(), CaptureError> {
        let checked = read::check_anchor(self.file.reader()?, anchor);
        self.unless_rewound(checked)
    }

    /// Journals one chunk of rows that were there before capture; call it until it says
    /// [`LoadProgress::Idle`].
    pub fn load_step(&mut self) -> Result<LoadProgress, CaptureError> {
        self.loader.step(&mut self.file)
    }

    /// Begins a full load of every captured table: HQ started a new epoch and knows nothing of it.
    pub fn reload_all(&mut self) -> Result<(), CaptureError> {
        self.reload(LoadReason::NewEpoch, |_| true)
    }

    /// Begins a full load of the captured tables that are meant: HQ asks for it.
    pub fn state_again(&mut self, is_meant: impl Fn(&str) -> bool) -> Result<(), CaptureError> {
        self.reload(LoadReason::Asked, |layout| is_meant(&layout.table))
    }

    /// Begins a full load of those tables of which an agent before 0.2 may have sent rows twice, or
    /// keys that HQ took for one; names them.
    pub fn reload_doubtful(&mut self) -> Result<Vec<String>, CaptureError> {
        let doubtful = |layout: &Layout| layout.is_doubtful_before_0_2();
        let layouts = install::captured_layouts(self.file.reader()?)?;
        let tables = layouts.iter().filter(|layout| doubtful(layout)).map(|layout| layout.table.clone()).collect();
        self.reload(LoadReason::Update, doubtful)?;
        Ok(tables)
    }

    fn reload(&mut self, reason: LoadReason, is_meant: impl Fn(&Layout) -> bool) -> Result<(), CaptureError> {
        let doing = "beginning a load";
        let mut conn = self.file.writer()?;
        let layouts: Vec<Layout> = install::captured_layouts(&conn)?;
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        for layout in layouts.iter().filter(|layout| is_meant(layout)) {
            load::begin(&transaction, layout, load::Kind::State, reason)?;
        }
        transaction.commit().doing(doing)
    }

    /// Journals how many changes were journalled since the last such count; HQ counts them again.
    pub fn state_manifest(&mut self) -> Result<Manifest, CaptureError> {
        manifest::write(&mut self.file)
    }

    /// The store's own tables that are not captured.
    pub fn uncaptured_tables(&mut self) -> Result<Vec<String>, CaptureError> {
        manifest::uncaptured(self.file.reader()?)
    }

    /// The store's clock, microseconds since the Unix epoch.
    pub fn clock_micros() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }
}

/// Random digits that name a journal.
fn random_name() -> String {
    let mut bytes = [0; 16];
    let random = ring::rand::SystemRandom::new();
    if ring::rand::SecureRandom::fill(&random, &mut bytes).is_err() {
        bytes[..4].copy_from_slice(&std::process::id().to_le_bytes());
    }
    hex(&bytes)
}
