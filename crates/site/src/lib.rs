//! The agent at a site: it keeps HQ informed of every change in the store's database, for ever, and
//! says so when it can't.
//!
//! [`join`] enrols a database with HQ; [`Agent`] then runs: it connects, sends what is unconfirmed,
//! answers HQ's question "how far are you?", and between connections keeps its own account of what
//! it tried. [`status`] tells the people at the store whether all is well. It knows neither Delta
//! nor SQL engines; it needs nothing but libc.
#![forbid(unsafe_code)]

mod agent;
mod blind;
mod dial;
mod enrol;
mod error;
mod feed;
mod keeper;
mod line;
mod loud;
mod nudge;
mod outbox;
mod published;
mod session;
mod settings;
mod state;
mod status;

pub use agent::{Agent, AgentConfig};
pub use dial::{Dialed, dial};
pub use enrol::{Invited, JoinOptions, dial_invited, join};
pub use error::SiteError;
pub use line::DataLine;
pub use loud::{LoudConfig, be_loud, check as check_loud};
pub use outbox::{Outbox, Sending};
pub use settings::LogControl;
pub use state::{Identity, StateDirectory, mark_resend, resume};
pub use status::{AgentStatus, AppliedStatus, Level, Report, status};
