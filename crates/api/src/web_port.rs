//! The API's port: places per address, time limits at every step, and who calls is known to what is
//! called.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Request},
    middleware::Next,
    response::Response,
};
use futures::StreamExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::Service;

use rollcall_registry::doors::Places;
use rollcall_runtime::Instant;

use crate::caller::App;

/// Connections at a time, and of one address. A proxy in front of HQ is one address.
const PLACES: usize = 1000;
const PLACES_OF_ONE: usize = 500;
/// The head of a request has come by then, also of the next one on a line.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// A body stops for no longer than this …
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// … and comes no slower than this after that time, bytes a second.
const PACE_MIN: u64 = 4096;
/// After a failure to accept, such as for want of open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves the API until the node stops.
pub async fn serve(api: App, router: Router, listener: TcpListener) {
    const ACCEPTING: &str = "take calls to the API";
    let (all, of_one, mut has_failed) = (Arc::new(Semaphore::new(PLACES)), Places::new(PLACES_OF_ONE), false);
    loop {
        let accepted = tokio::select! {
            () = api.registry.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => {
                if std::mem::take(&mut has_failed) {
                    api.registry.health.done(ACCEPTING);
                }
                accepted
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => continue,
            Err(error) => {
                has_failed = true;
                api.registry.health.failed(ACCEPTING, &error.to_string());
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let place = of_one.of(address.ip()).try_acquire_owned().ok().zip(all.clone().try_acquire_owned().ok());
        match place {
            Some(place) => drop(api.registry.tasks.spawn(talk(api.clone(), router.clone(), stream, address, place))),
            None => api.doors.turned_away("the API", address.ip()),
        }
    }
}

async fn talk(
    api: App,
    router: Router,
    stream: TcpStream,
    address: SocketAddr,
    place: (OwnedSemaphorePermit, OwnedSemaphorePermit),
) {
    // Answers are written in pieces; a small last one need not wait.
    let _ = stream.set_nodelay(true);
    let has_asked = Arc::new(AtomicBool::new(false));
    let asked = has_asked.clone();
    let service = tower::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(ConnectInfo(address));
        router.clone().call(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PAUSE_MAX).max_concurrent_streams(32);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    // Until the first word has come nothing else looks at the time.
    let says_nothing = async {
        tokio::time::sleep(HEADER_TIMEOUT).await;
        if has_asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = says_nothing => Ok(()),
        () = api.registry.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, error, "a connection to the API ended");
    }
    drop(place);
}

/// Breaks off requests whose body stops, or comes so slowly that it would have no end.
pub(crate) async fn hurry(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    // It counts from when somebody first asks for the body: before, the caller waits for HQ.
    let state = (body.into_data_stream(), None::<Instant>, 0_u64);
    let paced = futures::stream::unfold(Some(state), |state| async {
        let (mut body, begun, had) = state?;
        let begun = begun.unwrap_or_else(Instant::now);
        let slow = |what: &str| Err(std::io::Error::new(ErrorKind::TimedOut, format!("the request {what}")));
        let item: std::io::Result<Bytes> = match tokio::time::timeout(PAUSE_MAX, body.next()).await {
            Ok(None) => return None,
            Ok(Some(Ok(bytes))) => Ok(bytes),
            Ok(Some(Err(error))) => Err(std::io::Error::other(error)),
            Err(_) => slow("stopped"),
        };
        let had = had + item.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let expected = begun.elapsed().saturating_sub(PAUSE_MAX).as_secs() * PACE_MIN;
        let item = if item.is_ok() && had < expected { slow("comes too slowly") } else { item };
        let state = item.is_ok().then_some((body, Some(begun), had));
        Some((item, state))
    })
    // Whoever reads a body asks again behind its end.
    .fuse();
    next.run(Request::from_parts(head, Body::from_stream(paced))).await
}
