//! A site that means harm, on the roster and with a certificate: it harms itself alone.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{Hq, Store, running_store, wait_for};

const SCHEMA: &str =
    "PRAGMA journal_mode = WAL; CREATE TABLE sale (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO sale VALUES (1, 'one')";
/// What HQ may come to take beyond what it took before, in kilobytes: several batches of the
/// largest kind, packed and unpacked.
const MEMORY_MAX: u64 = 600 << 10;

/// Kilobytes of memory that a process has.
fn memory_of(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("HQ runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

#[test]
fn a_malicious_site_harms_itself_alone() {
    // Method: after each of sixty attacks another store sells something, and that is at HQ within
    // seconds; HQ is the same process throughout, takes no more memory than is said, and blames
    // nobody else.
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let good = running_store(&hq, directory.path(), "good-01", SCHEMA, "sale");
    good.wait_confirmed();
    let evil = Store::new(directory.path(), "evil-01", SCHEMA);
    evil.join(hq.sites, &hq.invite("evil-01"), "sale");
    let process = hq.pid();
    let before = memory_of(process);
    let here = std::env::current_dir().expect("there");
    let mut attacker = Command::new("python3")
        .arg(here.join("tests/python/malicious_site.py"))
        .arg(here.join("../wire/proto/rollcall.proto").canonicalize().expect("the protocol"))
        .arg(format!("{}.rollcall/identity.json", evil.database.display()))
        .arg(hq.sites.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let (mut attacks, mut most) = (0, before);
    for line in BufReader::new(attacker.stdout.take().expect("its output")).lines() {
        let line = line.expect("reads");
        let attack: Value = serde_json::from_str(&line).expect("a line for each attack");
        let outcome = attack["outcome"].as_str().unwrap_or_default();
        assert!(!outcome.starts_with("BROKEN"), "{line}");
        attacks += 1;
        good.sql(&format!("INSERT INTO sale VALUES ({}, 'after an attack')", attacks + 1));
        let sold = format!("SELECT count(*) FROM sale WHERE _site = 'good-01' AND id = {}", attacks + 1);
        wait_for(&format!("another's rows after {line}"), || (hq.value(&sold)? == "1").then_some(()));
        most = most.max(memory_of(process));
        assert!(most - before < MEMORY_MAX, "{} MB more after {line}", (most - before) >> 10);
    }
    assert!(attacker.wait().expect("ends").success(), "are grpcio, grpcio-tools, pyarrow and zstandard installed?");
    assert!(attacks >= 60, "{attacks}");
    println!("{attacks} attacks; HQ took {} MB more at most", (most - before) >> 10);
    assert_eq!(hq.state_of("good-01")["state"], "ok");
    assert_eq!(hq.missing("SELECT count(*) FROM sale WHERE _site = 'good-01'"), Vec::<String>::new());
    let incidents = hq.api("/api/incidents?all=true");
    for incident in incidents.as_array().expect("a list") {
        let blamed: Vec<&String> =
            incident["members"].as_object().into_iter().flatten().map(|(site, _)| site).collect();
        assert_eq!(blamed, ["evil-01"], "{incident}");
        let steers = |letter: char| letter.is_control() || letter == '\u{202e}';
        assert!(!incident["evidence"].as_str().unwrap_or_default().chars().any(steers), "{incident}");
    }
    for kind in ["quarantined", "quota", "clock"] {
        let is_of = |incident: &&Value| incident["kind"]["condition"] == kind;
        assert!(incidents.as_array().into_iter().flatten().any(|incident| is_of(&incident)), "{kind}: {incidents}");
    }
}
