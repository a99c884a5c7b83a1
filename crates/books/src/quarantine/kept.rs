//! What a batch in quarantine is, what became of it, and what a person decided.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::{
    Array, RecordBatch,
    cast::AsArray,
    types::{Int32Type, Int64Type, TimestampMicrosecondType},
};
use rollcall_lake::{DataFile, LakeError, our_columns};
use rollcall_registry::facts::Kept;
use rollcall_types::{Cause, Epoch, Seq, SiteId, Timestamp};
use serde::{Deserialize, Serialize};

/// What a person decided about a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What was decided.
    pub what: Decided,
    /// Who decided it.
    pub by: String,
    /// Why, in words.
    pub reason: String,
    /// When it was decided.
    pub at: Timestamp,
}

/// What a person can decide about a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decided {
    /// What hindered it is mended: the site states everything again.
    Taken,
    /// Its rows are done without.
    GivenUp,
}

/// Of which tables a site has rows in quarantine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Concern {
    /// It may be any table.
    pub(super) all: bool,
    pub(super) tables: BTreeSet<String>,
    /// The site captures them no longer, since then.
    pub(super) stopped: BTreeMap<String, Timestamp>,
    pub(super) lacks: Lacks,
}

/// What a store has or had, other stores send, and is not captured there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lacks {
    pub(super) tables: BTreeSet<String>,
    /// By table.
    pub(super) columns: BTreeSet<(String, String)>,
    /// Columns that the store or HQ asked to leave out, by table.
    pub(super) left_out: BTreeSet<(String, String)>,
}

impl Lacks {
    /// Why a question that reads these columns of a table lacks the site.
    fn column(&self, table: &str, columns: &[String]) -> Option<Cause> {
        let is_read = |(of, column): &(String, String)| of == table && columns.contains(column);
        if self.columns.iter().any(is_read) {
            return Some(Cause::ColumnGone);
        }
        self.left_out.iter().any(is_read).then_some(Cause::ColumnLeftOut)
    }
}

impl Concern {
    /// Why answers that read these columns of a table lack the site; none if they do not.
    pub fn cause(&self, table: &str, columns: &[String]) -> Option<Cause> {
        if self.all || self.tables.contains(table) {
            Some(Cause::RowsNotTaken)
        } else if self.stopped.contains_key(table) {
            Some(Cause::CaptureStuck)
        } else if self.lacks.tables.contains(table) {
            Some(Cause::NotCaptured)
        } else {
            self.lacks.column(table, columns)
        }
    }

    /// What is said of tables that the site captures no longer.
    pub fn stopped_in_words(&self, site: &SiteId) -> Option<String> {
        let since = self.stopped.values().min()?;
        let tables = self.stopped.keys().cloned().collect::<Vec<_>>().join(", ");
        Some(format!(
            "{site} does not capture {tables} any more (heard at {since}): what its store writes there is missing until it does again, or, if that \
             is as it should be, until this incident is accounted for (`rollcall incidents normal`)"
        ))
    }

    /// Columns that the site's tables had and have no more, with their tables.
    pub fn gone(&self) -> &BTreeSet<(String, String)> {
        &self.lacks.columns
    }

    /// What is said of these.
    pub fn gone_in_words(&self, site: &SiteId) -> Option<String> {
        let columns: Vec<String> = self.gone().iter().map(|(table, column)| format!("{table}.{column}")).collect();
        let (table, column) = self.gone().first()?;
        Some(format!(
            "{site} has no column {} any more: it was dropped or renamed at the store, and answers that read it lack the site. If that is \
             as it should be: `rollcall tables set {table} --optional-column {column}`",
            columns.join(", ")
        ))
    }

    pub(super) fn add(&mut self, kept: &Kept) {
        match &kept.tables {
            Some(tables) => self.tables.extend(tables.iter().cloned()),
            None => self.all = true,
        }
    }
}

/// What became of a batch in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// For a person.
    Waits,
    /// For the site, which is to state everything again.
    Asked,
    /// The site has stated its rows since.
    StatedAgain,
    /// A person did without its rows.
    GivenUp,
}

impl State {
    /// Whether its rows are missing.
    pub(super) fn waits(self) -> bool {
        matches!(self, Self::Waits | Self::Asked)
    }
}

/// A batch in quarantine, as people see it.
#[derive(Debug, Serialize)]
pub struct KeptView {
    /// Its name, as `SITE:EPOCH:FIRST`.
    pub id: String,
    /// The site that sent it.
    pub site: SiteId,
    /// What is known of it.
    #[serde(flatten)]
    pub kept: Kept,
    /// What became of it.
    pub state: State,
    /// What was decided about it; none if nothing was.
    pub decision: Option<Decision>,
}

/// What is known of a batch whose file is damaged.
pub(super) fn damaged(file: &DataFile, what: &str) -> Option<(SiteId, Kept)> {
    let known = |name: &str| file.stats.min_values.get(name);
    let number = |name: &str| known(name).and_then(serde_json::Value::as_u64).unwrap_or_default();
    let kept = Kept {
        epoch: Epoch(u32::try_from(number(our_columns::EPOCH)).unwrap_or_default()),
        first: Seq(number("first_seq")),
        last: Seq(number("last_seq")),
        at: Timestamp::from_micros(file.modified_ms.saturating_mul(1000)),
        reason: what.to_owned(),
        tables: None,
        bytes: 0,
        file: String::new(),
    };
    Some((SiteId::new(known(our_columns::SITE)?.as_str()?).ok()?, kept))
}

pub(super) fn entries(rows: &RecordBatch) -> Result<Vec<(SiteId, Kept)>, LakeError> {
    let column = |name: &str| {
        rows.column_by_name(name).ok_or_else(|| LakeError::Task(format!("the quarantine has no column {name}")))
    };
    let (sites, reasons) = (column(our_columns::SITE)?.as_string::<i32>(), column("reason")?.as_string::<i32>());
    let (epochs, tables) =
        (column(our_columns::EPOCH)?.as_primitive::<Int32Type>(), column("tables")?.as_string::<i32>());
    let seqs = [column("first_seq")?, column("last_seq")?].map(|column| column.as_primitive::<Int64Type>().clone());
    let times = column(our_columns::RECEIVED_AT)?.as_primitive::<TimestampMicrosecondType>();
    let entry = |row: usize| {
        let kept = Kept {
            epoch: Epoch(epochs.value(row).unsigned_abs()),
            first: Seq(seqs[0].value(row).unsigned_abs()),
            last: Seq(seqs[1].value(row).unsigned_abs()),
            at: Timestamp::from_micros(times.value(row)),
            reason: reasons.value(row).to_owned(),
            tables: tables.is_valid(row).then(|| serde_json::from_str(tables.value(row)).ok()).flatten(),
            bytes: 0,
            file: String::new(),
        };
        Some((SiteId::new(sites.value(row)).ok()?, kept))
    };
    Ok((0..rows.num_rows()).filter_map(entry).collect())
}
