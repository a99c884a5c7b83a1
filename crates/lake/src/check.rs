//! Looks whether a lake is what was written: logs, checkpoints, data files, secrets. And mends what
//! can be mended.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, stream};
use object_store::{ObjectStore, PutMode, path::Path};
use rollcall_types::{Epoch, Seq, SiteNumber};
use serde::Serialize;

use crate::{
    action::Action,
    checkpoint, data_file,
    digest::Digest,
    error::LakeError,
    heads::Heads,
    lake::{Lake, OWN, own_schema, table_roots},
    replay,
    salvage::{self, Doubt},
    snapshot::{CursorField, DataFile, Snapshot},
    table::Table,
    vault,
};

/// Data files that are read at a time.
const FILES_AT_ONCE: usize = 4;

/// Rows of a site that a table had and has no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostRange {
    /// Which site, by its number.
    pub site: u32,
    /// Of which life of its journal.
    pub epoch: u32,
    /// Behind this position …
    pub after: u64,
    /// … to this one.
    pub through: u64,
}

/// What is wrong, and what can be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Damage {
    /// The log of a table: it goes back to `sound`, and sites state what came later again.
    Log {
        /// Where the table is.
        table: String,
        /// The last version before the damage; none if the damage is in the first.
        sound: Option<u64>,
        /// The version it had come to.
        newest: u64,
        /// What is known to be lost by going back.
        lost: Vec<LostRange>,
    },
    /// The log of a table of HQ's own, whose rows stand each for itself: what can be read of it is
    /// taken.
    OwnLog {
        /// Where the table is.
        table: String,
        /// The version it had come to.
        newest: u64,
    },
    /// A data file: it is taken out, and sites that may have rows in it state them again.
    File {
        /// Where the table is.
        table: String,
        /// Where the file is in it.
        path: String,
        /// Its rows.
        rows: u64,
        /// The first and the last site that it can have rows of, by their ids.
        sites: Option<(String, String)>,
        /// Positions of journals that it can have.
        seqs: Option<(u64, u64)>,
    },
    /// A checkpoint that is not needed: a new one is taken.
    Checkpoint {
        /// Where the table is.
        table: String,
        /// Which one.
        version: u64,
    },
    /// A table of HQ's own rows, whole and older than it was: it counts from there on.
    Older {
        /// Where the table is.
        table: String,
        /// The version that is there.
        found: u64,
        /// The version it had come to.
        newest: u64,
    },
    /// What only a person can mend.
    ByHand {
        /// What to do.
        remedy: String,
    },
    /// HQ's own state may be older than it was: a person looks at users, tokens and sites that were
    /// retired.
    Doubt,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong, in a sentence.
    pub what: String,
    /// What kind of damage it is, and so what can be done.
    #[serde(flatten)]
    pub damage: Damage,
}

impl Finding {
    /// What a repair does about it, for people.
    pub fn remedy(&self) -> String {
        match &self.damage {
            Damage::Log { table, sound, .. } => {
                let to = sound.map_or_else(|| "its beginning".to_owned(), |sound| format!("version {sound}"));
                format!("{table} goes back to {to}, and its sites state their rows again")
            }
            Damage::OwnLog { table, .. } => format!("what can be read of {table} is kept"),
            Damage::File { path, rows, .. } => {
                format!("{path} with {rows} rows is taken out, and sites that may have rows in it state theirs again")
            }
            Damage::Checkpoint { .. } => "a new checkpoint is taken".to_owned(),
            Damage::Older { table, found, .. } => {
                format!(
                    "put {table} back from a backup, or let version {found} count: what was published later is gone"
                )
            }
            Damage::ByHand { remedy } => remedy.clone(),
            Damage::Doubt => "look at users, tokens and retired sites; a repair ends the doubt".to_owned(),
        }
    }
}

/// What a look at a lake found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CheckReport {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Tables looked at.
    pub tables: usize,
    /// Data files looked at.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Data files without a digest: an earlier HQ wrote them, and only that they are there was
    /// looked at.
    pub unverified: usize,
}

