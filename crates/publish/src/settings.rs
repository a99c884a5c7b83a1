//! How sites are to behave: rules for groups of sites, from which each site's settings follow.
//!
//! Settings travel as HQ's tables do: every node works out what a site should have, tells it when
//! that changes, and the site tells back what it has; who has not is in `rollcall.arrivals` under
//! the name `rollcall.settings`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use arrow_schema::Schema;
use prost::Message;
use ring::digest;
use rollcall_lake::{RecordKind, StateView};
use rollcall_query::Audience;
use rollcall_types::{SiteId, TableName, Timestamp};
use rollcall_wire::proto::{self, Captured};
use serde::{Deserialize, Serialize};

use rollcall_registry::{HqError, SiteRecord};

use crate::{
    publisher::Publisher,
    tables::{self, check_attributes},
};

const SETTINGS: RecordKind<Option<Rule>> = RecordKind::new("settings");
/// A site asked less often than this many of HQ's own intervals would always look behind.
const SLOWEST_BEACON: u32 = 3;
const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// What is said of some sites. What a rule leaves open, others or HQ's own configuration say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Which sites: a condition over `site.name` attributes; every site if it is empty.
    pub to: String,
    /// Where rules differ, the one with the higher rank is followed, then the one whose name comes
    /// later.
    pub rank: i32,
    /// Seconds between beacons.
    pub beacon_seconds: Option<u32>,
    /// The most the site may send and fetch, kilobytes a second, for each hour of its day; 0 is no
    /// limit.
    pub bandwidth: Option<Vec<u32>>,
    /// What the agent logs.
    pub log: Option<String>,
    /// The agent's version wanted.
    pub agent_version: Option<String>,
    /// Addresses (host:port) to call if those the site knows do not answer.
    pub hq_addresses: Option<Vec<String>>,
    /// Changes to what is captured, by table.
    pub capture: BTreeMap<String, Capture>,
}

/// How a table of the site's is captured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capture {
    /// Columns that are not.
    pub excluded: Vec<String>,
    /// It is not captured any more.
    pub stopped: bool,
    /// Only columns are left out: it begins no capture.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub only_if_captured: bool,
}

impl Capture {
    /// What `self` and a rule below it say of one table. Columns are left out whichever rule says
    /// so: who wants one sent takes that rule back.
    fn over(&self, below: &Capture) -> Capture {
        let mut excluded = below.excluded.clone();
        let is_new = |name: &&String| !below.excluded.iter().any(|known| known.eq_ignore_ascii_case(name));
        excluded.extend(self.excluded.iter().filter(is_new).cloned());
        Capture {
            excluded,
            stopped: self.stopped || (below.stopped && self.only_if_captured),
            only_if_captured: self.only_if_captured && below.only_if_captured,
        }
    }
}

impl Rule {
    fn check(&self, beacon_interval: Duration) -> Result<(), HqError> {
        let invalid = |text: String| Err(HqError::Invalid(text));
        let slowest = (beacon_interval * SLOWEST_BEACON).as_secs().max(1);
        if let Some(seconds) = self.beacon_seconds.filter(|seconds| !(1..=slowest).contains(&u64::from(*seconds))) {
            return invalid(format!(
                "a beacon every {seconds} s: it must be 1 to {slowest} s, or the site would always look behind; \
                 HQ's own --beacon-interval-ms sets what is usual"
            ));
        }
        if self.bandwidth.as_ref().is_some_and(|hours| hours.len() != 24) {
            return invalid("bandwidth needs 24 numbers, one for each hour of the day".to_owned());
        }
        if let Some(level) = self.log.as_ref().filter(|level| !LOG_LEVELS.contains(&level.as_str())) {
            return invalid(format!("log {level:?} is none of {}", LOG_LEVELS.join(", ")));
        }
        let is_address = |text: &&String| text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        match self.hq_addresses.iter().flatten().find(|text| !is_address(text)) {
            Some(text) => invalid(format!("{text:?} is no address; write it as host:port")),
            None => Ok(()),
        }
    }

    /// What `self` says, and what `other` says where `self` is silent.
    fn over(&self, other: Rule) -> Rule {
        let mut capture = other.capture;
        for (table, above) in &self.capture {
            let said = capture.get(table).map_or_else(|| above.clone(), |below| above.over(below));
            capture.insert(table.clone(), said);
        }
        Rule {
            to: String::new(),
            rank: 0,
            beacon_seconds: self.beacon_seconds.or(other.beacon_seconds),
            bandwidth: self.bandwidth.clone().or(other.bandwidth),
            log: self.log.clone().or(other.log),
            agent_version: self.agent_version.clone().or(other.agent_version),
            hq_addresses: self.hq_addresses.clone().or(other.hq_addresses),
            capture,
        }
    }
}

