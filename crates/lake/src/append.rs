//! Exactly once: parts of sites' batches become rows, and the sites' cursors move, in one commit.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    builder::StringBuilder,
    cast::AsArray,
    types::{Int64Type, UInt8Type},
};
use rollcall_types::{ChainHash, Epoch, Seq, SiteId, SiteNumber, Timestamp, columns};

use crate::{
    action::Action,
    conform::{Conformed, MarkKind, PartMark, check_key, recast},
    data_file::{self, Effort},
    error::{Doing, LakeError},
    schema::{TableSchema, our_columns},
    snapshot::{Cursor, CursorField, DataFile, Snapshot, meta_data_for},
    table::{Put, Table},
};

/// How often a commit goes after the next free version before it gives up.
pub(crate) const COMMIT_ATTEMPTS: usize = 100;

/// One table's share of a site's batch.
#[derive(Debug, Clone)]
pub struct Part {
    /// The site's number: names it in cursors.
    pub site: SiteNumber,
    /// The site's id: names it in rows.
    pub site_id: SiteId,
    /// The life of the journal.
    pub epoch: Epoch,
    /// The part continues from here.
    pub previous: Seq,
    /// The end of the batch: where the cursor stands after it.
    pub last: Seq,
    /// The chain after the batch.
    pub hash: ChainHash,
    /// Loads begun or completed.
    pub marks: Vec<PartMark>,
    /// The rows, in journal order.
    pub rows: Conformed,
    /// When HQ received the batch.
    pub received_at: Timestamp,
    /// Taken whole or not at all: a table that stands further than `previous` makes it a gap. Then
    /// nothing that is appended with it is taken either.
    pub whole: bool,
}

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartOutcome {
    /// Its rows are in the table: these ones by this commit, others by earlier ones.
    Durable {
        /// Rows added now.
        rows: usize,
    },
    /// It does not continue where the table stands; nothing of it was taken.
    Gap {
        /// Where the table stands.
        cursor: Seq,
    },
}

/// What an append did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// One per part, in the order given.
    pub outcomes: Vec<PartOutcome>,
    /// The version that made them durable.
    pub version: u64,
}

/// What is to be committed on top of a snapshot.
struct Plan {
    outcomes: Vec<PartOutcome>,
    cursors: BTreeMap<(SiteNumber, Epoch), (Cursor, Cursor)>,
    schema: Option<TableSchema>,
    batches: Vec<RecordBatch>,
}

/// A part, and those of its rows that are new.
type Accepted<'a> = (&'a Part, Cow<'a, RecordBatch>);

impl Table {
    /// Commits `parts`, each exactly once, whoever else writes the table. When this returns, the
    /// outcomes are durable.
    ///
    /// Cancel-safe in the sense that a commit either happened or did not; the next append finds
    /// out.
    pub async fn append(self: &Arc<Self>, parts: Arc<Vec<Part>>) -> Result<Appended, LakeError> {
        self.append_as(None, parts).await
    }

    /// [`Self::append`], and the same commit says what it was: [`Snapshot::done_as`] knows it by
    /// this name from then on. Names may not have a `.` in them.
    pub async fn append_as(self: &Arc<Self>, name: Option<&str>, parts: Arc<Vec<Part>>) -> Result<Appended, LakeError> {
        self.must_be_sound()?;
        let _committing = self.committing.lock().await;
        let mut base = self.snapshot();
        let mut prepared: Option<(Plan, Option<DataFile>)> = None;
        for _ in 0..COMMIT_ATTEMPTS {
            let (plan, file) = match prepared.take() {
                Some(prepared) => prepared,
                None => self.prepare(&base, &parts).await?,
            };
            let mut actions = commit_actions(&base, &plan, file.as_ref())?;
            if actions.is_empty() {
                return Ok(Appended { outcomes: plan.outcomes, version: base.version() });
            }
            if let Some(name) = name {
                let last = parts.iter().map(|part| part.last.0).max().unwrap_or_default();
                actions.push(Action::txn(name.to_owned(), i64::try_from(last).unwrap_or(i64::MAX)));
            }
            match self.put_entry(&base, "WRITE", actions).await? {
                Put::Won => {
                    self.checkpoint_if_due();
                    // Freeing thousands of small batches takes milliseconds for which nobody should
                    // wait.
                    rollcall_runtime::blocking(move || drop(parts));
                    return Ok(Appended { outcomes: plan.outcomes, version: base.version() + 1 });
                }
                Put::Lost(winner) => {
                    base = self.snapshot();
                    if !touches(&winner, &plan) {
                        prepared = Some((plan, file));
                    }
                    // Otherwise the file already written is no part of any version; vacuum removes
                    // it.
                }
                Put::Slept => base = self.snapshot(),
            }
        }
        Err(LakeError::Contention(COMMIT_ATTEMPTS))
    }

