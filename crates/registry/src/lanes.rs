//! Which of a site's batches wait with backlogs, and which go first.

use std::sync::atomic::{AtomicU32, Ordering};

use rollcall_types::Seq;
use tokio::sync::Notify;

/// Where a batch waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// What happens now.
    Live,
    /// What a site brings that was away.
    Backlog,
}

/// The lanes of one session. A batch is of a backlog if it ends within what the site came with. One
/// behind that waits until those are through: it must not overtake them, since each continues where
/// the one before ended.
#[derive(Debug)]
pub struct Lanes {
    /// Changes up to here are what the site came with.
    backlog: Seq,
    /// Batches of it of which it is not known what became.
    waiting: AtomicU32,
    through: Notify,
}

impl Lanes {
    /// For a site that came with changes up to here.
    pub fn new(backlog: Seq) -> Self {
        Self { backlog, waiting: AtomicU32::new(0), through: Notify::new() }
    }

    /// The lane of a batch that ends here, which it may enter now; it is in it until
    /// [`Self::leave`]. For one caller at a time.
    pub async fn enter(&self, last: Seq) -> Lane {
        if last <= self.backlog {
            self.waiting.fetch_add(1, Ordering::AcqRel);
            return Lane::Backlog;
        }
        while self.waiting.load(Ordering::Acquire) > 0 {
            self.through.notified().await;
        }
        Lane::Live
    }

    /// What became of a batch is known.
    pub fn leave(&self, lane: Lane) {
        if lane == Lane::Backlog && self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Kept for the next one that waits, if none does now.
            self.through.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn nothing_overtakes_what_waits_and_the_way_is_free_afterwards() {
        let lanes = Lanes::new(Seq(1000));
        let enter = |last| lanes.enter(Seq(last)).now_or_never();
        assert_eq!((enter(500), enter(1000)), (Some(Lane::Backlog), Some(Lane::Backlog)));
        let mut live = Box::pin(lanes.enter(Seq(1001)));
        assert_eq!(live.as_mut().now_or_never(), None);
        lanes.leave(Lane::Backlog);
        assert_eq!(live.as_mut().now_or_never(), None);
        lanes.leave(Lane::Backlog);
        assert_eq!(live.now_or_never(), Some(Lane::Live));
        assert_eq!(enter(1002), Some(Lane::Live));
        // What is sent again after a gap is judged anew.
        assert_eq!((enter(800), enter(1003)), (Some(Lane::Backlog), None));
    }
}
