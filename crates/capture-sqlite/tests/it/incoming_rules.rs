//! HQ's tables in stores that have rules of their own: foreign keys, unique columns, checks,
//! triggers, collations.
//!
//! Whatever HQ publishes, the store's own tables stay as they are, and HQ's table is as HQ has it,
//! or the very rows in which it is not are named.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow_array::{Array, BooleanArray, Int64Array, RecordBatch, StringArray};
use proptest::{collection::vec, prelude::*};
use rollcall_capture::{CaptureError, DueChange, IncomingTable, Standing};
use rollcall_capture_sqlite::SqliteIncoming;
use rollcall_types::Seq;
use rusqlite::Connection;

/// What HQ has: by key, a number and a text.
type Image = BTreeMap<String, (Option<i64>, String)>;

struct Store {
    directory: tempfile::TempDir,
    incoming: SqliteIncoming,
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
        self.take_dying(spec, next, whole, 0)
    }

    /// The same, with an agent that dies after the steps that have a bit in `deaths`, and is
    /// started again.
    fn take_dying(&mut self, spec: &IncomingTable, next: &Image, whole: bool, deaths: u8) -> Result<(), CaptureError> {
        let dies = |own: &mut Self, step: u8| {
            if deaths & 1 << step != 0 {
                own.restart();
            }
        };
        let whole = whole || self.version == 0;
        let mut rows: Vec<Sent> = Vec::new();
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
        dies(self, 0);
        let version = self.version + 1;
        for (place, chunk) in rows.chunks(2).enumerate() {
            self.incoming.stage("h", &batch(chunk), Seq(version))?;
            dies(self, 1 + (place as u8).min(2));
        }
        dies(self, 4);
        self.incoming.apply("h", Seq(version), 0, false)?;
        dies(self, 5);
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

fn open(directory: &tempfile::TempDir) -> SqliteIncoming {
    SqliteIncoming::open(&directory.path().join("store.sqlite"), &directory.path().join("state")).expect("opens")
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

/// A row by its key, with its values; a deletion has none.
type Sent = (String, Option<(Option<i64>, String)>);

fn batch(rows: &[Sent]) -> RecordBatch {
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
        1 => Just("INTEGER"),
        5 => Just("INTEGER UNIQUE"),
        1 => Just("INTEGER UNIQUE ON CONFLICT REPLACE"),
        1 => Just("INTEGER UNIQUE ON CONFLICT IGNORE"),
        1 => Just("INTEGER NOT NULL ON CONFLICT IGNORE"),
        1 => Just("INTEGER CHECK (u < 4)"),
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
    let has_table = prop::bool::weighted(0.8);
    let all =
        (collation, unique, more, prop_oneof![2 => Just(Vec::new()), 1 => vec(triggers, 1..2)], gone, moved, has_table);
    all.prop_map(|(collation, unique, more, mut triggers, gone, moved, has_table)| {
        triggers.dedup();
        let table = match has_table {
            true => format!("CREATE TABLE h (k TEXT PRIMARY KEY {collation}, u {unique}, v TEXT{more});"),
            // It is made for HQ's rows.
            false => {
                triggers.clear();
                String::new()
            }
        };
        format!(
            "CREATE TABLE p (id INTEGER PRIMARY KEY); INSERT INTO p VALUES (1); {table}
             CREATE TABLE c (id INTEGER PRIMARY KEY, k TEXT DEFAULT 'a' REFERENCES h(k) ON DELETE {gone} ON UPDATE {moved});
             CREATE TABLE d (id INTEGER PRIMARY KEY, h TEXT REFERENCES h ON DELETE {gone} DEFERRABLE INITIALLY DEFERRED); {}",
            triggers.concat()
        )
    })
}

/// What HQ has next.
fn next_image() -> impl Strategy<Value = Image> {
    let key = prop::sample::select(&["a", "A", "b", "c", "d"][..]);
    let value = (prop::option::weighted(0.9, 1..5_i64), prop::sample::select(&["x", "y", "Z"][..]));
    let row = (key, value).prop_map(|(key, (number, text))| (key.to_owned(), (number, text.to_owned())));
    vec(row, 0..5).prop_map(|rows| rows.into_iter().collect())
}

/// What happens at a store.
#[derive(Debug, Clone)]
enum Step {
    /// HQ publishes, and the agent fetches the change, or the whole table; before some of its steps
    /// it dies.
    Publish { next: Image, whole: bool, deaths: u8 },
    /// HQ lets the rows exchange their numbers, which may have to be unique.
    Rotate { whole: bool },
    /// Rows take effect at their time.
    At(Image),
    /// The store's people change HQ's rows.
    Edit(&'static str),
    /// The site belongs to another audience, which has no row of the table.
    Leave,
}

/// What a store's people may do to HQ's rows. Each is one statement: some of them fail by the
/// store's rules.
const EDITS: [&str; 7] = [
    "UPDATE h SET v = 'mine' WHERE k = 'a'",
    "UPDATE h SET u = NULL",
    "DELETE FROM h WHERE k IN ('b', 'c')",
    "INSERT INTO h (k, u, v) VALUES ('q', 7, 'own')",
    "DELETE FROM h",
    "DROP TABLE h",
    "ALTER TABLE h RENAME TO elsewhere",
];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (next_image(), any::<bool>(), any::<u8>()).prop_map(|(next, whole, deaths)| Step::Publish { next, whole, deaths }),
        2 => any::<bool>().prop_map(|whole| Step::Rotate { whole }),
        1 => next_image().prop_map(Step::At),
        2 => prop::sample::select(&EDITS[..]).prop_map(Step::Edit),
        1 => Just(Step::Leave),
    ]
}

/// Runs are many where nobody waits: `ROLLCALL_RUNS=2000 cargo test --release`.
fn runs() -> u32 {
    std::env::var("ROLLCALL_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(100)
}

/// The tables of the store's own.
fn own_rows(store: &Store) -> [Vec<Vec<String>>; 3] {
    ["SELECT * FROM c", "SELECT * FROM d", "SELECT * FROM p"].map(|sql| store.rows(sql))
}

fn is_there(store: &Store) -> bool {
    !store.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'h'").is_empty()
}

/// Keys that the table has; none if it is not there.
fn keys_there(store: &Store) -> BTreeSet<String> {
    if !is_there(store) {
        return BTreeSet::new();
    }
    let plain = |key: &String| key["Text(\"".len()..key.len() - 2].to_owned();
    store.rows("SELECT k FROM h").concat().iter().map(plain).collect()
}

/// The table is as HQ has it, or the very rows that are not are named; and the agent knows what is
/// there.
fn check_told(store: &Store, schema: &str, step: &Step) -> Result<(), TestCaseError> {
    let named: BTreeSet<String> = store.named().into_keys().collect();
    if named.contains("all of it") {
        prop_assert!(!is_there(store), "it is named as gone: {:?}\n{}", step, schema);
        return Ok(());
    }
    prop_assert_eq!(store.differing(), named, "{}\n{:?}\nnamed {:?}", schema, step, store.named());
    let applied = store.incoming.applied().expect("reads")["h"].clone();
    prop_assert_eq!(applied.differing == 0, applied.differences.is_empty());
    Ok(())
}

/// The same rows, each with the number of the one before.
fn rotated(image: &Image) -> Image {
    let mut numbers: Vec<Option<i64>> = image.values().map(|(number, _)| *number).collect();
    let by = numbers.len().min(1);
    numbers.rotate_right(by);
    image.iter().zip(numbers).map(|((key, (_, text)), number)| (key.clone(), (number, text.clone()))).collect()
}

/// Whether the rules of the store's table alone allow these rows, whatever was there before; false
/// where its triggers may have a say.
fn is_allowed(schema: &str, rows: &Image) -> bool {
    if schema.contains("TRIGGER") {
        return false;
    }
    let conn = Connection::open_in_memory().expect("opens");
    let Some(table) = schema.split(';').find(|sql| sql.contains("CREATE TABLE h ")) else { return true };
    conn.execute_batch(table).expect("a table");
    rows.iter().all(|(key, (number, text))| {
        conn.execute("INSERT OR ABORT INTO h (k, u, v) VALUES (?1, ?2, ?3)", (key, number, text)).is_ok()
    })
}

/// HQ's table as it is fetched to be compared or put right.
fn stage_all(store: &mut Store, spec: &IncomingTable) {
    let spec = IncomingTable { audience: store.audience(), ..spec.clone() };
    store.incoming.begin(&spec, Seq(0), true).expect("begins");
    let rows: Vec<_> = store.image.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    if !rows.is_empty() {
        store.incoming.stage("h", &batch(&rows), Seq(store.version)).expect("stages");
    }
}

/// The agent's look at a table that people may have changed.
fn look(store: &mut Store, spec: &IncomingTable, schema: &str, step: &Step) -> Result<(), TestCaseError> {
    let edits = |store: &Store| store.incoming.applied().expect("reads")["h"].edits;
    let (before, differed) = (edits(store), store.named());
    match store.incoming.standing("h").expect("looks") {
        Standing::AsApplied | Standing::AsFound => return check_told(store, schema, step),
        Standing::Changed if spec.mends => {
            stage_all(store, spec);
            let version = Seq(store.version);
            match store.incoming.apply("h", version, 0, true) {
                Ok(_) => {}
                Err(error) => {
                    prop_assert!(matches!(error, CaptureError::Differs { .. }), "{:?}\n{}", error, schema);
                    store.incoming.clear("h").expect("clears");
                    return Ok(());
                }
            }
            prop_assert!(edits(store) > before, "counted: {:?}\n{}", step, schema);
            prop_assert_eq!(store.incoming.standing("h").expect("looks"), Standing::AsApplied);
        }
        Standing::Changed => {
            stage_all(store, spec);
            store.incoming.compare("h").expect("compares");
            let more = store.named().keys().filter(|key| !differed.contains_key(*key)).count() as u64;
            prop_assert_eq!(edits(store), before + more, "{:?}\n{}", step, schema);
            prop_assert!(store.incoming.standing("h").expect("looks") != Standing::Changed, "it is known now");
        }
    }
    check_told(store, schema, step)
}

/// Rows that are there beside the table take effect now.
fn take_effect(store: &mut Store, spec: &IncomingTable, rows: &Image) {
    let mut next = spec.clone();
    next.name = "h_next".to_owned();
    next.columns.extend([("scheduled_as", "long"), ("is_gone", "boolean")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    next.key = vec!["scheduled_as".to_owned(), "k".to_owned()];
    store.incoming.begin(&next, Seq(0), true).expect("begins");
    let plain = batch(&rows.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect::<Vec<_>>());
    let mut columns: Vec<(String, Arc<dyn Array>)> =
        plain.schema().fields().iter().map(|field| field.name().clone()).zip(plain.columns().iter().cloned()).collect();
    columns.push(("scheduled_as".to_owned(), Arc::new(Int64Array::from(vec![1; rows.len()]))));
    columns.push(("is_gone".to_owned(), Arc::new(BooleanArray::from(vec![false; rows.len()]))));
    if !rows.is_empty() {
        store.incoming.stage("h_next", &RecordBatch::try_from_iter(columns).expect("rows"), Seq(9)).expect("stages");
    }
    store.incoming.apply("h_next", Seq(9), 0, false).expect("applies");
    let due = DueChange { table: "h".to_owned(), next: "h_next".to_owned(), number: 1, at_micros: 1, version: Seq(9) };
    store.incoming.schedule(&[due]).expect("notes");
    store.restart();
    assert_eq!(store.incoming.due_tables().expect("looks"), ["h"]);
    store.incoming.take_effect("h").expect("takes effect");
    store.incoming.schedule(&[]).expect("notes");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: runs(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_store_is_unharmed_and_what_differs_is_named(
        schema in schema(),
        steps in vec(step(), 1..8),
        keeps_referenced in any::<bool>(),
        mends in prop::bool::weighted(0.7),
    ) {
        let mut store = Store::new(&schema);
        let spec = IncomingTable { mends, ..spec(keeps_referenced) };
        for step in steps {
            let step = match step {
                Step::Rotate { whole } => Step::Publish { next: rotated(&store.image), whole, deaths: 0 },
                step => step,
            };
            let step = &step;
            let is_applied = store.incoming.applied().expect("reads").contains_key("h");
            // The store's own rows name whatever is there now, and what is not.
            let of_table = if keys_there(&store).is_empty() { "" } else { "INSERT INTO c (k) SELECT k FROM h LIMIT 2;" };
            store.conn().execute_batch(&format!("PRAGMA foreign_keys = OFF; {of_table} INSERT INTO d (h) VALUES ('nobody')")).expect("inserts");
            match step {
                Step::Edit(_) | Step::At(_) | Step::Leave if !is_applied => {}
                Step::Edit(sql) => {
                    // By a program that minds no foreign key: what those do is its own affair.
                    let _ = store.conn().execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}"));
                    let own = own_rows(&store);
                    look(&mut store, &spec, &schema, step)?;
                    prop_assert_eq!(own, own_rows(&store), "the store's own rows: {}", &schema);
                }
                Step::At(rows) => {
                    if store.incoming.standing("h").expect("looks") == Standing::Changed || !is_there(&store) {
                        continue;
                    }
                    let own = own_rows(&store);
                    take_effect(&mut store, &spec, rows);
                    prop_assert_eq!(own, own_rows(&store), "the store's own rows: {}", &schema);
                    store.image.extend(rows.clone());
                    if mends {
                        check_told(&store, &schema, step)?;
                    }
                }
                Step::Leave => {
                    let own = own_rows(&store);
                    let taken = store.take(&spec, &Image::new(), true);
                    if taken.is_ok() && store.incoming.leave("h").expect("leaves") {
                        prop_assert!(keys_there(&store).is_empty(), "nothing of HQ's is left");
                        prop_assert!(!store.incoming.applied().expect("reads").contains_key("h"));
                        (store.version, store.image) = (0, Image::new());
                    } else if taken.is_ok() {
                        prop_assert!(!store.named().is_empty(), "it says which rows it cannot give up: {}", &schema);
                    } else {
                        store.incoming.clear("h").expect("clears");
                    }
                    prop_assert_eq!(own, own_rows(&store), "the store's own rows: {}", &schema);
                }
                Step::Rotate { .. } => unreachable!("it is a publication"),
                Step::Publish { next, whole, deaths } => {
                    let (own, had, before) = (own_rows(&store), keys_there(&store), store.version);
                    // Where edits are left, a change comes with the whole table.
                    let is_left = is_applied && !store.incoming.is_as_applied("h").expect("looks");
                    // A row that was refused before is tried again with the whole table.
                    let tries_all = *whole || is_left || store.version == 0 || is_applied && store.named().is_empty();
                    let taken = store.take_dying(&spec, next, *whole || is_left, *deaths);
                    prop_assert_eq!(own, own_rows(&store), "the store's own rows: {}", &schema);
                    if let Err(error) = taken {
                        // Told as a whole, and nothing was done. A rule of the store's about rows
                        // is no reason for that.
                        prop_assert!(matches!(error, CaptureError::Differs { .. }), "{:?}\n{}", error, &schema);
                        let applied = store.incoming.applied().expect("reads").get("h").map_or(0, |known| known.version.0);
                        prop_assert_eq!(applied, before);
                        store.incoming.clear("h").expect("clears");
                        continue;
                    }
                    check_told(&store, &schema, step)?;
                    if tries_all && !keeps_referenced && is_allowed(&schema, next) {
                        prop_assert!(store.named().is_empty(), "{:?} could be taken: {:?}\n{}", next, store.named(), &schema);
                    }
                    let has = keys_there(&store);
                    let lost: Vec<&String> = had.difference(&has).filter(|key| next.contains_key(*key)).collect();
                    prop_assert!(lost.is_empty(), "{:?} were there and are HQ's still\n{}", lost, &schema);
                    prop_assert!(store.incoming.is_as_applied("h").expect("reads"), "what it has is known: {}", &schema);
                }
            }
        }
    }
}
