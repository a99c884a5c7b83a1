//! The missed-expectation clock: for every stream, how much should have come since the last event,
//! and how surprising it is that nothing did.
//!
//! `μ = Σ λ(bin)·ρ·dt` since the last event, over open time in which HQ could hear. Nothing is
//! scanned: an event stores its time; each stream waits in one slot of a timer wheel, at the
//! earliest instant at which it could reach its next level. Whatever slows the clock meanwhile (ρ,
//! closures, a deaf HQ, an event) makes that instant too early, never too late, and the stream is
//! armed again.

mod company;
mod levels;

use std::{collections::HashMap, sync::Arc};

use crate::{
    calendar::{Calendar, DAY, Stretch},
    cohort::{COHORT_QUIET, Cohort, Flow},
    shape::{Shape, Unit},
    stream::{CalendarId, CohortId, Gap, Loudness, Measure, Pace, ShapeId, StreamId, Thresholds, Transition},
    surprise::{Tail, Tails, surprise},
};

/// 72 bytes: there may be four million.
#[derive(Debug, Clone, Copy)]
struct Stream {
    shape: u32,
    calendar: u32,
    cohort: u32,
    level: f32,
    evidence: f32,
    tails: u32,
    rows_per_event: f32,
    longest: f32,
    /// Seconds after [`EPOCH`].
    last: u32,
    /// Up to here `expected` is counted.
    checked: u32,
    /// The cohort's flow then.
    flow: Flow,
    expected: f32,
    drop_sum: f32,
    /// The running slot of 15 minutes, counted from [`EPOCH`], and the rows seen in it.
    slot: u32,
    slot_rows: f32,
    /// The bucket of the wheel in which its timer is; entries elsewhere are void. 0: none.
    due: u32,
    loudness: Loudness,
    dropped: bool,
    /// Left out of what its cohort is expected to say: it is quiet by itself, not with all the
    /// others.
    left_out: bool,
    /// Its cohort was quiet when it fell silent: until that is heard again, it is not silent by
    /// itself.
    in_company: bool,
}

/// The clock counts from 1990-01-01, until 2126; histories may be old.
const EPOCH: i64 = 631_152_000;
const SLOT: i64 = 900;
/// Seconds of a bucket of the wheel.
const BUCKET: i64 = 5;
/// Buckets: a day.
const BUCKETS: usize = 17_280;

fn small(at: i64) -> u32 {
    u32::try_from(at - EPOCH).unwrap_or(0)
}

fn large(at: u32) -> i64 {
    i64::from(at) + EPOCH
}

/// A shape, and what is asked of it at every timer.
#[derive(Debug)]
struct Week {
    shape: Arc<Shape>,
    /// The rate of its busiest slot.
    peak: f32,
    /// See [`Shape::day_hours`].
    day_hours: f64,
}

impl Week {
    fn new(shape: Arc<Shape>) -> Self {
        let peak = shape.rates().into_iter().fold(0.0, f32::max);
        let day_hours = shape.day_hours();
        Self { shape, peak, day_hours }
    }
}

/// All streams' clocks.
#[derive(Debug)]
pub struct Clock {
    thresholds: Thresholds,
    /// Seconds of a contact "minute": 60, less where silence must show within seconds.
    contact_unit: i64,
    streams: Vec<Stream>,
    shapes: Vec<Week>,
    /// Tails, each once: streams alike share theirs.
    tails: Vec<Tails>,
    tail_numbers: HashMap<[u32; 6], u32>,
    calendars: Vec<Calendar>,
    /// Today, by each calendar.
    todays: Vec<Stretch>,
    cohorts: Vec<Cohort>,
    wheel: Vec<Vec<u32>>,
    /// The bucket handled last.
    turned: i64,
    now: i64,
    hearing: bool,
    /// Cohorts without known hours that fell quiet as a whole since this was asked for.
    fallen_quiet: Vec<CohortId>,
}

impl Clock {
    /// A clock that starts at `now`, Unix seconds. Contact counts once every `contact_unit`
    /// seconds, usually 60; all that is said of contact minutes then means that unit.
    pub fn new(now: i64, thresholds: Thresholds, contact_unit: i64) -> Self {
        Self {
            thresholds,
            contact_unit: contact_unit.clamp(1, 60),
            streams: Vec::new(),
            shapes: Vec::new(),
            tails: Vec::new(),
            tail_numbers: HashMap::new(),
            calendars: Vec::new(),
            todays: Vec::new(),
            cohorts: Vec::new(),
            wheel: vec![Vec::new(); BUCKETS],
            turned: now / BUCKET,
            now,
            hearing: true,
            fallen_quiet: Vec::new(),
        }
    }

