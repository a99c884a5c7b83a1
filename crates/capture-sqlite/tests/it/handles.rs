//! One test for each thing a store's database may do to a capture. The goal of all: HQ, replaying
//! the journal by its own rules, holds exactly the store's rows.

use std::time::Duration;

use rollcall_capture::{PruneLimits, Source, TableSpec};
use rollcall_capture_conformance::Model;
use rollcall_capture_sqlite::SqliteSource;
use rollcall_types::Seq;
use rusqlite::Connection;

use crate::{
    model::truth,
    store::{Store, load_all},
};

fn check(store: &Store, source: &mut SqliteSource, table: &str, select: &str) -> Model {
    let model = Model::replay(source, table);
    assert_eq!(model.rows(), truth(&store.path, select), "journal {}", model.ops);
    assert_eq!(source.count_rows().expect("counts").mended, Vec::<String>::new(), "no false alarm");
    model
}

#[test]
fn plain_changes_and_rows_from_before() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1,'a'),(2,'b')");
    let mut source = store.capture(&["t"]);
    store.sql("INSERT INTO t VALUES (3,'c'); UPDATE t SET v='B' WHERE id=2; DELETE FROM t WHERE id=1");
    load_all(&mut source);
    let model = check(&store, &mut source, "t", "SELECT * FROM t");
    assert_eq!(model.ops, "IUDUU", "rows touched since the load began are stated as updates");
}

#[test]
fn a_table_without_primary_key() {
    let store = Store::new("CREATE TABLE t (v TEXT); INSERT INTO t VALUES ('a'),('a')");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    store.sql("INSERT INTO t VALUES ('a'); UPDATE t SET v='b' WHERE rowid=2; DELETE FROM t WHERE rowid=1");
    check(&store, &mut source, "t", "SELECT rowid, v FROM t");
}

#[test]
fn vacuum_that_renumbers_reloads_the_table() {
    let store = Store::new("CREATE TABLE t (v TEXT); INSERT INTO t VALUES ('a'),('b'),('c')");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    source.check().expect("checks");
    store.sql("DELETE FROM t WHERE rowid=1; VACUUM");
    let health = source.check().expect("checks");
    assert_eq!(health.mended.len(), 1, "{health:?}");
    load_all(&mut source);
    check(&store, &mut source, "t", "SELECT rowid, v FROM t");
}

#[test]
fn composite_keys_and_without_rowid() {
    for suffix in ["", "WITHOUT ROWID"] {
        let store = Store::new(&format!(
            "CREATE TABLE t (a TEXT NOT NULL, b INT NOT NULL, v, PRIMARY KEY (b, a)) {suffix};
             INSERT INTO t VALUES ('x',1,'one'),('y',1,'two'),('x',2,'three')"
        ));
        let mut source = store.capture(&["t"]);
        store.sql("UPDATE t SET v='TWO' WHERE a='y'; DELETE FROM t WHERE b=2; INSERT INTO t VALUES ('z',9,'nine')");
        load_all(&mut source);
        store.sql("REPLACE INTO t VALUES ('z',9,'NINE'); UPDATE t SET b=7 WHERE a='x'");
        check(&store, &mut source, "t", "SELECT * FROM t");
    }
}

#[test]
fn an_update_that_changes_the_key() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1,'a'),(2,'b')");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    store.sql("UPDATE t SET id=id+10; UPDATE OR REPLACE t SET id=12 WHERE id=11");
    check(&store, &mut source, "t", "SELECT * FROM t");
}

#[test]
fn keys_that_differ_only_in_case() {
    let store =
        Store::new("CREATE TABLE t (id TEXT COLLATE NOCASE PRIMARY KEY, v INT); INSERT INTO t VALUES ('abc',1)");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    store.sql("REPLACE INTO t VALUES ('ABC',2); UPDATE t SET id='aBc'; INSERT OR IGNORE INTO t VALUES ('abC',3)");
    check(&store, &mut source, "t", "SELECT * FROM t");
}

