//! Counts again what sites say they captured: every manifest is checked against the rows in the
//! lake.
//!
//! A manifest is itself a row of the site's journal, so it cannot arrive unless the data path
//! works. A site that is heard and sends none, one whose rows are not all here, and one whose
//! tables grow although it captured nothing, each become an incident.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arrow_array::{Array, Int32Array, Int64Array, RecordBatch, StringArray, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema};
use rollcall_lake::DataFile;
use rollcall_query::{Extras, MakeTable};
use rollcall_roll::{Condition, Kind};
use rollcall_types::{Epoch, Seq, SiteId, SiteNumber, Stated, TableName, Timestamp, columns};
use tokio::task::block_in_place;

use crate::{
    error::HqError,
    node::Shared,
    quarantine::hq_name,
    restate::{Captured, CapturedTables},
    restated::Restatements,
    site_log::{Entry, Load, Loads, Losses, Received, entries, manifest, note_load, note_loss},
    unreconciled::{Discrepancy, Unreconciled},
    watching::Heard,
};

/// How far back manifests are read when HQ starts.
const LOOK_BACK: Duration = Duration::from_secs(24 * 3600);
/// Rows of a window were received after the manifest before it, by clocks of nodes that may differ
/// by so much.
const SLACK: Duration = Duration::from_secs(5);
/// So many manifests of a site wait for a table that cannot be counted.
const WAITING_MAX: usize = 12;
/// A site that is heard and misses this many manifests in a row has a dead data path.
const MISSED_MAX: u32 = 3;

/// What became of one table's part of a site's newest manifest.
#[derive(Debug, Clone)]
pub(crate) struct Reconciled {
    pub(crate) stated: Stated,
    pub(crate) after: Seq,
    pub(crate) through: Seq,
    /// Rows in the lake; none where they could not be counted.
    pub(crate) found: Option<u64>,
    pub(crate) at: Timestamp,
}

/// What was reconciled last, by site and table.
#[derive(Debug, Default)]
pub(crate) struct Reconciliation {
    all: Mutex<BTreeMap<(SiteId, String), Reconciled>>,
    captured: Mutex<Captured>,
}

impl Reconciliation {
    /// What each site captures, by its newest manifest.
    pub(crate) fn captured(&self) -> Captured {
        self.captured.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_captured(&self, site: &SiteId, received: &Received) {
        let manifest = &received.manifest;
        let gone = manifest.tables.iter().filter(|stated| !stated.gone.is_empty());
        let newest = CapturedTables {
            epoch: received.epoch,
            through: manifest.through,
            tables: manifest.tables.iter().map(|stated| hq_name(&stated.table)).collect(),
            uncaptured: manifest.uncaptured.iter().filter_map(|table| TableName::at_hq(table).ok()).collect(),
            gone: gone
                .filter_map(|stated| {
                    let columns = stated.gone.iter().map(|column| columns::at_hq(column)).collect();
                    Some((TableName::at_hq(&stated.table).ok()?, columns))
                })
                .collect(),
        };
        self.captured.lock().unwrap_or_else(PoisonError::into_inner).insert(site.clone(), Arc::new(newest));
    }

    pub(crate) fn all(&self) -> MutexGuard<'_, BTreeMap<(SiteId, String), Reconciled>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One table's rows between two manifests of a site, to be counted.
struct Window {
    site: SiteId,
    epoch: Epoch,
    after: Seq,
    through: Seq,
    table: TableName,
    /// Rows the site says there are.
    stated: u64,
    /// None of its rows was received before.
    received_from: Timestamp,
}

impl Window {
    fn key(&self) -> (SiteId, Seq, TableName) {
        (self.site.clone(), self.through, self.table.clone())
    }
}

/// Runs until the node stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    // A round reads all that came since the oldest of the manifests before: with one each half
    // interval, a row is read three times.
    let every = (shared.config.manifest_interval() / 2).clamp(Duration::from_secs(1), Duration::from_secs(300));
    let mut timer = tokio::time::interval(every);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let state = shared.lake.state();
    let mut reconciler = Reconciler {
        read: HashSet::new(),
        started: shared.now(),
        newest: HashMap::new(),
        waiting: BTreeMap::new(),
        unreconciled: Unreconciled::restore(state),
    };
    *shared.restatements.lock().await = Restatements::restore(state);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        shared.health.note("check manifests", &reconciler.round(&shared).await);
    }
}

