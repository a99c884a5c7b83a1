//! The roster: which sites should be heard from. A site leaves it only when a person retires it.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeZone;
use chrono_tz::Tz;
use imbl::OrdMap;
use rollcall_lake::{Lake, LakeError, Record, StateView};
use rollcall_types::{Epoch, HQ_SITE, SiteId, Timestamp, nearest};
use serde::{Deserialize, Serialize};

use crate::{
    access::token_hash,
    attributes::Attributes,
    authority::random_bytes,
    error::HqError,
    invitations::{INVITATION, Invitation, InvitationRecord, Usable, usable},
    roster_file::{RosterFile, with_zone_by_place},
};

pub(crate) const SITE: &str = "site";
pub(crate) const COUNTER: &str = "counter";
/// How long an invitation is good for unless told otherwise.
pub(crate) const INVITATION_LIFE_SECONDS: u64 = 7 * 86_400;

/// What HQ knows of one site.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct SiteRecord {
    pub(crate) number: u32,
    #[serde(default)]
    pub(crate) attributes: Attributes,
    #[serde(default)]
    pub(crate) enrolled_at: Option<Timestamp>,
    /// The key its certificates are for; none while it is not enrolled or after it was retired.
    #[serde(default)]
    pub(crate) key_hash: Option<String>,
    #[serde(default)]
    pub(crate) retired: Option<Retired>,
    #[serde(default)]
    pub(crate) journal: Option<Journal>,
    /// Lives of its journal that may lack what the one before had, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) contested: Vec<ContestedLife>,
    /// When it was put on the roster.
    #[serde(default)]
    pub(crate) listed_at: Option<Timestamp>,
    /// Times for which a person declared it closed.
    #[serde(default)]
    pub(crate) closures: Vec<DeclaredClosure>,
    /// It is to send everything again when it comes next, since HQ may lack what it confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resend: Option<Resend>,
    /// The columns that its database leaves out: those of the next one stay out too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) left_out: Vec<LeftOut>,
}

/// The columns of a table that never leave a store, as the store calls them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    pub(crate) table: String,
    pub(crate) columns: Vec<String>,
}

/// When a day begins in a zone. Where clocks are set forward at midnight, that is an hour later.
pub(crate) fn begin_of(day: chrono::NaiveDate, zone: Tz) -> Option<Timestamp> {
    let hours = (0..=3).filter_map(|hour| zone.from_local_datetime(&day.and_hms_opt(hour, 0, 0)?).earliest());
    hours.map(|begin| Timestamp::from_micros(begin.timestamp_micros())).next()
}

impl Resend {
    /// Why the site begins a new epoch, as it is kept and told.
    pub(crate) fn as_reason(&self) -> String {
        format!("{} has sites send again: {}", self.by, self.reason)
    }
}

/// Who had a site send everything again, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resend {
    pub(crate) at: Timestamp,
    pub(crate) by: String,
    pub(crate) reason: String,
    /// The epoch that was allotted for it; the site is done once it comes with that.
    #[serde(default)]
    pub(crate) epoch: Option<Epoch>,
}

/// A planned closure of a site, always with an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeclaredClosure {
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) reason: String,
    pub(crate) by: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Retired {
    pub(crate) at: Timestamp,
    pub(crate) reason: String,
}

/// The life of a site's journal that HQ accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    pub(crate) id: String,
    pub(crate) epoch: Epoch,
    /// Why this epoch was allotted.
    pub(crate) reason: String,
    /// Whether HQ asked itself what this life may lack; before 0.2 it did not.
    #[serde(default)]
    pub(crate) is_asked_about: bool,
}

/// A life of a site's journal of which it is not known that it has all that was confirmed before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContestedLife {
    pub(crate) epoch: Epoch,
    /// The life that was current when it began.
    pub(crate) before: Epoch,
    pub(crate) began_at: Timestamp,
    /// What gave it away.
    pub(crate) reason: String,
    /// It took the place of the one before at once, as lives did before HQ 0.2.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_shown: bool,
    #[serde(default)]
    pub(crate) ruling: Option<Ruling>,
}

