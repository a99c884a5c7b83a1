//! Tables that are edited at both ends: which of two versions of a row, made without knowledge of
//! each other, stays.
//!
//! HQ is the hub. A site's edit says which of HQ's versions the editor had seen (its *base*); what
//! others did to the row since then is what it conflicts with. HQ decides and publishes; the sites
//! take what HQ has. So all ends come to the same rows, whatever the order in which edits arrive,
//! and nothing goes back and forth: an edit is decided once.
//!
//! Times are those of a hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014):
//! see [`stamp`].

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Behind the name of a shared table: the table in which a store's edits of it wait to be decided.
pub const EDITS_SUFFIX: &str = "_edits";
/// Behind the name of a shared table: the table in which HQ keeps what lost.
pub const CONFLICTS_SUFFIX: &str = "_conflicts";
/// Numbers a store's edits of one table, ascending.
pub const EDIT_NUMBER: &str = "edit_number";
/// The version of HQ's that the editor had seen.
pub const EDIT_BASE: &str = "edit_base";
/// 1 if the row was deleted.
pub const EDIT_GONE: &str = "edit_gone";
/// The columns that were changed, with commas between.
pub const EDIT_CHANGED: &str = "edit_changed";
/// When, by the site's own clock, milliseconds since 1970.
pub const EDIT_AT: &str = "edit_at";
/// How many of the table's columns the store's table had: the first so many, in HQ's order.
pub const EDIT_COLUMNS: &str = "edit_columns";

/// In a conflict: the site's clock was wrong when the edit was made, in a way that HQ does not
/// know.
pub const EDIT_IN_DOUBT: &str = "edit_in_doubt";

/// Column names that the tables beside a shared one need for themselves; those of conflicts first.
pub const RESERVED_COLUMNS: [&str; 14] = [
    "edit_site",
    "edit_epoch",
    "edited_at",
    "kept",
    "lost",
    "lost_columns",
    "lost_deletion",
    EDIT_IN_DOUBT,
    EDIT_NUMBER,
    EDIT_BASE,
    EDIT_GONE,
    EDIT_CHANGED,
    EDIT_AT,
    EDIT_COLUMNS,
];

/// Which of two versions stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// What HQ changed stays; among sites, the latest.
    Hq,
    /// What a site changed stays; among sites, the latest.
    Site,
    /// The latest.
    Latest,
    /// In each column the latest.
    Fields,
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "hq" => Ok(Self::Hq),
            "site" => Ok(Self::Site),
            "latest" => Ok(Self::Latest),
            "fields" => Ok(Self::Fields),
            _ => Err(format!("{name:?} is not one of hq, site, latest, fields")),
        }
    }
}

/// What somebody did to a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// A site's id, or [`crate::HQ_SITE`].
    pub by: String,
    /// See [`stamp`].
    pub at: i64,
    /// The columns that it changed.
    pub changed: Vec<String>,
    /// It deleted the row.
    #[serde(default)]
    pub gone: bool,
    /// It repeats the version before it, for a site that had made another of the row: nobody did
    /// anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restated: bool,
}

impl Version {
    fn is_hqs(&self) -> bool {
        self.by == crate::HQ_SITE
    }

    /// No two of one maker have the same time, so this orders all.
    fn order(&self) -> (i64, &str) {
        (self.at, &self.by)
    }
}

/// What becomes of an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nobody else touched what it changed, or it is ahead of those who did: the row is as the edit
    /// has it.
    Taken {
        /// Whose version it puts aside; none if nobody's.
        over: Option<String>,
    },
    /// These columns are as the edit has them, the others stay.
    Partly {
        /// Taken from the edit.
        columns: Vec<String>,
        /// Columns of the edit that lost.
        lost: Vec<String>,
        /// Who changed the first of them later; none if nothing was lost.
        to: Option<String>,
    },
    /// The row stays as it is.
    Lost {
        /// Whose version it lost to.
        to: String,
    },
}

