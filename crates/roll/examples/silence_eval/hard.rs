//! A made-up feed as hard as a real one: bursty rows without beacons, sites whose rates differ a
//! thousandfold, one shared source per city that fails now and then, hiccups on most days, holidays
//! that nobody declared, clocks that change, dead sites.
//!
//! Sites stop at random. Read off are the delay of each way to notice at equal natural alarm rate,
//! by decile of rate, and when people are first told by the watch as it runs, thresholds set anew
//! each week.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Datelike, NaiveDate, TimeZone, Timelike};
use chrono_tz::Tz;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rollcall_roll::{Calendar, Decision, Incident, Kind, Notice, SiteSpec, StreamId, Watch, WatchConfig};
use rollcall_types::SiteId;

use crate::{
    baselines::{Gaps, HourOfWeek},
    fleets::quantile,
    world::{DAY, START, at},
};

const SITES: usize = 360;
const CITIES: usize = 12;
const TRAINING: i64 = 42 * DAY;
const END: i64 = 126 * DAY;
/// One city's source fails on each of seven days from then on.
const OUTAGES_FROM: i64 = TRAINING + 28 * DAY;
/// A stop lasts until it would have been noticed by anybody: of a site with few rows longer.
fn stop_lasts(per_hour: f64) -> i64 {
    if per_hour < 1.5 { 14 * DAY } else { 4 * DAY }
}
const METHODS: [&str; 4] = ["ours", "fixed timeout", "phi-accrual", "hour-of-week clock"];
/// Alarms a site and month at which the ways are compared: people called, and shown on the screen.
const RATES: [f64; 2] = [0.5, 3.0];

struct Shop {
    spec: SiteSpec,
    zone: Tz,
    city: usize,
    opens: i64,
    closes: i64,
    sundays: bool,
    /// Rows come in so many minutes of an open hour, on average.
    per_hour: f64,
    /// How much the rate wanders from hour to hour.
    wander: f64,
    /// Share of days with a hiccup of its own.
    hiccups: f64,
    /// It never sends anything from then on.
    dies: i64,
}

/// From a minute to a minute.
type Span = (i64, i64);

struct Feed {
    shops: Vec<Shop>,
    outages: Vec<Vec<Span>>,
    holidays: BTreeSet<NaiveDate>,
    hiccup: Vec<(i64, Span)>,
    rate: Vec<(i64, f64)>,
    random: SmallRng,
}

fn normal(random: &mut SmallRng) -> f64 {
    (0..12).map(|_| random.random_range(0.0..1.0)).sum::<f64>() - 6.0
}

impl Feed {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let zones = [chrono_tz::America::New_York, chrono_tz::America::Chicago, chrono_tz::Europe::Berlin];
        let shops = (0..SITES).map(|number| shop(number, &zones, &mut random)).collect();
        // Each city's source fails a few times for hours; one for most of a week, each day anew.
        let mut outages: Vec<Vec<Span>> = (0..CITIES)
            .map(|_| {
                let spans = (0..6).map(|_| {
                    let from = random.random_range(0..END);
                    (from, from + random.random_range(90..20 * 60))
                });
                spans.collect()
            })
            .collect();
        outages[3].extend((0..7).map(|day| OUTAGES_FROM + day * DAY).map(|day| (day + 15 * 60, day + 20 * 60)));
        // In March, when clocks change as well, and in May.
        let days = [(2026, 2, 16), (2026, 4, 3), (2026, 4, 6), (2026, 5, 1)];
        let holidays = days.iter().filter_map(|(year, month, day)| NaiveDate::from_ymd_opt(*year, *month, *day));
        Self {
            shops,
            outages,
            holidays: holidays.collect(),
            hiccup: vec![(-1, (0, 0)); SITES],
            rate: vec![(-1, 0.0); SITES],
            random,
        }
    }

    fn is_planned_open(&self, shop: usize, minute: i64) -> bool {
        let plan = &self.shops[shop];
        let local = plan.zone.timestamp_opt(START + minute * 60, 0).single().expect("a time");
        let of_day = i64::from(local.hour()) * 60 + i64::from(local.minute());
        let is_closed = !plan.sundays && local.weekday() == chrono::Weekday::Sun;
        !is_closed && !self.holidays.contains(&local.date_naive()) && (plan.opens..plan.closes).contains(&of_day)
    }

    fn is_out(&self, shop: usize, minute: i64) -> bool {
        let is_in = |span: &Span| (span.0..span.1).contains(&minute);
        self.outages[self.shops[shop].city].iter().any(is_in) || minute >= self.shops[shop].dies
    }

    /// Whether rows of a shop come in a minute.
    fn speaks(&mut self, shop: usize, minute: i64) -> bool {
        if !self.is_planned_open(shop, minute) || self.is_out(shop, minute) {
            return false;
        }
        let (plan, random) = (&self.shops[shop], &mut self.random);
        if self.hiccup[shop].0 != minute / DAY {
            let from = minute + random.random_range(0..600);
            let long = if random.random_bool(plan.hiccups) { random.random_range(10..90) } else { 0 };
            self.hiccup[shop] = (minute / DAY, (from, from + long));
        }
        if self.rate[shop].0 != minute / 60 {
            let wander = plan.wander * normal(random) - plan.wander * plan.wander / 2.0;
            self.rate[shop] = (minute / 60, plan.per_hour / 60.0 * wander.exp());
        }
        let (from, to) = self.hiccup[shop].1;
        !(from..to).contains(&minute) && random.random_bool(self.rate[shop].1.min(1.0))
    }

    fn minute_of_week(&self, shop: usize, minute: i64) -> i64 {
        let local = self.shops[shop].zone.timestamp_opt(START + minute * 60, 0).single().expect("a time");
        let day = i64::from(local.weekday().num_days_from_monday());
        day * DAY + i64::from(local.hour()) * 60 + i64::from(local.minute())
    }
}

