//! Tells people: which channel hears of what, how it is sent, and what happens when it cannot be.
//!
//! Channels hold secrets, so they are kept in the vault, not in a table. A delivery is tried a bounded number of times; a
//! channel that fails is an incident itself, of which the others tell.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use chrono::{NaiveTime, TimeZone, Timelike};
use chrono_tz::Tz;
use lettre::{
    Message, SmtpTransport, Transport,
    message::Mailbox,
    transport::smtp::{authentication::Credentials as SmtpCredentials, client::Tls},
};
use ring::hmac;
use rollcall_roll::{Decision, Incident, Kind, Notice};
use rollcall_types::{SiteId, Timestamp, describe};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{error::HqError, incidents_api::kind_name, ledger::RollEntry, node::Shared, roster::Sites};

/// A way to tell people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// How.
    #[serde(flatten)]
    pub how: How,
    /// Only incidents from this level on.
    #[serde(default = "one")]
    pub min_level: u8,
    /// Only incidents about a site with these attributes; HQ's own trouble goes to every channel.
    #[serde(default, rename = "match", skip_serializing_if = "BTreeMap::is_empty")]
    pub matching: BTreeMap<String, String>,
    /// When it must not be disturbed for low levels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<QuietHours>,
    /// At this local time (`HH:MM`) the daily roll call goes out, even when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_at: Option<NaiveTimeText>,
    /// The zone of `daily_at` and `quiet`.
    #[serde(default)]
    pub tz: Option<String>,
}

fn one() -> u8 {
    1
}

/// `HH:MM`.
type NaiveTimeText = String;

/// When a channel must not be disturbed for low levels; what it missed it hears afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuietHours {
    /// `HH:MM`.
    pub from: String,
    /// `HH:MM`; may be the next morning.
    pub to: String,
}

/// Levels above this are told at any hour.
const QUIET_LEVEL_MAX: u8 = 2;

/// How a channel is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum How {
    /// E-mail.
    Smtp(Mail),
    /// A JSON document by POST, signed if a secret is given.
    Webhook {
        /// Where to.
        url: String,
        /// For `X-Rollcall-Signature`: HMAC-SHA256 over the timestamp header, a dot and the body, in hex.
        #[serde(default)]
        secret: Option<String>,
    },
    /// An incoming webhook of Slack.
    Slack {
        /// Where to.
        url: String,
    },
    /// A webhook of Microsoft Teams.
    Teams {
        /// Where to.
        url: String,
    },
    /// PagerDuty Events v2.
    Pagerduty {
        /// The integration's routing key.
        routing_key: String,
        /// Another address than PagerDuty's own.
        #[serde(default)]
        url: Option<String>,
    },
    /// Prometheus Alertmanager, API v2.
    Alertmanager {
        /// Such as `http://127.0.0.1:9093`.
        url: String,
    },
    /// Pinged every minute while the watch is alive, for an outside service that misses it.
    DeadMan {
        /// Where to.
        url: String,
    },
}

/// A mail server and who gets the mail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mail {
    /// The server.
    pub host: String,
    /// Its port; 25, 587 or 465 by the kind of encryption.
    #[serde(default)]
    pub port: Option<u16>,
    /// Encryption: `starttls` (default), `tls` or `none`.
    #[serde(default)]
    pub tls: MailTls,
    /// For a server that asks.
    #[serde(default)]
    pub username: Option<String>,
    /// For a server that asks.
    #[serde(default)]
    pub password: Option<String>,
    /// The sender.
    pub from: String,
    /// The recipients.
    pub to: Vec<String>,
}

/// How mail is encrypted on its way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// Required, after a plain greeting.
    #[default]
    Starttls,
    /// From the first byte.
    Tls,
    /// Not at all: only for a server on the same machine.
    None,
}

const VAULT_NAME: &str = "channels";
const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";
const TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts at a delivery, with pauses of 1, 4, 16 and 64 s between them.
const ATTEMPTS: u32 = 5;
/// How often Alertmanager is told again of what is open, and the outside service that the watch is alive.
const REFRESH_EVERY: Duration = Duration::from_secs(60);
/// Alertmanager takes silence for an end: what it is told lasts this long without HQ.
const ALERT_LASTS: i64 = 24 * 3_600_000_000;

/// All channels, by name.
pub(crate) type Channels = BTreeMap<String, Channel>;

