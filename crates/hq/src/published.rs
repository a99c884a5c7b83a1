//! Tables that HQ owns and sites have: what is published, for whom, and by whom.
//!
//! A published table is a table of the lake like any other, whose one writer is HQ itself ([`SiteNumber::HQ`]): its rows have
//! positions, its history is whole, its current rows are the newest. A *publication* is one commit of it; its *version* is
//! the position of its last row, which is where the table's cursor stands. So a version is told with its rows, atomically, and
//! what a site lacks is whatever lies behind the position it has. See decision 0009.

pub(crate) mod arrivals;
mod fetch;
pub(crate) mod image;
pub(crate) mod rows;
pub(crate) mod scheduled;
pub(crate) mod shared;
pub(crate) mod sql;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringArray, UInt8Array, UInt32Array,
    cast::AsArray, types::Int64Type,
};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use arrow_select::filter::filter_record_batch;
use futures::TryStreamExt;
use ring::digest;
use rollcall_lake::{
    Column, Conformed, HQ_EPOCH, LakeError, Part, PartOutcome, SiteClock, Snapshot, StateView, TableSchema, conform,
    our_columns,
};
use rollcall_query::{Audience, Extras, Question, SiteAudience};
use rollcall_types::{
    ChainHash, Epoch, HQ_SITE, Seq, SiteId, SiteNumber, TableName, Timestamp, columns, describe, hq_identifier,
    shared::{Rule, Version},
};
use rollcall_wire::proto::WantedTable;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::block_in_place};

use crate::{
    error::HqError,
    node::Shared,
    published::{
        arrivals::Applied,
        fetch::Encoded,
        image::{Image, is_live, row_bytes},
    },
    roster::{SiteRecord, Sites},
    sessions::Session,
    settings,
};

const DEFINITION: &str = "published_table";
const PUBLICATION: &str = "publication";
/// The rule of a table that is HQ's alone.
const NOBODY: &str = "false";
/// Rows of a table's history that are read before older ones with their keys are let go.
const FOLDED_ROWS: usize = 200_000;
/// A publication that others get ahead of is worked out anew so often.
const ATTEMPTS: usize = 10;

/// What was said of a published table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// The columns that name a row.
    pub(crate) key: Vec<String>,
    /// Which rows a site gets: a condition over the row's columns and, as `site.name`, the site's attributes.
    pub(crate) to: String,
    /// Whether rows that a site changed are put right, or only told of.
    pub(crate) mends: bool,
    /// How often sites were made to fetch the table whole, since something that had taken effect was taken back.
    #[serde(default)]
    pub(crate) restated: u32,
    /// By which rule sites change it as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shared: Option<Rule>,
}

/// One publication, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Publication {
    pub(crate) table: TableName,
    /// The position of its last row.
    pub(crate) version: Seq,
    /// The version before it.
    pub(crate) previous: Seq,
    pub(crate) at: Timestamp,
    pub(crate) by: String,
    pub(crate) note: String,
    pub(crate) counts: Counts,
}

/// What a publication did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) inserted: u64,
    pub(crate) updated: u64,
    pub(crate) deleted: u64,
    /// Rows that were given and are in the table already, or not there to be deleted.
    pub(crate) unchanged: u64,
}

impl Counts {
    fn changes(self) -> u64 {
        self.inserted + self.updated + self.deleted
    }
}

/// What is done with rows that are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They are added, or take the place of those with their keys. Columns that are not given stay as they are.
    Merge,
    /// They are added, and none may be there.
    Insert,
    /// They are the whole table: rows not among them go.
    Replace,
}

/// Something to be published.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) table: TableName,
    pub(crate) rows: RecordBatch,
    /// Rows with these keys go at the same time.
    pub(crate) gone: Option<RecordBatch>,
    pub(crate) mode: Mode,
    /// Needed for the first publication of a table; then it may be left out.
    pub(crate) key: Vec<String>,
    /// Likewise; for every site if never said.
    pub(crate) to: Option<String>,
    pub(crate) mends: Option<bool>,
    /// Whether sites change it as well, and the rule; `Some(None)` ends it.
    pub(crate) shared: Option<Option<Rule>>,
    pub(crate) by: String,
    pub(crate) note: String,
    /// Only says what it would do.
    pub(crate) dry_run: bool,
    /// The version on which the rows were worked out; nothing is published on another.
    pub(crate) based_on: Option<Seq>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) table: TableName,
    pub(crate) version: Seq,
    pub(crate) previous: Seq,
    pub(crate) counts: Counts,
    /// Sites that have the table.
    pub(crate) audience: usize,
    /// Sites for which something changes.
    pub(crate) sites_touched: usize,
    pub(crate) dry_run: bool,
}

/// Sites that are alike, as far as a table's rule names attributes.
#[derive(Debug)]
pub(crate) struct Class {
    /// Names the rule and the values; see `Wanted.audience` of the protocol.
    pub(crate) tag: u64,
    pub(crate) rule: SiteAudience,
}

impl Class {
    /// Which rows of an image are for these sites.
    fn mask(&self, rows: &RecordBatch) -> Result<BooleanArray, HqError> {
        // The rule knows columns by their place among the published ones.
        let published: Vec<usize> = (image::OURS..rows.num_columns()).collect();
        Ok(self.rule.mask(&rows.project(&published).map_err(failed)?)?)
    }
}

/// A table's rule, and what it comes to for each class of sites.
struct Rules {
    audience: Audience,
    definition: Definition,
    classes: Mutex<HashMap<Vec<Option<String>>, Arc<Class>>>,
    /// By class: which version was looked at last, and the newest that changed something for the class.
    concerned: Mutex<HashMap<u64, (Seq, Seq)>>,
}

