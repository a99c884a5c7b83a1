//! Publications that take effect later, at a time of each site's own day.
//!
//! They go to the sites ahead, as rows of a published table beside the one they are for:
//! `prices_next` beside `prices`, with all that published tables have. A site puts them into the
//! table when its clock says so, whether HQ can be reached or not. When the time has come in the
//! last zone, HQ publishes them as a version of the table itself, which then changes nothing at the
//! sites.

mod effect;
mod next_table;
mod scheduling;

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
};

use chrono::{NaiveDateTime, TimeDelta, TimeZone};
use chrono_tz::Tz;
use rollcall_books::definitions::{Counts, DEFINITION, Definition, definitions};
use rollcall_lake::{LakeError, Record, RecordKind, StateView};
use rollcall_registry::{HqError, SiteRecord};
use rollcall_types::{Seq, SiteId, TableName, Timestamp};
use rollcall_wire::proto::Due;
use serde::{Deserialize, Serialize};

use self::next_table::is_next;
use crate::{publisher::Publisher, tables};

pub use self::{
    effect::{Unwanted, done_as, look},
    next_table::{check_is_own, next_name},
    scheduling::schedule,
};

const SCHEDULED: RecordKind<Scheduled> = RecordKind::new("scheduled");
/// What is withdrawn so long before its time has taken effect nowhere, however wrong a site's clock
/// is.
const CLOCK_MARGIN_MICROS: i64 = 24 * 3_600_000_000;

/// A publication for later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// The table that it will change.
    pub table: TableName,
    /// 1, 2, 3… for each table.
    pub number: u64,
    /// When it takes effect, by each site's clock.
    pub at: NaiveDateTime,
    /// The version of the next table that has its rows.
    pub version: Seq,
    /// What it would have done to the table as that was when it was scheduled.
    pub counts: Counts,
    /// Who scheduled it.
    pub by: String,
    /// What whoever scheduled it noted; may be empty.
    pub note: String,
    /// When it was scheduled.
    pub said_at: Timestamp,
    /// What became of it.
    #[serde(flatten)]
    pub state: State,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum State {
    /// Its rows are being put into the next table; whoever asked for it was told nothing yet.
    Preparing,
    /// It was prepared, and that came to nothing.
    Abandoned,
    /// Its time has not come everywhere.
    Waiting,
    /// It is a version of the table.
    Published {
        /// The version that it is.
        as_version: Seq,
    },
    /// It was taken back, and will not be published.
    Withdrawn {
        /// When it was taken back.
        withdrawn_at: Timestamp,
        /// Who took it back.
        withdrawn_by: String,
    },
}

impl Scheduled {
    fn id(&self) -> String {
        format!("{}/{:020}", self.table, self.number)
    }

