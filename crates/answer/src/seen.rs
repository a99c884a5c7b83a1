//! What one who sees some sites only is told by HQ's own tables.

use std::collections::HashSet;

use arrow_array::{BooleanArray, RecordBatch, cast::AsArray};
use arrow_select::filter::filter_record_batch;
use rollcall_registry::Sites;
use rollcall_roll::Incident;

/// Those rows whose `site` is one of these; all if none are named.
pub(crate) fn rows_of(rows: RecordBatch, only: Option<&HashSet<String>>) -> RecordBatch {
    let Some(only) = only else { return rows };
    let nothing = || RecordBatch::new_empty(rows.schema());
    // Incidents name several, and are cut by themselves.
    let Some(sites) = rows.column_by_name("site") else { return rows };
    let is_seen: BooleanArray =
        sites.as_string::<i32>().iter().map(|site| Some(site.is_some_and(|site| only.contains(site)))).collect();
    filter_record_batch(&rows, &is_seen).unwrap_or_else(|_| nothing())
}

/// What an incident says of these sites; none if it is about none of them. Where it is about others
/// too, its texts may name those, and are left out.
pub(crate) fn incident_of(mut incident: Incident, seen: &Sites) -> Option<Incident> {
    let all = incident.members.len();
    incident.members.retain(|site, _| seen.contains_key(site));
    if incident.members.is_empty() {
        return None;
    }
    if incident.members.len() < all {
        incident.evidence = "it is about other sites as well".to_owned();
        incident.timeline.clear();
        (incident.lease, incident.attribute) = (None, None);
    }
    Some(incident)
}
