//! The part as a whole.

use std::{
    collections::BTreeMap,
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

use crate::{
    coverage::{HqCoverage, RosterView},
    coverage_function::CoverageFunction,
    misfit_counter::MisfitCounter,
    restated::{Restated, Restatements},
    tables,
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
            let seen = view.roster.iter().filter(|(_, record)| record.has(sees));
            let seen: Sites = seen.map(|(id, record)| (id.clone(), record.clone())).collect();
            only = Some(Arc::new(seen.keys().map(ToString::to_string).collect()));
            // Cursors name sites by number, whoever asks.
            let (numbers, lives) = (view.numbers.clone(), view.lives.clone());
            let mut of_seen = RosterView::new(Arc::new(seen));
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
        let tables = self.own_tables(&view, &coverage, only.is_none());
        let function = CoverageFunction { answers: Arc::downgrade(self), sees: sees.clone() };
        let functions: Vec<(_, Arc<dyn TableFunctionImpl>)> = vec![("coverage", Arc::new(function))];
        let (site_ids, lives) = (view.numbers.clone(), view.lives.clone());
        Extras { tables, site_ids, lives, cover: coverage, only, functions, ..Extras::default() }
    }

    /// HQ's own tables; those that name more than sites only for one who sees all of them.
    fn own_tables(
        self: &Arc<Self>,
        view: &Arc<RosterView>,
        coverage: &Arc<HqCoverage>,
        sees_all: bool,
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
        if !sees_all {
            return own;
        }
        let mut add = |name: &'static str, make: fn(&Self) -> RecordBatch| {
            let answers = self.clone();
            own.push(("rollcall", name, Arc::new(move || make(&answers))));
        };
        add("publications", |this| tables::publications(&arrivals::arrived(&this.publisher, &this.arrivals())));
        add("arrivals", |this| tables::arrivals(&this.arrivals()));
        add("incidents", |this| tables::incidents(&this.alerts.incidents()));
        add("complete_through", |this| tables::complete_through(&this.registry.ledger.tables_through()));
        add("cursors", |this| tables::cursors(&this.registry.lake, &this.registry.roster.all()));
        add("columns", |this| tables::columns(&this.registry.lake));
        add("manifests", |this| tables::manifests(&this.books.reconciliation.all()));
        add("uncaptured", |this| tables::uncaptured(&this.books.captured.all()));
        add("restated", |this| tables::restated(&this.restated()));
        add("lives", |this| tables::lives(&this.registry.roster.all()));
        own
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
