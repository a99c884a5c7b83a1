//! The rows that both servers hold, written down in `tests/differential/*.tsv`: a line of columns
//! with their types, then a line for each row, in the text form of PostgreSQL's COPY.

use std::{collections::HashMap, fs, path::PathBuf, sync::Arc};

use arrow::{
    array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, UInt8Array},
    compute::cast,
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use rollcall_lake::{Lake, Part, SiteClock, conform};
use rollcall_types::{ChainHash, Epoch, Seq, SiteId, SiteNumber, TableName, Timestamp, columns};

use crate::wire::{Client, quoted};

/// The tables' names.
const TABLES: [&str; 3] = ["sales", "stores", "kinds"];
/// The sites whose rows they are, by number less one. Tables without a column `_site` are the first
/// one's.
const SITES: [&str; 4] = ["s01", "s02", "s03", "s04"];
/// HQ's own columns, which follow a table's.
const OURS: &str = "_site text, _epoch integer, _seq bigint, _op text, _changed_at timestamptz, \
                    _received_at timestamptz, _misfit text";
const SITE: &str = "_site";

/// A table as written down.
#[derive(Debug)]
struct Table {
    name: &'static str,
    /// Each column's name and PostgreSQL's name of its type.
    columns: Vec<(String, String)>,
    rows: Vec<Vec<Option<String>>>,
}

/// A directory of this crate's tests.
pub(crate) fn directory() -> PathBuf {
    PathBuf::from("tests/differential")
}

impl Table {
    fn read(name: &'static str) -> Self {
        let text = fs::read_to_string(directory().join(name).with_extension("tsv")).expect("the table's rows");
        let mut lines = text.lines();
        let named = |column: &str| {
            let (name, kind) = column.split_once(' ').expect("a name and a type");
            (name.to_owned(), kind.to_owned())
        };
        let columns = lines.next().expect("a line of columns").split('\t').map(named).collect();
        let rows = lines.map(|line| line.split('\t').map(unescaped).collect()).collect();
        Self { name, columns, rows }
    }

    /// The site that a row is of.
    fn site(&self, row: &[Option<String>]) -> usize {
        let place = self.columns.iter().position(|column| column.0 == SITE);
        let id = place.and_then(|place| row[place].as_deref());
        id.and_then(|id| SITES.iter().position(|site| *site == id)).unwrap_or_default()
    }

    /// Each site's rows, with the position each row has in the site's journal.
    fn by_site(&self) -> Vec<(usize, Vec<&Vec<Option<String>>>)> {
        let of_site = |site| self.rows.iter().filter(|row| self.site(row) == site).collect::<Vec<_>>();
        (0..SITES.len()).map(|site| (site, of_site(site))).filter(|(_, rows)| !rows.is_empty()).collect()
    }

    /// The columns that the sites have.
    fn theirs(&self) -> impl Iterator<Item = (usize, &(String, String))> {
        self.columns.iter().enumerate().filter(|(_, column)| column.0 != SITE)
    }
}

/// A field of COPY's text form.
fn unescaped(field: &str) -> Option<String> {
    if field == r"\N" {
        return None;
    }
    let (mut text, mut letters) = (String::new(), field.chars());
    while let Some(letter) = letters.next() {
        text.push(match letter {
            '\\' => match letters.next().expect("something escaped") {
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                other => other,
            },
            other => other,
        });
    }
    Some(text)
}

/// Makes and fills the tables in PostgreSQL, with HQ's own columns as HQ has them.
pub(crate) fn load(client: &mut Client) {
    for table in TABLES.map(Table::read) {
        let never_null = |name: &str| if name == "id" { " NOT NULL" } else { "" };
        let declared = table.theirs().map(|(_, (name, kind))| format!("{name} {kind}{}", never_null(name)));
        let declared: Vec<String> = declared.collect();
        client.simple(&format!("CREATE TABLE {} ({}, {OURS})", table.name, declared.join(", "))).expect_done();
        for (site, rows) in table.by_site() {
            for (index, row) in rows.into_iter().enumerate() {
                let values = table.theirs().map(|(place, _)| row[place].as_deref().map_or("NULL".into(), quoted));
                let ours = format!("'{}', 1, {}, 'I', 'epoch', 'epoch', NULL", SITES[site], index + 1);
                let values: Vec<String> = values.chain([ours]).collect();
                client.simple(&format!("INSERT INTO {} VALUES ({})", table.name, values.join(", "))).expect_done();
            }
        }
    }
}