/// What is said of a site by all rules together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SiteSettings {
    /// Names of the rules, the one that is followed first last.
    pub rules: Vec<String>,
    /// What they come to; its own condition and rank say nothing.
    #[serde(flatten)]
    pub said: Rule,
    /// Names what is said; 0 if nothing is.
    pub digest: u64,
}

impl SiteSettings {
    fn new(rules: &[(&String, &Rule)]) -> Self {
        let mut said = Rule::default();
        for (_, rule) in rules {
            said = rule.over(said);
        }
        let mut settings = Self { rules: rules.iter().map(|(name, _)| (*name).clone()).collect(), said, digest: 0 };
        if settings.said != Rule::default() {
            let bytes = settings.message().encode_to_vec();
            let mut low = [0; 8];
            low.copy_from_slice(&digest::digest(&digest::SHA256, &bytes).as_ref()[..8]);
            // JSON keeps 53 bits safely.
            settings.digest = (u64::from_le_bytes(low) >> 11).max(1);
        }
        settings
    }

    /// As the site is told, but for what HQ's configuration and the clock say.
    fn message(&self) -> proto::Settings {
        let said = &self.said;
        let captured = |(table, capture): (&String, &Capture)| Captured {
            table: table.clone(),
            excluded: capture.excluded.clone(),
            stopped: capture.stopped,
            only_if_captured: capture.only_if_captured,
        };
        proto::Settings {
            beacon_interval_ms: said.beacon_seconds.map_or(0, |seconds| seconds * 1000),
            hq_addresses: said.hq_addresses.clone().unwrap_or_default(),
            bandwidth: said.bandwidth.clone().unwrap_or_default(),
            log: said.log.clone().unwrap_or_default(),
            agent_version: said.agent_version.clone().unwrap_or_default(),
            capture: said.capture.iter().map(captured).collect(),
            digest: self.digest,
            ..proto::Settings::default()
        }
    }
}

/// A rule with its condition understood.
struct Known {
    name: String,
    rule: Rule,
    to: Audience,
}

/// All rules, in the order in which they are followed, and what they come to for sites that are
/// alike.
#[derive(Default)]
struct Rules {
    /// How often rules were set or taken back.
    changes: i64,
    all: Vec<Known>,
    by_values: Mutex<HashMap<Vec<Option<String>>, Arc<SiteSettings>>>,
}

/// The settings as this node knows them.
#[derive(Default)]
pub struct Settings(RwLock<Arc<Rules>>);

impl Settings {
    fn rules(&self) -> Arc<Rules> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether no rule was ever set: then no site has settings of its own.
    pub fn is_empty(&self) -> bool {
        self.rules().changes == 0
    }

    /// The rules that are in force, by name.
    pub fn all(&self) -> BTreeMap<String, Rule> {
        self.rules().all.iter().map(|known| (known.name.clone(), known.rule.clone())).collect()
    }

    /// What is said of a site.
    pub fn of(&self, site: &SiteId, record: &SiteRecord) -> Result<Arc<SiteSettings>, HqError> {
        let rules = self.rules();
        let names = rules.all.iter().flat_map(|known| known.to.attributes());
        let values: Vec<Option<String>> = names.map(|name| record.value(site, name)).collect();
        let mut known = rules.by_values.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(settings) = known.get(&values) {
            return Ok(settings.clone());
        }
        let (mut holding, mut rest) = (Vec::new(), values.as_slice());
        for rule in &rules.all {
            let (own, others) = rest.split_at(rule.to.attributes().len());
            rest = others;
            let own: Vec<Option<&str>> = own.iter().map(Option::as_deref).collect();
            if !rule.to.of(&own).map_err(HqError::query)?.is_nobody() {
                holding.push((&rule.name, &rule.rule));
            }
        }
        let settings = Arc::new(SiteSettings::new(&holding));
        known.insert(values, settings.clone());
        Ok(settings)
    }
}

impl Publisher {
    /// What people's rules say of how a site is to behave; nothing where no rule speaks of it. What
    /// the node itself says, such as its addresses, is for the gateway to add.
    pub fn settings_of(&self, site: &SiteId) -> proto::Settings {
        let record = self.registry.roster.get(site);
        let said = record.as_ref().and_then(|record| match self.settings.of(site, record) {
            Ok(settings) => Some(settings.message()),
            Err(error) => {
                tracing::error!(%site, %error, "a site's settings cannot be worked out");
                None
            }
        });
        said.unwrap_or_default()
    }
}

