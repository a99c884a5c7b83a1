//! When a silence reaches which level, and the timer wheel in which each stream waits for its next.

use super::{BUCKET, BUCKETS, Clock, SLOT, Stream, Week, large};

use crate::{
    calendar::DAY,
    shape::Unit,
    stream::{Change, Loudness, StreamId, Transition},
    surprise::{Tail, cusum, expected_for},
};

impl Clock {
    /// Whether the time since the last event touches a closed time or its edge.
    pub(super) fn is_over_closed(&self, stream: &Stream, at: i64) -> bool {
        let Week { shape, peak, .. } = &self.shapes[stream.shape as usize];
        // Contact is even while a site is open, and an edge shows; rows have their own ups and
        // downs.
        let busy = peak * if shape.unit() == Unit::ContactMinutes { 0.9 } else { 0.1 };
        let (calendar, step) = (&self.calendars[stream.calendar as usize], shape.unit().slot_seconds());
        let from = large(stream.last);
        let slots = (0..=DAY / step).map(|slot| from + slot * step).take_while(|slot| *slot < at);
        slots.chain([at]).any(|slot| shape.rate(calendar, slot) < busy)
    }

    pub(super) fn tail_of(&self, stream: &Stream, at: i64) -> &Tail {
        self.tails[stream.tails as usize].of(self.is_over_closed(stream, at))
    }

    /// Expected events that are told however little they surprise: half a business day's, beyond
    /// the longest healthy silence.
    pub(super) fn lasting(&self, stream: &Stream) -> f64 {
        let half_a_day = f64::from(stream.level) * self.shapes[stream.shape as usize].day_hours / 2.0;
        if half_a_day > 0.0 { half_a_day + f64::from(stream.longest) } else { f64::INFINITY }
    }

    /// Expected events at which a loudness is reached.
    pub(super) fn needed(&self, stream: &Stream, tail: &Tail, loudness: Loudness) -> f64 {
        let limits = &self.thresholds;
        let nines = |nines| expected_for(nines, f64::from(stream.evidence), tail);
        let minutes = if self.unit(stream) == Unit::ContactMinutes {
            let rate = f64::from(stream.level) * f64::from(self.shapes[stream.shape as usize].peak);
            limits.contact_minutes * self.contact_unit as f64 / 3600.0 * rate
        } else {
            0.0
        };
        match loudness {
            Loudness::Normal => 0.0,
            // Whatever the evidence; but a night that is no rarer than others is nobody's cause.
            Loudness::Suspect => (limits.suspect / std::f64::consts::LOG10_E).max(tail.needed(limits.suspect)),
            Loudness::Amber => nines(limits.amber).min(self.lasting(stream)),
            Loudness::Red => nines(limits.red).max(minutes).min(self.lasting(stream)),
            Loudness::Page => nines(limits.page).max(minutes).min(self.lasting(stream)),
        }
    }

    /// The timer of a stream came up.
    pub(super) fn look(&mut self, id: u32, now: i64, out: &mut Vec<Transition>) {
        self.settle(id, now);
        let stream = self.streams[id as usize];
        let expected = f64::from(stream.expected);
        let levels = [Loudness::Page, Loudness::Red, Loudness::Amber, Loudness::Suspect];
        // The margin keeps rounding from arming a stream for ever just below a level.
        let tail = *self.tail_of(&stream, now);
        let reached = levels.into_iter().find(|level| expected * 1.0001 + 1e-6 >= self.needed(&stream, &tail, *level));
        let reached = reached.unwrap_or_default().max(stream.loudness);
        if reached > stream.loudness {
            self.set_loudness(id, reached);
            out.push(Transition { stream: StreamId(id), at: now, what: Change::Louder(reached) });
        }
        self.look_at_drop(id, now, out);
        if reached == Loudness::Page {
            self.streams[id as usize].due = 0;
        } else {
            self.arm(id);
        }
    }

    pub(super) fn look_at_drop(&mut self, id: u32, now: i64, out: &mut Vec<Transition>) {
        let limit = self.thresholds.drop;
        let stream = &mut self.streams[id as usize];
        let what = match (stream.dropped, stream.drop_sum) {
            (false, sum) if sum >= limit => Change::Dropped,
            (true, sum) if sum < 1.0 => Change::Restored,
            _ => return,
        };
        stream.dropped = what == Change::Dropped;
        out.push(Transition { stream: StreamId(id), at: now, what });
    }

    /// The slots before `slot` are over.
    pub(super) fn finish_slots(&mut self, index: usize, slot: u32) {
        let stream = self.streams[index];
        let (from, to) = (large(stream.slot * SLOT as u32), large(slot * SLOT as u32));
        let rho = self.cohorts[stream.cohort as usize].rho;
        let first = self.expected_between(StreamId(index as u32), from, (from + SLOT).min(to)) * rho;
        let rest = self.expected_between(StreamId(index as u32), (from + SLOT).min(to), to) * rho;
        // In events' worth of rows: single rows of a burst are no evidence of their own.
        let after_first = cusum(stream.drop_sum, first as f32, stream.slot_rows / stream.rows_per_event.max(1.0));
        let stream = &mut self.streams[index];
        // Slots without any row are a stop, which the clock itself judges; a drop is what still
        // trickles.
        stream.drop_sum = if rest > 0.0 && stream.loudness > Loudness::Suspect { 0.0 } else { after_first };
        (stream.slot, stream.slot_rows) = (slot, 0.0);
    }

    /// Puts a stream where it could reach its next level at the earliest.
    pub(super) fn arm(&mut self, id: u32) {
        let stream = self.streams[id as usize];
        let next = match stream.loudness {
            Loudness::Normal => Loudness::Suspect,
            Loudness::Suspect => Loudness::Amber,
            Loudness::Amber => Loudness::Red,
            Loudness::Red | Loudness::Page => Loudness::Page,
        };
        let from = large(stream.checked).max(self.now);
        let horizon = self.now + (BUCKETS as i64 - 2) * BUCKET;
        // Which tail will apply is not known yet: the earlier of both. Once the silence is over
        // closed time, it stays so.
        let tails = self.tails[stream.tails as usize];
        let (within, over) = (self.needed(&stream, &tails.open, next), self.needed(&stream, &tails.closed, next));
        let expected = f64::from(stream.expected);
        let mut missing = within.min(over) - expected;
        if missing <= 0.0 && self.is_over_closed(&stream, self.now) {
            // An event does not arm it anew, and the gap that begins then may be loud sooner than
            // this one.
            let of_next_gap = self.needed(&stream, &tails.open, Loudness::Suspect);
            // What lasts is page, although it may not even be suspect by that tail.
            missing = (over.min(self.lasting(&stream)) - expected).min(of_next_gap);
        }
        let at = if missing <= 0.0 {
            // It waits for the other tail's level: look again in a minute.
            self.now + 60
        } else if stream.level <= 0.0 || from >= horizon {
            horizon
        } else {
            let shape = &self.shapes[stream.shape as usize].shape;
            let need = missing.max(0.0) / f64::from(stream.level);
            shape.reach(&self.calendars[stream.calendar as usize], from, need, horizon)
        };
        self.arm_at(id, at);
    }

    pub(super) fn arm_at(&mut self, id: u32, at: i64) {
        // In the bucket after the instant: when it is handled, the instant has passed.
        let bucket = (at / BUCKET + 1).clamp(self.turned + 1, self.turned + BUCKETS as i64 - 1);
        self.streams[id as usize].due = bucket as u32;
        self.wheel[(bucket % BUCKETS as i64) as usize].push(id);
    }
}
