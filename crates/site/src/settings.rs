//! What HQ says of how this site is to behave, and doing it.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rollcall_capture::{CaptureError, Source, TableSpec, clock_micros};
use rollcall_types::{TableName, describe};
use rollcall_wire::{
    SETTINGS_TABLE,
    proto::{Applied, Captured, Settings},
};
use tokio::time::Instant;

use crate::{
    error::SiteError,
    feed::{BATCH_BYTES, Feed},
    state::Notes,
};

/// Changes what the agent logs: to a level, or with an empty one to what it was started with.
#[derive(Clone)]
pub struct LogControl(Arc<SetLog>);

/// Says why it could not.
type SetLog = dyn Fn(&str) -> Result<(), String> + Send + Sync;

impl LogControl {
    /// Changes it by `set`, which says why it could not.
    pub fn new(set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(set))
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LogControl")
    }
}

/// Under which name HQ's addresses are noted, for a start without HQ.
const ADDRESSES: &str = "hq_addresses";
/// Under which name the last request to state tables again is noted.
const STATED_AGAIN: &str = "stated_again";

/// What HQ said last, and how far it is done.
#[derive(Debug)]
pub(crate) struct Behaviour {
    told: Settings,
    /// What could not be done.
    problem: Option<String>,
    log: Option<LogControl>,
    pub(crate) pace: Pace,
    /// A table was stopped since that was asked.
    has_stopped: bool,
}

impl Behaviour {
    pub(crate) fn new(notes: &Notes, log: Option<LogControl>) -> Result<Self, SiteError> {
        let known = notes.text(ADDRESSES)?.unwrap_or_default();
        let hq_addresses = known.split_whitespace().map(str::to_owned).collect();
        let told = Settings { hq_addresses, ..Settings::default() };
        Ok(Self { told, problem: None, log, pace: Pace::default(), has_stopped: false })
    }

    /// Whether a table was stopped since this was asked last.
    pub(crate) fn take_stopped(&mut self) -> bool {
        std::mem::take(&mut self.has_stopped)
    }

