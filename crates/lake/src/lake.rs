//! The lake as a whole: where its tables are, its id, and who may use a directory.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    path::Path as FilePath,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::future::try_join_all;
use object_store::{ObjectStore, path::Path};
use rollcall_types::TableName;

use crate::{
    clock::BootClock,
    directory::{DurableDirectory, Hold},
    error::{Doing, LakeError},
    heads::Heads,
    layer::{Layered, PutLayer},
    objects::{get_optional, put_if_absent},
    opener::{Opener, follow_table, runs_elsewhere},
    remote::{probe, store_at},
    replay,
    salvage::Doubt,
    schema::{Column, ColumnType, TableSchema, our_columns},
    state::{self, StateLog},
    table::Table,
    vault::{self, Vault, VaultKey},
};

/// What a lake needs besides its store.
#[derive(Debug, Clone, Default)]
pub struct LakeOptions {
    /// The clock of the zombie rule.
    pub clock: BootClock,
    /// Between the lake and its store; none by default.
    pub layer: Option<Arc<dyn PutLayer>>,
}

/// All tables of one HQ.
#[derive(Debug)]
pub struct Lake {
    store: Arc<dyn ObjectStore>,
    options: LakeOptions,
    id: String,
    tables: RwLock<BTreeMap<TableName, Arc<Table>>>,
    /// Serialises creation, so that one process opens a table once.
    creating: tokio::sync::Mutex<()>,
    state: StateLog,
    site_log: Arc<Table>,
    quarantine: Arc<Table>,
    contacts: Arc<Table>,
    rhythms: Arc<Table>,
    untold: Arc<Table>,
    audit: Arc<Table>,
    doubt: Option<Doubt>,
    /// How many looks had been asked for when the newest look at what others wrote began; one such
    /// look at a time.
    followed: tokio::sync::Mutex<u64>,
    /// How often a look was asked for.
    looks_asked: AtomicU64,
    _lock: Option<File>,
    hold: Option<Arc<Hold>>,
}

/// The file in a lake's directory that its process has locked.
const LOCK: &str = "lock";

