//! What is secret, how old it is, and replacing it.

use std::{path::Path, time::Duration};

use rollcall_types::{SiteId, Timestamp};
use serde::Serialize;

use rollcall_alert::Notifiers;
use rollcall_gateway::Authority;
use rollcall_registry::{CaId, Ledger, Sites};

use crate::{access::Credentials, node_key::node_key_at};

/// Keys and tokens that HQ made are to be replaced after so long.
const KEY_AGE: Duration = Duration::from_secs(2 * 365 * 86_400);
/// The authority too; that takes the sites' part in it.
const AUTHORITY_AGE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Sites that are named at most.
const NAMED_MAX: usize = 100;

/// A secret, as shown: without a trace of itself.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SecretView {
    pub what: String,
    /// None if it was not noted.
    pub made_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    /// What a person should do about it.
    pub advice: Option<String>,
}

/// How far the sites have come in a rotation of the authority.
#[derive(Debug, Serialize)]
pub(crate) struct RotationView {
    pub since: Timestamp,
    /// Sites that came with a certificate of the next authority.
    pub moved: usize,
    /// Sites that did not; if the rotation ends without them, each must be invited anew.
    pub waiting: usize,
    /// The first of them.
    pub waiting_sites: Vec<SiteId>,
}

/// What [`SecretView`]s are made of.
pub(crate) struct Secrets<'a> {
    pub authority: &'a Authority,
    pub credentials: &'a Credentials,
    pub notifiers: &'a Notifiers,
    pub ledger: &'a Ledger,
    /// This node's data directory.
    pub directory: &'a Path,
}

impl Secrets<'_> {
    /// Every secret that HQ keeps, the ones of most weight first.
    pub(crate) fn all(&self, now: Timestamp) -> Vec<SecretView> {
        let key_at = node_key_at(self.directory);
        let token_at = self.credentials.operator_token_at().max(key_at);
        let authority_at = Some(self.authority.made_at());
        let mut all = vec![
            of_hq("node.key", key_at, KEY_AGE, "rollcall secrets rotate node-key", now),
            of_hq("certificate authority", authority_at, AUTHORITY_AGE, "rollcall secrets rotate ca", now),
            of_hq("operator.token", token_at, KEY_AGE, "rollcall secrets rotate operator-token", now),
        ];
        for (name, user) in self.credentials.users() {
            let advice = user.has_first_password.then(|| {
                format!("it is the one of the first start: set another (`rollcall users set {name} --role admin --password-stdin`)")
            });
            let what = format!("password of {name}");
            all.push(SecretView { what, made_at: user.password_set_at, expires_at: None, advice });
            for (token, known) in self.credentials.tokens(&name) {
                let advice = (known.expires_at <= now).then(|| "it has expired".to_owned());
                all.push(SecretView {
                    what: format!("token {token} of {name}"),
                    made_at: Some(known.made_at),
                    expires_at: Some(known.expires_at),
                    advice,
                });
            }
        }
        all.extend(self.notifiers.secrets().into_iter().map(|(channel, made_at)| SecretView {
            advice: made_at.is_some_and(|made_at| now.since(made_at) > KEY_AGE).then(|| {
                format!("it is old: make another where it is from, and set it (`rollcall channels set {channel} …`)")
            }),
            what: format!("secret of channel {channel}"),
            made_at,
            expires_at: None,
        }));
        all
    }

    /// How the rotation of the authority stands; none if there is none.
    pub(crate) fn rotation(&self, roster: &Sites) -> Option<RotationView> {
        let rotation = self.authority.rotation()?;
        let mut waiting = self.waiting(roster, rotation.next);
        let enrolled = roster.values().filter(|record| record.key_hash.is_some()).count();
        let count = waiting.len();
        waiting.truncate(NAMED_MAX);
        let (moved, since) = (enrolled - count, rotation.since);
        Some(RotationView { since, moved, waiting: count, waiting_sites: waiting })
    }

    /// Enrolled sites that did not come with a certificate of `next`.
    fn waiting(&self, roster: &Sites, next: CaId) -> Vec<SiteId> {
        let known = self.ledger.authorities();
        let enrolled = roster.iter().filter(|(_, record)| record.key_hash.is_some());
        enrolled.filter(|(site, _)| known.get(*site) != Some(&next)).map(|(site, _)| site.clone()).collect()
    }
}

/// A secret that HQ made itself.
fn of_hq(what: &str, made_at: Option<Timestamp>, age: Duration, command: &str, now: Timestamp) -> SecretView {
    let is_old = made_at.is_some_and(|made_at| now.since(made_at) > age);
    let advice = is_old.then(|| format!("it is old: `{command}` replaces it"));
    SecretView { what: what.to_owned(), made_at, expires_at: None, advice }
}
