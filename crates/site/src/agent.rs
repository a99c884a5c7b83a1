//! The agent's outer loop: connect, serve, and when it ends, connect again; for ever.

use rollcall_types::{Cause, Seq, describe};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use rand::Rng;
use rollcall_capture::{CaptureError, clock_micros};
use rollcall_wire::proto::{self, Attempt};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    blind::Blind,
    claim::claim,
    dial::{DialFailed, Dialed, Trust, authorities, dial_with},
    enrol::{is_renewal_due, renew},
    error::SiteError,
    feed::Feed,
    keeper::{self, KnownHealth},
    kinds::database_at,
    published::Shelf,
    session::{Ended, Session},
    settings::{Behaviour, LogControl},
    state::{Identity, Notes, StateDirectory},
    status::StatusFile,
};

/// How an agent runs.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The store's database; its state directory lies beside it.
    pub database: PathBuf,
    /// Where the agent's own files are, if they are not there.
    pub state: Option<PathBuf>,
    /// The longest pause between attempts to connect.
    pub retry_delay_max: Duration,
    /// Addresses to use in place of those of enrolment.
    pub hq_addresses: Vec<String>,
    /// By which HQ may change what is logged; none: it may not.
    pub log: Option<LogControl>,
}

impl AgentConfig {
    /// The defaults: at most a minute between attempts.
    pub fn new(database: PathBuf) -> Self {
        let retry_delay_max = Duration::from_secs(60);
        Self { database, state: None, retry_delay_max, hq_addresses: Vec::new(), log: None }
    }
}

/// The agent of one site.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    /// As it was given, from the root on; links in it are followed anew at each use.
    database: PathBuf,
    directory: StateDirectory,
    identity: Identity,
    feed: Feed,
    shelf: Shelf,
    notes: Arc<Notes>,
    status: StatusFile,
    health: KnownHealth,
    /// New at every start: tells two copies of one site apart.
    instance: String,
    behaviour: Behaviour,
    /// HQ's clock less this machine's, microseconds, as HQ said last.
    hq_clock_offset: i64,
    /// HQ said that the certificate has expired, whatever this machine's clock says.
    is_expired: bool,
}

const RETRY_DELAY_MIN: Duration = Duration::from_millis(500);
/// A session that lasted this long starts the pauses anew.
const SETTLED_AFTER: Duration = Duration::from_secs(30);
/// While a person has the agent pause, the end of that is looked for this often.
const PAUSE_LOOK: Duration = Duration::from_secs(1);
/// Under which name HQ's clock is noted.
const HQ_CLOCK: &str = "hq_clock_offset";
/// Under which name it is noted which agent looked after the tables last.
pub(crate) const FORMAT: &str = "format";
/// What agents from 0.2 on note there.
pub(crate) const FORMAT_NOW: &str = "2";

impl Agent {
    /// Reads the agent's files. The database need not be there, nor free, nor the disk have room:
    /// what is wrong is told.
    pub fn open(config: AgentConfig) -> Result<Self, SiteError> {
        let database = crate::enrol::database(&config.database)?;
        let directory = StateDirectory::of(&database, config.state.as_deref());
        let mut identity = directory.identity()?;
        if !config.hq_addresses.is_empty() {
            identity.hq_addresses.clone_from(&config.hq_addresses);
        }
        let notes = Arc::new(Notes::open(&directory));
        let hq_clock_offset = notes.text(HQ_CLOCK)?.and_then(|text| text.parse().ok()).unwrap_or_default();
        Ok(Self {
            feed: Feed::open(database_at(&database))?,
            shelf: Shelf::new(database_at(&database), &directory),
            behaviour: Behaviour::new(&notes, config.log.clone())?,
            notes,
            status: StatusFile::new(directory.clone()),
            health: KnownHealth::default(),
            instance: uuid::Uuid::new_v4().to_string(),
            config,
            database,
            directory,
            identity,
            hq_clock_offset,
            is_expired: false,
        })
    }

    /// Counts on while the agent does its work: what stands still for minutes hangs.
    pub fn beats(&self) -> Arc<AtomicU64> {
        self.status.beats()
    }

    /// The site's id.
    pub fn site(&self) -> &str {
        &self.identity.site
    }

