//! The store's side never says "fine" when it is not: each kind of trouble from both ends. The rows
//! at HQ are compared with the store's one by one; an incident must be there while something is
//! wrong and gone when it is known to be mended.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Hq, Store, faketime, off_by, running_store, wait_for};

/// Runs Python, which has SQLite's backup, serialize and collations; what follows the script is
/// `sys.argv[1…]`.
fn python(script: &str, arguments: &[&Path]) {
    let output = Command::new("python3")
        .arg("-c")
        .arg(format!("import sqlite3, sys\n{script}"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("python3 is needed by these tests");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until HQ has exactly the store's rows, each as often as the store has it.
fn same_rows(hq: &Hq, store: &Store, table: &str, columns: &str) {
    let quoted: Vec<String> = columns.split(',').map(|column| format!("quote({column})")).collect();
    let of_store = || {
        let mut rows: Vec<String> =
            store.sql(&format!("SELECT {} FROM {table}", quoted.join("||'|'||"))).lines().map(str::to_owned).collect();
        rows.sort();
        rows
    };
    let cast: Vec<String> =
        columns.split(',').map(|column| format!("coalesce(CAST({column} AS VARCHAR), 'NULL')")).collect();
    let sql = format!("SELECT {} AS one FROM {table}", cast.join("||'|'||"));
    let mut last = (Vec::new(), Vec::new());
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(90) {
        let unquoted: Vec<String> = of_store().iter().map(|row| row.replace('\'', "")).collect();
        let mut here: Vec<String> = match hq.value(&format!("SELECT count(*) FROM {table}")) {
            Some(_) => hq.rows(&sql).iter().map(|row| row["one"].as_str().unwrap_or("NULL").to_owned()).collect(),
            None => Vec::new(),
        };
        here.sort();
        if here == unquoted {
            return;
        }
        last = (here, unquoted);
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("HQ has {:?}, the store {:?}", last.0, last.1);
}

#[test]
fn a_table_without_a_key_has_the_stores_rows_and_no_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE sales (a, b); INSERT INTO sales VALUES (1, 'x')";
    let mut store = Store::new(directory.path(), "seattle-01", schema);
    store.join(hq.sites, &hq.invite("seattle-01"), "sales");
    store.sql(
        "INSERT INTO sales VALUES (2, 'y'); INSERT INTO sales VALUES (2, 'y'); UPDATE sales SET b = 'z' WHERE a = 1",
    );
    store.run(None);
    same_rows(&hq, &store, "sales", "a,b");
    store.sql(
        "DELETE FROM sales WHERE rowid = 2; VACUUM; INSERT INTO sales VALUES (3, 'w'); UPDATE sales SET b = b || '!'",
    );
    same_rows(&hq, &store, "sales", "a,b");
    assert_eq!(hq.open_incident("restated"), None);
}

#[test]
fn a_database_that_goes_back_in_time_under_a_running_agent_is_told_and_nothing_is_mixed() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY, total DECIMAL(10,2));
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 51) INSERT INTO sales SELECT i, 10 FROM n";
    let store = running_store(&hq, directory.path(), "seattle-01", schema, "sales");
    same_rows(&hq, &store, "sales", "id");
    let saved = directory.path().join("saved.sqlite");
    let backup = "sqlite3.connect(sys.argv[1], timeout=20).backup(sqlite3.connect(sys.argv[2], timeout=20))";
    python(backup, &[&store.database, &saved]);
    store.sql("WITH RECURSIVE n(i) AS (SELECT 52 UNION ALL SELECT i + 1 FROM n WHERE i < 151) INSERT INTO sales SELECT i, 100 FROM n");
    same_rows(&hq, &store, "sales", "id");
    store.wait_confirmed();
    // SQLite's own backup, into the live file; then the store sells on, past the position that was
    // confirmed.
    python(backup, &[&saved, &store.database]);
    store.sql("WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 1399) INSERT INTO sales SELECT i, 1 FROM n");
    let evidence = wait_for("the incident", || hq.open_incident("new-life"));
    let said = |evidence: &str| evidence.contains("before 151 rows, total 10510.00; now 451 rows, total 910.00");
    wait_for(&format!("both lives to be counted, after {evidence}"), || {
        said(&hq.open_incident("new-life")?).then_some(())
    });
    let turnover = "SELECT CAST(sum(total) AS VARCHAR) FROM sales";
    assert_eq!(hq.value(turnover).as_deref(), Some("10510.00"));
    assert_eq!(hq.missing(turnover), ["seattle-01 clone-or-rewind"]);
    let accepted = hq.run(&["site", "seattle-01", "accept", "2", "--reason", "restored from Monday's backup"]);
    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    same_rows(&hq, &store, "sales", "id");
    assert_eq!(hq.value(turnover).as_deref(), Some("910.00"));
    wait_for("nothing to be missing", || hq.missing(turnover).is_empty().then_some(()));
}

