//! What store's programs and people do to a captured database that must never pass as "all is
//! well", and what the agent must never do to them. One test for each kind; the rows at HQ are
//! compared with the store's one by one.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rollcall_capture::{Anchor, CaptureError, Health, LoadProgress, Source, TableSpec};
use rollcall_capture_conformance::Model;
use rollcall_capture_sqlite::SqliteSource;
use rollcall_types::{LoadReason, Seq};
use rusqlite::Connection;

use crate::{
    model::truth,
    store::{Store, load_all},
};

/// Runs Python, which has SQLite's backup and serialize; `argv[1]` is the database.
fn python(script: &str, database: &Path, more: &[&Path]) -> String {
    let mut command = Command::new("python3");
    command.arg("-c").arg(format!("import sqlite3, sys\n{script}")).arg(database).args(more);
    let output = command.stdin(Stdio::null()).output().expect("python3 is needed by these tests");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn same(store: &Store, source: &mut SqliteSource, table: &str, select: &str) {
    load_all(source);
    let model = Model::replay(source, table);
    assert_eq!(model.rows(), truth(&store.path, select), "journal {}", model.ops);
}

/// The reasons of loads begun, in order.
fn reasons(store: &Store) -> String {
    store
        .sql("SELECT coalesce(group_concat(c1, ' '), '') FROM _rollcall_journal WHERE t = 0 AND op = 'B'")
        .trim()
        .to_owned()
}

fn without_triggers(store: &Store, sql: &str) {
    let conn = Connection::open(&store.path).expect("opens");
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).expect("sets");
    conn.execute_batch(sql).expect("writes past the triggers");
}

#[test]
fn a_table_without_a_key_that_is_written_while_it_is_loaded_is_not_doubled() {
    let store = Store::new("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 1)");
    let mut source = store.capture(&["t"]);
    store.sql("INSERT INTO t VALUES (2, 2); INSERT INTO t VALUES (3, 3); UPDATE t SET b = 4 WHERE a = 1");
    same(&store, &mut source, "t", "SELECT rowid, a, b FROM t");
    // The same in the load that VACUUM calls for.
    source.check().expect("checks");
    store.sql("DELETE FROM t WHERE a = 2; VACUUM");
    source.check().expect("checks");
    store.sql("UPDATE t SET b = b + 1; INSERT INTO t VALUES (5, 5)");
    same(&store, &mut source, "t", "SELECT rowid, a, b FROM t");
    assert_eq!(reasons(&store), "first vacuum");
}

#[test]
fn a_journal_that_goes_back_in_time_under_the_reader_is_noticed_at_the_next_read() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    let saved = store.directory.path().join("saved.sqlite");
    let backup = "sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))";
    python(backup, &store.path, &[&saved]);
    store.sql("INSERT INTO t VALUES (2, 'b'), (3, 'c')");
    let mut after = Anchor::default();
    while let Some(changes) = source.read(after.clone(), 100, 1 << 20).expect("reads") {
        after = Anchor { seq: changes.last, digest: changes.digest };
    }
    // Into the same file, as SQLite's own backup does it; then the store writes on past what was
    // read.
    python(backup, &saved, &[&store.path]);
    for id in 10..20 {
        store.sql(&format!("INSERT INTO t VALUES ({id}, 'other')"));
    }
    for _ in 0..2 {
        let error = source.read(after.clone(), 100, 1 << 20).expect_err("not the journal that was read");
        assert!(matches!(error, CaptureError::Rewound(_)), "{error:?}");
    }
    // One that ends before the place as well, and one of which the rows were pruned not.
    python(backup, &saved, &[&store.path]);
    assert!(matches!(source.read(after.clone(), 1, 1 << 20), Err(CaptureError::Rewound(_))));
    let head = source.heads().expect("reads").head;
    let place = Anchor { seq: head, digest: source.row_digest(head).expect("reads").expect("a row") };
    store.sql("DELETE FROM _rollcall_journal");
    assert_eq!(source.read(place, 1, 1 << 20).expect("nothing is wrong"), None);
}

