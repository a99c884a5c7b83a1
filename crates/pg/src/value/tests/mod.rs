//! Every value against what a PostgreSQL 15 sent for the same value, as text and as binary.

mod postgres;

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, Decimal128Array, Decimal256Array, DictionaryArray, Int32Array, ListArray, NullArray, RecordBatch,
    StringArray, StructArray, TimestampMicrosecondArray,
    builder::{Int32Builder, ListBuilder, StringBuilder, TimestampSecondBuilder},
    types::Int32Type,
};
use arrow_buffer::i256;
use arrow_schema::{DataType, Field, Schema};
use bytes::Buf as _;
use pgwire::api::{Type, results::FieldFormat};

use super::{Encoder, ValueError, Zone, pg_type, type_len};

fn batch_of(field: Field, array: ArrayRef) -> RecordBatch {
    RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).expect("a batch")
}

fn batch(array: ArrayRef) -> RecordBatch {
    batch_of(Field::new("value", array.data_type().clone(), true), array)
}

fn values(batch: &RecordBatch, format: FieldFormat, zone: &str) -> Result<Vec<Option<Vec<u8>>>, ValueError> {
    let zone = Zone::parse(zone).expect("a zone");
    let mut encoder = Encoder::new(batch, &[format], &zone)?;
    let row = |row| {
        let mut bytes = encoder.encode_row(row)?;
        let len = usize::try_from(bytes.get_i32()).ok();
        assert_eq!(bytes.len(), len.unwrap_or(0));
        Ok(len.map(|_| bytes.to_vec()))
    };
    (0..batch.num_rows()).map(row).collect()
}

fn texts_of(batch: &RecordBatch) -> Vec<Option<String>> {
    let values = values(batch, FieldFormat::Text, "UTC").expect("texts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    values.into_iter().map(|value| value.map(text)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check(name: &str, zone: &str, array: ArrayRef, expected: &[(&str, &str)]) {
    let batch = batch(array);
    let text = values(&batch, FieldFormat::Text, zone).expect("texts");
    let binary = values(&batch, FieldFormat::Binary, zone).expect("binary values");
    assert_eq!(text.len(), expected.len(), "{name}");
    for ((text, binary), (expected_text, expected_hex)) in text.iter().zip(&binary).zip(expected) {
        let text = String::from_utf8_lossy(text.as_deref().expect("a value"));
        assert_eq!(text, *expected_text, "{name} in {zone}");
        let binary = hex(binary.as_deref().expect("a value"));
        assert_eq!(binary, *expected_hex, "{name} {expected_text}");
    }
}

fn decimal(values: &[i128], precision: u8, scale: i8) -> ArrayRef {
    let array = Decimal128Array::from(values.to_vec());
    Arc::new(array.with_precision_and_scale(precision, scale).expect("a decimal"))
}

fn wide_decimal(digits: &str, scale: i8) -> ArrayRef {
    let value = i256::from_string(digits).expect("digits");
    let array = Decimal256Array::from(vec![value, -value]);
    Arc::new(array.with_precision_and_scale(76, scale).expect("a decimal"))
}

fn texts(rows: &[&[Option<&str>]]) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in rows {
        for value in *row {
            lists.values().append_option(*value);
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}

fn numbers() -> ArrayRef {
    let rows = vec![Some(vec![Some(1), None, Some(-3)]), Some(vec![]), Some(vec![Some(7)])];
    Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows))
}

fn nested(rows: &[Vec<Vec<i32>>]) -> ArrayRef {
    let mut lists = ListBuilder::new(ListBuilder::new(Int32Builder::new()));
    for row in rows {
        for inner in row {
            lists.values().append_value(inner.iter().map(|value| Some(*value)));
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}

fn moments() -> ArrayRef {
    let mut lists = ListBuilder::new(TimestampSecondBuilder::new());
    lists.append_value([Some(1), None]);
    Arc::new(lists.finish())
}

fn record() -> ArrayRef {
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(-2), Some(3)]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a b"), Some(""), Some("q\"(\\,"), None]));
    let number = Arc::new(Field::new("n", DataType::Int32, true));
    let text = Arc::new(Field::new("t", DataType::Utf8, true));
    Arc::new(StructArray::from(vec![(number, numbers), (text, texts)]))
}

