//! Metrics of the registry and of the lake, and how every part writes its own.
//!
//! A metric has a base unit (seconds, bytes), and no label ever names a site: a company has tens of
//! thousands of them. What is counted is in `docs/metrics.md`.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry as Metrics,
};
use rollcall_lake::Table;

use crate::registry::Registry;

/// Writes a value that goes up and down.
pub fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// Writes one gauge for each set of labels.
pub fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    values: impl Iterator<Item = (Vec<(&'a str, String)>, f64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Writes one counter for each set of labels.
pub fn counters<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    values: impl Iterator<Item = (Vec<(&'a str, String)>, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Adds what a registry and its lake have to say.
pub fn register(registry: &Arc<Registry>, metrics: &mut Metrics) {
    metrics.register_collector(Box::new(Exported(registry.clone())));
}

#[derive(Debug)]
struct Exported(Arc<Registry>);

impl Collector for Exported {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        node(&self.0, &mut encoder)?;
        lake(&self.0, &mut encoder)
    }
}

fn node(registry: &Registry, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let listed = registry.roster.all().values().filter(|record| record.retired.is_none()).count();
    gauge(encoder, "rollcall_sites_listed", "Sites on the roster that are not retired", listed as f64)?;
    let connected = registry.sessions.count();
    gauge(encoder, "rollcall_sites_connected", "Sites connected to this node", connected as f64)?;
    let strangers = registry.ledger.unknown_senders().len();
    gauge(encoder, "rollcall_unknown_senders", "Senders that are not on the roster", strangers as f64)?;
    let acts = f64::from(u8::from(registry.is_acting()));
    gauge(encoder, "rollcall_node_acts", "1 on the node that keeps the watch, 0 on the others", acts)?;
    let nodes = registry.relay().map_or(1, |relay| relay.nodes().len());
    gauge(encoder, "rollcall_nodes", "Nodes of this HQ that are alive, this one among them", nodes as f64)?;
    let waiting = registry.relay().map_or(0, |relay| relay.waiting());
    gauge(encoder, "rollcall_relay_waiting_facts", "Facts that the other nodes are not told yet", waiting as f64)?;
    let failing = registry.health.told(registry.now()).values().filter(|problem| problem.is_some()).count();
    gauge(encoder, "rollcall_failing_works", "Works that HQ has not been able to do for a minute", failing as f64)
}

fn lake(registry: &Registry, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let own = [registry.lake.site_log(), registry.lake.state().table(), registry.lake.audit()];
    let tables: Vec<Arc<Table>> = registry.lake.tables().into_values().chain(own.into_iter().cloned()).collect();
    let of = |value: fn(&Table) -> f64| tables.iter().map(move |table| (label(table), value(table)));
    let counted = |value: fn(&Table) -> u64| tables.iter().map(move |table| (label(table), value(table)));
    let aside = tables.iter().filter(|table| table.set_aside().is_some()).count();
    gauge(encoder, "rollcall_lake_tables_set_aside", "Tables that are not read or written", aside as f64)?;
    let help = ("rollcall_lake_version", "Newest version of a table");
    gauges(encoder, help, of(|table| table.snapshot().version() as f64))?;
    let help = ("rollcall_lake_files", "Data files of a table's newest version");
    gauges(encoder, help, of(|table| table.snapshot().files().count() as f64))?;
    let help = ("rollcall_lake_bytes", "Bytes of the data files of a table's newest version");
    gauges(encoder, help, of(|table| table.snapshot().files().map(|file| file.size as f64).sum()))?;
    let help = ("rollcall_lake_commits", "Log entries that this node wrote");
    counters(encoder, help, counted(|table| table.counts().commits))?;
    let help = ("rollcall_lake_conflicts", "Log entries that another process was ahead with");
    counters(encoder, help, counted(|table| table.counts().conflicts))?;
    let help = ("rollcall_lake_compactions", "Merges of data files that this node committed");
    counters(encoder, help, counted(|table| table.counts().compactions))?;
    let help = ("rollcall_lake_compacted_files", "Data files that were merged into larger ones");
    counters(encoder, help, counted(|table| table.counts().compacted_files))
}

fn label(table: &Table) -> Vec<(&'static str, String)> {
    vec![("table", table.root().to_string())]
}
