//! Scenes from a fleet's life.

use rollcall_roll::{Kind, Notice, WatchConfig};
use rollcall_types::SiteState;

use crate::fleet::{DAY, Fleet, at, everyday};

const UTC: &[chrono_tz::Tz] = &[chrono_tz::UTC];
/// Noon of the day after learning.
const NOON: i64 = 21 * DAY + 12 * 60;

#[test]
fn a_stop_by_day_is_noticed_within_a_quarter_of_an_hour_and_everyday_life_is_quiet() {
    let mut fleet = everyday(40, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    fleet.run(NOON, NOON + 60, &|shop, _| shop != 7);
    let silences = fleet.called(Kind::Silence);
    assert_eq!(silences.len(), 1, "{}", fleet.summary());
    let told = fleet.told.first().expect("someone is told");
    let minutes = (told.at.as_micros() - at(NOON).as_micros()) / 60_000_000;
    assert!((5..=16).contains(&minutes), "{minutes} minutes: {}", fleet.summary());
    assert_eq!(silences[0].stream.as_deref(), Some("contact"));
    assert_eq!(fleet.watch.verdict(&fleet.shops[7].id).expect("watched").state, SiteState::Silent);
    // It comes back: recovering first, then well, and the incident is over.
    fleet.run(NOON + 60, NOON + 65, &|_, _| true);
    assert_eq!(fleet.watch.verdict(&fleet.shops[7].id).expect("watched").state, SiteState::Recovering);
    fleet.run(NOON + 65, NOON + 90, &|_, _| true);
    assert_eq!(fleet.watch.verdict(&fleet.shops[7].id).expect("watched").state, SiteState::Ok);
    assert!(!fleet.called(Kind::Silence)[0].is_open());
    // A night and a weekend say nothing.
    let before = fleet.told.len();
    fleet.run(NOON + 90, NOON + 5 * DAY, &|_, _| true);
    assert_eq!(fleet.told.len(), before, "{}", fleet.summary());
}

#[test]
fn twelve_weeks_of_silence_never_get_quieter_and_teach_nothing() {
    let mut fleet = everyday(12, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    let poisoned = fleet.shops[3].id.clone();
    let rhythm = |fleet: &crate::fleet::Fleet| fleet.watch.expected_rows(&poisoned, "sales", at(7 * DAY), at(14 * DAY));
    let before = rhythm(&fleet).expect("known");
    let mut level = 0;
    let mut leases = 0;
    for week in 0..12 {
        for day in 0..7 {
            let from = NOON + (week * 7 + day) * DAY;
            fleet.run(from, from + DAY, &|shop, _| shop != 3);
            let state = fleet.watch.verdict(&poisoned).expect("watched").state;
            assert_eq!(state, SiteState::Silent, "day {day} of week {week}");
            let incident = fleet.called(Kind::Silence).pop().expect("open").clone();
            assert!(incident.is_open() && incident.level >= level);
            level = incident.level;
            if week == 0 && day == 1 {
                fleet.watch.acknowledge(incident.id, "Ada", "a technician comes", at(from + 3 * DAY), at(from + DAY));
                leases = incident.level;
            }
        }
    }
    assert_eq!(level, 5);
    let expired = fleet.told.iter().find(|decision| decision.notice == Notice::LeaseExpired).expect("it ran out");
    assert!(expired.level > leases, "one level higher");
    assert_eq!(fleet.called(Kind::Silence).len(), 1, "one incident all the time: {}", fleet.summary());
    let after = rhythm(&fleet).expect("known");
    assert!((after / before - 1.0).abs() < 0.05, "the rhythm is what it was: {before} {after}");
}

#[test]
fn a_regional_outage_is_one_incident_and_two_causes_are_told_apart() {
    let mut fleet = everyday(300, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    // Region 2 (shops 100 to 149) loses power; a little later provider 7 fails everywhere.
    fleet.run(NOON, NOON + 90, &|shop, minute| !((100..150).contains(&shop) || minute > NOON + 20 && shop % 10 == 7));
    let groups = fleet.of_kind(Kind::Group);
    let mut named: Vec<String> =
        groups.iter().filter_map(|group| group.attribute.as_ref()).map(|attribute| attribute.value.clone()).collect();
    named.sort();
    assert_eq!(named, ["isp-7", "region-2"], "{}", fleet.summary());
    assert_eq!(fleet.pages(Kind::Group), 2);
    assert_eq!(fleet.pages(Kind::Silence), 0, "members are held");
    fleet.run(NOON + 90, NOON + 150, &|_, _| true);
    assert!(fleet.incidents.values().all(|incident| !incident.is_open()), "all is over");
}

#[test]
fn after_a_stop_of_hq_people_hear_of_hq_and_of_no_site() {
    let mut fleet = everyday(100, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    // Two hours in which the watch does not run at all; then everyone is back within some minutes.
    let back = NOON + 120;
    fleet.run(back, back + 240, &|shop, minute| minute - back > (shop % 12) as i64);
    assert_eq!(fleet.pages(Kind::HqBlind), 1);
    assert_eq!(fleet.pages(Kind::Silence) + fleet.pages(Kind::Group), 0, "{}", fleet.summary());
    assert!(!fleet.of_kind(Kind::HqBlind)[0].is_open());
    // And a site that never came back is noticed afterwards.
    fleet.run(back + 240, back + 300, &|shop, _| shop != 5);
    assert_eq!(fleet.called(Kind::Silence).len(), 1);
}

#[test]
fn when_everyone_falls_silent_it_is_hq() {
    let mut fleet = everyday(100, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    fleet.run(NOON, NOON + 60, &|_, _| false);
    assert_eq!(fleet.pages(Kind::HqBlind), 1);
    assert_eq!(fleet.pages(Kind::Silence) + fleet.pages(Kind::Group), 0, "{}", fleet.summary());
    assert_eq!(fleet.watch.verdict(&fleet.shops[0].id).expect("watched").state, SiteState::Unknown);
}

#[test]
fn a_table_that_stops_while_the_site_is_heard_is_noticed() {
    let mut fleet = everyday(30, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    let quiet = fleet.shops[4].id.clone();
    for minute in NOON..NOON + 480 {
        fleet.watch.tick(at(minute));
        for shop in &fleet.shops {
            fleet.watch.event(&shop.id, "contact", at(minute), 1.0);
            if shop.id != quiet && minute % 6 == 0 {
                fleet.watch.event(&shop.id, "sales", at(minute), 1.0);
            }
        }
        fleet.watch.take_changed().into_iter().for_each(|incident| {
            fleet.incidents.insert(incident.id, incident);
        });
    }
    let silences = fleet.called(Kind::Silence);
    assert_eq!(silences.len(), 1, "{}", fleet.summary());
    assert_eq!(silences[0].stream.as_deref(), Some("sales"));
    assert!(silences[0].evidence.contains("should have come from shop-00004"), "{}", silences[0].evidence);
}

#[test]
fn clocks_that_change_and_thirty_zones_wake_nobody() {
    let zones = [
        chrono_tz::America::New_York,
        chrono_tz::America::Chicago,
        chrono_tz::America::Los_Angeles,
        chrono_tz::Europe::Berlin,
        chrono_tz::Europe::London,
        chrono_tz::Asia::Kolkata,
        chrono_tz::Asia::Kathmandu,
        chrono_tz::Pacific::Kiritimati,
        chrono_tz::Pacific::Honolulu,
        chrono_tz::Australia::Sydney,
    ];
    let mut fleet = everyday(60, &zones);
    // Nine more weeks, over the change in the United States (8 March), in Europe (29 March) and in
    // Sydney (5 April).
    fleet.run(21 * DAY, 93 * DAY, &|_, _| true);
    let pages = fleet.told.iter().filter(|decision| decision.notice != Notice::Resolved).count();
    assert!(pages <= 1, "{pages}: {}", fleet.summary());
}

#[test]
fn a_restart_of_hq_forgets_no_rhythm_and_no_incident() {
    // Method: a site is silent; everything is written and read back as HQ does; the new watch goes
    // on where the old one was.
    let mut fleet = everyday(30, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    fleet.run(NOON, NOON + 60, &|shop, _| shop != 7);
    let incident = fleet.called(Kind::Silence)[0].clone();
    let rhythm = |fleet: &crate::fleet::Fleet| {
        fleet.watch.expected_rows(&fleet.shops[7].id, "sales", at(14 * DAY), at(21 * DAY)).expect("known")
    };
    let before = rhythm(&fleet);
    fleet.restart(NOON + 60);
    assert!((rhythm(&fleet) / before - 1.0).abs() < 0.02, "{before} {}", rhythm(&fleet));
    fleet.run(NOON + 61, NOON + 90, &|shop, _| shop != 7);
    assert_eq!(fleet.watch.verdict(&fleet.shops[7].id).expect("watched").state, SiteState::Silent);
    fleet.run(NOON + 90, NOON + 120, &|_, _| true);
    let after = fleet.watch.incident(incident.id).expect("known");
    assert!(!after.is_open(), "{}", fleet.summary());
    assert_eq!(fleet.called(Kind::Silence).len(), 1, "{}", fleet.summary());
}

#[test]
fn a_closure_that_begins_later_explains_a_silence_that_was_there_before() {
    let mut fleet = everyday(30, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    fleet.run(NOON, NOON + 60, &|shop, _| shop != 7);
    let incident = fleet.called(Kind::Silence)[0].id;
    // Declared from a moment that the watch has not come to: HQ's clock is always a little ahead of
    // the last tick.
    fleet.close(7, NOON + 70, NOON + 4 * DAY);
    fleet.run(NOON + 60, NOON + 70, &|shop, _| shop != 7);
    assert!(fleet.watch.incident(incident).expect("known").is_open(), "not yet");
    fleet.run(NOON + 70, NOON + 3 * DAY, &|shop, _| shop != 7);
    assert!(!fleet.watch.incident(incident).expect("known").is_open());
    assert_eq!(fleet.watch.verdict(&fleet.shops[7].id).expect("watched").state, SiteState::DeclaredClosed);
    assert_eq!(fleet.called(Kind::Silence).len(), 1, "{}", fleet.summary());
    fleet.run(NOON + 3 * DAY, NOON + 5 * DAY, &|shop, _| shop != 7);
    assert_eq!(fleet.watch.verdict(&fleet.shops[7].id).expect("watched").state, SiteState::Silent, "it did not reopen");
}

#[test]
fn a_group_outlasts_a_restart_of_hq() {
    // Method: a region is silent, everything is written and read back; the group must not be taken
    // for over, nor be found anew.
    let mut fleet = everyday(300, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    let is_dark = |shop: usize| (100..150).contains(&shop);
    fleet.run(NOON, NOON + 60, &|shop, _| !is_dark(shop));
    let group = fleet.of_kind(Kind::Group)[0].id;
    fleet.restart(NOON + 60);
    fleet.run(NOON + 61, NOON + 120, &|shop, _| !is_dark(shop));
    let groups = fleet.of_kind(Kind::Group);
    assert!(groups.len() == 1 && groups[0].is_open(), "{}", fleet.summary());
    assert_eq!(groups[0].absent().count(), 50);
    assert_eq!(fleet.pages(Kind::Silence), 0, "members are still held: {}", fleet.summary());
    fleet.run(NOON + 120, NOON + 180, &|_, _| true);
    assert!(!fleet.watch.incident(group).expect("known").is_open(), "{}", fleet.summary());
}

#[test]
fn what_hq_saw_of_sites_itself_names_what_they_share() {
    let mut fleet = everyday(300, UTC);
    let seen = |shop: usize| {
        let version = if shop % 5 == 1 { "2.0" } else { "1.9" };
        [("agent", version), ("isp", "not what the roster says")]
            .map(|(name, of)| (name.to_owned(), of.to_owned()))
            .into()
    };
    for shop in 0..fleet.shops.len() {
        fleet.watch.observe(&fleet.shops[shop].id, &seen(shop));
    }
    fleet.run(21 * DAY, NOON, &|_, _| true);
    fleet.restart(NOON);
    fleet.run(NOON + 1, NOON + 60, &|shop, _| shop % 5 != 1);
    let groups = fleet.of_kind(Kind::Group);
    assert_eq!(groups.len(), 1, "{}", fleet.summary());
    let shared = groups[0].attribute.as_ref().expect("named");
    assert_eq!((shared.name.as_str(), shared.value.as_str()), ("agent", "2.0"));
    assert_eq!(groups[0].members.len(), 60);
}

#[test]
fn a_site_that_states_manifests_is_well_once_one_agrees() {
    let mut fleet = everyday(40, UTC);
    fleet.run(21 * DAY, NOON, &|_, _| true);
    let id = fleet.shops[7].id.clone();
    fleet.watch.reconciled(&id, Some(at(NOON)));
    fleet.run(NOON, NOON + 60, &|shop, _| shop != 7);
    fleet.run(NOON + 60, NOON + 120, &|_, _| true);
    assert_eq!(fleet.watch.verdict(&id).expect("watched").state, SiteState::Recovering);
    fleet.watch.reconciled(&id, Some(at(NOON + 119)));
    fleet.run(NOON + 120, NOON + 122, &|_, _| true);
    assert_eq!(fleet.watch.verdict(&id).expect("watched").state, SiteState::Ok);
    assert!(!fleet.called(Kind::Silence)[0].is_open());
}

#[test]
fn thresholds_follow_the_alarm_budget() {
    // Method: every line fails for 35 minutes every third day, which is ten silences a site and
    // month that mean nothing. Beside the watch that tunes itself goes one that does not; then one
    // site really stops.
    let config = WatchConfig { tunes: true, ..WatchConfig::default() };
    let fate = |shop: usize, minute: i64| {
        let (day, of_day) = (minute / DAY, minute % DAY);
        let from = 12 * 60 + shop as i64;
        (day + shop as i64) % 3 != 0 || !(from..from + 35).contains(&of_day)
    };
    let pages = |config: WatchConfig| {
        let mut fleet = Fleet::new(60, UTC, config);
        fleet.run(0, 56 * DAY, &fate);
        let mut fleet = fleet.settled();
        fleet.run(56 * DAY, 70 * DAY, &fate);
        let pages = fleet.pages(Kind::Silence);
        fleet.run(70 * DAY, 70 * DAY + 16 * 60, &|shop, minute| {
            fate(shop, minute) && (shop != 7 || minute % DAY < 10 * 60)
        });
        let is_seen = fleet
            .called(Kind::Silence)
            .iter()
            .any(|known| known.is_open() && known.members.contains_key(&fleet.shops[7].id));
        (pages, is_seen, fleet.watch.achieved())
    };
    let (untuned, _, _) = pages(WatchConfig::default());
    let (tuned, is_seen, achieved) = pages(config);
    assert!(achieved.tunes && achieved.page > 5.5, "{achieved:?}");
    assert!(tuned * 2 < untuned, "{tuned} of {untuned} pages, {achieved:?}");
    assert!(is_seen, "what is much longer is still told");
}

#[test]
fn a_line_that_fails_again_and_again_becomes_one_maintenance_item() {
    // Method: two lines fail for 20 minutes twice a day for three weeks; then one of them stops for
    // good.
    let mut fleet = everyday(40, UTC);
    let holds = |shop: usize, minute: i64| {
        let of_day = minute % DAY;
        let is_down = |from: i64| (from..from + 20).contains(&of_day);
        !matches!(shop, 5 | 6) || !(is_down(11 * 60) || is_down(15 * 60))
    };
    fleet.run(21 * DAY, 42 * DAY, &holds);
    let items = fleet.called(Kind::Chronic);
    assert_eq!(items.len(), 1, "{}", fleet.summary());
    assert_eq!(items[0].absent().count(), 2, "{}", items[0].evidence);
    assert!(items[0].evidence.contains("shop-00005") && items[0].evidence.contains("times"), "{}", items[0].evidence);
    let mut fleet = fleet.settled();
    fleet.restart(42 * DAY);
    // While they only flap on, nobody is called for each time.
    fleet.run(42 * DAY, 44 * DAY + 12 * 60, &holds);
    assert_eq!(fleet.pages(Kind::Silence), 0, "{}", fleet.summary());
    fleet.run(44 * DAY + 12 * 60, 44 * DAY + 18 * 60, &|shop, minute| holds(shop, minute) && shop != 5);
    let told =
        fleet.told.iter().filter(|said| said.level == 2 && fleet.incidents[&said.incident].kind == Kind::Silence);
    assert_eq!(told.count(), 1, "hours of silence are told: {}", fleet.summary());
    // The other line holds again, and is not on the list any more; nor is the first, once it is
    // back.
    fleet.run(44 * DAY + 18 * 60, 62 * DAY, &|_, _| true);
    assert!(fleet.of_kind(Kind::Chronic).iter().all(|item| !item.is_open()), "{}", fleet.summary());
}
