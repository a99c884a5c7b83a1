//! `rollcall replay`: what the watch would have said about your own history.

use std::{collections::HashSet, path::PathBuf, process::ExitCode, str::FromStr};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rollcall_hq::roster_from_csv;
use rollcall_roll::{AlarmRate, BUDGET, HistoryEvent, Incident, Replayed, Thresholds, WatchConfig, replay, tune};
use rollcall_types::{SiteId, Timestamp};
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// CSV with the columns at (RFC 3339, UTC), site, stream, count; a row with stream `contact` is a beacon.
    #[arg(long)]
    events: PathBuf,
    /// CSV with the column id and attributes such as tz, hours, isp, region; as for `rollcall roster import`.
    #[arg(long)]
    roster: PathBuf,
    /// One incident per line, for programs.
    #[arg(long)]
    json: bool,
    /// Find the lowest thresholds within the alarm budget; runs the history some twelve times.
    #[arg(long)]
    tune: bool,
    /// Nines at which a silence is red; 4 unless tuned.
    #[arg(long)]
    red: Option<f64>,
    /// Nines at which people are called; 5.5 unless tuned.
    #[arg(long)]
    page: Option<f64>,
}

pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let (history, until) = read_events(&args.events)?;
    let roster = std::fs::read_to_string(&args.roster).with_context(|| format!("reading {}", args.roster.display()))?;
    let sites = roster_from_csv(&roster, history.first().map_or(until, |first| first.at))
        .with_context(|| format!("reading {}", args.roster.display()))?;
    let listed: HashSet<&SiteId> = sites.iter().map(|site| &site.id).collect();
    let unknown = history.iter().filter(|event| !listed.contains(&event.site)).count();
    if unknown > 0 {
        eprintln!("{unknown} events are of sites that the roster does not list; they are left out");
    }
    let usual = Thresholds::default();
    let mut config = WatchConfig {
        thresholds: Thresholds {
            red: args.red.unwrap_or(usual.red),
            page: args.page.unwrap_or(usual.page).max(args.red.unwrap_or(0.0)),
            ..usual
        },
        ..WatchConfig::default()
    };
    if args.tune {
        let spinner = ProgressBar::new_spinner().with_message("replaying with other thresholds");
        let found = tune(&sites, &history, until, &config, || spinner.tick());
        spinner.finish_and_clear();
        let Some(found) = found else { bail!("no threshold up to 11 nines keeps within the budget on this history") };
        eprintln!("proposed: --red {} --page {}", found.red, found.page);
        config.thresholds = found;
    }
    let bar = ProgressBar::new(history.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {percent} % of {len} events, {eta} left")?);
    let found = replay(&sites, &history, until, config, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    print(&found, args.json);
    Ok(ExitCode::SUCCESS)
}

fn print(found: &Replayed, is_json: bool) {
    for incident in &found.incidents {
        if is_json {
            println!("{}", line(incident));
        } else {
            let sites: Vec<&str> = incident.members.keys().map(SiteId::as_str).take(5).collect();
            let more = incident.members.len().saturating_sub(sites.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let end = incident.closed_at.map_or_else(|| "still open".to_owned(), |end| format!("to {end}"));
            println!(
                "{} {end}: {}, level {}: {}{more}: {}",
                incident.opened_at,
                incident.kind,
                incident.level,
                sites.join(" "),
                incident.evidence
            );
        }
    }
    let AlarmRate { site_months, pages, screens } = found.rate;
    eprintln!(
        "after the first 14 days, in {site_months:.1} site-months: {pages} pages ({:.2} per site-month, budget {}), {screens} \
         incidents on the screen ({:.2}, budget {})",
        found.rate.pages_per_site_month(),
        BUDGET.0,
        found.rate.screens_per_site_month(),
        BUDGET.1
    );
}

fn line(incident: &Incident) -> Value {
    json!({
        "kind": incident.kind.to_string(),
        "sites": incident.members.keys().collect::<Vec<_>>(),
        "stream": incident.stream,
        "opened_at": incident.opened_at,
        "closed_at": incident.closed_at,
        "levels": incident.levels,
        "attribute": incident.attribute,
        "cause": incident.cause,
    })
}

fn read_events(path: &std::path::Path) -> anyhow::Result<(Vec<HistoryEvent>, Timestamp)> {
    let mut reader = csv::Reader::from_path(path).with_context(|| format!("reading {}", path.display()))?;
    let header = reader.headers()?.clone();
    let column = |name: &str| {
        let found = header.iter().position(|column| column.trim() == name);
        found.with_context(|| format!("{} needs a column `{name}`", path.display()))
    };
    let (at, site, stream) = (column("at")?, column("site")?, column("stream")?);
    let count = column("count").ok();
    let mut events = Vec::new();
    for (line, row) in (2..).zip(reader.records()) {
        let row = row.with_context(|| format!("line {line}"))?;
        let field = |index: usize| row.get(index).unwrap_or_default().trim();
        let counted = count.map(field).filter(|text| !text.is_empty());
        events.push(HistoryEvent {
            at: field(at).parse().with_context(|| format!("line {line}: at"))?,
            site: SiteId::new(field(site)).with_context(|| format!("line {line}: site"))?,
            stream: field(stream).to_owned(),
            count: counted.map_or(Ok(1.0), f32::from_str).with_context(|| format!("line {line}: count"))?,
        });
    }
    events.sort_by_key(|event| event.at);
    let until = events.last().with_context(|| format!("{} has no events", path.display()))?.at;
    Ok((events, until))
}
