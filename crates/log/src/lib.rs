//! What both binaries tell whoever runs them: the service manager, and the log on stderr, as text
//! in colours on a terminal only, or as JSON.
//!
//! What goes wrong again and again is said once a minute, with a count: a full disk is one line,
//! not a hundred.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]

mod generate;
mod repeated;
mod supervisor;

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{
        Layer as FmtLayer,
        format::{Format, JsonFields},
    },
    layer::{Layer, SubscriberExt},
    reload::{self, Handle},
    util::SubscriberInitExt,
};

pub use generate::generate;
use repeated::OnceAMinute;
pub use supervisor::Supervisor;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people; in colours on a terminal only.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, as `ROLLCALL_LOG` says, or `usual` where that says nothing.
pub fn filter(usual: &str) -> EnvFilter {
    EnvFilter::try_from_env("ROLLCALL_LOG").unwrap_or_else(|_| EnvFilter::new(usual))
}

/// Starts the log. What is logged can be changed by the handle.
pub fn start(format: LogFormat, usual: &str) -> Handle<EnvFilter, Registry> {
    let (filter, handle) = reload::Layer::new(filter(usual));
    let lines = match format {
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal();
            let format = OnceAMinute::new(Format::default().with_ansi(ansi));
            FmtLayer::new().with_ansi(ansi).with_writer(std::io::stderr).event_format(format).boxed()
        }
        LogFormat::Json => {
            let format = OnceAMinute::new(Format::default().json());
            FmtLayer::new().fmt_fields(JsonFields::new()).with_writer(std::io::stderr).event_format(format).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    handle
}

/// Whether an error comes from that nobody reads standard output any more: who read it had what it
/// wanted.
pub fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let of_system = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    };
    std::iter::successors(Some(error), |error| error.source()).any(of_system)
}
