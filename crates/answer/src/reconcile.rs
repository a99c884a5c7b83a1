//! Counts again what sites say they captured: every manifest is checked against the rows in the
//! lake.
//!
//! A manifest is itself a row of the site's journal, so it cannot arrive unless the data path
//! works. A site that is heard and sends none, one whose rows are not all here, and one whose
//! tables grow although it captured nothing, each become an incident.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use rollcall_lake::DataFile;
use rollcall_roll::{Condition, Kind};
use rollcall_types::{Epoch, Seq, SiteId, SiteNumber, Stated, TableName, Timestamp};

use rollcall_books::{
    manifests::Reconciled,
    site_log::{Entry, Load, Loads, Losses, Received, entries, manifest, note_load, note_loss},
};
use rollcall_registry::{Heard, HqError};

use crate::{
    answers::Answers,
    restated::Restatements,
    unreconciled::{Discrepancy, Unreconciled},
    windows::{Window, count_surely},
};

/// How far back manifests are read when HQ starts.
const LOOK_BACK: Duration = Duration::from_secs(24 * 3600);
/// Rows of a window were received after the manifest before it, by clocks of nodes that may differ
/// by so much.
const SLACK: Duration = Duration::from_secs(5);
/// So many manifests of a site wait for a table that cannot be counted.
const WAITING_MAX: usize = 12;
/// A site that is heard and misses this many manifests in a row has a dead data path.
const MISSED_MAX: u32 = 3;

