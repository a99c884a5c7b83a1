//! Rows land once, whatever the store does and whoever else writes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, UInt8Array, cast::AsArray};
use arrow_schema::{DataType, Field, Schema};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rollcall_lake::{
    BootClock, DurableDirectory, Lake, LakeError, LakeOptions, MarkKind, Part, PartMark, PartOutcome, RecordKind,
    SiteClock, Table, TableSchema, conform,
};
use rollcall_types::{Epoch, Seq, SiteNumber, columns};

use crate::{
    faulty::{Fault, faulty},
    support::{expected, part, part_of, rows, table, table_with_clock, with_marks},
};

const COUNTER: RecordKind<i64> = RecordKind::new("counter");

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

#[tokio::test]
async fn a_batch_that_overtakes_is_asked_for_again() {
    let store = memory();
    let table = table(&store).await;
    table.append(Arc::new(vec![part(&table, 0, 0, 500)])).await.expect("appends");
    let early = table.append(Arc::new(vec![part(&table, 0, 600, 700)])).await.expect("appends");
    assert_eq!(early.outcomes, [PartOutcome::Gap { cursor: Seq(500) }]);
    let all = table
        .append(Arc::new(vec![part(&table, 0, 500, 600), part(&table, 0, 600, 700), part(&table, 0, 650, 750)]))
        .await
        .expect("appends");
    let durable = |rows| PartOutcome::Durable { rows };
    assert_eq!(all.outcomes, [durable(100), durable(100), durable(50)], "the last part is trimmed where it overlaps");
    let again = table.append(Arc::new(vec![part(&table, 0, 0, 750)])).await.expect("appends");
    assert_eq!(again.outcomes, [durable(0)]);
    assert_eq!(rows(&store).await, expected(1, 750));
}

#[tokio::test]
async fn a_table_is_created_once_whatever_the_store_replies() {
    for fault in [Fault::After, Fault::AfterAsExists, Fault::Before] {
        let store = memory();
        let faulty: Arc<dyn ObjectStore> = faulty(store.clone(), [fault]);
        assert_eq!(table(&faulty).await.snapshot().version(), 0, "{fault:?}");
        assert_eq!(table(&store).await.snapshot().version(), 0, "{fault:?}");
    }
}

#[tokio::test]
async fn a_lost_reply_is_recognised_as_our_own_commit() {
    for fault in [Fault::After, Fault::AfterAsExists, Fault::Before] {
        let store = memory();
        let clean = table(&store).await;
        drop(clean);
        let faulty: Arc<dyn ObjectStore> = faulty(store.clone(), [fault]);
        let table = table(&faulty).await;
        let done = table.append(Arc::new(vec![part(&table, 0, 0, 10)])).await.expect("appends");
        assert_eq!(done.outcomes, [PartOutcome::Durable { rows: 10 }], "{fault:?}");
        table.append(Arc::new(vec![part(&table, 0, 10, 20)])).await.expect("appends");
        assert_eq!(rows(&store).await, expected(1, 20), "{fault:?}");
    }
}

