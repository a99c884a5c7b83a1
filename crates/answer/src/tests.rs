//! What coverage says of sites in every state that it must tell apart. No query engine takes part:
//! a scope is what the engine would have found in a question.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt8Array};
use arrow_schema::{DataType, Field, Schema};
use rollcall_alert::{AlertParts, Alerts, HqName, WatchSettings};
use rollcall_books::{Books, table_settings::TableSettings};
use rollcall_lake::{BootClock, Lake, LakeOptions, Part, SiteClock, TableSchema, VaultKey, conform};
use rollcall_query::{Cover, ScanScope, Scope, TimeRead};
use rollcall_registry::{
    HqClock, Registry, RegistryParts, SiteFact, facts::Kept, progress::ProgressCache, roster::NewLife,
};
use rollcall_types::{
    Cause, ChainHash, Coverage, Epoch, Seq, SiteId, SiteNumber, SiteState, TableName, Timestamp, columns,
};

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

    /// A store wrote when a sale happened without a zone.
    async fn has_local_times(&self) {
        let declared = HashMap::from([(columns::METADATA_DECLARED.to_owned(), "DATETIME".to_owned())]);
        let fields = vec![
            Field::new(columns::SEQ, DataType::Int64, false),
            Field::new(columns::OP, DataType::UInt8, false),
            Field::new("sold_at", DataType::Utf8, true).with_metadata(declared),
        ];
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1])),
            Arc::new(UInt8Array::from(vec![b'I'])),
            Arc::new(StringArray::from(vec!["2026-11-30 12:00:00"])),
        ];
        let sent = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("fits");
        let rows = conform(&sent, &TableSchema::for_sites(Vec::new()), SiteClock::default()).expect("conforms");
        let part = Part {
            site: SiteNumber(99),
            site_id: site("z-1"),
            epoch: Epoch(1),
            previous: Seq(0),
            last: Seq(1),
            hash: ChainHash::new(1),
            marks: Vec::new(),
            rows,
            received_at: self.registry.now(),
            whole: false,
        };
        let sales = self.registry.lake.table_or_create(&table(), &[]).await.expect("a table");
        sales.append(Arc::new(vec![part])).await.expect("appends");
    }

    /// The next life of the site's journal begins.
    async fn begin_life(&self, id: &SiteId) {
        let known = self.registry.roster.get(id).and_then(|record| record.journal.clone());
        let new = NewLife { journal_id: "one", reason: "a test", is_contested: false, is_resend: false };
        self.registry.roster.new_epoch(id, known.as_ref(), new, self.registry.now()).await.expect("begun");
    }

    fn coverage(&self, asked_at: Timestamp, scope: impl FnOnce(usize) -> Scope) -> Coverage {
        let view = Arc::new(RosterView::new(self.registry.roster.all()));
        let when = TableSettings { event_time: Some("sold_at".to_owned()), ..TableSettings::default() };
        let coverage = HqCoverage {
            registry: self.registry.clone(),
            alerts: self.alerts.clone(),
            books: self.books.clone(),
            settings: BTreeMap::from([(table(), when)]),
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
    let scan = ScanScope { table: table(), sites: vec![true; sites], until, from: None, columns, times: Vec::new() };
    Scope { scans: vec![scan], ..Scope::default() }
}

/// A sign of life of a site whose clock is off by so much, microseconds.
fn beacon(clock_off_micros: i64) -> SiteFact {
    SiteFact::Beacon {
        head: Seq(0),
        unconfirmed_age: Duration::ZERO,
        capture_problem: None,
        clock_off_micros,
        applied: BTreeMap::new(),
    }
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

/// Sales of a time, of which the question reads when they happened.
fn sales_of(sites: usize, from: Timestamp, until: Timestamp) -> Scope {
    let mut scope = sales(sites, Some(until));
    scope.scans[0].from = Some(from);
    let time = TimeRead { column: "sold_at".to_owned(), from: Some(from), until: Some(until) };
    scope.scans[0].times.push(time);
    scope
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_question_about_a_time_in_which_a_clock_was_wrong_lacks_that_site() {
    let hq = TestHq::start().await;
    let (right, wrong) = (hq.list("a-1", &[("tz", "UTC")]).await, hq.list("b-1", &[("tz", "UTC")]).await);
    let now = hq.registry.now();
    for id in [&right, &wrong] {
        hq.is_through(id, now);
        hq.registry.record(id, beacon(0));
    }
    let then = hq.registry.now();
    hq.registry.record(&wrong, beacon(2 * 3_600_000_000));
    hq.registry.record(&wrong, beacon(0));
    let asked = |from, until| causes(&hq.coverage(now, |sites| sales_of(sites, from, until)));
    // It was two hours behind: what was sold then stands up to two hours earlier.
    let lacks = [("b-1".to_owned(), Some(Cause::Clock))];
    assert_eq!(asked(then.before(HOUR), then.plus_micros(1)), lacks);
    assert_eq!(asked(then.before(HOUR * 3), then.before(HOUR)), lacks);
    assert_eq!(asked(then.before(HOUR * 3), then.before(HOUR * 2 + Duration::from_secs(60))), []);
    let all = hq.coverage(now, |sites| sales(sites, None));
    assert!(all.is_complete(), "a question that asks for no time is right: {}", all.summary());
    hq.registry.roster.accept_times(&wrong, "tills have own clocks", "ada", hq.registry.now()).await.expect("accepted");
    assert_eq!(asked(then.before(HOUR), then.plus_micros(1)), []);
}

#[tokio::test]
async fn a_site_whose_zone_is_not_known_or_was_another_has_no_sure_times() {
    let hq = TestHq::start().await;
    hq.has_local_times().await;
    let (known, unknown, moved) = (
        hq.list("a-1", &[("tz", "Europe/Berlin")]).await,
        hq.list("b-1", &[]).await,
        hq.list("c-1", &[("tz", "UTC")]).await,
    );
    let now = hq.registry.now();
    for id in [&known, &unknown, &moved] {
        hq.is_through(id, now);
    }
    let asked = || causes(&hq.coverage(now, |sites| sales_of(sites, now.before(HOUR), now)));
    assert_eq!(asked(), [("b-1".to_owned(), Some(Cause::Zone))]);
    hq.begin_life(&moved).await;
    let roster = &hq.registry.roster;
    let zone = |tz: &str| BTreeMap::from([("tz".to_owned(), tz.to_owned())]);
    roster.set_attributes(&unknown, &zone("Europe/Berlin"), "ada", now).await.expect("set");
    assert_eq!(asked(), [], "it has no rows that were read in another");
    roster.set_attributes(&moved, &zone("Europe/Berlin"), "ada", now).await.expect("set");
    assert_eq!(asked(), [("c-1".to_owned(), Some(Cause::Zone))], "its rows were read in another zone");
    hq.begin_life(&moved).await;
    assert_eq!(asked(), [], "it sent all again");
}

#[tokio::test]
async fn of_an_incident_about_others_too_a_user_hears_what_is_about_their_sites() {
    let hq = TestHq::start().await;
    let (north, south) = (hq.list("a-1", &[("region", "north")]).await, hq.list("b-1", &[("region", "south")]).await);
    let now = hq.registry.now();
    let late = BTreeMap::from([(north.clone(), now), (south.clone(), now)]);
    hq.alerts.watching.watch().set_publication("prices", &late, "a-1 and b-1 have not taken it", now);
    let seen_of = |region: &str| {
        let all = hq.registry.roster.all();
        let seen = all.iter().filter(|(_, record)| record.attributes.get("region") == Some(region));
        let seen: rollcall_registry::Sites = seen.map(|(id, record)| (id.clone(), record.clone())).collect();
        let incidents = hq.alerts.incidents().into_iter();
        incidents.filter_map(|incident| crate::seen::incident_of(incident, &seen)).collect::<Vec<_>>()
    };
    let seen = seen_of("north");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].members.keys().collect::<Vec<_>>(), [&north]);
    let said = format!("{:?}", seen[0]);
    assert!(!said.contains("b-1"), "{said}");
    assert!(seen_of("west").is_empty(), "it is about none of these");
}
