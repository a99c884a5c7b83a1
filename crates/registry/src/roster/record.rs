//! What HQ knows of one site.

use std::{collections::BTreeMap, str::FromStr};

use chrono::TimeZone;
use chrono_tz::Tz;
use rollcall_types::{Epoch, HQ_SITE, SiteId, Timestamp};
use serde::{Deserialize, Serialize};

use super::invalid;
use crate::{attributes::Attributes, error::HqError};

/// What HQ knows of one site.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SiteRecord {
    /// What names the site in the lake; never used for another.
    pub number: u32,
    /// What people say of it, by name.
    #[serde(default)]
    pub attributes: Attributes,
    /// When a database joined as this site last; none if none ever did.
    #[serde(default)]
    pub enrolled_at: Option<Timestamp>,
    /// The key its certificates are for; none while it is not enrolled or after it was retired.
    #[serde(default)]
    pub key_hash: Option<String>,
    /// When and why it was taken off the roster; none if it is on it.
    #[serde(default)]
    pub retired: Option<Retired>,
    /// The newest life of its journal; none before its first session.
    #[serde(default)]
    pub journal: Option<Journal>,
    /// Lives of its journal that may lack what the one before had, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contested: Vec<ContestedLife>,
    /// When it was put on the roster.
    #[serde(default)]
    pub listed_at: Option<Timestamp>,
    /// Times for which a person declared it closed.
    #[serde(default)]
    pub closures: Vec<DeclaredClosure>,
    /// It is to send everything again when it comes next, since HQ may lack what it confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resend: Option<Resend>,
    /// The columns that its database leaves out: those of the next one stay out too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// Its local times were read in another zone once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_zone: Option<OtherZone>,
    /// A person answers for the times of its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times_accepted: Option<TimesAccepted>,
}

/// That a site's local times were read in another zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherZone {
    /// Until when.
    pub until: Timestamp,
    /// Up to this life of its journal: what it sends again in a later one is read in the new zone.
    pub epoch: Epoch,
}

/// Who answers for the times of a site's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimesAccepted {
    /// For all rows before this.
    pub at: Timestamp,
    /// Who does.
    pub by: String,
    /// Why, in words.
    pub reason: String,
}

/// The columns of a table that never leave a store, as the store calls them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The table.
    pub table: String,
    /// The columns of it.
    pub columns: Vec<String>,
}

/// Who had a site send everything again, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resend {
    /// When it was asked for.
    pub at: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// Why, in words.
    pub reason: String,
    /// The epoch that was allotted for it; the site is done once it comes with that.
    #[serde(default)]
    pub epoch: Option<Epoch>,
}

impl Resend {
    /// Why the site begins a new epoch, as it is kept and told.
    pub fn as_reason(&self) -> String {
        format!("{} has sites send again: {}", self.by, self.reason)
    }
}

/// A planned closure of a site, always with an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredClosure {
    /// When it begins.
    pub from: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// Why, in words.
    pub reason: String,
    /// Who declared it.
    pub by: String,
}

/// That a site was taken off the roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// When.
    pub at: Timestamp,
    /// Why, in words.
    pub reason: String,
}

/// The life of a site's journal that HQ accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// What the site's agent named the journal when it made it.
    pub id: String,
    /// The epoch that was allotted to this life.
    pub epoch: Epoch,
    /// Why this epoch was allotted.
    pub reason: String,
    /// Whether HQ asked itself what this life may lack; before 0.2 it did not.
    #[serde(default)]
    pub is_asked_about: bool,
}

/// A life of a site's journal of which it is not known that it has all that was confirmed before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContestedLife {
    /// The epoch of this life.
    pub epoch: Epoch,
    /// The life that was current when it began.
    pub before: Epoch,
    /// When its epoch was allotted; of one that was shown, when HQ asked itself about it.
    pub began_at: Timestamp,
    /// What gave it away.
    pub reason: String,
    /// It took the place of the one before at once, as lives did before HQ 0.2.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_shown: bool,
    /// What was decided; none as long as that is open.
    #[serde(default)]
    pub ruling: Option<Ruling>,
}

/// What became of a contested life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// It is current from then on; else the one before stays so.
    pub is_accepted: bool,
    /// When that was decided.
    pub at: Timestamp,
    /// A person, or HQ itself where nothing is missing.
    pub by: String,
    /// Why, in words.
    pub reason: String,
}

impl ContestedLife {
    /// In a word, for people.
    pub fn state(&self) -> &'static str {
        match &self.ruling {
            None if self.is_shown => "shown, to be ruled on",
            None => "apart, to be ruled on",
            Some(ruling) if ruling.is_accepted => "accepted",
            Some(_) => "apart",
        }
    }

    /// Whether its rows are kept apart from the current ones.
    pub fn is_apart(&self) -> bool {
        match &self.ruling {
            Some(ruling) => !ruling.is_accepted,
            None => !self.is_shown,
        }
    }
}

