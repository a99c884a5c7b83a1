//! What the engine counts of questions.

use std::{fmt, time::Instant};

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

use crate::{error::QueryError, planned::Planned};

/// How planning a question ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

/// Counters of one engine; they begin at 0 with it.
#[derive(Clone)]
pub(crate) struct QueryMetrics {
    questions: Family<ByOutcome, Counter>,
    incomplete: Counter,
    planning_seconds: Histogram,
    coverage_seconds: Histogram,
    waiting: Gauge,
}

impl fmt::Debug for QueryMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryMetrics").finish_non_exhaustive()
    }
}

impl Default for QueryMetrics {
    fn default() -> Self {
        let questions = Family::<ByOutcome, Counter>::default();
        // A counter that appears with its first event hides that event from `rate()`.
        ["planned", "refused"].iter().for_each(|outcome| drop(questions.get_or_create(&ByOutcome { outcome })));
        Self {
            questions,
            incomplete: Counter::default(),
            // 1 ms to 8 s.
            planning_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            // 10 µs to 80 ms.
            coverage_seconds: Histogram::new(exponential_buckets(0.000_01, 2.0, 14)),
            waiting: Gauge::default(),
        }
    }
}

/// Counts a question while it waits or is planned, also if whoever asked goes away meanwhile.
pub(crate) struct Waiting(Gauge);

impl Waiting {
    pub(crate) fn new(metrics: &QueryMetrics) -> Self {
        metrics.waiting.inc();
        Self(metrics.waiting.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl QueryMetrics {
    /// Notes how planning a question ended that began then.
    pub(crate) fn note(&self, began: Instant, planned: &Result<Planned, QueryError>) {
        let outcome = if planned.is_ok() { "planned" } else { "refused" };
        self.questions.get_or_create(&ByOutcome { outcome }).inc();
        if let Ok(planned) = planned {
            self.planning_seconds.observe(began.elapsed().as_secs_f64());
            self.coverage_seconds.observe(planned.took.coverage.as_secs_f64());
            self.incomplete.inc_by(u64::from(!planned.coverage.is_complete()));
        }
    }

    pub(crate) fn register(&self, metrics: &mut Metrics) {
        let all = metrics.sub_registry_with_prefix("rollcall");
        all.register("questions", "Questions, HQ's own among them, by how planning ended", self.questions.clone());
        let help = "Questions whose answer lacked a site or many values";
        all.register("questions_incomplete", help, self.incomplete.clone());
        let help = "How long planning a question took, with waiting for a place";
        all.register("question_planning_seconds", help, self.planning_seconds.clone());
        let help = "How long it took to say what an answer lacks";
        all.register("question_coverage_seconds", help, self.coverage_seconds.clone());
        all.register("questions_waiting", "Questions that wait for a place, or are planned", self.waiting.clone());
    }
}
