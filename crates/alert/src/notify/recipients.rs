//! Who hears of what: channels by level and attribute, and people by what the roster says of a
//! site.

use std::collections::{BTreeMap, BTreeSet};

use lettre::message::Mailbox;
use rollcall_registry::Sites;
use rollcall_roll::{Incident, Kind};
use rollcall_types::{SiteId, Timestamp};
use serde::Serialize;

use super::{
    Channels, Mail,
    channel::{Channel, How},
    deliver::concerns_itself,
};

/// A mail about many sites goes to so many of their people at most.
const ADDRESSES_MAX: usize = 50;

/// The channels that hear of an incident at a level.
pub(super) fn channels_at(channels: &Channels, incident: &Incident, level: u8, roster: &Sites) -> Vec<String> {
    let told = channels
        .iter()
        .filter(|(name, channel)| channel.wants(incident, level, roster) && !concerns_itself(incident, name))
        .filter(|(_, channel)| has_somebody(channel, incident, roster));
    told.map(|(name, _)| name.clone()).collect()
}

/// Whether a channel has somebody to tell of an incident: the roster may name nobody for its sites.
fn has_somebody(channel: &Channel, incident: &Incident, roster: &Sites) -> bool {
    match &channel.how {
        How::Smtp(mail) => of_mail(mail, incident.members.keys(), roster).is_ok(),
        _ => true,
    }
}

/// The column that an address such as `{district_mail}` is taken from.
pub(super) fn column_of(address: &str) -> Option<&str> {
    address.trim().strip_prefix('{')?.strip_suffix('}').map(str::trim)
}

/// Whether all recipients of a channel are columns of the roster: it can tell nobody of what is
/// about no site.
pub(super) fn is_by_columns(how: &How) -> bool {
    matches!(how, How::Smtp(mail) if mail.to.iter().all(|address| column_of(address).is_some()))
}

/// Whom a mail goes to, and what of the roster is no address.
#[derive(Debug, Default)]
pub(super) struct Recipients {
    pub(super) to: Vec<String>,
    pub(super) no_address: Vec<String>,
}

/// Whom a mail goes to: addresses as they are, and for `{column}` what the roster says there of
/// each site. An error says what the roster lacks, if that leaves nobody.
pub(super) fn of_mail<'a>(
    mail: &Mail,
    sites: impl Iterator<Item = &'a SiteId>,
    roster: &Sites,
) -> Result<Recipients, String> {
    let fixed: BTreeSet<String> = mail.to.iter().filter(|to| column_of(to).is_none()).cloned().collect();
    let columns: Vec<&str> = mail.to.iter().filter_map(|to| column_of(to)).collect();
    let (mut named, mut no_address) = (BTreeSet::new(), BTreeSet::new());
    for site in sites {
        let Some(record) = roster.get(site) else { continue };
        for column in &columns {
            // A cell may name several people.
            let value = record.attributes.get(column).unwrap_or_default();
            for person in value.split([',', ';']).map(str::trim).filter(|person| !person.is_empty()) {
                let is_address = person.parse::<Mailbox>().is_ok();
                if is_address { &mut named } else { &mut no_address }.insert(person.to_owned());
            }
        }
    }
    // Those whom the channel itself names hear of everything, however many sites it is about.
    let named = named.into_iter().filter(|person| !fixed.contains(person)).take(ADDRESSES_MAX);
    let to: Vec<String> = fixed.iter().cloned().chain(named).collect();
    let no_address: Vec<String> = no_address.into_iter().collect();
    if to.is_empty() {
        let what = if no_address.is_empty() {
            "nothing".to_owned()
        } else {
            format!("no address but {:?}", no_address.join(", "))
        };
        return Err(format!("nobody to send it to: the roster has {what} in {} for these sites", columns.join(", ")));
    }
    Ok(Recipients { to, no_address })
}