/// The notifiers of this node.
#[derive(Debug)]
pub(crate) struct Notifiers {
    vault: rollcall_lake::Vault,
    channels: RwLock<Arc<Channels>>,
    agent: ureq::Agent,
}

impl Notifiers {
    pub(crate) async fn open(vault: rollcall_lake::Vault) -> Result<Self, HqError> {
        let stored = vault.get(VAULT_NAME).await?;
        let channels = match stored {
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| HqError::Invalid(format!("the channels in the vault cannot be read: {error}")))?,
            None => Channels::new(),
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .build()
            .into();
        Ok(Self { vault, channels: RwLock::new(Arc::new(channels)), agent })
    }

    pub(crate) fn channels(&self) -> Arc<Channels> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds, replaces or (with none) removes a channel.
    pub(crate) async fn set(&self, name: &str, channel: Option<Channel>) -> Result<bool, HqError> {
        if let Some(channel) = &channel {
            channel.check()?;
        }
        let mut channels = (*self.channels()).clone();
        let was_there = channels.remove(name).is_some();
        if let Some(channel) = channel {
            channels.insert(name.to_owned(), channel);
        }
        let text = serde_json::to_vec(&channels).map_err(|error| HqError::Invalid(error.to_string()))?;
        self.vault.put(VAULT_NAME, &text).await?;
        *self.channels.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(channels);
        Ok(was_there)
    }
}

fn time_of(text: &str) -> Result<NaiveTime, HqError> {
    NaiveTime::parse_from_str(text, "%H:%M")
        .map_err(|_| HqError::Invalid(format!("{text:?} is not a time such as 07:30")))
}

impl Channel {
    fn check(&self) -> Result<(), HqError> {
        if let Some(quiet) = &self.quiet {
            time_of(&quiet.from)?;
            time_of(&quiet.to)?;
        }
        if let Some(at) = &self.daily_at {
            time_of(at)?;
        }
        if let Some(Err(_)) = self.tz.as_ref().map(|tz| tz.parse::<Tz>()) {
            return Err(HqError::Invalid("tz is not a time zone; use a name such as America/Los_Angeles".to_owned()));
        }
        let url = match &self.how {
            How::Webhook { url, .. }
            | How::Slack { url }
            | How::Teams { url }
            | How::Alertmanager { url }
            | How::DeadMan { url } => url.as_str(),
            How::Pagerduty { url, .. } => url.as_deref().unwrap_or(PAGERDUTY_URL),
            How::Smtp(mail) => {
                for address in mail.to.iter().chain([&mail.from]) {
                    let parsed: Result<Mailbox, _> = address.parse();
                    parsed.map_err(|error| HqError::Invalid(format!("{address:?} is no address: {error}")))?;
                }
                if mail.to.is_empty() {
                    return Err(HqError::Invalid("a mail needs somebody to go to".to_owned()));
                }
                return Ok(());
            }
        };
        if url.starts_with("http://") || url.starts_with("https://") {
            Ok(())
        } else {
            Err(HqError::Invalid(format!("{url:?} is no address: it must begin with https:// or http://")))
        }
    }

    fn zone(&self) -> Tz {
        self.tz.as_ref().and_then(|tz| tz.parse().ok()).unwrap_or(Tz::UTC)
    }

    fn local(&self, now: Timestamp) -> NaiveTime {
        let local = self.zone().from_utc_datetime(&now.to_chrono().naive_utc());
        NaiveTime::from_hms_opt(local.hour(), local.minute(), 0).unwrap_or_default()
    }

    /// Whether it must be left alone now.
    fn is_quiet(&self, now: Timestamp, level: u8) -> bool {
        let Some(quiet) = self.quiet.as_ref().filter(|_| level <= QUIET_LEVEL_MAX) else { return false };
        let (Ok(from), Ok(to)) = (time_of(&quiet.from), time_of(&quiet.to)) else { return false };
        let local = self.local(now);
        if from <= to { (from..to).contains(&local) } else { local >= from || local < to }
    }

    /// Whether an incident is for this channel.
    fn wants(&self, incident: &Incident, level: u8, roster: &Sites) -> bool {
        if matches!(self.how, How::DeadMan { .. }) || level < self.min_level {
            return false;
        }
        let has = |site: &SiteId| {
            let attributes = roster.get(site).map(|record| &record.attributes);
            self.matching.iter().all(|(name, value)| attributes.and_then(|known| known.get(name)) == Some(value))
        };
        self.matching.is_empty()
            || matches!(incident.kind, Kind::HqBlind | Kind::Channel)
            || incident.members.keys().any(has)
    }

