//! Compaction changes files, never rows; current rows stay what they were.

use std::{collections::BTreeMap, sync::Arc};

use object_store::{ObjectStore, memory::InMemory};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rollcall_lake::{
    ColumnType, CompactionLimits, DataFile, Lake, LakeError, LakeOptions, Lives, MarkKind, PartMark, RecordKind,
    SiteClock, StateView, conform,
};
use rollcall_types::{Epoch, Seq, SiteNumber, Timestamp};

use crate::support::{expected, part, part_of, rows, rows_of, sent, table, with_marks};

const SITE: RecordKind<i64> = RecordKind::new("site");
const PRESENCE: RecordKind<i64> = RecordKind::new("presence");

const EAGER: CompactionLimits =
    CompactionLimits { small_file_bytes: 1 << 20, files_min: 2, rows_max: 1_000_000, target_bytes: 128 << 20 };

fn number(site: &str) -> Option<SiteNumber> {
    site.strip_prefix("site-")?.parse().ok().map(SiteNumber)
}

#[tokio::test]
async fn insert_only_files_are_merged_beside_ingest() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let ingest = table(&store).await;
    let compactor = table(&store).await;
    for batch in 0..12 {
        let parts = (0..3).map(|site| part(&ingest, site, batch * 10, batch * 10 + 10)).collect();
        let (appended, compacted) = tokio::join!(
            ingest.append(Arc::new(parts)),
            compactor.compact(EAGER, async || Ok((number, Lives::default())))
        );
        appended.expect("appends");
        compacted.expect("compacts");
        compactor.refresh().await.expect("refreshes");
    }
    compactor.compact(EAGER, async || Ok((number, Lives::default()))).await.expect("compacts");
    assert_eq!(compactor.snapshot().files().count(), 1);
    assert_eq!(rows(&store).await, expected(3, 120));
    assert!(compactor.snapshot().files().all(|file| file.mutations == 0 && !file.superseded));
}

#[tokio::test]
async fn superseded_versions_move_to_files_of_their_own() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let table = table(&store).await;
    let changes = [
        vec![(1, 'I', 1), (2, 'I', 2), (3, 'I', 3)],
        vec![(4, 'U', 1), (5, 'D', 2)],
        vec![(6, 'I', 2), (7, 'D', 3), (8, 'U', 1)],
    ];
    let mut previous = 0;
    for change in &changes {
        let last = change.last().expect("not empty").0;
        let rows = conform(&sent(change), table.snapshot().schema(), SiteClock::default()).expect("conforms");
        table.append(Arc::new(vec![part_of(&table, 0, 1, previous, last, rows)])).await.expect("appends");
        previous = last;
    }
    let report = table.compact(EAGER, async || Ok((number, Lives::default()))).await.expect("compacts");
    assert_eq!((report.rows, report.superseded), (8, 6), "rows 6 and 8 are current");
    let kinds: BTreeMap<bool, u64> =
        table.snapshot().files().map(|file| (file.superseded, file.stats.num_records)).collect();
    assert_eq!(kinds, BTreeMap::from([(false, 2), (true, 6)]));
    assert_eq!(rows(&store).await, expected(1, 8), "history is whole");
}

#[tokio::test]
async fn a_new_epoch_is_current_only_once_its_load_is_complete() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let table = table(&store).await;
    let append = async |epoch: u32, previous: u64, changes: &[(u64, char, i64)], last: u64, marks: Vec<PartMark>| {
        let rows = conform(&sent(changes), table.snapshot().schema(), SiteClock::default()).expect("conforms");
        let part = with_marks(part_of(&table, 0, epoch, previous, last, rows), marks);
        table.append(Arc::new(vec![part])).await.expect("appends");
    };
    let mark = |kind, seq, begin| PartMark { kind, seq: Seq(seq), begin: Seq(begin) };
    append(
        1,
        0,
        &[(2, 'S', 1), (3, 'I', 2)],
        4,
        vec![mark(MarkKind::LoadBegun, 1, 1), mark(MarkKind::LoadComplete, 4, 1)],
    )
    .await;
    assert_eq!(
        table.snapshot().special_sites(&Lives::default()).count(),
        0,
        "a first load that covers everything costs nothing later"
    );
    // A restored database: a new epoch, a change from before its load, and an unfinished load.
    append(2, 0, &[(5, 'I', 9), (7, 'S', 1)], 8, vec![mark(MarkKind::LoadBegun, 6, 6)]).await;
    let visible =
        |table: &rollcall_lake::Table| table.snapshot().special_sites(&Lives::default()).next().expect("special").1;
    assert_eq!(visible(&table).epoch, Epoch(1));
    append(2, 8, &[(9, 'S', 9)], 10, vec![mark(MarkKind::LoadComplete, 10, 6)]).await;
    assert_eq!((visible(&table).epoch, visible(&table).from), (Epoch(2), Seq(6)));
    // A reload within the epoch stays hidden until it is complete.
    append(2, 10, &[(12, 'S', 1)], 12, vec![mark(MarkKind::LoadBegun, 11, 11)]).await;
    assert_eq!((visible(&table).from, visible(&table).before), (Seq(6), Seq(11)));
    append(2, 12, &[], 13, vec![mark(MarkKind::LoadComplete, 13, 11)]).await;
    assert_eq!((visible(&table).from, visible(&table).before), (Seq(11), Seq(u64::MAX)));
    let report = table.compact(EAGER, async || Ok((number, Lives::default()))).await.expect("compacts");
    assert_eq!((report.rows, report.superseded), (6, 5), "only row 12 is current");
}

