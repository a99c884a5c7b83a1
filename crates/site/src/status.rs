//! The site says so too: whether all is well, for people at the store and for monitoring by exit
//! code.

mod judged;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rollcall_capture::{CaptureError, Health, clock_micros};
use rollcall_types::{Cause, Seq, Timestamp};
use rollcall_wire::proto::Applied;
use serde::{Deserialize, Serialize};

use self::judged::{Judged, Known, MANY};

use crate::{
    error::SiteError,
    kinds::database_at,
    state::{Notes, StateDirectory},
};

/// How bad it is; the exit code of `rollcall-site status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Everything is confirmed, or young.
    Current,
    /// Something has been unconfirmed for too long.
    UnconfirmedTooLong,
    /// Changes are not captured, HQ refuses, or the agent does not run.
    Broken,
}

impl Level {
    /// 0, 1 or 2.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Current => 0,
            Self::UnconfirmedTooLong => 1,
            Self::Broken => 2,
        }
    }
}

/// How the site stands with HQ, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// HQ has every change.
    Current,
    /// HQ is reached, and changes are on their way.
    Behind,
    /// HQ is not reached; changes are kept.
    CutOff,
    /// Nothing gets better before a person acts.
    NeedsAPerson,
}

impl State {
    /// In a few words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Current => "Current",
            Self::Behind => "Behind",
            Self::CutOff => "Cut off",
            Self::NeedsAPerson => "A person must act",
        }
    }
}

/// What `rollcall-site status` tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How bad it is.
    pub level: Level,
    /// How it stands with HQ.
    pub state: State,
    /// Since when it stands so, as far as it is known.
    pub since: Option<Timestamp>,
    /// The site's id.
    pub site: String,
    /// One sentence for people: how it stands, and why.
    pub summary: String,
    /// What a person at the store should do; none if nothing.
    pub what_to_do: Option<String>,
    /// Whom to call; none if nobody said.
    pub contact: Option<String>,
    /// Changes not confirmed.
    pub unconfirmed_rows: u64,
    /// Age of the oldest of them, seconds.
    pub oldest_unconfirmed_age_seconds: u64,
    /// What the running agent says; none if it never ran.
    pub agent: Option<AgentStatus>,
}

/// What the running agent writes down every few seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// When it was written.
    pub at: Timestamp,
    /// The address of HQ in use; none while there is no connection.
    pub connected_to: Option<String>,
    /// Since when there has been none.
    pub disconnected_since: Option<Timestamp>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// Why it failed, in the words that HQ uses.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// HQ said no, or is not our HQ: a person must act.
    pub refused: bool,
    /// What is wrong with the store's database or disk, so that nothing can be sent.
    #[serde(default)]
    pub store_trouble: Option<String>,
    /// Why HQ keeps what this site sends apart from what it had before, until a person there
    /// decides.
    #[serde(default)]
    pub held: Option<String>,
    /// Until when a person has the agent leave the database alone.
    #[serde(default)]
    pub paused_until: Option<Timestamp>,
    /// When HQ confirmed something last.
    pub last_confirmed_at: Option<Timestamp>,
    /// Confirmed through.
    pub confirmed: Seq,
    /// The journal's head.
    pub head: Seq,
    /// What is wrong with capture.
    pub capture_problem: Option<String>,
    /// The agent's version that HQ wants here, if this is another.
    #[serde(default)]
    pub wanted_version: Option<String>,
    /// What the site has of HQ's tables.
    #[serde(default)]
    pub published: BTreeMap<String, AppliedStatus>,
    /// How far it has caught up; none if it does not have to.
    #[serde(default)]
    pub catching_up: Option<CatchingUp>,
}

/// A site sends many changes: those that waited, and rows that are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchingUp {
    /// When it began.
    pub since: Timestamp,
    /// What was confirmed then.
    pub from: Seq,
    /// Where the journal ends, as far as it can be told now.
    pub until: Seq,
    /// Rows that were there before are loaded as well.
    pub is_loading: bool,
}

impl CatchingUp {
    /// How much is done, percent; never 100.
    pub fn percent(&self, confirmed: Seq) -> u64 {
        let all = self.until.0.saturating_sub(self.from.0).max(1);
        (confirmed.0.saturating_sub(self.from.0).saturating_mul(100) / all).min(99)
    }

