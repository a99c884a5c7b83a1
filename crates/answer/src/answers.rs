//! The part as a whole.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arrow_array::RecordBatch;
use rollcall_alert::Alerts;
use rollcall_books::{Books, table_settings};
use rollcall_publish::{
    Publisher,
    arrivals::{self, Arrival},
};
use rollcall_query::{Engine, Extras, MakeTable, datafusion::catalog::TableFunctionImpl};
use rollcall_registry::{Registry, Sites, progress::ProgressCache};
use rollcall_roll::Incident;

use crate::{
    coverage::{HqCoverage, RosterView},
    coverage_function::CoverageFunction,
    misfit_counter::MisfitCounter,
    restated::{Restated, Restatements},
    seen, tables,
};

/// What an answer of HQ is made with, and how complete it is.
pub struct Answers {
    /// Which sites there are, and the lake.
    pub registry: Arc<Registry>,
    /// What is known of rows beside the rows.
    pub books: Arc<Books>,
    /// What silence means.
    pub alerts: Arc<Alerts>,
    /// What HQ gives sites.
    pub publisher: Arc<Publisher>,
    /// Answers questions.
    pub engine: Arc<Engine>,
    /// How often a site counts what it captured.
    pub manifest_interval: Duration,
    /// Counts values that fit no column.
    pub misfit_counter: MisfitCounter,
    /// How complete each site is, as questions take it.
    pub progress: ProgressCache,
    pub(crate) restatements: tokio::sync::Mutex<Restatements>,
    roster_view: Mutex<Option<Arc<RosterView>>>,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

impl Answers {
    /// Nothing is counted yet. A site counts what it captured every `manifest_interval`.
    pub fn new(alerts: Arc<Alerts>, publisher: Arc<Publisher>, manifest_interval: Duration) -> Self {
        Self {
            registry: alerts.registry.clone(),
            books: alerts.books.clone(),
            engine: publisher.engine.clone(),
            alerts,
            publisher,
            manifest_interval,
            misfit_counter: MisfitCounter::default(),
            progress: ProgressCache::default(),
            restatements: tokio::sync::Mutex::default(),
            roster_view: Mutex::default(),
        }
    }

    /// The roster in the forms that queries need.
    pub fn roster_view(&self) -> Arc<RosterView> {
        let roster = self.registry.roster.all();
        let mut known = self.roster_view.lock().unwrap_or_else(PoisonError::into_inner);
        match known.as_ref().filter(|view| Arc::ptr_eq(&view.roster, &roster)) {
            Some(view) => view.clone(),
            None => known.insert(Arc::new(RosterView::new(roster))).clone(),
        }
    }

    /// Keeps it known how complete each site is, while people ask.
    pub fn refresh_progress(&self) {
        self.progress.refresh(&self.registry.ledger, || self.roster_view().ids.clone(), self.registry.now());
    }

    /// How every published table stands at every site that should have it.
    pub fn arrivals(&self) -> Vec<Arrival> {
        arrivals::arrivals(&self.publisher, &|| self.alerts.roll())
    }

    /// What goes with a question asked now by one who sees sites with these attributes only (all if
    /// there are none).
    pub fn extras(self: &Arc<Self>, sees: &BTreeMap<String, String>) -> Extras {
        let mut view = self.roster_view();
        let mut only = None;
        if !sees.is_empty() {
            let seen = self.seen(sees);
            only = Some(Arc::new(seen.keys().map(ToString::to_string).collect()));
            // Cursors name sites by number, whoever asks.
            let (numbers, lives) = (view.numbers.clone(), view.lives.clone());
            let mut of_seen = RosterView::new(seen);
            (of_seen.numbers, of_seen.lives) = (numbers, lives);
            view = Arc::new(of_seen);
        }
        let (registry, now) = (&self.registry, self.registry.now());
        let all = self.roster_view().ids.clone();
        let coverage = Arc::new(HqCoverage {
            registry: registry.clone(),
            alerts: self.alerts.clone(),
            books: self.books.clone(),
            view: view.clone(),
            settings: table_settings::all(&registry.lake),
            progress: self.progress.get(&registry.ledger, &all, now),
            asked_at: now,
            misfits: self.books.misfits.get(),
            quarantined: self.books.quarantine.concerns(),
        });
        let tables = self.own_tables(&view, &coverage, only.clone());
        let function = CoverageFunction { answers: Arc::downgrade(self), sees: sees.clone() };
        let functions: Vec<(_, Arc<dyn TableFunctionImpl>)> = vec![("coverage", Arc::new(function))];
        let (site_ids, lives) = (view.numbers.clone(), view.lives.clone());
        Extras { tables, site_ids, lives, cover: coverage, only, functions, ..Extras::default() }
    }

