//! What is known of one site, and what of it survives a restart.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use rollcall_lake::Lake;
use rollcall_types::{Cause, Epoch, Seq, SiteNumber, TableName, Timestamp};
use serde::{Deserialize, Serialize};

use super::{ALIVE, BACKLOG_MIN};
use crate::{
    digest,
    facts::{Applied, SiteFact, Welcomed},
    known_clock::KnownClock,
    peer::CaId,
    wrong_times::WrongTimes,
};

/// Answers of a site waiting for its cursors: more than this means that it is behind anyway.
const PENDING_MAX: usize = 8;
const HOUR_MICROS: i64 = 3_600_000_000;
/// A site's pace is measured over so long.
const PACED_OVER: Duration = Duration::from_secs(5);
/// What is remembered of a living site is at most this old.
pub(crate) const STORED_AGE_MAX: Duration = Duration::from_secs(900);

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
pub struct PresenceRecord {
    /// When anything at all was heard of it last; none if nothing ever was.
    pub last_heard: Option<Timestamp>,
    /// Everything that it changed up to this time is here; none if not known.
    pub complete_through: Option<Timestamp>,
    /// It said goodbye, and nothing was heard of it since.
    pub said_goodbye: bool,
    /// The newest position of its journal that is known.
    #[serde(default)]
    pub head: Seq,
    /// Everything up to this position is confirmed to it.
    #[serde(default)]
    pub confirmed: Seq,
    /// Why it was turned away, or turned HQ away; none once a session began again.
    #[serde(default)]
    pub refused: Option<Cause>,
    /// What it has of HQ's tables.
    #[serde(default)]
    pub applied: BTreeMap<TableName, Applied>,
    /// Who signed the certificate that it came with last.
    #[serde(default)]
    pub authority: CaId,
    /// What is known of its clock, and as of when.
    #[serde(default, skip_serializing_if = "KnownClock::is_empty")]
    pub clock: KnownClock,
    /// When its clock was wrong.
    #[serde(default, skip_serializing_if = "WrongTimes::is_empty")]
    pub wrong_times: WrongTimes,
}

impl PresenceRecord {
    /// Changes journalled at the site that are not confirmed to it.
    pub(super) fn unconfirmed_rows(&self) -> u64 {
        self.head.0.saturating_sub(self.confirmed.0)
    }

    /// What to know of it once it is stored at this time.
    fn as_stored(&self, at: Timestamp) -> LastStored {
        LastStored {
            last_heard: self.last_heard,
            flags: self.flags(),
            digest: digest::of(self),
            was_heard: self.was_heard(at),
        }
    }

    /// Whether it was heard when it was stored at this time, and not about to be quiet: until when
    /// it was heard, the record does not say then.
    pub(crate) fn was_heard(&self, at: Timestamp) -> bool {
        !self.said_goodbye && self.last_heard.is_some_and(|heard| at.since(heard) <= ALIVE)
    }

    /// What is stored at once when it changes.
    fn flags(&self) -> (bool, Option<Cause>, (bool, usize)) {
        (self.said_goodbye, self.refused, self.wrong_times.stage())
    }
}

/// What is known of the [`PresenceRecord`] that was stored last: enough to tell whether the present
/// one must be. There is one of each site, so it is no second copy.
#[derive(Debug, PartialEq, Eq)]
struct LastStored {
    last_heard: Option<Timestamp>,
    flags: (bool, Option<Cause>, (bool, usize)),
    digest: u64,
    /// See [`PresenceRecord::was_heard`].
    was_heard: bool,
}

impl Default for LastStored {
    fn default() -> Self {
        PresenceRecord::default().as_stored(Timestamp::from_micros(0))
    }
}

/// What this node knows of one site.
#[derive(Debug, Default)]
pub(super) struct Presence {
    pub(super) now: PresenceRecord,
    stored: LastStored,
    pub(super) capture_problem: Option<String>,
    /// Changes waited at the site for more than a minute, by its last beacon.
    pub(super) is_behind: bool,
    /// It is turned away, or turns HQ away, because HQ's lake lacks what it confirmed to it.
    pub(super) lacks_confirmed: bool,
    pending: VecDeque<PendingHeads>,
    /// Complete through, by table; of all tables together it is in `now`.
    pub(super) table_through: BTreeMap<TableName, Timestamp>,
    /// HQ's clock less the site's, by its last beacon.
    pub(super) clock_off_micros: i64,
    /// Minutes heard in the hour that began at `.0`, as bits.
    minutes: (i64, u64),
    pub(super) detail: String,
    /// Of its newest session.
    pub(super) agent_version: String,
    /// Since when it is connected, if it states manifests.
    pub(super) states_since: Option<Timestamp>,
    /// Its newest session cannot read its journal.
    is_blind: bool,
    /// When its newest session began.
    welcomed_at: Option<Timestamp>,
    /// Its agent is too old to take HQ's tables.
    pub(super) takes_nothing: bool,
    /// From where its pace is measured now, and the last one measured: changes confirmed a second.
    paced_from: Option<(Timestamp, Seq)>,
    pace: f32,
}

