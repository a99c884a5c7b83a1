//! What the journal holds and is not to be sent: rows of tables that HQ had stopped, and columns
//! that are left out since. A new life of the journal is sent from its beginning, and an HQ that
//! was restored or forgot a table would get again what it must not have.

use std::collections::{BTreeSet, HashMap};

use rollcall_types::{Manifest, Seq};
use rusqlite::Connection;

use crate::{error::CaptureError, install, layout};

const WITHHELD: &str = "withheld";

/// By table.
#[derive(Debug, Default)]
pub(crate) struct Withheld {
    tables: BTreeSet<String>,
    /// In small letters.
    columns: HashMap<String, BTreeSet<String>>,
}

impl Withheld {
    pub(crate) fn read(conn: &Connection) -> Result<Self, CaptureError> {
        let mut columns: HashMap<String, BTreeSet<String>> = HashMap::new();
        // The newest layout that names a column at all says whether it is left out: of one that was
        // dropped since that stays so.
        for layout in layout::read_all(conn)? {
            let hidden = columns.entry(layout.table).or_default();
            layout.columns.iter().for_each(|column| {
                hidden.remove(&column.name.to_ascii_lowercase());
            });
            hidden.extend(layout.excluded.iter().map(|name| name.to_ascii_lowercase()));
        }
        columns.retain(|_, hidden| !hidden.is_empty());
        Ok(Self { tables: tables(conn)?, columns })
    }

    pub(crate) fn has_table(&self, table: &str) -> bool {
        self.tables.contains(table)
    }

    pub(crate) fn has_column(&self, table: &str, column: &str) -> bool {
        self.columns.get(table).is_some_and(|hidden| hidden.contains(&column.to_ascii_lowercase()))
    }

    /// What a manifest says of tables, without those that are withheld: HQ could not count them
    /// again. None if it is to be sent as it is.
    pub(crate) fn manifest(&self, tables: String) -> Result<Option<String>, CaptureError> {
        let damaged = |error: serde_json::Error| CaptureError::Damaged(format!("a manifest cannot be read: {error}"));
        if self.tables.is_empty() {
            return Ok(None);
        }
        let mut manifest = Manifest::parse(Seq(0), Seq(0), &tables).map_err(damaged)?;
        manifest.tables.retain(|stated| !self.has_table(&stated.table));
        manifest.tables_json().map(Some).map_err(damaged)
    }
}

/// Tables whose rows stay in the journal.
pub(crate) fn tables(conn: &Connection) -> Result<BTreeSet<String>, CaptureError> {
    let text = install::meta(conn, WITHHELD)?;
    let parsed = text.map_or_else(|| Ok(BTreeSet::new()), |text| serde_json::from_str(&text));
    parsed.map_err(|error| CaptureError::Damaged(format!("which tables are withheld cannot be read: {error}")))
}

/// Whether a table's rows stay in the journal, or it never had any.
pub(crate) fn is_stopped(conn: &Connection, table: &str) -> Result<bool, CaptureError> {
    let is_it = |name: &String| name.eq_ignore_ascii_case(table);
    Ok(tables(conn)?.iter().any(is_it) || !layout::read_all(conn)?.iter().any(|layout| is_it(&layout.table)))
}

/// Has a table's rows in the journal stay there, or no more; whether that is news. Its name is
/// taken as the journal spells it.
pub(crate) fn set(conn: &Connection, table: &str, is_withheld: bool) -> Result<bool, CaptureError> {
    let layouts = layout::read_all(conn)?;
    let known = layouts.iter().rev().find(|layout| layout.table.eq_ignore_ascii_case(table));
    let Some(known) = known else { return Ok(false) };
    let mut all = tables(conn)?;
    let is_news = if is_withheld { all.insert(known.table.clone()) } else { all.remove(&known.table) };
    if is_news {
        let text = serde_json::to_string(&all).map_err(|error| CaptureError::Damaged(error.to_string()))?;
        install::set_meta_text(conn, WITHHELD, &text)?;
    }
    Ok(is_news)
}
