//! What sites' journals would bring into a lake, written down as text.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt8Array},
    compute::cast,
    datatypes::{DataType, Field, Schema},
};
use rollcall_lake::{Lake, Part, PartMark, SiteClock, conform};
use rollcall_types::{ChainHash, Epoch, Seq, SiteId, SiteNumber, TableName, Timestamp, columns};

pub(crate) fn site(number: u32) -> SiteId {
    SiteId::new(&format!("site-{number}")).expect("valid")
}

/// Its number in the lake: 0 is HQ itself.
pub(crate) fn number(number: u32) -> SiteNumber {
    SiteNumber(number + 1)
}

/// One change: its position, what was done, and the row's values as text.
pub(crate) type Change = (u64, char, Vec<Option<String>>);

/// A table at a site: its name, and its columns as declared there. The first column is the key,
/// unless HQ has the table with another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Declared {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [(&'static str, &'static str)],
}

impl Declared {
    fn rows(&self, changes: &[Change], key: &[String]) -> RecordBatch {
        let of_table = HashMap::from([(columns::METADATA_KEY.to_owned(), format!("{key:?}"))]);
        let ours =
            [(columns::SEQ, DataType::Int64), (columns::OP, DataType::UInt8), (columns::CHANGED_AT, DataType::Int64)];
        let mut fields: Vec<Field> =
            ours.map(|(name, kind)| Field::new(name, kind, name == columns::CHANGED_AT)).to_vec();
        let positions = Int64Array::from_iter_values(changes.iter().map(|change| change.0 as i64));
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(positions.clone()),
            Arc::new(UInt8Array::from_iter_values(changes.iter().map(|change| change.1 as u8))),
            Arc::new(positions),
        ];
        for (index, (name, declared)) in self.columns.iter().enumerate() {
            let kind = match *declared {
                "INTEGER" => DataType::Int64,
                "DECIMAL(10,2)" => DataType::Decimal128(10, 2),
                _ => DataType::Utf8,
            };
            let texts: StringArray = changes.iter().map(|change| change.2.get(index).cloned().flatten()).collect();
            arrays.push(cast(&texts, &kind).expect("values of the declared type"));
            let metadata = HashMap::from([(columns::METADATA_DECLARED.to_owned(), (*declared).to_owned())]);
            fields.push(Field::new(*name, kind, true).with_metadata(metadata));
        }
        RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, of_table)), arrays).expect("columns match")
    }
}

/// A part of a batch that a site sent.
pub(crate) struct Sent<'a> {
    pub(crate) table: Declared,
    pub(crate) site: u32,
    pub(crate) epoch: u32,
    pub(crate) previous: u64,
    pub(crate) last: u64,
    pub(crate) changes: &'a [Change],
    pub(crate) marks: Vec<PartMark>,
}

/// Commits it.
pub(crate) async fn append(lake: &Lake, sent: Sent<'_>) {
    let name = TableName::new(sent.table.name).expect("valid");
    let table = lake.table_or_create(&name, &[sent.table.columns[0].0.to_owned()]).await.expect("creates");
    let snapshot = table.snapshot();
    let schema = snapshot.schema();
    let rows = conform(&sent.table.rows(sent.changes, &schema.key), schema, SiteClock::default());
    let part = Part {
        site: number(sent.site),
        site_id: site(sent.site),
        epoch: Epoch(sent.epoch),
        previous: Seq(sent.previous),
        last: Seq(sent.last),
        hash: ChainHash::new(sent.last),
        marks: sent.marks,
        rows: rows.expect("conforms"),
        received_at: Timestamp::from_micros(0),
        whole: false,
    };
    table.append(Arc::new(vec![part])).await.expect("appends");
}
