//! The API's part about incidents, closures and holidays.

use std::collections::BTreeSet;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use rollcall_roll::{Achieved, Incident, Kind};
use rollcall_types::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use rollcall_alert::{
    Channel, CommandOutcome, Holidays, IncidentCommand, Preview, Route, holidays, set_holidays as store_holidays,
};
use rollcall_registry::roster::{DeclaredClosure, begin_of};

use crate::{
    caller::{Admin, ApiError, App, Operator, Reader, Viewer, site_id},
    incident_page,
};

/// What the API offers, for programs that read such things.
const OPENAPI: &str = include_str!("openapi.json");

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/openapi.json", get(|| async { ([("content-type", "application/json")], OPENAPI) }))
        .route("/api/incidents", get(list))
        .route("/api/incidents/budget", get(budget))
        .route("/api/incidents/{id}", get(show))
        .route("/api/incidents/{id}/ack", post(acknowledge))
        .route("/api/incidents/{id}/explain", post(explain))
        .route("/api/roster/{site}/close", post(close_site))
        .route("/api/channels", get(channels))
        .route("/api/channels/{name}", axum::routing::put(set_channel).delete(remove_channel))
        .route("/api/channels/{name}/test", post(test_channel))
        .route("/api/channels/{name}/preview", get(preview))
        .route("/api/routes/{site}", get(who))
        .route("/incidents/{id}", get(page))
        .route("/api/holidays/{name}", get(get_holidays).put(set_holidays))
}

/// An incident as the API gives it.
#[derive(Serialize)]
struct IncidentView {
    #[serde(flatten)]
    incident: Incident,
    /// Sites that have not come back.
    absent: usize,
}

impl From<Incident> for IncidentView {
    fn from(incident: Incident) -> Self {
        let absent = if incident.is_open() { incident.absent().count() } else { 0 };
        Self { incident, absent }
    }
}

fn missing(id: u64) -> ApiError {
    ApiError(StatusCode::NOT_FOUND, format!("there is no incident {id}, or it is long over"))
}

#[derive(Deserialize, Default)]
struct ListQuery {
    #[serde(default)]
    all: bool,
}

/// Open incidents, the loudest first; with `all=true` also those that ended in the last week.
async fn list(
    State(api): State<App>,
    Reader(caller): Reader,
    Query(query): Query<ListQuery>,
) -> Json<Vec<IncidentView>> {
    let mut incidents = api.answers.incidents(&api.answers.seen(&caller.sees));
    incidents.retain(|incident| query.all || incident.is_open());
    // Members that a group speaks for come after it.
    incidents.sort_by_key(|incident| {
        (!incident.is_open(), incident.held_by.is_some(), std::cmp::Reverse(incident.level), incident.since)
    });
    Json(incidents.into_iter().map(IncidentView::from).collect())
}

async fn show(
    State(api): State<App>,
    Reader(caller): Reader,
    Path(id): Path<u64>,
) -> Result<Json<IncidentView>, ApiError> {
    let incident = match caller.sees.is_empty() {
        true => api.alerts.incident(id),
        false => {
            let seen = api.answers.incidents(&api.answers.seen(&caller.sees));
            seen.into_iter().find(|incident| incident.id == id)
        }
    };
    incident.map(|incident| Json(incident.into())).ok_or_else(|| missing(id))
}

#[derive(Deserialize)]
struct AckRequest {
    #[serde(default)]
    by: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    hours: Option<u64>,
}

/// Who acts: whoever called, whatever name the request gives; that one is kept beside it.
fn acting(caller: &str, named: &str) -> String {
    match named.trim() {
        named if named.is_empty() || named == caller => caller.to_owned(),
        named => format!("{caller} for {named}"),
    }
}

