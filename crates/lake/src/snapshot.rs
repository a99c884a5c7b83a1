//! One version of a table, in memory. Persistent maps make a clone cost nothing, so every query
//! pins its own.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use imbl::{OrdMap, OrdSet};
use object_store::path::Path;
use rollcall_types::{ChainHash, Epoch, Seq, SiteNumber};
use serde::{Deserialize, Serialize};

use crate::{
    action::{Action, Add, MetaData},
    digest::Digest,
    entry::Entry,
    error::LakeError,
    replay::entry_path,
    schema::TableSchema,
};

/// A data file of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// Relative to the table.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// When it was written, milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// Rows and ranges.
    pub stats: FileStats,
    /// Rows with `_op` `U` or `D`: only such a file can supersede rows of others.
    pub mutations: u64,
    /// Whether all its rows are superseded: history, never current.
    pub superseded: bool,
    /// Of its bytes; none if an earlier version wrote it.
    pub digest: Option<Digest>,
}

/// Delta's per-file statistics.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileStats {
    /// Rows in the file.
    pub num_records: u64,
    /// Smallest value per column, as JSON.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub min_values: BTreeMap<String, serde_json::Value>,
    /// Greatest value per column, as JSON.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub max_values: BTreeMap<String, serde_json::Value>,
    /// Nulls per column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub null_count: BTreeMap<String, u64>,
}

const TAG_MUTATIONS: &str = "rollcall.mutations";
const TAG_SUPERSEDED: &str = "rollcall.superseded";
const TAG_DIGEST: &str = "rollcall.sha256";

impl DataFile {
    pub(crate) fn to_add(&self, data_change: bool) -> Result<Add, LakeError> {
        let mut tags = BTreeMap::from([
            (TAG_MUTATIONS.to_owned(), self.mutations.to_string()),
            (TAG_SUPERSEDED.to_owned(), self.superseded.to_string()),
        ]);
        tags.extend(self.digest.map(|digest| (TAG_DIGEST.to_owned(), digest.to_string())));
        Ok(Add {
            path: self.path.clone(),
            partition_values: BTreeMap::new(),
            size: i64::try_from(self.size).unwrap_or(i64::MAX),
            modification_time: self.modified_ms,
            data_change,
            stats: Some(serde_json::to_string(&self.stats).map_err(LakeError::damaged)?),
            tags: Some(tags),
        })
    }

    fn from_add(add: Add) -> Result<Self, LakeError> {
        let tag = |name: &str| add.tags.as_ref().and_then(|tags| tags.get(name));
        let stats: FileStats = match &add.stats {
            Some(text) => serde_json::from_str(text).map_err(LakeError::damaged)?,
            None => FileStats::default(),
        };
        // A file of unknown origin is taken to hold updates: slower, never wrong.
        let mutations = tag(TAG_MUTATIONS).and_then(|text| text.parse().ok()).unwrap_or(stats.num_records.max(1));
        let superseded = tag(TAG_SUPERSEDED).is_some_and(|text| text == "true");
        let digest = tag(TAG_DIGEST).map(|text| {
            Digest::parse(text).ok_or_else(|| LakeError::damaged(format!("the digest of data file {}", add.path)))
        });
        let digest = digest.transpose()?;
        let size = add.size.unsigned_abs();
        Ok(Self { path: add.path, size, modified_ms: add.modification_time, stats, mutations, superseded, digest })
    }
}

/// Where a (site, epoch) stands in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Every change of the table up to here is in it.
    pub seq: Seq,
    /// The chain after the batch that ended at `seq`.
    pub hash: ChainHash,
    /// Where the newest load began; 1 when it covers the journal's whole life.
    pub begin: Seq,
    /// The beginning of the newest *complete* load; 0 for none: rows before it are no longer
    /// current.
    pub floor: Seq,
    /// From here on, HQ keeps a key as the site wrote it wherever it reads the key's text as a time
    /// or a day; 0 for nowhere yet. Rows before were taken by an HQ that did not, and a change of
    /// one must find it.
    pub exact: Seq,
}

