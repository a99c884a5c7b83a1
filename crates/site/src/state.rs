//! The agent's own files, beside the store's database in `FILE.rollcall/`.
//!
//! `identity.json` holds who this site is and whom it trusts (readable by its owner alone);
//! `state.sqlite` holds what was sent and confirmed. Nothing here is needed to keep the store's
//! changes: those are in the store's own file.

mod notes;

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use rollcall_types::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use self::notes::{Begun, Notes, Position};

use crate::{error::SiteError, session::ACCEPTS_OLDER_LAKE};

/// Who this site is, and whom it trusts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The site's id.
    pub site: String,
    /// Addresses of HQ (`host:port`), tried in order.
    pub hq_addresses: Vec<String>,
    /// HQ's certificate authority: the only one trusted.
    pub ca_pem: String,
    /// The site's certificate.
    pub certificate_pem: String,
    /// The site's private key.
    pub key_pem: String,
    /// When the certificate was issued, microseconds since the Unix epoch.
    pub issued_micros: i64,
    /// When the certificate expires, microseconds since the Unix epoch.
    pub not_after_micros: i64,
    /// The store's database; where it is is known by whoever opens it.
    #[serde(skip)]
    pub database: PathBuf,
    /// By table: the column with the time at which a row happened, as it was said at join.
    #[serde(default)]
    pub event_times: BTreeMap<String, String>,
    /// Whom people at the store are to call, as it was said at join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
}

/// While this file is there, the agent leaves the database alone.
const PAUSED: &str = "paused";

/// Who this site is.
const IDENTITY: &str = "identity.json";

/// Whether a file in the directory is the agent's, by its name.
fn is_own_file(name: &std::ffi::OsStr) -> bool {
    const WRITTEN: [&str; 6] =
        [IDENTITY, PAUSED, crate::enrol::KEY, crate::status::FILE, crate::join::BEGUN, crate::claim::FILE];
    const DATABASES: [&str; 2] = [NOTES, crate::published::STAGED];
    let is_one_of = |names: &[&str], endings: &[&str]| {
        name.to_str().is_some_and(|name| {
            let mut own = names.iter().filter_map(|own| name.strip_prefix(own));
            own.any(|ending| ending.is_empty() || endings.contains(&ending))
        })
    };
    is_one_of(&WRITTEN, &[".new"]) || is_one_of(&DATABASES, &["-wal", "-shm", "-journal"])
}

/// The directory of the agent's files.
#[derive(Debug, Clone)]
pub struct StateDirectory(PathBuf);

impl StateDirectory {
    /// The directory that belongs to a database, beside the path by which it is called: where that
    /// is a link, the link may lead to another file tomorrow, and the agent's files stay. `chosen`
    /// is another place that a person chose.
    pub fn of(database: &Path, chosen: Option<&Path>) -> Self {
        if let Some(chosen) = chosen {
            return Self(chosen.to_owned());
        }
        let beside = |database: &Path| {
            let mut name = database.as_os_str().to_owned();
            name.push(".rollcall");
            PathBuf::from(name)
        };
        let own = beside(&std::path::absolute(database).unwrap_or_else(|_| database.to_owned()));
        // Agents before 0.2 followed links first.
        let followed = database.canonicalize().map(|database| beside(&database));
        match followed {
            Ok(followed) if !own.exists() && followed.exists() => Self(followed),
            _ => Self(own),
        }
    }