impl Rules {
    fn new(audience: Audience, definition: Definition) -> Self {
        Self { audience, definition, classes: Mutex::default(), concerned: Mutex::default() }
    }
}

/// A published table as this node knows it.
pub(crate) struct Known {
    pub(crate) name: TableName,
    pub(crate) image: Image,
    rules: Arc<Rules>,
    /// What was made for sites to fetch.
    encoded: Mutex<Encoded>,
    /// Held while that is made: sites that want the same wait for it, and others' does not need memory at the same time.
    making: Mutex<()>,
    /// The table as of then; none if there is none yet. In a shared one, cursors move without a version.
    snapshot: Option<Snapshot>,
}

impl Known {
    fn new(name: TableName, image: Image, rules: Arc<Rules>, snapshot: Option<Snapshot>) -> Self {
        Self { name, image, rules, encoded: Mutex::default(), making: Mutex::default(), snapshot }
    }

    /// Whether sites changed it as well, once.
    fn was_shared(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| snapshot.schema().column(shared::ORIGIN).is_some())
    }

    /// The number of the site's last edit that was decided on: what came of it is in this image.
    fn decided(&self, site: SiteNumber, epoch: Epoch) -> u64 {
        let cursor = self.snapshot.as_ref().and_then(|snapshot| snapshot.cursor(site, epoch));
        cursor.map_or(0, |cursor| cursor.seq.0)
    }

    pub(crate) fn definition(&self) -> &Definition {
        &self.rules.definition
    }

    /// The newest version that changed something for a class, or a newer one: its sites need no other.
    pub(crate) fn version_for(&self, class: &Class) -> Result<Seq, HqError> {
        let newest = self.image.version;
        let mut concerned = self.rules.concerned.lock().unwrap_or_else(PoisonError::into_inner);
        let version = match concerned.get(&class.tag).copied() {
            Some((seen, version)) if seen >= newest => return Ok(version),
            Some((seen, version)) => match self.image.replaced_behind(seen) {
                Some(replaced) => {
                    let is_for = class.mask(&self.image.behind(seen))?.true_count() > 0;
                    let was_for = class.mask(&replaced)?.true_count() > 0;
                    if is_for || was_for { newest } else { version }
                }
                None => newest,
            },
            None => newest,
        };
        concerned.insert(class.tag, (newest, version));
        Ok(version)
    }

    /// The class a site belongs to.
    pub(crate) fn class_of(&self, site: &SiteId, record: &SiteRecord) -> Result<Arc<Class>, HqError> {
        let rules = &self.rules;
        let names = rules.audience.attributes().iter();
        let values: Vec<Option<String>> = names.map(|name| record.value(site, name)).collect();
        let mut classes = rules.classes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(class) = classes.get(&values) {
            return Ok(class.clone());
        }
        let texts: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
        let rule = rules.audience.of(&texts)?;
        let tag = tag_of(&rules.definition, &texts);
        let class = Arc::new(Class { tag, rule });
        classes.insert(values, class.clone());
        Ok(class)
    }
}

fn tag_of(definition: &Definition, values: &[Option<&str>]) -> u64 {
    let text =
        serde_json::json!([definition.key, definition.to, definition.mends, definition.restated, values]).to_string();
    let text = if definition.shared.is_some() { format!("{text} shared") } else { text };
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut low = [0; 8];
    low.copy_from_slice(&digest.as_ref()[..8]);
    // 0 says that nothing is applied; SQLite and JSON keep 63 bits safely.
    (u64::from_le_bytes(low) >> 1).max(1)
}

/// All published tables of this node.
pub(crate) struct Published {
    known: RwLock<BTreeMap<TableName, Arc<Known>>>,
    /// Counts changes of what sites should have.
    changed: watch::Sender<u64>,
    /// One publication at a time; another node's are noticed at the commit.
    publishing: tokio::sync::Mutex<()>,
    refreshing: tokio::sync::Mutex<()>,
    /// The roster as of the last look at whose attributes changed.
    roster: Mutex<Arc<Sites>>,
    waiting: Mutex<scheduled::Waiting>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            known: RwLock::default(),
            changed: watch::channel(0).0,
            publishing: tokio::sync::Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            roster: Mutex::default(),
            waiting: Mutex::default(),
        }
    }
}

impl Published {
    /// The published tables.
    pub(crate) fn all(&self) -> BTreeMap<TableName, Arc<Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn get(&self, table: &TableName) -> Option<Arc<Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
    }

    /// Tells when what sites should have may have changed.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn bump(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn roster(&self) -> MutexGuard<'_, Arc<Sites>> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was said of tables, by name.
fn definitions(view: &StateView) -> BTreeMap<TableName, Definition> {
    let parsed = view.of_kind(DEFINITION).filter_map(|record| Some((record.id.parse().ok()?, record.parse().ok()?)));
    parsed.collect()
}

/// The publications that are kept, oldest first.
pub(crate) fn publications(view: &StateView) -> Vec<Publication> {
    let mut all: Vec<Publication> = view.of_kind(PUBLICATION).filter_map(|record| record.parse().ok()).collect();
    all.sort_by(|a, b| (&a.table, a.version, a.at).cmp(&(&b.table, b.version, b.at)));
    all
}

/// A change of the rule alone has the version of the rows before it.
fn publication_id(publication: &Publication) -> String {
    format!("{}/{:020}/{}", publication.table, publication.version.0, publication.at.as_micros())
}

fn failed(error: ArrowError) -> HqError {
    LakeError::Arrow { doing: "working out what is published", source: error }.into()
}