#[test]
fn null_is_no_value_in_any_column() {
    let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("b"), Some("a")].into_iter().collect();
    let texts = texts_of(&batch(Arc::new(dictionary)));
    assert_eq!(texts, [Some("a"), None, Some("b"), Some("a")].map(|text| text.map(str::to_owned)));

    let of_nulls = batch(Arc::new(NullArray::new(2)));
    assert_eq!(texts_of(&of_nulls), [None, None]);
    assert_eq!(values(&of_nulls, FieldFormat::Binary, "UTC"), Ok(vec![None, None]));

    let keys = Int32Array::from(vec![None, None]);
    let empty = DictionaryArray::new(keys, Arc::new(StringArray::from(Vec::<&str>::new())));
    assert_eq!(texts_of(&batch(Arc::new(empty))), [None, None]);

    // A value that stands where a key points may be missing as well.
    let keys = Int32Array::from(vec![0, 1]);
    let holes = DictionaryArray::new(keys, Arc::new(StringArray::from(vec![None, Some("x")])));
    assert_eq!(texts_of(&batch(Arc::new(holes))), [None, Some("x".to_owned())]);
}

#[test]
fn a_slice_of_a_batch_has_its_own_rows() {
    let all = batch(texts(&[&[Some("a")], &[Some("b"), None], &[Some("c")]]));
    assert_eq!(texts_of(&all.slice(1, 1)), [Some("{b,NULL}".to_owned())]);
    let all = batch(record());
    assert_eq!(texts_of(&all.slice(3, 1)), [Some("(3,)".to_owned())]);
}

#[test]
fn numbers_of_the_catalogue_have_its_types() {
    let tagged = |kind: &str| {
        let metadata = HashMap::from([("pg.oid_alias".to_owned(), kind.to_owned())]);
        Field::new("oid", DataType::Int32, true).with_metadata(metadata)
    };
    assert_eq!(pg_type(&tagged("oid")), Ok(Type::OID));
    assert_eq!(pg_type(&tagged("regclass")), Ok(Type::REGCLASS));
    assert_eq!(pg_type(&tagged("something else")), Ok(Type::INT4));
    let batch = batch_of(tagged("oid"), Arc::new(Int32Array::from(vec![-1, 16_384])));
    assert_eq!(texts_of(&batch), [Some("4294967295".to_owned()), Some("16384".to_owned())]);
    let binary = values(&batch, FieldFormat::Binary, "UTC").expect("binary values");
    assert_eq!(binary[0].as_deref(), Some(&[255_u8; 4][..]));

    let list = Field::new("oids", DataType::List(Arc::new(tagged("oid"))), true);
    assert_eq!(pg_type(&list), Ok(Type::OID_ARRAY));

    let vector = |kind: &str, texts: Vec<&str>| {
        let metadata = HashMap::from([("pg.vector".to_owned(), kind.to_owned())]);
        let field = Field::new("numbers", DataType::Utf8, true).with_metadata(metadata);
        batch_of(field, Arc::new(StringArray::from(texts)))
    };
    let short = vector("int2vector", vec!["1 -2", ""]);
    assert_eq!(texts_of(&short), [Some("1 -2".to_owned()), Some(String::new())]);
    let binary = values(&short, FieldFormat::Binary, "UTC").expect("binary values");
    let head = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 21];
    let two = [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 2, 255, 254];
    assert_eq!(binary[0].as_deref(), Some(&[&head[..], &two].concat()[..]));
    assert_eq!(binary[1].as_deref(), Some(&[&head[..], &[0; 8]].concat()[..]));
    let numbers = values(&vector("oidvector", vec!["26"]), FieldFormat::Binary, "UTC").expect("binary values");
    let one = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 26, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 26];
    assert_eq!(numbers[0].as_deref(), Some(&one[..]));

    let metadata = HashMap::from([("pg.char".to_owned(), String::new())]);
    let kind = Field::new("typtype", DataType::Utf8, true).with_metadata(metadata);
    assert_eq!((pg_type(&kind), type_len(&Type::CHAR)), (Ok(Type::CHAR), 1));
    let batch = batch_of(kind, Arc::new(StringArray::from(vec!["b", ""])));
    let binary = values(&batch, FieldFormat::Binary, "UTC").expect("binary values");
    assert_eq!(binary, [Some(b"b".to_vec()), Some(vec![0])]);
}

