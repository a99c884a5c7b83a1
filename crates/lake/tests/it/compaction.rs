//! Compaction changes files, never rows; current rows stay what they were.

use std::{collections::BTreeMap, sync::Arc};

use object_store::{ObjectStore, memory::InMemory};
use rollcall_lake::{CompactionLimits, MarkKind, PartMark, SiteClock, conform};
use rollcall_types::{Epoch, Seq, SiteNumber};

use crate::support::{expected, part, part_of, rows, sent, table, with_marks};

const EAGER: CompactionLimits = CompactionLimits { small_file_bytes: 1 << 20, files_min: 2, rows_max: 1_000_000 };

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
        let (appended, compacted) = tokio::join!(ingest.append(Arc::new(parts)), compactor.compact(EAGER, number));
        appended.expect("appends");
        compacted.expect("compacts");
        compactor.refresh().await.expect("refreshes");
    }
    compactor.compact(EAGER, number).await.expect("compacts");
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
    let report = table.compact(EAGER, number).await.expect("compacts");
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
    assert_eq!(table.snapshot().special_sites().count(), 0, "a first load that covers everything costs nothing later");
    // A restored database: a new epoch, a change from before its load, and an unfinished load.
    append(2, 0, &[(5, 'I', 9), (7, 'S', 1)], 8, vec![mark(MarkKind::LoadBegun, 6, 6)]).await;
    let visible = |table: &rollcall_lake::Table| table.snapshot().special_sites().next().expect("special").1;
    assert_eq!(visible(&table).epoch, Epoch(1));
    append(2, 8, &[(9, 'S', 9)], 10, vec![mark(MarkKind::LoadComplete, 10, 6)]).await;
    assert_eq!((visible(&table).epoch, visible(&table).from), (Epoch(2), Seq(6)));
    // A reload within the epoch stays hidden until it is complete.
    append(2, 10, &[(12, 'S', 1)], 12, vec![mark(MarkKind::LoadBegun, 11, 11)]).await;
    assert_eq!((visible(&table).from, visible(&table).before), (Seq(6), Seq(11)));
    append(2, 12, &[], 13, vec![mark(MarkKind::LoadComplete, 13, 11)]).await;
    assert_eq!((visible(&table).from, visible(&table).before), (Seq(11), Seq(u64::MAX)));
    let report = table.compact(EAGER, number).await.expect("compacts");
    assert_eq!((report.rows, report.superseded), (6, 5), "only row 12 is current");
}
