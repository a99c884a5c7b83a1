//! Scheduling: rows for later are worked out on the table as it is now, and put into the next one.

use std::sync::Arc;

use arrow_array::RecordBatch;
use chrono::NaiveDateTime;
use rollcall_books::definitions::{AtStoresChange, Counts, Definition};
use rollcall_lake::{LakeError, StateView};
use rollcall_registry::HqError;
use rollcall_types::{Seq, TableName};

use super::{
    SCHEDULED, Scheduled, State, all, change, instant,
    next_table::{EFFECT, GONE, NUMBER, check_is_own, next_name, numbers, rows_of},
    zones,
};
use crate::{
    publisher::Publisher,
    publishing::{WorkedOut, publish},
    tables::{self, ATTEMPTS, Known, Mode, Outcome, Request},
};

/// Publishes rows for later: what they change is worked out on the table as it is now.
pub async fn schedule(
    publisher: &Arc<Publisher>,
    request: &Request,
    at: NaiveDateTime,
) -> Result<(Outcome, u64), HqError> {
    let next = next_name(&request.table)?;
    check_is_own(publisher, &request.table)?;
    let mut prepared = None;
    for _ in 0..ATTEMPTS {
        publisher.registry.lake.follow().await?;
        tables::refresh(publisher).await;
        if let Some(scheduled) = try_schedule(publisher, request, at, &next, &mut prepared).await? {
            return Ok(scheduled);
        }
    }
    Err(HqError::Outdated)
}

/// One attempt; none if others were faster. What it said that it prepares is taken up by the next
/// one.
async fn try_schedule(
    publisher: &Arc<Publisher>,
    request: &Request,
    at: NaiveDateTime,
    next: &TableName,
    prepared: &mut Option<Scheduled>,
) -> Result<Option<(Outcome, u64)>, HqError> {
    let name = &request.table;
    let known = changed_later(publisher, request, at)?;
    let definition = known.definition();
    let worked_out = work_out(publisher, request, &known)?;
    let of_next = publisher.tables.get(next);
    let number = prepared.as_ref().map(|prepared| prepared.number);
    let number = number.unwrap_or_else(|| free_number(publisher, name, of_next.as_deref()));
    let rows = rows_of(&worked_out, &definition.key, number, at)?;
    let mut outcome = Outcome {
        table: name.clone(),
        version: known.image.version,
        previous: known.image.version,
        counts: worked_out.changes.counts,
        audience: worked_out.audience,
        sites_touched: worked_out.sites_touched,
        dry_run: request.dry_run,
    };
    if request.dry_run || rows.num_rows() == 0 {
        return Ok(Some((outcome, 0)));
    }
    // Said before its rows are there: rows of a number that nobody speaks of are taken out.
    let preparing = match prepared {
        Some(preparing) => preparing,
        None => {
            let preparing = in_preparation(publisher, request, number, at, outcome.counts);
            if !prepare(publisher, &preparing).await? {
                return Ok(None);
            }
            prepared.insert(preparing)
        }
    };
    let on = of_next.map_or(Seq(0), |known| known.image.version);
    let published = match publish(publisher, for_next(request, next, rows, definition, at, on)).await {
        Err(HqError::Outdated) => return Ok(None),
        published => published?,
    };
    outcome.version = published.version;
    let waiting = Scheduled { version: published.version, counts: outcome.counts, ..preparing.clone() };
    change(publisher, &waiting, &request.by, State::Waiting, false).await?;
    Ok(Some((outcome, number)))
}

