//! What sites counted and HQ did not find. It stays until it is known to be mended: the next
//! manifest that agrees says nothing of the window that did not.

use std::collections::BTreeMap;

use rollcall_lake::{Cursor, Lake, LakeError, RecordKind, StateLog};
use rollcall_types::{Epoch, Seq, SiteId, SiteNumber, TableName, Timestamp};
use serde::{Deserialize, Serialize};

const UNRECONCILED: RecordKind<Vec<Discrepancy>> = RecordKind::new("unreconciled");
/// Windows of a table that are counted again one by one; where more do not agree, only a load mends
/// them.
const WINDOWS_MAX: usize = 50;

/// Something that is not mended yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Discrepancy {
    pub epoch: Epoch,
    /// As the site calls it.
    pub table: String,
    /// The window in which it was found.
    pub after: Seq,
    pub through: Seq,
    /// How many rows the site says are in the window; none where rows passed by the triggers, and
    /// no count can tell.
    pub stated: Option<u64>,
    /// What was found, for people.
    pub text: String,
}

impl Discrepancy {
    /// Whether all rows of the table were stated anew since, or those of a later life are what is
    /// current.
    fn is_stated_anew(&self, cursor: Option<Cursor>, newer: Option<Cursor>) -> bool {
        // A load begins with a mark, which is no row: all rows of a window that ends with it lie
        // before.
        let is_behind = |floor: Seq| floor > self.through || floor == self.through && floor > Seq(1);
        cursor.is_some_and(|cursor| is_behind(cursor.floor)) || newer.is_some_and(|cursor| cursor.floor > Seq(0))
    }
}

/// All that is not mended, by site.
#[derive(Debug, Default)]
pub(crate) struct Unreconciled {
    sites: BTreeMap<SiteId, Vec<Discrepancy>>,
    /// Sites whose record is to be stored.
    changed: Vec<SiteId>,
    /// What people were told of.
    told: BTreeMap<SiteId, Vec<Discrepancy>>,
}

