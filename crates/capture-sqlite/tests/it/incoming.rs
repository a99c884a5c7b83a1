//! HQ's tables in the store's own database.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use arrow_array::{Array, Decimal128Array, RecordBatch, StringArray};
use proptest::{collection::vec, prelude::*};
use rollcall_capture::{CaptureError, IncomingTable, Standing};
use rollcall_capture_sqlite::SqliteIncoming;
use rollcall_types::Seq;
use rusqlite::Connection;

/// A store's database, and HQ's tables in it.
struct Store {
    directory: tempfile::TempDir,
    incoming: SqliteIncoming,
}

impl Store {
    fn new(sql: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let conn = Connection::open(directory.path().join("store.sqlite")).expect("opens");
        conn.execute_batch(&format!("PRAGMA journal_mode = WAL; {sql}")).expect("runs");
        let incoming = open(&directory);
        Self { directory, incoming }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store.sqlite")
    }

    fn sql(&self, sql: &str) {
        Connection::open(self.path()).expect("opens").execute_batch(sql).expect("runs");
    }

    /// The agent dies and is started again.
    fn restart(&mut self) {
        self.incoming = open(&self.directory);
    }

    fn prices(&self) -> BTreeMap<String, String> {
        let conn = Connection::open(self.path()).expect("opens");
        let mut statement = conn.prepare("SELECT sku, printf('%.2f', price) FROM prices").expect("a table");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("reads");
        rows.collect::<Result<_, _>>().expect("reads")
    }

    /// Fetches and applies, as the agent does.
    fn take(
        &mut self,
        spec: &IncomingTable,
        whole: bool,
        after: u64,
        rows: &[Row],
        version: u64,
    ) -> Result<u64, CaptureError> {
        self.incoming.begin(spec, Seq(after), whole)?;
        for chunk in rows.chunks(3) {
            self.incoming.stage(&spec.name, &batch(chunk), Seq(chunk.last().expect("a row").0))?;
        }
        let report = self.incoming.apply(&spec.name, Seq(version), 0, false)?;
        Ok(report.written + report.removed)
    }
}

fn open(directory: &tempfile::TempDir) -> SqliteIncoming {
    SqliteIncoming::open(&directory.path().join("store.sqlite"), &directory.path().join("state")).expect("opens")
}

fn prices(audience: u64) -> IncomingTable {
    let columns = vec![("sku".to_owned(), "string".to_owned()), ("price".to_owned(), "decimal(10,2)".to_owned())];
    IncomingTable {
        name: "prices".to_owned(),
        columns,
        key: vec!["sku".to_owned()],
        audience,
        mends: true,
        shared: false,
        keeps_referenced: false,
        rewritten: Vec::new(),
    }
}

/// Position, key, and the price in cents; none deletes.
type Row = (u64, String, Option<i64>);

fn row(seq: u64, sku: &str, cents: Option<i64>) -> Row {
    (seq, sku.to_owned(), cents)
}

fn batch(rows: &[Row]) -> RecordBatch {
    let ops = StringArray::from_iter_values(rows.iter().map(|row| if row.2.is_some() { "U" } else { "D" }));
    let skus = StringArray::from_iter_values(rows.iter().map(|row| row.1.as_str()));
    let cents: Decimal128Array = rows.iter().map(|row| row.2.map(i128::from)).collect();
    let cents = cents.with_precision_and_scale(10, 2).expect("fits");
    let columns: [(&str, Arc<dyn Array>); 3] =
        [("_op", Arc::new(ops)), ("sku", Arc::new(skus)), ("price", Arc::new(cents))];
    RecordBatch::try_from_iter(columns).expect("rows")
}

fn expected(rows: &[(&str, &str)]) -> BTreeMap<String, String> {
    rows.iter().map(|(sku, price)| ((*sku).to_owned(), (*price).to_owned())).collect()
}

