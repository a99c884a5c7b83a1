//! What was heard, as the watch takes it.

use std::time::Duration;

use rollcall_registry::Heard;
use rollcall_roll::{CONTACT, Condition, Watch};
use rollcall_types::{SiteId, Timestamp};

/// Changes unconfirmed for this long at a site that is heard: behind.
const BEHIND_AFTER: Duration = Duration::from_secs(30 * 60);

/// Tells the watch what was heard of a site at `at`.
pub(crate) fn observe(watch: &mut Watch, site: &SiteId, at: Timestamp, what: Heard) {
    match what {
        Heard::Contact => watch.event(site, CONTACT, at, 1.0),
        Heard::Rows { table, count } => watch.event(site, &table, at, count as f32),
        Heard::Goodbye => watch.goodbye(site, at),
        Heard::Backlog { rows, age } => {
            watch.set_backlog(site, age > Duration::from_secs(60));
            let minutes = age.as_secs() / 60;
            if age > BEHIND_AFTER {
                let text = format!("{site} is heard, but {rows} changes wait there, the oldest for {minutes} minutes");
                watch.set_condition(site, Condition::Behind, Some(&text), at);
            } else if age < BEHIND_AFTER / 6 {
                watch.set_condition(site, Condition::Behind, None, at);
            }
        }
        Heard::Welcomed { seen, states_manifests } => {
            watch.observe(site, &seen);
            if !states_manifests {
                watch.reconciled(site, None);
            }
        }
        Heard::Reconciled { received_at } => watch.reconciled(site, Some(received_at)),
        Heard::Condition(condition, detail) => watch.set_condition(site, condition, detail.as_deref(), at),
        Heard::Mended(condition, why) => watch.set_condition_until(site, condition, None, &why, at),
        Heard::Afterwards { cause, text } => watch.correct_cause(site, cause, &text, at),
    }
}
