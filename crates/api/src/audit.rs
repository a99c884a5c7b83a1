//! `rollcall.audit`: every act of a person, by whom, from where, and what was before and after.
//!
//! What a request changed is seen in the state log, before it and after it; secrets are no part of
//! that. An act that cannot be recorded is said not to be: whoever did it hears so.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use arrow_array::{Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use rollcall_lake::{LakeError, Record, StateView};
use rollcall_types::{TEXT_BYTES_MAX, Timestamp, describe, plain};
use serde_json::{Map, Value};

use crate::{
    Api,
    caller::{ApiError, App},
};

/// Bytes of what was before and after.
const STATE_BYTES_MAX: usize = 16 * 1024;
/// Kinds of records that change by themselves.
const PASSING: [&str; 8] = ["presence", "watch", "counter", "incident", "delivered", "guesses", "health", "lacking"];

/// One act.
#[derive(Debug)]
pub struct Act {
    pub at: Timestamp,
    pub by: String,
    pub from: String,
    pub what: String,
    pub outcome: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// Who calls, once that was checked: whatever checks it tells it here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doer(Arc<OnceLock<String>>);

impl Doer {
    pub(crate) fn is(&self, name: &str) {
        // Each check of one request has the same outcome.
        let _ = self.0.set(name.to_owned());
    }
}

impl Api {
    /// Keeps an act. Durable on return.
    pub async fn record(&self, act: &Act) -> Result<(), LakeError> {
        let text = |value: &str, most: usize| Some(plain(value, most));
        let one = |value: Option<String>| Arc::new(StringArray::from_iter([value])) as Arc<dyn Array>;
        let columns: Vec<Arc<dyn Array>> = vec![
            Arc::new(TimestampMicrosecondArray::from_iter_values([act.at.as_micros()]).with_timezone("UTC")),
            one(text(&act.by, TEXT_BYTES_MAX)),
            one(text(&act.from, TEXT_BYTES_MAX)),
            one(text(&act.what, TEXT_BYTES_MAX)),
            one(text(&act.outcome, TEXT_BYTES_MAX)),
            one(act.before.as_deref().and_then(|value| text(value, STATE_BYTES_MAX))),
            one(act.after.as_deref().and_then(|value| text(value, STATE_BYTES_MAX))),
        ];
        let table = self.registry.lake.audit();
        let schema = table.snapshot().schema().arrow().clone();
        let rows = RecordBatch::try_new(schema, columns)
            .map_err(|source| LakeError::Arrow { doing: "recording what a person did", source })?;
        table.append_rows(rows).await
    }
}

/// What somebody changed between two views of the state: kind and id, with the value.
pub(crate) fn changed(before: &StateView, after: &StateView, by: &str) -> (Option<String>, Option<String>) {
    let (mut was, mut is) = (Map::new(), Map::new());
    for kind in after.kinds().filter(|kind| !PASSING.contains(kind)) {
        let of_doer = |record: &&Arc<Record>| {
            record.by.strip_prefix(by).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
        };
        for (id, record) in after.changed_since(before, kind).filter(|(_, record)| record.as_ref().is_none_or(of_doer))
        {
            let name = format!("{kind} {id}");
            let value = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
            was.extend(before.find(kind, id).map(|record| (name.clone(), value(&record.value))));
            is.extend(record.map(|record| (name, value(&record.value))));
        }
    }
    let text = |map: Map<String, Value>| (!map.is_empty()).then(|| Value::Object(map).to_string());
    (text(was), text(is))
}

/// Records requests that change something.
pub(crate) async fn record(State(api): State<App>, mut request: Request<Body>, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // What only looks at what would change changes nothing either.
    let is_dry = request.uri().query().is_some_and(|query| query.split('&').any(|one| one == "dry_run=true"));
    // Questions change nothing, and have a log of their own.
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(&method) || path == "/api/sql" || is_dry {
        return next.run(request).await;
    }
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip());
    let doer = Doer::default();
    request.extensions_mut().insert(doer.clone());
    // A task of its own: what was begun is done and recorded, whether the caller waits for it or
    // not.
    let doing =
        api.registry.tasks.clone().spawn(async move { run(api, request, next, doer, address, (method, path)).await });
    doing.await.unwrap_or_else(|_| ApiError(StatusCode::INTERNAL_SERVER_ERROR, "it failed".to_owned()).into_response())
}

async fn run(
    api: App,
    request: Request<Body>,
    next: Next,
    doer: Doer,
    address: Option<IpAddr>,
    (method, path): (Method, String),
) -> Response {
    let before = api.registry.lake.state().view();
    let response = next.run(request).await;
    // Whoever was not let in did nothing.
    let Some(by) = doer.0.get().cloned() else { return response };
    let (was, is) = changed(&before, &api.registry.lake.state().view(), &by);
    let act = Act {
        at: api.registry.now(),
        by,
        from: address.map_or_else(|| "unknown".to_owned(), |address| address.to_string()),
        what: format!("{method} {path}"),
        outcome: response.status().to_string(),
        before: was,
        after: is,
    };
    let recorded = api.record(&act).await;
    api.registry.health.note("record what people do", &recorded);
    match recorded {
        Err(error) if response.status().is_success() => {
            let text = format!("it was done, and could not be recorded in rollcall.audit: {}", describe(&error));
            ApiError(StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
        _ => response,
    }
}
