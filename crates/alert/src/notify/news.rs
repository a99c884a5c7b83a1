//! What is known to be told of an incident: gathered once, then written for each channel and each
//! reader's zone.

use std::sync::Arc;

use chrono::{DateTime, Datelike};
use chrono_tz::Tz;
use rollcall_registry::{SiteRecord, Sites};
use rollcall_roll::{CONTACT, Condition, Hours, Incident, Kind, Notice};
use rollcall_types::{SiteId, TableName, Timestamp, counted};
use serde::Serialize;

use super::{advice, recipients};
use crate::alerts::Alerts;

/// Sites whose missing rows are worked out; of more, these stand for all.
const SITES_ASKED: usize = 200;
/// Sites that are described one by one.
pub(super) const SITES_MAX: usize = 10;

/// Which HQ it is.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Hq {
    /// As people call it.
    pub(super) name: String,
    pub(super) lake: String,
    /// Where people reach it, if that was said.
    pub(super) url: Option<String>,
}

impl Hq {
    pub(super) fn of(alerts: &Alerts) -> Self {
        Self {
            name: alerts.hq.name.clone().unwrap_or_else(|| "Rollcall HQ".to_owned()),
            lake: alerts.registry.lake.id().to_owned(),
            url: alerts.hq.public_url.as_ref().map(|url| url.trim_end_matches('/').to_owned()),
        }
    }
}

/// A site, as a person knows it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SiteCard {
    pub(super) id: SiteId,
    /// Its name in the roster, or its id.
    pub(super) name: String,
    pub(super) city: Option<String>,
    /// Whom to call there, with a number if the roster has one.
    pub(super) contact: Option<String>,
    /// Declared hours of today, in its own zone.
    pub(super) hours_today: Option<String>,
    pub(super) zone: String,
    pub(super) since: Timestamp,
    /// When it came back.
    pub(super) until: Option<Timestamp>,
}

/// What happens next if nobody acts.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Next {
    pub(super) level: u8,
    pub(super) at: Timestamp,
    /// Channels that hear of it then, and have not yet.
    pub(super) told_then: Vec<String>,
}

/// What is told of an incident.
#[derive(Debug, Clone, Serialize)]
pub(super) struct News {
    pub(super) hq: Hq,
    pub(super) incident: u64,
    pub(super) notice: Notice,
    pub(super) level: u8,
    pub(super) kind: String,
    pub(super) cause: Option<String>,
    /// Of whom or what it is.
    pub(super) about: String,
    /// What happened, in one sentence.
    pub(super) what: String,
    pub(super) evidence: String,
    pub(super) since: Timestamp,
    /// The worst sites; all of them are in `incident` of the API.
    pub(super) sites: Vec<SiteCard>,
    pub(super) sites_in_all: usize,
    pub(super) absent: usize,
    /// What it costs, by estimate.
    pub(super) costs: Option<String>,
    pub(super) likely: String,
    pub(super) check: Vec<String>,
    /// Channels that are told as well.
    pub(super) also_told: Vec<String>,
    /// Who took it.
    pub(super) taken_by: Option<String>,
    pub(super) next: Option<Next>,
    pub(super) command: String,
    /// Its page, if HQ's address for people was said.
    pub(super) link: Option<String>,
    /// Why it is over.
    pub(super) ending: Option<String>,
    /// Nothing happened: somebody tries the channel.
    pub(super) is_test: bool,
    #[serde(skip)]
    pub(super) source: Incident,
}

impl News {
    /// What is known of an incident now, but for what must be worked out.
    pub(super) fn brief(alerts: &Alerts, incident: &Incident, notice: Notice, level: u8, roster: &Sites) -> Self {
        Self::plain(Hq::of(alerts), incident, notice, level, roster, alerts.registry.now())
    }

    /// What is known of an incident now.
    pub(super) fn of(alerts: &Alerts, incident: &Incident, notice: Notice, level: u8, roster: &Sites) -> Self {
        let mut news = Self::brief(alerts, incident, notice, level, roster);
        let channels = alerts.notifiers.channels();
        news.also_told = recipients::channels_at(&channels, incident, level, roster);
        if incident.kind == Kind::Condition(Condition::Refused) {
            let refused = alerts.watching.watch().count_open(incident.kind);
            if refused > 1 {
                news.evidence.push_str(&format!(" ({refused} sites are refused now)"));
            }
        }
        if notice != Notice::Resolved {
            news.costs = costs(alerts, incident);
            let next = alerts.watching.watch().next_level(incident.id);
            news.next = next.map(|(level, at)| {
                let mut told_then = recipients::channels_at(&channels, incident, level, roster);
                told_then.retain(|name| !news.also_told.contains(name));
                Next { level, at, told_then }
            });
        }
        news
    }