#[test]
fn a_program_that_writes_the_whole_file_at_each_save_cannot_be_captured_and_everybody_hears_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema = "CREATE TABLE sales (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO sales VALUES (1, 'a')";
    let store = running_store(&hq, directory.path(), "seattle-01", schema, "sales");
    same_rows(&hq, &store, "sales", "id");
    store.wait_confirmed();
    // As sql.js does: the file is read once, and each save writes all of it in place. What the
    // agent wrote meanwhile is gone.
    let memory = directory.path().join("memory");
    std::fs::copy(&store.database, &memory).expect("copies");
    let save = "db = sqlite3.connect(':memory:'); db.deserialize(open(sys.argv[2], 'rb').read())
db.execute(\"INSERT INTO sales SELECT max(id) + 1, 'b' FROM sales\"); db.commit()
image = db.serialize(); open(sys.argv[1], 'r+b').write(image); open(sys.argv[2], 'wb').write(image)";
    let problem = wait_for("the agent to give up on it", || {
        python(save, &[&store.database, &memory]);
        std::thread::sleep(Duration::from_secs(2));
        let (code, report) = store.status();
        let summary = report["summary"].as_str().unwrap_or_default().to_owned();
        (code == Some(2) && summary.contains("whole file")).then_some(summary)
    });
    assert!(problem.contains("capture stuck"), "the cause in HQ's words: {problem}");
    let evidence = wait_for("HQ to hear so", || hq.open_incident("capture"));
    assert!(evidence.contains("whole file"), "{evidence}");
    wait_for("answers to say so", || (hq.missing("SELECT count(*) FROM sales").len() == 1).then_some(()));
}

#[test]
fn rows_past_the_triggers_are_an_incident_until_they_are_here() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE items (sku TEXT PRIMARY KEY, v TEXT); INSERT INTO items VALUES ('a', 'x')";
    let store = running_store(&hq, directory.path(), "seattle-01", schema, "items");
    same_rows(&hq, &store, "items", "sku,v");
    // The agent has counted the rows once a load is complete.
    wait_for("the first count", || {
        (store.sql("SELECT count(*) FROM _rollcall_meta WHERE k = 'counted:items'") == "1").then_some(())
    });
    let past =
        ".dbconfig enable_trigger off\nINSERT INTO items VALUES ('unseen', 'y'); DELETE FROM items WHERE sku = 'none';";
    let mut shell = Command::new("sqlite3").arg(&store.database).stdin(Stdio::piped()).spawn().expect("runs");
    std::io::Write::write_all(&mut shell.stdin.take().expect("piped"), past.as_bytes()).expect("writes");
    assert!(shell.wait().expect("ends").success());
    store.sql("INSERT INTO items VALUES ('seen', 'z')");
    same_rows(&hq, &store, "items", "sku,v");
    let evidence = wait_for("the incident to be over", || hq.ended_incident("restated"));
    assert!(evidence.contains("2 rows before, 3 after"), "{evidence}");
    assert!(evidence.contains("passed by the triggers"), "{evidence}");
    wait_for("nothing to be open", || {
        (hq.open_incident("restated").is_none() && hq.open_incident("manifest").is_none()).then_some(())
    });
    assert_eq!(hq.value("SELECT reason FROM rollcall.restated").as_deref(), Some("bypassed"));
}

