//! Which event times the filters of a scan let through.
//!
//! A comparison bounds a value that was made from the event time in steps: casts, zones,
//! truncations. The bounds are taken back through these steps, from the last to the first, and each
//! gives them the widest meaning that the step allows. A step that is not understood leaves no
//! bound at all.

use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    common::ScalarValue,
    logical_expr::{Between, BinaryExpr, Cast, Expr, Operator, TryCast, expr::InList, expr::ScalarFunction},
};
use rollcall_types::Timestamp;

use super::zone::Zone;

const SECOND_MICROS: i64 = 1_000_000;
const MINUTE_MICROS: i64 = 60 * SECOND_MICROS;
const DAY_MICROS: i64 = 86_400 * SECOND_MICROS;

/// The event times that `filters` let through: from (included), until (excluded).
pub(super) fn period(filters: &[Expr], subject: &EventTime<'_>) -> (Option<Timestamp>, Option<Timestamp>) {
    let span = filters.iter().map(|filter| subject.span(filter)).fold(Span::default(), Span::and);
    (span.from.map(Timestamp::from_micros), span.until.map(Timestamp::from_micros))
}

/// From (included), until (excluded), in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Span {
    from: Option<i64>,
    until: Option<i64>,
}

impl Span {
    fn and(self, other: Self) -> Self {
        let from = self.from.max(other.from);
        let until = match (self.until, other.until) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self { from, until }
    }

    /// Either of the two.
    fn or(self, other: Self) -> Self {
        let until = self.until.zip(other.until).map(|(one, other)| one.max(other));
        Self { from: self.from.zip(other.from).map(|(one, other)| one.min(other)), until }
    }
}

/// One thing done to a time. Values are microseconds: of an instant, or of a local time or date as
/// if it were UTC.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// An instant became the local time of a zone.
    ToLocal(Zone),
    /// A local time of a zone became the instant.
    ToInstant(Zone),
    /// An instant lost its zone: its local time is left, or what it is in UTC.
    ZoneDropped(Zone),
    /// A date got a zone: it begins there, or in UTC.
    ZoneGiven(Zone),
    Floor(Grain),
    /// It moved by less than this.
    Rounded(i64),
}

impl Step {
    /// The values from which this step can have made one of `span`.
    fn back(self, span: Span) -> Span {
        let least = |zone: Zone, at: i64| zone.offsets(at).0;
        let most = |zone: Zone, at: i64| zone.offsets(at).1;
        let moved = |bound: Option<i64>, by: &dyn Fn(i64) -> i64| bound.map(|at| at.saturating_add(by(at)));
        let Span { from, until } = span;
        match self {
            Self::ToLocal(zone) => {
                Span { from: moved(from, &|at| -most(zone, at)), until: moved(until, &|at| -least(zone, at)) }
            }
            Self::ToInstant(zone) => {
                Span { from: moved(from, &|at| least(zone, at)), until: moved(until, &|at| most(zone, at)) }
            }
            Self::ZoneDropped(zone) => Span {
                from: moved(from, &|at| -most(zone, at).max(0)),
                until: moved(until, &|at| -least(zone, at).min(0)),
            },
            Self::ZoneGiven(zone) => Span {
                from: moved(from, &|at| least(zone, at).min(0)),
                until: moved(until, &|at| most(zone, at).max(0)),
            },
            Self::Floor(grain) => {
                let next = |bound: Option<i64>| bound.and_then(|at| grain.at_or_after(at));
                Span { from: next(from), until: next(until) }
            }
            Self::Rounded(by) => Span { from: moved(from, &|_| -by), until: moved(until, &|_| by) },
        }
    }
}

/// What times are truncated to.
#[derive(Debug, Clone, Copy)]
enum Grain {
    Micros(i64),
    Week,
    Months(i32),
}

