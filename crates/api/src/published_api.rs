//! The API's part about tables that HQ publishes.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{delete, get, post},
};
use chrono::NaiveDateTime;
use rollcall_types::{Seq, SiteId, TableName, hq_identifier, is_meant};
use serde::{Deserialize, Serialize};

use rollcall_books::definitions::{Arrived, AtStoresChange, Definition};
use rollcall_publish::{
    arrivals::{Arrival, arrived},
    publish as publish_rows,
    rows::{self, Form},
    scheduled::{self, Scheduled},
    tables::{Mode, Outcome, Request, check_is_published},
    withdraw as take_back,
};
use rollcall_registry::HqError;

use crate::{
    api::Api,
    caller::{ApiError, App, Operator, Viewer},
};

/// A file of rows may be so large.
const BODY_MAX: usize = 1 << 30;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/published", get(tables))
        .route("/api/published/{table}", post(publish).layer(axum::extract::DefaultBodyLimit::max(BODY_MAX)))
        .route("/api/published/{table}/{version}/withdraw", post(withdraw))
        .route("/api/scheduled", get(list_scheduled))
        .route("/api/scheduled/{table}/{number}", delete(withdraw_scheduled))
        .route("/api/publications", get(list))
        .route("/api/arrivals", get(list_arrivals))
}

fn table_name(name: &str) -> Result<TableName, ApiError> {
    TableName::new(name).map_err(|error| ApiError(StatusCode::BAD_REQUEST, error.to_string()))
}

/// What was said of every published table.
async fn tables(State(api): State<App>, _: Viewer) -> Json<BTreeMap<TableName, Definition>> {
    let all = api.publisher.tables.all().into_iter();
    Json(all.map(|(name, known)| (name, known.definition().clone())).collect())
}

/// What is done with the rows of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FileMode {
    /// They are added, or take the place of those with their keys.
    #[default]
    Merge,
    /// They are the whole table.
    Replace,
    /// Rows with their keys go.
    Delete,
}

/// What becomes of references that would dangle.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum References {
    /// They are kept, and name a row that is gone.
    Keep,
    /// The row does not go.
    Refuse,
}

#[derive(Deserialize)]
struct PublishQuery {
    /// The form of the rows; without it there are none, and only what is said of the table changes.
    format: Option<String>,
    #[serde(default)]
    mode: FileMode,
    /// Column names with commas between them.
    #[serde(default)]
    key: String,
    to: Option<String>,
    mends: Option<bool>,
    /// By which rule sites change it as well: hq, site, latest, fields; or `no`.
    shared: Option<String>,
    /// What becomes of a row that goes and that rows of a store's own name: `keep` them as they
    /// are, or `refuse`.
    references: Option<References>,
    /// Columns in which stores may have other values, with commas between them; empty: none.
    rewritten: Option<String>,
    /// The file may bring columns that the table does not have yet.
    #[serde(default)]
    new_columns: bool,
    /// With `mode=replace`, columns that the file does not have may become empty in all rows.
    #[serde(default)]
    empty_columns: bool,
    /// A file without rows may take the place of the whole table.
    #[serde(default)]
    allow_empty: bool,
    #[serde(default)]
    note: String,
    #[serde(default)]
    dry_run: bool,
    /// When it takes effect, by each site's clock, such as `2026-12-01T06:00:00`; now if not said.
    at: Option<NaiveDateTime>,
}

#[derive(Serialize)]
struct PublishedNow {
    #[serde(flatten)]
    outcome: Outcome,
    /// Under which number it is scheduled; 0 if it is not.
    scheduled_as: u64,
    /// How the columns of the file were read: name and type.
    columns: Vec<(String, String)>,
}

/// Names with commas between them.
fn columns(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|column| !column.is_empty()).map(str::to_owned).collect()
}

