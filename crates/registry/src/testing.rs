//! What the tests of this crate share.

use std::{sync::Arc, time::Duration};

use object_store::{ObjectStore, memory::InMemory};
use rollcall_lake::{BootClock, Lake, LakeOptions};
use rollcall_types::{SiteId, TableName, Timestamp};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{HqClock, Registry, RegistryParts};

pub(crate) fn site(id: &str) -> SiteId {
    SiteId::new(id).expect("valid")
}

pub(crate) fn table(name: &str) -> TableName {
    TableName::new(name).expect("valid")
}

/// So many seconds after the beginning of an hour in 2027.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_800_000_000 + seconds)
}

/// A store that several nodes can share.
pub(crate) fn store() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

pub(crate) async fn lake(store: &Arc<dyn ObjectStore>) -> Arc<Lake> {
    Arc::new(Lake::open(store.clone(), LakeOptions::default()).await.expect("opens"))
}

/// A node without a network; sites reach it at `address`.
pub(crate) async fn node(store: &Arc<dyn ObjectStore>, address: &str) -> Registry {
    Registry::new(RegistryParts {
        lake: lake(store).await,
        clock: HqClock::new(BootClock::default(), None),
        health: Arc::default(),
        address: address.to_owned(),
        behind_after: Duration::from_secs(120),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    })
}
