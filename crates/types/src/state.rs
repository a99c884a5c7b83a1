//! What the roll says about a site.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A site's state in the roll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteState {
    /// On the roster, never heard from.
    NeverHeard,
    /// Heard from as expected, nothing outstanding.
    Ok,
    /// Quiet, and it said so or its hours say so.
    QuietExpected,
    /// Later than expected; not yet called silent.
    Late,
    /// Absent without an explanation.
    Silent,
    /// Heard again, still catching up.
    Recovering,
    /// A person declared it closed.
    DeclaredClosed,
    /// HQ itself could not hear, so nothing can be said.
    Unknown,
    /// No longer expected; its key is revoked.
    Retired,
}

impl SiteState {
    /// Whether a person should look: the site is missing without an explanation.
    pub fn is_finding(self) -> bool {
        matches!(self, Self::NeverHeard | Self::Late | Self::Silent)
    }
}

impl fmt::Display for SiteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NeverHeard => "never-heard",
            Self::Ok => "ok",
            Self::QuietExpected => "quiet-expected",
            Self::Late => "late",
            Self::Silent => "silent",
            Self::Recovering => "recovering",
            Self::DeclaredClosed => "declared-closed",
            Self::Unknown => "unknown",
            Self::Retired => "retired",
        })
    }
}

/// Why a site is in a state other than [`SiteState::Ok`], as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Never enrolled: its invitation was never used.
    NeverEnrolled,
    /// It said goodbye.
    Closed,
    /// Nothing arrives at all: power or link.
    PowerOrLink,
    /// The connection is there; its changes are not being captured.
    CaptureStuck,
    /// HQ refuses what it sends (certificate, quarantine, fenced journal).
    HqRefuses,
    /// The connection is there and data waits at the site.
    Backlog,
    /// Its journal went backwards or exists twice.
    CloneOrRewind,
    /// Its machine answers, the agent does not run.
    AgentDown,
    /// It talks to something that is not HQ, or to an old address.
    Void,
    /// Its clock is far off.
    Clock,
    /// Its disk is full.
    Disk,
    /// It is heard, and rows that should come do not.
    NoFlow,
    /// What arrived is not what the site counted.
    Mismatch,
    /// Values do not fit their column's type.
    Misfit,
    /// It has not taken what HQ published.
    NotUpdated,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NeverEnrolled => "never enrolled",
            Self::Closed => "closed",
            Self::PowerOrLink => "power or link",
            Self::CaptureStuck => "capture stuck",
            Self::HqRefuses => "HQ refuses it",
            Self::Backlog => "backlog",
            Self::CloneOrRewind => "clone or rewind",
            Self::AgentDown => "agent down",
            Self::Void => "void: it talks to something else",
            Self::Clock => "clock",
            Self::Disk => "disk",
            Self::NoFlow => "heard, but no rows",
            Self::Mismatch => "counts differ",
            Self::Misfit => "values do not fit",
            Self::NotUpdated => "has not taken an update",
        })
    }
}
