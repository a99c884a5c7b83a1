//! When a site is open: zone, declared hours, holidays, closures. What it does not know is learned
//! by the rhythm.
//!
//! Instants are Unix seconds; local time only ever chooses a bin, which is all that daylight saving
//! needs.

use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc};

use chrono::{DateTime, Datelike, NaiveDate, Offset, TimeZone, Timelike, Utc, Weekday};
use chrono_tz::Tz;

/// Seconds of a day.
pub(crate) const DAY: i64 = 86_400;

/// Opening hours of a week, in minutes of the local day. An interval may end after midnight: its
/// end is above 1440.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Hours([Vec<(u16, u16)>; 7]);

/// Why opening hours were not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("opening hours {0:?} are not understood: write them like \"Mo-Fr 09:00-20:00; Sa 10:00-18:00; Su off\"")]
pub struct InvalidHours(String);

const DAYS: [&str; 7] = ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"];

impl FromStr for Hours {
    type Err = InvalidHours;

    /// The common part of OpenStreetMap's `opening_hours`: `24/7`, or rules `DAYS TIMES` split by
    /// `;`, later ones winning. Days: `Mo`, `Mo-Fr`, `Sa,Su`; times: `09:00-12:00,13:00-18:00` or
    /// `off`.
    fn from_str(text: &str) -> Result<Self, InvalidHours> {
        let invalid = || InvalidHours(text.to_owned());
        if text.trim() == "24/7" {
            return Ok(Self(std::array::from_fn(|_| vec![(0, 1440)])));
        }
        let mut week: [Vec<(u16, u16)>; 7] = Default::default();
        let mut any = false;
        for rule in text.split(';').map(str::trim).filter(|rule| !rule.is_empty()) {
            let (days, times) = match rule.split_once(' ') {
                Some((days, times)) => (parse_days(days).ok_or_else(invalid)?, times),
                None => ([true; 7], rule),
            };
            let times = parse_times(times.trim()).ok_or_else(invalid)?;
            for (day, _) in days.iter().enumerate().filter(|(_, is_meant)| **is_meant) {
                week[day].clone_from(&times);
            }
            any = true;
        }
        if any { Ok(Self(week)) } else { Err(invalid()) }
    }
}

fn parse_days(text: &str) -> Option<[bool; 7]> {
    let mut meant = [false; 7];
    for part in text.split(',') {
        let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name.trim()));
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        let length = (last + 7 - first) % 7;
        (0..=length).for_each(|offset| meant[(first + offset) % 7] = true);
    }
    Some(meant)
}

fn parse_times(text: &str) -> Option<Vec<(u16, u16)>> {
    if matches!(text, "off" | "closed") {
        return Some(Vec::new());
    }
    let minute = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour <= 24 && minute < 60 && hour * 60 + minute <= 1440).then_some(hour * 60 + minute)
    };
    let mut times = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-')?;
        let (from, to) = (minute(from)?, minute(to)?);
        times.push((from, if to <= from { to + 1440 } else { to }));
    }
    Some(times)
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (day, times) in self.0.iter().enumerate() {
            let clock = |minute: u16| format!("{:02}:{:02}", minute % 1440 / 60, minute % 60);
            let text: Vec<String> = times
                .iter()
                .map(|(from, to)| format!("{}-{}", clock(*from), clock(*to).replace("00:00", "24:00")))
                .collect();
            let separator = if day == 0 { "" } else { "; " };
            let text = if text.is_empty() { "off".to_owned() } else { text.join(",") };
            write!(f, "{separator}{} {text}", DAYS[day])?;
        }
        Ok(())
    }
}

