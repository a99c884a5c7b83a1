//! The port sites connect to: enrolment, the control stream, the data stream.

use rollcall_types::describe;
use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow_array::{
    Array, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt8Array,
};
use prost::Message;
use rollcall_lake::{
    Conformed, Lake, LakeError, MarkKind, Part, PartMark, PartOutcome, SiteClock, Table, conform, our_columns,
};
use rollcall_types::{Cause, ChainHash, Epoch, Seq, SiteId, SiteNumber, TableName, Timestamp, columns};
use rollcall_wire::{
    PROTOCOL, PROTOCOL_MIN,
    batch::{self, Encoded},
    framing::Assembler,
    proto::{
        Ask, AskAgain, Confirmed, Credit, Cursor, DataFrame, DataReply, EnrolRequest, Hello, HqControl, Identity,
        Quarantined, Refused, RenewRequest, Settings, SiteControl, Welcome, data_reply::Message as Reply,
        enrolment_server::Enrolment, hq_control::Message as ToSite, mark::Kind, site_control::Message as FromSite,
        sites_server::Sites,
    },
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    authority::{Authority, Peer, peer_of},
    error::HqError,
    node::Shared,
    sessions::Session,
};

/// Bytes a site may have in flight before anything is confirmed.
const CREDIT_BYTES: u64 = 4 * 1024 * 1024;
/// Batches of one site being decoded or committed.
const IN_FLIGHT_MAX: usize = 64;
/// Tables in one batch.
const PARTS_MAX: usize = 1000;
/// The first message must come within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(15);

/// Implements the protocol's services.
#[derive(Clone)]
pub(crate) struct Gateway(pub(crate) Arc<Shared>);

fn status_of(error: HqError) -> Status {
    match error {
        HqError::Invalid(_) | HqError::NotFound(_) => Status::permission_denied(error.to_string()),
        other => {
            tracing::error!(error = %describe(&other), "a site's request failed");
            Status::unavailable("HQ cannot do this now; try again")
        }
    }
}

#[tonic::async_trait]
impl Enrolment for Gateway {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<Identity>, Status> {
        let request = request.into_inner();
        let shared = &self.0;
        let key_hash = Authority::request_key_hash(&request.csr_pem).map_err(status_of)?;
        let site = match shared.roster.enrol(&request.token, &key_hash, shared.now()).await {
            Ok(site) => site,
            Err(error) => {
                shared.ledger.unknown_sender("(enrolment with an invalid invitation)", shared.now());
                return Err(status_of(error));
            }
        };
        // Whoever speaks for the site now does so with the key that was just replaced.
        shared.sessions.cut(&site);
        tracing::info!(%site, "enrolled");
        self.identity(&site, &request.csr_pem)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Identity>, Status> {
        let request = request.into_inner();
        let site = SiteId::new(&request.site).map_err(|error| Status::invalid_argument(error.to_string()))?;
        // The request is signed with the site's own key, which is all that counts: its certificate may have expired.
        let key_hash = Authority::request_key_hash(&request.csr_pem).map_err(status_of)?;
        let record = self.0.roster.get(&site);
        let known = record.and_then(|record| record.key_hash);
        if known.as_deref() != Some(key_hash.as_str()) {
            self.0.ledger.unknown_sender(site.as_str(), self.0.now());
            return Err(Status::permission_denied("this key is not on the roster; ask HQ for an invitation"));
        }
        tracing::info!(%site, "certificate renewed");
        self.identity(&site, &request.csr_pem)
    }
}

impl Gateway {
    fn identity(&self, site: &SiteId, csr_pem: &str) -> Result<Response<Identity>, Status> {
        let certificate = self.0.authority.sign_site(site, csr_pem).map_err(status_of)?;
        Ok(Response::new(Identity {
            site: site.to_string(),
            certificate_pem: certificate.pem,
            ca_pem: self.0.authority.ca_pem().to_owned(),
            not_after_micros: certificate.not_after.as_micros(),
        }))
    }