#[test]
fn a_table_is_made_changed_and_replaced() {
    let mut store = Store::new("");
    let spec = prices(1);
    let first = [row(1, "a", Some(100)), row(2, "b", Some(250)), row(3, "c", Some(7)), row(4, "d", Some(1))];
    store.take(&spec, true, 0, &first, 4).expect("applies");
    assert_eq!(store.prices(), expected(&[("a", "1.00"), ("b", "2.50"), ("c", "0.07"), ("d", "0.01")]));
    store
        .take(&spec, false, 4, &[row(5, "b", Some(300)), row(6, "c", None), row(7, "e", Some(5))], 7)
        .expect("applies");
    assert_eq!(store.prices(), expected(&[("a", "1.00"), ("b", "3.00"), ("d", "0.01"), ("e", "0.05")]));
    assert!(store.incoming.is_as_applied("prices").expect("reads"));
    // Another region: some rows stay, some go, some come; only what differs is written.
    let other = [row(1, "a", Some(100)), row(5, "b", Some(301)), row(8, "z", Some(9))];
    let touched = store.take(&prices(2), true, 0, &other, 8).expect("applies");
    assert_eq!((store.prices(), touched), (expected(&[("a", "1.00"), ("b", "3.01"), ("z", "0.09")]), 4));
    let applied = store.incoming.applied().expect("reads")["prices"].clone();
    assert_eq!((applied.version, applied.audience, applied.edits), (Seq(8), 2, 0));
}

#[test]
fn what_the_store_changed_itself_is_noticed_counted_and_put_right() {
    let mut store = Store::new("");
    let rows = [row(1, "a", Some(100)), row(2, "b", Some(250)), row(3, "c", Some(7))];
    store.take(&prices(1), true, 0, &rows, 3).expect("applies");
    for edit in
        ["UPDATE prices SET price = 99 WHERE sku = 'a'; DELETE FROM prices WHERE sku = 'b'", "DROP TABLE prices"]
    {
        store.sql(edit);
        assert!(!store.incoming.is_as_applied("prices").expect("reads"), "{edit}");
        store.incoming.begin(&prices(1), Seq(0), true).expect("begins");
        store.incoming.stage("prices", &batch(&rows), Seq(3)).expect("stages");
        store.incoming.apply("prices", Seq(3), 0, true).expect("applies");
        assert!(store.incoming.is_as_applied("prices").expect("reads"));
        assert_eq!(store.prices(), expected(&[("a", "1.00"), ("b", "2.50"), ("c", "0.07")]));
    }
    // Two rows, then all three.
    assert_eq!(store.incoming.applied().expect("reads")["prices"].edits, 5);
    // Where HQ's next change finds no table, it is fetched whole, and what was counted stays.
    store.sql("ALTER TABLE prices RENAME TO elsewhere");
    store.take(&prices(1), false, 3, &[row(4, "a", Some(101))], 4).expect_err("there is no table");
    let applied = store.incoming.applied().expect("reads")["prices"].clone();
    assert_eq!((applied.audience, applied.edits), (0, 5));
    let rows = [row(4, "a", Some(101)), row(2, "b", Some(250)), row(3, "c", Some(7))];
    store.take(&prices(1), true, 0, &rows, 4).expect("applies");
    assert_eq!(store.incoming.applied().expect("reads")["prices"].edits, 8);
}

