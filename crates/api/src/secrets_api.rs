//! The API's part about secrets: how old they are, and replacing those that HQ makes.

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use rollcall_registry::HqError;

use crate::{
    Api,
    caller::{Admin, ApiError, App, Operator},
    secrets::{RotationView, SecretView, Secrets},
};

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

fn secrets(api: &Api) -> Secrets<'_> {
    Secrets {
        authority: &api.authority,
        credentials: &api.credentials,
        notifiers: &api.alerts.notifiers,
        ledger: &api.registry.ledger,
        directory: &api.directory,
    }
}

fn view(api: &Api) -> SecretsView {
    let known = secrets(api);
    SecretsView { secrets: known.all(api.registry.now()), ca_rotation: known.rotation(&api.registry.roster.all()) }
}

async fn list(State(api): State<App>, _: Operator) -> Json<SecretsView> {
    Json(view(&api))
}

async fn rotate_operator_token(State(api): State<App>, Admin(by): Admin) -> Result<Json<SecretsView>, ApiError> {
    api.credentials.replace_operator_token(api.registry.now()).await?;
    tracing::warn!(by, "the operator's token was replaced");
    Ok(Json(view(&api)))
}

async fn rotate_ca(State(api): State<App>, Admin(by): Admin) -> Result<Json<SecretsView>, ApiError> {
    if !api.authority.begin_rotation(api.registry.now()).await? {
        return Err(
            HqError::Exists("a rotation is under way; `rollcall secrets` shows how far it is".to_owned()).into()
        );
    }
    tracing::warn!(by, "the certificate authority is being replaced");
    Ok(Json(view(&api)))
}

#[derive(Deserialize, Default)]
struct Finish {
    /// Also where sites did not come with a new certificate yet: they must be invited anew.
    #[serde(default)]
    leave_behind: bool,
}

async fn finish_ca(
    State(api): State<App>,
    Admin(by): Admin,
    Json(finish): Json<Finish>,
) -> Result<Json<SecretsView>, ApiError> {
    let Some(rotation) = secrets(&api).rotation(&api.registry.roster.all()) else {
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
    api.authority.end_rotation().await?;
    tracing::warn!(by, left_behind = rotation.waiting, "the certificate authority was replaced");
    Ok(Json(view(&api)))
}
