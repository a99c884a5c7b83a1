//! Lives of sites' journals: which begin, and which of them are current.

use rollcall_types::{Epoch, SiteId, Timestamp};

use super::{ContestedLife, Journal, Resend, Roster, Ruling};
use crate::error::HqError;

/// What a new life is allotted for.
pub struct NewLife<'a> {
    /// The journal, as the site's agent named it.
    pub journal_id: &'a str,
    /// Why the site gets a new epoch, as it is kept and told.
    pub reason: &'a str,
    /// It may lack what was confirmed before.
    pub is_contested: bool,
    /// It was asked for so that the site sends everything again.
    pub is_resend: bool,
}

impl Roster {
    /// Allots the next epoch for this journal, unless the journal on the roster is another than
    /// `known` by now: a node that the site called a moment ago may have allotted one. A contested
    /// one is kept apart.
    pub async fn new_epoch(
        &self,
        site: &SiteId,
        known: Option<&Journal>,
        new: NewLife<'_>,
        now: Timestamp,
    ) -> Result<Epoch, HqError> {
        self.change(site, "hq", now, |record| {
            if record.journal.as_ref() != known {
                return Err(HqError::Outdated);
            }
            let epoch = Epoch(record.journal.as_ref().map_or(0, |journal| journal.epoch.0) + 1);
            let before = record.current_life().unwrap_or_default();
            // The question is about the newest life alone.
            for life in record.contested.iter_mut().filter(|life| life.ruling.is_none()) {
                let reason = format!("life {epoch} followed: {}", new.reason);
                life.ruling = Some(Ruling { is_accepted: life.is_shown, at: now, by: "hq".to_owned(), reason });
            }
            if new.is_contested && before > Epoch(0) {
                record.contested.push(ContestedLife {
                    epoch,
                    before,
                    began_at: now,
                    reason: new.reason.to_owned(),
                    is_shown: false,
                    ruling: None,
                });
            }
            let (id, reason) = (new.journal_id.to_owned(), new.reason.to_owned());
            record.journal = Some(Journal { id, epoch, reason, is_asked_about: true });
            // Any other new life is a question of its own, and states everything anyway.
            record.resend =
                record.resend.take().filter(|_| new.is_resend).map(|resend| Resend { epoch: Some(epoch), ..resend });
            Ok((true, epoch))
        })
        .await
    }

    /// Puts to people what an earlier HQ let happen in silence: a life that took the place of the
    /// one before and may lack what that had.
    pub async fn contest_shown(&self, site: &SiteId, now: Timestamp) -> Result<(), HqError> {
        self.change(site, "hq", now, |record| {
            let Some(journal) = record.journal.as_mut().filter(|journal| !journal.is_asked_about) else {
                return Ok((false, ()));
            };
            journal.is_asked_about = true;
            let journal = journal.clone();
            record.contested.push(ContestedLife {
                epoch: journal.epoch,
                before: Epoch(journal.epoch.0.saturating_sub(1)),
                began_at: now,
                reason: journal.reason,
                is_shown: true,
                ruling: None,
            });
            Ok((true, ()))
        })
        .await
    }

    /// Lets a contested life be current that was found to have every row of the one before; false
    /// if it is no question any more.
    pub async fn accept_contained(&self, site: &SiteId, epoch: Epoch, now: Timestamp) -> Result<bool, HqError> {
        self.change(site, "hq", now, |record| {
            // A person may have ruled, or another life begun, while rows were compared.
            let question = record.contested.iter_mut().rfind(|life| life.ruling.is_none());
            let Some(life) = question.filter(|life| life.epoch == epoch) else { return Ok((false, false)) };
            let reason = "every row that was confirmed before is in it".to_owned();
            life.ruling = Some(Ruling { is_accepted: true, at: now, by: "hq".to_owned(), reason });
            Ok((true, true))
        })
        .await
    }

    /// Rules on the lives of a site: `epoch` is current from now on, or stays so. Returns whether
    /// that changes what is shown.
    pub async fn rule(
        &self,
        site: &SiteId,
        epoch: Epoch,
        is_accepted: bool,
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<bool, HqError> {
        self.change(site, by, now, |record| {
            let current = record.current_life().unwrap_or_default();
            let ruling = |is_accepted| Ruling { is_accepted, at: now, by: by.to_owned(), reason: reason.to_owned() };
            if is_accepted {
                let known = record.contested.iter_mut().find(|life| life.epoch == epoch);
                let life = known.ok_or_else(|| HqError::Invalid(format!("nobody contests life {epoch} of {site}")))?;
                if epoch < current {
                    return Err(HqError::Invalid(format!(
                        "life {current} of {site} is current, and {epoch} is older: what was current since is no more together"
                    )));
                }
                life.ruling = Some(ruling(true));
            } else if epoch != current {
                return Err(HqError::Invalid(format!("life {current} of {site} is current, not {epoch}")));
            }
            for life in record.contested.iter_mut().filter(|life| life.ruling.is_none()) {
                // One that was shown all along is what there is.
                life.ruling = Some(ruling(life.is_shown && life.epoch == epoch));
            }
            Ok((true, record.current_life().unwrap_or_default() != current))
        })
        .await
    }
}
