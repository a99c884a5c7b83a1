//! Starts a node and stops it.

use rollcall_types::describe;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arrow_array::RecordBatch;

use rollcall_api::pg::PgPort;
use rollcall_lake::Lake;
use rollcall_query::datafusion::catalog::TableFunctionImpl;
use rollcall_query::{Engine, Extras, MakeTable};
use rollcall_types::{SiteId, Timestamp};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::{self, Credentials},
    authority::Authority,
    callers::Callers,
    capacity,
    config::HqConfig,
    coverage::{Covering, RosterView},
    coverage_function::CoverageFunction,
    doors::Doors,
    error::HqError,
    guesses::Guesses,
    health::Health,
    hq_clock::HqClock,
    http,
    ingest::{GatherLimits, Ingest},
    invitations::Invitation,
    lease::{self, Lease},
    ledger::{Ledger, RollEntry},
    maintenance,
    measures::Measures,
    misfits::MisfitCounts,
    notify::{self, Notifiers},
    pg,
    published::{self, Published, arrivals},
    quarantine::Quarantine,
    quotas::Quotas,
    reconcile::{self, Reconciliation},
    relay::{self, Relay},
    restated::{Restated, Restatements},
    roster::{INVITATION_LIFE_SECONDS, Roster, Sites},
    rulings, scrub,
    sessions::Sessions,
    settings::Settings,
    sites_port,
    standing::Standings,
    table_settings::{self, Proposed},
    tables,
    watching::{self, WatchParts, Watching},
    web_port,
};

/// The file in the data directory that says where the node listens.
pub const ENDPOINTS_FILE: &str = "endpoints.json";

/// What the parts of a node share.
pub(crate) struct Shared {
    pub(crate) config: HqConfig,
    pub(crate) lake: Arc<Lake>,
    /// HQ's time: the only clock that judges.
    pub(crate) clock: HqClock,
    /// What HQ itself must do.
    pub(crate) health: Arc<Health>,
    /// To and from the other nodes; none where there can be no others.
    pub(crate) relay: Option<Relay>,
    pub(crate) lease: Lease,
    /// How many sites this process can hold.
    pub(crate) capacity: usize,
    pub(crate) roster: Roster,
    pub(crate) ledger: Ledger,
    pub(crate) sessions: Sessions,
    pub(crate) ingest: Ingest,
    pub(crate) authority: Authority,
    pub(crate) credentials: Arc<Credentials>,
    /// Wrong passwords of late.
    pub(crate) guesses: Guesses,
    /// Who logged in.
    pub(crate) callers: Callers,
    /// Callers turned away of late.
    pub(crate) doors: Doors,
    /// Checking a password is slow and needs memory on purpose; only so many at a time.
    pub(crate) password_checks: Arc<tokio::sync::Semaphore>,
    /// And only so many wait for that.
    pub(crate) password_line: Arc<tokio::sync::Semaphore>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) engine: Engine,
    pub(crate) reconciliation: Arc<Reconciliation>,
    /// Tables that sites state again.
    pub(crate) restatements: tokio::sync::Mutex<Restatements>,
    /// Values that fit no column.
    pub(crate) misfits: Arc<MisfitCounts>,
    /// Batches of which not everything could be taken.
    pub(crate) quarantine: Quarantine,
    /// How much a site may have HQ keep.
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) measures: Measures,
    roster_view: Mutex<Option<Arc<RosterView>>>,
    pub(crate) standings: Standings,
    pub(crate) watching: Watching,
    pub(crate) notifiers: Notifiers,
    pub(crate) published: Published,
    pub(crate) settings: Settings,
    /// Event times that sites declared.
    pub(crate) proposed: Proposed,
}

impl Shared {
    /// HQ's time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Where a site may call besides the address it has: what the operator announces, and the other
    /// nodes.
    pub(crate) fn site_addresses(&self) -> Vec<String> {
        let mut addresses = self.config.announce.clone();
        addresses.extend(self.relay.as_ref().map(Relay::addresses).unwrap_or_default());
        addresses
    }

    /// Complete through less than this long ago counts as current.
    pub(crate) fn behind_after(&self) -> Duration {
        (self.config.beacon_interval * 4).max(Duration::from_secs(10))
    }

    pub(crate) fn roll(&self) -> Vec<RollEntry> {
        self.ledger.roll(&self.roster.all(), &self.watching, self.behind_after(), self.now())
    }

