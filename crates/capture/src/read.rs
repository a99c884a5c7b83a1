//! Reads the journal in order and turns its untyped rows into typed columns, table by table.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{Int64Builder, StringBuilder, UInt8Builder},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use rollcall_types::{Seq, columns};
use rusqlite::{Connection, Row, types::ValueRef};
use serde_json::{Map, Value};

use crate::{
    error::{CaptureError, Doing},
    layout::{self, LOG_LAYOUT, Layout},
    load::log_op,
    stored::{Stored, hex},
    value::{ColumnBuilder, Fit, column_type, misfit},
};

/// Consecutive changes, split by table.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// First position covered.
    pub first: Seq,
    /// Last position covered; `first..=last` has no gaps.
    pub last: Seq,
    /// The tables touched, in order of first touch.
    pub tables: Vec<TableChanges>,
    /// A digest of the last change: see [`Anchor`].
    pub digest: String,
}

/// A place in the journal behind which one reads on, and the change that was read there: when
/// another one is found there later, the journal was put back in time and written on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Anchor {
    /// The position.
    pub seq: Seq,
    /// Digest of the change as it was read; empty if it is not known.
    pub digest: String,
}

impl From<Seq> for Anchor {
    fn from(seq: Seq) -> Self {
        Self { seq, digest: String::new() }
    }
}

/// One table's share of [`Changes`].
#[derive(Debug, Clone, PartialEq)]
pub struct TableChanges {
    /// Its name in the store's database, or [`columns::LOG_TABLE`].
    pub table: String,
    /// In journal order, with the columns of [`rollcall_types::columns`] around the table's own;
    /// empty if only marks.
    pub rows: RecordBatch,
    /// Loads of this table begun or completed here.
    pub marks: Vec<LoadMark>,
}

/// Where a load begins or is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadMark {
    /// Position of this mark.
    pub seq: Seq,
    /// Position where the load began.
    pub begin: Seq,
    /// Whether this completes the load.
    pub complete: bool,
}

/// The newest position of the journal and of each captured table in one read snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heads {
    /// The journal's newest position.
    pub head: Seq,
    /// Per captured table; 0 for one of which the journal holds nothing.
    pub tables: HashMap<String, Seq>,
    /// Tables whose rows from before are not all journalled yet: their heads say nothing.
    pub loading: Vec<String>,
}

/// What the read stopped at.
pub(crate) enum ReadOutcome {
    Changes(Changes),
    /// Nothing behind the position asked for.
    Nothing,
    /// The journal misses the positions `from..=to`: someone deleted rows that were not confirmed.
    Gap {
        from: Seq,
        to: Seq,
    },
}

/// Values of one row, bytes. A batch has room for 64 MiB, so that any row can be sent: what would
/// make it longer stays behind, and the row says so. Otherwise it would hold up everything after
/// it.
const ROW_BYTES_MAX: usize = 32 << 20;

/// Fixed cost of a journal row beyond its values, bytes; used to bound a read.
const ROW_OVERHEAD_BYTES: usize = 24;