#[test]
fn rows_past_the_triggers_are_found_whatever_the_key_and_however_busy_the_table() {
    for key in
        ["code TEXT PRIMARY KEY", "code TEXT PRIMARY KEY, n INT) WITHOUT ROWID; CREATE TABLE other (x INT", "code TEXT"]
    {
        let store = Store::new(&format!("CREATE TABLE t ({key})"));
        store.sql("INSERT INTO t (code) VALUES ('a'), ('b'), ('c')");
        let mut source = store.capture(&["t"]);
        load_all(&mut source);
        assert_eq!(source.count_rows().expect("counts"), Health::default());
        for (round, sql) in
            ["INSERT INTO t (code) VALUES ('unseen')", "DELETE FROM t WHERE code = 'b'"].iter().enumerate()
        {
            store.sql(&format!("INSERT INTO t (code) VALUES ('busy-{round}')"));
            without_triggers(&store, sql);
            store.sql(&format!("INSERT INTO t (code) VALUES ('busier-{round}')"));
            let health = source.count_rows().expect("counts");
            assert_eq!(health.mended.len(), 1, "{key} {sql}");
            load_all(&mut source);
            assert_eq!(source.count_rows().expect("counts"), Health::default(), "found once");
        }
        assert_eq!(reasons(&store), "first bypassed bypassed");
        let model = Model::replay(&mut source, "t");
        assert_eq!(model.rows().len(), store.sql("SELECT count(*) FROM t").trim().parse::<usize>().expect("a number"));
    }
}

#[test]
fn a_trigger_rewritten_through_writable_schema_is_noticed() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    assert!(source.check().expect("checks").mended.is_empty());
    let conn = Connection::open(&store.path).expect("opens");
    conn.execute_batch(
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_master SET sql = 'CREATE TRIGGER \"_rollcall_ai_t\" AFTER INSERT ON \"t\" BEGIN SELECT 1; END'
         WHERE name = '_rollcall_ai_t'",
    )
    .expect("rewrites");
    drop(conn);
    store.sql("INSERT INTO t VALUES (1)");
    assert_eq!(source.check().expect("checks").mended.len(), 1);
    same(&store, &mut source, "t", "SELECT id FROM t");
    assert_eq!(reasons(&store), "first triggers");
}

#[test]
fn a_trigger_of_the_stores_that_would_run_first_does_not() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    assert!(source.check().expect("checks").mended.is_empty());
    for event in ["INSERT", "UPDATE", "DELETE"] {
        store.sql(&format!("CREATE TRIGGER stop_{event} AFTER {event} ON t BEGIN SELECT RAISE(IGNORE); END"));
    }
    store.sql("INSERT INTO t VALUES (1, 'unseen'); INSERT INTO t VALUES (2, 'unseen')");
    assert_eq!(source.check().expect("checks").mended.len(), 1);
    store.sql("INSERT INTO t VALUES (3, 'seen'); UPDATE t SET v = 'changed' WHERE id = 1; DELETE FROM t WHERE id = 2");
    same(&store, &mut source, "t", "SELECT * FROM t");
    assert_eq!(reasons(&store), "first trigger-order");
    assert!(source.check().expect("checks").mended.is_empty());
    assert_eq!(source.count_rows().expect("counts"), Health::default());
}

#[test]
fn names_that_would_be_one_at_hq_are_refused_before_anything_is_changed() {
    let store = Store::new(
        "CREATE TABLE \"Größe\" (id INTEGER PRIMARY KEY); CREATE TABLE \"groesse\" (id INTEGER PRIMARY KEY);
         CREATE TABLE \"売上\" (id INTEGER PRIMARY KEY); CREATE TABLE t (\"a b\", \"a_b\", id INTEGER PRIMARY KEY);
         CREATE TABLE k (_rowid, v); CREATE TABLE _rollcall_x (id)",
    );
    let spec = |table: &str, excluded: &[&str]| TableSpec {
        table: table.to_owned(),
        excluded: excluded.iter().map(|name| (*name).to_owned()).collect(),
    };
    let mut source = SqliteSource::open(&store.path).expect("opens");
    for (specs, said) in [
        (vec![spec("Größe", &[]), spec("groesse", &[])], "would both be called groesse"),
        (vec![spec("売上", &[])], "starting with a letter or digit"),
        (vec![spec("t", &[])], "--exclude t.COLUMN"),
        (vec![spec("k", &[])], "would both be called _rowid"),
        (vec![spec("_rollcall_x", &[])], "not the store's own"),
    ] {
        for error in [source.check_tables(&specs), source.install(&specs, "j")] {
            let error = error.expect_err("refused").to_string();
            assert!(error.contains(said), "{error}");
        }
    }
    assert_eq!(store.sql("SELECT count(*) FROM sqlite_master WHERE name GLOB '_rollcall_[a-w]*'").trim(), "0");
    source.install(&[spec("Größe", &[]), spec("t", &["a b"])], "j").expect("installs");
}

