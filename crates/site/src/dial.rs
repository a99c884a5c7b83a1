//! Connecting to HQ: every attempt resolves the name anew, and only HQ's own certificate authority is believed.

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
    CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::{TcpStream, lookup_host};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Uri};

use crate::error::SiteError;

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
            let address = address.to_owned();
            let resolved = resolved.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
            // A certificate that does not lead to our CA means that somebody else answers on HQ's name.
            let error = if reason.contains("certificate") {
                SiteError::NotOurHq { address, reason }
            } else {
                SiteError::Unreachable { address, reason }
            };
            Err(DialFailed { error, resolved })
        }
    }
}

type Resolved = Arc<Mutex<(String, Option<SocketAddr>)>>;

async fn connect(address: &str, trust: &Trust, resolved: Resolved) -> Result<Channel, tonic::transport::Error> {
    let config = ClientTlsConfig::new().domain_name(HQ_NAME).timeout(CONNECT_TIMEOUT);
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?;
    let endpoint = match trust {
        Trust::Authority { ca_pem, identity } => {
            let mut config = config.ca_certificate(Certificate::from_pem(ca_pem));
            if let Some((certificate, key)) = identity {
                config = config.identity(tonic::transport::Identity::from_pem(certificate, key));
            }
            endpoint.tls_config(config)?
        }
        Trust::Fingerprint(fingerprint) => {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = PinnedAuthority { fingerprint: fingerprint.clone(), provider };
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
    let addresses: Vec<SocketAddr> = lookup_host((host.as_str(), port)).await?.collect();
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

/// Believes a server whose chain contains the CA certificate with the pinned fingerprint.
#[derive(Debug)]
struct PinnedAuthority {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let fingerprint = |certificate: &CertificateDer<'_>| -> String {
            digest(&SHA256, certificate.as_ref()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let authority = intermediates.iter().find(|certificate| fingerprint(certificate) == self.fingerprint);
        let authority = authority.ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
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
