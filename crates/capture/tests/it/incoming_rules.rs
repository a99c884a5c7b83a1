//! HQ's tables in stores that have rules of their own: foreign keys, unique columns, checks, triggers, collations.
//!
//! Whatever HQ publishes, the store's own tables stay as they are, and HQ's table is as HQ has it, or the very rows in
//! which it is not are named.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow_array::{Array, Int64Array, RecordBatch, StringArray};
use proptest::{collection::vec, prelude::*};
use rollcall_capture::{CaptureError, Incoming, IncomingTable};
use rollcall_types::Seq;
use rusqlite::Connection;

/// What HQ has: by key, a number and a text.
type Image = BTreeMap<String, (Option<i64>, String)>;

struct Store {
    directory: tempfile::TempDir,
    incoming: Incoming,
    version: u64,
    /// What was applied last.
    image: Image,
}

impl Store {
    fn new(sql: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let conn = Connection::open(directory.path().join("store.sqlite")).expect("opens");
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF").expect("sets");
        conn.execute_batch(sql).expect("runs");
        let incoming = open(&directory);
        incoming.adopt("h").expect("adopts");
        Self { directory, incoming, version: 0, image: Image::new() }
    }

    fn conn(&self) -> Connection {
        Connection::open(self.directory.path().join("store.sqlite")).expect("opens")
    }

    fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let conn = self.conn();
        let mut statement = conn.prepare(sql).expect("a statement");
        let count = statement.column_count();
        let rows = statement.query_map([], |row| {
            (0..count)
                .map(|place| row.get::<_, rusqlite::types::Value>(place).map(|value| format!("{value:?}")))
                .collect()
        });
        rows.expect("reads").collect::<Result<_, _>>().expect("reads")
    }

    /// Makes the table what `next` is: whole, or by what differs from what was applied.
    fn take(&mut self, spec: &IncomingTable, next: &Image, whole: bool) -> Result<(), CaptureError> {
        let whole = whole || self.version == 0;
        let mut rows: Vec<(String, Option<(Option<i64>, String)>)> = Vec::new();
        for (key, value) in next {
            if whole || self.image.get(key) != Some(value) {
                rows.push((key.clone(), Some(value.clone())));
            }
        }
        if !whole {
            rows.extend(self.image.keys().filter(|key| !next.contains_key(*key)).map(|key| (key.clone(), None)));
        }
        let after = if whole { 0 } else { self.version };
        let spec = IncomingTable { audience: if whole { self.version + 1 } else { self.audience() }, ..spec.clone() };
        self.incoming.begin(&spec, Seq(after), whole)?;
        let version = self.version + 1;
        if !rows.is_empty() {
            self.incoming.stage("h", &batch(&rows), Seq(version))?;
        }
        self.incoming.apply("h", Seq(version), 0, false)?;
        (self.version, self.image) = (version, next.clone());
        Ok(())
    }

    fn audience(&self) -> u64 {
        self.incoming.applied().expect("reads")["h"].audience
    }

    fn restart(&mut self) {
        self.incoming = open(&self.directory);
    }

    /// Keys of rows that are named as differing.
    fn named(&self) -> BTreeMap<String, String> {
        let rows = self.rows("SELECT key, why FROM _rollcall_differing WHERE name = 'h'");
        let plain = |text: &String| text.trim_start_matches("Text(\"").trim_end_matches("\")").to_owned();
        rows.iter().map(|row| (plain(&row[0]).trim_matches('\'').to_owned(), plain(&row[1]))).collect()
    }

    /// Keys of HQ's rows that are not there as HQ has them, and of rows that HQ has not.
    fn differing(&self) -> BTreeSet<String> {
        let conn = self.conn();
        let mut statement = conn.prepare("SELECT k, u, v FROM h").expect("a table");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)))).expect("reads");
        let there: Image = rows.collect::<Result<_, _>>().expect("reads");
        let keys = self.image.keys().chain(there.keys());
        keys.filter(|key| self.image.get(*key) != there.get(*key)).cloned().collect()
    }
}

fn open(directory: &tempfile::TempDir) -> Incoming {
    Incoming::open(&directory.path().join("store.sqlite"), &directory.path().join("state")).expect("opens")
}

