//! The fleet generator: many sites over the real protocol, with real TLS and real batches, but no
//! database behind them.

mod site;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use rollcall_site::Identity;
use rollcall_types::{ChainHash, Epoch, Seq, SiteId};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::site::{Backlog, FleetSite, enrol};

use crate::retail::{SalesGenerator, articles};

/// What the fleet does.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Sites.
    pub sites: usize,
    /// The number of the first: several fleets drive one HQ side by side.
    pub first_site: usize,
    /// So many of the sites, the last ones, were away and come back together …
    pub returning: usize,
    /// … five seconds after the start, with so many rows each.
    pub backlog_rows: u64,
    /// Rows a second by all sites together; 0 for as fast as HQ takes them.
    pub rate: u64,
    /// Rows in a batch.
    pub batch_rows: usize,
    /// How long to send.
    pub duration: Duration,
    /// Batches a site may have unconfirmed.
    pub in_flight: usize,
    /// Sales happened at any time of the last so many days; 0 for now.
    pub history_days: u32,
    /// So many sites of Washington fall silent half-way, without a goodbye.
    pub falling_silent: usize,
    /// Whether a progress bar is drawn.
    pub progress: bool,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct FleetResult {
    /// Sites that sent.
    pub sites: usize,
    /// Rows confirmed.
    pub rows: u64,
    /// How often a site lost its node and went on, at another or the same.
    pub lost_connections: u64,
    /// From the first batch to the last confirmation, seconds.
    pub seconds: f64,
    /// Confirmed rows a second.
    pub rows_per_second: f64,
    /// Median time from making a batch to its confirmation, milliseconds.
    pub ack_p50_ms: f64,
    /// The 99th percentile of it.
    pub ack_p99_ms: f64,
    /// From losing HQ to being welcomed again: median, 99th percentile, and the longest, seconds.
    pub return_seconds: Option<[f64; 3]>,
    /// Rows that returning sites brought, and how many of them a second were confirmed until the
    /// last.
    pub backlog: Option<Drained>,
    /// Bytes of batches after compression, per row.
    pub wire_bytes_per_row: f64,
    /// Processor seconds of this process (which may include HQ) while sending, per million rows.
    pub cpu_seconds_per_million_rows: f64,
    /// Versions of published tables that sites took.
    #[serde(skip)]
    pub taken: Vec<Taken>,
    /// Bytes of their rows after compression.
    pub taken_bytes: u64,
}

/// What returning sites brought.
#[derive(Debug, Clone, Serialize)]
pub struct Drained {
    /// Sites.
    pub sites: usize,
    /// Rows.
    pub rows: u64,
    /// From their return to the last confirmation of their rows, seconds.
    pub seconds: f64,
    /// Rows confirmed a second meanwhile.
    pub rows_per_second: f64,
    /// Rows of the other sites confirmed a second meanwhile, about.
    pub live_rows_per_second: f64,
}

/// A site took a version of a published table.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The table.
    pub table: String,
    /// The version.
    pub version: Seq,
    /// When, microseconds since the Unix epoch.
    pub at_micros: i64,
}

#[derive(Debug, Default)]
struct Counters {
    rows: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    taken_bytes: AtomicU64,
}

/// Sites that enrol at the same time.
const ENROLLING_MAX: usize = 64;

/// The invitation to use for a site with these attributes.
pub type Invite = Arc<
    dyn Fn(SiteId, BTreeMap<String, String>) -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<String>> + Send>>
        + Send
        + Sync,
>;

/// States that the sites are in, in turn, and their regions.
const STATES: [(&str, &str); 12] = [
    ("CA", "West"),
    ("WA", "West"),
    ("OR", "West"),
    ("NV", "West"),
    ("TX", "South"),
    ("FL", "South"),
    ("GA", "South"),
    ("NY", "North-East"),
    ("MA", "North-East"),
    ("PA", "North-East"),
    ("IL", "Mid-West"),
    ("OH", "Mid-West"),
];
const WASHINGTON: usize = 1;

fn attributes(number: usize) -> BTreeMap<String, String> {
    let (state, region) = STATES[number % STATES.len()];
    BTreeMap::from([("state".to_owned(), state.to_owned()), ("region".to_owned(), region.to_owned())])
}

