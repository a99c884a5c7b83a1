//! Subqueries that refer to columns outside answer for each row outside what they answer with that
//! row's values written in: random ones, in every place where a subquery can stand.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::meaning::{answer, engine};

/// Rows outside: some twice, some with nulls.
const OUTSIDE: &str = "(SELECT id, floor FROM stores UNION ALL SELECT 's01', NULL UNION ALL SELECT NULL, 1 \
                       UNION ALL SELECT 's02', 2 UNION ALL SELECT NULL, NULL)";
const NULL: &str = "NULL";

/// Makes subqueries with columns `a` (bigint) and `b` (text). `{id}` and `{floor}` are from
/// outside.
struct Maker {
    random: StdRng,
    names: u32,
}

impl Maker {
    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.random.random_range(0..all.len())]
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("r{}", self.names)
    }

    /// Rows of a table, most often those of the row outside.
    fn base(&mut self) -> String {
        let key =
            self.one_of(&["x._site = {id}", "x._site = {id}", "x.qty = {floor}", "x.qty > {floor}", "x._site <> {id}"]);
        let also = self.one_of(&["", "", " AND x.qty > 1", " AND x.qty + {floor} > 3", " AND x.id <> {floor}"]);
        let key = if self.random.random_ratio(1, 8) { "x.id < 9" } else { key };
        format!("SELECT x.qty AS a, x.sku AS b FROM sales x WHERE {key}{also}")
    }

    fn rows(&mut self, depth: u32) -> String {
        if depth == 0 {
            return self.base();
        }
        let (r, below) = (self.name(), self.rows(depth - 1));
        let from = format!("FROM ({below}) {r}");
        match self.random.random_range(0..19) {
            0 => format!("SELECT {r}.a + {{floor}} AS a, {r}.b || {{id}} AS b {from}"),
            1 => format!("SELECT {r}.a, {r}.b {from} WHERE {r}.a > {{floor}} OR {r}.b IS NULL"),
            2 => format!("SELECT {r}.a, {r}.b {from} WHERE {r}.a > 1"),
            3 => format!("SELECT row_number() OVER (ORDER BY {r}.a, {r}.b) AS a, {r}.b {from}"),
            4 => format!("SELECT count(*) OVER (PARTITION BY {r}.b) AS a, {r}.b {from}"),
            5 => format!("SELECT sum({r}.a - {{floor}}) OVER (ORDER BY {r}.a, {r}.b)::bigint AS a, {r}.b {from}"),
            6 => {
                let (most, skip) = (self.random.random_range(0..4), self.one_of(&["", "", " OFFSET 1"]));
                format!("SELECT {r}.a, {r}.b {from} ORDER BY {r}.a DESC NULLS LAST, {r}.b LIMIT {most}{skip}")
            }
            7 => format!("SELECT {r}.a * 2 AS a, {r}.b {from} ORDER BY {r}.b, {r}.a OFFSET 2"),
            8 => format!("SELECT DISTINCT {r}.a, {r}.b {from}"),
            9 if depth > 1 => format!(
                "SELECT DISTINCT ON ({r}.b) {r}.n AS a, {r}.b FROM (SELECT a, b, count(*) AS n FROM ({below}) g GROUP BY a, b) {r} ORDER BY {r}.b, {r}.n, {r}.a NULLS LAST"
            ),
            9 => format!("SELECT DISTINCT ON ({r}.b) {r}.a, {r}.b {from} ORDER BY {r}.b, {r}.a DESC NULLS LAST"),
            10 => {
                let having = self.one_of(&["", " HAVING count(*) > 1", " HAVING count(*) > {floor}"]);
                format!("SELECT count({r}.a) AS a, {r}.b {from} GROUP BY {r}.b{having}")
            }
            11 => format!("SELECT sum({r}.a)::bigint AS a, max({r}.b) AS b {from} GROUP BY {r}.a % 3"),
            12 => {
                let having =
                    self.one_of(&["", "", " HAVING count(*) = 0", " HAVING count(*) < 9", " HAVING max(a) > 2"]);
                format!("SELECT count(*) AS a, min({r}.b) AS b {from}{having}")
            }
            13 => format!("SELECT sum({r}.a)::bigint + {{floor}} AS a, max({r}.b) AS b {from}"),
            14 => {
                let (all, other) = (self.one_of(&["", " ALL"]), self.rows(depth - 1));
                format!("({below}) UNION{all} ({other})")
            }
            15 => "SELECT v.a, v.b FROM (VALUES ({floor}, {id}), (2, 'x'), ({floor} * 2, NULL)) v(a, b)".to_string(),
            16 | 17 => {
                let (l, other) = (self.name(), self.rows(depth - 1));
                let kind = self.one_of(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "LEFT JOIN"]);
                let also =
                    self.one_of(&["", &format!(" AND {l}.a > {{floor}}"), &format!(" AND {r}.a < {l}.a")]).to_owned();
                format!("SELECT {l}.a, {r}.b FROM ({other}) {l} {kind} ({below}) {r} ON {l}.b = {r}.b{also}")
            }
            _ => {
                let (l, other) = (self.name(), self.base());
                let not = self.one_of(&["", "NOT "]);
                let other = if self.random.random_ratio(1, 2) {
                    other
                } else {
                    "SELECT qty AS a, sku AS b FROM sales".to_owned()
                };
                format!(
                    "SELECT {r}.a, {r}.b {from} WHERE {not}EXISTS (SELECT 1 FROM ({other}) {l} WHERE {l}.b = {r}.b AND {l}.a > {r}.a)"
                )
            }
        }
    }

    /// At most one row.
    fn row(&mut self, depth: u32) -> String {
        let (r, below) = (self.name(), self.rows(depth));
        match self.random.random_range(0..4) {
            0 => format!("SELECT {r}.a FROM ({below}) {r} ORDER BY {r}.a, {r}.b LIMIT 1"),
            1 => format!("SELECT max({r}.a) FROM ({below}) {r}"),
            2 => format!("SELECT count(*) + {{floor}} FROM ({below}) {r}"),
            _ => format!("SELECT count({r}.a) FROM ({below}) {r}"),
        }
    }
}

