//! Checkpoints: the whole state of a table in one Parquet file, so that opening reads little of the
//! log. Source: the Delta transaction log protocol, "Checkpoints", classic single-file form.

use std::sync::Arc;

use arrow_array::{Array, RecordBatch, UInt32Array, cast::AsArray, types::Int64Type};
use arrow_json::{ArrayWriter, ReaderBuilder};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, path::Path};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    file::{metadata::KeyValue, properties::WriterProperties},
};

use crate::{
    action::{Action, Remove},
    digest::Digest,
    error::{Doing, LakeError},
    replay,
    snapshot::{CursorField, Snapshot},
};

/// Names the digest of the entry that the checkpoint is the state after.
const ENTRY: &str = "rollcall.entry";

fn string_map(name: &str) -> Field {
    let entries = DataType::Struct(Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ]));
    Field::new(name, DataType::Map(Arc::new(Field::new("key_value", entries, false)), false), true)
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let flag = |name: &str| Field::new(name, DataType::Boolean, true);
    let group = |name: &str, fields: Vec<Field>| Field::new(name, DataType::Struct(fields.into()), true);
    let list = Field::new("element", DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        group("txn", vec![text("appId"), long("version")]),
        group(
            "add",
            vec![
                text("path"),
                string_map("partitionValues"),
                long("size"),
                long("modificationTime"),
                flag("dataChange"),
                text("stats"),
                string_map("tags"),
            ],
        ),
        group("remove", vec![text("path"), long("deletionTimestamp"), flag("dataChange")]),
        group(
            "metaData",
            vec![
                text("id"),
                group("format", vec![text("provider"), string_map("options")]),
                text("schemaString"),
                Field::new("partitionColumns", DataType::List(Arc::new(list)), true),
                string_map("configuration"),
                long("createdTime"),
            ],
        ),
        group(
            "protocol",
            vec![
                Field::new("minReaderVersion", DataType::Int32, true),
                Field::new("minWriterVersion", DataType::Int32, true),
            ],
        ),
    ]))
}

/// Every action that `snapshot` still needs.
fn actions(snapshot: &Snapshot) -> Result<Vec<Action>, LakeError> {
    let mut actions = vec![Action::protocol(), Action::meta_data((*snapshot.meta_data).clone())];
    for ((site, epoch), cursor) in &snapshot.cursors {
        let mut txn = |field: CursorField, number: u64| {
            if number > 0 {
                let version = i64::try_from(number).unwrap_or(i64::MAX);
                actions.push(Action::txn(field.app_id(*site, *epoch), version));
            }
        };
        txn(CursorField::Seq, cursor.seq.0);
        txn(CursorField::Hash, cursor.hash.get());
        txn(CursorField::Begin, cursor.begin.0);
        txn(CursorField::Floor, cursor.floor.0);
        txn(CursorField::Exact, cursor.exact.0);
    }
    actions.extend(snapshot.other_txns.iter().map(|(app_id, version)| Action::txn(app_id.clone(), *version)));
    for file in snapshot.files.values() {
        actions.push(Action::add(file.to_add(false)?));
    }
    actions.extend(snapshot.removed.iter().map(|(path, at)| {
        Action::remove(Remove { path: path.to_string(), deletion_timestamp: Some(*at), data_change: false })
    }));
    Ok(actions)
}

const ROWS_PER_BATCH: usize = 8192;

/// The checkpoint file of `snapshot`, and how many actions it holds.
pub(crate) fn write(snapshot: &Snapshot) -> Result<(Vec<u8>, usize), LakeError> {
    let doing = "writing a checkpoint";
    let actions = actions(snapshot)?;
    let schema = schema();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).doing(doing)?))
        .set_max_row_group_row_count(Some(1 << 20))
        .set_key_value_metadata(snapshot.digest.map(|digest| vec![KeyValue::new(ENTRY.to_owned(), digest.to_string())]))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema.clone(), Some(properties)).doing(doing)?;
    let mut decoder = ReaderBuilder::new(schema).with_batch_size(ROWS_PER_BATCH).build_decoder().doing(doing)?;
    for chunk in actions.chunks(ROWS_PER_BATCH) {
        decoder.serialize(chunk).doing(doing)?;
        if let Some(batch) = decoder.flush().doing(doing)? {
            writer.write(&batch).doing(doing)?;
        }
    }
    writer.close().doing(doing)?;
    Ok((bytes, actions.len()))
}

