//! The books are proven: what sites say they captured is counted again at HQ.

use serde_json::Value;

use crate::support::{Hq, Process, running_store, wait_for};

const SCHEMA: &str = "CREATE TABLE sales (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO sales VALUES (1, 'a'), (2, 'b')";

/// The open incident that says so.
fn incident(hq: &Hq, text: &str) -> Option<Value> {
    let output = hq.run(&["incidents", "--json"]);
    let open: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    open.into_iter().find(|incident| incident.to_string().contains(text))
}

#[test]
fn what_a_site_says_it_captured_is_counted_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let store = running_store(&hq, directory.path(), "store-1", SCHEMA, "sales");
    let reconciled = |rows: u64| {
        let sql =
            "SELECT rows_stated, rows_here FROM rollcall.manifests WHERE site = 'store-1' AND table_name = 'sales'";
        wait_for(&format!("{rows} rows to be proven"), || {
            let row = hq.rows(sql).into_iter().next()?;
            (row["rows_stated"] == rows && row["rows_here"] == rows).then_some(())
        });
    };
    reconciled(2);
    store.sql("INSERT INTO sales VALUES (3, 'c'), (4, 'd'); UPDATE sales SET v = 'e' WHERE id = 1; DELETE FROM sales WHERE id = 2");
    reconciled(4);
    reconciled(0);
    // The site says that it captured 99 rows more than ever came.
    store.sql(
        "INSERT INTO _rollcall_journal (t, op, at, c0, c1, c2) SELECT 0, 'M', julianday('now'), v, v,
         '[{\"table\":\"sales\",\"rows\":99}]' FROM _rollcall_meta WHERE k = 'manifest_through'",
    );
    let short = wait_for("the incident", || incident(&hq, "journalled 99"));
    assert!(short.to_string().contains("0 of them are here"), "{short}");
    assert_eq!(short["cause"], "mismatch", "{short}");
    // Manifests that agree say nothing of the one that did not; only rows that are stated anew do.
    let through = "SELECT max(through) FROM rollcall.manifests WHERE rows_stated = rows_here";
    let agreed = hq.value(through);
    wait_for("the next manifest to agree", || (hq.value(through) != agreed).then_some(()));
    assert!(incident(&hq, "journalled 99").is_some(), "it is not known to be mended");
    store.sql("DROP TRIGGER _rollcall_ai_sales");
    wait_for("the table to be stated anew", || incident(&hq, "journalled 99").is_none().then_some(()));
    // A manifest of what came since: what one of earlier shows is mended by the load.
    let head = store.sql("SELECT max(seq) FROM _rollcall_journal");
    let is_beyond = format!("SELECT CAST(v AS INTEGER) >= {head} FROM _rollcall_meta WHERE k = 'manifest_through'");
    wait_for("the store's next manifest", || (store.sql(&is_beyond) == "1").then_some(()));
    // Its row numbers grow although it captured nothing.
    let forged = |key: u32| {
        format!(
            "INSERT INTO _rollcall_journal (t, op, at, c0, c1, c2) SELECT 0, 'M', julianday('now'), v, v,
             '[{{\"table\":\"sales\",\"rows\":0,\"last_key\":{key}}}]' FROM _rollcall_meta WHERE k = 'manifest_through';"
        )
    };
    store.sql(&format!("BEGIN IMMEDIATE; {} {} COMMIT", forged(4), forged(9)));
    let passed = wait_for("the incident", || incident(&hq, "changes pass by the triggers"));
    // Nothing is missing in truth, and a person says so.
    let accounted = hq.run(&["incidents", "normal", &passed["id"].to_string(), "--by", "ann"]);
    assert!(accounted.status.success(), "{}", String::from_utf8_lossy(&accounted.stderr));
    wait_for("the incident to end", || incident(&hq, "changes pass by the triggers").is_none().then_some(()));
    // It lost changes for ever, and says so.
    store.sql(
        "INSERT INTO _rollcall_journal (t, op, at, c0, c1, c2) VALUES (0, 'L', julianday('now'), 5, 7, 'the disk died')",
    );
    let lost = wait_for("the incident", || incident(&hq, "changes 5 to 7 are lost for ever: the disk died"));
    let note = hq.run(&["sql", "SELECT count(*) FROM sales"]);
    assert!(String::from_utf8_lossy(&note.stderr).contains("store-1"), "its rows are not whole any more: {note:?}");
    assert_eq!(lost["cause"], "mismatch", "{lost}");
}

#[test]
fn a_site_that_is_heard_and_sends_no_manifest_has_a_dead_data_path() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema = format!("PRAGMA journal_mode = WAL; {SCHEMA}");
    let store = running_store(&hq, directory.path(), "store-1", &schema, "sales");
    hq.wait_state("store-1", "ok");
    // A program of the store's never ends its transaction: the site is heard, but can write nothing
    // into its journal.
    let script = "import sqlite3, sys, time
conn = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
conn.execute('BEGIN IMMEDIATE'); time.sleep(600)";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", script]).arg(&store.database);
    let mut holder = Process::start(command, &store.database.with_extension("holder.log"));
    wait_for("the incident", || incident(&hq, "its data path is dead"));
    holder.kill();
    wait_for("its end", || incident(&hq, "its data path is dead").is_none().then_some(()));
}