/// Takes over what was published since, here or at another node. A table that cannot be read stays as it was known, and the
/// others go on.
pub(crate) async fn refresh(shared: &Shared) {
    let published = &shared.published;
    let _one = published.refreshing.lock().await;
    let mut is_new = follow_roster(shared) | settings::refresh(shared) | scheduled::refresh(shared);
    let view = shared.lake.state().view();
    for (name, definition) in definitions(&view) {
        let Some(table) = shared.lake.table(&name) else { continue };
        let snapshot = table.snapshot();
        let version = snapshot.cursor(SiteNumber::HQ, HQ_EPOCH).unwrap_or_default().seq;
        let known = published.get(&name);
        let is_known = |known: &Arc<Known>| {
            let is_same = known.image.version == version && *known.definition() == definition;
            let has_cursors = definition.shared.is_some() || known.was_shared();
            let same_log = known.snapshot.as_ref().is_some_and(|known| known.version() == snapshot.version());
            is_same && (!has_cursors || same_log)
        };
        if known.as_ref().is_some_and(is_known) {
            continue;
        }
        match bring(shared, &name, snapshot, version, definition, known.as_deref()).await {
            Ok(known) => {
                published.known.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(known));
                is_new = true;
            }
            Err(error) => {
                tracing::error!(table = %name, error = %describe(&error), "what was published cannot be read; publish it again");
            }
        }
    }
    if is_new {
        published.bump();
    }
}

/// A table as of `version`, from what was known of it.
async fn bring(
    shared: &Shared,
    name: &TableName,
    snapshot: Snapshot,
    version: Seq,
    definition: Definition,
    known: Option<&Known>,
) -> Result<Known, HqError> {
    let schema = snapshot.schema().as_ref().clone();
    let empty = Image::empty(&schema);
    let base = known.map_or(&empty, |known| &known.image);
    let image = read_behind(shared, name, base, version, &schema).await?;
    let rules = match known {
        Some(known) if known.rules.definition == definition && known.image.schema() == image.schema() => {
            known.rules.clone()
        }
        _ => Arc::new(Rules::new(shared.engine.audience(&definition.to, &image.schema())?, definition)),
    };
    Ok(Known::new(name.clone(), image, rules, Some(snapshot)))
}

/// Whether a site came, went, or has other attributes than before.
fn follow_roster(shared: &Shared) -> bool {
    let roster = shared.roster.all();
    let mut known = shared.published.roster();
    if Arc::ptr_eq(&known, &roster) {
        return false;
    }
    let same = known.len() == roster.len()
        && known.iter().zip(roster.iter()).all(|((id, before), (other, now))| {
            id == other && before.attributes == now.attributes && before.retired == now.retired
        });
    *known = roster;
    !same
}

/// Refuses a rule that names what no site has: more likely a slip than a wish. While there are no sites, nobody knows.
pub(crate) fn check_attributes(audience: &Audience, roster: &Sites) -> Result<(), HqError> {
    let mut known: BTreeSet<&str> =
        roster.values().flat_map(|record| record.attributes.keys().map(String::as_str)).collect();
    known.insert("id");
    match audience.attributes().iter().find(|name| !known.contains(name.as_str())) {
        Some(name) if !roster.is_empty() => {
            let known: Vec<&str> = known.into_iter().collect();
            Err(HqError::Invalid(format!("no site has the attribute {name}; they have {}", known.join(", "))))
        }
        _ => Ok(()),
    }
}

/// `base`, and what the table's history has behind it up to `version`.
async fn read_behind(
    shared: &Shared,
    name: &TableName,
    base: &Image,
    version: Seq,
    schema: &TableSchema,
) -> Result<Image, HqError> {
    let columns: Vec<String> = [columns::SEQ, columns::OP, our_columns::RECEIVED_AT]
        .into_iter()
        .map(str::to_owned)
        .chain(image::published_columns(schema).into_iter().map(|column| column.name))
        .map(|name| format!("\"{}\"", name.replace('"', "\"\"")))
        .collect();
    let sql = format!(
        "SELECT {} FROM history.\"{name}\" WHERE _site = '{HQ_SITE}' AND _seq > {} AND _seq <= {version} ORDER BY _seq",
        columns.join(", "),
        base.version
    );
    let planned = shared.engine.plan(Question::Text(&sql), None, Extras::default()).await?;
    let mut stream = planned.stream().await?;
    let (mut image, mut pending, mut rows) = (None, Vec::new(), 0);
    loop {
        let batch = stream.try_next().await.map_err(|error| HqError::Query(error.into()))?;
        let is_last = batch.is_none();
        rows += batch.as_ref().map_or(0, RecordBatch::num_rows);
        pending.extend(batch);
        // The history is longer than the table: it is never in memory as a whole.
        if is_last || rows >= FOLDED_ROWS {
            // A large table takes its time; sites are served meanwhile.
            let folded = block_in_place(|| image.as_ref().unwrap_or(base).with(&pending, schema));
            let mut folded = folded.map_err(failed)?;
            note_made(&mut folded, &pending)?;
            image = Some(folded);
            (pending, rows) = (Vec::new(), 0);
        }
        if is_last && let Some(image) = image.take() {
            return Ok(image);
        }
    }
}

/// Notes when rows of the history were published.
fn note_made(image: &mut Image, rows: &[RecordBatch]) -> Result<(), HqError> {
    for rows in rows {
        let times = rows.column_by_name(our_columns::RECEIVED_AT).ok_or(HqError::Outdated)?;
        let times = arrow_cast::cast(times, &DataType::Int64).map_err(failed)?;
        let seqs = arrow_cast::cast(rows.column(0), &DataType::Int64).map_err(failed)?;
        let (times, seqs) = (times.as_primitive::<Int64Type>(), seqs.as_primitive::<Int64Type>());
        for (seq, at) in seqs.values().iter().zip(times.values()) {
            image.note_made(Seq(seq.unsigned_abs()), *at);
        }
    }
    Ok(())
}

