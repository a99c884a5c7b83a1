//! Threads of their own for questions: whatever a question does to them, sites are served and
//! watched.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};

use crate::error::QueryError;

/// Stack of a thread that reads, plans and runs questions: trees are walked by recursion. Only what
/// is touched takes memory.
pub(crate) const STACK_BYTES: usize = 128 << 20;
/// How much later than others' their turn comes, in the sense of nice(2).
const NICENESS: i32 = 5;
/// A thread that waits for a file is kept this long.
const IDLE: Duration = Duration::from_secs(10);

/// The threads on which questions run: as many as there are processors, less one.
pub(crate) struct QuestionThreads {
    /// Taken when it is dropped.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for QuestionThreads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QuestionThreads")
    }
}

impl QuestionThreads {
    pub(crate) fn start() -> std::io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads(processors.saturating_sub(1).max(1))
            .thread_name("question")
            .thread_stack_size(STACK_BYTES)
            .thread_keep_alive(IDLE)
            .on_thread_start(|| {
                // Without it they only take a larger share.
                let _ = rustix::process::nice(NICENESS);
            })
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Runs a part of a question here; it ends when its result is no longer waited for. A panic is
    /// this question's error.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Result<T, QueryError> {
        let Some(handle) = self.handle() else { return Err(QueryError::Stopping) };
        let caught = AssertUnwindSafe(work).catch_unwind();
        match EndsWithWaiter(handle.spawn(caught)).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(QueryError::Panicked(what_panicked(panic.as_ref()))),
            Err(_) => Err(QueryError::Stopping),
        }
    }

    pub(crate) fn handle(&self) -> Option<&Handle> {
        self.runtime.as_ref().map(Runtime::handle)
    }
}

impl Drop for QuestionThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A question that does not end must not keep the process.
            runtime.shutdown_background();
        }
    }
}

/// The text of a panic.
pub(crate) fn what_panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".to_owned())
}

/// A task that is stopped when nobody waits for it.
struct EndsWithWaiter<T>(JoinHandle<T>);

impl<T> Future for EndsWithWaiter<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for EndsWithWaiter<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_one_question_alone() {
        let threads = QuestionThreads::start().expect("threads start");
        let panicked = threads.run::<()>(async { panic!("a fault of {}", "ours") }).await;
        assert!(matches!(&panicked, Err(QueryError::Panicked(text)) if text == "a fault of ours"), "{panicked:?}");
        assert_eq!(threads.run(async { Ok(7) }).await.expect("the next is answered"), 7);
    }

    #[tokio::test]
    async fn work_ends_when_nobody_waits_for_it() {
        let threads = QuestionThreads::start().expect("threads start");
        let (ended, is_ended) = tokio::sync::oneshot::channel::<()>();
        let forever = threads.run::<()>(async move {
            let _held = ended;
            std::future::pending().await
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), forever).await.is_err());
        assert!(is_ended.await.is_err(), "the sender was dropped with the work");
    }
}
