//! What the journal says of itself.

use rollcall_capture::Source;
use rollcall_types::{Seq, Stated};

use crate::store::{Store, load_all};

#[test]
fn manifests_count_every_change_once_and_zero_is_a_statement() {
    let store = Store::new(
        "CREATE TABLE sales (id INTEGER PRIMARY KEY, v); CREATE TABLE items (sku TEXT PRIMARY KEY, v) WITHOUT ROWID;
         INSERT INTO sales VALUES (1, 'a'), (2, 'b')",
    );
    let mut source = store.capture(&["sales", "items"]);
    load_all(&mut source);
    let stated = |table: &str, rows, last_key| Stated { table: table.to_owned(), rows, last_key, ..Stated::default() };
    let first = source.state_manifest().expect("states");
    assert_eq!(first.after, Seq(0));
    assert_eq!(first.tables, [stated("sales", 2, Some(2)), stated("items", 0, None)], "the rows from before");
    store.sql(
        "INSERT INTO sales VALUES (9, 'c'); UPDATE sales SET v = 'd' WHERE id < 3; DELETE FROM sales WHERE id = 1",
    );
    let second = source.state_manifest().expect("states");
    assert_eq!(second.after, first.through);
    assert_eq!(second.tables, [stated("sales", 4, Some(9)), stated("items", 0, None)]);
    let third = source.state_manifest().expect("states");
    assert_eq!(third.tables, [stated("sales", 0, Some(9)), stated("items", 0, None)]);
    // Rows that pass by the triggers move the key, and nothing else.
    store.sql("DROP TRIGGER _rollcall_bi_sales; DROP TRIGGER _rollcall_ai_sales; INSERT INTO sales VALUES (12, 'e')");
    let fourth = source.state_manifest().expect("states");
    assert_eq!(fourth.tables, [stated("sales", 0, Some(12)), stated("items", 0, None)]);
}

#[test]
fn a_manifest_is_a_row_of_the_journal_like_any_other() {
    let store = Store::new("CREATE TABLE sales (id INTEGER PRIMARY KEY, v)");
    let mut source = store.capture(&["sales"]);
    load_all(&mut source);
    let before = source.heads().expect("heads").head;
    let manifest = source.state_manifest().expect("states");
    assert_eq!(manifest.through, before);
    let changes = source.read(before.into(), 10, 1 << 20).expect("reads").expect("the manifest");
    assert_eq!((changes.first, changes.last), (Seq(before.0 + 1), Seq(before.0 + 1)));
    assert_eq!(changes.tables[0].table, rollcall_types::columns::LOG_TABLE);
}

#[test]
fn a_manifest_names_what_the_store_has_or_had_and_is_not_captured() {
    let store = Store::new(
        "CREATE TABLE sales (id INTEGER PRIMARY KEY, qty, Card, note); CREATE TABLE staff (id INTEGER PRIMARY KEY);
         CREATE VIEW busy AS SELECT * FROM sales; CREATE VIRTUAL TABLE words USING fts5(text)",
    );
    let mut source = store.capture(&["sales"]);
    load_all(&mut source);
    let said = |source: &mut rollcall_capture_sqlite::SqliteSource| {
        let manifest = source.state_manifest().expect("states");
        (manifest.uncaptured, manifest.tables[0].gone.clone())
    };
    assert_eq!(
        said(&mut source),
        (vec!["staff".to_owned()], Vec::new()),
        "views and indexes have no rows of their own"
    );
    // Left out because somebody said so, and renamed in nothing but case.
    let spec = rollcall_capture::TableSpec { table: "sales".to_owned(), excluded: vec!["note".to_owned()] };
    source.capture(&spec).expect("captures");
    store.sql("ALTER TABLE sales RENAME COLUMN Card TO card");
    source.check().expect("checks");
    assert_eq!(said(&mut source).1, Vec::<String>::new());
    store.sql("ALTER TABLE sales RENAME COLUMN qty TO quantity; CREATE TABLE returns (id INTEGER PRIMARY KEY)");
    source.check().expect("checks");
    let both = (vec!["returns".to_owned(), "staff".to_owned()], vec!["qty".to_owned()]);
    assert_eq!(said(&mut source), both);
    store.sql("ALTER TABLE sales RENAME COLUMN quantity TO qty");
    source.check().expect("checks");
    let (_, gone) = said(&mut source);
    assert_eq!(gone, ["quantity"], "what was there for a moment is not there either");
}
