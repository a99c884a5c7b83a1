//! `rollcall publish` and `rollcall publications`: what HQ gives to sites, and who has it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use rollcall_types::{Seq, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    FINDING,
    client::{Client, HqAddress},
};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Edits {
    /// HQ's rows are put back, and it is told how many were changed.
    Mend,
    /// They are left, and it is told.
    Report,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FileFormat {
    Csv,
    Json,
    Parquet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum References {
    Keep,
    Refuse,
}

/// Of a table that is published already, these may be said without rows.
const SAID_ALONE: [&str; 7] = ["withdraw", "withdraw_at", "to", "edits", "shared", "references", "rewritten"];

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The table, at HQ and at the sites.
    table: String,
    /// The rows: CSV with a header, JSON with one object a line, or Parquet. Of a table that is
    /// published already, --to, --edits, --shared, --references and --rewritten may be said
    /// without.
    #[arg(long, value_name = "FILE", required_unless_present_any = SAID_ALONE)]
    from: Option<PathBuf>,
    /// Take this version back: its rows are again what they were before, unless they were published
    /// anew since.
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["from", "key", "to", "replace", "delete"])]
    withdraw: Option<u64>,
    /// The form of the file, if its name does not tell.
    #[arg(long)]
    format: Option<FileFormat>,
    /// Columns that name a row; needed when a table is published for the first time.
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    key: Vec<String>,
    /// Which rows a site gets, such as "region = site.region"; every row if never said.
    #[arg(long, value_name = "CONDITION")]
    to: Option<String>,
    /// The file is the whole table: rows that are not in it go.
    #[arg(long, conflicts_with = "delete", requires = "from")]
    replace: bool,
    /// Rows with the keys in the file go.
    #[arg(long, requires = "from")]
    delete: bool,
    /// Let it take effect later, at this time of each site's own day: "2026-12-01 06:00".
    #[arg(long, value_name = "TIME", conflicts_with_all = ["withdraw", "to", "key"], requires = "from")]
    at: Option<String>,
    /// Take back what is scheduled under this number.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["from", "key", "to", "replace", "delete", "withdraw", "at"])]
    withdraw_at: Option<u64>,
    /// What happens to rows that a site changes.
    #[arg(long)]
    edits: Option<Edits>,
    /// Sites change the table as well, and of two versions of a row that rule says which one stays:
    /// hq, site, latest, or fields (the latest in each column); `no` ends it.
    #[arg(long, value_name = "RULE", value_parser = ["hq", "site", "latest", "fields", "no"], conflicts_with = "at")]
    shared: Option<String>,
    /// What becomes of a row that goes while rows of a store's own name it by a foreign key: they
    /// are kept as they are and name a row that is gone (keep, which is usual), or the row stays at
    /// that store and is told of (refuse).
    #[arg(long)]
    references: Option<References>,
    /// Columns in which a store may have other values than HQ sends, by a trigger of its own, say;
    /// `none` takes it back.
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    rewritten: Vec<String>,
    /// The file may bring columns that the table does not have yet: every store gets them.
    #[arg(long, requires = "from")]
    new_columns: bool,
    /// With --replace: columns that the file does not have become empty in all rows, at every
    /// store.
    #[arg(long, requires = "replace")]
    empty_columns: bool,
    /// With --replace: the file may be without rows; all rows go then, at every store.
    #[arg(long, requires = "replace")]
    allow_empty: bool,
    /// Why, for those who read about it later.
    #[arg(long, default_value = "")]
    note: String,
    /// Only say what it would do.
    #[arg(long)]
    dry_run: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Deserialize, Serialize)]
struct Counts {
    inserted: u64,
    updated: u64,
    deleted: u64,
    unchanged: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct Outcome {
    table: String,
    version: Seq,
    previous: Seq,
    counts: Counts,
    audience: usize,
    sites_touched: usize,
    dry_run: bool,
    #[serde(default)]
    published_since: u64,
    #[serde(default)]
    scheduled_as: u64,
    /// How the columns of the file were read.
    #[serde(default)]
    columns: Vec<(String, String)>,
}

impl PublishArgs {
    fn format(&self, from: &Path) -> anyhow::Result<&'static str> {
        let extension = from.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        Ok(match (self.format, extension) {
            (Some(FileFormat::Csv), _) | (None, "csv") => "csv",
            (Some(FileFormat::Json), _) | (None, "json" | "jsonl" | "ndjson") => "json",
            (Some(FileFormat::Parquet), _) | (None, "parquet") => "parquet",
            _ => bail!("say with --format what {} is: csv, json or parquet", from.display()),
        })
    }
}