    /// The roster in the forms that queries need.
    pub(crate) fn roster_view(&self) -> Arc<RosterView> {
        let roster = self.roster.all();
        let mut known = self.roster_view.lock().unwrap_or_else(PoisonError::into_inner);
        match known.as_ref().filter(|view| Arc::ptr_eq(&view.roster, &roster)) {
            Some(view) => view.clone(),
            None => known.insert(Arc::new(RosterView::new(roster))).clone(),
        }
    }

    /// What goes with a question asked now by one who sees sites with these attributes only (all if
    /// there are none).
    pub(crate) fn extras(self: &Arc<Self>, sees: &BTreeMap<String, String>) -> Extras {
        let mut view = self.roster_view();
        let mut only = None;
        if !sees.is_empty() {
            let seen = view.roster.iter().filter(|(_, record)| record.has(sees));
            let seen: Sites = seen.map(|(id, record)| (id.clone(), record.clone())).collect();
            only = Some(Arc::new(seen.keys().map(ToString::to_string).collect()));
            // Cursors name sites by number, whoever asks.
            let (numbers, lives) = (view.numbers.clone(), view.lives.clone());
            let mut of_seen = RosterView::new(Arc::new(seen));
            (of_seen.numbers, of_seen.lives) = (numbers, lives);
            view = Arc::new(of_seen);
        }
        let covering = Arc::new(Covering {
            shared: self.clone(),
            view: view.clone(),
            settings: table_settings::all(&self.lake),
            standing: self.standings.get(self),
            asked_at: self.now(),
            misfits: self.misfits.told(),
            quarantined: self.quarantine.concerns(),
        });
        let mut tables = vec![];
        let sites = view.clone();
        let sites: MakeTable = Arc::new(move || sites.table.clone());
        tables.extend([("public", "sites", sites.clone()), ("rollcall", "sites", sites)]);
        let of_all = covering.clone();
        let of_all: MakeTable = Arc::new(move || tables::coverage(&of_all.of_everything()));
        tables.push(("rollcall", "coverage", of_all));
        let (shared, seen) = (self.clone(), view.roster.clone());
        let roll: MakeTable = Arc::new(move || {
            let mut roll = shared.roll();
            roll.retain(|entry| seen.contains_key(&entry.site));
            tables::roll(&roll)
        });
        tables.push(("rollcall", "roll", roll));
        if only.is_none() {
            let mut add = |name: &'static str, make: fn(&Shared) -> RecordBatch| {
                let shared = self.clone();
                let make: MakeTable = Arc::new(move || make(&shared));
                tables.push(("rollcall", name, make));
            };
            add("publications", |shared| tables::publications(&arrivals::arrived(shared, &arrivals::arrivals(shared))));
            add("arrivals", |shared| tables::arrivals(&arrivals::arrivals(shared)));
            add("incidents", |shared| tables::incidents(&watching::incidents(shared)));
            add("complete_through", |shared| tables::complete_through(&shared.ledger.tables_through()));
            add("cursors", |shared| tables::cursors(&shared.lake, &shared.roster.all()));
            add("columns", |shared| tables::columns(&shared.lake));
            add("manifests", |shared| tables::manifests(&shared.reconciliation.all()));
            add("uncaptured", |shared| tables::uncaptured(&shared.reconciliation.captured()));
            add("restated", |shared| tables::restated(&shared.restated()));
            add("lives", |shared| tables::lives(&shared.roster.all()));
        }
        let coverage = CoverageFunction { shared: Arc::downgrade(self), sees: sees.clone() };
        let functions: Vec<(_, Arc<dyn TableFunctionImpl>)> = vec![("coverage", Arc::new(coverage))];
        let (site_ids, lives) = (view.numbers.clone(), view.lives.clone());
        Extras { tables, site_ids, lives, cover: covering, only, functions, ..Extras::default() }
    }

    /// Tables that sites state again, or did.
    fn restated(&self) -> Vec<Restated> {
        // Counting is under way only for a moment; then what is stored says it.
        match self.restatements.try_lock() {
            Ok(known) => known.all().cloned().collect(),
            Err(_) => Restatements::restore(self.lake.state()).all().cloned().collect(),
        }
    }

    /// What goes with a question of HQ's own, of which only the rows matter that are current.
    pub(crate) fn current_rows(&self) -> Extras {
        let view = self.roster_view();
        Extras { site_ids: view.numbers.clone(), lives: view.lives.clone(), ..Extras::default() }
    }
}