/// What became of a contested life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ruling {
    /// It is current from then on; else the one before stays so.
    pub(crate) is_accepted: bool,
    pub(crate) at: Timestamp,
    /// A person, or HQ itself where nothing is missing.
    pub(crate) by: String,
    pub(crate) reason: String,
}

impl ContestedLife {
    /// In a word, for people.
    pub(crate) fn state(&self) -> &'static str {
        match &self.ruling {
            None if self.is_shown => "shown, to be ruled on",
            None => "apart, to be ruled on",
            Some(ruling) if ruling.is_accepted => "accepted",
            Some(_) => "apart",
        }
    }

    /// Whether its rows are kept apart from the current ones.
    pub(crate) fn is_apart(&self) -> bool {
        match &self.ruling {
            Some(ruling) => !ruling.is_accepted,
            None => !self.is_shown,
        }
    }
}

impl SiteRecord {
    /// Lives whose rows are kept apart.
    pub(crate) fn lives_apart(&self) -> impl Iterator<Item = Epoch> {
        self.contested.iter().filter(|life| life.is_apart()).map(|life| life.epoch)
    }

    /// The life on which a person must rule, or HQ when all is there.
    pub(crate) fn question(&self) -> Option<&ContestedLife> {
        self.contested.iter().rfind(|life| life.ruling.is_none())
    }

    /// Why what comes of the newest life is kept apart; none if it is not.
    pub(crate) fn held(&self) -> Option<String> {
        let newest = self.journal.as_ref()?.epoch;
        let life = self.contested.iter().find(|life| life.epoch == newest && life.is_apart())?;
        Some(match &life.ruling {
            Some(ruling) => format!("{} kept life {}: {}", ruling.by, life.before, ruling.reason),
            None => life.reason.clone(),
        })
    }

    /// The life whose rows are current.
    pub(crate) fn current_life(&self) -> Option<Epoch> {
        let newest = self.journal.as_ref()?.epoch;
        (1..=newest.0).rev().map(Epoch).find(|epoch| !self.lives_apart().any(|apart| apart == *epoch))
    }

    /// Since when what the site sends is kept apart: its rows here end there.
    pub(crate) fn apart_since(&self) -> Option<Timestamp> {
        let newest = self.journal.as_ref()?.epoch;
        let current = self.current_life().unwrap_or_default();
        // Of several lives in a row the first one ended what is shown.
        (current < newest)
            .then(|| self.contested.iter().filter(|life| life.epoch > current).map(|life| life.began_at).min())?
    }

    /// When the site opens for the first time, if that was declared.
    pub(crate) fn go_live(&self) -> Option<Timestamp> {
        let day = self.attributes.get("go_live")?.parse::<chrono::NaiveDate>().ok()?;
        begin_of(day, self.zone())
    }

    /// Whether the site has all these attributes; `id` is not one.
    pub(crate) fn has(&self, wanted: &BTreeMap<String, String>) -> bool {
        wanted.iter().all(|(name, value)| self.attributes.get(name) == Some(value.as_str()))
    }

    /// The value of an attribute by which rules name sites; `id` is one of them.
    pub(crate) fn value(&self, site: &SiteId, name: &str) -> Option<String> {
        match name {
            "id" => Some(site.to_string()),
            name => self.attributes.get(name).map(str::to_owned),
        }
    }

    pub(crate) fn zone(&self) -> Tz {
        self.attributes.get("tz").and_then(|name| Tz::from_str(name).ok()).unwrap_or(Tz::UTC)
    }
}

/// An invitation, as it is shown: without the token, of which nobody has a copy.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Invited {
    /// Names it to whoever revokes it.
    pub(crate) id: String,
    pub(crate) site: SiteId,
    pub(crate) made_at: Timestamp,
    pub(crate) by: String,
    pub(crate) expires_at: Timestamp,
    pub(crate) used_at: Option<Timestamp>,
    /// It lets nobody in any more, although it was not used.
    pub(crate) is_over: bool,
}

/// How much of an invitation's hash names it.
const INVITATION_ID_LENGTH: usize = 12;

