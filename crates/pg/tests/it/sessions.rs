//! What a connection remembers, and what questions may do to a server: nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rollcall_query::{Cover, Scope};
use rollcall_types::{Coverage, MissingSite, SiteId, SiteState, TableName};

use crate::{
    differential::tables,
    hq::Hq,
    wire::{Answer, Client},
};

/// One of the sites is missing from every answer that is about it.
#[derive(Debug)]
struct Lacking;

fn sites() -> Vec<SiteId> {
    ["s01", "s02", "s03", "s04"].iter().map(|id| SiteId::new(id).expect("valid")).collect()
}

impl Cover for Lacking {
    fn sites(&self) -> Arc<Vec<SiteId>> {
        Arc::new(sites())
    }

    fn event_time(&self, _: &TableName) -> Option<String> {
        None
    }

    fn coverage(&self, scope: &Scope) -> Coverage {
        let is_in = |place: usize| scope.scans.iter().any(|scan| scan.sites[place]);
        let reads_sites = !scope.scans.is_empty();
        let scope = (0..4).filter(|place| is_in(*place)).count();
        let missing = is_in(1).then(|| MissingSite {
            site: sites()[1].clone(),
            since: None,
            state: SiteState::NeverHeard,
            cause: None,
            expected_rows: None,
            expected_amount: None,
        });
        Coverage {
            reads_sites,
            scope,
            complete: scope - missing.iter().count(),
            missing: missing.into_iter().collect(),
            ..Coverage::default()
        }
    }
}

/// The first column of an answer, or the error's code.
fn told(answer: &Answer) -> Vec<String> {
    match answer {
        Answer::Rows { rows, .. } => rows
            .iter()
            .map(|row| row[0].as_ref().map_or("NULL".to_owned(), |value| String::from_utf8_lossy(value).into_owned()))
            .collect(),
        Answer::Done => vec!["done".to_owned()],
        Answer::Error { code, .. } => vec![code.clone()],
    }
}

fn ask(client: &mut Client, sql: &str) -> String {
    told(&client.simple(sql)).join(",")
}

const OF_MISSING: &str = "SELECT count(*) > 0 FROM sales WHERE _site = 's02'";
const OF_OTHERS: &str = "SELECT count(*) > 0 FROM sales WHERE _site = 's01'";

#[test]
fn what_one_client_sets_is_not_left_to_the_next() {
    let hq = Hq::start_with(tables::sites(), tables::append, Arc::new(Lacking));
    let mut client = hq.connect();
    assert_eq!(ask(&mut client, OF_MISSING), "t");
    for strict in [
        "SET ROLLCALL.COVERAGE = STRICT",
        "SET \"rollcall\".\"coverage\" TO 'strict'",
        "SET SESSION rollcall.coverage = strict",
    ] {
        assert_eq!(ask(&mut client, strict), "done");
        assert_eq!(ask(&mut client, "SHOW rollcall.coverage"), "strict");
        assert_eq!(ask(&mut client, "SELECT current_setting('rollcall.coverage')"), "strict");
        assert_eq!(ask(&mut client, OF_MISSING), "RC001", "{strict}");
        assert_eq!(ask(&mut client, OF_OTHERS), "t");
        for reset in ["DISCARD ALL", "RESET ALL", "RESET rollcall.coverage", "SET rollcall.coverage TO DEFAULT"] {
            assert_eq!(ask(&mut client, reset), "done", "{reset}");
            assert_eq!(ask(&mut client, OF_MISSING), "t", "{strict}; {reset}");
            ask(&mut client, strict);
        }
        // What a pool sends when it takes a connection back.
        assert_eq!(ask(&mut client, "SELECT 1; CLOSE ALL; UNLISTEN *; RESET ALL"), "done");
        assert_eq!(ask(&mut client, OF_MISSING), "t");
    }
    for wrong in [
        "SET rollcall.covrage = strict",
        "SET rollcall.coverage = strikt",
        "SET rollcall.coverage.x = 1",
        "SHOW rollcall.covrage",
    ] {
        assert!(client.simple(wrong).is_error(), "{wrong}");
    }
    // A transaction that is undone undoes its settings; LOCAL ones end with it.
    for (script, then) in [
        ("BEGIN; SET rollcall.coverage = strict; ROLLBACK", "t"),
        ("BEGIN; SET LOCAL rollcall.coverage = strict; COMMIT", "t"),
        ("BEGIN; SAVEPOINT a; SET rollcall.coverage = strict; ROLLBACK TO a; COMMIT", "t"),
        ("BEGIN; SELECT set_config('rollcall.coverage', 'strict', true); COMMIT", "t"),
        ("BEGIN; SAVEPOINT a; SET rollcall.coverage = strict; RELEASE a; COMMIT", "RC001"),
    ] {
        client.simple(script);
        assert_eq!(ask(&mut client, OF_MISSING), then, "{script}");
    }
    client.simple("DISCARD ALL");
    client.simple("BEGIN");
    client.simple("SET LOCAL rollcall.coverage = strict");
    assert_eq!(ask(&mut client, OF_MISSING), "RC001");
    assert_eq!(ask(&mut client, OF_OTHERS), "25P02", "the transaction has failed");
    client.simple("ROLLBACK");
    assert_eq!(ask(&mut client, OF_MISSING), "t");
}