/// Which rows of a site are current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Visible {
    /// Only this epoch …
    pub epoch: Epoch,
    /// … from here …
    pub from: Seq,
    /// … to before here: rows of a load that is not complete yet stay hidden.
    pub before: Seq,
}

/// Which lives of sites' journals may be current: those that HQ allotted and does not keep apart.
/// One that is not known here yet may not: HQ allots a life, and says whether it is kept apart,
/// before any row of it comes.
#[derive(Debug, Clone, Default)]
pub struct Lives(HashMap<SiteNumber, (Epoch, Vec<Epoch>)>);

impl Lives {
    /// By site: the newest life allotted, and those that are kept apart. Of others every life may
    /// be current.
    pub fn new(lives: impl IntoIterator<Item = (SiteNumber, Epoch, Vec<Epoch>)>) -> Self {
        Self(lives.into_iter().map(|(site, newest, held)| (site, (newest, held))).collect())
    }

    fn may_be_current(&self, site: SiteNumber, epoch: Epoch) -> bool {
        self.0.get(&site).is_none_or(|(newest, held)| epoch <= *newest && !held.contains(&epoch))
    }
}

/// One version of a table.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) version: u64,
    pub(crate) meta_data: Arc<MetaData>,
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) files: OrdMap<Arc<str>, Arc<DataFile>>,
    /// Removed files whose data is still there, with the time of removal.
    pub(crate) removed: OrdMap<Arc<str>, i64>,
    pub(crate) cursors: OrdMap<(SiteNumber, Epoch), Cursor>,
    /// Sites of which not every row is current by position alone.
    pub(crate) special: OrdSet<SiteNumber>,
    /// `txn` actions that are not cursors of ours.
    pub(crate) other_txns: OrdMap<String, i64>,
    /// Of the entry this is the state after; none if an earlier version wrote it.
    pub(crate) digest: Option<Digest>,
}

/// HQ's own rows have one life.
pub const HQ_EPOCH: Epoch = Epoch(1);

const CONFIG_KEY: &str = "rollcall.key";
const CONFIG_FORGOTTEN: &str = "rollcall.forgotten";

impl Snapshot {
    /// A table before its first entry, as its metadata describes it.
    pub(crate) fn empty(meta_data: MetaData) -> Result<Self, LakeError> {
        let schema = schema_of(&meta_data)?;
        Ok(Self {
            version: 0,
            meta_data: Arc::new(meta_data),
            schema: Arc::new(schema),
            files: OrdMap::new(),
            removed: OrdMap::new(),
            cursors: OrdMap::new(),
            special: OrdSet::new(),
            other_txns: OrdMap::new(),
            digest: None,
        })
    }

    /// The log entry this is the state after.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Columns and key.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// The table's data files.
    pub fn files(&self) -> impl Iterator<Item = &Arc<DataFile>> {
        self.files.values()
    }

    /// Rows in all files, history included.
    pub fn rows(&self) -> u64 {
        self.files.values().map(|file| file.stats.num_records).sum()
    }

    /// Where a site stands in this table.
    pub fn cursor(&self, site: SiteNumber, epoch: Epoch) -> Option<Cursor> {
        self.cursors.get(&(site, epoch)).copied()
    }

    /// Whether its rows are HQ's own, for sites to have.
    pub fn is_published(&self) -> bool {
        self.cursors.contains_key(&(SiteNumber::HQ, HQ_EPOCH))
    }

    /// Whether it was forgotten once: what was conformed to it before has columns that it has not.
    pub(crate) fn was_forgotten(&self) -> bool {
        self.meta_data.configuration.contains_key(CONFIG_FORGOTTEN)
    }

    /// Whether it was forgotten, and nobody has proposed anything for it since: to people there is
    /// no such table.
    pub fn is_forgotten(&self) -> bool {
        self.was_forgotten() && self.schema().columns.iter().all(|column| column.name.starts_with('_'))
    }

    /// Where the commit ended that was made under this name by
    /// [`Table::append_as`](crate::Table::append_as), if there was one.
    pub fn done_as(&self, name: &str) -> Option<Seq> {
        self.other_txns.get(name).map(|last| Seq(last.unsigned_abs()))
    }