/// Whether a site has a version that this node does not know.
pub(crate) fn is_ahead(shared: &Shared, site: &SiteId) -> bool {
    let known = shared.published.all();
    let is_newer = |(name, has): (&TableName, &arrivals::Applied)| {
        known.get(name).is_some_and(|known| has.version > known.image.version)
    };
    !known.is_empty() && shared.ledger.applied(site).iter().any(is_newer)
}

/// What a site should have now. A table that no row could be for is left out, unless the site has it and must lose its rows.
pub(crate) fn wanted(shared: &Shared, session: &Session) -> Vec<WantedTable> {
    let site = &session.site;
    let all = shared.published.all();
    if all.is_empty() {
        return Vec::new();
    }
    let Some(record) = shared.roster.get(site) else { return Vec::new() };
    let applied = shared.ledger.applied(site);
    let mut tables = Vec::with_capacity(all.len());
    for (name, known) in all {
        let want = || -> Result<Option<WantedTable>, HqError> {
            let class = known.class_of(site, &record)?;
            if class.rule.is_nobody() && !applied.get(&name).is_some_and(Applied::has_any) {
                return Ok(None);
            }
            let version = known.version_for(&class)?.0;
            let newest = known.image.version.0;
            let (next, due) = scheduled::due(shared, &name, site, &record)?;
            let decided = known.decided(session.number, session.epoch);
            let is_not_ours = |has: &&Applied| known.image.disowns(has.version, has.published_at);
            let has = applied.get(&name).filter(|has| has.published_at != 0);
            let disowned = has.filter(is_not_ours).map_or(0, |has| has.published_at);
            let table = name.to_string();
            Ok(Some(WantedTable { table, version, audience: class.tag, newest, next, due, decided, disowned }))
        };
        match want() {
            Ok(wanted) => tables.extend(wanted),
            Err(error) => tracing::error!(%site, table = %name, %error, "an audience cannot be worked out"),
        }
    }
    tables
}

/// Publishes rows: works out what they change, commits that, and says so to every node and site. What was begun is done to
/// its end, though nobody may wait for it any more.
pub(crate) async fn publish(shared: &Arc<Shared>, request: Request) -> Result<Outcome, HqError> {
    let own = shared.clone();
    let done = shared.tasks.spawn(async move { publish_now(&own, &request).await }).await;
    done.map_err(|error| HqError::Unavailable(error.to_string()))?
}

async fn publish_now(shared: &Shared, request: &Request) -> Result<Outcome, HqError> {
    let _one = shared.published.publishing.lock().await;
    for _ in 0..ATTEMPTS {
        shared.lake.follow().await?;
        refresh(shared).await;
        if let Some(outcome) = try_publish(shared, request).await? {
            return Ok(outcome);
        }
    }
    Err(HqError::Unavailable("others publish to this table all the time; try again".to_owned()))
}

/// One attempt; none if another node was faster.
async fn try_publish(shared: &Shared, request: &Request) -> Result<Option<Outcome>, HqError> {
    let invalid = |text: String| HqError::Invalid(text);
    let name = &request.table;
    let before = definitions(&shared.lake.state().view()).remove(name);
    let definition = define(request, before.as_ref())?;
    shared::check_names(shared, request, before.as_ref())?;
    let table = shared.lake.table(name);
    if before.is_none() && table.as_ref().is_some_and(|table| table.snapshot().cursors().next().is_some()) {
        return Err(invalid(format!("table {name} is filled by sites; HQ publishes tables of its own only")));
    }
    let schema = table.as_ref().map_or_else(
        || TableSchema::for_sites(definition.key.clone()),
        |table| table.snapshot().schema().as_ref().clone(),
    );
    let empty = Image::empty(&schema);
    let known = shared.published.get(name);
    let image = known.as_ref().map_or(&empty, |known| &known.image);
    if request.based_on.is_some_and(|version| version != image.version) {
        return Err(HqError::Outdated);
    }
    let is_redefined = before.as_ref() != Some(&definition);
    // A large table takes its time; sites are served meanwhile.
    let worked_out = block_in_place(|| WorkedOut::new(shared, request, &definition, schema, image, is_redefined));
    let WorkedOut { mut conformed, changes, audience, sites_touched, .. } = worked_out?;
    let previous = image.version;
    let version = Seq(previous.0 + changes.counts.changes());
    let outcome = Outcome {
        table: name.clone(),
        version,
        previous,
        counts: changes.counts,
        audience,
        sites_touched,
        dry_run: request.dry_run,
    };
    let (now, by) = (shared.now(), request.by.as_str());
    if request.dry_run || !is_redefined && changes.counts.changes() == 0 {
        return Ok(Some(outcome));
    }
    if is_redefined {
        let records = |view: &StateView| {
            let own = view.next(DEFINITION, name.as_str(), &definition, now, by)?;
            // What is scheduled is for those for whom the table is.
            let next = scheduled::next_definition(view, name, &definition, now, by)?;
            Ok::<_, LakeError>(([own].into_iter().chain(next).collect(), ()))
        };
        shared.lake.state().update(records).await?;
    }
    let table = shared.lake.table_or_create(name, &definition.key).await?;
    if changes.counts.changes() > 0 {
        conformed.rows = changes.rows(previous, now)?;
        if definition.shared.is_some() {
            conformed.rows = changes.with_origin(&conformed.rows, &definition.key, now)?;
            conformed.new_columns.extend(shared::new_columns(&table));
        }
        let part = Part {
            site: SiteNumber::HQ,
            site_id: SiteId::new(HQ_SITE).map_err(|error| invalid(error.to_string()))?,
            epoch: HQ_EPOCH,
            previous,
            last: version,
            hash: ChainHash::default(),
            marks: Vec::new(),
            rows: conformed,
            received_at: now,
            whole: true,
        };
        let appended = table.append(Arc::new(vec![part])).await?;
        if matches!(appended.outcomes.first(), Some(PartOutcome::Gap { .. })) {
            return Ok(None);
        }
    }
    let publication = Publication {
        table: name.clone(),
        version,
        previous,
        at: now,
        by: request.by.clone(),
        note: request.note.clone(),
        counts: changes.counts,
    };
    note(shared, &publication).await?;
    refresh(shared).await;
    tracing::info!(table = %name, %version, by, counts = ?changes.counts, "published");
    Ok(Some(outcome))
}