/// Looks at everything in a lake. `progress` hears how many data files of how many were read.
pub async fn check(
    store: &Arc<dyn ObjectStore>,
    mut progress: impl FnMut(usize, usize),
) -> Result<CheckReport, LakeError> {
    let mut report = CheckReport::default();
    let heads = match Heads::read(store.as_ref()).await? {
        Ok(heads) => heads.unwrap_or_default(),
        Err(what) => {
            let remedy = "HQ writes it anew when it runs".to_owned();
            report.findings.push(Finding { what, damage: Damage::ByHand { remedy } });
            Heads::default()
        }
    };
    let roots = table_roots(store.as_ref()).await?.into_iter().map(|(_, root)| root);
    let mut roots: Vec<Path> = OWN.iter().map(|name| Path::from("rollcall").join(*name)).chain(roots).collect();
    for noted in heads.tables.keys().map(|root| Path::from(root.as_str())) {
        if !roots.contains(&noted) {
            roots.push(noted);
        }
    }
    let mut files = Vec::new();
    for root in roots {
        report.tables += 1;
        let snapshot = check_log(store, &root, heads.tables.get(root.as_ref()).copied(), &mut report).await?;
        let Some(snapshot) = snapshot else { continue };
        files.extend(snapshot.files().map(|file| (root.clone(), snapshot.is_published(), file.clone())));
    }
    let count = files.len();
    let mut checked = stream::iter(files)
        .map(|(root, is_published, file)| async move {
            let found = check_file(store, &root, &file).await?;
            Ok::<_, LakeError>((root, is_published, file, found))
        })
        .buffered(FILES_AT_ONCE);
    while let Some(of_file) = checked.next().await {
        let (root, is_published, file, found) = of_file?;
        report.files += 1;
        report.bytes += file.size;
        report.unverified += usize::from(file.digest.is_none());
        report.findings.extend(found.map(|what| Finding { what, damage: damage_of(&root, is_published, &file) }));
        progress(report.files, count);
    }
    let secrets = vault::versions(store.as_ref()).await?;
    for (name, noted) in &heads.secrets {
        let found = secrets.get(name).copied();
        let older = heads.older(&format!("the secret {name}"), Some(*noted), found.unwrap_or(0));
        let gone = (found.is_none()).then(|| format!("the secret {name} is gone"));
        if let Some(what) = gone.or(older) {
            let remedy = format!("put private/{name}* back from a backup, or look at who may do what");
            report.findings.push(Finding { what, damage: Damage::ByHand { remedy } });
        }
    }
    for what in Doubt::read(store.as_ref()).await?.into_iter().flat_map(|doubt| doubt.what) {
        report.findings.push(Finding { what, damage: Damage::Doubt });
    }
    Ok(report)
}

/// Whether a table at this place is one of HQ's own, by its name.
fn own(root: &Path) -> Option<&str> {
    root.as_ref().strip_prefix("rollcall/").filter(|name| OWN.contains(name))
}

/// Looks at a table's log and checkpoints; the state it has, if that can be told.
async fn check_log(
    store: &Arc<dyn ObjectStore>,
    root: &Path,
    noted: Option<u64>,
    report: &mut CheckReport,
) -> Result<Option<Snapshot>, LakeError> {
    let mut whole = None;
    let what = match replay::open(store.as_ref(), root).await {
        Ok(None) if noted.is_none() => return Ok(None),
        Ok(None) => format!("the log of {root} is gone"),
        Ok(Some(opened)) => {
            let found = opened.snapshot.version();
            match Heads::default().older(root.as_ref(), noted, found) {
                Some(older) => {
                    whole = Some(found);
                    older
                }
                None => {
                    check_checkpoints(store.as_ref(), root, report).await?;
                    return Ok(Some(opened.snapshot));
                }
            }
        }
        Err(LakeError::Damaged(what)) => what,
        Err(error) => return Err(error),
    };
    // First: what takes the place of the log may be a checkpoint of the same version.
    check_checkpoints(store.as_ref(), root, report).await?;
    let sound = replay::sound(store.as_ref(), root).await?;
    let newest = noted.unwrap_or(0).max(sound.newest);
    let snapshot = sound.opened.map(|opened| opened.snapshot);
    let table = root.to_string();
    let damage = match own(root) {
        Some("rhythms" | "site_log") | None => Damage::Log {
            table,
            sound: snapshot.as_ref().map(Snapshot::version),
            newest,
            lost: lost(snapshot.as_ref(), &sound.behind),
        },
        Some(_) => Damage::OwnLog { table, newest },
    };
    let entries = sound.behind.iter().filter_map(|(_, entry)| entry.as_ref().ok());
    let mut txns = entries.flat_map(|entry| &entry.actions).filter_map(|action| action.txn.as_ref());
    let is_hqs = |app_id: &str| CursorField::parse(app_id).is_some_and(|(site, ..)| site == SiteNumber::HQ);
    let is_published = snapshot.as_ref().is_some_and(Snapshot::is_published) || txns.any(|txn| is_hqs(&txn.app_id));
    let damage = match is_published {
        true if whole.is_some() => Damage::Older { table: root.to_string(), found: whole.unwrap_or_default(), newest },
        true => {
            let remedy = format!("HQ's own rows cannot be asked of anybody: put {root} back from a backup");
            Damage::ByHand { remedy }
        }
        false => damage,
    };
    report.findings.push(Finding { what, damage });
    // Its files are looked at once the log is mended.
    Ok(None)
}