fn spec(keeps_referenced: bool) -> IncomingTable {
    let column = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
    IncomingTable {
        name: "h".to_owned(),
        columns: vec![column("k", "string"), column("u", "long"), column("v", "string")],
        key: vec!["k".to_owned()],
        audience: 1,
        mends: true,
        shared: false,
        keeps_referenced,
        rewritten: Vec::new(),
    }
}

fn batch(rows: &[(String, Option<(Option<i64>, String)>)]) -> RecordBatch {
    let ops = StringArray::from_iter_values(rows.iter().map(|row| if row.1.is_some() { "U" } else { "D" }));
    let keys = StringArray::from_iter_values(rows.iter().map(|row| row.0.as_str()));
    let numbers: Int64Array = rows.iter().map(|row| row.1.as_ref().and_then(|value| value.0)).collect();
    let texts: StringArray = rows.iter().map(|row| row.1.as_ref().map(|value| value.1.as_str())).collect();
    let columns: [(&str, Arc<dyn Array>); 4] =
        [("_op", Arc::new(ops)), ("k", Arc::new(keys)), ("u", Arc::new(numbers)), ("v", Arc::new(texts))];
    RecordBatch::try_from_iter(columns).expect("rows")
}

fn image(rows: &[(&str, i64, &str)]) -> Image {
    rows.iter().map(|(key, number, text)| ((*key).to_owned(), (Some(*number), (*text).to_owned()))).collect()
}

/// Every action that a foreign key may have.
const ACTIONS: [&str; 5] = ["CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT", "NO ACTION"];

#[test]
fn hqs_deletes_do_nothing_to_rows_of_the_stores_own() {
    for action in ACTIONS {
        let mut store = Store::new(&format!(
            "CREATE TABLE h (k TEXT PRIMARY KEY, u INTEGER, v TEXT);
             CREATE TABLE c (id INTEGER PRIMARY KEY, k TEXT DEFAULT 'z' REFERENCES h(k) ON DELETE {action} ON UPDATE {action});"
        ));
        let both = image(&[("a", 1, "x"), ("b", 2, "y")]);
        store.take(&spec(false), &both, true).expect("applies");
        store.conn().execute_batch("INSERT INTO c VALUES (1, 'a'), (2, 'b'), (3, NULL)").expect("inserts");
        let own = store.rows("SELECT * FROM c");
        store.take(&spec(false), &image(&[("b", 2, "y")]), false).expect("applies");
        assert_eq!(store.rows("SELECT * FROM c"), own, "{action}");
        assert_eq!(store.differing(), BTreeSet::new(), "{action}");
        assert_eq!(store.incoming.applied().expect("reads")["h"].dangling, 1, "{action}: it is told");
        store.take(&spec(false), &Image::new(), true).expect("applies");
        assert_eq!((store.rows("SELECT * FROM c"), store.differing()), (own, BTreeSet::new()), "{action}, whole");
        assert_eq!(store.incoming.applied().expect("reads")["h"].dangling, 2, "{action}: it is told");
        store.take(&spec(false), &both, false).expect("applies");
        store.take(&spec(false), &image(&[("a", 1, "x"), ("b", 3, "y")]), false).expect("applies");
        assert_eq!(store.incoming.applied().expect("reads")["h"].dangling, 0, "{action}: it is over");
    }
}

#[test]
fn a_row_that_is_named_stays_where_references_are_to_be_whole() {
    let mut store = Store::new(
        "CREATE TABLE h (k TEXT PRIMARY KEY, u INTEGER, v TEXT);
         CREATE TABLE c (id INTEGER PRIMARY KEY, k TEXT REFERENCES h(k) ON DELETE CASCADE)",
    );
    store.take(&spec(true), &image(&[("a", 1, "x"), ("b", 2, "y"), ("c", 3, "z")]), true).expect("applies");
    store.conn().execute_batch("INSERT INTO c VALUES (1, 'a')").expect("inserts");
    store.take(&spec(true), &image(&[("c", 3, "z")]), false).expect("applies");
    assert_eq!(store.rows("SELECT k FROM h ORDER BY 1").len(), 2, "b alone is gone");
    assert_eq!(store.named().into_keys().collect::<Vec<_>>(), ["a"]);
    let told = store.incoming.applied().expect("reads")["h"].clone();
    assert_eq!((told.version, told.differing, told.dangling), (Seq(2), 1, 0));
    assert!(told.differences.contains("1 row is not as HQ has them: 'a'"), "{}", told.differences);
    // Once nothing names it, it goes.
    store.conn().execute_batch("DELETE FROM c").expect("deletes");
    store.take(&spec(true), &image(&[("c", 3, "z")]), true).expect("applies");
    assert_eq!((store.differing(), store.named()), (BTreeSet::new(), BTreeMap::new()));
}

