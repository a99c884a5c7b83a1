//! Gathers parts of many sites' batches and commits them together, a table at a time.
//!
//! One task per table: it waits for a part, gathers for a moment, commits, and answers every
//! sender. While it commits, the next parts gather; so under load each commit is large, and alone a
//! part waits only for the moment.
//!
//! Live sites first: what sites bring that were away (a backlog) waits in a queue of its own, a
//! short one, and fills commits as far as what happens now leaves room. Before that, sites that
//! catch up take turns at being decoded, each a batch at a time, as many as there are processors;
//! what waits for a turn is not read from the line. So five thousand sites that come back together
//! take the time there is, in equal parts, and no memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::registry::Registry as Metrics;
use rollcall_lake::{LakeError, Part, PartOutcome, Table};
use rollcall_registry::{Health, Lane};
use rollcall_types::describe;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::metrics::IngestMetrics;

/// What [`Health`] calls a table's commits.
const STORE: &str = "store what sites send to";

/// How long parts gather before a commit, and how many batches are at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatherLimits {
    /// A commit waits this long for company …
    pub time: Duration,
    /// … unless this many rows are there.
    pub rows: usize,
    /// Batches of sites that catch up are decoded so many at a time.
    pub turns: usize,
}

impl Default for GatherLimits {
    fn default() -> Self {
        let turns = std::thread::available_parallelism().map_or(1, usize::from);
        Self { time: Duration::from_millis(50), rows: 30_000, turns }
    }
}

/// Batches of all sites that are unpacked and not in the lake yet take 512 MiB at most; the next
/// one waits, and is not read from the line meanwhile.
const UNPACKED_KIB_MAX: u32 = 512 * 1024;
/// Parts waiting for one table; a session cannot have many in flight, so this bounds nothing but
/// surprises.
const QUEUE_PARTS: usize = 4096;
/// Parts of backlogs waiting for one table.
const BACKLOG_PARTS: usize = 128;

struct Submission {
    part: Part,
    reply: oneshot::Sender<PartOutcome>,
    /// The memory that its batch takes, until it is committed.
    room: Option<Arc<OwnedSemaphorePermit>>,
}

/// The ways into one table.
#[derive(Debug, Clone)]
struct Queues {
    live: mpsc::Sender<Submission>,
    backlog: mpsc::Sender<Submission>,
}

/// The other ends.
struct Waiting {
    live: mpsc::Receiver<Submission>,
    backlog: mpsc::Receiver<Submission>,
}

impl Waiting {
    /// The next part, a live one if there is any.
    async fn next(&mut self) -> Option<Submission> {
        tokio::select! {
            biased;
            Some(live) = self.live.recv() => Some(live),
            Some(backlog) = self.backlog.recv() => Some(backlog),
            else => None,
        }
    }
}

/// All tables' gatherers.
#[derive(Debug)]
pub struct Ingest {
    limits: GatherLimits,
    queues: Mutex<HashMap<String, Queues>>,
    /// Turns of sites that catch up.
    turns: Semaphore,
    /// Room for batches that are unpacked, in KiB.
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
    health: Arc<Health>,
    pub(crate) metrics: IngestMetrics,
}

impl Ingest {
    /// No gatherers yet: a table's begins with its first part, and ends when `stop` says so.
    pub fn new(limits: GatherLimits, health: Arc<Health>, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let (queues, turns) = (Mutex::default(), Semaphore::new(limits.turns));
        let room = Arc::new(Semaphore::new(UNPACKED_KIB_MAX as usize));
        Self { limits, queues, turns, room, tasks, stop, health, metrics: IngestMetrics::default() }
    }

    /// Whether HQ can store what sites send: the last commit of every table could be made.
    pub fn is_well(&self) -> bool {
        !self.health.is_failing(STORE)
    }

    /// Adds what is counted here.
    pub fn register(&self, metrics: &mut Metrics) {
        self.metrics.register(metrics);
    }

    /// A turn to decode and hand over one batch of a backlog; those who wait get theirs in the
    /// order in which they came.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// Room for a batch of this many bytes once it is unpacked, until it is in the lake.
    pub(crate) async fn room(&self, unpacked: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(unpacked.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, UNPACKED_KIB_MAX);
        self.room.clone().acquire_many_owned(kib).await.ok()
    }

    /// Hands a part to its table. The reply comes when the outcome is durable; it never comes when
    /// the commit's outcome could not be learned, and then the site must send again.
    pub(crate) async fn submit(
        &self,
        table: &Arc<Table>,
        part: Part,
        lane: Lane,
        room: Option<Arc<OwnedSemaphorePermit>>,
    ) -> oneshot::Receiver<PartOutcome> {
        let (reply, outcome) = oneshot::channel();
        let queues = self.queues(table);
        let queue = match lane {
            Lane::Live => queues.live,
            Lane::Backlog => queues.backlog,
        };
        // A closed queue drops the reply, which the caller sees as "unknown".
        self.metrics.waiting_parts.inc();
        if queue.send(Submission { part, reply, room }).await.is_err() {
            self.metrics.waiting_parts.dec();
        }
        outcome
    }