/// A condition over attributes alone.
fn understood(publisher: &Publisher, rule: &Rule) -> Result<Audience, HqError> {
    let text = if rule.to.trim().is_empty() { "true" } else { &rule.to };
    let to = publisher.engine.audience(text, &Arc::new(Schema::empty()));
    to.map_err(|error| HqError::Invalid(error.to_string()))
}

/// Takes over what was said since, here or at another node; true if that is anything.
pub fn refresh(publisher: &Publisher) -> bool {
    let view = publisher.registry.lake.state().view();
    let changes = view.of_kind(SETTINGS).map(|record| record.version).sum();
    if publisher.settings.rules().changes == changes {
        return false;
    }
    let mut all = Vec::new();
    for record in view.of_kind(SETTINGS) {
        let rule = record.parse::<Option<Rule>>().map_err(HqError::from);
        match rule.and_then(|rule| rule.map(|rule| Ok((understood(publisher, &rule)?, rule))).transpose()) {
            Ok(Some((to, rule))) => all.push(Known { name: record.id.to_string(), rule, to }),
            // It was taken back.
            Ok(None) => {}
            Err(error) => tracing::error!(rule = %record.id, %error, "a rule for settings cannot be read"),
        }
    }
    all.sort_by(|a, b| (a.rule.rank, &a.name).cmp(&(b.rule.rank, &b.name)));
    let rules = Rules { changes, all, by_values: Mutex::default() };
    *publisher.settings.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    true
}

/// What became of a rule.
#[derive(Debug, Clone, Serialize)]
pub struct RuleOutcome {
    /// Sites of which it speaks.
    pub sites: usize,
    /// Columns that are to be left out and that no site ever sent: as it should be, or misspelt.
    pub unknown_columns: Vec<String>,
}

/// Of the columns that a rule leaves out, those that HQ's tables do not have.
fn unknown_columns(publisher: &Publisher, rule: &Rule) -> Vec<String> {
    let mut unknown = Vec::new();
    for (table, capture) in &rule.capture {
        let known = TableName::at_hq(table).ok().and_then(|name| publisher.registry.lake.table(&name));
        let schema = known.map(|known| known.snapshot().schema().clone());
        let is_known = |column: &&String| {
            let name = rollcall_types::columns::at_hq(column);
            schema.as_ref().is_some_and(|schema| schema.column(&name).is_some())
        };
        unknown.extend(
            capture.excluded.iter().filter(|column| !is_known(column)).map(|column| format!("{table}.{column}")),
        );
    }
    unknown
}

/// Says a rule, in the place of what was said under its name, or takes it back.
pub async fn set(publisher: &Publisher, name: &str, rule: Option<&Rule>, by: &str) -> Result<RuleOutcome, HqError> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if name.is_empty() || name.len() > 80 || !name.chars().all(is_name) {
        return Err(HqError::Invalid(format!("{name:?} is no name for a rule: use letters, digits, - _ and .")));
    }
    let mut sites = 0;
    if let Some(rule) = rule {
        rule.check(publisher.beacon_interval)?;
        let to = understood(publisher, rule)?;
        let roster = publisher.registry.roster.all();
        check_attributes(&to, &roster)?;
        for (site, record) in roster.iter().filter(|(_, record)| record.retired.is_none()) {
            let values: Vec<Option<String>> = to.attributes().iter().map(|name| record.value(site, name)).collect();
            let values: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
            sites += usize::from(!to.of(&values).map_err(HqError::query)?.is_nobody());
        }
    }
    let now: Timestamp = publisher.registry.now();
    let change = |view: &StateView| {
        let known = view.get(SETTINGS, name).map(|record| record.parse::<Option<Rule>>()).transpose()?.flatten();
        match (rule, known) {
            (None, None) => Err(HqError::NotFound(format!("there is no rule {name}"))),
            _ => Ok((vec![view.next(SETTINGS, name, &rule.cloned(), now, by)?], ())),
        }
    };
    publisher.registry.lake.state().update(change).await?;
    tables::refresh(publisher).await;
    tracing::info!(rule = name, by, sites, "settings changed");
    let unknown_columns = rule.map(|rule| unknown_columns(publisher, rule)).unwrap_or_default();
    Ok(RuleOutcome { sites, unknown_columns })
}
