//! Sites that are to state tables again because HQ asks for it: what waited in quarantine can be
//! taken, or rows are gone from the lake.
//!
//! The wish is a record of the state log; its time is its number, by which the site knows whether
//! it has done so already, also where HQ's state was lost. It is fulfilled when every table meant
//! has a load that is complete and began after all that the site had confirmed when it was wished,
//! or when a later life of the journal is current. Until then rows may be missing, and answers say
//! so.

use std::collections::BTreeSet;

use rollcall_lake::{Lake, LakeError, Record, RecordKind, StateView};
use rollcall_types::{Epoch, Seq, SiteId, SiteNumber, TableName, Timestamp};
use serde::{Deserialize, Serialize};

use rollcall_registry::{SiteRecord, Sites};

use crate::captured::Captured;

const RESTATE: RecordKind<Wish> = RecordKind::new("restate");

/// That a site is to state tables again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Wish {
    /// Where the site stood when it was wished.
    epoch: Epoch,
    after: Seq,
    /// By their names at HQ; none: all tables it captures.
    pub tables: Option<BTreeSet<String>>,
    /// In a new life of the journal: HQ does not have any more what the site knows to be confirmed
    /// in this one.
    #[serde(default)]
    new_life: bool,
    /// Whether rows are known to be missing until then.
    pub is_missing: bool,
    /// Why, in words.
    pub reason: String,
}

impl Wish {
    /// That this site is to state these tables again, behind all that is known of it now.
    pub fn new(
        lake: &Lake,
        record: &SiteRecord,
        tables: Option<BTreeSet<String>>,
        is_missing: bool,
        reason: String,
    ) -> Self {
        let (number, epoch) = (SiteNumber(record.number), epoch_of(record));
        let all = lake.tables();
        let cursors = all.values().filter_map(|table| table.cursor(number, epoch));
        let after = cursors.map(|cursor| cursor.seq).max().unwrap_or_default();
        // All tables are named: one that it does not capture any more can be done without by
        // itself.
        let of_site = all.iter().filter(|(_, table)| !table.is_published() && table.cursor(number, epoch).is_some());
        let tables = tables.or_else(|| Some(of_site.map(|(name, _)| name.to_string()).collect()));
        Self { epoch, after, tables, new_life: false, is_missing, reason }
    }

    /// The same in a new life of the journal.
    pub fn in_new_life(self) -> Self {
        Self { new_life: true, ..self }
    }

    /// With a wish that is still open, the tables of both are meant.
    pub fn with(mut self, open: Option<Wish>) -> Self {
        let Some(open) = open else { return self };
        self.tables = self.tables.zip(open.tables).map(|(mut tables, others)| {
            tables.extend(others);
            tables
        });
        self.is_missing |= open.is_missing;
        self.new_life |= open.new_life;
        self
    }

    /// The record of this wish, with a number greater than those of the site's wishes before.
    pub fn record(&self, view: &StateView, site: &SiteId, now: Timestamp, by: &str) -> Result<Record, LakeError> {
        // Its time is its number, which only grows: clocks may be set back.
        let known = view.get(RESTATE, site.as_str());
        let now = known.map_or(now, |known| now.max(known.at.plus_micros(1)));
        view.next(RESTATE, site.as_str(), self, now, by)
    }

    fn is_fulfilled(&self, lake: &Lake, record: &SiteRecord) -> bool {
        if record.retired.is_some() || record.current_life().is_some_and(|life| life > self.epoch) {
            return true;
        }
        if self.new_life {
            return false;
        }
        let number = SiteNumber(record.number);
        let is_stated = |cursor: rollcall_lake::Cursor| cursor.floor > self.after;
        match &self.tables {
            Some(tables) => tables.iter().all(|table| {
                let table = TableName::new(table).ok().and_then(|name| lake.table(&name));
                table.and_then(|table| table.cursor(number, self.epoch)).is_some_and(is_stated)
            }),
            // Tables that it does not capture any more keep their old cursors.
            None => {
                let all = lake.tables();
                let cursors = all.values().filter_map(|table| table.cursor(number, self.epoch));
                let mut later = cursors.filter(|cursor| cursor.seq > self.after).peekable();
                later.peek().is_some() && later.all(is_stated)
            }
        }
    }
}

fn epoch_of(record: &SiteRecord) -> Epoch {
    record.journal.as_ref().map_or(Epoch(0), |journal| journal.epoch)
}

/// What a site is still to state again, and the number of the wish.
pub fn open(lake: &Lake, view: &StateView, site: &SiteId, record: &SiteRecord) -> Option<(u64, Wish)> {
    let known = view.get(RESTATE, site.as_str())?;
    let wish: Wish = known.parse().ok()?;
    (!wish.is_fulfilled(lake, record)).then(|| (known.at.as_micros().unsigned_abs(), wish))
}

/// The number that tells a site to state tables again in the life that it has, and which.
pub fn told(lake: &Lake, view: &StateView, site: &SiteId, record: &SiteRecord) -> Option<(u64, Vec<String>)> {
    let (number, wish) = open(lake, view, site, record).filter(|(_, wish)| !wish.new_life)?;
    Some((number, wish.tables.into_iter().flatten().collect()))
}

/// Why a site is to begin a new life of its journal, if it is.
pub fn new_life(lake: &Lake, site: &SiteId, record: &SiteRecord) -> Option<String> {
    let (_, wish) = open(lake, &lake.state().view(), site, record)?;
    // Once it was allotted, it is only to be accepted.
    (wish.new_life && wish.epoch == epoch_of(record)).then_some(wish.reason)
}

/// Of an open wish, the tables that the site does not capture any more, by a manifest that it made
/// since: nothing will come of them, and what is gone of them stays gone.
pub fn uncaptured(
    lake: &Lake,
    view: &StateView,
    site: &SiteId,
    record: &SiteRecord,
    captured: &Captured,
) -> BTreeSet<String> {
    let Some((_, wish)) = open(lake, view, site, record).filter(|(_, wish)| !wish.new_life) else {
        return BTreeSet::new();
    };
    let since = captured.get(site).filter(|known| known.epoch == wish.epoch && known.through > wish.after);
    let Some((known, wished)) = since.zip(wish.tables) else { return BTreeSet::new() };
    wished.difference(&known.names.tables).cloned().collect()
}

/// A person does without these tables of a site.
pub async fn give_up(
    lake: &Lake,
    site: &SiteId,
    record: &SiteRecord,
    tables: &BTreeSet<String>,
    by: &str,
    now: Timestamp,
) -> Result<(), LakeError> {
    tracing::warn!(%site, ?tables, by, "a person does without what a site cannot state again");
    let records = |view: &StateView| {
        let Some((_, wish)) = open(lake, view, site, record) else { return Ok(Vec::new()) };
        let left = wish.tables.as_ref().map(|wished| wished.difference(tables).cloned().collect());
        Ok(vec![Wish { tables: left, ..wish }.record(view, site, now, by)?])
    };
    lake.state().update(|view| Ok::<_, LakeError>((records(view)?, ()))).await
}

/// All wishes that are not fulfilled.
pub fn all_open(lake: &Lake, roster: &Sites) -> Vec<(SiteId, Wish)> {
    let view = lake.state().view();
    let sites = view.of_kind(RESTATE).filter_map(|record| SiteId::new(&record.id).ok());
    let open = sites.filter_map(|site| {
        let (_, wish) = open(lake, &view, &site, roster.get(&site)?)?;
        Some((site, wish))
    });
    open.collect()
}
