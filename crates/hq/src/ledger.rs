//! What this node heard of each site: the facts the roll is called from, and how complete each site
//! is.
//!
//! Complete through T: HQ sent its time T, the site answered with its heads in a read snapshot
//! opened after that, and the cursors of all its tables reached those heads. No clock of the site
//! takes part.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rollcall_lake::Lake;
use rollcall_types::{Cause, Epoch, Seq, SiteId, SiteNumber, SiteState, TableName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    authority::CaId,
    digest,
    facts::{Fact, Welcomed},
    known_clock::KnownClock,
    published::arrivals::Applied,
    roster::Sites,
    standing::{SiteStanding, Standing},
    watching::Watching,
};

/// One line of the roll.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RollEntry {
    pub(crate) site: SiteId,
    pub(crate) state: SiteState,
    pub(crate) since: Option<Timestamp>,
    pub(crate) cause: Option<Cause>,
    pub(crate) last_heard: Option<Timestamp>,
    pub(crate) complete_through: Option<Timestamp>,
    /// Changes journalled at the site that HQ has not confirmed, as of the last thing heard.
    pub(crate) unconfirmed_rows: u64,
    /// When they will be here at the pace of the last seconds; none where they do not come, or are
    /// few.
    #[serde(default)]
    pub(crate) caught_up_by: Option<Timestamp>,
    /// 1 to 14 while the site's rhythm is being learned.
    pub(crate) learning_day: Option<i64>,
    pub(crate) detail: String,
}

/// Heads a site reported, not reached yet.
#[derive(Debug, Clone)]
struct PendingHeads {
    time: Timestamp,
    epoch: Epoch,
    heads: Vec<(TableName, Seq)>,
    /// Some tables are not in it: they are being stated, or are not captured truly.
    is_partial: bool,
}

/// The state of one site that must survive a restart of HQ.
#[derive(Debug, Clone, Default, Hash, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) last_heard: Option<Timestamp>,
    pub(crate) complete_through: Option<Timestamp>,
    pub(crate) said_goodbye: bool,
    #[serde(default)]
    pub(crate) head: Seq,
    #[serde(default)]
    pub(crate) confirmed: Seq,
    #[serde(default)]
    pub(crate) refused: Option<Cause>,
    /// What it has of HQ's tables.
    #[serde(default)]
    pub(crate) applied: BTreeMap<TableName, Applied>,
    /// Who signed the certificate that it came with last.
    #[serde(default)]
    pub(crate) authority: CaId,
    #[serde(default, skip_serializing_if = "KnownClock::is_empty")]
    pub(crate) clock: KnownClock,
}

impl Remembered {
    fn unconfirmed_rows(&self) -> u64 {
        self.head.0.saturating_sub(self.confirmed.0)
    }

    /// What to know of it once it is stored.
    fn as_stored(&self) -> Stored {
        Stored { last_heard: self.last_heard, flags: self.flags(), digest: digest::of(self) }
    }

    /// What is stored at once when it changes.
    fn flags(&self) -> (bool, Option<Cause>) {
        (self.said_goodbye, self.refused)
    }
}

/// What is known of the [`Remembered`] that was stored last: enough to tell whether the present one
/// must be. There is one of each site, so it is no second copy.
#[derive(Debug, PartialEq, Eq)]
struct Stored {
    last_heard: Option<Timestamp>,
    flags: (bool, Option<Cause>),
    digest: u64,
}

impl Default for Stored {
    fn default() -> Self {
        Remembered::default().as_stored()
    }
}

/// What a site says of what HQ gave it.
#[derive(Debug, Clone, Default)]
pub(crate) struct AtSite {
    /// Its agent is too old to take HQ's tables.
    pub(crate) takes_nothing: bool,
    /// Empty if it was not heard since this node began.
    pub(crate) agent_version: String,
    pub(crate) applied: BTreeMap<TableName, Applied>,
}

