//! The data stream of a session: opened when there is something to send, closed when there was
//! nothing for a while.
//!
//! Most stores are quiet most of the time, and HQ holds tens of thousands of them: a stream that
//! nobody uses costs it some kilobytes.

use std::time::Duration;

use rollcall_wire::proto::{DataFrame, DataReply, data_reply::Message as Reply, sites_client::SitesClient};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

/// A stream that was not used for so long is closed.
const REST_AFTER: Duration = Duration::from_secs(30);
/// HQ must open and close it within this time.
const PATIENCE: Duration = Duration::from_secs(20);
const FRAMES_QUEUED_MAX: usize = 64;

/// The data stream of a session.
#[derive(Debug)]
pub struct DataLine {
    client: SitesClient<Channel>,
    session: u64,
    open: Option<(mpsc::Sender<DataFrame>, Streaming<DataReply>)>,
    used: Instant,
}

impl DataLine {
    /// The line of the session of this number; not open yet.
    pub fn new(client: SitesClient<Channel>, session: u64) -> Self {
        Self { client, session, open: None, used: Instant::now() }
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: DataFrame) -> Result<(), Status> {
        self.used = Instant::now();
        if self.open.is_none() {
            let (sender, outgoing) = mpsc::channel(FRAMES_QUEUED_MAX);
            // The first frame only says which session the stream belongs to; the queue has room for
            // it.
            let _ = sender.try_send(DataFrame { session: self.session, ..DataFrame::default() });
            let opening = self.client.data(ReceiverStream::new(outgoing));
            let opened = tokio::time::timeout(PATIENCE, opening).await;
            let opened = opened.map_err(|_| Status::deadline_exceeded("HQ did not open the data stream"))??;
            self.open = Some((sender, opened.into_inner()));
        }
        let Some((sender, _)) = &self.open else { return Err(Status::aborted("the data stream is closed")) };
        sender.send(frame).await.map_err(|_| Status::aborted("HQ closed the data stream"))
    }

    /// The next reply; none if HQ closed the stream. Never returns while it is not open.
    /// Cancel-safe.
    pub async fn reply(&mut self) -> Result<Option<Reply>, Status> {
        match &mut self.open {
            Some((_, replies)) => {
                let reply = replies.message().await?;
                self.used = Instant::now();
                Ok(reply.and_then(|reply| reply.message))
            }
            None => std::future::pending().await,
        }
    }

    /// Closes the stream if it was not used for a while. Call it only when everything sent is
    /// confirmed.
    pub async fn rest(&mut self) -> Result<(), Status> {
        if self.used.elapsed() < REST_AFTER {
            return Ok(());
        }
        let Some((sender, mut replies)) = self.open.take() else { return Ok(()) };
        drop(sender);
        // HQ lets one stream of a session follow another only once that has ended.
        let ended = tokio::time::timeout(PATIENCE, async {
            while replies.message().await?.is_some() {}
            Ok(())
        })
        .await;
        ended.unwrap_or_else(|_| Err(Status::deadline_exceeded("HQ did not close the data stream")))
    }
}
