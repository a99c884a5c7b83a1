//! What clients ask about the server itself: answered as PostgreSQL would, and never in a way that
//! ends a connection.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use futures::TryStreamExt;
use rollcall_lake::{Lake, LakeOptions};
use rollcall_query::{
    Engine, EngineLimits, Extras, Literal, QueryError, Question, System, bind,
    datafusion::sql::sqlparser::{dialect::PostgreSqlDialect, parser::Parser},
};
use rollcall_types::TableName;

use crate::journal::{Change, Declared, Sent, append};

const SALES: Declared = Declared {
    name: "sales",
    columns: &[
        ("id", "INTEGER"),
        ("sku", "TEXT"),
        ("qty", "INTEGER"),
        ("price", "DECIMAL(10,2)"),
        ("sold_at", "DATETIME"),
    ],
};
/// Its key is the first two columns.
const STOCK: Declared =
    Declared { name: "stock", columns: &[("sku", "TEXT"), ("shelf", "INTEGER"), ("left", "INTEGER")] };
/// Its names need quotes.
const LINES: Declared = Declared { name: "order-lines", columns: &[("order", "INTEGER"), ("group", "TEXT")] };
/// It has no key.
const NOTES: Declared = Declared { name: "notes", columns: &[("note", "TEXT")] };

/// An HQ with tables of every kind of key, as one client sees it.
pub(crate) struct Client {
    engine: Engine,
    system: System,
    _directory: tempfile::TempDir,
}

pub(crate) type Row = Vec<Option<String>>;

impl Client {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let lake = Lake::open_directory(directory.path(), LakeOptions::default()).await.expect("opens");
        let lake = Arc::new(lake);
        for (table, key) in [(SALES, 1), (STOCK, 2), (LINES, 1), (NOTES, 0)] {
            let name = TableName::new(table.name).expect("valid");
            let key: Vec<String> = table.columns.iter().take(key).map(|(column, _)| (*column).to_owned()).collect();
            lake.table_or_create(&name, &key).await.expect("creates");
            let values = table.columns.iter().map(|(_, kind)| match *kind {
                "DATETIME" => Some("2026-11-20 10:00:00".to_owned()),
                _ => Some("1".to_owned()),
            });
            let changes: Vec<Change> = vec![(1, 'I', values.collect())];
            let sent = Sent { table, site: 0, epoch: 1, previous: 0, last: 1, changes: &changes, marks: Vec::new() };
            append(&lake, sent).await;
        }
        let engine = Engine::new(lake, EngineLimits::default()).expect("starts");
        let system = engine.system().expect("starts");
        Self { engine, system, _directory: directory }
    }

    fn extras(&self) -> Extras {
        Extras { system: Some(self.system.clone()), user: Some("ann".to_owned()), ..Extras::default() }
    }

    /// What the PostgreSQL port does with one statement.
    pub(crate) async fn ask(
        &self,
        sql: &str,
        parameters: Option<&[Parameter]>,
    ) -> Result<(Vec<String>, Vec<Row>), QueryError> {
        let statements =
            Parser::parse_sql(&PostgreSqlDialect {}, sql).map_err(|error| QueryError::Sql(error.to_string()))?;
        let [statement] = statements.as_slice() else { panic!("one statement: {sql}") };
        // Who prepares a statement is told its columns first.
        let told: Vec<Option<String>> = parameters.iter().flat_map(|all| all.iter().map(|one| one.1.clone())).collect();
        let told: Vec<Option<String>> = match parameters {
            // An array's type is told as one.
            Some([(Literal::Array(_), Some(kind))]) => vec![Some(format!("{kind}[]"))],
            _ => told,
        };
        self.engine.describe(statement, &told, self.extras()).await?;
        let bound = bind(statement, parameters.unwrap_or_default())?;
        let planned = self.engine.plan(Question::Statement(Box::new(bound)), self.extras()).await?;
        let stream = planned.stream().await?;
        let names = stream.schema().fields().iter().map(|field| field.name().clone()).collect();
        let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(QueryError::Failed)?;
        Ok((names, batches.iter().flat_map(texts).collect()))
    }

    pub(crate) async fn rows(&self, sql: &str) -> Vec<Row> {
        self.ask(sql, None).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")).1
    }
}

fn texts(batch: &RecordBatch) -> Vec<Row> {
    let options = FormatOptions::default();
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| (column, ArrayFormatter::try_new(column.as_ref(), &options).expect("a format")))
        .collect();
    let value = |row: usize| {
        columns
            .iter()
            .map(|(column, texts)| {
                (!column.is_null(row) && !column.data_type().is_null()).then(|| texts.value(row).to_string())
            })
            .collect()
    };
    (0..batch.num_rows()).map(value).collect()
}

