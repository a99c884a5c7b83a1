//! A session of a site that cannot read its database or keep its notes: it is alive, sends nothing,
//! and says what is wrong. Without it HQ would hear nothing, and blame power or line.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rollcall_capture::clock_micros;
use rollcall_types::Cause;
use rollcall_wire::{
    PROTOCOL, PROTOCOL_MIN,
    proto::{
        self, Beacon, Goodbye, Hello, SiteControl, hq_control::Message as FromHq, site_control::Message as ToHq,
        sites_client::SitesClient,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::{
    enrol::refused,
    error::SiteError,
    feed::Feed,
    keeper,
    session::{Ended, GOODBYE_TIME, disk_free, ended, in_time, turned_away},
    state::{Notes, StateDirectory},
    status::StatusFile,
};

/// How often it is tried whether all is well again.
const TRY_EVERY: Duration = Duration::from_secs(2);
/// The first beacons come as often as those of other sites until HQ says how often.
const BEACON_EVERY: Duration = Duration::from_secs(30);

pub(crate) struct Blind<'a> {
    pub(crate) database: &'a Path,
    pub(crate) directory: &'a StateDirectory,
    pub(crate) feed: &'a Feed,
    pub(crate) notes: &'a Arc<Notes>,
    pub(crate) status: &'a mut StatusFile,
    pub(crate) instance: &'a str,
    pub(crate) address: &'a str,
    pub(crate) resolved: Option<SocketAddr>,
    /// Whom the site believes.
    pub(crate) authorities: Vec<String>,
    /// HQ's clock less this machine's, microseconds.
    pub(crate) hq_clock_offset: i64,
}

impl Blind<'_> {
    /// Runs until there is something to send again, the connection ends, or `stop` is asked for.
    pub(crate) async fn run(
        self,
        channel: Channel,
        stop: &CancellationToken,
        cause: Cause,
        problem: String,
    ) -> Result<Ended, SiteError> {
        let (control, outgoing) = mpsc::channel(16);
        let say = |message| {
            let message = SiteControl { message: Some(message) };
            let sent = control.send(message);
            async { sent.await.map_err(|_| SiteError::Ended("the control stream closed".to_owned())) }
        };
        say(ToHq::Hello(self.hello()?)).await?;
        let mut client = SitesClient::new(channel).max_decoding_message_size(1 << 20);
        let opened = in_time(client.control(ReceiverStream::new(outgoing))).await?;
        let mut from_hq = opened.map_err(|status| refused(self.address, &status))?.into_inner();
        let mut beacon = tokio::time::interval(BEACON_EVERY);
        let mut again = tokio::time::interval(TRY_EVERY);
        again.tick().await;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    say(ToHq::Goodbye(Goodbye { reason: "the agent was stopped".to_owned(), head: 0 })).await?;
                    tokio::time::sleep(GOODBYE_TIME).await;
                    return Ok(Ended::Stopped);
                }
                _ = beacon.tick() => say(ToHq::Beacon(self.beacon(cause, &problem)?)).await?,
                _ = again.tick() => {
                    if self.directory.paused_until().is_some() {
                        return Ok(Ended::Paused);
                    }
                    if self.is_well().await {
                        return Ok(Ended::Old);
                    }
                }
                message = from_hq.message() => {
                    let message = message.map_err(ended)?.and_then(|message| message.message);
                    match message {
                        None => return Err(SiteError::Ended("HQ closed the control stream".to_owned())),
                        Some(FromHq::Refused(refusal)) => return Err(turned_away(refusal)),
                        Some(FromHq::Welcome(welcome)) => {
                            self.status.connected(self.address);
                            self.status.store_trouble(problem.clone(), Some(cause));
                            if let Err(error) = self.status.write() {
                                tracing::debug!(error = %rollcall_types::describe(&error), "the status could not be written");
                            }
                            let every = welcome.settings.map_or(0, |settings| settings.beacon_interval_ms);
                            if every > 0 {
                                beacon = tokio::time::interval(Duration::from_millis(u64::from(every)));
                            }
                        }
                        Some(_) => {}
                    }
                }
            }
        }
    }

    /// Whether what was wrong is gone.
    async fn is_well(&self) -> bool {
        // By the clock by which the agent found it: by another one they would never agree.
        let rewinds = self.notes.rewinds(keeper::hq_now(self.hq_clock_offset)).unwrap_or_default();
        if self.notes.problem().is_some() || rewinds >= keeper::REWINDS_MAX {
            return false;
        }
        match keeper::look(self.feed).await {
            Ok(health) => !health.is_blind(),
            // Another file is there: the next session takes it up.
            Err(SiteError::Capture(rollcall_capture::CaptureError::Replaced)) => true,
            Err(_) => false,
        }
    }

    /// The last positions known.
    fn hello(&self) -> Result<Hello, SiteError> {
        let position = self.notes.position()?;
        Ok(Hello {
            protocol: PROTOCOL,
            protocol_min: PROTOCOL_MIN,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.to_owned(),
            lake_id: position.lake_id,
            epoch: position.epoch.0,
            head: position.confirmed.0,
            confirmed: position.confirmed.0,
            oldest: position.confirmed.0 + 1,
            clock_micros: clock_micros(),
            called: self.address.to_owned(),
            resolved: self.resolved.map_or_else(String::new, |resolved| resolved.ip().to_string()),
            blind: true,
            authorities: self.authorities.clone(),
            ..Hello::default()
        })
    }

    fn beacon(&self, cause: Cause, problem: &str) -> Result<Beacon, SiteError> {
        let confirmed = self.notes.position()?.confirmed.0;
        Ok(Beacon {
            head: confirmed,
            confirmed,
            clock_micros: clock_micros(),
            capture_ok: false,
            capture_problem: problem.to_owned(),
            capture_cause: proto::Cause::from(cause).into(),
            disk_free_bytes: disk_free(self.database),
            ..Beacon::default()
        })
    }
}
