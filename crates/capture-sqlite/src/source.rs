//! The agent's hold on one store's database.

mod care;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rollcall_capture::{
    Anchor, CaptureError, Changes, Heads, Health, JournalState, ListedTable, LoadProgress, PruneLimits, Registration,
    Source, TableSpec,
};
use rollcall_types::{LoadReason, Manifest, Seq};
use rusqlite::{Connection, TransactionBehavior};

use crate::{
    counts::Counts,
    error::Doing,
    file::{Look, StoreFile},
    install,
    layout::Layout,
    listing,
    load::{self, Loader},
    manifest,
    read::{self, Layouts, ReadOutcome, to_sql},
    schema::Schema,
    stored::hex,
    withheld,
};

/// One store's database, captured. Not for use from several threads at once; calls block on the
/// file.
#[derive(Debug)]
pub struct SqliteSource {
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
    registration: Option<install::Registration>,
    bytes_read: u64,
    rows_read: u64,
}

/// Under which name the site is noted in the journal.
const SITE: &str = "site";

impl SqliteSource {
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

    fn forget_what_was_read(&mut self) {
        self.layouts = Layouts::default();
        self.loader = Loader::new();
        self.heads = Heads::default();
        (self.heads_seen, self.well_seen, self.schema, self.checked) = (None, None, None, None);
    }

    fn installed(&mut self) -> Result<&Connection, CaptureError> {
        let conn = self.file.reader()?;
        if install::is_installed(conn)? { Ok(conn) } else { Err(CaptureError::NotInstalled) }
    }

    fn unless_rewound<T>(&mut self, result: Result<T, CaptureError>) -> Result<T, CaptureError> {
        if matches!(result, Err(CaptureError::Rewound(_))) {
            // What is remembered of the file is of its other life.
            self.forget_what_was_read();
        }
        result
    }

    /// A digest of the journal row at `seq`, by which a journal that was rewound and written on is
    /// told from the one that was confirmed; none if the row is not there.
    pub fn row_digest(&mut self, seq: Seq) -> Result<Option<String>, CaptureError> {
        read::row_digest(self.file.reader()?, seq)
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
}

impl Source for SqliteSource {
    fn rest(&mut self) {
        self.file.rest();
    }

    fn used(&self) -> Option<Instant> {
        self.file.used()
    }

    fn take_up(&mut self) {
        self.file.take_up();
        self.forget_what_was_read();
    }

    fn remember(&mut self, registration: &Registration) {
        // What another kind of database wrote, or a later version, is none of ours.
        self.registration = serde_json::from_str(registration.as_str()).ok();
    }

    fn registration(&self) -> Option<Registration> {
        let text = serde_json::to_string(self.registration.as_ref()?).ok()?;
        Some(Registration::new(text))
    }

    fn install(&mut self, tables: &[TableSpec], journal_id: &str) -> Result<(), CaptureError> {
        let mut conn = self.file.writer()?;
        install::install(&mut conn, tables, journal_id)?;
        self.registration = Some(install::registration(&conn)?);
        self.well_seen = None;
        Ok(())
    }

    fn capture(&mut self, spec: &TableSpec) -> Result<bool, CaptureError> {
        let numbers = |conn: &Connection| -> Result<Vec<i64>, CaptureError> {
            Ok(install::captured_layouts(conn)?.iter().map(|layout| layout.number).collect())
        };
        let (journal_id, before) = (self.journal_id()?, numbers(self.file.reader()?)?);
        self.install(std::slice::from_ref(spec), &journal_id)?;
        Ok(numbers(self.file.reader()?)? != before)
    }

    fn excluded(&mut self, table: &str) -> Result<Option<Vec<String>>, CaptureError> {
        let layouts = install::captured_layouts(self.file.reader()?)?.into_iter();
        Ok(layouts.into_iter().find(|layout| layout.table.eq_ignore_ascii_case(table)).map(|layout| layout.excluded))
    }

    fn rows_to_load(&mut self) -> Result<Option<u64>, CaptureError> {
        load::rows_to_load(self.file.reader()?)
    }

    fn list_tables(&mut self) -> Result<Vec<ListedTable>, CaptureError> {
        listing::list(self.file.reader()?)
    }

    fn is_installed(&mut self) -> Result<bool, CaptureError> {
        install::is_installed(self.file.reader()?)
    }

    fn site(&mut self) -> Result<Option<String>, CaptureError> {
        let conn = self.file.reader()?;
        match install::is_installed(conn)? {
            true => install::meta(conn, SITE),
            false => Ok(None),
        }
    }

