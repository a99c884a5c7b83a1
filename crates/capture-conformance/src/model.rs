//! What HQ would hold: the journal replayed by HQ's own rules, compared with the store's table.

use arrow_array::{Array, RecordBatch, cast::AsArray, types::Int64Type, types::UInt8Type};

use rollcall_types::columns;

use rollcall_capture::{Anchor, LoadMark, Source};

/// Every row that came, and which of them are current by HQ's rules: `S` and `I` are new by promise
/// and are never looked for twice, so a promise that is broken shows as a row too many. Rows are
/// counted, not kept by key.
#[derive(Debug, Default)]
pub struct Model {
    rows: Vec<Arrived>,
    floor: u64,
    load_begun: u64,
    /// The operations in order, a letter each.
    pub ops: String,
    /// What did not fit its column, as the journal says it.
    pub misfits: Vec<String>,
}

#[derive(Debug)]
struct Arrived {
    seq: u64,
    op: char,
    key: Vec<String>,
    values: Vec<String>,
}

impl Model {
    /// Replays the whole journal for one table, checking on the way that positions have no gap,
    /// that an `I` meets no row of its key, and an `S` none of its own load.
    pub fn replay(source: &mut dyn Source, table: &str) -> Self {
        let mut model = Self::default();
        let mut after = Anchor::default();
        while let Some(changes) = source.read(after.clone(), 7, 1 << 20).expect("reads") {
            assert_eq!(changes.first.0, after.seq.0 + 1, "positions have no gap");
            for part in changes.tables.iter().filter(|part| part.table == table) {
                model.apply(&part.rows, &part.marks);
            }
            after = Anchor { seq: changes.last, digest: changes.digest };
        }
        model
    }

    fn is_there(&self, key: &[String]) -> Option<u64> {
        let newest = self.rows.iter().rfind(|row| row.key == key && row.seq >= self.floor)?;
        (newest.op != 'D').then_some(newest.seq)
    }

    fn apply(&mut self, rows: &RecordBatch, marks: &[LoadMark]) {
        let mut marks = marks.iter().peekable();
        for index in 0..rows.num_rows() {
            // Ours come first, so that a store's column of the same name does not hide them.
            let column = |name: &str| rows.column_by_name(name).expect("present");
            let seq = column(columns::SEQ).as_primitive::<Int64Type>().value(index).unsigned_abs();
            while let Some(mark) = marks.next_if(|mark| mark.seq.0 < seq) {
                self.mark(mark);
            }
            let op = char::from(column(columns::OP).as_primitive::<UInt8Type>().value(index));
            self.ops.push(op);
            let places: Vec<usize> = (0..rows.num_columns()).collect();
            let (own, ours): (Vec<usize>, Vec<usize>) = places
                .into_iter()
                .partition(|place| rows.schema_ref().field(*place).metadata().contains_key(columns::METADATA_DECLARED));
            let of_ours = |name: &str| ours.iter().find(|place| rows.schema_ref().field(**place).name() == name);
            if let Some(place) = of_ours(columns::MISFIT)
                && rows.column(*place).is_valid(index)
            {
                self.misfits.push(cell(rows, *place, index));
            }
            let metadata = rows.schema_ref().metadata().get(columns::METADATA_KEY).expect("has a key").clone();
            let key_names: Vec<String> = serde_json::from_str(&metadata).expect("a list");
            let place_of = |name: &String| {
                *own.iter().find(|place| rows.schema_ref().field(**place).name() == name).expect("a key")
            };
            let mut key: Vec<String> = key_names.iter().map(|name| cell(rows, place_of(name), index)).collect();
            key.push(of_ours(columns::EXACT_KEY).map_or("NULL".to_owned(), |place| cell(rows, *place, index)));
            let before = self.is_there(&key);
            match op {
                // What lies before a load that is under way is no longer believed.
                'I' => assert_eq!(
                    before.filter(|before| *before >= self.load_begun),
                    None,
                    "I at {seq} for key {key:?}, which was there"
                ),
                'S' => assert!(
                    before.is_none_or(|before| before <= self.load_begun),
                    "S at {seq} for key {key:?}, which was journalled at {before:?}, after the load began at {}",
                    self.load_begun
                ),
                other => assert!(other == 'U' || other == 'D', "{other}"),
            }
            let values = own.iter().map(|place| cell(rows, *place, index)).collect();
            self.rows.push(Arrived { seq, op, key, values });
        }
        for mark in marks {
            self.mark(mark);
        }
    }

    fn mark(&mut self, mark: &LoadMark) {
        if mark.complete {
            self.floor = mark.begin.0;
        } else {
            self.load_begun = mark.seq.0;
        }
    }

    /// The current rows, as HQ tells them: from the newest complete load on, no delete, and no
    /// newer update or delete of the key.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let of_load: Vec<&Arrived> = self.rows.iter().filter(|row| row.seq >= self.floor).collect();
        let is_newer = |row: &Arrived| {
            of_load.iter().any(|other| "UD".contains(other.op) && other.seq > row.seq && other.key == row.key)
        };
        let current = of_load.iter().filter(|row| row.op != 'D' && !is_newer(row));
        let mut rows: Vec<Vec<String>> = current.map(|row| row.values.clone()).collect();
        rows.sort();
        rows
    }
}

fn cell(rows: &RecordBatch, place: usize, index: usize) -> String {
    let column = rows.column(place);
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
