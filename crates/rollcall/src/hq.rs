//! `rollcall hq`

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use rollcall_hq::{ENDPOINTS_FILE, HTTP_PORT, HqConfig, Node, PG_PORT};
use rollcall_lake::{CompactionLimits, LakeOptions, PutLayer, is_locked};
use rollcall_log::Supervisor;
use rollcall_roll::Thresholds;
use rollcall_sim::LostReplies;
use serde_json::json;

use crate::client::{Client, DEFAULT_DATA, HqAddress};

/// How often a node looks whether its directory is still the one it opened.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct HqArgs {
    #[command(subcommand)]
    command: Option<HqCommand>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum HqCommand {
    /// Stop the HQ of a directory on this machine, and wait until it has stopped.
    #[command(after_help = "Example:\n  rollcall hq stop --data /srv/rollcall")]
    Stop {
        /// HQ's data directory.
        #[arg(long, env = "ROLLCALL_DATA", value_name = "DIR", default_value = DEFAULT_DATA)]
        data: PathBuf,
    },
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Where the lake is kept; an empty directory becomes a new HQ. With --store, where this node
    /// keeps its key.
    #[arg(long, env = "ROLLCALL_DATA", value_name = "DIR", default_value = DEFAULT_DATA)]
    data: PathBuf,
    /// Keep the lake in an object store instead (s3://bucket/prefix; also gs:// and az://). Any
    /// number of nodes may use it.
    #[arg(long, value_name = "URL", env = "ROLLCALL_STORE")]
    store: Option<String>,
    /// Where sites reach this node, if that is not where it listens.
    #[arg(long, value_name = "HOST:PORT", env = "ROLLCALL_ADVERTISE")]
    advertise: Option<String>,
    /// Where sites connect.
    #[arg(long, default_value_t = SocketAddr::from(([127, 0, 0, 1], 7400)), env = "ROLLCALL_LISTEN_SITES")]
    listen_sites: SocketAddr,
    /// Where the API listens.
    #[arg(long, default_value_t = SocketAddr::from(([127, 0, 0, 1], HTTP_PORT)), env = "ROLLCALL_LISTEN_HTTP")]
    listen_http: SocketAddr,
    /// Where clients of PostgreSQL connect; beyond loopback they must use TLS.
    #[arg(long, default_value_t = SocketAddr::from(([127, 0, 0, 1], PG_PORT)), env = "ROLLCALL_LISTEN_PG")]
    listen_pg: SocketAddr,
    /// What people call this HQ, such as the company's name: it is in every message to people.
    #[arg(long, env = "ROLLCALL_NAME")]
    name: Option<String>,
    /// Where people reach this HQ, for links in messages.
    #[arg(long, value_name = "URL", env = "ROLLCALL_PUBLIC_URL")]
    public_url: Option<String>,
    /// How often sites say where they stand.
    #[arg(long, default_value_t = 30_000, value_name = "MS", env = "ROLLCALL_BEACON_INTERVAL_MS")]
    beacon_interval_ms: u64,
    /// Nothing heard for this long, in the site's business time, is silence.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", env = "ROLLCALL_SILENT_AFTER")]
    silent_after: u64,
    /// Nines of surprise at which a silence is an incident, as `rollcall replay --tune` proposes it
    /// from a history. With neither this nor --page, both are set anew each week by the alarm
    /// budget (`rollcall incidents budget`).
    #[arg(long)]
    red: Option<f64>,
    /// Nines at which people are called.
    #[arg(long)]
    page: Option<f64>,
    /// An address sites should know besides the one they have, ahead of a move; may be given
    /// several times.
    #[arg(long, value_name = "HOST:PORT")]
    announce: Vec<String>,
    /// Rehearse: lose the reply to this share of commits (0 to 1), after their effect.
    #[arg(long, hide = true, default_value_t = 0.0, value_name = "RATIO")]
    lose_replies: f64,
    /// Whether each data file is compared with its digest before a question first reads it (true or
    /// false); true if not given, and false with --store
    #[arg(long, value_name = "BOOL")]
    check_files: Option<bool>,
    /// Measure: leave the lake's files as ingest writes them.
    #[arg(long, hide = true)]
    no_compaction: bool,
}

pub(crate) async fn run(args: HqArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(HqCommand::Stop { data }) => stop(&data).await,
        None => serve(args.serve).await,
    }
}

/// How long a node may take to stop.
const STOP_MAX: Duration = Duration::from_secs(120);

