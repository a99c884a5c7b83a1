//! Other engines read the same tables and agree: that is what an open format is for.

use std::process::Command;

use crate::{
    bucket::Bucket,
    support::{Hq, Store},
};

const SCRIPT: &str = r#"
import sys
path = sys.argv[1]
import deltalake, duckdb, duckdb_extension_delta, os
shared = path.startswith("s3://")
frame = deltalake.DeltaTable(path, storage_options=dict(os.environ) if shared else None).to_pyarrow_dataset().to_table(columns=["_site", "_seq"])
con = duckdb.connect(config={"allow_unsigned_extensions": "true"})
def load(module, name):
    walked = os.walk(os.path.dirname(module.__file__))
    con.execute(f"LOAD '{[os.path.join(d, f) for d, _, fs in walked for f in fs if f == name + '.duckdb_extension'][0]}'")
if shared:
    import duckdb_extension_httpfs
    load(duckdb_extension_httpfs, "httpfs")
load(duckdb_extension_delta, "delta")
if shared:
    e = os.environ
    con.execute(f"""CREATE SECRET (TYPE s3, KEY_ID '{e["AWS_ACCESS_KEY_ID"]}', SECRET '{e["AWS_SECRET_ACCESS_KEY"]}',
        REGION '{e["AWS_REGION"]}', ENDPOINT '{e["AWS_ENDPOINT_URL"].split("//")[1]}', USE_SSL false, URL_STYLE 'path')""")
duck = con.execute(f"SELECT _site, count(*), count(DISTINCT _seq), sum(_seq)::BIGINT FROM delta_scan('{path}') GROUP BY 1 ORDER BY 1").fetchall()
con.register("frame", frame)
delta = con.execute("SELECT _site, count(*), count(DISTINCT _seq), sum(_seq)::BIGINT FROM frame GROUP BY 1 ORDER BY 1").fetchall()
for name, rows in [("duckdb", duck), ("deltalake", delta)]:
    print(name, ";".join(",".join(map(str, row)) for row in rows))
"#;

/// Two other engines count the same rows, site by site, as our own SQL does; a third, which spreads
/// its work over processes, counts them in all.
pub(crate) fn assert_agree(hq: &Hq, table: &str, stores: &[Store]) {
    if can_import("deltalake, duckdb, duckdb_extension_delta, pyarrow") {
        let path = hq.data.join("tables").join(table);
        assert_agree_at(hq, table, stores, path.to_str().expect("text"), &[]);
    }
    if can_import("pysail, pyspark") {
        // A test runs in its crate's directory.
        let script = "../../scripts/read-with-sail";
        let output =
            Command::new("python3").args([script, hq.data.to_str().expect("text"), table]).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let rows = hq.value(&format!("SELECT count(*) FROM history.{table}")).expect("an answer");
        assert!(said.contains(&format!("sites {}, rows {rows}, repeated 0", stores.len())), "{said}");
    }
}

/// [`assert_agree`] for a lake in a bucket, read over S3.
pub(crate) fn assert_agree_over_s3(hq: &Hq, table: &str, stores: &[Store], bucket: &Bucket) {
    if can_import("deltalake, duckdb, duckdb_extension_delta, duckdb_extension_httpfs, pyarrow") {
        let path = format!("{}/tables/{table}", bucket.url());
        assert_agree_at(hq, table, stores, &path, &bucket.environment());
    }
}

fn can_import(modules: &str) -> bool {
    let installed = Command::new("python3").args(["-c", &format!("import {modules}")]).output();
    let can = installed.is_ok_and(|output| output.status.success());
    if !can {
        println!("SKIPPED: not all of these are installed (pip, with - for _): {modules}");
    }
    can
}

fn assert_agree_at(hq: &Hq, table: &str, stores: &[Store], path: &str, environment: &[(String, String)]) {
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
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT, path]).envs(environment.iter().cloned());
    let output = command.output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ours = ours.join(";");
    for engine in ["duckdb", "deltalake"] {
        let theirs = text.lines().find_map(|line| line.strip_prefix(engine)).expect("an answer").trim();
        assert_eq!(theirs, ours, "{engine} disagrees");
    }
}
