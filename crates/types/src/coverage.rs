//! Which sites an answer is about, and which of them it is missing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Cause, SiteId, SiteState, TableName, Timestamp};

/// What an answer must say about itself: the sites in scope, how many are complete, and who is
/// missing since when.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Coverage {
    /// Whether the question reads tables of the sites' at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reads_sites: bool,
    /// Sites the answer is about.
    pub scope: usize,
    /// Sites of the scope whose rows are all here.
    pub complete: usize,
    /// The earliest instant through which every complete site is complete; none when no site is.
    pub complete_through: Option<Timestamp>,
    /// The question is only about events before this: sites complete up to it are complete for this
    /// answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The sites that are not complete, ordered by id.
    pub missing: Vec<MissingSite>,
    /// How many rows are expected to be missing in all, and what they are worth; none while no
    /// rhythm of a missing site is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortfall: Option<Shortfall>,
    /// What share of the rows is missing, as far as the sites' rhythms and the question tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_share: Option<Share>,
    /// Columns that the question reads and that lack values which did not fit their type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub misfits: Vec<ColumnMisfits>,
    /// Site ids that the question asks for by name and that are not on the roster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlisted: Vec<Unlisted>,
    /// The same for each group, of an answer that is grouped by site attributes; only incomplete
    /// ones if there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupCoverage>,
}

/// An estimate of what is missing, with one standard deviation of each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shortfall {
    /// Rows.
    pub rows: f64,
    /// Of the rows.
    pub rows_plus_minus: f64,
    /// What they are worth, by the measures declared of their tables; none where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<f64>,
    /// Of the amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_plus_minus: Option<f64>,
}

/// An estimate of a share of rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Between 0 and 1.
    pub share: f64,
    /// One standard deviation of it.
    pub plus_minus: f64,
}

/// One site an answer is missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// What these rows are worth, by the measures declared of their tables; none where there is
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_amount: Option<f64>,
}

/// A site id that is not on the roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlisted {
    /// The id, as it was asked for.
    pub id: String,
    /// The site that may be meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meant: Option<SiteId>,
}

/// A column of which values are not in answers, because they do not fit its type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnMisfits {
    /// The table.
    pub table: TableName,
    /// The column.
    pub column: String,
    /// Its type.
    pub kind: String,
    /// How many values.
    pub values: u64,
    /// By site.
    pub sites: BTreeMap<SiteId, u64>,
    /// Whether they are more than a few at some site. A few are told of, but an answer is complete
    /// all the same: of years of sales one odd value would spoil every sum.
    #[serde(default = "yes")]
    pub is_many: bool,
    /// A wider type that takes them in; none if no type does.
    pub fits: Option<String>,
}

/// An HQ that says nothing of it tells only of many.
fn yes() -> bool {
    true
}

/// One group's coverage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCoverage {
    /// The attributes that make the group.
    pub group: BTreeMap<String, Option<String>>,
    /// Its sites in scope.
    pub scope: usize,
    /// Those whose rows are all here.
    pub complete: usize,
    /// Those that are missing.
    pub missing: Vec<SiteId>,
}

/// How many missing sites [`Coverage::summary`] names before it counts the rest.
const NAMED_SITES_MAX: usize = 8;
/// How many incomplete groups it names.
const NAMED_GROUPS_MAX: usize = 8;

impl Coverage {
    /// Whether nothing is missing: no site, none that nobody knows, and no more than a few values
    /// of the columns read.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.unlisted.is_empty() && !self.misfits.iter().any(|column| column.is_many)
    }

    /// As JSON, for programs: all fields, and before them what [`Self::is_complete`] and
    /// [`Self::summary`] make of them, so that no program has to judge by the fields.
    pub fn to_json(&self) -> serde_json::Result<String> {
        #[derive(Serialize)]
        struct Judged<'a> {
            is_complete: bool,
            summary: String,
            #[serde(flatten)]
            coverage: &'a Coverage,
        }
        serde_json::to_string(&Judged { is_complete: self.is_complete(), summary: self.summary(), coverage: self })
    }

    /// One or two sentences for people; never empty.
    pub fn summary(&self) -> String {
        let unlisted = self.unlisted();
        if self.scope == 0 {
            return format!("no site's rows are in this answer's scope{unlisted}");
        }
        let through = match (self.until, self.complete_through) {
            (Some(until), _) => format!(" for all before {}", until.for_people()),
            (None, Some(time)) => format!(" through {}", time.for_people()),
            (None, None) => String::new(),
        };
        let noun = if self.scope == 1 { "site" } else { "sites" };
        let mut text = format!("{} {noun} in scope, {} complete{through}", self.scope, self.complete);
        for (index, missing) in self.missing.iter().take(NAMED_SITES_MAX).enumerate() {
            text.push_str(if index == 0 { "; missing: " } else { ", " });
            text.push_str(&missing.describe());
        }
        if self.missing.len() > NAMED_SITES_MAX {
            text.push_str(&format!(" and {} more", self.missing.len() - NAMED_SITES_MAX));
        }
        if let Some(shortfall) = self.shortfall.filter(|shortfall| shortfall.rows >= 0.5) {
            text.push_str(&format!("; about {:.0} ± {:.0} rows", shortfall.rows, shortfall.rows_plus_minus));
            if let (Some(amount), Some(plus_minus)) = (shortfall.amount, shortfall.amount_plus_minus) {
                text.push_str(&format!(" worth {amount:.0} ± {plus_minus:.0}"));
            }
            text.push_str(" are missing");
            if let Some(share) = self.missing_share {
                text.push_str(&format!(
                    ", {:.1} % ± {:.1} of those expected",
                    share.share * 100.0,
                    share.plus_minus * 100.0
                ));
            }
        }
        let incomplete: Vec<&GroupCoverage> = self.groups.iter().filter(|group| !group.missing.is_empty()).collect();
        for (index, group) in incomplete.iter().take(NAMED_GROUPS_MAX).enumerate() {
            text.push_str(if index == 0 { "; incomplete groups: " } else { ", " });
            text.push_str(&group.describe());
        }
        if incomplete.len() > NAMED_GROUPS_MAX {
            text.push_str(&format!(" and {} more", incomplete.len() - NAMED_GROUPS_MAX));
        }
        text.push_str(&unlisted);
        for column in &self.misfits {
            let (noun, verb) = if column.values == 1 { ("value", "is") } else { ("values", "are") };
            text.push_str(&format!(
                "; {} {noun} of {}.{} {verb} no {} and {verb} not in this answer",
                column.values, column.table, column.column, column.kind
            ));
        }
        if self.until.is_some() {
            text.push_str("; back-dated rows and corrections may still come");
        }
        text
    }

    fn unlisted(&self) -> String {
        let mut text = String::new();
        for Unlisted { id, meant } in self.unlisted.iter().take(NAMED_SITES_MAX) {
            let meant = meant.as_ref().map_or_else(String::new, |meant| format!(" (is {meant} meant?)"));
            text.push_str(&format!("; {id:?} is not on the roster{meant}"));
        }
        if self.unlisted.len() > NAMED_SITES_MAX {
            text.push_str(&format!(" nor are {} more", self.unlisted.len() - NAMED_SITES_MAX));
        }
        text
    }

    /// The same with at most `missing_max` sites and no groups, for places that have little room.
    pub fn shortened(&self, missing_max: usize) -> Self {
        let missing = self.missing.iter().take(missing_max).cloned().collect();
        let mut misfits = self.misfits.clone();
        misfits.truncate(missing_max);
        misfits.iter_mut().for_each(|column| column.sites.clear());
        let unlisted = self.unlisted.iter().take(missing_max).cloned().collect();
        Self { missing, misfits, unlisted, groups: Vec::new(), ..self.clone() }
    }
}