fn shop(number: usize, zones: &[Tz], random: &mut SmallRng) -> Shop {
    let (city, zone) = (number % CITIES, zones[number % CITIES % zones.len()]);
    let attributes = [
        ("city".to_owned(), format!("city-{city}")),
        ("isp".to_owned(), format!("isp-{}", random.random_range(0..9))),
        ("format".to_owned(), format!("format-{}", number % 2)),
    ];
    // From two rows a day to one each minute.
    let per_hour = 60.0 * (-(random.random_range(0.0_f64..1.0)) * 6.0).exp();
    Shop {
        spec: SiteSpec {
            id: SiteId::new(&format!("h{number:04}")).expect("valid"),
            calendar: Calendar { zone, ..Calendar::default() },
            attributes: attributes.into(),
            expected_from: at(0),
            enrolled: true,
        },
        zone,
        city,
        opens: 60 * 7 + 30 * random.random_range(0..6),
        closes: 60 * 17 + 30 * random.random_range(0..10),
        sundays: random.random_bool(0.3),
        per_hour,
        wander: random.random_range(0.2..1.0),
        hiccups: random.random_range(0.2..0.8),
        dies: if number % 40 == 17 { random.random_range(0..END) } else { i64::MAX },
    }
}

/// A stop, and what was made of it.
struct Stop {
    site: usize,
    from: i64,
    to: i64,
    /// When each way's score first passed each step of its thresholds is not known before the end:
    /// all of them are kept, by the quarter of an hour.
    scores: Vec<[f64; 4]>,
}

/// A silence that ended by itself, and each way's score at its end.
struct Natural {
    site: usize,
    scores: [f64; 4],
}

pub(crate) fn run() {
    let found: Vec<Found> = [77, 78, 79].map(one).into();
    for rate in RATES {
        print_delays(&found, rate);
    }
    print_calls(&found);
}

/// What was found with one seed.
struct Found {
    feed: Feed,
    natural: Vec<Natural>,
    stops: Vec<Stop>,
    told: Vec<Decision>,
    incidents: BTreeMap<u64, Incident>,
    /// The longest gap of each site that no stop made, in its open minutes: what the watch may have
    /// taken for healthy.
    longest: Vec<f64>,
    months: f64,
}

impl Found {
    /// The sites whose rate is between these.
    fn with_rate(&self, (low, high): (f64, f64)) -> impl Iterator<Item = usize> {
        (0..SITES).filter(move |site| (low..high).contains(&self.feed.shops[*site].per_hour))
    }