/// A running node.
pub struct Node {
    shared: Arc<Shared>,
    sites: SocketAddr,
    http: SocketAddr,
    pg: SocketAddr,
    first_password: Option<PathBuf>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("sites", &self.sites).field("http", &self.http).finish_non_exhaustive()
    }
}

/// A port of this node's own, which nobody is heard on yet.
fn bind(address: SocketAddr, what: &str) -> Result<(TcpSocket, SocketAddr), HqError> {
    let failed = |source| HqError::Io { doing: format!("listening on {address} for {what}"), source };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    #[cfg(unix)]
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((socket, bound))
}

/// Callers that may wait to be accepted.
const BACKLOG: u32 = 1024;

fn listen(socket: TcpSocket, address: SocketAddr) -> Result<TcpListener, HqError> {
    socket.listen(BACKLOG).map_err(|source| HqError::Io { doing: format!("listening on {address}"), source })
}

impl Node {
    /// Opens the lake and serves until [`Node::stop`].
    pub async fn start(mut config: HqConfig) -> Result<Self, HqError> {
        // Nothing is made where a port is taken.
        let (sites_socket, sites) = bind(config.listen_sites, "sites")?;
        let (pg_socket, pg) = bind(config.listen_pg, "clients of PostgreSQL")?;
        let (http_socket, http) = bind(config.listen_http, "the API")?;
        config.listen_sites = sites;
        let lake = Arc::new(open_lake(&config).await?);
        let key = access::node_key(&config.data, &lake).await?;
        let vault = lake.vault(key.clone());
        let settles_after = if lake.is_shared() { maintenance::KNOWN_EVERYWHERE } else { Duration::ZERO };
        let authority = Authority::open(vault.clone(), config.certificate_life, settles_after).await?;
        let (credentials, is_first_start) = Credentials::open(&vault, &key, &config.data).await?;
        let sites_listener = listen(sites_socket, sites)?;
        let (pg_listener, http_listener) = (listen(pg_socket, pg)?, listen(http_socket, http)?);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let roster = Roster::new(lake.clone());
        let clock = HqClock::new(config.lake.clock.clone(), watching::last_sign(&lake));
        let health = Arc::new(Health::default());
        let watching = Watching::new(&WatchParts {
            lake: &lake,
            roster: roster.all(),
            rhythms: watching::known_rhythms(&lake).await,
            silent_after: config.silent_after,
            red_and_page: config.red_and_page,
            beacon_interval: config.beacon_interval,
            now: clock.now(),
        });
        let reconciliation = Arc::new(Reconciliation::default());
        let relay = lake.is_shared().then(|| Relay::new(lake.store().clone(), config.advertised()));
        let shared = Arc::new(Shared {
            clock,
            relay,
            lease: Lease::default(),
            capacity: capacity::of_this_process(),
            roster,
            watching,
            notifiers: Notifiers::open(vault).await?,
            published: Published::default(),
            settings: Settings::default(),
            proposed: Proposed::default(),
            ledger: Ledger::default(),
            reconciliation: reconciliation.clone(),
            restatements: tokio::sync::Mutex::default(),
            misfits: Arc::default(),
            quarantine: Quarantine::new(lake.clone(), reconciliation),
            quotas: Arc::new(Quotas::new(lake.clone())),
            measures: Measures::default(),
            roster_view: Mutex::default(),
            standings: Standings::default(),
            sessions: Sessions::default(),
            ingest: Ingest::new(GatherLimits::default(), health.clone(), tasks.clone(), stop.clone()),
            health,
            engine: Engine::new(lake.clone(), config.engine_limits(lake.is_shared()))?,
            credentials: Arc::new(credentials),
            callers: Callers::default(),
            guesses: Guesses::new(lake.clone()),
            doors: Doors::default(),
            password_checks: Arc::new(tokio::sync::Semaphore::new(2)),
            password_line: Arc::new(tokio::sync::Semaphore::new(64)),
            authority,
            tasks,
            stop,
            lake,
            config,
        });
        write_endpoints(&shared.config, sites, http, pg)?;
        if let Some(doubt) = shared.lake.doubt() {
            tracing::error!(what = ?doubt.what, "{}", access::IN_DOUBT);
            shared.health.broken("rely on what it knows of people, rights and sites", &doubt.what.join("; "));
        }
        maintenance::restore(&shared);
        shared.quarantine.look(&shared.roster.all()).await?;
        relay::catch_up(&shared).await?;
        lease::look(&shared).await?;
        published::refresh(&shared).await;
        shared.tasks.spawn(relay::run(shared.clone()));
        shared.tasks.spawn(lease::run(shared.clone()));
        shared.tasks.spawn(maintenance::follow(shared.clone()));
        shared.tasks.spawn(maintenance::run(shared.clone()));
        shared.tasks.spawn(maintenance::decide_on_edits(shared.clone()));
        shared.tasks.spawn(maintenance::keep_tidy(shared.clone()));
        shared.tasks.spawn(watching::run(shared.clone()));
        shared.tasks.spawn(scrub::run(shared.clone()));
        shared.tasks.spawn(notify::run(shared.clone()));
        shared.tasks.spawn(reconcile::run(shared.clone()));
        shared.tasks.spawn(rulings::run(shared.clone()));
        shared.tasks.spawn(sites_port::serve(shared.clone(), sites_listener));
        shared.tasks.spawn(web_port::serve(shared.clone(), http::router(shared.clone()), http_listener));
        let backend = Arc::new(pg::PgBackend(shared.clone()));
        let pg_port = PgPort::new(backend, shared.tasks.clone(), shared.stop.clone());
        shared.tasks.spawn(pg_port.serve(pg_listener, pg));
        let first_password = is_first_start.then(|| shared.config.data.join(access::FIRST_PASSWORD_FILE));
        Ok(Self { shared, sites, http, pg, first_password })
    }

