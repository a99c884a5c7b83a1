//! What coverage says of sites in every state that it must tell apart. No query engine takes part:
//! a scope is what the engine would have found in a question.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use rollcall_alert::{AlertParts, Alerts, HqName, WatchSettings};
use rollcall_books::{Books, table_settings};
use rollcall_lake::{BootClock, Lake, LakeOptions, VaultKey};
use rollcall_query::{Cover, ScanScope, Scope};
use rollcall_registry::{HqClock, Registry, RegistryParts, SiteFact, facts::Kept, progress::ProgressCache};
use rollcall_types::{Cause, Coverage, Epoch, Seq, SiteId, SiteState, TableName, Timestamp};

use crate::coverage::{HqCoverage, RosterView};

const SALES: &str = "sales";
const BEHIND_AFTER: Duration = Duration::from_secs(120);

/// A node without a network, and questions about it.
struct TestHq {
    registry: Arc<Registry>,
    books: Arc<Books>,
    alerts: Arc<Alerts>,
    _directory: tempfile::TempDir,
}

fn site(id: &str) -> SiteId {
    SiteId::new(id).expect("valid")
}

fn table() -> TableName {
    TableName::new(SALES).expect("valid")
}

impl TestHq {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let lake = Lake::open_directory(directory.path(), LakeOptions::default()).await.expect("opens");
        let registry = Arc::new(Registry::new(RegistryParts {
            lake: Arc::new(lake),
            clock: HqClock::new(BootClock::default(), None),
            health: Arc::default(),
            address: String::new(),
            behind_after: BEHIND_AFTER,
            tasks: tokio_util::task::TaskTracker::new(),
            stop: tokio_util::sync::CancellationToken::new(),
        }));
        let books = Arc::new(Books::new(&registry));
        let settings = WatchSettings {
            silent_after: Duration::from_secs(600),
            beacon_interval: Duration::from_secs(30),
            red_and_page: None,
        };
        let alerts = Alerts::open(AlertParts {
            books: books.clone(),
            vault: registry.lake.vault(VaultKey::from_bytes(&[7; 32]).expect("a key")),
            registry: registry.clone(),
            hq: HqName::default(),
            settings,
        });
        let alerts = Arc::new(alerts.await.expect("opens"));
        Self { registry, books, alerts, _directory: directory }
    }

    async fn list(&self, id: &str, attributes: &[(&str, &str)]) -> SiteId {
        let attributes: BTreeMap<String, String> =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let now = self.registry.now();
        self.registry.roster.invite(&site(id), &attributes, "f", 600, "ada", now).await.expect("listed");
        site(id)
    }

    /// The site answered HQ's time `at`, and has sent all.
    fn is_through(&self, id: &SiteId, at: Timestamp) {
        self.registry.record_heard(id, rollcall_registry::Heard::Contact);
        // A head of 0 is reached without a row.
        let heads = vec![(table(), Seq(0))];
        self.registry.record(id, SiteFact::Heads { time: at, epoch: Epoch(1), heads });
        self.registry.ledger.advance_all(&self.registry.lake, &self.registry.roster.all());
    }

    fn coverage(&self, asked_at: Timestamp, scope: impl FnOnce(usize) -> Scope) -> Coverage {
        let view = Arc::new(RosterView::new(self.registry.roster.all()));
        let coverage = HqCoverage {
            registry: self.registry.clone(),
            alerts: self.alerts.clone(),
            books: self.books.clone(),
            settings: table_settings::all(&self.registry.lake),
            progress: ProgressCache::default().get(&self.registry.ledger, &view.ids, self.registry.now()),
            asked_at,
            misfits: self.books.misfits.get(),
            quarantined: self.books.quarantine.concerns(),
            view: view.clone(),
        };
        coverage.coverage(&scope(view.ids.len()))
    }
}

/// All sites, the table sales, up to a time.
fn sales(sites: usize, until: Option<Timestamp>) -> Scope {
    let columns = vec!["qty".to_owned()];
    let scan = ScanScope { table: table(), sites: vec![true; sites], until, from: None, columns };
    Scope { scans: vec![scan], ..Scope::default() }
}

fn causes(coverage: &Coverage) -> Vec<(String, Option<Cause>)> {
    coverage.missing.iter().map(|missing| (missing.site.to_string(), missing.cause)).collect()
}

#[tokio::test]
async fn a_site_that_is_through_the_end_of_the_question_is_complete_and_one_that_is_not_is_missing() {
    let hq = TestHq::start().await;
    let (now, early) = (hq.registry.now(), hq.registry.now().before(Duration::from_secs(3600)));
    let (through, behind) = (hq.list("a-1", &[]).await, hq.list("b-1", &[]).await);
    hq.is_through(&through, now);
    hq.is_through(&behind, early);
    let coverage = hq.coverage(now, |sites| sales(sites, Some(now.before(Duration::from_secs(60)))));
    assert_eq!((coverage.scope, coverage.complete), (2, 1));
    assert_eq!(coverage.missing[0].site, behind);
    assert_eq!(coverage.missing[0].since, Some(early), "since then its rows may be missing");
    let before = hq.coverage(now, |sites| sales(sites, Some(early.before(Duration::from_secs(60)))));
    assert_eq!((before.scope, before.complete), (2, 2), "of the time before, both have sent all");
}

