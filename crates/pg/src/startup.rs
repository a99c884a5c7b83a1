//! Lets clients in: nobody without a password, nor beyond loopback without TLS.

use std::{collections::HashMap, fmt, sync::Arc};

use async_trait::async_trait;
use futures::Sink;
use pgwire::{
    api::{
        ClientInfo, PgWireConnectionState, RandomPidSecretKeyGenerator,
        auth::{
            AuthSource, LoginInfo, Password, ServerParameterProvider, StartupHandler,
            sasl::{SASLAuthStartupHandler, scram::ScramAuth},
        },
    },
    error::{ErrorInfo, PgWireError, PgWireResult},
    messages::{PgWireBackendMessage, PgWireFrontendMessage},
};

use super::{Backend, session::Session, settings::Settings};

/// Checks passwords without knowing them.
#[derive(Clone)]
struct Passwords(Arc<dyn Backend>);

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords")
    }
}

#[async_trait]
impl AuthSource for Passwords {
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        let (salt, salted) =
            self.0.scram(login.user().unwrap_or_default()).map_err(|failure| fatal("28P01", failure))?;
        Ok(Password::new(Some(salt), salted))
    }
}

/// Tells a client that is let in what its settings are.
#[derive(Debug)]
struct Told(Arc<Session>);

impl ServerParameterProvider for Told {
    fn server_parameters<C: ClientInfo>(&self, _: &C) -> Option<HashMap<String, String>> {
        let told = self.0.state().settings.reported();
        Some(told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

/// How one connection starts.
pub(super) struct Startup {
    scram: SASLAuthStartupHandler<Told>,
    session: Arc<Session>,
    backend: Arc<dyn Backend>,
    needs_tls: bool,
}

/// Gives each connection of a port a number of its own, and a secret.
pub(super) type Numbers = Arc<RandomPidSecretKeyGenerator>;

impl Startup {
    pub(super) fn new(backend: Arc<dyn Backend>, session: Arc<Session>, numbers: Numbers, needs_tls: bool) -> Self {
        let scram = SASLAuthStartupHandler::new(Arc::new(Told(session.clone())))
            .with_scram(ScramAuth::new(Arc::new(Passwords(backend.clone()))))
            .with_pid_secret_key_generator(numbers);
        Self { scram, session, backend, needs_tls }
    }
}

pub(super) fn fatal(code: &str, text: String) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".to_owned(), code.to_owned(), text)))
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if self.needs_tls && !client.is_secure() {
            return Err(fatal("28000", "TLS is needed: connect with sslmode=require".to_owned()));
        }
        if let PgWireFrontendMessage::Startup(startup) = &message {
            let settings = Settings::new(given(&startup.parameters).map_err(|text| fatal("22023", text))?);
            self.session.state().settings = settings.map_err(|failure| fatal("22023", failure.to_string()))?;
        }
        let (user, from) = (client.metadata().get("user").cloned().unwrap_or_default(), client.socket_addr().ip());
        let user = match &message {
            PgWireFrontendMessage::Startup(startup) => startup.parameters.get("user").cloned().unwrap_or(user),
            _ => user,
        };
        self.backend.may_try(&user, from).map_err(|why| fatal("28000", why))?;
        let is_answer = matches!(message, PgWireFrontendMessage::PasswordMessageFamily(_));
        let outcome = self.scram.on_startup(client, message).await;
        if is_answer && (outcome.is_err() || matches!(client.state(), PgWireConnectionState::ReadyForQuery)) {
            self.backend.tried(&user, from, outcome.is_ok());
        }
        // The library does not know whom it refused.
        outcome.map_err(|error| match error {
            PgWireError::InvalidPassword(_) => {
                fatal("28P01", format!("password authentication failed for user \"{user}\""))
            }
            error => error,
        })
    }
}

/// The settings that a client gives when it connects, those in `options` too.
fn given<'a>(parameters: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<Vec<(String, String)>, String> {
    let mut given = Vec::new();
    for (name, value) in parameters {
        match name.as_str() {
            "user" | "database" => {}
            "replication" if matches!(value.as_str(), "false" | "off" | "no" | "0") => {}
            "replication" => return Err("replication is not possible here".to_owned()),
            "options" => given.extend(options(value)?),
            name if name.starts_with("_pq_.") => {}
            name => given.push((name.to_owned(), value.clone())),
        }
    }
    Ok(given)
}

/// The settings in `-c name=value --name=value`; a backslash keeps a blank.
fn options(text: &str) -> Result<Vec<(String, String)>, String> {
    let (mut words, mut word, mut letters) = (Vec::new(), String::new(), text.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => word.extend(letters.next()),
            blank if blank.is_whitespace() => words.push(std::mem::take(&mut word)),
            letter => word.push(letter),
        }
    }
    words.push(word);
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut given = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("-c") {
            Some("") => words.next().unwrap_or_default(),
            Some(setting) => setting.to_owned(),
            None => match word.strip_prefix("--") {
                Some(setting) => setting.replace('-', "_"),
                None => return Err(format!("the connection option {word:?} is not known; -c name=value is")),
            },
        };
        match setting.split_once('=') {
            Some((name, value)) => given.push((name.to_owned(), value.to_owned())),
            None => return Err(format!("the connection option {setting:?} has no value")),
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_settings() {
        let found = options("-c rollcall.coverage=strict  -cstatement_timeout=5s --time\\ zone=UTC -c a.b=x\\ y")
            .expect("valid");
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            found,
            [("rollcall.coverage", "strict"), ("statement_timeout", "5s"), ("time zone", "UTC"), ("a.b", "x y")]
        );
        assert!(options("-d 5").is_err());
        assert!(options("-c novalue").is_err());
    }
}