struct Reconciler {
    /// Files of the sites' log that were read already. By when they were received one could not
    /// tell what is new: a node may take long to commit what it received.
    read: HashSet<String>,
    started: Timestamp,
    /// The newest manifest that was checked, by site.
    newest: HashMap<SiteId, Received>,
    /// Manifests to be checked, oldest first.
    waiting: BTreeMap<(SiteId, Seq), Received>,
    /// What is not mended yet.
    unreconciled: Unreconciled,
}

impl Reconciler {
    async fn round(&mut self, shared: &Arc<Shared>) -> Result<(), HqError> {
        // What was heard of a site must not be newer than what is known of its rows.
        shared.lake.follow().await?;
        self.read(shared).await?;
        let mut windows = Vec::new();
        let mut checked = Vec::new();
        let waiting: Vec<(SiteId, Seq)> = self.waiting.keys().cloned().collect();
        for key in waiting {
            // A batch's tables commit on their own; when the site's position is behind the
            // manifest, all of them have.
            if shared.ledger.confirmed_through(&key.0) < key.1 {
                continue;
            }
            let Some(received) = self.waiting.remove(&key) else { continue };
            let before = self.newest.insert(key.0.clone(), received.clone());
            if let Some(from) = received_from(shared, &key.0, &received, before.as_ref()) {
                let window = |stated: &Stated| {
                    Some(Window {
                        site: key.0.clone(),
                        epoch: received.epoch,
                        after: received.manifest.after,
                        through: received.manifest.through,
                        table: TableName::at_hq(&stated.table).ok()?,
                        stated: stated.rows,
                        received_from: from,
                    })
                };
                windows.extend(received.manifest.tables.iter().filter_map(window));
            }
            checked.push((key.0, received, before));
        }
        let counted = count_surely(shared, &mut windows).await;
        // What stated rows of a table that cannot be counted waits; the other sites' manifests do
        // not.
        let of_uncounted = |received: &Received| {
            let mut names = received.manifest.tables.iter().filter_map(|stated| TableName::at_hq(&stated.table).ok());
            names.any(|name| counted.failed.contains(&name))
        };
        let mut of_site: HashMap<&SiteId, usize> = HashMap::new();
        checked.iter().for_each(|(site, ..)| *of_site.entry(site).or_default() += 1);
        // Of very many, those tables that can be counted are: they would pile up.
        let may_wait = |site: &SiteId| of_site.get(site).is_none_or(|count| *count <= WAITING_MAX);
        let uncounted = checked.iter().filter(|(site, received, _)| of_uncounted(received) && may_wait(site));
        let wait: HashSet<SiteId> = uncounted.map(|(site, ..)| site.clone()).collect();
        let (waiting, checked): (Vec<_>, Vec<_>) = checked.into_iter().partition(|(site, ..)| wait.contains(site));
        for (site, received, before) in waiting.into_iter().rev() {
            match before {
                Some(before) => self.newest.insert(site.clone(), before),
                None => self.newest.remove(&site),
            };
            self.waiting.insert((site, received.seq), received);
        }
        for (site, received, before) in checked {
            judge(shared, &mut self.unreconciled, &site, &received, before.as_ref(), &counted.rows);
        }
        self.miss(shared);
        self.settle(shared).await?;
        self.look_at_restatements(shared).await
    }

    /// Counts again what did not agree, and forgets what is mended.
    async fn settle(&mut self, shared: &Shared) -> Result<(), HqError> {
        let told = shared.watching.open_of(Condition::Manifest);
        self.unreconciled.account(|site| told.contains(site));
        let open = self.unreconciled.to_count();
        let mut windows: Vec<Window> = open
            .filter_map(|(site, found, stated)| {
                Some(Window {
                    site: site.clone(),
                    epoch: found.epoch,
                    after: found.after,
                    through: found.through,
                    table: TableName::at_hq(&found.table).ok()?,
                    stated,
                    received_from: Timestamp::from_micros(0),
                })
            })
            .collect();
        let counted = count_surely(shared, &mut windows).await;
        let roster = shared.roster.all();
        let current = |site: &SiteId| {
            let record = roster.get(site)?;
            Some((SiteNumber(record.number), record.current_life()?))
        };
        let agrees = |site: &SiteId, found: &Discrepancy| {
            let name = TableName::at_hq(&found.table).ok();
            let key = name.map(|name| (site.clone(), found.through, name));
            found.stated.is_some() && key.and_then(|key| counted.rows.get(&key).copied()) == found.stated
        };
        for site in self.unreconciled.settle(&shared.lake, current, agrees) {
            let mended = "what was missing is here: it was counted again, or stated again".to_owned();
            shared.found(&site, Heard::Mended(Condition::Manifest, mended));
        }
        for site in self.unreconciled.sites() {
            shared.found(site, Heard::Condition(Condition::Manifest, self.unreconciled.text(site)));
        }
        self.unreconciled.note_told(|site| told.contains(site));
        if shared.is_acting() {
            self.unreconciled.store(shared.lake.state(), shared.now()).await?;
        }
        Ok(())
    }