#[derive(Debug, Default)]
struct Presence {
    now: Remembered,
    stored: Stored,
    capture_problem: Option<String>,
    /// Changes waited at the site for more than a minute, by its last beacon.
    is_behind: bool,
    /// It is turned away, or turns HQ away, because HQ's lake lacks what it confirmed to it.
    lacks_confirmed: bool,
    pending: VecDeque<PendingHeads>,
    /// Complete through, by table; of all tables together it is in `now`.
    table_through: BTreeMap<TableName, Timestamp>,
    /// HQ's clock less the site's, by its last beacon.
    clock_off_micros: i64,
    /// Minutes heard in the hour that began at `.0`, as bits.
    minutes: (i64, u64),
    detail: String,
    /// Of its newest session.
    agent_version: String,
    /// Since when it is connected, if it states manifests.
    states_since: Option<Timestamp>,
    /// Its newest session cannot read its journal.
    is_blind: bool,
    /// When its newest session began.
    welcomed_at: Option<Timestamp>,
    /// Its agent is too old to take HQ's tables.
    takes_nothing: bool,
    /// From where its pace is measured now, and the last one measured: changes confirmed a second.
    paced_from: Option<(Timestamp, Seq)>,
    pace: f32,
}

/// Answers of a site waiting for its cursors: more than this means that it is behind anyway.
const PENDING_MAX: usize = 8;
const HOUR_MICROS: i64 = 3_600_000_000;

/// One entry of the contacts table: site, start of the hour, minutes heard.
pub(crate) type ContactHour = (SiteId, Timestamp, u64);

/// All sites' presence.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// In boxes: a map has room for up to twice as many as it holds.
    sites: Mutex<HashMap<SiteId, Box<Presence>>>,
    finished_hours: Mutex<Vec<ContactHour>>,
    unknown_senders: Mutex<BTreeMap<String, Timestamp>>,
}

impl Ledger {
    fn sites(&self) -> MutexGuard<'_, HashMap<SiteId, Box<Presence>>> {
        // Each change is whole in itself; a panic elsewhere leaves nothing half done.
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was remembered from before a restart.
    pub(crate) fn restore(&self, site: SiteId, remembered: Remembered) {
        let presence = Presence { stored: remembered.as_stored(), now: remembered, ..Presence::default() };
        self.sites().insert(site, Box::new(presence));
    }

    /// Who signed the certificate that each site came with last.
    pub(crate) fn authorities(&self) -> HashMap<SiteId, CaId> {
        self.sites().iter().map(|(site, presence)| (site.clone(), presence.now.authority)).collect()
    }

    /// Anything at all was heard of a site.
    pub(crate) fn heard(&self, site: &SiteId, now: Timestamp) {
        let mut sites = self.sites();
        let presence = sites.entry(site.clone()).or_default();
        if presence.now.last_heard.is_some_and(|heard| heard > now) {
            return;
        }
        presence.now.last_heard = Some(now);
        presence.now.said_goodbye = false;
        let hour = now.as_micros().div_euclid(HOUR_MICROS);
        if presence.minutes.0 != hour && presence.minutes.1 != 0 {
            let start = Timestamp::from_micros(presence.minutes.0 * HOUR_MICROS);
            let finished = (site.clone(), start, presence.minutes.1);
            self.finished_hours.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
            presence.minutes.1 = 0;
        }
        let minute = now.as_micros().rem_euclid(HOUR_MICROS) / 60_000_000;
        presence.minutes = (hour, presence.minutes.1 | 1 << minute);
    }

    /// Takes what a site's connection told at `at`. What one of its earlier sessions told says
    /// nothing any more.
    pub(crate) fn take(&self, site: &SiteId, at: Timestamp, fact: Fact) {
        let mut sites = self.sites();
        let presence = sites.entry(site.clone()).or_default();
        if presence.welcomed_at.is_some_and(|welcomed| at < welcomed) {
            return;
        }
        match fact {
            Fact::Welcomed(welcomed) => presence.welcome(at, welcomed),
            Fact::Beacon { head, unconfirmed_age, capture_problem, clock_off_micros, applied } => {
                presence.now.applied = applied;
                presence.clock_off_micros = clock_off_micros;
                if !presence.is_blind {
                    presence.now.clock.note(at, head, clock_off_micros);
                }
                presence.is_behind = unconfirmed_age > Duration::from_secs(60);
                presence.now.head = head.max(presence.now.head);
                presence.capture_problem = capture_problem;
            }
            Fact::Heads { time, epoch, mut heads } => {
                let all = heads.len();
                // The head of such a table says nothing; those of the others do.
                heads.retain(|(_, head)| *head != Seq(u64::MAX));
                let is_partial = heads.len() < all;
                presence.expect(PendingHeads { time, epoch, heads, is_partial });
            }
            Fact::Goodbye { head, reason } => {
                presence.now.head = head.max(presence.now.head);
                presence.now.said_goodbye = true;
                presence.detail = format!("said goodbye: {reason}");
            }
            Fact::Confirmed { through } => {
                presence.measure_pace(at, through);
                presence.now.confirmed = through;
                presence.now.head = presence.now.head.max(through);
            }
            Fact::Quarantined(kept) => presence.detail = format!("a batch is in quarantine: {}", kept.reason),
            Fact::Refused { cause, detail, is_lake_older } => {
                presence.now.refused = Some(cause);
                presence.lacks_confirmed = is_lake_older;
                presence.detail = detail;
            }
            // For the watch, and for sessions.
            Fact::Heard(_) | Fact::EpochWanted { .. } => {}
        }
    }