impl Grain {
    fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "microsecond" => Self::Micros(1),
            "millisecond" => Self::Micros(1000),
            "second" => Self::Micros(SECOND_MICROS),
            "minute" => Self::Micros(MINUTE_MICROS),
            "hour" => Self::Micros(60 * MINUTE_MICROS),
            "day" => Self::Micros(DAY_MICROS),
            "week" => Self::Week,
            "month" => Self::Months(1),
            "quarter" => Self::Months(3),
            "year" => Self::Months(12),
            _ => return None,
        })
    }

    /// The first beginning at or after a time.
    fn at_or_after(self, micros: i64) -> Option<i64> {
        let whole = |micros: i64, grain: i64| {
            let rest = micros.rem_euclid(grain);
            if rest == 0 { Some(micros) } else { micros.checked_add(grain - rest) }
        };
        match self {
            Self::Micros(grain) => whole(micros, grain),
            // The first day of 1970 was a Thursday; weeks begin on Mondays.
            Self::Week => whole(micros.checked_add(3 * DAY_MICROS)?, 7 * DAY_MICROS)?.checked_sub(3 * DAY_MICROS),
            Self::Months(count) => {
                let date = DateTime::from_timestamp_micros(micros)?.date_naive();
                let month = date.year().checked_mul(12)?.checked_add(date.month0().try_into().ok()?)?;
                let first = month - month.rem_euclid(count);
                let begins = |month: i32| {
                    let month0 = u32::try_from(month.rem_euclid(12)).ok()?;
                    let date = NaiveDate::from_ymd_opt(month.div_euclid(12), month0 + 1, 1)?;
                    Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
                };
                let begun = begins(first)?;
                if begun == micros { Some(begun) } else { begins(first.checked_add(count)?) }
            }
        }
    }
}

/// What a value is, whatever its unit.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// An instant, shown in a zone.
    Instant(Zone),
    Local,
    Date,
}

impl Kind {
    fn of(kind: &DataType) -> Option<Self> {
        match kind {
            DataType::Timestamp(_, Some(zone)) => Some(Self::Instant(Zone::of_type(zone)?)),
            DataType::Timestamp(_, None) => Some(Self::Local),
            DataType::Date32 | DataType::Date64 => Some(Self::Date),
            _ => None,
        }
    }
}

/// A value that was made from the event time.
struct Made {
    steps: Vec<Step>,
    kind: Kind,
}

impl Made {
    fn and(mut self, steps: impl IntoIterator<Item = Step>, kind: Kind) -> Self {
        self.steps.extend(steps);
        Self { steps: self.steps, kind }
    }

    fn cast(self, to: &DataType) -> Option<Self> {
        let kind = Kind::of(to)?;
        let changed = match (self.kind, kind) {
            (Kind::Instant(_), Kind::Instant(_)) | (Kind::Local, Kind::Local) | (Kind::Date, Kind::Date) => None,
            (Kind::Instant(zone), Kind::Local) => Some(Step::ZoneDropped(zone)),
            (Kind::Instant(zone), Kind::Date) => Some(Step::ToLocal(zone)),
            (Kind::Local, Kind::Instant(zone)) => Some(Step::ToInstant(zone)),
            (Kind::Date, Kind::Instant(zone)) => Some(Step::ZoneGiven(zone)),
            (Kind::Local, Kind::Date) | (Kind::Date, Kind::Local) => None,
        };
        let coarse = match to {
            DataType::Timestamp(TimeUnit::Second, _) => Some(Step::Rounded(SECOND_MICROS)),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Some(Step::Rounded(1000)),
            DataType::Date32 | DataType::Date64 => Some(Step::Floor(Grain::Micros(DAY_MICROS))),
            _ => None,
        };
        Some(self.and(changed.into_iter().chain(coarse), kind))
    }

    /// By `date_trunc`: in the zone of its type, or of the session.
    fn truncated(self, grain: Grain, session: Option<Zone>) -> Option<Self> {
        let kind = self.kind;
        match (kind, grain) {
            (Kind::Date, _) => None,
            (Kind::Local, _) => Some(self.and([Step::Floor(grain)], kind)),
            // By less than an hour, the instant itself may be truncated: old zones are off by
            // seconds.
            (Kind::Instant(_), Grain::Micros(micros @ ..=MINUTE_MICROS)) => {
                Some(self.and([Step::Rounded(micros + MINUTE_MICROS)], kind))
            }
            (Kind::Instant(zone), _) => {
                let zone = zone.or(session?);
                Some(self.and([Step::ToLocal(zone), Step::Floor(grain), Step::ToInstant(zone)], kind))
            }
        }
    }