    /// Tells of tables that are stated again, and of those that were.
    async fn look_at_restatements(&self, shared: &Arc<Shared>) -> Result<(), HqError> {
        let mut restatements = shared.restatements.lock().await;
        let (current, now) = (shared.current_rows(), shared.now());
        let confirmed = |site: &SiteId| shared.ledger.confirmed_through(site);
        let number = |site: &SiteId| shared.roster.get(site).map(|record| SiteNumber(record.number));
        let (lake, engine) = (&shared.lake, &shared.engine);
        let news = restatements.look((lake, engine), &current, number, confirmed, now).await;
        for restated in &news.began {
            tracing::warn!("{}", restated.describe());
            if restated.is_incident() {
                shared.found(&restated.site, Heard::Condition(Condition::Restated, Some(restated.describe())));
            }
        }
        for restated in &news.completed {
            tracing::warn!("{}", restated.describe());
            if restated.is_incident() {
                // The incident keeps what was said last: how many rows there are now.
                shared.found(&restated.site, Heard::Condition(Condition::Restated, Some(restated.describe())));
                let left = restatements.text(&restated.site);
                let said = match left {
                    Some(left) => Heard::Condition(Condition::Restated, Some(left)),
                    None => Heard::Mended(Condition::Restated, restated.describe()),
                };
                shared.found(&restated.site, said);
            }
        }
        if shared.is_acting() {
            restatements.store(shared.lake.state(), now).await?;
        }
        Ok(())
    }

    /// Reads what came to the sites' log since the last round.
    async fn read(&mut self, shared: &Shared) -> Result<(), HqError> {
        let horizon = shared.now().before(LOOK_BACK);
        let log = shared.lake.site_log();
        let snapshot = log.snapshot();
        let is_new = |file: &&Arc<DataFile>| {
            file.modified_ms.saturating_mul(1000) >= horizon.as_micros() && !self.read.contains(&file.path)
        };
        let (mut losses, mut loads) = (Losses::new(), Loads::new());
        for file in snapshot.files().filter(is_new).cloned().collect::<Vec<_>>() {
            let batches = log.read_file(&snapshot, &file).await?;
            block_in_place(|| {
                for rows in batches {
                    // What was merged into a new file is mostly old.
                    for entry in entries(&rows?)?.filter(|entry| entry.at >= horizon) {
                        match entry.op {
                            "L" => note_loss(&mut losses, &entry),
                            "M" => self.take_manifest(shared, &entry),
                            "B" | "C" => note_load(&mut loads, &entry),
                            _ => {}
                        }
                    }
                }
                Ok::<_, HqError>(())
            })?;
        }
        for (site, (at, text)) in losses {
            let is_known = shared.watching.watch().incidents().any(|incident| {
                incident.kind == Kind::Condition(Condition::Loss)
                    && incident.members.contains_key(&site)
                    && (incident.opened_at >= at || incident.closed_at.is_some_and(|closed| closed >= at))
            });
            if !is_known {
                shared.found(&site, Heard::Condition(Condition::Loss, Some(text)));
            }
        }
        let mut restatements = shared.restatements.lock().await;
        for ((site, epoch, seq), load) in loads {
            match load {
                Load::Begun { table, reason, at } => restatements.begin(site, epoch, seq, &table, &reason, at),
                Load::Complete { table, begin } => restatements.mark(site, &table, (epoch, begin), seq),
            }
        }
        self.read = snapshot.files().map(|file| file.path.clone()).collect();
        Ok(())
    }

    fn take_manifest(&mut self, shared: &Shared, entry: &Entry<'_>) {
        let Some((site, received)) = manifest(entry) else {
            tracing::error!(site = entry.site, "a manifest cannot be read");
            return;
        };
        let known = self.newest.get(&site);
        let is_new = known.is_none_or(|known| (received.epoch, received.seq) > (known.epoch, known.seq));
        // What HQ checked before it stopped is only where the next one continues.
        if received.at < self.started && is_new {
            shared.reconciliation.note_captured(&site, &received);
            self.newest.insert(site, received);
        } else if is_new {
            self.waiting.insert((site, received.seq), received);
        }
    }

