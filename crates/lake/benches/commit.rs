//! What a commit costs besides writing its rows, whether that grows with the log, and how long
//! opening takes.
//!
//! `cargo bench -p rollcall-lake --bench commit` prints a table. The store is a real directory with
//! real fsyncs; the time spent in it is counted apart. `ROLLCALL_COMMITS` sets how many commits lie
//! between the first and the last measurement.
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]
#![allow(missing_docs)]

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arrow_array::{Array, Int64Array, RecordBatch, StringArray, UInt8Array};
use arrow_schema::{DataType, Field, Schema};
use async_trait::async_trait;
use object_store::{ObjectStore, PutOptions, PutPayload, PutResult, Result, path::Path};
use rollcall_lake::{BootClock, DurableDirectory, Layered, Part, PutLayer, SiteClock, Table, TableSchema, conform};
use rollcall_types::{ChainHash, Epoch, Seq, SiteId, SiteNumber, Timestamp, columns};

/// Counts the time spent in puts: writing and fsync.
#[derive(Debug, Default)]
struct Timed {
    put_nanos: AtomicU64,
}

#[async_trait]
impl PutLayer for Timed {
    async fn put(
        &self,
        store: &dyn ObjectStore,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let started = Instant::now();
        let result = store.put_opts(location, payload, options).await;
        self.put_nanos.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }
}

/// Rows `previous + 1 ..= last` of a site.
fn part(table: &Table, site: u32, previous: u64, last: u64) -> Part {
    let seqs = || (previous + 1..=last).map(|seq| seq as i64);
    let schema = Schema::new(vec![
        Field::new(columns::SEQ, DataType::Int64, false),
        Field::new(columns::OP, DataType::UInt8, false),
        Field::new(columns::CHANGED_AT, DataType::Int64, true),
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
    ]);
    let arrays: Vec<Arc<dyn Array>> = vec![
        Arc::new(Int64Array::from_iter_values(seqs())),
        Arc::new(UInt8Array::from_iter_values(seqs().map(|_| b'I'))),
        Arc::new(Int64Array::from_iter_values(seqs().map(|seq| seq * 1_000_000))),
        Arc::new(Int64Array::from_iter_values(seqs())),
        Arc::new(StringArray::from_iter_values(seqs().map(|seq| format!("row {seq}")))),
    ];
    let rows = RecordBatch::try_new(Arc::new(schema), arrays).expect("columns match");
    Part {
        site: SiteNumber(site),
        site_id: SiteId::new(&format!("site-{site}")).expect("valid"),
        epoch: Epoch(1),
        previous: Seq(previous),
        last: Seq(last),
        hash: ChainHash::new(last * 31 + u64::from(site)),
        marks: Vec::new(),
        rows: conform(&rows, table.snapshot().schema(), SiteClock::default()).expect("conforms"),
        received_at: Timestamp::from_micros(1_700_000_000_000_000),
        whole: false,
    }
}

struct Measured {
    total: Duration,
    in_store: Duration,
}

/// The median of `times` commits of one row from each of `sites` sites, whose cursors stand at
/// `from`.
async fn measure(
    store: &Timed,
    table: &Arc<Table>,
    sites: Range<u32>,
    rows: u64,
    from: &mut u64,
    times: usize,
) -> Measured {
    let mut taken = Vec::new();
    for _ in 0..times {
        let parts: Vec<Part> = sites.clone().map(|site| part(table, site, *from, *from + rows)).collect();
        *from += rows;
        let before = store.put_nanos.load(Ordering::Relaxed);
        let started = Instant::now();
        table.append(Arc::new(parts)).await.expect("commits");
        let in_store = Duration::from_nanos(store.put_nanos.load(Ordering::Relaxed) - before);
        taken.push(Measured { total: started.elapsed(), in_store });
    }
    taken.sort_by_key(|measured| measured.total);
    taken.swap_remove(times / 2)
}

fn line(what: &str, version: u64, measured: &Measured) {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    println!(
        "| {what} | {version} | {:.1} ms | {:.1} ms | {:.1} ms |",
        ms(measured.total),
        ms(measured.in_store),
        ms(measured.total.saturating_sub(measured.in_store)),
    );
}

const SITES: u32 = 2_500;

#[tokio::main]
async fn main() {
    let commits: u64 = std::env::var("ROLLCALL_COMMITS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000);
    let directory = tempfile::tempdir().expect("a directory");
    let inner = DurableDirectory::new(directory.path()).expect("opens");
    let store = Arc::new(Timed::default());
    let shared: Arc<dyn ObjectStore> = Arc::new(Layered::new(Arc::new(inner), store.clone()));
    let schema = TableSchema::for_sites(vec!["id".to_owned()]);
    let root = Path::from("tables/sales");
    let table =
        Table::open_or_create(shared.clone(), root.clone(), BootClock::default(), &schema).await.expect("opens");

    println!("| commit of | version | median | in the store (write, fsync) | the rest |\n|---|---|---|---|---|");
    let (mut one, mut many, mut few) = (0, 0, 0);
    let mut measure_both = async |when: &str| {
        let rows = u64::from(SITES);
        let measured = measure(&store, &table, 0..1, rows, &mut one, 15).await;
        line(&format!("2,500 rows of 1 site{when}"), table.snapshot().version(), &measured);
        let measured = measure(&store, &table, 1..SITES + 1, 1, &mut many, 15).await;
        line(&format!("1 row of each of 2,500 sites, 5,000 txn{when}"), table.snapshot().version(), &measured);
    };
    measure_both("").await;
    let started = Instant::now();
    for _ in 0..commits {
        measure(&store, &table, 10_000..10_064, 1, &mut few, 1).await;
    }
    eprintln!("{commits} commits of 64 sites took {:.1} s", started.elapsed().as_secs_f64());
    measure_both(", later").await;
    for block in 0..20 {
        let first = 20_000 + block * SITES;
        measure(&store, &table, first..first + SITES, 1, &mut 0, 1).await;
    }
    let started = Instant::now();
    let opened = Table::open(shared, root, BootClock::default()).await.expect("opens").expect("exists");
    let taken = started.elapsed();
    let snapshot = opened.snapshot();
    println!(
        "\nopening version {} with {} cursors and {} files: {:.0} ms",
        snapshot.version(),
        snapshot.cursors().count(),
        snapshot.files().count(),
        taken.as_secs_f64() * 1e3
    );
}
