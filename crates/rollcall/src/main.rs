//! `rollcall`: HQ and the operator's commands. Data goes to stdout, everything else to stderr.
//!
//! Exit codes: 0 fine, 1 a finding (silent sites, an incomplete answer), 2 usage, 3 failure.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]

#[macro_use]
mod print;

mod answer;
mod backup;
mod call;
mod channels;
mod client;
mod demo;
mod examples;
mod fleet;
mod hq;
mod incidents;
mod lake;
mod people;
mod published;
mod quarantine;
mod quotas;
mod replay;
mod roster;
mod secrets;
mod settings;
mod show;
mod site;
mod tables;
mod users;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use rollcall_log::LogFormat;

/// A node holds buffers for tens of thousands of connections, of which most pages are never written
/// to or not any more. This allocator puts them on pages of their own, and gives pages back.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Brings every store's data to headquarters, and calls the roll.
#[derive(Debug, Parser)]
#[command(name = "rollcall", version, about)]
struct Cli {
    /// The form of the log on stderr.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "ROLLCALL_LOG_FORMAT")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run HQ on a directory; an empty one becomes a working HQ. `stop` ends it.
    Hq(hq::HqArgs),
    /// Copy the lake as of now, also while HQ runs; the copy is read and counted.
    Backup(backup::BackupArgs),
    /// Put a backup in place.
    Restore(backup::RestoreArgs),
    /// Ask in SQL; every answer says which sites it is missing.
    Sql {
        /// One statement; tables are in public (current rows), history (every change) and rollcall.
        sql: String,
        /// Form of the answer; if it is not said, by the ending of --out, else a table.
        #[arg(long, value_enum)]
        format: Option<SqlFormat>,
        /// The same as --format json.
        #[arg(long, conflicts_with = "format")]
        json: bool,
        /// Write to this file instead of stdout.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Of a strict user: give an incomplete answer too, with its note.
        #[arg(long)]
        note: bool,
        #[command(flatten)]
        hq: client::HqAddress,
    },
    /// Call the roll: how many sites are in which state, and who is not well, now.
    Call(call::CallArgs),
    /// The roster: which sites should be heard from.
    Roster(roster::RosterArgs),
    /// All about one site; and ruling on one whose database went back in time or was exchanged:
    /// accept, keep.
    Site(site::SiteArgs),
    /// What a person should know: list, show, take, explain.
    Incidents(incidents::IncidentsArgs),
    /// The sites' tables, and when their rows happened: list, set.
    Tables(tables::TablesArgs),
    /// Give rows to the sites: new, changed or removed ones of a table that HQ owns.
    Publish(published::PublishArgs),
    /// What was published, which sites have it, and why the others have not.
    Publications(published::PublicationsArgs),
    /// How sites are to behave (what they capture, how often they call, how much they send) and
    /// which do: list, set, remove.
    Settings(settings::SettingsArgs),
    /// Batches of which HQ could not take everything: list, show, take, give up.
    Quarantine(quarantine::QuarantineArgs),
    /// How much a site may have HQ keep (tables, columns, quarantine, lives): show, set.
    Quotas(quotas::QuotasArgs),
    /// Keys, tokens and passwords: how old they are, and replacing them.
    Secrets(secrets::SecretsArgs),
    /// Whether the lake's files are what was written: check, repair.
    Lake(lake::LakeArgs),
    /// Who may ask, and what they may see: list, set, remove.
    Users(users::UsersArgs),
    /// Days on which shops of a calendar are closed: list, set.
    Holidays(people::HolidaysArgs),
    /// Who did what, newest first.
    Audit(people::AuditArgs),
    /// Who logged in, from where.
    Sessions(people::SessionsArgs),
    /// How people are told: list, set, test, remove.
    Channels(channels::ChannelsArgs),
    /// Run the watch over a history of your own: what it would have said, and how often.
    Replay(replay::ReplayArgs),
    /// Start an HQ and a dozen stores that sell, and watch the roll notice trouble.
    Demo(demo::DemoArgs),
    /// Write man pages and completions into a folder, for who packages this.
    #[command(hide = true, after_help = "Example:\n  rollcall generate target/man")]
    Generate {
        /// The folder.
        dir: PathBuf,
    },
    /// Drive simulated sites over the real protocol, for load and benchmarks.
    Fleet(fleet::FleetArgs),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SqlFormat {
    Table,
    Csv,
    Json,
    Arrow,
    Parquet,
    Xlsx,
}

impl SqlFormat {
    /// As it was asked for, or as the name of the file has it.
    fn chosen(format: Option<Self>, json: bool, out: Option<&Path>) -> Self {
        let ending = out.and_then(Path::extension).and_then(|ending| ending.to_str());
        let of_file = || {
            Some(match ending?.to_ascii_lowercase().as_str() {
                "csv" => Self::Csv,
                "json" => Self::Json,
                "arrow" | "arrows" => Self::Arrow,
                "parquet" => Self::Parquet,
                "xlsx" => Self::Xlsx,
                _ => return None,
            })
        };
        format.or_else(|| json.then_some(Self::Json)).or_else(of_file).unwrap_or(Self::Table)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
            Self::Xlsx => "xlsx",
        }
    }
}