    /// Addresses to call when those of enrolment do not answer.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.told.hq_addresses
    }

    pub(crate) fn beacon_every(&self) -> Duration {
        Duration::from_millis(u64::from(self.told.beacon_interval_ms.max(100)))
    }

    /// The longest pause between two attempts to reach HQ: where HQ wants to hear often, it misses
    /// the site sooner as well. None while HQ has said nothing.
    pub(crate) fn retry_delay_max(&self) -> Option<Duration> {
        (self.told.beacon_interval_ms > 0).then(|| (self.beacon_every() * 2).max(Duration::from_secs(2)))
    }

    /// Whether HQ wants the site to believe in others than these authorities, and so to get a new
    /// certificate.
    pub(crate) fn wants_others(&self, known: &[String]) -> bool {
        let wanted: BTreeSet<&String> = self.told.authorities.iter().collect();
        !wanted.is_empty() && wanted != known.iter().collect()
    }

    /// None: HQ does not ask for manifests.
    pub(crate) fn manifest_every(&self) -> Option<Duration> {
        let millis = self.told.manifest_interval_ms;
        (millis > 0).then(|| Duration::from_millis(u64::from(millis)))
    }

    /// The agent's version that HQ wants here, if it is another.
    pub(crate) fn wanted_version(&self) -> Option<String> {
        let wanted = &self.told.agent_version;
        (!wanted.is_empty() && wanted != env!("CARGO_PKG_VERSION")).then(|| wanted.clone())
    }

    /// What HQ is told of it, beside the tables that are applied.
    pub(crate) fn applied(&self) -> Option<Applied> {
        (self.told.digest != 0).then(|| Applied {
            table: SETTINGS_TABLE.to_owned(),
            version: 1,
            audience: self.told.digest,
            problem: self.problem.clone().unwrap_or_default(),
            ..Applied::default()
        })
    }

    /// Does what HQ says. What cannot be done is told, and does not keep the rest from being done.
    pub(crate) async fn take(&mut self, told: Settings, feed: &Feed, notes: &Notes) -> Result<(), SiteError> {
        let before = std::mem::replace(&mut self.told, told);
        let told = &self.told;
        if told.hq_addresses != before.hq_addresses {
            notes.set_text(ADDRESSES, &told.hq_addresses.join(" "))?;
        }
        self.pace.set(&told.bandwidth, told.utc_offset_seconds);
        if told.digest != before.digest {
            tracing::info!(digest = told.digest, "HQ says how this site is to behave");
        }
        if let Some(wanted) = self.wanted_version().filter(|wanted| *wanted != before.agent_version) {
            tracing::warn!(runs = env!("CARGO_PKG_VERSION"), wanted, "HQ wants another version of the agent here");
        }
        let mut problems = Vec::new();
        if told.log != before.log
            && let Some(log) = &self.log
        {
            problems.extend(log.0(&told.log).err().map(|why| format!("logging {}: {why}", told.log)));
        }
        problems.extend(self.capture(feed, notes).await?);
        self.problem = (!problems.is_empty()).then(|| problems.join("; "));
        self.state_again(feed, notes).await
    }

    /// States tables again if HQ asks for it and it was not done yet.
    async fn state_again(&self, feed: &Feed, notes: &Notes) -> Result<(), SiteError> {
        let (asked, tables) = (self.told.state_again, self.told.state_again_tables.clone());
        let done = notes.text(STATED_AGAIN)?.and_then(|number| number.parse().ok()).unwrap_or(0);
        if asked <= done {
            return Ok(());
        }
        tracing::warn!(?tables, "HQ asks for all rows of tables again");
        let is_meant = move |table: &str| {
            tables.is_empty()
                || TableName::at_hq(table).is_ok_and(|name| tables.iter().any(|meant| name.as_str() == meant))
        };
        feed.call(move |source| source.state_again(&is_meant)).await?;
        // If this is not noted any more, they are stated once more.
        notes.set_text(STATED_AGAIN, &asked.to_string())
    }

    /// Does again what could not be done.
    pub(crate) async fn try_again(&mut self, feed: &Feed, notes: &Notes) -> Result<(), SiteError> {
        if self.problem.is_some() {
            let problems = self.capture(feed, notes).await?;
            self.problem = (!problems.is_empty()).then(|| problems.join("; "));
        }
        Ok(())
    }

    /// Captures what HQ wants captured, and says what it could not.
    async fn capture(&mut self, feed: &Feed, notes: &Notes) -> Result<Vec<String>, SiteError> {
        let mut problems = Vec::new();
        for wanted in self.told.capture.clone() {
            let (table, key) = (wanted.table.clone(), format!("excluded_by_hq.{}", wanted.table));
            let by_hq = notes.text(&key)?.unwrap_or_default();
            let by_hq: Vec<String> = by_hq.lines().map(str::to_owned).collect();
            let asked = wanted.clone();
            match feed.call(move |source| follow(source, &asked, &by_hq)).await {
                Ok(Followed { is_change, by_hq }) => {
                    notes.set_text(&key, &by_hq.join("\n"))?;
                    self.has_stopped |= is_change && wanted.stopped;
                    if is_change {
                        tracing::info!(table, "what is captured was changed, as HQ says");
                    }
                }
                Err(error) => problems.push(format!("table {table}: {}", describe(&error))),
            }
        }
        Ok(problems)
    }
}

struct Followed {
    is_change: bool,
    /// Columns that are excluded because HQ says so, and not because the site did.
    by_hq: Vec<String>,
}

