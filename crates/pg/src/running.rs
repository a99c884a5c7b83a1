//! What runs on connections, to be stopped when a client asks for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use pgwire::{
    api::{ClientInfo, cancel::CancelHandler},
    error::PgWireError,
    messages::cancel::CancelRequest,
};
use rollcall_query::datafusion::{
    arrow::datatypes::DataType,
    common::ScalarValue,
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
};
use tokio_util::sync::CancellationToken;

use super::{answer::user_of, error::error};

/// The number and the secret by which a connection's statements are cancelled.
type CancelKey = (i32, Vec<u8>);

/// The statements under way, by their connections.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<HashMap<CancelKey, Asked>>);

/// Whose statement it is, and what stops it.
#[derive(Debug)]
struct Asked {
    user: String,
    cancelled: CancellationToken,
}

impl Running {
    fn all(&self) -> MutexGuard<'_, HashMap<CancelKey, Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a statement that begins on a client's connection.
    pub(super) fn begin(self: &Arc<Self>, client: &(impl ClientInfo + ?Sized)) -> Statement {
        let (number, secret) = client.pid_and_secret_key();
        let connection = (number, secret.to_bytes().to_vec());
        let cancelled = CancellationToken::new();
        self.all().insert(connection.clone(), Asked { user: user_of(client), cancelled: cancelled.clone() });
        Statement { running: self.clone(), connection, cancelled }
    }

    /// Stops what the client's user runs on a connection, by its number; false if it is nothing of
    /// theirs.
    pub(super) fn cancel(&self, number: i32, client: &(impl ClientInfo + ?Sized)) -> bool {
        let (all, user) = (self.all(), user_of(client));
        let theirs = all.iter().find(|((known, _), asked)| *known == number && asked.user == user);
        if let Some((_, asked)) = theirs {
            asked.cancelled.cancel();
        }
        theirs.is_some()
    }
}

/// `pg_backend_pid()` as this client asks it.
pub(super) fn backend_pid(client: &(impl ClientInfo + ?Sized)) -> ScalarUDF {
    let number = ScalarValue::from(client.pid_and_secret_key().0);
    let value = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(number.clone()));
    create_udf("pg_backend_pid", vec![], DataType::Int32, Volatility::Stable, Arc::new(value))
}

/// One statement under way; forgotten when it is dropped.
#[derive(Debug)]
pub(super) struct Statement {
    running: Arc<Running>,
    connection: CancelKey,
    pub(super) cancelled: CancellationToken,
}

impl Drop for Statement {
    fn drop(&mut self) {
        self.running.all().remove(&self.connection);
    }
}

/// Stops what runs on a connection when a client shows its key.
pub(super) struct Cancel(pub(super) Arc<Running>);

#[async_trait]
impl CancelHandler for Cancel {
    async fn on_cancel_request(&self, request: CancelRequest) {
        if let Some(asked) = self.0.all().get(&(request.pid, request.secret_key.to_bytes().to_vec())) {
            asked.cancelled.cancel();
        }
    }
}

pub(super) fn cancelled() -> PgWireError {
    error("57014", "canceling statement due to user request")
}

pub(super) fn timed_out() -> PgWireError {
    error("57014", "canceling statement due to statement timeout")
}
