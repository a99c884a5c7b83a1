//! What HQ itself must keep doing, and what of it fails: an incident of HQ's own after a minute.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rollcall_runtime::Instant;
use rollcall_types::{Timestamp, describe};

use crate::{hq_clock::HqClock, sessions::Sessions};

/// What fails for this long without a success in between is an incident.
pub const FAILING_FOR: Duration = Duration::from_secs(60);
/// The reason that is shown stays for so long, although each attempt may give another.
const SHOWN_FOR: Duration = Duration::from_secs(600);
/// What was not tried for so long is not this node's to do any more; nothing is done more seldom
/// than each hour, but for what is told at once and looked at again and again.
const NOT_TRIED_FOR: Duration = Duration::from_secs(2 * 3600 + 600);
/// Only so many works are told of one by one.
const TOLD_MAX: usize = 50;

/// The works of this process, by what they do, such as `compact tables/sales`.
#[derive(Debug, Default)]
pub struct Health {
    works: Mutex<BTreeMap<String, Work>>,
    /// Counts on while every one of this process's regular tasks goes on.
    beats: AtomicU64,
    /// Tasks that went on since it last counted.
    moved: Mutex<BTreeSet<&'static str>>,
    /// What is wrong with HQ's clock, once it was looked at.
    clock: Mutex<Option<Option<String>>>,
}

/// What is told of when it is the clock that is wrong.
const CLOCK: &str = "rely on its clock";

#[derive(Debug)]
enum Work {
    Done,
    Failing { since: Instant, last: Instant, tries: u64, error: String, shown: Option<Shown> },
}

#[derive(Debug, Clone)]
struct Shown {
    text: String,
    since: Timestamp,
    at: Instant,
}

/// What is known of works: those that fail for long with the reason, and those that were done.
pub type Told = BTreeMap<String, Option<String>>;

