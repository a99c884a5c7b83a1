//! The watch: what was heard goes in, states of sites and incidents come out. It decides; others carry out.
//!
//! Contact is the first stream of every site, its tables the others. Per event the work is constant; a tick looks only at
//! timers that are due, at open incidents and at cohorts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet},
    hash::BuildHasher,
    sync::Arc,
};

use hashbrown::{DefaultHashBuilder, HashTable};
use rollcall_types::{SiteId, Timestamp};

use crate::{
    calendar::Calendar,
    clock::Clock,
    guard::{Guard, Signs},
    incident::Incident,
    learn::{Families, Family, Past, pace},
    shape::{Shape, Unit},
    site::{CONTACT, Decision, Owner, Site, SiteSpec, WatchConfig},
    stream::{CalendarId, CohortId, Loudness, Measure, ShapeId, StreamId, Thresholds},
    tuning::Tuning,
};

/// A week after the first of its sites was heard, the hours of a kind of site are learned; until then they are nobody's knowledge.
pub(crate) const KNOWN_AFTER: i64 = 7 * 86_400;

/// All sites, watched.
#[derive(Debug)]
pub struct Watch {
    pub(crate) config: WatchConfig,
    pub(crate) clock: Clock,
    pub(crate) guard: Guard,
    pub(crate) now: i64,
    pub(crate) sites: Vec<Site>,
    pub(crate) index: Index,
    pub(crate) owners: Vec<Owner>,
    pub(crate) names: Vec<Arc<str>>,
    name_numbers: HashMap<Arc<str>, u16, DefaultHashBuilder>,
    pub(crate) calendars: BTreeMap<String, CalendarId>,
    /// Shapes of streams that are new, by family and hours; all other shapes are one stream's own.
    pub(crate) shapes: BTreeMap<String, ShapeId>,
    shared_shapes: HashSet<ShapeId>,
    pub(crate) cohorts: BTreeMap<(String, String), CohortId>,
    pub(crate) families: Families,
    pub(crate) family_names: Vec<String>,
    /// The family of each cohort's streams, by its number.
    family_of_cohorts: Vec<u32>,
    pub(crate) pasts: Vec<Option<Box<Past>>>,
    pub(crate) traits: Vec<(String, String)>,
    pub(crate) trait_numbers: HashMap<(String, String), u32>,
    pub(crate) trait_sites: Vec<usize>,
    pub(crate) suspects: BTreeSet<u32>,
    /// Streams that are suspect or louder, by site.
    pub(crate) quiet_streams: BTreeSet<(u32, u32)>,
    pub(crate) suspects_changed: bool,
    /// Open questions about whole cohorts, by family: one, in however many zones the day comes.
    pub(crate) quiet_families: BTreeMap<String, Question>,
    pub(crate) recovering: BTreeSet<u32>,
    /// Sites not heard yet, by the instant at which that becomes an incident.
    pub(crate) awaited: BinaryHeap<Reverse<(i64, u32)>>,
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

/// An open question about a family: is this a closing day?
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) incident: u64,
    /// Its cohorts that are quiet.
    pub(crate) cohorts: BTreeSet<CohortId>,
    /// Since when none is.
    pub(crate) answered_since: Option<i64>,
}

