//! What this node heard of each site: the facts the roll is called from, and how complete each site
//! is.
//!
//! Complete through T: HQ sent its time T, the site answered with its heads in a read snapshot
//! opened after that, and the cursors of all its tables reached those heads. No clock of the site
//! takes part.

mod presence;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rollcall_lake::Lake;
use rollcall_roll::Verdict;
use rollcall_runtime::Instant;
use rollcall_types::{Cause, Seq, SiteId, SiteNumber, SiteState, TableName, Timestamp};
use serde::{Deserialize, Serialize};

use self::presence::Presence;
pub use self::presence::PresenceRecord;
pub(crate) use self::presence::STORED_AGE_MAX;
use crate::{
    facts::{Applied, SiteFact},
    known_clock::KnownClock,
    peer::CaId,
    progress::{ProgressSnapshot, SiteProgress},
    roster::Sites,
};

/// A site that comes with more changes than this catches up.
pub const BACKLOG_MIN: u64 = 1000;
/// A site heard less than this ago is alive and will be heard again.
pub(crate) const ALIVE: Duration = Duration::from_secs(60);
/// A site heard less than this ago still reports, though its beacons be few.
const HEARD_LATELY: Duration = Duration::from_secs(180);

/// One line of the roll.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollEntry {
    /// The site; a retired one has a line too.
    pub site: SiteId,
    /// How it stands.
    pub state: SiteState,
    /// Since when; of one that is heard, through when it is complete. None if not known.
    pub since: Option<Timestamp>,
    /// Why it is not well; none if it is, or was retired.
    pub cause: Option<Cause>,
    /// When anything at all was heard of it last; none if nothing ever was.
    pub last_heard: Option<Timestamp>,
    /// Everything that it changed up to this time is here; none if not known.
    pub complete_through: Option<Timestamp>,
    /// Changes journalled at the site that HQ has not confirmed, as of the last thing heard.
    pub unconfirmed_rows: u64,
    /// When they will be here at the pace of the last seconds; none where they do not come, or are
    /// few.
    #[serde(default)]
    pub caught_up_by: Option<Timestamp>,
    /// 1 to 14 while the site's rhythm is being learned.
    pub learning_day: Option<i64>,
    /// For people: what is wrong with its capture, else what was noted last; may be empty.
    pub detail: String,
}

/// What a site says of what HQ gave it.
#[derive(Debug, Clone, Default)]
pub struct AtSite {
    /// Its agent is too old to take HQ's tables.
    pub takes_nothing: bool,
    /// Empty if it was not heard since this node began.
    pub agent_version: String,
    /// What it has of HQ's tables.
    pub applied: BTreeMap<TableName, Applied>,
}

/// One entry of the contacts table: site, start of the hour, minutes heard.
pub type ContactHour = (SiteId, Timestamp, u64);

/// All sites' presence.
#[derive(Debug, Default)]
pub struct Ledger {
    /// In boxes: a map has room for up to twice as many as it holds.
    sites: Mutex<HashMap<SiteId, Box<Presence>>>,
    finished_hours: Mutex<Vec<ContactHour>>,
    unknown_senders: Mutex<BTreeMap<String, Timestamp>>,
    began: Began,
}

/// When this node began to hear.
#[derive(Debug)]
struct Began(Instant);

impl Default for Began {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Ledger {
    fn sites(&self) -> MutexGuard<'_, HashMap<SiteId, Box<Presence>>> {
        // Each change is whole in itself; a panic elsewhere leaves nothing half done.
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was remembered from before a restart.
    pub fn restore(&self, site: SiteId, remembered: PresenceRecord, stored_at: Timestamp) {
        self.sites().insert(site, Box::new(Presence::restored(remembered, stored_at)));
    }

    /// Who signed the certificate that each site came with last.
    pub fn authorities(&self) -> HashMap<SiteId, CaId> {
        self.sites().iter().map(|(site, presence)| (site.clone(), presence.now.authority)).collect()
    }

    /// Anything at all was heard of a site.
    pub fn heard(&self, site: &SiteId, now: Timestamp) {
        let mut sites = self.sites();
        if let Some((start, minutes)) = sites.entry(site.clone()).or_default().hear(now) {
            let finished = (site.clone(), start, minutes);
            self.finished_hours.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
        }
    }

    /// Takes what a site's connection told at `at`. What one of its earlier sessions told says
    /// nothing any more.
    pub(crate) fn apply(&self, site: &SiteId, at: Timestamp, fact: SiteFact) {
        self.sites().entry(site.clone()).or_default().apply(at, fact);
    }

    /// A site's clock was heard, and is off by so much: wrong enough to be told of, or not.
    pub(crate) fn note_clock(&self, site: &SiteId, at: Timestamp, off: i64, is_wrong: bool) {
        self.sites().entry(site.clone()).or_default().note_clock(at, off, is_wrong);
    }

