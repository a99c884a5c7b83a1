use chrono::{DateTime, NaiveDateTime, TimeDelta, TimeZone};
use chrono_tz::Tz;
use rollcall_books::definitions::definitions;

use super::*;
use crate::scheduled::{State, Unwanted, all, check_is_own, done_as, due, look, schedule, withdraw};

const HOUR: Duration = Duration::from_secs(3600);
const TOKYO: Tz = Tz::Asia__Tokyo;
const SEATTLE: Tz = Tz::America__Los_Angeles;

/// Nine in the morning, so many days from now.
fn nine_in(hq: &Hq, days: i64) -> NaiveDateTime {
    let now = DateTime::from_timestamp_micros(hq.publisher.registry.now().as_micros()).expect("a time");
    (now + TimeDelta::days(days)).date_naive().and_hms_opt(9, 0, 0).expect("a time")
}

fn micros(at: NaiveDateTime, zone: Tz) -> i64 {
    zone.from_local_datetime(&at).earliest().expect("a time").timestamp_micros()
}

/// Lets HQ's time go on until a while after this time has come in a zone.
fn put_on_until(hq: &Hq, at: NaiveDateTime, zone: Tz) {
    let micros = micros(at, zone) - hq.publisher.registry.now().as_micros();
    hq.put_on(Duration::from_micros(micros.unsigned_abs()) + HOUR);
}

/// Sites in two zones that have the prices.
async fn in_two_zones() -> (Hq, SiteId, SiteId) {
    let hq = Hq::open().await;
    let tokyo = hq.list("tokyo-01", &[("tz", "Asia/Tokyo")]).await;
    let seattle = hq.list("seattle-01", &[("tz", "America/Los_Angeles")]).await;
    hq.publish(merge("sku,price\ntea,1\nrye,2\n")).await.expect("publishes");
    (hq, tokyo, seattle)
}

fn state_of(hq: &Hq, number: u64) -> State {
    let all = all(&hq.publisher.registry.lake.state().view());
    all.into_iter().find(|scheduled| scheduled.number == number).expect("is known").state
}

