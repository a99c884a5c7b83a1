//! Time, chance and blocking work: HQ's parts take them from here and from nowhere else.
//!
//! In a program they are the system's. On a thread with a [`Simulation`] they follow from its seed
//! and from tokio's paused clock, so that a test of several nodes does the same again, byte for
//! byte. Clippy refuses the direct calls (`clippy.toml`).
//!
//! Private keys, the vault's keys and its nonces are made of the system's randomness in a
//! simulation as well. Nothing but a test begins one.
#![forbid(unsafe_code)]

mod blocking;
mod simulation;

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use rollcall_types::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Interval, MissedTickBehavior};
pub use tokio::{task::spawn, time::Instant};
use uuid::{Builder, Uuid};

pub use self::{
    blocking::{Blocking, Broken, blocking, in_place},
    simulation::Simulation,
};

/// The machine's time of day. It may be wrong, and it may jump: [`Instant`] measures how long
/// something took.
#[expect(clippy::disallowed_methods, reason = "this is where it is taken from")]
pub fn now() -> Timestamp {
    simulation::now().unwrap_or_else(|| chrono::Utc::now().into())
}

/// Time since the machine started, also while it sleeps; [`Instant`] may stand still then.
pub fn since_boot() -> Duration {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: ClockId = ClockId::Monotonic;
    simulation::since_start().unwrap_or_else(|| {
        let time = clock_gettime(CLOCK);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
    })
}

/// A timer that ticks at once and then in each period. It does not catch up: two looks in a row
/// would see the same.
pub fn every(period: Duration) -> Interval {
    let mut timer = tokio::time::interval(period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

/// The system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no randomness from the system")]
pub struct NoRandomness;

/// Bytes that nobody can guess. In a simulation they follow from its seed.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    if !simulation::fill(&mut bytes) {
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    }
    Ok(bytes)
}

/// A new name that nothing else has: a random UUID.
#[expect(clippy::disallowed_methods, reason = "this is where it is taken from")]
pub fn new_id() -> Uuid {
    let mut bytes = [0; 16];
    match simulation::fill(&mut bytes) {
        true => Builder::from_random_bytes(bytes).into_uuid(),
        false => Uuid::new_v4(),
    }
}
