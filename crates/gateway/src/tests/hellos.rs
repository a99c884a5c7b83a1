//! Judging a first message.

use std::sync::atomic::Ordering;

use rollcall_registry::Heard;
use rollcall_roll::Condition;
use rollcall_types::{Cause, Epoch, Seq};
use rollcall_wire::{PROTOCOL, PROTOCOL_MIN, Refusal, proto::Hello};

use super::*;

#[tokio::test]
async fn an_agent_of_another_protocol_is_turned_away_and_one_that_overlaps_is_not() {
    let port = Port::open().await;
    let till = port.visitor("till-1").await;
    let too_old = Hello { protocol: PROTOCOL_MIN - 1, protocol_min: 0, ..hello("a") };
    let too_new = Hello { protocol: PROTOCOL + 2, protocol_min: PROTOCOL + 1, ..hello("a") };
    for far in [too_old, too_new] {
        let judged = till.welcome(&far).await;
        assert!(matches!(
            judged,
            Err(Rejection::Away { code: Refusal::Protocol, cause: Some(Cause::HqRefuses), message })
                if message.contains("update the older one")
        ));
    }
    assert_eq!(port.parts.registry.sessions.count(), 0);
    let newer = Hello { protocol: PROTOCOL + 2, ..hello("a") };
    let (_, welcome) = till.welcome(&newer).await.expect("both speak this one");
    assert_eq!(welcome.protocol, PROTOCOL);
}

#[tokio::test]
async fn a_full_node_sends_a_site_on_and_holds_it_against_nobody() {
    let port = Port::for_sites(1).await;
    let (first, second) = (port.visitor("till-1").await, port.visitor("till-2").await);
    let (session, _) = first.welcome(&hello("a")).await.expect("has room");
    port.heard();
    let judged = second.welcome(&hello("b")).await;
    assert!(matches!(judged, Err(Rejection::Away { code: Refusal::Full, cause: None, .. })));
    assert_eq!(port.heard(), []);
    port.parts.registry.sessions.close(&session);
    assert!(second.welcome(&hello("b")).await.is_ok(), "one went");
}

#[tokio::test]
async fn copies_that_take_turns_are_a_clone_and_the_newest_session_speaks() {
    let port = Port::open().await;
    let till = port.visitor("till-1").await;
    let (first, _) = till.welcome(&hello("one")).await.expect("comes");
    let (second, _) = till.welcome(&hello_again("two", 1, 0, 0)).await.expect("started again");
    assert!(first.over.is_cancelled() && !second.over.is_cancelled());
    let judged = till.welcome(&hello_again("one", 1, 0, 0)).await;
    assert!(is_away(judged, Refusal::Clone));
    assert!(!second.over.is_cancelled(), "the one that was let in stays");
}

#[tokio::test]
async fn a_welcome_says_where_the_lake_stands_and_how_to_behave() {
    let port = Port::open().await;
    port.shelf.say(Settings {
        hq_addresses: vec!["own.example:7400".to_owned()],
        bandwidth: vec![0; 24],
        digest: 7,
        ..Settings::default()
    });
    let till = port.visitor("till-1").await;
    let sent = Hello { head: 5, confirmed: 0, ..hello("a") };
    let (session, welcome) = till.welcome(&sent).await.expect("comes");
    assert_eq!((welcome.epoch, welcome.epoch_reason.as_str()), (1, "first contact"));
    assert_eq!((welcome.session, welcome.lake_id.as_str()), (session.id, port.parts.registry.lake.id()));
    assert!(welcome.cursors.is_empty() && !welcome.older_lake);
    let settings = welcome.settings.expect("settings");
    assert_eq!(settings.hq_addresses, ["own.example:7400", "hq.example:7400"]);
    assert_eq!((settings.beacon_interval_ms, settings.manifest_interval_ms, settings.digest), (30_000, 600_000, 7));
    assert_eq!(settings.authorities, [port.parts.authority.fingerprint()]);
    assert!(port.heard().iter().any(|heard| matches!(
        heard,
        Heard::Welcomed { seen, .. } if seen["block"] == "192.0.2.0/24" && seen["agent"] == "1.2.3"
    )));
    // A rule's own interval stands.
    port.shelf.say(Settings { beacon_interval_ms: 5000, ..Settings::default() });
    assert_eq!(port.parts.settings_of(&till.peer.site).beacon_interval_ms, 5000);
}

