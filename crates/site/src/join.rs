//! Joining HQ with an invitation.
//!
//! The order is what makes it safe to fail at any step. First all that can be looked at without
//! changing anything: the
//! tables, the database's own locks and rights, the agent's files, HQ's address, and with HQ
//! whether the invitation is
//! good. Then the triggers. The invitation is spent last, with a key that is on disk by then:
//! whatever breaks off after
//! that, the same command run again gets the same answer, since HQ takes the same key again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use rollcall_capture::{CaptureError, Source, TableSpec, clock_micros};
use rollcall_types::Timestamp;
use rollcall_wire::proto::{Checked, EnrolRequest, LeftOut, enrolment_client::EnrolmentClient};
use tonic::transport::Channel;

use crate::{
    address::check_address,
    claim::claim,
    dial::{Trust, dial_with},
    enrol::{KEY, database, new_key, refused, request},
    error::SiteError,
    kinds::database_at,
    state::{Identity, Notes, StateDirectory},
    token::Token,
};

/// Holds the site's id while a join is under way.
pub(crate) const BEGUN: &str = "joining";
/// Under which name it is noted which database the notes are about.
const DATABASE: &str = "database";
/// HQ must answer within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// A clock further off than this is said; certificates and times of rows depend on it.
const CLOCK_OFF_MICROS: u64 = 120_000_000;
/// How often a database that another program has locked is tried; each try waits some seconds.
const LOCKED_TRIES: usize = 12;

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
    /// This database is the site's now, though it was another site's.
    pub replaces_site: bool,
    /// What to capture.
    pub tables: Vec<TableSpec>,
    /// Columns that are captured although the site's database before left them out: table and
    /// column.
    pub included: Vec<(String, String)>,
    /// Whom people at the store are to call when something is wrong.
    pub contact: Option<String>,
    /// By table: the column with the time at which a row happened.
    pub event_times: BTreeMap<String, String>,
}

/// What was found by looking, before anything is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The site that the invitation is for.
    pub site: String,
    /// The address at which HQ answers.
    pub hq: String,
    /// Until when the invitation is good, by HQ's clock.
    pub expires: Timestamp,
    /// When a database joined as this site last; this one takes its place.
    pub enrolled: Option<Timestamp>,
    /// This machine's clock less HQ's, microseconds.
    pub clock_off_micros: i64,
    /// Columns that stay out because the site's database before left them out, as `table.column`.
    pub stays_out: Vec<String>,
    /// What is captured, without those.
    tables: Vec<TableSpec>,
}

impl Readiness {
    /// What a person should know before going on.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.clock_off_micros.unsigned_abs() > CLOCK_OFF_MICROS {
            let minutes = self.clock_off_micros.unsigned_abs() / 60_000_000;
            let way = if self.clock_off_micros > 0 { "ahead of" } else { "behind" };
            warnings.push(format!("this machine's clock is {minutes} minutes {way} HQ's: set it right"));
        }
        if let Some(enrolled) = self.enrolled {
            warnings.push(format!(
                "a database joined as {} before, at {enrolled}: this one takes its place, and the agent there is refused from then on",
                self.site
            ));
        }
        warnings.extend(self.stays_out.iter().map(|column| {
            format!("{column} was left out before and stays out; --include {column} sends it from now on")
        }));
        warnings
    }
}

/// Looks at everything that joining needs and changes nothing, neither here nor at HQ.
pub async fn check(options: &JoinOptions) -> Result<Readiness, SiteError> {
    let mut plan = Plan::new(options)?;
    plan.look()?;
    let key = std::fs::read_to_string(plan.directory.file(KEY)).ok();
    let key = key.and_then(|text| rcgen::KeyPair::from_pem(&text).ok());
    let csr_pem = key.map(|key| request(&key)).transpose()?.unwrap_or_default();
    Ok(plan.call(&csr_pem).await?.1)
}

