//! The fleet generator: many sites over the real protocol, with real TLS and real batches, but no
//! database behind them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use arrow_array::RecordBatch;
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use rcgen::{CertificateParams, KeyPair};
use rollcall_site::{DataLine, Dialed, Identity, Outbox, dial};
use rollcall_types::{ChainHash, Epoch, Seq, SiteId};
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
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::retail::{SalesGenerator, articles};

/// What the fleet does.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Sites.
    pub sites: usize,
    /// The number of the first: several fleets drive one HQ side by side.
    pub first_site: usize,
    /// So many of the sites, the last ones, were away and come back together …
    pub returning: usize,
    /// … five seconds after the start, with so many rows each.
    pub backlog_rows: u64,
    /// Rows a second by all sites together; 0 for as fast as HQ takes them.
    pub rate: u64,
    /// Rows in a batch.
    pub batch_rows: usize,
    /// How long to send.
    pub duration: Duration,
    /// Batches a site may have unconfirmed.
    pub in_flight: usize,
    /// Sales happened at any time of the last so many days; 0 for now.
    pub history_days: u32,
    /// So many sites of Washington fall silent half-way, without a goodbye.
    pub falling_silent: usize,
    /// Whether a progress bar is drawn.
    pub progress: bool,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct FleetResult {
    /// Sites that sent.
    pub sites: usize,
    /// Rows confirmed.
    pub rows: u64,
    /// How often a site lost its node and went on, at another or the same.
    pub lost_connections: u64,
    /// From the first batch to the last confirmation, seconds.
    pub seconds: f64,
    /// Confirmed rows a second.
    pub rows_per_second: f64,
    /// Median time from making a batch to its confirmation, milliseconds.
    pub ack_p50_ms: f64,
    /// The 99th percentile of it.
    pub ack_p99_ms: f64,
    /// From losing HQ to being welcomed again: median, 99th percentile, and the longest, seconds.
    pub return_seconds: Option<[f64; 3]>,
    /// Rows that returning sites brought, and how many of them a second were confirmed until the
    /// last.
    pub backlog: Option<Drained>,
    /// Bytes of batches after compression, per row.
    pub wire_bytes_per_row: f64,
    /// Processor seconds of this process (which may include HQ) while sending, per million rows.
    pub cpu_seconds_per_million_rows: f64,
    /// Versions of published tables that sites took.
    #[serde(skip)]
    pub taken: Vec<Taken>,
    /// Bytes of their rows after compression.
    pub taken_bytes: u64,
}

/// What returning sites brought.
#[derive(Debug, Clone, Serialize)]
pub struct Drained {
    /// Sites.
    pub sites: usize,
    /// Rows.
    pub rows: u64,
    /// From their return to the last confirmation of their rows, seconds.
    pub seconds: f64,
    /// Rows confirmed a second meanwhile.
    pub rows_per_second: f64,
    /// Rows of the other sites confirmed a second meanwhile, about.
    pub live_rows_per_second: f64,
}

/// A site took a version of a published table.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The table.
    pub table: String,
    /// The version.
    pub version: Seq,
    /// When, microseconds since the Unix epoch.
    pub at_micros: i64,
}

#[derive(Debug, Default)]
struct Counters {
    rows: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    taken_bytes: AtomicU64,
}

/// Sites that enrol at the same time.
const ENROLLING_MAX: usize = 64;

/// The invitation to use for a site with these attributes.
pub type Invite = Arc<
    dyn Fn(SiteId, BTreeMap<String, String>) -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<String>> + Send>>
        + Send
        + Sync,
>;

/// States that the sites are in, in turn, and their regions.
const STATES: [(&str, &str); 12] = [
    ("CA", "West"),
    ("WA", "West"),
    ("OR", "West"),
    ("NV", "West"),
    ("TX", "South"),
    ("FL", "South"),
    ("GA", "South"),
    ("NY", "North-East"),
    ("MA", "North-East"),
    ("PA", "North-East"),
    ("IL", "Mid-West"),
    ("OH", "Mid-West"),
];
const WASHINGTON: usize = 1;

fn attributes(number: usize) -> BTreeMap<String, String> {
    let (state, region) = STATES[number % STATES.len()];
    BTreeMap::from([("state".to_owned(), state.to_owned()), ("region".to_owned(), region.to_owned())])
}

