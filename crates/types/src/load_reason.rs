//! Why a site states a table's rows again.

use std::{fmt, str::FromStr};

/// Why a load was begun. It travels in the site's log with the mark of the load's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoadReason {
    /// The table is captured from now on.
    First,
    /// HQ allotted a new life of the journal, and knows nothing of it.
    NewEpoch,
    /// Columns that were excluded are captured.
    Widened,
    /// The table's columns changed.
    Columns,
    /// VACUUM may have renumbered the rows of a table without a key.
    Vacuum,
    /// Triggers of ours were missing or had another text.
    Triggers,
    /// A trigger of the store's ran before ours and may have kept them from running.
    TriggerOrder,
    /// The table's rows are not as many as were captured.
    Bypassed,
    /// Tables of ours were missing in the store's file.
    Restored,
    /// An earlier version of the agent may have sent rows twice, or keys that HQ took for one.
    Update,
    /// HQ asked for it: what it could not take before it can now, or it lost rows.
    Asked,
}

impl LoadReason {
    const ALL: [Self; 11] = [
        Self::First,
        Self::NewEpoch,
        Self::Widened,
        Self::Columns,
        Self::Vacuum,
        Self::Triggers,
        Self::TriggerOrder,
        Self::Bypassed,
        Self::Restored,
        Self::Update,
        Self::Asked,
    ];

    /// Whether HQ may lack rows, or have wrong ones, until the load is complete.
    pub fn is_suspect(self) -> bool {
        matches!(self, Self::Triggers | Self::TriggerOrder | Self::Bypassed | Self::Restored | Self::Update)
    }

    /// The word for it in the site's log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::NewEpoch => "new-epoch",
            Self::Widened => "widened",
            Self::Columns => "columns",
            Self::Vacuum => "vacuum",
            Self::Triggers => "triggers",
            Self::TriggerOrder => "trigger-order",
            Self::Bypassed => "bypassed",
            Self::Restored => "restored",
            Self::Update => "update",
            Self::Asked => "asked",
        }
    }
}

impl FromStr for LoadReason {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == word)
            .ok_or_else(|| format!("no reason is called {word:?}"))
    }
}

/// For people: what is wrong, or was done.
impl fmt::Display for LoadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "it is captured from now on",
            Self::NewEpoch => "its journal began a new life",
            Self::Widened => "more of its columns are captured",
            Self::Columns => "its columns changed",
            Self::Vacuum => "it has no primary key, and its rows may have other numbers since the database was vacuumed or its schema changed",
            Self::Triggers => "triggers that capture it were missing or changed",
            Self::TriggerOrder => "a newer trigger of the store's may have kept changes from being captured",
            Self::Bypassed => "it has another number of rows than were captured: changes passed by the triggers",
            Self::Restored => "tables of the agent's were dropped from the store's database",
            Self::Update => "an earlier version of the agent may have sent rows of it twice",
            Self::Asked => "HQ asked for it",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_read_back() {
        for reason in LoadReason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
    }
}