/// What names an invitation: nobody can find the token by it.
fn invitation_id(hash: &str) -> String {
    hash.chars().filter(char::is_ascii_alphanumeric).take(INVITATION_ID_LENGTH).collect()
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// Sites that were not on the roster.
    pub added: usize,
    /// Sites whose attributes changed.
    pub changed: usize,
    /// Sites that stayed as they were.
    pub unchanged: usize,
    /// Sites on the roster that the file does not list; they stay.
    pub not_in_file: Vec<SiteId>,
    /// Sites that never enrolled.
    pub never_enrolled: Vec<SiteId>,
    /// Names that tried to enrol or connect without being on the roster.
    pub unknown_senders: Vec<String>,
    /// How the file was read, where that is not evident.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Sites whose time zone was told by their country or state.
    #[serde(default)]
    pub zones_by_place: Vec<SiteId>,
    /// Sites of the file that have no time zone: their hours are not known to the hour.
    #[serde(default)]
    pub without_zone: Vec<SiteId>,
    /// What became other, or would, of sites that were on the roster; of many changes the first.
    #[serde(default)]
    pub changes: Vec<AttributeChange>,
}

/// A change of one site's attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeChange {
    /// Whose.
    pub site: SiteId,
    /// Which.
    pub attribute: String,
    /// What it was; none if there was none.
    pub before: Option<String>,
    /// What it is; none if it goes.
    pub after: Option<String>,
}

/// A change of one site's attribute that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastChange {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// What.
    #[serde(flatten)]
    pub change: AttributeChange,
}

/// How a file is imported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Importing {
    /// Attributes of which the file has no column go.
    pub(crate) replace: bool,
    /// Nothing is changed.
    pub(crate) dry_run: bool,
}

/// Changes that a report names.
const CHANGES_MAX: usize = 1000;

fn changes_of(site: &SiteId, before: &Attributes, after: &Attributes) -> Vec<AttributeChange> {
    let names: BTreeSet<&str> = before.names().chain(after.names()).collect();
    let is_other = names.into_iter().filter(|name| before.get(name) != after.get(name));
    let change = |name: &str| AttributeChange {
        site: site.clone(),
        attribute: name.to_owned(),
        before: before.get(name).map(str::to_owned),
        after: after.get(name).map(str::to_owned),
    };
    is_other.map(change).collect()
}

/// The roster as kept in the lake's state log.
#[derive(Debug)]
pub(crate) struct Roster {
    lake: Arc<Lake>,
    /// The roster as parsed from the view beside it.
    parsed: Mutex<(StateView, Arc<Sites>)>,
}

/// All sites by id, retired ones included. Versions of it share what did not change.
pub(crate) type Sites = OrdMap<SiteId, Arc<SiteRecord>>;

fn invalid(error: impl std::fmt::Display) -> HqError {
    HqError::Invalid(error.to_string())
}

/// The sites of a view, by id.
pub(crate) fn sites(view: &StateView) -> impl Iterator<Item = (SiteId, SiteRecord)> {
    view.of_kind(SITE).filter_map(|record| Some((SiteId::new(&record.id).ok()?, record.parse().ok()?)))
}

impl Roster {
    pub(crate) fn new(lake: Arc<Lake>) -> Self {
        Self { lake, parsed: Mutex::default() }
    }

    /// All sites, retired ones included; the same one as before unless a site changed.
    pub(crate) fn all(&self) -> Arc<Sites> {
        let view = self.lake.state().view();
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if !parsed.0.is_same(&view) {
            let mut all: Option<Sites> = None;
            for (id, record) in view.changed_since(&parsed.0, SITE) {
                let Ok(id) = SiteId::new(id) else { continue };
                let all = all.get_or_insert_with(|| (*parsed.1).clone());
                match record.and_then(|record| record.parse().ok()) {
                    Some(record) => all.insert(id, Arc::new(record)),
                    None => all.remove(&id),
                };
            }
            let all = all.map_or_else(|| parsed.1.clone(), Arc::new);
            *parsed = (view, all);
        }
        parsed.1.clone()
    }

    /// The record of a site, as it is in the newest view: what a caller may do depends on it.
    pub(crate) fn get(&self, site: &SiteId) -> Option<Arc<SiteRecord>> {
        self.lake.state().view().get(SITE, site.as_str()).and_then(|record| record.parse().ok()).map(Arc::new)
    }

