//! Any client of PostgreSQL can ask, and hears what its answer is missing.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use crate::support::{Hq, Store, running_store, wait_for};

const SCHEMA: &str = "CREATE TABLE sales (id INTEGER PRIMARY KEY, qty INTEGER, sold_at DATETIME);
    INSERT INTO sales VALUES (1, 5, '2026-01-10 10:00:00'), (2, 7, '2026-02-10 10:00:00')";

pub(crate) fn psql(hq: &Hq, user: &str, password: &str, script: &str) -> Output {
    let mut psql = Command::new("psql");
    psql.env("PGPASSWORD", password).args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
    psql.args(["-h", &hq.pg.ip().to_string(), "-p", &hq.pg.port().to_string(), "-U", user, "-d", "hq"]);
    let mut child = psql
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the psql command is needed by these tests: install postgresql-client");
    child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("psql reads");
    child.wait_with_output().expect("ends")
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

pub(crate) fn new_user(hq: &Hq, arguments: &[&str]) -> String {
    let output = hq.run(&[&["users", "set"], arguments].concat());
    assert!(output.status.success(), "{}", err(&output));
    out(&output)
}

/// Two stores in Washington and one in Oregon; one of Washington was never heard.
fn world(hq: &Hq, directory: &std::path::Path) -> Vec<Store> {
    let stores = vec![
        running_store(hq, directory, "seattle-01", SCHEMA, "sales"),
        running_store(hq, directory, "salem-01", SCHEMA, "sales"),
    ];
    let file = directory.join("sites.csv");
    let hours = "tz,hours\n";
    let lines = "America/Los_Angeles,24/7\n";
    let text = format!("id,state,{hours}seattle-01,WA,{lines}salem-01,OR,{lines}tacoma-01,WA,{lines}");
    std::fs::write(&file, text).expect("writes");
    let imported = hq.run(&["roster", "import", file.to_str().expect("text")]);
    assert!(imported.status.code() != Some(3), "{}", err(&imported));
    for store in &stores {
        store.wait_confirmed();
        hq.wait_state(&store.id, "ok");
    }
    stores
}

#[test]
fn clients_of_postgresql_hear_what_is_missing() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let _stores = world(&hq, directory.path());
    let password = new_user(&hq, &["ada"]);
    let ask = |script: &str| psql(&hq, "ada", &password, script);

    let refused = psql(&hq, "ada", "wrong", "SELECT 1");
    assert!(!refused.status.success() && !err(&refused).contains("coverage"), "{}", err(&refused));
    // Names that drivers ask for, and columns of one name.
    assert_eq!(out(&ask("SELECT current_user, session_user, 1, 1;")), "ada|ada|1|1");
    let all = ask("SELECT sum(qty) FROM sales;");
    assert_eq!(out(&all), "24");
    assert!(err(&all).contains("WARNING") && err(&all).contains("tacoma-01 never-heard"), "{}", err(&all));
    // Of Oregon nothing is missing, of January neither once it is known when a sale happened.
    let oregon = "SELECT sum(qty) FROM sales s JOIN sites t ON s._site = t.id WHERE t.state = 'OR'";
    let told = wait_for("Oregon to be complete", || {
        let answer = ask(&format!("{oregon};"));
        (out(&answer) == "12" && err(&answer).contains("1 site in scope, 1 complete")).then(|| err(&answer))
    });
    assert!(told.contains("NOTICE") && !told.contains("tacoma-01"), "{told}");
    let groups = ask("SELECT t.state, sum(qty) FROM sales s JOIN sites t ON s._site = t.id GROUP BY 1 ORDER BY 1;");
    assert_eq!(out(&groups), "OR|12\nWA|12");
    assert!(err(&groups).contains("incomplete groups: WA (1 of 2)"), "{}", err(&groups));

    // Strict, and once not told.
    let strict = ask("SET rollcall.coverage = strict; SELECT sum(qty) FROM sales;");
    assert!(!strict.status.success() && out(&strict).is_empty(), "{}", out(&strict));
    assert!(err(&strict).contains("tacoma-01"), "{}", err(&strict));
    assert_eq!(out(&ask(&format!("SET rollcall.coverage = strict; {oregon};"))), "12");
    let off = ask(
        "SET rollcall.coverage = 'off-for-this-statement'; SELECT sum(qty) FROM sales; SELECT 2 + count(*) FROM sales;",
    );
    assert_eq!(out(&off), "24\n6");
    assert_eq!(err(&off).matches("tacoma-01").count(), 1, "only the first is not told of: {}", err(&off));
    let recorded =
        hq.value("SELECT concat(asked_by, ': ', question) FROM rollcall.untold WHERE coverage LIKE '%tacoma-01%'");
    assert_eq!(recorded.as_deref(), Some("ada: SELECT sum(qty) FROM sales"));
    let wrong = ask("SET rollcall.coverage = maybe;");
    assert!(err(&wrong).contains("strict"), "{}", err(&wrong));
    let last = ask("SELECT sum(qty) FROM sales; SELECT site, state FROM rollcall.coverage;");
    assert_eq!(out(&last), "24\ntacoma-01|never-heard");
    let without = ask("SELECT site FROM rollcall.coverage('SELECT sum(qty) FROM sales WHERE _site > ''tac''');");
    assert_eq!(out(&without), "tacoma-01", "{}", err(&without));

    // Catalogue, COPY, and nothing but reading.
    assert!(out(&ask("\\dt")).contains("public|sales|table"), "{}", out(&ask("\\dt")));
    assert!(out(&ask("\\d sales")).contains("qty"), "{:?}", ask("\\d sales"));
    let copied = ask(
        "COPY (SELECT id, qty FROM sales WHERE _site = 'salem-01' ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER);",
    );
    assert_eq!(out(&copied), "id,qty\n1,5\n2,7", "{}", err(&copied));
    for (sql, why) in [
        ("INSERT INTO sales VALUES (1)", "may not change tables"),
        ("DELETE FROM sales", "may not change tables"),
        ("DROP TABLE sales", "not possible here"),
        ("CREATE TABLE x (a INT)", "not possible here"),
    ] {
        let refused = ask(&format!("{sql};"));
        assert!(err(&refused).contains(why), "{sql}: {}", err(&refused));
    }
    let declared = hq.run(&["tables", "set", "sales", "--event-time", "sold_at"]);
    assert!(declared.status.success(), "{}", err(&declared));
    let worth = |measure: &str| hq.run(&["tables", "set", "sales", "--measure", measure]);
    assert!(err(&worth("colour")).contains("no number of a row"), "{}", err(&worth("colour")));
    assert!(worth("qty * 2").status.success());
    let kept = |days: &str| hq.run(&["tables", "set", "sales", "--history", days]);
    assert!(err(&kept("7")).contains("for 30 days at least"), "{}", err(&kept("7")));
    assert!(err(&kept("400")).contains("kept 400 days"), "{}", err(&kept("400")));
    let sales = || {
        let all: serde_json::Value = serde_json::from_str(&out(&hq.run(&["tables", "--json"]))).expect("json");
        let said = &all["sales"];
        (said["event_time"].clone(), said["measure"].clone(), said["history_days"].clone())
    };
    assert_eq!(sales(), ("sold_at".into(), "qty * 2".into(), 400.into()), "what is not said again stays");
    assert!(hq.run(&["tables", "set", "sales", "--unset", "history"]).status.success());
    assert_eq!(sales(), ("sold_at".into(), "qty * 2".into(), serde_json::Value::Null));
    let oregon_then = ask(&format!("{oregon} AND sold_at < '2026-02-01';"));
    assert_eq!(out(&oregon_then), "5");
    assert!(err(&oregon_then).contains("complete for all before 2026-02-01"), "{}", err(&oregon_then));
}

