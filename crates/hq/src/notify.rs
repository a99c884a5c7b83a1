//! Tells people: which channel hears of what, how it is sent, and what happens when it cannot be.
//!
//! Channels hold secrets, so they are kept in the vault, not in a table. A delivery is tried a bounded number of times; a
//! channel that fails is an incident itself, of which the others tell.

mod channel;
mod send;
mod telling;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::NaiveTime;
use rollcall_lake::{LakeError, StateView};
use rollcall_roll::{Decision, Incident, Kind, Notice};
use rollcall_types::{SiteState, Timestamp, describe, roll_sentence};
use serde::{Deserialize, Serialize};

use channel::time_of;
pub use channel::{Channel, How, Mail, MailTls, QuietHours};
use telling::Telling;

use crate::{error::HqError, kept_secret::KeptSecret, ledger::RollEntry, node::Shared, roster::Sites};

const VAULT_NAME: &str = "channels";
const TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts at a delivery, with pauses of 1, 4, 16 and 64 s between them.
const ATTEMPTS: u32 = 5;
/// How often Alertmanager is told again of what is open, and the outside service that the watch is alive.
const REFRESH_EVERY: Duration = Duration::from_secs(60);

/// What channels were told last, in the state log by incident and channel.
const DELIVERED: &str = "delivered";
/// The end of an incident is told after a restart if it came this lately.
const RESOLVED_LATELY: Duration = Duration::from_secs(86_400);

/// What a channel was told last of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Delivered {
    level: u8,
    resolved: bool,
}

fn delivered_id(incident: u64, channel: &str) -> String {
    format!("{incident}/{channel}")
}

/// All channels, by name.
pub(crate) type Channels = BTreeMap<String, Channel>;

/// The notifiers of this node.
#[derive(Debug)]
pub(crate) struct Notifiers {
    channels: KeptSecret<Channels>,
    agent: ureq::Agent,
}

impl Notifiers {
    pub(crate) async fn open(vault: rollcall_lake::Vault) -> Result<Self, HqError> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .build()
            .into();
        Ok(Self { channels: KeptSecret::open(vault, VAULT_NAME).await?, agent })
    }

    /// Takes over what other nodes changed.
    pub(crate) async fn reload(&self) -> Result<(), HqError> {
        self.channels.reload().await
    }

    pub(crate) fn channels(&self) -> Arc<Channels> {
        self.channels.get()
    }

    /// All channels (an address of one is a secret as a rule), and when each was set.
    pub(crate) fn secrets(&self) -> BTreeMap<String, Option<Timestamp>> {
        let channels = self.channels();
        channels.iter().map(|(name, channel)| (name.clone(), channel.set_at)).collect()
    }

    /// Adds, replaces or (with none) removes a channel.
    pub(crate) async fn set(&self, name: &str, channel: Option<Channel>, now: Timestamp) -> Result<bool, HqError> {
        let channel = channel.map(|channel| Channel { set_at: Some(now), ..channel });
        if let Some(channel) = &channel {
            channel.check()?;
        }
        self.channels
            .change(|channels| {
                let was_there = channels.remove(name).is_some();
                channels.extend(channel.clone().map(|channel| (name.to_owned(), channel)));
                Ok(was_there)
            })
            .await
    }
}

/// Hands a decision to every channel that wants it.
pub(crate) fn tell(shared: &Arc<Shared>, decision: &Decision, incident: &Incident, roster: &Arc<Sites>) {
    let telling = Telling {
        incident: incident.clone(),
        notice: decision.notice,
        level: decision.level,
        lake_id: shared.lake.id().to_owned(),
    };
    for (name, channel) in shared.notifiers.channels().iter() {
        if channel.wants(incident, decision.level, roster) && !concerns_itself(incident, name) {
            let (shared, name, channel, telling) = (shared.clone(), name.clone(), channel.clone(), telling.clone());
            shared.tasks.clone().spawn(deliver(shared, name, channel, telling));
        }
    }
}

/// A channel that does not work cannot tell of it.
fn concerns_itself(incident: &Incident, channel: &str) -> bool {
    incident.kind == Kind::Channel && incident.stream.as_deref() == Some(channel)
}

async fn deliver(shared: Arc<Shared>, name: String, channel: Channel, telling: Telling) {
    while channel.is_quiet(shared.now(), telling.level) && telling.notice != Notice::Resolved {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
        }
        // What ended meanwhile need not wake anybody in the morning.
        let is_open = shared.watching.watch().incident(telling.incident.id).is_some_and(Incident::is_open);
        if !is_open {
            return;
        }
    }
    let how = channel.how.clone();
    let id = delivered_id(telling.incident.id, &name);
    let delivered = Delivered { level: telling.level, resolved: telling.notice == Notice::Resolved };
    if attempt(&shared, &name, move |notifiers, now| notifiers.send(&how, &telling, now)).await
        && let Err(error) = remember(&shared, &id, delivered).await
    {
        tracing::error!(id, error = %describe(&error), "that people were told could not be stored; they may be told twice");
    }
}

