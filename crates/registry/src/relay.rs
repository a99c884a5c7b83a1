//! What one node hears, all nodes know: each writes what its sites told to numbered objects of its
//! own in the store, and reads those of the others.
//!
//! An object is written every [`TELL_EVERY`], with something in it or not, so that it is also the
//! sign that the node lives. Objects are kept for [`KEPT`]: a node that starts reads them all and
//! knows what the others know. Nothing durable hangs on them: rows and cursors are in the tables,
//! and what sites say they say again.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, future::join_all, stream};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use rollcall_lake::LakeError;
use rollcall_runtime::Instant;
use rollcall_types::{SiteId, Timestamp, describe};
use serde::{Deserialize, Serialize};

use crate::{
    facts::{Heard, SiteFact},
    registry::Registry,
};

/// How often a node tells, and listens.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often nodes that are new are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long what was told can be read.
const KEPT: Duration = Duration::from_secs(600);
/// Objects read at once.
const READS_AT_ONCE: usize = 16;
/// A node not heard of for this long is gone.
const GONE_AFTER: Duration = Duration::from_secs(8);
/// What waits to be told while the store does not answer; what is older is learned again when sites
/// say it again.
const WAITING_MAX: usize = 200_000;
const LEVEL: i32 = 3;

/// What a node tells at a time.
#[derive(Debug, Serialize, Deserialize)]
struct RelayObject {
    /// Where sites reach this node.
    address: String,
    facts: Vec<(SiteId, Timestamp, SiteFact)>,
}

/// Another node.
#[derive(Debug)]
struct Other {
    address: String,
    /// The newest object read.
    read: Option<Path>,
    heard: Instant,
}

#[derive(Debug, Default)]
struct Outbox {
    facts: Vec<(SiteId, Timestamp, SiteFact)>,
    /// Sites whose contact is among them already.
    heard: HashSet<SiteId>,
}

/// This node's part in telling.
#[derive(Debug)]
pub struct Relay {
    store: Arc<dyn ObjectStore>,
    /// This run of this node.
    node: String,
    /// Where sites reach it.
    address: String,
    outbox: Mutex<Outbox>,
    others: Mutex<BTreeMap<String, Other>>,
    told: Mutex<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn root() -> Path {
    Path::from("rollcall/relay")
}

impl Relay {
    /// The part of a node that starts now; `address` is where sites reach it, empty if not known.
    pub fn new(store: Arc<dyn ObjectStore>, address: String) -> Self {
        let started = rollcall_runtime::now().as_millis();
        let node = format!("{started:014}-{}", &rollcall_runtime::new_id().simple().to_string()[..8]);
        Self {
            store,
            node,
            address,
            outbox: Mutex::default(),
            others: Mutex::default(),
            told: Mutex::new(Instant::now()),
        }
    }

    /// The name of this run of this node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Notes what is to be told; contact once for each site and time.
    pub fn tell(&self, site: &SiteId, at: Timestamp, fact: &SiteFact) {
        let mut outbox = lock(&self.outbox);
        if *fact == SiteFact::Heard(Heard::Contact) && !outbox.heard.insert(site.clone()) {
            return;
        }
        outbox.facts.push((site.clone(), at, fact.clone()));
    }

    /// Whether a node was heard of lately; this one is if it could tell the others lately.
    pub fn is_alive(&self, node: &str) -> bool {
        if node == self.node {
            return lock(&self.told).elapsed() < GONE_AFTER;
        }
        lock(&self.others).get(node).is_some_and(|other| other.heard.elapsed() < GONE_AFTER)
    }

    /// Where sites may call: at this node, and at those that were there minutes ago, since one that
    /// is away may be the first to be back.
    pub fn addresses(&self) -> Vec<String> {
        let others = lock(&self.others);
        let mut lately: Vec<&Other> = others.values().filter(|other| other.heard.elapsed() < KEPT).collect();
        lately.sort_by_key(|other| other.heard.elapsed() >= GONE_AFTER);
        let mut addresses = vec![self.address.clone()];
        for other in lately {
            if !addresses.contains(&other.address) {
                addresses.push(other.address.clone());
            }
        }
        addresses.retain(|address| !address.is_empty());
        addresses
    }

