//! What a site says in its session, taken as facts.

use std::{
    collections::BTreeMap,
    ops::ControlFlow::{self, Break, Continue},
    sync::atomic::Ordering,
    time::Duration,
};

use rollcall_registry::{Heard, Registry, SiteFact, facts::Applied, sessions::Session};
use rollcall_roll::Condition;
use rollcall_types::{Cause, Seq, SiteId, TableName, Timestamp};
use rollcall_wire::proto::{self, Attempt, Beacon, Heads, site_control::Message as FromSite};
use tonic::Status;

use crate::texts;

/// Takes one message. A break ends the session, with an error if the site is to be told one.
pub(crate) fn take(registry: &Registry, session: &Session, message: FromSite) -> ControlFlow<Option<Status>> {
    let site = &session.site;
    registry.record_heard(site, Heard::Contact);
    let Some(message) = texts::clean_message(message) else { return Continue(()) };
    match message {
        FromSite::Beacon(beacon) => take_beacon(registry, session, &beacon),
        FromSite::Heads(heads) if heads.epoch == session.epoch.0 => take_heads(registry, session, &heads),
        FromSite::Heads(_) => {}
        FromSite::Goodbye(goodbye) => {
            tracing::info!(%site, reason = goodbye.reason, "goodbye");
            registry.record(site, SiteFact::Goodbye { head: Seq(goodbye.head), reason: goodbye.reason });
            registry.record_heard(site, Heard::Goodbye);
            return Break(None);
        }
        FromSite::Refuses(refuses) => {
            tracing::warn!(%site, reason = refuses.reason, "the site refuses this HQ");
            let detail = format!("{site} refuses HQ: {}", refuses.reason);
            let fact = SiteFact::Refused { cause: Cause::HqRefuses, detail: detail.clone(), is_lake_older: true };
            registry.record(site, fact);
            registry.record_heard(site, Heard::Condition(Condition::Refused, Some(detail)));
            return Break(None);
        }
        FromSite::EpochWanted(wanted) => {
            // The site connects again; its hello gets the new epoch.
            registry.record(site, SiteFact::EpochWanted { epoch: session.epoch, reason: wanted.reason });
            return Break(None);
        }
        FromSite::Attempts(attempts) => {
            for told in afterwards(site, &attempts.attempts) {
                registry.record_heard(site, told);
            }
        }
        FromSite::Hello(_) => return Break(Some(Status::invalid_argument("Hello comes once"))),
    }
    Continue(())
}

fn take_beacon(registry: &Registry, session: &Session, beacon: &Beacon) {
    let site = &session.site;
    // Only now both have taken each other.
    if !session.is_taken.swap(true, Ordering::Relaxed) || registry.ledger.is_refused(site) {
        registry.record_heard(site, Heard::Condition(Condition::Refused, None));
    }
    let problem = (!beacon.capture_ok).then(|| beacon.capture_problem.clone());
    let full = full_disk(site, beacon.disk_free_bytes);
    let (capture, disk) = match beacon.capture_cause() {
        proto::Cause::Disk => (None, problem.clone().or(full)),
        _ => (problem.clone(), full),
    };
    let rows = beacon.head.saturating_sub(beacon.confirmed);
    // Where nothing waits, the age is what a clock that was set left over.
    let age = Duration::from_millis(if rows > 0 { beacon.oldest_unconfirmed_age_ms } else { 0 });
    let clock_off = registry.now().as_micros().saturating_sub(beacon.clock_micros);
    session.clock_off.store(clock_off, Ordering::Relaxed);
    judge_clock(registry, session);
    let fact = SiteFact::Beacon {
        head: Seq(beacon.head),
        unconfirmed_age: age,
        capture_problem: problem,
        clock_off_micros: clock_off,
        applied: applied(&beacon.applied),
    };
    registry.record(site, fact);
    registry.record_heard(site, Heard::Backlog { rows, age });
    registry.record_heard(site, Heard::Condition(Condition::Capture, capture));
    registry.record_heard(site, Heard::Condition(Condition::Disk, disk));
}

