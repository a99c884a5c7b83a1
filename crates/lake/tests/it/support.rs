//! Parts of batches, and what a table holds.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, Int64Array, RecordBatch, StringArray, UInt8Array,
    cast::AsArray,
    types::{Int64Type, TimestampMicrosecondType},
};
use arrow_schema::{DataType, Field, Schema};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rollcall_lake::{BootClock, Conformed, Part, PartMark, SiteClock, Table, TableSchema, conform};
use rollcall_types::{ChainHash, Epoch, Seq, SiteId, SiteNumber, Timestamp, columns};

pub(crate) fn key() -> Vec<String> {
    vec!["id".to_owned()]
}

pub(crate) async fn table(store: &Arc<dyn ObjectStore>) -> Arc<Table> {
    table_with_clock(store, BootClock::default()).await
}

pub(crate) async fn table_with_clock(store: &Arc<dyn ObjectStore>, clock: BootClock) -> Arc<Table> {
    let schema = TableSchema::for_sites(key());
    Table::open_or_create(store.clone(), Path::from("tables/sales"), clock, &schema).await.expect("opens")
}

/// Rows as a site sends them: (seq, op, id).
pub(crate) fn sent(rows: &[(u64, char, i64)]) -> RecordBatch {
    let seqs = Int64Array::from_iter_values(rows.iter().map(|row| row.0 as i64));
    let ops = UInt8Array::from_iter_values(rows.iter().map(|row| row.1 as u8));
    let changed = Int64Array::from_iter_values(rows.iter().map(|row| row.0 as i64 * 1_000_000));
    let ids = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
    let names = StringArray::from_iter_values(rows.iter().map(|row| format!("row {}", row.0)));
    let metadata = HashMap::from([(columns::METADATA_KEY.to_owned(), r#"["Id"]"#.to_owned())]);
    let schema = Schema::new_with_metadata(
        vec![
            Field::new(columns::SEQ, DataType::Int64, false),
            Field::new(columns::OP, DataType::UInt8, false),
            Field::new(columns::CHANGED_AT, DataType::Int64, true),
            Field::new("Id", DataType::Int64, true),
            Field::new("name", DataType::Utf8, true),
        ],
        metadata,
    );
    let columns: Vec<Arc<dyn Array>> =
        vec![Arc::new(seqs), Arc::new(ops), Arc::new(changed), Arc::new(ids), Arc::new(names)];
    RecordBatch::try_new(Arc::new(schema), columns).expect("columns match")
}

pub(crate) fn part_of(table: &Table, site: u32, epoch: u32, previous: u64, last: u64, rows: Conformed) -> Part {
    let _ = table;
    Part {
        site: SiteNumber(site),
        site_id: SiteId::new(&format!("site-{site}")).expect("valid"),
        epoch: Epoch(epoch),
        previous: Seq(previous),
        last: Seq(last),
        hash: ChainHash::new(last * 31),
        marks: Vec::new(),
        rows,
        received_at: Timestamp::from_micros(1_700_000_000_000_000),
        whole: false,
    }
}

/// A part that inserts one row for each position behind `previous` up to `last`.
pub(crate) fn part(table: &Table, site: u32, previous: u64, last: u64) -> Part {
    let rows: Vec<_> = (previous + 1..=last).map(|seq| (seq, 'I', seq as i64)).collect();
    let rows = conform(&sent(&rows), table.snapshot().schema(), SiteClock::default()).expect("conforms");
    part_of(table, site, 1, previous, last, rows)
}

pub(crate) fn with_marks(mut part: Part, marks: Vec<PartMark>) -> Part {
    part.marks = marks;
    part
}

/// Every (site, seq) in the files of the table's newest version as read anew from the store,
/// sorted.
pub(crate) async fn rows(store: &Arc<dyn ObjectStore>) -> Vec<(String, i64)> {
    let table = table(store).await;
    let snapshot = table.snapshot();
    let mut found = Vec::new();
    for file in snapshot.files() {
        found.extend(rows_of(store, &file.path).await.into_iter().map(|(site, seq, _)| (site, seq)));
    }
    found.sort();
    found
}

/// Every (site, seq, time of change in microseconds) of a data file, in its order.
pub(crate) async fn rows_of(store: &Arc<dyn ObjectStore>, file: &str) -> Vec<(String, i64, i64)> {
    let path = Path::from("tables/sales").join(file);
    let bytes = store.get(&path).await.expect("exists").bytes().await.expect("reads");
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("parquet").build().expect("builds");
    let mut found = Vec::new();
    for batch in reader {
        let batch = batch.expect("reads");
        let column = |name: &str| batch.column_by_name(name).expect("present").clone();
        let (sites, seqs) = (column("_site"), column(columns::SEQ));
        let times = column(columns::CHANGED_AT);
        let (sites, seqs) = (sites.as_string::<i32>(), seqs.as_primitive::<Int64Type>());
        let times = times.as_primitive::<TimestampMicrosecondType>();
        found.extend((0..batch.num_rows()).map(|row| (sites.value(row).to_owned(), seqs.value(row), times.value(row))));
    }
    found
}

pub(crate) fn expected(sites: u32, last: i64) -> Vec<(String, i64)> {
    let mut all: Vec<_> =
        (0..sites).flat_map(|site| (1..=last).map(move |seq| (format!("site-{site}"), seq))).collect();
    all.sort();
    all
}
