//! Tables that HQ owns and sites have: what is published, for whom, and by whom.
//!
//! A published table is a table of the lake like any other, whose one writer is HQ itself
//! ([`SiteNumber::HQ`]): its rows have positions, its history is whole, its current rows are the
//! newest. A *publication* is one commit of it; its *version* is the position of its last row,
//! which is where the table's cursor stands. So a version is told with its rows, atomically, and
//! what a site lacks is whatever lies behind the position it has. See decision 0009.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use arrow_array::{BooleanArray, RecordBatch, cast::AsArray, types::Int64Type};
use arrow_schema::{ArrowError, DataType};
use futures::TryStreamExt;
use ring::digest;
use rollcall_books::definitions::{AtStores, Definition, Publication, definitions};
use rollcall_lake::{HQ_EPOCH, LakeError, Snapshot, TableSchema, our_columns};
use rollcall_query::{Audience, Extras, QueryError, Question, SiteAudience};
use rollcall_registry::{HqError, SiteRecord, Sites, facts::Applied, sessions::Session};
use rollcall_types::{Epoch, HQ_SITE, Seq, SiteId, SiteNumber, TableName, columns};
use rollcall_wire::proto::WantedTable;
use tokio::sync::watch;

use crate::{
    fetch::Encoded,
    image::{self, Image},
    publisher::Publisher,
    scheduled, settings, shared_tables,
};

pub use crate::request::{Mode, Outcome, Request};

/// Who published what sites' edits came to.
pub(crate) const SITES: &str = "sites";
/// The rule of a table that is HQ's alone.
pub(crate) const NOBODY: &str = "false";
/// Rows of a table's history that are read before older ones with their keys are let go.
const FOLDED_ROWS: usize = 200_000;
/// A publication that others get ahead of is worked out anew so often.
pub(crate) const ATTEMPTS: usize = 10;

/// Sites that are alike, as far as a table's rule names attributes.
#[derive(Debug)]
pub struct Class {
    /// Names the rule and the values; see `Wanted.audience` of the protocol.
    pub tag: u64,
    /// Which rows these sites get.
    pub rule: SiteAudience,
}

impl Class {
    /// Which rows of an image are for these sites.
    pub(crate) fn mask(&self, rows: &RecordBatch) -> Result<BooleanArray, HqError> {
        // The rule knows columns by their place among the published ones.
        let published: Vec<usize> = (image::OURS..rows.num_columns()).collect();
        self.rule.mask(&rows.project(&published).map_err(failed)?).map_err(HqError::query)
    }
}

/// A table's rule, and what it comes to for each class of sites.
pub(crate) struct Rules {
    audience: Audience,
    definition: Definition,
    classes: Mutex<HashMap<Vec<Option<String>>, Arc<Class>>>,
    /// By class: which version was looked at last, and the newest that changed something for the
    /// class.
    concerned: Mutex<HashMap<u64, (Seq, Seq)>>,
}

impl Rules {
    pub(crate) fn new(audience: Audience, definition: Definition) -> Self {
        Self { audience, definition, classes: Mutex::default(), concerned: Mutex::default() }
    }
}

/// A published table as this node knows it.
pub struct Known {
    /// Its name.
    pub name: TableName,
    /// Its rows, as of the newest version that this node knows.
    pub image: Image,
    rules: Arc<Rules>,
    /// What was made for sites to fetch.
    pub(crate) encoded: Mutex<Encoded>,
    /// Held while that is made: sites that want the same wait for it, and others' does not need
    /// memory at the same time.
    pub(crate) making: Mutex<()>,
    /// The table as of then; none if there is none yet. In a shared one, cursors move without a
    /// version.
    snapshot: Option<Snapshot>,
}

impl Known {
    pub(crate) fn new(name: TableName, image: Image, rules: Arc<Rules>, snapshot: Option<Snapshot>) -> Self {
        Self { name, image, rules, encoded: Mutex::default(), making: Mutex::default(), snapshot }
    }

