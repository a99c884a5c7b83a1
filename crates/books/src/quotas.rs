//! How much a site may make HQ keep: what goes beyond harms that site alone, and a person hears of
//! it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rollcall_lake::{Column, Lake, LakeError, RecordKind, StateView, TableSchema};
use rollcall_types::{SiteId, TableName, Timestamp};
use serde::{Deserialize, Serialize};

/// The record that people set.
const QUOTAS: RecordKind<Limits> = RecordKind::new("quotas");
const OF_ALL: &str = "all";
/// An incident about a quota ends so long after it was reached last.
const TOLD_FOR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);

/// The limits, of each site unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Tables of all sites together.
    pub tables: usize,
    /// Tables that a site may add in a day.
    pub new_tables_a_day: usize,
    /// Columns of a table.
    pub columns: usize,
    /// Columns that a site may add in a day to a table that is there.
    pub new_columns_a_day: usize,
    /// Bytes in quarantine.
    pub quarantined_bytes: u64,
    /// New lives of its journal in an hour.
    pub lives_an_hour: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tables: 2000,
            new_tables_a_day: 250,
            columns: 500,
            new_columns_a_day: 20,
            quarantined_bytes: 64 << 20,
            lives_an_hour: 6,
        }
    }
}

/// What a site did lately that is limited.
#[derive(Debug, Default)]
struct OfSite {
    /// What it added, and when: a batch that is sent again adds nothing.
    tables: BTreeMap<TableName, Timestamp>,
    columns: HashMap<TableName, BTreeMap<String, Timestamp>>,
    lives: Vec<Timestamp>,
    /// When it reached a limit last, and which.
    reached: Option<(Timestamp, String)>,
}

fn forget_old<K: Ord>(times: &mut BTreeMap<K, Timestamp>, now: Timestamp) {
    times.retain(|_, time| now.since(*time) < DAY);
}

/// What sites used up. Kept in memory: a node that starts anew begins to count anew.
#[derive(Debug)]
pub struct Quotas {
    lake: Arc<Lake>,
    used: Mutex<HashMap<SiteId, OfSite>>,
}

impl Quotas {
    /// The quotas of this lake's sites, of which none has used anything yet.
    pub fn new(lake: Arc<Lake>) -> Self {
        Self { lake, used: Mutex::default() }
    }

    /// The limits that hold.
    pub fn limits(&self) -> Limits {
        let record = self.lake.state().view().get(QUOTAS, OF_ALL).cloned();
        record.and_then(|record| record.parse().ok()).unwrap_or_default()
    }

    /// Sets limits.
    pub async fn set(&self, limits: Limits, by: &str, now: Timestamp) -> Result<(), LakeError> {
        let record = |view: &StateView| view.next(QUOTAS, OF_ALL, &limits, now, by);
        self.lake.state().update(|view| Ok::<_, LakeError>((vec![record(view)?], ()))).await
    }

    /// A person accounts for what these sites did: it is told of no more.
    pub fn forget<'a>(&self, sites: impl Iterator<Item = &'a SiteId>) {
        let mut used = self.used();
        for site in sites {
            if let Some(of_site) = used.get_mut(site) {
                of_site.reached = None;
            }
        }
    }

    fn used(&self) -> MutexGuard<'_, HashMap<SiteId, OfSite>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(of_site: &mut OfSite, now: Timestamp, text: String) -> Result<(), String> {
        let text = format!("{text}; `rollcall quotas` shows the limits and sets them");
        of_site.reached = Some((now, text.clone()));
        Err(text)
    }

    /// Whether rows of a site may bring a table what they would bring: itself, if there is no
    /// `schema` yet, and columns.
    pub fn take_columns(
        &self,
        site: &SiteId,
        name: &TableName,
        schema: Option<&TableSchema>,
        new: &[Column],
        now: Timestamp,
    ) -> Result<(), String> {
        let of_stores = |column: &&Column| !column.name.starts_with('_');
        let names: Vec<&str> = new.iter().filter(of_stores).map(|column| column.name.as_str()).collect();
        let new = names.len();
        if schema.is_some() && new == 0 {
            return Ok(());
        }
        let limits = self.limits();
        let mut used = self.used();
        let of_site = used.entry(site.clone()).or_default();
        let known = schema.into_iter().flat_map(|schema| &schema.columns).filter(of_stores).count();
        if known + new > limits.columns {
            let text = format!("quota: {name} would have {} columns, a table may have {}", known + new, limits.columns);
            return Self::refuse(of_site, now, text);
        }
        if schema.is_none() {
            forget_old(&mut of_site.tables, now);
            if of_site.tables.contains_key(name) {
                return Ok(());
            }
            if of_site.tables.len() >= limits.new_tables_a_day {
                let text = format!("quota: {site} may add {} tables in a day, and did", limits.new_tables_a_day);
                return Self::refuse(of_site, now, text);
            }
            if self.lake.shown_tables().len() >= limits.tables {
                let text = format!("quota: all sites together may have {} tables, and have", limits.tables);
                return Self::refuse(of_site, now, text);
            }
            of_site.tables.insert(name.clone(), now);
            return Ok(());
        }
        // A table is made by the marks of its load, before rows say what columns it has.
        if known == 0 {
            return Ok(());
        }
        let added = of_site.columns.entry(name.clone()).or_default();
        forget_old(added, now);
        let new = names.iter().filter(|name| !added.contains_key(**name)).count();
        if added.len() + new > limits.new_columns_a_day {
            let text = format!(
                "quota: {site} may add {} columns to {name} in a day; {} came and {new} would come",
                limits.new_columns_a_day,
                added.len()
            );
            return Self::refuse(of_site, now, text);
        }
        for name in names {
            added.entry(name.to_owned()).or_insert(now);
        }
        Ok(())
    }

    /// Whether a site may begin a new life of its journal.
    pub fn take_life(&self, site: &SiteId, now: Timestamp) -> Result<(), String> {
        let limit = self.limits().lives_an_hour;
        let mut used = self.used();
        let of_site = used.entry(site.clone()).or_default();
        of_site.lives.retain(|life| now.since(*life) < HOUR);
        if of_site.lives.len() >= limit {
            let text = format!("quota: the journal of {site} began {limit} new lives within an hour");
            return Self::refuse(of_site, now, text);
        }
        of_site.lives.push(now);
        Ok(())
    }

    /// Whether `bytes` more of a site may be kept in quarantine, where `kept` are.
    pub fn take_quarantine(&self, site: &SiteId, kept: u64, bytes: u64, now: Timestamp) -> Result<(), String> {
        let limit = self.limits().quarantined_bytes;
        if kept.saturating_add(bytes) <= limit || kept == 0 {
            return Ok(());
        }
        let text = format!(
            "quota: {kept} bytes of {site} are in quarantine, and {limit} may be: what cannot be taken waits at the site, and \
             all that comes after it, until a person decides (`rollcall quarantine`)"
        );
        Self::refuse(self.used().entry(site.clone()).or_default(), now, text)
    }

    /// Sites that reached a limit lately.
    pub fn told(&self, now: Timestamp) -> BTreeMap<SiteId, String> {
        let mut used = self.used();
        let recent = used.iter_mut().filter_map(|(site, of_site)| {
            of_site.reached.take_if(|(at, _)| now.since(*at) >= TOLD_FOR);
            Some((site.clone(), of_site.reached.as_ref()?.1.clone()))
        });
        recent.collect()
    }
}

