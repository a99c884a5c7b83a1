//! News as people read them: a subject that a phone's lock screen holds, text, HTML; and as
//! programs do.

use chrono_tz::Tz;
use rollcall_roll::{CONTACT, Kind, Notice};
use rollcall_types::Timestamp;
use serde_json::{Value, json};

use super::news::{News, SiteCard, local};

/// Alertmanager takes silence for an end: what it is told lasts this long without HQ.
const ALERT_LASTS: i64 = 24 * 3_600_000_000;
/// What a lock screen shows of a subject.
const SUBJECT_MAX: usize = 78;

/// A message, as written for one reader.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Message {
    /// What a list of messages and a lock screen show.
    pub subject: String,
    /// All of it, as plain text.
    pub text: String,
    /// All of it, as an HTML document.
    pub html: String,
}

impl Message {
    /// For a sign of life, which says nothing.
    pub(super) const EMPTY: Self = Self { subject: String::new(), text: String::new(), html: String::new() };
}

fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(max.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// Text in which nothing is a tag.
pub fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A whole document, as mail programs show it.
pub(super) fn html_page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html><head><meta charset=\"utf-8\"><title>{}</title></head><body style=\"font-family:sans-serif\">{body}</body></html>",
        escape_html(title)
    )
}

impl News {
    /// What has happened, for a lock screen: what matters most comes first.
    pub(super) fn subject(&self, zone: Tz) -> String {
        let since =
            self.since.to_chrono().with_timezone(&self.site_zone().unwrap_or(zone)).format("%H:%M %Z").to_string();
        let (is_over, source) = (self.notice == Notice::Resolved, &self.source);
        let state = match (source.kind, source.stream.as_deref()) {
            (Kind::Silence, Some(CONTACT) | None) if is_over => "is heard again".to_owned(),
            (Kind::Silence, Some(CONTACT) | None) => format!("not heard since {since}"),
            (Kind::Silence, Some(table)) if is_over => format!("{table} comes again"),
            (Kind::Silence, Some(table)) => format!("no {table} since {since}"),
            (Kind::Group, _) if is_over => "is heard again".to_owned(),
            (Kind::Group, _) => format!("{} sites not heard", self.absent),
            (Kind::NeverHeard, _) if !is_over => "never heard".to_owned(),
            (Kind::Condition(condition), _) => self.cause.clone().unwrap_or_else(|| condition.to_string()),
            (kind, _) => kind.to_string(),
        };
        let (before, after) = match self.notice {
            Notice::Resolved => ("Over: ", String::new()),
            Notice::Opened => ("", format!(" (level {})", self.level)),
            Notice::Again => ("Again: ", format!(" (level {})", self.level)),
            Notice::Louder => ("", format!(" (now level {})", self.level)),
            Notice::Repeated => ("Still: ", format!(" (level {})", self.level)),
            Notice::LeaseExpired => ("Not mended: ", format!(" (now level {})", self.level)),
        };
        let test = if self.is_test { "TEST " } else { "" };
        cut(&format!("{test}{before}{}: {state}{after}", cut(&self.about, 40)), SUBJECT_MAX)
    }

    /// A time in the sites' zone, and in the reader's where that is another.
    fn both(&self, at: Timestamp, reader: Tz) -> String {
        match self.site_zone() {
            Some(zone) if local(at, zone) != local(at, reader) => {
                format!("{}, that is {} for you", local(at, zone), local(at, reader))
            }
            _ => local(at, reader),
        }
    }

    fn describe_site(&self, site: &SiteCard, reader: Tz) -> String {
        let name =
            if site.name == site.id.as_str() { site.name.clone() } else { format!("{} ({})", site.name, site.id) };
        let city = site.city.as_ref().map_or_else(String::new, |city| format!(", {city}"));
        let hours = match site.hours_today.as_deref() {
            Some("closed") => "; closed today".to_owned(),
            Some(hours) => format!("; open today {hours}"),
            None => String::new(),
        };
        let contact = site.contact.as_ref().map_or_else(String::new, |contact| format!("; call {contact}"));
        let since = if self.sites_in_all > 1 {
            let zone = site.zone.parse().unwrap_or(reader);
            format!("; since {}", local(site.since, zone))
        } else {
            String::new()
        };
        format!("{name}{city}{hours}{contact}{since}")
    }

