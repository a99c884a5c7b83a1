//! HQ's time: the machine's clock, as long as that does not jump.
//!
//! All that HQ says of silence is a difference of its own times. When the machine's clock is set by
//! hours, by a person or because it was wrong at boot, every site would seem to be off or silent.
//! So HQ's time goes on by the boot clock over a step, and the sites say which of both is right:
//! their clocks were heard at their last beacons. If the time before is right, HQ stays with it
//! until the machine's clock is back. If the new one is, HQ takes it: at once where it is ahead,
//! and by going at half speed where it is behind, so that HQ's time never goes back.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rollcall_lake::BootClock;
use rollcall_types::{SiteId, Timestamp, counted};

/// Less than this is no step: clocks are corrected now and then.
const STEP: i64 = 30 * SECOND;
const SECOND: i64 = 1_000_000;
/// Where no site can say which time is right, the machine's is taken after so long.
const ASKED_FOR: Duration = Duration::from_secs(600);
/// What was taken over is told for so long.
const SAID_FOR: Duration = Duration::from_secs(600);
/// HQ's time is taken up from its last sign of life if the machine's clock is behind that by no
/// more.
const AHEAD_MAX: i64 = 24 * 3600 * SECOND;
/// So many sites together can say that HQ's clock is the one that is off.
const WITNESSES_MIN: usize = 3;
/// A clock that is off by more is told of.
pub const CLOCK_OFF: Duration = Duration::from_secs(300);

/// A clock that does not jump.
pub struct HqClock {
    boot: BootClock,
    wall: Box<dyn Fn() -> Timestamp + Send + Sync>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// HQ's time was this, in microseconds, at this boot time.
    time: i64,
    boot: Duration,
    /// The machine's clock is ahead of HQ's time by so much.
    step: Option<Step>,
    /// HQ's time goes at half speed, until the machine's clock has come up to it.
    is_slow: bool,
    /// What is told for a while, since when.
    said: Option<(Duration, String)>,
    /// What sites' clocks lie behind HQ's time, if they agree that it is off.
    off: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    by: i64,
    since: Duration,
    at: i64,
}

impl std::fmt::Debug for HqClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HqClock").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Inner {
    fn time_at(&self, boot: Duration) -> i64 {
        let passed = boot.saturating_sub(self.boot).as_micros() as i64;
        self.time + if self.is_slow { passed / 2 } else { passed }
    }

    fn set(&mut self, time: i64, boot: Duration) {
        (self.time, self.boot) = (time, boot);
    }
}

impl HqClock {
    /// A clock that begins with the machine's, but not before HQ's last sign of life.
    pub fn new(boot: BootClock, last: Option<Timestamp>) -> Self {
        Self::with_wall(boot, Box::new(rollcall_runtime::now), last)
    }

