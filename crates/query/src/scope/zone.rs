//! How far local times are from UTC.

use chrono::{DateTime, Offset, TimeZone};
use datafusion::arrow::array::timezone::Tz;

const HOUR_MICROS: i64 = 3_600_000_000;
/// No zone was ever further from UTC.
const FARTHEST_MICROS: i64 = 16 * HOUR_MICROS;
/// Offsets this near in time, in hours, are taken to be possible: more than two zones can be apart.
const NEAR_HOURS: i64 = 33;

/// A time zone, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Zone {
    Known(Tz),
    /// One of two.
    Either(Tz, Tz),
    /// It is one, but not known which, or what is meant by its name.
    Some,
}

impl Zone {
    /// The zone of a type.
    pub(super) fn of_type(name: &str) -> Option<Self> {
        name.parse().ok().map(Self::Known)
    }

    /// The zone that PostgreSQL means. It reads offsets with the sign turned, has abbreviations of
    /// its own that are no zone's name, or another's, and takes offsets of a week.
    pub(super) fn named(name: &str) -> Option<Self> {
        let is_abbreviation = name.len() <= 5 && name.chars().all(|letter| letter.is_ascii_alphabetic());
        match Self::of_type(name) {
            Some(known) if name.contains('/') || name == "UTC" || name == "+00:00" => Some(known),
            Some(known) => {
                let (least, most) = known.offsets(0);
                (least.abs().max(most.abs()) <= FARTHEST_MICROS).then_some(Self::Some)
            }
            None => is_abbreviation.then_some(Self::Some),
        }
    }

    /// One of two.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Known(one), Self::Known(other)) => Self::Either(one, other),
            _ => Self::Some,
        }
    }

    /// The least and the greatest offset from UTC that a local time, or an instant, near this may
    /// have.
    pub(super) fn offsets(self, micros: i64) -> (i64, i64) {
        let farthest = (-FARTHEST_MICROS, FARTHEST_MICROS);
        match self {
            Self::Known(zone) => offsets_near(zone, micros).unwrap_or(farthest),
            Self::Either(one, other) => {
                let (one, other) = (Self::Known(one).offsets(micros), Self::Known(other).offsets(micros));
                (one.0.min(other.0), one.1.max(other.1))
            }
            Self::Some => farthest,
        }
    }
}

fn offsets_near(zone: Tz, micros: i64) -> Option<(i64, i64)> {
    let offset = |hours: i64| {
        let at = DateTime::from_timestamp_micros(micros.checked_add(hours * HOUR_MICROS)?)?;
        let offset = zone.offset_from_utc_datetime(&at.naive_utc()).fix();
        Some(i64::from(offset.local_minus_utc()) * 1_000_000)
    };
    let near: Vec<i64> = (-NEAR_HOURS..=NEAR_HOURS).map(offset).collect::<Option<_>>()?;
    Some((*near.iter().min()?, *near.iter().max()?))
}
