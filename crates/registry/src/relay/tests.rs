use rollcall_types::{Epoch, Seq};

use super::*;
use crate::{
    facts::{Kept, Welcomed},
    peer::CaId,
    testing::{node, site, store},
};

impl Relay {
    /// To this node it is as if nothing had been heard of the others for long.
    pub(crate) fn miss_the_others(&self) {
        for other in lock(&self.others).values_mut() {
            other.heard = long_ago();
        }
    }

    /// To this node it is as if it had told nothing for long.
    pub(crate) fn fall_silent(&self) {
        *lock(&self.told) = long_ago();
    }
}

fn long_ago() -> Instant {
    Instant::now().checked_sub(GONE_AFTER).expect("the machine runs for some seconds")
}

fn relay(registry: &Registry) -> &Relay {
    registry.relay().expect("the store is shared")
}

async fn tell(registry: &Registry, number: u64) {
    relay(registry).put(number).await.expect("tells");
}

async fn hear(registry: &Registry) {
    relay(registry).look().await.expect("looks");
    listen(registry, relay(registry)).await;
}

fn welcomed() -> Welcomed {
    Welcomed {
        is_new_epoch: false,
        head: Seq(50),
        confirmed: Seq(20),
        instance: "two".to_owned(),
        authority: CaId::default(),
        detail: "agent 0.2".to_owned(),
        agent_version: "0.2".to_owned(),
        states_manifests: false,
        takes_published: true,
        clock_off_micros: 0,
        is_blind: false,
        applied: BTreeMap::new(),
    }
}

#[tokio::test]
async fn what_one_node_hears_the_other_knows_once() {
    let store = store();
    let (one, two, a) = (node(&store, "one:1").await, node(&store, "two:1").await, site("a-1"));
    let kept = Kept {
        epoch: Epoch(1),
        first: Seq(1),
        last: Seq(2),
        at: Timestamp::from_seconds(1_800_000_000),
        reason: "no such column".to_owned(),
        tables: None,
        bytes: 10,
        file: String::new(),
    };
    one.record(&a, SiteFact::Welcomed(welcomed()));
    one.record(&a, SiteFact::EpochWanted { epoch: Epoch(3), reason: "it was rewound".to_owned() });
    // Contact once for each time it tells, however often the site is heard.
    one.record_heard(&a, Heard::Contact);
    one.record_heard(&a, Heard::Contact);
    one.record(&a, SiteFact::Confirmed { through: Seq(30) });
    one.record(&a, SiteFact::Quarantined(kept.clone()));
    one.record_derived(&a, Heard::Goodbye);
    assert_eq!(two.ledger.confirmed_through(&a), Seq(0));
    tell(&one, 1).await;
    hear(&two).await;
    assert_eq!(two.ledger.confirmed_through(&a), Seq(30));
    let for_watch: Vec<_> = two.for_watch.take().into_iter().map(|(site, _, what)| (site, what)).collect();
    assert_eq!(for_watch, [(a.clone(), Heard::Contact)], "what is worked out from the lake is not told");
    let quarantined: Vec<_> = two.for_quarantine.take().into_iter().map(|(site, _, kept)| (site, kept)).collect();
    assert_eq!(quarantined, [(a.clone(), kept)]);
    assert_eq!(two.sessions.take_wanted_epoch(&a, Epoch(3)).as_deref(), Some("it was rewound"));
    let remembered = |registry: &Registry| {
        let all = registry.ledger.unstored(registry.now(), true);
        all.into_iter()
            .map(|(site, record)| (site, record.head, record.confirmed, record.last_heard.is_some()))
            .collect::<Vec<_>>()
    };
    assert_eq!(remembered(&two), [(a.clone(), Seq(50), Seq(30), true)]);
    assert_eq!(remembered(&one), remembered(&two), "both know the same");
    // It is read once, and told on by nobody.
    hear(&two).await;
    tell(&two, 1).await;
    one.for_watch.take();
    hear(&one).await;
    assert!(two.for_watch.take().is_empty() && one.for_watch.take().is_empty());
    one.record_heard(&a, Heard::Contact);
    tell(&one, 2).await;
    hear(&two).await;
    assert_eq!(two.for_watch.take().len(), 1, "contact again, the next time it tells");
}

#[tokio::test]
async fn a_node_that_starts_knows_what_the_others_told_before() {
    let store = store();
    let (one, two, a) = (node(&store, "one:1").await, node(&store, "two:1").await, site("a-1"));
    one.catch_up().await.expect("tells");
    for number in 1..=40 {
        one.record(&a, SiteFact::Confirmed { through: Seq(number) });
        tell(&one, number).await;
    }
    two.catch_up().await.expect("hears");
    assert_eq!(two.ledger.confirmed_through(&a), Seq(40), "in the order in which it was told");
    assert_eq!(relay(&two).addresses(), ["two:1", "one:1"]);
    assert_eq!(relay(&one).addresses(), ["one:1"]);
    hear(&one).await;
    assert_eq!(relay(&one).addresses(), ["one:1", "two:1"]);
    let names = |registry: &Registry| relay(registry).nodes().into_iter().map(|(node, _)| node).collect::<Vec<_>>();
    let [first, second] = [&one, &two].map(|registry| relay(registry).node().to_owned());
    assert_eq!(names(&two), [second.clone(), first.clone()]);
    relay(&two).miss_the_others();
    assert!(!relay(&two).is_alive(&first));
    assert_eq!(names(&two), [second]);
    assert_eq!(relay(&two).addresses(), ["two:1", "one:1"], "it may be the first to be back");
    tell(&one, 41).await;
    hear(&two).await;
    assert!(relay(&two).is_alive(&first), "it tells again");
}
