//! What becomes of edits: the versions that the shared table gets, and what is put aside.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, UInt8Array,
    cast::AsArray,
    types::{Int64Type, TimestampMicrosecondType},
};
use arrow_schema::DataType;
use arrow_select::{filter::filter_record_batch, interleave::interleave};
use rollcall_lake::ColumnType;
use rollcall_types::{
    HQ_SITE, Seq, SiteId, TableName, Timestamp, columns,
    shared::{Decision, EDIT_IN_DOUBT, EDIT_NUMBER, Rule, Version, decide, stamp},
};

use super::{
    ORIGIN,
    edits::{Edits, cast, select},
};
use rollcall_books::definitions::Counts;
use rollcall_registry::{HqError, SiteRecord};

use crate::{
    image,
    publisher::Publisher,
    tables::{Known, failed},
};

/// Where a value comes from: 0, a row of HQ's; 1, an edit.
type Source = (usize, usize);

/// A row that this round changes.
struct Changed {
    /// Where each column comes from; none if the row goes.
    row: Option<Vec<Source>>,
    key: Source,
    version: Version,
    by: SiteId,
}

/// A version of a row that was put aside.
pub(super) struct Loss {
    edit: usize,
    kept: String,
    lost: String,
    columns: Vec<String>,
    /// The row as it was in the version that lost; none if that is the edit.
    row: Option<Vec<Source>>,
}

/// What a round came to.
pub(super) struct Decided<'a> {
    known: &'a Known,
    edits: &'a Edits,
    /// Of the edits, and of HQ's rows.
    keys: Vec<Box<[u8]>>,
    places: HashMap<Box<[u8]>, usize>,
    /// HQ's rows with the keys of edits, as in an image.
    rows: RecordBatch,
    /// Which of them are there, and by site, which are for it.
    live: BooleanArray,
    audiences: HashMap<SiteId, BooleanArray>,
    /// By key: what happened to the row, oldest first, as far as it matters.
    versions: HashMap<Box<[u8]>, Vec<(Seq, Version)>>,
    changed: HashMap<Box<[u8]>, Changed>,
    /// In the order in which they were changed first.
    order: Vec<Box<[u8]>>,
    pub losses: Vec<Loss>,
}

impl<'a> Decided<'a> {
    pub(super) fn new(known: &'a Known, edits: &'a Edits) -> Result<Self, HqError> {
        let rows = known.image.rows();
        let key = &known.definition().key;
        let keys = image::row_bytes(&edits.rows, key).map_err(failed)?;
        let wanted: HashSet<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let there = image::row_bytes(rows, key).map_err(failed)?;
        let is_wanted: BooleanArray = there.iter().map(|key| Some(wanted.contains(key.as_ref()))).collect();
        let rows = filter_record_batch(rows, &is_wanted).map_err(failed)?;
        let there = there.into_iter().filter(|key| wanted.contains(key.as_ref()));
        let places = there.enumerate().map(|(place, key)| (key, place)).collect();
        Ok(Self {
            known,
            edits,
            keys,
            places,
            live: image::is_live(&rows),
            rows,
            audiences: HashMap::new(),
            versions: HashMap::new(),
            changed: HashMap::new(),
            order: Vec::new(),
            losses: Vec::new(),
        })
    }

    fn since(&self, place: usize) -> Seq {
        Seq(image::seqs(&self.rows).value(place).unsigned_abs())
    }

    /// The version that the editor knew. No site knows one that is not there: HQ was restored from
    /// a backup.
    fn base(&self, edit: usize) -> Seq {
        self.edits.bases[edit].min(self.known.image.version)
    }

    /// Notes which of HQ's rows are for a site.
    pub(super) fn note_audience(&mut self, site: &SiteId, record: &SiteRecord) -> Result<(), HqError> {
        if !self.audiences.contains_key(site) {
            let mask = self.known.class_of(site, record)?.mask(&self.rows)?;
            self.audiences.insert(site.clone(), mask);
        }
        Ok(())
    }

