//! What the journal holds and is not to be sent: rows of tables that HQ had stopped, and columns
//! that are left out since. A new life of the journal is sent from its beginning, and an HQ that
//! was restored or forgot a table would get again what it must not have.

use std::collections::{BTreeSet, HashMap};

use rusqlite::Connection;

use crate::{
    error::CaptureError,
    install::{self, captured_layouts},
};

const WITHHELD: &str = "withheld";

/// By table.
#[derive(Debug, Default)]
pub(crate) struct Withheld {
    tables: BTreeSet<String>,
    columns: HashMap<String, Vec<String>>,
}

impl Withheld {
    pub(crate) fn read(conn: &Connection) -> Result<Self, CaptureError> {
        let left_out = captured_layouts(conn)?.into_iter().filter(|layout| !layout.excluded.is_empty());
        let columns = left_out.map(|layout| (layout.table, layout.excluded)).collect();
        Ok(Self { tables: tables(conn)?, columns })
    }

    pub(crate) fn has_table(&self, table: &str) -> bool {
        self.tables.contains(table)
    }

    pub(crate) fn has_column(&self, table: &str, column: &str) -> bool {
        let of_table = self.columns.get(table);
        of_table.is_some_and(|columns| columns.iter().any(|known| known.eq_ignore_ascii_case(column)))
    }
}

/// Tables whose rows stay in the journal.
pub(crate) fn tables(conn: &Connection) -> Result<BTreeSet<String>, CaptureError> {
    let text = install::meta(conn, WITHHELD)?;
    let parsed = text.map_or_else(|| Ok(BTreeSet::new()), |text| serde_json::from_str(&text));
    parsed.map_err(|error| CaptureError::Damaged(format!("which tables are withheld cannot be read: {error}")))
}

/// Has a table's rows in the journal stay there, or no more.
pub(crate) fn set(conn: &Connection, table: &str, is_withheld: bool) -> Result<(), CaptureError> {
    let mut all = tables(conn)?;
    let is_news = if is_withheld { all.insert(table.to_owned()) } else { all.remove(table) };
    if !is_news {
        return Ok(());
    }
    let text = serde_json::to_string(&all).map_err(|error| CaptureError::Damaged(error.to_string()))?;
    install::set_meta_text(conn, WITHHELD, &text)
}
