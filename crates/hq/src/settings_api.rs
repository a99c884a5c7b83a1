//! The API's part about how sites are to behave.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, put},
};
use rollcall_types::SiteId;
use serde::Serialize;

use crate::{
    http::{ApiError, Operator, Viewer},
    node::Shared,
    settings::{self, Rule, SiteSettings, Told},
};

type App = Arc<Shared>;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/settings", get(list))
        .route("/api/settings/{rule}", put(set).delete(remove))
        .route("/api/sites/{site}/settings", get(of_site))
}

/// A rule, and how many sites it speaks of.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    rule: Rule,
    sites: usize,
}

async fn list(State(shared): State<App>, _: Viewer) -> Result<Json<BTreeMap<String, Listed>>, ApiError> {
    let mut listed: BTreeMap<String, Listed> =
        shared.settings.all().into_iter().map(|(name, rule)| (name, Listed { rule, sites: 0 })).collect();
    for (site, record) in shared.roster.all().iter().filter(|(_, record)| record.retired.is_none()) {
        for name in &shared.settings.of(site, record)?.rules {
            if let Some(listed) = listed.get_mut(name) {
                listed.sites += 1;
            }
        }
    }
    Ok(Json(listed))
}

async fn set(
    State(shared): State<App>,
    Operator(by): Operator,
    Path(name): Path<String>,
    Json(rule): Json<Rule>,
) -> Result<Json<Told>, ApiError> {
    Ok(Json(settings::set(&shared, &name, Some(&rule), &by).await?))
}

async fn remove(
    State(shared): State<App>,
    Operator(by): Operator,
    Path(name): Path<String>,
) -> Result<Json<Told>, ApiError> {
    Ok(Json(settings::set(&shared, &name, None, &by).await?))
}

async fn of_site(
    State(shared): State<App>,
    _: Viewer,
    Path(site): Path<String>,
) -> Result<Json<Arc<SiteSettings>>, ApiError> {
    let site = SiteId::new(&site).map_err(|error| ApiError(StatusCode::BAD_REQUEST, error.to_string()))?;
    let record = shared.roster.get(&site).filter(|record| record.retired.is_none());
    let record = record.ok_or_else(|| shared.roster.unlisted(&site))?;
    Ok(Json(shared.settings.of(&site, &record)?))
}
