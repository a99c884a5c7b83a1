//! Two nodes on one store in one process, on simulated time: the same seed does the same again,
//! byte for byte, through lost replies, kills and take-overs, and afterwards every row is there
//! once.

mod node;
mod site;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow_array::{Array, cast::AsArray, types::Int64Type};
use object_store::ObjectStore;
use rollcall_lake::{Lake, LakeOptions};
use rollcall_runtime::Simulation;
use rollcall_types::{SiteId, TableName, Timestamp, columns};

use self::{node::Place, site::Store, world::World};

const NODES: usize = 2;
const STORES: usize = 3;
const STEPS: usize = 250;

/// What a run did, in every detail, and which kinds of trouble it met.
struct Run {
    log: String,
    met: BTreeSet<&'static str>,
}

fn run(seed: u64) -> Run {
    let has_threads = Arc::new(AtomicBool::new(false));
    let seen = has_threads.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .on_thread_start(move || seen.store(true, Ordering::Relaxed))
        .build()
        .expect("a runtime");
    let run = runtime.block_on(async {
        let _simulation = Simulation::begin(seed, Timestamp::from_seconds(1_800_000_000));
        script(seed).await
    });
    assert!(!has_threads.load(Ordering::Relaxed), "work on a thread of its own comes back when chance has it");
    run
}

async fn script(seed: u64) -> Run {
    let world = World::new(seed);
    let mut places: Vec<Place> = (0..NODES).map(|number| Place::new(&world, number)).collect();
    for place in &mut places {
        place.start().await;
    }
    let mut stores = Vec::new();
    for number in 0..STORES {
        stores.push(Store::join(&world, places[0].node(), number).await);
    }
    for _ in 0..STEPS {
        // Which of two comes first is told by their times.
        tokio::time::sleep(Duration::from_millis(u64::from(1 + world.below(200)))).await;
        match world.below(40) {
            0 => places[world.below(NODES as u32) as usize].kill(),
            1 => {
                world.met("time passes");
                tokio::time::sleep(Duration::from_secs(12)).await;
            }
            2..=5 => {
                for place in places.iter_mut().filter(|place| place.is_down()) {
                    place.start().await;
                }
            }
            _ => {
                let number = world.below(STORES as u32) as usize;
                let at = world.below(NODES as u32) as usize;
                stores[number].step(places[at].up(), world.below(6)).await;
            }
        }
        for place in &places {
            place.log_news();
        }
    }
    // All is well from now on but the store.
    for place in places.iter_mut().filter(|place| place.is_down()) {
        place.start().await;
    }
    for store in &mut stores {
        store.finish(places[0].node()).await;
    }
    for place in &mut places {
        place.kill();
    }
    check(&world, &stores, &places).await;
    Run { log: world.take_log(), met: std::mem::take(&mut world.met.lock().expect("not poisoned")) }
}

/// Every row of every store is there once, and each term had one holder.
async fn check(world: &World, stores: &[Store], places: &[Place]) {
    let bare: Arc<dyn ObjectStore> = world.bare.clone();
    let lake = Lake::open(bare, LakeOptions::default()).await.expect("opens");
    let mut found: BTreeMap<(SiteId, &str), Vec<u64>> = BTreeMap::new();
    for table in site::TABLES {
        let name = TableName::new(table).expect("valid");
        let rows = lake.table(&name).expect("was made").read_rows().await.expect("reads");
        for rows in &rows {
            let sites = rows.column_by_name("_site").expect("a site").as_string::<i32>();
            let seqs = rows.column_by_name(columns::SEQ).expect("a position").as_primitive::<Int64Type>();
            for row in 0..sites.len() {
                let site = SiteId::new(sites.value(row)).expect("valid");
                found.entry((site, table)).or_default().push(seqs.value(row).unsigned_abs());
            }
        }
    }
    for store in stores {
        for table in site::TABLES {
            let mut seqs = found.remove(&(store.id().clone(), table)).unwrap_or_default();
            seqs.sort_unstable();
            assert_eq!(seqs, store.rows_of(table), "{} of {}", table, store.id());
        }
    }
    assert!(found.is_empty(), "rows of nobody: {found:?}");
    let terms: Vec<i64> = places.iter().flat_map(Place::terms).collect();
    assert_eq!(terms.iter().collect::<BTreeSet<_>>().len(), terms.len(), "two nodes acted in one term");
    world.log(format_args!("terms {terms:?}"));
}

#[test]
fn two_nodes_do_the_same_again_with_the_same_seed_and_lose_nothing() {
    // A campaign tries as many seeds as it has time for; one that failed can be run by itself.
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = number("ROLLCALL_SEED").map_or(1..=number("ROLLCALL_SEEDS").unwrap_or(3), |seed| seed..=seed);
    let few = seeds.end() - seeds.start() < 2;
    let mut met = BTreeSet::new();
    let mut logs = Vec::new();
    for seed in seeds {
        let (first, again) = (run(seed), run(seed));
        let differs = first.log.lines().zip(again.log.lines()).enumerate().find(|(_, (one, other))| one != other);
        assert_eq!(differs, None, "seed {seed} did something else the second time");
        assert_eq!(first.log.len(), again.log.len(), "seed {seed} went on the second time");
        met.extend(first.met);
        logs.push(first.log);
    }
    if few {
        return;
    }
    assert_ne!(logs[0], logs[1], "another seed does something else");
    let all = [
        "a put has no effect",
        "a put takes effect and the reply is lost",
        "a put is made twice, and the second finds the first",
        "a node is killed",
        "another node acts",
        "a gap is asked for",
        "a session is over",
        "rows are sent twice",
        "time passes",
    ];
    assert_eq!(met, BTreeSet::from(all), "what should happen did, and nothing else");
}
