//! Joining: whatever goes wrong at whichever step, the invitation is not lost, and what is said
//! helps.

use std::{
    io::Write,
    net::TcpListener,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Hq, Store, binary, wait_for};

const SCHEMA: &str =
    "CREATE TABLE sales (id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE items (sku TEXT PRIMARY KEY, name TEXT);
    CREATE TABLE log (line TEXT); CREATE VIEW totals AS SELECT count(*) FROM sales;
    INSERT INTO sales VALUES (1, 'a'), (2, 'b'); INSERT INTO items VALUES ('x', 'thing')";

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Holds the database locked for a while, as a till that rebuilds it does.
fn lock(store: &Store, seconds: u32) -> std::process::Child {
    let script = format!(
        "import sqlite3, sys, time\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\nc.execute('BEGIN EXCLUSIVE')\n\
         print('locked', flush=True)\ntime.sleep({seconds})\n"
    );
    let child = Command::new("python3").args(["-c", &script]).arg(&store.database).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("python3");
    let mut line = [0; 7];
    std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut line).expect("locked");
    child
}

#[test]
fn a_join_that_fails_at_any_step_is_taken_up_again_with_the_same_invitation() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let mut store = Store::new(directory.path(), "berlin-01", SCHEMA);
    let token = hq.invite("berlin-01");
    let objects = "SELECT count(*) FROM sqlite_master WHERE name LIKE '%rollcall%'";
    let is_unspent = || {
        let invitations = hq.api("/api/invitations");
        assert!(invitations[0]["used_at"].is_null(), "{invitations}");
        assert_eq!(store.sql(objects), "0", "the store's file is as it was");
    };
    // Nothing listens, a table is misspelt, an address is a page's, the invitation was cut.
    let nowhere = TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound");
    let missing = store.try_join(nowhere, &token, "sales");
    assert!(!missing.status.success() && said(&missing).contains("cannot be reached"), "{missing:?}");
    for (arguments, hint) in [
        (["--hq", "HQ", "--tables", "sale"], "is \"sales\" meant"),
        (["--hq", "HQ", "--tables", "totals"], "it is a view"),
        (["--hq", "http://hq:7480", "--tables", "sales"], "that is a web address"),
        (["--hq", "HTTP", "--tables", "sales"], "another service"),
        (["--hq", "PG", "--tables", "sales"], "another service"),
        (["--hq", "no-such-host.invalid", "--tables", "sales"], "is not found"),
    ] {
        let endpoints = std::fs::read(hq.data.join("endpoints.json")).expect("written");
        let endpoints: serde_json::Value = serde_json::from_slice(&endpoints).expect("json");
        let hq_at = |text: &str| match text {
            "HQ" => hq.sites.to_string(),
            "HTTP" => hq.http().to_string(),
            "PG" => endpoints["pg"].as_str().expect("text").to_owned(),
            other => other.to_owned(),
        };
        let arguments: Vec<String> = arguments.iter().map(|argument| hq_at(argument)).collect();
        let arguments: Vec<&str> = ["join", &token].into_iter().chain(arguments.iter().map(String::as_str)).collect();
        let refused = store.agent_command(&arguments).output().expect("runs");
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        assert!(said(&refused).contains(hint), "{arguments:?}: {refused:?}");
        is_unspent();
    }
    let cut = store.try_join(hq.sites, &token[..token.len() - 9], "sales");
    assert!(said(&cut).contains("damaged"), "{cut:?}");
    // Where SQLite would write its journal there is a folder: the triggers cannot be made. Then a
    // till has the file to itself for
    // longer than one try waits.
    let in_the_way = directory.path().join("berlin-01.sqlite-journal");
    std::fs::create_dir(&in_the_way).expect("makes");
    let unwritable = store.try_join(hq.sites, &token, "sales,items");
    assert!(!unwritable.status.success(), "{unwritable:?}");
    std::fs::remove_dir(&in_the_way).expect("removes");
    is_unspent();
    let began = Instant::now();
    let mut till = lock(&store, 7);
    let waited = store.try_join(hq.sites, &token, "sales,items");
    assert!(waited.status.success(), "{waited:?}");
    assert!(began.elapsed() > Duration::from_secs(5), "it waited for the till");
    till.wait().expect("ends");
    store.run(None);
    store.wait_confirmed();
    assert_eq!(hq.value("SELECT count(*) FROM sales").as_deref(), Some("2"));
}

