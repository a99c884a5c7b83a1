//! Tables that sites change as well as HQ: their edits are decided on here, by the acting node.
//!
//! A site's edits come as rows of an ordinary table of its own (`customers_edits`), exactly once.
//! Those behind the number that was decided on last are decided on in the order in which HQ heard
//! of them ([`rollcall_types::shared::decide`]), and what comes of it is committed to the shared
//! table together with that number: the cursor of the site in it. So an edit counts once, whatever
//! dies when. What lost, or was put aside, goes to `customers_conflicts` before. See decision 0010.

mod decided;
mod edits;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use rollcall_lake::{Column, ColumnType, Conformed, HQ_EPOCH, Part, PartOutcome, Table};
use rollcall_roll::Condition;
use rollcall_types::{
    ChainHash, Epoch, HQ_SITE, Seq, SiteId, SiteNumber, TableName, Timestamp,
    shared::{CONFLICTS_SUFFIX, EDIT_IN_DOUBT, EDIT_NUMBER, EDITS_SUFFIX, RESERVED_COLUMNS},
};
use rollcall_wire::FETCH_BYTES_MAX;

use self::{
    decided::Decided,
    edits::{Edits, Undecided},
};
use rollcall_books::definitions::{AtStoresChange, Counts, Definition, beside, definitions, stands_beside};
use rollcall_registry::{Heard, HqError, Sites};

use crate::{
    image,
    publisher::Publisher,
    publishing::{note_edits, publish},
    tables::{Known, Mode, NOBODY, Request, failed, refresh},
};

/// The column of a shared table that says who made a version of a row, see
/// [`rollcall_types::shared::Version`]. Sites do not get it.
pub const ORIGIN: &str = "_origin";
/// How often it is looked for edits.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Edits decided on in one commit.
const ROUND_MAX: usize = 2_000;
/// A published row is at most so wide.
pub const ROW_BYTES_MAX: usize = FETCH_BYTES_MAX / 2;
/// A commit may become visible so much later than it was made.
const LATE: Duration = Duration::from_secs(20 * 60);

/// What this node looked at.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By shared table: how far its edits were: the log's version, and when HQ had heard of the
    /// newest.
    tables: HashMap<TableName, (u64, Timestamp)>,
    /// Sites of whose edits it was told that they are in doubt, and when.
    doubted: BTreeMap<SiteId, Timestamp>,
}

/// So long it is told that edits are in doubt, unless the site's clock is off still.
const DOUBT_TOLD: Duration = Duration::from_secs(15 * 60);

/// Decides on what sites change in shared tables, until the node stops. Much of that takes its
/// time; nothing else waits for it.
pub async fn run(publisher: Arc<Publisher>) {
    let (mut timer, mut seen) = (rollcall_runtime::every(LOOK_EVERY), Seen::default());
    loop {
        tokio::select! {
            () = publisher.registry.stop.cancelled() => return,
            // Whether this node acts is looked at when the time has come: as a condition of waiting
            // it would be for once and all.
            _ = timer.tick() => {
                if publisher.registry.is_acting() {
                    look(&publisher, &mut seen).await;
                }
            }
        }
    }
}

/// Decides on what sites changed since, in every shared table.
pub(crate) async fn look(publisher: &Arc<Publisher>, seen: &mut Seen) {
    for (name, known) in publisher.tables.all() {
        // Where sharing has ended, edits that were made before still come.
        if known.definition().shared.is_none() && !known.was_shared() {
            continue;
        }
        let looked = look_at(publisher, &name, seen).await;
        publisher.registry.health.note(format!("decide on edits of {name}"), &looked);
        if looked.is_err() {
            // What was looked at last may not have been decided on.
            seen.tables.remove(&name);
        }
    }
    let now = publisher.registry.now();
    let over = seen.doubted.extract_if(.., |_, told| now.since(*told) >= DOUBT_TOLD);
    for (site, _) in over {
        // If its clock is off still, its next beacon says so again.
        publisher.registry.record_derived(&site, Heard::Condition(Condition::Clock, None));
    }
}