    /// Makes a calendar known.
    pub fn add_calendar(&mut self, calendar: Calendar) -> CalendarId {
        self.todays.push(calendar.stretch(self.now));
        self.calendars.push(calendar);
        CalendarId(self.calendars.len() as u32 - 1)
    }

    /// A calendar made known.
    pub fn calendar(&self, id: CalendarId) -> &Calendar {
        &self.calendars[id.0 as usize]
    }

    /// Makes a shape known.
    pub fn add_shape(&mut self, shape: Arc<Shape>) -> ShapeId {
        self.shapes.push(Week::new(shape));
        ShapeId(self.shapes.len() as u32 - 1)
    }

    /// Replaces a shape for all that go by it.
    pub fn set_shape(&mut self, id: ShapeId, shape: Arc<Shape>) {
        self.shapes[id.0 as usize] = Week::new(shape);
    }

    /// A shape made known.
    pub fn shape(&self, id: ShapeId) -> &Shape {
        &self.shapes[id.0 as usize].shape
    }

    /// A cohort, with the shape and calendar its traffic is expected by.
    pub fn add_cohort(&mut self, shape: ShapeId, calendar: CalendarId) -> CohortId {
        let known = &self.shapes[shape.0 as usize].shape;
        let rate = f64::from(known.rate(&self.calendars[calendar.0 as usize], self.now));
        self.cohorts.push(Cohort::new(known.unit(), shape.0, calendar.0, self.now, rate));
        CohortId(self.cohorts.len() as u32 - 1)
    }

    /// A stream heard last at `last`, of which nothing was missed up to now; see [`Clock::missed`].
    pub fn add_stream(&mut self, cohort: CohortId, calendar: CalendarId, pace: Pace, last: i64) -> StreamId {
        let id = self.streams.len() as u32;
        let flow = self.flow(cohort.0, self.now);
        let tails = self.tails_number(&pace.tails);
        self.streams.push(Stream {
            shape: pace.shape.0,
            calendar: calendar.0,
            cohort: cohort.0,
            level: pace.level,
            evidence: pace.evidence,
            tails,
            rows_per_event: pace.rows_per_event,
            longest: pace.longest,
            last: small(last),
            checked: small(self.now),
            flow,
            expected: 0.0,
            drop_sum: 0.0,
            slot: small(self.now) / SLOT as u32,
            slot_rows: 0.0,
            due: 0,
            loudness: Loudness::Normal,
            dropped: false,
            left_out: false,
            in_company: false,
        });
        self.weigh(id, 1.0, true, true);
        self.arm_at(id, self.now + BUCKET);
        StreamId(id)
    }

    /// Gives a stream another pace, from now on.
    pub fn set_pace(&mut self, stream: StreamId, pace: Pace) {
        self.settle(stream.0, self.now);
        let (quiet, red) = self.standing(stream.0);
        self.weigh(stream.0, -1.0, !quiet, !red);
        let tails = self.tails_number(&pace.tails);
        let known = &mut self.streams[stream.0 as usize];
        (known.shape, known.level) = (pace.shape.0, pace.level);
        (known.evidence, known.tails) = (pace.evidence, tails);
        (known.rows_per_event, known.longest) = (pace.rows_per_event, pace.longest);
        self.weigh(stream.0, 1.0, !quiet, !red);
        if self.streams[stream.0 as usize].due != 0 {
            self.arm(stream.0);
        }
    }

    /// What a stream's clock goes by.
    pub fn pace(&self, stream: StreamId) -> Pace {
        let stream = &self.streams[stream.0 as usize];
        Pace {
            shape: ShapeId(stream.shape),
            level: stream.level,
            evidence: stream.evidence,
            tails: self.tails[stream.tails as usize],
            rows_per_event: stream.rows_per_event,
            longest: stream.longest,
        }
    }

    fn tails_number(&mut self, tails: &Tails) -> u32 {
        let tails = Tails { open: tails.open.rounded(), closed: tails.closed.rounded() };
        let bits = |tail: &Tail| [tail.above.to_bits(), tail.threshold.to_bits(), tail.scale.to_bits()];
        let ([a, b, c], [d, e, f]) = (bits(&tails.open), bits(&tails.closed));
        *self.tail_numbers.entry([a, b, c, d, e, f]).or_insert_with(|| {
            self.tails.push(tails);
            self.tails.len() as u32 - 1
        })
    }

