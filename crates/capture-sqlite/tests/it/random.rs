//! Random statements of every kind against a table with several unique keys, triggers of its own
//! and a cascade, beside a running load: the journal always replays to the store's rows.

use proptest::prelude::*;
use rollcall_capture::Source;
use rollcall_capture_conformance::Model;
use rollcall_capture_sqlite::SqliteSource;
use rusqlite::Connection;

use crate::{
    model::truth,
    store::{Store, load_all},
};

const SCHEMA: &str = "
    CREATE TABLE t (id INTEGER PRIMARY KEY, code TEXT UNIQUE COLLATE NOCASE, pair INT, v TEXT, UNIQUE (pair, v));
    CREATE TABLE w (a INT NOT NULL, b TEXT NOT NULL, v TEXT UNIQUE, PRIMARY KEY (a, b)) WITHOUT ROWID;
    CREATE TRIGGER stamp AFTER UPDATE ON t WHEN NEW.pair = 3 BEGIN UPDATE t SET v = 'stamped' WHERE id = NEW.id; END;
    INSERT INTO t VALUES (1,'a',1,'x'),(2,'b',1,'y'),(3,'c',2,'x'),(7,NULL,NULL,NULL);
    INSERT INTO w VALUES (1,'a','x'),(1,'b','y'),(2,'a',NULL);";

fn statement() -> impl Strategy<Value = String> {
    let conflict = prop_oneof![Just(""), Just("OR REPLACE"), Just("OR IGNORE"), Just("OR FAIL"), Just("OR ROLLBACK")];
    let code = prop_oneof![Just("'a'"), Just("'A'"), Just("'b'"), Just("'c'"), Just("NULL")];
    let value = prop_oneof![Just("'x'"), Just("'y'"), Just("NULL")];
    (0..7, conflict, 1..6_i64, 1..6_i64, code, 1..4_i64, value).prop_map(|(kind, or, id, other, code, pair, v)| {
        match kind {
            0 => format!("INSERT {or} INTO t VALUES ({id},{code},{pair},{v})"),
            1 => format!("UPDATE {or} t SET id={id}, code={code} WHERE id={other}"),
            2 => format!("UPDATE {or} t SET pair={pair}, v={v} WHERE id>={other}"),
            3 => format!("DELETE FROM t WHERE id={id} OR pair={pair}"),
            4 => format!(
                "INSERT INTO t (code, pair) VALUES ({code},{pair}) ON CONFLICT (code) DO UPDATE SET pair={pair}"
            ),
            5 => format!("INSERT {or} INTO w VALUES ({pair},'a',{v})"),
            _ => format!("UPDATE {or} w SET a={pair}, v={v} WHERE a={other}"),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_replays_to_the_stores_rows(
        statements in prop::collection::vec((statement(), any::<bool>()), 1..25),
        recursive in any::<bool>(),
    ) {
        let store = Store::new(SCHEMA);
        let mut source: SqliteSource = store.capture(&["t", "w"]);
        let till = Connection::open(&store.path).expect("opens");
        till.execute_batch(&format!("PRAGMA synchronous = OFF; PRAGMA recursive_triggers = {recursive}")).expect("sets");
        for (sql, step) in &statements {
            // A refused statement is part of the game.
            let _ = till.execute_batch(sql);
            if *step {
                source.load_step().expect("loads");
                let health = source.count_rows().expect("counts");
                prop_assert!(health.mended.is_empty(), "{:?} after {:?}", health, statements);
            }
        }
        load_all(&mut source);
        let health = source.count_rows().expect("counts");
        prop_assert!(health.mended.is_empty(), "{:?} after {:?}", health, statements);
        for table in ["t", "w"] {
            let model = Model::replay(&mut source, table);
            let expected = truth(&store.path, &format!("SELECT * FROM {table}"));
            prop_assert_eq!(model.rows(), expected, "table {} journal {} after {:?}", table, model.ops, statements);
        }
    }
}
