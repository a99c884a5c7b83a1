//! All incidents: the open ones and those of the last days, what of them must be stored, and what
//! people are to be told.

use std::collections::{BTreeMap, BTreeSet};

use rollcall_types::Timestamp;

use crate::{
    incident::{Incident, Kind, Notice},
    site::Decision,
};

/// Closed incidents are kept in memory this long: relapses join them, and their story can be
/// corrected.
const KEPT_AFTER: i64 = 7 * 86_400;

/// See above.
#[derive(Debug)]
pub(crate) struct Incidents {
    all: BTreeMap<u64, Incident>,
    open: BTreeSet<u64>,
    /// How many are open of each kind.
    counts: BTreeMap<Kind, usize>,
    next: u64,
    changed: BTreeSet<u64>,
    decisions: Vec<Decision>,
}

impl Default for Incidents {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            open: BTreeSet::new(),
            counts: BTreeMap::new(),
            next: 1,
            changed: BTreeSet::new(),
            decisions: Vec::new(),
        }
    }
}

impl std::ops::Index<&u64> for Incidents {
    type Output = Incident;

    fn index(&self, id: &u64) -> &Incident {
        &self.all[id]
    }
}

impl Incidents {
    pub(crate) fn get(&self, id: &u64) -> Option<&Incident> {
        self.all.get(id)
    }

    /// The incident, to be changed; whoever does so in a way that must be stored calls
    /// [`Self::note`].
    pub(crate) fn get_mut(&mut self, id: &u64) -> Option<&mut Incident> {
        self.all.get_mut(id)
    }

    /// The incident, to be changed and stored.
    pub(crate) fn change(&mut self, id: u64) -> Option<&mut Incident> {
        let incident = self.all.get_mut(&id)?;
        self.changed.insert(id);
        Some(incident)
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &Incident> {
        self.all.values()
    }

    /// The open ones.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Incident> {
        self.open.iter().filter_map(|id| self.all.get(id))
    }

    /// The numbers of the open ones, so that they can be changed meanwhile.
    pub(crate) fn open_ids(&self) -> Vec<u64> {
        self.open.iter().copied().collect()
    }

    /// The open one of a kind, of which there is one at most.
    pub(crate) fn open_of(&self, kind: Kind) -> Option<u64> {
        self.open().find(|incident| incident.kind == kind).map(|incident| incident.id)
    }

    /// A new one, which is open.
    pub(crate) fn add(&mut self, kind: Kind, since: Timestamp, now: Timestamp) -> u64 {
        let id = self.next;
        self.next += 1;
        self.all.insert(id, Incident::new(id, kind, since, now));
        self.note_open(id, kind);
        self.changed.insert(id);
        id
    }

    /// One that was closed is back; see [`Incident::reopen`].
    pub(crate) fn reopen(&mut self, id: u64, now: Timestamp, reason: &str) {
        if let Some(incident) = self.all.get_mut(&id) {
            incident.reopen(now, reason);
            let kind = incident.kind;
            self.note_open(id, kind);
            self.changed.insert(id);
        }
    }

    fn note_open(&mut self, id: u64, kind: Kind) {
        if self.open.insert(id) {
            *self.counts.entry(kind).or_default() += 1;
        }
    }

    /// How many of a kind are open.
    pub(crate) fn count_open(&self, kind: Kind) -> usize {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    /// The next number is this, or a greater one.
    pub(crate) fn number_from(&mut self, number: u64) {
        self.next = self.next.max(number);
    }

    /// One that another watch kept.
    pub(crate) fn restore(&mut self, incident: Incident) {
        self.next = self.next.max(incident.id + 1);
        if incident.is_open() {
            self.note_open(incident.id, incident.kind);
        }
        self.all.insert(incident.id, incident);
    }

    /// It changed, and must be stored.
    pub(crate) fn note(&mut self, id: u64) {
        self.changed.insert(id);
    }

    /// It is over. People who were told of it are told so.
    pub(crate) fn close(&mut self, id: u64, reason: &str, now: Timestamp) {
        let was_open = self.open.remove(&id);
        self.changed.insert(id);
        let Some(incident) = self.all.get_mut(&id) else { return };
        if let Some(count) = self.counts.get_mut(&incident.kind).filter(|_| was_open) {
            *count = count.saturating_sub(1);
        }
        let level = incident.level;
        if incident.close(reason, now) {
            self.decisions.push(Decision { at: now, incident: id, notice: Notice::Resolved, level });
        }
    }

    /// People are to be told.
    pub(crate) fn decide(&mut self, decision: Decision) {
        self.changed.insert(decision.incident);
        self.decisions.push(decision);
    }

    /// What people are to be told, since the last call.
    pub(crate) fn take_decisions(&mut self) -> Vec<Decision> {
        std::mem::take(&mut self.decisions)
    }

    /// Those that changed since the last call.
    pub(crate) fn take_changed(&mut self) -> Vec<Incident> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().filter_map(|id| self.all.get(id).cloned()).collect()
    }

    /// Forgets those that ended long before `now`.
    pub(crate) fn forget_old(&mut self, now: Timestamp) {
        let is_kept = |closed: Timestamp| now.as_seconds() - closed.as_seconds() < KEPT_AFTER;
        self.all.retain(|_, incident| incident.closed_at.is_none_or(is_kept));
    }

    /// Another watch's count: all are taken out, and numbers go on after them.
    pub(crate) fn take_all(&mut self) -> Vec<Incident> {
        let all = std::mem::take(&mut self.all);
        let next = self.next.max(all.keys().next_back().map_or(1, |last| last + 1));
        *self = Self { next, ..Self::default() };
        all.into_values().collect()
    }
}