    /// Takes `rows` of a stream at `at`. An event is a minute with at least one: rows come in
    /// bursts, an invoice at a time, and a burst is no more a sign of life than one row. Within a
    /// minute there is no gap to tell of.
    pub fn event(&mut self, id: StreamId, at: i64, rows: f32) -> Option<Gap> {
        let index = id.0 as usize;
        let stream = self.streams[index];
        let is_contact = self.unit(&stream) == Unit::ContactMinutes;
        if !is_contact {
            let slot = small(at) / SLOT as u32;
            if slot != stream.slot {
                self.finish_slots(index, slot);
            }
            self.streams[index].slot_rows += rows;
        }
        let unit = if is_contact { self.contact_unit } else { 60 };
        if large(stream.last) / unit >= at / unit {
            return None;
        }
        self.cohorts[stream.cohort as usize].see(f64::from(stream.level));
        let gap = self.gap(id, &stream, at);
        let flow = self.flow(stream.cohort, at);
        let was_excused = large(stream.checked) > at;
        let stream = &mut self.streams[index];
        stream.last = small(at);
        stream.checked = small(at);
        stream.flow = flow;
        stream.expected = 0.0;
        if gap.loudness > Loudness::Normal {
            self.set_loudness(id.0, Loudness::Normal);
        }
        // What was loud, or excused, waits until long after a silence that begins now is suspect.
        if self.streams[index].due == 0 || gap.loudness > Loudness::Normal || was_excused {
            self.arm(id.0);
        }
        Some(gap)
    }

    fn gap(&self, id: StreamId, stream: &Stream, at: i64) -> Gap {
        let (from, expected) = (large(stream.last), self.expected(stream, at));
        const START: i64 = 1800;
        let busiest =
            f64::from(stream.level) * f64::from(self.shapes[stream.shape as usize].peak) * START as f64 / 3600.0;
        let with_cohort = stream.loudness > Loudness::Normal
            && expected < COHORT_QUIET * self.expected_between(id, from, at)
            && self.expected_between(id, from, from + START) < 0.25 * busiest;
        // Of small gaps, which are nearly all, it does not matter.
        const MATTERS: f64 = 2.0;
        let over_closed = expected > MATTERS && self.is_over_closed(stream, at);
        Gap { from, expected, loudness: stream.loudness, with_cohort, over_closed }
    }

    /// Lets a stream be quiet until `until` (Unix seconds): nothing is expected of it before.
    pub fn excuse(&mut self, id: StreamId, until: i64) {
        self.settle(id.0, self.now);
        let flow = self.flow(self.streams[id.0 as usize].cohort, self.now);
        let stream = &mut self.streams[id.0 as usize];
        stream.checked = small(until.max(self.now));
        stream.flow = flow;
        stream.expected = 0.0;
        self.set_loudness(id.0, Loudness::Normal);
        self.arm(id.0);
    }

    /// A stream goes by another calendar from now on.
    pub fn move_stream(&mut self, id: StreamId, calendar: CalendarId) {
        self.settle(id.0, self.now);
        self.streams[id.0 as usize].calendar = calendar.0;
        if self.streams[id.0 as usize].due != 0 {
            self.arm(id.0);
        }
    }

    /// A stream missed `expected` events up to `from`; what it missed between then and now is
    /// counted as if HQ had heard all the time.
    pub fn missed(&mut self, id: StreamId, expected: f64, from: i64) {
        let expected = expected + self.expected_between(id, from, self.now);
        let flow = self.flow(self.streams[id.0 as usize].cohort, self.now);
        let stream = &mut self.streams[id.0 as usize];
        (stream.expected, stream.checked, stream.flow) = (expected as f32, small(self.now), flow);
        self.arm_at(id.0, self.now);
    }

    /// Lets time pass. `hearing` says whether HQ could hear since the last tick; while it could
    /// not, clocks stand still.
    pub fn tick(&mut self, now: i64, hearing: bool, out: &mut Vec<Transition>) {
        self.hearing = hearing;
        for cohort in 0..self.cohorts.len() {
            self.advance_cohort(cohort, now);
        }
        self.now = now;
        for (today, calendar) in self.todays.iter_mut().zip(&self.calendars).filter(|(today, _)| now >= today.until) {
            *today = calendar.stretch(now);
        }
        while self.turned < now / BUCKET {
            self.turned += 1;
            let due = std::mem::take(&mut self.wheel[(self.turned % BUCKETS as i64) as usize]);
            for id in due {
                if i64::from(self.streams[id as usize].due) == self.turned {
                    self.look(id, now, out);
                }
            }
        }
    }

    /// When a stream was heard last, Unix seconds.
    pub fn last(&self, id: StreamId) -> i64 {
        large(self.streams[id.0 as usize].last)
    }

    /// How loud a stream's silence is.
    pub fn loudness(&self, id: StreamId) -> Loudness {
        self.streams[id.0 as usize].loudness
    }

    /// When silence counts as what.
    pub fn thresholds(&self) -> Thresholds {
        self.thresholds
    }

