//! Who has what was published, who has not, and why.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use rollcall_types::{Seq, SiteId, SiteState, TableName, Timestamp};
use rollcall_wire::SETTINGS_TABLE;
use serde::{Deserialize, Serialize};

use super::{Publication, publications};
use crate::{
    ledger::{AtSite, RollEntry},
    node::Shared,
    roster::SiteRecord,
};

/// What a site says it has of a published table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Applied {
    /// 0: nothing yet.
    pub(crate) version: Seq,
    /// See [`super::Class::tag`].
    pub(crate) audience: u64,
    /// Why it has no newer one, if it cannot take it.
    pub(crate) problem: Option<String>,
    /// Rows found changed there, ever; put right, or left as HQ asks.
    pub(crate) edits: u64,
    /// When HQ published what it has, microseconds since 1970; 0 if that is not known.
    #[serde(default)]
    pub(crate) published_at: i64,
    /// Rows of the store's own that name rows of the table which are not there.
    #[serde(default)]
    pub(crate) dangling: u64,
    /// Rows that are not as HQ has them now.
    #[serde(default)]
    pub(crate) differing: u64,
}

impl Applied {
    /// Whether the site has something of the table, and not only says why it has not.
    pub(crate) fn has_any(&self) -> bool {
        self.version > Seq(0) || self.audience != 0
    }
}

/// How a published table stands at one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Arrival {
    pub(crate) site: SiteId,
    pub(crate) table: TableName,
    /// What it should have.
    pub(crate) wanted: Seq,
    /// What it has of that, 0 if nothing: what it has for another audience does not count.
    pub(crate) applied: Seq,
    pub(crate) edits: u64,
    /// Rows of the store's own that name rows of the table which are not there.
    pub(crate) dangling: u64,
    /// Rows of the version applied that are not as HQ has them.
    pub(crate) differing: u64,
    /// Why it lacks the newest version; none if it has it.
    pub(crate) lacks: Option<Lack>,
}

/// Why a site lacks a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Lack {
    pub(crate) reason: Reason,
    /// The same for people, with what the site says.
    pub(crate) detail: String,
}

/// See [`Lack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reason {
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

/// A publication, and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Arrived {
    #[serde(flatten)]
    pub(crate) publication: Publication,
    /// Sites that should have it.
    pub(crate) audience: usize,
    /// Those that have it, or a newer one, in every row.
    pub(crate) have: usize,
}

/// Heard less than this ago: the site is there; slow beacons need longer.
const HEARD: Duration = Duration::from_secs(90);
/// Sites named in an incident's sentence.
const NAMED_MAX: usize = 5;

/// How every published table stands at every site that should have it.
pub(crate) fn arrivals(shared: &Shared) -> Vec<Arrival> {
    let (tables, has_settings) = (shared.published.all(), !shared.settings.is_empty());
    if tables.is_empty() && !has_settings {
        return Vec::new();
    }
    // The roll is called only if somebody lacks something.
    let roll: LazyCell<HashMap<SiteId, RollEntry>, _> =
        LazyCell::new(|| shared.roll().into_iter().map(|entry| (entry.site.clone(), entry)).collect());
    let all_applied = shared.ledger.all_applied();
    let nothing = AtSite::default();
    let heard = HEARD.max(shared.behind_after());
    let mut all = Vec::new();
    for (site, record) in shared.roster.all().iter().filter(|(_, record)| record.retired.is_none()) {
        let at_site = all_applied.get(site).unwrap_or(&nothing);
        let why = |problem: Option<&str>| why(roll.get(site), problem, at_site, heard, shared.now());
        if has_settings {
            all.extend(of_settings(shared, site, record, at_site, why));
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
    shared: &Shared,
    site: &SiteId,
    record: &SiteRecord,
    at_site: &AtSite,
    why: impl Fn(Option<&str>) -> Lack,
) -> Option<Arrival> {
    let settings = shared.settings.of(site, record).ok()?;
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
pub(crate) fn arrived(shared: &Shared, arrivals: &[Arrival]) -> Vec<Arrived> {
    let mut by_table: BTreeMap<&TableName, Vec<Seq>> = BTreeMap::new();
    for arrival in arrivals {
        let in_full = if arrival.differing > 0 { Seq(0) } else { arrival.applied };
        by_table.entry(&arrival.table).or_default().push(in_full);
    }
    by_table.values_mut().for_each(|versions| versions.sort_unstable());
    let nobody = Vec::new();
    let with_sites = publications(&shared.lake.state().view()).into_iter().map(|publication| {
        let versions = by_table.get(&publication.table).unwrap_or(&nobody);
        let lacking = versions.partition_point(|version| *version < publication.version);
        Arrived { audience: versions.len(), have: versions.len() - lacking, publication }
    });
    let mut all: Vec<Arrived> = with_sites.collect();
    all.sort_by_key(|arrived| std::cmp::Reverse(arrived.publication.at));
    all
}

/// Since when sites lack the newest version, as this node saw it.
pub(crate) type LackingSince = BTreeMap<(TableName, SiteId), Timestamp>;

/// Looks who is late, and tells the watch: a site that is heard and has not taken a version, or
/// says that it cannot.
pub(crate) fn watch(shared: &Arc<Shared>, lacking: &mut LackingSince) {
    let now = shared.now();
    let arrivals = arrivals(shared);
    let late_after = (shared.config.beacon_interval * 20).max(Duration::from_secs(10));
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
    let mut tell = |name: &TableName, what: &str| {
        let late = late.remove(name).unwrap_or_default();
        let text = sentence(what, &late);
        let members = late.iter().map(|(arrival, since)| (arrival.site.clone(), *since)).collect();
        shared.watching.watch().set_publication(name.as_str(), &members, &text, now);
    };
    for (name, known) in shared.published.all() {
        tell(&name, &format!("taken version {} of {name}", known.image.version));
    }
    if let Ok(settings) = TableName::new(SETTINGS_TABLE) {
        tell(&settings, "taken their settings");
    }
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