#[test]
fn replace_with_two_unique_keys_deletes_other_rows() {
    let store = Store::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, code TEXT UNIQUE, name TEXT, UNIQUE (name));
         INSERT INTO t VALUES (1,'a','one'),(2,'b','two'),(3,'c','three')",
    );
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    store.sql("INSERT OR REPLACE INTO t VALUES (1,'b','three')");
    let model = check(&store, &mut source, "t", "SELECT * FROM t");
    assert_eq!(model.ops.matches('D').count(), 2, "both other rows are told as deleted: {}", model.ops);
    store.sql("REPLACE INTO t VALUES (9,'x','y'); UPDATE OR REPLACE t SET code='x' WHERE id=1");
    check(&store, &mut source, "t", "SELECT * FROM t");
    store.sql("PRAGMA recursive_triggers=ON; REPLACE INTO t VALUES (5,'x','z'); REPLACE INTO t VALUES (5,'q','z')");
    check(&store, &mut source, "t", "SELECT * FROM t");
}

#[test]
fn or_ignore_and_upsert() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, code TEXT UNIQUE); INSERT INTO t VALUES (1,'a')");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    store.sql(
        "INSERT OR IGNORE INTO t VALUES (1,'zzz'); INSERT OR IGNORE INTO t VALUES (2,'a'), (3,'c');
         DELETE FROM t WHERE id=1; INSERT INTO t VALUES (1,'again');
         INSERT INTO t VALUES (3,'x') ON CONFLICT (id) DO UPDATE SET code='upserted';
         INSERT INTO t VALUES (4,'upserted') ON CONFLICT DO NOTHING",
    );
    check(&store, &mut source, "t", "SELECT * FROM t");
}

#[test]
fn foreign_key_cascades() {
    let store = Store::new(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY, v TEXT);
         CREATE TABLE child (id INTEGER PRIMARY KEY, parent INT REFERENCES parent(id) ON DELETE CASCADE ON UPDATE CASCADE);
         INSERT INTO parent VALUES (1,'a'),(2,'b'); INSERT INTO child VALUES (10,1),(11,1),(20,2)",
    );
    let mut source = store.capture(&["parent", "child"]);
    load_all(&mut source);
    store.sql("PRAGMA foreign_keys=ON; DELETE FROM parent WHERE id=1; UPDATE parent SET id=5 WHERE id=2");
    check(&store, &mut source, "parent", "SELECT * FROM parent");
    check(&store, &mut source, "child", "SELECT * FROM child");
}

#[test]
fn the_stores_own_triggers_change_the_row() {
    let store = Store::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, updated_at TEXT);
         CREATE TRIGGER stamp AFTER UPDATE ON t BEGIN UPDATE t SET updated_at='stamped '||NEW.v WHERE id=NEW.id; END;
         CREATE TRIGGER stamp_new AFTER INSERT ON t BEGIN UPDATE t SET updated_at='new' WHERE id=NEW.id; END;
         CREATE TRIGGER move AFTER INSERT ON t WHEN NEW.id=50 BEGIN UPDATE t SET id=500 WHERE id=50; END;
         INSERT INTO t VALUES (1,'a',NULL)",
    );
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    store.sql("INSERT INTO t VALUES (2,'b',NULL); UPDATE t SET v='A' WHERE id=1; INSERT INTO t VALUES (50,'m',NULL)");
    check(&store, &mut source, "t", "SELECT * FROM t");
}

#[test]
fn two_tables_in_one_transaction_and_a_rollback() {
    let store = Store::new("CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (id INTEGER PRIMARY KEY, a INT)");
    let mut source = store.capture(&["a", "b"]);
    store.sql(
        "BEGIN; INSERT INTO a VALUES (1); INSERT INTO b VALUES (1,1); COMMIT;
         BEGIN; INSERT INTO a VALUES (2); INSERT INTO b VALUES (2,2); ROLLBACK;
         BEGIN; INSERT INTO b VALUES (3,1); INSERT INTO a VALUES (3); COMMIT",
    );
    check(&store, &mut source, "a", "SELECT * FROM a");
    check(&store, &mut source, "b", "SELECT * FROM b");
}

#[test]
fn add_column_while_running_repeats_the_rows() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1,'a')");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    source.check().expect("checks");
    // The second row is written before new triggers exist; the first gets the default.
    store.sql("ALTER TABLE t ADD COLUMN n INTEGER DEFAULT 7; INSERT INTO t VALUES (2,'b',8)");
    let health = source.check().expect("checks");
    assert_eq!(health.mended.len(), 1, "{health:?}");
    store.sql("INSERT INTO t VALUES (3,'c',9)");
    load_all(&mut source);
    check(&store, &mut source, "t", "SELECT * FROM t");
}

