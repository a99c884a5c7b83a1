//! `rollcall demo`: an HQ and a dozen stores on this machine, with trouble on the way.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use rollcall_capture::TableSpec;
use rollcall_hq::{HTTP_PORT, HqConfig, Node};
use rollcall_sim::{Relay, Till, create_store};
use rollcall_site::{Agent, AgentConfig, JoinOptions, join};
use rollcall_types::SiteId;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Client, HqAddress},
    hq::wait_for_signal,
    show::{RollLine, roll_table},
};

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// End by itself after this long; without it the demo runs until Ctrl-C.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// The stores of the demo: id, state, city, region, time zone.
const STORES: [(&str, &str, &str, &str, &str); 12] = [
    ("seattle-01", "WA", "Seattle", "West", "America/Los_Angeles"),
    ("seattle-02", "WA", "Seattle", "West", "America/Los_Angeles"),
    ("tacoma-01", "WA", "Tacoma", "West", "America/Los_Angeles"),
    ("spokane-01", "WA", "Spokane", "West", "America/Los_Angeles"),
    ("portland-01", "OR", "Portland", "West", "America/Los_Angeles"),
    ("boise-01", "ID", "Boise", "West", "America/Boise"),
    ("denver-01", "CO", "Denver", "Mountain", "America/Denver"),
    ("austin-01", "TX", "Austin", "South", "America/Chicago"),
    ("chicago-01", "IL", "Chicago", "Central", "America/Chicago"),
    ("boston-01", "MA", "Boston", "East", "America/New_York"),
    ("newyork-01", "NY", "New York", "East", "America/New_York"),
    ("miami-01", "FL", "Miami", "East", "America/New_York"),
];
const TRIPPED: &str = "tacoma-01";
const CLOSED: &str = "boston-01";

const BEACON: Duration = Duration::from_secs(1);
const SILENT_AFTER: Duration = Duration::from_secs(10);
const CALM: Duration = Duration::from_secs(12);
const STORM: Duration = Duration::from_secs(25);

struct Store {
    id: &'static str,
    database: PathBuf,
    relay: Relay,
    stop: CancellationToken,
    agent: tokio::task::JoinHandle<()>,
    till: Option<Till>,
}

pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("hq");
    let node = start_hq(&data).await?;
    eprintln!("HQ is up. Opening {} stores, each with its own database and till …", STORES.len());
    let mut stores = Vec::new();
    for (number, store) in STORES.iter().enumerate() {
        stores.push(open_store(&node, directory.path(), store, number as u64).await?);
    }
    print_what_to_try(&node, &data);
    let story = tell(&data, &mut stores);
    let limit = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = story => result?,
        signal = wait_for_signal() => signal?,
        () = limit => {}
    }
    eprintln!("\nclosing the stores …");
    close(stores).await;
    node.stop().await;
    eprintln!("done; everything the demo wrote is removed");
    Ok(ExitCode::SUCCESS)
}

/// HQ on its usual ports, or on free ones if those are taken.
async fn start_hq(data: &Path) -> anyhow::Result<Node> {
    let usual = HqConfig { beacon_interval: BEACON, silent_after: SILENT_AFTER, ..HqConfig::new(data.to_owned()) };
    match Node::start(usual.clone()).await {
        Ok(node) => Ok(node),
        Err(rollcall_hq::HqError::Io { .. }) => {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            eprintln!("port 7400 or {HTTP_PORT} is taken; using free ones");
            Ok(Node::start(HqConfig { listen_sites: any, listen_http: any, listen_pg: any, ..usual }).await?)
        }
        Err(error) => Err(error.into()),
    }
}

async fn open_store(
    node: &Node,
    directory: &Path,
    (id, state, city, region, zone): &(&'static str, &str, &str, &str, &str),
    number: u64,
) -> anyhow::Result<Store> {
    let database = directory.join(format!("{id}.sqlite"));
    let path = database.clone();
    tokio::task::spawn_blocking(move || create_store(&path, 300, number)).await??;
    // The till sells before, while and after the agent joins.
    let till = Till::start(&database, Duration::from_millis(400), number)?;
    let attributes = [("state", *state), ("city", city), ("region", region), ("tz", zone), ("hours", "24/7")];
    let attributes: BTreeMap<String, String> =
        attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let invitation = node.invite(&SiteId::new(id)?, &attributes).await?;
    let relay = Relay::start(node.sites_address()).await?;
    let table = |name: &str| TableSpec { table: name.to_owned(), excluded: Vec::new() };
    join(&JoinOptions {
        contact: None,
        token: invitation.token,
        hq_addresses: vec![relay.address().to_string()],
        database: database.clone(),
        state: None,
        replaces_site: false,
        tables: vec![table("sales"), table("items")],
        event_times: [("sales".to_owned(), "sold_at".to_owned())].into(),
    })
    .await
    .with_context(|| format!("joining {id}"))?;
    let stop = CancellationToken::new();
    let agent = start_agent(&database, &stop)?;
    Ok(Store { id, database, relay, stop, agent, till: Some(till) })
}

fn start_agent(database: &Path, stop: &CancellationToken) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let config = AgentConfig { retry_delay_max: Duration::from_secs(3), ..AgentConfig::new(database.to_owned()) };
    let run = Agent::open(config)?.run(stop.clone());
    Ok(tokio::spawn(async move {
        if let Err(error) = run.await {
            tracing::error!(%error, "an agent ended");
        }
    }))
}