    /// The channel without what must not be shown.
    pub(crate) fn redacted(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        for name in ["password", "secret", "routing_key"] {
            if let Some(secret) = value.get_mut(name).filter(|secret| !secret.is_null()) {
                *secret = "(kept)".into();
            }
        }
        // Whoever knows the address of such a webhook may write to it.
        if matches!(self.how, How::Slack { .. } | How::Teams { .. } | How::DeadMan { .. }) {
            value["url"] = "(kept)".into();
        }
        value
    }
}

/// What a channel is told.
#[derive(Debug, Clone)]
pub(crate) struct Telling {
    incident: Incident,
    notice: Notice,
    level: u8,
    lake_id: String,
}

impl Telling {
    fn title(&self) -> String {
        let of_whom: Vec<&str> = self.incident.members.keys().map(SiteId::as_str).take(3).collect();
        let more = self.incident.members.len().saturating_sub(of_whom.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let what = match self.notice {
            Notice::Resolved => "over".to_owned(),
            Notice::Opened => format!("level {}", self.level),
            Notice::Louder => format!("now level {}", self.level),
            Notice::Repeated => format!("still level {}", self.level),
            Notice::LeaseExpired => format!("nobody mended it: now level {}", self.level),
        };
        let cause = self.incident.cause.map_or_else(String::new, |cause| format!(" ({cause})"));
        let about = match (&self.incident.attribute, of_whom.is_empty()) {
            (Some(attribute), _) => {
                format!("{} = {}: {} sites", attribute.name, attribute.value, self.incident.members.len())
            }
            (None, true) => "HQ".to_owned(),
            (None, false) => format!("{}{more}", of_whom.join(", ")),
        };
        format!("[{what}] {}: {about}{cause}", kind_name(self.incident.kind))
    }

    fn text(&self) -> String {
        let id = self.incident.id;
        let mut text = format!("{}\nSince {}.", self.incident.evidence, self.incident.since);
        match self.notice {
            Notice::Resolved => {
                if let Some(last) = self.incident.timeline.last() {
                    text.push_str(&format!("\n{}", last.text));
                }
            }
            _ => text.push_str(&format!(
                "\nTake it: rollcall incidents ack {id} --reason \"…\"   Its story: rollcall incidents show {id}"
            )),
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "incident": self.incident.id,
            "notice": self.notice,
            "level": self.level,
            "kind": kind_name(self.incident.kind),
            "stream": self.incident.stream,
            "sites": self.incident.members.keys().collect::<Vec<_>>(),
            "attribute": self.incident.attribute,
            "cause": self.incident.cause,
            "evidence": self.incident.evidence,
            "since": self.incident.since,
            "opened_at": self.incident.opened_at,
            "closed_at": self.incident.closed_at,
            "title": self.title(),
        })
    }

    fn alert(&self, now: Timestamp) -> Value {
        let is_over = self.notice == Notice::Resolved;
        let ends = if is_over { now } else { now.plus_micros(ALERT_LASTS) };
        let mut labels = json!({
            "alertname": "RollcallIncident",
            "incident": self.incident.id.to_string(),
            "kind": kind_name(self.incident.kind),
            "lake": self.lake_id,
        });
        if let (Some(site), 1) = (self.incident.members.keys().next(), self.incident.members.len()) {
            labels["site"] = site.as_str().into();
        }
        if let Some(attribute) = &self.incident.attribute {
            labels["attribute"] = format!("{}={}", attribute.name, attribute.value).into();
        }
        json!([{
            "labels": labels,
            // Levels change while the alert stays the same one, so they are no label.
            "annotations": {"summary": self.title(), "description": self.text(), "level": self.level.to_string()},
            "startsAt": self.incident.since,
            "endsAt": ends,
        }])
    }

    fn pagerduty(&self, routing_key: &str) -> Value {
        let action = if self.notice == Notice::Resolved { "resolve" } else { "trigger" };
        let severity = match self.level {
            0 | 1 => "warning",
            2 | 3 => "error",
            _ => "critical",
        };
        json!({
            "routing_key": routing_key,
            "event_action": action,
            "dedup_key": format!("rollcall-{}-{}", self.lake_id, self.incident.id),
            "payload": {
                "summary": self.title(),
                "source": "rollcall",
                "severity": severity,
                "timestamp": self.incident.since,
                "custom_details": self.json(),
            },
        })
    }
}