async fn look_at(publisher: &Arc<Publisher>, name: &TableName, seen: &mut Seen) -> Result<(), HqError> {
    let edits_table: TableName = beside(name, EDITS_SUFFIX)?;
    let Some(table) = publisher.registry.lake.table(&edits_table) else { return Ok(()) };
    let snapshot = table.snapshot();
    let version = snapshot.version();
    let before = seen.tables.get(name).copied();
    if before.is_some_and(|(known, _)| known == version) {
        return Ok(());
    }
    let since = before.map(|(_, heard)| Timestamp::from_micros(heard.as_micros() - LATE.as_micros() as i64));
    let known = publisher.tables.get(name).ok_or(HqError::Outdated)?;
    let columns = known.image.columns.clone();
    let undecided = Undecided::read(publisher, &known, &edits_table, since).await?;
    let mut heard = undecided.newest;
    if let Some(oldest) = undecided.oldest {
        let mut edits = Edits::read(publisher, &edits_table, &columns, Timestamp::from_micros(oldest)).await?;
        // While a site states its edits anew, some of them come behind later ones.
        let roster = publisher.registry.roster.all();
        let is_whole = |site: &SiteId, epoch: Epoch| {
            let cursor = roster.get(site).and_then(|record| snapshot.cursor(SiteNumber(record.number), epoch));
            cursor.is_some_and(|cursor| cursor.floor > Seq(0) && cursor.floor == cursor.begin)
        };
        let is_out = |site: &SiteId, epoch: Epoch| roster.contains_key(site) && !is_whole(site, epoch);
        heard = edits.take_out(is_out)?.or(heard);
        edits.find_done(publisher, &known, &edits_table).await?;
        let mut pending: Vec<usize> = (0..edits.len()).collect();
        while !pending.is_empty() {
            pending = round(publisher, name, &edits, pending, &mut seen.doubted).await?;
        }
    }
    let heard = heard.map(Timestamp::from_micros).or(before.map(|(_, heard)| heard));
    seen.tables.insert(name.clone(), (version, heard.unwrap_or(Timestamp::from_micros(0))));
    Ok(())
}

/// Refuses to share a table whose names beside it are others', and to publish what has the name of
/// one beside a shared one.
pub fn check_names(publisher: &Publisher, request: &Request, before: Option<&Definition>) -> Result<(), HqError> {
    let refuse = |text: String| Err(HqError::Invalid(text));
    let (name, all) = (&request.table, definitions(&publisher.registry.lake.state().view()));
    let is_ours = request.to.as_deref() == Some(NOBODY) && request.by == HQ_SITE;
    if before.is_none()
        && !is_ours
        && let Some((of, _)) = stands_beside(name, &all).filter(|(_, definition)| definition.shared.is_some())
    {
        return refuse(format!("{name} is kept for what stands beside the shared table {of}; choose another name"));
    }
    if request.shared.flatten().is_none() || before.is_some_and(|before| before.shared.is_some()) {
        return Ok(());
    }
    let (edits, conflicts) = (beside(name, EDITS_SUFFIX)?, beside(name, CONFLICTS_SUFFIX)?);
    if all.contains_key(&edits) {
        return refuse(format!(
            "HQ publishes {edits}, where sites' edits of {name} would be; {name} needs another name"
        ));
    }
    let is_theirs = |table: &Table| table.snapshot().cursors().any(|(site, _, _)| site != SiteNumber::HQ);
    if publisher.registry.lake.table(&conflicts).is_some_and(|table| is_theirs(&table)) {
        return refuse(format!(
            "sites fill {conflicts}, where conflicts in {name} would be; {name} needs another name"
        ));
    }
    Ok(())
}

/// Refuses columns of a shared table that those beside it need for themselves.
pub fn check_columns(shape: &Schema) -> Result<(), HqError> {
    let reserved = shape.fields().iter().find(|field| RESERVED_COLUMNS.contains(&field.name().as_str()));
    reserved.map_or(Ok(()), |field| {
        Err(HqError::Invalid(format!("a column of a shared table cannot be called {}; rename it", field.name())))
    })
}

