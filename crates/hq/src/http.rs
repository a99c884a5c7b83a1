//! The API: SQL, the roll, the roster. JSON; every call but the probes needs a password or token.

use rollcall_types::describe;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::{ConnectInfo, FromRequestParts, Path, Request, State},
    http::{StatusCode, header, request::Parts},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use rollcall_query::{Extras, Planned, QueryError, Question};
use rollcall_types::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    access::{self, IN_DOUBT, OPERATOR, Role, Token, User, WantedUser, user_of},
    audit::{self, Doer},
    callers::{Identity, Proof},
    capacity,
    error::HqError,
    hear_out::{BODY_BYTES_MAX, hear_out},
    incidents_api, lives_api,
    node::Shared,
    origin::refuse_elsewhere,
    published_api, quarantine_api,
    relay::Relay,
    roster_api, secrets_api, settings_api,
    sql_api::{self, Questions, SqlApi},
    table_settings::{self, TableSettings},
    web_port::hurry,
};

pub(crate) type App = Arc<Shared>;

/// The routes of the API.
pub(crate) fn router(shared: App) -> Router {
    let sql = SqlApi {
        questions: Arc::new(Asked(shared.clone())),
        longest: shared.engine.limits().time_max,
        stop: shared.stop.clone(),
    };
    let sql = sql_api::routes(sql).route_layer(from_fn_with_state(shared.clone(), say_who_asks));
    Router::new()
        .merge(sql)
        .route("/", get(index))
        .route("/live", get(|| async { "alive\n" }))
        .route("/ready", get(ready))
        .route("/api/nodes", get(nodes))
        .route("/api/roll", get(roll))
        .route("/api/tables", get(tables))
        .route("/api/tables/{table}", axum::routing::put(set_table))
        .route("/api/users", get(users))
        .route("/api/users/{name}", axum::routing::put(set_user).delete(remove_user))
        .route("/api/users/{name}/tokens", get(tokens))
        .route("/api/users/{name}/tokens/{token}", axum::routing::put(make_token).delete(remove_token))
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
        .layer(from_fn_with_state(shared.clone(), audit::record))
        .layer(from_fn(refuse_elsewhere))
        .layer(from_fn(hear_out))
        .layer(from_fn(hurry))
        .with_state(shared)
}

/// Questions to this node.
struct Asked(App);

#[async_trait]
impl Questions for Asked {
    async fn plan(&self, sql: &str, caller: &Identity) -> Result<Planned, QueryError> {
        let extras = Extras { user: Some(caller.name.clone()), ..self.0.extras(&caller.sees) };
        self.0.engine.plan(Question::Text(sql.to_owned()), extras).await
    }
}

/// For routes that know nothing of passwords.
async fn say_who_asks(Reader(caller): Reader, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Whoever calls, by password or token; may be one who sees only some sites.
pub(crate) struct Reader(pub(crate) Identity);
/// One who sees all sites.
pub(crate) struct Viewer;
/// One who may act; their name.
pub(crate) struct Operator(pub(crate) String);
/// One who may change users and channels; their name.
pub(crate) struct Admin(pub(crate) String);

async fn identify(parts: &mut Parts, shared: &App) -> Result<Identity, Response> {
    let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let is_token = given.as_ref().is_some_and(|given| given.starts_with("Bearer "));
    let has_proof = given.is_some();
    let proof = if is_token { Proof::Token } else { Proof::Password };
    let identity = match given {
        Some(given) => match given.strip_prefix("Bearer ") {
            // Who has a token waits for nobody's password.
            Some(token) => shared.credentials.bearer(token.trim(), shared.now()),
            None => try_password(parts, shared, given).await?,
        },
        None => None,
    };
    // The operator's token is on HQ's own machine, and made from its key.
    if shared.lake.doubt().is_some() && identity.as_ref().is_none_or(|identity| identity.name != OPERATOR) {
        return Err(ApiError(StatusCode::SERVICE_UNAVAILABLE, IN_DOUBT.to_owned()).into_response());
    }
    if let Some(identity) = &identity {
        shared.callers.came(&identity.name, address_of(parts), proof, shared.now());
    }
    if let (Some(identity), Some(doer)) = (&identity, parts.extensions.get::<Doer>()) {
        doer.is(&identity.name);
    }
    identity.ok_or_else(|| {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"rollcall\"")];
        let error = json!({"error": match (has_proof, proof) {
            (false, _) => "a password (of user admin, for one) or a token is needed",
            (true, Proof::Token) => "this token is not known here: it is misspelt, was removed or has expired",
            (true, _) => "wrong user or password",
        }});
        (StatusCode::UNAUTHORIZED, challenge, Json(error)).into_response()
    })
}