/// What a site is to do at which time, with the number of the publication.
fn due_at(hq: &Hq, site: &SiteId) -> Vec<(u64, i64)> {
    let (_, due) = due(&hq.publisher, &prices(), site, &hq.record(site)).expect("works it out");
    due.into_iter().map(|due| (due.number, due.at_micros)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_scheduled_goes_ahead_and_is_due_at_each_sites_own_time() {
    let (hq, tokyo, seattle) = in_two_zones().await;
    let (at, later) = (nine_in(&hq, 3), nine_in(&hq, 4));
    let change = Request { gone: Some(csv("sku\nrye\n")), ..merge("sku,price\ntea,5\nice,3\n") };
    let dry = Request { dry_run: true, ..change.clone() };
    assert_eq!(schedule(&hq.publisher, &dry, at).await.expect("works it out").1, 0);
    let same = schedule(&hq.publisher, &merge("sku,price\ntea,1\n"), at).await.expect("works it out");
    assert_eq!(same.1, 0, "what changes nothing is not scheduled");
    let past = schedule(&hq.publisher, &change, nine_in(&hq, -3)).await;
    assert!(matches!(&past, Err(HqError::Invalid(text)) if text.contains("past at every site")), "{past:?}");
    assert!(due_at(&hq, &tokyo).is_empty(), "nothing is scheduled yet");
    let (outcome, number) = schedule(&hq.publisher, &change, at).await.expect("schedules");
    assert_eq!((number, outcome.counts.changes(), outcome.previous, outcome.sites_touched), (1, 3, Seq(2), 2));
    assert_eq!((hq.rows(), hq.prices().image.version), (vec!["rye 2".to_owned(), "tea 1".to_owned()], Seq(2)));
    assert_eq!(rows_of(&hq.publisher, "prices_next").len(), 3, "its rows are there for the sites to fetch");
    let (_, second) = schedule(&hq.publisher, &merge("sku,price\ntea,6\n"), later).await.expect("schedules");
    assert_eq!(second, 2);
    assert_eq!(due_at(&hq, &tokyo), [(1, micros(at, TOKYO)), (2, micros(later, TOKYO))]);
    assert_eq!(due_at(&hq, &seattle), [(1, micros(at, SEATTLE)), (2, micros(later, SEATTLE))]);
    let by_hand = check_is_own(&hq.publisher, &table("prices_next"));
    assert!(matches!(by_hand, Err(HqError::Invalid(_))), "only schedules fill it");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_time_has_come_in_the_last_zone_it_is_published_once() {
    let (hq, ..) = in_two_zones().await;
    let (at, mut unwanted) = (nine_in(&hq, 3), Unwanted::new());
    let change = Request { gone: Some(csv("sku\nrye\n")), ..merge("sku,price\ntea,5\nice,3\n") };
    let (_, number) = schedule(&hq.publisher, &change, at).await.expect("schedules");
    put_on_until(&hq, at, TOKYO);
    look(&hq.publisher, &mut unwanted).await;
    assert_eq!((state_of(&hq, number), hq.prices().image.version), (State::Waiting, Seq(2)), "not yet in Seattle");
    put_on_until(&hq, at, SEATTLE);
    look(&hq.publisher, &mut unwanted).await;
    assert_eq!(state_of(&hq, number), State::Published { as_version: Seq(5) });
    assert_eq!(hq.rows(), ["ice 3", "tea 5"]);
    // Another node did not hear that it was published, and somebody changed a row since.
    hq.publish(merge("sku,price\ntea,7\n")).await.expect("publishes");
    let again = Request { scheduled: Some(number), ..merge("sku,price\ntea,5\n") };
    let again = publish(&hq.another(), again).await.expect("is done already");
    assert_eq!((again.version, again.counts.changes()), (Seq(5), 0), "{} is known", done_as(number));
    assert_eq!((hq.rows(), hq.prices().image.version), (vec!["ice 3".to_owned(), "tea 7".to_owned()], Seq(6)));
    look(&hq.publisher, &mut unwanted).await;
    assert_eq!(rows_of(&hq.publisher, "prices_next").len(), 3, "another node may not know yet what became of it");
    hq.put_on(Duration::from_secs(11));
    look(&hq.publisher, &mut unwanted).await;
    assert!(rows_of(&hq.publisher, "prices_next").is_empty(), "nobody waits for its rows any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withdrawn_before_its_time_is_due_nowhere_and_never_published() {
    let (hq, tokyo, _) = in_two_zones().await;
    let (soon, later) = (nine_in(&hq, 3), nine_in(&hq, 9));
    schedule(&hq.publisher, &merge("sku,price\ntea,5\n"), soon).await.expect("schedules");
    schedule(&hq.publisher, &merge("sku,price\ntea,6\n"), later).await.expect("schedules");
    let restated = || definitions(&hq.publisher.registry.lake.state().view())[&prices()].restated;
    withdraw(&hq.publisher, &prices(), 2, "bob").await.expect("withdraws");
    assert_eq!((due_at(&hq, &tokyo).len(), restated()), (1, 0), "no site has it in force");
    let twice = withdraw(&hq.publisher, &prices(), 2, "bob").await;
    assert!(matches!(twice, Err(HqError::Invalid(_))), "{twice:?}");
    put_on_until(&hq, soon, TOKYO);
    withdraw(&hq.publisher, &prices(), 1, "bob").await.expect("withdraws");
    assert!(matches!(state_of(&hq, 1), State::Withdrawn { withdrawn_by, .. } if withdrawn_by == "bob"));
    assert_eq!((due_at(&hq, &tokyo).len(), restated()), (0, 1), "Tokyo has it in force, and fetches the table whole");
    put_on_until(&hq, later, SEATTLE);
    look(&hq.publisher, &mut Unwanted::new()).await;
    assert_eq!((hq.rows(), hq.prices().image.version), (vec!["rye 2".to_owned(), "tea 1".to_owned()], Seq(2)));
}
