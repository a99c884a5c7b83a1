//! Publications that take effect later, at a time of each site's own day.
//!
//! They go to the sites ahead, as rows of a published table beside the one they are for:
//! `prices_next` beside `prices`, with all that published tables have. A site puts them into the
//! table when its clock says so, whether HQ can be reached or not. When the time has come in the
//! last zone, HQ publishes them as a version of the table itself, which then changes nothing at the
//! sites.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, PoisonError},
    time::Duration,
};

use arrow_array::{BooleanArray, Int64Array, RecordBatch, StringArray, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::{concat::concat_batches, filter::filter_record_batch};
use chrono::{NaiveDateTime, TimeDelta, TimeZone};
use chrono_tz::Tz;
use rollcall_lake::{LakeError, Record, StateView};
use rollcall_types::{Seq, SiteId, TableName, Timestamp};
use rollcall_wire::proto::Due;
use serde::{Deserialize, Serialize};
use tokio::task::block_in_place;

use super::{
    ATTEMPTS, Counts, DEFINITION, Definition, Known, Mode, Outcome, Request, changes::Changes, definitions, failed,
    image, publish, publishing::WorkedOut,
};
use crate::{error::HqError, node::Shared, roster::SiteRecord};

const KIND: &str = "scheduled";
/// Of the next table: which publication a row is of.
const NUMBER: &str = "scheduled_as";
/// Of the next table: whether the row is one that goes.
const GONE: &str = "is_gone";
/// Of the next table, for people: when it takes effect, by the site's clock.
const EFFECT: &str = "takes_effect";

/// What is withdrawn so long before its time has taken effect nowhere, however wrong a site's clock
/// is.
const CLOCK_MARGIN_MICROS: i64 = 24 * 3_600_000_000;
/// What is still being prepared so long after it was said never will be.
const PREPARING_MAX: Duration = Duration::from_secs(3600);
/// Rows that nobody waits for stay so long: a node may know of them before it knows what was said
/// of them.
const UNWANTED_KEPT: Duration = Duration::from_secs(10);

/// A publication for later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scheduled {
    pub(crate) table: TableName,
    /// 1, 2, 3… for each table.
    pub(crate) number: u64,
    /// When it takes effect, by each site's clock.
    pub(crate) at: NaiveDateTime,
    /// The version of the next table that has its rows.
    pub(crate) version: Seq,
    pub(crate) counts: Counts,
    pub(crate) by: String,
    pub(crate) note: String,
    pub(crate) said_at: Timestamp,
    #[serde(flatten)]
    pub(crate) state: State,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub(crate) enum State {
    /// Its rows are being put into the next table; whoever asked for it was told nothing yet.
    Preparing,
    /// It was prepared, and that came to nothing.
    Abandoned,
    /// Its time has not come everywhere.
    Waiting,
    /// It is a version of the table.
    Published {
        as_version: Seq,
    },
    Withdrawn {
        withdrawn_at: Timestamp,
        withdrawn_by: String,
    },
}

impl Scheduled {
    fn id(&self) -> String {
        format!("{}/{:020}", self.table, self.number)
    }

    /// Whether it ever came so far that whoever asked for it was told.
    pub(crate) fn was_said(&self) -> bool {
        !matches!(self.state, State::Preparing | State::Abandoned)
    }

    /// When it takes effect in a zone. A time that the clocks skip is the first one after.
    fn at_in(&self, zone: Tz) -> Timestamp {
        instant(self.at, zone)
    }
}

fn instant(at: NaiveDateTime, zone: Tz) -> Timestamp {
    let mut local = at;
    loop {
        if let Some(time) = zone.from_local_datetime(&local).earliest() {
            return Timestamp::from_micros(time.timestamp_micros());
        }
        local += TimeDelta::minutes(15);
    }
}

/// The table that holds what is scheduled for another.
pub(crate) fn next_name(table: &TableName) -> Result<TableName, HqError> {
    TableName::new(&format!("{table}_next")).map_err(|error| HqError::Invalid(error.to_string()))
}

/// Refuses what a person would do to a table that only schedules fill.
pub(crate) fn check_is_own(shared: &Shared, table: &TableName) -> Result<(), HqError> {
    let is_next =
        shared.published.get(table).is_some_and(|known| known.definition().key.iter().any(|key| key == NUMBER));
    match is_next {
        true => Err(HqError::Invalid(format!(
            "{table} holds what is scheduled; publish with --at, and withdraw with --withdraw-at"
        ))),
        false => Ok(()),
    }
}

/// All of them, those of one table in their order.
pub(crate) fn all(view: &StateView) -> Vec<Scheduled> {
    view.of_kind(KIND).filter_map(|record| record.parse().ok()).collect()
}

/// Those that are being prepared, or whose time has not come everywhere, as this node knows them.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// How often one was said or changed.
    changes: i64,
    all: Arc<Vec<Scheduled>>,
}

