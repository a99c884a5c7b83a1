//! What sites share with others.

use std::collections::BTreeMap;

use rollcall_types::nearest;
use serde::{Deserialize, Serialize};

/// Attributes that mean something to HQ.
const OWN: [&str; 6] = ["hours", "tz", "holidays", "go_live", "country", "state"];

/// The attribute of HQ's own that may be meant by a name that means nothing to HQ.
pub fn meant_attribute(name: &str) -> Option<&'static str> {
    let is_one = OWN.contains(&name) || name == "county";
    if is_one { None } else { nearest(name, OWN) }
}

/// Names and values, by name. A node holds those of all sites, so they take what they take and no
/// more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Attributes(Box<[(Box<str>, Box<str>)]>);

impl Attributes {
    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|(known, _)| known.as_ref().cmp(name)).ok()?;
        Some(&self.0[place].1)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_ref())
    }

    /// As a map.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    /// These with changes: a value in the place of the one there is, none where that is to go.
    pub fn changed(&self, changes: &BTreeMap<String, Option<String>>) -> Self {
        let mut all = self.to_map();
        for (name, value) in changes {
            match value {
                Some(value) => all.insert(name.clone(), value.clone()),
                None => all.remove(name),
            };
        }
        all.into()
    }

    /// These, and others in their place where both have a name.
    pub fn with(&self, others: &BTreeMap<String, String>) -> Self {
        let mut all = self.to_map();
        all.extend(others.clone());
        all.into()
    }
}

impl From<BTreeMap<String, String>> for Attributes {
    fn from(map: BTreeMap<String, String>) -> Self {
        Self(map.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl From<Attributes> for BTreeMap<String, String> {
    fn from(attributes: Attributes) -> Self {
        attributes.to_map()
    }
}
