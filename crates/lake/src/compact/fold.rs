//! Which rows of the files that are merged are current, and which are history.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, RecordBatch, StringArray,
    cast::AsArray,
    types::{Int32Type, Int64Type},
};
use arrow_schema::DataType;
use arrow_select::filter::filter_record_batch;
use rollcall_types::{Epoch, Seq, SiteNumber};

use crate::{
    error::{Doing, LakeError},
    schema::{TableSchema, our_columns},
    snapshot::Visible,
    state::{self, Record, StateView},
};

/// Says of the rows that are merged which of them are current.
pub(crate) enum Fold {
    /// Rows of sites, or of HQ's own: those with a newer version are history.
    Rows(Changes),
    /// Nothing is current any more.
    History,
    /// Records of the state log: those with a newer version in this view are history, but for kinds
    /// of which nobody asks what was.
    State { view: StateView, passing: &'static [&'static str] },
}

/// Rows, parted.
pub(super) struct Parted {
    pub(super) current: RecordBatch,
    pub(super) history: RecordBatch,
}

impl Fold {
    /// The columns that [`Self::learn`] needs; none if there is nothing to learn.
    pub(super) fn columns(&self, schema: &TableSchema) -> Option<Vec<String>> {
        match self {
            Self::Rows(changes) => changes.columns(schema),
            Self::History | Self::State { .. } => None,
        }
    }

    /// Learns what was changed in these rows.
    pub(super) fn learn(&mut self, rows: &RecordBatch, schema: &TableSchema) -> Result<(), LakeError> {
        match self {
            Self::Rows(changes) => changes.learn(rows, schema),
            Self::History | Self::State { .. } => Ok(()),
        }
    }

    /// Parts rows, by all that was learned. What is in neither part is forgotten.
    pub(super) fn part(&self, rows: &RecordBatch, schema: &TableSchema) -> Result<Parted, LakeError> {
        let none = || rows.slice(0, 0);
        let pick =
            |flags: &BooleanArray| filter_record_batch(rows, flags).doing("parting current from superseded rows");
        match self {
            Self::History => Ok(Parted { current: none(), history: rows.clone() }),
            Self::Rows(changes) => match changes.superseded(rows, schema)? {
                flags if flags.true_count() == 0 => Ok(Parted { current: rows.clone(), history: none() }),
                flags => {
                    let others: BooleanArray = flags.iter().map(|flag| flag.map(|flag| !flag)).collect();
                    Ok(Parted { current: pick(&others)?, history: pick(&flags)? })
                }
            },
            Self::State { view, passing } => {
                let records = state::decode(rows)?;
                let is_current = |record: &Record| {
                    view.find(&record.kind, &record.id).is_none_or(|newest| newest.version <= record.version)
                };
                let is_history = |record: &Record| !is_current(record) && !passing.contains(&record.kind.as_ref());
                let current: BooleanArray = records.iter().map(|record| Some(is_current(record))).collect();
                let history: BooleanArray = records.iter().map(|record| Some(is_history(record))).collect();
                Ok(Parted { current: pick(&current)?, history: pick(&history)? })
            }
        }
    }

    /// How many changes a file keeps of which rows may lie elsewhere: none in a file of superseded
    /// rows, and none where every older version was split off.
    pub(super) fn mutations_left(&self, is_superseded: bool, counted: u64) -> u64 {
        match self {
            Self::Rows(changes) if !is_superseded && !changes.leaves_none_elsewhere() => counted,
            _ => 0,
        }
    }
}

type SiteNumbers = Box<dyn Fn(&str) -> Option<SiteNumber> + Send>;

/// Learns which rows were changed from all that are merged, then says which have a newer version
/// there, or lie outside what is current of their site.
pub(crate) struct Changes {
    special: HashMap<SiteNumber, Visible>,
    is_whole: bool,
    learns: bool,
    site_number: SiteNumbers,
    /// The newest position of each key that was updated or deleted.
    newest: HashMap<Vec<u8>, Position>,
}

/// Epoch and position in the journal.
type Position = (i32, i64);

impl Changes {
    /// `is_whole` says that every current file takes part; `special` are the sites whose rows are
    /// not all current.
    pub(super) fn new(
        schema: &TableSchema,
        special: HashMap<SiteNumber, Visible>,
        is_whole: bool,
        has_mutations: bool,
        site_number: SiteNumbers,
    ) -> Self {
        let learns = has_mutations && !schema.key.is_empty();
        Self { special, is_whole, learns, site_number, newest: HashMap::new() }
    }

    fn columns(&self, schema: &TableSchema) -> Option<Vec<String>> {
        let ours = [our_columns::SITE, our_columns::EPOCH, our_columns::SEQ, our_columns::OP].map(str::to_owned);
        self.learns.then(|| ours.into_iter().chain(schema.key_columns().map(str::to_owned)).collect())
    }

