//! The PostgreSQL port: any client of PostgreSQL can ask, and is told what its answer is missing.
//!
//! A connection has a `Session` of its own. Questions are planned and run by
//! the engine on threads of their own; what else a client says (settings, transactions that change
//! nothing, cursors) is answered here. What is written are the tables that HQ publishes. Nothing
//! here knows of sites: what it needs of the rest of HQ it asks its [`Backend`].

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]

mod answer;
mod connection;
mod control;
mod cursor;
mod error;
mod isolation;
mod port;
mod portals;
mod prepared;
mod protocol;
mod rows;
mod running;
mod session;
mod settings;
mod startup;
pub mod value;

use std::{net::IpAddr, sync::Arc};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use rollcall_query::{Engine, Extras, datafusion::sql::sqlparser::ast::Statement};
use rollcall_types::Coverage;

pub use pgwire::api::auth::sasl::scram::{SCRAM_ITERATIONS, gen_salted_password};

pub use self::port::{PG_PORT, PgPort};

/// What the port knows of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PgUser {
    /// Whether an incomplete answer is an error to this user, unless the session says otherwise.
    pub is_strict: bool,
    /// Why this user may not change published tables; none if it may.
    pub may_not_change: Option<String>,
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeFailure {
    /// The SQLSTATE.
    pub code: &'static str,
    /// What is wrong.
    pub text: String,
}

/// What the port asks of the rest of HQ.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// What answers questions.
    fn engine(&self) -> &Engine;

    /// TLS for whoever connects now: certificates are made anew now and then.
    fn tls(&self) -> Arc<rustls::ServerConfig>;

    /// A user's salt and salted password; an error tells nobody whether the user exists.
    fn scram(&self, user: &str) -> Result<(Vec<u8>, Vec<u8>), String>;

    /// Whether a password of this user may be tried from there now; an error says why not.
    fn may_try(&self, user: &str, from: IpAddr) -> Result<(), String>;

    /// Takes note of how such an attempt ended.
    fn tried(&self, user: &str, from: IpAddr, is_right: bool);

    /// A caller from there was turned away for want of a place.
    fn turned_away(&self, from: IpAddr);

    /// A user; none once it is removed.
    fn user(&self, name: &str) -> Option<PgUser>;

    /// What goes with a question that this user asks now; none once the user is removed.
    fn context(&self, user: &str) -> Option<Extras>;

    /// The rows of `rollcall.coverage`.
    fn coverage_rows(&self, coverage: &Coverage) -> RecordBatch;

    /// Records that a user asked without being told what is missing.
    async fn record_untold(&self, user: &str, statement: &str, summary: &str) -> Result<(), String>;

    /// Publishes what a statement changes; gives the command's name and how many rows it was.
    async fn change(&self, statement: &Statement, user: &str) -> Result<(&'static str, usize), ChangeFailure>;
}

/// A backend that many connections share.
pub type SharedBackend = Arc<dyn Backend>;
