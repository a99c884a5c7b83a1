//! How complete each site is for a question.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rollcall_lake::{Lives, local_name};
use rollcall_query::{Cover, ScanScope, Scope, TimeRead};
use rollcall_roll::Watch;
use rollcall_types::{
    Cause, ColumnMisfits, Coverage, HQ_SITE, MissingSite, Share, Shortfall, SiteId, SiteNumber, SiteState, TableName,
    Timestamp, Unlisted, nearest,
};

use rollcall_alert::Alerts;
use rollcall_books::{
    Books,
    misfits::Misfits,
    quarantine::{Concern, Concerns},
    table_settings::TableSettings,
};
use rollcall_registry::{
    Registry, SiteRecord, Sites, WrongTimes,
    progress::{ProgressSnapshot, SiteProgress},
};

use crate::groups::{Coded, Groups};

/// The roster in the forms that queries need, made once for each version of it.
#[derive(Debug)]
pub struct RosterView {
    /// The sites in it, by id: all, or those that the asker may see.
    pub roster: Arc<Sites>,
    /// Their ids, in the same order.
    pub ids: Arc<Vec<SiteId>>,
    /// The ids of all sites by number, whoever asks.
    pub numbers: Arc<HashMap<SiteNumber, SiteId>>,
    /// Which lives of the sites' journals may be current.
    pub lives: Arc<Lives>,
    /// The sites as rows, one for each.
    pub table: arrow_array::RecordBatch,
    /// What of each site's record says when it can have rows.
    times: Vec<SiteTimes>,
    /// Attributes that answers were grouped by.
    columns: Mutex<HashMap<String, Arc<Coded>>>,
}

impl RosterView {
    /// Works out the forms of this roster.
    pub fn new(roster: Arc<Sites>) -> Self {
        Self {
            ids: Arc::new(roster.keys().cloned().collect()),
            numbers: Arc::new(roster.iter().map(|(id, record)| (SiteNumber(record.number), id.clone())).collect()),
            lives: Arc::new(lives(&roster)),
            table: crate::tables::sites(&roster),
            times: roster.values().map(|record| SiteTimes::of(record)).collect(),
            columns: Mutex::default(),
            roster,
        }
    }

    /// The attribute of this name; `id` is one here.
    pub(crate) fn column(&self, name: &str) -> Arc<Coded> {
        let mut columns = self.columns.lock().unwrap_or_else(PoisonError::into_inner);
        let column = columns.entry(name.to_owned()).or_insert_with(|| {
            let mut numbers: HashMap<Option<&str>, u32> = HashMap::new();
            let mut coded = Coded::default();
            for (id, record) in self.roster.iter() {
                let value = match name {
                    "id" => Some(id.as_str()),
                    name => record.attributes.get(name),
                };
                let next = numbers.len() as u32;
                let code = *numbers.entry(value).or_insert(next);
                if code == next {
                    coded.values.push(value.map(str::to_owned));
                }
                coded.codes.push(code);
            }
            Arc::new(coded)
        });
        column.clone()
    }
}

/// Which lives of the sites' journals may be current, by the roster.
pub fn lives(roster: &Sites) -> Lives {
    Lives::new(roster.values().filter_map(|record| {
        let newest = record.journal.as_ref()?.epoch;
        Some((SiteNumber(record.number), newest, record.lives_apart().collect()))
    }))
}

/// Says what an answer is missing.
pub struct HqCoverage {
    /// What is known of the lake's tables, and from when on data is behind.
    pub registry: Arc<Registry>,
    /// What the watch expects of sites, and which it finds at fault.
    pub alerts: Arc<Alerts>,
    /// What rows of a table are worth, by site.
    pub books: Arc<Books>,
    /// The sites that the asker may see.
    pub view: Arc<RosterView>,
    /// What was declared of tables.
    pub settings: BTreeMap<TableName, TableSettings>,
    /// Taken before the question's versions were pinned: nothing learned later is used.
    pub progress: Arc<ProgressSnapshot>,
    /// When the question was asked, by HQ's clock.
    pub asked_at: Timestamp,
    /// Columns that lack values which do not fit them.
    pub misfits: Arc<Misfits>,
    /// Sites and tables of which rows are in quarantine.
    pub quarantined: Arc<Concerns>,
}

