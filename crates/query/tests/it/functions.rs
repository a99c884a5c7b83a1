//! Functions mean what PostgreSQL means by them: every question of `tests/functions/*.txt` has the
//! answer that PostgreSQL 15 gave (`question<TAB>answer`; `ERROR` where it gave none), or is an
//! error where `refused.txt` says so. A file begins with the session's time zone.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType, IntervalMonthDayNanoType, TimeUnit},
};
use rollcall_lake::{Lake, LakeOptions};
use rollcall_query::{Engine, EngineLimits, Extras, interval_text};

/// A value as PostgreSQL writes it.
fn shown(array: &ArrayRef, row: usize, zone: &str) -> String {
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    let texts = |to: &DataType| {
        let array = cast(array, to).expect("casts");
        let texts = cast(&array, &DataType::Utf8).expect("casts");
        texts.as_string::<i32>().value(row).to_owned()
    };
    match array.data_type() {
        DataType::Boolean => if array.as_boolean().value(row) { "t" } else { "f" }.to_owned(),
        DataType::Float64 | DataType::Float32 => {
            let array = cast(array, &DataType::Float64).expect("casts");
            let value = array.as_primitive::<arrow::datatypes::Float64Type>().value(row);
            if value.is_infinite() {
                return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
            }
            if value != 0.0 && !(1e-4..1e15).contains(&value.abs()) {
                let text = format!("{value:e}");
                let (mantissa, exponent) = text.split_once('e').expect("has an exponent");
                let exponent: i32 = exponent.parse().expect("a number");
                let sign = if exponent < 0 { '-' } else { '+' };
                return format!("{mantissa}e{sign}{:02}", exponent.abs());
            }
            value.to_string()
        }
        DataType::Timestamp(_, of_zone) => {
            let micros = TimeUnit::Microsecond;
            let of_zone = of_zone.as_ref().map(|_| zone.into());
            let text = texts(&DataType::Timestamp(micros, of_zone.clone())).replace('T', " ");
            let (main, offset) = match &of_zone {
                None => (text.as_str(), ""),
                Some(_) if text.ends_with('Z') => (&text[..text.len() - 1], "+00"),
                Some(_) => text.split_at(text.len() - 6),
            };
            let main = if main.contains('.') { main.trim_end_matches('0').trim_end_matches('.') } else { main };
            before_christ(format!("{main}{}", offset.strip_suffix(":00").unwrap_or(offset)))
        }
        DataType::Time64(_) | DataType::Time32(_) => {
            let text = texts(&DataType::Time64(TimeUnit::Microsecond));
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        }
        DataType::Interval(_) => {
            let to = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
            let array = cast(array, &to).expect("casts");
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            interval_text(value.months, value.days, value.nanoseconds / 1000)
        }
        DataType::Binary | DataType::BinaryView => {
            let array = cast(array, &DataType::Binary).expect("casts");
            let bytes = array.as_binary::<i32>().value(row);
            bytes.iter().fold("\\x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            let items: Vec<String> = (0..items.len()).map(|row| item(&items, row, zone)).collect();
            format!("{{{}}}", items.join(","))
        }
        DataType::Date32 => before_christ(texts(&DataType::Date32)),
        kind => texts(&kind.clone()),
    }
}

/// A year that is not positive, as PostgreSQL counts it.
fn before_christ(text: String) -> String {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text.as_str()), |rest| (true, rest));
    match rest.split_once('-') {
        Some((year, rest)) if negative || year == "0000" => {
            format!("{:04}-{rest} BC", year.parse::<i32>().expect("a year") + 1)
        }
        _ => text.strip_prefix('+').unwrap_or(&text).to_owned(),
    }
}

fn item(items: &ArrayRef, row: usize, zone: &str) -> String {
    let text = shown(items, row, zone);
    let special = |letter: char| matches!(letter, '{' | '}' | ',' | '"' | '\\') || letter.is_whitespace();
    let is_text = matches!(items.data_type(), DataType::Utf8 | DataType::Utf8View);
    let null = text.eq_ignore_ascii_case("null") && !items.is_null(row);
    if items.is_valid(row)
        && !matches!(items.data_type(), DataType::List(_))
        && (text.is_empty() || null || text.contains(special))
    {
        let _ = is_text;
        return format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    }
    text
}

