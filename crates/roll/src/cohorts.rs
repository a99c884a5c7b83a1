//! Which streams are alike: families (the same table at the same kind of site), and their cohorts
//! (a family in one zone with the same hours). What a family teaches all its new members go by.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use chrono_tz::Tz;

use crate::{
    calendar::{Calendar, Hours},
    clock::Clock,
    learn::{Family, Past},
    shape::{Shape, Unit},
    stream::{CalendarId, CohortId, ShapeId, StreamId},
};

/// A week after the first of its sites was heard, the hours of a kind of site are learned; until
/// then they are nobody's knowledge.
const KNOWN_AFTER: i64 = 7 * 86_400;

/// A family, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FamilyNumber(u32);

/// What the members of a cohort have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Alike {
    family: FamilyNumber,
    zone: Tz,
    hours: Option<Arc<Hours>>,
}

/// See above.
#[derive(Debug, Default)]
pub(crate) struct Cohorts {
    calendars: HashMap<Calendar, CalendarId>,
    /// Name and family.
    families: Vec<(String, Family)>,
    family_numbers: HashMap<String, FamilyNumber>,
    cohorts: HashMap<Alike, CohortId>,
    /// The family of each cohort's streams, by its number.
    of_cohorts: Vec<FamilyNumber>,
    /// Shapes of streams that are new, by family and hours; all other shapes are one stream's own.
    shapes: HashMap<(FamilyNumber, Option<Arc<Hours>>), ShapeId>,
    shared_shapes: HashSet<ShapeId>,
}

impl Cohorts {
    /// The calendar as the clock knows it.
    pub(crate) fn calendar(&mut self, calendar: &Calendar, clock: &mut Clock) -> CalendarId {
        if let Some(known) = self.calendars.get(calendar) {
            return *known;
        }
        let id = clock.add_calendar(calendar.clone());
        self.calendars.insert(calendar.clone(), id);
        id
    }

    /// The family of this name, new with these `contacts_per_hour` if it is not known.
    pub(crate) fn family_named(&mut self, name: &str, unit: Unit, contacts_per_hour: f32) -> FamilyNumber {
        if let Some(known) = self.family_numbers.get(name) {
            return *known;
        }
        let number = FamilyNumber(self.families.len() as u32);
        self.families.push((name.to_owned(), Family::new(unit, contacts_per_hour)));
        self.family_numbers.insert(name.to_owned(), number);
        number
    }

    /// The family of this name, if it was learned.
    pub(crate) fn learned(&self, name: &str) -> Option<&Family> {
        self.family_numbers.get(name).map(|known| self.family(*known)).filter(|family| family.learned)
    }

    pub(crate) fn family(&self, number: FamilyNumber) -> &Family {
        &self.families[number.0 as usize].1
    }

    pub(crate) fn name(&self, number: FamilyNumber) -> &str {
        &self.families[number.0 as usize].0
    }

    /// The family of a cohort's streams.
    pub(crate) fn family_of(&self, cohort: CohortId) -> FamilyNumber {
        self.of_cohorts[cohort.0 as usize]
    }

    /// The shape that all new members of a family with these hours go by: `shape`, if it is not
    /// known yet.
    pub(crate) fn shared_shape(
        &mut self,
        family: FamilyNumber,
        hours: &Option<Arc<Hours>>,
        shape: &Arc<Shape>,
        clock: &mut Clock,
    ) -> ShapeId {
        let shared = &mut self.shared_shapes;
        *self.shapes.entry((family, hours.clone())).or_insert_with(|| {
            let id = clock.add_shape(shape.clone());
            shared.insert(id);
            id
        })
    }

    /// Whether several streams go by this shape.
    pub(crate) fn is_shared(&self, shape: ShapeId) -> bool {
        self.shared_shapes.contains(&shape)
    }

    /// The cohort of a family's members with this calendar; a new one is expected to go by `shape`,
    /// and if it `learns`, what nobody declared of its hours is not known yet.
    pub(crate) fn cohort(
        &mut self,
        family: FamilyNumber,
        calendar: &Calendar,
        shape: ShapeId,
        learns: bool,
        clock: &mut Clock,
    ) -> CohortId {
        let alike = Alike { family, zone: calendar.zone, hours: calendar.hours.clone() };
        if let Some(known) = self.cohorts.get(&alike) {
            return *known;
        }
        let plain = Calendar { closures: Vec::new(), ..calendar.clone() };
        let plain = self.calendar(&plain, clock);
        let cohort = clock.add_cohort(shape, plain);
        self.of_cohorts.push(family);
        debug_assert_eq!(self.of_cohorts.len(), cohort.0 as usize + 1, "cohorts are made here alone");
        let of = self.family(family);
        // A family that is known already says so at the end of the day.
        let is_assumed = learns && of.unit == Unit::ContactMinutes && calendar.hours.is_none() && !of.learned;
        clock.set_assumed(cohort, is_assumed);
        self.cohorts.insert(alike, cohort);
        cohort
    }

    /// Learns what the members of each family teach together.
    pub(crate) fn learn<'a>(
        &mut self,
        pasts: impl Iterator<Item = (StreamId, &'a Past)>,
        learns: bool,
        now: i64,
        clock: &mut Clock,
    ) {
        let mut members: Vec<Vec<&Past>> = vec![Vec::new(); self.families.len()];
        for (stream, past) in pasts {
            members[self.family_of(clock.cohort_of(stream)).0 as usize].push(past);
        }
        for (alike, cohort) in &self.cohorts {
            let born = members[alike.family.0 as usize].iter().map(|past| past.born).min();
            let is_known = alike.hours.is_some() || born.is_some_and(|born| now - born >= KNOWN_AFTER);
            let is_contact = self.family(alike.family).unit == Unit::ContactMinutes;
            clock.set_assumed(*cohort, learns && is_contact && !is_known);
        }
        for ((_, family), members) in self.families.iter_mut().zip(members) {
            family.learn(members.into_iter());
        }
        for ((family, hours), id) in &self.shapes {
            let shape = &self.family(*family).shape;
            let within = hours.as_ref().map(|hours| Arc::new(shape.within(hours)));
            clock.set_shape(*id, within.unwrap_or_else(|| shape.clone()));
        }
    }
}
