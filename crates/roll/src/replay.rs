//! Runs the whole watch over a history: what it would have said, and how often.

use std::collections::BTreeMap;

use rollcall_types::{SiteId, Timestamp};

use crate::{
    incident::{Incident, Kind, Notice},
    site::{CONTACT, Decision, SiteSpec, WatchConfig},
    stream::Thresholds,
    watch::Watch,
};

/// Something that was heard.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryEvent {
    /// When.
    pub at: Timestamp,
    /// Of whom.
    pub site: SiteId,
    /// `contact` for a beacon, else a table.
    pub stream: String,
    /// Rows.
    pub count: f32,
}

/// How often people would have been told, over the time after learning.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AlarmRate {
    /// Sites times months of 30.44 days.
    pub site_months: f64,
    /// Times that people were told of something new.
    pub pages: usize,
    /// Incidents that opened, told or only on the screen.
    pub screens: usize,
    /// Silences of single sites that ended by themselves and peaked at page or above: what
    /// thresholds decide. A group, a cohort, HQ itself and what lasts is told whatever they are.
    pub natural_pages: usize,
    /// The same at red or above.
    pub natural_screens: usize,
    /// Times that people were told of something new in the first days, which do not count above.
    pub first_days: usize,
    /// Sites of which they were told that they were never heard.
    pub never_heard: usize,
}

/// The alarm budget: pages, and incidents on the screen, per site and month.
pub const BUDGET: (f64, f64) = (0.5, 3.0);
/// What happens in the first days is learning, and counted apart.
const LEARNING_DAYS: i64 = 14;
const MINUTE: i64 = 60_000_000;
const DAY: i64 = 1440 * MINUTE;

impl AlarmRate {
    fn of(
        sites: usize,
        start: Timestamp,
        until: Timestamp,
        thresholds: Thresholds,
        incidents: &BTreeMap<u64, Incident>,
        told: &[Decision],
    ) -> Self {
        let counted_from = start.plus_micros(LEARNING_DAYS * DAY);
        let counts = |at: Timestamp| at >= counted_from;
        let is_page = |decision: &&Decision| matches!(decision.notice, Notice::Opened | Notice::Again);
        let after = || incidents.values().filter(|incident| counts(incident.opened_at));
        let peaks = || after().filter(|incident| !incident.was_held).filter_map(|incident| incident.peak_nines);
        Self {
            site_months: months_of(sites, start, until),
            pages: told.iter().filter(is_page).filter(|decision| counts(decision.at)).count(),
            screens: after().filter(|incident| !incident.was_held && incident.kind != Kind::HqBlind).count(),
            natural_pages: peaks().filter(|peak| *peak >= thresholds.page).count(),
            natural_screens: peaks().filter(|peak| *peak >= thresholds.red).count(),
            first_days: told.iter().filter(is_page).filter(|decision| !counts(decision.at)).count(),
            never_heard: incidents.values().filter(|incident| incident.kind == Kind::NeverHeard).count(),
        }
    }

    /// Pages per site and month.
    pub fn pages_per_site_month(&self) -> f64 {
        self.pages as f64 / self.site_months.max(1e-9)
    }

    /// Pages per site and month that thresholds decide.
    pub fn natural_pages_per_site_month(&self) -> f64 {
        self.natural_pages as f64 / self.site_months.max(1e-9)
    }

    /// The same of incidents on the screen.
    pub fn natural_screens_per_site_month(&self) -> f64 {
        self.natural_screens as f64 / self.site_months.max(1e-9)
    }

