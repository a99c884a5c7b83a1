//! Who is at the other end of a site's connection.

use rollcall_types::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};

/// Tells authorities apart: the beginning of the key identifier in certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct CaId(u64);

impl CaId {
    /// The authority with this key identifier.
    pub fn of(key_identifier: &[u8]) -> Self {
        Self(key_identifier.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)))
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The site its certificate names.
    pub site: SiteId,
    /// The digest of the key the certificate is for.
    pub key_hash: String,
    /// When the certificate ends.
    pub not_after: Timestamp,
    /// Who signed its certificate.
    pub authority: CaId,
}
