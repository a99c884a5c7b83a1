//! The API: SQL, the roll, the roster. JSON; every call but the probes needs a password or token.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use rollcall_query::{Extras, Planned, QueryError, Question};
use rollcall_types::SiteId;
use serde_json::json;

use prometheus_client::encoding::text::encode;
use rollcall_answer::table_settings::set as set_settings;
use rollcall_books::table_settings::{TableSettings, all as all_settings};
use rollcall_gateway::capacity;
use rollcall_registry::Relay;

use crate::{
    audit,
    caller::{Admin, ApiError, App, Operator, Reader, Viewer},
    callers::Identity,
    hear_out::{BODY_BYTES_MAX, hear_out},
    incidents_api, lives_api,
    origin::refuse_elsewhere,
    published_api, quarantine_api, roster_api, secrets_api, settings_api,
    sql_api::{self, Questions, SqlApi},
    users_api,
    web_port::hurry,
};

/// The routes of the API.
pub fn router(api: App) -> Router {
    let sql = SqlApi {
        questions: Arc::new(Asked(api.clone())),
        longest: api.answers.engine.limits().time_max,
        stop: api.registry.stop.clone(),
    };
    let sql = sql_api::routes(sql).route_layer(from_fn_with_state(api.clone(), say_who_asks));
    Router::new()
        .merge(sql)
        .route("/", get(index))
        .route("/live", get(|| async { "alive\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/nodes", get(nodes))
        .route("/api/roll", get(roll))
        .route("/api/tables", get(tables))
        .route("/api/tables/{table}", axum::routing::put(set_table))
        .merge(users_api::routes())
        .merge(incidents_api::routes())
        .merge(lives_api::routes())
        .merge(published_api::routes())
        .merge(quarantine_api::routes())
        .merge(roster_api::routes())
        .route("/api/stop", post(stop))
        .route("/api/sessions", get(sessions))
        .merge(secrets_api::routes())
        .merge(settings_api::routes())
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(api.clone(), audit::record))
        .layer(from_fn(refuse_elsewhere))
        .layer(from_fn(hear_out))
        .layer(from_fn(hurry))
        .with_state(api)
}

/// Questions to this node.
struct Asked(App);

#[async_trait]
impl Questions for Asked {
    async fn plan(&self, sql: &str, caller: &Identity) -> Result<Planned, QueryError> {
        let extras = Extras { user: Some(caller.name.clone()), ..self.0.answers.extras(&caller.sees) };
        self.0.answers.engine.plan(Question::Text(sql.to_owned()), extras).await
    }
}

/// For routes that know nothing of passwords.
async fn say_who_asks(Reader(caller): Reader, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Whether a load balancer should send anybody here.
async fn ready(State(api): State<App>) -> (StatusCode, &'static str) {
    if api.registry.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    if capacity::is_nearly_full(api.registry.sessions.count(), api.capacity) {
        return (StatusCode::SERVICE_UNAVAILABLE, "nearly as many sites as open files\n");
    }
    let is_heard = api.registry.relay().is_none_or(|relay| relay.is_alive(relay.node()));
    match api.ingest.is_well() && is_heard {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the lake cannot be written\n"),
    }
}

/// What the parts of this node export, as Prometheus reads it. Whoever asks must be a user: how
/// many stores are silent is nobody else's business.
async fn metrics(State(api): State<App>, _: Viewer) -> Result<Response, ApiError> {
    const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    // Some of it is counted over all sites.
    let work = rollcall_runtime::blocking(move || {
        let mut text = String::new();
        encode(&mut text, &api.metrics).map(|()| text)
    });
    let failed = |error: String| ApiError(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}"));
    let text = work.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, TEXT)], text).into_response())
}

/// The nodes of this HQ that are alive, the one asked first.
async fn nodes(State(api): State<App>, _: Viewer) -> Json<serde_json::Value> {
    let acting = api.registry.acting_node();
    let nodes = api.registry.relay().map(Relay::nodes).unwrap_or_default();
    let node =
        |(node, sites): (String, String)| json!({"acts": acting.as_ref() == Some(&node), "node": node, "sites": sites});
    Json(nodes.into_iter().map(node).collect())
}

async fn index(State(api): State<App>) -> Json<serde_json::Value> {
    Json(json!({
        "product": "rollcall",
        "version": env!("CARGO_PKG_VERSION"),
        "lake": api.registry.lake.id(),
        "api": "/api/openapi.json",
    }))
}

/// Every site table, with what was declared of it.
async fn tables(State(api): State<App>, _: Viewer) -> Json<BTreeMap<String, TableSettings>> {
    let mut declared = all_settings(&api.registry.lake);
    let tables = api.registry.lake.shown_tables().into_keys();
    Json(tables.map(|name| (name.to_string(), declared.remove(&name).unwrap_or_default())).collect())
}

async fn set_table(
    State(api): State<App>,
    Operator(by): Operator,
    Path(table): Path<String>,
    Json(settings): Json<TableSettings>,
) -> Result<Json<TableSettings>, ApiError> {
    set_settings(&api.answers, &table, settings.clone(), &by).await?;
    Ok(Json(settings))
}

async fn roll(State(api): State<App>, Reader(caller): Reader) -> Response {
    let roster = api.registry.roster.all();
    let is_seen = |site: &SiteId| roster.get(site).is_some_and(|record| record.has(&caller.sees));
    let mut roll = api.alerts.roll();
    roll.retain(|entry| caller.sees.is_empty() || is_seen(&entry.site));
    Json(roll).into_response()
}

/// Who logged in at this node since it started.
async fn sessions(State(api): State<App>, _: Admin) -> Response {
    Json(api.callers.all()).into_response()
}

/// Ends this node, as a signal does; its last commits are made before the process is gone.
async fn stop(State(api): State<App>, Admin(by): Admin) -> Json<serde_json::Value> {
    tracing::warn!(by, "asked to stop");
    api.registry.stop.cancel();
    Json(json!({"stopping": true}))
}