    /// Runs until `stop`. No trouble ends it: what cannot be done now is tried again, and status
    /// says what is wrong. Only another agent at work on the same database keeps it from beginning.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), SiteError> {
        let _claim = claim(&self.directory)?;
        let mut delay = RETRY_DELAY_MIN;
        let _time = AbortOnDropHandle::new(tokio::spawn(self.shelf.clone().keep_time()));
        if let Err(error) = keeper::remember(&self.feed, &self.notes).await {
            tracing::error!(error = %describe(&error), "what is captured is not known");
        }
        let directory = self.directory.clone();
        let is_paused = move || directory.paused_until().is_some();
        let (feed, notes, health) = (self.feed.clone(), self.notes.clone(), self.health.clone());
        let keeper = keeper::keep(feed, notes, health, is_paused);
        let _keeper = AbortOnDropHandle::new(tokio::spawn(keeper));
        while !stop.is_cancelled() {
            if self.directory.paused_until().is_some() {
                self.pause(&stop).await;
                continue;
            }
            let began = Instant::now();
            // A session sees the request to stop itself and says goodbye; dialing takes seconds at
            // most.
            match self.attempt(&stop).await {
                Ok(Ended::Stopped) => break,
                Ok(Ended::Paused) => continue,
                Ok(Ended::Old) => {
                    self.status.disconnected(None);
                    delay = RETRY_DELAY_MIN;
                    continue;
                }
                Err(error) => self.note_failure(&error),
            }
            if began.elapsed() > SETTLED_AFTER {
                delay = RETRY_DELAY_MIN;
            }
            // Full jitter: after an outage, sites come back spread out.
            let pause = delay.mul_f64(rand::rng().random_range(0.3..1.0));
            let most = self.behaviour.retry_delay_max().unwrap_or(self.config.retry_delay_max);
            delay = (delay * 2).min(most.min(self.config.retry_delay_max));
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.status.stopped();
        self.write_status();
        self.feed.rest().await;
        self.shelf.rest().await;
        Ok(())
    }

