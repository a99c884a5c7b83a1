//! The words of the watch: how it works, what it is told of a site, what it knows and says of one.

use std::collections::BTreeMap;

use rollcall_types::{Cause, SiteId, SiteState, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    calendar::Calendar,
    incident::{Condition, Ladder, Notice},
    stream::{CalendarId, StreamId, Thresholds},
};

/// The name of the contact stream.
pub const CONTACT: &str = "contact";

/// How a watch works.
#[derive(Debug, Clone)]
pub struct WatchConfig {
    /// When silence counts as what.
    pub thresholds: Thresholds,
    /// When incidents get louder.
    pub ladder: Ladder,
    /// Contacts expected an hour of a site nothing is known of: one a minute, if beacons come more often than that.
    pub contacts_per_hour: f32,
    /// Seconds of a contact "minute"; see [`Clock::new`].
    pub contact_unit: i64,
    /// Attributes by which silences are grouped.
    pub group_by: Vec<String>,
    /// Attributes that make sites alike, so that they teach each other.
    pub alike_by: Vec<String>,
    /// Whether to learn rhythms.
    pub learns: bool,
    /// Whether to set the thresholds anew each week, by the alarm budget.
    pub tunes: bool,
}

impl Default for WatchConfig {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            thresholds: Thresholds::default(),
            ladder: Ladder::default(),
            contacts_per_hour: 60.0,
            contact_unit: 60,
            group_by: names(&[
                "isp", "block", "region", "state", "city", "brand", "agent", "pos", "endpoint", "dns", "power",
            ]),
            alike_by: names(&["format", "country", "brand"]),
            learns: true,
            tunes: false,
        }
    }
}

/// A site as the roster has it.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteSpec {
    /// Which.
    pub id: SiteId,
    /// When it is expected.
    pub calendar: Calendar,
    /// What it shares with others.
    pub attributes: BTreeMap<String, String>,
    /// It is expected to be heard from then on: its go-live date, or when it was put on the roster.
    pub expected_from: Timestamp,
    /// Whether it ever used an invitation.
    pub enrolled: bool,
}

/// What the watch knows of one site.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) id: SiteId,
    pub(crate) calendar: CalendarId,
    /// Its streams, contact first if there is any.
    pub(crate) streams: Vec<StreamId>,
    pub(crate) traits: Box<[u32]>,
    /// What HQ saw of it itself, where the roster says nothing of the kind.
    pub(crate) observed: Box<[u32]>,
    pub(crate) expected_from: i64,
    pub(crate) enrolled: bool,
    pub(crate) retired: bool,
    /// It said goodbye, and is excused until then.
    pub(crate) excused_until: i64,
    pub(crate) said_goodbye: bool,
    /// Since when it is back, while it recovers.
    pub(crate) back_since: Option<i64>,
    pub(crate) has_backlog: bool,
    /// When a manifest of its rows was last found to agree; none if it states none.
    pub(crate) reconciled_at: Option<i64>,
    /// The days (of Unix time) of the last two weeks on which it fell silent, each as often as it did.
    pub(crate) silences: Vec<i64>,
    /// Up to when its silences were counted for tuning.
    pub(crate) tuned_to: i64,
    pub(crate) incident: Option<u64>,
    pub(crate) conditions: BTreeMap<Condition, u64>,
}

impl Site {
    /// Everything it may share with others.
    pub(crate) fn shares(&self) -> impl Iterator<Item = u32> {
        self.traits.iter().chain(&self.observed).copied()
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) site: u32,
    pub(crate) name: u16,
}

/// Something people are to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// About which incident.
    pub incident: u64,
    /// Why now.
    pub notice: Notice,
    /// At which level.
    pub level: u8,
}

/// What the watch says of one site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Its state.
    pub state: SiteState,
    /// Since when: the last good moment, not the moment of noticing.
    pub since: Option<Timestamp>,
    /// Why.
    pub cause: Option<Cause>,
    /// When it was heard last.
    pub last_heard: Option<Timestamp>,
    /// How long it has been learned from, days; none once its rhythm is settled.
    pub learning_day: Option<i64>,
}