async fn acknowledge(
    State(api): State<App>,
    Operator(caller): Operator,
    Path(id): Path<u64>,
    Json(request): Json<AckRequest>,
) -> Result<Json<Value>, ApiError> {
    if request.by.trim().is_empty() || request.reason.trim().is_empty() {
        let text = "an acknowledgement needs a name and a reason: somebody takes it".to_owned();
        return Err(ApiError(StatusCode::BAD_REQUEST, text));
    }
    let now = api.registry.now();
    let level = api.alerts.incident(id).ok_or_else(|| missing(id))?.level;
    let most = rollcall_roll::Ladder::lease_max(level).as_secs() / 3600;
    if let Some(hours) = request.hours.filter(|hours| *hours > most || *hours == 0) {
        let text =
            format!("an incident of level {level} may be taken for 1 to {most} hours, not {hours}: nothing is changed");
        return Err(ApiError(StatusCode::BAD_REQUEST, text));
    }
    let hours = i64::try_from(request.hours.unwrap_or(most)).unwrap_or(24);
    let until = now.plus_micros(hours.saturating_mul(3_600_000_000));
    let command = IncidentCommand::Acknowledge { by: acting(&caller, &request.by), reason: request.reason, until };
    match api.alerts.command(id, command).await? {
        CommandOutcome::Done { until } => Ok(Json(json!({"id": id, "until": until}))),
        CommandOutcome::Unknown => Err(missing(id)),
    }
}

#[derive(Deserialize)]
struct ExplainRequest {
    was: String,
    #[serde(default)]
    by: String,
}

async fn explain(
    State(api): State<App>,
    Operator(caller): Operator,
    Path(id): Path<u64>,
    Json(request): Json<ExplainRequest>,
) -> Result<Json<Value>, ApiError> {
    let was_normal = match request.was.as_str() {
        "normal" => true,
        "outage" => false,
        _ => return Err(ApiError(StatusCode::BAD_REQUEST, "it was either \"normal\" or an \"outage\"".to_owned())),
    };
    let by = acting(&caller, &request.by);
    match api.alerts.command(id, IncidentCommand::Explain { was_normal, by }).await? {
        CommandOutcome::Done { .. } => Ok(Json(json!({"id": id, "was": request.was}))),
        CommandOutcome::Unknown => Err(missing(id)),
    }
}

/// How often people were told in the last weeks, beside what that is to keep within.
async fn budget(State(api): State<App>, _: Viewer) -> Json<Achieved> {
    Json(api.alerts.watching.watch().achieved())
}

#[derive(Deserialize)]
struct CloseRequest {
    /// A time, or the first day on which the site is open again, in its own zone.
    until: String,
    #[serde(default)]
    from: Option<Timestamp>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    by: String,
}

async fn close_site(
    State(api): State<App>,
    Operator(caller): Operator,
    Path(site): Path<String>,
    Json(request): Json<CloseRequest>,
) -> Result<Json<Value>, ApiError> {
    let site: SiteId = site_id(&site)?;
    if request.reason.trim().is_empty() {
        return Err(ApiError(StatusCode::BAD_REQUEST, "a closure needs a reason".to_owned()));
    }
    let by = acting(&caller, &request.by);
    let from = request.from.unwrap_or_else(|| api.registry.now());
    let zone = api.registry.roster.get(&site).map_or(chrono_tz::Tz::UTC, |record| record.zone());
    let until = day_or_time(&request.until, zone).ok_or_else(|| {
        let text = format!("{:?} is neither a day such as 2026-12-27 nor a time in RFC 3339", request.until);
        ApiError(StatusCode::BAD_REQUEST, text)
    })?;
    let closure = DeclaredClosure { from, until, reason: request.reason, by };
    let now = api.registry.now();
    let is_heard = from <= now && api.registry.ledger.is_heard(&site, now, api.registry.behind_after());
    api.registry.roster.close_until(&site, closure, now).await?;
    Ok(Json(json!({"site": site, "until": until, "is_heard": is_heard})))
}

/// A time, or the beginning of a day in a zone.
fn day_or_time(text: &str, zone: chrono_tz::Tz) -> Option<Timestamp> {
    let Ok(day) = text.parse::<chrono::NaiveDate>() else { return text.parse().ok() };
    begin_of(day, zone)
}

async fn get_holidays(State(api): State<App>, _: Viewer, Path(name): Path<String>) -> Json<Holidays> {
    Json(holidays(&api.registry.lake).remove(&name).unwrap_or_default())
}

