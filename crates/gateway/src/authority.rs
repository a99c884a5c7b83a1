//! HQ's own certificate authority: it says who HQ is to sites, and who a site is to HQ.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use ring::digest::{SHA256, digest};
use rollcall_lake::Vault;
use rollcall_registry::{CaId, HqError, KeptSecret, Peer, random_bytes};
use rollcall_runtime::Instant;
use rollcall_types::{SiteId, Timestamp};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

/// The name sites expect in HQ's certificate, whatever address they reach it by.
const HQ_NAME: &str = "hq.rollcall";
const CA_LIFE: Duration = Duration::from_secs(30 * 365 * 86_400);
const SERVER_LIFE: Duration = Duration::from_secs(397 * 86_400);
const VAULT_NAME: &str = "ca";
/// Certificates are valid from so long before they were made: sites' clocks may be behind.
const BEFORE: Duration = Duration::from_secs(86_400);

/// Who signs certificates, and which ones are believed in: one authority, or while it is being
/// replaced two.
///
/// A rotation has two steps. At its begin the next authority signs the certificates of sites, and
/// these are told to believe in both; HQ itself still shows a certificate of the one before. Once
/// every site came with a certificate of the next one, a person ends the rotation: then only that
/// one is believed in, at both ends.
pub struct Authority {
    stored: KeptSecret<Stored>,
    ready: RwLock<Arc<Ready>>,
    site_life: Duration,
    /// After this time every node believes in the next authority.
    settles_after: Duration,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    now: CaKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<NextCa>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct CaKey {
    ca_pem: String,
    key_pem: String,
}

impl std::fmt::Debug for CaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CaKey(secret)")
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct NextCa {
    #[serde(flatten)]
    key: CaKey,
    since: Timestamp,
}

/// What is made of what is stored.
struct Ready {
    stored: Arc<Stored>,
    made: Instant,
    now: Ca,
    next: Option<(Ca, Timestamp)>,
    sites_tls: Arc<ServerConfig>,
    pg_tls: Arc<ServerConfig>,
}

/// An authority that can sign.
struct Ca {
    pem: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    fingerprint: String,
    id: CaId,
    made_at: Timestamp,
}

/// How a rotation stands.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// Since when there is a next authority.
    pub since: Timestamp,
    /// The next one.
    pub next: CaId,
}

/// A certificate for a site.
pub(crate) struct SiteCertificate {
    pub(crate) pem: String,
    /// The authorities that the site is to believe in.
    pub(crate) ca_pem: String,
    pub(crate) not_after: Timestamp,
}

impl Authority {
    /// Opens the authority of this lake, or makes it. Site certificates live for `site_life`; every
    /// node that shares the lake knows what another changed after `settles_after`.
    pub async fn open(vault: Vault, site_life: Duration, settles_after: Duration) -> Result<Self, HqError> {
        let stored = KeptSecret::<Stored>::open(vault, VAULT_NAME).await?;
        if stored.get().now.ca_pem.is_empty() {
            let made = create()?;
            let make = |stored: &mut Stored| {
                if stored.now.ca_pem.is_empty() {
                    stored.now = made.clone();
                }
                Ok(())
            };
            stored.change(make).await?;
        }
        let ready = RwLock::new(Arc::new(Ready::new(stored.get())?));
        Ok(Self { stored, ready, site_life, settles_after })
    }

    /// Takes over what another node changed, and makes this node's own certificate anew long before
    /// it expires.
    pub async fn reload(&self) -> Result<(), HqError> {
        self.stored.reload().await?;
        self.make_ready()
    }

