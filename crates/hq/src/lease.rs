//! Which node acts: it stores incidents, tells people and keeps the tables tidy. All nodes watch;
//! one acts.
//!
//! The lease is a record of the state log whose version is the *term*. A node takes it by writing
//! the next version, which only one can. Whoever acts writes to the state log under its term
//! ([`Shared::acting`]): a node that slept finds a higher term there, and nothing it decided takes
//! effect. Where one process has a directory to itself, it acts, without a lease.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use rollcall_lake::{LakeError, Record, StateView};
use rollcall_types::describe;
use serde::{Deserialize, Serialize};

use crate::{error::HqError, node::Shared, notify, watching};

const LEASE: &str = "lease";
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

fn holder(view: &StateView) -> Option<(i64, String)> {
    let record = view.get(LEASE, WATCH)?;
    Some((record.version, record.parse::<Holder>().ok()?.node))
}

impl Shared {
    /// Whether this node acts, as far as it knows: what it does must go through [`Self::acting`].
    pub(crate) fn is_acting(&self) -> bool {
        self.relay.is_none() || self.lease.0.load(Ordering::Acquire) > 0
    }

    /// Writes to the state log if this node acts still; false if another took over, and then
    /// nothing is written.
    pub(crate) async fn acting(
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
    pub(crate) fn acting_node(&self) -> Option<String> {
        let relay = self.relay.as_ref()?;
        holder(&self.lake.state().view()).map(|(_, node)| node).filter(|node| relay.is_alive(node))
    }
}

/// Takes the lease when its holder is gone, and gives it up when another has it, until the node
/// stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    if shared.relay.is_none() {
        return;
    }
    let mut timer = tokio::time::interval(LOOK_EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        shared.health.note("tell whether this node acts", &look(&shared).await);
    }
}

/// Looks once whether this node acts.
pub(crate) async fn look(shared: &Arc<Shared>) -> Result<(), HqError> {
    let Some(relay) = &shared.relay else { return Ok(()) };
    let known = holder(&shared.lake.state().view());
    let acts = shared.lease.0.load(Ordering::Acquire);
    let term = match known {
        // A node that cannot tell the others that it lives leaves it to them.
        Some((term, node)) if node == relay.node() => relay.is_alive(&node).then_some(term),
        Some((_, node)) if relay.is_alive(&node) => None,
        gone if relay.is_alive(relay.node()) => {
            take_over(shared, relay.node(), gone.map_or(0, |(term, _)| term)).await?
        }
        _ => None,
    };
    match term {
        Some(term) if term != acts => {
            // What the one before stored, and what it did not come to.
            let newest = shared.lake.state().refresh().await?;
            if holder(&newest).is_none_or(|(newest, _)| newest != term) {
                // This node slept, and another took over meanwhile.
                return Ok(());
            }
            watching::lead(shared);
            shared.lease.0.store(term, Ordering::Release);
            tracing::info!(term, node = relay.node(), "this node acts: it keeps the watch");
            notify::tell_what_was_not_told(shared);
        }
        None if acts > 0 => {
            shared.lease.0.store(0, Ordering::Release);
            shared.health.forget_all();
            tracing::warn!(term = acts, "another node keeps the watch now");
        }
        _ => {}
    }
    Ok(())
}

/// The next term, if nobody took it since `seen`.
async fn take_over(shared: &Shared, node: &str, seen: i64) -> Result<Option<i64>, HqError> {
    let now = shared.now();
    let update = |view: &StateView| {
        if holder(view).map_or(0, |(term, _)| term) != seen {
            return Ok((Vec::new(), None));
        }
        let record = view.next(LEASE, WATCH, &Holder { node: node.to_owned() }, now, "hq")?;
        let term = record.version;
        Ok::<_, LakeError>((vec![record], Some(term)))
    };
    Ok(shared.lake.state().update(update).await?)
}

/// Gives the lease up at once when the node stops, so that nobody needs to wait.
pub(crate) async fn give_up(shared: &Shared) {
    let acts = shared.lease.0.swap(0, Ordering::AcqRel);
    if acts == 0 {
        return;
    }
    let now = shared.now();
    let update = |view: &StateView| {
        let is_ours = holder(view).is_some_and(|(term, _)| term == acts);
        let nobody = Holder { node: String::new() };
        let records = if is_ours { vec![view.next(LEASE, WATCH, &nobody, now, "hq")?] } else { Vec::new() };
        Ok::<_, LakeError>((records, ()))
    };
    if let Err(error) = shared.lake.state().update(update).await {
        tracing::warn!(error = %describe(&error), "the watch could not be handed over; another node takes it when this one is missed");
    }
}
