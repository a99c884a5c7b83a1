//! Calls the roll: turns what was heard of sites into states and incidents. Pure logic: time is an
//! argument, there is no I/O.
//!
//! - [`Calendar`]: when a site is open, as far as people said.
//! - [`Counts`], [`Gaps`], [`Shape`]: its rhythm, learned from healthy past only.
//! - [`Clock`]: what was missed since the last event, and how surprising that is ([`surprise()`]).
//! - [`Guard`]: whether HQ itself can hear; `groups`: what silent sites have in common.
//! - [`Incident`]: what a person should know; it only gets louder.
//! - [`Watch`]: all of it together.
//!
//! A site is expected because it is on the roster, never because it was heard recently, and its
//! silence never gets quieter with time. The formulas and where they come from are in
//! `docs/silence.md`.
#![forbid(unsafe_code)]

mod calendar;
mod chronic;
mod clock;
mod cohort;
mod cohorts;
mod consequence;
mod group;
mod grouping;
mod groups;
mod guard;
mod incident;
mod incidents;
mod learn;
mod memory;
mod replay;
mod respond;
mod rhythm;
mod shape;
mod silence;
mod site;
mod sites;
mod stream;
mod streams;
mod surprise;
mod tuning;
mod verdict;
mod watch;

pub use calendar::{Calendar, Closure, Hours, InvalidHours};
pub use clock::Clock;
pub use group::{Group, Trait, groups, log_likelihood_ratio};
pub use guard::{Deafness, Guard, Signs};
pub use incident::{
    Attribute, Condition, Entry, Incident, Kind, Ladder, Lease, Member, Notice, Reached, deafness_text,
};
pub use learn::{Family, Learned, Past, pace};
pub use memory::{Remembered, RememberedStream};
pub use replay::{AlarmRate, BUDGET, HistoryEvent, Replayed, replay, site_months, tune};
pub use rhythm::{Counts, Gaps, HALF_LIFE_DAYS, prior_hours};
pub use shape::{Shape, Unit};
pub use site::{CONTACT, Decision, SiteSpec, Verdict, WatchConfig};
pub use stream::{
    CalendarId, Change, CohortId, Gap, Heard, Loudness, Measure, Pace, ShapeId, StreamId, Thresholds, Transition,
};
pub use surprise::{Tail, Tails, cusum, expected_for, surprise};
pub use tuning::{Achieved, SITE_MONTHS_MIN, Tuning};
pub use watch::Watch;