    /// Reads what happened to the rows of edits: their newest version, and where an editor did not
    /// know that, what came after the one that he knew.
    pub(super) async fn read_versions(
        &mut self,
        publisher: &Publisher,
        name: &TableName,
        of: &[usize],
    ) -> Result<(), HqError> {
        let (mut newest, mut unknown_from) = (HashSet::new(), None);
        for edit in of.iter().copied() {
            let Some(place) = self.places.get(&self.keys[edit]) else { continue };
            let since = self.since(*place);
            newest.insert(since.0);
            if since > self.base(edit) {
                unknown_from = Some(unknown_from.map_or(self.base(edit), |from: Seq| from.min(self.base(edit))));
            }
        }
        if newest.is_empty() {
            return Ok(());
        }
        let listed = newest.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let unknown = unknown_from.map_or(String::new(), |from| format!(" OR _seq > {from}"));
        let key = &self.known.definition().key;
        let key_sql: Vec<String> = key.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        let has_origin =
            publisher.registry.lake.table(name).is_some_and(|table| table.snapshot().schema().column(ORIGIN).is_some());
        let sql = format!(
            "SELECT _seq, _op, _changed_at, {}, {} FROM history.\"{name}\" WHERE _site = '{HQ_SITE}'
             AND (_seq IN ({listed}){unknown}) ORDER BY _seq",
            if has_origin { ORIGIN.to_owned() } else { format!("CAST(NULL AS VARCHAR) AS {ORIGIN}") },
            key_sql.join(", ")
        );
        let rows = select(publisher, &sql).await?;
        let kinds = self.known.image.columns.iter().filter(|column| key.contains(&column.name));
        let mut typed = Vec::new();
        for column in kinds {
            typed.push((column.name.clone(), cast(&rows, &column.name, &column.kind.arrow())?, true));
        }
        let typed = RecordBatch::try_from_iter_with_nullable(typed).map_err(failed)?;
        let keys = image::row_bytes(&typed, key).map_err(failed)?;
        let seqs = cast(&rows, columns::SEQ, &DataType::Int64)?;
        let (ops, origins) = (cast(&rows, "_op", &DataType::Utf8)?, cast(&rows, ORIGIN, &DataType::Utf8)?);
        let at = cast(&rows, "_changed_at", &ColumnType::Timestamp.arrow())?;
        let (seqs, at) = (seqs.as_primitive::<Int64Type>(), at.as_primitive::<TimestampMicrosecondType>());
        let (ops, origins) = (ops.as_string::<i32>(), origins.as_string::<i32>());
        let all: Vec<String> = self.known.image.columns.iter().map(|column| column.name.clone()).collect();
        for (row, key) in keys.into_iter().enumerate() {
            if !self.places.contains_key(&key) {
                continue;
            }
            let told = origins.is_valid(row).then(|| serde_json::from_str(origins.value(row)).ok()).flatten();
            // Published before the table was shared.
            let version = told.unwrap_or_else(|| Version {
                by: HQ_SITE.to_owned(),
                at: at.value(row),
                changed: all.clone(),
                gone: ops.value(row) == "D",
                restated: false,
            });
            self.versions.entry(key).or_default().push((Seq(seqs.value(row).unsigned_abs()), version));
        }
        Ok(())
    }

    fn has_no_key(&self, edit: usize) -> bool {
        let key = &self.known.definition().key;
        key.iter().any(|name| self.edits.rows.column_by_name(name).is_none_or(|column| column.is_null(edit)))
    }

    /// Decides on one edit; false if its row was changed by another site in this round. Without a
    /// rule it is put aside.
    pub(super) fn take(&mut self, rule: Option<Rule>, edit: usize) -> bool {
        let edits = self.edits;
        if edits.is_done[edit] {
            return true;
        }
        if self.changed_before(edit).is_some_and(|before| before.by != edits.sites[edit]) {
            return false;
        }
        let is_unfit = edits.misfit[edit] || self.has_no_key(edit);
        match (rule, self.hidden_from_editor(edit)) {
            (None, _) => self.put_aside(edit, HQ_SITE, edits.changed[edit].clone()),
            (Some(_), _) if is_unfit => self.put_unfit_aside(edit),
            (Some(_), Some(by)) => self.put_aside(edit, &by, edits.changed[edit].clone()),
            (Some(rule), None) => self.decide_by(rule, edit),
        }
        true
    }

    /// What this round made of an edit's row before.
    fn changed_before(&self, edit: usize) -> Option<&Changed> {
        self.changed.get(&self.keys[edit])
    }

