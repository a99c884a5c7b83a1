//! How loud an incident is by what it lasted, and how long an acknowledgement holds.

/// When an incident gets louder, in business minutes missed, and how often it repeats.
///
/// Level 1 is the site's contact and the desk at HQ, 2 the district, 3 whoever owns the figures, 4
/// the head of the unit, 5 the top, weekly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ladder {
    /// Business minutes to level 2.
    pub second_minutes: f64,
    /// Business days to levels 3, 4 and 5.
    pub days: [f64; 3],
}

impl Default for Ladder {
    fn default() -> Self {
        Self { second_minutes: 240.0, days: [1.0, 3.0, 10.0] }
    }
}

pub(super) const HOUR: i64 = 3_600_000_000;

/// People are told at most so often in a day, unless the level of a silence that lasts rises.
pub(super) const TOLD_PER_DAY: usize = 2;

impl Ladder {
    /// The level for so many missed business minutes of a site whose business day has
    /// `day_minutes`.
    pub fn level(&self, missed_minutes: f64, day_minutes: f64) -> u8 {
        let days = missed_minutes / day_minutes.max(60.0);
        let above = self.days.iter().filter(|limit| days >= **limit).count() as u8;
        match above {
            0 if missed_minutes >= self.second_minutes => 2,
            0 => 1,
            above => 2 + above,
        }
    }

    /// The next level above `level`, and the missed business minutes at which it comes; none at the
    /// top.
    pub fn next(&self, level: u8, day_minutes: f64) -> Option<(u8, f64)> {
        let day = day_minutes.max(60.0);
        let limits = std::iter::once(self.second_minutes).chain(self.days.map(|days| days * day));
        let above = limits
            .map(|minutes| (self.level(minutes, day_minutes), minutes))
            .filter(|(reached, _)| *reached > level.max(1));
        above.min_by(|(_, minutes), (_, than)| minutes.total_cmp(than))
    }

    /// How long an acknowledgement may last at a level: one day at levels 1 and 2, three above.
    pub fn lease_max(level: u8) -> std::time::Duration {
        std::time::Duration::from_secs(86_400 * if level <= 2 { 1 } else { 3 })
    }

    /// The pause before telling again: 4 hours, then a day; at level 5 a week.
    pub(super) fn pause(level: u8, told_before: usize) -> i64 {
        match (level, told_before) {
            (5, _) => 7 * 24 * HOUR,
            (_, 1) => 4 * HOUR,
            _ => 24 * HOUR,
        }
    }
}
