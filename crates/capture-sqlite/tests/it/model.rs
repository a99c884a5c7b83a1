//! A store's rows, as HQ's model of them has them.

use rusqlite::{Connection, types::Value};

/// The store's own rows by `select`, in the model's form.
pub(crate) fn truth(path: &std::path::Path, select: &str) -> Vec<Vec<String>> {
    let conn = Connection::open(path).expect("opens");
    let mut statement = conn.prepare(select).expect("prepares");
    let count = statement.column_count();
    let mut rows: Vec<Vec<String>> = statement
        .query_map([], |row| {
            (0..count)
                .map(|index| {
                    Ok(match row.get(index)? {
                        Value::Null => "NULL".to_owned(),
                        Value::Integer(number) => number.to_string(),
                        Value::Real(number) => number.to_string(),
                        Value::Text(text) => text,
                        Value::Blob(bytes) => format!("{bytes:?}"),
                    })
                })
                .collect()
        })
        .expect("queries")
        .collect::<Result<_, _>>()
        .expect("reads");
    rows.sort();
    rows
}