    /// What happened to an edit's row, oldest first, as far as it matters.
    fn versions_of(&self, edit: usize) -> &[(Seq, Version)] {
        self.versions.get(&self.keys[edit]).map_or(&[], Vec::as_slice)
    }

    /// Whether the editor had seen a version, or made it himself.
    fn is_known_to_editor(&self, edit: usize, (seq, version): &(Seq, Version)) -> bool {
        *seq <= self.base(edit) || version.by == self.edits.sites[edit].as_str() || version.restated
    }

    /// The version that an edit makes, stamped later than those that its editor knew.
    fn version_by(&self, edit: usize) -> Version {
        let edits = self.edits;
        let known = self.versions_of(edit).iter().filter(|of| self.is_known_to_editor(edit, of));
        let known_at = known.map(|(_, version)| version.at).max();
        let known_at = known_at.max(self.changed_before(edit).map(|before| before.version.at));
        Version {
            by: edits.sites[edit].to_string(),
            at: stamp(edits.made[edit].at, edits.heard[edit], known_at),
            changed: edits.changed[edit].clone(),
            gone: edits.gone[edit],
            restated: false,
        }
    }

    /// An edit's row as HQ had it before this round; none if it was not there.
    fn hqs_row(&self, edit: usize) -> Option<Vec<Source>> {
        let place = self.places.get(&self.keys[edit]).filter(|place| self.live.value(**place))?;
        Some(vec![(0, *place); self.edits.rows.num_columns()])
    }

    /// An edit's row as what was decided on before has it; none if it is not there.
    fn row_now(&self, edit: usize) -> Option<Vec<Source>> {
        self.changed_before(edit).map_or_else(|| self.hqs_row(edit), |before| before.row.clone())
    }

    /// Whether the row that HQ had before this round was for the editor; one that was never there
    /// is hidden from nobody.
    fn is_for_editor(&self, edit: usize) -> bool {
        let mask = self.audiences.get(&self.edits.sites[edit]);
        let place = self.places.get(&self.keys[edit]);
        place.is_none_or(|place| mask.is_some_and(|mask| mask.value(*place)))
    }

    /// Who made the row that a site would overwrite without seeing it, whatever version it says it
    /// knows. None if it sees the row, or has itself just given the row away and does not know yet
    /// that it is gone.
    fn hidden_from_editor(&self, edit: usize) -> Option<String> {
        if self.changed_before(edit).is_some() || self.hqs_row(edit).is_none() || self.is_for_editor(edit) {
            return None;
        }
        let Some((seq, newest)) = self.versions_of(edit).last() else { return Some(HQ_SITE.to_owned()) };
        let has_given = newest.by == self.edits.sites[edit].as_str() && *seq > self.base(edit);
        (!has_given).then(|| newest.by.clone())
    }

    /// Keeps the columns in which an edit lost, and to whom.
    fn put_aside(&mut self, edit: usize, kept: &str, columns: Vec<String>) {
        let (kept, lost) = (kept.to_owned(), self.edits.sites[edit].to_string());
        self.losses.push(Loss { edit, kept, lost, columns, row: None });
    }

    /// Puts an edit aside that cannot be a row of HQ's. If the editor has the row, it is published
    /// once more as HQ has it: the site has another.
    fn put_unfit_aside(&mut self, edit: usize) {
        self.put_aside(edit, HQ_SITE, self.edits.changed[edit].clone());
        let row = self.hqs_row(edit).filter(|_| self.is_for_editor(edit) && self.changed_before(edit).is_none());
        let newest = self.versions_of(edit).last().map(|(_, newest)| newest.clone());
        if let (Some(newest), Some(row)) = (newest, row) {
            self.change(edit, Some(row), Version { restated: true, ..newest });
        }
    }

