//! Batches of which not everything could be taken: what they concern, and what people decide about
//! them.
//!
//! The batch itself is a row of the lake's quarantine, whole, durable before the site is told
//! anything. Of which site and tables rows wait there is kept in memory, and read from the lake
//! when a node starts. A decision is a record of the state log. A batch waits until a person gives
//! it up, or the site has stated its rows again since.

mod kept;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arrow_array::{
    Array, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, cast::AsArray,
};
use prost::Message;
use rollcall_lake::{DataFile, Lake, LakeError, RecordKind, Snapshot, StateView, our_columns};
use rollcall_runtime::Instant;
use rollcall_types::{Epoch, Seq, SiteId, SiteNumber, TableName, Timestamp};
use rollcall_wire::{batch::Encoded, proto::BatchHeader};

pub use self::kept::{Concern, Decided, Decision, KeptView, State};
use self::kept::{Lacks, damaged, entries};
use rollcall_registry::{HqError, Registry, SiteRecord, Sites, facts::Kept};

use crate::{
    captured::{Captured, CapturedBoard},
    definitions::{definitions, is_of_stores},
    restate, stopped, table_settings,
};

/// Loads that came to their end are looked for so often.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// The kind of decisions.
const DECISION: RecordKind<Decision> = RecordKind::new("quarantine");
/// Columns of the quarantine that say what a batch is, without the batch.
const ABOUT: [&str; 7] =
    [our_columns::SITE, our_columns::EPOCH, "first_seq", "last_seq", our_columns::RECEIVED_AT, "reason", "tables"];

/// By site, what waits in quarantine.
pub type Concerns = HashMap<SiteId, Concern>;

type OfSite = BTreeMap<(Epoch, Seq), Kept>;

#[derive(Debug, Default)]
struct Known {
    /// What was looked at last: the state, the quarantine's version, and when.
    looked: Option<(StateView, u64, Instant)>,
    read: HashSet<String>,
    sites: BTreeMap<SiteId, OfSite>,
    concerns: Arc<Concerns>,
}

/// All batches in quarantine.
#[derive(Debug)]
pub struct Quarantine {
    registry: Arc<Registry>,
    /// What sites say that they capture.
    captured: Arc<CapturedBoard>,
    known: Mutex<Known>,
    /// One look at a time.
    looking: tokio::sync::Mutex<()>,
}

/// What HQ calls a table of a site's.
pub fn hq_name(table: &str) -> String {
    TableName::at_hq(table).map_or_else(|_| table.to_owned(), |name| name.to_string())
}

/// The name of a batch in quarantine, for people: `SITE:EPOCH:FIRST`.
pub fn id_of(site: &SiteId, epoch: Epoch, first: Seq) -> String {
    format!("{site}:{epoch}:{first}")
}

fn parse_id(id: &str) -> Result<(SiteId, Epoch, Seq), HqError> {
    let mut parts = id.split(':');
    let parsed = (|| {
        let site = SiteId::new(parts.next()?).ok()?;
        let (epoch, first) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some((site, Epoch(epoch), Seq(first)))
    })();
    parsed
        .ok_or_else(|| HqError::Invalid(format!("{id:?} is no batch in quarantine; `rollcall quarantine` lists them")))
}

/// Columns that some sites leave out and others send. What all leave out, nobody misses.
fn sent_by_others(captured: &Captured) -> BTreeSet<(String, String)> {
    let left_out = captured.values().flat_map(|known| known.names.left_out.iter());
    let columns = left_out.flat_map(|(table, columns)| columns.iter().map(move |column| (table, column)));
    let columns: BTreeSet<(&TableName, &String)> = columns.collect();
    let is_sent = |(table, column): &(&TableName, &String)| {
        captured.values().any(|known| {
            let is_left_out = known.names.left_out.get(*table).is_some_and(|columns| columns.contains(*column));
            known.names.tables.contains(table.as_str()) && !is_left_out
        })
    };
    columns.into_iter().filter(is_sent).map(|(table, column)| (table.to_string(), column.clone())).collect()
}