/// What a publication would come to.
struct WorkedOut {
    conformed: Conformed,
    changes: Changes,
    /// The columns that its rule names.
    rule_columns: Vec<String>,
    /// Sites that have the table, and for how many of them something changes.
    audience: usize,
    sites_touched: usize,
}

impl WorkedOut {
    fn new(
        shared: &Shared,
        request: &Request,
        definition: &Definition,
        schema: TableSchema,
        image: &Image,
        is_redefined: bool,
    ) -> Result<Self, HqError> {
        let key = &definition.key;
        let conformed = in_hqs_types(&request.rows, &schema, key)?;
        if definition.to != NOBODY {
            check_decimals(&conformed.rows)?;
        }
        let schema = schema.merged(&conformed.new_columns).unwrap_or(schema);
        let keys = |rows: &RecordBatch| in_hqs_types(&named_only(rows, key)?, &schema, key);
        let gone = request.gone.as_ref().map(keys).transpose()?.map(|gone| gone.rows);
        let changes = Changes::new(image, &conformed.rows, gone.as_ref(), &schema, key, request.mode)?;
        if definition.to != NOBODY {
            check_width(&changes.rows)?;
        }
        if definition.shared.is_some() {
            shared::check_columns(&changes.shape())?;
        }
        let roster = shared.roster.all();
        let audience = shared.engine.audience(&definition.to, &changes.shape());
        let audience = audience.map_err(|error| HqError::Invalid(error.to_string()))?;
        check_attributes(&audience, &roster)?;
        let rule_columns = audience.row_columns();
        let rules = Arc::new(Rules::new(audience, definition.clone()));
        let known = Known::new(request.table.clone(), Image::empty(&schema), rules, None);
        let (audience, sites_touched) = touched(&known, &changes, &roster, is_redefined)?;
        Ok(Self { conformed, changes, rule_columns, audience, sites_touched })
    }
}

/// Stores what was published.
async fn note(shared: &Shared, publication: &Publication) -> Result<(), LakeError> {
    let Publication { at, by, .. } = publication;
    let record = |view: &StateView| view.next(PUBLICATION, &publication_id(publication), publication, *at, by);
    shared.lake.state().update(|view| Ok::<_, LakeError>((vec![record(view)?], ()))).await
}

/// Notes what is there without a record of it, since the node that published it died before it could. What was found so at
/// the last look is; what is new may be noted in this moment.
pub(crate) async fn note_orphans(shared: &Shared, found: &mut BTreeMap<TableName, Seq>) -> Result<(), HqError> {
    let view = shared.lake.state().view();
    let noted = publications(&view);
    let before = std::mem::take(found);
    for (name, definition) in definitions(&view) {
        let Some(table) = shared.lake.table(&name) else { continue };
        // Edits of sites are versions that nobody published.
        if definition.shared.is_some() || table.snapshot().schema().column(shared::ORIGIN).is_some() {
            continue;
        }
        let version = table.cursor(SiteNumber::HQ, HQ_EPOCH).unwrap_or_default().seq;
        let newest = noted.iter().filter(|known| known.table == name).map(|known| known.version).max();
        let previous = newest.unwrap_or_default();
        if version > previous {
            found.insert(name.clone(), version);
        }
        if version > previous && before.get(&name) == Some(&version) {
            let note_text = "the node that published this stopped before it could say who asked for it".to_owned();
            let counts = Counts::default();
            let (at, by) = (shared.now(), "unknown".to_owned());
            note(shared, &Publication { table: name, version, previous, at, by, note: note_text, counts }).await?;
        }
    }
    Ok(())
}

fn define(request: &Request, before: Option<&Definition>) -> Result<Definition, HqError> {
    let name = &request.table;
    if name.as_str().starts_with("rollcall.") {
        return Err(HqError::Invalid(format!("{name}: names that begin with rollcall. are Rollcall's own")));
    }
    let key: Vec<String> = request.key.iter().map(|column| hq_identifier(column)).collect();
    match before {
        Some(known) if !key.is_empty() && key != known.key => Err(HqError::Invalid(format!(
            "the key of {name} is ({}); a table with another key needs another name",
            known.key.join(", ")
        ))),
        Some(known) => Ok(Definition {
            key: known.key.clone(),
            to: request.to.clone().unwrap_or_else(|| known.to.clone()),
            mends: request.mends.unwrap_or(known.mends),
            restated: known.restated,
            shared: request.shared.unwrap_or(known.shared),
        }),
        None if key.is_empty() => Err(HqError::Invalid(format!(
            "{name} was never published: say with --key which columns name a row, and with --to which sites get which rows"
        ))),
        None => Ok(Definition {
            key,
            to: request.to.clone().unwrap_or_else(|| "true".to_owned()),
            mends: request.mends.unwrap_or(true),
            restated: 0,
            shared: request.shared.flatten(),
        }),
    }
}