    /// When people were first told of a stop.
    fn first_told(&self, stop: &Stop) -> Option<i64> {
        let id = &self.feed.shops[stop.site].spec.id;
        let is_about = |said: &&Decision| {
            let of = self.incidents.get(&said.incident);
            said.notice != Notice::Resolved
                && of
                    .and_then(|of| of.members.get(id))
                    .is_some_and(|member| member.until.is_none_or(|until| until >= said.at))
        };
        let during = self.told.iter().filter(|said| (at(stop.from)..at(stop.to)).contains(&said.at));
        during.filter(is_about).map(|said| minute_of(said.at)).next()
    }

    /// Calls about a site of these that no stop and no outage explains.
    fn natural_calls(&self, rates: (f64, f64)) -> usize {
        let sites: Vec<usize> = self.with_rate(rates).collect();
        let is_unexplained = |said: &&Decision| {
            let of = self.incidents.get(&said.incident).filter(|of| of.kind == Kind::Silence);
            let site =
                of.and_then(|of| sites.iter().find(|site| of.members.contains_key(&self.feed.shops[**site].spec.id)));
            let Some(site) = site.filter(|_| matches!(said.notice, Notice::Opened | Notice::Again)) else {
                return false;
            };
            let minute = minute_of(said.at);
            let mut of_site = self.stops.iter().filter(|stop| stop.site == *site);
            minute > TRAINING
                && !of_site.any(|stop| (stop.from..stop.to + DAY).contains(&minute))
                && !(minute - DAY..minute).step_by(15).any(|then| self.feed.is_out(*site, then))
        };
        self.told.iter().filter(is_unexplained).count()
    }
}

fn minute_of(time: rollcall_types::Timestamp) -> i64 {
    (time.as_micros() - at(0).as_micros()) / 60_000_000
}

fn one(seed: u64) -> Found {
    let mut feed = Feed::new(seed);
    let config = WatchConfig { tunes: true, ..WatchConfig::default() };
    let mut watch = Watch::new(config, at(0));
    feed.shops.iter().for_each(|shop| watch.set_site(shop.spec.clone()));
    let mut gaps = vec![Gaps::default(); SITES];
    let mut weeks = vec![HourOfWeek::new(); SITES];
    let mut ids: Vec<Option<StreamId>> = vec![None; SITES];
    let mut random = SmallRng::seed_from_u64(seed ^ 0x51);
    let stops = stops(&feed, &mut random);
    let mut followed: Vec<Stop> = Vec::new();
    let (mut natural, mut longest) = (Vec::new(), vec![0.0_f64; SITES]);
    let (mut told, mut incidents): (Vec<Decision>, BTreeMap<u64, Incident>) = (Vec::new(), BTreeMap::new());
    let mut healthy = 0.0;
    for minute in 0..END {
        watch.tick(at(minute));
        if minute == TRAINING {
            gaps.iter_mut().for_each(Gaps::trained);
            weeks.iter_mut().for_each(|week| week.trained(TRAINING as f64 / (7 * DAY) as f64));
        }
        for site in 0..SITES {
            let stop = stops[site].filter(|(from, to)| (*from..*to).contains(&minute));
            if let Some((from, to)) = stop {
                if from == minute {
                    followed.push(Stop { site, from, to, scores: Vec::new() });
                }
                continue;
            }
            healthy += f64::from(u8::from(minute > TRAINING && !feed.is_out(site, minute)));
            if !feed.speaks(site, minute) {
                continue;
            }
            let elapsed = gaps[site].elapsed(minute);
            let began = minute - elapsed as i64;
            let has_stopped = stops[site].is_some_and(|(from, to)| from < minute && to > began);
            if !has_stopped && gaps[site].last.is_some() {
                longest[site] = longest[site].max(business(&feed, site, began, minute));
            }
            let is_natural = !has_stopped && !(began..minute).step_by(15).any(|then| feed.is_out(site, then));
            if is_natural
                && minute > TRAINING
                && elapsed > 5.0
                && let Some(id) = ids[site]
            {
                let scores = scores(&feed, &watch, &gaps[site], &weeks[site], id, site, minute);
                natural.push(Natural { site, scores });
            }
            gaps[site].event(minute, minute <= TRAINING);
            if minute <= TRAINING {
                weeks[site].event(feed.minute_of_week(site, minute));
            }
            let id = &feed.shops[site].spec.id;
            watch.event(id, "sales", at(minute), 1.0);
            ids[site] = ids[site].or_else(|| watch.stream_id(id, "sales"));
        }
        if minute % 15 == 0 {
            for stop in followed.iter_mut().filter(|stop| (stop.from..stop.to).contains(&minute)) {
                let site = stop.site;
                if let Some(id) = ids[site] {
                    stop.scores.push(scores(&feed, &watch, &gaps[site], &weeks[site], id, site, minute));
                }
            }
        }
        told.extend(watch.take_decisions());
        incidents.extend(watch.take_changed().into_iter().map(|incident| (incident.id, incident)));
    }
    let months = healthy / (30.44 * DAY as f64);
    Found { feed, natural, stops: followed, told, incidents, longest, months }
}

