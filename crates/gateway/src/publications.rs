//! What the port needs of the tables that HQ publishes, and of what people say of sites' settings.

use std::sync::Arc;

use rollcall_registry::{HqError, sessions::Session};
use rollcall_types::SiteId;
use rollcall_wire::proto::{FetchReply, FetchRequest, Settings, WantedTable};
use tokio::sync::watch;

/// What HQ has for its sites. The port tells it to them and sends it; another part works it out.
#[async_trait::async_trait]
pub trait Publications: Send + Sync {
    /// Changes when what sites should have, or how they are to behave, may be something else: then
    /// every site that is connected is told anew what is new for it.
    fn subscribe(&self) -> watch::Receiver<u64>;

    /// Takes over what was published and said since, here or at another node, as far as the lake's
    /// state was followed. [`Self::subscribe`] tells if that is anything.
    async fn refresh(&self);

    /// Whether a site has a version of a table that this node does not know yet, by what the site
    /// said last: it took it at another node.
    fn is_ahead(&self, site: &SiteId) -> bool;

    /// What the site of a session should have now of the published tables, in a fixed order; a
    /// table that no row could be for is left out, unless the site has it and must lose its rows.
    fn wanted(&self, session: &Session) -> Vec<WantedTable>;

    /// Everything a site is sent for its request, in order; sites that are alike may share it. It
    /// may take long, and is called on a thread for that. [`HqError::NotFound`] if HQ does not
    /// publish the table.
    fn fetch(&self, site: &SiteId, request: &FetchRequest) -> Result<Arc<Vec<FetchReply>>, HqError>;

    /// What people's rules say of how a site is to behave, and the digest of that; nothing where no
    /// rule speaks of it. The port adds what the node itself says: addresses, authorities,
    /// intervals that no rule names, the site's offset from UTC, and what it is to state again.
    fn settings_of(&self, site: &SiteId) -> Settings;
}