#[test]
fn what_a_store_makes_of_a_row_is_told_with_both_values() {
    let mut store = Store::new(
        "CREATE TABLE h (k TEXT PRIMARY KEY, u INTEGER, v TEXT);
         CREATE TRIGGER up AFTER UPDATE ON h BEGIN UPDATE h SET v = upper(v) WHERE k = NEW.k; END;",
    );
    store.take(&spec(false), &image(&[("a", 1, "x"), ("b", 2, "y")]), true).expect("applies");
    assert_eq!(store.named().len(), 0);
    store.take(&spec(false), &image(&[("a", 1, "new"), ("b", 2, "y")]), false).expect("applies");
    assert_eq!(store.named()["a"], "v: HQ sent 'new', the store has 'NEW'");
    assert!(store.incoming.is_as_applied("h").expect("reads"), "it is no edit, and not put right for ever");
    // A person may say that this column is the store's to change.
    let accepted = IncomingTable { rewritten: vec!["v".to_owned()], ..spec(false) };
    store.take(&accepted, &image(&[("a", 1, "newer"), ("b", 2, "y")]), true).expect("applies");
    assert_eq!(store.named().len(), 0);
    assert_eq!(store.incoming.applied().expect("reads")["h"].differing, 0);
    assert!(store.incoming.is_as_applied("h").expect("reads"), "nor is that an edit");
}

#[test]
fn triggers_of_the_stores_write_what_they_always_write() {
    // A conflict clause of ours would take the place of theirs.
    let mut store = Store::new(
        "CREATE TABLE h (k TEXT PRIMARY KEY, u INTEGER UNIQUE, v TEXT, own TEXT DEFAULT 'mine');
         CREATE TABLE cache (k TEXT PRIMARY KEY, v TEXT);
         CREATE TRIGGER i AFTER INSERT ON h BEGIN INSERT OR REPLACE INTO cache VALUES (NEW.k, NEW.v); END;
         CREATE TRIGGER o AFTER UPDATE ON h BEGIN INSERT OR REPLACE INTO cache VALUES (NEW.k, NEW.v); END;",
    );
    store.take(&spec(false), &image(&[("a", 1, "x"), ("b", 2, "y"), ("c", 3, "z")]), true).expect("applies");
    store.conn().execute_batch("UPDATE h SET own = 'kept'").expect("updates");
    store.take(&spec(false), &image(&[("a", 1, "x2"), ("b", 3, "y2"), ("c", 2, "z2")]), false).expect("applies");
    assert_eq!((store.differing(), store.named()), (BTreeSet::new(), BTreeMap::new()));
    assert_eq!(store.rows("SELECT DISTINCT own FROM h"), [["Text(\"kept\")"]]);
    assert_eq!(store.rows("SELECT k, v FROM cache ORDER BY k").len(), 3);
    // A store that lets no row in loses none either.
    store
        .conn()
        .execute_batch("CREATE TRIGGER no BEFORE INSERT ON h BEGIN SELECT RAISE(ABORT, 'closed'); END")
        .expect("runs");
    store
        .take(&spec(false), &image(&[("a", 9, "x3"), ("b", 2, "y3"), ("c", 3, "z3"), ("d", 4, "w")]), false)
        .expect("applies");
    assert_eq!(store.named().into_keys().collect::<Vec<_>>(), ["b", "c", "d"]);
    assert_eq!(store.rows("SELECT own FROM h").len(), 3, "what was there is there");
}

#[test]
fn every_row_that_differs_is_counted() {
    let mut store = Store::new(
        "CREATE TABLE h (k TEXT PRIMARY KEY, u INTEGER, v TEXT);
         CREATE TRIGGER up AFTER INSERT ON h BEGIN UPDATE h SET v = 'other' WHERE k = NEW.k; END;",
    );
    let many: Image = (0..500).map(|key| (format!("k{key}"), (Some(key), "sent".to_owned()))).collect();
    store.take(&spec(false), &many, true).expect("applies");
    assert_eq!(store.incoming.applied().expect("reads")["h"].differing, 500);
    let fewer: Image = many.iter().skip(100).map(|(key, value)| (key.clone(), value.clone())).collect();
    store.take(&spec(false), &fewer, false).expect("applies");
    assert_eq!(store.incoming.applied().expect("reads")["h"].differing, 400);
}

