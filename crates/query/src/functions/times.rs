//! Which functions of times there are, and their forms.

use datafusion::logical_expr::{ScalarUDF, Volatility};

use super::{
    bytes, casts,
    catalogue::numbers_to_char,
    from_char,
    function::{Form, Function, form},
    intervals, json, moments,
    now::{Now, NowKind, clock},
    to_char,
    value::Kind::{self, Bytes, Date, Float8, Int4, Int8, Interval, List, Other, Text, Time, Timestamp, Timestamptz},
};

/// A function that depends on the session's zone at most.
fn stable(name: &'static str, forms: Vec<Form>) -> ScalarUDF {
    Function::udf(name, Volatility::Stable, forms)
}

fn immutable(name: &'static str, forms: Vec<Form>) -> ScalarUDF {
    Function::udf(name, Volatility::Immutable, forms)
}

pub(super) fn functions() -> Vec<ScalarUDF> {
    let (number, moment) = (Kind::Numeric, [Timestamptz, Timestamp]);
    let zones = [
        (Text, Timestamptz, Timestamp),
        (Text, Timestamp, Timestamptz),
        (Interval, Timestamptz, Timestamp),
        (Interval, Timestamp, Timestamptz),
    ];
    let zones = zones.into_iter().map(|(zone, from, to)| form(&[zone, from], to, moments::timezone)).collect();
    let parts = |gives: Kind, evaluate| {
        [Timestamptz, Timestamp, Date, Time, Interval].map(|of| form(&[Text, of], gives.clone(), evaluate))
    };
    let extract = parts(number, moments::extract).map(|form| form.giving(moments::extract_type)).into();
    let date_part = parts(Float8, moments::date_part).into();
    let overlapping = [Timestamptz, Timestamp, Time].into_iter().flat_map(|of| {
        [(of.clone(), of.clone()), (of.clone(), Interval), (Interval, of.clone()), (Interval, Interval)].map(
            |(first, second)| {
                let takes = [of.clone(), first, of.clone(), second];
                form(&takes, Kind::Bool, moments::overlaps).with_nulls()
            },
        )
    });
    vec![
        stable("timezone", zones),
        stable(
            "date_trunc",
            vec![
                form(&[Text, Timestamptz, Text], Timestamptz, moments::date_trunc).optional(1),
                form(&[Text, Timestamp], Timestamp, moments::date_trunc),
                form(&[Text, Interval], Interval, moments::date_trunc),
            ],
        ),
        stable("extract", extract),
        stable("date_part", date_part),
        stable(
            "date_bin",
            moment.clone().map(|of| form(&[Interval, of.clone(), of.clone()], of, moments::date_bin)).into(),
        ),
        stable("overlaps", overlapping.collect()),
        stable(
            "isfinite",
            [Timestamptz, Timestamp, Date, Interval].map(|of| form(&[of], Kind::Bool, moments::isfinite)).into(),
        ),
        stable("age", moment.map(|of| form(&[of.clone(), of], Interval, intervals::age)).into()),
        stable(
            "to_timestamp",
            vec![
                form(&[Float8], Timestamptz, intervals::of_epoch),
                form(&[Text, Text], Timestamptz, from_char::to_timestamp),
            ],
        ),
        stable("to_date", vec![form(&[Text, Text], Date, from_char::to_date)]),
        stable(
            "to_char",
            [Timestamptz, Timestamp, Interval]
                .map(|of| form(&[of, Text], Text, to_char::time_to_char))
                .into_iter()
                .chain(numbers_to_char())
                .collect(),
        ),
        Now::udf("now", NowKind::Moment),
        Now::udf("current_timestamp", NowKind::Moment),
        Now::udf("transaction_timestamp", NowKind::Moment),
        Now::udf("statement_timestamp", NowKind::Moment),
        Now::udf("localtimestamp", NowKind::Local),
        Now::udf("localtime", NowKind::LocalTime),
        Now::udf("current_date", NowKind::Today),
        Function::udf("clock_timestamp", Volatility::Volatile, vec![form(&[], Timestamptz, clock)]),
    ]
}

