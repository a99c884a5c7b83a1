//! What people can see of channels before they need them: previews, tests, who hears of whom.

use std::{collections::BTreeMap, sync::Arc};

use rollcall_registry::HqError;
use rollcall_roll::{Incident, Kind, Member, Notice};
use rollcall_types::SiteId;
use serde::Serialize;

use super::{
    channel::{Channel, How},
    deliver::Notification,
    news::News,
    recipients::{self, Route},
    render::Message,
};
use crate::{alerts::Alerts, arrived::ArrivedSource};

/// What a channel would say, and to whom.
#[derive(Debug, Clone, Serialize)]
pub struct Preview {
    /// The message as it would be sent.
    #[serde(flatten)]
    pub message: Message,
    /// The people to whom a mail would go; nobody is named for other channels.
    pub to: Vec<String>,
}

impl Alerts {
    fn channel(&self, name: &str) -> Result<Channel, HqError> {
        let channel = self.notifiers.channels().get(name).cloned();
        channel.ok_or_else(|| HqError::NotFound(format!("there is no channel {name:?}")))
    }

    /// What a channel would say of an incident; of the roll, if of none. Nobody is told.
    pub fn preview(
        &self,
        name: &str,
        incident: Option<&Incident>,
        arrived: &ArrivedSource,
    ) -> Result<Preview, HqError> {
        let channel = self.channel(name)?;
        let Some(incident) = incident else {
            return Ok(Preview { message: self.daily_message(&channel, arrived), to: Vec::new() });
        };
        let roster = self.registry.roster.all();
        let notice = if incident.is_open() { Notice::Opened } else { Notice::Resolved };
        let news = Arc::new(News::of(self, incident, notice, incident.level.max(1), &roster));
        let notification = Notification::new(name, &channel, &news, &roster).map_err(HqError::Invalid)?;
        Ok(Preview { message: notification.message, to: notification.to })
    }

    /// Who hears of a site's silence, from which level on.
    pub fn who(&self, site: &SiteId) -> Vec<Route> {
        let registry = &self.registry;
        recipients::who(&self.notifiers.channels(), site, &registry.roster.all(), registry.now())
    }

    /// How many sites lack each column of the roster that a channel's addresses are taken from.
    pub fn lacking_columns(&self, channel: &Channel) -> BTreeMap<String, usize> {
        recipients::lacking_columns(channel, &self.registry.roster.all())
    }

    /// An incident as plain text, as the page about it shows it.
    pub fn described(&self, incident: &Incident) -> String {
        let notice = if incident.is_open() { Notice::Opened } else { Notice::Resolved };
        let news = News::of(self, incident, notice, incident.level.max(1), &self.registry.roster.all());
        news.message(chrono_tz::Tz::UTC).text
    }

    /// Sends a test message, once, ends what that opened elsewhere, and says what happened.
    pub async fn test_channel(self: &Arc<Self>, name: &str) -> Result<(), HqError> {
        let (channel, now) = (self.channel(name)?, self.registry.now());
        let mut incident = Incident::new(0, Kind::Channel, now, now);
        incident.stream = Some(name.to_owned());
        incident.evidence = format!("This is a test of channel {name}. Nothing is wrong.");
        let mut notifications = vec![self.test_notification(name, &channel, &incident, Notice::Opened)?];
        if matches!(channel.how, How::Pagerduty { .. } | How::Alertmanager { .. }) {
            incident.close("it was a test", now);
            notifications.push(self.test_notification(name, &channel, &incident, Notice::Resolved)?);
        }
        let worker = self.clone();
        let send = move || {
            let send = |notification| worker.notifiers.send(notification, worker.registry.now());
            notifications.iter().try_for_each(send)
        };
        let result = rollcall_runtime::blocking(send).await.unwrap_or_else(|error| Err(error.to_string()));
        let problem = result.as_ref().err().map(String::as_str);
        self.watching.watch().set_channel(name, problem, self.registry.now());
        result.map_err(|error| HqError::Invalid(format!("channel {name}: {error}")))
    }

    fn test_notification(
        &self,
        name: &str,
        channel: &Channel,
        incident: &Incident,
        notice: Notice,
    ) -> Result<Notification, HqError> {
        let (roster, now) = (self.registry.roster.all(), self.registry.now());
        let mut news = News::of(self, incident, notice, 1, &roster);
        (news.is_test, news.what) = (true, incident.evidence.clone());
        news.also_told.clear();
        news.likely.clear();
        news.check.clear();
        // Where recipients are columns of the roster, a test is about the first site that has them.
        let of_one = roster.keys().find(|site| match &channel.how {
            How::Smtp(mail) => recipients::of_mail(mail, [*site].into_iter(), &roster).is_ok(),
            _ => false,
        });
        news.source.members =
            of_one.map(|site| (site.clone(), Member { since: now, until: None })).into_iter().collect();
        Notification::new(name, channel, &Arc::new(news), &roster).map_err(HqError::Invalid)
    }
}
