//! `rollcall fleet`

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use rollcall_hq::{ENDPOINTS_FILE, HqConfig, Node};
use rollcall_sim::fleet::{self, FleetOptions, Invite, Taken};
use rollcall_types::{Seq, Timestamp};
use serde_json::json;

use crate::client::{Client, HqAddress};

#[derive(Debug, Args)]
pub(crate) struct FleetArgs {
    /// Simulated sites.
    #[arg(long, default_value_t = 64)]
    sites: usize,
    /// The number of the first: several fleets drive one HQ side by side.
    #[arg(long, default_value_t = 0)]
    first: usize,
    /// So many of the sites were away and come back together, with --backlog-rows each.
    #[arg(long, default_value_t = 0, value_name = "SITES")]
    returning: usize,
    /// Rows that each returning site brings.
    #[arg(long, default_value_t = 5000, value_name = "ROWS")]
    backlog_rows: u64,
    /// Rows a second of all sites together; 0 for as fast as HQ takes them.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Rows in a batch.
    #[arg(long, default_value_t = 500)]
    batch_rows: usize,
    /// How long to send.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Batches a site may have unconfirmed.
    #[arg(long, default_value_t = 4)]
    in_flight: usize,
    /// Where the HQ that is measured keeps its lake; a temporary directory if not given.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Drive the HQ that runs on this data directory in place of one in this process.
    #[arg(long, value_name = "DIR", conflicts_with = "dir")]
    against: Option<PathBuf>,
    /// Further nodes of the HQ given by --against, by their addresses for sites: sites are spread
    /// over all.
    #[arg(long, value_name = "HOST:PORT", requires = "against")]
    also: Vec<SocketAddr>,
    /// Sales happened at any time of the last so many days, not now.
    #[arg(long, default_value_t = 0, value_name = "DAYS")]
    history: u32,
    /// So many sites of Washington fall silent half-way.
    #[arg(long, default_value_t = 0, value_name = "SITES")]
    fall_silent: usize,
    /// Also measure how long a change takes until SQL sees it.
    #[arg(long)]
    freshness: bool,
    /// Only say what each stage of the way costs by itself, on one core.
    #[arg(long)]
    stages: bool,
}

fn invite_by(node: Arc<Node>) -> Invite {
    Arc::new(move |site, attributes| {
        let node = node.clone();
        Box::pin(async move { Ok(node.invite(&site, &attributes).await?.token) })
    })
}

fn invite_over_api(data: &Path) -> Invite {
    let data = data.to_owned();
    Arc::new(move |site, attributes| {
        let data = data.clone();
        let ask = move || {
            let body = json!({"new": true, "attributes": attributes});
            let answer: serde_json::Value = address(&data)?.post(&format!("/api/roster/{site}/invite"), &body)?;
            let token = answer["token"].as_str().map(str::to_owned);
            token.with_context(|| format!("HQ did not invite {site}: {answer}"))
        };
        Box::pin(async move { tokio::task::spawn_blocking(ask).await? })
    })
}

/// Where the HQ of a data directory listens for sites.
fn sites_address(data: &Path) -> anyhow::Result<SocketAddr> {
    let text = std::fs::read_to_string(data.join(ENDPOINTS_FILE)).context("is HQ running on that directory?")?;
    let endpoints: serde_json::Value = serde_json::from_str(&text)?;
    Ok(endpoints["sites"].as_str().context("no address for sites")?.parse()?)
}

/// Starts an HQ in this process, drives the fleet against it, and prints what was measured as JSON.
pub(crate) async fn run(args: FleetArgs) -> anyhow::Result<ExitCode> {
    if args.stages {
        let stages = tokio::task::spawn_blocking(rollcall_sim::stages::measure).await??;
        outln!("{}", serde_json::to_string_pretty(&stages)?);
        return Ok(ExitCode::SUCCESS);
    }
    let temporary = tempfile::tempdir()?;
    let own = args.dir.clone().unwrap_or_else(|| temporary.path().join("hq"));
    let data = args.against.clone().unwrap_or(own);
    let (sites, invite, _node) = match &args.against {
        Some(data) => (sites_address(data)?, invite_over_api(data), None),
        None => {
            let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
            let own = HqConfig::new(data.clone());
            let node = Node::start(HqConfig { listen_sites: any, listen_http: any, listen_pg: any, ..own }).await?;
            let node = Arc::new(node);
            (node.sites_address(), invite_by(node.clone()), Some(node))
        }
    };
    let options = FleetOptions {
        sites: args.sites,
        first_site: args.first,
        returning: args.returning,
        backlog_rows: args.backlog_rows,
        rate: args.rate,
        batch_rows: args.batch_rows,
        duration: Duration::from_secs(args.seconds),
        in_flight: args.in_flight,
        history_days: args.history,
        falling_silent: args.fall_silent,
        progress: true,
    };
    let watch = args.freshness.then(|| tokio::spawn(watch_freshness(data.clone(), args.seconds)));
    let nodes = std::iter::once(sites).chain(args.also).collect();
    let result = fleet::run(nodes, invite, options).await?;
    let freshness = match watch {
        Some(watch) => watch.await?,
        None => Vec::new(),
    };
    let arrivals = arrivals(data.clone(), result.taken.clone()).await.unwrap_or_default();
    let checked = Instant::now();
    let check = check(data.clone()).await?;
    let mut out = serde_json::to_value(&result)?;
    out["rows_in_sql"] = check["rows"].clone();
    out["distinct_site_seq"] = check["distinct"].clone();
    out["check_seconds"] = json!(checked.elapsed().as_secs_f64());
    out["bytes_per_row_at_rest"] = json!(data_bytes(&data) as f64 / result.rows.max(1) as f64);
    if !arrivals.is_empty() {
        out["published"] = json!(arrivals);
    }
    if !freshness.is_empty() {
        out["freshness_p50_ms"] = json!(freshness[freshness.len() / 2]);
        out["freshness_p99_ms"] = json!(freshness[(freshness.len() * 99 / 100).min(freshness.len() - 1)]);
    }
    outln!("{}", serde_json::to_string_pretty(&out)?);
    drop(temporary);
    // A running HQ may have had rows before.
    let lost = args.against.is_none() && check["rows"].as_u64() != Some(result.rows)
        || check["distinct"].as_u64() != check["rows"].as_u64();
    if lost {
        eprintln!("error: HQ holds other rows than were confirmed");
    }
    Ok(ExitCode::from(if lost { crate::FAILURE } else { 0 }))
}