async fn remember(shared: &Shared, id: &str, delivered: Delivered) -> Result<(), LakeError> {
    let is_known = |view: &StateView| {
        let known = view.get(DELIVERED, id).and_then(|record| record.parse::<Delivered>().ok());
        known == Some(delivered)
    };
    let (state, now) = (shared.lake.state(), shared.now());
    if !is_known(&state.view()) {
        // It was told whether or not this node acts still.
        state.update(|view| Ok::<_, LakeError>((vec![view.next(DELIVERED, id, &delivered, now, "hq")?], ()))).await?;
    }
    Ok(())
}

/// Tells what was decided before a stop of HQ and, as far as is known, reached nobody. A notice that did reach them comes
/// again with the same key.
pub(crate) fn tell_what_was_not_told(shared: &Arc<Shared>) {
    let (view, roster, now) = (shared.lake.state().view(), shared.roster.all(), shared.now());
    let is_told = |incident: &&Incident| {
        let is_recent = incident.closed_at.is_none_or(|closed| now.since(closed) < RESOLVED_LATELY);
        incident.told_level > 0 && incident.held_by.is_none() && is_recent
    };
    let incidents: Vec<Incident> = shared.watching.watch().incidents().filter(is_told).cloned().collect();
    for incident in incidents {
        for (name, channel) in shared.notifiers.channels().iter() {
            if !channel.wants(&incident, incident.told_level, &roster) || concerns_itself(&incident, name) {
                continue;
            }
            let known = view.get(DELIVERED, &delivered_id(incident.id, name));
            let notice = match (incident.is_open(), known.and_then(|record| record.parse::<Delivered>().ok())) {
                (true, None) => Notice::Opened,
                (true, Some(known)) if known.resolved => Notice::Again,
                (true, Some(known)) if known.level < incident.told_level => Notice::Louder,
                (false, Some(known)) if !known.resolved => Notice::Resolved,
                _ => continue,
            };
            let (level, lake_id) = (incident.told_level, shared.lake.id().to_owned());
            let telling = Telling { incident: incident.clone(), notice, level, lake_id };
            shared.tasks.clone().spawn(deliver(shared.clone(), name.clone(), channel.clone(), telling));
        }
    }
}

/// Tries a delivery, a bounded number of times, and tells the watch how the channel fares; whether it arrived.
async fn attempt(
    shared: &Arc<Shared>,
    name: &str,
    send: impl Fn(&Notifiers, Timestamp) -> Result<(), String> + Clone + Send + 'static,
) -> bool {
    let mut problem = None;
    for number in 0..ATTEMPTS {
        if number > 0 {
            tokio::select! {
                () = shared.stop.cancelled() => return false,
                () = tokio::time::sleep(Duration::from_secs(4_u64.pow(number - 1))) => {}
            }
        }
        if !shared.is_acting() {
            return false;
        }
        let (worker, send) = (shared.clone(), send.clone());
        let sent = tokio::task::spawn_blocking(move || send(&worker.notifiers, worker.now())).await;
        match sent.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(()) => {
                shared.watching.watch().set_channel(name, None, shared.now());
                return true;
            }
            Err(error) => {
                tracing::warn!(channel = name, attempt = number + 1, error, "people could not be told");
                problem = Some(error);
            }
        }
    }
    shared.watching.watch().set_channel(name, problem.as_deref(), shared.now());
    false
}

/// What goes out regularly: the daily roll call, what Alertmanager must hear again, the sign that the watch is alive.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut timer = tokio::time::interval(REFRESH_EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = shared.now();
    if shared.relay.is_none() {
        tell_what_was_not_told(&shared);
    }
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        let now = shared.now();
        if !shared.is_acting() {
            // What was due a moment before this node acts may not have been done.
            before = before.max(now.before(REFRESH_EVERY * 2));
            continue;
        }
        for (name, channel) in shared.notifiers.channels().iter() {
            match &channel.how {
                How::DeadMan { .. } => ping(&shared, name, channel, now),
                How::Alertmanager { .. } => refresh(&shared, name, channel),
                _ => {}
            }
            let due = channel.daily_at.as_ref().and_then(|at| time_of(at).ok());
            if due.is_some_and(|due| is_between(channel.local(before), due, channel.local(now))) {
                daily(&shared, name, channel);
            }
        }
        before = now;
    }
}

/// Whether `due` lies in the minutes after `before` up to `now`, over midnight too.
fn is_between(before: NaiveTime, due: NaiveTime, now: NaiveTime) -> bool {
    if before <= now { before < due && due <= now } else { due > before || due <= now }
}