    /// All cursors.
    pub fn cursors(&self) -> impl Iterator<Item = (SiteNumber, Epoch, Cursor)> {
        self.cursors.iter().map(|((site, epoch), cursor)| (*site, *epoch, *cursor))
    }

    /// The epochs of a site that this table holds rows of, ascending.
    pub fn epochs(&self, site: SiteNumber) -> impl DoubleEndedIterator<Item = (Epoch, Cursor)> {
        self.cursors.range((site, Epoch(0))..=(site, Epoch(u32::MAX))).map(|((_, epoch), cursor)| (*epoch, *cursor))
    }

    /// The sites whose current rows are not simply all rows, and which are current.
    ///
    /// A site's current epoch is the newest whose load is complete, else its first, of those that
    /// may be current. Within it, rows before the newest complete load are superseded, and rows of
    /// an unfinished reload are hidden until it is complete.
    pub fn special_sites<'a>(&'a self, lives: &'a Lives) -> impl Iterator<Item = (SiteNumber, Visible)> + 'a {
        self.special.iter().map(|site| {
            let epochs: Vec<(Epoch, Cursor)> =
                self.epochs(*site).filter(|(epoch, _)| lives.may_be_current(*site, *epoch)).collect();
            let newest_complete = epochs.iter().rev().find(|(_, cursor)| cursor.floor > Seq(0));
            let Some((epoch, cursor)) = newest_complete.or(epochs.first()) else {
                // Only lives that are kept apart have rows here.
                return (*site, Visible { epoch: Epoch(0), from: Seq(0), before: Seq(0) });
            };
            let reloading = cursor.floor > Seq(0) && cursor.begin > cursor.floor;
            let before = if reloading { cursor.begin } else { Seq(u64::MAX) };
            (*site, Visible { epoch: *epoch, from: cursor.floor, before })
        })
    }

    /// Takes the entry that follows, of the table at `root`.
    pub(crate) fn take(&mut self, root: &Path, version: u64, entry: Entry) -> Result<(), LakeError> {
        entry
            .follows(self.digest)
            .map_err(|what| LakeError::damaged(format!("the log entry {}: {what}", entry_path(root, version))))?;
        self.apply(version, entry.actions)?;
        self.digest = entry.digest;
        Ok(())
    }

    /// Takes one log entry's actions.
    pub(crate) fn apply(&mut self, version: u64, actions: Vec<Action>) -> Result<(), LakeError> {
        for action in actions {
            if let Some(add) = action.add {
                let path: Arc<str> = add.path.as_str().into();
                self.removed.remove(&path);
                self.files.insert(path, Arc::new(DataFile::from_add(*add)?));
            }
            if let Some(remove) = action.remove {
                let path: Arc<str> = remove.path.as_str().into();
                self.files.remove(&path);
                self.removed.insert(path, remove.deletion_timestamp.unwrap_or_default());
            }
            if let Some(txn) = action.txn {
                self.apply_txn(&txn.app_id, txn.version);
            }
            if let Some(meta_data) = action.meta_data {
                self.schema = Arc::new(schema_of(&meta_data)?);
                self.meta_data = Arc::from(meta_data);
            }
            if let Some(protocol) = action.protocol
                && (protocol.min_reader_version > 1 || protocol.min_writer_version > 2)
            {
                return Err(LakeError::damaged(format!(
                    "another program raised the table's protocol to reader {} writer {}",
                    protocol.min_reader_version, protocol.min_writer_version
                )));
            }
        }
        self.version = version;
        Ok(())
    }

    pub(crate) fn apply_txn(&mut self, app_id: &str, version: i64) {
        let Some((site, epoch, field)) = CursorField::parse(app_id) else {
            self.other_txns.insert(app_id.to_owned(), version);
            return;
        };
        let number = version.unsigned_abs();
        let count = self.cursors.len();
        let cursor = self.cursors.entry((site, epoch)).or_default();
        match field {
            CursorField::Seq => cursor.seq = Seq(number),
            CursorField::Hash => cursor.hash = ChainHash::new(number),
            CursorField::Begin => cursor.begin = Seq(number),
            CursorField::Floor => cursor.floor = Seq(number),
            CursorField::Exact => cursor.exact = Seq(number),
        }
        let is_later = cursor.begin > Seq(1) || epoch > Epoch(1);
        // Counting epochs is dear, and their number changes only with a new cursor.
        if is_later || (self.cursors.len() > count && self.epochs(site).count() > 1) {
            self.special.insert(site);
        }
    }
}

