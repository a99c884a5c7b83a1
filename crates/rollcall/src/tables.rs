//! `rollcall tables`: which tables there are, and what was declared of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::{Deserialize, Serialize};

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
    /// Declare when a table's rows happened (a question about the past then needs no site beyond
    /// it), what they are worth and how long their history is kept. What is not given stays as it
    /// is.
    Set(SetArgs),
    /// Give a column a wider type: history is rewritten with it, and values that did not fit the
    /// old one are taken in.
    Retype {
        /// The table.
        table: String,
        /// The column, as HQ calls it.
        column: String,
        /// decimal(DIGITS,FRACTION), double, long or string.
        r#type: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Give a table another key than its first site proposed: all its sites state their rows again,
    /// and are missing until then.
    Rekey {
        /// The table.
        table: String,
        /// The key's columns as HQ calls them, in their order.
        #[arg(required = true, value_delimiter = ',')]
        key: Vec<String>,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Take a table away with all its rows, columns and key, as if no site had proposed it. Sites
    /// that have it state it again, and are missing until then.
    Forget {
        /// The table.
        table: String,
        /// Its name once more: what only HQ has of it (history, rows that stores deleted) does not
        /// come back.
        #[arg(long, value_name = "TABLE")]
        confirm: String,
        #[command(flatten)]
        hq: HqAddress,
    },
}

#[derive(Debug, Args)]
struct SetArgs {
    /// The table.
    table: String,
    /// The column with the time of the event; without one, every question needs every site up
    /// to now.
    #[arg(long)]
    event_time: Option<String>,
    /// Seconds after the event within which its row is written; 0 if nothing was ever said.
    #[arg(long)]
    lateness: Option<u64>,
    /// What a row is worth, in SQL over its columns (`qty * price`): missing rows are then told
    /// in money too.
    #[arg(long)]
    measure: Option<String>,
    /// Days for which versions of rows are kept after newer ones replaced them, 30 at least;
    /// for ever if nothing was said.
    #[arg(long, value_name = "DAYS")]
    history: Option<u32>,
    /// Stores may leave the table out: one that has it and does not capture it is not missing
    /// in answers.
    #[arg(long)]
    optional: bool,
    /// A column that stores may have no more; may be given several times.
    #[arg(long, value_name = "COLUMN")]
    optional_column: Vec<String>,
    /// Take back what was said of this; may be given several times.
    #[arg(long, value_enum, value_name = "WHAT")]
    unset: Vec<Unset>,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Unset {
    EventTime,
    Lateness,
    Measure,
    History,
    Optional,
    OptionalColumns,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Declared {
    event_time: Option<String>,
    lateness_seconds: u64,
    measure: Option<String>,
    history_days: Option<u32>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    optional_columns: BTreeSet<String>,
}

impl Declared {
    fn unset(&mut self, what: Unset) {
        match what {
            Unset::EventTime => self.event_time = None,
            Unset::Lateness => self.lateness_seconds = 0,
            Unset::Measure => self.measure = None,
            Unset::History => self.history_days = None,
            Unset::Optional => self.optional = false,
            Unset::OptionalColumns => self.optional_columns.clear(),
        }
    }

    /// How long history is kept, for people.
    fn history(&self) -> String {
        self.history_days.map_or_else(|| "for ever".to_owned(), |days| format!("{days} days"))
    }
}

fn set(args: SetArgs) -> anyhow::Result<()> {
    let SetArgs { table, event_time, lateness, measure, history, optional, optional_column, unset, hq } = args;
    let client = Client::find(&hq)?;
    let mut all: BTreeMap<String, Declared> = serde_json::from_str(&client.get("/api/tables")?)?;
    let mut declared = all.remove(&table).unwrap_or_default();
    let given = [
        (Unset::EventTime, event_time.is_some()),
        (Unset::Lateness, lateness.is_some()),
        (Unset::Measure, measure.is_some()),
        (Unset::History, history.is_some()),
        (Unset::Optional, optional),
        (Unset::OptionalColumns, !optional_column.is_empty()),
    ];
    if let Some((what, _)) = given.into_iter().find(|(what, is_given)| *is_given && unset.contains(what)) {
        anyhow::bail!("{what:?} is both said and taken back; leave one of the two out");
    }
    unset.into_iter().for_each(|what| declared.unset(what));
    let declared = Declared {
        event_time: event_time.or(declared.event_time),
        lateness_seconds: lateness.unwrap_or(declared.lateness_seconds),
        measure: measure.or(declared.measure),
        history_days: history.or(declared.history_days),
        optional: optional || declared.optional,
        optional_columns: declared.optional_columns.into_iter().chain(optional_column).collect(),
    };
    let _: serde_json::Value = client.put(&format!("/api/tables/{table}"), &serde_json::to_value(&declared)?)?;
    let lateness = declared.lateness_seconds;
    match &declared.event_time {
        Some(column) => {
            eprintln!("{table}: the event time is {column}; rows arrive at most {lateness} s later")
        }
        None => eprintln!("{table}: no event time is declared"),
    }
    if let Some(measure) = &declared.measure {
        eprintln!("a row is worth {measure}");
    }
    eprintln!("old versions of rows are kept {}", declared.history());
    if declared.optional {
        eprintln!("stores may leave the table out");
    }
    if !declared.optional_columns.is_empty() {
        let columns: Vec<&str> = declared.optional_columns.iter().map(String::as_str).collect();
        eprintln!("stores may have no more: {}", columns.join(", "));
    }
    Ok(())
}

pub(crate) fn run(args: TablesArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(TablesCommand::Retype { table, column, r#type, hq }) => {
            let path = format!("/api/tables/{table}/columns/{column}/type");
            eprintln!("every file of {table} is rewritten; this takes as long as reading it");
            let answer: serde_json::Value = Client::find(&hq)?.put(&path, &serde_json::json!({"type": r#type}))?;
            eprintln!("{table}.{column} is {}: {} rows in {} files", answer["type"], answer["rows"], answer["files"]);
        }
        Some(TablesCommand::Rekey { table, key, hq }) => {
            let path = format!("/api/tables/{table}/key");
            let answer: serde_json::Value = Client::find(&hq)?.put(&path, &serde_json::json!({"key": key}))?;
            eprintln!(
                "the key of {table} is {}; {} sites send their rows again, and are missing until then",
                key.join(", "),
                answer["sites"]
            );
        }
        Some(TablesCommand::Forget { table, confirm, hq }) => {
            anyhow::ensure!(table == confirm, "--confirm {confirm} is not {table}; nothing was done");
            let answer: serde_json::Value = Client::find(&hq)?.delete(&format!("/api/tables/{table}"))?;
            eprintln!("{table} is forgotten, with {} rows; {} sites state it again", answer["rows"], answer["sites"]);
        }
        Some(TablesCommand::Set(set_args)) => set(set_args)?,
        None => {
            let text = Client::find(&args.hq)?.get("/api/tables")?;
            if args.json {
                outln!("{text}");
                return Ok(ExitCode::SUCCESS);
            }
            let declared: BTreeMap<String, Declared> = serde_json::from_str(&text)?;
            let mut table = Table::new();
            table.load_preset(UTF8_FULL_CONDENSED).set_header([
                "table",
                "event time",
                "lateness",
                "worth of a row",
                "history",
            ]);
            for (name, declared) in declared {
                let history = declared.history();
                table.add_row([
                    name,
                    declared.event_time.unwrap_or_else(|| "not declared".to_owned()),
                    format!("{} s", declared.lateness_seconds),
                    declared.measure.unwrap_or_else(|| "not declared".to_owned()),
                    history,
                ]);
            }
            outln!("{table}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