    /// Sites that are heard and send no manifest.
    fn miss(&self, shared: &Shared) {
        let allowed = shared.config.manifest_interval() * MISSED_MAX;
        for (site, since, heard) in shared.ledger.should_state(shared.now()) {
            let waiting = self.waiting.range((site.clone(), Seq(0))..=(site.clone(), Seq(u64::MAX)));
            let received = waiting.map(|(_, received)| received).chain(self.newest.get(&site));
            let last = received.map(|received| received.at).fold(since, Timestamp::max);
            // Only what passed while it was heard counts: a silent site is another matter.
            if heard.since(last) > allowed {
                let minutes = heard.since(last).as_secs_f64() / 60.0;
                let text = format!(
                    "{site} is heard, but for {minutes:.0} minutes nothing came of what it captured, not even the count of it: \
                     its data path is dead"
                );
                shared.found(&site, Heard::Condition(Condition::Manifest, Some(text)));
            }
        }
    }
}

/// Since when the rows of a manifest's window can have been received; none if that is not known, as
/// after a new epoch.
fn received_from(shared: &Shared, site: &SiteId, received: &Received, before: Option<&Received>) -> Option<Timestamp> {
    match before {
        Some(before) if before.epoch == received.epoch && before.manifest.through <= received.manifest.after => {
            Some(before.at.before(SLACK))
        }
        None if received.manifest.after == Seq(0) && received.epoch == Epoch(1) => {
            shared.roster.get(site)?.enrolled_at.map(|enrolled| enrolled.before(SLACK))
        }
        _ => None,
    }
}

/// What was counted in the lake.
#[derive(Default)]
struct Counted {
    /// Rows by site, end of the window and table.
    rows: HashMap<(SiteId, Seq, TableName), u64>,
    /// Tables that could not be counted.
    failed: HashSet<TableName>,
}

/// Counts; what does not agree is counted once more among all rows, whenever received.
async fn count_surely(shared: &Shared, windows: &mut Vec<Window>) -> Counted {
    let mut counted = Counted::default();
    count(shared, windows, &mut counted).await;
    windows.retain(|window| {
        counted.rows.get(&window.key()) != Some(&window.stated) && !counted.failed.contains(&window.table)
    });
    for window in &mut *windows {
        window.received_from = Timestamp::from_micros(0);
    }
    count(shared, windows, &mut counted).await;
    counted
}

/// Counts each table by itself: one that cannot be read holds up no other.
async fn count(shared: &Shared, windows: &[Window], counted: &mut Counted) {
    let mut by_table: BTreeMap<&TableName, Vec<&Window>> = BTreeMap::new();
    for window in windows {
        by_table.entry(&window.table).or_default().push(window);
    }
    for (table, windows) in by_table {
        let outcome = count_table(shared, table, &windows).await;
        shared.health.note(format!("count what sites sent to {table}"), &outcome);
        match outcome {
            Ok(rows) => counted.rows.extend(rows),
            Err(_) => {
                counted.failed.insert(table.clone());
                for window in windows {
                    counted.rows.remove(&window.key());
                }
            }
        }
    }
}

async fn count_table(
    shared: &Shared,
    table: &TableName,
    windows: &[&Window],
) -> Result<HashMap<(SiteId, Seq, TableName), u64>, HqError> {
    let mut counted: HashMap<_, _> = windows.iter().map(|window| (window.key(), 0)).collect();
    let from = windows.iter().map(|window| window.received_from).min();
    let Some(from) = from.filter(|_| shared.lake.table(table).is_some()) else { return Ok(counted) };
    // The join counts each row of the lake at most once: a site's windows do not overlap.
    let sql = format!(
        "SELECT w.number, count(*) AS found FROM rollcall.windows w JOIN history.\"{table}\" h ON h._site = w.site \
         AND h._epoch = w.epoch AND h._seq > w.after AND h._seq <= w.through WHERE h._received_at >= '{from}' \
         GROUP BY w.number"
    );
    let rows = windows_table(windows)?;
    let tables: Vec<(_, _, MakeTable)> = vec![("rollcall", "windows", Arc::new(move || rows.clone()))];
    let extras = Extras { tables, ..Extras::default() };
    let answer = shared.engine.query(&sql, extras).await?;
    for rows in &answer.batches {
        let (numbers, found) = (rows.column(0).as_primitive::<Int64Type>(), rows.column(1).as_primitive::<Int64Type>());
        for (number, found) in numbers.values().iter().zip(found.values()) {
            if let Some(window) = usize::try_from(*number).ok().and_then(|number| windows.get(number)) {
                counted.insert(window.key(), found.unsigned_abs());
            }
        }
    }
    Ok(counted)
}

