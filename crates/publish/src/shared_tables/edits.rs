//! Sites' edits of a shared table, as they are read to be decided on.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, UInt64Array,
    cast::AsArray,
    types::{Int32Type, Int64Type, TimestampMicrosecondType},
};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::concat::concat_batches;
use futures::TryStreamExt;
use rollcall_lake::{Column, ColumnType};
use rollcall_query::{Extras, QueryError, Question};
use rollcall_types::{
    Epoch, Seq, SiteId, SiteNumber, TableName, Timestamp, columns,
    shared::{EDIT_AT, EDIT_BASE, EDIT_CHANGED, EDIT_COLUMNS, EDIT_GONE, EDIT_NUMBER},
};

use super::too_wide;
use rollcall_registry::{
    HqError,
    known_clock::{KnownClock, Made},
};

use crate::{
    publisher::Publisher,
    tables::{Known, failed},
};

/// When HQ heard of edits, microseconds since 1970.
pub(super) struct Undecided {
    /// Of the oldest that was not decided on; none if all were.
    pub oldest: Option<i64>,
    /// Of the newest of all.
    pub newest: Option<i64>,
}

impl Undecided {
    /// Of what HQ heard of since a time. Reads numbers alone: most edits are old and decided on.
    pub(super) async fn read(
        publisher: &Publisher,
        known: &Known,
        table: &TableName,
        since: Option<Timestamp>,
    ) -> Result<Self, HqError> {
        let when = since.map_or(String::new(), |since| format!(" AND _received_at >= TIMESTAMP '{since}'"));
        let sql = format!(
            "SELECT _site, _epoch, {EDIT_NUMBER}, _received_at FROM history.\"{table}\" WHERE _op <> 'D'{when}"
        );
        let rows = select(publisher, &sql).await?;
        let sites = cast(&rows, "_site", &DataType::Utf8)?;
        let (epochs, numbers) = (longs(&rows, "_epoch")?, longs(&rows, EDIT_NUMBER)?);
        let times = cast(&rows, "_received_at", &ColumnType::Timestamp.arrow())?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let roster = publisher.registry.roster.all();
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

/// Edits in the order in which HQ heard of them.
pub(super) struct Edits {
    /// The rows as the sites have them, in the shared table's columns.
    pub rows: RecordBatch,
    pub sites: Vec<SiteId>,
    pub epochs: Vec<Epoch>,
    pub numbers: Vec<u64>,
    pub bases: Vec<Seq>,
    /// When they were made, by HQ's time.
    pub made: Vec<Made>,
    pub heard: Vec<i64>,
    pub changed: Vec<Vec<String>>,
    pub gone: Vec<bool>,
    /// How many of the columns, the first ones, the store's table had.
    pub columns: Vec<usize>,
    /// It has a value that HQ's column cannot hold, or is wider than can be sent to sites.
    pub misfit: Vec<bool>,
    /// [`EDIT_AT`].
    shown: Vec<i64>,
    /// They were decided on in an earlier epoch.
    pub is_done: Vec<bool>,
}

impl Edits {
    /// Those that HQ heard of since a time.
    pub(super) async fn read(
        publisher: &Publisher,
        table: &TableName,
        columns: &[Column],
        since: Timestamp,
    ) -> Result<Self, HqError> {
        let sql = format!("SELECT * FROM history.\"{table}\" WHERE _op <> 'D' AND _received_at >= TIMESTAMP '{since}'");
        let rows = select(publisher, &sql).await?;
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
        let (shown, heard) = (longs(EDIT_AT)?, times("_received_at")?);
        let seqs = longs("_seq")?;
        let fields: Vec<Field> =
            columns.iter().map(|column| Field::new(&column.name, column.kind.arrow(), true)).collect();
        let arrays = columns.iter().map(|column| cast(&rows, &column.name, &column.kind.arrow()));
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        let sites: Vec<SiteId> = sites
            .iter()
            .map(|id| SiteId::new(id.unwrap_or_default()).map_err(|error| HqError::Invalid(error.to_string())))
            .collect::<Result<_, _>>()?;
        let heard: Vec<i64> = heard.into_iter().map(Option::unwrap_or_default).collect();
        let mut clocks: HashMap<&SiteId, KnownClock> = HashMap::new();
        let mut made = Vec::with_capacity(count);
        for (row, site) in sites.iter().enumerate() {
            let clock = clocks.entry(site).or_insert_with(|| publisher.registry.ledger.clock(site));
            // Where it was stated is not where it was made.
            let seq = matches!(ops.value(row), "I" | "U").then(|| Seq(seqs.value(row).unsigned_abs()));
            made.push(clock.made(seq, shown.value(row).saturating_mul(1000), heard[row]));
        }
        let split = |text: Option<&str>| {
            text.unwrap_or_default().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(failed)?;
        let is_too_wide = too_wide(&batch)?;
        let misfits = cast(&rows, columns::MISFIT, &DataType::Utf8)?;
        let misfit = misfits.as_string::<i32>().iter().zip(&is_too_wide).map(|(of, wide)| of.is_some() || *wide);
        Ok(Self {
            rows: batch,
            sites,
            epochs: epochs.values().iter().map(|epoch| Epoch(epoch.unsigned_abs())).collect(),
            numbers: numbers.values().iter().map(|number| number.unsigned_abs()).collect(),
            bases: bases.values().iter().map(|base| Seq(base.unsigned_abs())).collect(),
            made,
            heard,
            changed: changed.iter().map(split).collect(),
            gone: gone.values().iter().map(|gone| *gone != 0).collect(),
            columns: known_columns
                .iter()
                .map(|of| of.map_or(usize::MAX, |of| usize::try_from(of).unwrap_or_default()))
                .collect(),
            misfit: misfit.collect(),
            shown: shown.values().to_vec(),
            is_done: vec![false; count],
        })
    }

    pub(super) fn len(&self) -> usize {
        self.sites.len()
    }

    /// Leaves out the edits of some sites, and puts the others in order: as HQ heard of them, but
    /// each site's by their numbers. Returns when HQ heard of the first that is left out.
    pub(super) fn take_out(&mut self, is_out: impl Fn(&SiteId, Epoch) -> bool) -> Result<Option<i64>, HqError> {
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
            made: pick(&self.made, &order),
            heard: pick(&self.heard, &order),
            changed: pick(&self.changed, &order),
            gone: pick(&self.gone, &order),
            columns: pick(&self.columns, &order),
            misfit: pick(&self.misfit, &order),
            shown: pick(&self.shown, &order),
            is_done: pick(&self.is_done, &order),
        };
        Ok(left_out)
    }

    /// A site that begins a new epoch sends anew what it has; some of it was decided on in the old
    /// one.
    pub(super) async fn find_done(
        &mut self,
        publisher: &Publisher,
        known: &Known,
        table: &TableName,
    ) -> Result<(), HqError> {
        let is_old = |row: usize| self.epochs[row] > Epoch(1);
        if !(0..self.len()).any(is_old) {
            return Ok(());
        }
        let sql = format!("SELECT _site, _epoch, {EDIT_NUMBER}, {EDIT_AT} FROM history.\"{table}\" WHERE _op <> 'D'");
        let rows = select(publisher, &sql).await?;
        let sites: StringArray = cast(&rows, "_site", &DataType::Utf8)?.as_string().clone();
        let (epochs, numbers, at) = (longs(&rows, "_epoch")?, longs(&rows, EDIT_NUMBER)?, longs(&rows, EDIT_AT)?);
        let roster = publisher.registry.roster.all();
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
                let of = (self.sites[row].as_str(), self.numbers[row], self.shown[row]);
                decided_on.get(&of).is_some_and(|epoch| *epoch < self.epochs[row])
            })
            .collect();
        Ok(())
    }
}

pub(super) async fn select(publisher: &Publisher, sql: &str) -> Result<RecordBatch, HqError> {
    let planned =
        publisher.engine.plan(Question::Text(sql.to_owned()), Extras::default()).await.map_err(HqError::query)?;
    let stream = planned.stream().await.map_err(HqError::query)?;
    let schema = stream.schema();
    let batches: Vec<RecordBatch> =
        stream.try_collect().await.map_err(|error| HqError::query(QueryError::from(error)))?;
    concat_batches(&schema, &batches).map_err(failed)
}

fn longs(rows: &RecordBatch, name: &str) -> Result<Int64Array, HqError> {
    Ok(cast(rows, name, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// A column in another type; nulls if it is not there.
pub(super) fn cast(rows: &RecordBatch, name: &str, kind: &DataType) -> Result<ArrayRef, HqError> {
    match rows.column_by_name(name) {
        Some(array) => cast_with_options(array, kind, &CastOptions::default()).map_err(failed),
        None => Ok(arrow_array::new_null_array(kind, rows.num_rows())),
    }
}
