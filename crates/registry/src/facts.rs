//! What a node learns from a site's connection, in a form that every other node can take as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rollcall_types::{Cause, Epoch, Seq, TableName, Timestamp};
use serde::{Deserialize, Serialize};

use rollcall_roll::Condition;

use crate::peer::CaId;

/// Something learned of a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SiteFact {
    /// What the watch is to know.
    Heard(Heard),
    /// A session began.
    Welcomed(Welcomed),
    /// What the site says of its own journal, capture and clock.
    Beacon {
        /// The newest position of its journal.
        head: Seq,
        /// The age of its oldest change that HQ has not confirmed; 0 if all are.
        unconfirmed_age: Duration,
        /// What is wrong with its capture, in words; none if nothing is.
        capture_problem: Option<String>,
        /// HQ's clock less the site's.
        clock_off_micros: i64,
        /// What it has of HQ's tables.
        #[serde(default)]
        applied: BTreeMap<TableName, Applied>,
    },
    /// Its answer to HQ's time.
    Heads {
        /// The time of HQ's that it answers.
        time: Timestamp,
        /// The life of the journal that the heads are of.
        epoch: Epoch,
        /// By table, its newest position then; `u64::MAX` where that says nothing.
        heads: Vec<(TableName, Seq)>,
    },
    /// It goes, and says so.
    Goodbye {
        /// How far its journal is, as it says; 0 if it cannot read it.
        head: Seq,
        /// Why it goes, in its own words.
        reason: String,
    },
    /// Every change up to here is durable.
    Confirmed {
        /// The position in its journal.
        through: Seq,
    },
    /// Not all of a batch could be taken.
    Quarantined(Kept),
    /// It was turned away.
    Refused {
        /// Why, in a word.
        cause: Cause,
        /// The same for people.
        detail: String,
        /// HQ's lake lacks what it confirmed to it.
        #[serde(default)]
        is_lake_older: bool,
    },
    /// It found itself at odds with HQ in this epoch: its next hello gets another.
    EpochWanted {
        /// The life of its journal then; 0 if an older node told of it.
        #[serde(default)]
        epoch: Epoch,
        /// What is at odds, in its own words.
        reason: String,
    },
}

/// Where a site's journal and HQ's confirmation stood when a session began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcomed {
    /// HQ allotted it another epoch than the one it came with.
    pub is_new_epoch: bool,
    /// The newest position of its journal.
    pub head: Seq,
    /// How far it is confirmed; in a new epoch, to just before the oldest change it holds.
    pub confirmed: Seq,
    /// Which run of the agent it is.
    pub instance: String,
    /// Who signed the certificate that it came with.
    #[serde(default)]
    pub authority: CaId,
    /// Its agent and its address, for people.
    pub detail: String,
    /// The version of its agent, cut short if it is long; empty if an older node told of it.
    #[serde(default)]
    pub agent_version: String,
    /// It journals manifests: not hearing one means something.
    pub states_manifests: bool,
    /// Its agent takes the tables that HQ publishes.
    #[serde(default)]
    pub takes_published: bool,
    /// HQ's clock less the site's.
    #[serde(default)]
    pub clock_off_micros: i64,
    /// It cannot read its journal: positions are the last ones known.
    #[serde(default)]
    pub is_blind: bool,
    /// What it has of HQ's tables.
    #[serde(default)]
    pub applied: BTreeMap<TableName, Applied>,
}

impl SiteFact {
    /// By how much the site's clock is off, if the fact says so: HQ's less the site's.
    pub fn clock_off_micros(&self) -> Option<i64> {
        match self {
            Self::Beacon { clock_off_micros, .. } => Some(*clock_off_micros),
            Self::Welcomed(welcomed) => Some(welcomed.clock_off_micros),
            _ => None,
        }
    }
}

/// Something heard of a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Heard {
    /// Anything at all.
    Contact,
    /// Rows of a table became durable.
    Rows {
        /// The table, as the store calls it.
        table: String,
        /// How many.
        count: usize,
    },
    /// It goes, and says so.
    Goodbye,
    /// Changes wait at the site, the oldest for so long.
    Backlog {
        /// How many positions are not confirmed.
        rows: u64,
        /// How old the oldest is; 0 if none waits.
        age: Duration,
    },
    /// A session began: what it showed of the site that others may share, and whether the site
    /// states manifests.
    Welcomed {
        /// What it showed, by name: `agent`, `endpoint`, `dns`, and `block`, its network.
        seen: BTreeMap<String, String>,
        /// It journals manifests.
        states_manifests: bool,
    },
    /// A manifest received then was counted, and every row is here.
    Reconciled {
        /// When HQ received the manifest.
        received_at: Timestamp,
    },
    /// Something about it is wrong, or well again.
    Condition(Condition, Option<String>),
    /// It is well again, and why.
    Mended(Condition, String),
    /// What is known afterwards of a silence.
    Afterwards {
        /// The cause by its log of attempts; none if that is silence itself, or not known.
        cause: Option<Cause>,
        /// The same for people.
        text: String,
    },
}

/// What a site says it has of a published table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Applied {
    /// 0: nothing yet.
    pub version: Seq,
    /// See the `audience` of `Wanted` in the protocol.
    pub audience: u64,
    /// Why it has no newer one, if it cannot take it.
    pub problem: Option<String>,
    /// Rows found changed there, ever; put right, or left as HQ asks.
    pub edits: u64,
    /// When HQ published what it has, microseconds since 1970; 0 if that is not known.
    #[serde(default)]
    pub published_at: i64,
    /// Rows of the store's own that name rows of the table which are not there.
    #[serde(default)]
    pub dangling: u64,
    /// Rows that are not as HQ has them now.
    #[serde(default)]
    pub differing: u64,
}

impl Applied {
    /// Whether the site has something of the table, and not only says why it has not.
    pub fn has_any(&self) -> bool {
        self.version > Seq(0) || self.audience != 0
    }
}

/// A batch in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The life of the site's journal that it is of.
    pub epoch: Epoch,
    /// Its first position.
    pub first: Seq,
    /// Its last position.
    pub last: Seq,
    /// When HQ received it.
    pub at: Timestamp,
    /// What could not be taken, and why.
    pub reason: String,
    /// The tables of which rows could not be taken; none if that cannot be told, so that it may be
    /// any.
    pub tables: Option<BTreeSet<String>>,
    /// Bytes in the lake.
    pub bytes: u64,
    /// The data file it is in; empty until this node read it there.
    #[serde(skip)]
    pub file: String,
}

impl Kept {
    /// Whether rows of this table may be in it.
    pub fn concerns(&self, table: &str) -> bool {
        self.tables.as_ref().is_none_or(|tables| tables.contains(table))
    }
}
