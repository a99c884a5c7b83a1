//! What was heard of each site, as it survives a stop of HQ: a record of the state log for each
//! site, and the table of minutes in which it was heard.

use std::{sync::Arc, time::Duration};

use arrow_array::{Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use rollcall_lake::{LakeError, Record, StateView};
use rollcall_types::{SiteId, Timestamp};

use crate::{ledger::PresenceRecord, registry::Registry};

/// The kind of its records.
pub const PRESENCE: &str = "presence";
/// Hours of contact are another node's to store; here they are kept for so long.
const HOURS_LEFT: Duration = Duration::from_secs(2 * 3600);

/// The record by which a site's rows are not known to be complete any more: some were taken out of
/// the lake.
pub fn forget_completeness(view: &StateView, site: &SiteId, now: Timestamp) -> Result<Option<Record>, LakeError> {
    let Some(record) = view.get(PRESENCE, site.as_str()) else { return Ok(None) };
    let presence = PresenceRecord { complete_through: None, ..record.parse()? };
    view.next(PRESENCE, site.as_str(), &presence, now, "hq").map(Some)
}

impl Registry {
    /// Takes up what was stored before a restart. Of each site that was heard: when, and whether it
    /// had said goodbye.
    pub fn restore_presence(&self) -> Vec<(SiteId, Timestamp, bool)> {
        let mut heard = Vec::new();
        for record in self.lake.state().view().of_kind(PRESENCE) {
            let (Ok(site), Ok(presence)) = (record.id.parse::<SiteId>(), record.parse::<PresenceRecord>()) else {
                continue;
            };
            heard.extend(presence.last_heard.map(|at| (site.clone(), at, presence.said_goodbye)));
            self.ledger.restore(site, presence);
        }
        heard
    }

    /// Stores what changed of sites' presence, and hours of contact that are over (with `all`, the
    /// running ones too).
    pub async fn store_presence(&self, all: bool) -> Result<(), LakeError> {
        let now = self.now();
        if !self.is_acting() {
            // Every node knows the same; the one that acts stores it.
            self.ledger.leave_hours(now.before(HOURS_LEFT));
            return Ok(());
        }
        let changed = self.ledger.unstored(now, all);
        if !changed.is_empty() {
            let records = |view: &StateView| {
                changed.iter().map(|(site, value)| view.next(PRESENCE, site.as_str(), value, now, "hq")).collect()
            };
            if !self.acting(records).await? {
                return Ok(());
            }
            self.ledger.stored(&changed);
        }
        let hours = self.ledger.take_hours(all);
        if hours.is_empty() {
            return Ok(());
        }
        let table = self.lake.contacts();
        let sites = StringArray::from_iter_values(hours.iter().map(|(site, _, _)| site.as_str()));
        let starts = TimestampMicrosecondArray::from_iter_values(hours.iter().map(|(_, start, _)| start.as_micros()));
        let minutes = Int64Array::from_iter_values(hours.iter().map(|(_, _, minutes)| *minutes as i64));
        let schema = table.snapshot().schema().arrow().clone();
        let columns: Vec<Arc<dyn Array>> =
            vec![Arc::new(sites), Arc::new(starts.with_timezone("UTC")), Arc::new(minutes)];
        let rows = RecordBatch::try_new(schema, columns)
            .map_err(|source| LakeError::Arrow { doing: "writing contact history", source })?;
        let appended = table.append_rows(rows).await;
        if appended.is_err() {
            self.ledger.put_back_hours(hours);
        }
        appended?;
        Ok(())
    }
}