#[test]
fn what_is_missing_is_told_of_the_last_question() {
    let hq = Hq::start_with(tables::sites(), tables::append, Arc::new(Lacking));
    let mut client = hq.connect();
    let missing = "SELECT site FROM rollcall.coverage";
    ask(&mut client, OF_MISSING);
    assert_eq!(ask(&mut client, missing), "s02");
    assert_eq!(ask(&mut client, missing), "s02", "asking for it does not take it away");
    ask(&mut client, OF_OTHERS);
    assert_eq!(ask(&mut client, missing), "");
    client.simple("SET rollcall.coverage = strict");
    assert_eq!(ask(&mut client, OF_MISSING), "RC001");
    assert_eq!(ask(&mut client, missing), "s02", "of the answer that was refused");
    ask(&mut client, "SELECT relname FROM pg_class LIMIT 1");
    assert_eq!(ask(&mut client, missing), "s02", "a program's question about the server is not the user's");
    ask(&mut client, "SELECT 1");
    assert_eq!(ask(&mut client, missing), "");
    // Used up by the next question of the user's, and by nothing else.
    client.simple("SET rollcall.coverage = 'off-for-this-statement'");
    ask(&mut client, "SELECT relname FROM pg_class LIMIT 1");
    assert_eq!(hq.untold(), 0);
    assert_eq!(ask(&mut client, OF_MISSING), "t");
    assert_eq!(hq.untold(), 1, "it is recorded");
    ask(&mut client, OF_MISSING);
    assert_eq!(hq.untold(), 1, "the one after is told of again");
    client.simple("SET rollcall.coverage = 'off-for-this-statement'");
    client.simple("DISCARD ALL");
    ask(&mut client, OF_MISSING);
    assert_eq!(hq.untold(), 1, "nor is it left to the next client");
}

#[test]
fn no_statement_ends_or_stops_the_server() {
    let hq = Hq::start(tables::sites(), tables::append);
    let mut client = hq.connect();
    let ors = (0..2_000).map(|n| format!("qty = {n}")).collect::<Vec<_>>().join(" OR ");
    assert_eq!(ask(&mut client, &format!("SELECT count(*) >= 0 FROM sales WHERE {ors}")), "t");
    let minus = format!("SELECT 1{}", "-1".repeat(20_000));
    assert_eq!(ask(&mut client, &minus), "54001");
    for sql in [
        "SELECT length(repeat('x', 1000000000))".to_owned(),
        "SELECT length(lpad('x', 1000000000, 'y'))".to_owned(),
        "SELECT length(replace(repeat('x', 1000000), 'x', repeat('y', 10000)))".to_owned(),
        format!("SELECT {}1{}", "(".repeat(3_000), ")".repeat(3_000)),
        format!("SELECT {}qty{} FROM sales", "abs(".repeat(1_000), ")".repeat(1_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(5_000)),
        format!("WITH {} SELECT 1", (0..2_000).map(|n| format!("a{n} AS (SELECT 1)")).collect::<Vec<_>>().join(", ")),
    ] {
        let answer = client.simple(&sql);
        let start: String = sql.chars().take(60).collect();
        assert!(answer.is_error() || !sql.contains("length"), "{start}: {answer:?}");
        assert_eq!(ask(&mut client, "SELECT 1"), "1", "after {start}");
    }
    assert_eq!(ask(&mut client, "SELECT count(*) > 0 FROM information_schema.key_column_usage"), "t");
}

/// Work that no row of ends: the join looks at all pairs and keeps none.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000) a(x), generate_series(1, 1000000) b(x), \
                       generate_series(1, 1000000) c(x) WHERE a.x * b.x + c.x = -1";

/// So often the rest of HQ must come to its turn beside such questions.
const TICKS: usize = 20;

#[test]
fn questions_that_never_end_are_stopped_and_leave_the_server_free() {
    let hq = Arc::new(Hq::start(tables::sites(), tables::append));
    // What the rest of HQ does meanwhile, on threads of its own: it counts.
    let ticks = hq.ticks();
    let kinds = [
        ENDLESS,
        "SELECT sum(a.x * b.x + c.x) FROM generate_series(1, 100000) a(x), generate_series(1, 100000) b(x), \
         generate_series(1, 100000) c(x)",
        "SELECT count(*) FROM generate_series(1, 10000000000) a(x) WHERE x % 7 = 8",
        "WITH RECURSIVE t(n) AS (SELECT 1::bigint UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
    ];
    let stopped = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|n| {
            let (hq, stopped, ticks) = (hq.clone(), stopped.clone(), ticks.clone());
            std::thread::spawn(move || {
                let mut client = hq.connect();
                client.simple("SET statement_timeout = '2s'").expect_done();
                let (sql, started) = (kinds[n % kinds.len()], Instant::now());
                loop {
                    let code = ask(&mut client, sql);
                    assert!(["57014", "54000"].contains(&code.as_str()), "{sql}: {code}");
                    // Not a matter of speed: a question that cannot be stopped runs for days, and
                    // a server that waits for it counts no further.
                    assert!(started.elapsed() < Duration::from_secs(120), "{sql}: {}", ticks.load(Ordering::Relaxed));
                    if ticks.load(Ordering::Relaxed) >= TICKS {
                        break;
                    }
                }
                stopped.fetch_add(1, Ordering::Relaxed);
                assert_eq!(ask(&mut client, "SELECT 1"), "1");
            })
        })
        .collect();
    for client in clients {
        client.join().expect("each was stopped");
    }
    assert_eq!(stopped.load(Ordering::Relaxed), 4);
    // Nothing of them runs on: all places are free again.
    let mut client = hq.connect();
    let free = Instant::now();
    while !ask(&mut client, "SELECT count(*) FROM generate_series(1, 1000)").eq("1000") {
        assert!(free.elapsed() < Duration::from_secs(30), "the threads of questions are still busy");
    }
}