    /// What a site has of HQ's tables, by what it said last.
    pub fn applied(&self, site: &SiteId) -> BTreeMap<TableName, Applied> {
        self.sites().get(site).map(|presence| presence.now.applied.clone()).unwrap_or_default()
    }

    /// What is known of a site's clock.
    pub fn clock(&self, site: &SiteId) -> KnownClock {
        self.sites().get(site).map(|presence| presence.now.clock.clone()).unwrap_or_default()
    }

    /// What every site says of what HQ gave it.
    pub fn all_applied(&self) -> HashMap<SiteId, AtSite> {
        let sites = self.sites();
        let of_site = |presence: &Presence| AtSite {
            takes_nothing: presence.takes_nothing,
            agent_version: presence.agent_version.clone(),
            applied: presence.now.applied.clone(),
        };
        sites.iter().map(|(site, presence)| (site.clone(), of_site(presence))).collect()
    }

    /// How far a site's changes are confirmed.
    pub fn confirmed_through(&self, site: &SiteId) -> Seq {
        self.sites().get(site).map_or(Seq(0), |presence| presence.now.confirmed)
    }

    /// Whether anything was heard of a site in this time.
    pub fn is_heard(&self, site: &SiteId, now: Timestamp, within: Duration) -> bool {
        let heard = self.sites().get(site).and_then(|presence| presence.now.last_heard);
        heard.is_some_and(|heard| now.since(heard) < within)
    }

    /// Whether a site is missed: it said no goodbye, and was not heard in this time, all of which
    /// this node could hear.
    pub fn is_missed(&self, site: &SiteId, now: Timestamp, within: Duration) -> bool {
        let said_goodbye = self.sites().get(site).is_some_and(|presence| presence.now.said_goodbye);
        self.began.0.elapsed() > within && !said_goodbye && !self.is_heard(site, now, within)
    }

    /// Whether it was turned away, or turned HQ away, and no session was taken since.
    pub fn is_refused(&self, site: &SiteId) -> bool {
        self.sites().get(site).is_some_and(|presence| presence.now.refused.is_some())
    }

    /// Sites that are heard and state manifests: since when they are connected, and when they were
    /// heard last.
    pub fn should_state(&self, now: Timestamp) -> Vec<(SiteId, Timestamp, Timestamp)> {
        let sites = self.sites();
        let stating = sites.iter().filter_map(|(site, presence)| {
            let heard = presence.now.last_heard.filter(|heard| now.since(*heard) < ALIVE)?;
            Some((site.clone(), presence.states_since?, heard))
        });
        stating.collect()
    }

    /// Moves a site's completeness as far as the lake's cursors allow.
    pub fn advance(&self, lake: &Lake, site: &SiteId, number: SiteNumber) {
        let mut sites = self.sites();
        if let Some(presence) = sites.get_mut(site) {
            presence.advance(lake, number);
        }
    }

    /// [`Self::advance`] for every site that waits.
    pub fn advance_all(&self, lake: &Lake, roster: &Sites) {
        let mut sites = self.sites();
        for (site, presence) in sites.iter_mut().filter(|(_, presence)| presence.is_waiting()) {
            if let Some(record) = roster.get(site) {
                presence.advance(lake, SiteNumber(record.number));
            }
        }
    }

    /// Notes a sender that is not on the roster.
    pub fn unknown_sender(&self, name: &str, now: Timestamp) {
        const UNKNOWN_MAX: usize = 1000;
        let mut unknown = self.unknown_senders.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() < UNKNOWN_MAX || unknown.contains_key(name) {
            unknown.insert(name.chars().take(80).collect(), now);
        }
    }

    /// Names that came since this node began without being on the roster; 1000 at most.
    pub fn unknown_senders(&self) -> Vec<String> {
        self.unknown_senders.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// What must be remembered and is not stored yet: with `all` everything, else only of sites
    /// that say something new or went quiet. A site that is simply alive is stored now and then,
    /// not at every beacon.
    pub fn unstored(&self, now: Timestamp, all: bool) -> Vec<(SiteId, PresenceRecord)> {
        let sites = self.sites();
        let unstored =
            sites.iter().filter(|(_, presence)| (all || presence.is_worth_storing(now)) && presence.is_unstored(now));
        let mut records: Vec<_> = unstored.map(|(site, presence)| (site.clone(), presence.now.clone())).collect();
        // The order in a file follows from what is in it.
        records.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        records
    }

    /// Whether a site said goodbye, was turned away, or is so no more, and that is not stored.
    pub fn has_news(&self) -> bool {
        self.sites().values().any(|presence| presence.has_news())
    }

    /// Sites that HQ and they themselves keep from sending, because HQ's lake lacks what it
    /// confirmed to them.
    pub fn lacking_confirmed(&self) -> Vec<SiteId> {
        let sites = self.sites();
        let lacking = sites.iter().filter(|(_, presence)| presence.now.refused.is_some() && presence.lacks_confirmed);
        lacking.map(|(site, _)| site.clone()).collect()
    }

    /// Hours of contact that are over are another node's to store; they are kept a while, in case
    /// it is gone.
    pub fn leave_hours(&self, before: Timestamp) {
        self.finished_hours.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, start, _)| *start >= before);
    }

