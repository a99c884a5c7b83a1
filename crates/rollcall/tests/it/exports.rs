//! Answers that are long, and answers that break off, as programs and people get them.

use std::{fs, process::Command};

use crate::{
    ask::{err, out},
    support::Hq,
};

/// Fails in the last of many rows.
const FAILS_LATE: &str = "SELECT value, 100 / (1000000 - value) AS share FROM generate_series(1, 1000000) AS g(value)";

fn curl(hq: &Hq, sql: &str, format: &str, more: &[&str]) -> std::process::Output {
    let token = fs::read_to_string(hq.data.join("operator.token")).expect("a token");
    let body = serde_json::json!({"sql": sql, "format": format, "trailer": true}).to_string();
    Command::new("curl")
        .args(["-sS", "-H", &format!("authorization: Bearer {}", token.trim()), "-H", "content-type: application/json"])
        .args(["-d", &body, &format!("http://{}/api/sql", hq.http())])
        .args(more)
        .output()
        .expect("curl is needed by these tests")
}

#[test]
fn answers_of_any_length_are_whole_or_say_that_they_are_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let file = |name: &str| directory.path().join(name);
    let export = |sql: &str, format: &str, name: &str| {
        hq.run(&["sql", sql, "--format", format, "--out", file(name).to_str().expect("text")])
    };

    // More than a million rows, and what they are missing beside them.
    let long = "SELECT value, 1.5 * value AS half FROM generate_series(1, 1500000) AS g(value) ORDER BY value";
    for format in ["csv", "json", "arrow", "parquet"] {
        let done = export(long, format, format);
        assert_eq!(done.status.code(), Some(0), "{format}: {}", err(&done));
    }
    let csv = fs::read_to_string(file("csv")).expect("written");
    assert_eq!((csv.lines().count(), csv.lines().last()), (1_500_001, Some("1500000,2250000.0")));
    let beside = fs::read_to_string(file("csv.coverage.json")).expect("beside it");
    assert!(beside.starts_with("{\"is_complete\":true") && beside.contains("\"scope\":0"), "{beside}");
    let json: serde_json::Value = serde_json::from_slice(&fs::read(file("json")).expect("written")).expect("json");
    assert_eq!(json["rows"].as_array().map(Vec::len), Some(1_500_000));
    assert!(json["coverage"].is_object());
    assert!(fs::read(file("arrow")).expect("written").ends_with(&[255, 255, 255, 255, 0, 0, 0, 0]));
    assert!(fs::read(file("parquet")).expect("written").ends_with(b"PAR1"));
    let refused = export("SELECT * FROM generate_series(1, 1100000)", "xlsx", "xlsx");
    assert!(refused.status.code() == Some(3) && err(&refused).contains("1048576 rows"), "{}", err(&refused));
    let refused = hq.run(&["sql", long]);
    assert!(refused.status.code() == Some(3) && err(&refused).contains("100000 rows"), "{}", err(&refused));

    // What fails late leaves no file that looks whole, and what was there.
    fs::write(file("old.csv"), "old").expect("writes");
    for format in ["csv", "json", "arrow", "parquet", "xlsx"] {
        for name in ["new", "old.csv"] {
            let broken = export(FAILS_LATE, format, name);
            assert_eq!(broken.status.code(), Some(3), "{format}: {}", err(&broken));
            assert!(err(&broken).contains("by zero"), "{format}: {}", err(&broken));
        }
        assert!(!file("new").exists() && fs::read_to_string(file("old.csv")).expect("there") == "old", "{format}");
    }
    let parts = fs::read_dir(directory.path()).expect("reads").flatten();
    assert_eq!(parts.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part")).count(), 0);
    let shown = hq.run(&["sql", FAILS_LATE, "--format", "csv"]);
    assert!(shown.status.code() == Some(3) && err(&shown).contains("not whole"), "{}", err(&shown));
    // Any other client sees that the body was cut: curl calls that a partial file.
    for format in ["csv", "json", "arrow", "parquet"] {
        let cut = curl(&hq, FAILS_LATE, format, &["-w", "%{stderr}status %{http_code}"]);
        let (code, told) = (cut.status.code(), err(&cut));
        match format {
            // A row group of a million rows is never sent before the last row fails.
            "parquet" => assert!(told.contains("status") && !told.contains("status 200") && code == Some(0), "{told}"),
            _ => assert!(told.contains("status 200") && code == Some(18), "{format}: {code:?} {told}"),
        }
    }
    let soon = curl(
        &hq,
        "SELECT 1 / (value - 5) FROM generate_series(1, 10) AS g(value)",
        "csv",
        &["-w", "%{stderr}%{http_code}"],
    );
    assert!(!err(&soon).ends_with("200") && out(&soon).contains("by zero"), "{soon:?}");
}

#[test]
fn numbers_and_times_come_out_as_they_are() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let sql = "SELECT CAST('12345678901234567890.123456789' AS decimal(38, 9)) AS d, 9007199254740993 AS l, \
               arrow_cast('2026-01-10T12:00:00', 'Timestamp(Microsecond, None)') AS plain, \
               arrow_cast('2026-01-10T12:00:00Z', 'Timestamp(Microsecond, Some(\"UTC\"))') AS zoned, \
               arrow_cast(arrow_cast('2026-01-10T12:00:00Z', 'Timestamp(Microsecond, Some(\"UTC\"))'), \
               'Timestamp(Microsecond, Some(\"America/Los_Angeles\"))') AS there";
    let json = out(&hq.run(&["sql", sql, "--format", "json"]));
    let rows = "\"rows\":[{\"d\":12345678901234567890.123456789,\"l\":9007199254740993,\"plain\":\"2026-01-10T12:00:00\",\
                \"zoned\":\"2026-01-10T12:00:00Z\",\"there\":\"2026-01-10T04:00:00-08:00\"}]";
    assert!(json.contains(rows), "{json}");
    let line = "12345678901234567890.123456789,9007199254740993,2026-01-10T12:00:00,2026-01-10T12:00:00Z,\
                2026-01-10T04:00:00-08:00";
    let csv = out(&hq.run(&["sql", sql, "--format", "csv"]));
    assert_eq!(csv, format!("d,l,plain,zoned,there\n{line}"));
    let table = out(&hq.run(&["sql", sql]));
    assert!(line.split(',').all(|value| table.contains(&format!("| {value} "))), "{table}");
    let empty = out(&hq.run(&["sql", "SELECT 1 AS one WHERE false", "--format", "csv"]));
    assert_eq!(empty, "one");
    let headers = curl(&hq, "SELECT 1", "csv", &["-D", "-", "-o", "/dev/null"]);
    let headers = out(&headers).to_lowercase();
    assert!(headers.contains("x-rollcall-missing: 0") && headers.contains("rows;dur="), "{headers}");
    let headers = curl(&hq, "SELECT * FROM generate_series(1, 300000)", "csv", &["-D", "-", "-o", "/dev/null"]);
    let headers = out(&headers).to_lowercase();
    assert!(headers.contains("coverage;dur=") && !headers.contains("rows;dur="), "{headers}");
    assert!(headers.contains("transfer-encoding: chunked"), "{headers}");
}
