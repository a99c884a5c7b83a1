//! Which epoch a site's journal belongs to: whether what it comes with continues what HQ has of it,
//! or is a new life.

use rollcall_books::restate;
use rollcall_lake::{Cursor, Lake};
use rollcall_registry::{
    HqError,
    roster::{Journal, NewLife, Resend},
};
use rollcall_types::{Cause, Epoch, SiteNumber, TableName};
use rollcall_wire::{Refusal, proto::Hello};

use crate::welcome::{Rejection, Visitor};

/// Why a site gets a new epoch.
#[derive(Debug, Default)]
struct WhyAnew {
    reason: String,
    /// A person asked for it, or HQ did.
    is_asked: bool,
    /// It is to send everything again.
    is_resend: bool,
}

impl Visitor {
    /// The epoch this journal belongs to, and why if it is a new one.
    pub(crate) async fn epoch_for(&self, hello: &Hello) -> Result<(Epoch, String), Rejection> {
        match self.try_epoch_for(hello).await {
            // Another node allotted one at the same time: with that known, the answer may be
            // another.
            Err(Rejection::Failed(HqError::Outdated)) => self.try_epoch_for(hello).await,
            answer => answer,
        }
    }

    async fn try_epoch_for(&self, hello: &Hello) -> Result<(Epoch, String), Rejection> {
        let (site, roster) = (&self.peer.site, &self.registry().roster);
        let record = roster.get(site).and_then(|record| record.journal.clone());
        if hello.blind {
            // It cannot read its journal, and sends nothing of it.
            return Ok((record.map_or(Epoch(hello.epoch), |journal| journal.epoch), String::new()));
        }
        if let (Some(journal), Some(resend)) = (&record, self.resend_not_begun(hello)) {
            // The site never heard of the epoch that it is to send everything again in.
            return Ok((journal.epoch, resend.as_reason()));
        }
        match (self.why_anew(hello, record.as_ref())?, &record) {
            (None, Some(journal)) => {
                if roster.get(site).is_some_and(|known| known.resend.is_some()) {
                    roster.resent(site, journal.epoch, self.registry().now()).await?;
                }
                Ok((journal.epoch, String::new()))
            }
            (why, _) => self.allot(hello, record.as_ref(), why.unwrap_or_default()).await,
        }
    }

    /// Why the site gets a new epoch; none if it goes on in the one it is in.
    fn why_anew(&self, hello: &Hello, record: Option<&Journal>) -> Result<Option<WhyAnew>, Rejection> {
        let (site, registry) = (&self.peer.site, self.registry());
        let because = |reason: String| Ok(Some(WhyAnew { reason, ..WhyAnew::default() }));
        let Some(journal) = record else { return because("first contact".to_owned()) };
        if journal.id != hello.journal_id {
            return because("the journal was created anew at the site".to_owned());
        }
        if journal.epoch.0 != hello.epoch && !self.never_began(hello, journal.epoch) {
            return because(format!(
                "the site came with epoch {}, HQ knows {}: its database or state was restored",
                hello.epoch, journal.epoch
            ));
        }
        let known = registry.roster.get(site);
        if let Some(reason) = known.and_then(|record| restate::new_life(&registry.lake, site, &record)) {
            return Ok(Some(WhyAnew { reason, is_asked: true, is_resend: false }));
        }
        if let Some(reason) = registry.sessions.take_wanted_epoch(site, journal.epoch) {
            return because(reason);
        }
        match registry.roster.get(site).and_then(|known| known.resend.clone()) {
            Some(resend) if resend.epoch.is_none() => {
                Ok(Some(WhyAnew { reason: resend.as_reason(), is_asked: false, is_resend: true }))
            }
            _ => match self.compare(hello, journal.epoch)? {
                Some(reason) => because(reason),
                None => Ok(None),
            },
        }
    }