    /// Changes one site's record; `change` sees the newest version and says whether to write it.
    async fn change<T>(
        &self,
        site: &SiteId,
        by: &str,
        now: Timestamp,
        mut change: impl FnMut(&mut SiteRecord) -> Result<(bool, T), HqError>,
    ) -> Result<T, HqError> {
        self.lake
            .state()
            .update(|view| {
                let record = view.get(SITE, site.as_str());
                let record = record.ok_or_else(|| self.unlisted(site))?;
                let mut value: SiteRecord = record.parse()?;
                let (write, result) = change(&mut value)?;
                let records = if write { vec![view.next(SITE, site.as_str(), &value, now, by)?] } else { Vec::new() };
                Ok((records, result))
            })
            .await
    }

    /// Adds and updates sites from CSV with a header: `id` and any attributes. Sites not listed
    /// stay on the roster, and so do attributes of which the file has no column, unless all are to
    /// be replaced; an empty cell takes one away.
    pub(crate) async fn import(
        &self,
        text: &str,
        how: Importing,
        unknown_senders: Vec<String>,
        by: &str,
        now: Timestamp,
    ) -> Result<ImportReport, HqError> {
        let RosterFile { rows, notes } = RosterFile::read(text)?;
        self.lake
            .state()
            .update(|view| {
                let mut report = ImportReport {
                    unknown_senders: unknown_senders.clone(),
                    notes: notes.clone(),
                    ..ImportReport::default()
                };
                let mut records = Vec::new();
                let mut numbers = Numbers::new(view)?;
                for (site, row) in &rows {
                    let known: Option<SiteRecord> =
                        view.get(SITE, site.as_str()).map(|record| record.parse()).transpose()?;
                    let before = known.as_ref().filter(|_| !how.replace).map(|record| record.attributes.clone());
                    let mut attributes = before.unwrap_or_default().changed(row);
                    if let Some(placed) = with_zone_by_place(&attributes) {
                        attributes = placed;
                        report.zones_by_place.push(site.clone());
                    } else if attributes.get("tz").is_none() {
                        report.without_zone.push(site.clone());
                    }
                    let mut value = match known {
                        Some(value) if value.attributes == attributes => {
                            report.unchanged += 1;
                            continue;
                        }
                        Some(value) => {
                            report.changed += 1;
                            let left = CHANGES_MAX.saturating_sub(report.changes.len());
                            let changes = changes_of(site, &value.attributes, &attributes);
                            report.changes.extend(changes.into_iter().take(left));
                            value
                        }
                        None => {
                            report.added += 1;
                            SiteRecord { number: numbers.next(), listed_at: Some(now), ..SiteRecord::default() }
                        }
                    };
                    value.attributes = attributes;
                    records.push(view.next(SITE, site.as_str(), &value, now, by)?);
                }
                records.extend(numbers.record(view, now, by)?);
                if how.dry_run {
                    records.clear();
                }
                for (site, record) in sites(view) {
                    let live = record.retired.is_none();
                    if live && !rows.contains_key(&site) {
                        report.not_in_file.push(site.clone());
                    }
                    if live && record.enrolled_at.is_none() {
                        report.never_enrolled.push(site);
                    }
                }
                report
                    .never_enrolled
                    .extend(rows.keys().filter(|site| view.get(SITE, site.as_str()).is_none()).cloned());
                report.never_enrolled.sort();
                Ok((records, report))
            })
            .await
    }

