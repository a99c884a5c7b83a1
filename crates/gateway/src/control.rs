//! The control stream of a site, from its first message to its end.

use std::{
    ops::ControlFlow::{Break, Continue},
    sync::Arc,
    time::Duration,
};

use futures::SinkExt;
use rollcall_registry::{Heard, SiteFact, digest, sessions::Session};
use rollcall_roll::Condition;
use rollcall_types::{Cause, SiteId, describe};
use rollcall_wire::{
    Refusal,
    proto::{
        Ask, HqControl, Published, Refused, Settings, SiteControl, hq_control::Message as ToSite,
        site_control::Message as FromSite,
    },
};
use tonic::{Status, Streaming};

use crate::{
    metrics::ByCode,
    news,
    services::{HELLO_TIMEOUT, Outgoing, status_of},
    texts,
    welcome::{Rejection, Visitor},
};

/// One site's control stream.
pub(crate) struct Control {
    pub(crate) visitor: Visitor,
    pub(crate) incoming: Streaming<SiteControl>,
    pub(crate) outgoing: Outgoing<HqControl>,
}

impl Control {
    pub(crate) async fn run(mut self) {
        // In boxes of their own are all that is rarely under way: this task stays as long as the
        // site, and there are many.
        let Some(session) = Box::pin(self.begin()).await else { return };
        self.serve(&session).await;
        self.visitor.registry().sessions.close(&session);
        tracing::info!(site = %session.site, "disconnected");
    }

    /// Hears who calls and why; none if there is no session.
    async fn begin(&mut self) -> Option<Arc<Session>> {
        let hello = tokio::time::timeout(HELLO_TIMEOUT, self.incoming.message()).await;
        let Ok(Ok(Some(SiteControl { message: Some(FromSite::Hello(mut hello)) }))) = hello else {
            self.fail(Status::invalid_argument("the first message must be Hello")).await;
            return None;
        };
        if let Err(problem) = texts::clean_hello(&mut hello) {
            self.fail(Status::invalid_argument(problem)).await;
            return None;
        }
        self.visitor.registry().record_heard(&self.visitor.peer.site, Heard::Contact);
        match self.visitor.welcome(&hello).await {
            Ok((session, welcome)) => {
                self.send(ToSite::Welcome(welcome)).await;
                tracing::info!(site = %session.site, epoch = %session.epoch, address = self.visitor.address_text(), agent = hello.agent_version, "connected");
                Some(session)
            }
            Err(Rejection::Away { code, cause, message }) => {
                self.turn_away(code, cause, message).await;
                None
            }
            Err(Rejection::Failed(error)) => {
                self.fail(status_of(error)).await;
                None
            }
        }
    }

    async fn turn_away(&mut self, code: Refusal, cause: Option<Cause>, message: String) {
        let (site, registry) = (&self.visitor.peer.site, self.visitor.registry());
        tracing::warn!(%site, code = code.code(), message, "turned away");
        self.visitor.parts.ingest.metrics.refusals.get_or_create(&ByCode { code: code.code() }).inc();
        if let Some(cause) = cause {
            let is_lake_older = code == Refusal::OlderLake;
            registry.record(site, SiteFact::Refused { cause, detail: message.clone(), is_lake_older });
            let condition = match cause {
                Cause::CloneOrRewind => Condition::CloneOrRewind,
                _ => Condition::Refused,
            };
            registry.record_heard(site, Heard::Condition(condition, Some(message.clone())));
        }
        self.send(ToSite::Refused(Refused { code: code.code().to_owned(), message })).await;
    }

    /// Why a session ended that the site did not end.
    fn why_over(&self) -> Refused {
        let (code, message) = match self.visitor.registry().stop.is_cancelled() {
            true => (Refusal::Stopping, "HQ is stopping; connect again soon"),
            false => (Refusal::Superseded, "another connection speaks for this site, or it was retired"),
        };
        self.visitor.parts.ingest.metrics.refusals.get_or_create(&ByCode { code: code.code() }).inc();
        Refused { code: code.code().to_owned(), message: message.to_owned() }
    }

