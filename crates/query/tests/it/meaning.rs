//! Questions with PostgreSQL's answers, in `tests/meaning/*.txt`: the engine's are the same, or an
//! error that says so.
//!
//! A line is a question, a tab and what PostgreSQL 15 answered: rows between ` ; `, values between
//! ` , `, or `ERROR`. It begins with `~` where the answer has quotients, of which there are at
//! least as many digits here; and with `!` where there is an error here although PostgreSQL
//! answers.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    compute::concat_batches,
    datatypes::{DataType, Field, Schema},
};
use rollcall_lake::{Lake, LakeOptions};
use rollcall_query::{Engine, EngineLimits, Extras, MakeTable, texts};

/// A table of texts, from a file whose first line has names and types.
fn as_texts(file: &str) -> (String, RecordBatch) {
    let mut lines = file.lines();
    let head: Vec<(&str, &str)> =
        lines.next().expect("a head").split('\t').map(|column| column.split_once(' ').expect("a type")).collect();
    let rows: Vec<Vec<Option<String>>> = lines
        .map(|line| {
            let value = |text: &str| (text != "\\N").then(|| unescaped(text));
            line.split('\t').map(value).collect()
        })
        .collect();
    let columns: Vec<ArrayRef> = (0..head.len())
        .map(|place| Arc::new(rows.iter().map(|row| row[place].clone()).collect::<StringArray>()) as ArrayRef)
        .collect();
    let fields: Vec<Field> = head.iter().map(|(name, _)| Field::new(*name, DataType::Utf8, true)).collect();
    let typed: Vec<String> = head.iter().map(|(name, kind)| format!("\"{name}\"::{kind} AS \"{name}\"")).collect();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns match");
    (format!("SELECT {} FROM texts", typed.join(", ")), batch)
}

fn unescaped(text: &str) -> String {
    text.replace("\\\\", "\0").replace("\\t", "\t").replace("\\n", "\n").replace("\\r", "\r").replace('\0', "\\")
}

/// An engine over an empty lake, and tables that go with its questions.
pub(crate) async fn engine() -> (Engine, Extras, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let lake = Arc::new(Lake::open_directory(directory.path(), LakeOptions::default()).await.expect("opens"));
    let engine = Engine::new(lake, EngineLimits::default()).expect("starts");
    let extras = extras(&engine).await;
    (engine, extras, directory)
}

async fn extras(engine: &Engine) -> Extras {
    let mut tables: Vec<(&'static str, &'static str, MakeTable)> = Vec::new();
    for name in ["kinds", "sales", "stores"] {
        let file = std::fs::read_to_string(format!("tests/meaning/{name}.tsv")).expect("reads");
        let (typed, batch) = as_texts(&file);
        let make: MakeTable = Arc::new(move || batch.clone());
        let of_texts = Extras { tables: vec![("public", "texts", make)], ..Extras::default() };
        let answer = engine.query(&typed, of_texts).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let rows = concat_batches(&answer.schema, &answer.batches).expect("one schema");
        tables.push(("public", name, Arc::new(move || rows.clone())));
    }
    Extras { tables, ..Extras::default() }
}

pub(crate) async fn answer(engine: &Engine, question: &str, extras: Extras) -> Result<Vec<Vec<String>>, String> {
    let answer = engine.query(question, extras).await.map_err(|error| rollcall_types::describe(&error))?;
    let mut rows = Vec::new();
    for batch in &answer.batches {
        let of_batch = texts(batch, None).map_err(|error| error.to_string())?;
        rows.extend(
            of_batch
                .into_iter()
                .map(|row| row.into_iter().map(|value| value.unwrap_or_else(|| "NULL".to_owned())).collect::<Vec<_>>()),
        );
    }
    Ok(rows)
}

