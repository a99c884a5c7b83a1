use rollcall_lake::{Conformed, HQ_EPOCH, Part};
use rollcall_types::{ChainHash, Epoch};

use super::*;
use crate::{
    facts::{Heard, Kept, Welcomed},
    roster::{Retired, SiteRecord},
    testing::{at, lake, site, store, table},
};

fn beacon(head: u64, waited: u64) -> SiteFact {
    SiteFact::Beacon {
        head: Seq(head),
        unconfirmed_age: Duration::from_secs(waited),
        capture_problem: None,
        clock_off_micros: 0,
        applied: BTreeMap::new(),
    }
}

fn welcomed(head: u64, confirmed: u64) -> SiteFact {
    SiteFact::Welcomed(Welcomed {
        is_new_epoch: false,
        head: Seq(head),
        confirmed: Seq(confirmed),
        instance: "one".to_owned(),
        authority: CaId::default(),
        detail: "agent 0.2".to_owned(),
        agent_version: "0.2".to_owned(),
        states_manifests: true,
        takes_published: true,
        clock_off_micros: 0,
        is_blind: false,
        applied: BTreeMap::new(),
    })
}

fn heads(time: i64, heads: &[(&str, u64)]) -> SiteFact {
    let heads = heads.iter().map(|(name, head)| (table(name), Seq(*head))).collect();
    SiteFact::Heads { time: at(time), epoch: Epoch(1), heads }
}

fn confirmed(through: u64) -> SiteFact {
    SiteFact::Confirmed { through: Seq(through) }
}

/// The cursor of a site in a table moves on, without rows.
async fn reach(lake: &Lake, name: &str, number: SiteNumber, epoch: Epoch, previous: u64, last: u64) {
    let part = Part {
        site: number,
        site_id: site("a-1"),
        epoch,
        previous: Seq(previous),
        last: Seq(last),
        hash: ChainHash::new(last),
        marks: Vec::new(),
        rows: Conformed::empty(),
        received_at: at(0),
        whole: false,
    };
    let of_lake = lake.table_or_create(&table(name), &[]).await.expect("a table");
    of_lake.append(Arc::new(vec![part])).await.expect("appends");
}

/// Complete through, of the site as a whole.
fn complete(ledger: &Ledger, id: &str) -> Option<Timestamp> {
    ledger.sites().get(&site(id)).and_then(|presence| presence.now.complete_through)
}

const NUMBER: SiteNumber = SiteNumber(7);

#[tokio::test]
async fn a_site_is_complete_once_the_cursors_of_all_its_tables_reached_its_heads() {
    let (lake, ledger, a) = (lake(&store()).await, Ledger::default(), site("a-1"));
    // What a site captures under the name of a table of HQ's keeps nobody waiting.
    reach(&lake, "prices", SiteNumber::HQ, HQ_EPOCH, 0, 5).await;
    ledger.apply(&a, at(0), heads(0, &[("sales", 10), ("stock", 12), ("empty", 0), ("prices", 10)]));
    ledger.apply(&a, at(30), heads(30, &[("sales", 10), ("stock", 20)]));
    let progress = async |ledger: &Ledger| {
        ledger.advance(&lake, &a, NUMBER);
        (complete(ledger, "a-1"), ledger.tables_through())
    };
    let of = |name: &str, seconds: i64| (a.clone(), table(name), at(seconds));
    assert_eq!(progress(&ledger).await, (None, vec![of("empty", 0)]), "nothing to wait for in an empty table");
    reach(&lake, "sales", NUMBER, Epoch(1), 0, 10).await;
    reach(&lake, "stock", NUMBER, Epoch(1), 0, 11).await;
    assert_eq!(progress(&ledger).await, (None, vec![of("empty", 0), of("sales", 0)]));
    // What other sites, or other lives of this one, reached says nothing.
    reach(&lake, "stock", SiteNumber(8), Epoch(1), 0, 100).await;
    reach(&lake, "stock", NUMBER, Epoch(2), 0, 100).await;
    assert_eq!(progress(&ledger).await.0, None);
    reach(&lake, "stock", NUMBER, Epoch(1), 11, 12).await;
    let (through, tables) = progress(&ledger).await;
    assert_eq!(through, Some(at(0)), "its first answer, and not the one after that");
    assert_eq!(tables, [of("empty", 0), of("sales", 30), of("stock", 0)]);
    reach(&lake, "stock", NUMBER, Epoch(1), 12, 25).await;
    let roster = Sites::unit(a.clone(), Arc::new(SiteRecord { number: NUMBER.0, ..SiteRecord::default() }));
    ledger.advance_all(&lake, &roster);
    assert_eq!(complete(&ledger, "a-1"), Some(at(30)));
    // An answer to an older time of HQ's takes nothing back.
    ledger.apply(&a, at(31), heads(10, &[("sales", 1), ("stock", 1)]));
    assert_eq!(progress(&ledger).await, (Some(at(30)), vec![of("empty", 0), of("sales", 30), of("stock", 30)]));
    let snapshot = ledger.progress(Arc::new(vec![a, site("b-1")]), at(40));
    assert_eq!([0, 1].map(|place| snapshot.site(place).through), [Some(at(30)), None]);
    assert_eq!(snapshot.table(&table("stock")), Some(&[Some(at(30)), None][..]));
}

