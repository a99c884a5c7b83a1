//! The API's part about users and their programs' tokens.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, put},
};
use rollcall_types::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    access::{self, Role, Token, User, WantedUser},
    caller::{Admin, ApiError, App},
};

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/users", get(users))
        .route("/api/users/{name}", put(set_user).delete(remove_user))
        .route("/api/users/{name}/tokens", get(tokens))
        .route("/api/users/{name}/tokens/{token}", put(make_token).delete(remove_token))
}

/// A user, as shown: without a trace of the password.
#[derive(Serialize)]
struct UserView {
    role: Role,
    sees: BTreeMap<String, String>,
    strict: bool,
}

async fn users(State(api): State<App>, _: Admin) -> Json<BTreeMap<String, UserView>> {
    let view = |user: User| UserView { role: user.role, sees: user.sees, strict: user.strict };
    Json(api.credentials.users().into_iter().map(|(name, user)| (name, view(user))).collect())
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
    State(api): State<App>,
    Admin(by): Admin,
    Path(name): Path<String>,
    Json(request): Json<UserRequest>,
) -> Result<Response, ApiError> {
    let new = request.new_password.then(access::new_password).transpose()?;
    let password = new.as_deref().or(request.password.as_deref());
    let made = api.credentials.set(&name, &request.wanted, password, api.registry.now()).await?.or(new);
    let user = api.credentials.user(&name);
    let (role, sees) = user.map_or_else(Default::default, |user| (Some(user.role), user.sees));
    tracing::info!(user = name, ?role, ?sees, by, "a user was set");
    let seen =
        api.registry.roster.all().values().filter(|record| record.retired.is_none() && record.has(&sees)).count();
    let answer = json!({"user": name, "password": made, "role": role, "sees": sees, "sites_seen": seen});
    Ok(Json(answer).into_response())
}

async fn remove_user(State(api): State<App>, Admin(by): Admin, Path(name): Path<String>) -> Result<Response, ApiError> {
    if !api.credentials.remove(&name).await? {
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

async fn tokens(State(api): State<App>, _: Admin, Path(name): Path<String>) -> Json<BTreeMap<String, TokenView>> {
    let view = |token: Token| TokenView { made_at: token.made_at, expires_at: token.expires_at };
    Json(api.credentials.tokens(&name).into_iter().map(|(name, token)| (name, view(token))).collect())
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
    State(api): State<App>,
    Admin(by): Admin,
    Path((name, token)): Path<(String, String)>,
    Json(request): Json<TokenRequest>,
) -> Result<Response, ApiError> {
    let now = api.registry.now();
    let expires_at = now.plus_micros(i64::from(request.days) * 86_400_000_000);
    let made = api.credentials.make_token(&name, &token, now, expires_at).await?;
    tracing::info!(user = name, token, by, "a token was made");
    Ok(Json(json!({"token": made, "expires_at": expires_at})).into_response())
}

async fn remove_token(
    State(api): State<App>,
    Admin(by): Admin,
    Path((name, token)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    if !api.credentials.remove_token(&name, &token).await? {
        return Err(ApiError(StatusCode::NOT_FOUND, format!("user {name} has no token {token}")));
    }
    tracing::info!(user = name, token, by, "a token was revoked");
    Ok(Json(json!({"removed": token})).into_response())
}