/// Rounds a number's text to so many digits behind the point, halves away from zero.
fn rounded(text: &str, digits: usize) -> Option<String> {
    let (sign, bare) = text.strip_prefix('-').map_or(("", text), |bare| ("-", bare));
    let (whole, part) = bare.split_once('.').unwrap_or((bare, ""));
    if !whole.bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit()) || part.len() < digits {
        return None;
    }
    let mut kept: Vec<u8> = format!("0{whole}{}", &part[..digits]).into_bytes();
    if part.as_bytes().get(digits).is_some_and(|digit| *digit >= b'5') {
        let last = kept.iter().rposition(|digit| *digit != b'9')?;
        kept[last] += 1;
        kept[last + 1..].fill(b'0');
    }
    let all = String::from_utf8(kept).ok()?;
    let (whole, part) = all.split_at(all.len() - digits);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let is_zero = whole == "0" && part.bytes().all(|digit| digit == b'0');
    let sign = if is_zero { "" } else { sign };
    Some(if digits == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") })
}

fn is_alike(ours: &str, theirs: &str) -> bool {
    let digits = theirs.split_once('.').map_or(0, |(_, part)| part.len());
    ours == theirs || rounded(ours, digits).is_some_and(|rounded| rounded == theirs)
}

fn shown(rows: &[Vec<String>]) -> String {
    let escaped = |value: &String| value.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t");
    let row = |row: &Vec<String>| row.iter().map(escaped).collect::<Vec<_>>().join(" , ");
    rows.iter().map(row).collect::<Vec<_>>().join(" ; ")
}

/// What is wrong with an answer, if anything is.
fn judge(line: &str, ours: &Result<Vec<Vec<String>>, String>) -> Option<String> {
    let (mark, rest) = match line.as_bytes().first() {
        Some(mark @ (b'~' | b'!')) => (Some(*mark), line[1..].trim_start()),
        _ => (None, line),
    };
    let (question, theirs) = rest.split_once('\t')?;
    let is_error = theirs.starts_with("ERROR");
    let ours = match ours {
        Err(_) if is_error || mark == Some(b'!') => return None,
        Err(error) => return Some(format!("{question}\n  theirs {theirs}\n  ours   ERROR {error}")),
        Ok(rows) => rows,
    };
    let mut rows = ours.clone();
    if !question.to_ascii_uppercase().contains("ORDER BY") {
        rows.sort();
    }
    let text = shown(&rows);
    let wrong = |why: &str| Some(format!("{question}\n  theirs {theirs}\n  ours   {text} ({why})"));
    if mark == Some(b'!') {
        return wrong("is answered: take the mark away");
    }
    if is_error {
        return wrong("must be refused");
    }
    if text == theirs {
        return None;
    }
    let parts = |text: &str| text.replace(" ; ", " , ").split(" , ").map(str::to_owned).collect::<Vec<_>>();
    let (ours, theirs) = (parts(&text), parts(theirs));
    let alike = mark == Some(b'~')
        && ours.len() == theirs.len()
        && ours.iter().zip(&theirs).all(|(ours, theirs)| is_alike(ours, theirs));
    if alike { None } else { wrong("is another value") }
}

fn files(directory: &str) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(directory).expect("there").map(|entry| entry.expect("reads").path());
    let files =
        entries.filter(|path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "txt"));
    let name = |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    files.map(|path| (name(&path), std::fs::read_to_string(&path).expect("reads"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_postgresql() {
    let (engine, extras, _directory) = engine().await;
    let (mut asked, mut wrong) = (0, Vec::new());
    for (file, lines) in files(&std::env::var("QUESTIONS").unwrap_or_else(|_| "tests/meaning".to_owned())) {
        for line in lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let question = line.trim_start_matches(['~', '!']).trim_start();
            let question = question.split('\t').next().expect("a question");
            let ours = answer(&engine, question, extras.clone()).await;
            asked += 1;
            wrong.extend(judge(line, &ours).map(|wrong| format!("[{file}] {wrong}")));
        }
    }
    assert!(wrong.is_empty(), "{} of {asked} differ:\n{}", wrong.len(), wrong.join("\n"));
}
