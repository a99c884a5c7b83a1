//! What a kind of database gives.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arrow_array::RecordBatch;
use rollcall_types::{Manifest, Seq};

use crate::{
    Anchor, AppliedTable, CaptureError, Changes, DueChange, Heads, Health, IncomingTable, JournalState, ListedTable,
    LoadProgress, PruneLimits, Registration, Report, Staged, Standing, TableSpec,
};

/// One store's database: where it is, and how it is opened. Nothing is opened before it is needed.
pub trait Database: Debug + Send + Sync {
    /// The agent's hold on its changes.
    fn source(&self) -> Result<Box<dyn Source>, CaptureError>;

    /// The agent's hold on HQ's tables there. What is fetched is staged in `directory`.
    fn incoming(&self, directory: &Path) -> Result<Box<dyn Incoming>, CaptureError>;

    /// What the database looks like now. It differs once something was committed since; looking
    /// takes no lock and keeps nobody waiting.
    fn fingerprint(&self) -> Fingerprint;
}

/// What a database looks like; see [`Database::fingerprint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u64; 4]);

/// The agent's hold on the changes of one store's database. Not for use from several threads at
/// once; calls block on the database.
pub trait Source: Debug + Send {
    /// Lets go of the database until it is needed again, so that the store's programs, and people
    /// who put a backup in place, have it to themselves.
    fn rest(&mut self);

    /// When the database was used last; none if it is let go of.
    fn used(&self) -> Option<Instant>;

    /// Takes up the database that is there now, whatever was there before.
    fn take_up(&mut self);

    /// What is known of capture from outside the database, by which tables of ours that are dropped
    /// can be made again.
    fn remember(&mut self, registration: &Registration);

    /// What is to be kept outside the database; see [`Self::remember`].
    fn registration(&self) -> Option<Registration>;

    /// Adds the journal and triggers for `tables`; rows already there are loaded by
    /// [`Source::load_step`].
    fn install(&mut self, tables: &[TableSpec], journal_id: &str) -> Result<(), CaptureError>;

    /// Captures a table with these exclusions besides those captured already, or another way than
    /// before; true if that is a change. Rows already there are loaded if they, or columns of them,
    /// were not captured so far.
    fn capture(&mut self, spec: &TableSpec) -> Result<bool, CaptureError>;

    /// The columns of a captured table that are not; none if it is not captured.
    fn excluded(&mut self, table: &str) -> Result<Option<Vec<String>>, CaptureError>;

    /// About how many rows tables hold that are being loaded, by an estimate that keeps the store's
    /// programs waiting no longer than a look. None if nothing is being loaded.
    fn rows_to_load(&mut self) -> Result<Option<u64>, CaptureError>;

    /// What there is to capture, and what cannot be; changes nothing.
    fn list_tables(&mut self) -> Result<Vec<ListedTable>, CaptureError>;

    /// Whether there is a journal in the database.
    fn is_installed(&mut self) -> Result<bool, CaptureError>;

    /// The site whose database this is, as it was noted in it; none if that was never noted.
    fn site(&mut self) -> Result<Option<String>, CaptureError>;

    /// Notes in the database whose it is.
    fn set_site(&mut self, site: &str) -> Result<(), CaptureError>;

    /// Whether these tables could be captured so, beside those that are; changes nothing.
    fn check_tables(&mut self, specs: &[TableSpec]) -> Result<(), CaptureError>;

    /// Whether the database can be written at all; changes nothing.
    fn check_writable(&mut self) -> Result<(), CaptureError>;

    /// Whether a table of the store has a column, in any case of letters.
    fn has_column(&mut self, table: &str, column: &str) -> Result<bool, CaptureError>;

    /// Removes the triggers of one table, or all, and with `forget` the journal itself; whatever of
    /// ours is still there.
    fn detach(&mut self, table: Option<&str>, forget: bool) -> Result<(), CaptureError>;

    /// Whether nothing of a table is sent, or the journal never knew it.
    fn is_stopped(&mut self, table: &str) -> Result<bool, CaptureError>;

    /// Ends the capture of a table for good: what the journal holds of it is not sent any more, nor
    /// in a later life, until it is captured again.
    fn stop(&mut self, table: &str) -> Result<(), CaptureError>;

    /// The id the journal was given when it was made.
    fn journal_id(&mut self) -> Result<String, CaptureError>;

    /// Names of the captured tables.
    fn tables(&mut self) -> Result<Vec<String>, CaptureError>;

    /// The changes behind a place, at most `rows_max` rows or about `bytes_max` bytes of values;
    /// none if there are none. What it returns is on stable storage: no power cut takes it back.
    ///
    /// When the journal misses rows, they are recorded as lost, in the journal, before the read
    /// goes on behind them. When the change at the place is not the one that was read there, the
    /// error is [`CaptureError::Rewound`].
    fn read(&mut self, after: Anchor, rows_max: usize, bytes_max: usize) -> Result<Option<Changes>, CaptureError>;

    /// What a beacon says of the journal, as of now: see [`Self::heads`].
    fn journal_state(&mut self, confirmed: Seq) -> Result<JournalState, CaptureError>;

    /// The newest positions, as of now: of a read snapshot opened by this call, unless the database
    /// cannot have changed since the last one.
    fn heads(&mut self) -> Result<&Heads, CaptureError>;

    /// The oldest position the journal still holds; head + 1 when it is empty.
    fn oldest(&mut self) -> Result<Seq, CaptureError>;

    /// How long ago the row at `seq` was journalled, by the store's clock; zero if it is not there.
    fn age_of(&mut self, seq: Seq) -> Result<Duration, CaptureError>;

