//! What HQ itself knows (roster, tokens, settings, incidents): one log of records in a Delta table
//! of its own.
//!
//! A record is (kind, id, version, value): the greatest version of a (kind, id) is the present one.
//! Every node keeps the present records in memory by following the table. A change is optimistic:
//! it is worked out on the newest view and committed only if nobody else committed since, else
//! worked out again.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock},
};

use arrow_array::{
    Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    cast::AsArray,
    types::{Int64Type, TimestampMicrosecondType},
};
use imbl::ordmap::DiffItem;
use rollcall_types::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{mpsc, oneshot};

use crate::{
    action::Action,
    append::COMMIT_ATTEMPTS,
    compact::{CompactionLimits, CompactionReport, Fold},
    data_file::{self, Effort},
    error::{Doing, LakeError},
    record_kind::RecordKind,
    schema::{Column, ColumnType, TableSchema},
    snapshot::{DataFile, Snapshot},
    table::{Put, Table},
};

/// One version of one thing HQ knows. Every node holds some for each of a million sites: what can
/// be shared is, and nothing has room to grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is: `site`, `token`, …
    pub kind: Arc<str>,
    /// Which one.
    pub id: Arc<str>,
    /// 1, 2, 3… within (kind, id).
    pub version: i64,
    /// JSON.
    pub value: Box<str>,
    /// When it was written.
    pub at: Timestamp,
    /// Who wrote it.
    pub by: Arc<str>,
}

impl Record {
    /// The value as `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, LakeError> {
        serde_json::from_str(&self.value)
            .map_err(|error| LakeError::damaged(format!("{} {:?}: {error}", self.kind, self.id)))
    }
}

/// The present records, by kind and id.
#[derive(Debug, Clone, Default)]
pub struct StateView {
    kinds: imbl::OrdMap<Arc<str>, OfKind>,
}

type OfKind = imbl::OrdMap<Arc<str>, Arc<Record>>;

impl StateView {
    /// Whether both are the very same view: cheap, and never wrongly true.
    pub fn is_same(&self, other: &StateView) -> bool {
        self.kinds.ptr_eq(&other.kinds)
    }

    /// The record of this kind and id.
    pub fn get<T>(&self, kind: RecordKind<T>, id: &str) -> Option<&Arc<Record>> {
        self.find(kind.name(), id)
    }

    /// The same by the kind's name: of kinds that another version may have written.
    pub fn find(&self, kind: &str, id: &str) -> Option<&Arc<Record>> {
        self.kinds.get(kind)?.get(id)
    }

    /// The kinds of which there are records.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(AsRef::as_ref)
    }

    /// All records of a kind, by id.
    pub fn of_kind<T>(&self, kind: RecordKind<T>) -> impl Iterator<Item = &Arc<Record>> {
        self.kinds.get(kind.name()).into_iter().flat_map(OfKind::values)
    }

    /// What differs in this view from an older one, of a kind: each id with its record, none where
    /// it is gone. Looks only at what is not shared by both.
    pub fn changed_since<'a>(
        &'a self,
        older: &'a StateView,
        kind: &str,
    ) -> impl Iterator<Item = (&'a str, Option<&'a Arc<Record>>)> {
        static NONE: LazyLock<OfKind> = LazyLock::new(OfKind::default);
        let of = |view: &'a StateView| view.kinds.get(kind).unwrap_or(&NONE);
        of(older).diff(of(self)).map(|change| match change {
            DiffItem::Add(id, record) => (id.as_ref(), Some(record)),
            DiffItem::Update { new: (id, record), .. } => (id.as_ref(), Some(record)),
            DiffItem::Remove(id, _) => (id.as_ref(), None),
        })
    }

    /// The next version of a thing with this value.
    pub fn next<T: Serialize>(
        &self,
        kind: RecordKind<T>,
        id: &str,
        value: &T,
        at: Timestamp,
        by: &str,
    ) -> Result<Record, LakeError> {
        let version = self.get(kind, id).map_or(1, |record| record.version + 1);
        let kind = kind.name();
        let value = serde_json::to_string(value).map_err(LakeError::damaged)?.into();
        Ok(Record { kind: kind.into(), id: id.into(), version, value, at, by: by.into() })
    }

    fn take(&mut self, mut record: Record) {
        let known = self.find(&record.kind, &record.id);
        if known.is_some_and(|known| known.version >= record.version) {
            return;
        }
        // Texts that are the same are shared, with the version before or with another of the kind.
        let other = known.or_else(|| self.kinds.get(&record.kind)?.get_max().map(|(_, other)| other));
        for text in other.map(|other| [&other.kind, &other.id, &other.by]).into_iter().flatten() {
            [&mut record.kind, &mut record.id, &mut record.by]
                .into_iter()
                .filter(|own| *own == text)
                .for_each(|own| own.clone_from(text));
        }
        if record.by == record.id {
            record.by = record.id.clone();
        }
        self.kinds.entry(record.kind.clone()).or_default().insert(record.id.clone(), Arc::new(record));
    }
}