    /// What a site has of HQ's tables, by what it said last.
    pub(crate) fn applied(&self, site: &SiteId) -> BTreeMap<TableName, Applied> {
        self.sites().get(site).map(|presence| presence.now.applied.clone()).unwrap_or_default()
    }

    /// What is known of a site's clock.
    pub(crate) fn clock(&self, site: &SiteId) -> KnownClock {
        self.sites().get(site).map(|presence| presence.now.clock.clone()).unwrap_or_default()
    }

    /// What every site says of what HQ gave it.
    pub(crate) fn all_applied(&self) -> HashMap<SiteId, AtSite> {
        let sites = self.sites();
        let of_site = |presence: &Presence| AtSite {
            takes_nothing: presence.takes_nothing,
            agent_version: presence.agent_version.clone(),
            applied: presence.now.applied.clone(),
        };
        sites.iter().map(|(site, presence)| (site.clone(), of_site(presence))).collect()
    }

    /// How far a site's changes are confirmed.
    pub(crate) fn confirmed_through(&self, site: &SiteId) -> Seq {
        self.sites().get(site).map_or(Seq(0), |presence| presence.now.confirmed)
    }

    /// Sites that are heard and state manifests: since when they are connected, and when they were
    /// heard last.
    pub(crate) fn should_state(&self, now: Timestamp) -> Vec<(SiteId, Timestamp, Timestamp)> {
        let sites = self.sites();
        let stating = sites.iter().filter_map(|(site, presence)| {
            let heard = presence.now.last_heard.filter(|heard| now.since(*heard) < ALIVE)?;
            Some((site.clone(), presence.states_since?, heard))
        });
        stating.collect()
    }

    /// Moves a site's completeness as far as the lake's cursors allow.
    pub(crate) fn advance(&self, lake: &Lake, site: &SiteId, number: SiteNumber) {
        let mut sites = self.sites();
        if let Some(presence) = sites.get_mut(site) {
            presence.advance(lake, number);
        }
    }

    /// [`Self::advance`] for every site that waits.
    pub(crate) fn advance_all(&self, lake: &Lake, roster: &Sites) {
        let mut sites = self.sites();
        for (site, presence) in sites.iter_mut().filter(|(_, presence)| !presence.pending.is_empty()) {
            if let Some(record) = roster.get(site) {
                presence.advance(lake, SiteNumber(record.number));
            }
        }
    }

    /// Notes a sender that is not on the roster.
    pub(crate) fn unknown_sender(&self, name: &str, now: Timestamp) {
        const UNKNOWN_MAX: usize = 1000;
        let mut unknown = self.unknown_senders.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() < UNKNOWN_MAX || unknown.contains_key(name) {
            unknown.insert(name.chars().take(80).collect(), now);
        }
    }

