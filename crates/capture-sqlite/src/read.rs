//! Reads the journal in order and turns its untyped rows into typed columns, table by table.

mod rows;

use std::{collections::HashMap, sync::Arc};

use rollcall_capture::{Anchor, Changes, Heads, LoadMark};
use rollcall_types::{Seq, columns};
use rusqlite::{Connection, Row};

use self::rows::TableReader;
use crate::{
    error::{CaptureError, Doing},
    layout::{self, LOG_LAYOUT, Layout},
    load::log_op,
    stored::hex,
    withheld::{self, Withheld},
};

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

/// Reads journal rows behind `after`, at most `rows_max` rows or about `bytes_max` bytes of values,
/// without what is withheld. Rows are not read of which all are: a batch brings HQ something that
/// it keeps.
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
    let mut statement =
        transaction.prepare_cached("SELECT * FROM _rollcall_journal WHERE seq > ?1 ORDER BY seq").doing(doing)?;
    let mut rows = statement.query([to_sql(after)]).doing(doing)?;
    let withheld = Withheld::read(&transaction)?;
    let mut tables: Vec<TableReader> = Vec::new();
    let mut last = after;
    let (mut bytes, mut kept) = (0, 0);
    while let Some(row) = rows.next().doing(doing)? {
        let seq = from_sql(row.get(0).doing(doing)?);
        if seq.0 != last.0 + 1 {
            if kept == 0 {
                return Ok(ReadOutcome::Gap { from: Seq(last.0 + 1), to: Seq(seq.0 - 1) });
            }
            break;
        }
        let number: i64 = row.get(1).doing(doing)?;
        if number == LOG_LAYOUT {
            read_log(&transaction, layouts, &withheld, &mut tables, row, seq)?;
        } else {
            let layout = layouts.get(&transaction, number)?;
            if withheld.has_table(&layout.table) {
                last = seq;
                continue;
            }
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
            bytes += ROW_OVERHEAD_BYTES + tables[index].append(&layout, &withheld, row, seq)?;
        }
        last = seq;
        kept += 1;
        if bytes >= bytes_max || kept >= rows_max {
            break;
        }
    }
    if kept == 0 {
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
    withheld: &Withheld,
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
    let table = mark.map(|_| row.get::<_, String>(4).doing(doing)).transpose()?;
    if let Some((mark, table)) = mark.zip(table).filter(|(_, table)| !withheld.has_table(table)) {
        let reader = reader_of(tables, &table);
        reader.marks.push(mark);
        if reader.layout.is_none()
            && let Some(layout) = layouts.newest(conn, &table)?
        {
            // HQ learns the table's columns and key even if no row comes.
            reader.lay_out(&layout, withheld);
        }
    }
    let layout = log_layout();
    let stated = if op == log_op::MANIFEST { withheld.manifest(row.get(6).doing(doing)?)? } else { None };
    reader_of(tables, columns::LOG_TABLE).append_stated(&layout, row, seq, stated.as_deref())?;
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
    let withheld = withheld::tables(&transaction)?;
    heads.tables.retain(|table, _| !withheld.contains(table));
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
