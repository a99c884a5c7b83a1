//! How many sites this process can hold: each connection is an open file.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files kept for the lake, people and everything else.
const RESERVED: u64 = 500;
/// Connections beyond the sites a node can hold, out of what is reserved: those that enrol, and
/// those that are told to call another.
pub(crate) const CALLERS_BEYOND: usize = 200;
/// Where the system sets no limit.
const PLENTY: u64 = 1_000_000;

/// Raises the limit of open files as far as the system lets it, and says how many sites that is.
pub fn of_this_process() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            limit.current
        }
    };
    let files = files.unwrap_or(PLENTY).min(PLENTY);
    usize::try_from(files.saturating_sub(RESERVED).max(files / 2)).unwrap_or(usize::MAX)
}

/// Whether a node that can hold `capacity` sites and has `count` should get no more by a load
/// balancer.
pub fn is_nearly_full(count: usize, capacity: usize) -> bool {
    count * 20 >= capacity * 19
}
