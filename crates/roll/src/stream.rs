//! The words of the clock: how loud a silence is and when, what a stream goes by, what is said of
//! it.

use crate::surprise::Tails;

/// How loud a stream's silence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Loudness {
    /// As expected.
    #[default]
    Normal,
    /// Counts for grouping; nobody is told.
    Suspect,
    /// Late.
    Amber,
    /// Silent: an incident, on the screen.
    Red,
    /// A person is called.
    Page,
}

/// When a silence counts as what, in nines of surprise. Set by replaying history to an alarm
/// budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// `min(0.434·μ, S_tail)`, without regard to the evidence.
    pub suspect: f64,
    /// Nines.
    pub amber: f64,
    /// Nines.
    pub red: f64,
    /// Nines.
    pub page: f64,
    /// Business minutes without contact before contact is red.
    pub contact_minutes: f64,
    /// The cumulative sum at which a drop without a stop is shown.
    pub drop: f32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { suspect: 1.5, amber: 2.0, red: 4.0, page: 5.5, contact_minutes: 10.0, drop: 12.0 }
    }
}

/// A stream of one site: contact, or the rows of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(crate) u32);

/// Streams whose traffic rises and falls together: same unit, zone and kind of site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CohortId(pub(crate) u32);

/// A calendar known to the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalendarId(pub(crate) u32);

/// A shape known to the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShapeId(pub(crate) u32);

/// What a stream's clock goes by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// The week.
    pub shape: ShapeId,
    /// Events an hour where the shape is 1.
    pub level: f32,
    /// Events behind that.
    pub evidence: f32,
    /// Its healthy gaps.
    pub tails: Tails,
    /// Rows that an event brings, on average.
    pub rows_per_event: f32,
    /// The longest healthy silence that a lasting one is to be longer than, in expected events.
    pub longest: f32,
}

/// A stream became louder, or dropped without stopping.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transition {
    /// Which stream.
    pub stream: StreamId,
    /// When, Unix seconds.
    pub at: i64,
    /// What happened.
    pub what: Change,
}

/// See [`Transition`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It reached this loudness.
    Louder(Loudness),
    /// Its volume fell well below what is expected.
    Dropped,
    /// Its volume is back.
    Restored,
}

/// What an event ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gap {
    /// When the event before was, Unix seconds.
    pub from: i64,
    /// What was expected meanwhile.
    pub expected: f64,
    /// How loud the silence had become.
    pub loudness: Loudness,
    /// Whether most of its cohort was quiet with it, since a time that is quiet anyway, such as
    /// closing time: then it tells of the week of all, not of this site.
    pub with_cohort: bool,
    /// Whether it lies mostly in closed time: over a night, a Sunday.
    pub over_closed: bool,
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    /// The last event, Unix seconds.
    pub last: i64,
    /// μ: what was expected since.
    pub expected: f64,
    /// Nines.
    pub surprise: f64,
    /// Business minutes since: expected time at the stream's busiest rate.
    pub missed_minutes: f64,
    /// How loud it is.
    pub loudness: Loudness,
}

/// How much of what was expected of the fleet arrived, by contact.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heard {
    /// Minutes of contact expected in the last 5 minutes.
    pub expected: f64,
    /// Sites observed to sites expected, each counted alike however often it speaks.
    pub ratio: f64,
    /// The same, of the 10 minutes before.
    pub ratio_before: f64,
    /// Share of the cohorts with expectations that are below 0.75.
    pub low_cohorts: f64,
    /// Sites expected to speak now.
    pub sites: usize,
}
