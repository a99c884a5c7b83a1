//! Damage of every kind to every kind of file of a lake: whatever is opened afterwards gives what
//! was written, or says that it does not; and what is mended can be sent again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow_array::{
    BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, cast::AsArray,
    types::Int64Type,
};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rollcall_lake::{Damage, Finding, Lake, LakeError, LakeOptions, PartOutcome, RecordKind, Table, check};
use rollcall_types::{Epoch, SiteNumber, TableName, Timestamp, columns};

use crate::support::{key, part};

const THING: RecordKind<u32> = RecordKind::new("thing");

const SITES: u32 = 20;
const TABLES: [&str; 2] = ["sales", "stock"];
/// Rows of each site in each table.
const LAST: u64 = 18;

type Objects = BTreeMap<Path, Vec<u8>>;

async fn objects(store: &Arc<dyn ObjectStore>) -> Objects {
    let mut all = Objects::new();
    let listed: Vec<_> = store.list(None).try_collect().await.expect("lists");
    for meta in listed {
        let bytes = store.get(&meta.location).await.expect("exists").bytes().await.expect("reads");
        all.insert(meta.location, bytes.to_vec());
    }
    all
}

async fn store_of(objects: &Objects) -> Arc<dyn ObjectStore> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for (path, bytes) in objects {
        store.put(path, bytes.clone().into()).await.expect("puts");
    }
    store
}

async fn opened(store: &Arc<dyn ObjectStore>) -> Result<Lake, LakeError> {
    Lake::open(store.clone(), LakeOptions::default()).await
}

fn name(table: &str) -> TableName {
    TableName::new(table).expect("valid")
}

async fn send(table: &Arc<Table>, site: u32, from: u64, to: u64) -> PartOutcome {
    table.append(Arc::new(vec![part(table, site, from, to)])).await.expect("appends").outcomes[0]
}

