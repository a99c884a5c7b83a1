//! `rollcall-site`: the agent's command line.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]

mod cli;
mod service;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::Ordering,
    time::Duration,
};

use clap::{Parser, error::ErrorKind};
use cli::{Cli, Command, MAX_AGE};
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use rollcall_capture::clock_micros;
use rollcall_log::{LogFormat, Supervisor};
use rollcall_site::{
    Agent, AgentConfig, LogControl, LoudConfig, Readiness, Report, StateDirectory, be_loud, check, check_loud,
    database_at, join, local, mark_resend, resume, status, title,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// The command failed, or was called wrongly: 1 and 2 are what `status` found.
const FAILURE: u8 = 3;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that hangs up has seen enough.
            let _ = error.print();
            let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if is_answer { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) };
        }
    };
    let log = start_log(cli.log_format);
    match execute(cli.command, cli.state, log) {
        Ok(code) => code,
        Err(error) if rollcall_log::is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAILURE)
        }
    }
}

/// Logs as the environment says; HQ may change that.
fn start_log(format: LogFormat) -> LogControl {
    let handle = rollcall_log::start(format, "info");
    LogControl::new(move |level| {
        let filter = match level {
            "" => rollcall_log::filter("info"),
            "error" | "warn" => EnvFilter::new(level),
            // What libraries say beyond that is for nobody at HQ.
            level => EnvFilter::new(format!("info,rollcall_site={level},rollcall_capture={level}")),
        };
        handle.reload(filter).map_err(|error| error.to_string())
    })
}

fn execute(command: Command, state: Option<PathBuf>, log: LogControl) -> anyhow::Result<ExitCode> {
    let of = |db: &Path| StateDirectory::of(db, state.as_deref());
    match command {
        Command::Tables { db, json } => print_tables(&db, json)?,
        Command::Check(args) => {
            let ready = runtime()?.block_on(check(&args.options(state)?))?;
            print_readiness(&ready)?;
        }
        Command::Join { join: args, run } => {
            let options = args.options(state.clone())?;
            let ready = runtime()?.block_on(join(&options))?;
            ready.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
            let (db, tables) = (args.db, options.tables.len());
            eprintln!("joined as {}; tables captured: {tables}", ready.site);
            if run {
                let loud = LoudConfig::quiet(db.clone(), state.clone(), MAX_AGE);
                return run_agent(AgentConfig { state, log: Some(log), ..AgentConfig::new(db) }, loud);
            }
            eprintln!("now run the agent, here or as a service: rollcall-site run --db {}", db.display());
        }
        Command::Run { db, hq, on_unconfirmed, max_age, status_page } => {
            let db = db.find()?;
            hq.iter().try_for_each(|address| rollcall_site::check_address(address))?;
            let loud = LoudConfig::quiet(db.clone(), state.clone(), Duration::from_secs(max_age * 60));
            let loud = LoudConfig { on_unconfirmed, page: status_page, ..loud };
            return run_agent(AgentConfig { state, hq_addresses: hq, log: Some(log), ..AgentConfig::new(db) }, loud);
        }
        Command::Status { db, max_age, json } => {
            let report = status(&db.find()?, state.as_deref(), Duration::from_secs(max_age * 60))?;
            print_status(&report, json)?;
            return Ok(ExitCode::from(report.level.exit_code()));
        }
        Command::Install(args) => service::install(args, state.as_deref())?,
        Command::Generate { dir } => rollcall_log::generate(<Cli as clap::CommandFactory>::command(), &dir)?,
        Command::Detach { db, table, forget } => {
            database_at(&db.find()?).source()?.detach(table.as_deref(), forget)?;
            eprintln!("detached");
        }
        Command::Pause { db, minutes } => {
            let db = db.find()?;
            let now = rollcall_types::Timestamp::from_micros(clock_micros());
            let until = now.plus_micros(i64::from(minutes) * 60_000_000);
            of(&db).identity()?;
            of(&db).pause(until)?;
            let (db, until) = (db.display(), local(until));
            eprintln!("the agent leaves {db} alone within seconds, until {until} or `rollcall-site resume`");
        }
        Command::Resume { db } => {
            let directory = of(&db.find()?);
            directory.identity()?;
            resume(&directory)?;
            eprintln!("the agent goes on");
        }
        Command::Adopt { table, db } => {
            let db = db.find()?;
            database_at(&db).incoming(of(&db).path())?.adopt(&table)?;
            eprintln!("HQ's rows take the place of those in {table} when they come");
        }
        Command::Resend { db } => {
            mark_resend(&of(&db.find()?))?;
            eprintln!("the agent will send again at its next connection");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()
}

fn run_agent(config: AgentConfig, loud: LoudConfig) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        check_loud(&loud)?;
        let agent = Agent::open(config)?;
        let stop = CancellationToken::new();
        tokio::spawn(stop_on_signal(stop.clone()));
        let loud = tokio::spawn(be_loud(loud, stop.clone()));
        let supervisor = Supervisor::from_env();
        supervisor.ready();
        let (watched, beats) = (supervisor.clone(), agent.beats());
        tokio::spawn(async move { watched.keep_alive(|| beats.load(Ordering::Relaxed)).await });
        let ran = agent.run(stop.clone()).await;
        supervisor.stopping();
        stop.cancel();
        loud.await?;
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

fn print_tables(database: &Path, json: bool) -> anyhow::Result<()> {
    let listed = cli::listed(database)?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&listed)?)?;
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["table", "rows", "key", "can be captured"]);
    for one in &listed {
        let key = if one.key.is_empty() { "row number".to_owned() } else { one.key.join(", ") };
        let can_be = match (&one.problem, one.is_captured) {
            (Some(problem), _) => format!("no: {problem}"),
            (None, true) => "is captured".to_owned(),
            (None, false) => "yes".to_owned(),
        };
        let rows = one.rows.map_or_else(|| "-".to_owned(), |rows| rows.to_string());
        table.add_row([one.table.clone(), rows, key, can_be]);
    }
    writeln!(out, "{table}")?;
    let can_be = listed.iter().filter(|one| one.problem.is_none()).count();
    eprintln!("{can_be} of {} can be captured; `--tables all` takes these", listed.len());
    Ok(())
}

fn print_readiness(ready: &Readiness) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready to join as {}: nothing was changed", ready.site)?;
    writeln!(out, "  the tables can be captured, and the database can be written to")?;
    writeln!(out, "  HQ answers at {} and is the one that the invitation is from", ready.hq)?;
    writeln!(out, "  the invitation is good until {}", local(ready.expires))?;
    for warning in ready.warnings() {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

fn print_status(report: &Report, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(report)?)?;
        return Ok(());
    }
    writeln!(out, "{}: {}", report.site, title(report))?;
    writeln!(out, "  {}", report.summary)?;
    if let Some(what) = &report.what_to_do {
        writeln!(out, "  what to do: {what}")?;
    }
    if let Some(contact) = report.contact.as_ref().filter(|_| report.what_to_do.is_some()) {
        writeln!(out, "  whom to call: {contact}")?;
    }
    Ok(())
}
