//! Every type in every form, read back by another reader; and answers without end, in bounded
//! memory.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::*, buffer::OffsetBuffer, compute::cast, datatypes::*, error::ArrowError, ipc::reader::StreamReader,
};
use bytes::Bytes;
use datafusion::{
    common::DataFusionError, execution::SendableRecordBatchStream, physical_plan::stream::RecordBatchStreamAdapter,
};
use futures::{Stream, StreamExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rollcall_query::{
    Answer, Encoder, ExportError, Format, Took, csv_trailer, datafusion, pieces, render, split_csv_trailer,
};
use rollcall_types::Coverage;

/// A column, and what its first two values are as CSV, JSON and cells of Excel; its third value is
/// always null.
struct Case {
    name: String,
    array: ArrayRef,
    csv: [String; 2],
    json: [String; 2],
    cell: [String; 2],
}

/// How values of a kind are written.
#[derive(Clone, Copy)]
enum Kind {
    /// A number everywhere.
    Number,
    /// Text in Excel, a number in JSON.
    Digits,
    /// Text everywhere.
    Text,
}

fn case(name: &str, array: impl Array + 'static, kind: Kind, csv: [&str; 2]) -> Case {
    let json = csv.map(|text| match kind {
        Kind::Number | Kind::Digits => text.to_owned(),
        Kind::Text => serde_json::to_string(text).expect("writes"),
    });
    let cell = csv.map(|text| match kind {
        Kind::Number => format!("number {}", text.parse::<f64>().expect("a number")),
        Kind::Digits | Kind::Text if text.is_empty() => String::new(),
        Kind::Digits | Kind::Text => format!("text {text}"),
    });
    Case { name: name.to_owned(), array: Arc::new(array), csv: csv.map(str::to_owned), json, cell }
}

impl Case {
    fn json(mut self, json: [&str; 2]) -> Self {
        self.json = json.map(str::to_owned);
        self
    }

    fn cell(mut self, cell: [&str; 2]) -> Self {
        self.cell = cell.map(str::to_owned);
        self
    }
}

macro_rules! values {
    ($array:ty, $first:expr, $second:expr) => {
        <$array>::from(vec![Some($first), Some($second), None])
    };
}

fn numbers() -> Vec<Case> {
    use Kind::{Digits, Number};
    let big = i256::from_string("12345678901234567890123456789012345678901234567890").expect("fits");
    let wide = Decimal256Array::from(vec![Some(big), Some(i256::from(-7)), None]);
    let wide = wide.with_precision_and_scale(76, 2).expect("fits");
    let of = |first: i128, second: i128, precision: u8, scale: i8| {
        let array = Decimal128Array::from(vec![Some(first), Some(second), None]);
        array.with_precision_and_scale(precision, scale).expect("fits")
    };
    let nines = 99_999_999_999_999_999_999_999_999_999_999_999_999_i128;
    vec![
        case("i8", values!(Int8Array, -128, 127), Number, ["-128", "127"]),
        case("i16", values!(Int16Array, -32768, 32767), Number, ["-32768", "32767"]),
        case("i32", values!(Int32Array, i32::MIN, i32::MAX), Number, ["-2147483648", "2147483647"]),
        case(
            "i64",
            values!(Int64Array, i64::MIN, 9_007_199_254_740_993),
            Digits,
            ["-9223372036854775808", "9007199254740993"],
        ),
        case("few", values!(Int64Array, 999_999_999_999_999, -1), Number, ["999999999999999", "-1"]),
        case("u8", values!(UInt8Array, 0, 255), Number, ["0", "255"]),
        case("u16", values!(UInt16Array, 0, 65535), Number, ["0", "65535"]),
        case("u32", values!(UInt32Array, 0, u32::MAX), Number, ["0", "4294967295"]),
        case(
            "u64",
            values!(UInt64Array, 10_000_000_000_000_000, u64::MAX),
            Digits,
            ["10000000000000000", "18446744073709551615"],
        ),
        case("f32", values!(Float32Array, 0.1, -3.4028235e38), Number, ["0.1", "-3.4028235e+38"]),
        case("f64", values!(Float64Array, 0.1, 1.7976931348623157e308), Number, ["0.1", "1.7976931348623157e+308"]),
        case("f64s", values!(Float64Array, 5e-324, 123456789.12345679), Number, ["5e-324", "123456789.12345679"]),
        case("inf", values!(Float64Array, f64::INFINITY, f64::NEG_INFINITY), Kind::Text, ["Infinity", "-Infinity"]),
        case("nan", values!(Float32Array, f32::NAN, f32::INFINITY), Kind::Text, ["NaN", "Infinity"]),
        case("money", of(150, -5, 10, 2), Number, ["1.50", "-0.05"]),
        case("d38", of(nines, -1, 38, 10), Digits, ["9999999999999999999999999999.9999999999", "-0.0000000001"])
            .cell(["text 9999999999999999999999999999.9999999999", "number -0.0000000001"]),
        case("d76", wide, Digits, ["123456789012345678901234567890123456789012345678.90", "-0.07"])
            .cell(["text 123456789012345678901234567890123456789012345678.90", "number -0.07"]),
        case("hundreds", of(123, 0, 5, -2), Number, ["12300", "0"]),
    ]
}

const MIDNIGHT: i64 = 1_768_003_200; // 2026-01-10T00:00:00Z
const FIRST: i64 = -62_135_596_800; // 0001-01-01T00:00:00Z
const LAST: i64 = 253_402_300_799; // 9999-12-31T23:59:59Z

fn times() -> Vec<Case> {
    use Kind::Text;
    let day = |date: &str| Date32Type::from_naive_date(date.parse().expect("a date"));
    let dates = ["0001-01-01", "9999-12-31"];
    let at = |seconds: i64, unit: i64, rest: i64| seconds * unit + rest;
    let noon = MIDNIGHT + 43_200;
    vec![
        case("ends", values!(Date32Array, day(dates[0]), day(dates[1])), Text, dates)
            .cell(["text 0001-01-01", "number 2958465 yyyy-mm-dd"]),
        case("days", values!(Date32Array, day("2026-01-10"), day("1899-12-31")), Text, ["2026-01-10", "1899-12-31"])
            .cell(["number 46032 yyyy-mm-dd", "text 1899-12-31"]),
        case(
            "date64",
            values!(Date64Array, noon * 1000, FIRST * 1000),
            Text,
            ["2026-01-10T12:00:00", "0001-01-01T00:00:00"],
        )
        .cell(["number 46032.5 yyyy-mm-dd hh:mm:ss", "text 0001-01-01T00:00:00"]),
        case("s", values!(TimestampSecondArray, noon, LAST), Text, ["2026-01-10T12:00:00", "9999-12-31T23:59:59"])
            .cell(["number 46032.5 yyyy-mm-dd hh:mm:ss", "number 2958465.999988426 yyyy-mm-dd hh:mm:ss"]),
        case(
            "ms",
            values!(TimestampMillisecondArray, at(noon, 1000, 250), at(FIRST, 1000, 0)),
            Text,
            ["2026-01-10T12:00:00.250", "0001-01-01T00:00:00"],
        )
        .cell(["number 46032.50000289352 yyyy-mm-dd hh:mm:ss.000", "text 0001-01-01T00:00:00"]),
        case(
            "us",
            values!(TimestampMicrosecondArray, at(noon, 1_000_000, 1), at(-1, 1_000_000, 0)),
            Text,
            ["2026-01-10T12:00:00.000001", "1969-12-31T23:59:59"],
        )
        .cell(["number 46032.500000000015 yyyy-mm-dd hh:mm:ss.000", "number 25568.999988425927 yyyy-mm-dd hh:mm:ss"]),
        case(
            "ns",
            values!(TimestampNanosecondArray, at(noon, 1_000_000_000, 0), at(0, 1_000_000_000, -1)),
            Text,
            ["2026-01-10T12:00:00", "1969-12-31T23:59:59.999999999"],
        )
        .cell(["number 46032.5 yyyy-mm-dd hh:mm:ss", "number 25569 yyyy-mm-dd hh:mm:ss"]),
        case(
            "utc",
            values!(TimestampMicrosecondArray, at(noon, 1_000_000, 0), at(noon, 1_000_000, 500_000))
                .with_timezone("UTC"),
            Text,
            ["2026-01-10T12:00:00Z", "2026-01-10T12:00:00.500Z"],
        )
        .cell(["number 46032.5 yyyy-mm-dd hh:mm:ss", "number 46032.500005787035 yyyy-mm-dd hh:mm:ss.000"]),
        case(
            "there",
            values!(TimestampMicrosecondArray, at(noon, 1_000_000, 0), at(noon + 180 * 86_400, 1_000_000, 0))
                .with_timezone("America/Los_Angeles"),
            Text,
            ["2026-01-10T04:00:00-08:00", "2026-07-09T05:00:00-07:00"],
        )
        .cell(["number 46032.5 yyyy-mm-dd hh:mm:ss", "number 46212.5 yyyy-mm-dd hh:mm:ss"]),
        case("t32", values!(Time32SecondArray, 0, 86_399), Text, ["00:00:00", "23:59:59"]),
        case("t32ms", values!(Time32MillisecondArray, 1, 86_399_999), Text, ["00:00:00.001", "23:59:59.999"]),
        case("t64", values!(Time64MicrosecondArray, 1, 3_600_000_000), Text, ["00:00:00.000001", "01:00:00"]),
        case("t64ns", values!(Time64NanosecondArray, 1, 0), Text, ["00:00:00.000000001", "00:00:00"]),
        case("months", values!(IntervalYearMonthArray, 14, -1), Text, ["1 year 2 mons", "-1 mons"]),
        case(
            "daytime",
            values!(IntervalDayTimeArray, IntervalDayTime::new(1, 500), IntervalDayTime::new(0, 0)),
            Text,
            ["1 day 00:00:00.5", "00:00:00"],
        ),
        case(
            "interval",
            values!(
                IntervalMonthDayNanoArray,
                IntervalMonthDayNano::new(1, -2, 3_000_000_000),
                IntervalMonthDayNano::new(0, 0, -1)
            ),
            Text,
            ["1 mon -2 days +00:00:03", "-00:00:00.000000001"],
        ),
        case(
            "took",
            values!(DurationMicrosecondArray, 90_000_000_000, -1),
            Text,
            ["1 day 01:00:00", "-00:00:00.000001"],
        ),
        case("tooks", values!(DurationSecondArray, i64::MAX, 0), Text, ["106751991167300 days 15:30:07", "00:00:00"]),
    ]
}

fn texts() -> Vec<Case> {
    use Kind::Text;
    let odd = "a\"b,\r\nc \u{1f600} '";
    let bytes: [&[u8]; 2] = [b"\x00A\xff", b""];
    let hex = ["\\x0041ff", "\\x"];
    let mut fixed = FixedSizeBinaryBuilder::new(2);
    fixed.append_value([0, 1]).expect("two");
    fixed.append_value([255, 254]).expect("two");
    fixed.append_null();
    vec![
        case("text", values!(StringArray, odd, ""), Text, [odd, ""]),
        case("large", values!(LargeStringArray, "=1+1", "#, no comment"), Text, ["=1+1", "#, no comment"]),
        case(
            "view",
            values!(StringViewArray, "a text that is longer than twelve", "_x0041_"),
            Text,
            ["a text that is longer than twelve", "_x0041_"],
        ),
        case("control", values!(StringArray, "\u{0}\u{1}\t|", " spaces "), Text, ["\u{0}\u{1}\t|", " spaces "]),
        case("binary", values!(BinaryArray, bytes[0], bytes[1]), Text, hex),
        case("blob", values!(LargeBinaryArray, bytes[0], bytes[1]), Text, hex),
        case("bview", values!(BinaryViewArray, bytes[0], bytes[1]), Text, hex),
        case("fixed", fixed.finish(), Text, ["\\x0001", "\\xfffe"]),
        case("flag", values!(BooleanArray, true, false), Text, ["true", "false"])
            .json(["true", "false"])
            .cell(["flag 1", "flag 0"]),
        case(
            "code",
            [Some("a"), Some("b"), None].into_iter().collect::<DictionaryArray<Int32Type>>(),
            Text,
            ["a", "b"],
        ),
        case("null", NullArray::new(3), Text, ["", ""]).json(["null", "null"]).cell(["", ""]),
    ]
}

fn nested() -> Vec<Case> {
    use Kind::Text;
    let list =
        ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(i64::MAX), None]), Some(vec![]), None]);
    let lists = ["[9223372036854775807,null]", "[]"];
    let words = StringViewArray::from(vec![Some("a\"b"), None]);
    let words = ListArray::new(
        Arc::new(Field::new_list_field(DataType::Utf8View, true)),
        OffsetBuffer::new(vec![0, 1, 2, 2].into()),
        Arc::new(words),
        Some(vec![true, true, false].into()),
    );
    let said = ["[\"a\\\"b\"]", "[null]"];
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(0), None, None]).with_timezone("UTC"));
    let size: ArrayRef = Arc::new(Float32Array::from(vec![Some(f32::NAN), Some(0.1), None]));
    let fields =
        Fields::from(vec![Field::new("at", at.data_type().clone(), true), Field::new("size", DataType::Float32, true)]);
    let record = StructArray::new(fields, vec![at, size], Some(vec![true, true, false].into()));
    let records = ["{\"at\":\"1970-01-01T00:00:00Z\",\"size\":\"NaN\"}", "{\"at\":null,\"size\":0.1}"];
    vec![
        case("list", list, Text, lists).json(lists),
        case("words", words, Text, said).json(said),
        case("record", record, Text, records).json(records),
    ]
}

