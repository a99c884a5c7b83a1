//! SQL over the lake.
//!
//! Schemas: `public` has the current rows of every site table, `history` every change, `rollcall` what HQ knows. A query
//! pins one version of each table it could touch; the caller gives what is not in a table of its own (the roster, the
//! roll) as record batches. This crate knows nothing of sites' connections, and it only reads.
#![forbid(unsafe_code)]

mod audience;
mod change;
mod compat;
mod current;
mod engine;
mod only;
mod render;
mod scan;
mod scope;
mod system;
mod turns;
mod visible;
mod workbook;

pub use audience::{Audience, SiteAudience};
pub use change::{Change, ChangeKind, columns_set, is_change};
pub use datafusion;
pub use engine::{
    Answer, Cover, Engine, EngineLimits, Extras, MakeTable, NoCover, Planned, QueryError, Question, Took,
};
pub use render::{Format, RenderError, csv_trailer, render, split_csv_trailer};
pub use scope::{ScanScope, Scope};
pub use system::System;
