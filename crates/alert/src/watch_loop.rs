//! Lets time pass for the watch each second, stores what it says, and has people told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rollcall_lake::{LakeError, RecordKind, StateView};
use rollcall_registry::health::Told;
use rollcall_roll::Decision;
use rollcall_types::{Timestamp, describe};

use crate::{alerts::Alerts, watching::TickOutcome};

/// What nodes that do not act cannot do.
const HEALTH: RecordKind<BTreeMap<String, String>> = RecordKind::new("health");
/// Comes before the name of the node that cannot do something, where that is not the one that acts.
const AT_NODE: &str = " at node ";
/// What [`rollcall_registry::Health`] calls it.
const STORE_INCIDENTS: &str = "store incidents";
/// How often time passes for the watch.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// How often it is stored that the watch is alive.
const ALIVE_EVERY: i64 = 30;
/// How often rhythms are stored.
const RHYTHMS_EVERY: i64 = 6 * 3600;

/// What a loop knows of its rounds before.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// When it was stored last that the watch is alive.
    alive: i64,
    /// When rhythms were stored last.
    rhythms: i64,
    /// What the node that acts was told that this one cannot do.
    reported: BTreeMap<String, String>,
}

impl Rounds {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { alive: 0, rhythms: now.as_seconds(), reported: BTreeMap::new() }
    }

    /// One round: a tick, and what follows from it.
    pub(crate) async fn round(&mut self, alerts: &Arc<Alerts>, is_ingest_well: bool) {
        let registry = &alerts.registry;
        let now = registry.now();
        // Only a deaf HQ asks whether backlogs of its own absence still come in.
        let is_deaf = alerts.watching.watch().guard().deaf().is_some();
        let draining = is_deaf && registry.ledger.is_draining(now);
        alerts.watching.watch().set_ingest(is_ingest_well, draining);
        registry.health.look_at_clock(&registry.clock, &registry.sessions);
        let failing = registry.health.told(now);
        alerts.note_failing_works(&failing, now);
        let worker = alerts.clone();
        let ticked = rollcall_runtime::blocking(move || worker.watching.tick(&worker.registry, now));
        let Ok(outcome) = ticked.await else {
            tracing::error!("the watch failed; it goes on");
            return;
        };
        if !registry.is_acting() {
            self.report(alerts, &failing, now).await;
            return;
        }
        alerts.answer_requests().await;
        self.act_on(alerts, outcome, now).await;
    }

    /// Stores what the watch said, and has people told of it.
    async fn act_on(&mut self, alerts: &Arc<Alerts>, outcome: TickOutcome, now: Timestamp) {
        let now_s = now.as_seconds();
        let is_due = now_s - self.alive >= ALIVE_EVERY;
        if is_due || !outcome.incidents.is_empty() {
            match alerts.store(&outcome.incidents, now).await {
                Ok(true) => {
                    self.alive = now_s;
                    alerts.registry.health.done(STORE_INCIDENTS);
                }
                // What this node decided counts no more.
                Ok(false) => return,
                Err(error) => {
                    alerts.registry.health.failed(STORE_INCIDENTS, &describe(&error));
                    alerts.watching.watch().keep_changed(&outcome.incidents);
                }
            }
        }
        for decision in outcome.decisions {
            alerts.announce(&decision);
        }
        if outcome.is_tuned {
            alerts.store_tuning().await;
        }
        if now_s - self.rhythms >= RHYTHMS_EVERY {
            self.rhythms = now_s;
            alerts.store_tuning().await;
            alerts.store_rhythms().await;
        }
    }

    /// Tells the node that acts what this one cannot do.
    async fn report(&mut self, alerts: &Alerts, own: &Told, now: Timestamp) {
        let Some(relay) = alerts.registry.relay() else { return };
        let failing = own.iter().filter_map(|(work, problem)| Some((work.clone(), problem.clone()?)));
        let failing: BTreeMap<String, String> = failing.collect();
        if failing == self.reported {
            return;
        }
        let record =
            |view: &StateView| Ok::<_, LakeError>((vec![view.next(HEALTH, relay.node(), &failing, now, "hq")?], ()));
        if alerts.registry.lake.state().update(record).await.is_ok() {
            self.reported = failing;
        }
    }
}

impl Alerts {
    /// Runs the watch until the node stops. `is_ingest_well` says whether rows that come can be
    /// stored: while they cannot, HQ is deaf.
    pub async fn run_watch(self: Arc<Self>, is_ingest_well: impl Fn() -> bool + Send) {
        let mut timer = rollcall_runtime::every(TICK_EVERY);
        let mut rounds = Rounds::new(self.registry.now());
        loop {
            let due = tokio::select! {
                () = self.registry.stop.cancelled() => break,
                due = timer.tick() => due,
            };
            self.metrics.ticks.inc();
            if due.elapsed() > TICK_EVERY {
                self.metrics.ticks_late.inc();
            }
            rounds.round(&self, is_ingest_well()).await;
        }
    }

    /// Stores what must survive a stop.
    pub async fn stop(&self) {
        if !self.registry.is_acting() {
            return;
        }
        let changed = self.watching.watch().take_changed();
        if let Err(error) = self.store(&changed, self.registry.now()).await {
            tracing::error!(error = %describe(&error), "the watch's state could not be stored");
        }
        self.store_tuning().await;
        self.store_rhythms().await;
    }

    /// Opens and ends incidents of what HQ itself cannot do, at this node and, if it acts, at the
    /// others.
    fn note_failing_works(&self, own: &Told, now: Timestamp) {
        let mut watch = self.watching.watch();
        for (work, problem) in own.iter().filter(|(_, problem)| problem.is_some()) {
            watch.set_hq(work, problem.as_deref(), now);
        }
        let open = watch.open_of_hq();
        for work in open.iter().filter(|work| own.get(*work).is_some_and(Option::is_none)) {
            watch.set_hq(work, None, now);
        }
        let Some(relay) = self.registry.relay().filter(|_| self.registry.is_acting()) else { return };
        let view = self.registry.lake.state().view();
        let is_other = |node: &str| node != relay.node() && relay.is_alive(node);
        let others = view.of_kind(HEALTH).filter(|record| is_other(&record.id));
        let of_others: BTreeMap<String, String> = others
            .flat_map(|record| {
                let failing: BTreeMap<String, String> = record.parse().unwrap_or_default();
                let node = record.id.to_string();
                failing.into_iter().map(move |(work, problem)| (format!("{work}{AT_NODE}{node}"), problem))
            })
            .collect();
        for (work, problem) in &of_others {
            watch.set_hq(work, Some(problem), now);
        }
        // A node that is gone cannot fail, nor succeed.
        for work in open.iter().filter(|work| work.contains(AT_NODE) && !of_others.contains_key(*work)) {
            watch.set_hq(work, None, now);
        }
    }

    /// Has people told what the watch decided.
    pub(crate) fn announce(self: &Arc<Self>, decision: &Decision) {
        let incident = self.watching.watch().incident(decision.incident).cloned();
        let Some(incident) = incident else { return };
        self.notify(decision, &incident, &self.registry.roster.all());
        tracing::warn!(
            incident = incident.id,
            notice = ?decision.notice,
            level = decision.level,
            cause = incident.cause.map(|cause| cause.to_string()),
            "{}",
            incident.evidence
        );
    }
}