#[tokio::test]
async fn history_is_merged_and_kept_as_long_as_told() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let table = table(&store).await;
    let limits = CompactionLimits { files_min: 4, ..EAGER };
    let history = || {
        let mut files: Vec<_> = table.snapshot().files().filter(|file| file.superseded).cloned().collect();
        files.sort_by_key(|file| file.modified_ms);
        files
    };
    let mut seq = 0;
    // Each round, a row is changed four times and folded: three versions more are history.
    for round in 0..7 {
        for _ in 0..4 {
            let changes = [(seq + 1, if seq == 0 { 'I' } else { 'U' }, 1)];
            let rows = conform(&sent(&changes), table.snapshot().schema(), SiteClock::default()).expect("conforms");
            table.append(Arc::new(vec![part_of(&table, 0, 1, seq, seq + 1, rows)])).await.expect("appends");
            seq += 1;
        }
        let before = history();
        let report = table.compact(limits, async || Ok((number, Lives::default()))).await.expect("compacts");
        if round > 0 && before.len() == 4 {
            assert_eq!((report.files, report.superseded), (4, 0), "round {round}: history is merged");
            let merged = history();
            assert_eq!(merged.len(), 1);
            assert_eq!(merged[0].modified_ms, before[3].modified_ms, "it is as old as its newest part");
            table.compact(limits, async || Ok((number, Lives::default()))).await.expect("compacts what waited");
        }
    }
    assert_eq!(rows(&store).await, expected(1, seq as i64), "all of it is there until told otherwise");
    let oldest = history()[0].clone();
    assert!(history().len() > 1 && oldest.stats.num_records > 5, "one was merged, others came behind it");
    const WEEK: i64 = 7 * 24 * 3600 * 1000;
    let week = |file: &DataFile| file.modified_ms.div_euclid(WEEK);
    let in_history: u64 = history().iter().map(|file| file.stats.num_records).sum();
    let begin = |week: i64| Timestamp::from_micros(week * WEEK * 1000);
    assert_eq!(table.expire_history(begin(week(&oldest))).await.expect("looks"), 0, "its week is not over");
    let newest = history().last().map(|file| week(file)).expect("some");
    assert_eq!(table.expire_history(begin(newest + 1)).await.expect("expires"), in_history);
    let left = rows(&store).await;
    assert_eq!((history().len(), left.len() as u64), (0, seq - in_history));
    assert_eq!(left.last(), expected(1, seq as i64).last(), "what is current stays");
    assert_eq!(table.expire_history(begin(newest + 1)).await.expect("looks"), 0, "there is nothing more");
}

/// Where each row lies after a run, in the file's order: superseded or not, site, position, time.
async fn lies(store: &Arc<dyn ObjectStore>, table: &rollcall_lake::Table) -> Vec<(bool, String, i64, i64)> {
    let mut found = Vec::new();
    let snapshot = table.snapshot();
    let mut files: Vec<_> = snapshot.files().collect();
    files.sort_by_key(|file| file.superseded);
    for file in files {
        for row in rows_of(store, &file.path).await {
            found.push((file.superseded, row.0, row.1, row.2));
        }
    }
    found
}

