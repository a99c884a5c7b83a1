//! From a batch as it came to parts that the lake can take.
//!
//! What a site sends is not believed: of a batch that contradicts itself nothing is taken. Of one
//! that can be read, what is sound is taken all the same.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc};

use arrow_array::{Array, Int64Array, RecordBatch, RecordBatchOptions, UInt8Array};
use rollcall_books::quotas::Quotas;
use rollcall_lake::{Conformed, Lake, MarkKind, PartMark, SiteClock, conform, our_column};
use rollcall_types::{Seq, SiteId, TEXT_BYTES_MAX, TableName, Timestamp, columns, describe, plain};
use rollcall_wire::{
    BATCH_PARTS_MAX,
    batch::{self, Encoded},
    proto::{Mark, mark::Kind},
};

/// Where a part's rows go.
pub(crate) enum LakeTable {
    Site(TableName),
    Log,
}

impl LakeTable {
    fn exists(&self, lake: &Lake) -> bool {
        match self {
            Self::Site(name) => lake.table(name).is_some(),
            Self::Log => true,
        }
    }

    /// Whether HQ publishes it. A site's cursor there counts edits, not the journal, if it counts
    /// anything.
    fn is_published(&self, lake: &Lake) -> bool {
        match self {
            Self::Site(name) => lake.table(name).is_some_and(|table| table.is_published()),
            Self::Log => false,
        }
    }
}

pub(crate) struct DecodedPart {
    pub(crate) name: LakeTable,
    pub(crate) table: String,
    pub(crate) previous: Seq,
    pub(crate) marks: Vec<PartMark>,
    pub(crate) rows: Conformed,
}

fn lake_table(table: &str) -> Result<LakeTable, String> {
    if table == columns::LOG_TABLE {
        return Ok(LakeTable::Log);
    }
    TableName::at_hq(table).map(LakeTable::Site).map_err(|error| error.to_string())
}

/// Whether the rows are what the lake relies on: ascending positions within the batch, and known
/// operations.
fn check_rows(rows: &RecordBatch, first: Seq, last: Seq) -> Result<(), String> {
    if rows.num_columns() == 0 {
        return Ok(());
    }
    let wrong = |what: &str| format!("rows without valid {what}");
    let seqs = our_column(rows, columns::SEQ).and_then(|column| column.as_any().downcast_ref::<Int64Array>());
    let seqs = seqs.filter(|seqs| seqs.null_count() == 0).ok_or_else(|| wrong("positions"))?;
    let ops = our_column(rows, columns::OP).and_then(|column| column.as_any().downcast_ref::<UInt8Array>());
    let ops = ops.filter(|ops| ops.null_count() == 0).ok_or_else(|| wrong("operations"))?;
    let within = seqs.values().iter().all(|seq| (first.0..=last.0).contains(&seq.unsigned_abs()) && *seq > 0);
    if !within || seqs.values().windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(wrong("positions"));
    }
    if ops.values().iter().any(|op| !op.is_ascii_uppercase()) {
        return Err(wrong("operations"));
    }
    Ok(())
}

/// Something of a batch that cannot be taken.
pub(crate) struct Problem {
    /// Of which table; none if it may be any.
    pub(crate) table: Option<String>,
    pub(crate) text: String,
}

pub(crate) fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|problem| problem.text.clone()).collect()
}

/// A batch, and what is wrong with some of its parts: these are without the rows that cannot be
/// taken.
pub(crate) struct Decoded {
    pub(crate) parts: Vec<DecodedPart>,
    pub(crate) problems: Vec<Problem>,
}

/// Who sends a batch, and what they may have HQ keep.
#[derive(Clone)]
pub(crate) struct Sender {
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) site: SiteId,
    pub(crate) now: Timestamp,
}

impl Sender {
    fn may_bring(&self, lake: &Lake, name: &LakeTable, rows: &Conformed) -> Result<(), String> {
        let LakeTable::Site(name) = name else { return Ok(()) };
        let schema = lake.table(name).map(|table| table.snapshot().schema().clone());
        self.quotas.take_columns(&self.site, name, schema.as_deref(), &rows.new_columns, self.now)
    }

    fn may_make(&self, lake: &Lake, name: &LakeTable) -> bool {
        self.may_bring(lake, name, &Conformed::empty()).is_ok()
    }
}

