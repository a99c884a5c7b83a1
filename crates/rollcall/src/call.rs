//! `rollcall call`: every site's state, now.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use rollcall_types::SiteState;
use serde_json::Value;

use crate::{
    client::{Client, HqAddress},
    show::{RollLine, Sort, Wanted, roll},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rollcall call\n  rollcall call --where \"state = 'WA'\" --all\n  \
    rollcall call --state silent --state late --sort since\n\n\
    Exit code: 1 while a site is missing without an explanation.")]
pub(crate) struct CallArgs {
    /// Every site, not only those that are not well.
    #[arg(long)]
    all: bool,
    /// Only sites in this state (silent, late, never-heard, declared-closed, …); may be given
    /// several times.
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Vec<SiteState>,
    /// Only sites for which this holds, as in SQL about the table `sites`.
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// What comes first.
    #[arg(long, value_enum, default_value_t = Sort::Loudest)]
    sort: Sort,
    /// Show it anew every two seconds.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// All that HQ knows: last contact, ports, days of learning.
    #[arg(long, short)]
    verbose: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

fn state(text: &str) -> Result<SiteState, String> {
    let all = SiteState::ALL;
    let found = all.iter().find(|state| state.to_string() == text).copied();
    found.ok_or_else(|| format!("is one of {}", all.map(|state| state.to_string()).join(", ")))
}

/// How often the roll is shown anew.
const WATCH_EVERY: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &CallArgs) -> anyhow::Result<ExitCode> {
    let client = Client::find(&args.hq)?;
    if !args.watch {
        return show(&client, args);
    }
    loop {
        if std::io::stdout().is_terminal() {
            write!(std::io::stdout(), "\u{1b}[H\u{1b}[2J")?;
        }
        outln!("{}", chrono::Local::now().format("%H:%M:%S"));
        show(&client, args)?;
        std::thread::sleep(WATCH_EVERY);
    }
}

fn show(client: &Client, args: &CallArgs) -> anyhow::Result<ExitCode> {
    let text = client.get("/api/roll")?;
    let mut known: Vec<Value> = serde_json::from_str(&text)?;
    if let Some(condition) = &args.condition {
        let ids = matching(client, condition)?;
        known.retain(|line| line["site"].as_str().is_some_and(|site| ids.contains(site)));
    }
    let lines = known.iter().map(|line| serde_json::from_value(line.clone()));
    let lines: Vec<RollLine> = lines.collect::<Result<_, _>>()?;
    if args.json {
        outln!("{}", serde_json::to_string(&known)?);
        let is_finding = lines.iter().any(|line| line.state.is_finding());
        return Ok(if is_finding { ExitCode::from(crate::FINDING) } else { ExitCode::SUCCESS });
    }
    let wanted = Wanted { all: args.all, states: args.state.clone(), verbose: args.verbose, sort: args.sort };
    Ok(roll(&lines, &wanted, &levels(client)))
}

/// The sites for which a condition holds.
fn matching(client: &Client, condition: &str) -> anyhow::Result<BTreeSet<String>> {
    let (body, _) = client.sql(&format!("SELECT id FROM sites WHERE {condition}"), "json")?;
    let answer: Value = serde_json::from_slice(&body)?;
    let rows = answer["rows"].as_array().or(answer.as_array()).cloned().unwrap_or_default();
    Ok(rows.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)).collect())
}

/// By site: the level of the loudest incident about it. Who may not see incidents sees the roll
/// without.
pub(crate) fn levels(client: &Client) -> BTreeMap<String, u64> {
    let incidents = client.get("/api/incidents").ok();
    let incidents: Vec<Value> = incidents.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let mut levels = BTreeMap::new();
    for incident in &incidents {
        let level = incident["level"].as_u64().unwrap_or_default();
        for (site, member) in incident["members"].as_object().into_iter().flatten() {
            if member["until"].is_null() {
                let known = levels.entry(site.clone()).or_insert(level);
                *known = level.max(*known);
            }
        }
    }
    levels
}
