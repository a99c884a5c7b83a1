//! Three changes of a site, committed twice: the second time nothing is added.
//!
//! `cargo run -p rollcall-lake --example append`

use std::sync::Arc;

use arrow_array::{Array, Int64Array, RecordBatch, StringArray, UInt8Array};
use arrow_schema::{DataType, Field, Schema};
use rollcall_lake::{Lake, LakeOptions, Part, SiteClock, conform};
use rollcall_types::{ChainHash, Epoch, Seq, SiteId, SiteNumber, TableName, Timestamp, columns};

/// What a site sends of a table: positions, operations, times, and the store's own columns.
fn sales() -> Result<RecordBatch, Box<dyn std::error::Error>> {
    let schema = Schema::new(vec![
        Field::new(columns::SEQ, DataType::Int64, false),
        Field::new(columns::OP, DataType::UInt8, false),
        Field::new(columns::CHANGED_AT, DataType::Int64, true),
        Field::new("id", DataType::Int64, true),
        Field::new("article", DataType::Utf8, true),
    ]);
    let arrays: Vec<Arc<dyn Array>> = vec![
        Arc::new(Int64Array::from(vec![1, 2, 3])),
        Arc::new(UInt8Array::from(vec![b'I', b'I', b'U'])),
        Arc::new(Int64Array::from(vec![1_000_000, 2_000_000, 3_000_000])),
        Arc::new(Int64Array::from(vec![7, 8, 7])),
        Arc::new(StringArray::from(vec!["apples", "pears", "plums"])),
    ];
    Ok(RecordBatch::try_new(Arc::new(schema), arrays)?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let lake = Lake::open_directory(directory.path(), LakeOptions::default()).await?;
    let table = lake.table_or_create(&TableName::new("sales")?, &["id".to_owned()]).await?;
    let rows = conform(&sales()?, table.snapshot().schema(), SiteClock::default())?;
    let part = Part {
        site: SiteNumber(1),
        site_id: SiteId::new("berlin-01")?,
        epoch: Epoch(1),
        previous: Seq(0),
        last: Seq(3),
        hash: ChainHash::new(42),
        marks: Vec::new(),
        rows,
        received_at: Timestamp::from_micros(4_000_000),
        whole: false,
    };
    for attempt in ["sent", "sent again, since the reply was lost"] {
        let appended = table.append(Arc::new(vec![part.clone()])).await?;
        println!("{attempt}: {:?}, version {}", appended.outcomes, appended.version);
    }
    println!("the cursor stands at {:?}", table.cursor(SiteNumber(1), Epoch(1)).map(|cursor| cursor.seq));
    Ok(())
}
