//! The site says so itself: when changes have waited for HQ too long, or worse, it runs a command
//! of the store's choice, and a page on loopback shows at any time how it stands. Neither needs HQ,
//! nor a session with it.

use std::{net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use rollcall_types::{Timestamp, describe};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::SiteError,
    metrics,
    status::{Level, Report, State, local, own_status},
};

/// What makes a site loud, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoudConfig {
    /// The store's database.
    pub database: PathBuf,
    /// Where the agent's own files are, if not beside it.
    pub state: Option<PathBuf>,
    /// Unconfirmed for longer than this is too long.
    pub max_age: Duration,
    /// Run by the shell when it is, with `ROLLCALL_SITE`, `ROLLCALL_LEVEL` and `ROLLCALL_SUMMARY`
    /// set.
    pub on_unconfirmed: Option<String>,
    /// Where the status page is served; loopback, since it asks for no password.
    pub page: Option<SocketAddr>,
}

impl LoudConfig {
    /// Neither command nor page.
    pub fn quiet(database: PathBuf, state: Option<PathBuf>, max_age: Duration) -> Self {
        Self { database, state, max_age, on_unconfirmed: None, page: None }
    }
}

/// How often the status is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// The command is run again after this long, as long as nothing gets better.
const REPEAT_EVERY: Duration = Duration::from_secs(4 * 3600);
/// A request for the page must come, and be answered, within this time.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Refuses what can never be served.
pub fn check(config: &LoudConfig) -> Result<(), SiteError> {
    match config.page {
        Some(page) if !page.ip().is_loopback() => {
            Err(SiteError::Usage(format!("the status page asks for no password: {page} is not loopback")))
        }
        _ => Ok(()),
    }
}

/// Looks, and is loud, until `stop`. Problems of its own are logged; they never end the agent, nor
/// each other: a page whose port is taken keeps no command from being run.
pub async fn be_loud(config: LoudConfig, stop: CancellationToken) {
    if let Some(page) = config.page {
        tokio::spawn(keep_page(page, config.clone(), stop.clone()));
    }
    let mut loud: Option<(Level, Instant)> = None;
    let mut timer = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        let Some(command) = &config.on_unconfirmed else { continue };
        let report = look(&config).await;
        let level = report.as_ref().map_or(Level::Broken, |report| report.level);
        if level == Level::Current {
            loud = None;
            continue;
        }
        let is_due = loud.is_none_or(|(before, at)| level > before || at.elapsed() >= REPEAT_EVERY);
        if is_due {
            loud = Some((level, Instant::now()));
            run(command, report.as_ref(), level);
        }
    }
}

async fn look(config: &LoudConfig) -> Result<Report, String> {
    let LoudConfig { database, state, max_age, .. } = config.clone();
    let looked = tokio::task::spawn_blocking(move || own_status(&database, state.as_deref(), max_age)).await;
    looked.map_err(|error| error.to_string())?.map_err(|error| describe(&error))
}

/// Runs the command beside the agent, in a thread of its own: it may take as long as it wants.
fn run(command: &str, report: Result<&Report, &String>, level: Level) {
    let (site, summary) = match report {
        Ok(report) => (report.site.clone(), report.summary.clone()),
        Err(error) => (String::new(), error.clone()),
    };
    tracing::warn!(summary, "telling the store");
    let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let mut child = Command::new(shell);
    child.arg(flag).arg(command).env("ROLLCALL_SITE", site).env("ROLLCALL_SUMMARY", summary);
    child.env("ROLLCALL_LEVEL", level.exit_code().to_string());
    std::thread::spawn(move || match child.status() {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::error!(%status, "the command that tells the store failed"),
        Err(error) => tracing::error!(%error, "the command that tells the store cannot be run"),
    });
}

