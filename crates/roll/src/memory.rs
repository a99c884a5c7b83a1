//! What the watch learns, and what of it outlasts a restart of HQ.

use std::{collections::BTreeMap, sync::Arc};

use rollcall_types::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    incident::{Incident, Kind},
    learn::{Family, Past},
    shape::Unit,
    site::CONTACT,
    sites::SiteNumber,
    stream::{Loudness, StreamId},
    watch::{Watch, instant, seconds},
};

/// What survives a restart of HQ, for one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// Contact and tables.
    pub streams: Vec<RememberedStream>,
    /// Whether it is excused, and until when.
    pub excused_until: Option<Timestamp>,
    /// What HQ saw of it itself; see [`Watch::observe`].
    #[serde(default)]
    pub observed: BTreeMap<String, String>,
    /// The days of Unix time on which it fell silent, of the last two weeks.
    #[serde(default)]
    pub silences: Vec<i64>,
}

/// What survives of one stream. (Kept as a list of values at first, so that fields are only added
/// at the end.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RememberedStream {
    /// `contact`, or a table.
    pub name: String,
    /// When it was heard last.
    pub last: Timestamp,
    /// What it did.
    pub past: Option<Past>,
    /// μ, and when that was: a weekend that the cohort explains must not be counted anew in full.
    #[serde(default)]
    pub expected: Option<(f64, Timestamp)>,
}

impl Watch {
    /// Learns what the last hours taught: every hour from young streams, every day from all.
    pub(crate) fn learn(&mut self, now: i64) {
        self.learned_hour = now.div_euclid(3600);
        let day = now.div_euclid(86_400);
        let day_before = std::mem::replace(&mut self.learned_day, day);
        let is_new_day = day > day_before;
        if is_new_day {
            let days = (day - day_before) as f64;
            for stream in self.streams.all() {
                self.learn_stream(stream);
                if let Some(past) = self.streams.past_mut(stream) {
                    past.fade(days);
                }
            }
            self.learn_families();
        }
        for stream in self.streams.all() {
            let is_young = self.streams.past(stream).is_some_and(|past| now - past.born < 2 * 86_400);
            if is_new_day || is_young {
                if !is_new_day {
                    self.learn_stream(stream);
                }
                self.repace(stream);
            }
        }
        if is_new_day {
            self.clock.recount();
            self.tune_on_new_day(day_before, day);
            self.find_chronic(day, instant(now));
        }
    }

    fn learn_stream(&mut self, stream: StreamId) {
        let last = self.clock.last(stream);
        let calendar = self.clock.calendar(self.sites[self.streams.site(stream)].calendar);
        if let Some(past) = self.streams.past_mut(stream) {
            past.learn(calendar, last);
        }
    }

    pub(crate) fn learn_families(&mut self) {
        let Self { streams, cohorts, clock, .. } = self;
        let pasts = streams.all().filter_map(|stream| Some((stream, streams.past(stream)?)));
        cohorts.learn(pasts, self.config.learns, self.now, clock);
    }

    /// The family of a table as it would be if all its sites were open when this one is, by its
    /// contact.
    fn while_open(&self, number: SiteNumber, family: &Family) -> Option<Family> {
        let contact = self.contact(number).filter(|_| family.unit == Unit::Rows && family.learned)?;
        let past = self.streams.past(contact)?;
        let of_contact = self.cohorts.family(self.family_of(contact));
        if past.hours() < 48.0 || !of_contact.learned {
            return None;
        }
        let own = self.own_shape(contact).map(|shape| self.clock.shape(shape))?;
        let shape = Arc::new(family.shape.while_open(own, &of_contact.shape));
        Some(Family { shape, ..family.clone() })
    }

    /// Gives a stream the pace its past teaches.
    pub(crate) fn repace(&mut self, stream: StreamId) {
        let (Some(past), number) = (self.streams.past(stream), self.streams.site(stream)) else { return };
        let family = self.cohorts.family(self.family_of(stream));
        let calendar = self.clock.calendar(self.sites[number].calendar);
        let open = self.while_open(number, family);
        let learned = past.pace(open.as_ref().unwrap_or(family), calendar);
        let shape = match self.own_shape(stream) {
            Some(own) => {
                self.clock.set_shape(own, learned.shape.clone());
                own
            }
            None => self.clock.add_shape(learned.shape.clone()),
        };
        self.clock.set_pace(stream, learned.pace(shape));
    }

    /// What must be kept of a site.
    pub fn remember(&self, id: &SiteId) -> Option<Remembered> {
        let number = self.number(id)?;
        let site = &self.sites[number];
        let streams = site.streams.iter().map(|stream| {
            let stands = self.clock.measure(*stream, self.now);
            RememberedStream {
                name: self.streams.name(*stream).to_owned(),
                last: instant(stands.last),
                past: self.streams.past(*stream).cloned(),
                expected: Some((stands.expected, instant(self.now))),
            }
        });
        let excused_until = site.said_goodbye.then(|| instant(site.excused_until));
        let observed = site.observed().iter().map(|shared| self.sites.traits.get(*shared).clone());
        Some(Remembered {
            streams: streams.collect(),
            excused_until,
            observed: observed.collect(),
            silences: site.trouble().silences.clone(),
        })
    }

