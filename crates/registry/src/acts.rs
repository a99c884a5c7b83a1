//! `rollcall.audit`: what a person did.

use std::sync::Arc;

use arrow_array::{Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use rollcall_lake::{Lake, LakeError};
use rollcall_types::{TEXT_BYTES_MAX, Timestamp, plain};

/// Bytes of what was before and after.
const STATE_BYTES_MAX: usize = 16 * 1024;

/// One act.
#[derive(Debug)]
pub struct Act {
    /// When it was done.
    pub at: Timestamp,
    /// The user who did it.
    pub by: String,
    /// From which address.
    pub from: String,
    /// What was done, in words or SQL.
    pub what: String,
    /// What came of it.
    pub outcome: String,
    /// The records that it changed, as JSON: as they were.
    pub before: Option<String>,
    /// And as they are.
    pub after: Option<String>,
}

impl Act {
    /// Keeps it. Durable on return.
    pub async fn record(&self, lake: &Lake) -> Result<(), LakeError> {
        let text = |value: &str, most: usize| Some(plain(value, most));
        let one = |value: Option<String>| Arc::new(StringArray::from_iter([value])) as Arc<dyn Array>;
        let columns: Vec<Arc<dyn Array>> = vec![
            Arc::new(TimestampMicrosecondArray::from_iter_values([self.at.as_micros()]).with_timezone("UTC")),
            one(text(&self.by, TEXT_BYTES_MAX)),
            one(text(&self.from, TEXT_BYTES_MAX)),
            one(text(&self.what, TEXT_BYTES_MAX)),
            one(text(&self.outcome, TEXT_BYTES_MAX)),
            one(self.before.as_deref().and_then(|value| text(value, STATE_BYTES_MAX))),
            one(self.after.as_deref().and_then(|value| text(value, STATE_BYTES_MAX))),
        ];
        let table = lake.audit();
        let schema = table.snapshot().schema().arrow().clone();
        let rows = RecordBatch::try_new(schema, columns)
            .map_err(|source| LakeError::Arrow { doing: "recording what a person did", source })?;
        table.append_rows(rows).await
    }
}