    /// Where sites connect.
    pub fn sites_address(&self) -> SocketAddr {
        self.sites
    }

    /// Where the API is.
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// Where clients of PostgreSQL connect.
    pub fn pg_address(&self) -> SocketAddr {
        self.pg
    }

    /// After a first start: the file with the admin's first password, which only its owner can
    /// read.
    pub fn first_password(&self) -> Option<&Path> {
        self.first_password.as_deref()
    }

    /// Resolves when this node was asked to stop over its API.
    pub async fn asked_to_stop(&self) {
        self.shared.stop.cancelled().await;
    }

    /// Counts on while this node does its regular work: what stands still for minutes hangs.
    pub fn beats(&self) -> u64 {
        self.shared.health.beats()
    }

    /// Why this node's directory is not the one it opened, if it is not: somebody exchanged it, and
    /// nothing can be written.
    pub fn exchanged(&self) -> Option<String> {
        self.shared.lake.exchanged()
    }

    /// How many sites are connected.
    pub fn connected(&self) -> usize {
        self.shared.sessions.count()
    }

    /// Invites a site; the same as `rollcall roster invite`.
    pub async fn invite(
        &self,
        site: &SiteId,
        attributes: &std::collections::BTreeMap<String, String>,
    ) -> Result<Invitation, HqError> {
        let fingerprint = self.shared.authority.fingerprint();
        let life = INVITATION_LIFE_SECONDS;
        self.shared.roster.invite(site, attributes, &fingerprint, life, "hq", self.shared.now()).await
    }

    /// Tells the sites, lets commits under way finish, stores what must be remembered.
    pub async fn stop(self) {
        const DRAIN_MAX: Duration = Duration::from_secs(10);
        self.shared.stop.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(DRAIN_MAX, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        if let Err(error) = maintenance::remember(&self.shared, true).await {
            tracing::error!(error = %describe(&error), "sites' presence could not be stored");
        }
        watching::stop(&self.shared).await;
        if self.shared.is_acting()
            && let Err(error) = self.shared.lake.note_heads().await
        {
            tracing::error!(error = %describe(&error), "how far the lake has come could not be noted");
        }
        lease::give_up(&self.shared).await;
        // Last: who waits for the end of this node waits for that. In another's directory it is
        // another's.
        if self.exchanged().is_none()
            && let Err(error) = std::fs::remove_file(self.shared.config.data.join(ENDPOINTS_FILE))
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
fn write_endpoints(config: &HqConfig, sites: SocketAddr, http: SocketAddr, pg: SocketAddr) -> Result<(), HqError> {
    let path = config.data.join(ENDPOINTS_FILE);
    let text = serde_json::json!({"sites": sites, "http": http, "pg": pg}).to_string();
    std::fs::write(&path, text).map_err(|source| HqError::Io { doing: format!("writing {}", path.display()), source })
}
