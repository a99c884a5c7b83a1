//! Which connection speaks for a site now.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use rollcall_types::{Epoch, SiteId, SiteNumber, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::{digest, known_clock::STEP_MICROS, lanes::Lanes, peer::Peer};

/// One site's open control stream.
#[derive(Debug)]
pub struct Session {
    /// Its number at this node, by which the site's data stream names it.
    pub id: u64,
    /// The site that opened it.
    pub site: SiteId,
    /// The site's number in the lake.
    pub number: SiteNumber,
    /// What it came with.
    pub peer: Arc<Peer>,
    /// The life of the site's journal that was agreed on.
    pub epoch: Epoch,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// What is confirmed to the site.
    pub confirmed_through: AtomicU64,
    /// Whether its batches are of a backlog.
    pub lane: Lanes,
    /// To be added to the site's clock to get HQ's, microseconds, as it was when the session began.
    pub clock_offset_micros: i64,
    /// The same, as its newest beacon has it.
    pub clock_off: AtomicI64,
    /// Whether it was told that the site's clock is off; as a session begins, that is not known.
    pub is_clock_off: AtomicBool,
    /// Whether a data stream was opened; a session has one.
    pub has_data: AtomicBool,
    /// Whether the site took HQ as it is, and went on.
    pub is_taken: AtomicBool,
    /// Ends both streams: the site was retired, or another connection speaks for it.
    pub over: CancellationToken,
}

impl Session {
    /// To be added to the site's clock to get HQ's, microseconds. A beacon may have waited on its
    /// way; only where it says something quite else than the beginning of the session, the clock
    /// was set meanwhile.
    pub fn clock_offset_micros(&self) -> i64 {
        let now = self.clock_off.load(Ordering::Relaxed);
        match now.abs_diff(self.clock_offset_micros) < STEP_MICROS.unsigned_abs() {
            true => self.clock_offset_micros,
            false => now,
        }
    }
}

/// Two running copies of one site take turns; this many alternations of instances within the time
/// tell.
const CLONE_WINDOW: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
struct Instances {
    /// Digests of the instances seen, newest last, with the time they came.
    seen: Vec<(u64, Timestamp)>,
}

impl Instances {
    /// Notes an instance; true if it is one that another had already replaced: A, B, A.
    fn is_clone(&mut self, instance: &str, now: Timestamp) -> bool {
        self.seen.retain(|(_, at)| now.since(*at) <= CLONE_WINDOW);
        let instance = digest::of(instance);
        let current = self.seen.last().is_some_and(|(last, _)| *last == instance);
        let known = self.seen.iter().any(|(seen, _)| *seen == instance);
        if current {
            return false;
        }
        // One that is turned away does not become the current one: it is turned away again until
        // the hour is over.
        if !known {
            self.insert(instance, now);
        }
        known
    }

    /// Notes an instance that was let in, here or elsewhere.
    fn note(&mut self, instance: &str, at: Timestamp) {
        let instance = digest::of(instance);
        if !self.seen.iter().any(|(seen, _)| *seen == instance) {
            self.insert(instance, at);
        }
    }

    fn insert(&mut self, instance: u64, at: Timestamp) {
        const SEEN_MAX: usize = 8;
        let place = self.seen.partition_point(|(_, seen)| *seen <= at);
        if self.seen.len() == self.seen.capacity() {
            self.seen.reserve_exact(1);
        }
        self.seen.insert(place, (instance, at));
        if self.seen.len() > SEEN_MAX {
            self.seen.remove(0);
        }
    }
}

/// All open sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    next: AtomicU64,
    open: Mutex<HashMap<SiteId, Arc<Session>>>,
    instances: Mutex<HashMap<SiteId, Instances>>,
    /// Sites that found themselves at odds with HQ, in which epoch, and why: their next hello gets
    /// a new one.
    epochs_wanted: Mutex<HashMap<SiteId, (Epoch, String)>>,
}

