//! `rollcall demo`: an HQ and a dozen stores on this machine, and what happens to them in two
//! minutes.

mod screen;
mod stores;
mod story;

use std::{net::SocketAddr, path::Path, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use rollcall_hq::{HTTP_PORT, HqConfig, Node};

use self::{
    screen::{Feed, draw},
    stores::{STORES, Stores},
};
use crate::{
    client::{Client, HqAddress},
    hq::wait_for_signal,
};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rollcall demo\n  rollcall demo --plain | tee demo.txt")]
pub(crate) struct DemoArgs {
    /// End by itself after this long; without it the demo runs until Ctrl-C.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// End when the story is told.
    #[arg(long)]
    once: bool,
    /// No live screen: what happens, line by line, as where standard output is no terminal.
    #[arg(long)]
    plain: bool,
}

const BEACON: Duration = Duration::from_secs(1);
const SILENT_AFTER: Duration = Duration::from_secs(8);

/// Runs until Ctrl-C, at whatever moment that comes: what was begun is closed and removed.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let directory = tempfile::tempdir()?;
    let feed = Feed::new(args.plain);
    let limit = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let mut stage = Stage::default();
    let played = tokio::select! {
        played = play(directory.path(), args.once, &feed, &mut stage) => played,
        signal = wait_for_signal() => signal.map_err(Into::into),
        () = limit => Ok(()),
    };
    feed.end();
    eprintln!("closing the stores …");
    stage.close().await;
    drop(directory);
    eprintln!("done; everything the demo wrote is removed");
    played.map(|()| ExitCode::SUCCESS)
}

/// What was begun, and has to be closed.
#[derive(Default)]
struct Stage {
    nodes: Vec<Arc<Node>>,
    stores: Option<Stores>,
}

impl Stage {
    async fn close(self) {
        if let Some(stores) = self.stores {
            stores.close().await;
        }
        for node in self.nodes {
            // Whoever drew the screen has let go of it by now.
            if let Ok(node) = Arc::try_unwrap(node) {
                node.stop().await;
            }
        }
    }
}

async fn play(directory: &Path, once: bool, feed: &Arc<Feed>, stage: &mut Stage) -> anyhow::Result<()> {
    let data = directory.join("hq");
    eprintln!("starting HQ and {} stores, each with its own database and till …", STORES.len());
    let node = Arc::new(start_hq(&data).await?);
    stage.nodes.push(node.clone());
    // What the name of a store will lead to that nobody told of the move.
    let old = Arc::new(Node::start(on_free_ports(HqConfig::new(directory.join("old")))).await?);
    stage.nodes.push(old.clone());
    let client = Arc::new(Client::find(&HqAddress::of(&data))?);
    story::set_desk(&client).await?;
    let stores = stage.stores.insert(Stores::default());
    stores.open_all(&node, directory).await?;
    feed.try_these(what_to_try(&node, &data));
    drop(node);
    let drawing = draw(client.clone(), feed.clone());
    tokio::select! {
        told = story::tell(&client, feed, stores, old.sites_address()) => told?,
        drawn = drawing => return drawn,
    }
    if once {
        return Ok(());
    }
    feed.say("The stores go on selling until Ctrl-C.".to_owned());
    draw(client, feed.clone()).await
}

/// HQ on its usual ports, or on free ones if those are taken.
async fn start_hq(data: &Path) -> anyhow::Result<Node> {
    let usual = HqConfig {
        beacon_interval: BEACON,
        silent_after: SILENT_AFTER,
        name: Some("Contoso".to_owned()),
        ..HqConfig::new(data.to_owned())
    };
    match Node::start(usual.clone()).await {
        Ok(node) => Ok(node),
        Err(rollcall_hq::HqError::Io { .. }) => {
            eprintln!("port 7400, 7432 or {HTTP_PORT} is taken; using free ones");
            Ok(Node::start(on_free_ports(usual)).await?)
        }
        Err(error) => Err(error.into()),
    }
}

fn on_free_ports(config: HqConfig) -> HqConfig {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    HqConfig { listen_sites: any, listen_http: any, listen_pg: any, ..config }
}

/// Commands for another terminal, to be copied.
fn what_to_try(node: &Node, data: &Path) -> Vec<String> {
    let program = std::env::current_exe().map_or_else(|_| "rollcall".to_owned(), |path| path.display().to_string());
    let (data, pg) = (data.display(), node.pg_address());
    let mut lines = vec![
        format!("export ROLLCALL_DATA={data}; alias rollcall={program}"),
        "rollcall call --all".to_owned(),
        "rollcall incidents --all".to_owned(),
        "rollcall sql \"SELECT s.city, sum(qty*price) FROM sales JOIN sites s ON s.id = sales._site GROUP BY 1\""
            .to_owned(),
    ];
    if let Some(password) = node.first_password() {
        lines.push(format!(
            "PGPASSWORD=$(cat {}) psql -h {} -p {} -U admin hq",
            password.display(),
            pg.ip(),
            pg.port()
        ));
    }
    lines
}
