//! Invitations: single-use tokens by which a store's database joins as a site.

use rollcall_lake::{RecordKind, StateView};
use rollcall_types::{SiteId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    chance::token_hash,
    error::HqError,
    roster::{SITE, SiteRecord},
};

/// The kind of the records of invitations.
pub const INVITATION: RecordKind<InvitationRecord> = RecordKind::new("invitation");

/// An invitation as it is kept: by the hash of its secret, without the token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvitationRecord {
    /// Whom it is for.
    pub site: SiteId,
    /// It is worthless after this.
    pub expires_at: Timestamp,
    /// When a site joined with it; none if none did.
    #[serde(default)]
    pub used_at: Option<Timestamp>,
    /// None if an earlier HQ made it: then the record says it.
    #[serde(default)]
    pub made_at: Option<Timestamp>,
    /// Who revoked it; none if nobody did.
    #[serde(default)]
    pub revoked_by: Option<String>,
}

/// A single-use invitation for one site.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Invitation {
    /// Whom it is for.
    pub site: SiteId,
    /// What `rollcall-site join` takes.
    pub token: String,
    /// It is worthless after this.
    pub expires_at: Timestamp,
    /// Where the site calls, as `HOST:PORT`; `HOST` itself if HQ does not know its own name.
    #[serde(default)]
    pub hq: Option<String>,
}

/// An invitation that may be used.
pub struct Usable {
    /// The invitation as it is kept.
    pub invitation: InvitationRecord,
    /// The site it is for.
    pub record: SiteRecord,
    /// It was used already, with the same key: the reply to that may have been lost.
    pub is_repeat: bool,
}

/// Whether an invitation may be used now, and if not, why.
pub fn usable(view: &StateView, secret: &str, key_hash: Option<&str>, now: Timestamp) -> Result<Usable, HqError> {
    let refuse = |why: &str| HqError::Invalid(format!("this invitation {why}; ask HQ for a new one"));
    let found = view.get(INVITATION, &token_hash(secret)).ok_or_else(|| refuse("is not known here"))?;
    let invitation: InvitationRecord = found.parse()?;
    let record = view.get(SITE, invitation.site.as_str()).ok_or_else(|| refuse("is for a site that is gone"))?;
    let record: SiteRecord = record.parse()?;
    if record.retired.is_some() {
        return Err(refuse("is for a site that was retired"));
    }
    // Whoever has the key has it for good: that is how a join is taken up that broke off after
    // this.
    let is_repeat = invitation.used_at.is_some() && key_hash.is_some() && record.key_hash.as_deref() == key_hash;
    if is_repeat {
        return Ok(Usable { invitation, record, is_repeat });
    }
    if invitation.used_at.is_some() {
        return Err(refuse("was used already"));
    }
    if invitation.revoked_by.is_some() {
        return Err(refuse("was revoked"));
    }
    if now > invitation.expires_at {
        return Err(refuse("has expired"));
    }
    // Whoever finds an old one must not take the place of the site that was enrolled since.
    let made_at = invitation.made_at.unwrap_or(found.at);
    if record.enrolled_at.is_some_and(|enrolled| enrolled >= made_at) {
        return Err(refuse("is older than the site's enrolment"));
    }
    if record.outdates(made_at) {
        return Err(refuse("is older than the site's place on the roster"));
    }
    Ok(Usable { invitation, record, is_repeat })
}