#[tokio::test]
async fn nodes_that_race_with_a_failing_store_lose_and_double_nothing() {
    // Goal: any interleaving of nodes, resends, overlaps, lost replies. Method: three nodes on one
    // store, each believing different things about where the sites stand; sites resend from their
    // own confirmed position, at random nodes.
    const SITES: u32 = 4;
    const LAST: u64 = 120;
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let store = memory();
        drop(table(&store).await);
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let faults: Vec<Fault> = (0..200)
                .map(|_| {
                    let kinds = [Fault::None, Fault::None, Fault::Before, Fault::After, Fault::AfterAsExists];
                    *kinds.choose(&mut random).expect("not empty")
                })
                .collect();
            let faulty: Arc<dyn ObjectStore> = faulty(store.clone(), faults);
            nodes.push(table(&faulty).await);
        }
        let mut confirmed = [0_u64; SITES as usize];
        for round in 0.. {
            assert!(round < 10_000, "seed {seed}: nothing gets through");
            if confirmed.iter().all(|confirmed| *confirmed >= LAST) {
                break;
            }
            // Each node commits what the sites it talks to sent; a site may talk to two nodes (it
            // moved).
            let node = nodes.choose(&mut random).expect("not empty");
            let mut sent = Vec::new();
            for site in 0..SITES {
                if random.random_bool(0.7) {
                    let from = confirmed[site as usize];
                    let last = (from + random.random_range(1..30)).min(LAST);
                    sent.push(part(node, site, from, last.max(from)));
                }
            }
            sent.retain(|part| part.last > part.previous);
            if sent.is_empty() {
                continue;
            }
            let (first, second) = (node.clone(), nodes.choose(&mut random).expect("not empty").clone());
            let sent = Arc::new(sent);
            let (one, two) = tokio::join!(first.append(sent.clone()), second.append(sent.clone()));
            for done in [one, two].into_iter().flatten() {
                for (part, outcome) in sent.iter().zip(done.outcomes) {
                    // A reply to the site may be lost too: then it resends what is durable already.
                    if matches!(outcome, PartOutcome::Durable { .. }) && random.random_bool(0.8) {
                        let confirmed = &mut confirmed[part.site.0 as usize];
                        *confirmed = part.last.0.max(*confirmed);
                    }
                }
            }
        }
        assert_eq!(rows(&store).await, expected(SITES, LAST as i64), "seed {seed}");
    }
}

#[tokio::test]
async fn a_directory_keeps_what_was_committed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store: Arc<dyn ObjectStore> = Arc::new(DurableDirectory::new(directory.path()).expect("opens"));
    let first = table(&store).await;
    for batch in 0..5 {
        first.append(Arc::new(vec![part(&first, 0, batch * 10, batch * 10 + 10)])).await.expect("appends");
    }
    assert_eq!(rows(&store).await, expected(1, 50));
    let second = table(&store).await;
    assert_eq!(second.snapshot().cursor(SiteNumber(0), Epoch(1)).expect("known").seq, Seq(50));
    // Both go on; the slower one learns from the log.
    second.append(Arc::new(vec![part(&second, 0, 50, 60)])).await.expect("appends");
    let late = first.append(Arc::new(vec![part(&first, 0, 50, 60)])).await.expect("appends");
    assert_eq!(late.outcomes, [PartOutcome::Durable { rows: 0 }]);
    assert_eq!(rows(&store).await, expected(1, 60));
}

#[tokio::test]
async fn a_checkpoint_holds_everything() {
    let store = memory();
    let before = table(&store).await;
    for batch in 0..5 {
        let parts = (0..40).map(|site| part(&before, site, batch * 3, batch * 3 + 3)).collect();
        before.append(Arc::new(parts)).await.expect("appends");
    }
    before.checkpoint().await.expect("checkpoints");
    let after = table(&store).await;
    let cursors = |table: &rollcall_lake::Table| table.snapshot().cursors().collect::<Vec<_>>();
    assert_eq!(cursors(&before), cursors(&after));
    assert_eq!(before.snapshot().rows(), after.snapshot().rows());
    assert_eq!(before.snapshot().schema(), after.snapshot().schema());
    assert_eq!(before.snapshot().version(), after.snapshot().version());
    after.append(Arc::new(vec![part(&after, 0, 15, 20)])).await.expect("appends");
    assert_eq!(rows(&store).await.len(), 40 * 15 + 5);
}