#[test]
fn a_column_that_would_be_another_at_hq_is_a_problem_of_its_table_alone() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, a_b); CREATE TABLE u (id INTEGER PRIMARY KEY)");
    let mut source = store.capture(&["t", "u"]);
    load_all(&mut source);
    store.sql("ALTER TABLE t ADD COLUMN \"a b\"; INSERT INTO t VALUES (1, 2, 3); INSERT INTO u VALUES (1)");
    let health = source.check().expect("checks");
    assert_eq!(health.problems.len(), 1);
    assert_eq!(health.problems[0].table.as_deref(), Some("t"));
    assert!(health.problems[0].text.contains("would both be called a_b"), "{health:?}");
    same(&store, &mut source, "u", "SELECT * FROM u");
    same(&store, &mut source, "t", "SELECT id, a_b FROM t");
}

#[test]
fn generated_columns_are_columns() {
    let store = Store::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, qty INT, price INT, total INT AS (qty * price) STORED, twice INT AS (qty * 2), note TEXT);
         INSERT INTO t (id, qty, price, note) VALUES (1, 2, 3, 'x')",
    );
    let mut source = store.capture(&["t"]);
    store.sql("INSERT INTO t (id, qty, price) VALUES (2, 5, 7); UPDATE t SET qty = 4 WHERE id = 1");
    same(&store, &mut source, "t", "SELECT * FROM t");
}