/// Refuses what a slip in a file would do to every store.
fn check_file(
    api: &Api,
    table: &TableName,
    query: &PublishQuery,
    rows: &RecordBatch,
    key: &[String],
) -> Result<(), HqError> {
    let columns: Vec<String> = rows.schema_ref().fields().iter().map(|field| hq_identifier(field.name())).collect();
    let names = || columns.iter().map(String::as_str);
    let known = api.publisher.tables.get(table);
    let key = known.as_ref().map_or(key, |known| &known.definition().key);
    let lacks = |name: &&String| !columns.is_empty() && !columns.contains(&hq_identifier(name));
    if let Some(name) = key.iter().find(lacks) {
        return Err(HqError::Invalid(format!("the file has no column {name} of the key{}", is_meant(name, names()))));
    }
    let there = known.as_ref().map_or(0, |known| known.image.count());
    if there == 0 {
        return Ok(());
    }
    let schema = api.registry.lake.table(table).map(|table| table.snapshot().schema().clone());
    // Of rows that go only the keys count; what is scheduled says itself that columns come first.
    let may_add = query.new_columns || query.mode == FileMode::Delete || query.at.is_some();
    let is_new = |name: &&String| schema.as_ref().is_some_and(|schema| schema.column(name).is_none());
    if let Some(name) = columns.iter().find(is_new).filter(|_| !may_add) {
        let others = schema.iter().flat_map(|schema| schema.columns.iter().map(|column| column.name.as_str()));
        let left = others.filter(|other| !columns.iter().any(|name| name == other));
        return Err(HqError::Invalid(format!(
            "{table} has no column {name}{} (`--new-columns` adds it at every store)",
            is_meant(name, left)
        )));
    }
    let of_table = schema.iter().flat_map(|schema| schema.columns.iter().map(|column| column.name.as_str()));
    let lacking = of_table.filter(|name| !name.starts_with('_') && !columns.iter().any(|column| column == name));
    let lacking: Vec<&str> = lacking.collect();
    if query.mode == FileMode::Replace && rows.num_rows() > 0 && !lacking.is_empty() && !query.empty_columns {
        return Err(HqError::Invalid(format!(
            "the file has no column {}: it would be empty in all rows of {table}, at every store. `--empty-columns` does it",
            lacking.join(", ")
        )));
    }
    if query.mode == FileMode::Replace && rows.num_rows() == 0 && !query.allow_empty {
        return Err(HqError::Invalid(format!(
            "the file has no rows: all {there} rows of {table} would go, at every store. `--allow-empty` does it"
        )));
    }
    Ok(())
}

async fn publish(
    State(api): State<App>,
    Operator(by): Operator,
    Path(table): Path<String>,
    Query(query): Query<PublishQuery>,
    body: Bytes,
) -> Result<Json<PublishedNow>, ApiError> {
    let table = table_name(&table)?;
    scheduled::check_is_own(&api.publisher, &table)?;
    let none = RecordBatch::new_empty(Arc::new(Schema::empty()));
    let rows = match &query.format {
        Some(form) => {
            let form: Form = form.parse()?;
            let known = api.registry.lake.table(&table).map(|table| table.snapshot().schema().as_ref().clone());
            let read = rollcall_runtime::blocking(move || rows::read(&body, form, known.as_ref())).await;
            read.map_err(|error| HqError::Unavailable(error.to_string()))??
        }
        None if body.is_empty() && query.mode == FileMode::Merge && query.at.is_none() => {
            check_is_published(&api.publisher, &table)?;
            none.clone()
        }
        None => {
            return Err(HqError::Invalid("say with format what the rows are: csv, json or parquet".to_owned()).into());
        }
    };
    let at_stores = AtStoresChange {
        keeps_referenced: query.references.map(|references| references == References::Refuse),
        rewritten: query
            .rewritten
            .as_deref()
            .map(|text| columns(text).iter().map(|name| hq_identifier(name)).collect()),
    };
    let (key, read_as) = (columns(&query.key), rows::kinds(&rows));
    check_file(&api, &table, &query, &rows, &key)?;
    let PublishQuery { mode, to, mends, shared: query_shared, note, dry_run, at, .. } = query;
    let (rows, gone, mode) = match mode {
        FileMode::Merge => (rows, None, Mode::Merge),
        FileMode::Replace => (rows, None, Mode::Replace),
        FileMode::Delete => (none, Some(rows), Mode::Merge),
    };
    let rule = match query_shared.as_deref() {
        Some("no") => Some(None),
        Some(rule) => Some(Some(rule.parse().map_err(HqError::Invalid)?)),
        None => None,
    };
    let (based_on, scheduled) = (None, None);
    let request = Request {
        table,
        rows,
        gone,
        mode,
        key,
        to,
        mends,
        shared: rule,
        at_stores,
        by,
        note,
        dry_run,
        based_on,
        scheduled,
    };
    let (outcome, scheduled_as) = match at {
        Some(at) => scheduled::schedule(&api.publisher, &request, at).await?,
        None => (publish_rows(&api.publisher, request).await?, 0),
    };
    Ok(Json(PublishedNow { outcome, scheduled_as, columns: read_as }))
}