fn ping(shared: &Arc<Shared>, name: &str, channel: &Channel, now: Timestamp) {
    // Only a watch that ticks is alive.
    if now.since(shared.watching.watch().now()) > REFRESH_EVERY {
        return;
    }
    let (shared, name, how) = (shared.clone(), name.to_owned(), channel.how.clone());
    shared.tasks.clone().spawn(async move {
        attempt(&shared, &name, move |notifiers, now| notifiers.send_text(&how, "", "", now)).await;
    });
}

fn refresh(shared: &Arc<Shared>, name: &str, channel: &Channel) {
    let roster = shared.roster.all();
    let open: Vec<Incident> = {
        let watch = shared.watching.watch();
        watch.incidents().filter(|incident| incident.is_open() && !incident.told.is_empty()).cloned().collect()
    };
    let wanted = open.into_iter().filter(|incident| channel.wants(incident, incident.level, &roster));
    let tellings: Vec<Telling> = wanted
        .filter(|incident| !concerns_itself(incident, name))
        .map(|incident| Telling {
            level: incident.level,
            notice: Notice::Repeated,
            lake_id: shared.lake.id().to_owned(),
            incident,
        })
        .collect();
    if tellings.is_empty() {
        return;
    }
    let (shared, name, how) = (shared.clone(), name.to_owned(), channel.how.clone());
    shared.tasks.clone().spawn(async move {
        attempt(&shared, &name, move |notifiers, now| {
            tellings.iter().try_for_each(|telling| notifiers.send(&how, telling, now))
        })
        .await;
    });
}

fn daily(shared: &Arc<Shared>, name: &str, channel: &Channel) {
    let (title, text) = roll_call(&shared.roll());
    let (shared, name, how) = (shared.clone(), name.to_owned(), channel.how.clone());
    shared.tasks.clone().spawn(async move {
        attempt(&shared, &name, move |notifiers, now| notifiers.send_text(&how, &title, &text, now)).await;
    });
}

/// The daily roll call.
fn roll_call(roll: &[RollEntry]) -> (String, String) {
    const NAMED: usize = 50;
    let expected: Vec<&RollEntry> = roll.iter().filter(|entry| entry.state != SiteState::Retired).collect();
    let missing: Vec<&&RollEntry> = expected.iter().filter(|entry| entry.state.is_finding()).collect();
    let title = format!("Roll call: {}", roll_sentence(expected.iter().map(|entry| entry.state)));
    let outside = expected.iter().filter(|entry| entry.state == SiteState::OutsideAssumedHours).count();
    let mut text = String::new();
    for entry in missing.iter().take(NAMED) {
        let since = entry.since.map_or_else(|| "ever".to_owned(), |since| since.to_string());
        let cause = entry.cause.map_or_else(String::new, |cause| format!(" ({cause})"));
        text.push_str(&format!("{} {} since {since}{cause}\n", entry.site, entry.state));
    }
    if missing.len() > NAMED {
        text.push_str(&format!("and {} more\n", missing.len() - NAMED));
    }
    if missing.is_empty() && outside == 0 {
        text.push_str("Every site was heard, or is closed as expected.\n");
    }
    if outside > 0 {
        text.push_str(&format!(
            "{outside} sites are quiet like most of their kind, without a goodbye. Nobody declared when they are open (hours in the \
             roster), and it is not learned yet: whether they are closed is not known.\n"
        ));
    }
    (title, text)
}

/// Sends a test message, once, and says what happened.
pub(crate) async fn test(shared: &Arc<Shared>, name: &str) -> Result<(), HqError> {
    let channel = shared.notifiers.channels().get(name).cloned();
    let channel = channel.ok_or_else(|| HqError::NotFound(format!("there is no channel {name:?}")))?;
    let mut incident = Incident::new(0, Kind::Channel, shared.now(), shared.now());
    incident.evidence = format!("This is a test of channel {name}. Nothing is wrong.");
    incident.close("a test", shared.now());
    let telling = Telling { incident, notice: Notice::Opened, level: 1, lake_id: shared.lake.id().to_owned() };
    let worker = shared.clone();
    let sent = tokio::task::spawn_blocking(move || worker.notifiers.send(&channel.how, &telling, worker.now())).await;
    let result = sent.unwrap_or_else(|error| Err(error.to_string()));
    shared.watching.watch().set_channel(name, result.as_ref().err().map(String::as_str), shared.now());
    result.map_err(|error| HqError::Invalid(format!("channel {name}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daily_time_comes_once() {
        let at = |text| time_of(text).expect("valid");
        assert!(is_between(at("06:59"), at("07:00"), at("07:00")));
        assert!(!is_between(at("07:00"), at("07:00"), at("07:01")));
        assert!(is_between(at("23:59"), at("00:00"), at("00:00")));
    }
}
