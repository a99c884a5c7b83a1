//! A store that fails puts, before or after their effect, as told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};

/// What happens to a put of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// It fails and has no effect.
    Before,
    /// It takes effect; the reply says it failed.
    After,
    /// It takes effect; the client's own retry then finds the entry there.
    AfterAsExists,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    faults: Mutex<VecDeque<Fault>>,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, faults: impl IntoIterator<Item = Fault>) -> Arc<Self> {
        Arc::new(Self { inner, faults: Mutex::new(faults.into_iter().collect()) })
    }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let is_entry = location.as_ref().ends_with(".json") && location.as_ref().contains("_delta_log");
        let fault = if is_entry {
            self.faults.lock().expect("not poisoned").pop_front().unwrap_or(Fault::None)
        } else {
            Fault::None
        };
        let failed = || Error::Generic { store: "faulty", source: "the reply was lost".into() };
        match fault {
            Fault::None => self.inner.put_opts(location, payload, options).await,
            Fault::Before => Err(failed()),
            Fault::After => {
                self.inner.put_opts(location, payload, options).await?;
                Err(failed())
            }
            Fault::AfterAsExists => {
                self.inner.put_opts(location, payload, options).await?;
                Err(Error::AlreadyExists { path: location.to_string(), source: "retried".into() })
            }
        }
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
