//! Counts the rows of windows that manifests state, in the history of each table.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use arrow_array::{Array, Int32Array, Int64Array, RecordBatch, StringArray, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema};
use rollcall_query::{Extras, MakeTable};
use rollcall_registry::HqError;
use rollcall_types::{Epoch, Seq, SiteId, TableName, Timestamp};

use crate::answers::Answers;

/// One table's rows between two manifests of a site, to be counted.
pub(crate) struct Window {
    pub(crate) site: SiteId,
    pub(crate) epoch: Epoch,
    pub(crate) after: Seq,
    pub(crate) through: Seq,
    pub(crate) table: TableName,
    /// Rows the site says there are.
    pub(crate) stated: u64,
    /// None of its rows was received before.
    pub(crate) received_from: Timestamp,
}

impl Window {
    pub(crate) fn key(&self) -> (SiteId, Seq, TableName) {
        (self.site.clone(), self.through, self.table.clone())
    }
}

/// What was counted in the lake.
#[derive(Default)]
pub(crate) struct Counted {
    /// Rows by site, end of the window and table.
    pub(crate) rows: HashMap<(SiteId, Seq, TableName), u64>,
    /// Tables that could not be counted.
    pub(crate) failed: HashSet<TableName>,
}

/// Counts; what does not agree is counted once more among all rows, whenever received.
pub(crate) async fn count_surely(answers: &Answers, windows: &mut Vec<Window>) -> Counted {
    let mut counted = Counted::default();
    count(answers, windows, &mut counted).await;
    windows.retain(|window| {
        counted.rows.get(&window.key()) != Some(&window.stated) && !counted.failed.contains(&window.table)
    });
    for window in &mut *windows {
        window.received_from = Timestamp::from_micros(0);
    }
    count(answers, windows, &mut counted).await;
    counted
}

/// Counts each table by itself: one that cannot be read holds up no other.
async fn count(answers: &Answers, windows: &[Window], counted: &mut Counted) {
    let mut by_table: BTreeMap<&TableName, Vec<&Window>> = BTreeMap::new();
    for window in windows {
        by_table.entry(&window.table).or_default().push(window);
    }
    for (table, windows) in by_table {
        let outcome = count_table(answers, table, &windows).await;
        answers.registry.health.note(format!("count what sites sent to {table}"), &outcome);
        match outcome {
            Ok(rows) => counted.rows.extend(rows),
            Err(_) => {
                counted.failed.insert(table.clone());
                for window in windows {
                    counted.rows.remove(&window.key());
                }
            }
        }
    }
}

async fn count_table(
    answers: &Answers,
    table: &TableName,
    windows: &[&Window],
) -> Result<HashMap<(SiteId, Seq, TableName), u64>, HqError> {
    let mut counted: HashMap<_, _> = windows.iter().map(|window| (window.key(), 0)).collect();
    let from = windows.iter().map(|window| window.received_from).min();
    let Some(from) = from.filter(|_| answers.registry.lake.table(table).is_some()) else { return Ok(counted) };
    // The join counts each row of the lake at most once: a site's windows do not overlap.
    let sql = format!(
        "SELECT w.number, count(*) AS found FROM rollcall.windows w JOIN history.\"{table}\" h ON h._site = w.site \
         AND h._epoch = w.epoch AND h._seq > w.after AND h._seq <= w.through WHERE h._received_at >= '{from}' \
         GROUP BY w.number"
    );
    let rows = windows_table(windows)?;
    let tables: Vec<(_, _, MakeTable)> = vec![("rollcall", "windows", Arc::new(move || rows.clone()))];
    let extras = Extras { tables, ..Extras::default() };
    let answer = answers.engine.query(&sql, extras).await.map_err(HqError::query)?;
    for rows in &answer.batches {
        let (numbers, found) = (rows.column(0).as_primitive::<Int64Type>(), rows.column(1).as_primitive::<Int64Type>());
        for (number, found) in numbers.values().iter().zip(found.values()) {
            if let Some(window) = usize::try_from(*number).ok().and_then(|number| windows.get(number)) {
                counted.insert(window.key(), found.unsigned_abs());
            }
        }
    }
    Ok(counted)
}

fn windows_table(windows: &[&Window]) -> Result<RecordBatch, HqError> {
    let long = |value: &dyn Fn(&Window) -> u64| {
        Arc::new(Int64Array::from_iter_values(windows.iter().map(|window| value(window) as i64))) as Arc<dyn Array>
    };
    let fields = [
        ("number", DataType::Int64),
        ("site", DataType::Utf8),
        ("epoch", DataType::Int32),
        ("after", DataType::Int64),
        ("through", DataType::Int64),
    ];
    let schema = Schema::new(fields.map(|(name, kind)| Field::new(name, kind, false)).to_vec());
    let columns = vec![
        Arc::new(Int64Array::from_iter_values(0..windows.len() as i64)) as Arc<dyn Array>,
        Arc::new(StringArray::from_iter_values(windows.iter().map(|window| window.site.as_str()))),
        Arc::new(Int32Array::from_iter_values(windows.iter().map(|window| window.epoch.0 as i32))),
        long(&|window| window.after.0),
        long(&|window| window.through.0),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).map_err(|error| HqError::Invalid(error.to_string()))
}