#[test]
fn what_breaks_off_after_the_invitation_was_spent_is_completed_by_the_same_command() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let mut store = Store::new(directory.path(), "berlin-01", SCHEMA);
    let token = hq.invite("berlin-01");
    // Where the identity is to be written there is a folder: HQ has said yes by then.
    let files = directory.path().join("berlin-01.sqlite.rollcall");
    std::fs::create_dir_all(files.join("identity.json/x")).expect("makes");
    let broken = store.try_join(hq.sites, &token, "sales,items");
    assert_eq!(broken.status.code(), Some(3), "{broken:?}");
    assert!(hq.api("/api/invitations")[0]["used_at"].is_string(), "the invitation was spent");
    std::fs::remove_dir_all(files.join("identity.json")).expect("removes");
    let (code, _) = store.status();
    let status = store.agent_command(&["status"]).output().expect("runs");
    assert!(code == Some(3) && said(&status).contains("Run the same `rollcall-site join` again"), "{status:?}");
    // Changes made meanwhile are captured; and a thief gets nothing.
    store.sql("INSERT INTO sales VALUES (3, 'c')");
    let thief = Store::new(directory.path(), "thief", SCHEMA);
    assert!(said(&thief.try_join(hq.sites, &token, "sales")).contains("used already"));
    store.join(hq.sites, &token, "sales,items");
    store.run(None);
    store.wait_confirmed();
    assert_eq!(hq.value("SELECT count(*) FROM sales").as_deref(), Some("3"));
}

#[test]
fn a_database_of_another_site_joins_only_if_a_person_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let mut first = Store::new(directory.path(), "berlin-01", SCHEMA);
    first.join(hq.sites, &hq.invite("berlin-01"), "sales,items");
    first.run(None);
    first.wait_confirmed();
    // An agent that runs is not joined a second time.
    let again = first.try_join(hq.sites, &hq.invite("berlin-01"), "sales");
    assert!(said(&again).contains("an agent runs on this database already"), "{again:?}");
    first.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    // Somebody sets up the second store by copying the first one, with the agent's files or
    // without.
    for (number, with_files) in [(2, true), (3, false)] {
        let id = format!("berlin-0{number}");
        let mut copy = Store::new(directory.path(), &id, "SELECT 1");
        std::fs::copy(&first.database, &copy.database).expect("copies");
        if with_files {
            let beside = |database: &std::path::Path| database.with_extension("sqlite.rollcall");
            crate::journals::copy_tree(&beside(&first.database), &beside(&copy.database));
        }
        let token = hq.invite(&id);
        let refused = copy.try_join(hq.sites, &token, "sales,items");
        assert!(said(&refused).contains("belongs to the site berlin-01"), "{refused:?}");
        assert_eq!(hq.api("/api/roster").as_array().map(Vec::len), Some(number), "{refused:?}");
        let hq_at = hq.sites.to_string();
        let arguments = ["join", &token, "--hq", &hq_at, "--tables", "sales,items", "--replace-site"];
        let joined = copy.agent_command(&arguments).output().expect("runs");
        assert!(joined.status.success(), "{joined:?}");
        copy.run(None);
        copy.sql(&format!("INSERT INTO sales VALUES ({number}0, 'own')"));
        copy.wait_confirmed();
        let of_copy = format!("SELECT count(*) FROM sales WHERE _site = '{id}'");
        wait_for("all rows of the copy", || (hq.value(&of_copy).as_deref() == Some("3")).then_some(()));
        assert_eq!(hq.value("SELECT count(*) FROM sales WHERE _site = 'berlin-01'").as_deref(), Some("2"));
    }
}

