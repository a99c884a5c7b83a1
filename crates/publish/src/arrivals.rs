//! Who has what was published, who has not, and why.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, HashMap},
    sync::PoisonError,
    time::Duration,
};

use rollcall_types::{Seq, SiteId, SiteState, TableName, Timestamp};
use rollcall_wire::SETTINGS_TABLE;
use serde::Serialize;

use rollcall_books::definitions::{Arrived, publications};
use rollcall_registry::{RollEntry, SiteRecord, facts::Applied, ledger::AtSite};

use crate::publisher::Publisher;

/// How a published table stands at one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Arrival {
    /// The site that should have it.
    pub site: SiteId,
    /// The table, or [`SETTINGS_TABLE`].
    pub table: TableName,
    /// What it should have.
    pub wanted: Seq,
    /// What it has of that, 0 if nothing: what it has for another audience does not count.
    pub applied: Seq,
    /// Rows found changed there, ever; put right, or left as HQ asks.
    pub edits: u64,
    /// Rows of the store's own that name rows of the table which are not there.
    pub dangling: u64,
    /// Rows of the version applied that are not as HQ has them.
    pub differing: u64,
    /// Why it lacks the newest version; none if it has it.
    pub lacks: Option<Lack>,
}

/// Why a site lacks a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lack {
    /// What kind of reason it is.
    pub reason: Reason,
    /// The same for people, with what the site says.
    pub detail: String,
}

/// See [`Lack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The site is heard, and will have it soon.
    OnItsWay,
    /// The site says that it cannot take it.
    CannotTake,
    /// The site is not heard.
    NotHeard,
    /// It follows its settings, and another version of the agent is wanted there: that is for
    /// people to install.
    OtherAgent,
}

/// Heard less than this ago: the site is there; slow beacons need longer.
const HEARD: Duration = Duration::from_secs(90);
/// Sites named in an incident's sentence.
const NAMED_MAX: usize = 5;

/// How every published table stands at every site that should have it.
pub fn arrivals(publisher: &Publisher, roll: &dyn Fn() -> Vec<RollEntry>) -> Vec<Arrival> {
    let (tables, has_settings) = (publisher.tables.all(), !publisher.settings.is_empty());
    if tables.is_empty() && !has_settings {
        return Vec::new();
    }
    // The roll is called only if somebody lacks something.
    let called: LazyCell<HashMap<SiteId, RollEntry>, _> =
        LazyCell::new(|| roll().into_iter().map(|entry| (entry.site.clone(), entry)).collect());
    let all_applied = publisher.registry.ledger.all_applied();
    let nothing = AtSite::default();
    let heard = HEARD.max(publisher.registry.behind_after());
    let mut all = Vec::new();
    for (site, record) in publisher.registry.roster.all().iter().filter(|(_, record)| record.retired.is_none()) {
        let at_site = all_applied.get(site).unwrap_or(&nothing);
        let why = |problem: Option<&str>| why(called.get(site), problem, at_site, heard, publisher.registry.now());
        if has_settings {
            all.extend(of_settings(publisher, site, record, at_site, why));
        }
        for (name, known) in &tables {
            let has = at_site.applied.get(name);
            let (edits, dangling, differing) = has.map_or((0, 0, 0), |has| (has.edits, has.dangling, has.differing));
            let class = match known.class_of(site, record) {
                Ok(class) => class,
                Err(error) => {
                    let detail =
                        format!("HQ cannot work out which rows are for it: {}", rollcall_types::describe(&error));
                    all.push(Arrival {
                        site: site.clone(),
                        table: name.clone(),
                        wanted: known.image.version,
                        applied: Seq(0),
                        edits,
                        dangling,
                        differing,
                        lacks: Some(Lack { reason: Reason::CannotTake, detail }),
                    });
                    continue;
                }
            };
            if class.rule.is_nobody() && !has.is_some_and(Applied::has_any) {
                continue;
            }
            let Ok(version) = known.version_for(&class) else { continue };
            let of_class = has.filter(|has| has.audience == class.tag).map_or(Seq(0), |has| has.version);
            // More than there is: HQ was restored from a backup, and the site fetches the table
            // whole.
            let is_possible = of_class <= known.image.version;
            let is_newest = has.is_some_and(|has| has.audience == class.tag) && of_class >= version && is_possible;
            let problem = has.and_then(|has| has.problem.as_deref());
            all.push(Arrival {
                site: site.clone(),
                table: name.clone(),
                wanted: known.image.version,
                // What came since concerns other sites.
                applied: if is_newest { known.image.version } else { of_class },
                edits,
                dangling,
                differing,
                lacks: (!is_newest || problem.is_some()).then(|| why(problem)),
            });
        }
    }
    all
}

