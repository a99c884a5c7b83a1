//! Tables that the store changes as well as HQ: real databases, and a hub that decides as HQ does.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use arrow_array::{RecordBatch, StringArray};
use proptest::{collection::vec, prelude::*};
use rollcall_capture::IncomingTable;
use rollcall_capture_sqlite::SqliteIncoming;
use rollcall_types::{
    HQ_SITE, Seq,
    shared::{Decision, Rule, Version, decide, stamp},
};
use rusqlite::Connection;

const COLUMNS: [&str; 3] = ["id", "name", "phone"];

/// A row's name and phone.
type Row = [Option<String>; 2];

fn customers() -> IncomingTable {
    IncomingTable {
        name: "customers".to_owned(),
        columns: COLUMNS.map(|name| (name.to_owned(), "string".to_owned())).to_vec(),
        key: vec!["id".to_owned()],
        audience: 1,
        mends: true,
        shared: true,
        keeps_referenced: false,
        rewritten: Vec::new(),
    }
}

/// One store, and the agent's hold on it.
struct Site {
    id: String,
    /// What its clock shows beside the true time, microseconds.
    skew: i64,
    directory: tempfile::TempDir,
    incoming: SqliteIncoming,
    version: u64,
    /// By edit: the time that its clock showed.
    clocks: BTreeMap<u64, i64>,
}

impl Site {
    fn new(id: &str, skew: i64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Connection::open(directory.path().join("store.sqlite"))
            .and_then(|conn| conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF"))
            .expect("makes a database");
        let incoming = open(&directory);
        Self { id: id.to_owned(), skew, directory, incoming, version: 0, clocks: BTreeMap::new() }
    }

    fn conn(&self) -> Connection {
        let path: PathBuf = self.directory.path().join("store.sqlite");
        Connection::open(path).expect("opens")
    }

    fn restart(&mut self) {
        self.incoming = open(&self.directory);
    }

    /// A program of the store's does something, at a true time.
    fn sql(&mut self, now: i64, sql: &str) {
        self.conn().execute_batch(sql).expect("a store's program is never hindered");
        for number in self.edits().into_iter().map(|edit| edit.number) {
            self.clocks.entry(number).or_insert(now + self.skew);
        }
    }

    fn rows(&self) -> BTreeMap<String, Row> {
        let conn = self.conn();
        let mut statement = conn.prepare("SELECT id, name, phone FROM customers").expect("a table");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, [row.get(1)?, row.get(2)?]))).expect("reads");
        rows.collect::<Result<_, _>>().expect("reads")
    }

    fn edits(&self) -> Vec<Edit> {
        let conn = self.conn();
        let mut statement = conn
            .prepare(
                "SELECT edit_number, edit_base, edit_gone, edit_changed, id, name, phone FROM customers_edits
                 ORDER BY edit_number",
            )
            .expect("a table");
        let edits = statement
            .query_map([], |row| {
                let changed: String = row.get(3)?;
                Ok(Edit {
                    number: row.get::<_, i64>(0)?.unsigned_abs(),
                    base: row.get::<_, i64>(1)?.unsigned_abs(),
                    gone: row.get(2)?,
                    changed: changed.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
                    key: row.get(4)?,
                    row: [row.get(5)?, row.get(6)?],
                })
            })
            .expect("reads");
        edits.collect::<Result<_, _>>().expect("reads")
    }
}

fn open(directory: &tempfile::TempDir) -> SqliteIncoming {
    SqliteIncoming::open(&directory.path().join("store.sqlite"), &directory.path().join("state")).expect("opens")
}

#[derive(Debug)]
struct Edit {
    number: u64,
    base: u64,
    gone: bool,
    changed: Vec<String>,
    key: String,
    row: Row,
}

/// What HQ has of a row.
#[derive(Default)]
struct Kept {
    row: Option<Row>,
    /// Every version, with its position.
    versions: Vec<(u64, Version)>,
}

struct Hub {
    rule: Rule,
    rows: BTreeMap<String, Kept>,
    version: u64,
    /// By site: the last edit decided on.
    merged: BTreeMap<String, u64>,
    decided: usize,
    conflicts: usize,
}

impl Hub {
    fn new(rule: Rule) -> Self {
        Self { rule, rows: BTreeMap::new(), version: 0, merged: BTreeMap::new(), decided: 0, conflicts: 0 }
    }

    fn put(&mut self, key: &str, row: Option<Row>, by: Version) {
        self.version += 1;
        let kept = self.rows.entry(key.to_owned()).or_default();
        kept.row = row;
        kept.versions.push((self.version, by));
    }

    /// HQ's own people change a row.
    fn edit(&mut self, now: i64, key: &str, column: usize, value: Option<&str>) {
        let kept = self.rows.entry(key.to_owned()).or_default();
        let known = kept.versions.last().map(|(_, of)| of.at);
        let mut by = Version {
            by: HQ_SITE.to_owned(),
            at: stamp(now, now, known),
            changed: Vec::new(),
            gone: value.is_none(),
            restated: false,
        };
        let row = value.map(|value| {
            by.changed.push(COLUMNS[column + 1].to_owned());
            let mut row = kept.row.clone().unwrap_or_default();
            row[column] = Some(value.to_owned());
            row
        });
        self.put(key, row, by);
    }