#[test]
fn what_drivers_ask_of_a_connection_is_answered() {
    let hq = Arc::new(Hq::start(tables::sites(), tables::append));
    let mut client = hq.connect();
    // A cursor that is at its end stays there.
    client.simple("BEGIN").expect_done();
    client.simple("DECLARE c NO SCROLL CURSOR FOR SELECT x FROM generate_series(1, 3) AS g(x)").expect_done();
    assert_eq!(ask(&mut client, "FETCH 2 FROM c"), "1,2");
    assert_eq!(ask(&mut client, "FETCH ALL FROM c"), "3");
    for _ in 0..3 {
        assert!(!client.simple("FETCH NEXT FROM c").is_error());
    }
    client.simple("COMMIT").expect_done();
    // What is set and what was set, in one question.
    client.simple("SET application_name = 'before'").expect_done();
    let both =
        "SELECT current_setting('application_name') AS cur, set_config('application_name', 'after', false) AS new";
    assert_eq!(ask(&mut client, both), "before");
    assert_eq!(ask(&mut client, "SHOW application_name"), "after");
    // A statement is cancelled by the connection's number.
    let number = ask(&mut client, "SELECT pg_backend_pid()");
    let other = hq.clone();
    let cancels = std::thread::spawn(move || {
        let mut client = other.connect();
        let started = Instant::now();
        while ask(&mut client, &format!("SELECT pg_cancel_backend({number})")) != "t" {
            assert!(started.elapsed() < Duration::from_secs(60), "there is nothing to cancel");
        }
    });
    assert_eq!(ask(&mut client, ENDLESS), "57014");
    cancels.join().expect("it was cancelled");
    assert_eq!(ask(&mut client, "SELECT pg_cancel_backend(0)"), "f");
}

#[test]
fn a_repeatable_transaction_reads_one_moment_throughout() {
    let hq = Hq::start(tables::sites(), tables::append);
    let (mut one, mut other) = (hq.connect(), hq.connect());
    let count = "SELECT count(*) FROM rollcall.contacts";
    let write = || {
        hq.change_lake(async |lake| {
            let sites: arrow::array::ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["s01"]));
            let rows = arrow::record_batch::RecordBatch::try_from_iter([("site", sites)]).expect("one column");
            lake.contacts().append_rows(rows).await.expect("appends");
        });
    };
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let before = told(&other.simple(count));
        one.simple(&format!("BEGIN ISOLATION LEVEL {level}")).expect_done();
        write();
        let first = told(&one.simple(count));
        assert_ne!(first, before, "it begins with its first question");
        write();
        assert_eq!(told(&one.simple(count)), first, "{level}");
        assert_ne!(told(&other.simple(count)), first);
        one.simple("COMMIT").expect_done();
        assert_eq!(told(&one.simple(count)), told(&other.simple(count)), "and ends with it");
    }
    one.simple("BEGIN").expect_done();
    let first = told(&one.simple(count));
    write();
    assert_ne!(told(&one.simple(count)), first, "read committed");
}
