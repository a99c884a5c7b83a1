//! A fleet and the watch over it, minute by minute.

use std::collections::BTreeMap;

use rollcall_roll::{Decision, Incident, Kind, Notice, Watch, WatchConfig};

use crate::world::{Fault, TABLES, World, at};

pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) watch: Watch,
    pub(crate) told: Vec<Decision>,
    pub(crate) incidents: BTreeMap<u64, Incident>,
}

impl Run {
    pub(crate) fn new(seed: u64, sites: usize, zones: &[chrono_tz::Tz]) -> Self {
        Self::of(World::new(seed, sites, zones, false))
    }

    pub(crate) fn of(world: World) -> Self {
        let mut watch = Watch::new(WatchConfig::default(), at(0));
        for site in &world.sites {
            watch.set_site(site.spec.clone());
        }
        Self { world, watch, told: Vec::new(), incidents: BTreeMap::new() }
    }

    pub(crate) fn run(&mut self, from: i64, to: i64, faults: &[Fault], hears: impl Fn(usize, i64) -> bool) {
        for minute in from..to {
            self.watch.tick(at(minute));
            let mut said = Vec::new();
            self.world.minute(minute, faults, |site, table| said.push((site, table)));
            for (site, table) in said.into_iter().filter(|(site, _)| hears(*site, minute)) {
                let stream = table.map_or("contact", |table| TABLES[table].name);
                self.watch.event(&self.world.sites[site].spec.id, stream, at(minute), 1.0);
            }
            self.told.extend(self.watch.take_decisions());
            self.incidents.extend(self.watch.take_changed().into_iter().map(|incident| (incident.id, incident)));
        }
    }

    /// Forgets what was told so far.
    pub(crate) fn settle(&mut self) {
        self.told.clear();
        self.incidents.clear();
    }

    pub(crate) fn pages(&self, kind: Kind) -> usize {
        let opened = self.told.iter().filter(|decision| decision.notice == Notice::Opened);
        opened.filter(|decision| self.incidents.get(&decision.incident).is_some_and(|known| known.kind == kind)).count()
    }

    pub(crate) fn groups(&self) -> Vec<String> {
        let groups = self.incidents.values().filter(|incident| incident.kind == Kind::Group);
        groups
            .filter_map(|group| {
                let attribute = group.attribute.as_ref()?;
                Some(format!("{} = {} ({} sites)", attribute.name, attribute.value, group.members.len()))
            })
            .collect()
    }
}
