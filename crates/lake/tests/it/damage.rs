//! Whatever is changed or taken away in a store is noticed: nothing is read as another value.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rollcall_lake::{BootClock, Lake, LakeError, LakeOptions, Table, TableSchema};
use rollcall_types::{Epoch, SiteNumber};

use crate::support::{key, part, table};

const LOG: &str = "tables/sales/_delta_log";
const SITE: SiteNumber = SiteNumber(1);

fn entry(version: u64) -> Path {
    Path::from(format!("{LOG}/{version:020}.json"))
}

/// A table of `commits` commits of three rows each.
async fn sales(store: &Arc<dyn ObjectStore>, commits: u64) -> Arc<Table> {
    let sales = table(store).await;
    for commit in 0..commits {
        sales.append(Arc::new(vec![part(&sales, 1, 3 * commit, 3 * commit + 3)])).await.expect("appends");
    }
    sales
}

async fn reopened(store: &Arc<dyn ObjectStore>) -> Result<Arc<Table>, LakeError> {
    let schema = TableSchema::for_sites(key());
    Table::open_or_create(store.clone(), Path::from("tables/sales"), BootClock::default(), &schema).await
}

async fn bytes(store: &Arc<dyn ObjectStore>, path: &Path) -> Vec<u8> {
    store.get(path).await.expect("exists").bytes().await.expect("reads").to_vec()
}

async fn put(store: &Arc<dyn ObjectStore>, path: &Path, bytes: Vec<u8>) {
    store.put(path, bytes.into()).await.expect("puts");
}

/// One of the ways in which bytes are damaged.
fn damaged(bytes: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    match random.random_range(0..8) {
        0 => changed.clear(),
        1 => changed.truncate(random.random_range(0..bytes.len())),
        2 => {
            // At the end of a line, as a file system may leave it.
            let ends: Vec<usize> = (0..bytes.len() - 1).filter(|place| bytes[*place] == b'\n').collect();
            if !ends.is_empty() {
                changed.truncate(ends[random.random_range(0..ends.len())] + 1);
            } else {
                changed.pop();
            }
        }
        3 => changed.fill(0),
        _ => changed[random.random_range(0..bytes.len())] ^= 1 << random.random_range(0..8),
    }
    changed
}

#[tokio::test]
async fn a_damaged_entry_is_no_version() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    sales(&store, 4).await;
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..300 {
        let path = entry(random.random_range(1..=4));
        let whole = bytes(&store, &path).await;
        let changed = damaged(&whole, &mut random);
        put(&store, &path, changed.clone()).await;
        match reopened(&store).await {
            Err(LakeError::Damaged(what)) => assert!(what.contains(&path.to_string()), "{what} names {path}"),
            Err(other) => panic!("{other:?}"),
            Ok(found) => panic!("{path} of {} bytes is taken: version {}", changed.len(), found.snapshot().version()),
        }
        put(&store, &path, whole).await;
    }
    let whole = reopened(&store).await.expect("opens");
    assert_eq!(whole.cursor(SITE, Epoch(1)).expect("there").seq.0, 12);
    // One that belongs elsewhere, whole as it is.
    let second = bytes(&store, &entry(2)).await;
    put(&store, &entry(3), second).await;
    assert!(matches!(reopened(&store).await, Err(LakeError::Damaged(_))), "an entry stands twice");
}

#[tokio::test]
async fn a_process_that_follows_takes_no_damaged_entry_either() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let writer = sales(&store, 1).await;
    let follower = table(&store).await;
    writer.append(Arc::new(vec![part(&writer, 1, 3, 6)])).await.expect("appends");
    let whole = bytes(&store, &entry(2)).await;
    put(&store, &entry(2), Vec::new()).await;
    assert!(matches!(follower.refresh().await, Err(LakeError::Damaged(_))));
    assert_eq!(follower.cursor(SITE, Epoch(1)).expect("there").seq.0, 3);
    // Nor does it commit behind it.
    assert!(follower.append(Arc::new(vec![part(&follower, 1, 3, 6)])).await.is_err());
    put(&store, &entry(2), whole).await;
    assert_eq!(follower.refresh().await.expect("whole again").cursor(SITE, Epoch(1)).expect("there").seq.0, 6);
}

