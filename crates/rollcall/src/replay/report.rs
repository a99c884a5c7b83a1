//! What a replay comes to: a summary, and a page with pictures on which people decide whether to
//! trust it.

use std::{collections::BTreeMap, fmt::Write};

use chrono::NaiveDate;
use rollcall_roll::{
    AlarmRate, BUDGET, Decision, HistoryEvent, Incident, Kind, Notice, Replayed, SiteSpec, Thresholds,
};
use rollcall_types::{SiteId, Timestamp};

/// Rows of a table, and of the timeline.
const WORST: usize = 10;
const LANES: usize = 40;
/// Fixed timeouts to compare with, hours.
const TIMEOUTS: [i64; 5] = [1, 4, 12, 24, 48];
const HOUR: i64 = 3_600_000_000;
const LEARNING: i64 = 14 * 24 * HOUR;

pub(super) struct Report<'a> {
    found: &'a Replayed,
    thresholds: Thresholds,
    from: Timestamp,
    until: Timestamp,
    events: usize,
    /// Times that people were told of something new, by site, day and kind.
    by_site: Vec<(String, usize)>,
    by_day: BTreeMap<NaiveDate, usize>,
    by_kind: Vec<(String, usize)>,
    /// Alarms per site and month of fixed timeouts.
    timeouts: Vec<(i64, f64)>,
}

fn day_of(at: Timestamp) -> NaiveDate {
    at.to_chrono().date_naive()
}

/// The most frequent first.
fn sorted(counts: BTreeMap<String, usize>) -> Vec<(String, usize)> {
    let mut sorted: Vec<(String, usize)> = counts.into_iter().collect();
    sorted.sort_by(|(name, count), (other, than)| than.cmp(count).then(name.cmp(other)));
    sorted
}

impl<'a> Report<'a> {
    pub(super) fn new(
        sites: &[SiteSpec],
        history: &[HistoryEvent],
        until: Timestamp,
        found: &'a Replayed,
        thresholds: Thresholds,
    ) -> Self {
        let incidents: BTreeMap<u64, &Incident> =
            found.incidents.iter().map(|incident| (incident.id, incident)).collect();
        let (mut by_site, mut by_day, mut by_kind) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let is_new = |said: &&Decision| matches!(said.notice, Notice::Opened | Notice::Again);
        for said in found.told.iter().filter(is_new) {
            let Some(incident) = incidents.get(&said.incident) else { continue };
            *by_day.entry(day_of(said.at)).or_default() += 1;
            *by_kind.entry(incident.kind.to_string()).or_default() += 1;
            // A group is nobody's fault in particular.
            if let (Kind::Silence | Kind::Drop | Kind::NeverHeard, Some(site)) =
                (incident.kind, incident.members.keys().next())
            {
                *by_site.entry(site.to_string()).or_default() += 1;
            }
        }
        let from = history.first().map_or(until, |first| first.at);
        let timeouts = fixed_timeouts(sites, history, from, until, found.rate.site_months);
        Self {
            found,
            thresholds,
            from,
            until,
            events: history.len(),
            by_site: sorted(by_site),
            by_day,
            by_kind: sorted(by_kind),
            timeouts,
        }
    }

    /// For the terminal.
    pub(super) fn summary(&self) -> String {
        let AlarmRate { site_months, pages, screens, natural_pages, first_days, never_heard, .. } = self.found.rate;
        let rate = &self.found.rate;
        let mut text = format!(
            "after the first 14 days, in {site_months:.1} site-months: {pages} pages ({:.2} per site-month, budget {}), {screens} incidents \
             on the screen ({:.2}, budget {})\n\
             thresholds decided {natural_pages} of the pages ({:.2} per site-month); the others are groups, or silences of half a business day\n",
            rate.pages_per_site_month(),
            BUDGET.0,
            rate.screens_per_site_month(),
            BUDGET.1,
            rate.natural_pages_per_site_month(),
        );
        if first_days > 0 || never_heard > 0 {
            let _ = writeln!(
                text,
                "not in these: {first_days} pages in the first 14 days; {never_heard} sites were never heard"
            );
        }
        let list = |rows: &[(String, usize)]| {
            let named: Vec<String> = rows.iter().take(WORST).map(|(name, count)| format!("{name} {count}")).collect();
            let more = rows.len().saturating_sub(WORST);
            if rows.is_empty() {
                "none".to_owned()
            } else if more > 0 {
                format!("{}, and {more} more", named.join(", "))
            } else {
                named.join(", ")
            }
        };
        let _ = writeln!(text, "pages by kind: {}", list(&self.by_kind));
        let _ = writeln!(text, "pages by site: {}", list(&self.by_site));
        let mut days: Vec<(String, usize)> = self.by_day.iter().map(|(day, count)| (day.to_string(), *count)).collect();
        days.sort_by_key(|(day, count)| (std::cmp::Reverse(*count), day.clone()));
        let _ = writeln!(text, "days with most pages: {}", list(&days));
        text
    }

