//! Databases that go back in time, exist twice, or meet an HQ that went back in time.

use std::{fs, path::Path};

use crate::{
    published::publish_to,
    support::{Hq, Store, running_store, wait_for},
};

const SCHEMA: &str = "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);
    INSERT INTO t VALUES (1, 'one'), (2, 'two')";

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates");
    for entry in fs::read_dir(from).expect("lists").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// Copies a stopped store's database, and with `state` the agent's files too.
fn image(store: &Store, to: &Path, state: bool) {
    let name = store.database.file_name().expect("has a name");
    store.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    fs::create_dir_all(to).expect("creates");
    fs::copy(&store.database, to.join(name)).expect("copies");
    if state {
        let directory = format!("{}.rollcall", store.database.display());
        copy_tree(Path::new(&directory), &to.join(format!("{}.rollcall", name.to_string_lossy())));
    }
}

fn restore(store: &Store, from: &Path, state: bool) {
    let name = store.database.file_name().expect("has a name").to_string_lossy().into_owned();
    for ending in ["-wal", "-shm"] {
        // They may not exist.
        let _ = fs::remove_file(format!("{}{ending}", store.database.display()));
    }
    fs::copy(from.join(&name), &store.database).expect("copies");
    if state {
        let directory = format!("{}.rollcall", store.database.display());
        fs::remove_dir_all(&directory).expect("removes");
        copy_tree(&from.join(format!("{name}.rollcall")), Path::new(&directory));
    }
}

fn names(hq: &Hq) -> Option<String> {
    hq.value("SELECT string_agg(v, ' ' ORDER BY id) FROM t")
}

#[test]
fn a_database_restored_from_an_image_starts_a_new_epoch() {
    for with_state in [true, false] {
        let directory = tempfile::tempdir().expect("a directory");
        let hq = Hq::start(directory.path());
        let mut store = running_store(&hq, directory.path(), "seattle-01", SCHEMA, "t");
        store.wait_confirmed();
        store.stop();
        let saved = directory.path().join("image");
        image(&store, &saved, with_state);
        store.run(None);
        store.sql("INSERT INTO t VALUES (3, 'three'); UPDATE t SET v = 'TWO' WHERE id = 2");
        wait_for("the changes", || (names(&hq)? == "one TWO three").then_some(()));
        store.wait_confirmed();
        store.stop();
        restore(&store, &saved, with_state);
        // Without the agent's files restored too, the store writes on past the position that was
        // confirmed.
        let (more, expected) = if with_state {
            ("(4, 'four')", "one two four")
        } else {
            ("(4, 'four'), (5, 'five'), (6, 'six'), (7, 'seven')", "one two four five six seven")
        };
        store.sql(&format!("INSERT INTO t VALUES {more}"));
        store.run(None);
        // What people see is still the life before, and everyone is told.
        wait_for("the new life to arrive", || {
            let arrived = hq.value("SELECT count(*) FROM history.t WHERE _epoch = 2 AND v = 'four'")?;
            (arrived != "0").then_some(())
        });
        let evidence = wait_for("the incident", || hq.open_incident("new-life"));
        assert!(evidence.contains("before 3 rows") && evidence.contains("accept 2 --reason"), "{evidence}");
        assert!(evidence.contains("rows confirmed before are not in it"), "{evidence}");
        assert_eq!(names(&hq).as_deref(), Some("one TWO three"), "a store that goes back in time is no good news");
        assert_eq!(hq.missing("SELECT count(*) FROM t"), ["seattle-01 clone-or-rewind"]);
        let summary = wait_for("the site to say so", || {
            let (code, report) = store.status();
            (code == Some(2)).then(|| report["summary"].to_string())
        });
        assert!(summary.contains("clone or rewind"), "{summary}");
        let shown = hq.run(&["site", "seattle-01"]);
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.status.code() == Some(1) && text.contains("to be ruled on"), "{text}");
        if with_state {
            // A person keeps what was; then thinks better of it.
            assert!(hq.run(&["site", "seattle-01", "keep", "1", "--reason", "it is a test machine"]).status.success());
            wait_for("the incident to end", || hq.open_incident("new-life").is_none().then_some(()));
            assert_eq!(hq.missing("SELECT count(*) FROM t"), ["seattle-01 clone-or-rewind"], "it is still apart");
            assert_eq!(names(&hq).as_deref(), Some("one TWO three"));
        }
        let refused = hq.run(&["site", "seattle-01", "accept", "7", "--reason", "no such life"]);
        assert!(!refused.status.success());
        let accepted = hq.run(&["site", "seattle-01", "accept", "2", "--reason", "the disk died"]);
        assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
        wait_for("the restored rows", || (names(&hq)? == expected).then_some(()));
        wait_for("nothing to be missing", || hq.missing("SELECT count(*) FROM t").is_empty().then_some(()));
        wait_for("the incident to end", || hq.open_incident("new-life").is_none().then_some(()));
        assert_eq!(hq.value("SELECT ruling FROM rollcall.lives").as_deref(), Some("the disk died"));
        assert_eq!(hq.value("SELECT count(*) FROM history.t WHERE v = 'three' AND _epoch = 1").as_deref(), Some("1"));
        assert_eq!(hq.value("SELECT max(_epoch) FROM t").as_deref(), Some("2"));
        store.wait_confirmed();
        store.sql("DELETE FROM t WHERE id = 1");
        wait_for("life to go on", || (names(&hq)? == expected["one ".len()..]).then_some(()));
    }
}

