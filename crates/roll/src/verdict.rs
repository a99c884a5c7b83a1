//! The roll: what the watch says of each site, now.

use std::collections::BTreeMap;

use rollcall_types::{Cause, SiteId, SiteState};

use crate::{
    incident::{Condition, Kind},
    learn::LEARNING_DAYS,
    site::Verdict,
    sites::SiteNumber,
    stream::{Loudness, StreamId},
    watch::{Watch, instant},
};

/// A shop may close so many seconds before its hours end.
const CLOSING: i64 = 900;
/// A week below this share of its busiest rate is a closed time.
const BUSY: f32 = 0.1;

impl Watch {
    /// Sites whose rows are known to be wrong or incomplete, however current they are, and why.
    pub fn flawed_sites(&self) -> BTreeMap<SiteId, Cause> {
        let is_flaw = |condition| {
            matches!(
                condition,
                Condition::Manifest
                    | Condition::Loss
                    | Condition::Refused
                    | Condition::CloneOrRewind
                    | Condition::NewLife
                    | Condition::Restated
            )
        };
        self.incidents
            .open()
            .filter_map(|incident| match incident.kind {
                Kind::Condition(condition) if is_flaw(condition) => {
                    Some((incident.members.keys().next()?.clone(), condition.cause()))
                }
                _ => None,
            })
            .collect()
    }

    /// Of a site that said goodbye at `last`: a shop whose declared hours say that it was open
    /// then, and for a while, did not close; its agent was stopped. That is said before what else
    /// is wrong with it.
    fn cause_of_goodbye(&self, number: SiteNumber, last: i64) -> Cause {
        match self.clock.calendar(self.sites[number].calendar).says_open(last, CLOSING) {
            true => Cause::AgentDown,
            false => Cause::Closed,
        }
    }

    /// The state of a site; none if it is not on the watch.
    pub fn verdict(&self, id: &SiteId) -> Option<Verdict> {
        let number = self.number(id)?;
        let site = &self.sites[number];
        let trouble = site.trouble();
        let contact = site.streams.first().map(|stream| (*stream, self.clock.last(*stream)));
        let last_heard = contact.map(|(_, last)| instant(last));
        let learning_day = contact.and_then(|(stream, _)| self.learning_day(stream));
        let verdict = |state, since, cause| Verdict { state, since, cause, last_heard, learning_day };
        let incident = self.incident_of(number);
        let known_cause = incident.and_then(|known| known.cause);
        if site.retired {
            return Some(verdict(SiteState::Retired, None, None));
        }
        let is_so = |condition: &Condition| trouble.conditions.contains_key(condition);
        if let Some(condition) = [Condition::CloneOrRewind, Condition::Refused].into_iter().find(is_so) {
            return Some(verdict(SiteState::Silent, last_heard, Some(condition.cause())));
        }
        if self.clock.calendar(site.calendar).closed_until(self.now).is_some() {
            return Some(verdict(SiteState::DeclaredClosed, last_heard, Some(Cause::Closed)));
        }
        let Some((stream, last)) = contact else {
            let (state, cause) = match (self.now < site.expected_from, site.enrolled) {
                (true, _) => (SiteState::QuietExpected, Cause::Closed),
                (false, true) => (SiteState::NeverHeard, Cause::PowerOrLink),
                (false, false) => (SiteState::NeverHeard, Cause::NeverEnrolled),
            };
            return Some(verdict(state, None, Some(cause)));
        };
        let quiet_units = (self.now - last) / self.config.contact_unit;
        // Its clock stands still while HQ is deaf, also if it fell silent after that began.
        if self.guard.deaf().is_some() && quiet_units > 3 {
            return Some(verdict(SiteState::Unknown, last_heard, None));
        }
        let loudness = self.clock.loudness(stream);
        if loudness >= Loudness::Red {
            return Some(verdict(SiteState::Silent, last_heard, known_cause.or(Some(Cause::PowerOrLink))));
        }
        // Where most of its kind went as well, being late says nothing more.
        let is_assumed = quiet_units > 3 && self.clock.is_assumed(stream);
        if loudness >= Loudness::Amber && !(is_assumed && self.clock.is_in_quiet_cohort(stream)) {
            return Some(verdict(SiteState::Late, last_heard, Some(Cause::PowerOrLink)));
        }
        let gone = (site.said_goodbye && self.now < site.excused_until).then(|| self.cause_of_goodbye(number, last));
        if let Some(Cause::AgentDown) = gone {
            return Some(verdict(SiteState::QuietExpected, last_heard, gone));
        }
        if let Some(condition) = trouble.conditions.keys().next() {
            return Some(verdict(SiteState::Late, last_heard, Some(condition.cause())));
        }
        if gone.is_some() {
            return Some(verdict(SiteState::QuietExpected, last_heard, gone));
        }
        let is_quiet_time = self.clock.busyness(stream, self.now) < BUSY;
        if is_assumed && (is_quiet_time || self.clock.is_in_quiet_cohort(stream)) {
            return Some(verdict(SiteState::OutsideAssumedHours, last_heard, None));
        }
        if quiet_units > 3 && is_quiet_time {
            return Some(verdict(SiteState::QuietExpected, last_heard, Some(Cause::Closed)));
        }
        if let Some(incident) = incident.filter(|_| trouble.back_since.is_none())
            && matches!(incident.kind, Kind::Drop | Kind::Silence)
        {
            return Some(verdict(SiteState::Late, Some(incident.since), Some(Cause::NoFlow)));
        }
        if trouble.back_since.is_some() || site.has_backlog {
            let since = trouble.back_since.map(instant).or(last_heard);
            return Some(verdict(SiteState::Recovering, since, Some(Cause::Backlog)));
        }
        Some(verdict(SiteState::Ok, last_heard, None))
    }

    /// Which day of learning a stream is in; none once it knows enough.
    fn learning_day(&self, stream: StreamId) -> Option<i64> {
        let age = self.streams.past(stream)?.age_days(instant(self.now));
        (age < LEARNING_DAYS).then_some(age + 1)
    }
}
