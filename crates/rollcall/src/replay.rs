//! `rollcall replay`: what the watch would have said about your own history.

mod input;
mod report;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rollcall_hq::{Channel, roster_from_csv};
use rollcall_roll::{
    Decision, Incident, SITE_MONTHS_MIN, SiteSpec, Thresholds, WatchConfig, replay, site_months, tune,
};
use rollcall_types::SiteId;
use serde_json::{Value, json};

use report::Report;

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// CSV with the columns at (2026-01-31T10:00:00Z, or 2026-01-31 10:00 for UTC), site, stream,
    /// count; a row with stream `contact` is a beacon. Separated by commas or semicolons.
    #[arg(long)]
    events: PathBuf,
    /// CSV with the column id and attributes such as tz, hours, isp, region; as for `rollcall
    /// roster import`.
    #[arg(long)]
    roster: PathBuf,
    /// CSV with the columns calendar and day, for the calendars that the roster's column holidays
    /// names.
    #[arg(long)]
    holidays: Option<PathBuf>,
    /// Channels as for `rollcall channels set`, in JSON by name: says who would have been told
    /// what.
    #[arg(long)]
    channels: Option<PathBuf>,
    /// Write a page with a timeline, the worst sites, other thresholds and fixed timeouts on the
    /// same data.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// One incident per line, for programs.
    #[arg(long)]
    json: bool,
    /// Find the lowest thresholds within the alarm budget; runs the history some twelve times.
    #[arg(long)]
    tune: bool,
    /// Surprise from which on a silence is an incident; 4 unless tuned.
    #[arg(long)]
    red: Option<f64>,
    /// Surprise from which on people are notified; 5.5 unless tuned.
    #[arg(long)]
    page: Option<f64>,
}

pub(crate) fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let usual = Thresholds::default();
    let (red, page) =
        (args.red.unwrap_or(usual.red), args.page.unwrap_or_else(|| usual.page.max(args.red.unwrap_or(0.0))));
    if page < red {
        bail!("page {page} is below red {red}: people would be called about what is not on the screen");
    }
    let mut folded = false;
    let (history, until) = input::read_events(&args.events, &mut folded)?;
    let roster = input::roster_text(&args.roster, &mut folded)?;
    if folded {
        eprintln!("site ids are lower case: those in the files were converted");
    }
    let holidays = args.holidays.as_deref().map(input::read_holidays).transpose()?.unwrap_or_default();
    let sites = roster_from_csv(&roster, history.first().map_or(until, |first| first.at), &holidays)
        .with_context(|| format!("reading {}", args.roster.display()))?;
    let routes = Routes::read(args.channels.as_deref(), &sites)?;
    let listed: HashSet<&SiteId> = sites.iter().map(|site| &site.id).collect();
    let unknown = history.iter().filter(|event| !listed.contains(&event.site)).count();
    if unknown > 0 {
        eprintln!("{unknown} events are of sites that are not on the roster; they are left out");
    }
    let mut config = WatchConfig { thresholds: Thresholds { red, page, ..usual }, ..WatchConfig::default() };
    if args.tune {
        let months = site_months(&sites, &history, until);
        // The lowest thresholds keep within any budget where nothing was counted.
        if months < SITE_MONTHS_MIN {
            eprintln!(
                "too little history to tune by: {months:.1} site-months after the first 14 days, and {SITE_MONTHS_MIN} are needed"
            );
        } else {
            let spinner = ProgressBar::new_spinner().with_message("replaying with other thresholds");
            let found = tune(&sites, &history, until, &config, || spinner.tick());
            spinner.finish_and_clear();
            let Some(found) = found else { bail!("no threshold up to 11 keeps within the budget on this history") };
            eprintln!("proposed: --red {} --page {}", found.red, found.page);
            config.thresholds = found;
        }
    }
    let bar = ProgressBar::new(history.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {percent} % of {len} events, {eta} left")?);
    let found = replay(&sites, &history, until, config.clone(), |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    for incident in &found.incidents {
        if args.json {
            outln!("{}", line(incident, &found.told, &routes));
        } else {
            outln!("{}", sentence(incident));
        }
    }
    let report = Report::new(&sites, &history, until, &found, config.thresholds);
    eprint!("{}", report.summary());
    if let Some(file) = &args.html {
        std::fs::write(file, report.html()).with_context(|| format!("writing {}", file.display()))?;
        eprintln!("the report is in {}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn sentence(incident: &Incident) -> String {
    let sites: Vec<&str> = incident.members.keys().map(SiteId::as_str).take(5).collect();
    let more = incident.members.len().saturating_sub(sites.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let end = incident.closed_at.map_or_else(|| "still open".to_owned(), |end| format!("to {end}"));
    let (opened, kind, level) = (incident.opened_at, incident.kind, incident.level);
    format!("{opened} {end}: {kind}, level {level}: {}{more}: {}", sites.join(" "), incident.evidence)
}

/// Who would have been told: channels, if they were given, and what their rules ask of sites.
struct Routes {
    channels: BTreeMap<String, Channel>,
    attributes: HashMap<SiteId, BTreeMap<String, String>>,
}

impl Routes {
    fn read(path: Option<&Path>, sites: &[SiteSpec]) -> anyhow::Result<Self> {
        let mut channels = BTreeMap::new();
        if let Some(path) = path {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            let described: BTreeMap<String, Value> =
                serde_json::from_str(&text).with_context(|| format!("{} is no JSON object by name", path.display()))?;
            for (name, value) in described {
                let channel = Channel::read(&value).with_context(|| format!("{}, channel {name}", path.display()))?;
                channels.insert(name, channel);
            }
        }
        let attributes = sites.iter().map(|site| (site.id.clone(), site.attributes.clone())).collect();
        Ok(Self { channels, attributes })
    }

    fn told(&self, incident: &Incident, level: u8) -> Vec<&str> {
        let attribute = |site: &SiteId, name: &str| self.attributes.get(site)?.get(name).cloned();
        let hearing = self.channels.iter().filter(|(_, channel)| channel.hears_of(incident, level, attribute));
        hearing.map(|(name, _)| name.as_str()).collect()
    }
}

fn line(incident: &Incident, told: &[Decision], routes: &Routes) -> Value {
    let told = told.iter().filter(|said| said.incident == incident.id);
    let told = told.map(|said| {
        let mut told = json!({"at": said.at, "notice": said.notice, "level": said.level});
        if !routes.channels.is_empty() {
            told["to"] = json!(routes.told(incident, said.level));
        }
        told
    });
    json!({
        "id": incident.id,
        "kind": incident.kind.to_string(),
        "sites": incident.members.keys().collect::<Vec<_>>(),
        "stream": incident.stream,
        "opened_at": incident.opened_at,
        "since": incident.since,
        "closed_at": incident.closed_at,
        "reopened_at": incident.reopened_at,
        "levels": incident.levels,
        "attribute": incident.attribute,
        "cause": incident.cause,
        "evidence": incident.evidence,
        "members": incident.members,
        "peak_nines": incident.peak_nines,
        "was_held": incident.was_held,
        "held_by": incident.held_by,
        "missed_minutes": incident.missed_minutes,
        "told": told.collect::<Vec<Value>>(),
        "timeline": incident.timeline,
    })
}
