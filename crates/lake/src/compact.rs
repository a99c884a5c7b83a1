//! Many small files become few large ones, superseded versions move to files of their own, and what no version names any
//! more is deleted. Ingest goes on meanwhile: only the commit itself takes its turn.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use arrow_array::{
    Array, ArrayRef, BooleanArray, RecordBatch, StringArray,
    cast::AsArray,
    types::{Int32Type, Int64Type},
};
use arrow_ord::sort::{SortColumn, lexsort_to_indices};
use arrow_schema::DataType;
use arrow_select::{concat::concat_batches, filter::filter_record_batch, take::take_record_batch};
use chrono::Utc;
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, path::Path};
use rollcall_types::{Epoch, Seq, SiteNumber};

use crate::{
    action::{Action, Remove},
    data_file::{self, Effort},
    error::{Doing, LakeError},
    objects::get_optional,
    schema::{ColumnType, TableSchema, our_columns},
    snapshot::{DataFile, Snapshot, Visible},
    table::{Put, Table},
};

/// When and how much to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionLimits {
    /// Files at least this large, in bytes, are left alone.
    pub small_file_bytes: u64,
    /// Compaction waits for this many small files.
    pub files_min: usize,
    /// One run takes at most this many rows, which bounds its memory.
    pub rows_max: u64,
}

impl Default for CompactionLimits {
    /// Files under 32 MB, at least 16 of them, at most 3 million rows at a time.
    fn default() -> Self {
        Self { small_file_bytes: 32 << 20, files_min: 16, rows_max: 3_000_000 }
    }
}

/// What a run of compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactionReport {
    /// Files merged.
    pub files: usize,
    /// Their rows.
    pub rows: u64,
    /// Of these, rows moved to the history only.
    pub superseded: u64,
}

/// Nothing is deleted younger than this: it must stay well above the time a paused node may sleep before its commit.
pub(crate) const RETENTION_MIN: Duration = Duration::from_secs(2 * 3600);

/// How long removed files and old log entries are kept for queries and nodes that still use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention(Duration);

impl Retention {
    /// At least two hours, whatever is asked for.
    pub fn new(keep: Duration) -> Self {
        Self(keep.max(RETENTION_MIN))
    }

    /// How long.
    pub fn keep(self) -> Duration {
        self.0
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self(RETENTION_MIN)
    }
}

impl Table {
    /// Merges small files, if there are enough of them. `site_number` tells numbers of sites whose rows are not all current.
    pub async fn compact(
        self: &Arc<Self>,
        limits: CompactionLimits,
        site_number: impl Fn(&str) -> Option<SiteNumber> + Send + 'static,
    ) -> Result<CompactionReport, LakeError> {
        let base = self.snapshot();
        let inputs = choose(&base, limits);
        if inputs.len() < limits.files_min {
            return Ok(CompactionReport::default());
        }
        let mut batches = Vec::new();
        for file in &inputs {
            let path = self.root.clone().join(file.path.as_str());
            let bytes = get_optional(self.store.as_ref(), &path).await?;
            batches.push(bytes.ok_or_else(|| LakeError::damaged(format!("data file {path} is gone")))?);
        }
        // Only when every current file takes part is it known that no older version lies elsewhere.
        let is_whole = base.files().filter(|file| !file.superseded).count() == inputs.len();
        let schema = base.schema().clone();
        let special: HashMap<SiteNumber, Visible> = base.special_sites().collect();
        let merged = tokio::task::spawn_blocking(move || {
            let rows: Vec<RecordBatch> = batches
                .into_iter()
                .map(|bytes| data_file::read(bytes, &schema))
                .collect::<Result<Vec<_>, _>>()?
                .concat();
            let rows = concat_batches(schema.arrow(), &rows).doing("merging files")?;
            merge(&rows, &schema, is_whole, &special, site_number)
        });
        let outputs = merged.await.doing("compacting")??;
        let mut report = CompactionReport { files: inputs.len(), ..CompactionReport::default() };
        for (bytes, file) in &outputs {
            report.rows += file.stats.num_records;
            report.superseded += if file.superseded { file.stats.num_records } else { 0 };
            self.put_data_file(bytes.clone(), file).await?;
        }
        let committed = self.replace(&base, &inputs, outputs.iter().map(|(_, file)| file)).await?;
        Ok(if committed { report } else { CompactionReport::default() })
    }