impl Sessions {
    /// An id for a new session; each is given out once while the node runs.
    pub fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether this instance is one of two copies that take turns.
    pub fn is_clone(&self, site: &SiteId, instance: &str, now: Timestamp) -> bool {
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        instances.entry(site.clone()).or_default().is_clone(instance, now)
    }

    /// Notes that the site found itself at odds with HQ in this epoch, and why.
    pub fn want_epoch(&self, site: &SiteId, epoch: Epoch, reason: String) {
        self.epochs_wanted.lock().unwrap_or_else(PoisonError::into_inner).insert(site.clone(), (epoch, reason));
    }

    /// Notes that the site got a new epoch, here or at another node.
    pub fn forget_wanted_epoch(&self, site: &SiteId) {
        self.epochs_wanted.lock().unwrap_or_else(PoisonError::into_inner).remove(site);
    }

    /// Why the site wants another epoch than `epoch`. What another node heard may arrive when that
    /// is over already.
    pub fn take_wanted_epoch(&self, site: &SiteId, epoch: Epoch) -> Option<String> {
        let wanted = self.epochs_wanted.lock().unwrap_or_else(PoisonError::into_inner).remove(site);
        wanted.filter(|(of, _)| *of == epoch).map(|(_, reason)| reason)
    }

    /// Makes `session` the one that speaks for its site; an older one ends.
    pub fn open(&self, session: Arc<Session>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(older) = open.insert(session.site.clone(), session) {
            older.over.cancel();
        }
    }

    /// The session a data stream belongs to.
    pub fn get(&self, site: &SiteId, id: u64) -> Option<Arc<Session>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(site).filter(|session| session.id == id && !session.over.is_cancelled()).cloned()
    }

    /// Ends a session; a newer one of the same site stays.
    pub fn close(&self, session: &Session) {
        session.over.cancel();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(&session.site).is_some_and(|current| current.id == session.id) {
            open.remove(&session.site);
        }
    }

    /// The site opened a session at another node at `at`: it speaks for the site now.
    pub fn moved_away(&self, site: &SiteId, at: Timestamp, instance: &str) {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(site.clone())
            .or_default()
            .note(instance, at);
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = open.get(site).filter(|session| session.opened_at < at) {
            session.over.cancel();
        }
    }

    /// Cuts off sites that are not on the roster with the key they came with.
    pub fn cut_strangers(&self, is_known: impl Fn(&Session) -> bool) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut strangers: Vec<_> = open.values().filter(|session| !is_known(session)).collect();
        strangers.sort_unstable_by(|one, other| one.site.cmp(&other.site));
        strangers.into_iter().for_each(|session| session.over.cancel());
    }

    /// Cuts a site off.
    pub fn cut(&self, site: &SiteId) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = open.get(site) {
            session.over.cancel();
        }
    }

    /// HQ's clock less each connected site's, microseconds.
    pub fn clock_offs(&self) -> Vec<i64> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().map(|session| session.clock_off.load(Ordering::Relaxed)).collect()
    }

    /// HQ's time went ahead by so much: what was heard of clocks before is that much more off.
    pub fn shift_clocks(&self, by: i64) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for session in open.values() {
            session.clock_off.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// How many sites have a session at this node.
    pub fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_copies_that_take_turns_are_a_clone_and_a_restart_is_not() {
        let site = SiteId::new("a-1").expect("valid");
        let sessions = Sessions::default();
        let at = Timestamp::from_micros;
        assert!(!sessions.is_clone(&site, "one", at(0)));
        assert!(!sessions.is_clone(&site, "one", at(1)), "a reconnect");
        assert!(!sessions.is_clone(&site, "two", at(2)), "a restart");
        assert!(sessions.is_clone(&site, "one", at(3)), "the first is alive after all");
        assert!(sessions.is_clone(&site, "one", at(4)), "and stays fenced");
        assert!(!sessions.is_clone(&site, "two", at(5)));
    }
}
