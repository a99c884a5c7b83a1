//! The watch: what was heard goes in, states of sites and incidents come out. It decides; others
//! carry out.
//!
//! Contact is the first stream of every site, its tables the others. Per event the work is
//! constant; a tick looks only at timers that are due, at open incidents and at cohorts.

use std::{collections::BTreeMap, sync::Arc};

use rollcall_types::{SiteId, Timestamp};

use crate::{
    clock::Clock,
    cohorts::{Cohorts, FamilyNumber},
    groups::Groups,
    guard::{Guard, Signs},
    incident::{Incident, Kind},
    incidents::Incidents,
    learn::{Family, Past, pace},
    shape::{Shape, Unit},
    site::{CONTACT, Decision, Site, SiteSpec, WatchConfig},
    sites::{SiteNumber, Sites},
    stream::{Loudness, Measure, ShapeId, StreamId, Thresholds},
    streams::Streams,
    tuning::Tuning,
};

/// All sites, watched.
#[derive(Debug)]
pub struct Watch {
    pub(crate) config: WatchConfig,
    pub(crate) clock: Clock,
    pub(crate) guard: Guard,
    pub(crate) now: i64,
    pub(crate) sites: Sites,
    pub(crate) streams: Streams,
    pub(crate) cohorts: Cohorts,
    pub(crate) groups: Groups,
    pub(crate) incidents: Incidents,
    pub(crate) tuning: Tuning,
    ingest_ok: bool,
    draining: bool,
    reviewed: i64,
    pub(crate) learned_day: i64,
    pub(crate) learned_hour: i64,
}

pub(crate) fn seconds(at: Timestamp) -> i64 {
    at.as_seconds()
}

pub(crate) fn instant(at: i64) -> Timestamp {
    Timestamp::from_seconds(at)
}

/// So long, in seconds, a goodbye is believed of a site that should be open.
const BELIEVED_WHILE_OPEN: i64 = 1800;

impl Watch {
    /// A watch that ticked last at `last_tick` (its first tick, if it never ran). When that is long
    /// ago, HQ was off.
    pub fn new(config: WatchConfig, last_tick: Timestamp) -> Self {
        let now = seconds(last_tick);
        Self {
            clock: Clock::new(now, config.thresholds, config.contact_unit),
            guard: Guard::new(now, config.contact_unit.clamp(1, 60)),
            config,
            now,
            sites: Sites::default(),
            streams: Streams::default(),
            cohorts: Cohorts::default(),
            groups: Groups::default(),
            incidents: Incidents::default(),
            tuning: Tuning::default(),
            ingest_ok: true,
            draining: false,
            reviewed: 0,
            learned_day: now.div_euclid(86_400),
            learned_hour: now.div_euclid(3600),
        }
    }

    /// Puts a site on the watch, or takes what changed of it.
    pub fn set_site(&mut self, spec: SiteSpec) {
        let calendar = self.cohorts.calendar(&spec.calendar, &mut self.clock);
        let said = self.traits_of(&spec.attributes);
        if let Some(number) = self.number(&spec.id) {
            let is_counted = !self.sites[number].retired;
            if is_counted {
                self.sites.count_traits(number, -1);
            }
            let site = &mut self.sites[number];
            let moved = site.calendar != calendar;
            (site.calendar, site.enrolled) = (calendar, spec.enrolled);
            site.expected_from = seconds(spec.expected_from);
            let observed = site.observed().to_vec();
            self.sites.set_shares(number, &said, &observed);
            if is_counted {
                self.sites.count_traits(number, 1);
            }
            if moved {
                for stream in self.sites[number].streams.clone() {
                    self.clock.move_stream(stream, calendar);
                    self.repace(stream);
                }
            }
            return;
        }
        let spec_attributes = spec.attributes;
        let site = Site::new(spec.id, calendar, seconds(spec.expected_from), spec.enrolled);
        let number = self.sites.add(site);
        self.sites.set_shares(number, &said, &[]);
        self.sites.count_traits(number, 1);
        let due = self.never_heard_due(number, &spec_attributes);
        self.sites.awaits(number, due);
    }

    /// The number of a site, if it is on the watch.
    pub(crate) fn number(&self, id: &SiteId) -> Option<SiteNumber> {
        self.sites.number(id)
    }

    /// One business day after the site is expected.
    fn never_heard_due(&self, number: SiteNumber, attributes: &BTreeMap<String, String>) -> i64 {
        let site = &self.sites[number];
        let calendar = self.clock.calendar(site.calendar);
        let family = self.cohorts.learned(&family_key(CONTACT, attributes, &self.config));
        let by_day = Arc::new(Shape::unlearned(Unit::ContactMinutes));
        let fresh = Family { shape: by_day, ..Family::new(Unit::ContactMinutes, self.config.contacts_per_hour) };
        let pace = pace(None, family.unwrap_or(&fresh), calendar);
        let day = pace.shape.day_hours();
        pace.shape.reach(calendar, site.expected_from, day, site.expected_from + 14 * 86_400)
    }

