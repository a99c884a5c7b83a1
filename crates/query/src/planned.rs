//! A question ready to be answered.

use std::{panic::AssertUnwindSafe, sync::Arc};

use datafusion::{
    arrow::record_batch::{RecordBatch, RecordBatchOptions},
    common::{DataFusionError, Result},
    execution::SendableRecordBatchStream,
    logical_expr::LogicalPlan,
    physical_plan::{execute_stream, stream::RecordBatchStreamAdapter},
    prelude::SessionContext,
};
use futures::{FutureExt, StreamExt};
use rollcall_types::Coverage;
use tokio::sync::mpsc;

use crate::{
    declared::told,
    engine::{Took, shown},
    error::{QueryError, refused},
    stop::StopOnDrop,
    threads::{QuestionThreads, what_panicked},
    turns::Turn,
};

/// Batches that wait for a client that reads slowly.
const WAITING_MAX: usize = 2;

/// A question ready to be answered, and what its answer is missing. Dropped, it stops.
pub struct Planned {
    pub(crate) context: SessionContext,
    pub(crate) plan: LogicalPlan,
    /// Which columns have a declared precision.
    pub(crate) declared: Vec<bool>,
    pub(crate) turn: Turn,
    /// Which sites the answer is about, and which of them it lacks.
    pub coverage: Coverage,
    /// What it took so far.
    pub took: Took,
    pub(crate) stop: StopOnDrop,
    pub(crate) threads: Arc<QuestionThreads>,
}

impl std::fmt::Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planned").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Planned {
    /// The rows, as they are found on the threads of questions. Whoever drops the stream stops the
    /// question.
    pub async fn stream(self) -> Result<SendableRecordBatchStream, QueryError> {
        let Self { context, plan, declared, turn, stop, threads, .. } = self;
        let starting = threads.run(async move {
            let state = context.state();
            let physical = state.query_planner().create_physical_plan(&plan, &state).await?;
            let rows = execute_stream(physical, context.task_ctx())?;
            let schema = told(&shown(&rows.schema()), &declared);
            let (found, receiver) = mpsc::channel(WAITING_MAX);
            tokio::spawn(find(rows, found, turn));
            Ok((schema, receiver))
        });
        let (schema, receiver) = starting.await?;
        let named = schema.clone();
        let rows = futures::stream::unfold((receiver, stop, named), |(mut receiver, stop, named)| async move {
            let rows: Result<RecordBatch> = receiver.recv().await?;
            let rows = rows.and_then(|rows| {
                let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
                let columns = rows.columns().to_vec();
                Ok(RecordBatch::try_new_with_options(named.clone(), columns, &options)?)
            });
            Some((rows, (receiver, stop, named)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// Finds rows until there are no more or nobody wants them.
async fn find(mut rows: SendableRecordBatchStream, found: mpsc::Sender<Result<RecordBatch>>, turn: Turn) {
    // The place is free again when the work has ended, not when it is no longer wanted.
    let _held = turn;
    let wanted = found.clone();
    let work = AssertUnwindSafe(async move {
        while let Some(rows) = rows.next().await {
            if found.send(rows).await.is_err() {
                break;
            }
        }
    });
    tokio::select! {
        ended = work.catch_unwind() => if let Err(panic) = ended {
            let text = QueryError::Panicked(what_panicked(panic.as_ref())).to_string();
            let error: DataFusionError = refused("XX000", text);
            // Without a receiver nobody is left to be told.
            let _ = wanted.send(Err(error)).await;
        },
        () = wanted.closed() => {}
    }
}
