//! The site says so too: whether all is well, for people at the store and for monitoring by exit code.

use std::{collections::BTreeMap, path::Path, time::Duration};

use rollcall_capture::{CaptureError, Health, Source};
use rollcall_types::{Cause, Seq, Timestamp};
use rollcall_wire::proto::Applied;
use serde::{Deserialize, Serialize};

use crate::{
    error::SiteError,
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

/// What `rollcall-site status` tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How bad it is.
    pub level: Level,
    /// The site's id.
    pub site: String,
    /// One sentence for people.
    pub summary: String,
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
    /// Why HQ keeps what this site sends apart from what it had before, until a person there decides.
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
}

pub(crate) const FILE: &str = "status.json";
/// An agent that has not written for this long does not run.
const STALE_AFTER: Duration = Duration::from_secs(120);

fn clock() -> Timestamp {
    Timestamp::from_micros(Source::clock_micros())
}

impl StatusFile {
    pub(crate) fn new(directory: StateDirectory) -> Self {
        let now = AgentStatus { disconnected_since: Some(clock()), ..AgentStatus::default() };
        Self { directory, now, written: AgentStatus::default() }
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

    /// Writes the file if it would say something else, or is about to look stale.
    pub(crate) fn write(&mut self) -> Result<(), SiteError> {
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

/// [`status`] for the agent itself: while a person has it pause, this leaves the database alone as well.
pub(crate) fn own_status(database: &Path, state: Option<&Path>, max_age: Duration) -> Result<Report, SiteError> {
    look(database, state, max_age, true)
}

/// How many changes are not confirmed, and for how long the oldest has waited.
fn waiting(database: &Path, confirmed: Seq) -> Result<(u64, Duration), CaptureError> {
    let mut source = Source::open(database)?;
    let rows = source.heads()?.head.0.saturating_sub(confirmed.0);
    let age = if rows > 0 { source.age_of(Seq(confirmed.0 + 1))? } else { Duration::ZERO };
    Ok((rows, age))
}

fn look(database: &Path, state: Option<&Path>, max_age: Duration, is_own: bool) -> Result<Report, SiteError> {
    let database = crate::enrol::database(database)?;
    let directory = StateDirectory::of(&database, state);
    let identity = directory.identity()?;
    // Before the agent's first start there are no notes.
    let confirmed = Notes::look(&directory).and_then(|notes| notes.position()).unwrap_or_default().confirmed;
    let mut agent: Option<AgentStatus> =
        std::fs::read(directory.file(FILE)).ok().and_then(|text| serde_json::from_slice(&text).ok());
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
    let (level, summary) = judge(agent.as_ref(), unconfirmed_rows, age, max_age);
    Ok(Report {
        level,
        site: identity.site,
        summary,
        unconfirmed_rows,
        oldest_unconfirmed_age_seconds: age.as_secs(),
        agent,
    })
}

fn judge(agent: Option<&AgentStatus>, rows: u64, age: Duration, max_age: Duration) -> (Level, String) {
    let Some(agent) = agent else {
        return (Level::Broken, "the agent never ran; start `rollcall-site run`".to_owned());
    };
    if let Some(problem) = &agent.store_trouble {
        let cause = agent.cause.map_or_else(String::new, |cause| format!(" ({cause})"));
        return (Level::Broken, format!("nothing can be sent: {problem}{cause}"));
    }
    if let Some(problem) = &agent.capture_problem {
        return (Level::Broken, format!("changes are not captured: {problem} ({})", Cause::CaptureStuck));
    }
    if let Some(held) = &agent.held {
        let text = format!("HQ keeps what this store sends apart until a person there decides: {held}");
        return (Level::Broken, format!("{text} ({})", Cause::CloneOrRewind));
    }
    if let Some((table, problem)) = agent.published.iter().find_map(|(name, of)| Some((name, of.problem.as_ref()?))) {
        return (Level::Broken, format!("HQ's table {table} is not up to date here: {problem}"));
    }
    if agent.refused {
        let error = agent.last_error.clone().unwrap_or_default();
        let cause = agent.cause.unwrap_or(Cause::HqRefuses);
        return (Level::Broken, format!("HQ and this site are at odds: {error} ({cause})"));
    }
    if let Some(until) = agent.paused_until.filter(|until| *until > clock()) {
        let text = format!("a person has the agent pause until {until}; {rows} changes wait safely");
        return (if age > max_age { Level::UnconfirmedTooLong } else { Level::Current }, text);
    }
    if clock().since(agent.at) > STALE_AFTER {
        return (Level::Broken, format!("the agent does not run (last sign of it: {}); {rows} changes wait", agent.at));
    }
    if age > max_age {
        let since = agent.disconnected_since.map_or_else(String::new, |since| format!(", no connection since {since}"));
        let cause = agent.cause.map_or_else(String::new, |cause| format!(" ({cause})"));
        let error = agent.last_error.as_ref().map_or_else(String::new, |error| format!(": {error}{cause}"));
        let text = format!("{rows} changes wait, the oldest for {} minutes{since}{error}", age.as_secs() / 60);
        return (Level::UnconfirmedTooLong, text);
    }
    match (&agent.connected_to, rows) {
        (Some(hq), 0) => {
            let wanted = agent.wanted_version.as_ref();
            let wanted = wanted.map_or_else(String::new, |version| format!("; HQ wants agent {version} here"));
            (Level::Current, format!("every change is confirmed by HQ at {hq}{wanted}"))
        }
        (Some(hq), rows) => (Level::Current, format!("{rows} changes are on their way to HQ at {hq}")),
        (None, rows) => {
            let cause = agent.cause.map_or_else(String::new, |cause| format!(": {cause}"));
            let error = agent.last_error.clone().unwrap_or_else(|| "connecting".to_owned()) + &cause;
            (Level::Current, format!("no connection to HQ ({error}); {rows} changes wait safely"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn levels_say_what_a_person_must_know() {
        let well = AgentStatus { at: clock(), connected_to: Some("hq:7400".to_owned()), ..AgentStatus::default() };
        let level = |agent: Option<&AgentStatus>, rows, age| judge(agent, rows, age, 30 * MINUTE).0;
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
}
