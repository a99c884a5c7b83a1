//! Where the time of ingest goes: each stage of the way alone, on one core, with rows as the fleet
//! makes them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use arrow_array::RecordBatch;
use object_store::{ObjectStore, memory::InMemory, path::Path};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use rollcall_lake::{BootClock, CompactionLimits, Lives, Part as LakePart, SiteClock, Table, TableSchema, conform};
use rollcall_types::{ChainHash, Epoch, Seq, SiteId, SiteNumber, Timestamp};
use rollcall_wire::batch::{Batch, Encoded, Encoder, Part, decode, verify};
use serde::Serialize;

use crate::retail::{SalesGenerator, articles};

/// What one stage costs.
#[derive(Debug, Clone, Serialize)]
pub struct Stage {
    /// What is done.
    pub stage: &'static str,
    /// Processor seconds for a million rows, on one core.
    pub cpu_seconds_per_million_rows: f64,
}

/// Rows measured in each stage.
const ROWS: usize = 3_000_000;
/// Rows of a batch, as the fleet sends them.
const BATCH_ROWS: usize = 500;
/// Batches that HQ gathers into one commit under load.
const GATHERED: usize = 60;
const SITES: u32 = 64;

fn stage<T>(stage: &'static str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(Stage, T)> {
    let started = Instant::now();
    let made = work()?;
    // Nothing else runs on this thread, and nothing waits: the time is the processor's.
    let taken = started.elapsed();
    Ok((Stage { stage, cpu_seconds_per_million_rows: per_million(taken) }, made))
}

fn per_million(taken: Duration) -> f64 {
    taken.as_secs_f64() / (ROWS as f64 / 1e6)
}

/// Measures every stage. Blocking; takes some ten seconds and about 1.5 GB.
pub fn measure() -> anyhow::Result<Vec<Stage>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build()?;
    let catalogue = Arc::new(articles());
    let batches = ROWS / BATCH_ROWS;
    let site_of = |batch: usize| batch as u32 % SITES;
    let previous_of = |batch: usize| Seq((batch / SITES as usize * BATCH_ROWS) as u64);
    let last_of = |batch: usize| Seq(previous_of(batch).0 + BATCH_ROWS as u64);
    let now: Timestamp = chrono::Utc::now().into();

    let (made, rows) = stage("rows made (site)", || {
        let mut generators: Vec<_> =
            (0..SITES).map(|site| SalesGenerator::new(catalogue.clone(), u64::from(site))).collect();
        let make =
            |batch: usize| generators[site_of(batch) as usize].batch(previous_of(batch).0, BATCH_ROWS, now.as_micros());
        (0..batches).map(make).collect::<anyhow::Result<Vec<RecordBatch>>>()
    })?;
    let (encoded, sent) = stage("batch encoded: Arrow IPC, zstd, SHA-256 (site)", || {
        let mut encoder = Encoder::new()?;
        let mut encode = |(batch, rows): (usize, &RecordBatch)| {
            let part =
                Part { table: "sales".to_owned(), previous: previous_of(batch), rows: rows.clone(), marks: Vec::new() };
            encoder.encode(&Batch {
                epoch: Epoch(1),
                first: Seq(previous_of(batch).0 + 1),
                last: last_of(batch),
                previous_hash: ChainHash::default(),
                parts: vec![part],
            })
        };
        Ok(rows.iter().enumerate().map(&mut encode).collect::<Result<Vec<Encoded>, _>>()?)
    })?;
    drop(rows);
    let (decoded, received) = stage("batch checked and decoded (HQ)", || {
        let open = |encoded: &Encoded| verify(encoded).and_then(|()| decode(encoded));
        Ok(sent.iter().map(open).collect::<Result<Vec<Batch>, _>>()?)
    })?;
    drop(sent);
    let schema = TableSchema::for_sites(vec!["id".to_owned()]);
    let (conformed, parts) = stage("made to fit the table's columns (HQ)", || {
        let mut part = |(batch, received): (usize, &Batch)| {
            let rows = conform(&received.parts[0].rows, &schema, SiteClock::default())?;
            Ok(LakePart {
                site: SiteNumber(site_of(batch)),
                site_id: SiteId::new(&format!("fleet-{:05}", site_of(batch)))?,
                epoch: Epoch(1),
                previous: previous_of(batch),
                last: last_of(batch),
                hash: ChainHash::new(batch as u64 + 1),
                marks: Vec::new(),
                rows,
                received_at: now,
                whole: false,
            })
        };
        received.iter().enumerate().map(&mut part).collect::<anyhow::Result<Vec<LakePart>>>()
    })?;
    drop(received);
    let (limit, ()) = stage("the limit: the same rows written as Parquet and nothing else", || {
        parts.chunks(GATHERED).try_for_each(write_parquet)
    })?;
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let table =
        runtime.block_on(Table::open_or_create(store, Path::from("tables/sales"), BootClock::default(), &schema))?;
    let (appended, ()) = stage("gathered, written as Parquet, committed (HQ, without the disk)", || {
        parts.chunks(GATHERED).try_for_each(|parts| {
            runtime.block_on(table.append(Arc::new(parts.to_vec())))?;
            Ok(())
        })
    })?;
    drop(parts);
    let (compacted, ()) = stage("small files merged and sorted (HQ, in the background)", || {
        runtime.block_on(async {
            let limits = CompactionLimits::default();
            while table.compact(limits, async || Ok((|_: &str| None, Lives::default()))).await?.files > 0 {}
            Ok(())
        })
    })?;
    Ok(vec![made, encoded, decoded, conformed, appended, compacted, limit])
}

fn write_parquet(parts: &[LakePart]) -> anyhow::Result<()> {
    let first = parts.first().context("no rows")?.rows.rows.schema();
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), first, Some(properties))?;
    for part in parts {
        writer.write(&part.rows.rows)?;
    }
    writer.close()?;
    Ok(())
}
