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
    /// Quiet, and it said so, or its hours say so: declared ones, or learned ones.
    QuietExpected,
    /// Quiet like most of its kind, without a goodbye; nobody declared its hours, and they are not
    /// learned yet.
    OutsideAssumedHours,
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
    /// All of them, those that a person should look at first.
    pub const ALL: [Self; 10] = [
        Self::NeverHeard,
        Self::Silent,
        Self::Late,
        Self::Unknown,
        Self::Recovering,
        Self::Ok,
        Self::OutsideAssumedHours,
        Self::QuietExpected,
        Self::DeclaredClosed,
        Self::Retired,
    ];

    /// Whether the site is missing: what happened there of late is not known here, and nothing
    /// explains that. An answer about now is not complete without it.
    pub fn is_finding(self) -> bool {
        matches!(self, Self::NeverHeard | Self::Late | Self::Silent | Self::Recovering | Self::Unknown)
    }
}

/// The roll in a sentence: how many sites are missing, and how many are in which state. Retired
/// sites do not count.
pub fn roll_sentence(states: impl IntoIterator<Item = SiteState>) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for state in states.into_iter().filter(|state| *state != SiteState::Retired) {
        *counts.entry(state).or_insert(0_usize) += 1;
    }
    let sum =
        |of: &dyn Fn(SiteState) -> bool| counts.iter().filter(|(state, _)| of(**state)).map(|(_, count)| count).sum();
    let (all, missing): (usize, usize) = (sum(&|_| true), sum(&SiteState::is_finding));
    let missing = if missing == 0 { "none".to_owned() } else { missing.to_string() };
    let named = SiteState::ALL.iter().filter_map(|state| Some(format!("{} {state}", counts.get(state)?)));
    let named: Vec<String> = named.collect();
    let sites = if all == 1 { "site" } else { "sites" };
    if named.is_empty() {
        format!("{all} {sites}")
    } else {
        format!("{all} {sites}, {missing} missing: {}", named.join(", "))
    }
}

impl fmt::Display for SiteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NeverHeard => "never-heard",
            Self::Ok => "ok",
            Self::QuietExpected => "quiet-expected",
            Self::OutsideAssumedHours => "outside-assumed-hours",
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
    /// Rows of it are kept aside, over its quota, or gone at HQ, and are to be sent again.
    RowsNotTaken,
    /// It has not taken what HQ published.
    NotUpdated,
    /// Its store has the table, and it is not captured there.
    NotCaptured,
    /// Its store had the column, and has it no more.
    ColumnGone,
    /// It does not send the column, as the store or HQ asked; others do.
    ColumnLeftOut,
    /// What time its rows are from is not sure: its time zone is not known, or was another.
    Zone,
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
            Self::RowsNotTaken => "rows not taken",
            Self::NotUpdated => "has not taken an update",
            Self::NotCaptured => "table not captured",
            Self::ColumnGone => "column gone",
            Self::ColumnLeftOut => "column left out",
            Self::Zone => "time zone",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_the_roll_add_up_to_it() {
        let mut states = vec![SiteState::Ok; 3];
        assert_eq!(roll_sentence(states.clone()), "3 sites, none missing: 3 ok");
        states.extend([SiteState::Silent, SiteState::OutsideAssumedHours, SiteState::Recovering, SiteState::Retired]);
        let said = roll_sentence(states);
        assert_eq!(said, "6 sites, 2 missing: 1 silent, 1 recovering, 3 ok, 1 outside-assumed-hours");
        assert_eq!(roll_sentence([]), "0 sites");
    }
}