/// What is known to be lost when a table goes back to `sound`: how far its sites had come by what
/// can be read behind that.
fn lost(sound: Option<&Snapshot>, behind: &[(u64, Result<crate::entry::Entry, LakeError>)]) -> Vec<LostRange> {
    let mut through: BTreeMap<(SiteNumber, Epoch), u64> = BTreeMap::new();
    let entries = behind.iter().filter_map(|(_, entry)| entry.as_ref().ok());
    for txn in entries.flat_map(|entry| &entry.actions).filter_map(|action| action.txn.as_ref()) {
        if let Some((site, epoch, CursorField::Seq)) = CursorField::parse(&txn.app_id) {
            let known = through.entry((site, epoch)).or_default();
            *known = txn.version.unsigned_abs().max(*known);
        }
    }
    let ranges = through.into_iter().map(|((site, epoch), through)| {
        let after = sound.and_then(|sound| sound.cursor(site, epoch)).map_or(Seq(0), |cursor| cursor.seq).0;
        LostRange { site: site.0, epoch: epoch.0, after, through }
    });
    ranges.filter(|range| range.after < range.through).collect()
}

async fn check_checkpoints(store: &dyn ObjectStore, root: &Path, report: &mut CheckReport) -> Result<(), LakeError> {
    for version in replay::checkpoints_of(&replay::files(store, root).await?) {
        if replay::sound_checkpoint(store, root, version).await?.is_none() {
            let what = format!("the checkpoint {} is damaged", replay::checkpoint_path(root, version));
            let damage = Damage::Checkpoint { table: root.to_string(), version };
            report.findings.push(Finding { what, damage });
        }
    }
    Ok(())
}

/// What is wrong with a data file.
async fn check_file(store: &Arc<dyn ObjectStore>, root: &Path, file: &DataFile) -> Result<Option<String>, LakeError> {
    match crate::table::get_data_file(store.as_ref(), root, file).await {
        Ok(_) => Ok(None),
        Err(error @ LakeError::DamagedFile { .. }) => Ok(Some(rollcall_types::describe(&error))),
        Err(error) => Err(error),
    }
}

fn damage_of(root: &Path, is_published: bool, file: &DataFile) -> Damage {
    if is_published {
        let remedy = format!("HQ's own rows cannot be asked of anybody: put {root}/{} back from a backup", file.path);
        return Damage::ByHand { remedy };
    }
    let bounds = |name: &str| file.stats.min_values.get(name).zip(file.stats.max_values.get(name));
    let sites = bounds(crate::our_columns::SITE);
    let seqs = bounds(rollcall_types::columns::SEQ);
    Damage::File {
        table: root.to_string(),
        path: file.path.clone(),
        rows: file.stats.num_records,
        sites: sites.and_then(|(min, max)| Some((min.as_str()?.to_owned(), max.as_str()?.to_owned()))),
        seqs: seqs.and_then(|(min, max)| Some((min.as_u64()?, max.as_u64()?))),
    }
}

impl Lake {
    /// Mends what was found, as far as the lake alone can: the table is as of before the damage, or
    /// without the file. To have sites state again what they lost by it is the caller's. The lake
    /// must be opened anew afterwards.
    pub async fn mend(&self, finding: &Finding) -> Result<(), LakeError> {
        let store = self.store();
        match &finding.damage {
            Damage::Log { table, newest, .. } | Damage::Older { table, newest, .. } => {
                salvage::roll_back(store.as_ref(), &Path::from(table.as_str()), *newest).await?;
                Ok(())
            }
            Damage::OwnLog { table, newest } => {
                let root = Path::from(table.as_str());
                let schema = own(&root).map(own_schema).unwrap_or_else(|| own_schema("state"));
                salvage::take_what_is_there(store.as_ref(), &root, &schema, *newest).await?;
                Ok(())
            }
            Damage::File { table, path, .. } => {
                self.table_at(table)?.remove_files(std::slice::from_ref(path)).await?;
                Ok(())
            }
            Damage::Checkpoint { table, version } => {
                let root = Path::from(table.as_str());
                for path in [replay::checkpoint_path(&root, *version), replay::checkpoint_digest_path(&root, *version)]
                {
                    match object_store::ObjectStoreExt::delete(store.as_ref(), &path).await {
                        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                        Err(source) => return Err(LakeError::Store { doing: format!("deleting {path}"), source }),
                    }
                }
                let table = self.table_at(table)?;
                // What is set aside gets one when its log is mended.
                if table.set_aside().is_some() { Ok(()) } else { table.checkpoint().await }
            }
            Damage::Doubt => Doubt::end(store.as_ref()).await,
            Damage::ByHand { .. } => Ok(()),
        }
    }