#[tokio::test]
async fn a_node_that_slept_reads_the_log_anew_before_it_commits() {
    // Goal: a node paused for longer than the log's clean-up must not write into a hole in the log.
    // Method: the clock jumps, others commit, checkpoint and the old entries are deleted; the
    // sleeper's commit must come after theirs.
    let store = memory();
    let time = Arc::new(Mutex::new(Duration::from_secs(1000)));
    let clock = {
        let time = time.clone();
        BootClock::new(move || *time.lock().expect("not poisoned"))
    };
    let sleeper = table_with_clock(&store, clock).await;
    sleeper.append(Arc::new(vec![part(&sleeper, 0, 0, 10)])).await.expect("appends");
    let awake = table(&store).await;
    awake.append(Arc::new(vec![part(&awake, 0, 10, 20)])).await.expect("appends");
    awake.append(Arc::new(vec![part(&awake, 0, 20, 30)])).await.expect("appends");
    awake.checkpoint().await.expect("checkpoints");
    let hole = object_store::path::Path::from("tables/sales/_delta_log/00000000000000000002.json");
    object_store::ObjectStoreExt::delete(&store, &hole).await.expect("deletes");
    *time.lock().expect("not poisoned") += Duration::from_secs(3600);
    let done = sleeper.append(Arc::new(vec![part(&sleeper, 0, 10, 40)])).await.expect("appends");
    assert_eq!(done.outcomes, [PartOutcome::Durable { rows: 10 }], "only what is new is taken");
    assert_eq!(rows(&store).await, expected(1, 40));
}