    fn ready(&self) -> Arc<Ready> {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn make_ready(&self) -> Result<(), HqError> {
        let (ready, stored) = (self.ready(), self.stored.get());
        if !Arc::ptr_eq(&ready.stored, &stored) || ready.made.elapsed() > SERVER_LIFE / 2 {
            let made = Arc::new(Ready::new(stored)?);
            *self.ready.write().unwrap_or_else(PoisonError::into_inner) = made;
        }
        Ok(())
    }

    /// Begins to replace the authority. False if that is under way.
    pub async fn begin_rotation(&self, now: Timestamp) -> Result<bool, HqError> {
        let next = NextCa { key: create()?, since: now };
        let begin = |stored: &mut Stored| {
            let is_first = stored.next.is_none();
            stored.next.get_or_insert_with(|| next.clone());
            Ok(is_first)
        };
        let begun = self.stored.change(begin).await?;
        self.make_ready()?;
        Ok(begun)
    }

    /// Ends it: the authority before is believed in no more. False if none is under way.
    pub async fn end_rotation(&self) -> Result<bool, HqError> {
        let end = |stored: &mut Stored| {
            let next = stored.next.take();
            let was_under_way = next.is_some();
            stored.now = next.map_or_else(|| stored.now.clone(), |next| next.key);
            Ok(was_under_way)
        };
        let ended = self.stored.change(end).await?;
        self.make_ready()?;
        Ok(ended)
    }

    /// The rotation that is under way.
    pub fn rotation(&self) -> Option<Rotation> {
        self.ready().next.as_ref().map(|(ca, since)| Rotation { since: *since, next: ca.id })
    }

    /// Whose certificate a site came with, if it says that it believes in that one too: an agent of
    /// an earlier version takes a certificate of another authority and goes on to believe in the
    /// one before.
    pub(crate) fn shown(&self, signed_by: CaId, believed: &[String]) -> CaId {
        let ready = self.ready();
        let known = ready.next.iter().map(|(ca, _)| ca).chain([&ready.now]).find(|ca| ca.id == signed_by);
        known.filter(|ca| believed.contains(&ca.fingerprint)).map_or_else(CaId::default, |ca| ca.id)
    }

    /// When the authority was made.
    pub fn made_at(&self) -> Timestamp {
        self.ready().now.made_at
    }

    /// SHA-256 of the certificate of the authority that HQ shows, hex: what an invitation pins.
    pub fn fingerprint(&self) -> String {
        self.ready().now.fingerprint.clone()
    }

    /// The same of every authority that a site is to believe in.
    pub fn fingerprints(&self, now: Timestamp) -> Vec<String> {
        let ready = self.ready();
        let next = self.settled(&ready, now);
        next.into_iter().chain([&ready.now]).map(|ca| ca.fingerprint.clone()).collect()
    }

    /// TLS of the sites' port.
    pub(crate) fn sites_tls(&self) -> Arc<ServerConfig> {
        self.ready().sites_tls.clone()
    }

    /// TLS of the PostgreSQL port.
    pub fn pg_tls(&self) -> Arc<ServerConfig> {
        self.ready().pg_tls.clone()
    }

    /// The next authority, once every node believes in it.
    fn settled<'a>(&self, ready: &'a Ready, now: Timestamp) -> Option<&'a Ca> {
        let (ca, since) = ready.next.as_ref()?;
        (now.since(*since) >= self.settles_after).then_some(ca)
    }

    /// Signs a site's request. The request proves that the sender holds the key; everything else it
    /// asks for is ignored.
    pub(crate) fn sign_site(&self, site: &SiteId, csr_pem: &str, now: Timestamp) -> Result<SiteCertificate, HqError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(HqError::certificate)?;
        let mut parameters = parameters(site.as_str(), Vec::new(), self.site_life)?;
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let not_after = Timestamp::from_seconds(parameters.not_after.unix_timestamp());
        let ready = self.ready();
        let next = self.settled(&ready, now);
        let signed = parameters.signed_by(&request.public_key, &next.unwrap_or(&ready.now).issuer);
        let pem = signed.map_err(HqError::certificate)?.pem();
        let ca_pem = next.into_iter().chain([&ready.now]).map(|ca| ca.pem.as_str()).collect();
        Ok(SiteCertificate { pem, ca_pem, not_after })
    }

    /// The hash of the key that signed a request; the signature is checked.
    pub(crate) fn request_key_hash(csr_pem: &str) -> Result<String, HqError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(HqError::certificate)?;
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
        authority: certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(key) => key.key_identifier.as_ref().map(|id| CaId::of(id.0)),
            _ => None,
        })?,
    })
}

