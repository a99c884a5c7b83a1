//! Work that would hold up a thread of the runtime.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::task::{JoinError, JoinHandle};

use crate::simulation;

/// Why blocking work gave no result.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// It panicked, or the runtime is being stopped.
    #[error(transparent)]
    Task(#[from] JoinError),
    /// It panicked in a simulation, where it does not run as a task.
    #[error("panicked: {0}")]
    Panicked(String),
}

/// The result of work that was started with [`blocking`].
#[derive(Debug)]
pub struct Blocking<T>(State<T>);

#[derive(Debug)]
enum State<T> {
    Runs(JoinHandle<T>),
    /// None once it was taken.
    Done(Option<Result<T, Broken>>),
}

/// Starts work that takes processor time or waits for a file, beside the tasks of the runtime. It
/// goes on if nobody waits for it.
///
/// In a simulation it is done at once: when a thread of its own came back would be chance.
#[expect(clippy::disallowed_methods, reason = "this is where it is started")]
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Blocking<T> {
    if simulation::is_running() {
        let done = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Broken::Panicked(text_of(panic.as_ref())));
        return Blocking(State::Done(Some(done)));
    }
    Blocking(State::Runs(tokio::task::spawn_blocking(work)))
}

/// Work as with [`blocking`], done by the calling task: what it borrows need not be moved.
///
/// # Panics
/// On a runtime with one thread, unless a simulation runs.
#[expect(clippy::disallowed_methods, reason = "this is where it is started")]
pub fn in_place<T>(work: impl FnOnce() -> T) -> T {
    if simulation::is_running() { work() } else { tokio::task::block_in_place(work) }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}

// Nothing in it is pinned: a handle may be moved, and a result is only taken out.
impl<T> Unpin for Blocking<T> {}

impl<T> Future for Blocking<T> {
    type Output = Result<T, Broken>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Runs(handle) => Pin::new(handle).poll(context).map_err(Broken::Task),
            State::Done(done) => Poll::Ready(done.take().expect("polled after it was done")),
        }
    }
}

#[cfg(test)]
mod tests {
    use rollcall_types::Timestamp;

    use super::*;
    use crate::Simulation;

    #[tokio::test(start_paused = true)]
    async fn work_gives_its_result_and_a_panic_is_an_error() {
        for simulated in [false, true] {
            let _simulation = simulated.then(|| Simulation::begin(1, Timestamp::from_seconds(0)));
            assert_eq!(blocking(|| 7).await.expect("done"), 7);
            let panicked = blocking(|| -> u8 { panic!("broken page") }).await.expect_err("panicked");
            assert!(panicked.to_string().contains("panicked"), "{panicked}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_simulation_work_is_done_when_the_call_returns() {
        let _simulation = Simulation::begin(1, Timestamp::from_seconds(0));
        let (sender, receiver) = std::sync::mpsc::channel();
        drop(blocking(move || sender.send(std::thread::current().id())));
        assert_eq!(receiver.try_recv(), Ok(std::thread::current().id()));
    }
}
