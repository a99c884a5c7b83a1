//! What was heard of each site, as it survives a stop of HQ: a record of the state log for each
//! site, and the table of minutes in which it was heard.

use std::{sync::Arc, time::Duration};

use arrow_array::{Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use rollcall_lake::{LakeError, Record, RecordKind, StateView};
use rollcall_types::{SiteId, Timestamp};

use crate::{
    ledger::{PresenceRecord, STORED_AGE_MAX},
    registry::Registry,
};

/// The kind of its records.
pub const PRESENCE: RecordKind<PresenceRecord> = RecordKind::new("presence");
/// What is known of a site that is heard is stored again in this time: [`STORED_AGE_MAX`], and what
/// passes until somebody looks.
const STORED_AGAIN: Duration = STORED_AGE_MAX.saturating_add(Duration::from_secs(180));
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
    /// Takes up what was stored before a restart. Of each site that was heard: until when, and
    /// whether it had said goodbye.
    ///
    /// A site that is heard is stored only now and then, and once more when it goes quiet. So who
    /// was heard when it was stored was heard until HQ's last sign of life, `last_sign`, unless
    /// that came so much later that it would have been stored again.
    pub fn restore_presence(&self, last_sign: Option<Timestamp>) -> Vec<(SiteId, Timestamp, bool)> {
        let mut heard = Vec::new();
        for record in self.lake.state().view().of_kind(PRESENCE) {
            let (Ok(site), Ok(presence)) = (record.id.parse::<SiteId>(), record.parse::<PresenceRecord>()) else {
                continue;
            };
            let would_be_stored = record.at.plus_micros(STORED_AGAIN.as_micros() as i64);
            let sign = last_sign.filter(|sign| presence.was_heard(record.at) && *sign <= would_be_stored);
            let until = |at: Timestamp| at.max(sign.unwrap_or(at));
            heard.extend(presence.last_heard.map(|at| (site.clone(), until(at), presence.said_goodbye)));
            self.ledger.restore(site, presence, record.at);
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
            self.ledger.stored(&changed, now);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, node, site, store};

    #[tokio::test]
    async fn a_site_that_went_quiet_is_stored_once_more_and_then_no_more() {
        let registry = node(&store(), "a:1").await;
        let gone = site("a-1");
        registry.ledger.heard(&gone, at(0));
        let unstored = |seconds: i64| registry.ledger.unstored(at(seconds), false).len();
        let write = |seconds: i64| {
            let records = registry.ledger.unstored(at(seconds), true);
            registry.ledger.stored(&records, at(seconds));
        };
        assert_eq!(unstored(5), 1, "it is new");
        write(5);
        assert_eq!((unstored(30), unstored(62)), (0, 1), "it was heard when it was stored, and is quiet now");
        write(62);
        assert_eq!((unstored(130), unstored(100_000)), (0, 0));
    }

    #[tokio::test]
    async fn who_was_heard_when_it_was_stored_was_heard_until_the_last_sign() {
        let store = store();
        let before = node(&store, "a:1").await;
        let [well, quiet, gone] = ["a-1", "b-1", "c-1"].map(site);
        let stored = |seconds: i64, heard: i64, said_goodbye: bool| {
            (at(seconds), PresenceRecord { last_heard: Some(at(heard)), said_goodbye, ..PresenceRecord::default() })
        };
        let records =
            [(&well, stored(100, 95, false)), (&quiet, stored(100, 20, false)), (&gone, stored(100, 99, true))];
        let write = |view: &StateView| {
            let record = |(site, (now, value)): &(&SiteId, (Timestamp, PresenceRecord))| {
                view.next(PRESENCE, site.as_str(), value, *now, "hq")
            };
            Ok::<_, LakeError>((records.iter().map(record).collect::<Result<Vec<_>, _>>()?, ()))
        };
        before.lake.state().update(write).await.expect("stores");
        let after = node(&store, "a:1").await;
        let mut heard = after.restore_presence(Some(at(700)));
        heard.sort();
        assert_eq!(
            heard,
            [(well.clone(), at(700), false), (quiet, at(20), false), (gone, at(99), true)],
            "of the first, nothing worth storing happened for ten minutes"
        );
        // A dead site whose record was never written again is not heard with each later restart.
        assert!(after.restore_presence(Some(at(5000))).contains(&(well.clone(), at(95), false)));
        assert!(after.restore_presence(None).contains(&(well, at(95), false)), "without a sign nothing is assumed");
    }
}
