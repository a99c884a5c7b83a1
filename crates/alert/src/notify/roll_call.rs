//! The daily roll call: what one person reads in the morning to know whether yesterday's numbers
//! are whole.

use std::collections::BTreeMap;

use chrono::Days;
use chrono_tz::Tz;
use rollcall_registry::{RollEntry, Sites, roster::begin_of};
use rollcall_roll::{Incident, Kind};
use rollcall_types::{SiteState, Timestamp, roll_sentence};

use super::{
    news::{Hq, card, local},
    render::{Message, escape_html, html_page},
};
use rollcall_books::definitions::Arrived;

/// Sites, incidents and publications that are named.
const NAMED_MAX: usize = 20;
/// Groups of which yesterday's completeness is said: the worst of them.
const GROUPS_MAX: usize = 15;
const DAY_MICROS: i64 = 86_400_000_000;

/// What the roll call is made of.
pub(super) struct RollCall<'a> {
    pub(super) hq: &'a Hq,
    pub(super) roll: &'a [RollEntry],
    pub(super) incidents: &'a [Incident],
    pub(super) arrived: &'a [Arrived],
    pub(super) roster: &'a Sites,
    /// The attribute by which completeness is said.
    pub(super) group_by: &'a str,
    pub(super) now: Timestamp,
}

/// A heading and its lines.
type Part = (String, Vec<String>);

