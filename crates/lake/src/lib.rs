//! HQ's only durable thing: open Delta Lake tables, in which a site's rows and its cursor land in
//! one atomic step.
//!
//! - [`Table::append`] takes parts of sites' batches and commits each exactly once: a part is
//!   accepted only where the cursor of (table, site, epoch) stands at the part's *previous*
//!   position, trimmed where it overlaps, refused where it would leave a gap. The cursors are Delta
//!   `txn` actions in the same commit as the rows.
//! - A commit is a *put if absent* of the next log entry. When the outcome is unknown, or someone
//!   else won, the log is read and our own commit id looked for, so any number of nodes can write
//!   one table.
//! - [`Snapshot`] is one version of a table: files, schema, cursors. Cloning it costs nothing.
//! - [`StateLog`] keeps what HQ itself knows (roster, users, settings) in one more such table;
//!   [`Vault`] keeps secrets.
//!
//! Nothing here knows about connections, the roll or SQL. Deletion of data files happens only in
//! [`Table::vacuum`].
#![forbid(unsafe_code)]

mod action;
mod append;
mod aside;
pub mod backup;
mod check;
mod checkpoint;
mod clean;
mod clock;
mod compact;
mod conform;
mod counts;
mod data_file;
mod digest;
mod directory;
mod entry;
mod error;
mod forget;
#[cfg(fuzzing)]
pub mod fuzzing;
mod heads;
mod lake;
mod layer;
mod misfit;
mod objects;
mod opener;
mod record_kind;
mod rekey;
mod remote;
mod replay;
mod retype;
mod salvage;
mod schema;
mod snapshot;
mod state;
mod table;
mod vault;

pub use append::{Appended, Part, PartOutcome};
pub use check::{CheckReport, Damage, Finding, LostRange, check};
pub use clock::BootClock;
pub use compact::{CompactionLimits, CompactionReport, Retention};
pub use conform::{Conformed, MarkKind, PartMark, SiteClock, conform, local_name, our_column};
pub use counts::TableCounts;
pub use digest::{Digest, Digester};
pub use directory::DurableDirectory;
pub use error::LakeError;
pub use lake::{Lake, LakeOptions, is_locked, lock_directory};
pub use layer::{Layered, PutLayer, is_commit};
pub use misfit::propose_wider;
pub use record_kind::RecordKind;
pub use remote::store_at;
pub use retype::RetypeReport;
pub use salvage::Doubt;
pub use schema::{Column, ColumnType, TableSchema, our_columns};
pub use snapshot::{Cursor, DataFile, FileStats, HQ_EPOCH, Lives, Snapshot, Visible};
pub use state::{Record, StateLog, StateView};
pub use table::Table;
pub use vault::{Vault, VaultKey};