/// The time of an edit in microseconds since 1970: a hybrid logical clock. What was made with
/// knowledge of something is later than that, whatever the clocks showed; and nothing was made
/// after HQ heard of it.
pub fn stamp(clock: i64, heard: i64, known: Option<i64>) -> i64 {
    let clock = clock.min(heard);
    known.map_or(clock, |known| clock.max(known + 1))
}

/// Decides on an edit, of which the editor did not know what others did to the row: `since`, oldest
/// first.
pub fn decide(rule: Rule, since: &[Version], edit: &Version) -> Decision {
    let latest = |versions: &mut dyn Iterator<Item = &Version>| versions.max_by_key(|of| of.order()).cloned();
    let Some(newest) = latest(&mut since.iter()) else { return Decision::Taken { over: None } };
    let against = |rival: Option<Version>| match rival {
        Some(rival) if rival.order() > edit.order() => Decision::Lost { to: rival.by },
        rival => Decision::Taken { over: Some(rival.unwrap_or(newest.clone()).by) },
    };
    match rule {
        Rule::Hq => match since.iter().rfind(|of| of.is_hqs()) {
            Some(hqs) => Decision::Lost { to: hqs.by.clone() },
            None => against(Some(newest.clone())),
        },
        Rule::Site => against(latest(&mut since.iter().filter(|of| !of.is_hqs()))),
        Rule::Latest => against(Some(newest.clone())),
        // A row goes or stays as a whole.
        Rule::Fields if edit.gone || since.last().is_some_and(|last| last.gone) => against(Some(newest.clone())),
        Rule::Fields => {
            let later = |column: &String| {
                latest(&mut since.iter().filter(|of| of.changed.contains(column)))
                    .filter(|rival| rival.order() > edit.order())
            };
            let to = edit.changed.iter().find_map(later).map(|rival| rival.by);
            let (lost, columns) = edit.changed.iter().cloned().partition(|column| later(column).is_some());
            Decision::Partly { columns, lost, to }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(by: &str, at: i64, changed: &[&str]) -> Version {
        Version {
            by: by.to_owned(),
            at,
            changed: changed.iter().map(|name| (*name).to_owned()).collect(),
            gone: false,
            restated: false,
        }
    }

    #[test]
    fn each_rule_decides_as_it_says() {
        let (hq, other) = (version("hq", 50, &["name"]), version("boston-01", 90, &["phone"]));
        let edit = version("tacoma-01", 70, &["name", "phone"]);
        let since = [hq.clone(), other.clone()];
        let lost = |to: &str| Decision::Lost { to: to.to_owned() };
        let taken = |over: &str| Decision::Taken { over: Some(over.to_owned()) };
        assert_eq!(decide(Rule::Latest, &[], &edit), Decision::Taken { over: None });
        assert_eq!(decide(Rule::Hq, &since, &edit), lost("hq"));
        assert_eq!(decide(Rule::Site, &since, &edit), lost("boston-01"));
        assert_eq!(decide(Rule::Site, &[version("hq", 99, &["name"])], &edit), taken("hq"));
        assert_eq!(decide(Rule::Latest, &since, &edit), lost("boston-01"));
        assert_eq!(decide(Rule::Latest, &[hq], &edit), taken("hq"));
        let partly = Decision::Partly {
            columns: vec!["name".to_owned()],
            lost: vec!["phone".to_owned()],
            to: Some("boston-01".to_owned()),
        };
        assert_eq!(decide(Rule::Fields, &since, &edit), partly);
        let gone = Version { gone: true, ..version("boston-01", 90, &[]) };
        assert_eq!(decide(Rule::Fields, &[gone], &edit), lost("boston-01"));
    }

    #[test]
    fn what_knows_of_another_is_later_whatever_the_clocks_show() {
        assert_eq!(stamp(1_000, 5_000, Some(4_000)), 4_001);
        assert_eq!(stamp(9_000_000, 5_000, None), 5_000);
        assert_eq!(stamp(4_500, 5_000, Some(4_000)), 4_500);
    }
}