/// Reads journal rows behind `after`, at most `rows_max` rows or about `bytes_max` bytes of values.
pub(crate) fn read(
    conn: &Connection,
    layouts: &mut Layouts,
    anchor: &Anchor,
    rows_max: usize,
    bytes_max: usize,
) -> Result<ReadOutcome, CaptureError> {
    let doing = "reading the journal";
    let transaction = conn.unchecked_transaction().doing(doing)?;
    check_anchor(&transaction, anchor)?;
    let after = anchor.seq;
    let mut statement = transaction
        .prepare_cached("SELECT * FROM _rollcall_journal WHERE seq > ?1 ORDER BY seq LIMIT ?2")
        .doing(doing)?;
    let mut rows = statement.query((to_sql(after), rows_max as i64)).doing(doing)?;
    let mut tables: Vec<TableReader> = Vec::new();
    let mut last = after;
    let mut bytes = 0;
    while let Some(row) = rows.next().doing(doing)? {
        let seq = from_sql(row.get(0).doing(doing)?);
        if seq.0 != last.0 + 1 {
            if last == after {
                return Ok(ReadOutcome::Gap { from: Seq(last.0 + 1), to: Seq(seq.0 - 1) });
            }
            break;
        }
        let number: i64 = row.get(1).doing(doing)?;
        if number == LOG_LAYOUT {
            read_log(&transaction, layouts, &mut tables, row, seq)?;
        } else {
            let layout = layouts.get(&transaction, number)?;
            let at_table = tables.iter().position(|reader| reader.table == layout.table);
            let index = match at_table {
                Some(index) if tables[index].takes(number) => index,
                // The table's columns changed here: the new layout starts the next batch.
                Some(_) => break,
                None => {
                    tables.push(TableReader::new(&layout.table));
                    tables.len() - 1
                }
            };
            bytes += ROW_OVERHEAD_BYTES + tables[index].append(&layout, row, seq)?;
        }
        last = seq;
        if bytes >= bytes_max {
            break;
        }
    }
    if last == after {
        return Ok(ReadOutcome::Nothing);
    }
    let tables = tables.into_iter().map(TableReader::finish).collect::<Result<_, _>>()?;
    let digest = row_digest(&transaction, last)?.unwrap_or_default();
    Ok(ReadOutcome::Changes(Changes { first: Seq(after.0 + 1), last, tables, digest }))
}

/// Finds out whether the change at the anchor is still the one that was read there.
pub(crate) fn check_anchor(conn: &Connection, anchor: &Anchor) -> Result<(), CaptureError> {
    if anchor.digest.is_empty() {
        return Ok(());
    }
    let is_first_form = !anchor.digest.starts_with(DIGEST_MARK);
    let now = match is_first_form {
        true => row_text(conn, anchor.seq)?,
        false => row_digest(conn, anchor.seq)?,
    };
    match now {
        Some(now) if now == anchor.digest => Ok(()),
        Some(_) => Err(CaptureError::Rewound(format!(
            "the change at {} is not the one that was read there: the database was restored and written on",
            anchor.seq
        ))),
        // It was pruned, or the journal ends before it.
        None => match sequence(conn)? {
            newest if newest < anchor.seq => Err(CaptureError::Rewound(format!(
                "changes up to {} were read, and the journal ends at {newest}: the database went back in time",
                anchor.seq
            ))),
            _ => Ok(()),
        },
    }
}

/// The newest position ever used, also when the journal was pruned empty, or a program of the
/// store's cleared `sqlite_sequence`: SQLite goes on behind whichever is greater.
pub(crate) fn sequence(conn: &Connection) -> Result<Seq, CaptureError> {
    let newest: i64 = conn
        .query_row(
            "SELECT max(coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = '_rollcall_journal'), 0),
                        coalesce((SELECT max(seq) FROM _rollcall_journal), 0))",
            [],
            |row| row.get(0),
        )
        .doing("reading the journal's head")?;
    Ok(from_sql(newest))
}

/// The oldest position that the journal still holds, and the newest ever used. One that is empty
/// begins behind the newest: all before was pruned.
pub(crate) fn ends(conn: &Connection) -> Result<(Seq, Seq), CaptureError> {
    let newest = sequence(conn)?;
    let oldest: Option<i64> = conn
        .query_row("SELECT min(seq) FROM _rollcall_journal", [], |row| row.get(0))
        .doing("reading the journal's tail")?;
    Ok((oldest.map_or(Seq(newest.0 + 1), from_sql), newest))
}

/// Begins the digests that are made now; what an agent before 0.2 noted is the row's text itself.
const DIGEST_MARK: &str = "sha256:";

/// A digest of the journal row at `seq`; none if the row is not there.
pub(crate) fn row_digest(conn: &Connection, seq: Seq) -> Result<Option<String>, CaptureError> {
    let hex = |text: String| {
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let hex = hex(digest.as_ref());
        format!("{DIGEST_MARK}{hex}")
    };
    Ok(row_text(conn, seq)?.map(hex))
}

