//! Who logged in, from where, and by what: for the log, and for people who ask.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rollcall_types::Timestamp;
use serde::Serialize;

use crate::access::Role;

/// Who sent a request.
#[derive(Debug, Clone)]
pub struct Identity {
    pub name: String,
    pub role: Role,
    pub sees: BTreeMap<String, String>,
    /// Incomplete answers are errors unless a question says otherwise.
    pub is_strict: bool,
}

/// A caller who was away for so long is said to log in again.
const AWAY: Duration = Duration::from_secs(3600);
/// Callers that are remembered; beyond, those go that were seen least lately.
const KEPT_MAX: usize = 1000;

/// By what somebody is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Proof {
    /// A password over HTTP.
    Password,
    /// A token over HTTP.
    Token,
    /// A password on the PostgreSQL port.
    Postgres,
}

/// Callers since this process started.
#[derive(Debug, Default)]
pub(crate) struct Callers(Mutex<BTreeMap<(String, Option<IpAddr>, Proof), Seen>>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    first: Timestamp,
    last: Timestamp,
    count: u64,
}

/// A caller, as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Caller {
    user: String,
    address: Option<IpAddr>,
    kind: Proof,
    first: Timestamp,
    last: Timestamp,
    count: u64,
}

impl Callers {
    /// Somebody proved who they are.
    pub(crate) fn came(&self, user: &str, address: Option<IpAddr>, proof: Proof, now: Timestamp) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = known.entry((user.to_owned(), address, proof)).or_insert(Seen { first: now, last: now, count: 0 });
        if seen.count == 0 || now.since(seen.last) >= AWAY {
            tracing::info!(user, ?address, by = ?proof, "logged in");
        }
        (seen.last, seen.count) = (now, seen.count + 1);
        if known.len() > KEPT_MAX
            && let Some(oldest) = known.iter().min_by_key(|(_, seen)| seen.last).map(|(key, _)| key.clone())
        {
            known.remove(&oldest);
        }
    }

    /// All of them, the newest first.
    pub(crate) fn all(&self) -> Vec<Caller> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = |((user, address, kind), seen): (&(String, Option<IpAddr>, Proof), &Seen)| Caller {
            user: user.clone(),
            address: *address,
            kind: *kind,
            first: seen.first,
            last: seen.last,
            count: seen.count,
        };
        let mut all: Vec<Caller> = known.iter().map(caller).collect();
        all.sort_by_key(|caller| std::cmp::Reverse(caller.last));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_counted_and_the_oldest_goes() {
        let callers = Callers::default();
        let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
        for second in 0..3 {
            callers.came("ada", None, Proof::Token, at(second));
        }
        callers.came("ada", None, Proof::Password, at(9));
        let all = callers.all();
        assert_eq!((all.len(), all[0].kind, all[1].count), (2, Proof::Password, 3));
        for number in 0..KEPT_MAX {
            callers.came(&format!("user-{number}"), None, Proof::Token, at(100 + number as i64));
        }
        assert_eq!(callers.all().len(), KEPT_MAX);
        assert!(callers.all().iter().all(|caller| caller.user != "ada" || caller.kind == Proof::Password));
    }
}