    /// Whether sites changed it as well, once.
    pub(crate) fn was_shared(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| snapshot.schema().column(shared_tables::ORIGIN).is_some())
    }

    /// The number of the site's last edit that was decided on: what came of it is in this image.
    pub(crate) fn decided(&self, site: SiteNumber, epoch: Epoch) -> u64 {
        let cursor = self.snapshot.as_ref().and_then(|snapshot| snapshot.cursor(site, epoch));
        cursor.map_or(0, |cursor| cursor.seq.0)
    }

    /// What was said of it.
    pub fn definition(&self) -> &Definition {
        &self.rules.definition
    }

    /// The newest version that changed something for a class, or a newer one: its sites need no
    /// other.
    pub fn version_for(&self, class: &Class) -> Result<Seq, HqError> {
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
    pub fn class_of(&self, site: &SiteId, record: &SiteRecord) -> Result<Arc<Class>, HqError> {
        let rules = &self.rules;
        let names = rules.audience.attributes().iter();
        let values: Vec<Option<String>> = names.map(|name| record.value(site, name)).collect();
        let mut classes = rules.classes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(class) = classes.get(&values) {
            return Ok(class.clone());
        }
        let texts: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
        let rule = rules.audience.of(&texts).map_err(HqError::query)?;
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
    let text = match &definition.at_stores {
        usual if *usual == AtStores::default() => text,
        said => format!("{text} {}", serde_json::json!(said)),
    };
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let mut low = [0; 8];
    low.copy_from_slice(&digest.as_ref()[..8]);
    // 0 says that nothing is applied; SQLite and JSON keep 63 bits safely.
    (u64::from_le_bytes(low) >> 1).max(1)
}

/// All published tables of this node.
pub struct PublishedTables {
    known: RwLock<BTreeMap<TableName, Arc<Known>>>,
    /// Counts changes of what sites should have.
    changed: watch::Sender<u64>,
    /// One publication at a time; another node's are noticed at the commit.
    pub(crate) publishing: tokio::sync::Mutex<()>,
    refreshing: tokio::sync::Mutex<()>,
    /// The roster as of the last look at whose attributes changed.
    roster: Mutex<Arc<Sites>>,
    pub(crate) waiting: Mutex<scheduled::Waiting>,
}

impl Default for PublishedTables {
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

impl PublishedTables {
    /// The published tables.
    pub fn all(&self) -> BTreeMap<TableName, Arc<Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The table of this name; none if HQ publishes none, or this node does not know it yet.
    pub fn get(&self, table: &TableName) -> Option<Arc<Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
    }

    /// Tells when what sites should have may have changed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn bump(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn roster(&self) -> MutexGuard<'_, Arc<Sites>> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change of the rule alone has the version of the rows before it.
pub(crate) fn publication_id(publication: &Publication) -> String {
    format!("{}/{:020}/{}", publication.table, publication.version.0, publication.at.as_micros())
}

pub(crate) fn failed(error: ArrowError) -> HqError {
    LakeError::Arrow { doing: "working out what is published", source: error }.into()
}

/// Takes over what was published since, here or at another node. A table that cannot be read stays
/// as it was known, and the others go on.
pub async fn refresh(publisher: &Publisher) {
    let published = &publisher.tables;
    let _one = published.refreshing.lock().await;
    let mut is_new = follow_roster(publisher) | settings::refresh(publisher) | scheduled::refresh(publisher);
    let view = publisher.registry.lake.state().view();
    for (name, definition) in definitions(&view) {
        let Some(table) = publisher.registry.lake.table(&name) else { continue };
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
        let brought = bring(publisher, &name, snapshot, version, definition, known.as_deref()).await;
        publisher
            .registry
            .health
            .note(format!("read what was published of {name} (if it lasts, publish it again)"), &brought);
        if let Ok(known) = brought {
            published.known.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(known));
            is_new = true;
        }
    }
    if is_new {
        published.bump();
    }
}

/// A table as of `version`, from what was known of it.
async fn bring(
    publisher: &Publisher,
    name: &TableName,
    snapshot: Snapshot,
    version: Seq,
    definition: Definition,
    known: Option<&Known>,
) -> Result<Known, HqError> {
    let schema = snapshot.schema().as_ref().clone();
    let empty = Image::empty(&schema);
    let base = known.map_or(&empty, |known| &known.image);
    let image = read_behind(publisher, name, base, version, &schema).await?;
    let rules = match known {
        Some(known) if known.rules.definition == definition && known.image.schema() == image.schema() => {
            known.rules.clone()
        }
        _ => Arc::new(Rules::new(
            publisher.engine.audience(&definition.to, &image.schema()).map_err(HqError::query)?,
            definition,
        )),
    };
    Ok(Known::new(name.clone(), image, rules, Some(snapshot)))
}

/// Whether a site came, went, or has other attributes than before.
fn follow_roster(publisher: &Publisher) -> bool {
    let roster = publisher.registry.roster.all();
    let mut known = publisher.tables.roster();
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

/// Refuses a table of which nothing was ever published.
pub fn check_is_published(publisher: &Publisher, name: &TableName) -> Result<(), HqError> {
    match definitions(&publisher.registry.lake.state().view()).contains_key(name) {
        true => Ok(()),
        false => Err(HqError::Invalid(format!("{name} was never published: say with --from which rows"))),
    }
}

/// Refuses a rule that names what no site has: more likely a slip than a wish. While there are no
/// sites, nobody knows.
pub fn check_attributes(audience: &Audience, roster: &Sites) -> Result<(), HqError> {
    let mut known: BTreeSet<&str> = roster.values().flat_map(|record| record.attributes.names()).collect();
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
pub(crate) async fn read_behind(
    publisher: &Publisher,
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
    let planned = publisher.engine.plan(Question::Text(sql), Extras::default()).await.map_err(HqError::query)?;
    let mut stream = planned.stream().await.map_err(HqError::query)?;
    let (mut image, mut pending, mut rows) = (None, Vec::new(), 0);
    loop {
        let batch = stream.try_next().await.map_err(|error| HqError::query(QueryError::from(error)))?;
        let is_last = batch.is_none();
        rows += batch.as_ref().map_or(0, RecordBatch::num_rows);
        pending.extend(batch);
        // The history is longer than the table: it is never in memory as a whole.
        if is_last || rows >= FOLDED_ROWS {
            // A large table takes its time; sites are served meanwhile.
            let folded = rollcall_runtime::in_place(|| image.as_ref().unwrap_or(base).with(&pending, schema));
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
pub fn is_ahead(publisher: &Publisher, site: &SiteId) -> bool {
    let known = publisher.tables.all();
    let is_newer =
        |(name, has): (&TableName, &Applied)| known.get(name).is_some_and(|known| has.version > known.image.version);
    !known.is_empty() && publisher.registry.ledger.applied(site).iter().any(is_newer)
}

/// What a site should have now. A table that no row could be for is left out, unless the site has
/// it and must lose its rows.
pub fn wanted(publisher: &Publisher, session: &Session) -> Vec<WantedTable> {
    let site = &session.site;
    let all = publisher.tables.all();
    if all.is_empty() {
        return Vec::new();
    }
    let Some(record) = publisher.registry.roster.get(site) else { return Vec::new() };
    let applied = publisher.registry.ledger.applied(site);
    let mut tables = Vec::with_capacity(all.len());
    for (name, known) in all {
        let want = || -> Result<Option<WantedTable>, HqError> {
            let class = known.class_of(site, &record)?;
            if class.rule.is_nobody() && !applied.get(&name).is_some_and(Applied::has_any) {
                return Ok(None);
            }
            let version = known.version_for(&class)?.0;
            let newest = known.image.version.0;
            let (next, due) = scheduled::due(publisher, &name, site, &record)?;
            let decided = known.decided(session.number, session.epoch);
            let is_not_ours = |has: &&Applied| known.image.disowns(has.version, has.published_at);
            let has = applied.get(&name).filter(|has| has.published_at != 0);
            let disowned = has.filter(is_not_ours).map_or(0, |has| has.published_at);
            let table = name.to_string();
            let leaves = class.rule.is_nobody();
            Ok(Some(WantedTable { table, version, audience: class.tag, newest, next, due, decided, disowned, leaves }))
        };
        match want() {
            Ok(wanted) => tables.extend(wanted),
            Err(error) => tracing::error!(%site, table = %name, %error, "an audience cannot be worked out"),
        }
    }
    tables
}
