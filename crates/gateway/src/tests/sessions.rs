//! What a site says once it has a session.

use std::{
    ops::ControlFlow::{Break, Continue},
    sync::atomic::Ordering,
};

use rollcall_registry::SiteFact;
use rollcall_roll::Condition;
use rollcall_types::{Cause, TableName};
use rollcall_wire::proto::{
    self, Attempt, Attempts, Beacon, EpochWanted, Goodbye, Heads, SiteRefuses, TableHead,
    site_control::Message as FromSite,
};

use super::*;
use crate::news::take;

async fn session_of(visitor: &Visitor) -> Arc<Session> {
    visitor.welcome(&hello("a")).await.expect("comes").0
}

fn beacon(now: Timestamp) -> Beacon {
    let (head, confirmed) = (50, 20);
    let clock_micros = now.as_micros();
    Beacon { head, confirmed, clock_micros, oldest_unconfirmed_age_ms: 90_000, capture_ok: true, ..Beacon::default() }
}

#[tokio::test]
async fn a_beacon_says_what_waits_and_that_both_took_each_other() {
    let port = Port::open().await;
    let (registry, till) = (&port.parts.registry, port.visitor("till-1").await);
    let session = session_of(&till).await;
    port.heard();
    assert!(matches!(take(registry, &session, FromSite::Beacon(beacon(registry.now()))), Continue(())));
    assert!(session.is_taken.load(Ordering::Relaxed));
    let heard = port.heard();
    assert!(heard.contains(&Heard::Condition(Condition::Refused, None)));
    assert!(heard.contains(&Heard::Backlog { rows: 30, age: Duration::from_secs(90) }));
    assert!(heard.contains(&Heard::Condition(Condition::Capture, None)));
    let entry = registry.roll(|_| None).pop().expect("one site");
    assert_eq!((entry.unconfirmed_rows, entry.last_heard.is_some()), (50, true), "nothing was confirmed here");
    assert!(matches!(take(registry, &session, FromSite::Beacon(beacon(registry.now()))), Continue(())));
    assert!(!port.heard().contains(&Heard::Condition(Condition::Refused, None)), "said once");
}

#[tokio::test]
async fn a_beacon_with_trouble_is_the_disk_s_or_the_capture_s_and_a_clock_that_is_off_is_told() {
    let port = Port::open().await;
    let (registry, till) = (&port.parts.registry, port.visitor("till-1").await);
    let session = session_of(&till).await;
    port.heard();
    let mut said = beacon(registry.now());
    (said.capture_ok, said.capture_problem) = (false, "a trigger is gone".to_owned());
    said.clock_micros -= 3 * 3_600_000_000;
    let _ = take(registry, &session, FromSite::Beacon(said.clone()));
    let heard = port.heard();
    let is_told = |heard: &[Heard], condition, part: &str| {
        let is_it =
            |one: &Heard| matches!(one, Heard::Condition(of, Some(text)) if *of == condition && text.contains(part));
        heard.iter().any(is_it)
    };
    assert!(is_told(&heard, Condition::Capture, "a trigger is gone"));
    assert!(heard.contains(&Heard::Condition(Condition::Disk, None)) && is_told(&heard, Condition::Clock, ""));
    assert_eq!(registry.roll(|_| None)[0].detail, "a trigger is gone");
    said.capture_problem = "no space left".to_owned();
    said.set_capture_cause(proto::Cause::Disk);
    let _ = take(registry, &session, FromSite::Beacon(said));
    let heard = port.heard();
    assert!(is_told(&heard, Condition::Disk, "no space left"));
    assert!(heard.contains(&Heard::Condition(Condition::Capture, None)));
    let little = Beacon { disk_free_bytes: Some(5_000_000), ..beacon(registry.now()) };
    let _ = take(registry, &session, FromSite::Beacon(little));
    let heard = port.heard();
    assert!(is_told(&heard, Condition::Disk, "less than 100 MB"));
    assert!(heard.contains(&Heard::Condition(Condition::Clock, None)), "it goes right again");
}

#[tokio::test]
async fn heads_that_the_lake_reached_make_a_site_complete_and_those_of_another_life_do_not() {
    let port = Port::open().await;
    let (registry, till) = (&port.parts.registry, port.visitor("till-1").await);
    let session = session_of(&till).await;
    let through = || registry.roll(|_| None)[0].complete_through;
    let heads = |epoch: u32, head: u64, time: Timestamp| {
        let tables = vec![TableHead { table: "Sales".to_owned(), head }];
        FromSite::Heads(Heads { time_micros: time.as_micros(), epoch, tables })
    };
    let asked = registry.now();
    let _ = take(registry, &session, heads(2, 0, asked));
    assert_eq!(through(), None, "another life");
    let _ = take(registry, &session, heads(1, 0, asked));
    assert_eq!(through(), Some(asked));
    assert_eq!(registry.ledger.tables_through()[0].1, TableName::new("sales").expect("valid"), "as HQ calls it");
    let _ = take(registry, &session, heads(1, 3, registry.now()));
    assert_eq!(through(), Some(asked), "three changes are not here");
    // However far ahead a site says HQ's time is.
    let other = session_of(&port.visitor("till-2").await).await;
    let _ = take(registry, &other, heads(1, 0, Timestamp::from_micros(i64::MAX)));
    assert!(registry.roll(|_| None)[1].complete_through.is_some_and(|through| through <= registry.now()));
}