    fn at_zone(self, zone: Zone) -> Option<Self> {
        match self.kind {
            Kind::Instant(_) => Some(self.and([Step::ToLocal(zone)], Kind::Local)),
            Kind::Local => Some(self.and([Step::ToInstant(zone)], Kind::Instant(Zone::Some))),
            Kind::Date => None,
        }
    }
}

/// The column that says when rows happened.
pub(super) struct EventTime<'a> {
    pub(super) column: &'a str,
    pub(super) kind: &'a DataType,
    /// The session's time zone; UTC if none.
    pub(super) session: Option<&'a str>,
}

impl EventTime<'_> {
    /// The event times of rows that pass a filter.
    fn span(&self, filter: &Expr) -> Span {
        match filter {
            Expr::Alias(alias) => self.span(&alias.expr),
            Expr::IsTrue(inner) => self.span(inner),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => self.span(left).and(self.span(right)),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => self.span(left).or(self.span(right)),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let swapped = || self.compared(right, op.swap()?, left);
                self.compared(left, *op, right).or_else(swapped).unwrap_or_default()
            }
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let from = self.compared(expr, Operator::GtEq, low).unwrap_or_default();
                from.and(self.compared(expr, Operator::LtEq, high).unwrap_or_default())
            }
            Expr::InList(InList { expr, list, negated: false }) => {
                let each = list.iter().map(|value| self.compared(expr, Operator::Eq, value).unwrap_or_default());
                each.reduce(Span::or).unwrap_or_default()
            }
            _ => Span::default(),
        }
    }

    /// The event times of which a comparison with a literal is true; none if it is not understood.
    fn compared(&self, subject: &Expr, op: Operator, bound: &Expr) -> Option<Span> {
        let Expr::Literal(value, _) = bound else { return None };
        let made = self.made(subject)?;
        let (whole, has_rest) = micros(value)?;
        let is_alike = matches!(
            (made.kind, Kind::of(&value.data_type())?),
            (Kind::Instant(_), Kind::Instant(_)) | (Kind::Local, Kind::Local) | (Kind::Date, Kind::Date)
        );
        if !is_alike {
            return None;
        }
        let after = Some(whole.saturating_add(1));
        let span = match op {
            Operator::Lt => Span { from: None, until: if has_rest { after } else { Some(whole) } },
            Operator::LtEq => Span { from: None, until: after },
            Operator::Eq | Operator::IsNotDistinctFrom => Span { from: Some(whole), until: after },
            Operator::GtEq | Operator::Gt => Span { from: Some(whole), until: None },
            _ => return None,
        };
        Some(made.steps.into_iter().rev().fold(span, |span, step| step.back(span)))
    }

    /// How an expression is made from the event time.
    fn made(&self, expr: &Expr) -> Option<Made> {
        match expr {
            Expr::Column(column) if column.name == self.column => {
                let kind = Kind::of(self.kind).filter(|kind| matches!(kind, Kind::Instant(_)))?;
                Some(Made { steps: Vec::new(), kind })
            }
            Expr::Alias(alias) => self.made(&alias.expr),
            Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
                self.made(expr)?.cast(field.data_type())
            }
            Expr::ScalarFunction(ScalarFunction { func, args }) => {
                let [Expr::Literal(how, _), time] = args.as_slice() else { return None };
                let how = how.try_as_str()??;
                match func.name() {
                    "date_trunc" => {
                        self.made(time)?.truncated(Grain::named(how)?, Zone::named(self.session.unwrap_or("UTC")))
                    }
                    "timezone" => self.made(time)?.at_zone(Zone::named(how)?),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// A literal in microseconds, and whether there was more of it.
fn micros(value: &ScalarValue) -> Option<(i64, bool)> {
    let whole = |value: i64, micros: i64| Some((value.checked_mul(micros)?, false));
    match value {
        ScalarValue::TimestampSecond(Some(value), _) => whole(*value, SECOND_MICROS),
        ScalarValue::TimestampMillisecond(Some(value), _) | ScalarValue::Date64(Some(value)) => whole(*value, 1000),
        ScalarValue::TimestampMicrosecond(Some(value), _) => whole(*value, 1),
        ScalarValue::TimestampNanosecond(Some(value), _) => Some((value.div_euclid(1000), value.rem_euclid(1000) != 0)),
        ScalarValue::Date32(Some(value)) => whole(i64::from(*value), DAY_MICROS),
        _ => None,
    }
}
