//! Tables that sites state again because rows of them may be missing, doubled or stale at HQ: from
//! the mark that it began, with its reason, to the one that it is complete, with how many rows HQ
//! had before and has after.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::{Array, cast::AsArray, types::Int64Type};
use rollcall_lake::{Lake, LakeError, RecordKind, StateLog};
use rollcall_query::{Engine, Extras};
use rollcall_types::{Epoch, LoadReason, Seq, SiteId, SiteNumber, TableName, Timestamp, describe};
use serde::{Deserialize, Serialize};

const RESTATED: RecordKind<Restated> = RecordKind::new("restated");

/// Rows by site and table; none of those that could not be counted. A table that is not there has
/// none.
type Counted = BTreeMap<(SiteId, String), Option<i64>>;

/// A table of a site that is stated again, or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restated {
    pub site: SiteId,
    /// As the site calls it.
    pub table: String,
    pub epoch: Epoch,
    /// Position of the mark of its beginning.
    pub begin: Seq,
    /// The word of a [`LoadReason`].
    pub reason: String,
    pub began_at: Timestamp,
    pub completed_at: Option<Timestamp>,
    /// The rows that were current when it began, and those when it was complete.
    pub rows_before: Option<i64>,
    pub rows_after: Option<i64>,
}

impl Restated {
    fn why(&self) -> Option<LoadReason> {
        self.reason.parse().ok()
    }

    /// Whether a person is to be told: a whole fleet that is updated is shown, and no incident.
    pub fn is_incident(&self) -> bool {
        self.why().is_some_and(|why| why != LoadReason::Update)
    }

    pub fn describe(&self) -> String {
        let why = self.why().map_or_else(|| self.reason.clone(), |why| why.to_string());
        let count = |rows: Option<i64>| rows.map_or_else(|| "an unknown number of".to_owned(), |rows| rows.to_string());
        let so_far = match self.completed_at {
            Some(_) => format!(
                "all rows were stated again: {} rows before, {} after",
                count(self.rows_before),
                count(self.rows_after)
            ),
            None => format!("all rows are being stated again; {} rows are here before that", count(self.rows_before)),
        };
        format!("{} of {}: {why}; {so_far}", self.table, self.site)
    }
}

/// What became of marks that were read.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Began, as far as they are not complete yet or were complete at once.
    pub began: Vec<Restated>,
    /// Complete, every row is here.
    pub completed: Vec<Restated>,
}

/// All tables that are stated again, and what was.
#[derive(Debug, Default)]
pub(crate) struct Restatements {
    /// The newest of each table of a site.
    known: BTreeMap<(SiteId, String), Restated>,
    /// Marks of completion whose rows are perhaps not all here: position of the mark, by table,
    /// with the life and the beginning that it is of.
    marked: BTreeMap<(SiteId, String), (Seq, (Epoch, Seq))>,
    changed: BTreeSet<(SiteId, String)>,
    /// Beginnings whose rows before could not be counted; people are told all the same.
    uncounted: BTreeSet<(SiteId, String, Epoch, Seq)>,
    news: News,
}

impl Restatements {
    /// What was known when HQ stopped.
    pub(crate) fn restore(state: &StateLog) -> Self {
        let view = state.view();
        let known = view.of_kind(RESTATED).filter_map(|record| record.parse::<Restated>().ok());
        let known = known.map(|restated| ((restated.site.clone(), restated.table.clone()), restated)).collect();
        Self { known, ..Self::default() }
    }

