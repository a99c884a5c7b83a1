//! Who may come in, who may not, and who is thrown out.

use std::process::Command;

use crate::support::{Hq, Store, binary, running_store, wait_for};

const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a')";

#[test]
fn an_invitation_works_once_and_a_retired_site_is_cut_off() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut hq = Hq::start(directory.path());
    let token = hq.invite("seattle-01");
    let mut store = Store::new(directory.path(), "seattle-01", SCHEMA);
    store.join(hq.sites, &token, "t");
    let thief = Store::new(directory.path(), "thief", SCHEMA);
    let output = thief.try_join(hq.sites, &token, "t");
    assert!(String::from_utf8_lossy(&output.stderr).contains("used already"), "{output:?}");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(thief.sql("SELECT count(*) FROM sqlite_master"), "1", "a refused join leaves the store's file alone");
    let expired = hq.run(&["roster", "invite", "tacoma-01", "--new", "--hours", "0"]);
    let expired = String::from_utf8(expired.stdout).expect("text");
    let output = thief.try_join(hq.sites, expired.trim(), "t");
    assert!(String::from_utf8_lossy(&output.stderr).contains("expired"), "{output:?}");
    store.run(None);
    hq.wait_state("seattle-01", "ok");
    let no_reason = hq.run(&["roster", "retire", "seattle-01", "--yes", "--reason", " "]);
    assert!(!no_reason.status.success());
    assert!(hq.run(&["roster", "retire", "seattle-01", "--yes", "--reason", "sold"]).status.success());
    hq.wait_state("seattle-01", "retired");
    wait_for("the agent to say that HQ refuses it", || (store.status().0 == Some(2)).then_some(()));
    // It stays out over a restart of HQ, and its rows stay.
    hq.kill();
    hq.restart();
    store.sql("INSERT INTO t VALUES (2, 'late')");
    wait_for("the agent to try again", || (store.status().1["agent"]["refused"] == true).then_some(()));
    assert_eq!(hq.value("SELECT count(*) FROM t").as_deref(), Some("1"));
}