    /// What the incident and the roster say alone.
    pub(super) fn plain(
        hq: Hq,
        incident: &Incident,
        notice: Notice,
        level: u8,
        roster: &Sites,
        now: Timestamp,
    ) -> Self {
        let advice = advice::of(incident);
        let sites = cards(incident, roster, now);
        let (about, absent) = (about(incident, &sites), incident.absent().count());
        let last = incident.timeline.last().map(|entry| entry.text.trim_start_matches("over: ").to_owned());
        Self {
            what: what(incident, &about, &sites, absent),
            link: hq.url.as_ref().map(|url| format!("{url}/incidents/{}", incident.id)),
            hq,
            incident: incident.id,
            notice,
            level,
            kind: incident.kind.to_string(),
            cause: incident.cause.map(|cause| cause.to_string()),
            about,
            evidence: incident.evidence.clone(),
            since: incident.since,
            sites,
            sites_in_all: incident.members.len(),
            absent,
            costs: None,
            likely: advice.likely.to_owned(),
            check: advice.check.iter().map(|text| (*text).to_owned()).collect(),
            also_told: Vec::new(),
            taken_by: incident.lease.as_ref().map(|lease| format!("{}: {}", lease.by, lease.reason)),
            next: None,
            command: format!("rollcall incidents ack {} --by YOU --reason \"…\"", incident.id),
            ending: last.filter(|_| notice == Notice::Resolved),
            is_test: false,
            source: incident.clone(),
        }
    }

    /// The zone in which most of its sites are: of one, its own.
    pub(super) fn site_zone(&self) -> Option<Tz> {
        let zone = &self.sites.first()?.zone;
        self.sites.iter().all(|site| site.zone == *zone).then(|| zone.parse().ok()).flatten()
    }
}

/// A time as people write it, in a zone.
pub(super) fn local(at: Timestamp, zone: Tz) -> String {
    at.to_chrono().with_timezone(&zone).format("%a %-d %b %H:%M %Z").to_string()
}

fn cards(incident: &Incident, roster: &Sites, now: Timestamp) -> Vec<SiteCard> {
    let is_over = !incident.is_open();
    let mut members: Vec<_> = incident.members.iter().filter(|(_, member)| is_over || member.until.is_none()).collect();
    members.sort_by_key(|(site, member)| (member.since, (*site).clone()));
    members.truncate(SITES_MAX);
    members.into_iter().map(|(site, member)| card(site, roster.get(site), now, member.since, member.until)).collect()
}

pub(super) fn card(
    site: &SiteId,
    record: Option<&Arc<SiteRecord>>,
    now: Timestamp,
    since: Timestamp,
    until: Option<Timestamp>,
) -> SiteCard {
    let value = |name: &str| record.and_then(|record| record.attributes.get(name)).filter(|value| !value.is_empty());
    let zone = record.map_or(Tz::UTC, |record| record.zone());
    let hours = value("hours").and_then(|hours| hours.parse::<Hours>().ok());
    let today = |hours: Hours| {
        let today: DateTime<Tz> = now.to_chrono().with_timezone(&zone);
        hours.of_day(today.weekday())
    };
    let contact = match (value("contact"), value("phone")) {
        (Some(contact), Some(phone)) => Some(format!("{contact}, {phone}")),
        (contact, phone) => contact.or(phone).map(str::to_owned),
    };
    SiteCard {
        id: site.clone(),
        name: value("name").unwrap_or(site.as_str()).to_owned(),
        city: value("city").map(str::to_owned),
        contact,
        hours_today: hours.map(today),
        zone: zone.name().to_owned(),
        since,
        until,
    }
}