    /// Decides by the table's rule between an edit and what its editor did not know.
    fn decide_by(&mut self, rule: Rule, edit: usize) {
        let unknown = self.versions_of(edit).iter().filter(|of| !self.is_known_to_editor(edit, of));
        let since: Vec<Version> = unknown.map(|(_, version)| version.clone()).collect();
        let mut version = self.version_by(edit);
        let width = self.edits.rows.num_columns();
        let own = (!version.gone).then(|| vec![(1, edit); width]);
        let now = self.row_now(edit);
        let row = match decide(rule, &since, &version) {
            Decision::Taken { over: Some(over) } => {
                let (kept, row) = (version.by.clone(), self.hqs_row(edit).unwrap_or_default());
                self.losses.push(Loss { edit, kept, lost: over, columns: Vec::new(), row: Some(row) });
                // Columns that the store's table had not are HQ's.
                match (own, now) {
                    (Some(own), Some(now)) => {
                        let had = self.edits.columns[edit].min(width);
                        Some(own[..had].iter().chain(&now[had..]).copied().collect())
                    }
                    (own, _) => own,
                }
            }
            // The site may not know all columns yet: what it did not change stays.
            Decision::Taken { over: None } => match (own, now) {
                (Some(_), Some(now)) => Some(self.with_columns(now, &version.changed, edit)),
                (own, _) => own,
            },
            Decision::Lost { to } => return self.put_aside(edit, &to, version.changed),
            Decision::Partly { columns, lost, to } => {
                if let Some(to) = to {
                    self.put_aside(edit, &to, lost);
                }
                if columns.is_empty() {
                    return;
                }
                let row = now.unwrap_or_else(|| vec![(1, edit); width]);
                version.changed = columns;
                Some(self.with_columns(row, &version.changed, edit))
            }
        };
        self.change(edit, row, version);
    }

    /// A row with some columns as an edit has them.
    fn with_columns(&self, mut row: Vec<Source>, names: &[String], edit: usize) -> Vec<Source> {
        for (source, column) in row.iter_mut().zip(&self.known.image.columns) {
            if names.contains(&column.name) {
                *source = (1, edit);
            }
        }
        row
    }

    /// Notes what an edit makes of its row, on top of what the site did to it before.
    fn change(&mut self, edit: usize, row: Option<Vec<Source>>, mut version: Version) {
        let key = self.keys[edit].clone();
        match self.changed.get(&key) {
            Some(before) if before.version.restated => {}
            Some(before) => {
                let now = &mut version.changed;
                let more: Vec<String> =
                    before.version.changed.iter().filter(|name| !now.contains(name)).cloned().collect();
                now.extend(more);
            }
            None => self.order.push(key.clone()),
        }
        let by = self.edits.sites[edit].clone();
        self.changed.insert(key, Changed { row, key: (1, edit), version, by });
    }

    /// The values of a column from where they come.
    fn gather(&self, column: usize, from: &[Option<Source>]) -> Result<ArrayRef, HqError> {
        let hqs = self.rows.column(image::OURS + column);
        let edits = self.edits.rows.column(column);
        let null = arrow_array::new_null_array(edits.data_type(), 1);
        let from: Vec<Source> = from.iter().map(|source| source.unwrap_or((2, 0))).collect();
        interleave(&[hqs.as_ref(), edits.as_ref(), null.as_ref()], &from).map_err(failed)
    }

    /// The versions that the shared table gets, and how many of which kind; none if nothing
    /// changes.
    pub(super) fn rows(&self, previous: Seq, now: Timestamp) -> Result<Option<(RecordBatch, Counts)>, HqError> {
        let mut counts = Counts::default();
        let (mut ops, mut picked, mut origins) = (Vec::new(), Vec::new(), Vec::new());
        for key in &self.order {
            let changed = &self.changed[key];
            let place = self.places.get(key);
            let is_there = place.is_some_and(|place| self.live.value(*place));
            match (&changed.row, place) {
                (None, _) if !is_there => continue,
                (None, _) => {
                    ops.push(b'D');
                    counts.deleted += 1;
                }
                (Some(_), Some(_)) => {
                    ops.push(b'U');
                    counts.updated += u64::from(is_there);
                    counts.inserted += u64::from(!is_there);
                }
                (Some(_), None) => {
                    ops.push(b'I');
                    counts.inserted += 1;
                }
            }
            picked.push(changed);
            origins.push(serde_json::to_string(&changed.version).unwrap_or_default());
        }
        if ops.is_empty() {
            return Ok(None);
        }
        let count = ops.len();
        let changed_at: ArrayRef = Arc::new(Int64Array::from(vec![now.as_micros(); count]));
        let mut given: Vec<(String, ArrayRef, bool)> = vec![
            (
                columns::SEQ.to_owned(),
                Arc::new(Int64Array::from_iter_values((1..=count as u64).map(|of| (previous.0 + of) as i64))),
                true,
            ),
            (columns::OP.to_owned(), Arc::new(UInt8Array::from(ops)), true),
            (
                columns::CHANGED_AT.to_owned(),
                arrow_cast::cast(&changed_at, &ColumnType::Timestamp.arrow()).map_err(failed)?,
                true,
            ),
        ];
        let key = &self.known.definition().key;
        for (index, column) in self.known.image.columns.iter().enumerate() {
            let from: Vec<Option<Source>> = picked
                .iter()
                .map(|changed| match &changed.row {
                    Some(row) => Some(row[index]),
                    None => key.contains(&column.name).then_some(changed.key),
                })
                .collect();
            given.push((column.name.clone(), self.gather(index, &from)?, true));
        }
        given.push((ORIGIN.to_owned(), Arc::new(StringArray::from(origins)), true));
        Ok(Some((RecordBatch::try_from_iter_with_nullable(given).map_err(failed)?, counts)))
    }

