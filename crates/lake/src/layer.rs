//! A hook between the lake and its store, at the one operation on which everything hangs: the put.

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, path::Path,
};

/// What happens to puts on their way to the store: they are counted, or made to fail on purpose.
#[async_trait]
pub trait PutLayer: fmt::Debug + Send + Sync {
    /// Carries out one put, or does not, or does it and says otherwise.
    async fn put(
        &self,
        store: &dyn ObjectStore,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult>;
}

/// Whether `location` is an entry of a table's log, and its put therefore a commit.
pub fn is_commit(location: &Path) -> bool {
    location.as_ref().contains("_delta_log") && location.as_ref().ends_with(".json")
}

/// A store whose puts go through a layer; everything else passes.
#[derive(Debug)]
pub struct Layered {
    inner: Arc<dyn ObjectStore>,
    layer: Arc<dyn PutLayer>,
}

impl Layered {
    /// `inner` as seen through `layer`.
    pub fn new(inner: Arc<dyn ObjectStore>, layer: Arc<dyn PutLayer>) -> Self {
        Self { inner, layer }
    }
}

impl fmt::Display for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} through {:?}", self.inner, self.layer)
    }
}

#[async_trait]
impl ObjectStore for Layered {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.layer.put(self.inner.as_ref(), location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