    fn queues(&self, table: &Arc<Table>) -> Queues {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues
            .entry(table.root().to_string())
            .or_insert_with(|| {
                let (live, live_waiting) = mpsc::channel(QUEUE_PARTS);
                let (backlog, backlog_waiting) = mpsc::channel(BACKLOG_PARTS);
                let (waiting, health) = (Waiting { live: live_waiting, backlog: backlog_waiting }, self.health.clone());
                let gatherer = Gatherer { limits: self.limits, health, metrics: self.metrics.clone() };
                self.tasks.spawn(gatherer.run(table.clone(), waiting, self.stop.clone()));
                Queues { live, backlog }
            })
            .clone()
    }
}

/// Commits what waits for one table.
struct Gatherer {
    limits: GatherLimits,
    health: Arc<Health>,
    metrics: IngestMetrics,
}

impl Gatherer {
    async fn run(self, table: Arc<Table>, mut queue: Waiting, stop: CancellationToken) {
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                first = queue.next() => first,
            };
            let Some(first) = first else { return };
            let submissions = self.gather(first, &mut queue).await;
            let parts = submissions.len() as i64;
            self.commit(&table, submissions).await;
            self.metrics.waiting_parts.dec_by(parts);
        }
    }

    /// The first part, and what comes within a moment.
    async fn gather(&self, first: Submission, queue: &mut Waiting) -> Vec<Submission> {
        let mut rows = first.part.rows.rows.num_rows();
        let mut submissions = vec![first];
        let deadline = rollcall_runtime::Instant::now() + self.limits.time;
        while rows < self.limits.rows {
            match tokio::time::timeout_at(deadline, queue.next()).await {
                Ok(Some(next)) => {
                    rows += next.part.rows.rows.num_rows();
                    submissions.push(next);
                }
                Ok(None) | Err(_) => break,
            }
        }
        // However much happens now, backlogs go on.
        submissions.extend(queue.backlog.try_recv());
        submissions
    }

    async fn commit(&self, table: &Arc<Table>, submissions: Vec<Submission>) {
        let (work, reading) = (format!("{STORE} {}", table.root()), format!("read the log of {}", table.root()));
        let (mut parts, mut replies, mut rooms) = (Vec::new(), Vec::new(), Vec::new());
        for Submission { part, reply, room } in submissions {
            parts.push(part);
            replies.push(reply);
            rooms.push(room);
        }
        let parts = Arc::new(parts);
        let began = rollcall_runtime::Instant::now();
        let appended = table.append(parts.clone()).await;
        self.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
        // Whoever takes no answers keeps no memory.
        drop(rooms);
        match appended {
            Ok(appended) => {
                self.health.done(&work);
                for (reply, outcome) in replies.into_iter().zip(appended.outcomes) {
                    if let PartOutcome::Durable { rows } = outcome {
                        self.metrics.rows.inc_by(rows as u64);
                    }
                    // The session may be gone; the rows are durable all the same, and it will be
                    // told when it is back.
                    let _ = reply.send(outcome);
                }
            }
            // Nobody is told anything: the sites send again, and the cursors sort out what took
            // effect.
            Err(error) if table.set_aside().is_some() => self.health.failed(&work, &describe(&error)),
            Err(error) if !matches!(error, LakeError::Store { .. } | LakeError::Contention(_)) => {
                // One site's rows are to blame; the others must not suffer with it.
                tracing::error!(table = %table.root(), error = %describe(&error), "a commit failed");
                append_one_by_one(table, &parts, replies, &self.metrics).await;
            }
            Err(error) => {
                self.health.failed(&work, &describe(&error));
                self.health.note(&reading, &table.refresh().await);
            }
        }
    }
}

/// Commits each part by itself; one that cannot be committed gets no answer.
async fn append_one_by_one(
    table: &Arc<Table>,
    parts: &[Part],
    replies: Vec<oneshot::Sender<PartOutcome>>,
    metrics: &IngestMetrics,
) {
    for (part, reply) in parts.iter().zip(replies) {
        match table.append(Arc::new(vec![part.clone()])).await {
            Ok(appended) => {
                if let Some(outcome) = appended.outcomes.first() {
                    if let PartOutcome::Durable { rows } = outcome {
                        metrics.rows.inc_by(*rows as u64);
                    }
                    // The session may be gone.
                    let _ = reply.send(*outcome);
                }
            }
            Err(error) => {
                tracing::error!(table = %table.root(), site = %part.site_id, error = %describe(&error), "a part cannot be committed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn batches_wait_for_room_and_the_largest_one_fits() {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let ingest = Ingest::new(GatherLimits::default(), Arc::default(), tasks, stop);
        let largest = rollcall_wire::BATCH_BYTES_MAX as u64;
        let mut inside = Vec::new();
        while let Some(room) = futures::FutureExt::now_or_never(ingest.room(largest)) {
            inside.push(room.expect("open"));
        }
        assert_eq!(inside.len(), 8, "512 MiB of 64 each");
        inside.pop();
        assert!(futures::FutureExt::now_or_never(ingest.room(u64::MAX)).is_none(), "more than all waits for all");
        inside.clear();
        assert!(futures::FutureExt::now_or_never(ingest.room(u64::MAX)).is_some());
    }
}
