//! Lines that fail again and again: one maintenance item in the place of a call each time.
//!
//! A site that fell silent [`TIMES_MIN`] times in two weeks is chronic until that fell below
//! [`TIMES_OVER`]. All chronic sites are one incident, which gets louder as any other. A chronic
//! site's own silence is told from level 2 on: whoever is at its end knows the line, but one that
//! stays away for hours is another matter.

use std::collections::BTreeSet;

use rollcall_types::Timestamp;

use crate::{
    incident::{Kind, Member},
    sites::SiteNumber,
    watch::Watch,
};

/// How far back silences count.
const DAYS: i64 = 14;
/// Five times the budget of incidents on the screen.
const TIMES_MIN: usize = 7;
const TIMES_OVER: usize = 3;
/// How many sites the evidence names.
const NAMED: usize = 5;

impl Watch {
    /// A site's silence is over, whose incident this is. One that a group or a cohort spoke for
    /// says nothing of its line.
    pub(crate) fn count_silence(&mut self, number: SiteNumber, incident: u64, at: i64) {
        if self.incidents.get(&incident).is_none_or(|known| known.was_held) {
            return;
        }
        let day = at.div_euclid(86_400);
        self.sites[number].trouble_mut().silences.push(day);
    }

    /// A day is over: who is chronic?
    pub(crate) fn find_chronic(&mut self, day: i64, now: Timestamp) {
        let mut found: Vec<(usize, SiteNumber)> = Vec::new();
        let was_chronic = std::mem::take(&mut self.sites.chronic);
        for (number, site) in self.sites.iter_mut().filter(|(_, site)| !site.retired) {
            site.forget_before(day - DAYS + 1);
            let times = site.trouble().silences.len();
            let was = was_chronic.contains(&number);
            if times >= TIMES_MIN || was && times >= TIMES_OVER {
                found.push((times, number));
            }
        }
        found.sort_by(|a, b| b.cmp(a));
        self.sites.chronic = found.iter().map(|(_, number)| *number).collect();
        let open = self.incidents.open_of(Kind::Chronic);
        if found.is_empty() {
            if let Some(id) = open {
                self.incidents.close(id, "these lines hold again", now);
            }
            return;
        }
        let id = open.unwrap_or_else(|| self.incidents.add(Kind::Chronic, now, now));
        let id_of = |number: SiteNumber| self.sites[number].id.clone();
        let members: BTreeSet<_> = self.sites.chronic.iter().map(|number| id_of(*number)).collect();
        let named: Vec<String> =
            found.iter().take(NAMED).map(|(times, number)| format!("{} {times} times", id_of(*number))).collect();
        let more = found.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more sites") } else { String::new() };
        let text = format!(
            "silent again and again in the last two weeks: {}{more}: their lines need repair",
            named.join(", ")
        );
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        for (site, member) in &mut incident.members {
            let is_over = !members.contains(site);
            member.until = if is_over { member.until.or(Some(now)) } else { None };
        }
        for site in members {
            incident.members.entry(site).or_insert(Member { since: now, until: None });
        }
        incident.evidence = text;
        incident.calls = true;
        self.incidents.note(id);
    }
}
