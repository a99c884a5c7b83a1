//! What the schema of a store's file is, to see whether it changed.

use ring::digest::{SHA256, digest};
use rusqlite::Connection;

use crate::{
    error::{CaptureError, Doing},
    install,
    stored::hex,
};

/// The schema's version, which VACUUM moves as well, and a digest of its texts, which
/// `writable_schema` changes without moving that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schema {
    pub(crate) version: i64,
    pub(crate) digest: String,
}

/// The schema's version: every change of it makes another, VACUUM as well.
pub(crate) fn schema_version(conn: &Connection) -> Result<i64, CaptureError> {
    conn.query_row("PRAGMA schema_version", [], |row| row.get(0)).doing("reading the schema's version")
}

/// The schema as it is in the file now.
pub(crate) fn schema_of(conn: &Connection) -> Result<Schema, CaptureError> {
    let doing = "reading the schema";
    let version = schema_version(conn)?;
    let mut statement = conn
        .prepare_cached("SELECT rowid, name, tbl_name, sql FROM sqlite_master WHERE type IN ('table', 'trigger')")
        .doing(doing)?;
    let mut rows = statement.query([]).doing(doing)?;
    let mut text = String::new();
    while let Some(row) = rows.next().doing(doing)? {
        for index in 0..4 {
            text.push_str(&format!("{:?};", row.get_ref(index).doing(doing)?));
        }
    }
    let digest = hex(digest(&SHA256, text.as_bytes()).as_ref());
    Ok(Schema { version, digest })
}

/// The schema at which all was well before this start.
pub(crate) fn stored_schema(conn: &Connection) -> Result<Option<Schema>, CaptureError> {
    let version = install::meta_number(conn, "schema_version")?;
    let digest = install::meta(conn, "schema_digest")?.unwrap_or_default();
    Ok(version.map(|version| Schema { version, digest }))
}