/// Stops the HQ of a directory, and waits for its end.
async fn stop(data: &Path) -> anyhow::Result<ExitCode> {
    let is_over = || !data.join(ENDPOINTS_FILE).exists() && !is_locked(data);
    if is_over() {
        eprintln!("no HQ runs on {}", data.display());
        return Ok(ExitCode::SUCCESS);
    }
    let asked =
        Client::find(&HqAddress::of(data)).and_then(|client| client.post::<serde_json::Value>("/api/stop", &json!({})));
    if let Err(error) = asked {
        // One that was killed left its file; one that stops already hears nobody.
        if !is_locked(data) {
            eprintln!("no HQ runs on {} (the last one did not stop by itself)", data.display());
            return Ok(ExitCode::SUCCESS);
        }
        tracing::debug!(%error, "HQ could not be asked to stop");
    }
    let begun = Instant::now();
    while !is_over() {
        anyhow::ensure!(
            begun.elapsed() < STOP_MAX,
            "HQ on {} still runs after {} s",
            data.display(),
            STOP_MAX.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eprintln!("stopped");
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let red_and_page = red_and_page(args.red, args.page)?;
    if let Some(url) =
        args.public_url.as_ref().filter(|url| !url.starts_with("https://") && !url.starts_with("http://"))
    {
        anyhow::bail!("--public-url {url}: it must begin with https:// or http://");
    }
    let layer = (args.lose_replies > 0.0).then(|| {
        eprintln!("rehearsal: the replies to {} of commits are lost on purpose", args.lose_replies);
        Arc::new(LostReplies { ratio: args.lose_replies }) as Arc<dyn PutLayer>
    });
    let node = Node::start(HqConfig {
        listen_sites: args.listen_sites,
        listen_http: args.listen_http,
        listen_pg: args.listen_pg,
        beacon_interval: Duration::from_millis(args.beacon_interval_ms.max(100)),
        silent_after: Duration::from_secs(args.silent_after),
        red_and_page,
        announce: args.announce,
        name: args.name,
        public_url: args.public_url,
        store: args.store.clone(),
        advertise: args.advertise,
        lake: LakeOptions { layer, ..LakeOptions::default() },
        compaction: if args.no_compaction { CompactionLimits::NONE } else { CompactionLimits::default() },
        check_files: args.check_files,
        allocator: allocator(),
        ..HqConfig::new(args.data.clone())
    })
    .await?;
    if let Some(file) = node.first_password() {
        let place = args.store.unwrap_or_else(|| args.data.display().to_string());
        say_first_steps(&place, file, &args.data);
    }
    eprintln!(
        "sites connect to {}, clients of PostgreSQL to {}, the API is at http://{}",
        node.sites_address(),
        node.pg_address(),
        node.http_address()
    );
    let exchanged = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some(problem) = node.exchanged() {
                return problem;
            }
        }
    };
    let supervisor = Supervisor::from_env();
    supervisor.ready();
    let exchanged = tokio::select! {
        () = supervisor.keep_alive(|| node.beats()) => None,
        signal = wait_for_signal() => signal.map(|()| None)?,
        () = node.asked_to_stop() => None,
        problem = exchanged => Some(problem),
    };
    eprintln!("stopping");
    supervisor.stopping();
    node.stop().await;
    match exchanged {
        Some(problem) => anyhow::bail!("{problem}. Start HQ again when the directory is as it is to be"),
        None => {
            eprintln!("stopped");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// From when on silence is red, and a page; none if nothing is said of either.
fn red_and_page(red: Option<f64>, page: Option<f64>) -> anyhow::Result<Option<(f64, f64)>> {
    let (usual, is_said) = (Thresholds::default(), red.is_some() || page.is_some());
    let red = red.unwrap_or_else(|| usual.red.min(page.unwrap_or(usual.red)));
    let page = page.unwrap_or(usual.page.max(red));
    anyhow::ensure!(
        0.0 < red && red <= page,
        "--red {red} --page {page}: a page cannot come before red, and both are above 0"
    );
    Ok(is_said.then_some((red, page)))
}

/// What to do with an HQ that has just been made.
fn say_first_steps(place: &str, password: &Path, data: &Path) {
    let data = data.display();
    eprintln!("A new HQ in {place}.");
    eprintln!("The first password of user admin is in {}; set another:", password.display());
    eprintln!("  rollcall users set admin --role admin --password-stdin --data {data}");
    eprintln!("Invite a site with:\n  rollcall roster invite SITE --new --data {data}");
}

/// Ends when the process is asked to stop.
pub(crate) async fn wait_for_signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            interrupted = tokio::signal::ctrl_c() => interrupted,
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// How the memory is counted that this program allocates.
fn allocator() -> Option<rollcall_hq::Allocator> {
    #[cfg(feature = "jemalloc")]
    return Some(|| {
        tikv_jemalloc_ctl::epoch::advance().ok()?;
        u64::try_from(tikv_jemalloc_ctl::stats::allocated::read().ok()?).ok()
    });
    #[cfg(not(feature = "jemalloc"))]
    None
}
