//! What two nodes share: a store that is slow and fails by chance, and the log of all that happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{FutureExt, StreamExt, TryStreamExt, future, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rollcall_lake::{Digest, is_commit};

/// Of so many puts one fails, in each of the three ways.
const FAULTY: u32 = 30;

/// Everything outside the nodes.
#[derive(Debug)]
pub(super) struct World {
    /// What is stored, without delays or faults.
    pub(super) bare: Arc<InMemory>,
    chance: Mutex<StdRng>,
    log: Mutex<String>,
    /// When objects were written, by simulated time: the store in memory knows real time only.
    modified: Mutex<BTreeMap<Path, DateTime<Utc>>>,
    /// What went wrong so far.
    pub(super) met: Mutex<BTreeSet<&'static str>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("not poisoned")
}

impl World {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            bare: Arc::new(InMemory::new()),
            chance: Mutex::new(StdRng::seed_from_u64(seed)),
            log: Mutex::default(),
            modified: Mutex::default(),
            met: Mutex::default(),
        })
    }

    /// A number below `end`.
    pub(super) fn below(&self, end: u32) -> u32 {
        lock(&self.chance).random_range(0..end)
    }

    pub(super) fn is_one_in(&self, count: u32) -> bool {
        self.below(count) == 0
    }

    pub(super) fn log(&self, what: impl fmt::Display) {
        lock(&self.log).push_str(&format!("{} {what}\n", rollcall_runtime::now().as_micros()));
    }

    pub(super) fn met(&self, what: &'static str) {
        lock(&self.met).insert(what);
        self.log(what);
    }

    pub(super) fn take_log(&self) -> String {
        std::mem::take(&mut lock(&self.log))
    }

    fn with_time(&self, mut meta: ObjectMeta) -> ObjectMeta {
        if let Some(at) = lock(&self.modified).get(&meta.location) {
            meta.last_modified = *at;
        }
        meta
    }
}

/// The store as one life of a node sees it. After its death nothing is answered any more.
#[derive(Debug, Clone)]
pub(super) struct NodeStore {
    world: Arc<World>,
    life: String,
    is_dead: Arc<AtomicBool>,
}

impl NodeStore {
    pub(super) fn new(world: &Arc<World>, life: String) -> Self {
        Self { world: world.clone(), life, is_dead: Arc::default() }
    }

    /// The node is gone at this instant: what is under way has taken effect or never will.
    pub(super) fn kill(&self) {
        self.is_dead.store(true, Ordering::Release);
    }

    /// Some time on the line. A dead node waits for ever.
    async fn line(&self) {
        tokio::time::sleep(Duration::from_millis(self.world.below(20).into())).await;
        if self.is_dead.load(Ordering::Acquire) {
            future::pending::<()>().await;
        }
    }

    fn log(&self, operation: &str, location: Option<&Path>, outcome: &str) {
        let location = location.map_or("", AsRef::as_ref);
        // Keys and certificates are not simulated, nor is what they are called.
        let location = if location.starts_with("private") { "private" } else { location };
        self.world.log(format_args!("{} {operation} {location} {outcome}", self.life));
    }
}

impl fmt::Display for NodeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated store of {}", self.life)
    }
}

fn outcome<T>(result: &Result<T>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(Error::AlreadyExists { .. }) => "exists",
        Err(Error::NotFound { .. }) => "not found",
        Err(_) => "failed",
    }
}

#[async_trait]
impl ObjectStore for NodeStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.line().await;
        let lost = || Error::Generic { store: "simulated", source: "the reply was lost".into() };
        if self.world.is_one_in(FAULTY) {
            self.world.met("a put has no effect");
            return Err(lost());
        }
        let digest = if location.as_ref().starts_with("private") {
            String::new()
        } else {
            Digest::of(&Bytes::from(payload.clone())).to_string()
        };
        let done = self.world.bare.put_opts(location, payload, options).await;
        if done.is_ok() {
            lock(&self.world.modified).insert(location.clone(), rollcall_runtime::now().to_chrono());
        }
        self.log("put", Some(location), &format!("{} {digest}", outcome(&done)));
        self.line().await;
        if done.is_ok() && self.world.is_one_in(FAULTY) {
            self.world.met("a put takes effect and the reply is lost");
            return Err(lost());
        }
        if done.is_ok() && is_commit(location) && self.world.is_one_in(FAULTY) {
            self.world.met("a put is made twice, and the second finds the first");
            return Err(Error::AlreadyExists { path: location.to_string(), source: "made twice".into() });
        }
        done
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.world.bare.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.line().await;
        let got = self.world.bare.get_opts(location, options).await;
        self.log("get", Some(location), outcome(&got));
        got.map(|mut got| {
            got.meta = self.world.with_time(got.meta);
            got
        })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.line().await;
        let got = self.world.bare.get_ranges(location, ranges).await;
        self.log("get", Some(location), outcome(&got));
        got
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = async move {
            this.line().await;
            this.log("delete", None, "");
            this.world.bare.delete_stream(locations)
        };
        delete.into_stream().flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let list = async move {
            this.line().await;
            this.log("list", prefix.as_ref(), "");
            let world = this.world.clone();
            world.bare.list(prefix.as_ref()).map_ok(move |meta| this.world.with_time(meta)).boxed()
        };
        list.into_stream().flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.line().await;
        self.log("list", prefix, "");
        let mut listed = self.world.bare.list_with_delimiter(prefix).await?;
        listed.objects = listed.objects.into_iter().map(|meta| self.world.with_time(meta)).collect();
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.line().await;
        self.world.bare.copy_opts(from, to, options).await
    }
}