/// Enrols the sites, sends, and waits until everything sent is confirmed.
pub async fn run(hq: Vec<SocketAddr>, invite: Invite, options: FleetOptions) -> anyhow::Result<FleetResult> {
    let hq = Arc::new(hq);
    let bar = progress(&options, options.sites as u64, "enrolling");
    let numbers = options.first_site..options.first_site + options.sites;
    let enrolled = stream::iter(numbers.clone()).map(|number| {
        let (hq, invite, bar) = (hq.clone(), invite.clone(), bar.clone());
        async move {
            let site = SiteId::new(&format!("fleet-{number:05}"))?;
            let token = invite(site.clone(), attributes(number)).await?;
            let identity = enrol(hq[number % hq.len()], &token).await.with_context(|| format!("enrolling {site}"));
            bar.inc(1);
            identity
        }
    });
    let identities: Vec<Identity> = enrolled.buffered(ENROLLING_MAX).try_collect().await?;
    bar.finish_and_clear();
    let counters = Arc::new(Counters::default());
    let catalogue = Arc::new(articles());
    let go = CancellationToken::new();
    let mut sites = tokio::task::JoinSet::new();
    let (ready, mut are_ready) = mpsc::channel(options.sites.max(1));
    for (number, identity) in numbers.zip(identities) {
        let generator = SalesGenerator::new(catalogue.clone(), number as u64);
        let live = options.sites.saturating_sub(options.returning);
        let is_returning = number >= options.first_site + live;
        let pace = (options.rate > 0 && !is_returning)
            .then(|| Duration::from_secs_f64((options.batch_rows * live) as f64 / options.rate as f64));
        let falls_silent = number % STATES.len() == WASHINGTON && number / STATES.len() < options.falling_silent;
        let rows = options.backlog_rows;
        let backlog = is_returning.then_some(Backlog { rows, done_after: Duration::ZERO });
        let options = options.clone();
        let site = FleetSite {
            hq: hq.clone(),
            identity,
            journal_id: uuid::Uuid::new_v4().to_string(),
            instance: uuid::Uuid::new_v4().to_string(),
            generator,
            pace,
            options,
            falls_silent,
            backlog,
            lost_for: Vec::new(),
            counters: counters.clone(),
            node: number,
            epoch: Epoch(0),
            confirmed: (Seq(0), ChainHash::default()),
            in_flight: VecDeque::new(),
            latencies: Vec::new(),
            lost_at: None,
            applied: BTreeMap::new(),
            settings: 0,
            taken: Vec::new(),
        };
        sites.spawn(site.run(ready.clone(), go.clone()));
    }
    drop(ready);
    for _ in 0..options.sites {
        tokio::select! {
            ready = are_ready.recv() => ready.context("a site did not get ready")?,
            Some(failed) = sites.join_next() => {
                failed?.context("a site did not get ready")?;
            }
        }
    }
    let (started, cpu_before) = (Instant::now(), cpu_seconds());
    go.cancel();
    let watch = tokio::spawn(show(options.clone(), counters.clone()));
    let (mut latencies, mut taken, mut lost_for) = (Vec::new(), Vec::new(), Vec::new());
    let (mut drained_after, mut drained_rows) = (Duration::ZERO, 0);
    while let Some(site) = sites.join_next().await {
        let site = site??;
        if let Some(backlog) = &site.backlog {
            drained_after = drained_after.max(backlog.done_after);
            drained_rows += site.confirmed.0.0;
        }
        lost_for.extend(site.lost_for);
        latencies.extend(site.latencies);
        taken.extend(site.taken);
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu_before);
    watch.abort();
    let rows = counters.rows.load(Ordering::Relaxed);
    latencies.sort_unstable();
    lost_for.sort_unstable();
    let of = |durations: &[Duration], share: f64| {
        let index = ((durations.len() as f64 - 1.0) * share).max(0.0) as usize;
        durations.get(index).map_or(0.0, Duration::as_secs_f64)
    };
    let percentile = |share: f64| of(&latencies, share) * 1000.0;
    let drained = (options.returning > 0).then(|| {
        let seconds_drained = drained_after.as_secs_f64();
        let live = (rows - drained_rows) as f64 / options.duration.as_secs_f64();
        let per_second = drained_rows as f64 / seconds_drained.max(1e-9);
        let sites = options.returning;
        Drained {
            sites,
            rows: drained_rows,
            seconds: seconds_drained,
            rows_per_second: per_second,
            live_rows_per_second: live,
        }
    });
    Ok(FleetResult {
        sites: options.sites,
        rows,
        lost_connections: counters.lost.load(Ordering::Relaxed),
        seconds,
        rows_per_second: rows as f64 / seconds,
        ack_p50_ms: percentile(0.5),
        ack_p99_ms: percentile(0.99),
        return_seconds: (!lost_for.is_empty()).then(|| [0.5, 0.99, 1.0].map(|share| of(&lost_for, share))),
        backlog: drained,
        wire_bytes_per_row: counters.bytes.load(Ordering::Relaxed) as f64 / rows.max(1) as f64,
        cpu_seconds_per_million_rows: cpu / (rows.max(1) as f64 / 1e6),
        taken,
        taken_bytes: counters.taken_bytes.load(Ordering::Relaxed),
    })
}

