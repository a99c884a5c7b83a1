use std::sync::{Arc, Mutex, PoisonError};

use object_store::ObjectStore;

use rollcall_lake::RecordKind;

use super::*;
use crate::testing::{at, node, store};

/// What a leader was told, and whether its node acted then.
struct Led<'a> {
    registry: &'a Registry,
    told: Mutex<Vec<(&'static str, bool)>>,
}

impl<'a> Led<'a> {
    fn new(registry: &'a Registry) -> Self {
        Self { registry, told: Mutex::default() }
    }

    fn note(&self, what: &'static str) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push((what, self.registry.is_acting()));
    }

    fn told(&self) -> Vec<(&'static str, bool)> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Leader for Led<'_> {
    fn prepare(&self) {
        self.note("prepare");
    }

    fn lead(&self) {
        self.note("lead");
    }
}

/// Two nodes that know each other, of which the first acts.
const NOTE: RecordKind<i32> = RecordKind::new("note");

async fn acting_and_other(store: &Arc<dyn ObjectStore>) -> (Registry, Registry) {
    let (acting, other) = (node(store, "one:1").await, node(store, "two:1").await);
    acting.catch_up().await.expect("tells");
    other.catch_up().await.expect("tells, and hears");
    acting.catch_up().await.expect("hears");
    acting.look_at_lease(&Nobody).await.expect("looks");
    other.lake.state().refresh().await.expect("reads");
    (acting, other)
}

/// Writes a note as the node that acts; whether it was.
async fn writes(registry: &Registry, id: &str) -> bool {
    let work = |view: &StateView| Ok(vec![view.next(NOTE, id, &0, at(0), "hq")?]);
    registry.acting(work).await.expect("the store answers")
}

async fn is_written(registry: &Registry, id: &str) -> bool {
    registry.lake.state().refresh().await.expect("reads").get(NOTE, id).is_some()
}

#[tokio::test]
async fn one_of_two_nodes_acts_and_the_other_takes_over_once_it_is_missed() {
    let (acting, other) = acting_and_other(&store()).await;
    let led = Led::new(&other);
    other.look_at_lease(&led).await.expect("looks");
    assert!(acting.is_acting() && !other.is_acting());
    let name = |registry: &Registry| registry.relay().map(|relay| relay.node().to_owned());
    assert_eq!((acting.acting_node(), other.acting_node()), (name(&acting), name(&acting)));
    assert!(writes(&acting, "first").await && is_written(&other, "first").await);
    assert!(!writes(&other, "second").await && !is_written(&acting, "second").await);
    other.relay().expect("shared").miss_the_others();
    other.look_at_lease(&led).await.expect("looks");
    other.look_at_lease(&led).await.expect("looks");
    assert_eq!(led.told(), [("prepare", false), ("lead", true)], "once");
    assert_eq!(other.acting_node(), name(&other));
}

#[tokio::test]
async fn a_node_that_slept_through_the_end_of_its_term_writes_nothing_and_gives_way() {
    let (acting, other) = acting_and_other(&store()).await;
    other.relay().expect("shared").miss_the_others();
    other.look_at_lease(&Nobody).await.expect("looks");
    assert!(acting.is_acting() && other.is_acting(), "it does not know yet");
    assert!(!writes(&acting, "of the past").await);
    assert!(writes(&other, "of now").await);
    assert!(!is_written(&other, "of the past").await && is_written(&acting, "of now").await);
    acting.health.broken("compact tables/sales", "a file is damaged");
    acting.look_at_lease(&Nobody).await.expect("looks");
    assert!(!acting.is_acting() && other.is_acting());
    assert!(!acting.health.is_failing("compact"), "what it could not do is another's to do");
}

#[tokio::test]
async fn a_node_that_stops_is_followed_without_waiting() {
    let (acting, other) = acting_and_other(&store()).await;
    acting.give_up_lease().await;
    assert!(!acting.is_acting() && !writes(&acting, "after").await);
    other.lake.state().refresh().await.expect("reads");
    assert_eq!(other.acting_node(), None);
    other.look_at_lease(&Nobody).await.expect("looks");
    assert!(other.is_acting() && writes(&other, "at once").await);
    // The other sleeps, the first is back and acts: then there is nothing to give up.
    acting.relay().expect("shared").miss_the_others();
    acting.lake.state().refresh().await.expect("reads");
    acting.look_at_lease(&Nobody).await.expect("looks");
    other.give_up_lease().await;
    acting.lake.state().refresh().await.expect("reads");
    acting.look_at_lease(&Nobody).await.expect("looks");
    assert!(acting.is_acting() && writes(&acting, "again").await);
}

#[tokio::test]
async fn a_node_that_cannot_tell_the_others_that_it_lives_leaves_the_lease_to_them() {
    let store = store();
    let (acting, other) = acting_and_other(&store).await;
    acting.relay().expect("shared").fall_silent();
    acting.look_at_lease(&Nobody).await.expect("looks");
    assert!(!acting.is_acting());
    assert!(!writes(&acting, "unheard").await && !is_written(&other, "unheard").await);
    let alone = node(&store, "three:1").await;
    let led = Led::new(&alone);
    alone.relay().expect("shared").fall_silent();
    alone.look_at_lease(&led).await.expect("looks");
    assert!(!alone.is_acting() && led.told().is_empty(), "nor does it take it");
}