#[tokio::test]
async fn a_damaged_data_file_gives_no_rows() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let sales = sales(&store, 1).await;
    let snapshot = sales.snapshot();
    let file = snapshot.files().next().expect("a file").clone();
    assert!(file.digest.is_some());
    let path = Path::from("tables/sales").join(file.path.as_str());
    let whole = bytes(&store, &path).await;
    let mut random = StdRng::seed_from_u64(9);
    for _ in 0..400 {
        put(&store, &path, damaged(&whole, &mut random)).await;
        match sales.read_rows().await {
            Err(LakeError::DamagedFile { path: named, .. }) => assert_eq!(named, path.to_string()),
            other => panic!("{other:?}"),
        }
    }
    store.delete(&path).await.expect("deletes");
    assert!(matches!(sales.read_rows().await, Err(LakeError::DamagedFile { .. })));
    put(&store, &path, whole).await;
    assert_eq!(sales.read_rows().await.expect("reads").iter().map(|rows| rows.num_rows()).sum::<usize>(), 3);
}

#[tokio::test]
async fn a_damaged_checkpoint_is_passed_over() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let sales = sales(&store, 2).await;
    sales.checkpoint().await.expect("checkpoints");
    for commit in 2..4 {
        sales.append(Arc::new(vec![part(&sales, 1, 3 * commit, 3 * commit + 3)])).await.expect("appends");
    }
    sales.checkpoint().await.expect("checkpoints");
    sales.append(Arc::new(vec![part(&sales, 1, 12, 15)])).await.expect("appends");
    let (older, newer) = (format!("{LOG}/{:020}.checkpoint.parquet", 2), format!("{LOG}/{:020}.checkpoint.parquet", 4));
    let (older, newer) = (Path::from(older), Path::from(newer));
    // What the older one covers may be gone.
    for version in 0..2 {
        store.delete(&entry(version)).await.expect("deletes");
    }
    let (whole, whole_older) = (bytes(&store, &newer).await, bytes(&store, &older).await);
    let mut random = StdRng::seed_from_u64(11);
    for _ in 0..100 {
        put(&store, &newer, damaged(&whole, &mut random)).await;
        let found = reopened(&store).await.expect("opens");
        assert_eq!(found.snapshot().version(), 5);
        assert_eq!(found.cursor(SITE, Epoch(1)).expect("there").seq.0, 15);
        assert_eq!(found.snapshot().rows(), 15);
    }
    // With both damaged there is not enough left.
    put(&store, &older, damaged(&whole_older, &mut random)).await;
    assert!(matches!(reopened(&store).await, Err(LakeError::Damaged(_))));
    put(&store, &newer, whole).await;
    assert_eq!(reopened(&store).await.expect("opens").snapshot().rows(), 15);
}

#[tokio::test]
async fn a_damaged_state_is_mended_by_opening_only_while_no_other_node_runs() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    drop(Lake::open(store.clone(), LakeOptions::default()).await.expect("opens"));
    let log: Vec<_> = store.list(Some(&Path::from("rollcall/state/_delta_log"))).try_collect().await.expect("lists");
    for meta in &log {
        let mut damaged = bytes(&store, &meta.location).await;
        damaged[0] ^= 1;
        put(&store, &meta.location, damaged).await;
    }
    let told = Path::from("rollcall/relay/another");
    put(&store, &told, b"{}".to_vec()).await;
    let refused = Lake::open(store.clone(), LakeOptions::default()).await.map(drop).expect_err("another node runs");
    assert!(matches!(&refused, LakeError::Damaged(what) if what.contains("another node runs")), "{refused:?}");
    for meta in &log {
        let left = bytes(&store, &meta.location).await;
        assert_ne!(left[0], b'{', "nothing was mended behind its back");
    }
    store.delete(&told).await.expect("deletes");
    let lake = Lake::open(store.clone(), LakeOptions::default()).await.expect("what can be read counts");
    assert!(lake.doubt().is_some(), "and people are told");
}
