//! `rollcall roster …`

mod hints;

use std::{collections::BTreeMap, fs, io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use rollcall_hq::{AttributeChange, ImportReport, Invitation, PastChange};
use rollcall_site::local;
use rollcall_types::counted;
use serde_json::json;

use self::hints::{say_like_own, say_unknown_holidays, say_zones};
use crate::{
    client::{Client, HqAddress},
    print,
};

#[derive(Debug, Args)]
pub(crate) struct RosterArgs {
    #[command(subcommand)]
    command: Option<RosterCommand>,
    /// For programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    hq: HqAddress,
}

#[derive(Debug, Subcommand)]
enum RosterCommand {
    /// Add and update sites from CSV: id, and any other columns as attributes. Never drops a site,
    /// and leaves attributes alone of which the file has no column; an empty cell takes one away.
    /// Exit code 1 if a site has no time zone.
    #[command(
        after_help = "Examples:\n  rollcall roster import sites.csv --dry-run\n  rollcall roster import sites.csv\n\n\
        Commas, semicolons or tabs; UTF-8, UTF-16 or Windows-1252; what is not evident is said."
    )]
    Import {
        /// The file.
        file: PathBuf,
        /// Attributes of which the file has no column go as well.
        #[arg(long)]
        replace: bool,
        /// Show what would change, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Print a roster file to begin with.
    #[command(after_help = "Example:\n  rollcall roster template > sites.csv")]
    Template,
    /// Change attributes of a site that is on the roster.
    #[command(after_help = "Example:\n  rollcall roster set seattle-01 isp=Comcast manager=")]
    Set {
        /// The site's id.
        site: String,
        /// Such as isp=Comcast; with nothing after the sign, the attribute goes.
        #[arg(required = true, value_name = "K=V")]
        attributes: Vec<String>,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Print the roster as CSV, as `import` takes it; without sites that were retired.
    Export {
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Print a single-use invitation for a site.
    #[command(after_help = "Examples:\n  rollcall roster invite seattle-01 > token.txt\n  \
        rollcall roster invite seattle-02 --new --set tz=America/Los_Angeles --set state=WA")]
    Invite {
        /// The site's id.
        site: String,
        /// Add it to the roster if it is not on it.
        #[arg(long)]
        new: bool,
        /// An attribute, such as state=WA; may be given several times.
        #[arg(long, value_name = "K=V")]
        set: Vec<String>,
        /// How long the invitation is good for.
        #[arg(long, default_value_t = 168, value_name = "HOURS")]
        hours: u64,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Invitations: for whom, by whom, and whether they were used.
    Invitations {
        /// For programs.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Revoke an invitation that was not used.
    Revoke {
        /// Which one, as `rollcall roster invitations` calls it.
        id: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Have sites send everything again, as `rollcall-site resend` does there: after HQ was
    /// restored from a backup.
    Resend {
        /// The sites' ids.
        #[arg(required_unless_present = "refused")]
        sites: Vec<String>,
        /// All that are refused because HQ's lake lacks what it confirmed to them.
        #[arg(long)]
        refused: bool,
        /// Why; it is kept.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Take a site off the roster and cut it off at once. Its rows stay. You are asked first,
    /// unless --yes is said.
    #[command(after_help = "Example:\n  rollcall roster retire seattle-01 --reason \"sold\"")]
    Retire {
        /// The site's id.
        site: String,
        /// Why; it is kept.
        #[arg(long)]
        reason: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Put a site back on the roster that was retired by mistake. Its key is gone: invite it, and
    /// it joins anew.
    #[command(after_help = "Example:\n  rollcall roster reinstate seattle-01 --reason \"meant seattle-10\"")]
    Reinstate {
        /// The site's id.
        site: String,
        /// Why; it is kept.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// Answer for the times of a store's rows up to now, although its clock was wrong or its time
    /// zone was another: questions about these times count the store as complete again.
    #[command(
        after_help = "Example:\n  rollcall roster accept-times seattle-01 --reason \"the tills have clocks of their own\""
    )]
    AcceptTimes {
        /// The site's id.
        site: String,
        /// Why; it is kept.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        hq: HqAddress,
    },
    /// What the attributes of a site were: by whom they were changed, and when.
    #[command(after_help = "Example:\n  rollcall roster history seattle-01")]
    History {
        /// The site's id.
        site: String,
        /// For programs.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        hq: HqAddress,
    },
}

pub(crate) fn run(args: RosterArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        None => list(&Client::find(&args.hq)?, args.json)?,
        Some(RosterCommand::Import { file, replace, dry_run, hq }) => {
            return import(&Client::find(&hq)?, &file, replace, dry_run);
        }
        Some(RosterCommand::Template) => outln!("{TEMPLATE}"),
        Some(RosterCommand::Set { site, attributes, hq }) => {
            set(&Client::find(&hq)?, &site, &attributes)?;
        }
        Some(RosterCommand::Export { hq }) => export(&Client::find(&hq)?)?,
        Some(RosterCommand::Invite { site, new, set, hours, hq }) => {
            invite(&Client::find(&hq)?, &site, new, &set, hours)?;
        }
        Some(RosterCommand::Invitations { json, hq }) => invitations(&Client::find(&hq)?, json)?,
        Some(RosterCommand::Revoke { id, hq }) => {
            let answer: serde_json::Value = Client::find(&hq)?.delete(&format!("/api/invitations/{id}"))?;
            eprintln!("the invitation for {} is revoked", answer["site"].as_str().unwrap_or_default());
        }
        Some(RosterCommand::AcceptTimes { site, reason, hq }) => {
            let path = format!("/api/roster/{site}/accept-times");
            let _: serde_json::Value = Client::find(&hq)?.post(&path, &json!({"reason": reason}))?;
            eprintln!("the times of {site} are accepted up to now");
        }
        Some(RosterCommand::Resend { sites, refused, reason, hq }) => {
            resend(&Client::find(&hq)?, &sites, refused, &reason)?;
        }
        Some(RosterCommand::Retire { site, reason, yes, hq }) => {
            let client = Client::find(&hq)?;
            if !yes
                && !ask(&format!("Take {site} off the roster? Its agent is cut off at once, and its key is revoked."))?
            {
                eprintln!("nothing is changed");
                return Ok(ExitCode::from(crate::FINDING));
            }
            let path = format!("/api/roster/{site}/retire");
            let answer: serde_json::Value = client.post(&path, &json!({"reason": reason}))?;
            eprintln!("{site} is retired and cut off; {} of its rows were not confirmed", answer["unconfirmed_rows"]);
            eprintln!("to take that back: rollcall roster reinstate {site} --reason …");
        }
        Some(RosterCommand::Reinstate { site, reason, hq }) => {
            let path = format!("/api/roster/{site}/reinstate");
            let _: serde_json::Value = Client::find(&hq)?.post(&path, &json!({"reason": reason}))?;
            eprintln!("{site} is on the roster again; its key is gone: rollcall roster invite {site}");
        }
        Some(RosterCommand::History { site, json, hq }) => history(&Client::find(&hq)?, &site, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A file to begin with.
const TEMPLATE: &str = "id,city,state,country,tz,hours,isp,manager
berlin-01,Berlin,,DE,Europe/Berlin,Mo-Sa 08:00-20:00,Telekom,ada@example.com
seattle-01,Seattle,WA,US,America/Los_Angeles,Mo-Su 09:00-21:00,Comcast,bo@example.com";

/// Text from a file as spreadsheets write it: UTF-8, UTF-16 with its mark, else Windows-1252. And
/// which of them it was.
fn decoded(bytes: &[u8]) -> anyhow::Result<(String, Option<&'static str>)> {
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0xd0, 0xcf, 0x11, 0xe0]) {
        bail!("that is a workbook; save it as \"CSV UTF-8\", and import that");
    }
    let (encoding, text) = match encoding_rs::Encoding::for_bom(bytes) {
        Some((encoding, length)) => (encoding, encoding.decode_without_bom_handling(&bytes[length..])),
        None if std::str::from_utf8(bytes).is_ok() => {
            (encoding_rs::UTF_8, encoding_rs::UTF_8.decode_without_bom_handling(bytes))
        }
        None => (encoding_rs::WINDOWS_1252, encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes)),
    };
    let (text, is_damaged) = text;
    if is_damaged || text.contains('\0') {
        bail!("the file is no text that can be read ({}); save it as \"CSV UTF-8\"", encoding.name());
    }
    let name = (encoding != encoding_rs::UTF_8).then(|| encoding.name());
    Ok((text.into_owned(), name))
}

/// Has sites send everything again, and says whom that did not reach.
fn resend(client: &Client, sites: &[String], refused: bool, reason: &str) -> anyhow::Result<()> {
    let body = json!({"sites": sites, "refused": refused, "reason": reason});
    let answer: serde_json::Value = client.post("/api/resend", &body)?;
    let names = |field: &str| -> Vec<&str> {
        answer[field].as_array().into_iter().flatten().filter_map(|site| site.as_str()).collect()
    };
    say_names("not enrolled, and left out", &names("not_enrolled"));
    let told = names("sites");
    if told.is_empty() {
        eprintln!("no site is refused because HQ lacks rows");
    } else {
        eprintln!(
            "{} to send everything again, when next connected: `rollcall call --all` shows how far they are",
            counted(told.len(), "site")
        );
        say_names("which", &told);
    }
    let unknown = names("unknown_key");
    if !unknown.is_empty() {
        say_names("refused because HQ does not know their key", &unknown);
        eprintln!(
            "they joined after the backup was made, or are other machines: `rollcall roster invite SITE`, and join again there"
        );
    }
    let away = names("not_heard");
    if !away.is_empty() {
        say_names("not heard now", &away);
        eprintln!("nobody knows yet whether these are refused: run this again when they are back");
    }
    Ok(())
}

fn import(client: &Client, file: &std::path::Path, replace: bool, dry_run: bool) -> anyhow::Result<ExitCode> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let (text, encoding) = decoded(&bytes).with_context(|| format!("reading {}", file.display()))?;
    if let Some(encoding) = encoding {
        eprintln!("note: read as {encoding}");
    }
    let path = format!("/api/roster?replace={replace}&dry_run={dry_run}");
    let report: ImportReport = client.post_csv(&path, &text)?;
    report.notes.iter().for_each(|note| eprintln!("note: {note}"));
    let lost: Vec<AttributeChange> = report.changes.iter().filter(|change| change.after.is_none()).cloned().collect();
    if dry_run {
        show_changes(&report.changes);
        eprint!("nothing is changed; it would be: ");
    }
    eprintln!("{} added, {} changed, {} unchanged", report.added, report.changed, report.unchanged);
    if !lost.is_empty() && !dry_run {
        show_changes(&lost);
        eprintln!(
            "{} taken away (`rollcall roster set SITE name=value` gives one back)",
            counted(lost.len(), "attribute")
        );
    }
    say_zones(&report.changes);
    say_names("on the roster but not in the file (they stay)", &report.not_in_file);
    say_names("never enrolled", &report.never_enrolled);
    say_names("unknown senders that tried to connect", &report.unknown_senders);
    say_names("time zone told by country or state", &report.zones_by_place);
    if report.without_zone.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say_names("WITHOUT A TIME ZONE", &report.without_zone);
    eprintln!(
        "their hours and days, and local times in their rows, count as UTC until you say: add a column tz, or rollcall roster set SITE tz=Europe/Berlin"
    );
    Ok(ExitCode::from(crate::FINDING))
}

fn set(client: &Client, site: &str, attributes: &[String]) -> anyhow::Result<()> {
    let answer: serde_json::Value = client.patch(&format!("/api/roster/{site}"), &json!(pairs(attributes)?))?;
    let changes: Vec<AttributeChange> = serde_json::from_value(answer["changes"].clone())?;
    show_changes(&changes);
    say_zones(&changes);
    say_unknown_holidays(client, &changes);
    let kept = changes.iter().filter(|change| change.after.is_some());
    say_like_own(kept.map(|change| change.attribute.as_str()));
    Ok(())
}

fn show_changes(changes: &[AttributeChange]) {
    if changes.is_empty() {
        eprintln!("no attribute of a site that is already on the roster would change");
        return;
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["site", "attribute", "before", "after"]);
    for change in changes {
        let value = |value: &Option<String>| value.clone().unwrap_or_default();
        table.add_row([change.site.to_string(), change.attribute.clone(), value(&change.before), value(&change.after)]);
    }
    outln!("{table}");
}

/// The roster as a file that `import` takes.
fn export(client: &Client) -> anyhow::Result<()> {
    #[derive(serde::Deserialize)]
    struct Line {
        id: String,
        attributes: BTreeMap<String, String>,
        retired: Option<serde_json::Value>,
    }
    let lines: Vec<Line> = serde_json::from_str(&client.get("/api/roster")?)?;
    let lines: Vec<Line> = lines.into_iter().filter(|line| line.retired.is_none()).collect();
    let names: std::collections::BTreeSet<&String> = lines.iter().flat_map(|line| line.attributes.keys()).collect();
    let mut writer = csv::Writer::from_writer(std::io::stdout().lock());
    writer.write_record(std::iter::once("id").chain(names.iter().map(|name| name.as_str())))?;
    for line in &lines {
        let values = names.iter().map(|name| line.attributes.get(*name).map_or("", String::as_str));
        writer.write_record(std::iter::once(line.id.as_str()).chain(values))?;
    }
    writer.flush()?;
    Ok(())
}

/// Attributes as `name=value`.
fn pairs(given: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        }
        _ => bail!("{text:?}: write it as name=value"),
    };
    given.iter().map(pair).collect()
}

/// Names that are said before the rest is counted.
const NAMED_MAX: usize = 20;

/// The first names, and how many more there are.
pub(crate) fn named(names: &[impl std::fmt::Display]) -> String {
    let named: Vec<String> = names.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more (`rollcall roster` lists them)") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

fn say_names(what: &str, names: &[impl std::fmt::Display]) {
    if !names.is_empty() {
        eprintln!("{what}: {}", named(names));
    }
}

/// Asks a person; where none sits at a terminal, whoever calls has to say --yes.
fn ask(question: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("{question} Nobody can be asked here: say --yes");
    }
    eprint!("{question} [y/N] ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn history(client: &Client, site: &str, json: bool) -> anyhow::Result<()> {
    let text = client.get(&format!("/api/roster/{site}/history"))?;
    if json {
        outln!("{text}");
        return Ok(());
    }
    let changes: Vec<PastChange> = serde_json::from_str(&text)?;
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["when", "by", "attribute", "before", "after"]);
    for PastChange { at, by, change } in changes {
        let value = |value: Option<String>| value.unwrap_or_default();
        table.add_row([local(at), by, change.attribute, value(change.before), value(change.after)]);
    }
    outln!("{table}");
    Ok(())
}

fn invite(client: &Client, site: &str, new: bool, set: &[String], hours: u64) -> anyhow::Result<()> {
    let body = json!({"attributes": pairs(set)?, "life_seconds": hours * 3600, "new": new});
    let invited = client.post(&format!("/api/roster/{site}/invite"), &body);
    let invitation: Invitation = invited.map_err(|error| match error.to_string() {
        text if text.contains("is not on the roster") => {
            let text = if text.ends_with('?') { text } else { format!("{text}.") };
            anyhow::anyhow!("{text} Add a new one with --new, or import a roster")
        }
        _ => error,
    })?;
    outln!("{}", invitation.token);
    eprintln!("for {site}, once, until {}. At the site run:", local(invitation.expires_at));
    let hq = invitation.hq.as_deref().unwrap_or("HOST:7400");
    eprintln!("  rollcall-site join TOKEN --hq {hq} --db FILE --tables a,b --run");
    Ok(())
}

fn invitations(client: &Client, json: bool) -> anyhow::Result<()> {
    let text = client.get("/api/invitations")?;
    if json {
        outln!("{text}");
        return Ok(());
    }
    let all: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["invitation", "site", "made", "by", "good until", "used"]);
    for one in &all {
        let text = |name: &str| one[name].as_str().unwrap_or("-").to_owned();
        let used = if one["is_over"] == true { "never; it is over".to_owned() } else { text("used_at") };
        table.add_row([text("id"), text("site"), text("made_at"), text("by"), text("expires_at"), used]);
    }
    outln!("{table}");
    Ok(())
}

fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let text = client.get("/api/roster")?;
    if json {
        outln!("{text}");
        return Ok(());
    }
    let sites: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["site", "attributes", "enrolled", "life", "retired"]);
    for site in &sites {
        let attributes = site["attributes"].as_object().into_iter().flatten();
        let attributes: Vec<String> =
            attributes.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::Null => "-".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.add_row([
            text(&site["id"]),
            attributes.join(" "),
            print::time(&site["enrolled_at"]).unwrap_or_else(|| "-".to_owned()),
            text(&site["epoch"]),
            text(&site["retired"]["reason"]),
        ]);
    }
    outln!("{table}");
    eprintln!("{}", counted(sites.len(), "site"));
    Ok(())
}