    /// Whether it ever came so far that whoever asked for it was told.
    pub fn was_said(&self) -> bool {
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

/// All of them, those of one table in their order.
pub fn all(view: &StateView) -> Vec<Scheduled> {
    view.of_kind(SCHEDULED).filter_map(|record| record.parse().ok()).collect()
}

/// Those that are being prepared, or whose time has not come everywhere, as this node knows them.
#[derive(Debug, Default)]
pub struct Waiting {
    /// How often one was said or changed.
    changes: i64,
    all: Arc<Vec<Scheduled>>,
}

fn waiting(publisher: &Publisher) -> Arc<Vec<Scheduled>> {
    publisher.tables.waiting.lock().unwrap_or_else(PoisonError::into_inner).all.clone()
}

/// Takes over what was scheduled or changed since, here or at another node; true if that is
/// anything.
pub fn refresh(publisher: &Publisher) -> bool {
    let view = publisher.registry.lake.state().view();
    let changes = view.of_kind(SCHEDULED).map(|record| record.version).sum();
    let mut known = publisher.tables.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    if known.changes == changes {
        return false;
    }
    let mut all = all(&view);
    all.retain(|scheduled| matches!(scheduled.state, State::Preparing | State::Waiting));
    *known = Waiting { changes, all: Arc::new(all) };
    true
}

/// What a site is to put into a table at its time, and the name of the table that has it.
pub fn due(
    publisher: &Publisher,
    table: &TableName,
    site: &SiteId,
    record: &SiteRecord,
) -> Result<(String, Vec<Due>), HqError> {
    let Some(next) = next_name(table).ok().and_then(|next| publisher.tables.get(&next)) else {
        return Ok(Default::default());
    };
    let waiting = waiting(publisher);
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
pub fn next_definition(
    view: &StateView,
    table: &TableName,
    definition: &Definition,
    now: Timestamp,
    by: &str,
) -> Result<Option<Record>, LakeError> {
    let Ok(next) = next_name(table) else { return Ok(None) };
    let Some(known) = definitions(view).remove(&next).filter(is_next) else {
        return Ok(None);
    };
    let changed = Definition { to: definition.to.clone(), ..known };
    Ok(Some(view.next(DEFINITION, next.as_str(), &changed, now, by)?))
}

/// The zones in which sites are.
fn zones(publisher: &Publisher) -> HashSet<Tz> {
    let roster = publisher.registry.roster.all();
    let zones: HashSet<Tz> =
        roster.values().filter(|record| record.retired.is_none()).map(|record| record.zone()).collect();
    if zones.is_empty() { HashSet::from([Tz::UTC]) } else { zones }
}

/// Notes what became of one, unless another changed it since; with `restate`, sites fetch the table
/// whole.
async fn change(
    publisher: &Publisher,
    scheduled: &Scheduled,
    by: &str,
    state: State,
    restate: bool,
) -> Result<(), HqError> {
    let now = publisher.registry.now();
    publisher
        .registry
        .lake
        .state()
        .update(|view| {
            let known = view.get(SCHEDULED, &scheduled.id()).map(|record| record.parse::<Scheduled>()).transpose()?;
            if known.is_none_or(|known| known.state != scheduled.state) {
                return Err(HqError::Invalid(format!(
                    "{} of {} is not what it was a moment ago: look again",
                    scheduled.number, scheduled.table
                )));
            }
            let changed = Scheduled { state: state.clone(), ..scheduled.clone() };
            let mut records = vec![view.next(SCHEDULED, &scheduled.id(), &changed, now, by)?];
            if restate && let Some(definition) = definitions(view).remove(&scheduled.table) {
                let again = Definition { restated: definition.restated + 1, ..definition };
                records.push(view.next(DEFINITION, scheduled.table.as_str(), &again, now, by)?);
            }
            Ok((records, ()))
        })
        .await?;
    tables::refresh(publisher).await;
    Ok(())
}

/// Takes back one that waits. Where it has taken effect already, the table is fetched whole and is
/// what it was.
pub async fn withdraw(publisher: &Publisher, table: &TableName, number: u64, by: &str) -> Result<Scheduled, HqError> {
    let view = publisher.registry.lake.state().view();
    let scheduled = all(&view).into_iter().find(|of| of.table == *table && of.number == number);
    let scheduled =
        scheduled.ok_or_else(|| HqError::NotFound(format!("nothing is scheduled as {number} for {table}")))?;
    if scheduled.state != State::Waiting {
        return Err(HqError::Invalid(format!("{number} of {table} does not wait any more")));
    }
    let first = zones(publisher).into_iter().map(|zone| scheduled.at_in(zone)).min();
    // Clocks at the sites may be fast.
    let has_begun =
        first.is_some_and(|first| first.as_micros() <= publisher.registry.now().as_micros() + CLOCK_MARGIN_MICROS);
    let state = State::Withdrawn { withdrawn_at: publisher.registry.now(), withdrawn_by: by.to_owned() };
    change(publisher, &scheduled, by, state, has_begun).await?;
    Ok(scheduled)
}
