//! A site that is heard every minute for three weeks and then no more: who is told, and when.
//!
//! `cargo run -p rollcall-roll --example watch`

use std::{collections::BTreeMap, sync::Arc};

use rollcall_roll::{CONTACT, Calendar, SiteSpec, Watch, WatchConfig};
use rollcall_types::{SiteId, Timestamp};

const DAY: i64 = 24 * 60;
/// A Monday.
const BEGIN: i64 = 1_800_144_000;

fn at(minute: i64) -> Timestamp {
    Timestamp::from_seconds(BEGIN + minute * 60)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let site = SiteId::new("berlin-01")?;
    let mut watch = Watch::new(WatchConfig::default(), at(0));
    watch.set_site(SiteSpec {
        id: site.clone(),
        calendar: Calendar {
            zone: chrono_tz::Europe::Berlin,
            hours: None,
            holidays: Arc::default(),
            closures: Vec::new(),
        },
        attributes: BTreeMap::new(),
        expected_from: at(0),
        enrolled: true,
    });
    // The time is an argument: three weeks pass in a moment.
    for minute in 0..22 * DAY {
        let is_lost = minute >= 21 * DAY + 12 * 60;
        if !is_lost {
            watch.event(&site, CONTACT, at(minute), 1.0);
        }
        watch.tick(at(minute));
        for decision in watch.take_decisions() {
            let text = watch.incident(decision.incident).map(|incident| incident.evidence.clone());
            println!("{} level {}: {}", decision.at, decision.level, text.unwrap_or_default());
        }
    }
    println!("{:?}", watch.verdict(&site).map(|verdict| (verdict.state, verdict.cause)));
    Ok(())
}
