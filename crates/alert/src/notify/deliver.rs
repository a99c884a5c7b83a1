//! Deliveries of what was decided: to which channels they go, when, and what is known of them
//! afterwards.

use std::{sync::Arc, time::Duration};

use rollcall_lake::{LakeError, RecordKind, StateView};
use rollcall_registry::Sites;
use rollcall_roll::{Decision, Incident, Kind, Notice};
use rollcall_types::{Timestamp, describe};
use serde::{Deserialize, Serialize};

use super::{
    Notifiers,
    channel::{Channel, How},
    news::News,
    recipients,
    render::Message,
};
use crate::alerts::Alerts;

/// Attempts at a delivery, with pauses of 1, 4, 16 and 64 s between them.
const ATTEMPTS: u32 = 5;
/// How often it is looked whether quiet hours are over.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// What channels were told last, in the state log by incident and channel.
const DELIVERED: RecordKind<Delivered> = RecordKind::new("delivered");
/// The end of an incident is told after a restart if it came this lately.
const RESOLVED_LATELY: Duration = Duration::from_secs(86_400);

/// What a channel was told last of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Delivered {
    level: u8,
    resolved: bool,
}

fn delivered_id(incident: u64, channel: &str) -> String {
    format!("{incident}/{channel}")
}

/// What one channel is told.
#[derive(Debug, Clone)]
pub(super) struct Notification {
    pub(super) name: String,
    pub(super) channel: Channel,
    pub(super) news: Arc<News>,
    pub(super) message: Message,
    /// Of a mail: to whom.
    pub(super) to: Vec<String>,
}

impl Notification {
    /// News in a channel's words, and to whom they go; an error says why they cannot.
    pub(super) fn new(name: &str, channel: &Channel, news: &Arc<News>, roster: &Sites) -> Result<Self, String> {
        let zone = channel.zone();
        let mut message = news.message(zone);
        if let Some(template) = &channel.template {
            let built_in = message.clone();
            // It was checked, on other news; whoever is told must be told all the same.
            message = template.apply(news, zone, message).unwrap_or_else(|error| {
                let text = format!("{}\n(The words of this channel could not be used: {error})\n", built_in.text);
                Message { text, ..built_in }
            });
        }
        let sites = news.source.members.keys();
        let to = match &channel.how {
            How::Smtp(mail) => {
                let found = recipients::of_mail(mail, sites, roster)?;
                if !found.no_address.is_empty() {
                    let wrong = found.no_address.join(", ");
                    tracing::warn!(
                        channel = name,
                        wrong,
                        "the roster names people by what is no address; they are not told"
                    );
                }
                found.to
            }
            _ => Vec::new(),
        };
        Ok(Self { name: name.to_owned(), channel: channel.clone(), news: news.clone(), message, to })
    }
}

/// A channel that does not work cannot tell of it.
pub(super) fn concerns_itself(incident: &Incident, channel: &str) -> bool {
    incident.kind == Kind::Channel && incident.stream.as_deref() == Some(channel)
}

impl Alerts {
    /// Hands a decision to every channel that wants it.
    pub(crate) fn notify(self: &Arc<Self>, decision: &Decision, incident: &Incident, roster: &Arc<Sites>) {
        let channels = self.notifiers.channels();
        let wanting = channels.iter().filter(|(name, channel)| {
            channel.wants(incident, decision.level, roster) && !concerns_itself(incident, name)
        });
        let mut wanting = wanting.peekable();
        if wanting.peek().is_none() {
            return;
        }
        let news = Arc::new(News::of(self, incident, decision.notice, decision.level, roster));
        wanting.for_each(|(name, channel)| self.hand_over(name, channel, &news, roster));
    }

    /// Tells a channel; what cannot be told is the channel's incident.
    fn hand_over(self: &Arc<Self>, name: &str, channel: &Channel, news: &Arc<News>, roster: &Sites) {
        match Notification::new(name, channel, news, roster) {
            Ok(notification) => {
                self.registry.tasks.spawn(self.clone().deliver(notification));
            }
            Err(problem) => self.watching.watch().set_channel(name, Some(&problem), self.registry.now()),
        }
    }

