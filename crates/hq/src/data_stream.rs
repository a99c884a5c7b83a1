//! The data stream: frames become batches, batches parts, parts commits; and a batch is confirmed
//! when all its tables committed, in order.
//!
//! What a site sends is not believed: a batch that contradicts itself goes to quarantine whole, and
//! the site carries on. Of one that can be read, what is sound is taken all the same.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
};

use arrow_array::{
    Array, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt8Array,
};
use futures::SinkExt;
use prost::Message;
use rollcall_lake::{
    Conformed, Lake, LakeError, MarkKind, Part, PartMark, PartOutcome, SiteClock, Table, conform, our_column,
};
use rollcall_roll::Condition;
use rollcall_types::{ChainHash, Epoch, Seq, SiteId, TableName, Timestamp, columns, describe};
use rollcall_wire::{
    BATCH_PARTS_MAX,
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
    // Sites that catch up take turns, a batch at a time; what happens now does not wait for them.
    let enter = async {
        let lane = session.lane.enter(Seq(header.last)).await;
        (lane, if lane == Lane::Backlog { shared.ingest.turn().await } else { None })
    };
    let (lane, _turn) = tokio::select! {
        // Who is not connected any more waits for nothing.
        () = session.over.cancelled() => return Err(HqError::Invalid("the session is over".to_owned())),
        entered = enter => entered,
    };
    let bytes = encoded.payload.len() as u64;
    let (first, last) = (Seq(header.first), Seq(header.last));
    let received_at = shared.now();
    let zone = shared.roster.get(&session.site).map(|record| record.zone()).unwrap_or_default();
    let clock = SiteClock { zone, offset_micros: session.clock_offset_micros };
    let lake = shared.lake.clone();
    let decoded = {
        let encoded = encoded.clone();
        tokio::task::spawn_blocking(move || {
            // Bytes from outside: the Arrow reader is known to panic on some that are malformed.
            std::panic::catch_unwind(AssertUnwindSafe(|| decode(&lake, &encoded, clock)))
                .unwrap_or_else(|_| Err("the rows are malformed".to_owned()))
        })
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
    };
    // Where nothing can be read, the cursors and the marks move on all the same: the rows are in quarantine.
    let Decoded { parts, problems } = decoded.unwrap_or_else(|reason| {
        // No table is made for a header that is not what its sender hashed.
        let is_sound = batch::verify(&encoded).is_ok();
        let parts = header.parts.iter().take(BATCH_PARTS_MAX).filter_map(|part| {
            let name = lake_table(&part.table).ok()?;
            let may_be = !name.is_published(&shared.lake) && (is_sound || name.exists(&shared.lake));
            if !may_be {
                return None;
            }
            Some(DecodedPart {
                name,
                table: part.table.clone(),
                previous: Seq(part.previous),
                marks: marks_of(&part.marks),
                rows: Conformed::empty(),
            })
        });
        Decoded { parts: parts.collect(), problems: vec![reason] }
    });
    let quarantined = (!problems.is_empty()).then(|| problems.join("; "));
    if let Some(reason) = &quarantined {
        tracing::error!(site = %session.site, %first, %last, reason, "a batch goes to quarantine");
        quarantine(shared, session, &encoded, reason, received_at).await?;
        shared.learned(&session.site, Fact::Quarantined { reason: reason.clone() });
        let text = format!("a batch of {} is in quarantine: {reason}", session.site);
        shared.heard(&session.site, Heard::Condition(Condition::Refused, Some(text)));
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
        outcomes.push((part.table, shared.ingest.submit(&table, submitted, lane).await));
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

    /// Whether HQ publishes it. A site's cursor there counts edits, not the journal, if it counts anything.
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

/// Whether the rows are what the lake relies on: ascending positions within the batch, and known operations.
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

/// A batch, and what is wrong with some of its parts: these are without the rows that cannot be taken.
struct Decoded {
    parts: Vec<DecodedPart>,
    problems: Vec<String>,
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

fn decode(lake: &Lake, encoded: &Encoded, clock: SiteClock) -> Result<Decoded, String> {
    batch::verify(encoded).map_err(|error| error.to_string())?;
    let batch = batch::decode(encoded).map_err(|error| describe(&error))?;
    let (mut parts, mut problems) = (Vec::with_capacity(batch.parts.len()), Vec::new());
    for part in batch.parts {
        check_rows(&part.rows, batch.first, batch.last)?;
        let name = lake_table(&part.table)?;
        if name.is_published(lake) {
            let table = &part.table;
            problems.push(format!(
                "{table}: HQ publishes this table, so sites cannot fill it; run `rollcall-site detach --table {table}` there"
            ));
            continue;
        }
        let rows = rows_of(lake, &name, &part, clock).unwrap_or_else(|problem| {
            problems.push(format!("{}: {problem}", part.table));
            Conformed::empty()
        });
        problems.extend(rows.unidentified.iter().map(|problem| format!("{}: {problem}", part.table)));
        let marks = marks_of(&part.marks);
        parts.push(DecodedPart { name, table: part.table, previous: part.previous, marks, rows });
    }
    Ok(Decoded { parts, problems })
}

/// A part's rows in its table's types.
fn rows_of(lake: &Lake, name: &LakeTable, part: &batch::Part, clock: SiteClock) -> Result<Conformed, String> {
    let schema = match name {
        LakeTable::Log => Some(lake.site_log().snapshot().schema().clone()),
        LakeTable::Site(name) => lake.table(name).map(|table| table.snapshot().schema().clone()),
    };
    let empty = rollcall_lake::TableSchema::for_sites(Vec::new());
    conform(&part.rows, schema.as_deref().unwrap_or(&empty), clock).map_err(|error| describe(&error))
}

/// Keeps a batch of which not everything could be taken, whole. Durable on return.
async fn quarantine(
    shared: &Shared,
    session: &Session,
    encoded: &Encoded,
    reason: &str,
    received_at: Timestamp,
) -> Result<(), HqError> {
    let table = shared.lake.quarantine();
    let header = encoded.header.encode_to_vec();
    let snapshot = table.snapshot();
    let schema = snapshot.schema().arrow().clone();
    let columns: Vec<Arc<dyn arrow_array::Array>> = vec![
        Arc::new(StringArray::from_iter_values([session.site.as_str()])),
        Arc::new(Int32Array::from_iter_values([session.epoch.0 as i32])),
        Arc::new(Int64Array::from_iter_values([encoded.header.first as i64])),
        Arc::new(Int64Array::from_iter_values([encoded.header.last as i64])),
        Arc::new(TimestampMicrosecondArray::from_iter_values([received_at.as_micros()]).with_timezone("UTC")),
        Arc::new(StringArray::from_iter_values([reason])),
        Arc::new(BinaryArray::from_iter_values([header.as_slice()])),
        Arc::new(BinaryArray::from_iter_values([encoded.payload.as_ref()])),
    ];
    let rows = RecordBatch::try_new(schema, columns).map_err(|error| HqError::Invalid(error.to_string()))?;
    table.append_rows(rows).await?;
    Ok(())
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
