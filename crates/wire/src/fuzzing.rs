//! Doors for the fuzz targets, which are in a workspace of their own.

use arrow_array::RecordBatch;

use crate::{batch, proto::BatchHeader};

/// The hash that a sender gives a batch.
pub fn chain(header: &BatchHeader, payload: &[u8]) -> u64 {
    batch::chain(header, payload).get()
}

/// Rows as a part of a batch has them.
pub fn written(rows: &RecordBatch) -> Vec<u8> {
    batch::write_rows(Vec::new(), rows).unwrap_or_default()
}

/// The rows of a part; none if they are refused.
pub fn rows(bytes: &[u8]) -> Option<RecordBatch> {
    batch::read_rows(bytes, None, "t").ok()
}
