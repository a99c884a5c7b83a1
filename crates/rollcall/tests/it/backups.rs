//! Stopping, backups, and putting one in place.

use std::{
    path::Path,
    process::{Command, Output},
};

use crate::{
    journals::copy_tree,
    support::{Hq, Store, binary, running_store, wait_for},
};

const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b')";

/// Runs a command that is about a directory.
fn of_directory(arguments: &[&str], data: &Path) -> Output {
    Command::new(binary("rollcall")).args(arguments).arg("--data").arg(data).output().expect("runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_backup_made_under_load_is_whole_and_a_restore_loses_and_doubles_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let mut stores: Vec<Store> = Vec::new();
    for id in ["berlin-01", "berlin-02"] {
        stores.push(running_store(&hq, directory.path(), id, SCHEMA, "t"));
    }
    stores.iter().for_each(Store::wait_confirmed);
    let copy = directory.path().join("backup");
    let data = hq.data.clone();
    let backup = || of_directory(&["backup", copy.to_str().expect("text"), "--json"], &data);
    // Stores write while it is made; whatever it has is a state that there was.
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for id in 10..60 {
                stores.iter().for_each(|store| drop(store.sql(&format!("INSERT INTO t VALUES ({id}, 'x')"))));
            }
        });
        let made = backup();
        assert!(made.status.success(), "{made:?}");
        writing.join().expect("writes");
    });
    stores.iter().for_each(Store::wait_confirmed);
    // A copy in the lake's own place would end HQ.
    for place in [data.clone(), data.join("backup")] {
        let refused = of_directory(&["backup", place.to_str().expect("text")], &data);
        assert!(!refused.status.success() && said(&refused).contains("another place"), "{refused:?}");
    }
    // The same place takes what is new.
    let again = backup();
    assert!(again.status.success(), "{again:?}");
    let copied: serde_json::Value = serde_json::from_slice(&again.stdout).expect("json");
    let table = copied["tables"].as_array().into_iter().flatten().find(|table| table["table"] == "tables/t").cloned();
    assert_eq!(table.expect("copied")["rows"], 104, "{copied}");
    let checked = of_directory(&["lake", "check"], &copy);
    assert!(checked.status.success(), "{checked:?}");
    // What comes after the backup is confirmed, and is not in it.
    stores.iter().for_each(|store| drop(store.sql("INSERT INTO t VALUES (70, 'later'); DELETE FROM t WHERE id = 1")));
    stores.iter().for_each(Store::wait_confirmed);
    let restore =
        |arguments: &[&str]| of_directory(&[&["restore", copy.to_str().expect("text")], arguments].concat(), &data);
    let in_use = restore(&["--replace"]);
    assert!(!in_use.status.success() && said(&in_use).contains("in use"), "{in_use:?}");
    let stopped = of_directory(&["hq", "stop"], &data);
    assert!(stopped.status.success() && said(&stopped).contains("stopped"), "{stopped:?}");
    assert!(hq.is_over(), "who was told that it stopped may rely on it");
    let not_alone = restore(&[]);
    assert!(!not_alone.status.success() && said(&not_alone).contains("--replace"), "{not_alone:?}");
    let restored = restore(&["--replace"]);
    assert!(restored.status.success(), "{restored:?}");
    assert!(
        said(&restored).contains("2 sites may have sent more than this backup has: berlin-01, berlin-02"),
        "{restored:?}"
    );
    hq.restart();
    for store in &stores {
        wait_for("the site to be refused", || (store.status().0 == Some(2)).then_some(()));
    }
    assert_eq!(hq.value("SELECT count(*) FROM t").as_deref(), Some("104"));
    assert!(hq.run(&["roster", "resend", "--refused", "--reason", "restored"]).status.success());
    wait_for("every row to be here once", || {
        (hq.value("SELECT count(*) FROM t").as_deref() == Some("104")
            && hq.value("SELECT count(*) FROM t WHERE v = 'later'").as_deref() == Some("2"))
        .then_some(())
    });
    stores.iter().for_each(Store::wait_confirmed);
    assert!(hq.missing("SELECT * FROM t").is_empty());
    // A backup that is damaged, or not complete, is not restored, and nothing is moved aside for
    // it.
    assert!(of_directory(&["hq", "stop"], &hq.data).status.success());
    let files = Command::new("find").arg(copy.join("tables/t")).args(["-name", "*.parquet"]).output().expect("find");
    let file = String::from_utf8_lossy(&files.stdout).lines().next().expect("a data file").to_owned();
    let whole = std::fs::read(&file).expect("reads");
    std::fs::write(&file, vec![0; whole.len()]).expect("writes");
    let damaged = restore(&["--replace"]);
    assert!(!damaged.status.success() && said(&damaged).contains("the backup is damaged"), "{damaged:?}");
    std::fs::write(&file, whole).expect("writes");
    hq.restart();
    assert_eq!(hq.value("SELECT count(*) FROM t").as_deref(), Some("104"), "the lake is where it was");
    let empty = directory.path().join("elsewhere");
    std::fs::remove_file(copy.join("rollcall/backup.json")).expect("removes");
    let incomplete = of_directory(&["restore", copy.to_str().expect("text")], &empty);
    assert!(said(&incomplete).contains("no complete backup"), "{incomplete:?}");
}

#[test]
fn a_directory_exchanged_under_hq_is_not_written_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let store = running_store(&hq, directory.path(), "berlin-01", SCHEMA, "t");
    store.wait_confirmed();
    // Somebody copies the directory by hand, and puts the copy in place without waiting for HQ to
    // stop.
    let copy = directory.path().join("copy");
    copy_tree(&hq.data, &copy);
    store.sql("INSERT INTO t VALUES (3, 'c')");
    store.wait_confirmed();
    let listing = |of: &Path| {
        let found = Command::new("find").arg(of).args(["-type", "f", "-size", "+0"]).output().expect("find");
        let mut files: Vec<String> = String::from_utf8_lossy(&found.stdout)
            .lines()
            .map(|line| line.replace(&*of.to_string_lossy(), ""))
            .collect();
        files.sort();
        files
    };
    let before = listing(&copy);
    std::fs::rename(&hq.data, directory.path().join("old")).expect("moves");
    std::fs::rename(&copy, &hq.data).expect("moves");
    store.sql("INSERT INTO t VALUES (4, 'd')");
    wait_for("HQ to end by itself", || hq.is_over().then_some(()));
    assert!(hq.log().contains("is not the directory that this process opened"), "{}", hq.log());
    assert_eq!(listing(&hq.data), before, "nothing was written to the other one");
    hq.restart();
    wait_for("the site to be refused", || (store.status().0 == Some(2)).then_some(()));
    assert!(hq.run(&["roster", "resend", "--refused", "--reason", "restored"]).status.success());
    wait_for("every row to be here", || (hq.value("SELECT count(*) FROM t").as_deref() == Some("4")).then_some(()));
}
