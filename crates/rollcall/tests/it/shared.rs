//! Tables that stores and HQ change: all ends come to the same rows, and what lost can be counted.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rand::Rng;

use crate::{
    chaos::random,
    published::publish_to,
    support::{Hq, Store, faketime, off_by, running_store, wait_for},
};

const ROWS: &str = "SELECT id, name, phone FROM customers ORDER BY id";

fn publish(hq: &Hq, directory: &Path, text: &str, arguments: &[&str]) {
    publish_to(hq, directory, "customers", "id", text, arguments);
}

/// A store whose agent runs, once it has the table.
fn store(hq: &Hq, directory: &Path, id: &str) -> Store {
    let sql = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY, sku TEXT)";
    let store = running_store(hq, directory, id, sql, "sales");
    wait_for("the customers to be at the store", || {
        (store.sql("SELECT count(*) FROM sqlite_master WHERE name = 'customers_edits'") == "1").then_some(())
    });
    store
}

fn at_hq(hq: &Hq) -> Option<String> {
    let row = "concat_ws('|', id, coalesce(name, ''), coalesce(CAST(phone AS VARCHAR), ''))";
    let rows = hq.value(&format!("SELECT string_agg({row}, chr(10) ORDER BY id) FROM customers"));
    rows.map(|rows| if rows == "null" { String::new() } else { rows })
}

/// Once no edit waits, every store has HQ's rows.
fn wait_same(hq: &Hq, stores: &[Store]) {
    wait_for("all ends to have the same rows", || {
        let rows = at_hq(hq)?;
        let is_same = |store: &Store| {
            store.sql("SELECT count(*) FROM customers_edits") == "0"
                && store.sql("SELECT count(*) FROM _rollcall_held_customers") == "0"
                && store.sql(ROWS) == rows
        };
        stores.iter().all(is_same).then_some(())
    });
}

#[test]
fn of_two_edits_made_apart_the_rule_says_which_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    publish(&hq, directory.path(), "id,name,phone\nc1,Ann,1\nc2,Bob,2\nc3,Cid,3\n", &["--shared", "latest"]);
    let mut stores = ["boston-01", "tacoma-01"].map(|id| store(&hq, directory.path(), id));
    // Nobody else is about: what a store does is what all have.
    stores[0].sql("UPDATE customers SET phone = '11' WHERE id = 'c1'; INSERT INTO customers VALUES ('c4', 'Dee', '4')");
    stores[1].sql("DELETE FROM customers WHERE id = 'c3'");
    wait_for("the edits to be at HQ", || (at_hq(&hq)? == "c1|Ann|11\nc2|Bob|2\nc4|Dee|4").then_some(()));
    wait_same(&hq, &stores);
    assert_eq!(hq.value("SELECT count(*) FROM customers_conflicts"), None, "nothing lost yet");
    // Both are cut off, and change the same row; so does HQ.
    stores.iter_mut().for_each(Store::kill);
    stores[0].sql("UPDATE customers SET phone = '20', name = 'Rob' WHERE id = 'c2'");
    std::thread::sleep(Duration::from_millis(50));
    stores[1].sql("UPDATE customers SET phone = '21' WHERE id = 'c2'");
    for store in &mut stores {
        store.run(None);
    }
    wait_same(&hq, &stores);
    assert!(stores[0].sql(ROWS).contains("c2|Bob|21"), "the later edit: {}", stores[0].sql(ROWS));
    let conflict = "SELECT concat(id, ' ', kept, ' over ', lost, ': ', name, ' ', phone) FROM customers_conflicts";
    assert_eq!(hq.value(conflict).as_deref(), Some("c2 tacoma-01 over boston-01: Rob 20"));
    // In each column the latest: nothing of either is lost.
    publish(&hq, directory.path(), "id,name,phone\nc2,Bob,2\n", &["--shared", "fields"]);
    wait_same(&hq, &stores);
    stores.iter_mut().for_each(Store::kill);
    stores[0].sql("UPDATE customers SET name = 'Rob' WHERE id = 'c2'");
    stores[1].sql("UPDATE customers SET phone = '31' WHERE id = 'c2'");
    for store in &mut stores {
        store.run(None);
    }
    wait_for("both columns", || at_hq(&hq)?.contains("c2|Rob|31").then_some(()));
    wait_same(&hq, &stores);
    // What HQ says stays.
    publish(&hq, directory.path(), "id,name,phone\nc2,Bob,2\n", &["--shared", "hq"]);
    wait_same(&hq, &stores);
    stores[1].kill();
    stores[1].sql("UPDATE customers SET name = 'Bobby' WHERE id = 'c2'");
    publish(&hq, directory.path(), "id,name\nc2,Robert\n", &[]);
    stores[1].run(None);
    wait_for("the conflict to be told", || {
        (hq.value("SELECT count(*) FROM customers_conflicts WHERE kept = 'hq'")? == "1").then_some(())
    });
    wait_same(&hq, &stores);
    assert!(stores[1].sql(ROWS).contains("c2|Robert|2"), "{}", stores[1].sql(ROWS));
    // A value that the column cannot hold at HQ is told and kept, and HQ's row stands.
    stores[0].sql("UPDATE customers SET phone = 'none' WHERE id = 'c2'");
    wait_for("the misfit to be told", || {
        (hq.value("SELECT count(*) FROM history.customers_edits WHERE _misfit IS NOT NULL")? == "1").then_some(())
    });
    wait_same(&hq, &stores);
    let told = "SELECT concat(lost, ' ', name) FROM customers_conflicts WHERE kept = 'hq' AND lost = 'tacoma-01'";
    let told = hq.value(told);
    assert_eq!(told.as_deref(), Some("tacoma-01 Bobby"));
}

