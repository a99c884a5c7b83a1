//! What capture costs at the till: time of a transaction, bare and captured, alone and beside a
//! running reader.
//!
//! `cargo bench -p rollcall-capture-sqlite --bench till` prints a table; the ratio to the bare run
//! beside it is what counts.
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]
#![allow(missing_docs)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rollcall_capture::{Anchor, Database, Source, TableSpec};
use rollcall_capture_sqlite::{SqliteDatabase, SqliteSource};
use rusqlite::Connection;

const SCHEMA: &str =
    "CREATE TABLE sales (id INTEGER PRIMARY KEY, invoice INTEGER, sku TEXT, description TEXT, qty INTEGER,
     price DECIMAL(10,2), customer INTEGER, sold_at DATETIME);";

#[derive(Clone, Copy, PartialEq)]
enum Capture {
    Bare,
    Captured,
    /// Captured, and read as an agent reads.
    WithReader,
}

struct Measured {
    median: Duration,
    p99: Duration,
    busy: usize,
}

fn measure(mode: &str, capture: Capture, rows: usize, transactions: usize) -> Measured {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pos.sqlite");
    let conn = Connection::open(&path).expect("opens");
    conn.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |_| Ok(())).expect("sets");
    conn.execute_batch("PRAGMA synchronous = FULL").expect("sets");
    conn.execute_batch(SCHEMA).expect("creates");
    // A till without any patience, to count how often it would be refused.
    conn.busy_timeout(Duration::ZERO).expect("sets");
    if capture != Capture::Bare {
        let spec = TableSpec { table: "sales".to_owned(), excluded: Vec::new() };
        SqliteSource::open(&path).and_then(|mut source| source.install(&[spec], "bench")).expect("installs");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let reader = (capture == Capture::WithReader).then(|| start_reader(&path, stop.clone()));
    let mut times = Vec::with_capacity(transactions);
    let (mut busy, mut id) = (0, 0);
    while times.len() < transactions {
        let started = Instant::now();
        match sell(&conn, &mut id, rows) {
            Ok(()) => times.push(started.elapsed()),
            Err(_) => {
                busy += 1;
                // The refused transaction may still be open.
                let _ = conn.execute_batch("ROLLBACK");
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    if let Some(reader) = reader {
        reader.join().expect("the reader ends");
    }
    times.sort();
    Measured { median: times[times.len() / 2], p99: times[times.len() * 99 / 100], busy }
}

fn sell(conn: &Connection, id: &mut i64, rows: usize) -> rusqlite::Result<()> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let mut insert = conn.prepare_cached("INSERT INTO sales VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    for row in 0..rows {
        let sold = *id + row as i64;
        insert.execute(rusqlite::params![
            sold,
            sold / 20,
            format!("2{:04}A", sold % 4000),
            "WHITE HANGING HEART T-LIGHT HOLDER",
            sold % 24,
            (sold % 1995) as f64 / 100.0,
            12_346 + sold % 4300,
            "2026-11-23 10:00:00"
        ])?;
    }
    conn.execute_batch("COMMIT")?;
    *id += rows as i64;
    Ok(())
}

/// Reads as the agent does: looks at the file's times, and reads what is new.
fn start_reader(path: &Path, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let mut source = SqliteSource::open(path).expect("opens");
    let path = path.to_owned();
    std::thread::spawn(move || {
        let (mut after, mut seen) = (Anchor::default(), None);
        while !stop.load(Ordering::Relaxed) {
            let now = SqliteDatabase::new(&path).fingerprint();
            if seen != Some(now) {
                seen = Some(now);
                while let Ok(Some(changes)) = source.read(after.clone(), 1000, 1 << 20) {
                    after = Anchor { seq: changes.last, digest: changes.digest };
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    })
}

fn main() {
    println!(
        "| journal mode | rows | bare median | captured | with reader | p99 bare | captured | with reader | SQLITE_BUSY |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for mode in ["WAL", "DELETE"] {
        for (rows, transactions) in [(1, 3000), (100, 2000)] {
            // Taken in turn, three times, so that a drifting machine does not favour one.
            let mut best: Vec<Option<Measured>> = vec![None, None, None];
            let mut busy = 0;
            for _ in 0..3 {
                for (index, capture) in [Capture::Bare, Capture::Captured, Capture::WithReader].into_iter().enumerate()
                {
                    let measured = measure(mode, capture, rows, transactions);
                    if capture == Capture::WithReader {
                        busy += measured.busy;
                    }
                    if best[index].as_ref().is_none_or(|best| measured.median < best.median) {
                        best[index] = Some(measured);
                    }
                }
            }
            let [Some(bare), Some(captured), Some(reader)] = best.as_slice() else { unreachable!("all were measured") };
            let ratio = |measured: &Measured| measured.median.as_secs_f64() / bare.median.as_secs_f64();
            let tail = |measured: &Measured| measured.p99.as_secs_f64() * 1e6;
            println!(
                "| {mode} | {rows} | {:.0} µs | {:.2}× | {:.2}× | {:.0} µs | {:.0} µs | {:.0} µs | {busy} of {} |",
                bare.median.as_secs_f64() * 1e6,
                ratio(captured),
                ratio(reader),
                tail(bare),
                tail(captured),
                tail(reader),
                3 * transactions,
            );
        }
    }
}
