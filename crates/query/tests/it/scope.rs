//! Which sites an answer is about: never fewer than could change it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rollcall_lake::{Lake, LakeOptions};
use rollcall_query::{Cover, Engine, EngineLimits, Extras, Format, MakeTable, QueryError, ScanScope, Scope, render};
use rollcall_types::{Coverage, SiteId, SiteNumber, TableName, Timestamp};

use crate::journal::{Change, Declared, Sent, append, number, site};

const SITES: u32 = 6;
const STATES: [&str; 6] = ["WA", "WA", "OR", "OR", "CA", "CA"];
const CITIES: [&str; 6] = ["Seattle", "Tacoma", "Salem", "Bend", "Fresno", "Davis"];

/// Remembers the scope it was asked about.
#[derive(Debug)]
struct Asked(Mutex<Scope>);

impl Cover for Asked {
    fn sites(&self) -> Arc<Vec<SiteId>> {
        Arc::new((0..SITES).map(site).collect())
    }

    fn event_time(&self, _: &TableName) -> Option<String> {
        Some("sold_at".to_owned())
    }

    fn coverage(&self, scope: &Scope) -> Coverage {
        *self.0.lock().expect("not poisoned") = scope.clone();
        Coverage::default()
    }
}

struct Stores {
    engine: Engine,
    ids: Arc<HashMap<SiteNumber, SiteId>>,
    _directory: tempfile::TempDir,
}

/// Rows of two tables, some of them updated; `changed` is a site whose rows are quite different.
async fn stores(changed: Option<u32>) -> Stores {
    let directory = tempfile::tempdir().expect("a directory");
    let lake = Arc::new(Lake::open_directory(directory.path(), LakeOptions::default()).await.expect("opens"));
    for (name, salt) in [("sales", 1), ("returns", 2)] {
        for number in 0..SITES {
            let mut random =
                StdRng::seed_from_u64(u64::from(number) * 7 + salt + if changed == Some(number) { 1000 } else { 0 });
            let count = random.random_range(5..12_u64);
            let ids: Vec<i64> = (0..count).map(|_| random.random_range(0..6)).collect();
            let mut seen = std::collections::HashSet::new();
            let mut change = |index: usize, id: &i64| {
                let op = if seen.insert(*id) { 'I' } else { 'U' };
                let sold_at = format!("2026-01-{:02} 10:00:00", random.random_range(1..28));
                let values = [id.to_string(), random.random_range(1..100).to_string(), sold_at];
                (index as u64 + 1, op, values.map(Some).to_vec())
            };
            let changes: Vec<Change> = ids.iter().enumerate().map(|(index, id)| change(index, id)).collect();
            let columns = &[("id", "INTEGER"), ("qty", "INTEGER"), ("sold_at", "DATETIME")];
            let table = Declared { name, columns };
            let marks = Vec::new();
            let sent = Sent { table, site: number, epoch: 1, previous: 0, last: count, changes: &changes, marks };
            append(&lake, sent).await;
        }
    }
    let engine = Engine::new(lake, EngineLimits::default()).expect("starts");
    let ids = Arc::new((0..SITES).map(|place| (number(place), site(place))).collect());
    Stores { engine, ids, _directory: directory }
}

fn roster() -> RecordBatch {
    let text = |values: Vec<String>| Arc::new(StringArray::from(values)) as ArrayRef;
    let schema = Schema::new(["id", "state", "city"].map(|name| Field::new(name, DataType::Utf8, true)).to_vec());
    let all = vec![
        text((0..SITES).map(|number| site(number).to_string()).collect()),
        text(STATES.map(str::to_owned).to_vec()),
        text(CITIES.map(str::to_owned).to_vec()),
    ];
    RecordBatch::try_new(Arc::new(schema), all).expect("columns match")
}

