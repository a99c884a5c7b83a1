//! The bytes of a caller at the sites' port, from the first one on.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use rollcall_fuzz::near;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[allow(dead_code)]
#[path = "../../crates/gateway/src/tls_line.rs"]
mod tls_line;

use tls_line::TlsLine;

/// A server, and the first words of a client that means well.
fn sound() -> &'static (Arc<ServerConfig>, Vec<u8>) {
    static SOUND: OnceLock<(Arc<ServerConfig>, Vec<u8>)> = OnceLock::new();
    SOUND.get_or_init(|| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let parameters = rcgen::CertificateParams::new(vec!["hq.rollcall".to_owned()]).expect("parameters");
        let certificate = parameters.self_signed(&key).expect("signs").der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("a server");
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a root");
        let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("hq.rollcall").expect("a name");
        let mut client = ClientConnection::new(Arc::new(client), name).expect("a client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("writes");
        (Arc::new(server), hello)
    })
}

fuzz_target!(|input: (Vec<u8>, Vec<u8>, u16)| {
    let (first, second, piece) = input;
    let (server, hello) = sound();
    let mut said = near(hello, &first);
    said.extend(second);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (mut caller, line) = tokio::io::duplex(1 << 16);
        let serve = async {
            if let Ok(mut line) = TlsLine::accept(server.clone(), line).await {
                let mut text = Vec::new();
                let _ = line.read_to_end(&mut text).await;
            }
        };
        let call = async {
            for piece in said.chunks(usize::from(piece).max(1)) {
                if caller.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            let _ = caller.shutdown().await;
            let _ = caller.read_to_end(&mut Vec::new()).await;
        };
        let both = async { tokio::join!(serve, call) };
        tokio::time::timeout(std::time::Duration::from_secs(10), both).await.expect("it ends");
    });
});
