//! Opens a lake's tables, and sets aside those whose logs are damaged or older than they were.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{ObjectStore, path::Path};

use crate::{
    clock::BootClock,
    error::{Doing, LakeError},
    heads::Heads,
    lake::own_schema,
    salvage,
    state::{self, StateLog},
    table::Table,
};

/// Opens tables, and sets aside those whose logs are damaged or older than they were.
pub(crate) struct Opener {
    store: Arc<dyn ObjectStore>,
    clock: BootClock,
    pub(crate) heads: Heads,
}

impl Opener {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, clock: BootClock, heads: Heads) -> Self {
        Self { store, clock, heads }
    }

    /// The table at `root`; none if there never was one.
    pub(crate) async fn table(&self, root: Path) -> Result<Option<Arc<Table>>, LakeError> {
        let noted = self.heads.tables.get(root.as_ref()).copied();
        let what = match Table::open(self.store.clone(), root.clone(), self.clock.clone()).await {
            Ok(Some(table)) => {
                let older = self.heads.older(root.as_ref(), noted, table.snapshot().version());
                older.into_iter().for_each(|what| table.put_aside(what));
                return Ok(Some(table));
            }
            Ok(None) if noted.is_none() => return Ok(None),
            Ok(None) => format!("the log of {root} is gone"),
            Err(LakeError::Damaged(what)) => what,
            Err(error) => return Err(error),
        };
        Table::open_aside(self.store.clone(), root, self.clock.clone(), what).await.map(Some)
    }

    /// One of HQ's own tables, made if it never was there.
    pub(crate) async fn own(&self, name: &str) -> Result<Arc<Table>, LakeError> {
        let (root, schema) = (Path::from("rollcall").join(name), own_schema(name));
        if let Some(table) = self.table(root.clone()).await? {
            // An earlier HQ may have made it with fewer columns.
            table.widen(&schema).await?;
            return Ok(table);
        }
        Table::open_or_create(self.store.clone(), root, self.clock.clone(), &schema).await
    }

    /// The state log, and what of it is lost: what can be read of it counts, since nothing goes
    /// without it.
    pub(crate) async fn state(&self) -> Result<(StateLog, Vec<String>), LakeError> {
        let root = Path::from("rollcall/state");
        let noted = self.heads.tables.get(root.as_ref()).copied();
        let mut lost = Vec::new();
        let open = async || Table::open(self.store.clone(), root.clone(), self.clock.clone()).await;
        let table = match open().await {
            Err(LakeError::Damaged(what)) => {
                // To mend it here would change it behind that node's back.
                if runs_elsewhere(self.store.as_ref()).await? {
                    let text = "another node runs, which has it whole and mends it within an hour; or stop all nodes for a minute";
                    return Err(LakeError::Damaged(format!("{what}: {text}")));
                }
                lost.push(what);
                lost.extend(
                    salvage::take_what_is_there(self.store.as_ref(), &root, &state::schema(), noted.unwrap_or(0))
                        .await?,
                );
                open().await?
            }
            other => other?,
        };
        let table = match table {
            Some(table) => table,
            None if noted.is_some() => {
                let text =
                    "rollcall/state is gone, and with it the roster and who may do what: put it back from a backup";
                return Err(LakeError::damaged(text));
            }
            None => {
                Table::open_or_create(self.store.clone(), root.clone(), self.clock.clone(), &state::schema()).await?
            }
        };
        lost.extend(self.heads.older("rollcall/state", noted, table.snapshot().version()));
        let (state, unread) = StateLog::open(table).await?;
        lost.extend(unread);
        Ok((state, lost))
    }
}

/// Takes over what others committed. A table whose log is damaged is set aside, and hinders no
/// other.
pub(crate) async fn follow_table(table: &Arc<Table>) -> Result<(), LakeError> {
    if table.set_aside().is_some() {
        return Ok(());
    }
    match table.refresh().await {
        Err(LakeError::Damaged(what)) => table.put_aside(what),
        other => drop(other?),
    }
    Ok(())
}

/// Whether a node of this lake told the others something in the last minute.
pub(crate) async fn runs_elsewhere(store: &dyn ObjectStore) -> Result<bool, LakeError> {
    let told: Vec<_> =
        store.list(Some(&Path::from("rollcall/relay"))).try_collect().await.doing("looking for nodes")?;
    let alive = rollcall_runtime::now().before(std::time::Duration::from_secs(60)).to_chrono();
    Ok(told.iter().any(|object| object.last_modified > alive))
}
