//! Puts contested lives of sites' journals to people, lets those take the place of the one before
//! that have all of it, and tells of columns that lack values.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use rollcall_lake::Cursor;
use rollcall_roll::Condition;
use rollcall_types::{Epoch, SiteId};

use rollcall_books::{misfits, restate, stopped};
use rollcall_registry::{Heard, HqError, SiteRecord, roster::ContestedLife};

use crate::{
    answers::Answers,
    lives::{ComparedTable, LifeJudge, describe as describe_life, is_contained},
};

/// A column that is gone at more sites than this was taken away by the company.
const GONE_AT_FEW: usize = 20;
/// The least and the most time between two looks.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What was told last.
#[derive(Default)]
struct Told {
    lives: BTreeSet<SiteId>,
    misfits: BTreeMap<SiteId, String>,
    quarantined: BTreeMap<SiteId, String>,
    gone: BTreeMap<SiteId, String>,
    stopped: stopped::Looked,
    quotas: BTreeMap<SiteId, String>,
    /// What was compared, with how far both lives were here then.
    compared: HashMap<(SiteId, Epoch), (Vec<Cursor>, Vec<ComparedTable>)>,
}

/// Runs until the node stops.
pub async fn run(answers: Arc<Answers>) {
    let every = answers.publisher.beacon_interval.clamp(LOOK_EVERY.0, LOOK_EVERY.1);
    let mut timer = rollcall_runtime::every(every);
    let (mut told, mut has_asked_of_old) = (Told::default(), false);
    loop {
        tokio::select! {
            () = answers.registry.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        if answers.registry.is_acting() && !has_asked_of_old {
            let asked = ask_of_old(&answers).await;
            answers.registry.health.note("ask about lives of before", &asked);
            has_asked_of_old = asked.is_ok();
        }
        look_at_lives(&answers, &mut told).await;
        answers.count_misfits().await;
        let misfits = misfits::by_site(&answers.books.misfits.get());
        tell(&answers, Condition::Misfit, misfits, &mut told.misfits, "all values fit their columns");
        if answers.registry.is_acting() {
            let looked = stopped::look(&answers.registry, &answers.books.captured, &mut told.stopped).await;
            answers.registry.health.note("note which tables sites capture no longer", &looked);
            let stored = answers.books.captured.store(&answers.registry).await;
            answers.registry.health.note("store what sites lack", &stored);
        }
        let why = "the site stated these rows again or captures these tables again, or a person did without them";
        tell(&answers, Condition::Quarantined, quarantined(&answers), &mut told.quarantined, why);
        let why = "the columns are there again, or a person said that they are optional";
        tell(&answers, Condition::ColumnGone, gone(&answers), &mut told.gone, why);
        let over = "it has stayed below its quotas for an hour";
        tell(&answers, Condition::Quota, answers.books.quotas.told(answers.registry.now()), &mut told.quotas, over);
    }
}

/// Before HQ 0.2 a new life took the place of the one before whatever it lacked. Each is compared
/// once.
async fn ask_of_old(answers: &Answers) -> Result<(), HqError> {
    const EXEMPT: &str = "a person told the site to send again";
    let is_old = |record: &SiteRecord| {
        let journal = record.journal.as_ref();
        record.contested.is_empty()
            && journal.is_some_and(|journal| {
                !journal.is_asked_about && journal.epoch > Epoch(1) && !journal.reason.starts_with(EXEMPT)
            })
    };
    for (site, record) in answers.registry.roster.all().iter().filter(|(_, record)| is_old(record)) {
        answers.registry.roster.contest_shown(site, answers.registry.now()).await?;
        tracing::warn!(%site, epoch = ?record.journal.as_ref().map(|journal| journal.epoch), "a life that replaced another is compared with it");
    }
    Ok(())
}

/// Compares contested lives with those before them; a node that does not act only says which are
/// contested.
async fn look_at_lives(answers: &Answers, told: &mut Told) {
    let judge = LifeJudge { lake: &answers.registry.lake, engine: &answers.engine };
    let mut open = BTreeSet::new();
    let mut compared = HashMap::new();
    for (site, record) in answers.registry.roster.all().iter().filter(|(_, record)| record.retired.is_none()) {
        let Some(life) = record.question() else { continue };
        open.insert(site.clone());
        let mut tables = Vec::new();
        if answers.registry.is_acting() {
            let stamp = judge.stamp(record, life);
            let key = (site.clone(), life.epoch);
            let known = told.compared.remove(&key).filter(|(of, _)| *of == stamp);
            tables = match known {
                Some((_, tables)) => tables,
                None => match compare(answers, &judge, site, record, life).await {
                    Ok(tables) => tables,
                    Err(_) => {
                        // The others are looked at all the same, and this one's question stays.
                        answers.registry.record_derived(
                            site,
                            Heard::Condition(Condition::NewLife, Some(describe_life(site, life, &[]))),
                        );
                        continue;
                    }
                },
            };
            if is_contained(&tables) {
                let accepted = answers.registry.roster.accept_contained(site, life.epoch, answers.registry.now()).await;
                answers.registry.health.note(format!("accept the new life of {site}"), &accepted);
                if let Ok(is_accepted) = accepted {
                    tracing::info!(%site, epoch = %life.epoch, is_accepted, "a new life has every row of the one before");
                }
                open.remove(site);
                // It may be told of without ever having been an incident.
                told.lives.insert(site.clone());
                continue;
            }
            compared.insert(key, (stamp, tables.clone()));
        }
        answers
            .registry
            .record_derived(site, Heard::Condition(Condition::NewLife, Some(describe_life(site, life, &tables))));
    }
    // What another node told of, or this one before it was started anew, ends here as well.
    told.lives.extend(answers.alerts.watching.open_of(Condition::NewLife));
    for site in told.lives.difference(&open) {
        let ruling = answers.registry.roster.get(site).and_then(|record| record.contested.last()?.ruling.clone());
        let why = ruling.map_or_else(
            || "it is over".to_owned(),
            |ruling| {
                let what = if ruling.is_accepted { "accepted the new life" } else { "kept the life before" };
                format!("{} {what}: {}", ruling.by, ruling.reason)
            },
        );
        answers.registry.record_derived(site, Heard::Mended(Condition::NewLife, why));
    }
    (told.lives, told.compared) = (open, compared);
}

async fn compare(
    answers: &Answers,
    judge: &LifeJudge<'_>,
    site: &SiteId,
    record: &SiteRecord,
    life: &ContestedLife,
) -> Result<Vec<ComparedTable>, HqError> {
    let compared = judge.compare(site, record, life).await;
    answers.registry.health.note(format!("compare the lives of {site}"), &compared);
    compared
}

/// Tells of sites of which something is wrong, and of those of which that is over: `why`.
fn tell(
    answers: &Answers,
    condition: Condition,
    now: BTreeMap<SiteId, String>,
    told: &mut BTreeMap<SiteId, String>,
    why: &str,
) {
    for (site, text) in now.iter().filter(|(site, text)| told.get(*site) != Some(*text)) {
        answers.registry.record_derived(site, Heard::Condition(condition, Some(text.clone())));
    }
    // What another node told of, or this one before it was started anew, ends here as well.
    let told_of = told.keys().cloned().chain(answers.alerts.watching.open_of(condition)).collect::<BTreeSet<_>>();
    for site in told_of.iter().filter(|site| !now.contains_key(*site)) {
        answers.registry.record_derived(site, Heard::Mended(condition, why.to_owned()));
    }
    *told = now;
}

/// What is said of sites whose tables have lost a column. Where many have, it is a change of the
/// company's and no site's trouble: answers say it, and `rollcall.uncaptured`.
fn gone(answers: &Answers) -> BTreeMap<SiteId, String> {
    let concerns = answers.books.quarantine.concerns();
    let mut sites: HashMap<&(String, String), usize> = HashMap::new();
    concerns.values().flat_map(|concern| concern.gone()).for_each(|column| *sites.entry(column).or_default() += 1);
    let is_of_few = |column: &(String, String)| sites.get(column).is_some_and(|sites| *sites <= GONE_AT_FEW);
    let few = concerns.iter().filter(|(_, concern)| concern.gone().iter().any(is_of_few));
    few.filter_map(|(site, concern)| Some((site.clone(), concern.gone_in_words(site)?))).collect()
}

/// What is said of sites with batches in quarantine, or rows to be stated again.
fn quarantined(answers: &Answers) -> BTreeMap<SiteId, String> {
    let (roster, concerns) = (answers.registry.roster.all(), answers.books.quarantine.concerns());
    let (view, captured) = (answers.registry.lake.state().view(), answers.books.captured.all());
    let said = concerns.iter().filter_map(|(site, concern)| {
        let stopped = concern.stopped_in_words(site);
        let text = answers.books.quarantine.describe(site, &roster);
        let mut text = [text, stopped].into_iter().flatten().reduce(|one, other| format!("{one}; {other}"))?;
        let record = roster.get(site)?;
        let tables = restate::uncaptured(&answers.registry.lake, &view, site, record, &captured);
        if !tables.is_empty() {
            let tables = tables.into_iter().collect::<Vec<_>>().join(", ");
            text.push_str(&format!(
                "; it does not capture {tables} any more, so nothing will come of that: if these rows can be done without, account for \
                 this incident (`rollcall incidents normal`)"
            ));
        }
        Some((site.clone(), text))
    });
    said.collect()
}