fn waiting(shared: &Shared) -> Arc<Vec<Scheduled>> {
    shared.published.waiting.lock().unwrap_or_else(PoisonError::into_inner).all.clone()
}

/// Takes over what was scheduled or changed since, here or at another node; true if that is
/// anything.
pub(super) fn refresh(shared: &Shared) -> bool {
    let view = shared.lake.state().view();
    let changes = view.of_kind(KIND).map(|record| record.version).sum();
    let mut known = shared.published.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    if known.changes == changes {
        return false;
    }
    let mut all = all(&view);
    all.retain(|scheduled| matches!(scheduled.state, State::Preparing | State::Waiting));
    *known = Waiting { changes, all: Arc::new(all) };
    true
}

/// What a site is to put into a table at its time, and the name of the table that has it.
pub(super) fn due(
    shared: &Shared,
    table: &TableName,
    site: &SiteId,
    record: &SiteRecord,
) -> Result<(String, Vec<Due>), HqError> {
    let Some(next) = next_name(table).ok().and_then(|next| shared.published.get(&next)) else {
        return Ok(Default::default());
    };
    let waiting = waiting(shared);
    // What another node scheduled may be known before its rows are.
    let is_here = |scheduled: &&Scheduled| {
        scheduled.table == *table && scheduled.state == State::Waiting && scheduled.version <= next.image.version
    };
    let mut of_table = waiting.iter().filter(is_here).peekable();
    if of_table.peek().is_none() {
        return Ok(Default::default());
    }
    let (zone, class) = (record.zone(), next.class_of(site, record)?);
    // A site that a version does not concern never has it.
    let newest = next.version_for(&class)?;
    let due = of_table.map(|scheduled| Due {
        number: scheduled.number,
        at_micros: scheduled.at_in(zone).as_micros(),
        version: scheduled.version.min(newest).0,
    });
    Ok((next.name.to_string(), due.collect()))
}

/// The definition of the next table after that of its table changed.
pub(super) fn next_definition(
    view: &StateView,
    table: &TableName,
    definition: &Definition,
    now: Timestamp,
    by: &str,
) -> Result<Option<Record>, LakeError> {
    let Ok(next) = next_name(table) else { return Ok(None) };
    let Some(known) = definitions(view).remove(&next).filter(|known| known.key.iter().any(|key| key == NUMBER)) else {
        return Ok(None);
    };
    let changed = Definition { to: definition.to.clone(), ..known };
    Ok(Some(view.next(DEFINITION, next.as_str(), &changed, now, by)?))
}