impl Unreconciled {
    /// What was not mended when HQ stopped.
    pub(crate) fn restore(state: &StateLog) -> Self {
        let view = state.view();
        let known = view.of_kind(UNRECONCILED);
        let sites = known.filter_map(|record| Some((SiteId::new(&record.id).ok()?, record.parse().ok()?)));
        Self {
            sites: sites.filter(|(_, of): &(SiteId, Vec<Discrepancy>)| !of.is_empty()).collect(),
            changed: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, site: &SiteId, mut found: Discrepancy) {
        let of_site = self.sites.entry(site.clone()).or_default();
        let is_of_table = |known: &Discrepancy| known.table == found.table && known.epoch == found.epoch;
        if of_site.iter().filter(|known| is_of_table(known)).count() >= WINDOWS_MAX {
            of_site.retain(|known| !is_of_table(known));
            found.stated = None;
            found.text = format!("{}; so it was {WINDOWS_MAX} times before", found.text);
        }
        // A table that grows past its triggers is found again with each manifest; the first one
        // says it.
        let is_known =
            |known: &Discrepancy| known.table == found.table && known.stated.is_none() && found.stated.is_none();
        if !of_site.iter().any(is_known) {
            of_site.push(found);
            self.changed.push(site.clone());
        }
    }

    /// The windows that are to be counted again, with what the sites say is in them.
    pub(crate) fn to_count(&self) -> impl Iterator<Item = (&SiteId, &Discrepancy, u64)> {
        let all = self.sites.iter().flat_map(|(site, of)| of.iter().map(move |found| (site, found)));
        all.filter_map(|(site, found)| Some((site, found, found.stated?)))
    }

    /// Forgets what is mended: `counted` says that a window holds what the site says, by now.
    /// Returns sites with nothing left.
    pub(crate) fn settle(
        &mut self,
        lake: &Lake,
        current: impl Fn(&SiteId) -> Option<(SiteNumber, Epoch)>,
        counted: impl Fn(&SiteId, &Discrepancy) -> bool,
    ) -> Vec<SiteId> {
        let mut settled = Vec::new();
        for (site, of_site) in &mut self.sites {
            let before = of_site.len();
            of_site.retain(|found| {
                let table = TableName::at_hq(&found.table).ok().and_then(|name| lake.table(&name));
                let Some((number, current)) = current(site) else { return true };
                let cursor = |epoch| table.as_ref().and_then(|table| table.cursor(number, epoch));
                let newer = if current > found.epoch { cursor(current) } else { None };
                !(found.is_stated_anew(cursor(found.epoch), newer) || counted(site, found))
            });
            if of_site.len() < before {
                self.changed.push(site.clone());
                if of_site.is_empty() {
                    settled.push(site.clone());
                }
            }
        }
        settled
    }

    /// Forgets what a person accounted for: people were told of it, and its incident is no longer
    /// open.
    pub(crate) fn account(&mut self, is_open: impl Fn(&SiteId) -> bool) {
        for (site, told) in std::mem::take(&mut self.told) {
            let Some(of_site) = self.sites.get_mut(&site).filter(|_| !is_open(&site)) else { continue };
            let before = of_site.len();
            // What was found since, nobody has seen yet.
            of_site.retain(|found| !told.contains(found));
            if of_site.len() < before {
                tracing::warn!(%site, "a person accounted for rows that could not be reconciled");
                self.changed.push(site);
            }
        }
    }

    /// Takes note of whom people have been told of.
    pub(crate) fn note_told(&mut self, is_open: impl Fn(&SiteId) -> bool) {
        let open = self.sites.iter().filter(|(site, of_site)| !of_site.is_empty() && is_open(site));
        self.told = open.map(|(site, of_site)| (site.clone(), of_site.clone())).collect();
    }

    /// What is to be said of a site; none if nothing is left.
    pub(crate) fn text(&self, site: &SiteId) -> Option<String> {
        let of_site = self.sites.get(site).filter(|of_site| !of_site.is_empty())?;
        Some(of_site.iter().map(|found| found.text.as_str()).collect::<Vec<_>>().join("; "))
    }

    /// Sites of which something is to be said.
    pub(crate) fn sites(&self) -> impl Iterator<Item = &SiteId> {
        self.sites.iter().filter(|(_, of_site)| !of_site.is_empty()).map(|(site, _)| site)
    }

    /// Stores what changed.
    pub(crate) async fn store(&mut self, state: &StateLog, now: Timestamp) -> Result<(), LakeError> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let changed = self.changed.clone();
        let nothing = Vec::new();
        state
            .update(|view| {
                let record = |site: &SiteId| {
                    view.next(UNRECONCILED, site.as_str(), self.sites.get(site).unwrap_or(&nothing), now, "hq")
                };
                let records = changed.iter().map(record).collect::<Result<Vec<_>, _>>()?;
                Ok::<_, LakeError>((records, ()))
            })
            .await?;
        self.changed.clear();
        self.sites.retain(|_, of_site| !of_site.is_empty());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(stated: Option<u64>) -> Discrepancy {
        let text = "rows passed by".to_owned();
        Discrepancy { epoch: Epoch(1), table: "sales".to_owned(), after: Seq(10), through: Seq(20), stated, text }
    }

    #[test]
    fn only_a_load_that_began_later_mends_what_passed_by() {
        let floor = |floor| Some(Cursor { floor: Seq(floor), ..Cursor::default() });
        let passed = found(None);
        assert!(!passed.is_stated_anew(floor(5), None), "the load of long ago");
        assert!(!passed.is_stated_anew(None, None));
        assert!(passed.is_stated_anew(floor(21), None));
        assert!(passed.is_stated_anew(floor(20), None), "the window ends with the load's mark");
        assert!(!passed.is_stated_anew(floor(19), None));
        assert!(passed.is_stated_anew(floor(5), floor(1)), "a later life states everything");
    }

    #[test]
    fn a_table_that_grows_past_its_triggers_is_said_once() {
        let site = SiteId::new("tacoma-01").expect("valid");
        let mut unreconciled = Unreconciled::default();
        for _ in 0..3 {
            unreconciled.add(&site, found(None));
        }
        unreconciled.add(&site, found(Some(4)));
        assert_eq!(unreconciled.text(&site).as_deref(), Some("rows passed by; rows passed by"));
        assert_eq!(unreconciled.to_count().count(), 1);
    }

    #[test]
    fn a_person_accounts_for_what_they_were_told_and_for_nothing_else() {
        let site = SiteId::new("tacoma-01").expect("valid");
        let mut unreconciled = Unreconciled::default();
        unreconciled.add(&site, found(Some(4)));
        unreconciled.note_told(|_| true);
        // Found in the round in which the incident turns out to be closed.
        let later = Discrepancy { after: Seq(20), through: Seq(30), ..found(Some(7)) };
        unreconciled.add(&site, later.clone());
        unreconciled.account(|_| false);
        assert_eq!(unreconciled.sites[&site], [later]);
    }

    #[test]
    fn what_never_agrees_does_not_grow_without_end() {
        let site = SiteId::new("tacoma-01").expect("valid");
        let mut unreconciled = Unreconciled::default();
        for window in 0..500 {
            unreconciled.add(&site, Discrepancy { through: Seq(window), ..found(Some(window)) });
        }
        assert!(unreconciled.sites[&site].len() <= WINDOWS_MAX + 1);
        assert!(unreconciled.sites[&site].iter().any(|found| found.stated.is_none()));
    }
}
