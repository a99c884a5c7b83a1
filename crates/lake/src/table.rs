//! One Delta table: opening, following, committing.

mod checkpointing;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, path::Path};
use rollcall_types::{Epoch, SiteNumber};

use crate::{
    action::{Action, Remove},
    aside::Aside,
    clean::Unwanted,
    clock::BootClock,
    counts::{Counters, TableCounts},
    data_file::{self, Effort},
    digest::Digest,
    entry::Entry,
    error::{Doing, LakeError},
    objects::{get_optional, pauses, put_if_absent},
    replay::{self, Opened, read_entry},
    schema::TableSchema,
    snapshot::{Cursor, DataFile, Snapshot, meta_data_for},
};

/// A table of the lake. All methods may be called from several tasks; several processes may have
/// the table open.
#[derive(Debug)]
pub struct Table {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) root: Path,
    pub(crate) clock: BootClock,
    live: Mutex<Live>,
    /// One commit of this process at a time; others are settled by the log itself.
    pub(crate) committing: tokio::sync::Mutex<()>,
    checkpointing: AtomicBool,
    /// Nothing is read or written while it is set aside.
    pub(crate) aside: Mutex<Option<Aside>>,
    /// How the newest checkpoint ended, until it is asked for.
    checkpointed: Mutex<Option<Result<(), LakeError>>>,
    /// Data files that were found damaged.
    damaged: Mutex<HashSet<String>>,
    pub(crate) unwanted: Mutex<Unwanted>,
    pub(crate) counters: Counters,
}

#[derive(Debug)]
pub(crate) struct Live {
    snapshot: Snapshot,
    /// Boot time at which the log was last read to its end.
    read_at: Duration,
    log_bytes: usize,
    log_entries: u64,
}

/// How a put of a log entry ended.
pub(crate) enum Put {
    /// The entry is ours.
    Won,
    /// Someone else wrote it; these are its actions and those of what came after it, already
    /// applied.
    Lost(Vec<Action>),
    /// This process slept since it last read the log. The log was read anew; whatever was prepared
    /// must be prepared again, data files included, since clean-up may have taken them.
    Slept,
}

/// A commit must land within this time of the last read of the log: then no entry it could
/// overwrite was cleaned up.
const STALE_AFTER: Duration = Duration::from_secs(600);

impl Table {
    /// What this process did to the table since it opened it.
    pub fn counts(&self) -> TableCounts {
        self.counters.get()
    }

