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
    up: Arc<watch::Sender<bool>>,
}

impl Relay {
    /// Listens on a free port of loopback and forwards to `target`.
    pub async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (up, _) = watch::channel(true);
        let up = Arc::new(up);
        let sender = up.clone();
        tokio::spawn(async move {
            while let Ok((incoming, _)) = listener.accept().await {
                tokio::spawn(forward(incoming, target, sender.subscribe()));
            }
        });
        Ok(Self { address, up })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection and accepts no new ones until [`Relay::mend`].
    pub fn cut(&self) {
        self.up.send_replace(false);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.up.send_replace(true);
    }
}

async fn forward(mut incoming: TcpStream, target: SocketAddr, mut up: watch::Receiver<bool>) {
    if !*up.borrow() {
        return;
    }
    let Ok(mut outgoing) = TcpStream::connect(target).await else { return };
    // Either end closing, or the line being cut, drops both sockets.
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut incoming, &mut outgoing) => {}
        _ = up.wait_for(|up| !up) => {}
    }
}
