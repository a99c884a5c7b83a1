//! `rollcall tables`: which tables there are, and what was declared of them.

use std::{collections::BTreeMap, process::ExitCode};

use clap::{Args, Subcommand};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Deserialize;
use serde_json::json;

use crate::client::{Client, HqAddress};

#[derive(Debug, Args)]
pub(crate) struct TablesArgs {
    #[command(subcommand)]
    command: Option<TablesCommand>,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Subcommand)]
enum TablesCommand {
    /// Declare when a table's rows happened (a question about the past then needs no site beyond it) and what they are worth.
    Set {
        /// The table.
        table: String,
        /// The column with the time of the event; without it, every question needs every site up to now.
        #[arg(long)]
        event_time: Option<String>,
        /// Seconds after the event within which its row is written.
        #[arg(long, default_value_t = 0)]
        lateness: u64,
        /// What a row is worth, in SQL over its columns (`qty * price`): missing rows are then told in money too.
        #[arg(long)]
        measure: Option<String>,
        #[command(flatten)]
        hq: HqAddress,
    },
}

#[derive(Debug, Deserialize)]
struct Declared {
    event_time: Option<String>,
    lateness_seconds: u64,
    measure: Option<String>,
}

pub(crate) fn run(args: TablesArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(TablesCommand::Set { table, event_time, lateness, measure, hq }) => {
            let body = json!({"event_time": event_time, "lateness_seconds": lateness, "measure": measure});
            let _: serde_json::Value = Client::find(&hq)?.put(&format!("/api/tables/{table}"), &body)?;
            match event_time {
                Some(column) => eprintln!("{table}: rows happened at {column}, and come at most {lateness} s later"),
                None => eprintln!("{table}: nothing is said about when its rows happened"),
            }
        }
        None => {
            let text = Client::find(&args.hq)?.get("/api/tables")?;
            if args.json {
                println!("{text}");
                return Ok(ExitCode::SUCCESS);
            }
            let declared: BTreeMap<String, Declared> = serde_json::from_str(&text)?;
            let mut table = Table::new();
            table.load_preset(UTF8_FULL_CONDENSED).set_header(["table", "event time", "lateness", "worth of a row"]);
            for (name, declared) in declared {
                table.add_row([
                    name,
                    declared.event_time.unwrap_or_else(|| "not declared".to_owned()),
                    format!("{} s", declared.lateness_seconds),
                    declared.measure.unwrap_or_else(|| "not declared".to_owned()),
                ]);
            }
            println!("{table}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