#[tokio::test]
async fn a_goodbye_and_a_refusal_end_the_session_and_are_known_afterwards() {
    let port = Port::open().await;
    let (registry, till) = (&port.parts.registry, port.visitor("till-1").await);
    let session = session_of(&till).await;
    port.heard();
    let goodbye = Goodbye { reason: "shutting\u{7} down".to_owned(), head: 77 };
    assert!(matches!(take(registry, &session, FromSite::Goodbye(goodbye)), Break(None)));
    assert!(port.heard().contains(&Heard::Goodbye));
    let entry = registry.roll(|_| None).pop().expect("one site");
    assert!(entry.detail.starts_with("said goodbye: shutting") && !entry.detail.contains('\u{7}'));
    assert_eq!(entry.unconfirmed_rows, 77);
    let refuses = SiteRefuses { reason: "this lake is older".to_owned() };
    assert!(matches!(take(registry, &session, FromSite::Refuses(refuses)), Break(None)));
    assert_eq!(registry.ledger.lacking_confirmed(), std::slice::from_ref(&till.peer.site));
    assert!(port.heard().iter().any(|heard| matches!(heard, Heard::Condition(Condition::Refused, Some(_)))));
}

#[tokio::test]
async fn a_site_that_wants_another_epoch_gets_it_with_its_next_hello() {
    let port = Port::open().await;
    let (registry, till) = (&port.parts.registry, port.visitor("till-1").await);
    let session = session_of(&till).await;
    let wanted = EpochWanted { reason: "hashes differ".to_owned() };
    assert!(matches!(take(registry, &session, FromSite::EpochWanted(wanted)), Break(None)));
    let (next, welcome) = till.welcome(&hello_again("a", 1, 0, 0)).await.expect("comes back");
    assert_eq!((next.epoch, welcome.epoch_reason.as_str()), (Epoch(2), "hashes differ"));
    let (next, _) = till.welcome(&hello_again("a", 2, 0, 0)).await.expect("comes back");
    assert_eq!(next.epoch, Epoch(2), "once");
}

#[tokio::test]
async fn a_second_hello_is_an_error_and_attempts_are_told_once_for_each_kind() {
    let port = Port::open().await;
    let (registry, till) = (&port.parts.registry, port.visitor("till-1").await);
    let session = session_of(&till).await;
    port.heard();
    let ended = take(registry, &session, FromSite::Hello(hello("b")));
    assert!(matches!(ended, Break(Some(status)) if status.code() == tonic::Code::InvalidArgument));
    let attempt = |minute: i64, cause: proto::Cause| Attempt {
        at_micros: minute * 60_000_000,
        address: "hq.example:7400".to_owned(),
        error: "refused".to_owned(),
        cause: cause.into(),
        ..Attempt::default()
    };
    let mut attempts: Vec<Attempt> = (0..5).map(|minute| attempt(minute, proto::Cause::HqRefuses)).collect();
    attempts.push(attempt(9, proto::Cause::PowerOrLink));
    assert!(matches!(take(registry, &session, FromSite::Attempts(Attempts { attempts })), Continue(())));
    let heard = port.heard();
    assert_eq!(heard.len(), 2);
    let causes: Vec<Option<Cause>> = heard
        .iter()
        .map(|heard| match heard {
            Heard::Afterwards { cause, text } => {
                assert!(text.contains("which resolved to nothing"));
                *cause
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(causes.contains(&Some(Cause::HqRefuses)) && causes.contains(&None), "silence itself is no cause");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_told_where_its_site_is_missed_until_the_site_is_back() {
    let port = Port::open().await;
    let (registry, gateway) = (&port.parts.registry, crate::Gateway(port.parts.clone()));
    let [silent, connected] = [port.visitor("till-1").await, port.visitor("till-2").await];
    let refused = || {
        let told = port.heard().into_iter();
        told.filter(|heard| matches!(heard, Heard::Condition(Condition::Refused, Some(_)))).count()
    };
    gateway.note_unknown_key(&silent.peer.site, true);
    assert_eq!(refused(), 0, "this node has only begun to hear");
    tokio::time::advance(Duration::from_secs(600)).await;
    registry.record_heard(&connected.peer.site, Heard::Contact);
    gateway.note_unknown_key(&connected.peer.site, true);
    gateway.note_unknown_key(&SiteId::new("nobody").expect("valid"), false);
    assert_eq!(refused(), 0, "one has another machine that speaks for it, the other is nobody's");
    gateway.note_unknown_key(&silent.peer.site, true);
    gateway.note_unknown_key(&silent.peer.site, true);
    assert_eq!((refused(), registry.ledger.is_refused(&silent.peer.site)), (1, true), "once");
    let beacon = SiteFact::Beacon {
        head: Seq(0),
        unconfirmed_age: Duration::ZERO,
        capture_problem: None,
        clock_off_micros: 0,
        applied: BTreeMap::new(),
    };
    registry.record(&silent.peer.site, beacon);
    assert!(!registry.ledger.is_refused(&silent.peer.site), "who sends beacons was taken");
}

#[tokio::test]
async fn where_nothing_waits_nothing_is_old() {
    let port = Port::open().await;
    let registry = &port.parts.registry;
    // One that is behind is no backlog of a fleet.
    let sessions = [session_of(&port.visitor("till-1").await).await, session_of(&port.visitor("till-2").await).await];
    // Their clocks were set while nothing waited.
    let say = |confirmed: u64| {
        for session in &sessions {
            let said = Beacon { confirmed, oldest_unconfirmed_age_ms: 7_200_000, ..beacon(registry.now()) };
            let _ = take(registry, session, FromSite::Beacon(said));
            registry.record_heard(&session.site, Heard::Contact);
        }
    };
    port.heard();
    say(beacon(registry.now()).head);
    assert!(port.heard().contains(&Heard::Backlog { rows: 0, age: Duration::ZERO }));
    assert!(!registry.ledger.is_draining(registry.now()), "where nothing waits, nothing is old");
    say(0);
    assert!(registry.ledger.is_draining(registry.now()), "and what waits is as old as it says");
}