/// Everything in the journal row at `seq`.
fn row_text(conn: &Connection, seq: Seq) -> Result<Option<String>, CaptureError> {
    let doing = "reading a journal row";
    let mut statement = conn.prepare_cached("SELECT * FROM _rollcall_journal WHERE seq = ?1").doing(doing)?;
    let mut rows = statement.query([to_sql(seq)]).doing(doing)?;
    let Some(row) = rows.next().doing(doing)? else { return Ok(None) };
    // Not before the first step: a statement that was kept learns of new columns there.
    let columns = row.as_ref().column_count();
    let mut text = String::new();
    for index in 1..columns {
        // Columns added later are null in older rows; trailing nulls must not change the digest.
        let value = row.get_ref(index).doing(doing)?;
        if value != rusqlite::types::ValueRef::Null {
            text.push_str(&format!("{index}:{value:?};"));
        }
    }
    Ok(Some(text))
}

/// Entries of our own: rows of the log table, and marks at the table they are about.
fn read_log(
    conn: &Connection,
    layouts: &mut Layouts,
    tables: &mut Vec<TableReader>,
    row: &Row<'_>,
    seq: Seq,
) -> Result<(), CaptureError> {
    let doing = "reading an entry of the journal";
    let op: String = row.get(2).doing(doing)?;
    let mark = match op.as_str() {
        log_op::LOAD_BEGUN => Some(LoadMark { seq, begin: seq, complete: false }),
        log_op::LOAD_COMPLETE => Some(LoadMark { seq, begin: from_sql(row.get(5).doing(doing)?), complete: true }),
        _ => None,
    };
    if let Some(mark) = mark {
        let table: String = row.get(4).doing(doing)?;
        let reader = reader_of(tables, &table);
        reader.marks.push(mark);
        if reader.layout.is_none()
            && let Some(layout) = layouts.newest(conn, &table)?
        {
            // HQ learns the table's columns and key even if no row comes.
            reader.lay_out(&layout);
        }
    }
    let layout = log_layout();
    reader_of(tables, columns::LOG_TABLE).append(&layout, row, seq)?;
    Ok(())
}

fn reader_of<'a>(tables: &'a mut Vec<TableReader>, table: &str) -> &'a mut TableReader {
    let index = tables.iter().position(|reader| reader.table == table).unwrap_or_else(|| {
        tables.push(TableReader::new(table));
        tables.len() - 1
    });
    &mut tables[index]
}

/// The columns of our own entries: what [`log_op`] says of c0, c1, c2, as text.
fn log_layout() -> Arc<Layout> {
    let column = |name: &str| layout::LayoutColumn { name: name.to_owned(), declared: String::new() };
    Arc::new(Layout {
        number: LOG_LAYOUT,
        table: columns::LOG_TABLE.to_owned(),
        columns: vec![column("a"), column("b"), column("c")],
        key: Vec::new(),
        excluded: Vec::new(),
    })
}

/// Layouts by number, read when first needed.
#[derive(Debug, Default)]
pub(crate) struct Layouts(HashMap<i64, Arc<Layout>>);

impl Layouts {
    pub(crate) fn get(&mut self, conn: &Connection, number: i64) -> Result<Arc<Layout>, CaptureError> {
        if let Some(layout) = self.0.get(&number) {
            return Ok(layout.clone());
        }
        self.0 = layout::read_all(conn)?.into_iter().map(|layout| (layout.number, Arc::new(layout))).collect();
        self.0
            .get(&number)
            .cloned()
            .ok_or_else(|| CaptureError::Damaged(format!("a journal row names layout {number}, which is unknown")))
    }
}

impl Layouts {
    /// The newest layout of a table.
    fn newest(&mut self, conn: &Connection, table: &str) -> Result<Option<Arc<Layout>>, CaptureError> {
        let newest = layout::read_all(conn)?.into_iter().rfind(|layout| layout.table == table);
        newest.map(|layout| self.get(conn, layout.number)).transpose()
    }
}

/// Collects one table's rows.
struct TableReader {
    table: String,
    layout: Option<Arc<Layout>>,
    seqs: Int64Builder,
    ops: UInt8Builder,
    changed: Int64Builder,
    values: Vec<ColumnBuilder>,
    /// Places of the key's columns.
    key: Vec<usize>,
    misfits: StringBuilder,
    has_misfit: bool,
    exact_keys: StringBuilder,
    has_exact_key: bool,
    marks: Vec<LoadMark>,
}

/// Journal columns before c0.
const FIXED_COLUMNS: usize = 4;

