//! One trouble, told once: what follows from a trouble of a site is not told beside it.
//!
//! A database that was restored is a new life of its journal, states its tables again, is behind
//! while it does, and its manifests do not agree before it has. People need to hear of the first.

use rollcall_types::Timestamp;

use crate::{incident::Condition, sites::SiteNumber, watch::Watch};

/// What others follow from, the first of them before all.
const ROOTS: [Condition; 3] = [Condition::CloneOrRewind, Condition::NewLife, Condition::Refused];
/// What follows from them.
const CONSEQUENCES: [Condition; 3] = [Condition::Restated, Condition::Behind, Condition::Manifest];

impl Watch {
    /// A condition is about to end: what it held speaks for itself again.
    pub(crate) fn release_consequences(&mut self, incident: u64, condition: Condition) {
        if ROOTS.contains(&condition) {
            self.release(incident);
        }
    }

    /// A condition of a site began: what follows from another that it has is held by that one.
    pub(crate) fn hold_consequences(&mut self, number: SiteNumber, began: Condition, now: Timestamp) {
        let conditions = &self.sites[number].trouble().conditions;
        let Some(root) = ROOTS.iter().find_map(|root| conditions.get(root).copied()) else { return };
        let is_root = ROOTS.contains(&began);
        let held: Vec<u64> = CONSEQUENCES
            .iter()
            .filter(|condition| is_root || **condition == began)
            .filter_map(|condition| conditions.get(condition).copied())
            .collect();
        for id in held {
            if let Some(incident) = self.incidents.get_mut(&id).filter(|incident| incident.held_by.is_none()) {
                (incident.held_by, incident.was_held) = (Some(root), true);
                incident.tell(now, format!("it follows from incident {root}"));
                self.incidents.note(id);
            }
        }
    }
}