fn cases() -> Vec<Case> {
    [numbers(), times(), texts(), nested()].into_iter().flatten().collect()
}

fn coverage() -> Coverage {
    Coverage { scope: 3, complete: 3, ..Coverage::default() }
}

fn answer(cases: &[Case]) -> Answer {
    let fields = cases.iter().map(|case| Field::new(&case.name, case.array.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = cases.iter().map(|case| case.array.clone()).collect();
    let batches = vec![RecordBatch::try_new(schema.clone(), columns).expect("fits")];
    Answer { schema, batches, coverage: coverage(), took: Took::default() }
}

#[test]
fn every_type_is_exact_in_csv() {
    let cases = cases();
    let text = render(&answer(&cases), Format::Csv).expect("renders");
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_slice());
    let names: Vec<String> = reader.headers().expect("a header").iter().map(str::to_owned).collect();
    assert_eq!(names, cases.iter().map(|case| case.name.clone()).collect::<Vec<_>>());
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().expect("reads");
    assert_eq!(rows.len(), 3);
    for (column, case) in cases.iter().enumerate() {
        assert_eq!(
            [&rows[0][column], &rows[1][column], &rows[2][column]],
            [&*case.csv[0], &*case.csv[1], ""],
            "{}",
            case.name
        );
    }
    // An empty text is not a null.
    let two = answer(&[
        case("a", values!(StringArray, "", "x"), Kind::Text, ["", "x"]),
        cases.into_iter().next().expect("one"),
    ]);
    assert_eq!(
        String::from_utf8(render(&two, Format::Csv).expect("renders")).expect("text"),
        "a,i8\n\"\",-128\nx,127\n,\n"
    );
    // Of a single column, a row that is null is still a row.
    let one = answer(&[case("#a", values!(StringArray, "#x", "\\."), Kind::Text, ["", ""])]);
    assert_eq!(
        String::from_utf8(render(&one, Format::Csv).expect("renders")).expect("text"),
        "\"#a\"\n\"#x\"\n\"\\.\"\n\"\"\n"
    );
}

#[test]
fn every_type_is_exact_in_json() {
    let cases = cases();
    let text = String::from_utf8(render(&answer(&cases), Format::Json).expect("renders")).expect("text");
    let row = |index: usize| {
        let fields: Vec<String> = cases
            .iter()
            .map(|case| {
                let null = "null".to_owned();
                let value = case.json.get(index).unwrap_or(&null);
                // A text with nothing in it is quoted, a null is not.
                format!("{}:{value}", serde_json::to_string(&case.name).expect("writes"))
            })
            .collect();
        format!("{{{}}}", fields.join(","))
    };
    let names: Vec<&String> = cases.iter().map(|case| &case.name).collect();
    let expected = format!(
        "{{\"columns\":{},\"rows\":[{},{},{}],\"coverage\":{}}}",
        serde_json::to_string(&names).expect("writes"),
        row(0),
        row(1),
        row(2),
        coverage().to_json().expect("writes")
    );
    for (got, wanted) in text.split("\",\"").zip(expected.split("\",\"")) {
        assert_eq!(got, wanted);
    }
    assert_eq!(text, expected);
    serde_json::from_str::<serde_json::Value>(&text).expect("it is JSON");
    // Two columns of one name are two columns.
    let twice = |name: &str| case(name, values!(Int32Array, 1, 2), Kind::Number, ["1", "2"]);
    let text = render(&answer(&[twice("a"), twice("a"), twice("a_2")]), Format::Json).expect("renders");
    let text = String::from_utf8(text).expect("text");
    assert!(text.starts_with("{\"columns\":[\"a\",\"a_3\",\"a_2\"],\"rows\":[{\"a\":1,\"a_3\":1,\"a_2\":1}"), "{text}");
}

#[test]
fn every_type_is_exact_in_arrow_and_parquet() {
    let cases = cases();
    let answer = answer(&cases);
    let stream = render(&answer, Format::Arrow).expect("renders");
    assert!(stream.ends_with(&[255, 255, 255, 255, 0, 0, 0, 0]), "a stream that is whole says so");
    let mut reader = StreamReader::try_new(stream.as_slice(), None).expect("a stream");
    assert!(reader.schema().metadata()["rollcall.coverage"].contains("\"scope\":3"));
    let rows = reader.next().expect("a batch").expect("reads");
    for (case, column) in cases.iter().zip(rows.columns()) {
        let expected = cast(&case.array, column.data_type()).expect("casts");
        assert_eq!(&expected, column, "{}", case.name);
    }
    let file = Bytes::from(render(&answer, Format::Parquet).expect("renders"));
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).expect("a file");
    let kept = builder.metadata().file_metadata().key_value_metadata().expect("metadata").clone();
    assert!(kept.iter().any(|pair| pair.key == "rollcall.coverage"));
    let rows = builder.build().expect("reads").next().expect("a batch").expect("reads");
    for (case, column) in cases.iter().zip(rows.columns()) {
        let is_length = matches!(case.array.data_type(), DataType::Interval(_) | DataType::Duration(_));
        let expected: ArrayRef = match is_length {
            true => Arc::new(values!(StringArray, case.csv[0].as_str(), case.csv[1].as_str())),
            false => cast(&case.array, column.data_type()).expect("casts"),
        };
        assert_eq!(&expected, column, "{}", case.name);
    }
}

