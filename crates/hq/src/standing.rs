//! Where every site stood at an instant, in columns: what questions are judged by.
//!
//! A question takes the standing first and pins its versions of the tables then, so all that is
//! complete by the one is in the other. While people ask, it is kept fresh in the background, and
//! judging an answer costs some nanoseconds a site.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rollcall_types::{SiteId, TableName, Timestamp};

use crate::node::Shared;

/// A question takes a standing of this age.
const FRESH: Duration = Duration::from_millis(1500);
/// So long after the last question, it is not kept fresh any more.
const ASKED_LATELY: Duration = Duration::from_secs(60);

/// One site.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SiteStanding {
    /// Complete through, all tables.
    pub(crate) through: Option<Timestamp>,
    pub(crate) last_heard: Option<Timestamp>,
    /// Changes journalled at the site that are not confirmed, as of the last thing heard.
    pub(crate) unconfirmed_rows: u64,
    /// How far the site's clock is off, either way.
    pub(crate) clock_off_micros: i64,
}

/// All sites of a roster, in its order.
#[derive(Debug)]
pub(crate) struct Standing {
    at: Timestamp,
    ids: Arc<Vec<SiteId>>,
    sites: Vec<SiteStanding>,
    tables: BTreeMap<TableName, Vec<Option<Timestamp>>>,
}

impl Standing {
    pub(crate) fn new(at: Timestamp, ids: Arc<Vec<SiteId>>) -> Self {
        let sites = vec![SiteStanding::default(); ids.len()];
        Self { at, ids, sites, tables: BTreeMap::new() }
    }

    /// Enters the site at a place of the roster, and through when it is complete in each table.
    pub(crate) fn enter<'a>(
        &mut self,
        place: usize,
        site: SiteStanding,
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
    pub(crate) fn places(&self, ids: &Arc<Vec<SiteId>>) -> Option<Vec<usize>> {
        if Arc::ptr_eq(&self.ids, ids) {
            return None;
        }
        Some(ids.iter().map(|id| self.ids.binary_search(id).unwrap_or(usize::MAX)).collect())
    }

    /// The site at a place; one that is not known stands nowhere.
    pub(crate) fn site(&self, place: usize) -> SiteStanding {
        self.sites.get(place).copied().unwrap_or_default()
    }

    /// Through when every site is complete in a table, by place; none if no site ever had a change
    /// in it.
    pub(crate) fn table(&self, table: &TableName) -> Option<&[Option<Timestamp>]> {
        self.tables.get(table).map(Vec::as_slice)
    }
}

/// The newest standing.
#[derive(Debug, Default)]
pub(crate) struct Standings(Mutex<(Option<Arc<Standing>>, Option<Timestamp>)>);

impl Standings {
    /// For a question asked now.
    pub(crate) fn get(&self, shared: &Shared) -> Arc<Standing> {
        let (ids, now) = (shared.roster_view().ids.clone(), shared.now());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.1 = Some(now);
        match known.0.as_ref().filter(|known| Arc::ptr_eq(&known.ids, &ids) && now.since(known.at) < FRESH) {
            Some(fresh) => fresh.clone(),
            None => known.0.insert(Arc::new(shared.ledger.standing(ids, now))).clone(),
        }
    }

    /// Takes a new one, if anybody asked lately.
    pub(crate) fn refresh(&self, shared: &Shared) {
        let now = shared.now();
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner).1;
        if asked.is_some_and(|asked| now.since(asked) < ASKED_LATELY) {
            let fresh = Arc::new(shared.ledger.standing(shared.roster_view().ids.clone(), now));
            self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(fresh);
        }
    }
}