/// Publishes rows for later: what they change is worked out on the table as it is now.
pub(crate) async fn schedule(
    shared: &Arc<Shared>,
    request: &Request,
    at: NaiveDateTime,
) -> Result<(Outcome, u64), HqError> {
    let name = &request.table;
    let next = next_name(name)?;
    check_is_own(shared, name)?;
    let mut prepared: Option<Scheduled> = None;
    for _ in 0..ATTEMPTS {
        shared.lake.follow().await?;
        super::refresh(shared).await;
        let invalid = |text: String| HqError::Invalid(text);
        let known = shared.published.get(name);
        if known.as_ref().is_some_and(|known| known.definition().shared.is_some()) {
            return Err(invalid(format!("{name} is changed at the sites as well: nothing of it can be scheduled")));
        }
        let known = known
            .ok_or_else(|| invalid(format!("{name} was never published; what changes later must be there before")))?;
        let definition = known.definition().clone();
        if request.to.as_ref().is_some_and(|to| *to != definition.to) {
            return Err(invalid(
                "what is scheduled goes to those who have the table; change --to by itself".to_owned(),
            ));
        }
        if zones(shared).into_iter().all(|zone| instant(at, zone) <= shared.now()) {
            return Err(invalid(format!("{at} is past at every site; leave --at away to publish now")));
        }
        let schema = shared.lake.table(name).map(|table| table.snapshot().schema().as_ref().clone());
        let schema = schema.ok_or_else(|| HqError::NotFound(format!("there is no table {name}")))?;
        let worked_out = block_in_place(|| WorkedOut::new(shared, request, &definition, schema, &known.image, false))?;
        if let Some(column) = worked_out.conformed.new_columns.first() {
            return Err(invalid(format!("{name} has no column {} yet; publish it first, then schedule", column.name)));
        }
        let taken =
            [NUMBER, GONE, EFFECT].into_iter().find(|name| worked_out.changes.rows.column_by_name(name).is_some());
        if let Some(column) = taken {
            return Err(invalid(format!("a table with a column {column} cannot have scheduled publications")));
        }
        let of_next = shared.published.get(&next);
        let version = of_next.as_ref().map_or(Seq(0), |known| known.image.version);
        let view = shared.lake.state().view();
        let recorded = all(&view).into_iter().filter(|of| of.table == *name).map(|of| of.number).max();
        let held = of_next.as_ref().map_or(0, |known| numbers(known).into_iter().max().unwrap_or_default());
        let free = recorded.unwrap_or_default().max(held) + 1;
        let number = prepared.as_ref().map_or(free, |prepared| prepared.number);
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
            return Ok((outcome, 0));
        }
        // Said before its rows are there: rows of a number that nobody speaks of are taken out.
        let preparing = match &prepared {
            Some(preparing) => preparing,
            None => {
                let preparing = Scheduled {
                    table: name.clone(),
                    number,
                    at,
                    version: Seq(0),
                    counts: outcome.counts,
                    by: request.by.clone(),
                    note: request.note.clone(),
                    said_at: shared.now(),
                    state: State::Preparing,
                };
                if !prepare(shared, &preparing).await? {
                    continue;
                }
                prepared.insert(preparing)
            }
        };
        let key = [NUMBER, GONE].into_iter().map(str::to_owned).chain(definition.key.iter().cloned()).collect();
        let ahead = Request {
            table: next.clone(),
            rows,
            gone: None,
            mode: Mode::Merge,
            key,
            to: Some(definition.to.clone()),
            mends: Some(true),
            at_stores: super::AtStoresChange::default(),
            shared: None,
            by: request.by.clone(),
            note: format!("for {name}, at {at} of each site's day"),
            dry_run: false,
            based_on: Some(version),
            scheduled: None,
        };
        let published = match publish(shared, ahead).await {
            Err(HqError::Outdated) => continue,
            published => published?,
        };
        outcome.version = published.version;
        let waiting = Scheduled { version: published.version, counts: outcome.counts, ..preparing.clone() };
        change(shared, &waiting, &request.by, State::Waiting, false).await?;
        return Ok((outcome, number));
    }
    Err(HqError::Outdated)
}

/// Says that this is being prepared; false if another has its number.
async fn prepare(shared: &Shared, scheduled: &Scheduled) -> Result<bool, LakeError> {
    let said = |view: &StateView| {
        if view.get(KIND, &scheduled.id()).is_some() {
            return Ok::<_, LakeError>((Vec::new(), false));
        }
        Ok((vec![view.next(KIND, &scheduled.id(), scheduled, shared.now(), &scheduled.by)?], true))
    };
    shared.lake.state().update(said).await
}

/// Rows of the next table: those that come, and those that go from sites where the ones that come
/// are not for them.
fn rows_of(worked_out: &WorkedOut, key: &[String], number: u64, at: NaiveDateTime) -> Result<RecordBatch, HqError> {
    let Changes { ops, rows, before, .. } = &worked_out.changes;
    let comes: BooleanArray = ops.iter().map(|op| Some(*op != b'D')).collect();
    let comes = filter_record_batch(rows, &comes).map_err(failed)?;
    let bytes = |rows: &RecordBatch, columns: &[String]| image::row_bytes(rows, columns).map_err(failed);
    // Who a row is for depends on these columns alone.
    let rule = &worked_out.rule_columns;
    let (keys, values) = match rule.is_empty() {
        true => (bytes(&comes, key)?, vec![Box::default(); comes.num_rows()]),
        false => (bytes(&comes, key)?, bytes(&comes, rule)?),
    };
    let now: HashMap<&[u8], &[u8]> = keys.iter().map(AsRef::as_ref).zip(values.iter().map(AsRef::as_ref)).collect();
    let was = match rule.is_empty() {
        true => vec![Box::default(); before.num_rows()],
        false => bytes(before, rule)?,
    };
    let goes: BooleanArray = bytes(before, key)?
        .iter()
        .zip(&was)
        .map(|(key, was)| Some(now.get(key.as_ref()) != Some(&was.as_ref())))
        .collect();
    let goes = filter_record_batch(before, &goes).map_err(failed)?;
    let marked = [marked(&comes, number, false, at)?, marked(&goes, number, true, at)?];
    concat_batches(&marked[0].schema(), &marked).map_err(failed)
}

