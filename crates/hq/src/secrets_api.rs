//! The API's part about secrets: how old they are, and replacing those that HQ makes.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::HqError,
    http::{Admin, ApiError, Operator},
    node::Shared,
    secrets::{RotationView, SecretView, Secrets},
};

type App = Arc<Shared>;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/secrets", get(list))
        .route("/api/secrets/operator-token/rotate", post(rotate_operator_token))
        .route("/api/secrets/ca/rotate", post(rotate_ca))
        .route("/api/secrets/ca/finish", post(finish_ca))
}

#[derive(Serialize)]
struct SecretsView {
    secrets: Vec<SecretView>,
    ca_rotation: Option<RotationView>,
}

fn secrets(shared: &Shared) -> Secrets<'_> {
    Secrets {
        authority: &shared.authority,
        credentials: &shared.credentials,
        notifiers: &shared.notifiers,
        ledger: &shared.ledger,
        directory: &shared.config.data,
    }
}

fn view(shared: &Shared) -> SecretsView {
    let known = secrets(shared);
    SecretsView { secrets: known.all(shared.now()), ca_rotation: known.rotation(&shared.roster.all()) }
}

async fn list(State(shared): State<App>, _: Operator) -> Json<SecretsView> {
    Json(view(&shared))
}

async fn rotate_operator_token(State(shared): State<App>, Admin(by): Admin) -> Result<Json<SecretsView>, ApiError> {
    shared.credentials.replace_operator_token(shared.now()).await?;
    tracing::warn!(by, "the operator's token was replaced");
    Ok(Json(view(&shared)))
}

async fn rotate_ca(State(shared): State<App>, Admin(by): Admin) -> Result<Json<SecretsView>, ApiError> {
    if !shared.authority.begin_rotation(shared.now()).await? {
        return Err(
            HqError::Exists("a rotation is under way; `rollcall secrets` shows how far it is".to_owned()).into()
        );
    }
    tracing::warn!(by, "the certificate authority is being replaced");
    Ok(Json(view(&shared)))
}

#[derive(Deserialize, Default)]
struct Finish {
    /// Also where sites did not come with a new certificate yet: they must be invited anew.
    #[serde(default)]
    leave_behind: bool,
}

async fn finish_ca(
    State(shared): State<App>,
    Admin(by): Admin,
    Json(finish): Json<Finish>,
) -> Result<Json<SecretsView>, ApiError> {
    let Some(rotation) = secrets(&shared).rotation(&shared.roster.all()) else {
        return Err(HqError::Invalid("no rotation is under way".to_owned()).into());
    };
    if rotation.waiting > 0 && !finish.leave_behind {
        let named: Vec<&str> = rotation.waiting_sites.iter().take(10).map(|site| site.as_str()).collect();
        return Err(HqError::Invalid(format!(
            "{} sites have no certificate of the new authority yet ({}{}): wait for them, or leave them behind \
             (`--leave-behind`) and invite each anew",
            rotation.waiting,
            named.join(", "),
            if rotation.waiting > named.len() { ", …" } else { "" }
        ))
        .into());
    }
    shared.authority.end_rotation().await?;
    tracing::warn!(by, left_behind = rotation.waiting, "the certificate authority was replaced");
    Ok(Json(view(&shared)))
}