/// Prints the cells of a workbook's first sheet as lists of texts: kind, value and the format of
/// numbers.
const READ_SHEET: &str = r#"
import io, json, re, sys, xml.etree.ElementTree as xml, zipfile
book = zipfile.ZipFile(io.BytesIO(sys.stdin.buffer.read()))
tag = lambda name: "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}" + name
styles = xml.fromstring(book.read("xl/styles.xml"))
codes = {f.get("numFmtId"): f.get("formatCode") for f in styles.iter(tag("numFmt"))}
formats = [codes.get(f.get("numFmtId"), "") for f in styles.find(tag("cellXfs"))]
unescape = lambda text: re.sub(r"_x([0-9A-Fa-f]{4})_", lambda code: chr(int(code[1], 16)), text)
shared = [unescape("".join(t.text or "" for t in s.iter(tag("t")))) for s in xml.fromstring(book.read("xl/sharedStrings.xml"))] if "xl/sharedStrings.xml" in book.namelist() else []
rows = []
for row in xml.fromstring(book.read("xl/worksheets/sheet1.xml")).iter(tag("row")):
    cells = {}
    for cell in row:
        assert cell.find(tag("f")) is None, "a formula"
        kind, column = cell.get("t"), re.sub(r"\d", "", cell.get("r"))
        if kind == "inlineStr":
            value = "text " + unescape("".join(t.text or "" for t in cell.iter(tag("t"))))
        elif kind == "s":
            value = "text " + shared[int(cell.find(tag("v")).text)]
        elif kind == "b":
            value = "flag " + cell.find(tag("v")).text
        else:
            value = ("number " + cell.find(tag("v")).text + " " + formats[int(cell.get("s", 0))]).strip()
        number = 0
        for letter in column:
            number = number * 26 + ord(letter) - 64
        cells[number - 1] = value
    rows.append(cells)
