//! One attempt to tell, by mail or HTTP. Blocking.

use lettre::{
    SmtpTransport, Transport,
    message::{Mailbox, MultiPart},
    transport::smtp::{authentication::Credentials as SmtpCredentials, client::Tls},
};
use ring::hmac;
use rollcall_roll::Notice;
use rollcall_types::{Timestamp, describe};
use serde_json::{Value, json};

use super::{
    How, Mail, MailTls, Notifiers, TIMEOUT,
    channel::PAGERDUTY_URL,
    deliver::Notification,
    news::News,
    recipients::column_of,
    render::{Message, slack, teams},
};

impl Notifiers {
    /// Sends news once; blocking.
    pub(super) fn send(&self, notification: &Notification, now: Timestamp) -> Result<(), String> {
        let (news, message) = (&notification.news, &notification.message);
        match &notification.channel.how {
            How::Smtp(mail) => send_to_all(mail, &notification.to, message, Some((&notification.name, news))),
            How::Webhook { url, secret } => self.post(url, &news.json(message), secret.as_deref(), now),
            How::Slack { url } => self.post(url, &slack(&message.subject, &message.text), None, now),
            How::Teams { url } => {
                self.post(url, &teams(&message.subject, &message.text, news.link.as_deref()), None, now)
            }
            How::Pagerduty { routing_key, url } => {
                let url = url.as_deref().unwrap_or(PAGERDUTY_URL);
                self.post(url, &news.pagerduty(message, routing_key), None, now)
            }
            How::Alertmanager { url } => {
                let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
                self.post(&url, &news.alert(message, now), None, now)
            }
            How::DeadMan { url } => self.post(url, &json!({"alive": now}), None, now),
        }
    }

    /// Sends a message that is about no incident, where that makes sense.
    pub(super) fn send_text(&self, how: &How, message: &Message, now: Timestamp) -> Result<(), String> {
        let Message { subject, text, .. } = message;
        match how {
            How::Smtp(mail) => {
                let to: Vec<String> = mail.to.iter().filter(|to| column_of(to).is_none()).cloned().collect();
                if to.is_empty() {
                    return Err(
                        "the roll call is about all sites, and all its recipients are columns of the roster".to_owned()
                    );
                }
                send_to_all(mail, &to, message, None)
            }
            How::Webhook { url, secret } => {
                self.post(url, &json!({"title": subject, "text": text}), secret.as_deref(), now)
            }
            How::Slack { url } => self.post(url, &slack(subject, text), None, now),
            How::Teams { url } => self.post(url, &teams(subject, text, None), None, now),
            How::DeadMan { url } => self.post(url, &json!({"alive": now}), None, now),
            How::Pagerduty { .. } | How::Alertmanager { .. } => Ok(()),
        }
    }

    fn post(&self, url: &str, body: &Value, secret: Option<&str>, now: Timestamp) -> Result<(), String> {
        let body = body.to_string();
        let mut request = self.agent.post(url).header("content-type", "application/json");
        if let Some(secret) = secret {
            let stamp = now.as_seconds().to_string();
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            let signature = hmac::sign(&key, format!("{stamp}.{body}").as_bytes());
            let hex: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            request =
                request.header("x-rollcall-timestamp", stamp).header("x-rollcall-signature", format!("sha256={hex}"));
        }
        // The address may be a secret, so it is not in the error.
        let mut answer = request.send(body).map_err(|error| match error {
            ureq::Error::Io(error) => format!("cannot be reached: {error}"),
            ureq::Error::Timeout(_) => "did not answer in time".to_owned(),
            other => format!("cannot be reached: {}", other.to_string().replace(url, "its address")),
        })?;
        if answer.status().is_success() {
            return Ok(());
        }
        let text = answer.body_mut().with_config().limit(2000).read_to_string().unwrap_or_default();
        Err(format!("answered {}: {text}", answer.status()))
    }
}