    /// How many facts wait to be told.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.outbox).facts.len()
    }

    /// The nodes that are alive, this one first, and where sites reach them.
    pub fn nodes(&self) -> Vec<(String, String)> {
        let others = lock(&self.others);
        let alive = others.iter().filter(|(_, other)| other.heard.elapsed() < GONE_AFTER);
        let own = (self.node.clone(), self.address.clone());
        std::iter::once(own).chain(alive.map(|(node, other)| (node.clone(), other.address.clone()))).collect()
    }

    async fn put(&self, number: u64) -> Result<(), LakeError> {
        let outbox = std::mem::take(&mut *lock(&self.outbox));
        let told = RelayObject { address: self.address.clone(), facts: outbox.facts };
        let packed = serde_json::to_vec(&told)
            .map_err(std::io::Error::other)
            .and_then(|text| zstd::encode_all(&text[..], LEVEL));
        let packed =
            packed.map_err(|error| LakeError::Task(format!("packing what is told to other nodes: {error}")))?;
        let path = root().join(self.node.as_str()).join(format!("{number:012}"));
        let put = self.store.put(&path, packed.into()).await;
        if let Err(source) = put {
            // It is told with the next.
            let mut outbox = lock(&self.outbox);
            outbox.facts.splice(0..0, told.facts);
            let surplus = outbox.facts.len().saturating_sub(WAITING_MAX);
            outbox.facts.drain(..surplus);
            return Err(LakeError::Store { doing: "telling the other nodes".to_owned(), source });
        }
        *lock(&self.told) = Instant::now();
        if let Some(old) = number.checked_sub(KEPT.as_secs() / TELL_EVERY.as_secs()) {
            // What stays is never read: it goes with the rest of this node's objects.
            let _ = self.store.delete(&root().join(self.node.as_str()).join(format!("{old:012}"))).await;
        }
        Ok(())
    }

    /// Looks for nodes.
    async fn look(&self) -> Result<(), LakeError> {
        let failed = |source| LakeError::Store { doing: "looking for other nodes".to_owned(), source };
        let listed = self.store.list_with_delimiter(Some(&root())).await.map_err(failed)?;
        let names = listed.common_prefixes.iter().filter_map(|path| path.filename()).map(str::to_owned);
        for name in names.filter(|name| *name != self.node) {
            lock(&self.others).entry(name).or_insert_with(|| {
                // Whether it lives is seen by whether it tells anything new.
                let heard = Instant::now().checked_sub(GONE_AFTER).unwrap_or_else(Instant::now);
                Other { address: String::new(), read: None, heard }
            });
        }
        Ok(())
    }

    /// What another node told since it was read last.
    async fn read(&self, node: &str) -> Result<Vec<RelayObject>, LakeError> {
        let failed = |source| LakeError::Store { doing: format!("reading what node {node} tells"), source };
        let prefix = root().join(node);
        let (read, is_gone) = match lock(&self.others).get(node) {
            Some(other) => (other.read.clone(), other.heard.elapsed() > KEPT),
            None => return Ok(Vec::new()),
        };
        let is_first = read.is_none();
        let listed = match &read {
            Some(read) if !is_gone => self.store.list_with_offset(Some(&prefix), read),
            _ => self.store.list(Some(&prefix)),
        };
        let mut found: Vec<_> = listed.try_collect().await.map_err(failed)?;
        found.sort_by(|left, right| left.location.cmp(&right.location));
        let newest = found.last().cloned();
        let kept = rollcall_runtime::now().before(KEPT).to_chrono();
        if newest.as_ref().is_none_or(|newest| newest.last_modified < kept) && (is_first || is_gone) {
            // Nobody needs what a node told that is long gone.
            self.clear(node, found.into_iter().map(|object| object.location).collect()).await;
            return Ok(Vec::new());
        }
        found.retain(|object| read.as_ref().is_none_or(|read| object.location > *read));
        let Some(newest) = newest.filter(|_| !found.is_empty()) else { return Ok(Vec::new()) };
        let get = |path: Path| async move {
            match self.store.get(&path).await {
                Ok(object) => Some(object.bytes().await),
                // Old, and deleted just now.
                Err(object_store::Error::NotFound { .. }) => None,
                Err(error) => Some(Err(error)),
            }
        };
        let bodies: Vec<_> = stream::iter(found.into_iter().map(|object| get(object.location)))
            .buffered(READS_AT_ONCE)
            .filter_map(|body| async { body })
            .try_collect()
            .await
            .map_err(failed)?;
        let told: Vec<RelayObject> = bodies.iter().filter_map(|body| unpack(body)).collect();
        if let Some(other) = lock(&self.others).get_mut(node) {
            let now = Instant::now();
            // Of what was there before this node came, only its age tells whether the other lives.
            let age = rollcall_runtime::now().since(newest.last_modified.into());
            other.heard = if is_first { now.checked_sub(age).unwrap_or(now) } else { now };
            other.read = Some(newest.location);
            if let Some(last) = told.last() {
                other.address.clone_from(&last.address);
            }
        }
        Ok(told)
    }

