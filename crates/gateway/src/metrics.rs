//! What the way of rows into the lake counts.

use std::fmt;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry as Metrics,
};
use rollcall_wire::Refusal;

/// By which reason a site was turned away.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByCode {
    pub(crate) code: &'static str,
}

/// Counters of this process; they begin at 0 with it.
#[derive(Clone)]
pub(crate) struct IngestMetrics {
    pub(crate) batches: Counter,
    pub(crate) rows: Counter,
    pub(crate) bytes: Counter,
    pub(crate) quarantined: Counter,
    pub(crate) refusals: Family<ByCode, Counter>,
    pub(crate) waiting_parts: Gauge,
    pub(crate) commit_seconds: Histogram,
}

impl fmt::Debug for IngestMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IngestMetrics").field("batches", &self.batches.get()).finish_non_exhaustive()
    }
}

impl Default for IngestMetrics {
    fn default() -> Self {
        let refusals = Family::<ByCode, Counter>::default();
        // A counter that appears with its first event hides that event from `rate()`.
        Refusal::ALL.iter().for_each(|refusal| drop(refusals.get_or_create(&ByCode { code: refusal.code() })));
        Self {
            batches: Counter::default(),
            rows: Counter::default(),
            bytes: Counter::default(),
            quarantined: Counter::default(),
            refusals,
            waiting_parts: Gauge::default(),
            // 5 ms to 40 s.
            commit_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 14)),
        }
    }
}

impl IngestMetrics {
    pub(crate) fn register(&self, metrics: &mut Metrics) {
        let all = metrics.sub_registry_with_prefix("rollcall_ingest");
        all.register("batches", "Batches that sites sent", self.batches.clone());
        all.register("rows", "Rows that became durable", self.rows.clone());
        all.register("bytes", "Bytes of batches as they came", self.bytes.clone());
        all.register("quarantined_batches", "Batches of which not everything could be taken", self.quarantined.clone());
        all.register("refusals", "Sites turned away, by the code of the reason", self.refusals.clone());
        all.register("waiting_parts", "Parts of batches that are not in the lake yet", self.waiting_parts.clone());
        all.register("commit_seconds", "How long commits of rows took", self.commit_seconds.clone());
    }
}