/// A stop of every other site after training, at a minute in which it is open: at any time a few in
/// a hundred are stopped.
fn stops(feed: &Feed, random: &mut SmallRng) -> Vec<Option<Span>> {
    let stop_of = |site: usize, random: &mut SmallRng| {
        let long = stop_lasts(feed.shops[site].per_hour);
        let mut tries = (0..500).map(|_| random.random_range(TRAINING + DAY..END - long - DAY));
        let from = tries.find(|minute| feed.is_planned_open(site, *minute) && !feed.is_out(site, *minute))?;
        Some((from, from + long))
    };
    let mut of_site = |site: usize| {
        let is_stopped = random.random_bool(0.5) && feed.shops[site].dies > END;
        is_stopped.then(|| stop_of(site, random)).flatten()
    };
    (0..SITES).map(&mut of_site).collect()
}

fn scores(
    feed: &Feed,
    watch: &Watch,
    gaps: &Gaps,
    week: &HourOfWeek,
    id: StreamId,
    site: usize,
    minute: i64,
) -> [f64; 4] {
    let elapsed = gaps.elapsed(minute);
    let expected = week.expected(feed.minute_of_week(site, minute), elapsed as i64);
    [watch.measure(id, at(minute)).surprise, gaps.timeout(elapsed), gaps.phi(elapsed), expected]
}

/// Open minutes of a shop between two minutes.
fn business(feed: &Feed, site: usize, from: i64, to: i64) -> f64 {
    (from..to).step_by(15).filter(|minute| feed.is_planned_open(site, *minute)).count() as f64 * 15.0
}

/// The deciles of all sites' rates.
fn deciles(found: &[Found]) -> Vec<(f64, f64)> {
    let mut rates: Vec<f64> = found.iter().flat_map(|one| one.feed.shops.iter().map(|shop| shop.per_hour)).collect();
    rates.sort_by(f64::total_cmp);
    let limit = |decile: usize| rates.get(decile * rates.len() / 10).copied().unwrap_or(f64::INFINITY);
    (0..10).map(|decile| (limit(decile), limit(decile + 1))).collect()
}

fn hours(mut delays: Vec<f64>) -> String {
    delays.sort_by(f64::total_cmp);
    let missed = delays.iter().filter(|delay| delay.is_infinite()).count();
    let missed = if missed > 0 { format!(" ({missed} not at all)") } else { String::new() };
    format!("{:.1} / {:.1}{missed}", quantile(&delays, 0.5), quantile(&delays, 0.9))
}

fn print_delays(found: &[Found], rate: f64) {
    let (stops, months): (usize, f64) =
        found.iter().fold((0, 0.0), |sum, one| (sum.0 + one.stops.len(), sum.1 + one.months));
    println!(
        "\nHard feed, three seeds: hours until a stop is noticed, median / 90th percentile, at {rate} natural alarms a site-month in \
         each decile of rate ({stops} stops, {months:.0} site-months)\n"
    );
    println!("| rows an open hour | {} |\n|---|---|---|---|---|", METHODS.join(" | "));
    let mut all: [Vec<f64>; 4] = Default::default();
    for rates in deciles(found) {
        let cells: Vec<String> = (0..METHODS.len())
            .map(|method| {
                let has = |one: &Found, site: usize| (rates.0..rates.1).contains(&one.feed.shops[site].per_hour);
                let at_end = found
                    .iter()
                    .flat_map(|one| one.natural.iter().filter(|gap| has(one, gap.site)).map(|gap| gap.scores[method]));
                let mut at_end: Vec<f64> = at_end.collect();
                at_end.sort_by(|a, b| b.total_cmp(a));
                let threshold = at_end.get((rate * months / 10.0) as usize).copied().unwrap_or(0.0);
                let delay = |stop: &Stop| {
                    let first = stop.scores.iter().position(|scores| scores[method] > threshold);
                    first.map_or(f64::INFINITY, |quarters| quarters as f64 / 4.0)
                };
                let of_stops =
                    found.iter().flat_map(|one| one.stops.iter().filter(|stop| has(one, stop.site)).map(&delay));
                let delays: Vec<f64> = of_stops.collect();
                all[method].extend(&delays);
                hours(delays)
            })
            .collect();
        println!("| {:.2} to {:.2} | {} |", rates.0, rates.1.min(60.0), cells.join(" | "));
    }
    println!("| all | {} |", all.map(hours).join(" | "));
}

