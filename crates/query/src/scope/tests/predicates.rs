//! Random predicates, those over times with casts through zones.

use std::sync::Arc;

use chrono::{DateTime, Offset, TimeZone};
use datafusion::{
    arrow::{
        array::{AsArray, TimestampMicrosecondArray, timezone::Tz},
        compute::cast as cast_array,
        datatypes::{DataType, TimeUnit, TimestampMicrosecondType},
    },
    common::{Result, ScalarValue},
    functions::{datetime::expr_fn::date_trunc, string::expr_fn::upper},
    logical_expr::{
        Between, BinaryExpr, ColumnarValue, Expr, Operator, ScalarUDF, Volatility, cast, create_udf, lit, not, try_cast,
    },
};
use rand::Rng;

use super::{
    plans::{Plans, Typed, UNITS, is_text, is_time, literal},
    rows,
};

const ZONES: [&str; 6] =
    ["UTC", "America/Los_Angeles", "Asia/Kolkata", "Pacific/Kiritimati", "+05:00", "Pacific/Pago_Pago"];
const GRAINS: [&str; 8] = ["minute", "hour", "day", "week", "month", "quarter", "year", "second"];

pub(super) fn utf8(text: Option<&str>) -> Expr {
    lit(ScalarValue::Utf8(text.map(str::to_owned)))
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

pub(super) fn not_distinct(left: Expr, right: Expr) -> Expr {
    binary(left, Operator::IsNotDistinctFrom, right)
}

/// `timezone(zone, time)`, which `AT TIME ZONE` is in PostgreSQL: an instant becomes the local time
/// there.
pub(super) fn timezone() -> ScalarUDF {
    let arguments = vec![DataType::Utf8, rows::utc()];
    let local = DataType::Timestamp(TimeUnit::Microsecond, None);
    let kind = local.clone();
    let work = move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let (zones, times) = (arrays[0].as_string::<i32>(), cast_array(&arrays[1], &rows::utc())?);
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let moved = zones.iter().zip(times.iter()).map(|(zone, micros)| {
            let zone: Tz = zone?.parse().ok()?;
            let at = DateTime::from_timestamp_micros(micros?)?.naive_utc();
            let offset = zone.offset_from_utc_datetime(&at).fix().local_minus_utc();
            Some(micros? + i64::from(offset) * 1_000_000)
        });
        Ok(ColumnarValue::Array(Arc::new(moved.collect::<TimestampMicrosecondArray>())))
    };
    create_udf("timezone", arguments, kind, Volatility::Immutable, Arc::new(work))
}

impl Plans {
    /// A predicate over some of these columns; it asks other plans only where `depth` is more than
    /// 0.
    pub(super) fn predicate(&mut self, columns: &[Typed], depth: u32) -> Result<Expr> {
        match self.random.random_range(0..20) {
            0..3 => Ok(self.predicate(columns, depth)?.and(self.predicate(columns, depth)?)),
            3 | 4 => Ok(self.predicate(columns, depth)?.or(self.predicate(columns, depth)?)),
            5 => Ok(not(self.predicate(columns, depth)?)),
            6 => {
                let inner = self.predicate(columns, depth)?;
                Ok(match self.random.random_range(0..3) {
                    0 => Expr::IsNotTrue(Box::new(inner)),
                    1 => Expr::IsTrue(Box::new(inner)),
                    _ => Expr::IsUnknown(Box::new(inner)),
                })
            }
            7..10 if depth > 0 => self.of_subquery(columns, depth - 1),
            _ => Ok(self.of_column(columns)),
        }
    }

    fn of_column(&mut self, columns: &[Typed]) -> Expr {
        let times: Vec<Typed> = columns.iter().filter(|(_, kind)| is_time(kind)).cloned().collect();
        let (column, kind) = if !times.is_empty() && self.chance(30) { self.pick(&times) } else { self.pick(columns) };
        let column = Expr::Column(column);
        if self.chance(8) {
            return if self.chance(50) { column.is_null() } else { column.is_not_null() };
        }
        match &kind {
            kind if is_text(kind) => self.of_text(columns, column),
            kind if is_time(kind) => self.of_times(columns, column, kind.clone()),
            DataType::Boolean => column,
            _ => {
                let op = self.pick(&[Operator::Lt, Operator::GtEq, Operator::Eq, Operator::NotEq]);
                binary(column, op, lit(self.random.random_range(0..4_i64)))
            }
        }
    }

