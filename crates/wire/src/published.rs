//! Rows of published tables on their way to a site.

use arrow_array::RecordBatch;
use rollcall_types::Seq;

use crate::{
    FETCH_BYTES_MAX,
    batch::{BatchError, read_rows, write_rows},
    proto::FetchRows,
};

const COMPRESSION_LEVEL: i32 = 3;

/// Encodes rows whose last one was published at `through`. They must be within [`FETCH_BYTES_MAX`].
pub fn encode(rows: &RecordBatch, through: Seq) -> Result<FetchRows, BatchError> {
    let table = String::new();
    let raw = write_rows(Vec::new(), rows).map_err(|source| BatchError::Arrow { table, source })?;
    if raw.len() > FETCH_BYTES_MAX {
        return Err(BatchError::TooLarge(raw.len()));
    }
    let compressed = zstd::bulk::compress(&raw, COMPRESSION_LEVEL).map_err(BatchError::Compression)?;
    let raw_bytes = u32::try_from(raw.len()).map_err(|_| BatchError::TooLarge(raw.len()))?;
    Ok(FetchRows { through: through.0, rows: compressed.into(), raw_bytes })
}

/// The rows of a message.
pub fn decode(message: &FetchRows) -> Result<RecordBatch, BatchError> {
    let capacity = message.raw_bytes as usize;
    if capacity > FETCH_BYTES_MAX {
        return Err(BatchError::TooLarge(capacity));
    }
    let raw = zstd::bulk::decompress(&message.rows, capacity).map_err(BatchError::Compression)?;
    read_rows(&raw, None, "")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        let rows = RecordBatch::try_from_iter([
            ("_op", Arc::new(StringArray::from(vec!["U", "D"])) as Arc<dyn arrow_array::Array>),
            ("sku", Arc::new(Int64Array::from(vec![Some(1), None]))),
        ])
        .expect("rows");
        let message = encode(&rows, Seq(7)).expect("encodes");
        assert_eq!((decode(&message).expect("decodes"), message.through), (rows, 7));
    }

    #[test]
    fn what_would_fill_the_memory_is_refused() {
        let message = FetchRows { raw_bytes: u32::MAX, ..FetchRows::default() };
        assert!(matches!(decode(&message), Err(BatchError::TooLarge(_))));
    }
}
