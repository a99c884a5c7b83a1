//! Incidents: what a person should know. They only get louder until data, a dated closure or a
//! retirement ends them; there is no time-out.

mod ladder;

use std::collections::BTreeMap;

use rollcall_types::{Cause, SiteId, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::ladder::Ladder;
use self::ladder::{HOUR, TOLD_PER_DAY};

use crate::guard::Deafness;

/// What an incident is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A site is not heard, or a table's rows stopped.
    Silence,
    /// Rows still come, far fewer than usual.
    Drop,
    /// Silences that share an attribute.
    Group,
    /// Most of a cohort is quiet on a day that should be open: one question, whether it is a
    /// closing day.
    CohortQuiet,
    /// On the roster, never heard.
    NeverHeard,
    /// HQ itself cannot hear.
    HqBlind,
    /// The site is heard, and says or shows that something is wrong.
    Condition(Condition),
    /// A way to tell people does not work.
    Channel,
    /// Sites that fall silent again and again: one maintenance item.
    Chronic,
    /// Sites that are heard have not taken what HQ published, or cannot.
    Publication,
    /// HQ itself cannot do something it must, such as to compact a table: `stream` says what.
    Hq,
}

impl Kind {
    /// Whether it is about sites or rows that do not come: a declared closure explains that.
    pub(crate) fn is_absence(self) -> bool {
        matches!(self, Self::Silence | Self::Drop | Self::Group | Self::NeverHeard)
    }
}

/// What can be wrong with a site that is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Changes are not captured: triggers gone, file replaced.
    Capture,
    /// HQ turns it away.
    Refused,
    /// HQ keeps batches of it in quarantine, or rows of some tables.
    Quarantined,
    /// It would have HQ keep more than it may.
    Quota,
    /// Its journal was rewound, or runs twice.
    CloneOrRewind,
    /// Changes wait at the site for too long although it is heard.
    Behind,
    /// Manifests: rows counted at the site are not here, or none are counted.
    Manifest,
    /// Its clock is far off.
    Clock,
    /// Its disk is nearly full.
    Disk,
    /// Changes are lost for good, as the site itself recorded.
    Loss,
    /// Its journal began a new life that lacks what HQ had confirmed.
    NewLife,
    /// Rows of a table may be missing or stale: the site states all of them again.
    Restated,
    /// Values do not fit the column's type at HQ.
    Misfit,
    /// A table of its has lost a column.
    ColumnGone,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Silence => "silence",
            Self::Drop => "drop",
            Self::Group => "group",
            Self::CohortQuiet => "cohort-quiet",
            Self::NeverHeard => "never-heard",
            Self::HqBlind => "hq-blind",
            Self::Channel => "channel",
            Self::Chronic => "chronic",
            Self::Publication => "publication",
            Self::Hq => "hq",
            Self::Condition(condition) => return condition.fmt(f),
        })
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Capture => "capture",
            Self::Refused => "refused",
            Self::CloneOrRewind => "clone-or-rewind",
            Self::Behind => "behind",
            Self::Manifest => "manifest",
            Self::Clock => "clock",
            Self::Disk => "disk",
            Self::Loss => "loss",
            Self::NewLife => "new-life",
            Self::Restated => "restated",
            Self::Misfit => "misfit",
            Self::ColumnGone => "column-gone",
            Self::Quarantined => "quarantined",
            Self::Quota => "quota",
        })
    }
}

impl Condition {
    /// The cause it stands for.
    pub fn cause(self) -> Cause {
        match self {
            Self::Capture => Cause::CaptureStuck,
            Self::Refused => Cause::HqRefuses,
            Self::Quarantined | Self::Quota => Cause::RowsNotTaken,
            Self::CloneOrRewind | Self::NewLife => Cause::CloneOrRewind,
            Self::Misfit => Cause::Misfit,
            Self::ColumnGone => Cause::ColumnGone,
            Self::Behind => Cause::Backlog,
            Self::Manifest | Self::Loss | Self::Restated => Cause::Mismatch,
            Self::Clock => Cause::Clock,
            Self::Disk => Cause::Disk,
        }
    }
}

/// How long a site has been part of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The last good moment, not the moment of noticing.
    pub since: Timestamp,
    /// When it came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Someone took the incident, for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who.
    pub by: String,
    /// What they said.
    pub reason: String,
    /// It is loud again after this.
    pub until: Timestamp,
}

/// A line of an incident's story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub text: String,
}

/// When a level was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// 1 to 5.
    pub level: u8,
    /// When.
    pub at: Timestamp,
}

/// What silent sites have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attribute {
    /// Such as `isp`.
    pub name: String,
    /// Such as `Cascade Fiber`.
    pub value: String,
}