/// What is scheduled, and who has it ahead.
#[derive(Serialize)]
struct Ahead {
    #[serde(flatten)]
    scheduled: Scheduled,
    /// Sites that have the table.
    audience: usize,
    /// Those that hold what is scheduled; it takes effect there without HQ.
    have: usize,
}

async fn list_scheduled(State(api): State<App>, _: Viewer) -> Json<Vec<Ahead>> {
    let arrivals = api.answers.arrivals();
    let all = scheduled::all(&api.registry.lake.state().view());
    let ahead = all.into_iter().filter(Scheduled::was_said).map(|scheduled| {
        let next = scheduled::next_name(&scheduled.table).ok();
        let of_next = || arrivals.iter().filter(|arrival| Some(&arrival.table) == next.as_ref());
        let have = of_next().filter(|arrival| arrival.applied >= scheduled.version).count();
        Ahead { audience: of_next().count(), have, scheduled }
    });
    Json(ahead.collect())
}

async fn withdraw_scheduled(
    State(api): State<App>,
    Operator(by): Operator,
    Path((table, number)): Path<(String, u64)>,
) -> Result<Json<Scheduled>, ApiError> {
    Ok(Json(scheduled::withdraw(&api.publisher, &table_name(&table)?, number, &by).await?))
}

#[derive(Deserialize, Default)]
struct WithdrawRequest {
    #[serde(default)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Withdrawn {
    #[serde(flatten)]
    outcome: Outcome,
    /// Rows of that version that were published again since; they stay.
    published_since: usize,
}

async fn withdraw(
    State(api): State<App>,
    Operator(by): Operator,
    Path((table, version)): Path<(String, u64)>,
    Json(request): Json<WithdrawRequest>,
) -> Result<Json<Withdrawn>, ApiError> {
    let table = table_name(&table)?;
    scheduled::check_is_own(&api.publisher, &table)?;
    let withdrawn = take_back(&api.publisher, &table, Seq(version), &by, request.dry_run).await?;
    let (outcome, published_since) = withdrawn;
    Ok(Json(Withdrawn { outcome, published_since }))
}

#[derive(Deserialize, Default)]
struct ListQuery {
    table: Option<TableName>,
    /// So many of the newest.
    limit: Option<usize>,
}

async fn list(
    State(api): State<App>,
    _: Viewer,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<Arrived>>, ApiError> {
    if let Some(table) = query.table.as_ref().filter(|table| api.publisher.tables.get(table).is_none()) {
        return Err(HqError::NotFound(format!("HQ does not publish a table {table}")).into());
    }
    let mut all = arrived(&api.publisher, &api.answers.arrivals());
    all.retain(|arrived| query.table.as_ref().is_none_or(|table| arrived.publication.table == *table));
    all.truncate(query.limit.unwrap_or(usize::MAX));
    Ok(Json(all))
}

#[derive(Deserialize, Default)]
struct ArrivalsQuery {
    table: Option<TableName>,
    site: Option<SiteId>,
    /// Only sites that lack the newest version.
    #[serde(default)]
    lacking: bool,
}

#[derive(Serialize)]
struct Arrivals {
    /// Sites that should have a table, counted for each table.
    sites: usize,
    arrivals: Vec<Arrival>,
}

async fn list_arrivals(State(api): State<App>, _: Viewer, Query(query): Query<ArrivalsQuery>) -> Json<Arrivals> {
    let mut all = api.answers.arrivals();
    all.retain(|arrival| {
        query.table.as_ref().is_none_or(|table| arrival.table == *table)
            && query.site.as_ref().is_none_or(|site| arrival.site == *site)
    });
    let sites = all.len();
    all.retain(|arrival| !query.lacking || arrival.lacks.is_some());
    Json(Arrivals { sites, arrivals: all })
}
