//! How people and programs ask HQ: HTTP with JSON, SQL over both of HQ's ports, users and tokens.
//!
//! An [`Api`] is given the other parts of a node; [`router`] and [`PgBackend`] are what its two
//! ports serve.
#![forbid(unsafe_code)]

mod access;
mod api;
mod audit;
mod caller;
mod callers;
mod guesses;
mod hear_out;
mod http;
mod incident_page;
mod incidents_api;
mod lives_api;
mod node_key;
mod origin;
mod pg_backend;
mod published_api;
mod quarantine_api;
mod roster_api;
mod secrets;
mod secrets_api;
mod settings_api;
mod sql_api;
mod users_api;
mod web_port;

pub use access::{Credentials, FIRST_PASSWORD_FILE, OPERATOR_TOKEN_FILE, Role};
pub use api::{Api, ApiParts};
pub use http::router;
pub use node_key::{NODE_KEY_FILE, node_key, rotate_node_key};
pub use pg_backend::PgBackend;
pub use sql_api::ERROR_MARK;
pub use web_port::serve;
