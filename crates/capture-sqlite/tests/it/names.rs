//! Goal: whatever a store's tables and columns are called and however they are keyed, HQ ends with
//! the store's rows, each as often as the store has it, and the count of rows never cries wolf.
//! Method: tables whose names are those that our own statements use (`old`, `new`, `k0`, `seq`,
//! `_rowid_` …), with and without keys, written at random while they are loaded, and afterwards.

use proptest::prelude::*;
use rollcall_capture::Source;
use rollcall_capture_conformance::Model;
use rollcall_capture_sqlite::SqliteSource;
use rusqlite::Connection;

use crate::{
    model::truth,
    store::{Store, load_all},
};

const TABLES: [&str; 8] = ["old", "NEW", "k0", "_rollcalled", "t", "a b", "\"q", "Größe"];
const COLUMNS: [&str; 14] = [
    "k0",
    "_rowid_",
    "oid",
    "seq",
    "t",
    "op",
    "at",
    "old",
    "new",
    "c0",
    "_seq",
    "_misfit",
    "_exact_key",
    "_changed_at",
];

/// How a table is keyed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Keyed {
    Not,
    Integer,
    Untyped,
    Text,
    WithoutRowid,
    Composite,
}

#[derive(Debug, Clone)]
struct Shape {
    table: &'static str,
    columns: Vec<&'static str>,
    keyed: Keyed,
    unique: bool,
    generated: bool,
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Shape {
    fn sql(&self) -> String {
        let [first, second, third] = [0, 1, 2].map(|index| quote(self.columns[index]));
        let (key, end) = match self.keyed {
            Keyed::Not => (first.clone(), ""),
            Keyed::Integer => (format!("{first} INTEGER PRIMARY KEY"), ""),
            Keyed::Untyped => (format!("{first} PRIMARY KEY NOT NULL"), ""),
            Keyed::Text => (format!("{first} TEXT PRIMARY KEY NOT NULL COLLATE NOCASE"), ""),
            Keyed::WithoutRowid => (format!("{first} PRIMARY KEY"), " WITHOUT ROWID"),
            Keyed::Composite => (first.clone(), ""),
        };
        let more = match self.keyed {
            Keyed::Composite => format!(", PRIMARY KEY ({first}, {second})"),
            _ => String::new(),
        };
        let unique = if self.unique { " UNIQUE" } else { "" };
        // A computed column between others.
        let generated = if self.generated { ", computed TEXT AS ('=' || 1)" } else { "" };
        let not_null = if self.keyed == Keyed::Composite { " NOT NULL" } else { "" };
        format!(
            "CREATE TABLE {} ({key}{}{generated}, {second}{not_null}{unique}, {third} TEXT{more}){end}",
            quote(self.table),
            if self.keyed == Keyed::Composite { " NOT NULL" } else { "" }
        )
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    let keyed = prop_oneof![
        3 => Just(Keyed::Not),
        1 => Just(Keyed::Integer),
        1 => Just(Keyed::Untyped),
        1 => Just(Keyed::Text),
        1 => Just(Keyed::WithoutRowid),
        1 => Just(Keyed::Composite),
    ];
    let columns = prop::sample::subsequence(COLUMNS.to_vec(), 3).prop_shuffle();
    (prop::sample::select(TABLES.to_vec()), columns, keyed, any::<bool>(), any::<bool>())
        .prop_map(|(table, columns, keyed, unique, generated)| Shape { table, columns, keyed, unique, generated })
}

/// What the store does, in terms of its three columns.
#[derive(Debug, Clone)]
enum Step {
    Write(String),
    Load,
    Count,
    Restart,
    Vacuum,
}

fn step() -> impl Strategy<Value = Step> {
    // One and '1' are two keys in a column without a type.
    let value = || prop::sample::select(vec!["1", "'1'", "2", "'b'", "'B'", "3", "1.5", "'two words'"]);
    let or = prop::sample::select(vec!["", "OR REPLACE", "OR IGNORE"]);
    let write = (0..5, or, value(), value(), value()).prop_map(|(kind, or, a, b, c)| {
        Step::Write(match kind {
            0 | 1 => format!("INSERT {or} INTO T (A, B, C) VALUES ({a}, {b}, {c})"),
            2 => format!("UPDATE {or} T SET B = {b}, C = {c} WHERE A IS {a}"),
            3 => format!("UPDATE {or} T SET A = {a} WHERE B IS {b}"),
            _ => format!("DELETE FROM T WHERE A IS {a} OR C IS {c}"),
        })
    });
    prop_oneof![12 => write, 4 => Just(Step::Load), 2 => Just(Step::Count), 1 => Just(Step::Restart), 1 => Just(Step::Vacuum)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn names_of_ours_are_names_like_others(
        shape in shape(),
        before in prop::collection::vec(step(), 0..4),
        steps in prop::collection::vec(step(), 1..30),
        recursive in any::<bool>(),
    ) {
        let store = Store::new(&shape.sql());
        let till = Connection::open(&store.path).expect("opens");
        till.execute_batch(&format!("PRAGMA synchronous = OFF; PRAGMA recursive_triggers = {recursive}")).expect("sets");
        let run = |sql: &str| {
            let [a, b, c] = [0, 1, 2].map(|index| quote(shape.columns[index]));
            let sql = sql.replace(" T ", &format!(" {} ", quote(shape.table))).replace("(A, B, C)", &format!("({a}, {b}, {c})"))
                .replace("SET A", &format!("SET {a}")).replace("SET B", &format!("SET {b}")).replace(", C =", &format!(", {c} ="))
                .replace("WHERE A", &format!("WHERE {a}")).replace("WHERE B", &format!("WHERE {b}")).replace("OR C", &format!("OR {c}"));
            // A refused statement is part of the game.
            let _ = till.execute_batch(&sql);
        };
        for step in &before {
            if let Step::Write(sql) = step { run(sql) }
        }
        let mut source: SqliteSource = store.capture(&[shape.table]);
        source.check().expect("checks");
        for step in &steps {
            match step {
                Step::Write(sql) => run(sql),
                Step::Load => { source.load_step().expect("loads"); }
                Step::Count => {
                    let health = source.count_rows().expect("counts");
                    prop_assert!(health.mended.is_empty(), "{:?} after {:?} on {}", health, steps, shape.sql());
                }
                Step::Restart => source = SqliteSource::open(&store.path).expect("opens"),
                Step::Vacuum => {
                    till.execute_batch("VACUUM").expect("vacuums");
                    prop_assert!(source.check().expect("checks").is_ok());
                }
            }
        }
        load_all(&mut source);
        let health = source.count_rows().expect("counts");
        prop_assert!(health.mended.is_empty(), "{:?} after {:?} on {}", health, steps, shape.sql());
        let model = Model::replay(&mut source, shape.table);
        let rowid = match shape.keyed {
            Keyed::Not => ["rowid", "oid", "_rowid_"].into_iter().find(|name| !shape.columns.contains(name)).map(|name| format!("{name}, ")),
            _ => None,
        };
        let select = format!("SELECT {}* FROM {}", rowid.unwrap_or_default(), quote(shape.table));
        prop_assert_eq!(model.rows(), truth(&store.path, &select), "{} journal {} after {:?}", shape.sql(), model.ops, steps);
    }
}