#[test]
fn a_past_that_is_complete_stays_complete_without_the_site() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    // When a sale happened is declared at join, by one of the stores.
    let mut salem = Store::new(directory.path(), "salem-01", SCHEMA);
    let (token, address) = (hq.invite("salem-01"), hq.sites.to_string());
    let join = |event_time: &str| {
        let said = ["join", &token, "--hq", &address, "--tables", "sales", "--event-time", event_time];
        salem.agent_command(&said).output().expect("runs")
    };
    assert!(err(&join("sales.colour")).contains("no such column"), "{}", err(&join("sales.colour")));
    let joined = join("sales.sold_at");
    assert!(joined.status.success(), "{}", err(&joined));
    salem.run(None);
    let mut stores = vec![running_store(&hq, directory.path(), "seattle-01", SCHEMA, "sales"), salem];
    for store in &stores {
        store.wait_confirmed();
        hq.wait_state(&store.id, "ok");
    }
    wait_for("HQ to take the event time that the store declared", || {
        out(&hq.run(&["tables"])).contains("sold_at").then_some(())
    });
    let declared = hq.run(&["tables", "set", "sales", "--event-time", "sold_at", "--lateness", "60"]);
    assert!(declared.status.success(), "{}", err(&declared));
    stores[1].kill();
    hq.wait_state("salem-01", "silent");
    let now = hq.run(&["sql", "SELECT sum(qty) FROM sales"]);
    assert!(err(&now).contains("salem-01 silent") && now.status.code() == Some(1), "{}", err(&now));
    let then = hq.run(&["sql", "SELECT sum(qty) FROM sales WHERE sold_at < '2026-03-01'"]);
    assert!(err(&then).contains("2 sites in scope, 2 complete for all before 2026-03-01"), "{}", err(&then));
    assert_eq!(then.status.code(), Some(0));
    // An acknowledged silence is still a silence.
    let incidents = hq.run(&["incidents", "--json"]);
    let open: Vec<serde_json::Value> = serde_json::from_slice(&incidents.stdout).expect("json");
    let id = open
        .iter()
        .find(|incident| incident["kind"] == "silence")
        .map(|incident| incident["id"].to_string())
        .expect("an incident");
    let taken = hq.run(&["incidents", "ack", &id, "--by", "Ada", "--reason", "known", "--hours", "2"]);
    assert!(taken.status.success(), "{}", err(&taken));
    assert!(err(&hq.run(&["sql", "SELECT sum(qty) FROM sales"])).contains("salem-01 silent"));
    // As a workbook, and as CSV with what is missing beside it.
    let book = directory.path().join("sales.xlsx");
    hq.run(&["sql", "SELECT * FROM sales", "--format", "xlsx", "--out", book.to_str().expect("text")]);
    assert!(std::fs::read(&book).expect("a workbook").starts_with(b"PK"));
    let csv = directory.path().join("sales.csv");
    hq.run(&["sql", "SELECT * FROM sales", "--format", "csv", "--out", csv.to_str().expect("text")]);
    let beside = std::fs::read_to_string(directory.path().join("sales.csv.coverage.json")).expect("beside it");
    assert!(beside.contains("salem-01"), "{beside}");
    let rows = std::fs::read_to_string(&csv).expect("written");
    assert_eq!(rows.lines().count(), 5, "a header and four rows, nothing else: {rows}");
}

