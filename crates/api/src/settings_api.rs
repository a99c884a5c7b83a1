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

use rollcall_publish::settings::{self, Rule, RuleOutcome, SiteSettings};

use crate::caller::{ApiError, App, Operator, Viewer};

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

async fn list(State(api): State<App>, _: Viewer) -> Result<Json<BTreeMap<String, Listed>>, ApiError> {
    let mut listed: BTreeMap<String, Listed> =
        api.publisher.settings.all().into_iter().map(|(name, rule)| (name, Listed { rule, sites: 0 })).collect();
    for (site, record) in api.registry.roster.all().iter().filter(|(_, record)| record.retired.is_none()) {
        for name in &api.publisher.settings.of(site, record)?.rules {
            if let Some(listed) = listed.get_mut(name) {
                listed.sites += 1;
            }
        }
    }
    Ok(Json(listed))
}

async fn set(
    State(api): State<App>,
    Operator(by): Operator,
    Path(name): Path<String>,
    Json(rule): Json<Rule>,
) -> Result<Json<RuleOutcome>, ApiError> {
    Ok(Json(settings::set(&api.publisher, &name, Some(&rule), &by).await?))
}

async fn remove(
    State(api): State<App>,
    Operator(by): Operator,
    Path(name): Path<String>,
) -> Result<Json<RuleOutcome>, ApiError> {
    Ok(Json(settings::set(&api.publisher, &name, None, &by).await?))
}

async fn of_site(
    State(api): State<App>,
    _: Viewer,
    Path(site): Path<String>,
) -> Result<Json<Arc<SiteSettings>>, ApiError> {
    let site = SiteId::new(&site).map_err(|error| ApiError(StatusCode::BAD_REQUEST, error.to_string()))?;
    let record = api.registry.roster.get(&site).filter(|record| record.retired.is_none());
    let record = record.ok_or_else(|| api.registry.roster.unlisted(&site))?;
    Ok(Json(api.publisher.settings.of(&site, &record)?))
}