/// Of whom or what an incident is, shortly.
fn about(incident: &Incident, sites: &[SiteCard]) -> String {
    if let Some(attribute) = &incident.attribute {
        return format!("{} ({})", attribute.value, attribute.name);
    }
    match (incident.kind, sites) {
        (Kind::HqBlind | Kind::Hq, _) => "HQ".to_owned(),
        (Kind::Channel | Kind::Publication, _) => incident.stream.clone().unwrap_or_default(),
        (_, []) => "HQ".to_owned(),
        (_, [one]) if incident.members.len() == 1 => one.name.clone(),
        (_, [first, ..]) => format!("{} and {} more", first.name, incident.members.len().saturating_sub(1)),
    }
}

/// What happened, in one sentence; in the past once it is over, for it ends in more than one way.
fn what(incident: &Incident, about: &str, sites: &[SiteCard], absent: usize) -> String {
    let place = match sites {
        [one] => one.city.as_ref().map_or_else(String::new, |city| format!(" in {city}")),
        _ => String::new(),
    };
    let is_over = !incident.is_open();
    let absent = if is_over { incident.members.len() } else { absent };
    let (site, sites, lines) = (format!("{about}{place}"), counted(absent, "site"), counted(absent, "line"));
    let (is, are) = if is_over { ("was", "were") } else { ("is", if absent == 1 { "is" } else { "are" }) };
    let table = incident.stream.as_deref();
    match incident.kind {
        Kind::Silence => match table.filter(|table| *table != CONTACT) {
            None => format!("{site} {is} not heard."),
            Some(table) if is_over => format!("{site} was heard, but sent no rows of {table}."),
            Some(table) => format!("{site} is heard, but sends no rows of {table}."),
        },
        Kind::Drop => {
            let sends = if is_over { "sent" } else { "sends" };
            format!("{site} {sends} far fewer rows of {} than usual.", table.unwrap_or("a table"))
        }
        Kind::Group if incident.attribute.is_some() => format!("{sites} that share {about} {are} not heard."),
        Kind::Group => format!("{sites} {are} not heard at once."),
        Kind::CohortQuiet => format!("{sites} {are} quiet where they should be open."),
        Kind::NeverHeard => format!("{site} was never heard."),
        Kind::HqBlind if is_over => "HQ itself could not hear.".to_owned(),
        Kind::HqBlind => "HQ itself cannot hear.".to_owned(),
        Kind::Chronic if is_over => format!("{lines} failed again and again."),
        Kind::Chronic => format!("{lines} fail again and again."),
        Kind::Publication => {
            let have = if is_over { "had" } else { "have" };
            format!("{sites} {have} not taken {}.", table.unwrap_or("what HQ published"))
        }
        Kind::Channel => {
            let can = if is_over { "could" } else { "can" };
            format!("People {can} not be told by {}.", table.unwrap_or("a channel"))
        }
        Kind::Condition(_) | Kind::Hq => incident.evidence.clone(),
    }
}

/// What is missing by estimate: rows, and what they are worth where a measure was declared.
fn costs(alerts: &Alerts, incident: &Incident) -> Option<String> {
    if !matches!(incident.kind, Kind::Silence | Kind::Group | Kind::CohortQuiet) {
        return None;
    }
    let mut of_tables: Vec<(TableName, f64, f64)> = Vec::new();
    // Of many, some stand for all: the watch is held meanwhile.
    let absent: Vec<_> = incident.absent().collect();
    let asked = absent.len().min(SITES_ASKED);
    let scale = absent.len() as f64 / asked.max(1) as f64;
    let step = (absent.len() / asked.max(1)).max(1);
    let watch = alerts.watching.watch();
    for table in alerts.registry.lake.shown_tables().into_keys() {
        let (mut rows, mut worth) = (0.0, 0.0);
        for (site, member) in absent.iter().step_by(step).take(asked) {
            let Some(expected) = watch.expected_rows(site, table.as_str(), member.since, alerts.registry.now()) else {
                continue;
            };
            rows += expected;
            worth += alerts.books.worths.of_row(&table, site).map_or(0.0, |worth| worth.mean * expected);
        }
        of_tables.push((table, rows * scale, worth * scale));
    }
    drop(watch);
    // What has a worth says most, then what has most rows.
    of_tables.sort_by(|a, b| b.2.total_cmp(&a.2).then(b.1.total_cmp(&a.1)));
    let (table, rows, worth) = of_tables.first().filter(|(_, rows, _)| *rows >= 0.5)?;
    let worth = if *worth > 0.0 { format!(", worth about {worth:.0}") } else { String::new() };
    Some(format!("By estimate {rows:.0} rows of {table} should have come since{worth}."))
}