/// By site, tables and columns that its store has or had, that other sites send, and that are not
/// captured there, unless a person said that this is as it should be.
fn lacks(lake: &Lake, view: &StateView, roster: &Sites, captured: &Captured) -> BTreeMap<SiteId, Lacks> {
    let definitions = definitions(view);
    let (all, settings) = (lake.shown_tables(), table_settings::all(lake));
    let is_stores = |name: &TableName| all.get(name).is_some_and(|table| is_of_stores(name, table, &definitions));
    let sent = sent_by_others(captured);
    let mut lacks = BTreeMap::new();
    for (site, known) in captured {
        if roster.get(site).and_then(|record| record.current_life()) != Some(known.epoch) {
            continue;
        }
        let is_optional = |name: &TableName| settings.get(name).is_some_and(|settings| settings.optional);
        let tables = known.names.uncaptured.iter().filter(|name| {
            // Of two names that are one at HQ one may be captured.
            let is_sent = known.names.tables.contains(name.as_str());
            is_stores(name) && !is_sent && !is_optional(name) && !stopped::has_ended(view, site, name.as_str())
        });
        let tables: BTreeSet<String> = tables.map(ToString::to_string).collect();
        let wanted = |columns: &BTreeMap<TableName, BTreeSet<String>>| -> BTreeSet<(String, String)> {
            let of_stores = columns.iter().filter(|(name, _)| is_stores(name));
            let wanted = of_stores.flat_map(|(name, columns)| {
                let optional = settings.get(name).map(|settings| &settings.optional_columns);
                let counts = columns.iter().filter(move |column| optional.is_none_or(|known| !known.contains(*column)));
                counts.map(|column| (name.to_string(), column.clone()))
            });
            wanted.collect()
        };
        let columns = wanted(&known.names.gone);
        let mut left_out = wanted(&known.names.left_out);
        left_out.retain(|column| sent.contains(column));
        if !tables.is_empty() || !columns.is_empty() || !left_out.is_empty() {
            lacks.insert(site.clone(), Lacks { tables, columns, left_out });
        }
    }
    lacks
}

fn decision(view: &StateView, id: &str) -> Option<Decision> {
    view.get(DECISION, id)?.parse().ok()
}

