//! Tells people: which channel hears of what, how it is sent, and what happens when it cannot be.
//!
//! Channels hold secrets, so they are kept in the vault, not in a table. A delivery is tried a
//! bounded number of times; a channel that fails is an incident itself, of which the others tell.

mod advice;
mod channel;
mod news;
mod recipients;
mod render;
mod roll_call;
mod send;
mod template;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::NaiveTime;
use rollcall_lake::{LakeError, StateView};
use rollcall_roll::{Decision, Incident, Kind, Notice};
use rollcall_types::{SiteId, Timestamp, describe};
use serde::{Deserialize, Serialize};

use channel::time_of;
pub use channel::{Channel, How, Mail, MailTls, QuietHours};
use news::{Hq, News};
pub(crate) use recipients::Route;
use render::Message;
pub(crate) use render::escape;
use roll_call::RollCall;
pub use template::Template;

use crate::{error::HqError, kept_secret::KeptSecret, node::Shared, published::arrivals, roster::Sites, watching};

const VAULT_NAME: &str = "channels";
const TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts at a delivery, with pauses of 1, 4, 16 and 64 s between them.
const ATTEMPTS: u32 = 5;
/// How often Alertmanager is told again of what is open, and the outside service that the watch is
/// alive.
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

/// What one channel is told.
#[derive(Debug, Clone)]
struct Telling {
    name: String,
    channel: Channel,
    news: Arc<News>,
    message: Message,
    /// Of a mail: to whom.
    to: Vec<String>,
}

impl Telling {
    /// News in a channel's words, and to whom they go; an error says why they cannot.
    fn new(name: &str, channel: &Channel, news: &Arc<News>, roster: &Sites) -> Result<Self, String> {
        let zone = channel.zone();
        let mut message = news.message(zone);
        if let Some(template) = &channel.template {
            let built_in = message.clone();
            // It was checked, on other news; whoever is told must be told all the same.
            message = template.apply(news, zone, message).unwrap_or_else(|error| {
                let text = format!("{}\n(The words of this channel could not be used: {error})\n", built_in.text);
                Message { text, ..built_in }
            });
        }
        let sites = news.source.members.keys();
        let to = match &channel.how {
            How::Smtp(mail) => {
                let found = recipients::of_mail(mail, sites, roster)?;
                if !found.no_address.is_empty() {
                    let wrong = found.no_address.join(", ");
                    tracing::warn!(
                        channel = name,
                        wrong,
                        "the roster names people by what is no address; they are not told"
                    );
                }
                found.to
            }
            _ => Vec::new(),
        };
        Ok(Self { name: name.to_owned(), channel: channel.clone(), news: news.clone(), message, to })
    }
}

/// Tells a channel; what cannot be told is the channel's incident.
fn hand_over(shared: &Arc<Shared>, name: &str, channel: &Channel, news: &Arc<News>, roster: &Sites) {
    match Telling::new(name, channel, news, roster) {
        Ok(telling) => {
            shared.tasks.clone().spawn(deliver(shared.clone(), telling));
        }
        Err(problem) => shared.watching.watch().set_channel(name, Some(&problem), shared.now()),
    }
}

/// Hands a decision to every channel that wants it.
pub(crate) fn tell(shared: &Arc<Shared>, decision: &Decision, incident: &Incident, roster: &Arc<Sites>) {
    let channels = shared.notifiers.channels();
    let wanting = channels
        .iter()
        .filter(|(name, channel)| channel.wants(incident, decision.level, roster) && !concerns_itself(incident, name));
    let mut wanting = wanting.peekable();
    if wanting.peek().is_none() {
        return;
    }
    let news = Arc::new(News::of(shared, incident, decision.notice, decision.level, roster));
    wanting.for_each(|(name, channel)| hand_over(shared, name, channel, &news, roster));
}

/// A channel that does not work cannot tell of it.
fn concerns_itself(incident: &Incident, channel: &str) -> bool {
    incident.kind == Kind::Channel && incident.stream.as_deref() == Some(channel)
}

async fn deliver(shared: Arc<Shared>, telling: Telling) {
    let (name, news) = (telling.name.clone(), telling.news.clone());
    while telling.channel.is_quiet(shared.now(), news.level) && news.notice != Notice::Resolved {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
        }
        // What ended meanwhile need not wake anybody in the morning.
        let is_open = shared.watching.watch().incident(news.incident).is_some_and(Incident::is_open);
        if !is_open {
            return;
        }
    }
    let id = delivered_id(news.incident, &name);
    let delivered = Delivered { level: news.level, resolved: news.notice == Notice::Resolved };
    if attempt(&shared, &name, move |notifiers, now| notifiers.send(&telling, now)).await
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

/// Tells what was decided before a stop of HQ and, as far as is known, reached nobody. A notice
/// that did reach them comes again with the same key.
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
            let news = Arc::new(News::of(shared, &incident, notice, incident.told_level, &roster));
            hand_over(shared, name, channel, &news, &roster);
        }
    }
}

/// Tries a delivery, a bounded number of times, and tells the watch how the channel fares; whether
/// it arrived.
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

/// What goes out regularly: the daily roll call, what Alertmanager must hear again, the sign that
/// the watch is alive.
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
        attempt(&shared, &name, move |notifiers, now| notifiers.send_text(&how, &Message::EMPTY, now)).await;
    });
}

