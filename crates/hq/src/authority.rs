//! HQ's own certificate authority: it says who HQ is to sites, and who a site is to HQ.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use rollcall_lake::Vault;
use rollcall_types::{SiteId, Timestamp};
use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::danger::ClientCertVerifier,
};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::HqError;

/// The name sites expect in HQ's certificate, whatever address they reach it by.
const HQ_NAME: &str = "hq.rollcall";
const CA_LIFE: Duration = Duration::from_secs(30 * 365 * 86_400);
const SERVER_LIFE: Duration = Duration::from_secs(397 * 86_400);
const VAULT_NAME: &str = "ca";

/// Signs certificates.
pub(crate) struct Authority {
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    site_life: Duration,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    ca_pem: String,
    key_pem: String,
}

/// A certificate for a site.
pub(crate) struct SiteCertificate {
    pub(crate) pem: String,
    pub(crate) not_after: Timestamp,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) site: SiteId,
    pub(crate) key_hash: String,
    pub(crate) not_after: Timestamp,
}

impl Authority {
    /// Opens the CA of this lake, or makes it. Site certificates live for `site_life`.
    pub(crate) async fn open(vault: &Vault, site_life: Duration) -> Result<Self, HqError> {
        let stored = match vault.get(VAULT_NAME).await? {
            Some(stored) => stored,
            None => {
                let new = serde_json::to_vec(&create()?).map_err(|error| HqError::Certificate(error.to_string()))?;
                vault.put_if_absent(VAULT_NAME, &new).await?
            }
        };
        let stored: Stored =
            serde_json::from_slice(&stored).map_err(|error| HqError::Certificate(error.to_string()))?;
        let issuer = Issuer::from_ca_cert_pem(&stored.ca_pem, KeyPair::from_pem(&stored.key_pem)?)?;
        Ok(Self { ca_pem: stored.ca_pem, issuer, site_life })
    }

    /// The CA's certificate.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// SHA-256 of the CA's certificate, hex: what an invitation pins.
    pub(crate) fn fingerprint(&self) -> Result<String, HqError> {
        Ok(hex(digest(&SHA256, &self.ca_certificate()?).as_ref()))
    }

    /// The CA's certificate, for TLS.
    pub(crate) fn ca_certificate(&self) -> Result<CertificateDer<'static>, HqError> {
        CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).map_err(|error| HqError::Certificate(error.to_string()))
    }

    /// TLS of a port of this node that speaks `protocol`, with a certificate of our CA; `clients` says which ones are wanted of
    /// callers.
    pub(crate) fn server_tls(
        &self,
        clients: Arc<dyn ClientCertVerifier>,
        protocol: &[u8],
    ) -> Result<ServerConfig, HqError> {
        let (chain, key) = self.server_identity()?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_client_cert_verifier(clients).with_single_cert(chain, key))
            .map_err(|error| HqError::Certificate(error.to_string()))?;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }

    /// A certificate chain and key for this node.
    fn server_identity(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), HqError> {
        let key = KeyPair::generate()?;
        let mut parameters = parameters("Rollcall HQ", vec![HQ_NAME.to_owned(), "localhost".to_owned()], SERVER_LIFE)?;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Ok((vec![certificate.der().clone(), self.ca_certificate()?], key))
    }

    /// Signs a site's request. The request proves that the sender holds the key; everything else it asks for is ignored.
    pub(crate) fn sign_site(&self, site: &SiteId, csr_pem: &str) -> Result<SiteCertificate, HqError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        let mut parameters = parameters(site.as_str(), Vec::new(), self.site_life)?;
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let not_after = Timestamp::from_seconds(parameters.not_after.unix_timestamp());
        let pem = parameters.signed_by(&request.public_key, &self.issuer)?.pem();
        Ok(SiteCertificate { pem, not_after })
    }

    /// The hash of the key that signed a request; the signature is checked.
    pub(crate) fn request_key_hash(csr_pem: &str) -> Result<String, HqError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        Ok(hex(digest(&SHA256, &request.public_key.subject_public_key_info()).as_ref()))
    }
}

/// Reads who a certificate, already verified against our CA by TLS, was issued to.
pub(crate) fn peer_of(der: &[u8]) -> Option<Peer> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(Peer {
        site: SiteId::new(name).ok()?,
        key_hash: hex(digest(&SHA256, certificate.public_key().raw).as_ref()),
        not_after: Timestamp::from_seconds(certificate.validity().not_after.timestamp()),
    })
}

fn create() -> Result<Stored, HqError> {
    let key = KeyPair::generate()?;
    let mut parameters = parameters("Rollcall CA", Vec::new(), CA_LIFE)?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(Stored { ca_pem: parameters.self_signed(&key)?.pem(), key_pem: key.serialize_pem() })
}

fn parameters(name: &str, alternatives: Vec<String>, life: Duration) -> Result<CertificateParams, HqError> {
    let mut parameters = CertificateParams::new(alternatives)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    // Sites' clocks may be behind.
    let now = SystemTime::now();
    parameters.not_before = (now - Duration::from_secs(86_400)).into();
    parameters.not_after = (now + life).into();
    parameters.serial_number = Some(SerialNumber::from_slice(&random_bytes::<16>()?));
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

/// Random bytes from the system.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], HqError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| HqError::Certificate("no randomness from the system".to_owned()))?;
    Ok(bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
