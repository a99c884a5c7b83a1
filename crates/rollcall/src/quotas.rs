//! `rollcall quotas`: how much a site may have HQ keep.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Map, Value};

use crate::client::{Client, HqAddress};

#[derive(Debug, Args)]
pub(crate) struct QuotasArgs {
    #[command(subcommand)]
    command: Option<QuotasCommand>,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Subcommand)]
enum QuotasCommand {
    /// Set limits, such as new_columns_a_day=50; what is not named stays as it is.
    Set {
        /// A limit.
        #[arg(required = true, value_name = "NAME=NUMBER")]
        limits: Vec<String>,
        #[command(flatten)]
        hq: HqAddress,
    },
}

/// What each limit is about.
const MEANINGS: [(&str, &str); 6] = [
    ("tables", "tables of all sites together"),
    ("new_tables_a_day", "tables that a site may add in a day"),
    ("columns", "columns of a table"),
    ("new_columns_a_day", "columns that a site may add in a day to a table that is there"),
    ("quarantined_bytes", "bytes of a site in quarantine; beyond, its data waits at the site"),
    ("lives_an_hour", "new lives of a site's journal in an hour"),
];

pub(crate) fn run(args: QuotasArgs) -> anyhow::Result<ExitCode> {
    let (client, sets) = match &args.command {
        None => (Client::find(&args.hq)?, &Vec::new()),
        Some(QuotasCommand::Set { limits, hq }) => (Client::find(hq)?, limits),
    };
    let mut limits: Map<String, Value> = serde_json::from_str(&client.get("/api/quotas")?)?;
    for pair in sets {
        let Some((name, number)) = pair.split_once('=') else { bail!("{pair:?}: write it as name=number") };
        let number: u64 = number.trim().parse().with_context(|| format!("{number:?} is no number"))?;
        let Some(limit) = limits.get_mut(name.trim()) else {
            bail!("there is no limit {name:?}; `rollcall quotas` shows them")
        };
        *limit = number.into();
    }
    if !sets.is_empty() {
        limits = client.put("/api/quotas", &Value::Object(limits))?;
    }
    if args.json {
        outln!("{}", Value::Object(limits));
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["limit", "of each site", "what"]);
    for (name, limit) in &limits {
        let meaning = MEANINGS.iter().find(|(known, _)| known == name).map_or("", |(_, meaning)| meaning);
        table.add_row([name, &limit.to_string(), meaning]);
    }
    outln!("{table}");
    Ok(ExitCode::SUCCESS)
}
