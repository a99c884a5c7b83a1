//! What the journal holds and HQ is not to get, it does not get, in no life.

use rollcall_capture::{Changes, Source, TableSpec};
use rollcall_capture_sqlite::SqliteSource;
use rollcall_types::Seq;

use crate::store::{Store, load_all};

/// Everything in the journal, as it would be sent.
fn all(source: &mut SqliteSource) -> Vec<Changes> {
    let (mut after, mut read) = (Seq(0), Vec::new());
    while let Some(changes) = source.read(after.into(), 3, 1 << 20).expect("reads") {
        assert_eq!(changes.first, Seq(after.0 + 1), "nothing is between two batches");
        assert!(!changes.tables.is_empty(), "a batch brings something");
        after = changes.last;
        read.push(changes);
    }
    read
}

fn rows_of(read: &[Changes], table: &str) -> usize {
    read.iter().flat_map(|changes| &changes.tables).filter(|of| of.table == table).map(|of| of.rows.num_rows()).sum()
}

fn has_column(read: &[Changes], column: &str) -> bool {
    let tables = read.iter().flat_map(|changes| &changes.tables);
    tables.into_iter().any(|of| of.rows.schema().fields().iter().any(|field| field.name() == column))
}

#[test]
fn what_was_stopped_or_left_out_since_is_not_sent_from_an_older_journal_either() {
    let store = Store::new(
        "CREATE TABLE customers (id INTEGER PRIMARY KEY, mail TEXT); CREATE TABLE staff (id INTEGER PRIMARY KEY, pin TEXT);
         INSERT INTO customers VALUES (1, 'a@b'), (2, 'c@d'), (3, 'e@f'), (4, 'g@h'); INSERT INTO staff VALUES (1, '0000')",
    );
    let mut source = store.capture(&["customers", "staff"]);
    load_all(&mut source);
    store.sql("INSERT INTO customers VALUES (5, 'i@j'); UPDATE staff SET pin = '1111'");
    let before = all(&mut source);
    assert_eq!((rows_of(&before, "customers"), rows_of(&before, "staff")), (5, 2));
    assert!(has_column(&before, "pin"));
    // HQ leaves a column out, and has a table stopped. A new life is sent from the beginning.
    source.capture(&TableSpec { table: "staff".to_owned(), excluded: vec!["PIN".to_owned()] }).expect("captures");
    source.stop("customers").expect("stops");
    source.state_manifest().expect("states");
    let after = all(&mut source);
    assert_eq!((rows_of(&after, "customers"), rows_of(&after, "staff")), (0, 2));
    assert!(!has_column(&after, "pin") && !has_column(&after, "mail"));
    let heads = source.heads().expect("heads").clone();
    assert_eq!(after.last().map(|changes| changes.last), Some(heads.head));
    assert!(!heads.tables.contains_key("customers"), "{heads:?}");
    // Captured again, it is stated again.
    source.capture(&TableSpec { table: "customers".to_owned(), excluded: Vec::new() }).expect("captures");
    load_all(&mut source);
    assert!(rows_of(&all(&mut source), "customers") >= 5);
}

#[test]
fn behind_rows_that_are_withheld_a_gap_is_told_and_manifests_name_only_what_comes() {
    let store = Store::new(
        "CREATE TABLE Customers (id INTEGER PRIMARY KEY, mail TEXT); CREATE TABLE sales (id INTEGER PRIMARY KEY, n, \"unit price\")",
    );
    let mut source = store.capture(&["Customers", "sales"]);
    load_all(&mut source);
    let start = source.heads().expect("heads").head;
    store
        .sql("INSERT INTO Customers VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'); INSERT INTO sales VALUES (1, 1, 2)");
    source.state_manifest().expect("states");
    // HQ calls it as it likes.
    source.stop("customers").expect("stops");
    assert!(source.is_stopped("CUSTOMERS").expect("known") && source.is_stopped("nothing").expect("known"));
    store.sql(&format!("DELETE FROM _rollcall_journal WHERE seq = {}", start.0 + 3));
    let (mut after, mut lost, mut sales, mut stated) = (start, 0, 0, Vec::new());
    while let Some(changes) = source.read(after.into(), 100, 1 << 20).expect("reads") {
        assert_eq!(changes.first, Seq(after.0 + 1));
        after = changes.last;
        for of in &changes.tables {
            assert_ne!(of.table, "Customers");
            sales += usize::from(of.table == "sales") * of.rows.num_rows();
            if of.table == rollcall_types::columns::LOG_TABLE {
                use arrow_array::cast::AsArray;
                let ops = of.rows.column_by_name("_op").expect("there").as_primitive::<arrow_array::types::UInt8Type>();
                let texts = of.rows.column_by_name("c").expect("there").as_string::<i32>();
                lost += ops.values().iter().filter(|op| **op == b'L').count();
                let manifests = (0..of.rows.num_rows()).filter(|row| ops.value(*row) == b'M');
                stated.extend(manifests.map(|row| texts.value(row).to_owned()));
            }
        }
    }
    assert_eq!((lost, sales, stated.len()), (1, 1, 1));
    assert!(stated[0].contains("sales") && !stated[0].contains("Customers"), "{stated:?}");
    // Two names that are one at HQ are one column, and one that was left out is not missed.
    store.sql("ALTER TABLE sales RENAME COLUMN \"unit price\" TO unit_price");
    source.check().expect("checks");
    let left_out = TableSpec { table: "sales".to_owned(), excluded: vec!["n".to_owned()] };
    source.capture(&left_out).expect("captures");
    store.sql("ALTER TABLE sales RENAME COLUMN n TO number");
    source.check().expect("checks");
    let manifest = source.state_manifest().expect("states");
    assert_eq!(manifest.tables[0].gone, Vec::<String>::new());
}
