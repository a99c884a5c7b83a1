//! The agent's command line, without an HQ.

use std::process::{Command, Output};

use rollcall_capture::TableSpec;

fn agent(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rollcall-site")).args(arguments).output().expect("runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn usage_errors_say_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = directory.path().join("pos.sqlite");
    let path = database.to_str().expect("text");
    let missing = agent(&["join", "rc1.x", "--hq", "127.0.0.1:1", "--db", path, "--tables", "t"]);
    assert_eq!(missing.status.code(), Some(3));
    rusqlite::Connection::open(&database).and_then(|conn| conn.execute_batch("CREATE TABLE t (a)")).expect("creates");
    let wrong = agent(&["join", "what", "--hq", "127.0.0.1:1", "--db", path, "--tables", "t"]);
    assert!(said(&wrong).contains("rollcall roster invite"), "{}", said(&wrong));
    let status = agent(&["status", "--db", path]);
    assert!(said(&status).contains("rollcall-site join"), "{}", said(&status));
    // 1 and 2 are what `status` found: a slip in a monitoring script must not look like a broken
    // store.
    assert_eq!(agent(&["frobnicate"]).status.code(), Some(3));
}

#[test]
fn detach_takes_everything_out_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = directory.path().join("pos.sqlite");
    let conn = rusqlite::Connection::open(&database).expect("creates");
    conn.execute_batch("CREATE TABLE t (a)").expect("creates");
    let spec = TableSpec { table: "t".to_owned(), excluded: Vec::new() };
    rollcall_site::database_at(&database)
        .source()
        .and_then(|mut source| source.install(&[spec], "journal"))
        .expect("installs");
    let detached = agent(&["detach", "--forget", "--db", database.to_str().expect("text")]);
    assert!(detached.status.success(), "{}", said(&detached));
    let left: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_master WHERE name LIKE '%rollcall%'", [], |row| row.get(0))
        .expect("counts");
    assert_eq!(left, 0);
}