#[test]
fn all_ends_come_to_the_same_rows_whatever_is_killed() {
    // Method: three stores and HQ change thirty rows, some added and some deleted, while agents and
    // HQ are killed; then all must have the same rows, each edit must have been decided on once,
    // and nothing must go back and forth.
    let directory = tempfile::tempdir().expect("a directory");
    let mut random = random();
    let mut hq = Hq::start(directory.path());
    let text: String = (0..30).map(|id| format!("c{id:02},first,0\n")).collect();
    publish(&hq, directory.path(), &format!("id,name,phone\n{text}"), &["--shared", "fields"]);
    let mut stores: Vec<Store> =
        ["austin-01", "boston-01", "tacoma-01"].map(|id| store(&hq, directory.path(), id)).into();
    let (started, mut edits, mut kills) = (Instant::now(), 0, 0);
    while started.elapsed() < Duration::from_secs(12) {
        let (store, id) = (random.random_range(0..stores.len()), random.random_range(0..40));
        let value = random.random_range(0..1000);
        match random.random_range(0..20) {
            0 => {
                hq.kill();
                hq.restart();
                kills += 1;
            }
            1 => {
                stores[store].kill();
                stores[store].run(None);
                kills += 1;
            }
            2 => publish(&hq, directory.path(), &format!("id,name\nc{id:02},hq-{value}\n"), &[]),
            3 => drop(stores[store].sql(&format!("DELETE FROM customers WHERE id = 'c{id:02}'"))),
            4 => drop(
                stores[store].sql(&format!("INSERT OR REPLACE INTO customers VALUES ('c{id:02}', 'new', '{value}')")),
            ),
            5..12 => drop(stores[store].sql(&format!("UPDATE customers SET phone = '{value}' WHERE id = 'c{id:02}'"))),
            _ => drop(
                stores[store].sql(&format!("UPDATE customers SET name = 's{store}-{value}' WHERE id = 'c{id:02}'")),
            ),
        }
        edits += 1;
        std::thread::sleep(Duration::from_millis(random.random_range(5..100)));
    }
    wait_same(&hq, &stores);
    println!(
        "{edits} edits, {kills} kills, {} conflicts",
        hq.value("SELECT count(*) FROM customers_conflicts").unwrap_or_default()
    );
    let decided_on = "SELECT sum(seq) FROM rollcall.cursors WHERE table_name = 'customers' AND site <> 'hq'";
    let numbered = "SELECT sum(last) FROM (SELECT max(edit_number) AS last FROM history.customers_edits
                    WHERE _op <> 'D' GROUP BY _site)";
    assert_eq!(hq.value(decided_on), hq.value(numbered));
    assert_eq!(hq.new_epochs(), Vec::<String>::new());
    let version = hq.value("SELECT max(_seq) FROM history.customers");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(hq.value("SELECT max(_seq) FROM history.customers"), version, "what HQ sends is no edit");
    wait_same(&hq, &stores);
}

