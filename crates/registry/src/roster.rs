//! The roster: which sites should be heard from. A site leaves it only when a person retires it.

mod changes;
mod enrolment;
mod importing;
mod lives;
mod record;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use imbl::OrdMap;
use rollcall_lake::{Lake, LakeError, Record, RecordKind, StateView};
use rollcall_types::{Epoch, SiteId, Timestamp, nearest};

pub use self::{
    changes::{AttributeChange, PastChange},
    enrolment::{INVITATION_LIFE_SECONDS, Invited},
    importing::{ImportReport, Importing},
    lives::NewLife,
    record::{
        ContestedLife, DeclaredClosure, Journal, LeftOut, Resend, Retired, Ruling, SiteRecord, TimesAccepted, begin_of,
        check_calendar, check_name,
    },
};
use crate::error::HqError;

/// The kind of the records of sites.
pub const SITE: RecordKind<SiteRecord> = RecordKind::new("site");
/// The kind of the record that says which number the next new site gets.
pub const COUNTER: RecordKind<u32> = RecordKind::new("counter");

/// A closure is declared for so long at most: longer ones are slips, and nobody is missed in them.
const CLOSED_MAX: Duration = Duration::from_secs(366 * 86_400);

/// The roster as kept in the lake's state log.
#[derive(Debug)]
pub struct Roster {
    lake: Arc<Lake>,
    /// The roster as parsed from the view beside it.
    parsed: Mutex<(StateView, Arc<Sites>)>,
}

/// All sites by id, retired ones included. Versions of it share what did not change.
pub type Sites = OrdMap<SiteId, Arc<SiteRecord>>;

fn invalid(error: impl std::fmt::Display) -> HqError {
    HqError::Invalid(error.to_string())
}

/// The sites of a view, by id.
pub fn sites(view: &StateView) -> impl Iterator<Item = (SiteId, SiteRecord)> {
    view.of_kind(SITE).filter_map(|record| Some((SiteId::new(&record.id).ok()?, record.parse().ok()?)))
}

impl Roster {
    /// The roster in this lake's state log.
    pub fn new(lake: Arc<Lake>) -> Self {
        Self { lake, parsed: Mutex::default() }
    }

    /// All sites, retired ones included; the same one as before unless a site changed.
    pub fn all(&self) -> Arc<Sites> {
        let view = self.lake.state().view();
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if !parsed.0.is_same(&view) {
            let mut all: Option<Sites> = None;
            for (id, record) in view.changed_since(&parsed.0, SITE.name()) {
                let Ok(id) = SiteId::new(id) else { continue };
                let all = all.get_or_insert_with(|| (*parsed.1).clone());
                match record.and_then(|record| record.parse().ok()) {
                    Some(record) => all.insert(id, Arc::new(record)),
                    None => all.remove(&id),
                };
            }
            let all = all.map_or_else(|| parsed.1.clone(), Arc::new);
            *parsed = (view, all);
        }
        parsed.1.clone()
    }

    /// The record of a site, as it is in the newest view: what a caller may do depends on it.
    pub fn get(&self, site: &SiteId) -> Option<Arc<SiteRecord>> {
        self.lake.state().view().get(SITE, site.as_str()).and_then(|record| record.parse().ok()).map(Arc::new)
    }

    /// Changes one site's record; `change` sees the newest version and says whether to write it.
    async fn change<T>(
        &self,
        site: &SiteId,
        by: &str,
        now: Timestamp,
        mut change: impl FnMut(&mut SiteRecord) -> Result<(bool, T), HqError>,
    ) -> Result<T, HqError> {
        self.lake
            .state()
            .update(|view| {
                let record = view.get(SITE, site.as_str());
                let record = record.ok_or_else(|| self.unlisted(site))?;
                let mut value: SiteRecord = record.parse()?;
                let (write, result) = change(&mut value)?;
                let records = if write { vec![view.next(SITE, site.as_str(), &value, now, by)?] } else { Vec::new() };
                Ok((records, result))
            })
            .await
    }

    /// What is said of a site that is not on the roster, with the one that may be meant.
    pub fn unlisted(&self, site: &SiteId) -> HqError {
        let all = self.all();
        let near = nearest(site.as_str(), all.keys().map(SiteId::as_str));
        let near = near.map_or_else(String::new, |near| format!("; is {near} meant?"));
        HqError::NotFound(format!("site {site} is not on the roster{near}"))
    }