    /// All of them, by site and table.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Restated> {
        self.known.values()
    }

    /// A load began.
    pub(crate) fn begin(&mut self, site: SiteId, epoch: Epoch, begin: Seq, table: &str, reason: &str, at: Timestamp) {
        if !reason.parse().is_ok_and(LoadReason::is_suspect) {
            return;
        }
        let key = (site.clone(), table.to_owned());
        let is_new = self.known.get(&key).is_none_or(|known| (known.epoch, known.begin) < (epoch, begin));
        if is_new {
            let restated = Restated {
                site,
                table: table.to_owned(),
                epoch,
                begin,
                reason: reason.to_owned(),
                began_at: at,
                completed_at: None,
                rows_before: None,
                rows_after: None,
            };
            self.known.insert(key.clone(), restated);
            self.changed.insert(key);
        }
    }

    /// A load's last row was sent, and this mark behind it.
    pub(crate) fn mark(&mut self, site: SiteId, table: &str, begin: (Epoch, Seq), mark: Seq) {
        self.marked.insert((site, table.to_owned()), (mark, begin));
    }

    /// Works out what is news: `confirmed` says how far a site's changes are here. Rows are counted
    /// where `current` says which are.
    pub(crate) async fn look(
        &mut self,
        (lake, engine): (&Lake, &Engine),
        current: &Extras,
        number: impl Fn(&SiteId) -> Option<SiteNumber>,
        confirmed: impl Fn(&SiteId) -> Seq,
        now: Timestamp,
    ) -> News {
        let is_new = |of: &&Restated| {
            of.completed_at.is_none()
                && of.rows_before.is_none()
                && !self.uncounted.contains(&(of.site.clone(), of.table.clone(), of.epoch, of.begin))
        };
        let begun: Vec<Restated> = self.known.values().filter(is_new).cloned().collect();
        let before = count_before(lake, engine, &begun, number).await;
        for restated in begun {
            let (epoch, begin) = (restated.epoch, restated.begin);
            let key = (restated.site, restated.table);
            let Some(known) = self.known.get_mut(&key) else { continue };
            // A table that HQ has no row of has none.
            known.rows_before = before.get(&key).copied().unwrap_or(Some(0));
            if known.rows_before.is_none() {
                self.uncounted.insert((key.0.clone(), key.1.clone(), epoch, begin));
            }
            self.changed.insert(key);
            self.news.began.push(known.clone());
        }
        let is_over = |key: &(SiteId, String), mark: &(Seq, (Epoch, Seq))| {
            confirmed(&key.0) >= mark.0
                && self
                    .known
                    .get(key)
                    .is_some_and(|known| (known.epoch, known.begin) <= mark.1 && known.completed_at.is_none())
        };
        let over: Vec<(SiteId, String)> =
            self.marked.iter().filter(|(key, mark)| is_over(key, mark)).map(|(key, _)| key.clone()).collect();
        let after = count(lake, engine, current, &over).await;
        for key in over {
            self.marked.remove(&key);
            let Some(known) = self.known.get_mut(&key) else { continue };
            known.rows_after = after.get(&key).copied().unwrap_or(Some(0));
            known.completed_at = Some(now);
            self.changed.insert(key);
            self.news.completed.push(known.clone());
        }
        self.marked.retain(|key, mark| {
            self.known
                .get(key)
                .is_some_and(|known| known.completed_at.is_none() && (known.epoch, known.begin) <= mark.1)
        });
        std::mem::take(&mut self.news)
    }

    /// What is still being stated again at a site, for people; none if nothing is.
    pub(crate) fn text(&self, site: &SiteId) -> Option<String> {
        let of_site = self.known.range((site.clone(), String::new())..).take_while(|((of, _), _)| of == site);
        let open = of_site.map(|(_, known)| known).filter(|known| known.completed_at.is_none() && known.is_incident());
        let texts: Vec<String> = open.map(Restated::describe).collect();
        (!texts.is_empty()).then(|| texts.join(". "))
    }

    /// Stores what changed.
    pub(crate) async fn store(&mut self, state: &StateLog, now: Timestamp) -> Result<(), LakeError> {
        if self.changed.is_empty() {
            return Ok(());
        }
        state
            .update(|view| {
                let known = self.changed.iter().filter_map(|key| self.known.get(key));
                let record = |of: &Restated| view.next(RESTATED, &format!("{}/{}", of.site, of.table), of, now, "hq");
                Ok::<_, LakeError>((known.map(record).collect::<Result<Vec<_>, _>>()?, ()))
            })
            .await?;
        self.changed.clear();
        Ok(())
    }
}

