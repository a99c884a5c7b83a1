//! What a store has or had, and HQ does not get, is missing in answers that read it.

use std::process::Command;

use crate::support::{Hq, Store, running_store, wait_for};

const SCHEMA: &str = "PRAGMA journal_mode = WAL;
    CREATE TABLE sales (id INTEGER PRIMARY KEY, qty INTEGER, card TEXT, note TEXT);
    CREATE TABLE staff (id INTEGER PRIMARY KEY, pin TEXT);
    INSERT INTO sales VALUES (1, 3, 'c', 'n'); INSERT INTO staff VALUES (1, '0000')";

fn ran(hq: &Hq, arguments: &[&str]) -> String {
    let output = hq.run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

fn wait_missing(hq: &Hq, sql: &str, wanted: &[&str]) {
    wait_for(&format!("{sql} to miss {wanted:?}"), || (hq.missing(sql) == wanted).then_some(()));
}

#[test]
fn a_store_that_has_a_table_and_does_not_capture_it_is_missing_where_others_send_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let _all = running_store(&hq, directory.path(), "boston-01", SCHEMA, "sales,staff");
    let part = running_store(&hq, directory.path(), "salem-01", SCHEMA, "sales");
    let (staff, sales) = ("SELECT count(*) FROM staff", "SELECT sum(qty) FROM sales");
    wait_missing(&hq, staff, &["salem-01 not-captured"]);
    wait_missing(&hq, sales, &[]);
    let uncaptured = "SELECT site || ' ' || table_name FROM rollcall.uncaptured";
    assert_eq!(hq.value(uncaptured).as_deref(), Some("salem-01 staff"));
    // To leave a column out where the table is captured begins no capture, and what one rule leaves
    // out no other brings back.
    ran(&hq, &["settings", "set", "a-privacy", "--exclude", "sales.card,staff.pin"]);
    ran(&hq, &["settings", "set", "b-short", "--exclude", "sales.note"]);
    wait_for("the sites to follow", || hq.run(&["settings"]).status.success().then_some(()));
    part.sql("INSERT INTO sales VALUES (2, 4, 'secret', 'long')");
    let row = "SELECT concat(qty, ' ', coalesce(card, '-'), ' ', coalesce(note, '-')) FROM sales WHERE _site = 'salem-01' AND id = 2";
    wait_for("the sale", || (hq.value(row)? == "4 - -").then_some(()));
    wait_missing(&hq, staff, &["salem-01 not-captured"]);
    assert_eq!(hq.value("SELECT count(*) FROM history.staff WHERE _site = 'salem-01'").as_deref(), Some("0"));
    // A person may say that this is as it should be; HQ remembers it, and what the sites said.
    ran(&hq, &["tables", "set", "staff", "--optional"]);
    wait_missing(&hq, staff, &[]);
    ran(&hq, &["tables", "set", "staff", "--unset", "optional"]);
    wait_missing(&hq, staff, &["salem-01 not-captured"]);
}

#[test]
fn a_column_that_a_store_has_no_more_is_missing_where_it_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let _other = running_store(&hq, directory.path(), "boston-01", SCHEMA, "sales");
    let store = running_store(&hq, directory.path(), "salem-01", SCHEMA, "sales");
    let (sum, count) = ("SELECT sum(qty) FROM sales", "SELECT count(*) FROM sales");
    wait_missing(&hq, sum, &[]);
    store.sql("ALTER TABLE sales RENAME COLUMN qty TO quantity");
    wait_missing(&hq, sum, &["salem-01 column-gone"]);
    wait_missing(&hq, count, &[]);
    hq.kill();
    hq.restart();
    wait_missing(&hq, sum, &["salem-01 column-gone"]);
    ran(&hq, &["tables", "set", "sales", "--optional-column", "qty"]);
    wait_missing(&hq, sum, &[]);
}

#[test]
fn an_agent_that_is_stopped_while_its_shop_is_open_is_no_closed_shop() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let mut store: Store = running_store(&hq, directory.path(), "boston-01", SCHEMA, "sales");
    ran(&hq, &["roster", "set", "boston-01", "tz=UTC", "hours=Mo-Su 00:00-24:00"]);
    let count = "SELECT count(*) FROM sales";
    wait_missing(&hq, count, &[]);
    store.stop();
    // It is believed that nobody need be called; the number is not said to be complete.
    wait_missing(&hq, count, &["boston-01 agent-down"]);
    assert_eq!(hq.state_of("boston-01")["state"], "quiet-expected");
    // Who is strict gets no such number, by no way, unless the question asks for the note.
    let password = String::from_utf8_lossy(&hq.run(&["users", "set", "bi", "--strict"]).stdout).trim().to_owned();
    let ask = |extra: &str| {
        let body = format!("{{\"sql\": \"{count}\"{extra}}}");
        let url = format!("http://{}/api/sql", hq.http());
        let arguments =
            ["-s", "-u", &format!("bi:{password}"), "-H", "content-type: application/json", &url, "-d", &body];
        let output = Command::new("curl").args(arguments).output().expect("the curl command");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(ask("").contains("RC001") && ask("").contains("boston-01"), "{}", ask(""));
    assert!(ask(", \"coverage\": \"note\"").contains("\"rows\""), "{}", ask(", \"coverage\": \"note\""));
    let seen = hq.run(&["users", "set", "eve", "--sees", "regoin=West"]);
    assert!(String::from_utf8_lossy(&seen.stderr).contains("no site has regoin=West"), "{seen:?}");
}

#[test]
fn what_was_stopped_and_forgotten_does_not_come_back_with_a_resend() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let store = running_store(&hq, directory.path(), "boston-01", SCHEMA, "sales,staff");
    wait_for("the pin", || (hq.value("SELECT pin FROM staff")? == "0000").then_some(()));
    ran(&hq, &["settings", "set", "privacy", "--stop", "staff", "--exclude", "sales.card"]);
    wait_for("the site to follow", || hq.run(&["settings"]).status.success().then_some(()));
    ran(&hq, &["tables", "forget", "staff", "--confirm", "staff"]);
    ran(&hq, &["tables", "forget", "sales", "--confirm", "sales"]);
    wait_for("the sales again", || (hq.value("SELECT qty FROM sales")? == "3").then_some(()));
    ran(&hq, &["roster", "resend", "boston-01", "--reason", "another zone"]);
    let epoch = || hq.api("/api/roster")[0]["epoch"].as_u64();
    wait_for("another life", || epoch().filter(|epoch| *epoch > 1));
    store.sql("INSERT INTO sales VALUES (2, 5, 'c2', 'n2')");
    wait_for("all of it", || (hq.value("SELECT sum(qty) FROM sales")? == "8").then_some(()));
    wait_missing(&hq, "SELECT sum(qty) FROM sales", &[]);
    let columns = "SELECT table_name || '.' || column_name FROM rollcall.columns WHERE column_name IN ('pin', 'card')";
    assert_eq!(hq.value(columns), None);
}
