//! What of the watch outlasts the node: incidents and tuning in the state log, rhythms in a table
//! of their own.

use std::sync::Arc;

use arrow_array::{Array, BinaryArray, RecordBatch, StringArray, cast::AsArray, types::GenericBinaryType};
use arrow_schema::ArrowError;
use rollcall_lake::{Lake, LakeError, RecordKind, StateView};
use rollcall_registry::roster;
use rollcall_roll::{Incident, Remembered, Tuning};
use rollcall_types::{SiteId, Timestamp, describe};
use serde::{Deserialize, Serialize};

use crate::alerts::Alerts;

/// The kind of the records that incidents are kept in.
pub(crate) const INCIDENT: RecordKind<Incident> = RecordKind::new("incident");
/// The kind of the records of the watch's signs of life.
pub const TICKS: &str = "watch";
const ALIVE: (RecordKind<Alive>, &str) = (RecordKind::new(TICKS), "tick");
const TUNING: (RecordKind<Tuning>, &str) = (RecordKind::new(TICKS), "tuning");
/// What [`rollcall_registry::Health`] calls it.
const STORE_TUNING: &str = "store how rare silences are";

/// The last sign of the watch's life.
#[derive(Debug, Serialize, Deserialize)]
struct Alive {
    at: Timestamp,
}

/// HQ's last sign of life, at any node.
pub fn last_sign(lake: &Lake) -> Option<Timestamp> {
    lake.state().view().get(ALIVE.0, ALIVE.1)?.parse::<Alive>().ok().map(|alive| alive.at)
}

/// The number from which incidents are counted on, where a restore left room.
const NUMBERS_FROM: (RecordKind<u32>, &str) = (roster::COUNTER, "incident");
/// More incidents than a company has between two backups.
const ROOM: u64 = 10_000;

/// Leaves room behind the numbers of the incidents in a lake that was restored: incidents that were
/// opened after the backup was made had the next ones, and people were told of them.
pub async fn leave_room_for_numbers(lake: &Lake, now: Timestamp) -> Result<(), LakeError> {
    let write = |view: &StateView| {
        let last = stored_incidents(view).iter().map(|incident| incident.id).max().unwrap_or_default();
        let from = u32::try_from(last.max(numbers_from(view)) + ROOM).unwrap_or(u32::MAX);
        let record = view.next(NUMBERS_FROM.0, NUMBERS_FROM.1, &from, now, "restore")?;
        Ok::<_, LakeError>((vec![record], ()))
    };
    lake.state().update(write).await
}

/// See [`leave_room_for_numbers`].
pub(crate) fn numbers_from(view: &StateView) -> u64 {
    view.get(NUMBERS_FROM.0, NUMBERS_FROM.1).and_then(|record| record.parse::<u32>().ok()).map_or(0, u64::from)
}

/// The incidents in the lake.
pub(crate) fn stored_incidents(view: &StateView) -> Vec<Incident> {
    let parsed = view.of_kind(INCIDENT).filter_map(|record| {
        let parsed = record.parse::<Incident>();
        parsed.inspect_err(|error| tracing::error!(%error, id = %record.id, "an incident cannot be read")).ok()
    });
    parsed.collect()
}

/// What is known of how rare silences are.
pub(crate) fn stored_tuning(view: &StateView) -> Tuning {
    view.get(TUNING.0, TUNING.1).and_then(|record| record.parse().ok()).unwrap_or_default()
}

impl Alerts {
    /// Stores incidents and that the watch is alive; false if another node keeps the watch now.
    pub(crate) async fn store(&self, incidents: &[Incident], now: Timestamp) -> Result<bool, LakeError> {
        let records = |view: &StateView| {
            let mut records = vec![view.next(ALIVE.0, ALIVE.1, &Alive { at: now }, now, "hq")?];
            for incident in incidents {
                records.push(view.next(INCIDENT, &incident.id.to_string(), incident, now, "hq")?);
            }
            Ok(records)
        };
        self.registry.acting(records).await
    }

    /// Stores how rare silences are.
    pub(crate) async fn store_tuning(&self) {
        let (tuning, now) = (self.watching.watch().tuning().clone(), self.registry.now());
        let record = |view: &StateView| Ok(vec![view.next(TUNING.0, TUNING.1, &tuning, now, "hq")?]);
        self.registry.health.note(STORE_TUNING, &self.registry.acting(record).await);
    }

    /// Stores sites' rhythms.
    pub(crate) async fn store_rhythms(&self) {
        self.registry.health.note("store sites' rhythms", &self.try_store_rhythms().await);
    }

    async fn try_store_rhythms(&self) -> Result<(), LakeError> {
        let remembered = self.watching.remembered();
        if remembered.is_empty() {
            return Ok(());
        }
        let table = self.registry.lake.rhythms();
        let schema = table.snapshot().schema().arrow().clone();
        let rows = rollcall_runtime::blocking(move || {
            let kept =
                remembered.iter().filter_map(|(site, value)| Some((site.as_str(), serde_json::to_vec(value).ok()?)));
            let (sites, values): (Vec<&str>, Vec<Vec<u8>>) = kept.unzip();
            let sites = StringArray::from_iter_values(sites);
            let values = BinaryArray::from_iter_values(values);
            RecordBatch::try_new(schema, vec![Arc::new(sites) as Arc<dyn Array>, Arc::new(values)])
        });
        let rows = rows.await.unwrap_or_else(|error| Err(ArrowError::ComputeError(error.to_string())));
        let rows = rows.map_err(|source| LakeError::Arrow { doing: "writing rhythms", source })?;
        table.replace_rows(rows).await
    }
}

/// The rhythms stored last; where they cannot be read, they are learned anew.
pub(crate) async fn known_rhythms(lake: &Lake) -> Vec<(SiteId, Remembered)> {
    stored_rhythms(lake).await.unwrap_or_else(|error| {
        tracing::error!(error = %describe(&error), "rhythms cannot be read; they are learned anew");
        Vec::new()
    })
}

/// The rhythms stored last.
async fn stored_rhythms(lake: &Lake) -> Result<Vec<(SiteId, Remembered)>, LakeError> {
    let mut all = Vec::new();
    for rows in lake.rhythms().read_rows().await? {
        let (sites, values) = (rows.column(0).as_string::<i32>(), rows.column(1).as_bytes::<GenericBinaryType<i32>>());
        for row in 0..rows.num_rows() {
            let site = SiteId::new(sites.value(row)).ok();
            match (site, serde_json::from_slice(values.value(row))) {
                (Some(site), Ok(remembered)) => all.push((site, remembered)),
                _ => tracing::warn!(site = sites.value(row), "a rhythm cannot be read; it is learned anew"),
            }
        }
    }
    Ok(all)
}