fn progress(options: &FleetOptions, length: u64, what: &'static str) -> ProgressBar {
    if !options.progress {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{msg} {bar:40} {pos}/{len}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_message(what)
}

async fn show(options: FleetOptions, counters: Arc<Counters>) {
    let seconds = options.duration.as_secs();
    let bar = progress(&options, seconds, "sending");
    let mut before = 0;
    for _ in 0..seconds * 2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let rows = counters.rows.load(Ordering::Relaxed);
        bar.inc(1);
        bar.set_message(format!("sending: {} rows/s confirmed, {rows} in all;", rows - before));
        before = rows;
    }
}

/// Processor time of this process so far, user and system.
pub fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

fn micros_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Enrols over the wire, as `rollcall-site join` does, without a database.
async fn enrol(hq: SocketAddr, token: &str) -> anyhow::Result<Identity> {
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

struct FleetSite {
    /// Where HQ's nodes are; the site starts at one of them and goes on to the next when one fails.
    hq: Arc<Vec<SocketAddr>>,
    identity: Identity,
    journal_id: String,
    instance: String,
    generator: SalesGenerator,
    pace: Option<Duration>,
    options: FleetOptions,
    falls_silent: bool,
    counters: Arc<Counters>,
    /// The node it calls next.
    node: usize,
    epoch: Epoch,
    confirmed: (Seq, ChainHash),
    /// Batches sent and not confirmed: the last position of each, its rows, and when they were
    /// made.
    in_flight: VecDeque<(Seq, RecordBatch, Instant)>,
    latencies: Vec<Duration>,
    backlog: Option<Backlog>,
    /// From each loss of HQ to the next welcome.
    lost_for: Vec<Duration>,
    /// Since when it has no HQ, if it had one.
    lost_at: Option<Instant>,
    /// What it has of HQ's tables: version and audience. The rows themselves are counted and let
    /// go.
    applied: BTreeMap<String, Applied>,
    /// The digest of what HQ says of it; there is no store behind it that would do it.
    settings: u64,
    taken: Vec<Taken>,
}

/// What a returning site brings.
struct Backlog {
    /// Rows not made yet.
    rows: u64,
    /// From its return to the last confirmation.
    done_after: Duration,
}

/// Returning sites come so long after the start.
const AWAY: Duration = Duration::from_secs(5);
/// Rows in a batch of a backlog: an agent fills one up to 1 MiB.
const BACKLOG_BATCH: usize = 5000;

const TABLE: &str = "sales";

/// Connections that the fleet opens at a time.
const DIALLING_MAX: usize = 128;
static DIALLING: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(DIALLING_MAX);
/// A site that finds no HQ for so long gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a session ended.
enum Ended {
    /// Everything is confirmed, or the site fell silent.
    Done,
    /// HQ went away.
    Lost,
}

impl FleetSite {
    /// Connects, says so, waits for the start, sends for the time given, and waits for the last
    /// confirmation. When a node goes away it goes on at another, as an agent does. Returns with
    /// what it measured.
    async fn run(mut self, ready: mpsc::Sender<()>, go: CancellationToken) -> anyhow::Result<Self> {
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

    async fn dial(&self) -> anyhow::Result<Dialed> {
        let place = DIALLING.acquire().await?;
        let address = self.hq[self.node % self.hq.len()].to_string();
        let dialed = dial(&address, &self.identity).await;
        drop(place);
        Ok(dialed?)
    }

    /// A session, from Hello until it ends. An error is one before the site was welcomed, or that
    /// nothing can mend.
    async fn session(
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

    fn beacon(&self) -> Beacon {
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
    async fn fetch(&mut self, client: &mut SitesClient<Channel>, wanted: WantedTable) -> anyhow::Result<()> {
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
