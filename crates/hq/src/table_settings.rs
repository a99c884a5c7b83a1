//! What people say of a site table: when its rows happened, how late they come, what they are worth.

use std::collections::BTreeMap;

use rollcall_lake::{ColumnType, Lake, LakeError};
use rollcall_types::TableName;
use serde::{Deserialize, Serialize};

use crate::{error::HqError, measures, node::Shared};

const TABLE: &str = "table";

/// Declared of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableSettings {
    /// The column with the time at which a row happened: a question bounded by it needs no site beyond that bound.
    #[serde(default)]
    pub(crate) event_time: Option<String>,
    /// Rows may be written so long after they happened, seconds.
    #[serde(default)]
    pub(crate) lateness_seconds: u64,
    /// What a row is worth, in SQL over its columns (`qty * price`): missing rows are then told in money too.
    #[serde(default)]
    pub(crate) measure: Option<String>,
}

/// All settings, by table.
pub(crate) fn all(lake: &Lake) -> BTreeMap<TableName, TableSettings> {
    let view = lake.state().view();
    view.of_kind(TABLE).filter_map(|record| Some((TableName::new(&record.id).ok()?, record.parse().ok()?))).collect()
}

/// Stores a table's settings, once they make sense.
pub(crate) async fn set(shared: &Shared, name: &str, settings: TableSettings, by: &str) -> Result<(), HqError> {
    let name = TableName::new(name).map_err(|error| HqError::Invalid(error.to_string()))?;
    let table = shared.lake.table(&name);
    let table = table.ok_or_else(|| HqError::NotFound(format!("there is no table {name}; no site has sent it yet")))?;
    if let Some(column) = &settings.event_time {
        let snapshot = table.snapshot();
        let known = snapshot.schema().column(column);
        if known.is_none_or(|known| known.kind != ColumnType::Timestamp) {
            let times: Vec<&str> = snapshot
                .schema()
                .columns
                .iter()
                .filter(|column| column.kind == ColumnType::Timestamp && !column.name.starts_with('_'))
                .map(|column| column.name.as_str())
                .collect();
            let text = format!("{column:?} is not a time of table {name}; its times are: {}", times.join(", "));
            return Err(HqError::Invalid(text));
        }
    }
    if let Some(measure) = &settings.measure {
        measures::verify(shared, &name, measure).await?;
    }
    let now = shared.now();
    shared
        .lake
        .state()
        .update(|view| Ok::<_, LakeError>((vec![view.next(TABLE, name.as_str(), &settings, now, by)?], ())))
        .await?;
    shared.measures.refresh(shared).await;
    Ok(())
}
