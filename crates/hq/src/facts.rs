//! What a node learns from a site's connection, in a form that every other node can take as well.

use std::{collections::BTreeMap, time::Duration};

use rollcall_types::{Cause, Epoch, Seq, SiteId, TableName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{authority::CaId, node::Shared, published::arrivals::Applied, quarantine::Kept, watching::Heard};

/// Something learned of a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Fact {
    /// What the watch is to know.
    Heard(Heard),
    /// A session began.
    Welcomed(Welcomed),
    /// What the site says of its own journal, capture and clock.
    Beacon {
        head: Seq,
        unconfirmed_age: Duration,
        capture_problem: Option<String>,
        /// HQ's clock less the site's.
        clock_off_micros: i64,
        /// What it has of HQ's tables.
        #[serde(default)]
        applied: BTreeMap<TableName, Applied>,
    },
    /// Its answer to HQ's time.
    Heads { time: Timestamp, epoch: Epoch, heads: Vec<(TableName, Seq)> },
    /// It goes, and says so.
    Goodbye { head: Seq, reason: String },
    /// Every change up to here is durable.
    Confirmed { through: Seq },
    /// Not all of a batch could be taken.
    Quarantined(Kept),
    /// It was turned away.
    Refused {
        cause: Cause,
        detail: String,
        /// HQ's lake lacks what it confirmed to it.
        #[serde(default)]
        is_lake_older: bool,
    },
    /// It found itself at odds with HQ in this epoch: its next hello gets another.
    EpochWanted {
        #[serde(default)]
        epoch: Epoch,
        reason: String,
    },
}

/// Where a site's journal and HQ's confirmation stood when a session began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Welcomed {
    pub(crate) is_new_epoch: bool,
    pub(crate) head: Seq,
    pub(crate) confirmed: Seq,
    /// Which run of the agent it is.
    pub(crate) instance: String,
    /// Who signed the certificate that it came with.
    #[serde(default)]
    pub(crate) authority: CaId,
    pub(crate) detail: String,
    #[serde(default)]
    pub(crate) agent_version: String,
    pub(crate) states_manifests: bool,
    #[serde(default)]
    pub(crate) takes_published: bool,
    /// HQ's clock less the site's.
    #[serde(default)]
    pub(crate) clock_off_micros: i64,
    /// It cannot read its journal: positions are the last ones known.
    #[serde(default)]
    pub(crate) is_blind: bool,
    #[serde(default)]
    pub(crate) applied: BTreeMap<TableName, Applied>,
}

impl Shared {
    /// A connection of this node told something; every node is to know.
    pub(crate) fn learned(&self, site: &SiteId, fact: Fact) {
        let now = self.now();
        if let Some(relay) = &self.relay {
            relay.tell(site, now, &fact);
        }
        self.take(site, now, fact);
    }

    /// [`Self::learned`] for what concerns the watch.
    pub(crate) fn heard(&self, site: &SiteId, what: Heard) {
        self.learned(site, Fact::Heard(what));
    }

    /// This node worked something out from the lake, as every other does for itself.
    pub(crate) fn found(&self, site: &SiteId, what: Heard) {
        self.take(site, self.now(), Fact::Heard(what));
    }

    /// Takes what was learned at `at`, here or at another node.
    pub(crate) fn take(&self, site: &SiteId, at: Timestamp, fact: Fact) {
        match &fact {
            Fact::Quarantined(kept) => self.quarantine.note(site, kept.clone()),
            Fact::EpochWanted { epoch, reason } => self.sessions.want_epoch(site, *epoch, reason.clone()),
            Fact::Welcomed(welcomed) if welcomed.is_new_epoch => self.sessions.forget_wanted_epoch(site),
            _ => {}
        }
        match fact {
            Fact::Heard(what) => {
                if what == Heard::Contact {
                    self.ledger.heard(site, at);
                }
                self.watching.heard(site, at, what);
            }
            fact => self.ledger.take(site, at, fact),
        }
    }
}
