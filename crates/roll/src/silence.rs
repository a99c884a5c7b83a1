//! A site's own silence: opens its incident, takes up the one it relapses into, and says what is
//! missing.

use rollcall_types::{Cause, Timestamp};

use crate::{
    incident::{Incident, Kind, Member},
    site::CONTACT,
    sites::SiteNumber,
    stream::{Loudness, Measure, StreamId},
    watch::{Watch, instant},
};

/// A stream that was learned from for less than that goes by its family, hours.
const YOUNG_HOURS: f32 = 48.0;

impl Watch {
    /// A stream is red or louder.
    pub(crate) fn silent(&mut self, number: SiteNumber, stream: StreamId, loudness: Loudness, at: i64) {
        let contact = self.contact(number);
        let name = self.streams.name(stream).to_owned();
        // A site that is not heard sends no rows either: contact says it, sooner and better.
        let contact_quiet = contact
            .is_some_and(|contact| contact != stream && self.clock.measure(contact, at).loudness >= Loudness::Suspect);
        if contact_quiet {
            return;
        }
        let measure = self.clock.measure(stream, at);
        let now = instant(at);
        let id = match self.sites[number].trouble().incident {
            Some(id) => id,
            None => self.open_silence(number, &name, &measure, now),
        };
        let is_relapse = self.sites[number].take_back_since().is_some();
        self.sites.recovering.remove(&number);
        let (unit, per_event) = match name.as_str() {
            CONTACT if self.config.contact_unit >= 60 => ("minutes of contact".to_owned(), 1.0),
            CONTACT => ("signs of life".to_owned(), 1.0),
            table => (format!("rows of {table}"), f64::from(self.clock.pace(stream).rows_per_event)),
        };
        if is_relapse {
            self.fell(number, id, &name, &measure);
        }
        let longest = self.streams.past(stream).map_or(0.0, |past| past.longest_gap());
        let site = self.sites[number].id.clone();
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        if is_relapse {
            incident.reopened_at = Some(now);
        }
        let member =
            incident.members.entry(site.clone()).or_insert(Member { since: instant(measure.last), until: None });
        if member.until.take().is_some() || is_relapse {
            member.since = instant(measure.last);
        }
        // One that is no shorter would only speak against the alarm, and one of less than one row
        // says nothing.
        let worst = if longest * per_event >= 0.5 && longest < measure.expected {
            format!("; its worst healthy silence was {:.0}", longest * per_event)
        } else {
            String::new()
        };
        let is_young = self.streams.past(stream).is_some_and(|past| past.hours() < YOUNG_HOURS);
        let by_whom = if is_young { ", by what is usual at sites like it" } else { "" };
        let text = format!(
            "{:.0} {unit} should have come from {site} since {}{by_whom}{worst}",
            measure.expected * per_event,
            instant(measure.last).for_people()
        );
        if incident.evidence.is_empty() {
            incident.evidence.clone_from(&text);
        }
        if loudness == Loudness::Page && !incident.calls {
            incident.calls = true;
            incident.tell(now, text);
        } else if loudness == Loudness::Red {
            incident.tell(now, text);
        }
        self.incidents.note(id);
        if !self.clock.is_alone(stream) {
            self.quiet_with_cohort(id, number, stream, now);
        }
    }

    /// Opens an incident for a site's silence, or takes up the one it relapses into.
    fn open_silence(&mut self, number: SiteNumber, stream: &str, measure: &Measure, now: Timestamp) -> u64 {
        let site = self.sites[number].id.clone();
        let recent = self.incidents.values().rev().find(|incident| {
            incident.kind == Kind::Silence && incident.members.contains_key(&site) && incident.is_recent(now)
        });
        let id = match recent.map(|incident| incident.id) {
            Some(id) => {
                self.incidents.reopen(id, now, &format!("{stream} is silent"));
                id
            }
            None => self.incidents.add(Kind::Silence, instant(measure.last), now),
        };
        self.fell(number, id, stream, measure);
        self.sites[number].trouble_mut().incident = Some(id);
        // Of everybody only those count that have one.
        self.groups.look_again();
        let is_chronic = self.sites.chronic.contains(&number);
        let is_of_it = |group: &&Incident| {
            group.kind == Kind::Group && group.members.get(&site).is_some_and(|member| member.until.is_none())
        };
        let group = self.incidents.open().find(is_of_it).map(|group| group.id);
        if let Some(incident) = self.incidents.get_mut(&id) {
            (incident.held_by, incident.was_held) = (group, incident.was_held || group.is_some());
            // What was missed until now the clock knows best: it stood still while nobody could be
            // missed.
            incident.missed_minutes += measure.missed_minutes;
            incident.counted_to = now;
            incident.is_chronic = is_chronic;
        }
        id
    }

    /// What an incident says of a fall is said of the last one: since when, what is missing, and
    /// what is likely. The story keeps those before.
    fn fell(&mut self, number: SiteNumber, id: u64, stream: &str, measure: &Measure) {
        let is_contact = stream == CONTACT || self.contact(number).is_none();
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        incident.stream = Some(stream.to_owned());
        incident.since = instant(measure.last);
        incident.cause = Some(if is_contact { Cause::PowerOrLink } else { Cause::NoFlow });
        incident.evidence.clear();
    }

    pub(crate) fn dropped(&mut self, number: SiteNumber, stream: StreamId, at: i64) {
        if self.sites[number].trouble().incident.is_some() {
            return;
        }
        let (name, site) = (self.streams.name(stream).to_owned(), self.sites[number].id.clone());
        let id = self.incidents.add(Kind::Drop, instant(at), instant(at));
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.stream = Some(name.clone());
            incident.cause = Some(Cause::NoFlow);
            incident.evidence = format!("rows of {name} from {site} fell to less than half of what is usual");
            incident.members.insert(site, Member { since: instant(at), until: None });
        }
        self.sites[number].trouble_mut().incident = Some(id);
        self.incidents.note(id);
    }
}