impl std::fmt::Debug for HqCoverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HqCoverage").field("asked_at", &self.asked_at).finish_non_exhaustive()
    }
}

/// A closed site with everything confirmed has nothing to send until it opens; for a night and a
/// little, that is believed.
const CLOSED_MAX: Duration = Duration::from_secs(16 * 3600);
/// Unknown ids of which it is said which site may be meant.
const NEAREST_MAX: usize = 8;
/// Sites by which the rows that a question should find are estimated.
const SAMPLE: usize = 1000;

/// Between the zones that are furthest apart.
const ZONES_APART_MICROS: i64 = 26 * 3600 * 1_000_000;

/// Rows come in bursts, an invoice at a time: their count is taken to vary by its mean times so
/// many.
const ROWS_AT_ONCE: f64 = 3.0;

/// What missing sites are expected to have, added up.
#[derive(Default)]
struct Lacking {
    rows: Option<f64>,
    amount: Option<f64>,
    /// Of a sum of as many independent amounts as rows are expected, in bursts: `rows · bursts ·
    /// E[amount²]`.
    amount_variance: f64,
}

impl Lacking {
    fn shortfall(&self) -> Option<Shortfall> {
        self.rows.map(|rows| Shortfall {
            rows,
            rows_plus_minus: (rows * ROWS_AT_ONCE).sqrt(),
            amount: self.amount,
            amount_plus_minus: self.amount.map(|_| self.amount_variance.sqrt()),
        })
    }
}

impl Cover for HqCoverage {
    fn sites(&self) -> Arc<Vec<SiteId>> {
        self.view.ids.clone()
    }

    fn event_time(&self, table: &TableName) -> Option<String> {
        self.settings.get(table)?.event_time.clone()
    }

    fn coverage(&self, scope: &Scope) -> Coverage {
        let until = scope.scans.iter().map(|scan| scan.until).collect::<Option<Vec<_>>>();
        let until = until.and_then(|until| until.into_iter().max()).filter(|until| *until < self.asked_at);
        let reads_sites = !scope.scans.is_empty();
        let mut coverage = Coverage { reads_sites, until, ..Coverage::default() };
        let mut groups = Groups::new(&self.view, &scope.grouped_by);
        let watch = self.alerts.watching.watch();
        let flawed = watch.flawed_sites();
        let places = self.progress.places(&self.view.ids);
        let mut lacking = Lacking::default();
        let scans: Vec<Scanned<'_>> = scope.scans.iter().map(|scan| self.scanned(scan)).collect();
        for (index, id) in self.view.ids.iter().enumerate() {
            let of_site = || scans.iter().filter(|scanned| scanned.scan.sites.get(index) == Some(&true));
            if of_site().next().is_none() {
                continue;
            }
            let place = places.as_ref().map_or(index, |places| places[index]);
            let known = self.progress.site(place);
            // Most sites are well, and nothing more need be looked at.
            let times = &self.view.times[index];
            let about = || of_site().filter(|scanned| times.is_about(&known, scanned.scan, self.asked_at));
            if about().next().is_none() {
                continue;
            }
            let concern = self.quarantined.get(id);
            let lacks = concern.and_then(|concern| about().find_map(|scanned| scanned.concerned(concern)));
            let wrong_times = self.progress.wrong_times(id);
            let doubt = about().find_map(|scanned| scanned.doubted(times, wrong_times));
            let is_well = times.retired.is_none()
                && times.apart_since.is_none()
                && lacks.is_none()
                && doubt.is_none()
                && (flawed.is_empty() || !flawed.contains_key(id))
                && about().all(|scanned| self.is_through(scanned.through(place, &known), &known, scanned));
            let missing = if is_well {
                None
            } else {
                let about: Vec<(&Scanned<'_>, Option<Timestamp>)> =
                    about().map(|scanned| (scanned, scanned.through(place, &known))).collect();
                let flaw = flawed.get(id).copied();
                // What it sends now is kept apart: what is shown of it ended when that began.
                let flaw = flaw.or(times.apart_since.map(|_| Cause::CloneOrRewind));
                let flaw = flaw.or(lacks);
                let is_complete =
                    flaw.is_none() && self.is_complete(&watch, id, times.retired.is_some(), &known, &about);
                // Of a site that is silent as well, the silence is what matters.
                let flaw = flaw.or(doubt.filter(|_| is_complete));
                (!is_complete || doubt.is_some()).then(|| self.missing(&watch, id, times, &about, flaw, &mut lacking))
            };
            coverage.scope += 1;
            if missing.is_none() {
                coverage.complete += 1;
                coverage.complete_through = match (coverage.complete_through, known.through) {
                    (Some(least), Some(through)) => Some(least.min(through)),
                    (least, through) => least.or(through),
                };
            }
            groups.note(index, id, missing.is_some());
            coverage.missing.extend(missing);
        }
        if !coverage.missing.is_empty() {
            coverage.shortfall = lacking.shortfall();
            coverage.missing_share = self.share(&watch, scope, &coverage);
        }
        coverage.groups = groups.finish();
        coverage.misfits = self.misfits_of(scope);
        coverage.unlisted = self.unlisted(scope);
        coverage
    }
}

/// A scan, and through when each site is complete in its table.
struct Scanned<'a> {
    scan: &'a ScanScope,
    /// Rows may be written so long after they happened.
    lateness_micros: i64,
    through: Option<&'a [Option<Timestamp>]>,
    /// Of the times that it reads, those that stores wrote without a zone.
    local_times: Vec<&'a TimeRead>,
}

