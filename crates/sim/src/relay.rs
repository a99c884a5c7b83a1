//! A TCP relay on loopback: a site's line to HQ that can be cut and mended.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Forwards connections to HQ while it is not cut.
#[derive(Debug, Clone)]
pub struct Relay {
    address: SocketAddr,
    target: SocketAddr,
    /// Where the line leads now; none while it is cut.
    leads_to: Arc<watch::Sender<Option<SocketAddr>>>,
}

impl Relay {
    /// Listens on a free port of loopback and forwards to `target`.
    pub async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (leads_to, _) = watch::channel(Some(target));
        let leads_to = Arc::new(leads_to);
        let sender = leads_to.clone();
        tokio::spawn(async move {
            while let Ok((incoming, _)) = listener.accept().await {
                tokio::spawn(forward(incoming, sender.subscribe()));
            }
        });
        Ok(Self { address, target, leads_to })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection and accepts no new ones until [`Relay::mend`].
    pub fn cut(&self) {
        self.leads_to.send_replace(None);
    }

    /// Lets connections through again, to where they led at first.
    pub fn mend(&self) {
        self.leads_to.send_replace(Some(self.target));
    }

    /// Breaks every connection; new ones go elsewhere, as those do whose name leads to an old
    /// address.
    pub fn lead_to(&self, elsewhere: SocketAddr) {
        self.leads_to.send_replace(Some(elsewhere));
    }
}

async fn forward(mut incoming: TcpStream, mut leads_to: watch::Receiver<Option<SocketAddr>>) {
    let Some(target) = *leads_to.borrow_and_update() else { return };
    let Ok(mut outgoing) = TcpStream::connect(target).await else { return };
    // Either end closing, or the line being cut, drops both sockets.
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut incoming, &mut outgoing) => {}
        _ = leads_to.changed() => {}
    }
}
