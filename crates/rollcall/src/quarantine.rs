//! `rollcall quarantine`: batches of which HQ could not take everything.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use rollcall_types::plain;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    FINDING,
    client::{Client, HqAddress},
};

/// Of a value, so much is shown.
const SHOWN_BYTES_MAX: usize = 1000;

#[derive(Debug, Args)]
pub(crate) struct QuarantineArgs {
    #[command(subcommand)]
    command: Option<QuarantineCommand>,
    /// Also those that were dealt with.
    #[arg(long)]
    all: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// Show the rows of a batch, and what would be wrong with it now.
    Show {
        /// Which batch, such as boston-01:1:120.
        id: String,
        /// For programs.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// What hindered it is mended: the site states all rows of these tables again.
    Take {
        /// Which batch.
        id: String,
        /// What was mended.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Do without its rows: the site is complete again without them.
    GiveUp {
        /// Which batch.
        id: String,
        /// Why they are not needed.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        hq: HqAddress,
    },
}

#[derive(Deserialize)]
struct Kept {
    id: String,
    at: String,
    tables: Option<Vec<String>>,
    reason: String,
    bytes: u64,
    state: String,
    decision: Option<Decision>,
}

#[derive(Deserialize)]
struct Decision {
    by: String,
    reason: String,
}

impl Kept {
    fn tables(&self) -> String {
        self.tables.as_ref().map_or_else(|| "any".to_owned(), |tables| tables.join(", "))
    }

    fn state(&self) -> String {
        match &self.decision {
            Some(Decision { by, reason }) if !reason.is_empty() => format!("{} by {by}: {reason}", self.state),
            Some(Decision { by, .. }) => format!("{} by {by}", self.state),
            None => self.state.clone(),
        }
    }
}

pub(crate) fn run(args: QuarantineArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        None => list(&Client::find(&args.hq)?, args.all, args.json),
        Some(QuarantineCommand::Show { id, json, hq }) => show(&Client::find(&hq)?, &id, json),
        Some(QuarantineCommand::Take { id, reason, hq }) => {
            let path = format!("/api/quarantine/{id}/take");
            let _: Value = Client::find(&hq)?.post(&path, &json!({"reason": reason}))?;
            eprintln!(
                "{id}: the site sends all rows of these tables again as soon as it is heard; until then it is missing"
            );
            Ok(ExitCode::SUCCESS)
        }
        Some(QuarantineCommand::GiveUp { id, reason, hq }) => {
            let path = format!("/api/quarantine/{id}/give-up");
            let _: Value = Client::find(&hq)?.post(&path, &json!({"reason": reason}))?;
            eprintln!("{id}: its rows are given up");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(client: &Client, all: bool, is_json: bool) -> anyhow::Result<ExitCode> {
    let text = client.get(if all { "/api/quarantine?all=true" } else { "/api/quarantine" })?;
    let found: Vec<Kept> = serde_json::from_str(&text)?;
    let code = if found.iter().any(|kept| kept.state == "waits") { ExitCode::from(FINDING) } else { ExitCode::SUCCESS };
    if is_json {
        outln!("{text}");
        return Ok(code);
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["batch", "received", "tables", "bytes", "state", "reason"]);
    for kept in &found {
        table.add_row([
            kept.id.clone(),
            kept.at.clone(),
            kept.tables(),
            kept.bytes.to_string(),
            kept.state(),
            kept.reason.clone(),
        ]);
    }
    outln!("{table}");
    eprintln!("in quarantine: {}; `rollcall quarantine show BATCH` shows the rows of one", found.len());
    Ok(code)
}

#[derive(Deserialize)]
struct Shown {
    about: Kept,
    problems: Vec<String>,
    unreadable: Option<String>,
    parts: Vec<ShownTable>,
}

#[derive(Deserialize)]
struct ShownTable {
    table: String,
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
    count: usize,
}

fn show(client: &Client, id: &str, is_json: bool) -> anyhow::Result<ExitCode> {
    let text = client.get(&format!("/api/quarantine/{id}"))?;
    if is_json {
        outln!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let shown: Shown = serde_json::from_str(&text)?;
    outln!("{}: {} ({})", shown.about.id, shown.about.reason, shown.about.state());
    for of_table in &shown.parts {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(of_table.columns.iter().map(|column| plain(column, SHOWN_BYTES_MAX)));
        for row in &of_table.rows {
            table.add_row(row.iter().map(|value| {
                value.as_deref().map_or_else(|| "NULL".to_owned(), |value| plain(value, SHOWN_BYTES_MAX))
            }));
        }
        outln!("{}:\n{table}", plain(&of_table.table, SHOWN_BYTES_MAX));
        if of_table.count > of_table.rows.len() {
            outln!("{} rows, of which the first {} are shown", of_table.count, of_table.rows.len());
        }
    }
    if let Some(why) = &shown.unreadable {
        outln!("its rows cannot be shown: {why}");
    }
    match shown.problems.as_slice() {
        [] => {
            outln!("nothing would be wrong with it now: `rollcall quarantine take {id}` makes the site send it again")
        }
        problems => outln!(
            "if it came now, this would be wrong: {}; if that was mended at the store, `rollcall quarantine take {id}` has the \
             site state its rows again",
            problems.join("; ")
        ),
    }
    Ok(ExitCode::SUCCESS)
}