    fn of_text(&mut self, columns: &[Typed], column: Expr) -> Expr {
        let texts: Vec<Typed> = columns.iter().filter(|(_, kind)| is_text(kind)).cloned().collect();
        let text = self.pick(&rows::TEXTS);
        let text = utf8(Some(text));
        match self.random.random_range(0..12) {
            0..4 => column.eq(text),
            4 => column.not_eq(text),
            5 => column.in_list(vec![text, utf8(Some("s1")), utf8(Some("s2"))], self.chance(30)),
            6 => column.like(utf8(Some("s%"))),
            7 => not_distinct(column, text),
            8 => binary(column, Operator::IsDistinctFrom, text),
            9 => upper(column).lt_eq(utf8(Some("S1"))),
            10 => datafusion::functions::core::expr_fn::coalesce(vec![column, utf8(Some("s0"))]).eq(text),
            _ => {
                let other = Expr::Column(self.pick(&texts).0);
                if self.chance(50) { column.eq(other) } else { not_distinct(column, other) }
            }
        }
    }

    /// A time by way of casts, zones and truncations.
    pub(super) fn of_time(&mut self, mut time: Expr, mut kind: DataType) -> (Expr, DataType) {
        // The day, or the hour, of a zone: what people ask for.
        if matches!(kind, DataType::Timestamp(..)) && self.chance(40) {
            let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some(self.pick(&ZONES).into()));
            let in_zone = cast(time, zoned.clone());
            return match self.random.random_range(0..3) {
                0 | 1 => (cast(in_zone, DataType::Date32), DataType::Date32),
                _ => (date_trunc(utf8(Some(self.pick(&["day", "hour", "month"]))), in_zone), zoned),
            };
        }
        for _ in 0..self.pick(&[0, 0, 1, 1, 2, 3]) {
            let zone = self.pick(&ZONES);
            let is_zoned = matches!(kind, DataType::Timestamp(_, Some(_)));
            (time, kind) = match self.random.random_range(0..10) {
                0..4 => {
                    let unit = self.pick(&UNITS);
                    let kind = DataType::Timestamp(unit, Some(zone.into()).filter(|_| self.chance(70)));
                    (if self.chance(90) { cast(time, kind.clone()) } else { try_cast(time, kind.clone()) }, kind)
                }
                4..6 => (cast(time, DataType::Date32), DataType::Date32),
                6..8 if kind != DataType::Date32 => {
                    let grain = self.pick(&GRAINS);
                    (date_trunc(utf8(Some(grain)), time), kind)
                }
                _ if is_zoned => {
                    let local = DataType::Timestamp(TimeUnit::Microsecond, None);
                    (timezone().call(vec![utf8(Some(zone)), time]), local)
                }
                _ => (time, kind),
            };
        }
        (time, kind)
    }

    fn of_times(&mut self, columns: &[Typed], column: Expr, kind: DataType) -> Expr {
        let (time, kind) = self.of_time(column, kind);
        // Literals of another zone, or of none, are compared after the analyser's own casts.
        let of_literal = if self.chance(85) {
            kind
        } else {
            let zone = self.pick(&ZONES);
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()).filter(|_| self.chance(70)))
        };
        let bound = |plans: &mut Self| literal(rows::time(&mut plans.random, plans.about), &of_literal);
        match self.random.random_range(0..14) {
            0 => {
                let (low, high) = (Box::new(bound(self)), Box::new(bound(self)));
                Expr::Between(Between { expr: Box::new(time), negated: self.chance(20), low, high })
            }
            1 => {
                let list = (0..self.random.random_range(1..6)).map(|_| bound(self)).collect();
                time.in_list(list, self.chance(20))
            }
            2 => not_distinct(time, bound(self)),
            3 => {
                let times: Vec<Typed> = columns.iter().filter(|(_, kind)| is_time(kind)).cloned().collect();
                let other = Expr::Column(self.pick(&times).0);
                if self.chance(50) { time.eq(other) } else { time.lt(other) }
            }
            _ => {
                let op = self.pick(&[
                    Operator::Lt,
                    Operator::Lt,
                    Operator::LtEq,
                    Operator::LtEq,
                    Operator::Gt,
                    Operator::GtEq,
                    Operator::GtEq,
                    Operator::Eq,
                    Operator::NotEq,
                    Operator::IsDistinctFrom,
                ]);
                let bound = bound(self);
                match op.swap() {
                    Some(swapped) if self.chance(30) => binary(bound, swapped, time),
                    _ => binary(time, op, bound),
                }
            }
        }
    }
}
