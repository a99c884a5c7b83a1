//! How sites are to behave: said once at HQ, done at each site of which it is said, and known to be
//! done.

use std::process::Output;

use crate::support::{Hq, Store, running_store, wait_for};

const SHOP: &str = "PRAGMA journal_mode = WAL;
    CREATE TABLE sales (id INTEGER PRIMARY KEY, sku TEXT, note TEXT);
    CREATE TABLE returns (id INTEGER PRIMARY KEY, why TEXT);
    INSERT INTO sales VALUES (1, 'a', 'first'); INSERT INTO returns VALUES (1, 'torn'), (2, 'wrong');";

fn set(hq: &Hq, arguments: &[&str]) -> String {
    let output = hq.run(&[&["settings", "set"], arguments].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stderr)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until every site does what is said of it.
fn wait_done(hq: &Hq) -> Output {
    wait_for("every site to do what is said", || Some(hq.run(&["settings"])).filter(|output| output.status.success()))
}

fn stores(hq: &Hq, directory: &std::path::Path) -> Vec<Store> {
    let roster = directory.join("roster.csv");
    std::fs::write(&roster, "id,state,hours\nseattle,WA,24/7\nportland,OR,24/7\n").expect("writes");
    assert!(hq.run(&["roster", "import", roster.to_str().expect("text")]).status.code() != Some(3));
    let start = |id: &str| {
        let mut store = Store::new(directory, id, SHOP);
        let invited = hq.run(&["roster", "invite", id, "--new"]);
        store.join(hq.sites, text(&invited.stdout).trim(), "sales");
        store.run(None);
        store
    };
    vec![start("seattle"), start("portland")]
}

#[test]
fn what_is_captured_changes_where_hq_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let stores = stores(&hq, directory.path());
    let of_wa = ["wa", "--to", "site.state = 'WA'"];
    let told = set(&hq, &[&of_wa[..], &["--capture", "returns", "--exclude", "sales.note"]].concat());
    assert!(told.contains("applies to 1 site"), "{told}");
    wait_done(&hq);
    for store in &stores {
        store.sql("INSERT INTO sales VALUES (2, 'b', 'second')");
        store.wait_confirmed();
    }
    let rows = |sql: &str| hq.rows(sql).iter().map(ToString::to_string).collect::<Vec<_>>().join("");
    wait_for("returns of seattle alone", || {
        (rows("SELECT _site, count(*) AS n FROM returns GROUP BY 1") == r#"{"_site":"seattle","n":2}"#).then_some(())
    });
    let notes = "SELECT _site, note FROM sales WHERE id = 2 ORDER BY 1";
    wait_for("the excluded note to be missing, and no other", || {
        (rows(notes) == r#"{"_site":"portland","note":"second"}{"_site":"seattle","note":null}"#).then_some(())
    });

    // Without the rule's exclusion, what was not captured so far is loaded.
    set(&hq, &[&of_wa[..], &["--capture", "sales,returns"]].concat());
    wait_for("the note of seattle to come", || {
        (rows(notes) == r#"{"_site":"portland","note":"second"}{"_site":"seattle","note":"second"}"#).then_some(())
    });

    // What was captured because of a rule stays so without it; what is stopped is not.
    set(&hq, &[&of_wa[..], &["--stop", "returns"]].concat());
    wait_done(&hq);
    stores[0].sql("INSERT INTO returns VALUES (3, 'late'); INSERT INTO sales VALUES (3, 'c', 'third')");
    wait_for("the newest sale", || (hq.value("SELECT count(*) FROM sales WHERE id = 3")? == "1").then_some(()));
    assert_eq!(hq.value("SELECT count(*) FROM returns"), Some("2".to_owned()));
}

#[test]
fn who_does_not_do_what_is_said_is_named_with_the_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let mut stores = stores(&hq, directory.path());
    set(
        &hq,
        &[
            "all",
            "--beacon",
            "1",
            "--bandwidth",
            "8-20=64,20-8=512",
            "--hq-address",
            "hq.example:7400",
            "--log",
            "debug",
        ],
    );
    wait_done(&hq);
    let shown = hq.run(&["settings", "show", "portland"]);
    let shown = text(&shown.stdout);
    for part in ["beacon every 1 s", "64 KB/s from 8 to 20 o'clock", "log debug", "hq.example:7400"] {
        assert!(shown.contains(part), "{shown}");
    }

    // A rule with a higher rank wins where both speak.
    set(&hq, &["debug-off", "--to", "site.id = 'portland'", "--rank", "5", "--log", "warn"]);
    let shown = hq.run(&["settings", "show", "portland"]);
    assert!(text(&shown.stdout).contains("log warn") && text(&shown.stdout).contains("beacon every 1 s"));

    // A table that is not there; another version of the agent.
    set(&hq, &["more", "--to", "site.state = 'OR'", "--capture", "stock"]);
    let named = |what: &str| {
        wait_for(what, || {
            let output = hq.run(&["settings"]);
            let out = text(&output.stdout);
            (output.status.code() == Some(1) && out.contains(what)).then_some(out)
        })
    };
    let out = named("stock");
    assert!(out.contains("portland") && !out.contains("│ seattle"), "{out}");
    wait_for("an incident that names the site", || {
        let all = hq.api("/api/incidents");
        all.to_string().contains("has not taken its settings: portland").then_some(())
    });
    stores[1].sql("CREATE TABLE stock (sku TEXT PRIMARY KEY, n INTEGER); INSERT INTO stock VALUES ('a', 7)");
    wait_for("the table that is there now", || (hq.value("SELECT n FROM stock")? == "7").then_some(()));
    wait_done(&hq);
    set(&hq, &["version", "--agent", "99.1.0"]);
    named("99.1.0 is wanted");
    wait_for("the site to say so too", || {
        let (code, report) = stores[0].status();
        (code == Some(0) && report["summary"].as_str()?.contains("HQ wants agent 99.1.0")).then_some(())
    });
    assert!(hq.run(&["settings", "remove", "version"]).status.success());
    wait_done(&hq);

    // A site that was away hears of it when it is back.
    stores[0].stop();
    set(&hq, &["night", "--to", "site.state = 'WA'", "--bandwidth", "16"]);
    named("seattle");
    stores[0].run(None);
    wait_done(&hq);

    for (wrong, why) in [
        (&["x", "--beacon", "3000"][..], "must be 1 to"),
        (&["x", "--to", "site.statt = 'WA'"], "statt"),
        (&["x", "--to", "random() > 0.5"], "another answer each time"),
        (&["x", "--bandwidth", "8-25=3"], "hours from 0 to 24"),
        (&["x:y"], "no name for a rule"),
        (&["x", "--capture", "a", "--stop", "a"], "cannot be captured and not be captured"),
    ] {
        let output = hq.run(&[&["settings", "set"], wrong].concat());
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{wrong:?}: {said}");
    }
}

#[test]
fn a_table_that_a_site_captures_no_longer_is_missing_until_a_person_says_that_it_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let schema = "CREATE TABLE sale (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO sale VALUES (1, 'a');
        CREATE TABLE item (id INTEGER PRIMARY KEY); INSERT INTO item VALUES (1);";
    let [first, other] =
        ["boston-01", "seattle-01"].map(|id| running_store(&hq, directory.path(), id, schema, "sale,item"));
    for store in [&first, &other] {
        store.wait_confirmed();
    }
    wait_for("completeness", || hq.missing("SELECT count(*) FROM sale").is_empty().then_some(()));
    assert!(first.agent_command(&["detach", "--table", "sale"]).status().expect("runs").success());
    first.sql("INSERT INTO sale VALUES (2, 'nobody hears of it')");
    wait_for("it is missing", || {
        (hq.missing("SELECT count(*) FROM sale") == ["boston-01 capture-stuck"]).then_some(())
    });
    assert!(hq.missing("SELECT count(*) FROM item").is_empty(), "another table is as it was");
    let evidence = wait_for("an incident", || hq.open_incident("quarantined"));
    assert!(evidence.contains("boston-01 does not capture sale any more"), "{evidence}");
    // That outlasts a restart.
    hq.kill();
    hq.restart();
    wait_for("it is missing still", || {
        (hq.missing("SELECT count(*) FROM sale") == ["boston-01 capture-stuck"]).then_some(())
    });
    let id =
        hq.value("SELECT id FROM rollcall.incidents WHERE kind = 'quarantined' AND closed_at IS NULL").expect("an id");
    assert!(hq.run(&["incidents", "normal", &id, "--by", "ada"]).status.success());
    wait_for("it is accounted for", || hq.missing("SELECT count(*) FROM sale").is_empty().then_some(()));
}