    /// Everything there is to say, by heading.
    fn facts(&self, reader: Tz) -> Vec<(&'static str, Vec<String>)> {
        let mut facts: Vec<(&'static str, Vec<String>)> = vec![("Since", vec![self.both(self.since, reader)])];
        if let Some(ending) = &self.ending {
            let at = self.source.closed_at.map_or_else(String::new, |at| format!("{}: ", self.both(at, reader)));
            facts.push(("Over", vec![format!("{at}{ending}")]));
        }
        let heading = if self.sites_in_all > 1 { "Sites" } else { "Site" };
        let mut sites: Vec<String> = self.sites.iter().map(|site| self.describe_site(site, reader)).collect();
        let named = if self.ending.is_some() { self.sites_in_all } else { self.absent };
        if named > self.sites.len() {
            sites.push(format!(
                "and {} more: rollcall incidents show {} --members",
                named - self.sites.len(),
                self.incident
            ));
        }
        facts.push((heading, sites));
        facts.push(("Costs", self.costs.iter().cloned().collect()));
        if self.evidence != self.what {
            facts.push(("Known", vec![self.evidence.clone()]));
        }
        if self.ending.is_none() {
            let cause = self.cause.as_ref().map_or_else(String::new, |cause| format!("{cause}. "));
            facts.push(("Likely", vec![format!("{cause}{}", self.likely)]));
            facts.push(("Check", self.check.clone()));
            facts.push(("Taken", self.taken_by.iter().cloned().collect()));
            facts.push(("Told", vec![self.also_told.join(", ")]));
            facts.push(("Next", vec![self.what_next(reader)]));
            facts.push(("Take it", vec![self.command.clone()]));
        }
        facts.push(("Page", self.link.iter().cloned().collect()));
        facts.push(("From", vec![format!("{}, lake {}", self.hq.name, self.hq.lake)]));
        facts.retain(|(_, lines)| lines.iter().any(|line| !line.is_empty()));
        facts
    }

    fn what_next(&self, reader: Tz) -> String {
        let repeats = match &self.source.lease {
            None => "It is said again until somebody takes it: first after 4 hours, then each day.".to_owned(),
            Some(lease) => format!("Who took it has until {}.", self.both(lease.until, reader)),
        };
        let Some(next) = &self.next else { return "It is said again each week, until it is over.".to_owned() };
        let then = match next.told_then.as_slice() {
            [] => String::new(),
            names => format!(", and {} hears of it", names.join(", ")),
        };
        format!("If it lasts until {}, it is level {}{then}. {repeats}", self.both(next.at, reader), next.level)
    }

    /// The message for a reader in that zone.
    pub(super) fn message(&self, reader: Tz) -> Message {
        let (subject, facts) = (self.subject(reader), self.facts(reader));
        let test = if self.is_test {
            "TEST of this channel, with a made-up incident. Nothing is wrong, and there is nothing to do.\n\n"
        } else {
            ""
        };
        let mut text = format!("{test}{}\n", self.what);
        for (heading, lines) in &facts {
            for (number, line) in lines.iter().enumerate() {
                let heading = if number == 0 { heading } else { "" };
                text.push_str(&format!("\n{heading:<8} {line}"));
            }
        }
        text.push('\n');
        let cell = |line: &String| match line.strip_prefix("https://").or_else(|| line.strip_prefix("http://")) {
            Some(_) => format!("<a href=\"{0}\">{0}</a>", escape_html(line)),
            None => escape_html(line),
        };
        let rows: String = facts
            .iter()
            .map(|(heading, lines)| {
                let lines: Vec<String> = lines.iter().map(cell).collect();
                format!(
                    "<tr><th align=\"left\" valign=\"top\" style=\"padding:2px 12px 2px 0\">{heading}</th><td style=\"padding:2px 0\">{}</td></tr>",
                    lines.join("<br>")
                )
            })
            .collect();
        let (said, what) = (escape_html(test).replace('\n', " "), escape_html(&self.what));
        let html = html_page(&subject, &format!("<p><b>{said}{what}</b></p><table>{rows}</table>"));
        Message { subject, text, html }
    }

    /// For programs. What was there before stays as it was.
    pub(super) fn json(&self, message: &Message) -> Value {
        let incident = &self.source;
        let mut value = json!({
            "incident": incident.id,
            "notice": self.notice,
            "level": self.level,
            "kind": self.kind,
            "stream": incident.stream,
            "sites": incident.members.keys().collect::<Vec<_>>(),
            "attribute": incident.attribute,
            "cause": incident.cause,
            "evidence": self.evidence,
            "since": self.since,
            "opened_at": incident.opened_at,
            "closed_at": incident.closed_at,
            "title": message.subject,
            "text": message.text,
            "news": self,
        });
        if self.is_test {
            value["test"] = true.into();
        }
        value
    }

    pub(super) fn alert(&self, message: &Message, now: Timestamp) -> Value {
        let is_over = self.notice == Notice::Resolved;
        let ends = if is_over { now } else { now.plus_micros(ALERT_LASTS) };
        let mut labels = json!({
            "alertname": if self.is_test { "RollcallTest" } else { "RollcallIncident" },
            "incident": self.incident.to_string(),
            "kind": self.kind,
            "lake": self.hq.lake,
        });
        if let (Some(site), 1) = (self.source.members.keys().next(), self.source.members.len()) {
            labels["site"] = site.as_str().into();
        }
        if let Some(attribute) = &self.source.attribute {
            labels["attribute"] = format!("{}={}", attribute.name, attribute.value).into();
        }
        let mut alert = json!({
            "labels": labels,
            // Levels change while the alert stays the same one, so they are no label.
            "annotations": {"summary": message.subject, "description": message.text, "level": self.level.to_string()},
            "startsAt": self.since,
            "endsAt": ends,
        });
        if let Some(link) = &self.link {
            alert["generatorURL"] = link.as_str().into();
        }
        json!([alert])
    }

    pub(super) fn pagerduty(&self, message: &Message, routing_key: &str) -> Value {
        let action = if self.notice == Notice::Resolved { "resolve" } else { "trigger" };
        let severity = match self.level {
            _ if self.is_test => "info",
            0 | 1 => "warning",
            2 | 3 => "error",
            _ => "critical",
        };
        let key = if self.is_test { "test".to_owned() } else { self.incident.to_string() };
        let mut event = json!({
            "routing_key": routing_key,
            "event_action": action,
            "dedup_key": format!("rollcall-{}-{key}", self.hq.lake),
            "client": self.hq.name,
            "payload": {
                "summary": message.subject,
                "source": self.hq.name,
                "component": self.about,
                "class": self.kind,
                "severity": severity,
                "timestamp": self.since,
                "custom_details": self.json(message),
            },
        });
        if let Some(link) = &self.link {
            event["client_url"] = link.as_str().into();
            event["links"] = json!([{"href": link, "text": "The incident at HQ"}]);
        }
        event
    }
}

/// Of Slack: what its markup takes for more than text is only text.
pub(super) fn slack(subject: &str, text: &str) -> Value {
    let plain = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({"text": format!("*{}*\n{}", plain(subject), plain(text))})
}

pub(super) fn teams(title: &str, text: &str, link: Option<&str>) -> Value {
    let block = |text: &str, weight: &str| json!({"type": "TextBlock", "text": text, "weight": weight, "wrap": true});
    // What a site said may be no link and no emphasis: only text. A single end of line is none in a
    // card.
    let plain = |text: &str| {
        let is_mark = |char: char| matches!(char, '[' | ']' | '(' | ')' | '*' | '_' | '`' | '\\' | '#' | '<' | '>');
        text.chars().fold(String::new(), |mut plain, char| {
            if is_mark(char) {
                plain.push('\\');
            }
            plain.push(char);
            plain
        })
    };
    let (title, paragraphs) = (plain(title), plain(text).replace('\n', "\n\n"));
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [block(&title, "bolder"), block(&paragraphs, "default")],
    });
    if let Some(link) = link {
        card["actions"] = json!([{"type": "Action.OpenUrl", "title": "The incident at HQ", "url": link}]);
    }
    json!({
        "type": "message",
        "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}],
    })
}