fn windows_table(windows: &[&Window]) -> Result<RecordBatch, HqError> {
    let long = |value: &dyn Fn(&Window) -> u64| {
        Arc::new(Int64Array::from_iter_values(windows.iter().map(|window| value(window) as i64))) as Arc<dyn Array>
    };
    let fields = [
        ("number", DataType::Int64),
        ("site", DataType::Utf8),
        ("epoch", DataType::Int32),
        ("after", DataType::Int64),
        ("through", DataType::Int64),
    ];
    let schema = Schema::new(fields.map(|(name, kind)| Field::new(name, kind, false)).to_vec());
    let columns = vec![
        Arc::new(Int64Array::from_iter_values(0..windows.len() as i64)) as Arc<dyn Array>,
        Arc::new(StringArray::from_iter_values(windows.iter().map(|window| window.site.as_str()))),
        Arc::new(Int32Array::from_iter_values(windows.iter().map(|window| window.epoch.0 as i32))),
        long(&|window| window.after.0),
        long(&|window| window.through.0),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).map_err(|error| HqError::Invalid(error.to_string()))
}

/// Takes in what a manifest showed.
fn judge(
    shared: &Shared,
    unreconciled: &mut Unreconciled,
    site: &SiteId,
    received: &Received,
    before: Option<&Received>,
    counted: &HashMap<(SiteId, Seq, TableName), u64>,
) {
    let (mut problems, mut all_found) = (Vec::new(), HashSet::new());
    let (after, through) = (received.manifest.after, received.manifest.through);
    let is_next =
        |before: &&Received| before.epoch == received.epoch && before.manifest.through == received.manifest.after;
    shared.reconciliation.note_captured(site, received);
    let mut all = shared.reconciliation.all();
    for stated in &received.manifest.tables {
        let name = TableName::at_hq(&stated.table).ok();
        let found = name.and_then(|name| counted.get(&(site.clone(), through, name)).copied());
        if found.is_some() {
            all_found.insert(stated.table.clone());
        }
        let discrepancy = |stated_rows: Option<u64>, text: String| Discrepancy {
            epoch: received.epoch,
            table: stated.table.clone(),
            after,
            through,
            stated: stated_rows,
            text,
        };
        // What did not come is in quarantine, and said there.
        let is_kept = || shared.quarantine.has_kept(site, received.epoch, &stated.table, (after, through));
        if let Some(found) = found.filter(|found| *found != stated.rows && !is_kept()) {
            let text = format!(
                "{site} journalled {} changes of {} in positions {} to {through}, {found} of them are here",
                stated.rows,
                stated.table,
                after.0 + 1
            );
            problems.push(discrepancy(Some(stated.rows), text));
        }
        let last_key = |received: &Received| {
            received.manifest.tables.iter().find(|other| other.table == stated.table).and_then(|other| other.last_key)
        };
        // Of changes between two manifests that do not follow each other nothing is known.
        if let (0, Some(now), Some(then)) = (stated.rows, stated.last_key, before.filter(is_next).and_then(last_key))
            && now > then
        {
            let text = format!(
                "{site} captured no change of {}, but its last row went from {then} to {now}: changes pass by the triggers",
                stated.table
            );
            problems.push(discrepancy(None, text));
        }
        let reconciled = Reconciled { stated: stated.clone(), after, through, found, at: received.at };
        all.insert((site.clone(), stated.table.clone()), reconciled);
    }
    drop(all);
    for problem in &problems {
        tracing::error!(%site, problem = problem.text, "a manifest does not agree with the lake");
    }
    let is_counted = |stated: &Stated| all_found.contains(&stated.table);
    if problems.is_empty() && received.manifest.tables.iter().all(is_counted) {
        shared.found(site, Heard::Reconciled { received_at: received.at });
    }
    problems.into_iter().for_each(|problem| unreconciled.add(site, problem));
    // Where nothing is left to mend, what was said of manifests that did not come is over.
    shared.found(site, Heard::Condition(Condition::Manifest, unreconciled.text(site)));
}
