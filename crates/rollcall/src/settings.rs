//! `rollcall settings`: how sites are to behave.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use rollcall_types::counted;
use serde::{Deserialize, Serialize};

use crate::client::{Client, HqAddress};

#[derive(Debug, Args)]
pub(crate) struct SettingsArgs {
    #[command(subcommand)]
    command: Option<SettingsCommand>,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Subcommand)]
enum SettingsCommand {
    /// Say a rule, in the place of what was said under its name.
    Set(Box<SetArgs>),
    /// Take a rule back. Tables that are captured because of it stay captured.
    Remove {
        /// The rule.
        rule: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// What all rules together say of one site.
    Show {
        /// The site.
        site: String,
        #[command(flatten)]
        hq: HqAddress,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Args)]
struct SetArgs {
    /// A name for the rule.
    rule: String,
    /// Which sites, such as "site.state = 'WA'"; every site if not said.
    #[arg(long, default_value = "", value_name = "CONDITION", hide_default_value = true)]
    to: String,
    /// Where rules differ, the one with the higher rank is followed.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    rank: i32,
    /// Seconds between beacons.
    #[arg(long, value_name = "SECONDS")]
    beacon: Option<u32>,
    /// The most that is sent and fetched, kilobytes a second by hours of the site's day: "8-20=64"
    /// or "256" for all day.
    #[arg(long, value_name = "HOURS=KB", value_delimiter = ',')]
    bandwidth: Vec<String>,
    /// What the agent logs.
    #[arg(long)]
    log: Option<LogLevel>,
    /// The version of the agent that is wanted; sites with another are listed by `rollcall
    /// settings`.
    #[arg(long, value_name = "VERSION")]
    agent: Option<String>,
    /// Addresses of HQ to call if those the site knows do not answer.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    hq_address: Vec<String>,
    /// Tables to capture besides those the site joined with.
    #[arg(long, value_delimiter = ',', value_name = "TABLES")]
    capture: Vec<String>,
    /// A column not to be captured where its table is. What HQ has of it stays: `rollcall tables
    /// forget` takes that away.
    #[arg(long, value_delimiter = ',', value_name = "TABLE.COLUMN")]
    exclude: Vec<String>,
    /// Tables not to be captured any more.
    #[arg(long, value_delimiter = ',', value_name = "TABLES")]
    stop: Vec<String>,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Rule {
    to: String,
    rank: i32,
    beacon_seconds: Option<u32>,
    bandwidth: Option<Vec<u32>>,
    log: Option<String>,
    agent_version: Option<String>,
    hq_addresses: Option<Vec<String>>,
    capture: BTreeMap<String, Capture>,
    #[serde(default, skip_serializing)]
    sites: usize,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Capture {
    excluded: Vec<String>,
    stopped: bool,
    #[serde(default)]
    only_if_captured: bool,
}

#[derive(Deserialize)]
struct Told {
    sites: usize,
    #[serde(default)]
    unknown_columns: Vec<String>,
    /// Tables that no store is known to have, and which may be meant.
    #[serde(default)]
    unknown_tables: BTreeMap<String, Option<String>>,
}

#[derive(Deserialize)]
struct Arrivals {
    sites: usize,
    arrivals: Vec<Arrival>,
}

#[derive(Deserialize)]
struct Arrival {
    site: String,
    lacks: Option<Lack>,
}

#[derive(Deserialize)]
struct Lack {
    detail: String,
}

/// `8-20=64` and the like, as kilobytes a second for each hour.
fn bandwidth(texts: &[String]) -> anyhow::Result<Option<Vec<u32>>> {
    if texts.is_empty() {
        return Ok(None);
    }
    let mut hours = vec![0; 24];
    for text in texts {
        let read = || -> Option<(usize, usize, u32)> {
            let Some((span, kilobytes)) = text.split_once('=') else { return Some((0, 24, text.parse().ok()?)) };
            let (from, to) = span.split_once('-')?;
            Some((from.parse().ok()?, to.parse().ok()?, kilobytes.parse().ok()?))
        };
        let (from, to, kilobytes) = read()
            .filter(|(from, to, _)| *from < 24 && *to <= 24 && from != to)
            .with_context(|| format!("--bandwidth {text:?}: write it as 8-20=64, hours from 0 to 24"))?;
        // 22-6 goes over midnight.
        let to = if to > from { to } else { to + 24 };
        (from..to).for_each(|hour| hours[hour % 24] = kilobytes);
    }
    Ok(Some(hours))
}

fn capture(args: &SetArgs) -> anyhow::Result<BTreeMap<String, Capture>> {
    let mut capture: BTreeMap<String, Capture> =
        args.capture.iter().map(|table| (table.clone(), Capture::default())).collect();
    for text in &args.exclude {
        let Some((table, column)) = text.split_once('.') else { bail!("--exclude {text:?}: write it as table.column") };
        let only = || Capture { only_if_captured: true, ..Capture::default() };
        capture.entry(table.to_owned()).or_insert_with(only).excluded.push(column.to_owned());
    }
    for table in &args.stop {
        ensure!(!capture.contains_key(table), "{table} cannot be captured and not be captured");
        capture.insert(table.clone(), Capture { stopped: true, ..Capture::default() });
    }
    Ok(capture)
}

fn set(args: &SetArgs) -> anyhow::Result<ExitCode> {
    let rule = Rule {
        to: args.to.clone(),
        rank: args.rank,
        beacon_seconds: args.beacon,
        bandwidth: bandwidth(&args.bandwidth)?,
        log: args.log.map(|level| format!("{level:?}").to_lowercase()),
        agent_version: args.agent.clone(),
        hq_addresses: (!args.hq_address.is_empty()).then(|| args.hq_address.clone()),
        capture: capture(args)?,
        sites: 0,
    };
    let told: Told =
        Client::find(&args.hq)?.put(&format!("/api/settings/{}", args.rule), &serde_json::to_value(rule)?)?;
    eprintln!("rule {}: applies to {}", args.rule, counted(told.sites, "site"));
    if told.sites == 0 {
        eprintln!("no site matches {:?}; `rollcall roster` shows the attributes", args.to);
    }
    for (table, meant) in &told.unknown_tables {
        let meant = meant.as_ref().map_or_else(String::new, |meant| format!("; is {meant} meant?"));
        eprintln!(
            "WARNING: no store is known to have a table {table}{meant} (until one has, the rule does nothing there)"
        );
    }
    for column in &told.unknown_columns {
        eprintln!(
            "{column}: no site ever sent such a column; is it spelt as at the sites? A site that lacks it will report that"
        );
    }
    Ok(if told.sites == 0 { ExitCode::from(crate::FINDING) } else { ExitCode::SUCCESS })
}

/// What a rule says, for people.
fn says(rule: &Rule) -> String {
    let mut says = Vec::new();
    says.extend(rule.beacon_seconds.map(|seconds| format!("beacon every {seconds} s")));
    says.extend(rule.bandwidth.as_ref().map(|hours| format!("at most {}", spans(hours))));
    says.extend(rule.log.as_ref().map(|level| format!("log {level}")));
    says.extend(rule.agent_version.as_ref().map(|version| format!("agent {version}")));
    says.extend(rule.hq_addresses.as_ref().map(|addresses| format!("HQ also at {}", addresses.join(", "))));
    says.extend(rule.capture.iter().map(|(table, capture)| match (capture.stopped, capture.excluded.as_slice()) {
        (true, _) => format!("do not capture {table}"),
        (false, []) => format!("capture {table}"),
        (false, excluded) if capture.only_if_captured => {
            format!("where {table} is captured, without {}", excluded.join(", "))
        }
        (false, excluded) => format!("capture {table} without {}", excluded.join(", ")),
    }));
    says.join("; ")
}

/// Hours that are alike, together.
fn spans(hours: &[u32]) -> String {
    let mut spans = Vec::new();
    let mut from = 0;
    while from < hours.len() {
        let to = (from..hours.len()).find(|hour| hours[*hour] != hours[from]).unwrap_or(hours.len());
        if hours[from] > 0 {
            spans.push(format!("{} KB/s from {from} to {to} o'clock", hours[from]));
        }
        from = to;
    }
    if spans.is_empty() { "what the line gives".to_owned() } else { spans.join(", ") }
}

fn list(args: &SettingsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::find(&args.hq)?;
    let text = client.get("/api/settings")?;
    let lacking = client.get("/api/arrivals?table=rollcall.settings&lacking=true")?;
    let arrivals: Arrivals = serde_json::from_str(&lacking)?;
    let code = if arrivals.arrivals.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(crate::FINDING) };
    if args.json {
        let rules: serde_json::Value = serde_json::from_str(&text)?;
        let lacking: serde_json::Value = serde_json::from_str(&lacking)?;
        outln!("{}", serde_json::json!({"rules": rules, "lacking": lacking["arrivals"]}));
        return Ok(code);
    }
    let mut rules: Vec<(String, Rule)> = serde_json::from_str::<BTreeMap<String, Rule>>(&text)?.into_iter().collect();
    rules.sort_by_key(|(_, rule)| rule.rank);
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["rule", "rank", "to", "sites", "says"]);
    for (name, rule) in rules {
        let to = if rule.to.is_empty() { "every site".to_owned() } else { rule.to.clone() };
        table.add_row([name, rule.rank.to_string(), to, rule.sites.to_string(), says(&rule)]);
    }
    outln!("{table}");
    if arrivals.arrivals.is_empty() {
        match arrivals.sites {
            1 => eprintln!("the one site with settings follows them"),
            sites => eprintln!("all {sites} sites with settings follow them"),
        }
        return Ok(code);
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["site", "why it does not do what is said"]);
    for arrival in &arrivals.arrivals {
        table.add_row([arrival.site.as_str(), arrival.lacks.as_ref().map_or("", |lack| lack.detail.as_str())]);
    }
    outln!("{table}");
    eprintln!("{} of {} sites do not follow their settings yet", arrivals.arrivals.len(), arrivals.sites);
    Ok(code)
}

pub(crate) fn run(args: &SettingsArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        None => return list(args),
        Some(SettingsCommand::Set(set_args)) => return set(set_args),
        Some(SettingsCommand::Remove { rule, hq }) => {
            let _: serde_json::Value = Client::find(hq)?.delete(&format!("/api/settings/{rule}"))?;
            eprintln!("rule {rule} is removed");
        }
        Some(SettingsCommand::Show { site, hq }) => {
            let text = Client::find(hq)?.get(&format!("/api/sites/{site}/settings"))?;
            let of_site: serde_json::Value = serde_json::from_str(&text)?;
            let rule: Rule = serde_json::from_value(of_site.clone())?;
            let (says, rules) = (says(&rule), &of_site["rules"]);
            outln!("{}", if says.is_empty() { "only HQ's own configuration applies" } else { &says });
            eprintln!("from the rules {rules}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_of_bandwidth() {
        let read = |text: &str| bandwidth(&text.split(',').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(read("256").expect("reads"), Some(vec![256; 24]));
        let night = read("22-6=512,8-20=64").expect("reads").expect("hours");
        assert_eq!(
            (night[23], night[0], night[5], night[6], night[8], night[19], night[20]),
            (512, 512, 512, 0, 64, 64, 0)
        );
        assert_eq!(
            spans(&night),
            "512 KB/s from 0 to 6 o'clock, 64 KB/s from 8 to 20 o'clock, 512 KB/s from 22 to 24 o'clock"
        );
        for wrong in ["8-25=1", "8=1", "a-b=c", "8-8=1", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
