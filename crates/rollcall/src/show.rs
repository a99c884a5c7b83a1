//! The roll, for people and programs.

use std::{collections::BTreeMap, process::ExitCode};

use comfy_table::{Cell, Color, ContentArrangement, Row, Table, presets::NOTHING};
use rollcall_site::local;
use rollcall_types::{Cause, SiteId, SiteState, Timestamp, roll_sentence};
use serde::Deserialize;

use crate::FINDING;

/// One line of the roll, as the API gives it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RollLine {
    pub(crate) site: SiteId,
    pub(crate) state: SiteState,
    pub(crate) since: Option<Timestamp>,
    pub(crate) cause: Option<Cause>,
    pub(crate) last_heard: Option<Timestamp>,
    pub(crate) complete_through: Option<Timestamp>,
    pub(crate) unconfirmed_rows: u64,
    #[serde(default)]
    pub(crate) caught_up_by: Option<Timestamp>,
    #[serde(default)]
    pub(crate) learning_day: Option<i64>,
    #[serde(default)]
    pub(crate) detail: String,
}

/// What a person wants to see of the roll.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// Every site, not only those that are not well.
    pub(crate) all: bool,
    /// Only sites in these states.
    pub(crate) states: Vec<SiteState>,
    /// Ports, days of learning and what else HQ knows.
    pub(crate) verbose: bool,
    pub(crate) sort: Sort,
}

/// What comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sort {
    /// Sites with the loudest incidents, then by state.
    #[default]
    Loudest,
    /// By id.
    Site,
    /// Those that have been so for the longest.
    Since,
}

/// Lines that are shown before the rest is counted: with them the roll fits a screen.
const SHOWN_MAX: usize = 15;
/// Columns of a terminal that says nothing of its width.
const WIDTH: u16 = 80;

impl RollLine {
    /// Whether a person should look.
    fn is_wanted(&self, wanted: &Wanted) -> bool {
        match wanted.states.is_empty() {
            // A stopped agent may be meant, and its rows are missing in answers all the same.
            true => {
                wanted.all
                    || self.state.is_finding()
                    || self.state == SiteState::OutsideAssumedHours
                    || self.cause == Some(Cause::AgentDown)
            }
            false => wanted.states.contains(&self.state),
        }
    }

    /// Why, in a few words.
    fn why(&self, verbose: bool) -> String {
        let mut parts: Vec<String> = self.cause.iter().map(ToString::to_string).collect();
        match (self.caught_up_by, self.state) {
            (Some(by), _) => parts.push(format!("{} changes wait, here by {}", self.unconfirmed_rows, local(by))),
            // Nobody can say what a site that is not heard has by now.
            (None, SiteState::NeverHeard | SiteState::Silent | SiteState::Unknown) => {}
            (None, _) if self.unconfirmed_rows > 0 => parts.push(format!("{} changes wait", self.unconfirmed_rows)),
            (None, _) => {}
        }
        let is_said = |through: &Timestamp| self.since.is_some_and(|since| local(since) == local(*through));
        if let Some(through) = self.complete_through.filter(|through| self.state.is_finding() && !is_said(through)) {
            parts.push(format!("complete through {}", local(through)));
        }
        if verbose {
            parts.extend(self.last_heard.map(|heard| format!("last heard {}", local(heard))));
            parts.extend(self.learning_day.map(|day| format!("learning, day {day} of 14")));
            parts.extend(Some(self.detail.clone()).filter(|detail| !detail.is_empty()));
        }
        parts.join("; ")
    }
}

/// Shows the roll; a finding if a site is missing without an explanation. `levels` are those of
/// open incidents, by site.
pub(crate) fn roll(lines: &[RollLine], wanted: &Wanted, levels: &BTreeMap<String, u64>) -> ExitCode {
    outln!("{}", roll_text(lines, wanted, levels));
    if lines.iter().any(|line| line.state == SiteState::OutsideAssumedHours) {
        eprintln!(
            "outside-assumed-hours: quiet like most of their kind, and nobody declared when they are open (`hours` in the roster): \
             whether they are closed is not known"
        );
    }
    match lines.iter().any(|line| line.state.is_finding()) {
        true => ExitCode::from(FINDING),
        false => ExitCode::SUCCESS,
    }
}

