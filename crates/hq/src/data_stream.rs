//! The data stream: frames become batches, batches parts, parts commits; and a batch is confirmed
//! when all its tables committed, in order.
//!
//! What a site sends is not believed: a batch that contradicts itself goes to quarantine whole, and
//! the site carries on. Of one that can be read, what is sound is taken all the same.

use std::{
    collections::{HashMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
};

use arrow_array::{Array, Int64Array, RecordBatch, RecordBatchOptions, UInt8Array};
use futures::SinkExt;
use rollcall_lake::{
    Conformed, Lake, LakeError, MarkKind, Part, PartMark, PartOutcome, SiteClock, Table, conform, our_column,
};
use rollcall_types::{ChainHash, Epoch, Seq, SiteId, TEXT_BYTES_MAX, TableName, Timestamp, columns, describe, plain};
use rollcall_wire::{
    BATCH_BYTES_MAX, BATCH_PARTS_MAX,
    batch::{self, Encoded},
    framing::Assembler,
    proto::{
        AskAgain, Confirmed, Credit, DataFrame, DataReply, Mark, Quarantined, data_reply::Message as Reply, mark::Kind,
    },
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

use crate::{
    error::HqError,
    facts::Fact,
    gateway::{HELLO_TIMEOUT, Outgoing, status_of},
    lanes::Lane,
    node::Shared,
    quarantine::hq_name,
    quotas::Quotas,
    sessions::Session,
    watching::Heard,
};

/// Batches of one site being decoded or committed.
const IN_FLIGHT_MAX: usize = 64;

/// A batch on its way to the lake.
struct InFlight {
    first: Seq,
    last: Seq,
    bytes: u64,
    lane: Lane,
    parts: Vec<(String, oneshot::Receiver<PartOutcome>)>,
    quarantined: Option<String>,
}

/// Reads a session's batches until the stream or the session ends, and hands them to the lake.
pub(crate) async fn receive(
    shared: Arc<Shared>,
    site: &SiteId,
    mut incoming: Streaming<DataFrame>,
    replies: Outgoing<DataReply>,
) -> Result<(), Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no frame came"))??;
    let Some(first) = first else { return Ok(()) };
    let session = shared.sessions.get(site, first.session);
    let session = session.ok_or_else(|| Status::failed_precondition("no open control stream has this session"))?;
    if session.has_data.swap(true, Ordering::AcqRel) {
        return Err(Status::failed_precondition("this session has a data stream"));
    }
    let (queue, in_flight) = mpsc::channel(IN_FLIGHT_MAX);
    shared.tasks.spawn(confirm(shared.clone(), session.clone(), in_flight, replies));
    let mut assembler = Assembler::default();
    loop {
        let frame = tokio::select! {
            () = session.over.cancelled() => return Ok(()),
            message = incoming.message() => message?,
        };
        let Some(frame) = frame else { return Ok(()) };
        shared.heard(&session.site, Heard::Contact);
        if let Some(encoded) = assembler.push(frame).map_err(|error| Status::invalid_argument(error.to_string()))? {
            let submitted = submit(&shared, &session, encoded).await.map_err(status_of)?;
            if queue.send(submitted).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Decodes a batch and hands its parts to their tables.
async fn submit(shared: &Arc<Shared>, session: &Session, encoded: Encoded) -> Result<InFlight, HqError> {
    let header = encoded.header.clone();
    if Epoch(header.epoch) != session.epoch {
        return Err(HqError::Invalid(format!(
            "the batch is of epoch {}, the session of {}",
            header.epoch, session.epoch
        )));
    }
    // What it says of itself is not checked yet; more than this is refused.
    let unpacked = header.payload_bytes.max(encoded.payload.len() as u64).min(BATCH_BYTES_MAX as u64);
    // Sites that catch up take turns, a batch at a time; what happens now does not wait for them.
    let enter = async {
        let lane = session.lane.enter(Seq(header.last)).await;
        let turn = if lane == Lane::Backlog { shared.ingest.turn().await } else { None };
        (lane, turn, shared.ingest.room(unpacked).await)
    };
    let (lane, _turn, room) = tokio::select! {
        // Who is not connected any more waits for nothing.
        () = session.over.cancelled() => return Err(HqError::Invalid("the session is over".to_owned())),
        entered = enter => entered,
    };
    let bytes = encoded.payload.len() as u64;
    let (first, last) = (Seq(header.first), Seq(header.last));
    let received_at = shared.now();
    let zone = shared.roster.get(&session.site).map(|record| record.zone()).unwrap_or_default();
    let clock = SiteClock { zone, offset_micros: session.clock_offset_micros() };
    let of_sender = Sender { quotas: shared.quotas.clone(), site: session.site.clone(), now: received_at };
    let decoded = decode_apart(&shared.lake, &encoded, clock, Some(of_sender.clone())).await;
    let unreadable = |reason| unreadable(&shared.lake, &encoded, &of_sender, reason);
    let Decoded { parts, problems } = decoded.unwrap_or_else(unreadable);
    let room = room.map(Arc::new);
    let quarantined = (!problems.is_empty()).then(|| texts(&problems).join("; "));
    if let Some(reason) = &quarantined {
        tracing::error!(site = %session.site, %first, %last, reason, "a batch goes to quarantine");
        let tables = problems.iter().map(|problem| problem.table.as_deref().map(hq_name)).collect();
        make_room(shared, &session.site, bytes, received_at).await?;
        let kept = shared.quarantine.keep(&session.site, &encoded, tables, reason, received_at).await?;
        shared.learned(&session.site, Fact::Quarantined(kept));
    }
    let mut outcomes = Vec::with_capacity(parts.len());
    for part in parts {
        let table = table_for(&shared.lake, &part).await?;
        let submitted = Part {
            site: session.number,
            site_id: session.site.clone(),
            epoch: session.epoch,
            previous: part.previous,
            last,
            hash: ChainHash::new(header.hash),
            marks: part.marks,
            rows: part.rows,
            received_at,
            whole: false,
        };
        outcomes.push((part.table, shared.ingest.submit(&table, submitted, lane, room.clone()).await));
    }
    Ok(InFlight { first, last, bytes, lane, parts: outcomes, quarantined })
}

/// Where a part's rows go.
enum LakeTable {
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

struct DecodedPart {
    name: LakeTable,
    table: String,
    previous: Seq,
    marks: Vec<PartMark>,
    rows: Conformed,
}

fn lake_table(table: &str) -> Result<LakeTable, String> {
    if table == columns::LOG_TABLE {
        return Ok(LakeTable::Log);
    }
    TableName::at_hq(table).map(LakeTable::Site).map_err(|error| error.to_string())
}

async fn table_for(lake: &Lake, part: &DecodedPart) -> Result<Arc<Table>, LakeError> {
    match &part.name {
        LakeTable::Log => Ok(lake.site_log().clone()),
        LakeTable::Site(name) => lake.table_or_create(name, &part.rows.key).await,
    }
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
struct Problem {
    /// Of which table; none if it may be any.
    table: Option<String>,
    text: String,
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|problem| problem.text.clone()).collect()
}

/// A batch, and what is wrong with some of its parts: these are without the rows that cannot be
/// taken.
struct Decoded {
    parts: Vec<DecodedPart>,
    problems: Vec<Problem>,
}

/// Who sends a batch, and what they may have HQ keep.
#[derive(Clone)]
struct Sender {
    quotas: Arc<Quotas>,
    site: SiteId,
    now: Timestamp,
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

/// An error if a site has as much in quarantine as it may, and all of that waits for somebody.
async fn make_room(shared: &Shared, site: &SiteId, bytes: u64, now: Timestamp) -> Result<(), HqError> {
    let has_room = || shared.quotas.take_quarantine(site, shared.quarantine.bytes_of(site), bytes, now);
    if has_room().is_ok() {
        return Ok(());
    }
    shared.quarantine.let_go(site, &shared.roster.all()).await?;
    has_room().map_err(HqError::Invalid)
}

/// [`decode`], on a thread for long work.
async fn decode_apart(
    lake: &Arc<Lake>,
    encoded: &Encoded,
    clock: SiteClock,
    sender: Option<Sender>,
) -> Result<Decoded, String> {
    let (lake, encoded) = (lake.clone(), encoded.clone());
    let decoded = tokio::task::spawn_blocking(move || {
        // Bytes from outside: the Arrow reader is known to panic on some that are malformed.
        std::panic::catch_unwind(AssertUnwindSafe(|| decode(&lake, &encoded, clock, sender.as_ref())))
            .unwrap_or_else(|_| Err("the rows are malformed".to_owned()))
    });
    decoded.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// What would be wrong with a batch if it came now.
pub(crate) async fn problems(lake: &Arc<Lake>, encoded: &Encoded, clock: SiteClock) -> Vec<String> {
    match decode_apart(lake, encoded, clock, None).await {
        Ok(decoded) => texts(&decoded.problems),
        Err(reason) => vec![reason],
    }
}

/// A batch of which nothing can be read: the cursors and the marks move on all the same, since the
/// rows are in quarantine.
fn unreadable(lake: &Lake, encoded: &Encoded, sender: &Sender, reason: String) -> Decoded {
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

/// [`answer`], until the stream ends; then the session may open another.
async fn confirm(
    shared: Arc<Shared>,
    session: Arc<Session>,
    in_flight: mpsc::Receiver<InFlight>,
    mut replies: Outgoing<DataReply>,
) {
    answer(&shared, &session, in_flight, &mut replies).await;
    // Before the site can see that this one has ended.
    session.has_data.store(false, Ordering::Release);
    drop(replies);
}

/// Answers batches in order: a batch is confirmed when all its tables committed, and never before
/// the one before it.
async fn answer(
    shared: &Shared,
    session: &Session,
    mut in_flight: mpsc::Receiver<InFlight>,
    replies: &mut Outgoing<DataReply>,
) {
    let mut confirmed = Seq(session.confirmed_through.load(Ordering::Acquire));
    let mut finished: VecDeque<Reply> = VecDeque::new();
    while let Some(batch) = in_flight.recv().await {
        let mut gap = None;
        for (table, outcome) in batch.parts {
            match outcome.await {
                Ok(PartOutcome::Durable { rows: 0 }) => {}
                Ok(PartOutcome::Durable { rows }) if table != columns::LOG_TABLE => {
                    shared.heard(&session.site, Heard::Rows { table, count: rows });
                }
                Ok(PartOutcome::Durable { .. }) => {}
                Ok(PartOutcome::Gap { cursor }) => gap = Some((table, cursor)),
                Err(_) => {
                    // The commit's outcome is unknown. The site connects again and continues from
                    // what is confirmed.
                    let _ = replies.send(Err(Status::unavailable("a commit failed; send again"))).await;
                    session.over.cancel();
                    return;
                }
            }
        }
        session.lane.leave(batch.lane);
        finished.push_back(Reply::Credit(Credit { bytes: batch.bytes }));
        if let Some((table, cursor)) = gap {
            finished.push_back(Reply::AskAgain(AskAgain { table, cursor: cursor.0 }));
        } else if batch.first.0 <= confirmed.0 + 1 {
            confirmed = batch.last.max(confirmed);
            session.confirmed_through.store(confirmed.0, Ordering::Release);
            shared.learned(&session.site, Fact::Confirmed { through: confirmed });
            let lake_id = shared.lake.id().to_owned();
            finished.push_back(Reply::Confirmed(Confirmed { epoch: session.epoch.0, through: confirmed.0, lake_id }));
        }
        if let Some(reason) = batch.quarantined {
            finished.push_back(Reply::Quarantined(Quarantined { first: batch.first.0, last: batch.last.0, reason }));
        }
        while let Some(message) = finished.pop_front() {
            if replies.send(Ok(DataReply { message: Some(message) })).await.is_err() {
                return;
            }
        }
    }
}