/// How a site stands with its settings, if any are said of it: its digest takes the version's
/// place.
fn of_settings(
    publisher: &Publisher,
    site: &SiteId,
    record: &SiteRecord,
    at_site: &AtSite,
    why: impl Fn(Option<&str>) -> Lack,
) -> Option<Arrival> {
    let settings = publisher.settings.of(site, record).ok()?;
    let table = TableName::new(SETTINGS_TABLE).ok()?;
    let has = at_site.applied.get(&table);
    let applied = has.map_or(0, |has| has.audience);
    if settings.digest == 0 && applied == 0 {
        return None;
    }
    let problem = has.and_then(|has| has.problem.as_deref());
    let other = settings.said.agent_version.as_ref().filter(|wanted| **wanted != at_site.agent_version);
    let lacks = match other {
        _ if applied != settings.digest || problem.is_some() => Some(why(problem)),
        Some(wanted) if !at_site.agent_version.is_empty() => {
            let detail = format!("runs agent {}, {wanted} is wanted", at_site.agent_version);
            Some(Lack { reason: Reason::OtherAgent, detail })
        }
        _ => None,
    };
    let (wanted, applied) = (Seq(settings.digest), Seq(applied));
    Some(Arrival { site: site.clone(), table, wanted, applied, edits: 0, dangling: 0, differing: 0, lacks })
}

fn why(entry: Option<&RollEntry>, problem: Option<&str>, at_site: &AtSite, heard: Duration, now: Timestamp) -> Lack {
    let last = entry.and_then(|entry| entry.last_heard);
    let is_heard = last.is_some_and(|last| now.since(last) < heard);
    let lack = |reason, detail: String| Lack { reason, detail };
    match (entry, problem) {
        (_, Some(problem)) if is_heard => lack(Reason::CannotTake, problem.to_owned()),
        _ if is_heard && at_site.takes_nothing => {
            lack(Reason::CannotTake, "its agent is too old for published tables".to_owned())
        }
        (Some(entry), _) if !is_heard => {
            let since = entry.since.or(entry.last_heard).map_or_else(String::new, |since| format!(" since {since}"));
            let cause = entry.cause.map_or_else(String::new, |cause| format!(" ({cause})"));
            // The watch may not call it silent yet, or never: a closed site is not.
            let state = if entry.state == SiteState::Ok { "not heard".to_owned() } else { entry.state.to_string() };
            lack(Reason::NotHeard, format!("{state}{since}{cause}"))
        }
        _ => lack(Reason::OnItsWay, "on its way".to_owned()),
    }
}