#[test]
fn a_roster_from_a_file_never_drops_a_site() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let import = |text: &str| {
        let file = directory.path().join("sites.csv");
        std::fs::write(&file, text).expect("writes");
        let output = hq.run(&["roster", "import", file.to_str().expect("text")]);
        (output.status.code() != Some(3), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (ok, said) = import("id,state,tz,isp\na-01,WA,America/Los_Angeles,Blue\nb-01,OR,,\n");
    assert!(ok && said.contains("2 added") && said.contains("never enrolled: a-01, b-01"), "{said}");
    let (ok, said) = import("id,state,tz,isp\na-01,WA,America/Los_Angeles,Red\nc-01,ID,,\n");
    assert!(ok && said.contains("1 added, 1 changed") && said.contains("(they stay): b-01"), "{said}");
    for wrong in ["name\nx\n", "id\nüber/all\n", "id,tz\na-01,Mars/Olympus\n", "id\na-01\na-01\n"] {
        assert!(!import(wrong).0, "{wrong:?} is refused");
    }
    let rows = hq.rows("SELECT id, isp FROM sites ORDER BY id");
    let ids: Vec<&str> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
    assert_eq!(ids, ["a-01", "b-01", "c-01"]);
    assert_eq!(rows[0]["isp"], "Red");
    // A file changes the columns that it has. An empty cell takes a value away, and all others go
    // only if that is said.
    let attributes = || {
        let roster = hq.api("/api/roster");
        let line = roster.as_array().and_then(|lines| lines.iter().find(|line| line["id"] == "a-01").cloned());
        line.expect("on the roster")["attributes"].clone()
    };
    let (ok, said) = import(
        "id,state
a-01,OR
",
    );
    assert!(ok && said.contains("0 added, 1 changed") && !said.contains("taken away"), "{said}");
    assert_eq!(attributes(), serde_json::json!({"state": "OR", "isp": "Red", "tz": "America/Los_Angeles"}));
    let file = directory.path().join("fewer.csv");
    std::fs::write(
        &file,
        "id,isp
a-01,
",
    )
    .expect("writes");
    let (file, roster) =
        (file.to_str().expect("text"), |arguments: &[&str]| hq.run(&[&["roster"], arguments].concat()));
    let shown = roster(&["import", file, "--replace", "--dry-run"]);
    let table = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(table.contains("America/Los_Angeles") && table.contains("state") && table.contains("Red"), "{table}");
    assert_eq!(attributes()["isp"], "Red", "nothing was changed");
    let imported = roster(&["import", file]);
    assert!(String::from_utf8_lossy(&imported.stderr).contains("1 attribute taken away"));
    assert!(String::from_utf8_lossy(&imported.stdout).contains("Red"), "what went is shown");
    assert_eq!(attributes(), serde_json::json!({"state": "OR", "tz": "America/Los_Angeles"}));
    // One site, by hand; and all of them as a file, which brings them back as they were.
    assert!(roster(&["set", "a-01", "isp=Blue, Inc.", "state="]).status.success());
    assert!(!roster(&["set", "a-01", "tz=Mars"]).status.success());
    let said = String::from_utf8_lossy(&roster(&["set", "a-01", "tz=America/Denver"]).stderr).into_owned();
    assert!(said.contains("another time zone: a-01") && said.contains("rollcall roster resend"), "{said}");
    assert!(roster(&["set", "a-01", "tz=America/Los_Angeles"]).status.success());
    // What means nothing is kept, and said.
    let said = String::from_utf8_lossy(&roster(&["set", "a-01", "hurs=24/7", "holidays=DE-XX"]).stderr).into_owned();
    assert!(said.contains("is hours meant?") && said.contains("the calendar DE-XX has no days"), "{said}");
    assert!(roster(&["set", "a-01", "hurs=", "holidays="]).status.success());
    assert!(!roster(&["set", "z-99", "isp=Blue"]).status.success(), "set adds no site");
    let exported = roster(&["export"]).stdout;
    let text = String::from_utf8_lossy(&exported).into_owned();
    assert!(text.starts_with("id,") && text.contains("\"Blue, Inc.\""), "{text}");
    let (ok, said) = import(&text);
    assert!(ok && said.contains("0 added, 0 changed, 3 unchanged"), "{said}");
    assert_eq!(roster(&["import", file, "--replace"]).status.code(), Some(1), "it has no time zone any more");
    assert_eq!(attributes(), serde_json::json!({}));
}

#[test]
fn what_is_not_said_of_a_user_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let ada = || hq.api("/api/users")["ada"].clone();
    assert!(
        hq.run(&["users", "set", "ada", "--role", "operator", "--sees", "region=West", "--strict"]).status.success()
    );
    let before = ada();
    assert_eq!((&before["role"], &before["sees"]["region"]), (&"operator".into(), &"West".into()));
    // Another password is another password, and nothing else.
    let said = hq.run_with_input(&["users", "set", "ada", "--password-stdin"], "a long password");
    assert!(said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains("ada is operator, and sees region=West"), "{said:?}");
    assert_eq!(ada(), before);
    assert!(hq.run(&["users", "set", "ada", "--role", "viewer"]).status.success());
    assert_eq!(
        (&ada()["role"], &ada()["sees"]["region"], &ada()["strict"]),
        (&"viewer".into(), &"West".into(), &true.into())
    );
    assert!(hq.run(&["users", "set", "ada", "--sees-all", "--not-strict"]).status.success());
    assert_eq!((&ada()["sees"], &ada()["strict"]), (&serde_json::json!({}), &false.into()));
}

