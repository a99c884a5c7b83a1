//! The part as a whole.

use std::sync::Arc;

use rollcall_books::Books;
use rollcall_lake::Vault;
use rollcall_registry::{HqError, Leader, Registry, RollEntry};
use rollcall_roll::Incident;

use crate::{
    metrics::AlertMetrics,
    notify::Notifiers,
    store::{INCIDENT, known_rhythms, stored_incidents, stored_tuning},
    watching::{WatchSettings, Watching},
};

/// The watch of a node, and those whom it tells.
#[derive(Debug)]
pub struct Alerts {
    /// Who exists, where each stands, and who acts.
    pub registry: Arc<Registry>,
    /// What is known of sites' rows; people account for some of it when they explain an incident.
    pub books: Arc<Books>,
    /// The watch, which turns what was heard into incidents.
    pub watching: Watching,
    /// The channels over which people are told.
    pub notifiers: Notifiers,
    pub(crate) hq: HqName,
    pub(crate) metrics: AlertMetrics,
}

/// What HQ is called, and where people reach it; messages say so.
#[derive(Debug, Clone, Default)]
pub struct HqName {
    /// The name that people gave it, if they did.
    pub name: Option<String>,
    /// The address of its pages, if that was said.
    pub public_url: Option<String>,
}

/// What alerts are made from.
#[derive(Debug)]
pub struct AlertParts {
    /// Who exists, where each stands, and who acts.
    pub registry: Arc<Registry>,
    /// What is known of sites' rows.
    pub books: Arc<Books>,
    /// The secrets of the lake: channels are among them.
    pub vault: Vault,
    /// What HQ is called.
    pub hq: HqName,
    /// When silence counts.
    pub settings: WatchSettings,
}

impl Alerts {
    /// A watch and channels that take up what is in the lake.
    pub async fn open(parts: AlertParts) -> Result<Self, HqError> {
        let AlertParts { registry, books, vault, hq, settings } = parts;
        let rhythms = known_rhythms(&registry.lake).await;
        let watching = Watching::new(&registry, &rhythms, &settings);
        let notifiers = Notifiers::open(vault).await?;
        Ok(Self { registry, books, watching, notifiers, hq, metrics: AlertMetrics::default() })
    }

    /// Calls the roll: what the watch says of each site, and whether its data keeps up.
    pub fn roll(&self) -> Vec<RollEntry> {
        // The watch is locked before the ledger, here as everywhere.
        let watch = self.watching.watch();
        self.registry.roll(|site| watch.verdict(site))
    }

    /// All incidents known: those of the watch that acts, which is this node's or, by the lake,
    /// another's.
    pub fn incidents(&self) -> Vec<Incident> {
        if self.registry.is_acting() {
            return self.watching.watch().incidents().cloned().collect();
        }
        let mut incidents = stored_incidents(&self.registry.lake.state().view());
        incidents.sort_by_key(|incident| incident.id);
        incidents
    }

    /// One of [`Self::incidents`].
    pub fn incident(&self, id: u64) -> Option<Incident> {
        if self.registry.is_acting() {
            return self.watching.watch().incident(id).cloned();
        }
        self.registry.lake.state().view().get(INCIDENT, &id.to_string())?.parse().ok()
    }

    /// What the registry is to call when this node begins to act.
    pub fn leader(self: &Arc<Self>) -> Arc<dyn Leader> {
        Arc::new(AlertsLeader(self.clone()))
    }
}

struct AlertsLeader(Arc<Alerts>);

impl Leader for AlertsLeader {
    /// What the node before stored is what people know.
    fn prepare(&self) {
        let view = self.0.registry.lake.state().view();
        let mut watch = self.0.watching.watch();
        watch.adopt_incidents(stored_incidents(&view));
        watch.restore_tuning(stored_tuning(&view));
    }

    fn lead(&self) {
        self.0.notify_of_what_was_missed();
    }
}
