//! Looks after capture while the agent runs, with HQ or without: what a program drops is made again
//! within seconds, and what is wrong is known before anybody asks.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rollcall_capture::{CaptureError, Health, Registration, clock_micros};
use tokio::time::Instant;

use crate::{error::SiteError, feed::Feed, state::Notes};

/// How often the file's times are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Without any change the file is looked into this often.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);
/// Under which name what is captured is noted.
const REGISTRATION: &str = "registration";
/// Rewinds within a day from which on no chance is to blame.
pub(crate) const REWINDS_MAX: u32 = 3;
/// A database that stays locked is tried for so long before that is told. SQLite itself waits some
/// seconds each time.
pub(crate) const LOCKED_FOR: Duration = Duration::from_secs(15);

/// What was found last.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownHealth(Arc<Mutex<Health>>);

impl KnownHealth {
    pub(crate) fn get(&self) -> Health {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note, and logs what was mended.
    pub(crate) fn set(&self, health: Health) {
        for mended in &health.mended {
            tracing::warn!(mended, "capture was mended");
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.problems != health.problems {
            for problem in &health.problems {
                tracing::error!(problem = problem.text, "changes are not captured");
            }
        }
        *known = health;
    }
}

/// HQ's time, as far as it is known: by how much its clock is off from this machine's,
/// microseconds.
pub(crate) fn hq_now(hq_clock_offset: i64) -> i64 {
    clock_micros().saturating_add(hq_clock_offset)
}

/// Whether there is something to send from. What is known of a file that looks as it did is not
/// enough: another program may hold it locked, and a session would end with that before HQ hears of
/// it. So the file is read.
pub(crate) async fn look(feed: &Feed) -> Result<Health, SiteError> {
    feed.call(|source| {
        let health = source.check()?;
        source.heads()?;
        source.oldest()?;
        Ok(health)
    })
    .await
}

/// Tells the database what was captured in it, in case tables of ours are dropped.
pub(crate) async fn remember(feed: &Feed, notes: &Notes) -> Result<(), SiteError> {
    let known = notes.text(REGISTRATION)?.map(Registration::new);
    if let Some(known) = known {
        feed.call(move |source| {
            source.remember(&known);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Notes what is captured, if that is news.
pub(crate) async fn note(feed: &Feed, notes: &Notes) -> Result<(), SiteError> {
    let registration = feed.call(|source| Ok(source.registration())).await?;
    let Some(known) = registration else { return Ok(()) };
    if notes.text(REGISTRATION)?.as_deref() != Some(known.as_str()) {
        notes.set_text(REGISTRATION, known.as_str())?;
    }
    Ok(())
}

/// What is wrong with a database that cannot be read, for people.
pub(crate) fn trouble(error: &CaptureError) -> String {
    match error {
        error if error.is_busy() => {
            "another program keeps the database locked; changes are captured, and wait".to_owned()
        }
        error => format!("the store's database cannot be read: {}", rollcall_types::describe(error)),
    }
}

/// Checks capture whenever the file changed, for ever.
pub(crate) async fn keep(feed: Feed, notes: Arc<Notes>, health: KnownHealth, is_paused: impl Fn() -> bool) {
    let mut timer = tokio::time::interval(LOOK_EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut seen, mut looked) = (None, Instant::now());
    loop {
        timer.tick().await;
        let now = feed.fingerprint();
        if is_paused() || (seen == Some(now) && looked.elapsed() < LOOK_ANYWAY && health.get().is_ok()) {
            continue;
        }
        (seen, looked) = (Some(now), Instant::now());
        match feed.call(|source| source.check()).await {
            Ok(found) => {
                health.set(found);
                if let Err(error) = note(&feed, &notes).await {
                    tracing::debug!(error = %rollcall_types::describe(&error), "what is captured could not be noted");
                }
            }
            // The store is at work; it is looked at again soon.
            Err(SiteError::Capture(error)) if error.is_busy() => seen = None,
            Err(SiteError::Capture(error)) => health.set(Health {
                problems: vec![rollcall_capture::Problem { table: None, text: trouble(&error) }],
                mended: Vec::new(),
            }),
            Err(error) => tracing::error!(error = %rollcall_types::describe(&error), "capture could not be checked"),
        }
    }
}