impl TableReader {
    fn new(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            layout: None,
            seqs: Int64Builder::new(),
            ops: UInt8Builder::new(),
            changed: Int64Builder::new(),
            values: Vec::new(),
            key: Vec::new(),
            misfits: StringBuilder::new(),
            has_misfit: false,
            exact_keys: StringBuilder::new(),
            has_exact_key: false,
            marks: Vec::new(),
        }
    }

    /// Whether a row of this layout can go with the rows so far.
    fn takes(&self, number: i64) -> bool {
        self.layout.as_ref().is_none_or(|known| known.number == number)
    }

    fn lay_out(&mut self, layout: &Arc<Layout>) {
        self.layout = Some(layout.clone());
        self.values = layout.columns.iter().map(|column| ColumnBuilder::new(&column.declared)).collect();
        let place = |name: &String| layout.columns.iter().position(|column| column.name == *name);
        self.key = layout.key.iter().filter_map(place).collect();
    }

    /// Appends a journal row; returns the size of its values.
    fn append(&mut self, layout: &Arc<Layout>, row: &Row<'_>, seq: Seq) -> Result<usize, CaptureError> {
        let doing = "reading a journal row";
        if self.layout.is_none() {
            self.lay_out(layout);
        }
        let op = row.get_ref(2).doing(doing)?;
        let op = op.as_bytes().ok().and_then(|text| text.first().copied());
        self.seqs.append_value(to_sql(seq));
        self.ops.append_value(op.ok_or_else(|| CaptureError::Damaged(format!("row {seq} has no operation")))?);
        self.changed.append_option(row.get_ref(3).doing(doing)?.as_f64().ok().map(julian_to_micros));
        let mut misfits = Map::new();
        let (mut bytes, mut is_key_exact) = (0, true);
        for (index, builder) in self.values.iter_mut().enumerate() {
            let value = row.get_ref(FIXED_COLUMNS + index).doing(doing)?;
            let length = value_bytes(value);
            let room = ROW_BYTES_MAX.saturating_sub(bytes);
            let fit = if length > room {
                builder.append_null();
                Fit::None
            } else {
                builder.append(value)
            };
            is_key_exact &= fit == Fit::Exact || !self.key.contains(&index);
            if fit != Fit::None {
                bytes += length;
                continue;
            }
            // As it is sent: bytes are twice as long in hexadecimal, and a text may be six times as
            // long in JSON.
            let misfit = Some(length).filter(|length| *length <= room).map(|_| misfit(value));
            let misfit = misfit.filter(|misfit| misfit.to_string().len() <= room);
            let name = &layout.columns[index].name;
            let misfit = misfit.unwrap_or_else(|| {
                tracing::error!(table = layout.table, %seq, column = name, length, "a value is too long to be sent");
                serde_json::json!({ "bytes": length })
            });
            bytes += misfit.to_string().len();
            misfits.insert(name.clone(), misfit);
        }
        let exact_key = match is_key_exact {
            true => None,
            false => exact_key(&self.key, row)?,
        };
        self.has_exact_key |= exact_key.is_some();
        self.exact_keys.append_option(exact_key);
        self.has_misfit |= !misfits.is_empty();
        let text = (!misfits.is_empty()).then(|| Value::Object(misfits).to_string());
        self.misfits.append_option(text);
        Ok(bytes)
    }

    fn finish(mut self) -> Result<TableChanges, CaptureError> {
        let Some(layout) = &self.layout else {
            let rows = RecordBatch::new_empty(SchemaRef::new(Schema::empty()));
            return Ok(TableChanges { table: self.table, rows, marks: self.marks });
        };
        let mut arrays: Vec<ArrayRef> =
            vec![Arc::new(self.seqs.finish()), Arc::new(self.ops.finish()), Arc::new(self.changed.finish())];
        if self.has_misfit {
            arrays.push(Arc::new(self.misfits.finish()));
        }
        if self.has_exact_key {
            arrays.push(Arc::new(self.exact_keys.finish()));
        }
        arrays.extend(self.values.iter_mut().map(ColumnBuilder::finish));
        let rows = RecordBatch::try_new(schema(layout, self.has_misfit, self.has_exact_key), arrays)
            .map_err(|error| CaptureError::Damaged(format!("rows of {:?}: {error}", self.table)))?;
        Ok(TableChanges { table: self.table, rows, marks: self.marks })
    }
}

