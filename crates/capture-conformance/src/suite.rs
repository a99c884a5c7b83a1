//! The suite.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use proptest::prelude::*;
use rollcall_types::{Seq, columns};

use crate::Model;

use rollcall_capture::{
    Anchor, CaptureError, Database, Health, IncomingTable, LoadProgress, PruneLimits, Source, TableSpec,
};

/// The captured tables, and what each has: `items` a number as its key, a code that is unique in
/// any case of letters, a number and a text that are unique together; `pairs` a key of a number and
/// a text, and a text.
pub const TABLES: [&str; 2] = ["items", "pairs"];
/// HQ's table in the suite.
const PRICES: &str = "prices";

/// What a store's own program does.
#[derive(Debug, Clone)]
pub enum Act {
    /// Inserts a row into `items`.
    Insert {
        /// Its key.
        id: i64,
        /// Unique.
        code: Option<&'static str>,
        /// Unique together with `v`.
        pair: i64,
        /// See `pair`.
        v: Option<&'static str>,
    },
    /// Gives the row of `items` with this key another one, and another code.
    Move {
        /// Its key.
        id: i64,
        /// The key it gets.
        to: i64,
        /// The code it gets.
        code: Option<&'static str>,
    },
    /// Sets `pair` and `v` in all rows of `items` from a key on.
    Set {
        /// The first key.
        from: i64,
        /// Their new number.
        pair: i64,
        /// Their new text.
        v: Option<&'static str>,
    },
    /// Deletes the rows of `items` with this key or number.
    Delete {
        /// The key.
        id: i64,
        /// The number.
        pair: i64,
    },
    /// Inserts a row into `pairs`, or changes the one with its key.
    Put {
        /// The key's number.
        a: i64,
        /// The key's text.
        b: &'static str,
        /// The value.
        v: Option<&'static str>,
    },
    /// Deletes the rows of `pairs` with this number.
    DeletePairs {
        /// The key's number.
        a: i64,
    },
    /// Several in one transaction, which is committed or rolled back.
    Together(Vec<Act>, bool),
}

/// A store's database that the suite writes to as the store's own program does.
pub trait Store {
    /// Where it is.
    fn database(&self) -> Arc<dyn Database>;

    /// Does one act by a connection that has nothing to do with capture; one that the database
    /// refuses changes nothing.
    fn act(&mut self, act: &Act);

    /// All rows of a table: numbers and texts as they are, `NULL` for null; sorted.
    fn rows(&self, table: &str) -> Vec<Vec<String>>;

    /// Takes capture of a table away, as a program may that knows nothing of it.
    fn break_capture(&mut self, table: &str);

    /// Makes a table of the store's own that is called as HQ's, with a key `id` and a text `name`,
    /// and one row in it.
    fn make_prices(&mut self);
}

/// Any act.
pub fn acts() -> impl Strategy<Value = Act> {
    let code = || prop_oneof![Just(Some("a")), Just(Some("A")), Just(Some("b")), Just(Some("c")), Just(None)];
    let text = || prop_oneof![Just(Some("x")), Just(Some("y")), Just(None)];
    let one = prop_oneof![
        (1..6_i64, code(), 1..4_i64, text()).prop_map(|(id, code, pair, v)| Act::Insert { id, code, pair, v }),
        (1..6_i64, 1..6_i64, code()).prop_map(|(id, to, code)| Act::Move { id, to, code }),
        (1..6_i64, 1..4_i64, text()).prop_map(|(from, pair, v)| Act::Set { from, pair, v }),
        (1..6_i64, 1..4_i64).prop_map(|(id, pair)| Act::Delete { id, pair }),
        (1..4_i64, prop_oneof![Just("a"), Just("b")], text()).prop_map(|(a, b, v)| Act::Put { a, b, v }),
        (1..4_i64).prop_map(|a| Act::DeletePairs { a }),
    ];
    let together = prop::collection::vec(one.clone(), 1..6);
    prop_oneof![
        4 => one,
        1 => (together, any::<bool>()).prop_map(|(acts, commits)| Act::Together(acts, commits)),
    ]
}

fn specs() -> Vec<TableSpec> {
    TABLES.map(|table| TableSpec { table: table.to_owned(), excluded: Vec::new() }).to_vec()
}

/// Runs loads to their end.
pub fn load_all(source: &mut dyn Source) {
    while source.load_step().expect("loads") != LoadProgress::Idle {}
}

fn is_whole(store: &dyn Store, source: &mut dyn Source) {
    for table in TABLES {
        let model = Model::replay(source, table);
        assert_eq!(model.rows(), store.rows(table), "table {table}, journal {}", model.ops);
    }
}

/// Any history, beside a load that is under way or not, replays to the store's rows.
pub fn any_history(store: &mut dyn Store, history: &[(Act, bool)]) {
    let mut source = store.database().source().expect("opens");
    source.install(&specs(), "journal-1").expect("installs");
    for (act, step) in history {
        store.act(act);
        if *step {
            source.load_step().expect("loads");
            assert_eq!(source.count_rows().expect("counts"), Health::default());
        }
    }
    load_all(source.as_mut());
    assert_eq!(source.count_rows().expect("counts"), Health::default());
    is_whole(store, source.as_mut());
}