impl Hours {
    /// The hours of a day, such as `09:00-20:00`; `closed` if it has none.
    pub fn of_day(&self, day: Weekday) -> String {
        let times = &self.0[day.num_days_from_monday() as usize];
        let clock = |minute: u16| match minute {
            1440 => "24:00".to_owned(),
            minute => format!("{:02}:{:02}", minute % 1440 / 60, minute % 60),
        };
        match times.as_slice() {
            [] => "closed".to_owned(),
            times => {
                times.iter().map(|(from, to)| format!("{}-{}", clock(*from), clock(*to))).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// The share of `from..to` (minutes of the local day `weekday`) that is open, 0 to 1.
    pub(crate) fn open_share(&self, weekday: Weekday, from: u16, to: u16) -> f32 {
        let overlap = |start: u16, end: u16| end.min(to).saturating_sub(start.max(from));
        let today = &self.0[weekday.num_days_from_monday() as usize];
        let yesterday = &self.0[weekday.pred().num_days_from_monday() as usize];
        let open: u16 = today.iter().map(|(start, end)| overlap(*start, (*end).min(1440))).sum::<u16>()
            + yesterday.iter().filter(|(_, end)| *end > 1440).map(|(_, end)| overlap(0, end - 1440)).sum::<u16>();
        (f32::from(open) / f32::from(to - from)).min(1.0)
    }
}

/// A time for which a person declared a site closed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Closure {
    /// From this instant, Unix seconds …
    pub from: i64,
    /// … until this one, Unix seconds.
    pub until: i64,
}

/// When a site is expected to be there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Calendar {
    /// Its zone.
    pub zone: Tz,
    /// Declared opening hours; none means that they are learned.
    pub hours: Option<Arc<Hours>>,
    /// Days that go like a Sunday.
    pub holidays: Arc<BTreeSet<NaiveDate>>,
    /// Declared closures, in any order.
    pub closures: Vec<Closure>,
}

impl Default for Calendar {
    fn default() -> Self {
        Self { zone: Tz::UTC, hours: None, holidays: Arc::default(), closures: Vec::new() }
    }
}

/// A local time of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Local {
    /// The day whose rhythm applies: Sunday on a holiday.
    pub(crate) weekday: Weekday,
    /// Seconds since local midnight.
    pub(crate) second: i64,
    /// Local minus UTC, seconds.
    pub(crate) offset: i64,
}

/// A stretch of one local day in which local time runs evenly. Nearly every question is about
/// today, and there are millions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    from: i64,
    pub(crate) until: i64,
    weekday: Weekday,
    /// Local minus UTC, less the days: seconds since local midnight are an instant plus this.
    shift: i64,
}

impl Stretch {
    /// The weekday and the seconds of the local day of two instants, if it holds both and they are
    /// in order.
    pub(crate) fn seconds(&self, from: i64, to: i64) -> Option<(Weekday, i64, i64)> {
        (self.from <= from && from <= to && to <= self.until).then_some((
            self.weekday,
            from + self.shift,
            to + self.shift,
        ))
    }
}

fn utc(at: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(at, 0).unwrap_or_default()
}

impl Calendar {
    /// Local minus UTC at an instant, seconds.
    pub(crate) fn offset(&self, at: i64) -> i64 {
        i64::from(self.zone.offset_from_utc_datetime(&utc(at).naive_utc()).fix().local_minus_utc())
    }

    pub(crate) fn local(&self, at: i64) -> Local {
        let offset = self.offset(at);
        let local = utc(at + offset);
        let date = local.date_naive();
        let weekday = if self.holidays.contains(&date) { Weekday::Sun } else { date.weekday() };
        Local { weekday, second: i64::from(local.num_seconds_from_midnight()), offset }
    }

    /// The end of the stretch from `at` in which local time runs evenly within one day, at most
    /// `to`.
    pub(crate) fn even_until(&self, at: i64, local: &Local, to: i64) -> i64 {
        let end = (at + DAY - local.second).min(to);
        if self.offset(end - 1) == local.offset {
            return end;
        }
        // The clocks change in between: find when.
        let (mut same, mut other) = (at, end - 1);
        while other - same > 1 {
            let middle = same + (other - same) / 2;
            if self.offset(middle) == local.offset { same = middle } else { other = middle }
        }
        other
    }

    /// The stretch around `at`; with declared closures an empty one, since time does not run evenly
    /// then.
    pub(crate) fn stretch(&self, at: i64) -> Stretch {
        let local = self.local(at);
        let (midnight, shift) = (at - local.second, local.second - at);
        if !self.closures.is_empty() {
            return Stretch { from: i64::MAX, until: i64::MAX, weekday: local.weekday, shift };
        }
        let from = if self.offset(midnight) == local.offset { midnight } else { at };
        Stretch { from, until: self.even_until(at, &local, at + DAY), weekday: local.weekday, shift }
    }

