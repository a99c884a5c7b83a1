//! Publishing over a lake in a directory of its own, and what sites would fetch of it.

mod arrivals;
mod fetch;
mod publishing;
mod scheduled;
mod settings;
mod shared_tables;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow_array::RecordBatch;
use arrow_cast::display::array_value_to_string;
use arrow_schema::Schema;
use bytes::Bytes;
use rollcall_books::definitions::AtStoresChange;
use rollcall_lake::{BootClock, Lake, LakeOptions};
use rollcall_query::{Engine, EngineLimits};
use rollcall_registry::{HqClock, HqError, Registry, RegistryParts, SiteFact, SiteRecord, facts::Applied};
use rollcall_types::{Seq, SiteId, TableName};
use rollcall_wire::{
    proto::{FetchRequest, fetch_reply::Message},
    published::decode,
};
use tempfile::TempDir;

use crate::{
    Publisher, image, publish,
    rows::{Form, read},
    tables::{Known, Mode, Outcome, Request, refresh},
};

const BEACON_INTERVAL: Duration = Duration::from_secs(30);

/// A publisher, HQ's time as a test puts it on, and the lake's directory.
struct Hq {
    publisher: Arc<Publisher>,
    /// Microseconds.
    put_on: Arc<AtomicU64>,
    _directory: TempDir,
}

impl Hq {
    async fn open() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let lake = Arc::new(Lake::open_directory(directory.path(), LakeOptions::default()).await.expect("opens"));
        let put_on = Arc::<AtomicU64>::default();
        let passed = put_on.clone();
        let boot = BootClock::new(move || Duration::from_micros(passed.load(Ordering::Relaxed)));
        let registry = Arc::new(Registry::new(RegistryParts {
            lake,
            clock: HqClock::new(boot, None),
            health: Arc::default(),
            address: String::new(),
            behind_after: Duration::from_secs(60),
            tasks: Default::default(),
            stop: Default::default(),
        }));
        Self { publisher: publisher_over(registry), put_on, _directory: directory }
    }

    /// A second publisher over the same lake, as another node has one.
    fn another(&self) -> Arc<Publisher> {
        publisher_over(self.publisher.registry.clone())
    }

    /// HQ's time goes on.
    fn put_on(&self, time: Duration) {
        self.put_on.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// Puts a site on the roster.
    async fn list(&self, id: &str, attributes: &[(&str, &str)]) -> SiteId {
        let (site, registry) = (SiteId::new(id).expect("valid"), &self.publisher.registry);
        let attributes: BTreeMap<String, String> =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        registry.roster.invite(&site, &attributes, "none", 3600, "ada", registry.now()).await.expect("lists");
        site
    }

    fn record(&self, site: &SiteId) -> Arc<SiteRecord> {
        self.publisher.registry.roster.get(site).expect("on the roster")
    }

    async fn publish(&self, request: Request) -> Result<Outcome, HqError> {
        publish(&self.publisher, request).await
    }

    /// The prices as this node knows them.
    fn prices(&self) -> Arc<Known> {
        self.publisher.tables.get(&prices()).expect("published")
    }

    /// The present rows of the prices, each as text, in order.
    fn rows(&self) -> Vec<String> {
        rows_of(&self.publisher, "prices")
    }

    /// What a site fetches of the prices that it has up to `after`.
    fn fetch(&self, site: &SiteId, after: u64) -> Fetched {
        let audience = self.prices().class_of(site, &self.record(site)).expect("a class").tag;
        self.fetch_for(site, after, audience)
    }

    /// The same, by the class to which the site says it belongs.
    fn fetch_for(&self, site: &SiteId, after: u64, audience: u64) -> Fetched {
        let request = FetchRequest { table: "prices".to_owned(), audience, after, whole: false };
        let mut fetched = Fetched::default();
        for reply in self.publisher.fetch(site, &request).expect("fetches").iter() {
            match reply.message.as_ref().expect("a message") {
                Message::Begin(begin) => fetched.whole = begin.whole,
                Message::Rows(rows) => fetched.rows.extend(texts(&decode(rows).expect("decodes"))),
                Message::End(end) => fetched.version = end.version,
            }
        }
        fetched
    }
}

/// What a site that is well says of the tables that it has.
fn beacon(applied: BTreeMap<TableName, Applied>) -> SiteFact {
    SiteFact::Beacon {
        head: Seq(0),
        unconfirmed_age: Duration::ZERO,
        capture_problem: None,
        clock_off_micros: 0,
        applied,
    }
}

/// What a site fetches.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fetched {
    whole: bool,
    /// Each with what is done with it before.
    rows: Vec<String>,
    version: u64,
}

fn publisher_over(registry: Arc<Registry>) -> Arc<Publisher> {
    let engine = Engine::new(registry.lake.clone(), EngineLimits::default()).expect("an engine");
    Arc::new(Publisher::new(registry, Arc::new(engine), BEACON_INTERVAL))
}

fn table(name: &str) -> TableName {
    TableName::new(name).expect("valid")
}

fn prices() -> TableName {
    table("prices")
}

fn csv(text: &str) -> RecordBatch {
    read(&Bytes::from(text.to_owned()), Form::Csv, None).expect("reads")
}

/// Prices to be published for every site, with `sku` as their key.
fn request(mode: Mode, text: &str) -> Request {
    Request {
        table: prices(),
        rows: csv(text),
        gone: None,
        mode,
        key: vec!["sku".to_owned()],
        to: None,
        mends: None,
        shared: None,
        at_stores: AtStoresChange::default(),
        by: "ada".to_owned(),
        note: String::new(),
        dry_run: false,
        based_on: None,
        scheduled: None,
    }
}

fn merge(text: &str) -> Request {
    request(Mode::Merge, text)
}

/// The same, for those sites that a rule says.
fn merge_to(rule: &str, text: &str) -> Request {
    Request { to: Some(rule.to_owned()), ..merge(text) }
}

/// No rows at all: what is said is of the table.
fn no_rows() -> RecordBatch {
    RecordBatch::new_empty(Arc::new(Schema::empty()))
}

/// Each row's values, with blanks between; a null is a dash.
fn texts(rows: &RecordBatch) -> Vec<String> {
    let text = |row: usize| {
        let value = |column: &Arc<dyn arrow_array::Array>| match column.is_null(row) {
            true => "-".to_owned(),
            false => array_value_to_string(column, row).expect("a value"),
        };
        rows.columns().iter().map(value).collect::<Vec<_>>().join(" ")
    };
    (0..rows.num_rows()).map(text).collect()
}

/// The present rows of a table, as text and in order.
fn rows_of(publisher: &Publisher, name: &str) -> Vec<String> {
    let known = publisher.tables.get(&table(name)).expect("published");
    let rows = known.image.rows();
    let live = arrow_select::filter::filter_record_batch(rows, &image::is_live(rows)).expect("filters");
    let published: Vec<usize> = (image::OURS..live.num_columns()).collect();
    let mut all = texts(&live.project(&published).expect("columns"));
    all.sort_unstable();
    all
}
