//! What goes with a question: what its caller knows that is in no table.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, OnceLock},
};

use datafusion::{arrow::record_batch::RecordBatch, catalog::TableFunctionImpl, logical_expr::ScalarUDF};
use rollcall_lake::{Lives, Snapshot};
use rollcall_types::{Coverage, SiteId, SiteNumber, TableName};

use crate::{catalogue::System, scope::Scope};

/// Makes a table when a query asks for it.
pub type MakeTable = Arc<dyn Fn() -> RecordBatch + Send + Sync>;

/// What the caller knows that is in no table: goes with one query.
#[derive(Clone)]
pub struct Extras {
    /// Further tables, by schema and name.
    pub tables: Vec<(&'static str, &'static str, MakeTable)>,
    /// Ids of the sites that table cursors name by number.
    pub site_ids: Arc<HashMap<SiteNumber, SiteId>>,
    /// Which lives of their journals may be current.
    pub lives: Arc<Lives>,
    /// Who says what the answer is missing.
    pub cover: Arc<dyn Cover>,
    /// Only rows of these sites may be seen; all if none. HQ's own tables that tell of others are
    /// then not there.
    pub only: Option<Arc<HashSet<String>>>,
    /// The client's own `pg_catalog`; a new one if none.
    pub system: Option<System>,
    /// Further table functions, by name.
    pub functions: Vec<(&'static str, Arc<dyn TableFunctionImpl>)>,
    /// Further functions of values.
    pub scalars: Vec<ScalarUDF>,
    /// Whose question it is, for the limits on one user; none for HQ's own.
    pub user: Option<String>,
    /// The zone in which times are read and shown, by name; UTC if none.
    pub time_zone: Option<String>,
    /// What `current_setting` answers, by name in lower case.
    pub settings: Arc<BTreeMap<String, String>>,
    /// The versions of tables that several questions share; this moment's if none.
    pub versions: Option<Versions>,
}

/// Versions of all tables: those of the moment of the first question that goes with them.
#[derive(Debug, Clone, Default)]
pub struct Versions(Arc<OnceLock<HashMap<String, Snapshot>>>);

impl Versions {
    /// The version of the table at `root`; none if there was no such table. `now` gives those of
    /// this moment.
    pub(crate) fn of(&self, root: &str, now: impl FnOnce() -> HashMap<String, Snapshot>) -> Option<Snapshot> {
        self.0.get_or_init(now).get(root).cloned()
    }
}

impl Default for Extras {
    fn default() -> Self {
        Self {
            tables: Vec::new(),
            site_ids: Arc::default(),
            lives: Arc::default(),
            cover: Arc::new(NoCover),
            only: None,
            system: None,
            functions: Vec::new(),
            scalars: Vec::new(),
            user: None,
            time_zone: None,
            settings: Arc::default(),
            versions: None,
        }
    }
}

impl std::fmt::Debug for Extras {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tables: Vec<_> = self.tables.iter().map(|(schema, name, _)| format!("{schema}.{name}")).collect();
        f.debug_struct("Extras").field("tables", &tables).field("cover", &self.cover).finish_non_exhaustive()
    }
}

/// Knows how complete each site is, and so what an answer is missing.
pub trait Cover: std::fmt::Debug + Send + Sync {
    /// All sites of the roster, in order; a table `public.sites` among the extras has one row for
    /// each, by `id`.
    fn sites(&self) -> Arc<Vec<SiteId>>;

    /// The column of a table that says when its rows happened, if it was declared.
    fn event_time(&self, table: &TableName) -> Option<String>;

    /// What an answer with this scope is missing.
    fn coverage(&self, scope: &Scope) -> Coverage;
}

/// For questions that concern no site.
#[derive(Debug, Clone, Copy)]
pub struct NoCover;

impl Cover for NoCover {
    fn sites(&self) -> Arc<Vec<SiteId>> {
        Arc::default()
    }

    fn event_time(&self, _: &TableName) -> Option<String> {
        None
    }

    fn coverage(&self, _: &Scope) -> Coverage {
        Coverage::default()
    }
}