impl RollCall<'_> {
    /// For a reader in that zone.
    pub(super) fn message(&self, reader: Tz) -> Message {
        let expected: Vec<&RollEntry> = self.roll.iter().filter(|entry| entry.state != SiteState::Retired).collect();
        let sentence = roll_sentence(expected.iter().map(|entry| entry.state));
        let subject = format!("Roll call: {sentence}");
        let parts = [
            self.missing(&expected, reader),
            self.open(reader),
            self.not_arrived(reader),
            self.complete_yesterday(&expected, reader),
            self.changed(reader),
            self.outside_assumed_hours(&expected),
        ];
        let mut text = format!("{sentence}.\n");
        let mut html = format!("<p><b>{}.</b></p>", escape_html(&sentence));
        for (heading, lines) in parts.into_iter().filter(|(_, lines)| !lines.is_empty()) {
            text.push_str(&format!("\n{heading}\n"));
            let lines: Vec<String> = lines.iter().map(|line| line.replace('\n', " ")).collect();
            lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
            let items: String = lines.iter().map(|line| format!("<li>{}</li>", escape_html(line))).collect();
            html.push_str(&format!("<h3>{}</h3><ul>{items}</ul>", escape_html(&heading)));
        }
        let from = format!("{}, {}", self.hq.name, local(self.now, reader));
        text.push_str(&format!("\n{from}\n"));
        html.push_str(&format!("<p>{}</p>", escape_html(&from)));
        if let Some(link) = &self.hq.url {
            text.push_str(&format!("{link}\n"));
            html.push_str(&format!("<p><a href=\"{0}\">{0}</a></p>", escape_html(link)));
        }
        let html = html_page(&subject, &html);
        Message { subject, text, html }
    }

    /// Who is missing, the longest first.
    fn missing(&self, expected: &[&RollEntry], reader: Tz) -> Part {
        let mut missing: Vec<&&RollEntry> = expected.iter().filter(|entry| entry.state.is_finding()).collect();
        missing.sort_by_key(|entry| (entry.since, entry.site.clone()));
        let mut lines: Vec<String> = missing
            .iter()
            .take(NAMED_MAX)
            .map(|entry| {
                let since = entry
                    .since
                    .map_or_else(|| "never heard".to_owned(), |since| format!("since {}", self.age(since, reader)));
                let card = card(&entry.site, self.roster.get(&entry.site), self.now, self.now, None);
                let name = if card.name == entry.site.as_str() {
                    card.name
                } else {
                    format!("{} ({})", card.name, entry.site)
                };
                let city = card.city.map_or_else(String::new, |city| format!(", {city}"));
                let cause = entry.cause.map_or_else(String::new, |cause| format!(": {cause}"));
                let contact = card.contact.map_or_else(String::new, |contact| format!("; call {contact}"));
                format!("{name}{city}: {} {since}{cause}{contact}", entry.state)
            })
            .collect();
        more(&mut lines, missing.len());
        if lines.is_empty() {
            lines.push("Every site was heard, or is closed as expected.".to_owned());
            if expected.iter().any(|entry| entry.state == SiteState::OutsideAssumedHours) {
                lines[0] =
                    "Every site was heard, is closed as expected, or is quiet at hours that nobody declared (below)."
                        .to_owned();
            }
        }
        ("Who is missing, the longest first".to_owned(), lines)
    }

    /// What waits for somebody, the oldest first.
    fn open(&self, reader: Tz) -> Part {
        let is_told = |incident: &&Incident| incident.is_open() && incident.held_by.is_none() && incident.calls;
        let mut open: Vec<&Incident> = self.incidents.iter().filter(is_told).collect();
        open.sort_by_key(|incident| (incident.since, incident.id));
        let mut lines: Vec<String> = open
            .iter()
            .take(NAMED_MAX)
            .map(|incident| {
                let taken = match &incident.lease {
                    Some(lease) => format!("taken by {} until {}", lease.by, local(lease.until, reader)),
                    None => "nobody has taken it".to_owned(),
                };
                let (id, level, kind) = (incident.id, incident.level, incident.kind);
                format!(
                    "{id}, level {level}, {kind}, since {}: {} ({taken})",
                    self.age(incident.since, reader),
                    incident.evidence
                )
            })
            .collect();
        more(&mut lines, open.len());
        ("Open incidents, the oldest first".to_owned(), lines)
    }

    /// What HQ published and not every site has.
    fn not_arrived(&self, reader: Tz) -> Part {
        let late: Vec<&Arrived> = self.arrived.iter().filter(|arrived| arrived.have < arrived.audience).collect();
        let mut lines: Vec<String> = late
            .iter()
            .take(NAMED_MAX)
            .map(|arrived| {
                let (table, at) = (&arrived.publication.table, arrived.publication.at);
                format!("{table} of {}: {} of {} sites have it", self.age(at, reader), arrived.have, arrived.audience)
            })
            .collect();
        more(&mut lines, late.len());
        ("Published, and not everywhere yet".to_owned(), lines)
    }

    /// Of how many sites yesterday, by their own calendar, is complete, by group; groups that lack
    /// some come first.
    fn complete_yesterday(&self, expected: &[&RollEntry], reader: Tz) -> Part {
        let mut groups: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for entry in expected {
            let Some(record) = self.roster.get(&entry.site) else { continue };
            let zone = record.zone();
            let today = self.now.to_chrono().with_timezone(&zone).date_naive();
            let began = |day| begin_of(day, zone);
            // A site that was put on the roster today had no yesterday.
            let is_new = record.listed_at.zip(began(today)).is_some_and(|(listed, today)| listed >= today);
            if is_new {
                continue;
            }
            let (complete, all) = groups.entry(record.attributes.get(self.group_by).unwrap_or("-")).or_default();
            *all += 1;
            // Who said goodbye and has everything here has nothing more of yesterday.
            let is_closed = matches!(entry.state, SiteState::QuietExpected | SiteState::DeclaredClosed);
            let has_all = is_closed && entry.complete_through.is_some() && entry.unconfirmed_rows == 0;
            let is_complete =
                has_all || entry.complete_through.zip(began(today)).is_some_and(|(through, end)| through >= end);
            *complete += usize::from(is_complete);
        }
        let yesterday = self.now.to_chrono().with_timezone(&reader).date_naive().checked_sub_days(Days::new(1));
        let (complete, all) = groups.values().fold((0, 0), |sum, group| (sum.0 + group.0, sum.1 + group.1));
        if all == 0 {
            return (String::new(), Vec::new());
        }
        let mut sorted: Vec<(&str, (usize, usize))> = groups.into_iter().collect();
        sorted.sort_by(|(name, (has, of)), (other, (had, all))| (has * all).cmp(&(had * of)).then(name.cmp(other)));
        let mut lines = vec![format!("all: {complete} of {all} sites")];
        if sorted.len() > 1 {
            lines.extend(
                sorted
                    .iter()
                    .take(GROUPS_MAX)
                    .map(|(name, (has, of))| format!("{} {name}: {has} of {of}", self.group_by)),
            );
            if sorted.len() > GROUPS_MAX {
                lines.push(format!("and {} more groups, no worse than these", sorted.len() - GROUPS_MAX));
            }
        }
        let day = yesterday.map_or_else(String::new, |day| format!(" ({day}, by each site's own clock)"));
        (format!("Complete for yesterday{day}"), lines)
    }

    /// What began and what ended since this time yesterday.
    fn changed(&self, reader: Tz) -> Part {
        let day_ago = self.now.plus_micros(-DAY_MICROS);
        let is_told = |incident: &&Incident| !incident.was_held && !incident.told.is_empty();
        let line = |what: &str, at: Timestamp, incident: &Incident| {
            format!("{what} {}: {}, {}", local(at, reader), incident.kind, incident.evidence)
        };
        let mut lines = Vec::new();
        for incident in self.incidents.iter().filter(is_told) {
            if incident.opened_at > day_ago {
                lines.push((incident.opened_at, line("began", incident.opened_at, incident)));
            }
            if let Some(at) = incident.closed_at.filter(|at| *at > day_ago && incident.kind != Kind::Channel) {
                lines.push((at, line("over", at, incident)));
            }
        }
        lines.sort();
        let all = lines.len();
        let mut lines: Vec<String> = lines.into_iter().rev().take(NAMED_MAX).map(|(_, line)| line).collect();
        more(&mut lines, all);
        ("Since yesterday, the newest first".to_owned(), lines)
    }

    fn outside_assumed_hours(&self, expected: &[&RollEntry]) -> Part {
        let outside = expected.iter().filter(|entry| entry.state == SiteState::OutsideAssumedHours).count();
        let line = format!(
            "{outside} sites are quiet like most of their kind, without a goodbye. Nobody declared when they are open (hours in the \
             roster), and it is not learned yet: whether they are closed is not known."
        );
        ("Not known".to_owned(), if outside > 0 { vec![line] } else { Vec::new() })
    }

    /// When that was, and how long ago.
    fn age(&self, at: Timestamp, reader: Tz) -> String {
        let minutes = self.now.since(at).as_secs() / 60;
        let ago = match minutes {
            0..120 => format!("{minutes} minutes"),
            120..2880 => format!("{} hours", minutes / 60),
            _ => format!("{} days", minutes / 1440),
        };
        format!("{} ({ago})", local(at, reader))
    }
}

fn more(lines: &mut Vec<String>, all: usize) {
    if all > NAMED_MAX {
        lines.push(format!("and {} more", all - NAMED_MAX));
    }
}