#[test]
fn two_rows_may_swap_what_must_be_unique() {
    for whole in [false, true] {
        let mut store =
            Store::new("CREATE TABLE h (k TEXT PRIMARY KEY, u INTEGER UNIQUE, v TEXT, own TEXT DEFAULT 'mine')");
        store.take(&spec(false), &image(&[("a", 1, "x"), ("b", 2, "y"), ("c", 3, "z")]), true).expect("applies");
        store.conn().execute_batch("UPDATE h SET own = 'kept' WHERE k = 'a'").expect("updates");
        let swapped = image(&[("a", 2, "x"), ("b", 3, "y"), ("c", 1, "z"), ("d", 4, "new")]);
        store.take(&spec(false), &swapped, whole).expect("applies");
        assert_eq!((store.differing(), store.named()), (BTreeSet::new(), BTreeMap::new()));
        let own = store.rows("SELECT k, own FROM h ORDER BY k");
        let own: Vec<&str> = own.iter().map(|row| row[1].as_str()).collect();
        assert_eq!(own, ["Text(\"kept\")", "Text(\"mine\")", "Text(\"mine\")", "Text(\"mine\")"]);
        // A row that breaks the rule is left out by itself.
        let broken = image(&[("a", 2, "x"), ("b", 2, "wrong"), ("c", 9, "right"), ("d", 4, "new")]);
        store.take(&spec(false), &broken, whole).expect("applies");
        assert_eq!(store.named().into_keys().collect::<Vec<_>>(), ["b"]);
        assert!(store.named()["b"].contains("UNIQUE constraint failed"), "{:?}", store.named());
        assert_eq!(store.differing(), BTreeSet::from(["b".to_owned()]));
    }
}