/// A finding: the command worked, and a person should look.
const FINDING: u8 = 1;
const FAILURE: u8 = 3;

fn main() -> ExitCode {
    let cli = match command_line().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that hangs up has seen enough.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(FAILURE));
        }
    };
    let usual = match cli.command {
        // The demo's trouble is told on stdout; its agents' complaints about it would only hide
        // that.
        Command::Demo(_) | Command::Fleet(_) => "error",
        _ => "info",
    };
    rollcall_log::start(cli.log_format, usual);
    match execute(cli.command) {
        Ok(code) => code,
        Err(error) if rollcall_log::is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAILURE)
        }
    }
}

/// The command line, with an example for each command.
fn command_line() -> clap::Command {
    let command = examples::with_examples(Cli::command());
    command.after_help("Example: the first store\n  rollcall hq --data /srv/rollcall\n  rollcall roster invite seattle-01 --new --data /srv/rollcall")
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Hq(args) => runtime()?.block_on(hq::run(args)),
        Command::Backup(args) => runtime()?.block_on(backup::run(args)),
        Command::Restore(args) => runtime()?.block_on(backup::run_restore(args)),
        Command::Sql { sql, format, json, out, note, hq } => {
            let format = SqlFormat::chosen(format, json, out.as_deref());
            let answer = client::Client::find(&hq)?.ask(&sql, format.name(), note)?;
            answer::deliver(answer, format, out.as_deref())
        }
        Command::Call(args) => call::run(&args),
        Command::Roster(args) => roster::run(args),
        Command::Site(args) => site::run(args),
        Command::Incidents(args) => incidents::run(args),
        Command::Tables(args) => tables::run(args),
        Command::Publish(args) => published::publish(&args),
        Command::Publications(args) => published::publications(&args),
        Command::Settings(args) => settings::run(&args),
        Command::Quarantine(args) => quarantine::run(args),
        Command::Quotas(args) => quotas::run(args),
        Command::Secrets(args) => secrets::run(args),
        Command::Lake(args) => runtime()?.block_on(lake::run(args)),
        Command::Users(args) => users::run(args),
        Command::Holidays(args) => people::holidays(&args),
        Command::Audit(args) => people::audit(&args),
        Command::Sessions(args) => people::sessions(&args),
        Command::Channels(args) => channels::run(args),
        Command::Replay(args) => replay::run(&args),
        Command::Demo(args) => runtime()?.block_on(demo::run(args)),
        Command::Generate { dir } => {
            rollcall_log::generate(command_line(), &dir)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Fleet(args) => runtime()?.block_on(fleet::run(args)),
    }
}

/// Stack of a worker. A statement passes through many layers, whose frames are large where nothing
/// is optimised; only what is touched takes memory.
const STACK_BYTES: usize = 16 << 20;

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK_BYTES).enable_all().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a line, as a shell takes them apart.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for letter in line.chars() {
            match (quote, letter) {
                (Some(open), _) if open == letter => quote = None,
                (Some(_), _) => word.push(letter),
                (None, '"' | '\'') => quote = Some(letter),
                (None, ' ') => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
                (None, _) => word.push(letter),
            }
        }
        words.extend(Some(word).filter(|word| !word.is_empty()));
        words
    }

    #[test]
    fn every_command_has_an_example_and_every_example_is_one() {
        fn walk(command: &clap::Command, path: &str, seen: &mut usize, wrong: &mut Vec<String>) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{path} has no example");
            let lines = help.lines().map(str::trim).filter(|line| line.starts_with("rollcall "));
            for line in lines {
                // Of lines for a shell the part that is about this program.
                for part in line.split(" && ") {
                    let part = part.split(['>', '|']).next().unwrap_or_default();
                    if let Err(error) = command_line().try_get_matches_from(words(part)) {
                        wrong.push(format!("{path}: {part}: {error}"));
                    }
                    *seen += 1;
                }
            }
            for child in command.get_subcommands().filter(|child| child.get_name() != "help") {
                walk(child, &format!("{path} {}", child.get_name()), seen, wrong);
            }
        }
        let (mut command, mut seen, mut wrong) = (command_line(), 0, Vec::new());
        command.build();
        walk(&command, "rollcall", &mut seen, &mut wrong);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(seen > 60, "{seen}");
    }
}