#[test]
fn one_directory_has_one_hq_and_its_api_wants_a_password() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let second = hq.second();
    assert_eq!(second.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use"), "{second:?}");
    let endpoints = std::fs::read_to_string(hq.data.join("endpoints.json")).expect("written");
    let endpoints: serde_json::Value = serde_json::from_str(&endpoints).expect("json");
    let url = format!("http://{}", endpoints["http"].as_str().expect("text"));
    // Also where the answer is there long before the request is.
    let long = directory.path().join("long.csv");
    let sites = (0..300_000).map(|number| format!("site-{number}\n"));
    std::fs::write(&long, format!("id\n{}", sites.collect::<String>())).expect("writes");
    for request in [["sql", "SELECT 1"].as_slice(), &["roster", "import", long.to_str().expect("text")]] {
        let stranger = Command::new(binary("rollcall"))
            .args(request)
            .args(["--url", &url, "--token", "guess"])
            .output()
            .expect("runs");
        assert_eq!(stranger.status.code(), Some(3));
        assert!(String::from_utf8_lossy(&stranger.stderr).contains("not known here"), "{stranger:?}");
    }
    let token = std::fs::metadata(hq.data.join("operator.token")).expect("written");
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&token.permissions()) & 0o777, 0o600);
}

#[test]
fn a_short_lived_certificate_is_renewed_even_after_it_expired() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let mut store = running_store(&hq, directory.path(), "seattle-01", SCHEMA, "t");
    hq.wait_state("seattle-01", "ok");
    store.stop();
    // As if it had been away past its certificate's life: the agent goes by its own note of when
    // that was.
    let path = directory.path().join("seattle-01.sqlite.rollcall/identity.json");
    let text = std::fs::read_to_string(&path).expect("readable by its owner");
    let mut identity: serde_json::Value = serde_json::from_str(&text).expect("json");
    let before = identity["certificate_pem"].clone();
    identity["not_after_micros"] = 1.into();
    identity["issued_micros"] = 0.into();
    std::fs::write(&path, identity.to_string()).expect("writes");
    store.run(None);
    store.sql("INSERT INTO t VALUES (2, 'after')");
    wait_for("the row", || (hq.value("SELECT count(*) FROM t")? == "2").then_some(()));
    let after: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("reads")).expect("json");
    assert_ne!(after["certificate_pem"], before);
    assert!(after["not_after_micros"].as_i64() > Some(1));
}

#[test]
fn a_site_has_the_zone_of_its_country_however_it_came_onto_the_roster() {
    // Method: the same place by each of the three ways; without a zone its times would be read as
    // UTC.
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let file = directory.path().join("sites.csv");
    std::fs::write(&file, "id,country\nwien-01,AT\nwien-03,\n").expect("writes");
    let ran = |arguments: &[&str]| hq.run(&[&["roster"], arguments].concat());
    ran(&["import", file.to_str().expect("text")]);
    assert!(ran(&["invite", "wien-02", "--new", "--set", "country=AT"]).status.success());
    assert!(ran(&["set", "wien-03", "country=AT"]).status.success());
    let zones = || hq.value("SELECT string_agg(id || ' ' || coalesce(tz, '-'), ', ' ORDER BY id) FROM sites");
    let expected = "wien-01 Europe/Vienna, wien-02 Europe/Vienna, wien-03 Europe/Vienna";
    assert_eq!(zones().as_deref(), Some(expected));
    // Who takes a zone away means it.
    assert!(ran(&["set", "wien-03", "tz="]).status.success());
    assert_eq!(zones().as_deref(), Some("wien-01 Europe/Vienna, wien-02 Europe/Vienna, wien-03 -"));
}