#[tokio::test]
async fn larger_files_are_merged_as_streams_to_the_same_as_in_memory() {
    let mut random = StdRng::seed_from_u64(7);
    for case in 0..20 {
        let (streamed, memory): (Arc<dyn ObjectStore>, Arc<dyn ObjectStore>) =
            (Arc::new(InMemory::new()), Arc::new(InMemory::new()));
        let tables = [table(&streamed).await, table(&memory).await];
        let mut seqs = [0_u64; 3];
        for _ in 0..random.random_range(2..9) {
            let site = random.random_range(0..3_usize);
            let previous = seqs[site];
            seqs[site] += random.random_range(1..60);
            // Some are in the order of time as they come, some are not.
            let kinds: &[char] = if random.random_bool(0.5) { &['I'] } else { &['I', 'U', 'D'] };
            let change = |seq| (seq, kinds[random.random_range(0..kinds.len())], random.random_range(0..20));
            let changes: Vec<_> = (previous + 1..=seqs[site]).map(change).collect();
            for table in &tables {
                let rows = conform(&sent(&changes), table.snapshot().schema(), SiteClock::default()).expect("conforms");
                let part = part_of(table, site as u32, 1, previous, seqs[site], rows);
                table.append(Arc::new(vec![part])).await.expect("appends");
            }
        }
        let total: u64 = tables[0].snapshot().files().map(|file| file.size).sum();
        let largest = tables[0].snapshot().files().map(|file| file.size).max().expect("one");
        let target = total.max(2 * largest);
        // No file is small: all are larger ones, most of them not in order.
        let larger = CompactionLimits { small_file_bytes: 1, target_bytes: target, ..EAGER };
        let reports = [
            tables[0].compact(larger, async || Ok((number, Lives::default()))).await,
            tables[1].compact(EAGER, async || Ok((number, Lives::default()))).await,
        ];
        let [by_stream, in_memory] = reports.map(|report| report.expect("compacts"));
        if by_stream.files > 0 {
            assert_eq!(by_stream, in_memory, "case {case}");
            assert_eq!(lies(&streamed, &tables[0]).await, lies(&memory, &tables[1]).await, "case {case}");
        }
        // Once more, now that what there is is in order: a later file joins it.
        for table in &tables {
            let rows = conform(&sent(&[(1, 'I', 1), (2, 'U', 3)]), table.snapshot().schema(), SiteClock::default());
            let part = part_of(table, 9, 1, 0, 2, rows.expect("conforms"));
            table.append(Arc::new(vec![part])).await.expect("appends");
        }
        let all = CompactionLimits { target_bytes: tables[0].snapshot().files().map(|file| file.size).sum(), ..larger };
        tables[0].compact(all, async || Ok((number, Lives::default()))).await.expect("compacts");
        let lies = lies(&streamed, &tables[0]).await;
        for is_superseded in [false, true] {
            let of_kind: Vec<_> = lies.iter().filter(|row| row.0 == is_superseded).collect();
            let count = of_kind.len();
            let files = tables[0].snapshot().files().filter(|file| file.superseded == is_superseded).count();
            if files == 1 {
                assert!(of_kind.is_sorted_by_key(|row| (row.3, row.1.clone(), row.2)), "case {case}: {count} rows");
            }
        }
        assert_eq!(rows(&streamed).await.len() as u64, seqs.iter().sum::<u64>() + 2, "case {case}: no row is lost");
    }
}

#[tokio::test]
async fn old_versions_of_state_become_history_or_go() {
    // Method: two nodes write versions of records of two kinds, one of them compacts now and then.
    // Both, and one that starts afterwards, know the newest of each; of one kind no older version
    // is left anywhere, of the other every one is, in history.
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let nodes = [
        Lake::open(store.clone(), LakeOptions::default()).await.expect("opens"),
        Lake::open(store.clone(), LakeOptions::default()).await.expect("opens"),
    ];
    let limits = CompactionLimits { files_min: 3, ..EAGER };
    for round in 0..40_i64 {
        let id = format!("site-{}", round % 4);
        let write = |view: &StateView| {
            let at = Timestamp::from_micros(round);
            let records = [(PRESENCE, &id), (SITE, &id)].map(|(kind, id)| view.next(kind, id, &round, at, "test"));
            Ok::<_, LakeError>((records.into_iter().collect::<Result<Vec<_>, _>>()?, ()))
        };
        nodes[usize::from(round % 3 == 0)].state().update(write).await.expect("writes");
        if round % 5 == 4 {
            // As vacuum does: its files are known before their records are.
            nodes[0].state().table().refresh().await.expect("refreshes");
            nodes[0].state().compact(limits, &["presence"]).await.expect("compacts");
        }
    }
    while nodes[0].state().compact(limits, &["presence"]).await.expect("compacts").files > 0 {}
    let newest = |lake: &Lake| -> Vec<(String, i64, String)> {
        let view = lake.state().view();
        let all = [PRESENCE, SITE].into_iter().flat_map(|kind| view.of_kind(kind));
        all.map(|record| (record.id.to_string(), record.version, record.value.to_string())).collect()
    };
    nodes[1].state().refresh().await.expect("refreshes");
    let later = Lake::open(store.clone(), LakeOptions::default()).await.expect("opens");
    let of_site = |number: i64| (format!("site-{number}"), 10, (36 + number).to_string());
    let expected: Vec<_> = (0..4).chain(0..4).map(of_site).collect();
    for lake in [&nodes[0], &nodes[1], &later] {
        assert_eq!(newest(lake), expected);
    }
    let snapshot = later.state().table().snapshot();
    let rows = |superseded: bool| -> u64 {
        let files = snapshot.files().filter(|file| file.superseded == superseded);
        files.map(|file| file.stats.num_records).sum()
    };
    assert!(rows(false) < 8 + 2 * limits.files_min as u64 * 2, "few are read at a start: {}", rows(false));
    assert!((30..=36).contains(&rows(true)), "each old version of a site's record is kept: {}", rows(true));
}