#[tokio::test]
async fn an_answer_that_leaves_tables_out_moves_the_others_and_not_the_site() {
    let (lake, ledger, a) = (lake(&store()).await, Ledger::default(), site("a-1"));
    reach(&lake, "sales", NUMBER, Epoch(1), 0, 10).await;
    ledger.apply(&a, at(0), heads(0, &[("sales", 10), ("stock", u64::MAX)]));
    ledger.advance(&lake, &a, NUMBER);
    assert_eq!(complete(&ledger, "a-1"), None, "stock is being stated");
    assert_eq!(ledger.tables_through(), [(a.clone(), table("sales"), at(0))]);
    ledger.apply(&a, at(30), heads(30, &[("sales", 10)]));
    ledger.advance(&lake, &a, NUMBER);
    assert_eq!(complete(&ledger, "a-1"), Some(at(30)));
}

#[tokio::test]
async fn what_an_older_session_told_says_nothing_once_a_newer_one_began() {
    let (lake, ledger, a) = (lake(&store()).await, Ledger::default(), site("a-1"));
    reach(&lake, "sales", NUMBER, Epoch(1), 0, 10).await;
    ledger.apply(&a, at(0), welcomed(40, 10));
    ledger.apply(
        &a,
        at(5),
        SiteFact::Refused { cause: Cause::HqRefuses, detail: "no".to_owned(), is_lake_older: true },
    );
    ledger.apply(&a, at(6), heads(6, &[("sales", 11)]));
    assert_eq!(ledger.lacking_confirmed(), std::slice::from_ref(&a));
    ledger.apply(&a, at(10), welcomed(50, 20));
    assert!(ledger.lacking_confirmed().is_empty(), "a session began");
    ledger.apply(&a, at(9), confirmed(99));
    ledger.apply(&a, at(9), beacon(99, 600));
    ledger.apply(&a, at(9), heads(9, &[("sales", 10)]));
    ledger.apply(&a, at(9), SiteFact::Goodbye { head: Seq(99), reason: "it stops".to_owned() });
    ledger.advance(&lake, &a, NUMBER);
    {
        let sites = ledger.sites();
        let presence: &Presence = sites.get(&a).expect("known");
        assert_eq!((presence.now.head, presence.now.confirmed), (Seq(50), Seq(20)));
        assert!(!presence.now.said_goodbye && !presence.is_behind && !presence.is_waiting());
        assert_eq!(presence.now.complete_through, None);
        assert_eq!(presence.detail, "agent 0.2");
    }
    ledger.apply(&a, at(10), confirmed(30));
    assert_eq!(ledger.confirmed_through(&a), Seq(30), "of the newer session");
}

#[test]
fn only_what_is_new_is_stored_and_who_is_simply_alive_now_and_then() {
    let ledger = Ledger::default();
    let a = site("a-1");
    let unstored = |seconds: i64| ledger.unstored(at(seconds), false);
    ledger.heard(&a, at(0));
    ledger.apply(&a, at(0), welcomed(10, 10));
    let first = unstored(0);
    assert_eq!(first.len(), 1, "never stored before");
    ledger.stored(&first, at(0));
    assert!(unstored(0).is_empty() && ledger.unstored(at(0), true).is_empty(), "it is as it was");
    ledger.heard(&a, at(30));
    ledger.apply(&a, at(30), beacon(11, 0));
    assert!(unstored(30).is_empty(), "it is simply alive");
    assert_eq!(ledger.unstored(at(30), true).len(), 1, "at a stop everything is");
    assert_eq!(unstored(91).len(), 1, "it went quiet");
    for minute in 1..=16 {
        ledger.heard(&a, at(minute * 60));
        assert_eq!(unstored(minute * 60).len(), usize::from(minute > 15), "minute {minute}");
    }
    ledger.stored(&unstored(960), at(960));
    assert!(!ledger.has_news());
    ledger.apply(&a, at(970), SiteFact::Goodbye { head: Seq(12), reason: "it stops".to_owned() });
    assert!(ledger.has_news());
    let goodbye = unstored(970);
    assert!(goodbye.iter().all(|(_, record)| record.said_goodbye && record.head == Seq(12)) && goodbye.len() == 1);
    // It came back before that was stored.
    ledger.heard(&a, at(975));
    ledger.stored(&goodbye, at(975));
    assert!(ledger.has_news(), "the goodbye that is stored is over");
    assert_eq!(unstored(975).len(), 1);
    let after = Ledger::default();
    after.restore(a.clone(), goodbye[0].1.clone(), at(970));
    assert!(after.unstored(at(970), true).is_empty() && !after.has_news(), "what was read is stored");
    assert_eq!(after.clock(&a), ledger.clock(&a));
    assert_eq!(after.confirmed_through(&a), Seq(10));
}

