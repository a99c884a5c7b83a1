//! Counts again what sites say they captured: every manifest is checked against the rows in the lake.
//!
//! A manifest is itself a row of the site's journal, so it cannot arrive unless the data path works. A site that is heard
//! and sends none, one whose rows are not all here, and one whose tables grow although it captured nothing, each become an
//! incident.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arrow_array::{
    Array, Int32Array, Int64Array, RecordBatch, StringArray,
    cast::AsArray,
    types::{Int32Type, Int64Type, TimestampMicrosecondType},
};
use arrow_schema::{DataType, Field, Schema};
use rollcall_query::{Answer, Extras, MakeTable};
use rollcall_roll::{Condition, Kind};
use rollcall_types::{Epoch, Manifest, Seq, SiteId, Stated, TableName, Timestamp, describe};

use crate::{error::HqError, node::Shared, watching::Heard};

/// How far back manifests are read when HQ starts.
const LOOK_BACK: Duration = Duration::from_secs(24 * 3600);
/// Rows of a window were received after the manifest before it, by clocks of nodes that may differ by so much.
const SLACK: Duration = Duration::from_secs(5);
/// A manifest may be committed so long after it was received.
const COMMIT_MAX: Duration = Duration::from_secs(120);
/// A site that is heard and misses this many manifests in a row has a dead data path.
const MISSED_MAX: u32 = 3;

/// A manifest as HQ received it.
#[derive(Debug, Clone)]
struct Received {
    epoch: Epoch,
    seq: Seq,
    at: Timestamp,
    manifest: Manifest,
}

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
pub(crate) struct Reconciliation(Mutex<BTreeMap<(SiteId, String), Reconciled>>);

impl Reconciliation {
    pub(crate) fn all(&self) -> MutexGuard<'_, BTreeMap<(SiteId, String), Reconciled>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    // A round reads all that came since the oldest of the manifests before: with one each half interval, a row is read three times.
    let every = (shared.config.manifest_interval() / 2).clamp(Duration::from_secs(1), Duration::from_secs(300));
    let mut timer = tokio::time::interval(every);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut reconciler = Reconciler {
        read_from: shared.now().before(LOOK_BACK),
        started: shared.now(),
        newest: HashMap::new(),
        waiting: BTreeMap::new(),
    };
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        if let Err(error) = reconciler.round(&shared).await {
            tracing::error!(error = %describe(&error), "manifests could not be checked; they are checked in the next round");
        }
    }
}

struct Reconciler {
    /// Manifests received before were read already.
    read_from: Timestamp,
    started: Timestamp,
    /// The newest manifest that was checked, by site.
    newest: HashMap<SiteId, Received>,
    /// Manifests to be checked, oldest first.
    waiting: BTreeMap<(SiteId, Seq), Received>,
}

