//! What people say of a site table: when its rows happened, how late they come, what they are
//! worth.

use std::time::Duration;

use rollcall_books::{
    definitions::{definitions, is_of_stores},
    table_settings::{TABLE, TableSettings, all},
};
use rollcall_lake::{ColumnType, LakeError, StateView, Table};
use rollcall_registry::HqError;
use rollcall_types::{TableName, describe};

use crate::{answers::Answers, measures};

/// A row's versions are counted against what its site says it captured; that is done long before
/// this.
const HISTORY_DAYS_MIN: u32 = 30;

/// Declares those whose tables are there by now.
pub async fn adopt(answers: &Answers) {
    let waiting = answers.books.proposed.waiting();
    for (table, (column, site)) in waiting {
        let Some(known) = answers.registry.lake.table(&table) else { continue };
        if known.snapshot().schema().columns.is_empty() {
            continue;
        }
        answers.books.proposed.remove(&table);
        let settings = TableSettings { event_time: Some(column.clone()), ..TableSettings::default() };
        match set_unless_known(answers, &table, settings, site.as_str()).await {
            Ok(()) => tracing::info!(%table, column, %site, "the event time that the site declared is taken"),
            Err(error) => {
                tracing::warn!(%table, column, %site, error = %describe(&error), "the event time that the site declared is not taken");
            }
        }
    }
}

/// Stores a table's settings, once they make sense.
pub async fn set(answers: &Answers, name: &str, settings: TableSettings, by: &str) -> Result<(), HqError> {
    let name = TableName::new(name).map_err(|error| HqError::Invalid(error.to_string()))?;
    check(answers, &name, &settings).await?;
    store(answers, &name, &settings, by, |_| true).await?;
    measures::refresh(&answers.registry, &answers.engine, &answers.books.worths).await;
    Ok(())
}

/// The same for what a site proposes: what a person said meanwhile stays.
async fn set_unless_known(
    answers: &Answers,
    name: &TableName,
    settings: TableSettings,
    by: &str,
) -> Result<(), HqError> {
    check(answers, name, &settings).await?;
    store(answers, name, &settings, by, |view| view.get(TABLE, name.as_str()).is_none()).await?;
    Ok(())
}

async fn store(
    answers: &Answers,
    name: &TableName,
    settings: &TableSettings,
    by: &str,
    may: impl Fn(&StateView) -> bool,
) -> Result<(), LakeError> {
    let now = answers.registry.now();
    let records = |view: &StateView| match may(view) {
        true => Ok(vec![view.next(TABLE, name.as_str(), settings, now, by)?]),
        false => Ok(Vec::new()),
    };
    answers.registry.lake.state().update(|view| Ok::<_, LakeError>((records(view)?, ()))).await
}

/// Whether a table's settings make sense.
async fn check(answers: &Answers, name: &TableName, settings: &TableSettings) -> Result<(), HqError> {
    let table = answers.registry.lake.table(name);
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
    let before = all(&answers.registry.lake).remove(name).and_then(|before| before.history_days);
    if let Some(days) = settings.history_days.filter(|days| Some(*days) != before) {
        check_history(answers, name, &table, days)?;
    }
    if let Some(measure) = &settings.measure {
        measures::verify(&answers.engine, name, measure).await?;
    }
    Ok(())
}

/// Whether a table's history may end.
fn check_history(answers: &Answers, name: &TableName, table: &Table, days: u32) -> Result<(), HqError> {
    if days < HISTORY_DAYS_MIN {
        let text = format!("history is kept for {HISTORY_DAYS_MIN} days at least; {days} are too few");
        return Err(HqError::Invalid(text));
    }
    match must_stay_whole(answers, name, table) {
        true => {
            Err(HqError::Invalid(format!("the history of {name} must stay whole: HQ shares the table with its sites")))
        }
        false => Ok(()),
    }
}

/// Whether sites catch up from a table's history, however long they were away, or HQ decides on
/// their edits by it.
fn must_stay_whole(answers: &Answers, name: &TableName, table: &Table) -> bool {
    let definitions = definitions(&answers.registry.lake.state().view());
    !is_of_stores(name, table, &definitions)
}

/// Ends the history of tables where it was kept for as long as was said.
pub async fn expire_history(answers: &Answers) {
    for (name, settings) in all(&answers.registry.lake) {
        let Some((table, days)) = answers.registry.lake.table(&name).zip(settings.history_days) else { continue };
        // It may have become one of those since.
        if must_stay_whole(answers, &name, &table) {
            continue;
        }
        let before = answers.registry.now().before(Duration::from_secs(u64::from(days) * 86_400));
        let expired = table.expire_history(before).await;
        answers.registry.health.note(format!("end the history of {name}"), &expired);
        if let Some(rows) = expired.ok().filter(|rows| *rows > 0) {
            tracing::info!(table = %name, rows, days, "history older than it is to be kept is gone");
        }
    }
}