async fn answered(engine: &Engine, question: &str, zone: &str) -> String {
    let extras = Extras { time_zone: Some(zone.to_owned()), ..Extras::default() };
    match engine.query(question, extras).await {
        Ok(answer) => {
            let mut rows = Vec::new();
            for batch in &answer.batches {
                for row in 0..batch.num_rows() {
                    let cells: Vec<String> = batch.columns().iter().map(|column| shown(column, row, zone)).collect();
                    rows.push(cells.join("|"));
                }
            }
            rows.join("\\n").replace('\n', "\\n")
        }
        Err(error) => format!("ERROR {}", rollcall_types::describe(&error).replace('\n', " ")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_mean_what_postgresql_means() {
    let directory = tempfile::tempdir().expect("a directory");
    let lake = Lake::open_directory(directory.path(), LakeOptions::default()).await.expect("opens");
    let engine = Engine::new(Arc::new(lake), EngineLimits::default()).expect("starts");
    let of_file = std::env::var("ROLLCALL_FUNCTION_FILES");
    let files = of_file.unwrap_or_else(|_| "tests/functions".to_owned());
    let refused = std::fs::read_to_string(Path::new(&files).join("refused.txt")).unwrap_or_default();
    let refused: BTreeSet<&str> = refused.lines().collect();
    let (mut asked, mut wrong, mut refusals) = (0, Vec::new(), 0);
    let mut paths: Vec<_> =
        std::fs::read_dir(&files).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    for path in
        paths.iter().filter(|path| path.extension().is_some_and(|end| end == "txt") && !path.ends_with("refused.txt"))
    {
        let text = std::fs::read_to_string(path).expect("reads");
        let mut lines = text.lines();
        let zone = lines.next().expect("a zone").to_owned();
        for line in lines {
            let (question, expected) = line.split_once('\t').expect("a question and an answer");
            let answer = answered(&engine, question, &zone).await;
            asked += 1;
            let is_error = answer.starts_with("ERROR");
            if is_error && refused.contains(question) {
                refusals += 1;
            } else if answer != expected && !(is_error && expected == "ERROR") {
                wrong.push(format!("{question}\n    PostgreSQL {expected}\n    here       {answer}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {asked} wrong ({refusals} refused)\n{}", wrong.len(), wrong.join("\n"));
    assert!(asked >= 500 || std::env::var("ROLLCALL_FUNCTION_FILES").is_ok(), "{asked} questions");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_much_of_little_is_bounded() {
    let directory = tempfile::tempdir().expect("a directory");
    let lake = Lake::open_directory(directory.path(), LakeOptions::default()).await.expect("opens");
    let engine = Engine::new(Arc::new(lake), EngineLimits::default()).expect("starts");
    for question in [
        "SELECT length(repeat('x', 1000000000))",
        "SELECT lpad('x', 1000000000)",
        "SELECT rpad('x', 1000000000, 'ab')",
        "SELECT replace(repeat('x', 1000000), 'x', repeat('y', 1000))",
        "SELECT regexp_replace(repeat('x', 1000000), 'x', repeat('y', 1000), 'g')",
        "SELECT format('%1000000000s', 'x')",
        "SELECT format('%*s', 1000000000, 'x')",
        "SELECT array_fill(1, ARRAY[1000000000])",
        "SELECT array_repeat(1, 1000000000)",
        "SELECT range(0, 1000000000)",
        "SELECT concat(repeat('x', 10000000), repeat('x', 10000000))",
        "SELECT string_to_array(repeat(',', 10000000), ',')",
    ] {
        let error = engine.query(question, Extras::default()).await.expect_err(question);
        let text = rollcall_types::describe(&error);
        assert!(text.contains("would be longer than 16 MiB"), "{question}: {text}");
    }
    let many = "SELECT sum(length(repeat('x', 10000000 + x::int))) FROM generate_series(1, 100) v(x)";
    let error = engine.query(many, Extras::default()).await.expect_err(many);
    let text = rollcall_types::describe(&error);
    assert!(text.contains("would be longer than 256 MiB"), "{many}: {text}");
    let fits = engine.query("SELECT length(repeat('x', 1000000)) AS n", Extras::default()).await.expect("fits");
    assert_eq!(fits.batches[0].num_rows(), 1);
}