/// The table that is to change, as this node knows it. Refuses what cannot be scheduled for it.
fn changed_later(publisher: &Publisher, request: &Request, at: NaiveDateTime) -> Result<Arc<Known>, HqError> {
    let (name, invalid) = (&request.table, |text: String| HqError::Invalid(text));
    let known = publisher.tables.get(name);
    if known.as_ref().is_some_and(|known| known.definition().shared.is_some()) {
        return Err(invalid(format!("{name} is changed at the sites as well: nothing of it can be scheduled")));
    }
    let known =
        known.ok_or_else(|| invalid(format!("{name} was never published; what changes later must be there before")))?;
    if request.to.as_ref().is_some_and(|to| *to != known.definition().to) {
        return Err(invalid("what is scheduled goes to those who have the table; change --to by itself".to_owned()));
    }
    if zones(publisher).into_iter().all(|zone| instant(at, zone) <= publisher.registry.now()) {
        return Err(invalid(format!("{at} is past at every site; leave --at away to publish now")));
    }
    Ok(known)
}

/// What the rows change of the table as it is now. Refuses columns that it has not, or that the
/// next table needs for itself.
fn work_out(publisher: &Publisher, request: &Request, known: &Known) -> Result<WorkedOut, HqError> {
    let name = &request.table;
    let schema = publisher.registry.lake.table(name).map(|table| table.snapshot().schema().as_ref().clone());
    let schema = schema.ok_or_else(|| HqError::NotFound(format!("there is no table {name}")))?;
    let worked_out = rollcall_runtime::in_place(|| {
        WorkedOut::new(publisher, request, known.definition(), schema, &known.image, false)
    })?;
    if let Some(column) = worked_out.conformed.new_columns.first() {
        let text = format!("{name} has no column {} yet; publish it first, then schedule", column.name);
        return Err(HqError::Invalid(text));
    }
    let is_there = |name: &&str| worked_out.changes.rows.column_by_name(name).is_some();
    if let Some(column) = [NUMBER, GONE, EFFECT].into_iter().find(is_there) {
        return Err(HqError::Invalid(format!("a table with a column {column} cannot have scheduled publications")));
    }
    Ok(worked_out)
}

/// A number that neither a publication for later has, nor rows of the next table.
fn free_number(publisher: &Publisher, table: &TableName, next: Option<&Known>) -> u64 {
    let view = publisher.registry.lake.state().view();
    let recorded = all(&view).into_iter().filter(|of| of.table == *table).map(|of| of.number).max();
    let held = next.map_or(0, |known| numbers(known).into_iter().max().unwrap_or_default());
    recorded.unwrap_or_default().max(held) + 1
}

/// A publication whose rows are not in the next table yet.
fn in_preparation(
    publisher: &Publisher,
    request: &Request,
    number: u64,
    at: NaiveDateTime,
    counts: Counts,
) -> Scheduled {
    Scheduled {
        table: request.table.clone(),
        number,
        at,
        version: Seq(0),
        counts,
        by: request.by.clone(),
        note: request.note.clone(),
        said_at: publisher.registry.now(),
        state: State::Preparing,
    }
}

/// Says that this is being prepared; false if another has its number.
async fn prepare(publisher: &Publisher, scheduled: &Scheduled) -> Result<bool, LakeError> {
    let said = |view: &StateView| {
        if view.get(SCHEDULED, &scheduled.id()).is_some() {
            return Ok::<_, LakeError>((Vec::new(), false));
        }
        Ok((vec![view.next(SCHEDULED, &scheduled.id(), scheduled, publisher.registry.now(), &scheduled.by)?], true))
    };
    publisher.registry.lake.state().update(said).await
}

/// Rows for the next table, worked out `on` this version of it.
fn for_next(
    request: &Request,
    next: &TableName,
    rows: RecordBatch,
    definition: &Definition,
    at: NaiveDateTime,
    on: Seq,
) -> Request {
    Request {
        table: next.clone(),
        rows,
        gone: None,
        mode: Mode::Merge,
        key: [NUMBER, GONE].into_iter().map(str::to_owned).chain(definition.key.iter().cloned()).collect(),
        to: Some(definition.to.clone()),
        mends: Some(true),
        at_stores: AtStoresChange::default(),
        shared: None,
        by: request.by.clone(),
        note: format!("for {}, at {at} of each site's day", request.table),
        dry_run: false,
        based_on: Some(on),
        scheduled: None,
    }
}
