//! A node that is started, killed and started anew.

use std::sync::{Arc, Mutex};

use rollcall_lake::{RecordKind, VaultKey};
use rollcall_registry::Leader;

use super::{
    super::*,
    world::{NodeStore, World},
};

/// Whose term it is, as the registry writes it.
const LEASE: RecordKind<()> = RecordKind::new("lease");

/// Where a node runs, whichever of its lives.
pub(super) struct Place {
    world: Arc<World>,
    number: usize,
    lives: u32,
    node: Option<Node>,
    terms: Arc<Mutex<Vec<i64>>>,
}

/// One life of a node.
pub(super) struct Node {
    pub(super) parts: Arc<GatewayParts>,
    store: NodeStore,
    life: String,
}

/// Notes in which terms the node acts.
struct Terms {
    world: Arc<World>,
    life: String,
    registry: Arc<Registry>,
    terms: Arc<Mutex<Vec<i64>>>,
}

impl Leader for Terms {
    fn prepare(&self) {}

    fn lead(&self) {
        let term = self.registry.lake.state().view().get(LEASE, "watch").map_or(0, |record| record.version);
        self.world.log(format_args!("{} acts in term {term}", self.life));
        if term > 1 {
            self.world.met("another node acts");
        }
        self.terms.lock().expect("not poisoned").push(term);
    }
}

impl Place {
    pub(super) fn new(world: &Arc<World>, number: usize) -> Self {
        Self { world: world.clone(), number, lives: 0, node: None, terms: Arc::default() }
    }

    pub(super) fn is_down(&self) -> bool {
        self.node.is_none()
    }

    pub(super) fn up(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    pub(super) fn node(&self) -> &Node {
        self.node.as_ref().expect("is up")
    }

    pub(super) fn terms(&self) -> Vec<i64> {
        self.terms.lock().expect("not poisoned").clone()
    }

    /// Starts a node here; a start that the store lets fail is tried again.
    pub(super) async fn start(&mut self) {
        while self.node.is_none() {
            self.lives += 1;
            let life = format!("{}.{}", self.number, self.lives);
            self.world.log(format_args!("{life} starts"));
            match Node::start(&self.world, life.clone(), &self.terms).await {
                Ok(node) => self.node = Some(node),
                Err(error) => self.world.log(format_args!("{life} {}", rollcall_types::describe(&error))),
            }
        }
    }

    /// The node is gone in the middle of what it does.
    pub(super) fn kill(&mut self) {
        let Some(node) = self.node.take() else { return };
        self.world.met("a node is killed");
        node.store.kill();
        node.parts.registry.stop.cancel();
    }

    /// Logs what the watch of this node would be told.
    pub(super) fn log_news(&self) {
        let Some(node) = &self.node else { return };
        for (site, at, heard) in node.parts.registry.for_watch.take() {
            self.world.log(format_args!("{} hears of {site} at {at}: {heard:?}", node.life));
        }
    }
}

impl Node {
    async fn start(world: &Arc<World>, life: String, terms: &Arc<Mutex<Vec<i64>>>) -> Result<Self, HqError> {
        let store = NodeStore::new(world, life.clone());
        let lake = Arc::new(Lake::open(Arc::new(store.clone()), LakeOptions::default()).await?);
        let key = VaultKey::from_bytes(&[7; 32]).expect("a key");
        let parts = parts_of(lake, key, format!("hq-{life}:7400"), 10, Arc::new(Shelf::new())).await?;
        let registry = parts.registry.clone();
        registry.restore_presence(None);
        parts.books.quarantine.look().await?;
        registry.catch_up().await?;
        let leader: Arc<dyn Leader> = Arc::new(Terms {
            world: world.clone(),
            life: life.clone(),
            registry: registry.clone(),
            terms: terms.clone(),
        });
        registry.look_at_lease(leader.as_ref()).await?;
        rollcall_runtime::spawn(registry.clone().run_relay());
        rollcall_runtime::spawn(registry.clone().run_lease(leader));
        rollcall_runtime::spawn(async move {
            while !registry.stop.is_cancelled() {
                tokio::time::sleep(Duration::from_millis(500)).await;
                registry.health.note("read what other nodes wrote", &registry.lake.follow().await);
            }
        });
        Ok(Self { parts, store, life })
    }
}
