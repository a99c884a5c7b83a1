//! What HQ knew of a site's clock and when, so that what the site dates by it can be put in order
//! with what others did.
//!
//! A site says with each sign of life what its clock shows and how far its journal is. So of a
//! change at a position of the journal HQ knows between which of its own moments it was made,
//! whatever the site's clock showed, and how far off that clock was before and after.

use rollcall_types::{Seq, Timestamp};
use serde::{Deserialize, Serialize};

/// Contacts of a site that are known at most: the newest, and those before it.
const SPANS_MAX: usize = 4;
/// A clock that is off by so much more or less than before was set, microseconds.
pub const STEP_MICROS: i64 = 30_000_000;
/// Signs of life that are further apart leave a gap in which nobody knows what the clock showed,
/// microseconds.
const GAP_MICROS: i64 = 120_000_000;

/// A time in which the site was heard, with its clock off by the same all along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Span {
    /// HQ's time, and where the journal was then.
    from: (Timestamp, Seq),
    until: (Timestamp, Seq),
    /// HQ's time less the site's clock, microseconds.
    off: i64,
}

/// See the module; the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KnownClock {
    spans: Vec<Span>,
}

/// When a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// By HQ's time, microseconds since 1970.
    pub at: i64,
    /// The site's clock was wrong in a way that HQ does not know: the change was made then or
    /// later.
    pub is_doubtful: bool,
}

impl KnownClock {
    /// Whether nothing is known of the clock.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// When it was heard last.
    pub fn heard(&self) -> Option<Timestamp> {
        self.spans.last().map(|span| span.until.0)
    }

    /// The site was heard, with its journal at `head` and its clock off by so much.
    pub fn note(&mut self, at: Timestamp, head: Seq, off: i64) {
        if let Some(last) = self.spans.last_mut() {
            let is_same = last.off.abs_diff(off) < STEP_MICROS.unsigned_abs();
            let gap = at.as_micros().saturating_sub(last.until.0.as_micros());
            if is_same && gap < GAP_MICROS {
                last.until = (at.max(last.until.0), head.max(last.until.1));
                return;
            }
        }
        // A journal does not get shorter; a site that cannot read its own says too little.
        let head = self.spans.last().map_or(head, |last| head.max(last.until.1));
        self.spans.push(Span { from: (at, head), until: (at, head), off });
        if self.spans.len() > SPANS_MAX {
            self.spans.remove(0);
        }
    }

    /// The site counts its journal's positions anew: all that is known was before the first of
    /// them.
    pub fn begin_anew(&mut self) {
        for span in &mut self.spans {
            (span.from.1, span.until.1) = (Seq(0), Seq(0));
        }
    }