/// One incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Ascending; never used again.
    pub id: u64,
    /// What it is about.
    pub kind: Kind,
    /// The silent stream: `contact` or a table.
    pub stream: Option<String>,
    /// The sites it is about.
    pub members: BTreeMap<SiteId, Member>,
    /// What they share.
    pub attribute: Option<Attribute>,
    /// Why, as far as it is known.
    pub cause: Option<Cause>,
    /// The evidence, in one sentence.
    pub evidence: String,
    /// When it was noticed.
    pub opened_at: Timestamp,
    /// When it began: the last good moment of the first member.
    pub since: Timestamp,
    /// When it ended; none while it is open.
    pub closed_at: Option<Timestamp>,
    /// 0: on the screen only; 1 to 5: see [`Ladder`].
    pub level: u8,
    /// Every level reached.
    pub levels: Vec<Reached>,
    /// Business minutes missed so far.
    pub missed_minutes: f64,
    /// Up to when they are counted.
    pub counted_to: Timestamp,
    /// The group that speaks for it.
    pub held_by: Option<u64>,
    /// The group that spoke for it is over: who is heard again until then is not told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_until: Option<Timestamp>,
    /// Whether a group or a cohort ever spoke for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_held: bool,
    /// Who took it.
    pub lease: Option<Lease>,
    /// The last times people were told, newest last.
    pub told: Vec<Timestamp>,
    /// Whether a person is to be called: not yet while only the screen shows it.
    pub calls: bool,
    /// The level at which people were told last.
    #[serde(default)]
    pub told_level: u8,
    /// When a site of it relapsed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reopened_at: Option<Timestamp>,
    /// It is one of many of a site whose line is known to fail: told from level 2 on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_chronic: bool,
    /// A person said that it is an outage: no reason to be quieter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_outage: bool,
    /// How surprising the silence was at its end, in nines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_nines: Option<f64>,
    /// Its story.
    pub timeline: Vec<Entry>,
}

/// Why people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// For the first time.
    Opened,
    /// It was over for a while, and is back.
    Again,
    /// It reached a higher level.
    Louder,
    /// Nobody acted.
    Repeated,
    /// Whoever took it let the time run out.
    LeaseExpired,
    /// It is over.
    Resolved,
}

/// Whoever was well for so long had been heard for an hour: what comes then is another fall.
const OVER_FOR: i64 = 45 * 60_000_000;
/// Members of a group that is over are not told of for so long: most are heard within it.
pub(crate) const GRACE_MINUTES: i64 = 30;

impl Incident {
    /// A new incident at level 0.
    pub fn new(id: u64, kind: Kind, since: Timestamp, now: Timestamp) -> Self {
        Self {
            id,
            kind,
            stream: None,
            members: BTreeMap::new(),
            attribute: None,
            cause: None,
            evidence: String::new(),
            opened_at: now,
            since,
            closed_at: None,
            level: 0,
            levels: Vec::new(),
            missed_minutes: 0.0,
            counted_to: since,
            held_by: None,
            quiet_until: None,
            was_held: false,
            lease: None,
            told: Vec::new(),
            calls: false,
            told_level: 0,
            reopened_at: None,
            is_chronic: false,
            was_outage: false,
            peak_nines: None,
            timeline: Vec::new(),
        }
    }

    /// Adds a line to the story.
    pub fn tell(&mut self, at: Timestamp, text: impl Into<String>) {
        const TIMELINE_MAX: usize = 500;
        if self.timeline.len() >= TIMELINE_MAX {
            // The beginning and the end say most.
            self.timeline.remove(TIMELINE_MAX / 2);
        }
        self.timeline.push(Entry { at, text: text.into() });
    }

    /// Whether it still waits for its end.
    pub fn is_open(&self) -> bool {
        self.closed_at.is_none()
    }

    /// Sites that have not come back.
    pub fn absent(&self) -> impl Iterator<Item = (&SiteId, &Member)> {
        self.members.iter().filter(|(_, member)| member.until.is_none())
    }

    fn raise(&mut self, level: u8, now: Timestamp) {
        if level > self.level {
            const LEVELS_MAX: usize = 100;
            self.level = level.min(5);
            if self.levels.len() >= LEVELS_MAX {
                self.levels.remove(0);
            }
            self.levels.push(Reached { level: self.level, at: now });
            self.tell(now, format!("level {}", self.level));
        }
    }