impl Quarantine {
    /// The quarantine of a node that has read nothing of it yet.
    pub fn new(registry: Arc<Registry>, captured: Arc<CapturedBoard>) -> Self {
        Self { registry, captured, known: Mutex::default(), looking: tokio::sync::Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (site, _, kept) in self.registry.for_quarantine.take() {
            Arc::make_mut(&mut known.concerns).entry(site.clone()).or_default().add(&kept);
            known.sites.entry(site).or_default().entry((kept.epoch, kept.first)).or_insert(kept);
        }
        known
    }

    /// Keeps a batch, whole. Durable on return.
    pub async fn keep(
        &self,
        site: &SiteId,
        encoded: &Encoded,
        tables: Option<BTreeSet<String>>,
        reason: &str,
        at: Timestamp,
    ) -> Result<Kept, HqError> {
        let header = encoded.header.encode_to_vec();
        let kept = Kept {
            epoch: Epoch(encoded.header.epoch),
            first: Seq(encoded.header.first),
            last: Seq(encoded.header.last),
            at,
            reason: reason.to_owned(),
            tables,
            bytes: (header.len() + encoded.payload.len()) as u64,
            file: String::new(),
        };
        let of = kept.tables.as_ref().map(serde_json::to_string).transpose();
        let of = of.map_err(|error| HqError::Invalid(error.to_string()))?;
        let columns: Vec<Arc<dyn Array>> = vec![
            Arc::new(StringArray::from_iter_values([site.as_str()])),
            Arc::new(Int32Array::from_iter_values([kept.epoch.0 as i32])),
            Arc::new(Int64Array::from_iter_values([kept.first.0 as i64])),
            Arc::new(Int64Array::from_iter_values([kept.last.0 as i64])),
            Arc::new(TimestampMicrosecondArray::from_iter_values([at.as_micros()]).with_timezone("UTC")),
            Arc::new(StringArray::from_iter_values([reason])),
            Arc::new(BinaryArray::from_iter_values([header.as_slice()])),
            Arc::new(BinaryArray::from_iter_values([encoded.payload.as_ref()])),
            Arc::new(StringArray::from_iter([of])),
        ];
        let table = self.registry.lake.quarantine();
        let schema = table.snapshot().schema().arrow().clone();
        let rows = RecordBatch::try_new(schema, columns).map_err(|error| HqError::Invalid(error.to_string()))?;
        table.append_rows(rows).await?;
        Ok(kept)
    }

    /// Tables of a site of which nothing was ever taken: all of it is here, and the lake has no
    /// such table.
    pub fn never_taken(&self, site: &SiteId) -> BTreeSet<String> {
        let known = self.known();
        let of_site = known.sites.get(site).into_iter().flatten();
        let tables = of_site.filter_map(|(_, kept)| kept.tables.as_ref()).flatten();
        let is_no_table =
            |table: &&String| TableName::new(table).is_ok_and(|name| self.registry.lake.table(&name).is_none());
        tables.filter(is_no_table).cloned().collect()
    }

    /// Bytes of a site that are kept.
    pub fn bytes_of(&self, site: &SiteId) -> u64 {
        self.known().sites.get(site).into_iter().flatten().map(|(_, kept)| kept.bytes).sum()
    }

    /// Lets go of batches of a site that were dealt with. What a person has not decided about, nor
    /// the site stated again, stays.
    pub async fn let_go(&self, site: &SiteId, roster: &Sites) -> Result<(), LakeError> {
        self.look().await?;
        let view = self.registry.lake.state().view();
        let record = roster.get(site).map(AsRef::as_ref);
        let goes: Vec<(Epoch, Seq, String)> = {
            let known = self.known();
            let of_site = known.sites.get(site).into_iter().flatten().map(|(_, kept)| kept);
            let over = of_site.filter(|kept| !self.state(&view, site, record, kept).waits() && !kept.file.is_empty());
            over.map(|kept| (kept.epoch, kept.first, kept.file.clone())).collect()
        };
        if goes.is_empty() {
            return Ok(());
        }
        let files: Vec<String> = goes.iter().map(|(_, _, file)| file.clone()).collect();
        self.registry.lake.quarantine().remove_files(&files).await?;
        tracing::info!(%site, batches = goes.len(), "batches in quarantine that were dealt with are let go");
        let mut known = self.known();
        if let Some(of_site) = known.sites.get_mut(site) {
            of_site.retain(|key, _| !goes.iter().any(|(epoch, first, _)| *key == (*epoch, *first)));
        }
        Ok(())
    }

    /// Reads what came to the lake's quarantine, and works out anew what waits. Whether something
    /// does that did not, or no more.
    pub async fn look(&self) -> Result<bool, LakeError> {
        // One that began earlier must not say the last word.
        let _alone = self.looking.lock().await;
        let table = self.registry.lake.quarantine();
        let snapshot = table.snapshot();
        self.read_new(&snapshot).await?;
        let (view, roster) = (self.registry.lake.state().view(), &self.registry.roster.all());
        {
            // Loads come to their end without a word of the state; some seconds later is soon
            // enough for that.
            let mut known = self.known();
            let is_same = known.looked.as_ref().is_some_and(|(state, version, at)| {
                state.is_same(&view) && *version == snapshot.version() && at.elapsed() < LOOK_AGAIN
            });
            if is_same {
                return Ok(false);
            }
            known.looked = Some((view.clone(), snapshot.version(), Instant::now()));
        }
        // Not under the lock: every question takes it.
        let wishes = restate::all_open(&self.registry.lake, roster);
        let stopped = stopped::open(&view, roster);
        let lacks = lacks(&self.registry.lake, &view, roster, &self.captured.all());
        let is_aside = table.set_aside().is_some();
        let mut known = self.known();
        let mut concerns = Concerns::new();
        if is_aside {
            // Of what waits there only a part can be read, and whose the rest is nobody knows.
            concerns.extend(roster.keys().map(|site| (site.clone(), Concern { all: true, ..Concern::default() })));
        }
        for (site, of_site) in &known.sites {
            let record = roster.get(site);
            for kept in of_site.values().filter(|kept| self.state(&view, site, record.map(AsRef::as_ref), kept).waits())
            {
                concerns.entry(site.clone()).or_default().add(kept);
            }
        }
        // Rows that are known to be gone are missing in the same way.
        for (site, wish) in wishes.into_iter().filter(|(_, wish)| wish.is_missing) {
            let concern = concerns.entry(site).or_default();
            match wish.tables {
                Some(tables) => concern.tables.extend(tables),
                None => concern.all = true,
            }
        }
        for (site, tables) in stopped {
            let since = tables.into_iter().map(|(table, stopped)| (table, stopped.since));
            concerns.entry(site).or_default().stopped.extend(since);
        }
        for (site, lacks) in lacks {
            concerns.entry(site).or_default().lacks = lacks;
        }
        let is_new = *known.concerns != concerns;
        if is_new {
            known.concerns = Arc::new(concerns);
        }
        Ok(is_new)
    }

    /// Reads the files that were not read yet.
    async fn read_new(&self, snapshot: &Snapshot) -> Result<(), LakeError> {
        let new = {
            let known = self.known();
            let new = snapshot.files().filter(|file| !known.read.contains(&file.path));
            new.cloned().collect::<Vec<_>>()
        };
        for file in new {
            let found = match self.read(snapshot, &file).await {
                // What is in it is not known any more, but for the site, which its statistics name.
                Err(LakeError::DamagedFile { path, what }) => {
                    tracing::error!(path, what, "a batch in quarantine cannot be read");
                    damaged(&file, &format!("{path} is damaged: {what}")).into_iter().collect()
                }
                found => found?,
            };
            let mut known = self.known();
            for (site, mut kept) in found {
                kept.bytes = file.size;
                file.path.clone_into(&mut kept.file);
                known.sites.entry(site).or_default().insert((kept.epoch, kept.first), kept);
            }
            known.read.insert(file.path.clone());
        }
        Ok(())
    }

    async fn read(&self, snapshot: &Snapshot, file: &DataFile) -> Result<Vec<(SiteId, Kept)>, LakeError> {
        let mut found = Vec::new();
        for rows in self.registry.lake.quarantine().read_columns(snapshot, file, &ABOUT.map(str::to_owned)).await? {
            found.extend(entries(&rows?)?);
        }
        Ok(found)
    }

    fn state(&self, view: &StateView, site: &SiteId, record: Option<&SiteRecord>, kept: &Kept) -> State {
        let given_up = decision(view, &id_of(site, kept.epoch, kept.first));
        if given_up.as_ref().is_some_and(|decision| decision.what == Decided::GivenUp) {
            return State::GivenUp;
        }
        let Some(record) = record else { return State::Waits };
        // A later life has stated all there is, or this load of the same one did.
        if record.current_life().is_some_and(|life| life > kept.epoch) {
            return State::StatedAgain;
        }
        let is_stated = |table: &String| {
            let table = TableName::new(table).ok().and_then(|name| self.registry.lake.table(&name));
            let cursor = table.and_then(|table| table.cursor(SiteNumber(record.number), kept.epoch));
            cursor.is_some_and(|cursor| cursor.floor > kept.last)
        };
        let is_all_stated = || {
            let all = self.registry.lake.tables();
            let number = SiteNumber(record.number);
            let cursors = all.values().filter_map(|table| table.cursor(number, kept.epoch));
            let mut later = cursors.filter(|cursor| cursor.seq > kept.last).peekable();
            later.peek().is_some() && later.all(|cursor| cursor.floor > kept.last)
        };
        match &kept.tables {
            Some(tables) if tables.iter().all(is_stated) => State::StatedAgain,
            None if given_up.is_some() && is_all_stated() => State::StatedAgain,
            _ if given_up.is_some() => State::Asked,
            _ => State::Waits,
        }
    }

    /// What waits, by site.
    pub fn concerns(&self) -> Arc<Concerns> {
        self.known().concerns.clone()
    }

    /// Whether rows of this table between two positions were kept in quarantine, whatever became of
    /// them.
    pub fn has_kept(&self, site: &SiteId, epoch: Epoch, table: &str, (after, through): (Seq, Seq)) -> bool {
        let (known, table) = (self.known(), hq_name(table));
        let of_site = known.sites.get(site).into_iter().flatten();
        of_site
            .map(|(_, kept)| kept)
            .any(|kept| kept.epoch == epoch && kept.first <= through && kept.last > after && kept.concerns(&table))
    }

    /// What waits of a site, in a sentence; none if nothing does.
    pub fn describe(&self, site: &SiteId, roster: &Sites) -> Option<String> {
        let view = self.registry.lake.state().view();
        let record = roster.get(site);
        let open = record.and_then(|record| restate::open(&self.registry.lake, &view, site, record));
        let wished = open.filter(|(_, wish)| wish.is_missing).map(|(_, wish)| {
            let tables = wish
                .tables
                .map_or_else(|| "all tables".to_owned(), |tables| tables.into_iter().collect::<Vec<_>>().join(", "));
            format!("{site} is to state its rows of {tables} again, and has not: {}", wish.reason)
        });
        let known = self.known();
        let Some(of_site) = known.sites.get(site) else { return wished };
        let state = |kept: &Kept| self.state(&view, site, record.map(AsRef::as_ref), kept);
        let waiting: Vec<&Kept> = of_site.values().filter(|kept| state(kept).waits()).collect();
        let Some(first) = waiting.first() else { return wished };
        let mut concern = Concern::default();
        waiting.iter().for_each(|kept| concern.add(kept));
        let tables = match concern.all {
            true => "any table".to_owned(),
            false => concern.tables.into_iter().collect::<Vec<_>>().join(", "),
        };
        let batches = match waiting.len() {
            1 => "a batch".to_owned(),
            count => format!("{count} batches"),
        };
        let id = id_of(site, first.epoch, first.first);
        Some(format!(
            "{batches} of {site} with rows of {tables} in quarantine: {}; see `rollcall quarantine show {id}`",
            first.reason
        ))
    }

    /// All of them, as people see them.
    pub fn list(&self, roster: &Sites) -> Vec<KeptView> {
        let view = self.registry.lake.state().view();
        let known = self.known();
        let all = known.sites.iter().flat_map(|(site, of_site)| of_site.values().map(move |kept| (site, kept)));
        all.map(|(site, kept)| self.view(&view, site, roster, kept)).collect()
    }

    fn view(&self, view: &StateView, site: &SiteId, roster: &Sites, kept: &Kept) -> KeptView {
        let id = id_of(site, kept.epoch, kept.first);
        KeptView {
            decision: decision(view, &id),
            state: self.state(view, site, roster.get(site).map(AsRef::as_ref), kept),
            id,
            site: site.clone(),
            kept: kept.clone(),
        }
    }

    /// One of them, and the batch itself.
    pub async fn find(&self, id: &str, roster: &Sites) -> Result<(KeptView, Encoded), HqError> {
        let (site, epoch, first) = parse_id(id)?;
        let none = || HqError::NotFound(format!("{id} is not in quarantine; `rollcall quarantine` lists what is"));
        self.look().await?;
        let found = {
            let known = self.known();
            let kept = known.sites.get(&site).and_then(|of_site| of_site.get(&(epoch, first)));
            self.view(&self.registry.lake.state().view(), &site, roster, kept.ok_or_else(none)?)
        };
        let (table, file) = (self.registry.lake.quarantine(), &found.kept.file);
        let snapshot = table.snapshot();
        let file = snapshot.files().find(|known| known.path == *file).cloned().ok_or_else(none)?;
        for rows in table.read_file(&snapshot, &file).await? {
            let rows = rows?;
            let bytes =
                |name: &str| rows.column_by_name(name).map(|column| column.as_binary::<i32>().value(0).to_vec());
            if let (Some(header), Some(payload)) = (bytes("header"), bytes("payload")) {
                let header = BatchHeader::decode(header.as_slice());
                let header = header.map_err(|error| HqError::Invalid(format!("its header cannot be read: {error}")))?;
                return Ok((found, Encoded { header, payload: payload.into() }));
            }
        }
        Err(none())
    }

    /// Stores what a person decided.
    pub async fn decide(&self, id: &str, decision: Decision) -> Result<(), HqError> {
        let record = |view: &StateView| view.next(DECISION, id, &decision, decision.at, &decision.by);
        self.registry.lake.state().update(|view| Ok::<_, LakeError>((vec![record(view)?], ()))).await?;
        Ok(())
    }
}