fn print_what_to_try(node: &Node, data: &Path) {
    let data = data.display();
    eprintln!("\nThe stores are selling. In another terminal, try:");
    eprintln!("  rollcall call --data {data}");
    eprintln!(
        "  rollcall sql --data {data} \"SELECT s.state, count(*) AS sales, sum(qty*price) AS turnover FROM sales JOIN sites s ON s.id = sales._site GROUP BY 1 ORDER BY 1\""
    );
    eprintln!(
        "  rollcall sql --data {data} \"SELECT _site, sku, _op, stock FROM history.items ORDER BY _received_at DESC LIMIT 10\""
    );
    if let Some(password) = node.first_password() {
        let (pg, password) = (node.pg_address(), password.display());
        eprintln!("  PGPASSWORD=$(cat {password}) psql -h {} -p {} -U admin hq", pg.ip(), pg.port());
    }
    eprintln!("  (rollcall is this program; with cargo: cargo run --bin rollcall -- …)");
    eprintln!("The API is at http://{}\n", node.http_address());
}

/// Calm, then trouble, then calm again; for ever.
async fn tell(data: &Path, stores: &mut [Store]) -> anyhow::Result<()> {
    loop {
        watch(data, "all stores are open", CALM).await?;
        let tripped = stores.iter().position(|store| store.id == TRIPPED).context("the tripped store")?;
        let closed = stores.iter().position(|store| store.id == CLOSED).context("the closed store")?;
        stores[tripped].relay.cut();
        stores[closed].shut().await;
        eprintln!("\n>>> someone trips over the router of {TRIPPED}; its till sells on. {CLOSED} closes for the day.");
        watch(data, &format!("{TRIPPED} cut off, {CLOSED} closed"), STORM).await?;
        stores[tripped].relay.mend();
        stores[closed].open()?;
        eprintln!("\n>>> the router of {TRIPPED} is plugged in again, and {CLOSED} opens.");
        watch(data, "catching up", CALM).await?;
    }
}

impl Store {
    /// Closes for the day: the till stops, the agent says goodbye.
    async fn shut(&mut self) {
        if let Some(till) = self.till.take() {
            let closed = tokio::task::spawn_blocking(move || till.close()).await;
            tracing::debug!(?closed, "till closed");
        }
        self.stop.cancel();
        // The agent writes its last notes before it ends.
        if let Err(error) = (&mut self.agent).await {
            tracing::error!(%error, "an agent crashed");
        }
    }

    fn open(&mut self) -> anyhow::Result<()> {
        self.till = Some(Till::start(&self.database, Duration::from_millis(400), 99)?);
        self.stop = CancellationToken::new();
        self.agent = start_agent(&self.database, &self.stop)?;
        Ok(())
    }
}

/// Shows the roll at the beginning and the end of a while.
async fn watch(data: &Path, what: &str, time: Duration) -> anyhow::Result<()> {
    tokio::time::sleep(time).await;
    let address = HqAddress::of(data);
    let (roll, (answer, summary)) = tokio::task::spawn_blocking(move || {
        let client = Client::find(&address)?;
        let sql = "SELECT count(*) AS sales, sum(qty*price) AS turnover FROM sales";
        anyhow::Ok((client.get("/api/roll")?, client.sql(sql, "table")?))
    })
    .await??;
    let lines: Vec<RollLine> = serde_json::from_str(&roll)?;
    outln!("\nThe roll ({what}):\n{}", roll_table(&lines));
    outln!(
        "SELECT count(*) AS sales, sum(qty*price) AS turnover FROM sales;\n{}",
        String::from_utf8_lossy(&answer).trim_end()
    );
    outln!("coverage: {summary}");
    Ok(())
}

async fn close(stores: Vec<Store>) {
    for store in &stores {
        store.stop.cancel();
    }
    for mut store in stores {
        store.shut().await;
    }
}