fn print_calls(found: &[Found]) {
    println!("\nWhen people are first told, thresholds set anew each week:\n");
    println!(
        "| rows an open hour | after hours, median / 90th percentile | not told within a business day beyond the longest gap that was no stop | \
         natural calls a site-month |\n|---|---|---|---|"
    );
    let months: f64 = found.iter().map(|one| one.months).sum();
    for rates in deciles(found) {
        let (mut delays, mut late) = (Vec::new(), 0);
        for one in found {
            let sites: BTreeSet<usize> = one.with_rate(rates).collect();
            for stop in one.stops.iter().filter(|stop| sites.contains(&stop.site)) {
                let told = one.first_told(stop);
                delays.push(told.map_or(f64::INFINITY, |told| (told - stop.from) as f64 / 60.0));
                let shop = &one.feed.shops[stop.site];
                let gone = business(&one.feed, stop.site, stop.from, told.unwrap_or(stop.to));
                late += usize::from(gone > one.longest[stop.site] + (shop.closes - shop.opens) as f64);
            }
        }
        let calls: usize = found.iter().map(|one| one.natural_calls(rates)).sum();
        let of = delays.len();
        let calls = calls as f64 / (months / 10.0);
        println!("| {:.2} to {:.2} | {} | {late} of {of} | {calls:.2} |", rates.0, rates.1.min(60.0), hours(delays));
    }
    let (outages, named, untold) =
        found.iter().map(outages).fold((0, 0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1, sum.2 + of.2));
    let relapses: Vec<usize> = found.iter().map(relapses).collect();
    let deaf: usize =
        found.iter().map(|one| one.incidents.values().filter(|of| of.kind == Kind::HqBlind).count()).sum();
    println!(
        "\noutages of a city in open hours: {outages}, named as such {named}, of which nobody was told anything {untold}; days on which \
         people were told of an outage that came back on seven days: {relapses:?}; HQ thought deaf: {deaf} times"
    );
}

fn is_of_city(one: &Found, city: usize, said: &Decision) -> bool {
    let of = one.incidents.get(&said.incident).and_then(|of| of.attribute.as_ref());
    said.notice != Notice::Resolved && of.is_some_and(|of| of.value == format!("city-{city}"))
}

/// Outages of at least four hours in open hours of most of a city: how many, named, of which nobody
/// was told anything.
fn outages(one: &Found) -> (usize, usize, usize) {
    let (mut all, mut named, mut untold) = (0, 0, 0);
    for (city, spans) in one.feed.outages.iter().enumerate() {
        for (from, to) in spans.iter().filter(|(from, to)| *from > TRAINING && to - from >= 240) {
            let members: Vec<usize> = (0..SITES).filter(|site| one.feed.shops[*site].city == city).collect();
            let open = members.iter().filter(|site| business(&one.feed, **site, *from, *to) >= 180.0).count();
            if open * 2 < members.len() {
                continue;
            }
            let during: Vec<&Decision> =
                one.told.iter().filter(|said| (at(*from)..at(*to + 120)).contains(&said.at)).collect();
            all += 1;
            named += usize::from(during.iter().any(|said| is_of_city(one, city, said)));
            untold += usize::from(!during.iter().any(|said| said.notice != Notice::Resolved));
        }
    }
    (all, named, untold)
}

/// Of the seven days on which one city's source failed for hours: on how many people were told so.
fn relapses(one: &Found) -> usize {
    let told = |day: i64| {
        let (from, to) = (OUTAGES_FROM + day * DAY + 15 * 60, OUTAGES_FROM + day * DAY + 22 * 60);
        let mut during = one.told.iter().filter(|said| (at(from)..at(to)).contains(&said.at));
        during.any(|said| is_of_city(one, 3, said))
    };
    (0..7).filter(|day| told(*day)).count()
}