fn address(data: &std::path::Path) -> anyhow::Result<Client> {
    let address = HqAddress::of(data);
    Client::find(&address)
}

/// For each version of a published table that sites took: how long after it was published they had
/// it.
async fn arrivals(data: PathBuf, taken: Vec<Taken>) -> anyhow::Result<Vec<serde_json::Value>> {
    #[derive(serde::Deserialize)]
    struct Publication {
        table: String,
        version: Seq,
        at: Timestamp,
    }
    let read = move || address(&data)?.get("/api/publications");
    let publications: Vec<Publication> = serde_json::from_str(&tokio::task::spawn_blocking(read).await??)?;
    let measured = publications.into_iter().map(|of| {
        let of_version = taken.iter().filter(|taken| taken.table == of.table && taken.version == of.version);
        let mut delays: Vec<f64> =
            of_version.map(|taken| (taken.at_micros - of.at.as_micros()) as f64 / 1000.0).collect();
        delays.sort_by(f64::total_cmp);
        let at = |share: f64| delays.get(((delays.len() as f64 - 1.0) * share).max(0.0) as usize).copied();
        json!({"table": of.table, "version": of.version, "sites": delays.len(),
               "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)})
    });
    Ok(measured.collect())
}

/// Counts what SQL sees: rows, and distinct (site, position).
async fn check(data: PathBuf) -> anyhow::Result<serde_json::Value> {
    tokio::task::spawn_blocking(move || {
        // Grouped, not counted distinct: that spills where there is much.
        let sql = "SELECT sum(rows) AS rows, count(*) AS distinct FROM
                   (SELECT count(*) AS rows FROM history.sales GROUP BY _site, _seq)";
        let (answer, _) = address(&data)?.sql(sql, "json")?;
        let value: serde_json::Value = serde_json::from_slice(&answer)?;
        Ok(value["rows"][0].clone())
    })
    .await?
}

/// Asks again and again for the newest change SQL sees; its age, in milliseconds, is how stale an
/// answer is. Sorted.
async fn watch_freshness(data: PathBuf, seconds: u64) -> Vec<f64> {
    let measured = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<f64>> {
        let client = address(&data).context("asking for freshness")?;
        let (mut ages, started) = (Vec::new(), Instant::now());
        while started.elapsed() < Duration::from_secs(seconds) {
            std::thread::sleep(Duration::from_millis(250));
            // Per site the newest row seen; the time between two of a site's batches is not
            // staleness.
            let sql = "SELECT avg(extract(epoch FROM received) - extract(epoch FROM changed)) * 1000 AS lag,
                              extract(epoch FROM (now() - max(received))) * 1000 AS newest
                       FROM (SELECT _changed_at AS changed, _received_at AS received FROM history.sales
                             WHERE _received_at > now() - interval '2 seconds')";
            let Ok((answer, _)) = client.sql(sql, "json") else { continue };
            let value: serde_json::Value = serde_json::from_slice(&answer)?;
            if let (Some(lag), Some(newest)) = (value["rows"][0]["lag"].as_f64(), value["rows"][0]["newest"].as_f64()) {
                ages.push(lag + newest);
            }
        }
        ages.sort_by(f64::total_cmp);
        Ok(ages)
    });
    measured.await.ok().and_then(Result::ok).unwrap_or_default()
}

/// Bytes of the data files the newest version of the sales table names.
fn data_bytes(data: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(data.join("tables/sales")) else { return 0 };
    let files = entries.flatten().filter(|entry| entry.path().extension().is_some_and(|ending| ending == "parquet"));
    files.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
