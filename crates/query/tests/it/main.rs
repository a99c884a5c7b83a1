//! SQL over current rows and history, against a plain model of the same changes.

mod catalogue;
mod correlated;
mod exports;
mod functions;
mod journal;
mod meaning;
mod scope;
mod sql;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use rollcall_lake::{CompactionLimits, Lake, LakeOptions, Lives, MarkKind, PartMark};
use rollcall_query::{
    Cover, Engine, EngineLimits, Extras, Format, QueryError, Scope, csv_trailer, render, split_csv_trailer,
};
use rollcall_types::{Coverage, Seq, SiteId, SiteNumber, TableName};

use journal::{Change, Declared, Sent, append, number, site};

const T: Declared = Declared { name: "t", columns: &[("id", "INTEGER"), ("v", "TEXT")] };

struct World {
    lake: Arc<Lake>,
    engine: Engine,
    ids: Arc<HashMap<SiteNumber, SiteId>>,
    _directory: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let lake = Lake::open_directory(directory.path(), LakeOptions::default()).await.expect("opens");
        let lake = Arc::new(lake);
        let engine = Engine::new(lake.clone(), EngineLimits::default()).expect("starts");
        let ids = (0..4).map(|place| (number(place), site(place))).collect();
        Self { lake, engine, ids: Arc::new(ids), _directory: directory }
    }

    async fn append(
        &self,
        number: u32,
        epoch: u32,
        previous: u64,
        rows: &[(u64, char, i64, String)],
        last: u64,
        marks: Vec<PartMark>,
    ) {
        let changes: Vec<Change> = rows
            .iter()
            .map(|(seq, op, id, value)| (*seq, *op, vec![Some(id.to_string()), Some(value.clone())]))
            .collect();
        append(&self.lake, Sent { table: T, site: number, epoch, previous, last, changes: &changes, marks }).await;
    }

    async fn compact(&self) {
        let limits = CompactionLimits {
            small_file_bytes: 1 << 20,
            files_min: 2,
            rows_max: 100_000,
            ..CompactionLimits::default()
        };
        let of_site = |site: &str| site.strip_prefix("site-")?.parse().ok().map(number);
        let table = self.lake.table(&TableName::new("t").expect("valid")).expect("there");
        table.compact(limits, async || Ok((of_site, Lives::default()))).await.expect("compacts");
    }

    async fn ask(&self, sql: &str) -> Result<serde_json::Value, QueryError> {
        let extras = Extras { site_ids: self.ids.clone(), ..Extras::default() };
        let answer = self.engine.query(sql, extras).await?;
        let json = render(&answer, Format::Json).expect("renders");
        Ok(serde_json::from_slice::<serde_json::Value>(&json).expect("json")["rows"].clone())
    }

    /// `site id value` of every current row.
    async fn current(&self) -> Vec<String> {
        let rows = self.ask("SELECT concat(_site, ' ', id, ' ', v) AS row FROM t ORDER BY 1").await.expect("answers");
        rows.as_array().expect("rows").iter().map(|row| row["row"].as_str().expect("text").to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn current_rows_are_the_newest_of_each_key_whatever_compaction_did() {
    for seed in 0..8 {
        let world = World::new().await;
        let mut random = StdRng::seed_from_u64(seed);
        let mut model: BTreeMap<(u32, i64), String> = BTreeMap::new();
        let mut seqs = [0_u64; 3];
        let mut changes = 0;
        for _ in 0..25 {
            let number = random.random_range(0..3_u32);
            let previous = seqs[number as usize];
            let mut rows = Vec::new();
            for _ in 0..random.random_range(1..6) {
                seqs[number as usize] += 1;
                let (seq, id) = (seqs[number as usize], random.random_range(0..6_i64));
                let value = format!("v{seq}");
                // The journal's promise: I only where the key was proven absent.
                let op = match (model.contains_key(&(number, id)), random.random_range(0..3)) {
                    (true, 0) => 'D',
                    (true, _) => 'U',
                    (false, _) => 'I',
                };
                if op == 'D' {
                    model.remove(&(number, id));
                } else {
                    model.insert((number, id), value.clone());
                }
                rows.push((seq, op, id, value));
            }
            changes += rows.len();
            world.append(number, 1, previous, &rows, seqs[number as usize], Vec::new()).await;
            if random.random_bool(0.2) {
                world.compact().await;
            }
        }
        let expected: Vec<String> =
            model.iter().map(|((number, id), value)| format!("site-{number} {id} {value}")).collect();
        assert_eq!(world.current().await, expected, "seed {seed}");
        let history = world.ask("SELECT count(*) AS n FROM history.t").await.expect("answers");
        assert_eq!(history[0]["n"], changes, "history keeps every change");
        let filtered =
            world.ask("SELECT count(*) AS n FROM t WHERE _site = 'site-1' AND id < 3").await.expect("answers");
        assert_eq!(filtered[0]["n"], model.keys().filter(|(number, id)| *number == 1 && *id < 3).count());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_epoch_replaces_the_old_one_at_once_when_its_load_is_complete() {
    let world = World::new().await;
    let row = |seq: u64, op: char, id: i64, value: &str| (seq, op, id, value.to_owned());
    let mark = |kind, seq, begin| PartMark { kind, seq: Seq(seq), begin: Seq(begin) };
    world.append(0, 1, 0, &[row(1, 'I', 1, "a"), row(2, 'I', 2, "b")], 2, Vec::new()).await;
    world.append(1, 1, 0, &[row(1, 'I', 1, "other")], 1, Vec::new()).await;
    // Unconfirmed changes of the old life come first, then the load begins.
    let begun = vec![mark(MarkKind::LoadBegun, 4, 4)];
    world.append(0, 2, 0, &[row(3, 'U', 1, "early"), row(5, 'S', 1, "A")], 5, begun).await;
    assert_eq!(world.current().await, ["site-0 1 a", "site-0 2 b", "site-1 1 other"]);
    world.compact().await;
    assert_eq!(world.current().await, ["site-0 1 a", "site-0 2 b", "site-1 1 other"], "hidden rows survive compaction");
    let complete = vec![mark(MarkKind::LoadComplete, 7, 4)];
    world.append(0, 2, 5, &[row(6, 'S', 3, "C")], 7, complete).await;
    let after = ["site-0 1 A", "site-0 3 C", "site-1 1 other"];
    assert_eq!(world.current().await, after);
    world.compact().await;
    assert_eq!(world.current().await, after);
    world.append(0, 2, 7, &[row(8, 'D', 3, "")], 8, Vec::new()).await;
    assert_eq!(world.current().await, after[..1].iter().chain(&after[2..]).copied().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_reading_is_allowed_and_answers_are_bounded() {
    let world = World::new().await;
    world.append(0, 1, 0, &[(1, 'I', 1, "a".to_owned())], 1, Vec::new()).await;
    for sql in
        ["DELETE FROM t", "CREATE TABLE x (a INT)", "COPY t TO '/tmp/x'", "SET a = 1", "INSERT INTO t VALUES (1)"]
    {
        assert!(matches!(world.ask(sql).await, Err(QueryError::Sql(_))), "{sql}");
    }
    for (sql, code) in [
        ("SELECT nothing FROM t", "42703"),
        ("SELECT x.nothing FROM t x", "42703"),
        ("SELECT x.qty FROM t", "42P01"),
        ("SELECT 1 FROM nothing", "42P01"),
        ("SELECT 1 FROM other.nothing", "42P01"),
        ("SELECT nothing(1)", "42883"),
        ("SELECT 1 FROM nothing(1)", "42883"),
    ] {
        let failure = world.ask(sql).await.expect_err("there is none");
        assert_eq!(failure.sqlstate(), code, "{sql}: {failure}");
        assert!(failure.to_string().contains("nothing") || failure.to_string().contains("\"x\""), "{sql}: {failure}");
    }
    let long = "SELECT * FROM generate_series(1, 2000000)";
    assert!(matches!(world.ask(long).await, Err(QueryError::Limit(_) | QueryError::Sql(_))));
}

/// Says the same of every answer.
#[derive(Debug)]
struct Fixed;

impl Cover for Fixed {
    fn sites(&self) -> Arc<Vec<SiteId>> {
        Arc::default()
    }

    fn event_time(&self, _: &TableName) -> Option<String> {
        None
    }

    fn coverage(&self, _: &Scope) -> Coverage {
        Coverage { scope: 3, complete: 3, ..Coverage::default() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coverage_goes_with_every_form() {
    let world = World::new().await;
    let extras = Extras { cover: Arc::new(Fixed), ..Extras::default() };
    let answer = world
        .engine
        .query(
            "SELECT 1 AS one, arrow_cast(now(), 'Timestamp(Microsecond, Some(\"UTC\"))') AS t, DECIMAL '1.50' AS d",
            extras,
        )
        .await
        .expect("answers");
    let json: serde_json::Value =
        serde_json::from_slice(&render(&answer, Format::Json).expect("renders")).expect("json");
    assert_eq!(json["columns"], serde_json::json!(["one", "t", "d"]));
    assert_eq!(json["coverage"]["scope"], 3);
    assert!(json["rows"][0]["t"].as_str().expect("text").ends_with('Z'));
    let file = render(&answer, Format::Parquet).expect("renders");
    let text = String::from_utf8_lossy(&file);
    assert!(text.contains("rollcall.coverage") && text.contains("\"scope\":3"));
    let book = render(&answer, Format::Xlsx).expect("renders");
    assert!(book.starts_with(b"PK"), "a workbook is a zip file");
    let stream = render(&answer, Format::Arrow).expect("renders");
    let reader = arrow::ipc::reader::StreamReader::try_new(stream.as_slice(), None).expect("a stream");
    assert!(reader.schema().metadata()["rollcall.coverage"].contains("\"scope\":3"));
    assert_eq!(reader.map(|rows| rows.expect("reads").num_rows()).sum::<usize>(), 1);
    let rows = render(&answer, Format::Csv).expect("renders");
    let whole = [&rows[..], csv_trailer(&answer.coverage).as_bytes()].concat();
    assert_eq!(split_csv_trailer(&whole), (&rows[..], Some(answer.coverage)));
    assert_eq!(split_csv_trailer(&rows), (&rows[..], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_exact_in_json_and_infinity_is_not_null() {
    let world = World::new().await;
    let sql = "SELECT DECIMAL '12345678901234567890.123456789' AS d, 9007199254740993 AS l, 0.1::double precision AS f, \
               'Infinity'::double precision AS i, '-Infinity'::double precision AS m, 'NaN'::double precision AS n, \
               CAST(NULL AS double precision) AS z, chr(160) || 'x' || chr(160) AS t";
    let answer = world.engine.query(sql, Extras::default()).await.expect("answers");
    let text = String::from_utf8(render(&answer, Format::Json).expect("renders")).expect("text");
    let rows = "\"rows\":[{\"d\":12345678901234567890.123456789,\"l\":9007199254740993,\"f\":0.1,\"i\":\"Infinity\",\
                \"m\":\"-Infinity\",\"n\":\"NaN\",\"z\":null,\"t\":\"\u{a0}x\u{a0}\"}]";
    assert!(text.contains(rows), "{text}");
    serde_json::from_str::<serde_json::Value>(&text).expect("it is JSON");
    let table = String::from_utf8(render(&answer, Format::Table).expect("renders")).expect("text");
    assert!(table.contains("\u{a0}x\u{a0}") && table.contains("12345678901234567890.123456789"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greedy_query_fails_alone() {
    let world = World::new().await;
    let limits = EngineLimits { memory_bytes: 1 << 20, ..EngineLimits::default() };
    let engine = Engine::new(world.lake.clone(), limits).expect("starts");
    let greedy = "SELECT array_agg(a.a) FROM generate_series(1, 2000) a, generate_series(1, 1000) b";
    let ask = |sql: &'static str| engine.query(sql, Extras::default());
    let (refused, other) = tokio::join!(ask(greedy), ask("SELECT count(*) FROM generate_series(1, 100000)"));
    assert!(matches!(&refused, Err(QueryError::Limit(text)) if text.contains("memory")), "{refused:?}");
    assert!(other.is_ok(), "{other:?}");
}