    /// A person took the site off the roster: its incidents end, it is not expected any more.
    pub fn retire(&mut self, id: &SiteId, by: &str, now: Timestamp) {
        let Some(number) = self.number(id) else { return };
        self.sites.count_traits(number, -1);
        self.sites[number].retired = true;
        self.groups.acquit(number);
        self.groups.look_again();
        self.sites.recovering.remove(&number);
        let trouble = self.sites[number].trouble_mut();
        let conditions = std::mem::take(&mut trouble.conditions).into_values();
        let of_site: Vec<u64> = trouble.incident.take().into_iter().chain(conditions).collect();
        for incident in of_site {
            self.incidents.close(incident, &format!("the site was retired by {by}"), now);
        }
        self.leave_groups(number, now);
    }

    /// A person put a retired site back on the roster: it is expected from now on, and silent until
    /// it is heard.
    pub fn take_back(&mut self, id: &SiteId, now: Timestamp) {
        let Some(number) = self.number(id).filter(|number| self.sites[*number].retired) else { return };
        self.sites[number].retired = false;
        self.sites.count_traits(number, 1);
        self.groups.look_again();
        if self.sites[number].streams.is_empty() {
            let attributes =
                self.sites[number].said().iter().map(|shared| self.sites.traits.get(*shared).clone()).collect();
            let due = self.never_heard_due(number, &attributes);
            self.sites.awaits(number, due);
        }
        // Its timers ran out while nobody wanted to hear of it.
        for stream in self.sites[number].streams.clone() {
            let loudness = self.clock.measure(stream, seconds(now)).loudness;
            if loudness >= Loudness::Red {
                self.silent(number, stream, loudness, seconds(now));
            }
        }
    }

    fn traits_of(&mut self, attributes: &BTreeMap<String, String>) -> Vec<u32> {
        let mut traits = Vec::new();
        for name in &self.config.group_by {
            let Some(value) = attributes.get(name).filter(|value| !value.is_empty()) else { continue };
            traits.push((name.clone(), value.clone()));
        }
        // Kind of site: sites of one family teach each other. It is a trait without a name, never
        // grouped by.
        traits.push((String::new(), family_key("", attributes, &self.config)));
        traits.into_iter().map(|key| self.sites.traits.number(key)).collect()
    }

    /// Takes what HQ saw of a site itself, such as its agent's version or the address it calls:
    /// silences are grouped by it as by the roster's attributes. Where the roster has an attribute
    /// of the name, that counts.
    pub fn observe(&mut self, id: &SiteId, seen: &BTreeMap<String, String>) {
        let Some(number) = self.number(id) else { return };
        let named = seen.iter().filter(|(name, value)| self.config.group_by.contains(name) && !value.is_empty());
        let named: Vec<(String, String)> = named.map(|(name, value)| (name.clone(), value.clone())).collect();
        let observed: Vec<u32> = named.into_iter().map(|key| self.sites.traits.number(key)).collect();
        let said = self.sites[number].said().to_vec();
        let is_counted = !self.sites[number].retired;
        if is_counted {
            self.sites.count_traits(number, -1);
        }
        self.sites.set_shares(number, &said, &observed);
        if is_counted {
            self.sites.count_traits(number, 1);
        }
    }

    /// The stream of this name, made at its first event.
    fn stream(&mut self, number: SiteNumber, name: &str, at: i64) -> StreamId {
        match self.stream_named(number, name) {
            Some(known) => known,
            None => self.add_stream(number, name, at, None),
        }
    }

    fn stream_named(&self, number: SiteNumber, name: &str) -> Option<StreamId> {
        self.streams.named(&self.sites[number], name)
    }

    /// The family of a stream.
    pub(crate) fn family_of(&self, stream: StreamId) -> FamilyNumber {
        self.cohorts.family_of(self.clock.cohort_of(stream))
    }

    /// The shape that is this stream's own, if it has one.
    pub(crate) fn own_shape(&self, stream: StreamId) -> Option<ShapeId> {
        let shape = self.clock.pace(stream).shape;
        (!self.cohorts.is_shared(shape)).then_some(shape)
    }

    pub(crate) fn contact(&self, number: SiteNumber) -> Option<StreamId> {
        self.streams.contact(&self.sites[number])
    }

