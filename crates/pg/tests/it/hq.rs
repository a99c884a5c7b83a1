//! The PostgreSQL port over a lake in a directory of its own, without the rest of an HQ.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{ArrayRef, StringArray},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use pgwire::api::auth::sasl::scram::gen_salted_password;
use rollcall_lake::{Lake, LakeOptions};
use rollcall_pg::{Backend, ChangeFailure, PgPort, PgUser};
use rollcall_query::{Cover, Engine, EngineLimits, Extras, NoCover, datafusion::sql::sqlparser::ast::Statement};
use rollcall_types::{Coverage, SiteId, SiteNumber};
use rustls::{ServerConfig, server::ResolvesServerCertUsingSni};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::wire::Client;

const USER: &str = "ada";
const PASSWORD: &str = "open sesame";
const SALT: &[u8] = b"a salt of a test";
/// As PostgreSQL's servers ask for it.
const ITERATIONS: usize = 4096;

/// A port with a lake behind it.
#[derive(Debug)]
pub(crate) struct Hq {
    address: SocketAddr,
    stop: CancellationToken,
    runtime: Option<Runtime>,
    untold: Arc<AtomicUsize>,
    changes: Arc<AtomicUsize>,
    lake: Arc<Lake>,
    _directory: TempDir,
}

impl Hq {
    /// Starts on a free port of loopback; `fill` puts rows into the lake first.
    pub(crate) fn start(sites: HashMap<SiteNumber, SiteId>, fill: impl AsyncFnOnce(&Lake)) -> Self {
        Self::start_with(sites, fill, Arc::new(NoCover))
    }

    /// The same, where `cover` says what answers are missing.
    pub(crate) fn start_with(
        sites: HashMap<SiteNumber, SiteId>,
        fill: impl AsyncFnOnce(&Lake),
        cover: Arc<dyn Cover>,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let untold = Arc::new(AtomicUsize::new(0));
        let counted = untold.clone();
        let changes = Arc::new(AtomicUsize::new(0));
        let counted_changes = changes.clone();
        let (address, lake) = runtime.block_on(async {
            let lake = Lake::open_directory(directory.path(), LakeOptions::default()).await.expect("opens");
            fill(&lake).await;
            let lake = Arc::new(lake);
            let engine = Engine::new(lake.clone(), EngineLimits::default()).expect("starts");
            let salted = gen_salted_password(PASSWORD, SALT, ITERATIONS);
            let backend = Arc::new(Alone {
                engine,
                tls: Arc::new(no_certificate()),
                sites: Arc::new(sites),
                salted,
                cover,
                untold: counted,
                changes: counted_changes,
            });
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("listens");
            let address = listener.local_addr().expect("an address");
            let port = PgPort::new(backend, tasks.clone(), stop.clone());
            tasks.spawn(port.serve(listener, address));
            (address, lake)
        });
        Self { address, stop, runtime: Some(runtime), untold, changes, lake, _directory: directory }
    }

    /// How many questions were not told what they miss.
    pub(crate) fn untold(&self) -> usize {
        self.untold.load(Ordering::Relaxed)
    }

    /// Does something to the lake behind the port.
    pub(crate) fn change_lake(&self, change: impl AsyncFnOnce(&Lake)) {
        self.runtime.as_ref().expect("it runs").block_on(change(&self.lake));
    }

    /// How many changes were asked for.
    pub(crate) fn changes(&self) -> usize {
        self.changes.load(Ordering::Relaxed)
    }

    /// A connection that has said nothing yet.
    pub(crate) fn dial(&self) -> TcpStream {
        TcpStream::connect(self.address).expect("HQ listens")
    }

    /// Counts ten times a second on the server's own threads, for as long as it runs.
    pub(crate) fn ticks(&self) -> Arc<AtomicUsize> {
        let ticks = Arc::new(AtomicUsize::new(0));
        let counted = ticks.clone();
        let runtime = self.runtime.as_ref().expect("it runs");
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        ticks
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Client {
        Client::start(Box::new(self.dial()), USER, Some(PASSWORD), "hq").expect("HQ welcomes")
    }
}

impl Drop for Hq {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Nobody asks for TLS on loopback.
fn no_certificate() -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()))
}

/// What stands for the rest of HQ: one user, who sees everything.
struct Alone {
    engine: Engine,
    tls: Arc<ServerConfig>,
    sites: Arc<HashMap<SiteNumber, SiteId>>,
    salted: Vec<u8>,
    cover: Arc<dyn Cover>,
    untold: Arc<AtomicUsize>,
    changes: Arc<AtomicUsize>,
}

#[async_trait]
impl Backend for Alone {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn tls(&self) -> Arc<ServerConfig> {
        self.tls.clone()
    }

    fn scram(&self, _: &str) -> Result<(Vec<u8>, Vec<u8>), String> {
        Ok((SALT.to_vec(), self.salted.clone()))
    }

    fn may_try(&self, _: &str, _: std::net::IpAddr) -> Result<(), String> {
        Ok(())
    }

    fn tried(&self, _: &str, _: std::net::IpAddr, _: bool) {}

    fn turned_away(&self, _: std::net::IpAddr) {}

    fn user(&self, _: &str) -> Option<PgUser> {
        Some(PgUser::default())
    }

    fn context(&self, user: &str) -> Option<Extras> {
        let (site_ids, cover) = (self.sites.clone(), self.cover.clone());
        Some(Extras { site_ids, cover, user: Some(user.to_owned()), ..Extras::default() })
    }

    fn coverage_rows(&self, coverage: &Coverage) -> RecordBatch {
        let sites = coverage.missing.iter().map(|entry| entry.site.as_str());
        let sites: ArrayRef = Arc::new(StringArray::from_iter_values(sites));
        RecordBatch::try_from_iter([("site", sites)]).expect("one column")
    }

    async fn record_untold(&self, _: &str, _: &str, _: &str) -> Result<(), String> {
        self.untold.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn change(&self, _: &Statement, _: &str) -> Result<(&'static str, usize), ChangeFailure> {
        self.changes.fetch_add(1, Ordering::Relaxed);
        Err(ChangeFailure { code: "0A000", text: "nothing is published here".into() })
    }
}
