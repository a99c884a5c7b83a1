//! The part that every other one is given.

use std::{sync::Arc, time::Duration};

use rollcall_lake::{Lake, LakeError};
use rollcall_roll::Verdict;
use rollcall_types::{SiteId, Timestamp};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    error::HqError,
    facts::{Heard, Kept, SiteFact},
    health::Health,
    hq_clock::HqClock,
    inbox::Inbox,
    lease::{Leader, Lease},
    ledger::{Ledger, RollEntry},
    relay::Relay,
    roster::Roster,
    sessions::Sessions,
};

/// Who exists, where each stands, and who acts.
#[derive(Debug)]
pub struct Registry {
    /// The only durable thing.
    pub lake: Arc<Lake>,
    /// HQ's time: the only clock that judges.
    pub clock: HqClock,
    /// What HQ itself must do.
    pub health: Arc<Health>,
    /// The sites that should be heard from.
    pub roster: Roster,
    /// What was heard of each.
    pub ledger: Ledger,
    /// Which connection speaks for each.
    pub sessions: Sessions,
    /// What the watch has to look at.
    pub for_watch: Inbox<Heard>,
    /// Batches that went to quarantine, here or at another node.
    pub for_quarantine: Inbox<Kept>,
    /// Everything that runs beside the caller, so that a stop can wait for it.
    pub tasks: TaskTracker,
    /// The node is to stop.
    pub stop: CancellationToken,
    pub(crate) relay: Option<Relay>,
    pub(crate) lease: Lease,
    behind_after: Duration,
}

/// What a registry is made from.
#[derive(Debug)]
pub struct RegistryParts {
    /// The lake that this node works on.
    pub lake: Arc<Lake>,
    /// HQ's time.
    pub clock: HqClock,
    /// Where the node's work is noted.
    pub health: Arc<Health>,
    /// Where sites reach this node; empty if that cannot be told.
    pub address: String,
    /// Complete through less than this long ago counts as current.
    pub behind_after: Duration,
    /// Everything that runs beside the caller.
    pub tasks: TaskTracker,
    /// The node is to stop.
    pub stop: CancellationToken,
}

impl Registry {
    /// Takes up the roster that is in the lake. Where several nodes can share the lake, this one
    /// tells the others what it hears once [`Self::run_relay`] runs.
    pub fn new(parts: RegistryParts) -> Self {
        let RegistryParts { lake, clock, health, address, behind_after, tasks, stop } = parts;
        let relay = lake.is_shared().then(|| Relay::new(lake.store().clone(), address));
        Self {
            roster: Roster::new(lake.clone()),
            lake,
            clock,
            health,
            ledger: Ledger::default(),
            sessions: Sessions::default(),
            for_watch: Inbox::default(),
            for_quarantine: Inbox::default(),
            tasks,
            stop,
            relay,
            lease: Lease::default(),
            behind_after,
        }
    }

    /// HQ's time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// To and from the other nodes; none where there can be no others.
    pub fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// Complete through less than this long ago counts as current.
    pub fn behind_after(&self) -> Duration {
        self.behind_after
    }

    /// A connection of this node said something; every node is to know.
    pub fn record(&self, site: &SiteId, fact: SiteFact) {
        let now = self.now();
        if let Some(relay) = &self.relay {
            relay.tell(site, now, &fact);
        }
        self.apply(site, now, fact);
    }

    /// [`Self::record`] for what concerns the watch.
    pub fn record_heard(&self, site: &SiteId, what: Heard) {
        self.record(site, SiteFact::Heard(what));
    }

    /// This node worked something out from the lake, as every other does for itself.
    pub fn record_derived(&self, site: &SiteId, what: Heard) {
        self.apply(site, self.now(), SiteFact::Heard(what));
    }

    /// Takes what was said at `at`, here or at another node.
    pub(crate) fn apply(&self, site: &SiteId, at: Timestamp, fact: SiteFact) {
        match &fact {
            SiteFact::Quarantined(kept) => self.for_quarantine.push(site, at, kept.clone()),
            SiteFact::EpochWanted { epoch, reason } => self.sessions.want_epoch(site, *epoch, reason.clone()),
            SiteFact::Welcomed(welcomed) if welcomed.is_new_epoch => self.sessions.forget_wanted_epoch(site),
            _ => {}
        }
        match fact {
            SiteFact::Heard(what) => {
                if what == Heard::Contact {
                    self.ledger.heard(site, at);
                }
                self.for_watch.push(site, at, what);
            }
            fact => {
                if let Some(off) = fact.clock_off_micros() {
                    self.ledger.note_clock(site, at, off, self.clock.site_is_off(off).is_some());
                }
                self.ledger.apply(site, at, fact);
            }
        }
    }

    /// Calls the roll: what `verdict` says of each site, and whether its data keeps up.
    pub fn roll(&self, verdict: impl Fn(&SiteId) -> Option<Verdict>) -> Vec<RollEntry> {
        self.ledger.roll(&self.roster.all(), verdict, self.behind_after, self.now())
    }

    /// Reads what the other nodes told before this one came.
    pub async fn catch_up(&self) -> Result<(), LakeError> {
        crate::relay::catch_up(self).await
    }

    /// Tells the other nodes and listens to them until the node stops.
    pub async fn run_relay(self: Arc<Self>) {
        crate::relay::run(&self).await;
    }

    /// Looks once whether this node acts. `leader` is told if it begins to.
    pub async fn look_at_lease(&self, leader: &dyn Leader) -> Result<(), HqError> {
        crate::lease::look(self, leader).await
    }

    /// Takes the lease when its holder is gone, and gives it up when another has it, until the node
    /// stops.
    pub async fn run_lease(self: Arc<Self>, leader: Arc<dyn Leader>) {
        crate::lease::run(&self, leader.as_ref()).await;
    }

    /// Gives the lease up at once when the node stops, so that nobody needs to wait.
    pub async fn give_up_lease(&self) {
        crate::lease::give_up(self).await;
    }
}
