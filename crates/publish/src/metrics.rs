//! What HQ's tables at the sites export.

use std::{fmt, sync::Arc};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry as Metrics};
use rollcall_registry::metrics::gauges;

use crate::publisher::Publisher;

impl Publisher {
    /// Adds what is counted here.
    pub fn register(self: &Arc<Self>, metrics: &mut Metrics) {
        metrics.register_collector(Box::new(Exported(self.clone())));
    }
}

#[derive(Debug)]
struct Exported(Arc<Publisher>);

impl Collector for Exported {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let tables = self.0.tables.all();
        let versions = tables.iter().map(|(name, known)| (label(name.as_str()), known.image.version.0 as f64));
        gauges(&mut encoder, ("rollcall_published_version", "Newest version of a published table"), versions)?;
        let late = self.0.late.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let late = late.into_iter().map(|(table, sites)| (label(table.as_str()), sites as f64));
        let help = "Sites that are heard and have not taken a published table, or their settings, in time";
        gauges(&mut encoder, ("rollcall_published_late_sites", help), late)
    }
}

fn label(table: &str) -> Vec<(&'static str, String)> {
    vec![("table", table.to_owned())]
}
