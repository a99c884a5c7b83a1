//! Rows that a scope leaves out never change an answer: random plans, on rows that differ where the
//! scope says that it does not matter.
//!
//! Method: a plan is optimised once, and its scope found. Then it runs on rows drawn at random, and
//! on the same rows with those that are out of scope (of a site that no scan is about, or outside
//! the period) taken away, and replaced by others, some with nulls. Every answer must be the same.
//! On a sample, it is counted how often a site is in scope that no such change can be seen of: the
//! scopes are no wider than they need be, as far as that shows.

mod periods;
mod plans;
mod predicates;
mod rows;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use datafusion::{
    common::Result,
    execution::{SessionState, TaskContext},
    logical_expr::LogicalPlan,
    prelude::{SessionConfig, SessionContext},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use self::{
    plans::Plans,
    rows::{SITES, World, answer, draw, site_ids, with_others, with_site_of},
};
use super::{Scope, scope};

/// Midnights, UTC: an ordinary day, and the ends of Los Angeles' summer time.
const DAYS: [i64; 4] = [1_795_132_800, 1_795_132_800, 1_793_491_200, 1_772_928_000];

/// What came of the plans.
#[derive(Debug, Default)]
struct Outcome {
    answered: u64,
    /// The optimiser or an operator does not do it.
    refused: BTreeMap<String, u64>,
    /// Plans of whose scope something was out.
    narrowed: u64,
    with_period: u64,
    /// Of the sampled plans: sites in scope, those that were seen to change the answer, and plans
    /// by the share of the others.
    in_scope: u64,
    needed: u64,
    too_wide: [u64; 5],
    wrong: BTreeMap<u64, String>,
}

fn number_of(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// What plans are made and run in; its parts are made once, since each costs more than a plan.
struct Session {
    context: SessionContext,
    state: SessionState,
    task: Arc<TaskContext>,
}

impl Session {
    fn new() -> Self {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        Self { state: context.state(), task: context.task_ctx(), context }
    }

    async fn scope(&self, plan: &LogicalPlan) -> Result<Scope> {
        scope(&self.context, plan, &site_ids(), &|_| Some("sold_at".to_owned())).await
    }
}

/// Whether the rows of a site can be seen in the answer, as far as some tries show.
async fn is_needed(
    session: &Session,
    plan: &LogicalPlan,
    (base, site): (&World, usize),
    random: &mut StdRng,
    about: i64,
) -> bool {
    let Ok(known) = answer(session, plan, base).await else { return true };
    for nulls in [2, 6, 6, 6, 100] {
        let other = with_site_of(base, &draw(random, about, nulls), site);
        if answer(session, plan, &other).await.is_ok_and(|other| other != known) {
            return true;
        }
    }
    false
}

/// One plan, from its number.
async fn try_plan(session: &Session, seed: u64, number: u64, outcome: &Mutex<Outcome>) {
    let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number));
    let about = DAYS.choose(&mut random).expect("some") * 1_000_000;
    let mut plans = Plans::new(StdRng::seed_from_u64(random.random()), about);
    let noted = |what: String| *outcome.lock().expect("not poisoned").refused.entry(what).or_default() += 1;
    let brief =
        |error: datafusion::error::DataFusionError| error.strip_backtrace().chars().take(40).collect::<String>();
    let made = match plans.question() {
        Ok(made) => made,
        Err(error) => return noted(format!("made: {}", brief(error))),
    };
    let plan = match session.state.optimize(&made) {
        Ok(plan) => plan,
        Err(error) => return noted(format!("optimised: {}", brief(error))),
    };
    let base = draw(&mut random, about, 6);
    let known = match answer(session, &plan, &base).await {
        Ok(known) => known,
        Err(error) => return noted(format!("answered: {}", brief(error))),
    };
    let wrong = |text: String| {
        let text = format!(
            "seed {seed}, plan {number}: {text}\n{}\noptimised:\n{}",
            made.display_indent(),
            plan.display_indent()
        );
        outcome.lock().expect("not poisoned").wrong.insert(number, text);
    };
    let found = match session.scope(&plan).await {
        Ok(found) => found,
        Err(error) => return wrong(format!("the scope fails: {error}")),
    };
    let is_narrow =
        found.scans.iter().any(|scan| scan.sites.contains(&false) || scan.from.is_some() || scan.until.is_some());
    if is_narrow {
        for nulls in [0, 6, 3] {
            let other = if nulls == 0 { World::default() } else { draw(&mut random, about, nulls) };
            let other = with_others(&base, &other, &found);
            let Ok(changed) = answer(session, &plan, &other).await else { continue };
            if changed != known {
                return wrong(format!("{known:?} became {changed:?} out of scope\n{found:?}\n{base:?}\n{other:?}"));
            }
        }
    }
    let mut sampled = None;
    if number.is_multiple_of(40) {
        let (mut in_scope, mut needed) = (0, 0);
        for site in (0..SITES).filter(|site| found.scans.iter().any(|scan| scan.sites[*site])) {
            in_scope += 1;
            needed += u64::from(is_needed(session, &plan, (&base, site), &mut random, about).await);
        }
        sampled = Some((in_scope, needed));
    }
    let mut outcome = outcome.lock().expect("not poisoned");
    outcome.answered += 1;
    outcome.narrowed += u64::from(found.scans.iter().any(|scan| scan.sites.contains(&false)));
    outcome.with_period += u64::from(found.scans.iter().any(|scan| scan.from.is_some() || scan.until.is_some()));
    if let Some((in_scope, needed)) = sampled.filter(|(in_scope, _)| *in_scope > 0) {
        outcome.in_scope += in_scope;
        outcome.needed += needed;
        outcome.too_wide[((in_scope - needed) * 4 / in_scope) as usize] += 1;
    }
}