/// Joins. Returns what was found; the site's id is in it.
pub async fn join(options: &JoinOptions) -> Result<Readiness, SiteError> {
    let mut plan = Plan::new(options)?;
    plan.look()?;
    // Whoever tries again calls HQ with the key of before.
    let was_there = plan.directory.path().exists();
    let key = new_key(&plan.directory)?;
    let csr_pem = request(&key)?;
    // Nobody else may be at work on the agent's files.
    let _claim = claim(&plan.directory)?;
    let (mut hq, ready) = match plan.call(&csr_pem).await {
        Ok(called) => called,
        Err(error) => {
            plan.leave_nothing(was_there);
            return Err(error);
        }
    };
    if plan.is_of_another_site {
        plan.begin_anew()?;
    }
    let notes = Notes::open_to_write(&plan.directory)?;
    plan.directory.write(BEGUN, plan.token.site.as_bytes())?;
    let was_installed = patiently(|| plan.source.is_installed())?;
    patiently(|| plan.source.install(&ready.tables, &uuid::Uuid::new_v4().to_string()))?;
    let left_out = ready.tables.iter().filter(|spec| !spec.excluded.is_empty());
    let left_out = left_out.map(|spec| LeftOut { table: spec.table.clone(), columns: spec.excluded.clone() });
    let request = EnrolRequest { token: plan.token.secret.clone(), csr_pem, left_out: left_out.collect() };
    let answer = match answered(&ready.hq, hq.enrol(request)).await {
        Err(error @ SiteError::Refused { .. }) if !was_installed => {
            // HQ has nothing of this database, and will not.
            patiently(|| plan.source.detach(None, true))?;
            plan.directory.remove(BEGUN)?;
            return Err(error);
        }
        answer => answer?,
    };
    notes.set_text(DATABASE, &plan.database.to_string_lossy())?;
    if notes.position()?.confirmed == rollcall_types::Seq(0) {
        notes.set_text(crate::agent::FORMAT, crate::agent::FORMAT_NOW)?;
    }
    patiently(|| plan.source.set_site(&ready.site))?;
    plan.directory.write_identity(&Identity {
        site: answer.site,
        hq_addresses: options.hq_addresses.clone(),
        ca_pem: answer.ca_pem,
        certificate_pem: answer.certificate_pem,
        key_pem: key.serialize_pem(),
        issued_micros: clock_micros(),
        not_after_micros: answer.not_after_micros,
        database: plan.database.clone(),
        event_times: options.event_times.clone(),
        contact: options.contact.clone(),
    })?;
    plan.directory.remove(BEGUN)?;
    // The key is in the identity now; a later join makes a new one, so that an old copy is worth
    // nothing.
    plan.directory.remove(KEY)?;
    plan.source.rest();
    Ok(ready)
}

/// A join that is being looked at.
struct Plan<'a> {
    options: &'a JoinOptions,
    token: Token,
    database: PathBuf,
    directory: StateDirectory,
    source: Box<dyn Source>,
    /// The database was another site's, and a person said that it is this one's now.
    is_of_another_site: bool,
}

/// Whether the agent's directory can be made where it is not there yet; nothing of the try stays.
fn check_makeable(directory: &StateDirectory) -> Result<(), SiteError> {
    let made = directory.path();
    if made.exists() {
        return Ok(());
    }
    let Some(there) = made.ancestors().find(|folder| folder.exists()) else { return Ok(()) };
    let probe = there.join(format!(".rollcall-probe-{}", std::process::id()));
    let tried = std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe));
    tried.map_err(|error| SiteError::state(format!("making {}", made.display()), error))
}

impl<'a> Plan<'a> {
    fn new(options: &'a JoinOptions) -> Result<Self, SiteError> {
        let token = Token::parse(&options.token)?;
        if options.hq_addresses.is_empty() {
            return Err(SiteError::Usage("give HQ's address with --hq HOST:PORT".to_owned()));
        }
        options.hq_addresses.iter().try_for_each(|address| check_address(address))?;
        if options.tables.is_empty() {
            return Err(SiteError::Usage("name the tables to capture with --tables, or --tables all".to_owned()));
        }
        let database = database(&options.database)?;
        if !database.exists() {
            return Err(SiteError::Usage(format!("there is no database {}", options.database.display())));
        }
        let directory = StateDirectory::of(&database, options.state.as_deref());
        if options.state.is_some() {
            directory.refuse_of_others()?;
        }
        let source = database_at(&database).source()?;
        Ok(Self { options, token, database, directory, source, is_of_another_site: false })
    }

    /// Looks at all that is here, and changes nothing.
    fn look(&mut self) -> Result<(), SiteError> {
        patiently(|| self.source.check_tables(&self.options.tables))?;
        patiently(|| self.source.check_writable())?;
        check_makeable(&self.directory)?;
        for (table, column) in &self.options.event_times {
            let wrong = |why: &str| SiteError::Usage(format!("--event-time {table}.{column}: {why}"));
            if !self.options.tables.iter().any(|spec| spec.table.eq_ignore_ascii_case(table)) {
                return Err(wrong("that table is not among --tables"));
            }
            if !patiently(|| self.source.has_column(table, column))? {
                return Err(wrong("the table has no such column"));
            }
        }
        if self.options.state.is_some()
            && let Ok(notes) = Notes::look(&self.directory)
        {
            refuse_another(&self.directory, &notes, &self.database)?;
        }
        self.look_whose_it_is()
    }