    async fn clear(&self, node: &str, left: Vec<Path>) {
        let locations = stream::iter(left.into_iter().map(Ok)).boxed();
        // Someone else may be at it too.
        let _: Vec<_> = self.store.delete_stream(locations).collect().await;
        lock(&self.others).remove(node);
    }
}

fn unpack(body: &[u8]) -> Option<RelayObject> {
    let text = zstd::decode_all(body).ok()?;
    serde_json::from_slice(&text)
        .inspect_err(|error| tracing::warn!(%error, "what another node tells cannot be read"))
        .ok()
}

/// Reads what the other nodes told before this one came.
pub(crate) async fn catch_up(registry: &Registry) -> Result<(), LakeError> {
    let Some(relay) = &registry.relay else { return Ok(()) };
    relay.put(0).await?;
    relay.look().await?;
    listen(registry, relay).await;
    Ok(())
}

async fn listen(registry: &Registry, relay: &Relay) {
    let names: Vec<String> = lock(&relay.others).keys().cloned().collect();
    const HEAR: &str = "hear the other nodes";
    let (mut facts, mut failed) = (Vec::new(), None);
    for (name, told) in names.iter().zip(join_all(names.iter().map(|name| relay.read(name))).await) {
        match told {
            Ok(told) => facts.extend(told.into_iter().flat_map(|told| told.facts)),
            Err(error) => failed = Some((name, describe(&error))),
        }
    }
    match failed {
        None => registry.health.done(HEAR),
        Some((name, error)) => registry.health.failed(HEAR, &format!("of {name}: {error}")),
    }
    // A site may have gone from one node to another.
    facts.sort_by_key(|(_, at, _)| *at);
    for (site, at, fact) in facts {
        if let SiteFact::Welcomed(welcomed) = &fact {
            registry.sessions.moved_away(&site, at, &welcomed.instance);
        }
        registry.apply(&site, at, fact);
    }
}

/// Tells and listens until the node stops.
pub(crate) async fn run(registry: &Registry) {
    let Some(relay) = &registry.relay else { return };
    tokio::join!(tell(registry, relay), hear(registry, relay));
}

async fn tell(registry: &Registry, relay: &Relay) {
    let mut timer = rollcall_runtime::every(TELL_EVERY);
    for number in 1.. {
        tokio::select! {
            biased;
            () = registry.stop.cancelled() => break,
            _ = timer.tick() => {}
        }
        registry.health.note("tell the other nodes what it hears", &relay.put(number).await);
    }
}

async fn hear(registry: &Registry, relay: &Relay) {
    let mut timer = rollcall_runtime::every(TELL_EVERY);
    let mut looked = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = registry.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        if looked.elapsed() > LOOK_EVERY {
            looked = Instant::now();
            registry.health.note("look for other nodes", &relay.look().await);
        }
        listen(registry, relay).await;
    }
}