/// Which rows are wider than may be published: one must fit a message to a site, however it is
/// encoded.
pub fn too_wide(rows: &RecordBatch) -> Result<Vec<bool>, HqError> {
    if rows.num_columns() == 0 {
        return Ok(vec![false; rows.num_rows()]);
    }
    let names: Vec<String> = rows.schema_ref().fields().iter().map(|field| field.name().clone()).collect();
    let bytes = image::row_bytes(rows, &names).map_err(failed)?;
    Ok(bytes.iter().map(|bytes| bytes.len() > ROW_BYTES_MAX).collect())
}

/// Through which of a site's edits HQ has decided, in one life of its journal.
struct Through {
    site: SiteId,
    /// Before this round.
    before: u64,
    /// After it.
    after: u64,
}

/// Which edits a round decided on.
struct Sorted {
    /// How far it came with each site and life, where it came further.
    through: BTreeMap<(SiteNumber, Epoch), Through>,
    /// Those that it leaves to the next round.
    left: Vec<usize>,
    /// How many it decided on.
    count: u64,
}

/// Decides on the first of the pending edits, commits what comes of it, and tells of conflicts.
/// Returns those that are left.
async fn round(
    publisher: &Arc<Publisher>,
    name: &TableName,
    edits: &Edits,
    mut pending: Vec<usize>,
    doubted: &mut BTreeMap<SiteId, Timestamp>,
) -> Result<Vec<usize>, HqError> {
    publisher.registry.lake.follow().await?;
    refresh(publisher).await;
    let known = publisher.tables.get(name).ok_or(HqError::Outdated)?;
    if known.image.columns.len() != edits.rows.num_columns() {
        // It got a column meanwhile.
        return Err(HqError::Outdated);
    }
    let roster = publisher.registry.roster.all();
    let mut decided = Decided::new(&known, edits)?;
    let rest = pending.split_off(pending.len().min(ROUND_MAX));
    decided.read_versions(publisher, name, &pending).await?;
    let Sorted { through, mut left, count } = decide_in_order(&known, &roster, edits, pending, &mut decided)?;
    left.extend(rest);
    if through.is_empty() {
        return Ok(left);
    }
    if let Some(conflicts) = decided.conflicts()? {
        tell_conflicts(publisher, name, conflicts).await?;
    }
    let _one = publisher.tables.publishing.lock().await;
    let now = publisher.registry.now();
    let previous = known.image.version;
    let published = commit(publisher, &known, &decided, through, now).await?;
    if let Some((version, counts)) = published
        && let Err(error) = note_edits(publisher, name, previous, version, counts).await
    {
        // The rows are there; that they are is noted later.
        tracing::warn!(table = %name, %error, "a version that sites' edits made is not noted yet");
    }
    for (site, count) in decided.doubtful() {
        tell_doubt(publisher, name, site, count);
        doubted.insert(site.clone(), now);
    }
    tracing::info!(table = %name, edits = count, conflicts = decided.losses.len(), "sites' edits are decided on");
    refresh(publisher).await;
    Ok(left)
}

/// Decides on edits, each site's in the order of their numbers. Where a row is changed by two
/// sites, what one of them did must be a version before the other's is decided on: that site's
/// edits go to the next round from there on.
fn decide_in_order(
    known: &Known,
    roster: &Sites,
    edits: &Edits,
    pending: Vec<usize>,
    decided: &mut Decided<'_>,
) -> Result<Sorted, HqError> {
    let rule = known.definition().shared;
    let mut through: BTreeMap<(SiteNumber, Epoch), Through> = BTreeMap::new();
    let (mut left, mut deferred, mut count) = (Vec::new(), HashSet::new(), 0_u64);
    for edit in pending {
        let (site, epoch, number) = (&edits.sites[edit], edits.epochs[edit], edits.numbers[edit]);
        let Some(record) = roster.get(site) else { continue };
        if deferred.contains(&(site, epoch)) {
            left.push(edit);
            continue;
        }
        let of_site = through.entry((SiteNumber(record.number), epoch)).or_insert_with(|| {
            let before = known.decided(SiteNumber(record.number), epoch);
            Through { site: site.clone(), before, after: before }
        });
        if number > of_site.after {
            decided.note_audience(site, record)?;
            if !decided.take(rule, edit) {
                deferred.insert((site, epoch));
                left.push(edit);
                continue;
            }
            of_site.after = number;
            count += 1;
        }
    }
    through.retain(|_, of_site| of_site.before != of_site.after);
    Ok(Sorted { through, left, count })
}