/// Spans, and times put together of numbers.
pub(super) fn of_spans() -> Vec<ScalarUDF> {
    let date = [Int4, Int4, Int4];
    let all = [Int4, Int4, Int4, Int4, Int4, Float8];
    let spans = [Int4, Int4, Int4, Int4, Int4, Int4, Float8];
    let mut of_zone = all.to_vec();
    of_zone.push(Text);
    vec![
        immutable("justify_hours", vec![form(&[Interval], Interval, intervals::justify_hours)]),
        immutable("justify_days", vec![form(&[Interval], Interval, intervals::justify_days)]),
        immutable("justify_interval", vec![form(&[Interval], Interval, intervals::justify_interval)]),
        immutable("make_interval", vec![form(&spans, Interval, intervals::make_interval).optional(7)]),
        immutable("make_date", vec![form(&date, Date, intervals::make_date)]),
        immutable("make_time", vec![form(&[Int4, Int4, Float8], Time, intervals::make_time)]),
        immutable("make_timestamp", vec![form(&all, Timestamp, intervals::make_timestamp)]),
        stable("make_timestamptz", vec![form(&of_zone, Timestamptz, intervals::make_timestamptz).optional(1)]),
    ]
}

pub(super) fn of_texts() -> Vec<ScalarUDF> {
    let texts = || List(Box::new(Text));
    let path = |evaluate| vec![form(&[Text, texts()], Text, evaluate), form(&[Text, Text], Text, evaluate)];
    let by = |evaluate| vec![form(&[Text, Text], Text, evaluate), form(&[Text, Int8], Text, evaluate)];
    vec![
        stable("rollcall_varchar", vec![form(&[Other, Int8], Text, casts::varchar)]),
        stable("pg_typeof", vec![form(&[Other], Text, casts::pg_typeof).with_nulls()]),
        immutable(
            "similar_to_escape",
            vec![form(&[Text, Text], Text, casts::similar_to_escape).optional(1).with_nulls()],
        ),
        immutable("byteain", vec![form(&[Text], Bytes, bytes::bytes_of)]),
        immutable("encode", vec![form(&[Bytes, Text], Text, bytes::encode)]),
        immutable("decode", vec![form(&[Text, Text], Bytes, bytes::decode)]),
        immutable("sha224", vec![form(&[Bytes], Bytes, bytes::sha224)]),
        immutable("sha256", vec![form(&[Bytes], Bytes, bytes::sha256)]),
        immutable("sha384", vec![form(&[Bytes], Bytes, bytes::sha384)]),
        immutable("sha512", vec![form(&[Bytes], Bytes, bytes::sha512)]),
        immutable("json_get", by(json::get)),
        immutable("json_get_text", by(json::get_text)),
        immutable("json_get_path", path(json::get_path)),
        immutable("json_get_path_text", path(json::get_path_text)),
        immutable("json_array_length", vec![form(&[Text], Int4, json::array_length)]),
        immutable("jsonb_array_length", vec![form(&[Text], Int4, json::array_length)]),
        immutable("json_typeof", vec![form(&[Text], Text, json::kind)]),
        immutable("jsonb_typeof", vec![form(&[Text], Text, json::kind)]),
    ]
}

/// Texts as values of these types, read as PostgreSQL reads them.
pub(super) fn of_literals() -> Vec<ScalarUDF> {
    let read = |to: Kind| vec![form(std::slice::from_ref(&to), to.clone(), |_, arguments| Ok(arguments[0].clone()))];
    vec![
        stable("interval_in", read(Interval)),
        stable("timestamp_in", read(Timestamp)),
        stable("timestamptz_in", read(Timestamptz)),
        stable("date_in", read(Date)),
        stable("time_in", read(Time)),
    ]
}
