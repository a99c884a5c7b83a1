//! Values that did not fit their column: what is known of them, per site and column, so that a sum
//! that lacks them is never a sum without a word. They are counted where there is an engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use rollcall_lake::{Lake, LakeError, Record, RecordKind, StateView};
use rollcall_types::{ColumnMisfits, SiteId, TableName, Timestamp};
use serde::{Deserialize, Serialize};

/// That a person accounted for so many misfits of a column of a site: more of them are told again.
const ACCOUNTED: RecordKind<Accounted> = RecordKind::new("misfits");

#[derive(Debug, Serialize, Deserialize)]
struct Accounted {
    values: u64,
}

fn id_of(site: &SiteId, column: &ColumnMisfits) -> String {
    format!("{site}/{}.{}", column.table, column.column)
}

/// Whether a person accounted for what a site lacks of a column.
fn is_accounted(view: &StateView, site: &SiteId, column: &ColumnMisfits) -> bool {
    let known = view.get(ACCOUNTED, &id_of(site, column)).and_then(|record| record.parse::<Accounted>().ok());
    known.is_some_and(|known| column.sites.get(site).is_some_and(|values| *values <= known.values))
}

/// A person accounts for the misfits of these sites: their answers are complete without them, and
/// say so.
pub async fn account<'a>(
    lake: &Lake,
    misfits: &Misfits,
    sites: impl Iterator<Item = &'a SiteId> + Clone,
    by: &str,
    now: Timestamp,
) -> Result<(), LakeError> {
    let records = |view: &StateView| -> Result<Vec<Record>, LakeError> {
        let all = misfits.values().flat_map(|lacking| sites.clone().map(move |site| (site, lacking)));
        let of_sites = all.filter(|(site, lacking)| lacking.many.contains(*site));
        let records = of_sites.map(|(site, MisfitColumn { column, .. })| {
            let values = column.sites.get(site).copied().unwrap_or_default();
            view.next(ACCOUNTED, &id_of(site, column), &Accounted { values }, now, by)
        });
        records.collect()
    };
    lake.state().update(|view| Ok::<_, LakeError>((records(view)?, ()))).await
}

/// Columns of sites that lack values, by table and column.
pub type Misfits = BTreeMap<(TableName, String), MisfitColumn>;

/// A column that lacks values. Every answer that reads it says how many; of sites that lack many
/// there is an incident, and no such answer is complete.
#[derive(Debug, Clone)]
pub struct MisfitColumn {
    /// The column, and how many values it lacks, by site.
    pub column: ColumnMisfits,
    /// The sites that lack many.
    pub many: BTreeSet<SiteId>,
}

/// What was counted last.
#[derive(Debug, Default)]
pub struct MisfitBoard(Mutex<Arc<Misfits>>);

impl MisfitBoard {
    /// The columns that answers must tell of.
    pub fn get(&self) -> Arc<Misfits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what was counted. Of what a person accounted for, only the number is told.
    pub fn set(&self, mut counted: Misfits, view: &StateView) {
        for MisfitColumn { column, many } in counted.values_mut() {
            many.retain(|site| !is_accounted(view, site, column));
            column.is_many = !many.is_empty();
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(counted);
    }
}

/// What is to be said of each site of which many values do not fit.
pub fn by_site(misfits: &Misfits) -> BTreeMap<SiteId, String> {
    let mut texts: BTreeMap<SiteId, Vec<String>> = BTreeMap::new();
    for MisfitColumn { column, many } in misfits.values() {
        for (site, count) in column.sites.iter().filter(|(site, _)| many.contains(*site)) {
            let how = match &column.fits {
                Some(kind) if kind == "string" => format!(
                    "have the store mend them; `rollcall tables retype {} {} 'string'` would take them in, and make the column \
                     text in every question: sum() then needs a cast",
                    column.table, column.column
                ),
                Some(kind) => {
                    format!("`rollcall tables retype {} {} '{kind}'` takes them in", column.table, column.column)
                }
                None => "no wider type takes them in: have the store mend them, leave the column out (`rollcall settings set`), or account for \
                         them (`rollcall incidents normal`)"
                    .to_owned(),
            };
            let (noun, verb) = if *count == 1 { ("value", "is") } else { ("values", "are") };
            let text = format!(
                "{count} {noun} of {}.{} {verb} no {} and {verb} missing in answers (they are in _misfit); {how}",
                column.table, column.column, column.kind
            );
            texts.entry(site.clone()).or_default().push(text);
        }
    }
    texts.into_iter().map(|(site, texts)| (site.clone(), format!("{site}: {}", texts.join(". ")))).collect()
}
