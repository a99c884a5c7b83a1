//! What people ask of the watch: they may ask any node, and the one that acts does it.
//!
//! At another node the request becomes a record of the state log, which the acting node answers
//! with the record's next version. What a person is told is done is durable.

use std::{sync::Arc, time::Duration};

use rollcall_lake::LakeError;
use rollcall_roll::{Condition, Kind};
use rollcall_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{error::HqError, misfits, node::Shared, restate, stopped, watching};

const REQUEST: &str = "request";
/// How long a node waits for the answer of the one that acts.
const WAIT_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a person wants done about an incident.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Wish {
    /// To take it, until then.
    Acknowledge { by: String, reason: String, until: Timestamp },
    /// To say whether it was normal, or an outage.
    Explain { was_normal: bool, by: String },
}

/// A request, and its answer once there is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Request {
    incident: u64,
    wish: Wish,
    answer: Option<Answer>,
}

/// What became of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Done; a lease lasts until then.
    Done { until: Option<Timestamp> },
    /// There is no such incident, or it is over.
    Unknown,
}

/// Does what is wished, durably, here or at the node that acts.
pub(crate) async fn ask(shared: &Shared, incident: u64, wish: Wish) -> Result<Answer, HqError> {
    if shared.is_acting()
        && let Some(answer) = carry_out(shared, incident, &wish).await?
    {
        return Ok(answer);
    }
    let id = uuid::Uuid::new_v4().simple().to_string();
    let (now, request) = (shared.now(), Request { incident, wish, answer: None });
    let state = shared.lake.state();
    state.update(|view| Ok::<_, LakeError>((vec![view.next(REQUEST, &id, &request, now, "hq")?], ()))).await?;
    let answered = async {
        loop {
            let view = state.refresh().await?;
            let request = view.get(REQUEST, &id).map(|record| record.parse::<Request>()).transpose()?;
            if let Some(answer) = request.and_then(|request| request.answer) {
                return Ok(answer);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, answered).await.unwrap_or_else(|_| {
        let text = "no node keeps the watch at the moment; what you asked is noted and done as soon as one does";
        Err(HqError::Unavailable(text.to_owned()))
    })
}

/// Does what is wished, durably; none if another node acts by now.
async fn carry_out(shared: &Shared, incident: u64, wish: &Wish) -> Result<Option<Answer>, LakeError> {
    if let Wish::Explain { was_normal: true, by } = wish {
        do_without(shared, incident, by).await?;
        let known = shared.watching.watch().incident(incident).cloned();
        if let Some(known) = known.filter(|known| known.kind == Kind::Condition(Condition::Misfit)) {
            misfits::account(&shared.lake, &shared.misfits.told(), known.members.keys(), by, shared.now()).await?;
        }
    }
    let answer = apply(shared, incident, wish);
    let changed = shared.watching.watch().incident(incident).cloned();
    let is_stored = watching::store(shared, changed.as_slice(), shared.now()).await?;
    Ok(is_stored.then_some(answer))
}

/// Who accounts for rows that a site is to state again and cannot does without them.
async fn do_without(shared: &Shared, incident: u64, by: &str) -> Result<(), LakeError> {
    let known = shared.watching.watch().incident(incident).cloned();
    let is_it =
        |known: &rollcall_roll::Incident| known.kind == Kind::Condition(Condition::Quarantined) && known.is_open();
    let Some(known) = known.filter(is_it) else { return Ok(()) };
    let (roster, captured) = (shared.roster.all(), shared.reconciliation.captured());
    for (site, record) in known.members.keys().filter_map(|site| Some((site, roster.get(site)?))) {
        let view = shared.lake.state().view();
        let mut tables = restate::uncaptured(&shared.lake, &view, site, record, &captured);
        // Only what the incident said: a person answers that.
        let is_said = |table: &String| known.evidence.contains(table.as_str());
        tables.retain(is_said);
        let stopped = stopped::open(&view, &roster).remove(site).unwrap_or_default();
        // What ended need not be stated again either.
        tables.extend(stopped.into_keys().filter(is_said));
        stopped::end(&shared.lake, (site, record), &tables, by, shared.now()).await?;
        if !tables.is_empty() {
            restate::give_up(&shared.lake, site, record, &tables, by, shared.now()).await?;
        }
    }
    Ok(())
}

fn apply(shared: &Shared, incident: u64, wish: &Wish) -> Answer {
    let (mut watch, now) = (shared.watching.watch(), shared.now());
    match wish {
        Wish::Acknowledge { by, reason, until } => match watch.acknowledge(incident, by, reason, *until, now) {
            Some(until) => Answer::Done { until: Some(until) },
            None => Answer::Unknown,
        },
        Wish::Explain { was_normal, by } => {
            let of_hq = watch.incident(incident).filter(|known| known.kind == Kind::Hq);
            let work = of_hq.and_then(|known| known.stream.clone());
            work.iter().for_each(|work| shared.health.forget(work));
            let of_quota = watch.incident(incident).filter(|known| known.kind == Kind::Condition(Condition::Quota));
            if let (Some(known), true) = (of_quota, was_normal) {
                shared.quotas.forget(known.members.keys());
            }
            match watch.explain(incident, *was_normal, by, now) {
                true => Answer::Done { until: None },
                false => Answer::Unknown,
            }
        }
    }
}

/// Does what was asked at other nodes.
pub(crate) async fn answer_requests(shared: &Arc<Shared>) {
    if shared.relay.is_none() {
        return;
    }
    let view = shared.lake.state().view();
    let open =
        view.of_kind(REQUEST).filter_map(|record| Some((record.id.to_string(), record.parse::<Request>().ok()?)));
    let open: Vec<(String, Request)> = open.filter(|(_, request)| request.answer.is_none()).collect();
    for (id, mut request) in open {
        let answered = async {
            request.answer = carry_out(shared, request.incident, &request.wish).await?;
            if request.answer.is_some() {
                let now = shared.now();
                shared.acting(|view| Ok(vec![view.next(REQUEST, &id, &request, now, "hq")?])).await?;
            }
            Ok::<_, LakeError>(())
        };
        shared.health.note("do what people asked about incidents", &answered.await);
    }
}