impl Scanned<'_> {
    /// Why rows of a site may count in another time than the one in which they happened.
    fn doubted(&self, times: &SiteTimes, wrong_times: Option<&WrongTimes>) -> Option<Cause> {
        let is_wrong = |time: &TimeRead| {
            wrong_times.is_some_and(|wrong| wrong.during(time.from, time.until, times.accepted).is_some())
        };
        if self.scan.times.iter().any(is_wrong) {
            return Some(Cause::Clock);
        }
        let is_of_other_zone = |time: &&TimeRead| {
            let reaches = |other: Timestamp| {
                let last = other.as_micros().saturating_add(ZONES_APART_MICROS);
                time.from.is_none_or(|from| from.as_micros() <= last)
            };
            times.has_no_zone || times.other_zone_until.is_some_and(reaches)
        };
        self.local_times.iter().any(is_of_other_zone).then_some(Cause::Zone)
    }

    /// Why the scan lacks the site of this concern.
    fn concerned(&self, concern: &Concern) -> Option<Cause> {
        concern.cause(self.scan.table.as_str(), &self.scan.columns)
    }

    /// Through when every row of the table is here. A site that never had a change in it says
    /// nothing of it; then its whole journal speaks.
    fn through(&self, place: usize, known: &SiteProgress) -> Option<Timestamp> {
        let of_table = self.through.and_then(|column| column.get(place).copied().flatten());
        of_table.max(known.through)
    }
}

impl HqCoverage {
    /// What an answer about all rows of all sites would miss.
    pub fn of_everything(&self) -> Coverage {
        let all = vec![true; self.view.ids.len()];
        let scan = |table| ScanScope {
            table,
            sites: all.clone(),
            until: None,
            from: None,
            columns: Vec::new(),
            times: Vec::new(),
        };
        let scans = self.registry.lake.shown_tables().into_keys().map(scan).collect();
        self.coverage(&Scope { scans, ..Scope::default() })
    }

    /// The columns that are read, and lack values of sites that the question is about.
    fn misfits_of(&self, scope: &Scope) -> Vec<ColumnMisfits> {
        let is_asked = |scan: &ScanScope, site: &SiteId| {
            self.view.ids.binary_search(site).is_ok_and(|place| scan.sites.get(place) == Some(&true))
        };
        let mut found = Vec::new();
        for ((table, column), misfits) in self.misfits.iter() {
            let scans = scope.scans.iter().filter(|scan| scan.table == *table && scan.columns.contains(column));
            let scans: Vec<&ScanScope> = scans.collect();
            if scans.is_empty() {
                continue;
            }
            let mut of_asked = misfits.column.clone();
            of_asked.sites.retain(|site, _| scans.iter().any(|scan| is_asked(scan, site)));
            of_asked.values = of_asked.sites.values().sum();
            of_asked.is_many = of_asked.sites.keys().any(|site| misfits.many.contains(site));
            if of_asked.values > 0 {
                found.push(of_asked);
            }
        }
        found
    }