/// The rows that were current when these loads began, by site and table. The load may be complete
/// by now, so history is asked.
async fn count_before(
    lake: &Lake,
    engine: &Engine,
    begun: &[Restated],
    number: impl Fn(&SiteId) -> Option<SiteNumber>,
) -> Counted {
    const AT_ONCE: usize = 200;
    let mut by_table: BTreeMap<&str, Vec<&Restated>> = BTreeMap::new();
    for restated in begun {
        by_table.entry(&restated.table).or_default().push(restated);
    }
    let mut counted = Counted::new();
    for (table, begun) in by_table {
        let Ok(name) = TableName::at_hq(table) else { continue };
        let Some(snapshot) = lake.table(&name).map(|table| table.snapshot()) else { continue };
        let key: Vec<String> = snapshot.schema().key_columns().map(|name| format!(", \"{name}\"")).collect();
        for begun in begun.chunks(AT_ONCE) {
            let were_current = |of: &&Restated| {
                let cursor = number(&of.site).and_then(|number| snapshot.cursor(number, of.epoch)).unwrap_or_default();
                // Where the load is complete, it is not known any more where the one before began.
                let from = if cursor.floor < of.begin { cursor.floor } else { Seq(0) };
                let (site, epoch, begin) = (&of.site, of.epoch.0, of.begin);
                format!("(_site = '{site}' AND _epoch = {epoch} AND _seq >= {from} AND _seq < {begin})")
            };
            let places: Vec<String> = begun.iter().map(were_current).collect();
            // Without a key every row is one.
            let each = if key.is_empty() { ", _epoch, _seq".to_owned() } else { key.concat() };
            let sql = format!(
                "SELECT _site, count(*) FROM (SELECT _site, _op, row_number() OVER (PARTITION BY _site{each} ORDER BY _seq DESC) AS \
                 _newest FROM history.\"{name}\" WHERE {}) WHERE _newest = 1 AND _op <> 'D' GROUP BY _site",
                places.join(" OR ")
            );
            let sites = begun.iter().map(|of| &of.site);
            note_counts(&mut counted, engine, (&sql, Extras::default()), table, sites).await;
        }
    }
    counted
}

/// Current rows by site and table; a table at a time, however many sites ask.
async fn count(lake: &Lake, engine: &Engine, current: &Extras, of: &[(SiteId, String)]) -> Counted {
    let mut by_table: BTreeMap<&str, Vec<&SiteId>> = BTreeMap::new();
    for (site, table) in of {
        by_table.entry(table).or_default().push(site);
    }
    let mut counted = Counted::new();
    for (table, sites) in by_table {
        let Some(name) = TableName::at_hq(table).ok().filter(|name| lake.table(name).is_some()) else { continue };
        let list: Vec<String> = sites.iter().map(|site| format!("'{site}'")).collect();
        let sql = format!("SELECT _site, count(*) FROM \"{name}\" WHERE _site IN ({}) GROUP BY _site", list.join(","));
        note_counts(&mut counted, engine, (&sql, current.clone()), table, sites.into_iter()).await;
    }
    counted
}

/// Asks for a number of rows of each site, and notes them; what could not be counted is none.
async fn note_counts<'a>(
    counted: &mut Counted,
    engine: &Engine,
    (sql, extras): (&str, Extras),
    table: &str,
    sites: impl Iterator<Item = &'a SiteId>,
) {
    let answer = match engine.query(sql, extras).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(table, error = %describe(&error), "rows of a table that is stated again could not be counted");
            counted.extend(sites.map(|site| ((site.clone(), table.to_owned()), None)));
            return;
        }
    };
    for rows in &answer.batches {
        let Ok(names) = arrow_cast::cast(rows.column(0), &arrow_schema::DataType::Utf8) else { continue };
        let (names, counts) = (names.as_string::<i32>(), rows.column(1).as_primitive::<Int64Type>());
        for row in (0..rows.num_rows()).filter(|row| names.is_valid(*row)) {
            if let Ok(site) = SiteId::new(names.value(row)) {
                counted.insert((site, table.to_owned()), Some(counts.value(row)));
            }
        }
    }
}