    /// Leaves the database alone until the person who asked for that says otherwise, or the time
    /// they gave is over.
    async fn pause(&mut self, stop: &CancellationToken) {
        self.feed.rest().await;
        self.shelf.rest().await;
        tracing::warn!("a person has the agent pause; changes are captured, and wait");
        while let Some(until) = self.directory.paused_until() {
            self.status.paused(until);
            self.write_status();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE_LOOK) => {}
            }
        }
        tracing::info!("the agent goes on");
    }

    /// Says what the agent says of itself; on a full disk it cannot.
    fn write_status(&mut self) {
        self.status.health(&self.health.get());
        if let Err(error) = self.status.write() {
            tracing::debug!(error = %describe(&error), "the status could not be written");
        }
    }

    fn note_failure(&mut self, error: &SiteError) {
        match error {
            SiteError::Capture(of_store) => {
                tracing::error!(error = %describe(of_store), "the store's database is in trouble");
                self.status.store_trouble(keeper::trouble(of_store), error.cause());
            }
            error => {
                let cause = error.cause().unwrap_or(Cause::PowerOrLink);
                tracing::warn!(error = %describe(error), %cause, "no connection to HQ");
                self.status.disconnected(Some((describe(error), error.cause())));
            }
        }
        self.write_status();
    }

    /// HQ's time, as far as it is known.
    fn hq_now(&self) -> i64 {
        keeper::hq_now(self.hq_clock_offset)
    }

    /// Why there is nothing to send, whatever HQ says; none if all is well.
    async fn trouble(&mut self) -> Result<Option<(Cause, String)>, SiteError> {
        if let Some(problem) = self.notes.problem() {
            return Ok(Some((Cause::Disk, format!("the agent can note nothing: {problem}"))));
        }
        if self.notes.rewinds(self.hq_now())? >= keeper::REWINDS_MAX {
            let text = "the database went back in time again and again: a program seems to write the whole file at each save, and \
                        what is captured in it is lost with that. Let it write to the database itself, then run \
                        `rollcall-site resume`";
            return Ok(Some((Cause::CaptureStuck, text.to_owned())));
        }
        let begun = Instant::now();
        let looked = loop {
            match keeper::look(&self.feed).await {
                // A transaction that takes its time is no trouble yet.
                Err(SiteError::Capture(error)) if error.is_busy() && begun.elapsed() < keeper::LOCKED_FOR => {}
                looked => break looked,
            }
        };
        match looked {
            Ok(health) => {
                let problem = health.problems.iter().find(|problem| problem.table.is_none()).cloned();
                self.health.set(health);
                Ok(problem.map(|problem| (Cause::CaptureStuck, problem.text)))
            }
            Err(SiteError::Capture(CaptureError::Replaced)) => Ok(None),
            Err(error @ SiteError::Capture(CaptureError::Rewound(_))) => Err(error),
            Err(SiteError::Capture(error)) => {
                let cause = if error.is_disk_full() { Cause::Disk } else { Cause::CaptureStuck };
                Ok(Some((cause, keeper::trouble(&error))))
            }
            Err(error) => Err(error),
        }
    }

    /// Has what an earlier agent may have sent wrongly stated again, once.
    async fn upgrade(&self) -> Result<(), SiteError> {
        if self.notes.text(FORMAT)?.as_deref() == Some(FORMAT_NOW) {
            return Ok(());
        }
        if self.notes.position()?.confirmed > Seq(0) {
            let tables = self.feed.call(|source| source.reload_doubtful()).await?;
            for table in tables {
                tracing::warn!(table, "an earlier agent may have sent rows of it twice: it is stated again");
            }
        }
        self.notes.set_text(FORMAT, FORMAT_NOW)
    }

    /// Tries each address once, and serves the first that works.
    async fn attempt(&mut self, stop: &CancellationToken) -> Result<Ended, SiteError> {
        let is_replaced = self.behaviour.wants_others(&authorities(&self.identity.ca_pem));
        if self.is_expired || is_replaced || is_renewal_due(&self.identity, self.hq_now()) {
            match renew(&self.directory, &self.identity, self.hq_clock_offset).await {
                Ok(renewed) => (self.identity, self.is_expired) = (renewed, false),
                Err(error) => tracing::warn!(error = %describe(&error), "the certificate could not be renewed yet"),
            }
        }
        // What the path leads to now is what there is; its journal says whose it is.
        let replaced = self.feed.call(|source| source.heads().map(|_| ())).await;
        if matches!(replaced, Err(SiteError::Capture(CaptureError::Replaced))) {
            tracing::error!(database = %self.database.display(), "the database file was replaced by another one; it is taken up");
            self.feed
                .call(|source| {
                    source.take_up();
                    Ok(())
                })
                .await?;
        }
        let trouble = self.trouble().await?;
        match &trouble {
            // With HQ or without, the store is told.
            Some((cause, text)) => {
                self.status.store_trouble(text.clone(), Some(*cause));
                self.write_status();
            }
            None => self.status.store_is_well(),
        }
        let own = (self.identity.certificate_pem.clone(), self.identity.key_pem.clone());
        let trust = Trust::Authority { ca_pem: self.identity.ca_pem.clone(), identity: Some(own) };
        let mut addresses = self.identity.hq_addresses.clone();
        let announced = self.behaviour.addresses().iter().filter(|address| !addresses.contains(address));
        addresses.extend(announced.cloned().collect::<Vec<_>>());
        let mut last = SiteError::Usage("no address of HQ is known".to_owned());
        for address in &addresses {
            match dial_with(address, &trust).await {
                Ok(dialed) => {
                    let resolved = dialed.resolved.map_or_else(String::new, |resolved| resolved.to_string());
                    match self.serve(address, dialed, trouble.clone(), stop).await {
                        // That is no trouble with HQ.
                        Err(error @ SiteError::Capture(_)) => return Err(error),
                        Ok(ended) => return Ok(ended),
                        Err(error) => {
                            self.note_attempt(address, resolved, &error);
                            last = error;
                        }
                    }
                }
                Err(DialFailed { error, resolved }) => {
                    self.is_expired |= matches!(error, SiteError::Clock { .. });
                    self.note_attempt(address, resolved, &error);
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// Serves a connection: as a rule with all there is, else by saying what is wrong here.
    async fn serve(
        &mut self,
        address: &str,
        dialed: Dialed,
        trouble: Option<(Cause, String)>,
        stop: &CancellationToken,
    ) -> Result<Ended, SiteError> {
        if let Some((cause, text)) = trouble {
            let blind = Blind {
                database: &self.database,
                directory: &self.directory,
                feed: &self.feed,
                notes: &self.notes,
                status: &mut self.status,
                instance: &self.instance,
                address,
                resolved: dialed.resolved,
                authorities: authorities(&self.identity.ca_pem),
                hq_clock_offset: self.hq_clock_offset,
            };
            return blind.run(dialed.channel, stop, cause, text).await;
        }
        self.upgrade().await?;
        let mut session = Session {
            notes_cleared: None,
            manifest_stated: None,
            manifest_of: None,
            read: Instant::now(),
            database: &self.database,
            directory: &self.directory,
            feed: &self.feed,
            shelf: &self.shelf,
            notes: &self.notes,
            status: &mut self.status,
            health: &self.health,
            instance: &self.instance,
            address,
            resolved: dialed.resolved,
            behaviour: &mut self.behaviour,
            authorities: authorities(&self.identity.ca_pem),
            event_times: &self.identity.event_times,
            hq_clock_offset: &mut self.hq_clock_offset,
        };
        let served = session.run(dialed.channel, stop).await;
        self.notes.set_text(HQ_CLOCK, &self.hq_clock_offset.to_string())?;
        served
    }

    fn note_attempt(&self, address: &str, resolved: String, error: &SiteError) {
        let cause = error.cause().map_or(proto::Cause::Unspecified, proto::Cause::from);
        let attempt = Attempt {
            at_micros: clock_micros(),
            address: address.to_owned(),
            resolved,
            error: describe(error),
            cause: cause.into(),
        };
        if let Err(error) = self.notes.note_attempt(&attempt) {
            tracing::debug!(error = %describe(&error), "an attempt could not be noted");
        }
    }
}
