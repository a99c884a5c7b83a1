//! The tables that a question sees: one version of each, and what is made for it alone.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use datafusion::{
    catalog::{CatalogProvider, SchemaProvider, TableProvider},
    common::{DataFusionError, Result},
    datasource::MemTable,
    execution::object_store::ObjectStoreUrl,
};
use rollcall_lake::{Lake, Lives, Snapshot, Table};
use rollcall_types::{SiteId, SiteNumber, TableName};

use crate::{
    current::{Whole, current, history},
    extras::{Extras, MakeTable},
};

/// The roster's name in `public`.
const ROSTER: &str = "sites";
/// What a table of the stores' that has this name is called there.
const ROSTER_OF_STORES: &str = "sites_of_stores";

/// This moment's versions of all tables, and what the caller adds.
pub(crate) fn pin(lake: &Lake, store_url: &ObjectStoreUrl, extras: Extras) -> PinnedCatalog {
    let mut schemas: BTreeMap<&'static str, PinnedSchema> = BTreeMap::new();
    let own = [
        ("quarantine", lake.quarantine()),
        ("site_log", lake.site_log()),
        ("contacts", lake.contacts()),
        ("untold", lake.untold()),
        ("audit", lake.audit()),
    ];
    let now = || {
        let all = lake.tables().into_values().chain(own.iter().map(|(_, table)| (*table).clone()));
        all.map(|table| (table.root().to_string(), table.snapshot())).collect()
    };
    let pin = |table: &Table, site_table: Option<&TableName>, current: bool| {
        if let Err(damaged) = table.must_be_sound() {
            return Some(PinnedTable::Refused(damaged.to_string()));
        }
        let root = table.root().to_string();
        let snapshot = match &extras.versions {
            // A table that came later is not there yet.
            Some(versions) => versions.of(&root, now)?,
            None => table.snapshot(),
        };
        Some(PinnedTable::Lake {
            site_table: site_table.cloned(),
            snapshot: Box::new(snapshot),
            root,
            current,
            site_ids: extras.site_ids.clone(),
            lives: extras.lives.clone(),
            store_url: store_url.clone(),
            only: extras.only.clone(),
        })
    };
    let mut insert = |schema: &'static str, name: &str, pinned: Option<PinnedTable>| {
        if let Some(pinned) = pinned {
            schemas.entry(schema).or_default().insert(name, pinned);
        }
    };
    for (name, table) in lake.shown_tables() {
        // What HQ itself wrote lacks no site's rows.
        let of_sites = Some(&name).filter(|_| !table.is_published());
        // The roster has this name; a table of the stores' has another here, and its own in
        // `history`.
        let is_withheld = extras.only.is_some() && table.is_published();
        let pinned = |current| {
            // None of its rows is a site's: by the rule for these it would seem to be empty.
            let refused = || format!("{name} is HQ's own table: only users who see all sites may ask for its rows");
            if is_withheld { Some(PinnedTable::Refused(refused())) } else { pin(&table, of_sites, current) }
        };
        let shown = if name.as_str() == ROSTER { ROSTER_OF_STORES } else { name.as_str() };
        insert("public", shown, pinned(true));
        insert("history", name.as_str(), pinned(false));
    }
    for (name, table) in own {
        let refused = || {
            let text = format!("rollcall.{name} names all sites: only users who see all of them may ask it");
            Some(PinnedTable::Refused(text))
        };
        insert("rollcall", name, if extras.only.is_some() { refused() } else { pin(table, None, false) });
    }
    for (schema, name, make) in extras.tables {
        schemas.entry(schema).or_default().insert(name, PinnedTable::Made(make, OnceLock::new()));
    }
    let schema = |schema| Arc::new(schema) as Arc<dyn SchemaProvider>;
    PinnedCatalog(schemas.into_iter().map(|(name, pinned)| (name.to_owned(), schema(pinned))).collect())
}

enum PinnedTable {
    Lake {
        site_table: Option<TableName>,
        snapshot: Box<Snapshot>,
        root: String,
        current: bool,
        site_ids: Arc<HashMap<SiteNumber, SiteId>>,
        lives: Arc<Lives>,
        store_url: ObjectStoreUrl,
        only: Option<Arc<HashSet<String>>>,
    },
    /// Nothing of it is read, for this reason.
    Refused(String),
    /// Made when it is first asked for, and the same then for the whole query.
    Made(MakeTable, OnceLock<Arc<MemTable>>),
}

impl PinnedTable {
    fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        match self {
            Self::Refused(what) => Err(DataFusionError::Plan(what.clone())),
            Self::Made(make, made) => {
                if let Some(table) = made.get() {
                    return Ok(table.clone());
                }
                let rows = make();
                let table = Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?);
                Ok(made.get_or_init(|| table).clone())
            }
            Self::Lake { snapshot, root, current: is_current, site_ids, lives, store_url, site_table, only } => {
                let whole =
                    Whole { snapshot, root, url: store_url, site_table: site_table.clone(), only: only.clone() };
                if *is_current { current(&whole, site_ids, lives) } else { Ok(Arc::new(history(&whole))) }
            }
        }
    }
}

#[derive(Default)]
struct PinnedSchema(BTreeMap<String, PinnedTable>);

impl std::fmt::Debug for PinnedSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl PinnedSchema {
    fn insert(&mut self, name: &str, table: PinnedTable) {
        self.0.insert(name.to_owned(), table);
    }
}

#[async_trait]
impl SchemaProvider for PinnedSchema {
    fn table_names(&self) -> Vec<String> {
        // Who lists tables asks for the columns of each.
        let listed = self.0.iter().filter(|(_, table)| !matches!(table, PinnedTable::Refused(_)));
        listed.map(|(name, _)| name.clone()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.0.get(name).map(PinnedTable::provider).transpose()
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// The one catalog of a question.
#[derive(Debug)]
pub(crate) struct PinnedCatalog(pub(crate) BTreeMap<String, Arc<dyn SchemaProvider>>);

impl CatalogProvider for PinnedCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.0.get(name).cloned()
    }
}