impl Notifiers {
    /// Sends once; blocking.
    fn send(&self, how: &How, telling: &Telling, now: Timestamp) -> Result<(), String> {
        match how {
            How::Smtp(mail) => send_mail(mail, &telling.title(), &telling.text()),
            How::Webhook { url, secret } => self.post(url, &telling.json(), secret.as_deref(), now),
            How::Slack { url } => {
                let text = format!("*{}*\n{}", telling.title(), telling.text());
                self.post(url, &json!({"text": text}), None, now)
            }
            How::Teams { url } => self.post(url, &teams(&telling.title(), &telling.text()), None, now),
            How::Pagerduty { routing_key, url } => {
                let url = url.as_deref().unwrap_or(PAGERDUTY_URL);
                self.post(url, &telling.pagerduty(routing_key), None, now)
            }
            How::Alertmanager { url } => {
                self.post(&format!("{}/api/v2/alerts", url.trim_end_matches('/')), &telling.alert(now), None, now)
            }
            How::DeadMan { url } => self.post(url, &json!({"alive": now}), None, now),
        }
    }

    /// Sends a plain message where that makes sense.
    fn send_text(&self, how: &How, title: &str, text: &str, now: Timestamp) -> Result<(), String> {
        match how {
            How::Smtp(mail) => send_mail(mail, title, text),
            How::Webhook { url, secret } => {
                self.post(url, &json!({"title": title, "text": text}), secret.as_deref(), now)
            }
            How::Slack { url } => self.post(url, &json!({"text": format!("*{title}*\n{text}")}), None, now),
            How::Teams { url } => self.post(url, &teams(title, text), None, now),
            How::DeadMan { url } => self.post(url, &json!({"alive": now}), None, now),
            How::Pagerduty { .. } | How::Alertmanager { .. } => Ok(()),
        }
    }

    fn post(&self, url: &str, body: &Value, secret: Option<&str>, now: Timestamp) -> Result<(), String> {
        let body = body.to_string();
        let mut request = self.agent.post(url).header("content-type", "application/json");
        if let Some(secret) = secret {
            let stamp = (now.as_micros() / 1_000_000).to_string();
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            let signature = hmac::sign(&key, format!("{stamp}.{body}").as_bytes());
            let hex: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            request =
                request.header("x-rollcall-timestamp", stamp).header("x-rollcall-signature", format!("sha256={hex}"));
        }
        // The address may be a secret, so it is not in the error.
        let mut answer = request.send(body).map_err(|error| match error {
            ureq::Error::Io(error) => format!("cannot be reached: {error}"),
            ureq::Error::Timeout(_) => "did not answer in time".to_owned(),
            other => format!("cannot be reached: {}", other.to_string().replace(url, "its address")),
        })?;
        if answer.status().is_success() {
            return Ok(());
        }
        let text = answer.body_mut().with_config().limit(2000).read_to_string().unwrap_or_default();
        Err(format!("answered {}: {text}", answer.status()))
    }
}

fn teams(title: &str, text: &str) -> Value {
    let block = |text: &str, weight: &str| json!({"type": "TextBlock", "text": text, "weight": weight, "wrap": true});
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [block(title, "bolder"), block(text, "default")],
            },
        }],
    })
}

fn send_mail(mail: &Mail, subject: &str, text: &str) -> Result<(), String> {
    let mut builder = Message::builder().subject(subject);
    builder = builder.from(mail.from.parse::<Mailbox>().map_err(|error| error.to_string())?);
    for to in &mail.to {
        builder = builder.to(to.parse::<Mailbox>().map_err(|error| error.to_string())?);
    }
    let message = builder.body(text.to_owned()).map_err(|error| error.to_string())?;
    let relay = match mail.tls {
        MailTls::Starttls => SmtpTransport::starttls_relay(&mail.host),
        MailTls::Tls => SmtpTransport::relay(&mail.host),
        MailTls::None => Ok(SmtpTransport::builder_dangerous(&mail.host).tls(Tls::None)),
    };
    let mut transport = relay.map_err(|error| describe(&error))?.timeout(Some(TIMEOUT));
    if let Some(port) = mail.port {
        transport = transport.port(port);
    }
    if let (Some(username), Some(password)) = (&mail.username, &mail.password) {
        transport = transport.credentials(SmtpCredentials::new(username.clone(), password.clone()));
    }
    transport.build().send(&message).map(|_| ()).map_err(|error| describe(&error))
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
    attempt(&shared, &name, move |notifiers, now| notifiers.send(&how, &telling, now)).await;
}