/// One row, as a line.
pub(crate) fn line(row: &Row) -> String {
    row.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join("|")
}

pub(crate) fn lines(rows: &[Row]) -> Vec<String> {
    rows.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_about_the_server_can_be_read_whole() {
    let client = Client::new().await;
    let (_, tables) = client
        .ask(
            "SELECT table_schema, table_name FROM information_schema.tables \
             WHERE table_schema IN ('pg_catalog', 'information_schema')",
            None,
        )
        .await
        .expect("answers");
    let mut named: Vec<String> = tables.iter().map(|row| line(row).replace('|', ".")).collect();
    let own =
        ["table_constraints", "key_column_usage", "constraint_column_usage", "columns", "tables", "schemata", "views"];
    named.extend(own.map(|table| format!("information_schema.{table}")));
    named.extend(
        ["pg_class", "pg_attribute", "pg_index", "pg_constraint", "pg_type", "pg_namespace"].map(str::to_owned),
    );
    assert!(named.len() > 12, "{named:?}");
    for table in named {
        client.rows(&format!("SELECT * FROM {table}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_told_with_each_of_their_columns() {
    let client = Client::new().await;
    let rows = client
        .rows(
            "SELECT constraint_name, table_name, column_name, ordinal_position \
             FROM information_schema.key_column_usage ORDER BY 2, 4",
        )
        .await;
    assert_eq!(
        lines(&rows),
        [
            "order-lines_pkey|order-lines|_site|1",
            "order-lines_pkey|order-lines|order|2",
            "sales_pkey|sales|_site|1",
            "sales_pkey|sales|id|2",
            "stock_pkey|stock|_site|1",
            "stock_pkey|stock|sku|2",
            "stock_pkey|stock|shelf|3",
        ]
    );
    let rows =
        client.rows("SELECT table_name, constraint_type FROM information_schema.table_constraints ORDER BY 1").await;
    assert_eq!(lines(&rows), ["order-lines|PRIMARY KEY", "sales|PRIMARY KEY", "stock|PRIMARY KEY"]);
}

/// One question of a file in `tests/catalogue`: the command or method that asks it, and its
/// parameters if it has any.
struct Asked {
    origin: String,
    parameters: Option<Vec<Parameter>>,
    sql: String,
}

/// A value and the name of its type.
pub(crate) type Parameter = (Literal, Option<String>);

fn number(word: &str) -> Literal {
    Literal::Text(word.to_owned())
}

/// `kind value…`
fn parameters(line: &str) -> Vec<Parameter> {
    let mut words = line.split_whitespace();
    let kind = words.next().expect("a kind");
    let integer = Some("INTEGER".to_owned());
    match kind {
        "oid" => words.map(|word| (number(word), integer.clone())).collect(),
        "oids" => vec![(Literal::Array(words.map(number).collect()), integer)],
        "texts" => words.map(|word| (number(word), Some("TEXT".to_owned()))).collect(),
        _ => panic!("no such kind of parameter: {kind}"),
    }
}

fn questions(file: &str) -> Vec<Asked> {
    let path = format!("tests/catalogue/{file}.sql");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let of_file = text.split("\n-- @ ").skip(1).map(|block| {
        let (origin, rest) = block.split_once('\n').expect("a question");
        let (given, sql) = match rest.strip_prefix("-- $ ") {
            Some(rest) => rest.split_once('\n').map(|(line, sql)| (Some(parameters(line)), sql)).expect("a question"),
            None => (None, rest),
        };
        let sql = sql.trim().trim_end_matches(';').trim_end().to_owned();
        Asked { origin: format!("{file}: {origin}"), parameters: given, sql }
    });
    of_file.collect()
}

impl Client {
    /// The question with the numbers of the tables that it names.
    async fn numbered(&self, sql: &str) -> String {
        let mut sql = sql.to_owned();
        while let Some((before, rest)) = sql.split_once(":oid(") {
            let (name, after) = rest.split_once(')').expect("a name");
            let rows =
                self.rows(&format!("SELECT oid FROM pg_class WHERE relname = '{name}' AND relnamespace = 2200")).await;
            let number = rows.first().and_then(|row| row[0].clone()).unwrap_or_else(|| panic!("no {name}"));
            sql = format!("{before}{number}{after}");
        }
        sql
    }

    async fn asked(&self, asked: &Asked) -> Result<Vec<Row>, QueryError> {
        let sql = self.numbered(&asked.sql).await;
        Ok(self.ask(&sql, asked.parameters.as_deref()).await?.1)
    }

    /// The answer to the first question of this origin.
    async fn answer(&self, file: &str, origin: &str) -> Vec<String> {
        let asked = questions(file).into_iter().find(|asked| asked.origin == format!("{file}: {origin}"));
        let asked = asked.unwrap_or_else(|| panic!("{file} has no {origin}"));
        lines(&self.asked(&asked).await.unwrap_or_else(|error| panic!("{}: {error:?}", asked.origin)))
    }
}

const FILES: [&str; 8] = ["sqlalchemy", "psql", "pgjdbc", "npgsql", "asyncpg", "psqlodbc", "drivers", "tools"];

/// What is refused with an error, for now. Not among the files: psql's `\dd`, which asks by
/// `tableoid` what kind of thing a comment is on, and pgjdbc's list of user-defined types, which is
/// as long as PostgreSQL's list of types.
const UNANSWERED: [&str; 0] = [];

#[tokio::test(flavor = "multi_thread")]
async fn the_questions_of_drivers_and_tools_are_answered() {
    let client = Client::new().await;
    let mut failed = Vec::new();
    for asked in FILES.into_iter().flat_map(questions) {
        let answer = client.asked(&asked).await;
        if answer.is_err() != UNANSWERED.contains(&asked.origin.as_str()) {
            let start: String = asked.sql.chars().take(120).collect();
            let error = answer.err().map(|error| format!("{error:?}"));
            failed.push(format!("{}\n  {start}\n  {error:?}", asked.origin));
        }
    }
    assert!(failed.is_empty(), "{} questions:\n{}", failed.len(), failed.join("\n"));
}

/// The columns of the table `sales`, as lines of name, type and whether it must have a value.
const SALES_COLUMNS: [&str; 5] =
    ["_site|text|true", "id|bigint|true", "sku|text|false", "qty|bigint|false", "price|numeric(10,2)|false"];

#[tokio::test(flavor = "multi_thread")]
async fn sqlalchemy_is_told_columns_keys_and_no_other_indexes() {
    let client = Client::new().await;
    let columns = client.answer("sqlalchemy", "get_columns").await;
    let short: Vec<String> = columns
        .iter()
        .map(|line| {
            let of_line: Vec<&str> = line.split('|').collect();
            format!("{}|{}|{}", of_line[0], of_line[1], of_line[3])
        })
        .collect();
    for expected in SALES_COLUMNS {
        assert!(short.iter().any(|line| line == expected), "{expected}: {short:?}");
    }
    let key = client.answer("sqlalchemy", "get_pk_constraint").await;
    assert_eq!(key.len(), 1, "{key:?}");
    assert!(key[0].contains("|[_site, id]|sales_pkey|"), "{key:?}");
    // One line for the table, which has none.
    let foreign = client.answer("sqlalchemy", "get_foreign_keys").await;
    assert_eq!(foreign, ["sales|NULL|NULL|NULL|NULL"]);
    assert_eq!(client.answer("sqlalchemy", "get_indexes").await, [""; 0]);
    let tables = client.answer("sqlalchemy", "get_table_names").await;
    let mut tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    tables.sort_unstable();
    assert_eq!(tables, ["notes", "order-lines", "sales", "stock"], "tables of other schemas are not in sight");
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_describes_a_table_with_its_key() {
    let client = Client::new().await;
    let columns = client.answer("psql", "\\d sales: columns").await;
    assert!(columns.iter().any(|line| line.starts_with("price|numeric(10,2)|NULL|false|")), "{columns:?}");
    assert!(columns.iter().any(|line| line.starts_with("id|bigint|NULL|true|")), "{columns:?}");
    let indexes = client.answer("psql", "\\d sales: indexes").await;
    let definition = "CREATE UNIQUE INDEX sales_pkey ON public.sales USING btree (_site, id)";
    let expected =
        format!("sales_pkey|true|true|false|true|{definition}|PRIMARY KEY (_site, id)|p|false|false|false|0");
    assert_eq!(indexes, [expected]);
    let schemas = client.answer("psql", "\\dn").await;
    assert_eq!(schemas, ["history|hq", "public|hq", "rollcall|hq"]);
    let tables = client.answer("psql", "\\dt").await;
    assert_eq!(
        tables,
        ["public|notes|table|hq", "public|order-lines|table|hq", "public|sales|table|hq", "public|stock|table|hq"]
    );
    let indexes = client.answer("psql", "\\di").await;
    assert_eq!(
        indexes,
        [
            "public|order-lines_pkey|index|hq|order-lines",
            "public|sales_pkey|index|hq|sales",
            "public|stock_pkey|index|hq|stock"
        ]
    );
    let roles = client.answer("psql", "\\du").await;
    assert!(roles.iter().any(|line| line.starts_with("ann|false|")), "{roles:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jdbc_is_told_the_key_and_its_index() {
    let client = Client::new().await;
    assert_eq!(
        client.answer("pgjdbc", "getPrimaryKeys").await,
        ["NULL|public|sales|_site|1|sales_pkey", "NULL|public|sales|id|2|sales_pkey"]
    );
    let indexes = client.answer("pgjdbc", "getIndexInfo").await;
    assert_eq!(
        indexes,
        [
            "NULL|public|sales|false|NULL|sales_pkey|3|1|_site|A|-1.0|0|NULL",
            "NULL|public|sales|false|NULL|sales_pkey|3|2|id|A|-1.0|0|NULL"
        ]
    );
    let best = client.answer("pgjdbc", "getBestRowIdentifier").await;
    assert_eq!(best, ["id|20|-1", "_site|25|-1"], "by their places in the table");
    let columns = client.answer("pgjdbc", "getColumns").await;
    assert!(columns.iter().any(|line| line.starts_with("public|sales|price|1700|false|655366|-1|")), "{columns:?}");
    let tables = client.answer("pgjdbc", "getTables").await;
    assert_eq!(tables.len(), 4, "{tables:?}");
    assert!(tables[2].starts_with("NULL|public|sales|TABLE|"), "{tables:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn npgsql_is_told_its_types() {
    let client = Client::new().await;
    let types = client.answer("npgsql", "types, enumerations, ranges and arrays").await;
    // As PostgreSQL 16 answers.
    for expected in [
        "pg_catalog|23|int4|b|false|NULL",
        "pg_catalog|25|text|b|false|NULL",
        "pg_catalog|1184|timestamptz|b|false|NULL",
        "pg_catalog|1700|numeric|b|false|NULL",
        "pg_catalog|1007|_int4|a|false|23",
        "pg_catalog|1009|_text|a|false|25",
        "pg_catalog|3904|int4range|r|false|23",
        "pg_catalog|4451|int4multirange|m|false|3904",
        "pg_catalog|2249|record|p|false|NULL",
    ] {
        assert!(types.iter().any(|line| line == expected), "{expected}: {types:?}");
    }
    let keys = client.answer("npgsql", "Power Query: primary keys").await;
    assert_eq!(keys, ["public_sales_pkey|_site|1|Y", "public_sales_pkey|id|2|Y"]);
    assert_eq!(client.answer("npgsql", "Power Query: foreign keys").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn odbc_is_told_keys_and_statistics() {
    let client = Client::new().await;
    let key = client.answer("psqlodbc", "SQLPrimaryKeys").await;
    assert_eq!(key, ["_site|1|sales_pkey|public|sales", "id|2|sales_pkey|public|sales"]);
    let statistics = client.answer("psqlodbc", "SQLStatistics").await;
    assert_eq!(statistics.len(), 1, "{statistics:?}");
    assert!(
        statistics[0].starts_with("sales_pkey|7 1|") && statistics[0].contains("|true|false|btree|"),
        "{statistics:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_drivers_are_told_types_and_keys() {
    let client = Client::new().await;
    let types = client.answer("asyncpg", "types with what they are made of").await;
    assert!(types.iter().any(|line| line.starts_with("1009|pg_catalog|_text|b|NULL|25|,|NULL|")), "{types:?}");
    assert_eq!(client.answer("asyncpg", "a type by its name").await, ["23|0|b"]);
    assert_eq!(client.answer("drivers", "psycopg 3: a type by its name").await, ["int4|23|1007|integer|,"]);
    assert_eq!(client.answer("drivers", "Rails: the primary key").await, ["_site", "id"]);
    assert_eq!(
        client
            .answer("tools", "Hasura and others: tables with the columns of their keys")
            .await
            .first()
            .map(String::as_str),
        Some("public|order-lines|order-lines_pkey|1|_site")
    );
    let columns = client.answer("tools", "Metabase: columns").await;
    assert!(columns.iter().any(|line| line.contains("|sales|true|")), "{columns:?}");
    assert_eq!(client.answer("tools", "pgcli: schemas").await.len(), 5);
}