#[tokio::test]
async fn a_checkpoint_named_too_late_leads_nobody_into_a_hole() {
    // Goal: a node that slept while it wrote a checkpoint names an old one as the last, when the
    // entries behind it are cleaned away. Whoever opens the table then must find what was confirmed
    // since. Method: what such a node would put is put by hand.
    let store = memory();
    let root = "tables/sales/_delta_log";
    let at = |name: &str| object_store::path::Path::from(format!("{root}/{name}"));
    let awake = table(&store).await;
    for start in [0, 10, 20] {
        awake.append(Arc::new(vec![part(&awake, 0, start, start + 10)])).await.expect("appends");
    }
    awake.checkpoint().await.expect("checkpoints");
    let old = awake.snapshot().version();
    for start in [30, 40, 50] {
        awake.append(Arc::new(vec![part(&awake, 0, start, start + 10)])).await.expect("appends");
    }
    awake.checkpoint().await.expect("checkpoints");
    awake.append(Arc::new(vec![part(&awake, 0, 60, 70)])).await.expect("appends");
    let named = format!(r#"{{"version":{old},"size":1}}"#);
    object_store::ObjectStoreExt::put(&store, &at("_last_checkpoint"), named.into()).await.expect("puts");
    let first_cleaned = at(&format!("{:020}.json", old + 1));
    object_store::ObjectStoreExt::delete(&store, &first_cleaned).await.expect("deletes");
    let opened = table(&store).await;
    assert_eq!(opened.snapshot().version(), awake.snapshot().version());
    let done = opened.append(Arc::new(vec![part(&opened, 0, 30, 80)])).await.expect("appends");
    assert_eq!(done.outcomes, [PartOutcome::Durable { rows: 10 }], "only what is new is taken");
    assert_eq!(rows(&store).await, expected(1, 80));
}

#[tokio::test]
async fn a_table_has_one_key_whoever_is_first() {
    // Two stores' rows are conformed before the table is known; the second has another key. In one
    // commit or in two, it is refused.
    for apart in [true, false] {
        let store = memory();
        let (root, keyless) = ("tables/sales".into(), TableSchema::for_sites(Vec::new()));
        let table = Table::open_or_create(store.clone(), root, BootClock::default(), &keyless).await.expect("opens");
        let mut other = part(&table, 1, 0, 10);
        other.rows.key = vec!["name".to_owned()];
        let first = part(&table, 0, 0, 10);
        if apart {
            table.append(Arc::new(vec![first])).await.expect("appends");
            assert!(matches!(table.append(Arc::new(vec![other])).await, Err(LakeError::Rows(_))));
        } else {
            assert!(matches!(table.append(Arc::new(vec![first, other])).await, Err(LakeError::Rows(_))));
        }
        assert_eq!(rows(&store).await.len(), if apart { 10 } else { 0 });
    }
}

#[tokio::test]
async fn a_directory_has_one_hq() {
    let directory = tempfile::tempdir().expect("a directory");
    let lake = Lake::open_directory(directory.path(), LakeOptions::default()).await.expect("opens");
    let second = Lake::open_directory(directory.path(), LakeOptions::default()).await;
    assert!(matches!(second, Err(LakeError::InUse(_))));
    let id = lake.id().to_owned();
    drop(lake);
    let again = Lake::open_directory(directory.path(), LakeOptions::default()).await.expect("opens again");
    assert_eq!(again.id(), id);
}

#[tokio::test]
async fn state_is_versioned_and_races_are_settled() {
    let store = memory();
    let nodes = [
        Lake::open(store.clone(), LakeOptions::default()).await.expect("opens"),
        Lake::open(store.clone(), LakeOptions::default()).await.expect("opens"),
    ];
    let count = async |lake: &Lake| {
        lake.state()
            .update(|view| {
                let count = view.get(COUNTER, "a").map_or(0, |record| record.parse::<i64>().expect("a number"));
                let at = rollcall_types::Timestamp::from_micros(count);
                Ok::<_, LakeError>((vec![view.next(COUNTER, "a", &(count + 1), at, "test")?], ()))
            })
            .await
    };
    for _ in 0..10 {
        let (one, two) = tokio::join!(count(&nodes[0]), count(&nodes[1]));
        one.and(two).expect("both count");
    }
    for lake in &nodes {
        let view = lake.state().refresh().await.expect("refreshes");
        let record = view.get(COUNTER, "a").expect("counted");
        assert_eq!((record.value.as_ref(), record.version), ("20", 20));
    }
}

#[tokio::test]
async fn many_changes_of_state_at_once_are_few_commits_and_each_is_made_once() {
    // Method: two nodes make 200 changes each at once; some are dropped while they wait, some
    // refuse. A change works on what those before it in the same commit made, so the counter counts
    // each that was made, and each tells another count.
    let store = memory();
    let nodes = [
        Arc::new(Lake::open(store.clone(), LakeOptions::default()).await.expect("opens")),
        Arc::new(Lake::open(store.clone(), LakeOptions::default()).await.expect("opens")),
    ];
    let before = nodes[0].state().table().snapshot().version();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..400_usize {
        let lake = nodes[number % 2].clone();
        tasks.spawn(async move {
            let count = lake.state().update(|view| {
                if number % 10 == 0 {
                    return Err(LakeError::Contention(number));
                }
                let count = view.get(COUNTER, "a").map_or(0, |record| record.parse::<i64>().expect("a number")) + 1;
                let at = rollcall_types::Timestamp::from_micros(count);
                Ok((vec![view.next(COUNTER, "a", &count, at, "test")?], count))
            });
            match number % 10 {
                // Nobody waits for these: they are made, or not.
                1 => tokio::time::timeout(std::time::Duration::from_micros(number as u64), count).await.ok()?.ok(),
                _ => count.await.ok(),
            }
        });
    }
    let mut counts: Vec<i64> = tasks.join_all().await.into_iter().flatten().collect();
    counts.sort_unstable();
    let told = counts.len();
    counts.dedup();
    assert_eq!(counts.len(), told, "no two changes are the same");
    assert!((320..=360).contains(&told), "{told}");
    let view = nodes[0].state().refresh().await.expect("refreshes");
    let counted: i64 = view.get(COUNTER, "a").expect("counted").parse().expect("a number");
    assert!((told as i64..=360).contains(&counted) && *counts.last().expect("some") <= counted, "{counted} {told}");
    let commits = nodes[0].state().table().snapshot().version() - before;
    assert!(commits < 100, "{commits} commits");
}

/// A table whose key is a time, at the head of its log.
async fn by_time(store: &Arc<dyn ObjectStore>) -> Arc<Table> {
    let schema = TableSchema::for_sites(vec!["at".to_owned()]);
    let root = Path::from("tables/shifts");
    Table::open_or_create(store.clone(), root, BootClock::default(), &schema).await.expect("opens")
}

/// A part of a table whose key is a time, one row for each position.
fn shifts(table: &Table, previous: u64, seqs: &[u64]) -> Part {
    let numbers = Int64Array::from_iter_values(seqs.iter().map(|seq| i64::try_from(*seq).expect("small")));
    let texts = StringArray::from_iter_values(seqs.iter().map(|_| "2026-01-01T09:00:00Z"));
    let time = Field::new("at", DataType::Utf8, true);
    let declared = [(columns::METADATA_DECLARED.to_owned(), "DATETIME".to_owned())];
    let schema = Schema::new_with_metadata(
        vec![
            Field::new(columns::SEQ, DataType::Int64, false),
            Field::new(columns::OP, DataType::UInt8, false),
            Field::new(columns::CHANGED_AT, DataType::Int64, true),
            time.with_metadata(declared.into()),
        ],
        [(columns::METADATA_KEY.to_owned(), r#"["at"]"#.to_owned())].into(),
    );
    let ops = UInt8Array::from(vec![b'U'; seqs.len()]);
    let arrays: Vec<ArrayRef> = vec![Arc::new(numbers.clone()), Arc::new(ops), Arc::new(numbers), Arc::new(texts)];
    let rows = RecordBatch::try_new(Arc::new(schema), arrays).expect("columns match");
    let rows = conform(&rows, table.snapshot().schema(), SiteClock::default()).expect("conforms");
    part_of(table, 1, 1, previous, *seqs.last().expect("rows"), rows)
}

/// Whether each row of the table, by its position, has the key as the site wrote it.
async fn exact_keys(table: &Table) -> Vec<(i64, bool)> {
    let snapshot = table.snapshot();
    let mut found = Vec::new();
    for file in snapshot.files().cloned().collect::<Vec<_>>() {
        for rows in table.read_file(&snapshot, &file).await.expect("reads") {
            let rows = rows.expect("reads");
            let seqs =
                rows.column_by_name(columns::SEQ).expect("present").as_primitive::<arrow_array::types::Int64Type>();
            let exact = rows.column_by_name("_exact_key");
            found.extend(
                (0..rows.num_rows()).map(|row| (seqs.value(row), exact.is_some_and(|exact| exact.is_valid(row)))),
            );
        }
    }
    found.sort_unstable();
    found
}

/// A line of a log entry as an earlier HQ wrote it.
fn without_digests(line: &str) -> String {
    let mut line = line.to_owned();
    for name in [r#","rollcallPrevious":""#, r#","rollcallSha256":""#] {
        if let Some(start) = line.find(name) {
            line.replace_range(start..start + name.len() + 65, "");
        }
    }
    line
}

#[tokio::test]
async fn rows_that_an_earlier_hq_took_are_found_by_their_changes() {
    let store = memory();
    let table = by_time(&store).await;
    table.append(Arc::new(vec![shifts(&table, 0, &[1])])).await.expect("appends");
    assert_eq!(exact_keys(&table).await, [(1, true)], "a table that begins now");
    // An earlier HQ's log says nothing of where keys are exact.
    for version in 0..2 {
        let entry = Path::from(format!("tables/shifts/_delta_log/{version:020}.json"));
        let text = store.get(&entry).await.expect("exists").bytes().await.expect("reads");
        let text = String::from_utf8(text.to_vec()).expect("text");
        let is_of_old = |line: &&str| !line.contains(r#""appId":"1.1X""#);
        let old: Vec<String> = text.lines().filter(is_of_old).map(without_digests).collect();
        assert_eq!(old.len() + version, text.lines().count());
        store.put(&entry, (old.join("\n") + "\n").into()).await.expect("puts");
    }
    let table = by_time(&store).await;
    table.append(Arc::new(vec![shifts(&table, 1, &[2, 3])])).await.expect("appends");
    let load = PartMark { kind: MarkKind::LoadBegun, seq: Seq(5), begin: Seq(5) };
    let part = with_marks(shifts(&table, 3, &[4, 6]), vec![load]);
    table.append(Arc::new(vec![part, shifts(&table, 6, &[7])])).await.expect("appends");
    let expected = [(1, true), (2, false), (3, false), (4, false), (6, true), (7, true)];
    assert_eq!(exact_keys(&table).await, expected, "before the load as they were, from its beginning on exact");
    let table = by_time(&store).await;
    table.append(Arc::new(vec![shifts(&table, 7, &[8])])).await.expect("appends");
    assert_eq!(exact_keys(&table).await.last(), Some(&(8, true)), "and so it stays");
}