#[test]
fn tables_of_ours_that_a_schema_tool_drops_are_back_within_seconds_and_everybody_hears_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO sales VALUES (1, 'a')";
    let mut store = running_store(&hq, directory.path(), "seattle-01", schema, "sales");
    same_rows(&hq, &store, "sales", "id,v");
    store.wait_confirmed();
    store.sql("DROP TABLE _rollcall_noted");
    wait_for("the store to sell again", || try_insert(&store, 2).then_some(()));
    same_rows(&hq, &store, "sales", "id,v");
    wait_for("the incident to have been", || hq.ended_incident("restated"));
    // All of them: the journal is another one from then on, and has all that was confirmed.
    store.sql(
        "DROP TABLE _rollcall_journal; DROP TABLE _rollcall_noted; DROP TABLE _rollcall_layout;
        DROP TABLE _rollcall_load; DROP TABLE _rollcall_meta",
    );
    wait_for("the store to sell again", || try_insert(&store, 3).then_some(()));
    same_rows(&hq, &store, "sales", "id,v");
    wait_for("HQ to find that nothing is missing", || {
        (hq.value("SELECT state FROM rollcall.lives")? == "accepted").then_some(())
    });
    wait_for("nothing to be missing", || hq.missing("SELECT count(*) FROM sales").is_empty().then_some(()));
    // While no agent runs nobody makes them again; the triggers come off all the same.
    store.stop();
    store.sql("DROP TABLE _rollcall_journal; DROP TABLE _rollcall_meta");
    assert!(!try_insert(&store, 4));
    let detached = store.agent_command(&["detach"]).output().expect("runs");
    assert!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
    assert!(try_insert(&store, 4));
}

fn try_insert(store: &Store, id: u32) -> bool {
    let sql = format!("INSERT INTO sales VALUES ({id}, 'b')");
    Command::new("sqlite3").arg(&store.database).arg(sql).stderr(Stdio::null()).status().expect("runs").success()
}

#[test]
fn keys_and_names_that_hq_would_take_for_one_stay_two() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema = "PRAGMA journal_mode = WAL;
        CREATE TABLE untyped (k PRIMARY KEY NOT NULL, v TEXT); INSERT INTO untyped VALUES (1, 'number'), ('1', 'text');
        CREATE TABLE times (at DATETIME PRIMARY KEY, v TEXT);
        INSERT INTO times VALUES ('2026-03-08 02:30:00', 'never'), ('2026-03-08 03:30:00', 'half past three');
        CREATE TABLE prices (p DECIMAL(10,2) PRIMARY KEY, v TEXT); INSERT INTO prices VALUES (7, 'seven'), ('7' || char(160), 'odd');
        CREATE TABLE \"Größe\" (id INTEGER PRIMARY KEY, _seq TEXT, _misfit TEXT, doubled INT AS (id * 2)); INSERT INTO \"Größe\" VALUES (1, 'own', 'mine')";
    let store = running_store(&hq, directory.path(), "seattle-01", schema, "untyped,times,prices,Größe");
    store.wait_confirmed();
    let values = |table: &str| hq.value(&format!("SELECT string_agg(v, ', ' ORDER BY v) FROM {table}"));
    wait_for("both keys", || (values("untyped")? == "number, text").then_some(()));
    wait_for("both times", || (values("times")? == "half past three, never").then_some(()));
    wait_for("both prices", || (values("prices")? == "odd, seven").then_some(()));
    store.sql("UPDATE untyped SET v = 'NUMBER' WHERE k = 1; DELETE FROM untyped WHERE k = '1'; UPDATE times SET v = 'NEVER' WHERE v = 'never';
        UPDATE prices SET v = 'ODD' WHERE v = 'odd'");
    wait_for("one of each", || (values("untyped")? == "NUMBER").then_some(()));
    wait_for("one changed", || (values("times")? == "NEVER, half past three").then_some(()));
    wait_for("one changed", || (values("prices")? == "ODD, seven").then_some(()));
    let own = hq.rows("SELECT id, _seq_, _misfit_, doubled FROM groesse");
    assert_eq!(own, [serde_json::json!({"id": 1, "_seq_": "own", "_misfit_": "mine", "doubled": 2})]);
    let shown = hq.rows("SELECT column_name, name_at_site FROM rollcall.columns WHERE column_name = '_seq_'");
    assert_eq!(shown[0]["name_at_site"], "_seq");
    assert_eq!(hq.value("SELECT count(*) FROM rollcall.quarantine").as_deref(), Some("0"));
}