    /// Takes a site's edits, as they come with its journal.
    fn take(&mut self, now: i64, site: &Site) {
        for edit in site.edits() {
            let merged = self.merged.entry(site.id.clone()).or_default();
            if edit.number <= *merged {
                continue;
            }
            *merged = edit.number;
            self.decided += 1;
            let kept = self.rows.entry(edit.key.clone()).or_default();
            let is_known = |of: &&(u64, Version)| of.0 <= edit.base || of.1.by == site.id;
            let known = kept.versions.iter().filter(is_known).map(|(_, of)| of.at).max();
            let since: Vec<Version> =
                kept.versions.iter().filter(|of| !is_known(of)).map(|(_, of)| of.clone()).collect();
            let at = stamp(site.clocks[&edit.number], now, known);
            let mut by =
                Version { by: site.id.clone(), at, changed: edit.changed.clone(), gone: edit.gone, restated: false };
            let row = (!edit.gone).then(|| edit.row.clone());
            match decide(self.rule, &since, &by) {
                Decision::Taken { over } => {
                    self.conflicts += usize::from(over.is_some());
                    self.put(&edit.key, row, by);
                }
                Decision::Lost { .. } => self.conflicts += 1,
                Decision::Partly { columns, lost, .. } => {
                    self.conflicts += usize::from(!lost.is_empty());
                    if columns.is_empty() {
                        continue;
                    }
                    let (mut mixed, row) = (kept.row.clone().unwrap_or_default(), row.unwrap_or_default());
                    for column in [0, 1] {
                        if columns.iter().any(|name| name == COLUMNS[column + 1]) {
                            mixed[column] = row[column].clone();
                        }
                    }
                    by.changed = columns;
                    self.put(&edit.key, Some(mixed), by);
                }
            }
        }
    }

    /// A site fetches what it lacks. With `dies`, its agent does not come to apply it.
    fn give(&self, site: &mut Site, whole: bool, dies: bool) {
        let after = if whole { 0 } else { site.version };
        let newest = |kept: &Kept| kept.versions.last().map_or(0, |(seq, _)| *seq);
        let mut rows: Vec<(u64, &String, &Kept)> =
            self.rows.iter().map(|(key, kept)| (newest(kept), key, kept)).filter(|of| of.0 > after).collect();
        rows.sort_by_key(|of| of.0);
        site.incoming.begin(&customers(), Seq(after), after == 0).expect("begins");
        let ops: StringArray = rows.iter().map(|of| Some(if of.2.row.is_some() { "U" } else { "D" })).collect();
        let keys: StringArray = rows.iter().map(|of| Some(of.1.as_str())).collect();
        let values = |column: usize| -> StringArray {
            rows.iter().map(|of| of.2.row.as_ref().and_then(|row| row[column].as_deref())).collect()
        };
        let columns: [(&str, arrow_array::ArrayRef); 4] = [
            ("_op", Arc::new(ops)),
            ("id", Arc::new(keys)),
            ("name", Arc::new(values(0))),
            ("phone", Arc::new(values(1))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)));
        site.incoming.stage("customers", &batch.expect("a batch"), Seq(self.version)).expect("stages");
        if dies {
            site.restart();
            site.incoming.clear("customers").expect("clears");
            return;
        }
        site.incoming.apply("customers", Seq(self.version), 0, false).expect("applies");
        site.version = self.version;
        let merged = self.merged.get(&site.id).copied().unwrap_or_default();
        site.incoming.settle("customers", merged).expect("settles");
    }

    fn rows(&self) -> BTreeMap<String, Row> {
        self.rows.iter().filter_map(|(key, kept)| Some((key.clone(), kept.row.clone()?))).collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Set { site: usize, key: usize, column: usize, value: u8 },
    Replace { site: usize, key: usize, value: u8 },
    Move { site: usize, key: usize, to: usize },
    Delete { site: usize, key: usize },
    Hq { key: usize, column: usize, value: Option<u8> },
    Push { site: usize },
    Pull { site: usize, whole: bool, dies: bool },
}

const SITES: usize = 3;
const KEYS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let (site, key, column) = (0..SITES, 0..KEYS, 0..2_usize);
    prop_oneof![
        5 => (site.clone(), key.clone(), column.clone(), any::<u8>())
            .prop_map(|(site, key, column, value)| Step::Set { site, key, column, value }),
        2 => (site.clone(), key.clone(), any::<u8>()).prop_map(|(site, key, value)| Step::Replace { site, key, value }),
        1 => (site.clone(), key.clone(), key.clone()).prop_map(|(site, key, to)| Step::Move { site, key, to }),
        1 => (site.clone(), key.clone()).prop_map(|(site, key)| Step::Delete { site, key }),
        2 => (key, column, any::<Option<u8>>()).prop_map(|(key, column, value)| Step::Hq { key, column, value }),
        4 => site.clone().prop_map(|site| Step::Push { site }),
        4 => (site, prop::bool::weighted(0.2), prop::bool::weighted(0.1))
            .prop_map(|(site, whole, dies)| Step::Pull { site, whole, dies }),
    ]
}