/// A lake of twenty sites with logs, checkpoints, many files and few, HQ's own tables and its
/// state.
async fn lake() -> Objects {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lake = opened(&store).await.expect("opens");
    for of in TABLES {
        let table = lake.table_or_create(&name(of), &key()).await.expect("creates");
        for from in [0, 3, 7, 12] {
            let to = [3, 7, 12, LAST][[0, 3, 7, 12].iter().position(|known| *known == from).expect("known")];
            for sites in [1..=7, 8..=SITES] {
                let parts = sites.map(|site| part(&table, site, from, to)).collect();
                table.append(Arc::new(parts)).await.expect("appends");
            }
            if of == "sales" && (from == 0 || from == 7) {
                table.checkpoint().await.expect("checkpoints");
            }
        }
    }
    for number in 0..6 {
        state_record(&lake, number, 1).await;
        state_record(&lake, number, 2).await;
    }
    let quarantine = lake.quarantine();
    let schema = quarantine.snapshot().schema().arrow().clone();
    for site in 1..=3 {
        let rows = RecordBatch::try_new(
            schema.clone(),
            vec![
                Arc::new(StringArray::from_iter_values([format!("site-{site}")])),
                Arc::new(Int32Array::from_iter_values([1])),
                Arc::new(Int64Array::from_iter_values([1])),
                Arc::new(Int64Array::from_iter_values([2])),
                Arc::new(TimestampMicrosecondArray::from_iter_values([0]).with_timezone("UTC")),
                Arc::new(StringArray::from_iter_values(["why"])),
                Arc::new(BinaryArray::from_iter_values([b"header"])),
                Arc::new(BinaryArray::from_iter_values([b"payload"])),
                Arc::new(StringArray::from_iter_values([r#"["sales"]"#])),
            ],
        );
        quarantine.append_rows(rows.expect("fits")).await.expect("appends");
    }
    lake.note_heads().await.expect("notes");
    objects(&store).await
}

async fn state_record(lake: &Lake, number: usize, value: u32) {
    let (id, now) = (format!("{number}"), Timestamp::from_micros(0));
    let update =
        |view: &rollcall_lake::StateView| Ok::<_, LakeError>((vec![view.next(THING, &id, &value, now, "test")?], ()));
    lake.state().update(update).await.expect("updates");
}

/// What was done to a file.
fn damage(objects: &mut Objects, random: &mut StdRng) -> (Path, &'static str) {
    let paths: Vec<Path> = objects.keys().cloned().collect();
    let path = paths[random.random_range(0..paths.len())].clone();
    let whole = objects[&path].clone();
    let (what, changed) = match random.random_range(0..10) {
        _ if whole.is_empty() => ("is gone", None),
        0 => ("is empty", Some(Vec::new())),
        1 => ("is cut", Some(whole[..random.random_range(0..whole.len())].to_vec())),
        2 => ("is zeros", Some(vec![0; whole.len()])),
        3 => ("is gone", None),
        4 => {
            let other = &paths[random.random_range(0..paths.len())];
            ("is another file", Some(objects[other].clone()))
        }
        _ => {
            let mut changed = whole.clone();
            changed[random.random_range(0..whole.len())] ^= 1 << random.random_range(0..8);
            ("has one other bit", Some(changed))
        }
    };
    match changed {
        Some(changed) => objects.insert(path.clone(), changed),
        None => objects.remove(&path),
    };
    (path, what)
}

/// By table, every (site, position) with its text.
type Rows = BTreeMap<(String, i64), String>;

async fn rows(table: &Arc<Table>) -> Result<Rows, LakeError> {
    let mut found = Rows::new();
    for batch in table.read_rows().await? {
        let column = |name: &str| batch.column_by_name(name).expect("present").clone();
        let (sites, seqs, names) = (column("_site"), column(columns::SEQ), column("name"));
        for row in 0..batch.num_rows() {
            let of = (sites.as_string::<i32>().value(row).to_owned(), seqs.as_primitive::<Int64Type>().value(row));
            let twice = found.insert(of.clone(), names.as_string::<i32>().value(row).to_owned());
            assert_eq!(twice, None, "{of:?} twice");
        }
    }
    Ok(found)
}

fn all_rows() -> Rows {
    let sites = (1..=SITES).flat_map(|site| (1..=LAST).map(move |seq| (site, seq)));
    sites.map(|(site, seq)| ((format!("site-{site}"), seq as i64), format!("row {seq}"))).collect()
}

/// Nothing that can be read is another value, and what cannot is said.
async fn reads_nothing_else(lake: &Lake, findings: &[Finding]) {
    for of in TABLES {
        let Some(table) = lake.table(&name(of)) else { panic!("{of} is not there: {findings:?}") };
        if table.set_aside().is_some() {
            assert!(!findings.is_empty());
            assert!(table.append(Arc::new(vec![part(&table, 1, LAST, LAST + 1)])).await.is_err(), "it is not written");
            continue;
        }
        match rows(&table).await {
            Ok(found) => assert_eq!(found, all_rows(), "{findings:?}"),
            Err(LakeError::DamagedFile { path, .. }) => {
                let is_named = findings.iter().any(|finding| finding.what.contains(&path));
                assert!(is_named, "{path} is not named by {findings:?}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    let view = lake.state().view();
    if lake.doubt().is_none() {
        let values: Vec<String> = view.of_kind(THING).map(|record| record.value.to_string()).collect();
        assert_eq!(values, vec!["2"; 6], "{findings:?}");
    }
}

/// What the mended lake has, each site sends the rest of.
async fn can_be_sent_again(lake: &Lake, mended: &[Finding]) {
    for of in TABLES {
        let table = lake.table_or_create(&name(of), &key()).await.expect("is there");
        let before = rows(&table).await.expect("reads");
        for site in 1..=SITES {
            let cursor = table.cursor(SiteNumber(site), Epoch(1)).map_or(0, |cursor| cursor.seq.0);
            let outcome = if cursor < LAST { send(&table, site, cursor, LAST).await } else { continue };
            assert!(matches!(outcome, PartOutcome::Durable { rows } if rows as u64 == LAST - cursor), "{outcome:?}");
        }
        let found = rows(&table).await.expect("reads");
        let all = all_rows();
        assert!(found.iter().all(|(of, text)| all.get(of) == Some(text)) && before.len() <= found.len());
        let lost: BTreeSet<&(String, i64)> = all.keys().filter(|of| !found.contains_key(*of)).collect();
        let is_named = |(site, seq): &&(String, i64)| {
            mended.iter().any(|finding| match &finding.damage {
                Damage::File { table, sites: Some((first, last)), seqs: Some((from, to)), .. } => {
                    table.ends_with(of) && (first..=last).contains(&site) && (*from..=*to).contains(&seq.unsigned_abs())
                }
                _ => false,
            })
        };
        assert!(lost.iter().all(is_named), "{lost:?} are lost without a word: {mended:?}");
    }
}

#[tokio::test]
async fn whatever_is_damaged_is_said_and_nothing_reads_as_another_value() {
    // `ROLLCALL_DAMAGES=n` tries more.
    let tries = std::env::var("ROLLCALL_DAMAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let whole = lake().await;
    let mut random = StdRng::seed_from_u64(23);
    let (mut refused, mut aside, mut doubted, mut unseen, mut mended_all) = (0, 0, 0, 0, 0);
    for number in 0..tries {
        let mut objects = whole.clone();
        let done: Vec<(Path, &str)> =
            (0..random.random_range(1..3)).map(|_| damage(&mut objects, &mut random)).collect();
        let store = store_of(&objects).await;
        let case = format!("{number}: {done:?}");
        let report = check(&store, |_, _| {}).await.unwrap_or_else(|error| panic!("{case}: {error:?}"));
        let lake = match opened(&store).await {
            Ok(lake) => lake,
            Err(LakeError::Damaged(what)) => {
                // Only where there is no roster to begin with, or no word of which lake it is.
                assert!(what.contains("backup"), "{case}: {what}");
                refused += 1;
                continue;
            }
            Err(other) => panic!("{case}: {other:?}"),
        };
        aside += usize::from(!lake.set_aside().is_empty());
        doubted += usize::from(lake.doubt().is_some());
        unseen += usize::from(report.findings.is_empty());
        if report.findings.is_empty() {
            assert!(lake.set_aside().is_empty() && lake.doubt().is_none(), "{case}: {:?}", lake.set_aside());
        }
        println!("{case}: {} findings", report.findings.len());
        reads_nothing_else(&lake, &report.findings).await;
        drop(lake);
        // What lay behind a damaged log shows once that is mended.
        let (mut mended, by_hand) = (Vec::new(), |finding: &Finding| matches!(finding.damage, Damage::ByHand { .. }));
        let lake = loop {
            let lake = opened(&store).await.unwrap_or_else(|error| panic!("{case}: {error:?}"));
            let mut findings = check(&store, |_, _| {}).await.expect("checks").findings;
            findings.retain(|finding| !by_hand(finding));
            if findings.is_empty() {
                break lake;
            }
            assert!(mended.len() < 20, "{case}: {findings:?}");
            for finding in &findings {
                lake.mend(finding).await.unwrap_or_else(|error| panic!("{case}: {finding:?}: {error:?}"));
            }
            mended.extend(findings);
        };
        lake.note_heads().await.expect("notes");
        assert!(lake.set_aside().is_empty(), "{case}: {:?}", lake.set_aside());
        can_be_sent_again(&lake, &mended).await;
        mended_all += 1;
    }
    println!(
        "{tries}: {refused} refused, {aside} set aside, {doubted} in doubt, {unseen} harmless, {mended_all} mended"
    );
    assert!(aside > 0 && doubted > 0 && mended_all > tries / 2, "{aside} {doubted} {mended_all}");
}