#[test]
fn a_column_whose_values_fit_no_more_is_told_and_retyped_with_its_history() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY, price INTEGER); INSERT INTO sales VALUES (1, 3), (2, 4)";
    let store = running_store(&hq, directory.path(), "seattle-01", schema, "sales");
    same_rows(&hq, &store, "sales", "id");
    // A migration as ORMs do it: a new table, the rows copied, renamed into place.
    store.sql(
        "CREATE TABLE sales_new (id INTEGER PRIMARY KEY, price DECIMAL(10,2)); INSERT INTO sales_new SELECT * FROM sales;
         DROP TABLE sales; ALTER TABLE sales_new RENAME TO sales",
    );
    wait_for("capture to go on", || {
        (store.sql("SELECT count(*) FROM sqlite_master WHERE name = '_rollcall_ai_sales'") == "1").then_some(())
    });
    store.sql("WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 32) INSERT INTO sales SELECT i, 2.25 FROM n");
    same_rows(&hq, &store, "sales", "id");
    let evidence = wait_for("the incident", || hq.open_incident("misfit"));
    assert!(evidence.contains("30 values of sales.price are no long"), "{evidence}");
    assert!(evidence.contains("rollcall tables retype sales price 'decimal(21,2)'"), "{evidence}");
    let sum = "SELECT CAST(sum(price) AS VARCHAR) FROM sales";
    let answer = hq.run(&["sql", sum]);
    let told = String::from_utf8_lossy(&answer.stderr).into_owned() + &String::from_utf8_lossy(&answer.stdout);
    assert!(told.contains("30 values of sales.price are no long and are not in this answer"), "{told}");
    assert_eq!(answer.status.code(), Some(1), "an answer that lacks values is not complete");
    let other = hq.run(&["sql", "SELECT count(*) FROM sales"]);
    let told = String::from_utf8_lossy(&other.stderr).into_owned() + &String::from_utf8_lossy(&other.stdout);
    assert!(!told.contains("are not in this answer"), "this one does not read the column: {told}");
    // A person may account for them; more of them are told again.
    let open = "SELECT id FROM rollcall.incidents WHERE kind = 'misfit' AND closed_at IS NULL";
    let id = hq.value(open).expect("an incident");
    assert!(hq.run(&["incidents", "normal", &id, "--by", "Ada"]).status.success());
    wait_for("it to be over", || hq.open_incident("misfit").is_none().then_some(()));
    wait_for("a complete answer, which says so", || (hq.run(&["sql", sum]).status.code() == Some(0)).then_some(()));
    store.sql("INSERT INTO sales VALUES (33, 2.25)");
    wait_for("the next one", || hq.open_incident("misfit").filter(|evidence| evidence.contains("31 values")));
    store.sql("DELETE FROM sales WHERE id = 33");
    same_rows(&hq, &store, "sales", "id");
    assert!(!hq.run(&["tables", "retype", "sales", "price", "boolean"]).status.success());
    let retyped = hq.run(&["tables", "retype", "sales", "price", "decimal(21,2)"]);
    assert!(retyped.status.success(), "{}", String::from_utf8_lossy(&retyped.stderr));
    assert_eq!(hq.value(sum).as_deref(), Some("74.50"), "3 + 4 + 30 times 2.25");
    assert_eq!(hq.value("SELECT count(*) FROM history.sales WHERE _misfit IS NOT NULL").as_deref(), Some("0"));
    wait_for("the incident to end", || hq.open_incident("misfit").is_none().then_some(()));
    store.sql("INSERT INTO sales VALUES (99, 1.5)");
    wait_for("the next price", || (hq.value(sum)? == "76.00").then_some(()));
    // One odd value is no incident, and spoils no sum; every answer that lacks it says so.
    store.sql("WITH RECURSIVE n(i) AS (SELECT 101 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO sales SELECT i, 0 FROM n");
    store.sql("INSERT INTO sales VALUES (100, 'a gift')");
    let told = wait_for("the answer to say so", || {
        let answer = hq.run(&["sql", sum]);
        let told = String::from_utf8_lossy(&answer.stderr).into_owned() + &String::from_utf8_lossy(&answer.stdout);
        told.contains("1 value of sales.price is no decimal(21,2)").then_some((answer.status.code(), told))
    });
    assert_eq!(told.0, Some(0), "{}", told.1);
    assert!(hq.open_incident("misfit").is_none());
}