    /// Sites whose edits are in a conflict, and were made while their clock was wrong in a way that
    /// HQ does not know: how many of each.
    pub(super) fn doubtful(&self) -> BTreeMap<&SiteId, usize> {
        let mut all = BTreeMap::new();
        for loss in self.losses.iter().filter(|loss| self.edits.made[loss.edit].is_doubtful) {
            *all.entry(&self.edits.sites[loss.edit]).or_default() += 1;
        }
        all
    }

    /// What was put aside, with the rows as they were in the versions that lost.
    pub(super) fn conflicts(&self) -> Result<Option<RecordBatch>, HqError> {
        let (losses, edits) = (&self.losses, self.edits);
        if losses.is_empty() {
            return Ok(None);
        }
        let texts = |of: &dyn Fn(&Loss) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(losses.iter().map(of)))
        };
        let times: ArrayRef =
            Arc::new(Int64Array::from_iter_values(losses.iter().map(|loss| edits.made[loss.edit].at)));
        let mut given: Vec<(String, ArrayRef, bool)> = vec![
            ("edit_site".to_owned(), texts(&|loss| edits.sites[loss.edit].to_string()), true),
            (
                "edit_epoch".to_owned(),
                Arc::new(Int32Array::from_iter_values(losses.iter().map(|loss| edits.epochs[loss.edit].0 as i32))),
                true,
            ),
            (
                EDIT_NUMBER.to_owned(),
                Arc::new(Int64Array::from_iter_values(losses.iter().map(|loss| edits.numbers[loss.edit] as i64))),
                true,
            ),
            ("edited_at".to_owned(), arrow_cast::cast(&times, &ColumnType::Timestamp.arrow()).map_err(failed)?, true),
            ("kept".to_owned(), texts(&|loss| loss.kept.clone()), true),
            ("lost".to_owned(), texts(&|loss| loss.lost.clone()), true),
            ("lost_columns".to_owned(), texts(&|loss| loss.columns.join(",")), true),
            (
                EDIT_IN_DOUBT.to_owned(),
                Arc::new(BooleanArray::from_iter(losses.iter().map(|loss| Some(edits.made[loss.edit].is_doubtful)))),
                true,
            ),
            (
                "lost_deletion".to_owned(),
                Arc::new(BooleanArray::from_iter(
                    losses.iter().map(|loss| Some(loss.row.as_ref().map_or(edits.gone[loss.edit], Vec::is_empty))),
                )),
                true,
            ),
        ];
        let key = &self.known.definition().key;
        for (index, column) in self.known.image.columns.iter().enumerate() {
            let from: Vec<Option<Source>> = losses
                .iter()
                .map(|loss| match &loss.row {
                    Some(row) if !row.is_empty() => Some(row[index]),
                    None if !edits.gone[loss.edit] => Some((1, loss.edit)),
                    _ => key.contains(&column.name).then_some((1, loss.edit)),
                })
                .collect();
            given.push((column.name.clone(), self.gather(index, &from)?, true));
        }
        Ok(Some(RecordBatch::try_from_iter_with_nullable(given).map_err(failed)?))
    }
}