/// Everything else that the contract promises. `new` makes a store with empty tables.
pub fn what_is_promised(new: &mut dyn FnMut() -> Box<dyn Store>) {
    a_journal_is_made_once(new().as_mut());
    positions_go_on_without_gaps_and_are_pruned_only_when_confirmed(new().as_mut());
    what_was_rolled_back_left_nothing(new().as_mut());
    what_is_left_out_never_leaves(new().as_mut());
    broken_capture_is_noticed_and_mended(new().as_mut());
    a_table_that_is_stopped_is_sent_no_more(new().as_mut());
    hqs_rows_are_applied_with_their_version(new().as_mut());
    nothing_is_left_behind(new().as_mut());
}

fn insert(id: i64) -> Act {
    Act::Insert { id, code: None, pair: id, v: None }
}

fn installed(store: &dyn Store) -> Box<dyn Source> {
    let mut source = store.database().source().expect("opens");
    source.install(&specs(), "journal-1").expect("installs");
    source
}

fn a_journal_is_made_once(store: &mut dyn Store) {
    let mut source = store.database().source().expect("opens");
    assert!(!source.is_installed().expect("looks"));
    assert!(matches!(source.journal_id(), Err(CaptureError::NotInstalled)));
    let missing = [TableSpec { table: "nowhere".to_owned(), excluded: Vec::new() }];
    assert!(matches!(source.check_tables(&missing), Err(CaptureError::NoSuchTable { .. })));
    source.check_writable().expect("can be written");
    let listed: Vec<String> = source.list_tables().expect("lists").into_iter().map(|listed| listed.table).collect();
    assert!(TABLES.iter().all(|table| listed.iter().any(|listed| listed == table)), "{listed:?}");
    source.install(&specs(), "journal-1").expect("installs");
    source.set_site("seattle-01").expect("notes");
    let mut again = store.database().source().expect("opens");
    again.install(&specs(), "journal-2").expect("installs");
    assert_eq!(again.journal_id().expect("has one"), "journal-1", "it is the same journal");
    assert_eq!(again.site().expect("reads").as_deref(), Some("seattle-01"));
    let mut tables = again.tables().expect("reads");
    tables.sort();
    assert_eq!(tables, TABLES);
}

fn positions_go_on_without_gaps_and_are_pruned_only_when_confirmed(store: &mut dyn Store) {
    let mut source = installed(store);
    load_all(source.as_mut());
    let seen = store.database().fingerprint();
    (1..6).for_each(|id| store.act(&insert(id)));
    assert_ne!(store.database().fingerprint(), seen, "what was committed shows");
    let head = source.heads().expect("reads").head;
    let first = source.read(Anchor::default(), 2, 1 << 20).expect("reads").expect("changes");
    assert_eq!(first.first, Seq(1));
    // An agent that starts anew reads on where the other stopped.
    let mut other = store.database().source().expect("opens");
    let after = Anchor { seq: first.last, digest: first.digest.clone() };
    let second = other.read(after.clone(), usize::MAX, 1 << 20).expect("reads").expect("changes");
    assert_eq!((second.first, second.last), (Seq(first.last.0 + 1), head));
    other.check_anchor(&after).expect("it is the change that was read");
    let wrong = Anchor { digest: second.digest.clone(), ..after };
    assert!(matches!(other.check_anchor(&wrong), Err(CaptureError::Rewound(_))), "another change stands there");
    let all = PruneLimits { through: head, bytes: 0 };
    source.prune(first.last, all).expect("prunes");
    assert_eq!(source.oldest().expect("reads"), second.first, "what is not confirmed stays");
    let state = source.journal_state(first.last).expect("reads");
    assert_eq!(state.head, head);
}

fn what_was_rolled_back_left_nothing(store: &mut dyn Store) {
    let mut source = installed(store);
    store.act(&Act::Together(vec![insert(1), insert(2)], true));
    store.act(&Act::Together(vec![insert(3), Act::Delete { id: 1, pair: 1 }], false));
    store.act(&insert(4));
    load_all(source.as_mut());
    is_whole(store, source.as_mut());
    assert_eq!(Model::replay(source.as_mut(), TABLES[0]).rows().len(), 3);
}

fn what_is_left_out_never_leaves(store: &mut dyn Store) {
    let mut source = store.database().source().expect("opens");
    let spec = TableSpec { table: TABLES[0].to_owned(), excluded: vec!["code".to_owned()] };
    assert!(source.has_column(TABLES[0], "CODE").expect("looks"));
    source.install(std::slice::from_ref(&spec), "journal-1").expect("installs");
    store.act(&Act::Insert { id: 1, code: Some("secret"), pair: 1, v: None });
    load_all(source.as_mut());
    let changes = source.read(Anchor::default(), 100, 1 << 20).expect("reads").expect("changes");
    let rows = changes.tables.iter().filter(|table| table.table == TABLES[0]);
    assert!(rows.clone().count() > 0);
    assert!(rows.clone().all(|table| table.rows.column_by_name("code").is_none()));
    assert_eq!(source.excluded(TABLES[0]).expect("reads"), Some(vec!["code".to_owned()]));
    assert!(source.uncaptured_tables().expect("reads").iter().any(|table| table == TABLES[1]));
    // Once it is captured after all, HQ hears what it held.
    let whole = TableSpec { excluded: Vec::new(), ..spec };
    assert!(source.capture(&whole).expect("captures"));
    assert!(!source.capture(&whole).expect("captures"), "nothing new");
    load_all(source.as_mut());
    assert_eq!(Model::replay(source.as_mut(), TABLES[0]).rows(), store.rows(TABLES[0]));
}