#[test]
fn the_agent_waits_for_a_till_that_has_the_file_to_itself_and_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start_unhurried(directory.path());
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY, v TEXT)";
    let mut store = Store::new(directory.path(), "seattle-01", schema);
    store.join(hq.sites, &hq.invite("seattle-01"), "sales");
    let has_it = |database: &Path, row: u32| {
        let mut till = Command::new("sqlite3").arg(database).stdin(Stdio::piped()).spawn().expect("runs");
        let mut input = till.stdin.take().expect("piped");
        let takes = format!("PRAGMA locking_mode = EXCLUSIVE; INSERT INTO sales VALUES ({row}, 'a');\n");
        std::io::Write::write_all(&mut input, format!(".timeout 5000\n{takes}").as_bytes()).expect("writes");
        std::thread::sleep(Duration::from_millis(500));
        (till, input)
    };
    let (mut till, input) = has_it(&store.database, 1);
    store.run(None);
    let evidence = wait_for("HQ to hear what is wrong", || hq.open_incident("capture"));
    assert!(evidence.contains("locked"), "{evidence}");
    assert_eq!(hq.state_of("seattle-01")["cause"], "capture-stuck");
    let (code, report) = store.status();
    assert_eq!(code, Some(2), "{report}");
    assert!(report["summary"].as_str().unwrap_or_default().contains("capture stuck"), "{report}");
    drop(input);
    assert!(till.wait().expect("ends").success());
    same_rows(&hq, &store, "sales", "id,v");
    wait_for("the incident to end", || hq.open_incident("capture").is_none().then_some(()));
    // Under an agent that is connected it is the same.
    let (mut till, input) = has_it(&store.database, 2);
    let evidence = wait_for("HQ to hear it again", || hq.open_incident("capture"));
    assert!(evidence.contains("locked"), "{evidence}");
    drop(input);
    assert!(till.wait().expect("ends").success());
    same_rows(&hq, &store, "sales", "id,v");
    wait_for("the second incident to end", || hq.open_incident("capture").is_none().then_some(()));
}

#[test]
fn a_backup_put_in_place_while_the_store_is_closed_is_what_the_store_finds() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start_unhurried(directory.path());
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO sales VALUES (1, 'a')";
    let store = running_store(&hq, directory.path(), "seattle-01", schema, "sales");
    same_rows(&hq, &store, "sales", "id,v");
    store.wait_confirmed();
    let wal = format!("{}-wal", store.database.display());
    let is_folded = || std::fs::metadata(&wal).map_or(true, |wal| wal.len() == 0);
    // The last program has closed; the agent lets go within seconds.
    wait_for("the WAL to be folded", || is_folded().then_some(()));
    let saved = directory.path().join("saved");
    assert!(store.agent_command(&["pause", "--minutes", "5"]).output().expect("runs").status.success());
    wait_for("the agent to pause", || {
        store.status().1["summary"].as_str().unwrap_or_default().contains("pause").then_some(())
    });
    std::fs::copy(&store.database, &saved).expect("copies");
    store.sql("INSERT INTO sales VALUES (2, 'b')");
    wait_for("the WAL to be folded", || is_folded().then_some(()));
    assert!(!store.log().contains("no connection to HQ"), "{}", store.log());
    std::fs::copy(&saved, &store.database).expect("copies");
    assert_eq!(store.sql("SELECT group_concat(id) FROM sales"), "1", "the restore is not undone");
    store.sql("INSERT INTO sales VALUES (3, 'c')");
    assert!(store.agent_command(&["resume"]).output().expect("runs").status.success());
    same_rows(&hq, &store, "sales", "id,v");
    assert_eq!(hq.open_incident("new-life"), None, "what was confirmed is all there");
}

#[test]
fn a_link_that_is_switched_is_noticed_and_the_agent_is_still_who_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let mut store = Store::new(directory.path(), "seattle-01", "SELECT 1");
    let real = directory.path().join("data-2026.sqlite");
    std::fs::rename(&store.database, &real).expect("renames");
    std::os::unix::fs::symlink(&real, &store.database).expect("links");
    store.sql("PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO sales VALUES (1, 'a')");
    store.join(hq.sites, &hq.invite("seattle-01"), "sales");
    store.run(None);
    same_rows(&hq, &store, "sales", "id,v");
    store.wait_confirmed();
    let other = directory.path().join("data-2027.sqlite");
    let make = Command::new("sqlite3").arg(&other).arg("CREATE TABLE sales (id INTEGER PRIMARY KEY, v TEXT)").status();
    assert!(make.expect("runs").success());
    std::fs::remove_file(&store.database).expect("removes");
    std::os::unix::fs::symlink(&other, &store.database).expect("links");
    wait_for("the agent to say so", || (store.status().0 == Some(2)).then_some(()));
    wait_for("HQ to hear so", || hq.open_incident("capture"));
    store.stop();
    store.run(None);
    // After a restart it still knows whose agent it is, and says that the new file is not captured.
    wait_for("HQ to hear of it again", || (hq.state_of("seattle-01")["cause"] == "capture-stuck").then_some(()));
    assert!(!store.log().contains("was `rollcall-site join` run"), "{}", store.log());
    std::fs::remove_file(&store.database).expect("removes");
    std::os::unix::fs::symlink(&real, &store.database).expect("links");
    store.sql("INSERT INTO sales VALUES (2, 'b')");
    same_rows(&hq, &store, "sales", "id,v");
    wait_for("the incident to end", || hq.open_incident("capture").is_none().then_some(()));
}

