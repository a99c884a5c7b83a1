//! `rollcall roster …`

use std::{collections::BTreeMap, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use rollcall_hq::{ImportReport, Invitation};
use serde_json::json;

use crate::client::{Client, HqAddress};

#[derive(Debug, Args)]
pub(crate) struct RosterArgs {
    #[command(subcommand)]
    command: Option<RosterCommand>,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Subcommand)]
enum RosterCommand {
    /// Add and update sites from CSV: id, and any other columns as attributes. Never drops a site.
    Import {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Print a single-use invitation for a site; it is added to the roster if need be.
    Invite {
        /// The site's id.
        site: String,
        /// An attribute, such as state=WA; may be given several times.
        #[arg(long, value_name = "K=V")]
        set: Vec<String>,
        /// How long the invitation is good for.
        #[arg(long, default_value_t = 168, value_name = "HOURS")]
        hours: u64,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Invitations: for whom, by whom, and whether they were used.
    Invitations {
        /// For programs.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Revoke an invitation that was not used.
    Revoke {
        /// Which one, as `rollcall roster invitations` calls it.
        id: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Have sites send everything again, as `rollcall-site resend` does there: after HQ was restored from a backup.
    Resend {
        /// The sites' ids.
        #[arg(required_unless_present = "refused")]
        sites: Vec<String>,
        /// All that are refused because HQ's lake lacks what it confirmed to them.
        #[arg(long)]
        refused: bool,
        /// Why; it is kept.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Take a site off the roster and cut it off at once.
    Retire {
        /// The site's id.
        site: String,
        /// Why; it is kept.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        hq: HqAddress,
    },
}

pub(crate) fn run(args: RosterArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        None => list(&Client::find(&args.hq)?, args.json)?,
        Some(RosterCommand::Import { file, hq }) => import(&Client::find(&hq)?, &file)?,
        Some(RosterCommand::Invite { site, set, hours, hq }) => invite(&Client::find(&hq)?, &site, &set, hours)?,
        Some(RosterCommand::Invitations { json, hq }) => invitations(&Client::find(&hq)?, json)?,
        Some(RosterCommand::Revoke { id, hq }) => {
            let answer: serde_json::Value = Client::find(&hq)?.delete(&format!("/api/invitations/{id}"))?;
            eprintln!("the invitation for {} lets nobody in any more", answer["site"].as_str().unwrap_or_default());
        }
        Some(RosterCommand::Resend { sites, refused, reason, hq }) => {
            let body = json!({"sites": sites, "refused": refused, "reason": reason});
            let answer: serde_json::Value = Client::find(&hq)?.post("/api/resend", &body)?;
            let told: Vec<&str> =
                answer["sites"].as_array().into_iter().flatten().filter_map(|site| site.as_str()).collect();
            let left_out: Vec<&str> =
                answer["not_enrolled"].as_array().into_iter().flatten().filter_map(|site| site.as_str()).collect();
            say_names("not enrolled, and left out", &left_out);
            if told.is_empty() {
                eprintln!("no site is refused for what HQ lacks");
            } else {
                eprintln!(
                    "{} sites send everything again when they call next, within seconds if they are there",
                    told.len()
                );
                say_names("which", &told);
            }
        }
        Some(RosterCommand::Retire { site, reason, hq }) => {
            let path = format!("/api/roster/{site}/retire");
            let answer: serde_json::Value = Client::find(&hq)?.post(&path, &json!({"reason": reason}))?;
            eprintln!("{site} is retired and cut off; {} of its rows were not confirmed", answer["unconfirmed_rows"]);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn import(client: &Client, file: &std::path::Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let report: ImportReport = client.post_csv("/api/roster", &text)?;
    eprintln!("{} added, {} changed, {} unchanged", report.added, report.changed, report.unchanged);
    say_names("on the roster but not in the file (they stay)", &report.not_in_file);
    say_names("never enrolled", &report.never_enrolled);
    say_names("unknown senders that tried to connect", &report.unknown_senders);
    Ok(())
}

/// Names that are said before the rest is counted.
const NAMED_MAX: usize = 20;

fn say_names(what: &str, names: &[impl std::fmt::Display]) {
    if names.is_empty() {
        return;
    }
    let named: Vec<String> = names.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more (`rollcall roster` lists them)") } else { String::new() };
    eprintln!("{what}: {}{more}", named.join(", "));
}

fn invite(client: &Client, site: &str, set: &[String], hours: u64) -> anyhow::Result<()> {
    let mut attributes = BTreeMap::new();
    for pair in set {
        let Some((name, value)) = pair.split_once('=') else { bail!("--set {pair:?}: write it as name=value") };
        attributes.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
    }
    let body = json!({"attributes": attributes, "life_seconds": hours * 3600});
    let invitation: Invitation = client.post(&format!("/api/roster/{site}/invite"), &body)?;
    println!("{}", invitation.token);
    eprintln!("for {site}, once, until {}. At the site run:", invitation.expires_at);
    eprintln!("  rollcall-site join TOKEN --hq HOST:7400 --db FILE --tables a,b --run");
    Ok(())
}

fn invitations(client: &Client, json: bool) -> anyhow::Result<()> {
    let text = client.get("/api/invitations")?;
    if json {
        println!("{text}");
        return Ok(());
    }
    let all: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["invitation", "site", "made", "by", "good until", "used"]);
    for one in &all {
        let text = |name: &str| one[name].as_str().unwrap_or("-").to_owned();
        let used = if one["is_over"] == true { "never; it is over".to_owned() } else { text("used_at") };
        table.add_row([text("id"), text("site"), text("made_at"), text("by"), text("expires_at"), used]);
    }
    println!("{table}");
    Ok(())
}

fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let text = client.get("/api/roster")?;
    if json {
        println!("{text}");
        return Ok(());
    }
    let sites: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["site", "attributes", "enrolled", "epoch", "retired"]);
    for site in &sites {
        let attributes = site["attributes"].as_object().into_iter().flatten();
        let attributes: Vec<String> =
            attributes.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::Null => "-".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.add_row([
            text(&site["id"]),
            attributes.join(" "),
            text(&site["enrolled_at"]),
            text(&site["epoch"]),
            text(&site["retired"]["reason"]),
        ]);
    }
    println!("{table}");
    eprintln!("{} sites", sites.len());
    Ok(())
}