#[test]
fn drop_column_fails_until_detached() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, n INT); INSERT INTO t VALUES (1,'a',1)");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    let (ok, _, error) = store.try_sql("ALTER TABLE t DROP COLUMN n");
    assert!(!ok && error.contains("_rollcall_"), "the error names our trigger: {error}");
    source.detach(Some("t"), false).expect("detaches");
    store.sql("ALTER TABLE t DROP COLUMN n");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    let model = check(&store, &mut source, "t", "SELECT * FROM t");
    assert!(model.ops.ends_with('S'), "joined again, rows are stated again: {}", model.ops);
}

#[test]
fn dropped_triggers_are_restored_and_the_rows_stated_again() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1,'a')");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    assert!(source.check().expect("checks").is_ok());
    store.sql("DROP TRIGGER _rollcall_ai_t; INSERT INTO t VALUES (2,'unseen'); DELETE FROM t WHERE id=1");
    let health = source.check().expect("checks");
    assert_eq!(health.mended.len(), 1, "{health:?}");
    load_all(&mut source);
    check(&store, &mut source, "t", "SELECT * FROM t");
}

#[test]
fn rows_that_bypass_the_triggers_are_found_by_their_number() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1,'a')");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    assert_eq!(source.count_rows().expect("looks").mended, Vec::<String>::new());
    let conn = Connection::open(&store.path).expect("opens");
    conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).expect("sets");
    conn.execute("INSERT INTO t VALUES (2,'unseen')", []).expect("inserts");
    assert_eq!(source.count_rows().expect("looks").mended.len(), 1);
    load_all(&mut source);
    check(&store, &mut source, "t", "SELECT * FROM t");
    assert_eq!(source.count_rows().expect("looks").mended, Vec::<String>::new(), "found once, not for ever");
}

#[test]
fn a_replaced_or_removed_file_is_noticed() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let mut source = store.capture(&["t"]);
    assert!(source.check().expect("checks").is_ok());
    let aside = store.directory.path().join("aside.sqlite");
    std::fs::rename(&store.path, &aside).expect("renames");
    assert!(!source.check().expect("checks").is_ok(), "gone");
    std::fs::copy(&aside, &store.path).expect("copies");
    assert!(!source.check().expect("checks").is_ok(), "another file");
}

#[test]
fn values_that_do_not_match_the_declared_type_are_kept() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, d DECIMAL(6,2), s TEXT, b BLOB)");
    let mut source = store.capture(&["t"]);
    store.sql("INSERT INTO t VALUES (1,'many',1.25,x'ff','text'), (2,3,1.255,'ok',x'00')");
    let model = Model::replay(&mut source, "t");
    assert_eq!(model.misfits, [r#"{"b":"text","n":"many","s":{"hex":"ff"}}"#, r#"{"d":1.255}"#,]);
    assert_eq!(model.rows()[0], ["1", "NULL", "125", "NULL", "NULL"]);
    assert_eq!(model.rows()[1], ["2", "3", "NULL", "ok", "[0]"]);
}

#[test]
fn rollback_journal_mode_and_writers_without_busy_timeout() {
    // The store's mode is left alone, and while nobody reads a till without a timeout is never
    // refused.
    let store = Store::new("PRAGMA journal_mode=DELETE; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)");
    let mut source = store.capture(&["t"]);
    let till = Connection::open(&store.path).expect("opens");
    till.busy_timeout(Duration::ZERO).expect("sets");
    for id in 0..200_i64 {
        till.execute("INSERT INTO t VALUES (?1, 'x')", [id]).expect("the till is never refused between reads");
        source.read(Seq(id.unsigned_abs()).into(), 100, 1 << 20).expect("reads");
    }
    let mode: String = till.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("reads");
    assert_eq!(mode, "delete");
    check(&store, &mut source, "t", "SELECT * FROM t");
}

#[test]
fn a_large_table_loads_in_chunks_beside_live_changes() {
    let store = Store::new(
        "PRAGMA journal_mode=WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000) INSERT INTO t SELECT i*2,'old '||i FROM n",
    );
    let mut source = store.capture(&["t"]);
    let till = Connection::open(&store.path).expect("opens");
    for step in 0..30 {
        source.load_step().expect("loads");
        let id = step * 331 % 10_000;
        till.execute("REPLACE INTO t VALUES (?1, 'live')", [id]).expect("writes");
        till.execute("DELETE FROM t WHERE id = ?1", [id + 2]).expect("writes");
        till.execute("UPDATE t SET id = id + 1 WHERE id = ?1", [9_000 - step * 50]).expect("writes");
        if step % 10 == 9 {
            // The agent is killed and started again.
            source = SqliteSource::open(&store.path).expect("opens");
        }
    }
    load_all(&mut source);
    check(&store, &mut source, "t", "SELECT * FROM t");
}

#[test]
fn a_locked_file_is_an_error_to_retry() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)");
    let mut source = store.capture(&["t"]);
    let till = Connection::open(&store.path).expect("opens");
    till.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2)").expect("locks");
    let error = source.load_step().expect_err("the file is locked");
    assert!(error.is_busy(), "{error:?}");
    till.execute_batch("COMMIT").expect("commits");
    load_all(&mut source);
    check(&store, &mut source, "t", "SELECT * FROM t");
}