#[test]
fn a_clock_that_is_years_off_locks_no_store_out() {
    let Some(library) = faketime() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO sales VALUES (1, 'a')";
    let mut store = Store::new(directory.path(), "seattle-01", schema);
    store.join(hq.sites, &hq.invite("seattle-01"), "sales");
    for years in ["-9y", "+9y"] {
        store.run_as(off_by(years, &library, store.agent_command(&["run"])));
        store.sql(&format!("INSERT INTO sales VALUES ({}, 'b')", if years == "-9y" { 2 } else { 3 }));
        same_rows(&hq, &store, "sales", "id,v");
        let evidence = wait_for("HQ to say that it is the clock", || hq.open_incident("clock"));
        assert!(evidence.contains("is off by"), "{evidence}");
        assert!(hq.open_incident("manifest").is_none(), "a clock makes no rows pass by the triggers");
        store.kill();
    }
    store.run(None);
    store.sql("INSERT INTO sales VALUES (4, 'c')");
    same_rows(&hq, &store, "sales", "id,v");
    wait_for("the incident to end", || hq.open_incident("clock").is_none().then_some(()));
}

#[test]
fn trouble_with_one_table_is_that_tables_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY, v TEXT);
        CREATE TABLE odd (k TEXT PRIMARY KEY, a_b TEXT) WITHOUT ROWID; INSERT INTO odd VALUES (CAST(x'ff' AS TEXT), 'odd'), ('plain', 'plain')";
    let store = running_store(&hq, directory.path(), "seattle-01", schema, "sales,odd");
    wait_for("a key that is no text", || {
        (hq.value("SELECT string_agg(a_b, ' ' ORDER BY a_b) FROM odd")? == "odd plain").then_some(())
    });
    store.wait_confirmed();
    // A column that would have another one's name at HQ.
    store.sql("ALTER TABLE odd ADD COLUMN \"a b\" TEXT; INSERT INTO odd VALUES ('more', 'more', 'x'); INSERT INTO sales VALUES (1, 'a')");
    let evidence = wait_for("HQ to hear so", || hq.open_incident("capture"));
    assert!(evidence.contains("would both be called a_b"), "{evidence}");
    wait_for("the store to say so", || {
        let (code, report) = store.status();
        let summary = report["summary"].as_str().unwrap_or_default();
        (code == Some(2) && summary.contains("would both be called a_b")).then_some(())
    });
    same_rows(&hq, &store, "sales", "id,v");
    wait_for("the table to be named as missing", || {
        (hq.missing("SELECT count(*) FROM odd") == ["seattle-01 capture-stuck"]).then_some(())
    });
    assert_eq!(hq.missing("SELECT count(*) FROM sales"), Vec::<String>::new(), "the other table is none the worse");
    let excluded = store.agent_command(&["detach", "--table", "odd"]).output().expect("runs");
    assert!(excluded.status.success());
    store.sql("ALTER TABLE odd DROP COLUMN \"a b\"");
    wait_for("the incident to end", || hq.open_incident("capture").is_none().then_some(()));
}

#[test]
fn a_trigger_of_the_stores_that_runs_first_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO sales VALUES (1, 'a')";
    let store = running_store(&hq, directory.path(), "seattle-01", schema, "sales");
    same_rows(&hq, &store, "sales", "id,v");
    store.sql("CREATE TRIGGER stop AFTER INSERT ON sales BEGIN SELECT RAISE(IGNORE); END; INSERT INTO sales VALUES (2, 'unseen')");
    let evidence = wait_for("the incident to have been", || hq.ended_incident("restated"));
    assert!(evidence.contains("a newer trigger of the store's"), "{evidence}");
    same_rows(&hq, &store, "sales", "id,v");
    store.sql("INSERT INTO sales VALUES (3, 'seen')");
    same_rows(&hq, &store, "sales", "id,v");
}

