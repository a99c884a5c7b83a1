//! `rollcall site`: the lives of a site's journal, and ruling on one that may lack what was confirmed before.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Client, HqAddress};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = false)]
pub(crate) struct SiteArgs {
    /// The site.
    site: String,
    #[command(subcommand)]
    command: Option<SiteCommand>,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Subcommand)]
enum SiteCommand {
    /// Let a life of the site's journal be the one that people see, whatever it lacks.
    Accept {
        /// Its number.
        epoch: u32,
        /// Why; it is kept with your name.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Let the life that people see stay that one; what the site sends in a later one is kept apart.
    Keep {
        /// Its number.
        epoch: u32,
        /// Why; it is kept with your name.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        hq: HqAddress,
    },
}

#[derive(Debug, Deserialize)]
struct Lives {
    current: Option<u32>,
    contested: Vec<Value>,
    compared: Vec<Compared>,
}

#[derive(Debug, Deserialize)]
struct Compared {
    table: String,
    before: Of,
    after: Of,
    missing: i64,
    back_again: i64,
    is_stated: bool,
}

#[derive(Debug, Deserialize)]
struct Of {
    rows: i64,
    sums: Vec<(String, String)>,
}

pub(crate) fn run(args: SiteArgs) -> anyhow::Result<ExitCode> {
    let SiteArgs { site, command, json, hq } = args;
    let (what, epoch, reason, hq) = match command {
        Some(SiteCommand::Accept { epoch, reason, hq: own }) => ("accept", epoch, reason, given(own, hq)),
        Some(SiteCommand::Keep { epoch, reason, hq: own }) => ("keep", epoch, reason, given(own, hq)),
        None => return show(&site, json, &hq),
    };
    let path = format!("/api/sites/{site}/lives/{epoch}/{what}");
    let answer: Value = Client::find(&hq)?.post(&path, &json!({"reason": reason}))?;
    eprintln!("life {} of {site} is what people see", answer["current"]);
    Ok(ExitCode::SUCCESS)
}

/// The address behind the subcommand, or before it.
fn given(own: HqAddress, before: HqAddress) -> HqAddress {
    if own.is_given() { own } else { before }
}

fn show(site: &str, json: bool, hq: &HqAddress) -> anyhow::Result<ExitCode> {
    let text = Client::find(hq)?.get(&format!("/api/sites/{site}/lives"))?;
    if json {
        outln!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let lives: Lives = serde_json::from_str(&text).context("reading HQ's answer")?;
    let current = lives.current.map_or_else(|| "none".to_owned(), |epoch| epoch.to_string());
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["life", "before", "since", "why", "ruling"]);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut is_open = false;
    for life in &lives.contested {
        let ruling = match &life["ruling"] {
            Value::Null => {
                is_open = true;
                "to be ruled on".to_owned()
            }
            ruling => {
                let what = if ruling["is_accepted"] == true { "accepted" } else { "kept apart" };
                format!("{what} by {}: {}", text(&ruling["by"]), text(&ruling["reason"]))
            }
        };
        table.add_row([
            text(&life["epoch"]),
            text(&life["before"]),
            text(&life["began_at"]),
            text(&life["reason"]),
            ruling,
        ]);
    }
    outln!("{site}: people see life {current}");
    if !lives.contested.is_empty() {
        outln!("{table}");
    }
    if !lives.compared.is_empty() {
        outln!("{}", compared(&lives.compared));
    }
    Ok(if is_open { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn compared(tables: &[Compared]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["table", "before", "now", "missing", "deleted, and back", "all stated"]);
    for of in tables {
        let life = |of: &Of| {
            let sums = of.sums.iter().map(|(column, sum)| format!(", {column} {sum}"));
            format!("{} rows{}", of.rows, sums.collect::<String>())
        };
        let stated = if of.is_stated { "yes" } else { "not yet" };
        table.add_row([
            of.table.clone(),
            life(&of.before),
            life(&of.after),
            of.missing.to_string(),
            of.back_again.to_string(),
            stated.to_owned(),
        ]);
    }
    table
}
