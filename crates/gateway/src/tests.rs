//! A port over a lake in a directory of its own, with publications that a test sets.

mod batches;
mod hellos;
mod lines;
mod sessions;
mod simulation;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt8Array};
use arrow_schema::{DataType, Field, Schema};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rollcall_books::Books;
use rollcall_lake::{Lake, LakeOptions, VaultKey};
use rollcall_registry::{CaId, Heard, HqClock, HqError, Peer, Registry, RegistryParts, sessions::Session};
use rollcall_types::{ChainHash, Epoch, Seq, SiteId, SiteNumber, Timestamp, columns};
use rollcall_wire::{
    PROTOCOL, PROTOCOL_MIN,
    batch::{Batch, Encoded, Encoder, Part},
    proto::{FetchEnd, FetchReply, FetchRequest, Hello, Settings, WantedTable, Welcome, fetch_reply},
};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{
    Authority, GatewayParts, GatherLimits, Ingest, Publications,
    welcome::{Rejection, Visitor},
};

/// Publications as a test wants them.
struct Shelf {
    changed: watch::Sender<u64>,
    wanted: Mutex<Vec<WantedTable>>,
    settings: Mutex<Settings>,
    is_ahead: AtomicBool,
    refreshed: AtomicU64,
}

impl Shelf {
    fn new() -> Self {
        let (wanted, settings) = (Mutex::default(), Mutex::default());
        Self {
            changed: watch::channel(0).0,
            wanted,
            settings,
            is_ahead: AtomicBool::new(false),
            refreshed: AtomicU64::new(0),
        }
    }

    /// From now on sites should have this.
    fn publish(&self, wanted: Vec<WantedTable>) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        self.changed.send_modify(|count| *count += 1);
    }

    /// From now on this is said of sites.
    fn say(&self, settings: Settings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        self.changed.send_modify(|count| *count += 1);
    }
}

#[async_trait::async_trait]
impl Publications for Shelf {
    fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    async fn refresh(&self) {
        self.refreshed.fetch_add(1, Ordering::Relaxed);
    }

    fn is_ahead(&self, _site: &SiteId) -> bool {
        self.is_ahead.load(Ordering::Relaxed)
    }

    fn wanted(&self, _session: &Session) -> Vec<WantedTable> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fetch(&self, _site: &SiteId, request: &FetchRequest) -> Result<Arc<Vec<FetchReply>>, HqError> {
        if request.table != "prices" {
            return Err(HqError::NotFound(format!("HQ does not publish table {}", request.table)));
        }
        let end = fetch_reply::Message::End(FetchEnd::default());
        Ok(Arc::new(vec![FetchReply { message: Some(end) }]))
    }

    fn settings_of(&self, _site: &SiteId) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a port is made of, and the lake's directory.
struct Port {
    parts: Arc<GatewayParts>,
    shelf: Arc<Shelf>,
    _directory: TempDir,
}

impl Port {
    async fn open() -> Self {
        Self::for_sites(10).await
    }

    /// A port of a node that can hold so many sites.
    async fn for_sites(capacity: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let lake = Arc::new(Lake::open_directory(directory.path(), LakeOptions::default()).await.expect("opens"));
        let (key, shelf) = (VaultKey::generate().expect("a key"), Arc::new(Shelf::new()));
        let parts = parts_of(lake, key, String::new(), capacity, shelf.clone()).await.expect("opens");
        Self { parts, shelf, _directory: directory }
    }

    async fn invite(&self, site: &SiteId) -> String {
        invite(&self.parts, site).await.expect("invites")
    }

    async fn visitor(&self, name: &str) -> Visitor {
        visitor_of(&self.parts, name).await.expect("enrols")
    }

