//! What is said: an incident's news, as people and as programs read it.

use rollcall_roll::{Incident, Notice};
use rollcall_types::{SiteId, Timestamp};
use serde_json::{Value, json};

/// Alertmanager takes silence for an end: what it is told lasts this long without HQ.
const ALERT_LASTS: i64 = 24 * 3_600_000_000;

/// What a channel is told.
#[derive(Debug, Clone)]
pub(crate) struct Telling {
    pub(super) incident: Incident,
    pub(super) notice: Notice,
    pub(super) level: u8,
    pub(super) lake_id: String,
}

impl Telling {
    pub(super) fn title(&self) -> String {
        let of_whom: Vec<&str> = self.incident.members.keys().map(SiteId::as_str).take(3).collect();
        let more = self.incident.members.len().saturating_sub(of_whom.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let what = match self.notice {
            Notice::Resolved => "over".to_owned(),
            Notice::Opened => format!("level {}", self.level),
            Notice::Again => format!("again, level {}", self.level),
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
        format!("[{what}] {}: {about}{cause}", self.incident.kind)
    }

    pub(super) fn text(&self) -> String {
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

    pub(super) fn json(&self) -> Value {
        json!({
            "incident": self.incident.id,
            "notice": self.notice,
            "level": self.level,
            "kind": self.incident.kind.to_string(),
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

    pub(super) fn alert(&self, now: Timestamp) -> Value {
        let is_over = self.notice == Notice::Resolved;
        let ends = if is_over { now } else { now.plus_micros(ALERT_LASTS) };
        let mut labels = json!({
            "alertname": "RollcallIncident",
            "incident": self.incident.id.to_string(),
            "kind": self.incident.kind.to_string(),
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

    pub(super) fn pagerduty(&self, routing_key: &str) -> Value {
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

pub(super) fn teams(title: &str, text: &str) -> Value {
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
