//! Time and chance of a test's own.

use std::{cell::RefCell, marker::PhantomData, time::Duration};

use rand::{RngCore, SeedableRng, rngs::StdRng};
use rollcall_types::Timestamp;
use tokio::time::Instant;

thread_local! {
    static RUNNING: RefCell<Option<Simulated>> = const { RefCell::new(None) };
}

struct Simulated {
    chance: StdRng,
    began: Instant,
    began_at: Timestamp,
}

/// While it lives, time and chance of this thread are simulated. The tokio runtime must run on this
/// thread alone, with its clock paused from the beginning.
#[derive(Debug)]
#[must_use = "the simulation ends when this is dropped"]
pub struct Simulation {
    /// It belongs to its thread.
    _of_thread: PhantomData<*const ()>,
}

impl Simulation {
    /// Begins at this time of day; chance follows from the seed.
    ///
    /// # Panics
    /// If another one runs on this thread.
    pub fn begin(seed: u64, at: Timestamp) -> Self {
        let simulated = Simulated { chance: StdRng::seed_from_u64(seed), began: Instant::now(), began_at: at };
        let before = RUNNING.replace(Some(simulated));
        assert!(before.is_none(), "one simulation at a time");
        Self { _of_thread: PhantomData }
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        RUNNING.take();
    }
}

pub(crate) fn is_running() -> bool {
    RUNNING.with_borrow(Option::is_some)
}

pub(crate) fn since_start() -> Option<Duration> {
    RUNNING.with_borrow(|running| running.as_ref().map(|simulated| simulated.began.elapsed()))
}

pub(crate) fn now() -> Option<Timestamp> {
    RUNNING.with_borrow(|running| {
        let simulated = running.as_ref()?;
        let passed = i64::try_from(simulated.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        Some(simulated.began_at.plus_micros(passed))
    })
}

/// Fills the bytes if a simulation runs.
pub(crate) fn fill(bytes: &mut [u8]) -> bool {
    RUNNING.with_borrow_mut(|running| running.as_mut().map(|simulated| simulated.chance.fill_bytes(bytes)).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Simulation, new_id, now, random, since_boot};

    async fn drawn(seed: u64) -> (Timestamp, Duration, [u8; 9], String) {
        let _simulation = Simulation::begin(seed, Timestamp::from_seconds(1_800_000_000));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        (now(), since_boot(), random().expect("simulated"), new_id().to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_gives_the_same_time_and_chance() {
        let (first, again, other) = (drawn(3).await, drawn(3).await, drawn(4).await);
        assert_eq!(first, again);
        assert_eq!(first.0, Timestamp::from_micros(1_800_000_001_500_000));
        assert_eq!((first.0, first.1), (other.0, other.1), "time does not follow from the seed");
        assert_ne!((first.2, &first.3), (other.2, &other.3));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_simulation_nothing_repeats() {
        drop(Simulation::begin(3, Timestamp::from_seconds(0)));
        assert!(now() > Timestamp::from_seconds(1_700_000_000), "the system's time again");
        assert_ne!(random::<9>(), random::<9>());
        assert_ne!(new_id(), new_id());
    }
}
