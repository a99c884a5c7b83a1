//! Merges data files into one of current rows and, if there are any, one of superseded rows, in the
//! order that questions ask for together: by event time, then by site.

use std::{cmp::Reverse, collections::BinaryHeap};

use arrow_array::RecordBatch;
use arrow_ord::sort::{SortColumn, lexsort_to_indices};
use arrow_row::{OwnedRow, RowConverter, Rows, SortField};
use arrow_schema::ArrowError;
use arrow_select::{concat::concat_batches, interleave::interleave_record_batch, take::take_record_batch};
use bytes::Bytes;

use super::fold::{Fold, Parted};
use crate::{
    data_file::{self, Effort},
    error::{Doing, LakeError},
    schema::{ColumnType, TableSchema, our_columns},
    snapshot::DataFile,
};

const SORTING: &str = "sorting rows";
/// Rows that are merged at a time.
const CHUNK: usize = 1 << 16;

type Output = (Bytes, DataFile);

/// Sorted rows, a batch at a time.
type Sorted = Box<dyn Iterator<Item = Result<RecordBatch, LakeError>>>;

/// Merges files. Small ones are sorted together in memory; larger ones, which are sorted, are read
/// as they are merged.
pub(super) fn merge(
    files: Vec<Bytes>,
    are_small: bool,
    schema: &TableSchema,
    mut fold: Fold,
) -> Result<Vec<Output>, LakeError> {
    if let Some(columns) = fold.columns(schema) {
        for bytes in &files {
            for rows in data_file::stream(bytes.clone(), schema, Some(&columns))? {
                fold.learn(&rows?, schema)?;
            }
        }
    }
    let mut inputs: Vec<Sorted> = Vec::new();
    let mut unsorted = Vec::new();
    for bytes in files {
        if are_small {
            unsorted.extend(data_file::read(bytes, schema)?);
        } else {
            inputs.push(Box::new(data_file::stream(in_order(bytes, schema)?, schema, None)?));
        }
    }
    if !unsorted.is_empty() {
        let rows = concat_batches(schema.arrow(), &unsorted).doing("merging files")?;
        drop(unsorted);
        inputs.push(Box::new(std::iter::once(sort(&rows, schema))));
    }
    let mut outputs = Outputs { schema, current: None, superseded: None };
    match inputs.len() {
        1 => inputs.into_iter().flatten().try_for_each(|rows| outputs.take(&rows?, &fold))?,
        _ => Merging::new(inputs, schema)?.try_for_each(|rows| outputs.take(&rows?, &fold))?,
    }
    outputs.finish(&fold)
}

/// The two files that are written.
struct Outputs<'a> {
    schema: &'a TableSchema,
    current: Option<data_file::Writer>,
    superseded: Option<data_file::Writer>,
}

impl Outputs<'_> {
    fn take(&mut self, rows: &RecordBatch, fold: &Fold) -> Result<(), LakeError> {
        let Parted { current, history } = fold.part(rows, self.schema)?;
        write(&mut self.current, &current, self.schema)?;
        write(&mut self.superseded, &history, self.schema)
    }

    fn finish(self, fold: &Fold) -> Result<Vec<Output>, LakeError> {
        let mut outputs = Vec::new();
        for (writer, is_superseded) in [(self.current, false), (self.superseded, true)] {
            let Some(writer) = writer else { continue };
            let (bytes, mut file) = writer.finish(data_file::new_path(), rollcall_runtime::now().as_millis())?;
            file.superseded = is_superseded;
            file.mutations = fold.mutations_left(is_superseded, file.mutations);
            outputs.push((bytes, file));
        }
        Ok(outputs)
    }
}

fn write(to: &mut Option<data_file::Writer>, rows: &RecordBatch, schema: &TableSchema) -> Result<(), LakeError> {
    if rows.num_rows() == 0 {
        return Ok(());
    }
    let writer = match to {
        Some(writer) => writer,
        None => to.insert(data_file::Writer::new(schema, Effort::Compaction)?),
    };
    writer.write(rows)
}

/// The column of a table's event time: the first timestamp that is the source's, else when rows
/// were changed.
pub(super) fn time_column(schema: &TableSchema) -> &str {
    let is_ours = |name: &str| [our_columns::CHANGED_AT, our_columns::RECEIVED_AT].contains(&name);
    let of_source = schema.columns.iter().find(|column| column.kind == ColumnType::Timestamp && !is_ours(&column.name));
    of_source.map_or(our_columns::CHANGED_AT, |column| column.name.as_str())
}

/// The columns by which rows are sorted, those that the table has.
fn order(schema: &TableSchema) -> Vec<String> {
    let names = [time_column(schema), our_columns::SITE, our_columns::SEQ];
    names.into_iter().filter(|name| schema.arrow().column_with_name(name).is_some()).map(str::to_owned).collect()
}

fn sort(rows: &RecordBatch, schema: &TableSchema) -> Result<RecordBatch, LakeError> {
    let values = order(schema).into_iter().filter_map(|name| rows.column_by_name(&name).cloned());
    let columns: Vec<SortColumn> = values.map(|values| SortColumn { values, options: None }).collect();
    if columns.is_empty() {
        return Ok(rows.clone());
    }
    let order = lexsort_to_indices(&columns, None).doing(SORTING)?;
    take_record_batch(rows, &order).doing(SORTING)
}

/// What rows are compared by.
struct Order {
    columns: Vec<String>,
    converter: RowConverter,
}

