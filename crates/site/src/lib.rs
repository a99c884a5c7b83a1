//! The agent at a site: it keeps HQ informed of every change in the store's database, for ever, and
//! says so when it can't.
//!
//! [`join()`] enrols a database with HQ; [`Agent`] then runs: it connects, sends what is
//! unconfirmed, answers HQ's question "how far are you?", and between connections keeps its own
//! account of what it tried. [`status()`] tells the people at the store whether all is well. It
//! knows neither Delta nor SQL engines; it needs nothing but libc.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]

mod address;
mod agent;
mod blind;
mod claim;
mod dial;
mod enrol;
mod error;
mod feed;
mod join;
mod keeper;
mod kinds;
mod line;
mod loud;
mod metrics;
mod nudge;
mod outbox;
mod published;
mod session;
mod settings;
mod state;
mod status;
mod token;

pub use address::check_address;
pub use agent::{Agent, AgentConfig};
pub use dial::{Dialed, dial};
pub use enrol::{Invited, dial_invited};
pub use error::SiteError;
pub use join::{JoinOptions, Readiness, check, join, patiently};
pub use kinds::database_at;
pub use line::DataLine;
pub use loud::{LoudConfig, be_loud, check as check_loud, title};
pub use outbox::{Outbox, Sending};
pub use settings::LogControl;
pub use state::{Identity, StateDirectory, mark_resend, resume};
pub use status::{AgentStatus, AppliedStatus, CatchingUp, Level, Report, State, local, status};
pub use token::read_token;