    /// What the watch was told since the last look, contacts left out.
    fn heard(&self) -> Vec<Heard> {
        let told = self.parts.registry.for_watch.take().into_iter();
        told.map(|(_, _, heard)| heard).filter(|heard| *heard != Heard::Contact).collect()
    }
}

/// A node's port over a lake; sites reach it at `address`.
async fn parts_of(
    lake: Arc<Lake>,
    key: VaultKey,
    address: String,
    capacity: usize,
    shelf: Arc<Shelf>,
) -> Result<Arc<GatewayParts>, HqError> {
    let vault = lake.vault(key);
    let registry = Arc::new(Registry::new(RegistryParts {
        clock: HqClock::new(LakeOptions::default().clock, None),
        lake,
        health: Arc::default(),
        address,
        behind_after: Duration::from_secs(60),
        tasks: Default::default(),
        stop: Default::default(),
    }));
    let limits = GatherLimits { time: Duration::from_millis(1), turns: 2, ..GatherLimits::default() };
    let ingest = Ingest::new(limits, registry.health.clone(), registry.tasks.clone(), registry.stop.clone());
    let day = Duration::from_secs(86_400);
    let authority = Authority::open(vault, day, Duration::ZERO).await?;
    Ok(Arc::new(GatewayParts {
        books: Arc::new(Books::new(&registry)),
        registry,
        authority: Arc::new(authority),
        ingest: Arc::new(ingest),
        publications: shelf,
        doors: Arc::default(),
        capacity,
        announce: vec!["hq.example:7400".to_owned()],
        beacon_interval: Duration::from_secs(30),
        manifest_interval: Duration::from_secs(600),
    }))
}

/// An invitation's secret, for a site.
async fn invite(parts: &GatewayParts, site: &SiteId) -> Result<String, HqError> {
    let (registry, fingerprint) = (&parts.registry, "none");
    let (nothing, now) = (BTreeMap::new(), registry.now());
    let invited = registry.roster.invite(site, &nothing, fingerprint, 3600, "ada", now).await?;
    let text = invited.token.strip_prefix("rc1.").expect("a token");
    let said = String::from_utf8(URL_SAFE_NO_PAD.decode(text).expect("base64")).expect("text");
    Ok(said.split(' ').nth(1).expect("a secret").to_owned())
}

/// A site on the roster that opened a control stream.
async fn visitor_of(parts: &Arc<GatewayParts>, name: &str) -> Result<Visitor, HqError> {
    let (registry, site) = (&parts.registry, SiteId::new(name).expect("valid"));
    let secret = invite(parts, &site).await?;
    let key_hash = format!("key of {name}");
    registry.roster.enrol(&secret, &key_hash, Vec::new(), registry.now()).await?;
    let number = SiteNumber(registry.roster.get(&site).expect("on the roster").number);
    let not_after = registry.now();
    let peer = Arc::new(Peer { site, key_hash, not_after, authority: CaId::default() });
    Ok(Visitor { parts: parts.clone(), peer, number, address: Some(([192, 0, 2, 7], 4000).into()) })
}

/// A first message of a site that never had a session.
fn hello(instance: &str) -> Hello {
    Hello {
        protocol: PROTOCOL,
        protocol_min: PROTOCOL_MIN,
        agent_version: "1.2.3".to_owned(),
        instance: instance.to_owned(),
        journal_id: "journal-1".to_owned(),
        oldest: 1,
        clock_micros: rollcall_runtime::now().as_micros(),
        ..Hello::default()
    }
}

/// A first message of a site that goes on in an epoch.
fn hello_again(instance: &str, epoch: u32, confirmed: u64, head: u64) -> Hello {
    Hello { epoch, confirmed, head, ..hello(instance) }
}

fn is_away(judged: Result<(Arc<Session>, Welcome), Rejection>, wanted: rollcall_wire::Refusal) -> bool {
    matches!(judged, Err(Rejection::Away { code, .. }) if code == wanted)
}

/// Rows of one table at these positions.
fn rows(seqs: &[i64]) -> RecordBatch {
    let declared = HashMap::from([(columns::METADATA_DECLARED.to_owned(), "TEXT".to_owned())]);
    let schema = Schema::new(vec![
        Field::new(columns::SEQ, DataType::Int64, false),
        Field::new(columns::OP, DataType::UInt8, false),
        Field::new(columns::CHANGED_AT, DataType::Int64, true),
        Field::new("name", DataType::Utf8, true).with_metadata(declared),
    ]);
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(seqs.iter().copied())),
        Arc::new(UInt8Array::from_iter_values(seqs.iter().map(|_| b'I'))),
        Arc::new(Int64Array::from_iter_values(seqs.iter().map(|seq| seq * 1000))),
        Arc::new(StringArray::from_iter_values(seqs.iter().map(|seq| format!("name {seq}")))),
    ];
    RecordBatch::try_new(Arc::new(schema), arrays).expect("matching columns")
}

/// A batch of one table, from `first` through `last`, that continues where `previous` ended.
fn batch(table: &str, first: u64, last: u64, previous: u64) -> Encoded {
    let seqs: Vec<i64> = (first as i64..=last as i64).collect();
    let part = Part { table: table.to_owned(), previous: Seq(previous), rows: rows(&seqs), marks: Vec::new() };
    let (first, last) = (Seq(first), Seq(last));
    let batch = Batch { epoch: Epoch(1), first, last, previous_hash: ChainHash::default(), parts: vec![part] };
    Encoder::new().and_then(|mut encoder| encoder.encode(&batch)).expect("encodes")
}