/// The state log.
#[derive(Debug)]
pub struct StateLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    table: Arc<Table>,
    view: RwLock<StateView>,
    /// Data files whose records are in the view. Who holds it reads the log, or commits to it.
    read: tokio::sync::Mutex<HashSet<String>>,
    /// Changes that wait for the next commit.
    waiting: Mutex<Waiting>,
}

/// Many changes at once (a thousand sites that enrol) go into one commit: each is asked for its
/// records in turn, on a view in which those of the changes before it are.
#[derive(Debug, Default)]
struct Waiting {
    changes: Vec<Change>,
    /// Whether a task commits them; it goes on until none is left.
    is_committed: bool,
}

/// The other end of a change that waits.
#[derive(Debug)]
struct Change(mpsc::UnboundedSender<Turn>);

/// What a waiting change is asked and told.
#[derive(Debug)]
enum Turn {
    /// Work out records on this view; none if nothing is to be written.
    Work(StateView, oneshot::Sender<Vec<Record>>),
    /// What was worked out last is durable, or is as it was read.
    Done,
    /// It could not be committed.
    Failed(LakeError),
}

/// Changes in one commit.
const CHANGES_MAX: usize = 500;

/// Columns of the state table.
pub(crate) fn schema() -> TableSchema {
    let columns = vec![
        Column::new("kind", ColumnType::String),
        Column::new("id", ColumnType::String),
        Column::new("version", ColumnType::Long),
        Column::new("value", ColumnType::String),
        Column::new("at", ColumnType::Timestamp),
        Column::new("by", ColumnType::String),
    ];
    TableSchema::new(columns, Vec::new())
}

impl StateLog {
    /// The state log, and what of it cannot be read: the rest counts all the same.
    pub(crate) async fn open(table: Arc<Table>) -> Result<(Self, Vec<String>), LakeError> {
        let read = tokio::sync::Mutex::default();
        let log = Self(Arc::new(Inner { table, view: RwLock::default(), read, waiting: Mutex::default() }));
        let mut lost = Vec::new();
        {
            let mut read = log.0.read.lock().await;
            let snapshot = log.0.table.refresh().await?;
            log.0.fold(&snapshot, &mut read, Some(&mut lost)).await?;
        }
        Ok((log, lost))
    }

    /// The table behind it.
    pub fn table(&self) -> &Arc<Table> {
        &self.0.table
    }

    /// The present records as this process knows them. Cheap.
    pub fn view(&self) -> StateView {
        self.0.view()
    }

    /// Reads what others wrote since.
    pub async fn refresh(&self) -> Result<StateView, LakeError> {
        let mut read = self.0.read.lock().await;
        self.0.refresh(&mut read).await.map(|(_, view)| view)
    }

    /// All versions of one record, oldest first. Reads the whole log.
    pub async fn versions<T>(&self, kind: RecordKind<T>, id: &str) -> Result<Vec<Record>, LakeError> {
        let snapshot = self.table().snapshot();
        let mut found = Vec::new();
        for file in snapshot.files() {
            let records = self.0.records(&snapshot, file).await?;
            found.extend(records.into_iter().filter(|record| &*record.kind == kind.name() && &*record.id == id));
        }
        found.sort_by_key(|record| record.version);
        found.dedup_by_key(|record| record.version);
        Ok(found)
    }