/// Makes and fills the tables in a lake, as changes that the sites sent.
pub(crate) async fn append(lake: &Lake) {
    for table in TABLES.map(Table::read) {
        let name = TableName::new(table.name).expect("valid");
        let stored = lake.table_or_create(&name, &["id".to_owned()]).await.expect("creates");
        for (site, rows) in table.by_site() {
            let rows_sent = changes(&table, &rows);
            let conformed = conform(&rows_sent, stored.snapshot().schema(), SiteClock::default());
            let part = Part {
                site: number(site),
                site_id: SiteId::new(SITES[site]).expect("valid"),
                epoch: Epoch(1),
                previous: Seq(0),
                last: Seq(rows.len() as u64),
                hash: ChainHash::new(rows.len() as u64),
                marks: Vec::new(),
                rows: conformed.expect("conforms"),
                received_at: Timestamp::from_micros(0),
                whole: false,
            };
            stored.append(Arc::new(vec![part])).await.expect("appends");
        }
    }
}

/// The sites' ids by their numbers in the lake.
pub(crate) fn sites() -> HashMap<SiteNumber, SiteId> {
    let site = |site| (number(site), SiteId::new(SITES[site]).expect("valid"));
    (0..SITES.len()).map(site).collect()
}

/// A site's number in the lake: 0 is HQ itself.
fn number(site: usize) -> SiteNumber {
    SiteNumber(site as u32 + 1)
}

/// Rows as a site sends them.
fn changes(table: &Table, rows: &[&Vec<Option<String>>]) -> RecordBatch {
    let of_table = HashMap::from([(columns::METADATA_KEY.to_owned(), r#"["id"]"#.to_owned())]);
    let mut fields = vec![
        Field::new(columns::SEQ, DataType::Int64, false),
        Field::new(columns::OP, DataType::UInt8, false),
        Field::new(columns::CHANGED_AT, DataType::Int64, true),
    ];
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(1..=rows.len() as i64)),
        Arc::new(UInt8Array::from_iter_values(rows.iter().map(|_| b'I'))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|_| 0))),
    ];
    for (place, (name, kind)) in table.theirs() {
        let texts: Vec<Option<&str>> = rows.iter().map(|row| row[place].as_deref()).collect();
        let (array, declared) = column(&texts, kind);
        let metadata = HashMap::from([(columns::METADATA_DECLARED.to_owned(), declared.to_owned())]);
        fields.push(Field::new(name, array.data_type().clone(), true).with_metadata(metadata));
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, of_table)), arrays).expect("columns match")
}

/// Values of one of PostgreSQL's types as a site sends them, and what the type is called there.
fn column<'a>(texts: &[Option<&str>], kind: &'a str) -> (ArrayRef, &'a str) {
    let strings: ArrayRef = Arc::new(StringArray::from_iter(texts.iter().copied()));
    let as_kind = |kind: &DataType| cast(&strings, kind).expect("values of the declared type");
    match kind {
        "bigint" => (as_kind(&DataType::Int64), "INTEGER"),
        "double precision" => (as_kind(&DataType::Float64), "REAL"),
        "date" => (strings, "DATE"),
        "timestamptz" => (as_kind(&DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))), "DATETIME"),
        "boolean" => {
            let spelt = texts.iter().map(|text| text.map(|text| if text == "t" { "true" } else { "false" }));
            let spelt: ArrayRef = Arc::new(StringArray::from_iter(spelt));
            (cast(&spelt, &DataType::Boolean).expect("true or false"), "BOOLEAN")
        }
        "bytea" => {
            let bytes: Vec<Option<Vec<u8>>> = texts.iter().map(|text| text.map(bytes)).collect();
            (Arc::new(BinaryArray::from_iter(bytes)), "BLOB")
        }
        _ if kind.starts_with("numeric") => {
            let sizes = kind.trim_start_matches("numeric(").trim_end_matches(')').split_once(',');
            let (digits, fraction) = sizes.expect("digits and fraction");
            let sized = DataType::Decimal128(digits.parse().expect("digits"), fraction.parse().expect("fraction"));
            (as_kind(&sized), kind)
        }
        _ => (strings, "TEXT"),
    }
}

/// The bytes of PostgreSQL's hexadecimal form.
fn bytes(text: &str) -> Vec<u8> {
    let digits = text.strip_prefix(r"\x").expect("in hexadecimal");
    let byte = |place| u8::from_str_radix(&digits[place..place + 2], 16).expect("two digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}
