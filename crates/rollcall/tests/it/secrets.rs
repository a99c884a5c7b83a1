//! Keys, tokens and passwords: where they are, and that each can be replaced.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::support::{Hq, Store, binary, running_store, wait_for};

const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a')";

fn identity(store: &Store) -> PathBuf {
    PathBuf::from(format!("{}.rollcall/identity.json", store.database.display()))
}

fn rotation(hq: &Hq) -> Value {
    let known: Value = serde_json::from_slice(&hq.run(&["secrets", "--json"]).stdout).expect("secrets");
    known["ca_rotation"].clone()
}

/// How the API answers to a user's password.
fn asked_with(hq: &Hq, credentials: &[&str]) -> String {
    let url = format!("http://{}/api/roll", hq.http());
    let mut command = Command::new("curl");
    command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "20"]).args(credentials).arg(url);
    String::from_utf8(command.output().expect("curl runs").stdout).expect("text")
}

fn wait_rows(hq: &Hq, site: &str, count: &str) {
    let sql = format!("SELECT count(*) FROM t WHERE _site = '{site}'");
    wait_for(&format!("{count} rows of {site}"), || (hq.value(&sql)? == count).then_some(()));
}

#[test]
fn the_certificate_authority_is_replaced_and_sites_come_along() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let connected = ["boston-01", "seattle-01"].map(|id| running_store(&hq, directory.path(), id, SCHEMA, "t"));
    let mut late = running_store(&hq, directory.path(), "tacoma-01", SCHEMA, "t");
    let mut lost = running_store(&hq, directory.path(), "yakima-01", SCHEMA, "t");
    for store in connected.iter().chain([&late, &lost]) {
        store.wait_confirmed();
    }
    late.stop();
    lost.stop();
    let before = fs::read(identity(&connected[0])).expect("reads");
    assert!(!hq.run(&["secrets", "finish"]).status.success(), "there is nothing to finish");
    assert!(hq.run(&["secrets", "rotate", "ca"]).status.success());
    assert!(!hq.run(&["secrets", "rotate", "ca"]).status.success(), "one at a time");
    wait_for("the connected ones", || (rotation(&hq)["moved"] == 2).then_some(()));
    assert_eq!(rotation(&hq)["waiting_sites"], serde_json::json!(["tacoma-01", "yakima-01"]));
    // What is known of it outlasts a restart, and who comes later comes along.
    hq.stop();
    hq.restart();
    assert_eq!(rotation(&hq)["moved"], 2);
    late.run(None);
    wait_for("the late one", || (rotation(&hq)["moved"] == 3).then_some(()));
    let refused = hq.run(&["secrets", "finish"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("yakima-01"), "{refused:?}");
    assert!(hq.run(&["secrets", "finish", "--leave-behind"]).status.success());
    assert_eq!(rotation(&hq), Value::Null);
    for store in connected.iter().chain([&late]) {
        wait_for("one authority alone", || {
            let text = fs::read_to_string(identity(store)).ok()?;
            (text.matches("BEGIN CERTIFICATE").count() == 2 && store.status().0 == Some(0)).then_some(())
        });
    }
    hq.stop();
    hq.restart();
    for store in connected.iter().chain([&late]) {
        store.sql("INSERT INTO t VALUES (2, 'after')");
        wait_rows(&hq, &store.id, "2");
    }
    let [mut first, _other] = connected;
    // What was made before is worth nothing, at either end.
    first.stop();
    let after = fs::read(identity(&first)).expect("reads");
    fs::write(identity(&first), before).expect("writes");
    first.sql("INSERT INTO t VALUES (3, 'with the old identity')");
    first.run(None);
    wait_for("it to say so", || first.log().contains("is not the HQ this site belongs to").then_some(()));
    assert_eq!(hq.value("SELECT count(*) FROM t WHERE _site = 'boston-01'").as_deref(), Some("2"));
    first.stop();
    fs::write(identity(&first), after).expect("writes");
    first.run(None);
    wait_rows(&hq, "boston-01", "3");
    // The one that was left behind comes back by an invitation, and nothing of it is lost or
    // doubled.
    lost.sql("INSERT INTO t VALUES (2, 'meanwhile')");
    let token = hq.invite("yakima-01");
    lost.join(hq.sites, &token, "t");
    lost.run(None);
    wait_rows(&hq, "yakima-01", "2");
    let ids = hq.rows("SELECT id FROM t WHERE _site = 'yakima-01' ORDER BY id");
    assert_eq!(ids.len(), 2, "{ids:?}");
}