/// Rows as given, in the table's types and under its names.
fn in_hqs_types(rows: &RecordBatch, schema: &TableSchema, key: &[String]) -> Result<Conformed, HqError> {
    if rows.num_columns() == 0 {
        return Ok(Conformed::empty());
    }
    let key_text = serde_json::to_string(key).unwrap_or_default();
    let metadata = HashMap::from([(columns::METADATA_KEY.to_owned(), key_text)]);
    let given = rows.schema().as_ref().clone().with_metadata(metadata);
    let rows = RecordBatch::try_new(Arc::new(given), rows.columns().to_vec()).map_err(failed)?;
    let conformed =
        conform(&rows, schema, SiteClock::default()).map_err(|error| HqError::Invalid(error.to_string()))?;
    if let Some(column) = conformed.new_columns.iter().find(|column| column.name.starts_with('_')) {
        let text = format!("a column cannot be called {}: names that begin with _ are Rollcall's own", column.name);
        return Err(HqError::Invalid(text));
    }
    if conformed.misfits > 0 {
        let text = format!("{} rows have values that the table's types cannot hold", conformed.misfits);
        return Err(HqError::Invalid(text));
    }
    Ok(conformed)
}

/// Of rows as given, the columns with these names at HQ.
fn named_only(rows: &RecordBatch, names: &[String]) -> Result<RecordBatch, HqError> {
    let is_named = |place: &usize| names.contains(&hq_identifier(rows.schema_ref().field(*place).name()));
    let places: Vec<usize> = (0..rows.num_columns()).filter(is_named).collect();
    rows.project(&places).map_err(failed)
}

/// Refuses numbers that SQLite would round, or take for one another: it keeps decimals as floats (datatype3.html, 3.1).
fn check_decimals(rows: &RecordBatch) -> Result<(), HqError> {
    const EXACT: u128 = 10_u128.pow(15);
    for (field, array) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let DataType::Decimal128(_, scale) = field.data_type() else { continue };
        let most = if *scale == 0 { i64::MAX as u128 } else { EXACT - 1 };
        let numbers: &Decimal128Array = array.as_primitive();
        let wide = (0..numbers.len()).find(|row| numbers.is_valid(*row) && numbers.value(*row).unsigned_abs() > most);
        if let Some(row) = wide {
            return Err(HqError::Invalid(format!(
                "row {}: {} is {}, which a store's database cannot hold exactly (15 digits, or whole numbers of 63 bits); \
                 publish it as text",
                row + 1,
                field.name(),
                numbers.value_as_string(row)
            )));
        }
    }
    Ok(())
}

/// Refuses rows that could not be sent to sites.
fn check_width(rows: &RecordBatch) -> Result<(), HqError> {
    match shared::too_wide(rows)?.iter().position(|wide| *wide) {
        Some(row) => Err(HqError::Invalid(format!(
            "row {} of those that change is wider than {} bytes; publish where it is to be found instead",
            row + 1,
            shared::ROW_BYTES_MAX
        ))),
        None => Ok(()),
    }
}

/// What rows that are given change.
struct Changes {
    counts: Counts,
    /// `_op`s, and the rows; deleted ones by their keys alone.
    ops: Vec<u8>,
    rows: RecordBatch,
    /// Rows as they were, of those that change or go.
    before: RecordBatch,
    /// All rows as they were, and for each of `rows` which of them it was; none if it was not there.
    was: RecordBatch,
    places: Vec<Option<u32>>,
}

