//! Lives of sites' journals, and columns of tables: what a person rules on.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{get, post},
};
use rollcall_lake::{ColumnType, LakeError, StateView, Table};
use rollcall_types::{Epoch, SiteId, TableName};
use serde::{Deserialize, Serialize};
use serde_json::json;

use rollcall_answer::lives::{ComparedTable, LifeJudge};
use rollcall_books::{
    definitions::{definitions, stands_beside},
    restate::{self, Wish},
};
use rollcall_registry::{
    HqError,
    roster::{ContestedLife, Journal},
};

use crate::{
    Api,
    caller::{ApiError, App, Operator, Viewer, site_id},
};

pub(crate) fn routes() -> Router<App> {
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
        .route("/api/tables/{table}/key", axum::routing::put(rekey))
        .route("/api/tables/{table}", axum::routing::delete(forget))
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

async fn lives(State(api): State<App>, _: Viewer, Path(site): Path<String>) -> Result<Json<LivesView>, ApiError> {
    let site = site_id(&site)?;
    let record = api.registry.roster.get(&site).ok_or_else(|| api.registry.roster.unlisted(&site))?;
    let compared = match record.question() {
        Some(life) => {
            let judge = LifeJudge { lake: &api.registry.lake, engine: &api.answers.engine };
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
    State(api): State<App>,
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
    let is_other = api.registry.roster.rule(&site, Epoch(epoch), is_accepted, reason, &by, api.registry.now()).await?;
    api.answers.misfit_counter.forget();
    tracing::warn!(%site, epoch, is_accepted, reason, by, "a person ruled on a life of the site's journal");
    Ok(Json(
        json!({"site": site, "current": api.registry.roster.get(&site).and_then(|record| record.current_life()), "is_another": is_other}),
    ))
}

#[derive(Deserialize)]
struct TypeRequest {
    r#type: String,
}

async fn retype(
    State(api): State<App>,
    Operator(by): Operator,
    Path((name, column)): Path<(String, String)>,
    Json(request): Json<TypeRequest>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let invalid = HqError::Invalid;
    let name = TableName::new(&name).map_err(|error| invalid(error.to_string()))?;
    let kind = ColumnType::from_delta(request.r#type.trim()).ok_or_else(|| {
        invalid(format!("{:?} is no type; say decimal(12,2), double, long or string", request.r#type))
    })?;
    let table = api.registry.lake.table(&name).filter(|table| !table.is_published());
    let table = table.ok_or_else(|| HqError::NotFound(format!("no table of the stores' is called {name}")))?;
    // It goes on if who asked does not wait for it.
    let (answers, of) = (api.answers.clone(), column.clone());
    let retyping = rollcall_runtime::spawn(async move {
        let report = table.retype(&of, kind).await;
        answers.misfit_counter.forget();
        report
    });
    let report = retyping.await.map_err(|error| HqError::Invalid(format!("retyping ended early: {error}")))?;
    let report = report.map_err(HqError::from)?;
    tracing::warn!(table = %name, column, kind = kind.delta(), files = report.files, rows = report.rows, by, "a column has another type");
    Ok(Json(json!({"files": report.files, "rows": report.rows, "type": kind.delta()})))
}

#[derive(Deserialize)]
struct KeyRequest {
    key: Vec<String>,
}

/// Gives a table of the stores' another key than the first site proposed; all its sites state their
/// rows again.
async fn rekey(
    State(api): State<App>,
    Operator(by): Operator,
    Path(name): Path<String>,
    Json(request): Json<KeyRequest>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let (name, table) = table_of_stores(&api, &name)?;
    // A wrong key is refused before anything is asked of anybody.
    table.may_have_key(&request.key).map_err(HqError::Invalid)?;
    let reason = format!("{by} gave {name} another key");
    let asked = ask_again(&api, &name, &table, reason, &by, |_| true).await?;
    table.rekey(&request.key).await.map_err(|error| match error {
        LakeError::Rows(text) => HqError::Invalid(text),
        other => other.into(),
    })?;
    api.answers.misfit_counter.forget();
    tracing::warn!(table = %name, key = ?request.key, sites = asked, by, "a table has another key");
    Ok(Json(json!({"key": request.key, "sites": asked})))
}

/// Takes away a table of the stores', as if no site had proposed it. Those that have it state it
/// again.
async fn forget(
    State(api): State<App>,
    Operator(by): Operator,
    Path(name): Path<String>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let (name, table) = table_of_stores(&api, &name)?;
    // A site whose newest manifest is without it has nothing to state.
    let captured = api.books.captured.all();
    let has_it = |site: &SiteId| captured.get(site).is_none_or(|known| known.names.tables.contains(name.as_str()));
    let reason = format!("{by} had {name} forgotten");
    let asked = ask_again(&api, &name, &table, reason.clone(), &by, has_it).await?;
    let rows = table.forget().await.map_err(HqError::from)?;
    // Once more, of all that had come by then: the cursors stay.
    let asked = asked.max(ask_again(&api, &name, &table, reason, &by, has_it).await?);
    api.answers.misfit_counter.forget();
    tracing::warn!(table = %name, rows, sites = asked, by, "a table was forgotten");
    Ok(Json(json!({"rows": rows, "sites": asked})))
}

/// A table of the stores' whose columns and key are theirs to propose.
fn table_of_stores(api: &Api, name: &str) -> Result<(TableName, Arc<Table>), HqError> {
    let name = TableName::new(name).map_err(|error| HqError::Invalid(error.to_string()))?;
    let table =
        api.registry.lake.table(&name).filter(|table| !table.is_published() && !table.snapshot().is_forgotten());
    let table = table.ok_or_else(|| HqError::NotFound(format!("no table of the stores' is called {name}")))?;
    let definitions = definitions(&api.registry.lake.state().view());
    if stands_beside(&name, &definitions).is_some() {
        return Err(HqError::Invalid(format!(
            "{name} stands beside a table that HQ shares; what it is like is HQ's to say"
        )));
    }
    Ok((name, table))
}

/// Asks sites that sent rows of a table to state it again; they are missing until then. Gives how
/// many are asked.
async fn ask_again(
    api: &Api,
    name: &TableName,
    table: &Table,
    reason: String,
    by: &str,
    is_meant: impl Fn(&SiteId) -> bool,
) -> Result<usize, HqError> {
    let (roster, now, lake) = (api.registry.roster.all(), api.registry.now(), &api.registry.lake);
    let snapshot = table.snapshot();
    let tables = Some(BTreeSet::from([name.to_string()]));
    let of_table = roster.iter().filter(|(site, record)| {
        let life = record.journal.as_ref().map(|journal| journal.epoch).unwrap_or_default();
        let has_rows = snapshot.cursor(rollcall_types::SiteNumber(record.number), life).is_some();
        record.retired.is_none() && has_rows && is_meant(site)
    });
    let wishes: Vec<(SiteId, Wish)> = of_table
        .map(|(site, record)| (site.clone(), Wish::new(lake, record, tables.clone(), true, reason.clone())))
        .collect();
    let update = |view: &StateView| {
        let records = wishes.iter().map(|(site, wish)| {
            let open = roster.get(site).and_then(|record| restate::open(lake, view, site, record));
            wish.clone().with(open.map(|(_, wish)| wish)).record(view, site, now, by)
        });
        Ok::<_, LakeError>((records.collect::<Result<Vec<_>, _>>()?, ()))
    };
    // Before anything is changed: until they are fulfilled, the sites are missing.
    lake.state().update(update).await?;
    api.books.quarantine.look().await?;
    Ok(wishes.len())
}