    /// Commits the exchange of files, unless someone else removed one of the inputs meanwhile.
    async fn replace(
        self: &Arc<Self>,
        pinned: &Snapshot,
        inputs: &[Arc<DataFile>],
        outputs: impl Iterator<Item = &DataFile>,
    ) -> Result<bool, LakeError> {
        let now_ms = Utc::now().timestamp_millis();
        let mut actions: Vec<Action> = inputs
            .iter()
            .map(|file| {
                let path = file.path.clone();
                Action::remove(Remove { path, deletion_timestamp: Some(now_ms), data_change: false })
            })
            .collect();
        for file in outputs {
            actions.push(Action::add(file.to_add(false)?));
        }
        let _committing = self.committing.lock().await;
        for _ in 0..crate::append::COMMIT_ATTEMPTS {
            let base = self.snapshot();
            let still_there = inputs.iter().all(|file| base.files.contains_key(file.path.as_str()));
            // A load that was completed meanwhile only makes more rows superseded; the next run sees to them.
            if !still_there || base.schema() != pinned.schema() {
                return Ok(false);
            }
            match self.put_entry(&base, "OPTIMIZE", actions.clone()).await? {
                Put::Won => {
                    self.checkpoint_if_due();
                    return Ok(true);
                }
                Put::Lost(_) => {}
                // The new files may be gone; the next run makes them again.
                Put::Slept => return Ok(false),
            }
        }
        Err(LakeError::Contention(crate::append::COMMIT_ATTEMPTS))
    }

