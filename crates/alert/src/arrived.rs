//! What HQ published, and how many have it, as the daily roll call says it. Another part works it
//! out.

use std::sync::Arc;

use rollcall_books::definitions::Arrived;

/// What works out who has what was published.
pub type ArrivedSource = Arc<dyn Fn() -> Vec<Arrived> + Send + Sync>;
