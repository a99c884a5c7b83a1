//! The books are proven: what sites say they captured is counted again at HQ.

use serde_json::Value;

use crate::support::{Hq, running_store, wait_for};

const SCHEMA: &str = "CREATE TABLE sales (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO sales VALUES (1, 'a'), (2, 'b')";

fn manifest_incident(hq: &Hq) -> Option<Value> {
    let output = hq.run(&["incidents", "--json"]);
    let open: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    open.into_iter().find(|incident| incident.to_string().contains("journalled 99"))
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
    let incident = wait_for("the incident", || manifest_incident(&hq));
    assert!(incident.to_string().contains("0 of them are here"), "{incident}");
    assert_eq!(incident["cause"], "mismatch", "{incident}");
    wait_for("the next manifest to agree", || manifest_incident(&hq).is_none().then_some(()));
}