/// Enrols the sites, sends, and waits until everything sent is confirmed.
pub async fn run(hq: Vec<SocketAddr>, invite: Invite, options: FleetOptions) -> anyhow::Result<FleetResult> {
    let hq = Arc::new(hq);
    let bar = progress(&options, options.sites as u64, "enrolling");
    let numbers = options.first_site..options.first_site + options.sites;
    let enrolled = stream::iter(numbers.clone()).map(|number| {
        let (hq, invite, bar) = (hq.clone(), invite.clone(), bar.clone());
        async move {
            let site = SiteId::new(&format!("fleet-{number:05}"))?;
            let token = invite(site.clone(), attributes(number)).await?;
            let identity = enrol(hq[number % hq.len()], &token).await.with_context(|| format!("enrolling {site}"));
            bar.inc(1);
            identity
        }
    });
    let identities: Vec<Identity> = enrolled.buffered(ENROLLING_MAX).try_collect().await?;
    bar.finish_and_clear();
    let counters = Arc::new(Counters::default());
    let catalogue = Arc::new(articles());
    let go = CancellationToken::new();
    let mut sites = tokio::task::JoinSet::new();
    let (ready, mut are_ready) = mpsc::channel(options.sites.max(1));
    for (number, identity) in numbers.zip(identities) {
        let generator = SalesGenerator::new(catalogue.clone(), number as u64);
        let live = options.sites.saturating_sub(options.returning);
        let is_returning = number >= options.first_site + live;
        let pace = (options.rate > 0 && !is_returning)
            .then(|| Duration::from_secs_f64((options.batch_rows * live) as f64 / options.rate as f64));
        let falls_silent = number % STATES.len() == WASHINGTON && number / STATES.len() < options.falling_silent;
        let rows = options.backlog_rows;
        let backlog = is_returning.then_some(Backlog { rows, done_after: Duration::ZERO });
        let options = options.clone();
        let site = FleetSite {
            hq: hq.clone(),
            identity,
            journal_id: uuid::Uuid::new_v4().to_string(),
            instance: uuid::Uuid::new_v4().to_string(),
            generator,
            pace,
            options,
            falls_silent,
            backlog,
            lost_for: Vec::new(),
            counters: counters.clone(),
            node: number,
            epoch: Epoch(0),
            confirmed: (Seq(0), ChainHash::default()),
            in_flight: VecDeque::new(),
            latencies: Vec::new(),
            lost_at: None,
            applied: BTreeMap::new(),
            settings: 0,
            taken: Vec::new(),
        };
        sites.spawn(site.run(ready.clone(), go.clone()));
    }
    drop(ready);
    for _ in 0..options.sites {
        tokio::select! {
            ready = are_ready.recv() => ready.context("a site did not get ready")?,
            Some(failed) = sites.join_next() => {
                failed?.context("a site did not get ready")?;
            }
        }
    }
    let (started, cpu_before) = (Instant::now(), cpu_seconds());
    go.cancel();
    let watch = tokio::spawn(show(options.clone(), counters.clone()));
    let (mut latencies, mut taken, mut lost_for) = (Vec::new(), Vec::new(), Vec::new());
    let (mut drained_after, mut drained_rows) = (Duration::ZERO, 0);
    while let Some(site) = sites.join_next().await {
        let site = site??;
        if let Some(backlog) = &site.backlog {
            drained_after = drained_after.max(backlog.done_after);
            drained_rows += site.confirmed.0.0;
        }
        lost_for.extend(site.lost_for);
        latencies.extend(site.latencies);
        taken.extend(site.taken);
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu_before);
    watch.abort();
    let rows = counters.rows.load(Ordering::Relaxed);
    latencies.sort_unstable();
    lost_for.sort_unstable();
    let of = |durations: &[Duration], share: f64| {
        let index = ((durations.len() as f64 - 1.0) * share).max(0.0) as usize;
        durations.get(index).map_or(0.0, Duration::as_secs_f64)
    };
    let percentile = |share: f64| of(&latencies, share) * 1000.0;
    let drained = (options.returning > 0).then(|| {
        let seconds_drained = drained_after.as_secs_f64();
        let live = (rows - drained_rows) as f64 / options.duration.as_secs_f64();
        let per_second = drained_rows as f64 / seconds_drained.max(1e-9);
        let sites = options.returning;
        Drained {
            sites,
            rows: drained_rows,
            seconds: seconds_drained,
            rows_per_second: per_second,
            live_rows_per_second: live,
        }
    });
    Ok(FleetResult {
        sites: options.sites,
        rows,
        lost_connections: counters.lost.load(Ordering::Relaxed),
        seconds,
        rows_per_second: rows as f64 / seconds,
        ack_p50_ms: percentile(0.5),
        ack_p99_ms: percentile(0.99),
        return_seconds: (!lost_for.is_empty()).then(|| [0.5, 0.99, 1.0].map(|share| of(&lost_for, share))),
        backlog: drained,
        wire_bytes_per_row: counters.bytes.load(Ordering::Relaxed) as f64 / rows.max(1) as f64,
        cpu_seconds_per_million_rows: cpu / (rows.max(1) as f64 / 1e6),
        taken,
        taken_bytes: counters.taken_bytes.load(Ordering::Relaxed),
    })
}

fn progress(options: &FleetOptions, length: u64, what: &'static str) -> ProgressBar {
    if !options.progress {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{msg} {bar:40} {pos}/{len}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_message(what)
}

async fn show(options: FleetOptions, counters: Arc<Counters>) {
    let seconds = options.duration.as_secs();
    let bar = progress(&options, seconds, "sending");
    let mut before = 0;
    for _ in 0..seconds * 2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let rows = counters.rows.load(Ordering::Relaxed);
        bar.inc(1);
        bar.set_message(format!("sending: {} rows/s confirmed, {rows} in all;", rows - before));
        before = rows;
    }
}

/// Processor time of this process so far, user and system.
pub fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

fn micros_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
