//! Counts the values that did not fit their column, per site and column: what is told of them is in
//! [`rollcall_books::misfits`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arrow_array::{Array, StringArray, cast::AsArray};
use rollcall_books::misfits::{MisfitBoard, MisfitColumn, Misfits};
use rollcall_lake::{ColumnType, propose_wider};
use rollcall_query::{Engine, Extras};
use rollcall_registry::{HqError, Registry};
use rollcall_runtime::Instant;
use rollcall_types::{ColumnMisfits, SiteId, TableName, columns::at_hq};
use serde_json::Value;

/// More misfits than this in a column of a site are many …
const FEW_MAX: u64 = 10;
/// … and so is more than one in so many of the rows that a site sent of a table in a day.
const FEW_SHARE: u64 = 100;
/// Rows with misfits that are looked at, of one table.
const ROWS_MAX: usize = 200_000;
/// Values by which a type is proposed, of one column.
const VALUES_MAX: usize = 20_000;
/// A table that goes on is counted again after so long.
const COUNT_AGAIN: Duration = Duration::from_secs(300);

/// What is known of a table.
#[derive(Debug, Clone)]
struct Known {
    /// How many rows with misfits its files had, and its version.
    rows: u64,
    version: u64,
    counted: Instant,
    told: Vec<MisfitColumn>,
}

impl Known {
    /// Whether nothing happened since that could change it; a store that mends its values changes
    /// no number at first.
    fn holds(&self, rows: u64, version: u64) -> bool {
        self.rows == rows && (self.version == version || self.counted.elapsed() < COUNT_AGAIN)
    }
}

/// Knows of every table how many values did not fit, and counts again when that number changes.
#[derive(Debug, Default)]
pub struct MisfitCounter {
    known: Mutex<BTreeMap<TableName, Known>>,
}

impl MisfitCounter {
    /// Counts what changed since the last round. `current` says which rows are current.
    pub async fn round(&self, engine: &Engine, current: &Extras, registry: &Registry, board: &MisfitBoard) {
        let (lake, health) = (&registry.lake, &registry.health);
        let mut all = Misfits::new();
        for (name, table) in lake.tables() {
            if table.is_published() {
                continue;
            }
            let snapshot = table.snapshot();
            let with_misfits: u64 = snapshot
                .files()
                .filter(|file| !file.superseded)
                .map(|file| {
                    let nulls = file.stats.null_count.get(rollcall_lake::our_columns::MISFIT);
                    file.stats.num_records - nulls.copied().unwrap_or_default().min(file.stats.num_records)
                })
                .sum();
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
            let told = match known {
                _ if with_misfits == 0 => Vec::new(),
                Some(known) if known.holds(with_misfits, snapshot.version()) => known.told,
                known => {
                    let kinds = snapshot.schema().columns.iter().map(|column| (column.name.clone(), column.kind));
                    let counted = count(engine, &name, &kinds.collect(), current).await;
                    health.note(format!("count misfits of {name}"), &counted);
                    match counted {
                        Ok(told) => {
                            let known = Known {
                                rows: with_misfits,
                                version: snapshot.version(),
                                counted: Instant::now(),
                                told: told.clone(),
                            };
                            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), known);
                            told
                        }
                        // What was known still counts, and the other tables are looked at.
                        Err(_) => known.map(|known| known.told).unwrap_or_default(),
                    }
                }
            };
            all.extend(told.into_iter().map(|lacking| ((name.clone(), lacking.column.column.clone()), lacking)));
        }
        board.set(all, &lake.state().view());
    }

    /// Forgets what is known: a table was written anew, or other rows are current.
    pub fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A column of a table: its values that did not fit, as far as they are kept, and how many there
/// are, by site and day.
#[derive(Default)]
struct Found {
    values: Vec<Value>,
    by_day: BTreeMap<(SiteId, String), u64>,
}