#[cfg(test)]
mod tests {
    use rollcall_lake::{ColumnType, LakeOptions};

    use super::*;

    fn columns(count: usize) -> Vec<Column> {
        (0..count).map(|number| Column::new(&format!("c{number}"), ColumnType::Long)).collect()
    }

    #[tokio::test]
    async fn each_limit_is_reached_by_one_site_and_hinders_no_other() {
        let directory = std::env::temp_dir().join(format!("rollcall-quotas-{}", std::process::id()));
        let lake = Lake::open_directory(&directory, LakeOptions::default()).await.expect("opens");
        let quotas = Quotas::new(Arc::new(lake));
        let limits = Limits {
            new_tables_a_day: 2,
            columns: 10,
            new_columns_a_day: 3,
            quarantined_bytes: 1000,
            lives_an_hour: 2,
            ..Limits::default()
        };
        let at = |minutes: i64| Timestamp::from_micros(minutes * 60_000_000);
        quotas.set(limits, "ada", at(0)).await.expect("sets");
        assert_eq!(quotas.limits(), limits);
        let [bad, good] = ["bad-1", "good-1"].map(|id| SiteId::new(id).expect("valid"));
        let name = |name: &str| TableName::new(name).expect("valid");
        let table = TableSchema::new(columns(4), Vec::new());
        let take = |site: &SiteId, of: &str, schema: Option<&TableSchema>, new: &[Column], at| {
            quotas.take_columns(site, &name(of), schema, new, at)
        };
        assert!(take(&bad, "a", None, &columns(10), at(0)).is_ok());
        assert!(take(&bad, "b", None, &columns(11), at(0)).is_err_and(|text| text.contains("11 columns")));
        assert!(take(&bad, "b", None, &columns(1), at(1)).is_ok());
        assert!(take(&bad, "c", None, &columns(1), at(1)).is_err_and(|text| text.contains("2 tables in a day")));
        assert!(take(&good, "c", None, &columns(1), at(1)).is_ok(), "another site");
        assert!(take(&bad, "c", None, &columns(1), at(1500)).is_ok(), "another day");
        let [two, others] = [&columns(8)[4..6], &columns(8)[6..8]].map(<[Column]>::to_vec);
        assert!(take(&bad, "a", Some(&table), &two, at(1)).is_ok());
        assert!(take(&bad, "a", Some(&table), &two, at(1)).is_ok(), "the same batch again");
        assert!(take(&bad, "a", Some(&table), &others, at(2)).is_err_and(|text| text.contains("3 columns to a")));
        assert!(take(&bad, "a", Some(&table), &others[..1], at(2)).is_ok());
        assert!(take(&good, "a", Some(&table), &columns(3), at(2)).is_ok());
        assert!(take(&bad, "a", Some(&table), &[], at(2)).is_ok(), "rows of known columns always");
        for minute in [0, 1] {
            assert!(quotas.take_life(&bad, at(minute)).is_ok());
        }
        assert!(quotas.take_life(&bad, at(2)).is_err() && quotas.take_life(&good, at(2)).is_ok());
        assert!(quotas.take_life(&bad, at(61)).is_ok(), "the first is an hour ago");
        assert!(quotas.take_quarantine(&good, 0, 5000, at(2)).is_ok(), "one batch always");
        assert!(quotas.take_quarantine(&good, 900, 100, at(2)).is_ok());
        assert!(quotas.told(at(3)).keys().eq([&bad]), "only the one");
        assert!(quotas.take_quarantine(&good, 900, 101, at(2)).is_err());
        assert!(quotas.told(at(3)).keys().eq([&bad, &good]));
        assert!(quotas.told(at(100)).is_empty(), "an hour later it is over");
        // A directory of the test's own.
        let _ = std::fs::remove_dir_all(directory);
    }
}