print(json.dumps([[row.get(i, "") for i in range(max(rows[0]) + 1)] for row in rows]))
"#;

fn read_sheet(book: &[u8]) -> Vec<Vec<String>> {
    let mut python = Command::new("python3")
        .args(["-c", READ_SHEET])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed by this test");
    python.stdin.take().expect("piped").write_all(book).expect("reads");
    let output = python.wait_with_output().expect("ends");
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("json")
}

#[test]
fn every_type_is_exact_in_a_workbook() {
    let cases = cases();
    let rows = read_sheet(&render(&answer(&cases), Format::Xlsx).expect("renders"));
    for (column, case) in cases.iter().enumerate() {
        assert_eq!(rows[0][column], format!("text {}", case.name));
        for (index, wanted) in case.cell.iter().enumerate() {
            let got = rows[index + 1][column].clone();
            let number = |text: &str| text.strip_prefix("number ")?.split(' ').next()?.parse::<f64>().ok();
            match (number(&got), number(wanted)) {
                (Some(left), Some(right)) => {
                    assert_eq!(left.to_bits(), right.to_bits(), "{}: {got}, not {wanted}", case.name);
                    assert_eq!(
                        got.split(' ').skip(2).collect::<Vec<_>>(),
                        wanted.split(' ').skip(2).collect::<Vec<_>>()
                    );
                }
                _ => assert_eq!(&got, wanted, "{}", case.name),
            }
        }
        assert_eq!(rows.get(3).map_or("", |row| &row[column]), "", "{}", case.name);
    }
}

