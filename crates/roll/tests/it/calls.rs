//! The watch calls: whatever is missing for half a day, by night as by day, and again when it falls
//! again.

use std::collections::BTreeSet;

use rollcall_roll::{Condition, Kind, Notice, Thresholds, WatchConfig};
use rollcall_types::{Cause, SiteState};

use crate::fleet::{DAY, Fleet, at, everyday};

const UTC: &[chrono_tz::Tz] = &[chrono_tz::UTC];
/// Noon of the day after learning.
const NOON: i64 = 21 * DAY + 12 * 60;

/// Minutes from `from` to the first time that people were told of an incident with this shop among
/// its members.
fn told_after(fleet: &Fleet, shop: usize, from: i64) -> Option<i64> {
    let id = &fleet.shops[shop].id;
    let is_about = |incident: &u64| fleet.incidents.get(incident).is_some_and(|known| known.members.contains_key(id));
    let told = fleet.told.iter().filter(|said| said.notice != Notice::Resolved && said.at >= at(from));
    told.filter(|said| is_about(&said.incident))
        .map(|said| (said.at.as_micros() - at(from).as_micros()) / 60_000_000)
        .next()
}

#[test]
fn a_silence_that_never_surprises_is_told_after_half_a_business_day() {
    // Method: with thresholds that nothing reaches, only missed business time can call. A shop is
    // open for eleven hours.
    let thresholds = Thresholds { red: 90.0, page: 99.0, ..Thresholds::default() };
    let mut fleet = Fleet::new(12, UTC, WatchConfig { thresholds, ..WatchConfig::default() });
    fleet.run(0, NOON, &|_, _| true);
    let mut fleet = fleet.settled();
    fleet.run(NOON, NOON + 2 * DAY, &|shop, _| shop != 3);
    let minutes = told_after(&fleet, 3, NOON).expect("people are told");
    assert!((5 * 60..6 * 60).contains(&minutes), "{minutes} minutes: {}", fleet.summary());
    let others: BTreeSet<usize> = (0..12).filter(|shop| told_after(&fleet, *shop, NOON).is_some()).collect();
    assert_eq!(others, BTreeSet::from([3]), "{}", fleet.summary());
    assert_eq!(fleet.watch.verdict(&fleet.shops[3].id).expect("watched").state, SiteState::Silent);
}

#[test]
fn a_table_with_few_rows_is_told_of_half_a_day_beyond_its_longest_healthy_silence() {
    // Method: sites that are heard all the time sell once every three days or so, for ten weeks;
    // then one sells no more.
    let mut fleet = Fleet::new(6, UTC, WatchConfig::default());
    let sells = |shop: usize, day: i64| (day * 7 + shop as i64 * 3) % 5 < 2 && (day / 6 + shop as i64) % 4 != 0;
    let quiet_from = 70;
    let mut longest = 0;
    let mut last = 0;
    for day in 0..quiet_from + 21 {
        if sells(3, day) && day < quiet_from {
            longest = longest.max(day - last);
            last = day;
        }
        for quarter in 0..96 {
            let minute = day * DAY + quarter * 15;
            fleet.watch.tick(at(minute));
            for shop in 0..fleet.shops.len() {
                let id = fleet.shops[shop].id.clone();
                for tick in 0..15 {
                    fleet.watch.event(&id, "contact", at(minute + tick), 1.0);
                }
                if quarter == 48 && sells(shop, day) && (shop != 3 || day < quiet_from) {
                    fleet.watch.event(&id, "sales", at(minute), 1.0);
                }
            }
            for minute in minute..minute + 15 {
                fleet.watch.tick(at(minute));
            }
            let now = fleet.watch.take_decisions();
            if day >= quiet_from {
                fleet.told.extend(now);
            }
            for incident in fleet.watch.take_changed() {
                fleet.incidents.insert(incident.id, incident);
            }
        }
    }
    let days = told_after(&fleet, 3, last * DAY).expect("people are told") as f64 / DAY as f64;
    assert!(days <= longest as f64 * 1.6 + 2.0, "after {days} days, the longest was {longest}: {}", fleet.summary());
}