    /// Lets silence count as something else from now on. Looks at every stream: once a week is
    /// enough.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
        for id in 0..self.streams.len() as u32 {
            if self.streams[id as usize].due != 0 {
                self.settle(id, self.now);
                self.arm(id);
            }
        }
    }

    /// Where a stream stands at `at`.
    pub fn measure(&self, id: StreamId, at: i64) -> Measure {
        let stream = &self.streams[id.0 as usize];
        let expected = self.expected(stream, at);
        Measure {
            last: large(stream.last),
            expected,
            surprise: surprise(expected, f64::from(stream.evidence), self.tail_of(stream, at)),
            missed_minutes: self.missed_minutes(stream, expected),
            loudness: stream.loudness,
        }
    }

    /// Business minutes between two instants by this stream's week: 1 a minute where it is busiest.
    pub fn business_minutes(&self, id: StreamId, from: i64, to: i64) -> f64 {
        let stream = &self.streams[id.0 as usize];
        let Week { shape, peak, .. } = &self.shapes[stream.shape as usize];
        if *peak <= 0.0 {
            return 0.0;
        }
        shape.between(&self.calendars[stream.calendar as usize], from, to) / f64::from(*peak) * 60.0
    }

    /// When so many business minutes will have passed since `from`, at most 60 days later.
    pub(crate) fn after_business_minutes(&self, id: StreamId, from: i64, minutes: f64) -> i64 {
        const HORIZON: i64 = 60 * DAY;
        let stream = &self.streams[id.0 as usize];
        let Week { shape, peak, .. } = &self.shapes[stream.shape as usize];
        if *peak <= 0.0 {
            return from + HORIZON;
        }
        let need = minutes.max(0.0) / 60.0 * f64::from(*peak);
        shape.reach(&self.calendars[stream.calendar as usize], from, need, from + HORIZON)
    }

    /// Business minutes of a mean open day.
    pub fn business_day(&self, id: StreamId) -> f64 {
        let Week { peak, day_hours, .. } = &self.shapes[self.streams[id.0 as usize].shape as usize];
        if *peak > 0.0 { day_hours / f64::from(*peak) * 60.0 } else { 720.0 }
    }

    /// How busy a stream's week is at `at`, relative to its busiest slot: 0 to 1.
    pub fn busyness(&self, id: StreamId, at: i64) -> f32 {
        let stream = &self.streams[id.0 as usize];
        let Week { shape, peak, .. } = &self.shapes[stream.shape as usize];
        if *peak <= 0.0 { 0.0 } else { shape.rate(&self.calendars[stream.calendar as usize], at) / peak }
    }

    /// Events expected of a stream between two instants.
    pub fn expected_between(&self, id: StreamId, from: i64, to: i64) -> f64 {
        let stream = &self.streams[id.0 as usize];
        f64::from(stream.level) * self.open_hours(stream, from, to)
    }

    /// Hours at relative rate 1 of a stream's week between two instants.
    fn open_hours(&self, stream: &Stream, from: i64, to: i64) -> f64 {
        let (shape, calendar) = (&self.shapes[stream.shape as usize].shape, stream.calendar as usize);
        match self.todays[calendar].seconds(from, to) {
            Some((weekday, from, to)) => shape.between_seconds(weekday, from, to),
            None => shape.between(&self.calendars[calendar], from, to),
        }
    }

    fn missed_minutes(&self, stream: &Stream, expected: f64) -> f64 {
        let rate = f64::from(stream.level) * f64::from(self.shapes[stream.shape as usize].peak);
        if rate > 0.0 { expected / rate * 60.0 } else { 0.0 }
    }

    fn unit(&self, stream: &Stream) -> Unit {
        self.cohorts[stream.cohort as usize].unit
    }

    fn flow(&self, cohort: u32, at: i64) -> Flow {
        self.cohorts[cohort as usize].flow(at, self.hearing)
    }

    fn expected(&self, stream: &Stream, at: i64) -> f64 {
        let checked = large(stream.checked);
        if at <= checked {
            return f64::from(stream.expected);
        }
        let now = self.flow(stream.cohort, at);
        let full = f64::from(now.full.wrapping_sub(stream.flow.full));
        let slowed = f64::from(now.slowed.wrapping_sub(stream.flow.slowed));
        // Where the cohort's week says nothing, the site's own does.
        let share = if full >= 1.0 { (slowed / full).min(1.0) } else { f64::from(u8::from(self.hearing)) };
        let open = self.open_hours(stream, checked, at);
        f64::from(stream.expected) + f64::from(stream.level) * open * share
    }

    /// Counts what was expected up to `at`.
    fn settle(&mut self, id: u32, at: i64) {
        let stream = self.streams[id as usize];
        let (expected, flow) = (self.expected(&stream, at), self.flow(stream.cohort, at));
        let stream = &mut self.streams[id as usize];
        stream.expected = expected as f32;
        if small(at) > stream.checked {
            stream.checked = small(at);
            stream.flow = flow;
        }
    }
}