    async fn prepare(
        self: &Arc<Self>,
        base: &Snapshot,
        parts: &Arc<Vec<Part>>,
    ) -> Result<(Plan, Option<DataFile>), LakeError> {
        let (base, parts) = (base.clone(), parts.clone());
        let planned = rollcall_runtime::blocking(move || {
            let plan = Plan::new(&base, &parts)?;
            if plan.batches.is_empty() {
                return Ok::<_, LakeError>((plan, None));
            }
            let schema = plan.schema.as_ref().unwrap_or(base.schema());
            let now_ms = rollcall_runtime::now().as_millis();
            let written = data_file::write(data_file::new_path(), schema, &plan.batches, Effort::Ingest, now_ms)?;
            Ok((plan, Some(written)))
        });
        let (plan, written) = planned.await.doing("preparing a commit")??;
        let Some((bytes, file)) = written else { return Ok((plan, None)) };
        self.put_data_file(bytes, &file).await?;
        Ok((plan, Some(file)))
    }
}

/// Whether a winner's commit changed what the plan was made on: one of its cursors, or the schema.
fn touches(winner: &[Action], plan: &Plan) -> bool {
    let ids: std::collections::HashSet<String> =
        plan.cursors.keys().map(|(site, epoch)| CursorField::Seq.app_id(*site, *epoch)).collect();
    winner
        .iter()
        .any(|action| action.meta_data.is_some() || action.txn.as_ref().is_some_and(|txn| ids.contains(&txn.app_id)))
}

fn commit_actions(base: &Snapshot, plan: &Plan, file: Option<&DataFile>) -> Result<Vec<Action>, LakeError> {
    let mut actions = Vec::with_capacity(2 * plan.cursors.len() + 2);
    if let Some(schema) = &plan.schema {
        let now_ms = rollcall_runtime::now().as_millis();
        actions.push(Action::meta_data(meta_data_for(schema, Some(&base.meta_data), now_ms)));
    }
    if let Some(file) = file {
        actions.push(Action::add(file.to_add(true)?));
    }
    for ((site, epoch), (before, after)) in &plan.cursors {
        assert!(after.seq >= before.seq, "a cursor never goes back");
        let mut txn = |field: CursorField, before: u64, after: u64| {
            if before != after {
                actions.push(Action::txn(field.app_id(*site, *epoch), i64::try_from(after).unwrap_or(i64::MAX)));
            }
        };
        txn(CursorField::Seq, before.seq.0, after.seq.0);
        txn(CursorField::Hash, before.hash.get(), after.hash.get());
        txn(CursorField::Begin, before.begin.0, after.begin.0);
        txn(CursorField::Floor, before.floor.0, after.floor.0);
        txn(CursorField::Exact, before.exact.0, after.exact.0);
    }
    Ok(actions)
}