/// The number of each site, by its id. The ids themselves are in the sites, not here once more.
#[derive(Debug, Default)]
pub(crate) struct Index {
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Index {
    pub(crate) fn get(&self, id: &SiteId, sites: &[Site]) -> Option<u32> {
        self.numbers.find(self.hasher.hash_one(id), |number| sites[*number as usize].id == *id).copied()
    }

    /// Takes in the site of this number, which is not in it.
    fn insert(&mut self, number: u32, sites: &[Site]) {
        let hash = |number: &u32| self.hasher.hash_one(&sites[*number as usize].id);
        self.numbers.insert_unique(hash(&number), number, hash);
    }
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
            index: Index::default(),
            owners: Vec::new(),
            names: vec![CONTACT.into()],
            name_numbers: HashMap::from_iter([(CONTACT.into(), 0)]),
            calendars: BTreeMap::new(),
            shapes: BTreeMap::new(),
            shared_shapes: HashSet::new(),
            cohorts: BTreeMap::new(),
            families: BTreeMap::new(),
            family_names: Vec::new(),
            family_of_cohorts: Vec::new(),
            pasts: Vec::new(),
            traits: Vec::new(),
            trait_numbers: HashMap::new(),
            trait_sites: Vec::new(),
            suspects: BTreeSet::new(),
            quiet_streams: BTreeSet::new(),
            suspects_changed: false,
            quiet_families: BTreeMap::new(),
            recovering: BTreeSet::new(),
            awaited: BinaryHeap::new(),
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
        let said = self.traits_of(&spec.attributes);
        if let Some(number) = self.number(&spec.id) {
            self.count_traits(number, -1);
            let site = &mut self.sites[number as usize];
            let moved = site.calendar != calendar;
            (site.calendar, site.enrolled) = (calendar, spec.enrolled);
            site.expected_from = seconds(spec.expected_from);
            let observed = site.observed().to_vec();
            self.set_shares(number, &said, &observed);
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
        self.sites.push(Site::new(spec.id, calendar, seconds(spec.expected_from), spec.enrolled));
        self.index.insert(number, &self.sites);
        self.set_shares(number, &said, &[]);
        self.count_traits(number, 1);
        let due = self.never_heard_due(number, &spec.attributes);
        self.awaited.push(Reverse((due, number)));
    }

    /// The number of a site, if it is on the watch.
    pub(crate) fn number(&self, id: &SiteId) -> Option<u32> {
        self.index.get(id, &self.sites)
    }

    /// One business day after the site is expected.
    fn never_heard_due(&self, number: u32, attributes: &BTreeMap<String, String>) -> i64 {
        let site = &self.sites[number as usize];
        let calendar = self.clock.calendar(site.calendar);
        let family = self.families.get(&family_key(CONTACT, attributes, &self.config)).filter(|family| family.learned);
        let by_day = Arc::new(Shape::unlearned(Unit::ContactMinutes));
        let fresh = Family { shape: by_day, ..Family::new(Unit::ContactMinutes, self.config.contacts_per_hour) };
        let pace = pace(None, family.unwrap_or(&fresh), calendar);
        let day = pace.shape.day_hours();
        pace.shape.reach(calendar, site.expected_from, day, site.expected_from + 14 * 86_400)
    }

    /// A person took the site off the roster: its incidents end, it is not expected any more.
    pub fn retire(&mut self, id: &SiteId, by: &str, now: Timestamp) {
        let Some(number) = self.number(id) else { return };
        self.count_traits(number, -1);
        self.sites[number as usize].retired = true;
        self.suspects.remove(&number);
        self.suspects_changed = true;
        self.recovering.remove(&number);
        let trouble = self.sites[number as usize].trouble_mut();
        let conditions = std::mem::take(&mut trouble.conditions).into_values();
        let of_site: Vec<u64> = trouble.incident.take().into_iter().chain(conditions).collect();
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

    fn traits_of(&mut self, attributes: &BTreeMap<String, String>) -> Vec<u32> {
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
        let Some(number) = self.number(id) else { return };
        let named = seen.iter().filter(|(name, value)| self.config.group_by.contains(name) && !value.is_empty());
        let named: Vec<(String, String)> = named.map(|(name, value)| (name.clone(), value.clone())).collect();
        let observed: Vec<u32> = named.into_iter().map(|key| self.trait_number(key)).collect();
        let said = self.sites[number as usize].said().to_vec();
        let is_counted = !self.sites[number as usize].retired;
        if is_counted {
            self.count_traits(number, -1);
        }
        self.set_shares(number, &said, &observed);
        if is_counted {
            self.count_traits(number, 1);
        }
    }

    /// What the roster says of a site, and of what was observed that of which the roster has no attribute of the name.
    fn set_shares(&mut self, number: u32, said: &[u32], observed: &[u32]) {
        let name = |shared: u32| self.traits[shared as usize].0.as_str();
        let is_unsaid = |shared: &u32| !said.iter().any(|said| name(*said) == name(*shared));
        let observed: Vec<u32> = observed.iter().copied().filter(is_unsaid).collect();
        self.sites[number as usize].set_shares(said, &observed);
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
            let count = &mut self.trait_sites[*shared as usize];
            *count = count.saturating_add_signed(sign);
        }
    }

    fn kind_of(&self, number: u32) -> &str {
        let last = self.sites[number as usize].said().last();
        last.map_or("", |last| self.traits[*last as usize].1.as_str())
    }

    /// The stream of this name, made at its first event.
    fn stream(&mut self, number: u32, name: &str, at: i64) -> StreamId {
        match self.stream_named(number, name) {
            Some(known) => known,
            None => self.add_stream(number, name, at, None),
        }
    }

    fn stream_named(&self, number: u32, name: &str) -> Option<StreamId> {
        let name = if name == CONTACT { 0 } else { *self.name_numbers.get(name)? };
        let mut streams = self.sites[number as usize].streams.iter().copied();
        streams.find(|stream| self.owners[stream.0 as usize].name == name)
    }

    /// The family of a stream, by its place in the names of families.
    pub(crate) fn family_of(&self, stream: StreamId) -> usize {
        self.family_of_cohorts[self.clock.cohort_of(stream).0 as usize] as usize
    }

    /// The shape that is this stream's own, if it has one.
    pub(crate) fn own_shape(&self, stream: StreamId) -> Option<ShapeId> {
        let shape = self.clock.pace(stream).shape;
        (!self.shared_shapes.contains(&shape)).then_some(shape)
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
                    self.shared_shapes.insert(shape);
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
                self.family_of_cohorts.push(family_number);
                debug_assert_eq!(self.family_of_cohorts.len(), cohort.0 as usize + 1, "cohorts are made here alone");
                // A family that is known already says so at the end of the day.
                let is_assumed =
                    self.config.learns && unit == Unit::ContactMinutes && hours.is_empty() && !family.learned;
                self.clock.set_assumed(cohort, is_assumed);
                self.cohorts.insert((key, zone), cohort);
                cohort
            }
        };
        let stream = self.clock.add_stream(cohort, calendar_id, learned.pace(shape), last);
        let name = match self.name_numbers.get(name) {
            Some(known) => *known,
            None => {
                let (number, name) = (self.names.len() as u16, Arc::from(name));
                self.names.push(Arc::clone(&name));
                self.name_numbers.insert(name, number);
                number
            }
        };
        self.owners.push(Owner { site: number, name });
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
        let Some(number) = self.number(id) else { return };
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
        let has_incident = self.sites[number as usize].trouble().incident.is_some();
        if has_incident && (loud > Loudness::Normal || self.is_about(number, stream)) {
            self.came_back(number, stream, at);
        }
    }

    /// The site says that it goes: nothing is expected of it until it opens next, or for 16 hours.
    pub fn goodbye(&mut self, id: &SiteId, at: Timestamp) {
        let Some(number) = self.number(id) else { return };
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
        if let Some(number) = self.number(id) {
            self.sites[number as usize].has_backlog = has_backlog;
        }
    }

    /// A manifest of the site that was received at `at` was counted, and every row is here; none if it states none any more.
    pub fn reconciled(&mut self, id: &SiteId, at: Option<Timestamp>) {
        if let Some(number) = self.number(id) {
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
        for stream in self.clock.take_fallen_quiet() {
            self.heard_again(self.owners[stream.0 as usize].site, stream);
            self.clock.excuse(stream, now_s);
        }
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

    /// Takes back what [`Self::take_changed`] gave and could not be stored; the next call gives it again.
    pub fn keep_changed(&mut self, incidents: &[Incident]) {
        self.changed.extend(incidents.iter().map(|incident| incident.id));
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