#[test]
fn a_file_that_is_exchanged_under_the_agent_costs_the_store_nothing() {
    // In rollback mode SQLite finds a journal by the path: a connection that still had the old file
    // would take the new file's journal for its own and delete it amid the store's transaction.
    let store = Store::new("PRAGMA journal_mode = DELETE; CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    store.sql("INSERT INTO t VALUES (1, 'a')");
    let mut after = Seq(0);
    while let Some(changes) = source.read(after.into(), 100, 1 << 20).expect("reads") {
        after = changes.last;
    }
    let new = store.directory.path().join("new.sqlite");
    store.sql(&format!("VACUUM INTO '{}'", new.display()));
    std::fs::rename(&new, &store.path).expect("renames");
    let till = Connection::open(&store.path).expect("opens");
    till.execute_batch("PRAGMA cache_size = 1; BEGIN; INSERT INTO t VALUES (2, 'b')").expect("writes");
    // Amid the transaction, with its journal beside the file.
    till.execute_batch("WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT i, zeroblob(500) FROM n")
        .expect("writes");
    assert!(matches!(source.read(after.into(), 100, 1 << 20), Err(CaptureError::Replaced)));
    assert!(source.check().expect("checks").is_blind());
    let _ = source.load_step();
    let _ = source.state_manifest();
    till.execute_batch("COMMIT").expect("the store's transaction is none of ours");
    drop(till);
    source.take_up();
    assert!(source.check().expect("checks").is_ok());
    let rows = "SELECT id, v FROM t WHERE id < 10";
    load_all(&mut source);
    let mut model = Model::replay(&mut source, "t").rows();
    model.retain(|row| row[0].len() == 1);
    assert_eq!(model, truth(&store.path, rows));
}

#[test]
fn once_the_store_has_closed_its_database_the_agent_lets_go_of_it() {
    let store = Store::new("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    let till = Connection::open(&store.path).expect("opens");
    till.execute_batch("INSERT INTO t VALUES (1)").expect("writes");
    source.read(Seq(0).into(), 100, 1 << 20).expect("reads");
    drop(till);
    let wal = store.directory.path().join("pos.sqlite-wal");
    assert!(wal.exists(), "the agent has the file open");
    source.rest();
    assert!(!wal.exists(), "whoever goes last folds the WAL");
    // A backup put in place is what the store finds.
    store.sql("DELETE FROM t; INSERT INTO t VALUES (99)");
    let saved = store.directory.path().join("saved");
    std::fs::copy(&store.path, &saved).expect("copies");
    store.sql("INSERT INTO t VALUES (100)");
    source.read(Seq(0).into(), 100, 1 << 20).expect("reads");
    source.rest();
    std::fs::copy(&saved, &store.path).expect("copies");
    assert_eq!(store.sql("SELECT group_concat(id) FROM t").trim(), "99");
}

#[test]
fn an_agent_at_rest_refuses_nothing_to_the_stores_program() {
    let store = Store::new("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    source.read(Seq(0).into(), 100, 1 << 20).expect("reads");
    source.rest();
    let till = Connection::open(&store.path).expect("opens");
    till.busy_timeout(Duration::ZERO).expect("sets");
    till.execute_batch("PRAGMA locking_mode = EXCLUSIVE; INSERT INTO t VALUES (1)").expect("has the file to itself");
    let error = source.read(Seq(0).into(), 100, 1 << 20).expect_err("the till was first");
    assert!(error.is_busy(), "{error:?}");
    drop(till);
    source.read(Seq(0).into(), 100, 1 << 20).expect("reads again");
    source.rest();
    let till = Connection::open(&store.path).expect("opens");
    let mode: String = till.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0)).expect("changes");
    assert_eq!(mode, "delete");
}

#[test]
fn tables_of_ours_that_a_program_drops_are_made_again() {
    let all = ["journal", "noted", "layout", "load", "meta"];
    let sets: Vec<Vec<&str>> = all.iter().map(|table| vec![*table]).chain([all.to_vec()]).collect();
    for dropped in sets {
        let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')");
        let mut source = store.capture(&["t"]);
        load_all(&mut source);
        assert!(source.check().expect("checks").is_ok());
        let known = source.registration().expect("registered").clone();
        let id = source.journal_id().expect("has one");
        let sql: String = dropped.iter().map(|table| format!("DROP TABLE _rollcall_{table};")).collect();
        store.sql(&sql);
        let (ok, _, error) = store.try_sql("INSERT INTO t VALUES (2, 'b')");
        let is_named = dropped.iter().any(|table| ["journal", "noted"].contains(table));
        assert_eq!(ok, !is_named, "{dropped:?}: {error}");
        // The agent may have been started anew meanwhile; what it knows is kept beside the file.
        let mut source = SqliteSource::open(&store.path).expect("opens");
        source.remember(&known);
        let health = source.check().expect("checks");
        assert!(health.is_ok() && !health.mended.is_empty(), "{dropped:?}: {health:?}");
        // Another file is none of ours, whatever is known of this one.
        let other = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
        let mut elsewhere = SqliteSource::open(&other.path).expect("opens");
        elsewhere.remember(&source.registration().expect("registered"));
        assert!(elsewhere.check().expect("checks").is_blind());
        assert_eq!(other.sql("SELECT count(*) FROM sqlite_master").trim(), "1");
        store.sql("INSERT INTO t VALUES (3, 'c'); UPDATE t SET v = 'A' WHERE id = 1");
        same(&store, &mut source, "t", "SELECT * FROM t");
        assert!(reasons(&store).ends_with(LoadReason::Restored.as_str()), "{dropped:?}");
        assert_eq!(source.journal_id().expect("has one") != id, dropped.contains(&"journal"), "{dropped:?}");
        // And with all of them gone for good, the triggers still come off.
        store.sql(&all.iter().map(|table| format!("DROP TABLE _rollcall_{table};")).collect::<String>());
        SqliteSource::open(&store.path).expect("opens").detach(None, false).expect("detaches");
        store.sql("INSERT INTO t VALUES (4, 'd')");
        assert_eq!(store.sql("SELECT count(*) FROM sqlite_master WHERE name GLOB '_rollcall_*'").trim(), "0");
    }
}

#[test]
fn a_key_that_is_no_text_holds_up_no_load() {
    let store = Store::new("CREATE TABLE t (k TEXT PRIMARY KEY, v) WITHOUT ROWID");
    store.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO t SELECT CAST(x'ff' || i AS TEXT), i FROM n; INSERT INTO t VALUES ('plain', 0)",
    );
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    let model = Model::replay(&mut source, "t");
    assert_eq!(model.rows().len(), 301, "each row has a key of its own");
    assert_eq!(model.misfits.len(), 300);
}