    /// What is to be told now, if anything. The level is a ratchet: as long as the incident lasts,
    /// it never falls.
    pub fn review(&mut self, ladder: &Ladder, day_minutes: f64, now: Timestamp) -> Option<Notice> {
        let is_held = self.held_by.is_some() || self.quiet_until.is_some_and(|until| now < until);
        if !self.is_open() || !self.calls || is_held {
            return None;
        }
        let before = self.level;
        let mut notice = None;
        if let Some(lease) = &self.lease
            && now >= lease.until
        {
            let text = format!("the acknowledgement of {} ran out", lease.by);
            self.tell(now, text);
            self.lease = None;
            // It comes back one level higher, whatever the missed time says.
            self.raise(before + 1, now);
            notice = Some(Notice::LeaseExpired);
        }
        let level = ladder.level(self.missed_minutes, day_minutes).max(1);
        self.raise(level, now);
        // A taken one still reaches the next level's audience: they do not know yet.
        if self.level > self.told_level.max(u8::from(self.lease.is_some())) && notice.is_none() {
            notice = Some(match self.told_level {
                0 if self.told.is_empty() => Notice::Opened,
                0 => Notice::Again,
                _ => Notice::Louder,
            });
        }
        if notice.is_none() && self.lease.is_none() {
            let last_level = self.levels.last().map_or(self.opened_at, |reached| reached.at);
            let at_level = self.told.iter().filter(|told| **told >= last_level).count();
            let last = self.told.last().copied().unwrap_or(self.opened_at);
            if now.as_micros() - last.as_micros() >= Ladder::pause(self.level, at_level) {
                notice = Some(Notice::Repeated);
            }
        }
        let notice = notice.filter(|notice| self.may_tell(*notice, now))?;
        self.told_level = self.level;
        self.told.push(now);
        if self.told.len() > 20 {
            self.told.remove(0);
        }
        Some(notice)
    }

    /// Whether people are to be told yet. What is put off is told once it may be, at the level it
    /// has then.
    fn may_tell(&self, notice: Notice, now: Timestamp) -> bool {
        if self.is_chronic && self.level < 2 && notice != Notice::LeaseExpired {
            return false;
        }
        let day_ago = now.as_micros() - 24 * HOUR;
        let is_often = self.told.iter().filter(|told| told.as_micros() > day_ago).count() >= TOLD_PER_DAY;
        let is_flapping = self.reopened_at.is_some_and(|reopened| reopened.as_micros() > day_ago);
        match notice {
            Notice::LeaseExpired => true,
            Notice::Louder => !is_often || !is_flapping,
            // Many sites at once are no line that flaps.
            Notice::Again => !is_often || self.kind == Kind::Group,
            _ => !is_often,
        }
    }

    /// Someone takes it, at most for [`Ladder::lease_max`]. Returns until when.
    pub fn acknowledge(&mut self, by: &str, reason: &str, until: Timestamp, now: Timestamp) -> Timestamp {
        let latest = now.plus_micros(Ladder::lease_max(self.level).as_micros() as i64);
        let until = until.min(latest);
        self.lease = Some(Lease { by: by.to_owned(), reason: reason.to_owned(), until });
        self.tell(now, format!("acknowledged by {by} until {}: {reason}", until.for_people()));
        until
    }

    /// It is over. Returns whether people who were told must hear it.
    pub fn close(&mut self, reason: &str, now: Timestamp) -> bool {
        if !self.is_open() {
            return false;
        }
        self.closed_at = Some(now);
        self.lease = None;
        self.tell(now, format!("over: {reason}"));
        !self.told.is_empty()
    }

    /// Whether it ended less than a day ago: what returns within that time is the same incident.
    pub(crate) fn is_recent(&self, now: Timestamp) -> bool {
        self.closed_at.is_some_and(|closed| now.as_micros() - closed.as_micros() < 24 * HOUR)
    }

    /// It is back within a day: the same incident, with its story. If it was over for a while, this
    /// is another fall: it gets loud by its own time, and is told again; else it goes on as it was.
    pub fn reopen(&mut self, now: Timestamp, reason: &str) {
        let was_over = self.closed_at.is_some_and(|closed| now.as_micros() - closed.as_micros() >= OVER_FOR);
        if was_over {
            (self.level, self.told_level, self.missed_minutes) = (0, 0, 0.0);
        }
        self.closed_at = None;
        self.quiet_until = None;
        self.reopened_at = Some(now);
        self.was_held = false;
        self.counted_to = now;
        self.tell(now, format!("again: {reason}"));
    }
}

