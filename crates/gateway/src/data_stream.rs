//! The data stream: frames become batches, batches parts, parts commits; and a batch is confirmed
//! when all its tables committed, in order.
//!
//! A batch that contradicts itself goes to quarantine whole, and the site carries on; see
//! [`crate::decode`].

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use futures::SinkExt;
use rollcall_books::quarantine::hq_name;
use rollcall_lake::{Lake, LakeError, Part, PartOutcome, SiteClock, Table};
use rollcall_registry::{Heard, HqError, Lane, Registry, SiteFact, sessions::Session};
use rollcall_types::{ChainHash, Epoch, Seq, SiteId, Timestamp, columns};
use rollcall_wire::{
    BATCH_BYTES_MAX,
    batch::Encoded,
    framing::Assembler,
    proto::{AskAgain, Confirmed, Credit, DataFrame, DataReply, Quarantined, data_reply::Message as Reply},
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

use crate::{
    decode::{Decoded, DecodedPart, LakeTable, Sender, decode_apart, texts, unreadable},
    gateway::GatewayParts,
    services::{HELLO_TIMEOUT, Outgoing, status_of},
};

/// Batches of one site being decoded or committed.
const IN_FLIGHT_MAX: usize = 64;

/// A batch on its way to the lake.
pub(crate) struct InFlight {
    pub(crate) first: Seq,
    pub(crate) last: Seq,
    pub(crate) bytes: u64,
    pub(crate) lane: Lane,
    pub(crate) parts: Vec<(String, oneshot::Receiver<PartOutcome>)>,
    pub(crate) quarantined: Option<String>,
}

/// Reads a session's batches until the stream or the session ends, and hands them to the lake.
pub(crate) async fn receive(
    parts: Arc<GatewayParts>,
    site: &SiteId,
    mut incoming: Streaming<DataFrame>,
    replies: Outgoing<DataReply>,
) -> Result<(), Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no frame came"))??;
    let Some(first) = first else { return Ok(()) };
    let session = parts.registry.sessions.get(site, first.session);
    let session = session.ok_or_else(|| Status::failed_precondition("no open control stream has this session"))?;
    if session.has_data.swap(true, Ordering::AcqRel) {
        return Err(Status::failed_precondition("this session has a data stream"));
    }
    let (queue, in_flight) = mpsc::channel(IN_FLIGHT_MAX);
    parts.registry.tasks.spawn(confirm(parts.registry.clone(), session.clone(), in_flight, replies));
    let mut assembler = Assembler::default();
    loop {
        let frame = tokio::select! {
            () = session.over.cancelled() => return Ok(()),
            message = incoming.message() => message?,
        };
        let Some(frame) = frame else { return Ok(()) };
        parts.registry.record_heard(&session.site, Heard::Contact);
        if let Some(encoded) = assembler.push(frame).map_err(|error| Status::invalid_argument(error.to_string()))? {
            let submitted = submit(&parts, &session, encoded).await.map_err(status_of)?;
            if queue.send(submitted).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Decodes a batch and hands its parts to their tables.
pub(crate) async fn submit(parts: &GatewayParts, session: &Session, encoded: Encoded) -> Result<InFlight, HqError> {
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
        let turn = if lane == Lane::Backlog { parts.ingest.turn().await } else { None };
        (lane, turn, parts.ingest.room(unpacked).await)
    };
    let (lane, _turn, room) = tokio::select! {
        biased;
        // Who is not connected any more waits for nothing.
        () = session.over.cancelled() => return Err(HqError::Invalid("the session is over".to_owned())),
        entered = enter => entered,
    };
    let bytes = encoded.payload.len() as u64;
    parts.ingest.metrics.batches.inc();
    parts.ingest.metrics.bytes.inc_by(bytes);
    let (first, last) = (Seq(header.first), Seq(header.last));
    let received_at = parts.registry.now();
    let zone = parts.registry.roster.get(&session.site).map(|record| record.zone()).unwrap_or_default();
    let clock = SiteClock { zone, offset_micros: session.clock_offset_micros() };
    let of_sender = Sender { quotas: parts.books.quotas.clone(), site: session.site.clone(), now: received_at };
    let decoded = decode_apart(&parts.registry.lake, &encoded, clock, Some(of_sender.clone())).await;
    let unreadable = |reason| unreadable(&parts.registry.lake, &encoded, &of_sender, reason);
    let Decoded { parts: of_tables, problems } = decoded.unwrap_or_else(unreadable);
    let room = room.map(Arc::new);
    let quarantined = (!problems.is_empty()).then(|| texts(&problems).join("; "));
    if let Some(reason) = &quarantined {
        tracing::error!(site = %session.site, %first, %last, reason, "a batch goes to quarantine");
        parts.ingest.metrics.quarantined.inc();
        let tables = problems.iter().map(|problem| problem.table.as_deref().map(hq_name)).collect();
        make_room(parts, &session.site, bytes, received_at).await?;
        let kept = parts.books.quarantine.keep(&session.site, &encoded, tables, reason, received_at).await?;
        parts.registry.record(&session.site, SiteFact::Quarantined(kept));
    }
    let mut outcomes = Vec::with_capacity(of_tables.len());
    for part in of_tables {
        let table = table_for(&parts.registry.lake, &part).await?;
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
        outcomes.push((part.table, parts.ingest.submit(&table, submitted, lane, room.clone()).await));
    }
    Ok(InFlight { first, last, bytes, lane, parts: outcomes, quarantined })
}

async fn table_for(lake: &Lake, part: &DecodedPart) -> Result<Arc<Table>, LakeError> {
    match &part.name {
        LakeTable::Log => Ok(lake.site_log().clone()),
        LakeTable::Site(name) => lake.table_or_create(name, &part.rows.key).await,
    }
}

/// An error if a site has as much in quarantine as it may, and all of that waits for somebody.
async fn make_room(parts: &GatewayParts, site: &SiteId, bytes: u64, now: Timestamp) -> Result<(), HqError> {
    let has_room = || parts.books.quotas.take_quarantine(site, parts.books.quarantine.bytes_of(site), bytes, now);
    if has_room().is_ok() {
        return Ok(());
    }
    parts.books.quarantine.let_go(site, &parts.registry.roster.all()).await?;
    has_room().map_err(HqError::Invalid)
}

/// [`answer`], until the stream ends; then the session may open another.
async fn confirm(
    registry: Arc<Registry>,
    session: Arc<Session>,
    in_flight: mpsc::Receiver<InFlight>,
    mut replies: Outgoing<DataReply>,
) {
    answer(&registry, &session, in_flight, &mut replies).await;
    // Before the site can see that this one has ended.
    session.has_data.store(false, Ordering::Release);
    drop(replies);
}

/// Answers batches in order: a batch is confirmed when all its tables committed, and never before
/// the one before it.
pub(crate) async fn answer(
    registry: &Registry,
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
                    registry.record_heard(&session.site, Heard::Rows { table, count: rows });
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
            registry.record(&session.site, SiteFact::Confirmed { through: confirmed });
            let lake_id = registry.lake.id().to_owned();
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