    /// HQ's own tables; for one who sees `only` some sites, what they say of these.
    fn own_tables(
        self: &Arc<Self>,
        view: &Arc<RosterView>,
        coverage: &Arc<HqCoverage>,
        only: Option<Arc<HashSet<String>>>,
    ) -> Vec<(&'static str, &'static str, MakeTable)> {
        let mut own: Vec<(_, _, MakeTable)> = vec![];
        let of_view = view.clone();
        let sites: MakeTable = Arc::new(move || of_view.table.clone());
        own.extend([("public", "sites", sites.clone()), ("rollcall", "sites", sites)]);
        let of_all = coverage.clone();
        own.push(("rollcall", "coverage", Arc::new(move || tables::coverage(&of_all.of_everything()))));
        let (alerts, seen) = (self.alerts.clone(), view.roster.clone());
        let roll = move || {
            let mut roll = alerts.roll();
            roll.retain(|entry| seen.contains_key(&entry.site));
            tables::roll(&roll)
        };
        own.push(("rollcall", "roll", Arc::new(roll)));
        let seen = view.roster.clone();
        let mut add = |name: &'static str, make: fn(&Self, &Sites) -> RecordBatch| {
            let (answers, seen, only) = (self.clone(), seen.clone(), only.clone());
            let make = move || seen::rows_of(make(&answers, &seen), only.as_deref());
            own.push(("rollcall", name, Arc::new(make)));
        };
        add("arrivals", |this, _| tables::arrivals(&this.arrivals()));
        add("incidents", |this, seen| tables::incidents(&this.incidents(seen)));
        add("complete_through", |this, _| tables::complete_through(&this.registry.ledger.tables_through()));
        add("cursors", |this, _| tables::cursors(&this.registry.lake, &this.registry.roster.all()));
        add("manifests", |this, _| tables::manifests(&this.books.reconciliation.all()));
        add("uncaptured", |this, _| tables::uncaptured(&this.registry.lake, &this.books.captured.all()));
        add("restated", |this, _| tables::restated(&this.restated()));
        add("lives", |_, seen| tables::lives(seen));
        if only.is_none() {
            add("publications", |this, _| tables::publications(&arrivals::arrived(&this.publisher, &this.arrivals())));
            add("columns", |this, _| tables::columns(&this.registry.lake));
        }
        own
    }

    /// Open incidents and those that ended lately, as far as they are about these sites.
    pub fn incidents(&self, seen: &Sites) -> Vec<Incident> {
        let sees_all = seen.len() == self.registry.roster.all().len();
        let all = self.alerts.incidents();
        if sees_all { all } else { all.into_iter().filter_map(|incident| seen::incident_of(incident, seen)).collect() }
    }

    /// The sites with these attributes; all if there are none.
    pub fn seen(&self, sees: &BTreeMap<String, String>) -> Arc<Sites> {
        let all = self.registry.roster.all();
        if sees.is_empty() {
            return all;
        }
        let seen = all.iter().filter(|(_, record)| record.has(sees));
        Arc::new(seen.map(|(id, record)| (id.clone(), record.clone())).collect())
    }

    /// Tables that sites state again, or did.
    fn restated(&self) -> Vec<Restated> {
        // Counting is under way only for a moment; then what is stored says it.
        match self.restatements.try_lock() {
            Ok(known) => known.all().cloned().collect(),
            Err(_) => Restatements::restore(self.registry.lake.state()).all().cloned().collect(),
        }
    }

    /// Counts the values that fit no column, where there may be others than at the last count.
    pub async fn count_misfits(&self) {
        let (current, registry) = (self.current_rows(), &self.registry);
        self.misfit_counter.round(&self.engine, &current, registry, &self.books.misfits).await;
    }

    /// What goes with a question of HQ's own, of which only the rows matter that are current.
    pub fn current_rows(&self) -> Extras {
        let view = self.roster_view();
        Extras { site_ids: view.numbers.clone(), lives: view.lives.clone(), ..Extras::default() }
    }
}
