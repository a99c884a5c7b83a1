//! The meaning of SQL over current rows, history and scope, written down in `tests/sql/*.slt`.
//!
//! Besides SQL, the files say what arrives: `SENT table site epoch: change; change…`, where a
//! change is an operation and the row's values (`NULL` for none), or `BEGIN` and `COMPLETE` for a
//! load's marks; and `COMPACT`. `SCOPE OF question` answers with the sites that a question is
//! about, one line for each table it reads.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
    util::display::{ArrayFormatter, FormatOptions},
};
use rollcall_lake::{CompactionLimits, Lake, LakeOptions, Lives, MarkKind, PartMark};
use rollcall_query::{Answer, Cover, Engine, EngineLimits, Extras, MakeTable, Scope};
use rollcall_types::{Coverage, Seq, SiteId, TableName};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};

use crate::journal::{Change, Declared, Sent, append, number, site};

const TABLES: [Declared; 2] = [
    Declared {
        name: "sales",
        columns: &[
            ("id", "INTEGER"),
            ("sku", "TEXT"),
            ("qty", "INTEGER"),
            ("price", "DECIMAL(10,2)"),
            ("sold_at", "DATETIME"),
        ],
    },
    Declared { name: "items", columns: &[("sku", "TEXT"), ("stock", "INTEGER")] },
];
const SITES: [(&str, &str); 4] = [("WA", "Seattle"), ("WA", "Tacoma"), ("OR", "Salem"), ("CA", "Fresno")];

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Wrong(String);

fn wrong(error: impl std::fmt::Display) -> Wrong {
    Wrong(error.to_string())
}

/// Remembers the scope it was asked about.
#[derive(Debug, Default)]
struct Asked(Mutex<Scope>);

impl Cover for Asked {
    fn sites(&self) -> Arc<Vec<SiteId>> {
        Arc::new((0..SITES.len() as u32).map(site).collect())
    }

    fn event_time(&self, table: &TableName) -> Option<String> {
        (table.as_str() == "sales").then(|| "sold_at".to_owned())
    }

    fn coverage(&self, scope: &Scope) -> Coverage {
        *self.0.lock().expect("not poisoned") = scope.clone();
        Coverage::default()
    }
}

fn roster() -> RecordBatch {
    let ids = (0..SITES.len() as u32).map(|number| Some(site(number).to_string()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids.collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(SITES.map(|(state, _)| state))),
        Arc::new(StringArray::from_iter_values(SITES.map(|(_, city)| city))),
    ];
    let schema = Schema::new(["id", "state", "city"].map(|name| Field::new(name, DataType::Utf8, true)).to_vec());
    RecordBatch::try_new(Arc::new(schema), columns).expect("columns match")
}

