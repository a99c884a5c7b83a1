//! What HQ itself knows (roster, tokens, settings, incidents): one log of records in a Delta table of its own.
//!
//! A record is (kind, id, version, value): the greatest version of a (kind, id) is the present one. Every node keeps the
//! present records in memory by following the table. A change is optimistic: it is worked out on the newest view and
//! committed only if nobody else committed since, else worked out again.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
};

use arrow_array::{
    Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    cast::AsArray,
    types::{Int64Type, TimestampMicrosecondType},
};
use rollcall_types::Timestamp;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    action::Action,
    append::COMMIT_ATTEMPTS,
    data_file::{self, Effort},
    error::{Doing, LakeError},
    objects::get_optional,
    schema::{Column, ColumnType, TableSchema},
    snapshot::Snapshot,
    table::{Put, Table},
};

/// One version of one thing HQ knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is: `site`, `token`, …
    pub kind: String,
    /// Which one.
    pub id: String,
    /// 1, 2, 3… within (kind, id).
    pub version: i64,
    /// JSON.
    pub value: String,
    /// When it was written.
    pub at: Timestamp,
    /// Who wrote it.
    pub by: String,
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
    records: imbl::OrdMap<(String, String), Arc<Record>>,
}

impl StateView {
    /// Whether both are the very same view: cheap, and never wrongly true.
    pub fn is_same(&self, other: &StateView) -> bool {
        self.records.ptr_eq(&other.records)
    }

    /// The record of this kind and id.
    pub fn get(&self, kind: &str, id: &str) -> Option<&Arc<Record>> {
        self.records.get(&(kind.to_owned(), id.to_owned()))
    }

    /// All records of a kind, by id.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Arc<Record>> {
        let from = (kind.to_owned(), String::new());
        self.records.range(from..).take_while(move |((found, _), _)| found == kind).map(|(_, record)| record)
    }

    /// The next version of a thing with this value.
    pub fn next<T: Serialize>(
        &self,
        kind: &str,
        id: &str,
        value: &T,
        at: Timestamp,
        by: &str,
    ) -> Result<Record, LakeError> {
        let version = self.get(kind, id).map_or(1, |record| record.version + 1);
        let value = serde_json::to_string(value).map_err(LakeError::damaged)?;
        Ok(Record { kind: kind.to_owned(), id: id.to_owned(), version, value, at, by: by.to_owned() })
    }

    fn take(&mut self, record: Record) {
        let key = (record.kind.clone(), record.id.clone());
        if self.records.get(&key).is_none_or(|known| known.version < record.version) {
            self.records.insert(key, Arc::new(record));
        }
    }
}

/// The state log.
#[derive(Debug)]
pub struct StateLog {
    table: Arc<Table>,
    view: RwLock<StateView>,
    /// Data files whose records are in the view.
    read: tokio::sync::Mutex<HashSet<String>>,
}

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
    pub(crate) async fn open(table: Arc<Table>) -> Result<Self, LakeError> {
        let log = Self { table, view: RwLock::default(), read: tokio::sync::Mutex::default() };
        log.refresh().await?;
        Ok(log)
    }

    /// The table behind it.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The present records as this process knows them. Cheap.
    pub fn view(&self) -> StateView {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads what others wrote since.
    pub async fn refresh(&self) -> Result<StateView, LakeError> {
        let mut read = self.read.lock().await;
        let snapshot = self.table.refresh().await?;
        self.fold(&snapshot, &mut read).await
    }

    async fn fold(&self, snapshot: &Snapshot, read: &mut HashSet<String>) -> Result<StateView, LakeError> {
        let mut view = self.view();
        for file in snapshot.files().filter(|file| !read.contains(&file.path)) {
            let path = self.table.root().clone().join(file.path.as_str());
            let bytes = get_optional(self.table.store.as_ref(), &path).await?;
            let bytes = bytes.ok_or_else(|| LakeError::damaged(format!("data file {path} is gone")))?;
            for batch in data_file::read(bytes, snapshot.schema())? {
                for record in decode(&batch)? {
                    view.take(record);
                }
            }
        }
        *read = snapshot.files().map(|file| file.path.clone()).collect();
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view.clone();
        Ok(view)
    }

    /// Works out records on the newest view and commits them all or none; durable on return. `work` may run several
    /// times. What it returns beside the records is passed on.
    pub async fn update<T, E: From<LakeError>>(
        &self,
        mut work: impl FnMut(&StateView) -> Result<(Vec<Record>, T), E>,
    ) -> Result<T, E> {
        let mut read = self.read.lock().await;
        for _ in 0..COMMIT_ATTEMPTS {
            let base = self.table.refresh().await?;
            let view = self.fold(&base, &mut read).await?;
            let (records, result) = work(&view)?;
            if records.is_empty() {
                return Ok(result);
            }
            if self.commit(&base, &records, &mut read).await? {
                return Ok(result);
            }
        }
        Err(LakeError::Contention(COMMIT_ATTEMPTS).into())
    }

    async fn commit(&self, base: &Snapshot, records: &[Record], read: &mut HashSet<String>) -> Result<bool, LakeError> {
        let batch = encode(records)?;
        let now_ms = chrono::Utc::now().timestamp_millis();
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
        let mut view = self.view();
        for record in records {
            view.take(record.clone());
        }
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

fn decode(batch: &RecordBatch) -> Result<Vec<Record>, LakeError> {
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
            kind: kinds.value(row).to_owned(),
            id: ids.value(row).to_owned(),
            version: versions.value(row),
            value: values.value(row).to_owned(),
            at: Timestamp::from_micros(times.value(row)),
            by: by.value(row).to_owned(),
        })
        .collect())
}
