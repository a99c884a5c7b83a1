//! One site, one caller, one wrong clock harms itself alone, and people hear of it.

use std::{fs, process::Command};

use serde_json::Value;

use crate::support::{Hq, Store, faketime, running_store, wait_for};

const SCHEMA: &str =
    "PRAGMA journal_mode = WAL; CREATE TABLE sale (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO sale VALUES (1, 'one')";

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// The status of a request with a password, and what was answered.
fn asked(hq: &Hq, user: &str) -> (String, String) {
    let url = format!("http://{}/api/roll", hq.http());
    let curl = Command::new("curl").args(["-s", "-w", "\n%{http_code}", "-u", user, &url]).output().expect("runs");
    let text = String::from_utf8_lossy(&curl.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.to_owned(), body.to_owned())
}

#[test]
fn whoever_guesses_waits_and_is_told_of_and_that_outlasts_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    for _ in 0..5 {
        assert_eq!(asked(&hq, "admin:not it").0, "401");
    }
    let mut refused = 0;
    let evidence = wait_for("the incident", || {
        refused += usize::from(asked(&hq, "admin:not it").0 == "429");
        // Others from there are not kept waiting as yet, and a token never is.
        assert_eq!(hq.value("SELECT 1").as_deref(), Some("1"));
        for user in ["ada", "bob", "eve"] {
            asked(&hq, &format!("{user}:not it"));
        }
        hq.open_incident("hq")
    });
    assert!(refused > 0 && evidence.contains("wrong passwords in the last hour"), "{evidence}");
    hq.restart();
    let (status, body) = asked(&hq, "admin:not it");
    assert_eq!(status, "429", "{body}");
    assert!(body.contains("try again in"), "{body}");
}

#[test]
fn what_people_do_is_recorded_with_what_was_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    for attributes in ["state=WA", "state=OR"] {
        assert!(hq.run(&["roster", "invite", "seattle-01", "--new", "--set", attributes]).status.success());
    }
    let acts = hq.rows("SELECT \"by\", \"from\", what, outcome, before, after FROM rollcall.audit ORDER BY at");
    let last = acts.last().expect("an act");
    assert_eq!((&last["by"], &last["from"]), (&"operator".into(), &"127.0.0.1".into()), "{last}");
    assert_eq!(last["what"], "invite seattle-01");
    assert!(last["outcome"].as_str().is_some_and(|outcome| outcome.starts_with("200")), "{last}");
    let text = |name: &str| last[name].as_str().unwrap_or_default().to_owned();
    assert!(text("before").contains("\"WA\"") && text("after").contains("\"OR\""), "{last}");
    // A refused one is kept as well, and questions are not among them.
    assert!(!hq.run(&["roster", "retire", "seattle-01", "--yes", "--reason", ""]).status.success());
    let refused = hq.value("SELECT outcome FROM rollcall.audit WHERE what = 'retire seattle-01'").expect("recorded");
    assert!(refused.starts_with("400"), "{refused}");
    assert_eq!(hq.value("SELECT count(*) FROM rollcall.audit WHERE what LIKE '%sql%'").as_deref(), Some("0"));
}

#[test]
fn an_invitation_can_be_revoked_and_an_old_one_takes_no_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let [old, used, revoked] = [(); 3].map(|()| hq.invite("seattle-01"));
    let first = Store::new(directory.path(), "seattle-01", SCHEMA);
    first.join(hq.sites, &used, "sale");
    fs::create_dir_all(directory.path().join("other")).expect("creates");
    let other = Store::new(&directory.path().join("other"), "seattle-01", SCHEMA);
    let tried = other.try_join(hq.sites, &old, "sale");
    assert!(!tried.status.success() && said(&tried).contains("is older than the site's enrolment"), "{}", said(&tried));
    let listed = hq.run(&["roster", "invitations", "--json"]);
    let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).expect("a list");
    assert_eq!(listed.iter().filter(|one| one["is_over"] == true).count(), 2, "{listed:?}");
    drop(revoked);
    let fresh = hq.invite("seattle-01");
    let listed = hq.run(&["roster", "invitations", "--json"]);
    let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).expect("a list");
    let id = listed.iter().find(|one| one["is_over"] == false && one["used_at"].is_null()).expect("the fresh one");
    assert!(hq.run(&["roster", "revoke", id["id"].as_str().expect("an id")]).status.success());
    let tried = other.try_join(hq.sites, &fresh, "sale");
    assert!(!tried.status.success() && said(&tried).contains("was revoked"), "{}", said(&tried));
}

