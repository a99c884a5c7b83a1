//! What a table of the store looks like: columns, key, unique keys.

use rollcall_types::nearest;
use rusqlite::{Connection, OptionalExtension};

use crate::error::{CaptureError, Doing};

/// The structure of one table, as far as capture needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    /// How a row is named at HQ.
    pub(crate) key: Key,
    /// A name of SQLite's row number that no column shadows; none for a WITHOUT ROWID table.
    pub(crate) rowid: Option<&'static str>,
    /// Every set of columns on which two rows conflict, the primary key among them.
    pub(crate) uniques: Vec<Vec<UniqueColumn>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) declared: String,
    /// The DEFAULT clause's text, if any.
    pub(crate) default: Option<String>,
    /// Computed by SQLite: it can be read, and not written.
    pub(crate) is_generated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UniqueColumn {
    pub(crate) name: String,
    pub(crate) collation: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// The declared primary key.
    Columns(Vec<String>),
    /// No primary key: SQLite's row number, which VACUUM may change.
    Rowid,
}

/// Quotes an identifier for SQLite.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Shape {
    /// Reads the structure of `table`.
    ///
    /// Generated columns are columns like others: only `table_xinfo` lists them.
    pub(crate) fn read(conn: &Connection, table: &str) -> Result<Self, CaptureError> {
        let doing = "reading the structure of a table";
        let sql: Option<(String, Option<String>, String)> = conn
            .query_row(
                "SELECT name, sql, type FROM sqlite_master WHERE lower(name) = lower(?1) AND type IN ('table', 'view')",
                [table],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .optional()
            .doing(doing)?;
        let Some((name, sql, kind)) = sql else {
            let names = crate::listing::names(conn)?;
            let nearest = nearest(table, names.iter().map(String::as_str)).map(str::to_owned);
            return Err(CaptureError::NoSuchTable { table: table.to_owned(), nearest });
        };
        let unsupported = |reason: &str| CaptureError::Unsupported { table: name.clone(), reason: reason.to_owned() };
        let sql = sql.unwrap_or_default();
        if name.to_lowercase().starts_with("_rollcall_") || name.to_lowercase().starts_with("sqlite_") {
            return Err(unsupported("it is not the store's own"));
        }
        if kind == "view" {
            return Err(unsupported("it is a view; capture the tables beneath it"));
        }
        if sql.to_ascii_uppercase().starts_with("CREATE VIRTUAL") {
            return Err(unsupported("it is a virtual table, which cannot have triggers"));
        }
        let mut columns = Vec::new();
        let mut primary: Vec<(i64, String)> = Vec::new();
        let mut statement = conn
            .prepare("SELECT name, type, dflt_value, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid")
            .doing(doing)?;
        let mut rows = statement.query([&name]).doing(doing)?;
        while let Some(row) = rows.next().doing(doing)? {
            let column: String = row.get(0).doing(doing)?;
            let position: i64 = row.get(3).doing(doing)?;
            let hidden: i64 = row.get(4).doing(doing)?;
            if position > 0 {
                primary.push((position, column.clone()));
            }
            columns.push(Column {
                name: column,
                declared: declared_type(row.get(1).doing(doing)?),
                default: row.get(2).doing(doing)?,
                is_generated: hidden > 1,
            });
        }
        primary.sort();
        let primary: Vec<String> = primary.into_iter().map(|(_, name)| name).collect();
        let has_rowid = conn.prepare(&format!("SELECT rowid FROM {} LIMIT 0", quote(&name))).is_ok()
            && !is_without_rowid(conn, &name)?;
        let rowid = if has_rowid {
            let free = ["_rowid_", "rowid", "oid"]
                .into_iter()
                .find(|alias| !columns.iter().any(|column| column.name.eq_ignore_ascii_case(alias)));
            Some(free.ok_or_else(|| unsupported("columns hide all names of its row number"))?)
        } else {
            None
        };
        if rowid.is_none() {
            check_readable(conn, &name, &primary)?;
        }
        let mut uniques = unique_keys(conn, &name)?;
        if let Some(rowid) = rowid {
            uniques.push(vec![UniqueColumn { name: rowid.to_owned(), collation: "BINARY".to_owned() }]);
        }
        let key = if primary.is_empty() { Key::Rowid } else { Key::Columns(primary) };
        Ok(Self { name, columns, key, rowid, uniques })
    }

    /// Whether VACUUM may renumber the rows, that is, change their keys.
    pub(crate) fn is_renumbered_by_vacuum(&self) -> bool {
        self.key == Key::Rowid
    }
}

/// SQLite says `INTEGER GENERATED ALWAYS` of a generated column.
fn declared_type(said: String) -> String {
    let upper = said.to_ascii_uppercase();
    match upper.find("GENERATED ALWAYS") {
        Some(at) => said[..at].trim_end().to_owned(),
        None => said,
    }
}

/// Refuses a WITHOUT ROWID table in whose order only the store's own program can walk.
fn check_readable(conn: &Connection, table: &str, primary: &[String]) -> Result<(), CaptureError> {
    let order: Vec<String> = primary.iter().map(|name| quote(name)).collect();
    let sql = format!("SELECT 1 FROM {} ORDER BY {} LIMIT 0", quote(table), order.join(","));
    match conn.prepare(&sql) {
        Err(error) if error.to_string().contains("no such collation sequence") => Err(CaptureError::Unsupported {
            table: table.to_owned(),
            reason: format!("its key is ordered by a rule that only the store's own program has ({error})"),
        }),
        Err(error) => Err(error).doing("reading the structure of a table"),
        Ok(_) => Ok(()),
    }
}

fn is_without_rowid(conn: &Connection, table: &str) -> Result<bool, CaptureError> {
    // A WITHOUT ROWID table is stored as its primary key's index; a rowid column of that name could
    // fool the query.
    conn.query_row("SELECT wr FROM pragma_table_list(?1) WHERE schema = 'main'", [table], |row| row.get(0))
        .optional()
        .doing("reading the structure of a table")
        .map(|flag: Option<bool>| flag.unwrap_or(false))
}

/// The columns of every unique index. A partial index counts as a whole one: noting too many rows
/// is harmless.
fn unique_keys(conn: &Connection, table: &str) -> Result<Vec<Vec<UniqueColumn>>, CaptureError> {
    let doing = "reading the indexes of a table";
    let mut statement =
        conn.prepare("SELECT name FROM pragma_index_list(?1) WHERE \"unique\" ORDER BY seq").doing(doing)?;
    let names: Vec<String> =
        statement.query_map([table], |row| row.get(0)).doing(doing)?.collect::<Result<_, _>>().doing(doing)?;
    let mut uniques = Vec::new();
    for index in names {
        let mut statement =
            conn.prepare("SELECT name, coll, cid FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno").doing(doing)?;
        let mut rows = statement.query([&index]).doing(doing)?;
        let mut columns = Vec::new();
        while let Some(row) = rows.next().doing(doing)? {
            let name: Option<String> = row.get(0).doing(doing)?;
            let Some(name) = name else {
                return Err(CaptureError::Unsupported {
                    table: table.to_owned(),
                    reason: format!(
                        "its unique index {index:?} is over an expression, so rows that REPLACE removes could not be \
                         told; make it a unique index over columns"
                    ),
                });
            };
            columns.push(UniqueColumn { name, collation: row.get(1).doing(doing)? });
        }
        uniques.push(columns);
    }
    Ok(uniques)
}