    /// Refuses a database that is another site's: its journal goes on from what HQ has of that one.
    fn look_whose_it_is(&mut self) -> Result<(), SiteError> {
        let of_files = self.directory.identity().ok().map(|identity| identity.site);
        let Some(known) = of_files.or(patiently(|| self.source.site())?).filter(|known| *known != self.token.site)
        else {
            return Ok(());
        };
        if self.options.replaces_site {
            self.is_of_another_site = true;
            return Ok(());
        }
        let (database, site) = (self.options.database.display(), &self.token.site);
        Err(SiteError::Usage(format!(
            "{database} belongs to the site {known}, and the invitation is for {site}. Ask HQ for one for {known}; or, if this is a copy \
             that is {site}'s now, add --replace-site: what is noted of {known} here is forgotten, and every row is sent as {site}'s"
        )))
    }

    /// Calls HQ at its addresses in turn, and asks whether the invitation is good.
    async fn call(&mut self, csr_pem: &str) -> Result<(EnrolmentClient<Channel>, Readiness), SiteError> {
        let mut last = None;
        for address in &self.options.hq_addresses {
            let trust = Trust::Fingerprint(self.token.fingerprint.clone());
            let dialed = match dial_with(address, &trust).await {
                Ok(dialed) => dialed,
                Err(failed) => {
                    last = Some(failed.error);
                    continue;
                }
            };
            let mut client = EnrolmentClient::new(dialed.channel);
            let request =
                EnrolRequest { token: self.token.secret.clone(), csr_pem: csr_pem.to_owned(), left_out: Vec::new() };
            let ready = self.understood(address, answered(address, client.check(request)).await?)?;
            return Ok((client, ready));
        }
        Err(last.unwrap_or_else(|| SiteError::Usage("no address of HQ is known".to_owned())))
    }

    fn understood(&mut self, address: &str, checked: Checked) -> Result<Readiness, SiteError> {
        if checked.site != self.token.site {
            let reason = "it says that the invitation is for another site".to_owned();
            return Err(SiteError::NotOurHq { address: address.to_owned(), reason });
        }
        let (tables, stays_out) = self.without(&checked.left_out)?;
        Ok(Readiness {
            tables,
            stays_out,
            site: checked.site,
            hq: address.to_owned(),
            expires: Timestamp::from_micros(checked.expires_micros),
            enrolled: Some(checked.enrolled_micros).filter(|at| *at != 0).map(Timestamp::from_micros),
            clock_off_micros: clock_micros().saturating_sub(checked.now_micros),
        })
    }

    /// What is captured, without the columns that the site's database before left out; and which
    /// these are. What nobody says now stays as it was.
    fn without(&mut self, left_out: &[LeftOut]) -> Result<(Vec<TableSpec>, Vec<String>), SiteError> {
        let (mut tables, mut stays_out) = (self.options.tables.clone(), Vec::new());
        for before in left_out {
            let same = |spec: &&mut TableSpec| spec.table.eq_ignore_ascii_case(&before.table);
            let Some(spec) = tables.iter_mut().find(same) else { continue };
            for column in &before.columns {
                let is_said = spec.excluded.iter().any(|said| said.eq_ignore_ascii_case(column))
                    || self.options.included.iter().any(|(table, included)| {
                        table.eq_ignore_ascii_case(&before.table) && included.eq_ignore_ascii_case(column)
                    });
                if !is_said && patiently(|| self.source.has_column(&before.table, column))? {
                    spec.excluded.push(column.clone());
                    stays_out.push(format!("{}.{column}", before.table));
                }
            }
        }
        Ok((tables, stays_out))
    }

    /// A join that HQ refused leaves no key behind, and no directory that was not there.
    fn leave_nothing(&self, was_there: bool) {
        let is_under_way = self.directory.file(BEGUN).exists();
        if !is_under_way && self.directory.remove(KEY).is_ok() && !was_there {
            // What others put there meanwhile keeps it.
            let _ = self.directory.remove(crate::claim::FILE);
            let _ = std::fs::remove_dir(self.directory.path());
        }
    }

    /// Takes everything away that is about another site.
    fn begin_anew(&mut self) -> Result<(), SiteError> {
        patiently(|| self.source.detach(None, true))?;
        self.directory.forget_notes()
    }
}

/// HQ's answer to a question of enrolment.
async fn answered<T>(
    address: &str,
    asked: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, SiteError> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
    let answer = answer.map_err(|_| SiteError::Unreachable {
        address: address.to_owned(),
        reason: "HQ did not answer in time; run the same command again".to_owned(),
    })?;
    Ok(answer.map_err(|status| refused(address, &status))?.into_inner())
}

/// Does something with the database; a store's program that keeps the file locked for a while is
/// waited for.
pub fn patiently<T>(mut work: impl FnMut() -> Result<T, CaptureError>) -> Result<T, SiteError> {
    let mut done = work();
    for _ in 1..LOCKED_TRIES {
        match &done {
            Err(error) if error.is_busy() => {
                tracing::warn!("the database is locked by another program; trying again");
                done = work();
            }
            _ => break,
        }
    }
    Ok(done?)
}

/// Refuses a directory in which the agent of another database has its files. One that was moved is
/// the same.
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
