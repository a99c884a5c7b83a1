//! Feeds the watch with what was heard, lets time pass, and stores what it says.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arrow_array::{Array, BinaryArray, RecordBatch, StringArray, cast::AsArray, types::GenericBinaryType};
use arrow_schema::ArrowError;
use chrono::NaiveDate;
use rollcall_lake::{Lake, LakeError, StateView};
use rollcall_roll::{
    CONTACT, Calendar, Closure, Condition, Decision, Hours, Incident, Kind, Remembered, SiteSpec, Thresholds, Tuning,
    Watch, WatchConfig,
};
use rollcall_types::{Cause, SiteId, Timestamp, describe};
use serde::{Deserialize, Serialize};

use crate::{
    attributes::Attributes,
    error::HqError,
    health::Told,
    node::Shared,
    notify,
    requests::answer_requests,
    roster::{SiteRecord, Sites},
    roster_file::RosterFile,
};

const INCIDENT: &str = "incident";
/// The kind of the watch's signs of life.
pub(crate) const TICKS: &str = "watch";
const TICK: &str = "tick";
const TUNING: &str = "tuning";
const HOLIDAYS: &str = "holidays";
/// What nodes that do not act cannot do.
const HEALTH: &str = "health";
/// Comes before the name of the node that cannot do something, where that is not the one that acts.
const AT_NODE: &str = " at node ";
/// What [`crate::health::Health`] calls it.
const STORE_INCIDENTS: &str = "store incidents";
const STORE_TUNING: &str = "store how rare silences are";
/// How often time passes for the watch.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// How often it is stored that the watch is alive.
const ALIVE_EVERY: i64 = 30;
/// How often rhythms are stored.
const RHYTHMS_EVERY: i64 = 6 * 3600;
/// Changes unconfirmed for this long at a site that is heard: behind.
const BEHIND_AFTER: Duration = Duration::from_secs(30 * 60);

/// Something heard of a site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Heard {
    /// Anything at all.
    Contact,
    /// Rows of a table became durable.
    Rows { table: String, count: usize },
    /// It goes, and says so.
    Goodbye,
    /// Changes wait at the site, the oldest for so long.
    Backlog { rows: u64, age: Duration },
    /// A session began: what it showed of the site that others may share, and whether the site
    /// states manifests.
    Welcomed { seen: BTreeMap<String, String>, states_manifests: bool },
    /// A manifest received then was counted, and every row is here.
    Reconciled { received_at: Timestamp },
    /// Something about it is wrong, or well again.
    Condition(Condition, Option<String>),
    /// It is well again, and why.
    Mended(Condition, String),
    /// What is known afterwards of a silence.
    Afterwards { cause: Option<Cause>, text: String },
}

/// The watch of this node.
#[derive(Debug)]
pub(crate) struct Watching {
    watch: Mutex<Watch>,
    heard: Mutex<Vec<(SiteId, Timestamp, Heard)>>,
    /// The roster and holidays as the watch knows them.
    known: Mutex<(Arc<Sites>, BTreeMap<String, Holidays>)>,
}

/// The last sign of the watch's life.
#[derive(Debug, Serialize, Deserialize)]
struct Alive {
    at: Timestamp,
}

/// Days that go like a Sunday, for all sites that name this calendar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holidays {
    /// Such as `2026-12-25`.
    pub(crate) days: BTreeSet<String>,
}

/// Silence after so long, in whole contact units: a unit is a minute, less where silence must show
/// sooner.
fn config_of(silent_after: Duration, beacon_interval: Duration, red_and_page: Option<(f64, f64)>) -> WatchConfig {
    let contact_minutes = Thresholds::default().contact_minutes;
    let unit = (silent_after.as_secs_f64() / contact_minutes).clamp(1.0, 60.0) as i64;
    let per_hour = 3600.0 / (unit as f64).max(beacon_interval.as_secs_f64());
    let longer = (silent_after.as_secs_f64() / unit as f64).max(contact_minutes);
    let usual = Thresholds::default();
    let (red, page) = red_and_page.unwrap_or((usual.red, usual.page));
    WatchConfig {
        contact_unit: unit,
        contacts_per_hour: per_hour as f32,
        thresholds: Thresholds { contact_minutes: longer, red, page, ..usual },
        tunes: red_and_page.is_none(),
        ..WatchConfig::default()
    }
}

