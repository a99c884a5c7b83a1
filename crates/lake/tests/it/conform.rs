//! Stores that differ: other columns, other types, other zones.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt8Array, cast::AsArray, types::*,
};
use arrow_schema::{DataType, Field, Schema};
use rollcall_lake::{Column, ColumnType, SiteClock, TableSchema, conform};
use rollcall_types::columns;

fn sent(columns: Vec<(&str, &str, ArrayRef)>) -> RecordBatch {
    let rows = columns[0].2.len();
    let mut fields =
        vec![Field::new(columns::SEQ, DataType::Int64, false), Field::new(columns::OP, DataType::UInt8, false)];
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(1..=rows as i64)),
        Arc::new(UInt8Array::from_iter_values(std::iter::repeat_n(b'I', rows))),
    ];
    for (name, declared, array) in columns {
        let metadata = HashMap::from([(columns::METADATA_DECLARED.to_owned(), declared.to_owned())]);
        fields.push(Field::new(name, array.data_type().clone(), true).with_metadata(metadata));
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns match")
}

fn schema(columns: &[(&str, ColumnType)]) -> TableSchema {
    let columns: Vec<Column> = columns.iter().map(|(name, kind)| Column::new(name, *kind)).collect();
    TableSchema::for_sites(Vec::new()).merged(&columns).unwrap_or_else(|| TableSchema::for_sites(Vec::new()))
}

#[test]
fn what_a_cast_would_change_is_a_misfit() {
    let rows = sent(vec![
        ("qty", "REAL", Arc::new(Float64Array::from(vec![2.0, 2.5]))),
        ("price", "TEXT", Arc::new(StringArray::from(vec!["1.25", "cheap"]))),
        ("Note", "INTEGER", Arc::new(Int64Array::from(vec![7, 8]))),
    ]);
    let schema = schema(&[
        ("qty", ColumnType::Long),
        ("price", ColumnType::Decimal { digits: 10, fraction: 2 }),
        ("note", ColumnType::String),
    ]);
    let out = conform(&rows, &schema, SiteClock::default()).expect("conforms");
    assert!(out.new_columns.is_empty());
    assert_eq!(out.misfits, 1);
    let qty = out.rows.column_by_name("qty").expect("present").as_primitive::<Int64Type>();
    assert_eq!((qty.value(0), qty.is_null(1)), (2, true));
    let price = out.rows.column_by_name("price").expect("present").as_primitive::<Decimal128Type>();
    assert_eq!((price.value(0), price.is_null(1)), (125, true));
    assert_eq!(out.rows.column_by_name("note").expect("present").as_string::<i32>().value(1), "8");
    let misfits = out.rows.column_by_name("_misfit").expect("present").as_string::<i32>();
    assert!(misfits.is_null(0));
    assert_eq!(misfits.value(1), r#"{"price":"cheap","qty":"2.5"}"#);
}

#[test]
fn local_times_become_utc_and_keep_their_text() {
    let times = [
        "2026-03-08 01:59:59",
        "2026-03-08 02:30:00",
        "2026-11-01 01:30",
        "2026-07-01T12:00:00Z",
        "1767225600",
        "soon",
    ];
    let rows = sent(vec![("sold_at", "DATETIME", Arc::new(StringArray::from(times.to_vec())))]);
    let clock = SiteClock { zone: chrono_tz::America::Los_Angeles, offset_micros: 0 };
    let out = conform(&rows, &schema(&[]), clock).expect("conforms");
    let names: Vec<&str> = out.new_columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["sold_at", "sold_at_local"]);
    let utc = out.rows.column_by_name("sold_at").expect("present").as_primitive::<TimestampMicrosecondType>();
    let text = |row: usize| chrono::DateTime::from_timestamp_micros(utc.value(row)).expect("in range").to_rfc3339();
    assert_eq!(text(0), "2026-03-08T09:59:59+00:00");
    assert_eq!(text(1), "2026-03-08T10:30:00+00:00", "an hour that never came, read as before the change");
    assert_eq!(text(2), "2026-11-01T08:30:00+00:00", "an hour that came twice, read as the first");
    assert_eq!(text(3), "2026-07-01T12:00:00+00:00");
    assert_eq!(text(4), "2026-01-01T00:00:00+00:00");
    assert!(utc.is_null(5));
    let local = out.rows.column_by_name("sold_at_local").expect("present").as_string::<i32>();
    assert_eq!((local.value(2), local.is_null(3)), ("2026-11-01 01:30", true));
    assert_eq!(out.misfits, 1);
}