#[test]
fn a_slip_adds_no_site_and_a_wrong_retirement_is_taken_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let said = |arguments: &[&str]| {
        let output = hq.run(&[&["roster"], arguments].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let mut store = running_store(&hq, directory.path(), "berlin-01", SCHEMA, "t");
    hq.wait_state("berlin-01", "ok");
    let (code, text) = said(&["invite", "berlin-0l"]);
    assert!(code == Some(3) && text.contains("is berlin-01 meant") && text.contains("--new"), "{text}");
    assert_eq!(hq.api("/api/roster").as_array().map(Vec::len), Some(1));
    // Nobody sits at a terminal to be asked.
    let (code, text) = said(&["retire", "berlin-01", "--reason", "meant another"]);
    assert!(code == Some(3) && text.contains("--yes"), "{text}");
    hq.wait_state("berlin-01", "ok");
    let (code, text) = said(&["retire", "berlin-01", "--yes", "--reason", "meant another"]);
    assert!(code == Some(0) && text.contains("reinstate berlin-01"), "{text}");
    hq.wait_state("berlin-01", "retired");
    assert_eq!(said(&["reinstate", "berlin-01", "--reason", " "]).0, Some(3));
    assert_eq!(said(&["reinstate", "berlin-01", "--reason", "a slip"]).0, Some(0));
    assert_eq!(said(&["reinstate", "berlin-01", "--reason", "a slip"]).0, Some(3), "it is on the roster");
    wait_for("it to be expected again", || (hq.state_of("berlin-01")["state"] != "retired").then_some(()));
    store.stop();
    let token = hq.run(&["roster", "invite", "berlin-01"]);
    let token = String::from_utf8(token.stdout).expect("text");
    store.join(hq.sites, token.trim(), "t");
    store.run(None);
    hq.wait_state("berlin-01", "ok");
    assert_eq!(hq.value("SELECT count(*) FROM t").as_deref(), Some("1"), "nothing is doubled");
    // Who changed what of it, and when.
    assert!(hq.run(&["roster", "set", "berlin-01", "isp=Red"]).status.success());
    let past = hq.api("/api/roster/berlin-01/history");
    let isp = past.as_array().into_iter().flatten().find(|change| change["attribute"] == "isp");
    assert_eq!(isp.map(|change| change["after"].clone()), Some("Red".into()), "{past}");
    assert!(hq.run(&["roster", "history", "berlin-01"]).status.success());
}

#[test]
fn what_a_spreadsheet_writes_is_imported_or_refused_with_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let hq = Hq::start(directory.path());
    let import = |bytes: &[u8]| {
        let file = directory.path().join("sites.csv");
        std::fs::write(&file, bytes).expect("writes");
        let output = hq.run(&["roster", "import", file.to_str().expect("text")]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let city = |site: &str| {
        let roster = hq.api("/api/roster");
        let line = roster.as_array().and_then(|lines| lines.iter().find(|line| line["id"] == site).cloned());
        line.expect("on the roster")["attributes"]["city"].as_str().unwrap_or_default().to_owned()
    };
    // Windows-1252 with semicolons; UTF-16 with tabs; UTF-8 with its mark. Each is said.
    let (code, said) = import(b"ID;City;Country\r\nMUC-01;M\xfcnchen;DE\r\n");
    assert!(code == Some(0) && said.contains("windows-1252") && said.contains("semicolons"), "{said}");
    assert!(said.contains("time zone told by country or state: muc-01"), "{said}");
    assert_eq!(city("muc-01"), "M\u{fc}nchen");
    let utf16: Vec<u8> = "\u{feff}id\tcity\ttz\nzrh-01\tZ\u{fc}rich\tEurope/Zurich\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let (code, said) = import(&utf16);
    assert!(code == Some(0) && said.contains("UTF-16LE") && said.contains("tabs"), "{said}");
    assert_eq!(city("zrh-01"), "Z\u{fc}rich");
    let (code, said) = import(b"\xef\xbb\xbfid,city\nx-01,Nowhere\n");
    assert!(code == Some(1) && said.contains("WITHOUT A TIME ZONE: x-01"), "{said}");
    // A workbook is none of these; and all faults are told at once.
    let (code, said) = import(b"PK\x03\x04....");
    assert!(code == Some(3) && said.contains("save it as \"CSV UTF-8\""), "{said}");
    let (code, said) = import(b"id,tz\na,Mars\nb,Venus\n");
    assert!(code == Some(3) && said.contains("line 2") && said.contains("line 3"), "{said}");
    let template = Command::new(binary("rollcall")).args(["roster", "template"]).output().expect("runs").stdout;
    assert_eq!(import(&template).0, Some(0), "the template is a file that can be imported");
}