#[test]
fn a_wrong_key_is_undone_and_all_sites_are_complete_again() {
    // Method: the first store proposes a key that no other has.
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let wrong = "PRAGMA journal_mode = WAL; CREATE TABLE sale (id INTEGER, v TEXT PRIMARY KEY); INSERT INTO sale VALUES (1, 'one')";
    let odd = running_store(&hq, directory.path(), "boston-01", wrong, "sale");
    odd.wait_confirmed();
    let store = running_store(&hq, directory.path(), "seattle-01", SCHEMA, "sale");
    store.wait_confirmed();
    store.sql("INSERT INTO sale VALUES (2, 'one')");
    wait_for("the store to be missing", || {
        (hq.missing("SELECT count(*) FROM sale") == ["seattle-01 rows-not-taken"]).then_some(())
    });
    let refused = hq.run(&["tables", "rekey", "sale", "nothing"]);
    assert!(!refused.status.success() && said(&refused).contains("is no column"), "{}", said(&refused));
    let rekeyed = hq.run(&["tables", "rekey", "sale", "id"]);
    assert!(rekeyed.status.success(), "{}", said(&rekeyed));
    // What came before from the store is in quarantine, and it states all of it again.
    let waiting = hq.run(&["quarantine", "--json"]);
    let waiting: Vec<Value> = serde_json::from_slice(&waiting.stdout).expect("a list");
    for kept in waiting.iter().filter(|kept| kept["site"] == "seattle-01") {
        hq.run(&["quarantine", "take", kept["id"].as_str().expect("an id")]);
    }
    let rows = "SELECT string_agg(id || ' ' || v, ', ' ORDER BY id) FROM sale WHERE _site = 'seattle-01'";
    wait_for("its rows", || (hq.value(rows)? == "1 one, 2 one").then_some(()));
    wait_for("the other one to be missing", || {
        (hq.missing("SELECT count(*) FROM sale") == ["boston-01 rows-not-taken"]).then_some(())
    });
}

#[test]
fn a_forgotten_table_is_what_its_stores_say_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    // It proposes columns and a key that no other has, and then does without the table.
    let wrong = "CREATE TABLE sale (odd TEXT PRIMARY KEY, id INTEGER); INSERT INTO sale VALUES ('x', 1)";
    let odd = running_store(&hq, directory.path(), "boston-01", wrong, "sale");
    odd.wait_confirmed();
    let store = running_store(&hq, directory.path(), "seattle-01", SCHEMA, "sale");
    store.wait_confirmed();
    store.sql("INSERT INTO sale VALUES (2, 'two'); DELETE FROM sale WHERE id = 1");
    assert!(odd.agent_command(&["detach", "--table", "sale"]).status().expect("runs").success());
    wait_for("a manifest without it", || {
        let counted = hq.value("SELECT count(*) FROM rollcall.manifests WHERE site = 'boston-01'")?;
        (counted != "0").then_some(())
    });
    let refused = hq.run(&["tables", "forget", "sale", "--confirm", "sales"]);
    assert!(!refused.status.success() && said(&refused).contains("nothing was done"), "{}", said(&refused));
    let forgotten = hq.run(&["tables", "forget", "sale", "--confirm", "sale"]);
    assert!(forgotten.status.success(), "{}", said(&forgotten));
    let rows = "SELECT string_agg(_site || ' ' || id || ' ' || v, ', ') FROM sale";
    wait_for("its rows", || (hq.value(rows)? == "seattle-01 2 two").then_some(()));
    let columns =
        hq.rows("SELECT column_name FROM information_schema.columns WHERE table_name = 'sale' AND column_name = 'odd'");
    assert_eq!(columns.len(), 0, "{columns:?}");
    store.sql("UPDATE sale SET v = 'three' WHERE id = 2");
    wait_for("its next change", || (hq.value(rows)? == "seattle-01 2 three").then_some(()));
    wait_for("the store's completeness", || {
        (!hq.missing("SELECT count(*) FROM sale").iter().any(|missing| missing.starts_with("seattle-01"))).then_some(())
    });
}

