//! One attempt to tell, by mail or HTTP. Blocking.

use lettre::{
    Message, SmtpTransport, Transport,
    message::Mailbox,
    transport::smtp::{authentication::Credentials as SmtpCredentials, client::Tls},
};
use ring::hmac;
use rollcall_types::{Timestamp, describe};
use serde_json::{Value, json};

use super::{
    How, Mail, MailTls, Notifiers, TIMEOUT,
    channel::PAGERDUTY_URL,
    telling::{Telling, teams},
};

impl Notifiers {
    /// Sends once; blocking.
    pub(super) fn send(&self, how: &How, telling: &Telling, now: Timestamp) -> Result<(), String> {
        match how {
            How::Smtp(mail) => send_mail(mail, &telling.title(), &telling.text()),
            How::Webhook { url, secret } => self.post(url, &telling.json(), secret.as_deref(), now),
            How::Slack { url } => {
                let text = format!("*{}*\n{}", telling.title(), telling.text());
                self.post(url, &json!({"text": text}), None, now)
            }
            How::Teams { url } => self.post(url, &teams(&telling.title(), &telling.text()), None, now),
            How::Pagerduty { routing_key, url } => {
                let url = url.as_deref().unwrap_or(PAGERDUTY_URL);
                self.post(url, &telling.pagerduty(routing_key), None, now)
            }
            How::Alertmanager { url } => {
                self.post(&format!("{}/api/v2/alerts", url.trim_end_matches('/')), &telling.alert(now), None, now)
            }
            How::DeadMan { url } => self.post(url, &json!({"alive": now}), None, now),
        }
    }

    /// Sends a plain message where that makes sense.
    pub(super) fn send_text(&self, how: &How, title: &str, text: &str, now: Timestamp) -> Result<(), String> {
        match how {
            How::Smtp(mail) => send_mail(mail, title, text),
            How::Webhook { url, secret } => {
                self.post(url, &json!({"title": title, "text": text}), secret.as_deref(), now)
            }
            How::Slack { url } => self.post(url, &json!({"text": format!("*{title}*\n{text}")}), None, now),
            How::Teams { url } => self.post(url, &teams(title, text), None, now),
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

fn send_mail(mail: &Mail, subject: &str, text: &str) -> Result<(), String> {
    let mut builder = Message::builder().subject(subject);
    builder = builder.from(mail.from.parse::<Mailbox>().map_err(|error| error.to_string())?);
    for to in &mail.to {
        builder = builder.to(to.parse::<Mailbox>().map_err(|error| error.to_string())?);
    }
    let message = builder.body(text.to_owned()).map_err(|error| error.to_string())?;
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
    transport.build().send(&message).map(|_| ()).map_err(|error| describe(&error))
}