    async fn deliver(self: Arc<Self>, notification: Notification) {
        let (name, news) = (notification.name.clone(), notification.news.clone());
        while notification.channel.is_quiet(self.registry.now(), news.level) && news.notice != Notice::Resolved {
            tokio::select! {
                () = self.registry.stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            // What ended meanwhile need not wake anybody in the morning.
            let is_open = self.watching.watch().incident(news.incident).is_some_and(Incident::is_open);
            if !is_open {
                return;
            }
        }
        let id = delivered_id(news.incident, &name);
        let delivered = Delivered { level: news.level, resolved: news.notice == Notice::Resolved };
        if self.attempt(&name, move |notifiers, now| notifiers.send(&notification, now)).await
            && let Err(error) = self.remember_delivered(&id, delivered).await
        {
            tracing::error!(id, error = %describe(&error), "that people were told could not be stored; they may be told twice");
        }
    }

    async fn remember_delivered(&self, id: &str, delivered: Delivered) -> Result<(), LakeError> {
        let is_known = |view: &StateView| {
            let known = view.get(DELIVERED, id).and_then(|record| record.parse::<Delivered>().ok());
            known == Some(delivered)
        };
        let (state, now) = (self.registry.lake.state(), self.registry.now());
        if !is_known(&state.view()) {
            // It was told whether or not this node acts still.
            state
                .update(|view| Ok::<_, LakeError>((vec![view.next(DELIVERED, id, &delivered, now, "hq")?], ())))
                .await?;
        }
        Ok(())
    }

    /// Tells what was decided before a stop of HQ and, as far as is known, reached nobody. A notice
    /// that did reach them comes again with the same key.
    pub(crate) fn notify_of_what_was_missed(self: &Arc<Self>) {
        let registry = &self.registry;
        let (view, roster, now) = (registry.lake.state().view(), registry.roster.all(), registry.now());
        let is_told = |incident: &&Incident| {
            let is_recent = incident.closed_at.is_none_or(|closed| now.since(closed) < RESOLVED_LATELY);
            incident.told_level > 0 && incident.held_by.is_none() && is_recent
        };
        let incidents: Vec<Incident> = self.watching.watch().incidents().filter(is_told).cloned().collect();
        for incident in incidents {
            for (name, channel) in self.notifiers.channels().iter() {
                if !channel.wants(&incident, incident.told_level, &roster) || concerns_itself(&incident, name) {
                    continue;
                }
                let known = view.get(DELIVERED, &delivered_id(incident.id, name));
                let notice = match (incident.is_open(), known.and_then(|record| record.parse::<Delivered>().ok())) {
                    (true, None) => Notice::Opened,
                    (true, Some(known)) if known.resolved => Notice::Again,
                    (true, Some(known)) if known.level < incident.told_level => Notice::Louder,
                    (false, Some(known)) if !known.resolved => Notice::Resolved,
                    _ => continue,
                };
                let news = Arc::new(News::of(self, &incident, notice, incident.told_level, &roster));
                self.hand_over(name, channel, &news, &roster);
            }
        }
    }

    /// Tries a delivery, a bounded number of times, and tells the watch how the channel fares;
    /// whether it arrived.
    pub(super) async fn attempt(
        self: &Arc<Self>,
        name: &str,
        send: impl Fn(&Notifiers, Timestamp) -> Result<(), String> + Clone + Send + 'static,
    ) -> bool {
        let registry = &self.registry;
        let mut problem = None;
        for number in 0..ATTEMPTS {
            if number > 0 {
                tokio::select! {
                    () = registry.stop.cancelled() => return false,
                    () = tokio::time::sleep(Duration::from_secs(4_u64.pow(number - 1))) => {}
                }
            }
            if !registry.is_acting() {
                return false;
            }
            let (worker, send) = (self.clone(), send.clone());
            let sent = rollcall_runtime::blocking(move || send(&worker.notifiers, worker.registry.now())).await;
            match sent.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(()) => {
                    self.metrics.notified("sent");
                    self.watching.watch().set_channel(name, None, registry.now());
                    return true;
                }
                Err(error) => {
                    self.metrics.notified("failed");
                    tracing::warn!(channel = name, attempt = number + 1, error, "people could not be told");
                    problem = Some(error);
                }
            }
        }
        self.watching.watch().set_channel(name, problem.as_deref(), registry.now());
        false
    }
}
