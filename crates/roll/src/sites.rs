//! All sites on the watch: which number each has, what they share, which of them are awaited,
//! recovering or chronic.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    hash::BuildHasher,
};

use hashbrown::{DefaultHashBuilder, HashTable};
use rollcall_types::SiteId;

use crate::{group::Trait, site::Site};

/// A site on the watch, by its place in it. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SiteNumber(pub(crate) u32);

/// See above.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    all: Vec<Site>,
    index: Index,
    pub(crate) traits: Traits,
    /// Sites not heard yet, by the instant (Unix seconds) at which that becomes an incident.
    awaited: BinaryHeap<Reverse<(i64, SiteNumber)>>,
    pub(crate) recovering: BTreeSet<SiteNumber>,
    /// Sites that fall silent again and again.
    pub(crate) chronic: BTreeSet<SiteNumber>,
}

impl std::ops::Index<SiteNumber> for Sites {
    type Output = Site;

    fn index(&self, number: SiteNumber) -> &Site {
        &self.all[number.0 as usize]
    }
}

impl std::ops::IndexMut<SiteNumber> for Sites {
    fn index_mut(&mut self, number: SiteNumber) -> &mut Site {
        &mut self.all[number.0 as usize]
    }
}

impl Sites {
    /// The number of a site, if it is on the watch.
    pub(crate) fn number(&self, id: &SiteId) -> Option<SiteNumber> {
        self.index.get(id, &self.all)
    }

    /// Puts a site on the watch that is not yet.
    pub(crate) fn add(&mut self, site: Site) -> SiteNumber {
        let number = SiteNumber(self.all.len() as u32);
        self.all.push(site);
        self.index.insert(number, &self.all);
        number
    }

    /// All but those that were retired.
    pub(crate) fn watched(&self) -> impl Iterator<Item = &Site> {
        self.all.iter().filter(|site| !site.retired)
    }

    /// How many have this; none is everybody's.
    pub(crate) fn having(&self, shared: Option<Trait>) -> usize {
        shared.map_or_else(|| self.watched().count(), |shared| self.traits.sites(shared))
    }

    /// All of them, to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (SiteNumber, &mut Site)> {
        (0..).map(SiteNumber).zip(&mut self.all)
    }

    /// The site is to be heard before that instant, Unix seconds.
    pub(crate) fn awaits(&mut self, number: SiteNumber, due: i64) {
        self.awaited.push(Reverse((due, number)));
    }

    /// A site that was to be heard by `now`, each once.
    pub(crate) fn take_due(&mut self, now: i64) -> Option<SiteNumber> {
        let Reverse((due, _)) = self.awaited.peek()?;
        if *due > now {
            return None;
        }
        self.awaited.pop().map(|Reverse((_, number))| number)
    }

    /// What the roster says that a site shares, and of what was observed that of which the roster
    /// has no attribute of the name.
    pub(crate) fn set_shares(&mut self, number: SiteNumber, said: &[Trait], observed: &[Trait]) {
        let name = |shared: Trait| self.traits.get(shared).0.as_str();
        let is_unsaid = |shared: &Trait| !said.iter().any(|said| name(*said) == name(*shared));
        let observed: Vec<Trait> = observed.iter().copied().filter(is_unsaid).collect();
        self[number].set_shares(said, &observed);
    }

    /// Counts a site in (`sign` 1) or out (-1) of those that have what it shares.
    pub(crate) fn count_traits(&mut self, number: SiteNumber, sign: isize) {
        for shared in self.all[number.0 as usize].shares() {
            self.traits.count(*shared, sign);
        }
    }

    /// The kind of a site, as families are named by.
    pub(crate) fn kind_of(&self, number: SiteNumber) -> &str {
        self[number].said().last().map_or("", |last| self.traits.get(*last).1.as_str())
    }
}

/// What sites share: names and values of attributes by number, and how many sites have each.
#[derive(Debug, Default)]
pub(crate) struct Traits {
    all: Vec<(String, String)>,
    numbers: HashMap<(String, String), Trait>,
    sites: Vec<usize>,
}

impl Traits {
    /// The number of a name and a value.
    pub(crate) fn number(&mut self, key: (String, String)) -> Trait {
        *self.numbers.entry(key.clone()).or_insert_with(|| {
            self.all.push(key);
            self.sites.push(0);
            self.all.len() as Trait - 1
        })
    }

    /// The same, if any site ever had it.
    pub(crate) fn known(&self, name: String, value: String) -> Option<Trait> {
        self.numbers.get(&(name, value)).copied()
    }

    pub(crate) fn get(&self, shared: Trait) -> &(String, String) {
        &self.all[shared as usize]
    }

    /// How many sites have it.
    pub(crate) fn sites(&self, shared: Trait) -> usize {
        self.sites[shared as usize]
    }

    fn count(&mut self, shared: Trait, sign: isize) {
        let count = &mut self.sites[shared as usize];
        *count = count.saturating_add_signed(sign);
    }
}

/// The number of each site, by its id. The ids themselves are in the sites, not here once more.
#[derive(Debug, Default)]
struct Index {
    numbers: HashTable<SiteNumber>,
    hasher: DefaultHashBuilder,
}

impl Index {
    fn get(&self, id: &SiteId, sites: &[Site]) -> Option<SiteNumber> {
        self.numbers.find(self.hasher.hash_one(id), |number| sites[number.0 as usize].id == *id).copied()
    }

    /// Takes in the site of this number, which is not in it.
    fn insert(&mut self, number: SiteNumber, sites: &[Site]) {
        let hash = |number: &SiteNumber| self.hasher.hash_one(&sites[number.0 as usize].id);
        self.numbers.insert_unique(hash(&number), number, hash);
    }
}
