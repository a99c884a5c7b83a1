//! The API's part about batches in quarantine, and about how much a site may have HQ keep.

use arrow_array::Array;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    routing::{get, post},
};
use rollcall_lake::{LakeError, SiteClock, StateView};
use rollcall_types::columns;
use rollcall_wire::batch::{self, Encoded};
use serde::{Deserialize, Serialize};

use rollcall_books::{
    quarantine::{Decided, Decision, KeptView, State as KeptState},
    quotas::Limits,
    restate::{self, Wish},
};
use rollcall_gateway::problems;
use rollcall_registry::HqError;

use crate::caller::{ApiError, App, Operator, Viewer};

/// Rows of a table that are shown at most.
const ROWS_SHOWN: usize = 1000;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/quarantine", get(list))
        .route("/api/quarantine/{id}", get(show))
        .route("/api/quarantine/{id}/take", post(take))
        .route("/api/quarantine/{id}/give-up", post(give_up))
        .route("/api/quotas", get(quotas).put(set_quotas))
}

async fn quotas(State(api): State<App>, _: Viewer) -> Json<Limits> {
    Json(api.books.quotas.limits())
}

async fn set_quotas(
    State(api): State<App>,
    Operator(by): Operator,
    Json(limits): Json<Limits>,
) -> Result<Json<Limits>, ApiError> {
    tracing::warn!(?limits, by, "a person set quotas");
    api.books.quotas.set(limits, &by, api.registry.now()).await.map_err(HqError::from)?;
    Ok(Json(limits))
}

#[derive(Deserialize, Default)]
struct ListQuery {
    #[serde(default)]
    all: bool,
}

/// Batches that wait for somebody; with `all=true` also those that were dealt with.
async fn list(State(api): State<App>, _: Viewer, Query(query): Query<ListQuery>) -> Json<Vec<KeptView>> {
    use KeptState::{Asked, Waits};
    let mut all = api.books.quarantine.list(&api.registry.roster.all());
    all.retain(|kept| query.all || matches!(kept.state, Waits | Asked));
    Json(all)
}

/// A batch in quarantine with its rows.
#[derive(Serialize)]
struct Shown {
    about: KeptView,
    /// What would be wrong with it if it came now.
    problems: Vec<String>,
    /// Why its rows cannot be shown.
    unreadable: Option<String>,
    parts: Vec<ShownTable>,
}

#[derive(Serialize)]
struct ShownTable {
    table: String,
    columns: Vec<String>,
    /// As text; the first thousand.
    rows: Vec<Vec<Option<String>>>,
    count: usize,
}

async fn show(State(api): State<App>, _: Viewer, Path(id): Path<String>) -> Result<Json<Shown>, ApiError> {
    let (about, encoded) = api.books.quarantine.find(&id, &api.registry.roster.all()).await?;
    let problems = problems_now(&api, &about, &encoded).await;
    let (parts, unreadable) = match batch::decode(&encoded) {
        Ok(batch) => (batch.parts.iter().map(|part| shown(&part.table, &part.rows)).collect(), None),
        Err(error) => (Vec::new(), Some(rollcall_types::describe(&error))),
    };
    Ok(Json(Shown { about, problems, unreadable, parts }))
}

fn shown(table: &str, rows: &arrow_array::RecordBatch) -> ShownTable {
    let options = FormatOptions::default();
    let formatters: Vec<_> =
        rows.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).ok()).collect();
    let names = rows.schema_ref().fields().iter().map(|field| field.name());
    let op = names.clone().position(|name| name == columns::OP);
    let value = |place: usize, row: usize| {
        let (column, formatter) = (rows.column(place), formatters[place].as_ref()?);
        let text = formatter.value(row).to_string();
        // Operations are letters.
        let letter = |text: String| text.parse().ok().map(|byte: u8| char::from(byte).to_string());
        column.is_valid(row).then_some(text).and_then(|text| if op == Some(place) { letter(text) } else { Some(text) })
    };
    let of_row = |row: usize| (0..rows.num_columns()).map(|place| value(place, row)).collect();
    ShownTable {
        table: table.to_owned(),
        columns: names.cloned().collect(),
        rows: (0..rows.num_rows().min(ROWS_SHOWN)).map(of_row).collect(),
        count: rows.num_rows(),
    }
}

/// What would be wrong with a batch if it came now.
async fn problems_now(api: &App, about: &KeptView, encoded: &Encoded) -> Vec<String> {
    let zone = api.registry.roster.get(&about.site).map(|record| record.zone()).unwrap_or_default();
    let clock = SiteClock { zone, offset_micros: 0 };
    problems(&api.registry.lake, encoded, clock).await
}

#[derive(Deserialize, Default)]
struct DecisionRequest {
    #[serde(default)]
    reason: String,
}

/// What hindered a batch is mended: its site is to state everything again, since changes that came
/// later stand on it.
async fn take(
    State(api): State<App>,
    Operator(by): Operator,
    Path(id): Path<String>,
    Json(request): Json<DecisionRequest>,
) -> Result<Json<KeptView>, ApiError> {
    // What was mended at the store is not in this batch, and comes all the same.
    let (about, _) = waiting(&api, &id).await?;
    let record = api.registry.roster.get(&about.site).ok_or_else(|| api.registry.roster.unlisted(&about.site))?;
    let (now, lake) = (api.registry.now(), &api.registry.lake);
    let reason = format!("batch {id} can be taken out of quarantine, {by} says");
    let wish = Wish::new(lake, &record, about.kept.tables.clone(), false, reason);
    let update = |view: &StateView| {
        let open = restate::open(lake, view, &about.site, &record).map(|(_, wish)| wish);
        Ok::<_, LakeError>((vec![wish.clone().with(open).record(view, &about.site, now, &by)?], ()))
    };
    lake.state().update(update).await.map_err(HqError::from)?;
    decide(&api, &id, Decided::Taken, by, request.reason).await
}

async fn give_up(
    State(api): State<App>,
    Operator(by): Operator,
    Path(id): Path<String>,
    Json(request): Json<DecisionRequest>,
) -> Result<Json<KeptView>, ApiError> {
    if request.reason.trim().is_empty() {
        return Err(HqError::Invalid("rows are given up for a reason only; say why".to_owned()).into());
    }
    waiting(&api, &id).await?;
    decide(&api, &id, Decided::GivenUp, by, request.reason).await
}

async fn waiting(api: &App, id: &str) -> Result<(KeptView, Encoded), HqError> {
    use KeptState::{Asked, Waits};
    let (about, encoded) = api.books.quarantine.find(id, &api.registry.roster.all()).await?;
    match about.state {
        Waits | Asked => Ok((about, encoded)),
        _ => Err(HqError::Invalid(format!("{id} does not wait any more: it was dealt with"))),
    }
}

async fn decide(api: &App, id: &str, what: Decided, by: String, reason: String) -> Result<Json<KeptView>, ApiError> {
    let reason = reason.trim().to_owned();
    tracing::warn!(id, ?what, by, reason, "a person decided about a batch in quarantine");
    api.books.quarantine.decide(id, Decision { what, by, reason, at: api.registry.now() }).await?;
    api.books.quarantine.look().await.map_err(HqError::from)?;
    Ok(Json(api.books.quarantine.find(id, &api.registry.roster.all()).await?.0))
}
