//! Other engines read the same tables and agree: that is what an open format is for.

use std::process::Command;

use crate::support::{Hq, Store};

const SCRIPT: &str = r#"
import sys
path, table = sys.argv[1], sys.argv[2]
import deltalake, duckdb, duckdb_extension_delta, os
frame = deltalake.DeltaTable(path).to_pyarrow_dataset().to_table(columns=["_site", "_seq"])
con = duckdb.connect(config={"allow_unsigned_extensions": "true"})
base = os.path.dirname(duckdb_extension_delta.__file__)
extension = [os.path.join(d, f) for d, _, fs in os.walk(base) for f in fs if f.endswith("delta.duckdb_extension")][0]
con.execute(f"LOAD '{extension}'")
duck = con.execute(f"SELECT _site, count(*), count(DISTINCT _seq), sum(_seq)::BIGINT FROM delta_scan('{path}') GROUP BY 1 ORDER BY 1").fetchall()
con.register("frame", frame)
delta = con.execute("SELECT _site, count(*), count(DISTINCT _seq), sum(_seq)::BIGINT FROM frame GROUP BY 1 ORDER BY 1").fetchall()
for name, rows in [("duckdb", duck), ("deltalake", delta)]:
    print(name, ";".join(",".join(map(str, row)) for row in rows))
"#;

/// Two other engines count the same rows, site by site, as our own SQL does.
pub(crate) fn assert_agree(hq: &Hq, table: &str, stores: &[Store]) {
    let installed =
        Command::new("python3").args(["-c", "import deltalake, duckdb, duckdb_extension_delta, pyarrow"]).output();
    if !installed.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: other engines are not installed (pip: deltalake pyarrow duckdb duckdb-extension-delta)");
        return;
    }
    let sql = format!(
        "SELECT _site, count(*) AS rows, count(DISTINCT _seq) AS positions, sum(_seq) AS total FROM history.{table} GROUP BY 1 ORDER BY 1"
    );
    let rows = hq.rows(&sql);
    assert_eq!(rows.len(), stores.len());
    let ours: Vec<String> = rows
        .iter()
        .map(|row| {
            let site = row["_site"].as_str().expect("text");
            format!("{site},{},{},{}", row["rows"], row["positions"], row["total"])
        })
        .collect();
    let path = hq.data.join("tables").join(table);
    let output = Command::new("python3").args(["-c", SCRIPT]).arg(&path).arg(table).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ours = ours.join(";");
    for engine in ["duckdb", "deltalake"] {
        let theirs = text.lines().find_map(|line| line.strip_prefix(engine)).expect("an answer").trim();
        assert_eq!(theirs, ours, "{engine} disagrees");
    }
}
