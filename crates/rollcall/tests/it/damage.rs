//! Files of the lake that went bad: the rest serves, people hear of it, and what is mended is
//! complete again.

use std::{fs, path::PathBuf, process::Command};

use crate::support::{Hq, Store, running_store, wait_for};

const SCHEMA: &str = "PRAGMA journal_mode = WAL; CREATE TABLE sale (id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE stock (id INTEGER PRIMARY KEY);
    INSERT INTO sale VALUES (1, 'one'), (2, 'two'); INSERT INTO stock VALUES (1)";
const SALES: &str = "SELECT string_agg(_site || ' ' || v, ', ' ORDER BY _site, id) FROM sale";
const ALL: &str = "boston-01 one, boston-01 two, boston-01 three, seattle-01 one, seattle-01 two, seattle-01 three";

fn two_stores(hq: &Hq, directory: &std::path::Path) -> [Store; 2] {
    let stores = ["boston-01", "seattle-01"].map(|id| running_store(hq, directory, id, SCHEMA, "sale,stock"));
    for store in &stores {
        store.wait_confirmed();
        store.sql("INSERT INTO sale VALUES (3, 'three')");
    }
    wait_for("all sales", || (hq.value(SALES)? == ALL).then_some(()));
    stores
}

/// Files of a directory of the lake that end so, in their order.
fn files(hq: &Hq, directory: &str, ending: &str) -> Vec<PathBuf> {
    let found = fs::read_dir(hq.data.join(directory)).expect("lists").flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = found.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    found.sort();
    found
}

fn flip_a_bit(path: &std::path::Path) {
    let mut bytes = fs::read(path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).expect("writes");
}

fn error_of(hq: &Hq, sql: &str) -> String {
    String::from_utf8_lossy(&hq.run(&["sql", sql]).stderr).into_owned()
}

/// Runs a repair while HQ is stopped, and starts HQ again. What the repair said.
fn repair(hq: &mut Hq) -> String {
    hq.stop();
    let checked = hq.run(&["lake", "check"]);
    assert_eq!(checked.status.code(), Some(1), "{}", String::from_utf8_lossy(&checked.stdout));
    let told = hq.run(&["lake", "repair", "--dry-run"]);
    assert_eq!(told.stdout, checked.stdout, "nothing is done yet");
    let repaired = hq.run(&["lake", "repair"]);
    let said = String::from_utf8_lossy(&repaired.stdout).into_owned();
    assert!(repaired.status.success(), "{said}{}", String::from_utf8_lossy(&repaired.stderr));
    assert!(hq.run(&["lake", "check"]).status.success());
    hq.restart();
    said
}

#[test]
fn a_table_whose_log_is_damaged_is_set_aside_and_stated_again_after_a_repair() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let [mut boston, _seattle] = two_stores(&hq, directory.path());
    hq.stop();
    let log = files(&hq, "tables/sale/_delta_log", ".json");
    flip_a_bit(&log[log.len() / 2]);
    hq.restart();
    let said = error_of(&hq, "SELECT count(*) FROM sale");
    assert!(said.contains("sale is set aside") && said.contains("rollcall lake repair"), "{said}");
    assert_eq!(hq.value("SELECT count(*) FROM stock").as_deref(), Some("2"), "the rest serves");
    let evidence = wait_for("the incident", || hq.open_incident("hq"));
    assert!(evidence.contains("HQ cannot use tables/sale"), "{evidence}");
    // One is away while the lake is mended, and is missing until it is back.
    boston.stop();
    let said = repair(&mut hq);
    assert!(said.contains("2 sites (boston-01 to seattle-01) send their rows again"), "{said}");
    wait_for("the one that is there", || (hq.missing("SELECT count(*) FROM sale").len() == 1).then_some(()));
    assert!(hq.missing("SELECT count(*) FROM sale")[0].starts_with("boston-01"));
    boston.run(None);
    wait_for("both", || hq.missing("SELECT count(*) FROM sale").is_empty().then_some(()));
    assert_eq!(hq.value(SALES).as_deref(), Some(ALL));
    wait_for("the end of the incident", || hq.open_incident("hq").is_none().then_some(()));
}

#[test]
fn a_damaged_data_file_gives_no_rows_and_its_sites_state_them_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let [boston, _seattle] = two_stores(&hq, directory.path());
    hq.stop();
    flip_a_bit(&files(&hq, "tables/sale", ".parquet")[0]);
    hq.restart();
    let said = error_of(&hq, SALES);
    assert!(said.contains("is damaged: it is not what was written"), "{said}");
    assert_eq!(hq.value("SELECT count(*) FROM stock").as_deref(), Some("2"), "the rest serves");
    boston.sql("INSERT INTO stock VALUES (2)");
    wait_for("what comes now", || (hq.value("SELECT count(*) FROM stock")? == "3").then_some(()));
    let said = repair(&mut hq);
    assert!(said.contains("is taken out") && said.contains("cannot come back: what"), "{said}");
    wait_for("all of them", || (hq.missing(SALES).is_empty() && hq.value(SALES).as_deref() == Some(ALL)).then_some(()));
}

