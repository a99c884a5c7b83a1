//! The port as sites call it: over TLS.

use std::net::SocketAddr;

use futures::{SinkExt, channel::mpsc};
use rcgen::{CertificateParams, KeyPair};
use rollcall_wire::{
    framing::frames,
    proto::{
        DataFrame, EnrolRequest, Goodbye, HqControl, SiteControl, data_reply::Message as Reply,
        enrolment_client::EnrolmentClient, hq_control::Message as ToSite, site_control::Message as FromSite,
        sites_client::SitesClient,
    },
};
use tokio::net::TcpListener;
use tonic::{
    Code, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::*;
use crate::Gateway;

async fn serve(port: &Port) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    rollcall_runtime::spawn(Gateway(port.parts.clone()).serve(listener));
    address
}

/// A line to a port: of a stranger, or of who has a certificate.
async fn line(port: &Port, address: SocketAddr, identity: Option<Identity>) -> Channel {
    // The certificate of the authority comes with one of a site.
    let (_, request) = key_and_request();
    let site = SiteId::new("nobody").expect("valid");
    let ca = port.parts.authority.sign_site(&site, &request, port.parts.registry.now()).expect("signs").ca_pem;
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name("hq.rollcall");
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address").tls_config(tls);
    endpoint.expect("TLS").connect().await.expect("connects")
}

fn key_and_request() -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let request = CertificateParams::default().serialize_request(&key).expect("a request").pem().expect("PEM");
    (key.serialize_pem(), request)
}

async fn enrol(port: &Port, address: SocketAddr, name: &str) -> Identity {
    let secret = port.invite(&SiteId::new(name).expect("valid")).await;
    let (key, csr_pem) = key_and_request();
    let request = EnrolRequest { token: secret, csr_pem, ..EnrolRequest::default() };
    let mut enrolment = EnrolmentClient::new(line(port, address, None).await);
    let checked = enrolment.check(request.clone()).await.expect("may").into_inner();
    assert_eq!((checked.site.as_str(), checked.enrolled_micros), (name, 0));
    let identity = enrolment.enrol(request).await.expect("enrols").into_inner();
    assert_eq!(identity.site, name);
    Identity::from_pem(identity.certificate_pem, key)
}

async fn next(stream: &mut Streaming<HqControl>) -> ToSite {
    let message = tokio::time::timeout(Duration::from_secs(20), stream.message()).await.expect("in time");
    message.expect("no error").expect("goes on").message.expect("a message")
}