fn take_heads(registry: &Registry, session: &Session, heads: &Heads) {
    let site = &session.site;
    let tables = heads.tables.iter();
    let tables = tables.filter_map(|head| Some((TableName::at_hq(&head.table).ok()?, Seq(head.head))));
    let time = Timestamp::from_micros(heads.time_micros).min(registry.now());
    registry.record(site, SiteFact::Heads { time, epoch: session.epoch, heads: tables.collect() });
    registry.ledger.advance(&registry.lake, site, session.number);
}

/// Tells whether the site's clock is off, when a session begins and when that changes.
pub(crate) fn judge_clock(registry: &Registry, session: &Session) {
    let (site, offset) = (&session.site, session.clock_off.load(Ordering::Relaxed));
    let clock = registry.clock.off_in_words(site, offset);
    if session.is_clock_off.swap(clock.is_some(), Ordering::Relaxed) || clock.is_some() {
        registry.record_heard(site, Heard::Condition(Condition::Clock, clock));
    }
}

/// What a site says it has of HQ's tables.
pub(crate) fn applied(told: &[proto::Applied]) -> BTreeMap<TableName, Applied> {
    const TABLES_MAX: usize = 1000;
    let of_table = |told: &proto::Applied| {
        let problem = (!told.problem.is_empty()).then(|| told.problem.chars().take(1000).collect());
        let applied = Applied {
            version: Seq(told.version),
            audience: told.audience,
            problem,
            edits: told.edits,
            published_at: told.published_at,
            dangling: told.dangling,
            differing: told.differing,
        };
        Some((TableName::new(&told.table).ok()?, applied))
    };
    told.iter().take(TABLES_MAX).filter_map(of_table).collect()
}

/// What a site's own log of its attempts says about its absence: one line for each thing it ran
/// into.
fn afterwards(site: &SiteId, attempts: &[Attempt]) -> Vec<Heard> {
    const KINDS_MAX: usize = 20;
    let mut kinds: BTreeMap<(&str, &str, &str, i32), (i64, i64, usize)> = BTreeMap::new();
    for attempt in attempts.iter().take(10_000) {
        let key = (attempt.address.as_str(), attempt.resolved.as_str(), attempt.error.as_str(), attempt.cause);
        let seen = kinds.entry(key).or_insert((attempt.at_micros, attempt.at_micros, 0));
        *seen = (seen.0.min(attempt.at_micros), seen.1.max(attempt.at_micros), seen.2 + 1);
    }
    let told = kinds.into_iter().take(KINDS_MAX).map(|((address, resolved, error, cause), (first, last, count))| {
        let cause = proto::Cause::try_from(cause).ok().and_then(proto::Cause::known);
        let at = Timestamp::from_micros;
        let resolved = if resolved.is_empty() { "nothing".to_owned() } else { resolved.to_owned() };
        let named = cause.map_or_else(String::new, |cause| format!(" ({cause})"));
        let text = format!(
            "{site} tried {address}, which resolved to {resolved}, {count} times from {} to {}: {error}{named}",
            at(first),
            at(last)
        );
        tracing::info!(%site, text, "what the site could not do");
        // That nothing answered is what a silence is taken for anyway.
        Heard::Afterwards { cause: cause.filter(|cause| *cause != Cause::PowerOrLink), text }
    });
    told.collect()
}

/// What to say of a disk with little space left, or none; not every system tells.
fn full_disk(site: &SiteId, free: Option<u64>) -> Option<String> {
    const FREE_MIN: u64 = 1 << 30;
    let free = free.filter(|free| *free < FREE_MIN)?;
    // Rounded, so that the story is not told anew with every beacon.
    let hundreds = free / 100_000_000;
    Some(format!("less than {} MB are free where {site} has its database", (hundreds + 1) * 100))
}
