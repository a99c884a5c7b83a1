//! A store whose answers get lost: the commit takes effect, and the caller is told that it failed.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use rollcall_lake::StoreLayer;

/// Loses the reply to this share of commits, after their effect.
#[derive(Debug, Clone, Copy)]
pub struct LostReplies {
    /// Between 0 and 1.
    pub ratio: f64,
}

impl StoreLayer for LostReplies {
    fn over(&self, store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(Losing { inner: store, ratio: self.ratio.clamp(0.0, 1.0) })
    }
}

#[derive(Debug)]
struct Losing {
    inner: Arc<dyn ObjectStore>,
    ratio: f64,
}

impl fmt::Display for Losing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} losing replies", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Losing {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let done = self.inner.put_opts(location, payload, options).await?;
        let is_commit = location.as_ref().contains("_delta_log") && location.as_ref().ends_with(".json");
        if is_commit && rand::random_bool(self.ratio) {
            return Err(Error::Generic { store: "losing", source: "the reply was lost".into() });
        }
        Ok(done)
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

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
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