    /// Takes what was kept, before the first tick. What was missed up to the watch's last tick is
    /// counted again.
    pub fn restore(&mut self, id: &SiteId, remembered: Remembered) {
        let Some(number) = self.number(id) else { return };
        let excused = remembered.excused_until.map_or(0, seconds);
        self.observe(id, &remembered.observed);
        if !remembered.silences.is_empty() {
            self.sites[number].trouble_mut().silences = remembered.silences;
        }
        for RememberedStream { name, last, past, expected } in remembered.streams {
            let last = seconds(last);
            let stream = self.add_stream(number, &name, last, past);
            let from = last.max(excused.min(self.now));
            let (expected, from) = match expected.map(|(expected, at)| (expected, seconds(at))) {
                Some((expected, at)) if at >= from => (expected, at),
                _ => (0.0, from),
            };
            self.clock.missed(stream, expected, from);
            if excused > self.now {
                self.clock.excuse(stream, excused);
            }
        }
        let site = &mut self.sites[number];
        (site.excused_until, site.said_goodbye) = (excused, remembered.excused_until.is_some());
    }

    /// Takes when a site was heard last, and whether it said goodbye then. What the watch itself
    /// keeps is stored less often, and may know nothing of that yet. To be called after
    /// [`Self::restore`].
    pub fn restore_heard(&mut self, id: &SiteId, last_heard: Timestamp, said_goodbye: bool) {
        let Some(number) = self.number(id) else { return };
        let at = seconds(last_heard);
        let contact = match self.contact(number) {
            None => {
                if self.incident_of(number).is_some_and(|incident| incident.kind == Kind::NeverHeard) {
                    self.first_heard(number, last_heard);
                }
                self.add_stream(number, CONTACT, at, None)
            }
            Some(contact) if at > self.clock.last(contact) => {
                let before = self.clock.last(contact);
                self.clock.event(contact, at, 1.0);
                if let Some(past) = self.streams.past_mut(contact) {
                    // It was heard meanwhile, and how often is not kept.
                    past.was_outage(before, at);
                }
                contact
            }
            Some(_) => return,
        };
        let mut missed_from = at;
        if said_goodbye {
            self.goodbye(id, last_heard);
            missed_from = self.sites[number].excused_until;
        }
        if missed_from < self.now {
            self.clock.missed(contact, 0.0, missed_from);
        }
    }

    /// Everything was restored: what sites of a kind teach each other is worked out again.
    pub fn restored(&mut self) {
        self.learn_families();
        for stream in self.streams.all() {
            self.repace(stream);
        }
        // Which cohorts a question was about is not kept; it is asked again if they are quiet
        // still.
        let questions = self.incidents.open().filter(|incident| incident.kind == Kind::CohortQuiet);
        for id in questions.map(|incident| incident.id).collect::<Vec<u64>>() {
            self.release(id);
            self.incidents.close(id, "HQ started anew", instant(self.now));
        }
    }

    /// Numbers new incidents from here on, or higher.
    pub fn number_incidents_from(&mut self, number: u64) {
        self.incidents.number_from(number);
    }

    /// Takes incidents that were kept, before the first tick.
    pub fn restore_incident(&mut self, mut incident: Incident) {
        if incident.told_level == 0 && !incident.told.is_empty() && incident.reopened_at.is_none() {
            // Kept before the level told was.
            incident.told_level = incident.level;
        }
        if let Some(shared) = incident.attribute.clone().filter(|_| incident.is_open()) {
            // Nobody need have it any more, and the group must end all the same.
            self.sites.traits.number((shared.name, shared.value));
        }
        if incident.is_open() {
            for id in incident.members.keys() {
                let Some(number) = self.number(id) else { continue };
                let site = &mut self.sites[number];
                match incident.kind {
                    Kind::Silence | Kind::NeverHeard | Kind::Drop => site.trouble_mut().incident = Some(incident.id),
                    Kind::Condition(condition) => {
                        site.trouble_mut().conditions.insert(condition, incident.id);
                    }
                    Kind::Chronic if incident.members[id].until.is_none() => {
                        self.sites.chronic.insert(number);
                    }
                    Kind::Chronic => {}
                    Kind::Group | Kind::CohortQuiet | Kind::HqBlind | Kind::Channel | Kind::Publication | Kind::Hq => {}
                }
            }
        }
        self.incidents.restore(incident);
    }

    /// Takes the incidents that another node kept in the place of its own: this watch heard what
    /// that one heard, but only one of them tells people. What this one knows to be wrong and that
    /// one did not come to store is opened anew.
    pub fn adopt_incidents(&mut self, kept: impl IntoIterator<Item = Incident>) {
        let own = self.incidents.take_all();
        self.groups.questions.clear();
        self.sites.recovering.clear();
        self.sites.chronic.clear();
        for (_, site) in self.sites.iter_mut() {
            site.forget_incidents();
        }
        for incident in kept {
            self.restore_incident(incident);
        }
        self.restored();
        let now = instant(self.now);
        for incident in own.into_iter().filter(Incident::is_open) {
            let site = incident.members.keys().next().cloned();
            match (incident.kind, site) {
                (Kind::Condition(condition), Some(site)) => {
                    self.set_condition(&site, condition, Some(&incident.evidence), now);
                }
                (Kind::NeverHeard, Some(site)) => {
                    if let Some(number) = self.number(&site) {
                        self.sites.awaits(number, self.now);
                    }
                }
                _ => {}
            }
        }
        let quiet: Vec<(SiteNumber, StreamId)> = self.groups.quiet().collect();
        for (number, stream) in quiet {
            let loudness = self.clock.measure(stream, self.now).loudness;
            if loudness >= Loudness::Red && self.sites[number].trouble().incident.is_none() {
                self.silent(number, stream, loudness, self.now);
            }
        }
        // This HQ can hear, whatever the one before could.
        let blind = self.incidents.open_of(Kind::HqBlind);
        if let (Some(blind), None) = (blind, self.guard.deaf()) {
            self.incidents.close(blind, "HQ hears again", now);
        }
        self.groups.look_again();
    }
}