/// The first minute of an evening.
const EVENING: i64 = 22 * 60;

/// A fleet whose hours nobody declared and that is heard round the clock, on its first evening;
/// `fate` begins a quarter of an hour later.
fn first_evening(sites: usize, until: i64, fate: &dyn Fn(usize, i64) -> bool) -> Fleet {
    let mut fleet = Fleet::begun_at(EVENING, sites, UTC, WatchConfig::default());
    for shop in &mut fleet.shops {
        shop.always_open();
    }
    fleet.run(EVENING, until, &|shop, minute| minute < EVENING + 15 || fate(shop, minute));
    fleet
}

#[test]
fn sites_that_go_without_a_word_on_the_first_evening_are_named_within_a_quarter_of_an_hour() {
    let is_cut = |shop: usize| shop % 40 == 7;
    let mut fleet = first_evening(200, EVENING + 29, &|shop, _| !is_cut(shop));
    for shop in 0..200 {
        let state = fleet.watch.verdict(&fleet.shops[shop].id).expect("watched").state;
        let wanted = if is_cut(shop) { SiteState::Silent } else { SiteState::Ok };
        assert_eq!(state, wanted, "shop {shop}: {}", fleet.summary());
    }
    fleet.run(EVENING + 29, EVENING + 36, &|shop, _| !is_cut(shop));
    for shop in 0..200 {
        assert_eq!(told_after(&fleet, shop, EVENING).is_some(), is_cut(shop), "shop {shop}: {}", fleet.summary());
    }
}

#[test]
fn an_outage_of_many_on_the_first_evening_is_told_of_once_it_lasts_for_an_hour() {
    // A provider's 20 sites of 200: it might be closing time, until those that are left have been
    // heard for an hour.
    let is_cut = |shop: usize| shop % 10 == 7;
    let fleet = first_evening(200, EVENING + 120, &|shop, _| !is_cut(shop));
    let first = (0..200).filter(|shop| is_cut(*shop)).filter_map(|shop| told_after(&fleet, shop, EVENING + 15)).min();
    assert!(first.is_some_and(|minutes| minutes <= 90), "{first:?}: {}", fleet.summary());
    assert!(
        (0..200).filter(|shop| !is_cut(*shop)).all(|shop| told_after(&fleet, shop, EVENING).is_none()),
        "{}",
        fleet.summary()
    );
    assert!(fleet.told.iter().filter(|said| said.notice == Notice::Opened).count() <= 2, "as one: {}", fleet.summary());
}

#[test]
fn sites_that_close_at_hours_nobody_said_are_neither_missed_nor_called_closed() {
    // Over an hour all close, each at a minute of its own; one of them is not back in the morning.
    let closes = |shop: usize| EVENING + 20 + (shop as i64 * 37) % 60;
    let opens = |shop: usize| DAY + 8 * 60 + (shop as i64 * 13) % 20;
    let fate = |shop: usize, minute: i64| minute < closes(shop) || minute >= opens(shop) && shop != 5;
    let fleet = first_evening(200, DAY + 4 * 60, &fate);
    let told = fleet.told.iter().filter(|said| said.notice != Notice::Resolved).count();
    assert_eq!(told, 0, "{}", fleet.summary());
    for shop in &fleet.shops {
        assert_eq!(fleet.watch.verdict(&shop.id).expect("watched").state, SiteState::OutsideAssumedHours);
    }
    let mut fleet = fleet;
    fleet.run(DAY + 4 * 60, DAY + 9 * 60, &fate);
    assert_eq!(
        fleet.watch.verdict(&fleet.shops[5].id).expect("watched").state,
        SiteState::Silent,
        "{}",
        fleet.summary()
    );
    assert!(told_after(&fleet, 5, DAY).is_some(), "{}", fleet.summary());
    assert_eq!((0..200).filter(|shop| told_after(&fleet, *shop, DAY).is_some()).count(), 1, "{}", fleet.summary());
}