    fn set_site(&mut self, site: &str) -> Result<(), CaptureError> {
        install::set_meta_text(&self.file.writer()?, SITE, site)
    }

    fn check_tables(&mut self, specs: &[TableSpec]) -> Result<(), CaptureError> {
        install::check_all(self.file.reader()?, specs).map(|_| ())
    }

    fn check_writable(&mut self) -> Result<(), CaptureError> {
        let doing = "writing to the store's database";
        let mut conn = self.file.writer()?;
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
        // A file that may only be read lets a transaction begin.
        transaction.execute_batch("CREATE TABLE _rollcall_probe (x)").doing(doing)?;
        transaction.rollback().doing(doing)
    }

    fn has_column(&mut self, table: &str, column: &str) -> Result<bool, CaptureError> {
        let shape = crate::shape::Shape::read(self.file.reader()?, table)?;
        Ok(shape.columns.iter().any(|known| known.name.eq_ignore_ascii_case(column)))
    }

    fn detach(&mut self, table: Option<&str>, forget: bool) -> Result<(), CaptureError> {
        let mut conn = self.file.writer()?;
        install::detach(&mut conn, table, forget)?;
        self.registration = match install::is_installed(&conn)? {
            true => Some(install::registration(&conn)?),
            false => None,
        };
        self.well_seen = None;
        Ok(())
    }

    fn is_stopped(&mut self, table: &str) -> Result<bool, CaptureError> {
        withheld::is_stopped(self.file.reader()?, table)
    }

    fn stop(&mut self, table: &str) -> Result<(), CaptureError> {
        let mut conn = self.file.writer()?;
        install::stop(&mut conn, table)?;
        self.registration = Some(install::registration(&conn)?);
        self.well_seen = None;
        Ok(())
    }

    fn journal_id(&mut self) -> Result<String, CaptureError> {
        let conn = self.installed()?;
        install::meta(conn, "journal_id")?.ok_or_else(|| CaptureError::Damaged("it has no id".to_owned()))
    }

    fn tables(&mut self) -> Result<Vec<String>, CaptureError> {
        install::captured_tables(self.file.reader()?)
    }

    fn read(&mut self, after: Anchor, rows_max: usize, bytes_max: usize) -> Result<Option<Changes>, CaptureError> {
        let mut first = None;
        let mut after = after;
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

    fn journal_state(&mut self, confirmed: Seq) -> Result<JournalState, CaptureError> {
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

    fn heads(&mut self) -> Result<&Heads, CaptureError> {
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

    fn oldest(&mut self) -> Result<Seq, CaptureError> {
        Ok(read::ends(self.file.reader()?)?.0)
    }

    fn age_of(&mut self, seq: Seq) -> Result<Duration, CaptureError> {
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

    fn check_anchor(&mut self, anchor: &Anchor) -> Result<(), CaptureError> {
        let checked = read::check_anchor(self.file.reader()?, anchor);
        self.unless_rewound(checked)
    }

    fn load_step(&mut self) -> Result<LoadProgress, CaptureError> {
        self.loader.step(&mut self.file)
    }

    fn reload_all(&mut self) -> Result<(), CaptureError> {
        self.reload(LoadReason::NewEpoch, |_| true)
    }

    fn state_again(&mut self, is_meant: &dyn Fn(&str) -> bool) -> Result<(), CaptureError> {
        self.reload(LoadReason::Asked, |layout| is_meant(&layout.table))
    }

    fn reload_doubtful(&mut self) -> Result<Vec<String>, CaptureError> {
        let doubtful = |layout: &Layout| layout.is_doubtful_before_0_2();
        let layouts = install::captured_layouts(self.file.reader()?)?;
        let tables = layouts.iter().filter(|layout| doubtful(layout)).map(|layout| layout.table.clone()).collect();
        self.reload(LoadReason::Update, doubtful)?;
        Ok(tables)
    }

    fn state_manifest(&mut self) -> Result<Manifest, CaptureError> {
        manifest::write(&mut self.file)
    }

    fn uncaptured_tables(&mut self) -> Result<Vec<String>, CaptureError> {
        manifest::uncaptured(self.file.reader()?)
    }

    fn check(&mut self) -> Result<Health, CaptureError> {
        Self::check(self)
    }

    fn count_rows(&mut self) -> Result<Health, CaptureError> {
        Self::count_rows(self)
    }

    fn prune(&mut self, confirmed: Seq, limits: PruneLimits) -> Result<u64, CaptureError> {
        Self::prune(self, confirmed, limits)
    }

    fn tidy_up(&mut self) -> Result<(), CaptureError> {
        self.forget_notes()
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
