//! TLS on a site's line, without a buffer while nothing is under way.
//!
//! rustls does the work; this carries bytes between it and the line. The usual stream over it keeps
//! 4 KiB for what may come next, and a node has tens of thousands of lines on which nothing comes
//! for half a minute. Here what comes is read into a buffer of the thread's, and only what is not
//! finished is kept: the part of a record that has come, text that nobody took yet, records that
//! the line did not take yet.

use std::{
    cell::RefCell,
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    ServerConfig,
    pki_types::CertificateDer,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Read from a line at a time: two records, at most.
const READ_BYTES: usize = 32 << 10;
/// Text that becomes records at a time.
const WRITE_BYTES: usize = 32 << 10;

thread_local! {
    /// What a line has to say; worked through before anything else happens on this thread.
    static CAME: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// The server's end of a line.
pub(crate) struct TlsLine<L> {
    line: L,
    tls: UnbufferedServerConnection,
    /// The part of a record that has come.
    incoming: Vec<u8>,
    text: Pending,
    outgoing: Pending,
    /// The other end said that nothing more comes.
    is_closed: bool,
    /// So did this one.
    is_shut: bool,
}

/// Bytes that are taken from the front. Takes no memory while there are none.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    taken: usize,
}

impl Pending {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken >= self.bytes.len() {
            *self = Self::default();
        }
    }
}

/// What to do when rustls has worked through everything.
enum AtRest<'a> {
    Nothing,
    Say(&'a [u8]),
    Close,
}

impl<L: AsyncRead + AsyncWrite + Unpin> TlsLine<L> {
    /// Shakes hands with a client.
    pub(crate) async fn accept(config: Arc<ServerConfig>, line: L) -> io::Result<Self> {
        let tls = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let (text, outgoing) = (Pending::default(), Pending::default());
        let mut accepted = Self { line, tls, incoming: Vec::new(), text, outgoing, is_closed: false, is_shut: false };
        std::future::poll_fn(|cx| accepted.poll_handshake(cx)).await?;
        Ok(accepted)
    }

    /// The certificate that the client showed, which rustls checked.
    pub(crate) fn client_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.peer_certificates()?.first()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let sent = self.poll_send(cx)?;
            if !self.tls.is_handshaking() {
                return sent.map(Ok);
            }
            // The other end may read nothing before it has sent what it has to say.
            if !ready!(self.poll_come(cx))? || self.is_closed {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads what has come and works through it; false at the line's end.
    fn poll_come(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        CAME.with_borrow_mut(|buffer| {
            let mut came = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.line).poll_read(cx, &mut came))?;
            let came = came.filled_mut();
            if came.is_empty() {
                return Poll::Ready(Ok(false));
            }
            let worked = if self.incoming.is_empty() {
                self.work(came, AtRest::Nothing).map(|used| self.incoming.extend_from_slice(&came[used..]))
            } else {
                self.incoming.extend_from_slice(came);
                self.work_on(AtRest::Nothing)
            };
            if worked.is_err() {
                // What is wrong is told to the other end, if the line takes it.
                let _ = self.poll_send(cx);
            }
            Poll::Ready(worked.map(|()| true))
        })
    }

    /// [`Self::work`] on what is kept.
    fn work_on(&mut self, at_rest: AtRest<'_>) -> io::Result<()> {
        let mut incoming = std::mem::take(&mut self.incoming);
        let used = self.work(&mut incoming, at_rest)?;
        if used < incoming.len() {
            incoming.drain(..used);
            self.incoming = incoming;
        }
        Ok(())
    }

    /// Lets rustls work through records until it wants more of them; says how many bytes it is done
    /// with.
    fn work(&mut self, records: &mut [u8], at_rest: AtRest<'_>) -> io::Result<usize> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut records[used..]);
            used += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(malformed)?;
                        self.text.bytes.extend_from_slice(record.payload);
                        used += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.outgoing.bytes, |room| data.encode(room))?;
                }
                // It is in order among what goes out.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_closed = true,
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    say(traffic, at_rest, &mut self.outgoing.bytes)?;
                    return Ok(used);
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => {
                    return match at_rest {
                        AtRest::Say(_) => Err(ErrorKind::BrokenPipe.into()),
                        AtRest::Nothing | AtRest::Close => Ok(used),
                    };
                }
                // Early data is not enabled.
                Ok(_) => return Err(io::Error::from(ErrorKind::InvalidData)),
                Err(error) => {
                    // One alert at most is to be sent; and rustls relies on being shown the same
                    // bytes.
                    let rest = &mut records[used..];
                    if let Ok(ConnectionState::EncodeTlsData(mut alert)) = self.tls.process_tls_records(rest).state {
                        append(&mut self.outgoing.bytes, |room| alert.encode(room))?;
                    }
                    return Err(malformed(error));
                }
            }
        }
    }

    /// Sends what is to be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.rest().is_empty() {
            let count = ready!(Pin::new(&mut self.line).poll_write(cx, self.outgoing.rest()))?;
            if count == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.outgoing.take(count);
        }
        Poll::Ready(Ok(()))
    }
}

