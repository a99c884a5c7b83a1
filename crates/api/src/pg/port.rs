//! Listens, and gives each client a session.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pgwire::{
    api::{
        PgWireServerHandlers,
        auth::StartupHandler,
        cancel::CancelHandler,
        query::{ExtendedQueryHandler, SimpleQueryHandler},
    },
    tokio::{TlsAcceptor, process_socket},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    SharedBackend,
    cursor::KeptOfAll,
    protocol::Client,
    running::{Cancel, Running},
    session::Session,
    startup::{Numbers, Startup},
};

/// Default port of the PostgreSQL protocol.
pub const PG_PORT: u16 = 7432;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 200;
/// After a failure to accept, such as for want of open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The PostgreSQL port.
pub struct PgPort {
    backend: SharedBackend,
    tls: TlsAcceptor,
    running: Arc<Running>,
    numbers: Numbers,
    kept: KeptOfAll,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for PgPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PgPort")
    }
}

impl PgPort {
    /// A port that asks `backend`; its connections are `tasks`, and end at `stop`.
    pub fn new(
        backend: SharedBackend,
        tls: Arc<rustls::ServerConfig>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            backend,
            tls: TlsAcceptor::from(tls),
            running: Arc::default(),
            numbers: Arc::default(),
            kept: Arc::default(),
            tasks,
            stop,
        }
    }

    /// Serves until it is stopped. `address` is where it listens: beyond loopback clients need TLS.
    pub async fn serve(self, listener: TcpListener, address: SocketAddr) {
        let needs_tls = !address.ip().is_loopback();
        let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a PostgreSQL connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                tracing::warn!(%peer, "turned away: {CONNECTIONS_MAX} PostgreSQL connections are open");
                continue;
            };
            self.spawn(socket, peer, needs_tls, place);
        }
    }

    fn session(&self) -> Arc<Session> {
        // Without it the client asks without; the reason is in its first answer.
        let system = self.backend.engine().system().ok();
        Arc::new(Session::new(system, self.kept.clone()))
    }

    fn spawn(&self, socket: TcpStream, peer: SocketAddr, needs_tls: bool, place: tokio::sync::OwnedSemaphorePermit) {
        let session = self.session();
        let connection =
            Connection::new(self.backend.clone(), session, self.running.clone(), self.numbers.clone(), needs_tls);
        let (tls, stop) = (self.tls.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let _place = place;
            tokio::select! {
                () = stop.cancelled() => {}
                ended = process_socket(socket, Some(tls), connection) => {
                    if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "a PostgreSQL connection ended");
                    }
                }
            }
        });
    }
}

/// What one connection needs.
struct Connection {
    client: Arc<Client>,
    startup: Arc<Startup>,
    cancel: Arc<Cancel>,
}

impl Connection {
    fn new(
        backend: SharedBackend,
        session: Arc<Session>,
        running: Arc<Running>,
        numbers: Numbers,
        needs_tls: bool,
    ) -> Self {
        Self {
            startup: Arc::new(Startup::new(backend.clone(), session.clone(), numbers, needs_tls)),
            cancel: Arc::new(Cancel(running.clone())),
            client: Arc::new(Client::new(backend, session, running)),
        }
    }
}

impl PgWireServerHandlers for Connection {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        self.client.clone()
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        self.client.clone()
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        self.startup.clone()
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        self.cancel.clone()
    }
}
