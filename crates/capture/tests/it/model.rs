//! What HQ would hold: the journal replayed by HQ's own rules, compared with the store's table.

use std::collections::BTreeMap;

use arrow_array::{Array, RecordBatch, cast::AsArray, types::Int64Type, types::UInt8Type};
use rollcall_capture::{LoadMark, Source};
use rollcall_types::{Seq, columns};
use rusqlite::{Connection, types::Value};

/// Rows by key; each with the position that wrote it.
#[derive(Default)]
pub(crate) struct Model {
    rows: BTreeMap<Vec<String>, (u64, Vec<String>)>,
    load_begun: u64,
    pub(crate) ops: String,
    pub(crate) misfits: Vec<String>,
}

impl Model {
    /// Replays the whole journal for one table, checking on the way that positions have no gap, that an `I` meets no
    /// row of its key, and an `S` none of its own load.
    pub(crate) fn replay(source: &mut Source, table: &str) -> Self {
        let mut model = Self::default();
        let mut after = Seq(0);
        while let Some(changes) = source.read(after, 7, 1 << 20).expect("reads") {
            assert_eq!(changes.first.0, after.0 + 1, "positions have no gap");
            for part in changes.tables.iter().filter(|part| part.table == table) {
                model.apply(&part.rows, &part.marks);
            }
            after = changes.last;
        }
        model
    }

    fn apply(&mut self, rows: &RecordBatch, marks: &[LoadMark]) {
        let mut marks = marks.iter().peekable();
        for index in 0..rows.num_rows() {
            let column = |name: &str| rows.column_by_name(name).expect("present");
            let seq = column(columns::SEQ).as_primitive::<Int64Type>().value(index).unsigned_abs();
            while let Some(mark) = marks.next_if(|mark| mark.seq.0 < seq) {
                self.mark(mark);
            }
            let op = char::from(column(columns::OP).as_primitive::<UInt8Type>().value(index));
            self.ops.push(op);
            if let Some(misfits) = rows.column_by_name(columns::MISFIT) {
                let misfits = misfits.as_string::<i32>();
                if misfits.is_valid(index) {
                    self.misfits.push(misfits.value(index).to_owned());
                }
            }
            let text = |name: &str| cell(rows, name, index);
            let metadata = rows.schema_ref().metadata().get(columns::METADATA_KEY).expect("has a key").clone();
            let key_names: Vec<String> = serde_json::from_str(&metadata).expect("a list");
            let key: Vec<String> = key_names.iter().map(|name| text(name)).collect();
            if op == 'D' {
                self.rows.remove(&key);
                continue;
            }
            let before = self.rows.get(&key).map(|(seq, _)| *seq);
            match op {
                'I' => assert_eq!(before, None, "I at {seq} for key {key:?}, which was there"),
                'S' => assert!(
                    before.is_none_or(|before| before <= self.load_begun),
                    "S at {seq} for key {key:?}, which was journalled at {before:?}, after the load began at {}",
                    self.load_begun
                ),
                other => assert_eq!(other, 'U'),
            }
            let fields = rows.schema_ref().fields();
            let own = fields.iter().skip(3).filter(|field| field.name() != columns::MISFIT);
            self.rows.insert(key, (seq, own.map(|field| text(field.name())).collect()));
        }
        for mark in marks {
            self.mark(mark);
        }
    }

    fn mark(&mut self, mark: &LoadMark) {
        if mark.complete {
            self.rows.retain(|_, (seq, _)| *seq >= mark.begin.0);
        } else {
            self.load_begun = mark.seq.0;
        }
    }

    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let mut rows: Vec<Vec<String>> = self.rows.values().map(|(_, row)| row.clone()).collect();
        rows.sort();
        rows
    }
}

fn cell(rows: &RecordBatch, name: &str, index: usize) -> String {
    let column = rows.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    if column.is_null(index) {
        return "NULL".to_owned();
    }
    use arrow_schema::DataType;
    match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().value(index).to_string(),
        DataType::Float64 => column.as_primitive::<arrow_array::types::Float64Type>().value(index).to_string(),
        DataType::Utf8 => column.as_string::<i32>().value(index).to_owned(),
        DataType::Binary => format!("{:?}", column.as_binary::<i32>().value(index)),
        DataType::Boolean => column.as_boolean().value(index).to_string(),
        DataType::Decimal128(..) => {
            column.as_primitive::<arrow_array::types::Decimal128Type>().value(index).to_string()
        }
        other => panic!("unexpected type {other}"),
    }
}

/// The store's own rows by `select`, in the model's form.
pub(crate) fn truth(path: &std::path::Path, select: &str) -> Vec<Vec<String>> {
    let conn = Connection::open(path).expect("opens");
    let mut statement = conn.prepare(select).expect("prepares");
    let count = statement.column_count();
    let mut rows: Vec<Vec<String>> = statement
        .query_map([], |row| {
            (0..count)
                .map(|index| {
                    Ok(match row.get(index)? {
                        Value::Null => "NULL".to_owned(),
                        Value::Integer(number) => number.to_string(),
                        Value::Real(number) => number.to_string(),
                        Value::Text(text) => text,
                        Value::Blob(bytes) => format!("{bytes:?}"),
                    })
                })
                .collect()
        })
        .expect("queries")
        .collect::<Result<_, _>>()
        .expect("reads");
    rows.sort();
    rows
}