    async fn send(&mut self, message: ToSite) {
        // A closed stream is noticed where the site is read from.
        let _ = self.outgoing.send(Ok(HqControl { message: Some(message) })).await;
    }

    async fn fail(&mut self, status: Status) {
        let _ = self.outgoing.send(Err(status)).await;
    }

    /// Tells the site what it should have of HQ's tables, unless it knows.
    async fn send_wanted(&mut self, session: &Session, sent: &mut SentDigests) {
        let (publications, registry) = (self.visitor.parts.publications.clone(), self.visitor.registry());
        if publications.is_ahead(&session.site) {
            // It took a version at another node a moment ago.
            if let Err(error) = registry.lake.follow().await {
                tracing::error!(error = %describe(&error), "what was published elsewhere cannot be read");
                return;
            }
            publications.refresh().await;
        }
        let wanted = Published { tables: publications.wanted(session) };
        let news = digest::of_message(&wanted);
        if news != sent.published {
            sent.published = news;
            self.send(ToSite::Published(wanted)).await;
        }
    }

    /// Tells the site how it is to behave, unless it knows.
    async fn send_settings(&mut self, site: &SiteId, sent: &mut SentDigests) {
        let settings = self.visitor.parts.settings_of(site);
        if sent.take_settings(&settings) {
            self.send(ToSite::Settings(settings)).await;
        }
    }

    /// What is rarely under way is in boxes: this future stays as long as the site, with room for
    /// the largest that it waits for.
    async fn serve(&mut self, session: &Arc<Session>) {
        let mut published = self.visitor.parts.publications.subscribe();
        let mut sent = SentDigests::new(&self.visitor.parts.settings_of(&session.site));
        Box::pin(self.send_wanted(session, &mut sent)).await;
        loop {
            tokio::select! {
                () = session.over.cancelled() => {
                    let refused = self.why_over();
                    Box::pin(self.send(ToSite::Refused(refused))).await;
                    return;
                }
                Ok(()) = published.changed() => {
                    Box::pin(self.send_wanted(session, &mut sent)).await;
                    Box::pin(self.send_settings(&session.site, &mut sent)).await;
                }
                _ = sent.ask.tick() => {
                    // A node may have come or gone: when this one goes, the site should know where
                    // else to call.
                    Box::pin(self.send_settings(&session.site, &mut sent)).await;
                    let time_micros = self.visitor.registry().now().as_micros();
                    Box::pin(self.send(ToSite::Ask(Ask { time_micros }))).await;
                }
                message = self.incoming.message() => match message {
                    Ok(Some(SiteControl { message: Some(message) })) => {
                        match news::take(self.visitor.registry(), session, message) {
                            Continue(()) => {}
                            Break(None) => return,
                            Break(Some(status)) => {
                                Box::pin(self.fail(status)).await;
                                return;
                            }
                        }
                    }
                    Ok(Some(_)) => {}
                    // The stream is over, or was given up at the other end.
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }
}

/// What a site was told last.
struct SentDigests {
    /// Digests of it.
    published: u64,
    settings: u64,
    /// When it is told HQ's time.
    ask: tokio::time::Interval,
}

impl SentDigests {
    /// These settings, and that it should have nothing of HQ's tables.
    fn new(settings: &Settings) -> Self {
        let (published, told) = (digest::of_message(&Published::default()), digest::of_message(settings));
        Self { published, settings: told, ask: asking(settings) }
    }

    /// True if these settings are others.
    fn take_settings(&mut self, settings: &Settings) -> bool {
        let news = digest::of_message(settings);
        let is_news = news != std::mem::replace(&mut self.settings, news);
        if self.ask.period() != ask_every(settings) {
            self.ask = asking(settings);
        }
        is_news
    }
}

/// How often HQ tells its time to a site with these settings.
fn ask_every(settings: &Settings) -> Duration {
    Duration::from_millis(u64::from(settings.beacon_interval_ms.max(1)))
}

fn asking(settings: &Settings) -> tokio::time::Interval {
    rollcall_runtime::every(ask_every(settings))
}