#[test]
fn the_roll_says_of_each_site_what_the_watch_says_and_whether_its_data_keeps_up() {
    let ledger = Ledger::default();
    let verdict = |state, cause| Verdict { state, since: Some(at(1)), cause, last_heard: None, learning_day: Some(3) };
    let restored = |id: &str, through: i64| {
        let complete_through = Some(at(through));
        let (head, confirmed) = (Seq(9), Seq(4));
        let record = PresenceRecord { complete_through, head, confirmed, ..PresenceRecord::default() };
        ledger.restore(site(id), record, at(0));
    };
    let retired =
        SiteRecord { retired: Some(Retired { at: at(0), reason: "sold".to_owned() }), ..SiteRecord::default() };
    let ids = ["behind", "current", "new", "retired", "silent", "unsaid"];
    let record = |id: &str| if id == "retired" { retired.clone() } else { SiteRecord::default() };
    let roster: Sites = ids.into_iter().map(|id| (site(id), Arc::new(record(id)))).collect();
    restored("current", 880);
    restored("behind", 879);
    ledger.apply(&site("silent"), at(0), SiteFact::Quarantined(kept()));
    ledger.apply(&site("silent"), at(0), SiteFact::Heard(Heard::Contact));
    let says = |id: &SiteId| match id.as_str() {
        "unsaid" => None,
        "silent" => Some(verdict(SiteState::Silent, Some(Cause::PowerOrLink))),
        _ => Some(verdict(SiteState::Ok, None)),
    };
    let roll = ledger.roll(&roster, says, Duration::from_secs(120), at(1000));
    let told: Vec<_> = roll.iter().map(|entry| (entry.site.as_str(), entry.state, entry.since, entry.cause)).collect();
    let expected = [
        ("behind", SiteState::Recovering, Some(at(879)), Some(Cause::Backlog)),
        ("current", SiteState::Ok, Some(at(880)), None),
        ("new", SiteState::Recovering, None, Some(Cause::Backlog)),
        ("retired", SiteState::Retired, None, None),
        ("silent", SiteState::Silent, Some(at(1)), Some(Cause::PowerOrLink)),
        ("unsaid", SiteState::NeverHeard, None, Some(Cause::NeverEnrolled)),
    ];
    assert_eq!(told, expected);
    assert_eq!(roll[1].unconfirmed_rows, 5);
    assert_eq!((roll[1].learning_day, roll[5].learning_day), (Some(3), None));
    assert_eq!(roll[4].detail, "a batch is in quarantine: no such column");
    // What is wrong with its capture says more than what was noted last.
    let mut capture = beacon(1, 0);
    if let SiteFact::Beacon { capture_problem, .. } = &mut capture {
        *capture_problem = Some("a trigger is gone".to_owned());
    }
    ledger.apply(&site("silent"), at(1), capture);
    let roll = ledger.roll(&roster, says, Duration::from_secs(120), at(1000));
    assert_eq!(roll[4].detail, "a trigger is gone");
}

fn kept() -> Kept {
    Kept {
        epoch: Epoch(1),
        first: Seq(1),
        last: Seq(2),
        at: at(0),
        reason: "no such column".to_owned(),
        tables: None,
        bytes: 10,
        file: String::new(),
    }
}

#[test]
fn a_backlog_of_a_site_that_fell_silent_does_not_keep_hq_from_watching() {
    let ledger = Ledger::default();
    let report = |number: usize, seconds: i64, waited: u64| {
        let site = site(&format!("store-{number}"));
        ledger.heard(&site, at(seconds));
        ledger.apply(&site, at(seconds), beacon(1, waited));
    };
    // HQ was away: all come back with a backlog.
    (0..8).for_each(|number| report(number, 0, 600));
    assert!(ledger.is_draining(at(10)));
    // Six have sent it, one has a slow line, and one fell silent in the middle.
    (0..7).for_each(|number| report(number, 300, if number == 0 { 900 } else { 0 }));
    assert!(!ledger.is_draining(at(300)));
    report(7, 310, 1200);
    assert!(ledger.is_draining(at(320)), "two of eight that are heard");
}
