//! Answers under way: bounded in time, and stopped when their client asks for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use datafusion_postgres::pgwire::{
    api::{ConnectionManager, cancel::CancelHandler},
    error::{ErrorInfo, PgWireError, PgWireResult},
    messages::cancel::CancelRequest,
};
use futures::{Stream, StreamExt};
use rollcall_query::QueryError;
use tokio_util::sync::CancellationToken;

use super::failed;

/// The number and the secret by which a connection's answers are cancelled.
pub(super) type CancelKey = (i32, Vec<u8>);

/// The answers under way.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<HashMap<CancelKey, CancellationToken>>);

impl Running {
    fn all(&self) -> MutexGuard<'_, HashMap<CancelKey, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of an answer that begins on a connection.
    pub(super) fn begin(self: &Arc<Self>, connection: CancelKey) -> Answering {
        let cancelled = CancellationToken::new();
        self.all().insert(connection.clone(), cancelled.clone());
        Answering { running: self.clone(), connection, cancelled }
    }
}

/// One answer under way; forgotten when it is dropped.
#[derive(Debug)]
pub(super) struct Answering {
    running: Arc<Running>,
    connection: CancelKey,
    cancelled: CancellationToken,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.running.all().remove(&self.connection);
    }
}

/// Stops what runs on a connection when a client shows its key.
pub(super) struct Cancel {
    pub(super) manager: Arc<ConnectionManager>,
    pub(super) running: Arc<Running>,
}

#[async_trait]
impl CancelHandler for Cancel {
    async fn on_cancel_request(&self, request: CancelRequest) {
        // The manager stops the planning; rows are found later, and are ours to stop.
        if self.manager.cancel(request.pid, &request.secret_key).await
            && let Some(cancelled) = self.running.all().get(&(request.pid, request.secret_key.to_bytes().to_vec()))
        {
            cancelled.cancel();
        }
    }
}

/// Ends an answer with an error when no row of it is found for this long, or when its client cancels it.
pub(super) fn bounded<T: Send + 'static>(
    rows: impl Stream<Item = PgWireResult<T>> + Send + Unpin + 'static,
    longest: Duration,
    answering: Answering,
) -> impl Stream<Item = PgWireResult<T>> + Send + 'static {
    futures::stream::unfold(Some((rows, answering)), move |state| async move {
        let (mut rows, answering) = state?;
        tokio::select! {
            row = tokio::time::timeout(longest, rows.next()) => match row {
                Ok(row) => Some((row?, Some((rows, answering)))),
                Err(_) => {
                    let text = format!("the query found no row for {} s and was cut", longest.as_secs());
                    Some((Err(failed(&QueryError::Limit(text))), None))
                }
            },
            () = answering.cancelled.cancelled() => Some((Err(cancelled()), None)),
        }
    })
}

fn cancelled() -> PgWireError {
    let text = "canceling statement due to user request".to_owned();
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), "57014".to_owned(), text)))
}