#[test]
fn what_hq_leaves_changed_is_named_and_counted_once() {
    let mut store = Store::new("");
    let (spec, rows) = (IncomingTable { mends: false, ..prices(1) }, [row(1, "a", Some(100)), row(2, "b", Some(250))]);
    store.take(&spec, true, 0, &rows, 2).expect("applies");
    let compare = |store: &mut Store| {
        store.incoming.begin(&spec, Seq(0), true).expect("begins");
        store.incoming.stage("prices", &batch(&rows), Seq(2)).expect("stages");
        store.incoming.compare("prices").expect("compares");
        let applied = store.incoming.applied().expect("reads")["prices"].clone();
        (applied.differing, applied.edits, applied.differences)
    };
    let standing = |store: &Store| store.incoming.standing("prices").expect("looks");
    store.sql("UPDATE prices SET price = 9.5 WHERE sku = 'a'; INSERT INTO prices VALUES ('own', 1)");
    assert_eq!(standing(&store), Standing::Changed);
    let (differing, edits, said) = compare(&mut store);
    assert_eq!((differing, edits), (2, 2));
    assert!(said.contains("HQ sent 1, the store has 9.5") && said.contains("HQ has no such row"), "{said}");
    assert_eq!(standing(&store), Standing::AsFound);
    store.sql("DELETE FROM prices WHERE sku = 'b'");
    assert_eq!(standing(&store), Standing::Changed);
    assert_eq!(compare(&mut store).1, 3);
    // Its people put it right.
    store.sql("DELETE FROM prices; INSERT INTO prices VALUES ('a', 1), ('b', 2.5)");
    assert_eq!(standing(&store), Standing::Changed);
    assert_eq!(compare(&mut store), (0, 3, String::new()));
    assert_eq!(standing(&store), Standing::AsApplied);
    store.sql("DROP TABLE prices");
    let (differing, edits, said) = compare(&mut store);
    assert_eq!((differing, edits), (1, 4));
    assert!(said.contains("is not there"), "{said}");
    assert_eq!(standing(&store), Standing::AsFound);
}

#[test]
fn a_table_that_is_not_for_the_site_any_more_goes() {
    let has = |store: &Store| {
        let conn = Connection::open(store.path()).expect("opens");
        let sql = "SELECT count(*) FROM sqlite_master WHERE name = 'prices'";
        conn.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("reads") == 1
    };
    for (on_it, goes) in [
        ("", true),
        ("CREATE VIEW dear AS SELECT sku FROM prices WHERE price > 9", false),
        ("CREATE INDEX by_price ON prices (price)", false),
        ("CREATE TABLE sale (id INTEGER PRIMARY KEY, sku TEXT REFERENCES prices(sku))", false),
        ("ALTER TABLE prices ADD COLUMN own TEXT", false),
    ] {
        let mut store = Store::new("");
        store.take(&prices(1), true, 0, &[row(1, "a", Some(100))], 1).expect("applies");
        assert!(!store.incoming.leave("prices").expect("looks"), "it has rows");
        store.sql(on_it);
        store.take(&prices(2), true, 0, &[], 2).expect("applies");
        assert!(store.incoming.leave("prices").expect("leaves"));
        assert_eq!(has(&store), !goes, "{on_it}");
        assert!(store.incoming.applied().expect("reads").is_empty());
        assert!(!store.incoming.leave("prices").expect("leaves"), "once");
        // It is for the site again.
        store.take(&prices(1), true, 0, &[row(1, "a", Some(100))], 3).expect("applies");
        assert_eq!(store.prices(), expected(&[("a", "1.00")]));
    }
}

#[test]
fn a_column_may_have_the_name_of_sqlites_row_number() {
    let mut store = Store::new("");
    let mut spec = prices(1);
    spec.columns[1].0 = "rowid".to_owned();
    let renamed = |rows: &[Row]| {
        let rows = batch(rows);
        let names = ["_op", "sku", "rowid"].map(str::to_owned);
        RecordBatch::try_from_iter(names.into_iter().zip(rows.columns().iter().cloned())).expect("rows")
    };
    for (version, cents) in [(1, 100), (2, 100_000)] {
        let rows = [row(1, "a", Some(cents)), row(2, "b", Some(cents + 1)), row(3, "c", Some(cents + 2))];
        spec.audience = version;
        store.incoming.begin(&spec, Seq(0), true).expect("begins");
        store.incoming.stage("prices", &renamed(&rows), Seq(version)).expect("stages");
        store.incoming.apply("prices", Seq(version), 0, false).expect("applies");
        let conn = Connection::open(store.path()).expect("opens");
        let sum: f64 = conn.query_row("SELECT sum(rowid) FROM prices", [], |row| row.get(0)).expect("reads");
        assert!((sum - (cents * 3 + 3) as f64 / 100.0).abs() < 1e-9, "{sum}");
    }
}

