//! Tables that sites change as well as HQ: their edits are decided on here, by the acting node.
//!
//! A site's edits come as rows of an ordinary table of its own (`customers_edits`), exactly once. Those behind the number that was
//! decided on last are decided on in the order in which HQ heard of them ([`decide`]), and what comes of it is committed to
//! the shared table together with that number: the cursor of the site in it. So an edit counts once, whatever dies
//! when. What lost, or was put aside, goes to `customers_conflicts` before. See decision 0010.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, UInt8Array, UInt64Array,
    cast::AsArray,
    types::{Int32Type, Int64Type, TimestampMicrosecondType},
};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::{concat::concat_batches, filter::filter_record_batch, interleave::interleave};
use futures::TryStreamExt;
use rollcall_lake::{Column, ColumnType, Conformed, HQ_EPOCH, Part, PartOutcome};
use rollcall_query::{Extras, Question};
use rollcall_types::{
    ChainHash, Epoch, HQ_SITE, Seq, SiteId, SiteNumber, TableName, Timestamp, columns, describe,
    shared::{
        CONFLICTS_SUFFIX, Decision, EDIT_AT, EDIT_BASE, EDIT_CHANGED, EDIT_COLUMNS, EDIT_GONE, EDIT_NUMBER,
        EDITS_SUFFIX, RESERVED_COLUMNS, Rule, Version, decide, stamp,
    },
};

use rollcall_wire::FETCH_BYTES_MAX;

use super::{Definition, Known, Mode, NOBODY, Request, failed, image, publish, refresh};
use crate::{error::HqError, node::Shared, roster::SiteRecord};

/// The column of a shared table that says who made a version of a row, see [`Version`]. Sites do not get it.
pub(crate) const ORIGIN: &str = "_origin";
/// Edits decided on in one commit.
const ROUND_MAX: usize = 2_000;
/// A published row is at most so wide.
pub(crate) const ROW_BYTES_MAX: usize = FETCH_BYTES_MAX / 2;
/// A commit may become visible so much later than it was made.
const LATE: Duration = Duration::from_secs(20 * 60);

/// By shared table: how far its edits were looked at by this node: the log's version, and when HQ had heard of the newest.
pub(crate) type Seen = HashMap<TableName, (u64, Timestamp)>;

/// Decides on what sites changed since, in every shared table.
pub(crate) async fn look(shared: &Arc<Shared>, seen: &mut Seen) {
    for (name, known) in shared.published.all() {
        // Where sharing has ended, edits that were made before still come.
        if known.definition().shared.is_none() && !known.was_shared() {
            continue;
        }
        if let Err(error) = look_at(shared, &name, seen).await {
            // What was looked at last may not have been decided on.
            seen.remove(&name);
            tracing::error!(table = %name, error = %describe(&error), "edits of a shared table wait");
        }
    }
}

async fn look_at(shared: &Arc<Shared>, name: &TableName, seen: &mut Seen) -> Result<(), HqError> {
    let edits_table: TableName = beside(name, EDITS_SUFFIX)?;
    let Some(table) = shared.lake.table(&edits_table) else { return Ok(()) };
    let snapshot = table.snapshot();
    let version = snapshot.version();
    let before = seen.get(name).copied();
    if before.is_some_and(|(known, _)| known == version) {
        return Ok(());
    }
    let since = before.map(|(_, heard)| Timestamp::from_micros(heard.as_micros() - LATE.as_micros() as i64));
    let known = shared.published.get(name).ok_or(HqError::Outdated)?;
    let columns = known.image.columns.clone();
    let undecided = Undecided::read(shared, &known, &edits_table, since).await?;
    let mut heard = undecided.newest;
    if let Some(oldest) = undecided.oldest {
        let mut edits = Edits::read(shared, &edits_table, &columns, Timestamp::from_micros(oldest)).await?;
        // While a site states its edits anew, some of them come behind later ones.
        let roster = shared.roster.all();
        let is_whole = |site: &SiteId, epoch: Epoch| {
            let cursor = roster.get(site).and_then(|record| snapshot.cursor(SiteNumber(record.number), epoch));
            cursor.is_some_and(|cursor| cursor.floor > Seq(0) && cursor.floor == cursor.begin)
        };
        let is_out = |site: &SiteId, epoch: Epoch| roster.contains_key(site) && !is_whole(site, epoch);
        heard = edits.take_out(is_out)?.or(heard);
        edits.find_done(shared, &known, &edits_table).await?;
        let mut pending: Vec<usize> = (0..edits.len()).collect();
        while !pending.is_empty() {
            pending = round(shared, name, &edits, pending).await?;
        }
    }
    let heard = heard.map(Timestamp::from_micros).or(before.map(|(_, heard)| heard));
    seen.insert(name.clone(), (version, heard.unwrap_or(Timestamp::from_micros(0))));
    Ok(())
}

/// When HQ heard of edits, microseconds since 1970.
struct Undecided {
    /// Of the oldest that was not decided on; none if all were.
    oldest: Option<i64>,
    /// Of the newest of all.
    newest: Option<i64>,
}

