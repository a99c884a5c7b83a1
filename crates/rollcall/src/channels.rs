//! `rollcall channels …`

use std::{io::Read, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Subcommand};
use rollcall_types::counted;
use serde_json::{Value, json};

use crate::{
    FINDING,
    client::{Client, HqAddress},
};

#[derive(Debug, Args)]
pub(crate) struct ChannelsArgs {
    #[command(subcommand)]
    command: Option<ChannelsCommand>,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Subcommand)]
enum ChannelsCommand {
    /// Add or replace a channel, described in JSON; docs/watch.md has an example of each kind.
    Set {
        /// Its name.
        name: String,
        /// A file with the description; standard input if not given, so that secrets need not be
        /// written down.
        #[arg(long)]
        from: Option<PathBuf>,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Send a test message.
    Test {
        /// Its name.
        name: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Show what a channel says of an incident, or in its roll call. Nobody is told.
    Preview {
        /// Its name.
        name: String,
        /// The incident's number; the daily roll call if not given.
        #[arg(long)]
        incident: Option<u64>,
        /// For programs; with the HTML of a mail.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Show who hears of a site's silence, from which level on.
    Who {
        /// The site's id.
        site: String,
        /// For programs.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Remove a channel.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        hq: HqAddress,
    },
}

pub(crate) fn run(args: ChannelsArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        None => return list(&Client::find(&args.hq)?, args.json),
        Some(ChannelsCommand::Set { name, from, hq }) => {
            let text = match from {
                Some(path) => std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?,
                None => {
                    let mut text = String::new();
                    std::io::stdin().read_to_string(&mut text)?;
                    text
                }
            };
            let channel: Value = serde_json::from_str(&text).context("the description of a channel is JSON")?;
            let answer: Value = Client::find(&hq)?.put(&format!("/api/channels/{name}"), &channel)?;
            if answer["sites_matching"] == 0 && channel["match"].as_object().is_some_and(|wanted| !wanted.is_empty()) {
                eprintln!(
                    "WARNING: no site has {}: is it misspelt? Nobody is notified of sites there. `rollcall roster` shows the attributes",
                    channel["match"]
                );
            }
            for (column, sites) in answer["sites_without"].as_object().into_iter().flatten() {
                eprintln!("{sites} sites have nothing in the column {column} of the roster: nobody is notified there");
            }
            eprintln!("channel {name} is set; try it with: rollcall channels test {name}");
        }
        Some(ChannelsCommand::Test { name, hq }) => {
            let _: Value = Client::find(&hq)?.post(&format!("/api/channels/{name}/test"), &json!({}))?;
            eprintln!("channel {name} took the message");
        }
        Some(ChannelsCommand::Preview { name, incident, json, hq }) => {
            let query = incident.map_or_else(String::new, |id| format!("?incident={id}"));
            preview(&Client::find(&hq)?.get(&format!("/api/channels/{name}/preview{query}"))?, json)?;
        }
        Some(ChannelsCommand::Who { site, json, hq }) => {
            return who(&Client::find(&hq)?.get(&format!("/api/routes/{site}"))?, &site, json);
        }
        Some(ChannelsCommand::Remove { name, hq }) => {
            let _: Value = Client::find(&hq)?.delete(&format!("/api/channels/{name}"))?;
            eprintln!("channel {name} is removed");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn preview(text: &str, is_json: bool) -> anyhow::Result<()> {
    if is_json {
        outln!("{text}");
        return Ok(());
    }
    let shown: Value = serde_json::from_str(text)?;
    let text = |name: &str| shown[name].as_str().unwrap_or_default();
    let to: Vec<&str> = shown["to"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !to.is_empty() {
        outln!("To: {}", to.join(", "));
    }
    outln!("Subject: {}\n\n{}", text("subject"), text("text"));
    Ok(())
}

fn who(text: &str, site: &str, is_json: bool) -> anyhow::Result<ExitCode> {
    let routes: Vec<Value> = serde_json::from_str(text)?;
    if is_json {
        outln!("{text}");
    }
    for route in routes.iter().filter(|_| !is_json) {
        let text = |name: &str| route[name].as_str().unwrap_or_default();
        let to: Vec<&str> = route["to"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let to = if to.is_empty() { String::new() } else { format!(" to {}", to.join(", ")) };
        let problem = if route["problem"].is_null() { String::new() } else { format!(": {}", text("problem")) };
        outln!("level {}: {} ({}{to}){problem}", route["level"], text("channel"), text("kind"));
    }
    let told = routes.iter().filter(|route| route["problem"].is_null()).count();
    if told == 0 {
        eprintln!("nobody is notified of {site}");
    }
    Ok(if told > 0 { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
}

fn list(client: &Client, is_json: bool) -> anyhow::Result<ExitCode> {
    let text = client.get("/api/channels")?;
    let channels: Vec<Value> = serde_json::from_str(&text)?;
    if is_json {
        outln!("{text}");
    } else {
        for channel in &channels {
            let text = |name: &str| channel[name].as_str().unwrap_or_default();
            let state = if channel["problem"].is_null() { "works" } else { text("problem") };
            outln!("{}: {}, from level {}: {state}", text("name"), text("kind"), channel["min_level"]);
        }
    }
    let broken = channels.iter().filter(|channel| !channel["problem"].is_null()).count();
    eprintln!("{}, {broken} of them broken", counted(channels.len(), "channel"));
    if channels.is_empty() {
        eprintln!("nobody is notified of anything: add a channel with `rollcall channels set`");
    }
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
}