    /// Deletes data files that no version within `retention` names: removed ones, and ones whose commit never came.
    pub async fn vacuum(&self, retention: Retention) -> Result<usize, LakeError> {
        let snapshot = self.refresh().await?;
        let horizon = Utc::now() - retention.keep();
        let removed_before =
            |path: &str| snapshot.removed.get(path).is_none_or(|removed| *removed < horizon.timestamp_millis());
        let listed: Vec<_> = self.store.list(Some(&self.root)).try_collect().await.doing("listing data files")?;
        let log = crate::replay::log_path(&self.root);
        let mut deleted = 0;
        for meta in listed {
            let Some(path) = relative(&self.root, &meta.location) else { continue };
            let is_data = !meta.location.prefix_matches(&log) && path.ends_with(".parquet");
            let in_use = snapshot.files.contains_key(path.as_str());
            if is_data && !in_use && meta.last_modified < horizon && removed_before(&path) {
                self.store.delete(&meta.location).await.doing("deleting a data file")?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}

fn relative(root: &Path, path: &Path) -> Option<String> {
    path.prefix_match(root).map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"))
}

/// Compressed bytes one run takes; uncompressed they are about ten times as much.
const INPUT_BYTES_MAX: u64 = 96 << 20;

/// The oldest small current files, up to the limit of rows.
fn choose(base: &Snapshot, limits: CompactionLimits) -> Vec<Arc<DataFile>> {
    let is_small =
        |file: &DataFile| file.size < limits.small_file_bytes && file.stats.num_records < limits.rows_max / 2;
    let mut small: Vec<&Arc<DataFile>> = base.files().filter(|file| !file.superseded && is_small(file)).collect();
    small.sort_by_key(|file| file.modified_ms);
    let (mut rows, mut bytes) = (0, 0);
    small
        .into_iter()
        .take_while(|file| {
            rows += file.stats.num_records;
            bytes += file.size;
            rows <= limits.rows_max && bytes <= INPUT_BYTES_MAX
        })
        .cloned()
        .collect()
}

type Output = (bytes::Bytes, DataFile);

/// One file of current rows and, if there are any, one of superseded rows.
fn merge(
    rows: &RecordBatch,
    schema: &TableSchema,
    is_whole: bool,
    special: &HashMap<SiteNumber, Visible>,
    site_number: impl Fn(&str) -> Option<SiteNumber>,
) -> Result<Vec<Output>, LakeError> {
    let doing = "splitting current from superseded rows";
    let superseded = superseded_rows(rows, schema, is_whole, special, site_number)?;
    let current = arrow_array::BooleanArray::from_iter(superseded.iter().map(|flag| flag.map(|flag| !flag)));
    let mut outputs = Vec::new();
    for (mask, is_superseded) in [(current, false), (superseded, true)] {
        let kept = filter_record_batch(rows, &mask).doing(doing)?;
        if kept.num_rows() == 0 {
            continue;
        }
        let sorted = sort(&kept, schema)?;
        let now_ms = Utc::now().timestamp_millis();
        let (bytes, mut file) = data_file::write(data_file::new_path(), schema, &[sorted], Effort::Compaction, now_ms)?;
        file.superseded = is_superseded;
        let has_hidden = !is_superseded && !special.is_empty();
        if is_superseded || (is_whole && !has_hidden) {
            // Nothing of a superseded file is current, and in a whole merge every older version was split off.
            file.mutations = 0;
        }
        outputs.push((bytes, file));
    }
    Ok(outputs)
}

/// Which rows have a newer version among `rows`, or lie outside what is current of their site.
fn superseded_rows(
    rows: &RecordBatch,
    schema: &TableSchema,
    is_whole: bool,
    special: &HashMap<SiteNumber, Visible>,
    site_number: impl Fn(&str) -> Option<SiteNumber>,
) -> Result<BooleanArray, LakeError> {
    let none = BooleanArray::from(vec![false; rows.num_rows()]);
    let column = |name: &str| rows.column_by_name(name);
    let (Some(sites), Some(epochs), Some(seqs), Some(ops)) =
        (column(our_columns::SITE), column(our_columns::EPOCH), column(our_columns::SEQ), column(our_columns::OP))
    else {
        return Ok(none);
    };
    if schema.key.is_empty() {
        return Ok(none);
    }
    let (sites, epochs) = (sites.as_string::<i32>(), epochs.as_primitive::<Int32Type>());
    let (seqs, ops) = (seqs.as_primitive::<Int64Type>(), ops.as_string::<i32>());
    let keys = Keys::new(rows, schema)?;
    let position = |row: usize| (epochs.value(row), seqs.value(row));
    let is_mutation = |row: usize| matches!(ops.value(row), "U" | "D");
    let mut numbers: HashMap<&str, Option<Visible>> = HashMap::new();
    let mut visible_of = |row: usize| {
        *numbers
            .entry(sites.value(row))
            .or_insert_with_key(|site| site_number(site).and_then(|number| special.get(&number).copied()))
    };
    // Rows of a load that is not complete, or of a newer epoch, are hidden for now: they supersede nothing yet, and stay.
    let hidden: Vec<bool> = (0..rows.num_rows())
        .map(|row| {
            let (epoch, seq) = position(row);
            visible_of(row).is_some_and(|visible| {
                let epoch = Epoch(epoch.unsigned_abs());
                epoch > visible.epoch || (epoch == visible.epoch && Seq(seq.unsigned_abs()) >= visible.before)
            })
        })
        .collect();
    let mut newest: HashMap<Vec<u8>, (i32, i64)> = HashMap::new();
    for row in (0..rows.num_rows()).filter(|row| is_mutation(*row) && !hidden[*row]) {
        let entry = newest.entry(keys.of(row)).or_insert_with(|| position(row));
        *entry = position(row).max(*entry);
    }
    let flags = (0..rows.num_rows()).map(|row| {
        if hidden[row] {
            return Some(false);
        }
        let visible = visible_of(row);
        let (epoch, seq) = position(row);
        let is_past = visible.is_some_and(|visible| {
            Epoch(epoch.unsigned_abs()) < visible.epoch
                || (Epoch(epoch.unsigned_abs()) == visible.epoch && Seq(seq.unsigned_abs()) < visible.from)
        });
        let is_older = !newest.is_empty() && newest.get(&keys.of(row)).is_some_and(|newest| position(row) < *newest);
        // A delete with nothing left to delete has done its work.
        let is_spent = is_whole && ops.value(row) == "D";
        Some(is_past || is_older || is_spent)
    });
    Ok(flags.collect())
}

/// Keys of rows, with their site and epoch, as bytes.
struct Keys {
    columns: Vec<ArrayRef>,
}

impl Keys {
    fn new(rows: &RecordBatch, schema: &TableSchema) -> Result<Self, LakeError> {
        let names = [our_columns::SITE.to_owned(), our_columns::EPOCH.to_owned()].into_iter().chain(schema.key.clone());
        let columns = names.map(|name| {
            let column = rows.column_by_name(&name);
            let column =
                column.ok_or_else(|| LakeError::damaged(format!("key column {name:?} is not in the table")))?;
            match column.data_type() {
                // Bytes need not be text.
                DataType::Binary => {
                    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                    let texts: StringArray = column.as_binary::<i32>().iter().map(|bytes| bytes.map(hex)).collect();
                    Ok(Arc::new(texts) as ArrayRef)
                }
                _ => arrow_cast::cast(column, &DataType::Utf8).doing("reading keys"),
            }
        });
        Ok(Self { columns: columns.collect::<Result<_, LakeError>>()? })
    }

    fn of(&self, row: usize) -> Vec<u8> {
        let mut key = Vec::with_capacity(32);
        for column in &self.columns {
            let column = column.as_string::<i32>();
            if column.is_null(row) {
                key.push(0);
            } else {
                let text = column.value(row).as_bytes();
                key.push(1);
                key.extend_from_slice(&(text.len() as u32).to_le_bytes());
                key.extend_from_slice(text);
            }
        }
        key
    }
}

/// By event time, then site: what queries ask for together lies together.
fn sort(rows: &RecordBatch, schema: &TableSchema) -> Result<RecordBatch, LakeError> {
    let ours: HashSet<&str> = [our_columns::CHANGED_AT, our_columns::RECEIVED_AT].into();
    let event_time = schema
        .columns
        .iter()
        .find(|column| column.kind == ColumnType::Timestamp && !ours.contains(column.name.as_str()));
    let time = event_time.map_or(our_columns::CHANGED_AT, |column| column.name.as_str());
    let columns: Vec<SortColumn> = [time, our_columns::SITE, our_columns::SEQ]
        .iter()
        .filter_map(|name| rows.column_by_name(name))
        .map(|values| SortColumn { values: values.clone(), options: None })
        .collect();
    if columns.is_empty() {
        return Ok(rows.clone());
    }
    let order = lexsort_to_indices(&columns, None).doing("sorting rows")?;
    take_record_batch(rows, &order).doing("sorting rows")
}