impl Plan {
    fn new(base: &Snapshot, parts: &[Part]) -> Result<Self, LakeError> {
        let mut plan = Self {
            outcomes: Vec::with_capacity(parts.len()),
            cursors: BTreeMap::new(),
            schema: None,
            batches: Vec::new(),
        };
        let mut accepted: Vec<Accepted<'_>> = Vec::new();
        // They were conformed to what was known of the table then; its key may have been decided
        // since, by another store.
        let keys = parts.iter().map(|part| part.rows.key.as_slice());
        let mut key = base.schema().key.as_slice();
        for of_site in keys {
            check_key(of_site, key)?;
            key = if key.is_empty() { of_site } else { key };
        }
        for part in parts {
            let outcome = plan.take(base, part, &mut accepted)?;
            plan.outcomes.push(outcome);
        }
        let is_gap = |outcome: &PartOutcome| matches!(outcome, PartOutcome::Gap { .. });
        if parts.iter().zip(&plan.outcomes).any(|(part, outcome)| part.whole && is_gap(outcome)) {
            for (part, outcome) in parts.iter().zip(&mut plan.outcomes).filter(|(_, outcome)| !is_gap(outcome)) {
                *outcome = PartOutcome::Gap { cursor: base.cursor(part.site, part.epoch).unwrap_or_default().seq };
            }
            plan.cursors.clear();
            accepted.clear();
        }
        let new_columns = accepted.iter().flat_map(|(part, _)| &part.rows.new_columns);
        plan.schema = base.schema().merged(new_columns);
        let key = accepted.iter().map(|(part, _)| &part.rows.key).find(|key| !key.is_empty());
        if let Some(key) = key.filter(|_| base.schema().key.is_empty()) {
            // The table was made before any row told its key.
            let columns = plan.schema.as_ref().unwrap_or(base.schema()).columns.clone();
            plan.schema = Some(TableSchema::new(columns, key.clone()));
        }
        if !accepted.is_empty() {
            let schema = plan.schema.as_ref().unwrap_or(base.schema());
            if base.was_forgotten() {
                accepted.iter().try_for_each(|(part, _)| has_columns_of(schema, part))?;
            }
            plan.batches.push(assemble(schema, &accepted)?);
        }
        Ok(plan)
    }

    /// The rule of exactly once: accept where the cursor stands, trim what overlaps, refuse a gap.
    fn take<'a>(
        &mut self,
        base: &Snapshot,
        part: &'a Part,
        accepted: &mut Vec<Accepted<'a>>,
    ) -> Result<PartOutcome, LakeError> {
        let key = (part.site, part.epoch);
        let stored = base.cursor(part.site, part.epoch).unwrap_or_default();
        let (_, cursor) = self.cursors.get(&key).copied().unwrap_or((stored, stored));
        if cursor.seq < part.previous || part.whole && cursor.seq != part.previous {
            return Ok(PartOutcome::Gap { cursor: cursor.seq });
        }
        if part.last <= cursor.seq {
            return Ok(PartOutcome::Durable { rows: 0 });
        }
        let rows = rows_after(&part.rows.rows, cursor.seq);
        let count = rows.num_rows();
        let mut after = cursor;
        for mark in part.marks.iter().filter(|mark| mark.seq > cursor.seq) {
            apply_mark(&mut after, mark, cursor.seq == Seq(0) && first_seq(&rows).is_none_or(|first| first > mark.seq));
        }
        if cursor.seq == Seq(0) {
            after.exact = Seq(1);
        }
        after.seq = part.last;
        after.hash = part.hash;
        let rows = part.rows.exact_from(rows, after.exact)?;
        self.cursors.entry(key).or_insert((stored, stored)).1 = after;
        if count > 0 {
            accepted.push((part, rows));
        }
        Ok(PartOutcome::Durable { rows: count })
    }
}

/// A load that begins before any row was taken covers the journal's whole life: nothing lies before
/// it.
fn apply_mark(cursor: &mut Cursor, mark: &PartMark, is_first: bool) {
    match mark.kind {
        MarkKind::LoadBegun => {
            cursor.begin = if is_first { Seq(1) } else { mark.seq };
            cursor.exact = if cursor.exact == Seq(0) { cursor.begin } else { cursor.exact };
        }
        MarkKind::LoadComplete if cursor.begin == Seq(1) || cursor.begin == mark.begin => cursor.floor = cursor.begin,
        // The completed load was begun anew meanwhile; the newer one counts.
        MarkKind::LoadComplete => {}
    }
}

fn seqs(rows: &RecordBatch) -> Option<&Int64Array> {
    rows.column_by_name(columns::SEQ).map(|column| column.as_primitive::<Int64Type>())
}

fn first_seq(rows: &RecordBatch) -> Option<Seq> {
    let seqs = seqs(rows)?;
    (!seqs.is_empty()).then(|| Seq(seqs.value(0).unsigned_abs()))
}

