//! What a person is told of an agent: well, behind, cut off, or in trouble.

use std::time::Duration;

use rollcall_types::{Cause, Seq, Timestamp};

use super::{AgentStatus, Level, STALE_AFTER, State, clock, local};

/// More changes than this that wait are more than what the store writes at this moment.
pub(super) const MANY: u64 = 200;

/// What the site's standing is judged by.
pub(super) struct Known<'a> {
    pub(super) agent: Option<&'a AgentStatus>,
    /// Whether an agent runs now, if that can be told.
    pub(super) is_running: Option<bool>,
    /// Changes that are not confirmed, and how old the oldest is.
    pub(super) rows: u64,
    pub(super) age: Duration,
    pub(super) max_age: Duration,
    pub(super) confirmed: Seq,
}

/// How the site stands.
pub(super) struct Judged {
    pub(super) level: Level,
    pub(super) state: State,
    pub(super) since: Option<Timestamp>,
    pub(super) summary: String,
    pub(super) what_to_do: Option<String>,
}

impl Judged {
    pub(super) fn new(level: Level, state: State, since: Option<Timestamp>, summary: String) -> Self {
        Self { level, state, since, summary, what_to_do: None }
    }

    pub(super) fn broken(since: Option<Timestamp>, summary: String, what_to_do: &str) -> Self {
        let what_to_do = Some(what_to_do.to_owned());
        Self { what_to_do, ..Self::new(Level::Broken, State::NeedsAPerson, since, summary) }
    }
}

impl Known<'_> {
    pub(super) fn judge(&self) -> Judged {
        let Some(agent) = self.agent else {
            return Judged::broken(
                None,
                "the agent never ran; changes are kept in the database".to_owned(),
                "start `rollcall-site run`, or install it as a service",
            );
        };
        self.in_trouble(agent).unwrap_or_else(|| self.running(agent))
    }

    /// What a person must see to; none if nothing.
    pub(super) fn in_trouble(&self, agent: &AgentStatus) -> Option<Judged> {
        let since = agent.disconnected_since;
        let with_cause = |cause: Option<Cause>| cause.map_or_else(String::new, |cause| format!(" ({cause})"));
        if let Some(problem) = &agent.store_trouble {
            let text = format!("nothing can be sent: {problem}{}", with_cause(agent.cause));
            let advice = match agent.cause {
                Some(Cause::Disk) => "make room on the disk; the agent goes on by itself",
                _ => "mend what is said here; the agent goes on by itself",
            };
            return Some(Judged::broken(since, text, advice));
        }
        if let Some(problem) = &agent.capture_problem {
            let text = format!("changes are not captured: {problem} ({})", Cause::CaptureStuck);
            return Some(Judged::broken(None, text, "call HQ: what is written now may have to be stated again"));
        }
        if let Some(held) = &agent.held {
            let text = format!(
                "HQ keeps what this store sends apart until a person there decides: {held} ({})",
                Cause::CloneOrRewind
            );
            return Some(Judged::broken(None, text, "call HQ: only a person there can say which data counts"));
        }
        let of_hq = agent.published.iter().find_map(|(name, of)| Some((name, of.problem.as_ref()?)));
        if let Some((table, problem)) = of_hq {
            let text = format!("HQ's table {table} is not up to date here: {problem}");
            return Some(Judged::broken(None, text, "mend the table here, or call HQ"));
        }
        if agent.refused {
            let error = agent.last_error.clone().unwrap_or_default();
            let text = format!("HQ and this site are at odds: {error} ({})", agent.cause.unwrap_or(Cause::HqRefuses));
            return Some(Judged::broken(since, text, "call HQ: trying again does not help"));
        }
        // What it wrote last may say that all is well: it cannot say that it was killed.
        let is_gone = match self.is_running {
            Some(is_running) => !is_running,
            None => agent.paused_until.is_none_or(|until| until <= clock()) && clock().since(agent.at) > STALE_AFTER,
        };
        if is_gone {
            let text =
                format!("the agent does not run (last sign of it: {}); {}", local(agent.at), waiting_text(self.rows));
            return Some(Judged::broken(Some(agent.at), text, "start `rollcall-site run`"));
        }
        None
    }

    /// The agent does what it can.
    pub(super) fn running(&self, agent: &AgentStatus) -> Judged {
        let rows = self.rows;
        let level = if self.age > self.max_age { Level::UnconfirmedTooLong } else { Level::Current };
        let since = agent.disconnected_since;
        if let Some(until) = agent.paused_until.filter(|until| *until > clock()) {
            let text = format!("a person has the agent pause until {}; {}", local(until), kept_text(rows));
            let what_to_do = Some("`rollcall-site resume` ends the pause".to_owned());
            return Judged { what_to_do, ..Judged::new(level, State::CutOff, since, text) };
        }
        let oldest = match self.age.as_secs() / 60 {
            0 => String::new(),
            minutes => format!(", the oldest for {minutes} minutes"),
        };
        let Some(hq) = &agent.connected_to else {
            let why = match (&agent.last_error, agent.cause) {
                (Some(error), Some(cause)) => format!("{error} ({cause})"),
                (Some(error), None) => error.clone(),
                (None, _) => "it is being connected".to_owned(),
            };
            let text = format!("no connection to HQ: {why}; {}{oldest}", kept_text(rows));
            let advice = (level != Level::Current).then(|| {
                "look whether the router has power and the line works; if other things work, call HQ".to_owned()
            });
            return Judged { what_to_do: advice, ..Judged::new(level, State::CutOff, since, text) };
        };
        let wanted = agent.wanted_version.as_ref();
        let wanted = wanted.map_or_else(String::new, |version| format!("; HQ wants agent {version} here"));
        if rows == 0 {
            let at = agent.last_confirmed_at;
            return Judged::new(level, State::Current, at, format!("every change is confirmed by HQ at {hq}{wanted}"));
        }
        // What a till wrote a second ago is on its way; that is not being behind.
        let Some(behind) = &agent.catching_up else {
            let state = if level == Level::Current { State::Current } else { State::Behind };
            let text = format!("{} to be confirmed by HQ at {hq}{oldest}{wanted}", waiting_text(rows));
            return Judged::new(level, state, None, text);
        };
        let by = behind.here_by(self.confirmed, clock());
        let by = by.map_or_else(String::new, |by| format!(", here by {}", local(by)));
        let doing = if behind.is_loading { "loading rows from before" } else { "catching up" };
        let text = format!("{doing}, {} % done{by}; {}{wanted}", behind.percent(self.confirmed), waiting_text(rows));
        Judged::new(level, State::Behind, Some(behind.since), text)
    }
}

/// The same where HQ cannot have them now: they are not lost.
fn kept_text(rows: u64) -> String {
    let safely = if rows == 0 { "" } else { " safely" };
    format!("{}{safely}", waiting_text(rows))
}

/// How many changes wait, in words.
pub(super) fn waiting_text(rows: u64) -> String {
    match rows {
        0 => "nothing waits".to_owned(),
        1 => "1 change waits".to_owned(),
        rows => format!("{rows} changes wait"),
    }
}