/// Where a subquery stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    Lateral,
    LeftLateral,
    Value,
    Compared,
    Exists(bool),
    In(bool),
    /// Beside another condition, one of which is enough.
    InOr(bool),
    NotIn,
    Compares(&'static str),
    Equals,
    /// In a lateral join whose rows are compared with the outside.
    LateralEquals,
}

impl Place {
    fn question(self, subquery: &str) -> String {
        let of = |id: &str, floor: &str| subquery.replace("{id}", id).replace("{floor}", floor);
        let within = of("o.id", "o.floor");
        match self {
            Self::Lateral => format!("SELECT o.id, o.floor, q.a, q.b FROM {OUTSIDE} o, LATERAL ({within}) q"),
            Self::LeftLateral => {
                format!("SELECT o.id, o.floor, q.a, q.b FROM {OUTSIDE} o LEFT JOIN LATERAL ({within}) q ON true")
            }
            Self::Value => format!("SELECT o.id, o.floor, ({within}) FROM {OUTSIDE} o"),
            Self::Compared => format!("SELECT o.id, o.floor FROM {OUTSIDE} o WHERE ({within}) > 2"),
            Self::Exists(is) => {
                let not = if is { "" } else { "NOT " };
                format!("SELECT o.id, o.floor FROM {OUTSIDE} o WHERE {not}EXISTS ({within})")
            }
            Self::In(is) | Self::InOr(is) => {
                let not = if is { "" } else { "NOT " };
                let or = if matches!(self, Self::InOr(_)) { " OR o.id = 's03'" } else { "" };
                format!(
                    "SELECT o.id, o.floor FROM {OUTSIDE} o WHERE o.floor {not}IN (SELECT q.a FROM ({within}) q){or}"
                )
            }
            Self::NotIn => {
                format!(
                    "SELECT o.id, o.floor FROM {OUTSIDE} o WHERE NOT (o.floor IN (SELECT q.a FROM ({within}) q) AND o.id < 's09')"
                )
            }
            Self::Equals => format!("SELECT o.id, o.floor FROM {OUTSIDE} o WHERE o.floor = ({within})"),
            Self::LateralEquals => {
                format!("SELECT o.id, o.floor, q.b FROM {OUTSIDE} o, LATERAL ({within}) q WHERE q.a = o.floor")
            }
            Self::Compares(how) => {
                format!("SELECT o.id, o.floor FROM {OUTSIDE} o WHERE o.floor {how} (SELECT q.a FROM ({within}) q)")
            }
        }
    }

