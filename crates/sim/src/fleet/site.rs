//! One site of a fleet: it dials, sends, is away, and takes what HQ publishes.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::bail;
use arrow_array::RecordBatch;
use rcgen::{CertificateParams, KeyPair};
use rollcall_site::{DataLine, Dialed, Identity, Outbox, dial};
use rollcall_types::{ChainHash, Epoch, Seq};
use rollcall_wire::{
    PROTOCOL, PROTOCOL_MIN, Refusal, SETTINGS_TABLE,
    batch::{Encoder, Part},
    framing::frames,
    proto::{
        Applied, Beacon, EnrolRequest, FetchRequest, Heads, Hello, SiteControl, TableHead, WantedTable,
        data_reply::Message as Reply, enrolment_client::EnrolmentClient, fetch_reply::Message as Fetched,
        hq_control::Message as FromHq, site_control::Message as ToHq, sites_client::SitesClient,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{Counters, FleetOptions, Taken, micros_now};

use crate::retail::SalesGenerator;

/// Enrols over the wire, as `rollcall-site join` does, without a database.
pub(super) async fn enrol(hq: SocketAddr, token: &str) -> anyhow::Result<Identity> {
    let dialed = rollcall_site::dial_invited(&hq.to_string(), token).await?;
    let key = KeyPair::generate()?;
    let csr_pem = CertificateParams::new(Vec::<String>::new())?.serialize_request(&key)?.pem()?;
    let request = EnrolRequest { token: dialed.secret, csr_pem, left_out: Vec::new() };
    let answer = EnrolmentClient::new(dialed.channel).enrol(request).await?.into_inner();
    Ok(Identity {
        contact: None,
        site: answer.site,
        hq_addresses: vec![hq.to_string()],
        ca_pem: answer.ca_pem,
        certificate_pem: answer.certificate_pem,
        key_pem: key.serialize_pem(),
        issued_micros: 0,
        not_after_micros: answer.not_after_micros,
        database: std::path::PathBuf::new(),
        event_times: BTreeMap::new(),
    })
}

pub(super) struct FleetSite {
    /// Where HQ's nodes are; the site starts at one of them and goes on to the next when one fails.
    pub(super) hq: Arc<Vec<SocketAddr>>,
    pub(super) identity: Identity,
    pub(super) journal_id: String,
    pub(super) instance: String,
    pub(super) generator: SalesGenerator,
    pub(super) pace: Option<Duration>,
    pub(super) options: FleetOptions,
    pub(super) falls_silent: bool,
    pub(super) counters: Arc<Counters>,
    /// The node it calls next.
    pub(super) node: usize,
    pub(super) epoch: Epoch,
    pub(super) confirmed: (Seq, ChainHash),
    /// Batches sent and not confirmed: the last position of each, its rows, and when they were
    /// made.
    pub(super) in_flight: VecDeque<(Seq, RecordBatch, Instant)>,
    pub(super) latencies: Vec<Duration>,
    pub(super) backlog: Option<Backlog>,
    /// From each loss of HQ to the next welcome.
    pub(super) lost_for: Vec<Duration>,
    /// Since when it has no HQ, if it had one.
    pub(super) lost_at: Option<Instant>,
    /// What it has of HQ's tables: version and audience. The rows themselves are counted and let
    /// go.
    pub(super) applied: BTreeMap<String, Applied>,
    /// The digest of what HQ says of it; there is no store behind it that would do it.
    pub(super) settings: u64,
    pub(super) taken: Vec<Taken>,
}

/// What a returning site brings.
pub(super) struct Backlog {
    /// Rows not made yet.
    pub(super) rows: u64,
    /// From its return to the last confirmation.
    pub(super) done_after: Duration,
}

/// Returning sites come so long after the start.
pub(super) const AWAY: Duration = Duration::from_secs(5);

/// Rows in a batch of a backlog: an agent fills one up to 1 MiB.
pub(super) const BACKLOG_BATCH: usize = 5000;

pub(super) const TABLE: &str = "sales";

/// Connections that the fleet opens at a time.
pub(super) const DIALLING_MAX: usize = 128;

pub(super) static DIALLING: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(DIALLING_MAX);

/// A site that finds no HQ for so long gives up.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// How a session ended.
pub(super) enum Ended {
    /// Everything is confirmed, or the site fell silent.
    Done,
    /// HQ went away.
    Lost,
}

impl FleetSite {
    /// Connects, says so, waits for the start, sends for the time given, and waits for the last
    /// confirmation. When a node goes away it goes on at another, as an agent does. Returns with
    /// what it measured.
    pub(super) async fn run(mut self, ready: mpsc::Sender<()>, go: CancellationToken) -> anyhow::Result<Self> {
        let mut started = None;
        let mut well = Instant::now();
        let mut failures = 0_u32;
        if self.backlog.is_some() {
            ready.send(()).await?;
            go.cancelled().await;
            tokio::time::sleep(AWAY).await;
            started = Some(Instant::now());
        }
        loop {
            let began = Instant::now();
            match self.session(&ready, &go, &mut started).await {
                Ok(Ended::Done) => return Ok(self),
                Ok(Ended::Lost) => {
                    well = Instant::now();
                    failures = 0;
                    self.lost_at = Some(Instant::now());
                    self.counters.lost.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if well.elapsed() > PATIENCE => return Err(error),
                Err(_) => failures += 1,
            }
            self.node += 1;
            let pause = f64::from(failures.min(8)) * rand::random::<f64>();
            tokio::time::sleep(Duration::from_secs_f64(pause.max(0.2 * rand::random::<f64>()))).await;
            if began.elapsed() > PATIENCE {
                well = Instant::now();
            }
        }
    }

    pub(super) async fn dial(&self) -> anyhow::Result<Dialed> {
        let place = DIALLING.acquire().await?;
        let address = self.hq[self.node % self.hq.len()].to_string();
        let dialed = dial(&address, &self.identity).await;
        drop(place);
        Ok(dialed?)
    }

    /// A session, from Hello until it ends. An error is one before the site was welcomed, or that
    /// nothing can mend.
    pub(super) async fn session(
        &mut self,
        ready: &mpsc::Sender<()>,
        go: &CancellationToken,
        started: &mut Option<Instant>,
    ) -> anyhow::Result<Ended> {
        let dialed = self.dial().await?;
        let (control, outgoing) = mpsc::channel(8);
        let head = self.in_flight.back().map_or(self.confirmed.0, |(last, ..)| *last);
        let hello = Hello {
            protocol: PROTOCOL,
            protocol_min: PROTOCOL_MIN,
            agent_version: "fleet".to_owned(),
            instance: self.instance.clone(),
            journal_id: self.journal_id.clone(),
            epoch: self.epoch.0,
            head: head.0,
            confirmed: self.confirmed.0.0,
            oldest: 1,
            clock_micros: micros_now(),
            takes_published: true,
            applied: self.applied.values().cloned().collect(),
            ..Hello::default()
        };
        control.send(SiteControl { message: Some(ToHq::Hello(hello)) }).await?;
        let mut client = SitesClient::new(dialed.channel);
        let mut from_control = client.control(ReceiverStream::new(outgoing)).await?.into_inner();
        let welcome = match from_control.message().await?.and_then(|message| message.message) {
            Some(FromHq::Welcome(welcome)) => welcome,
            other => bail!("HQ did not welcome {}: {other:?}", self.identity.site),
        };
        if self.epoch != Epoch(0) && self.epoch != Epoch(welcome.epoch) {
            bail!("HQ gave {} a new epoch: {}", self.identity.site, welcome.epoch_reason);
        }
        self.lost_for.extend(self.lost_at.take().map(|lost| lost.elapsed()));
        self.epoch = Epoch(welcome.epoch);
        self.settings = welcome.settings.map_or(0, |settings| settings.digest);
        let mut line = DataLine::new(client.clone(), welcome.session);
        let tables = HashMap::from([(TABLE.to_owned(), self.confirmed.0)]);
        let mut outbox =
            Outbox::new(self.epoch, self.confirmed.0.into(), self.confirmed.1, tables, welcome.credit_bytes);
        let mut encoder = Encoder::new()?;
        if started.is_none() {
            ready.send(()).await?;
            go.cancelled().await;
        }
        let started = *started.get_or_insert_with(Instant::now);
        // Sites do not beat in step.
        let phase = rand::random::<f64>();
        let mut next_at = Instant::now() + self.pace.unwrap_or_default().mul_f64(phase);
        // What an earlier session sent and nobody confirmed goes first.
        let mut again = 0;
        loop {
            let sending = match &self.backlog {
                Some(backlog) => backlog.rows > 0,
                None => started.elapsed() < self.options.duration,
            };
            let is_silent = self.falls_silent && started.elapsed() > self.options.duration / 2;
            if is_silent || !sending && self.in_flight.is_empty() {
                if let Some(backlog) = &mut self.backlog {
                    backlog.done_after = started.elapsed();
                }
                return Ok(Ended::Done);
            }
            let repeats = again < self.in_flight.len();
            let room = outbox.may_send() && (repeats || self.in_flight.len() < self.options.in_flight);
            let due = repeats || self.pace.is_none() || Instant::now() >= next_at;
            let sends = sending || repeats;
            if sends && room && due {
                if !repeats {
                    next_at += self.pace.unwrap_or_default();
                    let ago = rand::random::<f64>() * f64::from(self.options.history_days) * 86_400e6;
                    let after = outbox.sent_through();
                    let count = match &mut self.backlog {
                        Some(backlog) => {
                            let count = backlog.rows.min(BACKLOG_BATCH as u64);
                            backlog.rows -= count;
                            count as usize
                        }
                        None => self.options.batch_rows,
                    };
                    let rows = self.generator.batch(after.0, count, micros_now() - ago as i64)?;
                    let last = Seq(after.0 + count as u64);
                    self.in_flight.push_back((last, rows, Instant::now()));
                }
                let (last, rows, _) = &self.in_flight[again];
                let part = Part { table: TABLE.to_owned(), previous: Seq(0), rows: rows.clone(), marks: Vec::new() };
                let encoded = encoder.encode(&outbox.batch(*last, vec![part]))?;
                again += 1;
                outbox.sending(&encoded, String::new());
                self.counters.bytes.fetch_add(encoded.payload.len() as u64, Ordering::Relaxed);
                for frame in frames(&encoded) {
                    if line.send(frame).await.is_err() {
                        return Ok(Ended::Lost);
                    }
                }
            }
            let wait = match self.pace {
                _ if again < self.in_flight.len() && outbox.may_send() => Duration::ZERO,
                Some(_) if sending && room => next_at.saturating_duration_since(Instant::now()),
                None if sending && room => Duration::ZERO,
                _ => Duration::from_millis(200),
            };
            tokio::select! {
                biased;
                message = line.reply() => match message.ok().flatten() {
                    Some(Reply::Confirmed(confirmed)) => {
                        outbox.confirm(Seq(confirmed.through));
                        self.confirmed = outbox.confirmed();
                        while self.in_flight.front().is_some_and(|(last, ..)| last.0 <= confirmed.through) {
                            if let Some((_, rows, made)) = self.in_flight.pop_front() {
                                again = again.saturating_sub(1);
                                if self.backlog.is_none() {
                                    self.latencies.push(made.elapsed());
                                }
                                self.counters.rows.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
                            }
                        }
                    }
                    Some(Reply::Credit(credit)) => outbox.add_credit(credit.bytes),
                    Some(Reply::Quarantined(lost)) => bail!("HQ put a batch in quarantine: {}", lost.reason),
                    // Asked for what came before: the next session begins with it.
                    Some(Reply::AskAgain(_)) | None => return Ok(Ended::Lost),
                },
                message = from_control.message() => match message.ok().flatten().and_then(|message| message.message) {
                    Some(FromHq::Ask(ask)) => {
                        let head = outbox.sent_through().0;
                        let tables = vec![TableHead { table: TABLE.to_owned(), head }];
                        let heads = Heads { time_micros: ask.time_micros, epoch: welcome.epoch, tables };
                        let confirmed = outbox.confirmed().0.0;
                        let beacon = Beacon { head, confirmed, ..self.beacon() };
                        for message in [ToHq::Heads(heads), ToHq::Beacon(beacon)] {
                            if control.send(SiteControl { message: Some(message) }).await.is_err() {
                                return Ok(Ended::Lost);
                            }
                        }
                        if self.in_flight.is_empty() && line.rest().await.is_err() {
                            return Ok(Ended::Lost);
                        }
                    }
                    Some(FromHq::Settings(settings)) => self.settings = settings.digest,
                    Some(FromHq::Published(published)) => {
                        for wanted in published.tables {
                            if self.fetch(&mut client, wanted).await.is_err() {
                                return Ok(Ended::Lost);
                            }
                        }
                        let beacon = Beacon { head: outbox.sent_through().0, confirmed: outbox.confirmed().0.0, ..self.beacon() };
                        if control.send(SiteControl { message: Some(ToHq::Beacon(beacon)) }).await.is_err() {
                            return Ok(Ended::Lost);
                        }
                    }
                    Some(FromHq::Refused(refused)) if refused.code == Refusal::Stopping.code() => return Ok(Ended::Lost),
                    Some(FromHq::Refused(refused)) => bail!("HQ refused {}: {}", self.identity.site, refused.message),
                    Some(_) => {}
                    None => return Ok(Ended::Lost),
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    pub(super) fn beacon(&self) -> Beacon {
        let mut applied: Vec<Applied> = self.applied.values().cloned().collect();
        applied.extend((self.settings != 0).then(|| Applied {
            table: SETTINGS_TABLE.to_owned(),
            version: 1,
            audience: self.settings,
            ..Applied::default()
        }));
        Beacon { capture_ok: true, clock_micros: micros_now(), applied, ..Beacon::default() }
    }

    /// Takes a published table up to the version wanted, as an agent does; a fetch that breaks is
    /// asked again later.
    pub(super) async fn fetch(&mut self, client: &mut SitesClient<Channel>, wanted: WantedTable) -> anyhow::Result<()> {
        let WantedTable { table, version, audience, .. } = wanted;
        let known = self.applied.get(&table).filter(|known| known.audience == audience);
        let after = known.map_or(0, |known| known.version);
        if known.is_some() && after >= version {
            return Ok(());
        }
        let request = FetchRequest { table: table.clone(), audience, after, whole: known.is_none() };
        let mut replies = client.fetch(request).await?.into_inner();
        let mut of_whom = audience;
        while let Some(reply) = replies.message().await? {
            match reply.message {
                Some(Fetched::Begin(begin)) => of_whom = begin.audience,
                Some(Fetched::Rows(rows)) => {
                    self.counters.taken_bytes.fetch_add(rows.rows.len() as u64, Ordering::Relaxed);
                }
                Some(Fetched::End(end)) => {
                    let version = end.version;
                    let applied = Applied { table: table.clone(), version, audience: of_whom, ..Applied::default() };
                    self.applied.insert(table.clone(), applied);
                    self.taken.push(Taken { table, version: Seq(version), at_micros: micros_now() });
                    return Ok(());
                }
                None => {}
            }
        }
        bail!("a fetch of {table} broke off")
    }
}