    pub(crate) fn unknown_senders(&self) -> Vec<String> {
        self.unknown_senders.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// What must be remembered and is not stored yet: with `all` everything, else only of sites
    /// that say something new or went quiet. A site that is simply alive is stored now and then,
    /// not at every beacon.
    pub(crate) fn unstored(&self, now: Timestamp, all: bool) -> Vec<(SiteId, Remembered)> {
        let sites = self.sites();
        sites
            .iter()
            .filter(|(_, presence)| {
                (all || presence.is_worth_storing(now)) && presence.now.as_stored() != presence.stored
            })
            .map(|(site, presence)| (site.clone(), presence.now.clone()))
            .collect()
    }

    /// Whether a site said goodbye, was turned away, or is so no more, and that is not stored.
    pub(crate) fn has_news(&self) -> bool {
        self.sites().values().any(|presence| presence.now.flags() != presence.stored.flags)
    }

    /// Sites that HQ and they themselves keep from sending, because HQ's lake lacks what it
    /// confirmed to them.
    pub(crate) fn lacking_confirmed(&self) -> Vec<SiteId> {
        let sites = self.sites();
        let lacking = sites.iter().filter(|(_, presence)| presence.now.refused.is_some() && presence.lacks_confirmed);
        lacking.map(|(site, _)| site.clone()).collect()
    }

    /// Hours of contact that are over are another node's to store; they are kept a while, in case
    /// it is gone.
    pub(crate) fn leave_hours(&self, before: Timestamp) {
        self.finished_hours.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, start, _)| *start >= before);
    }

    pub(crate) fn stored(&self, records: &[(SiteId, Remembered)]) {
        let mut sites = self.sites();
        for (site, remembered) in records {
            if let Some(presence) = sites.get_mut(site) {
                presence.stored = remembered.as_stored();
            }
        }
    }

    /// Hours of contact that are over; with `all`, also the running ones.
    pub(crate) fn take_hours(&self, all: bool) -> Vec<ContactHour> {
        let mut hours = std::mem::take(&mut *self.finished_hours.lock().unwrap_or_else(PoisonError::into_inner));
        if all {
            for (site, presence) in self.sites().iter_mut().filter(|(_, presence)| presence.minutes.1 != 0) {
                let start = Timestamp::from_micros(presence.minutes.0 * HOUR_MICROS);
                hours.push((site.clone(), start, presence.minutes.1));
                presence.minutes.1 = 0;
            }
        }
        hours
    }

    /// Hours that could not be stored; they come again.
    pub(crate) fn put_back_hours(&self, hours: Vec<ContactHour>) {
        self.finished_hours.lock().unwrap_or_else(PoisonError::into_inner).extend(hours);
    }

    /// Calls the roll: what the watch says of each site, and whether its data keeps up.
    pub(crate) fn roll(
        &self,
        roster: &Sites,
        watching: &Watching,
        behind_after: Duration,
        now: Timestamp,
    ) -> Vec<RollEntry> {
        // Always in this order.
        let watch = watching.watch();
        let sites = self.sites();
        let nothing = Box::default();
        roster
            .iter()
            .map(|(site, record)| {
                let presence = sites.get(site).unwrap_or(&nothing);
                let through = presence.now.complete_through;
                let verdict = watch.verdict(site);
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
    pub(crate) fn standing(&self, ids: Arc<Vec<SiteId>>, at: Timestamp) -> Standing {
        let mut standing = Standing::new(at, ids.clone());
        let presences = self.sites();
        for (place, presence) in ids.iter().enumerate().filter_map(|(place, id)| Some((place, presences.get(id)?))) {
            let site = SiteStanding {
                through: presence.now.complete_through,
                last_heard: presence.now.last_heard,
                unconfirmed_rows: presence.now.unconfirmed_rows(),
                clock_off_micros: presence.clock_off_micros.saturating_abs(),
            };
            standing.enter(place, site, presence.table_through.iter());
        }
        standing
    }

    /// Whether more than a twentieth of the sites that are heard, and more than one, has changes
    /// waiting for long: after an absence of HQ. A site that is silent sends no backlog, and the
    /// one slow line of a small company is its own trouble.
    pub(crate) fn is_draining(&self, now: Timestamp) -> bool {
        let sites = self.sites();
        let is_heard =
            |presence: &Presence| presence.now.last_heard.is_some_and(|heard| now.since(heard) < HEARD_LATELY);
        let heard = sites.values().filter(|presence| is_heard(presence));
        let (heard, behind) =
            heard.fold((0, 0), |(heard, behind), presence| (heard + 1, behind + usize::from(presence.is_behind)));
        behind > 1 && behind * 20 > heard
    }

    /// Per site and table: complete through.
    pub(crate) fn tables_through(&self) -> Vec<(SiteId, TableName, Timestamp)> {
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

/// A site's pace is measured over so long.
const PACED_OVER: Duration = Duration::from_secs(5);
/// A site heard less than this ago is alive and will be heard again.
const ALIVE: Duration = Duration::from_secs(60);
/// A site heard less than this ago still reports, though its beacons be few.
const HEARD_LATELY: Duration = Duration::from_secs(180);
/// What is remembered of a living site is at most this old.
const STORED_AGE_MAX: Duration = Duration::from_secs(900);

impl Presence {
    fn welcome(&mut self, at: Timestamp, welcomed: Welcomed) {
        self.welcomed_at = Some(at);
        if welcomed.is_new_epoch {
            self.now.clock.begin_anew();
        }
        self.is_blind = welcomed.is_blind;
        if !welcomed.is_blind {
            self.now.clock.note(at, welcomed.head, welcomed.clock_off_micros);
        }
        self.now.refused = None;
        self.now.head = welcomed.head;
        self.now.confirmed = welcomed.confirmed;
        self.states_since = welcomed.states_manifests.then_some(at);
        self.takes_nothing = !welcomed.takes_published;
        self.now.applied = welcomed.applied;
        self.now.authority = welcomed.authority;
        self.detail = welcomed.detail;
        self.agent_version = welcomed.agent_version;
        self.pending.clear();
        (self.paced_from, self.pace) = (None, 0.0);
    }

    fn measure_pace(&mut self, at: Timestamp, through: Seq) {
        let Some((from, seq)) = self.paced_from else {
            self.paced_from = Some((at, through));
            return;
        };
        let elapsed = at.since(from);
        if elapsed >= PACED_OVER {
            self.pace = through.0.saturating_sub(seq.0) as f32 / elapsed.as_secs_f32();
            self.paced_from = Some((at, through));
        }
    }

    /// When what waits at the site will be here, if that takes longer than it takes to measure.
    fn caught_up_by(&self, now: Timestamp) -> Option<Timestamp> {
        let is_measured = self.paced_from.is_some_and(|(from, _)| now.since(from) < PACED_OVER * 4);
        let seconds = self.now.unconfirmed_rows() as f64 / f64::from(self.pace);
        let is_many = self.now.unconfirmed_rows() > crate::gateway::BACKLOG_MIN;
        let is_worth_saying = is_many && is_measured && seconds.is_finite() && seconds > PACED_OVER.as_secs_f64();
        is_worth_saying.then(|| now.plus_micros((seconds * 1e6) as i64))
    }

    /// Notes an answer to HQ's time, to be reached by the cursors.
    fn expect(&mut self, answer: PendingHeads) {
        if self.pending.len() == PENDING_MAX {
            // Keep the oldest, which is reached first, and the newest, which says most.
            self.pending.remove(PENDING_MAX / 2);
        }
        self.pending.push_back(answer);
    }

    fn is_worth_storing(&self, now: Timestamp) -> bool {
        let age = |heard: Option<Timestamp>| heard.map_or(Duration::MAX, |heard| now.since(heard));
        self.now.flags() != self.stored.flags
            || age(self.now.last_heard) > ALIVE
            || age(self.stored.last_heard) > STORED_AGE_MAX
    }

    fn advance(&mut self, lake: &Lake, number: SiteNumber) {
        while let Some(pending) = self.pending.front() {
            let mut all = true;
            for (table, head) in &pending.heads {
                let of_lake = lake.table(table);
                // What a site captures under the name of a table of HQ's is in quarantine; nothing
                // more will come of it.
                if of_lake.as_ref().is_some_and(|table| table.is_published()) {
                    continue;
                }
                let cursor = of_lake.and_then(|table| table.cursor(number, pending.epoch));
                if *head == Seq(0) || cursor.is_some_and(|cursor| cursor.seq >= *head) {
                    let through = self.table_through.entry(table.clone()).or_insert(pending.time);
                    *through = pending.time.max(*through);
                } else {
                    all = false;
                }
            }
            if !all {
                break;
            }
            if !pending.is_partial {
                self.now.complete_through = self.now.complete_through.max(Some(pending.time));
            }
            self.pending.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_of_a_site_that_fell_silent_does_not_keep_hq_from_watching() {
        let ledger = Ledger::default();
        let at = |seconds: i64| Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000);
        let site = |number: usize| SiteId::new(&format!("store-{number}")).expect("an id");
        let beacon = |number: usize, seconds: i64, waited: u64| {
            ledger.heard(&site(number), at(seconds));
            let fact = Fact::Beacon {
                head: Seq(1),
                unconfirmed_age: Duration::from_secs(waited),
                capture_problem: None,
                clock_off_micros: 0,
                applied: BTreeMap::new(),
            };
            ledger.take(&site(number), at(seconds), fact);
        };
        // HQ was away: all come back with a backlog.
        (0..8).for_each(|number| beacon(number, 0, 600));
        assert!(ledger.is_draining(at(10)));
        // Six have sent it, one has a slow line, and one fell silent in the middle.
        (0..7).for_each(|number| beacon(number, 300, if number == 0 { 900 } else { 0 }));
        assert!(!ledger.is_draining(at(300)));
        beacon(7, 310, 1200);
        assert!(ledger.is_draining(at(320)), "two of eight that are heard");
    }
}
