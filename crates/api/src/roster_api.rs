//! The roster over HTTP: who should be heard from, and inviting them.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, patch, post},
};
use rollcall_types::{Cause, SiteId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use rollcall_registry::{
    RollEntry,
    roster::{INVITATION_LIFE_SECONDS, Importing, Invited, PastChange},
};

use crate::caller::{ApiError, App, Operator, Viewer, site_id};

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/roster", get(roster).post(import))
        .route("/api/roster/{site}", patch(set_attributes))
        .route("/api/roster/{site}/history", get(history))
        .route("/api/roster/{site}/invite", post(invite))
        .route("/api/roster/{site}/retire", post(retire))
        .route("/api/roster/{site}/reinstate", post(reinstate))
        .route("/api/roster/{site}/accept-times", post(accept_times))
        .route("/api/resend", post(resend))
        .route("/api/invitations", get(invitations))
        .route("/api/invitations/{id}", delete(revoke))
}

#[derive(Serialize)]
struct RosterLine {
    id: SiteId,
    attributes: BTreeMap<String, String>,
    enrolled_at: Option<Timestamp>,
    retired: Option<rollcall_registry::roster::Retired>,
    epoch: Option<rollcall_types::Epoch>,
}

async fn roster(State(api): State<App>, _: Viewer) -> Json<Vec<RosterLine>> {
    let roster = api.registry.roster.all();
    let lines = roster.iter().map(|(id, record)| RosterLine {
        id: id.clone(),
        attributes: record.attributes.to_map(),
        enrolled_at: record.enrolled_at,
        retired: record.retired.clone(),
        epoch: record.journal.as_ref().map(|journal| journal.epoch),
    });
    Json(lines.collect())
}

#[derive(Deserialize, Default)]
struct ImportQuery {
    /// Attributes of which the file has no column go.
    #[serde(default)]
    replace: bool,
    /// Nothing is changed; the report is of what would be.
    #[serde(default)]
    dry_run: bool,
}

async fn import(
    State(api): State<App>,
    Operator(by): Operator,
    Query(query): Query<ImportQuery>,
    body: String,
) -> Result<Response, ApiError> {
    let how = Importing { replace: query.replace, dry_run: query.dry_run };
    let report =
        api.registry.roster.import(&body, how, api.registry.ledger.unknown_senders(), &by, api.registry.now()).await?;
    Ok(Json(report).into_response())
}

/// Changes attributes of a site that is on the roster; an empty value takes one away.
async fn set_attributes(
    State(api): State<App>,
    Operator(by): Operator,
    Path(site): Path<String>,
    Json(attributes): Json<BTreeMap<String, String>>,
) -> Result<Response, ApiError> {
    let site = site_id(&site)?;
    let changes = api.registry.roster.set_attributes(&site, &attributes, &by, api.registry.now()).await?;
    Ok(Json(json!({"site": site, "changes": changes})).into_response())
}

#[derive(Deserialize, Default)]
struct InviteRequest {
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    life_seconds: Option<u64>,
    /// The site is added to the roster if it is not on it.
    #[serde(default)]
    new: bool,
}

async fn invite(
    State(api): State<App>,
    Operator(by): Operator,
    Path(site): Path<String>,
    Json(request): Json<InviteRequest>,
) -> Result<Response, ApiError> {
    let life = request.life_seconds.unwrap_or(INVITATION_LIFE_SECONDS);
    let fingerprint = api.authority.fingerprint();
    let site = site_id(&site)?;
    if !request.new {
        must_be_listed(&api, &site)?;
    }
    let mut invitation =
        api.registry.roster.invite(&site, &request.attributes, &fingerprint, life, &by, api.registry.now()).await?;
    invitation.hq = Some(api.address_for_sites.clone());
    Ok(Json(invitation).into_response())
}

async fn invitations(State(api): State<App>, _: Viewer) -> Json<Vec<Invited>> {
    Json(api.registry.roster.invitations(api.registry.now()))
}

async fn revoke(
    State(api): State<App>,
    Operator(by): Operator,
    Path(id): Path<String>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let site = api.registry.roster.revoke(&id, &by, api.registry.now()).await?;
    tracing::warn!(%site, id, by, "an invitation was revoked");
    Ok(Json(json!({"revoked": id, "site": site})))
}

/// Which sites are to send everything again: these, or all that lack what HQ's lake once confirmed
/// to them.
#[derive(Deserialize)]
struct ResendRequest {
    #[serde(default)]
    sites: Vec<String>,
    #[serde(default)]
    refused: bool,
    reason: String,
}