#[test]
fn a_key_in_an_order_that_only_the_program_knows_is_refused() {
    // The rows of such a table cannot be walked by anybody else; of one with row numbers they can.
    let script = "db = sqlite3.connect(sys.argv[1]); db.create_collation('house', lambda a, b: (a > b) - (a < b))
db.executescript('CREATE TABLE w (k TEXT COLLATE house PRIMARY KEY, v) WITHOUT ROWID; CREATE TABLE t (k TEXT COLLATE house PRIMARY KEY, v);' + '''INSERT INTO t VALUES ('a', 1), ('b', 2)''')";
    let store = Store::new("SELECT 1");
    python(script, &store.path, &[]);
    let mut source = SqliteSource::open(&store.path).expect("opens");
    let spec = |table: &str| TableSpec { table: table.to_owned(), excluded: Vec::new() };
    let error = source.check_tables(&[spec("w")]).expect_err("refused").to_string();
    assert!(error.contains("only the store's own program has"), "{error}");
    source.install(&[spec("t")], "j").expect("installs");
    load_all(&mut source);
    let write = "db = sqlite3.connect(sys.argv[1]); db.create_collation('house', lambda a, b: (a > b) - (a < b))
db.execute(\"INSERT OR REPLACE INTO t VALUES ('a', 9)\"); db.execute(\"DELETE FROM t WHERE k = 'b'\"); db.commit()";
    python(write, &store.path, &[]);
    same(&store, &mut source, "t", "SELECT * FROM t");
}

#[test]
fn a_table_that_cannot_be_loaded_holds_up_no_other() {
    let store = Store::new(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, v); CREATE TABLE b (id INTEGER PRIMARY KEY); INSERT INTO b VALUES (1)",
    );
    store.sql("INSERT INTO a VALUES (1, 2)");
    let mut source = store.capture(&["a", "b"]);
    // A column that is computed by a function which only the store's program has.
    let conn = Connection::open(&store.path).expect("opens");
    conn.execute_batch("PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'CREATE TABLE a (id INTEGER PRIMARY KEY, v AS (secret(id)))' WHERE name = 'a'")
        .expect("rewrites");
    drop(conn);
    let mut seen = Vec::new();
    for _ in 0..20 {
        match source.load_step() {
            Ok(LoadProgress::Idle) => break,
            other => seen.push(other),
        }
    }
    assert!(seen.iter().any(|step| matches!(step, Ok(LoadProgress::Failed))), "{seen:?}");
    let health = source.check().expect("checks");
    assert!(
        !health.is_blind() && health.problems.iter().all(|problem| problem.table.as_deref() == Some("a")),
        "{health:?}"
    );
    assert_eq!(Model::replay(&mut source, "b").rows().len(), 1);
}

#[test]
fn a_program_that_writes_the_whole_file_at_each_save_is_noticed_as_soon_as_it_undoes_what_we_wrote() {
    let store = Store::new("PRAGMA journal_mode = DELETE; CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    // As sql.js: the file is read once, and each save writes all of it in place.
    let save = "db = sqlite3.connect(':memory:'); db.deserialize(open(sys.argv[2], 'rb').read())
db.execute('INSERT INTO t SELECT coalesce(max(id), 0) + 1 FROM t'); db.commit()
image = db.serialize(); open(sys.argv[1], 'r+b').write(image); open(sys.argv[2], 'wb').write(image)";
    let memory = store.directory.path().join("memory");
    std::fs::copy(&store.path, &memory).expect("copies");
    let mut after = Anchor::default();
    let read_all = |source: &mut SqliteSource, after: &mut Anchor| -> Result<(), CaptureError> {
        while let Some(changes) = source.read(after.clone(), 100, 1 << 20)? {
            *after = Anchor { seq: changes.last, digest: changes.digest };
        }
        Ok(())
    };
    for _ in 0..10 {
        python(save, &store.path, &[&memory]);
        read_all(&mut source, &mut after).expect("as long as we write nothing it is exact");
    }
    source.state_manifest().expect("states");
    read_all(&mut source, &mut after).expect("reads");
    python(save, &store.path, &[&memory]);
    assert!(matches!(read_all(&mut source, &mut after), Err(CaptureError::Rewound(_))));
}

#[cfg(unix)]
#[test]
fn a_link_that_is_switched_leads_to_another_file() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let link = store.directory.path().join("current.sqlite");
    std::os::unix::fs::symlink(&store.path, &link).expect("links");
    let mut source = SqliteSource::open(&link).expect("opens");
    source.install(&[TableSpec { table: "t".to_owned(), excluded: Vec::new() }], "j").expect("installs");
    load_all(&mut source);
    assert!(source.check().expect("checks").is_ok());
    let other = store.directory.path().join("other.sqlite");
    std::fs::copy(&store.path, &other).expect("copies");
    std::fs::remove_file(&link).expect("removes");
    std::os::unix::fs::symlink(&other, &link).expect("links");
    assert!(source.check().expect("checks").is_blind());
    assert!(matches!(source.heads(), Err(CaptureError::Replaced)));
    source.take_up();
    assert!(source.check().expect("checks").is_ok());
}

