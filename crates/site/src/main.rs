//! `rollcall-site`: the agent's command line.
#![forbid(unsafe_code)]

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use rollcall_capture::{Incoming, Source, TableSpec};
use rollcall_site::{
    Agent, AgentConfig, JoinOptions, LogControl, LoudConfig, Report, SiteError, StateDirectory, be_loud, check_loud,
    join, mark_resend, resume, status,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// Keeps HQ informed of every change in this store's database.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    /// Where the agent's own files are: as a rule in FILE.rollcall beside the database. Say it at every
    /// command where the database is reached through a folder that is a link.
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enrol this store with HQ and begin to capture its tables.
    Join {
        /// The invitation that `rollcall roster invite` printed.
        token: String,
        /// HQ's address; may be given several times.
        #[arg(long, required = true, value_name = "HOST:PORT")]
        hq: Vec<String>,
        /// The store's SQLite database, as it is; its programs need not stop.
        #[arg(long)]
        db: PathBuf,
        /// Tables to capture.
        #[arg(long, required = true, value_delimiter = ',')]
        tables: Vec<String>,
        /// A column never to be captured; may be given several times.
        #[arg(long, value_name = "TABLE.COLUMN")]
        exclude: Vec<String>,
        /// The column with the time at which a row of a table happened, so that a question about
        /// last month needs no site beyond it; HQ takes it where nobody there says otherwise. May
        /// be given for several tables.
        #[arg(long, value_name = "TABLE.COLUMN")]
        event_time: Vec<String>,
        /// This database takes the place of the one the site had before; what only that one had is not
        /// missed.
        #[arg(long)]
        replace_site: bool,
        /// Go on running as the agent.
        #[arg(long)]
        run: bool,
    },
    /// Run the agent until stopped.
    Run {
        /// The store's database.
        #[arg(long)]
        db: PathBuf,
        /// HQ's address in place of the one given to join; may be given several times.
        #[arg(long, value_name = "HOST:PORT")]
        hq: Vec<String>,
        /// Run this command when changes have waited for HQ too long, or worse; again every 4 hours.
        #[arg(long, value_name = "COMMAND")]
        on_unconfirmed: Option<String>,
        /// Unconfirmed for longer than this is too long.
        #[arg(long, default_value_t = 30, value_name = "MINUTES")]
        max_age: u64,
        /// Serve a status page here, such as 127.0.0.1:7490.
        #[arg(long, value_name = "HOST:PORT")]
        status_page: Option<SocketAddr>,
    },
    /// Say whether all is well; exit code 0 current, 1 unconfirmed too long, 2 broken.
    Status {
        /// The store's database.
        #[arg(long)]
        db: PathBuf,
        /// Unconfirmed for longer than this is too long.
        #[arg(long, default_value_t = 30, value_name = "MINUTES")]
        max_age: u64,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Stop capturing a table, or all of them; the store's own tables are left as they are.
    Detach {
        /// The store's database.
        #[arg(long)]
        db: PathBuf,
        /// Only this table.
        #[arg(long)]
        table: Option<String>,
        /// Remove the journal too, with everything not confirmed yet.
        #[arg(long)]
        forget: bool,
    },
    /// Have the agent leave the database alone, to put a backup in place: it goes on by itself after a while.
    /// Changes are captured meanwhile.
    Pause {
        /// The store's database.
        #[arg(long)]
        db: PathBuf,
        /// For so long at most.
        #[arg(long, default_value_t = 60, value_name = "MINUTES")]
        minutes: u32,
    },
    /// Have the agent go on, after a pause or after it gave up on a database that went back in time again and
    /// again.
    Resume {
        /// The store's database.
        #[arg(long)]
        db: PathBuf,
    },
    /// Let HQ have a table in which the store has rows of its own: HQ's rows take their place.
    Adopt {
        /// The table, which HQ publishes.
        table: String,
        /// The store's database.
        #[arg(long)]
        db: PathBuf,
    },
    /// Accept that HQ was restored from a backup, and send again what it lacks.
    Resend {
        /// The store's database.
        #[arg(long)]
        db: PathBuf,
    },
}

fn main() -> ExitCode {
    let log = start_log();
    let cli = Cli::parse();
    match execute(cli.command, cli.state, log) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}

/// Logs as the environment says; HQ may change that.
fn start_log() -> LogControl {
    let usual = || EnvFilter::try_from_env("ROLLCALL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(usual());
    let to_stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(to_stderr).init();
    LogControl::new(move |level| {
        let filter = match level {
            "" => usual(),
            "error" | "warn" => EnvFilter::new(level),
            // What libraries say beyond that is for nobody at HQ.
            level => EnvFilter::new(format!("info,rollcall_site={level},rollcall_capture={level}")),
        };
        handle.reload(filter).map_err(|error| error.to_string())
    })
}

fn execute(command: Command, state: Option<PathBuf>, log: LogControl) -> anyhow::Result<ExitCode> {
    match command {
        Command::Join { token, hq, db, tables, exclude, event_time, replace_site, run } => {
            let tables = table_specs(&tables, &exclude)?;
            let event_times = event_times(&event_time)?;
            let options = JoinOptions {
                token,
                hq_addresses: hq,
                database: db.clone(),
                state: state.clone(),
                replaces_site: replace_site,
                tables,
                event_times,
            };
            let site = runtime()?.block_on(join(&options))?;
            eprintln!("joined as {site}; capture is on. Start the agent with: rollcall-site run --db {}", db.display());
            let loud = LoudConfig {
                database: db.clone(),
                state: state.clone(),
                max_age: MAX_AGE,
                on_unconfirmed: None,
                page: None,
            };
            if run {
                run_agent(AgentConfig { state, log: Some(log), ..AgentConfig::new(db) }, loud)
            } else {
                Ok(ExitCode::SUCCESS)
            }
        }
        Command::Run { db, hq, on_unconfirmed, max_age, status_page } => {
            let max_age = Duration::from_secs(max_age * 60);
            let loud =
                LoudConfig { database: db.clone(), state: state.clone(), max_age, on_unconfirmed, page: status_page };
            run_agent(AgentConfig { state, hq_addresses: hq, log: Some(log), ..AgentConfig::new(db) }, loud)
        }
        Command::Status { db, max_age, json } => {
            let report = status(&db, state.as_deref(), Duration::from_secs(max_age * 60))?;
            print_status(&report, json)?;
            Ok(ExitCode::from(report.level.exit_code()))
        }
        Command::Detach { db, table, forget } => {
            Source::open(&db)?.detach(table.as_deref(), forget)?;
            eprintln!("detached");
            Ok(ExitCode::SUCCESS)
        }
        Command::Pause { db, minutes } => {
            let until = rollcall_types::Timestamp::from_micros(
                Source::clock_micros().saturating_add(i64::from(minutes) * 60_000_000),
            );
            let directory = StateDirectory::of(&db, state.as_deref());
            directory.identity()?;
            directory.pause(until)?;
            eprintln!(
                "the agent leaves {} alone within seconds, until {until} or `rollcall-site resume`",
                db.display()
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::Resume { db } => {
            let directory = StateDirectory::of(&db, state.as_deref());
            directory.identity()?;
            resume(&directory)?;
            eprintln!("the agent goes on");
            Ok(ExitCode::SUCCESS)
        }
        Command::Adopt { table, db } => {
            let directory = StateDirectory::of(&db, state.as_deref());
            Incoming::open(&db, directory.path())?.adopt(&table)?;
            eprintln!("HQ's rows take the place of those in {table} when they come");
            Ok(ExitCode::SUCCESS)
        }
        Command::Resend { db } => {
            mark_resend(&StateDirectory::of(&db, state.as_deref()))?;
            eprintln!("the agent will send again at its next connection");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()
}

/// Unconfirmed for longer than this is too long, unless told otherwise.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

fn run_agent(config: AgentConfig, loud: LoudConfig) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        check_loud(&loud)?;
        let agent = Agent::open(config)?;
        let stop = CancellationToken::new();
        tokio::spawn(stop_on_signal(stop.clone()));
        let (ran, ()) = tokio::join!(agent.run(stop.clone()), be_loud(loud, stop));
        ran?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn stop_on_signal(stop: CancellationToken) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            stop.cancel();
            return;
        }
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.cancel();
    }
}

fn table_specs(tables: &[String], exclude: &[String]) -> Result<Vec<TableSpec>, SiteError> {
    let mut specs: Vec<TableSpec> =
        tables.iter().map(|table| TableSpec { table: table.trim().to_owned(), excluded: Vec::new() }).collect();
    for text in exclude {
        let wrong = |why: &str| SiteError::Usage(format!("--exclude {text:?}: {why}"));
        let (table, column) = text.split_once('.').ok_or_else(|| wrong("write it as table.column"))?;
        let spec = specs.iter_mut().find(|spec| spec.table.eq_ignore_ascii_case(table));
        spec.ok_or_else(|| wrong("that table is not among --tables"))?.excluded.push(column.to_owned());
    }
    Ok(specs)
}

/// From `table.column`.
fn event_times(said: &[String]) -> Result<BTreeMap<String, String>, SiteError> {
    let pair = |text: &String| {
        let wrong = || SiteError::Usage(format!("--event-time {text:?}: write it as table.column"));
        text.split_once('.').map(|(table, column)| (table.to_owned(), column.to_owned())).ok_or_else(wrong)
    };
    said.iter().map(pair).collect()
}

fn print_status(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        println!("{}: {}", report.site, report.summary);
    }
    Ok(())
}
