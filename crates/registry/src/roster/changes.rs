//! What changes of sites' attributes.

use std::collections::{BTreeMap, BTreeSet};

use rollcall_types::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Roster, SITE, SiteRecord, check_calendar};
use crate::{attributes::Attributes, error::HqError, roster_file::with_zone_by_place};

/// A change of one site's attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeChange {
    /// Whose.
    pub site: SiteId,
    /// Which.
    pub attribute: String,
    /// What it was; none if there was none.
    pub before: Option<String>,
    /// What it is; none if it goes.
    pub after: Option<String>,
}

/// A change of one site's attribute that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastChange {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// What.
    #[serde(flatten)]
    pub change: AttributeChange,
}

/// What differs between the attributes that a site had and those that it has.
pub(super) fn changes_of(site: &SiteId, before: &Attributes, after: &Attributes) -> Vec<AttributeChange> {
    let names: BTreeSet<&str> = before.names().chain(after.names()).collect();
    let is_other = names.into_iter().filter(|name| before.get(name) != after.get(name));
    let change = |name: &str| AttributeChange {
        site: site.clone(),
        attribute: name.to_owned(),
        before: before.get(name).map(str::to_owned),
        after: after.get(name).map(str::to_owned),
    };
    is_other.map(change).collect()
}

impl Roster {
    /// Changes attributes of a site that is on the roster; an empty value takes one away.
    pub async fn set_attributes(
        &self,
        site: &SiteId,
        attributes: &BTreeMap<String, String>,
        by: &str,
        now: Timestamp,
    ) -> Result<Vec<AttributeChange>, HqError> {
        let changes: BTreeMap<String, Option<String>> = attributes
            .iter()
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), Some(value.trim().to_owned())))
            .map(|(name, value)| (name, value.filter(|value| !value.is_empty())))
            .collect();
        self.change(site, by, now, |record| {
            let mut after = record.attributes.changed(&changes);
            // Who takes a zone away means it.
            if !changes.contains_key("tz") {
                after = with_zone_by_place(&after).unwrap_or(after);
            }
            check_calendar(&after)?;
            let changed = changes_of(site, &record.attributes, &after);
            record.set_attributes(after, now);
            Ok((!changed.is_empty(), changed))
        })
        .await
    }

    /// What changed of a site's attributes, oldest first; from the state log, which keeps every
    /// version of a record.
    pub async fn history(&self, site: &SiteId) -> Result<Vec<PastChange>, HqError> {
        let records = self.lake.state().versions(SITE, site.as_str()).await?;
        let (mut before, mut changes) = (Attributes::default(), Vec::new());
        for record in records {
            let value: SiteRecord = record.parse()?;
            let of = |change| PastChange { at: record.at, by: record.by.to_string(), change };
            changes.extend(changes_of(site, &before, &value.attributes).into_iter().map(of));
            before = value.attributes;
        }
        Ok(changes)
    }
}
