//! The watch: what was heard goes in, states of sites and incidents come out. It decides; others carry out.
//!
//! Contact is the first stream of every site, its tables the others. Per event the work is constant; a tick looks only at
//! timers that are due, at open incidents and at cohorts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use rollcall_types::{SiteId, Timestamp};

use crate::{
    calendar::Calendar,
    clock::Clock,
    guard::{Guard, Signs},
    incident::Incident,
    learn::{Families, Family, Past, pace},
    shape::Unit,
    site::{CONTACT, Decision, Owner, Site, SiteSpec, WatchConfig},
    stream::{CalendarId, CohortId, Loudness, Measure, ShapeId, StreamId, Thresholds},
    tuning::Tuning,
};

/// All sites, watched.
#[derive(Debug)]
pub struct Watch {
    pub(crate) config: WatchConfig,
    pub(crate) clock: Clock,
    pub(crate) guard: Guard,
    pub(crate) now: i64,
    pub(crate) sites: Vec<Site>,
    pub(crate) index: HashMap<SiteId, u32>,
    pub(crate) owners: Vec<Owner>,
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) calendars: BTreeMap<String, CalendarId>,
    /// Shapes of streams that are new, by family and hours.
    pub(crate) shapes: BTreeMap<String, ShapeId>,
    pub(crate) cohorts: BTreeMap<(String, String), CohortId>,
    pub(crate) families: Families,
    pub(crate) family_of: Vec<u32>,
    pub(crate) family_names: Vec<String>,
    pub(crate) pasts: Vec<Option<Box<Past>>>,
    pub(crate) own_shapes: Vec<Option<ShapeId>>,
    pub(crate) traits: Vec<(String, String)>,
    pub(crate) trait_numbers: HashMap<(String, String), u32>,
    pub(crate) trait_sites: Vec<usize>,
    pub(crate) suspects: BTreeSet<u32>,
    /// Streams that are suspect or louder, by site.
    pub(crate) quiet_streams: BTreeSet<(u32, u32)>,
    pub(crate) suspects_changed: bool,
    /// Open questions about whole cohorts, by family: one, in however many zones the day comes.
    pub(crate) quiet_families: BTreeMap<String, (u64, BTreeSet<CohortId>)>,
    pub(crate) recovering: BTreeSet<u32>,
    /// Sites not heard yet, by the instant at which that becomes an incident.
    pub(crate) awaited: BTreeSet<(i64, u32)>,
    pub(crate) incidents: BTreeMap<u64, Incident>,
    pub(crate) open: BTreeSet<u64>,
    pub(crate) next_incident: u64,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) changed: BTreeSet<u64>,
    pub(crate) ingest_ok: bool,
    pub(crate) draining: bool,
    pub(crate) reviewed: i64,
    pub(crate) learned_day: i64,
    pub(crate) learned_hour: i64,
    pub(crate) tuning: Tuning,
    /// Sites that fall silent again and again.
    pub(crate) chronic: BTreeSet<u32>,
}

pub(crate) fn seconds(at: Timestamp) -> i64 {
    at.as_seconds()
}

pub(crate) fn instant(at: i64) -> Timestamp {
    Timestamp::from_seconds(at)
}

impl Watch {
    /// A watch that ticked last at `last_tick` (its first tick, if it never ran). When that is long ago, HQ was off.
    pub fn new(config: WatchConfig, last_tick: Timestamp) -> Self {
        let now = seconds(last_tick);
        Self {
            clock: Clock::new(now, config.thresholds, config.contact_unit),
            config,
            guard: Guard::new(now),
            now,
            sites: Vec::new(),
            index: HashMap::new(),
            owners: Vec::new(),
            names: vec![CONTACT.into()],
            calendars: BTreeMap::new(),
            shapes: BTreeMap::new(),
            cohorts: BTreeMap::new(),
            families: BTreeMap::new(),
            family_of: Vec::new(),
            family_names: Vec::new(),
            pasts: Vec::new(),
            own_shapes: Vec::new(),
            traits: Vec::new(),
            trait_numbers: HashMap::new(),
            trait_sites: Vec::new(),
            suspects: BTreeSet::new(),
            quiet_streams: BTreeSet::new(),
            suspects_changed: false,
            quiet_families: BTreeMap::new(),
            recovering: BTreeSet::new(),
            awaited: BTreeSet::new(),
            incidents: BTreeMap::new(),
            open: BTreeSet::new(),
            next_incident: 1,
            decisions: Vec::new(),
            changed: BTreeSet::new(),
            ingest_ok: true,
            draining: false,
            reviewed: 0,
            learned_day: now.div_euclid(86_400),
            learned_hour: now.div_euclid(3600),
            tuning: Tuning::default(),
            chronic: BTreeSet::new(),
        }
    }

