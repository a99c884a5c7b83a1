//! Bounds of the event time, one by one: exact where the zone is known.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    functions::datetime::expr_fn::date_trunc,
    logical_expr::{ColumnarValue, Expr, Volatility, cast, create_udf, ident},
};
use rollcall_types::Timestamp;

use super::{
    super::period::{EventTime, period},
    plans::literal,
    predicates::{timezone, utf8},
    rows::utc,
};

fn at(text: &str) -> i64 {
    format!("{text}Z").parse::<Timestamp>().expect("valid").as_micros()
}

fn zoned(zone: &str) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()))
}

fn of(filter: Expr) -> (Option<String>, Option<String>) {
    of_session(filter, None)
}

fn of_session(filter: Expr, session: Option<&str>) -> (Option<String>, Option<String>) {
    let (from, until) = period(&[filter], &EventTime { column: "sold_at", kind: &utc(), session });
    (from.map(|time| time.to_string()), until.map(|time| time.to_string()))
}

fn span(from: &str, until: &str) -> (Option<String>, Option<String>) {
    let some = |text: &str| Some(format!("{text}Z")).filter(|_| !text.is_empty());
    (some(from), some(until))
}

#[test]
fn times_through_zones_are_bounded_by_their_widest_meaning() {
    let (local, date) = (DataType::Timestamp(TimeUnit::Microsecond, None), DataType::Date32);
    let column = || ident("sold_at");
    let in_zone = |zone: &str| timezone().call(vec![utf8(Some(zone)), column()]);
    let day_in = |zone: &str| cast(cast(column(), zoned(zone)), DataType::Date32);
    let day = |text: &str| literal(at(&format!("{text}T00:00:00")), &DataType::Date32);
    let los_angeles = "America/Los_Angeles";
    for (filter, expected) in [
        (day_in(los_angeles).lt_eq(day("2026-11-20")), span("", "2026-11-21T08:00:00")),
        (day_in(los_angeles).gt_eq(day("2026-07-01")), span("2026-07-01T07:00:00", "")),
        (day_in("UTC").eq(day("2026-07-01")), span("2026-07-01T00:00:00", "2026-07-02T00:00:00")),
        (cast(in_zone(los_angeles), date.clone()).lt(day("2026-11-20")), span("", "2026-11-20T08:00:00")),
        // Half past one came twice that day.
        (
            in_zone(los_angeles).lt_eq(literal(at("2026-11-01T01:30:00"), &local)),
            span("", "2026-11-01T09:30:00.000001"),
        ),
        (in_zone(los_angeles).gt_eq(literal(at("2026-11-01T01:30:00"), &local)), span("2026-11-01T08:30:00", "")),
        // An abbreviation may be another zone's name; an offset has its sign turned.
        (in_zone("PST").lt(literal(at("2026-11-20T00:00:00"), &local)), span("", "2026-11-20T16:00:00")),
        (in_zone("+05:00").lt(literal(at("2026-11-20T00:00:00"), &local)), span("", "2026-11-20T16:00:00")),
        (in_zone("+23:00").lt(literal(at("2026-11-20T00:00:00"), &local)), span("", "")),
        (in_zone("nowhere at all").lt(literal(at("2026-11-20T00:00:00"), &local)), span("", "")),
        (
            date_trunc(utf8(Some("month")), column()).eq(literal(at("2026-03-01T00:00:00"), &utc())),
            span("2026-03-01T00:00:00", "2026-04-01T00:00:00"),
        ),
        (
            date_trunc(utf8(Some("week")), cast(column(), zoned("UTC")))
                .lt_eq(literal(at("2026-11-18T00:00:00"), &utc())),
            span("", "2026-11-23T00:00:00"),
        ),
        (day_in("UTC").in_list(vec![day("2026-01-03"), day("2026-01-01")], false), {
            span("2026-01-01T00:00:00", "2026-01-04T00:00:00")
        }),
        (day_in("UTC").in_list(vec![day("2026-01-03")], true), span("", "")),
        // Whether the zone is dropped before or after its offset is applied: both are let through.
        (
            cast(cast(column(), zoned("Asia/Kolkata")), local.clone()).lt(literal(at("2026-11-20T00:00:00"), &local)),
            span("", "2026-11-20T00:00:00"),
        ),
        (
            cast(cast(column(), zoned(los_angeles)), local.clone()).lt(literal(at("2026-11-20T00:00:00"), &local)),
            span("", "2026-11-20T08:00:00"),
        ),
        (cast(column(), DataType::Utf8).lt(utf8(Some("2026"))), span("", "")),
        // A literal of another kind than the value is compared in a way that is not known.
        (column().lt(literal(at("2026-11-20T00:00:00"), &local)), span("", "")),
    ] {
        assert_eq!(of(filter.clone()), expected, "{filter}");
    }
    // Truncated in the session's zone, whatever the type's.
    let month = date_trunc(utf8(Some("month")), cast(column(), zoned(los_angeles)));
    let month = month.eq(literal(at("2026-03-01T08:00:00"), &zoned(los_angeles)));
    assert_eq!(of_session(month, Some(los_angeles)), span("2026-03-01T08:00:00", "2026-04-01T07:00:00"));
    let day = date_trunc(utf8(Some("day")), column()).lt(literal(at("2026-11-20T00:00:00"), &utc()));
    assert_eq!(of_session(day.clone(), Some(los_angeles)), span("", "2026-11-20T08:00:00"));
    assert_eq!(of_session(day, Some("no zone at all")), span("", ""));
    let same = |arguments: &[ColumnarValue]| Ok(arguments[0].clone());
    let other = create_udf("to_local", vec![utc()], utc(), Volatility::Immutable, Arc::new(same));
    assert_eq!(of(other.call(vec![column()]).lt(literal(0, &utc()))), span("", ""));
}