#[test]
fn a_full_disk_fails_the_stores_write_whole() {
    // A change and its journal row share a fate: with no room for the journal row there is no
    // change either.
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)");
    let mut source = store.capture(&["t"]);
    let till = Connection::open(&store.path).expect("opens");
    let pages: i64 = till.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("reads");
    till.query_row(&format!("PRAGMA max_page_count = {}", pages + 8), [], |_| Ok(())).expect("sets");
    let mut full = false;
    for id in 0..50 {
        full |= till.execute("INSERT INTO t VALUES (?1, zeroblob(2000))", [id]).is_err();
    }
    assert!(full, "the file never filled");
    check(&store, &mut source, "t", "SELECT * FROM t");
}

#[test]
fn excluded_columns_never_reach_the_journal() {
    let store =
        Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, card TEXT, v TEXT); INSERT INTO t VALUES (1,'4111','a')");
    let mut source = store.capture(&["t:CARD"]);
    load_all(&mut source);
    store.sql("INSERT INTO t VALUES (2,'4222','b'); UPDATE t SET card='4333'");
    check(&store, &mut source, "t", "SELECT id, v FROM t");
    let dump = store.sql("SELECT * FROM _rollcall_journal");
    assert!(!dump.contains("4111") && !dump.contains("4222") && !dump.contains("4333"), "{dump}");
}

#[test]
fn what_cannot_be_captured_is_refused() {
    let store = Store::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT); CREATE UNIQUE INDEX u ON t (lower(name));
         CREATE VIEW v AS SELECT * FROM t",
    );
    let mut source = SqliteSource::open(&store.path).expect("opens");
    for (table, reason) in [("t", "expression"), ("v", "view"), ("nope", "no table")] {
        let spec = rollcall_capture::TableSpec { table: table.to_owned(), excluded: Vec::new() };
        let error = source.install(&[spec], "j").expect_err("refused").to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn only_confirmed_rows_are_pruned_and_positions_go_on() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let mut source = store.capture(&["t"]);
    assert_eq!(
        source.prune(Seq(1), PruneLimits { through: Seq(1), bytes: u64::MAX }).expect("prunes"),
        0,
        "a load needs its journal"
    );
    load_all(&mut source);
    store.sql("INSERT INTO t VALUES (1),(2),(3),(4)");
    let of_long_ago = |through| PruneLimits { through: Seq(through), bytes: u64::MAX };
    assert_eq!(source.prune(Seq(2), of_long_ago(0)).expect("prunes"), 0, "confirmed rows are kept for a while");
    assert_eq!(source.prune(Seq(2), of_long_ago(9)).expect("prunes"), 2, "and none that are not confirmed go");
    assert_eq!(source.oldest().expect("reads"), Seq(3));
    let too_large = PruneLimits { through: Seq(0), bytes: 0 };
    assert_eq!(source.prune(Seq(6), too_large).expect("prunes"), 4);
    store.sql("INSERT INTO t VALUES (5)");
    let changes = source.read(Seq(6).into(), 10, 1 << 20).expect("reads").expect("there is one");
    assert_eq!((changes.first, changes.last), (Seq(7), Seq(7)), "positions are never used twice");
}