#[test]
fn a_column_is_left_out_however_it_is_spelled() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, note, v); INSERT INTO t VALUES (1, 'secret', 'a')");
    let mut source = store.capture(&["t:NOTE"]);
    load_all(&mut source);
    for _ in 0..2 {
        assert_eq!(source.check().expect("checks"), Health::default());
        // The schema moves, so that the next check looks at the table.
        store.sql("CREATE TABLE IF NOT EXISTS other (id); UPDATE t SET note = 'hidden', v = 'b'");
    }
    assert_eq!(source.excluded("t").expect("reads"), Some(vec!["note".to_owned()]));
    let mut after = Seq(0);
    while let Some(changes) = source.read(after.into(), 100, 1 << 20).expect("reads") {
        for part in changes.tables.iter().filter(|part| part.table == "t") {
            assert!(part.rows.column_by_name("note").is_none() && part.rows.column_by_name("NOTE").is_none());
        }
        after = changes.last;
    }
    same(&store, &mut source, "t", "SELECT id, v FROM t");
}

#[test]
fn a_program_that_clears_sqlite_sequence_sets_no_journal_back() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    let head = source.heads().expect("reads").head;
    store.sql("DELETE FROM sqlite_sequence");
    assert_eq!(source.heads().expect("nothing went back").head, head);
    store.sql("INSERT INTO t VALUES (2)");
    assert_eq!(source.heads().expect("reads").head, Seq(head.0 + 1));
    same(&store, &mut source, "t", "SELECT id FROM t");
}

#[test]
fn rows_with_null_in_the_key_are_not_counted() {
    let store = Store::new("CREATE TABLE t (code TEXT PRIMARY KEY, v); INSERT INTO t VALUES (NULL, 0)");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    assert_eq!(source.count_rows().expect("counts"), Health::default());
    for sql in [
        "INSERT INTO t VALUES (NULL, 1), (NULL, 2), ('a', 3)",
        "DELETE FROM t WHERE v = 1",
        "UPDATE t SET code = 'b' WHERE v = 2; UPDATE t SET code = NULL WHERE v = 3",
        "DELETE FROM t WHERE code IS NULL",
    ] {
        store.sql(sql);
        assert_eq!(source.count_rows().expect("counts"), Health::default(), "{sql}");
    }
    without_triggers(&store, "DELETE FROM t WHERE code = 'b'");
    assert_eq!(source.count_rows().expect("counts").mended.len(), 1);
}

#[test]
fn changes_that_were_pruned_to_the_last_are_not_missed_by_the_count() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    assert_eq!(source.count_rows().expect("counts"), Health::default());
    store.sql("INSERT INTO t VALUES (1), (2); DELETE FROM _rollcall_journal");
    assert_eq!(source.count_rows().expect("counts"), Health::default());
}

#[test]
fn a_table_made_anew_in_another_spelling_is_loaded_to_its_end() {
    let store = Store::new("CREATE TABLE Orders (id INTEGER PRIMARY KEY, v); INSERT INTO Orders VALUES (1, 'a')");
    let mut source = store.capture(&["Orders"]);
    store.sql("DROP TABLE Orders; CREATE TABLE orders (id INTEGER PRIMARY KEY, v); INSERT INTO orders VALUES (2, 'b'), (3, 'c')");
    source.check().expect("checks");
    // A load that does not advance never ends.
    let steps = (0..100).take_while(|_| source.load_step().expect("loads") != LoadProgress::Idle).count();
    assert!(steps < 100, "the load goes in circles");
    same(&store, &mut source, "Orders", "SELECT * FROM orders");
}

#[test]
fn a_transaction_that_a_power_cut_broke_off_is_called_so() {
    let store = Store::new("PRAGMA journal_mode = DELETE; CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    // What does not fit its cache is in the file when it ends.
    let script = "import os
db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN')
for _ in range(300): db.execute('INSERT INTO t (v) VALUES (zeroblob(3000))')
os._exit(0)";
    python(script, &store.path, &[]);
    let error = source.heads().expect_err("only a writer may undo it");
    assert!(matches!(error, CaptureError::BrokenOff { .. }), "{error:?}");
    assert!(error.to_string().contains("(a power cut)"), "{error}");
    assert_eq!(store.sql("SELECT count(*) FROM t").trim(), "0");
    source.heads().expect("the store's program put it right");
}
