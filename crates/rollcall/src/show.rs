//! The roll, for people and programs.

use std::process::ExitCode;

use comfy_table::{Cell, Color, ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use rollcall_types::{Cause, SiteId, SiteState, Timestamp, roll_sentence};
use serde::Deserialize;

use crate::FINDING;

/// One line of the roll, as the API gives it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RollLine {
    pub(crate) site: SiteId,
    pub(crate) state: SiteState,
    since: Option<Timestamp>,
    cause: Option<Cause>,
    last_heard: Option<Timestamp>,
    complete_through: Option<Timestamp>,
    unconfirmed_rows: u64,
    #[serde(default)]
    caught_up_by: Option<Timestamp>,
    #[serde(default)]
    learning_day: Option<i64>,
    #[serde(default)]
    detail: String,
}

/// Shows the roll; a finding if a site is missing without an explanation.
pub(crate) fn roll(text: &str, json: bool) -> anyhow::Result<ExitCode> {
    let lines: Vec<RollLine> = serde_json::from_str(text)?;
    if json {
        outln!("{text}");
    } else {
        outln!("{}", roll_table(&lines));
    }
    let catching_up: Vec<&RollLine> = lines.iter().filter(|line| line.caught_up_by.is_some()).collect();
    if let Some(last) = catching_up.iter().filter_map(|line| line.caught_up_by).max() {
        let rows: u64 = catching_up.iter().map(|line| line.unconfirmed_rows).sum();
        eprintln!(
            "{} sites catch up: {rows} changes are on their way, at this pace until {}",
            catching_up.len(),
            short(last)
        );
    }
    eprintln!("{}", roll_sentence(lines.iter().map(|line| line.state)));
    if lines.iter().any(|line| line.state == SiteState::OutsideAssumedHours) {
        eprintln!(
            "outside-assumed-hours: quiet like most of their kind, and nobody declared when they are open (`hours` in the roster): \
             whether they are closed is not known"
        );
    }
    match lines.iter().any(|line| line.state.is_finding()) {
        true => Ok(ExitCode::from(FINDING)),
        false => Ok(ExitCode::SUCCESS),
    }
}

/// The roll as a drawn table.
pub(crate) fn roll_table(lines: &[RollLine]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["site", "state", "since", "cause", "last heard", "complete through", "unconfirmed", "detail"]);
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), short);
    for line in lines {
        let color = match line.state {
            SiteState::Ok => Color::Green,
            SiteState::Silent | SiteState::NeverHeard => Color::Red,
            SiteState::Late | SiteState::Recovering | SiteState::Unknown => Color::Yellow,
            SiteState::QuietExpected
            | SiteState::OutsideAssumedHours
            | SiteState::DeclaredClosed
            | SiteState::Retired => Color::Grey,
        };
        table.add_row([
            Cell::new(&line.site),
            Cell::new(line.state).fg(color),
            Cell::new(time(line.since)),
            Cell::new(line.cause.map_or_else(String::new, |cause| cause.to_string())),
            Cell::new(time(line.last_heard)),
            Cell::new(time(line.complete_through)),
            Cell::new(match (line.caught_up_by, line.state) {
                (Some(by), _) => format!("{}, here by {}", line.unconfirmed_rows, short(by)),
                // Nobody can say what a site that is not heard has by now.
                (None, SiteState::NeverHeard | SiteState::Silent | SiteState::Unknown) => "unknown".to_owned(),
                (None, SiteState::Late) if line.cause == Some(Cause::PowerOrLink) => "unknown".to_owned(),
                (None, _) => line.unconfirmed_rows.to_string(),
            }),
            Cell::new(match line.learning_day {
                Some(day) => format!("learning (day {day} of 14). {}", line.detail),
                None => line.detail.clone(),
            }),
        ]);
    }
    table
}

/// Day and second, without fractions.
pub(crate) fn short(time: Timestamp) -> String {
    time.to_chrono().format("%Y-%m-%d %H:%M:%SZ").to_string()
}
