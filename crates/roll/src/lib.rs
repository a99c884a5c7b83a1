//! Calls the roll: turns what was heard of a site into its state. Pure logic: time is an argument, there is no I/O.
//!
//! What is here judges contact by fixed limits; it knows no opening hours and no rhythm yet. It already keeps the rule that
//! matters most: a site is expected because it is on the roster, never because it was heard recently, and its state never
//! gets quieter with time.
#![forbid(unsafe_code)]

use std::time::Duration;

use rollcall_types::{Cause, SiteState, Timestamp};

/// When absence counts as late and as silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Nothing heard for this long: late.
    pub late_after: Duration,
    /// Nothing heard for this long: silent.
    pub silent_after: Duration,
    /// Complete through less than this long ago counts as current.
    pub behind_after: Duration,
}

impl Limits {
    /// Limits for sites that send a beacon every `interval`: late after three missed ones, silent after `silent_after`.
    pub fn for_beacons(interval: Duration, silent_after: Duration) -> Self {
        let late_after = (interval * 3).min(silent_after);
        Self { late_after, silent_after, behind_after: (interval * 4).max(Duration::from_secs(10)) }
    }
}

/// What is known of one site. All times are HQ's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// Whether it ever used an invitation.
    pub enrolled: bool,
    /// Whether a person retired it.
    pub retired: bool,
    /// When anything was heard of it last.
    pub last_heard: Option<Timestamp>,
    /// It said goodbye, and nothing was heard since.
    pub said_goodbye: bool,
    /// Every change committed there up to this time is here.
    pub complete_through: Option<Timestamp>,
    /// The site says that its capture is broken.
    pub capture_broken: bool,
    /// HQ turns it away, and why.
    pub refused: Option<Cause>,
}

/// What the roll says of one site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Its state.
    pub state: SiteState,
    /// Since when, as far as that can be told: the last good moment, not the moment of noticing.
    pub since: Option<Timestamp>,
    /// Why.
    pub cause: Option<Cause>,
}

/// Judges one site at `now`. `hearing_since` is when HQ began to listen: before it has listened for as long as silence
/// takes, the absence of a site says nothing about the site.
pub fn judge(facts: &Facts, limits: &Limits, hearing_since: Timestamp, now: Timestamp) -> Verdict {
    let verdict = |state, since, cause| Verdict { state, since, cause };
    if facts.retired {
        return verdict(SiteState::Retired, None, None);
    }
    if let Some(cause) = facts.refused {
        return verdict(SiteState::Silent, facts.complete_through, Some(cause));
    }
    let Some(heard) = facts.last_heard else {
        let cause = if facts.enrolled { Cause::PowerOrLink } else { Cause::NeverEnrolled };
        return verdict(SiteState::NeverHeard, None, Some(cause));
    };
    let quiet = now.since(heard);
    if facts.said_goodbye {
        return verdict(SiteState::QuietExpected, Some(heard), Some(Cause::Closed));
    }
    if quiet > limits.late_after && heard < hearing_since && now.since(hearing_since) < limits.silent_after {
        return verdict(SiteState::Unknown, Some(heard), None);
    }
    if quiet > limits.silent_after {
        return verdict(SiteState::Silent, Some(heard), Some(Cause::PowerOrLink));
    }
    if quiet > limits.late_after {
        return verdict(SiteState::Late, Some(heard), Some(Cause::PowerOrLink));
    }
    if facts.capture_broken {
        return verdict(SiteState::Late, facts.complete_through, Some(Cause::CaptureStuck));
    }
    match facts.complete_through {
        Some(through) if now.since(through) <= limits.behind_after => verdict(SiteState::Ok, Some(through), None),
        through => verdict(SiteState::Recovering, through, Some(Cause::Backlog)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_micros(minutes * MINUTE)
    }

    fn limits() -> Limits {
        Limits::for_beacons(Duration::from_secs(30), Duration::from_secs(300))
    }

    fn healthy(minute: i64) -> Facts {
        Facts { enrolled: true, last_heard: Some(at(minute)), complete_through: Some(at(minute)), ..Facts::default() }
    }

    fn state(facts: &Facts, now: i64) -> (SiteState, Option<Cause>) {
        let verdict = judge(facts, &limits(), at(0), at(now));
        (verdict.state, verdict.cause)
    }

    #[test]
    fn silence_only_gets_louder() {
        let facts = healthy(10);
        assert_eq!(state(&facts, 11).0, SiteState::Ok);
        assert_eq!(state(&facts, 13), (SiteState::Late, Some(Cause::PowerOrLink)));
        for later in [16, 1_000, 1_000_000] {
            assert_eq!(state(&facts, later), (SiteState::Silent, Some(Cause::PowerOrLink)));
        }
    }

    #[test]
    fn a_goodbye_explains_quiet_and_a_listed_site_is_never_forgotten() {
        assert_eq!(state(&Facts { said_goodbye: true, ..healthy(10) }, 600).0, SiteState::QuietExpected);
        assert_eq!(state(&Facts::default(), 600), (SiteState::NeverHeard, Some(Cause::NeverEnrolled)));
        assert_eq!(state(&Facts { retired: true, ..healthy(10) }, 600).0, SiteState::Retired);
    }

    #[test]
    fn a_link_without_progress_is_not_ok() {
        let stuck = Facts { complete_through: Some(at(10)), ..healthy(100) };
        assert_eq!(state(&stuck, 100), (SiteState::Recovering, Some(Cause::Backlog)));
        assert_eq!(
            state(&Facts { capture_broken: true, ..healthy(100) }, 100),
            (SiteState::Late, Some(Cause::CaptureStuck))
        );
        let fenced = Facts { refused: Some(Cause::CloneOrRewind), ..healthy(100) };
        assert_eq!(state(&fenced, 100), (SiteState::Silent, Some(Cause::CloneOrRewind)));
    }

    #[test]
    fn after_a_stop_of_hq_nothing_is_said_about_sites_for_a_while() {
        let facts = healthy(10);
        let at_restart = |now| judge(&facts, &limits(), at(100), at(now)).state;
        assert_eq!(at_restart(101), SiteState::Unknown);
        assert_eq!(at_restart(106), SiteState::Silent);
    }
}
