//! The part as a whole.

use std::{path::PathBuf, sync::Arc};

use prometheus_client::registry::Registry as Metrics;
use rollcall_alert::{Alerts, ArrivedSource};
use rollcall_answer::Answers;
use rollcall_books::Books;
use rollcall_gateway::{Authority, Ingest};
use rollcall_publish::Publisher;
use rollcall_registry::{Registry, doors::Doors};
use tokio::sync::Semaphore;

use crate::{access::Credentials, callers::Callers, guesses::Guesses};

/// What the API is made from.
pub struct ApiParts {
    /// Answers questions; it has the parts below it.
    pub answers: Arc<Answers>,
    /// The way of rows into the lake: whether it is well.
    pub ingest: Arc<Ingest>,
    /// Says who HQ is, and who a site is.
    pub authority: Arc<Authority>,
    /// Users and tokens.
    pub credentials: Arc<Credentials>,
    /// Callers turned away of late.
    pub doors: Arc<Doors>,
    /// Who has what was published, for the daily roll call.
    pub arrived: ArrivedSource,
    /// What the parts export.
    pub metrics: Metrics,
    /// How many sites this process can hold.
    pub capacity: usize,
    /// This node's data directory.
    pub directory: PathBuf,
    /// Where sites reach this node, for people: `HOST` stands for a name that only they know.
    pub address_for_sites: String,
}

/// How people and programs ask.
pub struct Api {
    pub(crate) registry: Arc<Registry>,
    pub(crate) books: Arc<Books>,
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) answers: Arc<Answers>,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) doors: Arc<Doors>,
    pub(crate) arrived: ArrivedSource,
    pub(crate) metrics: Metrics,
    pub(crate) capacity: usize,
    pub(crate) directory: PathBuf,
    pub(crate) address_for_sites: String,
    /// Wrong passwords of late.
    pub(crate) guesses: Guesses,
    /// Who logged in.
    pub(crate) callers: Callers,
    /// Checking a password is slow and needs memory on purpose; only so many at a time.
    pub(crate) password_checks: Arc<Semaphore>,
    /// And only so many wait for that.
    pub(crate) password_line: Arc<Semaphore>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// Nobody has called yet.
    pub fn new(parts: ApiParts) -> Self {
        let answers = parts.answers;
        Self {
            registry: answers.registry.clone(),
            books: answers.books.clone(),
            alerts: answers.alerts.clone(),
            publisher: answers.publisher.clone(),
            guesses: Guesses::new(answers.registry.lake.clone()),
            answers,
            ingest: parts.ingest,
            authority: parts.authority,
            credentials: parts.credentials,
            doors: parts.doors,
            arrived: parts.arrived,
            metrics: parts.metrics,
            capacity: parts.capacity,
            directory: parts.directory,
            address_for_sites: parts.address_for_sites,
            callers: Callers::default(),
            password_checks: Arc::new(Semaphore::new(2)),
            password_line: Arc::new(Semaphore::new(64)),
        }
    }

    /// Who guesses a lot of passwords, in a sentence; none if nobody does.
    pub fn told_of_guesses(&self) -> Option<String> {
        self.guesses.told(self.registry.now())
    }
}