    pub(crate) fn add_stream(&mut self, number: SiteNumber, name: &str, last: i64, past: Option<Past>) -> StreamId {
        let unit = if name == CONTACT { Unit::ContactMinutes } else { Unit::Rows };
        let key = format!("{name}{}", self.sites.kind_of(number));
        let calendar_id = self.sites[number].calendar;
        let calendar = self.clock.calendar(calendar_id).clone();
        let family = self.cohorts.family_named(&key, unit, self.config.contacts_per_hour);
        let learned = pace(past.as_ref(), self.cohorts.family(family), &calendar);
        let shape = match &past {
            Some(_) => self.clock.add_shape(learned.shape.clone()),
            None => self.cohorts.shared_shape(family, &calendar.hours, &learned.shape, &mut self.clock),
        };
        let cohort = self.cohorts.cohort(family, &calendar, shape, self.config.learns, &mut self.clock);
        let stream = self.clock.add_stream(cohort, calendar_id, learned.pace(shape), last);
        let past = past.or_else(|| self.config.learns.then(|| Past::new(unit, last)));
        self.streams.add(number, name, past);
        let streams = &mut self.sites[number].streams;
        if unit == Unit::ContactMinutes {
            streams.insert(0, stream)
        } else {
            streams.push(stream)
        }
        stream
    }

    /// Takes `count` events: minutes of contact, or rows of a table. Of a site that is not on the
    /// watch, nothing.
    pub fn event(&mut self, id: &SiteId, stream: &str, at: Timestamp, count: f32) {
        let Some(number) = self.number(id) else { return };
        if self.sites[number].streams.is_empty() {
            self.first_heard(number, at);
        }
        let stream = self.stream(number, stream, seconds(at));
        self.stream_event(stream, seconds(at), count);
    }

    /// [`Self::event`] for a stream known by number.
    pub fn stream_event(&mut self, stream: StreamId, at: i64, count: f32) {
        let number = self.streams.site(stream);
        let stood = (self.clock.loudness(stream) >= Loudness::Amber).then(|| self.clock.measure(stream, at));
        if let Some(past) = self.streams.past_mut(stream) {
            past.count_rows(count);
        }
        let Some(gap) = self.clock.event(stream, at, count) else { return };
        let loud = gap.loudness;
        if let Some(stood) = stood {
            self.count_natural(number, stream, &gap, at, &stood);
        }
        if let Some(past) = self.streams.past_mut(stream) {
            // What is red is not learned from; but in the first days nothing is known yet, and a
            // night looks red.
            let is_new = past.is_learning(at) && gap.over_closed;
            let healthy = (loud < Loudness::Red || gap.with_cohort || is_new) && self.guard.deaf().is_none();
            past.event(at, &gap, healthy);
        }
        if self.streams.is_contact(stream) && std::mem::take(&mut self.sites[number].said_goodbye) {
            // What the goodbye excused is expected again.
            for other in self.sites[number].streams.clone().into_iter().filter(|other| *other != stream) {
                self.clock.excuse(other, at);
            }
        }
        if loud > Loudness::Normal {
            self.groups.note_heard(number, stream);
        }
        let has_incident = self.sites[number].trouble().incident.is_some();
        if has_incident && (loud > Loudness::Normal || self.is_about(number, stream)) {
            self.came_back(number, stream, at);
        }
    }

    /// The site says that it goes: nothing is expected of it until it opens next, or for 16 hours.
    /// Of a shop whose declared hours say that it is open it is the agent that was stopped, which
    /// is believed for half an hour: whoever starts it again may do so with a wrong address.
    pub fn goodbye(&mut self, id: &SiteId, at: Timestamp) {
        let Some(number) = self.number(id) else { return };
        let Some(contact) = self.contact(number) else { return };
        let calendar = self.clock.calendar(self.sites[number].calendar);
        let until = match calendar.says_open(seconds(at), BELIEVED_WHILE_OPEN) {
            true => seconds(at) + BELIEVED_WHILE_OPEN,
            false => self.next_opening(contact, seconds(at)),
        };
        for stream in self.sites[number].streams.clone() {
            self.groups.note_heard(number, stream);
            self.clock.excuse(stream, until);
        }
        let site = &mut self.sites[number];
        (site.excused_until, site.said_goodbye) = (until, true);
    }

    /// When the site's week gets busy after it was not: at most 16 hours from `at`.
    fn next_opening(&self, contact: StreamId, at: i64) -> i64 {
        const BUSY: f32 = 0.1;
        const EXCUSED_MAX: i64 = 16 * 3600;
        let step = Unit::ContactMinutes.slot_seconds();
        let mut was_quiet = false;
        for slot in 0..4 * 24 * 4 {
            let then = at + slot * step;
            let busy = self.clock.busyness(contact, then) > BUSY;
            if was_quiet && busy {
                // A weekend may be longer than a night: that the hours or the rhythm say so is
                // enough.
                return then;
            }
            was_quiet |= !busy;
            if !was_quiet && slot * step > EXCUSED_MAX {
                break;
            }
        }
        at + EXCUSED_MAX
    }