/// Stores the checkpoint of `snapshot`, and names it as the newest.
pub(crate) async fn put(
    store: &dyn ObjectStore,
    root: &Path,
    snapshot: Snapshot,
    mode: PutMode,
) -> Result<(), LakeError> {
    let (doing, version) = ("writing a checkpoint", snapshot.version);
    let written = rollcall_runtime::blocking(move || write(&snapshot));
    let (bytes, actions) = written.await.doing(doing)??;
    // Another node may write one of this version too, of other bytes. The first of them stays, with
    // its digest; until that is there, nothing but the reader tells whether it is damaged.
    let digest = Digest::of(&bytes).to_string().into_bytes();
    match store.put_opts(&replay::checkpoint_path(root, version), bytes.into(), mode.into()).await {
        Err(object_store::Error::AlreadyExists { .. }) => {}
        put => {
            put.doing(doing)?;
            store.put(&replay::checkpoint_digest_path(root, version), digest.into()).await.doing(doing)?;
        }
    }
    // Others may have come further meanwhile. Whoever still wins this race with an older one
    // misleads nobody: who opens a table looks whether the log goes on.
    if replay::last_checkpoint(store, root).await?.is_none_or(|named| named < version) {
        let last = serde_json::json!({"version": version, "size": actions}).to_string();
        let path = replay::last_checkpoint_path(root);
        store.put(&path, last.into_bytes().into()).await.doing("writing _last_checkpoint")?;
    }
    Ok(())
}

/// Reads a checkpoint back. Cursors, which are many, are read from their columns; the few other
/// actions through JSON.
pub(crate) fn read(version: u64, bytes: Bytes) -> Result<Snapshot, LakeError> {
    let doing = "reading a checkpoint";
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).doing(doing)?;
    let about = builder.metadata().file_metadata().key_value_metadata().into_iter().flatten();
    let digest = about.filter(|pair| pair.key == ENTRY).find_map(|pair| Digest::parse(pair.value.as_ref()?));
    let reader = builder.with_batch_size(ROWS_PER_BATCH).build().doing(doing)?;
    let mut txns: Vec<(String, i64)> = Vec::new();
    let mut others: Vec<Action> = Vec::new();
    for batch in reader {
        let batch = batch.doing(doing)?;
        let mut is_txn = vec![false; batch.num_rows()];
        if let Some(column) = batch.column_by_name("txn") {
            let txn = column.as_struct();
            let field = |name: &str| {
                txn.column_by_name(name).ok_or_else(|| LakeError::damaged(format!("checkpoint lacks txn.{name}")))
            };
            let app_ids = arrow_cast::cast(field("appId")?, &DataType::Utf8).doing(doing)?;
            let (app_ids, versions) =
                (app_ids.as_string::<i32>().clone(), field("version")?.as_primitive::<Int64Type>());
            for (row, is_txn) in is_txn.iter_mut().enumerate() {
                if txn.is_valid(row) && app_ids.is_valid(row) {
                    *is_txn = true;
                    txns.push((app_ids.value(row).to_owned(), versions.value(row)));
                }
            }
        }
        let rest: UInt32Array = (0..).zip(&is_txn).filter(|(_, is_txn)| !**is_txn).map(|(row, _)| Some(row)).collect();
        if !rest.is_empty() {
            others.extend(through_json(&arrow_select::take::take_record_batch(&batch, &rest).doing(doing)?)?);
        }
    }
    let meta_data = others.iter().find_map(|action| action.meta_data.clone());
    let meta_data = meta_data.ok_or_else(|| LakeError::damaged("a checkpoint without metadata"))?;
    let mut snapshot = Snapshot::empty(*meta_data)?;
    snapshot.apply(version, others)?;
    for (app_id, version) in txns {
        snapshot.apply_txn(&app_id, version);
    }
    snapshot.digest = digest;
    Ok(snapshot)
}

fn through_json(batch: &RecordBatch) -> Result<Vec<Action>, LakeError> {
    let doing = "reading a checkpoint";
    let mut writer = ArrayWriter::new(Vec::new());
    writer.write(batch).doing(doing)?;
    writer.finish().doing(doing)?;
    serde_json::from_slice(&writer.into_inner()).map_err(LakeError::damaged)
}
