//! What the gateway asks of the publisher.

use std::sync::Arc;

use rollcall_gateway::Publications;
use rollcall_publish::{Publisher, tables};
use rollcall_registry::{HqError, sessions::Session};
use rollcall_types::SiteId;
use rollcall_wire::proto::{FetchReply, FetchRequest, Settings, WantedTable};
use tokio::sync::watch;

/// The publisher, as sites see it.
pub(crate) struct ForSites(pub(crate) Arc<Publisher>);

#[async_trait::async_trait]
impl Publications for ForSites {
    fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.tables.subscribe()
    }

    async fn refresh(&self) {
        tables::refresh(&self.0).await;
    }

    fn is_ahead(&self, site: &SiteId) -> bool {
        tables::is_ahead(&self.0, site)
    }

    fn wanted(&self, session: &Session) -> Vec<WantedTable> {
        tables::wanted(&self.0, session)
    }

    fn fetch(&self, site: &SiteId, request: &FetchRequest) -> Result<Arc<Vec<FetchReply>>, HqError> {
        self.0.fetch(site, request)
    }

    fn settings_of(&self, site: &SiteId) -> Settings {
        self.0.settings_of(site)
    }
}