    /// Puts a site on the watch, or takes what changed of it.
    pub fn set_site(&mut self, spec: SiteSpec) {
        let calendar = self.calendar(&spec.calendar);
        let traits: Box<[u32]> = self.traits_of(&spec.attributes);
        if let Some(&number) = self.index.get(&spec.id) {
            self.count_traits(number, -1);
            let site = &mut self.sites[number as usize];
            let moved = site.calendar != calendar;
            (site.calendar, site.traits, site.enrolled) = (calendar, traits, spec.enrolled);
            site.expected_from = seconds(spec.expected_from);
            let observed = std::mem::take(&mut site.observed);
            self.sites[number as usize].observed = self.unsaid(number, &observed);
            self.count_traits(number, 1);
            if moved {
                for stream in self.sites[number as usize].streams.clone() {
                    self.clock.move_stream(stream, calendar);
                    self.repace(stream);
                }
            }
            return;
        }
        let number = self.sites.len() as u32;
        self.index.insert(spec.id.clone(), number);
        self.sites.push(Site {
            id: spec.id,
            calendar,
            streams: Vec::new(),
            traits,
            observed: Box::default(),
            expected_from: seconds(spec.expected_from),
            enrolled: spec.enrolled,
            retired: false,
            excused_until: 0,
            said_goodbye: false,
            back_since: None,
            has_backlog: false,
            reconciled_at: None,
            silences: Vec::new(),
            tuned_to: 0,
            incident: None,
            conditions: BTreeMap::new(),
        });
        self.count_traits(number, 1);
        let due = self.never_heard_due(number, &spec.attributes);
        self.awaited.insert((due, number));
    }

    /// One business day after the site is expected.
    fn never_heard_due(&self, number: u32, attributes: &BTreeMap<String, String>) -> i64 {
        let site = &self.sites[number as usize];
        let calendar = self.clock.calendar(site.calendar);
        let family = self.families.get(&family_key(CONTACT, attributes, &self.config));
        let fresh = Family::new(Unit::ContactMinutes, self.config.contacts_per_hour);
        let pace = pace(None, family.unwrap_or(&fresh), calendar);
        let day = pace.shape.day_hours();
        pace.shape.reach(calendar, site.expected_from, day, site.expected_from + 14 * 86_400)
    }

    /// A person took the site off the roster: its incidents end, it is not expected any more.
    pub fn retire(&mut self, id: &SiteId, by: &str, now: Timestamp) {
        let Some(&number) = self.index.get(id) else { return };
        self.count_traits(number, -1);
        self.sites[number as usize].retired = true;
        self.suspects.remove(&number);
        self.suspects_changed = true;
        self.recovering.remove(&number);
        let site = &mut self.sites[number as usize];
        let of_site: Vec<u64> =
            site.incident.take().into_iter().chain(std::mem::take(&mut site.conditions).into_values()).collect();
        for incident in of_site {
            self.close(incident, &format!("the site was retired by {by}"), now);
        }
        self.leave_groups(number, now);
    }

    fn calendar(&mut self, calendar: &Calendar) -> CalendarId {
        let key = format!("{calendar:?}");
        if let Some(known) = self.calendars.get(&key) {
            return *known;
        }
        let id = self.clock.add_calendar(calendar.clone());
        self.calendars.insert(key, id);
        id
    }

    fn traits_of(&mut self, attributes: &BTreeMap<String, String>) -> Box<[u32]> {
        let mut traits = Vec::new();
        for name in &self.config.group_by {
            let Some(value) = attributes.get(name).filter(|value| !value.is_empty()) else { continue };
            traits.push((name.clone(), value.clone()));
        }
        // Kind of site: sites of one family teach each other. It is a trait without a name, never grouped by.
        traits.push((String::new(), family_key("", attributes, &self.config)));
        traits.into_iter().map(|key| self.trait_number(key)).collect()
    }

    /// Takes what HQ saw of a site itself, such as its agent's version or the address it calls: silences are grouped by it as
    /// by the roster's attributes. Where the roster has an attribute of the name, that counts.
    pub fn observe(&mut self, id: &SiteId, seen: &BTreeMap<String, String>) {
        let Some(&number) = self.index.get(id) else { return };
        let named = seen.iter().filter(|(name, value)| self.config.group_by.contains(name) && !value.is_empty());
        let named: Vec<(String, String)> = named.map(|(name, value)| (name.clone(), value.clone())).collect();
        let numbers: Vec<u32> = named.into_iter().map(|key| self.trait_number(key)).collect();
        let observed = self.unsaid(number, &numbers);
        let is_counted = !self.sites[number as usize].retired;
        if is_counted {
            self.count_traits(number, -1);
        }
        self.sites[number as usize].observed = observed;
        if is_counted {
            self.count_traits(number, 1);
        }
    }