impl GroupCoverage {
    fn describe(&self) -> String {
        let names: Vec<&str> = self.group.values().map(|value| value.as_deref().unwrap_or("none")).collect();
        format!("{} ({} of {})", names.join("/"), self.complete, self.scope)
    }
}

impl MissingSite {
    fn describe(&self) -> String {
        let mut text = format!("{} {}", self.site, self.state);
        if let Some(since) = self.since {
            text.push_str(&format!(", complete through {}", since.for_people()));
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

    fn tacoma() -> MissingSite {
        MissingSite {
            site: SiteId::new("tacoma-01").expect("valid"),
            since: None,
            state: SiteState::NeverHeard,
            cause: Some(Cause::NeverEnrolled),
            expected_rows: None,
            expected_amount: None,
        }
    }

    #[test]
    fn the_summary_names_the_missing() {
        let coverage = Coverage {
            scope: 2,
            complete: 1,
            complete_through: Some(Timestamp::from_micros(0)),
            missing: vec![tacoma()],
            ..Coverage::default()
        };
        assert_eq!(
            coverage.summary(),
            "2 sites in scope, 1 complete through 1970-01-01 00:00:00 UTC; missing: tacoma-01 never-heard (never enrolled)"
        );
    }

    #[test]
    fn as_json_it_is_judged_already_and_can_be_read_back() {
        let misfits = ColumnMisfits {
            table: TableName::new("sales").expect("valid"),
            column: "qty".to_owned(),
            kind: "integer".to_owned(),
            values: 30,
            sites: BTreeMap::new(),
            is_many: true,
            fits: None,
        };
        // No site is missing: by the sites alone a program would take this for complete.
        let coverage = Coverage { scope: 2, complete: 2, misfits: vec![misfits], ..Coverage::default() };
        let json = coverage.to_json().expect("writes");
        let read: serde_json::Value = serde_json::from_str(&json).expect("is JSON");
        assert_eq!((&read["is_complete"], &read["complete"]), (&serde_json::json!(false), &serde_json::json!(2)));
        assert_eq!(read["summary"], coverage.summary());
        assert_eq!(serde_json::from_str::<Coverage>(&json).expect("reads"), coverage);
    }

    #[test]
    fn the_summary_counts_what_it_does_not_name() {
        let group = |state: &str, missing| GroupCoverage {
            group: BTreeMap::from([("state".to_owned(), Some(state.to_owned()))]),
            scope: 20,
            complete: 20,
            missing,
        };
        let coverage = Coverage {
            scope: 40,
            complete: 30,
            until: Some(Timestamp::from_micros(0)),
            missing: vec![MissingSite { expected_rows: Some(31), expected_amount: Some(100.4), ..tacoma() }; 10],
            shortfall: Some(Shortfall {
                rows: 310.0,
                rows_plus_minus: 30.5,
                amount: Some(1004.0),
                amount_plus_minus: Some(120.2),
            }),
            missing_share: Some(Share { share: 0.013, plus_minus: 0.002 }),
            groups: vec![group("OR", Vec::new()), group("WA", vec![tacoma().site])],
            ..Coverage::default()
        };
        let text = coverage.summary();
        for part in [
            "30 complete for all before 1970",
            " and 2 more",
            "about 310 ± 30 rows worth 1004 ± 120 are missing",
            "1.3 % ± 0.2",
            "groups: WA (20 of 20);",
            "back-dated",
        ] {
            assert!(text.contains(part), "{part:?} in {text:?}");
        }
        assert!(!text.contains("OR ("), "{text}");
    }
}
