//! Tells people: which channel hears of what, how it is sent, and what happens when it cannot be.
//!
//! Channels hold secrets, so they are kept in the vault, not in a table. A delivery is tried a
//! bounded number of times; a channel that fails is an incident itself, of which the others tell.

mod advice;
mod channel;
mod deliver;
mod news;
mod preview;
mod recipients;
mod regular;
mod render;
mod roll_call;
mod send;
mod template;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rollcall_lake::Vault;
use rollcall_registry::{HqError, KeptSecret};
use rollcall_types::Timestamp;

pub use channel::{Channel, How, Mail, MailTls, QuietHours};
pub use preview::Preview;
pub use recipients::Route;
pub use render::{Message, escape_html};
pub use template::Template;

const VAULT_NAME: &str = "channels";
const TIMEOUT: Duration = Duration::from_secs(10);

/// All channels, by name.
pub type Channels = BTreeMap<String, Channel>;

/// The channels of a node, and what it sends with.
#[derive(Debug)]
pub struct Notifiers {
    channels: KeptSecret<Channels>,
    agent: ureq::Agent,
}

impl Notifiers {
    /// The channels in the vault.
    pub(crate) async fn open(vault: Vault) -> Result<Self, HqError> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .build()
            .into();
        Ok(Self { channels: KeptSecret::open(vault, VAULT_NAME).await?, agent })
    }

    /// Takes over what other nodes changed.
    pub async fn reload(&self) -> Result<(), HqError> {
        self.channels.reload().await
    }

    /// All channels, as this node knows them.
    pub fn channels(&self) -> Arc<Channels> {
        self.channels.get()
    }

    /// All channels (an address of one is a secret as a rule), and when each was set.
    pub fn secrets(&self) -> BTreeMap<String, Option<Timestamp>> {
        let channels = self.channels();
        channels.iter().map(|(name, channel)| (name.clone(), channel.set_at)).collect()
    }

    /// Adds, replaces or (with none) removes a channel; whether it was there before.
    pub async fn set(&self, name: &str, channel: Option<Channel>, now: Timestamp) -> Result<bool, HqError> {
        let channel = channel.map(|channel| Channel { set_at: Some(now), ..channel });
        if let Some(channel) = &channel {
            channel.check()?;
        }
        self.channels
            .change(|channels| {
                let was_there = channels.remove(name).is_some();
                channels.extend(channel.clone().map(|channel| (name.to_owned(), channel)));
                Ok(was_there)
            })
            .await
    }
}
