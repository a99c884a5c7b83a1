//! Data files are checked before they are believed.
//!
//! A flipped bit in a Parquet file is most often another value and no error. So where questions are
//! to check, a file is read whole and compared with the digest in the table's log before the first
//! question of this process takes rows of it. What happens to it after that is for the next start,
//! and for compaction, which always checks.

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use datafusion::{
    common::Result,
    datasource::{
        listing::PartitionedFile,
        physical_plan::{ParquetFileReaderFactory, parquet::CachedParquetFileReaderFactory},
    },
    physical_plan::metrics::ExecutionPlanMetricsSet,
};
use futures::{FutureExt, future::BoxFuture};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::{
    arrow::{arrow_reader::ArrowReaderOptions, async_reader::AsyncFileReader},
    errors::{ParquetError, Result as ParquetResult},
    file::metadata::ParquetMetaData,
};
use rollcall_lake::{Digest, Digester};
use tokio::sync::OnceCell;

use crate::error::damage;

/// More files than any lake has in use; then it is forgotten which were checked.
const KNOWN_MAX: usize = 1_000_000;
/// How much of a file is read at a time.
const PIECE_BYTES: u64 = 4 << 20;

/// The files that were found as they were written. One at a time checks a file, and the others wait
/// for it.
#[derive(Debug, Default)]
pub(crate) struct Verified(Mutex<HashMap<Path, Arc<OnceCell<()>>>>);

impl Verified {
    async fn check(&self, store: &dyn ObjectStore, path: &Path, size: u64, digest: Digest) -> ParquetResult<()> {
        let known = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.entry(path.clone()).or_default().clone()
        };
        known.get_or_try_init(|| compare(store, path, size, digest)).await.map(|_| ())
    }
}

async fn compare(store: &dyn ObjectStore, path: &Path, size: u64, digest: Digest) -> ParquetResult<()> {
    let unread = |error: object_store::Error| ParquetError::External(Box::new(error));
    let mut found = Digester::default();
    let mut start = 0;
    while start < size {
        let end = size.min(start + PIECE_BYTES);
        found.add(&store.get_range(path, start..end).await.map_err(unread)?);
        tokio::task::consume_budget().await;
        start = end;
    }
    match found.finish() == digest {
        true => Ok(()),
        false => {
            Err(ParquetError::External(damage(format!("the data file {path} is damaged: it is not what was written"))))
        }
    }
}

/// Makes readers that check their file first, if its digest is known.
pub(crate) struct Checking {
    pub(crate) readers: CachedParquetFileReaderFactory,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) verified: Arc<Verified>,
}

impl fmt::Debug for Checking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checking")
    }
}

impl ParquetFileReaderFactory for Checking {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let (path, size) = (file.object_meta.location.clone(), file.object_meta.size);
        let digest = file.extensions.get::<Digest>().copied();
        let reader = self.readers.create_reader(partition, file, hint, metrics)?;
        let Some(digest) = digest else { return Ok(reader) };
        Ok(Box::new(Checked { reader, path, size, digest, store: self.store.clone(), verified: self.verified.clone() }))
    }
}

struct Checked {
    reader: Box<dyn AsyncFileReader + Send>,
    path: Path,
    size: u64,
    digest: Digest,
    store: Arc<dyn ObjectStore>,
    verified: Arc<Verified>,
}

impl AsyncFileReader for Checked {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move {
            self.verified.check(self.store.as_ref(), &self.path, self.size, self.digest).await?;
            self.reader.get_bytes(range).await
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move {
            self.verified.check(self.store.as_ref(), &self.path, self.size, self.digest).await?;
            self.reader.get_byte_ranges(ranges).await
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            self.verified.check(self.store.as_ref(), &self.path, self.size, self.digest).await?;
            self.reader.get_metadata(options).await
        }
        .boxed()
    }
}
