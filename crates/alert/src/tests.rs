//! Alerts over a lake: what is heard, asked and told, and what of it outlasts a node.

mod notify;
mod requests;
mod watch;
mod webhook;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use object_store::ObjectStore;
use rollcall_books::Books;
use rollcall_lake::{BootClock, Lake, LakeOptions, VaultKey};
use rollcall_registry::{Heard, HqClock, Registry, RegistryParts};
use rollcall_roll::{Condition, Incident, Kind};
use rollcall_types::{SiteId, Timestamp};

use crate::{AlertParts, Alerts, HqName, WatchSettings, last_sign, watching::TickOutcome};

/// A node without a network.
struct TestNode {
    alerts: Arc<Alerts>,
    /// Microseconds by which HQ's time was put on.
    put_on: Arc<AtomicU64>,
    began: Timestamp,
    minutes: AtomicI64,
}

fn site(id: &str) -> SiteId {
    SiteId::new(id).expect("valid")
}

impl TestNode {
    async fn on_directory(directory: &Path) -> Self {
        Self::on(Lake::open_directory(directory, LakeOptions::default()).await.expect("opens")).await
    }

    /// One of several nodes: it knows of those that came before.
    async fn on_store(store: &Arc<dyn ObjectStore>) -> Self {
        let node = Self::on(Lake::open(store.clone(), LakeOptions::default()).await.expect("opens")).await;
        node.alerts.registry.catch_up().await.expect("hears the others");
        node
    }

    async fn on(lake: Lake) -> Self {
        let put_on = Arc::<AtomicU64>::default();
        let passed = put_on.clone();
        let boot = BootClock::new(move || Duration::from_micros(passed.load(Ordering::Relaxed)));
        let clock = HqClock::new(boot, last_sign(&lake));
        let began = clock.now();
        let registry = Arc::new(Registry::new(RegistryParts {
            lake: Arc::new(lake),
            clock,
            health: Arc::default(),
            address: String::new(),
            behind_after: Duration::from_secs(120),
            tasks: tokio_util::task::TaskTracker::new(),
            stop: tokio_util::sync::CancellationToken::new(),
        }));
        let parts = AlertParts {
            books: Arc::new(Books::new(&registry)),
            vault: registry.lake.vault(VaultKey::from_bytes(&[7; 32]).expect("a key")),
            registry,
            hq: HqName { name: Some("Test HQ".to_owned()), public_url: Some("https://hq.example/".to_owned()) },
            settings: WatchSettings {
                silent_after: Duration::from_secs(600),
                beacon_interval: Duration::from_secs(30),
                red_and_page: None,
            },
        };
        let alerts = Arc::new(Alerts::open(parts).await.expect("opens"));
        Self { alerts, put_on, began, minutes: AtomicI64::new(0) }
    }

    /// HQ's time goes on.
    fn put_on(&self, time: Duration) {
        self.put_on.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    async fn list(&self, id: &str) -> SiteId {
        let (site, registry) = (site(id), &self.alerts.registry);
        registry.roster.invite(&site, &BTreeMap::new(), "f", 600, "ada", registry.now()).await.expect("listed");
        site
    }

    fn hear(&self, site: &SiteId, what: Heard) {
        self.alerts.registry.record_heard(site, what);
    }

    /// A site's disk is nearly full.
    fn hear_of_disk(&self, site: &SiteId) {
        self.hear(site, Heard::Condition(Condition::Disk, Some(format!("the disk of {site} is nearly full"))));
    }

    /// Lets a minute pass for the watch, and nothing else.
    fn tick(&self) -> TickOutcome {
        let minute = self.minutes.fetch_add(1, Ordering::Relaxed);
        self.alerts.watching.tick(&self.alerts.registry, self.began.plus_micros(minute * 60_000_000))
    }

    /// Lets a minute pass, stores what the watch says and tells people; whoever is told has been
    /// told afterwards.
    async fn pass_minute(&self) {
        self.decide_in_a_minute().await;
        self.settle().await;
    }

    /// The same, without waiting for deliveries.
    async fn decide_in_a_minute(&self) {
        let outcome = self.tick();
        let now = self.alerts.registry.now();
        assert!(self.alerts.store(&outcome.incidents, now).await.expect("stores"), "it acts");
        outcome.decisions.iter().for_each(|decision| self.alerts.announce(decision));
    }

    /// Waits for all deliveries.
    async fn settle(&self) {
        let tasks = &self.alerts.registry.tasks;
        tasks.close();
        tasks.wait().await;
        tasks.reopen();
    }

    /// Looks whether it acts, as a node does each second.
    async fn look_at_lease(&self) {
        self.alerts.registry.look_at_lease(self.alerts.leader().as_ref()).await.expect("looks");
    }

    fn open(&self, kind: Kind) -> Vec<Incident> {
        let is_it = |incident: &Incident| incident.is_open() && incident.kind == kind;
        self.alerts.incidents().into_iter().filter(is_it).collect()
    }

    fn open_of_disk(&self) -> Vec<Incident> {
        self.open(Kind::Condition(Condition::Disk))
    }

    /// Opens an incident of a new site, and stores it.
    async fn open_incident(&self, id: &str) -> u64 {
        let site = self.list(id).await;
        self.hear_of_disk(&site);
        let outcome = self.tick();
        assert!(self.alerts.store(&outcome.incidents, self.alerts.registry.now()).await.expect("stores"));
        self.open_of_disk().iter().find(|incident| incident.members.contains_key(&site)).expect("is open").id
    }
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(object_store::memory::InMemory::new())
}
