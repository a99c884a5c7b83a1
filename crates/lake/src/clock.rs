//! The clock behind the zombie rule: one that goes on while the machine sleeps.

use std::{fmt, sync::Arc, time::Duration};

/// Time since boot, suspended time included; a test may put its own in.
#[derive(Clone)]
pub struct BootClock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl BootClock {
    /// A clock of the caller's.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Time since boot.
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl Default for BootClock {
    fn default() -> Self {
        Self::new(rollcall_runtime::since_boot)
    }
}

impl fmt::Debug for BootClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BootClock")
    }
}
