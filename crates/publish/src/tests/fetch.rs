use std::sync::atomic::{AtomicBool, AtomicI64};

use rollcall_registry::{CaId, Lanes, Peer, sessions::Session};
use rollcall_types::{Epoch, SiteNumber};

use super::*;
use crate::tables::{is_ahead, wanted};

fn fetched(whole: bool, rows: &[&str], version: u64) -> Fetched {
    Fetched { whole, rows: rows.iter().map(|row| (*row).to_owned()).collect(), version }
}

fn session(hq: &Hq, site: &SiteId) -> Session {
    let now = hq.publisher.registry.now();
    let (key_hash, authority) = (String::new(), CaId::default());
    Session {
        id: 1,
        site: site.clone(),
        number: SiteNumber(hq.record(site).number),
        peer: Arc::new(Peer { site: site.clone(), key_hash, not_after: now, authority }),
        epoch: Epoch(1),
        opened_at: now,
        confirmed_through: AtomicU64::new(0),
        lane: Lanes::new(Seq(0)),
        clock_offset_micros: 0,
        clock_off: AtomicI64::new(0),
        is_clock_off: AtomicBool::new(false),
        has_data: AtomicBool::new(false),
        is_taken: AtomicBool::new(true),
        over: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_fetches_the_rows_of_its_class_and_all_of_them_when_it_comes_into_another() {
    let hq = Hq::open().await;
    let tacoma = hq.list("tacoma-01", &[("region", "west")]).await;
    let boise = hq.list("boise-01", &[("region", "west")]).await;
    let boston = hq.list("boston-01", &[("region", "east")]).await;
    let rows = "sku,price,region\ntea,1,west\nrye,2,east\nice,3,west\n";
    let outcome = hq.publish(merge_to("region = site.region", rows)).await.expect("publishes");
    assert_eq!((outcome.audience, outcome.sites_touched), (3, 3));
    let class = |site: &SiteId| hq.prices().class_of(site, &hq.record(site)).expect("a class");
    assert!(Arc::ptr_eq(&class(&tacoma), &class(&boise)), "sites that are alike are one class");
    assert_ne!(class(&tacoma).tag, class(&boston).tag);
    assert_eq!(hq.fetch(&tacoma, 0), fetched(true, &["U tea 1 west", "U ice 3 west"], 3));
    assert_eq!(hq.fetch(&boston, 0), fetched(true, &["U rye 2 east"], 3));
    let before = class(&tacoma).tag;
    let (registry, east) = (&hq.publisher.registry, BTreeMap::from([("region".to_owned(), "east".to_owned())]));
    registry.roster.set_attributes(&tacoma, &east, "ada", registry.now()).await.expect("moves");
    assert_eq!(hq.fetch_for(&tacoma, 3, before), fetched(true, &["U rye 2 east"], 3));
    let other_rule = Request { rows: no_rows(), ..merge_to("price = 1", "sku\n") };
    let outcome = hq.publish(other_rule).await.expect("publishes");
    assert_eq!((outcome.previous, outcome.version, outcome.sites_touched), (Seq(3), Seq(3), 3), "the rule is another");
    assert_eq!(hq.fetch(&boston, 0), fetched(true, &["U tea 1 west"], 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_version_a_site_fetches_what_came_since_and_the_keys_of_what_is_not_for_it_any_more() {
    let hq = Hq::open().await;
    let tacoma = hq.list("tacoma-01", &[("region", "west")]).await;
    let boston = hq.list("boston-01", &[("region", "east")]).await;
    let rows = "sku,price,region\ntea,1,west\nrye,2,west\nice,3,west\noat,4,west\nbun,5,east\n";
    hq.publish(merge_to("region = site.region", rows)).await.expect("publishes");
    let moved = Request { gone: Some(csv("sku\nice\n")), ..merge("sku,price,region\ntea,9,west\nrye,2,east\n") };
    hq.publish(moved).await.expect("publishes");
    let of_tacoma = fetched(false, &["U tea 9 west", "D rye - -", "D ice - -"], 8);
    assert_eq!(hq.fetch(&tacoma, 5), of_tacoma, "only keys are told of what it must not see");
    assert_eq!(hq.fetch(&boston, 5), fetched(false, &["U rye 2 east"], 8));
    assert_eq!(hq.fetch(&tacoma, 8), fetched(false, &[], 8));
    assert_eq!(hq.fetch(&tacoma, 0), fetched(true, &["U oat 4 west", "U tea 9 west"], 8));
    assert_eq!(hq.fetch(&tacoma, 99), hq.fetch(&tacoma, 0), "a version that is not there is of a lake that was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_is_wanted_of_the_sites_that_it_concerns_alone() {
    let hq = Hq::open().await;
    let tacoma = hq.list("tacoma-01", &[("region", "west")]).await;
    let boston = hq.list("boston-01", &[("region", "east")]).await;
    let reno = hq.list("reno-01", &[("region", "south")]).await;
    let rule = "region = site.region AND site.region <> 'south'";
    hq.publish(merge_to(rule, "sku,price,region\ntea,1,west\nrye,2,east\n")).await.expect("publishes");
    let of = |site: &SiteId| wanted(&hq.publisher, &session(&hq, site)).pop();
    let versions = |site: &SiteId| of(site).map(|wanted| (wanted.version, wanted.newest));
    assert_eq!((versions(&tacoma), versions(&boston), versions(&reno)), (Some((2, 2)), Some((2, 2)), None));
    let outcome = hq.publish(merge("sku,price\ntea,3\n")).await.expect("publishes");
    assert_eq!((outcome.audience, outcome.sites_touched), (2, 1));
    assert_eq!((versions(&tacoma), versions(&boston)), (Some((3, 3)), Some((2, 3))));
    // A site that has rows is told when none are for it any more.
    let has = |version| Applied { version: Seq(version), audience: 7, ..Applied::default() };
    hq.publisher.registry.record(&reno, beacon([(prices(), has(2))].into()));
    assert!(of(&reno).is_some_and(|wanted| wanted.leaves));
    assert!(of(&tacoma).is_some_and(|wanted| !wanted.leaves));
    // A version that this node does not know yet was published at another.
    assert!(!is_ahead(&hq.publisher, &reno));
    hq.publisher.registry.record(&reno, beacon([(prices(), has(4))].into()));
    assert!(is_ahead(&hq.publisher, &reno));
}