impl Watching {
    /// A watch that takes up what is in the lake.
    pub(crate) fn new(shared: &WatchParts<'_>) -> Self {
        let view = shared.lake.state().view();
        let alive = view.get(TICKS, TICK).and_then(|record| record.parse::<Alive>().ok());
        let last_tick = alive.map_or(shared.now, |alive| alive.at);
        let mut watch =
            Watch::new(config_of(shared.silent_after, shared.beacon_interval, shared.red_and_page), last_tick);
        let holidays = holidays(shared.lake);
        for (id, record) in shared.roster.iter() {
            watch.set_site(spec(id, record, &holidays, shared.now));
            if let Some(retired) = &record.retired {
                watch.retire(id, "", retired.at);
            }
        }
        stored_incidents(&view).into_iter().for_each(|incident| watch.restore_incident(incident));
        for (site, remembered) in &shared.rhythms {
            watch.restore(site, remembered.clone());
        }
        watch.restored();
        watch.restore_tuning(stored_tuning(&view));
        Self { watch: Mutex::new(watch), heard: Mutex::default(), known: Mutex::new((shared.roster.clone(), holidays)) }
    }

    /// Takes note; the watch looks at it within a second.
    pub(crate) fn heard(&self, site: &SiteId, now: Timestamp, what: Heard) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push((site.clone(), now, what));
    }

    /// Sites of which an incident of this kind is open.
    pub(crate) fn open_of(&self, condition: Condition) -> HashSet<SiteId> {
        let watch = self.watch();
        let is_open = |incident: &&Incident| incident.kind == Kind::Condition(condition) && incident.is_open();
        watch.incidents().filter(is_open).flat_map(|incident| incident.members.keys().cloned()).collect()
    }

    /// The watch itself.
    pub(crate) fn watch(&self) -> MutexGuard<'_, Watch> {
        // A panic in it would be a bug; what it knows is still the best there is.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a second pass.
    fn tick(&self, lake: &Lake, roster: &Arc<Sites>, now: Timestamp) -> Said {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        let mut watch = self.watch();
        self.follow(&mut watch, lake, roster, now);
        for (site, at, what) in heard {
            take(&mut watch, &site, at, what);
        }
        let before = watch.thresholds();
        watch.tick(now);
        let after = watch.thresholds();
        if after != before {
            tracing::warn!(red = after.red, page = after.page, "thresholds are set anew, by the alarm budget");
        }
        Said { decisions: watch.take_decisions(), incidents: watch.take_changed(), is_tuned: after != before }
    }

    /// Takes over what changed on the roster.
    fn follow(&self, watch: &mut Watch, lake: &Lake, roster: &Arc<Sites>, now: Timestamp) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let holidays = holidays(lake);
        let same_days = known.1 == holidays;
        if Arc::ptr_eq(&known.0, roster) && same_days {
            return;
        }
        for (id, record) in roster.iter() {
            let before = known.0.get(id);
            if same_days && before.is_some_and(|before| Arc::ptr_eq(before, record)) {
                continue;
            }
            watch.set_site(spec(id, record, &holidays, now));
            if let Some(retired) =
                record.retired.as_ref().filter(|_| before.is_some_and(|known| known.retired.is_none()))
            {
                watch.retire(id, &retired.reason, now);
            }
            if record.retired.is_none() && before.is_some_and(|known| known.retired.is_some()) {
                watch.take_back(id, now);
            }
        }
        *known = (roster.clone(), holidays);
    }

    /// Everything to be kept of streams.
    fn remembered(&self) -> Vec<(SiteId, Remembered)> {
        let roster = self.known.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        let watch = self.watch();
        roster.keys().filter_map(|site| Some((site.clone(), watch.remember(site)?))).collect()
    }
}