fn refresh(shared: &Arc<Shared>, name: &str, channel: &Channel) {
    let roster = shared.roster.all();
    let open: Vec<Incident> = {
        let watch = shared.watching.watch();
        watch.incidents().filter(|incident| incident.is_open() && !incident.told.is_empty()).cloned().collect()
    };
    let wanted = open.into_iter().filter(|incident| channel.wants(incident, incident.level, &roster));
    let wanted = wanted.filter(|incident| !concerns_itself(incident, name));
    let tellings: Vec<Telling> = wanted
        .filter_map(|incident| {
            // It comes every minute, of everything that is open: without what takes long to work
            // out.
            let news = Arc::new(News::brief(shared, &incident, Notice::Repeated, incident.level, &roster));
            Telling::new(name, channel, &news, &roster).ok()
        })
        .collect();
    if tellings.is_empty() {
        return;
    }
    let (shared, name) = (shared.clone(), name.to_owned());
    shared.tasks.clone().spawn(async move {
        attempt(&shared, &name, move |notifiers, now| {
            tellings.iter().try_for_each(|telling| notifiers.send(telling, now))
        })
        .await;
    });
}

fn daily(shared: &Arc<Shared>, name: &str, channel: &Channel) {
    let message = daily_message(shared, channel);
    let (shared, name, how) = (shared.clone(), name.to_owned(), channel.how.clone());
    shared.tasks.clone().spawn(async move {
        attempt(&shared, &name, move |notifiers, now| notifiers.send_text(&how, &message, now)).await;
    });
}

fn daily_message(shared: &Shared, channel: &Channel) -> Message {
    const GROUPS: [&str; 4] = ["region", "state", "country", "format"];
    let (roster, incidents) = (shared.roster.all(), watching::incidents(shared));
    let has = |name: &&&str| roster.values().any(|record| record.attributes.get(name).is_some());
    let arrived = arrivals::arrived(shared, &arrivals::arrivals(shared));
    let call = RollCall {
        hq: &Hq::of(shared),
        roll: &shared.roll(),
        incidents: &incidents,
        arrived: &arrived,
        roster: &roster,
        group_by: GROUPS.iter().find(has).copied().unwrap_or("region"),
        now: shared.now(),
    };
    call.message(channel.zone())
}

fn channel_of(shared: &Shared, name: &str) -> Result<Channel, HqError> {
    let channel = shared.notifiers.channels().get(name).cloned();
    channel.ok_or_else(|| HqError::NotFound(format!("there is no channel {name:?}")))
}

/// What a channel would say of an incident; of the roll, if of none. To nobody.
pub(crate) fn preview(shared: &Shared, name: &str, incident: Option<&Incident>) -> Result<Preview, HqError> {
    let channel = channel_of(shared, name)?;
    let Some(incident) = incident else {
        return Ok(Preview { message: daily_message(shared, &channel), to: Vec::new() });
    };
    let roster = shared.roster.all();
    let notice = if incident.is_open() { Notice::Opened } else { Notice::Resolved };
    let news = Arc::new(News::of(shared, incident, notice, incident.level.max(1), &roster));
    let telling = Telling::new(name, &channel, &news, &roster).map_err(HqError::Invalid)?;
    Ok(Preview { message: telling.message, to: telling.to })
}

/// See [`preview`].
#[derive(Debug, Serialize)]
pub(crate) struct Preview {
    #[serde(flatten)]
    message: Message,
    to: Vec<String>,
}

/// Who hears of a site, from which level on.
pub(crate) fn who(shared: &Shared, site: &SiteId) -> Vec<Route> {
    recipients::who(&shared.notifiers.channels(), site, &shared.roster.all(), shared.now())
}

/// How many sites lack each column of the roster that a channel's addresses are taken from.
pub(crate) fn lacking_columns(shared: &Shared, channel: &Channel) -> BTreeMap<String, usize> {
    recipients::unknown_columns(channel, &shared.roster.all())
}

/// An incident as plain text, as the page about it shows it.
pub(crate) fn described(shared: &Shared, incident: &Incident) -> String {
    let notice = if incident.is_open() { Notice::Opened } else { Notice::Resolved };
    let news = News::of(shared, incident, notice, incident.level.max(1), &shared.roster.all());
    news.message(chrono_tz::Tz::UTC).text
}

/// Sends a test message, once, ends what that opened elsewhere, and says what happened.
pub(crate) async fn test(shared: &Arc<Shared>, name: &str) -> Result<(), HqError> {
    let (channel, roster, now) = (channel_of(shared, name)?, shared.roster.all(), shared.now());
    let mut incident = Incident::new(0, Kind::Channel, now, now);
    incident.stream = Some(name.to_owned());
    incident.evidence = format!("This is a test of channel {name}. Nothing is wrong.");
    let telling = |incident: &Incident, notice: Notice| {
        let mut news = News::of(shared, incident, notice, 1, &roster);
        (news.is_test, news.what) = (true, incident.evidence.clone());
        news.also_told.clear();
        news.likely.clear();
        news.check.clear();
        // Where recipients are columns of the roster, a test is about the first site that has them.
        let of_one = roster.keys().find(|site| match &channel.how {
            How::Smtp(mail) => recipients::of_mail(mail, [*site].into_iter(), &roster).is_ok(),
            _ => false,
        });
        news.source.members =
            of_one.map(|site| (site.clone(), rollcall_roll::Member { since: now, until: None })).into_iter().collect();
        Telling::new(name, &channel, &Arc::new(news), &roster).map_err(HqError::Invalid)
    };
    let mut tellings = vec![telling(&incident, Notice::Opened)?];
    if matches!(channel.how, How::Pagerduty { .. } | How::Alertmanager { .. }) {
        incident.close("it was a test", now);
        tellings.push(telling(&incident, Notice::Resolved)?);
    }
    let worker = shared.clone();
    let send = move || tellings.iter().try_for_each(|telling| worker.notifiers.send(telling, worker.now()));
    let result = tokio::task::spawn_blocking(send).await.unwrap_or_else(|error| Err(error.to_string()));
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
