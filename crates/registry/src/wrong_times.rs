//! When a site's clock was wrong: what its programs dated then may stand under another time.
//!
//! HQ hears with each sign of life what a site's clock shows. What it showed between two contacts
//! is not known, so a time in which it was wrong begins with the last contact at which it was right
//! and ends with the first at which it is right again.

use rollcall_types::Timestamp;
use serde::{Deserialize, Serialize};

/// So many are kept of a site; the oldest two become one then.
const SPANS_MAX: usize = 32;

/// A time in which the clock was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct WrongSpan {
    /// HQ's times.
    from: Timestamp,
    until: Timestamp,
    /// HQ's time less the site's clock, microseconds: the least and the most that was heard.
    least: i64,
    most: i64,
}

impl WrongSpan {
    fn with(self, other: Self) -> Self {
        Self {
            from: self.from.min(other.from),
            until: self.until.max(other.until),
            least: self.least.min(other.least),
            most: self.most.max(other.most),
        }
    }
}

/// See the module; the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WrongTimes {
    spans: Vec<WrongSpan>,
    /// The newest is not over.
    is_wrong: bool,
}

impl WrongTimes {
    /// Whether the clock was never found wrong.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// What is stored at once when it changes: whether the clock is wrong now, and how often it
    /// was.
    pub(crate) fn stage(&self) -> (bool, usize) {
        (self.is_wrong, self.spans.len())
    }

    /// The clock was heard `at` this time of HQ's, and is off by so much; `before` is when it was
    /// heard the time before.
    pub fn note(&mut self, before: Option<Timestamp>, at: Timestamp, off: i64, is_wrong: bool) {
        match (self.spans.last_mut().filter(|_| self.is_wrong), is_wrong) {
            (Some(open), true) => *open = open.with(WrongSpan { from: at, until: at, least: off, most: off }),
            (Some(open), false) => open.until = open.until.max(at),
            // Of a clock that is wrong when it is heard first, nobody knows since when.
            (None, true) => {
                let from = before.unwrap_or(Timestamp::from_micros(0)).min(at);
                self.spans.push(WrongSpan { from, until: at, least: off, most: off });
            }
            (None, false) => {}
        }
        if self.spans.len() > SPANS_MAX {
            let oldest = self.spans.remove(0);
            self.spans[0] = oldest.with(self.spans[0]);
        }
        self.is_wrong = is_wrong;
    }

    /// Since when rows that the site dates in this time, or that happened in it, may have a wrong
    /// one: from (included) and until (excluded), none where that is open. What was before
    /// `accepted` a person answers for.
    pub fn during(
        &self,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
        accepted: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let is_meant = |span: &&WrongSpan| {
            // What happened in the span, and what its rows say of when.
            let from_then = accepted.map_or(span.from, |accepted| span.from.max(accepted));
            let first = from_then.as_micros().saturating_sub(span.most.max(0));
            let last = span.until.as_micros().saturating_sub(span.least.min(0));
            accepted.is_none_or(|accepted| span.until > accepted)
                && until.is_none_or(|until| first < until.as_micros())
                && from.is_none_or(|from| last >= from.as_micros())
        };
        self.spans.iter().find(is_meant).map(|span| span.from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    /// A clock that is heard now and then.
    #[derive(Default)]
    struct Heard {
        times: WrongTimes,
        before: Option<Timestamp>,
    }

    impl Heard {
        fn note(&mut self, second: i64, off: i64) {
            self.times.note(self.before, at(second), off * 1_000_000, off.abs() > 300);
            self.before = Some(at(second));
        }
    }

    #[test]
    fn a_wrong_time_reaches_from_the_last_right_contact_to_the_next() {
        let mut heard = Heard::default();
        for (second, off) in [(1_000, 0), (2_000, 3_600), (3_000, 3_700), (4_000, 1), (5_000, 0)] {
            heard.note(second, off);
        }
        let times = heard.times;
        let during = |from: i64, until: i64| times.during(Some(at(from)), Some(at(until)), None);
        // An hour behind: what happened at 1,000 may stand at -2,700.
        assert_eq!(during(-9_000, -2_700), None);
        assert_eq!(during(-9_000, -2_699), Some(at(1_000)));
        assert_eq!(during(4_000, 9_000), Some(at(1_000)), "the end is in it");
        assert_eq!(during(4_001, 9_000), None);
        assert_eq!(times.during(None, None, None), Some(at(1_000)));
        assert_eq!(times.during(None, None, Some(at(3_999))), Some(at(1_000)));
        assert_eq!(times.during(None, None, Some(at(4_000))), None, "a person answers for it");
    }

    #[test]
    fn what_was_before_the_first_contact_of_a_wrong_clock_is_not_known() {
        let mut heard = Heard::default();
        heard.note(1_000_000, -7_200);
        heard.note(1_000_010, 0);
        let times = heard.times;
        let during = |from: i64, until: i64| times.during(Some(at(from)), Some(at(until)), None);
        assert_eq!(during(0, 500), Some(at(0)));
        assert_eq!(during(1_000_010 + 7_200, 2_000_000), Some(at(0)), "ahead: rows may stand later");
        assert_eq!(during(1_000_010 + 7_201, 2_000_000), None);
    }

    proptest! {
        /// A site's clock is set at random, and its programs date rows all along. Whatever is
        /// asked: if a row stands on another side of a bound than it happened, the site is named,
        /// unless its clock was off for less than counts.
        #[test]
        fn no_question_that_a_wrong_clock_can_falsify_is_called_right(
            steps in proptest::collection::vec((1_i64..4_000, prop_oneof![
                2 => Just(None),
                1 => prop_oneof![Just(0_i64), -9_000_i64..9_000].prop_map(Some),
            ]), 1..120),
            bounds in proptest::collection::vec(0_i64..300_000, 1..20),
        ) {
            // Contacts are denser than the clock's settings: each setting is heard before the next.
            let (mut heard, mut now, mut off) = (Heard::default(), 100_000_i64, 0_i64);
            let mut rows = Vec::new();
            heard.note(now, off);
            for (after, set) in steps {
                now += after;
                off = set.unwrap_or(off);
                rows.push((now, now - off, off));
                now += 1;
                heard.note(now, off);
            }
            for bound in bounds {
                let is_wrong = rows.iter().any(|(real, dated, off)| {
                    off.abs() > 300 && (*real < bound) != (*dated < bound)
                });
                if is_wrong {
                    prop_assert!(heard.times.during(Some(at(bound)), None, None).is_some());
                    prop_assert!(heard.times.during(None, Some(at(bound)), None).is_some());
                }
            }
        }
    }
}