#[test]
fn what_postgres_cannot_hold_is_an_error_and_the_next_row_is_not_hurt() {
    let ragged = batch(nested(&[vec![vec![1], vec![2, 3]], vec![vec![4]]]));
    let zone = Zone::utc();
    let mut encoder = Encoder::new(&ragged, &[FieldFormat::Text], &zone).expect("an encoder");
    assert_eq!(encoder.encode_row(0).map_err(|error| error.code), Err("2202E"));
    assert_eq!(encoder.encode_row(1).expect("a row")[..], *b"\0\0\0\x05{{4}}");
    assert_eq!(encoder.encode_row(2).map_err(|error| error.code), Err("XX000"));

    let late = TimestampMicrosecondArray::from(vec![i64::MIN, i64::MAX]).with_timezone("UTC");
    let late = batch(Arc::new(late));
    assert!(values(&late, FieldFormat::Text, "Asia/Tokyo").is_err());
    assert!(values(&late, FieldFormat::Binary, "UTC").is_err());
    assert!(Encoder::new(&ragged, &[], &zone).is_err());
}

/// Names, and the offset on 2026-01-01, as PostgreSQL answers `SHOW TimeZone`.
#[test]
fn zones_are_read_as_postgres_reads_them() {
    const NEW_YEAR: i64 = 1_767_225_600;
    let known = [
        ("utc", "UTC", 0),
        ("america/los_angeles", "America/Los_Angeles", -8 * 3600),
        ("EST5EDT", "EST5EDT", -5 * 3600),
        ("Etc/GMT+5", "Etc/GMT+5", -5 * 3600),
        ("GMT", "GMT", 0),
        ("-8", "<-08>+08", -8 * 3600),
        ("-8.5", "<-08:30>+08:30", -8 * 3600 - 1800),
        ("5.75", "<+05:45>-05:45", 5 * 3600 + 2700),
        (" 3", "<+03>-03", 3 * 3600),
        ("0", "<+00>-00", 0),
        ("25", "<+25>-25", 25 * 3600),
        ("<+03>-3", "<+03>-3", 3 * 3600),
        ("<-03>3", "<-03>3", -3 * 3600),
        ("<+03:30>-03:30", "<+03:30>-03:30", 3 * 3600 + 1800),
        ("UTC+3", "UTC+3", -3 * 3600),
        ("foo3", "FOO3", -3 * 3600),
        ("abc+03:30", "ABC+03:30", -3 * 3600 - 1800),
        ("UTC0", "UTC0", 0),
        ("+02:00", "+02:00", -2 * 3600),
    ];
    for (given, name, offset) in known {
        let zone = Zone::parse(given).unwrap_or_else(|error| panic!("{given}: {error}"));
        assert_eq!((zone.name(), zone.offset_at(NEW_YEAR)), (name, offset), "{given}");
    }
    let unknown = [
        "",
        "Z",
        "PST",
        "170",
        "-05:30:15",
        "+0530",
        "abc3,",
        "foo3bar",
        "inf",
        "<x",
        "<>",
        "Mars/Base",
        "abc",
        "UTC+",
        "ü3",
        "<ü>3",
        "+1:2:3:4",
        "1e400",
        "+99999999999999999999",
    ];
    for name in unknown {
        assert!(Zone::parse(name).is_err(), "{name}");
    }
    assert_eq!(Zone::fixed(19_800).expect("a zone").name(), "<+05:30>-05:30");
}