#[test]
fn an_image_started_twice_is_fenced() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let mut store = running_store(&hq, directory.path(), "seattle-01", SCHEMA, "t");
    store.wait_confirmed();
    store.stop();
    let elsewhere = directory.path().join("clone");
    image(&store, &elsewhere, true);
    let mut clone = Store::new(&elsewhere, "seattle-01", "SELECT 1");
    store.run(None);
    clone.run(None);
    wait_for("the roll to say so", || (hq.state_of("seattle-01")["cause"] == "clone-or-rewind").then_some(()));
    wait_for("an agent to say so", || (store.status().0 == Some(2) || clone.status().0 == Some(2)).then_some(()));
}

#[test]
fn a_lake_older_than_what_it_confirmed_is_refused_until_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let store = running_store(&hq, directory.path(), "seattle-01", SCHEMA, "t");
    store.wait_confirmed();
    hq.stop();
    let backup = directory.path().join("backup");
    copy_tree(&hq.data, &backup);
    hq.restart();
    store.sql("INSERT INTO t VALUES (3, 'three')");
    wait_for("the change", || (names(&hq)? == "one two three").then_some(()));
    store.wait_confirmed();
    hq.stop();
    fs::remove_dir_all(&hq.data).expect("removes");
    copy_tree(&backup, &hq.data);
    hq.restart();
    wait_for("the site to refuse", || (store.status().0 == Some(2)).then_some(()));
    assert_eq!(names(&hq).as_deref(), Some("one two"), "nothing is merged silently");
    // Both ends say so, and what to do: it is no power cut, and nothing is on its way.
    let evidence = wait_for("HQ to say that it is refused", || hq.open_incident("refused"));
    assert!(evidence.contains("rollcall-site resend"), "{evidence}");
    let line = hq.state_of("seattle-01");
    assert!(line["state"] == "silent" && line["cause"] == "hq-refuses", "{line}");
    // One command at HQ, for all sites of which it lacks what it confirmed.
    let told = hq.run(&["roster", "resend", "--refused", "--reason", "restored from Tuesday's backup"]);
    assert!(told.status.success() && String::from_utf8_lossy(&told.stderr).contains("seattle-01"));
    wait_for("the lost change to come back", || (names(&hq)? == "one two three").then_some(()));
    store.wait_confirmed();
    assert_eq!(store.status().0, Some(0));
    wait_for("the incident to end", || hq.open_incident("refused").is_none().then_some(()));
}