#[test]
fn a_user_of_some_sites_sees_no_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let _stores = world(&hq, directory.path());
    let prices = directory.path().join("prices.csv");
    std::fs::write(&prices, "sku,price\n1,2.50\n").expect("writes");
    let published = hq.run(&["publish", "prices", "--from", &prices.display().to_string(), "--key", "sku"]);
    assert!(published.status.success(), "{}", err(&published));
    let password = new_user(&hq, &["oregon", "--sees", "State=OR", "--strict"]);
    let ask = |script: &str| psql(&hq, "oregon", &password, script);
    let answer = wait_for("a complete answer", || {
        let answer = ask(
            "SELECT sum(qty) FROM sales; SELECT id FROM sites; SELECT site FROM rollcall.roll; SELECT count(*) FROM history.sales;",
        );
        answer.status.success().then_some(answer)
    });
    assert_eq!(out(&answer), "12\nsalem-01\nsalem-01\n2");
    for script in [
        "SELECT * FROM sales WHERE _site = 'seattle-01';",
        "SELECT * FROM rollcall.incidents;",
        "SELECT * FROM rollcall.site_log;",
        "SELECT * FROM rollcall.coverage;",
        "SELECT min(_site), max(_site) FROM history.sales;",
        "SELECT * FROM information_schema.tables;",
    ] {
        let answer = ask(script);
        // The name that the question itself gave is no news; it is said to be nobody's.
        let told = format!("{}{}", out(&answer), err(&answer)).replace("\"seattle-01\" is not on the roster", "");
        assert!(!told.contains("seattle") && !told.contains("tacoma"), "{script}: {told}");
    }
    // Of HQ's own tables it hears what is about its sites, and nothing is less than it seems.
    let cursors = ask("SELECT DISTINCT site FROM rollcall.cursors;");
    assert_eq!(out(&cursors), "salem-01", "{}", err(&cursors));
    for (table, why) in [("prices", "is HQ's own table"), ("rollcall.audit", "names all sites")] {
        let answer = ask(&format!("SELECT count(*) FROM {table};"));
        assert!(!answer.status.success() && err(&answer).contains(why), "{table}: {} {}", out(&answer), err(&answer));
    }
    // The API keeps the same rule.
    let login = format!("oregon:{password}");
    let get = |path: &str| {
        let url = format!("http://{}{path}", hq.http());
        let output = Command::new("curl").args(["-s", "-u", &login, &url]).output().expect("the curl command");
        out(&output)
    };
    assert!(get("/api/roll").contains("salem-01") && !get("/api/roll").contains("seattle"), "{}", get("/api/roll"));
    assert!(
        get("/api/incidents").starts_with('[') && !get("/api/incidents").contains("seattle"),
        "{}",
        get("/api/incidents")
    );
    assert!(get("/api/users").contains("may not"), "{}", get("/api/users"));
    // So does a program with a token, until it is revoked.
    let token = out(&hq.run(&["users", "token", "oregon", "till-report"]));
    let by_token = |token: &str| {
        let url = format!("http://{}/api/roll", hq.http());
        let header = format!("Authorization: Bearer {token}");
        out(&Command::new("curl").args(["-s", "-H", &header, &url]).output().expect("the curl command"))
    };
    assert!(by_token(&token).contains("salem-01") && !by_token(&token).contains("seattle"), "{}", by_token(&token));
    assert!(by_token(&format!("{token}x")).contains("not known here"));
    hq.run(&["users", "token", "oregon", "till-report", "--revoke"]);
    assert!(by_token(&token).contains("was removed"), "{}", by_token(&token));
    let removed = hq.run(&["users", "remove", "oregon"]);
    assert!(removed.status.success(), "{}", err(&removed));
    assert!(!ask("SELECT 1;").status.success(), "a removed user is out");
}

