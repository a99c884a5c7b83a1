//! Which node acts: it stores incidents, tells people and keeps the tables tidy. All nodes watch;
//! one acts.
//!
//! The lease is a record of the state log whose version is the *term*. A node takes it by writing
//! the next version, which only one can. Whoever acts writes to the state log under its term
//! ([`Registry::acting`]): a node that slept finds a higher term there, and nothing it decided
//! takes effect. Where one process has a directory to itself, it acts, without a lease.

#[cfg(test)]
mod tests;

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use rollcall_lake::{LakeError, Record, RecordKind, StateView};
use rollcall_types::describe;
use serde::{Deserialize, Serialize};

use crate::{error::HqError, registry::Registry};

const LEASE: RecordKind<Holder> = RecordKind::new("lease");
const WATCH: &str = "watch";
/// How often the lease is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whose term it is.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    node: String,
}

/// The term in which this node acts; 0 if it does not.
#[derive(Debug, Default)]
pub(crate) struct Lease(AtomicI64);

/// Who is told when this node begins to act.
pub trait Leader: Send + Sync {
    /// The node is about to act: takes up what the one before stored.
    fn prepare(&self);
    /// The node acts: does what the one before did not come to.
    fn lead(&self);
}

/// A node of which nothing hangs on whether it acts, as in a test.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nobody;

#[cfg(test)]
impl Leader for Nobody {
    fn prepare(&self) {}
    fn lead(&self) {}
}

fn holder(view: &StateView) -> Option<(i64, String)> {
    let record = view.get(LEASE, WATCH)?;
    Some((record.version, record.parse::<Holder>().ok()?.node))
}

impl Registry {
    /// Whether this node acts, as far as it knows: what it does must go through [`Self::acting`].
    pub fn is_acting(&self) -> bool {
        self.relay.is_none() || self.lease.0.load(Ordering::Acquire) > 0
    }

    /// Writes to the state log if this node acts still; false if another took over, and then
    /// nothing is written.
    pub async fn acting(
        &self,
        mut work: impl FnMut(&StateView) -> Result<Vec<Record>, LakeError>,
    ) -> Result<bool, LakeError> {
        let term = self.lease.0.load(Ordering::Acquire);
        let update = |view: &StateView| {
            if self.relay.is_some() && (term == 0 || holder(view).is_none_or(|(newest, _)| newest != term)) {
                return Ok((Vec::new(), false));
            }
            Ok::<_, LakeError>((work(view)?, true))
        };
        self.lake.state().update(update).await
    }

    /// The node that acts; none if nobody does, or this is the only one there can be.
    pub fn acting_node(&self) -> Option<String> {
        let relay = self.relay.as_ref()?;
        holder(&self.lake.state().view()).map(|(_, node)| node).filter(|node| relay.is_alive(node))
    }
}

/// Takes the lease when its holder is gone, and gives it up when another has it, until the node
/// stops.
pub(crate) async fn run(registry: &Registry, leader: &dyn Leader) {
    if registry.relay.is_none() {
        return;
    }
    let mut timer = rollcall_runtime::every(LOOK_EVERY);
    loop {
        tokio::select! {
            biased;
            () = registry.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        registry.health.note("tell whether this node acts", &look(registry, leader).await);
    }
}

/// Looks once whether this node acts.
pub(crate) async fn look(registry: &Registry, leader: &dyn Leader) -> Result<(), HqError> {
    let Some(relay) = &registry.relay else { return Ok(()) };
    let known = holder(&registry.lake.state().view());
    let acts = registry.lease.0.load(Ordering::Acquire);
    let term = match known {
        // A node that cannot tell the others that it lives leaves it to them.
        Some((term, node)) if node == relay.node() => relay.is_alive(&node).then_some(term),
        Some((_, node)) if relay.is_alive(&node) => None,
        gone if relay.is_alive(relay.node()) => {
            take_over(registry, relay.node(), gone.map_or(0, |(term, _)| term)).await?
        }
        _ => None,
    };
    match term {
        Some(term) if term != acts => {
            // What the one before stored, and what it did not come to.
            let newest = registry.lake.state().refresh().await?;
            if holder(&newest).is_none_or(|(newest, _)| newest != term) {
                // This node slept, and another took over meanwhile.
                return Ok(());
            }
            leader.prepare();
            registry.lease.0.store(term, Ordering::Release);
            tracing::info!(term, node = relay.node(), "this node acts: it keeps the watch");
            leader.lead();
        }
        None if acts > 0 => {
            registry.lease.0.store(0, Ordering::Release);
            registry.health.forget_all();
            tracing::warn!(term = acts, "another node keeps the watch now");
        }
        _ => {}
    }
    Ok(())
}

/// The next term, if nobody took it since `seen`.
async fn take_over(registry: &Registry, node: &str, seen: i64) -> Result<Option<i64>, HqError> {
    let now = registry.now();
    let update = |view: &StateView| {
        if holder(view).map_or(0, |(term, _)| term) != seen {
            return Ok((Vec::new(), None));
        }
        let record = view.next(LEASE, WATCH, &Holder { node: node.to_owned() }, now, "hq")?;
        let term = record.version;
        Ok::<_, LakeError>((vec![record], Some(term)))
    };
    Ok(registry.lake.state().update(update).await?)
}

/// Gives the lease up at once when the node stops, so that nobody needs to wait.
pub(crate) async fn give_up(registry: &Registry) {
    let acts = registry.lease.0.swap(0, Ordering::AcqRel);
    if acts == 0 {
        return;
    }
    let now = registry.now();
    let update = |view: &StateView| {
        let is_ours = holder(view).is_some_and(|(term, _)| term == acts);
        let nobody = Holder { node: String::new() };
        let records = if is_ours { vec![view.next(LEASE, WATCH, &nobody, now, "hq")?] } else { Vec::new() };
        Ok::<_, LakeError>((records, ()))
    };
    if let Err(error) = registry.lake.state().update(update).await {
        tracing::warn!(error = %describe(&error), "the watch could not be handed over; another node takes it when this one is missed");
    }
}
