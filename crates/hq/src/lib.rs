//! One HQ node: it wires the lake, the gateway for sites, the roll and the API together.
//!
//! [`Node::start`] opens the lake, makes what a first start needs (CA, password, tokens), builds
//! the parts and serves until told to stop. A node keeps nothing of its own: what must last is in
//! the lake before a site is told so. Nothing but this crate knows all parts.
#![forbid(unsafe_code)]

mod config;
mod for_sites;
mod maintenance;
mod metrics;
mod node;

pub use config::{Allocator, HTTP_PORT, HqConfig};
pub use node::{ENDPOINTS_FILE, Node};
pub use rollcall_alert::{Channel, How, Mail, MailTls, QuietHours, Template, roster_from_csv};
pub use rollcall_answer::reference;
pub use rollcall_api::{Credentials, ERROR_MARK, OPERATOR_TOKEN_FILE, Role};
pub use rollcall_pg::PG_PORT;
pub use rollcall_query::TrailerFilter;
pub use rollcall_registry::{
    HqError,
    invitations::Invitation,
    meant_attribute,
    roster::{AttributeChange, ImportReport, PastChange},
};
pub use rollcall_upkeep::{LakePlace, Mended, Restored, back_up, check_lake, repair_lake, restore, rotate_node_key};