/// [`decode`], on a thread for long work.
pub(crate) async fn decode_apart(
    lake: &Arc<Lake>,
    encoded: &Encoded,
    clock: SiteClock,
    sender: Option<Sender>,
) -> Result<Decoded, String> {
    let (lake, encoded) = (lake.clone(), encoded.clone());
    let decoded = rollcall_runtime::blocking(move || {
        // Bytes from outside: the Arrow reader is known to panic on some that are malformed.
        std::panic::catch_unwind(AssertUnwindSafe(|| decode(&lake, &encoded, clock, sender.as_ref())))
            .unwrap_or_else(|_| Err("the rows are malformed".to_owned()))
    });
    decoded.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// What would be wrong with a batch if it came now; nothing is taken.
pub async fn problems(lake: &Arc<Lake>, encoded: &Encoded, clock: SiteClock) -> Vec<String> {
    match decode_apart(lake, encoded, clock, None).await {
        Ok(decoded) => texts(&decoded.problems),
        Err(reason) => vec![reason],
    }
}

/// A batch of which nothing can be read: the cursors and the marks move on all the same, since the
/// rows are in quarantine.
pub(crate) fn unreadable(lake: &Lake, encoded: &Encoded, sender: &Sender, reason: String) -> Decoded {
    let header = &encoded.header;
    // No table is made for a header that is not what its sender hashed, and what it says of tables
    // is not believed.
    let is_sound = batch::verify(encoded).is_ok() && header.parts.len() <= BATCH_PARTS_MAX;
    let parts = header.parts.iter().take(BATCH_PARTS_MAX).filter_map(|part| {
        let name = lake_table(&part.table).ok()?;
        let may_be = !name.is_published(lake) && (name.exists(lake) || is_sound && sender.may_make(lake, &name));
        may_be.then(|| DecodedPart {
            name,
            table: part.table.clone(),
            previous: Seq(part.previous),
            marks: marks_of(&part.marks),
            rows: Conformed::empty(),
        })
    });
    let of_part = |table: &String| Problem { table: Some(table.clone()), text: reason.clone() };
    let is_log = |table: &String| table == columns::LOG_TABLE;
    let tables = header.parts.iter().map(|part| &part.table);
    let problems = match is_sound && !tables.clone().any(is_log) {
        true => tables.map(of_part).collect(),
        false => vec![Problem { table: None, text: reason }],
    };
    Decoded { parts: parts.collect(), problems }
}

fn marks_of(marks: &[Mark]) -> Vec<PartMark> {
    let marks = marks.iter().filter_map(|mark| {
        let kind = match mark.kind() {
            Kind::LoadBegun => MarkKind::LoadBegun,
            Kind::LoadComplete => MarkKind::LoadComplete,
            Kind::Unspecified => return None,
        };
        Some(PartMark { kind, seq: Seq(mark.seq), begin: Seq(mark.begin) })
    });
    marks.collect()
}

fn decode(lake: &Lake, encoded: &Encoded, clock: SiteClock, sender: Option<&Sender>) -> Result<Decoded, String> {
    batch::verify(encoded).map_err(|error| error.to_string())?;
    let batch = batch::decode(encoded).map_err(|error| describe(&error))?;
    let (mut parts, mut problems) = (Vec::with_capacity(batch.parts.len()), Vec::new());
    for part in batch.parts {
        check_rows(&part.rows, batch.first, batch.last)?;
        let name = lake_table(&part.table)?;
        if name.is_published(lake) {
            let table = &part.table;
            problems.push(problem_of(
                &part.table,
                &format!(
                    "HQ publishes this table, so sites cannot fill it; run `rollcall-site detach --table {table}` there"
                ),
            ));
            continue;
        }
        let mut rows = rows_of(lake, &name, &part, clock).unwrap_or_else(|problem| {
            problems.push(problem_of(&part.table, &problem));
            Conformed::empty()
        });
        if let Some(Err(refused)) = sender.map(|sender| sender.may_bring(lake, &name, &rows)) {
            problems.push(problem_of(&part.table, &refused));
            // The cursor of a table that is there moves on, as with all rows that are in
            // quarantine.
            if !name.exists(lake) {
                continue;
            }
            rows = Conformed::empty();
        }
        problems.extend(rows.unidentified.iter().map(|problem| problem_of(&part.table, problem)));
        let marks = marks_of(&part.marks);
        parts.push(DecodedPart { name, table: part.table, previous: part.previous, marks, rows });
    }
    Ok(Decoded { parts, problems })
}

fn problem_of(table: &str, text: &str) -> Problem {
    // What is wrong with the site's log may concern any table.
    let of = (table != columns::LOG_TABLE).then(|| table.to_owned());
    Problem { table: of, text: plain(&format!("{table}: {text}"), TEXT_BYTES_MAX) }
}

/// A part's rows in its table's types.
fn rows_of(lake: &Lake, name: &LakeTable, part: &batch::Part, clock: SiteClock) -> Result<Conformed, String> {
    let schema = match name {
        LakeTable::Log => Some(lake.site_log().snapshot().schema().clone()),
        LakeTable::Site(name) => lake.table(name).map(|table| table.snapshot().schema().clone()),
    };
    let empty = rollcall_lake::TableSchema::for_sites(Vec::new());
    if matches!(name, LakeTable::Log) {
        let rows = log_rows(&part.rows)?;
        return conform(&rows, schema.as_deref().unwrap_or(&empty), clock).map_err(|error| describe(&error));
    }
    conform(&part.rows, schema.as_deref().unwrap_or(&empty), clock).map_err(|error| describe(&error))
}

/// Rows of the sites' log with the columns that it has. Its key and its columns are HQ's own to
/// say: a site that brings others would have all other sites' rows refused.
fn log_rows(rows: &RecordBatch) -> Result<RecordBatch, String> {
    const COLUMNS: [&str; 6] = [columns::SEQ, columns::OP, columns::CHANGED_AT, "a", "b", "c"];
    let fields = rows.schema_ref().fields().iter().enumerate();
    let places: Vec<usize> =
        fields.filter(|(_, field)| COLUMNS.contains(&field.name().as_str())).map(|(place, _)| place).collect();
    let projected = rows.project(&places).map_err(|error| error.to_string())?;
    let schema = projected.schema().as_ref().clone().with_metadata(HashMap::new());
    let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let columns = projected.columns().to_vec();
    RecordBatch::try_new_with_options(Arc::new(schema), columns, &count).map_err(|error| error.to_string())
}