impl Changes {
    fn new(
        image: &Image,
        given: &RecordBatch,
        gone: Option<&RecordBatch>,
        schema: &TableSchema,
        key: &[String],
        mode: Mode,
    ) -> Result<Self, HqError> {
        let all: Vec<Column> = image::published_columns(schema);
        let old = image.rows();
        let keys = keys_of(given, key)?;
        let gone = gone.map(|gone| keys_of(gone, key)).transpose()?.unwrap_or_default();
        let old_keys = if image.columns.is_empty() { Vec::new() } else { row_bytes(old, key).map_err(failed)? };
        let places: HashMap<&[u8], usize> =
            old_keys.iter().enumerate().map(|(place, key)| (key.as_ref(), place)).collect();
        let mut seen: HashMap<&[u8], usize> = HashMap::new();
        for (row, key) in keys.iter().enumerate() {
            if let Some(first) = seen.insert(key, row) {
                return Err(HqError::Invalid(format!("rows {} and {} have the same key", first + 1, row + 1)));
            }
        }
        let live = is_live(old);
        let live_at = |place: usize| live.value(place);
        // Columns that were not given stay as they are.
        let keeps = |row: usize| match mode {
            Mode::Merge => places.get(keys[row].as_ref()).copied().filter(|place| live_at(*place)),
            Mode::Insert | Mode::Replace => None,
        };
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(all.len());
        let mut old_arrays: Vec<ArrayRef> = Vec::with_capacity(all.len());
        for column in &all {
            let kind = column.kind.arrow();
            let null = arrow_array::new_null_array(&kind, 1);
            let was = match old.column_by_name(&column.name) {
                Some(array) => array.clone(),
                None => arrow_array::new_null_array(&kind, old.num_rows()),
            };
            arrays.push(match given.column_by_name(&column.name) {
                Some(array) => array.clone(),
                None => {
                    let from: Vec<(usize, usize)> =
                        (0..keys.len()).map(|row| keeps(row).map_or((1, 0), |place| (0, place))).collect();
                    arrow_select::interleave::interleave(&[was.as_ref(), null.as_ref()], &from).map_err(failed)?
                }
            });
            old_arrays.push(was);
        }
        let fields: Vec<Field> = all.iter().map(|column| Field::new(&column.name, column.kind.arrow(), true)).collect();
        let shape = Arc::new(Schema::new(fields));
        let new = RecordBatch::try_new(shape.clone(), arrays).map_err(failed)?;
        let was = RecordBatch::try_new(shape.clone(), old_arrays).map_err(failed)?;
        let names: Vec<String> = all.iter().map(|column| column.name.clone()).collect();
        let (new_bytes, old_bytes) =
            (row_bytes(&new, &names).map_err(failed)?, row_bytes(&was, &names).map_err(failed)?);
        let mut counts = Counts::default();
        let (mut ops, mut was_at) = (Vec::new(), Vec::new());
        // (0, row) is a row that is given, (1, place) one that was there.
        let mut after: Vec<(usize, usize)> = Vec::new();
        let mut before: Vec<(usize, usize)> = Vec::new();
        for (row, bytes) in new_bytes.iter().enumerate() {
            let place = places.get(keys[row].as_ref()).copied();
            let is_there = place.filter(|place| live_at(*place));
            let same = is_there.is_some_and(|place| old_bytes[place] == *bytes);
            match (mode, is_there) {
                (Mode::Insert, Some(_)) => return Err(HqError::Exists(format!("row {} is there already", row + 1))),
                _ if same => counts.unchanged += 1,
                (_, there) => {
                    // A row that was there once and went is no new one: what is new supersedes nothing.
                    ops.push(if place.is_some() { b'U' } else { b'I' });
                    *(if there.is_some() { &mut counts.updated } else { &mut counts.inserted }) += 1;
                    after.push((0, row));
                    was_at.push(there.map(|place| place as u32));
                }
            }
            before.extend(is_there.filter(|_| !same).map(|place| (1, place)));
        }
        let gone: HashSet<&[u8]> = gone.iter().map(AsRef::as_ref).collect();
        let goes = |place: &usize| {
            let key = old_keys[*place].as_ref();
            live_at(*place) && !seen.contains_key(key) && (mode == Mode::Replace || gone.contains(key))
        };
        for place in (0..old.num_rows()).filter(goes) {
            counts.deleted += 1;
            ops.push(b'D');
            after.push((1, place));
            was_at.push(None);
            before.push((1, place));
        }
        let was_there = |key: &&&[u8]| places.get(**key).is_some_and(|place| live_at(*place));
        counts.unchanged += (gone.len() - gone.iter().filter(was_there).count()) as u64;
        let pick = |from: &[(usize, usize)]| arrow_select::interleave::interleave_record_batch(&[&new, &was], from);
        let rows = only_keys(&pick(&after).map_err(failed)?, &ops, key)?;
        let before = pick(&before).map_err(failed)?;
        Ok(Self { counts, ops, rows, before, was, places: was_at })
    }

    /// `rows` with who changed what; see [`shared::ORIGIN`].
    fn with_origin(&self, rows: &RecordBatch, key: &[String], now: Timestamp) -> Result<RecordBatch, HqError> {
        let places = UInt32Array::from(self.places.clone());
        let mut changed: Vec<Vec<String>> = vec![Vec::new(); self.ops.len()];
        for (field, array) in self.rows.schema_ref().fields().iter().zip(self.rows.columns()) {
            if key.contains(field.name()) {
                continue;
            }
            let was = self.was.column_by_name(field.name()).ok_or(HqError::Outdated)?;
            let was = arrow_select::take::take(was, &places, None).map_err(failed)?;
            let differs = arrow_ord::cmp::distinct(array, &was).map_err(failed)?;
            for (row, changed) in changed.iter_mut().enumerate() {
                if self.places[row].is_none() || differs.value(row) {
                    changed.push(field.name().clone());
                }
            }
        }
        let origin = |(changed, op): (Vec<String>, &u8)| {
            let (by, at) = (HQ_SITE.to_owned(), now.as_micros());
            serde_json::to_string(&Version { by, at, changed, gone: *op == b'D', restated: false }).unwrap_or_default()
        };
        let origins: StringArray = changed.into_iter().zip(&self.ops).map(origin).map(Some).collect();
        let mut fields: Vec<Field> = rows.schema_ref().fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.push(Field::new(shared::ORIGIN, DataType::Utf8, true));
        let mut arrays = rows.columns().to_vec();
        arrays.push(Arc::new(origins));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(failed)
    }

    fn shape(&self) -> Arc<Schema> {
        self.rows.schema()
    }

    /// The rows as the lake takes them, with positions behind `previous`.
    fn rows(&self, previous: Seq, now: Timestamp) -> Result<RecordBatch, HqError> {
        let seqs = (1..).map(|number| (previous.0 + number) as i64).take(self.ops.len());
        let mut fields = vec![
            Field::new(columns::SEQ, DataType::Int64, true),
            Field::new(columns::OP, DataType::UInt8, true),
            Field::new(columns::CHANGED_AT, DataType::Int64, true),
        ];
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(seqs)),
            Arc::new(UInt8Array::from(self.ops.clone())),
            Arc::new(Int64Array::from(vec![now.as_micros(); self.ops.len()])),
        ];
        // The lake keeps times in its own type.
        arrays[2] = arrow_cast::cast(&arrays[2], &rollcall_lake::ColumnType::Timestamp.arrow()).map_err(failed)?;
        fields[2] = Field::new(columns::CHANGED_AT, arrays[2].data_type().clone(), true);
        fields.extend(self.rows.schema().fields().iter().map(|field| field.as_ref().clone()));
        arrays.extend(self.rows.columns().iter().cloned());
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(failed)
    }
}

