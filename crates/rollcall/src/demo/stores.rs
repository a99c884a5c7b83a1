//! The stores of the demo: each a database, a till that sells, a line and an agent.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use rollcall_capture::TableSpec;
use rollcall_hq::Node;
use rollcall_sim::{Relay, Till, create_store};
use rollcall_site::{Agent, AgentConfig, JoinOptions, join};
use rollcall_types::SiteId;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The store that closes in the story.
pub(super) const CLOSED: &str = "boston-01";
/// Id, state, city, region, time zone.
pub(super) const STORES: [(&str, &str, &str, &str, &str); 12] = [
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

/// A till sells about once in this time.
const SELLS_EVERY: Duration = Duration::from_millis(400);

#[derive(Default)]
pub(super) struct Stores(Vec<Store>);

pub(super) struct Store {
    id: &'static str,
    pub(super) database: PathBuf,
    pub(super) relay: Relay,
    stop: CancellationToken,
    agent: Option<JoinHandle<()>>,
    till: Option<Till>,
}

impl Stores {
    pub(super) async fn open_all(&mut self, node: &Node, directory: &Path) -> anyhow::Result<()> {
        for (number, store) in STORES.iter().enumerate() {
            let opened = Store::open_new(node, directory, store, number as u64).await?;
            self.0.push(opened);
        }
        Ok(())
    }

    pub(super) fn get(&mut self, id: &str) -> anyhow::Result<&mut Store> {
        self.0.iter_mut().find(|store| store.id == id).with_context(|| format!("there is no store {id}"))
    }

    pub(super) async fn close(mut self) {
        self.0.iter().for_each(|store| store.stop.cancel());
        for store in &mut self.0 {
            store.shut().await;
        }
    }
}

impl Store {
    async fn open_new(
        node: &Node,
        directory: &Path,
        (id, state, city, region, zone): &(&'static str, &str, &str, &str, &str),
        number: u64,
    ) -> anyhow::Result<Self> {
        let database = directory.join(format!("{id}.sqlite"));
        let path = database.clone();
        tokio::task::spawn_blocking(move || create_store(&path, 300, number)).await??;
        let attributes = [("state", *state), ("city", city), ("region", region), ("tz", zone), ("hours", "24/7")];
        let mut attributes: BTreeMap<String, String> =
            attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        if *id == CLOSED {
            // Of one that says it is always open a goodbye would be its agent's alone.
            attributes.remove("hours");
        }
        let invitation = node.invite(&SiteId::new(id)?, &attributes).await?;
        let relay = Relay::start(node.sites_address()).await?;
        let table = |name: &str| TableSpec { table: name.to_owned(), excluded: Vec::new() };
        // The till sells before, while and after the agent joins.
        let till = Till::start(&database, SELLS_EVERY, number)?;
        let options = JoinOptions {
            contact: None,
            token: invitation.token,
            hq_addresses: vec![relay.address().to_string()],
            database: database.clone(),
            state: None,
            replaces_site: false,
            included: Vec::new(),
            tables: vec![table("sales"), table("items")],
            event_times: [("sales".to_owned(), "sold_at".to_owned())].into(),
        };
        join(&options).await.with_context(|| format!("joining {id}"))?;
        let mut store = Self { id, database, relay, stop: CancellationToken::new(), agent: None, till: Some(till) };
        store.start_agent()?;
        Ok(store)
    }

    fn start_agent(&mut self) -> anyhow::Result<()> {
        self.stop = CancellationToken::new();
        let config = AgentConfig { retry_delay_max: Duration::from_secs(2), ..AgentConfig::new(self.database.clone()) };
        let run = Agent::open(config)?.run(self.stop.clone());
        self.agent = Some(tokio::spawn(async move {
            if let Err(error) = run.await {
                tracing::error!(%error, "an agent ended");
            }
        }));
        Ok(())
    }

    /// Closes for the day: the till stops, the agent says goodbye. May be called again.
    pub(super) async fn shut(&mut self) {
        if let Some(till) = self.till.take() {
            let closed = tokio::task::spawn_blocking(move || till.close()).await;
            tracing::debug!(?closed, "till closed");
        }
        self.stop.cancel();
        // The agent writes its last notes before it ends.
        if let Some(agent) = self.agent.take()
            && let Err(error) = agent.await
        {
            tracing::error!(%error, "an agent crashed");
        }
    }

    pub(super) fn open(&mut self) -> anyhow::Result<()> {
        self.till = Some(Till::start(&self.database, SELLS_EVERY, 99)?);
        self.start_agent()
    }
}