#[tokio::test]
async fn a_column_is_retyped_beside_ingest_and_its_history_with_it() {
    // Goal: no row is lost or doubled, none is left in the old type, and what waited to be
    // committed comes in the new one. Method: another node appends while the column is retyped,
    // with rows conformed to the type before; everything is counted at the end.
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (ingest, other) = (table(&store).await, table(&store).await);
    for last in 1..=20_u64 {
        let outcome = ingest.append(Arc::new(vec![part(&ingest, 0, last - 1, last)])).await.expect("appends");
        assert_eq!(outcome.outcomes.len(), 1);
    }
    let late = part(&ingest, 0, 20, 25);
    let refused = other.retype("id", ColumnType::String).await.expect_err("a key stays what it is");
    assert!(refused.to_string().contains("key"), "{refused}");
    let refused = other.retype("name", ColumnType::Long).await.expect_err("some names would not be kept");
    assert!(refused.to_string().contains("could not be kept"), "{refused}");
    let changed = other.retype("_changed_at", ColumnType::String).await.expect_err("that is not the stores'");
    assert!(changed.to_string().contains("of the stores'"), "{changed}");
    // A table of prices, written while it is retyped.
    let priced = |seq: u64| {
        let mut sent = sent(&[(seq, 'I', seq as i64)]);
        let prices: Arc<dyn arrow_array::Array> = Arc::new(arrow_array::Int64Array::from(vec![seq as i64]));
        let mut fields = sent.schema().fields().to_vec();
        fields.push(Arc::new(arrow_schema::Field::new("price", arrow_schema::DataType::Int64, true)));
        let schema = arrow_schema::Schema::new_with_metadata(fields, sent.schema().metadata().clone());
        let mut arrays = sent.columns().to_vec();
        arrays.push(prices);
        sent = arrow_array::RecordBatch::try_new(Arc::new(schema), arrays).expect("columns match");
        let rows = rollcall_lake::conform(&sent, ingest.snapshot().schema(), Default::default()).expect("conforms");
        part_of(&ingest, 1, 1, seq - 1, seq, rows)
    };
    for seq in 1..=10 {
        ingest.append(Arc::new(vec![priced(seq)])).await.expect("appends");
    }
    let waiting: Vec<_> = (11..=15).map(priced).collect();
    let appends = async {
        ingest.append(Arc::new(vec![late])).await.expect("appends");
        for part in waiting {
            ingest.append(Arc::new(vec![part])).await.expect("appends what was conformed to the type before");
        }
    };
    let wide = ColumnType::Decimal { digits: 21, fraction: 2 };
    let (retyped, ()) = tokio::join!(other.retype("price", wide), appends);
    retyped.expect("retypes");
    let fresh = table(&store).await;
    assert_eq!(fresh.snapshot().schema().column("price").expect("is there").kind, wide);
    let mut sum = 0;
    for rows in fresh.read_rows().await.expect("reads") {
        let prices = rows.column_by_name("price").expect("is there");
        assert_eq!(*prices.data_type(), wide.arrow());
        let prices = arrow_array::cast::AsArray::as_primitive::<arrow_array::types::Decimal128Type>(prices);
        sum += prices.iter().flatten().sum::<i128>();
    }
    assert_eq!(sum, (1..=15).sum::<i128>() * 100);
    assert_eq!(fresh.snapshot().rows(), 25 + 15);
}
