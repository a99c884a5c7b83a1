//! The log as earlier versions wrote it is read for ever, and this one writes what it says it does.
//!
//! `golden/NAME.jsonl` holds the entries of a small table, one after the other, as the version of
//! that name wrote them. They are never changed; a version that writes others gets a file of its
//! own. `ROLLCALL_WRITE=1` writes the file of this one.

use std::{path::PathBuf, sync::Arc};

use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use rollcall_lake::{BootClock, Cursor, SiteClock, Table, conform};
use rollcall_runtime::Simulation;
use rollcall_types::{ChainHash, Epoch, Seq, SiteNumber, Timestamp};

use crate::support::{part_of, sent, table};

/// Entries are written in this way since this version.
const NEWEST: &str = "0.2";

fn file(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/golden/{version}.jsonl"))
}

fn entry_path(version: usize) -> Path {
    Path::from(format!("tables/sales/_delta_log/{version:020}.json"))
}

/// The entries of a table that was made, and got rows of two sites, of one of them twice.
async fn written() -> Vec<String> {
    let _simulation = Simulation::begin(1, Timestamp::from_seconds(1_800_000_000));
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let table = table(&store).await;
    for (site, epoch, previous, rows) in
        [(1, 1, 0, &[(1, 'I', 7), (2, 'I', 8)][..]), (2, 3, 0, &[(4, 'I', 7)]), (1, 1, 2, &[(3, 'U', 7), (5, 'D', 8)])]
    {
        let last = rows.last().map_or(0, |row| row.0);
        let rows = conform(&sent(rows), table.snapshot().schema(), SiteClock::default()).expect("conforms");
        let part = part_of(&table, site, epoch, previous, last, rows);
        table.append(Arc::new(vec![part])).await.expect("appends");
    }
    let mut entries = Vec::new();
    for version in 0.. {
        let Ok(entry) = store.get(&entry_path(version)).await else { return entries };
        entries.push(String::from_utf8(entry.bytes().await.expect("reads").to_vec()).expect("text"));
    }
    unreachable!("the log ends")
}

/// Without what is the libraries' and not ours: sizes and digests of what they write, random ids,
/// and the version of this program.
fn masked(text: &str) -> String {
    let names = [
        "\"size\":",
        "\"id\":\"",
        "part-",
        "engineInfo\":\"rollcall/",
        "rollcallCommit\":\"",
        "rollcallPrevious\":\"",
        "rollcallSha256\":\"",
        "Sha256\":\"",
        "sha256\\\":\\\"",
    ];
    let is_value = |letter: char| letter.is_ascii_hexdigit() || letter == '-' || letter == '.';
    let mut masked = text.to_owned();
    for name in names {
        let mut parts = masked.split(name);
        let mut kept = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            kept.push_str(name);
            kept.push('…');
            kept.push_str(part.trim_start_matches(is_value));
        }
        masked = kept;
    }
    masked
}

#[tokio::test(start_paused = true)]
async fn this_version_writes_the_log_that_it_says() {
    let written = written().await.concat();
    if std::env::var_os("ROLLCALL_WRITE").is_some() {
        std::fs::write(file(NEWEST), &written).expect("writes");
    }
    let golden = std::fs::read_to_string(file(NEWEST)).expect("is there");
    for (now, then) in masked(&written).lines().zip(masked(&golden).lines()) {
        assert_eq!(now, then, "another form of the log: it needs a version of its own, and to be read beside this one");
    }
    assert_eq!(written.lines().count(), golden.lines().count());
}

#[tokio::test]
async fn the_log_of_every_version_is_read() {
    let directory = file(NEWEST).parent().expect("a folder").to_owned();
    for golden in std::fs::read_dir(directory).expect("is there") {
        let path = golden.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("reads");
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        // The entry's own line is its last.
        let mut entries = vec![String::new()];
        for line in text.split_inclusive('\n') {
            let entry = entries.last_mut().expect("one");
            entry.push_str(line);
            if line.contains("\"commitInfo\"") {
                entries.push(String::new());
            }
        }
        entries.pop();
        for (version, entry) in entries.iter().enumerate() {
            store.put(&entry_path(version), entry.clone().into_bytes().into()).await.expect("puts");
        }
        let opened = Table::open(store, Path::from("tables/sales"), BootClock::default()).await.expect("opens");
        let table = opened.unwrap_or_else(|| panic!("{} is a table", path.display()));
        let snapshot = table.snapshot();
        assert_eq!((snapshot.version(), snapshot.rows(), snapshot.files().count()), (3, 5, 3), "{}", path.display());
        let cursor =
            |site, epoch| table.cursor(SiteNumber(site), Epoch(epoch)).map(|Cursor { seq, hash, .. }| (seq, hash));
        assert_eq!(cursor(1, 1), Some((Seq(5), ChainHash::new(5 * 31))));
        assert_eq!(cursor(2, 3), Some((Seq(4), ChainHash::new(4 * 31))));
        assert_eq!(cursor(2, 1), None);
        let names: Vec<&str> = snapshot.schema().columns.iter().map(|column| column.name.as_str()).collect();
        assert!(names.contains(&"id") && names.contains(&"name") && names.contains(&"_site"), "{names:?}");
    }
}
