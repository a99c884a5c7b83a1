//! `rollcall channels …`

use std::{io::Read, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Subcommand};
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
        /// A file with the description; standard input if not given, so that secrets need not be written down.
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
            let _: Value = Client::find(&hq)?.put(&format!("/api/channels/{name}"), &channel)?;
            eprintln!("channel {name} is set; try it with: rollcall channels test {name}");
        }
        Some(ChannelsCommand::Test { name, hq }) => {
            let _: Value = Client::find(&hq)?.post(&format!("/api/channels/{name}/test"), &json!({}))?;
            eprintln!("channel {name} took the message");
        }
        Some(ChannelsCommand::Remove { name, hq }) => {
            let _: Value = Client::find(&hq)?.delete(&format!("/api/channels/{name}"))?;
            eprintln!("channel {name} is removed");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(client: &Client, is_json: bool) -> anyhow::Result<ExitCode> {
    let text = client.get("/api/channels")?;
    let channels: Vec<Value> = serde_json::from_str(&text)?;
    if is_json {
        println!("{text}");
    } else {
        for channel in &channels {
            let text = |name: &str| channel[name].as_str().unwrap_or_default();
            let state = if channel["problem"].is_null() { "works" } else { text("problem") };
            println!("{}: {}, from level {}: {state}", text("name"), text("kind"), channel["min_level"]);
        }
    }
    let broken = channels.iter().filter(|channel| !channel["problem"].is_null()).count();
    eprintln!("{} channels, {broken} of them do not work", channels.len());
    if channels.is_empty() {
        eprintln!("nobody is told of anything: set one with `rollcall channels set`");
    }
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
}
