//! The port as a whole, and what every site is told of how it is to behave.

use std::{sync::Arc, time::Duration};

use chrono::Offset;
use rollcall_books::{Books, restate};
use rollcall_registry::{Registry, Relay, doors::Doors};
use rollcall_types::SiteId;
use rollcall_wire::proto::Settings;
use tokio::net::TcpListener;

use crate::{authority::Authority, ingest::Ingest, publications::Publications, sites_port};

/// What the port is made from.
pub struct GatewayParts {
    /// Which sites there are; takes what is heard of them.
    pub registry: Arc<Registry>,
    /// Takes what cannot go into the lake's tables.
    pub books: Arc<Books>,
    /// Says who HQ is, and who a site is.
    pub authority: Arc<Authority>,
    /// The way of rows into the lake.
    pub ingest: Arc<Ingest>,
    /// What HQ has for its sites.
    pub publications: Arc<dyn Publications>,
    /// Callers turned away of late.
    pub doors: Arc<Doors>,
    /// How many sites this process can hold; see [`crate::capacity::of_this_process`].
    pub capacity: usize,
    /// Addresses that sites should know besides the ones of the nodes.
    pub announce: Vec<String>,
    /// How often sites say where they stand, if no rule says otherwise.
    pub beacon_interval: Duration,
    /// How often a site counts what it captured.
    pub manifest_interval: Duration,
}

/// The port that sites connect to.
#[derive(Clone)]
pub struct Gateway(pub(crate) Arc<GatewayParts>);

impl Gateway {
    /// A port that nobody is heard on until [`Self::serve`].
    pub fn new(parts: GatewayParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Serves sites until the node stops. What it begins runs among the registry's tasks.
    pub async fn serve(self, listener: TcpListener) {
        sites_port::serve(self, listener).await;
    }
}

impl GatewayParts {
    /// Where a site may call besides the address it has: what the operator announces, and the
    /// nodes.
    fn site_addresses(&self) -> Vec<String> {
        let mut addresses = self.announce.clone();
        addresses.extend(self.registry.relay().map(Relay::addresses).unwrap_or_default());
        addresses
    }

    /// What a site is told of how it is to behave, with the node's own configuration where no rule
    /// says otherwise.
    pub(crate) fn settings_of(&self, site: &SiteId) -> Settings {
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let (lake, record) = (&self.registry.lake, self.registry.roster.get(site));
        let mut message = self.publications.settings_of(site);
        if let Some(record) = &record
            && let Some(told) = restate::told(lake, &lake.state().view(), site, record)
        {
            (message.state_again, message.state_again_tables) = told;
        }
        message.held = record.as_ref().and_then(|record| record.held()).unwrap_or_default();
        if message.beacon_interval_ms == 0 {
            message.beacon_interval_ms = millis(self.beacon_interval);
        }
        let announced: Vec<String> =
            self.site_addresses().into_iter().filter(|known| !message.hq_addresses.contains(known)).collect();
        message.hq_addresses.extend(announced);
        message.authorities = self.authority.fingerprints(self.registry.now());
        message.manifest_interval_ms = millis(self.manifest_interval);
        if !message.bandwidth.is_empty() {
            let zone = record.map(|record| record.zone()).unwrap_or_default();
            message.utc_offset_seconds =
                self.registry.now().to_chrono().with_timezone(&zone).offset().fix().local_minus_utc();
        }
        message
    }
}