/// What a watch is made from.
pub(crate) struct WatchParts<'a> {
    pub(crate) lake: &'a Lake,
    pub(crate) roster: Arc<Sites>,
    pub(crate) rhythms: Vec<(SiteId, Remembered)>,
    pub(crate) silent_after: Duration,
    pub(crate) red_and_page: Option<(f64, f64)>,
    pub(crate) beacon_interval: Duration,
    pub(crate) now: Timestamp,
}

/// What the watch said in a tick.
struct Said {
    decisions: Vec<Decision>,
    incidents: Vec<Incident>,
    /// Thresholds were set anew.
    is_tuned: bool,
}

fn take(watch: &mut Watch, site: &SiteId, at: Timestamp, what: Heard) {
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

/// The holiday calendars, by name.
pub(crate) fn holidays(lake: &Lake) -> BTreeMap<String, Holidays> {
    let view = lake.state().view();
    view.of_kind(HOLIDAYS).filter_map(|record| Some((record.id.to_string(), record.parse().ok()?))).collect()
}

/// Stores a holiday calendar.
pub(crate) async fn set_holidays(shared: &Shared, name: &str, days: Holidays, by: &str) -> Result<(), HqError> {
    let now = shared.now();
    let record = |view: &rollcall_lake::StateView| view.next(HOLIDAYS, name, &days, now, by);
    shared.lake.state().update(|view| Ok::<_, LakeError>((vec![record(view)?], ()))).await?;
    Ok(())
}

/// A site as the watch wants it. What cannot be read was refused when it was entered.
fn spec(id: &SiteId, record: &SiteRecord, holidays: &BTreeMap<String, Holidays>, now: Timestamp) -> SiteSpec {
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

/// Runs the watch until the node stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut timer = tokio::time::interval(TICK_EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut alive, mut rhythms, mut told_other) = (0, shared.now().as_seconds(), BTreeMap::new());
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => break,
            _ = timer.tick() => {}
        }
        let now = shared.now();
        let now_s = now.as_seconds();
        let ingest_ok = shared.ingest.is_well();
        // Only a deaf HQ asks whether backlogs of its own absence still come in.
        let is_deaf = shared.watching.watch().guard().deaf().is_some();
        let draining = is_deaf && shared.ledger.is_draining(now);
        shared.watching.watch().set_ingest(ingest_ok, draining);
        shared.health.look_at_clock(&shared.clock, &shared.sessions);
        let failing = shared.health.told(now);
        tell_of_hq(&shared, &failing, now);
        let worker = shared.clone();
        let roster = shared.roster.all();
        let ticked = tokio::task::spawn_blocking(move || worker.watching.tick(&worker.lake, &roster, now));
        let Ok(said) = ticked.await else {
            tracing::error!("the watch failed; it goes on");
            continue;
        };
        if !shared.is_acting() {
            tell_other(&shared, &mut told_other, &failing, now).await;
            continue;
        }
        answer_requests(&shared).await;
        let is_due = now_s - alive >= ALIVE_EVERY;
        if is_due || !said.incidents.is_empty() {
            match store(&shared, &said.incidents, now).await {
                Ok(true) => {
                    alive = now_s;
                    shared.health.done(STORE_INCIDENTS);
                }
                // What this node decided counts no more.
                Ok(false) => continue,
                Err(error) => {
                    shared.health.failed(STORE_INCIDENTS, &describe(&error));
                    shared.watching.watch().keep_changed(&said.incidents);
                }
            }
        }
        for decision in said.decisions {
            tell(&shared, &decision);
        }
        if said.is_tuned {
            store_tuning(&shared).await;
        }
        if now_s - rhythms >= RHYTHMS_EVERY {
            rhythms = now_s;
            store_tuning(&shared).await;
            store_rhythms(&shared).await;
        }
    }
}