#[test]
fn a_table_that_differs_is_reported_and_left_alone() {
    for (sql, why) in [
        ("CREATE TABLE prices (sku TEXT PRIMARY KEY)", "no column price"),
        ("CREATE TABLE prices (sku TEXT PRIMARY KEY, price TEXT)", "is declared"),
        ("CREATE TABLE prices (sku TEXT, price DECIMAL(10,2))", "no unique key"),
        (
            "CREATE TABLE prices (sku TEXT PRIMARY KEY, price DECIMAL(10,2)); INSERT INTO prices VALUES ('own', 1)",
            "rows of its own",
        ),
        ("CREATE VIEW prices AS SELECT 1", "view"),
    ] {
        let mut store = Store::new(sql);
        let error = store.take(&prices(1), true, 0, &[row(1, "a", Some(100))], 1).expect_err(sql);
        assert!(error.to_string().contains(why), "{sql}: {error}");
        assert!(store.incoming.applied().expect("reads").is_empty());
    }
    let mut store = Store::new(
        "CREATE TABLE prices (sku TEXT PRIMARY KEY, price NUMERIC, shelf TEXT); INSERT INTO prices VALUES ('own', 1, 'x')",
    );
    store.incoming.adopt("prices").expect("notes");
    store.take(&prices(1), true, 0, &[row(1, "a", Some(100))], 1).expect("applies");
    assert_eq!(store.prices(), expected(&[("a", "1.00")]));
}

#[test]
fn a_row_without_a_key_goes() {
    let sql =
        "CREATE TABLE prices (sku TEXT PRIMARY KEY, price NUMERIC); INSERT INTO prices VALUES (NULL, 1), (NULL, 2)";
    let mut store = Store::new(sql);
    store.incoming.adopt("prices").expect("notes");
    store.take(&prices(1), true, 0, &[row(1, "a", Some(100))], 1).expect("applies");
    assert_eq!(store.prices(), expected(&[("a", "1.00")]));
    assert!(store.incoming.is_as_applied("prices").expect("reads"));
}

#[test]
fn a_view_that_waits_for_the_table_does_not_keep_it_out() {
    let mut store = Store::new("CREATE VIEW dear AS SELECT * FROM prices WHERE price > 10");
    store.take(&prices(1), true, 0, &[row(1, "a", Some(2000))], 1).expect("applies");
    let conn = Connection::open(store.path()).expect("opens");
    let dear: String = conn.query_row("SELECT sku FROM dear", [], |row| row.get(0)).expect("a row");
    assert_eq!(dear, "a");
}

#[test]
fn what_was_staged_on_another_version_or_with_other_columns_is_not_gone_on_with() {
    let mut store = Store::new("");
    store.take(&prices(1), true, 0, &[row(1, "a", Some(100)), row(4, "b", Some(1))], 4).expect("applies");
    let begin = |store: &mut Store| {
        store.incoming.begin(&prices(1), Seq(4), false).expect("begins");
        store.incoming.stage("prices", &batch(&[row(5, "a", Some(7))]), Seq(5)).expect("stages");
    };
    begin(&mut store);
    let mut wider = prices(1);
    wider.columns.push(("note".to_owned(), "string".to_owned()));
    assert!(matches!(store.incoming.begin(&wider, Seq(5), false), Err(CaptureError::Damaged(_))));
    store.incoming.begin(&prices(1), Seq(5), false).expect("as it was begun");
    // The store's database is restored from a backup: what is staged lacks what came between.
    store.sql("UPDATE _rollcall_applied SET version = 2");
    assert_eq!(store.incoming.staged("prices").expect("reads").expect("a fetch").base, Seq(4));
    assert!(matches!(store.incoming.begin(&prices(1), Seq(5), false), Err(CaptureError::Damaged(_))));
    store.incoming.distrust().expect("forgets");
    assert_eq!(store.incoming.staged("prices").expect("reads"), None);
}

#[test]
fn staging_does_not_wait_for_the_store_nor_the_store_for_staging() {
    let mut store = Store::new("CREATE TABLE sales (id INTEGER PRIMARY KEY)");
    let till = Connection::open(store.path()).expect("opens");
    till.execute_batch("BEGIN IMMEDIATE; INSERT INTO sales VALUES (1)").expect("sells");
    let began = std::time::Instant::now();
    store.incoming.begin(&prices(1), Seq(0), true).expect("begins");
    store.incoming.stage("prices", &batch(&[row(1, "a", Some(100))]), Seq(1)).expect("stages");
    store.incoming.clear("prices").expect("clears");
    // It would have waited for five seconds, and then failed.
    assert!(began.elapsed() < std::time::Duration::from_secs(4));
    till.execute_batch("COMMIT").expect("sells");
}

