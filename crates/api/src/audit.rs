//! `rollcall.audit`: every act of a person, by whom, from where, and what was before and after.
//!
//! What a request changed is seen in the state log, before it and after it; secrets are no part of
//! that. An act that cannot be recorded is said not to be: whoever did it hears so.

mod words;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use rollcall_lake::{Record, StateView};
use rollcall_registry::Act;
use rollcall_types::describe;
use serde_json::{Map, Value};

use crate::caller::{ApiError, App};

/// Kinds of records that change by themselves.
const PASSING: [&str; 8] = ["presence", "watch", "counter", "incident", "delivered", "guesses", "health", "lacking"];

/// Who calls, once that was checked: whatever checks it tells it here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doer(Arc<OnceLock<String>>);

impl Doer {
    pub(crate) fn is(&self, name: &str) {
        // Each check of one request has the same outcome.
        let _ = self.0.set(name.to_owned());
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
        what: words::in_words(&method, &path),
        outcome: response.status().to_string(),
        before: was,
        after: is,
    };
    let recorded = act.record(&api.registry.lake).await;
    api.registry.health.note("record what people do", &recorded);
    match recorded {
        Err(error) if response.status().is_success() => {
            let text = format!("it was done, and could not be recorded in rollcall.audit: {}", describe(&error));
            ApiError(StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
        _ => response,
    }
}
