//! What HQ exports for Prometheus: the page about it is that of a running HQ, and the numbers are true.

use std::{collections::BTreeMap, fs, process::Command};

use crate::support::{Hq, running_store, wait_for};

const HEAD: &str = "# Metrics

This page is written by a test from a running HQ. `GET /metrics` on the API's port answers in the text format of OpenMetrics, which
Prometheus reads. Whoever asks must be a user (`rollcall users tokens`): how many stores are silent is nobody else's business.

```yaml
scrape_configs:
  - job_name: rollcall
    authorization: {credentials_file: /etc/prometheus/rollcall.token}
    static_configs: [{targets: ['hq.example.com:7480']}]
```

A counter begins at 0 when the process starts, and ends in `_total`; a histogram has `_bucket`, `_sum` and `_count`. Times are seconds.
Each node exports what it knows; sites, incidents and tables are the same at all of them, so take the node that acts
(`rollcall_node_acts == 1`) or the maximum. No label names a store: `rollcall.roll` has each of them.

Packages export `rollcall_allocator_allocated_bytes` as well: what the process asked its allocator for and holds.

Worth an alert of your own, beside those that Rollcall sends itself: `rollcall_failing_works > 0`, `rollcall_watch_blind == 1` for an hour,
`rate(rollcall_watch_ticks_total[5m]) < 0.9`, `rollcall_relay_waiting_facts > 1000`.

| metric | type | meaning |
|---|---|---|
";

/// What the text says of each metric: its type, and its meaning.
fn described(text: &str) -> BTreeMap<String, (String, String)> {
    let mut all: BTreeMap<String, (String, String)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            all.entry(name.to_owned()).or_default().1 = help.trim_end_matches('.').to_owned();
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            all.entry(name.to_owned()).or_default().0 = kind.to_owned();
        }
    }
    all
}

/// A sample, by its name with its labels.
fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
}

#[test]
fn metrics_are_those_of_the_page_and_count_what_happens() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let read = || String::from_utf8(hq.get("/metrics")).expect("text");
    let before = read();
    assert!(value(&before, "rollcall_sites_connected") == 0.0, "{before}");

    let seven = "CREATE TABLE sales (id INTEGER PRIMARY KEY, qty INTEGER); \
                 INSERT INTO sales (qty) VALUES (1), (2), (3), (4), (5), (6), (7);";
    let _store = running_store(&hq, directory.path(), "seattle-01", seven, "sales");
    wait_for("the rows", || (hq.value("SELECT count(*) FROM sales").as_deref() == Some("7")).then_some(()));
    let text = read();
    assert!(value(&text, "rollcall_sites_connected") == 1.0, "{text}");
    assert!(value(&text, "rollcall_sites_listed") == 1.0, "{text}");
    assert!(value(&text, "rollcall_ingest_rows_total") >= 7.0, "{text}");
    assert!(value(&text, "rollcall_ingest_batches_total") >= 1.0, "{text}");
    assert!(value(&text, "rollcall_ingest_waiting_parts") == 0.0, "{text}");
    assert!(value(&text, "rollcall_ingest_commit_seconds_count") >= 1.0, "{text}");
    assert!(value(&text, "rollcall_lake_version{table=\"tables/sales\"}") >= 1.0, "{text}");
    assert!(value(&text, "rollcall_lake_bytes{table=\"tables/sales\"}") > 0.0, "{text}");
    assert!(value(&text, "rollcall_questions_total{outcome=\"planned\"}") >= 1.0, "{text}");
    assert!(value(&text, "rollcall_node_acts") == 1.0, "{text}");
    assert!(value(&text, "rollcall_process_resident_bytes") > 1e6, "{text}");
    assert!(!text.contains("seattle"), "no label names a store");
    assert!(text.ends_with("# EOF\n"), "it is whole");
    let states: f64 = text.lines().filter(|line| line.starts_with("rollcall_sites{")).count() as f64;
    assert!(states >= 1.0, "{text}");

    // A stranger learns nothing.
    let code = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", &format!("http://{}/metrics", hq.http())])
        .output()
        .expect("curl");
    assert_eq!(String::from_utf8_lossy(&code.stdout), "401");

    let mut page = HEAD.to_owned();
    for (name, (kind, help)) in described(&text) {
        assert!(name.starts_with("rollcall_") && !help.is_empty(), "{name}: {help}");
        page.push_str(&format!("| `{name}{}` | {kind} | {help} |\n", if kind == "counter" { "_total" } else { "" }));
    }
    let path = std::env::current_dir().expect("there").join("../../docs/metrics.md");
    if std::env::var_os("ROLLCALL_WRITE").is_some() {
        fs::write(&path, &page).expect("written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(page == written, "docs/metrics.md is not of this version: run this test with ROLLCALL_WRITE=1");
}