impl Order {
    fn new(schema: &TableSchema) -> Result<Self, LakeError> {
        let columns = order(schema);
        let types = columns.iter().filter_map(|name| schema.arrow().field_with_name(name).ok());
        let fields = types.map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self { columns, converter: RowConverter::new(fields).doing(SORTING)? })
    }

    fn keys(&self, rows: &RecordBatch) -> Result<Rows, LakeError> {
        let missing = || ArrowError::SchemaError("a column to sort by is missing".to_owned());
        let values = self.columns.iter().map(|name| rows.column_by_name(name).cloned().ok_or_else(missing));
        let values = values.collect::<Result<Vec<_>, _>>().doing(SORTING)?;
        self.converter.convert_columns(&values).doing(SORTING)
    }
}

/// A larger file in order. One may be of ingest all the same, since a site's first load comes in
/// large pieces, or be sorted by another column, from before the table had one of time: that is
/// sorted by itself, and compressed again while it waits.
fn in_order(bytes: Bytes, schema: &TableSchema) -> Result<Bytes, LakeError> {
    if is_sorted(&bytes, schema)? {
        return Ok(bytes);
    }
    let rows = concat_batches(schema.arrow(), &data_file::read(bytes, schema)?).doing("merging files")?;
    let sorted = sort(&rows, schema)?;
    Ok(data_file::write(data_file::new_path(), schema, &[sorted], Effort::Ingest, 0)?.0)
}

/// Whether a file's rows are in order.
fn is_sorted(bytes: &Bytes, schema: &TableSchema) -> Result<bool, LakeError> {
    let order = Order::new(schema)?;
    if order.columns.is_empty() {
        return Ok(true);
    }
    let mut before: Option<OwnedRow> = None;
    for rows in data_file::stream(bytes.clone(), schema, Some(&order.columns))? {
        let keys = order.keys(&rows?)?;
        let Some(last) = keys.num_rows().checked_sub(1) else { continue };
        let follows = before.is_none_or(|before| before.row() <= keys.row(0));
        if !follows || (0..last).any(|row| keys.row(row) > keys.row(row + 1)) {
            return Ok(false);
        }
        before = Some(keys.row(last).owned());
    }
    Ok(true)
}

/// One of the inputs, at the row that is next.
struct Cursor {
    rest: Sorted,
    /// Which of the batches at hand it is in.
    batch: usize,
    keys: Rows,
    row: usize,
}

/// Merges sorted inputs into chunks of rows: the classic merge of many runs, with a heap of their
/// next rows.
struct Merging {
    order: Order,
    cursors: Vec<Cursor>,
    /// The next row of each input that has one.
    next: BinaryHeap<Reverse<(OwnedRow, usize)>>,
    /// The batches that cursors and chosen rows are in.
    batches: Vec<RecordBatch>,
}

impl Merging {
    fn new(inputs: Vec<Sorted>, schema: &TableSchema) -> Result<Self, LakeError> {
        let order = Order::new(schema)?;
        let mut merging = Self { order, cursors: Vec::new(), next: BinaryHeap::new(), batches: Vec::new() };
        for rest in inputs {
            let keys = merging.order.converter.empty_rows(0, 0);
            merging.cursors.push(Cursor { rest, batch: 0, keys, row: 0 });
            merging.refill(merging.cursors.len() - 1)?;
        }
        Ok(merging)
    }

    /// Takes the next batch of an input, if it has one, and puts its first row in line.
    fn refill(&mut self, input: usize) -> Result<(), LakeError> {
        let cursor = &mut self.cursors[input];
        let filled = cursor.rest.by_ref().find(|rows| rows.as_ref().map_or(true, |rows| rows.num_rows() > 0));
        let Some(rows) = filled.transpose()? else { return Ok(()) };
        cursor.keys = self.order.keys(&rows)?;
        (cursor.batch, cursor.row) = (self.batches.len(), 0);
        self.batches.push(rows);
        self.next.push(Reverse((cursor.keys.row(0).owned(), input)));
        Ok(())
    }

    /// The next rows in order, at most [`CHUNK`]; none at the end.
    fn chunk(&mut self) -> Result<Option<RecordBatch>, LakeError> {
        let mut chosen: Vec<(usize, usize)> = Vec::with_capacity(CHUNK);
        while chosen.len() < CHUNK {
            let Some(Reverse((_, input))) = self.next.pop() else { break };
            let cursor = &mut self.cursors[input];
            // As long as this input is first, it needs no turn through the heap.
            let limit = self.next.peek().map(|Reverse((row, _))| row.row());
            while cursor.row < cursor.keys.num_rows()
                && chosen.len() < CHUNK
                && limit.is_none_or(|limit| cursor.keys.row(cursor.row) <= limit)
            {
                chosen.push((cursor.batch, cursor.row));
                cursor.row += 1;
            }
            if cursor.row < cursor.keys.num_rows() {
                self.next.push(Reverse((cursor.keys.row(cursor.row).owned(), input)));
            } else {
                self.refill(input)?;
            }
        }
        if chosen.is_empty() {
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let rows = interleave_record_batch(&batches, &chosen).doing(SORTING)?;
        self.let_go();
        Ok(Some(rows))
    }

    /// Lets go of batches in which no cursor is any more.
    fn let_go(&mut self) {
        let before = std::mem::take(&mut self.batches);
        for cursor in &mut self.cursors {
            if cursor.row < cursor.keys.num_rows() {
                self.batches.push(before[cursor.batch].clone());
                cursor.batch = self.batches.len() - 1;
            }
        }
    }
}

impl Iterator for Merging {
    type Item = Result<RecordBatch, LakeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.chunk().transpose()
    }
}
