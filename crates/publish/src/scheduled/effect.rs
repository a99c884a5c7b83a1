//! What was scheduled takes effect: its rows become a version of the table that they are for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use arrow_select::concat::concat_batches;
use rollcall_registry::HqError;
use rollcall_types::{TableName, Timestamp};

use super::{
    Scheduled, State, change,
    next_table::{is_next, next_name, numbers, of_number, project},
    waiting, zones,
};
use crate::{
    publisher::Publisher,
    publishing::publish,
    tables::{Known, Request, failed},
};

/// What is still being prepared so long after it was said never will be.
const PREPARING_MAX: Duration = Duration::from_secs(3600);
/// Rows that nobody waits for stay so long: a node may know of them before it knows what was said
/// of them.
const UNWANTED_KEPT: Duration = Duration::from_secs(10);

/// Numbers in next tables that nobody waits for, and since when.
pub type Unwanted = BTreeMap<(TableName, u64), Timestamp>;

/// Publishes what has taken effect everywhere, and takes out of the next tables what nobody waits
/// for any more. What cannot be done is tried again at the next look, and holds up nothing else.
pub async fn look(publisher: &Arc<Publisher>, unwanted: &mut Unwanted) {
    let now = publisher.registry.now();
    let note = |table: &TableName, number: u64, outcome: &Result<(), HqError>| {
        publisher.registry.health.note(format!("deal with version {number} scheduled for {table}"), outcome);
    };
    let mut wanted: BTreeSet<(TableName, u64)> = BTreeSet::new();
    for scheduled in waiting(publisher).iter() {
        let last = zones(publisher).into_iter().map(|zone| scheduled.at_in(zone)).max();
        let done = match scheduled.state {
            State::Waiting if last.is_some_and(|last| last <= now) => take_effect(publisher, scheduled).await,
            State::Preparing if now.since(scheduled.said_at) > PREPARING_MAX => {
                change(publisher, scheduled, "hq", State::Abandoned, false).await
            }
            _ => Ok(()),
        };
        note(&scheduled.table, scheduled.number, &done);
        wanted.extend(next_name(&scheduled.table).ok().map(|next| (next, scheduled.number)));
    }
    let before = std::mem::take(unwanted);
    for (name, next) in publisher.tables.all() {
        if !is_next(next.definition()) {
            continue;
        }
        let nobodys = numbers(&next).into_iter().map(|number| (name.clone(), number));
        for of in nobodys.filter(|of| !wanted.contains(of)) {
            let since = before.get(&of).copied().unwrap_or(now);
            if now.since(since) >= UNWANTED_KEPT {
                note(&of.0, of.1, &take_out(publisher, &next, of.1).await);
            }
            unwanted.insert(of, since);
        }
    }
}

/// Takes the rows of one number out of a next table.
async fn take_out(publisher: &Arc<Publisher>, next: &Known, number: u64) -> Result<(), HqError> {
    let (comes, goes) = of_number(next, number)?;
    let rows = concat_batches(&comes.schema(), &[comes, goes]).map_err(failed)?;
    let gone = project(&rows, |column| next.definition().key.iter().any(|key| key == column))?;
    let note = format!("{number} is not waited for any more");
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    publish(publisher, Request::internal(&next.name, nothing, gone, "hq", note)).await?;
    Ok(())
}

/// The name of the commit that makes a scheduled publication a version of its table.
pub fn done_as(number: u64) -> String {
    format!("scheduled/{number}")
}

/// The time has come in the last zone: the rows become a version of the table. Done twice, it
/// changes nothing, whatever came between: the table knows it by its name.
async fn take_effect(publisher: &Arc<Publisher>, scheduled: &Scheduled) -> Result<(), HqError> {
    let (name, next) = (&scheduled.table, next_name(&scheduled.table)?);
    let next = publisher.tables.get(&next).filter(|next| next.image.version >= scheduled.version);
    let (Some(next), Some(known)) = (next, publisher.tables.get(name)) else { return Ok(()) };
    let (comes, goes) = of_number(&next, scheduled.number)?;
    let is_column = |column: &str| known.image.columns.iter().any(|known| known.name == column);
    let rows = project(&comes, is_column)?;
    let gone = project(&goes, |column| known.image.key.iter().any(|key| key == column))?;
    let note = format!("scheduled for {} of each site's day: {}", scheduled.at, scheduled.note);
    let request =
        Request { scheduled: Some(scheduled.number), ..Request::internal(name, rows, gone, &scheduled.by, note) };
    let version = publish(publisher, request).await?.version;
    change(publisher, scheduled, &scheduled.by, State::Published { as_version: version }, false).await?;
    tracing::info!(table = %name, number = scheduled.number, %version, "what was scheduled has taken effect everywhere");
    Ok(())
}