    /// A page of its own: nothing in it runs, and nothing is loaded.
    pub(super) fn html(&self) -> String {
        let rate = &self.found.rate;
        let mut page = String::from(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>Replay</title><style>body{font-family:sans-serif;max-width:72em;margin:1em auto;padding:0 1em}\
             table{border-collapse:collapse}td,th{padding:2px 12px 2px 0;text-align:left}td.n{text-align:right}\
             svg{width:100%;height:auto}text{font-size:11px;font-family:sans-serif}</style></head><body>",
        );
        let _ = write!(
            page,
            "<h1>What the watch would have said</h1><p>{} events from {} to {}; thresholds: red {}, page {}. After the first 14 days, in \
             {:.1} site-months: {} pages ({:.2} per site-month, budget {}), {} incidents on the screen ({:.2}, budget {}). In the first 14 \
             days: {} pages. Never heard: {} sites.</p>",
            self.events,
            day_of(self.from),
            day_of(self.until),
            self.thresholds.red,
            self.thresholds.page,
            rate.site_months,
            rate.pages,
            rate.pages_per_site_month(),
            BUDGET.0,
            rate.screens,
            rate.screens_per_site_month(),
            BUDGET.1,
            rate.first_days,
            rate.never_heard,
        );
        page.push_str("<h2>Pages by day</h2>");
        page.push_str(&self.days_svg());
        page.push_str("<h2>Timeline of the sites that were away for the longest</h2><p>Darker: a higher level. Outlined: on the screen, never told.</p>");
        page.push_str(&self.timeline_svg());
        let table = |heading: &str, rows: &[(String, usize)]| {
            let rows: String = rows
                .iter()
                .take(LANES)
                .map(|(name, count)| format!("<tr><td>{}</td><td class=\"n\">{count}</td></tr>", escape(name)))
                .collect();
            format!("<h2>{heading}</h2><table>{rows}</table>")
        };
        page.push_str(&table("Pages by kind", &self.by_kind));
        page.push_str(&table("Pages by site", &self.by_site));
        page.push_str(&self.what_if());
        page.push_str("</body></html>\n");
        page
    }

    fn x(&self, at: Timestamp) -> f64 {
        const LEFT: f64 = 140.0;
        const WIDTH: f64 = 840.0;
        let all = (self.until.as_micros() - self.from.as_micros()).max(1) as f64;
        LEFT + WIDTH * ((at.as_micros() - self.from.as_micros()) as f64 / all).clamp(0.0, 1.0)
    }

