//! The missed-expectation clock: for every stream, how much should have come since the last event,
//! and how surprising it is that nothing did.
//!
//! `μ = Σ λ(bin)·ρ·dt` since the last event, over open time in which HQ could hear. Nothing is
//! scanned: an event stores its time; each stream waits in one slot of a timer wheel, at the
//! earliest instant at which it could reach its next level. Whatever slows the clock meanwhile (ρ,
//! closures, a deaf HQ, an event) makes that instant too early, never too late, and the stream is
//! armed again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    calendar::{Calendar, DAY, Stretch},
    cohort::{COHORT_QUIET, Cohort, EXPECTED_HEARD, Flow, SITES_EXPECTED, SITES_SEEN},
    shape::{BY_DAY, Shape, Unit},
    stream::{
        CalendarId, Change, CohortId, Gap, Heard, Loudness, Measure, Pace, ShapeId, StreamId, Thresholds, Transition,
    },
    surprise::{Tail, Tails, cusum, expected_for, surprise},
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

    /// Finds each cohort's largest stream anew: paces changed. Once a day is enough.
    pub fn recount(&mut self) {
        self.cohorts.iter_mut().for_each(Cohort::forget_largest);
        for stream in &self.streams {
            self.cohorts[stream.cohort as usize].weigh_largest(f64::from(stream.level));
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

    /// Whether the time since the last event touches a closed time or its edge.
    fn is_over_closed(&self, stream: &Stream, at: i64) -> bool {
        let Week { shape, peak, .. } = &self.shapes[stream.shape as usize];
        // Contact is even while a site is open, and an edge shows; rows have their own ups and
        // downs.
        let busy = peak * if shape.unit() == Unit::ContactMinutes { 0.9 } else { 0.1 };
        let (calendar, step) = (&self.calendars[stream.calendar as usize], shape.unit().slot_seconds());
        let from = large(stream.last);
        let slots = (0..=DAY / step).map(|slot| from + slot * step).take_while(|slot| *slot < at);
        slots.chain([at]).any(|slot| shape.rate(calendar, slot) < busy)
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

    /// How well the fleet is heard.
    pub fn heard(&self) -> Heard {
        const NOW: std::ops::Range<usize> = 0..5;
        const BEFORE: std::ops::Range<usize> = 5..15;
        let (mut seen, mut expected, mut low, mut judged, mut sites) = (0.0, 0.0, 0.0, 0.0, 0);
        let (mut seen_before, mut expected_before, mut sites_expected) = (0.0, 0.0, 0.0);
        let is_by_day = |cohort: &&Cohort| {
            let hour = self.calendars[cohort.calendar as usize].local(self.now).second / 3600;
            !cohort.assumed || BY_DAY.contains(&hour)
        };
        // At opening and closing time a cohort's expectation is a mixture of all or nothing; it
        // says nothing of HQ.
        let is_steady = |cohort: &&Cohort| {
            let Week { shape, peak, .. } = &self.shapes[cohort.shape as usize];
            let before = || shape.rate(&self.calendars[cohort.calendar as usize], self.now - SLOT);
            cohort.unit == Unit::ContactMinutes && cohort.rate >= f64::from(0.8 * peak) && before() >= 0.8 * peak
        };
        for cohort in self.cohorts.iter().filter(is_steady).filter(is_by_day) {
            let (cohort_seen, cohort_expected) = (cohort.sum(NOW, SITES_SEEN), cohort.sum(NOW, SITES_EXPECTED));
            seen += cohort_seen;
            sites_expected += cohort_expected;
            seen_before += cohort.sum(BEFORE, SITES_SEEN);
            expected_before += cohort.sum(BEFORE, SITES_EXPECTED);
            let contact = cohort.sum(NOW, EXPECTED_HEARD);
            expected += contact;
            if contact >= 1.0 {
                judged += 1.0;
                low += f64::from(u8::from(cohort_seen < 0.75 * cohort_expected));
                sites += cohort.streams_heard;
            }
        }
        let ratio = |seen: f64, expected: f64| if expected > 0.0 { seen / expected } else { 1.0 };
        Heard {
            expected,
            ratio: ratio(seen, sites_expected),
            // What was not expected before cannot have fallen: a fleet that does not open on a
            // holiday never spoke.
            ratio_before: if expected_before >= sites_expected { ratio(seen_before, expected_before) } else { 0.0 },
            low_cohorts: if judged > 0.0 { low / judged } else { 0.0 },
            sites,
        }
    }

    /// Whether a quiet stream is quiet by itself, not with its cohort.
    pub fn is_alone(&self, id: StreamId) -> bool {
        let stream = &self.streams[id.0 as usize];
        let cohort = &self.cohorts[stream.cohort as usize];
        stream.left_out || if stream.in_company { cohort.is_speaking() } else { cohort.rho >= COHORT_QUIET }
    }

    /// Whether the hours of a stream's cohort are neither declared nor learned.
    pub fn is_assumed(&self, id: StreamId) -> bool {
        self.cohorts[self.streams[id.0 as usize].cohort as usize].assumed
    }

    /// Says so of a cohort: from then on its members are missed as long as most of it is heard as
    /// it was lately.
    pub(crate) fn set_assumed(&mut self, cohort: CohortId, assumed: bool) {
        self.cohorts[cohort.0 as usize].assumed = assumed;
    }

    /// Streams of cohorts that fell quiet as a whole since the last call, at hours that nobody
    /// knew: those that went first went with the others. What is red already stays so.
    pub(crate) fn take_fallen_quiet(&mut self) -> Vec<StreamId> {
        let cohorts: HashSet<CohortId> = self.fallen_quiet.drain(..).collect();
        if cohorts.is_empty() {
            return Vec::new();
        }
        let streams = self.streams.iter().enumerate();
        let of_cohorts = streams.filter(|(_, stream)| cohorts.contains(&CohortId(stream.cohort)));
        let of_cohorts = of_cohorts.filter(|(_, stream)| stream.loudness < Loudness::Red);
        of_cohorts.map(|(id, _)| StreamId(id as u32)).collect()
    }

    /// Whether so much of a stream's cohort is quiet that its own silence says nothing.
    pub(crate) fn is_in_quiet_cohort(&self, id: StreamId) -> bool {
        self.cohorts[self.streams[id.0 as usize].cohort as usize].rho < COHORT_QUIET
    }

    /// The cohort of a stream.
    pub fn cohort_of(&self, id: StreamId) -> CohortId {
        CohortId(self.streams[id.0 as usize].cohort)
    }

    /// Whether most of a cohort was heard in the last hour.
    pub fn is_cohort_speaking(&self, cohort: CohortId) -> bool {
        self.cohorts[cohort.0 as usize].is_speaking()
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

    fn tail_of(&self, stream: &Stream, at: i64) -> &Tail {
        self.tails[stream.tails as usize].of(self.is_over_closed(stream, at))
    }

    /// Expected events that are told however little they surprise: half a business day's, beyond
    /// the longest healthy silence.
    fn lasting(&self, stream: &Stream) -> f64 {
        let half_a_day = f64::from(stream.level) * self.shapes[stream.shape as usize].day_hours / 2.0;
        if half_a_day > 0.0 { half_a_day + f64::from(stream.longest) } else { f64::INFINITY }
    }

    /// Expected events at which a loudness is reached.
    fn needed(&self, stream: &Stream, tail: &Tail, loudness: Loudness) -> f64 {
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
    fn look(&mut self, id: u32, now: i64, out: &mut Vec<Transition>) {
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

    fn look_at_drop(&mut self, id: u32, now: i64, out: &mut Vec<Transition>) {
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
    fn finish_slots(&mut self, index: usize, slot: u32) {
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

    /// Whether a stream is left out of its cohort, and whether it is red.
    fn standing(&self, id: u32) -> (bool, bool) {
        let stream = &self.streams[id as usize];
        (stream.left_out, stream.loudness >= Loudness::Red)
    }

    fn set_loudness(&mut self, id: u32, loudness: Loudness) {
        let (was_quiet, was_red) = self.standing(id);
        let stream = &mut self.streams[id as usize];
        stream.loudness = loudness;
        if loudness == Loudness::Normal {
            (stream.left_out, stream.in_company) = (false, false);
        } else if loudness >= Loudness::Red && self.cohorts[stream.cohort as usize].rho >= COHORT_QUIET {
            stream.left_out = true;
        }
        if loudness > Loudness::Normal && self.cohorts[stream.cohort as usize].rho < COHORT_QUIET {
            stream.in_company = true;
        }
        let (is_quiet, is_red) = self.standing(id);
        if was_quiet != is_quiet {
            self.weigh(id, if is_quiet { -1.0 } else { 1.0 }, true, false);
        }
        if was_red != is_red {
            self.weigh(id, if is_red { -1.0 } else { 1.0 }, false, true);
        }
    }

    /// Counts a stream in or out of what its cohort is expected to say.
    fn weigh(&mut self, id: u32, sign: f64, unsuspected: bool, heard: bool) {
        let stream = &self.streams[id as usize];
        self.cohorts[stream.cohort as usize].weigh(f64::from(stream.level), sign, unsuspected, heard);
    }

    fn advance_cohort(&mut self, index: usize, now: i64) {
        let cohort = &self.cohorts[index];
        if !cohort.is_at(now) {
            let shape = &self.shapes[cohort.shape as usize].shape;
            let rate = f64::from(shape.rate(&self.calendars[cohort.calendar as usize], now));
            let was_quiet = self.cohorts[index].rho < COHORT_QUIET;
            self.cohorts[index].advance(now, rate, self.hearing);
            let cohort = &self.cohorts[index];
            if cohort.assumed && !was_quiet && cohort.rho < COHORT_QUIET {
                self.fallen_quiet.push(CohortId(index as u32));
            }
        }
    }

    /// Puts a stream where it could reach its next level at the earliest.
    fn arm(&mut self, id: u32) {
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

    fn arm_at(&mut self, id: u32, at: i64) {
        // In the bucket after the instant: when it is handled, the instant has passed.
        let bucket = (at / BUCKET + 1).clamp(self.turned + 1, self.turned + BUCKETS as i64 - 1);
        self.streams[id as usize].due = bucket as u32;
        self.wheel[(bucket % BUCKETS as i64) as usize].push(id);
    }
}
