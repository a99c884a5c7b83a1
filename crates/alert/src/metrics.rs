//! What the watch and those whom it tells export.

use std::{collections::BTreeMap, fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet},
    metrics::{counter::Counter, family::Family},
    registry::Registry as Metrics,
};
use rollcall_registry::metrics::{gauge, gauges};

use crate::alerts::Alerts;

/// How an attempt to tell people ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByOutcome {
    pub(crate) outcome: &'static str,
}

/// Counters of this process; they begin at 0 with it.
#[derive(Debug, Clone)]
pub(crate) struct AlertMetrics {
    pub(crate) ticks: Counter,
    pub(crate) ticks_late: Counter,
    pub(crate) notifications: Family<ByOutcome, Counter>,
}

impl Default for AlertMetrics {
    fn default() -> Self {
        let notifications = Family::<ByOutcome, Counter>::default();
        // A counter that appears with its first event hides that event from `rate()`.
        ["sent", "failed"].iter().for_each(|outcome| drop(notifications.get_or_create(&ByOutcome { outcome })));
        Self { ticks: Counter::default(), ticks_late: Counter::default(), notifications }
    }
}

impl AlertMetrics {
    /// Notes how an attempt to tell people ended.
    pub(crate) fn notified(&self, outcome: &'static str) {
        self.notifications.get_or_create(&ByOutcome { outcome }).inc();
    }
}

impl Alerts {
    /// Adds what is counted here.
    pub fn register(self: &Arc<Self>, metrics: &mut Metrics) {
        let own = &self.metrics;
        metrics.register("rollcall_watch_ticks", "Seconds that the watch let pass", own.ticks.clone());
        let help = "Seconds that came more than a second late";
        metrics.register("rollcall_watch_ticks_late", help, own.ticks_late.clone());
        let help = "Attempts to tell people, by how they ended";
        metrics.register("rollcall_notifications", help, own.notifications.clone());
        metrics.register_collector(Box::new(Exported(self.clone())));
    }
}

#[derive(Debug)]
struct Exported(Arc<Alerts>);

impl Collector for Exported {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut states: BTreeMap<String, u64> = BTreeMap::new();
        for entry in self.0.roll() {
            *states.entry(entry.state.to_string()).or_default() += 1;
        }
        let states = states.into_iter().map(|(state, sites)| (vec![("state", state)], sites as f64));
        gauges(&mut encoder, ("rollcall_sites", "Sites of the roll, by state"), states)?;
        let mut open: BTreeMap<(String, u8), u64> = BTreeMap::new();
        for incident in self.0.incidents().iter().filter(|incident| incident.is_open()) {
            *open.entry((incident.kind.to_string(), incident.level)).or_default() += 1;
        }
        let open = open
            .into_iter()
            .map(|((kind, level), incidents)| (vec![("kind", kind), ("level", level.to_string())], incidents as f64));
        gauges(&mut encoder, ("rollcall_incidents_open", "Open incidents, by kind and level"), open)?;
        let is_blind = self.0.watching.watch().guard().deaf().is_some();
        let help = "1 while HQ itself cannot hear and says nothing of any site";
        gauge(&mut encoder, "rollcall_watch_blind", help, f64::from(u8::from(is_blind)))
    }
}
