//! SQLite passes the suite that every kind of captured database passes.

use std::{path::PathBuf, sync::Arc};

use proptest::prelude::*;
use rollcall_capture::Database;
use rollcall_capture_conformance::{self as conformance, Act, acts};
use rollcall_capture_sqlite::SqliteDatabase;
use rusqlite::{Connection, params};

use crate::model::truth;

const SCHEMA: &str = "
    CREATE TABLE items (id INTEGER PRIMARY KEY, code TEXT UNIQUE COLLATE NOCASE, pair INT, v TEXT, UNIQUE (pair, v));
    CREATE TABLE pairs (a INT NOT NULL, b TEXT NOT NULL, v TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;";

struct Till {
    _directory: tempfile::TempDir,
    path: PathBuf,
    conn: Connection,
}

impl Till {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("pos.sqlite");
        let conn = Connection::open(&path).expect("opens");
        conn.execute_batch(&format!("PRAGMA synchronous = OFF; {SCHEMA}")).expect("makes the tables");
        Self { _directory: directory, path, conn }
    }

    /// Whether the database did it.
    fn did(&self, act: &Act) -> bool {
        let done = match act {
            Act::Insert { id, code, pair, v } => {
                self.conn.execute("INSERT INTO items VALUES (?1, ?2, ?3, ?4)", params![id, code, pair, v])
            }
            Act::Move { id, to, code } => {
                self.conn.execute("UPDATE items SET id = ?2, code = ?3 WHERE id = ?1", params![id, to, code])
            }
            Act::Set { from, pair, v } => {
                self.conn.execute("UPDATE items SET pair = ?2, v = ?3 WHERE id >= ?1", params![from, pair, v])
            }
            Act::Delete { id, pair } => {
                self.conn.execute("DELETE FROM items WHERE id = ?1 OR pair = ?2", params![id, pair])
            }
            Act::Put { a, b, v } => self.conn.execute(
                "INSERT INTO pairs VALUES (?1, ?2, ?3) ON CONFLICT (a, b) DO UPDATE SET v = excluded.v",
                params![a, b, v],
            ),
            Act::DeletePairs { a } => self.conn.execute("DELETE FROM pairs WHERE a = ?1", [a]),
            Act::Together(acts, commits) => {
                self.conn.execute_batch("BEGIN").expect("begins");
                for act in acts {
                    self.did(act);
                }
                self.conn.execute_batch(if *commits { "COMMIT" } else { "ROLLBACK" }).expect("ends");
                return true;
            }
        };
        done.is_ok()
    }
}

impl conformance::Store for Till {
    fn database(&self) -> Arc<dyn Database> {
        Arc::new(SqliteDatabase::new(&self.path))
    }

    fn act(&mut self, act: &Act) {
        // A refused statement is part of the game.
        self.did(act);
    }

    fn rows(&self, table: &str) -> Vec<Vec<String>> {
        truth(&self.path, &format!("SELECT * FROM {table}"))
    }

    fn break_capture(&mut self, table: &str) {
        let sql = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?1";
        let mut statement = self.conn.prepare(sql).expect("prepares");
        let names = statement.query_map([table], |row| row.get::<_, String>(0)).expect("lists");
        let names: Vec<String> = names.collect::<Result<_, _>>().expect("reads");
        assert!(!names.is_empty());
        for name in names {
            self.conn.execute_batch(&format!("DROP TRIGGER \"{name}\"")).expect("drops");
        }
    }

    fn make_prices(&mut self) {
        let sql = "CREATE TABLE prices (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO prices VALUES (9, 'own')";
        self.conn.execute_batch(sql).expect("makes");
    }
}

#[test]
fn it_keeps_what_the_contract_promises() {
    conformance::what_is_promised(&mut || Box::new(Till::new()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_replays_to_the_stores_rows(history in prop::collection::vec((acts(), any::<bool>()), 1..25)) {
        conformance::any_history(&mut Till::new(), &history);
    }
}