#[test]
fn rows_out_of_scope_never_change_an_answer() {
    let seed = number_of("ROLLCALL_SEED", 1);
    let count = number_of("ROLLCALL_SCOPE_PLANS", 2000);
    let first = number_of("ROLLCALL_SCOPE_FIRST", 0);
    println!("seed {seed}, {count} plans from {first} (ROLLCALL_SEED, ROLLCALL_SCOPE_PLANS, ROLLCALL_SCOPE_FIRST)");
    let threads =
        number_of("ROLLCALL_SCOPE_THREADS", std::thread::available_parallelism().map_or(1, |n| n.get() as u64));
    let (next, outcome) = (AtomicU64::new(first), Mutex::new(Outcome::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let work = || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                let session = Session::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= first + count {
                        break;
                    }
                    runtime.block_on(try_plan(&session, seed, number, &outcome));
                }
            };
            std::thread::Builder::new().stack_size(64 << 20).spawn_scoped(scope, work).expect("a thread");
        }
    });
    let outcome = outcome.into_inner().expect("not poisoned");
    let refused: u64 = outcome.refused.values().sum();
    println!(
        "{} answered, {} with sites out of scope, {} with a period, {refused} refused, {} wrong",
        outcome.answered,
        outcome.narrowed,
        outcome.with_period,
        outcome.wrong.len()
    );
    println!(
        "of {} sites in scope of sampled plans {} were seen to matter; plans by the share of the others, in quarters: {:?}",
        outcome.in_scope, outcome.needed, outcome.too_wide
    );
    for (what, count) in &outcome.refused {
        println!("  {count} times {what}");
    }
    for (number, text) in &outcome.wrong {
        println!("  plan {number}: {}", text.lines().next().unwrap_or_default());
    }
    if let Some(text) = outcome.wrong.values().next() {
        panic!("{} of {count} plans are wrong; the first:\n{text}", outcome.wrong.len());
    }
    assert!(outcome.narrowed > count / 10 && outcome.with_period > count / 20 && refused < count / 3);
}