    /// Notes that these records are stored.
    pub fn stored(&self, records: &[(SiteId, PresenceRecord)], now: Timestamp) {
        let mut sites = self.sites();
        for (site, remembered) in records {
            if let Some(presence) = sites.get_mut(site) {
                presence.note_stored(remembered, now);
            }
        }
    }

    /// Hours of contact that are over; with `all`, also the running ones.
    pub fn take_hours(&self, all: bool) -> Vec<ContactHour> {
        let mut hours = std::mem::take(&mut *self.finished_hours.lock().unwrap_or_else(PoisonError::into_inner));
        if all {
            for (site, presence) in self.sites().iter_mut() {
                hours.extend(presence.take_hour().map(|(start, minutes)| (site.clone(), start, minutes)));
            }
        }
        hours.sort_unstable();
        hours
    }

    /// Hours that could not be stored; they come again.
    pub fn put_back_hours(&self, hours: Vec<ContactHour>) {
        self.finished_hours.lock().unwrap_or_else(PoisonError::into_inner).extend(hours);
    }

    /// Calls the roll: what the watch says of each site, and whether its data keeps up.
    pub fn roll(
        &self,
        roster: &Sites,
        verdict: impl Fn(&SiteId) -> Option<Verdict>,
        behind_after: Duration,
        now: Timestamp,
    ) -> Vec<RollEntry> {
        let sites = self.sites();
        let nothing = Box::default();
        roster
            .iter()
            .map(|(site, record)| {
                let presence = sites.get(site).unwrap_or(&nothing);
                let through = presence.now.complete_through;
                let verdict = verdict(site);
                let (state, since, cause) = match verdict {
                    _ if record.retired.is_some() => (SiteState::Retired, None, None),
                    // Listed a moment ago: the watch looks at the roster every second.
                    None => (SiteState::NeverHeard, None, Some(Cause::NeverEnrolled)),
                    Some(verdict) if verdict.state == SiteState::Ok => {
                        if through.is_some_and(|through| now.since(through) <= behind_after) {
                            (SiteState::Ok, through, None)
                        } else {
                            (SiteState::Recovering, through, Some(Cause::Backlog))
                        }
                    }
                    Some(verdict) => (verdict.state, verdict.since, verdict.cause),
                };
                RollEntry {
                    site: site.clone(),
                    state,
                    since,
                    cause,
                    last_heard: presence.now.last_heard,
                    complete_through: through,
                    unconfirmed_rows: presence.now.unconfirmed_rows(),
                    caught_up_by: presence.caught_up_by(now),
                    learning_day: verdict.and_then(|verdict| verdict.learning_day),
                    detail: presence.capture_problem.clone().unwrap_or_else(|| presence.detail.clone()),
                }
            })
            .collect()
    }

    /// Where these sites, in the roster's order, stand now.
    pub fn progress(&self, ids: Arc<Vec<SiteId>>, at: Timestamp) -> ProgressSnapshot {
        let mut progress = ProgressSnapshot::new(at, ids.clone());
        let presences = self.sites();
        for (place, presence) in ids.iter().enumerate().filter_map(|(place, id)| Some((place, presences.get(id)?))) {
            if !presence.now.wrong_times.is_empty() {
                progress.wrong_times.insert(ids[place].clone(), presence.now.wrong_times.clone());
            }
            let site = SiteProgress {
                through: presence.now.complete_through,
                last_heard: presence.now.last_heard,
                unconfirmed_rows: presence.now.unconfirmed_rows(),
                clock_off_micros: presence.clock_off_micros.saturating_abs(),
            };
            progress.enter(place, site, presence.table_through.iter());
        }
        progress
    }

    /// Whether more than a twentieth of the sites that are heard, and more than one, has changes
    /// waiting for long: after an absence of HQ. A site that is silent sends no backlog, and the
    /// one slow line of a small company is its own trouble.
    pub fn is_draining(&self, now: Timestamp) -> bool {
        let sites = self.sites();
        let is_heard =
            |presence: &Presence| presence.now.last_heard.is_some_and(|heard| now.since(heard) < HEARD_LATELY);
        let heard = sites.values().filter(|presence| is_heard(presence));
        let (heard, behind) =
            heard.fold((0, 0), |(heard, behind), presence| (heard + 1, behind + usize::from(presence.is_behind)));
        behind > 1 && behind * 20 > heard
    }

    /// Per site and table: complete through.
    pub fn tables_through(&self) -> Vec<(SiteId, TableName, Timestamp)> {
        let sites = self.sites();
        let mut all: Vec<_> = sites
            .iter()
            .flat_map(|(site, presence)| {
                let tables = presence.table_through.iter();
                tables.map(move |(table, through)| (site.clone(), table.clone(), *through))
            })
            .collect();
        all.sort();
        all
    }
}
