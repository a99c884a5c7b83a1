//! The agent's outer loop: connect, serve, and when it ends, connect again; for ever.

use rollcall_types::describe;
use std::{path::PathBuf, time::Duration};

use rand::Rng;
use rollcall_capture::Source;
use rollcall_wire::proto::Attempt;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    dial::{DialFailed, Trust, dial_with},
    enrol::{is_renewal_due, renew},
    error::SiteError,
    feed::Feed,
    published::Shelf,
    session::Session,
    settings::{Behaviour, LogControl},
    state::{Identity, Notes, StateDirectory},
    status::StatusFile,
};

/// How an agent runs.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The store's database; its state directory lies beside it.
    pub database: PathBuf,
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
        Self { database, retry_delay_max: Duration::from_secs(60), hq_addresses: Vec::new(), log: None }
    }
}

/// How a session ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The agent is to stop.
    Stopped,
    /// The connection had its time.
    Old,
}

/// The agent of one site.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    directory: StateDirectory,
    identity: Identity,
    feed: Feed,
    shelf: Shelf,
    notes: Notes,
    status: StatusFile,
    /// New at every start: tells two copies of one site apart.
    instance: String,
    behaviour: Behaviour,
}

const RETRY_DELAY_MIN: Duration = Duration::from_millis(500);
/// A session that lasted this long starts the pauses anew.
const SETTLED_AFTER: Duration = Duration::from_secs(30);

impl Agent {
    /// Opens the database and the agent's files.
    pub fn open(config: AgentConfig) -> Result<Self, SiteError> {
        let database = crate::enrol::database(&config.database)?;
        let directory = StateDirectory::beside(&database);
        let mut identity = directory.identity()?;
        // The store may have been moved together with its state directory.
        identity.database.clone_from(&database);
        if !config.hq_addresses.is_empty() {
            identity.hq_addresses.clone_from(&config.hq_addresses);
        }
        let notes = Notes::open(&directory)?;
        Ok(Self {
            feed: Feed::open(&database)?,
            shelf: Shelf::open(&database, directory.path())?,
            behaviour: Behaviour::new(&notes, config.log.clone())?,
            notes,
            status: StatusFile::new(directory.clone()),
            instance: uuid::Uuid::new_v4().to_string(),
            config,
            directory,
            identity,
        })
    }

    /// The site's id.
    pub fn site(&self) -> &str {
        &self.identity.site
    }

    /// Runs until `stop`. No trouble ends it: what cannot be done now is tried again, and status says what is wrong.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), SiteError> {
        let mut delay = RETRY_DELAY_MIN;
        let _time = AbortOnDropHandle::new(tokio::spawn(self.shelf.clone().keep_time()));
        while !stop.is_cancelled() {
            let began = tokio::time::Instant::now();
            // A session sees the request to stop itself and says goodbye; dialing takes seconds at most.
            match self.attempt(&stop).await {
                Ok(Ended::Stopped) => break,
                Ok(Ended::Old) => {
                    self.status.disconnected(None, false);
                    delay = RETRY_DELAY_MIN;
                    continue;
                }
                Err(error) => self.note_failure(&error)?,
            }
            if began.elapsed() > SETTLED_AFTER {
                delay = RETRY_DELAY_MIN;
            }
            // Full jitter: after an outage, sites come back spread out.
            let pause = delay.mul_f64(rand::rng().random_range(0.3..1.0));
            delay = (delay * 2).min(self.config.retry_delay_max);
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.status.disconnected(Some("the agent was stopped".to_owned()), false);
        self.status.write()
    }

    fn note_failure(&mut self, error: &SiteError) -> Result<(), SiteError> {
        tracing::warn!(error = %describe(error), "no connection to HQ");
        let refused = matches!(error, SiteError::Refused { .. } | SiteError::NotOurHq { .. });
        self.status.disconnected(Some(describe(error)), refused);
        self.status.write()
    }

    /// Tries each address once, and serves the first that works.
    async fn attempt(&mut self, stop: &CancellationToken) -> Result<Ended, SiteError> {
        if is_renewal_due(&self.identity, Source::clock_micros()) {
            match renew(&self.directory, &self.identity).await {
                Ok(renewed) => self.identity = renewed,
                Err(error) => tracing::warn!(error = %describe(&error), "the certificate could not be renewed yet"),
            }
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
                    let mut session = Session {
                        bypass_looked: None,
                        manifest_stated: None,
                        database: &self.identity.database,
                        feed: &self.feed,
                        shelf: &self.shelf,
                        notes: &self.notes,
                        status: &mut self.status,
                        instance: &self.instance,
                        address,
                        resolved: dialed.resolved,
                        behaviour: &mut self.behaviour,
                        event_times: &self.identity.event_times,
                    };
                    let resolved = dialed.resolved.map_or_else(String::new, |resolved| resolved.to_string());
                    match session.run(dialed.channel, stop).await {
                        Ok(ended) => return Ok(ended),
                        Err(error) => {
                            self.note_attempt(address, resolved, &error)?;
                            last = error;
                        }
                    }
                }
                Err(DialFailed { error, resolved }) => {
                    self.note_attempt(address, resolved, &error)?;
                    last = error;
                }
            }
        }
        Err(last)
    }

    fn note_attempt(&self, address: &str, resolved: String, error: &SiteError) -> Result<(), SiteError> {
        self.notes.note_attempt(&Attempt {
            at_micros: Source::clock_micros(),
            address: address.to_owned(),
            resolved,
            error: describe(error),
        })
    }
}