/// The keys of rows that were given; each must have one.
fn keys_of(rows: &RecordBatch, key: &[String]) -> Result<Vec<Box<[u8]>>, HqError> {
    if rows.num_rows() == 0 {
        return Ok(Vec::new());
    }
    for column in key {
        let array = rows.column_by_name(column);
        let array =
            array.ok_or_else(|| HqError::Invalid(format!("the rows have no column {column}, which names them")))?;
        if array.null_count() > 0 {
            return Err(HqError::Invalid(format!("{column} names rows, and is empty in some")));
        }
    }
    row_bytes(rows, key).map_err(failed)
}

/// Takes a publication back: rows that were not published again since are what they were before it. How many were is told.
pub(crate) async fn withdraw(
    shared: &Arc<Shared>,
    table: &TableName,
    version: Seq,
    by: &str,
    dry_run: bool,
) -> Result<(Outcome, usize), HqError> {
    let gone = || HqError::NotFound(format!("{table} has no publication with version {version}"));
    let all = publications(&shared.lake.state().view());
    let of = all.iter().find(|of| of.table == *table && of.version == version && of.previous < version);
    let previous = of.ok_or_else(gone)?.previous;
    for _ in 0..ATTEMPTS {
        shared.lake.follow().await?;
        refresh(shared).await;
        let known = shared.published.get(table).ok_or_else(gone)?;
        let schema = shared.lake.table(table).ok_or_else(gone)?.snapshot().schema().as_ref().clone();
        let empty = Image::empty(&schema);
        let before = read_behind(shared, table, &empty, previous, &schema).await?;
        let changed = read_behind(shared, table, &empty.standing_at(previous), version, &schema).await?;
        let back = Back::new(&known.image, &before, &changed).map_err(failed)?;
        let request = Request {
            table: table.clone(),
            rows: back.rows,
            gone: Some(back.gone),
            mode: Mode::Merge,
            key: Vec::new(),
            to: None,
            mends: None,
            shared: None,
            by: by.to_owned(),
            note: format!("takes version {version} back"),
            dry_run,
            based_on: Some(known.image.version),
        };
        match publish(shared, request).await {
            Err(HqError::Outdated) => {}
            outcome => return Ok((outcome?, back.published_since)),
        }
    }
    Err(HqError::Outdated)
}

/// What takes a publication back.
struct Back {
    rows: RecordBatch,
    gone: RecordBatch,
    /// Rows of it that were published again since; they stay.
    published_since: usize,
}

impl Back {
    /// From the present rows, those before the publication, and those of it.
    fn new(now: &Image, before: &Image, changed: &Image) -> Result<Self, ArrowError> {
        let key = &now.key;
        let newest: HashSet<(Box<[u8]>, i64)> =
            row_bytes(now.rows(), key)?.into_iter().zip(image::seqs(now.rows()).values().iter().copied()).collect();
        let of_publication = row_bytes(changed.rows(), key)?;
        let (mut back, mut published_since) = (HashSet::new(), 0);
        for (key, seq) in of_publication.into_iter().zip(image::seqs(changed.rows()).values()) {
            if newest.contains(&(key.clone(), *seq)) {
                back.insert(key);
            } else {
                published_since += 1;
            }
        }
        let pick = |rows: &RecordBatch, keys: &HashSet<Box<[u8]>>, live: bool| {
            let is_live = is_live(rows);
            let mask: BooleanArray = row_bytes(rows, key)?
                .iter()
                .zip(is_live.values().iter())
                .map(|(key, of)| Some(keys.contains(key) && (of || !live)))
                .collect();
            let own: Vec<usize> = (image::OURS..rows.num_columns()).collect();
            filter_record_batch(rows, &mask)?.project(&own)
        };
        let rows = pick(before.rows(), &back, true)?;
        for key in row_bytes(&rows, key)? {
            back.remove(&key);
        }
        Ok(Self { gone: pick(changed.rows(), &back, false)?, rows, published_since })
    }
}

/// Rows that are deleted say nothing but their keys.
fn only_keys(rows: &RecordBatch, ops: &[u8], key: &[String]) -> Result<RecordBatch, HqError> {
    let goes: arrow_array::BooleanArray = ops.iter().map(|op| Some(*op == b'D')).collect();
    let columns =
        rows.schema_ref().fields().iter().zip(rows.columns()).map(|(field, array)| match key.contains(field.name()) {
            true => Ok(array.clone()),
            false => arrow_select::nullif::nullif(array, &goes),
        });
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    RecordBatch::try_new(rows.schema(), columns).map_err(failed)
}

/// How many sites have the table, and for how many something changes.
fn touched(known: &Known, changes: &Changes, roster: &Sites, is_redefined: bool) -> Result<(usize, usize), HqError> {
    let mut by_class: HashMap<u64, (Arc<Class>, usize)> = HashMap::new();
    for (site, record) in roster.iter().filter(|(_, record)| record.retired.is_none()) {
        let class = known.class_of(site, record)?;
        by_class.entry(class.tag).or_insert_with(|| (class, 0)).1 += 1;
    }
    let (mut audience, mut touched) = (0, 0);
    for (class, sites) in by_class.into_values().filter(|(class, _)| !class.rule.is_nobody()) {
        audience += sites;
        let changes_it = is_redefined
            || class.rule.mask(&changes.rows)?.true_count() > 0
            || class.rule.mask(&changes.before)?.true_count() > 0;
        touched += if changes_it { sites } else { 0 };
    }
    Ok((audience, touched))
}
