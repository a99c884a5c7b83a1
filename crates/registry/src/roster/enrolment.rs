//! How sites join: invitations, and what becomes of them.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rollcall_lake::Record;
use rollcall_types::{SiteId, Timestamp};
use serde::Serialize;

use super::{LeftOut, Numbers, Roster, SITE, SiteRecord, check_calendar, check_name};
use crate::{
    chance::{random_bytes, token_hash},
    error::HqError,
    invitations::{INVITATION, Invitation, InvitationRecord, Usable, usable},
    roster_file::with_zone_by_place,
};

/// How long an invitation is good for unless told otherwise.
pub const INVITATION_LIFE_SECONDS: u64 = 7 * 86_400;

/// An invitation, as it is shown: without the token, of which nobody has a copy.
#[derive(Debug, Clone, Serialize)]
pub struct Invited {
    /// Names it to whoever revokes it.
    pub id: String,
    /// Whom it is for.
    pub site: SiteId,
    /// When it was made.
    pub made_at: Timestamp,
    /// Who wrote its record last: whoever made it or revoked it, or the site that used it.
    pub by: String,
    /// It is worthless after this.
    pub expires_at: Timestamp,
    /// When a site joined with it; none if none did.
    pub used_at: Option<Timestamp>,
    /// It lets nobody in any more, although it was not used.
    pub is_over: bool,
}

/// How much of an invitation's hash names it.
const INVITATION_ID_LENGTH: usize = 12;

/// What names an invitation: nobody can find the token by it.
fn invitation_id(hash: &str) -> String {
    hash.chars().filter(char::is_ascii_alphanumeric).take(INVITATION_ID_LENGTH).collect()
}

impl Roster {
    /// Makes an invitation; the site is added to the roster if it is not on it. `attributes` are
    /// set on it.
    pub async fn invite(
        &self,
        site: &SiteId,
        attributes: &BTreeMap<String, String>,
        fingerprint: &str,
        life_seconds: u64,
        by: &str,
        now: Timestamp,
    ) -> Result<Invitation, HqError> {
        check_name(site)?;
        check_calendar(&attributes.clone().into())?;
        let secret = URL_SAFE_NO_PAD.encode(random_bytes::<18>()?);
        let expires_at = now.plus_micros(i64::try_from(life_seconds).unwrap_or(i64::MAX / 2).saturating_mul(1_000_000));
        self.lake
            .state()
            .update(|view| {
                let mut numbers = Numbers::new(view)?;
                let known: Option<SiteRecord> =
                    view.get(SITE, site.as_str()).map(|record| record.parse()).transpose()?;
                let before = known.clone();
                let mut value = match known {
                    Some(value) if value.retired.is_some() => {
                        return Err(HqError::Invalid(format!(
                            "site {site} was retired: `rollcall roster reinstate {site}` takes it back; a new place needs a new id"
                        )));
                    }
                    Some(value) => value,
                    None => numbers.site(now),
                };
                let said = value.attributes.with(attributes);
                value.set_attributes(with_zone_by_place(&said).unwrap_or(said), now);
                let mut records: Vec<Record> = Vec::new();
                if before.as_ref() != Some(&value) {
                    records.push(view.next(SITE, site.as_str(), &value, now, by)?);
                }
                records.extend(numbers.record(view, now, by)?);
                let invitation = InvitationRecord {
                    site: site.clone(),
                    expires_at,
                    used_at: None,
                    // Another node may have listed it, by a clock that is a little ahead.
                    made_at: Some(value.listed_at.map_or(now, |listed| now.max(listed))),
                    revoked_by: None,
                };
                records.push(view.next(INVITATION, &token_hash(&secret), &invitation, now, by)?);
                Ok((records, ()))
            })
            .await?;
        Ok(Invitation { site: site.clone(), token: encode_token(site, &secret, fingerprint), expires_at, hq: None })
    }

    /// Whether an invitation may be used now, with this key if one is known; nothing is changed.
    pub fn check_invitation(&self, secret: &str, key_hash: Option<&str>, now: Timestamp) -> Result<Usable, HqError> {
        usable(&self.lake.state().view(), secret, key_hash, now)
    }

    /// Uses an invitation up: the site's key becomes the one it is known by.
    pub async fn enrol(
        &self,
        secret: &str,
        key_hash: &str,
        left_out: Vec<LeftOut>,
        now: Timestamp,
    ) -> Result<SiteId, HqError> {
        let id = token_hash(secret);
        self.lake
            .state()
            .update(|view| {
                let Usable { mut invitation, record: mut value, is_repeat } =
                    usable(view, secret, Some(key_hash), now)?;
                let site = invitation.site.clone();
                if is_repeat {
                    return Ok((Vec::new(), site));
                }
                invitation.used_at = Some(now);
                value.enrolled_at = Some(now);
                value.key_hash = Some(key_hash.to_owned());
                value.left_out = left_out.clone();
                let by = site.as_str();
                let records = vec![
                    view.next(INVITATION, &id, &invitation, now, by)?,
                    view.next(SITE, site.as_str(), &value, now, by)?,
                ];
                Ok((records, site))
            })
            .await
    }

    /// All invitations that were not used, and those used lately.
    pub fn invitations(&self, now: Timestamp) -> Vec<Invited> {
        let (view, roster) = (self.lake.state().view(), self.all());
        let invited = view.of_kind(INVITATION).filter_map(|record| {
            let invitation: InvitationRecord = record.parse().ok()?;
            let made_at = invitation.made_at.unwrap_or(record.at);
            let record_of_site = roster.get(&invitation.site);
            let is_superseded = record_of_site.is_some_and(|site| site.outdates(made_at));
            let is_over = invitation.expires_at < now || invitation.revoked_by.is_some() || is_superseded;
            Some(Invited {
                id: invitation_id(&record.id),
                site: invitation.site,
                made_at,
                by: record.by.to_string(),
                expires_at: invitation.expires_at,
                used_at: invitation.used_at,
                is_over: is_over && invitation.used_at.is_none(),
            })
        });
        let mut invited: Vec<Invited> = invited.collect();
        invited.sort_by(|left, right| (&left.site, left.made_at).cmp(&(&right.site, right.made_at)));
        invited
    }

    /// Revokes an invitation that was not used. Of which site it was.
    pub async fn revoke(&self, id: &str, by: &str, now: Timestamp) -> Result<SiteId, HqError> {
        let unknown =
            || HqError::NotFound(format!("no invitation is called {id}; `rollcall roster invitations` lists them"));
        self.lake
            .state()
            .update(|view| {
                let found =
                    view.of_kind(INVITATION).find(|record| invitation_id(&record.id) == id).ok_or_else(unknown)?;
                let mut invitation: InvitationRecord = found.parse()?;
                if invitation.used_at.is_some() {
                    let text =
                        format!("it was used: `rollcall roster retire {}` revokes the site's key", invitation.site);
                    return Err(HqError::Invalid(text));
                }
                invitation.revoked_by = Some(by.to_owned());
                let site = invitation.site.clone();
                Ok((vec![view.next(INVITATION, &found.id, &invitation, now, by)?], site))
            })
            .await
    }
}

/// `rc1.` and, in base64, who is invited, the secret, and the fingerprint of HQ's CA.
fn encode_token(site: &SiteId, secret: &str, fingerprint: &str) -> String {
    format!("rc1.{}", URL_SAFE_NO_PAD.encode(format!("{site} {secret} {fingerprint}")))
}
