//! `rollcall secrets`: keys, tokens and passwords, how old they are, and replacing them.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use rollcall_site::local;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    FINDING,
    client::{Client, HqAddress},
    lake::PlaceArgs,
};

#[derive(Debug, Args)]
pub(crate) struct SecretsArgs {
    #[command(subcommand)]
    command: Option<SecretsCommand>,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Subcommand)]
enum SecretsCommand {
    /// Replace one.
    Rotate {
        #[command(subcommand)]
        what: Rotate,
    },
    /// End the rotation of the certificate authority: the one before is believed in no more.
    Finish {
        /// Also where sites have no certificate of the new one yet; each must be invited anew.
        #[arg(long)]
        leave_behind: bool,
        #[command(flatten)]
        hq: HqAddress,
    },
}

#[derive(Debug, Subcommand)]
enum Rotate {
    /// The certificate authority. Connected sites get certificates of the new one within minutes,
    /// others when they come; `rollcall secrets` shows who is missing, and `rollcall secrets
    /// finish` ends it.
    Ca {
        #[command(flatten)]
        hq: HqAddress,
    },
    /// The token by which commands on HQ's own machine are let in; copies of it elsewhere are worth
    /// nothing then.
    OperatorToken {
        #[command(flatten)]
        hq: HqAddress,
    },
    /// The key with which the lake's secrets are sealed. HQ must not run meanwhile.
    NodeKey {
        #[command(flatten)]
        place: PlaceArgs,
    },
}

#[derive(Debug, Deserialize)]
struct Secrets {
    secrets: Vec<Secret>,
    ca_rotation: Option<Rotation>,
}

#[derive(Debug, Deserialize)]
struct Secret {
    what: String,
    made_at: Option<String>,
    expires_at: Option<String>,
    advice: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Rotation {
    since: String,
    moved: usize,
    waiting: usize,
    waiting_sites: Vec<String>,
}

pub(crate) fn run(args: SecretsArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        None => list(&Client::find(&args.hq)?, args.json),
        Some(SecretsCommand::Rotate { what: Rotate::Ca { hq } }) => {
            let after: Value = Client::find(&hq)?.post("/api/secrets/ca/rotate", &json!({}))?;
            tell_rotation(&serde_json::from_value(after["ca_rotation"].clone())?);
            Ok(ExitCode::SUCCESS)
        }
        Some(SecretsCommand::Rotate { what: Rotate::OperatorToken { hq } }) => {
            let _: Value = Client::find(&hq)?.post("/api/secrets/operator-token/rotate", &json!({}))?;
            eprintln!("the operator's token is replaced on every node; the old one is no longer valid");
            Ok(ExitCode::SUCCESS)
        }
        Some(SecretsCommand::Rotate { what: Rotate::NodeKey { place } }) => {
            let place = rollcall_hq::LakePlace::from(place);
            let count = crate::runtime()?.block_on(rollcall_hq::rotate_node_key(&place))?;
            let key = place.data.join("node.key");
            eprintln!("{count} secrets are encrypted with a new key, which is in {}.", key.display());
            eprintln!(
                "Copy it to every other node before that starts, and to where its backup is. The operator's token is another too."
            );
            Ok(ExitCode::SUCCESS)
        }
        Some(SecretsCommand::Finish { leave_behind, hq }) => {
            let _: Value = Client::find(&hq)?.post("/api/secrets/ca/finish", &json!({"leave_behind": leave_behind}))?;
            eprintln!("only the new certificate authority is trusted now; earlier invitations must be made again");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let text = client.get("/api/secrets")?;
    let known: Secrets = serde_json::from_str(&text)?;
    let is_advised = known.secrets.iter().any(|secret| secret.advice.is_some());
    let code = if is_advised { ExitCode::from(FINDING) } else { ExitCode::SUCCESS };
    if json {
        outln!("{text}");
        return Ok(code);
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["secret", "made", "expires", "what to do"]);
    for secret in known.secrets {
        let time = |text: Option<String>| text.map(|text| text.parse().map_or(text, local));
        let made = time(secret.made_at).unwrap_or_else(|| "not noted".to_owned());
        let expires = time(secret.expires_at).unwrap_or_else(|| "-".to_owned());
        table.add_row([secret.what, made, expires, secret.advice.unwrap_or_else(|| "-".to_owned())]);
    }
    outln!("{table}");
    if let Some(rotation) = known.ca_rotation {
        tell_rotation(&rotation);
    }
    Ok(code)
}

fn tell_rotation(rotation: &Rotation) {
    let Rotation { since, moved, waiting, waiting_sites } = rotation;
    eprintln!(
        "the certificate authority is being replaced since {since}: {moved} sites have a certificate of the new one"
    );
    match waiting {
        0 => eprintln!("all do: `rollcall secrets finish` ends it"),
        _ => {
            let named: Vec<&str> = waiting_sites.iter().take(20).map(String::as_str).collect();
            let more = if *waiting > named.len() { ", …" } else { "" };
            eprintln!("{waiting} have none yet: {}{more}", named.join(", "));
        }
    }
}