    /// Whether the declared hours say that the site is open for so many seconds from `at`.
    pub(crate) fn says_open(&self, at: i64, seconds: i64) -> bool {
        const STEP: i64 = 300;
        let Some(hours) = &self.hours else { return false };
        (0..=seconds / STEP).map(|step| at + step * STEP).all(|then| {
            let local = self.local(then);
            let minute = (local.second / 60).clamp(0, 1439) as u16;
            self.closed_until(then).is_none() && hours.open_share(local.weekday, minute, minute + 1) > 0.5
        })
    }

    /// Until when a declared closure lasts that covers `at`.
    pub fn closed_until(&self, at: i64) -> Option<i64> {
        self.closures
            .iter()
            .filter(|closure| (closure.from..closure.until).contains(&at))
            .map(|closure| closure.until)
            .max()
    }

    /// The parts of `from..to` outside closures.
    pub(crate) fn outside_closures(&self, from: i64, to: i64) -> Vec<(i64, i64)> {
        let mut parts = vec![(from, to)];
        for closure in &self.closures {
            parts = parts
                .into_iter()
                .flat_map(|(from, to)| [(from, to.min(closure.from)), (from.max(closure.until), to)])
                .filter(|(from, to)| from < to)
                .collect();
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).expect("valid").timestamp()
    }

    #[test]
    fn hours_are_read_like_people_write_them() {
        let hours: Hours = "Mo-Fr 09:00-12:00,13:00-18:00; Sa 22:00-02:00; Su off".parse().expect("valid");
        assert_eq!(hours.open_share(Weekday::Mon, 9 * 60, 10 * 60), 1.0);
        assert_eq!(hours.open_share(Weekday::Mon, 12 * 60, 14 * 60), 0.5);
        assert_eq!(hours.open_share(Weekday::Sat, 23 * 60, 24 * 60), 1.0);
        assert_eq!(hours.open_share(Weekday::Sun, 0, 4 * 60), 0.5, "past midnight");
        assert_eq!(hours.open_share(Weekday::Sun, 12 * 60, 13 * 60), 0.0);
        assert_eq!(hours.to_string().parse::<Hours>().expect("its own text"), hours);
        assert_eq!("24/7".parse::<Hours>().expect("valid").open_share(Weekday::Sun, 0, 1440), 1.0);
        assert_eq!(hours.of_day(Weekday::Mon), "09:00-12:00, 13:00-18:00");
        assert_eq!(
            (hours.of_day(Weekday::Sat), hours.of_day(Weekday::Sun)),
            ("22:00-02:00".to_owned(), "closed".to_owned())
        );
        assert!("nine to five".parse::<Hours>().is_err());
        assert!("Mo-Fr 25:00-26:00".parse::<Hours>().is_err());
    }

    #[test]
    fn a_stretch_ends_where_the_clocks_change() {
        let calendar = Calendar { zone: chrono_tz::Europe::Berlin, ..Calendar::default() };
        let from = at("2026-10-24T22:30:00Z");
        let local = calendar.local(from);
        assert_eq!((local.weekday, local.second), (Weekday::Sun, 1800));
        assert_eq!(calendar.even_until(from, &local, at("2026-10-26T00:00:00Z")), at("2026-10-25T01:00:00Z"));
        // A day of 25 hours: it ends at midnight local time.
        let second = at("2026-10-25T01:00:00Z");
        let end = calendar.even_until(second, &calendar.local(second), at("2026-10-26T12:00:00Z"));
        assert_eq!(end, at("2026-10-25T23:00:00Z"));
    }

    #[test]
    fn a_holiday_goes_like_a_sunday_and_closures_are_cut_out() {
        let day = NaiveDate::from_ymd_opt(2026, 12, 25).expect("valid");
        let closure = Closure { from: 100, until: 200 };
        let calendar =
            Calendar { holidays: Arc::new(BTreeSet::from([day])), closures: vec![closure], ..Calendar::default() };
        assert_eq!(calendar.local(at("2026-12-25T10:00:00Z")).weekday, Weekday::Sun);
        assert_eq!(calendar.local(at("2026-12-24T10:00:00Z")).weekday, Weekday::Thu);
        assert_eq!(calendar.outside_closures(50, 250), [(50, 100), (200, 250)]);
        assert_eq!(calendar.outside_closures(120, 180), []);
        assert_eq!(calendar.closed_until(150), Some(200));
        assert_eq!(calendar.closed_until(200), None);
    }
}