#[test]
fn deleted_journal_rows_are_recorded_as_lost() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    store.sql("INSERT INTO t VALUES (1),(2),(3); DELETE FROM _rollcall_journal WHERE seq IN (3, 4)");
    let mut lost = Vec::new();
    let mut after = Seq(0);
    while let Some(changes) = source.read(after.into(), 100, 1 << 20).expect("reads") {
        assert_eq!(changes.first.0, after.0 + 1);
        let log = changes.tables.iter().find(|part| part.table == rollcall_types::columns::LOG_TABLE);
        lost.extend(log.map(|log| format!("{:?}", log.rows.column_by_name("c"))));
        after = changes.last;
    }
    assert!(lost.concat().contains("deleted before HQ confirmed"), "{lost:?}");
}

#[test]
fn a_wider_journal_is_digested_whole() {
    let store = Store::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY); CREATE TABLE wide (id INTEGER PRIMARY KEY, a, b, c, d, e)",
    );
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    // The statement that reads a row is kept from here on.
    let head = source.heads().expect("reads").head;
    source.row_digest(head).expect("reads").expect("a row");
    source.capture(&TableSpec { table: "wide".to_owned(), excluded: Vec::new() }).expect("captures");
    load_all(&mut source);
    store.sql("INSERT INTO wide VALUES (1, 2, 3, 4, 5, 6)");
    let head = source.heads().expect("reads").head;
    let digest = source.row_digest(head).expect("reads");
    assert_eq!(digest, SqliteSource::open(&store.path).expect("opens").row_digest(head).expect("reads"));
}

#[test]
fn a_value_too_long_to_be_sent_stays_behind_and_the_row_says_so() {
    let store = Store::new("CREATE TABLE t (id INTEGER PRIMARY KEY, a BLOB, b BLOB, n INT)");
    let mut source = store.capture(&["t"]);
    let mebibytes = |count: usize| count << 20;
    let insert = |id: u8, a: usize, b: usize, n: &str| {
        store.sql(&format!("INSERT INTO t VALUES ({id}, zeroblob({a}), zeroblob({b}), {n})"));
    };
    insert(1, mebibytes(40), 7, "x'ff00'");
    insert(2, mebibytes(20), mebibytes(20), "1");
    // Shorter than what a row may have, but not as JSON.
    insert(3, 1, 1, &format!("replace(hex(zeroblob({})), '0', char(1))", mebibytes(4)));
    let model = Model::replay(&mut source, "t");
    let expected = [
        format!(r#"{{"a":{{"bytes":{}}},"n":{{"hex":"ff00"}}}}"#, mebibytes(40)),
        format!(r#"{{"b":{{"bytes":{}}}}}"#, mebibytes(20)),
        format!(r#"{{"n":{{"bytes":{}}}}}"#, mebibytes(8)),
    ];
    assert_eq!(model.misfits, expected);
}

#[test]
fn an_update_amid_a_replace_does_not_hide_what_the_replace_removes() {
    let store = Store::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, code TEXT UNIQUE, n INT);
         CREATE TRIGGER number BEFORE INSERT ON t BEGIN UPDATE t SET n = n + 1 WHERE code = NEW.code; END;
         INSERT INTO t VALUES (1, 'a', 0), (2, 'b', 0)",
    );
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    store.sql("REPLACE INTO t VALUES (3, 'a', 0)");
    check(&store, &mut source, "t", "SELECT * FROM t");
    store.sql(
        "INSERT INTO t VALUES (9, 'b', 0) ON CONFLICT (code) DO UPDATE SET n = 7; UPDATE t SET id = 5 WHERE id = 2;
         DELETE FROM t WHERE id = 5; INSERT INTO t VALUES (2, 'b', 1); REPLACE INTO t VALUES (2, 'a', 2)",
    );
    check(&store, &mut source, "t", "SELECT * FROM t");
}

#[test]
fn notes_of_upserts_do_not_pile_up() {
    let store = Store::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INT); INSERT INTO t VALUES (1, 0), (2, 0);
         CREATE TRIGGER stamp AFTER UPDATE ON t WHEN NEW.n = 5 BEGIN UPDATE t SET n = 6 WHERE id = NEW.id; END",
    );
    let mut source = store.capture(&["t"]);
    load_all(&mut source);
    store.sql("INSERT INTO t VALUES (1, 0), (2, 0) ON CONFLICT (id) DO UPDATE SET n = n + 5");
    assert_eq!(store.sql("SELECT count(*) FROM _rollcall_noted").trim(), "0");
    check(&store, &mut source, "t", "SELECT * FROM t");
}