    /// Begins a new epoch of the site's journal.
    async fn allot(&self, hello: &Hello, record: Option<&Journal>, why: WhyAnew) -> Result<(Epoch, String), Rejection> {
        let (site, roster, now) = (&self.peer.site, &self.registry().roster, self.registry().now());
        let WhyAnew { reason, is_asked, is_resend } = why;
        // A person said of these that nothing of the life before is to be missed, or that HQ itself
        // went back in time.
        let is_wanted = hello.accept_older_lake || is_resend;
        let is_contested = record.is_some() && !is_wanted;
        if record.is_some() && !is_asked {
            self.parts.books.quotas.take_life(site, now).map_err(|message| Rejection::Away {
                code: Refusal::Quota,
                cause: Some(Cause::HqRefuses),
                message,
            })?;
        }
        let new = NewLife { journal_id: &hello.journal_id, reason: &reason, is_contested, is_resend };
        let epoch = roster.new_epoch(site, record, new, now).await?;
        match epoch {
            Epoch(1) => tracing::info!(%site, "first contact"),
            epoch if is_contested => {
                tracing::error!(%site, %epoch, reason, "a new life of the site's journal; it is kept apart until it has all that was confirmed");
            }
            epoch => tracing::warn!(%site, %epoch, reason, "a new epoch"),
        }
        Ok((epoch, reason))
    }

    /// Whether this epoch was allotted for the site to send everything again.
    pub(crate) fn is_resend(&self, epoch: Epoch) -> bool {
        let known = self.registry().roster.get(&self.peer.site);
        known.and_then(|known| known.resend.clone()).is_some_and(|resend| resend.epoch == Some(epoch))
    }

    /// What was allotted for the site to send everything again, and reached it not: it comes with
    /// another epoch, and nothing arrived in that one. Once anything did, a site with another epoch
    /// went back in time.
    fn resend_not_begun(&self, hello: &Hello) -> Option<Resend> {
        let known = self.registry().roster.get(&self.peer.site)?;
        let (resend, journal) = (known.resend.clone()?, known.journal.as_ref()?);
        let epoch = resend.epoch.filter(|epoch| *epoch == journal.epoch && epoch.0 != hello.epoch)?;
        (self.has_nothing_of(epoch) && journal.id == hello.journal_id).then_some(resend)
    }

    /// Whether nothing of the site arrived in an epoch.
    fn has_nothing_of(&self, epoch: Epoch) -> bool {
        let log = self.registry().lake.site_log().cursor(self.number, epoch);
        log.is_none() && cursors(&self.registry().lake, self.number, epoch).is_empty()
    }

    /// The site was allotted this epoch and never heard so: it sent nothing in it.
    fn never_began(&self, hello: &Hello, epoch: Epoch) -> bool {
        hello.epoch == 0 && self.has_nothing_of(epoch)
    }

    /// Compares positions within the same epoch; a reason for a new one if they are at odds.
    fn compare(&self, hello: &Hello, epoch: Epoch) -> Result<Option<String>, Rejection> {
        let cursors = cursors(&self.registry().lake, self.number, epoch);
        let log = self.registry().lake.site_log().snapshot().cursor(self.number, epoch).unwrap_or_default();
        let newest = cursors.iter().map(|(_, cursor)| cursor.seq.0).max().unwrap_or_default().max(log.seq.0);
        if hello.accept_older_lake {
            return Ok(Some("a person told the site to send again to a lake restored from a backup".to_owned()));
        }
        if newest > hello.head {
            return Ok(Some(format!(
                "HQ has changes up to {newest}, the site's journal ends at {}: its database went back in time",
                hello.head
            )));
        }
        // What the site sends of a table that HQ publishes moves no cursor. Then it alone can tell,
        // table by table.
        if newest < hello.confirmed && published_names(&self.registry().lake).is_empty() {
            let message = format!(
                "this lake holds changes up to {newest}, but the site has a confirmation up to {}: was HQ restored from a \
                 backup? If so, run `rollcall roster resend --refused` at HQ, or `rollcall-site resend` at the site",
                hello.confirmed
            );
            return Err(Rejection::Away { code: Refusal::OlderLake, cause: Some(Cause::HqRefuses), message });
        }
        // Whether both remember the same changes is for the site to say: it alone knows every batch
        // it ever sent.
        Ok(None)
    }
}

/// How far a site has come in each of the tables that sites fill.
pub(crate) fn cursors(lake: &Lake, site: SiteNumber, epoch: Epoch) -> Vec<(TableName, Cursor)> {
    let tables = lake.tables().into_iter();
    // In a table that HQ shares, sites' cursors count edits, not the journal.
    let of_sites = tables.filter(|(_, table)| !table.is_published());
    of_sites.filter_map(|(name, table)| Some((name, table.cursor(site, epoch)?))).collect()
}

/// The tables that sites cannot fill.
pub(crate) fn published_names(lake: &Lake) -> Vec<String> {
    let published = lake.tables().into_iter().filter(|(_, table)| table.is_published());
    published.map(|(name, _)| name.to_string()).collect()
}
