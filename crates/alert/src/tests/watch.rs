use rollcall_roll::{Deafness, Tuning};
use rollcall_types::SiteState;

use super::*;
use crate::{
    Holidays, holidays, leave_room_for_numbers, roster_from_csv, set_holidays,
    store::{known_rhythms, stored_incidents},
    watch_loop::Rounds,
};

fn state_of(node: &TestNode, site: &SiteId) -> SiteState {
    node.alerts.roll().into_iter().find(|entry| entry.site == *site).expect("on the roster").state
}

#[tokio::test]
async fn what_was_heard_reaches_the_watch_and_the_lake_in_one_round() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::on_directory(directory.path()).await;
    let site = node.list("tacoma-01").await;
    let mut rounds = Rounds::new(node.began);
    rounds.round(&node.alerts, true).await;
    assert_eq!(state_of(&node, &site), SiteState::NeverHeard);
    node.hear(&site, Heard::Contact);
    node.hear_of_disk(&site);
    assert!(node.alerts.incidents().is_empty(), "the watch looks at it in the next round");
    rounds.round(&node.alerts, true).await;
    assert_ne!(state_of(&node, &site), SiteState::NeverHeard);
    assert!(node.alerts.watching.open_of(Condition::Disk).contains(&site));
    let lake = &node.alerts.registry.lake;
    assert_eq!(stored_incidents(&lake.state().view()), node.alerts.incidents(), "it is stored");
    assert!(last_sign(lake).is_some());
    node.hear(&site, Heard::Mended(Condition::Disk, "somebody made room".to_owned()));
    rounds.round(&node.alerts, true).await;
    let ended = stored_incidents(&lake.state().view()).remove(0);
    assert!(!ended.is_open() && ended.timeline.iter().any(|entry| entry.text.contains("made room")), "{ended:?}");
}

#[tokio::test]
async fn a_retired_site_is_not_watched_and_one_taken_back_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::on_directory(directory.path()).await;
    let (site, registry) = (node.list("tacoma-01").await, node.alerts.registry.clone());
    node.tick();
    node.hear_of_disk(&site);
    node.tick();
    assert_eq!(node.open_of_disk().len(), 1);
    registry.roster.retire(&site, "it closed", "ada", registry.now()).await.expect("retires");
    node.tick();
    assert!(node.open_of_disk().is_empty());
    assert_eq!(state_of(&node, &site), SiteState::Retired);
    node.hear_of_disk(&site);
    node.tick();
    assert!(node.open_of_disk().is_empty(), "nothing is said of a retired site");
    registry.roster.reinstate(&site, "ada", registry.now()).await.expect("takes back");
    node.hear_of_disk(&site);
    node.tick();
    assert_eq!(node.open_of_disk().len(), 1, "it is watched again");
    assert_ne!(state_of(&node, &site), SiteState::Retired);
}

#[tokio::test]
async fn incidents_thresholds_and_rhythms_outlast_a_node() {
    let directory = tempfile::tempdir().expect("a directory");
    let tuning: Tuning =
        serde_json::from_value(serde_json::json!({"weeks": [], "set": [4.5, 6.25]})).expect("a tuning");
    let before = {
        let node = TestNode::on_directory(directory.path()).await;
        let site = node.list("tacoma-01").await;
        for _ in 0..5 {
            node.hear(&site, Heard::Contact);
            node.tick();
        }
        let now = node.alerts.registry.now();
        // It changes after the last tick: that is stored when the node stops.
        node.alerts.watching.watch().set_condition(&site, Condition::Disk, Some("it is nearly full"), now);
        node.alerts.watching.watch().restore_tuning(tuning);
        node.alerts.stop().await;
        assert_eq!(known_rhythms(&node.alerts.registry.lake).await.len(), 1);
        node.alerts.incidents()
    };
    let node = TestNode::on_directory(directory.path()).await;
    assert_eq!(node.alerts.incidents(), before);
    assert_eq!(node.alerts.incident(before[0].id).as_ref(), Some(&before[0]));
    let thresholds = node.alerts.watching.watch().thresholds();
    assert_eq!((thresholds.red, thresholds.page), (4.5, 6.25));
    let stream = node.alerts.watching.watch().stream_id(&site("tacoma-01"), rollcall_roll::CONTACT);
    assert!(stream.is_some(), "it knows that the site was heard");
    let next = node.open_incident("boise-01").await;
    assert!(next > before[0].id, "numbers are not used again");
}