/// The key of a journal row as JSON in which no two keys are the same; none if a part of it is
/// null, which names no row, or it is longer than a row may be.
fn exact_key(places: &[usize], row: &Row<'_>) -> Result<Option<String>, CaptureError> {
    let mut key = Vec::with_capacity(places.len());
    for place in places {
        match row.get_ref(FIXED_COLUMNS + place).doing("reading a journal row")? {
            ValueRef::Null => return Ok(None),
            value => key.push(Stored::from(value).exact()),
        }
    }
    Ok(Some(Value::Array(key).to_string()).filter(|key| key.len() <= ROW_BYTES_MAX / 8))
}

/// Ours come first: whoever looks for one of ours by its name finds it before a column of the
/// store's.
fn schema(layout: &Layout, has_misfit: bool, has_exact_key: bool) -> SchemaRef {
    let mut fields = vec![
        Field::new(columns::SEQ, DataType::Int64, false),
        Field::new(columns::OP, DataType::UInt8, false),
        Field::new(columns::CHANGED_AT, DataType::Int64, true),
    ];
    if has_misfit {
        fields.push(Field::new(columns::MISFIT, DataType::Utf8, true));
    }
    if has_exact_key {
        fields.push(Field::new(columns::EXACT_KEY, DataType::Utf8, true));
    }
    fields.extend(layout.columns.iter().map(|column| {
        let metadata = HashMap::from([(columns::METADATA_DECLARED.to_owned(), column.declared.clone())]);
        Field::new(&column.name, column_type(&column.declared), true).with_metadata(metadata)
    }));
    let key = Value::from(layout.key.clone()).to_string();
    SchemaRef::new(Schema::new_with_metadata(fields, HashMap::from([(columns::METADATA_KEY.to_owned(), key)])))
}

fn value_bytes(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null => 1,
        ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
    }
}

/// Days since noon of 4714-11-24 BC (SQLite's `julianday`) as microseconds since the Unix epoch.
fn julian_to_micros(days: f64) -> i64 {
    const UNIX_EPOCH_DAYS: f64 = 2_440_587.5;
    // The number has about 40 µs of resolution; milliseconds are what SQLite knew.
    ((days - UNIX_EPOCH_DAYS) * 86_400_000.0).round() as i64 * 1000
}

/// Advances `heads` to the journal's present end, in one read snapshot.
pub(crate) fn advance_heads(conn: &Connection, layouts: &mut Layouts, heads: &mut Heads) -> Result<(), CaptureError> {
    let doing = "reading the journal's head";
    let transaction = conn.unchecked_transaction().doing(doing)?;
    let mut statement = transaction
        .prepare_cached("SELECT t, max(seq) FROM _rollcall_journal WHERE seq > ?1 GROUP BY t")
        .doing(doing)?;
    let mut rows = statement.query([to_sql(heads.head)]).doing(doing)?;
    let mut head = heads.head;
    while let Some(row) = rows.next().doing(doing)? {
        let number: i64 = row.get(0).doing(doing)?;
        let seq = from_sql(row.get(1).doing(doing)?);
        head = head.max(seq);
        if number != LOG_LAYOUT {
            let layout = layouts.get(&transaction, number)?;
            let known = heads.tables.entry(layout.table.clone()).or_default();
            *known = seq.max(*known);
        }
    }
    heads.head = head;
    for table in crate::install::captured_tables(&transaction)? {
        heads.tables.entry(table).or_default();
    }
    let mut loads = transaction.prepare_cached("SELECT name FROM _rollcall_load WHERE kind = 'state'").doing(doing)?;
    let loading = loads.query_map([], |row| row.get(0)).doing(doing)?.collect::<Result<_, _>>();
    heads.loading = loading.doing(doing)?;
    Ok(())
}

pub(crate) fn to_sql(seq: Seq) -> i64 {
    i64::try_from(seq.0).unwrap_or(i64::MAX)
}

pub(crate) fn from_sql(seq: i64) -> Seq {
    Seq(u64::try_from(seq).unwrap_or_default())
}