fn name(key: usize) -> String {
    format!("k{key}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever the order in which stores and HQ edit, send and fetch, and whatever their clocks
    /// show.
    #[test]
    fn all_ends_come_to_the_same_rows(
        rule in prop_oneof![Just(Rule::Hq), Just(Rule::Site), Just(Rule::Latest), Just(Rule::Fields)],
        // Up to three years, either way.
        skews in vec(-100_000_000_000_000_i64..100_000_000_000_000, SITES),
        steps in vec(step(), 1..60),
    ) {
        let mut hub = Hub::new(rule);
        for key in 0..KEYS - 1 {
            hub.edit(1, &name(key), 0, Some("first"));
        }
        let mut sites: Vec<Site> =
            skews.iter().enumerate().map(|(number, skew)| Site::new(&format!("site-{number}"), *skew)).collect();
        sites.iter_mut().for_each(|site| hub.give(site, true, false));
        let (mut now, mut edits) = (1_800_000_000_000_000, 0);
        for step in steps {
            now += 1_000_000;
            match step {
                Step::Set { site, key, column, value } => {
                    let (column, key) = (COLUMNS[column + 1], name(key));
                    sites[site].sql(now, &format!("UPDATE customers SET {column} = 's{site}-{value}' WHERE id = '{key}'"));
                }
                Step::Replace { site, key, value } => {
                    let key = name(key);
                    sites[site].sql(now, &format!("INSERT OR REPLACE INTO customers VALUES ('{key}', 'r{site}-{value}', NULL)"));
                }
                Step::Move { site, key, to } => {
                    let (key, to) = (name(key), name(to));
                    sites[site].sql(now, &format!("UPDATE OR IGNORE customers SET id = '{to}' WHERE id = '{key}'"));
                }
                Step::Delete { site, key } => {
                    sites[site].sql(now, &format!("DELETE FROM customers WHERE id = '{}'", name(key)));
                }
                Step::Hq { key, column, value } => {
                    let value = value.map(|value| format!("hq-{value}"));
                    hub.edit(now, &name(key), column, value.as_deref());
                }
                Step::Push { site } => hub.take(now, &sites[site]),
                Step::Pull { site, whole, dies } => hub.give(&mut sites[site], whole, dies),
            }
        }
        // The lines are mended, and everything comes through.
        for site in &sites {
            hub.take(now, site);
        }
        for site in &mut sites {
            hub.give(site, false, false);
            edits += site.clocks.len();
        }
        prop_assert_eq!(hub.decided, edits, "each edit is decided on once");
        let settled = hub.version;
        for site in &sites {
            prop_assert_eq!(site.rows(), hub.rows());
            prop_assert!(site.edits().is_empty(), "{:?} wait at {}", site.edits(), site.id);
            hub.take(now, site);
            let held: i64 = site.conn().query_row("SELECT count(*) FROM _rollcall_held_customers", [], |row| row.get(0)).expect("counts");
            prop_assert_eq!(held, 0);
        }
        prop_assert_eq!(hub.version, settled, "what HQ sends is no edit");
    }
}

#[test]
fn an_edit_that_waits_is_not_overwritten() {
    let mut hub = Hub::new(Rule::Latest);
    hub.edit(1, "k1", 0, Some("Ann"));
    let mut site = Site::new("tacoma-01", 0);
    hub.give(&mut site, true, false);
    // A program that adds to what it reads, while HQ's answers come.
    site.sql(10, "UPDATE customers SET phone = '1' WHERE id = 'k1'");
    hub.take(11, &site);
    site.sql(12, "UPDATE customers SET phone = phone || '2' WHERE id = 'k1'");
    hub.give(&mut site, false, false);
    site.sql(14, "UPDATE customers SET phone = phone || '3' WHERE id = 'k1'");
    hub.take(15, &site);
    hub.give(&mut site, false, false);
    assert_eq!(site.rows()["k1"][1].as_deref(), Some("123"));
    assert_eq!((site.rows(), hub.conflicts), (hub.rows(), 0));
}

#[test]
fn triggers_that_were_dropped_are_noticed_and_made_again() {
    let mut hub = Hub::new(Rule::Latest);
    hub.edit(1, "k1", 0, Some("Ann"));
    let mut site = Site::new("tacoma-01", 0);
    hub.give(&mut site, true, false);
    assert!(site.incoming.is_as_applied("customers").expect("looks"));
    site.sql(2, "DROP TRIGGER _rollcall_eu_customers; UPDATE customers SET name = 'unseen' WHERE id = 'k1'");
    assert!(!site.incoming.is_as_applied("customers").expect("looks"));
    hub.give(&mut site, true, false);
    assert!(site.incoming.is_as_applied("customers").expect("looks"));
    assert_eq!(site.rows()["k1"][0].as_deref(), Some("Ann"));
}
