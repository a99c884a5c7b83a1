use rollcall_books::definitions::{Counts, publications};
use rollcall_query::Extras;

use super::*;
use crate::{sql, withdraw};

fn counts(inserted: u64, updated: u64, deleted: u64, unchanged: u64) -> Counts {
    Counts { inserted, updated, deleted, unchanged }
}

/// The version before, the one it came to, and what it did.
fn came_to(outcome: &Outcome) -> (u64, u64, Counts) {
    (outcome.previous.0, outcome.version.0, outcome.counts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_adds_rows_and_changes_those_with_their_keys_and_each_change_is_a_version() {
    let hq = Hq::open().await;
    let rows = merge("sku,price,unit\ntea,1,box\nrye,2,loaf\n");
    let dry = hq.publish(Request { dry_run: true, ..rows.clone() }).await.expect("works it out");
    assert_eq!(came_to(&dry), (0, 2, counts(2, 0, 0, 0)));
    assert!(hq.publisher.registry.lake.table(&prices()).is_none(), "not even the table is there");
    let first = hq.publish(rows).await.expect("publishes");
    assert_eq!(came_to(&first), (0, 2, counts(2, 0, 0, 0)));
    let second = hq.publish(merge("sku,price\ntea,1\nrye,3\nice,4\n")).await.expect("publishes");
    assert_eq!(came_to(&second), (2, 4, counts(1, 1, 0, 1)));
    assert_eq!(hq.rows(), ["ice 4 -", "rye 3 loaf", "tea 1 box"], "a column that is not given stays");
    let same = hq.publish(merge("sku,price\nrye,3\n")).await.expect("publishes");
    assert_eq!(came_to(&same), (4, 4, counts(0, 0, 0, 1)));
    let gone = Request { gone: Some(csv("sku\nrye\noat\n")), ..merge("sku,price\nice,5\n") };
    let gone = hq.publish(gone).await.expect("publishes");
    assert_eq!(came_to(&gone), (4, 6, counts(0, 1, 1, 1)), "what is not there cannot go");
    assert_eq!(hq.rows(), ["ice 5 -", "tea 1 box"]);
    let kept = publications(&hq.publisher.registry.lake.state().view());
    let versions: Vec<(u64, u64)> = kept.iter().map(|kept| (kept.previous.0, kept.version.0)).collect();
    assert_eq!(versions, [(0, 2), (2, 4), (4, 6)], "what changes nothing is no publication");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_takes_no_row_that_is_there_and_a_replacement_leaves_no_other() {
    let hq = Hq::open().await;
    hq.publish(request(Mode::Insert, "sku,price\ntea,1\n")).await.expect("publishes");
    let again = hq.publish(request(Mode::Insert, "sku,price\nrye,2\ntea,1\n")).await;
    assert!(matches!(&again, Err(HqError::Exists(text)) if text.contains("row 2")), "{again:?}");
    assert_eq!((hq.rows(), hq.prices().image.version), (vec!["tea 1".to_owned()], Seq(1)));
    let twice = hq.publish(request(Mode::Insert, "sku,price\nrye,1\nice,1\nrye,2\n")).await;
    assert!(matches!(&twice, Err(HqError::Invalid(text)) if text.contains("rows 1 and 3")), "{twice:?}");
    let more = hq.publish(request(Mode::Insert, "sku,price,unit\nrye,2,loaf\nice,3,bag\n")).await.expect("publishes");
    assert_eq!(came_to(&more), (1, 3, counts(2, 0, 0, 0)));
    let replaced = hq.publish(request(Mode::Replace, "sku,price\ntea,1\nrye,9\n")).await.expect("publishes");
    assert_eq!(came_to(&replaced), (3, 5, counts(0, 1, 1, 1)));
    assert_eq!(hq.rows(), ["rye 9 -", "tea 1 -"], "columns that are not given are emptied");
    let back = hq.publish(merge("sku,price\nice,4\n")).await.expect("publishes");
    assert_eq!(came_to(&back), (5, 6, counts(1, 0, 0, 0)), "a row that went is there anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withdrawn_is_as_before_but_for_rows_that_were_published_again() {
    let hq = Hq::open().await;
    hq.publish(merge("sku,price\ntea,1\nrye,2\n")).await.expect("publishes");
    let wrong = hq.publish(merge("sku,price\ntea,5\nice,5\noat,5\n")).await.expect("publishes");
    hq.publish(merge("sku,price\nice,9\n")).await.expect("publishes");
    let (dry, _) = withdraw(&hq.publisher, &prices(), wrong.version, "ada", true).await.expect("works it out");
    assert_eq!((came_to(&dry), hq.prices().image.version), ((6, 8, counts(0, 1, 1, 0)), Seq(6)));
    let (back, stay) = withdraw(&hq.publisher, &prices(), wrong.version, "ada", false).await.expect("withdraws");
    assert_eq!((came_to(&back), stay), ((6, 8, counts(0, 1, 1, 0)), 1));
    assert_eq!(hq.rows(), ["ice 9", "rye 2", "tea 1"]);
    let (again, stay) = withdraw(&hq.publisher, &prices(), wrong.version, "ada", false).await.expect("withdraws");
    assert_eq!((came_to(&again), stay), ((8, 8, counts(0, 0, 0, 0)), 3), "nothing of it is left");
    let unknown = withdraw(&hq.publisher, &prices(), Seq(4), "ada", false).await;
    assert!(matches!(unknown, Err(HqError::NotFound(_))), "no publication ends there: {unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_worked_out_on_an_older_version_is_not_published() {
    let hq = Hq::open().await;
    hq.publish(merge("sku,price\ntea,1\n")).await.expect("publishes");
    publish(&hq.another(), merge("sku,price\ntea,2\n")).await.expect("publishes at the other");
    let on = |version| Request { based_on: Some(Seq(version)), ..merge("sku,price\ntea,3\n") };
    let older = hq.publish(on(1)).await;
    assert!(matches!(older, Err(HqError::Outdated)), "{older:?}");
    assert_eq!(hq.rows(), ["tea 2"]);
    assert_eq!(hq.publish(on(2)).await.expect("publishes").version, Seq(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_that_change_a_row_at_once_lose_no_change() {
    let hq = Hq::open().await;
    hq.publish(merge("sku,price\ntea,0\n")).await.expect("publishes");
    let statement = hq.publisher.engine.read("UPDATE prices SET price = price + 1").await.expect("reads").remove(0);
    let changes = [hq.publisher.clone(), hq.another()].map(|publisher| {
        let statement = statement.clone();
        rollcall_runtime::spawn(async move {
            for _ in 0..4 {
                let changed = sql::change(&publisher, &statement, "ada", Extras::default).await.expect("changes");
                assert_eq!(changed, ("UPDATE", 1));
            }
        })
    });
    for change in changes {
        change.await.expect("ends");
    }
    refresh(&hq.publisher).await;
    assert_eq!((hq.rows(), hq.prices().image.version), (vec!["tea 8".to_owned()], Seq(9)));
}
