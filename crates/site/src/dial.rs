//! Connecting to HQ: every attempt resolves the name anew, and only HQ's own certificate authority
//! is believed.

use rollcall_types::describe;
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use ring::digest::{SHA256, digest};
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::net::{TcpStream, lookup_host};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Uri};

use crate::{address::with_port, error::SiteError};

/// HQ's certificate is made out to this name, whatever address leads there.
const HQ_NAME: &str = "hq.rollcall";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const TCP_TIMEOUT: Duration = Duration::from_secs(5);

/// How HQ proves itself.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// By a chain to the CA of enrolment; the site shows its own certificate if it has one.
    Authority { ca_pem: String, identity: Option<(String, String)> },
    /// By a CA of this fingerprint (SHA-256, hex), before enrolment.
    Fingerprint(String),
}

/// A connection, and what the name resolved to.
#[derive(Debug)]
pub struct Dialed {
    /// The connection.
    pub channel: Channel,
    /// The socket address reached.
    pub resolved: Option<SocketAddr>,
}

/// Why a dial failed, and what the name resolved to meanwhile.
#[derive(Debug)]
pub(crate) struct DialFailed {
    pub(crate) error: SiteError,
    pub(crate) resolved: String,
}

/// Connects to HQ at `address` (`host:port`) with an enrolled identity.
pub async fn dial(address: &str, identity: &crate::Identity) -> Result<Dialed, SiteError> {
    let own = (identity.certificate_pem.clone(), identity.key_pem.clone());
    let trust = Trust::Authority { ca_pem: identity.ca_pem.clone(), identity: Some(own) };
    dial_with(address, &trust).await.map_err(|failed| failed.error)
}

pub(crate) async fn dial_with(address: &str, trust: &Trust) -> Result<Dialed, DialFailed> {
    let resolved = Arc::new(Mutex::new((String::new(), None)));
    match connect(address, trust, resolved.clone()).await {
        Ok(channel) => {
            let resolved = resolved.lock().unwrap_or_else(PoisonError::into_inner).1;
            Ok(Dialed { channel, resolved })
        }
        Err(error) => {
            let reason = describe(&error);
            let address = with_port(address);
            let resolved = resolved.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
            let error = match of_tls(&error) {
                // A certificate that does not lead to our CA means that somebody else answers on
                // HQ's name.
                Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
                    SiteError::NotOurHq { address, reason }
                }
                Some(rustls::Error::AlertReceived(AlertDescription::CertificateExpired)) => {
                    let reason = "HQ says that this site's certificate has expired".to_owned();
                    SiteError::Clock { address, reason }
                }
                Some(
                    rustls::Error::InvalidMessage(_)
                    | rustls::Error::NoApplicationProtocol
                    | rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol),
                ) => {
                    let port = rollcall_wire::SITES_PORT;
                    let reason = format!("it is another service; HQ's port for sites is {port} as a rule");
                    SiteError::NotOurHq { address, reason }
                }
                _ if is_cut_short(&error) => {
                    let reason = format!(
                        "the connection was closed during the handshake ({reason}); is this HQ's port for sites?"
                    );
                    SiteError::Unreachable { address, reason }
                }
                _ => SiteError::Unreachable { address, reason },
            };
            Err(DialFailed { error, resolved })
        }
    }
}

/// Whether who answers hung up before it said anything, as a service does that expects something
/// else than TLS.
fn is_cut_short(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_end = |error: &(dyn std::error::Error + 'static)| {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset))
    };
    std::iter::successors(Some(error), |error| error.source()).any(is_end)
}

/// The error of TLS that an error comes from.
fn of_tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(error);
        }
        // An error of the system does not name what it wraps as its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|error| error as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    None
}

type Resolved = Arc<Mutex<(String, Option<SocketAddr>)>>;

async fn connect(address: &str, trust: &Trust, resolved: Resolved) -> Result<Channel, tonic::transport::Error> {
    let config = ClientTlsConfig::new().domain_name(HQ_NAME).timeout(CONNECT_TIMEOUT);
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?;
    let endpoint = match trust {
        Trust::Authority { ca_pem, identity } => {
            let config = match identity {
                Some((certificate, key)) => config.identity(tonic::transport::Identity::from_pem(certificate, key)),
                None => config,
            };
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = PinnedAuthority { pin: Pin::Certificates(certificates(ca_pem)), provider };
            endpoint.tls_config_with_verifier(config, Arc::new(verifier))?
        }
        Trust::Fingerprint(fingerprint) => {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = PinnedAuthority { pin: Pin::Fingerprint(fingerprint.clone()), provider };
            endpoint.tls_config_with_verifier(config, Arc::new(verifier))?
        }
    };
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .connect_with_connector(tower::service_fn(move |uri: Uri| {
            let resolved = resolved.clone();
            async move { open_socket(&uri, &resolved).await.map(TokioIo::new) }
        }))
        .await
}

async fn open_socket(uri: &Uri, resolved: &Resolved) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(rollcall_wire::SITES_PORT);
    let addresses: Vec<SocketAddr> = lookup_host((host.as_str(), port))
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("the name {host} is not found: {error}")))?
        .collect();
    let text = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    resolved.lock().unwrap_or_else(PoisonError::into_inner).0 = text;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name resolved to no address");
    for address in addresses {
        match tokio::time::timeout(TCP_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                socket.set_nodelay(true)?;
                resolved.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(address);
                return Ok(socket);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// The certificates in a PEM text.
fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect()
}

/// Which authorities are believed: SHA-256 of their certificates, hex.
pub(crate) fn authorities(ca_pem: &str) -> Vec<String> {
    certificates(ca_pem).iter().map(fingerprint_of).collect()
}

/// Which authority is believed.
#[derive(Debug)]
enum Pin {
    /// These.
    Certificates(Vec<CertificateDer<'static>>),
    /// One with this fingerprint, which the server shows.
    Fingerprint(String),
}

/// Believes a server whose chain leads to the authority of enrolment, whatever the date: the clock
/// of a machine whose battery is empty says 2015, and who can show HQ's key is HQ all the same. HQ
/// tells the site what time it is, and people that its clock is off.
#[derive(Debug)]
struct PinnedAuthority {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

/// How often another time is tried: a chain has few certificates.
const TIMES_MAX: usize = 4;

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut roots = RootCertStore::empty();
        match &self.pin {
            Pin::Certificates(pinned) => pinned.iter().try_for_each(|known| roots.add(known.clone()))?,
            Pin::Fingerprint(fingerprint) => {
                let is_pinned = |certificate: &&CertificateDer<'_>| fingerprint_of(certificate) == *fingerprint;
                let authority = intermediates.iter().find(is_pinned);
                let authority = authority.ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
                roots.add(authority.clone())?;
            }
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let verify = |at| verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at);
        let second = Duration::from_secs(1);
        let mut verified = verify(now);
        for _ in 0..TIMES_MAX {
            let at = match &verified {
                Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                    Duration::from_secs(not_after.as_secs()).saturating_sub(second)
                }
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                    Duration::from_secs(not_before.as_secs()) + second
                }
                _ => break,
            };
            verified = verify(UnixTime::since_unix_epoch(at));
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn fingerprint_of(certificate: &CertificateDer<'_>) -> String {
    digest(&SHA256, certificate.as_ref()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