    /// Opens the table at `root`; none when there is none.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        root: Path,
        clock: BootClock,
    ) -> Result<Option<Arc<Self>>, LakeError> {
        let read_at = clock.now();
        let Some(opened) = replay::open(store.as_ref(), &root).await? else { return Ok(None) };
        Ok(Some(Self::with(store, root, clock, Live::new(opened, read_at), None)))
    }

    pub(crate) fn with(
        store: Arc<dyn ObjectStore>,
        root: Path,
        clock: BootClock,
        live: Live,
        aside: Option<Aside>,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            root,
            clock,
            live: Mutex::new(live),
            committing: tokio::sync::Mutex::new(()),
            checkpointing: AtomicBool::new(false),
            aside: Mutex::new(aside),
            checkpointed: Mutex::default(),
            damaged: Mutex::default(),
            unwanted: Mutex::default(),
            counters: Counters::default(),
        })
    }

    /// Opens the table at `root`, or creates it with this schema. Two creators end up with the same
    /// table.
    pub async fn open_or_create(
        store: Arc<dyn ObjectStore>,
        root: Path,
        clock: BootClock,
        schema: &TableSchema,
    ) -> Result<Arc<Self>, LakeError> {
        if let Some(table) = Self::open(store.clone(), root.clone(), clock.clone()).await? {
            return Ok(table);
        }
        let now_ms = rollcall_runtime::now().as_millis();
        let actions = [Action::protocol(), Action::meta_data(meta_data_for(schema, None, now_ms))];
        let (_, body, _) = Entry::write("CREATE TABLE", actions.into(), Some(Entry::beginning(&root)))?;
        put_if_absent(store.as_ref(), &replay::entry_path(&root, 0), body).await?;
        let opened = Self::open(store, root.clone(), clock).await?;
        opened.ok_or_else(|| LakeError::damaged(format!("table {root} vanished while it was created")))
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // A panic elsewhere cannot leave the state half changed: it is replaced whole.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest version this process knows of.
    pub fn snapshot(&self) -> Snapshot {
        self.live().snapshot.clone()
    }

    /// Where a site stands in the newest version; cheaper than a snapshot.
    pub fn cursor(&self, site: SiteNumber, epoch: Epoch) -> Option<Cursor> {
        self.live().snapshot.cursor(site, epoch)
    }

    /// [`Snapshot::is_published`] of the newest version; cheaper than a snapshot.
    pub fn is_published(&self) -> bool {
        self.live().snapshot.is_published()
    }

    /// Where the table is, relative to the lake.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads what others committed since. Returns the snapshot then.
    pub async fn refresh(&self) -> Result<Snapshot, LakeError> {
        let _committing = self.committing.lock().await;
        self.catch_up().await
    }

    /// [`Self::refresh`] for a caller that holds the commit lock.
    pub(crate) async fn catch_up(&self) -> Result<Snapshot, LakeError> {
        self.must_be_sound()?;
        if self.is_stale() {
            return self.reopen().await;
        }
        loop {
            let read_at = self.clock.now();
            let next = self.live().snapshot.version + 1;
            match read_entry(self.store.as_ref(), &self.root, next).await? {
                Some(entry) => self.take_entry(next, entry, read_at)?,
                None => {
                    let mut live = self.live();
                    live.read_at = read_at;
                    return Ok(live.snapshot.clone());
                }
            }
        }
    }

    fn is_stale(&self) -> bool {
        self.clock.now().saturating_sub(self.live().read_at) > STALE_AFTER
    }

    /// Reads the table anew from its checkpoint: entries this process missed may be cleaned up
    /// already.
    async fn reopen(&self) -> Result<Snapshot, LakeError> {
        let read_at = self.clock.now();
        let opened = replay::open(self.store.as_ref(), &self.root).await?;
        let opened = opened.ok_or_else(|| LakeError::damaged(format!("table {} is gone", self.root)))?;
        let mut live = self.live();
        *live = Live::new(opened, read_at);
        Ok(live.snapshot.clone())
    }

    fn take_entry(&self, version: u64, entry: Entry, read_at: Duration) -> Result<(), LakeError> {
        let mut live = self.live();
        let (mut snapshot, bytes) = (live.snapshot.clone(), entry.bytes);
        snapshot.take(&self.root, version, entry)?;
        live.snapshot = snapshot;
        live.read_at = read_at;
        live.log_bytes += bytes;
        live.log_entries += 1;
        Ok(())
    }

    /// Puts `actions` as the entry after `base`, if absent. When the reply is lost or says
    /// "exists", the entry is read and our own commit id looked for. The caller holds the commit
    /// lock; the outcome is applied to the state either way.
    pub(crate) async fn put_entry(
        &self,
        base: &Snapshot,
        operation: &str,
        actions: Vec<Action>,
    ) -> Result<Put, LakeError> {
        self.must_be_sound()?;
        if self.is_stale() {
            self.catch_up().await?;
            return Ok(Put::Slept);
        }
        // A file that leaves a table twice, or that never was in it, is the sign of a state that is
        // not this table's.
        let mut removes = actions.iter().filter_map(|action| action.remove.as_ref());
        if let Some(remove) = removes.find(|remove| !base.files.contains_key(remove.path.as_str())) {
            return Err(LakeError::Foreign { table: self.root.to_string(), path: remove.path.clone() });
        }
        let version = base.version + 1;
        let path = replay::entry_path(&self.root, version);
        let (entry, body, commit_id) = Entry::write(operation, actions, base.digest)?;
        for (attempt, pause) in pauses().enumerate() {
            tokio::time::sleep(pause).await;
            let read_at = self.clock.now();
            let put = self.store.put_opts(&path, body.clone().into(), PutMode::Create.into()).await;
            let error = match put {
                Ok(_) => return self.won(version, entry, &commit_id, read_at).await,
                Err(error) => error,
            };
            // Exists, or unknown: look. Our own entry means that an earlier attempt took effect.
            match read_entry(self.store.as_ref(), &self.root, version).await {
                Ok(Some(found)) => {
                    let is_ours = found.is_commit(&commit_id);
                    // Seen is not yet durable: a store says "exists" only of what is, so ask it
                    // once more.
                    if is_ours && !matches!(error, object_store::Error::AlreadyExists { .. }) {
                        continue;
                    }
                    if is_ours {
                        tracing::info!(table = %self.root, version, "commit took effect although its reply was lost");
                        return self.won(version, entry, &commit_id, read_at).await;
                    }
                    self.take_entry(version, found.clone(), read_at)?;
                    self.counters.conflicts.fetch_add(1, Ordering::Relaxed);
                    return Ok(Put::Lost(self.follow_on(version, found.actions).await?));
                }
                Ok(None) => {
                    tracing::warn!(table = %self.root, version, attempt, %error, "commit did not take effect, trying again")
                }
                Err(looking) => {
                    tracing::warn!(table = %self.root, version, attempt, %error, %looking, "outcome of a commit is unknown, looking again");
                }
            }
        }
        Err(LakeError::Store {
            doing: format!("committing version {version} of {}", self.root),
            source: object_store::Error::Generic { store: "lake", source: "no answer after several attempts".into() },
        })
    }

    /// Takes the entries after `version` as well, and adds their actions to `lost`: one who is
    /// behind by many would lose as many races, one after the other.
    async fn follow_on(&self, version: u64, mut lost: Vec<Action>) -> Result<Vec<Action>, LakeError> {
        for next in version + 1.. {
            let read_at = self.clock.now();
            // What cannot be read now is met again at the next put.
            let Ok(Some(found)) = read_entry(self.store.as_ref(), &self.root, next).await else { break };
            self.take_entry(next, found.clone(), read_at)?;
            lost.extend(found.actions);
        }
        Ok(lost)
    }

    /// Ours is the entry. If this process slept too long since it read the log, the entry may fill
    /// a hole that clean-up left, which is no commit at all: read the table anew and see.
    async fn won(&self, version: u64, own: Entry, commit_id: &str, read_at: Duration) -> Result<Put, LakeError> {
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        if self.is_stale() {
            let reopened = replay::open(self.store.as_ref(), &self.root).await?;
            let entry = read_entry(self.store.as_ref(), &self.root, version).await?;
            let still_ours = entry.is_some_and(|found| found.is_commit(commit_id));
            let counts = reopened.as_ref().is_some_and(|opened| {
                opened.snapshot.version >= version && opened.snapshot.version - opened.log_entries < version
            });
            if !(still_ours && counts) {
                tracing::error!(table = %self.root, version, "slept too long before a commit; it does not count");
                return self.reopen().await.map(|_| Put::Slept);
            }
        }
        // A put that won proves that the log ended there when it began.
        self.take_entry(version, own, read_at)?;
        Ok(Put::Won)
    }

    /// Writes a data file under a new name, durable on return. It is no part of the table until a
    /// commit adds it.
    pub(crate) async fn put_data_file(&self, bytes: Bytes, file: &DataFile) -> Result<(), LakeError> {
        let path = self.root.clone().join(file.path.as_str());
        self.store.put(&path, bytes.into()).await.doing("writing a data file")?;
        Ok(())
    }

    /// Appends rows that belong to no site's journal (contacts, quarantine, state). Not idempotent:
    /// after an unknown outcome that could not be resolved, the caller looks before it repeats.
    pub async fn append_rows(self: &Arc<Self>, rows: arrow_array::RecordBatch) -> Result<(), LakeError> {
        let _committing = self.committing.lock().await;
        let mut base = self.snapshot();
        let schema = base.schema().clone();
        let rows = data_file::fit(&rows, &schema)?;
        let now_ms = rollcall_runtime::now().as_millis();
        let written = rollcall_runtime::blocking(move || {
            data_file::write(data_file::new_path(), &schema, &[rows], Effort::Ingest, now_ms)
        });
        let (bytes, file) = written.await.doing("writing rows")??;
        self.put_data_file(bytes.clone(), &file).await?;
        for _ in 0..crate::append::COMMIT_ATTEMPTS {
            match self.put_entry(&base, "WRITE", vec![Action::add(file.to_add(true)?)]).await? {
                Put::Won => {
                    self.checkpoint_if_due();
                    return Ok(());
                }
                Put::Lost(_) => base = self.snapshot(),
                Put::Slept => {
                    base = self.snapshot();
                    self.put_data_file(bytes.clone(), &file).await?;
                }
            }
        }
        Err(LakeError::Contention(crate::append::COMMIT_ATTEMPTS))
    }

    /// Puts `rows` in the place of all there are. For tables of HQ's own that hold a present state.
    pub async fn replace_rows(self: &Arc<Self>, rows: arrow_array::RecordBatch) -> Result<(), LakeError> {
        let _committing = self.committing.lock().await;
        for _ in 0..crate::append::COMMIT_ATTEMPTS {
            let base = self.catch_up().await?;
            let schema = base.schema().clone();
            let rows = data_file::fit(&rows, &schema)?;
            let now_ms = rollcall_runtime::now().as_millis();
            let written = rollcall_runtime::blocking(move || {
                data_file::write(data_file::new_path(), &schema, &[rows], Effort::Compaction, now_ms)
            });
            let (bytes, file) = written.await.doing("writing rows")??;
            self.put_data_file(bytes, &file).await?;
            let mut actions = vec![Action::add(file.to_add(true)?)];
            actions.extend(base.files.keys().map(|path| {
                Action::remove(Remove { path: path.to_string(), deletion_timestamp: Some(now_ms), data_change: true })
            }));
            if matches!(self.put_entry(&base, "WRITE", actions).await?, Put::Won) {
                self.checkpoint_if_due();
                return Ok(());
            }
        }
        Err(LakeError::Contention(crate::append::COMMIT_ATTEMPTS))
    }

    /// All rows of a small table of HQ's own.
    pub async fn read_rows(&self) -> Result<Vec<arrow_array::RecordBatch>, LakeError> {
        let snapshot = self.snapshot();
        let mut all = Vec::new();
        for file in snapshot.files() {
            for rows in self.read_file(&snapshot, file).await? {
                all.push(rows?);
            }
        }
        Ok(all)
    }

    /// The rows of one file of a snapshot, some at a time. To take the next ones is work for a
    /// processor.
    pub async fn read_file(
        &self,
        snapshot: &Snapshot,
        file: &DataFile,
    ) -> Result<impl Iterator<Item = Result<arrow_array::RecordBatch, LakeError>> + use<>, LakeError> {
        data_file::stream(self.get_data_file(file).await?, snapshot.schema(), None)
    }

    /// These columns of the rows of one file of a snapshot.
    pub async fn read_columns(
        &self,
        snapshot: &Snapshot,
        file: &DataFile,
        columns: &[String],
    ) -> Result<impl Iterator<Item = Result<arrow_array::RecordBatch, LakeError>> + use<>, LakeError> {
        data_file::stream(self.get_data_file(file).await?, snapshot.schema(), Some(columns))
    }

    /// Takes data files out, and their rows with them. For tables of HQ's own.
    pub async fn remove_files(&self, paths: &[String]) -> Result<(), LakeError> {
        let _committing = self.committing.lock().await;
        for _ in 0..crate::append::COMMIT_ATTEMPTS {
            let base = self.snapshot();
            let now_ms = rollcall_runtime::now().as_millis();
            let known = paths.iter().filter(|path| base.files.contains_key(path.as_str()));
            let remove = |path: &String| {
                Action::remove(Remove { path: path.clone(), deletion_timestamp: Some(now_ms), data_change: true })
            };
            let actions: Vec<Action> = known.map(remove).collect();
            if actions.is_empty() || matches!(self.put_entry(&base, "DELETE", actions).await?, Put::Won) {
                return Ok(());
            }
        }
        Err(LakeError::Contention(crate::append::COMMIT_ATTEMPTS))
    }

    /// Adds the columns of `schema` that the table lacks.
    pub(crate) async fn widen(&self, schema: &TableSchema) -> Result<(), LakeError> {
        if self.set_aside().is_some() {
            return Ok(());
        }
        let _committing = self.committing.lock().await;
        for _ in 0..crate::append::COMMIT_ATTEMPTS {
            let base = self.snapshot();
            let Some(wider) = base.schema().merged(&schema.columns) else { return Ok(()) };
            let now_ms = rollcall_runtime::now().as_millis();
            let meta_data = meta_data_for(&wider, Some(&base.meta_data), now_ms);
            if matches!(self.put_entry(&base, "ADD COLUMNS", vec![Action::meta_data(meta_data)]).await?, Put::Won) {
                return Ok(());
            }
        }
        Err(LakeError::Contention(crate::append::COMMIT_ATTEMPTS))
    }

    /// The data files that were found damaged; compaction leaves them.
    pub fn damaged(&self) -> HashSet<String> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note_damaged(&self, file: &DataFile) {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(file.path.clone());
    }

    /// The bytes of a data file, as they were written.
    pub(crate) async fn get_data_file(&self, file: &DataFile) -> Result<Bytes, LakeError> {
        get_data_file(self.store.as_ref(), &self.root, file).await
    }
}

/// The bytes of a data file of the table at `root`, as they were written.
pub(crate) async fn get_data_file(store: &dyn ObjectStore, root: &Path, file: &DataFile) -> Result<Bytes, LakeError> {
    let path = root.clone().join(file.path.as_str());
    let damaged = |what: &str| LakeError::DamagedFile { path: path.to_string(), what: what.to_owned() };
    let bytes = get_optional(store, &path).await?.ok_or_else(|| damaged("it is gone"))?;
    let Some(digest) = file.digest else { return Ok(bytes) };
    // It may be long: not on the threads that serve sites.
    let hashed = bytes.clone();
    let found = rollcall_runtime::blocking(move || Digest::of(&hashed)).await.doing("checking a data file")?;
    if found == digest { Ok(bytes) } else { Err(damaged("it is not what was written")) }
}

impl Live {
    pub(crate) fn new(opened: Opened, read_at: Duration) -> Self {
        Self { snapshot: opened.snapshot, read_at, log_bytes: opened.log_bytes, log_entries: opened.log_entries }
    }
}
