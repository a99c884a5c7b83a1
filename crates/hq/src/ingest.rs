//! Gathers parts of many sites' batches and commits them together, a table at a time.
//!
//! One task per table: it waits for a part, gathers for a moment, commits, and answers every sender. While it commits, the
//! next parts gather; so under load each commit is large, and alone a part waits only for the moment.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rollcall_lake::{LakeError, Part, PartOutcome, Table};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use rollcall_types::describe;

/// How long parts gather before a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GatherLimits {
    /// A commit waits this long for company …
    pub(crate) time: Duration,
    /// … unless this many rows are there.
    pub(crate) rows: usize,
}

impl Default for GatherLimits {
    fn default() -> Self {
        Self { time: Duration::from_millis(50), rows: 30_000 }
    }
}

/// Parts waiting for one table; a session cannot have many in flight, so this bounds nothing but surprises.
const QUEUE_PARTS: usize = 4096;

struct Submission {
    part: Part,
    reply: oneshot::Sender<PartOutcome>,
}

/// All tables' gatherers.
#[derive(Debug)]
pub(crate) struct Ingest {
    limits: GatherLimits,
    queues: Mutex<HashMap<String, mpsc::Sender<Submission>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Whether the last commit of any table could be made.
    well: Arc<AtomicBool>,
}

impl Ingest {
    pub(crate) fn new(limits: GatherLimits, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self { limits, queues: Mutex::default(), tasks, stop, well: Arc::new(AtomicBool::new(true)) }
    }

    /// Whether HQ can store what sites send.
    pub(crate) fn is_well(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }

    /// Hands a part to its table. The reply comes when the outcome is durable; it never comes when the commit's outcome
    /// could not be learned, and then the site must send again.
    pub(crate) async fn submit(&self, table: &Arc<Table>, part: Part) -> oneshot::Receiver<PartOutcome> {
        let (reply, outcome) = oneshot::channel();
        let queue = self.queue(table);
        // A closed queue drops the reply, which the caller sees as "unknown".
        let _ = queue.send(Submission { part, reply }).await;
        outcome
    }

    fn queue(&self, table: &Arc<Table>) -> mpsc::Sender<Submission> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues
            .entry(table.root().to_string())
            .or_insert_with(|| {
                let (sender, receiver) = mpsc::channel(QUEUE_PARTS);
                let well = self.well.clone();
                self.tasks.spawn(gather(table.clone(), receiver, self.limits, self.stop.clone(), well));
                sender
            })
            .clone()
    }
}

async fn gather(
    table: Arc<Table>,
    mut queue: mpsc::Receiver<Submission>,
    limits: GatherLimits,
    stop: CancellationToken,
    well: Arc<AtomicBool>,
) {
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => return,
            first = queue.recv() => first,
        };
        let Some(first) = first else { return };
        let mut rows = first.part.rows.rows.num_rows();
        let mut submissions = vec![first];
        let deadline = tokio::time::Instant::now() + limits.time;
        while rows < limits.rows {
            match tokio::time::timeout_at(deadline, queue.recv()).await {
                Ok(Some(next)) => {
                    rows += next.part.rows.rows.num_rows();
                    submissions.push(next);
                }
                Ok(None) | Err(_) => break,
            }
        }
        let (parts, replies): (Vec<Part>, Vec<_>) =
            submissions.into_iter().map(|submission| (submission.part, submission.reply)).unzip();
        let parts = Arc::new(parts);
        match table.append(parts.clone()).await {
            Ok(appended) => {
                well.store(true, Ordering::Relaxed);
                for (reply, outcome) in replies.into_iter().zip(appended.outcomes) {
                    // The session may be gone; the rows are durable all the same, and it will be told when it is back.
                    let _ = reply.send(outcome);
                }
            }
            // Nobody is told anything: the sites send again, and the cursors sort out what took effect.
            Err(error) => {
                tracing::error!(table = %table.root(), error = %describe(&error), "a commit failed");
                if !matches!(error, LakeError::Store { .. } | LakeError::Contention(_)) {
                    // One site's rows are to blame; the others must not suffer with it.
                    append_one_by_one(&table, &parts, replies).await;
                    continue;
                }
                well.store(false, Ordering::Relaxed);
                if let Err(error) = table.refresh().await {
                    tracing::error!(table = %table.root(), error = %describe(&error), "the log cannot be read");
                }
            }
        }
    }
}

/// Commits each part by itself; one that cannot be committed gets no answer.
async fn append_one_by_one(table: &Arc<Table>, parts: &[Part], replies: Vec<oneshot::Sender<PartOutcome>>) {
    for (part, reply) in parts.iter().zip(replies) {
        match table.append(Arc::new(vec![part.clone()])).await {
            Ok(appended) => {
                if let Some(outcome) = appended.outcomes.first() {
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