/// Whether a process holds a directory.
pub fn is_locked(root: &FilePath) -> bool {
    let file = File::open(root.join(LOCK));
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Holds a directory for this process alone, as long as the file is open. `rollcall hq` is the only
/// writer a directory can have.
pub fn lock_directory(root: &FilePath) -> Result<File, LakeError> {
    let failed = |source: std::io::Error| LakeError::Store {
        doing: format!("locking {}", root.display()),
        source: object_store::Error::Generic { store: "directory", source: Box::new(source) },
    };
    if !root.exists() {
        fs::create_dir_all(root).map_err(failed)?;
        // It holds every store's rows, and keys.
        #[cfg(unix)]
        fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(failed)?;
    }
    let file = File::create(root.join(LOCK)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LakeError::InUse(root.display().to_string())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

impl Lake {
    /// Opens or creates the lake in a directory, which no other process may use at the same time.
    pub async fn open_directory(root: &FilePath, options: LakeOptions) -> Result<Self, LakeError> {
        let lock = lock_directory(root)?;
        let hold = Arc::new(Hold::new(root));
        hold.hold(LOCK);
        let directory = DurableDirectory::new(root).doing("opening the lake's directory")?;
        let mut lake = Self::open(Arc::new(directory.held(hold.clone())), options).await?;
        // A new lake has its id from now on.
        hold.hold("rollcall/lake.json");
        lake._lock = Some(lock);
        lake.hold = Some(hold);
        Ok(lake)
    }

    /// Opens or creates the lake in the object store at `address`, as other nodes may at the same
    /// time. See [`store_at`].
    pub async fn open_shared(address: &str, options: LakeOptions) -> Result<Self, LakeError> {
        let store = store_at(address)?;
        probe(store.as_ref()).await?;
        Self::open(store, options).await
    }

    /// Opens or creates the lake in a store that has conditional put. Several nodes may.
    pub async fn open(store: Arc<dyn ObjectStore>, options: LakeOptions) -> Result<Self, LakeError> {
        let store = match &options.layer {
            Some(layer) => Arc::new(Layered::new(store, layer.clone())),
            None => store,
        };
        let heads = match Heads::read(store.as_ref()).await? {
            Ok(heads) => heads.unwrap_or_default(),
            Err(what) => {
                tracing::error!(what, "what tells how far the lake had come is not believed");
                Heads::default()
            }
        };
        let id = lake_id(store.as_ref(), &heads).await?;
        let opener = Opener::new(store.clone(), options.clock.clone(), heads);
        let (state, mut doubts) = opener.state().await?;
        let site_log = opener.own("site_log").await?;
        let quarantine = opener.own("quarantine").await?;
        let contacts = opener.own("contacts").await?;
        let rhythms = opener.own("rhythms").await?;
        let untold = opener.own("untold").await?;
        let audit = opener.own("audit").await?;
        let mut tables = BTreeMap::new();
        let roots = table_roots(store.as_ref()).await?.into_iter();
        let noted = opener.heads.tables.keys().filter_map(|root| {
            let name = TableName::new(root.strip_prefix("tables/")?).ok()?;
            Some((name, Path::from(root.as_str())))
        });
        for (name, root) in roots.chain(noted).collect::<BTreeMap<_, _>>() {
            if let Some(table) = opener.table(root).await? {
                tables.insert(name, table);
            }
        }
        let secrets = vault::versions(store.as_ref()).await?;
        for (name, noted) in &opener.heads.secrets {
            let found = secrets.get(name).copied().unwrap_or(0);
            doubts.extend(opener.heads.older(&format!("the secret {name}"), Some(*noted), found));
        }
        let doubt = Doubt::add(store.as_ref(), doubts).await?;
        Ok(Self {
            store,
            options,
            id,
            tables: RwLock::new(tables),
            creating: tokio::sync::Mutex::new(()),
            state,
            site_log,
            quarantine,
            contacts,
            rhythms,
            untold,
            audit,
            doubt,
            followed: tokio::sync::Mutex::default(),
            looks_asked: AtomicU64::new(0),
            _lock: None,
            hold: None,
        })
    }

    /// Why the lake's directory is not the one that was opened, if it is not: it was exchanged, and
    /// nothing is written any more.
    pub fn exchanged(&self) -> Option<String> {
        self.hold.as_ref().and_then(|hold| hold.problem())
    }

    /// Whether other processes may write it too.
    pub fn is_shared(&self) -> bool {
        self._lock.is_none()
    }

    /// Takes over what other nodes committed, as of now or later. Callers that come together share
    /// one look.
    pub async fn follow(&self) -> Result<(), LakeError> {
        if !self.is_shared() {
            return Ok(());
        }
        let asked = self.looks_asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut followed = self.followed.lock().await;
        if *followed >= asked {
            return Ok(());
        }
        // Whoever asked by now is served by this look.
        let begun = self.looks_asked.load(Ordering::Acquire);
        self.find_tables().await?;
        let own = [&self.site_log, &self.contacts, &self.rhythms, &self.untold, &self.audit];
        let tables: Vec<Arc<Table>> = self.tables().into_values().chain(own.into_iter().cloned()).collect();
        let of_tables = try_join_all(tables.iter().map(follow_table));
        let (state, of_tables) = futures::join!(self.state.refresh(), of_tables);
        state?;
        of_tables?;
        // Last: what a site's rows lack is in quarantine before they are anywhere else.
        follow_table(&self.quarantine).await?;
        *followed = begun;
        Ok(())
    }

    /// Opens tables that another node created.
    async fn find_tables(&self) -> Result<(), LakeError> {
        for (name, root) in table_roots(self.store.as_ref()).await? {
            if self.table(&name).is_some() {
                continue;
            }
            let _creating = self.creating.lock().await;
            if self.table(&name).is_some() {
                continue;
            }
            let opener = Opener::new(self.store.clone(), self.options.clock.clone(), Heads::default());
            if let Some(table) = opener.table(root).await? {
                self.tables.write().unwrap_or_else(PoisonError::into_inner).insert(name, table);
            }
        }
        Ok(())
    }

    /// What of HQ's own state may be older than it was, if anything.
    pub fn doubt(&self) -> Option<&Doubt> {
        self.doubt.as_ref()
    }

    /// Whether a node of this lake ran within the last minute.
    pub async fn runs_elsewhere(store: &dyn ObjectStore) -> Result<bool, LakeError> {
        runs_elsewhere(store).await
    }

    /// Tables that are set aside, and why.
    pub fn set_aside(&self) -> Vec<(Path, String)> {
        let own = [&self.site_log, &self.quarantine, &self.contacts, &self.rhythms, &self.untold, &self.audit];
        let all = self.tables().into_values().chain(own.into_iter().cloned());
        all.filter_map(|table| Some((table.root().clone(), table.set_aside()?))).collect()
    }

    /// Notes how far the lake has come: what is older later is damaged.
    pub async fn note_heads(&self) -> Result<(), LakeError> {
        let own = [&self.site_log, &self.quarantine, &self.contacts, &self.rhythms, &self.untold, &self.audit];
        let own = own.into_iter().chain([self.state.table()]);
        let all = self.tables().into_values().chain(own.cloned());
        // Of what is set aside, what was noted before holds.
        let known = Heads::read(self.store.as_ref()).await?.ok().flatten().unwrap_or_default();
        let version = |table: Arc<Table>| {
            let root = table.root().to_string();
            let version = match table.set_aside() {
                Some(_) => *known.tables.get(&root)?,
                None => table.snapshot().version(),
            };
            Some((root, version))
        };
        let tables = all.filter_map(version).collect();
        let heads = Heads { lake: self.id.clone(), tables, secrets: vault::versions(self.store.as_ref()).await? };
        match heads == known {
            true => Ok(()),
            false => heads.write(self.store.as_ref()).await,
        }
    }

    /// The lake's id, made when it was created: sites know HQ by it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The store behind the lake, for readers.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// What HQ itself knows.
    pub fn state(&self) -> &StateLog {
        &self.state
    }

    /// Entries of sites' journals about themselves: loads, losses.
    pub fn site_log(&self) -> &Arc<Table> {
        &self.site_log
    }

    /// Batches of which not everything could be taken, whole.
    pub fn quarantine(&self) -> &Arc<Table> {
        &self.quarantine
    }

    /// Which minutes of each hour each site was heard.
    pub fn contacts(&self) -> &Arc<Table> {
        &self.contacts
    }

    /// Questions whose asker did not want to be told what the answer was missing.
    pub fn untold(&self) -> &Arc<Table> {
        &self.untold
    }

    /// What people did.
    pub fn audit(&self) -> &Arc<Table> {
        &self.audit
    }

    /// What was learned of each site's rhythm; only the newest is in it.
    pub fn rhythms(&self) -> &Arc<Table> {
        &self.rhythms
    }

    /// Whether there are secrets that only the right key opens.
    pub async fn has_secrets(&self) -> Result<bool, LakeError> {
        Vault::is_used(self.store.as_ref()).await
    }

    /// The secrets, opened with `key`.
    pub fn vault(&self, key: VaultKey) -> Vault {
        Vault::new(self.store.clone(), key)
    }

    /// The tables of sites' rows.
    pub fn tables(&self) -> BTreeMap<TableName, Arc<Table>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those of them that there are to people: not the forgotten ones, which only have cursors
    /// left.
    pub fn shown_tables(&self) -> BTreeMap<TableName, Arc<Table>> {
        let mut tables = self.tables();
        tables.retain(|_, table| !table.snapshot().is_forgotten());
        tables
    }

    /// The table of this name, if it exists.
    pub fn table(&self, name: &TableName) -> Option<Arc<Table>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The table of this name, created with this key if it does not exist.
    pub async fn table_or_create(&self, name: &TableName, key: &[String]) -> Result<Arc<Table>, LakeError> {
        if let Some(table) = self.table(name) {
            return Ok(table);
        }
        let _creating = self.creating.lock().await;
        if let Some(table) = self.table(name) {
            return Ok(table);
        }
        let root = Path::from("tables").join(name.as_str());
        let schema = TableSchema::for_sites(key.to_vec());
        let table = Table::open_or_create(self.store.clone(), root, self.options.clock.clone(), &schema).await?;
        self.tables.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), table.clone());
        Ok(table)
    }
}

/// Where the tables of sites' rows are.
pub(crate) async fn table_roots(store: &dyn ObjectStore) -> Result<Vec<(TableName, Path)>, LakeError> {
    let listed = store.list_with_delimiter(Some(&Path::from("tables"))).await.doing("listing tables")?;
    let named = |root: Path| Some((TableName::new(root.filename()?).ok()?, root));
    Ok(listed.common_prefixes.into_iter().filter_map(named).collect())
}

/// The lake's id. One that is gone is put back if it was noted; a new one is made only where there
/// is nothing yet.
async fn lake_id(store: &dyn ObjectStore, heads: &Heads) -> Result<String, LakeError> {
    let path = Path::from("rollcall/lake.json");
    let gone = |what: &str| {
        LakeError::damaged(format!(
            "rollcall/lake.json {what}: put it back from a backup, or write {{\"id\":\"…\",\"version\":1}} with the id that \
             `rollcall-site status` shows at a site"
        ))
    };
    if get_optional(store, &path).await?.is_none() {
        let id = match heads.lake.as_str() {
            "" if replay::files(store, &Path::from("rollcall/state")).await?.is_empty() => {
                rollcall_runtime::new_id().to_string()
            }
            "" => return Err(gone("is gone")),
            noted => noted.to_owned(),
        };
        let new = serde_json::json!({"id": id, "version": 1}).to_string();
        put_if_absent(store, &path, new.into_bytes().into()).await?;
    }
    let bytes = get_optional(store, &path).await?.ok_or_else(|| gone("is gone"))?;
    let value: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    let id = value.and_then(|value| value["id"].as_str().map(str::to_owned));
    match id {
        Some(id) if heads.lake.is_empty() || heads.lake == id => Ok(id),
        // It is two facts, and one of them was noted with its digest.
        _ if !heads.lake.is_empty() => Ok(heads.lake.clone()),
        _ => Err(gone("cannot be read")),
    }
}

/// The names of HQ's own tables.
pub(crate) const OWN: [&str; 7] = ["state", "site_log", "quarantine", "contacts", "rhythms", "untold", "audit"];

/// The columns of one of HQ's own tables.
pub(crate) fn own_schema(name: &str) -> TableSchema {
    match name {
        "site_log" => site_log_schema(),
        "quarantine" => quarantine_schema(),
        "contacts" => contacts_schema(),
        "rhythms" => rhythms_schema(),
        "untold" => untold_schema(),
        "audit" => audit_schema(),
        _ => state::schema(),
    }
}

fn site_log_schema() -> TableSchema {
    let mut columns = TableSchema::for_sites(Vec::new()).columns;
    columns.extend(["a", "b", "c"].map(|name| Column::new(name, ColumnType::String)));
    TableSchema::new(columns, Vec::new())
}

fn quarantine_schema() -> TableSchema {
    use our_columns::{EPOCH, RECEIVED_AT, SITE};
    let columns = vec![
        Column::new(SITE, ColumnType::String),
        Column::new(EPOCH, ColumnType::Integer),
        Column::new("first_seq", ColumnType::Long),
        Column::new("last_seq", ColumnType::Long),
        Column::new(RECEIVED_AT, ColumnType::Timestamp),
        Column::new("reason", ColumnType::String),
        Column::new("header", ColumnType::Binary),
        Column::new("payload", ColumnType::Binary),
        // The tables of which rows could not be taken, a list in JSON; none if it may be any.
        Column::new("tables", ColumnType::String),
    ];
    TableSchema::new(columns, Vec::new())
}

fn rhythms_schema() -> TableSchema {
    TableSchema::new(
        vec![Column::new(our_columns::SITE, ColumnType::String), Column::new("rhythm", ColumnType::Binary)],
        Vec::new(),
    )
}

fn untold_schema() -> TableSchema {
    let text = |name: &str| Column::new(name, ColumnType::String);
    TableSchema::new(
        vec![Column::new("at", ColumnType::Timestamp), text("asked_by"), text("question"), text("coverage")],
        Vec::new(),
    )
}

fn audit_schema() -> TableSchema {
    let texts = ["by", "from", "what", "outcome", "before", "after"].map(|name| Column::new(name, ColumnType::String));
    TableSchema::new([Column::new("at", ColumnType::Timestamp)].into_iter().chain(texts).collect(), Vec::new())
}

fn contacts_schema() -> TableSchema {
    let columns = vec![
        Column::new(our_columns::SITE, ColumnType::String),
        Column::new("hour", ColumnType::Timestamp),
        // Bit n is set when the site was heard in minute n of the hour.
        Column::new("minutes", ColumnType::Long),
    ];
    TableSchema::new(columns, Vec::new())
}