/// Every publication that is kept, and who has it; the newest first.
pub fn arrived(publisher: &Publisher, arrivals: &[Arrival]) -> Vec<Arrived> {
    let mut by_table: BTreeMap<&TableName, Vec<Seq>> = BTreeMap::new();
    for arrival in arrivals {
        let in_full = if arrival.differing > 0 { Seq(0) } else { arrival.applied };
        by_table.entry(&arrival.table).or_default().push(in_full);
    }
    by_table.values_mut().for_each(|versions| versions.sort_unstable());
    let nobody = Vec::new();
    let with_sites = publications(&publisher.registry.lake.state().view()).into_iter().map(|publication| {
        let versions = by_table.get(&publication.table).unwrap_or(&nobody);
        let lacking = versions.partition_point(|version| *version < publication.version);
        Arrived { audience: versions.len(), have: versions.len() - lacking, publication }
    });
    let mut all: Vec<Arrived> = with_sites.collect();
    all.sort_by_key(|arrived| std::cmp::Reverse(arrived.publication.at));
    all
}

/// Since when sites lack the newest version, as this node saw it.
pub type LackingSince = BTreeMap<(TableName, SiteId), Timestamp>;

/// Sites that are late with a table, as the watch is to know them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// The table, or [`SETTINGS_TABLE`].
    pub table: TableName,
    /// The sites, and since when they lack the newest version. None: nobody is late any more.
    pub members: BTreeMap<SiteId, Timestamp>,
    /// The same for people.
    pub text: String,
}

/// Looks who is late: a site that is heard and has not taken a version, or says that it cannot. One
/// entry for each table, whether anybody is late with it or not.
pub fn late(publisher: &Publisher, roll: &dyn Fn() -> Vec<RollEntry>, lacking: &mut LackingSince) -> Vec<Late> {
    let now = publisher.registry.now();
    let arrivals = arrivals(publisher, roll);
    let late_after = (publisher.beacon_interval * 20).max(Duration::from_secs(10));
    let mut late: BTreeMap<TableName, Vec<(&Arrival, Timestamp)>> = BTreeMap::new();
    let mut still = LackingSince::new();
    for arrival in &arrivals {
        let Some(lack) = &arrival.lacks else { continue };
        let key = (arrival.table.clone(), arrival.site.clone());
        // While a site is not heard, the watch speaks of that; its time begins when it is back.
        let since = match lack.reason {
            Reason::NotHeard => now,
            _ => lacking.get(&key).copied().unwrap_or(now),
        };
        let is_late = match lack.reason {
            Reason::NotHeard | Reason::OtherAgent => false,
            Reason::CannotTake => true,
            Reason::OnItsWay => now.since(since) > late_after,
        };
        still.insert(key, since);
        if is_late {
            late.entry(arrival.table.clone()).or_default().push((arrival, since));
        }
    }
    *lacking = still;
    let mut of_table = |table: TableName, what: &str| {
        let late = late.remove(&table).unwrap_or_default();
        let members = late.iter().map(|(arrival, since)| (arrival.site.clone(), *since)).collect();
        Late { text: sentence(what, &late), table, members }
    };
    let tables = publisher.tables.all().into_iter();
    let mut all: Vec<Late> = tables
        .map(|(name, known)| {
            let what = format!("taken version {} of {name}", known.image.version);
            of_table(name, &what)
        })
        .collect();
    all.extend(TableName::new(SETTINGS_TABLE).map(|settings| of_table(settings, "taken their settings")));
    let counted = all.iter().map(|late| (late.table.clone(), late.members.len())).collect();
    *publisher.late.lock().unwrap_or_else(PoisonError::into_inner) = counted;
    all
}

fn sentence(what: &str, late: &[(&Arrival, Timestamp)]) -> String {
    let named = late.iter().take(NAMED_MAX).map(|(arrival, _)| {
        let detail = arrival.lacks.as_ref().map_or("", |lack| lack.detail.as_str());
        format!("{} ({detail})", arrival.site)
    });
    let named: Vec<String> = named.collect();
    let more = if late.len() > NAMED_MAX { format!(" and {} more", late.len() - NAMED_MAX) } else { String::new() };
    let said = match late.len() {
        1 => format!("1 site that is heard has not {}", what.replace("their", "its")),
        sites => format!("{sites} sites that are heard have not {what}"),
    };
    format!("{said}: {}{more}", named.join(", "))
}
