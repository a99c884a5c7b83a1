//! What each site captures and what it lacks, by its newest manifest.
//!
//! Only the last day of the sites' log is read when HQ starts. A store that lacks a table and was
//! silent for longer would then count as one that lacks nothing; so what sites lack is a record of
//! the state log as well.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rollcall_lake::{LakeError, Record, RecordKind, StateView};
use rollcall_registry::Registry;
use rollcall_types::{Epoch, Seq, SiteId, Stated, TableName, Timestamp, columns};
use serde::{Deserialize, Serialize};

use crate::{quarantine::hq_name, site_log::Received};

/// The kind of the records of what sites lack.
const LACKING: RecordKind<Stored> = RecordKind::new("lacking");

/// By site, what its newest manifest says that it captures.
pub type Captured = HashMap<SiteId, CapturedTables>;

/// What a site captures, and where the manifest ends that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedTables {
    /// The life of its journal.
    pub epoch: Epoch,
    /// The position at which the manifest ends.
    pub through: Seq,
    /// Its tables; shared by the sites that have the same.
    pub names: Arc<CapturedNames>,
}

/// Which tables and columns a site captures, by their names at HQ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CapturedNames {
    /// The tables that are captured.
    pub tables: BTreeSet<String>,
    /// Tables that the store has and that are not captured.
    pub uncaptured: BTreeSet<TableName>,
    /// Columns that captured tables had and have no more.
    pub gone: BTreeMap<TableName, BTreeSet<String>>,
    /// Columns of captured tables that are left out, as the store or HQ asked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<TableName, BTreeSet<String>>,
}

impl CapturedNames {
    fn of(received: &Received) -> Self {
        let manifest = &received.manifest;
        let by_table = |columns_of: fn(&Stated) -> &[String]| {
            let stated = manifest.tables.iter().filter(|stated| !columns_of(stated).is_empty());
            let names = stated.filter_map(|stated| {
                let names = columns_of(stated).iter().map(|column| columns::at_hq(column)).collect();
                Some((TableName::at_hq(&stated.table).ok()?, names))
            });
            names.collect::<BTreeMap<TableName, BTreeSet<String>>>()
        };
        Self {
            tables: manifest.tables.iter().map(|stated| hq_name(&stated.table)).collect(),
            uncaptured: manifest.uncaptured.iter().filter_map(|table| TableName::at_hq(table).ok()).collect(),
            gone: by_table(|stated| &stated.gone),
            left_out: by_table(|stated| &stated.left_out),
        }
    }

    fn lacks_something(&self) -> bool {
        !self.uncaptured.is_empty() || !self.gone.is_empty() || !self.left_out.is_empty()
    }
}

/// A site's record.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    epoch: Epoch,
    through: Seq,
    #[serde(flatten)]
    names: CapturedNames,
}

/// What all sites capture, as far as it is known.
#[derive(Debug, Default)]
pub struct CapturedBoard(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    sites: Captured,
    /// Every set of names that a site has, once.
    names: HashSet<Arc<CapturedNames>>,
    /// Sites of which something else is known than was looked at last by [`CapturedBoard::store`].
    changed: BTreeSet<SiteId>,
}

impl Known {
    fn share(&mut self, names: CapturedNames) -> Arc<CapturedNames> {
        if let Some(known) = self.names.get(&names) {
            return known.clone();
        }
        // Sets that no site has any more go before a new one comes: there are few.
        self.names.retain(|known| Arc::strong_count(known) > 1);
        let names = Arc::new(names);
        self.names.insert(names.clone());
        names
    }
}

impl CapturedBoard {
    /// What was known to be lacking when HQ stopped, of sites that still live the same life.
    pub fn restore(registry: &Registry) -> Self {
        let (view, roster) = (registry.lake.state().view(), registry.roster.all());
        let mut known = Known::default();
        for record in view.of_kind(LACKING) {
            let (Ok(site), Ok(stored)) = (SiteId::new(&record.id), record.parse::<Stored>()) else { continue };
            let Stored { epoch, through, names } = stored;
            let is_current = roster.get(&site).is_some_and(|record| record.current_life() == Some(epoch));
            if is_current {
                let names = known.share(names);
                known.sites.insert(site, CapturedTables { epoch, through, names });
            }
        }
        Self(Mutex::new(known))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each site captures, by its newest manifest.
    pub fn all(&self) -> Captured {
        self.known().sites.clone()
    }

    /// Takes what a site's manifest says it captures; one older than what is known says nothing.
    pub fn note(&self, site: &SiteId, received: &Received) {
        let (epoch, through) = (received.epoch, received.manifest.through);
        let mut known = self.known();
        let before = known.sites.get(site).map(|known| (known.epoch, known.through, known.names.clone()));
        if before.as_ref().is_some_and(|(known, end, _)| (*known, *end) > (epoch, through)) {
            return;
        }
        let names = known.share(CapturedNames::of(received));
        if before.is_none_or(|(known, _, of_before)| known != epoch || of_before != names) {
            known.changed.insert(site.clone());
        }
        known.sites.insert(site.clone(), CapturedTables { epoch, through, names });
    }

    /// Stores what changed, where this node acts.
    pub async fn store(&self, registry: &Registry) -> Result<(), LakeError> {
        let changed: Vec<(SiteId, CapturedTables)> = {
            let mut known = self.known();
            let changed = std::mem::take(&mut known.changed);
            changed.into_iter().filter_map(|site| Some((site.clone(), known.sites.get(&site)?.clone()))).collect()
        };
        if changed.is_empty() {
            return Ok(());
        }
        let now = registry.now();
        let stored =
            registry.acting(|view| changed.iter().filter_map(|(site, of)| record(view, site, of, now)).collect()).await;
        if !matches!(stored, Ok(true)) {
            self.known().changed.extend(changed.into_iter().map(|(site, _)| site));
        }
        stored.map(|_| ())
    }
}

/// The record of a site, if one is needed: of a site that lacks nothing none is made.
fn record(view: &StateView, site: &SiteId, of: &CapturedTables, now: Timestamp) -> Option<Result<Record, LakeError>> {
    let known = view.get(LACKING, site.as_str()).map(|record| record.parse::<Stored>());
    let is_same = |known: &Stored| known.epoch == of.epoch && known.names == *of.names;
    let is_needed = match &known {
        None => of.names.lacks_something(),
        Some(known) => !known.as_ref().is_ok_and(is_same),
    };
    let stored = || Stored { epoch: of.epoch, through: of.through, names: of.names.as_ref().clone() };
    is_needed.then(|| view.next(LACKING, site.as_str(), &stored(), now, "hq"))
}

#[cfg(test)]
mod tests {
    use rollcall_lake::{BootClock, Lake, LakeOptions};
    use rollcall_registry::{HqClock, RegistryParts, roster::NewLife};
    use rollcall_types::{Manifest, Stated};

