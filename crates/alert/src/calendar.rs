//! When sites are expected: holidays, and a site of the roster as the watch wants it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chrono::NaiveDate;
use rollcall_lake::{Lake, LakeError, RecordKind, StateView};
use rollcall_registry::{Attributes, HqError, Registry, RosterFile, SiteRecord};
use rollcall_roll::{Calendar, Closure, Hours, SiteSpec};
use rollcall_types::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};

const HOLIDAYS: RecordKind<Holidays> = RecordKind::new("holidays");

/// Days that go like a Sunday, for all sites that name this calendar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holidays {
    /// Such as `2026-12-25`.
    pub days: BTreeSet<String>,
}

/// The holiday calendars, by name.
pub fn holidays(lake: &Lake) -> BTreeMap<String, Holidays> {
    let view = lake.state().view();
    view.of_kind(HOLIDAYS).filter_map(|record| Some((record.id.to_string(), record.parse().ok()?))).collect()
}

/// Stores a holiday calendar.
pub async fn set_holidays(registry: &Registry, name: &str, days: Holidays, by: &str) -> Result<(), HqError> {
    let now = registry.now();
    let record = |view: &StateView| view.next(HOLIDAYS, name, &days, now, by);
    registry.lake.state().update(|view| Ok::<_, LakeError>((vec![record(view)?], ()))).await?;
    Ok(())
}

/// A site as the watch wants it. What cannot be read was refused when it was entered.
pub(crate) fn spec(
    id: &SiteId,
    record: &SiteRecord,
    holidays: &BTreeMap<String, Holidays>,
    now: Timestamp,
) -> SiteSpec {
    let attribute = |name: &str| record.attributes.get(name).unwrap_or_default();
    let zone = record.zone();
    let named = attribute("holidays").split(',').map(str::trim).filter_map(|name| holidays.get(name));
    let days: BTreeSet<NaiveDate> =
        named.flat_map(|calendar| calendar.days.iter()).filter_map(|day| day.parse().ok()).collect();
    let closures = record
        .closures
        .iter()
        .map(|closure| Closure { from: closure.from.as_seconds(), until: closure.until.as_seconds() });
    let listed = record.listed_at.unwrap_or(now);
    SiteSpec {
        id: id.clone(),
        calendar: Calendar {
            zone,
            hours: attribute("hours").parse::<Hours>().ok().map(Arc::new),
            holidays: Arc::new(days),
            closures: closures.collect(),
        },
        attributes: record.attributes.to_map(),
        expected_from: record.go_live().map_or(listed, |go_live| go_live.max(listed)),
        enrolled: record.enrolled_at.is_some(),
    }
}

/// The sites of a roster file as the watch sees them, for a history that begins at `listed`.
/// `holidays` are the days of each holiday calendar (`2026-12-25`), by its name.
pub fn roster_from_csv(
    text: &str,
    listed: Timestamp,
    holidays: &BTreeMap<String, BTreeSet<String>>,
) -> Result<Vec<SiteSpec>, HqError> {
    let holidays = holidays.iter().map(|(name, days)| (name.clone(), Holidays { days: days.clone() })).collect();
    let site = |(id, row): (SiteId, BTreeMap<String, Option<String>>)| {
        let attributes = Attributes::default().changed(&row);
        let record =
            SiteRecord { attributes, listed_at: Some(listed), enrolled_at: Some(listed), ..SiteRecord::default() };
        spec(&id, &record, &holidays, listed)
    };
    Ok(RosterFile::read(text)?.rows.into_iter().map(site).collect())
}
