//! A way to tell people: what it is told, when, and what of it is secret.

use std::collections::BTreeMap;

use chrono::{NaiveTime, TimeZone, Timelike};
use chrono_tz::Tz;
use lettre::message::Mailbox;
use rollcall_registry::{HqError, Sites};
use rollcall_roll::{Incident, Kind};
use rollcall_types::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    recipients::{column_of, is_by_columns},
    template::Template,
};

pub(super) const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";

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
    /// Its own words in the place of the built-in ones; for mail, Slack and Teams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// When it was set, by HQ's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_at: Option<Timestamp>,
}

fn one() -> u8 {
    1
}

/// `HH:MM`.
type NaiveTimeText = String;

/// When a channel must not be disturbed for low levels; what it missed it hears afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
        /// For `X-Rollcall-Signature`: HMAC-SHA256 over the timestamp header, a dot and the body,
        /// in hex.
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
    /// The recipients: addresses, or `{column}` for what the roster says there of the site that it
    /// is about.
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

impl How {
    /// The kind, as it is written.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Smtp(_) => "smtp",
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::Teams { .. } => "teams",
            Self::Pagerduty { .. } => "pagerduty",
            Self::Alertmanager { .. } => "alertmanager",
            Self::DeadMan { .. } => "dead-man",
        }
    }
}

/// What any channel may say; what its kind has besides is in its description as it is written.
const KEYS: [&str; 6] = ["min_level", "match", "quiet", "daily_at", "tz", "template"];

pub(super) fn time_of(text: &str) -> Result<NaiveTime, HqError> {
    NaiveTime::parse_from_str(text, "%H:%M")
        .map_err(|_| HqError::Invalid(format!("{text:?} is not a time such as 07:30")))
}

impl Channel {
    pub(super) fn check(&self) -> Result<(), HqError> {
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
        if let Some(template) = &self.template {
            template.check().map_err(HqError::Invalid)?;
        }
        if !(1..=5).contains(&self.min_level) {
            return Err(HqError::Invalid(format!("min_level is 1 to 5, not {}", self.min_level)));
        }
        let url = match &self.how {
            How::Webhook { url, .. }
            | How::Slack { url }
            | How::Teams { url }
            | How::Alertmanager { url }
            | How::DeadMan { url } => url.as_str(),
            How::Pagerduty { url, .. } => url.as_deref().unwrap_or(PAGERDUTY_URL),
            How::Smtp(mail) => {
                let fixed = mail.to.iter().filter(|address| column_of(address).is_none());
                if self.daily_at.is_some() && is_by_columns(&self.how) {
                    let text =
                        "the daily roll call is about all sites: it needs an address that is no column of the roster";
                    return Err(HqError::Invalid(text.to_owned()));
                }
                for address in fixed.chain([&mail.from]) {
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

    /// From a description. A key that no channel of its kind has is an error: what it was to say
    /// would not be done.
    pub fn read(text: &Value) -> Result<Self, HqError> {
        let channel: Self = serde_json::from_value(text.clone())
            .map_err(|error| HqError::Invalid(format!("this describes no channel: {error}")))?;
        let written = serde_json::to_value(&channel).unwrap_or_default();
        let known = |name: &str| KEYS.contains(&name) || written.get(name).is_some();
        let unknown = text.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).find(|name| !known(name));
        if let Some(name) = unknown {
            let mut keys: Vec<&str> =
                written.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            keys.extend(KEYS.iter().filter(|key| !keys.contains(key)).copied().collect::<Vec<&str>>());
            keys.sort_unstable();
            let kind = channel.how.name();
            return Err(HqError::Invalid(format!(
                "a channel of kind {kind} has no {name:?}; it has {}",
                keys.join(", ")
            )));
        }
        Ok(channel)
    }

    pub(super) fn zone(&self) -> Tz {
        self.tz.as_ref().and_then(|tz| tz.parse().ok()).unwrap_or(Tz::UTC)
    }

    pub(super) fn local(&self, now: Timestamp) -> NaiveTime {
        let local = self.zone().from_utc_datetime(&now.to_chrono().naive_utc());
        NaiveTime::from_hms_opt(local.hour(), local.minute(), 0).unwrap_or_default()
    }

    /// Whether it must be left alone now.
    pub(super) fn is_quiet(&self, now: Timestamp, level: u8) -> bool {
        let Some(quiet) = self.quiet.as_ref().filter(|_| level <= QUIET_LEVEL_MAX) else { return false };
        let (Ok(from), Ok(to)) = (time_of(&quiet.from), time_of(&quiet.to)) else { return false };
        let local = self.local(now);
        if from <= to { (from..to).contains(&local) } else { local >= from || local < to }
    }

    /// Whether an incident is for this channel.
    pub(super) fn wants(&self, incident: &Incident, level: u8, roster: &Sites) -> bool {
        self.hears_of(incident, level, |site, name| roster.get(site)?.attributes.get(name).map(str::to_owned))
    }

    /// The same, where `attribute` says what a site's attribute of a name is.
    pub fn hears_of(
        &self,
        incident: &Incident,
        level: u8,
        attribute: impl Fn(&SiteId, &str) -> Option<String>,
    ) -> bool {
        if matches!(self.how, How::DeadMan { .. }) || level < self.min_level {
            return false;
        }
        if incident.members.is_empty() && is_by_columns(&self.how) {
            return false;
        }
        let has = |site: &SiteId| {
            self.matching.iter().all(|(name, value)| attribute(site, name).as_deref() == Some(value.as_str()))
        };
        self.matching.is_empty()
            || matches!(incident.kind, Kind::HqBlind | Kind::Channel | Kind::Hq)
            || incident.members.keys().any(has)
    }

    /// The channel without what must not be shown.
    pub fn redacted(&self) -> Value {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn channel(text: Value) -> Channel {
        serde_json::from_value(text).expect("a channel")
    }

    #[test]
    fn a_misspelt_key_is_an_error_that_names_the_right_ones() {
        let error =
            Channel::read(&json!({"kind": "slack", "url": "https://x.example", "min_levle": 3})).expect_err("misspelt");
        assert!(error.to_string().contains("min_levle") && error.to_string().contains("min_level"), "{error}");
        let quiet = json!({"kind": "slack", "url": "https://x.example", "quiet": {"form": "22:00", "to": "07:00"}});
        assert!(Channel::read(&quiet).is_err());
        for right in [
            json!({"kind": "smtp", "host": "h", "from": "a@b.example", "to": ["{district_mail}"], "tls": "none"}),
            json!({"kind": "pagerduty", "routing_key": "k", "match": {}, "template": {"subject": "x"}}),
            json!({"kind": "webhook", "url": "https://x.example", "secret": "s", "quiet": null}),
        ] {
            assert!(Channel::read(&right).is_ok_and(|channel| channel.check().is_ok()), "{right}");
        }
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
            json!({"kind": "smtp", "host": "localhost", "from": "{mail}", "to": ["a@b.example"]}),
            json!({"kind": "smtp", "host": "localhost", "from": "a@b.example", "to": ["{mail}"], "daily_at": "07:00"}),
        ] {
            assert!(channel(wrong.clone()).check().is_err(), "{wrong}");
        }
    }
}
