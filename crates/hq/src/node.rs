//! Starts a node and stops it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rollcall_alert::{AlertParts, Alerts, ArrivedSource, HqName, WatchSettings, last_sign};
use rollcall_answer::{Answers, reconcile, rulings};
use rollcall_api::{Api, ApiParts, Credentials, FIRST_PASSWORD_FILE, PgBackend, node_key, router, serve};
use rollcall_books::Books;
use rollcall_gateway::{Authority, Gateway, GatewayParts, GatherLimits, IN_DOUBT, Ingest, capacity};
use rollcall_lake::{Lake, VaultKey};
use rollcall_pg::PgPort;
use rollcall_publish::{Publisher, arrivals::arrived, shared_tables, tables};
use rollcall_query::Engine;
use rollcall_registry::{
    Health, HqClock, HqError, Registry, RegistryParts, doors::Doors, invitations::Invitation,
    roster::INVITATION_LIFE_SECONDS,
};
use rollcall_types::{SiteId, describe};
use rollcall_upkeep::{Tidying, scrub};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{config::HqConfig, for_sites::ForSites, maintenance, metrics};

/// The file in the data directory that says where the node listens.
pub const ENDPOINTS_FILE: &str = "endpoints.json";

/// The parts of a node that outlive its start, and what it takes to stop them.
pub struct Node {
    registry: Arc<Registry>,
    alerts: Arc<Alerts>,
    authority: Arc<Authority>,
    data: PathBuf,
    ports: Ports,
    first_password: Option<PathBuf>,
}

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
struct Ports {
    sites: SocketAddr,
    http: SocketAddr,
    pg: SocketAddr,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("ports", &self.ports).finish_non_exhaustive()
    }
}

/// A port of this node's own, which nobody is heard on yet. Of one that is taken the error names
/// the option for another.
fn bind(address: SocketAddr, what: &str, option: &str) -> Result<(TcpSocket, SocketAddr), HqError> {
    let failed = |source| HqError::Io {
        doing: format!("listening on {address} for {what} (another address: {option} ADDRESS)"),
        source,
    };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    #[cfg(unix)]
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((socket, bound))
}

/// A start waits so long for misfits to be counted.
const COUNTING_MAX: Duration = Duration::from_secs(5);
/// Callers that may wait to be accepted.
const BACKLOG: u32 = 1024;

fn listen(socket: TcpSocket, address: SocketAddr) -> Result<TcpListener, HqError> {
    socket.listen(BACKLOG).map_err(|source| HqError::Io { doing: format!("listening on {address}"), source })
}

/// What nobody but the operator of a lake has: how its secrets are opened, and who may come in.
struct Secrets {
    key: VaultKey,
    authority: Arc<Authority>,
    credentials: Arc<Credentials>,
    is_first_start: bool,
}

impl Secrets {
    async fn open(config: &HqConfig, lake: &Lake) -> Result<Self, HqError> {
        let key = node_key(&config.data, lake).await?;
        let vault = lake.vault(key.clone());
        let settles_after = if lake.is_shared() { maintenance::KNOWN_EVERYWHERE } else { Duration::ZERO };
        let authority = Arc::new(Authority::open(vault.clone(), config.certificate_life, settles_after).await?);
        let (credentials, is_first_start) = Credentials::open(&vault, &key, &config.data).await?;
        Ok(Self { key, authority, credentials: Arc::new(credentials), is_first_start })
    }
}

/// The parts, each made from those above it.
struct Parts {
    registry: Arc<Registry>,
    books: Arc<Books>,
    alerts: Arc<Alerts>,
    publisher: Arc<Publisher>,
    answers: Arc<Answers>,
    ingest: Arc<Ingest>,
    doors: Arc<Doors>,
    capacity: usize,
}