    /// Whether changes wait at the site although it is back.
    pub fn set_backlog(&mut self, id: &SiteId, has_backlog: bool) {
        if let Some(number) = self.number(id) {
            self.sites[number].has_backlog = has_backlog;
        }
    }

    /// A manifest of the site that was received at `at` was counted, and every row is here; none if
    /// it states none any more.
    pub fn reconciled(&mut self, id: &SiteId, at: Option<Timestamp>) {
        if let Some(number) = self.number(id) {
            self.sites[number].reconciled_at = at.map(seconds);
        }
    }

    /// When silence counts as what.
    pub fn thresholds(&self) -> Thresholds {
        self.config.thresholds
    }

    /// What only HQ itself can know: whether it can store, and whether backlogs of its own absence
    /// still come in.
    pub fn set_ingest(&mut self, ok: bool, draining: bool) {
        (self.ingest_ok, self.draining) = (ok, draining);
    }

    /// Lets time pass. Call it every few seconds.
    pub fn tick(&mut self, now: Timestamp) {
        let now_s = seconds(now).max(self.now);
        let signs = Signs { heard: self.clock.heard(), ingest_ok: self.ingest_ok, draining: self.draining };
        let was_deaf = self.guard.deaf();
        let hearing = self.guard.tick(now_s, &signs);
        self.now = now_s;
        let mut transitions = Vec::new();
        self.clock.tick(now_s, hearing, &mut transitions);
        for stream in self.clock.take_fallen_quiet() {
            self.groups.note_heard(self.streams.site(stream), stream);
            self.clock.excuse(stream, now_s);
        }
        self.tell_of_deafness(was_deaf.is_some(), instant(now_s));
        for transition in transitions {
            self.take(transition);
        }
        if self.groups.take_changed() {
            self.regroup(instant(now_s));
        }
        self.look_after(instant(now_s));
        if now_s - self.reviewed >= self.config.contact_unit {
            self.reviewed = now_s;
            self.review(instant(now_s));
        }
        if self.config.learns && now_s.div_euclid(3600) > self.learned_hour {
            self.learn(now_s);
        }
    }

    /// What people are to be told, since the last call.
    pub fn take_decisions(&mut self) -> Vec<Decision> {
        self.incidents.take_decisions()
    }

    /// Incidents that changed since the last call, to be stored.
    pub fn take_changed(&mut self) -> Vec<Incident> {
        self.incidents.take_changed()
    }

    /// Takes back what [`Self::take_changed`] gave and could not be stored; the next call gives it
    /// again.
    pub fn keep_changed(&mut self, incidents: &[Incident]) {
        incidents.iter().for_each(|incident| self.incidents.note(incident.id));
    }

    /// An incident.
    pub fn incident(&self, id: u64) -> Option<&Incident> {
        self.incidents.get(&id)
    }

    /// All incidents known: open ones, and those of the last days.
    pub fn incidents(&self) -> impl DoubleEndedIterator<Item = &Incident> {
        self.incidents.values()
    }

    /// How many incidents of a kind are open.
    pub fn count_open(&self, kind: Kind) -> usize {
        self.incidents.count_open(kind)
    }

    /// How HQ hears.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The time of the last tick.
    pub fn now(&self) -> Timestamp {
        instant(self.now)
    }

    /// A stream of a site, if anything was heard of it.
    pub fn stream_id(&self, id: &SiteId, name: &str) -> Option<StreamId> {
        self.stream_named(self.number(id)?, name)
    }

    /// Where a stream stands at `at`.
    pub fn measure(&self, stream: StreamId, at: Timestamp) -> Measure {
        self.clock.measure(stream, seconds(at))
    }

    /// Rows of a table that should have come from a site between two instants.
    pub fn expected_rows(&self, id: &SiteId, table: &str, from: Timestamp, to: Timestamp) -> Option<f64> {
        let stream = self.stream_id(id, table)?;
        let events = self.clock.expected_between(stream, seconds(from), seconds(to));
        Some(events * f64::from(self.clock.pace(stream).rows_per_event))
    }
}

/// The family of a stream: its name and the kind of site.
pub(crate) fn family_key(name: &str, attributes: &BTreeMap<String, String>, config: &WatchConfig) -> String {
    let kind = config.alike_by.iter().map(|name| attributes.get(name).map_or("", String::as_str));
    kind.fold(name.to_owned(), |key, value| format!("{key}/{value}"))
}