    /// What a row outside, for which the subquery has these rows, gives.
    fn rows(self, outside: &[String], rows: &[Vec<String>]) -> Vec<Vec<String>> {
        let with = |more: &[String]| outside.iter().chain(more).cloned().collect::<Vec<_>>();
        let nulls = || vec![NULL.to_owned(); 2];
        let value = || rows.first().map_or(NULL, |row| row[0].as_str());
        let kept = |is_kept: bool| if is_kept { vec![with(&[])] } else { Vec::new() };
        match self {
            Self::LeftLateral if rows.is_empty() => vec![with(&nulls())],
            Self::Lateral | Self::LeftLateral => rows.iter().map(|row| with(row)).collect(),
            Self::Value => vec![with(&[value().to_owned()])],
            Self::Compared => kept(value().parse::<i64>().is_ok_and(|value| value > 2)),
            Self::Equals => kept(value() != NULL && value() == outside[1]),
            Self::LateralEquals => {
                let same = rows.iter().filter(|row| row[0] != NULL && row[0] == outside[1]);
                same.map(|row| with(&row[1..])).collect()
            }
            Self::Exists(is) => kept(is != rows.is_empty()),
            Self::In(is) => kept(Some(is) == is_in(&outside[1], rows)),
            Self::InOr(is) => kept(Some(is) == is_in(&outside[1], rows) || outside[0] == "s03"),
            // Without an id it is not known whether that is less.
            Self::NotIn => kept(is_in(&outside[1], rows) == Some(false)),
            Self::Compares(how) => {
                let number = |text: &str| text.parse::<i64>().ok();
                let one = |row: &Vec<String>| {
                    let (ours, theirs) = (number(&outside[1])?, number(&row[0])?);
                    Some(match how.split_once(' ').map(|(sign, _)| sign) {
                        Some("=") => ours == theirs,
                        Some("<>") => ours != theirs,
                        _ => ours > theirs,
                    })
                };
                let found: Vec<Option<bool>> = rows.iter().map(one).collect();
                kept(match how.ends_with("ALL") {
                    true => found.iter().all(|found| *found == Some(true)),
                    false => found.contains(&Some(true)),
                })
            }
        }
    }
}

/// Whether a value is among the first ones of the rows; none if that is not known.
fn is_in(value: &str, rows: &[Vec<String>]) -> Option<bool> {
    if value != NULL && rows.iter().any(|row| row[0] == value) {
        return Some(true);
    }
    let is_open = !rows.is_empty() && (value == NULL || rows.iter().any(|row| row[0] == NULL));
    if is_open { None } else { Some(false) }
}

fn literal(value: &str, kind: &str) -> String {
    if value == NULL { format!("NULL::{kind}") } else { format!("'{value}'::{kind}") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subquery_answers_for_each_row_outside() {
    let (engine, extras, _directory) = engine().await;
    let outside = answer(&engine, &format!("SELECT * FROM {OUTSIDE} o"), extras.clone()).await.expect("answers");
    let many = std::env::var("ROLLCALL_CORRELATED").ok().and_then(|many| many.parse().ok()).unwrap_or(150_u64);
    let (mut answered, mut errors, mut wrong) = (0_u32, BTreeMap::<String, (u32, String)>::new(), Vec::new());
    let mut asked = 0_u32;
    'questions: for seed in 0..many {
        let mut maker = Maker { random: StdRng::seed_from_u64(seed), names: 0 };
        let places = [
            Place::Lateral,
            Place::LeftLateral,
            Place::Value,
            Place::Compared,
            Place::Exists(true),
            Place::Exists(false),
            Place::In(true),
            Place::In(false),
            Place::InOr(true),
            Place::InOr(false),
            Place::NotIn,
            Place::Equals,
            Place::LateralEquals,
            Place::Compares("= ANY"),
            Place::Compares("<> ALL"),
            Place::Compares("> ALL"),
            Place::Compares("> ANY"),
        ];
        let place = places[maker.random.random_range(0..places.len())];
        let depth = maker.random.random_range(0..4);
        let subquery = match place {
            Place::Value | Place::Compared | Place::Equals => maker.row(depth),
            _ => maker.rows(depth),
        };
        let mut theirs = Vec::new();
        for row in &outside {
            let alone =
                subquery.replace("{id}", &literal(&row[0], "text")).replace("{floor}", &literal(&row[1], "bigint"));
            match answer(&engine, &alone, extras.clone()).await {
                Ok(rows) => theirs.extend(place.rows(row, &rows)),
                // Nor can it be answered by itself.
                Err(_) => continue 'questions,
            }
        }
        asked += 1;
        let question = place.question(&subquery);
        let mut ours = match answer(&engine, &question, extras.clone()).await {
            Ok(rows) => rows,
            Err(error) => {
                errors.entry(error).or_insert((0, question)).0 += 1;
                continue 'questions;
            }
        };
        answered += 1;
        ours.sort();
        theirs.sort();
        if ours != theirs {
            wrong.push(format!("{seed} {question}\n  right {theirs:?}\n  ours  {ours:?}"));
        }
    }
    for (error, (count, question)) in &errors {
        println!("{count} refused: {error}\n    {question}");
    }
    println!("{answered} of {asked} answered, {} of them wrongly", wrong.len());
    assert!(wrong.is_empty(), "{} of {answered} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(u64::from(asked) * 10 >= many * 9 && answered * 10 >= asked * 9, "{answered} of {asked} of {many}");
}
