//! Listens, and gives each client a session.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::Duration,
};

use pgwire::tokio::TlsAcceptor;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    SharedBackend, connection::Connection, cursor::KeptOfAll, running::Running, session::Session, startup::Numbers,
};

/// Default port of the PostgreSQL protocol.
pub const PG_PORT: u16 = 7432;
/// Clients that are let in, at a time.
const CLIENTS_MAX: usize = 200;
/// Connections of whom it is not known yet whether they are let in. They have places of their own,
/// so that they cannot take those of the others.
const STRANGERS_MAX: usize = 100;
/// Of these, from one address. A pool of connections behind one may open that many at once.
const STRANGERS_OF_ONE: usize = 60;
/// After a failure to accept, such as for want of open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The PostgreSQL port.
pub struct PgPort {
    backend: SharedBackend,
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
    pub fn new(backend: SharedBackend, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let (running, numbers, kept) = (Arc::default(), Arc::default(), Arc::default());
        Self { backend, running, numbers, kept, tasks, stop }
    }

    /// Serves until it is stopped. `address` is where it listens: beyond loopback clients need TLS.
    pub async fn serve(self, listener: TcpListener, address: SocketAddr) {
        let needs_tls = !address.ip().is_loopback();
        let (places, strangers) = (Arc::new(Semaphore::new(CLIENTS_MAX)), Arc::new(Semaphore::new(STRANGERS_MAX)));
        let mut strangers_of: HashMap<IpAddr, Weak<Semaphore>> = HashMap::new();
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
            let of_one = strangers_of.entry(peer.ip().to_canonical()).or_default();
            let own = of_one.upgrade().unwrap_or_else(|| Arc::new(Semaphore::new(STRANGERS_OF_ONE)));
            *of_one = Arc::downgrade(&own);
            strangers_of.retain(|_, places| places.strong_count() > 0);
            let place = own.try_acquire_owned().and_then(|own| Ok((own, strangers.clone().try_acquire_owned()?)));
            let Ok(stranger) = place else {
                self.backend.turned_away(peer.ip());
                continue;
            };
            self.spawn(socket, peer, needs_tls, stranger, places.clone());
        }
    }

    fn session(&self) -> Arc<Session> {
        // Without it the client asks without; the reason is in its first answer.
        let system = self.backend.engine().system().ok();
        Arc::new(Session::new(system, self.kept.clone()))
    }

    fn spawn(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        needs_tls: bool,
        stranger: (OwnedSemaphorePermit, OwnedSemaphorePermit),
        places: Arc<Semaphore>,
    ) {
        let (session, running, numbers) = (self.session(), self.running.clone(), self.numbers.clone());
        let connection = Connection::new(self.backend.clone(), session, running, numbers, needs_tls, places);
        let (tls, stop) = (TlsAcceptor::from(self.backend.tls()), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                ended = connection.serve(socket, peer, tls, stranger) => {
                    if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "a PostgreSQL connection ended");
                    }
                }
            }
        });
    }
}