    /// Who calls: a valid certificate is not enough, the key must be the one on the roster now.
    fn caller<T>(&self, request: &Request<T>) -> Result<(Peer, SiteNumber), Status> {
        let certificates = request.peer_certs();
        let first = certificates.as_ref().and_then(|chain| chain.first());
        let peer = first.and_then(|der| peer_of(der.as_ref()));
        let peer = peer.ok_or_else(|| Status::unauthenticated("a site's certificate is needed"))?;
        let record = self.0.roster.get(&peer.site);
        match record {
            Some(record) if record.key_hash.as_deref() == Some(peer.key_hash.as_str()) => {
                Ok((peer, SiteNumber(record.number)))
            }
            Some(record) if record.retired.is_some() => Err(Status::permission_denied("this site was retired")),
            _ => {
                self.0.ledger.unknown_sender(peer.site.as_str(), self.0.now());
                Err(Status::permission_denied("this site's key is not on the roster; ask HQ for an invitation"))
            }
        }
    }
}

type Outgoing<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl Sites for Gateway {
    type ControlStream = Outgoing<HqControl>;
    type DataStream = Outgoing<DataReply>;

    async fn control(&self, request: Request<Streaming<SiteControl>>) -> Result<Response<Self::ControlStream>, Status> {
        let (peer, number) = self.caller(&request)?;
        let address = request.remote_addr().map_or_else(String::new, |address| address.to_string());
        let (sender, receiver) = mpsc::channel(16);
        let control =
            Control { shared: self.0.clone(), peer, number, address, incoming: request.into_inner(), outgoing: sender };
        self.0.tasks.spawn(control.run());
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn data(&self, request: Request<Streaming<DataFrame>>) -> Result<Response<Self::DataStream>, Status> {
        let (peer, _) = self.caller(&request)?;
        let (sender, receiver) = mpsc::channel(64);
        let shared = self.0.clone();
        self.0.tasks.spawn(async move {
            if let Err(status) = receive_data(shared, peer, request.into_inner(), sender.clone()).await {
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

struct Control {
    shared: Arc<Shared>,
    peer: Peer,
    number: SiteNumber,
    address: String,
    incoming: Streaming<SiteControl>,
    outgoing: mpsc::Sender<Result<HqControl, Status>>,
}

impl Control {
    async fn run(mut self) {
        let hello = tokio::time::timeout(HELLO_TIMEOUT, self.incoming.message()).await;
        let Ok(Ok(Some(SiteControl { message: Some(FromSite::Hello(hello)) }))) = hello else {
            self.fail(Status::invalid_argument("the first message must be Hello")).await;
            return;
        };
        self.shared.ledger.heard(&self.peer.site, self.shared.now());
        let session = match self.welcome(&hello).await {
            Ok(session) => session,
            Err(Turned::Away { code, cause, message }) => {
                tracing::warn!(site = %self.peer.site, code, message, "turned away");
                if let Some(cause) = cause {
                    self.shared.ledger.refused(&self.peer.site, cause, message.clone());
                }
                self.send(ToSite::Refused(Refused { code: code.to_owned(), message })).await;
                return;
            }
            Err(Turned::Failed(error)) => {
                self.fail(status_of(error)).await;
                return;
            }
        };
        tracing::info!(site = %session.site, epoch = %session.epoch, address = %self.address, agent = hello.agent_version, "connected");
        self.serve(&session).await;
        self.shared.sessions.close(&session);
        tracing::info!(site = %session.site, "disconnected");
    }

    async fn send(&self, message: ToSite) {
        // A closed stream is noticed where the site is read from.
        let _ = self.outgoing.send(Ok(HqControl { message: Some(message) })).await;
    }

    async fn fail(&self, status: Status) {
        let _ = self.outgoing.send(Err(status)).await;
    }

    /// Checks the site's journal against the lake and opens a session.
    async fn welcome(&self, hello: &Hello) -> Result<Arc<Session>, Turned> {
        let now = self.shared.now();
        if hello.protocol < PROTOCOL_MIN || hello.protocol_min > PROTOCOL {
            let message = format!(
                "HQ speaks protocol {PROTOCOL_MIN} to {PROTOCOL}, the agent {} to {}; update the older one",
                hello.protocol_min, hello.protocol
            );
            return Err(Turned::Away { code: "protocol", cause: Some(Cause::HqRefuses), message });
        }
        if self.shared.sessions.is_clone(&self.peer.site, &hello.instance, now) {
            let message = "two running copies of this site take turns; stop one, then invite the site anew".to_owned();
            return Err(Turned::Away { code: "clone", cause: Some(Cause::CloneOrRewind), message });
        }
        let (epoch, reason) = self.epoch_for(hello).await?;
        self.open(hello, epoch, reason, now).await
    }

    async fn open(&self, hello: &Hello, epoch: Epoch, reason: String, now: Timestamp) -> Result<Arc<Session>, Turned> {
        let site = &self.peer.site;
        let cursors = cursors(&self.shared.lake, self.number, epoch);
        let same_epoch = Epoch(hello.epoch) == epoch;
        let confirmed = if same_epoch { Seq(hello.confirmed) } else { Seq(hello.oldest.saturating_sub(1)) };
        let session = Arc::new(Session {
            id: self.shared.sessions.next_id(),
            site: site.clone(),
            number: self.number,
            epoch,
            confirmed,
            clock_offset_micros: now.as_micros() - hello.clock_micros,
            has_data: AtomicBool::new(false),
            over: self.shared.stop.child_token(),
        });
        self.shared.sessions.open(session.clone());
        let record = self.shared.roster.get(site);
        if record.and_then(|record| record.key_hash).as_deref() != Some(self.peer.key_hash.as_str()) {
            // It was retired or enrolled anew while this one said hello.
            self.shared.sessions.close(&session);
            let message = "this site was retired or enrolled anew".to_owned();
            return Err(Turned::Away { code: "not-on-roster", cause: None, message });
        }
        let detail = format!("agent {} at {}", hello.agent_version, self.address);
        self.shared.ledger.welcomed(site, !same_epoch, Seq(hello.head), confirmed, detail);
        self.send(ToSite::Welcome(Welcome {
            protocol: hello.protocol.min(PROTOCOL),
            session: session.id,
            lake_id: self.shared.lake.id().to_owned(),
            epoch: epoch.0,
            cursors: cursors
                .iter()
                .map(|(table, cursor)| Cursor { table: table.to_string(), seq: cursor.seq.0, hash: cursor.hash.get() })
                .collect(),
            now_micros: now.as_micros(),
            credit_bytes: CREDIT_BYTES,
            settings: Some(Settings {
                beacon_interval_ms: u32::try_from(self.shared.config.beacon_interval.as_millis()).unwrap_or(u32::MAX),
                hq_addresses: self.shared.config.announce.clone(),
            }),
            epoch_reason: reason,
        }))
        .await;
        Ok(session)
    }

    /// The epoch this journal belongs to, and why if it is a new one.
    async fn epoch_for(&self, hello: &Hello) -> Result<(Epoch, String), Turned> {
        let site = &self.peer.site;
        let record = self.shared.roster.get(site).and_then(|record| record.journal);
        let reason = match &record {
            None => Some("first contact".to_owned()),
            Some(journal) if journal.id != hello.journal_id => {
                Some("the journal was created anew at the site".to_owned())
            }
            Some(journal) if journal.epoch.0 != hello.epoch => Some(format!(
                "the site came with epoch {}, HQ knows {}: its database or state was restored",
                hello.epoch, journal.epoch
            )),
            Some(journal) => match self.shared.sessions.take_wanted_epoch(site) {
                Some(reason) => Some(reason),
                None => self.compare(hello, journal.epoch)?,
            },
        };
        match (reason, record) {
            (None, Some(journal)) => Ok((journal.epoch, String::new())),
            (reason, _) => {
                let reason = reason.unwrap_or_default();
                let epoch = self.shared.roster.new_epoch(site, &hello.journal_id, &reason, self.shared.now()).await?;
                if epoch == Epoch(1) {
                    tracing::info!(%site, "first contact");
                } else {
                    tracing::warn!(%site, %epoch, reason, "a new epoch");
                }
                Ok((epoch, reason))
            }
        }
    }

    /// Compares positions within the same epoch; a reason for a new one if they are at odds.
    fn compare(&self, hello: &Hello, epoch: Epoch) -> Result<Option<String>, Turned> {
        let cursors = cursors(&self.shared.lake, self.number, epoch);
        let log = self.shared.lake.site_log().snapshot().cursor(self.number, epoch).unwrap_or_default();
        let newest = cursors.iter().map(|(_, cursor)| cursor.seq.0).max().unwrap_or_default().max(log.seq.0);
        if hello.accept_older_lake {
            return Ok(Some("a person told the site to send again to a lake restored from a backup".to_owned()));
        }
        if newest > hello.head {
            return Ok(Some(format!(
                "HQ has changes up to {newest}, the site's journal ends at {}: its database went back in time",
                hello.head
            )));
        }
        if newest < hello.confirmed {
            let message = format!(
                "this lake holds changes up to {newest}, but the site has a confirmation up to {}: was HQ restored from a \
                 backup? If so, run `rollcall-site resend` at the site",
                hello.confirmed
            );
            return Err(Turned::Away { code: "older-lake", cause: Some(Cause::HqRefuses), message });
        }
        // Whether both remember the same changes is for the site to say: it alone knows every batch it ever sent.
        Ok(None)
    }

    async fn serve(&mut self, session: &Arc<Session>) {
        let mut ask = tokio::time::interval(self.shared.config.beacon_interval);
        ask.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = session.over.cancelled() => {
                    let message = if self.shared.stop.is_cancelled() {
                        "HQ is stopping; connect again soon"
                    } else {
                        "another connection speaks for this site, or it was retired"
                    };
                    let code = if self.shared.stop.is_cancelled() { "stopping" } else { "superseded" };
                    self.send(ToSite::Refused(Refused { code: code.to_owned(), message: message.to_owned() })).await;
                    return;
                }
                () = self.outgoing.closed() => return,
                _ = ask.tick() => {
                    let time_micros = self.shared.now().as_micros();
                    self.send(ToSite::Ask(Ask { time_micros })).await;
                }
                message = self.incoming.message() => match message {
                    Ok(Some(SiteControl { message: Some(message) })) => {
                        if !self.handle(session, message).await {
                            return;
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }

    /// Takes one message; false ends the session.
    async fn handle(&self, session: &Session, message: FromSite) -> bool {
        let (site, ledger) = (&session.site, &self.shared.ledger);
        ledger.heard(site, self.shared.now());
        match message {
            FromSite::Beacon(beacon) => {
                let problem = (!beacon.capture_ok).then_some(beacon.capture_problem);
                ledger.beacon(site, Seq(beacon.head), problem);
            }
            FromSite::Heads(heads) if heads.epoch == session.epoch.0 => {
                let tables = heads.tables.iter();
                let tables = tables.filter_map(|head| Some((TableName::at_hq(&head.table).ok()?, Seq(head.head))));
                let time = Timestamp::from_micros(heads.time_micros).min(self.shared.now());
                ledger.heads(site, time, session.epoch, tables.collect());
                ledger.advance(&self.shared.lake, site, session.number);
            }
            FromSite::Heads(_) => {}
            FromSite::Goodbye(goodbye) => {
                tracing::info!(%site, reason = goodbye.reason, "goodbye");
                ledger.goodbye(site, Seq(goodbye.head), &goodbye.reason);
                return false;
            }
            FromSite::EpochWanted(wanted) => {
                // The site connects again; its hello gets the new epoch.
                self.shared.sessions.want_epoch(site, wanted.reason);
                return false;
            }
            FromSite::Attempts(attempts) => {
                for attempt in attempts.attempts.iter().take(100) {
                    tracing::info!(%site, address = attempt.address, resolved = attempt.resolved, error = attempt.error, at = %Timestamp::from_micros(attempt.at_micros), "the site could not reach HQ");
                }
            }
            FromSite::Hello(_) => {
                self.fail(Status::invalid_argument("Hello comes once")).await;
                return false;
            }
        }
        true
    }
}

/// Why a site got no session.
enum Turned {
    Away { code: &'static str, cause: Option<Cause>, message: String },
    Failed(HqError),
}

impl From<HqError> for Turned {
    fn from(error: HqError) -> Self {
        Self::Failed(error)
    }
}

fn cursors(lake: &Lake, site: SiteNumber, epoch: Epoch) -> Vec<(TableName, rollcall_lake::Cursor)> {
    let tables = lake.tables().into_iter();
    tables.filter_map(|(name, table)| Some((name, table.cursor(site, epoch)?))).collect()
}

/// A batch on its way to the lake.
struct InFlight {
    first: Seq,
    last: Seq,
    bytes: u64,
    parts: Vec<(String, oneshot::Receiver<PartOutcome>)>,
    quarantined: Option<String>,
}

async fn receive_data(
    shared: Arc<Shared>,
    peer: Peer,
    mut incoming: Streaming<DataFrame>,
    replies: mpsc::Sender<Result<DataReply, Status>>,
) -> Result<(), Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no frame came"))??;
    let Some(first) = first else { return Ok(()) };
    let session = shared.sessions.get(&peer.site, first.session);
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
        shared.ledger.heard(&session.site, shared.now());
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
    let (parts, quarantined) = match decoded {
        Ok(parts) => (parts, None),
        Err(reason) => {
            tracing::error!(site = %session.site, %first, %last, reason, "a batch goes to quarantine");
            quarantine(shared, session, &encoded, &reason, received_at).await?;
            shared.ledger.quarantined(&session.site, &reason);
            // The cursors move on: the rows are in quarantine, and the site carries on.
            let parts = header.parts.iter().filter_map(|part| {
                let name = lake_table(&part.table).ok()?;
                Some(DecodedPart {
                    name,
                    table: part.table.clone(),
                    previous: Seq(part.previous),
                    marks: Vec::new(),
                    rows: Conformed::empty(),
                })
            });
            (parts.collect(), Some(reason))
        }
    };
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
        };
        outcomes.push((part.table, shared.ingest.submit(&table, submitted).await));
    }
    Ok(InFlight { first, last, bytes, parts: outcomes, quarantined })
}

/// Where a part's rows go.
enum LakeTable {
    Site(TableName),
    Log,
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
    let seqs = rows.column_by_name(columns::SEQ).and_then(|column| column.as_any().downcast_ref::<Int64Array>());
    let seqs = seqs.filter(|seqs| seqs.null_count() == 0).ok_or_else(|| wrong("positions"))?;
    let ops = rows.column_by_name(columns::OP).and_then(|column| column.as_any().downcast_ref::<UInt8Array>());
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

fn decode(lake: &Lake, encoded: &Encoded, clock: SiteClock) -> Result<Vec<DecodedPart>, String> {
    batch::verify(encoded).map_err(|error| error.to_string())?;
    let batch = batch::decode(encoded).map_err(|error| describe(&error))?;
    let mut names: Vec<&str> = batch.parts.iter().map(|part| part.table.as_str()).collect();
    names.sort_unstable();
    if batch.parts.len() > PARTS_MAX || names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("too many parts, or two for one table".to_owned());
    }
    batch
        .parts
        .into_iter()
        .map(|part| {
            check_rows(&part.rows, batch.first, batch.last)?;
            let name = lake_table(&part.table)?;
            let schema = match &name {
                LakeTable::Log => Some(lake.site_log().snapshot().schema().clone()),
                LakeTable::Site(name) => lake.table(name).map(|table| table.snapshot().schema().clone()),
            };
            let empty = rollcall_lake::TableSchema::for_sites(Vec::new());
            let schema = schema.as_deref().unwrap_or(&empty);
            let rows = conform(&part.rows, schema, clock).map_err(|error| describe(&error))?;
            let marks = part.marks.iter().filter_map(|mark| {
                let kind = match mark.kind() {
                    Kind::LoadBegun => MarkKind::LoadBegun,
                    Kind::LoadComplete => MarkKind::LoadComplete,
                    Kind::Unspecified => return None,
                };
                Some(PartMark { kind, seq: Seq(mark.seq), begin: Seq(mark.begin) })
            });
            Ok(DecodedPart { name, table: part.table.clone(), previous: part.previous, marks: marks.collect(), rows })
        })
        .collect()
}

/// Keeps a batch that could not be decoded, whole. Durable on return.
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
    debug_assert_eq!(schema.field(0).name(), our_columns::SITE);
    let rows = RecordBatch::try_new(schema, columns).map_err(|error| HqError::Invalid(error.to_string()))?;
    table.append_rows(rows).await?;
    Ok(())
}

/// Answers batches in order: a batch is confirmed when all its tables committed, and never before the one before it.
async fn confirm(
    shared: Arc<Shared>,
    session: Arc<Session>,
    mut in_flight: mpsc::Receiver<InFlight>,
    replies: mpsc::Sender<Result<DataReply, Status>>,
) {
    let mut confirmed = session.confirmed;
    let mut finished: VecDeque<Reply> = VecDeque::new();
    while let Some(batch) = in_flight.recv().await {
        let mut gap = None;
        for (table, outcome) in batch.parts {
            match outcome.await {
                Ok(PartOutcome::Durable { .. }) => {}
                Ok(PartOutcome::Gap { cursor }) => gap = Some((table, cursor)),
                Err(_) => {
                    // The commit's outcome is unknown. The site connects again and continues from what is confirmed.
                    let _ = replies.send(Err(Status::unavailable("a commit failed; send again"))).await;
                    session.over.cancel();
                    return;
                }
            }
        }
        finished.push_back(Reply::Credit(Credit { bytes: batch.bytes }));
        if let Some((table, cursor)) = gap {
            finished.push_back(Reply::AskAgain(AskAgain { table, cursor: cursor.0 }));
        } else if batch.first.0 <= confirmed.0 + 1 {
            confirmed = batch.last.max(confirmed);
            shared.ledger.confirmed(&session.site, confirmed);
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