#[tokio::test]
async fn while_nothing_can_be_stored_hq_is_deaf() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::on_directory(directory.path()).await;
    let mut rounds = Rounds::new(node.began);
    rounds.round(&node.alerts, true).await;
    assert!(node.alerts.watching.watch().guard().deaf().is_none());
    rounds.round(&node.alerts, false).await;
    let deaf = node.alerts.watching.watch().guard().deaf();
    assert_eq!(deaf.map(|(_, why)| why), Some(Deafness::IngestFailing));
    assert_eq!(node.open(Kind::HqBlind).len(), 1);
}

#[tokio::test]
async fn what_a_node_cannot_do_is_an_incident_until_it_can_at_the_node_that_acts() {
    let store = memory();
    let acting = TestNode::on_store(&store).await;
    acting.look_at_lease().await;
    let other = TestNode::on_store(&store).await;
    acting.alerts.registry.catch_up().await.expect("hears the other");
    let (mut at_acting, mut at_other) = (Rounds::new(acting.began), Rounds::new(other.began));
    acting.alerts.registry.health.broken("compact tables/sales", "a file is damaged");
    other.alerts.registry.health.broken("write the audit", "no room");
    at_other.round(&other.alerts, true).await;
    acting.alerts.registry.lake.follow().await.expect("follows");
    at_acting.round(&acting.alerts, true).await;
    let works = |node: &TestNode| -> Vec<String> {
        node.open(Kind::Hq).into_iter().filter_map(|incident| incident.stream).collect()
    };
    let elsewhere = format!("write the audit at node {}", other.alerts.registry.relay().expect("several").node());
    assert_eq!(works(&acting), ["compact tables/sales".to_owned(), elsewhere]);
    acting.alerts.registry.health.done("compact tables/sales");
    other.alerts.registry.health.done("write the audit");
    at_other.round(&other.alerts, true).await;
    acting.alerts.registry.lake.follow().await.expect("follows");
    at_acting.round(&acting.alerts, true).await;
    assert!(works(&acting).is_empty());
}

#[tokio::test]
async fn a_site_keeps_the_holidays_of_the_calendars_that_it_names() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::on_directory(directory.path()).await;
    let days = Holidays { days: ["2026-12-25".to_owned()].into() };
    set_holidays(&node.alerts.registry, "us", days.clone(), "ada").await.expect("sets");
    let stored = holidays(&node.alerts.registry.lake);
    assert_eq!(stored.get("us"), Some(&days));
    let named = stored.into_iter().map(|(name, known)| (name, known.days)).collect();
    let sites = roster_from_csv("id,holidays\na-1,\"us, de\"\nb-1,\n", node.began, &named).expect("reads");
    let closed: Vec<usize> = sites.iter().map(|site| site.calendar.holidays.len()).collect();
    assert_eq!(closed, [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_loop_looks_each_second_tells_and_answers_until_the_node_stops() {
    let store = memory();
    let node = TestNode::on_store(&store).await;
    let hook = webhook::Webhook::new();
    hook.register(&node.alerts, "hook", serde_json::json!({})).await;
    node.look_at_lease().await;
    let site = node.list("tacoma-01").await;
    node.hear_of_disk(&site);
    let running = rollcall_runtime::spawn(node.alerts.clone().run_watch(|| true));
    tokio::time::sleep(Duration::from_secs(3)).await;
    node.settle().await;
    assert_eq!(hook.take().len(), 1, "people are told");
    let incident = node.open_of_disk()[0].id;
    let other = TestNode::on_store(&store).await;
    let explanation = crate::IncidentCommand::Explain { was_normal: true, by: "ada".to_owned() };
    let asked = rollcall_runtime::spawn(async move { other.alerts.command(incident, explanation).await });
    // What others wrote is taken over by another loop.
    while !asked.is_finished() {
        node.alerts.registry.lake.follow().await.expect("follows");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let outcome = asked.await.expect("no panic").expect("answered");
    assert_eq!(outcome, crate::CommandOutcome::Done { until: None });
    node.alerts.registry.stop.cancel();
    running.await.expect("it ends");
}

#[tokio::test]
async fn after_a_restore_no_number_of_an_incident_is_used_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let before = TestNode::on_directory(directory.path()).await;
    let told = before.open_incident("a-1").await;
    leave_room_for_numbers(&before.alerts.registry.lake, before.alerts.registry.now()).await.expect("written");
    drop(before);
    let restored = TestNode::on_directory(directory.path()).await;
    // The backup knows one incident; HQ had opened others since, whose numbers people know.
    let new = restored.open_incident("b-1").await;
    assert!(new > told + 1_000, "{new} after {told}");
}
