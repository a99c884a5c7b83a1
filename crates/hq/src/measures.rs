//! What a row of each site is worth by its table's declared measure, so that missing rows can be
//! said in money.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rollcall_query::{
    Extras,
    datafusion::arrow::{
        array::{Array, AsArray},
        datatypes::Float64Type,
    },
};
use rollcall_types::{SiteId, TableName, describe};

use crate::{error::HqError, node::Shared, table_settings};

/// Only rows received lately tell what a row is worth now.
const LOOK_BACK: Duration = Duration::from_secs(28 * 86_400);

/// What a row is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Worth {
    pub(crate) mean: f64,
    /// The mean of its square.
    pub(crate) square: f64,
}

#[derive(Debug, Default)]
struct OfTable {
    sites: HashMap<SiteId, Worth>,
    /// For sites without rows of late: of all others.
    overall: Option<Worth>,
}

/// The mean worth of a row, by table and site; worked out each hour and when a measure is declared.
#[derive(Debug, Default)]
pub(crate) struct Measures(Mutex<BTreeMap<TableName, OfTable>>);

impl Measures {
    /// What a row of this table and site is worth; none if nothing was declared or nothing is
    /// known.
    pub(crate) fn of_row(&self, table: &TableName, site: &SiteId) -> Option<Worth> {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let table = tables.get(table)?;
        table.sites.get(site).copied().or(table.overall)
    }

    /// Works them all out again.
    pub(crate) async fn refresh(&self, shared: &Shared) {
        let mut fresh = BTreeMap::new();
        for (name, settings) in table_settings::all(&shared.lake) {
            let Some(measure) = settings.measure else { continue };
            let read = read(shared, &name, &measure).await;
            shared.health.note(format!("work out what rows of {name} are worth ({measure})"), &read);
            if let Ok(of_table) = read {
                fresh.insert(name, of_table);
            }
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    }
}

/// The question whose answer is the mean worth of rows by site, and that of its square.
fn question(table: &TableName, measure: &str, filter: &str) -> String {
    format!(
        "SELECT _site, avg(worth), avg(worth * worth) FROM (SELECT _site, CAST(({measure}) AS DOUBLE) AS worth \
         FROM public.\"{table}\" {filter}) AS of_rows GROUP BY ROLLUP(_site)"
    )
}

/// An error if the measure is no number of each row.
pub(crate) async fn verify(shared: &Shared, table: &TableName, measure: &str) -> Result<(), HqError> {
    let sql = question(table, measure, "WHERE false");
    let checked = shared.engine.query(&sql, Extras::default()).await;
    checked.map(|_| ()).map_err(|error| {
        HqError::Invalid(format!("{measure:?} is no number of a row of {table}: {}", describe(&error)))
    })
}

async fn read(shared: &Shared, table: &TableName, measure: &str) -> Result<OfTable, HqError> {
    let filter = format!("WHERE _received_at >= '{}'", shared.now().before(LOOK_BACK));
    let answer = shared.engine.query(&question(table, measure, &filter), Extras::default()).await?;
    let mut of_table = OfTable::default();
    for rows in &answer.batches {
        let sites = rows.column(0).as_string_view();
        let [means, squares] = [1, 2].map(|column: usize| rows.column(column).as_primitive::<Float64Type>());
        for row in (0..rows.num_rows()).filter(|row| means.is_valid(*row)) {
            let worth = Worth { mean: means.value(row), square: squares.value(row) };
            match SiteId::new(sites.value(row)) {
                Ok(site) if sites.is_valid(row) => {
                    of_table.sites.insert(site, worth);
                }
                _ => of_table.overall = Some(worth),
            }
        }
    }
    Ok(of_table)
}
