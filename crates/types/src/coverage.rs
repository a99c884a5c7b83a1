//! Which sites an answer is about, and which of them it is missing.

use serde::{Deserialize, Serialize};

use crate::{Cause, SiteId, SiteState, Timestamp};

/// What an answer must say about itself: the sites in scope, how many are complete, and who is missing since when.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Coverage {
    /// Sites the answer is about.
    pub scope: usize,
    /// Sites of the scope whose rows are all here.
    pub complete: usize,
    /// The earliest instant through which every complete site is complete; none when no site is.
    pub complete_through: Option<Timestamp>,
    /// The sites that are not complete, ordered by id.
    pub missing: Vec<MissingSite>,
}

/// One site an answer is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingSite {
    /// Which site.
    pub site: SiteId,
    /// Complete through this instant; none when it never was.
    pub since: Option<Timestamp>,
    /// Its state in the roll.
    pub state: SiteState,
    /// Why, as far as it is known.
    pub cause: Option<Cause>,
    /// How many rows are expected to be missing; none while no rhythm is known.
    pub expected_rows: Option<u64>,
}

/// How many missing sites [`Coverage::summary`] names before it counts the rest.
const NAMED_SITES_MAX: usize = 8;

impl Coverage {
    /// Whether nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// One or two sentences for people; never empty.
    pub fn summary(&self) -> String {
        let through = match self.complete_through {
            Some(time) => format!(" through {time}"),
            None => String::new(),
        };
        let mut text = format!("{} sites in scope, {} complete{through}", self.scope, self.complete);
        for (index, missing) in self.missing.iter().take(NAMED_SITES_MAX).enumerate() {
            text.push_str(if index == 0 { "; missing: " } else { ", " });
            text.push_str(&missing.describe());
        }
        if self.missing.len() > NAMED_SITES_MAX {
            text.push_str(&format!(" and {} more", self.missing.len() - NAMED_SITES_MAX));
        }
        text
    }
}

impl MissingSite {
    fn describe(&self) -> String {
        let mut text = format!("{} {}", self.site, self.state);
        if let Some(since) = self.since {
            text.push_str(&format!(", complete through {since}"));
        }
        if let Some(cause) = self.cause {
            text.push_str(&format!(" ({cause})"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_the_missing() {
        let coverage = Coverage {
            scope: 2,
            complete: 1,
            complete_through: Some(Timestamp::from_micros(0)),
            missing: vec![MissingSite {
                site: SiteId::new("tacoma-01").expect("valid"),
                since: None,
                state: SiteState::NeverHeard,
                cause: Some(Cause::NeverEnrolled),
                expected_rows: None,
            }],
        };
        assert_eq!(
            coverage.summary(),
            "2 sites in scope, 1 complete through 1970-01-01T00:00:00Z; missing: tacoma-01 never-heard (never enrolled)"
        );
    }
}