/// Captures a table as HQ wants it. What the site itself excluded stays so: HQ can only exclude
/// more.
fn follow(source: &mut dyn Source, wanted: &Captured, by_hq: &[String]) -> Result<Followed, CaptureError> {
    let known = source.excluded(&wanted.table)?;
    if wanted.stopped {
        // Also where an earlier agent ended its capture: its journal may hold rows of it.
        if known.is_some() || !source.is_stopped(&wanted.table)? {
            source.stop(&wanted.table)?;
        }
        return Ok(Followed { is_change: known.is_some(), by_hq: by_hq.to_vec() });
    }
    if wanted.only_if_captured && known.is_none() {
        return Ok(Followed { is_change: false, by_hq: by_hq.to_vec() });
    }
    let among = |names: &[String], name: &str| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    let mut excluded: Vec<String> = known.unwrap_or_default().into_iter().filter(|name| !among(by_hq, name)).collect();
    let more: Vec<String> = wanted.excluded.iter().filter(|name| !among(&excluded, name)).cloned().collect();
    excluded.extend(more.iter().cloned());
    let is_change = source.capture(&TableSpec { table: wanted.table.clone(), excluded })?;
    Ok(Followed { is_change, by_hq: more })
}

/// Keeps what is sent and fetched below a limit that may differ by hour.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace(Arc<Mutex<Line>>);

#[derive(Debug, Default)]
struct Line {
    /// Kilobytes a second by hour of the site's day; 0, or none, is no limit.
    hours: Vec<u32>,
    offset_seconds: i64,
    /// When what was sent is paid for.
    free_at: Option<Instant>,
}

/// Bytes of the smallest batch: small ones cost more for the same rows.
const BATCH_BYTES_MIN: usize = 16 * 1024;

impl Line {
    /// Bytes a second, at a time in seconds since the epoch.
    fn rate(&self, now: i64) -> Option<f64> {
        let hour = (now + self.offset_seconds).rem_euclid(86_400) / 3600;
        let kilobytes = *self.hours.get(usize::try_from(hour).unwrap_or_default())?;
        (kilobytes > 0).then(|| f64::from(kilobytes) * 1000.0)
    }

    fn rate_now(&self) -> Option<f64> {
        self.rate(clock_micros() / 1_000_000)
    }
}

impl Pace {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, hours: &[u32], offset_seconds: i32) {
        let mut line = self.line();
        line.hours = hours.to_vec();
        line.offset_seconds = i64::from(offset_seconds);
    }

    /// These bytes go over the line.
    pub(crate) fn pay(&self, bytes: usize) {
        let mut line = self.line();
        let now = Instant::now();
        line.free_at = line.rate_now().map(|rate| {
            line.free_at.filter(|at| *at > now).unwrap_or(now) + Duration::from_secs_f64(bytes as f64 / rate)
        });
    }

    /// When more may go; none: now.
    pub(crate) fn free_at(&self) -> Option<Instant> {
        self.line().free_at.filter(|at| *at > Instant::now())
    }

    /// Bytes of rows in one batch: about what may go in a second.
    pub(crate) fn batch_bytes(&self) -> usize {
        let rate = self.line().rate_now();
        rate.map_or(BATCH_BYTES, |rate| (rate as usize).clamp(BATCH_BYTES_MIN, BATCH_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_that_of_the_sites_hour() {
        let mut hours = vec![0; 24];
        hours[8] = 64;
        let line = Line { hours, offset_seconds: -7 * 3600, free_at: None };
        let utc = |hour: i64| hour * 3600 + 20 * 86_400;
        assert_eq!(line.rate(utc(15)), Some(64_000.0));
        assert_eq!((line.rate(utc(14)), line.rate(utc(16))), (None, None));
        assert_eq!(Line::default().rate(utc(15)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_is_paid_for_first() {
        let pace = Pace::default();
        pace.pay(1_000_000);
        assert_eq!(pace.free_at(), None);
        pace.set(&[100; 24], 0);
        let began = Instant::now();
        pace.pay(150_000);
        pace.pay(50_000);
        assert_eq!(pace.free_at(), Some(began + Duration::from_secs(2)));
        assert_eq!(pace.batch_bytes(), 100_000);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(pace.free_at(), None);
    }
}