/// The cause a deaf HQ has.
pub fn deafness_text(why: Deafness) -> &'static str {
    match why {
        Deafness::WatchStopped => "the watch did not run: HQ was stopped or stalled",
        Deafness::FleetMissing => {
            "most of the fleet is missing at once, which is more likely HQ's own link than theirs"
        }
        Deafness::IngestFailing => "HQ cannot store what sites send",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_micros(minutes * MINUTE)
    }

    /// Twelve business hours a day, from midnight on, for simplicity.
    fn missed(minutes: i64) -> f64 {
        (minutes / 1440 * 720 + (minutes % 1440).min(720)) as f64
    }

    #[test]
    fn twelve_weeks_of_silence_never_get_quieter() {
        let mut incident = Incident::new(1, Kind::Silence, at(0), at(10));
        incident.calls = true;
        let (mut level, mut last_told, mut told) = (0, 10, 0);
        for minute in 10..84 * 1440 {
            incident.missed_minutes = missed(minute);
            if incident.review(&Ladder::default(), 720.0, at(minute)).is_some() {
                last_told = minute;
                told += 1;
            }
            assert!(incident.level >= level);
            assert!(minute - last_told <= 7 * 1440, "nobody was told for a week");
            level = incident.level;
        }
        assert_eq!(level, 5);
        assert!((12..40).contains(&told), "{told}");
        let reached: Vec<i64> = incident.levels.iter().map(|reached| reached.at.as_micros() / MINUTE).collect();
        assert_eq!(reached, [10, 240, 720, 2 * 1440 + 720, 9 * 1440 + 720]);
    }

    #[test]
    fn the_next_level_is_the_one_that_comes() {
        let ladder = Ladder::default();
        assert_eq!(ladder.next(1, 720.0), Some((2, 240.0)));
        assert_eq!(ladder.next(2, 720.0), Some((3, 720.0)));
        assert_eq!(ladder.next(4, 720.0), Some((5, 7200.0)));
        assert_eq!(ladder.next(5, 720.0), None);
        // A kiosk that is open for two hours a day has missed a day before it missed four hours.
        assert_eq!(ladder.next(1, 120.0), Some((3, 120.0)));
        assert_eq!(ladder.next(3, 120.0), Some((4, 360.0)));
    }

    #[test]
    fn an_acknowledgement_is_a_lease_and_comes_back_one_level_higher() {
        let mut incident = Incident::new(1, Kind::Silence, at(0), at(10));
        incident.calls = true;
        assert_eq!(incident.review(&Ladder::default(), 720.0, at(10)), Some(Notice::Opened));
        let until = incident.acknowledge("Ada", "the electrician is there", at(100_000), at(20));
        assert_eq!(until, at(20 + 1440), "a day at most");
        for minute in 20..20 + 1440 {
            assert_eq!(incident.review(&Ladder::default(), 720.0, at(minute)), None);
        }
        assert_eq!(incident.review(&Ladder::default(), 720.0, until), Some(Notice::LeaseExpired));
        assert_eq!(incident.level, 2);
    }

    #[test]
    fn who_took_it_before_anybody_was_told_is_not_told_of_it() {
        let mut incident = Incident::new(1, Kind::Silence, at(0), at(10));
        incident.acknowledge("Ada", "the electrician is there", at(100_000), at(11));
        incident.calls = true;
        for minute in 12..240 {
            incident.missed_minutes = missed(minute);
            assert_eq!(incident.review(&Ladder::default(), 720.0, at(minute)), None, "{minute}");
        }
        incident.missed_minutes = 240.0;
        assert_eq!(
            incident.review(&Ladder::default(), 720.0, at(241)),
            Some(Notice::Opened),
            "others, who do not know"
        );
    }

    #[test]
    fn a_fall_after_an_hour_is_told_again_and_gets_loud_by_its_own_time() {
        let mut incident = Incident::new(1, Kind::Group, at(0), at(0));
        incident.calls = true;
        incident.missed_minutes = 8_000.0;
        assert_eq!(incident.review(&Ladder::default(), 720.0, at(10)), Some(Notice::Opened));
        assert_eq!(incident.level, 5);
        for fall in 1..6 {
            incident.close("back", at(fall * 180));
            incident.reopen(at(fall * 180 + 60), "gone");
            assert_eq!(incident.review(&Ladder::default(), 720.0, at(fall * 180 + 60)), Some(Notice::Again));
            assert_eq!(incident.level, 1);
        }
        // A relapse within minutes is the same fall.
        incident.close("back", at(2_000));
        incident.reopen(at(2_010), "gone");
        assert_eq!(incident.review(&Ladder::default(), 720.0, at(2_010)), None);
    }

    #[test]
    fn a_flapping_site_calls_twice_a_day_at_most() {
        let mut incident = Incident::new(1, Kind::Silence, at(0), at(0));
        incident.calls = true;
        let mut told = 0;
        for drop in 0..20 {
            let now = at(drop * 60);
            incident.reopen(now, "dropped");
            told += usize::from(incident.review(&Ladder::default(), 720.0, now).is_some());
            incident.close("back", now);
        }
        assert!((1..=2).contains(&told), "{told}");
    }
}