fn marked(rows: &RecordBatch, number: u64, gone: bool, at: NaiveDateTime) -> Result<RecordBatch, HqError> {
    let ours = [
        Field::new(NUMBER, DataType::Int64, true),
        Field::new(GONE, DataType::Boolean, true),
        Field::new(EFFECT, DataType::Utf8, true),
    ];
    let schema = rows.schema();
    let fields: Vec<Field> =
        ours.into_iter().chain(schema.fields().iter().map(|field| field.as_ref().clone())).collect();
    let count = rows.num_rows();
    let mut arrays: Vec<arrow_array::ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![number as i64; count])),
        Arc::new(BooleanArray::from(vec![gone; count])),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(at.to_string(), count))),
    ];
    arrays.extend(rows.columns().iter().cloned());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(failed)
}

/// The zones in which sites are.
fn zones(shared: &Shared) -> HashSet<Tz> {
    let roster = shared.roster.all();
    let zones: HashSet<Tz> =
        roster.values().filter(|record| record.retired.is_none()).map(|record| record.zone()).collect();
    if zones.is_empty() { HashSet::from([Tz::UTC]) } else { zones }
}

/// The numbers of which a next table has rows.
fn numbers(next: &Known) -> BTreeSet<u64> {
    let rows = next.image.rows();
    let live = image::is_live(rows);
    let Some(numbers) = rows.column_by_name(NUMBER) else { return BTreeSet::new() };
    let numbers = numbers.as_primitive::<Int64Type>().values().iter().zip(live.values().iter());
    numbers.filter(|(_, live)| *live).map(|(number, _)| number.unsigned_abs()).collect()
}

/// The live rows of one number: those that come, and those that go.
fn of_number(next: &Known, number: u64) -> Result<(RecordBatch, RecordBatch), HqError> {
    let rows = next.image.rows();
    let live = image::is_live(rows);
    let numbers = rows.column_by_name(NUMBER).ok_or(HqError::Outdated)?.as_primitive::<Int64Type>();
    let gone = rows.column_by_name(GONE).ok_or(HqError::Outdated)?.as_boolean();
    let of = |wanted: bool| {
        let mask: BooleanArray = (0..rows.num_rows())
            .map(|row| Some(live.value(row) && numbers.value(row) == number as i64 && gone.value(row) == wanted))
            .collect();
        filter_record_batch(rows, &mask).map_err(failed)
    };
    Ok((of(false)?, of(true)?))
}

fn project(rows: &RecordBatch, keeps: impl Fn(&str) -> bool) -> Result<RecordBatch, HqError> {
    let places: Vec<usize> =
        (0..rows.num_columns()).filter(|place| keeps(rows.schema_ref().field(*place).name())).collect();
    rows.project(&places).map_err(failed)
}

/// Numbers in next tables that nobody waits for, and since when.
pub(crate) type Unwanted = BTreeMap<(TableName, u64), Timestamp>;

/// Publishes what has taken effect everywhere, and takes out of the next tables what nobody waits
/// for any more. What cannot be done is tried again at the next look, and holds up nothing else.
pub(crate) async fn look(shared: &Arc<Shared>, unwanted: &mut Unwanted) {
    let now = shared.now();
    let note = |table: &TableName, number: u64, outcome: &Result<(), HqError>| {
        shared.health.note(format!("deal with version {number} scheduled for {table}"), outcome);
    };
    let mut wanted: BTreeSet<(TableName, u64)> = BTreeSet::new();
    for scheduled in waiting(shared).iter() {
        let last = zones(shared).into_iter().map(|zone| scheduled.at_in(zone)).max();
        let done = match scheduled.state {
            State::Waiting if last.is_some_and(|last| last <= now) => take_effect(shared, scheduled).await,
            State::Preparing if now.since(scheduled.said_at) > PREPARING_MAX => {
                change(shared, scheduled, "hq", State::Abandoned, false).await
            }
            _ => Ok(()),
        };
        note(&scheduled.table, scheduled.number, &done);
        wanted.extend(next_name(&scheduled.table).ok().map(|next| (next, scheduled.number)));
    }
    let before = std::mem::take(unwanted);
    for (name, next) in shared.published.all() {
        if !next.definition().key.iter().any(|key| key == NUMBER) {
            continue;
        }
        let nobodys = numbers(&next).into_iter().map(|number| (name.clone(), number));
        for of in nobodys.filter(|of| !wanted.contains(of)) {
            let since = before.get(&of).copied().unwrap_or(now);
            if now.since(since) >= UNWANTED_KEPT {
                note(&of.0, of.1, &take_out(shared, &next, of.1).await);
            }
            unwanted.insert(of, since);
        }
    }
}

