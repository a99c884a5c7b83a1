//! How large what functions give may be: a short question must not fill HQ's memory.

use std::cell::Cell;

use datafusion::common::{DataFusionError, Result, exec_err};

/// The most that one value may have, bytes.
pub(super) const VALUE_BYTES_MAX: usize = 16 << 20;
/// The most that a function may give for one batch of rows, bytes.
pub(super) const BATCH_BYTES_MAX: usize = 256 << 20;

/// What is left of it for one call.
pub(super) struct Room {
    name: &'static str,
    left: Cell<usize>,
}

impl Room {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, left: Cell::new(BATCH_BYTES_MAX) }
    }

    /// Fails if a value would be too long; to be asked before it is made.
    pub(super) fn check(&self, bytes: usize) -> Result<()> {
        if bytes > VALUE_BYTES_MAX {
            return Err(too_long(self.name));
        }
        if bytes > self.left.get() {
            return exec_err!("the results of {} for one batch of rows would be longer than 256 MiB", self.name);
        }
        Ok(())
    }

    /// Counts a value that was made.
    pub(super) fn take(&self, bytes: usize) -> Result<()> {
        self.check(bytes)?;
        self.left.set(self.left.get() - bytes);
        Ok(())
    }
}

pub(super) fn too_long(name: &str) -> DataFusionError {
    DataFusionError::Execution(format!("the result of {name} would be longer than 16 MiB"))
}
