//! What a row of each site is worth by its table's declared measure, so that missing rows can be
//! said in money.

use std::{collections::BTreeMap, time::Duration};

use rollcall_query::{
    Engine, Extras,
    datafusion::arrow::{
        array::{Array, AsArray},
        datatypes::Float64Type,
    },
};
use rollcall_types::{SiteId, TableName, Timestamp, describe};

use rollcall_books::{
    table_settings,
    worth::{OfTable, Worth, Worths},
};
use rollcall_registry::{HqError, Registry};

/// Only rows received lately tell what a row is worth now.
const LOOK_BACK: Duration = Duration::from_secs(28 * 86_400);

/// Works out all of them again: each hour, and when a measure is declared.
pub async fn refresh(registry: &Registry, engine: &Engine, worths: &Worths) {
    let mut fresh = BTreeMap::new();
    for (name, settings) in table_settings::all(&registry.lake) {
        let Some(measure) = settings.measure else { continue };
        let read = read(engine, &name, &measure, registry.now()).await;
        registry.health.note(format!("work out what rows of {name} are worth ({measure})"), &read);
        if let Ok(of_table) = read {
            fresh.insert(name, of_table);
        }
    }
    worths.set(fresh);
}

/// The question whose answer is the mean worth of rows by site, and that of its square.
fn question(table: &TableName, measure: &str, filter: &str) -> String {
    format!(
        "SELECT _site, avg(worth), avg(worth * worth) FROM (SELECT _site, CAST(({measure}) AS DOUBLE) AS worth \
         FROM public.\"{table}\" {filter}) AS of_rows GROUP BY ROLLUP(_site)"
    )
}

/// An error if the measure is no number of each row.
pub async fn verify(engine: &Engine, table: &TableName, measure: &str) -> Result<(), HqError> {
    let sql = question(table, measure, "WHERE false");
    let checked = engine.query(&sql, Extras::default()).await;
    checked.map(|_| ()).map_err(|error| {
        HqError::Invalid(format!("{measure:?} is no number of a row of {table}: {}", describe(&error)))
    })
}

async fn read(engine: &Engine, table: &TableName, measure: &str, now: Timestamp) -> Result<OfTable, HqError> {
    let filter = format!("WHERE _received_at >= '{}'", now.before(LOOK_BACK));
    let answer = engine.query(&question(table, measure, &filter), Extras::default()).await.map_err(HqError::query)?;
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
