use rollcall_registry::{Heard, RollEntry};
use rollcall_types::Timestamp;

use super::*;
use crate::arrivals::{Arrival, Lack, LackingSince, Reason, arrivals, arrived, late};

impl Hq {
    fn roll(&self) -> Vec<RollEntry> {
        self.publisher.registry.roll(|_| None)
    }

    fn arrivals(&self) -> Vec<Arrival> {
        arrivals(&self.publisher, &|| self.roll())
    }

    /// Something is heard of a site.
    fn hear(&self, site: &SiteId) {
        self.publisher.registry.record_heard(site, Heard::Contact);
    }

    /// A site says that it has a version of the prices, or why it has not.
    fn say(&self, site: &SiteId, version: u64, problem: Option<&str>) {
        let audience = self.prices().class_of(site, &self.record(site)).expect("a class").tag;
        self.say_for(site, version, audience, problem);
    }

    fn say_for(&self, site: &SiteId, version: u64, audience: u64, problem: Option<&str>) {
        let problem = problem.map(str::to_owned);
        let applied = Applied { version: Seq(version), audience, problem, ..Applied::default() };
        self.hear(site);
        self.publisher.registry.record(site, beacon([(prices(), applied)].into()));
    }

    /// Who is late with the prices, and since when.
    fn late(&self, lacking: &mut LackingSince) -> BTreeMap<SiteId, Timestamp> {
        let all = late(&self.publisher, &|| self.roll(), lacking);
        all.into_iter().find(|late| late.table == prices()).expect("told of each table").members
    }
}

fn lack_of(arrivals: &[Arrival], site: &SiteId) -> Option<(Reason, String)> {
    let arrival = arrivals.iter().find(|arrival| arrival.site == *site).expect("should have it");
    arrival.lacks.as_ref().map(|Lack { reason, detail }| (*reason, detail.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_site_that_lacks_a_version_has_its_reason() {
    let hq = Hq::open().await;
    let small = async |id: &str| hq.list(id, &[("size", "s")]).await;
    let (has, takes, full) = (small("has-01").await, small("takes-01").await, small("full-01").await);
    let (silent, moved) = (small("silent-01").await, small("moved-01").await);
    let other = hq.list("other-01", &[("size", "xl")]).await;
    hq.publish(merge_to("site.size = 's'", "sku,price\ntea,1\nrye,2\n")).await.expect("publishes");
    hq.say(&has, 2, None);
    hq.say(&takes, 1, None);
    hq.say(&full, 1, Some("the disk is full"));
    hq.say_for(&moved, 2, 7, None);
    let arrivals = hq.arrivals();
    assert!(arrivals.iter().all(|arrival| arrival.site != other), "no row is for it");
    assert_eq!(lack_of(&arrivals, &has), None);
    assert_eq!(lack_of(&arrivals, &takes), Some((Reason::OnItsWay, "on its way".to_owned())));
    assert_eq!(lack_of(&arrivals, &full), Some((Reason::CannotTake, "the disk is full".to_owned())));
    assert_eq!(lack_of(&arrivals, &silent).map(|(reason, _)| reason), Some(Reason::NotHeard));
    let applied = |site: &SiteId| arrivals.iter().find(|arrival| arrival.site == *site).map(|arrival| arrival.applied);
    assert_eq!((applied(&has), applied(&takes), applied(&silent)), (Some(Seq(2)), Some(Seq(1)), Some(Seq(0))));
    assert_eq!(applied(&moved), Some(Seq(0)), "what it has for another class does not count");
    let kept = arrived(&hq.publisher, &arrivals);
    assert_eq!(kept.iter().map(|kept| (kept.audience, kept.have)).collect::<Vec<_>>(), [(5, 1)]);
    hq.put_on(Duration::from_secs(100));
    assert_eq!(lack_of(&hq.arrivals(), &full).map(|(reason, _)| reason), Some(Reason::NotHeard), "it went silent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_late_when_its_time_is_over_and_at_once_if_it_cannot_take_a_version() {
    let hq = Hq::open().await;
    let slow = hq.list("slow-01", &[]).await;
    let full = hq.list("full-01", &[]).await;
    let silent = hq.list("silent-01", &[]).await;
    hq.publish(merge("sku,price\ntea,1\n")).await.expect("publishes");
    let mut lacking = LackingSince::new();
    hq.say(&slow, 0, None);
    hq.say(&full, 0, Some("the disk is full"));
    let began = hq.publisher.registry.now();
    let first = hq.late(&mut lacking);
    assert_eq!(first.keys().collect::<Vec<_>>(), [&full]);
    hq.put_on(BEACON_INTERVAL * 20 + Duration::from_secs(1));
    hq.say(&slow, 0, None);
    hq.say(&full, 1, None);
    let members = hq.late(&mut lacking);
    assert_eq!(members.keys().collect::<Vec<_>>(), [&slow], "{silent} is not heard: the watch speaks of that");
    assert!(members[&slow].since(began) < Duration::from_secs(60), "since it was first seen to lack it");
    hq.say(&slow, 1, None);
    assert!(hq.late(&mut lacking).is_empty());
    // Its time begins when it is heard again.
    hq.hear(&silent);
    assert!(hq.late(&mut lacking).is_empty());
}
