//! The coverage of each group of an answer.

use std::{collections::HashMap, sync::Arc};

use rollcall_types::{GroupCoverage, SiteId};

use crate::coverage::RosterView;

/// Groups that an answer lists one by one.
const GROUPS_MAX: usize = 1000;
/// An attribute of all sites: a code for each, and the value that each code stands for.
#[derive(Debug, Default)]
pub(crate) struct Coded {
    pub(crate) codes: Vec<u32>,
    pub(crate) values: Vec<Option<String>>,
}

/// The coverage of each group.
pub(crate) struct Groups<'a> {
    names: &'a [String],
    columns: Vec<Arc<Coded>>,
    /// The place of a group in `found`, by the codes of its attributes read as one number: in a
    /// table where there are few, which is nearly always, else in a map.
    few: Vec<Option<u32>>,
    many: HashMap<u128, u32>,
    found: Vec<GroupCoverage>,
}

/// Combinations of attributes for which a table is kept.
const FEW: u64 = 1 << 16;

impl<'a> Groups<'a> {
    pub(crate) fn new(view: &RosterView, names: &'a [String]) -> Self {
        let columns: Vec<Arc<Coded>> = names.iter().map(|name| view.column(name)).collect();
        let combinations = columns.iter().fold(1_u64, |all, column| all.saturating_mul(column.values.len() as u64));
        let few = if combinations <= FEW { vec![None; combinations as usize] } else { Vec::new() };
        Self { names, columns, few, many: HashMap::new(), found: Vec::new() }
    }

    pub(crate) fn note(&mut self, index: usize, id: &SiteId, is_missing: bool) {
        if self.names.is_empty() {
            return;
        }
        let codes = self.columns.iter().map(|column| (u64::from(column.codes[index]), column.values.len() as u64));
        // A number for each combination: 50,000 sites with as many values in each of four
        // attributes would still fit.
        let key = codes
            .fold(0_u128, |key, (code, values)| key.wrapping_mul(u128::from(values)).wrapping_add(u128::from(code)));
        let next = self.found.len() as u32;
        let place = match usize::try_from(key).ok().and_then(|key| self.few.get_mut(key)) {
            Some(place) => *place.get_or_insert(next),
            None => *self.many.entry(key).or_insert(next),
        };
        if place == next {
            let codes = self.columns.iter().map(|column| column.values[column.codes[index] as usize].clone());
            let group = self.names.iter().cloned().zip(codes).collect();
            self.found.push(GroupCoverage { group, scope: 0, complete: 0, missing: Vec::new() });
        }
        let Some(group) = self.found.get_mut(place as usize) else { return };
        group.scope += 1;
        if is_missing {
            group.missing.push(id.clone());
        } else {
            group.complete += 1;
        }
    }

    /// All groups in the order of their values; of very many, only those that miss something.
    pub(crate) fn finish(self) -> Vec<GroupCoverage> {
        let is_many = self.found.len() > GROUPS_MAX;
        let found = self.found.into_iter().filter(|group| !is_many || !group.missing.is_empty());
        let mut groups: Vec<GroupCoverage> = found.collect();
        groups.sort_by(|left, right| left.group.cmp(&right.group));
        groups
    }
}