#[test]
fn a_new_machine_with_an_older_copy_makes_hq_show_no_less_and_sends_no_column_that_stayed_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let hq_at = hq.sites.to_string();
    let schema = "CREATE TABLE paid (id INTEGER PRIMARY KEY, card TEXT, amount INTEGER); INSERT INTO paid VALUES (1, '4111', 10)";
    let mut old = Store::new(directory.path(), "berlin-01", schema);
    let older_copy = directory.path().join("older.sqlite");
    std::fs::copy(&old.database, &older_copy).expect("copies");
    let token = hq.invite("berlin-01");
    let excluding = ["join", &token, "--hq", &hq_at, "--tables", "all", "--exclude", "paid.card"];
    assert!(old.agent_command(&excluding).output().expect("runs").status.success());
    old.run(None);
    old.sql("INSERT INTO paid VALUES (2, '4222', 20), (3, '4333', 30)");
    old.wait_confirmed();
    let sum = || hq.value("SELECT sum(amount) FROM paid");
    wait_for("all rows", || (sum()? == "60").then_some(()));
    old.kill();
    // The machine is lost. What a new one gets is older, and whoever sets it up says all that can
    // be said for it.
    let mut new = Store::new(directory.path(), "berlin-new", "SELECT 1");
    std::fs::copy(&older_copy, &new.database).expect("copies");
    let token = hq.invite("berlin-01");
    let joined = ["join", &token, "--hq", &hq_at, "--tables", "all", "--replace-site"];
    let joined = new.agent_command(&joined).output().expect("runs");
    assert!(joined.status.success(), "{joined:?}");
    assert!(said(&joined).contains("paid.card was left out before and stays out"), "{joined:?}");
    new.run(None);
    let evidence = wait_for("the question", || hq.open_incident("new-life"));
    assert!(evidence.contains("accept 2 --reason"), "{evidence}");
    assert_eq!(sum().as_deref(), Some("60"), "HQ shows no less");
    assert_eq!(hq.missing("SELECT sum(amount) FROM paid").len(), 1, "and says that it is not all");
    assert!(hq.run(&["site", "berlin-01", "accept", "2", "--reason", "the machine was lost"]).status.success());
    wait_for("the new life", || (sum()? == "10").then_some(()));
    wait_for("completeness", || hq.missing("SELECT sum(amount) FROM paid").is_empty().then_some(()));
    assert!(hq.value("SELECT count(card) FROM paid").is_none(), "no card ever came");
    // A person at the store may say otherwise.
    new.stop();
    let token = hq.invite("berlin-01");
    let including = ["join", &token, "--hq", &hq_at, "--tables", "all", "--include", "paid.card"];
    let including = new.agent_command(&including).output().expect("runs");
    assert!(including.status.success() && !said(&including).contains("stays out"), "{including:?}");
    new.run(None);
    wait_for("the cards", || (hq.value("SELECT count(card) FROM paid")? == "1").then_some(()));
}

#[test]
fn tables_are_listed_and_all_of_them_are_taken_but_some() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let mut store = Store::new(directory.path(), "berlin-01", SCHEMA);
    let listed = store.agent_command(&["tables", "--json"]).output().expect("runs");
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("json");
    let names: Vec<&str> = listed.as_array().into_iter().flatten().filter_map(|one| one["table"].as_str()).collect();
    assert_eq!(names, ["items", "log", "sales", "totals"]);
    assert_eq!((&listed[2]["rows"], &listed[0]["key"][0]), (&2.into(), &"sku".into()));
    assert!(listed[3]["problem"].as_str().is_some_and(|problem| problem.contains("view")), "{listed}");
    let (token, hq_at) = (hq.invite("berlin-01"), hq.sites.to_string());
    let misspelt = ["check", &token, "--hq", &hq_at, "--tables", "all", "--except", "logs"];
    let misspelt = store.agent_command(&misspelt).output().expect("runs");
    assert!(said(&misspelt).contains("is \"log\" meant"), "{misspelt:?}");
    // Looking changes nothing, here or there.
    let mut checked = store.agent_command(&["check", "-", "--hq", &hq_at, "--tables", "all", "--except", "log"]);
    let mut checking = checked.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runs");
    checking.stdin.take().expect("piped").write_all(token.as_bytes()).expect("writes");
    let checked = checking.wait_with_output().expect("ends");
    assert!(checked.status.success() && said(&checked).contains("ready to join as berlin-01"), "{checked:?}");
    assert!(hq.api("/api/invitations")[0]["used_at"].is_null());
    assert!(!directory.path().join("berlin-01.sqlite.rollcall").exists());
    let file = directory.path().join("token.txt");
    std::fs::write(&file, format!("\n{}\n{}\n", &token[..30], &token[30..])).expect("writes");
    let file = file.to_str().expect("text");
    let join =
        ["join", "--token-file", file, "--hq", &hq_at, "--tables", "all", "--except", "log", "--contact", "Ada, 555"];
    let joined = store.agent_command(&join).output().expect("runs");
    assert!(joined.status.success() && said(&joined).contains("tables captured: 2"), "{joined:?}");
    // In the store's folder nobody needs to say which database it is.
    let here =
        || Command::new(binary("rollcall-site")).arg("status").current_dir(directory.path()).output().expect("runs");
    let never_ran = here();
    assert_eq!(never_ran.status.code(), Some(2));
    assert!(said(&never_ran).contains("A person must act") && said(&never_ran).contains("Ada, 555"), "{never_ran:?}");
    store.run(None);
    store.wait_confirmed();
    let current = here();
    assert!(current.status.success() && said(&current).contains("berlin-01: Current"), "{current:?}");
}

