//! How complete each site is for a question, judged by what HQ knew before the question's versions were pinned.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use rollcall_query::{Cover, ScanScope, Scope};
use rollcall_roll::Watch;
use rollcall_types::{
    Cause, Coverage, GroupCoverage, MissingSite, Share, SiteId, SiteNumber, SiteState, TableName, Timestamp,
};

use crate::{
    ledger::Known,
    node::Shared,
    roster::{SiteRecord, Sites},
    table_settings::TableSettings,
};

/// The roster in the forms that queries need, made once for each version of it.
#[derive(Debug)]
pub(crate) struct RosterView {
    pub(crate) roster: Arc<Sites>,
    pub(crate) ids: Arc<Vec<SiteId>>,
    pub(crate) numbers: Arc<HashMap<SiteNumber, SiteId>>,
    pub(crate) table: arrow_array::RecordBatch,
}

impl RosterView {
    pub(crate) fn new(roster: Arc<Sites>) -> Self {
        Self {
            ids: Arc::new(roster.keys().cloned().collect()),
            numbers: Arc::new(roster.iter().map(|(id, record)| (SiteNumber(record.number), id.clone())).collect()),
            table: crate::tables::sites(&roster),
            roster,
        }
    }
}

/// Says what an answer is missing.
pub(crate) struct Covering {
    pub(crate) shared: Arc<Shared>,
    pub(crate) view: Arc<RosterView>,
    pub(crate) settings: BTreeMap<TableName, TableSettings>,
    /// When the question's versions were pinned, or before: nothing learned later is used.
    pub(crate) pinned_at: Timestamp,
}

impl std::fmt::Debug for Covering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Covering").field("pinned_at", &self.pinned_at).finish_non_exhaustive()
    }
}

/// A closed site with everything confirmed has nothing to send until it opens; for a night and a little, that is believed.
const CLOSED_MAX: Duration = Duration::from_secs(16 * 3600);
/// Groups that an answer lists one by one.
const GROUPS_MAX: usize = 1000;
/// Sites by which the rows that a question should find are estimated.
const SAMPLE: usize = 1000;

impl Cover for Covering {
    fn sites(&self) -> Arc<Vec<SiteId>> {
        self.view.ids.clone()
    }

    fn event_time(&self, table: &TableName) -> Option<String> {
        self.settings.get(table)?.event_time.clone()
    }

    fn coverage(&self, scope: &Scope) -> Coverage {
        let until = scope.scans.iter().map(|scan| scan.until).collect::<Option<Vec<_>>>();
        let until = until.and_then(|until| until.into_iter().max()).filter(|until| *until < self.pinned_at);
        let mut coverage = Coverage { until, ..Coverage::default() };
        let mut groups: BTreeMap<Vec<Option<String>>, GroupCoverage> = BTreeMap::new();
        let watch = self.shared.watching.watch();
        let flawed = watch.flawed_sites();
        let of_site = |index: usize| scope.scans.iter().filter(move |scan| scan.sites.get(index) == Some(&true));
        let sites = self.view.roster.iter().enumerate().map(|(index, (id, record))| (id, (index, record)));
        let in_scope = sites.filter(|(_, (index, _))| of_site(*index).next().is_some());
        self.shared.ledger.each_known(in_scope, self.pinned_at, |id, (index, record), known| {
            let scans = of_site(index);
            let scans: Vec<&ScanScope> = scans.filter(|scan| is_about(record, known, scan)).collect();
            if scans.is_empty() {
                return;
            }
            let missing = match flawed.get(id) {
                Some(cause) => Some(self.missing(&watch, id, known, &scans, Some(*cause))),
                None if self.is_complete(&watch, id, record, known, &scans) => None,
                None => Some(self.missing(&watch, id, known, &scans, None)),
            };
            coverage.scope += 1;
            if missing.is_none() {
                coverage.complete += 1;
                let through = known.complete_through();
                coverage.complete_through = coverage
                    .complete_through
                    .map_or(through, |least| through.map(|through| least.min(through)).or(Some(least)));
            }
            if !scope.grouped_by.is_empty() {
                note(&mut groups, &scope.grouped_by, id, record, missing.is_some());
            }
            coverage.missing.extend(missing);
        });
        if !coverage.missing.is_empty() {
            coverage.missing_share = self.share(&watch, scope, &coverage);
        }
        let is_many = groups.len() > GROUPS_MAX;
        coverage.groups = groups.into_values().filter(|group| !is_many || !group.missing.is_empty()).collect();
        coverage
    }
}

impl Covering {
    /// What an answer about all rows of all sites would miss.
    pub(crate) fn of_everything(&self) -> Coverage {
        let all = vec![true; self.view.ids.len()];
        let scan = |table| ScanScope { table, sites: all.clone(), until: None, from: None };
        let scans = self.shared.lake.tables().into_keys().map(scan).collect();
        self.coverage(&Scope { scans, grouped_by: Vec::new() })
    }

    /// Through when a site must be complete for a scan; none: through about now.
    fn demand(&self, known: &Known<'_>, scan: &ScanScope) -> Option<Timestamp> {
        let until = scan.until?;
        let lateness = self.settings.get(&scan.table).map_or(0, |settings| settings.lateness_seconds);
        let micros = i64::try_from(lateness).unwrap_or(i64::MAX / 2_000_000).saturating_mul(1_000_000);
        let demand = until.plus_micros(micros.saturating_add(known.clock_off_micros()));
        (demand < self.pinned_at).then_some(demand)
    }

