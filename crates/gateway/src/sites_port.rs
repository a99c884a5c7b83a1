//! The port sites connect to: TLS and HTTP/2, with nothing between them and the services.
//!
//! A node holds tens of thousands of these connections and nearly all are silent nearly always, so
//! what one holds while it is silent is what a node is made of. Who calls is read once, from the
//! certificate that TLS checked.

use std::{
    convert::Infallible,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper::{Request, Response, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rollcall_wire::proto::{enrolment_server::EnrolmentServer, sites_server::SitesServer};
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tonic::{body::Body, codegen::Service};

use rollcall_registry::{Peer, Registry, doors::Places};

use crate::{
    authority::peer_of,
    capacity,
    gateway::{Gateway, GatewayParts},
    lines::Lines,
    tls_line::TlsLine,
};

/// Handshakes under way at once. When all sites come back together the others wait in line, so that
/// those which are served are served before they give up. Who says nothing takes no place.
const HANDSHAKES_MAX: usize = 256;
/// Of these, callers from one address take no more: others get theirs whatever one does.
const HANDSHAKES_OF_ONE: usize = 64;
/// A caller has said its first word by then …
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// … waits so long for a place at most: agents give up before …
const PLACE_TIMEOUT: Duration = Duration::from_secs(30);
/// … and has shaken hands so long after.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a word that came in part is looked at again.
const HELLO_PAUSE: Duration = Duration::from_millis(20);
/// A caller without a certificate enrols and goes; this is the longest it stays.
const STRANGER_STAYS: Duration = Duration::from_secs(60);
/// After so long without anything on a line, the system asks whether the other end is there: what
/// is lost before HTTP/2 began, HTTP/2 does not notice.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// A site not heard on this connection for so long is asked whether it is there …
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
/// … and has this long to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// Streams of one connection: control, data, a fetch, and room.
const STREAMS_MAX: u32 = 8;
/// Headers are sent once for a stream that lasts: a table of them would be kept for nothing.
const HEADER_TABLE_BYTES: u32 = 0;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// The longest message of a site.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// How long to wait before accepting again when the system gives no more sockets.
const NO_SOCKET_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection, as TLS and TCP tell.
#[derive(Debug)]
pub(crate) struct Caller {
    /// None while it has no certificate: then it may enrol, and nothing else.
    pub(crate) peer: Option<Arc<Peer>>,
    pub(crate) address: SocketAddr,
}

impl Caller {
    /// Who makes this call.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Option<&Self> {
        request.extensions().get::<Arc<Self>>().map(Arc::as_ref)
    }
}

struct Services {
    lines: Arc<Lines>,
    enrolment: EnrolmentServer<Gateway>,
    sites: SitesServer<Gateway>,
}

/// Serves sites until the node stops.
pub(crate) async fn serve(gateway: Gateway, listener: TcpListener) {
    let parts = gateway.0.clone();
    let services = Arc::new(Services {
        lines: Arc::default(),
        enrolment: EnrolmentServer::new(gateway.clone()),
        sites: SitesServer::new(gateway).max_decoding_message_size(MESSAGE_BYTES_MAX),
    });
    let handshakes =
        Arc::new(Handshakes { all: Semaphore::new(HANDSHAKES_MAX), of_one: Places::new(HANDSHAKES_OF_ONE) });
    let room = Arc::new(Semaphore::new(parts.capacity + capacity::CALLERS_BEYOND));
    loop {
        let accepted = tokio::select! {
            () = parts.registry.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let Ok(room) = room.clone().try_acquire_owned() else {
                    // At once, so that it calls another node: left to wait it would hold a file
                    // that the lake needs.
                    tracing::debug!(%address, "no room for a caller");
                    parts.doors.turned_away("the sites' port", address.ip());
                    continue;
                };
                let acceptor = Acceptor {
                    parts: parts.clone(),
                    services: services.clone(),
                    tls: parts.authority.sites_tls(),
                    handshakes: handshakes.clone(),
                };
                parts.registry.tasks.spawn(acceptor.meet(stream, address, room));
            }
            // It gave up while it waited.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                tracing::warn!(%error, "a site's connection could not be accepted");
                tokio::time::sleep(NO_SOCKET_PAUSE).await;
            }
        }
    }
}

/// What it takes to let a caller in.
struct Acceptor {
    parts: Arc<GatewayParts>,
    services: Arc<Services>,
    tls: Arc<ServerConfig>,
    handshakes: Arc<Handshakes>,
}

/// Places of handshakes.
struct Handshakes {
    all: Semaphore,
    of_one: Places,
}