fn schema_of(meta_data: &MetaData) -> Result<TableSchema, LakeError> {
    let key = match meta_data.configuration.get(CONFIG_KEY) {
        Some(text) => serde_json::from_str(text).map_err(LakeError::damaged)?,
        None => Vec::new(),
    };
    TableSchema::from_delta(&meta_data.schema_string, key)
}

/// The metadata that says what `schema` says; a new id when there is no metadata yet.
pub(crate) fn meta_data_for(schema: &TableSchema, before: Option<&MetaData>, now_ms: i64) -> MetaData {
    let mut configuration = before.map(|before| before.configuration.clone()).unwrap_or_default();
    if !schema.key.is_empty() {
        configuration.insert(CONFIG_KEY.to_owned(), serde_json::Value::from(schema.key.clone()).to_string());
    }
    // Checkpoints are ours to take; no other engine may expire our cursors, so no retention of
    // transactions is set.
    MetaData {
        id: before.map_or_else(|| rollcall_runtime::new_id().to_string(), |before| before.id.clone()),
        format: crate::action::Format::parquet(),
        schema_string: schema.to_delta(),
        partition_columns: Vec::new(),
        configuration,
        created_time: before.map_or(Some(now_ms), |before| before.created_time),
    }
}

/// The metadata of a table that was forgotten: nothing of what sites proposed is in it.
pub(crate) fn forgotten_meta_data(blank: &TableSchema, before: &MetaData, now_ms: i64) -> MetaData {
    let mut before = before.clone();
    before.configuration.remove(CONFIG_KEY);
    before.configuration.insert(CONFIG_FORGOTTEN.to_owned(), "true".to_owned());
    meta_data_for(blank, Some(&before), now_ms)
}

/// Which part of a cursor a `txn` holds. Its `appId` is `{site}.{epoch}{suffix}`, both numbers in
/// base 36: short, since a commit may carry thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CursorField {
    Seq,
    Hash,
    Begin,
    Floor,
    Exact,
}

impl CursorField {
    pub(crate) fn app_id(self, site: SiteNumber, epoch: Epoch) -> String {
        // Base 36 would make the suffixes ambiguous, so they are upper case.
        let suffix = match self {
            Self::Seq => "",
            Self::Hash => "H",
            Self::Begin => "B",
            Self::Floor => "F",
            Self::Exact => "X",
        };
        format!("{}.{}{suffix}", base36(site.0), base36(epoch.0))
    }

    pub(crate) fn parse(app_id: &str) -> Option<(SiteNumber, Epoch, Self)> {
        let (site, rest) = app_id.split_once('.')?;
        let (epoch, field) = match rest.as_bytes().last()? {
            b'H' => (&rest[..rest.len() - 1], Self::Hash),
            b'B' => (&rest[..rest.len() - 1], Self::Begin),
            b'F' => (&rest[..rest.len() - 1], Self::Floor),
            b'X' => (&rest[..rest.len() - 1], Self::Exact),
            _ => (rest, Self::Seq),
        };
        let number = |text: &str| {
            let lower = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            lower.then(|| u32::from_str_radix(text, 36).ok()).flatten()
        };
        Some((SiteNumber(number(site)?), Epoch(number(epoch)?), field))
    }
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = number % 36;
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            break digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_ids_round_trip() {
        for site in [0, 35, 36, 49_999, u32::MAX] {
            for field in [CursorField::Seq, CursorField::Hash, CursorField::Begin, CursorField::Floor] {
                let id = field.app_id(SiteNumber(site), Epoch(7));
                assert_eq!(CursorField::parse(&id), Some((SiteNumber(site), Epoch(7), field)), "{id}");
            }
        }
        assert_eq!(CursorField::parse("watch"), None);
        assert_eq!(CursorField::parse("Some.Thing"), None);
    }
}