    /// Those of what was observed of which the roster has no attribute of the name.
    fn unsaid(&self, number: u32, observed: &[u32]) -> Box<[u32]> {
        let name = |shared: u32| self.traits[shared as usize].0.as_str();
        let site = &self.sites[number as usize];
        let is_said = |shared: &u32| site.traits.iter().any(|said| name(*said) == name(*shared));
        observed.iter().copied().filter(|shared| !is_said(shared)).collect()
    }

    pub(crate) fn trait_number(&mut self, key: (String, String)) -> u32 {
        *self.trait_numbers.entry(key.clone()).or_insert_with(|| {
            self.traits.push(key);
            self.trait_sites.push(0);
            self.traits.len() as u32 - 1
        })
    }

    fn count_traits(&mut self, number: u32, sign: isize) {
        for shared in self.sites[number as usize].shares() {
            let count = &mut self.trait_sites[shared as usize];
            *count = count.saturating_add_signed(sign);
        }
    }

    fn kind_of(&self, number: u32) -> &str {
        let last = self.sites[number as usize].traits.last();
        last.map_or("", |last| self.traits[*last as usize].1.as_str())
    }

    /// The stream of this name, made at its first event.
    fn stream(&mut self, number: u32, name: &str, at: i64) -> StreamId {
        let known = self.sites[number as usize].streams.iter().find(|stream| self.name(**stream) == name);
        match known {
            Some(known) => *known,
            None => self.add_stream(number, name, at, None),
        }
    }

    pub(crate) fn name(&self, stream: StreamId) -> &str {
        &self.names[self.owners[stream.0 as usize].name as usize]
    }

    pub(crate) fn contact(&self, number: u32) -> Option<StreamId> {
        let first = self.sites[number as usize].streams.first().copied()?;
        (self.owners[first.0 as usize].name == 0).then_some(first)
    }

    pub(crate) fn add_stream(&mut self, number: u32, name: &str, last: i64, past: Option<Past>) -> StreamId {
        let unit = if name == CONTACT { Unit::ContactMinutes } else { Unit::Rows };
        let key = format!("{name}{}", self.kind_of(number));
        let calendar_id = self.sites[number as usize].calendar;
        let calendar = self.clock.calendar(calendar_id).clone();
        let level = self.config.contacts_per_hour;
        let family = self.families.entry(key.clone()).or_insert_with(|| Family::new(unit, level)).clone();
        let family_number = match self.family_names.iter().position(|known| *known == key) {
            Some(known) => known as u32,
            None => {
                self.family_names.push(key.clone());
                self.family_names.len() as u32 - 1
            }
        };
        let learned = pace(past.as_ref(), &family, &calendar);
        let hours = calendar.hours.as_ref().map_or_else(String::new, |hours| hours.to_string());
        let shape = match &past {
            Some(_) => self.clock.add_shape(learned.shape.clone()),
            None => match self.shapes.get(&format!("{key}|{hours}")) {
                Some(shape) => *shape,
                None => {
                    let shape = self.clock.add_shape(learned.shape.clone());
                    self.shapes.insert(format!("{key}|{hours}"), shape);
                    shape
                }
            },
        };
        let zone = format!("{}|{hours}", calendar.zone.name());
        let cohort = match self.cohorts.get(&(key.clone(), zone.clone())) {
            Some(cohort) => *cohort,
            None => {
                let plain = Calendar { closures: Vec::new(), ..calendar };
                let plain = self.calendar(&plain);
                let cohort = self.clock.add_cohort(shape, plain);
                self.cohorts.insert((key, zone), cohort);
                cohort
            }
        };
        let stream = self.clock.add_stream(cohort, calendar_id, learned.pace(shape), last);
        let name = match self.names.iter().position(|known| &**known == name) {
            Some(known) => known as u16,
            None => {
                self.names.push(name.into());
                self.names.len() as u16 - 1
            }
        };
        self.owners.push(Owner { site: number, name });
        self.family_of.push(family_number);
        self.own_shapes.push(past.is_some().then_some(shape));
        let past = past.or_else(|| self.config.learns.then(|| Past::new(unit, last)));
        self.pasts.push(past.map(Box::new));
        let streams = &mut self.sites[number as usize].streams;
        if unit == Unit::ContactMinutes {
            streams.insert(0, stream)
        } else {
            streams.push(stream)
        }
        stream
    }

    /// Takes `count` events: minutes of contact, or rows of a table. Of a site that is not on the watch, nothing.
    pub fn event(&mut self, id: &SiteId, stream: &str, at: Timestamp, count: f32) {
        let Some(&number) = self.index.get(id) else { return };
        if self.sites[number as usize].streams.is_empty() {
            self.first_heard(number, at);
        }
        let stream = self.stream(number, stream, seconds(at));
        self.stream_event(stream, seconds(at), count);
    }