fn malformed(error: rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

fn say<D>(mut traffic: WriteTraffic<'_, D>, what: AtRest<'_>, outgoing: &mut Vec<u8>) -> io::Result<()> {
    match what {
        AtRest::Nothing => Ok(()),
        AtRest::Say(text) => append(outgoing, |room| traffic.encrypt(text, room)),
        AtRest::Close => append(outgoing, |room| traffic.queue_close_notify(room)),
    }
}

/// Why something could not be written into a buffer.
trait Unwritten: std::error::Error + Send + Sync + Sized + 'static {
    /// What room it takes, if that was it.
    fn room(&self) -> Option<usize>;
}

impl Unwritten for EncodeError {
    fn room(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl Unwritten for EncryptError {
    fn room(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::EncryptExhausted => None,
        }
    }
}

/// Appends what `write` writes, in as much room as it asks for.
fn append<E: Unwritten>(to: &mut Vec<u8>, mut write: impl FnMut(&mut [u8]) -> Result<usize, E>) -> io::Result<()> {
    let end = to.len();
    loop {
        match write(&mut to[end..]) {
            Ok(count) => {
                to.truncate(end + count);
                return Ok(());
            }
            Err(error) => match error.room() {
                Some(room) if end + room > to.len() => to.resize(end + room, 0),
                _ => return Err(io::Error::other(error)),
            },
        }
    }
}

impl<L: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsLine<L> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let text = this.text.rest();
            if !text.is_empty() {
                let count = text.len().min(to.remaining());
                to.put_slice(&text[..count]);
                this.text.take(count);
                return Poll::Ready(Ok(()));
            }
            if this.is_closed {
                return Poll::Ready(Ok(()));
            }
            // What TLS has to say of its own does not wait until somebody writes.
            if let Poll::Ready(Err(error)) = this.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            if !ready!(this.poll_come(cx))? {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl<L: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsLine<L> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, text: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let text = &text[..text.len().min(WRITE_BYTES)];
        this.work_on(AtRest::Say(text))?;
        match this.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // The rest goes with what is written next, or when it is flushed.
            _ => Poll::Ready(Ok(text.len())),
        }
    }

    /// One record for a frame and what is in it.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices {
            [only] => self.poll_write(cx, only),
            _ => {
                let mut text = Vec::new();
                for slice in slices {
                    let room = WRITE_BYTES - text.len();
                    text.extend_from_slice(&slice[..slice.len().min(room)]);
                }
                self.poll_write(cx, &text)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.line).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_shut {
            this.is_shut = true;
            this.work_on(AtRest::Close)?;
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.line).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use rcgen::{CertificateParams, Issuer, KeyPair};
    use rustls::{ClientConfig, RootCertStore, crypto::ring::default_provider, server::WebPkiClientVerifier};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::TlsConnector;

    use super::*;

    /// A server that asks for certificates, and a client that has one.
    fn configured() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let key = || KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_key = key();
        let root = authority.self_signed(&authority_key).expect("signs").der().clone();
        let issuer = Issuer::new(authority, authority_key);
        let identity = || {
            let own = key();
            let parameters = CertificateParams::new(vec!["hq".to_owned()]).expect("parameters");
            let chain = vec![parameters.signed_by(&own, &issuer).expect("signs").der().clone()];
            (chain, rustls::pki_types::PrivatePkcs8KeyDer::from(own.serialize_der()).into())
        };
        let mut roots = RootCertStore::empty();
        roots.add(root).expect("adds");
        let (roots, provider) = (Arc::new(roots), Arc::new(default_provider()));
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().expect("verifies");
        let (chain, own) = identity();
        let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let server = server.expect("versions").with_client_cert_verifier(verifier).with_single_cert(chain, own);
        let (chain, own) = identity();
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = client.expect("versions").with_root_certificates(roots).with_client_auth_cert(chain, own);
        (Arc::new(server.expect("a server")), Arc::new(client.expect("a client")))
    }

    fn noise(random: &mut StdRng, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|_| random.random()).collect()
    }

    #[tokio::test]
    async fn text_goes_both_ways_however_the_line_cuts_it() {
        // Lines that carry so many bytes at a time: records come in pieces, several at once, and
        // end within a read.
        for (seed, width) in [(1, 3), (2, 100), (3, 4096), (4, 70_000), (5, 1 << 20)] {
            let mut random = StdRng::seed_from_u64(seed);
            let (server, client) = configured();
            let (near, far) = duplex(width);
            let bytes = if width < 100 { 20_000 } else { 700_000 };
            let (to_server, to_client) = (noise(&mut random, bytes), noise(&mut random, bytes));
            let (asked, answered) = (to_server.clone(), to_client.clone());
            let at_client = rollcall_runtime::spawn(async move {
                let name = "hq".try_into().expect("a name");
                let line = TlsConnector::from(client).connect(name, far).await.expect("connects");
                let (mut reads, mut writes) = tokio::io::split(line);
                let writing = async {
                    writes.write_all(&asked).await.expect("writes");
                    writes.shutdown().await.expect("shuts down");
                };
                let mut came = Vec::new();
                let (_, read) = tokio::join!(writing, reads.read_to_end(&mut came));
                read.expect("reads to the end");
                assert_eq!(came, answered);
            });
            let line = TlsLine::accept(server, near).await.expect("accepts");
            assert!(line.client_certificate().is_some());
            let (mut reads, mut writes) = tokio::io::split(line);
            let writing = async {
                for part in to_client.chunks(50_000) {
                    let (head, rest) = part.split_at(9);
                    let mut slices = &mut [IoSlice::new(head), IoSlice::new(rest)][..];
                    while slices.iter().any(|slice| !slice.is_empty()) {
                        let count = writes.write_vectored(slices).await.expect("writes");
                        IoSlice::advance_slices(&mut slices, count);
                    }
                }
                writes.shutdown().await.expect("shuts down");
            };
            let mut came = Vec::new();
            let (_, read) = tokio::join!(writing, reads.read_to_end(&mut came));
            read.expect("reads to the end");
            assert_eq!(came, to_server);
            at_client.await.expect("the client is content");
            let line = reads.unsplit(writes);
            let kept = line.incoming.capacity() + line.text.bytes.capacity() + line.outgoing.bytes.capacity();
            assert_eq!(kept, 0, "nothing is kept when nothing is under way");
        }
    }

    #[tokio::test]
    async fn what_is_no_tls_and_what_breaks_off_are_errors() {
        let (server, client) = configured();
        let (near, mut far) = duplex(1 << 16);
        far.write_all(b"GET / HTTP/1.1\r\nHost: hq\r\n\r\n").await.expect("writes");
        let refused = TlsLine::accept(server.clone(), near).await.map(drop).expect_err("is no TLS");
        assert_eq!(refused.kind(), ErrorKind::InvalidData);
        let mut told = [0; 2];
        far.read_exact(&mut told).await.expect("is told why");
        assert_eq!(told, [21, 3], "an alert");

        let (near, far) = duplex(1 << 16);
        let connecting = rollcall_runtime::spawn(async move {
            let name = "hq".try_into().expect("a name");
            TlsConnector::from(client).connect(name, far).await.expect("connects")
        });
        let mut line = TlsLine::accept(server, near).await.expect("accepts");
        drop(connecting.await.expect("connects"));
        let ended = line.read_u8().await.expect_err("broke off");
        assert_eq!(ended.kind(), ErrorKind::UnexpectedEof);
    }
}
