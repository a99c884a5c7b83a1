//! What goes out regularly: the daily roll call, what Alertmanager must hear again, the sign that
//! the watch is alive.

use std::{sync::Arc, time::Duration};

use chrono::NaiveTime;
use rollcall_roll::{Incident, Notice};
use rollcall_types::Timestamp;

use super::{
    channel::{Channel, How, time_of},
    deliver::{Notification, concerns_itself},
    news::{Hq, News},
    render::Message,
    roll_call::RollCall,
};
use crate::{alerts::Alerts, arrived::ArrivedSource};

/// How often Alertmanager is told again of what is open, and the outside service that the watch is
/// alive.
const REFRESH_EVERY: Duration = Duration::from_secs(60);

impl Alerts {
    /// Tells what goes out regularly, and first what was not told before HQ stopped, until the node
    /// stops. `arrived` says for the roll call who has what was published.
    pub async fn run_notifiers(self: Arc<Self>, arrived: ArrivedSource) {
        let registry = &self.registry;
        let mut timer = rollcall_runtime::every(REFRESH_EVERY);
        let mut before = registry.now();
        if registry.relay().is_none() {
            self.notify_of_what_was_missed();
        }
        loop {
            tokio::select! {
                () = registry.stop.cancelled() => return,
                _ = timer.tick() => {}
            }
            let now = registry.now();
            if !registry.is_acting() {
                // What was due a moment before this node acts may not have been done.
                before = before.max(now.before(REFRESH_EVERY * 2));
                continue;
            }
            for (name, channel) in self.notifiers.channels().iter() {
                match &channel.how {
                    How::DeadMan { .. } => self.ping(name, channel, now),
                    How::Alertmanager { .. } => self.refresh(name, channel),
                    _ => {}
                }
                let due = channel.daily_at.as_ref().and_then(|at| time_of(at).ok());
                if due.is_some_and(|due| is_between(channel.local(before), due, channel.local(now))) {
                    self.send_daily(name, channel, &arrived);
                }
            }
            before = now;
        }
    }

    fn ping(self: &Arc<Self>, name: &str, channel: &Channel, now: Timestamp) {
        // Only a watch that ticks is alive.
        if now.since(self.watching.watch().now()) > REFRESH_EVERY {
            return;
        }
        self.send_regular(name, channel, Message::EMPTY);
    }

    fn refresh(self: &Arc<Self>, name: &str, channel: &Channel) {
        let roster = self.registry.roster.all();
        let open: Vec<Incident> = {
            let watch = self.watching.watch();
            watch.incidents().filter(|incident| incident.is_open() && !incident.told.is_empty()).cloned().collect()
        };
        let wanted = open.into_iter().filter(|incident| channel.wants(incident, incident.level, &roster));
        let wanted = wanted.filter(|incident| !concerns_itself(incident, name));
        let notifications: Vec<Notification> = wanted
            .filter_map(|incident| {
                // It comes every minute, of everything that is open: without what takes long to
                // work out.
                let news = Arc::new(News::brief(self, &incident, Notice::Repeated, incident.level, &roster));
                Notification::new(name, channel, &news, &roster).ok()
            })
            .collect();
        if notifications.is_empty() {
            return;
        }
        let (alerts, name) = (self.clone(), name.to_owned());
        self.registry.tasks.spawn(async move {
            let send_all = move |notifiers: &super::Notifiers, now| {
                notifications.iter().try_for_each(|notification| notifiers.send(notification, now))
            };
            alerts.attempt(&name, send_all).await;
        });
    }

    fn send_daily(self: &Arc<Self>, name: &str, channel: &Channel, arrived: &ArrivedSource) {
        let message = self.daily_message(channel, arrived);
        self.send_regular(name, channel, message);
    }

    /// Sends what is about no incident.
    fn send_regular(self: &Arc<Self>, name: &str, channel: &Channel, message: Message) {
        let (alerts, name, how) = (self.clone(), name.to_owned(), channel.how.clone());
        self.registry.tasks.spawn(async move {
            alerts.attempt(&name, move |notifiers, now| notifiers.send_text(&how, &message, now)).await;
        });
    }

    pub(super) fn daily_message(&self, channel: &Channel, arrived: &ArrivedSource) -> Message {
        const GROUPS: [&str; 4] = ["region", "state", "country", "format"];
        let (roster, incidents) = (self.registry.roster.all(), self.incidents());
        let has = |name: &&&str| roster.values().any(|record| record.attributes.get(name).is_some());
        let call = RollCall {
            hq: &Hq::of(self),
            roll: &self.roll(),
            incidents: &incidents,
            arrived: &arrived(),
            roster: &roster,
            group_by: GROUPS.iter().find(has).copied().unwrap_or("region"),
            now: self.registry.now(),
        };
        call.message(channel.zone())
    }
}

/// Whether `due` lies in the minutes after `before` up to `now`, over midnight too.
fn is_between(before: NaiveTime, due: NaiveTime, now: NaiveTime) -> bool {
    if before <= now { before < due && due <= now } else { due > before || due <= now }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daily_time_comes_once() {
        let at = |text| time_of(text).expect("valid");
        assert!(is_between(at("06:59"), at("07:00"), at("07:00")));
        assert!(!is_between(at("07:00"), at("07:00"), at("07:01")));
        assert!(is_between(at("23:59"), at("00:00"), at("00:00")));
    }
}