impl Health {
    /// A round of a regular task is done. Once every one of `tasks` has done one, that counts: if
    /// one of them hangs or is gone, the count stands still.
    pub fn beat(&self, task: &'static str, tasks: &[&'static str]) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.insert(task);
        if tasks.iter().all(|task| moved.contains(task)) {
            moved.clear();
            self.beats.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often every regular task did a round.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Notes how an attempt at a work ended. `work` goes on after "HQ cannot".
    pub fn note<T, E: std::error::Error>(&self, work: impl Into<String>, outcome: &Result<T, E>) {
        match outcome {
            Ok(_) => self.done(work),
            Err(error) => self.failed(work, &describe(error)),
        }
    }

    /// A work was done.
    pub fn done(&self, work: impl Into<String>) {
        let work = work.into();
        let before = self.works.lock().unwrap_or_else(PoisonError::into_inner).insert(work.clone(), Work::Done);
        if matches!(before, Some(Work::Failing { .. })) {
            tracing::info!(work, "HQ can do this again");
        }
    }

    /// A work could not be done.
    pub fn failed(&self, work: impl Into<String>, error: &str) {
        self.failed_at(work.into(), error, Instant::now());
    }

    /// A work cannot be done, and will not be before somebody did something: that is told at once.
    pub fn broken(&self, work: impl Into<String>, error: &str) {
        let now = Instant::now();
        self.failed_at(work.into(), error, now.checked_sub(FAILING_FOR).unwrap_or(now));
    }

    fn failed_at(&self, work: String, error: &str, now: Instant) {
        let mut works = self.works.lock().unwrap_or_else(PoisonError::into_inner);
        let known = works.get_mut(&work);
        match known {
            Some(Work::Failing { tries, error: known, last, .. }) => {
                (*tries, *last) = (*tries + 1, now);
                if known != error {
                    tracing::error!(work, tries, error, "HQ cannot do this");
                    error.clone_into(known);
                }
            }
            _ => {
                tracing::error!(work, error, "HQ cannot do this");
                let failing = Work::Failing { since: now, last: now, tries: 1, error: error.to_owned(), shown: None };
                works.insert(work, failing);
            }
        }
    }

    /// A person accounted for it: it is told again when it fails again.
    pub fn forget(&self, work: &str) {
        self.works.lock().unwrap_or_else(PoisonError::into_inner).remove(work);
    }

    /// Another node acts: what only that one does is its to tell.
    pub fn forget_all(&self) {
        self.works.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether the last attempt at any work that begins like this failed.
    pub fn is_failing(&self, beginning: &str) -> bool {
        let works = self.works.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kind = works.range(beginning.to_owned()..).take_while(|(work, _)| work.starts_with(beginning));
        of_kind.into_iter().any(|(_, state)| matches!(state, Work::Failing { .. }))
    }

    /// Looks whether HQ's own clock can be relied on. A clock is told of at once: who is blamed for
    /// it matters.
    pub fn look_at_clock(&self, clock: &HqClock, sessions: &Sessions) {
        let problem = clock.look(&mut sessions.clock_offs(), |by| sessions.shift_clocks(by));
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
    }

    /// What is to be told at HQ's time `now`.
    pub fn told(&self, now: Timestamp) -> Told {
        self.told_at(now, Instant::now())
    }

    fn told_at(&self, time: Timestamp, now: Instant) -> Told {
        let mut works = self.works.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut told, mut failing) = (Told::new(), 0);
        let clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner).clone();
        told.extend(clock.map(|problem| (CLOCK.to_owned(), problem)));
        for (work, state) in works.iter_mut() {
            if matches!(state, Work::Failing { last, .. } if now.saturating_duration_since(*last) >= NOT_TRIED_FOR) {
                *state = Work::Done;
            }
            let Work::Failing { since, tries, error, shown, .. } = state else {
                told.insert(work.clone(), None);
                continue;
            };
            let for_long = now.saturating_duration_since(*since);
            failing += usize::from(for_long >= FAILING_FOR);
            if for_long < FAILING_FOR || failing > TOLD_MAX {
                continue;
            }
            let is_fresh = shown.as_ref().is_some_and(|shown| now.saturating_duration_since(shown.at) < SHOWN_FOR);
            if !is_fresh {
                let since = shown.as_ref().map_or_else(|| time.before(for_long), |shown| shown.since);
                let text = format!("HQ cannot {work}, since {since}; {tries} attempts so far: {error}");
                *shown = Some(Shown { text, since, at: now });
            }
            told.insert(work.clone(), shown.as_ref().map(|shown| shown.text.clone()));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_stands_still_when_one_task_does() {
        let health = Health::default();
        let tasks = ["one", "two"];
        health.beat("one", &tasks);
        health.beat("one", &tasks);
        assert_eq!(health.beats(), 0, "the other hangs");
        health.beat("two", &tasks);
        assert_eq!(health.beats(), 1);
        health.beat("two", &tasks);
        assert_eq!(health.beats(), 1, "now this one hangs");
    }

    #[test]
    fn a_minute_of_failing_is_told_and_a_success_ends_it() {
        let (health, begun, time) = (Health::default(), Instant::now(), Timestamp::from_micros(3_600_000_000));
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let told = |seconds: u64| health.told_at(time, at(seconds)).get("count").cloned();
        assert_eq!(told(0), None, "nothing is known");
        health.failed_at("count".to_owned(), "a file is damaged", at(0));
        assert_eq!(told(59), None, "not yet");
        health.failed_at("count".to_owned(), "another file is damaged", at(59));
        let first = told(60).flatten().expect("it is told");
        assert!(first.contains("another file is damaged") && first.contains("2 attempts"), "{first}");
        health.failed_at("count".to_owned(), "a third one", at(120));
        assert_eq!(told(120).flatten(), Some(first), "it does not change at each attempt");
        assert!(told(800).flatten().expect("told still").contains("a third one"));
        assert!(health.is_failing("cou") && !health.is_failing("count again"));
        health.done("count");
        assert_eq!(told(801), Some(None), "it is over");
        assert!(!health.is_failing("cou"));
        health.failed_at("count".to_owned(), "again", at(900));
        assert_eq!(told(930), None, "a success in between begins the minute anew");
    }
}
