use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use rollcall_query::datafusion::sql::sqlparser::{ast::Statement, dialect::PostgreSqlDialect, parser::Parser};

use super::{CopyEncoder, CopyForm, ForceQuote, ValueError};
use crate::value::Zone;

fn form(options: &str) -> Result<CopyForm, ValueError> {
    let sql = format!("COPY t TO STDOUT {options}");
    let mut parsed = Parser::parse_sql(&PostgreSqlDialect {}, &sql).expect("a statement");
    match parsed.pop() {
        Some(Statement::Copy { options, legacy_options, .. }) => CopyForm::from_options(&options, &legacy_options),
        other => panic!("{other:?}"),
    }
}

fn copied(form: &CopyForm, batch: &RecordBatch) -> Vec<u8> {
    let schema = batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut out = form.header(&names).unwrap_or_default().to_vec();
    let mut rows = CopyEncoder::new(form, batch, &Zone::utc()).expect("an encoder");
    for row in 0..rows.row_count() {
        out.extend(rows.row(row).expect("a row"));
    }
    out.extend(form.trailer().unwrap_or_default());
    out
}

/// The rows that a PostgreSQL 15 copied for the expected texts below.
fn rows() -> RecordBatch {
    let numbers = [Some(1), None, Some(2), Some(3), Some(4), Some(5), Some(6), Some(7), Some(8)];
    let texts = [
        Some("plain"),
        None,
        Some(""),
        Some("a\tb\nc\\d\re\x08f\x0b\x0c"),
        Some("\\."),
        Some("q\"u,o;te"),
        Some("x"),
        Some(" lead"),
        Some("NULL"),
    ];
    let numbers: ArrayRef = Arc::new(Int32Array::from(numbers.to_vec()));
    let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
    RecordBatch::try_from_iter([("n", numbers), ("s", texts)]).expect("a batch")
}

fn alone() -> RecordBatch {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("\\."), Some(""), None, Some("a,b")]));
    RecordBatch::try_from_iter([("s", texts)]).expect("a batch")
}

const TEXT: &str = "1\tplain\n\\N\t\\N\n2\t\n3\ta\\tb\\nc\\\\d\\re\\bf\\v\\f\n4\t\\\\.\n\
                    5\tq\"u,o;te\n6\tx\n7\t lead\n8\tNULL\n";
const CSV: &str = "1,plain\n,\n2,\"\"\n3,\"a\tb\nc\\d\re\x08f\x0b\x0c\"\n4,\\.\n\
                   5,\"q\"\"u,o;te\"\n6,x\n7, lead\n8,NULL\n";

#[test]
fn texts_are_copied_as_postgres_copies_them() {
    let with_header = format!("n,s\n{CSV}");
    let cases = [
        ("", TEXT.to_owned()),
        ("WITH (FORMAT text)", TEXT.to_owned()),
        ("(HEADER false)", TEXT.to_owned()),
        ("(HEADER)", format!("n\ts\n{TEXT}")),
        ("CSV", CSV.to_owned()),
        ("CSV HEADER", with_header.clone()),
        ("WITH CSV HEADER", with_header.clone()),
        ("(FORMAT csv, HEADER true, ENCODING 'UTF8')", with_header),
        (
            "(DELIMITER ';', NULL 'x')",
            "1;plain\nx;x\n2;\n3;a\\tb\\nc\\\\d\\re\\bf\\v\\f\n4;\\\\.\n5;q\"u,o\\;te\n6;x\n\
             7; lead\n8;NULL\n"
                .to_owned(),
        ),
        (
            "(FORMAT csv, NULL 'x')",
            "1,plain\nx,x\n2,\n3,\"a\tb\nc\\d\re\x08f\x0b\x0c\"\n4,\\.\n5,\"q\"\"u,o;te\"\n\
             6,\"x\"\n7, lead\n8,NULL\n"
                .to_owned(),
        ),
        (
            "(FORMAT csv, DELIMITER ';', QUOTE '''', ESCAPE '!', HEADER)",
            "n;s\n1;plain\n;\n2;''\n3;'a\tb\nc\\d\re\x08f\x0b\x0c'\n4;\\.\n5;'q\"u,o;te'\n6;x\n\
             7; lead\n8;NULL\n"
                .to_owned(),
        ),
        (
            "WITH CSV HEADER DELIMITER AS ';' NULL AS 'NULL'",
            "n;s\n1;plain\nNULL;NULL\n2;\n3;\"a\tb\nc\\d\re\x08f\x0b\x0c\"\n4;\\.\n\
             5;\"q\"\"u,o;te\"\n6;x\n7; lead\n8;\"NULL\"\n"
                .to_owned(),
        ),
        (
            "(FORMAT csv, FORCE_QUOTE (s))",
            "1,\"plain\"\n,\n2,\"\"\n3,\"a\tb\nc\\d\re\x08f\x0b\x0c\"\n4,\"\\.\"\n\
             5,\"q\"\"u,o;te\"\n6,\"x\"\n7,\" lead\"\n8,\"NULL\"\n"
                .to_owned(),
        ),
    ];
    for (options, expected) in cases {
        let copied = copied(&form(options).expect(options), &rows());
        assert_eq!(String::from_utf8_lossy(&copied), expected, "{options}");
    }
    assert_eq!(form("CSV FORCE QUOTE s"), form("(FORMAT csv, FORCE_QUOTE (s))"));
    let all = form("CSV").and_then(|form| form.with_force_quote(ForceQuote::All)).expect("a form");
    let copied = copied(&all, &rows().slice(0, 3));
    assert_eq!(String::from_utf8_lossy(&copied), "\"1\",\"plain\"\n,\n\"2\",\"\"\n");
}