#[test]
fn what_hq_refuses_leaves_the_store_and_holds_up_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let rows = "id,name,phone,home\nc1,Ann,1,boston-01\nc2,Bob,2,tacoma-01\n";
    publish(&hq, directory.path(), rows, &["--shared", "latest", "--to", "home = site.id"]);
    let [mut boston, tacoma] = ["boston-01", "tacoma-01"].map(|id| store(&hq, directory.path(), id));
    let wait_rows = |store: &Store, rows: &str| {
        wait_for(rows, || {
            (store.sql(ROWS) == rows && store.sql("SELECT count(*) FROM customers_edits") == "0").then_some(())
        });
    };
    let conflicts = |of: &str| {
        let sql =
            format!("SELECT string_agg(concat(kept, ' over ', lost), ', ') FROM customers_conflicts WHERE id = '{of}'");
        hq.value(&sql).filter(|told| told != "null")
    };
    // A key that another store's row has, which this one cannot see.
    boston.sql("INSERT INTO customers VALUES ('c2', 'Mine', 9, 'boston-01')");
    wait_for("the conflict", || (conflicts("c2")? == "hq over boston-01").then_some(()));
    wait_rows(&boston, "c1|Ann|1");
    assert_eq!(tacoma.sql(ROWS), "c2|Bob|2");
    // Nor does it help to claim that the row was never known: neither its values nor its end are
    // for boston to tell.
    let now = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";
    boston.sql(&format!(
        "INSERT INTO customers_edits (edit_base, edit_gone, edit_changed, edit_at, edit_columns, id, name, phone, home)
         VALUES (0, 0, 'name,phone,home', {now}, 4, 'c2', 'Taken', 66, 'boston-01');
         INSERT INTO customers_edits (edit_base, edit_gone, edit_changed, edit_at, edit_columns, id)
         VALUES (0, 1, '', {now}, 4, 'c2')"
    ));
    wait_for("both conflicts", || {
        let lost = "SELECT count(*) FROM customers_conflicts WHERE id = 'c2' AND lost = 'boston-01'";
        (hq.value(lost)? == "3").then_some(())
    });
    wait_rows(&boston, "c1|Ann|1");
    assert_eq!(tacoma.sql(ROWS), "c2|Bob|2", "it is as it was");
    // A row for another store goes there.
    boston.sql("INSERT INTO customers VALUES ('c3', 'Cid', 3, 'tacoma-01')");
    wait_rows(&tacoma, "c2|Bob|2\nc3|Cid|3");
    wait_rows(&boston, "c1|Ann|1");
    // Values that HQ's columns cannot hold, in a row that HQ has and in one that it has not; and a
    // row wider than any can be sent.
    boston.sql(
        "UPDATE customers SET phone = 'none' WHERE id = 'c1';
         INSERT INTO customers VALUES ('c4', 'Dee', 'none', 'boston-01');
         INSERT INTO customers VALUES ('c5', hex(zeroblob(1200000)), 5, 'boston-01');
         INSERT INTO customers VALUES ('c6', 'Eve', 6, 'boston-01')",
    );
    wait_rows(&boston, "c1|Ann|1\nc6|Eve|6");
    for of in ["c1", "c4", "c5"] {
        assert_eq!(conflicts(of).as_deref(), Some("hq over boston-01"), "{of}");
    }
    tacoma.sql("UPDATE customers SET phone = 22 WHERE id = 'c2'");
    wait_for("tacoma's edit", || at_hq(&hq)?.contains("c2|Bob|22").then_some(()));
    // An edit that was made before sharing ended comes too late, and is kept.
    boston.kill();
    boston.sql("UPDATE customers SET phone = 66 WHERE id = 'c6'");
    publish(&hq, directory.path(), "id,name,phone,home\nc1,Ann,1,boston-01\n", &["--shared", "no"]);
    boston.run(None);
    wait_for("the late edit", || (conflicts("c6")? == "hq over boston-01").then_some(()));
    wait_rows(&boston, "c1|Ann|1\nc6|Eve|6");
    // Names that would collide.
    let refused = |table: &str, text: &str, arguments: &[&str], says: &str| {
        let path = directory.path().join("refused.csv");
        std::fs::write(&path, text).expect("writes");
        let from = path.to_str().expect("text");
        let output = hq.run(&[&["publish", table, "--from", from, "--key", "id"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(says), "{said}");
    };
    refused("staff", "id,kept\ns1,1\n", &["--shared", "hq"], "cannot be called kept");
    publish_to(&hq, directory.path(), "staff", "id", "id,name\ns1,Ann\n", &["--shared", "hq"]);
    refused("staff_edits", "id,name\ns1,Ann\n", &[], "shared table staff");
    for table in ["staff", "customers_edits"] {
        let ended = hq.run(&["tables", "set", table, "--history", "60"]);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && said.contains("must stay whole"), "{table}: {said}");
    }
}

