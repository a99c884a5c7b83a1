//! The words of the watch: how it works, what it is told of a site, what it knows and says of one.

use std::collections::BTreeMap;

use rollcall_types::{Cause, SiteId, SiteState, Timestamp};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

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
    /// Contacts expected an hour of a site nothing is known of: one a minute, if beacons come more
    /// often than that.
    pub contacts_per_hour: f32,
    /// Seconds of a contact "minute"; see `Clock::new`.
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

/// What the watch knows of one site, in 112 bytes: there may be a million.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) id: SiteId,
    pub(crate) calendar: CalendarId,
    /// Its streams, contact first if there is any.
    pub(crate) streams: Streams,
    /// What it may share with others: first what the roster says …
    traits: Box<[u32]>,
    /// … as many as these; then what HQ saw of it itself, where the roster says nothing of the
    /// kind.
    said: u16,
    pub(crate) expected_from: i64,
    pub(crate) enrolled: bool,
    pub(crate) retired: bool,
    /// It said goodbye, and is excused until then.
    pub(crate) excused_until: i64,
    pub(crate) said_goodbye: bool,
    pub(crate) has_backlog: bool,
    /// When a manifest of its rows was last found to agree; none if it states none.
    pub(crate) reconciled_at: Option<i64>,
    trouble: Option<Box<Trouble>>,
}

/// The streams of a site; up to four of them need no memory of their own.
pub(crate) type Streams = SmallVec<[StreamId; 4]>;

/// What the watch knows of a site that is silent, was lately, or has something else wrong with it:
/// of few at a time.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) incident: Option<u64>,
    pub(crate) conditions: BTreeMap<Condition, u64>,
    /// Since when it is back, while it recovers.
    pub(crate) back_since: Option<i64>,
    /// The days (of Unix time) of the last two weeks on which it fell silent, each as often as it
    /// did.
    pub(crate) silences: Vec<i64>,
    /// Up to when its silences were counted for tuning.
    pub(crate) tuned_to: i64,
}

impl Trouble {
    const NONE: Self =
        Self { incident: None, conditions: BTreeMap::new(), back_since: None, silences: Vec::new(), tuned_to: 0 };
}

impl Site {
    /// A site of which nothing was heard yet.
    pub(crate) fn new(id: SiteId, calendar: CalendarId, expected_from: i64, enrolled: bool) -> Self {
        Self {
            id,
            calendar,
            streams: Streams::new(),
            traits: Box::default(),
            said: 0,
            expected_from,
            enrolled,
            retired: false,
            excused_until: 0,
            said_goodbye: false,
            has_backlog: false,
            reconciled_at: None,
            trouble: None,
        }
    }

    /// Everything it may share with others, by number.
    pub(crate) fn shares(&self) -> &[u32] {
        &self.traits
    }

    /// What of that the roster says. The last is the kind of site.
    pub(crate) fn said(&self) -> &[u32] {
        &self.traits[..usize::from(self.said)]
    }

    /// What of that HQ saw itself.
    pub(crate) fn observed(&self) -> &[u32] {
        &self.traits[usize::from(self.said)..]
    }

    pub(crate) fn set_shares(&mut self, said: &[u32], observed: &[u32]) {
        self.said = said.len() as u16;
        self.traits = [said, observed].concat().into();
    }

    /// What is wrong with it, or was.
    pub(crate) fn trouble(&self) -> &Trouble {
        static NONE: Trouble = Trouble::NONE;
        self.trouble.as_deref().unwrap_or(&NONE)
    }

    pub(crate) fn trouble_mut(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_with(|| Box::new(Trouble::NONE))
    }

    /// The incident of its silence, which it has no more.
    pub(crate) fn take_incident(&mut self) -> Option<u64> {
        self.trouble.as_mut()?.incident.take()
    }

    /// Since when it was back; it recovers no more.
    pub(crate) fn take_back_since(&mut self) -> Option<i64> {
        self.trouble.as_mut()?.back_since.take()
    }

    /// Forgets its incidents: another watch's count.
    pub(crate) fn forget_incidents(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            (trouble.incident, trouble.back_since) = (None, None);
            trouble.conditions.clear();
        }
    }

    /// Forgets silences of days before `first_day` (of Unix time), and trouble that is over.
    pub(crate) fn forget_before(&mut self, first_day: i64) {
        let Some(trouble) = &mut self.trouble else { return };
        trouble.silences.retain(|day| *day >= first_day);
        let is_over = trouble.incident.is_none() && trouble.conditions.is_empty() && trouble.back_since.is_none();
        if is_over && trouble.silences.is_empty() && trouble.tuned_to.div_euclid(86_400) < first_day {
            self.trouble = None;
        }
    }
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