/// Opens and ends incidents of what HQ itself cannot do, at this node and, if it acts, at the
/// others.
fn tell_of_hq(shared: &Shared, own: &Told, now: Timestamp) {
    let mut watch = shared.watching.watch();
    for (work, problem) in own.iter().filter(|(_, problem)| problem.is_some()) {
        watch.set_hq(work, problem.as_deref(), now);
    }
    let open = watch.open_of_hq();
    for work in open.iter().filter(|work| own.get(*work).is_some_and(Option::is_none)) {
        watch.set_hq(work, None, now);
    }
    let Some(relay) = shared.relay.as_ref().filter(|_| shared.is_acting()) else { return };
    let view = shared.lake.state().view();
    let is_other = |node: &str| node != relay.node() && relay.is_alive(node);
    let others = view.of_kind(HEALTH).filter(|record| is_other(&record.id));
    let of_others: BTreeMap<String, String> = others
        .flat_map(|record| {
            let failing: BTreeMap<String, String> = record.parse().unwrap_or_default();
            let node = record.id.to_string();
            failing.into_iter().map(move |(work, problem)| (format!("{work}{AT_NODE}{node}"), problem))
        })
        .collect();
    for (work, problem) in &of_others {
        watch.set_hq(work, Some(problem), now);
    }
    // A node that is gone cannot fail, nor succeed.
    for work in open.iter().filter(|work| work.contains(AT_NODE) && !of_others.contains_key(*work)) {
        watch.set_hq(work, None, now);
    }
}

/// Tells the node that acts what this one cannot do.
async fn tell_other(shared: &Shared, told: &mut BTreeMap<String, String>, own: &Told, now: Timestamp) {
    let Some(relay) = &shared.relay else { return };
    let failing = own.iter().filter_map(|(work, problem)| Some((work.clone(), problem.clone()?)));
    let failing: BTreeMap<String, String> = failing.collect();
    if failing == *told {
        return;
    }
    let record =
        |view: &StateView| Ok::<_, LakeError>((vec![view.next(HEALTH, relay.node(), &failing, now, "hq")?], ()));
    if shared.lake.state().update(record).await.is_ok() {
        *told = failing;
    }
}

/// HQ's last sign of life, at any node.
pub(crate) fn last_sign(lake: &Lake) -> Option<Timestamp> {
    lake.state().view().get(TICKS, TICK)?.parse::<Alive>().ok().map(|alive| alive.at)
}

/// Stores what must survive a stop.
pub(crate) async fn stop(shared: &Shared) {
    if !shared.is_acting() {
        return;
    }
    let changed = shared.watching.watch().take_changed();
    if let Err(error) = store(shared, &changed, shared.now()).await {
        tracing::error!(error = %describe(&error), "the watch's state could not be stored");
    }
    store_tuning(shared).await;
    store_rhythms(shared).await;
}

/// Stores incidents and that the watch is alive; false if another node keeps the watch now.
pub(crate) async fn store(shared: &Shared, incidents: &[Incident], now: Timestamp) -> Result<bool, LakeError> {
    let records = |view: &StateView| {
        let mut records = vec![view.next(TICKS, TICK, &Alive { at: now }, now, "hq")?];
        for incident in incidents {
            records.push(view.next(INCIDENT, &incident.id.to_string(), incident, now, "hq")?);
        }
        Ok(records)
    };
    shared.acting(records).await
}

/// The incidents in the lake.
fn stored_incidents(view: &StateView) -> Vec<Incident> {
    let parsed = view.of_kind(INCIDENT).filter_map(|record| {
        let parsed = record.parse::<Incident>();
        parsed.inspect_err(|error| tracing::error!(%error, id = %record.id, "an incident cannot be read")).ok()
    });
    parsed.collect()
}

/// What is known of how rare silences are.
fn stored_tuning(view: &StateView) -> Tuning {
    view.get(TICKS, TUNING).and_then(|record| record.parse().ok()).unwrap_or_default()
}

/// All incidents known: those of the watch that acts, which is this node's or, by the lake,
/// another's.
pub(crate) fn incidents(shared: &Shared) -> Vec<Incident> {
    if shared.is_acting() {
        return shared.watching.watch().incidents().cloned().collect();
    }
    let mut incidents = stored_incidents(&shared.lake.state().view());
    incidents.sort_by_key(|incident| incident.id);
    incidents
}

