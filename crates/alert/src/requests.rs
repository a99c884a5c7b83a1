//! What people ask of the watch: they may ask any node, and the one that acts does it.
//!
//! At another node the request becomes a record of the state log, which the acting node answers
//! with the record's next version. What a person is told is done is durable.

use std::time::Duration;

use rollcall_books::{misfits, restate, stopped};
use rollcall_lake::{LakeError, RecordKind};
use rollcall_registry::HqError;
use rollcall_roll::{Condition, Incident, Kind};
use rollcall_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alerts::Alerts;

/// The kind of the records that requests are kept in.
pub(crate) const REQUEST: RecordKind<Request> = RecordKind::new("request");
/// How long a node waits for the answer of the one that acts.
const WAIT_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a person wants done about an incident.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum IncidentCommand {
    /// The person takes it.
    Acknowledge {
        /// Who takes it.
        by: String,
        /// What they say about it.
        reason: String,
        /// It is theirs until then.
        until: Timestamp,
    },
    /// The person says what it was.
    Explain {
        /// Whether it was normal; else it was an outage.
        was_normal: bool,
        /// Who says so.
        by: String,
    },
}

/// A request, and its answer once there is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    incident: u64,
    #[serde(rename = "wish")]
    command: IncidentCommand,
    #[serde(rename = "answer")]
    outcome: Option<CommandOutcome>,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandOutcome {
    /// It is done.
    Done {
        /// Whoever took the incident has it until then; none if nobody took it.
        until: Option<Timestamp>,
    },
    /// There is no such incident, or it is over.
    Unknown,
}

impl Alerts {
    /// Carries a command out, durably, here or at the node that acts.
    pub async fn command(&self, incident: u64, command: IncidentCommand) -> Result<CommandOutcome, HqError> {
        if self.registry.is_acting()
            && let Some(outcome) = self.carry_out(incident, &command).await?
        {
            return Ok(outcome);
        }
        let id = rollcall_runtime::new_id().simple().to_string();
        let (now, request) = (self.registry.now(), Request { incident, command, outcome: None });
        let state = self.registry.lake.state();
        state.update(|view| Ok::<_, LakeError>((vec![view.next(REQUEST, &id, &request, now, "hq")?], ()))).await?;
        let answered = async {
            loop {
                let view = state.refresh().await?;
                let request = view.get(REQUEST, &id).map(|record| record.parse::<Request>()).transpose()?;
                if let Some(outcome) = request.and_then(|request| request.outcome) {
                    return Ok(outcome);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(WAIT_MAX, answered).await.unwrap_or_else(|_| {
            let text = "no node keeps the watch at the moment; what you asked is noted and done as soon as one does";
            Err(HqError::Unavailable(text.to_owned()))
        })
    }

    /// Carries a command out, durably; none if another node acts by now.
    async fn carry_out(&self, incident: u64, command: &IncidentCommand) -> Result<Option<CommandOutcome>, LakeError> {
        let registry = &self.registry;
        if let IncidentCommand::Explain { was_normal: true, by } = command {
            self.do_without(incident, by).await?;
            let known = self.watching.watch().incident(incident).cloned();
            if let Some(known) = known.filter(|known| known.kind == Kind::Condition(Condition::Misfit)) {
                let misfits = self.books.misfits.get();
                misfits::account(&registry.lake, &misfits, known.members.keys(), by, registry.now()).await?;
            }
        }
        let outcome = self.apply(incident, command);
        let changed = self.watching.watch().incident(incident).cloned();
        let is_stored = self.store(changed.as_slice(), registry.now()).await?;
        Ok(is_stored.then_some(outcome))
    }

    /// Who accounts for rows that a site is to state again and cannot does without them.
    async fn do_without(&self, incident: u64, by: &str) -> Result<(), LakeError> {
        let known = self.watching.watch().incident(incident).cloned();
        let is_it = |known: &Incident| known.kind == Kind::Condition(Condition::Quarantined) && known.is_open();
        let Some(known) = known.filter(is_it) else { return Ok(()) };
        let (lake, now) = (&self.registry.lake, || self.registry.now());
        let (roster, captured) = (self.registry.roster.all(), self.books.captured.all());
        for (site, record) in known.members.keys().filter_map(|site| Some((site, roster.get(site)?))) {
            let view = lake.state().view();
            let mut tables = restate::uncaptured(lake, &view, site, record, &captured);
            // Only what the incident said: a person answers that.
            let is_said = |table: &String| known.evidence.contains(table.as_str());
            tables.retain(is_said);
            let stopped = stopped::open(&view, &roster).remove(site).unwrap_or_default();
            // What ended need not be stated again either.
            tables.extend(stopped.into_keys().filter(is_said));
            stopped::end(lake, (site, record), &tables, by, now()).await?;
            if !tables.is_empty() {
                restate::give_up(lake, site, record, &tables, by, now()).await?;
            }
        }
        Ok(())
    }

    fn apply(&self, incident: u64, command: &IncidentCommand) -> CommandOutcome {
        let (mut watch, now) = (self.watching.watch(), self.registry.now());
        match command {
            IncidentCommand::Acknowledge { by, reason, until } => {
                match watch.acknowledge(incident, by, reason, *until, now) {
                    Some(until) => CommandOutcome::Done { until: Some(until) },
                    None => CommandOutcome::Unknown,
                }
            }
            IncidentCommand::Explain { was_normal, by } => {
                let of_hq = watch.incident(incident).filter(|known| known.kind == Kind::Hq);
                let work = of_hq.and_then(|known| known.stream.clone());
                work.iter().for_each(|work| self.registry.health.forget(work));
                let of_quota = watch.incident(incident).filter(|known| known.kind == Kind::Condition(Condition::Quota));
                if let (Some(known), true) = (of_quota, was_normal) {
                    self.books.quotas.forget(known.members.keys());
                }
                match watch.explain(incident, *was_normal, by, now) {
                    true => CommandOutcome::Done { until: None },
                    false => CommandOutcome::Unknown,
                }
            }
        }
    }

    /// Does what was asked at other nodes.
    pub(crate) async fn answer_requests(&self) {
        let registry = &self.registry;
        if registry.relay().is_none() {
            return;
        }
        let view = registry.lake.state().view();
        let open =
            view.of_kind(REQUEST).filter_map(|record| Some((record.id.to_string(), record.parse::<Request>().ok()?)));
        let open: Vec<(String, Request)> = open.filter(|(_, request)| request.outcome.is_none()).collect();
        for (id, mut request) in open {
            let answered = async {
                request.outcome = self.carry_out(request.incident, &request.command).await?;
                if request.outcome.is_some() {
                    let now = registry.now();
                    registry.acting(|view| Ok(vec![view.next(REQUEST, &id, &request, now, "hq")?])).await?;
                }
                Ok::<_, LakeError>(())
            };
            registry.health.note("do what people asked about incidents", &answered.await);
        }
    }
}
