//! Batches of which not everything could be taken, and what people do about them.

use serde_json::Value;

use crate::support::{Hq, Store, running_store, wait_for};

const SCHEMA: &str = "PRAGMA journal_mode = WAL; CREATE TABLE item (sku INT PRIMARY KEY, v TEXT); CREATE TABLE sale (id INTEGER PRIMARY KEY);
    INSERT INTO item VALUES (5, 'five'), (NULL, 'without a key'); INSERT INTO sale VALUES (1)";
const ITEMS: &str = "SELECT string_agg(v, ' ' ORDER BY v) FROM item";

fn listed(hq: &Hq) -> Vec<Value> {
    let listed = hq.run(&["quarantine", "--all", "--json"]);
    serde_json::from_slice(&listed.stdout).expect("a list")
}

fn missing(hq: &Hq, table: &str) -> Vec<String> {
    hq.missing(&format!("SELECT count(*) FROM {table}"))
}

/// A store one of whose items cannot be told apart, and the batch that it is in.
fn store_with_one_in_quarantine(hq: &Hq, directory: &std::path::Path) -> (Store, String) {
    let store = running_store(hq, directory, "seattle-01", SCHEMA, "item,sale");
    store.wait_confirmed();
    let evidence = wait_for("the incident", || hq.open_incident("quarantined"));
    let id = listed(hq)[0]["id"].as_str().expect("an id").to_owned();
    assert!(evidence.contains("of seattle-01 with rows of item in quarantine") && evidence.contains(&id), "{evidence}");
    (store, id)
}

#[test]
fn rows_in_quarantine_are_missing_from_their_table_alone_until_a_person_gives_them_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let (_store, id) = store_with_one_in_quarantine(&hq, directory.path());
    for _ in 0..2 {
        wait_for("the rest", || missing(&hq, "sale").is_empty().then_some(()));
        assert_eq!(missing(&hq, "item"), ["seattle-01 rows-not-taken"]);
        assert_eq!(missing(&hq, "item, sale"), ["seattle-01 rows-not-taken"]);
        // What is known of it survives a stop.
        hq.restart();
        hq.wait_state("seattle-01", "late");
    }
    let shown = hq.run(&["quarantine", "show", &id]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("without a key") && shown.contains("could not be told apart"), "{shown}");
    assert!(!hq.run(&["quarantine", "give-up", &id, "--reason", " "]).status.success(), "for a reason only");
    assert!(hq.run(&["quarantine", "give-up", &id, "--reason", "a test row"]).status.success());
    assert_eq!(missing(&hq, "item"), Vec::<String>::new());
    let found = &listed(&hq)[0];
    assert_eq!((&found["state"], &found["decision"]["reason"]), (&"given-up".into(), &"a test row".into()));
    wait_for("the incident to end", || hq.open_incident("quarantined").is_none().then_some(()));
    assert!(!hq.run(&["quarantine", "take", &id]).status.success(), "it was dealt with");
    assert_eq!(hq.value(ITEMS).as_deref(), Some("five"));
}

#[test]
fn what_was_mended_at_the_store_is_stated_again_when_a_person_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let (mut store, id) = store_with_one_in_quarantine(&hq, directory.path());
    store.sql("UPDATE item SET sku = 6 WHERE sku IS NULL; DELETE FROM item WHERE sku = 5; INSERT INTO item VALUES (7, 'seven')");
    store.wait_confirmed();
    assert_eq!(missing(&hq, "item"), ["seattle-01 rows-not-taken"], "nobody has looked");
    let taken = hq.run(&["quarantine", "take", &id, "--reason", "the row has a key now"]);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    wait_for("all items", || (hq.value(ITEMS)? == "seven without a key").then_some(()));
    wait_for("completeness", || missing(&hq, "item").is_empty().then_some(()));
    wait_for("the incident to end", || hq.open_incident("quarantined").is_none().then_some(()));
    assert_eq!(listed(&hq)[0]["state"], "stated-again");
    // The wish is fulfilled once, also for an agent that starts anew.
    let loads = || hq.value("SELECT count(*) FROM rollcall.site_log WHERE _op = 'B' AND b = 'asked'");
    assert_eq!(loads().as_deref(), Some("1"));
    store.stop();
    store.run(None);
    store.sql("INSERT INTO sale VALUES (2)");
    wait_for("the sale", || (hq.value("SELECT count(*) FROM sale")? == "2").then_some(()));
    assert_eq!(loads().as_deref(), Some("1"));
}