/// Takes the rows of one number out of a next table.
async fn take_out(shared: &Arc<Shared>, next: &Known, number: u64) -> Result<(), HqError> {
    let (comes, goes) = of_number(next, number)?;
    let rows = concat_batches(&comes.schema(), &[comes, goes]).map_err(failed)?;
    let gone = project(&rows, |column| next.definition().key.iter().any(|key| key == column))?;
    let note = format!("{number} is not waited for any more");
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    publish(shared, Request::internal(&next.name, nothing, gone, "hq", note)).await?;
    Ok(())
}

/// The name of the commit that makes a scheduled publication a version of its table.
pub(super) fn done_as(number: u64) -> String {
    format!("scheduled/{number}")
}

/// The time has come in the last zone: the rows become a version of the table. Done twice, it
/// changes nothing, whatever came between: the table knows it by its name.
async fn take_effect(shared: &Arc<Shared>, scheduled: &Scheduled) -> Result<(), HqError> {
    let (name, next) = (&scheduled.table, next_name(&scheduled.table)?);
    let next = shared.published.get(&next).filter(|next| next.image.version >= scheduled.version);
    let (Some(next), Some(known)) = (next, shared.published.get(name)) else { return Ok(()) };
    let (comes, goes) = of_number(&next, scheduled.number)?;
    let is_column = |column: &str| known.image.columns.iter().any(|known| known.name == column);
    let rows = project(&comes, is_column)?;
    let gone = project(&goes, |column| known.image.key.iter().any(|key| key == column))?;
    let note = format!("scheduled for {} of each site's day: {}", scheduled.at, scheduled.note);
    let request =
        Request { scheduled: Some(scheduled.number), ..Request::internal(name, rows, gone, &scheduled.by, note) };
    let version = publish(shared, request).await?.version;
    change(shared, scheduled, &scheduled.by, State::Published { as_version: version }, false).await?;
    tracing::info!(table = %name, number = scheduled.number, %version, "what was scheduled has taken effect everywhere");
    Ok(())
}

/// Notes what became of one, unless another changed it since; with `restate`, sites fetch the table
/// whole.
async fn change(shared: &Shared, scheduled: &Scheduled, by: &str, state: State, restate: bool) -> Result<(), HqError> {
    let now = shared.now();
    shared
        .lake
        .state()
        .update(|view| {
            let known = view.get(KIND, &scheduled.id()).map(|record| record.parse::<Scheduled>()).transpose()?;
            if known.is_none_or(|known| known.state != scheduled.state) {
                return Err(HqError::Invalid(format!(
                    "{} of {} is not what it was a moment ago: look again",
                    scheduled.number, scheduled.table
                )));
            }
            let changed = Scheduled { state: state.clone(), ..scheduled.clone() };
            let mut records = vec![view.next(KIND, &scheduled.id(), &changed, now, by)?];
            if restate && let Some(definition) = definitions(view).remove(&scheduled.table) {
                let again = Definition { restated: definition.restated + 1, ..definition };
                records.push(view.next(DEFINITION, scheduled.table.as_str(), &again, now, by)?);
            }
            Ok((records, ()))
        })
        .await?;
    super::refresh(shared).await;
    Ok(())
}

/// Takes back one that waits. Where it has taken effect already, the table is fetched whole and is
/// what it was.
pub(crate) async fn withdraw(shared: &Shared, table: &TableName, number: u64, by: &str) -> Result<Scheduled, HqError> {
    let view = shared.lake.state().view();
    let scheduled = all(&view).into_iter().find(|of| of.table == *table && of.number == number);
    let scheduled =
        scheduled.ok_or_else(|| HqError::NotFound(format!("nothing is scheduled as {number} for {table}")))?;
    if scheduled.state != State::Waiting {
        return Err(HqError::Invalid(format!("{number} of {table} does not wait any more")));
    }
    let first = zones(shared).into_iter().map(|zone| scheduled.at_in(zone)).min();
    // Clocks at the sites may be fast.
    let has_begun = first.is_some_and(|first| first.as_micros() <= shared.now().as_micros() + CLOCK_MARGIN_MICROS);
    let state = State::Withdrawn { withdrawn_at: shared.now(), withdrawn_by: by.to_owned() };
    change(shared, &scheduled, by, state, has_begun).await?;
    Ok(scheduled)
}
