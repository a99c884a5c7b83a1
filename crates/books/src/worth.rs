//! What a row of each site is worth by its table's declared measure, so that missing rows can be
//! said in money. It is worked out where there is an engine.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use rollcall_types::{SiteId, TableName};

/// What a row is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worth {
    /// Its mean.
    pub mean: f64,
    /// The mean of its square.
    pub square: f64,
}

/// What rows of one table are worth.
#[derive(Debug, Default)]
pub struct OfTable {
    /// By site.
    pub sites: HashMap<SiteId, Worth>,
    /// For sites without rows of late: of all others.
    pub overall: Option<Worth>,
}

/// The mean worth of a row, by table and site; worked out each hour and when a measure is declared.
#[derive(Debug, Default)]
pub struct Worths(Mutex<BTreeMap<TableName, OfTable>>);

impl Worths {
    /// What a row of this table and site is worth; none if nothing was declared or nothing is
    /// known.
    pub fn of_row(&self, table: &TableName, site: &SiteId) -> Option<Worth> {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let table = tables.get(table)?;
        table.sites.get(site).copied().or(table.overall)
    }

    /// Takes what was worked out.
    pub fn set(&self, worked_out: BTreeMap<TableName, OfTable>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = worked_out;
    }
}