    /// The table at a place, opened anew if it is set aside here.
    fn table_at(&self, root: &str) -> Result<Arc<Table>, LakeError> {
        let own = [self.state().table(), self.site_log(), self.quarantine(), self.contacts(), self.rhythms()];
        let mut all = own.into_iter().chain([self.untold(), self.audit()]).cloned().chain(self.tables().into_values());
        all.find(|table| table.root().as_ref() == root)
            .ok_or_else(|| LakeError::damaged(format!("there is no table at {root}")))
    }
}

impl Table {
    /// Looks whether the log is still what this process read. What it has in memory is whole, so a
    /// new checkpoint mends what went bad since. Whether one was needed.
    pub async fn heal(self: &Arc<Self>) -> Result<bool, LakeError> {
        self.must_be_sound()?;
        let _committing = self.committing.lock().await;
        self.catch_up().await?;
        if self.is_as_read().await? {
            return Ok(false);
        }
        tracing::error!(table = %self.root(), "the log of a table is damaged; a checkpoint of what this process knows mends it");
        checkpoint::put(self.store.as_ref(), self.root(), self.snapshot(), PutMode::Overwrite).await?;
        match self.is_as_read().await? {
            true => Ok(true),
            false => {
                Err(LakeError::damaged(format!("the log of {} is damaged behind what this process knows", self.root())))
            }
        }
    }

    /// Whether the log gives what this process has in memory, or what goes on from there.
    async fn is_as_read(&self) -> Result<bool, LakeError> {
        let known = self.snapshot();
        match replay::open(self.store.as_ref(), self.root()).await {
            Ok(None) => Ok(false),
            Ok(Some(opened)) => {
                let found = opened.snapshot;
                let differs = found.version() == known.version()
                    && (found.files.len() != known.files.len()
                        || found.digest.is_some() && known.digest.is_some() && found.digest != known.digest);
                Ok(found.version() >= known.version() && !differs)
            }
            Err(LakeError::Damaged(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Notes the digest of a file that an earlier HQ wrote without one, if it can be read.
    async fn give_digest(&self, file: &DataFile, bytes: bytes::Bytes) -> Result<(), LakeError> {
        let snapshot = self.snapshot();
        let (schema, rows) = (snapshot.schema().clone(), file.stats.num_records);
        let read = rollcall_runtime::blocking(move || {
            let read = data_file::read(bytes.clone(), &schema);
            let count =
                |read: Vec<arrow_array::RecordBatch>| read.iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
            read.is_ok_and(|read| count(read) == rows).then(|| Digest::of(&bytes))
        });
        let Ok(Some(digest)) = read.await else {
            self.note_damaged(file);
            return Ok(());
        };
        let _committing = self.committing.lock().await;
        let base = self.snapshot();
        if base.files.contains_key(file.path.as_str()) {
            let known = DataFile { digest: Some(digest), ..file.clone() };
            // One that loses against another commit is looked at again in a week.
            self.put_entry(&base, "DIGEST", vec![Action::add(known.to_add(false)?)]).await?;
        }
        Ok(())
    }

    /// Looks at data files of the newest version that are due, and notes those that are damaged.
    /// One that the store does not give is an error, after the others.
    pub async fn scrub(&self, is_due: impl Fn(&str) -> bool) -> Result<(), LakeError> {
        let (snapshot, mut outcome) = (self.snapshot(), Ok(()));
        for file in snapshot.files().filter(|file| is_due(&file.path)) {
            match self.get_data_file(file).await {
                Ok(bytes) if file.digest.is_none() => self.give_digest(file, bytes).await?,
                Ok(_) => {}
                Err(LakeError::DamagedFile { .. }) if self.snapshot().files().any(|now| now.path == file.path) => {
                    self.note_damaged(file);
                }
                // It was replaced meanwhile.
                Err(LakeError::DamagedFile { .. }) => {}
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }
}