#[test]
fn a_replaced_operators_token_lets_nobody_in() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let token = |hq: &Hq| {
        let text = fs::read_to_string(hq.data.join("operator.token")).expect("a token");
        format!("authorization: Bearer {}", text.trim())
    };
    let old = token(&hq);
    assert_eq!(asked_with(&hq, &["-H", &old]), "200");
    assert!(hq.run(&["secrets", "rotate", "operator-token"]).status.success());
    assert_eq!(asked_with(&hq, &["-H", &old]), "401");
    assert_eq!(asked_with(&hq, &["-H", &token(&hq)]), "200");
    hq.stop();
    hq.restart();
    assert_eq!(asked_with(&hq, &["-H", &old]), "401", "nor after a restart");
    assert!(hq.run(&["call"]).status.code() != Some(3));
}

#[test]
fn the_nodes_key_is_replaced_and_the_old_one_opens_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let store = running_store(&hq, directory.path(), "boston-01", SCHEMA, "t");
    store.wait_confirmed();
    let admin = ["users", "set", "admin", "--role", "admin", "--password-stdin"];
    assert!(hq.run_with_input(&admin, "correct horse").status.success());
    let refused = hq.run(&["secrets", "rotate", "node-key"]);
    assert_eq!(refused.status.code(), Some(3), "HQ runs: {refused:?}");
    hq.stop();
    let (key, copy) = (hq.data.join("node.key"), hq.data.join("old.key"));
    fs::copy(&key, &copy).expect("copies");
    let rotated = hq.run(&["secrets", "rotate", "node-key"]);
    assert!(rotated.status.success(), "{rotated:?}");
    assert_ne!(fs::read(&key).expect("a key"), fs::read(&copy).expect("a key"));
    hq.restart();
    assert_eq!(asked_with(&hq, &["-u", "admin:correct horse"]), "200");
    store.sql("INSERT INTO t VALUES (2, 'after')");
    wait_rows(&hq, "boston-01", "2");
    hq.stop();
    fs::copy(&copy, &key).expect("copies");
    let refused = hq.second();
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
}

#[test]
fn the_first_password_is_in_a_file_until_it_is_changed() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let file = hq.data.join("admin.password");
    let mode = fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = fs::read_to_string(&file).expect("a password");
    assert_eq!(asked_with(&hq, &["-u", &format!("admin:{}", first.trim())]), "200");
    let advised = hq.run(&["secrets"]);
    assert_eq!(advised.status.code(), Some(1), "a person should look");
    assert!(String::from_utf8_lossy(&advised.stdout).contains("first start"), "{advised:?}");
    let admin = ["users", "set", "admin", "--role", "admin", "--password-stdin"];
    assert!(hq.run_with_input(&admin, "correct horse").status.success());
    assert!(!file.exists(), "it is not the password any more");
    assert_eq!(asked_with(&hq, &["-u", &format!("admin:{}", first.trim())]), "401");
    assert_eq!(asked_with(&hq, &["-u", "admin:correct horse"]), "200");
    assert_eq!(hq.run(&["secrets"]).status.code(), Some(0));
    // Where a port is taken nothing is made: the next start is a first one.
    let data = directory.path().join("other");
    let start = |listen: &str, data: &Path| {
        let mut command = Command::new(binary("rollcall"));
        command.args(["hq", "--listen-http", "127.0.0.1:0", "--listen-pg", "127.0.0.1:0", "--listen-sites", listen]);
        command.arg("--data").arg(data).output().expect("runs")
    };
    let refused = start(&hq.sites.to_string(), &data);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(!data.exists(), "nothing was made");
}
