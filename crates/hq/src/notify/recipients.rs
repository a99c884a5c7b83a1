//! Who hears of what: channels by level and attribute, and people by what the roster says of a site.

use std::collections::{BTreeMap, BTreeSet};

use rollcall_roll::{Incident, Kind};
use rollcall_types::{SiteId, Timestamp};
use serde::Serialize;

use super::{
    Channels, Mail,
    channel::{Channel, How},
    concerns_itself,
};
use crate::roster::Sites;

/// A mail about many sites goes to so many of their people at most.
const ADDRESSES_MAX: usize = 50;

/// The channels that hear of an incident at a level.
pub(super) fn told_at(channels: &Channels, incident: &Incident, level: u8, roster: &Sites) -> Vec<String> {
    let told = channels
        .iter()
        .filter(|(name, channel)| channel.wants(incident, level, roster) && !concerns_itself(incident, name));
    told.map(|(name, _)| name.clone()).collect()
}

/// The column that an address such as `{district_mail}` is taken from.
pub(super) fn column_of(address: &str) -> Option<&str> {
    address.trim().strip_prefix('{')?.strip_suffix('}').map(str::trim)
}

/// Whom a mail goes to: addresses as they are, and for `{column}` what the roster says there of each site. An error says what the
/// roster lacks, if that leaves nobody.
pub(super) fn of_mail<'a>(
    mail: &Mail,
    sites: impl Iterator<Item = &'a SiteId> + Clone,
    roster: &Sites,
) -> Result<Vec<String>, String> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    let mut lacking: BTreeSet<&str> = BTreeSet::new();
    for address in &mail.to {
        let Some(column) = column_of(address) else {
            found.insert(address.clone());
            continue;
        };
        for site in sites.clone() {
            let value = roster.get(site).and_then(|record| record.attributes.get(column)).unwrap_or_default();
            // A cell may name several people.
            let people = value.split([',', ';']).map(str::trim).filter(|person| !person.is_empty());
            let before = found.len();
            found.extend(people.map(str::to_owned));
            if found.len() == before && value.trim().is_empty() {
                lacking.insert(column);
            }
        }
    }
    if found.is_empty() {
        let columns: Vec<&str> = lacking.into_iter().collect();
        return Err(format!(
            "nobody to send it to: the roster has nothing in {} for these sites",
            if columns.is_empty() { "the columns that it names".to_owned() } else { columns.join(", ") }
        ));
    }
    Ok(found.into_iter().take(ADDRESSES_MAX).collect())
}

/// One way by which people hear of a site from a level on.
#[derive(Debug, Serialize)]
pub(crate) struct Route {
    /// From this level of an incident on.
    level: u8,
    channel: String,
    kind: &'static str,
    /// Of a mail: to whom.
    to: Vec<String>,
    /// Why nobody hears of it by this channel.
    problem: Option<String>,
}

/// Who hears of a site's silence, from which level on.
pub(super) fn who(channels: &Channels, site: &SiteId, roster: &Sites, now: Timestamp) -> Vec<Route> {
    let mut incident = Incident::new(0, Kind::Silence, now, now);
    incident.members.insert(site.clone(), rollcall_roll::Member { since: now, until: None });
    let mut routes = Vec::new();
    for (name, channel) in channels {
        let Some(level) = (1..=5).find(|level| channel.wants(&incident, *level, roster)) else { continue };
        let (to, problem) = match &channel.how {
            How::Smtp(mail) => match of_mail(mail, [site].into_iter(), roster) {
                Ok(to) => (to, None),
                Err(problem) => (Vec::new(), Some(problem)),
            },
            _ => (Vec::new(), None),
        };
        routes.push(Route { level, channel: name.clone(), kind: channel.how.name(), to, problem });
    }
    routes.sort_by(|a, b| (a.level, &a.channel).cmp(&(b.level, &b.channel)));
    routes
}

/// Columns of the roster that a channel's addresses are taken from, and that no site has: as a rule a misspelt one.
pub(super) fn unknown_columns(channel: &Channel, roster: &Sites) -> BTreeMap<String, usize> {
    let How::Smtp(mail) = &channel.how else { return BTreeMap::new() };
    let columns = mail.to.iter().filter_map(|address| column_of(address));
    let lacking = |column: &str| {
        roster.values().filter(|record| record.retired.is_none() && record.attributes.get(column).is_none()).count()
    };
    columns.map(|column| (column.to_owned(), lacking(column))).filter(|(_, lacking)| *lacking > 0).collect()
}
