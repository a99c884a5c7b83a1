//! One HQ node: it wires the lake, the gateway for sites, the roll and the API together.
//!
//! [`Node::start`] opens the lake, makes what a first start needs (CA, password, tokens) and serves
//! until told to stop. A node keeps nothing of its own: what must last is in the lake before a site
//! is told so.
#![forbid(unsafe_code)]

mod access;
mod attributes;
mod audit;
mod authority;
mod backups;
mod callers;
mod capacity;
mod config;
mod coverage;
mod coverage_function;
mod data_stream;
mod digest;
mod doors;
mod error;
mod facts;
mod gateway;
mod guesses;
mod health;
mod hear_out;
mod hq_clock;
mod http;
mod incident_page;
mod incidents_api;
mod ingest;
mod invitations;
mod kept_secret;
mod known_clock;
mod lake_care;
mod lanes;
mod lease;
mod ledger;
mod lines;
mod lives;
mod lives_api;
mod maintenance;
mod measures;
mod misfits;
mod node;
mod notify;
mod origin;
mod own_disk;
mod pg;
mod published;
mod published_api;
mod quarantine;
mod quarantine_api;
mod quotas;
mod reconcile;
/// What every column of HQ's own tables means.
pub mod reference;
mod relay;
mod requests;
mod restate;
mod restated;
mod roster;
mod roster_api;
mod roster_file;
mod rulings;
mod scrub;
mod secrets;
mod secrets_api;
mod sessions;
mod settings;
mod settings_api;
mod site_log;
mod sites_port;
mod sql_api;
mod standing;
mod stopped;
mod table_settings;
mod tables;
mod texts;
mod tls_line;
mod unreconciled;
mod watching;
mod web_port;
mod zones;

pub use access::{Credentials, OPERATOR_TOKEN_FILE, Role};
pub use backups::{Restored, back_up, restore};
pub use config::{HTTP_PORT, HqConfig};
pub use error::HqError;
pub use invitations::Invitation;
pub use lake_care::{LakePlace, Mended, check_lake, repair_lake};
pub use node::{ENDPOINTS_FILE, Node};
pub use notify::{Channel, How, Mail, MailTls, QuietHours, Template};
pub use rollcall_api::pg::PG_PORT;
pub use rollcall_query::TrailerFilter;
pub use roster::{AttributeChange, ImportReport, PastChange};
pub use secrets::rotate_node_key;
pub use sql_api::ERROR_MARK;
pub use watching::roster_from_csv;