/// Why a mail was not sent.
struct Unsent {
    reason: String,
    /// The server will never take it.
    is_permanent: bool,
}

/// One mail to all; where the server refuses that for good, one to each, so that one wrong address
/// keeps nobody else from it.
fn send_to_all(mail: &Mail, to: &[String], message: &Message, about: Option<(&str, &News)>) -> Result<(), String> {
    let refused = match send_mail(mail, to, message, about) {
        Ok(()) => return Ok(()),
        Err(unsent) if !unsent.is_permanent || to.len() < 2 => return Err(unsent.reason),
        Err(unsent) => unsent.reason,
    };
    let mut told = 0;
    for person in to {
        match send_mail(mail, std::slice::from_ref(person), message, about) {
            Ok(()) => told += 1,
            Err(unsent) => tracing::warn!(person, reason = unsent.reason, "this person could not be told by mail"),
        }
    }
    if told > 0 { Ok(()) } else { Err(refused) }
}

/// A mail in text and HTML. All mails about one incident are one thread: the first has an id that
/// follows from it, and the others answer that.
fn send_mail(mail: &Mail, to: &[String], message: &Message, about: Option<(&str, &News)>) -> Result<(), Unsent> {
    let built = build_mail(mail, to, message, about).map_err(|reason| Unsent { reason, is_permanent: true })?;
    let transport = transport(mail).map_err(|reason| Unsent { reason, is_permanent: false })?;
    let sent = transport.send(&built);
    sent.map(|_| ()).map_err(|error| Unsent { is_permanent: error.is_permanent(), reason: describe(&error) })
}

fn build_mail(
    mail: &Mail,
    to: &[String],
    message: &Message,
    about: Option<(&str, &News)>,
) -> Result<lettre::Message, String> {
    let from: Mailbox = mail.from.parse().map_err(|error| format!("{:?} is no address: {error}", mail.from))?;
    let domain = from.email.domain().to_owned();
    let mut builder = lettre::Message::builder().subject(&message.subject).from(from).date_now();
    for to in to {
        builder = builder.to(to.parse::<Mailbox>().map_err(|error| format!("{to:?} is no address: {error}"))?);
    }
    if let Some((channel, news)) = about {
        // Numbers of incidents come again after a restore, and two channels may tell one person in
        // different words.
        let channel: String =
            channel.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '-' }).collect();
        let (lake, id, began) = (&news.hq.lake, news.incident, news.source.opened_at.as_micros());
        let thread = format!("<rollcall.{lake}.{id}.{began}.{channel}@{domain}>");
        builder = if news.notice == Notice::Opened && !news.is_test {
            builder.message_id(Some(thread))
        } else {
            let own = format!("<rollcall.{lake}.{id}.{}@{domain}>", rollcall_runtime::new_id());
            builder.message_id(Some(own)).in_reply_to(thread.clone()).references(thread)
        };
    } else {
        builder = builder.message_id(Some(format!("<rollcall.{}@{domain}>", rollcall_runtime::new_id())));
    }
    let body = MultiPart::alternative_plain_html(message.text.clone(), message.html.clone());
    builder.multipart(body).map_err(|error| error.to_string())
}

fn transport(mail: &Mail) -> Result<SmtpTransport, String> {
    let relay = match mail.tls {
        MailTls::Starttls => SmtpTransport::starttls_relay(&mail.host),
        MailTls::Tls => SmtpTransport::relay(&mail.host),
        MailTls::None => Ok(SmtpTransport::builder_dangerous(&mail.host).tls(Tls::None)),
    };
    let mut transport = relay.map_err(|error| describe(&error))?.timeout(Some(TIMEOUT));
    if let Some(port) = mail.port {
        transport = transport.port(port);
    }
    if let (Some(username), Some(password)) = (&mail.username, &mail.password) {
        transport = transport.credentials(SmtpCredentials::new(username.clone(), password.clone()));
    }
    Ok(transport.build())
}