#[test]
fn a_line_is_never_taken_for_the_end() {
    assert_eq!(copied(&form("").expect("text"), &alone()), b"\\\\.\n\n\\N\na,b\n");
    let csv = copied(&form("CSV HEADER").expect("CSV"), &alone());
    assert_eq!(csv, b"s\n\"\\.\"\n\"\"\n\n\"a,b\"\n");
}

#[test]
fn binary_copies_have_mark_rows_and_end() {
    let expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\
        \0\x02\0\0\0\x04\0\0\0\x01\0\0\0\x05plain\
        \0\x02\xff\xff\xff\xff\xff\xff\xff\xff\
        \0\x02\0\0\0\x04\0\0\0\x02\0\0\0\0\
        \xff\xff";
    for options in ["BINARY", "WITH BINARY", "(FORMAT binary)", "(FORMAT BINARY, HEADER false)"] {
        let form = form(options).expect(options);
        assert!(form.is_binary());
        assert_eq!(copied(&form, &rows().slice(0, 3)), expected, "{options}");
    }
}

#[test]
fn an_empty_answer_has_its_header() {
    let none = rows().slice(0, 0);
    assert_eq!(copied(&form("CSV HEADER").expect("CSV"), &none), b"n,s\n");
    let binary = copied(&form("BINARY").expect("binary"), &none);
    assert_eq!(binary, b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff");
}

/// Codes as PostgreSQL 15 gives them.
#[test]
fn options_that_do_not_go_together_are_errors() {
    let cases = [
        ("(DELIMITER 'a')", "22023"),
        ("(DELIMITER ',', NULL 'a,b')", "0A000"),
        ("(FORMAT csv, QUOTE ',')", "22023"),
        ("(FORMAT csv, NULL '\"')", "0A000"),
        ("(QUOTE 'x')", "0A000"),
        ("(ESCAPE 'x')", "0A000"),
        ("(FORMAT binary, HEADER)", "0A000"),
        ("(FORMAT binary, DELIMITER ',')", "42601"),
        ("BINARY NULL 'x'", "42601"),
        ("(FORMAT json)", "22023"),
        ("(FORMAT csv, FORMAT csv)", "42601"),
        ("CSV BINARY", "42601"),
        ("CSV HEADER HEADER", "42601"),
        ("(FORMAT csv) CSV", "42601"),
        ("(FORCE_QUOTE (s))", "0A000"),
        ("(FORMAT csv, FORCE_NULL (s))", "0A000"),
        ("(FORMAT csv, FORCE_NOT_NULL (s))", "0A000"),
        ("(NULL E'\\n')", "22023"),
        ("(FORMAT csv, DELIMITER E'\\n')", "22023"),
        ("(ENCODING 'latin1')", "0A000"),
        ("PARQUET", "42601"),
        ("GZIP", "42601"),
    ];
    for (options, code) in cases {
        assert_eq!(form(options).map_err(|error| error.code), Err(code), "{options}");
    }
    let missing = form("(FORMAT csv, FORCE_QUOTE (zz))").expect("a form");
    assert_eq!(missing.check_columns(&["n", "s"]).map_err(|error| error.code), Err("42703"));
    assert!(CopyEncoder::new(&missing, &rows(), &Zone::utc()).is_err());
}
