//! `rollcall holidays`, `audit` and `sessions`: days on which shops are closed, who did what, and
//! who is connected.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use rollcall_site::local;
use rollcall_types::counted;
use serde_json::{Value, json};

use crate::client::{Client, HqAddress};

#[derive(Debug, Args)]
pub(crate) struct HolidaysArgs {
    /// The calendar, as the roster's column `holidays` names it.
    name: String,
    /// Its days, in place of those that it has.
    #[arg(long, value_delimiter = ',', value_name = "DAY,…")]
    set: Option<Vec<String>>,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only what this person did.
    #[arg(long, value_name = "USER")]
    by: Option<String>,
    /// The newest so many.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Args)]
pub(crate) struct SessionsArgs {
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

pub(crate) fn holidays(args: &HolidaysArgs) -> anyhow::Result<ExitCode> {
    let (client, path) = (Client::find(&args.hq)?, format!("/api/holidays/{}", args.name));
    if let Some(days) = &args.set {
        let days: Vec<&str> = days.iter().map(|day| day.trim()).filter(|day| !day.is_empty()).collect();
        let answer: Value = client.put(&path, &json!(days))?;
        eprintln!("{} has {} days; it holds for sites whose column `holidays` names it", args.name, answer["days"]);
        return Ok(ExitCode::SUCCESS);
    }
    let text = client.get(&path)?;
    if args.json {
        outln!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let calendar: Value = serde_json::from_str(&text)?;
    let days: Vec<&str> = calendar["days"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    days.iter().for_each(|day| outln!("{day}"));
    eprintln!("{}", counted(days.len(), "day"));
    Ok(ExitCode::SUCCESS)
}

/// Rows as a table, with times as this machine's clock says them.
fn show(rows: &[Value], columns: &[(&str, &str)]) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.iter().map(|(_, title)| *title));
    for row in rows {
        table.add_row(columns.iter().map(|(name, _)| match &row[*name] {
            Value::Null => String::new(),
            Value::String(text) => text.parse().map_or_else(|_| text.clone(), local),
            other => other.to_string(),
        }));
    }
    outln!("{table}");
}

pub(crate) fn audit(args: &AuditArgs) -> anyhow::Result<ExitCode> {
    let condition = match &args.by {
        Some(by) => format!("WHERE by = '{}'", by.replace('\'', "''")),
        None => String::new(),
    };
    let sql = format!(
        "SELECT at, by, \"from\", what, outcome FROM rollcall.audit {condition} ORDER BY at DESC LIMIT {}",
        args.limit
    );
    let (body, _) = Client::find(&args.hq)?.sql(&sql, "json")?;
    let answer: Value = serde_json::from_slice(&body)?;
    let rows = answer["rows"].as_array().cloned().unwrap_or_default();
    match args.json {
        true => outln!("{}", json!(rows)),
        false => {
            show(&rows, &[("at", "when"), ("by", "by"), ("from", "from"), ("what", "what"), ("outcome", "outcome")])
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn sessions(args: &SessionsArgs) -> anyhow::Result<ExitCode> {
    let text = Client::find(&args.hq)?.get("/api/sessions")?;
    if args.json {
        outln!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Value> = serde_json::from_str(&text)?;
    show(
        &rows,
        &[
            ("user", "user"),
            ("address", "from"),
            ("kind", "by"),
            ("first", "first seen"),
            ("last", "last seen"),
            ("count", "times"),
        ],
    );
    eprintln!("{} since HQ started; connected sites are in `rollcall call --all -v`", counted(rows.len(), "session"));
    Ok(ExitCode::SUCCESS)
}