const PSYCOPG: &str = r#"
import sys, threading, time
try:
    import psycopg
except ImportError:
    print("without psycopg: pip install psycopg[binary]"); sys.exit(0)
host, port, password = sys.argv[1:4]
notices = []
with psycopg.connect(host=host, port=port, user="ada", password=password, dbname="hq", autocommit=True) as conn:
    conn.add_notice_handler(lambda note: notices.append(note.message_primary))
    for binary in (False, True):
        cursor = conn.cursor(binary=binary)
        cursor.execute("SELECT id, qty FROM sales WHERE _site = %s AND qty > %s ORDER BY id", ("salem-01", 5))
        assert cursor.fetchall() == [(2, 7)], binary
    assert any("1 site in scope" in note for note in notices), notices
    rows = conn.execute("SELECT count(*) FROM sales", prepare=True).fetchall()
    assert rows == [(4,)] and "tacoma-01" in notices[-1], (rows, notices)
    # What takes long can be stopped, and the connection goes on.
    threading.Timer(1.0, conn.cancel).start()
    started = time.time()
    try:
        conn.execute("SELECT count(*) FROM generate_series(1, 1000000000) AS g(value) WHERE value % 7 = 3")
        raise SystemExit("it was not cancelled")
    except psycopg.errors.QueryCanceled:
        assert time.time() - started < 30
    assert conn.execute("SELECT 1 + 1").fetchone() == (2,)
    conn.execute("SET rollcall.coverage = strict")
    try:
        conn.execute("SELECT count(*) FROM sales")
        raise SystemExit("an incomplete answer was given")
    except psycopg.Error as error:
        assert error.sqlstate == "RC001" and "tacoma-01" in str(error), error
print("psycopg is served")
"#;

#[test]
fn prepared_statements_and_binary_values_work() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let _stores = world(&hq, directory.path());
    let password = new_user(&hq, &["ada"]);
    let (host, port) = (hq.pg.ip().to_string(), hq.pg.port().to_string());
    let output = Command::new("python3").args(["-c", PSYCOPG, &host, &port, &password]).output().expect("python3");
    println!("{}", out(&output));
    assert!(output.status.success(), "{}", err(&output));
}
