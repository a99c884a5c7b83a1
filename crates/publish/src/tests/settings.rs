use rollcall_wire::{SETTINGS_TABLE, proto::Settings};

use super::*;
use crate::{
    arrivals::arrivals,
    settings::{Capture, Rule, set},
};

fn rule(to: &str, rank: i32) -> Rule {
    Rule { to: to.to_owned(), rank, ..Rule::default() }
}

fn leaves_out(columns: &[&str]) -> BTreeMap<String, Capture> {
    let excluded = columns.iter().map(|column| (*column).to_owned()).collect();
    [("customers".to_owned(), Capture { excluded, ..Capture::default() })].into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_follows_the_rule_of_the_highest_rank_in_each_thing_and_exclusions_add_up() {
    let hq = Hq::open().await;
    let tacoma = hq.list("tacoma-01", &[("region", "west")]).await;
    let boston = hq.list("boston-01", &[("region", "east")]).await;
    let set = async |name: &str, rule: &Rule| set(&hq.publisher, name, Some(rule), "ada").await.expect("sets").sites;
    let west =
        Rule { beacon_seconds: Some(5), capture: leaves_out(&["card", "NAME"]), ..rule("site.region = 'west'", 2) };
    assert_eq!(set("a-west", &west).await, 1);
    let everywhere =
        Rule { beacon_seconds: Some(60), log: Some("debug".to_owned()), capture: leaves_out(&["name"]), ..rule("", 1) };
    assert_eq!(set("b-everywhere", &everywhere).await, 2);
    assert_eq!(set("c-everywhere", &Rule { log: Some("warn".to_owned()), ..rule("", 1) }).await, 2);
    let (of_tacoma, of_boston) = (hq.publisher.settings_of(&tacoma), hq.publisher.settings_of(&boston));
    assert_eq!((of_tacoma.beacon_interval_ms, of_tacoma.log.as_str()), (5_000, "warn"));
    assert_eq!((of_boston.beacon_interval_ms, of_boston.log.as_str()), (60_000, "warn"), "of a rank, the later name");
    assert_eq!(of_tacoma.capture[0].excluded, ["name", "card"], "each column once, in whatever letters");
    assert_eq!(of_boston.capture[0].excluded, ["name"]);
    assert_ne!(of_tacoma.digest, of_boston.digest);
    let names = hq.publisher.settings.of(&tacoma, &hq.record(&tacoma)).expect("works them out").rules.clone();
    assert_eq!(names, ["b-everywhere", "c-everywhere", "a-west"], "the one that is followed first is the last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_of_which_no_rule_speaks_has_no_settings_and_lacks_none() {
    let hq = Hq::open().await;
    let tacoma = hq.list("tacoma-01", &[("region", "west")]).await;
    let boston = hq.list("boston-01", &[("region", "east")]).await;
    assert!(hq.publisher.settings.is_empty());
    let west = Rule { beacon_seconds: Some(5), ..rule("site.region = 'west'", 0) };
    set(&hq.publisher, "west", Some(&west), "ada").await.expect("sets");
    assert_eq!(hq.publisher.settings_of(&boston), Settings::default());
    let digest = hq.publisher.settings_of(&tacoma).digest;
    assert_ne!(digest, 0);
    let all = arrivals(&hq.publisher, &Vec::new);
    assert_eq!(
        all.iter().map(|arrival| (&arrival.site, arrival.lacks.is_some())).collect::<Vec<_>>(),
        [(&tacoma, true)]
    );
    let applied = Applied { audience: digest, ..Applied::default() };
    hq.publisher.registry.record(&tacoma, beacon([(table(SETTINGS_TABLE), applied)].into()));
    assert!(arrivals(&hq.publisher, &Vec::new).iter().all(|arrival| arrival.lacks.is_none()), "it has them");
    assert_eq!(hq.publisher.settings_of(&SiteId::new("reno-01").expect("valid")), Settings::default());
    set(&hq.publisher, "west", None, "ada").await.expect("takes back");
    assert_eq!(hq.publisher.settings_of(&tacoma), Settings::default());
    assert!(hq.publisher.settings.all().is_empty() && !hq.publisher.settings.is_empty(), "there was a rule once");
}