    /// Makes the directory, and takes from others what they may have had of our files. A directory
    /// that a person chose may hold files of others, and be used by them: it is closed only if it
    /// is known to be ours.
    pub(crate) fn secure(&self) -> Result<(), SiteError> {
        let failed = |error| SiteError::state(format!("making {}", self.0.display()), error);
        let is_ours = !self.0.exists()
            || self.0.extension().is_some_and(|ending| ending == "rollcall")
            || self.file(IDENTITY).exists();
        fs::create_dir_all(&self.0).map_err(failed)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            if is_ours {
                fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700)).map_err(failed)?;
            }
            for entry in fs::read_dir(&self.0).map_err(failed)?.flatten() {
                if is_own_file(&entry.file_name()) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    match fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o600)) {
                        // SQLite's files beside a database come and go.
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                        other => other.map_err(failed)?,
                    }
                }
            }
        }
        #[cfg(not(unix))]
        let _ = is_ours;
        Ok(())
    }

    /// Refuses a directory that a person chose where it holds files of others.
    pub(crate) fn refuse_of_others(&self) -> Result<(), SiteError> {
        if self.file(IDENTITY).exists() {
            return Ok(());
        }
        let mut entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        match entries.find(|entry| !is_own_file(&entry.file_name())) {
            Some(of_others) => Err(SiteError::Usage(format!(
                "--state {}: the folder holds files that are not the agent's, such as {:?}; name an empty folder, or one that does \
                 not exist yet",
                self.0.display(),
                of_others.file_name()
            ))),
            None => Ok(()),
        }
    }

    /// Makes an empty file for its owner alone, unless there is one; what SQLite puts beside it is
    /// then as closed.
    pub(crate) fn prepare(&self, name: &str) -> Result<(), SiteError> {
        self.secure()?;
        let path = self.file(name);
        let mut options = fs::OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&path).map(|_| ()).map_err(|error| SiteError::state(format!("making {}", path.display()), error))
    }

    /// Until when a person wants the agent to leave the database alone; none if nobody does.
    pub fn paused_until(&self) -> Option<Timestamp> {
        let text = fs::read_to_string(self.file(PAUSED)).ok()?;
        let until = Timestamp::from_micros(text.trim().parse().ok()?);
        (until > Timestamp::from_micros(rollcall_capture::clock_micros())).then_some(until)
    }

    /// Has the agent leave the database alone until then.
    pub fn pause(&self, until: Timestamp) -> Result<(), SiteError> {
        self.write(PAUSED, until.as_micros().to_string().as_bytes())
    }

    /// Ends that.
    pub fn resume(&self) -> Result<(), SiteError> {
        self.remove(PAUSED)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Reads the identity made by `join`.
    pub fn identity(&self) -> Result<Identity, SiteError> {
        let path = self.file(IDENTITY);
        let doing = format!("reading {}", path.display());
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(self.not_joined()),
            read => read.map_err(|error| SiteError::state(doing.clone(), error))?,
        };
        serde_json::from_slice(&text).map_err(|error| SiteError::state(doing, error))
    }

    /// Why there is no identity, and what to do.
    fn not_joined(&self) -> SiteError {
        let of = self.0.display();
        let text = match fs::read_to_string(self.file(crate::join::BEGUN)) {
            Ok(site) => format!(
                "joining HQ as {} was broken off and is not complete. Run the same `rollcall-site join` again: the invitation still works \
                 from here",
                site.trim()
            ),
            Err(_) => format!(
                "this database has not joined HQ ({of} holds no identity.json). Run `rollcall-site join`, or, if the agent's files are \
                 elsewhere, say so with --state"
            ),
        };
        SiteError::Usage(text)
    }

    /// Forgets all that was noted of a site: its position, what HQ published to it, its status. Its
    /// identity stays until there is
    /// another.
    pub(crate) fn forget_notes(&self) -> Result<(), SiteError> {
        let databases = [NOTES, crate::published::STAGED];
        let files =
            databases.iter().flat_map(|name| ["", "-wal", "-shm", "-journal"].map(|end| format!("{name}{end}")));
        let files: Vec<String> = files.chain([crate::status::FILE.to_owned()]).collect();
        files.iter().try_for_each(|name| self.remove(name))
    }

    /// Stores the identity, whole or not at all.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), SiteError> {
        let text =
            serde_json::to_vec_pretty(identity).map_err(|error| SiteError::state("writing the identity", error))?;
        self.write(IDENTITY, &text)
    }

    /// Replaces a file whole, readable by its owner alone; it is on disk when this returns.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), SiteError> {
        self.replace(name, bytes, true)
    }

    /// [`Self::write`] without waiting for the disk.
    pub(crate) fn write_unsynced(&self, name: &str, bytes: &[u8]) -> Result<(), SiteError> {
        self.replace(name, bytes, false)
    }

    /// Deletes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), SiteError> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(SiteError::state(format!("removing {name}"), error))
            }
            _ => Ok(()),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8], sync: bool) -> Result<(), SiteError> {
        let path = self.file(name);
        let failed = |error| SiteError::state(format!("writing {}", path.display()), error);
        self.secure()?;
        let temporary = self.file(&format!("{name}.new"));
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        if sync {
            file.sync_all().map_err(failed)?;
        }
        fs::rename(&temporary, &path).map_err(failed)
    }
}

/// The database of the notes.
const NOTES: &str = "state.sqlite";

/// Makes the next hello say that HQ may be older than what it confirmed.
pub fn mark_resend(directory: &StateDirectory) -> Result<(), SiteError> {
    // Notes made for another database, after a slip in its name, would be read by nobody.
    directory.identity()?;
    Notes::open_to_write(directory)?.set_text(ACCEPTS_OLDER_LAKE, "yes")
}

/// Ends a pause, and lets the agent begin anew with a database that went back in time again and
/// again.
pub fn resume(directory: &StateDirectory) -> Result<(), SiteError> {
    directory.resume()?;
    Notes::open_to_write(directory)?.forget_rewinds()
}
