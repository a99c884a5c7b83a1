//! The watch of a node: it is fed with what was heard, and follows the roster.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rollcall_lake::Lake;
use rollcall_registry::{Registry, Sites};
use rollcall_roll::{Condition, Decision, Incident, Kind, Remembered, Thresholds, Watch, WatchConfig};
use rollcall_types::{SiteId, Timestamp};

use crate::{
    calendar::{Holidays, holidays, spec},
    observe::observe,
    store::{last_sign, numbers_from, stored_incidents, stored_tuning},
};

/// When silence counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WatchSettings {
    /// Nothing heard for this long, in the site's business time, is silence.
    pub silent_after: Duration,
    /// How often sites say where they stand.
    pub beacon_interval: Duration,
    /// Nines of surprise at which a silence is an incident, and at which people are called. If they
    /// are not said, the alarm budget sets them anew each week, from the defaults on.
    pub red_and_page: Option<(f64, f64)>,
}

impl WatchSettings {
    /// Silence after so long, in whole contact units: a unit is a minute, less where silence must
    /// show sooner.
    fn watch_config(&self) -> WatchConfig {
        let contact_minutes = Thresholds::default().contact_minutes;
        let unit = (self.silent_after.as_secs_f64() / contact_minutes).clamp(1.0, 60.0) as i64;
        let per_hour = 3600.0 / (unit as f64).max(self.beacon_interval.as_secs_f64());
        let longer = (self.silent_after.as_secs_f64() / unit as f64).max(contact_minutes);
        let usual = Thresholds::default();
        let (red, page) = self.red_and_page.unwrap_or((usual.red, usual.page));
        WatchConfig {
            contact_unit: unit,
            contacts_per_hour: per_hour as f32,
            thresholds: Thresholds { contact_minutes: longer, red, page, ..usual },
            tunes: self.red_and_page.is_none(),
            ..WatchConfig::default()
        }
    }
}

/// The watch of a node.
#[derive(Debug)]
pub struct Watching {
    watch: Mutex<Watch>,
    /// The roster and holidays as the watch knows them.
    known: Mutex<(Arc<Sites>, BTreeMap<String, Holidays>)>,
}

/// What the watch said in a tick.
#[derive(Debug)]
pub(crate) struct TickOutcome {
    /// What people are to be told.
    pub(crate) decisions: Vec<Decision>,
    /// Incidents that changed, to be stored.
    pub(crate) incidents: Vec<Incident>,
    /// Thresholds were set anew.
    pub(crate) is_tuned: bool,
}

impl Watching {
    /// A watch that takes up what is in the lake.
    pub(crate) fn new(registry: &Registry, rhythms: &[(SiteId, Remembered)], settings: &WatchSettings) -> Self {
        let (lake, roster, now) = (&registry.lake, registry.roster.all(), registry.now());
        let view = lake.state().view();
        let mut watch = Watch::new(settings.watch_config(), last_sign(lake).unwrap_or(now));
        let holidays = holidays(lake);
        for (id, record) in roster.iter() {
            watch.set_site(spec(id, record, &holidays, now));
            if let Some(retired) = &record.retired {
                watch.retire(id, "", retired.at);
            }
        }
        stored_incidents(&view).into_iter().for_each(|incident| watch.restore_incident(incident));
        watch.number_incidents_from(numbers_from(&view));
        for (site, remembered) in rhythms {
            watch.restore(site, remembered.clone());
        }
        watch.restored();
        watch.restore_tuning(stored_tuning(&view));
        Self { watch: Mutex::new(watch), known: Mutex::new((roster, holidays)) }
    }

    /// Sites of which an incident of this kind is open.
    pub fn open_of(&self, condition: Condition) -> HashSet<SiteId> {
        let watch = self.watch();
        let is_open = |incident: &&Incident| incident.kind == Kind::Condition(condition) && incident.is_open();
        watch.incidents().filter(is_open).flat_map(|incident| incident.members.keys().cloned()).collect()
    }

    /// The watch itself. It is locked before the ledger where both are needed.
    pub fn watch(&self) -> MutexGuard<'_, Watch> {
        // A panic in it would be a bug; what it knows is still the best there is.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets time pass up to `now`: looks at what was heard since the last tick.
    pub(crate) fn tick(&self, registry: &Registry, now: Timestamp) -> TickOutcome {
        let (roster, heard) = (registry.roster.all(), registry.for_watch.take());
        let mut watch = self.watch();
        self.follow(&mut watch, &registry.lake, &roster, now);
        for (site, at, what) in heard {
            observe(&mut watch, &site, at, what);
        }
        let before = watch.thresholds();
        watch.tick(now);
        let after = watch.thresholds();
        if after != before {
            tracing::warn!(red = after.red, page = after.page, "thresholds are set anew, by the alarm budget");
        }
        TickOutcome { decisions: watch.take_decisions(), incidents: watch.take_changed(), is_tuned: after != before }
    }

    /// Takes over what changed on the roster.
    fn follow(&self, watch: &mut Watch, lake: &Lake, roster: &Arc<Sites>, now: Timestamp) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let holidays = holidays(lake);
        let same_days = known.1 == holidays;
        if Arc::ptr_eq(&known.0, roster) && same_days {
            return;
        }
        for (id, record) in roster.iter() {
            let before = known.0.get(id);
            if same_days && before.is_some_and(|before| Arc::ptr_eq(before, record)) {
                continue;
            }
            watch.set_site(spec(id, record, &holidays, now));
            if let Some(retired) =
                record.retired.as_ref().filter(|_| before.is_some_and(|known| known.retired.is_none()))
            {
                watch.retire(id, &retired.reason, now);
            }
            if record.retired.is_none() && before.is_some_and(|known| known.retired.is_some()) {
                watch.take_back(id, now);
            }
        }
        *known = (roster.clone(), holidays);
    }

    /// Everything to be kept of streams.
    pub(crate) fn remembered(&self) -> Vec<(SiteId, Remembered)> {
        let roster = self.known.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        let watch = self.watch();
        roster.keys().filter_map(|site| Some((site.clone(), watch.remember(site)?))).collect()
    }
}