#[test]
fn a_lost_state_directory_is_a_new_beginning_not_a_double() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let mut store = running_store(&hq, directory.path(), "seattle-01", SCHEMA, "t");
    store.wait_confirmed();
    store.stop();
    fs::remove_dir_all(format!("{}.rollcall", store.database.display())).expect("removes");
    store.join(hq.sites, &hq.invite("seattle-01"), "t");
    store.run(None);
    store.sql("INSERT INTO t VALUES (3, 'three')");
    wait_for("the rows, once", || (names(&hq)? == "one two three").then_some(()));
}

#[test]
fn what_cannot_be_taken_of_a_batch_holds_up_nothing_else() {
    // Goal: rows whose key cannot be told, and a table that HQ publishes, go to quarantine; all
    // else of the same batches is taken, hides nothing and stays so over restarts. Method: a store
    // whose numbers are texts, and that captures a table under HQ's name.
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    publish_to(&hq, directory.path(), "prices", "sku", "sku,price\na,1\n", &[]);
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE item (sku INT PRIMARY KEY, v TEXT); CREATE TABLE sale (id INTEGER PRIMARY KEY);
        CREATE TABLE prices (sku TEXT PRIMARY KEY, price INT); INSERT INTO prices VALUES ('mine', 1);
        INSERT INTO item VALUES (5, 'five'), ('A12', 'twelve'), ('B7', 'seven'), (NULL, 'none'); INSERT INTO sale VALUES (1), (2)";
    let mut store = running_store(&hq, directory.path(), "seattle-01", schema, "item,sale,prices");
    let sales = |count: &str| {
        wait_for("the sales", || (hq.value("SELECT count(*) FROM sale")? == count).then_some(()));
    };
    let items = || hq.value("SELECT string_agg(v, ' ' ORDER BY sku, v) FROM item");
    sales("2");
    store.wait_confirmed();
    store.sql("BEGIN; UPDATE item SET v = 'a dozen' WHERE sku = 'A12'; INSERT INTO sale VALUES (3); INSERT INTO item VALUES (6, 'six');
        UPDATE prices SET price = 2; COMMIT");
    sales("3");
    wait_for("what has a key", || (items()? == "five six a dozen seven").then_some(()));
    store.wait_confirmed();
    store.sql("UPDATE prices SET price = 3");
    store.wait_confirmed();
    let reasons = hq.value("SELECT string_agg(DISTINCT reason, ' ') FROM rollcall.quarantine").expect("a reason");
    for said in [
        "item: 1 of 4 rows could not be told apart",
        "(sku)",
        "prices: HQ publishes this table",
        "detach --table prices",
    ] {
        assert!(reasons.contains(said), "{said:?} is not in {reasons:?}");
    }
    assert_eq!(hq.value("SELECT string_agg(_site, ' ') FROM prices").as_deref(), Some("hq"));
    assert_eq!(hq.state_of("seattle-01")["cause"], "rows-not-taken");
    // Only answers about these tables lack anything.
    assert_eq!(hq.missing("SELECT count(*) FROM item"), ["seattle-01 rows-not-taken"]);
    assert_eq!(hq.missing("SELECT count(*) FROM sale"), Vec::<String>::new());
    // The last batch moved no cursor at HQ, and the site knows a position of a table that HQ has
    // none of.
    store.stop();
    store.run(None);
    store.sql("INSERT INTO sale VALUES (4)");
    sales("4");
    store.wait_confirmed();
    let detached = store.agent_command(&["detach", "--table", "prices"]).output().expect("runs");
    assert!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
    // Everything is stated anew; the sound tables are none the worse for the one that is not.
    store.stop();
    assert!(store.agent_command(&["resend"]).output().expect("runs").status.success());
    store.run(None);
    store.sql("DELETE FROM sale WHERE id = 1");
    wait_for("a new epoch", || (hq.value("SELECT max(_epoch) FROM sale")? == "2").then_some(()));
    sales("3");
    assert_eq!(items().as_deref(), Some("five six a dozen seven"));
}