#[test]
fn what_excel_cannot_hold_is_refused_by_name() {
    let long = "x".repeat(32_768);
    let texts = case("note", values!(StringArray, "short", long.as_str()), Kind::Text, ["", ""]);
    let other = case("id", values!(Int32Array, 1, 2), Kind::Number, ["1", "2"]);
    let refused = render(&answer(&[other, texts]), Format::Xlsx).expect_err("too long").to_string();
    assert!(refused.contains("B3") && refused.contains("note") && refused.contains("32767"), "{refused}");
    let rows = answer(&[case("n", Int32Array::from(vec![1; 1_048_576]), Kind::Number, ["1", "1"])]);
    let refused = render(&rows, Format::Xlsx).expect_err("too many").to_string();
    assert!(refused.contains("1048576 rows"), "{refused}");
    let refused = render(&rows, Format::Table).expect_err("too many").to_string();
    assert!(refused.contains("100000 rows") && refused.contains("csv"), "{refused}");
}

#[test]
fn values_that_cannot_be_shown_are_errors() {
    let far = || case("far", values!(TimestampSecondArray, i64::MAX, 0), Kind::Text, ["", ""]);
    for format in [Format::Csv, Format::Json, Format::Table, Format::Xlsx, Format::Parquet] {
        let refused = render(&answer(&[far()]), format);
        assert!(matches!(refused, Err(ExportError::Failed(_))), "{format:?}: {refused:?}");
    }
}

