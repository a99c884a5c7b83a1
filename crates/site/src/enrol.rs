//! Requests for a certificate, and renewing it before it expires, or after. Joining is in
//! [`mod@crate::join`].

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};
use rollcall_capture::clock_micros;
use rollcall_wire::{
    Refusal,
    proto::{RenewRequest, enrolment_client::EnrolmentClient},
};

use crate::{
    dial::{Trust, dial_with},
    error::SiteError,
    state::{Identity, StateDirectory},
    token::Token,
};

/// The key, until it is in the identity.
pub(crate) const KEY: &str = "key.pem";
/// A connection to the HQ that an invitation is from, and the invitation's secret.
#[derive(Debug)]
pub struct Invited {
    /// Only enrolment works on it.
    pub channel: tonic::transport::Channel,
    /// What enrolment takes.
    pub secret: String,
}

/// Connects to the HQ that an invitation is from, believing only the authority named in it.
pub async fn dial_invited(address: &str, token: &str) -> Result<Invited, SiteError> {
    let token = Token::parse(token)?;
    let dialed = dial_with(address, &Trust::Fingerprint(token.fingerprint)).await.map_err(|failed| failed.error)?;
    Ok(Invited { channel: dialed.channel, secret: token.secret })
}

/// A key kept from an enrolment whose reply was lost, or a new one: HQ takes the same key again.
pub(crate) fn new_key(directory: &StateDirectory) -> Result<KeyPair, SiteError> {
    let failed = |error: rcgen::Error| SiteError::state("making a key", error);
    let path = directory.file(KEY);
    if let Ok(text) = std::fs::read_to_string(&path)
        && let Ok(key) = KeyPair::from_pem(&text)
    {
        return Ok(key);
    }
    let key = KeyPair::generate().map_err(failed)?;
    directory.write(KEY, key.serialize_pem().as_bytes())?;
    Ok(key)
}

/// A request for a certificate, which proves the key.
pub(crate) fn request(key: &KeyPair) -> Result<String, SiteError> {
    let made = CertificateParams::new(Vec::<String>::new())
        .and_then(|parameters| parameters.serialize_request(key))
        .and_then(|request| request.pem());
    made.map_err(|error| SiteError::state("making a certificate request", error))
}

pub(crate) fn refused(address: &str, status: &tonic::Status) -> SiteError {
    match status.code() {
        tonic::Code::PermissionDenied | tonic::Code::InvalidArgument | tonic::Code::Unauthenticated => {
            SiteError::Refused { code: Refusal::Denied.code().to_owned(), message: status.message().to_owned() }
        }
        _ => SiteError::Unreachable { address: address.to_owned(), reason: status.message().to_owned() },
    }
}

/// Gets a new certificate for the same key. Works after the old one expired.
pub(crate) async fn renew(
    directory: &StateDirectory,
    identity: &Identity,
    hq_clock_offset: i64,
) -> Result<Identity, SiteError> {
    let key = KeyPair::from_pem(&identity.key_pem).map_err(|error| SiteError::state("reading the key", error))?;
    let csr_pem = request(&key)?;
    // No certificate is shown: an expired one would break the handshake, and the request proves the
    // key.
    let trust = Trust::Authority { ca_pem: identity.ca_pem.clone(), identity: None };
    let mut last = SiteError::Usage("no address of HQ is known".to_owned());
    for address in &identity.hq_addresses {
        let dialed = match dial_with(address, &trust).await {
            Ok(dialed) => dialed,
            Err(failed) => {
                last = failed.error;
                continue;
            }
        };
        let request = RenewRequest { site: identity.site.clone(), csr_pem: csr_pem.clone() };
        let mut client = EnrolmentClient::new(dialed.channel);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.renew(request)).await;
        let answer = answer.map_err(|_| SiteError::Ended("HQ did not answer in time".to_owned()))?;
        let answer = answer.map_err(|status| refused(address, &status))?.into_inner();
        let renewed = Identity {
            certificate_pem: answer.certificate_pem,
            ca_pem: answer.ca_pem,
            issued_micros: clock_micros().saturating_add(hq_clock_offset),
            not_after_micros: answer.not_after_micros,
            ..identity.clone()
        };
        directory.write_identity(&renewed)?;
        return Ok(renewed);
    }
    Err(last)
}

/// HQ must answer a renewal within this time.
const ANSWER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

/// Whether two thirds of the certificate's life are over.
pub(crate) fn is_renewal_due(identity: &Identity, now_micros: i64) -> bool {
    let life = identity.not_after_micros - identity.issued_micros;
    now_micros >= identity.issued_micros + life / 3 * 2
}

/// The database a command works on, from `--db`: the path as it is, from the root on. A link in it
/// is followed at each use.
pub(crate) fn database(path: &Path) -> Result<PathBuf, SiteError> {
    let failed = |error| SiteError::state(format!("opening {}", path.display()), error);
    std::path::absolute(path).map_err(failed)
}