fn said(message: FromSite) -> SiteControl {
    SiteControl { message: Some(message) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_enrols_says_hello_sends_rows_and_hears_what_is_published() {
    let port = Port::open().await;
    let address = serve(&port).await;
    let mut site = SitesClient::new(line(&port, address, Some(enrol(&port, address, "till-1").await)).await);
    let (mut says, incoming) = mpsc::channel(8);
    says.send(said(FromSite::Hello(Hello { takes_published: true, ..hello("a") }))).await.expect("says");
    let mut control = site.control(incoming).await.expect("opens").into_inner();
    let ToSite::Welcome(welcome) = next(&mut control).await else { panic!("a welcome") };
    assert_eq!(welcome.epoch, 1);
    assert!(matches!(next(&mut control).await, ToSite::Ask(_)), "HQ's time at once");

    let (mut sends, frames_out) = mpsc::channel(8);
    sends.send(DataFrame { session: welcome.session, ..DataFrame::default() }).await.expect("sends");
    let mut data = site.data(frames_out).await.expect("opens").into_inner();
    for frame in frames(&batch("sales", 1, 3, 0)) {
        sends.send(frame).await.expect("sends");
    }
    let mut through = 0;
    while through == 0 {
        match data.message().await.expect("no error").expect("goes on").message {
            Some(Reply::Confirmed(told)) => through = told.through,
            Some(Reply::Credit(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(through, 3);

    // Told once, however often something else changes; not known here before HQ followed.
    port.shelf.is_ahead.store(true, Ordering::Relaxed);
    let prices = WantedTable { table: "prices".to_owned(), version: 4, ..WantedTable::default() };
    port.shelf.publish(vec![prices.clone()]);
    assert!(matches!(next(&mut control).await, ToSite::Published(told) if told.tables == [prices]));
    assert!(port.shelf.refreshed.load(Ordering::Relaxed) > 0);
    port.shelf.say(Settings { log: "debug".to_owned(), ..Settings::default() });
    assert!(matches!(next(&mut control).await, ToSite::Settings(told) if told.log == "debug"));
    let fetch = |table: &str| FetchRequest { table: table.to_owned(), ..FetchRequest::default() };
    let mut fetched = site.fetch(fetch("prices")).await.expect("is sent").into_inner();
    assert!(fetched.message().await.expect("no error").is_some());
    assert!(site.fetch(fetch("secrets")).await.is_err_and(|status| status.code() == Code::PermissionDenied));

    says.send(said(FromSite::Goodbye(Goodbye::default()))).await.expect("says");
    assert!(control.message().await.expect("no error").is_none(), "the stream ends");
    assert_eq!(port.parts.registry.sessions.count(), 0);
    port.parts.registry.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_says_so_and_a_session_that_was_replaced_too() {
    let port = Port::open().await;
    let address = serve(&port).await;
    let identity = enrol(&port, address, "till-1").await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut site = SitesClient::new(line(&port, address, Some(identity.clone())).await);
        let (mut says, incoming) = mpsc::channel(8);
        says.send(said(FromSite::Hello(hello("a")))).await.expect("says");
        let mut control = site.control(incoming).await.expect("opens").into_inner();
        assert!(matches!(next(&mut control).await, ToSite::Welcome(_)));
        streams.push((site, says, control));
    }
    assert_eq!(why_over(&mut streams[0].2).await, "superseded");
    port.parts.registry.stop.cancel();
    assert_eq!(why_over(&mut streams[1].2).await, "stopping");
}

/// The code with which a session ends.
async fn why_over(control: &mut Streaming<HqControl>) -> String {
    loop {
        if let ToSite::Refused(refused) = next(control).await {
            return refused.code;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_certificate_or_an_old_key_opens_no_stream_and_is_noted() {
    let port = Port::open().await;
    let address = serve(&port).await;
    let control = |channel| async move {
        let (mut says, incoming) = mpsc::channel(8);
        says.send(said(FromSite::Hello(hello("a")))).await.expect("says");
        SitesClient::new(channel).control(incoming).await.map(drop).expect_err("is refused").code()
    };
    assert_eq!(control(line(&port, address, None).await).await, Code::Unauthenticated);
    let old = enrol(&port, address, "till-1").await;
    enrol_anew(&port, address).await;
    assert_eq!(control(line(&port, address, Some(old)).await).await, Code::PermissionDenied);
    assert_eq!(port.parts.registry.ledger.unknown_senders(), ["till-1"]);
    let (_, csr_pem) = key_and_request();
    let mut stranger = EnrolmentClient::new(line(&port, address, None).await);
    let made_up = EnrolRequest { token: "made up".to_owned(), csr_pem, ..EnrolRequest::default() };
    assert!(stranger.enrol(made_up).await.is_err_and(|status| status.code() == Code::PermissionDenied));
    assert_eq!(port.parts.registry.ledger.unknown_senders().len(), 2);
    port.parts.registry.stop.cancel();
}

/// Another database takes the place of the one that joined as `till-1`.
async fn enrol_anew(port: &Port, address: SocketAddr) {
    let token = port.invite(&SiteId::new("till-1").expect("valid")).await;
    let request = EnrolRequest { token, csr_pem: key_and_request().1, ..EnrolRequest::default() };
    EnrolmentClient::new(line(port, address, None).await).enrol(request).await.expect("enrols");
}
