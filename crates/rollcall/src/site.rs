//! `rollcall site`: the lives of a site's journal, and ruling on one that may lack what was
//! confirmed before.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    client::{Client, HqAddress},
    print::time,
    show::{RollLine, Wanted, roll_text},
};

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
        #[arg(value_name = "LIFE")]
        epoch: u32,
        /// Why; it is kept with your name.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Let the life that people see stay that one; what the site sends in a later one is kept
    /// apart.
    Keep {
        /// Its number.
        #[arg(value_name = "LIFE")]
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
    eprintln!("people see life {} of {site}", answer["current"]);
    Ok(ExitCode::SUCCESS)
}

/// The address behind the subcommand, or before it.
fn given(own: HqAddress, before: HqAddress) -> HqAddress {
    if own.is_given() { own } else { before }
}

/// What HQ knows of one site.
struct Known {
    line: Option<Value>,
    attributes: Value,
    incidents: Vec<Value>,
    lives: Value,
}

impl Known {
    fn ask(client: &Client, site: &str) -> anyhow::Result<Self> {
        let read = |path: &str| anyhow::Ok(serde_json::from_str::<Value>(&client.get(path)?)?);
        let find = |list: Value, name: &str| list.as_array()?.iter().find(|line| line[name] == site).cloned();
        let listed = read("/api/roster")?;
        let ids: Vec<String> =
            listed.as_array().into_iter().flatten().filter_map(|one| Some(one["id"].as_str()?.to_owned())).collect();
        let Some(roster) = find(listed, "id") else {
            let near = rollcall_types::nearest(site, ids.iter().map(String::as_str));
            let near = near.map_or_else(String::new, |near| format!(" (is {near} meant?)"));
            anyhow::bail!("site {site} is not on the roster{near}; `rollcall roster` lists all")
        };
        let incidents = read("/api/incidents?all=true")?;
        let is_about = |incident: &&Value| !incident["members"][site].is_null();
        Ok(Self {
            line: find(read("/api/roll")?, "site"),
            attributes: roster,
            incidents: incidents.as_array().into_iter().flatten().filter(is_about).cloned().collect(),
            lives: read(&format!("/api/sites/{site}/lives"))?,
        })
    }

    fn show(&self, site: &str) -> anyhow::Result<()> {
        let when = |value: &Value| time(value).unwrap_or_else(|| "never".to_owned());
        if let Some(line) = &self.line {
            let of: RollLine = serde_json::from_value(line.clone())?;
            outln!(
                "{}",
                roll_text(&[of], &Wanted { all: true, verbose: true, ..Wanted::default() }, &Default::default())
            );
        }
        let attributes = self.attributes["attributes"].as_object().into_iter().flatten();
        let attributes: Vec<String> =
            attributes.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
        outln!("\nroster: {}", if attributes.is_empty() { "no attributes".to_owned() } else { attributes.join(" ") });
        outln!("joined: {}", when(&self.attributes["enrolled_at"]));
        let open = self.incidents.iter().filter(|incident| incident["closed_at"].is_null()).count();
        outln!("incidents: {open} open, {} over within a week", self.incidents.len() - open);
        for incident in &self.incidents {
            let over = if incident["closed_at"].is_null() {
                "open".to_owned()
            } else {
                format!("over {}", when(&incident["closed_at"]))
            };
            let (id, level, evidence) =
                (&incident["id"], &incident["level"], incident["evidence"].as_str().unwrap_or_default());
            outln!("  {id}: level {level}, since {}, {over}: {evidence}", when(&incident["since"]));
        }
        eprintln!("more: rollcall roster history {site}, rollcall incidents show ID, rollcall channels who {site}");
        Ok(())
    }
}

fn show(site: &str, json: bool, hq: &HqAddress) -> anyhow::Result<ExitCode> {
    let known = Known::ask(&Client::find(hq)?, site)?;
    if json {
        let Known { line, attributes, incidents, mut lives } = known;
        lives["roll"] = json!(line);
        lives["roster"] = attributes;
        lives["incidents"] = json!(incidents);
        outln!("{lives}");
        return Ok(ExitCode::SUCCESS);
    }
    known.show(site)?;
    show_lives(site, &known.lives.to_string())
}

fn show_lives(site: &str, text: &str) -> anyhow::Result<ExitCode> {
    let lives: Lives = serde_json::from_str(text).context("reading HQ's answer")?;
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