async fn count(
    engine: &Engine,
    table: &TableName,
    kinds: &BTreeMap<String, ColumnType>,
    current: &Extras,
) -> Result<Vec<MisfitColumn>, HqError> {
    let sql = format!(
        "SELECT _site, CAST(CAST(_received_at AS DATE) AS VARCHAR) AS day, _misfit FROM \"{table}\" WHERE _misfit IS NOT NULL LIMIT {ROWS_MAX}"
    );
    let answer = engine.query(&sql, current.clone()).await.map_err(HqError::query)?;
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for rows in &answer.batches {
        let texts = texts_of(rows);
        for row in 0..rows.num_rows() {
            let [Some(site), Some(day), Some(misfit)] = [0, 1, 2].map(|column| text_at(&texts[column], row)) else {
                continue;
            };
            let (Ok(site), Ok(Value::Object(object))) = (SiteId::new(site), serde_json::from_str(misfit)) else {
                continue;
            };
            for (name, value) in object {
                let column = found.entry(at_hq(&name)).or_default();
                *column.by_day.entry((site.clone(), day.to_owned())).or_default() += 1;
                if column.values.len() < VALUES_MAX {
                    column.values.push(value);
                }
            }
        }
    }
    let mut told = Vec::new();
    for (column, found) in found {
        let Some(kind) = kinds.get(&column) else { continue };
        let mut sites: BTreeMap<SiteId, u64> = BTreeMap::new();
        for ((site, _), count) in &found.by_day {
            *sites.entry(site.clone()).or_default() += count;
        }
        let few: BTreeSet<SiteId> =
            sites.iter().filter(|(_, count)| **count <= FEW_MAX).map(|(site, _)| site.clone()).collect();
        let large = large_shares(engine, table, &few, &found.by_day).await?;
        let many: BTreeSet<SiteId> =
            sites.keys().filter(|site| !few.contains(*site) || large.contains(*site)).cloned().collect();
        let column = ColumnMisfits {
            table: table.clone(),
            column,
            kind: kind.delta(),
            values: sites.values().sum(),
            sites,
            is_many: !many.is_empty(),
            fits: propose_wider(*kind, found.values.iter()).map(ColumnType::delta),
        };
        told.push(MisfitColumn { column, many });
    }
    Ok(told)
}

/// Those of these sites whose misfits are more than one row in a hundred of some day.
async fn large_shares(
    engine: &Engine,
    table: &TableName,
    sites: &BTreeSet<SiteId>,
    by_day: &BTreeMap<(SiteId, String), u64>,
) -> Result<BTreeSet<SiteId>, HqError> {
    let days = by_day.keys().filter(|(site, _)| sites.contains(site)).map(|(_, day)| day.as_str());
    let (Some(first), Some(last)) = (days.clone().min(), days.max()) else { return Ok(BTreeSet::new()) };
    let list: Vec<String> = sites.iter().map(|site| format!("'{site}'")).collect();
    let sql = format!(
        "SELECT _site, CAST(CAST(_received_at AS DATE) AS VARCHAR), CAST(count(*) AS VARCHAR) FROM history.\"{table}\" \
         WHERE _site IN ({}) AND _received_at >= TIMESTAMP '{first}T00:00:00Z' \
         AND _received_at < TIMESTAMP '{last}T00:00:00Z' + INTERVAL '1 day' GROUP BY 1, 2",
        list.join(",")
    );
    let answer = engine.query(&sql, Extras::default()).await.map_err(HqError::query)?;
    let mut large = BTreeSet::new();
    for rows in &answer.batches {
        let texts = texts_of(rows);
        for row in 0..rows.num_rows() {
            let [Some(site), Some(day), Some(count)] = [0, 1, 2].map(|column| text_at(&texts[column], row)) else {
                continue;
            };
            let (Ok(site), Ok(count)) = (SiteId::new(site), count.parse::<u64>()) else { continue };
            let misfits = by_day.get(&(site.clone(), day.to_owned())).copied().unwrap_or_default();
            if misfits * FEW_SHARE > count {
                large.insert(site);
            }
        }
    }
    Ok(large)
}

fn texts_of(rows: &arrow_array::RecordBatch) -> Vec<StringArray> {
    let text = |column: &Arc<dyn Array>| {
        arrow_cast::cast(column, &arrow_schema::DataType::Utf8).map(|column| column.as_string::<i32>().clone())
    };
    rows.columns()
        .iter()
        .map(|column| text(column).unwrap_or_else(|_| StringArray::new_null(rows.num_rows())))
        .collect()
}

fn text_at(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}
