//! Reads the lake on the runtime of the node, not on the threads of questions: a connection to the
//! object store is driven by the runtime that opened it, and must not wait for a question.

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use tokio::{runtime::Handle, sync::mpsc};

/// Pieces of an object that wait to be taken.
const PIECES_MAX: usize = 4;

/// A store that is read on another runtime. Who only reads needs no more; the rest goes straight
/// through.
#[derive(Debug)]
pub(crate) struct IoElsewhere {
    store: Arc<dyn ObjectStore>,
    runtime: Option<Handle>,
}

impl IoElsewhere {
    /// Reads on the caller's runtime from now on.
    pub(crate) fn here(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, runtime: Handle::try_current().ok() }
    }

    async fn there<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let Some(runtime) = &self.runtime else { return work.await };
        match runtime.spawn(work).await {
            Ok(result) => result,
            Err(source) => Err(Error::JoinError { source }),
        }
    }
}

impl fmt::Display for IoElsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

/// The pieces of an object, taken on the runtime where this is called.
fn forwarded(mut pieces: BoxStream<'static, Result<Bytes>>) -> BoxStream<'static, Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    tokio::spawn(async move {
        while let Some(piece) = pieces.next().await {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) }).boxed()
}

#[async_trait]
impl ObjectStore for IoElsewhere {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (store, location) = (self.store.clone(), location.clone());
        let is_elsewhere = self.runtime.is_some();
        self.there(async move {
            let mut result = store.get_opts(&location, options).await?;
            if is_elsewhere && let GetResultPayload::Stream(pieces) = result.payload {
                result.payload = GetResultPayload::Stream(forwarded(pieces));
            }
            Ok(result)
        })
        .await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (store, location, ranges) = (self.store.clone(), location.clone(), ranges.to_vec());
        self.there(async move { store.get_ranges(&location, &ranges).await }).await
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