#[test]
fn names_meet_case_blind_and_ours_are_safe() {
    let value = || Arc::new(StringArray::from(vec!["x"])) as ArrayRef;
    let rows = sent(vec![("Unit Price", "TEXT", value()), ("_SITE", "TEXT", value())]);
    let out = conform(&rows, &schema(&[]), SiteClock::default()).expect("conforms");
    let names: Vec<_> =
        out.new_columns.iter().map(|column| (column.name.as_str(), column.site_name.as_deref())).collect();
    assert_eq!(names, [("unit_price", Some("Unit Price")), ("_site_", Some("_SITE"))]);
}

#[test]
fn rows_that_cannot_be_told_apart_are_left_out_and_said() {
    // Null stands for each value that does not fit its column: one row's update would hide all of
    // them.
    let keyed = |rows: RecordBatch| {
        let key = HashMap::from([(columns::METADATA_KEY.to_owned(), r#"["Sku","shop"]"#.to_owned())]);
        let schema = rows.schema().as_ref().clone().with_metadata(key);
        RecordBatch::try_new(Arc::new(schema), rows.columns().to_vec()).expect("columns match")
    };
    let shops = || Arc::new(Int64Array::from(vec![Some(1), Some(1), None, Some(1)])) as ArrayRef;
    let rows = keyed(sent(vec![
        ("Sku", "TEXT", Arc::new(StringArray::from(vec!["7", "A7", "8", "9"]))),
        ("shop", "INTEGER", shops()),
    ]));
    let out = conform(&rows, &schema(&[("sku", ColumnType::Long)]), SiteClock::default()).expect("conforms");
    let kept = out.rows.column_by_name(columns::SEQ).expect("present").as_primitive::<Int64Type>();
    assert_eq!(kept.values().to_vec(), [1, 2, 4], "a key that does not fit its column is kept as the store has it");
    let exact = out.rows.column_by_name(columns::EXACT_KEY).expect("present").as_string::<i32>();
    assert_eq!(exact.iter().collect::<Vec<_>>(), [None, Some(r#"["A7","1"]"#), None]);
    let reason = out.unidentified.expect("is said");
    assert!(reason.starts_with("1 of 4 rows") && reason.contains("(sku, shop)"), "{reason}");
    // A key column that is not there at all is null everywhere.
    let lacking = keyed(sent(vec![("shop", "INTEGER", shops())]));
    let out = conform(&lacking, &schema(&[]), SiteClock::default()).expect("conforms");
    assert_eq!(out.rows.num_rows(), 0);
    assert!(out.unidentified.is_some());
}

/// Goal: two keys that differ at the store differ at HQ, whatever type HQ has for them. Method:
/// texts that conversion would merge (a gap of summer time, spaces, other spellings of one
/// instant), in columns of every type, compared in pairs.
#[test]
fn keys_that_differ_at_the_store_differ_at_hq() {
    let texts = [
        "2026-03-08 02:30:00",
        "2026-03-08 03:30:00",
        "2026-03-08T03:30:00",
        "2026-03-08 03:30",
        "2026-03-08 03:30:00.0000001",
        "2026-03-08 03:30:00\u{a0}",
        "2026-03-08",
        " 2026-03-08",
        "2026-03-08 00:00:00",
        "7",
        "07",
        "7\u{a0}",
        "7.0",
        "7.000000001",
        "1767225600",
        "2026-01-01T00:00:00Z",
        "x",
        "X",
    ];
    let kinds = [
        ColumnType::Long,
        ColumnType::Double,
        ColumnType::Decimal { digits: 10, fraction: 2 },
        ColumnType::String,
        ColumnType::Date,
        ColumnType::Timestamp,
        ColumnType::Boolean,
    ];
    let clock = SiteClock { zone: chrono_tz::America::Los_Angeles, offset_micros: 0 };
    for kind in kinds {
        let rows = sent(vec![("k", "", Arc::new(StringArray::from(texts.to_vec())) as ArrayRef)]);
        let key = HashMap::from([(columns::METADATA_KEY.to_owned(), r#"["k"]"#.to_owned())]);
        let fields = rows.schema().as_ref().clone().with_metadata(key);
        let rows = RecordBatch::try_new(Arc::new(fields), rows.columns().to_vec()).expect("columns match");
        let out = conform(&rows, &schema(&[("k", kind)]), clock).expect("conforms");
        assert_eq!(out.rows.num_rows(), texts.len(), "{kind:?}: no row is left out: {:?}", out.unidentified);
        let options = arrow_cast::display::FormatOptions::default();
        let text = |name: &str, row: usize| {
            let column = out.rows.column_by_name(name)?;
            let column = &match column.data_type() {
                DataType::Timestamp(..) => arrow_cast::cast(column, &DataType::Int64).expect("casts"),
                _ => column.clone(),
            };
            let shown = arrow_cast::display::ArrayFormatter::try_new(column, &options).expect("shows");
            column.is_valid(row).then(|| shown.value(row).to_string())
        };
        let mut keys: Vec<_> = (0..texts.len()).map(|row| (text("k", row), text(columns::EXACT_KEY, row))).collect();
        keys.sort();
        let count = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), count, "{kind:?}: two keys became one");
    }
}

#[test]
fn times_keep_what_an_instant_cannot() {
    let times = [
        "2026-07-01 10:00:00.1234567",
        "2026-07-01T12:00:00.1234567Z",
        " 2026-07-01T12:00:00Z",
        "2026-07-01T12:00:00.1230000Z",
    ];
    let column = || Arc::new(StringArray::from(times.to_vec())) as ArrayRef;
    let out = conform(&sent(vec![("at", "DATETIME", column())]), &schema(&[]), SiteClock::default()).expect("conforms");
    let local = out.rows.column_by_name("at_local").expect("present").as_string::<i32>();
    let kept: Vec<Option<&str>> = local.iter().collect();
    assert_eq!(kept, [Some(times[0]), Some(times[1]), Some(times[2]), None]);
    assert_eq!(out.rows.column_by_name("at").expect("present").null_count(), 0);
    // Where the store has a column of that name itself, the value is kept whole beside the row.
    let own = Arc::new(Int64Array::from(vec![1, 2, 3, 4])) as ArrayRef;
    let rows = sent(vec![("at", "DATETIME", column()), ("at_local", "INTEGER", own)]);
    let out = conform(&rows, &schema(&[]), SiteClock::default()).expect("conforms");
    let misfits = out.rows.column_by_name("_misfit").expect("present").as_string::<i32>();
    assert_eq!(misfits.value(1), r#"{"at":"2026-07-01T12:00:00.1234567Z"}"#);
    assert!(misfits.is_null(3));
}

#[test]
fn a_stores_columns_called_like_ours_are_kept_and_are_not_ours() {
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let names = ["_seq", "_op", "_misfit", "_changed_at", "_exact_key", "_received_at", "_epoch"];
    let rows = sent(names.iter().map(|name| (*name, "TEXT", text(&format!("own {name}")))).collect());
    let out = conform(&rows, &schema(&[]), SiteClock::default()).expect("conforms");
    for name in names {
        let column = out.rows.column_by_name(&format!("{name}_")).expect("renamed").as_string::<i32>();
        assert_eq!(column.value(0), format!("own {name}"));
    }
    assert_eq!(out.rows.column_by_name("_seq").expect("ours").as_primitive::<Int64Type>().value(0), 1);
    assert!(out.rows.column_by_name("_misfit").is_none() && out.unidentified.is_none());
}

#[test]
fn a_value_that_does_not_fit_what_the_store_declares_may_fit_what_hq_has() {
    let rows = sent(vec![("price", "INTEGER", Arc::new(Int64Array::from(vec![None, Some(3), None])))]);
    let mut fields = rows.schema().fields().to_vec();
    fields.insert(2, Arc::new(Field::new(columns::MISFIT, DataType::Utf8, true)));
    let mut arrays = rows.columns().to_vec();
    let misfits = StringArray::from(vec![Some(r#"{"price":2.55}"#), None, Some(r#"{"price":"free"}"#)]);
    arrays.insert(2, Arc::new(misfits));
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns match");
    let wide = schema(&[("price", ColumnType::Decimal { digits: 21, fraction: 2 })]);
    let out = conform(&rows, &wide, SiteClock::default()).expect("conforms");
    let prices = out.rows.column_by_name("price").expect("present").as_primitive::<Decimal128Type>();
    assert_eq!(prices.iter().collect::<Vec<_>>(), [Some(255), Some(300), None]);
    let left = out.rows.column_by_name("_misfit").expect("present").as_string::<i32>();
    assert_eq!(left.iter().collect::<Vec<_>>(), [None, None, Some(r#"{"price":"free"}"#)]);
}