impl SiteRecord {
    /// Whether an invitation made then lets nobody in any more: the site enrolled since, was
    /// retired, or was put back on the roster later. One from before does not come back to life
    /// with it.
    pub(crate) fn outdates(&self, made_at: Timestamp) -> bool {
        self.retired.is_some()
            || self.enrolled_at.is_some_and(|enrolled| enrolled >= made_at)
            || self.listed_at.is_some_and(|listed| made_at < listed)
    }

    /// Lives whose rows are kept apart.
    pub fn lives_apart(&self) -> impl Iterator<Item = Epoch> {
        self.contested.iter().filter(|life| life.is_apart()).map(|life| life.epoch)
    }

    /// The life on which a person must rule, or HQ when all is there.
    pub fn question(&self) -> Option<&ContestedLife> {
        self.contested.iter().rfind(|life| life.ruling.is_none())
    }

    /// Why what comes of the newest life is kept apart; none if it is not.
    pub fn held(&self) -> Option<String> {
        let newest = self.journal.as_ref()?.epoch;
        let life = self.contested.iter().find(|life| life.epoch == newest && life.is_apart())?;
        Some(match &life.ruling {
            Some(ruling) => format!("{} kept life {}: {}", ruling.by, life.before, ruling.reason),
            None => life.reason.clone(),
        })
    }

    /// The life whose rows are current.
    pub fn current_life(&self) -> Option<Epoch> {
        let newest = self.journal.as_ref()?.epoch;
        (1..=newest.0).rev().map(Epoch).find(|epoch| !self.lives_apart().any(|apart| apart == *epoch))
    }

    /// Since when what the site sends is kept apart: its rows here end there.
    pub fn apart_since(&self) -> Option<Timestamp> {
        let newest = self.journal.as_ref()?.epoch;
        let current = self.current_life().unwrap_or_default();
        // Of several lives in a row the first one ended what is shown.
        (current < newest)
            .then(|| self.contested.iter().filter(|life| life.epoch > current).map(|life| life.began_at).min())?
    }

    /// When the site opens for the first time, if that was declared.
    pub fn go_live(&self) -> Option<Timestamp> {
        let day = self.attributes.get("go_live")?.parse::<chrono::NaiveDate>().ok()?;
        begin_of(day, self.zone())
    }

    /// Whether the site has all these attributes; `id` is not one.
    pub fn has(&self, wanted: &BTreeMap<String, String>) -> bool {
        wanted.iter().all(|(name, value)| self.attributes.get(name) == Some(value.as_str()))
    }

    /// The value of an attribute by which rules name sites; `id` is one of them.
    pub fn value(&self, site: &SiteId, name: &str) -> Option<String> {
        match name {
            "id" => Some(site.to_string()),
            name => self.attributes.get(name).map(str::to_owned),
        }
    }

    /// Puts other attributes in the place of those it has.
    pub(crate) fn set_attributes(&mut self, attributes: Attributes, now: Timestamp) {
        let before = self.zone();
        self.attributes = attributes;
        let is_other_zone = self.zone() != before;
        if let Some(journal) = self.journal.as_ref().filter(|_| is_other_zone) {
            self.other_zone = Some(OtherZone { until: now, epoch: journal.epoch });
        }
    }

    /// Until when its local times were read in another zone, where its rows still say so.
    pub fn other_zone_until(&self) -> Option<Timestamp> {
        let other = self.other_zone?;
        let is_read_again = self.current_life().is_some_and(|life| life > other.epoch);
        let is_accepted = self.times_accepted.as_ref().is_some_and(|accepted| accepted.at >= other.until);
        (!is_read_again && !is_accepted).then_some(other.until)
    }

    /// The site's time zone; UTC if none is said, or none that is known.
    pub fn zone(&self) -> Tz {
        self.attributes.get("tz").and_then(|name| Tz::from_str(name).ok()).unwrap_or(Tz::UTC)
    }
}

/// When a day begins in a zone. Where clocks are set forward at midnight, that is an hour later.
pub fn begin_of(day: chrono::NaiveDate, zone: Tz) -> Option<Timestamp> {
    let hours = (0..=3).filter_map(|hour| zone.from_local_datetime(&day.and_hms_opt(hour, 0, 0)?).earliest());
    hours.map(|begin| Timestamp::from_micros(begin.timestamp_micros())).next()
}

/// Refuses the name that stands for HQ itself.
pub fn check_name(site: &SiteId) -> Result<(), HqError> {
    match site.as_str() == HQ_SITE {
        true => Err(invalid(format!("no site can be called {HQ_SITE}: that is HQ itself"))),
        false => Ok(()),
    }
}

/// Refuses a zone, hours or a go-live date that could not be understood later.
pub fn check_calendar(attributes: &Attributes) -> Result<(), HqError> {
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