/// Commits the rows that change, if any, together with how far HQ has decided. Returns the version
/// that the rows are.
async fn commit(
    publisher: &Publisher,
    known: &Known,
    decided: &Decided<'_>,
    through: BTreeMap<(SiteNumber, Epoch), Through>,
    now: Timestamp,
) -> Result<Option<(Seq, Counts)>, HqError> {
    let table = || publisher.registry.lake.table(&known.name).ok_or(HqError::Outdated);
    let part = |site, site_id, epoch, previous, last, rows| Part {
        site,
        site_id,
        epoch,
        previous,
        last,
        hash: ChainHash::default(),
        marks: Vec::new(),
        rows,
        received_at: now,
        whole: true,
    };
    let previous = known.image.version;
    let (mut parts, mut published) = (Vec::new(), None);
    if let Some((rows, counts)) = decided.rows(previous, now)? {
        let mut conformed = Conformed::empty();
        (conformed.rows, conformed.new_columns) = (rows, new_columns(table()?.as_ref()));
        let hq = SiteId::new(HQ_SITE).map_err(|error| HqError::Invalid(error.to_string()))?;
        let last = Seq(previous.0 + counts.changes());
        published = Some((last, counts));
        parts.push(part(SiteNumber::HQ, hq, HQ_EPOCH, previous, last, conformed));
    }
    for ((number, epoch), Through { site, before, after }) in through {
        parts.push(part(number, site, epoch, Seq(before), Seq(after), Conformed::empty()));
    }
    let appended = table()?.append(Arc::new(parts)).await?;
    if appended.outcomes.iter().any(|outcome| matches!(outcome, PartOutcome::Gap { .. })) {
        return Err(HqError::Outdated);
    }
    Ok(published)
}

/// An edit that is in conflict with another may have won or lost by a clock that was wrong.
fn tell_doubt(publisher: &Publisher, name: &TableName, site: &SiteId, count: usize) {
    let text = format!(
        "{count} edits of {name} were made while the clock of {site} was wrong, HQ does not know by how much, and count as made when \
         that can have been first: SELECT * FROM {name}{CONFLICTS_SUFFIX} WHERE {EDIT_IN_DOUBT}"
    );
    tracing::warn!(%site, table = %name, count, "edits are in conflict that were made by a wrong clock");
    publisher.registry.record_derived(site, Heard::Condition(Condition::Clock, Some(text)));
}

/// The column that says who made a version, if the table has it not yet.
pub fn new_columns(table: &Table) -> Vec<Column> {
    match table.snapshot().schema().column(ORIGIN) {
        Some(_) => Vec::new(),
        None => vec![Column::new(ORIGIN, ColumnType::String)],
    }
}

/// Keeps what lost, in a table for nobody but HQ. Told twice it is there once.
async fn tell_conflicts(publisher: &Arc<Publisher>, name: &TableName, rows: RecordBatch) -> Result<(), HqError> {
    let request = Request {
        table: beside(name, CONFLICTS_SUFFIX)?,
        rows,
        gone: None,
        mode: Mode::Merge,
        key: ["edit_site", "edit_epoch", EDIT_NUMBER].map(str::to_owned).to_vec(),
        to: Some(NOBODY.to_owned()),
        mends: None,
        at_stores: AtStoresChange::default(),
        shared: None,
        by: HQ_SITE.to_owned(),
        note: format!("edits of {name} that lost"),
        dry_run: false,
        based_on: None,
        scheduled: None,
    };
    publish(publisher, request).await.map(drop)
}
