use chrono::Timelike;
use rollcall_types::{Seq, TableName};
use serde_json::{Value, json};

use super::{webhook::Webhook, *};
use rollcall_books::definitions::{Arrived, Counts, Publication};

use crate::ArrivedSource;

/// What matters of posts.
fn notices(posts: &[Value]) -> Vec<(&str, u64)> {
    let notice = |post: &Value| post["incident"].as_u64().unwrap_or_default();
    posts.iter().map(|post| (post["notice"].as_str().unwrap_or_default(), notice(post))).collect()
}

#[tokio::test]
async fn a_channel_hears_once_of_each_notice_from_its_level_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::on_directory(directory.path()).await;
    let (low, high) = (Webhook::new(), Webhook::new());
    low.register(&node.alerts, "low", json!({"min_level": 1})).await;
    high.register(&node.alerts, "high", json!({"min_level": 2})).await;
    let site = node.list("tacoma-01").await;
    node.hear_of_disk(&site);
    for _ in 0..3 {
        node.pass_minute().await;
    }
    let posts = low.take();
    assert_eq!(notices(&posts), [("opened", 1)]);
    assert_eq!(posts[0]["news"]["link"], "https://hq.example/incidents/1");
    assert!(high.take().is_empty(), "it is of level 1");
    node.hear(&site, Heard::Mended(Condition::Disk, "somebody made room".to_owned()));
    node.pass_minute().await;
    assert_eq!(notices(&low.take()), [("resolved", 1)]);
    assert!(high.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_fails_is_an_incident_of_which_the_others_tell() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::on_directory(directory.path()).await;
    let (bad, good) = (Webhook::new(), Webhook::new());
    bad.answers(500);
    bad.register(&node.alerts, "bad", json!({})).await;
    good.register(&node.alerts, "good", json!({})).await;
    let site = node.list("tacoma-01").await;
    node.hear_of_disk(&site);
    node.pass_minute().await;
    assert_eq!(bad.take().len(), 5, "a bounded number of attempts");
    assert_eq!(notices(&good.take()), [("opened", 1)]);
    let failing = node.open(Kind::Channel);
    assert_eq!(failing.len(), 1);
    assert_eq!(failing[0].stream.as_deref(), Some("bad"));
    assert!(failing[0].evidence.contains("500") && !failing[0].evidence.contains(&bad.url), "{}", failing[0].evidence);
    node.pass_minute().await;
    assert_eq!(notices(&good.take()), [("opened", failing[0].id)]);
    assert!(bad.take().is_empty(), "a channel does not tell of itself");
    bad.answers(200);
    node.alerts.test_channel("bad").await.expect("it works");
    assert!(node.open(Kind::Channel).is_empty());
    assert_eq!(bad.take()[0]["test"], true);
}

#[tokio::test(start_paused = true)]
async fn in_quiet_hours_low_levels_wait_and_what_ends_meanwhile_wakes_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::on_directory(directory.path()).await;
    let hook = Webhook::new();
    let hour = |offset: u32| (node.began.to_chrono().hour() + 24 + offset) % 24;
    let minute = node.began.to_chrono().minute();
    let at = |hour: u32| format!("{hour:02}:{minute:02}");
    // From an hour ago to the hour after this one, by UTC.
    hook.register(&node.alerts, "hook", json!({"quiet": {"from": at(hour(23)), "to": at(hour(1))}})).await;
    let (short, long) = (node.list("tacoma-01").await, node.list("boise-01").await);
    [&short, &long].into_iter().for_each(|site| node.hear_of_disk(site));
    node.decide_in_a_minute().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(hook.take().is_empty(), "it must not be disturbed");
    node.alerts.watching.watch().set_condition(&short, Condition::Disk, None, node.alerts.registry.now());
    tokio::time::sleep(Duration::from_secs(600)).await;
    node.put_on(Duration::from_secs(2 * 3600));
    node.settle().await;
    let posts = hook.take();
    assert_eq!(posts.len(), 1, "{posts:?}");
    assert_eq!(posts[0]["sites"], json!(["boise-01"]));
}

#[tokio::test]
async fn what_was_not_told_before_a_stop_is_told_by_the_next_node_that_acts_and_only_by_that() {
    let store = memory();
    let (hook, first) = (Webhook::new(), TestNode::on_store(&store).await);
    hook.register(&first.alerts, "hook", json!({})).await;
    first.look_at_lease().await;
    // This one is there all the time, and knows of the incident only by the lake.
    let second = TestNode::on_store(&store).await;
    // It is decided and stored, and the node stops before anybody is told.
    let incident = first.open_incident("tacoma-01").await;
    first.alerts.registry.give_up_lease().await;
    second.alerts.registry.lake.follow().await.expect("follows");
    second.look_at_lease().await;
    second.settle().await;
    assert_eq!(notices(&hook.take()), [("opened", incident)]);
    second.alerts.registry.give_up_lease().await;
    let third = TestNode::on_store(&store).await;
    third.look_at_lease().await;
    third.settle().await;
    assert!(hook.take().is_empty(), "it was told");
}

#[tokio::test]
async fn a_node_alone_tells_when_it_starts_what_it_did_not_come_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let (hook, incident) = {
        let (hook, node) = (Webhook::new(), TestNode::on_directory(directory.path()).await);
        hook.register(&node.alerts, "hook", json!({})).await;
        (hook, node.open_incident("tacoma-01").await)
    };
    let node = TestNode::on_directory(directory.path()).await;
    assert_eq!(node.alerts.notifiers.secrets().len(), 1, "channels are kept");
    // The loop tells first, and ends at once.
    node.alerts.registry.stop.cancel();
    node.alerts.clone().run_notifiers(Arc::new(Vec::new)).await;
    node.settle().await;
    assert_eq!(notices(&hook.take()), [("opened", incident)]);
}

#[tokio::test]
async fn a_preview_of_the_roll_call_says_what_is_missing_and_what_is_not_everywhere() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = TestNode::on_directory(directory.path()).await;
    let hook = Webhook::new();
    hook.register(&node.alerts, "hook", json!({})).await;
    node.list("tacoma-01").await;
    let publication = Publication {
        table: TableName::new("prices").expect("valid"),
        version: Seq(7),
        previous: Seq(3),
        at: node.began,
        by: "ada".to_owned(),
        note: String::new(),
        counts: Counts::default(),
    };
    let arrived: ArrivedSource =
        Arc::new(move || vec![Arrived { publication: publication.clone(), audience: 3, have: 1 }]);
    let text = node.alerts.preview("hook", None, &arrived).expect("a preview").message.text;
    for part in ["tacoma-01", "never heard", "prices of", "1 of 3 sites have it", "Test HQ"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(node.alerts.preview("nobody", None, &arrived).is_err());
    assert!(hook.take().is_empty(), "nobody is told");
}