pub(crate) fn publish(args: &PublishArgs) -> anyhow::Result<ExitCode> {
    if let Some(number) = args.withdraw_at {
        let path = format!("/api/scheduled/{}/{number}", args.table);
        let _: serde_json::Value = Client::find(&args.hq)?.delete(&path)?;
        eprintln!("{} of {} will not take effect; where it has, the table is restored", number, args.table);
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = match (args.withdraw, &args.from) {
        (Some(version), _) => {
            let path = format!("/api/published/{}/{version}/withdraw", args.table);
            Client::find(&args.hq)?.post(&path, &serde_json::json!({"dry_run": args.dry_run}))?
        }
        (None, from) => publish_file(args, from.as_deref())?,
    };
    tell(args, outcome)
}

/// A time of day, to the minute or the second.
fn time(text: &str) -> anyhow::Result<String> {
    let read = ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
        .iter()
        .find_map(|form| chrono::NaiveDateTime::parse_from_str(text, form).ok());
    let time = read.with_context(|| format!("--at {text:?}: write it as \"2026-12-01 06:00\""))?;
    Ok(time.format("%Y-%m-%dT%H:%M:%S").to_string())
}

fn publish_file(args: &PublishArgs, from: Option<&Path>) -> anyhow::Result<Outcome> {
    let rows = match from {
        Some(from) => std::fs::read(from).with_context(|| format!("reading {}", from.display()))?,
        None => Vec::new(),
    };
    let mode = match (args.replace, args.delete) {
        (true, _) => "replace",
        (_, true) => "delete",
        _ => "merge",
    };
    let mut parameters = vec![
        ("mode", mode.to_owned()),
        ("key", args.key.join(",")),
        ("note", args.note.clone()),
        ("dry_run", args.dry_run.to_string()),
        ("new_columns", args.new_columns.to_string()),
        ("allow_empty", args.allow_empty.to_string()),
        ("empty_columns", args.empty_columns.to_string()),
    ];
    if let Some(from) = from {
        parameters.push(("format", args.format(from)?.to_owned()));
    }
    parameters.extend(args.to.clone().map(|to| ("to", to)));
    if let Some(at) = &args.at {
        parameters.push(("at", time(at)?));
    }
    parameters.extend(args.shared.clone().map(|rule| ("shared", rule)));
    parameters.extend(args.edits.map(|edits| ("mends", matches!(edits, Edits::Mend).to_string())));
    parameters.extend(
        args.references.map(|references| {
            ("references", if references == References::Refuse { "refuse" } else { "keep" }.to_owned())
        }),
    );
    if !args.rewritten.is_empty() {
        let columns = args.rewritten.iter().filter(|column| *column != "none").cloned().collect::<Vec<_>>();
        parameters.push(("rewritten", columns.join(",")));
    }
    let path = format!("/api/published/{}", args.table);
    Client::find(&args.hq)?.post_bytes(&path, &parameters, &rows)
}

fn tell(args: &PublishArgs, outcome: Outcome) -> anyhow::Result<ExitCode> {
    if args.json {
        outln!("{}", serde_json::to_string(&outcome)?);
        return Ok(ExitCode::SUCCESS);
    }
    let Outcome { table, version, previous, counts, audience, sites_touched, dry_run, published_since, .. } = outcome;
    let (columns, scheduled_as) = (outcome.columns, outcome.scheduled_as);
    let is_first = previous == Seq(0);
    if (dry_run || is_first) && !columns.is_empty() {
        let columns: Vec<String> = columns.iter().map(|(name, kind)| format!("{name} ({kind})")).collect();
        eprintln!("columns as they were read: {}", columns.join(", "));
    }
    if is_first && dry_run {
        eprintln!("they keep these types: where fractions may come later, write 5.00 and not 5 in the first file");
    }
    let Counts { inserted, updated, deleted, unchanged } = counts;
    let rows = format!("{inserted} rows new, {updated} changed, {deleted} gone, {unchanged} as they were");
    let sites = format!("{audience} sites have the table, for {sites_touched} of them something changes");
    if let Some(at) = &args.at {
        match scheduled_as {
            0 => eprintln!("{table}: nothing is scheduled: {rows}; {sites}"),
            number => eprintln!("{table}: scheduled as {number} for {at} of each site's day: {rows}; {sites}"),
        }
        return Ok(ExitCode::SUCCESS);
    }
    match (dry_run, version == previous) {
        (true, _) => eprintln!("{table}: would be version {version}: {rows}; {sites}"),
        (false, true) => eprintln!("{table}: still version {version}: {rows}; {sites}"),
        (false, false) => eprintln!("{table}: version {version}: {rows}; {sites}"),
    }
    if published_since > 0 {
        eprintln!("{published_since} rows were published again since, and stay as they are");
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Args)]
pub(crate) struct PublicationsArgs {
    /// Only of this table; with it, the sites that lack its newest version are named.
    table: Option<String>,
    /// So many of the newest.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Deserialize)]
struct Arrived {
    table: String,
    version: Seq,
    at: Timestamp,
    by: String,
    note: String,
    counts: Counts,
    audience: usize,
    have: usize,
}

#[derive(Debug, Deserialize)]
struct Arrivals {
    arrivals: Vec<Arrival>,
}

#[derive(Debug, Deserialize)]
struct Arrival {
    site: String,
    table: String,
    applied: Seq,
    edits: u64,
    #[serde(default)]
    differing: u64,
    lacks: Option<Lack>,
}

#[derive(Debug, Deserialize)]
struct Lack {
    detail: String,
}

#[derive(Debug, Deserialize)]
struct Ahead {
    table: String,
    number: u64,
    at: String,
    by: String,
    note: String,
    counts: Counts,
    state: String,
    audience: usize,
    have: usize,
}

/// Shows what waits for its time.
fn show_scheduled(client: &Client, of_table: Option<&str>) -> anyhow::Result<()> {
    let mut ahead: Vec<Ahead> = serde_json::from_str(&client.get("/api/scheduled")?)?;
    ahead.retain(|ahead| ahead.state == "waiting" && of_table.is_none_or(|table| ahead.table == table));
    if ahead.is_empty() {
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "scheduled for",
        "as",
        "site's time",
        "by",
        "new",
        "changed",
        "gone",
        "sites that hold it",
        "note",
    ]);
    for of in ahead {
        table.add_row([
            of.table,
            of.number.to_string(),
            of.at.replace('T', " "),
            of.by,
            of.counts.inserted.to_string(),
            of.counts.updated.to_string(),
            of.counts.deleted.to_string(),
            format!("{} of {}", of.have, of.audience),
            of.note,
        ]);
    }
    outln!("{table}");
    Ok(())
}

/// Shows what was published and who has it; a finding if a site lacks the newest version of a
/// table.
pub(crate) fn publications(args: &PublicationsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::find(&args.hq)?;
    let of_table = args.table.as_ref().map_or_else(String::new, |table| format!("&table={table}"));
    let list = client.get(&format!("/api/publications?limit={}{of_table}", args.limit))?;
    let lacking = client.get(&format!("/api/arrivals?lacking=true{of_table}"))?;
    let arrivals: Arrivals = serde_json::from_str(&lacking)?;
    let code = if arrivals.arrivals.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FINDING) };
    if args.json {
        let lacking: serde_json::Value = serde_json::from_str(&lacking)?;
        let list: serde_json::Value = serde_json::from_str(&list)?;
        outln!("{}", serde_json::json!({"publications": list, "lacking": lacking["arrivals"]}));
        return Ok(code);
    }
    let arrived: Vec<Arrived> = serde_json::from_str(&list)?;
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["table", "version", "published", "by", "new", "changed", "gone", "sites that have it", "note"]);
    for of in arrived {
        let color = if of.have == of.audience { Color::Green } else { Color::Yellow };
        table.add_row([
            Cell::new(of.table),
            Cell::new(of.version),
            Cell::new(rollcall_site::local(of.at)),
            Cell::new(of.by),
            Cell::new(of.counts.inserted),
            Cell::new(of.counts.updated),
            Cell::new(of.counts.deleted),
            Cell::new(format!("{} of {}", of.have, of.audience)).fg(color),
            Cell::new(of.note),
        ]);
    }
    outln!("{table}");
    show_scheduled(&client, args.table.as_deref())?;
    if arrivals.arrivals.is_empty() {
        eprintln!("every site has the newest version");
        return Ok(code);
    }
    if args.table.is_some() {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header([
            "site",
            "table",
            "has version",
            "rows that differ",
            "rows changed there",
            "why it lacks the newest",
        ]);
        for of in &arrivals.arrivals {
            let why = of.lacks.as_ref().map_or("", |lack| lack.detail.as_str());
            let numbers = [of.applied.to_string(), of.differing.to_string(), of.edits.to_string()];
            let cells = [&of.site, &of.table, &numbers[0], &numbers[1], &numbers[2], why];
            table.add_row(cells.map(str::to_owned));
        }
        outln!("{table}");
    }
    eprintln!("{} sites lack the newest version of a table", arrivals.arrivals.len());
    Ok(code)
}