#[tokio::test]
async fn a_site_with_a_confirmation_that_the_lake_lacks_is_turned_away_until_a_person_decides() {
    let port = Port::open().await;
    let till = port.visitor("till-1").await;
    till.welcome(&hello("a")).await.expect("first contact");
    let confirmed = hello_again("a", 1, 10, 12);
    let judged = till.welcome(&confirmed).await;
    assert!(matches!(
        judged,
        Err(Rejection::Away { code: Refusal::OlderLake, cause: Some(Cause::HqRefuses), message })
            if message.contains("changes up to 0") && message.contains("up to 10")
    ));
    let decided = Hello { accept_older_lake: true, ..confirmed };
    let (session, welcome) = till.welcome(&decided).await.expect("sends again");
    assert_eq!(session.epoch, Epoch(2));
    assert!(welcome.epoch_reason.contains("restored from a backup"));
    // From the oldest change it has, not from what was confirmed in the epoch before.
    assert_eq!(session.confirmed_through.load(Ordering::Relaxed), 0);
    let record = port.parts.registry.roster.get(&till.peer.site).expect("on the roster");
    assert!(record.contested.is_empty(), "a person said so");
}

#[tokio::test]
async fn an_unknown_journal_begins_a_life_that_is_kept_apart_and_too_many_are_refused() {
    let port = Port::open().await;
    let till = port.visitor("till-1").await;
    till.welcome(&hello("a")).await.expect("first contact");
    let anew = |number: u32| Hello { journal_id: format!("journal-{number}"), ..hello("a") };
    let (session, welcome) = till.welcome(&anew(2)).await.expect("a new life");
    assert_eq!((session.epoch, welcome.epoch), (Epoch(2), 2));
    assert!(welcome.epoch_reason.contains("created anew"));
    let record = port.parts.registry.roster.get(&till.peer.site).expect("on the roster");
    assert_eq!(record.contested.len(), 1);
    let limits = rollcall_books::quotas::Limits { lives_an_hour: 2, ..port.parts.books.quotas.limits() };
    port.parts.books.quotas.set(limits, "ada", port.parts.registry.now()).await.expect("sets");
    assert!(till.welcome(&anew(3)).await.is_ok());
    assert!(is_away(till.welcome(&anew(4)).await, Refusal::Quota));
    let record = port.parts.registry.roster.get(&till.peer.site).expect("on the roster");
    assert_eq!(record.journal.as_ref().map(|journal| journal.epoch), Some(Epoch(3)), "no life began");
}

#[tokio::test]
async fn a_site_that_never_heard_of_its_epoch_or_cannot_read_its_journal_stays_in_it() {
    let port = Port::open().await;
    let till = port.visitor("till-1").await;
    till.welcome(&hello("a")).await.expect("first contact");
    // The welcome was lost: it still has none.
    let (session, welcome) = till.welcome(&hello("a")).await.expect("goes on");
    assert_eq!((session.epoch, welcome.epoch_reason.as_str()), (Epoch(1), ""));
    let blind = Hello { blind: true, journal_id: String::new(), confirmed: 99, head: 99, ..hello("a") };
    let (session, _) = till.welcome(&blind).await.expect("is heard");
    assert_eq!(session.epoch, Epoch(1));
    port.heard();
    // With another epoch than HQ's it was restored.
    let (session, welcome) = till.welcome(&hello_again("a", 7, 0, 0)).await.expect("a new life");
    assert_eq!(session.epoch, Epoch(2));
    assert!(welcome.epoch_reason.contains("came with epoch 7, HQ knows 1"));
}

#[tokio::test]
async fn a_site_that_was_enrolled_anew_while_it_said_hello_gets_no_session() {
    let port = Port::open().await;
    let mut till = port.visitor("till-1").await;
    let old = Peer { key_hash: "the key before".to_owned(), ..till.peer.as_ref().clone() };
    till.peer = Arc::new(old);
    assert!(is_away(till.welcome(&hello("a")).await, Refusal::NotOnRoster));
    assert_eq!(port.parts.registry.sessions.count(), 0);
    assert!(!port.heard().iter().any(|heard| matches!(heard, Heard::Welcomed { .. } | Heard::Condition(..))));
}

#[tokio::test]
async fn a_site_that_comes_with_much_brings_a_backlog_and_another_is_live() {
    let port = Port::open().await;
    let (away, here) = (port.visitor("till-1").await, port.visitor("till-2").await);
    let (session, _) = away.welcome(&Hello { head: 1001, ..hello("a") }).await.expect("comes");
    assert_eq!(session.lane.enter(Seq(1001)).await, rollcall_registry::Lane::Backlog);
    let (session, _) = here.welcome(&Hello { head: 1000, ..hello("b") }).await.expect("comes");
    assert_eq!(session.lane.enter(Seq(1000)).await, rollcall_registry::Lane::Live);
    assert!(port.heard().contains(&Heard::Condition(Condition::CloneOrRewind, None)), "well again");
}
