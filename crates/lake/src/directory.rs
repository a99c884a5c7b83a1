//! A directory as an object store whose puts are durable when they return.
//!
//! `LocalFileSystem` never syncs: after a power cut a log entry could exist and be torn. Here a put writes a temporary
//! file, syncs it, gives it its name (by link for *put if absent*, by rename otherwise) and syncs the directory.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path as FilePath, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, local::LocalFileSystem, path::Path,
};

/// A directory lake's store.
#[derive(Debug)]
pub struct DurableDirectory {
    files: Arc<LocalFileSystem>,
    temporary: AtomicU64,
}

impl DurableDirectory {
    /// Uses `root`, which must exist.
    pub fn new(root: &FilePath) -> Result<Self> {
        Ok(Self { files: Arc::new(LocalFileSystem::new_with_prefix(root)?), temporary: AtomicU64::new(0) })
    }

    /// A name beside `target` that listing hides (`name#N`).
    fn temporary_name(&self, target: &FilePath) -> PathBuf {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let mut name = target.as_os_str().to_owned();
        name.push(format!("#{}{number:06}", std::process::id()));
        name.into()
    }
}

fn write_durably(temporary: &FilePath, target: &FilePath, payload: &PutPayload, create: bool) -> io::Result<()> {
    let directory = target.parent().unwrap_or(FilePath::new("."));
    let mut file = match File::create(temporary) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_directories_durably(directory)?;
            File::create(temporary)?
        }
        other => other?,
    };
    for chunk in payload {
        file.write_all(chunk)?;
    }
    file.sync_data()?;
    if create {
        let linked = fs::hard_link(temporary, target);
        if linked.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            // "Exists" must mean that it survives a power cut: it may be our own, from a put whose last step failed.
            File::open(target)?.sync_all()?;
            File::open(directory)?.sync_all()?;
        }
        linked?;
        fs::remove_file(temporary)?;
    } else {
        fs::rename(temporary, target)?;
    }
    File::open(directory)?.sync_all()
}

fn create_directories_durably(directory: &FilePath) -> io::Result<()> {
    let missing: Vec<&FilePath> = directory.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    fs::create_dir_all(directory)?;
    for created in missing {
        if let Some(parent) = created.parent() {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

fn store_error(location: &Path, error: io::Error) -> Error {
    let path = location.to_string();
    if error.kind() == io::ErrorKind::AlreadyExists {
        Error::AlreadyExists { path, source: Box::new(error) }
    } else {
        Error::Generic { store: "DurableDirectory", source: Box::new(error) }
    }
}

impl std::fmt::Display for DurableDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DurableDirectory({})", self.files)
    }
}

#[async_trait]
impl ObjectStore for DurableDirectory {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "conditional update".to_owned(),
                    implementer: "DurableDirectory".to_owned(),
                });
            }
        };
        let target = self.files.path_to_filesystem(location)?;
        let temporary = self.temporary_name(&target);
        let written = tokio::task::spawn_blocking(move || {
            let written = write_durably(&temporary, &target, &payload, create);
            if written.is_err() {
                // Best effort: a left-over temporary file is hidden from every listing.
                let _ = fs::remove_file(&temporary);
            }
            written
        });
        match written.await {
            Ok(Ok(())) => Ok(PutResult { e_tag: None, version: None }),
            Ok(Err(error)) => Err(store_error(location, error)),
            Err(error) => Err(Error::Generic { store: "DurableDirectory", source: Box::new(error) }),
        }
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented {
            operation: format!("multipart put of {location}"),
            implementer: "DurableDirectory".to_owned(),
        })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}