/// Where a request comes from.
fn address_of(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip())
}

/// Who has this password; whoever guessed before waits first.
async fn try_password(parts: &Parts, shared: &App, given: String) -> Result<Option<Identity>, Response> {
    let address = address_of(parts).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let user = user_of(&given).unwrap_or_default();
    let must_wait = || {
        let wait = shared.guesses.wait(&user, address, shared.now());
        wait.map(|wait| too_many(wait.as_secs() + 1))
    };
    if let Some(refusal) = must_wait() {
        return Err(refusal);
    }
    // Those in line are few, or one caller's guesses would keep everybody waiting.
    let _place = shared.password_line.clone().try_acquire_owned().map_err(|_| too_many(1))?;
    let Ok(turn) = shared.password_checks.clone().acquire_owned().await else { return Ok(None) };
    // Others may have been wrong meanwhile.
    if let Some(refusal) = must_wait() {
        return Err(refusal);
    }
    let identity = check_password(shared, given, turn).await;
    if identity.is_none() {
        tracing::warn!(user, %address, "a wrong password over HTTP");
    }
    shared.guesses.tried(&user, address, identity.is_some(), shared.now());
    Ok(identity)
}

fn too_many(seconds: u64) -> Response {
    let text = format!("too many wrong passwords; try again in {seconds} s");
    let headers = [(header::RETRY_AFTER, seconds.to_string())];
    (StatusCode::TOO_MANY_REQUESTS, headers, Json(json!({"error": text}))).into_response()
}

/// Checking a password is slow on purpose: it is kept off the threads that serve sites, and few at
/// a time.
async fn check_password(shared: &App, given: String, turn: OwnedSemaphorePermit) -> Option<Identity> {
    let credentials = shared.credentials.clone();
    let checked = tokio::task::spawn_blocking(move || {
        // The turn lasts as long as the work, even if the caller is gone.
        let _turn = turn;
        credentials.check(&given)
    });
    checked.await.ok().flatten()
}

/// An identity that sees all sites and has at least this role.
async fn with_role(parts: &mut Parts, shared: &App, role: Role) -> Result<Identity, Response> {
    let identity = identify(parts, shared).await?;
    let problem = if identity.role < role {
        format!("user {} may not do this; it takes a user with the role {role:?}", identity.name)
    } else if !identity.sees.is_empty() {
        format!("user {} sees only some sites, and this concerns all", identity.name)
    } else {
        return Ok(identity);
    };
    Err(ApiError(StatusCode::FORBIDDEN, problem).into_response())
}

impl FromRequestParts<App> for Reader {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, shared: &App) -> Result<Self, Response> {
        identify(parts, shared).await.map(Self)
    }
}

impl FromRequestParts<App> for Viewer {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, shared: &App) -> Result<Self, Response> {
        with_role(parts, shared, Role::Viewer).await.map(|_| Self)
    }
}

impl FromRequestParts<App> for Operator {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, shared: &App) -> Result<Self, Response> {
        with_role(parts, shared, Role::Operator).await.map(|identity| Self(identity.name))
    }
}

