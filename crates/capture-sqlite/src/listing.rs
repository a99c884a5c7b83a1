//! What there is to capture in a store's database.

use rollcall_capture::{ListedTable, TableSpec};
use rusqlite::Connection;

use crate::{
    error::{CaptureError, Doing},
    install::{self, captured_tables},
    shape::{Key, Shape, quote},
};

/// Names of the store's own tables and views.
pub(crate) fn names(conn: &Connection) -> Result<Vec<String>, CaptureError> {
    let doing = "listing the tables";
    let sql = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')
               AND lower(name) NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND lower(name) NOT LIKE '\\_rollcall\\_%' ESCAPE '\\' ORDER BY name";
    let mut statement = conn.prepare(sql).doing(doing)?;
    let names = statement.query_map([], |row| row.get(0)).doing(doing)?;
    names.collect::<Result<_, _>>().doing(doing)
}

pub(crate) fn list(conn: &Connection) -> Result<Vec<ListedTable>, CaptureError> {
    let captured = match install::is_installed(conn)? {
        true => captured_tables(conn)?,
        false => Vec::new(),
    };
    names(conn)?.into_iter().map(|table| listed(conn, table, &captured)).collect()
}

fn listed(conn: &Connection, table: String, captured: &[String]) -> Result<ListedTable, CaptureError> {
    let is_captured = captured.contains(&table);
    let count = format!("SELECT count(*) FROM {}", quote(&table));
    let rows = conn.query_row(&count, [], |row| row.get::<_, i64>(0)).ok().map(i64::unsigned_abs);
    let spec = TableSpec { table: table.clone(), excluded: Vec::new() };
    let of_shape = |shape: &Shape| {
        let key = match &shape.key {
            Key::Columns(key) => key.clone(),
            Key::Rowid => Vec::new(),
        };
        (shape.columns.iter().map(|column| column.name.clone()).collect(), key)
    };
    let ((columns, key), problem) = match install::check_all(conn, std::slice::from_ref(&spec)) {
        Ok(shapes) => (shapes.first().map(of_shape).unwrap_or_default(), None),
        Err(CaptureError::Unsupported { reason, .. }) => (Default::default(), Some(reason)),
        Err(error) if error.is_of_one_table() => (Default::default(), Some(rollcall_types::describe(&error))),
        Err(error) => return Err(error),
    };
    Ok(ListedTable { table, columns, key, rows, is_captured, problem })
}
