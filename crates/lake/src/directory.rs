//! A directory as an object store whose puts are durable when they return.
//!
//! `LocalFileSystem` never syncs: after a power cut a log entry could exist and be torn. Here a put
//! writes a temporary file, syncs it, gives it its name (by link for *put if absent*, by rename
//! otherwise) and syncs the directory.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path as FilePath, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, local::LocalFileSystem, path::Path,
};

/// A directory lake's store.
#[derive(Debug)]
pub struct DurableDirectory {
    files: Arc<LocalFileSystem>,
    temporary: AtomicU64,
    hold: Option<Arc<Hold>>,
}

/// By what a process that has a directory to itself knows that it still is the one it opened. A
/// backup that is put in place
/// while the old process is still stopping would else get its last commits.
#[derive(Debug)]
pub struct Hold {
    root: PathBuf,
    /// The directory, and files in it that are never written anew, as they were.
    known: Mutex<Vec<(PathBuf, Identity)>>,
    /// By folder of a log: the entry this process put there last.
    last: Mutex<HashMap<PathBuf, (PathBuf, Identity)>>,
}

/// Which file a path leads to.
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(path: &FilePath) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Its time of creation is the best that is to be had here.
#[cfg(not(unix))]
fn identity(path: &FilePath) -> Option<Identity> {
    let created = fs::metadata(path).ok()?.created().ok()?;
    Some((0, created.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos() as u64))
}

impl Hold {
    /// Holds `root` as it is now.
    pub fn new(root: &FilePath) -> Self {
        let hold = Self { root: root.to_owned(), known: Mutex::default(), last: Mutex::default() };
        hold.know(root.to_owned());
        hold
    }

    /// Holds a file in it too, which is never written anew.
    pub fn hold(&self, name: &str) {
        self.know(self.root.join(name));
    }

    fn know(&self, path: PathBuf) {
        if let Some(identity) = identity(&path) {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).push((path, identity));
        }
    }

    /// Why this is not the directory that was opened; none if it is.
    pub fn problem(&self) -> Option<String> {
        let differs = |path: &PathBuf, known: &Identity| identity(path) != Some(*known);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = known.iter().find(|(path, known)| differs(path, known)).map(|(path, _)| path.clone());
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || last.values().find(|(path, known)| differs(path, known)).map(|(path, _)| path.clone());
        let path = moved.or_else(gone)?;
        Some(format!(
            "{} is not the directory that this process opened any more ({} was exchanged or is gone): nothing is written to it",
            self.root.display(),
            path.display()
        ))
    }

    /// Refuses a write to another directory.
    fn check(&self) -> io::Result<()> {
        self.problem().map_or(Ok(()), |problem| Err(io::Error::other(problem)))
    }

    fn note(&self, entry: &FilePath) {
        if let (Some(folder), Some(identity)) = (entry.parent(), identity(entry)) {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.insert(folder.to_owned(), (entry.to_owned(), identity));
        }
    }
}

impl DurableDirectory {
    /// Uses `root`, which must exist.
    pub fn new(root: &FilePath) -> Result<Self> {
        Ok(Self { files: Arc::new(LocalFileSystem::new_with_prefix(root)?), temporary: AtomicU64::new(0), hold: None })
    }

    /// The same, which refuses to write once the directory is another one.
    pub fn held(self, hold: Arc<Hold>) -> Self {
        Self { hold: Some(hold), ..self }
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
            // "Exists" must mean that it survives a power cut: it may be our own, from a put whose
            // last step failed.
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
        let hold = self.hold.clone();
        let is_entry = crate::layer::is_commit(location);
        let written = rollcall_runtime::blocking(move || {
            hold.as_ref().map_or(Ok(()), |hold| hold.check())?;
            let written = write_durably(&temporary, &target, &payload, create);
            if let Some(hold) = hold.filter(|_| is_entry && written.is_ok()) {
                hold.note(&target);
            }
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
        if let Some(problem) = self.hold.as_ref().and_then(|hold| hold.problem()) {
            let error = Error::Generic { store: "DurableDirectory", source: problem.into() };
            return futures::stream::once(async move { Err(error) }).boxed();
        }
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
