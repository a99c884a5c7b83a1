//! A till: a program of the store's own that sells, and knows nothing of Rollcall.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use rusqlite::Connection;

use crate::retail::{articles, pick};

/// Creates a store's database with some sales in it.
pub fn create_store(path: &Path, sales: usize, seed: u64) -> anyhow::Result<()> {
    let mut conn = Connection::open(path)?;
    conn.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE items (sku TEXT PRIMARY KEY, description TEXT NOT NULL, price DECIMAL(10,2) NOT NULL, stock INTEGER NOT NULL);
         CREATE TABLE sales (id INTEGER PRIMARY KEY, sku TEXT NOT NULL REFERENCES items, qty INTEGER NOT NULL,
                             price DECIMAL(10,2) NOT NULL, sold_at DATETIME NOT NULL);",
    )?;
    let mut random = SmallRng::seed_from_u64(seed);
    let articles = articles();
    let transaction = conn.transaction()?;
    for article in articles.iter().take(200) {
        transaction.execute(
            "INSERT INTO items VALUES (?1, ?2, ?3, 1000)",
            (&article.sku, &article.description, article.price as f64 / 100.0),
        )?;
    }
    for _ in 0..sales {
        sell(&transaction, &articles, &mut random)?;
    }
    transaction.commit()?;
    Ok(())
}

/// How many sales a store's own file has.
pub fn count_sales(path: &Path) -> anyhow::Result<u64> {
    let count: i64 = Connection::open(path)?.query_row("SELECT count(*) FROM sales", [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

fn sell(conn: &Connection, articles: &[crate::retail::Article], random: &mut SmallRng) -> rusqlite::Result<()> {
    let article = pick(&articles[..200], random);
    let qty = random.random_range(1..6_i64);
    conn.prepare_cached(
        "INSERT INTO sales (sku, qty, price, sold_at) VALUES (?1, ?2, ?3, strftime('%Y-%m-%d %H:%M:%fZ', 'now'))",
    )?
    .execute((&article.sku, qty, article.price as f64 / 100.0))?;
    conn.prepare_cached("UPDATE items SET stock = stock - ?2 WHERE sku = ?1")?.execute((&article.sku, qty))?;
    Ok(())
}

/// A running till, in a thread of its own.
#[derive(Debug)]
pub struct Till {
    stop: Arc<AtomicBool>,
    sold: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Till {
    /// Sells about once every `pause`, each sale in a transaction of its own.
    pub fn start(path: &Path, pause: Duration, seed: u64) -> anyhow::Result<Self> {
        let conn = Connection::open(path)?;
        conn.busy_timeout(Duration::from_secs(5))?;
        let (stop, sold) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), sold.clone());
        let thread = std::thread::spawn(move || {
            let mut conn = conn;
            let articles = articles();
            let mut random = SmallRng::seed_from_u64(seed);
            while !stopped.load(Ordering::Relaxed) {
                let transaction = conn.transaction()?;
                sell(&transaction, &articles, &mut random)?;
                transaction.commit()?;
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(pause.mul_f64(random.random_range(0.5..1.5)));
            }
            Ok(())
        });
        Ok(Self { stop, sold, thread })
    }

    /// Sales made by this till.
    pub fn sold(&self) -> u64 {
        self.sold.load(Ordering::Relaxed)
    }

    /// Closes the till after its current sale.
    pub fn close(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the till crashed"))??;
        Ok(self.sold.load(Ordering::Relaxed))
    }
}