    fn with_wall(boot: BootClock, wall: Box<dyn Fn() -> Timestamp + Send + Sync>, last: Option<Timestamp>) -> Self {
        let (now, started) = (wall().as_micros(), boot.now());
        let ahead = last.map_or(0, |last| last.as_micros() - now);
        let goes_on = (STEP..=AHEAD_MAX).contains(&ahead);
        let said = (ahead > AHEAD_MAX).then(|| {
            let text = format!(
                "the clock of HQ's machine is {} behind HQ's last sign of life: what was received then has times in the future",
                span(ahead)
            );
            (started, text)
        });
        let inner = Inner {
            time: if goes_on { now + ahead } else { now },
            boot: started,
            step: goes_on.then_some(Step { by: -ahead, since: started, at: now + ahead }),
            is_slow: goes_on,
            said,
            off: None,
        };
        Self { boot, wall, inner: Mutex::new(inner) }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// HQ's time.
    pub fn now(&self) -> Timestamp {
        let mut inner = self.inner();
        let (boot, wall) = (self.boot.now(), (self.wall)().as_micros());
        let time = inner.time_at(boot);
        let ahead = wall - time;
        if ahead.abs() >= STEP {
            // Counted on from here: the halves are not lost.
            match &mut inner.step {
                Some(step) => step.by = ahead,
                None => {
                    tracing::error!(by = %span(ahead), "the clock of HQ's machine has jumped; HQ goes on with the time before");
                    inner.step = Some(Step { by: ahead, since: boot, at: time });
                }
            }
            return Timestamp::from_micros(time);
        }
        if inner.step.take().is_some() {
            tracing::info!("the clock of HQ's machine and HQ's time agree again");
            inner.is_slow = false;
        }
        inner.set(wall, boot);
        Timestamp::from_micros(wall)
    }

    /// Looks at what the sites' clocks say: `offsets` are HQ's time less theirs, in microseconds.
    /// What is wrong with HQ's clock, for people; none if nothing is. Where HQ's time went ahead by
    /// a step just now, `taken` hears by how much: offsets that were taken before are another's.
    pub fn look(&self, offsets: &mut [i64], taken: impl FnOnce(i64)) -> Option<String> {
        let now = self.now().as_micros();
        let boot = self.boot.now();
        let mut inner = self.inner();
        offsets.sort_unstable();
        let median = offsets.get(offsets.len() / 2).copied().filter(|_| offsets.len() >= WITNESSES_MIN);
        inner.off = median.filter(|median| median.unsigned_abs() > CLOCK_OFF.as_micros() as u64);
        let Some(step) = inner.step else {
            if let Some(off) = inner.off {
                let count = offsets.len();
                return Some(format!(
                    "the clock of HQ's machine is off by {} from those of most of {count} connected sites: set it (NTP); times of \
                     what was received meanwhile are off by as much",
                    span(off)
                ));
            }
            let said = inner.said.clone();
            return said.filter(|(since, _)| boot.saturating_sub(*since) < SAID_FOR).map(|(_, text)| text);
        };
        let for_new = offsets.iter().filter(|off| (**off + step.by).abs() < off.abs()).count();
        let for_old = offsets.len() - for_new;
        let unasked = offsets.is_empty() && boot.saturating_sub(step.since) >= ASKED_FOR;
        let at = Timestamp::from_micros(step.at);
        if for_new > for_old || unasked {
            let who = if unasked { "no site is connected that could say otherwise" } else { "the sites' clocks agree" };
            if step.by > 0 {
                let text = format!(
                    "the clock of HQ's machine went ahead by {} at {at}; {who}, so HQ's time did",
                    span(step.by)
                );
                inner.said = Some((boot, text.clone()));
                (inner.step, inner.is_slow, inner.off) = (None, false, None);
                inner.set(now + step.by, boot);
                taken(step.by);
                return Some(text);
            }
            if !inner.is_slow {
                inner.set(now, boot);
                inner.is_slow = true;
            }
            // They agree with the machine, so none of them is off, and HQ's time is about to be
            // right.
            inner.off = Some(-step.by);
        } else if for_old > for_new && inner.is_slow {
            inner.set(now, boot);
            inner.is_slow = false;
        }
        Some(if inner.is_slow {
            format!(
                "the clock of HQ's machine is behind HQ's time, by {} since {at}: HQ's time goes at half speed until both agree",
                span(-step.by)
            )
        } else {
            format!(
                "the clock of HQ's machine jumped by {} at {at}; HQ goes on with the time before, with which {for_old} of {} \
                 connected sites agree: set the machine's clock (NTP)",
                span(step.by),
                offsets.len()
            )
        })
    }

    /// By how much a site's clock is off, if it is: HQ's time less the site's is `offset`
    /// microseconds. Where most sites say the same, it is HQ's clock that is off.
    pub fn site_is_off(&self, offset: i64) -> Option<Duration> {
        let off = Duration::from_micros((offset - self.inner().off.unwrap_or_default()).unsigned_abs());
        (off > CLOCK_OFF).then_some(off)
    }

    /// What is said of a site whose clock is off; `offset` is to be added to it to get HQ's,
    /// microseconds.
    pub fn off_in_words(&self, site: &SiteId, offset: i64) -> Option<String> {
        let minutes = counted(self.site_is_off(offset)?.as_secs() as usize / 60, "minute");
        let side = if offset > 0 { "behind" } else { "ahead" };
        Some(format!("the clock of {site} is off by {minutes}: it is {side}"))
    }
}

/// A length of time, for people, to the nearest: a step of three hours is measured some
/// microseconds later.
fn span(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let seconds = (micros.unsigned_abs() + 500_000) / 1_000_000;
    match (seconds + 30) / 60 {
        0..=1 => format!("{sign}{seconds} seconds"),
        minutes @ 2..180 => format!("{sign}{minutes} minutes"),
        minutes => format!("{sign}{} hours", (minutes + 30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    };

    use super::*;

    const MINUTE: i64 = 60 * SECOND;
    const START: i64 = 1_000_000 * MINUTE;

    /// A machine whose clock a test sets.
    struct Machine {
        boot: Arc<AtomicI64>,
        wall: Arc<AtomicI64>,
        clock: HqClock,
    }

    impl Machine {
        fn new(last: Option<i64>) -> Self {
            let (boot, wall) = (Arc::new(AtomicI64::new(MINUTE)), Arc::new(AtomicI64::new(START)));
            let boots = boot.clone();
            let boot_clock = BootClock::new(move || Duration::from_micros(boots.load(Ordering::Relaxed) as u64));
            let walls = wall.clone();
            let wall_clock = Box::new(move || Timestamp::from_micros(walls.load(Ordering::Relaxed)));
            let clock = HqClock::with_wall(boot_clock, wall_clock, last.map(Timestamp::from_micros));
            Self { boot, wall, clock }
        }

        /// Minutes since the start by HQ's time.
        fn minutes(&self) -> f64 {
            (self.clock.now().as_micros() - START) as f64 / MINUTE as f64
        }

        fn pass(&self, minutes: i64) {
            for clock in [&self.boot, &self.wall] {
                clock.fetch_add(minutes * MINUTE, Ordering::Relaxed);
            }
        }

        fn set(&self, minutes: i64) {
            self.wall.fetch_add(minutes * MINUTE, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_step_the_sites_deny_is_not_taken_and_blames_nobody() {
        for by in [180, -180] {
            let machine = Machine::new(None);
            machine.pass(5);
            assert_eq!(machine.minutes(), 5.0);
            machine.set(by);
            machine.pass(1);
            assert_eq!(machine.minutes(), 6.0, "it goes on");
            let said = machine.clock.look(&mut [SECOND, -SECOND, 0], |_| {}).expect("it is told");
            assert!(said.contains("jumped by") && said.contains("3 of 3"), "{said}");
            machine.pass(60);
            assert_eq!(machine.minutes(), 66.0);
            assert_eq!(machine.clock.site_is_off(SECOND), None);
            machine.set(-by);
            assert_eq!(machine.minutes(), 66.0);
            assert_eq!(machine.clock.look(&mut [0, 0, 0], |_| {}), None, "it is over");
        }
    }

    #[test]
    fn a_step_ahead_that_the_sites_confirm_is_taken() {
        let machine = Machine::new(None);
        machine.set(180);
        let mut sites = [-180 * MINUTE, -180 * MINUTE, 0];
        let said = machine.clock.look(&mut sites, |_| {}).expect("it is told");
        assert!(said.contains("went ahead by 3 hours"), "{said}");
        assert_eq!(machine.minutes(), 180.0);
        machine.pass(11);
        assert_eq!(machine.clock.look(&mut [0, 0, 0], |_| {}), None, "told for ten minutes");
    }

    #[test]
    fn a_step_back_that_the_sites_confirm_is_taken_without_going_back() {
        let machine = Machine::new(None);
        machine.set(-60);
        let mut last = machine.minutes();
        for _ in 0..121 {
            let ahead = machine.clock.now().as_micros() - machine.wall.load(Ordering::Relaxed);
            machine.clock.look(&mut [ahead, ahead, ahead], |_| {});
            assert_eq!(machine.clock.site_is_off(ahead), None, "the sites are right");
            machine.pass(1);
            assert!(machine.minutes() >= last, "never back");
            last = machine.minutes();
        }
        assert_eq!(machine.minutes(), 61.0, "after twice the step both agree");
        assert_eq!(machine.clock.look(&mut [0, 0, 0], |_| {}), None);
    }

    #[test]
    fn a_step_nobody_can_judge_is_taken_after_ten_minutes() {
        let machine = Machine::new(None);
        machine.set(180);
        assert!(machine.clock.look(&mut [], |_| {}).is_some_and(|said| said.contains("time before")));
        machine.pass(11);
        assert!(machine.clock.look(&mut [], |_| {}).is_some_and(|said| said.contains("went ahead")));
        assert_eq!(machine.minutes(), 191.0);
    }

    #[test]
    fn where_most_sites_say_the_same_it_is_hq_that_is_off() {
        let machine = Machine::new(None);
        assert_eq!(machine.clock.site_is_off(180 * MINUTE), Some(Duration::from_secs(180 * 60)), "one site alone");
        let said = machine.clock.look(&mut [180 * MINUTE, 181 * MINUTE, 180 * MINUTE, 0], |_| {}).expect("told");
        assert!(said.contains("off by 3 hours from those of most of 4"), "{said}");
        assert_eq!(machine.clock.site_is_off(180 * MINUTE), None);
        assert!(machine.clock.site_is_off(0).is_some(), "the one that differs from all others");
    }

    #[test]
    fn a_length_of_time_is_told_to_the_nearest() {
        let said = [30 * SECOND, 90 * SECOND, 100 * SECOND, 180 * MINUTE - 1, 180 * MINUTE, -239 * MINUTE - 1];
        let said = said.map(span);
        assert_eq!(said, ["30 seconds", "2 minutes", "2 minutes", "3 hours", "3 hours", "-4 hours"]);
    }

    #[test]
    fn a_restart_does_not_go_back_either() {
        let machine = Machine::new(Some(START + 60 * MINUTE));
        assert_eq!(machine.minutes(), 60.0);
        machine.pass(120);
        assert_eq!(machine.minutes(), 120.0);
        let far = Machine::new(Some(START + 10_000 * MINUTE));
        assert_eq!(far.minutes(), 0.0, "a clock that was wrong by days is not waited for");
        assert!(far.clock.look(&mut [], |_| {}).is_some_and(|said| said.contains("in the future")));
    }
}
