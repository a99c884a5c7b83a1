//! SQL over the lake.
//!
//! Schemas: `public` has the current rows of every site table, `history` every change, `rollcall`
//! what HQ knows. A query pins one version of each table it could touch; the caller gives what is
//! not in a table of its own (the roster, the roll) as record batches. This crate knows nothing of
//! sites' connections, and it only reads.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "not simulated: time, chance and tasks are the system's")]

mod audience;
mod catalogue;
mod change;
mod correlated;
mod current;
mod declared;
mod dependencies;
mod dialect;
mod engine;
mod error;
mod export;
mod extras;
mod functions;
mod io;
mod meaning;
mod metrics;
mod nullable;
mod only;
mod pinned;
mod planned;
mod scan;
mod scope;
mod session;
mod stop;
mod syntax;
mod threads;
mod turns;
mod verified;
mod visible;

pub use audience::{Audience, SiteAudience};
pub use catalogue::{OID_ALIAS, System, VECTOR, is_catalogue_question};
pub use change::{Change, ChangeKind, columns_set, is_change};
pub use datafusion;
pub use declared::DECLARED;
pub use dialect::{Literal, bind, execute, only_moves, shown_name};
pub use engine::{Answer, Described, Engine, EngineLimits, Question, Took};
pub use error::QueryError;
pub use export::{Encoder, ExportError, Format, TrailerFilter, csv_trailer, pieces, render, split_csv_trailer};
pub use extras::{Cover, Extras, MakeTable, NoCover, Versions};
pub use functions::interval_text;
pub use meaning::texts;
pub use planned::Planned;
pub use scope::{ScanScope, Scope, TimeRead};
pub use session::SERVER_VERSION;
pub use syntax::folded;
