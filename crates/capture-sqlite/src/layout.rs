//! A layout says what the untyped columns of the journal mean: which table, which columns, which
//! key.
//!
//! Each has a number (`t` in the journal) and never changes; when a table changes, its triggers get
//! a new layout. Rows journalled before keep theirs, so they stay readable.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::{
    error::{CaptureError, Doing},
    shape::{Key, Shape},
};

/// The layout number of the journal's own entries, see [`crate::read`].
pub(crate) const LOG_LAYOUT: i64 = 0;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    #[serde(skip)]
    pub(crate) number: i64,
    pub(crate) table: String,
    /// In the order of the journal's c0, c1…
    pub(crate) columns: Vec<LayoutColumn>,
    /// Names of the key columns; for a table without one, [`rollcall_types::columns::ROWID`].
    pub(crate) key: Vec<String>,
    pub(crate) excluded: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayoutColumn {
    pub(crate) name: String,
    pub(crate) declared: String,
}

impl Layout {
    /// The layout for a table as it is now, without the excluded columns.
    pub(crate) fn of(number: i64, shape: &Shape, excluded: &[String]) -> Result<Self, CaptureError> {
        let is_excluded = |name: &str| excluded.iter().any(|other| other.eq_ignore_ascii_case(name));
        // As the table spells them, however they were asked for.
        let mut left_out = Vec::new();
        for name in excluded {
            let column = shape.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
            let column = column.ok_or_else(|| {
                let near = rollcall_types::is_meant(name, shape.columns.iter().map(|column| column.name.as_str()));
                CaptureError::Usage(format!("--exclude: table {:?} has no column {name:?}{near}", shape.name))
            })?;
            left_out.push(column.name.clone());
        }
        let mut columns = Vec::new();
        let key = match &shape.key {
            Key::Rowid => {
                let name = rollcall_types::columns::ROWID.to_owned();
                columns.push(LayoutColumn { name: name.clone(), declared: "INTEGER".to_owned() });
                vec![name]
            }
            Key::Columns(names) => names.clone(),
        };
        if let Some(name) = key.iter().find(|name| is_excluded(name)) {
            return Err(CaptureError::Usage(format!(
                "--exclude: {name:?} is part of the key of table {:?}; rows could not be told apart",
                shape.name
            )));
        }
        columns.extend(
            shape
                .columns
                .iter()
                .filter(|column| !is_excluded(&column.name))
                .map(|column| LayoutColumn { name: column.name.clone(), declared: column.declared.clone() }),
        );
        check_names(&shape.name, &columns)?;
        Ok(Self { number, table: shape.name.clone(), columns, key, excluded: left_out })
    }

    /// The journal's column that holds `name`.
    pub(crate) fn journal_column(&self, name: &str) -> Result<String, CaptureError> {
        let index = self.columns.iter().position(|column| column.name == name);
        index.map(|index| format!("c{index}")).ok_or_else(|| {
            CaptureError::Damaged(format!("layout {} of table {:?} lacks column {name:?}", self.number, self.table))
        })
    }

    /// Whether agents before 0.2 may have sent rows of this table twice, or keys of it that HQ took
    /// for one: it has no key, or a part of its key has a type whose values are converted.
    pub(crate) fn is_doubtful_before_0_2(&self) -> bool {
        use arrow_schema::DataType;
        self.key.iter().any(|name| {
            let column = self.columns.iter().find(|column| column.name == *name);
            let declared = column.map_or("", |column| column.declared.as_str());
            let upper = declared.to_ascii_uppercase();
            let is_plain_text = ["CHAR", "CLOB", "TEXT"].iter().any(|word| upper.contains(word));
            match crate::value::column_type(declared) {
                _ if name == rollcall_types::columns::ROWID => true,
                DataType::Int64 | DataType::Float64 | DataType::Binary | DataType::Boolean => false,
                DataType::Utf8 => !is_plain_text,
                _ => true,
            }
        })
    }

    /// Columns of earlier layouts of the same table that it has no more, and that nobody asked to
    /// leave out. Two names that are one at HQ are one column.
    pub(crate) fn lost_since(&self, layouts: &[Layout]) -> Vec<String> {
        use rollcall_types::columns::{ROWID, at_hq};
        let mut lost: std::collections::BTreeMap<String, &str> = std::collections::BTreeMap::new();
        for layout in layouts.iter().filter(|layout| layout.table == self.table) {
            lost.extend(layout.columns.iter().map(|column| (at_hq(&column.name), column.name.as_str())));
            layout.excluded.iter().for_each(|name| {
                lost.remove(&at_hq(name));
            });
        }
        self.columns.iter().for_each(|column| {
            lost.remove(&at_hq(&column.name));
        });
        lost.into_values().filter(|name| *name != ROWID).map(str::to_owned).collect()
    }

    /// Whether both describe the same columns and key, whatever their numbers.
    pub(crate) fn same_columns(&self, other: &Layout) -> bool {
        self.columns == other.columns && self.key == other.key
    }
}

/// Refuses columns that would be one at HQ.
fn check_names(table: &str, columns: &[LayoutColumn]) -> Result<(), CaptureError> {
    let mut names: std::collections::HashMap<String, &str> = std::collections::HashMap::new();
    for column in columns {
        let at_hq = rollcall_types::columns::at_hq(&column.name);
        if let Some(twin) = names.insert(at_hq.clone(), &column.name) {
            return Err(CaptureError::Unsupported {
                table: table.to_owned(),
                reason: format!(
                    "its columns {twin:?} and {:?} would both be called {at_hq} at HQ; leave one out with \
                     --exclude {table}.COLUMN, or rename it",
                    column.name
                ),
            });
        }
    }
    Ok(())
}

/// All layouts ever used in this file, by number.
pub(crate) fn read_all(conn: &Connection) -> Result<Vec<Layout>, CaptureError> {
    let doing = "reading the journal's layouts";
    let mut statement = conn.prepare("SELECT t, definition FROM _rollcall_layout ORDER BY t").doing(doing)?;
    let mut rows = statement.query([]).doing(doing)?;
    let mut layouts = Vec::new();
    while let Some(row) = rows.next().doing(doing)? {
        let text: String = row.get(1).doing(doing)?;
        let mut layout: Layout = serde_json::from_str(&text)
            .map_err(|error| CaptureError::Damaged(format!("a layout cannot be read: {error}")))?;
        layout.number = row.get(0).doing(doing)?;
        layouts.push(layout);
    }
    Ok(layouts)
}

/// Stores a layout under its number, unless there is one.
pub(crate) fn write_if_new(conn: &Connection, number: i64, layout: &Layout) -> Result<(), CaptureError> {
    let text = serde_json::to_string(layout).map_err(|error| CaptureError::Damaged(error.to_string()))?;
    conn.execute("INSERT OR IGNORE INTO _rollcall_layout (t, definition) VALUES (?1, ?2)", (number, text))
        .doing("storing a layout")?;
    Ok(())
}

/// Stores a layout under its number.
pub(crate) fn write(conn: &Connection, layout: &Layout) -> Result<(), CaptureError> {
    let text = serde_json::to_string(layout).map_err(|error| CaptureError::Damaged(error.to_string()))?;
    conn.execute("INSERT INTO _rollcall_layout (t, definition) VALUES (?1, ?2)", (layout.number, text))
        .doing("storing a layout")?;
    Ok(())
}
