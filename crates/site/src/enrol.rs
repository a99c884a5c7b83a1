//! Joining HQ with an invitation, and renewing the certificate before it expires, or after.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair};
use rollcall_capture::{Source, TableSpec};
use rollcall_wire::proto::{EnrolRequest, RenewRequest, enrolment_client::EnrolmentClient};

use crate::{
    dial::{Trust, dial_with},
    error::SiteError,
    state::{Identity, Notes, StateDirectory},
};

/// The key, until it is in the identity.
pub(crate) const KEY: &str = "key.pem";
/// Under which name it is noted which database the notes are about.
const DATABASE: &str = "database";

/// What `join` needs.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// The invitation.
    pub token: String,
    /// HQ's addresses.
    pub hq_addresses: Vec<String>,
    /// The store's database.
    pub database: PathBuf,
    /// Where the agent's own files are to be, if not beside it.
    pub state: Option<PathBuf>,
    /// This database takes the place of the site's earlier one: nothing of that is missed in it.
    pub replaces_site: bool,
    /// What to capture.
    pub tables: Vec<TableSpec>,
    /// By table: the column with the time at which a row happened.
    pub event_times: BTreeMap<String, String>,
}

/// An invitation's parts: site, secret, fingerprint of HQ's CA.
struct Token {
    site: String,
    secret: String,
    fingerprint: String,
}

impl Token {
    fn parse(text: &str) -> Result<Self, SiteError> {
        let wrong = || {
            SiteError::Usage(
                "this is no invitation; it begins with rc1. and `rollcall roster invite` prints it".to_owned(),
            )
        };
        let inner = text.trim().strip_prefix("rc1.").ok_or_else(wrong)?;
        let plain =
            URL_SAFE_NO_PAD.decode(inner).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(wrong)?;
        let mut parts = plain.split(' ').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(site), Some(secret), Some(fingerprint)) => Ok(Self { site, secret, fingerprint }),
            _ => Err(wrong()),
        }
    }
}

/// Enrols with HQ and installs capture. Returns the site's id. Capture is installed last: a failed
/// enrolment changes nothing in the store's file.
pub async fn join(options: &JoinOptions) -> Result<String, SiteError> {
    let token = Token::parse(&options.token)?;
    let database = database(&options.database)?;
    if options.tables.is_empty() {
        return Err(SiteError::Usage("name the tables to capture with --tables".to_owned()));
    }
    let mut source = Source::open(&database)?;
    // All that can fail here is tried before the invitation is spent.
    source.check_tables(&options.tables)?;
    source.check_writable()?;
    for (table, column) in &options.event_times {
        let wrong = |why: &str| SiteError::Usage(format!("--event-time {table}.{column}: {why}"));
        if !options.tables.iter().any(|spec| spec.table.eq_ignore_ascii_case(table)) {
            return Err(wrong("that table is not among --tables"));
        }
        if !source.has_column(table, column)? {
            return Err(wrong("the table has no such column"));
        }
    }
    let directory = StateDirectory::of(&database, options.state.as_deref());
    if options.state.is_some() {
        directory.refuse_of_others()?;
    }
    let notes = Notes::open_to_write(&directory)?;
    if options.state.is_some() {
        refuse_another(&directory, &notes, &database)?;
    }
    let key = new_key(&directory)?;
    let csr_pem = request(&key)?;
    let mut last = SiteError::Usage("give HQ's address with --hq HOST:PORT".to_owned());
    for address in &options.hq_addresses {
        let trust = Trust::Fingerprint(token.fingerprint.clone());
        let dialed = match dial_with(address, &trust).await {
            Ok(dialed) => dialed,
            Err(failed) => {
                last = failed.error;
                continue;
            }
        };
        let mut client = EnrolmentClient::new(dialed.channel);
        let request = EnrolRequest { token: token.secret.clone(), csr_pem: csr_pem.clone() };
        let answer = client.enrol(request).await.map_err(|status| refused(address, &status))?.into_inner();
        if answer.site != token.site {
            return Err(SiteError::NotOurHq {
                address: address.clone(),
                reason: "it enrolled another site".to_owned(),
            });
        }
        directory.write_identity(&Identity {
            site: answer.site.clone(),
            hq_addresses: options.hq_addresses.clone(),
            ca_pem: answer.ca_pem,
            certificate_pem: answer.certificate_pem,
            key_pem: key.serialize_pem(),
            issued_micros: Source::clock_micros(),
            not_after_micros: answer.not_after_micros,
            database: database.clone(),
            event_times: options.event_times.clone(),
        })?;
        // The key is in the identity now; a later join makes a new one, so that an old copy is worth nothing.
        directory.remove(KEY)?;
        notes.set_text(DATABASE, &database.to_string_lossy())?;
        if options.replaces_site {
            notes.set_text(crate::session::REPLACES_SITE, "yes")?;
        }
        if notes.position()?.confirmed == rollcall_types::Seq(0) {
            notes.set_text(crate::agent::FORMAT, crate::agent::FORMAT_NOW)?;
        }
        install(&mut source, &options.tables).await?;
        source.rest();
        return Ok(answer.site);
    }
    Err(last)
}

