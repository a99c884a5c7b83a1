//! Who may ask now: questions have places, few for one user, so that none takes all the memory or
//! all the time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::QueryError;

/// How long a question waits for a place.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Places for questions.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    /// Those of users who ask or wait right now.
    users: Mutex<HashMap<String, Weak<Semaphore>>>,
    all_max: usize,
    user_max: usize,
}

/// A place, for as long as it is held; HQ's own questions need none.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    _all: Option<OwnedSemaphorePermit>,
    /// Its semaphore lives as long as its permits.
    _user: Option<OwnedSemaphorePermit>,
}

impl Turns {
    pub(crate) fn new(all_max: usize, user_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all_max)), users: Mutex::default(), all_max, user_max }
    }

    /// Waits for a place for a question of this user.
    pub(crate) async fn take(&self, user: Option<&str>) -> Result<Turn, QueryError> {
        let Some(user) = user else { return Ok(Turn::default()) };
        let own = self.of(user);
        let places = async { (own.acquire_owned().await.ok(), self.all.clone().acquire_owned().await.ok()) };
        match tokio::time::timeout(WAIT_MAX, places).await {
            Ok((user, all)) => Ok(Turn { _all: all, _user: user }),
            Err(_) => Err(QueryError::Limit(format!(
                "HQ answers {} questions at a time and {} of one user, and none ended within {} s; ask again later",
                self.all_max,
                self.user_max,
                WAIT_MAX.as_secs()
            ))),
        }
    }

    fn of(&self, user: &str) -> Arc<Semaphore> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, places| places.strong_count() > 0);
        if let Some(places) = users.get(user).and_then(Weak::upgrade) {
            return places;
        }
        let places = Arc::new(Semaphore::new(self.user_max));
        users.insert(user.to_owned(), Arc::downgrade(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_user_leaves_places_to_others() {
        let turns = Turns::new(3, 2);
        let held = (turns.take(Some("greedy")).await, turns.take(Some("greedy")).await);
        assert!(held.0.is_ok() && held.1.is_ok());
        let refused = turns.take(Some("greedy")).await;
        assert!(matches!(&refused, Err(QueryError::Limit(text)) if text.contains("2 of one user")), "{refused:?}");
        let other = turns.take(Some("modest")).await;
        assert!(other.is_ok());
        assert!(turns.take(Some("third")).await.is_err(), "all three places are taken");
        assert!(turns.take(None).await.is_ok(), "HQ's own questions wait for nobody");
        drop(held);
        assert!(turns.take(Some("third")).await.is_ok());
        assert!(turns.take(Some("greedy")).await.is_ok());
    }
}