#[test]
fn after_an_update_what_may_be_wrong_is_stated_again_once_and_nobody_is_called() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema =
        "PRAGMA journal_mode = WAL; CREATE TABLE keyless (v TEXT); CREATE TABLE sales (id INTEGER PRIMARY KEY);
        INSERT INTO keyless VALUES ('a'), ('a'); INSERT INTO sales VALUES (1)";
    let mut store = running_store(&hq, directory.path(), "seattle-01", schema, "keyless,sales");
    same_rows(&hq, &store, "keyless", "v");
    store.wait_confirmed();
    store.stop();
    // As an agent before 0.2 leaves its notes.
    let notes = format!("{}.rollcall/state.sqlite", store.database.display());
    let forget = Command::new("sqlite3").arg(notes).arg("DELETE FROM kv WHERE k = 'format'").status();
    assert!(forget.expect("runs").success());
    for _ in 0..2 {
        store.run(None);
        let restated =
            "SELECT table_name || ' ' || reason || ' ' || rows_before || ' ' || rows_after FROM rollcall.restated";
        wait_for("the table to be stated again", || (hq.value(restated)? == "keyless update 2 2").then_some(()));
        assert_eq!(hq.value("SELECT count(*) FROM rollcall.restated").as_deref(), Some("1"));
        same_rows(&hq, &store, "keyless", "v");
        store.wait_confirmed();
        store.stop();
    }
    let begun = store.sql("SELECT count(*) FROM _rollcall_journal WHERE t = 0 AND op = 'B' AND c1 = 'update'");
    assert_eq!(begun, "1", "once");
    assert_eq!(hq.value("SELECT count(*) FROM rollcall.incidents WHERE kind = 'restated'").as_deref(), Some("0"));
}

#[test]
fn a_disk_without_a_byte_left_is_told_by_an_agent_that_starts_on_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = directory.path().join("small");
    std::fs::create_dir_all(&small).expect("creates");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&small).output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        eprintln!("no file system can be mounted here: the test of a full disk is left out");
        return;
    }
    let hq = Hq::start(directory.path());
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO sales VALUES (1, 'a')";
    let mut store = running_store(&hq, &small, "seattle-01", schema, "sales");
    same_rows(&hq, &store, "sales", "id,v");
    store.wait_confirmed();
    store.stop();
    let filler = small.join("filler");
    let fill = || {
        // Until not a byte is left; the last write fails.
        let _ = Command::new("dd").args(["if=/dev/zero", "bs=512"]).arg(format!("of={}", filler.display())).output();
    };
    fill();
    // Its log is elsewhere: that disk has room.
    let mut command = store.agent_command(&["run"]);
    command.env("ROLLCALL_LOG", "info");
    store.run_as_logging(command, &directory.path().join("agent.log"));
    let evidence = wait_for("HQ to hear that it is the disk", || hq.open_incident("disk"));
    std::thread::sleep(Duration::from_secs(3));
    assert!(hq.open_incident("disk").is_some(), "a disk that is full to the last byte is no end of it: {evidence}");
    let agent = store.agent.as_mut().expect("runs");
    assert!(!agent.is_over(), "the agent goes on");
    std::fs::remove_file(&filler).expect("removes");
    store.sql("INSERT INTO sales VALUES (2, 'b')");
    same_rows(&hq, &store, "sales", "id,v");
    store.stop();
    let _ = Command::new("umount").arg(&small).output();
}

#[test]
fn what_lies_beside_the_database_is_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY)";
    let store = running_store(&hq, directory.path(), "seattle-01", schema, "sales");
    store.wait_confirmed();
    let beside = format!("{}.rollcall", store.database.display());
    let mode = |path: &Path| std::fs::metadata(path).expect("is there").permissions().mode() & 0o077;
    assert_eq!(mode(Path::new(&beside)), 0);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&beside).expect("lists").flatten() {
        assert_eq!(mode(&entry.path()), 0, "{:?}", entry.path());
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    for name in ["identity.json", "state.sqlite", "status.json"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_path_that_is_no_text_is_a_path_like_others() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let odd = directory.path().join(OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir_all(&odd).expect("creates");
    let schema = "PRAGMA journal_mode = WAL; CREATE TABLE sales (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO sales VALUES (1, 'a')";
    let store = running_store(&hq, &odd, "seattle-01", schema, "sales");
    same_rows(&hq, &store, "sales", "id,v");
}