#[test]
fn a_store_says_whether_it_is_current_behind_or_cut_off() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
        INSERT INTO sales SELECT i + 10, 'x' FROM n";
    let mut store = Store::new(directory.path(), "berlin-01", &format!("{SCHEMA}; {rows}"));
    store.join(hq.sites, &hq.invite("berlin-01"), "sales,items");
    let page = crate::support::free_address();
    store.run_with(&["--status-page", &page.to_string()]);
    let behind = wait_for("the store to say that it is behind", || {
        let report = store.status().1;
        (report["state"] == "behind").then_some(report)
    });
    let summary = behind["summary"].as_str().unwrap_or_default();
    assert!(summary.contains("loading rows from before") && summary.contains("% done"), "{behind}");
    assert!(behind["since"].is_string(), "{behind}");
    store.wait_confirmed();
    let got = |path: &str| {
        let got = Command::new("curl").args(["-s", &format!("http://{page}{path}")]).output().expect("curl");
        String::from_utf8_lossy(&got.stdout).into_owned()
    };
    let at_page = || got("/");
    wait_for("the store to be current", || (store.status().1["state"] == "current").then_some(()));
    wait_for("the page to say so", || at_page().contains("<h1>Current</h1>").then_some(()));
    let metrics = got("/metrics");
    assert!(metrics.contains("\nrollcall_agent_connected 1\n"), "{metrics}");
    assert!(metrics.contains("\nrollcall_agent_unconfirmed_changes 0\n"), "{metrics}");
    assert!(metrics.contains("rollcall_agent_state{state=\"current\"} 1"), "{metrics}");
    hq.kill();
    store.sql("INSERT INTO sales VALUES (3, 'c')");
    wait_for("the store to say that it is cut off", || (store.status().1["state"] == "cut-off").then_some(()));
    let said = at_page();
    assert!(said.contains("Cut off since") && !said.contains("#1a7f37"), "{said}");
    let metrics = got("/metrics");
    assert!(metrics.contains("\nrollcall_agent_connected 0\n"), "{metrics}");
    assert!(metrics.contains("\nrollcall_agent_unconfirmed_changes 1\n"), "{metrics}");
    assert!(metrics.contains("rollcall_agent_state{state=\"cut-off\"} 1"), "{metrics}");
    let text = store.agent_command(&["status"]).output().expect("runs");
    assert!(String::from_utf8_lossy(&text.stdout).contains("Cut off since"), "{text:?}");
    // A killed agent wrote that all was well; whoever asks a moment later hears what is.
    store.kill();
    let (code, report) = store.status();
    assert_eq!((code, &report["state"]), (Some(2), &"needs-a-person".into()), "{report}");
    assert!(report["summary"].as_str().is_some_and(|text| text.contains("does not run")), "{report}");
}
