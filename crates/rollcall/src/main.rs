//! `rollcall`: HQ and the operator's commands. Data goes to stdout, everything else to stderr.
//!
//! Exit codes: 0 fine, 1 a finding (silent sites, an incomplete answer), 2 usage, 3 failure.
#![forbid(unsafe_code)]

#[macro_use]
mod print;

mod answer;
mod backup;
mod call;
mod channels;
mod client;
mod demo;
mod fleet;
mod hq;
mod incidents;
mod lake;
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

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

/// A node holds buffers for tens of thousands of connections, of which most pages are never written
/// to or not any more. This allocator puts them on pages of their own, and gives pages back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Brings every store's data to headquarters, and calls the roll.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
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
        /// Form of the answer.
        #[arg(long, value_enum, default_value_t = SqlFormat::Table)]
        format: SqlFormat,
        /// Write to this file instead of stdout.
        #[arg(long)]
        out: Option<PathBuf>,
        #[command(flatten)]
        hq: client::HqAddress,
    },
    /// Call the roll: how many sites are in which state, and who is not well, now.
    Call(call::CallArgs),
    /// The roster: which sites should be heard from.
    Roster(roster::RosterArgs),
    /// All about one site; and ruling on one whose database went back in time or was exchanged: accept, keep.
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
    /// How people are told: list, set, test, remove.
    Channels(channels::ChannelsArgs),
    /// Run the watch over a history of your own: what it would have said, and how often.
    Replay(replay::ReplayArgs),
    /// Start an HQ and a dozen stores that sell, and watch the roll notice trouble.
    Demo(demo::DemoArgs),
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
    let cli = Cli::parse();
    let default = match cli.command {
        // The demo's trouble is told on stdout; its agents' complaints about it would only hide that.
        Command::Demo(_) | Command::Fleet(_) => "error",
        _ => "info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("ROLLCALL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match execute(cli.command) {
        Ok(code) => code,
        Err(error) if print::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAILURE)
        }
    }
}

fn execute(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Hq(args) => runtime()?.block_on(hq::run(args)),
        Command::Backup(args) => runtime()?.block_on(backup::run(args)),
        Command::Restore(args) => runtime()?.block_on(backup::run_restore(args)),
        Command::Sql { sql, format, out, hq } => {
            let answer = client::Client::find(&hq)?.ask(&sql, format.name())?;
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
        Command::Channels(args) => channels::run(args),
        Command::Replay(args) => replay::run(&args),
        Command::Demo(args) => runtime()?.block_on(demo::run(args)),
        Command::Fleet(args) => runtime()?.block_on(fleet::run(args)),
    }
}

/// Stack of a worker. A statement passes through many layers, whose frames are large where nothing
/// is optimised; only what is touched takes memory.
const STACK_BYTES: usize = 16 << 20;

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK_BYTES).enable_all().build()
}