impl Stores {
    /// The answer as text, its rows in any order, and its scope.
    async fn ask(&self, sql: &str) -> (String, Scope) {
        self.try_ask(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    async fn try_ask(&self, sql: &str) -> Result<(String, Scope), QueryError> {
        self.ask_seeing(sql, None).await
    }

    async fn ask_seeing(&self, sql: &str, only: Option<Arc<HashSet<String>>>) -> Result<(String, Scope), QueryError> {
        let asked = Arc::new(Asked(Mutex::default()));
        let make: MakeTable = Arc::new(roster);
        let extras = Extras {
            tables: vec![("public", "sites", make)],
            site_ids: self.ids.clone(),
            cover: asked.clone(),
            only,
            ..Extras::default()
        };
        let answer = self.engine.query(sql, extras).await?;
        let text = String::from_utf8(render(&answer, Format::Csv).expect("renders")).expect("text");
        let mut lines: Vec<&str> = text.lines().collect();
        lines[1..].sort_unstable();
        let scope = asked.0.lock().expect("not poisoned").clone();
        Ok((lines.join("\n"), scope))
    }
}

fn about(scope: &Scope, number: u32) -> bool {
    scope.scans.iter().any(|scan| scan.sites[number as usize])
}

/// The sites in scope, as digits.
fn sites_of(scope: &Scope) -> String {
    (0..SITES).filter(|number| about(scope, *number)).map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scope_is_what_the_question_is_about() {
    let stores = stores(None).await;
    for (sql, expected) in [
        ("SELECT sum(qty) FROM sales", "012345"),
        ("SELECT 1", ""),
        ("SELECT count(*) FROM sites", ""),
        ("SELECT sum(qty) FROM sales WHERE _site = 'site-2'", "2"),
        ("SELECT sum(qty) FROM sales WHERE _site IN ('site-2', 'site-4') AND qty > 3", "24"),
        ("SELECT sum(qty) FROM sales WHERE upper(_site) LIKE '%-3'", "3"),
        ("SELECT sum(qty) FROM sales WHERE _site = 'site-2' OR qty > 3", "012345"),
        ("SELECT sum(qty) FROM sales s JOIN sites t ON s._site = t.id WHERE t.state = 'WA'", "01"),
        (
            "SELECT t.state, sum(qty) FROM sales s JOIN sites t ON s._site = t.id WHERE lower(t.city) LIKE 's%' GROUP BY 1",
            "02",
        ),
        ("SELECT sum(qty) FROM sites t LEFT JOIN sales s ON s._site = t.id WHERE t.state = 'OR'", "23"),
        ("SELECT sum(qty) FROM sales WHERE _site IN (SELECT id FROM sites WHERE state = 'CA')", "45"),
        (
            "SELECT sum(qty) FROM sales s WHERE EXISTS (SELECT 1 FROM sites t WHERE t.id = s._site AND t.city = 'Bend')",
            "3",
        ),
        (
            "WITH west AS (SELECT id FROM sites WHERE state <> 'CA') SELECT sum(qty) FROM sales JOIN west ON _site = west.id",
            "0123",
        ),
        (
            "SELECT * FROM (SELECT _site, sum(qty) AS q FROM sales GROUP BY _site) x JOIN sites t ON x._site = t.id WHERE t.state = 'WA'",
            "01",
        ),
        ("SELECT qty FROM sales WHERE _site = 'site-1' UNION ALL SELECT qty FROM returns WHERE _site = 'site-5'", "15"),
        (
            "SELECT sum(s.qty - r.qty) FROM sales s JOIN returns r ON s._site = r._site AND s.id = r.id WHERE s._site = 'site-3'",
            "3",
        ),
        (
            "SELECT sum(s.qty) FROM sales s JOIN sites t ON s._site = t.id JOIN returns r ON r._site = s._site AND r.id = s.id \
             WHERE t.state = 'OR'",
            "23",
        ),
        ("SELECT sum(qty) FROM history.sales WHERE _site = 'site-0'", "0"),
        ("SELECT t.id FROM sites t LEFT JOIN sales s ON s._site = t.id WHERE s._site IS NULL AND t.state = 'WA'", "01"),
        // A row of any other site would push one of these out.
        (
            "SELECT * FROM (SELECT * FROM sales ORDER BY qty LIMIT 3) x JOIN sites t ON x._site = t.id WHERE t.state = 'WA'",
            "012345",
        ),
        ("SELECT sum(qty) FROM sales WHERE _site NOT IN (SELECT id FROM sites WHERE state = 'CA')", "012345"),
    ] {
        let (_, scope) = stores.ask(sql).await;
        assert_eq!(sites_of(&scope), expected, "{sql}: {scope:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_of_the_event_time_are_found() {
    let stores = stores(None).await;
    let time = |text: &str| Some(format!("{text}Z").parse::<Timestamp>().expect("valid"));
    for (sql, from, until) in [
        ("sold_at < '2026-01-10'", None, time("2026-01-10T00:00:00")),
        (
            "sold_at >= '2026-01-01' AND sold_at < TIMESTAMP '2026-02-01' AND qty > 1",
            time("2026-01-01T00:00:00"),
            time("2026-02-01T00:00:00"),
        ),
        (
            "sold_at BETWEEN '2026-01-01' AND '2026-01-02 12:00:00'",
            time("2026-01-01T00:00:00"),
            time("2026-01-02T12:00:00.000001"),
        ),
        ("'2026-01-10' > sold_at", None, time("2026-01-10T00:00:00")),
        ("sold_at::date = '2026-01-10'", time("2026-01-10T00:00:00"), time("2026-01-11T00:00:00")),
        ("(sold_at AT TIME ZONE 'America/Los_Angeles')::date <= '2026-11-20'", None, time("2026-11-21T08:00:00")),
        (
            "sold_at::date = '2026-01-10' OR sold_at::date = '2026-01-12'",
            time("2026-01-10T00:00:00"),
            time("2026-01-13T00:00:00"),
        ),
        ("sold_at < '2026-01-10' OR qty = 1", None, None),
        ("qty = 1", None, None),
    ] {
        let (_, scope) = stores.ask(&format!("SELECT sum(qty) FROM sales WHERE {sql}")).await;
        let [scan] = scope.scans.as_slice() else { panic!("{sql}: {scope:?}") };
        assert_eq!((scan.from, scan.until), (from, until), "{sql}");
    }
    // Through joins and views, and each scan its own.
    let sql = "SELECT count(*) FROM sales s JOIN sites t ON s._site = t.id, (SELECT * FROM returns WHERE sold_at < '2026-01-05') r \
               WHERE s.sold_at < '2026-01-03' AND r.id = s.id";
    let (_, scope) = stores.ask(sql).await;
    let mut until: Vec<_> = scope.scans.iter().map(|scan: &ScanScope| (scan.table.to_string(), scan.until)).collect();
    until.sort();
    assert_eq!(
        until,
        [("returns".to_owned(), time("2026-01-05T00:00:00")), ("sales".to_owned(), time("2026-01-03T00:00:00"))]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_by_site_attributes_are_seen() {
    let stores = stores(None).await;
    for (sql, expected) in [
        ("SELECT t.state, sum(qty) FROM sales s JOIN sites t ON s._site = t.id GROUP BY t.state", vec!["state"]),
        (
            "SELECT t.state, t.city, sum(qty) q FROM sales s JOIN sites t ON s._site = t.id GROUP BY 1, 2 ORDER BY q LIMIT 2",
            vec!["state", "city"],
        ),
        ("SELECT _site, sum(qty) FROM sales GROUP BY 1", vec!["id"]),
        ("SELECT s.id, sum(qty) FROM sales s JOIN sites t ON s._site = t.id GROUP BY s.id", vec![]),
        ("SELECT t.state, s.qty, count(*) FROM sales s JOIN sites t ON s._site = t.id GROUP BY 1, 2", vec![]),
        ("SELECT t.state, sum(qty) FROM sales s JOIN sites t ON s.qty > 3 GROUP BY t.state", vec![]),
        ("SELECT sum(qty) FROM sales", vec![]),
    ] {
        let (_, scope) = stores.ask(sql).await;
        assert_eq!(scope.grouped_by, expected, "{sql}");
    }
}

/// A random predicate on the columns of `sales`, or of the roster where that is at hand.
fn predicate(random: &mut StdRng, site: &str, roster: Option<&str>, depth: u32) -> String {
    if depth > 0 && random.random_bool(0.4) {
        let (left, right) = (predicate(random, site, roster, depth - 1), predicate(random, site, roster, depth - 1));
        return format!("({left} {} {right})", ["AND", "OR"].choose(random).expect("some"));
    }
    let number = random.random_range(0..SITES);
    let state = STATES.choose(random).expect("some");
    let mut choices = vec![
        format!("{site}._site = 'site-{number}'"),
        format!("{site}._site <> 'site-{number}'"),
        format!("{site}._site LIKE '%{number}'"),
        format!("{site}._site IN ('site-{number}', 'site-1')"),
        format!("NOT ({site}._site = 'site-{number}')"),
        format!("{site}.qty > 30"),
        format!("{site}._site IN (SELECT id FROM sites WHERE state = '{state}')"),
        format!("{site}._site NOT IN (SELECT id FROM sites WHERE state = '{state}')"),
        format!("{site}._site IN (SELECT _site FROM returns WHERE qty > 90)"),
        format!("EXISTS (SELECT 1 FROM sites z WHERE z.id = {site}._site AND z.state <> '{state}')"),
        format!("NOT EXISTS (SELECT 1 FROM returns z WHERE z._site = {site}._site AND z.qty > 95)"),
        format!("{site}._site >= 'site-{number}'"),
        format!("coalesce({site}._site, 'x') < 'site-{number}'"),
    ];
    if let Some(roster) = roster {
        choices.extend([
            format!("{roster}.state = '{state}'"),
            format!("{roster}.state IS NOT NULL"),
            format!("{roster}.state IS NULL"),
            format!("{site}._site IS NULL"),
            format!("upper({roster}.city) LIKE '%E%'"),
            format!("{roster}.state = '{state}'"),
        ]);
    }
    choices.choose(random).expect("some").clone()
}

fn question(random: &mut StdRng) -> String {
    let join = *["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "JOIN"].choose(random).expect("some");
    let inner = predicate(random, "i", None, 1);
    let source = ["sales", "history.sales", "returns"].choose(random).expect("some");
    let plain = format!("(SELECT * FROM {source} i WHERE {inner})");
    let x = [(*source).to_owned(), plain].choose(random).expect("some").clone();
    match random.random_range(0..9) {
        0 => format!("SELECT count(*), sum(x.qty) FROM {x} x WHERE {}", predicate(random, "x", None, 2)),
        1 | 2 => format!(
            "SELECT t.state, count(*), sum(x.qty) FROM {x} x {join} sites t ON x._site = t.id WHERE {} GROUP BY t.state",
            predicate(random, "x", Some("t"), 2)
        ),
        3 => format!(
            "SELECT t.state, count(x.qty) FROM sites t {join} {x} x ON x._site = t.id AND {} WHERE {} GROUP BY 1",
            predicate(random, "x", Some("t"), 1),
            predicate(random, "x", Some("t"), 1)
        ),
        4 => format!(
            "SELECT count(*), sum(x.qty), sum(y.qty) FROM {x} x {join} returns y ON x._site = y._site AND x.id = y.id WHERE {}",
            predicate(random, "x", None, 2)
        ),
        5 => format!(
            "SELECT x._site, x.q FROM (SELECT _site, sum(qty) AS q, max(qty) AS qty FROM {x} x GROUP BY _site) x {join} sites t \
             ON x._site = t.id WHERE {}",
            predicate(random, "x", Some("t"), 1)
        ),
        6 => format!(
            "SELECT count(*), sum(x.qty) FROM (SELECT * FROM sales WHERE {} UNION ALL SELECT * FROM returns) x WHERE {}",
            predicate(random, "sales", None, 1),
            predicate(random, "x", None, 1)
        ),
        7 => format!(
            "SELECT x._site, x.r FROM (SELECT _site, qty, rank() OVER (ORDER BY qty, _site, id) AS r FROM {x} x) x WHERE {} AND r < 9",
            predicate(random, "x", None, 1)
        ),
        _ => format!(
            "SELECT x._site, x.qty FROM (SELECT * FROM {x} x ORDER BY qty, _site, id LIMIT 7) x {join} sites t ON x._site = t.id \
             WHERE {}",
            predicate(random, "x", Some("t"), 1)
        ),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_site_outside_the_scope_can_change_an_answer() {
    // Method: random questions; for every site that is not in the scope of an answer, a world in
    // which only that site's rows differ must give the same answer.
    let seed = std::env::var("ROLLCALL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("seed {seed} (set ROLLCALL_SEED for another)");
    let mut random = StdRng::seed_from_u64(seed);
    let base = stores(None).await;
    let mut others = Vec::new();
    for number in 0..SITES {
        others.push(stores(Some(number)).await);
    }
    let (mut narrowed, mut changed, mut refused) = (0, 0, 0);
    let questions = std::env::var("ROLLCALL_QUESTIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    for _ in 0..questions {
        let sql = question(&mut random);
        let Ok((answer, scope)) = base.try_ask(&sql).await else {
            // Subqueries in some places cannot be planned.
            refused += 1;
            continue;
        };
        for number in 0..SITES {
            let (other, _) = others[number as usize].ask(&sql).await;
            if about(&scope, number) {
                changed += usize::from(other != answer);
            } else {
                narrowed += 1;
                assert_eq!(other, answer, "site-{number} is not in the scope {} of {sql}", sites_of(&scope));
            }
        }
    }
    println!("{narrowed} times a site was out of scope; {changed} times one in scope changed the answer");
    assert!(
        narrowed > questions / 2 && changed > questions && refused < questions / 4,
        "{narrowed} {changed} {refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sees_only_some_sites_learns_nothing_of_others() {
    let stores = stores(None).await;
    let only = Some(Arc::new(HashSet::from([site(0).to_string(), site(1).to_string()])));
    let ask = async |sql: &str| {
        stores.ask_seeing(sql, only.clone()).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).0
    };
    for table in ["sales", "history.sales"] {
        let seen = ask(&format!("SELECT DISTINCT _site FROM {table}")).await;
        assert_eq!(seen, "_site\nsite-0\nsite-1");
        let right = stores.ask(&format!("SELECT count(*), sum(qty) FROM {table} WHERE _site < 'site-2'")).await.0;
        assert_eq!(ask(&format!("SELECT count(*), sum(qty) FROM {table}")).await, right);
        assert_eq!(ask(&format!("SELECT count(*) AS n FROM {table} WHERE _site = 'site-3'")).await, "n\n0");
        // A quantity that only others have: a question that fails on it must not fail here.
        let (others, _) = stores.ask(&format!("SELECT qty FROM {table} WHERE _site > 'site-1' AND qty NOT IN (SELECT qty FROM {table} WHERE _site < 'site-2')")).await;
        let quantity = others.lines().nth(1).expect("some");
        for probe in [
            format!("SELECT count(*) FROM {table} WHERE 100 / (qty - {quantity}) > 1000"),
            format!("SELECT sum(100 / (qty - {quantity})) FROM {table}"),
        ] {
            assert!(stores.try_ask(&probe).await.is_err(), "{probe} must fail for who sees all");
            ask(&probe).await;
        }
    }
    let (_, scope) = stores
        .ask_seeing("SELECT sum(qty) FROM sales WHERE sold_at < '2026-01-10' AND _site = 'site-1'", only.clone())
        .await
        .expect("answers");
    assert_eq!(
        (sites_of(&scope).as_str(), scope.scans[0].until.is_some()),
        ("1", true),
        "filters are seen above the barrier, too"
    );
}
