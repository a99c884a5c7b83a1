//! Changes as they are read from a journal, and where it stands.

use std::{collections::HashMap, time::Duration};

use arrow_array::RecordBatch;
use rollcall_types::Seq;

/// Consecutive changes, split by table.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// First position covered.
    pub first: Seq,
    /// Last position covered; `first..=last` has no gaps.
    pub last: Seq,
    /// The tables touched, in order of first touch.
    pub tables: Vec<TableChanges>,
    /// A digest of the last change: see [`Anchor`].
    pub digest: String,
}

/// A place in the journal behind which one reads on, and the change that was read there: when
/// another one is found there later, the journal was put back in time and written on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Anchor {
    /// The position.
    pub seq: Seq,
    /// Digest of the change as it was read; empty if it is not known.
    pub digest: String,
}

impl From<Seq> for Anchor {
    fn from(seq: Seq) -> Self {
        Self { seq, digest: String::new() }
    }
}

/// One table's share of [`Changes`].
#[derive(Debug, Clone, PartialEq)]
pub struct TableChanges {
    /// Its name in the store's database, or [`rollcall_types::columns::LOG_TABLE`].
    pub table: String,
    /// In journal order, with the columns of [`rollcall_types::columns`] around the table's own;
    /// empty if only marks.
    pub rows: RecordBatch,
    /// Loads of this table begun or completed here.
    pub marks: Vec<LoadMark>,
}

/// Where a load begins or is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadMark {
    /// Position of this mark.
    pub seq: Seq,
    /// Position where the load began.
    pub begin: Seq,
    /// Whether this completes the load.
    pub complete: bool,
}

/// The newest position of the journal and of each captured table in one read snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heads {
    /// The journal's newest position.
    pub head: Seq,
    /// Per captured table; 0 for one of which the journal holds nothing.
    pub tables: HashMap<String, Seq>,
    /// Tables whose rows from before are not all journalled yet: their heads say nothing.
    pub loading: Vec<String>,
}

/// Confirmed changes are kept so long …
pub const KEPT_CONFIRMED: Duration = Duration::from_secs(48 * 3600);

/// … or up to so many bytes of journal.
pub const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;

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

/// How much confirmed journal is kept, so that HQ, restored from a backup, can ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneLimits {
    /// Changes up to here may go: they have been confirmed for long enough.
    pub through: Seq,
    /// Confirmed ones go as well where the journal is larger than this.
    pub bytes: u64,
}

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
    /// A table could not be loaded now; others go on.
    Failed,
}
