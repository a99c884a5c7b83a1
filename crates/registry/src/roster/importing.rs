//! Roster files, and what an import of one does.

use std::collections::BTreeMap;

use rollcall_lake::StateView;
use rollcall_types::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    Numbers, Roster, SITE, SiteRecord,
    changes::{AttributeChange, changes_of},
    sites,
};
use crate::{
    error::HqError,
    roster_file::{RosterFile, Rows, with_zone_by_place},
};

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// Sites that were not on the roster.
    pub added: usize,
    /// Sites whose attributes changed.
    pub changed: usize,
    /// Sites that stayed as they were.
    pub unchanged: usize,
    /// Sites on the roster that the file does not list; they stay.
    pub not_in_file: Vec<SiteId>,
    /// Sites that never enrolled.
    pub never_enrolled: Vec<SiteId>,
    /// Names that tried to enrol or connect without being on the roster.
    pub unknown_senders: Vec<String>,
    /// How the file was read, where that is not evident.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Sites whose time zone was told by their country or state.
    #[serde(default)]
    pub zones_by_place: Vec<SiteId>,
    /// Sites of the file that have no time zone: their hours are not known to the hour.
    #[serde(default)]
    pub without_zone: Vec<SiteId>,
    /// What became other, or would, of sites that were on the roster; of many changes the first.
    #[serde(default)]
    pub changes: Vec<AttributeChange>,
}

/// How a file is imported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Importing {
    /// Attributes of which the file has no column go.
    pub replace: bool,
    /// Nothing is changed.
    pub dry_run: bool,
}

/// Changes that a report names.
const CHANGES_MAX: usize = 1000;

impl ImportReport {
    /// Takes a line of the file: what the record of its site becomes, none if that stays as it is.
    /// `new` is the record of a site that is not on the roster.
    fn take(
        &mut self,
        site: &SiteId,
        row: &BTreeMap<String, Option<String>>,
        known: Option<SiteRecord>,
        replace: bool,
        now: Timestamp,
        new: impl FnOnce() -> SiteRecord,
    ) -> Option<SiteRecord> {
        let before = known.as_ref().filter(|_| !replace).map(|record| record.attributes.clone());
        let mut attributes = before.unwrap_or_default().changed(row);
        if let Some(placed) = with_zone_by_place(&attributes) {
            attributes = placed;
            self.zones_by_place.push(site.clone());
        } else if attributes.get("tz").is_none() {
            self.without_zone.push(site.clone());
        }
        let mut value = match known {
            Some(value) if value.attributes == attributes => {
                self.unchanged += 1;
                return None;
            }
            Some(value) => {
                self.changed += 1;
                let left = CHANGES_MAX.saturating_sub(self.changes.len());
                let changes = changes_of(site, &value.attributes, &attributes);
                self.changes.extend(changes.into_iter().take(left));
                value
            }
            None => {
                self.added += 1;
                new()
            }
        };
        value.set_attributes(attributes, now);
        Some(value)
    }

    /// Notes the sites that the file does not list, and those that never enrolled.
    fn note_missing(&mut self, view: &StateView, rows: &Rows) {
        for (site, record) in sites(view) {
            let live = record.retired.is_none();
            if live && !rows.contains_key(&site) {
                self.not_in_file.push(site.clone());
            }
            if live && record.enrolled_at.is_none() {
                self.never_enrolled.push(site);
            }
        }
        self.never_enrolled.extend(rows.keys().filter(|site| view.get(SITE, site.as_str()).is_none()).cloned());
        self.never_enrolled.sort();
    }
}

impl Roster {
    /// Adds and updates sites from CSV with a header: `id` and any attributes. Sites not listed
    /// stay on the roster, and so do attributes of which the file has no column, unless all are to
    /// be replaced; an empty cell takes one away.
    pub async fn import(
        &self,
        text: &str,
        how: Importing,
        unknown_senders: Vec<String>,
        by: &str,
        now: Timestamp,
    ) -> Result<ImportReport, HqError> {
        let RosterFile { rows, notes } = RosterFile::read(text)?;
        self.lake
            .state()
            .update(|view| {
                let mut report = ImportReport {
                    unknown_senders: unknown_senders.clone(),
                    notes: notes.clone(),
                    ..ImportReport::default()
                };
                let mut records = Vec::new();
                let mut numbers = Numbers::new(view)?;
                for (site, row) in &rows {
                    let known = view.get(SITE, site.as_str()).map(|record| record.parse()).transpose()?;
                    if let Some(value) = report.take(site, row, known, how.replace, now, || numbers.site(now)) {
                        records.push(view.next(SITE, site.as_str(), &value, now, by)?);
                    }
                }
                records.extend(numbers.record(view, now, by)?);
                if how.dry_run {
                    records.clear();
                }
                report.note_missing(view, &rows);
                Ok((records, report))
            })
            .await
    }
}
