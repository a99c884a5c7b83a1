//! What people say of a site table: when its rows happened, how late they come, what they are
//! worth.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use rollcall_lake::{Lake, RecordKind};
use rollcall_types::{SiteId, TableName, hq_identifier};
use serde::{Deserialize, Serialize};

/// The kind of its records.
pub const TABLE: RecordKind<TableSettings> = RecordKind::new("table");

/// Declared of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSettings {
    /// The column with the time at which a row happened: a question bounded by it needs no site
    /// beyond that bound.
    #[serde(default)]
    pub event_time: Option<String>,
    /// Rows may be written so long after they happened, seconds.
    #[serde(default)]
    pub lateness_seconds: u64,
    /// What a row is worth, in SQL over its columns (`qty * price`): missing rows are then told in
    /// money too.
    #[serde(default)]
    pub measure: Option<String>,
    /// How long versions of rows are kept after newer ones took their place, days; for ever if
    /// nothing is said.
    #[serde(default)]
    pub history_days: Option<u32>,
    /// Stores may leave the table out: those that do are not missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// Columns that a store may have no more without being missing.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub optional_columns: BTreeSet<String>,
}

/// All settings, by table.
pub fn all(lake: &Lake) -> BTreeMap<TableName, TableSettings> {
    let view = lake.state().view();
    view.of_kind(TABLE).filter_map(|record| Some((TableName::new(&record.id).ok()?, record.parse().ok()?))).collect()
}

/// Event times that sites declared when they joined, of tables of which nobody said any. They wait
/// for the table's first rows.
#[derive(Debug, Default)]
pub struct Proposed(Mutex<BTreeMap<TableName, (String, SiteId)>>);

impl Proposed {
    /// Takes what a site declares: tables and columns as the store calls them.
    pub fn take(&self, site: &SiteId, event_times: &HashMap<String, String>, lake: &Lake) {
        const TABLES_MAX: usize = 1000;
        if event_times.is_empty() {
            return;
        }
        let settings = all(lake);
        let mut proposed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (table, column) in event_times {
            let Ok(table) = TableName::at_hq(table) else { continue };
            // What a person set counts, also that there is none.
            if !settings.contains_key(&table) && proposed.len() < TABLES_MAX {
                proposed.entry(table).or_insert_with(|| (hq_identifier(column), site.clone()));
            }
        }
    }

    /// What waits: by table, the column and the site that declared it.
    pub fn waiting(&self) -> BTreeMap<TableName, (String, SiteId)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A table is there by now, and what was declared of it is looked at.
    pub fn remove(&self, table: &TableName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(table);
    }
}
