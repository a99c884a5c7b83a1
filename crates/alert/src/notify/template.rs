//! A channel's own words, in the place of the built-in ones: templates as of Jinja, over [`News`].

use chrono_tz::Tz;
use minijinja::{Environment, UndefinedBehavior, value::Serde};
use rollcall_registry::Sites;
use rollcall_roll::{Attribute, Incident, Kind, Member, Notice};
use rollcall_types::{Cause, SiteId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    news::{Hq, News, local},
    render::{Message, escape_html},
};

/// What of a message is said in other words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The subject of a mail, the first line elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// What a template may name.
#[derive(Serialize)]
struct Context<'a> {
    #[serde(flatten)]
    news: &'a News,
    /// The message as it would be.
    built_in: &'a Message,
}

impl Template {
    /// The message in these words; what they do not say stays as it is. An error says where the
    /// template is wrong.
    pub(super) fn apply(&self, news: &News, reader: Tz, built_in: Message) -> Result<Message, String> {
        let mut environment = Environment::new();
        // A misspelt name is an error, not an empty place.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.add_filter("local", move |at: String| at.parse::<Timestamp>().map_or(at, |at| local(at, reader)));
        let render = |what: &str, source: &str| {
            let context = minijinja::Value::from(Serde(Context { news, built_in: &built_in }));
            environment.render_str(source, context).map_err(|error| format!("the template of the {what}: {error:#}"))
        };
        let subject = self.subject.as_ref().map(|source| render("subject", source)).transpose()?;
        let text = self.text.as_ref().map(|source| render("text", source)).transpose()?;
        let html = text.as_ref().map(|text| {
            let text = escape_html(text);
            format!("<!doctype html><html><head><meta charset=\"utf-8\"></head><body style=\"font-family:sans-serif;white-space:pre-line\">{text}</body></html>")
        });
        Ok(Message {
            // A header has no lines.
            subject: subject
                .map_or(built_in.subject, |subject| subject.split_whitespace().collect::<Vec<_>>().join(" ")),
            text: text.unwrap_or(built_in.text),
            html: html.unwrap_or(built_in.html),
        })
    }

    /// Tries it on made-up news of several kinds, so that a mistake shows when it is set and not
    /// when it is needed.
    pub(super) fn check(&self) -> Result<(), String> {
        for news in samples() {
            let built_in = news.message(Tz::UTC);
            self.apply(&news, Tz::UTC, built_in)?;
        }
        Ok(())
    }
}

/// News of a site, of a group and of HQ itself; begun, and over.
pub(super) fn samples() -> Vec<News> {
    let at = Timestamp::from_seconds(1_800_000_000);
    let of = |kind: Kind, sites: &[&str], attribute: Option<Attribute>, notice: Notice| {
        let mut incident = Incident::new(1, kind, at, at);
        let ids = sites.iter().filter_map(|site| SiteId::new(site).ok());
        incident.members = ids.map(|site| (site, Member { since: at, until: None })).collect();
        incident.attribute = attribute;
        incident.cause = (!sites.is_empty()).then_some(Cause::PowerOrLink);
        "11 minutes of contact should have come".clone_into(&mut incident.evidence);
        if notice == Notice::Resolved {
            incident.close("the site is back", at);
        }
        News::sample(incident, notice)
    };
    let provider = Attribute { name: "isp".to_owned(), value: "Cascade Fiber".to_owned() };
    vec![
        of(Kind::Silence, &["tacoma-01"], None, Notice::Opened),
        of(Kind::Silence, &["tacoma-01"], None, Notice::Resolved),
        of(Kind::Group, &["tacoma-01", "spokane-01", "boise-01"], Some(provider), Notice::Louder),
        of(Kind::HqBlind, &[], None, Notice::Opened),
    ]
}

impl News {
    /// Made up, of an incident that may not exist.
    pub(super) fn sample(incident: Incident, notice: Notice) -> Self {
        let hq = Hq { name: "Rollcall HQ".to_owned(), lake: "lake".to_owned(), url: None };
        let (now, level) = (incident.opened_at, incident.level.max(1));
        Self::plain(hq, &incident, notice, level, &Sites::default(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(subject: &str, text: &str) -> Template {
        Template { subject: Some(subject.to_owned()), text: Some(text.to_owned()) }
    }

    #[test]
    fn words_of_ones_own_are_checked_before_they_are_needed() {
        let text = "{{ about }} since {{ since|local }}{% for site in sites %} {{ site.name }}{% endfor %}\n{{ built_in.text }}";
        let good = template("{{ hq.name }}: {{ what }}", text);
        assert_eq!(good.check(), Ok(()));
        let news = &samples()[0];
        let message = good.apply(news, Tz::Europe__Berlin, news.message(Tz::UTC)).expect("renders");
        assert_eq!(message.subject, "Rollcall HQ: tacoma-01 is not heard.");
        assert!(message.text.starts_with("tacoma-01 since Fri 15 Jan 09:00 CET tacoma-01"), "{}", message.text);
        for (subject, text) in [("{{ abuot }}", "x"), ("x", "{{ about"), ("x", "{{ sites[0].nmae }}")] {
            let error = template(subject, text).check().expect_err(text);
            assert!(error.contains("the template of the"), "{error}");
        }
    }

    #[test]
    fn a_subject_fits_a_lock_screen_and_says_what_matters_first() {
        for news in samples() {
            let subject = news.subject(Tz::UTC);
            assert!(subject.chars().count() <= 78 && !subject.contains('\n'), "{subject}");
        }
        let subjects: Vec<String> = samples().iter().map(|news| news.subject(Tz::UTC)).collect();
        assert_eq!(subjects[0], "tacoma-01: not heard since 08:00 UTC (level 1)");
        assert_eq!(subjects[1], "Over: tacoma-01: is heard again");
        assert_eq!(subjects[2], "Cascade Fiber (isp): 3 sites not heard (now level 1)");
    }

    #[test]
    fn what_a_roster_says_is_never_markup() {
        let mut news = samples().remove(0);
        news.what = "<script>alert(1)</script> is not heard.".to_owned();
        let message = news.message(Tz::UTC);
        assert!(!message.html.contains("<script>") && message.text.contains("<script>"));
    }
}