#[test]
fn a_damaged_state_log_lets_nobody_in_from_elsewhere_until_somebody_looked() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let [boston, _seattle] = two_stores(&hq, directory.path());
    let mut set = Command::new("sh");
    let ada = format!(
        "printf secret-word | {} users set ada --password-stdin --data {}",
        crate::support::binary("rollcall").display(),
        hq.data.display()
    );
    assert!(set.args(["-c", &ada]).status().expect("runs").success());
    let asked_by_ada = |hq: &Hq| {
        let curl = Command::new("curl")
            .args(["-s", "-u", "ada:secret-word"])
            .arg(format!("http://{}/api/roll", hq.http()))
            .output();
        String::from_utf8_lossy(&curl.expect("runs").stdout).into_owned()
    };
    assert!(asked_by_ada(&hq).contains("boston-01"));
    hq.stop();
    let log = files(&hq, "rollcall/state/_delta_log", ".json");
    flip_a_bit(&log[log.len() - 2]);
    hq.restart();
    assert!(asked_by_ada(&hq).contains("may be older than it was"), "{}", asked_by_ada(&hq));
    assert_eq!(hq.value(SALES).as_deref(), Some(ALL), "commands on HQ's machine are carried out");
    boston.sql("INSERT INTO stock VALUES (2)");
    wait_for("sites are served", || (hq.value("SELECT count(*) FROM stock")? == "3").then_some(()));
    let evidence = wait_for("the incident", || hq.open_incident("hq"));
    assert!(evidence.contains("people, rights and sites"), "{evidence}");
    repair(&mut hq);
    assert!(asked_by_ada(&hq).contains("boston-01"), "{}", asked_by_ada(&hq));
}

#[test]
fn a_damaged_key_is_named_with_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    hq.stop();
    for (file, said) in [("node.key", "copy it from another node"), ("private/ca.0000000001", "back from a backup")] {
        let path = hq.data.join(file);
        let whole = fs::read(&path).expect("reads");
        fs::write(&path, &whole[..whole.len() - 1]).expect("writes");
        let started = hq.second();
        let text = String::from_utf8_lossy(&started.stderr).into_owned();
        assert_eq!(started.status.code(), Some(3), "{text}");
        assert!(text.contains(file) && text.contains(said), "{text}");
        fs::write(&path, whole).expect("writes");
    }
    hq.restart();
}

#[test]
fn a_table_called_like_the_roster_is_there_all_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE sites (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO sites VALUES (1, 'a place')";
    let store = running_store(&hq, directory.path(), "seattle-01", schema, "sites");
    store.wait_confirmed();
    assert_eq!(hq.value("SELECT v FROM sites_of_stores").as_deref(), Some("a place"));
    assert_eq!(hq.value("SELECT v FROM history.sites").as_deref(), Some("a place"));
    assert_eq!(hq.value("SELECT id FROM sites").as_deref(), Some("seattle-01"));
}

#[test]
fn what_a_site_cannot_state_again_is_missing_until_a_person_accounts_for_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let [boston, _seattle] = two_stores(&hq, directory.path());
    assert!(boston.agent_command(&["detach", "--table", "stock"]).output().expect("runs").status.success());
    hq.stop();
    for file in files(&hq, "tables/stock", ".parquet") {
        flip_a_bit(&file);
    }
    repair(&mut hq);
    wait_for("the one that can", || {
        (hq.missing("SELECT count(*) FROM stock") == ["boston-01 rows-not-taken"]).then_some(())
    });
    let evidence = wait_for("the question", || {
        hq.open_incident("quarantined").filter(|evidence| evidence.contains("does not capture stock any more"))
    });
    let incident = hq.value("SELECT id FROM rollcall.incidents WHERE kind = 'quarantined'").expect(&evidence);
    assert!(hq.run(&["incidents", "normal", &incident, "--by", "ada"]).status.success());
    wait_for("completeness", || hq.missing("SELECT count(*) FROM stock").is_empty().then_some(()));
    wait_for("the end of the incident", || hq.open_incident("quarantined").is_none().then_some(()));
    assert_eq!(hq.value("SELECT string_agg(DISTINCT _site, ' ') FROM stock").as_deref(), Some("seattle-01"));
}
