//! `rollcall incidents …`

use std::{fmt::Write, process::ExitCode};

use clap::{Args, Subcommand};
use comfy_table::{Cell, Color, Table, presets::UTF8_FULL_CONDENSED};
use console::style;
use rollcall_types::{Cause, counted};
use serde_json::{Value, json};

use crate::{
    FINDING,
    client::{Client, HqAddress},
    print,
};

#[derive(Debug, Args)]
pub(crate) struct IncidentsArgs {
    #[command(subcommand)]
    command: Option<IncidentsCommand>,
    /// Also those that ended in the last week.
    #[arg(long)]
    all: bool,
    /// Also the incidents of single sites for which a group speaks.
    #[arg(long)]
    members: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Subcommand)]
enum IncidentsCommand {
    /// One incident with its whole story.
    Show {
        /// Its number.
        id: u64,
        /// All its sites; else the ten that have been away for the longest.
        #[arg(long)]
        members: bool,
        /// For programs.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Take an incident, for a time; it comes back one level higher if nothing happens.
    Ack {
        /// Its number.
        id: u64,
        /// Why, and what is being done.
        #[arg(long)]
        reason: String,
        /// Who takes it.
        #[arg(long, env = "USER")]
        by: String,
        /// For how long: at most 24 at levels 1 and 2, 72 above.
        #[arg(long)]
        hours: Option<u64>,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Say that a silence was normal: it is learned from.
    Normal {
        /// The incident's number.
        id: u64,
        /// Who says so.
        #[arg(long, env = "USER")]
        by: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Say that a silence was an outage: it is not learned from.
    Outage {
        /// The incident's number.
        id: u64,
        /// Who says so.
        #[arg(long, env = "USER")]
        by: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// How often people were told in the last weeks, beside the alarm budget, and the thresholds
    /// that follow.
    Budget {
        /// For programs.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Declare a site closed until a day: it is not expected before.
    Close {
        /// The site.
        site: String,
        /// The first day it is expected again (such as 2026-12-27, in its own zone), or a time in
        /// RFC 3339.
        #[arg(long)]
        until: String,
        /// Why.
        #[arg(long)]
        reason: String,
        /// Who says so.
        #[arg(long, env = "USER")]
        by: String,
        #[command(flatten)]
        hq: HqAddress,
    },
}

pub(crate) fn run(args: IncidentsArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        None => return list(&Client::find(&args.hq)?, &args),
        Some(IncidentsCommand::Show { id, members, json, hq }) => show(&Client::find(&hq)?, id, members, json)?,
        Some(IncidentsCommand::Ack { id, reason, by, hours, hq }) => {
            let body = json!({"by": by, "reason": reason, "hours": hours});
            let answer: Value = Client::find(&hq)?.post(&format!("/api/incidents/{id}/ack"), &body)?;
            eprintln!("incident {id} is {by}'s until {}", time(&answer["until"]));
        }
        Some(IncidentsCommand::Normal { id, by, hq }) => explain(&hq, id, "normal", &by)?,
        Some(IncidentsCommand::Outage { id, by, hq }) => explain(&hq, id, "outage", &by)?,
        Some(IncidentsCommand::Budget { json, hq }) => budget(&Client::find(&hq)?, json)?,
        Some(IncidentsCommand::Close { site, until, reason, by, hq }) => {
            let body = json!({"until": until, "reason": reason, "by": by});
            let answer: Value = Client::find(&hq)?.post(&format!("/api/roster/{site}/close"), &body)?;
            eprintln!("{site} is closed until {}", time(&answer["until"]));
            if answer["is_heard"] == true {
                eprintln!("WARNING: {site} is heard at present; if it falls silent before then, nobody is told");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(hq: &HqAddress, id: u64, was: &str, by: &str) -> anyhow::Result<()> {
    let _: Value = Client::find(hq)?.post(&format!("/api/incidents/{id}/explain"), &json!({"was": was, "by": by}))?;
    eprintln!("noted: incident {id} was {was}");
    Ok(())
}

fn budget(client: &Client, is_json: bool) -> anyhow::Result<()> {
    let text = client.get("/api/incidents/budget")?;
    if is_json {
        outln!("{text}");
        return Ok(());
    }
    let achieved: Value = serde_json::from_str(&text)?;
    // An empty sum is minus zero.
    let number = |value: &Value| value.as_f64().unwrap_or_default() + 0.0;
    let rates =
        [("page", &achieved["page"], &achieved["pages"], 0), ("red", &achieved["red"], &achieved["screens"], 1)];
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["level", "threshold", "per site and month", "budget"]);
    for (level, from, rate, budget) in rates {
        let budget = number(&achieved["budget"][budget]);
        let is_over = number(rate) > budget;
        let rate = Cell::new(format!("{:.2}", number(rate))).fg(if is_over { Color::Red } else { Color::Green });
        table.add_row([Cell::new(level), Cell::new(format!("{:.1}", number(from))), rate, Cell::new(budget)]);
    }
    outln!("{table}");
    let set = if achieved["tunes"] == true {
        "are set each Monday, from ten site-months on"
    } else {
        "are those that HQ was started with"
    };
    eprintln!(
        "unexplained silences of the last weeks ({:.1} site-months); thresholds {set}",
        number(&achieved["site_months"])
    );
    Ok(())
}

fn list(client: &Client, args: &IncidentsArgs) -> anyhow::Result<ExitCode> {
    let text = client.get(if args.all { "/api/incidents?all=true" } else { "/api/incidents" })?;
    let mut incidents: Vec<Value> = serde_json::from_str(&text)?;
    if args.json {
        outln!("{text}");
    }
    let is_held = |incident: &Value| incident["closed_at"].is_null() && !incident["held_by"].is_null();
    let held = incidents.iter().filter(|incident| is_held(incident)).count();
    let open = incidents.iter().filter(|incident| incident["closed_at"].is_null()).count() - held;
    incidents.retain(|incident| args.members || !is_held(incident));
    if !args.json && !incidents.is_empty() {
        outln!("{}", listed(&incidents).trim_end());
    }
    match held {
        0 => eprintln!("{}", counted(open, "open incident")),
        held => {
            eprintln!(
                "{}, which speak for {held} of single sites (--members shows them)",
                counted(open, "open incident")
            )
        }
    }
    Ok(if open == 0 { ExitCode::SUCCESS } else { ExitCode::from(FINDING) })
}

/// How many sites are named before the rest is counted.
const NAMED: usize = 3;
/// Columns of a line's text beside its indentation.
const TEXT_WIDTH: usize = 76;

/// Two lines or more an incident, of 80 columns: what it is, and what is known.
fn listed(incidents: &[Value]) -> String {
    let mut text = String::new();
    for incident in incidents {
        let is_over = !incident["closed_at"].is_null();
        let level = incident["level"].as_u64().unwrap_or_default();
        let state = match (is_over, level) {
            (true, _) => style("over".to_owned()).green(),
            (false, 0) => style(format!("level {level}")).yellow(),
            (false, _) => style(format!("level {level}")).red(),
        };
        let members: Vec<&str> =
            incident["members"].as_object().into_iter().flatten().map(|(site, _)| site.as_str()).collect();
        let more = members.len().saturating_sub(NAMED);
        let named = members.iter().take(NAMED).copied().collect::<Vec<_>>().join(" ");
        let mut head =
            format!("#{}  {state}  {}  since {}", incident["id"], kind(&incident["kind"]), time(&incident["since"]));
        if let Some(by) = incident["lease"]["by"].as_str() {
            let _ = write!(head, "  taken by {by}");
        }
        if !named.is_empty() {
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let _ = write!(head, "\n{}", wrapped(&format!("{named}{more}")));
        }
        let cause: Option<Cause> = serde_json::from_value(incident["cause"].clone()).ok();
        let evidence = incident["evidence"].as_str().unwrap_or_default();
        let known = cause.map_or_else(|| evidence.to_owned(), |cause| format!("{cause}: {evidence}"));
        let _ = writeln!(text, "{head}\n{}", wrapped(&known));
    }
    text
}

/// A text in lines of 80 columns, indented. A word that is longer stays whole.
fn wrapped(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= TEXT_WIDTH) {
            Some(line) => *line = format!("{line} {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn kind(value: &Value) -> &str {
    value.as_str().or_else(|| value["condition"].as_str()).unwrap_or_default()
}

fn time(value: &Value) -> String {
    print::time(value).unwrap_or_else(|| "-".to_owned())
}

/// Sites that are named of an incident, unless all are asked for.
const WORST: usize = 10;

fn show(client: &Client, id: u64, all: bool, is_json: bool) -> anyhow::Result<()> {
    let text = client.get(&format!("/api/incidents/{id}"))?;
    if is_json {
        outln!("{text}");
        return Ok(());
    }
    let incident: Value = serde_json::from_str(&text)?;
    outln!("{}", listed(std::slice::from_ref(&incident)).trim_end());
    outln!("\nWhat happened:");
    for entry in incident["timeline"].as_array().into_iter().flatten() {
        outln!("  {}  {}", time(&entry["at"]), entry["text"].as_str().unwrap_or_default());
    }
    let mut members: Vec<(&String, &Value)> = incident["members"].as_object().into_iter().flatten().collect();
    // Those that are away first, the longest before the others.
    let order = |member: &Value| (!member["until"].is_null(), member["since"].as_str().unwrap_or_default().to_owned());
    members.sort_by_cached_key(|(_, member)| order(member));
    let absent = members.iter().filter(|(_, member)| member["until"].is_null()).count();
    let is_over = !incident["closed_at"].is_null();
    match is_over {
        true => outln!("\n{}:", counted(members.len(), "site")),
        false => outln!("\n{}, {absent} still missing:", counted(members.len(), "site")),
    }
    let named = if all { members.len() } else { WORST };
    for (site, member) in members.iter().take(named) {
        let until = match member["until"].is_null() {
            true if is_over => "to the end".to_owned(),
            true => "still".to_owned(),
            false => format!("to {}", time(&member["until"])),
        };
        outln!("  {site}: from {} {until}", time(&member["since"]));
    }
    if members.len() > named {
        outln!("  and {} more (--members)", members.len() - named);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_is_listed_within_eighty_columns() {
        let incident = json!({
            "id": 12, "kind": "silence", "level": 2, "since": "2026-11-29T12:00:00Z", "closed_at": null, "cause": "power-or-link",
            "evidence": "16 minutes of contact should have come from tacoma-01 since 2026-11-30 09:34:19 UTC, by what is usual at sites like it",
            "members": {"tacoma-01": {}, "tacoma-02": {}, "tacoma-03": {}, "tacoma-04": {}}, "lease": {"by": "Ada"},
        });
        let text = listed(&[incident]);
        assert!(text.lines().count() == 4 && text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.starts_with("#12  level 2  silence  since "), "{text}");
        assert!(
            text.contains("  taken by Ada\n    tacoma-01 tacoma-02 tacoma-03 and 1 more\n    power or link: 16"),
            "{text}"
        );
    }
}
