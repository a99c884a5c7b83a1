//! What was said of tables that HQ publishes, and which tables are the stores' own.

use std::collections::BTreeMap;

use rollcall_lake::{RecordKind, StateView, Table};
use rollcall_types::{
    Seq, TableName, Timestamp,
    shared::{CONFLICTS_SUFFIX, EDITS_SUFFIX, Rule},
};
use serde::{Deserialize, Serialize};

use rollcall_registry::HqError;

/// The kind of its records.
pub const DEFINITION: RecordKind<Definition> = RecordKind::new("published_table");
/// The kind of the records of publications.
pub const PUBLICATION: RecordKind<Publication> = RecordKind::new("publication");

/// What was said of a published table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The columns that name a row.
    pub key: Vec<String>,
    /// Which rows a site gets: a condition over the row's columns and, as `site.name`, the site's
    /// attributes.
    pub to: String,
    /// Whether rows that a site changed are put right, or only told of.
    pub mends: bool,
    /// How often sites were made to fetch the table whole, since something that had taken effect
    /// was taken back.
    #[serde(default)]
    pub restated: u32,
    /// By which rule sites change it as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Rule>,
    /// How its rows and the stores' own rules live together.
    #[serde(default)]
    pub at_stores: AtStores,
}

/// How HQ's rows and a store's own rules live together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtStores {
    /// A row that rows of a store's own name by a foreign key does not go there; else those name a
    /// row that is gone.
    #[serde(default)]
    pub keeps_referenced: bool,
    /// Columns in which a store may have other values than HQ sent.
    #[serde(default)]
    pub rewritten: Vec<String>,
}

/// What is to change of it.
#[derive(Debug, Clone, Default)]
pub struct AtStoresChange {
    /// The new value; none leaves it as it is.
    pub keeps_referenced: Option<bool>,
    /// The new columns, in place of those before; none leaves them as they are.
    pub rewritten: Option<Vec<String>>,
}

impl AtStores {
    /// What it is after the change.
    pub fn changed(&self, change: &AtStoresChange) -> Self {
        Self {
            keeps_referenced: change.keeps_referenced.unwrap_or(self.keeps_referenced),
            rewritten: change.rewritten.clone().unwrap_or_else(|| self.rewritten.clone()),
        }
    }
}

/// One publication, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The table that was published.
    pub table: TableName,
    /// The position of its last row.
    pub version: Seq,
    /// The version before it.
    pub previous: Seq,
    /// When it was published.
    pub at: Timestamp,
    /// Who published it; `sites` for what sites' edits came to.
    pub by: String,
    /// What whoever published it noted; may be empty.
    pub note: String,
    /// What it did.
    pub counts: Counts,
}

/// What a publication did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows that were not there before.
    pub inserted: u64,
    /// Rows that were there and are other now.
    pub updated: u64,
    /// Rows that went.
    pub deleted: u64,
    /// Rows that were given and are in the table already, or not there to be deleted.
    pub unchanged: u64,
}

impl Counts {
    /// Rows that are other than before.
    pub fn changes(self) -> u64 {
        self.inserted + self.updated + self.deleted
    }

    /// Those of two publications together.
    pub fn and(self, more: Self) -> Self {
        Self {
            inserted: self.inserted + more.inserted,
            updated: self.updated + more.updated,
            deleted: self.deleted + more.deleted,
            unchanged: self.unchanged + more.unchanged,
        }
    }
}

/// A publication, and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Arrived {
    /// The publication.
    #[serde(flatten)]
    pub publication: Publication,
    /// Sites that should have it.
    pub audience: usize,
    /// Those that have it, or a newer one, in every row.
    pub have: usize,
}

/// What was said of tables, by name.
pub fn definitions(view: &StateView) -> BTreeMap<TableName, Definition> {
    let parsed = view.of_kind(DEFINITION).filter_map(|record| Some((record.id.parse().ok()?, record.parse().ok()?)));
    parsed.collect()
}

/// The name of the table that stands beside a shared one, with this suffix.
pub fn beside(name: &TableName, suffix: &str) -> Result<TableName, HqError> {
    TableName::new(&format!("{name}{suffix}")).map_err(|error| HqError::Invalid(error.to_string()))
}

/// The published table beside which one of this name stands, with edits or conflicts, if it is
/// shared or was.
pub fn stands_beside<'a>(
    name: &TableName,
    all: &'a BTreeMap<TableName, Definition>,
) -> Option<(&'a TableName, &'a Definition)> {
    let stem = |suffix| name.as_str().strip_suffix(suffix);
    let stem: TableName = [EDITS_SUFFIX, CONFLICTS_SUFFIX].into_iter().find_map(stem)?.parse().ok()?;
    all.get_key_value(&stem)
}

/// Whether a table is the stores' own: HQ neither publishes it, nor does it stand beside one that
/// HQ shares.
pub fn is_of_stores(name: &TableName, table: &Table, all: &BTreeMap<TableName, Definition>) -> bool {
    !table.is_published() && stands_beside(name, all).is_none()
}

/// The publications that are kept, oldest first.
pub fn publications(view: &StateView) -> Vec<Publication> {
    let mut all: Vec<Publication> = view.of_kind(PUBLICATION).filter_map(|record| record.parse().ok()).collect();
    all.sort_by(|a, b| (&a.table, a.version, a.at).cmp(&(&b.table, b.version, b.at)));
    all
}