/// A store's schema: rules of HQ's table there, and tables of its own.
fn schema() -> impl Strategy<Value = String> {
    let collation = prop_oneof![3 => Just(""), 1 => Just("COLLATE NOCASE")];
    let unique = prop_oneof![
        Just("INTEGER"),
        Just("INTEGER UNIQUE"),
        Just("INTEGER UNIQUE ON CONFLICT REPLACE"),
        Just("INTEGER UNIQUE ON CONFLICT IGNORE"),
        Just("INTEGER NOT NULL ON CONFLICT IGNORE"),
        Just("INTEGER CHECK (u < 4)"),
    ];
    let more = prop_oneof![
        Just(""),
        Just(", own TEXT DEFAULT 'mine'"),
        Just(", doubled INTEGER GENERATED ALWAYS AS (u * 2) STORED"),
        Just(", parent INTEGER REFERENCES p(id)"),
    ];
    let triggers = prop_oneof![
        3 => Just(""),
        1 => Just("CREATE TRIGGER up AFTER UPDATE ON h BEGIN UPDATE h SET v = upper(v) WHERE k = NEW.k; END;"),
        1 => Just("CREATE TRIGGER ins AFTER INSERT ON h WHEN NEW.u = 2 BEGIN UPDATE h SET v = 'two' WHERE k = NEW.k; END;"),
        1 => Just("CREATE TRIGGER ign BEFORE UPDATE ON h WHEN NEW.u = 3 BEGIN SELECT RAISE(IGNORE); END;"),
        1 => Just("CREATE TRIGGER abo BEFORE INSERT ON h WHEN NEW.v = 'x' BEGIN SELECT RAISE(ABORT, 'no x'); END;"),
        1 => Just("CREATE TRIGGER del BEFORE DELETE ON h WHEN OLD.u = 1 BEGIN SELECT RAISE(IGNORE); END;"),
        1 => Just("CREATE TRIGGER den BEFORE DELETE ON h WHEN OLD.u = 2 BEGIN SELECT RAISE(ABORT, 'stays'); END;"),
        1 => Just("CREATE TRIGGER ini BEFORE INSERT ON h WHEN NEW.u = 4 BEGIN SELECT RAISE(IGNORE); END;"),
        1 => Just("CREATE TABLE cache (k TEXT PRIMARY KEY, u INTEGER);
            CREATE TRIGGER ca AFTER INSERT ON h BEGIN INSERT OR REPLACE INTO cache VALUES (NEW.k, NEW.u); END;
            CREATE TRIGGER cu AFTER UPDATE ON h BEGIN INSERT OR IGNORE INTO cache VALUES (NEW.k, NEW.u); END;"),
        1 => Just("CREATE VIEW seen AS SELECT k, missing FROM h;"),
    ];
    let (gone, moved) = (prop::sample::select(&ACTIONS[..]), prop::sample::select(&ACTIONS[..]));
    (collation, unique, more, vec(triggers, 0..2), gone, moved).prop_map(|(collation, unique, more, mut triggers, gone, moved)| {
        triggers.dedup();
        format!(
            "CREATE TABLE p (id INTEGER PRIMARY KEY); INSERT INTO p VALUES (1);
             CREATE TABLE h (k TEXT PRIMARY KEY {collation}, u {unique}, v TEXT{more});
             CREATE TABLE c (id INTEGER PRIMARY KEY, k TEXT DEFAULT 'a' REFERENCES h(k) ON DELETE {gone} ON UPDATE {moved});
             CREATE TABLE d (id INTEGER PRIMARY KEY, h TEXT REFERENCES h ON DELETE {gone} DEFERRABLE INITIALLY DEFERRED); {}",
            triggers.concat()
        )
    })
}

/// What HQ has next, and whether it is fetched whole.
fn publication() -> impl Strategy<Value = (Image, bool)> {
    let key = prop::sample::select(&["a", "A", "b", "c", "d"][..]);
    let value = (prop::option::weighted(0.9, 1..5_i64), prop::sample::select(&["x", "y", "Z"][..]));
    let row = (key, value).prop_map(|(key, (number, text))| (key.to_owned(), (number, text.to_owned())));
    (vec(row, 0..5), any::<bool>()).prop_map(|(rows, whole)| (rows.into_iter().collect(), whole))
}

/// Runs are many where nobody waits: `ROLLCALL_RUNS=2000 cargo test --release`.
fn runs() -> u32 {
    std::env::var("ROLLCALL_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(100)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: runs(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_store_is_unharmed_and_what_differs_is_named(
        schema in schema(),
        publications in vec((publication(), any::<bool>()), 1..6),
        keeps_referenced in any::<bool>(),
    ) {
        let mut store = Store::new(&schema);
        let spec = spec(keeps_referenced);
        for ((next, whole), restarts) in publications {
            // The store's own rows name whatever is there now, and what is not.
            let conn = store.conn();
            conn.execute_batch("PRAGMA foreign_keys = OFF; INSERT INTO c (k) SELECT k FROM h LIMIT 2; INSERT INTO d (h) VALUES ('nobody')").expect("inserts");
            drop(conn);
            if restarts {
                store.restart();
            }
            let own = ["SELECT * FROM c", "SELECT * FROM d", "SELECT * FROM p"].map(|sql| store.rows(sql));
            let before = store.version;
            let there = |store: &Store| -> BTreeSet<String> {
                store.rows("SELECT k FROM h").concat().iter().map(|key| key["Text(\"".len()..key.len() - 2].to_owned()).collect()
            };
            let had = there(&store);
            let taken = store.take(&spec, &next, whole);
            let after = ["SELECT * FROM c", "SELECT * FROM d", "SELECT * FROM p"].map(|sql| store.rows(sql));
            prop_assert_eq!(own, after, "the store's own rows: {}", &schema);
            if let Err(error) = taken {
                // Told as a whole, and nothing was done. A rule of the store's about rows is no reason for that.
                prop_assert!(matches!(error, CaptureError::Differs { .. }), "{:?}\n{}", error, &schema);
                let applied = store.incoming.applied().expect("reads").get("h").map_or(0, |known| known.version.0);
                prop_assert_eq!(applied, before);
                store.incoming.clear("h").expect("clears");
                continue;
            }
            let named: BTreeSet<String> = store.named().into_keys().collect();
            prop_assert_eq!(store.differing(), named, "{}\nnamed {:?}", &schema, store.named());
            let has = there(&store);
            let lost: Vec<&String> = had.difference(&has).filter(|key| next.contains_key(*key)).collect();
            prop_assert!(lost.is_empty(), "{:?} were there and are HQ's still\n{}", lost, &schema);
            prop_assert!(store.incoming.is_as_applied("h").expect("reads"), "what it has is known: {}", &schema);
            let applied = store.incoming.applied().expect("reads")["h"].clone();
            prop_assert_eq!(applied.differing == 0, applied.differences.is_empty());
        }
    }
}