impl Acceptor {
    /// Learns who calls, then serves it in a task of its own, which need not hold what only the
    /// meeting took.
    async fn meet(self, stream: TcpStream, address: SocketAddr, room: OwnedSemaphorePermit) {
        let shaken = tokio::select! {
            () = self.parts.registry.stop.cancelled() => return,
            shaken = self.shake(stream, address.ip()) => shaken,
        };
        let stream = match shaken {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%address, %error, "no TLS with a caller");
                return;
            }
        };
        let peer = stream.client_certificate().and_then(|der| peer_of(der.as_ref())).map(Arc::new);
        let caller = Arc::new(Caller { peer, address });
        let registry = self.parts.registry.clone();
        self.parts.registry.tasks.spawn(talk(registry, self.services, stream, caller, room));
    }

    async fn shake(&self, stream: TcpStream, address: IpAddr) -> io::Result<TlsLine<TcpStream>> {
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
        timeout(HELLO_TIMEOUT, hello(&stream)).await??;
        let of_one = self.handshakes.of_one.of(address);
        let place = async {
            let own = of_one.acquire().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((own, self.handshakes.all.acquire().await.map_err(io::Error::other)?))
        };
        let place = timeout(PLACE_TIMEOUT, place).await;
        if place.is_err() {
            self.parts.doors.turned_away("the sites' port", address);
        }
        let _place = place??;
        timeout(HANDSHAKE_TIMEOUT, TlsLine::accept(self.tls.clone(), stream)).await?
    }
}

/// Waits until the whole first record of TLS has come, without taking it. A socket that was just
/// accepted passes for readable, so that nothing less than a look tells whether the caller says
/// anything.
async fn hello(stream: &TcpStream) -> io::Result<()> {
    const HEAD: usize = 5;
    const HANDSHAKE: u8 = 22;
    /// RFC 8446, section 5.1.
    const RECORD_MAX: usize = 1 << 14;
    let mut word = [0; HEAD];
    loop {
        let come = stream.peek(&mut word).await?;
        if come == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if word[0] != HANDSHAKE {
            return Err(io::Error::new(ErrorKind::InvalidData, "no TLS"));
        }
        if come == HEAD {
            break;
        }
        tokio::time::sleep(HELLO_PAUSE).await;
    }
    let length = usize::from(u16::from_be_bytes([word[3], word[4]]));
    if length > RECORD_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "a record longer than TLS has"));
    }
    let mut record = vec![0; HEAD + length];
    while stream.peek(&mut record).await? < record.len() {
        tokio::time::sleep(HELLO_PAUSE).await;
    }
    Ok(())
}

/// Serves a connection as long as it lasts; until then it has its place in the `room`.
///
/// The connection is in a box of its own, and made before there is a future: an `async fn` would
/// have room for the stream as it came, for the connection as it is made, and for where it stays.
fn talk(
    registry: Arc<Registry>,
    services: Arc<Services>,
    stream: TlsLine<TcpStream>,
    caller: Arc<Caller>,
    room: OwnedSemaphorePermit,
) -> impl Future<Output = ()> {
    let address = caller.address;
    // A key that was replaced ends nobody's connection.
    let is_known = |peer: &&Arc<Peer>| {
        registry.roster.get(&peer.site).is_some_and(|record| record.key_hash.as_deref() == Some(peer.key_hash.as_str()))
    };
    let line = caller.peer.as_ref().filter(is_known).map(|peer| services.lines.open(peer.site.clone()));
    let service = service_fn(move |request| answer(services.clone(), caller.clone(), request));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .header_table_size(HEADER_TABLE_BYTES)
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = Box::pin(connection);
    async move {
        let stays = async {
            match &line {
                Some(line) => line.over().await,
                // A stranger, or one who enrolled at another node a moment ago and calls again.
                None => tokio::time::sleep(STRANGER_STAYS).await,
            }
        };
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stays => Ok(()),
            () = registry.stop.cancelled() => {
                // Its streams are told to end; then it ends.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%address, %error, "a site's connection ended");
        }
        drop(room);
    }
}

async fn answer(
    services: Arc<Services>,
    caller: Arc<Caller>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    const ENROLMENT: &str = "/rollcall.v1.Enrolment/";
    request.extensions_mut().insert(caller);
    // Boxed by the services themselves.
    let mut response = if request.uri().path().starts_with(ENROLMENT) {
        services.enrolment.clone().call(request).await?
    } else {
        services.sites.clone().call(request).await?
    };
    // What is called so is not put into the table that a line would keep of the headers it sent.
    response.headers_mut().values_mut().for_each(|value| value.set_sensitive(true));
    Ok(response)
}