    /// Ids that the question asks for and that nobody has: a typing error reads like a site without
    /// sales.
    fn unlisted(&self, scope: &Scope) -> Vec<Unlisted> {
        let of = |(index, id): (usize, &String)| {
            // Each is compared with the whole roster.
            let near = (index < NEAREST_MAX).then(|| nearest(id, self.view.ids.iter().map(SiteId::as_str))).flatten();
            Unlisted { id: id.clone(), meant: near.and_then(|near| SiteId::new(near).ok()) }
        };
        let asked = scope.unlisted.iter().filter(|id| *id != HQ_SITE);
        asked.enumerate().map(of).collect()
    }

    fn scanned<'a>(&'a self, scan: &'a ScanScope) -> Scanned<'a> {
        let lateness = self.settings.get(&scan.table).map_or(0, |settings| settings.lateness_seconds);
        let lateness_micros = i64::try_from(lateness).unwrap_or(i64::MAX / 2_000_000).saturating_mul(1_000_000);
        let schema = self.registry.lake.table(&scan.table).map(|table| table.snapshot().schema().clone());
        let is_local =
            |time: &&TimeRead| schema.as_ref().is_some_and(|schema| schema.column(&local_name(&time.column)).is_some());
        let local_times = scan.times.iter().filter(is_local).collect();
        Scanned { scan, lateness_micros, through: self.progress.table(&scan.table), local_times }
    }

    /// Through when a site must be complete for a scan; none: through about now.
    fn demand(&self, known: &SiteProgress, scanned: &Scanned<'_>) -> Option<Timestamp> {
        let off = scanned.lateness_micros.saturating_add(known.clock_off_micros);
        scanned.scan.until.map(|until| until.plus_micros(off)).filter(|demand| *demand < self.asked_at)
    }

    /// Whether complete through this instant is enough for a scan.
    fn is_through(&self, through: Option<Timestamp>, known: &SiteProgress, scanned: &Scanned<'_>) -> bool {
        let Some(through) = through else { return false };
        match self.demand(known, scanned) {
            Some(demand) => through >= demand,
            None => self.asked_at.since(through) <= self.registry.behind_after(),
        }
    }