    /// When the change at `seq` of the journal was made, by the site's clock at `clock`, of which
    /// HQ heard at `heard`. Without a position nothing is known but that.
    pub fn made(&self, seq: Option<Seq>, clock: i64, heard: i64) -> Made {
        // What HQ had heard of before a contact was not made after it: the position is one of
        // another count.
        let is_of_other_count = |seq: &Seq| {
            let last = self.spans.iter().rev().find(|span| span.from.1 < *seq);
            last.is_some_and(|span| span.until.1 < *seq && span.until.0.as_micros() > heard)
        };
        let seq = seq.filter(|seq| !is_of_other_count(seq));
        let before = seq.and_then(|seq| self.spans.iter().rev().find(|span| span.from.1 < seq));
        // The first moment at which it was there, if it is known.
        let after = seq.and_then(|seq| {
            let within = self.spans.iter().find(|span| span.until.1 >= seq)?;
            Some(if within.from.1 >= seq { (within.from.0, within.off) } else { (within.until.0, within.off) })
        });
        let is_within = |span: &Span| seq.is_some_and(|seq| span.until.1 >= seq);
        let lower = before.map(|span| if is_within(span) { span.from.0 } else { span.until.0 }.as_micros());
        let upper = after.map_or(heard, |(at, _)| at.as_micros().min(heard));
        let mut offs: Vec<i64> = match (before, after) {
            (Some(before), _) if is_within(before) => vec![before.off],
            (before, after) => before.map(|span| span.off).into_iter().chain(after.map(|(_, off)| off)).collect(),
        };
        if offs.is_empty() {
            offs.extend(self.spans.last().map(|span| span.off).or(Some(0)));
        }
        let lowest = lower.unwrap_or(i64::MIN);
        let is_possible =
            |at: &i64| (lowest.saturating_sub(STEP_MICROS)..=upper.saturating_add(STEP_MICROS)).contains(at);
        let mut possible: Vec<i64> = offs.iter().map(|off| clock.saturating_add(*off)).filter(is_possible).collect();
        possible.sort_unstable();
        let first = possible.first().copied();
        let is_doubtful = match (first, possible.last()) {
            (Some(first), Some(last)) => last.abs_diff(first) >= STEP_MICROS.unsigned_abs(),
            _ => true,
        };
        // What HQ cannot date was made when it can have been made first; where not even that is
        // known, the version that the editor knew says it.
        let at = first.or(lower).unwrap_or(0);
        Made { at: at.max(lowest).min(upper), is_doubtful }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const YEAR: i64 = 365 * 86_400 * SECOND;

    fn heard(clock: &mut KnownClock, second: i64, head: u64, off_seconds: i64) {
        clock.note(Timestamp::from_micros(second * SECOND), Seq(head), off_seconds * SECOND);
    }

    #[test]
    fn a_clock_that_was_right_before_and_after_is_believed_where_that_can_be() {
        let mut clock = KnownClock::default();
        heard(&mut clock, 1_000, 10, 0);
        heard(&mut clock, 9_000, 12, 0);
        let made = |seq, at: i64| clock.made(Some(Seq(seq)), at * SECOND, 9_001 * SECOND);
        assert_eq!(made(11, 5_000), Made { at: 5_000 * SECOND, is_doubtful: false });
        // Two years ahead while nobody listened: it was made after the last contact, and nobody
        // knows when.
        let ahead = clock.made(Some(Seq(11)), 5_000 * SECOND + 2 * YEAR, 9_001 * SECOND);
        assert_eq!(ahead, Made { at: 1_000 * SECOND, is_doubtful: true });
        // Years behind likewise.
        assert_eq!(clock.made(Some(Seq(11)), -YEAR, 9_001 * SECOND), ahead);
    }

    #[test]
    fn a_clock_that_was_known_to_be_off_is_corrected() {
        let mut clock = KnownClock::default();
        heard(&mut clock, 1_000, 10, -2 * YEAR / SECOND);
        heard(&mut clock, 9_000, 12, 0);
        let made = clock.made(Some(Seq(11)), 5_000 * SECOND + 2 * YEAR, 9_001 * SECOND);
        assert_eq!(made, Made { at: 5_000 * SECOND, is_doubtful: false });
        // Behind by an hour, and put right while nobody listened: which of both moments is not
        // known.
        let mut clock = KnownClock::default();
        heard(&mut clock, 1_000, 10, 3_600);
        heard(&mut clock, 9_000, 12, 0);
        let made = clock.made(Some(Seq(11)), 2_000 * SECOND, 9_001 * SECOND);
        assert_eq!(made, Made { at: 2_000 * SECOND, is_doubtful: true });
    }

    #[test]
    fn positions_that_are_counted_anew_are_behind_all_contacts() {
        let mut clock = KnownClock::default();
        heard(&mut clock, 1_000, 500, 0);
        clock.begin_anew();
        heard(&mut clock, 2_000, 3, 0);
        assert_eq!(clock.made(Some(Seq(2)), YEAR, 2_001 * SECOND), Made { at: 1_000 * SECOND, is_doubtful: true });
        let stated = clock.made(None, 100 * SECOND, 2_001 * SECOND);
        assert_eq!(stated, Made { at: 100 * SECOND, is_doubtful: false });
        // Nothing is known before it, and the clock shows what cannot be.
        assert_eq!(clock.made(None, YEAR, 2_001 * SECOND), Made { at: 0, is_doubtful: true });
        // A position of another count says nothing.
        assert_eq!(clock.made(Some(Seq(400)), 1_500 * SECOND, 1_600 * SECOND).at, 1_500 * SECOND);
    }

    /// What happens at a site, each some seconds after the one before.
    #[derive(Debug, Clone)]
    enum Event {
        Edit,
        Heard,
        SetClock(i64),
    }

    fn event() -> impl Strategy<Value = (i64, Event)> {
        let what = prop_oneof![
            3 => Just(Event::Edit),
            3 => Just(Event::Heard),
            1 => (-5_000..5_000_i64).prop_map(Event::SetClock),
        ];
        (1..4_000_i64, what)
    }

    proptest! {
        /// Whatever a clock does: no time is later than HQ heard, none is before the last contact
        /// before it, and one that is not doubtful is right unless the clock was set twice between
        /// two contacts.
        #[test]
        fn no_time_is_outside_what_hq_knows(events in proptest::collection::vec(event(), 1..40)) {
            let (mut clock, mut now, mut off, mut head) = (KnownClock::default(), 1_000_000_i64, 0_i64, 0_u64);
            // By edit: position, true time, what the clock showed, contact before it, how often the
            // clock was set since that.
            let mut waiting: Vec<(u64, i64, i64, Option<i64>, usize)> = Vec::new();
            let (mut contact, mut sets) = (None, 0);
            for (after, event) in events {
                now += after;
                match event {
                    Event::SetClock(to) => {
                        off = to;
                        sets += 1;
                    }
                    Event::Edit => {
                        head += 1;
                        waiting.push((head, now, now - off, contact, sets));
                    }
                    Event::Heard => {
                        clock.note(Timestamp::from_micros(now * SECOND), Seq(head), off * SECOND);
                        for (seq, truly, shown, before, _) in waiting.drain(..) {
                            let made = clock.made(Some(Seq(seq)), shown * SECOND, now * SECOND);
                            prop_assert!(made.at <= now * SECOND);
                            prop_assert!(before.is_none_or(|before: i64| made.at >= before * SECOND));
                            if !made.is_doubtful && sets <= 1 && before.is_some() {
                                prop_assert!(made.at.abs_diff(truly * SECOND) <= 2 * STEP_MICROS.unsigned_abs());
                            }
                        }
                        (contact, sets) = (Some(now), 0);
                    }
                }
            }
        }
    }
}
