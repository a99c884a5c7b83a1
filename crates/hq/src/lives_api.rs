//! Lives of sites' journals, and columns of tables: what a person rules on.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{get, post},
};
use rollcall_lake::ColumnType;
use rollcall_types::{Epoch, SiteId, TableName};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    error::HqError,
    http::{ApiError, Operator, Viewer, site_id},
    lives::{ComparedTable, LifeJudge},
    node::Shared,
    roster::{ContestedLife, Journal},
};

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/api/sites/{site}/lives", get(lives))
        .route(
            "/api/sites/{site}/lives/{epoch}/accept",
            post(|state, by, path, request| rule(state, by, path, request, true)),
        )
        .route(
            "/api/sites/{site}/lives/{epoch}/keep",
            post(|state, by, path, request| rule(state, by, path, request, false)),
        )
        .route("/api/tables/{table}/columns/{column}/type", axum::routing::put(retype))
}

/// The lives of a site's journal.
#[derive(Serialize)]
struct LivesView {
    site: SiteId,
    /// The newest.
    journal: Option<Journal>,
    /// The one whose rows are current.
    current: Option<Epoch>,
    contested: Vec<ContestedLife>,
    /// Of the one that is to be ruled on.
    compared: Vec<ComparedTable>,
}

async fn lives(
    State(shared): State<Arc<Shared>>,
    _: Viewer,
    Path(site): Path<String>,
) -> Result<Json<LivesView>, ApiError> {
    let site = site_id(&site)?;
    let record = shared.roster.get(&site);
    let record = record.ok_or_else(|| HqError::NotFound(format!("site {site} is not on the roster")))?;
    let compared = match record.question() {
        Some(life) => {
            let judge = LifeJudge { lake: &shared.lake, engine: &shared.engine };
            judge.compare(&site, &record, life).await?
        }
        None => Vec::new(),
    };
    Ok(Json(LivesView {
        site,
        journal: record.journal.clone(),
        current: record.current_life(),
        contested: record.contested.clone(),
        compared,
    }))
}

#[derive(Deserialize)]
struct RulingRequest {
    reason: String,
}

async fn rule(
    State(shared): State<Arc<Shared>>,
    Operator(by): Operator,
    Path((site, epoch)): Path<(String, u32)>,
    Json(request): Json<RulingRequest>,
    is_accepted: bool,
) -> Result<Json<serde_json::Value>, ApiError> {
    let site = site_id(&site)?;
    let reason = request.reason.trim();
    if reason.is_empty() {
        return Err(HqError::Invalid("a ruling needs a reason".to_owned()).into());
    }
    let is_other = shared.roster.rule(&site, Epoch(epoch), is_accepted, reason, &by, shared.now()).await?;
    shared.misfits.forget();
    tracing::warn!(%site, epoch, is_accepted, reason, by, "a person ruled on a life of the site's journal");
    Ok(Json(
        json!({"site": site, "current": shared.roster.get(&site).and_then(|record| record.current_life()), "is_another": is_other}),
    ))
}

#[derive(Deserialize)]
struct TypeRequest {
    r#type: String,
}

async fn retype(
    State(shared): State<Arc<Shared>>,
    Operator(by): Operator,
    Path((name, column)): Path<(String, String)>,
    Json(request): Json<TypeRequest>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let invalid = HqError::Invalid;
    let name = TableName::new(&name).map_err(|error| invalid(error.to_string()))?;
    let kind = ColumnType::from_delta(request.r#type.trim()).ok_or_else(|| {
        invalid(format!("{:?} is no type; say decimal(12,2), double, long or string", request.r#type))
    })?;
    let table = shared.lake.table(&name).filter(|table| !table.is_published());
    let table = table.ok_or_else(|| HqError::NotFound(format!("no table of the stores' is called {name}")))?;
    // It goes on if who asked does not wait for it.
    let (misfits, of) = (shared.misfits.clone(), column.clone());
    let retyping = tokio::spawn(async move {
        let report = table.retype(&of, kind).await;
        misfits.forget();
        report
    });
    let report = retyping.await.map_err(|error| HqError::Invalid(format!("retyping ended early: {error}")))?;
    let report = report.map_err(HqError::from)?;
    tracing::warn!(table = %name, column, kind = kind.delta(), files = report.files, rows = report.rows, by, "a column has another type");
    Ok(Json(json!({"files": report.files, "rows": report.rows, "type": kind.delta()})))
}