/// One way by which people hear of a site from a level on.
#[derive(Debug, Clone, Serialize)]
pub struct Route {
    /// From this level of an incident on.
    pub level: u8,
    /// The channel's name.
    pub channel: String,
    /// The channel's kind, as it is written.
    pub kind: &'static str,
    /// The people to whom a mail goes.
    pub to: Vec<String>,
    /// Why nobody hears of it by this channel, if nobody does.
    pub problem: Option<String>,
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
                Ok(Recipients { to, no_address }) if no_address.is_empty() => (to, None),
                Ok(Recipients { to, no_address }) => (to, Some(format!("no address: {}", no_address.join(", ")))),
                Err(problem) => (Vec::new(), Some(problem)),
            },
            _ => (Vec::new(), None),
        };
        routes.push(Route { level, channel: name.clone(), kind: channel.how.name(), to, problem });
    }
    routes.sort_by(|a, b| (a.level, &a.channel).cmp(&(b.level, &b.channel)));
    routes
}

/// How many sites lack each column of the roster that a channel's addresses are taken from: all, as
/// a rule, lack a misspelt one.
pub(super) fn lacking_columns(channel: &Channel, roster: &Sites) -> BTreeMap<String, usize> {
    let How::Smtp(mail) = &channel.how else { return BTreeMap::new() };
    let columns = mail.to.iter().filter_map(|address| column_of(address));
    let lacking = |column: &str| {
        roster.values().filter(|record| record.retired.is_none() && record.attributes.get(column).is_none()).count()
    };
    columns.map(|column| (column.to_owned(), lacking(column))).filter(|(_, lacking)| *lacking > 0).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use rollcall_registry::SiteRecord;

    fn roster(rows: &[(&str, &str)]) -> Sites {
        let record = |mail: &str| {
            let attributes = BTreeMap::from([("mail".to_owned(), mail.to_owned())]).into();
            Arc::new(SiteRecord { attributes, ..SiteRecord::default() })
        };
        rows.iter().filter_map(|(site, mail)| Some((SiteId::new(site).ok()?, record(mail)))).collect()
    }

    fn mail(to: &[&str]) -> Mail {
        let mail = serde_json::json!({"host": "h", "from": "hq@x.example", "to": to});
        serde_json::from_value(mail).expect("a mail")
    }

    #[test]
    fn one_wrong_address_keeps_nobody_else_from_it() {
        let roster =
            roster(&[("a-01", "ada@x.example; Bo <bo@x.example>"), ("b-01", "no address at all"), ("c-01", "")]);
        let found = of_mail(&mail(&["{mail}"]), roster.keys(), &roster).expect("somebody");
        assert_eq!(found.to, ["Bo <bo@x.example>", "ada@x.example"]);
        assert_eq!(found.no_address, ["no address at all"]);
        let wrong: Vec<SiteId> = roster.keys().skip(1).cloned().collect();
        let error = of_mail(&mail(&["{mail}"]), wrong.iter(), &roster).expect_err("nobody");
        assert!(error.contains("no address but") && error.contains("mail"), "{error}");
    }

    #[test]
    fn a_channel_that_has_nobody_to_tell_is_not_said_to_be_told() {
        let roster = roster(&[("a-01", "ada@x.example"), ("b-01", "")]);
        let channel = |to: &str| -> Channel {
            let described = serde_json::json!({"kind": "smtp", "host": "h", "from": "hq@x.example", "to": [to]});
            serde_json::from_value(described).expect("a channel")
        };
        let channels =
            Channels::from([("desk".to_owned(), channel("noc@x.example")), ("district".to_owned(), channel("{mail}"))]);
        let told_of = |site: &str| {
            let now = Timestamp::from_seconds(0);
            let mut incident = Incident::new(1, Kind::Silence, now, now);
            let site = SiteId::new(site).expect("valid");
            incident.members.insert(site, rollcall_roll::Member { since: now, until: None });
            channels_at(&channels, &incident, 1, &roster)
        };
        assert_eq!(told_of("a-01"), ["desk", "district"]);
        assert_eq!(told_of("b-01"), ["desk"]);
    }

    #[test]
    fn whom_the_channel_names_hears_of_the_largest_incidents_too() {
        let names: Vec<(String, String)> =
            (0..200).map(|n| (format!("s-{n:03}"), format!("a{n:03}@x.example"))).collect();
        let rows: Vec<(&str, &str)> = names.iter().map(|(site, mail)| (site.as_str(), mail.as_str())).collect();
        let roster = roster(&rows);
        let found = of_mail(&mail(&["noc@x.example", "{mail}"]), roster.keys(), &roster).expect("somebody");
        assert_eq!((found.to[0].as_str(), found.to.len()), ("noc@x.example", ADDRESSES_MAX + 1));
    }
}