/// The roll as text: how many are in which state, then who is not well.
pub(crate) fn roll_text(lines: &[RollLine], wanted: &Wanted, levels: &BTreeMap<String, u64>) -> String {
    let mut text = roll_sentence(lines.iter().map(|line| line.state));
    let mut shown: Vec<&RollLine> = lines.iter().filter(|line| line.is_wanted(wanted)).collect();
    let level = |line: &RollLine| levels.get(line.site.as_str()).copied();
    let place = |line: &RollLine| SiteState::ALL.iter().position(|state| *state == line.state);
    match wanted.sort {
        Sort::Loudest => {
            let since = |line: &RollLine| line.since.filter(|_| line.state.is_finding());
            shown.sort_by_key(|line| (std::cmp::Reverse(level(line)), place(line), since(line), line.site.clone()))
        }
        Sort::Site => shown.sort_by_key(|line| line.site.clone()),
        Sort::Since => shown.sort_by_key(|line| (line.since.is_none(), line.since, line.site.clone())),
    }
    let limit = if wanted.all { usize::MAX } else { SHOWN_MAX };
    if !shown.is_empty() {
        text.push('\n');
        text.push_str(&drawn(&shown[..shown.len().min(limit)], wanted.verbose, level));
    }
    if shown.len() > limit {
        text.push_str(&format!("\nand {} more (--all shows every site)", shown.len() - limit));
    }
    let catching_up: Vec<&RollLine> = lines.iter().filter(|line| line.caught_up_by.is_some()).collect();
    if let Some(last) = catching_up.iter().filter_map(|line| line.caught_up_by).max() {
        let rows: u64 = catching_up.iter().map(|line| line.unconfirmed_rows).sum();
        let count = catching_up.len();
        text.push_str(&format!(
            "\n{count} sites catch up: {rows} changes on their way, at this pace until {}",
            local(last)
        ));
    }
    text
}

/// A colour by how bad it is.
pub(crate) fn colour(state: SiteState) -> Color {
    match state {
        SiteState::Ok => Color::Green,
        SiteState::Silent | SiteState::NeverHeard => Color::Red,
        SiteState::Late | SiteState::Recovering | SiteState::Unknown => Color::Yellow,
        SiteState::QuietExpected | SiteState::OutsideAssumedHours | SiteState::DeclaredClosed | SiteState::Retired => {
            Color::Grey
        }
    }
}

fn drawn(lines: &[&RollLine], verbose: bool, level: impl Fn(&RollLine) -> Option<u64>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(WIDTH);
    }
    table.set_header(["site", "state", "since", "level", "why"]);
    for line in lines {
        let mut row = Row::from([
            Cell::new(&line.site),
            Cell::new(line.state).fg(colour(line.state)),
            Cell::new(line.since.map_or_else(|| "-".to_owned(), local)),
            Cell::new(level(line).map_or_else(String::new, |level| level.to_string())),
            Cell::new(line.why(verbose)),
        ]);
        if !verbose {
            row.max_height(1);
        }
        table.add_row(row);
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> Vec<RollLine> {
        let line = |number: usize| {
            let (state, cause) = match number % 100 {
                7 => ("silent", serde_json::json!("power-or-link")),
                13 => ("late", serde_json::json!("backlog")),
                _ => ("ok", serde_json::Value::Null),
            };
            serde_json::from_value(serde_json::json!({
                "site": format!("store-{number:04}"), "state": state, "cause": cause, "since": "2026-11-29T12:00:00Z",
                "last_heard": "2026-11-29T12:00:00Z", "complete_through": "2026-11-29T12:00:00Z", "unconfirmed_rows": 3,
                "learning_day": 3, "detail": "10.0.0.1:43434"
            }))
        };
        (0..count).map(|number| line(number).expect("a line")).collect()
    }

    #[test]
    fn a_stopped_agent_is_listed_at_once_and_a_closed_shop_is_not() {
        let quiet = |site: &str, cause: Cause| RollLine {
            site: SiteId::new(site).expect("valid"),
            state: SiteState::QuietExpected,
            cause: Some(cause),
            ..lines(1).remove(0)
        };
        let lines = [quiet("store-0001", Cause::AgentDown), quiet("store-0002", Cause::Closed)];
        let text = roll_text(&lines, &Wanted::default(), &BTreeMap::new());
        assert!(text.contains("store-0001") && text.contains("agent down") && !text.contains("store-0002"), "{text}");
    }

    #[test]
    fn two_thousand_sites_fit_a_screen_and_the_loudest_comes_first() {
        let levels = BTreeMap::from([("store-1907".to_owned(), 3)]);
        let text = roll_text(&lines(2000), &Wanted::default(), &levels);
        assert!(text.lines().count() <= 24, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let mut rows = text.lines();
        assert_eq!(rows.next(), Some("2000 sites, 40 missing: 20 silent, 20 late, 1960 ok"));
        assert!(
            rows.nth(1).is_some_and(|row| row.trim_start().starts_with("store-1907") && row.contains(" 3 ")),
            "{text}"
        );
        assert!(!text.contains("43434") && !text.contains("learning"), "{text}");
        let of_late = Wanted { states: vec![SiteState::Late], verbose: true, ..Wanted::default() };
        let text = roll_text(&lines(200), &of_late, &levels);
        assert!(text.contains("store-0013") && !text.contains("store-0007") && text.contains("day 3 of 14"), "{text}");
        let all = roll_text(&lines(200), &Wanted { all: true, ..Wanted::default() }, &levels);
        assert_eq!(all.matches("store-").count(), 200);
    }
}
