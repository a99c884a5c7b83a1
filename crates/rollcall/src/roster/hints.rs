//! What is said after attributes changed, where they may not mean what was meant.

use std::collections::BTreeSet;

use rollcall_hq::{AttributeChange, meant_attribute};

use super::say_names;
use crate::client::Client;

/// What a new zone does not change by itself. A time without a zone is read by the zone that its
/// site has when it comes.
pub(super) fn say_zones(changes: &[AttributeChange]) {
    // Without one they were read as UTC.
    let moved = changes.iter().filter(|change| change.attribute == "tz");
    let moved: Vec<&str> = moved.map(|change| change.site.as_str()).collect();
    if !moved.is_empty() {
        say_names("another time zone", &moved);
        eprintln!(
            "times without a zone that came from there before stay as they were read; to have them sent and read anew: \
             rollcall roster resend SITE --reason \"another time zone\""
        );
    }
}

/// Calendars that nobody filled: a site has no holidays by them.
pub(super) fn say_unknown_holidays(client: &Client, changes: &[AttributeChange]) {
    let named = changes.iter().filter(|change| change.attribute == "holidays");
    let names = named.flat_map(|change| change.after.iter().flat_map(|names| names.split(',')));
    for name in names.map(str::trim).filter(|name| !name.is_empty()).collect::<BTreeSet<_>>() {
        // The change is made; where this cannot be told, nothing is.
        let is_plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
        let known = is_plain.then(|| client.get(&format!("/api/holidays/{name}")).ok()).flatten();
        let known = known.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        if known.is_some_and(|known| known["days"].as_array().is_none_or(Vec::is_empty)) {
            eprintln!("WARNING: the calendar {name} has no days; `rollcall holidays {name} --set 2026-12-25` fills it");
        }
    }
}

/// Names that may be meant as one of HQ's own: HQ goes by nothing else.
pub(super) fn say_like_own<'a>(names: impl Iterator<Item = &'a str>) {
    for name in names {
        if let Some(own) = meant_attribute(name) {
            eprintln!("WARNING: {name} is kept, and means nothing to HQ; is {own} meant?");
        }
    }
}