impl Presence {
    /// What was stored at this time, before a restart.
    pub(super) fn restored(remembered: PresenceRecord, at: Timestamp) -> Self {
        Self { stored: remembered.as_stored(at), now: remembered, ..Self::default() }
    }

    /// Anything at all was heard. The hour of contact that is over by that, if one is: when it
    /// began, and the minutes heard.
    pub(super) fn hear(&mut self, now: Timestamp) -> Option<(Timestamp, u64)> {
        if self.now.last_heard.is_some_and(|heard| heard > now) {
            return None;
        }
        self.now.last_heard = Some(now);
        self.now.said_goodbye = false;
        let hour = now.as_micros().div_euclid(HOUR_MICROS);
        let finished = if self.minutes.0 == hour { None } else { self.take_hour() };
        let minute = now.as_micros().rem_euclid(HOUR_MICROS) / 60_000_000;
        self.minutes = (hour, self.minutes.1 | 1 << minute);
        finished
    }

    /// The hour of contact that runs, if anything was heard in it: when it began, and the minutes
    /// heard. It begins anew.
    pub(super) fn take_hour(&mut self) -> Option<(Timestamp, u64)> {
        let start = Timestamp::from_micros(self.minutes.0 * HOUR_MICROS);
        let minutes = std::mem::take(&mut self.minutes.1);
        (minutes != 0).then_some((start, minutes))
    }

    /// See [`super::Ledger::note_clock`].
    pub(super) fn note_clock(&mut self, at: Timestamp, off: i64, is_wrong: bool) {
        self.now.wrong_times.note(self.now.clock.heard(), at, off, is_wrong);
    }

    /// Takes what was told at `at`; see [`super::Ledger::apply`].
    pub(super) fn apply(&mut self, at: Timestamp, fact: SiteFact) {
        if self.welcomed_at.is_some_and(|welcomed| at < welcomed) {
            return;
        }
        match fact {
            SiteFact::Welcomed(welcomed) => self.welcome(at, welcomed),
            SiteFact::Beacon { head, unconfirmed_age, capture_problem, clock_off_micros, applied } => {
                self.now.applied = applied;
                self.clock_off_micros = clock_off_micros;
                if !self.is_blind {
                    self.now.clock.note(at, head, clock_off_micros);
                }
                self.is_behind = unconfirmed_age > Duration::from_secs(60);
                self.now.head = head.max(self.now.head);
                // Only who was taken sends any.
                self.now.refused = None;
                self.capture_problem = capture_problem;
            }
            SiteFact::Heads { time, epoch, mut heads } => {
                let all = heads.len();
                // The head of such a table says nothing; those of the others do.
                heads.retain(|(_, head)| *head != Seq(u64::MAX));
                let is_partial = heads.len() < all;
                self.expect(PendingHeads { time, epoch, heads, is_partial });
            }
            SiteFact::Goodbye { head, reason } => {
                self.now.head = head.max(self.now.head);
                self.now.said_goodbye = true;
                self.detail = format!("said goodbye: {reason}");
            }
            SiteFact::Confirmed { through } => {
                self.measure_pace(at, through);
                self.now.confirmed = through;
                self.now.head = self.now.head.max(through);
            }
            SiteFact::Quarantined(kept) => self.detail = format!("a batch is in quarantine: {}", kept.reason),
            SiteFact::Refused { cause, detail, is_lake_older } => {
                self.now.refused = Some(cause);
                self.lacks_confirmed = is_lake_older;
                self.detail = detail;
            }
            // For the watch, and for sessions.
            SiteFact::Heard(_) | SiteFact::EpochWanted { .. } => {}
        }
    }

    /// A session began.
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

    /// Every change up to `through` is confirmed at `at`.
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
    pub(super) fn caught_up_by(&self, now: Timestamp) -> Option<Timestamp> {
        let is_measured = self.paced_from.is_some_and(|(from, _)| now.since(from) < PACED_OVER * 4);
        let seconds = self.now.unconfirmed_rows() as f64 / f64::from(self.pace);
        let is_many = self.now.unconfirmed_rows() > BACKLOG_MIN;
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

    /// Whether it said goodbye, was turned away, or is so no more, and that is not stored.
    pub(super) fn has_news(&self) -> bool {
        self.now.flags() != self.stored.flags
    }

    /// Whether anything of it is not stored; that it went quiet is something.
    pub(super) fn is_unstored(&self, now: Timestamp) -> bool {
        self.now.as_stored(now) != self.stored
    }

    /// This of it is stored, as of now.
    pub(super) fn note_stored(&mut self, remembered: &PresenceRecord, now: Timestamp) {
        self.stored = remembered.as_stored(now);
    }

    /// Whether an answer of its waits for its cursors.
    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether it says something new, went quiet, or was not stored for long.
    pub(super) fn is_worth_storing(&self, now: Timestamp) -> bool {
        let age = |heard: Option<Timestamp>| heard.map_or(Duration::MAX, |heard| now.since(heard));
        self.has_news() || age(self.now.last_heard) > ALIVE || age(self.stored.last_heard) > STORED_AGE_MAX
    }

    /// Moves its completeness as far as the lake's cursors allow.
    pub(super) fn advance(&mut self, lake: &Lake, number: SiteNumber) {
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
