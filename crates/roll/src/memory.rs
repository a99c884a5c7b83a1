//! What the watch learns, and what of it outlasts a restart of HQ.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use rollcall_types::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    incident::{Incident, Kind},
    learn::{Family, Past},
    shape::Unit,
    stream::{Loudness, StreamId},
    watch::{KNOWN_AFTER, Watch, instant, seconds},
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

/// What survives of one stream. (Kept as a list of values at first, so that fields are only added at the end.)
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
            for index in 0..self.pasts.len() {
                self.learn_stream(index);
                if let Some(past) = &mut self.pasts[index] {
                    past.fade(days);
                }
            }
            self.learn_families();
        }
        for index in 0..self.pasts.len() {
            let is_young = self.pasts[index].as_ref().is_some_and(|past| now - past.born < 2 * 86_400);
            if is_new_day || is_young {
                if !is_new_day {
                    self.learn_stream(index);
                }
                self.repace(StreamId(index as u32));
            }
        }
        if is_new_day {
            self.clock.recount();
            self.tune_on_new_day(day_before, day);
            self.find_chronic(day, instant(now));
        }
    }

    fn learn_stream(&mut self, index: usize) {
        let last = self.clock.last(StreamId(index as u32));
        let calendar = self.clock.calendar(self.sites[self.owners[index].site as usize].calendar);
        if let Some(past) = &mut self.pasts[index] {
            past.learn(calendar, last);
        }
    }

    pub(crate) fn learn_families(&mut self) {
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); self.family_names.len()];
        for stream in 0..self.pasts.len() as u32 {
            members[self.family_of(StreamId(stream))].push(stream);
        }
        self.find_known();
        for (key, members) in self.family_names.iter().zip(members) {
            if let Some(family) = self.families.get_mut(key) {
                family.learn(members.into_iter().filter_map(|stream| self.pasts[stream as usize].as_deref()));
                for (shape_key, shape) in &self.shapes {
                    if let Some(hours) = shape_key.strip_prefix(&format!("{key}|")) {
                        let within = hours.parse().ok().map(|hours| Arc::new(family.shape.within(&hours)));
                        self.clock.set_shape(*shape, within.unwrap_or_else(|| family.shape.clone()));
                    }
                }
            }
        }
    }

    /// Which cohorts' hours are known by now: declared ones, and those of families that were heard for long enough.
    fn find_known(&mut self) {
        let mut born: Vec<Option<i64>> = vec![None; self.family_names.len()];
        for stream in 0..self.pasts.len() {
            let Some(past) = self.pasts[stream].as_deref() else { continue };
            let first = &mut born[self.family_of(StreamId(stream as u32))];
            *first = Some(first.map_or(past.born, |first| first.min(past.born)));
        }
        for ((key, zone), cohort) in &self.cohorts {
            let Some(family) = self.family_names.iter().position(|known| known == key) else { continue };
            let is_known = born[family].is_some_and(|born| self.now - born >= KNOWN_AFTER);
            let is_contact = self.families.get(key).is_some_and(|family| family.unit == Unit::ContactMinutes);
            let is_declared = !zone.ends_with('|');
            self.clock.set_assumed(*cohort, self.config.learns && is_contact && !is_declared && !is_known);
        }
    }

    /// The family of a table as it would be if all its sites were open when this one is, by its contact.
    fn while_open(&self, number: u32, family: &Family) -> Option<Family> {
        let contact = self.contact(number).filter(|_| family.unit == Unit::Rows && family.learned)?;
        let past = self.pasts[contact.0 as usize].as_ref()?;
        let of_contact = &self.families[&self.family_names[self.family_of(contact)]];
        if past.hours() < 48.0 || !of_contact.learned {
            return None;
        }
        let own = self.own_shape(contact).map(|shape| self.clock.shape(shape))?;
        let shape = Arc::new(family.shape.while_open(own, &of_contact.shape));
        Some(Family { shape, ..family.clone() })
    }

    /// Gives a stream the pace its past teaches.
    pub(crate) fn repace(&mut self, stream: StreamId) {
        let index = stream.0 as usize;
        let Some(past) = self.pasts[index].as_deref() else { return };
        let family = &self.families[&self.family_names[self.family_of(stream)]];
        let calendar = self.clock.calendar(self.sites[self.owners[index].site as usize].calendar);
        let open = self.while_open(self.owners[index].site, family);
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
        let site = &self.sites[number as usize];
        let streams = site.streams.iter().map(|stream| {
            let stands = self.clock.measure(*stream, self.now);
            RememberedStream {
                name: self.name(*stream).to_owned(),
                last: instant(stands.last),
                past: self.pasts[stream.0 as usize].as_deref().cloned(),
                expected: Some((stands.expected, instant(self.now))),
            }
        });
        let excused_until = site.said_goodbye.then(|| instant(site.excused_until));
        let observed = site.observed().iter().map(|shared| self.traits[*shared as usize].clone());
        Some(Remembered {
            streams: streams.collect(),
            excused_until,
            observed: observed.collect(),
            silences: site.trouble().silences.clone(),
        })
    }

    /// Takes what was kept, before the first tick. What was missed up to the watch's last tick is counted again.
    pub fn restore(&mut self, id: &SiteId, remembered: Remembered) {
        let Some(number) = self.number(id) else { return };
        let excused = remembered.excused_until.map_or(0, seconds);
        self.observe(id, &remembered.observed);
        if !remembered.silences.is_empty() {
            self.sites[number as usize].trouble_mut().silences = remembered.silences;
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
        let site = &mut self.sites[number as usize];
        (site.excused_until, site.said_goodbye) = (excused, remembered.excused_until.is_some());
    }

    /// Everything was restored: what sites of a kind teach each other is worked out again.
    pub fn restored(&mut self) {
        self.learn_families();
        for index in 0..self.pasts.len() {
            self.repace(StreamId(index as u32));
        }
        // Which cohorts a question was about is not kept; it is asked again if they are quiet still.
        let questions = self.open.iter().copied().filter(|id| self.incidents[id].kind == Kind::CohortQuiet);
        for id in questions.collect::<Vec<u64>>() {
            self.release(id);
            self.close(id, "HQ started anew", instant(self.now));
        }
    }

    /// Takes incidents that were kept, before the first tick.
    pub fn restore_incident(&mut self, mut incident: Incident) {
        if incident.told_level == 0 && !incident.told.is_empty() && incident.reopened_at.is_none() {
            // Kept before the level told was.
            incident.told_level = incident.level;
        }
        if let Some(shared) = incident.attribute.clone().filter(|_| incident.is_open()) {
            // Nobody need have it any more, and the group must end all the same.
            self.trait_number((shared.name, shared.value));
        }
        self.next_incident = self.next_incident.max(incident.id + 1);
        if incident.is_open() {
            self.open.insert(incident.id);
            for id in incident.members.keys() {
                let Some(number) = self.number(id) else { continue };
                let site = &mut self.sites[number as usize];
                match incident.kind {
                    Kind::Silence | Kind::NeverHeard | Kind::Drop => site.trouble_mut().incident = Some(incident.id),
                    Kind::Condition(condition) => {
                        site.trouble_mut().conditions.insert(condition, incident.id);
                    }
                    Kind::Chronic if incident.members[id].until.is_none() => {
                        self.chronic.insert(number);
                    }
                    Kind::Chronic => {}
                    Kind::Group | Kind::CohortQuiet | Kind::HqBlind | Kind::Channel | Kind::Publication | Kind::Hq => {}
                }
            }
        }
        self.incidents.insert(incident.id, incident);
    }

    /// Takes the incidents that another node kept in the place of its own: this watch heard what that one heard, but only one
    /// of them tells people. What this one knows to be wrong and that one did not come to store is opened anew.
    pub fn adopt_incidents(&mut self, kept: impl IntoIterator<Item = Incident>) {
        let own = std::mem::take(&mut self.incidents);
        self.open.clear();
        self.changed.clear();
        self.decisions.clear();
        self.quiet_families.clear();
        self.recovering.clear();
        self.chronic.clear();
        for site in &mut self.sites {
            site.forget_incidents();
        }
        for incident in kept {
            self.restore_incident(incident);
        }
        self.next_incident = self.next_incident.max(own.keys().next_back().map_or(1, |last| last + 1));
        self.restored();
        let now = instant(self.now);
        for incident in own.into_values().filter(Incident::is_open) {
            let site = incident.members.keys().next().cloned();
            match (incident.kind, site) {
                (Kind::Condition(condition), Some(site)) => {
                    self.set_condition(&site, condition, Some(&incident.evidence), now);
                }
                (Kind::NeverHeard, Some(site)) => {
                    if let Some(number) = self.number(&site) {
                        self.awaited.push(Reverse((self.now, number)));
                    }
                }
                _ => {}
            }
        }
        let quiet: Vec<(u32, u32)> = self.quiet_streams.iter().copied().collect();
        for (number, stream) in quiet {
            let stream = StreamId(stream);
            let loudness = self.clock.measure(stream, self.now).loudness;
            if loudness >= Loudness::Red && self.sites[number as usize].trouble().incident.is_none() {
                self.silent(number, stream, loudness, self.now);
            }
        }
        // This HQ can hear, whatever the one before could.
        let blind = self.open.iter().copied().find(|id| self.incidents[id].kind == Kind::HqBlind);
        if let (Some(blind), None) = (blind, self.guard.deaf()) {
            self.close(blind, "HQ hears again", now);
        }
        self.suspects_changed = true;
    }
}