fn broken_capture_is_noticed_and_mended(store: &mut dyn Store) {
    let mut source = installed(store);
    store.act(&insert(1));
    load_all(source.as_mut());
    assert!(source.check().expect("looks").is_ok());
    store.break_capture(TABLES[0]);
    store.act(&insert(2));
    let health = source.check().expect("looks");
    assert!(!health.mended.is_empty() && health.is_ok(), "{health:?}");
    store.act(&insert(3));
    load_all(source.as_mut());
    is_whole(store, source.as_mut());
}

fn a_table_that_is_stopped_is_sent_no_more(store: &mut dyn Store) {
    let mut source = installed(store);
    load_all(source.as_mut());
    store.act(&insert(1));
    source.stop(TABLES[0]).expect("stops");
    assert!(source.is_stopped(TABLES[0]).expect("looks") && !source.is_stopped(TABLES[1]).expect("looks"));
    store.act(&insert(2));
    store.act(&Act::Put { a: 1, b: "a", v: None });
    let mut after = Anchor::default();
    let mut read = Vec::new();
    while let Some(changes) = source.read(after, 100, 1 << 20).expect("reads") {
        read.extend(changes.tables.iter().filter(|table| table.rows.num_rows() > 0).map(|table| table.table.clone()));
        after = Anchor { seq: changes.last, digest: changes.digest };
    }
    assert!(!read.iter().any(|table| table == TABLES[0]), "{read:?}");
    assert!(read.iter().any(|table| table == TABLES[1]), "{read:?}");
}

fn prices(version: i64) -> (IncomingTable, RecordBatch) {
    let table = IncomingTable {
        name: PRICES.to_owned(),
        columns: vec![("id".to_owned(), "long".to_owned()), ("name".to_owned(), "string".to_owned())],
        key: vec!["id".to_owned()],
        audience: 1,
        mends: true,
        shared: false,
        keeps_referenced: false,
        rewritten: Vec::new(),
    };
    let fields = vec![
        Field::new(columns::OP, DataType::Utf8, false),
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
    ];
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["U", "U"])),
        Arc::new(Int64Array::from(vec![1, version])),
        Arc::new(StringArray::from(vec![Some("one"), None])),
    ];
    (table, RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns match"))
}

fn hqs_rows_are_applied_with_their_version(store: &mut dyn Store) {
    let mut source = installed(store);
    load_all(source.as_mut());
    let head = source.heads().expect("reads").head;
    let staging = std::env::temp_dir().join(format!("rollcall-conformance-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&staging);
    store.make_prices();
    let mut incoming = store.database().incoming(&staging).expect("opens");
    let (table, rows) = prices(2);
    incoming.begin(&table, Seq(0), true).expect("begins");
    incoming.stage(PRICES, &rows, Seq(7)).expect("stages");
    let refused = incoming.apply(PRICES, Seq(7), 0, false);
    assert!(matches!(refused, Err(CaptureError::Differs { .. })), "the store has rows of its own there: {refused:?}");
    assert_eq!(store.rows(PRICES).len(), 1, "and keeps them");
    // Who opens it anew goes on with what is staged.
    drop(incoming);
    let mut incoming = store.database().incoming(&staging).expect("opens");
    assert_eq!(incoming.staged(PRICES).expect("reads").map(|staged| staged.through), Some(Seq(7)));
    incoming.adopt(PRICES).expect("adopts");
    incoming.apply(PRICES, Seq(7), 0, false).expect("applies");
    let expected = [vec!["1".to_owned(), "one".to_owned()], vec!["2".to_owned(), "NULL".to_owned()]];
    assert_eq!(store.rows(PRICES), expected);
    assert_eq!(incoming.applied().expect("reads")[PRICES].version, Seq(7));
    assert!(incoming.is_as_applied(PRICES).expect("looks") && incoming.is_current());
    assert_eq!(source.heads().expect("reads").head, head, "HQ's rows are no changes of the store's");
    let _ = std::fs::remove_dir_all(&staging);
}

fn nothing_is_left_behind(store: &mut dyn Store) {
    let mut source = installed(store);
    store.act(&insert(1));
    source.detach(None, true).expect("detaches");
    assert!(!source.is_installed().expect("looks"));
    store.act(&insert(2));
    assert_eq!(store.rows(TABLES[0]).len(), 2, "the store goes on");
    assert!(matches!(source.journal_id(), Err(CaptureError::NotInstalled)));
}
