//! A question over an empty lake: what it is about, and its rows.
//!
//! `cargo run -p rollcall-query --example plan`

use std::sync::Arc;

use futures::TryStreamExt;
use rollcall_lake::{Lake, LakeOptions};
use rollcall_query::{Engine, EngineLimits, Extras, Question};
use rollcall_types::TableName;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let lake = Arc::new(Lake::open_directory(directory.path(), LakeOptions::default()).await?);
    lake.table_or_create(&TableName::new("sales")?, &["id".to_owned()]).await?;
    let engine = Engine::new(lake, EngineLimits::default())?;
    let question = Question::Text("SELECT count(*) AS sales FROM sales".to_owned());
    let planned = engine.plan(question, Extras::default()).await?;
    // Before a row is read it is known what the answer will be missing.
    println!("{}", planned.coverage.summary());
    let rows: Vec<_> = planned.stream().await?.try_collect().await?;
    println!("{rows:?}");
    Ok(())
}