impl FromRequestParts<App> for Admin {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, shared: &App) -> Result<Self, Response> {
        with_role(parts, shared, Role::Admin).await.map(|identity| Self(identity.name))
    }
}

pub(crate) struct ApiError(pub(crate) StatusCode, pub(crate) String);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

impl From<HqError> for ApiError {
    fn from(error: HqError) -> Self {
        let status = match error {
            HqError::Invalid(_) => StatusCode::BAD_REQUEST,
            HqError::NotFound(_) => StatusCode::NOT_FOUND,
            HqError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            HqError::Exists(_) | HqError::Outdated => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, describe(&error))
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let status = match error {
            QueryError::Syntax(_)
            | QueryError::Sql(_)
            | QueryError::Unknown { .. }
            | QueryError::Unsupported(_)
            | QueryError::Value { .. } => StatusCode::BAD_REQUEST,
            QueryError::Limit(_) | QueryError::TooComplex(_) => StatusCode::UNPROCESSABLE_ENTITY,
            QueryError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            QueryError::Failed(_) | QueryError::Panicked(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, describe(&error))
    }
}

/// Whether a load balancer should send anybody here.
async fn ready(State(shared): State<App>) -> (StatusCode, &'static str) {
    if shared.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    if capacity::is_nearly_full(shared.sessions.count(), shared.capacity) {
        return (StatusCode::SERVICE_UNAVAILABLE, "nearly as many sites as open files\n");
    }
    let is_heard = shared.relay.as_ref().is_none_or(|relay| relay.is_alive(relay.node()));
    match shared.ingest.is_well() && is_heard {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the lake cannot be written\n"),
    }
}

/// The nodes of this HQ that are alive, the one asked first.
async fn nodes(State(shared): State<App>, _: Viewer) -> Json<serde_json::Value> {
    let acting = shared.acting_node();
    let nodes = shared.relay.as_ref().map(Relay::nodes).unwrap_or_default();
    let node =
        |(node, sites): (String, String)| json!({"acts": acting.as_ref() == Some(&node), "node": node, "sites": sites});
    Json(nodes.into_iter().map(node).collect())
}

async fn index(State(shared): State<App>) -> Json<serde_json::Value> {
    Json(json!({
        "product": "rollcall",
        "version": env!("CARGO_PKG_VERSION"),
        "lake": shared.lake.id(),
        "api": "/api/openapi.json",
    }))
}

/// Every site table, with what was declared of it.
async fn tables(State(shared): State<App>, _: Viewer) -> Json<BTreeMap<String, TableSettings>> {
    let mut declared = table_settings::all(&shared.lake);
    let tables = shared.lake.shown_tables().into_keys();
    Json(tables.map(|name| (name.to_string(), declared.remove(&name).unwrap_or_default())).collect())
}

async fn set_table(
    State(shared): State<App>,
    Operator(by): Operator,
    Path(table): Path<String>,
    Json(settings): Json<TableSettings>,
) -> Result<Json<TableSettings>, ApiError> {
    table_settings::set(&shared, &table, settings.clone(), &by).await?;
    Ok(Json(settings))
}

/// A user, as shown: without a trace of the password.
#[derive(Serialize)]
struct UserView {
    role: Role,
    sees: BTreeMap<String, String>,
    strict: bool,
}

async fn users(State(shared): State<App>, _: Admin) -> Json<BTreeMap<String, UserView>> {
    let view = |user: User| UserView { role: user.role, sees: user.sees, strict: user.strict };
    Json(shared.credentials.users().into_iter().map(|(name, user)| (name, view(user))).collect())
}

#[derive(Deserialize)]
struct UserRequest {
    #[serde(flatten)]
    wanted: WantedUser,
    #[serde(default)]
    password: Option<String>,
    /// Make one in the place of the one there is.
    #[serde(default)]
    new_password: bool,
}

async fn set_user(
    State(shared): State<App>,
    Admin(by): Admin,
    Path(name): Path<String>,
    Json(request): Json<UserRequest>,
) -> Result<Response, ApiError> {
    let new = request.new_password.then(access::new_password).transpose()?;
    let password = new.as_deref().or(request.password.as_deref());
    let made = shared.credentials.set(&name, &request.wanted, password, shared.now()).await?.or(new);
    let user = shared.credentials.user(&name);
    let (role, sees) = user.map_or_else(Default::default, |user| (Some(user.role), user.sees));
    tracing::info!(user = name, ?role, ?sees, by, "a user was set");
    let seen = shared.roster.all().values().filter(|record| record.retired.is_none() && record.has(&sees)).count();
    let answer = json!({"user": name, "password": made, "role": role, "sees": sees, "sites_seen": seen});
    Ok(Json(answer).into_response())
}

async fn remove_user(
    State(shared): State<App>,
    Admin(by): Admin,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    if !shared.credentials.remove(&name).await? {
        return Err(ApiError(StatusCode::NOT_FOUND, format!("there is no user {name}")));
    }
    tracing::info!(user = name, by, "a user was removed");
    Ok(Json(json!({"removed": name})).into_response())
}

/// A token, as shown: without a trace of itself.
#[derive(Serialize)]
struct TokenView {
    made_at: Timestamp,
    expires_at: Timestamp,
}

async fn tokens(State(shared): State<App>, _: Admin, Path(name): Path<String>) -> Json<BTreeMap<String, TokenView>> {
    let view = |token: Token| TokenView { made_at: token.made_at, expires_at: token.expires_at };
    Json(shared.credentials.tokens(&name).into_iter().map(|(name, token)| (name, view(token))).collect())
}

#[derive(Deserialize)]
struct TokenRequest {
    #[serde(default = "token_days")]
    days: u32,
}

/// A token that nobody renews ends within a quarter.
fn token_days() -> u32 {
    90
}

async fn make_token(
    State(shared): State<App>,
    Admin(by): Admin,
    Path((name, token)): Path<(String, String)>,
    Json(request): Json<TokenRequest>,
) -> Result<Response, ApiError> {
    let now = shared.now();
    let expires_at = now.plus_micros(i64::from(request.days) * 86_400_000_000);
    let made = shared.credentials.make_token(&name, &token, now, expires_at).await?;
    tracing::info!(user = name, token, by, "a token was made");
    Ok(Json(json!({"token": made, "expires_at": expires_at})).into_response())
}

async fn remove_token(
    State(shared): State<App>,
    Admin(by): Admin,
    Path((name, token)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    if !shared.credentials.remove_token(&name, &token).await? {
        return Err(ApiError(StatusCode::NOT_FOUND, format!("user {name} has no token {token}")));
    }
    tracing::info!(user = name, token, by, "a token was revoked");
    Ok(Json(json!({"removed": token})).into_response())
}

async fn roll(State(shared): State<App>, Reader(caller): Reader) -> Response {
    let roster = shared.roster.all();
    let is_seen = |site: &SiteId| roster.get(site).is_some_and(|record| record.has(&caller.sees));
    let mut roll = shared.roll();
    roll.retain(|entry| caller.sees.is_empty() || is_seen(&entry.site));
    Json(roll).into_response()
}

/// Who logged in at this node since it started.
async fn sessions(State(shared): State<App>, _: Admin) -> Response {
    Json(shared.callers.all()).into_response()
}

/// Ends this node, as a signal does; its last commits are made before the process is gone.
async fn stop(State(shared): State<App>, Admin(by): Admin) -> Json<serde_json::Value> {
    tracing::warn!(by, "asked to stop");
    shared.stop.cancel();
    Json(json!({"stopping": true}))
}

pub(crate) fn site_id(name: &str) -> Result<SiteId, ApiError> {
    SiteId::new(name).map_err(|error| ApiError(StatusCode::BAD_REQUEST, error.to_string()))
}