impl Undecided {
    /// Of what HQ heard of since a time. Reads numbers alone: most edits are old and decided on.
    async fn read(
        shared: &Shared,
        known: &Known,
        table: &TableName,
        since: Option<Timestamp>,
    ) -> Result<Self, HqError> {
        let when = since.map_or(String::new(), |since| format!(" AND _received_at >= TIMESTAMP '{since}'"));
        let sql = format!(
            "SELECT _site, _epoch, {EDIT_NUMBER}, _received_at FROM history.\"{table}\" WHERE _op <> 'D'{when}"
        );
        let rows = select(shared, &sql).await?;
        let sites = cast(&rows, "_site", &DataType::Utf8)?;
        let (epochs, numbers) = (longs(&rows, "_epoch")?, longs(&rows, EDIT_NUMBER)?);
        let times = cast(&rows, "_received_at", &ColumnType::Timestamp.arrow())?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let roster = shared.roster.all();
        let mut decided: HashMap<(&str, i64), Option<u64>> = HashMap::new();
        let mut oldest: Option<i64> = None;
        for (row, site) in sites.as_string::<i32>().iter().enumerate() {
            let (site, epoch) = (site.unwrap_or_default(), epochs.value(row));
            let decided = decided.entry((site, epoch)).or_insert_with(|| {
                let record = site.parse::<SiteId>().ok().and_then(|site| roster.get(&site))?;
                Some(known.decided(SiteNumber(record.number), Epoch(epoch.unsigned_abs() as u32)))
            });
            // Nobody is told what became of the edits of a site that is not on the roll.
            if decided.is_some_and(|decided| numbers.value(row).unsigned_abs() > decided) {
                oldest = Some(oldest.map_or(times.value(row), |oldest| oldest.min(times.value(row))));
            }
        }
        Ok(Self { oldest, newest: times.values().iter().copied().max() })
    }
}

fn beside(name: &TableName, suffix: &str) -> Result<TableName, HqError> {
    TableName::new(&format!("{name}{suffix}")).map_err(|error| HqError::Invalid(error.to_string()))
}

