//! Who calls, as far as they proved it, and how they are refused.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json,
    extract::{ConnectInfo, FromRequestParts},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use rollcall_gateway::IN_DOUBT;
use rollcall_query::QueryError;
use rollcall_registry::HqError;
use rollcall_types::{SiteId, describe};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    Api,
    access::{OPERATOR, Role, user_of},
    audit::Doer,
    callers::{Identity, Proof},
};

/// What every handler is given.
pub(crate) type App = Arc<Api>;

/// Whoever calls, by password or token; may be one who sees only some sites.
pub(crate) struct Reader(pub Identity);
/// One who sees all sites.
pub(crate) struct Viewer;
/// One who may act; their name.
pub(crate) struct Operator(pub String);
/// One who may change users and channels; their name.
pub(crate) struct Admin(pub String);

async fn identify(parts: &mut Parts, api: &App) -> Result<Identity, Response> {
    let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let is_token = given.as_ref().is_some_and(|given| given.starts_with("Bearer "));
    let has_proof = given.is_some();
    let proof = if is_token { Proof::Token } else { Proof::Password };
    let identity = match given {
        Some(given) => match given.strip_prefix("Bearer ") {
            // Who has a token waits for nobody's password.
            Some(token) => api.credentials.bearer(token.trim(), api.registry.now()),
            None => try_password(parts, api, given).await?,
        },
        None => None,
    };
    // The operator's token is on HQ's own machine, and made from its key.
    if api.registry.lake.doubt().is_some() && identity.as_ref().is_none_or(|identity| identity.name != OPERATOR) {
        return Err(ApiError(StatusCode::SERVICE_UNAVAILABLE, IN_DOUBT.to_owned()).into_response());
    }
    if let Some(identity) = &identity {
        api.callers.came(&identity.name, address_of(parts), proof, api.registry.now());
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
async fn try_password(parts: &Parts, api: &App, given: String) -> Result<Option<Identity>, Response> {
    let address = address_of(parts).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let user = user_of(&given).unwrap_or_default();
    let must_wait = || {
        let wait = api.guesses.wait(&user, address, api.registry.now());
        wait.map(|wait| too_many(wait.as_secs() + 1))
    };
    if let Some(refusal) = must_wait() {
        return Err(refusal);
    }
    // Those in line are few, or one caller's guesses would keep everybody waiting.
    let _place = api.password_line.clone().try_acquire_owned().map_err(|_| too_many(1))?;
    let Ok(turn) = api.password_checks.clone().acquire_owned().await else { return Ok(None) };
    // Others may have been wrong meanwhile.
    if let Some(refusal) = must_wait() {
        return Err(refusal);
    }
    let identity = check_password(api, given, turn).await;
    if identity.is_none() {
        tracing::warn!(user, %address, "a wrong password over HTTP");
    }
    api.guesses.tried(&user, address, identity.is_some(), api.registry.now());
    Ok(identity)
}

fn too_many(seconds: u64) -> Response {
    let text = format!("too many wrong passwords; try again in {seconds} s");
    let headers = [(header::RETRY_AFTER, seconds.to_string())];
    (StatusCode::TOO_MANY_REQUESTS, headers, Json(json!({"error": text}))).into_response()
}

/// Checking a password is slow on purpose: it is kept off the threads that serve sites, and few at
/// a time.
async fn check_password(api: &App, given: String, turn: OwnedSemaphorePermit) -> Option<Identity> {
    let credentials = api.credentials.clone();
    let checked = rollcall_runtime::blocking(move || {
        // The turn lasts as long as the work, even if the caller is gone.
        let _turn = turn;
        credentials.check(&given)
    });
    checked.await.ok().flatten()
}

/// An identity that sees all sites and has at least this role.
async fn with_role(parts: &mut Parts, api: &App, role: Role) -> Result<Identity, Response> {
    let identity = identify(parts, api).await?;
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
    async fn from_request_parts(parts: &mut Parts, api: &App) -> Result<Self, Response> {
        identify(parts, api).await.map(Self)
    }
}

impl FromRequestParts<App> for Viewer {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, api: &App) -> Result<Self, Response> {
        with_role(parts, api, Role::Viewer).await.map(|_| Self)
    }
}

impl FromRequestParts<App> for Operator {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, api: &App) -> Result<Self, Response> {
        with_role(parts, api, Role::Operator).await.map(|identity| Self(identity.name))
    }
}

impl FromRequestParts<App> for Admin {
    type Rejection = Response;
    async fn from_request_parts(parts: &mut Parts, api: &App) -> Result<Self, Response> {
        with_role(parts, api, Role::Admin).await.map(|identity| Self(identity.name))
    }
}

pub(crate) struct ApiError(pub StatusCode, pub String);

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

/// The site of a path, refused if that is no name of one.
pub(crate) fn site_id(name: &str) -> Result<SiteId, ApiError> {
    SiteId::new(name).map_err(|error| ApiError(StatusCode::BAD_REQUEST, error.to_string()))
}
