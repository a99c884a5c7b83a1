//! Wrong passwords: whoever guesses waits longer and longer, and people hear of it.
//!
//! Counted are attempts at one user from one address, and all attempts from an address. So nobody
//! can lock a user out by guessing from elsewhere. What makes somebody wait is kept in the state
//! log: it outlasts a restart.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rollcall_lake::{Lake, LakeError, RecordKind, StateView};
use rollcall_types::{Timestamp, describe, plain};
use serde::{Deserialize, Serialize};

use rollcall_registry::doors::block;

const GUESSES: RecordKind<Wrong> = RecordKind::new("guesses");
/// Wrong passwords of one user from one address, and of all users from one, that make nobody wait.
const FREE: [u32; 2] = [5, 20];
/// The longest that one waits.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Without a wrong one for so long, they are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);
/// So many wrong ones within that time are told.
const TOLD_FROM: u32 = 20;
/// Who logged in from an address is known there for so long, and waits no longer than this.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 86_400);
const WAIT_OF_KNOWN: Duration = Duration::from_secs(3);
/// Kept in memory, and in the lake.
const KEPT_MAX: usize = 10_000;
const STORED_MAX: usize = 1000;

/// Wrong passwords in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Wrong {
    count: u32,
    last: Timestamp,
}

impl Wrong {
    /// How long to wait after so many, of which the first are free.
    fn wait(self, free: u32, now: Timestamp) -> Option<Duration> {
        let over = self.count.checked_sub(free)?;
        let wait = Duration::from_secs(1 << over.min(16)).min(WAIT_MAX);
        wait.checked_sub(now.since(self.last)).filter(|left| !left.is_zero())
    }
}

/// Who guesses.
#[derive(Debug)]
pub(crate) struct Guesses {
    lake: Arc<Lake>,
    wrong: Mutex<HashMap<String, Wrong>>,
    /// Users that logged in from an address, which may be that of many.
    right: Mutex<HashMap<String, Timestamp>>,
}

/// A user from an address, and the address.
fn keys(user: &str, address: IpAddr) -> [String; 2] {
    let address = block(address);
    [format!("{} {address}", plain(user, 100)), address.to_string()]
}

impl Guesses {
    /// With what was kept of an earlier run.
    pub(crate) fn new(lake: Arc<Lake>) -> Self {
        let view = lake.state().view();
        let kept = view.of_kind(GUESSES).filter_map(|record| Some((record.id.to_string(), record.parse().ok()?)));
        let wrong = Mutex::new(kept.collect());
        Self { lake, wrong, right: Mutex::default() }
    }

    fn wrong(&self) -> MutexGuard<'_, HashMap<String, Wrong>> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it is to be waited before a password of this user from this address is looked at;
    /// none if it need not be.
    pub(crate) fn wait(&self, user: &str, address: IpAddr, now: Timestamp) -> Option<Duration> {
        let wrong = self.wrong();
        let [of_user, of_address] = keys(user, address);
        let wait = |key: &String, free| wrong.get(key)?.wait(free, now);
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.get(&of_user).is_some_and(|at| now.since(*at) < KNOWN_FOR) {
            // Somebody else behind that address must not keep them out.
            return wait(&of_user, FREE[0]).map(|wait| wait.min(WAIT_OF_KNOWN));
        }
        wait(&of_user, FREE[0]).max(wait(&of_address, FREE[1]))
    }

    /// Takes note of how an attempt ended.
    pub(crate) fn tried(&self, user: &str, address: IpAddr, is_right: bool, now: Timestamp) {
        let [of_user, of_address] = keys(user, address);
        let mut to_store = Vec::new();
        if is_right {
            let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
            if right.len() >= KEPT_MAX {
                right.retain(|_, at| now.since(*at) < FORGOTTEN_AFTER);
            }
            right.insert(of_user.clone(), now);
        }
        {
            let mut wrong = self.wrong();
            if is_right {
                // The address may be that of many: its other attempts count on.
                if wrong.remove(&of_user).is_some_and(|known| known.count >= FREE[0]) {
                    to_store.push((of_user, Wrong { count: 0, last: now }));
                }
            } else {
                if wrong.len() >= KEPT_MAX {
                    wrong.retain(|_, known| now.since(known.last) < FORGOTTEN_AFTER && known.count >= FREE[0]);
                }
                for (key, free) in [of_user, of_address].into_iter().zip(FREE) {
                    let known = wrong.entry(key.clone()).or_insert(Wrong { count: 0, last: now });
                    if now.since(known.last) >= FORGOTTEN_AFTER {
                        known.count = 0;
                    }
                    *known = Wrong { count: known.count.saturating_add(1), last: now };
                    if known.count >= free {
                        to_store.push((key, *known));
                    }
                }
            }
        }
        if !to_store.is_empty() {
            let lake = self.lake.clone();
            rollcall_runtime::spawn(async move {
                if let Err(error) = store(&lake, to_store, now).await {
                    tracing::error!(error = %describe(&error), "wrong passwords could not be noted");
                }
            });
        }
    }