/// Serves the page; where its port is taken, as soon as it is free.
async fn keep_page(page: SocketAddr, config: LoudConfig, stop: CancellationToken) {
    let mut told = String::new();
    loop {
        match TcpListener::bind(page).await {
            Ok(listener) => return serve_page(listener, config, stop).await,
            Err(error) => {
                let problem = error.to_string();
                if problem != told {
                    tracing::error!(%page, problem, "the status page cannot be served; it is tried again");
                    told = problem;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn serve_page(listener: TcpListener, config: LoudConfig, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        if let Ok((stream, _)) = accepted {
            let config = config.clone();
            tokio::spawn(async move {
                // A browser that went away is nobody's trouble.
                let _ = timeout(PAGE_TIMEOUT, answer(stream, &config)).await;
            });
        }
    }
}

/// Answers with the report in the form that is asked for: the page, unless a program asks.
async fn answer(mut stream: TcpStream, config: &LoudConfig) -> std::io::Result<()> {
    let mut request = [0; 1024];
    let length = stream.read(&mut request).await?;
    let wants = |path: &str| request[..length].starts_with(format!("GET {path} ").as_bytes());
    let report = look(config).await;
    let (kind, body) = match &report {
        Ok(report) if wants("/metrics") => (metrics::CONTENT_TYPE, metrics::text(report)),
        Ok(report) if wants("/status.json") => {
            ("application/json", serde_json::to_string_pretty(report).unwrap_or_default())
        }
        _ => ("text/html; charset=utf-8", page(&report)),
    };
    let code = match report.map(|report| report.level) {
        Ok(Level::Current) => "200 OK",
        // Whoever scrapes reads the level in the numbers.
        Ok(_) if wants("/metrics") => "200 OK",
        _ => "503 Service Unavailable",
    };
    let head = format!(
        "HTTP/1.1 {code}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn page(report: &Result<Report, String>) -> String {
    let (color, title, summary, rows) = match report {
        Ok(report) => {
            let color = match (report.state, report.level) {
                (State::Current, Level::Current) => "#1a7f37",
                (State::NeedsAPerson, _) | (_, Level::Broken) => "#cf222e",
                _ => "#9a6700",
            };
            let agent = report.agent.clone().unwrap_or_default();
            let time = |at: Option<Timestamp>| at.map_or_else(|| "–".to_owned(), local);
            let text = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
            let oldest = match report.unconfirmed_rows {
                0 => "–".to_owned(),
                _ => format!("{} min", report.oldest_unconfirmed_age_seconds / 60),
            };
            let rows = [
                ("What to do", text(report.what_to_do.clone().or_else(|| Some("nothing".to_owned())))),
                ("Whom to call", text(report.contact.clone())),
                ("HQ", agent.connected_to.clone().unwrap_or_else(|| "not connected".to_owned())),
                ("Not connected since", time(agent.disconnected_since)),
                ("Changes waiting", report.unconfirmed_rows.to_string()),
                ("The oldest waits", oldest),
                ("HQ confirmed something last", time(agent.last_confirmed_at)),
                ("Cause", text(agent.cause.map(|cause| cause.to_string()))),
                ("Last error", text(agent.last_error)),
            ];
            let rows: String = rows
                .iter()
                .map(|(name, value)| format!("<tr><th>{name}</th><td>{}</td></tr>", escaped(value)))
                .collect();
            (color, title(report), format!("{}: {}", report.site, report.summary), rows)
        }
        Err(error) => ("#cf222e", State::NeedsAPerson.title().to_owned(), error.clone(), String::new()),
    };
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=15>\
         <meta name=viewport content='width=device-width'><title>{title}</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem;color:#1f2328}}\
         h1{{background:{color};color:#fff;padding:.6rem 1rem;border-radius:.4rem;font-size:1.4rem}}\
         th{{text-align:left;font-weight:500;padding:.3rem 1.5rem .3rem 0;vertical-align:top;color:#59636e;white-space:nowrap}}</style>\
         <h1>{title}</h1><p>{}</p><table>{rows}</table></html>",
        escaped(&summary)
    )
}

/// How it stands and since when, in a line.
pub fn title(report: &Report) -> String {
    let since = report.since.filter(|_| report.state != State::Current);
    let since = since.map_or_else(String::new, |since| format!(" since {}", local(since)));
    format!("{}{since}", report.state.title())
}