async fn resend(
    State(api): State<App>,
    Operator(by): Operator,
    Json(request): Json<ResendRequest>,
) -> Result<Json<serde_json::Value>, ApiError> {
    must_have_reason(&request.reason, || "sending everything again needs a reason".to_owned())?;
    let mut wanted = request.sites.iter().map(|site| site_id(site)).collect::<Result<BTreeSet<SiteId>, ApiError>>()?;
    if request.refused {
        wanted.extend(api.registry.ledger.lacking_confirmed());
    }
    let sites = api.registry.roster.resend(&wanted, &request.reason, &by, api.registry.now()).await?;
    // They come again, and hear of it.
    sites.iter().for_each(|site| api.registry.sessions.cut(site));
    let left_out: Vec<&SiteId> = wanted.iter().filter(|site| !sites.contains(site)).collect();
    tracing::warn!(sites = sites.len(), by, reason = request.reason, "sites are to send everything again");
    // Who has not called cannot have been refused yet.
    let is_away = |entry: &RollEntry| {
        let is_heard = entry.last_heard.is_some_and(|at| api.registry.now().since(at) <= api.registry.behind_after());
        entry.state.is_finding()
            && !is_heard
            && !sites.contains(&entry.site)
            && entry.cause != Some(Cause::NeverEnrolled)
    };
    let is_refused = |site: &SiteId| {
        let is_listed = api.registry.roster.get(site).is_some_and(|record| record.retired.is_none());
        is_listed && api.registry.ledger.is_refused(site) && !sites.contains(site)
    };
    let roll = if request.refused { api.alerts.roll() } else { Vec::new() };
    let away: Vec<&SiteId> = roll.iter().filter(|entry| is_away(entry)).map(|entry| &entry.site).collect();
    // These cannot be told to send again: HQ does not let them in.
    let callers = if request.refused { api.registry.ledger.unknown_senders() } else { Vec::new() };
    let unknown = callers.iter().filter(|name| SiteId::new(name.as_str()).is_ok_and(|site| is_refused(&site)));
    let unknown: Vec<&String> = unknown.collect();
    Ok(Json(json!({"sites": sites, "not_enrolled": left_out, "not_heard": away, "unknown_key": unknown})))
}

/// A person answers for the times of a site's rows up to now.
async fn accept_times(
    State(api): State<App>,
    Operator(by): Operator,
    Path(site): Path<String>,
    Json(request): Json<Reasoned>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let site = site_id(&site)?;
    must_have_reason(&request.reason, || format!("that the times of {site} are right needs a reason"))?;
    api.registry.roster.accept_times(&site, &request.reason, &by, api.registry.now()).await?;
    tracing::warn!(%site, by, reason = request.reason, "a person answers for the times of a site's rows");
    Ok(Json(json!({"site": site})))
}

#[derive(Deserialize, Default)]
struct Reasoned {
    #[serde(default)]
    reason: String,
}

async fn retire(
    State(api): State<App>,
    Operator(by): Operator,
    Path(site): Path<String>,
    Json(request): Json<Reasoned>,
) -> Result<Response, ApiError> {
    let site = site_id(&site)?;
    let unconfirmed =
        api.alerts.roll().into_iter().find(|entry| entry.site == site).map_or(0, |entry| entry.unconfirmed_rows);
    must_have_reason(&request.reason, || {
        format!("retiring {site} needs a reason (it has {unconfirmed} unconfirmed rows as far as HQ knows)")
    })?;
    api.registry.roster.retire(&site, &request.reason, &by, api.registry.now()).await?;
    api.registry.sessions.cut(&site);
    Ok(Json(json!({"retired": site, "unconfirmed_rows": unconfirmed})).into_response())
}

/// Puts a site that was retired by mistake back on the roster. Its key is gone: it joins anew.
async fn reinstate(
    State(api): State<App>,
    Operator(by): Operator,
    Path(site): Path<String>,
    Json(request): Json<Reasoned>,
) -> Result<Response, ApiError> {
    let site = site_id(&site)?;
    must_have_reason(&request.reason, || format!("putting {site} back on the roster needs a reason"))?;
    api.registry.roster.reinstate(&site, &by, api.registry.now()).await?;
    tracing::warn!(%site, by, reason = request.reason, "a retired site is on the roster again");
    Ok(Json(json!({"reinstated": site})).into_response())
}

/// What the attributes of a site were, oldest change first.
async fn history(
    State(api): State<App>,
    _: Viewer,
    Path(site): Path<String>,
) -> Result<Json<Vec<PastChange>>, ApiError> {
    let site = site_id(&site)?;
    must_be_listed(&api, &site)?;
    Ok(Json(api.registry.roster.history(&site).await?))
}

/// Refuses a site that is not on the roster, and says which one may be meant.
fn must_be_listed(api: &App, site: &SiteId) -> Result<(), ApiError> {
    match api.registry.roster.get(site) {
        Some(_) => Ok(()),
        None => Err(api.registry.roster.unlisted(site).into()),
    }
}

/// Refuses what nobody gave a reason for.
fn must_have_reason(reason: &str, refusal: impl FnOnce() -> String) -> Result<(), ApiError> {
    match reason.trim().is_empty() {
        true => Err(ApiError(StatusCode::BAD_REQUEST, refusal())),
        false => Ok(()),
    }
}