    /// Who guesses a lot, in a sentence; none if nobody does.
    pub(crate) fn told(&self, now: Timestamp) -> Option<String> {
        let wrong = self.wrong();
        let recent = wrong.iter().filter(|(_, wrong)| now.since(wrong.last) < FORGOTTEN_AFTER);
        let of_users = recent.filter(|(key, wrong)| key.contains(' ') && wrong.count >= FREE[0]);
        let (mut total, mut most) = (0_u64, None::<(&String, u32)>);
        for (key, wrong) in of_users {
            total += u64::from(wrong.count);
            most = most.max_by_count((key, wrong.count));
        }
        let (key, count) = most.filter(|_| total >= u64::from(TOLD_FROM))?;
        let (user, address) = key.split_once(' ')?;
        // Rounded, so that the story is not told anew with each attempt.
        Some(format!(
            "more than {} wrong passwords in the last hour, most of them ({}) for user {user} from {address}",
            total / 20 * 20,
            if count >= 20 { format!("more than {}", count / 20 * 20) } else { count.to_string() }
        ))
    }
}

trait MaxByCount {
    fn max_by_count(self, other: Self::One) -> Self
    where
        Self: Sized;
    type One;
}

impl<'a> MaxByCount for Option<(&'a String, u32)> {
    type One = (&'a String, u32);

    fn max_by_count(self, other: Self::One) -> Self {
        Some(self.filter(|known| known.1 >= other.1).unwrap_or(other))
    }
}

async fn store(lake: &Lake, wrong: Vec<(String, Wrong)>, now: Timestamp) -> Result<(), LakeError> {
    let records = |view: &StateView| {
        let has_room = view.of_kind(GUESSES).count() < STORED_MAX;
        let may_be = |(key, _): &&(String, Wrong)| has_room || view.get(GUESSES, key).is_some();
        let of_one = |(key, wrong): &(String, Wrong)| view.next(GUESSES, key, wrong, now, "hq");
        wrong.iter().filter(may_be).map(of_one).collect::<Result<Vec<_>, LakeError>>()
    };
    lake.state().update(|view| Ok::<_, LakeError>((records(view)?, ()))).await
}

#[cfg(test)]
mod tests {
    use rollcall_lake::LakeOptions;

    use super::*;

    #[tokio::test]
    async fn who_guesses_waits_and_nobody_else_does() {
        let store: Arc<dyn object_store::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        let lake = Arc::new(Lake::open(store, LakeOptions::default()).await.expect("opens"));
        let guesses = Guesses::new(lake.clone());
        let at = |seconds: i64| Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000);
        let [evil, good] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse::<IpAddr>().expect("valid"));
        for attempt in 0..4 {
            guesses.tried("ada", evil, false, at(attempt));
            assert_eq!(guesses.wait("ada", evil, at(attempt)), None);
        }
        guesses.tried("ada", evil, false, at(4));
        assert_eq!(guesses.wait("ada", evil, at(4)), Some(Duration::from_secs(1)));
        guesses.tried("ada", evil, false, at(5));
        assert_eq!(guesses.wait("ada", evil, at(5)), Some(Duration::from_secs(2)));
        assert_eq!(guesses.wait("ada", good, at(5)), None, "she herself is elsewhere");
        assert_eq!(guesses.wait("bob", evil, at(5)), None);
        for attempt in 0..20 {
            guesses.tried(&format!("user-{attempt}"), evil, false, at(6));
        }
        assert!(guesses.wait("bob", evil, at(6)).is_some(), "many users from one address");
        for _ in 0..30 {
            guesses.tried("ada", evil, false, at(7));
        }
        assert_eq!(guesses.wait("ada", evil, at(7)), Some(WAIT_MAX));
        let told = guesses.told(at(8)).expect("it is told");
        assert!(told.contains("more than 20") && told.contains("user ada from 10.0.0.1"), "{told}");
        // What is kept survives.
        let kept = async {
            while lake.state().view().of_kind(GUESSES).count() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        kept.await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(Guesses::new(lake).wait("ada", evil, at(7)).is_some());
        assert_eq!(guesses.wait("ada", evil, at(400)), None, "after the wait");
        guesses.tried("ada", evil, true, at(400));
        for _ in 0..30 {
            guesses.tried("ada", evil, false, at(401));
        }
        let known = guesses.wait("ada", evil, at(401)).expect("she waits a little");
        assert!(known <= WAIT_OF_KNOWN, "she is known there, and another's guesses do not keep her out");
        guesses.tried("ada", evil, true, at(410));
        guesses.tried("ada", evil, false, at(411));
        assert_eq!(guesses.told(at(411)), None);
    }
}