impl Parts {
    async fn build(config: &HqConfig, lake: Arc<Lake>, key: VaultKey) -> Result<Self, HqError> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (health, vault) = (Arc::new(Health::default()), lake.vault(key));
        let engine = Engine::new(lake.clone(), config.engine_limits(lake.is_shared())).map_err(HqError::query)?;
        let registry = Arc::new(Registry::new(RegistryParts {
            clock: HqClock::new(config.lake.clock.clone(), last_sign(&lake)),
            health: health.clone(),
            address: config.advertised(),
            behind_after: (config.beacon_interval * 4).max(Duration::from_secs(10)),
            tasks: tasks.clone(),
            stop: stop.clone(),
            lake,
        }));
        let books = Arc::new(Books::new(&registry));
        let alerts = Arc::new(
            Alerts::open(AlertParts {
                registry: registry.clone(),
                books: books.clone(),
                vault,
                hq: HqName { name: config.name.clone(), public_url: config.public_url.clone() },
                settings: WatchSettings {
                    silent_after: config.silent_after,
                    beacon_interval: config.beacon_interval,
                    red_and_page: config.red_and_page,
                },
            })
            .await?,
        );
        let publisher = Arc::new(Publisher::new(registry.clone(), Arc::new(engine), config.beacon_interval));
        let answers = Arc::new(Answers::new(alerts.clone(), publisher.clone(), config.manifest_interval()));
        Ok(Self {
            registry,
            books,
            alerts,
            publisher,
            answers,
            ingest: Arc::new(Ingest::new(GatherLimits::default(), health, tasks, stop)),
            doors: Arc::new(Doors::default()),
            capacity: capacity::of_this_process(),
        })
    }

    /// Takes up what the lake and the other nodes know.
    async fn restore(&self) -> Result<(), HqError> {
        let registry = &self.registry;
        if let Some(doubt) = registry.lake.doubt() {
            tracing::error!(what = ?doubt.what, "{IN_DOUBT}");
            registry.health.broken("rely on what it knows of people, rights and sites", &doubt.what.join("; "));
        }
        for (site, until, said_goodbye) in registry.restore_presence(last_sign(&registry.lake)) {
            self.alerts.watching.watch().restore_heard(&site, until, said_goodbye);
        }
        self.books.quarantine.look().await?;
        // The first question is told of values that do not fit, as every later one; of a lake where
        // counting takes long, some seconds later. No other node knows of this one yet.
        if tokio::time::timeout(COUNTING_MAX, self.answers.count_misfits()).await.is_err() {
            tracing::warn!("values that do not fit their column are not counted yet");
        }
        registry.catch_up().await?;
        registry.look_at_lease(self.alerts.leader().as_ref()).await?;
        tables::refresh(&self.publisher).await;
        Ok(())
    }

    /// Who has what was published.
    fn arrived(&self) -> ArrivedSource {
        let answers = self.answers.clone();
        Arc::new(move || arrived(&answers.publisher, &answers.arrivals()))
    }

    fn gateway(&self, config: &HqConfig, authority: &Arc<Authority>) -> Gateway {
        Gateway::new(GatewayParts {
            registry: self.registry.clone(),
            books: self.books.clone(),
            authority: authority.clone(),
            ingest: self.ingest.clone(),
            publications: Arc::new(ForSites(self.publisher.clone())),
            doors: self.doors.clone(),
            capacity: self.capacity,
            announce: config.announce.clone(),
            beacon_interval: config.beacon_interval,
            manifest_interval: config.manifest_interval(),
        })
    }

    fn api(&self, config: &HqConfig, secrets: &Secrets) -> Arc<Api> {
        Arc::new(Api::new(ApiParts {
            answers: self.answers.clone(),
            ingest: self.ingest.clone(),
            authority: secrets.authority.clone(),
            credentials: secrets.credentials.clone(),
            doors: self.doors.clone(),
            arrived: self.arrived(),
            metrics: metrics::of(&self.registry, &self.alerts, &self.publisher, &self.ingest, config.allocator),
            capacity: self.capacity,
            directory: config.data.clone(),
            address_for_sites: config.address_for_sites(),
        }))
    }

    /// Runs what the parts do beside their callers.
    fn run(&self, config: &HqConfig, secrets: &Secrets, api: &Arc<Api>) {
        let (registry, tasks) = (&self.registry, &self.registry.tasks);
        let (alerts, publisher, ingest) = (self.alerts.clone(), self.publisher.clone(), self.ingest.clone());
        let authority = secrets.authority.clone();
        tasks.spawn(registry.clone().run_relay());
        tasks.spawn(registry.clone().run_lease(alerts.leader()));
        tasks.spawn(maintenance::follow(
            registry.clone(),
            authority.clone(),
            secrets.credentials.clone(),
            alerts.clone(),
        ));
        tasks.spawn(maintenance::advance(registry.clone(), self.answers.clone()));
        tasks.spawn(maintenance::follow_publications(registry.clone(), self.books.clone(), publisher.clone()));
        tasks.spawn(maintenance::look_for_latecomers(
            alerts.clone(),
            publisher.clone(),
            self.doors.clone(),
            api.clone(),
        ));
        tasks.spawn(maintenance::remember(registry.clone(), publisher.clone(), authority, self.capacity));
        tasks.spawn(shared_tables::run(publisher));
        let tidying = Tidying {
            registry: registry.clone(),
            answers: self.answers.clone(),
            directory: config.data.clone(),
            limits: config.compaction,
        };
        tasks.spawn(tidying.run());
        tasks.spawn(scrub::run(registry.clone()));
        tasks.spawn(alerts.clone().run_watch(move || ingest.is_well()));
        tasks.spawn(alerts.run_notifiers(self.arrived()));
        tasks.spawn(reconcile::run(self.answers.clone()));
        tasks.spawn(rulings::run(self.answers.clone()));
    }
}