impl Reconciler {
    async fn round(&mut self, shared: &Shared) -> Result<(), HqError> {
        // What was heard of a site must not be newer than what is known of its rows.
        shared.lake.follow().await?;
        self.read(shared).await?;
        let mut windows = Vec::new();
        let mut checked = Vec::new();
        let waiting: Vec<(SiteId, Seq)> = self.waiting.keys().cloned().collect();
        for key in waiting {
            // A batch's tables commit on their own; when the site's position is behind the manifest, all of them have.
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
        let counted = match count_surely(shared, &mut windows).await {
            Ok(counted) => counted,
            Err(error) => {
                for (site, received, before) in checked.into_iter().rev() {
                    match before {
                        Some(before) => self.newest.insert(site.clone(), before),
                        None => self.newest.remove(&site),
                    };
                    self.waiting.insert((site, received.seq), received);
                }
                return Err(error);
            }
        };
        for (site, received, before) in checked {
            judge(shared, &site, &received, before.as_ref(), &counted);
        }
        self.miss(shared);
        Ok(())
    }

    /// Reads manifests that arrived since the last round.
    async fn read(&mut self, shared: &Shared) -> Result<(), HqError> {
        let now = shared.now();
        let entries = |op: char| {
            format!(
                "SELECT _site, _epoch, _seq, _received_at, a, b, c FROM rollcall.site_log WHERE _op = '{op}' \
                 AND _received_at >= '{}' ORDER BY _received_at",
                self.read_from
            )
        };
        for (site, (at, text)) in losses(&shared.engine.query(&entries('L'), Extras::default()).await?) {
            let is_known = shared.watching.watch().incidents().any(|incident| {
                incident.kind == Kind::Condition(Condition::Loss)
                    && incident.members.contains_key(&site)
                    && incident.opened_at >= at
            });
            if !is_known {
                shared.found(&site, Heard::Condition(Condition::Loss, Some(text)));
            }
        }
        let answer = shared.engine.query(&entries('M'), Extras::default()).await?;
        for (site, received) in manifests(&answer) {
            let known = self.newest.get(&site);
            let is_new = known.is_none_or(|known| (received.epoch, received.seq) > (known.epoch, known.seq));
            // What HQ checked before it stopped is only where the next one continues.
            if received.at < self.started && is_new {
                self.newest.insert(site, received);
            } else if is_new {
                self.waiting.insert((site, received.seq), received);
            }
        }
        self.read_from = now.before(COMMIT_MAX);
        Ok(())
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

/// Since when the rows of a manifest's window can have been received; none if that is not known, as after a new epoch.
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

/// Rows in the lake by site, end of the window and table.
type Counted = HashMap<(SiteId, Seq, TableName), u64>;

/// Counts; what does not agree is counted once more among all rows, whenever received.
async fn count_surely(shared: &Shared, windows: &mut Vec<Window>) -> Result<Counted, HqError> {
    let mut counted = count(shared, windows).await?;
    windows.retain(|window| counted.get(&window.key()) != Some(&window.stated));
    for window in &mut *windows {
        window.received_from = Timestamp::from_micros(0);
    }
    counted.extend(count(shared, windows).await?);
    Ok(counted)
}

async fn count(shared: &Shared, windows: &[Window]) -> Result<Counted, HqError> {
    let mut by_table: BTreeMap<&TableName, Vec<&Window>> = BTreeMap::new();
    for window in windows {
        by_table.entry(&window.table).or_default().push(window);
    }
    let mut counted = Counted::new();
    for (table, windows) in by_table {
        counted.extend(windows.iter().map(|window| (window.key(), 0)));
        let Some(from) = windows.iter().map(|window| window.received_from).min() else { continue };
        if shared.lake.table(table).is_none() {
            continue;
        }
        // The join counts each row of the lake at most once: a site's windows do not overlap.
        let sql = format!(
            "SELECT w.number, count(*) AS found FROM rollcall.windows w JOIN history.\"{table}\" h ON h._site = w.site \
             AND h._epoch = w.epoch AND h._seq > w.after AND h._seq <= w.through WHERE h._received_at >= '{from}' \
             GROUP BY w.number"
        );
        let rows = windows_table(&windows)?;
        let tables: Vec<(_, _, MakeTable)> = vec![("rollcall", "windows", Arc::new(move || rows.clone()))];
        let extras = Extras { tables, ..Extras::default() };
        let answer = shared.engine.query(&sql, extras).await?;
        for rows in &answer.batches {
            let (numbers, found) =
                (rows.column(0).as_primitive::<Int64Type>(), rows.column(1).as_primitive::<Int64Type>());
            for (number, found) in numbers.values().iter().zip(found.values()) {
                if let Some(window) = usize::try_from(*number).ok().and_then(|number| windows.get(number)) {
                    counted.insert(window.key(), found.unsigned_abs());
                }
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

/// Says what a manifest showed.
fn judge(shared: &Shared, site: &SiteId, received: &Received, before: Option<&Received>, counted: &Counted) {
    let (mut problems, mut all_found) = (Vec::new(), HashSet::new());
    let mut all = shared.reconciliation.all();
    for stated in &received.manifest.tables {
        let name = TableName::at_hq(&stated.table).ok();
        let through = received.manifest.through;
        let found = name.and_then(|name| counted.get(&(site.clone(), through, name)).copied());
        if found.is_some() {
            all_found.insert(stated.table.clone());
        }
        if let Some(found) = found.filter(|found| *found != stated.rows) {
            problems.push(format!(
                "{site} journalled {} changes of {} in positions {} to {through}, {found} of them are here",
                stated.rows,
                stated.table,
                received.manifest.after.0 + 1
            ));
        }
        let last_key = |received: &Received| {
            received.manifest.tables.iter().find(|other| other.table == stated.table).and_then(|other| other.last_key)
        };
        if let (0, Some(now), Some(then)) = (stated.rows, stated.last_key, before.and_then(last_key))
            && now > then
        {
            problems.push(format!(
                "{site} captured no change of {}, but its last row went from {then} to {now}: changes pass by the triggers",
                stated.table
            ));
        }
        let reconciled =
            Reconciled { stated: stated.clone(), after: received.manifest.after, through, found, at: received.at };
        all.insert((site.clone(), stated.table.clone()), reconciled);
    }
    drop(all);
    for problem in &problems {
        tracing::error!(%site, problem, "a manifest does not agree with the lake");
    }
    let is_counted = |stated: &Stated| all_found.contains(&stated.table);
    if problems.is_empty() && received.manifest.tables.iter().all(is_counted) {
        shared.found(site, Heard::Reconciled { received_at: received.at });
    }
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    shared.found(site, Heard::Condition(Condition::Manifest, problem));
}

/// Changes that sites lost for ever: when HQ heard of it last, and what was said.
fn losses(answer: &Answer) -> BTreeMap<SiteId, (Timestamp, String)> {
    let mut all: BTreeMap<SiteId, (Timestamp, String)> = BTreeMap::new();
    for rows in &answer.batches {
        let times = rows.column(3).as_primitive::<TimestampMicrosecondType>();
        let text = |index: usize, row: usize| rows.column(index).as_string_view().value(row);
        for row in 0..rows.num_rows() {
            let Ok(site) = SiteId::new(text(0, row)) else { continue };
            let said = format!("changes {} to {} are lost for ever: {}", text(4, row), text(5, row), text(6, row));
            let (at, text) = all.entry(site).or_default();
            *at = Timestamp::from_micros(times.value(row));
            text.push_str(if text.is_empty() { "" } else { "; " });
            text.push_str(&said);
        }
    }
    all
}

fn manifests(answer: &Answer) -> Vec<(SiteId, Received)> {
    let mut all = Vec::new();
    for rows in &answer.batches {
        let text = |index: usize, row: usize| {
            let column = rows.column(index).as_string_view();
            column.is_valid(row).then(|| column.value(row))
        };
        let epochs = rows.column(1).as_primitive::<Int32Type>();
        let seqs = rows.column(2).as_primitive::<Int64Type>();
        let times = rows.column(3).as_primitive::<TimestampMicrosecondType>();
        for row in 0..rows.num_rows() {
            let read = || {
                let seq = |index: usize| Some(Seq(text(index, row)?.parse().ok()?));
                let tables = serde_json::from_str(text(6, row)?).ok()?;
                let manifest = Manifest { after: seq(4)?, through: seq(5)?, tables };
                let received = Received {
                    epoch: Epoch(epochs.value(row).unsigned_abs()),
                    seq: Seq(seqs.value(row).unsigned_abs()),
                    at: Timestamp::from_micros(times.value(row)),
                    manifest,
                };
                Some((SiteId::new(text(0, row)?).ok()?, received))
            };
            match read() {
                Some(read) => all.push(read),
                None => tracing::error!(site = text(0, row), "a manifest cannot be read"),
            }
        }
    }
    all
}