#[test]
fn an_outage_that_comes_back_every_day_is_told_every_day() {
    let mut fleet = everyday(300, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    for day in 0..5 {
        let from = NOON + day * DAY;
        let is_dark = |shop: usize, minute: i64| (100..150).contains(&shop) && minute < from + 180;
        let before = fleet.told.len();
        fleet.run(from, from + DAY, &|shop, minute| !is_dark(shop, minute));
        let is_group = |id: &u64| fleet.incidents[id].kind == Kind::Group;
        let told: Vec<_> = fleet.told[before..].iter().filter(|said| is_group(&said.incident)).collect();
        let first = told.first().unwrap_or_else(|| panic!("day {day}: nobody is told: {}", fleet.summary()));
        let minutes = (first.at.as_micros() - at(from).as_micros()) / 60_000_000;
        assert!(minutes <= 20 && first.level == 1, "day {day}: after {minutes} minutes at level {}", first.level);
        assert!(matches!(first.notice, Notice::Opened | Notice::Again));
    }
}

#[test]
fn a_site_that_was_away_for_weeks_makes_no_group_loud() {
    // One shop of the region is away for two weeks, far up on the ladder.
    let gone = NOON - 14 * DAY;
    let mut fleet = Fleet::new(300, UTC, WatchConfig::default());
    fleet.run(0, gone, &|_, _| true);
    fleet.run(gone, NOON, &|shop, _| shop != 120);
    let mut fleet = fleet.settled();
    fleet.run(NOON, NOON + 30, &|shop, _| !(100..150).contains(&shop));
    let groups = fleet.of_kind(Kind::Group);
    assert_eq!(groups.len(), 1, "{}", fleet.summary());
    assert_eq!(groups[0].level, 1, "{}", fleet.summary());
    assert!(groups[0].members.contains_key(&fleet.shops[120].id));
}

#[test]
fn who_is_heard_soon_after_the_others_is_not_told_of() {
    let mut fleet = everyday(300, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    let back = |shop: usize| NOON + 300 + if (100..110).contains(&shop) { 25 } else { 0 };
    let is_dark = |shop: usize, minute: i64| (100..150).contains(&shop) && minute < back(shop);
    fleet.run(NOON, NOON + 360, &|shop, minute| !is_dark(shop, minute));
    assert_eq!(fleet.pages(Kind::Silence), 0, "{}", fleet.summary());
    // One that stays away is told of.
    fleet.run(NOON + 360, NOON + 420, &|_, _| true);
    let stays = |shop: usize, minute: i64| shop == 100 || (100..150).contains(&shop) && minute < NOON + DAY + 120;
    let before = fleet.told.len();
    fleet.run(NOON + 420, NOON + DAY, &|_, _| true);
    fleet.run(NOON + DAY, NOON + DAY + 300, &|shop, minute| !stays(shop, minute));
    let id = fleet.shops[100].id.clone();
    let own = fleet.told[before..].iter().any(|said| {
        let incident = &fleet.incidents[&said.incident];
        incident.kind == Kind::Silence && incident.members.contains_key(&id) && said.notice != Notice::Resolved
    });
    assert!(own, "{}", fleet.summary());
}

#[test]
fn a_holiday_is_no_deaf_hq() {
    let mut fleet = everyday(100, UTC);
    fleet.run(21 * DAY, 22 * DAY, &|_, _| true);
    fleet.holidays.insert(chrono::NaiveDate::from_ymd_opt(2026, 1, 27).expect("a day"));
    fleet.run(22 * DAY, 23 * DAY, &|_, _| true);
    assert_eq!(fleet.pages(Kind::HqBlind), 0, "{}", fleet.summary());
    assert_eq!(fleet.pages(Kind::Silence) + fleet.pages(Kind::Group), 0, "{}", fleet.summary());
    let questions = fleet.of_kind(Kind::CohortQuiet);
    assert!(questions.len() <= 2, "one question for each stream: {}", fleet.summary());
}

#[test]
fn a_group_of_everybody_is_hq_that_hears_few() {
    // One brand, which says nothing of one site that it does not say of all; they go one by one, as
    // after a certificate ran out.
    let mut fleet = everyday(60, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    fleet.run(NOON, NOON + 180, &|shop, minute| (minute - NOON) < shop as i64 * 2);
    let groups = fleet.of_kind(Kind::Group);
    let all = groups.iter().find(|group| group.attribute.is_none());
    let all = all.unwrap_or_else(|| panic!("{}", fleet.summary()));
    assert!(all.evidence.contains("more likely HQ's own line"), "{}", all.evidence);
    assert!(groups.iter().all(|group| group.attribute.as_ref().is_none_or(|shared| shared.name != "brand")));
}

#[test]
fn a_goodbye_outlasts_what_the_watch_itself_keeps() {
    let mut fleet = everyday(20, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    let (gone, quiet) = (fleet.shops[3].id.clone(), fleet.shops[4].id.clone());
    // HQ is killed right after a goodbye, and runs again an hour later with what was kept before
    // it.
    fleet.restart(NOON + 2);
    fleet.watch.restore_heard(&gone, at(NOON + 1), true);
    fleet.run(NOON + 2, NOON + 90, &|shop, _| shop != 3 && shop != 4);
    assert_eq!(fleet.watch.verdict(&gone).expect("watched").state, SiteState::QuietExpected);
    assert_eq!(fleet.watch.verdict(&quiet).expect("watched").state, SiteState::Silent);
    // It excuses no more than a goodbye does: the next day it is missed.
    fleet.run(NOON + 90, NOON + DAY, &|shop, _| shop != 3 && shop != 4);
    assert_eq!(fleet.watch.verdict(&gone).expect("watched").state, SiteState::Silent);
    // One that is long over excuses nothing of what was missed since.
    let mut fleet = everyday(20, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    fleet.restart(NOON + DAY);
    fleet.watch.restore_heard(&gone, at(NOON), true);
    fleet.run(NOON + DAY, NOON + DAY + 60, &|shop, _| shop != 3);
    assert_eq!(fleet.watch.verdict(&gone).expect("watched").state, SiteState::Silent, "{}", fleet.summary());
}

#[test]
fn a_few_sites_that_speak_often_are_not_the_fleet() {
    // Nine of a hundred sites of one source speak each minute, the others every ten: they are half
    // of all contact, and no deaf HQ.
    let mut fleet = Fleet::new(100, UTC, WatchConfig::default());
    fleet.shops.iter_mut().for_each(|shop| shop.always_open());
    let speaks = |shop: usize, minute: i64| shop < 9 || (minute + shop as i64) % 10 == 0;
    fleet.run(0, 21 * DAY, &speaks);
    let mut fleet = fleet.settled();
    fleet.run(21 * DAY, NOON, &speaks);
    fleet.run(NOON, NOON + 120, &|shop, minute| shop >= 9 && speaks(shop, minute));
    assert_eq!(fleet.pages(Kind::HqBlind), 0, "{}", fleet.summary());
    assert_eq!(fleet.watch.verdict(&fleet.shops[4].id).expect("watched").state, SiteState::Silent);
    // When all go, it is HQ.
    fleet.run(NOON + 120, NOON + 240, &|_, _| false);
    assert_eq!(fleet.pages(Kind::HqBlind), 1, "{}", fleet.summary());
}

#[test]
fn what_was_heard_after_the_rhythms_were_kept_is_missed_once() {
    let mut fleet = everyday(20, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    // Rhythms are of noon; the site was heard until four past, and HQ runs again at ten past.
    let site = fleet.shops[5].id.clone();
    fleet.restart(NOON + 10);
    fleet.watch.restore_heard(&site, at(NOON + 4), false);
    let contact = fleet.watch.stream_id(&site, "contact").expect("known");
    let missed = |fleet: &Fleet, minute: i64| fleet.watch.measure(contact, at(minute)).expected;
    assert!((5.0..7.0).contains(&missed(&fleet, NOON + 10)), "{}", missed(&fleet, NOON + 10));
    fleet.watch.tick(at(NOON + 11));
    assert!((6.0..8.0).contains(&missed(&fleet, NOON + 11)), "{}", missed(&fleet, NOON + 11));
}

#[test]
fn a_goodbye_of_a_shop_that_should_be_open_is_believed_for_half_an_hour() {
    // Method: three shops with declared hours go with a goodbye, two at noon and one at closing
    // time. What was stopped at noon is the agent.
    let mut fleet = everyday(20, UTC);
    for (shop, hours) in [(3, "24/7"), (4, "Mo-Sa 09:00-20:00"), (5, "Mo-Sa 09:00-20:00")] {
        fleet.specs[shop].calendar.hours = Some(std::sync::Arc::new(hours.parse().expect("hours")));
        fleet.watch.set_site(fleet.specs[shop].clone());
    }
    fleet.run(21 * DAY, NOON, &|_, _| true);
    let ids = [3, 4, 5].map(|shop: usize| fleet.shops[shop].id.clone());
    ids[..2].iter().for_each(|id| fleet.watch.goodbye(id, at(NOON)));
    let state = |fleet: &Fleet, id| fleet.watch.verdict(id).expect("watched").state;
    fleet.run(NOON, NOON + 25, &|shop, _| shop != 3 && shop != 4);
    ids[..2].iter().for_each(|id| assert_eq!(state(&fleet, id), SiteState::QuietExpected));
    fleet.run(NOON + 25, NOON + 60, &|shop, _| shop != 3 && shop != 4);
    ids[..2].iter().for_each(|id| assert_eq!(state(&fleet, id), SiteState::Silent, "{}", fleet.summary()));
    let closing = 21 * DAY + 19 * 60 + 50;
    fleet.run(NOON + 60, closing, &|shop, _| shop != 3 && shop != 4);
    fleet.watch.goodbye(&ids[2], at(closing));
    fleet.run(closing, closing + 120, &|shop, _| !(3..=5).contains(&shop));
    assert_eq!(state(&fleet, &ids[2]), SiteState::QuietExpected, "{}", fleet.summary());
    let cause = fleet.watch.verdict(&ids[2]).expect("watched").cause;
    assert_eq!(cause, Some(Cause::Closed), "a quarter of an hour before closing time it is the shop that closes");
}

#[test]
fn a_site_that_falls_silent_while_hq_is_deaf_is_unknown_and_not_recovering() {
    let mut fleet = everyday(20, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    // HQ is off for half an hour. All are back with a backlog; then one goes.
    fleet.run(NOON + 30, NOON + 32, &|_, _| true);
    let ids: Vec<_> = fleet.shops.iter().map(|shop| shop.id.clone()).collect();
    ids.iter().for_each(|id| fleet.watch.set_backlog(id, true));
    fleet.run(NOON + 32, NOON + 38, &|shop, _| shop != 3);
    assert_eq!(fleet.watch.verdict(&ids[3]).expect("watched").state, SiteState::Unknown, "{}", fleet.summary());
    assert_eq!(fleet.watch.verdict(&ids[4]).expect("watched").state, SiteState::Recovering);
}

#[test]
fn what_is_told_of_a_relapse_is_of_the_last_fall() {
    let mut fleet = everyday(20, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    let id = fleet.shops[3].id.clone();
    fleet.run(NOON, NOON + 60, &|shop, _| shop != 3);
    fleet.watch.correct_cause(&id, Some(Cause::HqRefuses), "it was refused", at(NOON + 60));
    fleet.run(NOON + 60, NOON + 150, &|_, _| true);
    fleet.run(NOON + 150, NOON + 210, &|shop, _| shop != 3);
    let incident = fleet.watch.incidents().find(|one| one.members.contains_key(&id)).expect("there is one");
    assert!(incident.is_open(), "{}", fleet.summary());
    let since = (incident.since.as_micros() - at(NOON + 150).as_micros()) / 60_000_000;
    assert!((-2..=2).contains(&since), "it is since the second fall, {since} minutes from it");
    assert_eq!(incident.cause, Some(Cause::PowerOrLink));
    let said = incident.evidence.clone();
    assert!(said.contains(&format!("since {}", incident.since.for_people())), "{said}");
    assert!(incident.timeline.iter().any(|entry| entry.text == "it was refused"), "the story keeps what was before");
}

#[test]
fn who_is_back_after_a_goodbye_is_missed_as_soon_as_anybody() {
    // Method: three shops say goodbye at noon and are back two minutes later, as after an update;
    // one says that it is open, one says nothing of its hours. Ten minutes later they go without a
    // word, and so does one that never said goodbye.
    let mut fleet = everyday(20, UTC);
    fleet.specs[3].calendar.hours = Some(std::sync::Arc::new("24/7".parse().expect("hours")));
    fleet.watch.set_site(fleet.specs[3].clone());
    fleet.run(21 * DAY, NOON, &|_, _| true);
    let ids = [3, 4, 5].map(|shop: usize| fleet.shops[shop].id.clone());
    ids[..2].iter().for_each(|id| fleet.watch.goodbye(id, at(NOON)));
    fleet.run(NOON, NOON + 2, &|shop, _| shop != 3 && shop != 4);
    fleet.run(NOON + 2, NOON + 12, &|_, _| true);
    let silent_after = |fleet: &mut Fleet, id: &_| {
        (1..60).find(|minute| {
            fleet.run(NOON + 11 + minute, NOON + 12 + minute, &|shop, _| !(3..=5).contains(&shop));
            fleet.watch.verdict(id).expect("watched").state == SiteState::Silent
        })
    };
    // All run at once: who was silent by then is so at once.
    let never = silent_after(&mut fleet, &ids[2]).expect("it is missed");
    for id in &ids[..2] {
        let state = fleet.watch.verdict(id).expect("watched").state;
        assert_eq!(state, SiteState::Silent, "{id}, when another was after {never} minutes: {}", fleet.summary());
    }
}

#[test]
fn a_restore_is_told_once_and_what_outlasts_it_for_itself() {
    let mut fleet = everyday(20, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    let id = fleet.shops[3].id.clone();
    let told = |fleet: &Fleet| -> BTreeSet<String> {
        let of_site = |one: &&rollcall_roll::Decision| {
            let incident = fleet.watch.incident(one.incident);
            one.at >= at(NOON) && incident.is_some_and(|incident| incident.members.contains_key(&id))
        };
        let decisions = fleet.told.iter().filter(of_site);
        decisions.filter_map(|one| Some(fleet.watch.incident(one.incident)?.kind.to_string())).collect()
    };
    let root = BTreeSet::from([Condition::NewLife.to_string()]);
    // Some of what follows is noticed before it, some after.
    for (condition, what) in [
        (Condition::Behind, "changes wait"),
        (Condition::NewLife, "its database was restored"),
        (Condition::Restated, "it sends its tables again"),
        (Condition::Manifest, "counts differ"),
    ] {
        fleet.watch.set_condition(&id, condition, Some(what), at(NOON));
    }
    fleet.run(NOON, NOON + 60, &|_, _| true);
    assert_eq!(told(&fleet), root, "{}", fleet.summary());
    // A person decides; all is sent, but for what was never there.
    for condition in [Condition::NewLife, Condition::Restated, Condition::Behind] {
        fleet.watch.set_condition(&id, condition, None, at(NOON + 60));
    }
    fleet.run(NOON + 60, NOON + 62, &|_, _| true);
    assert_eq!(told(&fleet), root);
    fleet.run(NOON + 62, NOON + 180, &|_, _| true);
    let all = BTreeSet::from([Condition::NewLife.to_string(), Condition::Manifest.to_string()]);
    assert_eq!(told(&fleet), all, "{}", fleet.summary());
}
