//! All that a node exports.

use std::{fmt, sync::Arc};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry as Metrics};
use rollcall_alert::Alerts;
use rollcall_gateway::Ingest;
use rollcall_publish::Publisher;
use rollcall_registry::{
    Registry,
    metrics::{gauge, gauges, register},
};

use crate::config::Allocator;

/// Where the system tells how much memory a process has, in pages.
const MEMORY: &str = "/proc/self/statm";
const FILES: &str = "/proc/self/fd";

/// The metrics of these parts, and of the process.
pub(crate) fn of(
    registry: &Arc<Registry>,
    alerts: &Arc<Alerts>,
    publisher: &Arc<Publisher>,
    ingest: &Ingest,
    allocator: Option<Allocator>,
) -> Metrics {
    let mut metrics = Metrics::default();
    register(registry, &mut metrics);
    alerts.register(&mut metrics);
    ingest.register(&mut metrics);
    publisher.engine.register(&mut metrics);
    publisher.register(&mut metrics);
    metrics.register_collector(Box::new(Process { allocator }));
    metrics
}

#[derive(Debug)]
struct Process {
    allocator: Option<Allocator>,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        let help = ("rollcall_build", "1, with the version that runs");
        gauges(&mut encoder, help, std::iter::once((version, 1.0)))?;
        if let Some(bytes) = resident() {
            let help = "Bytes of memory that the process has";
            gauge(&mut encoder, "rollcall_process_resident_bytes", help, bytes)?;
        }
        if let Ok(files) = std::fs::read_dir(FILES) {
            gauge(
                &mut encoder,
                "rollcall_process_open_files",
                "Files and connections it has open",
                files.count() as f64,
            )?;
        }
        if let Some(bytes) = self.allocator.and_then(|allocated| allocated()) {
            let help = "Bytes that the process asked the allocator for and holds";
            gauge(&mut encoder, "rollcall_allocator_allocated_bytes", help, bytes as f64)?;
        }
        Ok(())
    }
}

fn resident() -> Option<f64> {
    let pages: f64 = std::fs::read_to_string(MEMORY).ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as f64)
}