    /// When it will be done at the pace it had so far; none before that can be told.
    pub fn here_by(&self, confirmed: Seq, now: Timestamp) -> Option<Timestamp> {
        let done = confirmed.0.saturating_sub(self.from.0);
        let took = now.since(self.since).as_secs_f64();
        if done == 0 || took < 5.0 {
            return None;
        }
        let seconds = took / done as f64 * self.until.0.saturating_sub(confirmed.0) as f64;
        Some(now.plus_micros((seconds.min(1e9) * 1e6) as i64))
    }
}

/// What the site has of one of HQ's tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedStatus {
    /// The version applied; 0 if none is.
    pub version: Seq,
    /// Why it has no newer one, if it cannot take it.
    pub problem: Option<String>,
    /// Rows found changed here and put right, ever.
    pub edits: u64,
}

/// The status file as the agent keeps it.
#[derive(Debug)]
pub(crate) struct StatusFile {
    directory: StateDirectory,
    now: AgentStatus,
    /// What the file says.
    written: AgentStatus,
    /// Counts on while the agent does its work.
    beats: Arc<AtomicU64>,
}

pub(crate) const FILE: &str = "status.json";
/// An agent that has not written for this long does not run.
const STALE_AFTER: Duration = Duration::from_secs(120);

fn clock() -> Timestamp {
    Timestamp::from_micros(clock_micros())
}

impl StatusFile {
    pub(crate) fn new(directory: StateDirectory) -> Self {
        // What it was catching up with goes on.
        let before = read(&directory);
        let catching_up = before.as_ref().and_then(|before| before.catching_up);
        let since = before.and_then(|before| before.disconnected_since).unwrap_or_else(clock);
        let now = AgentStatus { disconnected_since: Some(since), catching_up, ..AgentStatus::default() };
        Self { directory, now, written: AgentStatus::default(), beats: Arc::default() }
    }

    pub(crate) fn connected(&mut self, address: &str) {
        self.now.connected_to = Some(address.to_owned());
        self.now.disconnected_since = None;
        self.now.last_error = None;
        self.now.cause = None;
        self.now.refused = false;
        self.now.store_trouble = None;
        self.now.paused_until = None;
    }

    /// HQ keeps this life of the journal apart; or not, if there is no reason.
    pub(crate) fn held(&mut self, reason: &str) {
        self.now.held = Some(reason.to_owned()).filter(|reason| !reason.is_empty());
    }

    /// The store's database or disk is in trouble; HQ may be reached all the same.
    pub(crate) fn store_trouble(&mut self, problem: String, cause: Option<Cause>) {
        self.now.store_trouble = Some(problem);
        self.now.cause = cause;
    }

    /// It is not, or not any more.
    pub(crate) fn store_is_well(&mut self) {
        if self.now.store_trouble.take().is_some() {
            self.now.cause = None;
        }
    }

    pub(crate) fn paused(&mut self, until: Timestamp) {
        self.now.connected_to = None;
        self.now.paused_until = Some(until);
    }

    pub(crate) fn stopped(&mut self) {
        self.disconnected(Some(("the agent was stopped".to_owned(), None)));
    }

    /// There is no connection any more; why, if not because it had its time.
    pub(crate) fn disconnected(&mut self, error: Option<(String, Option<Cause>)>) {
        self.now.connected_to = None;
        self.now.disconnected_since.get_or_insert_with(clock);
        self.now.paused_until = None;
        if let Some((error, cause)) = error {
            self.now.refused =
                matches!(cause, Some(Cause::HqRefuses | Cause::Void | Cause::CloneOrRewind | Cause::Clock));
            self.now.last_error = Some(error);
            // The cause of trouble with the store is told with that.
            if self.now.store_trouble.is_none() {
                self.now.cause = cause;
            }
        }
    }

    pub(crate) fn confirmed(&mut self, through: Seq) {
        self.now.confirmed = through;
        self.now.last_confirmed_at = Some(clock());
    }

    pub(crate) fn journal(&mut self, head: Seq) {
        self.now.head = head;
    }