    /// Finds out whether the change at a place is still the one that was read there.
    fn check_anchor(&mut self, anchor: &Anchor) -> Result<(), CaptureError>;

    /// Journals one chunk of rows that were there before capture; call it until it says
    /// [`LoadProgress::Idle`].
    fn load_step(&mut self) -> Result<LoadProgress, CaptureError>;

    /// Begins a full load of every captured table: HQ started a new epoch and knows nothing of it.
    fn reload_all(&mut self) -> Result<(), CaptureError>;

    /// Begins a full load of the captured tables that are meant: HQ asks for it.
    fn state_again(&mut self, is_meant: &dyn Fn(&str) -> bool) -> Result<(), CaptureError>;

    /// Begins a full load of those tables of which an agent before 0.2 may have sent rows twice, or
    /// keys that HQ took for one; names them.
    fn reload_doubtful(&mut self) -> Result<Vec<String>, CaptureError>;

    /// Journals how many changes were journalled since the last such count; HQ counts them again.
    fn state_manifest(&mut self) -> Result<Manifest, CaptureError>;

    /// The store's own tables that are not captured.
    fn uncaptured_tables(&mut self) -> Result<Vec<String>, CaptureError>;

    /// Checks that every change is captured, and mends what can be mended. Costs nothing while the
    /// database is as it was.
    fn check(&mut self) -> Result<Health, CaptureError>;

    /// Counts the rows of every table now, whenever they were counted last; see [`Self::check`].
    fn count_rows(&mut self) -> Result<Health, CaptureError>;

    /// Deletes confirmed rows beyond the limits, a few at a time; returns how many went. Rows after
    /// `confirmed` stay.
    fn prune(&mut self, confirmed: Seq, limits: PruneLimits) -> Result<u64, CaptureError>;

    /// Clears what capture itself left behind in the database and needs no more.
    fn tidy_up(&mut self) -> Result<(), CaptureError>;
}

/// The agent's hold on HQ's tables in one store's database. Calls block on the database.
///
/// Staging is durable, so that a fetch goes on where it broke. What is staged is either a change of
/// what is applied, or the whole table.
pub trait Incoming: Debug + Send {
    /// What is applied, by table.
    fn applied(&self) -> Result<BTreeMap<String, AppliedTable>, CaptureError>;

    /// The fetch under way for a table.
    fn staged(&self, table: &str) -> Result<Option<Staged>, CaptureError>;

    /// Begins a fetch of what was published behind `after`, or goes on with it if it stands there.
    fn begin(&mut self, table: &IncomingTable, after: Seq, whole: bool) -> Result<(), CaptureError>;

    /// Stages rows, the last of which was published at `through`. Their first column is the
    /// operation.
    fn stage(&mut self, table: &str, rows: &RecordBatch, through: Seq) -> Result<(), CaptureError>;

    /// Makes what is staged the table's content, as of `version`. When it was fetched because rows
    /// were changed here (`mending`), what differs is counted as edits.
    fn apply(&mut self, table: &str, version: Seq, published_at: i64, mending: bool) -> Result<Report, CaptureError>;

    /// Forgets a fetch under way.
    fn clear(&mut self, table: &str) -> Result<(), CaptureError>;

    /// Whether the database is still the one that is open; one that was replaced is to be opened
    /// anew.
    fn is_current(&self) -> bool;

    /// Notes what is to take effect, in the place of what was noted before; what has already is not
    /// done again.
    fn schedule(&mut self, changes: &[DueChange]) -> Result<(), CaptureError>;

    /// When something is to take effect next, microseconds since 1970.
    fn next_due(&self) -> Result<Option<i64>, CaptureError>;

    /// Tables in which something is to take effect by now and has not.
    fn due_tables(&self) -> Result<Vec<String>, CaptureError>;

    /// Puts rows whose time has come into a table; none if their rows are not here yet, or the
    /// table is not.
    fn take_effect(&mut self, table: &str) -> Result<Option<Report>, CaptureError>;

    /// Compares a table with what is staged of it, which is whole and of the version that is
    /// applied: rows that differ are named, and counted where they did not before. Nothing is put
    /// right.
    fn compare(&mut self, table: &str) -> Result<(), CaptureError>;

    /// The store is to have a table no more, and none of its rows is left there: a table that was
    /// made for HQ's rows goes, unless something of the store's own stands on it. From then on it
    /// is the store's; true if it was HQ's until now.
    fn leave(&mut self, table: &str) -> Result<bool, CaptureError>;

    /// Makes the next fetch of every table a whole one: HQ may not remember what it published.
    fn distrust(&mut self) -> Result<(), CaptureError>;

    /// Lets HQ have a table in which the store has rows of its own: they are replaced by the next
    /// fetch.
    fn adopt(&self, table: &str) -> Result<(), CaptureError>;

    /// Whether the table is what was applied; reads it whole.
    fn standing(&self, table: &str) -> Result<Standing, CaptureError>;

    /// Whether the table is what was applied.
    fn is_as_applied(&self, table: &str) -> Result<bool, CaptureError>;

    /// Tables that are shared, or were and have edits on which HQ has not decided.
    fn edited(&self) -> Result<Vec<String>, CaptureError>;

    /// HQ has decided on the store's edits of a shared table up to this number: what was held back
    /// takes effect.
    fn settle(&mut self, table: &str, through: u64) -> Result<(), CaptureError>;
}

/// The store's clock, microseconds since the Unix epoch.
pub fn clock_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