    /// [`Self::event`] for a stream known by number.
    pub fn stream_event(&mut self, stream: StreamId, at: i64, count: f32) {
        let number = self.owners[stream.0 as usize].site;
        let stood = (self.clock.loudness(stream) >= Loudness::Amber).then(|| self.clock.measure(stream, at));
        if let Some(past) = &mut self.pasts[stream.0 as usize] {
            past.count_rows(count);
        }
        let Some(gap) = self.clock.event(stream, at, count) else { return };
        let loud = gap.loudness;
        if let Some(stood) = stood {
            self.count_natural(number, stream, &gap, at, &stood);
        }
        if let Some(past) = &mut self.pasts[stream.0 as usize] {
            // What is red is not learned from; but in the first days nothing is known yet, and a night looks red.
            let is_new = past.is_learning(at) && gap.over_closed;
            let healthy = (loud < Loudness::Red || gap.with_cohort || is_new) && self.guard.deaf().is_none();
            past.event(at, &gap, healthy);
        }
        let site = &mut self.sites[number as usize];
        site.said_goodbye &= self.owners[stream.0 as usize].name != 0;
        if loud > Loudness::Normal {
            self.heard_again(number, stream);
        }
        if self.sites[number as usize].incident.is_some() && (loud > Loudness::Normal || self.is_about(number, stream))
        {
            self.came_back(number, stream, at);
        }
    }

    /// The site says that it goes: nothing is expected of it until it opens next, or for 16 hours.
    pub fn goodbye(&mut self, id: &SiteId, at: Timestamp) {
        let Some(&number) = self.index.get(id) else { return };
        let Some(contact) = self.contact(number) else { return };
        let until = self.next_opening(contact, seconds(at));
        for stream in self.sites[number as usize].streams.clone() {
            self.heard_again(number, stream);
            self.clock.excuse(stream, until);
        }
        let site = &mut self.sites[number as usize];
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
                // A weekend may be longer than a night: that the hours or the rhythm say so is enough.
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
        if let Some(&number) = self.index.get(id) {
            self.sites[number as usize].has_backlog = has_backlog;
        }
    }

    /// A manifest of the site that was received at `at` was counted, and every row is here; none if it states none any more.
    pub fn reconciled(&mut self, id: &SiteId, at: Option<Timestamp>) {
        if let Some(&number) = self.index.get(id) {
            self.sites[number as usize].reconciled_at = at.map(seconds);
        }
    }

    /// When silence counts as what.
    pub fn thresholds(&self) -> Thresholds {
        self.config.thresholds
    }

    /// What only HQ itself can know: whether it can store, and whether backlogs of its own absence still come in.
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
        self.tell_of_deafness(was_deaf.is_some(), instant(now_s));
        for transition in transitions {
            self.take(transition);
        }
        if std::mem::take(&mut self.suspects_changed) {
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
        std::mem::take(&mut self.decisions)
    }

    /// Incidents that changed since the last call, to be stored.
    pub fn take_changed(&mut self) -> Vec<Incident> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().filter_map(|id| self.incidents.get(id).cloned()).collect()
    }

    /// An incident.
    pub fn incident(&self, id: u64) -> Option<&Incident> {
        self.incidents.get(&id)
    }

    /// All incidents known: open ones, and those of the last days.
    pub fn incidents(&self) -> impl DoubleEndedIterator<Item = &Incident> {
        self.incidents.values()
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
        let number = *self.index.get(id)?;
        self.sites[number as usize].streams.iter().copied().find(|stream| self.name(*stream) == name)
    }

    /// Where a stream stands at `at`.
    pub fn measure(&self, stream: StreamId, at: Timestamp) -> Measure {
        self.clock.measure(stream, seconds(at))
    }

    /// Rows of a table that should have come from a site between two instants.
    pub fn expected_rows(&self, id: &SiteId, table: &str, from: Timestamp, to: Timestamp) -> Option<f64> {
        let number = *self.index.get(id)?;
        let site = &self.sites[number as usize];
        let stream = site.streams.iter().find(|stream| self.name(**stream) == table)?;
        let events = self.clock.expected_between(*stream, seconds(from), seconds(to));
        Some(events * f64::from(self.clock.pace(*stream).rows_per_event))
    }
}

/// The family of a stream: its name and the kind of site.
pub(crate) fn family_key(name: &str, attributes: &BTreeMap<String, String>, config: &WatchConfig) -> String {
    let kind = config.alike_by.iter().map(|name| attributes.get(name).map_or("", String::as_str));
    kind.fold(name.to_owned(), |key, value| format!("{key}/{value}"))
}