    /// How far HQ has what there is, and about how many rows are still to be loaded.
    pub(crate) fn catching_up(&mut self, confirmed: Seq, to_load: Option<u64>) {
        let waiting = self.now.head.0.saturating_sub(confirmed.0);
        self.now.catching_up = match self.now.catching_up {
            Some(known) if waiting > 0 || to_load.is_some() => {
                let until = self.now.head.max(known.until);
                Some(CatchingUp { until, is_loading: to_load.is_some(), ..known })
            }
            None if waiting >= MANY || to_load.is_some() => {
                let until = Seq(self.now.head.0 + to_load.unwrap_or_default());
                Some(CatchingUp { since: clock(), from: confirmed, until, is_loading: to_load.is_some() })
            }
            _ => None,
        };
    }

    pub(crate) fn health(&mut self, health: &Health) {
        self.now.capture_problem = health.summary();
    }

    pub(crate) fn published(&mut self, applied: &[Applied]) {
        let status = |applied: &Applied| AppliedStatus {
            version: Seq(applied.version),
            problem: Some(applied.problem.clone()).filter(|problem| !problem.is_empty()),
            edits: applied.edits,
        };
        self.now.published = applied.iter().map(|applied| (applied.table.clone(), status(applied))).collect();
    }

    pub(crate) fn wanted_version(&mut self, version: Option<String>) {
        self.now.wanted_version = version;
    }

    /// Counts on while the agent does its work: each look at what is to be written is a beat.
    pub(crate) fn beats(&self) -> Arc<AtomicU64> {
        self.beats.clone()
    }

    /// Writes the file if it would say something else, or is about to look stale.
    pub(crate) fn write(&mut self) -> Result<(), SiteError> {
        self.beats.fetch_add(1, Ordering::Relaxed);
        let at = clock();
        if (AgentStatus { at: self.written.at, ..self.now.clone() }) == self.written
            && at.since(self.written.at) < STALE_AFTER / 4
        {
            return Ok(());
        }
        self.now.at = at;
        self.written = self.now.clone();
        let text =
            serde_json::to_vec_pretty(&self.now).map_err(|error| SiteError::state("writing the status", error))?;
        self.directory.write_unsynced(FILE, &text)
    }
}

/// Looks at the database and the agent's files; needs neither the agent nor HQ to run.
pub fn status(database: &Path, state: Option<&Path>, max_age: Duration) -> Result<Report, SiteError> {
    look(database, state, max_age, false)
}

/// [`status`] for the agent itself: while a person has it pause, this leaves the database alone as
/// well.
pub(crate) fn own_status(database: &Path, state: Option<&Path>, max_age: Duration) -> Result<Report, SiteError> {
    look(database, state, max_age, true)
}

/// How many changes are not confirmed, and for how long the oldest has waited.
fn waiting(database: &Path, confirmed: Seq) -> Result<(u64, Duration), CaptureError> {
    let mut source = database_at(database).source()?;
    let rows = source.heads()?.head.0.saturating_sub(confirmed.0);
    let age = if rows > 0 { source.age_of(Seq(confirmed.0 + 1))? } else { Duration::ZERO };
    Ok((rows, age))
}

/// What the agent wrote down last.
fn read(directory: &StateDirectory) -> Option<AgentStatus> {
    let text = std::fs::read(directory.file(FILE)).ok()?;
    serde_json::from_slice(&text).ok()
}

