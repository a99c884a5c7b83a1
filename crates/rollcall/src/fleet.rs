//! `rollcall fleet`

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use rollcall_hq::{HqConfig, Node};
use rollcall_sim::fleet::{self, FleetOptions, Invite};
use serde_json::json;

use crate::client::{Client, HqAddress};

#[derive(Debug, Args)]
pub(crate) struct FleetArgs {
    /// Simulated sites.
    #[arg(long, default_value_t = 64)]
    sites: usize,
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
    /// Also measure how long a change takes until SQL sees it.
    #[arg(long)]
    freshness: bool,
    /// Only say what each stage of the way costs by itself, on one core.
    #[arg(long)]
    stages: bool,
}

/// Starts an HQ in this process, drives the fleet against it, and prints what was measured as JSON.
pub(crate) async fn run(args: FleetArgs) -> anyhow::Result<ExitCode> {
    if args.stages {
        let stages = tokio::task::spawn_blocking(rollcall_sim::stages::measure).await??;
        println!("{}", serde_json::to_string_pretty(&stages)?);
        return Ok(ExitCode::SUCCESS);
    }
    let temporary = tempfile::tempdir()?;
    let data = args.dir.clone().unwrap_or_else(|| temporary.path().join("hq"));
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let node =
        Node::start(HqConfig { listen_sites: any, listen_http: any, listen_pg: any, ..HqConfig::new(data.clone()) })
            .await?;
    let node = Arc::new(node);
    let invite: Invite = {
        let node = node.clone();
        Arc::new(move |site| {
            let node = node.clone();
            Box::pin(async move { Ok(node.invite(&site, &Default::default()).await?.token) })
        })
    };
    let options = FleetOptions {
        sites: args.sites,
        rate: args.rate,
        batch_rows: args.batch_rows,
        duration: Duration::from_secs(args.seconds),
        in_flight: args.in_flight,
        progress: true,
    };
    let watch = args.freshness.then(|| tokio::spawn(watch_freshness(data.clone(), args.seconds)));
    let result = fleet::run(node.sites_address(), invite, options).await?;
    let freshness = match watch {
        Some(watch) => watch.await?,
        None => Vec::new(),
    };
    let checked = Instant::now();
    let check = check(data.clone()).await?;
    let mut out = serde_json::to_value(&result)?;
    out["rows_in_sql"] = check["rows"].clone();
    out["distinct_site_seq"] = check["distinct"].clone();
    out["check_seconds"] = json!(checked.elapsed().as_secs_f64());
    out["bytes_per_row_at_rest"] = json!(data_bytes(&data) as f64 / result.rows.max(1) as f64);
    if !freshness.is_empty() {
        out["freshness_p50_ms"] = json!(freshness[freshness.len() / 2]);
        out["freshness_p99_ms"] = json!(freshness[(freshness.len() * 99 / 100).min(freshness.len() - 1)]);
    }
    println!("{}", serde_json::to_string_pretty(&out)?);
    drop(temporary);
    let lost = check["rows"].as_u64() != Some(result.rows) || check["distinct"].as_u64() != Some(result.rows);
    if lost {
        eprintln!("error: HQ holds other rows than were confirmed");
    }
    Ok(ExitCode::from(if lost { crate::FAILURE } else { 0 }))
}

fn address(data: &std::path::Path) -> anyhow::Result<Client> {
    let address = HqAddress::of(data);
    Client::find(&address)
}

/// Counts what SQL sees: rows, and distinct (site, position).
async fn check(data: PathBuf) -> anyhow::Result<serde_json::Value> {
    tokio::task::spawn_blocking(move || {
        let sql = "SELECT sum(rows) AS rows, sum(positions) AS distinct FROM
                   (SELECT _site, count(*) AS rows, count(DISTINCT _seq) AS positions FROM history.sales GROUP BY _site)";
        let answer = address(&data)?.sql(sql, "json")?;
        let value: serde_json::Value = serde_json::from_slice(&answer.body)?;
        Ok(value["rows"][0].clone())
    })
    .await?
}

/// Asks again and again for the newest change SQL sees; its age, in milliseconds, is how stale an answer is. Sorted.
async fn watch_freshness(data: PathBuf, seconds: u64) -> Vec<f64> {
    let measured = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<f64>> {
        let client = address(&data).context("asking for freshness")?;
        let (mut ages, started) = (Vec::new(), Instant::now());
        while started.elapsed() < Duration::from_secs(seconds) {
            std::thread::sleep(Duration::from_millis(250));
            // Per site the newest row seen; the time between two of a site's batches is not staleness.
            let sql = "SELECT avg(extract(epoch FROM received) - extract(epoch FROM changed)) * 1000 AS lag,
                              extract(epoch FROM (now() - max(received))) * 1000 AS newest
                       FROM (SELECT _changed_at AS changed, _received_at AS received FROM history.sales
                             WHERE _received_at > now() - interval '2 seconds')";
            let Ok(answer) = client.sql(sql, "json") else { continue };
            let value: serde_json::Value = serde_json::from_slice(&answer.body)?;
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