#[test]
fn an_answer_without_rows_has_its_columns() {
    let cases = cases();
    let empty = Answer { batches: Vec::new(), ..answer(&cases) };
    let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    let text = |format| String::from_utf8(render(&empty, format).expect("renders")).expect("text");
    assert_eq!(text(Format::Csv), format!("{}\n", names.join(",")));
    let json: serde_json::Value = serde_json::from_str(&text(Format::Json)).expect("json");
    assert_eq!((json["columns"].as_array().map(Vec::len), &json["rows"]), (Some(names.len()), &serde_json::json!([])));
    assert!(text(Format::Table).contains("| i8 | i16 "));
    let stream = render(&empty, Format::Arrow).expect("renders");
    let reader = StreamReader::try_new(stream.as_slice(), None).expect("a stream");
    assert_eq!((reader.schema().fields().len(), reader.count()), (names.len(), 0));
    let file = Bytes::from(render(&empty, Format::Parquet).expect("renders"));
    let file = ParquetRecordBatchReaderBuilder::try_new(file).expect("a file");
    assert_eq!(file.schema().fields().len(), names.len());
    assert_eq!(read_sheet(&render(&empty, Format::Xlsx).expect("renders")).len(), 1);
}

/// Rows of one number, counted as they are made.
struct Source {
    made: Arc<AtomicUsize>,
    rows: SendableRecordBatchStream,
}