    /// Takes a site off the roster and revokes its key at once.
    pub async fn retire(&self, site: &SiteId, reason: &str, by: &str, now: Timestamp) -> Result<(), HqError> {
        self.change(site, by, now, |record| {
            if record.retired.is_some() {
                return Ok((false, ()));
            }
            record.retired = Some(Retired { at: now, reason: reason.to_owned() });
            record.key_hash = None;
            Ok((true, ()))
        })
        .await
    }

    /// Puts a retired site back on the roster, as of now; it joins with a new invitation.
    pub async fn reinstate(&self, site: &SiteId, by: &str, now: Timestamp) -> Result<(), HqError> {
        self.change(site, by, now, |record| {
            if record.retired.take().is_none() {
                return Err(HqError::Invalid(format!("site {site} is on the roster; it was not retired")));
            }
            record.listed_at = Some(now);
            Ok((true, ()))
        })
        .await
    }

    /// Has sites send everything again when they come next; returns which. Those that are not
    /// enrolled are left out.
    pub async fn resend(
        &self,
        sites: &BTreeSet<SiteId>,
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Vec<SiteId>, HqError> {
        let state = self.lake.state();
        state
            .update(|view| {
                let (mut records, mut told) = (Vec::new(), Vec::new());
                for site in sites {
                    let Some(record) = view.get(SITE, site.as_str()) else { continue };
                    let mut value: SiteRecord = record.parse()?;
                    if value.key_hash.is_some() {
                        let (by, reason) = (by.to_owned(), reason.to_owned());
                        value.resend = Some(Resend { at: now, by: by.clone(), reason, epoch: None });
                        records.push(view.next(SITE, site.as_str(), &value, now, &by)?);
                        told.push(site.clone());
                    }
                }
                Ok((records, told))
            })
            .await
    }

    /// The site began to send everything again, in that epoch.
    pub async fn resent(&self, site: &SiteId, epoch: Epoch, now: Timestamp) -> Result<(), HqError> {
        self.change(site, "hq", now, |record| {
            let is_done = record.resend.as_ref().is_some_and(|resend| resend.epoch == Some(epoch));
            if is_done {
                record.resend = None;
            }
            Ok((is_done, ()))
        })
        .await
    }

    /// A person answers for the times of a site's rows up to now: those of a time in which its
    /// clock was wrong, or its zone another.
    pub async fn accept_times(&self, site: &SiteId, reason: &str, by: &str, now: Timestamp) -> Result<(), HqError> {
        self.change(site, by, now, |record| {
            let (by, reason) = (by.to_owned(), reason.to_owned());
            record.times_accepted = Some(TimesAccepted { at: now, by, reason });
            Ok((true, ()))
        })
        .await
    }

    /// Declares a site closed until a time; a running silence of it is explained by that.
    pub async fn close_until(&self, site: &SiteId, closure: DeclaredClosure, now: Timestamp) -> Result<(), HqError> {
        if closure.until <= now || closure.until <= closure.from {
            return Err(invalid("a closure must end, and in the future"));
        }
        if closure.until.since(now) > CLOSED_MAX {
            return Err(invalid(format!(
                "{} is more than a year away: declare what is known, or retire a site that does not open again",
                closure.until.for_people()
            )));
        }
        let by = closure.by.clone();
        self.change(site, &by, now, |record| {
            record.closures.retain(|known| known.until > now);
            record.closures.push(closure.clone());
            Ok((true, ()))
        })
        .await
    }
}

/// Numbers for new sites, never used twice.
struct Numbers {
    next: u32,
    first: u32,
}

impl Numbers {
    /// Those that no site of this view has.
    fn new(view: &StateView) -> Result<Self, LakeError> {
        let next = view.get(COUNTER, SITE.name()).map(|record| record.parse::<u32>()).transpose()?.unwrap_or(1);
        Ok(Self { next, first: next })
    }

    /// The record of a site that is put on the roster now.
    fn site(&mut self, now: Timestamp) -> SiteRecord {
        let number = self.next;
        self.next += 1;
        SiteRecord { number, listed_at: Some(now), ..SiteRecord::default() }
    }

    /// The record that says which number is next; none if none was given out.
    fn record(&self, view: &StateView, now: Timestamp, by: &str) -> Result<Option<Record>, LakeError> {
        (self.next != self.first).then(|| view.next(COUNTER, SITE.name(), &self.next, now, by)).transpose()
    }
}