#[test]
fn a_clock_that_was_wrong_wins_against_nobody() {
    let Some(library) = faketime() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    publish(&hq, directory.path(), "id,name,phone\nc1,Ann,1\nc2,Bob,2\n", &["--shared", "latest"]);
    let mut stores = ["boston-01", "tacoma-01"].map(|id| store(&hq, directory.path(), id));
    wait_same(&hq, &stores);
    // Two years ahead while nobody listens, as after a battery was changed; then it is put right.
    stores[0].kill();
    let edit_ahead = |store: &Store, sql: &str| {
        let mut shell = Command::new("sqlite3");
        shell.arg(&store.database).arg(sql);
        assert!(off_by("+2y", &library, shell).status().expect("runs").success());
    };
    edit_ahead(&stores[0], "UPDATE customers SET phone = '10' WHERE id = 'c1'");
    let shown = stores[0].sql("SELECT edit_at / 1000 - unixepoch() > 365 * 86400 FROM customers_edits");
    assert_eq!(shown, "1", "the clock is ahead");
    std::thread::sleep(Duration::from_millis(500));
    stores[1].sql("UPDATE customers SET phone = '11' WHERE id = 'c1'");
    wait_for("the later edit to be at HQ", || at_hq(&hq)?.contains("c1|Ann|11").then_some(()));
    stores[0].run(None);
    wait_same(&hq, &stores);
    assert!(stores[0].sql(ROWS).contains("c1|Ann|11"), "what was truly later stays: {}", stores[0].sql(ROWS));
    let conflict = "SELECT concat(kept, ' over ', lost, ' ', phone, ' ', edit_in_doubt::text) FROM customers_conflicts";
    assert_eq!(hq.value(conflict).as_deref(), Some("tacoma-01 over boston-01 10 true"));
    let evidence =
        wait_for("people to hear of it", || hq.open_incident("clock").or_else(|| hq.ended_incident("clock")));
    assert!(evidence.contains("customers"), "{evidence}");
    // Where HQ heard the site while its clock was ahead, it knows when the edit was made.
    stores[0].kill();
    let ahead = off_by("+2y", &library, stores[0].agent_command(&["run"]));
    stores[0].run_as(ahead);
    wait_for("HQ to know the clock", || hq.open_incident("clock").filter(|evidence| evidence.contains("is off by")));
    stores[0].kill();
    stores[1].sql("UPDATE customers SET phone = '21' WHERE id = 'c2'");
    wait_for("the earlier edit to be at HQ", || at_hq(&hq)?.contains("c2|Bob|21").then_some(()));
    edit_ahead(&stores[0], "UPDATE customers SET phone = '20' WHERE id = 'c2'");
    stores[0].run(None);
    wait_same(&hq, &stores);
    assert!(stores[1].sql(ROWS).contains("c2|Bob|20"), "what was truly later stays: {}", stores[1].sql(ROWS));
    let conflict =
        "SELECT concat(kept, ' over ', lost, ' ', edit_in_doubt::text) FROM customers_conflicts WHERE id = 'c2'";
    assert_eq!(hq.value(conflict).as_deref(), Some("boston-01 over tacoma-01 false"));
}