async fn set_holidays(
    State(api): State<App>,
    Operator(by): Operator,
    Path(name): Path<String>,
    Json(days): Json<BTreeSet<String>>,
) -> Result<Json<Value>, ApiError> {
    if let Some(wrong) = days.iter().find(|day| day.parse::<chrono::NaiveDate>().is_err()) {
        return Err(ApiError(StatusCode::BAD_REQUEST, format!("{wrong:?} is not a day such as 2026-12-25")));
    }
    let count = days.len();
    store_holidays(&api.registry, &name, Holidays { days }, &by).await?;
    Ok(Json(json!({"holidays": name, "days": count})))
}

async fn channels(State(api): State<App>, _: Viewer) -> Json<Value> {
    let channels = api.alerts.notifiers.channels();
    let problems: Vec<(Option<String>, String)> = {
        let open = api.alerts.incidents().into_iter();
        let open = open.filter(|incident| incident.kind == Kind::Channel && incident.is_open());
        open.map(|incident| (incident.stream, incident.evidence)).collect()
    };
    let shown = channels.iter().map(|(name, channel)| {
        let mut value = channel.redacted();
        value["name"] = name.as_str().into();
        value["problem"] =
            problems.iter().find(|(of, _)| of.as_ref() == Some(name)).map(|(_, text)| text.as_str()).into();
        value
    });
    Json(shown.collect())
}

async fn set_channel(
    State(api): State<App>,
    _: Admin,
    Path(name): Path<String>,
    Json(described): Json<Value>,
) -> Result<Json<Value>, ApiError> {
    let channel = Channel::read(&described)?;
    let lacking = api.alerts.lacking_columns(&channel);
    let roster = api.registry.roster.all();
    let matching = roster.values().filter(|record| record.retired.is_none() && record.has(&channel.matching)).count();
    api.alerts.notifiers.set(&name, Some(channel), api.registry.now()).await?;
    Ok(Json(json!({"channel": name, "sites_without": lacking, "sites_matching": matching})))
}

#[derive(Deserialize, Default)]
struct PreviewQuery {
    #[serde(default)]
    incident: Option<u64>,
}

/// What a channel would say, to nobody.
async fn preview(
    State(api): State<App>,
    _: Viewer,
    Path(name): Path<String>,
    Query(query): Query<PreviewQuery>,
) -> Result<Json<Preview>, ApiError> {
    let incident = match query.incident {
        Some(id) => Some(api.alerts.incident(id).ok_or_else(|| missing(id))?),
        None => None,
    };
    Ok(Json(api.alerts.preview(&name, incident.as_ref(), &api.arrived)?))
}

/// Who hears of a site's silence, from which level on.
async fn who(State(api): State<App>, _: Viewer, Path(site): Path<String>) -> Result<Json<Vec<Route>>, ApiError> {
    let site = site_id(&site)?;
    if api.registry.roster.get(&site).is_none() {
        return Err(api.registry.roster.unlisted(&site).into());
    }
    Ok(Json(api.alerts.who(&site)))
}

/// An incident and its story, for whoever follows the link of a message.
async fn page(State(api): State<App>, _: Viewer, Path(id): Path<u64>) -> Result<Response, ApiError> {
    let incident = api.alerts.incident(id).ok_or_else(|| missing(id))?;
    let page = incident_page::of(&incident, &api.alerts.described(&incident));
    Ok((incident_page::HEADERS, page).into_response())
}

async fn remove_channel(State(api): State<App>, _: Admin, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    if !api.alerts.notifiers.set(&name, None, api.registry.now()).await? {
        return Err(ApiError(StatusCode::NOT_FOUND, format!("there is no channel {name:?}")));
    }
    api.alerts.watching.watch().set_channel(&name, None, api.registry.now());
    Ok(Json(json!({"removed": name})))
}

async fn test_channel(State(api): State<App>, _: Admin, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    api.alerts.test_channel(&name).await?;
    Ok(Json(json!({"told": name})))
}