/// Runs until the node stops.
pub async fn run(answers: Arc<Answers>) {
    // A round reads all that came since the oldest of the manifests before: with one each half
    // interval, a row is read three times.
    let every = (answers.manifest_interval / 2).clamp(Duration::from_secs(1), Duration::from_secs(300));
    let mut timer = rollcall_runtime::every(every);
    let state = answers.registry.lake.state();
    let mut reconciler = Reconciler {
        read: HashSet::new(),
        started: answers.registry.now(),
        newest: HashMap::new(),
        waiting: BTreeMap::new(),
        unreconciled: Unreconciled::restore(state),
    };
    *answers.restatements.lock().await = Restatements::restore(state);
    loop {
        tokio::select! {
            () = answers.registry.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        answers.registry.health.note("check manifests", &reconciler.round(&answers).await);
    }
}

struct Reconciler {
    /// Files of the sites' log that were read already. By when they were received one could not
    /// tell what is new: a node may take long to commit what it received.
    read: HashSet<String>,
    started: Timestamp,
    /// The newest manifest that was checked, by site.
    newest: HashMap<SiteId, Received>,
    /// Manifests to be checked, oldest first.
    waiting: BTreeMap<(SiteId, Seq), Received>,
    /// What is not mended yet.
    unreconciled: Unreconciled,
}

impl Reconciler {
    async fn round(&mut self, answers: &Arc<Answers>) -> Result<(), HqError> {
        // What was heard of a site must not be newer than what is known of its rows.
        answers.registry.lake.follow().await?;
        self.read(answers).await?;
        let mut windows = Vec::new();
        let mut checked = Vec::new();
        let waiting: Vec<(SiteId, Seq)> = self.waiting.keys().cloned().collect();
        for key in waiting {
            // A batch's tables commit on their own; when the site's position is behind the
            // manifest, all of them have.
            if answers.registry.ledger.confirmed_through(&key.0) < key.1 {
                continue;
            }
            let Some(received) = self.waiting.remove(&key) else { continue };
            let before = self.newest.insert(key.0.clone(), received.clone());
            if let Some(from) = received_from(answers, &key.0, &received, before.as_ref()) {
                let window = |stated: &Stated| {
                    Some(Window {
                        site: key.0.clone(),
                        epoch: received.epoch,
                        after: received.manifest.after,
                        through: received.manifest.through,
                        table: TableName::at_hq(&stated.table).ok()?,
                        stated: stated.rows,
                        received_from: from,
                    })
                };
                windows.extend(received.manifest.tables.iter().filter_map(window));
            }
            checked.push((key.0, received, before));
        }
        let counted = count_surely(answers, &mut windows).await;
        // What stated rows of a table that cannot be counted waits; the other sites' manifests do
        // not.
        let of_uncounted = |received: &Received| {
            let mut names = received.manifest.tables.iter().filter_map(|stated| TableName::at_hq(&stated.table).ok());
            names.any(|name| counted.failed.contains(&name))
        };
        let mut of_site: HashMap<&SiteId, usize> = HashMap::new();
        checked.iter().for_each(|(site, ..)| *of_site.entry(site).or_default() += 1);
        // Of very many, those tables that can be counted are: they would pile up.
        let may_wait = |site: &SiteId| of_site.get(site).is_none_or(|count| *count <= WAITING_MAX);
        let uncounted = checked.iter().filter(|(site, received, _)| of_uncounted(received) && may_wait(site));
        let wait: HashSet<SiteId> = uncounted.map(|(site, ..)| site.clone()).collect();
        let (waiting, checked): (Vec<_>, Vec<_>) = checked.into_iter().partition(|(site, ..)| wait.contains(site));
        for (site, received, before) in waiting.into_iter().rev() {
            match before {
                Some(before) => self.newest.insert(site.clone(), before),
                None => self.newest.remove(&site),
            };
            self.waiting.insert((site, received.seq), received);
        }
        for (site, received, before) in checked {
            judge(answers, &mut self.unreconciled, &site, &received, before.as_ref(), &counted.rows);
        }
        self.miss(answers);
        self.settle(answers).await?;
        self.look_at_restatements(answers).await
    }

    /// Counts again what did not agree, and forgets what is mended.
    async fn settle(&mut self, answers: &Answers) -> Result<(), HqError> {
        let told = answers.alerts.watching.open_of(Condition::Manifest);
        self.unreconciled.account(|site| told.contains(site));
        let open = self.unreconciled.to_count();
        let mut windows: Vec<Window> = open
            .filter_map(|(site, found, stated)| {
                Some(Window {
                    site: site.clone(),
                    epoch: found.epoch,
                    after: found.after,
                    through: found.through,
                    table: TableName::at_hq(&found.table).ok()?,
                    stated,
                    received_from: Timestamp::from_micros(0),
                })
            })
            .collect();
        let counted = count_surely(answers, &mut windows).await;
        let roster = answers.registry.roster.all();
        let current = |site: &SiteId| {
            let record = roster.get(site)?;
            Some((SiteNumber(record.number), record.current_life()?))
        };
        let agrees = |site: &SiteId, found: &Discrepancy| {
            let name = TableName::at_hq(&found.table).ok();
            let key = name.map(|name| (site.clone(), found.through, name));
            found.stated.is_some() && key.and_then(|key| counted.rows.get(&key).copied()) == found.stated
        };
        for site in self.unreconciled.settle(&answers.registry.lake, current, agrees) {
            let mended = "what was missing is here: it was counted again, or stated again".to_owned();
            answers.registry.record_derived(&site, Heard::Mended(Condition::Manifest, mended));
        }
        for site in self.unreconciled.sites() {
            answers.registry.record_derived(site, Heard::Condition(Condition::Manifest, self.unreconciled.text(site)));
        }
        self.unreconciled.note_told(|site| told.contains(site));
        if answers.registry.is_acting() {
            self.unreconciled.store(answers.registry.lake.state(), answers.registry.now()).await?;
        }
        Ok(())
    }

    /// Tells of tables that are stated again, and of those that were.
    async fn look_at_restatements(&self, answers: &Arc<Answers>) -> Result<(), HqError> {
        let mut restatements = answers.restatements.lock().await;
        let (current, now) = (answers.current_rows(), answers.registry.now());
        let confirmed = |site: &SiteId| answers.registry.ledger.confirmed_through(site);
        let number = |site: &SiteId| answers.registry.roster.get(site).map(|record| SiteNumber(record.number));
        let (lake, engine) = (&answers.registry.lake, &answers.engine);
        let news = restatements.look((lake, engine), &current, number, confirmed, now).await;
        for restated in &news.began {
            tracing::warn!("{}", restated.describe());
            if restated.is_incident() {
                answers
                    .registry
                    .record_derived(&restated.site, Heard::Condition(Condition::Restated, Some(restated.describe())));
            }
        }
        for restated in &news.completed {
            tracing::warn!("{}", restated.describe());
            if restated.is_incident() {
                // The incident keeps what was said last: how many rows there are now.
                answers
                    .registry
                    .record_derived(&restated.site, Heard::Condition(Condition::Restated, Some(restated.describe())));
                let left = restatements.text(&restated.site);
                let said = match left {
                    Some(left) => Heard::Condition(Condition::Restated, Some(left)),
                    None => Heard::Mended(Condition::Restated, restated.describe()),
                };
                answers.registry.record_derived(&restated.site, said);
            }
        }
        if answers.registry.is_acting() {
            restatements.store(answers.registry.lake.state(), now).await?;
        }
        Ok(())
    }

    /// Reads what came to the sites' log since the last round.
    async fn read(&mut self, answers: &Answers) -> Result<(), HqError> {
        let horizon = answers.registry.now().before(LOOK_BACK);
        let log = answers.registry.lake.site_log();
        let snapshot = log.snapshot();
        let is_new = |file: &&Arc<DataFile>| {
            file.modified_ms.saturating_mul(1000) >= horizon.as_micros() && !self.read.contains(&file.path)
        };
        let (mut losses, mut loads) = (Losses::new(), Loads::new());
        for file in snapshot.files().filter(is_new).cloned().collect::<Vec<_>>() {
            let batches = log.read_file(&snapshot, &file).await?;
            rollcall_runtime::in_place(|| {
                for rows in batches {
                    // What was merged into a new file is mostly old.
                    for entry in entries(&rows?)?.filter(|entry| entry.at >= horizon) {
                        match entry.op {
                            "L" => note_loss(&mut losses, &entry),
                            "M" => self.take_manifest(answers, &entry),
                            "B" | "C" => note_load(&mut loads, &entry),
                            _ => {}
                        }
                    }
                }
                Ok::<_, HqError>(())
            })?;
        }
        for (site, (at, text)) in losses {
            let is_known = answers.alerts.watching.watch().incidents().any(|incident| {
                incident.kind == Kind::Condition(Condition::Loss)
                    && incident.members.contains_key(&site)
                    && (incident.opened_at >= at || incident.closed_at.is_some_and(|closed| closed >= at))
            });
            if !is_known {
                answers.registry.record_derived(&site, Heard::Condition(Condition::Loss, Some(text)));
            }
        }
        let mut restatements = answers.restatements.lock().await;
        for ((site, epoch, seq), load) in loads {
            match load {
                Load::Begun { table, reason, at } => restatements.begin(site, epoch, seq, &table, &reason, at),
                Load::Complete { table, begin } => restatements.mark(site, &table, (epoch, begin), seq),
            }
        }
        self.read = snapshot.files().map(|file| file.path.clone()).collect();
        Ok(())
    }

    fn take_manifest(&mut self, answers: &Answers, entry: &Entry<'_>) {
        let Some((site, received)) = manifest(entry) else {
            tracing::error!(site = entry.site, "a manifest cannot be read");
            return;
        };
        let known = self.newest.get(&site);
        let is_new = known.is_none_or(|known| (received.epoch, received.seq) > (known.epoch, known.seq));
        // What HQ checked before it stopped is only where the next one continues.
        if received.at < self.started && is_new {
            answers.books.captured.note(&site, &received);
            self.newest.insert(site, received);
        } else if is_new {
            self.waiting.insert((site, received.seq), received);
        }
    }

    /// Sites that are heard and send no manifest.
    fn miss(&self, answers: &Answers) {
        let allowed = answers.manifest_interval * MISSED_MAX;
        for (site, since, heard) in answers.registry.ledger.should_state(answers.registry.now()) {
            let waiting = self.waiting.range((site.clone(), Seq(0))..=(site.clone(), Seq(u64::MAX)));
            let received = waiting.map(|(_, received)| received).chain(self.newest.get(&site));
            let last = received.map(|received| received.at).fold(since, Timestamp::max);
            // Only what passed while it was heard counts: a silent site is another matter.
            if heard.since(last) > allowed {
                let minutes = heard.since(last).as_secs_f64() / 60.0;
                let text = format!(
                    "{site} is heard, but for {minutes:.0} minutes nothing came of what it captured, not even the count of it: \
                     its data path is dead"
                );
                answers.registry.record_derived(&site, Heard::Condition(Condition::Manifest, Some(text)));
            }
        }
    }
}

/// Since when the rows of a manifest's window can have been received; none if that is not known, as
/// after a new epoch.
fn received_from(
    answers: &Answers,
    site: &SiteId,
    received: &Received,
    before: Option<&Received>,
) -> Option<Timestamp> {
    match before {
        Some(before) if before.epoch == received.epoch && before.manifest.through <= received.manifest.after => {
            Some(before.at.before(SLACK))
        }
        None if received.manifest.after == Seq(0) && received.epoch == Epoch(1) => {
            answers.registry.roster.get(site)?.enrolled_at.map(|enrolled| enrolled.before(SLACK))
        }
        _ => None,
    }
}

/// Takes in what a manifest showed.
fn judge(
    answers: &Answers,
    unreconciled: &mut Unreconciled,
    site: &SiteId,
    received: &Received,
    before: Option<&Received>,
    counted: &HashMap<(SiteId, Seq, TableName), u64>,
) {
    let (mut problems, mut all_found) = (Vec::new(), HashSet::new());
    let (after, through) = (received.manifest.after, received.manifest.through);
    let is_next =
        |before: &&Received| before.epoch == received.epoch && before.manifest.through == received.manifest.after;
    answers.books.captured.note(site, received);
    let mut all = answers.books.reconciliation.all();
    for stated in &received.manifest.tables {
        let name = TableName::at_hq(&stated.table).ok();
        let found = name.and_then(|name| counted.get(&(site.clone(), through, name)).copied());
        if found.is_some() {
            all_found.insert(stated.table.clone());
        }
        let discrepancy = |stated_rows: Option<u64>, text: String| Discrepancy {
            epoch: received.epoch,
            table: stated.table.clone(),
            after,
            through,
            stated: stated_rows,
            text,
        };
        // What did not come is in quarantine, and said there.
        let is_kept = || answers.books.quarantine.has_kept(site, received.epoch, &stated.table, (after, through));
        if let Some(found) = found.filter(|found| *found != stated.rows && !is_kept()) {
            let text = format!(
                "{site} journalled {} changes of {} in positions {} to {through}, {found} of them are here",
                stated.rows,
                stated.table,
                after.0 + 1
            );
            problems.push(discrepancy(Some(stated.rows), text));
        }
        let last_key = |received: &Received| {
            received.manifest.tables.iter().find(|other| other.table == stated.table).and_then(|other| other.last_key)
        };
        // Of changes between two manifests that do not follow each other nothing is known.
        if let (0, Some(now), Some(then)) = (stated.rows, stated.last_key, before.filter(is_next).and_then(last_key))
            && now > then
        {
            let text = format!(
                "{site} captured no change of {}, but its last row went from {then} to {now}: changes pass by the triggers",
                stated.table
            );
            problems.push(discrepancy(None, text));
        }
        let reconciled = Reconciled { stated: stated.clone(), after, through, found, at: received.at };
        all.insert((site.clone(), stated.table.clone()), reconciled);
    }
    drop(all);
    for problem in &problems {
        tracing::error!(%site, problem = problem.text, "a manifest does not agree with the lake");
    }
    let is_counted = |stated: &Stated| all_found.contains(&stated.table);
    if problems.is_empty() && received.manifest.tables.iter().all(is_counted) {
        answers.registry.record_derived(site, Heard::Reconciled { received_at: received.at });
    }
    problems.into_iter().for_each(|problem| unreconciled.add(site, problem));
    // Where nothing is left to mend, what was said of manifests that did not come is over.
    answers.registry.record_derived(site, Heard::Condition(Condition::Manifest, unreconciled.text(site)));
}