    /// Changes attributes of a site that is on the roster; an empty value takes one away.
    pub(crate) async fn set_attributes(
        &self,
        site: &SiteId,
        attributes: &BTreeMap<String, String>,
        by: &str,
        now: Timestamp,
    ) -> Result<Vec<AttributeChange>, HqError> {
        let changes: BTreeMap<String, Option<String>> = attributes
            .iter()
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), Some(value.trim().to_owned())))
            .map(|(name, value)| (name, value.filter(|value| !value.is_empty())))
            .collect();
        self.change(site, by, now, |record| {
            let mut after = record.attributes.changed(&changes);
            // Who takes a zone away means it.
            if !changes.contains_key("tz") {
                after = with_zone_by_place(&after).unwrap_or(after);
            }
            check_calendar(&after)?;
            let changed = changes_of(site, &record.attributes, &after);
            record.attributes = after;
            Ok((!changed.is_empty(), changed))
        })
        .await
    }

    /// Makes an invitation; the site is added to the roster if it is not on it. `attributes` are
    /// set on it.
    pub(crate) async fn invite(
        &self,
        site: &SiteId,
        attributes: &BTreeMap<String, String>,
        fingerprint: &str,
        life_seconds: u64,
        by: &str,
        now: Timestamp,
    ) -> Result<Invitation, HqError> {
        check_name(site)?;
        check_calendar(&attributes.clone().into())?;
        let secret = URL_SAFE_NO_PAD.encode(random_bytes::<18>()?);
        let expires_at = now.plus_micros(i64::try_from(life_seconds).unwrap_or(i64::MAX / 2).saturating_mul(1_000_000));
        self.lake
            .state()
            .update(|view| {
                let mut numbers = Numbers::new(view)?;
                let known: Option<SiteRecord> =
                    view.get(SITE, site.as_str()).map(|record| record.parse()).transpose()?;
                let before = known.clone();
                let mut value = match known {
                    Some(value) if value.retired.is_some() => {
                        return Err(HqError::Invalid(format!(
                            "site {site} was retired: `rollcall roster reinstate {site}` takes it back; a new place needs a new id"
                        )));
                    }
                    Some(value) => value,
                    None => SiteRecord { number: numbers.next(), listed_at: Some(now), ..SiteRecord::default() },
                };
                let said = value.attributes.with(attributes);
                value.attributes = with_zone_by_place(&said).unwrap_or(said);
                let mut records: Vec<Record> = Vec::new();
                if before.as_ref() != Some(&value) {
                    records.push(view.next(SITE, site.as_str(), &value, now, by)?);
                }
                records.extend(numbers.record(view, now, by)?);
                let invitation = InvitationRecord {
                    site: site.clone(),
                    expires_at,
                    used_at: None,
                    made_at: Some(now),
                    revoked_by: None,
                };
                records.push(view.next(INVITATION, &token_hash(&secret), &invitation, now, by)?);
                Ok((records, ()))
            })
            .await?;
        Ok(Invitation { site: site.clone(), token: encode_token(site, &secret, fingerprint), expires_at, hq: None })
    }

    /// Whether an invitation may be used now, with this key if one is known; nothing is changed.
    pub(crate) fn check_invitation(
        &self,
        secret: &str,
        key_hash: Option<&str>,
        now: Timestamp,
    ) -> Result<Usable, HqError> {
        usable(&self.lake.state().view(), secret, key_hash, now)
    }

    /// Uses an invitation up: the site's key becomes the one it is known by.
    pub(crate) async fn enrol(
        &self,
        secret: &str,
        key_hash: &str,
        left_out: Vec<LeftOut>,
        now: Timestamp,
    ) -> Result<SiteId, HqError> {
        let id = token_hash(secret);
        self.lake
            .state()
            .update(|view| {
                let Usable { mut invitation, record: mut value, is_repeat } =
                    usable(view, secret, Some(key_hash), now)?;
                let site = invitation.site.clone();
                if is_repeat {
                    return Ok((Vec::new(), site));
                }
                invitation.used_at = Some(now);
                value.enrolled_at = Some(now);
                value.key_hash = Some(key_hash.to_owned());
                value.left_out = left_out.clone();
                let by = site.as_str();
                let records = vec![
                    view.next(INVITATION, &id, &invitation, now, by)?,
                    view.next(SITE, site.as_str(), &value, now, by)?,
                ];
                Ok((records, site))
            })
            .await
    }

    /// What is said of a site that is not on the roster, with the one that may be meant.
    pub(crate) fn unlisted(&self, site: &SiteId) -> HqError {
        let all = self.all();
        let near = nearest(site.as_str(), all.keys().map(SiteId::as_str));
        let near = near.map_or_else(String::new, |near| format!("; is {near} meant?"));
        HqError::NotFound(format!("site {site} is not on the roster{near}"))
    }

    /// All invitations that were not used, and those used lately.
    pub(crate) fn invitations(&self, now: Timestamp) -> Vec<Invited> {
        let (view, roster) = (self.lake.state().view(), self.all());
        let invited = view.of_kind(INVITATION).filter_map(|record| {
            let invitation: InvitationRecord = record.parse().ok()?;
            let made_at = invitation.made_at.unwrap_or(record.at);
            let enrolled = roster.get(&invitation.site).and_then(|site| site.enrolled_at);
            let is_superseded = enrolled.is_some_and(|enrolled| enrolled >= made_at);
            let is_over = invitation.expires_at < now || invitation.revoked_by.is_some() || is_superseded;
            Some(Invited {
                id: invitation_id(&record.id),
                site: invitation.site,
                made_at,
                by: record.by.to_string(),
                expires_at: invitation.expires_at,
                used_at: invitation.used_at,
                is_over: is_over && invitation.used_at.is_none(),
            })
        });
        let mut invited: Vec<Invited> = invited.collect();
        invited.sort_by(|left, right| (&left.site, left.made_at).cmp(&(&right.site, right.made_at)));
        invited
    }

    /// Revokes an invitation that was not used. Of which site it was.
    pub(crate) async fn revoke(&self, id: &str, by: &str, now: Timestamp) -> Result<SiteId, HqError> {
        let unknown =
            || HqError::NotFound(format!("no invitation is called {id}; `rollcall roster invitations` lists them"));
        self.lake
            .state()
            .update(|view| {
                let found =
                    view.of_kind(INVITATION).find(|record| invitation_id(&record.id) == id).ok_or_else(unknown)?;
                let mut invitation: InvitationRecord = found.parse()?;
                if invitation.used_at.is_some() {
                    let text =
                        format!("it was used: `rollcall roster retire {}` revokes the site's key", invitation.site);
                    return Err(HqError::Invalid(text));
                }
                invitation.revoked_by = Some(by.to_owned());
                let site = invitation.site.clone();
                Ok((vec![view.next(INVITATION, &found.id, &invitation, now, by)?], site))
            })
            .await
    }

    /// Takes a site off the roster and revokes its key at once.
    pub(crate) async fn retire(&self, site: &SiteId, reason: &str, by: &str, now: Timestamp) -> Result<(), HqError> {
        self.change(site, by, now, |record| {
            if record.retired.is_some() {
                return Ok((false, ()));
            }
            record.retired = Some(Retired { at: now, reason: reason.to_owned() });
            record.key_hash = None;
            Ok((true, ()))
        })
        .await
    }

    /// Puts a retired site back on the roster, as of now; it joins with a new invitation.
    pub(crate) async fn reinstate(&self, site: &SiteId, by: &str, now: Timestamp) -> Result<(), HqError> {
        self.change(site, by, now, |record| {
            if record.retired.take().is_none() {
                return Err(HqError::Invalid(format!("site {site} is on the roster; it was not retired")));
            }
            record.listed_at = Some(now);
            Ok((true, ()))
        })
        .await
    }

    /// What changed of a site's attributes, oldest first; from the state log, which keeps every
    /// version of a record.
    pub(crate) async fn history(&self, site: &SiteId) -> Result<Vec<PastChange>, HqError> {
        let records = self.lake.state().versions(SITE, site.as_str()).await?;
        let (mut before, mut changes) = (Attributes::default(), Vec::new());
        for record in records {
            let value: SiteRecord = record.parse()?;
            let of = |change| PastChange { at: record.at, by: record.by.to_string(), change };
            changes.extend(changes_of(site, &before, &value.attributes).into_iter().map(of));
            before = value.attributes;
        }
        Ok(changes)
    }

    /// Has sites send everything again when they come next; returns which. Those that are not
    /// enrolled are left out.
    pub(crate) async fn resend(
        &self,
        sites: &BTreeSet<SiteId>,
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Vec<SiteId>, HqError> {
        let state = self.lake.state();
        state
            .update(|view| {
                let (mut records, mut told) = (Vec::new(), Vec::new());
                for site in sites {
                    let Some(record) = view.get(SITE, site.as_str()) else { continue };
                    let mut value: SiteRecord = record.parse()?;
                    if value.key_hash.is_some() {
                        let (by, reason) = (by.to_owned(), reason.to_owned());
                        value.resend = Some(Resend { at: now, by: by.clone(), reason, epoch: None });
                        records.push(view.next(SITE, site.as_str(), &value, now, &by)?);
                        told.push(site.clone());
                    }
                }
                Ok((records, told))
            })
            .await
    }

    /// The site began to send everything again, in that epoch.
    pub(crate) async fn resent(&self, site: &SiteId, epoch: Epoch, now: Timestamp) -> Result<(), HqError> {
        self.change(site, "hq", now, |record| {
            let is_done = record.resend.as_ref().is_some_and(|resend| resend.epoch == Some(epoch));
            if is_done {
                record.resend = None;
            }
            Ok((is_done, ()))
        })
        .await
    }

    /// Declares a site closed until a time; a running silence of it is explained by that.
    pub(crate) async fn close_until(
        &self,
        site: &SiteId,
        closure: DeclaredClosure,
        now: Timestamp,
    ) -> Result<(), HqError> {
        if closure.until <= now || closure.until <= closure.from {
            return Err(invalid("a closure must end, and in the future"));
        }
        let by = closure.by.clone();
        self.change(site, &by, now, |record| {
            record.closures.retain(|known| known.until > now);
            record.closures.push(closure.clone());
            Ok((true, ()))
        })
        .await
    }

    /// Allots the next epoch for this journal, unless the journal on the roster is another than
    /// `known` by now: a node that the site called a moment ago may have allotted one. A contested
    /// one is kept apart.
    pub(crate) async fn new_epoch(
        &self,
        site: &SiteId,
        known: Option<&Journal>,
        new: NewLife<'_>,
        now: Timestamp,
    ) -> Result<Epoch, HqError> {
        self.change(site, "hq", now, |record| {
            if record.journal.as_ref() != known {
                return Err(HqError::Outdated);
            }
            let epoch = Epoch(record.journal.as_ref().map_or(0, |journal| journal.epoch.0) + 1);
            let before = record.current_life().unwrap_or_default();
            // The question is about the newest life alone.
            for life in record.contested.iter_mut().filter(|life| life.ruling.is_none()) {
                let reason = format!("life {epoch} followed: {}", new.reason);
                life.ruling = Some(Ruling { is_accepted: life.is_shown, at: now, by: "hq".to_owned(), reason });
            }
            if new.is_contested && before > Epoch(0) {
                record.contested.push(ContestedLife {
                    epoch,
                    before,
                    began_at: now,
                    reason: new.reason.to_owned(),
                    is_shown: false,
                    ruling: None,
                });
            }
            let (id, reason) = (new.journal_id.to_owned(), new.reason.to_owned());
            record.journal = Some(Journal { id, epoch, reason, is_asked_about: true });
            // Any other new life is a question of its own, and states everything anyway.
            record.resend =
                record.resend.take().filter(|_| new.is_resend).map(|resend| Resend { epoch: Some(epoch), ..resend });
            Ok((true, epoch))
        })
        .await
    }

    /// Puts to people what an earlier HQ let happen in silence: a life that took the place of the
    /// one before and may lack what that had.
    pub(crate) async fn contest_shown(&self, site: &SiteId, now: Timestamp) -> Result<(), HqError> {
        self.change(site, "hq", now, |record| {
            let Some(journal) = record.journal.as_mut().filter(|journal| !journal.is_asked_about) else {
                return Ok((false, ()));
            };
            journal.is_asked_about = true;
            let journal = journal.clone();
            record.contested.push(ContestedLife {
                epoch: journal.epoch,
                before: Epoch(journal.epoch.0.saturating_sub(1)),
                began_at: now,
                reason: journal.reason,
                is_shown: true,
                ruling: None,
            });
            Ok((true, ()))
        })
        .await
    }

    /// Lets a contested life be current that was found to have every row of the one before; false
    /// if it is no question any more.
    pub(crate) async fn accept_contained(&self, site: &SiteId, epoch: Epoch, now: Timestamp) -> Result<bool, HqError> {
        self.change(site, "hq", now, |record| {
            // A person may have ruled, or another life begun, while rows were compared.
            let question = record.contested.iter_mut().rfind(|life| life.ruling.is_none());
            let Some(life) = question.filter(|life| life.epoch == epoch) else { return Ok((false, false)) };
            let reason = "every row that was confirmed before is in it".to_owned();
            life.ruling = Some(Ruling { is_accepted: true, at: now, by: "hq".to_owned(), reason });
            Ok((true, true))
        })
        .await
    }

    /// Rules on the lives of a site: `epoch` is current from now on, or stays so. Returns whether
    /// that changes what is shown.
    pub(crate) async fn rule(
        &self,
        site: &SiteId,
        epoch: Epoch,
        is_accepted: bool,
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<bool, HqError> {
        self.change(site, by, now, |record| {
            let current = record.current_life().unwrap_or_default();
            let ruling = |is_accepted| Ruling { is_accepted, at: now, by: by.to_owned(), reason: reason.to_owned() };
            if is_accepted {
                let known = record.contested.iter_mut().find(|life| life.epoch == epoch);
                let life = known.ok_or_else(|| HqError::Invalid(format!("nobody contests life {epoch} of {site}")))?;
                if epoch < current {
                    return Err(HqError::Invalid(format!(
                        "life {current} of {site} is current, and {epoch} is older: what was current since is no more together"
                    )));
                }
                life.ruling = Some(ruling(true));
            } else if epoch != current {
                return Err(HqError::Invalid(format!("life {current} of {site} is current, not {epoch}")));
            }
            for life in record.contested.iter_mut().filter(|life| life.ruling.is_none()) {
                // One that was shown all along is what there is.
                life.ruling = Some(ruling(life.is_shown && life.epoch == epoch));
            }
            Ok((true, record.current_life().unwrap_or_default() != current))
        })
        .await
    }
}

/// What a new life is allotted for.
pub(crate) struct NewLife<'a> {
    pub(crate) journal_id: &'a str,
    pub(crate) reason: &'a str,
    /// It may lack what was confirmed before.
    pub(crate) is_contested: bool,
    /// It was asked for so that the site sends everything again.
    pub(crate) is_resend: bool,
}