#[test]
fn a_column_more_is_added_to_a_table_made_here() {
    let mut store = Store::new("");
    store.take(&prices(1), true, 0, &[row(1, "a", Some(100)), row(2, "b", Some(1))], 2).expect("applies");
    let mut wider = prices(1);
    wider.columns.push(("note".to_owned(), "string".to_owned()));
    let narrow = batch(&[row(3, "a", Some(200))]);
    let mut columns: Vec<(String, Arc<dyn Array>)> = narrow
        .schema()
        .fields()
        .iter()
        .zip(narrow.columns())
        .map(|(field, column)| (field.name().clone(), column.clone()))
        .collect();
    columns.push(("note".to_owned(), Arc::new(StringArray::from(vec!["new"]))));
    store.incoming.begin(&wider, Seq(2), false).expect("begins");
    store.incoming.stage("prices", &RecordBatch::try_from_iter(columns).expect("rows"), Seq(3)).expect("stages");
    store.incoming.apply("prices", Seq(3), 0, false).expect("applies");
    let conn = Connection::open(store.path()).expect("opens");
    let note: String = conn.query_row("SELECT note FROM prices WHERE sku = 'a'", [], |row| row.get(0)).expect("a note");
    assert_eq!(note, "new");
    assert!(store.incoming.is_as_applied("prices").expect("reads"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever HQ publishes, however much a fetch brings at a time, and wherever the agent dies:
    /// the table is what HQ has.
    #[test]
    fn the_table_is_what_hq_has(steps in vec((vec((0..12_u8, prop::option::weighted(0.7, 1..500_i64)), 0..12), any::<bool>(), 0..6_usize), 1..12)) {
        let mut store = Store::new("");
        let (mut published, mut newest, mut version): (Vec<Row>, BTreeMap<String, i64>, u64) = Default::default();
        for (changes, whole, dies_after) in steps {
            for (sku, cents) in changes {
                version += 1;
                let sku = format!("sku{sku}");
                published.retain(|(_, known, _)| *known != sku);
                published.push((version, sku.clone(), cents));
                match cents {
                    Some(cents) => newest.insert(sku, cents),
                    None => newest.remove(&sku),
                };
            }
            let applied = store.incoming.applied().expect("reads").get("prices").map(|known| known.version);
            let whole = whole || applied.is_none();
            let from = if whole { Seq(0) } else { applied.unwrap_or_default() };
            store.incoming.begin(&prices(1), from, whole).expect("begins");
            let rows: Vec<Row> = published.iter().filter(|row| row.0 > from.0).cloned().collect();
            for chunk in rows.chunks(2).take(dies_after) {
                store.incoming.stage("prices", &batch(chunk), Seq(chunk.last().expect("a row").0)).expect("stages");
            }
            store.restart();
            // It goes on where it was, with what it asked for.
            let staged = store.incoming.staged("prices").expect("reads").expect("a fetch");
            prop_assert_eq!(staged.whole, whole);
            store.incoming.begin(&prices(1), staged.through, whole).expect("goes on");
            let rest: Vec<Row> = published.iter().filter(|row| row.0 > staged.through.0).cloned().collect();
            for chunk in rest.chunks(2) {
                store.incoming.stage("prices", &batch(chunk), Seq(chunk.last().expect("a row").0)).expect("stages");
            }
            store.incoming.apply("prices", Seq(version), 0, false).expect("applies");
            let wanted: BTreeMap<String, String> =
                newest.iter().map(|(sku, cents)| (sku.clone(), format!("{}.{:02}", cents / 100, cents % 100))).collect();
            prop_assert_eq!(store.prices(), wanted);
            prop_assert!(store.incoming.is_as_applied("prices").expect("reads"));
        }
    }
}
