use rollcall_lake::{RecordKind, StateView};
use rollcall_registry::HqError;

use super::*;
use crate::{CommandOutcome, IncidentCommand, requests::REQUEST};

fn acknowledgement(node: &TestNode) -> IncidentCommand {
    let until = node.alerts.registry.now().plus_micros(3_600_000_000);
    IncidentCommand::Acknowledge { by: "ada".to_owned(), reason: "on my way".to_owned(), until }
}

fn explanation(was_normal: bool) -> IncidentCommand {
    IncidentCommand::Explain { was_normal, by: "ada".to_owned() }
}

/// The newest entry of an incident's story.
fn said_of(node: &TestNode, incident: u64) -> Option<String> {
    Some(node.alerts.incident(incident)?.timeline.last()?.text.clone())
}

fn taken_by(node: &TestNode, incident: u64) -> Option<String> {
    node.alerts.incident(incident)?.lease.map(|lease| lease.by)
}

#[tokio::test]
async fn what_a_person_is_told_is_done_outlasts_a_crash() {
    let directory = tempfile::tempdir().expect("a directory");
    let (taken, explained) = {
        let node = TestNode::on_directory(directory.path()).await;
        let taken = node.open_incident("tacoma-01").await;
        let explained = node.open_incident("boise-01").await;
        let outcome = node.alerts.command(taken, acknowledgement(&node)).await.expect("done");
        assert!(matches!(outcome, CommandOutcome::Done { until: Some(until) } if until > node.began));
        let outcome = node.alerts.command(explained, explanation(true)).await.expect("done");
        assert_eq!(outcome, CommandOutcome::Done { until: None });
        // Nothing is stored at the end: the process is gone.
        (taken, explained)
    };
    let node = TestNode::on_directory(directory.path()).await;
    assert_eq!(taken_by(&node, taken).as_deref(), Some("ada"));
    assert!(node.alerts.incident(taken).is_some_and(|incident| incident.is_open()));
    assert_eq!(said_of(&node, explained).as_deref(), Some("ada says that this was normal: it is learned from"));
}

#[tokio::test]
async fn of_an_unknown_incident_nothing_is_done() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::on_directory(directory.path()).await;
    for command in [acknowledgement(&node), explanation(true), explanation(false)] {
        assert_eq!(node.alerts.command(77, command).await.expect("answers"), CommandOutcome::Unknown);
    }
}

#[tokio::test]
async fn who_accounts_for_a_quota_or_a_failing_work_hears_of_it_no_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::on_directory(directory.path()).await;
    let (site, registry) = (node.list("tacoma-01").await, &node.alerts.registry);
    let quotas = &node.alerts.books.quotas;
    assert!(quotas.take_quarantine(&site, u64::MAX, 1, registry.now()).is_err());
    registry.health.broken("compact tables/sales", "a file is damaged");
    node.hear(&site, Heard::Condition(Condition::Quota, Some("too much is kept".to_owned())));
    crate::watch_loop::Rounds::new(node.began).round(&node.alerts, true).await;
    let (quota, work) = (node.open(Kind::Condition(Condition::Quota))[0].id, node.open(Kind::Hq)[0].id);
    node.alerts.command(quota, explanation(true)).await.expect("done");
    node.alerts.command(work, explanation(true)).await.expect("done");
    assert!(quotas.told(registry.now()).is_empty());
    assert!(!registry.health.is_failing("compact"));
    assert!(node.open(Kind::Hq).is_empty());
}

#[tokio::test]
async fn what_is_asked_at_another_node_is_done_by_the_one_that_acts() {
    let store = memory();
    let acting = TestNode::on_store(&store).await;
    acting.look_at_lease().await;
    let incident = acting.open_incident("tacoma-01").await;
    let other = TestNode::on_store(&store).await;
    other.look_at_lease().await;
    assert!(acting.alerts.registry.is_acting() && !other.alerts.registry.is_acting());
    let asked = other.alerts.command(incident, acknowledgement(&other));
    let answered = async {
        loop {
            acting.alerts.registry.lake.follow().await.expect("follows");
            acting.alerts.answer_requests().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let outcome = tokio::select! {
        outcome = asked => outcome.expect("answered"),
        () = answered => unreachable!("it goes on"),
    };
    assert!(matches!(outcome, CommandOutcome::Done { until: Some(_) }));
    assert_eq!(taken_by(&acting, incident).as_deref(), Some("ada"));
    assert_eq!(taken_by(&other, incident).as_deref(), Some("ada"), "by the lake");
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_while_nobody_acts_is_done_once_somebody_does() {
    let store = memory();
    let gone = TestNode::on_store(&store).await;
    gone.look_at_lease().await;
    let incident = gone.open_incident("tacoma-01").await;
    gone.alerts.registry.give_up_lease().await;
    let node = TestNode::on_store(&store).await;
    let error = node.alerts.command(incident, acknowledgement(&node)).await.expect_err("nobody acts");
    assert!(matches!(&error, HqError::Unavailable(text) if text.contains("is noted")), "{error}");
    assert_eq!(taken_by(&node, incident), None);
    // While it waited it told nobody that it lives, as it does every second elsewhere.
    node.alerts.registry.catch_up().await.expect("tells");
    node.look_at_lease().await;
    node.alerts.answer_requests().await;
    assert_eq!(taken_by(&node, incident).as_deref(), Some("ada"));
}

/// A request as another version wrote it.
const AS_WRITTEN: RecordKind<serde_json::Value> = RecordKind::new("request");

/// Nodes of before and after an update share one state log.
#[tokio::test]
async fn a_request_of_an_older_node_is_understood_and_answered() {
    let store = memory();
    let node = TestNode::on_store(&store).await;
    node.look_at_lease().await;
    let incident = node.open_incident("tacoma-01").await;
    let wish = serde_json::json!({"Explain": {"was_normal": true, "by": "bo"}});
    let request = serde_json::json!({"incident": incident, "wish": wish, "answer": null});
    let (state, now) = (node.alerts.registry.lake.state(), node.alerts.registry.now());
    let add = |view: &StateView| Ok::<_, HqError>((vec![view.next(AS_WRITTEN, "r1", &request, now, "hq")?], ()));
    state.update(add).await.expect("stores");
    node.alerts.answer_requests().await;
    let answered: serde_json::Value = state.view().get(REQUEST, "r1").expect("is there").parse().expect("reads");
    assert_eq!(answered["answer"], serde_json::json!({"Done": {"until": null}}));
    assert!(said_of(&node, incident).is_some_and(|text| text.starts_with("bo says")));
}
