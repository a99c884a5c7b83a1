//! Names of the columns and schema metadata that travel with a site's rows.

/// Position in the journal, `Int64`.
pub const SEQ: &str = "_seq";
/// One ASCII letter as `UInt8`: `I`, `U`, `D`, or `S` for a row stated by a load.
pub const OP: &str = "_op";
/// Statement time by the site's clock, `Int64` microseconds since the Unix epoch.
pub const CHANGED_AT: &str = "_changed_at";
/// JSON object with the values that did not fit their column, `Utf8`, null for most rows; may be absent.
pub const MISFIT: &str = "_misfit";
/// The key of a table that declares none: SQLite's own row number, `Int64`.
pub const ROWID: &str = "_rowid";
/// Schema metadata: the key columns, as a JSON list.
pub const METADATA_KEY: &str = "rollcall.key";
/// Field metadata: the type declared at the site.
pub const METADATA_DECLARED: &str = "rollcall.declared";
/// The table under which a site's journal carries its own entries: loads begun and completed, losses.
pub const LOG_TABLE: &str = "_rollcall_log";
