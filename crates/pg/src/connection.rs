//! One client's connection, from its first byte to its last.
//!
//! The messages are read here and not by the library's own loop: that one goes on reading after a
//! login was refused, and takes the next message for a question of somebody who is let in.

use std::{io, net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, SinkExt, StreamExt};
use pgwire::{
    api::{ClientInfo, NoopHandler, PgWireConnectionState, query::ExtendedQueryHandler},
    error::{ErrorInfo, PgWireError},
    messages::{PgWireBackendMessage, PgWireFrontendMessage},
    tokio::{
        TlsAcceptor,
        server::{MaybeTls, PgWireMessageServerCodec, negotiate_tls, process_error, process_message},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::codec::Framed;

use super::{
    SharedBackend,
    answer::notice,
    protocol::Client,
    running::{Cancel, Running},
    session::Session,
    startup::{Numbers, Startup, fatal},
};

/// Who is not let in by then is sent away.
const LOGIN_WITHIN: Duration = Duration::from_secs(15);
/// A client that was sent away has this long to read why.
const READS_WITHIN: Duration = Duration::from_secs(1);

type Socket = Framed<MaybeTls, PgWireMessageServerCodec<<Client as ExtendedQueryHandler>::Statement>>;

/// What a connection needs.
pub(super) struct Connection {
    client: Arc<Client>,
    startup: Arc<Startup>,
    cancel: Arc<Cancel>,
    nothing: Arc<NoopHandler>,
    /// Places of clients that are let in.
    places: Arc<Semaphore>,
}

impl Connection {
    pub(super) fn new(
        backend: SharedBackend,
        session: Arc<Session>,
        running: Arc<Running>,
        numbers: Numbers,
        needs_tls: bool,
        places: Arc<Semaphore>,
    ) -> Self {
        Self {
            startup: Arc::new(Startup::new(backend.clone(), session.clone(), numbers, needs_tls)),
            cancel: Arc::new(Cancel(running.clone())),
            client: Arc::new(Client::new(backend, session, running)),
            nothing: Arc::new(NoopHandler),
            places,
        }
    }

    /// Lets a client in, and answers it until it goes. `stranger` is its place until it is let in.
    pub(super) async fn serve(
        self,
        socket: TcpStream,
        peer: SocketAddr,
        tls: TlsAcceptor,
        stranger: impl Send,
    ) -> io::Result<()> {
        let login_by = Instant::now() + LOGIN_WITHIN;
        let Ok(negotiated) = timeout_at(login_by, negotiate_tls(socket, Some(tls))).await else { return Ok(()) };
        let Some(mut socket) = negotiated? else { return Ok(()) };
        if socket.is_secure() && !socket.read_buffer().is_empty() {
            // It came before TLS did, from whoever is between; it must not pass for something that
            // came by TLS.
            tracing::warn!(%peer, "a PostgreSQL client sent more before TLS than its wish for it");
            return Ok(());
        }
        let Some(_place) = self.let_in(&mut socket, login_by).await? else { return Ok(()) };
        drop(stranger);
        while let Some(message) = next(&mut socket).await? {
            if matches!(message, PgWireFrontendMessage::Terminate(_)) || !self.take(&mut socket, message).await? {
                break;
            }
        }
        Ok(())
    }

    /// The client's place, once it is let in.
    async fn let_in(&self, socket: &mut Socket, login_by: Instant) -> io::Result<Option<OwnedSemaphorePermit>> {
        loop {
            let Ok(Ok(Some(message))) = timeout_at(login_by, next(socket)).await else { return Ok(None) };
            if !self.take(socket, message).await? {
                return Ok(None);
            }
            match socket.state() {
                PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress => {}
                PgWireConnectionState::ReadyForQuery => break,
                // Nothing else follows upon a login.
                _ => return Ok(None),
            }
        }
        match self.places.clone().try_acquire_owned() {
            Ok(place) => Ok(Some(place)),
            Err(_) => {
                let text = "too many clients are connected; try again later".to_owned();
                refuse(socket, ErrorInfo::from(fatal("53300", text))).await?;
                Ok(None)
            }
        }
    }

    /// Answers one message; false if the connection ends with that.
    async fn take(&self, socket: &mut Socket, message: PgWireFrontendMessage) -> io::Result<bool> {
        let is_starting = matches!(
            socket.state(),
            PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress
        );
        let is_cancel = matches!(message, PgWireFrontendMessage::CancelRequest(_));
        let waits_for_sync = match socket.state() {
            PgWireConnectionState::CopyInProgress(is_extended) => is_extended,
            _ => message.is_extended_query(),
        };
        let taken = process_message(
            message,
            socket,
            self.startup.clone(),
            self.client.clone(),
            self.client.clone(),
            self.nothing.clone(),
            self.cancel.clone(),
        );
        let Err(error) = taken.await else { return Ok(!is_cancel) };
        let info = ErrorInfo::from(error);
        if is_starting || info.is_fatal() {
            refuse(socket, info).await?;
            return Ok(false);
        }
        if waits_for_sync && self.client.asking.session.state().has_changed {
            let text = "a change before this, sent with it, took effect and stays".to_owned();
            notice(socket, "WARNING", "25001", text, None).await.map_err(io::Error::other)?;
        }
        process_error(socket, PgWireError::UserError(Box::new(info)), waits_for_sync).await?;
        Ok(true)
    }
}

/// The next message; none at the end, which a message that is none is too. The library panics at
/// some of those.
async fn next(socket: &mut Socket) -> io::Result<Option<PgWireFrontendMessage>> {
    match AssertUnwindSafe(socket.next()).catch_unwind().await {
        Ok(Some(Ok(message))) => Ok(Some(message)),
        Ok(None) | Ok(Some(Err(PgWireError::IoError(_)))) => Ok(None),
        Ok(Some(Err(_))) | Err(_) => {
            let text = "that is no message of the protocol".to_owned();
            refuse(socket, ErrorInfo::from(fatal("08P01", text))).await?;
            Ok(None)
        }
    }
}

/// Says why, and nothing more; what the client still sends is thrown away.
async fn refuse(socket: &mut Socket, why: ErrorInfo) -> io::Result<()> {
    socket.send(PgWireBackendMessage::ErrorResponse(why.into())).await?;
    let stream = socket.get_mut();
    // A socket that is closed with bytes unread takes back what was said.
    let _ = timeout(READS_WITHIN, async {
        stream.shutdown().await?;
        let mut thrown = [0; 4096];
        while stream.read(&mut thrown).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
    Ok(())
}