/// One of [`incidents`].
pub(crate) fn incident(shared: &Shared, id: u64) -> Option<Incident> {
    if shared.is_acting() {
        return shared.watching.watch().incident(id).cloned();
    }
    shared.lake.state().view().get(INCIDENT, &id.to_string())?.parse().ok()
}

/// This node acts from now on: what the one before stored is what people know.
pub(crate) fn lead(shared: &Shared) {
    let view = shared.lake.state().view();
    let mut watch = shared.watching.watch();
    watch.adopt_incidents(stored_incidents(&view));
    watch.restore_tuning(stored_tuning(&view));
}

fn tell(shared: &Arc<Shared>, decision: &Decision) {
    let incident = shared.watching.watch().incident(decision.incident).cloned();
    let Some(incident) = incident else { return };
    notify::tell(shared, decision, &incident, &shared.roster.all());
    tracing::warn!(
        incident = incident.id,
        notice = ?decision.notice,
        level = decision.level,
        cause = incident.cause.map(|cause| cause.to_string()),
        "{}",
        incident.evidence
    );
}

async fn store_tuning(shared: &Shared) {
    let (tuning, now) = (shared.watching.watch().tuning().clone(), shared.now());
    let record = |view: &StateView| Ok(vec![view.next(TICKS, TUNING, &tuning, now, "hq")?]);
    if let Err(error) = shared.acting(record).await {
        shared.health.failed(STORE_TUNING, &describe(&error));
    } else {
        shared.health.done(STORE_TUNING);
    }
}

async fn store_rhythms(shared: &Shared) {
    shared.health.note("store sites' rhythms", &try_store_rhythms(shared).await);
}

async fn try_store_rhythms(shared: &Shared) -> Result<(), LakeError> {
    let remembered = shared.watching.remembered();
    if remembered.is_empty() {
        return Ok(());
    }
    let table = shared.lake.rhythms();
    let schema = table.snapshot().schema().arrow().clone();
    let rows = tokio::task::spawn_blocking(move || {
        let kept = remembered.iter().filter_map(|(site, value)| Some((site.as_str(), serde_json::to_vec(value).ok()?)));
        let (sites, values): (Vec<&str>, Vec<Vec<u8>>) = kept.unzip();
        let sites = StringArray::from_iter_values(sites);
        let values = BinaryArray::from_iter_values(values);
        RecordBatch::try_new(schema, vec![Arc::new(sites) as Arc<dyn Array>, Arc::new(values)])
    });
    let rows = rows.await.unwrap_or_else(|error| Err(ArrowError::ComputeError(error.to_string())));
    let rows = rows.map_err(|source| LakeError::Arrow { doing: "writing rhythms", source })?;
    table.replace_rows(rows).await
}

/// The rhythms stored last; where they cannot be read, they are learned anew.
pub(crate) async fn known_rhythms(lake: &Lake) -> Vec<(SiteId, Remembered)> {
    stored_rhythms(lake).await.unwrap_or_else(|error| {
        tracing::error!(error = %describe(&error), "rhythms cannot be read; they are learned anew");
        Vec::new()
    })
}

/// The rhythms stored last.
pub(crate) async fn stored_rhythms(lake: &Lake) -> Result<Vec<(SiteId, Remembered)>, LakeError> {
    let mut all = Vec::new();
    for rows in lake.rhythms().read_rows().await? {
        let (sites, values) = (rows.column(0).as_string::<i32>(), rows.column(1).as_bytes::<GenericBinaryType<i32>>());
        for row in 0..rows.num_rows() {
            let site = SiteId::new(sites.value(row)).ok();
            match (site, serde_json::from_slice(values.value(row))) {
                (Some(site), Ok(remembered)) => all.push((site, remembered)),
                _ => tracing::warn!(site = sites.value(row), "a rhythm cannot be read; it is learned anew"),
            }
        }
    }
    Ok(all)
}