/// Tries a delivery, a bounded number of times, and tells the watch how the channel fares.
async fn attempt(
    shared: &Arc<Shared>,
    name: &str,
    send: impl Fn(&Notifiers, Timestamp) -> Result<(), String> + Clone + Send + 'static,
) {
    let mut problem = None;
    for number in 0..ATTEMPTS {
        if number > 0 {
            tokio::select! {
                () = shared.stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(4_u64.pow(number - 1))) => {}
            }
        }
        let (worker, send) = (shared.clone(), send.clone());
        let sent = tokio::task::spawn_blocking(move || send(&worker.notifiers, worker.now())).await;
        match sent.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(()) => {
                shared.watching.watch().set_channel(name, None, shared.now());
                return;
            }
            Err(error) => {
                tracing::warn!(channel = name, attempt = number + 1, error, "people could not be told");
                problem = Some(error);
            }
        }
    }
    shared.watching.watch().set_channel(name, problem.as_deref(), shared.now());
}

/// What goes out regularly: the daily roll call, what Alertmanager must hear again, the sign that the watch is alive.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut timer = tokio::time::interval(REFRESH_EVERY);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before = shared.now();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        let now = shared.now();
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
    let expected: Vec<&RollEntry> =
        roll.iter().filter(|entry| entry.state != rollcall_types::SiteState::Retired).collect();
    let missing: Vec<&&RollEntry> = expected.iter().filter(|entry| entry.state.is_finding()).collect();
    let title = match missing.len() {
        0 => format!("Roll call: all {} sites are accounted for", expected.len()),
        count => format!("Roll call: {count} of {} sites are missing", expected.len()),
    };
    let mut text = String::new();
    for entry in missing.iter().take(NAMED) {
        let since = entry.since.map_or_else(|| "ever".to_owned(), |since| since.to_string());
        let cause = entry.cause.map_or_else(String::new, |cause| format!(" ({cause})"));
        text.push_str(&format!("{} {} since {since}{cause}\n", entry.site, entry.state));
    }
    if missing.len() > NAMED {
        text.push_str(&format!("and {} more\n", missing.len() - NAMED));
    }
    if missing.is_empty() {
        text.push_str("Every site was heard, or is closed as expected.\n");
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

    fn channel(text: Value) -> Channel {
        serde_json::from_value(text).expect("a channel")
    }

    #[test]
    fn low_levels_wait_for_the_morning_and_high_ones_do_not() {
        let channel = channel(json!({
            "kind": "webhook", "url": "http://127.0.0.1:1", "tz": "Europe/Berlin", "quiet": {"from": "22:00", "to": "07:00"},
        }));
        let night: Timestamp = "2026-01-10T02:00:00Z".parse().expect("valid");
        let day: Timestamp = "2026-01-10T06:30:00Z".parse().expect("valid");
        assert!(channel.is_quiet(night, 2) && !channel.is_quiet(night, 3));
        assert!(!channel.is_quiet(day, 1), "half past seven in Berlin");
    }

    #[test]
    fn secrets_are_not_shown_and_mistakes_are_named() {
        let slack = channel(json!({"kind": "slack", "url": "https://hooks.example/T0/secret"}));
        assert!(!slack.redacted().to_string().contains("T0"));
        let signed = channel(json!({"kind": "webhook", "url": "https://x.example", "secret": "s3"}));
        assert!(!signed.redacted().to_string().contains("s3"));
        for wrong in [
            json!({"kind": "webhook", "url": "ftp://x"}),
            json!({"kind": "webhook", "url": "https://x", "daily_at": "7 o'clock"}),
            json!({"kind": "webhook", "url": "https://x", "tz": "Mars"}),
            json!({"kind": "smtp", "host": "localhost", "from": "a@b.example", "to": ["nobody"]}),
        ] {
            assert!(channel(wrong.clone()).check().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_daily_time_comes_once() {
        let at = |text| time_of(text).expect("valid");
        assert!(is_between(at("06:59"), at("07:00"), at("07:00")));
        assert!(!is_between(at("07:00"), at("07:00"), at("07:01")));
        assert!(is_between(at("23:59"), at("00:00"), at("00:00")));
    }
}