fn look(database: &Path, state: Option<&Path>, max_age: Duration, is_own: bool) -> Result<Report, SiteError> {
    let database = crate::enrol::database(database)?;
    let directory = StateDirectory::of(&database, state);
    let identity = directory.identity()?;
    // Before the agent's first start there are no notes.
    let confirmed = Notes::look(&directory).and_then(|notes| notes.position()).unwrap_or_default().confirmed;
    let mut agent = read(&directory);
    let waiting = match is_own && directory.paused_until().is_some() {
        // What was known when the pause began.
        true => Ok((agent.as_ref().map_or(0, |agent| agent.head.0.saturating_sub(confirmed.0)), Duration::ZERO)),
        false => waiting(&database, confirmed),
    };
    let (unconfirmed_rows, age) = match (waiting, &mut agent) {
        (Ok(waiting), _) => waiting,
        // What cannot be read now is said; all else that is known is said as well.
        (Err(error), Some(agent)) => {
            agent.store_trouble.get_or_insert(crate::keeper::trouble(&error));
            (0, Duration::ZERO)
        }
        (Err(error), None) => return Err(error.into()),
    };
    let is_running = crate::claim::is_claimed(&directory);
    let known = Known { agent: agent.as_ref(), is_running, rows: unconfirmed_rows, age, max_age, confirmed };
    let Judged { level, state, since, summary, what_to_do } = known.judge();
    Ok(Report {
        level,
        state,
        since,
        site: identity.site,
        summary,
        what_to_do,
        contact: identity.contact,
        unconfirmed_rows,
        oldest_unconfirmed_age_seconds: age.as_secs(),
        agent,
    })
}

/// A time as a clock on the wall of this machine says it, with the day if it is not today.
pub fn local(at: Timestamp) -> String {
    let at = at.to_chrono().with_timezone(&chrono::Local);
    let is_today = at.date_naive() == chrono::Local::now().date_naive();
    at.format(if is_today { "%H:%M" } else { "%Y-%m-%d %H:%M" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn judged(agent: Option<&AgentStatus>, rows: u64, age: Duration) -> Judged {
        Known { agent, is_running: None, rows, age, max_age: 30 * MINUTE, confirmed: Seq(430) }.judge()
    }

    fn well() -> AgentStatus {
        AgentStatus { at: clock(), connected_to: Some("hq:7400".to_owned()), ..AgentStatus::default() }
    }

    #[test]
    fn levels_say_what_a_person_must_know() {
        let well = well();
        let level = |agent: Option<&AgentStatus>, rows, age| judged(agent, rows, age).level;
        assert_eq!(level(Some(&well), 0, Duration::ZERO), Level::Current);
        assert_eq!(level(Some(&well), 10, 31 * MINUTE), Level::UnconfirmedTooLong);
        assert_eq!(level(None, 0, Duration::ZERO), Level::Broken);
        let stale = AgentStatus { at: Timestamp::from_micros(0), ..well.clone() };
        assert_eq!(level(Some(&stale), 0, Duration::ZERO), Level::Broken);
        let broken = AgentStatus { capture_problem: Some("gone".to_owned()), ..well.clone() };
        assert_eq!(level(Some(&broken), 0, Duration::ZERO), Level::Broken);
        let refused = AgentStatus { refused: true, ..well };
        assert_eq!(level(Some(&refused), 0, Duration::ZERO), Level::Broken);
    }

    #[test]
    fn nothing_is_called_current_that_waits_or_is_cut_off() {
        let state = |agent: &AgentStatus, rows| judged(Some(agent), rows, Duration::ZERO).state;
        assert_eq!(state(&well(), 0), State::Current);
        let since = clock().before(100 * Duration::from_secs(1));
        let behind = CatchingUp { since, from: Seq(0), until: Seq(1000), is_loading: true };
        let loading = AgentStatus { catching_up: Some(behind), ..well() };
        let said = judged(Some(&loading), 570, Duration::ZERO);
        assert_eq!(said.state, State::Behind);
        assert!(said.summary.contains("43 % done, here by"), "{}", said.summary);
        // Killed a moment ago, with all well until then.
        let killed = Known {
            agent: Some(&well()),
            is_running: Some(false),
            rows: 0,
            age: Duration::ZERO,
            max_age: MINUTE,
            confirmed: Seq(0),
        };
        assert_eq!((killed.judge().level, killed.judge().state), (Level::Broken, State::NeedsAPerson));
        let cut = AgentStatus { connected_to: None, disconnected_since: Some(since), ..well() };
        let said = judged(Some(&cut), 0, Duration::ZERO);
        assert_eq!((said.state, said.since), (State::CutOff, Some(since)));
        // At that pace, 430 in 100 seconds, the other 570 take 133 seconds.
        let by = behind.here_by(Seq(430), since.plus_micros(100_000_000)).expect("told");
        assert_eq!(by.since(since).as_secs(), 232);
    }
}
