//! Tables that a site captured, and captures no longer: what its store writes into them since is
//! missing, until they are captured again or a person says that they ended there.
//!
//! A manifest names every table that is captured. One that has rows of the site's present life and
//! is not named, though the manifest was made behind all of these, has stopped. That is a record of
//! the state log, so that it outlasts a restart.

use std::collections::{BTreeMap, BTreeSet};

use rollcall_lake::{Lake, LakeError, Record, RecordKind, StateView};
use rollcall_types::{Epoch, Seq, SiteId, SiteNumber, Timestamp};
use serde::{Deserialize, Serialize};

use rollcall_registry::{Registry, SiteRecord, Sites};

use crate::{
    captured::{Captured, CapturedBoard, CapturedTables},
    definitions::{definitions, is_of_stores},
};

const STOPPED: RecordKind<Stopped> = RecordKind::new("stopped");

/// That a site captures a table no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// In which life of its journal.
    epoch: Epoch,
    /// When HQ heard so.
    pub since: Timestamp,
    state: State,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// It is missing.
    Stopped,
    /// The site captures it again.
    Again,
    /// A person said that it ended.
    Ended,
}

fn id_of(site: &SiteId, table: &str) -> String {
    format!("{site}/{table}")
}

/// Whether a person said that a table ended at a site.
pub fn has_ended(view: &StateView, site: &SiteId, table: &str) -> bool {
    known(view, site, table).is_some_and(|known| known.state == State::Ended)
}

fn known(view: &StateView, site: &SiteId, table: &str) -> Option<Stopped> {
    view.get(STOPPED, &id_of(site, table))?.parse().ok()
}

/// All that stopped and is not over, by site and table.
pub fn open(view: &StateView, roster: &Sites) -> BTreeMap<SiteId, BTreeMap<String, Stopped>> {
    let mut open: BTreeMap<SiteId, BTreeMap<String, Stopped>> = BTreeMap::new();
    for record in view.of_kind(STOPPED) {
        let Some((site, table)) = record.id.rsplit_once('/') else { continue };
        let (Ok(site), Ok(stopped)) = (SiteId::new(site), record.parse::<Stopped>()) else { continue };
        let is_current = roster
            .get(&site)
            .is_some_and(|known| known.retired.is_none() && known.current_life() == Some(stopped.epoch));
        if is_current && stopped.state == State::Stopped {
            open.entry(site).or_default().insert(table.to_owned(), stopped);
        }
    }
    open
}

/// What was looked at last: by site, the end of its manifest.
pub type Looked = BTreeMap<SiteId, (Epoch, Seq)>;

/// Notes what stopped and what is captured again, by the manifests that came since the last look.
pub async fn look(registry: &Registry, board: &CapturedBoard, looked: &mut Looked) -> Result<(), LakeError> {
    let (captured, roster) = (board.all(), registry.roster.all());
    let view = registry.lake.state().view();
    let mut changes: Vec<(String, Stopped)> = Vec::new();
    let mut seen = Looked::new();
    for (site, known) in &captured {
        let (epoch, through) = (&known.epoch, &known.through);
        if looked.get(site) == Some(&(*epoch, *through)) {
            continue;
        }
        seen.insert(site.clone(), (*epoch, *through));
        let Some(record) = roster.get(site).filter(|record| record.current_life() == Some(*epoch)) else { continue };
        changes.extend(changed(&registry.lake, &view, site, record, &captured, registry.now()));
    }
    let now = registry.now();
    let records = |view: &StateView| -> Result<Vec<Record>, LakeError> {
        changes.iter().map(|(id, stopped)| view.next(STOPPED, id, stopped, now, "hq")).collect()
    };
    if changes.is_empty() || registry.acting(records).await? {
        looked.extend(seen);
    }
    Ok(())
}

/// What a site's newest manifest changes about its tables.
fn changed(
    lake: &Lake,
    view: &StateView,
    site: &SiteId,
    record: &SiteRecord,
    captured: &Captured,
    now: Timestamp,
) -> Vec<(String, Stopped)> {
    let Some(CapturedTables { epoch, through, names }) = captured.get(site) else {
        return Vec::new();
    };
    let (number, definitions) = (SiteNumber(record.number), definitions(view));
    let all = lake.shown_tables();
    let of_stores = all.iter().filter(|(name, table)| is_of_stores(name, table, &definitions));
    let changes = of_stores.filter_map(|(name, table)| {
        let cursor = table.cursor(number, *epoch)?;
        let known = known(view, site, name.as_str()).filter(|known| known.epoch == *epoch);
        let is_captured = names.tables.contains(name.as_str());
        // What it said before is behind what came since.
        let is_stopped = !is_captured && cursor.seq <= *through;
        let stopped = match known.as_ref().map(|known| known.state) {
            None | Some(State::Again) if is_stopped => Stopped { epoch: *epoch, since: now, state: State::Stopped },
            Some(State::Stopped | State::Ended) if is_captured => Stopped { state: State::Again, ..known? },
            _ => return None,
        };
        Some((id_of(site, name.as_str()), stopped))
    });
    changes.collect()
}

/// A person says that these tables ended at a site, whether that was noted yet or not.
pub async fn end(
    lake: &Lake,
    (site, record): (&SiteId, &SiteRecord),
    tables: &BTreeSet<String>,
    by: &str,
    now: Timestamp,
) -> Result<(), LakeError> {
    let Some(epoch) = record.current_life().filter(|_| !tables.is_empty()) else { return Ok(()) };
    tracing::warn!(%site, ?tables, by, "a person says that tables ended at a site");
    let records = |view: &StateView| -> Result<Vec<Record>, LakeError> {
        let over = tables.iter().map(|table| {
            let since = known(view, site, table).map_or(now, |known| known.since);
            let ended = Stopped { epoch, since, state: State::Ended };
            view.next(STOPPED, &id_of(site, table), &ended, now, by)
        });
        over.collect()
    };
    lake.state().update(|view| Ok::<_, LakeError>((records(view)?, ()))).await
}
