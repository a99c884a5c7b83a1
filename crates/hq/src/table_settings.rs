//! What people say of a site table: when its rows happened, how late they come, what they are
//! worth.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rollcall_lake::{ColumnType, Lake, LakeError, StateView, Table};
use rollcall_types::{SiteId, TableName, describe, hq_identifier};
use serde::{Deserialize, Serialize};

use crate::{error::HqError, measures, node::Shared, published};

const TABLE: &str = "table";

/// Declared of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableSettings {
    /// The column with the time at which a row happened: a question bounded by it needs no site
    /// beyond that bound.
    #[serde(default)]
    pub(crate) event_time: Option<String>,
    /// Rows may be written so long after they happened, seconds.
    #[serde(default)]
    pub(crate) lateness_seconds: u64,
    /// What a row is worth, in SQL over its columns (`qty * price`): missing rows are then told in
    /// money too.
    #[serde(default)]
    pub(crate) measure: Option<String>,
    /// How long versions of rows are kept after newer ones took their place, days; for ever if
    /// nothing is said.
    #[serde(default)]
    pub(crate) history_days: Option<u32>,
    /// Stores may leave the table out: those that do are not missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) optional: bool,
    /// Columns that a store may have no more without being missing.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) optional_columns: BTreeSet<String>,
}

/// A row's versions are counted against what its site says it captured; that is done long before
/// this.
const HISTORY_DAYS_MIN: u32 = 30;

/// Event times that sites declared when they joined, of tables of which nobody said any. They wait
/// for the table's first rows.
#[derive(Debug, Default)]
pub(crate) struct Proposed(Mutex<BTreeMap<TableName, (String, SiteId)>>);

impl Proposed {
    /// Takes what a site declares: tables and columns as the store calls them.
    pub(crate) fn take(&self, site: &SiteId, event_times: &std::collections::HashMap<String, String>, lake: &Lake) {
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

    /// Declares those whose tables are there by now.
    pub(crate) async fn adopt(&self, shared: &Shared) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (table, (column, site)) in waiting {
            let Some(known) = shared.lake.table(&table) else { continue };
            if known.snapshot().schema().columns.is_empty() {
                continue;
            }
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&table);
            let settings = TableSettings { event_time: Some(column.clone()), ..TableSettings::default() };
            match set_unless_known(shared, &table, settings, site.as_str()).await {
                Ok(()) => tracing::info!(%table, column, %site, "the event time that the site declared is taken"),
                Err(error) => {
                    tracing::warn!(%table, column, %site, error = %describe(&error), "the event time that the site declared is not taken");
                }
            }
        }
    }
}

/// All settings, by table.
pub(crate) fn all(lake: &Lake) -> BTreeMap<TableName, TableSettings> {
    let view = lake.state().view();
    view.of_kind(TABLE).filter_map(|record| Some((TableName::new(&record.id).ok()?, record.parse().ok()?))).collect()
}

/// Stores a table's settings, once they make sense.
pub(crate) async fn set(shared: &Shared, name: &str, settings: TableSettings, by: &str) -> Result<(), HqError> {
    let name = TableName::new(name).map_err(|error| HqError::Invalid(error.to_string()))?;
    check(shared, &name, &settings).await?;
    store(shared, &name, &settings, by, |_| true).await?;
    shared.measures.refresh(shared).await;
    Ok(())
}

/// The same for what a site proposes: what a person said meanwhile stays.
async fn set_unless_known(shared: &Shared, name: &TableName, settings: TableSettings, by: &str) -> Result<(), HqError> {
    check(shared, name, &settings).await?;
    store(shared, name, &settings, by, |view| view.get(TABLE, name.as_str()).is_none()).await?;
    Ok(())
}

async fn store(
    shared: &Shared,
    name: &TableName,
    settings: &TableSettings,
    by: &str,
    may: impl Fn(&StateView) -> bool,
) -> Result<(), LakeError> {
    let now = shared.now();
    let records = |view: &StateView| match may(view) {
        true => Ok(vec![view.next(TABLE, name.as_str(), settings, now, by)?]),
        false => Ok(Vec::new()),
    };
    shared.lake.state().update(|view| Ok::<_, LakeError>((records(view)?, ()))).await
}

/// Whether a table's settings make sense.
async fn check(shared: &Shared, name: &TableName, settings: &TableSettings) -> Result<(), HqError> {
    let table = shared.lake.table(name);
    let table = table.ok_or_else(|| HqError::NotFound(format!("there is no table {name}; no site has sent it yet")))?;
    if let Some(column) = &settings.event_time {
        let snapshot = table.snapshot();
        let known = snapshot.schema().column(column);
        if known.is_none_or(|known| known.kind != ColumnType::Timestamp) {
            let times: Vec<&str> = snapshot
                .schema()
                .columns
                .iter()
                .filter(|column| column.kind == ColumnType::Timestamp && !column.name.starts_with('_'))
                .map(|column| column.name.as_str())
                .collect();
            let text = format!("{column:?} is not a time of table {name}; its times are: {}", times.join(", "));
            return Err(HqError::Invalid(text));
        }
    }
    let before = all(&shared.lake).remove(name).and_then(|before| before.history_days);
    if let Some(days) = settings.history_days.filter(|days| Some(*days) != before) {
        check_history(shared, name, &table, days)?;
    }
    if let Some(measure) = &settings.measure {
        measures::verify(shared, name, measure).await?;
    }
    Ok(())
}

/// Whether a table's history may end.
fn check_history(shared: &Shared, name: &TableName, table: &Table, days: u32) -> Result<(), HqError> {
    if days < HISTORY_DAYS_MIN {
        let text = format!("history is kept for {HISTORY_DAYS_MIN} days at least; {days} are too few");
        return Err(HqError::Invalid(text));
    }
    match must_stay_whole(shared, name, table) {
        true => {
            Err(HqError::Invalid(format!("the history of {name} must stay whole: HQ shares the table with its sites")))
        }
        false => Ok(()),
    }
}

/// Whether sites catch up from a table's history, however long they were away, or HQ decides on
/// their edits by it.
fn must_stay_whole(shared: &Shared, name: &TableName, table: &Table) -> bool {
    let definitions = published::definitions(&shared.lake.state().view());
    !published::shared::is_of_stores(name, table, &definitions)
}

/// Ends the history of tables where it was kept for as long as was said.
pub(crate) async fn expire_history(shared: &Shared) {
    for (name, settings) in all(&shared.lake) {
        let Some((table, days)) = shared.lake.table(&name).zip(settings.history_days) else { continue };
        // It may have become one of those since.
        if must_stay_whole(shared, &name, &table) {
            continue;
        }
        let before = shared.now().before(Duration::from_secs(u64::from(days) * 86_400));
        let expired = table.expire_history(before).await;
        shared.health.note(format!("end the history of {name}"), &expired);
        if let Some(rows) = expired.ok().filter(|rows| *rows > 0) {
            tracing::info!(table = %name, rows, days, "history older than it is to be kept is gone");
        }
    }
}
