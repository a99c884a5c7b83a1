//! Taking a publication back.

use std::{collections::HashSet, sync::Arc};

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::ArrowError;
use arrow_select::filter::filter_record_batch;
use rollcall_types::{Seq, TableName};

use rollcall_books::definitions::publications;
use rollcall_registry::HqError;

use crate::{
    image::{self, Image, is_live, row_bytes},
    publisher::Publisher,
    publishing::publish,
    tables::{ATTEMPTS, Outcome, Request, failed, read_behind, refresh},
};

/// Takes a publication back: rows that were not published again since are what they were before it.
/// How many were is told.
pub async fn withdraw(
    publisher: &Arc<Publisher>,
    table: &TableName,
    version: Seq,
    by: &str,
    dry_run: bool,
) -> Result<(Outcome, usize), HqError> {
    let gone = || HqError::NotFound(format!("{table} has no publication with version {version}"));
    let all = publications(&publisher.registry.lake.state().view());
    let of = all.iter().find(|of| of.table == *table && of.version == version && of.previous < version);
    let previous = of.ok_or_else(gone)?.previous;
    for _ in 0..ATTEMPTS {
        publisher.registry.lake.follow().await?;
        refresh(publisher).await;
        let known = publisher.tables.get(table).ok_or_else(gone)?;
        let schema = publisher.registry.lake.table(table).ok_or_else(gone)?.snapshot().schema().as_ref().clone();
        let empty = Image::empty(&schema);
        let before = read_behind(publisher, table, &empty, previous, &schema).await?;
        let changed = read_behind(publisher, table, &empty.standing_at(previous), version, &schema).await?;
        let back = Back::new(&known.image, &before, &changed).map_err(failed)?;
        let note = format!("takes version {version} back");
        let request = Request {
            dry_run,
            based_on: Some(known.image.version),
            ..Request::internal(table, back.rows, back.gone, by, note)
        };
        match publish(publisher, request).await {
            Err(HqError::Outdated) => {}
            outcome => return Ok((outcome?, back.published_since)),
        }
    }
    Err(HqError::Outdated)
}

/// What takes a publication back.
struct Back {
    rows: RecordBatch,
    gone: RecordBatch,
    /// Rows of it that were published again since; they stay.
    published_since: usize,
}

impl Back {
    /// From the present rows, those before the publication, and those of it.
    fn new(now: &Image, before: &Image, changed: &Image) -> Result<Self, ArrowError> {
        let key = &now.key;
        let newest: HashSet<(Box<[u8]>, i64)> =
            row_bytes(now.rows(), key)?.into_iter().zip(image::seqs(now.rows()).values().iter().copied()).collect();
        let of_publication = row_bytes(changed.rows(), key)?;
        let (mut back, mut published_since) = (HashSet::new(), 0);
        for (key, seq) in of_publication.into_iter().zip(image::seqs(changed.rows()).values()) {
            if newest.contains(&(key.clone(), *seq)) {
                back.insert(key);
            } else {
                published_since += 1;
            }
        }
        let pick = |rows: &RecordBatch, keys: &HashSet<Box<[u8]>>, live: bool| {
            let is_live = is_live(rows);
            let mask: BooleanArray = row_bytes(rows, key)?
                .iter()
                .zip(is_live.values().iter())
                .map(|(key, of)| Some(keys.contains(key) && (of || !live)))
                .collect();
            let own: Vec<usize> = (image::OURS..rows.num_columns()).collect();
            filter_record_batch(rows, &mask)?.project(&own)
        };
        let rows = pick(before.rows(), &back, true)?;
        for key in row_bytes(&rows, key)? {
            back.remove(&key);
        }
        Ok(Self { gone: pick(changed.rows(), &back, false)?, rows, published_since })
    }
}