impl Node {
    /// Opens the lake and serves until [`Node::stop`].
    pub async fn start(mut config: HqConfig) -> Result<Self, HqError> {
        // Nothing is made where a port is taken.
        let (sites_socket, sites) = bind(config.listen_sites, "sites", "--listen-sites")?;
        let (pg_socket, pg) = bind(config.listen_pg, "clients of PostgreSQL", "--listen-pg")?;
        let (http_socket, http) = bind(config.listen_http, "the API", "--listen-http")?;
        config.listen_sites = sites;
        let ports = Ports { sites, http, pg };
        let lake = Arc::new(open_lake(&config).await?);
        let secrets = Secrets::open(&config, &lake).await?;
        let sites_listener = listen(sites_socket, sites)?;
        let (pg_listener, http_listener) = (listen(pg_socket, pg)?, listen(http_socket, http)?);
        let parts = Parts::build(&config, lake, secrets.key.clone()).await?;
        write_endpoints(&config, ports)?;
        parts.restore().await?;
        let (registry, api) = (parts.registry.clone(), parts.api(&config, &secrets));
        parts.run(&config, &secrets, &api);
        let tasks = registry.tasks.clone();
        tasks.spawn(parts.gateway(&config, &secrets.authority).serve(sites_listener));
        tasks.spawn(serve(api.clone(), router(api.clone()), http_listener));
        let pg_port = PgPort::new(Arc::new(PgBackend(api)), tasks.clone(), registry.stop.clone());
        tasks.spawn(pg_port.serve(pg_listener, pg));
        let first_password = secrets.is_first_start.then(|| config.data.join(FIRST_PASSWORD_FILE));
        let (alerts, authority) = (parts.alerts, secrets.authority);
        Ok(Self { registry, alerts, authority, data: config.data, ports, first_password })
    }

    /// Where sites connect.
    pub fn sites_address(&self) -> SocketAddr {
        self.ports.sites
    }

    /// Where the API is.
    pub fn http_address(&self) -> SocketAddr {
        self.ports.http
    }

    /// Where clients of PostgreSQL connect.
    pub fn pg_address(&self) -> SocketAddr {
        self.ports.pg
    }

    /// After a first start: the file with the admin's first password, which only its owner can
    /// read.
    pub fn first_password(&self) -> Option<&Path> {
        self.first_password.as_deref()
    }

    /// Resolves when this node was asked to stop over its API.
    pub async fn asked_to_stop(&self) {
        self.registry.stop.cancelled().await;
    }

    /// Counts on while this node does its regular work: what stands still for minutes hangs.
    pub fn beats(&self) -> u64 {
        self.registry.health.beats()
    }

    /// Why this node's directory is not the one it opened, if it is not: somebody exchanged it, and
    /// nothing can be written.
    pub fn exchanged(&self) -> Option<String> {
        self.registry.lake.exchanged()
    }

    /// How many sites are connected.
    pub fn connected(&self) -> usize {
        self.registry.sessions.count()
    }

    /// Invites a site; the same as `rollcall roster invite`.
    pub async fn invite(&self, site: &SiteId, attributes: &BTreeMap<String, String>) -> Result<Invitation, HqError> {
        let fingerprint = self.authority.fingerprint();
        let life = INVITATION_LIFE_SECONDS;
        self.registry.roster.invite(site, attributes, &fingerprint, life, "hq", self.registry.now()).await
    }

    /// Tells the sites, lets commits under way finish, stores what must be remembered.
    pub async fn stop(self) {
        const DRAIN_MAX: Duration = Duration::from_secs(10);
        self.registry.stop.cancel();
        self.registry.tasks.close();
        if tokio::time::timeout(DRAIN_MAX, self.registry.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        if let Err(error) = self.registry.store_presence(true).await {
            tracing::error!(error = %describe(&error), "sites' presence could not be stored");
        }
        self.alerts.stop().await;
        if self.registry.is_acting()
            && let Err(error) = self.registry.lake.note_heads().await
        {
            tracing::error!(error = %describe(&error), "how far the lake has come could not be noted");
        }
        self.registry.give_up_lease().await;
        // Last: who waits for the end of this node waits for that. In another's directory it is
        // another's.
        if self.exchanged().is_none()
            && let Err(error) = std::fs::remove_file(self.data.join(ENDPOINTS_FILE))
        {
            tracing::debug!(%error, "the file that says where the node listened could not be removed");
        }
    }
}

async fn open_lake(config: &HqConfig) -> Result<Lake, HqError> {
    let Some(store) = &config.store else {
        return Ok(Lake::open_directory(&config.data, config.lake.clone()).await?);
    };
    let made = std::fs::create_dir_all(&config.data);
    made.map_err(|source| HqError::Io { doing: format!("creating {}", config.data.display()), source })?;
    Ok(Lake::open_shared(store, config.lake.clone()).await?)
}

/// Tells the operator's commands on this machine where this node listens.
fn write_endpoints(config: &HqConfig, ports: Ports) -> Result<(), HqError> {
    let (path, Ports { sites, http, pg }) = (config.data.join(ENDPOINTS_FILE), ports);
    let text = serde_json::json!({"sites": sites, "http": http, "pg": pg}).to_string();
    std::fs::write(&path, text).map_err(|source| HqError::Io { doing: format!("writing {}", path.display()), source })
}