    /// Incidents on the screen per site and month.
    pub fn screens_per_site_month(&self) -> f64 {
        self.screens as f64 / self.site_months.max(1e-9)
    }
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Replayed {
    /// Every incident, in the order in which they opened.
    pub incidents: Vec<Incident>,
    /// Everything people would have been told.
    pub told: Vec<Decision>,
    /// How often, after the first 14 days.
    pub rate: AlarmRate,
}

/// Replays `history`, which must be in order of time, up to `until`. `progress` is told how many
/// events are behind.
pub fn replay(
    sites: &[SiteSpec],
    history: &[HistoryEvent],
    until: Timestamp,
    config: WatchConfig,
    mut progress: impl FnMut(usize),
) -> Replayed {
    let Some(first) = history.first() else { return Replayed::default() };
    let start = floor(first.at);
    let thresholds = config.thresholds;
    let mut watch = Watch::new(config, start);
    for site in sites {
        watch.set_site(site.clone());
    }
    let mut incidents: BTreeMap<u64, Incident> = BTreeMap::new();
    let mut told = Vec::new();
    let mut next = 0;
    let mut minute = start;
    while minute <= until {
        watch.tick(minute);
        let end = minute.plus_micros(MINUTE);
        while let Some(event) = history.get(next).filter(|event| event.at < end) {
            // Contact counts once a minute, however many beacons came.
            let count = if event.stream == CONTACT { 1.0 } else { event.count };
            watch.event(&event.site, &event.stream, event.at, count);
            next += 1;
        }
        told.extend(watch.take_decisions());
        incidents.extend(watch.take_changed().into_iter().map(|incident| (incident.id, incident)));
        minute = end;
        progress(next);
    }
    let rate = AlarmRate::of(sites.len(), start, until, thresholds, &incidents, &told);
    Replayed { incidents: incidents.into_values().collect(), told, rate }
}

/// The minute in which it is.
fn floor(at: Timestamp) -> Timestamp {
    Timestamp::from_micros(at.as_micros().div_euclid(MINUTE) * MINUTE)
}

fn months_of(sites: usize, start: Timestamp, until: Timestamp) -> f64 {
    let counted = until.as_micros() - start.plus_micros(LEARNING_DAYS * DAY).as_micros();
    sites as f64 * (counted.max(0) as f64 / DAY as f64) / 30.44
}

/// The site-months of a history that count, as [`AlarmRate::site_months`].
pub fn site_months(sites: &[SiteSpec], history: &[HistoryEvent], until: Timestamp) -> f64 {
    history.first().map_or(0.0, |first| months_of(sites.len(), floor(first.at), until))
}

/// The lowest thresholds, in steps of a quarter, that keep within the budget on this history,
/// counting only what they decide: silences of single sites that ended by themselves. None if not
/// even the highest do.
pub fn tune(
    sites: &[SiteSpec],
    history: &[HistoryEvent],
    until: Timestamp,
    config: &WatchConfig,
    mut progress: impl FnMut(),
) -> Option<Thresholds> {
    const STEP: f64 = 0.25;
    const STEPS: usize = 40;
    let mut rate_of = |thresholds: Thresholds| {
        let config = WatchConfig { thresholds, ..config.clone() };
        let rate = replay(sites, history, until, config, |_| {}).rate;
        progress();
        rate
    };
    let nines = |step: usize| 1.5 + step as f64 * STEP;
    // Alarms fall as thresholds rise: look for the first step within the budget by halving.
    let lowest = |within: &mut dyn FnMut(f64) -> bool| {
        let (mut low, mut high) = (0, STEPS);
        while low < high {
            let middle = (low + high) / 2;
            if within(nines(middle)) { high = middle } else { low = middle + 1 }
        }
        (low < STEPS).then(|| nines(low))
    };
    let usual = config.thresholds;
    let page = lowest(&mut |page| {
        let thresholds = Thresholds { page, red: usual.red.min(page), amber: usual.amber.min(page), ..usual };
        rate_of(thresholds).natural_pages_per_site_month() <= BUDGET.0
    })?;
    let red = lowest(&mut |red| {
        let thresholds = Thresholds { page: page.max(red), red, amber: usual.amber.min(red), ..usual };
        rate_of(thresholds).natural_screens_per_site_month() <= BUDGET.1
    })?;
    Some(Thresholds { page: page.max(red), red, amber: usual.amber.min(red), ..usual })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::Calendar;

    #[test]
    fn a_history_with_an_outage_tells_of_it_and_of_nothing_else() {
        let at = |minute: i64| Timestamp::from_micros(1_767_571_200_000_000 + minute * MINUTE);
        let site = |name: &str| SiteSpec {
            id: SiteId::new(name).expect("valid"),
            calendar: Calendar::default(),
            attributes: BTreeMap::new(),
            expected_from: at(0),
            enrolled: true,
        };
        let sites: Vec<SiteSpec> = (0..5).map(|number| site(&format!("s-{number}"))).collect();
        let days = 20;
        let mut history = Vec::new();
        for minute in 0..days * 1440 {
            for (number, spec) in sites.iter().enumerate() {
                let is_open = (9 * 60..20 * 60).contains(&(minute % 1440));
                let is_out = number == 2 && (17 * 1440 + 700..17 * 1440 + 800).contains(&minute);
                if is_open && !is_out {
                    let stream = CONTACT.to_owned();
                    history.push(HistoryEvent { at: at(minute), site: spec.id.clone(), stream, count: 1.0 });
                }
            }
        }
        let found = replay(&sites, &history, at(days * 1440), WatchConfig::default(), |_| {});
        let silences: Vec<&Incident> =
            found.incidents.iter().filter(|incident| incident.opened_at > at(15 * 1440)).collect();
        assert_eq!(silences.len(), 1, "{silences:?} {:?}", found.incidents);
        assert!(silences[0].members.contains_key(&sites[2].id) && !silences[0].is_open());
        assert_eq!(found.rate.pages, 1);
        assert!((found.rate.site_months - 5.0 * 6.0 / 30.44).abs() < 0.1);
    }
}