    use super::*;

    async fn registry(directory: &std::path::Path) -> Registry {
        let lake = Lake::open_directory(directory, LakeOptions::default()).await.expect("opens");
        Registry::new(RegistryParts {
            lake: Arc::new(lake),
            clock: HqClock::new(BootClock::default(), None),
            health: Arc::default(),
            address: String::new(),
            behind_after: std::time::Duration::from_secs(60),
            tasks: tokio_util::task::TaskTracker::new(),
            stop: tokio_util::sync::CancellationToken::new(),
        })
    }

    fn life(journal_id: &str) -> NewLife<'_> {
        NewLife { journal_id, reason: "new", is_contested: false, is_resend: false }
    }

    /// A listed site in the first life of its journal.
    async fn list(registry: &Registry, id: &str) -> SiteId {
        let (site, now) = (SiteId::new(id).expect("valid"), registry.now());
        registry.roster.invite(&site, &BTreeMap::new(), "print", 600, "ada", now).await.expect("listed");
        registry.roster.new_epoch(&site, None, life("one"), now).await.expect("begins");
        site
    }

    fn received(epoch: u32, through: u64, uncaptured: &[&str], gone: &[&str]) -> Received {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let sales = Stated { table: "sales".to_owned(), gone: own(gone), ..Stated::default() };
        let manifest =
            Manifest { after: Seq(0), through: Seq(through), tables: vec![sales], uncaptured: own(uncaptured) };
        Received { epoch: Epoch(epoch), seq: Seq(through + 1), at: Timestamp::from_micros(0), manifest }
    }

    #[tokio::test]
    async fn what_a_site_lacks_outlasts_a_restart_and_ends_with_its_life() {
        let directory = tempfile::tempdir().expect("a directory");
        let before = registry(directory.path()).await;
        let board = CapturedBoard::restore(&before);
        let [lacking, gone, well] =
            [list(&before, "a-1").await, list(&before, "b-1").await, list(&before, "c-1").await];
        board.note(&lacking, &received(1, 10, &["stock"], &[]));
        board.note(&gone, &received(1, 10, &[], &["qty"]));
        board.note(&well, &received(1, 10, &[], &[]));
        board.store(&before).await.expect("stores");
        let known = board.all();
        drop(before);
        let after = registry(directory.path()).await;
        let restored = CapturedBoard::restore(&after).all();
        assert_eq!(restored.len(), 2, "of a site that lacks nothing no record is needed");
        assert_eq!((&restored[&lacking], &restored[&gone]), (&known[&lacking], &known[&gone]));

        // What is captured again is no longer lacking, after another restart either.
        let board = CapturedBoard::restore(&after);
        board.note(&lacking, &received(1, 20, &[], &[]));
        board.store(&after).await.expect("stores");
        assert!(!CapturedBoard::restore(&after).all()[&lacking].names.lacks_something());
        let journal = after.roster.get(&gone).and_then(|record| record.journal.clone());
        after.roster.new_epoch(&gone, journal.as_ref(), life("two"), after.now()).await.expect("begins");
        assert!(!CapturedBoard::restore(&after).all().contains_key(&gone), "of the new life nothing is known");
    }

    #[tokio::test]
    async fn an_older_manifest_says_nothing_and_equal_names_are_kept_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let board = CapturedBoard::restore(&registry(directory.path()).await);
        let [one, other] = ["a-1", "b-1"].map(|id| SiteId::new(id).expect("valid"));
        board.note(&one, &received(1, 20, &[], &[]));
        board.note(&one, &received(1, 10, &["stock"], &[]));
        board.note(&other, &received(1, 7, &[], &[]));
        let all = board.all();
        assert_eq!(all[&one].through, Seq(20));
        assert!(Arc::ptr_eq(&all[&one].names, &all[&other].names));
        board.note(&one, &received(2, 3, &["stock"], &[]));
        assert!(board.all()[&one].names.lacks_something(), "of a later life the first manifest counts");
    }
}