#[tokio::test]
async fn a_question_up_to_now_takes_a_site_that_is_a_little_behind_for_current() {
    let hq = TestHq::start().await;
    let now = hq.registry.now();
    let (current, late) = (hq.list("a-1", &[]).await, hq.list("b-1", &[]).await);
    hq.is_through(&current, now.before(BEHIND_AFTER));
    hq.is_through(&late, now.before(BEHIND_AFTER + Duration::from_secs(1)));
    let coverage = hq.coverage(now, |sites| sales(sites, None));
    assert_eq!(causes(&coverage).len(), 1);
    assert_eq!(coverage.missing[0].site, late);
}

#[tokio::test]
async fn a_site_that_was_never_heard_is_missing_and_says_so() {
    let hq = TestHq::start().await;
    hq.list("a-1", &[]).await;
    let coverage = hq.coverage(hq.registry.now(), |sites| sales(sites, None));
    assert_eq!(causes(&coverage), [("a-1".to_owned(), Some(Cause::NeverEnrolled))]);
    assert_eq!((coverage.missing[0].state, coverage.missing[0].since), (SiteState::NeverHeard, None));
    assert!(!coverage.is_complete());
}

#[tokio::test]
async fn a_site_that_the_question_is_not_about_is_not_counted() {
    let hq = TestHq::start().await;
    let now = hq.registry.now();
    let asked = hq.list("a-1", &[]).await;
    hq.list("b-1", &[]).await;
    hq.is_through(&asked, now);
    let coverage = hq.coverage(now, |sites| {
        let mut scope = sales(sites, None);
        scope.scans[0].sites = vec![true, false];
        scope
    });
    assert_eq!((coverage.scope, coverage.complete), (1, 1));
    assert!(coverage.is_complete());
}

#[tokio::test]
async fn rows_in_quarantine_make_their_site_missing_where_their_table_is_read() {
    let hq = TestHq::start().await;
    let now = hq.registry.now();
    let id = hq.list("a-1", &[]).await;
    hq.is_through(&id, now);
    let kept = Kept {
        epoch: Epoch(1),
        first: Seq(1),
        last: Seq(9),
        at: now,
        reason: "a column of two types".to_owned(),
        tables: Some(BTreeSet::from(["stock".to_owned()])),
        bytes: 100,
        file: String::new(),
    };
    hq.registry.record(&id, SiteFact::Quarantined(kept.clone()));
    assert!(hq.coverage(now, |sites| sales(sites, None)).is_complete(), "sales are all here");
    let unreadable = Kept { tables: None, first: Seq(10), last: Seq(19), ..kept };
    hq.registry.record(&id, SiteFact::Quarantined(unreadable));
    let coverage = hq.coverage(now, |sites| sales(sites, None));
    assert_eq!(causes(&coverage), [("a-1".to_owned(), Some(Cause::RowsNotTaken))], "it may be any table");
}

#[tokio::test]
async fn a_retired_site_is_complete_unless_changes_were_left_there() {
    let hq = TestHq::start().await;
    let early = hq.registry.now().before(Duration::from_secs(7200));
    let (done, left) = (hq.list("a-1", &[]).await, hq.list("b-1", &[]).await);
    for id in [&done, &left] {
        hq.is_through(id, early);
    }
    hq.registry.record(&left, SiteFact::Goodbye { head: Seq(7), reason: "closed for good".to_owned() });
    let now = hq.registry.now();
    for id in [&done, &left] {
        hq.registry.roster.retire(id, "closed for good", "ada", now).await.expect("retired");
    }
    let coverage = hq.coverage(hq.registry.now(), |sites| sales(sites, None));
    assert_eq!((coverage.scope, coverage.complete), (2, 1));
    assert_eq!(coverage.missing[0].site, left);
}

#[tokio::test]
async fn each_group_knows_which_of_its_sites_are_missing() {
    let hq = TestHq::start().await;
    let now = hq.registry.now();
    let north = [hq.list("a-1", &[("region", "north")]).await, hq.list("a-2", &[("region", "north")]).await];
    let south = hq.list("b-1", &[("region", "south")]).await;
    hq.is_through(&north[0], now);
    hq.is_through(&south, now);
    let coverage = hq.coverage(now, |sites| Scope { grouped_by: vec!["region".to_owned()], ..sales(sites, None) });
    let groups: Vec<_> =
        coverage.groups.iter().map(|group| (group.scope, group.complete, group.missing.len())).collect();
    assert_eq!(groups, [(2, 1, 1), (1, 1, 0)]);
    assert_eq!(coverage.groups[0].missing, [north[1].clone()]);
}

#[tokio::test]
async fn an_id_that_nobody_has_is_told_with_the_site_that_may_be_meant() {
    let hq = TestHq::start().await;
    let id = hq.list("seattle-01", &[]).await;
    hq.is_through(&id, hq.registry.now());
    let coverage = hq.coverage(hq.registry.now(), |sites| {
        let mut scope = sales(sites, None);
        (scope.scans[0].sites, scope.unlisted) = (vec![false; sites], BTreeSet::from(["seatle-01".to_owned()]));
        scope
    });
    assert_eq!(coverage.unlisted[0].meant, Some(id));
    assert!(!coverage.is_complete(), "a typing error reads like a store without sales");
}