/// The last position of a journal, and that of each table in it.
type Heads = (u64, HashMap<&'static str, u64>);

struct Hq {
    lake: Arc<Lake>,
    engine: Engine,
    /// By site and epoch.
    heads: HashMap<(u32, u32), Heads>,
    /// Where the load under way began.
    load: u64,
    _directory: tempfile::TempDir,
}

impl Hq {
    async fn new() -> Result<Self, Wrong> {
        let directory = tempfile::tempdir().map_err(wrong)?;
        let lake = Arc::new(Lake::open_directory(directory.path(), LakeOptions::default()).await.map_err(wrong)?);
        let engine = Engine::new(lake.clone(), EngineLimits::default()).map_err(wrong)?;
        Ok(Self { lake, engine, heads: HashMap::new(), load: 0, _directory: directory })
    }

    /// `table site epoch: change; change…`
    async fn take(&mut self, text: &str) -> Option<()> {
        let (head, changes) = text.split_once(':')?;
        let [table, of_site, epoch] = head.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        let table = *TABLES.iter().find(|known| known.name == table)?;
        let (number, epoch) = (of_site.strip_prefix("site-")?.parse().ok()?, epoch.parse().ok()?);
        let (seq, of_tables) = self.heads.entry((number, epoch)).or_default();
        let previous = of_tables.get(table.name).copied().unwrap_or(0);
        let (mut rows, mut marks): (Vec<Change>, Vec<PartMark>) = (Vec::new(), Vec::new());
        for change in changes.split(';') {
            *seq += 1;
            let mut words = change.split_whitespace();
            let mark = match words.next()? {
                "BEGIN" => {
                    self.load = *seq;
                    MarkKind::LoadBegun
                }
                "COMPLETE" => MarkKind::LoadComplete,
                op => {
                    let values = words.map(|word| (word != "NULL").then(|| word.replace('T', " ")));
                    rows.push((*seq, op.chars().next()?, values.collect()));
                    continue;
                }
            };
            marks.push(PartMark { kind: mark, seq: Seq(*seq), begin: Seq(self.load) });
        }
        let last = *seq;
        of_tables.insert(table.name, last);
        append(&self.lake, Sent { table, site: number, epoch, previous, last, changes: &rows, marks }).await;
        Some(())
    }

    async fn compact(&self) -> Result<(), Wrong> {
        let limits = CompactionLimits {
            small_file_bytes: 1 << 20,
            files_min: 2,
            rows_max: 100_000,
            ..CompactionLimits::default()
        };
        for table in self.lake.tables().into_values() {
            let of_site = |site: &str| site.strip_prefix("site-")?.parse().ok().map(number);
            table.compact(limits, async || Ok((of_site, Lives::default()))).await.map_err(wrong)?;
        }
        Ok(())
    }

    async fn ask(&self, sql: &str) -> Result<(Answer, Scope), Wrong> {
        let (asked, make): (_, MakeTable) = (Arc::new(Asked::default()), Arc::new(roster));
        let site_ids = Arc::new((0..SITES.len() as u32).map(|place| (number(place), site(place))).collect());
        let tables = vec![("public", "sites", make)];
        let extras = Extras { site_ids, tables, cover: asked.clone(), ..Extras::default() };
        let answer = self.engine.query(sql, extras).await.map_err(|error| wrong(rollcall_types::describe(&error)))?;
        let scope = asked.0.lock().expect("not poisoned").clone();
        Ok((answer, scope))
    }
}

fn rows_of(answer: &Answer) -> Result<Vec<Vec<String>>, Wrong> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in &answer.batches {
        let columns: Result<Vec<_>, _> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options)).collect();
        let columns = columns.map_err(wrong)?;
        rows.extend((0..batch.num_rows()).map(|row| {
            let text = |column: &ArrayFormatter<'_>| match column.value(row).to_string() {
                text if text.is_empty() => "(empty)".to_owned(),
                text => text,
            };
            columns.iter().map(text).collect::<Vec<_>>()
        }));
    }
    Ok(rows)
}

fn scope_rows(scope: &Scope) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = scope
        .scans
        .iter()
        .map(|scan| {
            let sites = scan.sites.iter().enumerate().filter(|(_, is_in)| **is_in);
            let sites: Vec<String> = sites.map(|(number, _)| number.to_string()).collect();
            let until = scan.until.map_or_else(|| "now".to_owned(), |until| until.to_string());
            vec![scan.table.to_string(), format!("[{}]", sites.join(",")), until]
        })
        .collect();
    rows.sort();
    if !scope.unlisted.is_empty() {
        let ids: Vec<&str> = scope.unlisted.iter().map(String::as_str).collect();
        rows.push(vec!["unlisted".to_owned(), ids.join(","), "-".to_owned()]);
    }
    rows
}

#[async_trait::async_trait]
impl AsyncDB for Hq {
    type Error = Wrong;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Wrong> {
        let rows = if let Some(sent) = sql.strip_prefix("SENT ") {
            self.take(sent).await.ok_or_else(|| Wrong(format!("not understood: {sql}")))?;
            return Ok(DBOutput::StatementComplete(0));
        } else if sql == "COMPACT" {
            self.compact().await?;
            return Ok(DBOutput::StatementComplete(0));
        } else if let Some(question) = sql.strip_prefix("SCOPE OF ") {
            scope_rows(&self.ask(question).await?.1)
        } else {
            rows_of(&self.ask(sql).await?.0)?
        };
        let columns = rows.first().map_or(0, Vec::len);
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows })
    }

    async fn shutdown(&mut self) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_means_what_the_files_say() {
    let directory = std::path::Path::new("tests/sql");
    let mut files: Vec<_> =
        std::fs::read_dir(directory).expect("there").map(|entry| entry.expect("reads").path()).collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let mut runner = Runner::new(Hq::new);
        runner.run_file_async(&file).await.unwrap_or_else(|error| panic!("{}", error.display(false)));
    }
}