    fn is_complete(
        &self,
        watch: &Watch,
        id: &SiteId,
        record: &SiteRecord,
        known: &Known<'_>,
        scans: &[&ScanScope],
    ) -> bool {
        if known.is_quarantined() {
            return false;
        }
        if record.retired.is_some() {
            return known.unconfirmed_rows() == 0;
        }
        let behind_after = self.shared.behind_after();
        let mut closed = None;
        scans.iter().all(|scan| {
            let Some(through) = known.through(&scan.table) else { return false };
            match self.demand(known, scan) {
                Some(demand) => through >= demand,
                None if self.pinned_at.since(through) <= behind_after => true,
                None => *closed.get_or_insert_with(|| {
                    let is_closed = watch.verdict(id).is_some_and(|verdict| verdict.state == SiteState::QuietExpected);
                    is_closed && known.unconfirmed_rows() == 0 && known.quiet_for(self.pinned_at) < CLOSED_MAX
                }),
            }
        })
    }

    fn missing(
        &self,
        watch: &Watch,
        id: &SiteId,
        known: &Known<'_>,
        scans: &[&ScanScope],
        flaw: Option<Cause>,
    ) -> MissingSite {
        let verdict = watch.verdict(id);
        let since = scans.iter().filter_map(|scan| known.through(&scan.table)).min();
        let (state, cause) = match verdict {
            None => (SiteState::NeverHeard, Some(Cause::NeverEnrolled)),
            Some(verdict) if verdict.state == SiteState::Ok => (SiteState::Recovering, Some(Cause::Backlog)),
            Some(verdict) => (verdict.state, verdict.cause),
        };
        let (mut expected_rows, mut expected_amount): (Option<f64>, Option<f64>) = (None, None);
        for scan in since.into_iter().flat_map(|_| scans) {
            let from = scan.from.max(since).unwrap_or(self.pinned_at);
            let to = scan.until.map_or(self.pinned_at, |until| until.min(self.pinned_at));
            let rows = if from >= to { Some(0.0) } else { watch.expected_rows(id, scan.table.as_str(), from, to) };
            let Some(rows) = rows else { continue };
            *expected_rows.get_or_insert_default() += rows;
            if let Some(worth) = self.shared.measures.of_row(&scan.table, id) {
                *expected_amount.get_or_insert_default() += rows * worth;
            }
        }
        MissingSite {
            site: id.clone(),
            since,
            state,
            cause: flaw.or(cause),
            expected_rows: expected_rows.map(|rows| rows.round() as u64),
            expected_amount: expected_amount.map(|amount| (amount * 100.0).round() / 100.0),
        }
    }

    /// The share of the rows that is missing, if the question says from when on it asks. Rows are taken for counts whose variance
    /// is their mean times the rows that come at once.
    fn share(&self, watch: &Watch, scope: &Scope, coverage: &Coverage) -> Option<Share> {
        let rows: u64 = coverage.missing.iter().map(|missing| missing.expected_rows).sum::<Option<u64>>()?;
        let mut all = 0.0;
        for scan in &scope.scans {
            let (from, to) = (scan.from?, scan.until.map_or(self.pinned_at, |until| until.min(self.pinned_at)));
            let sites = self.view.ids.iter().zip(&scan.sites).filter(|(_, is_in)| **is_in).map(|(site, _)| site);
            let sites: Vec<&SiteId> = sites.collect();
            let step = sites.len().div_ceil(SAMPLE).max(1);
            let sampled = sites.iter().step_by(step);
            let expected = |site: &&SiteId| watch.expected_rows(site, scan.table.as_str(), from, to);
            let of_sample: f64 = sampled.filter_map(expected).sum();
            all += of_sample * step as f64;
        }
        (all > 0.0).then(|| {
            let at_once = 3.0;
            Share { share: (rows as f64 / all).min(1.0), plus_minus: (rows as f64 * at_once).sqrt() / all }
        })
    }
}

/// Whether a site can have rows that a scan asks for: a retired one only from before, one that opens later none.
fn is_about(record: &SiteRecord, known: &Known<'_>, scan: &ScanScope) -> bool {
    if let Some(retired) = &record.retired {
        return known.was_heard() && scan.from.is_none_or(|from| from <= retired.at);
    }
    match (scan.until, record.go_live()) {
        (Some(until), Some(go_live)) => go_live < until,
        _ => true,
    }
}

fn note(
    groups: &mut BTreeMap<Vec<Option<String>>, GroupCoverage>,
    names: &[String],
    id: &SiteId,
    record: &SiteRecord,
    is_missing: bool,
) {
    let value = |name: &String| match name.as_str() {
        "id" => Some(id.to_string()),
        name => record.attributes.get(name).cloned(),
    };
    let key: Vec<Option<String>> = names.iter().map(value).collect();
    let group = groups.entry(key).or_insert_with_key(|key| GroupCoverage {
        group: names.iter().cloned().zip(key.iter().cloned()).collect(),
        scope: 0,
        complete: 0,
        missing: Vec::new(),
    });
    group.scope += 1;
    if is_missing {
        group.missing.push(id.clone());
    } else {
        group.complete += 1;
    }
}