    fn days_svg(&self) -> String {
        let most = self.by_day.values().copied().max().unwrap_or(1).max(1);
        let mut svg = String::from("<svg viewBox=\"0 0 1000 130\" role=\"img\" aria-label=\"pages by day\">");
        let wide =
            (840.0 / ((self.until.as_micros() - self.from.as_micros()) as f64 / (24 * HOUR) as f64).max(1.0)).max(1.0);
        for (day, count) in &self.by_day {
            let at = day.and_hms_opt(0, 0, 0).map(|time| Timestamp::from_micros(time.and_utc().timestamp_micros()));
            let high = 100.0 * *count as f64 / most as f64;
            let _ = write!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{high:.1}\" fill=\"#b33\"><title>{day}: {count}</title></rect>",
                self.x(at.unwrap_or(self.from)),
                110.0 - high,
                wide * 0.8,
            );
        }
        let _ = write!(
            svg,
            "<text x=\"130\" y=\"18\" text-anchor=\"end\">{most}</text><text x=\"130\" y=\"110\" text-anchor=\"end\">0</text>\
             <text x=\"140\" y=\"126\">{}</text><text x=\"980\" y=\"126\" text-anchor=\"end\">{}</text></svg>",
            day_of(self.from),
            day_of(self.until)
        );
        svg
    }

    fn timeline_svg(&self) -> String {
        const HIGH: usize = 14;
        let mut lanes: BTreeMap<&SiteId, (i64, Vec<(Timestamp, Timestamp, &Incident)>)> = BTreeMap::new();
        let of_sites = self.found.incidents.iter().filter(|incident| {
            matches!(incident.kind, Kind::Silence | Kind::Group | Kind::CohortQuiet | Kind::NeverHeard | Kind::Drop)
        });
        for incident in of_sites {
            for (site, member) in &incident.members {
                let until = member.until.or(incident.closed_at).unwrap_or(self.until);
                let lane = lanes.entry(site).or_default();
                lane.0 += until.as_micros() - member.since.as_micros();
                lane.1.push((member.since, until, incident));
            }
        }
        let mut lanes: Vec<_> = lanes.into_iter().collect();
        lanes.sort_by_key(|(site, (away, _))| (std::cmp::Reverse(*away), *site));
        lanes.truncate(LANES);
        let high = lanes.len() * HIGH + 20;
        let mut svg = format!("<svg viewBox=\"0 0 1000 {high}\" role=\"img\" aria-label=\"timeline\">");
        for (row, (site, (_, spans))) in lanes.iter().enumerate() {
            let y = row * HIGH;
            let _ =
                write!(svg, "<text x=\"130\" y=\"{}\" text-anchor=\"end\">{}</text>", y + 11, escape(site.as_str()));
            for (from, until, incident) in spans {
                const LEVELS: [&str; 6] = ["none", "#f4b6a6", "#e58c77", "#cf5f4b", "#a63325", "#6d120b"];
                let (x, end) = (self.x(*from), self.x(*until));
                let told = if incident.told.is_empty() && !incident.was_held {
                    0
                } else {
                    usize::from(incident.level.clamp(1, 5))
                };
                let _ = write!(
                    svg,
                    "<rect x=\"{x:.1}\" y=\"{}\" width=\"{:.1}\" height=\"10\" fill=\"{}\" stroke=\"#a66\" stroke-width=\"0.4\"><title>{}</title></rect>",
                    y + 2,
                    (end - x).max(0.8),
                    LEVELS[told],
                    escape(&format!(
                        "{from} to {until}: {}, level {}: {}",
                        incident.kind, incident.level, incident.evidence
                    )),
                );
            }
        }
        let _ = write!(
            svg,
            "<text x=\"140\" y=\"{0}\">{1}</text><text x=\"980\" y=\"{0}\" text-anchor=\"end\">{2}</text></svg>",
            high - 4,
            day_of(self.from),
            day_of(self.until)
        );
        svg
    }

    /// How many alarms other thresholds, and fixed timeouts, would have made on the same data.
    fn what_if(&self) -> String {
        let counted_from = self.from.plus_micros(LEARNING);
        let natural =
            self.found.incidents.iter().filter(|incident| incident.opened_at >= counted_from && !incident.was_held);
        let peaks: Vec<f64> = natural.filter_map(|incident| incident.peak_nines).collect();
        let months = self.found.rate.site_months.max(1e-9);
        let mut html = String::from(
            "<h2>Other thresholds</h2><p>Silences of single sites that ended by themselves, at or above a threshold, per site and month. \
             Below red they are not all known.</p><table><tr><th>threshold</th><th>per site-month</th></tr>",
        );
        for step in 0..=20 {
            let nines = self.thresholds.red + f64::from(step) * 0.25;
            let count = peaks.iter().filter(|peak| **peak >= nines).count() as f64 / months;
            let _ = write!(html, "<tr><td class=\"n\">{nines:.2}</td><td class=\"n\">{count:.2}</td></tr>");
        }
        html.push_str(
            "</table><h2>Fixed timeouts on the same data</h2><p>A site counts as heard by whatever came of it; each longer gap is an alarm.\
             </p><table><tr><th>hours</th><th>alarms per site-month</th></tr>",
        );
        for (hours, alarms) in &self.timeouts {
            let _ = write!(html, "<tr><td class=\"n\">{hours}</td><td class=\"n\">{alarms:.2}</td></tr>");
        }
        html.push_str("</table>");
        html
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Gaps longer than each timeout that ended after the first days, per site and month; one that
/// lasts until the end counts.
fn fixed_timeouts(
    sites: &[SiteSpec],
    history: &[HistoryEvent],
    from: Timestamp,
    until: Timestamp,
    months: f64,
) -> Vec<(i64, f64)> {
    let mut last: BTreeMap<&SiteId, i64> = sites.iter().map(|site| (&site.id, from.as_micros())).collect();
    let mut alarms = [0_usize; TIMEOUTS.len()];
    let counted_from = from.as_micros() + LEARNING;
    let mut gap = |from: i64, to: i64| {
        for (count, hours) in alarms.iter_mut().zip(TIMEOUTS) {
            *count += usize::from(to - from > hours * HOUR && to >= counted_from);
        }
    };
    for event in history {
        if let Some(last) = last.get_mut(&event.site) {
            gap(*last, event.at.as_micros());
            *last = event.at.as_micros();
        }
    }
    last.into_values().for_each(|last| gap(last, until.as_micros()));
    TIMEOUTS.iter().zip(alarms).map(|(hours, count)| (*hours, count as f64 / months.max(1e-9))).collect()
}
