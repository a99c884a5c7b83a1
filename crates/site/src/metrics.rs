//! What the agent's page exports for Prometheus: how the site stands, by the same report as the
//! page and `rollcall-site status`.

use prometheus_client::{
    encoding::text::encode,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::status::{Report, State};

/// The content type of [`text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const STATES: [(State, &str); 4] = [
    (State::Current, "current"),
    (State::Behind, "behind"),
    (State::CutOff, "cut-off"),
    (State::NeedsAPerson, "needs-a-person"),
];

/// A report in the text format of OpenMetrics.
pub(crate) fn text(report: &Report) -> String {
    let mut metrics = Registry::with_prefix("rollcall_agent");
    let states = Family::<Vec<(&str, &str)>, Gauge>::default();
    for (state, name) in STATES {
        states.get_or_create(&vec![("state", name)]).set(i64::from(report.state == state));
    }
    metrics.register("state", "1 for how the store stands with HQ, 0 for the other states", states);
    let build = Family::<Vec<(&str, &str)>, Gauge>::default();
    build.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION"))]).set(1);
    metrics.register("build", "1, with the version that runs", build);
    let mut gauge = |name: &str, help: &str, value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        metrics.register(name, help, gauge);
    };
    let level = u64::from(report.level.exit_code());
    gauge("level", "How bad it is: 0 current, 1 unconfirmed for too long, 2 broken", level);
    let agent = report.agent.as_ref();
    let is_connected = agent.is_some_and(|agent| agent.connected_to.is_some());
    gauge("connected", "1 while there is a connection to HQ", u64::from(is_connected));
    gauge("unconfirmed_changes", "Changes that HQ has not confirmed", report.unconfirmed_rows);
    let oldest = if report.unconfirmed_rows == 0 { 0 } else { report.oldest_unconfirmed_age_seconds };
    gauge("oldest_unconfirmed_seconds", "Age of the oldest of them", oldest);
    if let Some(agent) = agent {
        gauge("journal_head", "Position of the newest change", agent.head.0);
        let confirmed = agent.last_confirmed_at.map_or(0, |at| at.as_seconds().unsigned_abs());
        gauge("last_confirmed_timestamp_seconds", "When HQ confirmed something last, 0 if never", confirmed);
    }
    let mut text = String::new();
    // A text takes whatever is written to it.
    let _ = encode(&mut text, &metrics);
    text
}