/// Refuses a directory in which the agent of another database has its files. One that was moved is the same.
fn refuse_another(directory: &StateDirectory, notes: &Notes, database: &Path) -> Result<(), SiteError> {
    let Some(known) = notes.text(DATABASE)?.map(PathBuf::from) else { return Ok(()) };
    let is_another = match (known.canonicalize(), database.canonicalize()) {
        (Ok(known), Ok(database)) => known != database,
        _ => false,
    };
    if is_another {
        let (directory, known) = (directory.path().display(), known.display());
        let text = format!("--state {directory}: the agent of {known} has its files there; name another folder");
        return Err(SiteError::Usage(text));
    }
    Ok(())
}

/// Installs capture; a store's program that keeps the file locked for a while is waited for.
async fn install(source: &mut Source, tables: &[TableSpec]) -> Result<(), SiteError> {
    const TRIES: usize = 12;
    let journal_id = uuid::Uuid::new_v4().to_string();
    let mut installed = source.install(tables, &journal_id);
    for _ in 1..TRIES {
        match &installed {
            Err(error) if error.is_busy() => {
                tracing::warn!("the database is locked by another program; trying again");
                installed = source.install(tables, &journal_id);
            }
            _ => break,
        }
    }
    Ok(installed?)
}

/// A connection to the HQ that an invitation is from, and the invitation's secret.
#[derive(Debug)]
pub struct Invited {
    /// Only enrolment works on it.
    pub channel: tonic::transport::Channel,
    /// What enrolment takes.
    pub secret: String,
}

/// Connects to the HQ that an invitation is from, believing only the authority named in it.
pub async fn dial_invited(address: &str, token: &str) -> Result<Invited, SiteError> {
    let token = Token::parse(token)?;
    let dialed = dial_with(address, &Trust::Fingerprint(token.fingerprint)).await.map_err(|failed| failed.error)?;
    Ok(Invited { channel: dialed.channel, secret: token.secret })
}

/// A key kept from an enrolment whose reply was lost, or a new one: HQ takes the same key again.
fn new_key(directory: &StateDirectory) -> Result<KeyPair, SiteError> {
    let failed = |error: rcgen::Error| SiteError::state("making a key", error);
    let path = directory.file(KEY);
    if let Ok(text) = std::fs::read_to_string(&path)
        && let Ok(key) = KeyPair::from_pem(&text)
    {
        return Ok(key);
    }
    let key = KeyPair::generate().map_err(failed)?;
    directory.write(KEY, key.serialize_pem().as_bytes())?;
    Ok(key)
}

fn request(key: &KeyPair) -> Result<String, SiteError> {
    let made = CertificateParams::new(Vec::<String>::new())
        .and_then(|parameters| parameters.serialize_request(key))
        .and_then(|request| request.pem());
    made.map_err(|error| SiteError::state("making a certificate request", error))
}

pub(crate) fn refused(address: &str, status: &tonic::Status) -> SiteError {
    match status.code() {
        tonic::Code::PermissionDenied | tonic::Code::InvalidArgument | tonic::Code::Unauthenticated => {
            SiteError::Refused { code: "denied".to_owned(), message: status.message().to_owned() }
        }
        _ => SiteError::Unreachable { address: address.to_owned(), reason: status.message().to_owned() },
    }
}

/// Gets a new certificate for the same key. Works after the old one expired.
pub(crate) async fn renew(
    directory: &StateDirectory,
    identity: &Identity,
    hq_clock_offset: i64,
) -> Result<Identity, SiteError> {
    let key = KeyPair::from_pem(&identity.key_pem).map_err(|error| SiteError::state("reading the key", error))?;
    let csr_pem = request(&key)?;
    // No certificate is shown: an expired one would break the handshake, and the request proves the key.
    let trust = Trust::Authority { ca_pem: identity.ca_pem.clone(), identity: None };
    let mut last = SiteError::Usage("no address of HQ is known".to_owned());
    for address in &identity.hq_addresses {
        let dialed = match dial_with(address, &trust).await {
            Ok(dialed) => dialed,
            Err(failed) => {
                last = failed.error;
                continue;
            }
        };
        let request = RenewRequest { site: identity.site.clone(), csr_pem: csr_pem.clone() };
        let mut client = EnrolmentClient::new(dialed.channel);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.renew(request)).await;
        let answer = answer.map_err(|_| SiteError::Ended("HQ did not answer in time".to_owned()))?;
        let answer = answer.map_err(|status| refused(address, &status))?.into_inner();
        let renewed = Identity {
            certificate_pem: answer.certificate_pem,
            ca_pem: answer.ca_pem,
            issued_micros: Source::clock_micros().saturating_add(hq_clock_offset),
            not_after_micros: answer.not_after_micros,
            ..identity.clone()
        };
        directory.write_identity(&renewed)?;
        return Ok(renewed);
    }
    Err(last)
}

/// HQ must answer a renewal within this time.
const ANSWER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

/// Whether two thirds of the certificate's life are over.
pub(crate) fn is_renewal_due(identity: &Identity, now_micros: i64) -> bool {
    let life = identity.not_after_micros - identity.issued_micros;
    now_micros >= identity.issued_micros + life / 3 * 2
}

/// The database a command works on, from `--db`: the path as it is, from the root on. A link in it is
/// followed at each use.
pub(crate) fn database(path: &Path) -> Result<PathBuf, SiteError> {
    let failed = |error| SiteError::state(format!("opening {}", path.display()), error);
    std::path::absolute(path).map_err(failed)
}
