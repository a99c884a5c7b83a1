//! The API's part about how sites are to behave.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, put},
};
use rollcall_types::{SiteId, TableName, nearest};
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
) -> Result<Json<RuleSet>, ApiError> {
    let outcome = settings::set(&api.publisher, &name, Some(&rule), &by).await?;
    Ok(Json(RuleSet { outcome, unknown_tables: unknown_tables(&api, &rule) }))
}

/// What became of a rule.
#[derive(Serialize)]
struct RuleSet {
    #[serde(flatten)]
    outcome: RuleOutcome,
    /// Tables of the rule that no store is known to have, each with the one that may be meant.
    unknown_tables: BTreeMap<String, Option<String>>,
}

fn unknown_tables(api: &App, rule: &Rule) -> BTreeMap<String, Option<String>> {
    let stated = api.answers.books.captured.all();
    let of_lake = api.registry.lake.tables().into_keys().map(|name| name.to_string());
    let of_sites = stated.values().flat_map(|of_site| {
        let uncaptured = of_site.names.uncaptured.iter().map(ToString::to_string);
        of_site.names.tables.iter().cloned().chain(uncaptured)
    });
    let known: BTreeSet<String> = of_lake.chain(of_sites).collect();
    let unknown = rule.capture.keys().filter(|table| {
        // Before any store stated what it has, nothing is known of any table.
        !known.is_empty() && TableName::at_hq(table).is_ok_and(|name| !known.contains(name.as_str()))
    });
    unknown.map(|table| (table.clone(), nearest(table, known.iter().map(String::as_str)).map(str::to_owned))).collect()
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