fn source(rows: usize, fails: bool) -> Source {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let made = Arc::new(AtomicUsize::new(0));
    let (counted, of_batches) = (made.clone(), schema.clone());
    let batches = (0..rows.div_ceil(8192)).map(move |index| {
        let (first, last) = (index * 8192, (index * 8192 + 8192).min(rows));
        counted.fetch_add(last - first, Ordering::SeqCst);
        if fails && last == rows {
            return Err(DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None));
        }
        let numbers = Int64Array::from_iter_values((first..last).map(|n| 1_000_000 + n as i64));
        Ok(RecordBatch::try_new(of_batches.clone(), vec![Arc::new(numbers)])?)
    });
    let rows = RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches));
    Source { made, rows: Box::pin(rows) }
}

fn streamed(source: Source, format: Format) -> impl Stream<Item = Result<Bytes, ExportError>> + Unpin {
    let encoder = Encoder::new(format, &source.rows.schema(), &coverage()).expect("begins");
    let encoder = if format == Format::Csv { encoder.ending_with(csv_trailer(&coverage())) } else { encoder };
    Box::pin(pieces(source.rows, encoder, Duration::from_secs(60)))
}

/// Streams answers of any length, and compares the rows made with those whose bytes have arrived.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_is_never_in_memory() {
    for (format, rows, row_bytes, ahead) in [
        (Format::Csv, 3_000_000, 8, 50_000),
        (Format::Json, 400_000, 14, 50_000),
        (Format::Arrow, 3_000_000, 8, 80_000),
        // A row group of a million rows is in memory, in 8 MiB.
        (Format::Parquet, 3_000_000, 1, 1_200_000),
    ] {
        let source = source(rows, false);
        let made = source.made.clone();
        let (mut bytes, mut most) = (0, 0);
        let mut pieces = streamed(source, format);
        while let Some(piece) = pieces.next().await {
            let piece = piece.expect("goes on");
            assert!(piece.len() <= 256 << 10, "{format:?}: {}", piece.len());
            let taken = if format == Format::Parquet { rows * usize::from(bytes > 0) } else { bytes / row_bytes };
            most = most.max(made.load(Ordering::SeqCst).saturating_sub(taken));
            bytes += piece.len();
        }
        assert_eq!(made.load(Ordering::SeqCst), rows);
        println!("{format:?}: {bytes} bytes, at most {most} rows on their way");
        assert!(most < ahead, "{format:?}: {most} rows on their way");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_that_nobody_takes() {
    let source = source(3_000_000, false);
    let made = source.made.clone();
    let mut pieces = streamed(source, Format::Csv);
    pieces.next().await.expect("a piece").expect("the first");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ahead = made.load(Ordering::SeqCst);
    assert!(ahead < 80_000, "{ahead} rows were found");
    drop(pieces);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(made.load(Ordering::SeqCst) <= ahead + 8192, "it goes on for nobody");

    // Who takes nothing for too long is cut.
    let rows = self::source(3_000_000, false).rows;
    let encoder = Encoder::new(Format::Csv, &rows.schema(), &coverage()).expect("begins");
    let mut pieces = Box::pin(self::pieces(rows, encoder, Duration::from_millis(50)));
    pieces.next().await.expect("a piece").expect("the first");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut said = Vec::new();
    while let Some(piece) = pieces.next().await {
        said.push(piece);
    }
    assert!(said.iter().any(Result::is_err), "it is not whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_fails_late_does_not_look_whole() {
    for format in [Format::Csv, Format::Json, Format::Arrow, Format::Parquet, Format::Xlsx] {
        let mut pieces = streamed(source(100_000, true), format);
        let (mut bytes, mut errors) = (Vec::new(), Vec::new());
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(error) => errors.push(rollcall_types::describe(&error)),
            }
        }
        assert!(errors.len() == 1 && errors[0].contains("by zero"), "{format:?}: {errors:?}");
        let looks_whole = match format {
            Format::Csv => split_csv_trailer(&bytes).1.is_some(),
            Format::Json => serde_json::from_slice::<serde_json::Value>(&bytes).is_ok(),
            Format::Arrow => bytes.ends_with(&[255, 255, 255, 255, 0, 0, 0, 0]),
            Format::Parquet => ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).is_ok(),
            _ => !bytes.is_empty(),
        };
        assert!(!looks_whole, "{format:?}");
    }
}