/// Refuses to share a table whose names beside it are others', and to publish what has the name of one beside a shared one.
pub(crate) fn check_names(shared: &Shared, request: &Request, before: Option<&Definition>) -> Result<(), HqError> {
    let refuse = |text: String| Err(HqError::Invalid(text));
    let (name, all) = (&request.table, super::definitions(&shared.lake.state().view()));
    let is_ours = request.to.as_deref() == Some(NOBODY) && request.by == HQ_SITE;
    if before.is_none() && !is_ours {
        let stem = |suffix| name.as_str().strip_suffix(suffix);
        let stem = [EDITS_SUFFIX, CONFLICTS_SUFFIX].into_iter().find_map(stem);
        let of = stem.and_then(|stem| all.get_key_value(&stem.parse::<TableName>().ok()?));
        if let Some((of, _)) = of.filter(|(_, definition)| definition.shared.is_some()) {
            return refuse(format!("{name} is kept for what stands beside the shared table {of}; choose another name"));
        }
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
    let is_theirs =
        |table: &rollcall_lake::Table| table.snapshot().cursors().any(|(site, _, _)| site != SiteNumber::HQ);
    if shared.lake.table(&conflicts).is_some_and(|table| is_theirs(&table)) {
        return refuse(format!(
            "sites fill {conflicts}, where conflicts in {name} would be; {name} needs another name"
        ));
    }
    Ok(())
}

/// Refuses columns of a shared table that those beside it need for themselves.
pub(crate) fn check_columns(shape: &Schema) -> Result<(), HqError> {
    let reserved = shape.fields().iter().find(|field| RESERVED_COLUMNS.contains(&field.name().as_str()));
    reserved.map_or(Ok(()), |field| {
        Err(HqError::Invalid(format!("a column of a shared table cannot be called {}; rename it", field.name())))
    })
}

/// Edits in the order in which HQ heard of them.
struct Edits {
    /// The rows as the sites have them, in the shared table's columns.
    rows: RecordBatch,
    sites: Vec<SiteId>,
    epochs: Vec<Epoch>,
    numbers: Vec<u64>,
    bases: Vec<Seq>,
    /// Microseconds since 1970, on HQ's clock as far as that is known.
    clocks: Vec<i64>,
    heard: Vec<i64>,
    changed: Vec<Vec<String>>,
    gone: Vec<bool>,
    /// How many of the columns, the first ones, the store's table had.
    columns: Vec<usize>,
    /// It has a value that HQ's column cannot hold, or is wider than can be sent to sites.
    misfit: Vec<bool>,
    /// [`EDIT_AT`].
    made: Vec<i64>,
    /// They were decided on in an earlier epoch.
    is_done: Vec<bool>,
}

impl Edits {
    /// Those that HQ heard of since a time.
    async fn read(shared: &Shared, table: &TableName, columns: &[Column], since: Timestamp) -> Result<Self, HqError> {
        let sql = format!("SELECT * FROM history.\"{table}\" WHERE _op <> 'D' AND _received_at >= TIMESTAMP '{since}'");
        let rows = select(shared, &sql).await?;
        let count = rows.num_rows();
        let longs = |name: &str| longs(&rows, name);
        let texts = |name: &str| -> Result<StringArray, HqError> {
            Ok(cast(&rows, name, &DataType::Utf8)?.as_string().clone())
        };
        let times = |name: &str| -> Result<Vec<Option<i64>>, HqError> {
            let kind = ColumnType::Timestamp.arrow();
            Ok(cast(&rows, name, &kind)?.as_primitive::<TimestampMicrosecondType>().iter().collect())
        };
        let (sites, ops, changed) = (texts("_site")?, texts("_op")?, texts(EDIT_CHANGED)?);
        let epochs = cast(&rows, "_epoch", &DataType::Int32)?.as_primitive::<Int32Type>().clone();
        let (numbers, bases, gone) = (longs(EDIT_NUMBER)?, longs(EDIT_BASE)?, longs(EDIT_GONE)?);
        let known_columns = longs(EDIT_COLUMNS)?;
        let (by_journal, by_site, heard) = (times("_changed_at")?, longs(EDIT_AT)?, times("_received_at")?);
        let fields: Vec<Field> =
            columns.iter().map(|column| Field::new(&column.name, column.kind.arrow(), true)).collect();
        let arrays = columns.iter().map(|column| cast(&rows, &column.name, &column.kind.arrow()));
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        let clock = |row: usize| match (ops.value(row), by_journal[row]) {
            ("I" | "U", Some(micros)) => micros,
            // When it was stated is not when it was made.
            _ => by_site.value(row).saturating_mul(1000),
        };
        let split = |text: Option<&str>| {
            text.unwrap_or_default().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(failed)?;
        let is_too_wide = too_wide(&batch)?;
        let misfits = cast(&rows, columns::MISFIT, &DataType::Utf8)?;
        let misfit = misfits.as_string::<i32>().iter().zip(&is_too_wide).map(|(of, wide)| of.is_some() || *wide);
        Ok(Self {
            rows: batch,
            sites: sites
                .iter()
                .map(|id| SiteId::new(id.unwrap_or_default()).map_err(|error| HqError::Invalid(error.to_string())))
                .collect::<Result<_, _>>()?,
            epochs: epochs.values().iter().map(|epoch| Epoch(epoch.unsigned_abs())).collect(),
            numbers: numbers.values().iter().map(|number| number.unsigned_abs()).collect(),
            bases: bases.values().iter().map(|base| Seq(base.unsigned_abs())).collect(),
            clocks: (0..count).map(clock).collect(),
            heard: heard.into_iter().map(Option::unwrap_or_default).collect(),
            changed: changed.iter().map(split).collect(),
            gone: gone.values().iter().map(|gone| *gone != 0).collect(),
            columns: known_columns
                .iter()
                .map(|of| of.map_or(usize::MAX, |of| usize::try_from(of).unwrap_or_default()))
                .collect(),
            misfit: misfit.collect(),
            made: by_site.values().to_vec(),
            is_done: vec![false; count],
        })
    }

    fn len(&self) -> usize {
        self.sites.len()
    }

    /// Leaves out the edits of some sites, and puts the others in order: as HQ heard of them, but each site's by their
    /// numbers. Returns when HQ heard of the first that is left out.
    fn take_out(&mut self, is_out: impl Fn(&SiteId, Epoch) -> bool) -> Result<Option<i64>, HqError> {
        let mut whole: HashMap<(&SiteId, Epoch), bool> = HashMap::new();
        for (site, epoch) in self.sites.iter().zip(&self.epochs) {
            whole.entry((site, *epoch)).or_insert_with(|| !is_out(site, *epoch));
        }
        let is_in = |row: &usize| whole[&(&self.sites[*row], self.epochs[*row])];
        let left_out = (0..self.len()).filter(|row| !is_in(row)).map(|row| self.heard[row]).min();
        let mut order: Vec<usize> = (0..self.len()).filter(is_in).collect();
        let of_site = |row: usize| (&self.sites[row], self.epochs[row], self.numbers[row]);
        order.sort_by_key(|row| of_site(*row));
        // One that was stated behind later ones counts as heard with them.
        let mut heard = self.heard.clone();
        for pair in order.windows(2).rev() {
            if of_site(pair[0]).0 == of_site(pair[1]).0 && of_site(pair[0]).1 == of_site(pair[1]).1 {
                heard[pair[0]] = heard[pair[0]].min(heard[pair[1]]);
            }
        }
        order.sort_by_key(|row| (heard[*row], of_site(*row)));
        fn pick<T: Clone>(from: &[T], order: &[usize]) -> Vec<T> {
            order.iter().map(|row| from[*row].clone()).collect()
        }
        let rows: UInt64Array = order.iter().map(|row| Some(*row as u64)).collect();
        *self = Self {
            rows: arrow_select::take::take_record_batch(&self.rows, &rows).map_err(failed)?,
            sites: pick(&self.sites, &order),
            epochs: pick(&self.epochs, &order),
            numbers: pick(&self.numbers, &order),
            bases: pick(&self.bases, &order),
            clocks: pick(&self.clocks, &order),
            heard: pick(&self.heard, &order),
            changed: pick(&self.changed, &order),
            gone: pick(&self.gone, &order),
            columns: pick(&self.columns, &order),
            misfit: pick(&self.misfit, &order),
            made: pick(&self.made, &order),
            is_done: pick(&self.is_done, &order),
        };
        Ok(left_out)
    }

    /// A site that begins a new epoch sends anew what it has; some of it was decided on in the old one.
    async fn find_done(&mut self, shared: &Shared, known: &Known, table: &TableName) -> Result<(), HqError> {
        let is_old = |row: usize| self.epochs[row] > Epoch(1);
        if !(0..self.len()).any(is_old) {
            return Ok(());
        }
        let sql = format!("SELECT _site, _epoch, {EDIT_NUMBER}, {EDIT_AT} FROM history.\"{table}\" WHERE _op <> 'D'");
        let rows = select(shared, &sql).await?;
        let sites: StringArray = cast(&rows, "_site", &DataType::Utf8)?.as_string().clone();
        let (epochs, numbers, at) = (longs(&rows, "_epoch")?, longs(&rows, EDIT_NUMBER)?, longs(&rows, EDIT_AT)?);
        let roster = shared.roster.all();
        let mut decided_on: HashMap<(&str, u64, i64), Epoch> = HashMap::new();
        for row in 0..rows.num_rows() {
            let (site, epoch) = (sites.value(row), Epoch(epochs.value(row) as u32));
            let Some(record) = site.parse::<SiteId>().ok().and_then(|site| roster.get(&site)) else { continue };
            let number = numbers.value(row).unsigned_abs();
            if number <= known.decided(SiteNumber(record.number), epoch) {
                let first = decided_on.entry((site, number, at.value(row))).or_insert(epoch);
                *first = (*first).min(epoch);
            }
        }
        self.is_done = (0..self.len())
            .map(|row| {
                let of = (self.sites[row].as_str(), self.numbers[row], self.made[row]);
                decided_on.get(&of).is_some_and(|epoch| *epoch < self.epochs[row])
            })
            .collect();
        Ok(())
    }
}

async fn select(shared: &Shared, sql: &str) -> Result<RecordBatch, HqError> {
    let planned = shared.engine.plan(Question::Text(sql), None, Extras::default()).await?;
    let stream = planned.stream().await?;
    let schema = stream.schema();
    let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(|error| HqError::Query(error.into()))?;
    concat_batches(&schema, &batches).map_err(failed)
}

fn longs(rows: &RecordBatch, name: &str) -> Result<Int64Array, HqError> {
    Ok(cast(rows, name, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Which rows are wider than may be published: one must fit a message to a site, however it is encoded.
pub(crate) fn too_wide(rows: &RecordBatch) -> Result<Vec<bool>, HqError> {
    if rows.num_columns() == 0 {
        return Ok(vec![false; rows.num_rows()]);
    }
    let names: Vec<String> = rows.schema_ref().fields().iter().map(|field| field.name().clone()).collect();
    let bytes = image::row_bytes(rows, &names).map_err(failed)?;
    Ok(bytes.iter().map(|bytes| bytes.len() > ROW_BYTES_MAX).collect())
}

/// A column in another type; nulls if it is not there.
fn cast(rows: &RecordBatch, name: &str, kind: &DataType) -> Result<ArrayRef, HqError> {
    match rows.column_by_name(name) {
        Some(array) => cast_with_options(array, kind, &CastOptions::default()).map_err(failed),
        None => Ok(arrow_array::new_null_array(kind, rows.num_rows())),
    }
}

/// Where a value comes from: 0, a row of HQ's; 1, an edit.
type Source = (usize, usize);

/// A row that this round changes.
struct Changed {
    /// Where each column comes from; none if the row goes.
    row: Option<Vec<Source>>,
    key: Source,
    version: Version,
    by: SiteId,
}

/// A version of a row that was put aside.
struct Loss {
    edit: usize,
    kept: String,
    lost: String,
    columns: Vec<String>,
    /// The row as it was in the version that lost; none if that is the edit.
    row: Option<Vec<Source>>,
}

/// Decides on the first of the pending edits. Where a row is changed by two sites, what one of them did must be a version before
/// the other's is decided on: that site's go to the next round. Returns those that are left.
async fn round(
    shared: &Arc<Shared>,
    name: &TableName,
    edits: &Edits,
    mut pending: Vec<usize>,
) -> Result<Vec<usize>, HqError> {
    shared.lake.follow().await?;
    refresh(shared).await;
    let known = shared.published.get(name).ok_or(HqError::Outdated)?;
    if known.image.columns.len() != edits.rows.num_columns() {
        // It got a column meanwhile.
        return Err(HqError::Outdated);
    }
    let roster = shared.roster.all();
    let rule = known.definition().shared;
    let mut numbers: BTreeMap<(SiteNumber, Epoch), (SiteId, u64, u64)> = BTreeMap::new();
    let mut decided_on = Decided::new(&known, edits)?;
    let rest = pending.split_off(pending.len().min(ROUND_MAX));
    decided_on.read_versions(shared, name, &pending).await?;
    let (mut left, mut deferred, mut count) = (Vec::new(), HashSet::new(), 0_u64);
    for edit in pending {
        let (site, epoch, number) = (&edits.sites[edit], edits.epochs[edit], edits.numbers[edit]);
        let Some(record) = roster.get(site) else { continue };
        if deferred.contains(&(site, epoch)) {
            left.push(edit);
            continue;
        }
        let cursor = numbers.entry((SiteNumber(record.number), epoch)).or_insert_with(|| {
            let before = known.decided(SiteNumber(record.number), epoch);
            (site.clone(), before, before)
        });
        if number > cursor.2 {
            decided_on.note_audience(site, record)?;
            if !decided_on.take(rule, edit)? {
                deferred.insert((site, epoch));
                left.push(edit);
                continue;
            }
            cursor.2 = number;
            count += 1;
        }
    }
    left.extend(rest);
    numbers.retain(|_, (_, before, after)| before != after);
    if numbers.is_empty() {
        return Ok(left);
    }
    if let Some(conflicts) = decided_on.conflicts()? {
        tell_conflicts(shared, name, conflicts).await?;
    }
    let _one = shared.published.publishing.lock().await;
    let now = shared.now();
    let previous = known.image.version;
    let mut parts = Vec::new();
    let part = |site, site_id, epoch, previous, last, rows, whole| Part {
        site,
        site_id,
        epoch,
        previous,
        last,
        hash: ChainHash::default(),
        marks: Vec::new(),
        rows,
        received_at: now,
        whole,
    };
    if let Some((rows, count)) = decided_on.rows(previous, now)? {
        let mut conformed = Conformed::empty();
        conformed.rows = rows;
        let table = shared.lake.table(name).ok_or(HqError::Outdated)?;
        conformed.new_columns = new_columns(&table);
        let hq = SiteId::new(HQ_SITE).map_err(|error| HqError::Invalid(error.to_string()))?;
        let last = Seq(previous.0 + count as u64);
        parts.push(part(SiteNumber::HQ, hq, HQ_EPOCH, previous, last, conformed, true));
    }
    for ((site, epoch), (id, before, after)) in numbers {
        parts.push(part(site, id, epoch, Seq(before), Seq(after), Conformed::empty(), true));
    }
    let table = shared.lake.table(name).ok_or(HqError::Outdated)?;
    let appended = table.append(Arc::new(parts)).await?;
    if appended.outcomes.iter().any(|outcome| matches!(outcome, PartOutcome::Gap { .. })) {
        return Err(HqError::Outdated);
    }
    tracing::info!(table = %name, edits = count, conflicts = decided_on.losses.len(), "sites' edits are decided on");
    refresh(shared).await;
    Ok(left)
}

/// The column that says who made a version, if the table has it not yet.
pub(crate) fn new_columns(table: &rollcall_lake::Table) -> Vec<Column> {
    match table.snapshot().schema().column(ORIGIN) {
        Some(_) => Vec::new(),
        None => vec![Column::new(ORIGIN, ColumnType::String)],
    }
}

/// What a round came to.
struct Decided<'a> {
    known: &'a Known,
    edits: &'a Edits,
    /// Of the edits, and of HQ's rows.
    keys: Vec<Box<[u8]>>,
    places: HashMap<Box<[u8]>, usize>,
    /// HQ's rows with the keys of edits, as in an image.
    rows: RecordBatch,
    /// Which of them are there, and by site, which are for it.
    live: BooleanArray,
    audiences: HashMap<SiteId, BooleanArray>,
    /// By key: what happened to the row, oldest first, as far as it matters.
    versions: HashMap<Box<[u8]>, Vec<(Seq, Version)>>,
    changed: HashMap<Box<[u8]>, Changed>,
    /// In the order in which they were changed first.
    order: Vec<Box<[u8]>>,
    losses: Vec<Loss>,
}

impl<'a> Decided<'a> {
    fn new(known: &'a Known, edits: &'a Edits) -> Result<Self, HqError> {
        let rows = known.image.rows();
        let key = &known.definition().key;
        let keys = image::row_bytes(&edits.rows, key).map_err(failed)?;
        let wanted: HashSet<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let there = image::row_bytes(rows, key).map_err(failed)?;
        let is_wanted: BooleanArray = there.iter().map(|key| Some(wanted.contains(key.as_ref()))).collect();
        let rows = filter_record_batch(rows, &is_wanted).map_err(failed)?;
        let there = there.into_iter().filter(|key| wanted.contains(key.as_ref()));
        let places = there.enumerate().map(|(place, key)| (key, place)).collect();
        Ok(Self {
            known,
            edits,
            keys,
            places,
            live: image::is_live(&rows),
            rows,
            audiences: HashMap::new(),
            versions: HashMap::new(),
            changed: HashMap::new(),
            order: Vec::new(),
            losses: Vec::new(),
        })
    }

    fn since(&self, place: usize) -> Seq {
        Seq(image::seqs(&self.rows).value(place).unsigned_abs())
    }

    /// The version that the editor knew. No site knows one that is not there: HQ was restored from a backup.
    fn base(&self, edit: usize) -> Seq {
        self.edits.bases[edit].min(self.known.image.version)
    }

    /// Notes which of HQ's rows are for a site.
    fn note_audience(&mut self, site: &SiteId, record: &SiteRecord) -> Result<(), HqError> {
        if !self.audiences.contains_key(site) {
            let mask = self.known.class_of(site, record)?.mask(&self.rows)?;
            self.audiences.insert(site.clone(), mask);
        }
        Ok(())
    }

    /// Reads what happened to the rows of edits: their newest version, and where an editor did not know that, what came
    /// after the one that he knew.
    async fn read_versions(&mut self, shared: &Shared, name: &TableName, of: &[usize]) -> Result<(), HqError> {
        let (mut newest, mut unknown_from) = (HashSet::new(), None);
        for edit in of.iter().copied() {
            let Some(place) = self.places.get(&self.keys[edit]) else { continue };
            let since = self.since(*place);
            newest.insert(since.0);
            if since > self.base(edit) {
                unknown_from = Some(unknown_from.map_or(self.base(edit), |from: Seq| from.min(self.base(edit))));
            }
        }
        if newest.is_empty() {
            return Ok(());
        }
        let listed = newest.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let unknown = unknown_from.map_or(String::new(), |from| format!(" OR _seq > {from}"));
        let key = &self.known.definition().key;
        let key_sql: Vec<String> = key.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        let has_origin =
            shared.lake.table(name).is_some_and(|table| table.snapshot().schema().column(ORIGIN).is_some());
        let sql = format!(
            "SELECT _seq, _op, _changed_at, {}, {} FROM history.\"{name}\" WHERE _site = '{HQ_SITE}'
             AND (_seq IN ({listed}){unknown}) ORDER BY _seq",
            if has_origin { ORIGIN.to_owned() } else { format!("CAST(NULL AS VARCHAR) AS {ORIGIN}") },
            key_sql.join(", ")
        );
        let rows = select(shared, &sql).await?;
        let kinds = self.known.image.columns.iter().filter(|column| key.contains(&column.name));
        let mut typed = Vec::new();
        for column in kinds {
            typed.push((column.name.clone(), cast(&rows, &column.name, &column.kind.arrow())?, true));
        }
        let typed = RecordBatch::try_from_iter_with_nullable(typed).map_err(failed)?;
        let keys = image::row_bytes(&typed, key).map_err(failed)?;
        let seqs = cast(&rows, columns::SEQ, &DataType::Int64)?;
        let (ops, origins) = (cast(&rows, "_op", &DataType::Utf8)?, cast(&rows, ORIGIN, &DataType::Utf8)?);
        let at = cast(&rows, "_changed_at", &ColumnType::Timestamp.arrow())?;
        let (seqs, at) = (seqs.as_primitive::<Int64Type>(), at.as_primitive::<TimestampMicrosecondType>());
        let (ops, origins) = (ops.as_string::<i32>(), origins.as_string::<i32>());
        let all: Vec<String> = self.known.image.columns.iter().map(|column| column.name.clone()).collect();
        for (row, key) in keys.into_iter().enumerate() {
            if !self.places.contains_key(&key) {
                continue;
            }
            let told = origins.is_valid(row).then(|| serde_json::from_str(origins.value(row)).ok()).flatten();
            // Published before the table was shared.
            let version = told.unwrap_or_else(|| Version {
                by: HQ_SITE.to_owned(),
                at: at.value(row),
                changed: all.clone(),
                gone: ops.value(row) == "D",
                restated: false,
            });
            self.versions.entry(key).or_default().push((Seq(seqs.value(row).unsigned_abs()), version));
        }
        Ok(())
    }

    fn has_no_key(&self, edit: usize) -> bool {
        let key = &self.known.definition().key;
        key.iter().any(|name| self.edits.rows.column_by_name(name).is_none_or(|column| column.is_null(edit)))
    }

    /// Decides on one edit; false if its row was changed by another site in this round. Without a rule it is put aside.
    fn take(&mut self, rule: Option<Rule>, edit: usize) -> Result<bool, HqError> {
        let (edits, key) = (self.edits, self.keys[edit].clone());
        if edits.is_done[edit] {
            return Ok(true);
        }
        let site = &edits.sites[edit];
        let before = self.changed.get(&key);
        if before.is_some_and(|before| before.by != *site) {
            return Ok(false);
        }
        let none = Vec::new();
        let versions = self.versions.get(&key).unwrap_or(&none);
        let base = self.base(edit);
        let is_known = |of: &&(Seq, Version)| of.0 <= base || of.1.by == site.as_str() || of.1.restated;
        let mut known_at = versions.iter().filter(is_known).map(|(_, of)| of.at).max();
        known_at = known_at.max(before.map(|before| before.version.at));
        let since: Vec<Version> = versions.iter().filter(|of| !is_known(of)).map(|(_, of)| of.clone()).collect();
        let mut version = Version {
            by: site.to_string(),
            at: stamp(edits.clocks[edit], edits.heard[edit], known_at),
            changed: edits.changed[edit].clone(),
            gone: edits.gone[edit],
            restated: false,
        };
        let width = edits.rows.num_columns();
        let place = self.places.get(&key).copied();
        let hqs = place.filter(|place| self.live.value(*place)).map(|place| vec![(0, place); width]);
        let now = match before {
            Some(before) => before.row.clone(),
            None => hqs.clone(),
        };
        let own = (!version.gone).then(|| vec![(1, edit); width]);
        let loss = |kept: &str, lost: &str, columns: Vec<String>, row| Loss {
            edit,
            kept: kept.to_owned(),
            lost: lost.to_owned(),
            columns,
            row,
        };
        let Some(rule) = rule else {
            self.losses.push(loss(HQ_SITE, site.as_str(), version.changed.clone(), None));
            return Ok(true);
        };
        let is_live = hqs.is_some();
        let is_for = place.is_none_or(|place| self.audiences.get(site).is_some_and(|mask| mask.value(place)));
        let newest = versions.last().cloned();
        if edits.misfit[edit] || self.has_no_key(edit) {
            self.losses.push(loss(HQ_SITE, site.as_str(), version.changed.clone(), None));
            if let (Some((_, newest)), true, None) = (newest, is_live && is_for, before) {
                // The row as HQ has it, once more: the site has another.
                version = Version { restated: true, ..newest };
                self.change(key, Changed { row: now, key: (1, edit), version, by: site.clone() });
            }
            return Ok(true);
        }
        if let (Some((seq, newest)), true, None) = (newest, is_live && !is_for, before)
            && newest.by != site.as_str()
            && seq <= base
        {
            // The site could not see the row that it would overwrite.
            self.losses.push(loss(&newest.by, site.as_str(), version.changed.clone(), None));
            return Ok(true);
        }
        let row = match decide(rule, &since, &version) {
            Decision::Taken { over: Some(over) } => {
                self.losses.push(loss(site.as_str(), &over, Vec::new(), Some(hqs.unwrap_or_default())));
                // Columns that the store's table had not are HQ's.
                match (own, now) {
                    (Some(own), Some(now)) => {
                        let had = edits.columns[edit].min(width);
                        Some(own[..had].iter().chain(&now[had..]).copied().collect())
                    }
                    (own, _) => own,
                }
            }
            // The site may not know all columns yet: what it did not change stays.
            Decision::Taken { over: None } => match (own, now) {
                (Some(_), Some(now)) => Some(self.with_columns(now, &version.changed, edit)),
                (own, _) => own,
            },
            Decision::Lost { to } => {
                self.losses.push(loss(&to, site.as_str(), version.changed.clone(), None));
                return Ok(true);
            }
            Decision::Partly { columns, lost, to } => {
                if let Some(to) = to {
                    self.losses.push(loss(&to, site.as_str(), lost, None));
                }
                if columns.is_empty() {
                    return Ok(true);
                }
                let row = now.unwrap_or_else(|| vec![(1, edit); width]);
                version.changed = columns;
                Some(self.with_columns(row, &version.changed, edit))
            }
        };
        self.change(key, Changed { row, key: (1, edit), version, by: site.clone() });
        Ok(true)
    }

    /// A row with some columns as an edit has them.
    fn with_columns(&self, mut row: Vec<Source>, names: &[String], edit: usize) -> Vec<Source> {
        for (source, column) in row.iter_mut().zip(&self.known.image.columns) {
            if names.contains(&column.name) {
                *source = (1, edit);
            }
        }
        row
    }

    fn change(&mut self, key: Box<[u8]>, mut changed: Changed) {
        match self.changed.get(&key) {
            Some(before) if before.version.restated => {}
            Some(before) => {
                let now = &mut changed.version.changed;
                let more: Vec<String> =
                    before.version.changed.iter().filter(|name| !now.contains(name)).cloned().collect();
                now.extend(more);
            }
            None => self.order.push(key.clone()),
        }
        self.changed.insert(key, changed);
    }

    /// The values of a column from where they come.
    fn gather(&self, column: usize, from: &[Option<Source>]) -> Result<ArrayRef, HqError> {
        let hqs = self.rows.column(image::OURS + column);
        let edits = self.edits.rows.column(column);
        let null = arrow_array::new_null_array(edits.data_type(), 1);
        let from: Vec<Source> = from.iter().map(|source| source.unwrap_or((2, 0))).collect();
        interleave(&[hqs.as_ref(), edits.as_ref(), null.as_ref()], &from).map_err(failed)
    }

    /// The versions that the shared table gets, and how many; none if nothing changes.
    fn rows(&self, previous: Seq, now: Timestamp) -> Result<Option<(RecordBatch, usize)>, HqError> {
        let (mut ops, mut picked, mut origins) = (Vec::new(), Vec::new(), Vec::new());
        for key in &self.order {
            let changed = &self.changed[key];
            let place = self.places.get(key);
            let is_there = place.is_some_and(|place| self.live.value(*place));
            match (&changed.row, place) {
                (None, _) if !is_there => continue,
                (None, _) => ops.push(b'D'),
                (Some(_), Some(_)) => ops.push(b'U'),
                (Some(_), None) => ops.push(b'I'),
            }
            picked.push(changed);
            origins.push(serde_json::to_string(&changed.version).unwrap_or_default());
        }
        if ops.is_empty() {
            return Ok(None);
        }
        let count = ops.len();
        let changed_at: ArrayRef = Arc::new(Int64Array::from(vec![now.as_micros(); count]));
        let mut given: Vec<(String, ArrayRef, bool)> = vec![
            (
                columns::SEQ.to_owned(),
                Arc::new(Int64Array::from_iter_values((1..=count as u64).map(|of| (previous.0 + of) as i64))),
                true,
            ),
            (columns::OP.to_owned(), Arc::new(UInt8Array::from(ops)), true),
            (
                columns::CHANGED_AT.to_owned(),
                arrow_cast::cast(&changed_at, &ColumnType::Timestamp.arrow()).map_err(failed)?,
                true,
            ),
        ];
        let key = &self.known.definition().key;
        for (index, column) in self.known.image.columns.iter().enumerate() {
            let from: Vec<Option<Source>> = picked
                .iter()
                .map(|changed| match &changed.row {
                    Some(row) => Some(row[index]),
                    None => key.contains(&column.name).then_some(changed.key),
                })
                .collect();
            given.push((column.name.clone(), self.gather(index, &from)?, true));
        }
        given.push((ORIGIN.to_owned(), Arc::new(StringArray::from(origins)), true));
        Ok(Some((RecordBatch::try_from_iter_with_nullable(given).map_err(failed)?, count)))
    }

    /// What was put aside, with the rows as they were in the versions that lost.
    fn conflicts(&self) -> Result<Option<RecordBatch>, HqError> {
        let (losses, edits) = (&self.losses, self.edits);
        if losses.is_empty() {
            return Ok(None);
        }
        let texts = |of: &dyn Fn(&Loss) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(losses.iter().map(of)))
        };
        let times: ArrayRef = Arc::new(Int64Array::from_iter_values(losses.iter().map(|loss| edits.clocks[loss.edit])));
        let mut given: Vec<(String, ArrayRef, bool)> = vec![
            ("edit_site".to_owned(), texts(&|loss| edits.sites[loss.edit].to_string()), true),
            (
                "edit_epoch".to_owned(),
                Arc::new(Int32Array::from_iter_values(losses.iter().map(|loss| edits.epochs[loss.edit].0 as i32))),
                true,
            ),
            (
                EDIT_NUMBER.to_owned(),
                Arc::new(Int64Array::from_iter_values(losses.iter().map(|loss| edits.numbers[loss.edit] as i64))),
                true,
            ),
            ("edited_at".to_owned(), arrow_cast::cast(&times, &ColumnType::Timestamp.arrow()).map_err(failed)?, true),
            ("kept".to_owned(), texts(&|loss| loss.kept.clone()), true),
            ("lost".to_owned(), texts(&|loss| loss.lost.clone()), true),
            ("lost_columns".to_owned(), texts(&|loss| loss.columns.join(",")), true),
            (
                "lost_deletion".to_owned(),
                Arc::new(BooleanArray::from_iter(
                    losses.iter().map(|loss| Some(loss.row.as_ref().map_or(edits.gone[loss.edit], Vec::is_empty))),
                )),
                true,
            ),
        ];
        let key = &self.known.definition().key;
        for (index, column) in self.known.image.columns.iter().enumerate() {
            let from: Vec<Option<Source>> = losses
                .iter()
                .map(|loss| match &loss.row {
                    Some(row) if !row.is_empty() => Some(row[index]),
                    None if !edits.gone[loss.edit] => Some((1, loss.edit)),
                    _ => key.contains(&column.name).then_some((1, loss.edit)),
                })
                .collect();
            given.push((column.name.clone(), self.gather(index, &from)?, true));
        }
        Ok(Some(RecordBatch::try_from_iter_with_nullable(given).map_err(failed)?))
    }
}

/// Keeps what lost, in a table for nobody but HQ. Told twice it is there once.
async fn tell_conflicts(shared: &Arc<Shared>, name: &TableName, rows: RecordBatch) -> Result<(), HqError> {
    let request = Request {
        table: beside(name, CONFLICTS_SUFFIX)?,
        rows,
        gone: None,
        mode: Mode::Merge,
        key: ["edit_site", "edit_epoch", EDIT_NUMBER].map(str::to_owned).to_vec(),
        to: Some(NOBODY.to_owned()),
        mends: None,
        shared: None,
        by: HQ_SITE.to_owned(),
        note: format!("edits of {name} that lost"),
        dry_run: false,
        based_on: None,
    };
    publish(shared, request).await.map(drop)
}