    /// Merges small files, as [`Table::compact`] does. Present records stay; older versions become
    /// history, which is not read any more, and those of `passing` kinds go.
    pub async fn compact(
        &self,
        limits: CompactionLimits,
        passing: &'static [&'static str],
    ) -> Result<CompactionReport, LakeError> {
        // Together, so that everything in the files of the one is in the other.
        let (base, view) = self.0.refresh(&mut *self.0.read.lock().await).await?;
        let (report, made) = self.table().merge(&base, limits, |_| Fold::State { view, passing }).await?;
        // What is in them was read before.
        self.0.read.lock().await.extend(made.into_iter().map(|file| file.path));
        Ok(report)
    }

    /// Works out records on the newest view and commits them all or none; durable on return. `work`
    /// may run several times. What it returns beside the records is passed on. Dropped before it
    /// returns, the change may still be made. Others' changes wait for this one to work out its
    /// records: poll it until it returns, or drop it.
    pub async fn update<T, E: From<LakeError>>(
        &self,
        mut work: impl FnMut(&StateView) -> Result<(Vec<Record>, T), E>,
    ) -> Result<T, E> {
        let (sender, mut turns) = mpsc::unbounded_channel();
        self.wait(Change(sender));
        let mut result = None;
        loop {
            // Who commits is gone without a word: what became of the change is not known.
            let turn = turns.recv().await.ok_or_else(|| LakeError::Task("a change of the state log".to_owned()))?;
            match turn {
                Turn::Work(view, reply) => {
                    let (records, worked_out) = match work(&view) {
                        Ok((records, worked_out)) => (records, Ok(worked_out)),
                        Err(error) => (Vec::new(), Err(error)),
                    };
                    result = Some(worked_out);
                    // Who asked is gone only if the process stops.
                    let _ = reply.send(records);
                }
                Turn::Done => {
                    return result
                        .unwrap_or_else(|| Err(LakeError::Task("a change was not asked for".to_owned()).into()));
                }
                Turn::Failed(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self, change: Change) {
        let mut waiting = self.0.waiting();
        waiting.changes.push(change);
        if !std::mem::replace(&mut waiting.is_committed, true) {
            // A task of its own: who asked for a change may stop waiting, the others' are committed
            // all the same.
            rollcall_runtime::spawn(self.0.clone().commit_all());
        }
    }
}

impl Inner {
    fn view(&self) -> StateView {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits what waits, until nothing does.
    async fn commit_all(self: Arc<Self>) {
        // A panic would be a bug; those who wait then are told that it is not known, and the next
        // change begins anew.
        struct Release<'a>(&'a Inner);
        impl Drop for Release<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    let mut waiting = self.0.waiting();
                    (waiting.is_committed, waiting.changes) = (false, Vec::new());
                }
            }
        }
        let _release = Release(&self);
        loop {
            let mut read = self.read.lock().await;
            let changes: Vec<Change> = {
                let mut waiting = self.waiting();
                let count = waiting.changes.len().min(CHANGES_MAX);
                waiting.is_committed = count > 0;
                waiting.changes.drain(..count).collect()
            };
            if changes.is_empty() {
                return;
            }
            let outcome = self.commit_together(&changes, &mut read).await;
            let mut outcome = outcome.map_or_else(Some, |()| None);
            for change in changes {
                let told = match &mut outcome {
                    None => Turn::Done,
                    Some(error) => Turn::Failed(std::mem::replace(error, error.again())),
                };
                // It may not be waited for any more.
                let _ = change.0.send(told);
            }
        }
    }

    async fn commit_together(&self, changes: &[Change], read: &mut HashSet<String>) -> Result<(), LakeError> {
        for _ in 0..COMMIT_ATTEMPTS {
            let (base, mut view) = self.refresh(read).await?;
            let mut records = Vec::new();
            for change in changes {
                let (reply, worked_out) = oneshot::channel();
                if change.0.send(Turn::Work(view.clone(), reply)).is_ok() {
                    let of_change = worked_out.await.unwrap_or_default();
                    of_change.iter().for_each(|record| view.take(record.clone()));
                    records.extend(of_change);
                }
            }
            if records.is_empty() || self.commit(&base, &records, view, read).await? {
                return Ok(());
            }
        }
        Err(LakeError::Contention(COMMIT_ATTEMPTS))
    }

    async fn refresh(&self, read: &mut HashSet<String>) -> Result<(Snapshot, StateView), LakeError> {
        let snapshot = self.table.refresh().await?;
        let view = self.fold(&snapshot, read, None).await?;
        Ok((snapshot, view))
    }

    /// Takes the records of files that were not read yet. Where `lost` is given, what cannot be
    /// read is noted there.
    async fn fold(
        &self,
        snapshot: &Snapshot,
        read: &mut HashSet<String>,
        mut lost: Option<&mut Vec<String>>,
    ) -> Result<StateView, LakeError> {
        let mut view = self.view();
        let current = || snapshot.files().filter(|file| !file.superseded);
        for file in current().filter(|file| !read.contains(&file.path)) {
            match self.records(snapshot, file).await {
                Ok(records) => records.into_iter().for_each(|record| view.take(record)),
                Err(error @ LakeError::Store { .. }) => return Err(error),
                Err(error) => match &mut lost {
                    Some(lost) => lost.push(rollcall_types::describe(&error)),
                    None => return Err(error),
                },
            }
        }
        *read = current().map(|file| file.path.clone()).collect();
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view.clone();
        Ok(view)
    }

    async fn records(&self, snapshot: &Snapshot, file: &DataFile) -> Result<Vec<Record>, LakeError> {
        let bytes = self.table.get_data_file(file).await?;
        let batches = data_file::read(bytes, snapshot.schema())?;
        Ok(batches.iter().map(decode).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// Commits records on `base`, with which the view is `view`; false if another process committed
    /// since.
    async fn commit(
        &self,
        base: &Snapshot,
        records: &[Record],
        view: StateView,
        read: &mut HashSet<String>,
    ) -> Result<bool, LakeError> {
        let batch = encode(records)?;
        let now_ms = rollcall_runtime::now().as_millis();
        let (bytes, file) = data_file::write(data_file::new_path(), base.schema(), &[batch], Effort::Ingest, now_ms)?;
        self.table.put_data_file(bytes, &file).await?;
        let _committing = self.table.committing.lock().await;
        if self.table.snapshot().version() != base.version() {
            return Ok(false);
        }
        if !matches!(self.table.put_entry(base, "WRITE", vec![Action::add(file.to_add(true)?)]).await?, Put::Won) {
            return Ok(false);
        }
        self.table.checkpoint_if_due();
        read.insert(file.path);
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        Ok(true)
    }
}

fn encode(records: &[Record]) -> Result<RecordBatch, LakeError> {
    let text = |field: fn(&Record) -> &str| StringArray::from_iter_values(records.iter().map(field));
    let times = TimestampMicrosecondArray::from_iter_values(records.iter().map(|record| record.at.as_micros()));
    RecordBatch::try_new(
        schema().arrow().clone(),
        vec![
            Arc::new(text(|record| &record.kind)),
            Arc::new(text(|record| &record.id)),
            Arc::new(Int64Array::from_iter_values(records.iter().map(|record| record.version))),
            Arc::new(text(|record| &record.value)),
            Arc::new(times.with_timezone("UTC")),
            Arc::new(text(|record| &record.by)),
        ],
    )
    .doing("writing state records")
}

pub(crate) fn decode(batch: &RecordBatch) -> Result<Vec<Record>, LakeError> {
    if batch.schema_ref().fields() != schema().arrow().fields() {
        return Err(LakeError::damaged("rows that are no state records"));
    }
    let column = |index: usize| batch.column(index);
    let text = |index: usize| column(index).as_string::<i32>();
    let (kinds, ids, values, by) = (text(0), text(1), text(3), text(5));
    let (versions, times) =
        (column(2).as_primitive::<Int64Type>(), column(4).as_primitive::<TimestampMicrosecondType>());
    if batch.columns().iter().any(|column| column.null_count() > 0) {
        return Err(LakeError::damaged("a state record with nulls"));
    }
    Ok((0..batch.num_rows())
        .map(|row| Record {
            kind: kinds.value(row).into(),
            id: ids.value(row).into(),
            version: versions.value(row),
            value: values.value(row).into(),
            at: Timestamp::from_micros(times.value(row)),
            by: by.value(row).into(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_of_two_views_is_found() {
        // Method: thousands of records of two kinds, so that the map has many leaves; each is
        // changed by itself, and then many at once.
        let record = |kind: &str, number: usize, version| Record {
            kind: kind.into(),
            id: format!("{number:05}").into(),
            version,
            value: "1".into(),
            at: Timestamp::from_micros(0),
            by: "test".into(),
        };
        let mut view = StateView::default();
        for number in 0..3000 {
            view.take(record("site", number, 1));
            view.take(record("zebra", number, 1));
        }
        for number in 0..3000 {
            let older = view.clone();
            view.take(record("site", number, 2));
            view.take(record("zebra", number, 2));
            let found: Vec<&str> = view.changed_since(&older, "site").map(|(id, _)| id).collect();
            assert_eq!(found, [format!("{number:05}")]);
        }
        let older = view.clone();
        for number in (0..3000).filter(|number| number % 7 == 3) {
            view.take(record("site", number, 3));
        }
        assert_eq!(view.changed_since(&older, "site").count(), 429);
        assert_eq!(view.changed_since(&StateView::default(), "site").count(), 3000);
    }
}