#[test]
fn a_store_that_rewrites_shared_rows_says_so_and_all_ends_come_to_rest() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    publish(&hq, directory.path(), "id,name,phone\nc1,ANN,1\nc2,BOB,2\n", &["--shared", "fields"]);
    let stores = ["boston-01", "tacoma-01"].map(|id| store(&hq, directory.path(), id));
    let arrival = |column: &str| {
        let of_boston = "FROM rollcall.arrivals WHERE table_name = 'customers' AND site = 'boston-01'";
        hq.value(&format!("SELECT coalesce({column}::text, '-') {of_boston}"))
    };
    stores[0].sql(
        "CREATE TRIGGER upper_u AFTER UPDATE ON customers BEGIN UPDATE customers SET name = upper(name) WHERE id = NEW.id; END;
         CREATE TRIGGER upper_i AFTER INSERT ON customers BEGIN UPDATE customers SET name = upper(name) WHERE id = NEW.id; END",
    );
    // What its people write is what its trigger makes of it, everywhere.
    stores[0]
        .sql("UPDATE customers SET name = 'annie' WHERE id = 'c1'; INSERT INTO customers VALUES ('c3', 'cid', '3')");
    wait_for("the edits to be at HQ", || (at_hq(&hq)? == "c1|ANNIE|1\nc2|BOB|2\nc3|CID|3").then_some(()));
    wait_same(&hq, &stores);
    // What others write becomes another value there: that is told, with both, and nothing goes back
    // and forth.
    stores[1].sql("UPDATE customers SET name = 'rob' WHERE id = 'c2'");
    let lacks = wait_for("the difference", || arrival("lacks_because").filter(|lacks| lacks.contains("'c2'")));
    assert!(lacks.contains("HQ sent 'rob', the store has 'ROB'"), "{lacks}");
    stores[0].sql("UPDATE customers SET phone = '22' WHERE id = 'c2'");
    wait_for("the phone at HQ, and no other name", || at_hq(&hq)?.contains("c2|rob|22").then_some(()));
    let versions = "SELECT max(_seq) FROM history.customers";
    let settled = wait_for("the edits to be settled", || {
        let waits = stores.iter().any(|store| store.sql("SELECT count(*) FROM customers_edits") != "0");
        if waits { None } else { hq.value(versions) }
    });
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(hq.value(versions), Some(settled), "nothing goes back and forth");
    assert_eq!(
        stores.each_ref().map(|store| store.sql("SELECT name || phone FROM customers WHERE id = 'c2'")),
        ["ROB22", "rob22"]
    );
    assert!(arrival("lacks_because").is_some_and(|lacks| lacks.contains("'c2'")), "it is still told");
    // A person accepts it.
    publish(&hq, directory.path(), "id\nc1\n", &["--rewritten", "name"]);
    wait_for("it to be accepted", || (arrival("lacks_because")? == "-").then_some(()));
    // Versions of sites' edits are among the publications.
    let by_sites = "SELECT sum(inserted + updated)::text FROM rollcall.publications WHERE published_by = 'sites'";
    assert_eq!(hq.value(by_sites).as_deref(), Some("4"));
    assert!(String::from_utf8_lossy(&hq.run(&["publications", "customers"]).stdout).contains("edits of sites"));
}