impl Ca {
    fn new(stored: &CaKey) -> Result<Self, HqError> {
        let key = KeyPair::from_pem(&stored.key_pem).map_err(HqError::certificate)?;
        let issuer = Issuer::from_ca_cert_pem(&stored.ca_pem, key).map_err(HqError::certificate)?;
        let certificate = CertificateDer::from_pem_slice(stored.ca_pem.as_bytes()).map_err(HqError::certificate)?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(HqError::certificate)?;
        let id = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(CaId::of(id.0)),
            _ => None,
        });
        Ok(Self {
            id: id.ok_or_else(|| HqError::certificate("the authority's certificate has no key identifier"))?,
            made_at: Timestamp::from_seconds(parsed.validity().not_before.timestamp() + BEFORE.as_secs() as i64),
            fingerprint: hex(digest(&SHA256, &certificate).as_ref()),
            pem: stored.ca_pem.clone(),
            certificate: certificate.clone(),
            issuer,
        })
    }

    /// A new certificate chain and key for this node.
    fn server_identity(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), HqError> {
        let key = KeyPair::generate().map_err(HqError::certificate)?;
        let mut parameters = parameters("Rollcall HQ", vec![HQ_NAME.to_owned(), "localhost".to_owned()], SERVER_LIFE)?;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(HqError::certificate)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Ok((vec![certificate.der().clone(), self.certificate.clone()], key))
    }
}

impl Ready {
    fn new(stored: Arc<Stored>) -> Result<Self, HqError> {
        let now = Ca::new(&stored.now)?;
        let next = stored.next.as_ref().map(|next| Ok::<_, HqError>((Ca::new(&next.key)?, next.since))).transpose()?;
        let mut roots = RootCertStore::empty();
        for ca in next.iter().map(|(ca, _)| ca).chain([&now]) {
            roots.add(ca.certificate.clone()).map_err(HqError::certificate)?;
        }
        let provider = Arc::new(default_provider());
        // Enrolment and renewal carry their own proof; every other call needs a certificate.
        let sites = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let sites = sites.allow_unauthenticated().build().map_err(HqError::certificate)?;
        let identity = now.server_identity()?;
        let tls = |clients: Arc<dyn ClientCertVerifier>, protocol: &[u8]| {
            let (chain, key) = (identity.0.clone(), identity.1.clone_key());
            let mut config = ServerConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .and_then(|builder| builder.with_client_cert_verifier(clients).with_single_cert(chain, key))
                .map_err(HqError::certificate)?;
            config.alpn_protocols = vec![protocol.to_vec()];
            // A ticket would have to be kept for each site, and a resumed session saves little of
            // what a connection costs.
            config.send_tls13_tickets = 0;
            Ok::<_, HqError>(Arc::new(config))
        };
        let (sites_tls, pg_tls) = (tls(sites, b"h2")?, tls(WebPkiClientVerifier::no_client_auth(), b"postgresql")?);
        Ok(Self { made: Instant::now(), now, next, sites_tls, pg_tls, stored })
    }
}

fn create() -> Result<CaKey, HqError> {
    let key = KeyPair::generate().map_err(HqError::certificate)?;
    let mut parameters = parameters("Rollcall CA", Vec::new(), CA_LIFE)?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(CaKey {
        ca_pem: parameters.self_signed(&key).map_err(HqError::certificate)?.pem(),
        key_pem: key.serialize_pem(),
    })
}

fn parameters(name: &str, alternatives: Vec<String>, life: Duration) -> Result<CertificateParams, HqError> {
    let mut parameters = CertificateParams::new(alternatives).map_err(HqError::certificate)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    let now: SystemTime = rollcall_runtime::now().to_chrono().into();
    parameters.not_before = (now - BEFORE).into();
    parameters.not_after = (now + life).into();
    parameters.serial_number = Some(SerialNumber::from_slice(&random_bytes::<16>()?));
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