/// The rows behind `after`; rows are in ascending order.
fn rows_after(rows: &RecordBatch, after: Seq) -> Cow<'_, RecordBatch> {
    let Some(seqs) = seqs(rows) else { return Cow::Borrowed(rows) };
    let from = seqs.values().partition_point(|seq| seq.unsigned_abs() <= after.0);
    if from == 0 { Cow::Borrowed(rows) } else { Cow::Owned(rows.slice(from, rows.num_rows() - from)) }
}

/// An error if a part has columns that the table has not: they were forgotten since it was
/// conformed.
fn has_columns_of(schema: &TableSchema, part: &Part) -> Result<(), LakeError> {
    let fields = part.rows.rows.schema_ref().fields().iter();
    let mut of_stores = fields.map(|field| field.name()).filter(|name| !name.starts_with('_'));
    match of_stores.find(|name| !schema.columns.iter().any(|column| column.name == **name)) {
        Some(name) => Err(LakeError::Rows(format!("column {name:?} was forgotten meanwhile; send it again"))),
        None => Ok(()),
    }
}

/// All accepted rows as one batch in the table's schema.
fn assemble(schema: &TableSchema, accepted: &[Accepted<'_>]) -> Result<RecordBatch, LakeError> {
    let doing = "assembling rows";
    let recast: Vec<Cow<'_, RecordBatch>> =
        accepted.iter().map(|(part, rows)| recast(rows, &part.rows, schema)).collect::<Result<_, LakeError>>()?;
    let counts: Vec<usize> = recast.iter().map(|rows| rows.num_rows()).collect();
    let total: usize = counts.iter().sum();
    let repeated = |value: fn(&Part) -> i32| repeat(accepted, &counts, value);
    let repeated_long = |value: fn(&Part) -> i64| repeat(accepted, &counts, value);
    let columns = schema.columns.iter().map(|column| -> Result<ArrayRef, LakeError> {
        Ok(match column.name.as_str() {
            our_columns::SITE => {
                let mut ids = StringBuilder::with_capacity(total, total * 16);
                for ((part, _), count) in accepted.iter().zip(&counts) {
                    (0..*count).for_each(|_| ids.append_value(part.site_id.as_str()));
                }
                Arc::new(ids.finish())
            }
            our_columns::EPOCH => Arc::new(Int32Array::from(repeated(|part| part.epoch.0 as i32))),
            our_columns::RECEIVED_AT => {
                let times = repeated_long(|part| part.received_at.as_micros());
                Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
            }
            our_columns::OP => Arc::new(ops(&recast, total)),
            name => {
                // Parts are mostly alike: a column is usually where the part before had it.
                let mut place = 0;
                let arrays: Vec<ArrayRef> = recast
                    .iter()
                    .map(|rows| {
                        let fields = rows.schema_ref().fields();
                        if fields.get(place).is_none_or(|field| field.name() != name) {
                            place = rows.schema_ref().index_of(name).unwrap_or(usize::MAX);
                        }
                        match rows.columns().get(place) {
                            Some(array) => array.clone(),
                            None => arrow_array::new_null_array(&column.kind.arrow(), rows.num_rows()),
                        }
                    })
                    .collect();
                let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
                arrow_select::concat::concat(&arrays).doing(doing)?
            }
        })
    });
    RecordBatch::try_new(schema.arrow().clone(), columns.collect::<Result<_, LakeError>>()?).doing(doing)
}

/// A value of each part, once for each of its rows.
fn repeat<T: Clone>(accepted: &[Accepted<'_>], counts: &[usize], value: fn(&Part) -> T) -> Vec<T> {
    let parts = accepted.iter().zip(counts);
    parts.flat_map(|((part, _), count)| std::iter::repeat_n(value(part), *count)).collect()
}

fn ops(batches: &[Cow<'_, RecordBatch>], total: usize) -> StringArray {
    let mut builder = StringBuilder::with_capacity(total, total);
    for batch in batches {
        if let Some(ops) = batch.column_by_name(columns::OP) {
            for op in ops.as_primitive::<UInt8Type>().values() {
                builder.append_value(char::from(*op).encode_utf8(&mut [0; 4]));
            }
        }
    }
    builder.finish()
}