#[test]
fn a_site_that_adds_columns_without_end_is_stopped_and_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let bad = running_store(&hq, directory.path(), "boston-01", SCHEMA, "sale");
    let good = running_store(&hq, directory.path(), "seattle-01", SCHEMA, "sale");
    bad.wait_confirmed();
    good.wait_confirmed();
    let add: String = (0..30).map(|number| format!("ALTER TABLE sale ADD COLUMN c{number} INT;")).collect();
    bad.sql(&format!("{add} INSERT INTO sale (id, v, c29) VALUES (2, 'two', 5)"));
    let evidence = wait_for("the incident", || hq.open_incident("quota"));
    assert!(evidence.contains("boston-01 may add 20 columns to sale in a day"), "{evidence}");
    good.sql("INSERT INTO sale VALUES (2, 'two')");
    wait_for("the other's rows", || {
        (hq.value("SELECT count(*) FROM sale WHERE _site = 'seattle-01'")? == "2").then_some(())
    });
    wait_for("it is missing", || {
        (hq.missing("SELECT count(*) FROM sale") == ["boston-01 rows-not-taken"]).then_some(())
    });
    // A person lets it, and it states its rows again.
    assert!(hq.run(&["quotas", "set", "new_columns_a_day=50"]).status.success());
    let waiting = hq.run(&["quarantine", "--json"]);
    let waiting: Vec<Value> = serde_json::from_slice(&waiting.stdout).expect("a list");
    for kept in waiting {
        assert!(hq.run(&["quarantine", "take", kept["id"].as_str().expect("an id")]).status.success());
    }
    wait_for("its rows", || {
        (hq.value("SELECT c29 FROM sale WHERE _site = 'boston-01' AND id = 2")? == "5").then_some(())
    });
    wait_for("completeness", || hq.missing("SELECT count(*) FROM sale").is_empty().then_some(()));
}

#[test]
fn hqs_own_clock_blames_nobody() {
    let Some(library) = faketime() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let clock = directory.path().join("clock");
    fs::write(&clock, "+0").expect("writes");
    let environment = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let hq = Hq::start_in(directory.path(), environment.map(|(name, value)| (name.to_owned(), value)).into());
    let stores = ["boston-01", "seattle-01"].map(|id| running_store(&hq, directory.path(), id, SCHEMA, "sale"));
    for store in &stores {
        store.wait_confirmed();
    }
    hq.wait_state("boston-01", "ok");
    let before = hq.value("SELECT count(*) FROM rollcall.incidents");
    fs::write(&clock, "+3h").expect("writes");
    let evidence = wait_for("the incident", || hq.open_incident("hq"));
    assert!(evidence.contains("jumped by 3 hours") && evidence.contains("2 of 2 connected sites"), "{evidence}");
    std::thread::sleep(std::time::Duration::from_secs(8));
    for site in ["boston-01", "seattle-01"] {
        assert_eq!(hq.state_of(site)["state"], "ok", "{}", hq.state_of(site));
    }
    let opened = hq.value("SELECT count(*) FROM rollcall.incidents WHERE kind <> 'hq'");
    assert_eq!(opened, before, "nobody else is blamed");
    fs::write(&clock, "+0").expect("writes");
    wait_for("its end", || hq.open_incident("hq").is_none().then_some(()));
}

#[test]
fn who_lost_a_password_gets_a_new_one_on_hqs_machine_and_logins_are_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let reset = hq.run(&["users", "reset", "admin"]);
    let password = String::from_utf8_lossy(&reset.stdout).trim().to_owned();
    assert!(reset.status.success() && password.len() >= 16, "{reset:?}");
    let (code, _) = asked(&hq, &format!("admin:{password}"));
    assert_eq!(code, "200");
    assert_eq!(asked(&hq, "admin:wrong-password").0, "401");
    assert!(!hq.run(&["users", "reset", "nobody"]).status.success());
    let sessions = hq.api("/api/sessions");
    assert!(
        sessions.as_array().into_iter().flatten().any(|one| one["user"] == "admin" && one["kind"] == "password"),
        "{sessions}"
    );
    let log = hq.log();
    assert!(
        log.contains("logged in") && log.contains("a wrong password over HTTP") && !log.contains('\u{1b}'),
        "{log}"
    );
    for command in [
        &["sessions"][..],
        &["audit", "--by", "operator"],
        &["holidays", "bavaria", "--set", "2026-12-25"],
        &["holidays", "bavaria"],
    ] {
        let output = hq.run(command);
        assert!(output.status.success(), "{command:?}: {output:?}");
    }
    // Nobody is cut short: what is asked for too long is refused, and nothing changes.
    assert!(!hq.run(&["incidents", "ack", "1", "--reason", "x", "--by", "ada", "--hours", "999"]).status.success());
}
