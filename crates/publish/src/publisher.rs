//! The part as a whole.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use rollcall_query::Engine;
use rollcall_registry::Registry;
use rollcall_types::TableName;

use crate::{settings::Settings, tables::PublishedTables};

/// What HQ gives sites: its tables, and how they are to behave.
pub struct Publisher {
    /// Which sites there are, and the lake.
    pub registry: Arc<Registry>,
    /// Works out rules, and reads what was published.
    pub engine: Arc<Engine>,
    /// The published tables as this node knows them.
    pub tables: PublishedTables,
    /// The rules for settings.
    pub settings: Settings,
    /// How often sites say where they stand, where no rule says otherwise.
    pub beacon_interval: Duration,
    /// How many sites were late with each table at the last look, for metrics.
    pub(crate) late: Mutex<BTreeMap<TableName, usize>>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Publisher {
    /// Knows nothing before the first [`crate::tables::refresh`].
    pub fn new(registry: Arc<Registry>, engine: Arc<Engine>, beacon_interval: Duration) -> Self {
        let (tables, settings) = (PublishedTables::default(), Settings::default());
        Self { registry, engine, tables, settings, beacon_interval, late: Mutex::default() }
    }
}
