//! Where every site stood at an instant, in columns: what questions are judged by.
//!
//! A question takes a snapshot of progress first and pins its versions of the tables then, so all
//! that is complete by the one is in the other. While people ask, it is kept fresh in the
//! background, and judging an answer costs some nanoseconds a site.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rollcall_types::{SiteId, TableName, Timestamp};

use crate::{ledger::Ledger, wrong_times::WrongTimes};

/// A question takes a snapshot of this age.
const FRESH: Duration = Duration::from_millis(1500);
/// So long after the last question, it is not kept fresh any more.
const ASKED_LATELY: Duration = Duration::from_secs(60);

/// One site.
#[derive(Debug, Clone, Copy, Default)]
pub struct SiteProgress {
    /// Complete through, all tables.
    pub through: Option<Timestamp>,
    /// When anything at all was heard of it last; none if nothing ever was.
    pub last_heard: Option<Timestamp>,
    /// Changes journalled at the site that are not confirmed, as of the last thing heard.
    pub unconfirmed_rows: u64,
    /// How far the site's clock is off, either way.
    pub clock_off_micros: i64,
}

/// All sites of a roster, in its order.
#[derive(Debug)]
pub struct ProgressSnapshot {
    at: Timestamp,
    ids: Arc<Vec<SiteId>>,
    sites: Vec<SiteProgress>,
    tables: BTreeMap<TableName, Vec<Option<Timestamp>>>,
    /// When the clocks of those sites were wrong of which that is known: few.
    pub(crate) wrong_times: HashMap<SiteId, WrongTimes>,
}

impl ProgressSnapshot {
    /// A snapshot of these sites, in the roster's order, of which nothing is entered yet.
    pub fn new(at: Timestamp, ids: Arc<Vec<SiteId>>) -> Self {
        let sites = vec![SiteProgress::default(); ids.len()];
        Self { at, ids, sites, tables: BTreeMap::new(), wrong_times: HashMap::new() }
    }

    /// Enters the site at a place of the roster, and through when it is complete in each table.
    pub fn enter<'a>(
        &mut self,
        place: usize,
        site: SiteProgress,
        tables: impl Iterator<Item = (&'a TableName, &'a Timestamp)>,
    ) {
        self.sites[place] = site;
        for (table, through) in tables {
            let column = match self.tables.get_mut(table) {
                Some(column) => column,
                None => self.tables.entry(table.clone()).or_insert(vec![None; self.ids.len()]),
            };
            column[place] = Some(*through);
        }
    }

    /// The places of these sites: the same order, if they are all of them.
    pub fn places(&self, ids: &Arc<Vec<SiteId>>) -> Option<Vec<usize>> {
        if Arc::ptr_eq(&self.ids, ids) {
            return None;
        }
        Some(ids.iter().map(|id| self.ids.binary_search(id).unwrap_or(usize::MAX)).collect())
    }

    /// The site at a place; one that is not known stands nowhere.
    pub fn site(&self, place: usize) -> SiteProgress {
        self.sites.get(place).copied().unwrap_or_default()
    }

    /// When the clock of a site was wrong; none if it never was.
    pub fn wrong_times(&self, site: &SiteId) -> Option<&WrongTimes> {
        self.wrong_times.get(site)
    }

    /// Through when every site is complete in a table, by place; none if no site ever had a change
    /// in it.
    pub fn table(&self, table: &TableName) -> Option<&[Option<Timestamp>]> {
        self.tables.get(table).map(Vec::as_slice)
    }
}

/// The newest snapshot.
#[derive(Debug, Default)]
pub struct ProgressCache(Mutex<(Option<Arc<ProgressSnapshot>>, Option<Timestamp>)>);

impl ProgressCache {
    /// For a question asked now, over the sites `ids` in the roster's order.
    pub fn get(&self, ledger: &Ledger, ids: &Arc<Vec<SiteId>>, now: Timestamp) -> Arc<ProgressSnapshot> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.1 = Some(now);
        match known.0.as_ref().filter(|known| Arc::ptr_eq(&known.ids, ids) && now.since(known.at) < FRESH) {
            Some(fresh) => fresh.clone(),
            None => known.0.insert(Arc::new(ledger.progress(ids.clone(), now))).clone(),
        }
    }

    /// Takes a new one, if anybody asked lately.
    pub fn refresh(&self, ledger: &Ledger, ids: impl FnOnce() -> Arc<Vec<SiteId>>, now: Timestamp) {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner).1;
        if asked.is_some_and(|asked| now.since(asked) < ASKED_LATELY) {
            let fresh = Arc::new(ledger.progress(ids(), now));
            self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(fresh);
        }
    }
}