    fn learn(&mut self, rows: &RecordBatch, schema: &TableSchema) -> Result<(), LakeError> {
        let Some(places) = Places::of(rows) else { return Ok(()) };
        let keys = Keys::new(rows, schema)?;
        for row in (0..rows.num_rows()).filter(|row| places.is_mutation(*row)) {
            let position = places.position(row);
            if self.visible(places.sites.value(row)).is_none_or(|visible| !is_hidden(position, visible)) {
                let entry = self.newest.entry(keys.of(row)).or_insert(position);
                *entry = position.max(*entry);
            }
        }
        Ok(())
    }

    fn superseded(&self, rows: &RecordBatch, schema: &TableSchema) -> Result<BooleanArray, LakeError> {
        let is_all_current = self.special.is_empty() && !self.learns;
        let places = Places::of(rows).filter(|_| !schema.key.is_empty() && !is_all_current);
        let Some(places) = places else { return Ok(BooleanArray::from(vec![false; rows.num_rows()])) };
        let keys = if self.newest.is_empty() { None } else { Some(Keys::new(rows, schema)?) };
        let flags = (0..rows.num_rows()).map(|row| {
            let (position, visible) = (places.position(row), self.visible(places.sites.value(row)));
            // Rows of a load that is not complete, or of a newer epoch, supersede nothing yet, and
            // stay.
            if visible.is_some_and(|visible| is_hidden(position, visible)) {
                return Some(false);
            }
            let is_past = visible.is_some_and(|visible| {
                let (epoch, seq) = (Epoch(position.0.unsigned_abs()), Seq(position.1.unsigned_abs()));
                epoch < visible.epoch || (epoch == visible.epoch && seq < visible.from)
            });
            let newest = keys.as_ref().and_then(|keys| self.newest.get(&keys.of(row)));
            // A delete with nothing left to delete has done its work.
            let is_spent = self.is_whole && places.ops.value(row) == "D";
            Some(is_past || newest.is_some_and(|newest| position < *newest) || is_spent)
        });
        Ok(flags.collect())
    }

    fn leaves_none_elsewhere(&self) -> bool {
        self.is_whole && self.special.is_empty()
    }

    /// What is current of a site, if not all of it is.
    fn visible(&self, site: &str) -> Option<Visible> {
        if self.special.is_empty() {
            return None;
        }
        self.special.get(&(self.site_number)(site)?).copied()
    }
}

fn is_hidden((epoch, seq): Position, visible: Visible) -> bool {
    let epoch = Epoch(epoch.unsigned_abs());
    epoch > visible.epoch || (epoch == visible.epoch && Seq(seq.unsigned_abs()) >= visible.before)
}

/// Where rows come from, and what they did.
struct Places<'a> {
    sites: &'a StringArray,
    epochs: &'a arrow_array::Int32Array,
    seqs: &'a arrow_array::Int64Array,
    ops: &'a StringArray,
}

impl<'a> Places<'a> {
    fn of(rows: &'a RecordBatch) -> Option<Self> {
        Some(Self {
            sites: rows.column_by_name(our_columns::SITE)?.as_string_opt::<i32>()?,
            epochs: rows.column_by_name(our_columns::EPOCH)?.as_primitive_opt::<Int32Type>()?,
            seqs: rows.column_by_name(our_columns::SEQ)?.as_primitive_opt::<Int64Type>()?,
            ops: rows.column_by_name(our_columns::OP)?.as_string_opt::<i32>()?,
        })
    }

    fn position(&self, row: usize) -> Position {
        (self.epochs.value(row), self.seqs.value(row))
    }

    fn is_mutation(&self, row: usize) -> bool {
        our_columns::MUTATIONS.contains(&self.ops.value(row))
    }
}

/// Keys of rows, with their site and epoch, as bytes.
struct Keys {
    columns: Vec<ArrayRef>,
}

impl Keys {
    fn new(rows: &RecordBatch, schema: &TableSchema) -> Result<Self, LakeError> {
        let names = [our_columns::SITE, our_columns::EPOCH].into_iter().chain(schema.key_columns());
        let columns = names.map(|name| {
            let column = rows.column_by_name(name);
            let column =
                column.ok_or_else(|| LakeError::damaged(format!("key column {name:?} is not in the table")))?;
            match column.data_type() {
                // Bytes need not be text.
                DataType::Binary => {
                    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                    let texts: StringArray = column.as_binary::<i32>().iter().map(|bytes| bytes.map(hex)).collect();
                    Ok(Arc::new(texts) as ArrayRef)
                }
                _ => arrow_cast::cast(column, &DataType::Utf8).doing("reading keys"),
            }
        });
        Ok(Self { columns: columns.collect::<Result<_, LakeError>>()? })
    }

    fn of(&self, row: usize) -> Vec<u8> {
        let mut key = Vec::with_capacity(32);
        for column in &self.columns {
            let column = column.as_string::<i32>();
            if column.is_null(row) {
                key.push(0);
            } else {
                let text = column.value(row).as_bytes();
                key.push(1);
                key.extend_from_slice(&(text.len() as u32).to_le_bytes());
                key.extend_from_slice(text);
            }
        }
        key
    }
}