    fn is_complete(
        &self,
        watch: &Watch,
        id: &SiteId,
        is_retired: bool,
        known: &SiteProgress,
        scans: &[(&Scanned<'_>, Option<Timestamp>)],
    ) -> bool {
        if is_retired {
            return known.unconfirmed_rows == 0;
        }
        let mut closed = None;
        scans.iter().all(|(scanned, through)| {
            self.is_through(*through, known, scanned)
                || (through.is_some() && self.demand(known, scanned).is_none())
                    && *closed.get_or_insert_with(|| {
                        // While the shop is open, a stopped agent is no closed shop: it sells on.
                        let is_closed = watch.verdict(id).is_some_and(|verdict| {
                            verdict.state == SiteState::QuietExpected && verdict.cause == Some(Cause::Closed)
                        });
                        let heard_lately = known.last_heard.is_some_and(|at| self.asked_at.since(at) < CLOSED_MAX);
                        is_closed && known.unconfirmed_rows == 0 && heard_lately
                    })
        })
    }

    fn missing(
        &self,
        watch: &Watch,
        id: &SiteId,
        times: &SiteTimes,
        scans: &[(&Scanned<'_>, Option<Timestamp>)],
        flaw: Option<Cause>,
        lacking: &mut Lacking,
    ) -> MissingSite {
        let verdict = watch.verdict(id);
        let since = scans.iter().filter_map(|(_, through)| *through).min();
        let since = match times.apart_since {
            Some(apart) => Some(since.map_or(apart, |since| since.min(apart))),
            None => since,
        };
        // Nobody knows how much of it there is, nor since when.
        let since = since.filter(|_| !flaw.is_some_and(is_of_content));
        let (state, cause) = match verdict {
            None => (SiteState::NeverHeard, Some(Cause::NeverEnrolled)),
            // What it does not send at all is no backlog, and the site is well.
            Some(verdict) if flaw.is_some_and(is_of_content) => (verdict.state, flaw),
            Some(verdict) if verdict.state == SiteState::Ok => (SiteState::Recovering, Some(Cause::Backlog)),
            Some(verdict) => (verdict.state, verdict.cause),
        };
        let (mut expected_rows, mut expected_amount): (Option<f64>, Option<f64>) = (None, None);
        for (Scanned { scan, .. }, _) in since.into_iter().flat_map(|_| scans) {
            let from = scan.from.max(since).unwrap_or(self.asked_at);
            let to = scan.until.map_or(self.asked_at, |until| until.min(self.asked_at));
            let rows = if from >= to { Some(0.0) } else { watch.expected_rows(id, scan.table.as_str(), from, to) };
            let Some(rows) = rows else { continue };
            *expected_rows.get_or_insert_default() += rows;
            if let Some(worth) = self.books.worths.of_row(&scan.table, id) {
                *expected_amount.get_or_insert_default() += rows * worth.mean;
                lacking.amount_variance += rows * ROWS_AT_ONCE * worth.square;
            }
        }
        if let Some(rows) = expected_rows {
            *lacking.rows.get_or_insert_default() += rows;
        }
        if let Some(amount) = expected_amount {
            *lacking.amount.get_or_insert_default() += amount;
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

    /// The share of the rows that is missing, if the question says from when on it asks.
    fn share(&self, watch: &Watch, scope: &Scope, coverage: &Coverage) -> Option<Share> {
        let rows: u64 = coverage.missing.iter().map(|missing| missing.expected_rows).sum::<Option<u64>>()?;
        let mut all = 0.0;
        for scan in &scope.scans {
            let (from, to) = (scan.from?, scan.until.map_or(self.asked_at, |until| until.min(self.asked_at)));
            let sites = self.view.ids.iter().zip(&scan.sites).filter(|(_, is_in)| **is_in).map(|(site, _)| site);
            let sites: Vec<&SiteId> = sites.collect();
            let step = sites.len().div_ceil(SAMPLE).max(1);
            let sampled = sites.iter().step_by(step);
            let expected = |site: &&SiteId| watch.expected_rows(site, scan.table.as_str(), from, to);
            let of_sample: f64 = sampled.filter_map(expected).sum();
            all += of_sample * step as f64;
        }
        (all > 0.0).then(|| Share {
            share: (rows as f64 / all).min(1.0),
            plus_minus: (rows as f64 * ROWS_AT_ONCE).sqrt() / all,
        })
    }
}

/// Whether a site that is well and has sent all can be missing for this.
fn is_of_content(cause: Cause) -> bool {
    matches!(cause, Cause::NotCaptured | Cause::ColumnGone | Cause::ColumnLeftOut | Cause::Clock | Cause::Zone)
}

/// When a site can have rows.
#[derive(Debug, Clone, Copy)]
struct SiteTimes {
    retired: Option<Timestamp>,
    go_live: Option<Timestamp>,
    /// Since when what it sends is kept apart.
    apart_since: Option<Timestamp>,
    /// Nobody said its time zone.
    has_no_zone: bool,
    /// Until when its local times were read in another zone.
    other_zone_until: Option<Timestamp>,
    /// Up to when a person answers for the times of its rows.
    accepted: Option<Timestamp>,
}

impl SiteTimes {
    fn of(record: &SiteRecord) -> Self {
        Self {
            retired: record.retired.as_ref().map(|retired| retired.at),
            go_live: record.go_live(),
            apart_since: record.apart_since(),
            has_no_zone: record.attributes.get("tz").is_none(),
            other_zone_until: record.other_zone_until(),
            accepted: record.times_accepted.as_ref().map(|accepted| accepted.at),
        }
    }

    /// Whether the site can have rows that a scan asks for: a retired one only from before, one
    /// that opens later none.
    fn is_about(&self, known: &SiteProgress, scan: &ScanScope, asked_at: Timestamp) -> bool {
        if let Some(retired) = self.retired {
            return known.last_heard.is_some() && scan.from.is_none_or(|from| from <= retired);
        }
        let until = scan.until.map_or(asked_at, |until| until.min(asked_at));
        // One that was heard before its time may have rows.
        self.go_live.is_none_or(|go_live| go_live < until || known.last_heard.is_some())
    }
}