/// Numbers for new sites, never used twice.
struct Numbers {
    next: u32,
    first: u32,
}

impl Numbers {
    fn new(view: &StateView) -> Result<Self, LakeError> {
        let next = view.get(COUNTER, SITE).map(|record| record.parse::<u32>()).transpose()?.unwrap_or(1);
        Ok(Self { next, first: next })
    }

    fn next(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    fn record(&self, view: &StateView, now: Timestamp, by: &str) -> Result<Option<Record>, LakeError> {
        (self.next != self.first).then(|| view.next(COUNTER, SITE, &self.next, now, by)).transpose()
    }
}

/// Refuses the name that stands for HQ itself.
pub(crate) fn check_name(site: &SiteId) -> Result<(), HqError> {
    match site.as_str() == HQ_SITE {
        true => Err(invalid(format!("no site can be called {HQ_SITE}: that is HQ itself"))),
        false => Ok(()),
    }
}

/// Refuses a zone, hours or a go-live date that could not be understood later.
pub(crate) fn check_calendar(attributes: &Attributes) -> Result<(), HqError> {
    if let Some(Err(error)) = attributes.get("hours").map(rollcall_roll::Hours::from_str) {
        return Err(invalid(error));
    }
    if let Some(Err(_)) = attributes.get("go_live").map(chrono::NaiveDate::from_str) {
        return Err(invalid("go_live must be a day such as 2026-01-31"));
    }
    match attributes.get("tz").map(|name| (name, Tz::from_str(name))) {
        Some((name, Err(_))) => {
            Err(invalid(format!("tz {name:?} is not a time zone; use a name such as America/Los_Angeles")))
        }
        _ => Ok(()),
    }
}

/// `rc1.` and, in base64, who is invited, the secret, and the fingerprint of HQ's CA.
fn encode_token(site: &SiteId, secret: &str, fingerprint: &str) -> String {
    format!("rc1.{}", URL_SAFE_NO_PAD.encode(format!("{site} {secret} {fingerprint}")))
}
