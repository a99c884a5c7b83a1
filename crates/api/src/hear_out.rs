//! Refused requests are read to their end before they are answered.
//!
//! HTTP/1 clients send all of a request, then read. Where HQ has answered and closed by then, they
//! find the connection broken, and nobody learns why the request was refused.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::header::EXPECT,
    middleware::Next,
    response::Response,
};
use futures::StreamExt;
use hyper::body::{Frame, SizeHint};

/// Longer ones are left, and so are slower ones.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
const TIME_MAX: Duration = Duration::from_secs(10);

/// A request's body that is still there when whoever answers has let go of it.
#[derive(Clone)]
struct Kept(Arc<Mutex<Body>>);

impl Kept {
    fn body(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}

/// See the module.
pub(crate) async fn hear_out(request: Request, next: Next) -> Response {
    // Such a client waits to be told before it sends.
    if request.headers().contains_key(EXPECT) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let kept = Kept(Arc::new(Mutex::new(body)));
    let response = next.run(Request::from_parts(parts, Body::new(kept.clone()))).await;
    if !response.status().is_success() {
        // It is answered all the same if that fails.
        let _ = tokio::time::timeout(TIME_MAX, drain(kept)).await;
    }
    response
}

async fn drain(kept: Kept) {
    let (mut data, mut bytes) = (Body::new(kept).into_data_stream(), 0);
    while let Some(Ok(chunk)) = data.next().await {
        bytes += chunk.len();
        if bytes > BODY_BYTES_MAX {
            return;
        }
    }
}
